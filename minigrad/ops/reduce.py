"""Reductions: along one axis, several or all; and norms, which divide by one.

Sums in float32 are pairwise or blocked along every axis: a plain loop over 4 million rows loses
1.5e-5, blocks lose 1e-8.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from minigrad.arguments import as_float
from minigrad.dtypes import Array, DType, adding, float32
from minigrad.errors import DTypeError, ShapeError
from minigrad.ops.axis import Axis, axes, kept_shape, one_axis, with_sizes
from minigrad.ops.calculus import exp, pow, sqrt, square
from minigrad.ops.composite import composite
from minigrad.ops.elementwise import difference, div, isinf, mask_cotangent, maximum, where
from minigrad.ops.movement import cast, expand, reshape
from minigrad.primitive import primitive

# Rows added one after the other, where errors of one sign can pile up; between blocks the sum is a
# tree.
_BLOCK = 32


def broadcast_back(y: Any, axis: Axis, shape: tuple[int, ...]) -> Any:
    """Return a reduced result, or its cotangent, broadcast over the axes that were reduced."""
    return expand(reshape(y, shape=kept_shape(shape, axis)), shape=shape)


@primitive(kind="reduce", numpy=np.sum)
def sum(x: Array, *, axis: Axis = None, keepdim: bool = False) -> Array:
    """Return the sum along `axis` (None: all); 0 for an empty one. Bools and small integers add up
    in int64.
    """
    gone = axes(axis, x.ndim, "sum")
    if x.dtype.kind == "f" and x.ndim > 1:
        kept = tuple(a for a in range(x.ndim) if a not in gone)
        count = math.prod(x.shape[a] for a in gone)
        # numpy sums pairwise only along the innermost axes in memory, and row by row along others.
        if count > _BLOCK and not (x.flags.c_contiguous and (*kept, *gone) == tuple(range(x.ndim))):
            y = sum_rows(x.transpose(*gone, *kept).reshape(count, *(x.shape[a] for a in kept)))
            return np.asarray(y).reshape(kept_shape(x.shape, axis)) if keepdim else y
    return np.sum(x, axis=gone, keepdims=keepdim, dtype=adding(x.dtype))


def sum_rows(x: Array) -> Array:
    """Return the sum over axis 0, in blocks of blocks, so that errors grow with the number of
    levels and not with the number of rows.
    """
    while len(x) > _BLOCK:
        whole = len(x) - len(x) % _BLOCK
        blocks = np.add.reduce(x[:whole].reshape(whole // _BLOCK, _BLOCK, *x.shape[1:]), axis=1)
        rest = [np.add.reduce(x[whole:], axis=0, keepdims=True)] if whole < len(x) else []
        x = np.concatenate([blocks, *rest]) if rest else blocks
    return np.add.reduce(x, axis=0)


@lru_cache(maxsize=64)
def ones_column(n: int, dtype: DType) -> Array:
    """Return read-only (n, 1) ones, cached: making them costs more than the product of a small
    step.
    """
    ones = np.ones((n, 1), dtype)
    ones.flags.writeable = False
    return ones


@sum.vjp
def _(g, _y, _x, *, axis=None, keepdim=False):
    return (broadcast_back(g, axis, _x.shape),)


@composite(widen=True, numpy=np.mean)
def mean(x: Any, axis: Axis = None, keepdim: bool = False) -> Any:
    """Return the mean along `axis`: sum / n."""
    return sum(x, axis=axis, keepdim=keepdim) / (_count(x, axis, "mean") or float("nan"))


def _count(x: Any, axis: Axis, call: str) -> int:
    return math.prod(x.shape[a] for a in axes(axis, x.ndim, call))


@composite(widen=True, numpy=np.var)
def var(x: Any, axis: Axis = None, correction: float = 1, keepdim: bool = False) -> Any:
    """Return the variance along `axis`: sum (x - mean)^2 / (n - correction).

    correction=1 is the sample's variance, 0 the population's. With correction >= n the divisor is
    0, so the variance is inf, or NaN if all elements are equal. Raises DTypeError for a bool.
    """
    if isinstance(correction, (bool, np.bool_)):
        hint = "correction=0 divides by n, correction=1 by n - 1; keepdim=True keeps the axes"
        raise DTypeError("var", f"correction={correction!r} is not a number", correction, hint=hint)
    left = _count(x, axis, "var") - correction
    centred = x - mean(x, axis, keepdim=True)
    return div(sum(centred * centred, axis=axis, keepdim=keepdim), left if left > 0 else 0)


@composite(widen=True, numpy=np.std)
def std(x: Any, axis: Axis = None, correction: float = 1, keepdim: bool = False) -> Any:
    """Return the standard deviation along `axis`: sqrt(var). Its gradient is 0 where all elements
    are equal, as in PyTorch.
    """
    variance = var(x, axis, correction, keepdim)
    flat = variance == 0
    return where(flat, 0, sqrt(where(flat, 1, variance)))


@composite(widen=True)
def var_mean(x: Any, axis: Axis = None, correction: float = 1, keepdim: bool = False) -> Any:
    """Return the variance and the mean along `axis`."""
    return var(x, axis, correction, keepdim), mean(x, axis, keepdim)


@composite(widen=True)
def std_mean(x: Any, axis: Axis = None, correction: float = 1, keepdim: bool = False) -> Any:
    """Return the standard deviation and the mean along `axis`."""
    return std(x, axis, correction, keepdim), mean(x, axis, keepdim)


@primitive(kind="reduce", numpy=(np.max, np.amax))
def max(x: Array, *, axis: Axis = None, keepdim: bool = False) -> Array:
    """Return the largest along `axis`; NaN if there is one. Ties share the gradient evenly. Raises
    ShapeError for an empty axis.
    """
    return np.max(x, axis=_not_empty(x, axis, "max"), keepdims=keepdim)


@primitive(kind="reduce", numpy=(np.min, np.amin))
def min(x: Array, *, axis: Axis = None, keepdim: bool = False) -> Array:
    """Return the smallest along `axis`; NaN if there is one. Ties share the gradient evenly. Raises
    ShapeError for an empty axis.
    """
    return np.min(x, axis=_not_empty(x, axis, "min"), keepdims=keepdim)


def _not_empty(x: Array, axis: Axis, call: str) -> tuple[int, ...]:
    found = axes(axis, x.ndim, call)
    for a in found:
        if x.shape[a] == 0:
            problem = f"axis {a} of {x.shape} is empty, so it has no {call}"
            raise ShapeError(call, problem, got=x.shape)
    return found


@max.vjp
@min.vjp
def _(g, y, x, *, axis=None, keepdim=False):
    return (broadcast_back(g, axis, x.shape) * tie_shares(x, y, axis=axis),)


@primitive(kind="reduce")
def tie_shares(x: Array, y: Array, *, axis: Axis) -> Array:
    """Return 1 / count at each of the `count` places along `axis` where x attains its extremum y, 0
    elsewhere. Counted in float64.
    """
    ties = x == y.reshape(kept_shape(x.shape, axis))
    count = np.add.reduce(ties, axis=axes(axis, x.ndim, "max"), keepdims=True, dtype=np.float64)
    return (ties / np.maximum(count, 1)).astype(x.dtype if x.dtype.kind == "f" else np.float32)


@primitive(kind="reduce", numpy=np.argmax)
def argmax(x: Array, *, axis: int | None = None, keepdim: bool = False) -> Array:
    """Return the index of the first largest element along `axis` (None: in the flattened tensor),
    as int64.
    """
    _not_empty(x, axis, "argmax")
    return np.argmax(x, axis=axis, keepdims=keepdim)


@primitive(kind="reduce", numpy=np.argmin)
def argmin(x: Array, *, axis: int | None = None, keepdim: bool = False) -> Array:
    """Return the index of the first smallest element along `axis` (None: in the flattened tensor),
    as int64.
    """
    _not_empty(x, axis, "argmin")
    return np.argmin(x, axis=axis, keepdims=keepdim)


class Indexed(NamedTuple):
    """Values, and the indices that they came from."""

    values: Any
    indices: Any


@composite
def max_with_index(x: Any, axis: int, keepdim: bool = False) -> Indexed:
    """Return the largest along `axis` and the index of the first of them: PyTorch's max(dim)."""
    return Indexed(max(x, axis=axis, keepdim=keepdim), argmax(x, axis=axis, keepdim=keepdim))


