"""Sums in C: over everything, over the last axes, or over the first ones in fixed blocks of rows."""

from __future__ import annotations

import numpy as np

from minigrad.compiler.kernel import Kernel
from minigrad.compiler.layout import Layout
from minigrad.compiler.lower import BLOCK, Builder, column_sums, index, lowers
from minigrad.compiler.program import Line


@lowers("sum")
def _sum(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    x, y = index(line.operands[0]), line.made()[0]
    a, axis = layout.stand_in[x], line.params.get("axis")
    if a.dtype != np.float32 or layout.stand_in[y].dtype != np.float32 or not layout.contiguous(y) or a.size == 0 or a.ndim == 0:
        return None
    axes = sorted(range(a.ndim) if axis is None else {i % a.ndim for i in ((axis,) if isinstance(axis, int) else axis)})
    if not axes:
        return None
    if len(axes) == a.ndim and layout.contiguous(x):
        return [_total(layout, line, number, x, y)]
    if axes == list(range(a.ndim - len(axes), a.ndim)) and layout.contiguous(x):
        width = int(np.prod([a.shape[i] for i in axes]))
        k = Builder(layout, line, number)
        k.use(x, "x", share=True), k.use(y, "y", share=True, write=True)
        body = f"for (int64_t r = lo; r < hi; r++) {{ float s; SUM(s, i, {width}, x[r * {width} + i]); y[r] = s; }}"
        return [k.kernel("sum_rows", body, a.size // width, a.size)]
    if axes == list(range(len(axes))):
        return _sum_leading(layout, line, number, x, y, len(axes))
    if axes == list(range(axes[0], axes[0] + len(axes))) and layout.contiguous(x):
        return [_sum_middle(layout, line, number, x, y, axes)]
    return None


def _sum_middle(layout: Layout, line: Line, number: int, x: int, y: int, axes: list[int]) -> Kernel:
    """The sum over axes with others on both sides: row after row."""
    shape = layout.stand_in[x].shape
    outer, count, inner = (int(np.prod(part)) for part in (shape[: axes[0]], shape[axes[0] : axes[-1] + 1], shape[axes[-1] + 1 :]))
    k = Builder(layout, line, number)
    k.use(x, "x", share=True), k.use(y, "y", share=True, write=True)
    body = (f"for (int64_t r = lo; r < hi; r++) {{\n        for (int64_t i = 0; i < {inner}; i++) y[r * {inner} + i] = x[r * {count * inner} + i];\n"
            f"        for (int64_t n = 1; n < {count}; n++) for (int64_t i = 0; i < {inner}; i++) "
            f"y[r * {inner} + i] += x[(r * {count} + n) * {inner} + i];\n    }}")  # fmt: skip
    return k.kernel("sum_middle", body, outer, outer * count * inner)


def _total(layout: Layout, line: Line, number: int, x: int, y: int) -> Kernel:
    n = layout.stand_in[x].size
    k = Builder(layout, line, number)
    k.use(x, "x"), k.use(y, "y", write=True)
    body = (f"(void)lo, (void)hi; double total = 0;\n    for (int64_t b = 0; b < {n}; b += 1024) {{ float s; const float *z = x + b; "
            f"SUM(s, i, MIN(1024, {n} - b), z[i]); total += s; }}\n    *y = (float)total;")  # fmt: skip
    return k.kernel("sum_all", body, 1, n)


def _sum_leading(layout: Layout, line: Line, number: int, x: int, y: int, count: int) -> list[Kernel] | None:
    """The sum over the first axes: blocks of rows, then the blocks."""
    a = layout.stand_in[x]
    rows, C = int(np.prod(a.shape[:count])), int(np.prod(a.shape[count:]))
    view = a.view()
    try:
        view.shape = (rows, C)
    except AttributeError:
        return None
    if C > 1 and view.strides[1] != a.itemsize:
        return None
    stride = view.strides[0] // a.itemsize
    if rows <= 2 * BLOCK and stride == C:
        return [column_sums(layout, line, number, x, y, rows, C)]
    blocks = -(-rows // BLOCK)
    part = layout.scratch((blocks, C))
    k = Builder(layout, line, number)
    k.use(x, "x", share=rows % BLOCK == 0), k.use(part, "part", share=True, write=True)
    first = k.kernel("block_sums", f"block_sums(x, {stride}, part, {rows}, {C}, lo, hi);", blocks, rows * C)
    return [first, column_sums(layout, line, number, part, y, blocks, C)]
