"""Losses by PyTorch's names: one number per element, or their mean or sum.

The fused rows of cross_entropy are in `fused`.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from minigrad.arguments import as_float, one_of, require
from minigrad.dtypes import Array, computing, is_float
from minigrad.errors import ShapeError
from minigrad.ops.axis import matrix_shape, one_axis
from minigrad.ops.calculus import exp, log, logaddexp, square
from minigrad.ops.composite import composite
from minigrad.ops.elementwise import clamp, isinf, maximum, where
from minigrad.ops.fused import cross_entropy as cross_entropy_rows, log_softmax
from minigrad.ops.index import embedding, take_along
from minigrad.ops.movement import cast, permute, reshape
from minigrad.ops.reduce import mean as mean_, sum as sum_
from minigrad.primitive import T, primitive

Reduce = Literal["mean", "sum", "none"]


def _reduced(loss: Any, reduction: str, call: str, share: Any = None, shape: Any = None) -> Any:
    """Return the losses, in this shape if one is given, their sum, or their mean: their sum divided
    by that of `share`, or by their number. Raises ConfigError.
    """
    one_of(call, "reduction", reduction, ("mean", "sum", "none"))
    if reduction == "none":
        return loss if shape is None else reshape(loss, shape=shape)
    if reduction == "mean" and share is None:
        return mean_(loss)
    total = sum_(loss)
    if reduction == "sum":
        return total
    count = sum_(share if is_float(share.dtype) else cast(share, dtype=computing(total.dtype)))
    return total / (count if count.dtype == total.dtype else cast(count, dtype=total.dtype))


# --- of numbers


def _difference(x: Any, target: Any, call: str) -> Any:
    """Return x - target, whose shapes must be equal: a loss that broadcasts is a mistake."""
    if x.shape != getattr(target, "shape", x.shape):
        problem = f"x {x.shape} and target {target.shape} differ"
        raise ShapeError(call, problem, got=target.shape, hint="reshape one of them")
    return x - target


@composite(widen=True, lists=True)
def mse_loss(x: T, target: Any, *, reduction: Reduce = "mean") -> T:
    """Return (x - target)^2, averaged. Raises ShapeError if the shapes differ."""
    return _reduced(square(_difference(x, target, "mse_loss")), reduction, "mse_loss")


@composite(widen=True, lists=True)
def l1_loss(x: T, target: Any, *, reduction: Reduce = "mean") -> T:
    """Return |x - target|, averaged. The gradient is 0 where they are equal."""
    return _reduced(abs(_difference(x, target, "l1_loss")), reduction, "l1_loss")


@composite(widen=True, lists=True)
def huber_loss(x: T, target: Any, reduction: Reduce = "mean", delta: float = 1.0) -> T:
    """Return d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2), averaged, for d = x -
    target.

    Raises ConfigError unless delta > 0. From Huber 1964, Ann. Math. Statist. 35.
    """
    delta = as_float("huber_loss", "delta", delta, 0, above=True)
    d = _difference(x, target, "huber_loss")
    inner = clamp(d, -delta, delta)
    return _reduced(inner * (d - inner / 2), reduction, "huber_loss")


@composite(widen=True, lists=True)
def smooth_l1_loss(x: Any, target: Any, *, reduction: Reduce = "mean", beta: float = 1.0) -> Any:
    """Return d^2 / (2 beta) where |d| < beta, else |d| - beta / 2, averaged, for d = x - target.

    beta=0 is l1_loss. Raises ConfigError unless beta >= 0. From Girshick 2015, arXiv:1504.08083.
    """
    if not as_float("smooth_l1_loss", "beta", beta, 0):
        return l1_loss(x, target, reduction=reduction)
    return huber_loss(x, target, reduction, beta) / beta


# --- of two classes


@primitive(kind="view")
def probabilities(p: Array) -> Array:
    """Return p itself. Raises ConfigError for a number outside 0..1."""
    least, most = p.min(initial=0), p.max(initial=1)
    hint = "binary_cross_entropy_with_logits takes logits"
    good = least == 0 and most == 1
    require(good, "binary_cross_entropy", "p", (float(least), float(most)), "from 0 to 1", hint)
    return p


@probabilities.vjp
def _(g, _y, _p):
    return (g,)


@primitive(kind="elementwise", dtype="float")
def bernoulli_loss(p: Array, target: Array) -> Array:
    """Return -target log p - (1 - target) log(1 - p), logarithms no lower than -100.

    d/dp = (p - target) / max(p (1 - p), 1e-12), as in PyTorch.
    """
    return -(target * np.maximum(np.log(p), -100) + (1 - target) * np.maximum(np.log(1 - p), -100))


@bernoulli_loss.vjp
def _(g, _y, p, target, *, needs):
    odds = maximum(log(1 - p), -100) - maximum(log(p), -100) if needs[1] else None
    slope = (p - target) / maximum(p * (1 - p), 1e-12)
    return g * slope, (g * odds if needs[1] else None)


@composite(widen=True, lists=True)
def binary_cross_entropy(p: T, target: Any, weight: Any = None, *, reduction: Reduce = "mean") -> T:
    """Return -target log p - (1 - target) log(1 - p), averaged, for probabilities p.

    weight: a factor of each loss, broadcast. At p = 0 and 1 as in PyTorch: logarithms no lower than
        -100, slopes no steeper than 1e12.
    """
    _difference(p, target, "binary_cross_entropy")
    loss: Any = bernoulli_loss(probabilities(p), target)
    loss = loss if weight is None else loss * weight
    return _reduced(loss, reduction, "binary_cross_entropy")


@composite(widen=True, lists=True)
def binary_cross_entropy_with_logits(
    x: Any, target: Any, weight: Any = None, *, reduction: Reduce = "mean", pos_weight: Any = None
) -> Any:
    """Return binary_cross_entropy(sigmoid(x), target) without overflow: log(1 + exp(x)) - target x.

    weight: a factor of each loss, broadcast.   pos_weight: a factor of the part -target log p.
    """
    _difference(x, target, "binary_cross_entropy_with_logits")
    loss: Any = logaddexp(x, 0)
    if pos_weight is None:
        loss = loss - x * target
    else:
        loss = (1 - target) * loss + target * pos_weight * logaddexp(-x, 0)
    loss = loss if weight is None else loss * weight
    return _reduced(loss, reduction, "binary_cross_entropy_with_logits")


# --- of V classes


def _rows(call: str, x: Any, target: Any, weight: Any, axis: int | None) -> tuple[Any, Any, Any]:
    """x as (N, V), target as (N,), or (N, V) if it holds probabilities, and the losses' shape."""
    target = target if hasattr(target, "dtype") else np.asarray(target)
    if not x.ndim:
        raise ShapeError(call, "x has no axes", got=())
    last, shares = x.ndim - 1, is_float(target.dtype) and target.shape == x.shape
    axes = {last, min(1, last)} if axis is None else {one_axis(axis, x.ndim, call)}
    without = {a: x.shape[:a] + x.shape[a + 1 :] for a in axes}
    fits = [a for a, shape in without.items() if shares or shape == target.shape]
    if len(fits) != 1:
        problem = f"{x.shape} does not fit targets {target.shape}"
        hint = "targets are class numbers, of the shape of x without the axis of the classes"
        if fits:
            problem = f"the classes of {x.shape} can be on axis 1 or on the last"
            problem += f" for targets {target.shape}"
            hint = "axis=-1 for (..., V), axis=1 for (N, V, ...)"
        raise ShapeError(call, problem, got=target.shape, wanted=[*without.values()], hint=hint)
    (a,) = fits
    V = x.shape[a]
    if weight is not None and weight.shape != (V,):
        raise ShapeError(call, f"weight {weight.shape} for {V} classes", got=weight.shape)
    if a != last:
        order = (*(i for i in range(x.ndim) if i != a), a)
        x, target = permute(x, order=order), permute(target, order=order) if shares else target
    if x.ndim != 2:
        flat = matrix_shape(x.shape)
        x, target = reshape(x, shape=flat), reshape(target, shape=flat[: 1 + shares])
    return x, target, without[a]


