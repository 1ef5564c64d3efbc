"""Losses, one number per element, or their mean or sum; and the similarities they are made of.

The fused rows of cross_entropy are in `fused`.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from minigrad.dtypes import Array, computing, is_float
from minigrad.errors import ConfigError, ShapeError
from minigrad.ops.calculus import exp, log, square
from minigrad.ops.composite import composite
from minigrad.ops.elementwise import (
    abs as abs_,
    clamp,
    equal,
    isinf,
    logical_and,
    maximum,
    mul,
    neg,
    not_equal,
    where,
)
from minigrad.ops.fused import cross_entropy as cross_entropy_rows, log_softmax
from minigrad.ops.index import embedding, take_along
from minigrad.ops.movement import cast, matrix_shape, permute, reshape
from minigrad.ops.reduce import mean as mean_, one_axis, sum as sum_
from minigrad.ops.special import logaddexp
from minigrad.primitive import primitive

Reduce = Literal["mean", "sum", "none"]


def reduced(loss: Any, reduction: Reduce, call: str, share: Any = None) -> Any:
    """Return the losses, their sum, or their mean: their sum divided by that of `share`, or by
    their number. Raises ConfigError.
    """
    if reduction == "none":
        return loss
    if reduction == "sum":
        return sum_(loss)
    if reduction != "mean":
        raise ConfigError(
            call, f"reduction={reduction!r}", got=reduction, wanted=("mean", "sum", "none")
        )
    if share is None:
        return mean_(loss)
    count = sum_(share if is_float(share.dtype) else cast(share, dtype=computing(loss.dtype)))
    return sum_(loss) / (count if count.dtype == loss.dtype else cast(count, dtype=loss.dtype))


# --- of numbers


def _difference(x: Any, target: Any, call: str) -> Any:
    """Return x - target, whose shapes must be equal: a loss that broadcasts is a mistake."""
    if x.shape != getattr(target, "shape", x.shape):
        raise ShapeError(
            call,
            f"x {x.shape} and target {target.shape} differ",
            got=target.shape,
            wanted=x.shape,
            hint="reshape one of them",
        )
    return x - target


@composite(widen=True)
def mse(x: Any, target: Any, *, reduction: Reduce = "mean") -> Any:
    """Return (x - target)^2, averaged."""
    return reduced(square(_difference(x, target, "mse")), reduction, "mse")


@composite(widen=True)
def l1_loss(x: Any, target: Any, *, reduction: Reduce = "mean") -> Any:
    """Return |x - target|, averaged. The gradient is 0 where they are equal."""
    return reduced(abs_(_difference(x, target, "l1_loss")), reduction, "l1_loss")


@composite(widen=True)
def huber_loss(x: Any, target: Any, *, reduction: Reduce = "mean", delta: float = 1.0) -> Any:
    """Return d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2), averaged, for d = x - target.

    Raises ConfigError unless delta > 0. From Huber 1964, Ann. Math. Statist. 35.
    """
    if not delta > 0:
        raise ConfigError("huber_loss", f"delta={delta} is not > 0", got=delta, wanted="> 0")
    d = _difference(x, target, "huber_loss")
    inner = clamp(d, -delta, delta)
    return reduced(inner * (d - inner / 2), reduction, "huber_loss")


@composite(widen=True)
def smooth_l1_loss(x: Any, target: Any, *, reduction: Reduce = "mean", beta: float = 1.0) -> Any:
    """Return d^2 / (2 beta) where |d| < beta, else |d| - beta / 2, averaged, for d = x - target.

    beta=0 is l1_loss. Raises ConfigError unless beta >= 0. From Girshick 2015, arXiv:1504.08083.
    """
    if not beta:
        return l1_loss(x, target, reduction=reduction)
    return huber_loss(x, target, reduction=reduction, delta=beta) / beta


# --- of two classes


@primitive(kind="elementwise", dtype="float")
def bernoulli_loss(p: Array, target: Array) -> Array:
    """Return -target log p - (1 - target) log(1 - p), logarithms no lower than -100.

    d/dp = (p - target) / max(p (1 - p), 1e-12), as in PyTorch.
    """
    return -(target * np.maximum(np.log(p), -100) + (1 - target) * np.maximum(np.log(1 - p), -100))


@bernoulli_loss.vjp
def _(g, _y, p, target, *, needs):
    odds = maximum(log(1 - p), -100) - maximum(log(p), -100) if needs[1] else None
    gp = g * ((p - target) / maximum(p * (1 - p), 1e-12)) if needs[0] else None
    return gp, (g * odds if needs[1] else None)


@composite(widen=True)
def binary_crossentropy(
    p: Any, target: Any, weight: Any = None, *, reduction: Reduce = "mean"
) -> Any:
    """Return -target log p - (1 - target) log(1 - p), averaged, for probabilities p.

    weight: a factor of each loss, broadcast. At p = 0 and 1 as in PyTorch: logarithms no lower than
        -100, slopes no steeper than 1e12.
    """
    _difference(p, target, "binary_crossentropy")
    loss = bernoulli_loss(p, target)
    loss = loss if weight is None else loss * weight
    return reduced(loss, reduction, "binary_crossentropy")


@composite(widen=True)
def binary_crossentropy_logits(
    x: Any,
    target: Any,
    weight: Any = None,
    pos_weight: Any = None,
    *,
    reduction: Reduce = "mean",
) -> Any:
    """Return binary_crossentropy(sigmoid(x), target) without overflow: log(1 + exp(x)) - target x.

    weight: a factor of each loss, broadcast.   pos_weight: a factor of the part -target log p.
    """
    _difference(x, target, "binary_crossentropy_logits")
    if pos_weight is None:
        loss = logaddexp(x, 0) - mul(x, target)
    else:
        loss = (1 - target) * logaddexp(x, 0) + target * pos_weight * logaddexp(-x, 0)
    loss = loss if weight is None else loss * weight
    return reduced(loss, reduction, "binary_crossentropy_logits")


# --- of V classes


@composite(widen=True)
def nll_loss(
    log_p: Any,
    target: Any,
    weight: Any = None,
    *,
    axis: int | None = None,
    ignore_index: int = -100,
    reduction: Reduce = "mean",
) -> Any:
    """Return -log_p[target] for log-probabilities and targets, averaged over the targets that are
    not ignore_index.

    Shapes, weight and errors are those of `cross_entropy_loss`; targets are class numbers.
    """
    rows, wanted, shape = _rows("nll_loss", log_p, target, axis)
    kept = not_equal(wanted, ignore_index)
    safe = where(kept, wanted, 0)
    picked = take_along(rows, reshape(safe, shape=(-1, 1)), axis=1)
    loss, share = where(kept, neg(reshape(picked, shape=(-1,))), 0), kept
    if weight is not None:
        share = _weights(weight, safe, kept, rows.shape[1])
        loss = loss * share
    return _restored(loss, share, shape, reduction, "nll_loss")


@composite(widen=True)
def cross_entropy_loss(
    logits: Any,
    target: Any,
    weight: Any = None,
    *,
    axis: int | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduce = "mean",
) -> Any:
    """Return -log softmax(logits)[target], averaged over the targets that are not ignore_index.

    logits: (..., V) or (N, V, ...), which the target's shape decides; axis= names the axis of the
        classes where both would fit.
    target: class numbers, of the shape of logits without that axis; or probabilities, of the shape
        of logits, with the loss -sum(target log softmax(logits)).
    weight: (V,), a factor of each class. The mean is divided by the weights of the targets.
    label_smoothing s mixes in the uniform distribution: (1 - s) onehot + s / V.

    Raises IndexRangeError for a target outside 0..V-1, ShapeError for shapes that do not fit, or
    that fit both layouts.
    """
    if not 0 <= label_smoothing <= 1:
        raise ConfigError(
            "cross_entropy",
            f"label_smoothing={label_smoothing}",
            got=label_smoothing,
            wanted=(0, 1),
        )
    rows, wanted, shape = _rows("cross_entropy", logits, target, axis)
    s, V = label_smoothing, rows.shape[1]
    if wanted.ndim == 2:
        wanted = wanted * (1 - s) + s / V if s else wanted
        loss, share = _expected(rows, wanted, weight), None
    else:
        first = cross_entropy_rows(
            rows,
            wanted,
            ignore_index=ignore_index,
            label_smoothing=0.0 if weight is not None else s,
        )
        loss, share = first[0], not_equal(wanted, ignore_index)
        if weight is not None:
            kept = share
            share = _weights(weight, where(kept, wanted, 0), kept, V)
            loss = loss * share
            if s:
                uniform = sum_(log_softmax(rows) * weight, axis=-1) * (-s / V)
                loss = loss * (1 - s) + where(kept, uniform, 0)
    return _restored(loss, share, shape, reduction, "cross_entropy")


def _rows(call: str, x: Any, target: Any, axis: int | None) -> tuple[Any, Any, tuple[int, ...]]:
    """Return x as (N, V); target as (N,), or (N, V) if it holds probabilities; and the shape of the
    losses.
    """
    if not x.ndim:
        raise ShapeError(call, "x has no axes", got=(), wanted="(..., V)")
    shares = is_float(target.dtype) and target.shape == x.shape
    axes = {x.ndim - 1, min(1, x.ndim - 1)} if axis is None else {one_axis(axis, x.ndim, call)}
    without = {a: x.shape[:a] + x.shape[a + 1 :] for a in sorted(axes, reverse=True)}
    fits = [a for a, shape in without.items() if shares or shape == target.shape]
    if not fits:
        raise ShapeError(
            call,
            f"{x.shape} does not fit targets {target.shape}",
            got=target.shape,
            wanted=next(iter(without.values())),
            hint="targets are class numbers, of the shape of x without the axis of the classes",
        )
    if len(fits) > 1:
        raise ShapeError(
            call,
            f"the classes of {x.shape} can be on axis 1 or on the last for targets {target.shape}",
            got=(x.shape, target.shape),
            wanted="axis=1 or axis=-1",
            hint="axis=-1 for (..., V), axis=1 for (N, V, ...)",
        )
    a = fits[0]
    if a != x.ndim - 1:
        order = (*range(a), *range(a + 1, x.ndim), a)
        x = permute(x, order=order)
        target = permute(target, order=order) if shares else target
    flat = matrix_shape(x.shape)
    return reshape(x, shape=flat), reshape(target, shape=flat if shares else flat[:1]), without[a]


def _weights(weight: Any, safe: Any, kept: Any, V: int) -> Any:
    """Return the weight of each target's class, 0 where it is ignored."""
    if weight.shape != (V,):
        raise ShapeError("cross_entropy", f"weight {weight.shape}", got=weight.shape, wanted=(V,))
    return where(kept, embedding(weight, safe), 0)


