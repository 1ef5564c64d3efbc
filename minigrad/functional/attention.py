"""Attention: softmax(scale q k^T + mask) v, plain or in tiles, with every kind of mask, and the
rotary embedding of positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from minigrad import ops
from minigrad.dtypes import Array, DType, bool_, cast, computing, float32, is_float, name, promote
from minigrad.errors import ConfigError, DTypeError, MaskError, ShapeError
from minigrad.ops.flash import band_and_bias
from minigrad.ops.in_float32 import in_float32
from minigrad.random import default_generator
from minigrad.tensor import Tensor

Corner = Literal["upper_left", "lower_right"]
Method = Literal["auto", "plain", "flash"]
FLASH_BYTES = 32 << 20  # of probabilities, from which tiles are faster and spare memory

_NAME = "scaled_dot_product_attention"
_NUMBERS = (int, float, np.integer, np.floating)


def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    causal: Corner = "upper_left",
    window: int | None = None,
    bias: Any = None,
    alibi: Sequence[float] | None = None,
    method: Method = "auto",
    return_weights: bool = False,
) -> Any:
    """softmax(scale q k^T + mask + bias) v.

    q: (..., H, T, D)   k, v: (..., H, S, D)   ->   (..., H, T, D);   scale defaults to 1 / sqrt(D).
        Leading axes broadcast, those of a mask, too;
    the result has the dtype of q, k and v, whatever that of a mask or bias.
    attn_mask: bool, True where a query may look, or float, added to the scores; broadcasts to (...,
        T, S). With is_causal both hold.
    causal: which corner the triangle starts in when T < S; a KV cache wants "lower_right". A row
        that sees nothing gives zeros.
    enable_gqa: q may have a multiple of k's heads.   window: a query sees the last `window` keys up
        to its own place; without is_causal, those
    less than `window` away to either side.   bias: float, added to the scores, may learn.   alibi:
    a slope per head, see `alibi_slopes`.
    method: "plain" keeps the T x S probabilities for backward, "flash" works in tiles with memory
        that grows with T; "auto" takes tiles from
    32 MB of probabilities on.   return_weights: also the probabilities, (..., H, T, S), before
    dropout: a pair (y, weights). Raises ShapeError, DTypeError, MaskError, ConfigError. From
        Vaswani et al. 2017, arXiv:1706.03762.
    """
    _check_operands(q, k, v)
    _check_settings(dropout_p, is_causal, causal, scale, window, method, return_weights)
    (T, S), asked = (
        (q.shape[-2], k.shape[-2]),
        q.dtype if q.dtype is k.dtype is v.dtype else promote(q.dtype, k.dtype, v.dtype),
    )
    offset = S - T if causal == "lower_right" else 0
    edge = offset if is_causal else None
    factor = max(q.shape[-1], 1) ** -0.5 if scale is None else float(scale)
    mask = None if attn_mask is None else readable_mask(attn_mask)
    bias = None if bias is None else _checked_bias(bias)
    batch = _common_batch(q, k, v, mask, bias, enable_gqa)
    slopes = None if alibi is None else _checked_slopes(alibi, batch)
    mask = _with_bias(mask, bias, asked)
    # A window is a band that ends at the causal edge, or, without one, as far ahead as it begins
    # behind.
    band = (
        None
        if window is None
        else (offset, window)
        if is_causal
        else (offset + window - 1, 2 * window - 1)
    )
    large = (
        method == "auto" and not dropout_p and not return_weights and _is_large(q, S, mask, batch)
    )
    tiled = method == "flash" or large
    if not tiled or (slopes is not None and not is_causal and (band or offset)):
        mask, slopes = (
            _with_bias(
                mask, _whole(T, S, offset, None if tiled else band, slopes, computing(asked)), asked
            ),
            None,
        )
    shape = (*batch, T, v.shape[-1])
    if enable_gqa and q.ndim > 2 and q.shape[-3] != k.shape[-3]:
        q, k, v, mask = _in_groups(q, k, v, mask)
    operands = (q, k, v) if mask is None else (q, k, v, mask)
    if tiled:
        edge, window = (edge, None) if band is None else band
        return _as_asked(
            _in_tiles(*operands, scale=factor, offset=edge, window=window, slopes=slopes),
            shape,
            asked,
        )
    y, weights = _with_weights(operands, factor, edge, dropout_p)
    y = _as_asked(y, shape, asked)
    if not return_weights:
        return y
    if (
        y.requires_grad
    ):  # The op's own probabilities are there to be looked at; these carry gradients.
        weights = ops.attention_weights(*operands[:2], *operands[3:], scale=factor, offset=edge)
    return y, _as_asked(weights, (*batch, T, S), asked)


Tensor._attention = staticmethod(scaled_dot_product_attention)


@in_float32
def attention_weights(
    q: Tensor, k: Tensor, mask: Any = None, scale: float | None = None, offset: int | None = None
) -> Tensor:
    """The probabilities softmax(scale q k^T + mask), (..., T, S), as a tensor that gradients flow
    through. offset: as for `ops.attention`.
    """
    _check_operands(q, k, k)
    mask = None if mask is None else readable_mask(mask)
    _common_batch(q, k, k, mask, None, False)
    operands = (q, k) if mask is None else (q, k, mask)
    weights: Tensor = ops.attention_weights(
        *operands,
        scale=max(q.shape[-1], 1) ** -0.5 if scale is None else float(scale),
        offset=offset,
    )
    return weights


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v, without a mask."""
    y: Tensor = scaled_dot_product_attention(q, k, v)
    return y


