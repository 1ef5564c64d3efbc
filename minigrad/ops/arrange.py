"""Movements composed of simpler ones: rolls, repeats, triangles, diagonals, grids, paddings by
reflection.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from minigrad.dtypes import Array, bool_
from minigrad.errors import ConfigError, ShapeError
from minigrad.ops.elementwise import where
from minigrad.ops.index import ARRAY, check_range, take
from minigrad.ops.movement import cat, expand, getitem, pad, permute, reshape
from minigrad.ops.reduce import one_axis
from minigrad.primitive import primitive

Widths = tuple[tuple[int, int], ...]


def roll(x: Any, shifts: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Any:
    """x with its elements moved by `shifts` along `axis`, those that fall off at the end coming in
    at the front; None: as one flat row.
    """
    if axis is None:
        if isinstance(shifts, (tuple, list)):
            raise ConfigError(
                "roll",
                f"{len(shifts)} shifts without axes",
                got=shifts,
                hint="name as many axes as shifts",
            )
        return reshape(roll(reshape(x, shape=(-1,)), shifts, 0), shape=x.shape)
    shifts, axis = (tuple(v) if isinstance(v, (tuple, list)) else (v,) for v in (shifts, axis))
    if len(shifts) != len(axis):
        raise ConfigError(
            "roll",
            f"{len(shifts)} shifts for {len(axis)} axes",
            got=(shifts, axis),
            hint="name as many axes as shifts",
        )
    for shift, one in zip(shifts, axis, strict=True):
        a = one_axis(one, x.ndim, "roll")
        cut = -shift % x.shape[a] if x.shape[a] else 0
        if cut:
            before = (slice(None),) * a
            x = cat(
                getitem(x, index=(*before, slice(cut, None))),
                getitem(x, index=(*before, slice(0, cut))),
                axis=a,
            )
    return x


def repeat(x: Any, counts: Sequence[int]) -> Any:
    """x put `counts[i]` times one after the other along axis i; further counts in front make new
    axes.
    """
    counts = tuple(counts)
    if len(counts) < x.ndim or any(n < 0 for n in counts):
        raise ShapeError(
            "repeat",
            f"{counts} for a tensor of shape {x.shape}",
            got=counts,
            hint="one count >= 0 per axis, or more",
        )
    shape = (1,) * (len(counts) - x.ndim) + x.shape
    pairs = tuple(n for size in shape for n in (1, size))
    grown = tuple(n for count, size in zip(counts, shape, strict=True) for n in (count, size))
    return reshape(
        expand(reshape(x, shape=pairs), shape=grown),
        shape=tuple(c * n for c, n in zip(counts, shape, strict=True)),
    )


def repeat_interleave(x: Any, repeats: int | Sequence[int], axis: int | None = None) -> Any:
    """x with each element along `axis` repeated `repeats` times, one number for all or one for
    each; None: of the flat row.
    """
    if axis is None:
        return repeat_interleave(reshape(x, shape=(-1,)), repeats, 0)
    a = one_axis(axis, x.ndim, "repeat_interleave")
    if not np.ndim(repeats):
        repeats = operator.index(repeats)  # type: ignore[arg-type]
        shape = (*x.shape[: a + 1], 1, *x.shape[a + 1 :])
        grown = (*x.shape[: a + 1], repeats, *x.shape[a + 1 :])
        return reshape(
            expand(reshape(x, shape=shape), shape=grown),
            shape=(*x.shape[:a], x.shape[a] * repeats, *x.shape[a + 1 :]),
        )
    counts = np.asarray(repeats)
    if counts.shape != (x.shape[a],) or counts.min(initial=0) < 0:
        raise ShapeError(
            "repeat_interleave",
            f"repeats {counts.shape} for {x.shape[a]} elements",
            got=counts.shape,
            wanted=(x.shape[a],),
        )
    return take(x, np.repeat(np.arange(x.shape[a]), counts), spec=(*(slice(None),) * a, ARRAY))


def unflatten(x: Any, axis: int, sizes: Sequence[int]) -> Any:
    """The axis cut into several of these sizes, one of which may be -1."""
    a = one_axis(axis, x.ndim, "unflatten")
    return reshape(x, shape=(*x.shape[:a], *_sizes_of(x.shape[a], sizes), *x.shape[a + 1 :]))


def _sizes_of(size: int, sizes: Sequence[int]) -> tuple[int, ...]:
    known = int(np.prod([n for n in sizes if n != -1]))
    found = tuple(size // known if n == -1 and known else n for n in sizes)
    if int(np.prod(found)) != size:
        raise ShapeError(
            "unflatten",
            f"an axis of size {size} does not split into {tuple(sizes)}",
            got=tuple(sizes),
            wanted=size,
        )
    return found


def tril(x: Any, diagonal: int = 0) -> Any:
    """The last two axes' lower triangle, up to the given diagonal above the main one; 0 elsewhere."""
    return where(np.tri(*_matrix("tril", x), diagonal, dtype=np.bool_), x, _zero(x))


