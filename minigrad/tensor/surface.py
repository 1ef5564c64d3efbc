"""Tensor's vocabulary: every op and composed function that is a method, one name each.

Assignments only, so that a method is the op itself, with its docstring. The types that editors and
type checkers see are in surface.pyi, which `python tools/make_docs.py` writes.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Number
from typing import Any

import numpy as np

from minigrad import ops
from minigrad.dtypes import bfloat16, bool_, float16, float32, float64, int32, int64
from minigrad.ops import composed, loss, shape
from minigrad.ops.composed import accepts_0d as _row
from minigrad.tensor.attention import scaled_dot_product_attention
from minigrad.tensor.base import TensorBase


def _reflected(op: Any) -> Callable[[Any, Any], Any]:
    """The operator for an operand on the left: 2 - t."""
    return lambda self, other: op(other, self)


def _comparable(other: object) -> bool:
    """True for a tensor, an array, a number and lists of them. Anything else, an empty list too, is
    not equal to a tensor, as Python's protocol has it: `None in [t]` is False.
    """
    if isinstance(other, (list, tuple)):
        return bool(other) and all(map(_comparable, other))
    return isinstance(other, (TensorBase, Number, np.ndarray, np.generic))


_REAL = (int, float, np.integer, np.floating)


def _compared(op: Any, compare: Any) -> Callable[[Any, Any], Any]:
    """The operator == or !=. Fractions, Decimals and complex numbers are compared exactly."""

    def operator(self: Any, other: object) -> Any:
        if isinstance(other, Number) and not isinstance(other, _REAL):
            return self._wrap(np.asarray(compare(self.numpy(), other), np.bool_))
        return op(self, other) if _comparable(other) else NotImplemented

    return operator


def _divmod(self: Any, other: Any) -> tuple[Any, Any]:
    return ops.floor_div(self, other), ops.mod(self, other)


def _power(self: Any, other: Any) -> Any:
    return ops.square(self) if type(other) is int and other == 2 else ops.pow(self, other)


class Surface(TensorBase):
    """An operand may be a tensor, an array or a number; a number never changes the dtype. Names and
    numbers are PyTorch's. The formulas are with the ops of the same name.
    """

    __slots__ = ()
    __hash__ = TensorBase.__hash__

    # --- operators
    __add__, __radd__ = ops.add, _reflected(ops.add)
    __sub__, __rsub__ = ops.sub, _reflected(ops.sub)
    __mul__, __rmul__ = ops.mul, _reflected(ops.mul)
    __truediv__, __rtruediv__ = ops.div, _reflected(ops.div)
    __floordiv__, __rfloordiv__ = ops.floor_div, _reflected(ops.floor_div)
    __divmod__, __rdivmod__ = _divmod, _reflected(_divmod)
    __mod__, __rmod__ = ops.mod, _reflected(ops.mod)
    __pow__, __rpow__ = _power, _reflected(ops.pow)
    __matmul__, __rmatmul__ = ops.matmul, _reflected(ops.matmul)
    __and__, __rand__ = ops.bitwise_and, _reflected(ops.bitwise_and)
    __or__, __ror__ = ops.bitwise_or, _reflected(ops.bitwise_or)
    __xor__, __rxor__ = ops.bitwise_xor, _reflected(ops.bitwise_xor)
    __lshift__, __rlshift__ = ops.left_shift, _reflected(ops.left_shift)
    __rshift__, __rrshift__ = ops.right_shift, _reflected(ops.right_shift)
    __eq__, __ne__ = _compared(ops.equal, np.equal), _compared(ops.not_equal, np.not_equal)
    __lt__, __le__, __gt__, __ge__ = ops.less, ops.less_equal, ops.greater, ops.greater_equal
    __invert__, __neg__, __pos__, __abs__ = ops.bitwise_not, ops.neg, ops.copy, ops.abs

    # --- arithmetic, comparison, logic
    add, sub, mul, div, pow = ops.add, ops.sub, ops.mul, composed.div, ops.pow
    subtract, multiply, divide, true_divide = ops.sub, ops.mul, composed.div, ops.div
    floor_divide, mod, remainder, fmod = ops.floor_div, ops.mod, ops.mod, ops.fmod
    lerp, copysign, nan_to_num = ops.lerp, ops.copysign, ops.nan_to_num
    maximum, minimum, clamp, clip = ops.maximum, ops.minimum, composed.clamp, composed.clamp
    eq, ne, lt, le = ops.equal, ops.not_equal, ops.less, ops.less_equal
    gt, ge = ops.greater, ops.greater_equal
    isnan, isinf, isfinite = ops.isnan, ops.isinf, ops.isfinite
    logical_and, logical_or = ops.logical_and, ops.logical_or
    logical_xor, logical_not = ops.logical_xor, ops.logical_not
    bitwise_and, bitwise_or = ops.bitwise_and, ops.bitwise_or
    bitwise_xor, bitwise_not = ops.bitwise_xor, ops.bitwise_not
    where, masked_fill = composed.where, composed.masked_fill

    # --- functions of each element
    neg, negative, abs, absolute, sign = ops.neg, ops.neg, ops.abs, ops.abs, ops.sign
    floor, ceil, trunc, round = ops.floor, ops.ceil, ops.trunc, composed.round
    exp, exp2, expm1 = ops.exp, ops.exp2, ops.expm1
    log, log2, log10, log1p = ops.log, ops.log2, ops.log10, ops.log1p
    sqrt, rsqrt, square, reciprocal = ops.sqrt, ops.rsqrt, ops.square, ops.reciprocal
    sin, cos, tan, asin, acos, atan = ops.sin, ops.cos, ops.tan, ops.asin, ops.acos, ops.atan
    arcsin, arccos, arctan = ops.asin, ops.acos, ops.atan
    sinh, cosh, tanh = ops.sinh, ops.cosh, ops.tanh
    asinh, acosh, atanh, atan2, hypot = ops.asinh, ops.acosh, ops.atanh, ops.atan2, ops.hypot
    erf, erfc, logaddexp = ops.erf, ops.erfc, ops.logaddexp

    # --- activations
    relu, relu6, leaky_relu, sigmoid = ops.relu, ops.relu6, ops.leaky_relu, ops.sigmoid
    gelu, quick_gelu, silu, swish, mish = ops.gelu, ops.quick_gelu, ops.silu, ops.silu, ops.mish
    elu, selu, celu = ops.elu, ops.selu, ops.celu
    softplus, logsigmoid, softsign = ops.softplus, ops.logsigmoid, ops.softsign
    hardtanh, hardsigmoid, hardswish = ops.hardtanh, ops.hardsigmoid, ops.hardswish
    softmax, log_softmax = _row(ops.softmax), _row(ops.log_softmax)

    # --- reductions, scans, order
    sum, mean, prod, logsumexp = ops.sum, ops.mean, ops.prod, ops.logsumexp
    var, std, var_mean, std_mean = ops.var, ops.std, ops.var_mean, ops.std_mean
    max, min, any, all = ops.max, ops.min, ops.any, ops.all
    argmax, argmin = ops.argmax, ops.argmin
    max_with_index, min_with_index = ops.max_with_index, ops.min_with_index
    cumsum, cumprod = _row(ops.cumsum), _row(ops.cumprod)
    cummax, cummin = _row(ops.cummax), _row(ops.cummin)
    logcumsumexp = _row(ops.logcumsumexp)
    median, quantile, norm = ops.median, ops.quantile, ops.norm
    amax, amin = ops.max, ops.min
    sort, argsort, topk = _row(ops.sort), _row(ops.argsort), _row(ops.topk)

    # --- movement
    reshape, view, flatten, ravel = ops.reshape, ops.reshape, ops.flatten, ops.flatten
    unflatten, squeeze, unsqueeze = ops.unflatten, ops.squeeze, ops.unsqueeze
    permute, transpose, t = ops.permute, ops.transpose, ops.t
    movedim, swapaxes = ops.movedim, ops.swapaxes
    expand, broadcast_to, expand_as = ops.expand, ops.expand, ops.expand_as
    cat, stack, split, chunk, unbind = shape.cat, ops.stack, ops.split, ops.chunk, ops.unbind
    hstack, vstack = ops.hstack, ops.vstack
    flip, roll, repeat, tile = ops.flip, ops.roll, ops.repeat, ops.tile
    repeat_interleave, rearrange, meshgrid = ops.repeat_interleave, ops.rearrange, ops.meshgrid
    tril, triu, diagonal, unfold = ops.tril, ops.triu, ops.diagonal, ops.unfold
    pad, shrink, narrow, select = shape.pad, ops.shrink, ops.narrow, ops.select
    trace, diag, diff = ops.trace, ops.diag, ops.diff

    # --- products
    matmul, dot, mm, bmm = ops.matmul, ops.matmul, ops.matmul, ops.matmul
    tensordot, normalize, cosine_similarity = ops.tensordot, ops.normalize, ops.cosine_similarity
    outer, linear, einsum = composed.outer, ops.linear, staticmethod(ops.einsum)
    sequential, scaled_dot_product_attention = composed.sequential, scaled_dot_product_attention

    # --- norms, losses, convolution
    layernorm, rms_norm, batchnorm = composed.layernorm, composed.rms_norm, ops.batchnorm
    mse, nll_loss, cross_entropy = ops.mse_loss, ops.nll_loss, loss.cross_entropy
    binary_crossentropy = ops.binary_cross_entropy
    binary_crossentropy_logits = ops.binary_cross_entropy_with_logits
    sparse_categorical_crossentropy = composed.sparse_categorical_crossentropy
    conv1d, conv2d = ops.conv1d, ops.conv2d
    max_pool2d, avg_pool2d = ops.max_pool2d, ops.avg_pool2d

    # --- by index
    gather, scatter, scatter_reduce = composed.gather, ops.scatter, ops.scatter_reduce
    scatter_add, index_add, index_select = ops.scatter_add, ops.index_add, ops.index_select
    bincount, searchsorted, unique = ops.bincount, ops.searchsorted, ops.unique
    one_hot, nonzero = composed.one_hot, composed.nonzero

    # --- dtypes and memory
    cast, to, type_as = composed.cast, composed.to, composed.type_as
    float, double = composed.in_dtype(float32), composed.in_dtype(float64)
    half, bfloat16 = composed.in_dtype(float16), composed.in_dtype(bfloat16)
    int, long, bool = composed.in_dtype(int32), composed.in_dtype(int64), composed.in_dtype(bool_)
    clone, contiguous = ops.copy, composed.contiguous

    # --- comparison of whole tensors
    isclose, allclose, equal = composed.isclose, composed.allclose, composed.equal
