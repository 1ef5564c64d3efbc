"""Movements composed of the primitives of `movement`: joining, splitting, padding, repeating,
rolls, triangles, diagonals and grids.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Literal

import numpy as np

from minigrad.arguments import as_int, fits, one_of, require
from minigrad.dtypes import Array, bool_
from minigrad.errors import ShapeError
from minigrad.ops import movement
from minigrad.ops.axis import Axis, Shape, axes, flat, one_axis, several, with_sizes
from minigrad.ops.composite import composite
from minigrad.ops.elementwise import where
from minigrad.ops.index import ARRAY, add_at, take
from minigrad.ops.movement import copy, expand, getitem, part, permute, reshape
from minigrad.ops.reduce import sum as sum_
from minigrad.primitive import primitive

Sizes = int | Sequence[int]


@composite(numpy=np.ravel)
def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Return x with the axes start_dim .. end_dim joined."""
    if not x.ndim:
        return reshape(x, shape=(1,))
    start, end = (one_axis(a, x.ndim, "flatten") for a in (start_dim, end_dim))
    if start >= end:
        return x
    size = math.prod(x.shape[start : end + 1])
    return reshape(x, shape=(*x.shape[:start], size, *x.shape[end + 1 :]))


@composite
def unflatten(x: Any, axis: int, sizes: Sequence[int]) -> Any:
    """Return x with the axis split into several of these sizes, one of which may be -1."""
    return reshape(x, shape=with_sizes(x.shape, one_axis(axis, x.ndim, "unflatten"), *sizes))


@composite
def transpose(x: Any, dim0: int = 1, dim1: int = 0) -> Any:
    """Return x with two axes exchanged; without arguments the first two."""
    order = list(range(x.ndim))
    a, b = one_axis(dim0, x.ndim, "transpose"), one_axis(dim1, x.ndim, "transpose")
    order[a], order[b] = b, a
    return permute(x, order=tuple(order))


@composite(numpy=np.swapaxes)
def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """Return x with two axes exchanged."""
    return transpose(x, axis1, axis2)


@composite
def t(x: Any) -> Any:
    """Return the transpose of a matrix; a vector or a number as it is."""
    fits(x.ndim <= 2, "t", f"{x.shape} has more than two axes", x.shape)
    return permute(x, order=tuple(range(x.ndim))[::-1])


@composite(numpy=np.moveaxis)
def movedim(x: Any, source: Axis, destination: Axis) -> Any:
    """Return x with the axes `source` moved to `destination`, the others in their order."""
    moved = [one_axis(a, x.ndim, "movedim") for a in several(source)]
    places = [one_axis(a, x.ndim, "movedim") for a in several(destination)]
    same = len(set(moved)) == len(set(places)) == len(moved) == len(places)
    fits(same, "movedim", f"axes {source} to the places {destination}", source)
    order = [a for a in range(x.ndim) if a not in moved]
    for place, a in sorted(zip(places, moved, strict=True)):
        order.insert(place, a)
    return permute(x, order=tuple(order))


@composite
def expand_as(x: Any, other: Any) -> Any:
    """Return x broadcast to the shape of `other`, without a copy."""
    return expand(x, shape=other.shape)


@composite
def squeeze(x: Any, axis: Axis = None) -> Any:
    """Return x without axes of size 1: all of them, or those named that have size 1."""
    gone = {a for a in axes(axis, x.ndim, "squeeze") if x.shape[a] == 1}
    return reshape(x, shape=tuple(n for i, n in enumerate(x.shape) if i not in gone))


@composite(numpy=np.expand_dims)
def unsqueeze(x: Any, axis: int) -> Any:
    """Return x with a new axis of size 1 at `axis`."""
    a = one_axis(axis, x.ndim + 1, "unsqueeze")
    return reshape(x, shape=(*x.shape[:a], 1, *x.shape[a:]))


# --- joining and splitting


def _operands(call: str, first: Any, others: tuple[Any, ...], axis: int) -> tuple[list[Any], int]:
    """Return the tensors and the axis: a.cat(b, c), cat([a, b, c]) and a.cat([b, c]) name the same
    tensors, and cat([a, b], 1) has the axis at the end.
    """
    if others and isinstance(others[-1], (int, np.integer, np.bool_)):
        *others, axis = others  # type: ignore[assignment]
    groups = ((first,) if hasattr(first, "shape") else first, *map(several, others))
    named = [x for group in groups for x in group]
    fits(named, call, "of no tensors", ())
    return named, axis


@composite
def cat(tensors: Any, *others: Any, axis: int = 0) -> Any:
    """Return the tensors one after the other along `axis`; all other sizes must agree:
    cat([a, b], dim=1) or a.cat(b, dim=1).
    """
    xs, axis = _operands("cat", tensors, others, axis)
    return movement.cat(*xs, axis=one_axis(axis, xs[0].ndim, "cat"))


