"""The movements as users call them: sizes in a row or in a tuple, axes from either end, -1 for a size
that follows from the others. Around the primitives of `movement`, which take them worked out.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad import ops
from minigrad.errors import ConfigError, ShapeError
from minigrad.ops.composite import composite
from minigrad.ops.more.arrange import pad_by
from minigrad.ops.reduce import Axis, axes, one_axis

Sizes = int | Sequence[int]


def flat(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    """reshape(2, 3), reshape((2, 3)) and reshape([2, 3]) are the same."""
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes


@composite(numpy=np.reshape)
def reshape(x: Any, *shape: Sizes) -> Any:
    """Return the same elements in row-major order under another shape; one size may be -1."""
    wanted = flat(shape)
    if wanted and min(wanted) < -1:
        raise ShapeError(
            "reshape",
            f"the size {min(wanted)} in {wanted}",
            got=wanted,
            wanted="sizes >= 0, or one -1",
        )
    return ops.reshape(x, shape=wanted)


@composite(numpy=np.ravel)
def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Return x with the axes start_dim .. end_dim joined."""
    if not x.ndim:
        return ops.reshape(x, shape=(1,))
    start, end = (one_axis(a, x.ndim, "flatten") for a in (start_dim, end_dim))
    if start >= end:
        return x
    size = math.prod(x.shape[start : end + 1])
    return ops.reshape(x, shape=(*x.shape[:start], size, *x.shape[end + 1 :]))


@composite
def permute(x: Any, *order: Sizes) -> Any:
    """Return x with its axes in another order: y.shape[i] = x.shape[order[i]]."""
    wanted = flat(order)
    normal = tuple(one_axis(a, x.ndim, "permute") for a in wanted)
    if sorted(normal) != list(range(x.ndim)):
        raise ShapeError(
            "permute",
            f"{wanted} is not an order of the {x.ndim} axes of {x.shape}",
            got=wanted,
            hint="name each axis once",
        )
    return ops.permute(x, order=normal)


@composite
def transpose(x: Any, dim0: int = 1, dim1: int = 0) -> Any:
    """Return x with two axes exchanged; without arguments the first two."""
    order = list(range(x.ndim))
    a, b = one_axis(dim0, x.ndim, "transpose"), one_axis(dim1, x.ndim, "transpose")
    order[a], order[b] = b, a
    return ops.permute(x, order=tuple(order))


@composite
def t(x: Any) -> Any:
    """Return the transpose of a matrix; a vector or a number as it is."""
    if x.ndim > 2:
        raise ShapeError("t", f"{x.shape} has {x.ndim} axes", got=x.shape, wanted="at most 2")
    return ops.permute(x, order=tuple(range(x.ndim))[::-1])


@composite(numpy=np.swapaxes)
def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """Return x with two axes exchanged."""
    return transpose(x, axis1, axis2)


@composite(numpy=np.moveaxis)
def movedim(x: Any, source: Axis, destination: Axis) -> Any:
    """Return x with the axes `source` moved to `destination`, the others in their order."""
    moved, places = (
        [one_axis(a, x.ndim, "movedim") for a in (b if isinstance(b, (tuple, list)) else (b,))]
        for b in (source, destination)
    )
    if len(moved) != len(places):
        raise ShapeError("movedim", f"{len(moved)} axes to {len(places)} places", got=source)
    order = [a for a in range(x.ndim) if a not in moved]
    for place, a in sorted(zip(places, moved, strict=True)):
        order.insert(place, a)
    return permute(x, order)


@composite(numpy=np.broadcast_to)
def expand(x: Any, *shape: Sizes) -> Any:
    """Return x broadcast to `shape` without a copy; -1 keeps a size."""
    wanted = flat(shape)
    new = len(wanted) - x.ndim
    if -1 in wanted[: max(new, 0)] or min(wanted, default=0) < -1:
        raise ShapeError(
            "expand",
            f"{x.shape} to {wanted}: there is no size to keep",
            got=x.shape,
            wanted=wanted,
            hint="-1 keeps the size of an axis that x has; a new axis in front needs a size >= 0",
        )
    kept = (1,) * new + x.shape
    sizes = zip(wanted, kept, strict=False)
    return ops.expand(x, shape=tuple(k if n == -1 else n for n, k in sizes))


