"""From lines to kernels: what each fused op, product and reduction is in C.

`lower` gives the kernels of a line, or None for what has no C: such a line is called back through
numpy between two compiled parts. Elementwise ops are in `expressions`, sums in `sums`, softmax and
extremes in `reductions`, optimizers in `updates`, dropout in `draws`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from minigrad.compiler.kernel import Argument, Kernel
from minigrad.compiler.layout import Layout, common
from minigrad.compiler.program import Line, Ref

CTYPES = {
    "float32": "float",
    "float64": "double",
    "int64": "int64_t",
    "int32": "int32_t",
    "uint8": "uint8_t",
    "bool": "uint8_t",
    "int8": "int8_t",
    "int16": "int16_t",
    "uint16": "uint16_t",
    "uint32": "uint32_t",
    "uint64": "uint64_t",
    # Fmt: skip  # 16-bit floats are moved and cast as their bits; void16 is bfloat16
    "float16": "uint16_t",
    "void16": "uint16_t",
}
BLOCK = 32  # rows of one partial sum, as in kernels.c
_FLOAT32 = np.dtype(np.float32)
_FEW = 8  # rows of a product below which it is done by dot products


class NoC(Exception):
    """A value has a dtype that C does not know."""


class Builder:
    """Collects the arguments and the memory of one kernel."""

    def __init__(self, layout: Layout, line: Line, number: int) -> None:
        self.layout, self.line, self.number = layout, line, number
        self.arguments: list[Argument] = []
        self.atoms: list[int] = []
        self.own: set[int] = set()
        self.whole: set[int] = set()
        self.writes: set[int] = set()
        self.bytes = 0.0

    def use(
        self, value: int, name: str, *, share: bool = False, write: bool = False, ctype: str = ""
    ) -> str:
        """A pointer to a value. share: units lo..hi touch the corresponding share of its leading
        axes only.
        """
        layout = self.layout
        dtype = layout.stand_in[value].dtype
        if not ctype and dtype.name not in CTYPES:
            raise NoC
        ctype = ctype or CTYPES[dtype.name]
        self.arguments.append(Argument(f"{ctype} *" if write else f"const {ctype} *", name, value))
        root, atoms = layout.root[value], layout.atoms(value) if share else -1
        self.bytes += layout.stand_in[value].nbytes
        if atoms >= 0:
            self.own.add(root)
            self.atoms.append(atoms)
        else:
            self.whole.add(root)
        if write:
            self.writes.add(root)
        return name

    def kernel(self, name: str, body: str, units: int, flops: float = 0.0, **more: Any) -> Kernel:
        """The kernel. Memory touched share by share and also as a whole counts as touched as a
        whole.
        """
        own = self.own - self.whole
        atoms = common(self.atoms, units) if own else 0
        if self.writes - own:
            atoms = 0
        return Kernel(
            name,
            tuple(self.arguments),
            body,
            units,
            atoms,
            frozenset(own if atoms else ()),
            frozenset(self.whole | (set() if atoms else own)),
            frozenset(self.writes),
            flops,
            self.bytes,
            self.line.where,
            (self.number,),
            **more,
        )


Lowering = Callable[[Layout, Line, int], "list[Kernel] | None"]
L = TypeVar("L", bound=Lowering)
LOWERINGS: dict[str, Lowering] = {}


def lowers(*names: str) -> Callable[[L], L]:
    """Register the lowering of ops by name."""

    def register(function: L) -> L:
        for name in names:
            LOWERINGS[name] = function
        return function

    return register


def index(x: Any) -> int:
    """The value of an operand that must be one."""
    assert isinstance(x, Ref)
    return x.index


def plain(layout: Layout, *values: int, dtype: Any = np.float32) -> bool:
    """True if all are contiguous and of the dtype."""
    return all(layout.contiguous(i) and layout.stand_in[i].dtype == dtype for i in values)


def rows_of(layout: Layout, i: int) -> tuple[int, int]:
    """(rows, width) of a value seen as a matrix of its last axis."""
    shape = layout.stand_in[i].shape or (1,)
    return (layout.stand_in[i].size // shape[-1] if shape[-1] else 0, shape[-1])


def integers(layout: Layout, i: int) -> str | None:
    """ "1" for int64, "0" for int32 indices in row-major order, else None."""
    a = layout.stand_in[i]
    return {"int64": "1", "int32": "0"}.get(a.dtype.name) if a.flags.c_contiguous else None


def literal(x: float, dtype: np.dtype[Any] = _FLOAT32) -> str:
    """The C literal of the nearest number of a float dtype, infinities and NaN included."""
    x = float(dtype.type(x))
    if math.isnan(x):
        return "NAN"
    if math.isinf(x):
        return "INFINITY" if x > 0 else "-INFINITY"
    return f"{x!r}f" if dtype == _FLOAT32 else repr(x)


def zeros(layout: Layout, line: Line, number: int, y: int) -> Kernel:
    """Zeros over all of a value that lies in memory of its own."""
    a = layout.roots[layout.root[y]]
    k = Builder(layout, line, number)
    k.use(y, "y", share=True, write=True, ctype="char")
    units = a.shape[0] if a.ndim and a.shape[0] else 1
    width = a.nbytes // units
    return k.kernel("zeros", f"memset(y + lo * {width}, 0, (hi - lo) * {width});", units)


def filled(layout: Layout, line: Line, number: int, y: int, value: float) -> Kernel:
    """The same number over all of a value that lies in memory of its own; of float32 if it is not
    0.
    """
    if value == 0:
        return zeros(layout, line, number, y)
    k = Builder(layout, line, number)
    k.use(y, "y", share=True, write=True)
    rows, C = rows_of(layout, y)
    return k.kernel(
        "filled", f"for (int64_t i = lo * {C}; i < hi * {C}; i++) y[i] = {literal(value)};", rows
    )


# --- layer norm, gelu


@lowers("layer_norm")
def _layer_norm(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    x, (y, middle, scale) = index(line.operands[0]), line.made()
    C = layout.stand_in[x].shape[-1]
    parts = [p.index for p in line.operands[1:] if isinstance(p, Ref)]
    if not plain(layout, x, y, *parts):
        return None
    k = Builder(layout, line, number)
    k.use(x, "x", share=True)
    weight, bias = (
        k.use(p.index, n) if isinstance(p, Ref) else "NULL"
        for p, n in zip(line.operands[1:3], ("weight", "bias"), strict=True)
    )
    (
        k.use(y, "y", share=True, write=True),
        k.use(middle, "middle", share=True, write=True),
        k.use(scale, "scale", share=True, write=True),
    )
    body = (
        f"layer_norm_rows(x, {weight}, {bias}, y, middle, scale, {C}, "
        f"{literal(line.params.get('eps', 1e-5))}, lo, hi);"
    )
    return [k.kernel("layer_norm", body, rows_of(layout, x)[0], 8 * layout.stand_in[x].size)]


@lowers("layer_norm_grad")
def lower_layer_norm_grad(
    layout: Layout, line: Line, number: int, more: int | None = None, out: int | None = None
) -> list[Kernel] | None:
    g, x, weight, middle, scale = line.operands
    gx, gw, gb = line.outputs
    rows, C = rows_of(layout, index(x))
    weights = [weight.index] if isinstance(weight, Ref) else []
    assert gx is not None and gw is not None and gb is not None
    if not plain(
        layout,
        index(g),
        index(x),
        index(middle),
        index(scale),
        gx,
        *weights,
        *([] if more is None else [more]),
    ):
        return None
    blocks = -(-rows // BLOCK)
    part_w, part_b = layout.scratch((blocks, C)), layout.scratch((blocks, C))
    k = Builder(layout, line, number)
    whole = rows % BLOCK == 0  # otherwise the last block is short, and units are no equal shares
    k.use(index(g), "g", share=whole), k.use(index(x), "x", share=whole)
    w = k.use(weight.index, "weight") if weights else "NULL"
    k.use(index(middle), "middle", share=whole), k.use(index(scale), "scale", share=whole)
    e = "NULL" if more is None else k.use(more, "more", share=whole)
    k.use(gx if out is None else out, "gx", share=whole, write=True)
    k.use(part_w, "part_w", share=True, write=True), k.use(part_b, "part_b", share=True, write=True)
    body = (
        f"layer_norm_grad_blocks(g, x, {w}, middle, scale, {e}, gx, part_w, part_b, {rows}, "
        f"{C}, lo, hi);"
    )
    first = k.kernel(
        "layer_norm_grad", body, blocks, 14 * rows * C, fused=["add"] if more is not None else []
    )
    return [
        first,
        column_sums(layout, line, number, part_w, gw, blocks, C),
        column_sums(layout, line, number, part_b, gb, blocks, C),
    ]


def column_sums(
    layout: Layout, line: Line, number: int, part: int, y: int, blocks: int, C: int
) -> Kernel:
    """The sum of `blocks` rows of C numbers, by columns."""
    k = Builder(layout, line, number)
    k.use(part, "part"), k.use(y, "y", write=True)
    return k.kernel("column_sums", f"column_sums(part, y, {blocks}, {C}, lo, hi);", C, blocks * C)


@lowers("gelu_tanh")
def _gelu(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    x, y = index(line.operands[0]), line.outputs[0]
    assert y is not None
    if not plain(layout, x, y):
        return None
    k = Builder(layout, line, number)
    k.use(x, "x", share=True), k.use(y, "y", share=True, write=True)
    rows, C = rows_of(layout, x)
    body = f"gelu_tanh_range(x, y, lo * {C}, hi * {C});"
    if (e := line.outputs[1]) is not None:
        k.use(e, "e", share=True, write=True)
        body += (
            f"\n    for (int64_t i = lo * {C}; i < hi * {C}; i++) e[i] = exp_f(-2.f * "
            "gelu_slope(x[i]));"
        )
    return [k.kernel("gelu_tanh", body, rows, 25 * rows * C)]


@lowers("gelu_tanh_grad")
def _gelu_grad(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    g, x = index(line.operands[0]), index(line.operands[1])
    y = line.made()[0]
    if not plain(layout, g, x, y):
        return None
    k = Builder(layout, line, number)
    k.use(g, "g", share=True), k.use(x, "x", share=True), k.use(y, "y", share=True, write=True)
    rows, C = rows_of(layout, x)
    return [
        k.kernel(
            "gelu_tanh_grad",
            f"gelu_tanh_grad_range(g, x, y, lo * {C}, hi * {C});",
            rows,
            30 * rows * C,
        )
    ]


# --- cross-entropy, embedding


@lowers("cross_entropy")
def _cross_entropy(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    logits, target = index(line.operands[0]), index(line.operands[1])
    loss, total = line.made()
    wide = integers(layout, target)
    if wide is None or not plain(layout, logits, loss, total):
        return None
    N, V = layout.stand_in[logits].shape
    k = Builder(layout, line, number)
    k.use(logits, "logits", share=True), k.use(target, "target", share=True, ctype="void")
    k.use(loss, "loss", share=True, write=True), k.use(total, "total", share=True, write=True)
    ignore, smoothing = (
        line.params.get("ignore_index", -100),
        line.params.get("label_smoothing", 0.0),
    )
    body = (
        f"cross_entropy_rows(logits, target, {wide}, loss, total, {V}, {ignore}, "
        f"{literal(smoothing)}, lo, hi);"
    )
    return [k.kernel("cross_entropy", body, N, 15 * N * V)]


@lowers("cross_entropy_grad")
def _cross_entropy_grad(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    g, logits, target, total = (index(x) for x in line.operands)
    y = line.made()[0]
    wide = integers(layout, target)
    if (
        wide is None
        or not plain(layout, logits, total, y)
        or layout.stand_in[g].dtype != np.float32
    ):
        return None
    N, V = layout.stand_in[logits].shape
    step = layout.strides(g)[0]
    k = Builder(layout, line, number)
    (
        k.use(g, "g", share=step == 1),
        k.use(logits, "logits", share=True),
        k.use(target, "target", share=True, ctype="void"),
    )
    k.use(total, "total", share=True), k.use(y, "y", share=True, write=True)
    ignore, smoothing = line.params["ignore_index"], line.params["label_smoothing"]
    body = (
        f"cross_entropy_grad_rows(g, {step}, logits, target, {wide}, total, y, {V}, {ignore}, "
        f"{literal(smoothing)}, lo, hi);"
    )
    return [k.kernel("cross_entropy_grad", body, N, 15 * N * V)]


@lowers("embedding")
def _embedding(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    weight, target, y = index(line.operands[0]), index(line.operands[1]), line.made()[0]
    wide, table = integers(layout, target), layout.stand_in[weight]
    if wide is None or not (layout.contiguous(weight) and layout.contiguous(y)) or table.size == 0:
        return None
    k = Builder(layout, line, number)
    (
        k.use(weight, "table", ctype="char"),
        k.use(target, "index", share=True, ctype="void"),
        k.use(y, "y", share=True, write=True, ctype="char"),
    )
    body = (
        f"embedding_rows(table, index, {wide}, y, {len(table)}, {table.nbytes // len(table)}, "
        "lo, hi);"
    )
    return [k.kernel("embedding", body, layout.stand_in[target].size)]


@lowers("embedding_grad")
def _embedding_grad(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    g, target, y = index(line.operands[0]), index(line.operands[1]), line.made()[0]
    wide, table = integers(layout, target), layout.stand_in[y]
    if wide is None or not plain(layout, g, y) or table.size == 0 or layout.stand_in[g].size == 0:
        return None
    C, rows = table.size // len(table), layout.stand_in[target].size
    k = Builder(layout, line, number)
    k.use(g, "g"), k.use(target, "index", ctype="void"), k.use(y, "y", write=True)
    body = f"embedding_grad_columns(g, index, {wide}, y, {len(table)}, {rows}, {C}, lo, hi);"
    return [k.kernel("embedding_grad", body, C, rows * C)]


# --- matrix products


def matrix(shape: Sequence[int], strides: Sequence[int]) -> tuple[bool, int] | None:
    """(transposed, leading dimension) of a matrix as BLAS wants it, None if neither axis is without
    gaps.
    """
    (rows, columns), (s0, s1) = shape, strides
    if (columns == 1 or s1 == 1) and (rows == 1 or s0 >= columns):
        return False, max(s0 if rows > 1 else columns, 1)
    if (rows == 1 or s0 == 1) and (columns == 1 or s1 >= rows):
        return True, max(s1 if columns > 1 else rows, 1)
    return None


def flat_matrix(layout: Layout, i: int, leading: int = -1) -> tuple[int, int, int, int] | None:
    """Return (rows, columns, row stride, column stride) of an array read as a matrix: its first
    `leading` axes as rows, all but the last one by default. None if either group of axes is not
    evenly spaced, so that only a copy would be a matrix.
    """
    a = layout.stand_in[i]
    row_stride = joined_stride(a.shape[:leading], a.strides[:leading])
    column_stride = joined_stride(a.shape[leading:], a.strides[leading:])
    if row_stride is None or column_stride is None:
        return None
    rows, columns = math.prod(a.shape[:leading]), math.prod(a.shape[leading:])
    return rows, columns, row_stride // a.itemsize, column_stride // a.itemsize


def joined_stride(shape: Sequence[int], strides: Sequence[int]) -> int | None:
    """Return the stride of these axes taken as one, 0 for fewer than two elements; None if they are
    not evenly spaced.

    numpy answers the same for `view.shape = ...`, but deprecates it since 2.5, and
    `reshape(copy=False)` is new in 2.1.
    """
    count, stride = 1, 0
    if 0 in shape:
        return 0
    for n, step in zip(reversed(shape), reversed(strides), strict=True):
        if n == 1:
            continue
        if count == 1:
            stride = step
        elif step != count * stride and n and count:
            return None
        count *= n
    return stride if count > 1 else 0


def product(
    layout: Layout,
    line: Line,
    number: int,
    a: int,
    b: int,
    y: int,
    transpose_b: bool,
    bias: int | None,
    more: int | None,
) -> list[Kernel] | None:
    """y = a b (+ bias) (+ more) for a matrix b: rows of a in parallel, or, where a is transposed
    (weight gradients), blocks of y.
    """
    left, right, out = (flat_matrix(layout, i) for i in (a, b, y))
    if (
        left is None
        or right is None
        or out is None
        or any(layout.stand_in[i].dtype != np.float32 for i in (a, b, y))
    ):
        return None
    A, B, Y = matrix(left[:2], left[2:]), matrix(right[:2], right[2:]), matrix(out[:2], out[2:])
    if A is None or B is None or Y is None or Y[0]:
        return None
    (ta, lda), (tb, ldb), ldc = A, B, Y[1]
    M, K, N = left[0], left[1], out[1]
    tb = tb != transpose_b
    k = Builder(layout, line, number)
    if not ta and M < _FEW and tb and K > 1:
        return [
            _few_rows(layout, line, number, (a, lda), (b, ldb), (y, ldc), (M, N, K), bias, more)
        ]
    by_rows = (
        not ta and M >= 64
    )  # BLAS packs b for each share of the rows: with few rows, shares of b's columns cost less
    k.use(a, "a", share=by_rows), k.use(b, "b")
    bias_text = "NULL" if bias is None else k.use(bias, "bias")
    more_text = "NULL" if more is None else k.use(more, "more", share=by_rows)
    k.use(y, "y", share=by_rows, write=True)
    flops = 2.0 * M * N * K
    fused = (["bias"] if bias is not None else []) + (["add"] if more is not None else [])
    if by_rows or (ta and M >= N and not fused):  # shares of the rows
        added = f"{bias_text}, {more_text if more is None else f'more + lo * {N}'}, {N}"
        start = "a + lo" if ta else f"a + lo * {lda}"
        body = (
            f"product({int(ta)}, {int(tb)}, hi - lo, {N}, {K}, {start}, {lda}, b, {ldb}, "
            f"{added}, y + lo * {ldc}, {ldc});"
        )
        return [k.kernel("product", body, M, flops, fused=fused)]
    added = (
        f"{bias_text if bias is None else 'bias + lo'}, "
        f"{more_text if more is None else 'more + lo'}, {N}"
    )
    start = f"b + lo * {ldb}" if tb else "b + lo"
    body = (
        f"product({int(ta)}, {int(tb)}, {M}, hi - lo, {K}, a, {lda}, {start}, {ldb}, {added}, y "
        f"+ lo, {ldc});"
    )
    return [k.kernel("product", body, N, flops, fused=fused)]


def _few_rows(
    layout: Layout,
    line: Line,
    number: int,
    a: tuple[int, int],
    b: tuple[int, int],
    y: tuple[int, int],
    sizes: tuple[int, int, int],
    bias: int | None,
    more: int | None,
) -> Kernel:
    """The same for a few rows of a and b by rows: dot products, bounded by how fast b is read; BLAS
    would pack b first. a, b, y: with their steps.
    """
    M, N, K = sizes
    k = Builder(layout, line, number)
    k.use(a[0], "a"), k.use(b[0], "b")
    added = [
        "NULL" if i is None else k.use(i, name) for i, name in ((bias, "bias"), (more, "more"))
    ]
    k.use(y[0], "y", write=True)
    body = f"few_rows(a, {a[1]}, b, {b[1]}, {', '.join(added)}, y, {y[1]}, {M}, {N}, {K}, lo, hi);"
    fused = [name for i, name in ((bias, "bias"), (more, "add")) if i is not None]
    return k.kernel("product", body, N, 2.0 * M * N * K, fused=fused)


@lowers("linear")
def lower_linear(
    layout: Layout, line: Line, number: int, more: int | None = None, out: int | None = None
) -> list[Kernel] | None:
    bias = line.operands[2] if len(line.operands) > 2 else None
    bias = bias.index if isinstance(bias, Ref) else None
    if 0 in layout.stand_in[index(line.operands[0])].shape or not plain(
        layout, *[i for i in (bias, more) if i is not None]
    ):
        return None
    y = line.made()[0] if out is None else out
    return product(
        layout, line, number, index(line.operands[0]), index(line.operands[1]), y, True, bias, more
    )


@lowers("matmul")
def _matmul(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    a, b, y = index(line.operands[0]), index(line.operands[1]), line.made()[0]
    left, right = layout.stand_in[a], layout.stand_in[b]
    if 0 in left.shape or 0 in right.shape:
        return None
    if left.ndim == 1 or right.ndim == 1:
        return _with_vector(layout, line, number, a, b, y)
    if right.ndim == 2:
        return product(layout, line, number, a, b, y, False, None, None)
    return _batched(layout, line, number, a, b, y)


def _with_vector(
    layout: Layout, line: Line, number: int, a: int, b: int, y: int
) -> list[Kernel] | None:
    """A 1-d operand is a row on the left, a column on the right. Rows times a column are dot
    products, of the column with each row.
    """
    left, right, out = (layout.stand_in[i] for i in (a, b, y))
    if right.ndim > 1:
        row, result = layout.name_view(left[None], a), layout.name_view(out[..., None, :], y)
        return (
            product(layout, line, number, row, b, result, False, None, None)
            if right.ndim == 2
            else _batched(layout, line, number, row, b, result)
        )
    rows = flat_matrix(layout, a)
    lies = None if rows is None else matrix(rows[:2], rows[2:])
    if rows is None or lies is None or any(x.dtype != np.float32 for x in (left, right, out)):
        return None
    if lies[0] or not layout.contiguous(b) or not layout.contiguous(y):
        column, result = layout.name_view(right[:, None], b), layout.name_view(out[..., None], y)
        return product(layout, line, number, a, column, result, False, None, None)
    M, K = rows[:2]
    return [_few_rows(layout, line, number, (b, K), (a, lies[1]), (y, M), (1, M, K), None, None)]


def _batched(
    layout: Layout, line: Line, number: int, a: int, b: int, y: int
) -> list[Kernel] | None:
    """One product per matrix of a batch; operands may broadcast over it."""
    arrays = [layout.stand_in[i] for i in (a, b, y)]
    batch = arrays[2].shape[:-2]
    if any(x.dtype != np.float32 for x in arrays) or not arrays[2].flags.c_contiguous:
        return None
    A, B, Y = (
        matrix(x.shape[-2:], layout.strides(i)[-2:]) for x, i in zip(arrays, (a, b, y), strict=True)
    )
    if A is None or B is None or Y is None or Y[0]:
        return None
    (ta, lda), (tb, ldb), ldc = A, B, Y[1]
    M, K = arrays[0].shape[-2:]
    N = arrays[1].shape[-1]
    k = Builder(layout, line, number)
    same = [x.shape[:-2] == batch for x in arrays]
    (
        k.use(a, "a", share=same[0]),
        k.use(b, "b", share=same[1]),
        k.use(y, "y", share=True, write=True),
    )
    offsets = []
    for x, i in ((arrays[0], a), (arrays[1], b)):
        steps, shape = layout.strides(i)[:-2], x.shape[:-2]
        steps = (0,) * (len(batch) - len(shape)) + tuple(steps)
        terms, below = [], 1
        for n, s in zip(reversed(batch), reversed(steps), strict=True):
            if s:
                terms.append(f"u / {below} % {n} * {s}")
            below *= n
        offsets.append(" + ".join(terms) or "0")
    count = int(np.prod(batch))
    body = (
        f"for (int64_t u = lo; u < hi; u++) product({int(ta)}, {int(tb)}, {M}, {N}, {K}, a + "
        f"{offsets[0]}, {lda}, b + {offsets[1]}, {ldb}, "
        f"NULL, NULL, 0, y + u * {M * N}, {ldc});"
    )
    return [k.kernel("batched_product", body, count, 2.0 * count * M * N * K)]
