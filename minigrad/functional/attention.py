"""Attention: softmax(scale q k^T + mask) v, plain or in tiles, with every kind of mask, and the rotary embedding of positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from minigrad import ops
from minigrad.dtypes import DType, bool_, computing
from minigrad.errors import ConfigError, MaskError, ShapeError
from minigrad.functional.layers import dropout, softmax
from minigrad.ops.flash import band_and_bias
from minigrad.ops.in_float32 import in_float32
from minigrad.tensor import Tensor

Corner = Literal["upper_left", "lower_right"]
Method = Literal["auto", "plain", "flash"]
FLASH_BYTES = 32 << 20  # of probabilities, from which tiles are faster and spare memory

_NAME = "scaled_dot_product_attention"


def scaled_dot_product_attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
    enable_gqa: bool = False, *, causal: Corner = "upper_left", window: int | None = None, bias: Any = None,
    alibi: Sequence[float] | None = None, method: Method = "auto", return_weights: bool = False,
) -> Any:  # fmt: skip
    """softmax(scale q k^T + mask + bias) v.

    q: (..., H, T, D)   k, v: (..., H, S, D)   ->   (..., H, T, D);   scale defaults to 1 / sqrt(D).
    attn_mask: bool, True where a query may look, or float, added to the scores; broadcasts to (..., T, S). With is_causal both hold.
    causal: which corner the triangle starts in when T < S; a KV cache wants "lower_right". A row that sees nothing gives zeros.
    enable_gqa: q may have a multiple of k's heads.   window: a query sees the last `window` keys up to its own place; without is_causal, those
    less than `window` away to either side.   bias: float, added to the scores, may learn.   alibi: a slope per head, see `alibi_slopes`.
    method: "plain" keeps the T x S probabilities for backward, "flash" works in tiles with memory that grows with T; "auto" takes tiles from
    32 MB of probabilities on.   return_weights: also the probabilities, (..., H, T, S), before dropout: a pair (y, weights).
    Raises ShapeError, MaskError, ConfigError. From Vaswani et al. 2017, arXiv:1706.03762.
    """
    _check(q, k, v, dropout_p, causal, window, method, return_weights)
    T, S = q.shape[-2], k.shape[-2]
    offset = S - T if causal == "lower_right" else 0
    edge = offset if is_causal else None
    factor = q.shape[-1] ** -0.5 if scale is None else float(scale)
    mask = _with_bias(None if attn_mask is None else _checked_mask(attn_mask, T, S), bias)
    slopes = None if alibi is None else tuple(float(s) for s in alibi)
    # A window is a band that ends at the causal edge, or, without one, as far ahead as it begins behind.
    band = None if window is None else (offset, window) if is_causal else (offset + window - 1, 2 * window - 1)
    tiled = method == "flash" or (method == "auto" and not dropout_p and not return_weights and _is_large(q, k, mask))
    if not tiled or (slopes is not None and not is_causal and (band or offset)):
        mask, slopes = _with_bias(mask, _whole(T, S, offset, None if tiled else band, slopes, computing(q.dtype))), None
    shape = (*q.shape[:-1], v.shape[-1])
    if enable_gqa and q.shape[-3] != k.shape[-3]:
        q, k, v, mask = _in_groups(q, k, v, mask)
    weights = attention_weights(q, k, mask, factor, edge) if dropout_p or return_weights else None
    operands = (q, k, v) if mask is None else (q, k, v, mask)
    if dropout_p and weights is not None:
        y: Tensor = dropout(weights, dropout_p) @ v
    elif tiled:
        edge, window = (edge, None) if band is None else band
        y = ops.flash_attention(*operands, scale=factor, offset=edge, window=window, slopes=slopes)[0]
    else:
        y = ops.attention(*operands, scale=factor, offset=edge)[0]
    y = y if y.shape == shape else y.reshape(shape)
    return y if not return_weights or weights is None else (y, weights.reshape(*shape[:-1], S))


@in_float32
def attention_weights(q: Tensor, k: Tensor, mask: Any = None, scale: float | None = None, offset: int | None = None) -> Tensor:
    """The probabilities softmax(scale q k^T + mask), (..., T, S), as a tensor that gradients flow through. offset: as for `ops.attention`."""
    scores = (q @ k.transpose(-2, -1)) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        mask = _checked_mask(mask, q.shape[-2], k.shape[-2])
        scores = ops.where(mask, scores, -math.inf) if mask.dtype == bool_ else ops.where(mask == -math.inf, -math.inf, scores + mask)
    if offset is not None:
        scores = ops.where(Tensor._wrap(np.tri(q.shape[-2], k.shape[-2], offset, dtype=np.bool_)), scores, -math.inf)
    return softmax(scores)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v, without a mask."""
    y: Tensor = scaled_dot_product_attention(q, k, v)
    return y


def attention_with_mask(q: Tensor, k: Tensor, v: Tensor, mask: Any = None, scale: float | None = None) -> tuple[Tensor, Tensor]:
    """(output, weights): weights = softmax(scale q k^T + mask), output = weights v; scale defaults to 1 / sqrt(D).

    mask: bool, True where a query may look, or float, added to the scores (0 and -inf); broadcasts to (..., T, S).
    """
    y, weights = scaled_dot_product_attention(q, k, v, mask, scale=scale, return_weights=True)
    return y, weights