@composite(numpy=np.stack)
def stack(tensors: Any, *others: Any, axis: int = 0) -> Any:
    """Return the tensors along a new axis; all shapes must agree: stack([a, b]) or a.stack(b)."""
    xs, axis = _operands("stack", tensors, others, axis)
    shapes = [x.shape for x in xs]
    hint = "cat joins along an existing axis"
    fits(len(set(shapes)) == 1, "stack", f"the shapes {shapes} differ", shapes, hint)
    a = one_axis(axis, xs[0].ndim + 1, "stack")
    return movement.cat(*(unsqueeze(x, a) for x in xs), axis=a)


@composite(numpy=np.hstack)
def hstack(*xs: Any) -> Any:
    """Return the operands one after the other along axis 1, numbers and vectors along axis 0."""
    rows = [x if x.ndim else reshape(x, shape=(1,)) for x in xs]
    return movement.cat(*rows, axis=min(1, rows[0].ndim - 1))


@composite(numpy=np.vstack)
def vstack(*xs: Any) -> Any:
    """Return the operands one after the other along axis 0, numbers and vectors as rows."""
    rows = (reshape(x, shape=(1,) * (2 - x.ndim) + x.shape) if x.ndim < 2 else x for x in xs)
    return movement.cat(*rows, axis=0)


@composite
def split(x: Any, sizes: Sizes, axis: int = 0) -> tuple[Any, ...]:
    """Return pieces along `axis`: of one size (the last may be smaller), or of the sizes named."""
    a = one_axis(axis, x.ndim, "split")
    n = x.shape[a]
    if not isinstance(sizes, (tuple, list)):
        size = operator.index(sizes)  # type: ignore[arg-type]
        require(size >= 1, "split", "the size", size, "at least 1")
        sizes = [min(size, n - i) for i in range(0, n, size)] or [0]
    good = sum(sizes) == n and min(sizes, default=0) >= 0
    fits(good, "split", f"the sizes {list(sizes)} do not add up to the {n} of axis {axis}", sizes)
    stops = accumulate(sizes)
    return tuple(part(x, a, stop - size, stop) for stop, size in zip(stops, sizes, strict=True))


