"""Derivatives as functions: grad, vjp, jvp, Jacobians, Hessians.

Each runs f on aliases of its arguments, so that `.grad` of nothing is touched. What comes out is
part of a graph only where something outside is
differentiated as well: an argument that requires a gradient, or a tensor that f has closed over.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigrad import autograd, ops
from minigrad.autograd import enable_grad, nodes_above
from minigrad.dtypes import is_float, name
from minigrad.errors import ConfigError, DTypeError, ShapeError
from minigrad.tensor import Tensor

Function = Callable[..., Any]
ArgNums = int | tuple[int, ...]


def grad(f: Function, argnums: ArgNums = 0, has_aux: bool = False) -> Function:
    """The function that gives df / dx, for an f that gives one number.

    argnums: with respect to which argument, or a tuple of them for a tuple of gradients.   has_aux:
        f gives (number, anything), and the result
    is (gradient, anything). Raises ShapeError if f gives more than one number.
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
        if run.y.numel() != 1:
            raise ShapeError(
                "grad",
                f"f gave a tensor of shape {run.y.shape}, not one number",
                got=run.y.shape,
                wanted=(),
                hint="reduce it (.sum(), .mean()), or use jacrev or vjp",
            )
        gs = run.pull(run.y.ones_like())
        value = run.result(run.y)
        return ((value, run.aux) if has_aux else value), (gs[0] if isinstance(argnums, int) else gs)

    return both


def vjp(f: Function, *primals: Any) -> tuple[Tensor, Callable[[Any], tuple[Tensor, ...]]]:
    """f(*primals), and the function v -> v^T J: one cotangent per primal, as a tuple. It may be
    called any number of times.
    """
    run = _Run("vjp", f, primals, tuple(range(len(primals))), {})

    def pull(v: Any) -> tuple[Tensor, ...]:
        return run.pull(_fitting("vjp", v, run.y))

    return run.result(run.y), pull


