"""Functions of functions: derivatives without `.grad`, and checkpointing. All of them nest, to any
order.

Each derivative runs f on aliases of its arguments, so that no `.grad` is touched. What comes out is
part of a graph only where something outside is differentiated as well: an argument that requires a
gradient, or a tensor that f has closed over.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minigrad import autograd, ops
from minigrad.arguments import fits, require
from minigrad.dtypes import Array, is_float, name
from minigrad.errors import ConfigError, DTypeError
from minigrad.modes import Params, Relay, Values, enable_grad, is_grad_enabled, listening, no_grad
from minigrad.primitive import Primitive
from minigrad.tape import Node, nodes_above, slot_of
from minigrad.tensor import Tensor

__all__ = ["checkpoint", "grad", "hessian", "hvp", "jacobian", "jacrev", "jvp", "value_and_grad"]
__all__ += ["vjp"]

Function = Callable[..., Any]
ArgNums = int | tuple[int, ...]


def grad(f: Function, argnums: ArgNums = 0, has_aux: bool = False) -> Function:
    """The function that gives df / dx, for an f that gives one number.

    argnums: with respect to which argument, or a tuple of them for a tuple of gradients.
    has_aux: f gives (number, anything), and the result is (gradient, anything).
    Raises ShapeError if f gives more than one number.
    """
    both = value_and_grad(f, argnums, has_aux)

    @functools.wraps(f)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, g = both(*args, **kwargs)
        return (g, value[1]) if has_aux else g

    return gradient


def value_and_grad(f: Function, argnums: ArgNums = 0, has_aux: bool = False) -> Function:
    """The function that gives (f(x), df / dx). Arguments as in `grad`."""

    @functools.wraps(f)
    def both(*args: Any, **kwargs: Any) -> Any:
        run = _Run("grad", f, args, argnums, kwargs, has_aux)
        problem = f"f must give one number, got a tensor of shape {run.y.shape}"
        hint = "reduce it (.sum(), .mean()), or use jacrev or vjp"
        fits(run.y.numel() == 1, "grad", problem, run.y.shape, hint)
        found = run.only(run.pull(run.y.ones_like()))
        value = run.result(run.y)
        return ((value, run.aux) if has_aux else value), found

    return both


def vjp(f: Function, *primals: Any) -> tuple[Tensor, Callable[[Any], tuple[Tensor, ...]]]:
    """f(*primals), and the function v -> v^T J: one cotangent per primal, as a tuple. It may be
    called any number of times.
    """
    run = _Run("vjp", f, primals, tuple(range(len(primals))))
    return run.result(run.y), lambda v: run.pull(_fitting("vjp", v, run.y))


def jvp(f: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """f(*primals), and J t, the derivative of f along the tangents.

    Reverse mode twice: v^T J is linear in v, and its own cotangent for t is J t. Exact, not a
        difference; about three times the cost of f.
    """
    _as_many("jvp", primals, tangents)
    run = _Run("jvp", f, primals, tuple(range(len(primals))))
    along = [_fitting("jvp", t, x) for x, t in zip(run.xs, tangents, strict=True)]
    return run.result(run.y), run.push(*run.linear(), along)


def jacrev(f: Function, argnums: ArgNums = 0) -> Function:
    """The function that gives the Jacobian df / dx, of shape f(x).shape + x.shape, row by row: one
    backward pass per element of f(x).

    argnums: as in `grad`.
    """

    @functools.wraps(f)
    def rows(*args: Any, **kwargs: Any) -> Any:
        run = _Run("jacrev", f, args, argnums, kwargs)
        return run.only(_by_rows(run))

    return rows


def jacobian(f: Function, argnums: int = 0) -> Function:
    """The function that gives the Jacobian df / dx, of shape f(x).shape + x.shape: by rows or by
    columns, whichever are fewer.
    """

    @functools.wraps(f)
    def matrix(*args: Any, **kwargs: Any) -> Tensor:
        run = _Run("jacobian", f, args, argnums, kwargs)
        return _by_rows(run)[0] if run.y.numel() <= run.xs[0].numel() else _by_columns(run)

    return matrix


def hessian(f: Function, argnums: int = 0) -> Function:
    """The function that gives the matrix of second derivatives of an f that gives one number, of
    shape x.shape + x.shape.
    """
    return jacrev(grad(f, argnums), argnums)


def hvp(f: Function, primals: Any, tangents: Any) -> Any:
    """H t, the Hessian of f (which gives one number) times the tangents, without the Hessian: the
    derivative of the gradient along t.

    primals, tangents: a tensor each, or tuples; the result is like primals.
    """
    if isinstance(primals, (Tensor, np.ndarray, float, int)):
        return hvp(f, (primals,), (tangents,))[0]
    _as_many("hvp", primals, tangents)
    every = tuple(range(len(primals)))

    def slope(*args: Tensor) -> Any:
        along = [_fitting("hvp", t, x) for t, x in zip(tangents, args, strict=True)]
        return sum((g * t).sum() for g, t in zip(grad(f, every)(*args), along, strict=True))

    return grad(slope, every)(*primals)


class _Run:
    """One call of f on aliases of its arguments.

    xs: the aliases that are differentiated.   y: what f gave.   aux: its auxiliary result.
    outer: True if something outside may be differentiated through the results.
    """

    def __init__(
        self,
        call: str,
        f: Function,
        args: Sequence[Any],
        argnums: ArgNums,
        kwargs: dict[str, Any] | None = None,
        has_aux: bool = False,
    ) -> None:
        inside = list(args)
        self.xs: list[Tensor] = []
        self.several = isinstance(argnums, tuple)
        with enable_grad():
            for i in argnums if isinstance(argnums, tuple) else (argnums,):
                if not -len(args) <= i < len(args):
                    problem = f"argnums={argnums}, but f was called with {len(args)} arguments"
                    raise ConfigError(call, problem, argnums)
                inside[i] = _alias(call, args[i])
                self.xs.append(inside[i])
            y, self.aux = f(*inside, **(kwargs or {})), None
        if has_aux:
            if not isinstance(y, tuple) or len(y) != 2:
                raise ConfigError(call, "with has_aux=True f must give (number, anything)", type(y))
            y, self.aux = y
        if not isinstance(y, Tensor):
            raise DTypeError(call, f"f gave {type(y).__name__}, expected a Tensor", type(y), Tensor)
        self.y = y
        self.outer = is_grad_enabled() and _has_other_leaves(y, self.xs)

    def pull(self, v: Tensor, linear: bool = False) -> tuple[Tensor, ...]:
        """v^T J for each of xs; as a function of v if `linear`."""
        if not (self.xs and self.y.requires_grad):
            return tuple(x.zeros_like() for x in self.xs)
        graph = self.outer or linear
        return autograd.grad(
            self.y, self.xs, v, retain_graph=True, create_graph=graph, materialize_grads=True
        )

    def linear(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """v, and v^T J as a function of it."""
        v = self.y.ones_like(requires_grad=True)  # of zeros, infinite derivatives would be masked
        return v, self.pull(v, linear=True)

    def push(self, v: Tensor, pulled: Sequence[Tensor], tangents: Sequence[Tensor]) -> Tensor:
        """J t, from what `linear` gave."""
        pairs = [(g, t) for g, t in zip(pulled, tangents, strict=True) if g.requires_grad]
        if not pairs:
            return self.y.zeros_like()
        roots, along = zip(*pairs, strict=True)
        return autograd.grad(
            roots, v, along, retain_graph=True, create_graph=self.outer, materialize_grads=True
        )[0]

    def only(self, results: Sequence[Tensor]) -> Any:
        """The results for argnums: one, or a tuple of them."""
        return tuple(results) if self.several else results[0]

    def result(self, t: Tensor) -> Tensor:
        """A tensor without the private part of the graph, unless something outside needs it."""
        return t if self.outer else t.detach()


def _alias(call: str, x: Any) -> Tensor:
    x = x if isinstance(x, Tensor) else Tensor(x)
    if not is_float(x.dtype):
        problem = f"cannot differentiate with respect to {name(x.dtype)}, expected a float"
        raise DTypeError(call, problem, x.dtype, hint=".float() first")
    return ops.alias(x) if x.requires_grad else x.detach().requires_grad_()


def _has_other_leaves(y: Tensor, own: Sequence[Tensor]) -> bool:
    """True if y depends on a leaf that is not one of `own`."""
    leaves = {id(y): y} if y.is_leaf and y.requires_grad else {}
    nodes_above([y], leaves=leaves)
    return bool(leaves.keys() - {id(x) for x in own})


def _as_many(call: str, primals: Sequence[Any], tangents: Sequence[Any]) -> None:
    """Raise ConfigError unless both are tuples or lists, ShapeError unless of the same length."""
    for which, given in (("primals", primals), ("tangents", tangents)):
        require(isinstance(given, (tuple, list)), call, which, given, "a tuple of tensors")
    n = len(tangents)
    fits(n == len(primals), call, f"{len(primals)} primals but {n} tangents", n)


def _fitting(call: str, v: Any, like: Tensor) -> Tensor:
    """A tangent or cotangent: of the other's shape and dtype."""
    v = v if isinstance(v, Tensor) else Tensor(v)
    problem = f"a direction of shape {v.shape} for a tensor of shape {like.shape}"
    fits(v.shape == like.shape, call, problem, v.shape)
    return v.cast(like.dtype)