@composite
def expand_as(x: Any, other: Any) -> Any:
    """Return x broadcast to the shape of `other`, without a copy."""
    return ops.expand(x, shape=other.shape)


@composite
def squeeze(x: Any, axis: Axis = None) -> Any:
    """Return x without axes of size 1: all of them, or those named that have size 1."""
    gone = {a for a in axes(axis, x.ndim, "squeeze") if x.shape[a] == 1}
    return ops.reshape(x, shape=tuple(n for i, n in enumerate(x.shape) if i not in gone))


@composite(numpy=np.expand_dims)
def unsqueeze(x: Any, axis: int) -> Any:
    """Return x with a new axis of size 1 at `axis`."""
    a = one_axis(axis, x.ndim + 1, "unsqueeze")
    return ops.reshape(x, shape=(*x.shape[:a], 1, *x.shape[a:]))


@composite(numpy=np.flip)
def flip(x: Any, *axis: Any) -> Any:
    """Return x in reverse order along each axis named, or along all: flip(0), flip(0, 1), flip()."""
    found = axes(flat(axis) if axis and axis != (None,) else None, x.ndim, "flip")
    return ops.flip(x, axis=found)


def _operands(call: str, first: Any, others: tuple[Any, ...]) -> list[Any]:
    """a.cat(b, c), Tensor.cat([a, b, c]) and a.cat([b, c]) name the same operands."""
    named = [*first] if not hasattr(first, "shape") else [first]
    for x in others:
        named += x if isinstance(x, (list, tuple)) else [x]
    if not named:
        raise ShapeError(call, "of no tensors", wanted="one or more")
    return named


def _axis_apart(others: tuple[Any, ...], axis: int) -> tuple[tuple[Any, ...], int]:
    """cat([a, b], 1) is cat([a, b], axis=1)."""
    if others and isinstance(others[-1], (int, np.integer, np.bool_)):
        *others, axis = others  # type: ignore[assignment]
        return tuple(others), axis
    return others, axis


@composite
def cat(tensors: Any, *others: Any, axis: int = 0) -> Any:
    """Return the tensors one after the other along `axis`; all other sizes must agree:
    cat([a, b], dim=1) or a.cat(b, dim=1).
    """
    others, axis = _axis_apart(others, axis)
    first, *rest = _operands("cat", tensors, others)
    return ops.cat(first, *rest, axis=one_axis(axis, first.ndim, "cat"))


@composite
def stack(tensors: Any, *others: Any, axis: int = 0) -> Any:
    """Return the tensors along a new axis; all shapes must agree: stack([a, b]) or a.stack(b)."""
    others, axis = _axis_apart(others, axis)
    operands = _operands("stack", tensors, others)
    if len({x.shape for x in operands}) > 1:
        shapes = [x.shape for x in operands]
        raise ShapeError(
            "stack",
            f"shapes {shapes} differ",
            got=shapes,
            wanted="equal shapes",
            hint="cat joins along an existing axis",
        )
    first, *rest = (unsqueeze(x, axis) for x in operands)
    return ops.cat(first, *rest, axis=one_axis(axis, first.ndim, "stack"))


@composite
def split(x: Any, sizes: Sizes, axis: int = 0) -> tuple[Any, ...]:
    """Return pieces along `axis`: of one size (the last may be smaller), or of the sizes named."""
    a = one_axis(axis, x.ndim, "split")
    n = x.shape[a]
    if not isinstance(sizes, (tuple, list)):
        size = operator.index(sizes)  # type: ignore[arg-type]
        if size < 1:
            raise ConfigError("split", f"pieces of size {size}", got=size, wanted="size >= 1")
        sizes = [min(size, n - i) for i in range(0, n, size)] or [0]
    if sum(sizes) != n or min(sizes, default=0) < 0:
        raise ShapeError(
            "split",
            f"the sizes {list(sizes)} add up to {sum(sizes)}, axis {axis} has {n}",
            got=sizes,
            wanted=n,
        )
    before, start, pieces = (slice(None),) * a, 0, []
    for size in sizes:
        pieces.append(ops.getitem(x, index=(*before, slice(start, start + size))))
        start += size
    return tuple(pieces)


