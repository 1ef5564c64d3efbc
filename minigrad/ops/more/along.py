"""Along one axis: scans (running sums, products and maxima), scatters, and order.

The rules of cumprod and logcumsumexp are linear recurrences s_k = a_k s_(k-1) + b_k, of which
`recurrence` is the op. Nothing is divided, so zeros in a product are no special case, at any order
of derivative. What is sorted is gathered by the order found, and gradients go back the way the
values came.
"""

from __future__ import annotations

from math import prod as product
from typing import Any

import numpy as np

from minigrad.arguments import as_int, one_of, require
from minigrad.dtypes import Array, DType, adding, float32, is_float, limits
from minigrad.errors import DTypeError, ShapeError
from minigrad.ops.axis import Axis, Shape, axes, kept_shape, one_axis, with_sizes
from minigrad.ops.calculus import exp
from minigrad.ops.composite import composite
from minigrad.ops.elementwise import difference, isfinite, isnan, mask_cotangent, maximum, where
from minigrad.ops.index import ARRAY, add_along, check_range, embedding, mesh, put, take_along
from minigrad.ops.movement import cast, cat, expand, flip, getitem, pad, part, permute, reshape
from minigrad.ops.reduce import Indexed, broadcast_back, max as max_, min as min_
from minigrad.primitive import primitive


