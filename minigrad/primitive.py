"""What an op is: a function on arrays, its kind, and its rule.

    @primitive(kind="elementwise", dtype="float", numpy=np.tanh)
    def tanh(x):
        \"\"\"Return the hyperbolic tangent of each element.\"\"\"
        return np.tanh(x)

    @tanh.vjp
    def _(g, y, _x):
        return (g * (1 - y * y),)

Called on arrays, an op is its forward. Called with an operand that has `__apply_primitive__` (a
Tensor), it hands itself over to that. In a class body (`tanh = ops.tanh`) it is a method. This file
knows neither numpy nor Tensor: any code can make an op of its own with these two steps.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import MethodType
from typing import Any, Literal, TypeVar, cast, get_args

from minigrad.arguments import Names, as_int, in_dtype, one_of
from minigrad.errors import ConfigError, DTypeError

Kind = Literal["elementwise", "reduce", "view", "contract", "gather", "random", "effect"]
Casting = Literal["float", "same"] | None
Function = TypeVar("Function", bound=Callable[..., Any])
T = TypeVar("T")

_WHOLE = {tuple, list, type(None)}  # a shape or the axes in one argument


class _Doors(dict[type, Any]):
    """For each type of an operand its `__apply_primitive__`, None for arrays and numbers."""

    def __missing__(self, kind: type) -> Any:
        self[kind] = door = getattr(kind, "__apply_primitive__", None)
        return door


_DOORS = _Doors()


def _shape_of_shapes(_number: int, _dtype: Any) -> bool:
    return False


class Primitive:
    """A named function on arrays with its derivative rule. Made by `primitive`.

    Operands are positional (arrays, Tensors, scalars); params are keywords, constant for the call.
    Positional arguments beyond the forward's are its params, in the order of its keywords.

    kind: what the compiler may assume: "elementwise" (broadcasts), "reduce", "view" (shares
        memory), "contract" (matrix products), "gather" (data movement by index), "random" (advances
        the state that is its last operand), "effect" (changes its first operand in place; the first
        n if it has a param `changes=n`).
    dtype: what a Tensor does with operands of several dtypes. "same": promotes them to one;
        "float": also turns integers into float32; None: leaves them alone.
    outputs: 1, or the number of arrays in the tuple that the forward returns.
    numpy: the numpy functions that it answers for when they are called on a Tensor.

    Set on the op after it is made, where the default does not hold:
    shape_depends_on_values: True for (i, dtype) if the output's shape depends on the values of
        operand i of that dtype, as it does for a bool mask.
    reads_other_operand: of two operands, each is read for the other's cotangent alone.
    zero_safe: the rule gives 0 for a cotangent of 0, whatever the operands are.
    warns: numpy may warn about integers, as it does when they are divided by zero.
    proportional: an optimizer's update is proportional to the gradients, as that of `sgd_` is; Adam
        divides them by their size.
    spreads: its first param may be written out: reshape(2, 3) is reshape(shape=(2, 3)).
    parts: of an op that only copies its operands: a function of the output's array, the operands
        and params that gives for each operand a pair of views, where its elements go and which they
        are. Elsewhere the output is 0, or the param `value`.
    written: of an effect that writes to a small part of its operand: a function of operands and
        params that gives the index of that part.
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        kind: Kind,
        dtype: Casting,
        outputs: int,
        numpy: tuple[Any, ...] = (),
    ) -> None:
        self.forward, self.kind, self.dtype, self.outputs = forward, kind, dtype, outputs
        self.numpy = numpy
        self.__name__, self.__qualname__ = forward.__name__, forward.__qualname__
        self.__doc__ = forward.__doc__
        self.__module__ = forward.__module__  # pickled by module and name, as a function is
        self.__wrapped__ = forward  # inspect.signature and help() show the forward's arguments
        self.name = forward.__name__
        self.user_defined = not str(forward.__module__).startswith(__name__.split(".")[0] + ".")
        self.rule: Callable[..., Any] | None = None
        self.composed_form: Callable[..., Any] | None = None
        self.keeps_output = self.wants_needs = False
        self.reads_other_operand = self.zero_safe = self.proportional = self.spreads = False
        self.warns = False
        self.parts: Callable[..., Any] | None = None
        self.written: Callable[..., Any] | None = None
        self.shape_depends_on_values: Callable[[int, Any], bool] = _shape_of_shapes
        # Which operands the rule reads; the last entry holds for all further ones.
        self.saves_operand: tuple[bool, ...] = ()
        self._names = Names(forward)
        self._params = frozenset(self._names.keyword)
        own = self.user_defined or self._names.takes_any_keyword or "dtype" in self._names.known
        self._works_in_any_dtype = not own  # dtype= is not among its params, but may be given
        # How many operands may follow the first.
        self._further = sys.maxsize if self._names.variadic else len(self._names.positional) - 1

    def __call__(self, input: T, *others: Any, **params: Any) -> T:  # PyTorch's name of it
        if len(others) > self._further or (params and not self._params.issuperset(params)):
            if self._works_in_any_dtype and "dtype" in params:
                return cast(T, in_dtype(self, input, others, params))
            input, others, params = self._arranged(input, others, params)
        operands = (input, *others)
        for x in operands:
            door = _DOORS[type(x)]
            if door is not None:
                return door(self, operands, params)
        try:
            return self.forward(*operands, **params)
        except (AttributeError, TypeError):
            if input is None:  # an optional operand of some, such as attention_grad
                raise DTypeError(self.name, "cannot work on None", wanted="Tensor") from None
            raise

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        # Not where the instance is none, or of another class than a tensor's.
        return self if _DOORS[type(instance)] is None else MethodType(self, instance)

    def _arranged(
        self, first: Any, others: tuple[Any, ...], params: dict[str, Any]
    ) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """Operands and params of a call in which some stand or are called otherwise: surplus
        positional arguments become params, keywords that name an operand become operands, other
        libraries' names ours.
        """
        names, n = self._names, self._further
        if self.spreads and others and (others[1:] or type(others[0]) not in _WHOLE):
            others = (others,)
        if not params and len(others) <= n + len(names.keyword):  # the common case: t.sum(0)
            return first, others[:n], dict(zip(names.keyword, others[n:], strict=False))
        if self.user_defined or names.takes_any_keyword:
            return first, others, params
        params = names.respelled(params)
        if names.variadic:
            return first, others, params
        order = (*names.positional, *names.keyword)
        if len(others) >= len(order):
            problem = f"takes at most {len(order)} arguments, got {len(others) + 1}"
            hint = f"{self.name}({', '.join(order)})"
            raise DTypeError(self.name, problem, len(others) + 1, len(order), hint)
        given = dict(zip(order, (first, *others), strict=False))
        for name in given.keys() & params.keys():
            raise ConfigError(self.name, f"{name} is given twice", (given[name], params[name]))
        given |= params
        count = max(i for i, name in enumerate(names.positional) if name in given) + 1
        first, *rest = (given.pop(n, names.defaults.get(n)) for n in names.positional[:count])
        return first, tuple(rest), given

    def vjp(self, rule: Function) -> Function:
        """Register the rule `(g, y, *operands, **params) -> one cotangent per operand`, None where
        there is none.

        Written with primitives and operators, it runs on arrays and on Tensors alike, so it can be
        differentiated again. Broadcasting is undone by the walk. A parameter whose name begins with
        an underscore is not kept for the backward pass: the rule sees its shape and dtype only. A
        rule with a keyword `needs` gets a tuple of bools, True where a cotangent is wanted, and may
        return None elsewhere. With `outputs` > 1, g and y are tuples; the g of an output that
        was not used is None.
        """
        names = Names(rule)
        _g, y, *operands = names.positional
        self.rule = rule
        self.keeps_output = not y.startswith("_")
        self.saves_operand = tuple(not n.startswith("_") for n in (*operands, names.rest or "_"))
        if self.composed_form is not None:
            self.saves_operand = (True,)
        self.wants_needs = "needs" in names.keyword
        return rule

    def composed(self, form: Function) -> Function:
        """Register the same function composed of simpler ops (of several outputs the first, or the
        first few as a tuple).

        It is the meaning of a fused op: tests hold the fast forward and rule against it, and second
            derivatives go through it.
        """
        self.composed_form = form
        self.saves_operand = (True,)
        return form

    def __repr__(self) -> str:
        return f"<primitive {self.name}: {self.kind}>"

    def __reduce__(self) -> str:
        return self.__qualname__  # pickled and copied by name, as a function is


def primitive(
    *bare: Any, kind: Kind | None = None, dtype: Casting = None, outputs: int = 1, numpy: Any = ()
) -> Callable[[Callable[..., Any]], Primitive]:
    """Make a function on arrays into an op. See `Primitive` for the meaning of the arguments and
    `Primitive.vjp` for its derivative.

    `kind` must be given. Raises ConfigError for an unknown kind or dtype, and for fewer than one
    output.
    """
    one_of("primitive", "kind", None if bare else kind, get_args(Kind))
    if dtype is not None:
        one_of("primitive", "dtype", dtype, ("float", "same"))
    as_int("primitive", "outputs", outputs)

    def make(forward: Callable[..., Any]) -> Primitive:
        return Primitive(forward, cast(Kind, kind), dtype, outputs, as_tuple(numpy))

    return make


def as_tuple(functions: Any) -> tuple[Any, ...]:
    """`numpy=` of an op: one function, or a tuple of them."""
    return functions if isinstance(functions, tuple) else (functions,)