def jvp(f: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """f(*primals), and J t, the derivative of f along the tangents.

    Reverse mode twice: v^T J is linear in v, and its own cotangent for t is J t. Exact, not a
        difference; about three times the cost of f.
    """
    if len(primals) != len(tangents):
        raise ShapeError(
            "jvp",
            f"{len(primals)} primals but {len(tangents)} tangents",
            got=len(tangents),
            wanted=len(primals),
        )
    run = _Run("jvp", f, primals, tuple(range(len(primals))), {})
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
        found = _by_rows(run)
        return found[0] if isinstance(argnums, int) else found

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
    single = isinstance(primals, (Tensor, np.ndarray, float, int))
    xs, ts = ((primals,), (tangents,)) if single else (tuple(primals), tuple(tangents))
    if len(xs) != len(ts):
        raise ShapeError(
            "hvp", f"{len(xs)} primals but {len(ts)} tangents", got=len(ts), wanted=len(xs)
        )

    def slope(*args: Tensor) -> Any:
        gs = grad(f, tuple(range(len(args))))(*args)
        return sum((g * _fitting("hvp", t, x)).sum() for g, t, x in zip(gs, ts, args, strict=True))

    found = grad(slope, tuple(range(len(xs))))(*xs)
    return found[0] if single else found


class _Run:
    """One call of f on aliases of its arguments.

    xs: the aliases that are differentiated.   y: what f gave.   outer: whether somebody outside may
        want to differentiate the results.
    """

    def __init__(
        self,
        call: str,
        f: Function,
        args: Sequence[Any],
        argnums: ArgNums,
        kwargs: dict[str, Any],
        has_aux: bool = False,
    ) -> None:
        inside = list(args)
        self.xs: list[Tensor] = []
        with enable_grad():
            for i in (argnums,) if isinstance(argnums, int) else argnums:
                if not -len(args) <= i < len(args):
                    raise ConfigError(
                        call,
                        f"argnums={argnums}, but f was called with {len(args)} arguments",
                        got=argnums,
                    )
                inside[i] = _alias(call, args[i])
                self.xs.append(inside[i])
            y = f(*inside, **kwargs)
        self.aux = None
        if has_aux:
            if not isinstance(y, tuple) or len(y) != 2:
                raise ConfigError(
                    call, "has_aux=True wants f to give (number, anything)", got=type(y)
                )
            y, self.aux = y
        if not isinstance(y, Tensor):
            raise DTypeError(call, f"f gave {type(y).__name__}", got=type(y), wanted=Tensor)
        self.y = y
        self.outer = autograd.is_grad_enabled() and _has_other_leaves(y, self.xs)

    def pull(self, v: Tensor) -> tuple[Tensor, ...]:
        """v^T J for each of xs."""
        if not (self.xs and self.y.requires_grad):
            return tuple(x.zeros_like() for x in self.xs)
        return autograd.grad(
            self.y, self.xs, v, retain_graph=True, create_graph=self.outer, materialize_grads=True
        )

    def linear(self) -> tuple[Tensor, list[Tensor]]:
        """v, and v^T J as a function of it."""
        v = self.y.ones_like(requires_grad=True)  # of zeros, infinite derivatives would be masked
        if not (self.xs and self.y.requires_grad):
            return v, [x.zeros_like() for x in self.xs]
        return v, list(autograd.grad(self.y, self.xs, v, create_graph=True, materialize_grads=True))

    def push(self, v: Tensor, pulled: list[Tensor], tangents: list[Tensor]) -> Tensor:
        """J t, from what `linear` gave."""
        pairs = [(g, t) for g, t in zip(pulled, tangents, strict=True) if g.requires_grad]
        if not pairs:
            return self.y.zeros_like()
        roots, along = zip(*pairs, strict=True)
        found: Tensor = autograd.grad(
            roots, v, along, retain_graph=True, create_graph=self.outer, materialize_grads=True
        )[0]
        return found

    def result(self, t: Tensor) -> Tensor:
        """What may leave: without the private part of the graph where nobody outside needs it."""
        return t if self.outer else t.detach()


def _alias(call: str, x: Any) -> Tensor:
    x = x if isinstance(x, Tensor) else Tensor(x)
    if not is_float(x.dtype):
        raise DTypeError(
            call,
            f"cannot differentiate with respect to {name(x.dtype)}",
            got=x.dtype,
            wanted="a float",
            hint=".float() first",
        )
    return ops.alias(x) if x.requires_grad else x.detach().requires_grad_()


def _has_other_leaves(y: Tensor, own: Sequence[Tensor]) -> bool:
    """Whether y depends on a leaf that is not one of `own`."""
    leaves: dict[int, Tensor] = {}
    nodes_above([y], leaves=leaves)
    if y.is_leaf and y.requires_grad:
        leaves[id(y)] = y
    return bool(leaves.keys() - {id(x) for x in own})


def _fitting(call: str, v: Any, like: Tensor) -> Tensor:
    """A tangent or cotangent: of the other's shape and dtype."""
    v = v if isinstance(v, Tensor) else Tensor(v)
    if v.shape != like.shape:
        raise ShapeError(
            call,
            f"a direction of shape {v.shape} for a tensor of shape {like.shape}",
            got=v.shape,
            wanted=like.shape,
        )
    return v.cast(like.dtype)


def _basis(like: Tensor) -> list[Tensor]:
    """The unit vectors of the other's shape and dtype."""
    count = like.numel()
    return [
        Tensor._wrap(row.reshape(like.shape)).cast(like.dtype)
        for row in np.eye(count, dtype=np.float32)
    ]


def _by_rows(run: _Run) -> tuple[Tensor, ...]:
    """The Jacobian with respect to each of xs, one backward pass per row."""
    rows = [run.pull(v) for v in _basis(run.y)]
    if not rows:
        return tuple(Tensor.zeros(run.y.shape + x.shape, dtype=x.dtype) for x in run.xs)
    stacked = (first.stack(*others) for first, *others in zip(*rows, strict=True))
    return tuple(J.reshape(run.y.shape + x.shape) for x, J in zip(run.xs, stacked, strict=True))


def _by_columns(run: _Run) -> Tensor:
    """The Jacobian with respect to the one x, one pass per column."""
    (x,) = run.xs
    linear = run.linear()
    columns = [run.push(*linear, [t]) for t in _basis(x)]
    if not columns:
        return Tensor.zeros(run.y.shape + x.shape, dtype=run.y.dtype)
    return columns[0].stack(*columns[1:], axis=-1).reshape(run.y.shape + x.shape)
