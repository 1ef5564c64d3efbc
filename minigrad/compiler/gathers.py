"""Gathering by index, and adding up by index: along one axis, by arrays in a key, and windows put
back where they came from. Whole rows of tables are in gathers.c.

Nothing is added to one place by two threads: the work is cut along other axes than that of the
index, and each place adds up in the order in which the index names it. Where many may meet in one
place they are added up in float64, as numpy's bincount does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from minigrad import ops
from minigrad.compiler.elementwise import lower_elementwise
from minigrad.compiler.kernel import Kernel
from minigrad.compiler.lower import FLOAT32, Builder, Call, filled, lowers, need, plain
from minigrad.compiler.products import place
from minigrad.compiler.program import Line, Ref
from minigrad.compiler.signatures import REFUSES
from minigrad.compiler.sums import Extent
from minigrad.ops.index import ARRAY

_MANY = 32  # numbers that may be added one after the other in float32
_STOP = f"{{ {REFUSES}; return; }}"
# GCC 12 would exchange the loops around it, which changes the order of additions
_IN_ORDER = '__asm__ volatile("" ::: "memory");'


def _need_index(call: Call, i: int) -> None:
    need(call.array(i).dtype.kind in "iu" and call.layout.contiguous(i))


class _Added:
    """What is added up at places of y: in y itself, or, if many may meet, in float64 first."""

    def __init__(self, call: Call) -> None:
        self.call, self.builder, self.total = call, Builder(call), call.y

    def reads(self, share: bool, many: bool, **values: int) -> None:
        """What is read, and where it is added up, `total`."""
        if many:
            self.total = self.call.layout.scratch(self.call.array(self.total).shape, np.float64)
        self.builder.reads(share=share, **values)
        self.builder.writes(share=share, total=self.total)

    def kernels(self, body: str, units: int, flops: float) -> list[Kernel]:
        """Zeros, what `body` adds to `total`, and, if that is not y itself, y from it."""
        call, y = self.call, self.call.y
        adding = self.builder.kernel(call.line.op.name, body, units, flops)
        kernels = [filled(call, self.total), adding]
        if self.total != y:
            rounded = Line(ops.cast, (Ref(self.total),), {}, (y,), call.line.where)
            kernels += lower_elementwise(call.layout, [(call.number, rounded)], {y})
        return kernels


# --- along one axis


@lowers("take_along")
def _take_along(call: Call) -> list[Kernel]:
    (x, i), y, layout, k = call.operands(), call.y, call.layout, Builder(call)
    a, shape = call.array(x), call.array(i).shape
    _need_index(call, i)
    need(layout.contiguous(y) and 0 not in shape)
    axis, steps = call.line.params["axis"] % a.ndim, layout.strides(x)
    # Where element r of y is in x but for the indexed axis, on which the index decides.
    others = [0 if d == axis else s for d, s in enumerate(steps)]
    rows, width = math.prod(shape[:-1]), shape[-1]
    k.use(x, "x", share=axis == a.ndim - 1 and a.shape[:-1] == shape[:-1] and a.ndim > 1)
    k.reads(share=True, index=i)
    k.writes(share=True, y=y)
    body = (
        f"for (int64_t r = lo * {width}; r < hi * {width}; r++) {{\n"
        f"        int64_t j = (int64_t)index[r];\n"
        f"        if (j < 0 || j >= {a.shape[axis]}) {_STOP}\n"
        f"        y[r] = x[{place('r', shape, others)} + j * {steps[axis]}];\n    }}"
    )
    return [k.kernel("take_along", body, rows, rows * width)]


@lowers("add_along")
def _add_along(call: Call) -> list[Kernel]:
    (g, i), y = call.operands(), call.y
    shape, out = call.array(i).shape, call.array(y).shape
    _need_index(call, i)
    need(plain(call.layout, g, y) and 0 not in (*shape, *out) and call.array(g).shape == shape)
    axis, steps = call.line.params["axis"] % len(shape), call.layout.strides(y)
    added = _Added(call)
    # Units are places on another axis than the indexed one: each adds to places of its own.
    units = shape[0] if axis else math.prod(shape[1:])
    each, share = math.prod(shape) // units, axis > 0 and shape[0] == out[0]
    added.reads(share, many=shape[axis] > _MANY, g=g, index=i)
    others = [0 if d == axis else s for d, s in enumerate(steps)]
    row = f"u * {each} + n" if axis else f"n * {units} + u"
    body = (
        f"for (int64_t u = lo; u < hi; u++) for (int64_t n = 0; n < {each}; n++) {{\n"
        f"        int64_t r = {row}, j = (int64_t)index[r];\n"
        f"        if (j < 0 || j >= {out[axis]}) {_STOP}\n"
        f"        total[{place('r', shape, others)} + j * {steps[axis]}] += g[r];\n    }}"
    )
    return added.kernels(body, units, units * each)


# --- by arrays in a key, next to each other, with all of the other axes: x[:, rows, columns]


def _key(call: Call, k: Builder, shape: Sequence[int]) -> tuple[int, str, Extent]:
    """(how many places the index names; C statements that give `j`, the place on the indexed axes,
    for the n-th of them; the sizes before, on and after these axes). Raises NoC for any other key.
    """
    keys, spec = call.operands()[1:], call.line.params["spec"]
    need(keys)  # otherwise slices and integers alone
    before = next(d for d, part in enumerate(spec) if isinstance(part, str))
    after = len(spec) - before - len(keys)
    whole = slice(None)
    wanted = (*[whole] * before, *[ARRAY] * len(keys), *[whole] * after)
    need(len(spec) == len(wanted))
    need(all(type(p) is type(q) and p == q for p, q in zip(spec, wanted, strict=True)))
    arrays = [call.array(i) for i in keys]
    need(all(a.dtype.kind in "iu" for a in arrays))
    out = np.broadcast_shapes(*(a.shape for a in arrays))
    # The arrays broadcast against each other; j counts row-major over the axes that they index.
    lines = ["int64_t j = 0, i;"]
    for n, (value, a) in enumerate(zip(keys, arrays, strict=True)):
        size = shape[before + n]
        steps = (0,) * (len(out) - a.ndim) + call.layout.strides(value)
        element = f"{k.use(value, f'key{n}')}[{place('n', out, steps)}]"
        lines.append(f"i = (int64_t){element}; i += i < 0 ? {size} : 0;")
        lines.append(f"if (i < 0 || i >= {size}) {_STOP}")
        lines.append(f"j = j * {size} + i;")
    end = before + len(keys)
    around = Extent(*map(math.prod, (shape[:before], shape[before:end], shape[end:])))
    return math.prod(out), "\n        ".join(lines), around


@lowers("take")
def _take(call: Call) -> list[Kernel]:
    x, y, k = call.operand(0), call.y, Builder(call)
    a = call.array(x)
    need(call.layout.contiguous(x) and call.layout.contiguous(y) and a.size and call.array(y).size)
    count, statements, (outer, indexed, inner) = _key(call, k, a.shape)
    size, row = inner * a.itemsize, f"r / {count} * {indexed}"
    k.use(x, "x", ctype="char")
    k.use(y, "y", share=True, write=True, ctype="char")
    body = (
        f"for (int64_t r = lo; r < hi; r++) {{\n        int64_t n = r % {count};\n"
        f"        {statements}\n"
        f"        memcpy(y + r * {size}, x + ({row} + j) * {size}, {size});\n    }}"
    )
    return [k.kernel("take", body, outer * count, outer * count * inner)]


@lowers("add_at")
def _add_at(call: Call) -> list[Kernel]:
    g, y, added = call.operand(0), call.y, _Added(call)
    out = call.array(y).shape
    need(plain(call.layout, g, y) and call.array(g).size)
    count, statements, (outer, indexed, inner) = _key(call, added.builder, out)
    # Whole rows of a table are added like vectors, in float32, as in eager.
    many = count > _MANY and (outer > 1 or inner == 1)
    added.reads(share=outer > 1, many=many, g=g)
    if outer > 1:
        loop, unit, columns = "for (int64_t u = lo; u < hi; u++) ", "u", f"c = 0; c < {inner}"
    else:
        loop, unit, columns = "", "0", "c = lo; c < hi"
    body = (
        f"{loop}for (int64_t n = 0; n < {count}; n++) {{\n        {statements}\n"
        f"        for (int64_t {columns}; c++) total[({unit} * {indexed} + j) * {inner} + c] += "
        f"g[({unit} * {count} + n) * {inner} + c];\n    }}"
    )
    return added.kernels(body, outer if outer > 1 else inner, outer * count * inner)


# --- windows


@lowers("fold")
def _fold(call: Call) -> list[Kernel]:
    """Windows are added to their axis one of their elements after the other, as numpy does: the
    same bits.
    """
    g, y, params, k = call.operand(0), call.y, call.line.params, Builder(call)
    a, steps, axis = call.array(g), call.layout.strides(g), params["axis"]
    need(a.dtype == FLOAT32 and call.layout.contiguous(y) and a.size)
    outer, inner = math.prod(a.shape[:axis]), math.prod(a.shape[axis + 1 : -1])
    step, dilation, length = params.get("step", 1), params.get("dilation", 1), params["length"]
    k.reads(share=True, g=g)
    k.writes(share=True, y=y)
    start = place("u", a.shape[:axis], steps[:axis])
    rest = place("e", a.shape[axis + 1 : -1], steps[axis + 1 : -1])
    body = (
        f"for (int64_t u = lo; u < hi; u++) {{\n"
        f"        float *RESTRICT z = y + u * {length * inner};\n"
        f"        const float *RESTRICT w = g + {start};\n"
        f"        memset(z, 0, {4 * length * inner});\n"
        f"        for (int64_t i = 0; i < {a.shape[-1]}; i++) {{\n"
        f"            for (int64_t n = 0; n < {a.shape[axis]}; n++)\n"
        f"                for (int64_t e = 0; e < {inner}; e++)\n"
        f"                    z[(i * {dilation} + n * {step}) * {inner} + e] += "
        f"w[i * {steps[-1]} + n * {steps[axis]} + {rest}];\n"
        f"            {_IN_ORDER}\n        }}\n    }}"
    )
    return [k.kernel("fold", body, outer, a.size)]