def _shifted(x: Any, axis: int, by: int, value: float) -> Any:
    """Return x moved by 1 or -1 places along `axis`; `value` comes in, what falls off is lost."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (by, -by)
    return pad(x, widths=tuple(widths), value=value)


def _backwards(scan: Any, *operands: Any, axis: int) -> Any:
    """Return a scan that runs from the end of the axis to its start."""
    return flip(scan(*(flip(x, axis=(axis,)) for x in operands), axis=axis), axis=(axis,))


def _after(a: Any, g: Any, axis: int) -> Any:
    """Return r_k = g_k + a_(k+1) r_(k+1) along `axis`: the transpose of a recurrence."""
    return _backwards(recurrence, _shifted(a, axis, -1, 0.0), g, axis=axis)


@primitive(kind="reduce", numpy=np.cumsum)
def cumsum(x: Array, *, axis: int = 0) -> Array:
    """Return the sums of the first 1, 2, ... elements along `axis`. Floats are added in float64,
    bools and small integers in int64.
    """
    axis = one_axis(axis, x.ndim, "cumsum")
    y = np.cumsum(x, axis=axis, dtype=np.float64 if x.dtype.kind == "f" else adding(x.dtype))
    return y.astype(x.dtype, copy=False) if x.dtype.kind == "f" else y


@cumsum.vjp
def _(g, _y, _x, *, axis=0):
    return (_backwards(cumsum, g, axis=axis),)


@primitive(kind="reduce")
def recurrence(a: Array, b: Array, *, axis: int) -> Array:
    """Return s_0 = b_0, s_k = a_k s_(k-1) + b_k along `axis`; a and b have the same shape."""
    y = np.empty(b.shape, np.result_type(a, b))
    rows, factors, terms = (np.moveaxis(v, axis, 0) for v in (y, a, b))
    for k in range(len(rows)):
        rows[k] = factors[k] * rows[k - 1] + terms[k] if k else terms[k]
    return y


@recurrence.vjp
def _(g, y, a, _b, *, axis):
    r = _after(a, g, axis)
    return r * _shifted(y, axis, 1, 0.0), r


@primitive(kind="reduce", numpy=np.cumprod)
def cumprod(x: Array, *, axis: int = 0) -> Array:
    """Return the products of the first 1, 2, ... elements along `axis`."""
    return np.cumprod(x, axis=one_axis(axis, x.ndim, "cumprod"), dtype=adding(x.dtype))


@cumprod.vjp
def _(g, _y, x, *, axis=0):
    # d y_i / d x_k = (product before k) (product from k + 1 to i): the first factor is a cumprod
    # again, the sum over i a recurrence.
    return (cumprod(_shifted(x, axis, 1, 1.0), axis=axis) * _after(x, g, axis),)


@primitive(kind="reduce", numpy=np.prod)
def prod(x: Array, *, axis: Axis = None, keepdim: bool = False) -> Array:
    """Return the product along `axis`; of nothing, 1. Each element's derivative is the product of
    all others, zeros among them or not.
    """
    return np.prod(x, axis=axes(axis, x.ndim, "prod"), keepdims=keepdim, dtype=adding(x.dtype))


@prod.vjp
def _(g, _y, x, *, axis=None, keepdim=False):
    gone = axes(axis, x.ndim, "prod")
    order = (*(i for i in range(x.ndim) if i not in gone), *gone)
    rows = permute(x, order=order)
    shape, last = rows.shape, x.ndim - len(gone)
    rows = reshape(rows, shape=(*shape[:last], product(shape[last:])))
    before = cumprod(_shifted(rows, last, 1, 1.0), axis=last)
    after = _backwards(cumprod, _shifted(rows, last, -1, 1.0), axis=last)
    back = tuple(int(i) for i in np.argsort(order))
    g = broadcast_back(g, axis, x.shape)
    return (mask_cotangent(g * permute(reshape(before * after, shape=shape), order=back), g),)


@primitive(kind="reduce")
def cummax_index(x: Array, *, axis: int, smallest: bool = False) -> Array:
    """Return where the largest (or smallest) of the first 1, 2, ... elements along `axis` stands:
    the last of equals, and the first NaN from there on. int64.
    """
    best = (np.minimum if smallest else np.maximum).accumulate(x, axis=axis)
    place = np.arange(x.shape[axis]).reshape(-1, *(1,) * (x.ndim - axis % x.ndim - 1))
    return np.maximum.accumulate(np.where((x == best) | np.isnan(x), place, 0), axis=axis)


@composite
def cummax(x: Any, axis: int = 0) -> tuple[Any, Any]:
    """Return the largest of the first 1, 2, ... elements along `axis`, and its index. The gradient
    goes to that element.
    """
    return _so_far(x, one_axis(axis, x.ndim, "cummax"), smallest=False)


@composite
def cummin(x: Any, axis: int = 0) -> tuple[Any, Any]:
    """Return the smallest of the first 1, 2, ... elements along `axis`, and its index. The gradient
    goes to that element.
    """
    return _so_far(x, one_axis(axis, x.ndim, "cummin"), smallest=True)


def _so_far(x: Any, axis: int, smallest: bool) -> tuple[Any, Any]:
    index = cummax_index(x, axis=axis, smallest=smallest)
    return take_along(x, index, axis=axis), index


@primitive(kind="reduce", dtype="float")
def logcumsumexp(x: Array, *, axis: int = 0) -> Array:
    """Return log of the sums of the first 1, 2, ... elements' exponentials, without overflow.
    Computed in float64.
    """
    return np.logaddexp.accumulate(x, axis=axis, dtype=np.float64).astype(x.dtype)


@logcumsumexp.vjp
def _(g, y, x, *, axis=0):
    # sum over i >= k of g_i exp(x_k - y_i) = exp(x_k - y_k) r_k, where r_k = g_k + exp(y_k -
    # y_(k+1)) r_(k+1): no exponent is above 0.
    r = _after(exp(difference(_shifted(y, axis, 1, 0.0), y)), g, axis)
    return (mask_cotangent(r * where(x == -np.inf, 0, exp(difference(x, y))), r),)


# --- scatters: writing, adding and reducing elements into the places that an index names

_REDUCED: dict[str, Any] = {"sum": None, "mean": None, "prod": prod, "amax": max_, "amin": min_}


@composite
def scatter(x: Any, axis: int, index: Any, src: Any, reduce: str | None = None) -> Any:
    """Return x with y[.., index[i, j, ...], ..] = src[i, j, ...], the index standing on `axis`; of
    several writers to one place the last wins.

    reduce="add" or "multiply" combines src with the element of x instead. src: a tensor, or a
    number for all places.
    """
    if reduce is None:
        keys = mesh(index, x.shape, one_axis(axis, x.ndim, "scatter"), "scatter")
        every = (ARRAY,) * x.ndim
        return put(x, _cut(src, index, "scatter"), *keys, spec=every, wrap=False)
    one_of("scatter", "reduce", reduce, ("add", "multiply"))
    return scatter_reduce(x, axis, index, src, "sum" if reduce == "add" else "prod")


@composite
def scatter_add(x: Any, axis: int, index: Any, src: Any) -> Any:
    """Return x with src[i, j, ...] added at [.., index[i, j, ...], ..], the index on `axis`."""
    return scatter_reduce(x, axis, index, src, "sum")


@composite
def index_add(x: Any, axis: int, index: Any, source: Any, alpha: float = 1) -> Any:
    """Return x with alpha times the i-th slice of source along `axis` added to slice index[i]."""
    a = one_axis(axis, x.ndim, "index_add")
    source = source if alpha == 1 else source * alpha
    single = with_sizes((1,) * x.ndim, a, -1)
    return scatter_add(x, a, expand(reshape(index, shape=single), shape=source.shape), source)


@composite
def index_select(x: Any, axis: int, index: Any) -> Any:
    """Return the slices of x along `axis` that a vector of integers names. Raises IndexRangeError
    for one outside 0 .. size - 1.
    """
    if index.ndim != 1:
        raise ShapeError("index_select", f"index {index.shape} is not a vector", got=index.shape)
    a = one_axis(axis, x.ndim, "index_select")
    first = permute(x, order=(a, *(i for i in range(x.ndim) if i != a)))
    return permute(embedding(first, index), order=(*range(1, a + 1), 0, *range(a + 1, x.ndim)))


@composite(widen=True)
def scatter_reduce(
    x: Any, axis: int, index: Any, src: Any, reduce: str, include_self: bool = True
) -> Any:
    """Return x with the elements of src that share a place, and the element of x there, combined:
    reduce="sum", "prod", "mean", "amax" or "amin".

    include_self=False: places that something is written to ignore the element of x. "amax" and
        "amin" split their gradient among ties.
    "prod", "amax" and "amin" work on a table of size (index elements) x (size of x along `axis`).
    """
    one_of("scatter_reduce", "reduce", reduce, tuple(_REDUCED))
    a = one_axis(axis, x.ndim, "scatter_reduce")
    src = _cut(src, index, "scatter_reduce")
    if not hasattr(src, "shape"):
        src = where(index == index, src, 0)  # a number, at every place of the index
    src = src if src.dtype == x.dtype else cast(src, dtype=x.dtype)
    count = add_along(np.ones(index.shape, np.int64), index, axis=a, shape=x.shape)
    kept = x if include_self else where(count > 0, _neutral(reduce, x.dtype), x)
    if reduce not in ("sum", "mean"):
        return _reduced_by_table(kept, index, src, a, reduce)
    total = kept + add_along(src, index, axis=a, shape=x.shape)
    if reduce == "sum":
        return total
    count = cast(maximum(count + int(include_self), 1), dtype=x.dtype)
    return total / count if is_float(x.dtype) else total // count


def _neutral(reduce: str, dtype: DType) -> float:
    """Return the neutral element of a reduction in this dtype."""
    if reduce in ("prod", "sum", "mean"):
        return int(reduce == "prod")
    return limits(dtype)[reduce == "amin"]


def _reduced_by_table(x: Any, index: Any, src: Any, axis: int, reduce: str) -> Any:
    """Row j of the table has src where it goes to place j, else the neutral element; x itself is
    one more column.
    """
    to_back = (*(i for i in range(x.ndim) if i != axis), axis)
    x, index, src = (permute(v, order=to_back) for v in (x, index, src))
    neutral, row = _neutral(reduce, x.dtype), (Ellipsis, None, slice(None))
    hits = getitem(index, index=row) == np.arange(x.shape[-1]).reshape(-1, 1)
    table = where(hits, getitem(src, index=row), neutral)
    widths = tuple((0, n - m) for n, m in zip(x.shape, table.shape[:-1], strict=True))
    table = pad(table, widths=(*widths, (0, 0)), value=neutral)
    table = cat(table, getitem(x, index=(Ellipsis, None)), axis=x.ndim)
    result: Any = _REDUCED[reduce](table, axis=x.ndim)
    result = result if result.dtype == x.dtype else cast(result, dtype=x.dtype)
    return permute(result, order=tuple(np.argsort(to_back).tolist()))


def _cut(src: Any, index: Any, call: str) -> Any:
    """Return src as far as the index reaches."""
    if src is None:
        raise DTypeError(call, "src is None, not a tensor or a number", got=None)
    shape = getattr(src, "shape", ())
    if shape in ((), index.shape):
        return src
    if len(shape) != index.ndim or any(n < m for n, m in zip(shape, index.shape, strict=True)):
        raise ShapeError(call, f"src {shape} is smaller than index {index.shape}", got=shape)
    return getitem(src, index=tuple(slice(0, n) for n in index.shape))


# --- order: sort, topk, median, quantile


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
def sort(x: Any, axis: int = -1, descending: bool = False, *, stable: bool = True) -> Indexed:
    """Return x in order along `axis`, and the indices that the elements came from. Always stable; a
    NaN counts as the largest.
    """
    order = argsort(x, axis=axis, descending=descending)
    return Indexed(take_along(x, order, axis=axis), order)


@composite
def topk(x: Any, k: int, axis: int = -1, largest: bool = True, sorted: bool = True) -> Indexed:
    """Return the k largest (or smallest) along `axis`, and their indices; of equals the first ones.
    They come in order, sorted or not. Raises ConfigError if k is too large.
    """
    a = one_axis(axis, x.ndim, "topk")
    k = as_int("topk", "k", k, 0)
    require(k <= x.shape[a], "topk", "k", k, f"at most {x.shape[a]}, the size of axis {axis}")
    order = part(argsort(x, axis=a, descending=largest), a, 0, k)
    return Indexed(take_along(x, order, axis=a), order)


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
    y = below + where(share == 0, 0, difference(above, below)) * share
    # From -inf to a number there is no step that leads away from -inf.
    y = where(isnan(last), last, where(isfinite(above) & (below == -np.inf), below, y))
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
    size = max(int(x.max()) + 1 if x.size else 0, minlength)
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