@composite
def min_with_index(x: Any, axis: int, keepdim: bool = False) -> Indexed:
    """Return the smallest along `axis` and the index of the first of them: PyTorch's min(dim)."""
    return Indexed(min(x, axis=axis, keepdim=keepdim), argmin(x, axis=axis, keepdim=keepdim))


@primitive(kind="reduce", numpy=np.any)
def any(x: Array, *, axis: Axis = None, keepdim: bool = False) -> Array:
    """Return True where some element along `axis` is true (not zero)."""
    return np.any(x, axis=axes(axis, x.ndim, "any"), keepdims=keepdim)


@primitive(kind="reduce", numpy=np.all)
def all(x: Array, *, axis: Axis = None, keepdim: bool = False) -> Array:
    """Return True where every element along `axis` is true (not zero)."""
    return np.all(x, axis=axes(axis, x.ndim, "all"), keepdims=keepdim)


@primitive(kind="reduce", dtype="float")
def logsumexp(x: Array, *, axis: Axis = None, keepdim: bool = False) -> Array:
    """Return log(sum(exp(x))) along `axis`, without overflow: the maximum is subtracted first. -inf
    for an empty or all -inf axis.
    """
    gone = axes(axis, x.ndim, "logsumexp")
    _, log_sum, top = shifted_logsumexp(x, gone)
    y = log_sum + top
    return y if keepdim else np.squeeze(y, axis=gone)


