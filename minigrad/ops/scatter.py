"""Scatter: writing, adding and reducing elements into the places that an index names. Composed of
the ops in `index`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.dtypes import DType, is_float, limits
from minigrad.errors import ConfigError, DTypeError, ShapeError
from minigrad.ops.composite import composite
from minigrad.ops.elementwise import equal, floor_div, greater, maximum, where
from minigrad.ops.index import add_along, put_along
from minigrad.ops.movement import cast, cat, getitem, pad, permute, reshape
from minigrad.ops.reduce import max, min, one_axis
from minigrad.ops.scan import prod

_REDUCED: dict[str, Any] = {"sum": None, "mean": None, "prod": prod, "amax": max, "amin": min}


def scatter(x: Any, index: Any, src: Any, *, axis: int, reduce: str | None = None) -> Any:
    """x with y[.., index[i, j, ...], ..] = src[i, j, ...], the index standing on `axis`; of several
    writers to one place the last wins.

    reduce="add" or "multiply" combines src with what is there instead. src: a tensor, or a number
    for all places.
    """
    if reduce is None:
        return put_along(x, _cut(src, index, "scatter"), index, axis=axis)
    if reduce not in ("add", "multiply"):
        raise ConfigError(
            "scatter", f"reduce={reduce!r}", got=reduce, wanted=(None, "add", "multiply")
        )
    return scatter_reduce(x, index, src, axis=axis, reduce="sum" if reduce == "add" else "prod")


@composite(widen=True)
def scatter_reduce(
    x: Any, index: Any, src: Any, *, axis: int, reduce: str, include_self: bool = True
) -> Any:
    """The elements of src that share a place, and the element of x there, made one: reduce="sum",
    "prod", "mean", "amax" or "amin".

    include_self=False: places that something is written to forget what x has there. "amax" and
        "amin" split their gradient among ties.
    "prod", "amax" and "amin" work on a table of size (index elements) x (size of x along `axis`).
    """
    if reduce not in _REDUCED:
        raise ConfigError(
            "scatter_reduce", f"reduce={reduce!r}", got=reduce, wanted=tuple(_REDUCED)
        )
    axis = one_axis(axis, x.ndim, "scatter_reduce")
    src = _cut(src, index, "scatter_reduce")
    if not hasattr(src, "shape"):
        src = where(equal(index, index), src, 0)  # a number, at every place of the index
    src = src if src.dtype == x.dtype else cast(src, dtype=x.dtype)
    count = add_along(np.ones(index.shape, np.int64), index, axis=axis, shape=x.shape)
    kept = x if include_self else where(greater(count, 0), _neutral(reduce, x.dtype), x)
    if reduce in ("sum", "mean"):
        total = kept + add_along(src, index, axis=axis, shape=x.shape)
        if reduce == "sum":
            return total
        count = cast(maximum(count + int(include_self), 1), dtype=x.dtype)
        return total / count if is_float(x.dtype) else floor_div(total, count)
    return _reduced_by_table(kept, index, src, axis, reduce)


def _neutral(reduce: str, dtype: DType) -> float:
    """What changes nothing in a reduction of this dtype."""
    if reduce in ("prod", "sum", "mean"):
        return int(reduce == "prod")
    return limits(dtype)[reduce == "amin"]


def _reduced_by_table(x: Any, index: Any, src: Any, axis: int, reduce: str) -> Any:
    """Row j of the table has src where it goes to place j, else the neutral element; x itself is
    one more column.
    """
    rows = index.ndim
    to_back = (*(i for i in range(rows) if i != axis), axis)
    index, src = permute(index, order=to_back), permute(src, order=to_back)
    places = np.arange(x.shape[axis]).reshape(-1, 1)
    neutral = _neutral(reduce, x.dtype)
    hits = equal(reshape(index, shape=(*index.shape[:-1], 1, index.shape[-1])), places)
    table = where(hits, reshape(src, shape=(*src.shape[:-1], 1, src.shape[-1])), neutral)
    own = permute(x, order=to_back)
    widths = (*((0, n - m) for n, m in zip(own.shape, table.shape[:-1], strict=True)), (0, 0))
    table = cat(
        pad(table, widths=widths, value=neutral), reshape(own, shape=(*own.shape, 1)), axis=rows
    )
    result: Any = _REDUCED[reduce](table, axis=rows)
    result = result if result.dtype == x.dtype else cast(result, dtype=x.dtype)
    back = (*range(axis), rows - 1, *range(axis, rows - 1))
    return permute(result, order=back)


def _cut(src: Any, index: Any, call: str) -> Any:
    """src as far as the index goes."""
    if src is None:
        raise DTypeError(call, "src is None", got=None, wanted="a tensor or a number")
    if not getattr(src, "shape", ()):
        return src
    if len(src.shape) != index.ndim or any(
        n < m for n, m in zip(src.shape, index.shape, strict=True)
    ):
        raise ShapeError(
            call,
            f"src {src.shape} is smaller than index {index.shape}",
            got=src.shape,
            wanted=index.shape,
        )
    return (
        src
        if src.shape == index.shape
        else getitem(src, index=tuple(slice(0, n) for n in index.shape))
    )
