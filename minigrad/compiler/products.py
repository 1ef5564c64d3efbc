"""Matrix products: linear and matmul, as tiles or through BLAS; of a few rows as dot products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from minigrad.compiler.kernel import Kernel
from minigrad.compiler.layout import Layout
from minigrad.compiler.lower import FLOAT32, Builder, Call, given, lowers, need, plain, value_of

_FEW = 8  # rows of a product below which it is done by dot products
_SOME = 64  # rows up to which they are packed, not the weight; as in products.c
# BLAS packs b for each share of the rows: with fewer rows, shares of b's columns cost less.
_ENOUGH = 64


class Matrix(NamedTuple):
    """A value as BLAS wants it. step: from row to row, or, transposed, from column to column."""

    value: int
    rows: int
    columns: int
    transposed: bool
    step: int


def matrix(value: int, shape: Sequence[int], strides: Sequence[int]) -> Matrix:
    """Raises NoC if neither axis is without gaps."""
    (rows, columns), (s0, s1) = shape, strides
    # The stride of an axis of size 1 is never used, whatever it is.
    if (columns == 1 or s1 == 1) and (rows == 1 or s0 >= columns):
        return Matrix(value, rows, columns, False, max(s0 if rows > 1 else columns, 1))
    need((rows == 1 or s0 == 1) and (columns == 1 or s1 >= rows))
    return Matrix(value, rows, columns, True, max(s1 if columns > 1 else rows, 1))


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


def _flat(call: Call, value: int) -> Matrix:
    need(call.array(value).dtype == FLOAT32)
    found = given(flat_matrix(call.layout, value))
    return matrix(value, found[:2], found[2:])


def _product(call: Call, a: int, b: int, y: int, across: bool, bias: int | None) -> list[Kernel]:
    """y = a b (+ bias) (+ residual) for a matrix b, transposed if `across`: rows of a in parallel,
    or, where a is transposed (weight gradients), blocks of y.
    """
    A, B, Y, residual = _flat(call, a), _flat(call, b), _flat(call, y), call.residual
    need(not Y.transposed)
    M, K, N, k = A.rows, A.columns, Y.columns, Builder(call)
    # A transposed view of the weight and the op's own transposition cancel.
    tb = B.transposed != across
    if not A.transposed and M <= _SOME and tb and K > 1:
        return [_few_rows(call, A, B, Y, (M, N, K), bias)]
    # By rows, a kernel touches only its share of a and y, and joins the chain of its neighbours. A
    # transposed a is a weight gradient: it needs all rows of the batch, and runs as a task.
    by_rows = not A.transposed and M >= _ENOUGH
    k.reads(share=by_rows, a=a)
    k.reads(b=b)
    fused = _use_added(k, bias, residual, share=by_rows)
    k.writes(share=by_rows, y=y)
    # The larger side of y is cut: threads then pack less of b for each number that they compute.
    shares_rows = by_rows or (A.transposed and M >= N and not fused)
    if shares_rows:
        rows, columns, words = "hi - lo", f"{N}", ("bias", f"residual + lo * {N}")
        left = "a + lo" if A.transposed else f"a + lo * {A.step}"
        right, to = "b", f"y + lo * {Y.step}"
    else:
        rows, columns, words = f"{M}", "hi - lo", ("bias + lo", "residual + lo")
        left, right, to = "a", f"b + lo * {B.step}" if tb else "b + lo", "y + lo"
    body = (
        f"product({int(A.transposed)}, {int(tb)}, {rows}, {columns}, {K}, {left}, {A.step}, "
        f"{right}, {B.step}, {_added(fused, *words)}, {N}, {to}, {Y.step});"
    )
    return [k.kernel("product", body, M if shares_rows else N, 2.0 * M * N * K, fused=fused)]


def _use_added(k: Builder, bias: int | None, residual: int | None, share: bool) -> list[str]:
    """Use what is added to a product, if it is there; the names of it."""
    if bias is not None:
        k.reads(bias=bias)
    if residual is not None:
        k.reads(share=share, residual=residual)
    return [a.name for a in k.arguments if a.name in ("bias", "residual")]


def _added(fused: list[str], bias: str, residual: str) -> str:
    """Two arguments of a product: these words for what is added to it, or NULL."""
    return ", ".join(
        word if name in fused else "NULL" for name, word in (("bias", bias), ("residual", residual))
    )


def _few_rows(
    call: Call, A: Matrix, B: Matrix, Y: Matrix, sizes: tuple[int, int, int], bias: int | None
) -> Kernel:
    """The same for up to _SOME rows of a and b by rows, without packing b: for a few rows as
    dot products, bounded by how fast b is read.
    """
    (M, N, K), k = sizes, Builder(call)
    k.reads(a=A.value, b=B.value)
    fused = _use_added(k, bias, call.residual, share=False)
    k.writes(y=Y.value)
    added = _added(fused, "bias", "residual")
    function = "few_rows" if M < _FEW else "some_rows"
    body = f"{function}(a, {A.step}, b, {B.step}, {added}, y, {Y.step}, {M}, {N}, {K}, lo, hi);"
    return k.kernel("product", body, N, 2.0 * M * N * K, fused=fused)


@lowers("linear")
def _linear(call: Call) -> list[Kernel]:
    x, weight, *rest = call.line.operands
    bias = value_of(rest[0]) if rest and rest[0] is not None else None
    need(0 not in call.array(value_of(x)).shape)
    need(plain(call.layout, *(i for i in (bias, call.residual) if i is not None)))
    return _product(call, value_of(x), value_of(weight), call.y, True, bias)


@lowers("matmul")
def _matmul(call: Call) -> list[Kernel]:
    a, b, y = *call.operands(), call.y
    left, right = call.array(a), call.array(b)
    need(left.size and right.size)
    if left.ndim == 1 or right.ndim == 1:
        return _with_vector(call, a, b, y)
    return _product(call, a, b, y, False, None) if right.ndim == 2 else _batched(call, a, b, y)


def _with_vector(call: Call, a: int, b: int, y: int) -> list[Kernel]:
    """A 1-d operand is a row on the left, a column on the right. Rows times a column are dot
    products, of the column with each row.
    """
    layout, left, right, out = call.layout, call.array(a), call.array(b), call.array(y)
    if right.ndim > 1:
        row, result = layout.name_view(left[None], a), layout.name_view(out[..., None, :], y)
        if right.ndim == 2:
            return _product(call, row, b, result, False, None)
        return _batched(call, row, b, result)
    # y = a b for a vector b: each number is a dot product with a row of a, so a is read once, in
    # order. Where its columns are contiguous instead, tiles do it.
    rows = _flat(call, a)
    if rows.transposed or not plain(layout, b, y):
        b, y = layout.name_view(right[:, None], b), layout.name_view(out[..., None], y)
        return _product(call, a, b, y, False, None)
    M, K = rows.rows, rows.columns
    column = Matrix(b, 1, K, False, K)
    return [_few_rows(call, column, rows, Matrix(y, 1, M, False, M), (1, M, K), None)]


def _batched(call: Call, a: int, b: int, y: int) -> list[Kernel]:
    """One product per matrix of a batch; operands may broadcast over it."""
    layout, arrays = call.layout, [call.array(i) for i in (a, b, y)]
    batch = arrays[2].shape[:-2]
    need(plain(layout, y) and all(x.dtype == FLOAT32 for x in arrays))
    A, B, Y = (
        matrix(i, x.shape[-2:], layout.strides(i)[-2:])
        for i, x in zip((a, b, y), arrays, strict=True)
    )
    need(not Y.transposed)
    M, K, N, count, k = A.rows, A.columns, B.columns, math.prod(batch), Builder(call)
    k.reads(share=arrays[0].shape[:-2] == batch, a=a)
    k.reads(share=arrays[1].shape[:-2] == batch, b=b)
    k.writes(share=True, y=y)
    places = []
    for i in (a, b):
        steps = layout.strides(i)[:-2]
        places.append(place("u", batch, (0,) * (len(batch) - len(steps)) + steps))
    body = (
        f"for (int64_t u = lo; u < hi; u++) product({int(A.transposed)}, {int(B.transposed)}, "
        f"{M}, {N}, {K}, a + {places[0]}, {A.step}, b + {places[1]}, {B.step}, "
        f"NULL, NULL, 0, y + u * {M * N}, {Y.step});"
    )
    return [k.kernel("batched_product", body, count, 2.0 * count * M * N * K)]


def place(counter: str, shape: Sequence[int], steps: Sequence[int]) -> str:
    """The C expression of where element `counter`, row-major over `shape`, is at these strides."""
    terms, below = [], 1
    for n, step in zip(reversed(shape), reversed(steps), strict=True):
        if step and n > 1:
            terms.append(f"{counter} / {below} % {n} * {step}")
        below *= n
    return " + ".join(terms) or "0"
