"""Scatter: writing, adding and reducing elements into the places that an index names. Composed of
the ops in `index`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.arguments import one_of
from minigrad.dtypes import DType, is_float, limits
from minigrad.errors import DTypeError, ShapeError
from minigrad.ops.axis import one_axis, with_sizes
from minigrad.ops.composite import composite
from minigrad.ops.elementwise import equal, floor_div, greater, maximum, where
from minigrad.ops.index import ARRAY, add_along, embedding, mesh, put
from minigrad.ops.more.scan import prod
from minigrad.ops.movement import cast, cat, expand, getitem, pad, permute, reshape
from minigrad.ops.reduce import max, min

_REDUCED: dict[str, Any] = {"sum": None, "mean": None, "prod": prod, "amax": max, "amin": min}


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
        src = where(equal(index, index), src, 0)  # a number, at every place of the index
    src = src if src.dtype == x.dtype else cast(src, dtype=x.dtype)
    count = add_along(np.ones(index.shape, np.int64), index, axis=a, shape=x.shape)
    kept = x if include_self else where(greater(count, 0), _neutral(reduce, x.dtype), x)
    if reduce not in ("sum", "mean"):
        return _reduced_by_table(kept, index, src, a, reduce)
    total = kept + add_along(src, index, axis=a, shape=x.shape)
    if reduce == "sum":
        return total
    count = cast(maximum(count + int(include_self), 1), dtype=x.dtype)
    return total / count if is_float(x.dtype) else floor_div(total, count)


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
    hits = equal(getitem(index, index=row), np.arange(x.shape[-1]).reshape(-1, 1))
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
