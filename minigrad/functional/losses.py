"""Losses: one number per element, or their mean or sum."""

from __future__ import annotations

from typing import Any

from minigrad.ops.loss import Reduce
from minigrad.tensor import Tensor


def cross_entropy(
    logits: Tensor,
    target: Any,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduce = "mean",
) -> Tensor:
    """-log softmax(logits)[target], averaged over the targets that are not ignore_index.

    logits: (..., V)   target: (...) integers.   label_smoothing s mixes in the uniform
        distribution: (1 - s) onehot + s / V.
    Raises IndexRangeError for a target outside 0..V-1.
    """
    return logits.cross_entropy(target, ignore_index, label_smoothing, reduction)


def nll_loss(
    log_p: Tensor, target: Any, *, ignore_index: int = -100, reduction: Reduce = "mean"
) -> Tensor:
    """-log_p[target] for log-probabilities (..., V) and targets (...), averaged over the targets
    that are not ignore_index.
    """
    return log_p.nll_loss(target, ignore_index, reduction)


def binary_cross_entropy(p: Tensor, target: Any, *, reduction: Reduce = "mean") -> Tensor:
    """-target log p - (1 - target) log(1 - p) for probabilities p; logarithms no lower than -100."""
    return p.binary_crossentropy(target, reduction)


def binary_cross_entropy_with_logits(
    x: Tensor, target: Any, *, reduction: Reduce = "mean"
) -> Tensor:
    """binary_cross_entropy(sigmoid(x), target), without overflow."""
    return x.binary_crossentropy_logits(target, reduction)


def mse_loss(x: Tensor, target: Any, *, reduction: Reduce = "mean") -> Tensor:
    """(x - target)^2. Raises ShapeError if the shapes differ."""
    return x.mse(target, reduction)