def attention_with_mask(
    q: Tensor, k: Tensor, v: Tensor, mask: Any = None, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """(output, weights): weights = softmax(scale q k^T + mask), output = weights v; scale defaults
    to 1 / sqrt(D).

    mask: bool, True where a query may look, or float, added to the scores (0 and -inf); broadcasts
        to (..., T, S).
    """
    y, weights = scaled_dot_product_attention(q, k, v, mask, scale=scale, return_weights=True)
    return y, weights


def alibi_slopes(n_head: int) -> tuple[float, ...]:
    """ALiBi's slope of each head: a geometric sequence from 2^(-8/n) for powers of two, filled up
    from the next one else.

    The score of a key d places away falls by slope * d. From Press et al. 2021, arXiv:2108.12409.
    """
    if not isinstance(n_head, int | np.integer) or isinstance(n_head, bool) or n_head < 1:
        raise ConfigError(
            "alibi_slopes", f"n_head={n_head!r}", got=n_head, wanted="an integer >= 1"
        )
    n = 1 << (int(n_head).bit_length() - 1)
    whole = [2 ** (-8 * (i + 1) / n) for i in range(n)]
    between = [2 ** (-4 * (i + 1) / n) for i in range(2 * n)]
    return tuple(whole + between[0::2][: n_head - n])


def apply_rotary(x: Tensor, cos: Any, sin: Any, interleaved: bool = False) -> Tensor:
    """Turn pairs of features by the angles whose cosines and sines are given; see `ops.rope`. The
    result has x's dtype.

    x: (..., T, D)   cos, sin: (T, R/2), R <= D, or with leading axes that broadcast to x's.
    """
    y: Tensor = ops.rope(x, cos, sin, interleaved=interleaved)
    return y if y.dtype == x.dtype else y.cast(x.dtype)


# --- the parts


def _check_operands(q: Tensor, k: Tensor, v: Tensor) -> None:
    for letter, x in (("q", q), ("k", k), ("v", v)):
        if not isinstance(x, Tensor):
            raise DTypeError(
                _NAME,
                f"{letter} is a {type(x).__name__}",
                got=type(x),
                wanted="Tensor",
                hint=f"Tensor({letter})",
            )
        if x.dtype is not float32 and not is_float(x.dtype):
            raise DTypeError(
                _NAME,
                f"{letter} is of {name(x.dtype)}",
                got=x.dtype,
                wanted="a float dtype",
                hint=f"{letter}.float()",
            )
    if min(q.ndim, k.ndim, v.ndim) < 2 or k.shape[-1] != q.shape[-1] or v.shape[-2] != k.shape[-2]:
        raise ShapeError(
            _NAME,
            f"q {q.shape}, k {k.shape}, v {v.shape} do not fit together",
            got=(q.shape, k.shape, v.shape),
            wanted="(..., T, D), (..., S, D), (..., S, E)",
        )


def _check_settings(
    dropout_p: Any, is_causal: Any, causal: Any, scale: Any, window: Any, method: Any, weights: bool
) -> None:
    if causal not in ("upper_left", "lower_right"):
        raise ConfigError(
            _NAME, f"causal={causal!r}", got=causal, wanted=("upper_left", "lower_right")
        )
    if is_causal is not True and is_causal is not False and not isinstance(is_causal, np.bool_):
        raise ConfigError(
            _NAME,
            f"is_causal={is_causal!r}",
            got=is_causal,
            wanted="True or False",
            hint='is_causal=True, causal="lower_right"',
        )
    if method not in ("auto", "plain", "flash"):
        raise ConfigError(
            _NAME, f"method={method!r}", got=method, wanted=("auto", "plain", "flash")
        )
    if window is not None and (
        isinstance(window, bool) or not isinstance(window, int | np.integer) or window < 1
    ):
        raise ConfigError(
            _NAME,
            f"window={window!r}",
            got=window,
            wanted="an integer >= 1",
            hint="window=1 sees its own place only",
        )
    for what, value in (("scale", scale), ("dropout_p", dropout_p)):
        if (
            value is not None
            and type(value) is not float
            and (isinstance(value, bool) or not isinstance(value, _NUMBERS))
        ):
            raise ConfigError(_NAME, f"{what}={value!r}", got=value, wanted="a number")
    if dropout_p is None or not 0 <= dropout_p <= 1:
        raise ConfigError(
            _NAME, f"dropout_p={dropout_p}", got=dropout_p, wanted="0 <= dropout_p <= 1"
        )
    if method == "flash" and (dropout_p or weights):
        raise ConfigError(
            _NAME,
            "tiles keep no weights to drop or to return",
            got=(dropout_p, weights),
            wanted=(0.0, False),
            hint='method="plain"',
        )


def _common_batch(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, gqa: bool
) -> tuple[int, ...]:
    """The leading axes that all broadcast to, heads the last of them; with groups, k and v have a
    part of the heads.
    """
    if mask is None and bias is None and q.shape[:-2] == k.shape[:-2] == v.shape[:-2]:
        return q.shape[:-2]
    (T, S), heads = (q.shape[-2], k.shape[-2]), q.shape[-3] if q.ndim > 2 else 1
    for what, x in (("mask", mask), ("bias", bias)):
        if (
            x is not None
            and x.ndim
            and (x.shape[-1] not in (1, S) or (x.ndim > 1 and x.shape[-2] not in (1, T)))
        ):
            raise MaskError(
                _NAME,
                f"{what} {x.shape} does not broadcast to (..., {T}, {S})",
                got=x.shape,
                wanted=(..., T, S),
            )
    leading = [x.shape[:-2] for x in (q, k, v)]
    if gqa and q.ndim > 2 and heads != k.shape[-3]:
        if min(k.ndim, v.ndim) < 3 or v.shape[-3] != k.shape[-3] or heads % max(k.shape[-3], 1):
            raise ShapeError(
                _NAME,
                f"{heads} query heads do not divide into the heads of k {k.shape}, v {v.shape}",
                got=(heads, k.shape, v.shape),
            )
        leading[1:] = [(*x.shape[:-3], heads) for x in (k, v)]
    try:
        common = np.broadcast_shapes(*leading)
    except ValueError:
        grouped = k.ndim > 2 and not gqa and k.shape[-3] and heads % k.shape[-3] == 0
        raise ShapeError(
            _NAME,
            f"the leading axes of q {q.shape}, k {k.shape}, v {v.shape} do not broadcast",
            got=(q.shape, k.shape, v.shape),
            wanted="(..., H, T, D), (..., H, S, D), (..., H, S, E)",
            hint="enable_gqa=True lets query heads share a head of k and v" if grouped else "",
        ) from None
    for what, x in (("mask", mask), ("bias", bias)):
        try:
            common = common if x is None else np.broadcast_shapes(common, x.shape[:-2])
        except ValueError:
            assert x is not None
            raise MaskError(
                _NAME,
                f"{what} {x.shape} does not broadcast to {(*common, T, S)}",
                got=x.shape,
                wanted=(*common, T, S),
            ) from None
    return common


def _checked_slopes(alibi: Any, batch: tuple[int, ...]) -> tuple[float, ...]:
    slopes, heads = np.asarray(alibi), batch[-1] if batch else 1
    if slopes.shape != (heads,) or slopes.dtype.kind not in "iuf":
        raise ConfigError(
            _NAME,
            f"alibi={alibi!r} for {heads} heads",
            got=alibi,
            wanted=f"{heads} slopes",
            hint=f"F.alibi_slopes({heads})",
        )
    return tuple(float(slope) for slope in slopes)


def _is_large(q: Tensor, S: int, mask: Tensor | None, batch: tuple[int, ...]) -> bool:
    """Are there so many probabilities that tiles pay?"""
    if mask is not None and mask.requires_grad:
        return False  # its gradient has T x S numbers anyway
    return math.prod(batch) * q.shape[-2] * S * computing(q.dtype).itemsize >= FLASH_BYTES


def _with_weights(
    operands: tuple[Tensor, ...], scale: float, offset: int | None, dropout_p: float
) -> tuple[Tensor, Tensor]:
    """The output, some of its weights dropped, and the weights before that."""
    if not dropout_p:
        y, weights = ops.attention(*operands, scale=scale, offset=offset)
        return y, weights
    q, k, v, *masks = operands
    batch = np.broadcast_shapes(*(x.shape[:-2] for x in operands))
    # Drawn at the door, which an array alone would not go through: a recording must hear of it.
    kept = Tensor.__apply_primitive__(
        ops.kept,
        [default_generator.state],
        {"shape": (*batch, q.shape[-2], k.shape[-2]), "p": float(dropout_p)},
    )
    factor = 1 / (1 - dropout_p) if dropout_p < 1 else 0.0
    y, weights = ops.dropped_attention(
        q, k, v, kept, *masks, scale=scale, offset=offset, factor=factor
    )
    return y, weights


def _as_asked(y: Tensor, shape: tuple[int, ...], dtype: DType) -> Tensor:
    """y in its shape, heads in one axis again, and in the dtype of q, k and v, which no mask
    changes.
    """
    y = y if y.shape == shape else y.reshape(shape)
    return y if y.dtype == dtype else y.cast(dtype)


@in_float32
def _in_tiles(*operands: Tensor, **settings: Any) -> Tensor:
    """Attention in tiles, 16-bit operands in float32: what the op saves of each row is an exponent,
    which cannot be rounded to 16 bits.
    """
    y: Tensor = ops.flash_attention(*operands, **settings)[0]
    return y


def _whole(
    T: int,
    S: int,
    offset: int,
    band: tuple[int, int] | None,
    slopes: tuple[float, ...] | None,
    dtype: DType,
) -> Tensor | None:
    """Window and ALiBi as one float mask, (T, S) or (H, T, S); None if there is neither."""
    bias = band_and_bias(T, S, offset, None, slopes, dtype)
    if bias is not None and slopes is not None and len(slopes) == 1:
        bias = bias[0]  # one head, which need not be an axis
    inside = None if band is None else band_and_bias(T, S, *band, None, dtype)
    if band is not None and inside is not None:
        inside[np.triu_indices(T, band[0] + 1, S)] = -np.inf
        bias = inside if bias is None else bias + inside
    return None if bias is None else Tensor._wrap(bias)


def _with_bias(mask: Tensor | None, bias: Tensor | None, asked: DType) -> Tensor | None:
    """A mask, bool or float, and a float bias as one mask; what is float is of the dtype that
    scores of `asked` are computed in.
    """
    if mask is None and bias is None:
        return None
    dtype = computing(asked)
    mask, bias = (
        x if x is None or x.dtype in (bool_, dtype) else x.cast(dtype) for x in (mask, bias)
    )
    if bias is None or mask is None:
        return mask if bias is None else bias
    return ops.where(mask, bias, -math.inf) if mask.dtype == bool_ else mask + bias


def _as_tensor(x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else Tensor(x)


def _checked_bias(bias: Any) -> Tensor:
    bias = _as_tensor(bias)
    if not is_float(bias.dtype):
        raise MaskError(
            _NAME,
            f"a bias of {name(bias.dtype)}",
            got=bias.dtype,
            wanted="float",
            hint="attn_mask= takes what may be looked at",
        )
    return bias


def readable_mask(mask: Any) -> Tensor:
    """The mask as a tensor, bool or float. Raises MaskError where it cannot be told whether 1 means
    `may look` or is to be added.
    """
    mask = _as_tensor(mask)
    if mask.dtype == bool_:
        return mask
    if not is_float(mask.dtype):
        raise MaskError(
            _NAME,
            f"a mask of {name(mask.dtype)} is ambiguous",
            got=mask.dtype,
            wanted="bool or float",
            hint="mask.bool() if True (1) means `may look`",
        )
    # The array and not numpy(), which a recording refuses: what is found here is an error or
    # nothing, never a part of the step.
    if (
        mask.numel() > 1
        and not mask.requires_grad
        and _is_of_zeros_and_ones(cast(mask.data, computing(mask.dtype)))
    ):
        raise MaskError(
            _NAME,
            "a float mask of zeros and ones is ambiguous",
            got="0 and 1",
            wanted="bool or 0 and -inf",
            hint="mask.bool() if 1 means `may look`; where(mask, -inf, 0) if 1 means `hidden`; "
            "bias=mask to add it as it is",
        )
    return mask


def _is_of_zeros_and_ones(mask: Array) -> bool:
    """Has it both, and nothing else? The first row answers for most masks."""
    for part in (mask.reshape(-1)[:64] if mask.flags.c_contiguous else mask[:1], mask):
        ones = part == 1
        if not ((part == 0) | ones).all():
            return False
    return bool(ones.any() and not ones.all())


def _in_groups(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Query heads in groups that share a key and value head: the group becomes an axis, (..., G,
    H/G, T, D), that k and v broadcast over.
    """
    H, G = q.shape[-3], k.shape[-3]

    def split(x: Tensor) -> Tensor:
        return (
            x.reshape(*x.shape[:-3], G, H // G, *x.shape[-2:])
            if x.shape[-3] == H
            else x.unsqueeze(-3)
        )

    return (
        split(q),
        k.unsqueeze(-3),
        v.unsqueeze(-3),
        mask if mask is None or mask.ndim < 3 else split(mask),
    )