def _basis(like: Tensor) -> list[Tensor]:
    """The unit vectors of the other's shape and dtype."""
    rows = np.eye(like.numel(), dtype=np.float32)
    return [Tensor._wrap(row.reshape(like.shape)).cast(like.dtype) for row in rows]


def _by_rows(run: _Run) -> list[Tensor]:
    """The Jacobian with respect to each of xs, one backward pass per row."""
    shapes = [run.y.shape + x.shape for x in run.xs]
    rows = [run.pull(v) for v in _basis(run.y)]
    if not rows:
        return [Tensor.zeros(s, dtype=x.dtype) for s, x in zip(shapes, run.xs, strict=True)]
    columns = zip(*rows, strict=True)
    return [ops.stack(*gs).reshape(s) for s, gs in zip(shapes, columns, strict=True)]


def _by_columns(run: _Run) -> Tensor:
    """The Jacobian with respect to the one x, one pass per column."""
    linear, shape = run.linear(), run.y.shape + run.xs[0].shape
    columns = [run.push(*linear, [t]) for t in _basis(run.xs[0])]
    if not columns:
        return Tensor.zeros(shape, dtype=run.y.dtype)
    return ops.stack(*columns, axis=-1).reshape(shape)


# --- checkpointing: forget what a part of the model has computed, and compute it again in the
# backward pass. From Chen et al. 2016, arXiv:1604.06174. Memory falls by what is inside the part,
# time grows by its forward pass.

