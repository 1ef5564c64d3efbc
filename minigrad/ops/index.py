"""Gathering by index, and its transpose, adding up by index. Indices are checked, never wrapped: -1 is an error here, not the last row."""

from __future__ import annotations

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import DTypeError, IndexRangeError
from minigrad.primitive import primitive


def check_range(index: Array, size: int, call: str, what: str) -> None:
    """Raise IndexRangeError unless 0 <= index < size everywhere, DTypeError unless index holds integers."""
    if index.dtype.kind not in "iu":
        raise DTypeError(call, f"{what} must be integers, not {index.dtype}", got=index.dtype, wanted="int64")
    if index.size and not (index.min() >= 0 and index.max() < size):
        bad = int(index[(index < 0) | (index >= size)].flat[0])
        raise IndexRangeError(call, f"{what} {bad} is outside 0..{size - 1}", got=bad, wanted=(0, size - 1))


@primitive(kind="gather")
def embedding(weight: Array, index: Array) -> Array:
    """Rows of a table: (V, C), (...) -> (..., C). Raises IndexRangeError for an index outside 0..V-1."""
    check_range(index, len(weight), "embedding", "index")
    return weight[index]


@embedding.vjp
def _(g, _y, _weight, index):
    return embedding_grad(g, index, size=_weight.shape[0]), None


@primitive(kind="gather")
def embedding_grad(g: Array, index: Array, *, size: int) -> Array:
    """Rows of g added up by their index: (..., C), (...) -> (size, C); the transpose of `embedding`.

    Sorted segments, each summed by one call: np.add.at is 100 times slower for long rows.
    """
    flat, rows = index.reshape(-1), g.reshape(index.size, *g.shape[index.ndim :])
    y = np.zeros((size, *rows.shape[1:]), g.dtype)
    if flat.size:
        order = np.argsort(flat, kind="stable")
        ordered = flat[order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        y[ordered[starts]] = np.add.reduceat(rows[order], starts, axis=0)
    return y


@embedding_grad.vjp
def _(h, _y, _g, index, *, size):
    return embedding(h, index), None
