"""Contractions: matrix products, which run in BLAS. Transposed operands are views; nothing is
copied for them.
"""

from __future__ import annotations

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import ShapeError
from minigrad.ops.axis import matrix_shape
from minigrad.ops.elementwise import has_nan
from minigrad.ops.movement import permute, reshape
from minigrad.ops.parallel import blas_threads, hold_blas, release_blas
from minigrad.ops.reduce import sum as sum_
from minigrad.precision import operand
from minigrad.primitive import primitive

# Multiplications: above the first OpenBLAS wakes other threads, which gain nothing below the
# second.
_FEW, _MANY = 1 << 18, 1 << 21
# OpenBLAS packs a weight in half the time that its transpose takes, and up to this many rows of x,
# from this many numbers of the weight on, weight @ x.T and a transposition are faster than x @
# weight.T (1.2 to 1.9 times with AVX-512).
_ROWS, _WEIGHT = 32, 1 << 16


def product(a: Array, b: Array) -> Array:
    """Return a @ b. A small product is held to one thread: next to a busy process, waiting for
    another takes many times as long as the product.
    """
    small = a.ndim == b.ndim == 2 and _FEW < a.size * b.shape[1] <= _MANY
    if small and blas_threads() > 1 and hold_blas():
        try:
            return np.matmul(a, b)
        finally:
            release_blas()
    return np.matmul(a, b)


def swap_last(x):
    """Return x with its last two axes exchanged, a view."""
    return permute(x, order=(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


@primitive(kind="contract", dtype="same", numpy=np.matmul)
def matmul(a: Array, b: Array) -> Array:
    """Return the matrix product over the last two axes: (..., M, K) @ (..., K, N) -> (..., M, N);
    leading axes broadcast.

    A 1-d operand is a row on the left, a column on the right, and the result lacks its axis.
    """
    a, b = operand(a), operand(b)
    if a.ndim > 2 and b.ndim == 2:  # one product of B * M rows is faster than B products of M rows
        return product(a.reshape(matrix_shape(a.shape)), b).reshape(*a.shape[:-1], b.shape[-1])
    return product(a, b)


@matmul.vjp
def _(g, _y, a, b, *, needs):
    rows = reshape(a, shape=(1, *a.shape)) if a.ndim == 1 else a
    columns = reshape(b, shape=(*b.shape, 1)) if b.ndim == 1 else b
    if rows is not a or columns is not b:
        batch = g.shape[: g.ndim - (a.ndim > 1) - (b.ndim > 1)]
        g = reshape(g, shape=(*batch, rows.shape[-2], columns.shape[-1]))
    ga = gb = None
    if needs[0]:
        ga = matmul(g, swap_last(columns))
        ga = reshape(ga, shape=(*ga.shape[:-2], ga.shape[-1])) if a.ndim == 1 else ga
    if needs[1]:
        if columns.ndim == 2 and rows.ndim > 2:  # the sum over the batch happens inside BLAS
            rows, g = (reshape(v, shape=matrix_shape(v.shape)) for v in (rows, g))
        gb = matmul(swap_last(rows), g)
        gb = reshape(gb, shape=gb.shape[:-1]) if b.ndim == 1 else gb
    return ga, gb


matmul.reads_other_operand = True


@primitive(kind="contract", dtype="same")
def guard_matmul(a: Array, b: Array) -> Array:
    """Return the matrix product in which 0 times infinity or NaN is 0: an element without weight
    has no influence. No 1-d operands.
    """
    return guarded(operand(a), operand(b))


def guarded(a: Array, b: Array) -> Array:
    """The same of operands that are rounded already."""
    y = np.matmul(a, b)
    if not has_nan(y):
        return y
    y = np.matmul(np.where(np.isfinite(a), a, 0), np.where(np.isfinite(b), b, 0))

    def met(x: Array, z: Array) -> Array:
        return np.matmul(x.astype(y.dtype), z.astype(y.dtype))

    for sign in (1, -1):
        infinite = met(a == np.inf, sign * b > 0) + met(sign * a > 0, b == np.inf)
        infinite += met(a == -np.inf, sign * b < 0) + met(sign * a < 0, b == -np.inf)
        y += np.where(infinite > 0, sign * np.inf, 0)
    lost = met(np.isnan(a), b != 0) + met(a != 0, np.isnan(b))
    return np.where(lost > 0, np.nan, y).astype(y.dtype, copy=False)


@guard_matmul.vjp
def _(g, _y, a, b, *, needs):
    ga = guard_matmul(g, swap_last(b)) if needs[0] else None
    return ga, guard_matmul(swap_last(a), g) if needs[1] else None


guard_matmul.reads_other_operand = True


@primitive(kind="contract", dtype="same")
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Return x @ weight.T + bias: (..., K), (N, K), (N,) -> (..., N). Raises ShapeError if K
    differs.
    """
    if x.ndim == 0 or weight.ndim != 2 or x.shape[-1] != weight.shape[1]:
        problem = f"x {x.shape} does not fit weight {weight.shape}"
        hint = "weight is (out, in), and x's last axis must be `in`"
        raise ShapeError("linear", problem, x.shape, (..., weight.shape[-1]), hint)
    rows, weight = operand(x).reshape(matrix_shape(x.shape)), operand(weight)
    if 1 < len(rows) <= _ROWS and weight.size >= _WEIGHT:
        y = product(weight, rows.T).T.copy()
    else:
        y = product(rows, weight.T)
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], weight.shape[0])


@linear.vjp
def _(g, _y, x, weight, _bias=None, *, needs):
    rows = reshape(g, shape=matrix_shape(g.shape))
    return (
        matmul(g, weight) if needs[0] else None,
        matmul(swap_last(rows), reshape(x, shape=matrix_shape(x.shape))) if needs[1] else None,
        sum_(rows, axis=0) if len(needs) > 2 and needs[2] else None,
    )[: len(needs)]


@linear.composed
def _(x, weight, bias=None):
    y = matmul(x, swap_last(weight))
    return y if bias is None else y + bias
