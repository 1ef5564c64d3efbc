"""Losses, one number per element or the mean or sum of them; cross_entropy's fused rows are in
`fused`. And batchnorm.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from minigrad.dtypes import Array, computing
from minigrad.errors import ConfigError, ShapeError
from minigrad.ops.calculus import log, square
from minigrad.ops.elementwise import guard_mul, maximum, mul, neg, not_equal, quiet, where
from minigrad.ops.fused import cross_entropy as cross_entropy_rows
from minigrad.ops.in_float32 import in_float32
from minigrad.ops.index import take_along
from minigrad.ops.movement import cast, reshape
from minigrad.ops.reduce import mean as mean_, one_axis, sum as sum_
from minigrad.ops.special import logaddexp
from minigrad.primitive import primitive

Reduce = Literal["mean", "sum", "none"]


def reduced(loss: Any, reduction: Reduce, call: str, weight: Any = None) -> Any:
    """The losses, their sum, or their mean (over the elements where `weight` is not 0). Raises
    ConfigError.
    """
    if reduction == "none":
        return loss
    if reduction == "sum":
        return sum_(loss)
    if reduction != "mean":
        raise ConfigError(
            call, f"reduction={reduction!r}", got=reduction, wanted=("mean", "sum", "none")
        )
    if weight is None:
        return mean_(loss)
    count = sum_(cast(weight, dtype=computing(loss.dtype)))
    return sum_(loss) / (count if count.dtype == loss.dtype else cast(count, dtype=loss.dtype))


@in_float32
def mse(x: Any, target: Any, *, reduction: Reduce = "mean") -> Any:
    """(x - target)^2."""
    return reduced(square(_same(x, target, "mse")), reduction, "mse")


def _same(x: Any, target: Any, call: str) -> Any:
    """x - target, whose shapes must be equal: a loss that broadcasts is a mistake."""
    if x.shape != getattr(target, "shape", x.shape):
        raise ShapeError(
            call,
            f"x {x.shape} and target {target.shape} differ",
            got=target.shape,
            wanted=x.shape,
            hint="reshape one of them",
        )
    return x - target


@primitive(kind="elementwise", dtype="float")
@quiet
def bernoulli_loss(p: Array, target: Array) -> Array:
    """-target log p - (1 - target) log(1 - p), logarithms no lower than -100. d/dp = (p - target) /
    max(p (1 - p), 1e-12), as in PyTorch.
    """
    return -(target * np.maximum(np.log(p), -100) + (1 - target) * np.maximum(np.log(1 - p), -100))


@bernoulli_loss.vjp
def _(g, _y, p, target, *, needs):
    odds = maximum(log(1 - p), -100) - maximum(log(p), -100) if needs[1] else None
    return (guard_mul(g, (p - target) / maximum(p * (1 - p), 1e-12)) if needs[0] else None), (
        g * odds if needs[1] else None
    )


@in_float32
def binary_crossentropy(p: Any, target: Any, *, reduction: Reduce = "mean") -> Any:
    """-target log p - (1 - target) log(1 - p), for probabilities p; at 0 and 1 as in PyTorch:
    logarithms no lower than -100, slopes no steeper than 1e12."""
    _same(p, target, "binary_crossentropy")
    return reduced(bernoulli_loss(p, target), reduction, "binary_crossentropy")


@in_float32
def binary_crossentropy_logits(x: Any, target: Any, *, reduction: Reduce = "mean") -> Any:
    """binary_crossentropy(sigmoid(x), target), without overflow: log(1 + exp(x)) - target x."""
    _same(x, target, "binary_crossentropy_logits")
    return reduced(logaddexp(x, 0) - mul(x, target), reduction, "binary_crossentropy_logits")


@in_float32
def nll_loss(
    log_p: Any, target: Any, *, ignore_index: int = -100, reduction: Reduce = "mean"
) -> Any:
    """-log_p[target] for log-probabilities (..., V) and targets (...), averaged over the targets
    that are not ignore_index.

    Raises IndexRangeError for a target outside 0 .. V - 1.
    """
    if not log_p.ndim or log_p.shape[:-1] != target.shape:
        raise ShapeError(
            "nll_loss",
            f"log_p {log_p.shape} wants targets {log_p.shape[:-1]}, not {target.shape}",
            got=target.shape,
            wanted=log_p.shape[:-1],
            hint="targets are class numbers, one per row",
        )
    kept = not_equal(target, ignore_index)
    index = reshape(where(kept, target, 0), shape=(*target.shape, 1))
    picked = reshape(take_along(log_p, index, axis=-1), shape=target.shape)
    return reduced(where(kept, neg(picked), 0), reduction, "nll_loss", kept)


@in_float32
def cross_entropy_loss(
    logits: Any,
    target: Any,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduce = "mean",
) -> Any:
    """-log softmax(logits)[target], averaged over the targets that are not ignore_index.

    logits: (..., V)   target: (...) integers.   label_smoothing s mixes in the uniform
        distribution: (1 - s) onehot + s / V.
    Raises IndexRangeError for a target outside 0..V-1.
    """
    if not 0 <= label_smoothing <= 1:
        raise ConfigError(
            "cross_entropy",
            f"label_smoothing={label_smoothing}",
            got=label_smoothing,
            wanted=(0, 1),
        )
    if not logits.ndim or logits.shape[:-1] != target.shape:
        raise ShapeError(
            "cross_entropy",
            f"logits {logits.shape} want targets {logits.shape[:-1]}, not {target.shape}",
            got=target.shape,
            wanted=logits.shape[:-1],
            hint="targets are class numbers, one per row of logits",
        )
    rows, flat = reshape(logits, shape=(-1, logits.shape[-1])), reshape(target, shape=(-1,))
    loss = cross_entropy_rows(
        rows, flat, ignore_index=ignore_index, label_smoothing=label_smoothing
    )[0]
    if reduction == "none":
        return reshape(loss, shape=target.shape)
    return reduced(loss, reduction, "cross_entropy", not_equal(flat, ignore_index))


@in_float32
def batchnorm(x: Any, weight: Any, bias: Any, mean: Any, invstd: Any, *, axis: int = 1) -> Any:
    """Return (x - mean) invstd weight + bias, each of them one number per index of `axis`; weight
    and bias may be None.
    """
    channel = one_axis(axis, x.ndim, "batchnorm")
    shape = tuple(n if i == channel else 1 for i, n in enumerate(x.shape))
    y = (x - reshape(mean, shape=shape)) * reshape(invstd, shape=shape)
    y = y if weight is None else y * reshape(weight, shape=shape)
    return y if bias is None else y + reshape(bias, shape=shape)