# By the id of a generator's state array: the state, and what it held first.
States = dict[int, tuple[Tensor, Tensor]]


def checkpoint(
    f: Callable[..., Any],
    *xs: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    **options: Any,
) -> Any:
    """f(*xs, **options), of which backward needs only the arguments: f is run again there, and
    draws the same random numbers from every `Generator`.

    f: gives a Tensor, or a tuple of them. Gradients reach xs and every tensor that f reads,
        parameters of layers among them.
    use_reentrant, preserve_rng_state: accepted as PyTorch has them; neither changes anything.
    What f does besides computing, such as moving running statistics, it does twice.
    """
    call = functools.partial(f, *xs, **options)
    if not is_grad_enabled():
        return call()
    heard = _Heard()
    with no_grad(), listening(heard):
        given = call()
        outputs = tuple(_own(y) for y in (given if isinstance(given, tuple) else (given,)))
    read = [*(x for x in xs if isinstance(x, Tensor)), *heard.read.values()]
    # A tensor that is given twice is one operand, whose cotangent is the sum for both.
    operands = list({slot_of(x): x for x in read}.values())
    if any(x.requires_grad for x in operands):
        _record(_recomputing(call, operands, heard.states), operands, outputs)
    return outputs if isinstance(given, tuple) else outputs[0]


def _record(op: Primitive, operands: list[Tensor], outputs: tuple[Tensor, ...]) -> None:
    """Leave a node on the tape."""
    node = Node(op, operands, {}, outputs)
    for i, y in enumerate(outputs):
        if is_float(y.dtype):
            y._node, y._index, y._wants = node, i, True


def _own(y: Any) -> Tensor:
    """A result as a tensor that nothing else holds."""
    if not isinstance(y, Tensor):
        problem = f"f must give a Tensor or a tuple of them, got {type(y).__name__}"
        raise DTypeError("checkpoint", problem, type(y))
    return ops.alias(y)


class _Heard(Relay):
    """What f reads from outside, and where the generators stood that it draws from.

    Under no_grad nothing that f makes requires a gradient: an operand that does comes from outside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.read: dict[int, Tensor] = {}
        self.states: States = {}

    def run(self, op: Primitive, arrays: Values, params: Params) -> Any:
        if op.kind == "random":
            self._note(arrays[-1])
        return super().run(op, arrays, params)

    def drawing(self, state: Array) -> None:
        self._note(state)
        super().drawing(state)

    def _note(self, state: Array) -> None:
        if id(state) not in self.states:
            t = Tensor._wrap(state)
            self.states[id(state)] = t, ops.copy(t)

    def done(self, op: Primitive, operands: Values, params: Params, outputs: Values) -> None:
        for x in operands:
            if isinstance(x, Tensor) and x.requires_grad:
                self.read.setdefault(id(x), x)
        super().done(op, operands, params, outputs)


def _recomputing(call: functools.partial[Any], operands: list[Tensor], states: States) -> Primitive:
    """The op whose rule makes the call again and goes back through it."""
    f = call.func

    def forward(*values: Any) -> Any:  # f may be a module, which has no name
        return f(*values)

    op = Primitive(forward, "contract", None, 2)  # of 2 outputs and more, a rule gets a sequence
    op.name = f"checkpoint({getattr(f, '__name__', type(f).__name__)})"
    op.user_defined = False

    def rule(gs: Sequence[Any], _y: Any, *_values: Any, needs: Sequence[bool]) -> list[Any]:
        wanted = [x for x, need in zip(operands, needs, strict=True) if need]
        with _restored(states):
            found = iter(autograd.rerun(call, wanted, gs))
        return [next(found) if need else None for need in needs]

    op.vjp(rule)
    op.saves_operand = (True,)  # f will read every operand again, so none may be changed meanwhile
    return op


@contextmanager
def _restored(states: States) -> Iterator[None]:
    """Inside, the generators draw what they drew the first time; afterwards they go on as before.
    By ops, so that a recorder sees it.
    """
    now = [(state, ops.copy(state)) for state, _ in states.values()]
    for state, then in states.values():
        ops.assign(state, then)
    try:
        yield
    finally:
        for state, before in now:
            ops.assign(state, before)
