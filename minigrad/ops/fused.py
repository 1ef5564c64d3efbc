"""Fused ops: a few steps of a transformer in one buffer each, for eager speed and for exactness.

Each has a fast rule, which calls a primitive of its own, and a composed form, which defines it and
which second derivatives use.
"""

from __future__ import annotations

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import ShapeError
from minigrad.ops.axis import matrix_shape
from minigrad.ops.calculus import exp, rsqrt
from minigrad.ops.elementwise import mask_cotangent, where
from minigrad.ops.index import check_range
from minigrad.ops.movement import reshape
from minigrad.ops.reduce import mean, ones_column, shifted_logsumexp, sum as sum_, sum_rows
from minigrad.primitive import primitive

_TOGETHER = 1 << 18  # logits whose exponentials are kept at a time: 1 MB of float32


@primitive(kind="reduce", dtype="float")
def softmax(x: Array, *, axis: int = -1) -> Array:
    """Return exp(x) / sum(exp(x)) along `axis`; the maximum is subtracted first. A row of -inf
    gives zeros; several +inf share the whole evenly.
    """
    top = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    if np.isinf(top).any():
        x = np.where(top == np.inf, np.where(x == np.inf, x.dtype.type(0), -np.inf), x)
        top = np.where(np.isinf(top), 0, top)
    y = x - top
    np.exp(y, out=y)
    total = row_sums(y) if axis in (-1, y.ndim - 1) else np.add.reduce(y, axis=axis, keepdims=True)
    total[total == 0] = 1
    return np.divide(y, total, out=y)


def row_sums(x: Array) -> Array:
    """Return the sums of the last axis, kept as size 1: a product with ones, since BLAS sums short
    rows 5 times faster than numpy's reduction.
    """
    sums = np.matmul(x.reshape(matrix_shape(x.shape)), ones_column(x.shape[-1], x.dtype))
    return sums.reshape(*x.shape[:-1], 1)


@softmax.vjp
def _(g, y, _x, *, axis=-1):
    gy = mask_cotangent(g * y, g)
    total = sum_(gy, axis=axis, keepdim=True)
    return (gy - mask_cotangent(total * y, total),)


@primitive(kind="reduce", dtype="float")
def log_softmax(x: Array, *, axis: int = -1) -> Array:
    """Return log(softmax(x)) = x - logsumexp(x) along `axis`; a row of -inf stays -inf; +inf gives
    0, and -inf to all others.
    """
    y, log_sum, _ = shifted_logsumexp(x, axis)
    y -= log_sum
    if np.isposinf(log_sum).any():
        np.copyto(y, np.where(x == np.inf, 0, -np.inf), where=log_sum == np.inf)
    return np.where(x == -np.inf, x, y)


@log_softmax.vjp
def _(g, y, _x, *, axis=-1):
    return (g - exp(y) * sum_(g, axis=axis, keepdim=True),)


