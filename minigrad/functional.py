"""Functions of neural networks, by PyTorch's names and arguments; numbers mean what they mean there.

They work on Tensors (and, where no randomness is in them, on plain arrays).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from minigrad import ops
from minigrad.dtypes import bool_
from minigrad.errors import ConfigError, MaskError, ShapeError
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
    count = 1
    for n in wanted:
        count *= n
    rows = x.reshape(*x.shape[: x.ndim - len(wanted)], count)
    scale, shift = (None if p is None else p.reshape(count) for p in (weight, bias))
    return layer_norm(rows, count, scale, shift, eps).reshape(x.shape)


def rms_norm(x: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axes. From Zhang and Sennrich 2019, arXiv:1910.07467."""
    wanted = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if x.shape[x.ndim - len(wanted) :] != wanted:
        raise ShapeError("rms_norm", f"x {x.shape} does not end in {wanted}", got=x.shape, wanted=wanted)
    axis = tuple(range(-len(wanted), 0))
    y = x * ops.rsqrt((x * x).mean(axis=axis, keepdim=True) + eps)
    return y if weight is None else y * weight


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


def scaled_dot_product_attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
    enable_gqa: bool = False, *, causal: Literal["upper_left", "lower_right"] = "upper_left",
) -> Tensor:  # fmt: skip
    """softmax(scale q k^T + mask) v.

    q: (..., H, T, D)   k, v: (..., H, S, D)   ->   (..., H, T, D);   scale defaults to 1 / sqrt(D).
    attn_mask: bool, True where a query may look, or float, added to the scores; broadcasts to (..., T, S). With is_causal both hold.
    causal: which corner the triangle starts in when T < S; a KV cache wants "lower_right". A row that sees nothing gives zeros.
    enable_gqa: q may have a multiple of k's heads. From Vaswani et al. 2017, arXiv:1706.03762.
    """
    if q.ndim < 2 or k.shape[-1] != q.shape[-1] or v.shape[:-1] != k.shape[:-1]:
        raise ShapeError("scaled_dot_product_attention", f"q {q.shape}, k {k.shape}, v {v.shape} do not fit together",
                         got=(q.shape, k.shape, v.shape), wanted="(..., T, D), (..., S, D), (..., S, E)")  # fmt: skip
    if causal not in ("upper_left", "lower_right"):
        raise ConfigError("scaled_dot_product_attention", f"causal={causal!r}", got=causal, wanted=("upper_left", "lower_right"))
    if enable_gqa and q.shape[-3] != k.shape[-3]:
        return _grouped(q, k, v, attn_mask, dropout_p, is_causal, scale, causal)
    T, S = q.shape[-2], k.shape[-2]
    offset = None if not is_causal else (S - T if causal == "lower_right" else 0)
    factor = q.shape[-1] ** -0.5 if scale is None else float(scale)
    mask = None if attn_mask is None else _checked_mask(attn_mask, T, S)
    if dropout_p:
        weights = dropout(attention_weights(q, k, mask, factor, offset), dropout_p)
        return weights @ v
    operands = (q, k, v) if mask is None else (q, k, v, mask)
    y: Tensor = ops.attention(*operands, scale=factor, offset=offset)[0]
    return y


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None, scale: float, offset: int | None) -> Tensor:
    """The probabilities softmax(scale q k^T + mask), (..., T, S), as a tensor of their own."""
    identity = Tensor.eye(k.shape[-2], dtype=k.dtype).expand(*k.shape[:-1], k.shape[-2])
    operands = (q, k, identity) if mask is None else (q, k, identity, mask)
    weights: Tensor = ops.attention(*operands, scale=scale, offset=offset)[0]
    return weights


def _checked_mask(mask: Any, T: int, S: int) -> Tensor:
    mask = mask if isinstance(mask, Tensor) else Tensor(mask)
    if mask.ndim and (mask.shape[-1] not in (1, S) or (mask.ndim > 1 and mask.shape[-2] not in (1, T))):
        raise MaskError("scaled_dot_product_attention", f"mask {mask.shape} does not broadcast to (..., {T}, {S})", got=mask.shape,
                        wanted=(..., T, S))  # fmt: skip
    if mask.dtype != bool_ and mask.dtype.kind != "f":
        raise MaskError("scaled_dot_product_attention", f"a mask of {mask.dtype} is ambiguous", got=mask.dtype, wanted="bool or float",
                        hint="mask.bool() if True (1) means `may look`")  # fmt: skip
    if mask.dtype != bool_ and mask.numel() > 1 and not mask.requires_grad and set(mask.numpy().flat[:4096]) == {0.0, 1.0}:
        raise MaskError("scaled_dot_product_attention", "a float mask of zeros and ones is ambiguous", got="0 and 1", wanted="bool or 0 and -inf",
                        hint="mask.bool() if 1 means `may look`; where(mask, -inf, 0) if 1 means `hidden`")  # fmt: skip
    return mask


def _grouped(
    q: Tensor, k: Tensor, v: Tensor, mask: Any, dropout_p: float, is_causal: bool, scale: float | None,
    causal: Literal["upper_left", "lower_right"],
) -> Tensor:  # fmt: skip
    """Query heads in groups that share a key and value head: the group becomes an axis that k and v broadcast over."""
    H, G = q.shape[-3], k.shape[-3]
    if H % G:
        raise ShapeError("scaled_dot_product_attention", f"{H} query heads do not divide into {G} key heads", got=(H, G))
    grouped = q.reshape(*q.shape[:-3], G, H // G, *q.shape[-2:])  # (..., G, H/G, T, D)
    if mask is not None:
        mask = mask if isinstance(mask, Tensor) else Tensor(mask)
        if mask.ndim > 2:
            mask = mask.reshape(*mask.shape[:-3], G, H // G, *mask.shape[-2:]) if mask.shape[-3] == H else mask.unsqueeze(-3)
    y = scaled_dot_product_attention(grouped, k.unsqueeze(-3), v.unsqueeze(-3), mask, dropout_p, is_causal, scale, causal=causal)
    return y.reshape(*q.shape[:-1], v.shape[-1])