@composite
def chunk(x: Any, n: int, axis: int = 0) -> tuple[Any, ...]:
    """Return at most n pieces of equal size along `axis` (the last may be smaller)."""
    size = x.shape[one_axis(axis, x.ndim, "chunk")]
    if n < 1:
        raise ConfigError("chunk", f"{n} pieces", got=n, wanted="n >= 1")
    pieces: tuple[Any, ...] = split(x, -(-size // n) if size else [0] * n, axis)
    return pieces


@composite
def unbind(x: Any, axis: int = 0) -> tuple[Any, ...]:
    """Return the parts of x at each index of `axis`, without that axis."""
    before = (slice(None),) * one_axis(axis, x.ndim, "unbind")
    return tuple(ops.getitem(x, index=(*before, i)) for i in range(x.shape[len(before)]))


@composite
def unfold(x: Any, axis: int, size: int, step: int = 1) -> Any:
    """Return the windows of `size` elements along `axis`, every `step`, on a new last axis: a view."""
    if min(size, step) < 1:
        raise ConfigError(
            "unfold", f"size {size}, step {step}", got=(size, step), wanted="both >= 1"
        )
    return ops.unfold(x, axis=one_axis(axis, x.ndim, "unfold"), size=size, step=step)


@composite
def pad(x: Any, padding: Sequence[Any], mode: str = "constant", value: float = 0.0) -> Any:
    """Return x with more elements around it: `value`, or its own by "reflect", "replicate" or
    "circular".

    padding: numbers in PyTorch's order, (before, after) of the last axis first; or one pair (or
        None) per axis, in the order of the axes. Negative numbers cut (mode "constant").
    """
    return pad_by(x, _widths(tuple(padding), x.shape), mode, value)


def _widths(padding: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """A padding in either notation, as (before, after) for each axis."""
    if any(isinstance(p, (tuple, list)) or p is None for p in padding):
        pairs = [(0, 0) if p is None else tuple(p) for p in padding]
    else:
        pairs = [tuple(padding[i : i + 2]) for i in range(0, len(padding), 2)][::-1]
        pairs = [(0, 0)] * (len(shape) - len(pairs)) + pairs
    if len(pairs) != len(shape) or any(len(pair) != 2 for pair in pairs):
        raise ShapeError(
            "pad",
            f"padding {padding} does not fit {shape}",
            got=padding,
            wanted="pairs",
            hint="(before, after) of the last axis first, or a pair or None per axis",
        )
    return tuple((int(a), int(b)) for a, b in pairs)


@composite
def repeat(x: Any, *counts: Sizes) -> Any:
    """Return x put counts[i] times one after the other along axis i; further counts in front make
    new axes.
    """
    return ops.repeat(x, flat(counts))


@composite(numpy=np.tile)
def tile(x: Any, *counts: Sizes) -> Any:
    """Return x put counts[i] times one after the other, counted from the last axis."""
    wanted = flat(counts)
    return ops.repeat(x, (1,) * (x.ndim - len(wanted)) + tuple(wanted))


@composite
def shrink(x: Any, bounds: Sequence[tuple[int, int] | None]) -> Any:
    """Return the part of x between (start, stop) of each axis; None leaves an axis whole."""
    if len(bounds) != x.ndim:
        raise ShapeError("shrink", f"{len(bounds)} bounds for {x.ndim} axes", got=bounds)
    pairs = [(0, n) if p is None else p for p, n in zip(bounds, x.shape, strict=True)]
    if any(not 0 <= a <= b <= n for (a, b), n in zip(pairs, x.shape, strict=True)):
        raise ShapeError(
            "shrink",
            f"{bounds} is not inside {x.shape}",
            got=bounds,
            wanted="0 <= start <= stop <= size",
        )
    return ops.getitem(x, index=tuple(slice(*pair) for pair in pairs))
