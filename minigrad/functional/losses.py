"""Losses by PyTorch's names and arguments: one number per element, or their mean or sum.

A target is a Tensor or an array of the shape of x; the losses of classes take class numbers.
"""

from __future__ import annotations

from typing import Any, Literal

from minigrad import ops
from minigrad.ops.loss import Reduce
from minigrad.tensor import Tensor


def cross_entropy(
    logits: Tensor,
    target: Any,
    weight: Any = None,
    *,
    axis: int | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduce = "mean",
) -> Tensor:
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
    return logits.cross_entropy(
        target, ignore_index, label_smoothing, reduction, weight=weight, axis=axis
    )


def nll_loss(
    log_p: Tensor,
    target: Any,
    weight: Any = None,
    *,
    axis: int | None = None,
    ignore_index: int = -100,
    reduction: Reduce = "mean",
) -> Tensor:
    """Return -log_p[target] for log-probabilities and targets, averaged over the targets that are
    not ignore_index.

    Shapes, weight and errors are those of `cross_entropy`; targets are class numbers.
    """
    return log_p.nll_loss(target, ignore_index, reduction, weight=weight, axis=axis)


def binary_cross_entropy(
    p: Tensor, target: Any, weight: Any = None, *, reduction: Reduce = "mean"
) -> Tensor:
    """Return -target log p - (1 - target) log(1 - p), averaged, for probabilities p; logarithms no
    lower than -100. weight: a factor of each loss, broadcast.
    """
    return p.binary_crossentropy(target, reduction, weight=weight)


def binary_cross_entropy_with_logits(
    x: Tensor,
    target: Any,
    weight: Any = None,
    *,
    reduction: Reduce = "mean",
    pos_weight: Any = None,
) -> Tensor:
    """Return binary_cross_entropy(sigmoid(x), target), without overflow.

    weight: a factor of each loss, broadcast.   pos_weight: a factor of the part -target log p.
    """
    return x.binary_crossentropy_logits(target, reduction, weight=weight, pos_weight=pos_weight)


def mse_loss(x: Tensor, target: Any, *, reduction: Reduce = "mean") -> Tensor:
    """Return (x - target)^2, averaged. Raises ShapeError if the shapes differ."""
    return x.mse(target, reduction)


def l1_loss(x: Tensor, target: Any, *, reduction: Reduce = "mean") -> Tensor:
    """Return |x - target|, averaged. Raises ShapeError if the shapes differ."""
    result: Tensor = ops.l1_loss(x, x._as_tensor(target), reduction=reduction)
    return result


def smooth_l1_loss(
    x: Tensor, target: Any, *, reduction: Reduce = "mean", beta: float = 1.0
) -> Tensor:
    """Return d^2 / (2 beta) where |d| < beta, else |d| - beta / 2, averaged, for d = x - target.

    beta=0 is l1_loss. From Girshick 2015, arXiv:1504.08083.
    """
    result: Tensor = ops.smooth_l1_loss(x, x._as_tensor(target), reduction=reduction, beta=beta)
    return result


def huber_loss(x: Tensor, target: Any, reduction: Reduce = "mean", delta: float = 1.0) -> Tensor:
    """Return d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2), averaged, for d = x - target.

    Raises ConfigError unless delta > 0. From Huber 1964, Ann. Math. Statist. 35.
    """
    result: Tensor = ops.huber_loss(x, x._as_tensor(target), reduction=reduction, delta=delta)
    return result


def kl_div(
    log_p: Tensor,
    target: Any,
    *,
    reduction: Reduce | Literal["batchmean"] = "mean",
    log_target: bool = False,
) -> Tensor:
    """Return target (log target - log_p), where 0 log 0 is 0: summed, the Kullback-Leibler
    divergence from exp(log_p) to target.

    log_target: True if target holds logarithms.   reduction="batchmean": the sum divided by the
        size of axis 0, which is the divergence per row; "mean" divides by all elements.
    """
    result: Tensor = ops.kl_div(
        log_p, log_p._as_tensor(target), reduction=reduction, log_target=log_target
    )
    return result
