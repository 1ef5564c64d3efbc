"""Attention and what belongs to it: its weights, ALiBi's slopes, the rotary embedding."""

from __future__ import annotations

from typing import Any

from minigrad import ops
from minigrad.arguments import as_int
from minigrad.tensor import Tensor
from minigrad.tensor.attention import (
    attention_weights as attention_weights,
    scaled_dot_product_attention as scaled_dot_product_attention,
)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(D)) v, without a mask."""
    return scaled_dot_product_attention(q, k, v)


def attention_with_mask(
    q: Tensor, k: Tensor, v: Tensor, mask: Any = None, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Return (output, weights): weights = softmax(scale q k^T + mask), output = weights v.

    mask: bool, True where a query may look, or float, added to the scores (0 and -inf); broadcasts
        to (..., T, S).   scale: 1 / sqrt(D) unless given.
    """
    y, weights = scaled_dot_product_attention(q, k, v, mask, scale=scale, return_weights=True)
    return y, weights


def alibi_slopes(n_head: int) -> tuple[float, ...]:
    """Return ALiBi's slope of each head: a geometric sequence from 2^(-8/n) if n is a power of two,
    otherwise filled up from the sequence of the next one.

    The score of a key d places away falls by slope * d. From Press et al. 2021, arXiv:2108.12409.
    """
    n_head = as_int("alibi_slopes", "n_head", n_head)
    n = 1 << (n_head.bit_length() - 1)
    whole = [2 ** (-8 * (i + 1) / n) for i in range(n)]
    between = [2 ** (-4 * (i + 1) / n) for i in range(2 * n)]
    return tuple(whole + between[0::2][: n_head - n])


def apply_rotary(x: Tensor, cos: Any, sin: Any, interleaved: bool = False) -> Tensor:
    """Return x with its pairs of features turned by the angles whose cosines and sines are given;
    see `ops.rope`. The result has the dtype of x.

    x: (..., T, D)   cos, sin: (T, R/2), R <= D, or with leading axes that broadcast to those of x.
    """
    y: Tensor = ops.rope(x, cos, sin, interleaved=interleaved)
    return y if y.dtype == x.dtype else y.cast(x.dtype)