def triu(x: Any, diagonal: int = 0) -> Any:
    """The last two axes' upper triangle, from the given diagonal above the main one on; 0
    elsewhere.
    """
    return where(np.tri(*_matrix("triu", x), diagonal - 1, dtype=np.bool_), _zero(x), x)


def _zero(x: Any) -> int:
    return False if x.dtype == bool_ else 0  # a bool among bools; 0 would make integers of them


def _matrix(call: str, x: Any) -> tuple[int, int]:
    if x.ndim < 2:
        raise ShapeError(
            call, f"a tensor of shape {x.shape} is no matrix", got=x.shape, wanted="(..., M, N)"
        )
    return x.shape[-2:]


def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The elements with equal indices on the two axes (the second's larger by `offset`), as a new
    last axis.
    """
    if x.ndim < 2:
        raise ShapeError(
            "diagonal",
            f"a tensor of shape {x.shape} has no diagonal",
            got=x.shape,
            wanted="two axes or more",
        )
    a, b = one_axis(axis1, x.ndim, "diagonal"), one_axis(axis2, x.ndim, "diagonal")
    if a == b:
        raise ShapeError("diagonal", f"axes {axis1} and {axis2} are the same", got=(axis1, axis2))
    x = permute(x, order=(*(i for i in range(x.ndim) if i not in (a, b)), a, b))
    length = max(0, min(x.shape[-2] + min(offset, 0), x.shape[-1] - max(offset, 0)))
    steps = np.arange(length)
    return take(x, steps + max(-offset, 0), steps + max(offset, 0), spec=(Ellipsis, ARRAY, ARRAY))


def meshgrid(*xs: Any, indexing: Literal["ij", "xy"] = "ij") -> tuple[Any, ...]:
    """The vectors as grids: all of shape (len(x0), len(x1), ...), the i-th varying along axis i;
    "xy" exchanges the first two axes.
    """
    if indexing not in ("ij", "xy"):
        raise ConfigError("meshgrid", f"indexing={indexing!r}", got=indexing, wanted=("ij", "xy"))
    order = list(range(len(xs)))
    if indexing == "xy" and len(xs) > 1:
        order[:2] = 1, 0
    shape = [1] * len(xs)
    for i, x in zip(order, xs, strict=True):
        if x.ndim > 1:
            raise ShapeError(
                "meshgrid", f"of a tensor of shape {x.shape}", got=x.shape, wanted="vectors"
            )
        shape[i] = x.shape[0] if x.ndim else 1
    spread = ((1,) * i + (-1,) + (1,) * (len(xs) - i - 1) for i in order)
    return tuple(
        expand(reshape(x, shape=s), shape=tuple(shape)) for x, s in zip(xs, spread, strict=True)
    )


def pad_by(x: Any, widths: Widths, mode: str = "constant", value: float = 0.0) -> Any:
    """x with (before, after) elements more around each axis: of `value`, or by "reflect",
    "replicate" or "circular" of its own.
    """
    modes = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    if mode not in modes:
        raise ConfigError("pad", f"mode={mode!r}", got=mode, wanted=tuple(modes))
    if mode == "constant":
        return pad(x, widths=widths, value=value)
    for a, (before, after) in enumerate(widths):
        n, most = x.shape[a], x.shape[a] - (mode == "reflect")
        if (before, after) == (0, 0):
            continue
        if (
            not min(before, after) >= 0
            or (mode != "replicate" and max(before, after) > most)
            or n == 0
        ):
            raise ShapeError(
                "pad",
                f'"{mode}" by {(before, after)} of an axis of size {n}',
                got=(before, after),
                wanted=(0, most),
            )
        places = np.pad(np.arange(n), (before, after), mode=modes[mode])  # type: ignore[call-overload]
        x = take(x, places, spec=(*(slice(None),) * a, ARRAY))
    return x


@primitive(kind="gather")
def one_hot(index: Array, *, num_classes: int) -> Array:
    """1 at the place that each index names on a new last axis of size num_classes, else 0, int64.

    Raises IndexRangeError for an index outside 0 .. num_classes - 1.
    """
    check_range(index, num_classes, "one_hot", "index")
    return (index[..., None] == np.arange(num_classes)).astype(np.int64)
