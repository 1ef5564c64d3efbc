"""Row-wise ops: the signature of an op's C function and the header line above it are the lowering.

A pointer that is read is the operand of that name; those that are written are the outputs, in
order. A number is a param of the op, or one of these:

    C, rows          the width of a row and how many there are, of the first operand in the header;
                     of indices, each is a row
    lo, hi           the units to work on
    NAME_rows        the length of NAME's first axis     NAME_bytes    the bytes of each row
    NAME_width       the length of its last axis         NAME_step     the stride of its last axis
    NAME_kind        what kind of integers a `const void *NAME` points to, for `index_at`
    NAME_at          where its rows are: a rows_t, for `row_at`

`float` points to float32, `int64_t` to int64, `char` to any dtype. Values must be contiguous, but
for those with NAME_step or NAME_at. What is written to `part_NAME`, (blocks, C), are partial sums
of an output. `residual` is another value, of the output's shape, to be added to it, or NULL.

The C of an op with a param `axis` has the parameters C, lo and hi: C is then the length of the axes
that are reduced. Where others follow them, the C by strips is called.
"""

from __future__ import annotations

import numpy as np

from minigrad.compiler.kernel import Kernel
from minigrad.compiler.lower import (
    BLOCK,
    Builder,
    Call,
    given,
    literal,
    need,
    plain,
    rows_of,
    value_of,
)
from minigrad.compiler.signatures import (
    BY_SIGNATURE,
    Parameter,
    Signature,
    arguments_of,
    signatures_of,
)
from minigrad.compiler.sums import Extent, column_sums, extent, strips
from minigrad.primitive import Primitive

_DTYPES = {"float": np.float32, "int64_t": np.int64}


def has_rows(op: Primitive) -> bool:
    """True if the op has C that lowers itself."""
    return not signatures_of(op).keys().isdisjoint(BY_SIGNATURE)


def lower_rows(call: Call) -> list[Kernel]:
    """The kernels of a row-wise op, by the signature of its C."""
    found, defaults = signatures_of(call.line.op), arguments_of(call.line.op)[1]
    if "axis" not in defaults:
        (signature,) = found.values()
        return _Binding(call, signature).kernels()
    shape = call.array(call.operand(0)).shape
    e = given(extent(shape, call.line.params.get("axis", defaults["axis"])))
    need(e.C < 1 << 31)  # places in a strip are counted in int32, which runs in vector registers
    if e.inner == 1:
        return _Binding(call, given(found.get("rows")), (e.outer, e.C)).kernels()
    return [_by_strips(call, given(found.get("strips")), e)]


def _bound(call: Call, signature: Signature) -> dict[str, int | None]:
    """pointer -> value, or None for NULL."""
    names, _ = arguments_of(call.line.op)
    operands = dict(zip(names, call.line.operands, strict=False))
    values: dict[str, int | None] = {"residual": call.residual}
    for name in signature.names(written=False):
        if name != "residual":
            x = operands.get(name)
            values[name] = None if x is None and name in signature.nullable else value_of(x)
    for name, i in zip(signature.names(written=True), call.outputs, strict=True):
        values[name] = None if i is None and name in signature.nullable else given(i)
    return values


