"""Scans: running sums, products and maxima along an axis; and the product of an axis, whose rule
needs them.

The rules of cumprod and logcumsumexp are linear recurrences s_k = a_k s_(k-1) + b_k, of which
`recurrence` is the op. Nothing is divided, so zeros in a product are no special case, at any order
of derivative.
"""

from __future__ import annotations

from math import prod as product
from typing import Any

import numpy as np

from minigrad.dtypes import Array, adding
from minigrad.ops.axis import Axis, axes, one_axis
from minigrad.ops.calculus import exp
from minigrad.ops.composite import composite
from minigrad.ops.elementwise import equal, isinf, logical_and, mask_cotangent, where
from minigrad.ops.index import take_along
from minigrad.ops.movement import flip, pad, permute, reshape
from minigrad.ops.reduce import broadcast_back
from minigrad.primitive import primitive


def _shifted(x: Any, axis: int, by: int, value: float) -> Any:
    """Return x moved by 1 or -1 places along `axis`; `value` comes in, what falls off is lost."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (by, -by)
    return pad(x, widths=tuple(widths), value=value)


def _backwards(scan: Any, *operands: Any, axis: int) -> Any:
    """Return a scan that runs from the end of the axis to its start."""
    return flip(scan(*(flip(x, axis=(axis,)) for x in operands), axis=axis), axis=(axis,))


def _after(a: Any, g: Any, axis: int) -> Any:
    """Return r_k = g_k + a_(k+1) r_(k+1) along `axis`: the transpose of a recurrence."""
    return _backwards(recurrence, _shifted(a, axis, -1, 0.0), g, axis=axis)


@primitive(kind="reduce", numpy=np.cumsum)
def cumsum(x: Array, *, axis: int = 0) -> Array:
    """Return the sums of the first 1, 2, ... elements along `axis`. Floats are added in float64,
    bools and small integers in int64.
    """
    axis = one_axis(axis, x.ndim, "cumsum")
    y = np.cumsum(x, axis=axis, dtype=np.float64 if x.dtype.kind == "f" else adding(x.dtype))
    return y.astype(x.dtype, copy=False) if x.dtype.kind == "f" else y


@cumsum.vjp
def _(g, _y, _x, *, axis=0):
    return (_backwards(cumsum, g, axis=axis),)


@primitive(kind="reduce")
def recurrence(a: Array, b: Array, *, axis: int) -> Array:
    """Return s_0 = b_0, s_k = a_k s_(k-1) + b_k along `axis`; a and b have the same shape."""
    y = np.empty(b.shape, np.result_type(a, b))
    rows, factors, terms = (np.moveaxis(v, axis, 0) for v in (y, a, b))
    for k in range(len(rows)):
        rows[k] = factors[k] * rows[k - 1] + terms[k] if k else terms[k]
    return y


@recurrence.vjp
def _(g, y, a, _b, *, axis):
    r = _after(a, g, axis)
    return r * _shifted(y, axis, 1, 0.0), r


@primitive(kind="reduce", numpy=np.cumprod)
def cumprod(x: Array, *, axis: int = 0) -> Array:
    """Return the products of the first 1, 2, ... elements along `axis`."""
    return np.cumprod(x, axis=one_axis(axis, x.ndim, "cumprod"), dtype=adding(x.dtype))


@cumprod.vjp
def _(g, _y, x, *, axis=0):
    # d y_i / d x_k = (product before k) (product from k + 1 to i): the first factor is a cumprod
    # again, the sum over i a recurrence.
    return (cumprod(_shifted(x, axis, 1, 1.0), axis=axis) * _after(x, g, axis),)


@primitive(kind="reduce", numpy=np.prod)
def prod(x: Array, *, axis: Axis = None, keepdim: bool = False) -> Array:
    """Return the product along `axis`; of nothing, 1. Each element's derivative is the product of
    all others, zeros among them or not.
    """
    return np.prod(x, axis=axes(axis, x.ndim, "prod"), keepdims=keepdim, dtype=adding(x.dtype))


@prod.vjp
def _(g, _y, x, *, axis=None, keepdim=False):
    gone = axes(axis, x.ndim, "prod")
    order = (*(i for i in range(x.ndim) if i not in gone), *gone)
    rows = permute(x, order=order)
    shape, last = rows.shape, x.ndim - len(gone)
    rows = reshape(rows, shape=(*shape[:last], product(shape[last:])))
    before = cumprod(_shifted(rows, last, 1, 1.0), axis=last)
    after = _backwards(cumprod, _shifted(rows, last, -1, 1.0), axis=last)
    back = tuple(int(i) for i in np.argsort(order))
    g = broadcast_back(g, axis, x.shape)
    return (mask_cotangent(g * permute(reshape(before * after, shape=shape), order=back), g),)


@primitive(kind="reduce")
def cummax_index(x: Array, *, axis: int, smallest: bool = False) -> Array:
    """Return where the largest (or smallest) of the first 1, 2, ... elements along `axis` stands:
    the last of equals, and the first NaN from there on. int64.
    """
    best = (np.minimum if smallest else np.maximum).accumulate(x, axis=axis)
    place = np.arange(x.shape[axis]).reshape(-1, *(1,) * (x.ndim - axis % x.ndim - 1))
    return np.maximum.accumulate(np.where((x == best) | np.isnan(x), place, 0), axis=axis)


@composite
def cummax(x: Any, axis: int = 0) -> tuple[Any, Any]:
    """Return the largest of the first 1, 2, ... elements along `axis`, and its index. The gradient
    goes to that element.
    """
    return _so_far(x, one_axis(axis, x.ndim, "cummax"), smallest=False)


@composite
def cummin(x: Any, axis: int = 0) -> tuple[Any, Any]:
    """Return the smallest of the first 1, 2, ... elements along `axis`, and its index. The gradient
    goes to that element.
    """
    return _so_far(x, one_axis(axis, x.ndim, "cummin"), smallest=True)


def _so_far(x: Any, axis: int, smallest: bool) -> tuple[Any, Any]:
    index = cummax_index(x, axis=axis, smallest=smallest)
    return take_along(x, index, axis=axis), index


@primitive(kind="reduce", dtype="float")
def logcumsumexp(x: Array, *, axis: int = 0) -> Array:
    """Return log of the sums of the first 1, 2, ... elements' exponentials, without overflow.
    Computed in float64.
    """
    return np.logaddexp.accumulate(x, axis=axis, dtype=np.float64).astype(x.dtype)


@logcumsumexp.vjp
def _(g, y, x, *, axis=0):
    # sum over i >= k of g_i exp(x_k - y_i) = exp(x_k - y_k) r_k, where r_k = g_k + exp(y_k -
    # y_(k+1)) r_(k+1): no exponent is above 0.
    r = _after(exp(_difference(_shifted(y, axis, 1, 0.0), y)), g, axis)
    return (mask_cotangent(r * where(equal(x, -np.inf), 0, exp(_difference(x, y))), r),)


def _difference(a: Any, b: Any) -> Any:
    """Return a - b, and 0 for two equal infinities."""
    return where(logical_and(equal(a, b), isinf(a)), 0, a - b)