@composite
def chunk(x: Any, n: int, axis: int = 0) -> tuple[Any, ...]:
    """Return at most n pieces of equal size along `axis` (the last may be smaller)."""
    size, n = x.shape[one_axis(axis, x.ndim, "chunk")], as_int("chunk", "n", n)
    return split(x, -(-size // n) if size else [0] * n, axis)


@composite
def unbind(x: Any, axis: int = 0) -> tuple[Any, ...]:
    """Return the parts of x at each index of `axis`, without that axis."""
    a = one_axis(axis, x.ndim, "unbind")
    return tuple(select(x, a, i) for i in range(x.shape[a]))


@composite
def select(x: Any, axis: int, index: int) -> Any:
    """Return x at one index along `axis`, without that axis; negative ones count from the end."""
    return getitem(x, index=(*(slice(None),) * one_axis(axis, x.ndim, "select"), index))


@composite
def narrow(x: Any, axis: int, start: int, length: int) -> Any:
    """Return the `length` elements from `start` on along `axis`; a negative start counts from the
    end.
    """
    a = one_axis(axis, x.ndim, "narrow")
    n = x.shape[a]
    first = start + n if start < 0 else start
    problem = f"{length} elements from {start} of an axis of {n}"
    fits(0 <= first <= first + length <= n, "narrow", problem, (start, length))
    return part(x, a, first, first + length)


@composite
def shrink(x: Any, bounds: Sequence[tuple[int, int] | None]) -> Any:
    """Return the part of x between (start, stop) of each axis; None leaves an axis whole."""
    pairs = [(0, n) if p is None else p for p, n in zip(bounds, x.shape, strict=False)]
    inside = all(0 <= a <= b <= n for (a, b), n in zip(pairs, x.shape, strict=False))
    good = inside and len(bounds) == x.ndim
    fits(good, "shrink", f"the bounds {bounds} are not those of a part of {x.shape}", bounds)
    return getitem(x, index=tuple(slice(*pair) for pair in pairs))


# --- padding and repeating


@composite
def pad(x: Any, pad: Sequence[Any], mode: str = "constant", value: float = 0.0) -> Any:
    """Return x with more elements around it: `value`, or its own by "reflect", "replicate" or
    "circular".

    pad: numbers in PyTorch's order, (before, after) of the last axis first; or one pair (or
        None) per axis, in the order of the axes. Negative numbers cut, before anything is added.
    """
    one_of("pad", "mode", mode, ("constant", "reflect", "replicate", "circular"))
    widths = _widths(tuple(pad), x.shape)
    if mode == "constant":
        return movement.pad(x, widths=widths, value=value)
    for a, pair in enumerate(widths):
        before, after = (max(w, 0) for w in pair)
        kept = np.arange(x.shape[a])[max(-pair[0], 0) : x.shape[a] - max(-pair[1], 0)]
        most = len(kept) - (mode == "reflect")
        if pair == (0, 0):
            continue
        good = len(kept) and (mode == "replicate" or max(before, after) <= most)
        hint = f"at most {max(most, 0)} elements can be added here"
        fits(good, "pad", f'"{mode}" by {pair} of an axis of size {x.shape[a]}', pair, hint)
        how: Any = {"replicate": "edge", "circular": "wrap"}.get(mode, mode)
        x = take(x, np.pad(kept, (before, after), mode=how), spec=(*(slice(None),) * a, ARRAY))
    return x


def _widths(padding: tuple[Any, ...], shape: Shape) -> tuple[tuple[int, int], ...]:
    """Return a padding in either notation as (before, after) for each axis."""
    if any(isinstance(p, (tuple, list)) or p is None for p in padding):
        pairs = [(0, 0) if p is None else tuple(p) for p in padding]
    else:
        pairs = [tuple(padding[i : i + 2]) for i in range(0, len(padding), 2)][::-1]
        pairs = [(0, 0)] * (len(shape) - len(pairs)) + pairs
    good = len(pairs) == len(shape) and all(len(pair) == 2 for pair in pairs)
    hint = "(before, after) of the last axis first, or a pair or None per axis"
    fits(good, "pad", f"padding {padding} does not fit {shape}", padding, hint)
    return tuple((int(a), int(b)) for a, b in pairs)


@composite
def repeat(x: Any, *counts: Sizes) -> Any:
    """Return x put counts[i] times one after the other along axis i; further counts in front make
    new axes.
    """
    times = [as_int("repeat", "a count", n, 0) for n in flat(counts)]
    new = len(times) - x.ndim
    if new < 0:
        raise ShapeError("repeat", f"{times} has fewer counts than {x.shape} axes", got=times)
    shape = (1,) * new + x.shape
    pairs = [(n, size) for n, size in zip(times, shape, strict=True)]
    singles = tuple(n for size in shape for n in (1, size))
    grown = expand(reshape(x, shape=singles), shape=tuple(n for pair in pairs for n in pair))
    return reshape(copy(grown), shape=tuple(n * size for n, size in pairs))


@composite(numpy=np.tile)
def tile(x: Any, *counts: Sizes) -> Any:
    """Return x put counts[i] times one after the other, counted from the last axis."""
    times = flat(counts)
    return repeat(x, (1,) * (x.ndim - len(times)) + times)


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
        times = int(counts)
        column = reshape(x, shape=with_sizes(x.shape, a, n, 1))
        grown = expand(column, shape=with_sizes(x.shape, a, n, times))
        return reshape(copy(grown), shape=with_sizes(x.shape, a, n * times))
    good = counts.shape == (n,) and counts.min(initial=0) >= 0
    fits(good, "repeat_interleave", f"{counts.shape} repeats of {n} elements", counts.shape)
    return take(x, np.repeat(np.arange(n), counts), spec=(*(slice(None),) * a, ARRAY))


# --- rolls, differences, triangles, diagonals, grids


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
        cut = -shift % (x.shape[a] or 1)
        x = movement.cat(part(x, a, cut), part(x, a, 0, cut), axis=a)
    return x


@composite(numpy=np.diff)
def diff(x: Any, n: int = 1, axis: int = -1) -> Any:
    """Return the differences of neighbours along `axis`, x[i + 1] - x[i], taken n times. Of bools,
    True where they differ.
    """
    a = one_axis(axis, x.ndim, "diff")
    for _ in range(as_int("diff", "n", n, 0)):
        after, before = part(x, a, 1), part(x, a, 0, max(x.shape[a] - 1, 0))
        x = after != before if x.dtype == bool_ else after - before
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
    a new last axis: a view.
    """
    _check_matrix("diagonal", x)
    a, b = one_axis(dim1, x.ndim, "diagonal"), one_axis(dim2, x.ndim, "diagonal")
    fits(a != b, "diagonal", f"axes {dim1} and {dim2} are the same", (dim1, dim2))
    others = (i for i in range(x.ndim) if i not in (a, b))
    return last_diagonal(permute(x, order=(*others, a, b)), offset=offset)


@primitive(kind="view")
def last_diagonal(x: Array, *, offset: int) -> Array:
    """Return x[..., i, i + offset] for all i: a view."""
    y = np.diagonal(x, offset, -2, -1)
    y.flags.writeable = x.flags.writeable  # numpy's is read-only
    return y


@last_diagonal.vjp
def _(g, _y, _x, *, offset):
    places = _places(g.shape[-1], offset)
    return (add_at(g, *places, spec=(Ellipsis, ARRAY, ARRAY), shape=_x.shape),)


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
    problem = f"{x.shape} is neither a vector nor a matrix"
    fits(x.ndim in (1, 2), "diag", problem, x.shape, "use diagonal")
    if x.ndim == 2:
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
    rows = [reshape(x, shape=with_sizes(single, i, -1)) for i, x in zip(order, xs, strict=True)]
    shape = np.broadcast_shapes(*(x.shape for x in rows))
    return tuple(expand(x, shape=shape) for x in rows)
