"""What an op is: a function on arrays, its kind, and its rule.

    @primitive(kind="elementwise", dtype="float")
    def tanh(x):
        \"\"\"Hyperbolic tangent, elementwise.\"\"\"
        return np.tanh(x)

    @tanh.vjp
    def _(g, y, _x):
        return (g * (1 - y * y),)

Called on arrays, an op is its forward. Called with an operand that knows `__apply_primitive__` (a
Tensor), it hands itself over. This file
knows neither numpy nor Tensor: any code can make an op of its own with these two steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args

from minigrad.errors import ConfigError

Kind = Literal["elementwise", "reduce", "view", "contract", "gather", "random", "effect"]
Casting = Literal["float", "same"] | None
Function = TypeVar("Function", bound=Callable[..., Any])
T = TypeVar("T")

_VARIADIC, _PLAIN_TYPES = 0x04, {float, int, bool, type(None)}


def _shape_of_shapes(_number: int, _dtype: Any) -> bool:
    return False


class Primitive:
    """A named function on arrays with its derivative rule beside it. Made by `primitive`.

    Operands are positional (arrays, Tensors, scalars); params are keywords, constant for the call.

    kind: what the compiler may assume: "elementwise" (broadcasts), "reduce", "view" (shares
        memory), "contract" (matrix products), "gather" (data movement by index), "random" (advances
        the state that is its last operand), "effect" (changes its first operand in place; the first
        n if it has a param `changes=n`).
    dtype: what a Tensor does with operands of several dtypes. "same": promotes them to one;
        "float": also turns integers into float32; None: leaves them alone.
    outputs: 1, or the number of arrays in the tuple that the forward returns.
    counts: whether the shape of the output depends on what is in the operand of this number and
        dtype, as it does for a mask; set behind the op.
    """

    def __init__(
        self, forward: Callable[..., Any], kind: Kind, dtype: Casting, outputs: int
    ) -> None:
        self.forward, self.kind, self.dtype, self.outputs = forward, kind, dtype, outputs
        self.__name__, self.__qualname__, self.__doc__ = (
            forward.__name__,
            forward.__qualname__,
            forward.__doc__,
        )
        self.__module__ = forward.__module__  # pickled by module and name, as a function is
        self.__wrapped__ = forward  # inspect.signature and help() show the forward's arguments
        self.name = forward.__name__
        self.users = not str(forward.__module__).startswith(
            __name__.split(".")[0] + "."
        )  # an op of the user's own, not the library's
        self.rule: Callable[..., Any] | None = None
        self.composed_form: Callable[..., Any] | None = None
        self.keeps_output = self.wants_needs = False
        self.crosswise = (
            False  # of two operands, each is read for the other's cotangent alone, as in a product
        )
        self.zero_safe = False  # the rule gives 0 for a cotangent of 0, whatever the operands are
        self.counts: Callable[[int, Any], bool] = _shape_of_shapes
        self.keeps: tuple[
            bool, ...
        ] = ()  # which operands the rule reads; the last entry holds for all further ones

    def __call__(self, first: T, *others: Any, **params: Any) -> T:
        operands = (first, *others)
        for x in operands:
            kind = type(x)
            if kind not in _PLAIN_TYPES and hasattr(kind, "__apply_primitive__"):
                return kind.__apply_primitive__(self, operands, params)
        return self.forward(*operands, **params)

    def vjp(self, rule: Function) -> Function:
        """Register the rule `(g, y, *operands, **params) -> one cotangent per operand`, None where
        there is none.

        Written with primitives and operators, it runs on arrays and on Tensors alike, so it can be
        differentiated again. Broadcasting is undone by the walk. A parameter whose name begins with
        an underscore is not kept for the backward pass: the rule sees its shape and dtype only. A
        rule with a keyword `needs` gets a tuple of bools, True where a cotangent is wanted, and may
        return None elsewhere. With `outputs` > 1, g and y are tuples; the g of an output that
        nobody used is None.
        """
        code = rule.__code__
        names = code.co_varnames[: code.co_argcount]
        keywords = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
        rest = (
            code.co_varnames[code.co_argcount + code.co_kwonlyargcount]
            if code.co_flags & _VARIADIC
            else "_"
        )
        kept = tuple(not n.startswith("_") for n in names[2:])
        keep_rest = not rest.startswith("_")
        self.rule = rule
        self.keeps_output = not names[1].startswith("_")
        self.keeps = (True,) if self.composed_form is not None else (*kept, keep_rest)
        self.wants_needs = "needs" in keywords
        return rule

    def composed(self, form: Function) -> Function:
        """Register the same function composed of simpler ops (of several outputs the first, or the
        first few as a tuple).

        It is the meaning of a fused op: tests hold the fast forward and rule against it, and second
            derivatives go through it.
        """
        self.composed_form = form
        self.keeps = (True,)
        return form

    def __repr__(self) -> str:
        return f"<primitive {self.name}: {self.kind}>"

    def __reduce__(self) -> str:
        return self.__qualname__  # pickled and copied by name, as a function is


def primitive(
    *bare: Any, kind: Kind | None = None, dtype: Casting = None, outputs: int = 1
) -> Callable[[Callable[..., Any]], Primitive]:
    """Make a function on arrays into an op. See `Primitive` for the meaning of the arguments and
    `Primitive.vjp` for its derivative.

    `kind` must be given. Raises ConfigError for a kind or dtype that there is not, and for fewer
    than one output.
    """
    if bare or kind is None or kind not in get_args(Kind):
        raise ConfigError(
            "primitive",
            "without a kind" if kind is None else f"kind={kind!r}",
            got=kind,
            wanted=get_args(Kind),
            hint='@primitive(kind="elementwise"), or another of ' + ", ".join(get_args(Kind)),
        )
    if dtype not in ("float", "same", None):
        raise ConfigError(
            "primitive",
            f"dtype={dtype!r}",
            got=dtype,
            wanted=("float", "same", None),
            hint='"same" promotes operands to one dtype, "float" to a float too, None leaves them '
            "alone",
        )
    if not isinstance(outputs, int) or outputs < 1:
        raise ConfigError(
            "primitive",
            f"outputs={outputs!r}",
            got=outputs,
            wanted=1,
            hint="the number of arrays that the function returns",
        )
    known: Kind = kind

    def make(forward: Callable[..., Any]) -> Primitive:
        return Primitive(forward, known, dtype, outputs)

    return make