def alibi_slopes(n_head: int) -> tuple[float, ...]:
    """ALiBi's slope of each head: a geometric sequence from 2^(-8/n) for powers of two, filled up from the next one else.

    The score of a key d places away falls by slope * d. From Press et al. 2021, arXiv:2108.12409.
    """
    n = 1 << (n_head.bit_length() - 1)
    whole = [2 ** (-8 * (i + 1) / n) for i in range(n)]
    between = [2 ** (-4 * (i + 1) / n) for i in range(2 * n)]
    return tuple(whole + between[0::2][: n_head - n])


def apply_rotary(x: Tensor, cos: Any, sin: Any, interleaved: bool = False) -> Tensor:
    """Turn pairs of features by the angles whose cosines and sines are given; see `ops.rope`. The result has x's dtype.

    x: (..., T, D)   cos, sin: (T, R/2), R <= D, or with leading axes that broadcast to x's.
    """
    y: Tensor = ops.rope(x, cos, sin, interleaved=interleaved)
    return y if y.dtype == x.dtype else y.cast(x.dtype)


# --- the parts


def _check(q: Tensor, k: Tensor, v: Tensor, dropout_p: float, causal: str, window: int | None, method: str, weights: bool) -> None:
    if q.ndim < 2 or k.shape[-1] != q.shape[-1] or v.shape[:-1] != k.shape[:-1]:
        raise ShapeError(_NAME, f"q {q.shape}, k {k.shape}, v {v.shape} do not fit together",
                         got=(q.shape, k.shape, v.shape), wanted="(..., T, D), (..., S, D), (..., S, E)")  # fmt: skip
    if causal not in ("upper_left", "lower_right"):
        raise ConfigError(_NAME, f"causal={causal!r}", got=causal, wanted=("upper_left", "lower_right"))
    if method not in ("auto", "plain", "flash"):
        raise ConfigError(_NAME, f"method={method!r}", got=method, wanted=("auto", "plain", "flash"))
    if window is not None and window < 1:
        raise ConfigError(_NAME, f"window={window}", got=window, wanted="window >= 1", hint="window=1 sees its own place only")
    if method == "flash" and (dropout_p or weights):
        raise ConfigError(_NAME, "tiles keep no weights to drop or to return", got=(dropout_p, weights), wanted=(0.0, False), hint='method="plain"')


def _is_large(q: Tensor, k: Tensor, mask: Tensor | None) -> bool:
    """Are there so many probabilities that tiles pay?"""
    if mask is not None and mask.requires_grad:
        return False  # its gradient has T x S numbers anyway
    return q.numel() // q.shape[-1] * k.shape[-2] * computing(q.dtype).itemsize >= FLASH_BYTES


def _whole(
    T: int, S: int, offset: int, band: tuple[int, int] | None, slopes: tuple[float, ...] | None, dtype: DType
) -> Tensor | None:
    """Window and ALiBi as one float mask, (T, S) or (H, T, S); None if there is neither."""
    bias = band_and_bias(T, S, offset, None, slopes, dtype)
    inside = None if band is None else band_and_bias(T, S, *band, None, dtype)
    if band is not None and inside is not None:
        inside[np.triu_indices(T, band[0] + 1, S)] = -np.inf
        bias = inside if bias is None else bias + inside
    return None if bias is None else Tensor._wrap(bias)


def _with_bias(mask: Tensor | None, bias: Any) -> Tensor | None:
    """A mask, bool or float, and a float bias as one float mask."""
    if bias is None or mask is None:
        return mask if bias is None else _as_tensor(bias)
    bias = _as_tensor(bias)
    return ops.where(mask, bias, -math.inf) if mask.dtype == bool_ else mask + bias


def _as_tensor(x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else Tensor(x)


def _checked_mask(mask: Any, T: int, S: int) -> Tensor:
    mask = _as_tensor(mask)
    if mask.ndim and (mask.shape[-1] not in (1, S) or (mask.ndim > 1 and mask.shape[-2] not in (1, T))):
        raise MaskError(_NAME, f"mask {mask.shape} does not broadcast to (..., {T}, {S})", got=mask.shape, wanted=(..., T, S))
    if mask.dtype != bool_ and mask.dtype.kind != "f":
        raise MaskError(_NAME, f"a mask of {mask.dtype} is ambiguous", got=mask.dtype, wanted="bool or float",
                        hint="mask.bool() if True (1) means `may look`")  # fmt: skip
    if mask.dtype != bool_ and mask.numel() > 1 and not mask.requires_grad and set(mask.numpy().flat[:4096]) == {0.0, 1.0}:
        raise MaskError(_NAME, "a float mask of zeros and ones is ambiguous", got="0 and 1", wanted="bool or 0 and -inf",
                        hint="mask.bool() if 1 means `may look`; where(mask, -inf, 0) if 1 means `hidden`")  # fmt: skip
    return mask


def _in_groups(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Query heads in groups that share a key and value head: the group becomes an axis, (..., G, H/G, T, D), that k and v broadcast over."""
    H, G = q.shape[-3], k.shape[-3]
    if H % G:
        raise ShapeError(_NAME, f"{H} query heads do not divide into {G} key heads", got=(H, G))

    def split(x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-3], G, H // G, *x.shape[-2:]) if x.shape[-3] == H else x.unsqueeze(-3)

    return split(q), k.unsqueeze(-3), v.unsqueeze(-3), mask if mask is None or mask.ndim < 3 else split(mask)
