"""Gathering by index in C, and adding up by index: along one axis, by arrays in a key, and windows
put back where they came from.

Nothing is added to one place by two threads: the work is cut along other axes than that of the
index, and each place adds up in the order in which the index names it. Where many may meet in one
place they are added up in float64, as numpy's bincount does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minigrad.compiler.kernel import Kernel
from minigrad.compiler.layout import Layout
from minigrad.compiler.lower import CTYPES, Builder, index, lowers, plain, zeros
from minigrad.compiler.program import Line
from minigrad.ops.index import ARRAY

_MANY = 32  # numbers that may be added one after the other in float32
_STOP = "{ atomic_store(&status, 1); return; }"
# GCC 12 would exchange the loops around it, which changes the order of additions
_IN_ORDER = '__asm__ volatile("" ::: "memory");'


def _whole(layout: Layout, i: int) -> bool:
    """True for integers in row-major order."""
    return layout.stand_in[i].dtype.kind in "iu" and layout.contiguous(i)


def _product(sizes: Sequence[int]) -> int:
    return int(np.prod(sizes, dtype=np.int64))


def _place(counter: str, shape: Sequence[int], steps: Sequence[int]) -> str:
    """The C expression of where element `counter` (row-major over `shape`) lies with these strides."""
    terms, below = [], 1
    for n, step in zip(reversed(shape), reversed(steps), strict=True):
        if step and n > 1:
            terms.append(f"{counter} / {below} % {n} * {step}")
        below *= n
    return " + ".join(terms) or "0"


def _packed(shape: Sequence[int]) -> list[int]:
    return [_product(shape[d + 1 :]) for d in range(len(shape))]


def _added(
    layout: Layout,
    line: Line,
    number: int,
    y: int,
    adding: Builder,
    total: int,
    body: str,
    units: int,
    flops: float,
) -> list[Kernel]:
    """Zeros, what `adding` adds to `total`, and, if that is not y itself but float64, y from it."""
    kernels = [zeros(layout, line, number, total), adding.kernel(line.op.name, body, units, flops)]
    if total != y:
        a = layout.stand_in[y]
        k = Builder(layout, line, number)
        k.use(total, "total", share=True), k.use(y, "y", share=True, write=True)
        width = _product(a.shape[1:])
        kernels.append(
            k.kernel(
                "rounded",
                f"for (int64_t i = lo * {width}; i < hi * {width}; i++) y[i] = (float)total[i];",
                a.size // width,
                a.size,
            )
        )
    return kernels


# --- along one axis


@lowers("take_along")
def _take_along(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    x, i, y = index(line.operands[0]), index(line.operands[1]), line.made()[0]
    a, shape = layout.stand_in[x], layout.stand_in[i].shape
    if (
        not _whole(layout, i)
        or not layout.contiguous(y)
        or 0 in shape
        or a.dtype.name not in CTYPES
    ):
        return None
    axis, steps = line.params["axis"] % a.ndim, list(layout.strides(x))
    beside = [0 if d == axis else s for d, s in enumerate(steps)]
    rows, width = _product(shape[:-1]), shape[-1]
    k = Builder(layout, line, number)
    k.use(x, "x", share=axis == a.ndim - 1 and a.shape[:-1] == shape[:-1] and a.ndim > 1)
    k.use(i, "index", share=True), k.use(y, "y", share=True, write=True)
    place = f"{_place('r', shape, beside)} + j * {steps[axis]}"
    body = (
        f"for (int64_t r = lo * {width}; r < hi * {width}; r++) {{\n        int64_t j = "
        "(int64_t)index[r];\n"
        f"        if (j < 0 || j >= {a.shape[axis]}) {_STOP}\n        y[r] = x[{place}];\n    }}"
    )
    return [k.kernel("take_along", body, rows, rows * width)]


@lowers("add_along")
def _add_along(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    g, i, y = index(line.operands[0]), index(line.operands[1]), line.made()[0]
    shape, out = layout.stand_in[i].shape, layout.stand_in[y].shape
    if (
        not _whole(layout, i)
        or not plain(layout, g, y)
        or 0 in shape
        or 0 in out
        or layout.stand_in[g].shape != shape
    ):
        return None
    axis, steps = line.params["axis"] % len(shape), _packed(out)
    total = layout.scratch(out, np.float64) if shape[axis] > _MANY else y
    units = shape[0] if axis else _product(shape[1:])
    each = _product(shape) // units
    share = axis > 0 and shape[0] == out[0]
    k = Builder(layout, line, number)
    (
        k.use(g, "g", share=share),
        k.use(i, "index", share=share),
        k.use(total, "total", share=share, write=True),
    )
    beside = [0 if d == axis else s for d, s in enumerate(steps)]
    place, row = (
        f"{_place('r', shape, beside)} + j * {steps[axis]}",
        f"u * {each} + n" if axis else f"n * {units} + u",
    )
    body = (
        f"for (int64_t u = lo; u < hi; u++) for (int64_t n = 0; n < {each}; n++) {{\n        "
        f"int64_t r = {row}, j = (int64_t)index[r];\n"
        f"        if (j < 0 || j >= {out[axis]}) {_STOP}\n        total[{place}] += g[r];\n    }}"
    )
    return _added(layout, line, number, y, k, total, body, units, units * each)


# --- by arrays in a key, side by side, with all of the other axes: x[:, rows, columns]


def _key(
    layout: Layout, k: Builder, line: Line, shape: Sequence[int], first: int
) -> tuple[tuple[int, ...], str] | None:
    """(the shape of the index, C statements that give `j`, the place on the indexed axes, for
    element `n` of it).
    """
    keys, spec = [index(x) for x in line.operands[first:]], line.params["spec"]
    if not keys:
        return None  # slices and integers alone
    before = next(d for d, part in enumerate(spec) if isinstance(part, str))
    wanted = (
        *[slice(None)] * before,
        *[ARRAY] * len(keys),
        *[slice(None)] * (len(spec) - before - len(keys)),
    )
    if len(spec) != len(wanted) or any(
        type(p) is not type(q) or p != q for p, q in zip(spec, wanted, strict=True)
    ):
        return None
    arrays = [layout.stand_in[i] for i in keys]
    if any(a.dtype.kind not in "iu" for a in arrays):
        return None
    out = np.broadcast_shapes(*(a.shape for a in arrays))
    lines = ["int64_t j = 0, i;"]
    for n, (value, a) in enumerate(zip(keys, arrays, strict=True)):
        size = shape[before + n]
        steps = (0,) * (len(out) - a.ndim) + layout.strides(value)
        lines.append(
            f"i = (int64_t){k.use(value, f'key{n}')}[{_place('n', out, steps)}]; i += i < 0 ? "
            f"{size} : 0;"
        )
        lines.append(f"if (i < 0 || i >= {size}) {_STOP}")
        lines.append(f"j = j * {size} + i;")
    return out, "\n        ".join(lines)


def _around(spec: Sequence[object], shape: Sequence[int]) -> tuple[int, int, int]:
    """(outer, indexed, inner): the sizes before, on and behind the axes that have arrays."""
    places = [d for d, part in enumerate(spec) if isinstance(part, str)]
    first, last = places[0], places[-1] + 1
    return _product(shape[:first]), _product(shape[first:last]), _product(shape[last:])


@lowers("take")
def _take(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    x, y = index(line.operands[0]), line.made()[0]
    a = layout.stand_in[x]
    if (
        not layout.contiguous(x)
        or not layout.contiguous(y)
        or a.size == 0
        or layout.stand_in[y].size == 0
    ):
        return None
    k = Builder(layout, line, number)
    key = _key(layout, k, line, a.shape, 1)
    if key is None:
        return None
    outer, indexed, inner = _around(line.params["spec"], a.shape)
    count, size = _product(key[0]), inner * a.itemsize
    k.use(x, "x", ctype="char"), k.use(y, "y", share=True, write=True, ctype="char")
    body = (
        f"for (int64_t r = lo; r < hi; r++) {{\n        int64_t n = r % {count};\n        "
        f"{key[1]}\n"
        f"        memcpy(y + r * {size}, x + (r / {count} * {indexed} + j) * {size}, {size});\n    }}"
    )
    return [k.kernel("take", body, outer * count, outer * count * inner)]


@lowers("add_at")
def _add_at(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    g, y = index(line.operands[0]), line.made()[0]
    out = layout.stand_in[y].shape
    if not plain(layout, g, y) or layout.stand_in[g].size == 0:
        return None
    k = Builder(layout, line, number)
    key = _key(layout, k, line, out, 1)
    if key is None:
        return None
    outer, indexed, inner = _around(line.params["spec"], out)
    count = _product(key[0])
    total = layout.scratch(out, np.float64) if count > _MANY and (outer > 1 or inner == 1) else y
    k.use(g, "g", share=outer > 1), k.use(total, "total", share=outer > 1, write=True)
    by_outer = (
        f"for (int64_t c = 0; c < {inner}; c++) total[(u * {indexed} + j) * {inner} + c] "
        "+= "
        f"g[(u * {count} + n) * {inner} + c];"
    )
    by_inner = f"for (int64_t c = lo; c < hi; c++) total[j * {inner} + c] += g[n * {inner} + c];"
    loop = "for (int64_t u = lo; u < hi; u++) " if outer > 1 else ""
    body = (
        f"{loop}for (int64_t n = 0; n < {count}; n++) {{\n        {key[1]}\n        "
        f"{by_outer if outer > 1 else by_inner}\n    }}"
    )
    return _added(
        layout,
        line,
        number,
        y,
        k,
        total,
        body,
        outer if outer > 1 else inner,
        outer * count * inner,
    )


@lowers("one_hot")
def _one_hot(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    i, y, n = index(line.operands[0]), line.made()[0], line.params["num_classes"]
    if not _whole(layout, i) or not layout.contiguous(y) or layout.stand_in[y].size == 0:
        return None
    k = Builder(layout, line, number)
    k.use(i, "index", share=True), k.use(y, "y", share=True, write=True)
    body = (
        f"for (int64_t r = lo; r < hi; r++) {{\n        int64_t j = (int64_t)index[r];\n        if "
        f"(j < 0 || j >= {n}) {_STOP}\n"
        f"        for (int64_t c = 0; c < {n}; c++) y[r * {n} + c] = c == j;\n    }}"
    )
    return [k.kernel("one_hot", body, layout.stand_in[i].size, layout.stand_in[y].size)]


# --- windows


@lowers("fold")
def _fold(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    """Windows are added to their axis one of their elements after the other, as numpy does: the
    same bits.
    """
    g, y, axis = index(line.operands[0]), line.made()[0], line.params["axis"]
    a = layout.stand_in[g]
    if a.dtype != np.float32 or not layout.contiguous(y) or a.size == 0:
        return None
    steps, L = layout.strides(g), line.params["length"]
    outer, inner = _product(a.shape[:axis]), _product(a.shape[axis + 1 : -1])
    step, dilation = line.params.get("step", 1), line.params.get("dilation", 1)
    k = Builder(layout, line, number)
    k.use(g, "g", share=True), k.use(y, "y", share=True, write=True)
    start, behind = (
        _place("u", a.shape[:axis], steps[:axis]),
        _place("e", a.shape[axis + 1 : -1], steps[axis + 1 : -1]),
    )
    body = (
        f"for (int64_t u = lo; u < hi; u++) {{\n        float *RESTRICT z = y + u * {L * inner};\n"
        f"        const float *RESTRICT w = g + {start};\n        memset(z, 0, {4 * L * inner});\n"
        f"        for (int64_t i = 0; i < {a.shape[-1]}; i++) {{\n            for (int64_t n = 0; "
        f"n < {a.shape[axis]}; n++)\n"
        f"                for (int64_t e = 0; e < {inner}; e++)\n"
        f"                    z[(i * {dilation} + n * {step}) * {inner} + e] += w[i * {steps[-1]} "
        f"+ n * {steps[axis]} + {behind}];\n"
        f"            {_IN_ORDER}\n        }}\n    }}"
    )
    return [k.kernel("fold", body, outer, a.size)]
