"""Movements composed of simpler ones: rolls, repeats, triangles, diagonals, grids, padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from minigrad.arguments import as_int, one_of, require
from minigrad.dtypes import Array, bool_
from minigrad.errors import ShapeError
from minigrad.ops.composite import composite
from minigrad.ops.elementwise import not_equal, where
from minigrad.ops.index import ARRAY, add_at, check_range, take
from minigrad.ops.movement import (
    cat,
    expand,
    getitem,
    pad,
    part,
    permute,
    reshape,
    several,
    with_sizes,
)
from minigrad.ops.reduce import one_axis, sum as sum_
from minigrad.primitive import primitive

Widths = tuple[tuple[int, int], ...]


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


@composite
def repeat(x: Any, counts: Sequence[int]) -> Any:
    """Return x repeated counts[i] times along axis i; further counts in front make new axes."""
    times = tuple(as_int("repeat", "a count", n, 0) for n in counts)
    if len(times) < x.ndim:
        raise ShapeError("repeat", f"{times} has fewer counts than {x.shape} axes", got=times)
    shape = (1,) * (len(times) - x.ndim) + x.shape
    pairs = tuple(n for size in shape for n in (1, size))
    grown = tuple(n for pair in zip(times, shape, strict=True) for n in pair)
    whole = tuple(count * n for count, n in zip(times, shape, strict=True))
    return reshape(expand(reshape(x, shape=pairs), shape=grown), shape=whole)


@composite(numpy=np.repeat)
def repeat_interleave(x: Any, repeats: int | Sequence[int], axis: int | None = None) -> Any:
    """Return x with each element along `axis` repeated `repeats` times, one number for all or one
    for each; None: of the flat row.
    """
    if axis is None:
        return repeat_interleave(reshape(x, shape=(-1,)), repeats, 0)
    a = one_axis(axis, x.ndim, "repeat_interleave")
    n, counts = x.shape[a], np.asarray(repeats)
    if not counts.ndim:
        grown = expand(
            reshape(x, shape=with_sizes(x.shape, a, n, 1)),
            shape=with_sizes(x.shape, a, n, int(counts)),
        )
        return reshape(grown, shape=with_sizes(x.shape, a, n * int(counts)))
    if counts.shape != (n,) or counts.min(initial=0) < 0:
        raise ShapeError(
            "repeat_interleave", f"{counts.shape} repeats of {n} elements", got=counts.shape
        )
    return take(x, np.repeat(np.arange(n), counts), spec=(*(slice(None),) * a, ARRAY))


@composite
def unflatten(x: Any, axis: int, sizes: Sequence[int]) -> Any:
    """Return x with the axis split into several of these sizes, one of which may be -1."""
    a = one_axis(axis, x.ndim, "unflatten")
    return reshape(x, shape=with_sizes(x.shape, a, *sizes))


@composite
def narrow(x: Any, axis: int, start: int, length: int) -> Any:
    """Return the `length` elements from `start` on along `axis`; a negative start counts from the
    end.
    """
    a = one_axis(axis, x.ndim, "narrow")
    n = x.shape[a]
    first = start + n if start < 0 else start
    if not 0 <= first <= first + length <= n:
        raise ShapeError(
            "narrow", f"{length} elements from {start} of an axis of {n}", got=(start, length)
        )
    return part(x, a, first, first + length)


@composite
def select(x: Any, axis: int, index: int) -> Any:
    """Return x at one index along `axis`, without that axis; negative ones count from the end."""
    return getitem(x, index=(*(slice(None),) * one_axis(axis, x.ndim, "select"), index))


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


@composite(numpy=np.hstack)
def hstack(*xs: Any) -> Any:
    """Return the operands one after the other along axis 1, vectors along axis 0."""
    return cat(*xs, axis=min(1, xs[0].ndim - 1))


@composite(numpy=np.vstack)
def vstack(*xs: Any) -> Any:
    """Return the operands one after the other along axis 0, vectors as rows."""
    return cat(*(reshape(x, shape=(1, *x.shape)) if x.ndim == 1 else x for x in xs), axis=0)


@composite(numpy=np.tril)
def tril(x: Any, diagonal: int = 0) -> Any:
    """Return the lower triangle of the last two axes, up to the given diagonal above the main one;
    0 elsewhere.
    """
    return where(np.tri(*_matrix("tril", x), diagonal, dtype=np.bool_), x, _zero(x))


@composite(numpy=np.triu)
def triu(x: Any, diagonal: int = 0) -> Any:
    """Return the upper triangle of the last two axes, from the given diagonal above the main one
    on; 0 elsewhere.
    """
    return where(np.tri(*_matrix("triu", x), diagonal - 1, dtype=np.bool_), _zero(x), x)


def _zero(x: Any) -> int:
    return False if x.dtype == bool_ else 0  # with 0, a bool would become an integer


def _matrix(call: str, x: Any) -> tuple[int, int]:
    if x.ndim < 2:
        raise ShapeError(call, f"{x.shape} has fewer than two axes", got=x.shape)
    return x.shape[-2:]


@composite(numpy=np.diagonal)
def diagonal(x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """Return the elements with equal indices on the two axes (the second's larger by `offset`), as
    a new last axis.
    """
    _matrix("diagonal", x)
    a, b = one_axis(dim1, x.ndim, "diagonal"), one_axis(dim2, x.ndim, "diagonal")
    if a == b:
        raise ShapeError("diagonal", f"axes {dim1} and {dim2} are the same", got=(dim1, dim2))
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
    for x in xs:
        if x.ndim > 1:
            raise ShapeError("meshgrid", f"{x.shape} is not the shape of a vector", got=x.shape)
    order = list(range(len(xs)))
    if indexing == "xy":
        order[:2] = order[1::-1]
    single = (1,) * len(xs)
    flat = [reshape(x, shape=with_sizes(single, i, -1)) for i, x in zip(order, xs, strict=True)]
    shape = np.broadcast_shapes(*(x.shape for x in flat))
    return tuple(expand(x, shape=shape) for x in flat)


@composite(name="pad")
def pad_by(x: Any, widths: Widths, mode: str = "constant", value: float = 0.0) -> Any:
    """Return x with (before, after) more elements around each axis: of `value`, or by "reflect",
    "replicate" or "circular" of its own. Negative widths cut, before anything is added.
    """
    one_of("pad", "mode", mode, ("constant", "reflect", "replicate", "circular"))
    if mode == "constant":
        return pad(x, widths=widths, value=value)
    for a, pair in enumerate(widths):
        before, after = (max(w, 0) for w in pair)
        kept = np.arange(x.shape[a])[max(-pair[0], 0) : x.shape[a] - max(-pair[1], 0)]
        most = len(kept) - (mode == "reflect")
        if pair == (0, 0):
            continue
        if not len(kept) or (mode != "replicate" and max(before, after) > most):
            raise ShapeError(
                "pad",
                f'"{mode}" by {pair} of an axis of size {x.shape[a]}',
                got=pair,
                hint=f"at most {max(most, 0)} elements can be added here",
            )
        how: Any = {"replicate": "edge", "circular": "wrap"}.get(mode, mode)
        x = take(x, np.pad(kept, (before, after), mode=how), spec=(*(slice(None),) * a, ARRAY))
    return x


@primitive(kind="gather")
def one_hot(index: Array, *, num_classes: int) -> Array:
    """Return 1 at the place that each index names on a new last axis of size num_classes, else 0,
    int64.

    Raises IndexRangeError for an index outside 0 .. num_classes - 1.
    """
    check_range(index, num_classes, "one_hot", "index")
    return (index[..., None] == np.arange(num_classes)).astype(np.int64)
