"""Sums in C: over everything, over rows, over the first axes in fixed blocks of rows, over axes in
the middle; where axes are apart, one group after the other. Bools and integers are counted and
added exactly."""

from __future__ import annotations

import numpy as np

from minigrad.compiler.kernel import Kernel
from minigrad.compiler.layout import Layout
from minigrad.compiler.lower import BLOCK, CTYPES, Builder, column_sums, flat_matrix, index, lowers
from minigrad.compiler.program import Line
from minigrad.compiler.reductions import extent, strips
from minigrad.dtypes import is_half

_WIDE = {
    "int64": "uint64_t",
    "uint64": "uint64_t",
    "bool": "uint8_t",
}  # what integers are added up in: unsigned ones may wrap around


@lowers("sum", "any", "all")
def _sum(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    x, y = index(line.operands[0]), line.made()[0]
    a, axis = layout.stand_in[x], line.params.get("axis")
    if not layout.contiguous(y) or a.size == 0 or a.ndim == 0:
        return None
    axes = {
        i % a.ndim
        for i in (range(a.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis)
    }
    return _over(layout, line, number, x, y, axes) if axes else None


def _over(
    layout: Layout, line: Line, number: int, x: int, y: int, axes: set[int]
) -> list[Kernel] | None:
    """The kernels of a sum over these axes: of the last group of neighbours, then, where there are
    more groups, of the others.
    """
    a = layout.stand_in[x]
    last = {max(axes)}
    while min(last) and (min(last) - 1 in axes or a.shape[min(last) - 1] == 1):
        last.add(min(last) - 1)
    rest = {i for i in axes - last if a.shape[i] > 1}
    if not rest:
        return _neighbours(layout, line, number, x, y, tuple(sorted(axes)))
    between = layout.scratch(
        tuple(1 if i in last else n for i, n in enumerate(a.shape)), layout.stand_in[y].dtype
    )
    first = _neighbours(layout, line, number, x, between, tuple(sorted(last)))
    second = _over(layout, line, number, between, y, rest)
    return None if first is None or second is None else [*first, *second]


def _neighbours(
    layout: Layout, line: Line, number: int, x: int, y: int, axes: tuple[int, ...]
) -> list[Kernel] | None:
    a, out = layout.stand_in[x], layout.stand_in[y]
    e = extent(a.shape, axes)
    if e is None or a.dtype.name not in CTYPES or is_half(a.dtype):
        return None
    if line.op.name != "sum" or out.dtype.kind != "f":
        return _exact(layout, line, number, x, y, axes)
    if a.dtype != np.float32 or out.dtype != np.float32:
        return None
    if layout.contiguous(x) and e.outer == e.inner == 1:
        return [_total(layout, line, number, x, y)]
    if layout.contiguous(x) and e.inner == 1:
        k = Builder(layout, line, number)
        k.use(x, "x", share=True), k.use(y, "y", share=True, write=True)
        body = f"for (int64_t r = lo; r < hi; r++) {{ float s; SUM(s, i, {e.C}, x[r * {e.C} + i]); y[r] = s; }}"
        return [k.kernel("sum_rows", body, e.outer, a.size)]
    if e.outer == 1:
        return _sum_leading(layout, line, number, x, y, max(axes) + 1)
    return (
        [
            strips(
                Builder(layout, line, number),
                "sum",
                [(x, "x", True, False), (y, "y", False, True)],
                e,
                a.size,
            )
        ]
        if layout.contiguous(x)
        else None
    )


def _exact(
    layout: Layout, line: Line, number: int, x: int, y: int, axes: tuple[int, ...]
) -> list[Kernel] | None:
    """The sum of bools or integers, whether any is true, or all."""
    a, out, e = layout.stand_in[x], layout.stand_in[y], extent(layout.stand_in[x].shape, axes)
    if (
        e is None
        or not layout.contiguous(x)
        or out.dtype.name not in _WIDE
        or (line.op.name == "sum" and a.dtype.kind not in "iub")
    ):
        return None
    ctype = _WIDE[out.dtype.name]
    sign, start = {"sum": ("+=", 0), "any": ("|=", 0), "all": ("&=", 1)}[line.op.name]
    k = Builder(layout, line, number)
    k.use(x, "x", share=True), k.use(y, "y", share=True, write=True, ctype=ctype)
    term = "({ctype})x[{at}]" if line.op.name == "sum" else "x[{at}] != 0"
    if e.inner == 1:
        term = term.format(ctype=ctype, at=f"r * {e.C} + n")
        inside = (
            f"{ctype} s = {start}; for (int64_t n = 0; n < {e.C}; n++) s {sign} {term}; y[r] = s;"
        )
    else:
        term = term.format(ctype=ctype, at=f"(r * {e.C} + n) * {e.inner} + i")
        inside = (
            f"{ctype} *RESTRICT z = y + r * {e.inner}; for (int64_t i = 0; i < {e.inner}; i++) z[i] = {start};\n"
            f"        for (int64_t n = 0; n < {e.C}; n++) for (int64_t i = 0; i < {e.inner}; i++) z[i] {sign} {term};"
        )
    return [
        k.kernel(
            line.op.name,
            f"for (int64_t r = lo; r < hi; r++) {{\n        {inside}\n    }}",
            e.outer,
            a.size,
        )
    ]


def _total(layout: Layout, line: Line, number: int, x: int, y: int) -> Kernel:
    n = layout.stand_in[x].size
    k = Builder(layout, line, number)
    k.use(x, "x"), k.use(y, "y", write=True)
    body = (
        f"(void)lo, (void)hi; double total = 0;\n    for (int64_t b = 0; b < {n}; b += 1024) {{ float s; const float *z = x + b; "
        f"SUM(s, i, MIN(1024, {n} - b), z[i]); total += s; }}\n    *y = (float)total;"
    )
    return k.kernel("sum_all", body, 1, n)


def _sum_leading(
    layout: Layout, line: Line, number: int, x: int, y: int, count: int
) -> list[Kernel] | None:
    """The sum over the first `count` axes: blocks of rows, then the blocks."""
    matrix = flat_matrix(layout, x, count)
    if matrix is None:
        return None
    rows, C, stride, inner = matrix
    if C > 1 and inner != 1:
        return None
    if rows == 1:
        stride = C
    if rows <= 2 * BLOCK and stride == C:
        return [column_sums(layout, line, number, x, y, rows, C)]
    blocks = -(-rows // BLOCK)
    part = layout.scratch((blocks, C))
    k = Builder(layout, line, number)
    k.use(x, "x", share=rows % BLOCK == 0), k.use(part, "part", share=True, write=True)
    first = k.kernel(
        "block_sums", f"block_sums(x, {stride}, part, {rows}, {C}, lo, hi);", blocks, rows * C
    )
    return [first, column_sums(layout, line, number, part, y, blocks, C)]