class _Binding:
    """The parameters of a C function, bound to the values and params of a call.

    sizes: rows and C, if they are not those of the first operand in the header.
    """

    def __init__(
        self, call: Call, signature: Signature, sizes: tuple[int, int] | None = None
    ) -> None:
        self.call, self.layout, self.signature = call, call.layout, signature
        self.builder, self.parts = Builder(call), list[Kernel]()
        self.values, self.names = _bound(call, signature), {p.name for p in signature.parameters}
        self.reference = given(self.values[signature.cut[0]])
        self.rows, self.C = sizes or rows_of(self.layout, self.reference)
        if f"{signature.cut[0]}_kind" in self.names:  # each index is a row
            self.rows, self.C = self.rows * self.C, 1
        need(self.rows and self.C)
        self.blocks = -(-self.rows // BLOCK)

    def kernels(self) -> list[Kernel]:
        """The kernel, and after it the sums of the partial sums that it leaves."""
        signature, name = self.signature, self.call.line.op.name
        words = [self._pointer(p) if p.pointer else self._number(p) for p in signature.parameters]
        units = {"rows": self.rows, "blocks": self.blocks, "columns": self.C}[signature.unit]
        kernel = self.builder.kernel(
            name,
            f"{signature.function}({', '.join(words)});",
            units,
            signature.flops * self.rows * self.C,
            fused=[name for name in words if name == "residual"],
        )
        return [kernel, *self.parts]

    def _pointer(self, p: Parameter) -> str:
        value = self.values[p.name]
        if value is None:
            return "NULL"
        unit = self.signature.unit
        if p.name.startswith("part_"):
            # Each block writes sums of its own, so that threads never meet in one place and the
            # order of additions is fixed. A second kernel adds the blocks up.
            part = self.layout.scratch((self.blocks, self.C))
            self.parts.append(column_sums(self.call, part, value, self.blocks, self.C))
            return self.builder.use(part, p.name, share=True, write=True)
        a, step = self.call.array(value), (0, *self.layout.strides(value))[-1]
        need(a.size and (a.flags.c_contiguous or self.names & {f"{p.name}_step", f"{p.name}_at"}))
        if p.ctype == "void":
            need(a.dtype.kind in "iu" and a.size == self.rows)
        elif p.ctype != "char":
            need(a.dtype == _DTYPES[p.ctype])
        # What is cut has a whole number of elements for each row. Of what is cut by columns, every
        # thread touches all rows: no share of the memory is its own.
        cut = p.name in self.signature.cut or (p.written and unit != "columns")
        need(a.size % self.rows == 0 or not cut)
        # Not with a short last block, which is less than a share; nor for one number for all rows.
        even = unit == "rows" or (unit == "blocks" and self.rows % BLOCK == 0)
        share = cut and even and (step == 1 or f"{p.name}_step" not in self.names)
        ctype = p.ctype if p.ctype in ("void", "char") else ""
        return self.builder.use(value, p.name, share=share, write=p.written, ctype=ctype)

    def _number(self, p: Parameter) -> str:
        if p.name in ("lo", "hi"):
            return p.name
        if p.name in ("C", "rows"):
            return str(self.C if p.name == "C" else self.rows)
        # x_width is a property of the operand x, unless x is NULL or there is none: then it may be
        # a param of that name.
        name, _, what = p.name.rpartition("_")
        if self.values.get(name) is not None:
            return self._of_value(given(self.values[name]), what)
        _, defaults = arguments_of(self.call.line.op)
        x = given(self.call.line.params.get(p.name, defaults.get(p.name)))
        return literal(x) if p.ctype == "float" else str(int(x))

    def _of_value(self, value: int, what: str) -> str:
        a = self.call.array(value)
        if what == "at":
            return self._places(value)
        length, width = (a.shape[0], a.shape[-1]) if a.ndim else (1, 1)
        numbers = {
            "rows": length,
            "bytes": a.nbytes // length,
            "width": width,
            "step": (0, *self.layout.strides(value))[-1],
            "kind": a.itemsize if a.dtype.kind == "i" else -a.itemsize,
        }
        return str(numbers[what])

    def _places(self, value: int) -> str:
        """The rows_t of a value that broadcasts to the rows of the reference."""
        a, steps = self.call.array(value), self.layout.strides(value)
        sizes = self.call.array(self.reference).shape[:-1]
        # Only the start of a row is worked out; in it, elements must be next to each other.
        need(steps[-1] == 1 or a.shape[-1] == 1)
        axes: list[tuple[int, int]] = []  # (size, stride), neighbours joined where they are one
        for n, step in zip(sizes, (0,) * (len(sizes) - a.ndim + 1) + steps[:-1], strict=True):
            if n > 1 and axes and axes[-1][1] == n * step:
                axes[-1] = axes[-1][0] * n, step
            elif n > 1:
                axes.append((n, step))
        need(len(axes) <= 4)
        axes = [(1, 0)] * (4 - len(axes)) + axes
        numbers = (*(n for n, _ in axes[1:]), *(step for _, step in axes))
        return f"(rows_t){{{', '.join(map(str, numbers))}}}"


def _by_strips(call: Call, signature: Signature, e: Extent) -> Kernel:
    """The kernel of what is done along an axis that others follow."""
    values, pointers = _bound(call, signature), []
    for p in (p for p in signature.parameters if p.pointer):
        value = given(values[p.name])
        need(plain(call.layout, value, dtype=_DTYPES[p.ctype]))
        pointers.append((value, p.name, p.name in signature.cut, p.written))
    op, flops = call.line.op.name, signature.flops * e.outer * e.C * e.inner
    return strips(Builder(call), op, signature.function, pointers, e, flops)
