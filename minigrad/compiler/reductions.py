"""Reductions in C along one axis, or axes side by side: softmax and its kin, extremes and where
they are.

What is done to rows of the last axis is in `kernels.c` and `reductions.c`; along an axis with
others behind it, strips of columns are done at a time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minigrad.compiler.kernel import Kernel, c_text
from minigrad.compiler.layout import Layout
from minigrad.compiler.lower import Builder, index, lowers, plain
from minigrad.compiler.program import Line

_STRIP = 64  # as in reductions.c
# Strips that lie one behind the other are cut by threads only where there are fewer pieces than
# this to cut between
_MANY = 8
_FIXED = ("softmax", "logsumexp", "max")  # whose rows are in kernels.c, which every program has
_FLOAT32, _INT64 = np.dtype(np.float32), np.dtype(np.int64)


class Extent(NamedTuple):
    """An array seen as (outer, C, inner), of which the middle is reduced."""

    outer: int
    C: int
    inner: int


def extent(shape: tuple[int, ...], axis: int | tuple[int, ...] | None) -> Extent | None:
    """The shape around the axes that are reduced; None if these are apart, or there is nothing to
    reduce. Axes of size 1 do not count.
    """
    named = range(len(shape)) if axis is None else (axis,) if isinstance(axis, int) else axis
    gone = {a % len(shape) for a in named} if shape else set()
    sizes = [(n, a in gone) for a, n in enumerate(shape) if n != 1]
    places = [i for i, (_, reduced) in enumerate(sizes) if reduced]
    if not gone or 0 in shape or (places and places != list(range(places[0], places[-1] + 1))):
        return None
    first, last = (places[0], places[-1] + 1) if places else (len(sizes), len(sizes))
    parts = sizes[:first], sizes[first:last], sizes[last:]
    return Extent(*(int(np.prod([n for n, _ in part], dtype=np.int64)) for part in parts))


def strips(
    k: Builder, name: str, pointers: list[tuple[int, str, bool, bool]], e: Extent, flops: float
) -> Kernel:
    """The kernel `name`_strip over all strips of columns. pointers: (value, its name in C, whether
    it has the middle axis, whether it is written).
    """
    blocks = -(-e.inner // _STRIP)
    whole = (
        blocks == 1 or e.outer >= _MANY
    )  # units are outer indices, of which each has its own memory; otherwise strips
    for value, pointer, _, write in pointers:
        k.use(value, pointer, share=whole, write=write)
    starts = [
        f"{pointer} + u / {blocks} * {e.inner * (e.C if full else 1)} + u % {blocks} * {_STRIP}"
        for _, pointer, full, _ in pointers
    ]
    each = f" * {blocks}" if whole and blocks > 1 else ""
    body = (
        f"for (int64_t u = lo{each}; u < hi{each}; u++)\n        "
        f"{name}_strip({', '.join(starts)}, {e.C}, {e.inner}, MIN({_STRIP}, {e.inner} - u % "
        f"{blocks} * {_STRIP}));"
    )
    return k.kernel(
        name, body, e.outer if whole else e.outer * blocks, flops, helper=c_text("reductions.c")
    )


def _lower(
    layout: Layout,
    line: Line,
    number: int,
    values: tuple[int, ...],
    axis: Any,
    flops: int,
    of: np.dtype[Any] = _FLOAT32,
) -> list[Kernel] | None:
    """values: what is reduced, perhaps its results, and the output last, of dtype `of`."""
    x, out = values[0], values[-1]
    e = extent(layout.stand_in[x].shape, axis)
    if (
        e is None
        or not plain(layout, *values[:-1])
        or not plain(layout, out, dtype=of)
        or e.C >= 1 << 31
    ):
        return None
    name, size = line.op.name, layout.stand_in[x].size
    pointers = [
        (i, f"a{n}" if i != out else "y", layout.stand_in[i].size == size, i == out)
        for n, i in enumerate(values)
    ]
    k = Builder(layout, line, number)
    if e.inner > 1:
        return [strips(k, name, pointers, e, flops * size)]
    for value, pointer, _, write in pointers:
        k.use(value, pointer, share=True, write=write)
    body = f"{name}_rows({', '.join(pointer for _, pointer, _, _ in pointers)}, {e.C}, lo, hi);"
    return [
        k.kernel(
            name,
            body,
            e.outer,
            flops * size,
            helper="" if name in _FIXED else c_text("reductions.c"),
        )
    ]


@lowers("softmax", "log_softmax")
def _softmax(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    return _lower(
        layout,
        line,
        number,
        (index(line.operands[0]), line.made()[0]),
        line.params.get("axis", -1),
        15,
    )


@lowers("logsumexp", "max", "min")
def _to_one(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    flops = 15 if line.op.name == "logsumexp" else 1
    return _lower(
        layout,
        line,
        number,
        (index(line.operands[0]), line.made()[0]),
        line.params.get("axis"),
        flops,
    )


@lowers("argmax", "argmin")
def _places(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    return _lower(
        layout,
        line,
        number,
        (index(line.operands[0]), line.made()[0]),
        line.params.get("axis"),
        2,
        _INT64,
    )


@lowers("tie_shares")
def _tie_shares(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    values = (index(line.operands[0]), index(line.operands[1]), line.made()[0])
    return _lower(layout, line, number, values, line.params["axis"], 3)
