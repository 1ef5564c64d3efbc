"""Sums: over everything, over rows, over the first axes in fixed blocks of rows, over axes in the
middle; where axes are apart, one group after the other. Bools and integers are counted and added
exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minigrad.compiler.kernel import Kernel
from minigrad.compiler.lower import BLOCK, CTYPES, FLOAT32, Builder, Call, given, lowers, need
from minigrad.compiler.products import flat_matrix
from minigrad.dtypes import is_half

_STRIP = 64  # as in prelude.c
# Strips of one outer index are cut by threads only where there are fewer outer indices than this
_MANY = 8
# What integers are added up in: unsigned ones may wrap around
_WIDE = {"int64": "uint64_t", "uint64": "uint64_t", "bool": "uint8_t"}


class Extent(NamedTuple):
    """An array seen as (outer, C, inner), of which the middle is reduced."""

    outer: int
    C: int
    inner: int


def axes_of(shape: tuple[int, ...], axis: int | tuple[int, ...] | None) -> set[int]:
    """The axes that a param `axis` names."""
    named = range(len(shape)) if axis is None else (axis,) if isinstance(axis, int) else axis
    return {a % len(shape) for a in named} if shape else set()


def extent(shape: tuple[int, ...], axis: int | tuple[int, ...] | None) -> Extent | None:
    """The shape around the axes that are reduced; None if these are apart, or there is nothing to
    reduce. Axes of size 1 do not count.
    """
    gone = axes_of(shape, axis)
    sizes = [(n, a in gone) for a, n in enumerate(shape) if n != 1]
    places = [i for i, (_, reduced) in enumerate(sizes) if reduced]
    if not gone or 0 in shape or (places and places != list(range(places[0], places[-1] + 1))):
        return None
    first, last = (places[0], places[-1] + 1) if places else (len(sizes), len(sizes))
    parts = sizes[:first], sizes[first:last], sizes[last:]
    return Extent(*(int(np.prod([n for n, _ in part], dtype=np.int64)) for part in parts))


def strips(
    k: Builder,
    name: str,
    function: str,
    pointers: list[tuple[int, str, bool, bool]],
    e: Extent,
    flops: float,
) -> Kernel:
    """The kernel that calls `function` for all strips of columns. pointers: (value, its name in C,
    whether it has the middle axis, whether it is written).
    """
    # Columns that are next to each other are reduced side by side, _STRIP at a time, so that the
    # running sums stay in registers while rows are read in order.
    blocks = -(-e.inner // _STRIP)
    # Units are outer indices, of which each has its own memory, or strips.
    whole = blocks == 1 or e.outer >= _MANY
    for value, pointer, _, write in pointers:
        k.use(value, pointer, share=whole, write=write)
    starts = [
        f"{pointer} + u / {blocks} * {e.inner * (e.C if full else 1)} + u % {blocks} * {_STRIP}"
        for _, pointer, full, _ in pointers
    ]
    each = f" * {blocks}" if whole and blocks > 1 else ""
    width = f"MIN({_STRIP}, {e.inner} - u % {blocks} * {_STRIP})"
    body = (
        f"for (int64_t u = lo{each}; u < hi{each}; u++)\n        "
        f"{function}({', '.join(starts)}, {e.C}, {e.inner}, {width});"
    )
    return k.kernel(name, body, e.outer if whole else e.outer * blocks, flops)


def column_sums(call: Call, part: int, y: int, blocks: int, C: int) -> Kernel:
    """The sum of `blocks` rows of C numbers, by columns."""
    k = Builder(call)
    k.reads(part=part)
    k.writes(y=y)
    return k.kernel("column_sums", f"column_sums(part, y, {blocks}, {C}, lo, hi);", C, blocks * C)


class _Sum(NamedTuple):
    """How elements are joined: y `sign` each, from `start` on; as they are, or whether they are not
    0.
    """

    sign: str
    start: int
    truth: bool

    def lower(self, call: Call) -> list[Kernel]:
        x, y = call.operand(0), call.y
        a = call.array(x)
        axes = axes_of(a.shape, call.line.params.get("axis"))
        need(call.layout.contiguous(y) and a.size and axes)
        return self._over(call, x, y, axes)

    def _over(self, call: Call, x: int, y: int, axes: set[int]) -> list[Kernel]:
        """Over the last group of neighbours, then, where there are more groups, over the others."""
        # Axes that are apart are summed group by group, the last one first, which leaves least to
        # read. Neighbours, with axes of size 1 between them, are one axis to a loop.
        a, last = call.array(x), {max(axes)}
        while min(last) and (min(last) - 1 in axes or a.shape[min(last) - 1] == 1):
            last.add(min(last) - 1)
        rest = {i for i in axes - last if a.shape[i] > 1}
        if not rest:
            return self._neighbours(call, x, y, tuple(sorted(axes)))
        shape = tuple(1 if i in last else n for i, n in enumerate(a.shape))
        between = call.layout.scratch(shape, call.array(y).dtype)
        first = self._neighbours(call, x, between, tuple(sorted(last)))
        return [*first, *self._over(call, between, y, rest)]

    def _neighbours(self, call: Call, x: int, y: int, axes: tuple[int, ...]) -> list[Kernel]:
        a, out, packed = call.array(x), call.array(y), call.layout.contiguous(x)
        e = given(extent(a.shape, axes))
        need(a.dtype.name in CTYPES and not is_half(a.dtype))
        if self.truth or out.dtype.kind != "f":
            need(packed)
            return [self._exact(call, x, y, e)]
        need(a.dtype == FLOAT32 == out.dtype)
        # Leading axes: blocks of rows in parallel, which also reads rows with gaps between them.
        if e.outer == 1 and not (packed and e.inner == 1):
            return _sum_leading(call, x, y, max(axes) + 1)
        need(packed)
        if e.outer == e.inner == 1:
            return [_total(call, x, y)]
        k = Builder(call)
        if e.inner > 1:
            pointers = [(x, "x", True, False), (y, "y", False, True)]
            return [strips(k, "sum", "sum_strip", pointers, e, a.size)]
        k.reads(share=True, x=x)
        k.writes(share=True, y=y)
        row = f"float s; SUM(s, i, {e.C}, x[r * {e.C} + i]); y[r] = s;"
        body = f"for (int64_t r = lo; r < hi; r++) {{ {row} }}"
        return [k.kernel("sum_rows", body, e.outer, a.size)]

    def _exact(self, call: Call, x: int, y: int, e: Extent) -> Kernel:
        """The sum of bools or integers, whether any is true, or all."""
        a, ctype = call.array(x), given(_WIDE.get(call.array(y).dtype.name))
        need(self.truth or a.dtype.kind in "iub")
        k = Builder(call)
        k.reads(share=True, x=x)
        k.use(y, "y", share=True, write=True, ctype=ctype)
        term = "x[{at}] != 0" if self.truth else f"({ctype})x[{{at}}]"
        over = f"for (int64_t n = 0; n < {e.C}; n++)"
        if e.inner == 1:
            term = term.format(at=f"r * {e.C} + n")
            inside = f"{ctype} s = {self.start}; {over} s {self.sign} {term}; y[r] = s;"
        else:
            term = term.format(at=f"(r * {e.C} + n) * {e.inner} + i")
            columns = f"for (int64_t i = 0; i < {e.inner}; i++)"
            inside = (
                f"{ctype} *RESTRICT z = y + r * {e.inner}; {columns} z[i] = {self.start};\n"
                f"        {over} {columns} z[i] {self.sign} {term};"
            )
        body = f"for (int64_t r = lo; r < hi; r++) {{\n        {inside}\n    }}"
        return k.kernel(call.line.op.name, body, e.outer, a.size)


lowers("sum")(_Sum("+=", 0, truth=False).lower)
lowers("any")(_Sum("|=", 0, truth=True).lower)
lowers("all")(_Sum("&=", 1, truth=True).lower)


def _total(call: Call, x: int, y: int) -> Kernel:
    n, k = call.array(x).size, Builder(call)
    k.reads(x=x)
    k.writes(y=y)
    return k.kernel("sum_all", f"(void)lo, (void)hi; *y = sum_all(x, {n});", 1, n)


def _sum_leading(call: Call, x: int, y: int, count: int) -> list[Kernel]:
    """The sum over the first `count` axes: blocks of rows, then the blocks."""
    rows, C, stride, inner = given(flat_matrix(call.layout, x, count))
    need(C <= 1 or inner == 1)
    if rows == 1:  # its stride is never used
        stride = C
    # Few rows are not worth a second kernel.
    if rows <= 2 * BLOCK and stride == C:
        return [column_sums(call, x, y, rows, C)]
    blocks, k = -(-rows // BLOCK), Builder(call)
    part = call.layout.scratch((blocks, C))
    k.reads(share=rows % BLOCK == 0, x=x)
    k.writes(share=True, part=part)
    body = f"block_sums(x, {stride}, part, {rows}, {C}, lo, hi);"
    first = k.kernel("block_sums", body, blocks, rows * C)
    return [first, column_sums(call, part, y, blocks, C)]