def _picked(log_p: Any, target: Any, weight: Any, kept: Any) -> tuple[Any, Any]:
    """Return -log_p[target] times the weight of the target, and that weight; 0 unless kept."""
    places = where(kept, target, 0)
    picked = take_along(log_p, reshape(places, shape=(-1, 1)), axis=1)
    loss = where(kept, -reshape(picked, shape=(-1,)), 0)
    if weight is None:
        return loss, kept
    share = where(kept, embedding(weight, places), 0)
    return loss * share, share


@composite(widen=True, lists=True)
def nll_loss(
    log_p: T,
    target: Any,
    weight: Any = None,
    *,
    axis: int | None = None,
    ignore_index: int = -100,
    reduction: Reduce = "mean",
) -> T:
    """Return -log_p[target] for log-probabilities and targets, averaged over the targets that are
    not ignore_index.

    Shapes, weight and errors are those of `cross_entropy`; targets are class numbers.
    """
    x, wanted, shape = _rows("nll_loss", log_p, target, weight, axis)
    loss, share = _picked(x, wanted, weight, wanted != ignore_index)
    return _reduced(loss, reduction, "nll_loss", share, shape)


@composite(widen=True, lists=True)
def cross_entropy(
    logits: T,
    target: Any,
    weight: Any = None,
    *,
    axis: int | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduce = "mean",
) -> T:
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
    s = as_float("cross_entropy", "label_smoothing", label_smoothing, 0, 1)
    x, wanted, shape = _rows("cross_entropy", logits, target, weight, axis)
    if wanted.ndim == 2:
        wanted = wanted * (1 - s) + s / x.shape[1] if s else wanted
        log_p = log_softmax(x)
        log_p = where((wanted == 0) & isinf(log_p), 0, log_p)  # 0 log 0 is 0
        loss = -sum_((wanted if weight is None else wanted * weight) * log_p, axis=1)
        return _reduced(loss, reduction, "cross_entropy", None, shape)
    share = kept = wanted != ignore_index
    if weight is None:  # the fused op
        loss, _ = cross_entropy_rows(x, wanted, ignore_index=ignore_index, label_smoothing=s)
    else:
        log_p = log_softmax(x)
        loss, share = _picked(log_p, wanted, weight, kept)
        if s:
            uniform = where(kept, sum_(log_p * weight, axis=1) * (-s / x.shape[1]), 0)
            loss = loss * (1 - s) + uniform
    return _reduced(loss, reduction, "cross_entropy", share, shape)


# --- of distributions


@composite(widen=True, lists=True)
def kl_div(
    log_p: T,
    target: Any,
    *,
    reduction: Reduce | Literal["batchmean"] = "mean",
    log_target: bool = False,
) -> T:
    """Return target (log target - log_p), where 0 log 0 is 0: summed, the Kullback-Leibler
    divergence from exp(log_p) to target.

    log_target: True if target holds logarithms.   reduction="batchmean": the sum divided by the
        size of axis 0, which is the divergence per row; "mean" divides by all elements.
    """
    loss: Any = _difference(log_p, target, "kl_div")
    if log_target:
        loss = exp(target) * -loss
    else:
        loss = target * (log(where(target == 0, 1, target)) - log_p)
    if reduction == "batchmean":
        return sum_(loss) / loss.shape[0]
    return _reduced(loss, reduction, "kl_div")
