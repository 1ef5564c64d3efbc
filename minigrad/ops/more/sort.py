"""Order: sort, topk, median, quantile, unique, bincount, searchsorted. Values are gathered by the
order found, and gradients go back the way the values came.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.arguments import as_int, one_of, require
from minigrad.dtypes import Array, float32, is_float
from minigrad.ops.axis import Shape, kept_shape, one_axis, with_sizes
from minigrad.ops.composite import composite
from minigrad.ops.elementwise import isnan, where
from minigrad.ops.index import check_range, take_along
from minigrad.ops.more.scatter import index_select
from minigrad.ops.movement import cast, part, permute, reshape
from minigrad.primitive import primitive


@primitive(kind="reduce", numpy=np.argsort)
def argsort(x: Array, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    """Return the indices that sort x along `axis`; a NaN counts as the largest. Always stable:
    equal elements stay in their own order. int64.
    """
    axis = one_axis(axis, x.ndim, "argsort")
    if not descending:
        return np.argsort(x, axis=axis, kind="stable")
    # Sorted from the back and read from the back, equal elements come out in their own order.
    order = np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
    return x.shape[axis] - 1 - order


@composite
def sort(
    x: Any, axis: int = -1, descending: bool = False, *, stable: bool = True
) -> tuple[Any, Any]:
    """Return x in order along `axis`, and the indices that the elements came from. Always stable; a
    NaN counts as the largest.
    """
    order = argsort(x, axis=axis, descending=descending)
    return take_along(x, order, axis=axis), order


@composite
def topk(
    x: Any, k: int, axis: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Any, Any]:
    """Return the k largest (or smallest) along `axis`, and their indices; of equals the first ones.
    They come in order, sorted or not. Raises ConfigError if k is too large.
    """
    a = one_axis(axis, x.ndim, "topk")
    k = as_int("topk", "k", k, 0)
    require(k <= x.shape[a], "topk", "k", k, f"at most {x.shape[a]}, the size of axis {axis}")
    order = part(argsort(x, axis=a, descending=largest), a, 0, k)
    return take_along(x, order, axis=a), order


@composite
def median(x: Any, axis: int | None = None, keepdim: bool = False) -> Any:
    """Return the median along `axis` (None: of all), as in PyTorch: of an even number of elements
    the lower of the two in the middle. NaN if there is one. The gradient goes to that element.
    """
    ordered, a, shape = _ordered(x, axis, keepdim, "median")
    last, middle = part(ordered, a, -1), (ordered.shape[a] - 1) // 2
    return reshape(where(isnan(last), last, part(ordered, a, middle, middle + 1)), shape=shape)


@composite(widen=True, numpy=np.quantile)
def quantile(
    x: Any, q: Any, axis: int | None = None, keepdim: bool = False, interpolation: str = "linear"
) -> Any:
    """Return the q-quantile along `axis` (None: of all), 0 <= q <= 1, at place q (n - 1) of the
    sorted elements; NaN if there is one. A vector of q makes a new first axis.

    interpolation between two elements: "linear", "lower", "higher", "nearest" or "midpoint".
    """
    modes = ("linear", "lower", "higher", "nearest", "midpoint")
    one_of("quantile", "interpolation", interpolation, modes)
    places = np.asarray(q, np.float64)
    require(((places >= 0) & (places <= 1)).all(), "quantile", "q", q, "from 0 to 1")
    x = x if is_float(x.dtype) else cast(x, dtype=float32)
    ordered, a, shape = _ordered(x, axis, keepdim, "quantile")
    at = places.reshape(-1) * (ordered.shape[a] - 1)
    lower, upper = np.floor(at), np.ceil(at)
    at = {"lower": lower, "higher": upper, "nearest": np.rint(at)}.get(interpolation, at)
    share = (at - lower) if interpolation != "midpoint" else (upper - lower) / 2
    below, above = (index_select(ordered, a, i.astype(np.int64)) for i in (lower, upper))
    share = share.astype(below.dtype).reshape(with_sizes((1,) * ordered.ndim, a, -1))
    last = part(ordered, a, -1)
    y = where(isnan(last), last, below + where(share == 0, 0, above - below) * share)
    y = permute(y, order=(a, *(i for i in range(y.ndim) if i != a)))
    return reshape(y, shape=(*places.shape, *shape))


def _ordered(x: Any, axis: int | None, keepdim: bool, call: str) -> tuple[Any, int, Shape]:
    """Return x sorted along `axis` (None: as one flat row), that axis, and the shape without it."""
    flat = reshape(x, shape=(-1,)) if axis is None else x
    a = 0 if axis is None else one_axis(axis, x.ndim, call)
    require(flat.shape[a] > 0, call, "the axis", x.shape, "not empty")
    shape = kept_shape(x.shape, axis) if keepdim else with_sizes(flat.shape, a)
    return sort(flat, axis=a)[0], a, shape


# --- of values: no gradients


@primitive(kind="reduce", outputs=3)
def distinct(x: Array) -> tuple[Array, Array, Array]:
    """Return the distinct elements in order, where each element of x stands among them, and how
    often each occurs.
    """
    values, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return values, inverse.reshape(x.shape), counts


distinct.shape_depends_on_values = lambda _i, _dtype: True


@composite(numpy=np.unique)
def unique(x: Any, *, return_inverse: bool = False, return_counts: bool = False) -> Any:
    """Return the distinct elements of x in order; if asked for, with where each element of x stands
    among them, and how often each occurs.
    """
    values, inverse, counts = distinct(x)
    found = (values, *[inverse] * return_inverse, *[counts] * return_counts)
    return found if len(found) > 1 else values


@primitive(kind="reduce", numpy=np.bincount)
def bincount(x: Array, weights: Array | None = None, *, minlength: int = 0) -> Array:
    """Return how often each integer 0, 1, ... occurs in the vector x, or the sum of the weights
    there; at least minlength numbers.
    """
    size = max(int(x.max(initial=-1)) + 1, minlength)
    check_range(x, size, "bincount", "x")
    y = np.bincount(x, weights, size)
    return y if weights is None else y.astype(weights.dtype, copy=False)


bincount.shape_depends_on_values = lambda i, _dtype: i == 0


@bincount.vjp
def _(g, _y, x, _weights=None, *, minlength=0, needs):
    return (None, take_along(g, x, axis=0))[: len(needs)]


@primitive(kind="reduce", numpy=np.searchsorted)
def searchsorted(sorted_sequence: Array, values: Array, *, right: bool = False) -> Array:
    """Return where each value belongs in the sorted vector: before its equals, or after them
    (right=True). int64.

    Rows (..., N) of sorted numbers take the values (..., M) of their own row.
    """
    side: Any = "right" if right else "left"
    if sorted_sequence.ndim == 1:
        return np.asarray(np.searchsorted(sorted_sequence, values, side))
    rows, wanted = (v.reshape(-1, v.shape[-1]) for v in (sorted_sequence, values))
    found = [np.searchsorted(*pair, side) for pair in zip(rows, wanted, strict=True)]
    return np.array(found, np.int64).reshape(values.shape)