@primitive(kind="reduce", dtype="same", outputs=3)
def layer_norm(
    x: Array, weight: Array | None, bias: Array | None, *, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """Normalise the last axis to mean 0 and variance 1, then scale and shift; also return the mean
    and 1/std of each row.

    y = (x - mean) / sqrt(var + eps) * weight + bias

    x: (..., C)   weight, bias: (C,) or None   ->   (..., C), (..., 1), (..., 1)
    Raises ShapeError if C differs. From Ba et al. 2016, arXiv:1607.06450.
    """
    _check_widths("layer_norm", x, weight, bias)
    rows, width = x.reshape(matrix_shape(x.shape)), x.dtype.type(x.shape[-1])
    means = row_sums(rows)
    means /= width
    y = rows - means
    scale = np.vecdot(y, y)[:, None]
    scale /= width
    scale += eps
    np.sqrt(scale, out=scale)
    np.reciprocal(scale, out=scale)
    y *= scale
    if weight is not None:
        y *= weight
    if bias is not None:
        y += bias
    one = (*x.shape[:-1], 1)
    return y.reshape(x.shape), means.reshape(one), scale.reshape(one)


def _check_widths(call: str, x: Array, *factors: Array | None) -> None:
    for p in factors:
        if p is not None and p.shape != x.shape[-1:]:
            problem = f"x {x.shape} does not fit weight or bias {p.shape}"
            raise ShapeError(call, problem, got=p.shape, wanted=x.shape[-1:])


@layer_norm.vjp
def _(g, y, x, weight, _bias, *, eps=1e-5):
    gx, gw, gb = layer_norm_grad(g[0], x, weight, y[1], y[2])
    return gx, (None if weight is None else gw), (None if _bias is None else gb)


@layer_norm.composed
def _(x, weight, bias, *, eps=1e-5):
    centred = x - mean(x, axis=-1, keepdim=True)
    y = centred * rsqrt(mean(centred * centred, axis=-1, keepdim=True) + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


@primitive(kind="reduce", outputs=3)
def layer_norm_grad(
    g: Array, x: Array, weight: Array | None, means: Array, scale: Array
) -> tuple[Array, Array, Array]:
    """Return the cotangents of x, weight and bias. With h = (x - mean) / std and u = g * weight:
    dx = (u - mean(u) - h mean(u h)) / std.
    """
    shape, width = matrix_shape(x.shape), x.dtype.type(x.shape[-1])
    g, means, scale = g.reshape(shape), means.reshape(-1, 1), scale.reshape(-1, 1)
    h = x.reshape(shape) - means
    h *= scale
    gx = g * h
    gw, gb = sum_rows(gx), sum_rows(g)
    u = g if weight is None else np.multiply(g, weight, out=gx)
    h *= np.vecdot(u, h)[:, None] / width
    h += row_sums(u) / width
    gx = np.subtract(u, h, out=gx)
    gx *= scale
    return gx.reshape(x.shape), gw, gb


@primitive(kind="reduce", dtype="same", outputs=2)
def rms_norm(x: Array, weight: Array | None, *, eps: float = 1e-6) -> tuple[Array, Array]:
    """Divide the last axis by its root mean square, then scale; also return 1/rms of each row.

    y = x / sqrt(mean(x^2) + eps) * weight

    x: (..., C)   weight: (C,) or None   ->   (..., C), (..., 1)
    Raises ShapeError if C differs. From Zhang and Sennrich 2019, arXiv:1910.07467.
    """
    _check_widths("rms_norm", x, weight)
    scale = 1 / np.sqrt(np.vecdot(x, x)[..., None] / x.dtype.type(x.shape[-1]) + x.dtype.type(eps))
    y = x * scale
    if weight is not None:
        y *= weight
    return y, scale


@rms_norm.vjp
def _(g, y, x, weight, *, eps=1e-6):
    gx, gw = rms_norm_grad(g[0], x, weight, y[1])
    return gx, (None if weight is None else gw)


@rms_norm.composed
def _(x, weight, *, eps=1e-6):
    y = x * rsqrt(mean(x * x, axis=-1, keepdim=True) + eps)
    return y if weight is None else y * weight


@primitive(kind="reduce", outputs=2)
def rms_norm_grad(g: Array, x: Array, weight: Array | None, scale: Array) -> tuple[Array, Array]:
    """Return the cotangents of x and weight. With h = x / rms and u = g * weight:  dx = (u - h
    mean(u h)) / rms.
    """
    h = x * scale
    gx = g * h
    gw = sum_rows(gx.reshape(-1, gx.shape[-1]))
    u = g if weight is None else np.multiply(g, weight, out=gx)
    h *= np.vecdot(u, h)[..., None] / x.dtype.type(x.shape[-1])
    gx = np.subtract(u, h, out=gx)
    gx *= scale
    return gx, gw


@primitive(kind="reduce", outputs=2)
def cross_entropy(
    logits: Array, target: Array, *, ignore_index: int = -100, label_smoothing: float = 0.0
) -> tuple[Array, Array]:
    """Return the loss of each row, -(1 - s) log p[target] - s mean(log p) with p = softmax(logits),
    0 where target is ignore_index; and logsumexp.

    logits: (N, V)   target: (N,) integers   ->   (N,), (N,).   Raises IndexRangeError for a target
        outside 0..V-1.
    """
    N, V = logits.shape
    if target.shape != (N,):
        problem = f"logits {logits.shape} do not fit targets {target.shape}"
        raise ShapeError("cross_entropy", problem, got=target.shape, wanted=(N,))
    ignored = target == ignore_index
    safe = np.where(ignored, 0, target)
    check_range(safe, V, "cross_entropy", "target")
    loss, total = np.empty(N, logits.dtype), np.empty(N, logits.dtype)
    step = max(_TOGETHER // max(V, 1), 1)
    for part in (slice(start, start + step) for start in range(0, N, step)):
        y, log_sum, top = shifted_logsumexp(logits[part], -1)
        loss[part] = log_sum[:, 0] - y[np.arange(len(y)), safe[part]]
        if label_smoothing:
            uniform = log_sum[:, 0] - np.add.reduce(y, axis=-1) / y.dtype.type(V)
            loss[part] = (1 - label_smoothing) * loss[part] + label_smoothing * uniform
        total[part] = (log_sum + top)[:, 0]
    loss[ignored] = 0
    return loss, total


@cross_entropy.vjp
def _(g, y, logits, target, *, ignore_index=-100, label_smoothing=0.0):
    settings = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    return cross_entropy_grad(g[0], logits, target, y[1], **settings), None


@cross_entropy.composed
def _(logits, target, *, ignore_index=-100, label_smoothing=0.0):
    log_p = log_softmax(logits, axis=-1)
    hit = reshape(target, shape=(-1, 1)) == np.arange(logits.shape[1])
    loss = -sum_(where(hit, log_p, 0), axis=-1)
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * mean(log_p, axis=-1)
    return where(target == ignore_index, 0, loss)


@primitive(kind="reduce")
def cross_entropy_grad(
    g: Array,
    logits: Array,
    target: Array,
    total: Array,
    *,
    ignore_index: int,
    label_smoothing: float,
) -> Array:
    """Return g (softmax(logits) - (1 - s) onehot(target) - s / V), 0 in rows with ignored
    targets.
    """
    N, V = logits.shape
    y = logits - total[:, None]
    np.exp(y, out=y)
    size = np.abs(total)
    if ((size > 256) & (size < np.inf)).any():
        # Such a logsumexp has few digits for the logarithm in it: a factor of the whole row.
        y /= row_sums(y)
    if label_smoothing:
        y -= label_smoothing / V
    kept = np.flatnonzero(target != ignore_index)
    y[kept, target[kept]] -= y.dtype.type(1 - label_smoothing)
    y *= g[:, None]
    if len(kept) < N:
        y[target == ignore_index] = 0
    return y