def _expected(logits: Any, target: Any, weight: Any) -> Any:
    """Return -sum(target weight log softmax(logits)) of each row, where 0 log 0 is 0."""
    log_p = log_softmax(logits)
    log_p = where(logical_and(equal(target, 0), isinf(log_p)), 0, log_p)
    return -sum_((target if weight is None else target * weight) * log_p, axis=-1)


def _restored(loss: Any, share: Any, shape: Any, reduction: Reduce, call: str) -> Any:
    if reduction == "none":
        return reshape(loss, shape=shape)
    return reduced(loss, reduction, call, share)


# --- of distributions and directions


@composite(widen=True)
def kl_div(
    log_p: Any,
    target: Any,
    *,
    reduction: Reduce | Literal["batchmean"] = "mean",
    log_target: bool = False,
) -> Any:
    """Return target (log target - log_p), where 0 log 0 is 0: summed, the Kullback-Leibler
    divergence from exp(log_p) to target.

    log_target: True if target holds logarithms.   reduction="batchmean": the sum divided by the
        size of axis 0, which is the divergence per row; "mean" divides by all elements.
    """
    _difference(log_p, target, "kl_div")
    if log_target:
        loss = exp(target) * (target - log_p)
    else:
        loss = target * (log(where(equal(target, 0), 1, target)) - log_p)
    if reduction == "batchmean":
        return sum_(loss) / loss.shape[0]
    return reduced(loss, reduction, "kl_div")


@composite(widen=True)
def batchnorm(x: Any, weight: Any, bias: Any, mean: Any, invstd: Any, *, axis: int = 1) -> Any:
    """Return (x - mean) invstd weight + bias, each of them one number per index of `axis`; weight
    and bias may be None.
    """
    channel = one_axis(axis, x.ndim, "batchnorm")
    shape = tuple(n if i == channel else 1 for i, n in enumerate(x.shape))
    y = (x - reshape(mean, shape=shape)) * reshape(invstd, shape=shape)
    y = y if weight is None else y * reshape(weight, shape=shape)
    return y if bias is None else y + reshape(bias, shape=shape)
