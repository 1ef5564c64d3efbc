"""Movements composed of simpler ones: rolls, differences, triangles, diagonals, grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from minigrad.arguments import as_int, one_of, require
from minigrad.dtypes import Array, bool_
from minigrad.ops.axis import fits, one_axis, several, with_sizes
from minigrad.ops.composite import composite
from minigrad.ops.elementwise import not_equal, where
from minigrad.ops.index import ARRAY, add_at, check_range, take
from minigrad.ops.movement import cat, expand, part, permute, reshape
from minigrad.ops.reduce import sum as sum_
from minigrad.primitive import primitive


@composite(numpy=np.roll)
def roll(x: Any, shifts: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Any:
    """Return x with its elements moved by `shifts` along `axis`; those that fall off at the end
    come in at the front. None: as one flat row.
    """
    if axis is None:
        return reshape(roll(reshape(x, shape=(-1,)), shifts, 0), shape=x.shape)
    moves, along = several(shifts), several(axis)
    require(len(moves) == len(along), "roll", "shifts", shifts, f"one per axis of {axis}")
    for shift, one in zip(moves, along, strict=True):
        a = one_axis(one, x.ndim, "roll")
        cut = -shift % x.shape[a] if x.shape[a] else 0
        if cut:
            x = cat(part(x, a, cut), part(x, a, 0, cut), axis=a)
    return x


@composite(numpy=np.diff)
def diff(x: Any, n: int = 1, axis: int = -1) -> Any:
    """Return the differences of neighbours along `axis`, x[i + 1] - x[i], taken n times. Of bools,
    True where they differ.
    """
    a = one_axis(axis, x.ndim, "diff")
    for _ in range(as_int("diff", "n", n, 0)):
        after, before = part(x, a, 1), part(x, a, 0, max(x.shape[a] - 1, 0))
        x = not_equal(after, before) if x.dtype == bool_ else after - before
    return x


@composite(numpy=np.tril)
def tril(x: Any, diagonal: int = 0) -> Any:
    """Return the lower triangle of the last two axes, up to the given diagonal above the main one;
    0 elsewhere.
    """
    return _where_above(x, diagonal, upper=False)


@composite(numpy=np.triu)
def triu(x: Any, diagonal: int = 0) -> Any:
    """Return the upper triangle of the last two axes, from the given diagonal above the main one
    on; 0 elsewhere.
    """
    return _where_above(x, diagonal - 1, upper=True)


def _where_above(x: Any, diagonal: int, upper: bool) -> Any:
    """Return x above a diagonal, or up to it, and 0 elsewhere."""
    _check_matrix("triu" if upper else "tril", x)
    above = np.tri(x.shape[-2], x.shape[-1], diagonal, dtype=np.bool_) ^ upper
    return where(above, x, False if x.dtype == bool_ else 0)  # with 0, a bool would be an integer


def _check_matrix(call: str, x: Any) -> None:
    fits(x.ndim >= 2, call, f"{x.shape} has fewer than two axes", x.shape)


@composite(numpy=np.diagonal)
def diagonal(x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """Return the elements with equal indices on the two axes (the second's larger by `offset`), as
    a new last axis.
    """
    _check_matrix("diagonal", x)
    a, b = one_axis(dim1, x.ndim, "diagonal"), one_axis(dim2, x.ndim, "diagonal")
    fits(a != b, "diagonal", f"axes {dim1} and {dim2} are the same", (dim1, dim2))
    x = permute(x, order=(*(i for i in range(x.ndim) if i not in (a, b)), a, b))
    length = max(0, min(x.shape[-2] + min(offset, 0), x.shape[-1] - max(offset, 0)))
    return take(x, *_places(length, offset), spec=(Ellipsis, ARRAY, ARRAY))


def _places(length: int, offset: int) -> tuple[Array, Array]:
    """Return the rows and columns of a diagonal."""
    steps = np.arange(length)
    return steps + max(-offset, 0), steps + max(offset, 0)


@composite(numpy=np.trace)
def trace(x: Any) -> Any:
    """Return the sum of the main diagonal of a matrix (..., M, N)."""
    return sum_(diagonal(x, 0, -2, -1), axis=-1)


@composite(numpy=np.diag)
def diag(x: Any, offset: int = 0) -> Any:
    """Return the matrix with the vector x on a diagonal; of a matrix, its diagonal."""
    if x.ndim != 1:
        return diagonal(x, offset)
    n = x.shape[0] + abs(offset)
    return add_at(x, *_places(x.shape[0], offset), spec=(ARRAY, ARRAY), shape=(n, n))


@composite
def meshgrid(*xs: Any, indexing: Literal["ij", "xy"] = "ij") -> tuple[Any, ...]:
    """Return the vectors as grids: all of shape (len(x0), len(x1), ...), the i-th varying along
    axis i; "xy" exchanges the first two axes.
    """
    one_of("meshgrid", "indexing", indexing, ("ij", "xy"))
    shapes = [x.shape for x in xs]
    fits(max(map(len, shapes), default=0) <= 1, "meshgrid", f"{shapes} are not vectors", shapes)
    order = list(range(len(xs)))
    if indexing == "xy":
        order[:2] = order[1::-1]
    single = (1,) * len(xs)
    flat = [reshape(x, shape=with_sizes(single, i, -1)) for i, x in zip(order, xs, strict=True)]
    shape = np.broadcast_shapes(*(x.shape for x in flat))
    return tuple(expand(x, shape=shape) for x in flat)


@primitive(kind="gather")
def one_hot(index: Array, *, num_classes: int) -> Array:
    """Return 1 at the place that each index names on a new last axis of size num_classes, else 0,
    int64.

    Raises IndexRangeError for an index outside 0 .. num_classes - 1.
    """
    check_range(index, num_classes, "one_hot", "index")
    return (index[..., None] == np.arange(num_classes)).astype(np.int64)
