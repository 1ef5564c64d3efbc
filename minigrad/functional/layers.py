"""Activations, norms, losses, and what else a layer computes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from minigrad import ops
from minigrad.errors import ConfigError, ShapeError
from minigrad.random import Generator, default_generator
from minigrad.tensor import Tensor

Reduce = Literal["mean", "sum", "none"]


def relu(x: Tensor) -> Tensor:
    """max(x, 0); derivative 0 at 0."""
    return ops.relu(x)


def silu(x: Tensor) -> Tensor:
    """x sigmoid(x). From Elfwing et al. 2017, arXiv:1702.03118."""
    return x * ops.sigmoid(x)


def gelu(x: Tensor, approximate: Literal["none", "tanh"] = "none") -> Tensor:
    """x Phi(x), Phi the normal distribution function: "none" with erf, "tanh" by GPT-2's formula.

    From Hendrycks and Gimpel 2016, arXiv:1606.08415.
    """
    if approximate == "tanh":
        y: Tensor = ops.gelu_tanh(x)[0]
        return y
    if approximate != "none":
        raise ConfigError("gelu", f"approximate={approximate!r}", got=approximate, wanted=("none", "tanh"), hint='"none" or "tanh"')
    return x * 0.5 * (1 + ops.erf(x * 0.7071067811865476))


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`; a row of -inf gives zeros."""
    return ops.softmax(x, axis=dim)


stable_softmax = softmax


def log_softmax(x: Tensor, dim: int = -1) -> Tensor:
    """log(softmax(x)) along `dim`."""
    return ops.log_softmax(x, axis=dim)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias: (..., K), (N, K), (N,) -> (..., N)."""
    return ops.linear(x, weight) if bias is None else ops.linear(x, weight, bias)


def embedding(index: Any, weight: Tensor) -> Tensor:
    """Rows of a table: (...) integers, (V, C) -> (..., C). Raises IndexRangeError outside 0..V-1."""
    return ops.embedding(weight, index)


def layer_norm(
    x: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axes, which are `normalized_shape`. From Ba et al. 2016, arXiv:1607.06450."""
    wanted = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if x.shape[x.ndim - len(wanted) :] != wanted:
        raise ShapeError("layer_norm", f"x {x.shape} does not end in {wanted}", got=x.shape, wanted=wanted)
    if len(wanted) == 1:
        y: Tensor = ops.layer_norm(x, weight, bias, eps=eps)[0]
        return y
    count = math.prod(wanted)
    rows = x.reshape(*x.shape[: x.ndim - len(wanted)], count)
    scale, shift = (None if p is None else p.reshape(count) for p in (weight, bias))
    return layer_norm(rows, count, scale, shift, eps).reshape(x.shape)


def rms_norm(x: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axes. From Zhang and Sennrich 2019, arXiv:1910.07467."""
    wanted = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if x.shape[x.ndim - len(wanted) :] != wanted:
        raise ShapeError("rms_norm", f"x {x.shape} does not end in {wanted}", got=x.shape, wanted=wanted)
    if len(wanted) == 1:
        y: Tensor = ops.rms_norm(x, weight, eps=eps)[0]
        return y
    count = math.prod(wanted)
    rows = x.reshape(*x.shape[: x.ndim - len(wanted)], count)
    return rms_norm(rows, count, None if weight is None else weight.reshape(count), eps).reshape(x.shape)


def dropout(x: Tensor, p: float = 0.5, training: bool = True, generator: Generator = default_generator) -> Tensor:
    """In training, each element 0 with probability p, else scaled by 1 / (1 - p); x itself otherwise. From Srivastava et al. 2014."""
    if not 0 <= p <= 1:
        raise ConfigError("dropout", f"p={p} is no probability", got=p, wanted=(0, 1))
    if not training or p == 0:
        return x
    y: Tensor = ops.dropout(x, generator.state, p=p)[0]
    return y


def cross_entropy(
    logits: Tensor, target: Any, *, ignore_index: int = -100, label_smoothing: float = 0.0, reduction: Reduce = "mean"
) -> Tensor:
    """-log softmax(logits)[target], averaged over the targets that are not ignore_index.

    logits: (..., V)   target: (...) integers.   label_smoothing s mixes in the uniform distribution: (1 - s) onehot + s / V.
    Raises IndexRangeError for a target outside 0..V-1.
    """
    target = target if isinstance(target, Tensor) else Tensor(target)
    if logits.shape[:-1] != target.shape:
        raise ShapeError("cross_entropy", f"logits {logits.shape} want targets {logits.shape[:-1]}, not {target.shape}",
                         got=target.shape, wanted=logits.shape[:-1], hint="targets are class numbers, one per row of logits")  # fmt: skip
    rows, flat = logits.reshape(-1, logits.shape[-1]), target.reshape(-1)
    loss: Tensor = ops.cross_entropy(rows, flat, ignore_index=ignore_index, label_smoothing=label_smoothing)[0]
    if reduction == "none":
        return loss.reshape(target.shape)
    if reduction == "sum":
        return loss.sum()
    if reduction != "mean":
        raise ConfigError("cross_entropy", f"reduction={reduction!r}", got=reduction, wanted=("mean", "sum", "none"))
    kept = int((flat.data != ignore_index).sum())
    return loss.sum() * (1 / kept if kept else float("nan"))


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up. From Shazeer 2020, arXiv:2002.05202."""
    return silu(gate) * up
