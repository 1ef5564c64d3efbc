"""Movements composed of the primitives of `movement`: joining, splitting, padding, repeating."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from minigrad.arguments import as_int, one_of, require
from minigrad.errors import ShapeError
from minigrad.ops import movement
from minigrad.ops.axis import Axis, Shape, axes, fits, flat, one_axis, several, with_sizes
from minigrad.ops.composite import composite
from minigrad.ops.index import ARRAY, take
from minigrad.ops.movement import expand, getitem, part, permute, reshape

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
    moved, places = (
        [one_axis(a, x.ndim, "movedim") for a in several(b)] for b in (source, destination)
    )
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


@composite
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
    """Return the operands one after the other along axis 1, vectors along axis 0."""
    return movement.cat(*xs, axis=min(1, xs[0].ndim - 1))


@composite(numpy=np.vstack)
def vstack(*xs: Any) -> Any:
    """Return the operands one after the other along axis 0, vectors as rows."""
    rows = (reshape(x, shape=(1, *x.shape)) if x.ndim == 1 else x for x in xs)
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
    pieces: tuple[Any, ...] = split(x, -(-size // n) if size else [0] * n, axis)
    return pieces


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
def pad(x: Any, padding: Sequence[Any], mode: str = "constant", value: float = 0.0) -> Any:
    """Return x with more elements around it: `value`, or its own by "reflect", "replicate" or
    "circular".

    padding: numbers in PyTorch's order, (before, after) of the last axis first; or one pair (or
        None) per axis, in the order of the axes. Negative numbers cut, before anything is added.
    """
    one_of("pad", "mode", mode, ("constant", "reflect", "replicate", "circular"))
    widths = _widths(tuple(padding), x.shape)
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
    return reshape(grown, shape=tuple(n * size for n, size in pairs))


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
        return reshape(grown, shape=with_sizes(x.shape, a, n * times))
    good = counts.shape == (n,) and counts.min(initial=0) >= 0
    fits(good, "repeat_interleave", f"{counts.shape} repeats of {n} elements", counts.shape)
    return take(x, np.repeat(np.arange(n), counts), spec=(*(slice(None),) * a, ARRAY))