def shifted_logsumexp(x: Array, axis: int | tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Return x minus its maximum, log(sum(exp)) of that, and the maximum, 0 where it is not finite.
    The last two add up to logsumexp, except for the digits that the logarithm loses next to a large
    maximum.
    """
    top = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    y = x - top
    return y, np.log(np.add.reduce(np.exp(y), axis=axis, keepdims=True)), top


@logsumexp.vjp
def _(g, y, x, *, axis=None, keepdim=False):
    # exp(x - y) is the softmax; where y is infinite x - y may be NaN, and the limit of the softmax
    # is 1 at x = y, 0 elsewhere.
    top = broadcast_back(y, axis, x.shape)
    weights = exp(difference(x, top))
    # Next to a large maximum y has lost digits of the logarithm: a factor of all the weights, which
    # add up to 1.
    total = broadcast_back(sum(weights, axis=axis), axis, x.shape)
    weights = weights / where(isinf(top), 1, total)
    g = broadcast_back(g, axis, x.shape)
    return (mask_cotangent(g * where(top == -np.inf, 0, weights), g),)


# --- vector norms, and what is divided by them; batch normalisation by given statistics


@composite(widen=True, numpy=np.linalg.norm)
def norm(x: Any, p: float | str = 2, axis: Axis = None, keepdim: bool = False) -> Any:
    """Return the p-norm of the vectors along `axis` (None: of all elements): (sum |x|^p)^(1/p).

    p=2 or "fro" is the Euclidean norm, inf and -inf the largest and smallest |x|, 0 the number of
    elements that are not 0. The gradient at 0 is 0. Bools count as 0.0 and 1.0.
    """
    p = 2.0 if p == "fro" else as_float("norm", "p", p, -math.inf)
    x = cast(x, dtype=float32) if x.dtype == np.bool_ else x
    if math.isinf(p):
        return (max if p > 0 else min)(abs(x), axis=axis, keepdim=keepdim)
    if p == 0:
        return cast(sum(x != 0, axis=axis, keepdim=keepdim), dtype=x.dtype)
    if p == 1:
        return sum(abs(x), axis=axis, keepdim=keepdim)
    total = sum(square(x) if p == 2 else pow(abs(x), p), axis=axis, keepdim=keepdim)
    flat = total == 0
    safe = where(flat, 1, total)
    return where(flat, 0, sqrt(safe) if p == 2 else pow(safe, 1 / p))


@composite(widen=True)
def normalize(x: Any, p: float = 2.0, axis: Axis = 1, eps: float = 1e-12) -> Any:
    """Return x / max(norm(x), eps), with the p-norm along `axis`."""
    return x / maximum(norm(x, p=p, axis=axis, keepdim=True), eps)


@composite(widen=True)
def cosine_similarity(x1: Any, x2: Any, axis: int = 1, eps: float = 1e-8) -> Any:
    """Return x1 . x2 / (max(|x1|, eps) max(|x2|, eps)) along `axis` of x1 * x2."""
    y = x1 * x2
    lengths = (maximum(norm(expand(x, shape=y.shape), axis=axis), eps) for x in (x1, x2))
    return sum(y, axis=axis) / (next(lengths) * next(lengths))


@composite(widen=True)
def batchnorm(x: Any, weight: Any, bias: Any, mean: Any, invstd: Any, axis: int = 1) -> Any:
    """Return (x - mean) invstd weight + bias, each of them one number per index of `axis`; weight
    and bias may be None.
    """
    shape = with_sizes((1,) * x.ndim, one_axis(axis, x.ndim, "batchnorm"), -1)
    y = (x - reshape(mean, shape=shape)) * reshape(invstd, shape=shape)
    y = y if weight is None else y * reshape(weight, shape=shape)
    return y if bias is None else y + reshape(bias, shape=shape)
