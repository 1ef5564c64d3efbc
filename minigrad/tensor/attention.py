"""Scaled dot-product attention of tensors: checks, masks, windows, groups and dropout around
`ops.attention`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from minigrad import ops
from minigrad.arguments import as_float, as_int, one_of, require
from minigrad.dtypes import (
    Array,
    DType,
    bool_,
    cast,
    computing,
    float32,
    is_float,
    is_half,
    name,
    promote,
)
from minigrad.errors import DTypeError, MaskError, ShapeError
from minigrad.ops.composite import composite
from minigrad.random import default_generator
from minigrad.tensor.base import TensorBase

Corner = Literal["upper_left", "lower_right"]
Method = Literal["auto", "plain", "flash"]
FLASH_BYTES = 32 << 20  # of probabilities, from which tiles are faster and spare memory

_NAME = "scaled_dot_product_attention"
_CORNERS, _METHODS = ("upper_left", "lower_right"), ("auto", "plain", "flash")


def scaled_dot_product_attention(
    q: Any,
    k: Any,
    v: Any,
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
    """Return softmax(scale q k^T + mask + bias) v.

    q: (..., H, T, D)   k, v: (..., H, S, D)   ->   (..., H, T, D), in the dtype of q, k and v
    Leading axes broadcast, those of a mask too.   scale: 1 / sqrt(D) unless given.
    attn_mask: bool, True where a query may look, or float, added to the scores; broadcasts to
        (..., T, S). With is_causal, both hold.   bias: float, added to the scores, may be learned.
    causal: the corner that the triangle starts in when T < S; a KV cache needs "lower_right". A row
        that sees nothing gives zeros.
    enable_gqa: q may have a multiple of k's heads.   alibi: one slope per head, see `alibi_slopes`.
    window: a query sees the last `window` keys up to its own place; without is_causal, those less
        than `window` away on either side.
    method: "plain" saves the T x S probabilities for backward, "flash" works in tiles, with memory
        that grows with T; "auto" uses tiles from 32 MB of probabilities.
    return_weights: also return the probabilities, (..., H, T, S), before dropout: (y, weights).

    Raises ShapeError, DTypeError, MaskError and ConfigError. From Vaswani et al. 2017,
    arXiv:1706.03762.
    """
    asked = _checked_dtype(q, k, v)
    _check_options(is_causal, causal, method, return_weights)
    mask = None if attn_mask is None else readable_mask(_as_tensor(q, attn_mask))
    bias = None if bias is None else _checked_bias(_as_tensor(q, bias))
    batch = _common_batch(q, k, v, {"mask": mask, "bias": bias}, enable_gqa)
    T, S = q.shape[-2], k.shape[-2]
    offset = S - T if causal == "lower_right" else 0
    large = math.prod(batch) * T * S * computing(asked).itemsize >= FLASH_BYTES
    p = as_float(_NAME, "dropout_p", dropout_p, 0, 1) if dropout_p != 0.0 else 0.0
    settings: dict[str, Any] = {
        "scale": max(q.shape[-1], 1) ** -0.5 if scale is None else _number("scale", scale),
        "slopes": None if alibi is None else _checked_slopes(alibi, batch),
        "center": None if alibi is None else offset,
        "factor": 1 / (1 - p) if p < 1 else 0.0,
        "tiled": method != "plain" and not return_weights and (method == "flash" or large),
        **_edges(window, offset, is_causal),
    }
    mask = _with_bias(mask, bias, computing(asked))
    out, weights = (*batch, T, v.shape[-1]), (*batch, T, S)
    if enable_gqa and min(q.ndim, k.ndim) > 2 and q.shape[-3] != k.shape[-3]:
        q, k, v, mask = _in_groups(q, k, v, mask)
        batch = (*batch[:-1], *q.shape[-4:-2])
    kept = _kept(q, (*batch, T, S), p) if p else None
    attend: Any = _in_float32 if is_half(asked) else ops.attention
    y, saved = attend(q, k, v, mask, kept, **settings)
    y = _as_asked(y, out, asked)
    return (y, _as_asked(saved, weights, asked)) if return_weights else y


def attention_weights(
    q: Any, k: Any, mask: Any = None, scale: float | None = None, offset: int | None = None
) -> Any:
    """Return the probabilities softmax(scale q k^T + mask), (..., T, S).

    offset: None, or an integer: query i sees the keys j <= i + offset.
    """
    nothing: Any = k[..., :0] if hasattr(k, "_node") else k
    asked = _checked_dtype(q, k, nothing)
    mask = None if mask is None else readable_mask(_as_tensor(q, mask))
    _common_batch(q, k, k, {"mask": mask}, False)
    scale = max(q.shape[-1], 1) ** -0.5 if scale is None else _number("scale", scale)
    mask = _with_bias(mask, None, computing(asked))
    attend: Any = _in_float32 if is_half(asked) else ops.attention
    weights = attend(q, k, nothing, mask, None, scale=scale, offset=offset)[1]
    return _as_asked(weights, weights.shape, asked)


@composite(widen=True)
def _in_float32(*operands: Any, **settings: Any) -> Any:
    """The op on 16-bit operands: what it saves for backward must not be rounded to 16 bits."""
    return ops.attention(*operands, **settings)


def _edges(window: int | None, offset: int, is_causal: bool) -> dict[str, int | None]:
    """Where the keys that a query sees end and begin, as the op's settings. Without is_causal a
    window is a band that reaches as far ahead as back.
    """
    if window is None:
        return {"offset": offset if is_causal else None, "window": None}
    window = as_int(_NAME, "window", window)
    if is_causal:
        return {"offset": offset, "window": window}
    return {"offset": offset + window - 1, "window": 2 * window - 1}


def _checked_dtype(q: Any, k: Any, v: Any) -> DType:
    """The dtype of the result. Raises unless these are float tensors that fit together."""
    for x, letter in ((q, "q"), (k, "k"), (v, "v")):
        if not isinstance(x, TensorBase):
            problem, hint = (
                f"{letter} must be a Tensor, got {type(x).__name__}",
                f"Tensor({letter})",
            )
            raise DTypeError(_NAME, problem, got=type(x), wanted="Tensor", hint=hint)
        if x.dtype is not float32 and not is_float(x.dtype):
            problem, hint = f"{letter} must be of floats, got {name(x.dtype)}", f"{letter}.float()"
            raise DTypeError(_NAME, problem, got=x.dtype, wanted="a float dtype", hint=hint)
    if min(q.ndim, k.ndim, v.ndim) < 2 or k.shape[-1] != q.shape[-1] or v.shape[-2] != k.shape[-2]:
        got, wanted = (q.shape, k.shape, v.shape), "(..., T, D), (..., S, D), (..., S, E)"
        problem = f"q, k and v do not fit together, got {got}, expected {wanted}"
        raise ShapeError(_NAME, problem, got=got, wanted=wanted)
    return q.dtype if q.dtype is k.dtype is v.dtype else promote(q.dtype, k.dtype, v.dtype)


def _check_options(is_causal: Any, causal: Any, method: Any, return_weights: bool) -> None:
    if not isinstance(is_causal, bool | np.bool_):
        hint = 'is_causal=True, causal="lower_right"'
        require(False, _NAME, "is_causal", is_causal, "a bool", hint)
    if causal not in _CORNERS or method not in _METHODS:
        one_of(_NAME, "causal", causal, _CORNERS)
        one_of(_NAME, "method", method, _METHODS)
    made = method != "flash" or not return_weights
    require(made, _NAME, "method", method, '"plain" to return weights')


def _number(option: str, value: Any) -> float:
    return as_float(_NAME, option, value, -math.inf, math.inf)


def _common_batch(q: Any, k: Any, v: Any, masks: dict[str, Any], gqa: bool) -> tuple[int, ...]:
    """The leading axes that all broadcast to, heads the last of them; with groups, k and v have a
    part of the heads.
    """
    leading = [x.shape[:-2] for x in (q, k, v)]
    if leading[0] == leading[1] == leading[2] and all(x is None for x in masks.values()):
        return tuple(leading[0])
    got, hint = (q.shape, k.shape, v.shape), ""
    if min(q.ndim, k.ndim, v.ndim) > 2 and (H := q.shape[-3]) != (G := k.shape[-3]):
        if gqa and (v.shape[-3] != G or H % max(G, 1)):
            problem = f"{H} query heads do not divide into the heads of k and v, got {got}"
            raise ShapeError(_NAME, problem, got=got)
        if gqa:
            leading[1:] = [(*x.shape[:-3], H) for x in (k, v)]
        elif G and H % G == 0:
            hint = "enable_gqa=True lets query heads share a head of k and v"
    try:
        common = np.broadcast_shapes(*leading)
    except ValueError:
        wanted = "(..., H, T, D), (..., H, S, D), (..., H, S, E)"
        problem = f"the leading axes of q, k and v do not broadcast, got {got}"
        raise ShapeError(_NAME, problem, got=got, wanted=wanted, hint=hint) from None
    scores = (q.shape[-2], k.shape[-2])
    for what, x in masks.items():
        if x is not None:
            common = _broadcast_mask(what, x.shape, common, scores)
    return common


def _broadcast_mask(
    what: str, shape: tuple[int, ...], batch: tuple[int, ...], scores: tuple[int, int]
) -> tuple[int, ...]:
    """The leading axes with those of a mask. Raises MaskError unless it broadcasts to the scores."""
    try:
        full = np.broadcast_shapes((*batch, *scores), shape)
    except ValueError:
        full = ()
    if full[-2:] != scores:
        wanted = (*batch, *scores)
        problem = f"{what} {shape} does not broadcast to {wanted}"
        raise MaskError(_NAME, problem, got=shape, wanted=wanted)
    return full[:-2]


def _checked_slopes(alibi: Any, batch: tuple[int, ...]) -> tuple[float, ...]:
    slopes, heads = np.asarray(alibi), batch[-1] if batch else 1
    good = slopes.shape == (heads,) and slopes.dtype.kind in "iuf"
    require(good, _NAME, "alibi", alibi, f"{heads} heads' slopes", f"F.alibi_slopes({heads})")
    return tuple(float(slope) for slope in slopes)


def _kept(q: Any, shape: tuple[int, ...], p: float) -> Any:
    """The weights that dropout keeps. Drawn at the door, so that a recording sees it."""
    return q.__apply_primitive__(ops.kept, [default_generator.state], {"shape": shape, "p": p})


def _as_asked(y: Any, shape: tuple[int, ...], dtype: DType) -> Any:
    """y with its heads in one axis again, in the dtype of q, k and v."""
    y = y if y.shape == shape else y.reshape(shape)
    return y if y.dtype == dtype else y.cast(dtype)


def _with_bias(mask: Any, bias: Any, dtype: DType) -> Any:
    """A mask, bool or float, and a float bias as one mask; a float one gets this dtype."""
    mask, bias = (
        x if x is None or x.dtype in (bool_, dtype) else x.cast(dtype) for x in (mask, bias)
    )
    if bias is None or mask is None:
        return mask if bias is None else bias
    return ops.where(mask, bias, -math.inf) if mask.dtype == bool_ else mask + bias


def _as_tensor(like: Any, x: Any) -> Any:
    return x if isinstance(x, TensorBase) else type(like)(x)


def _checked_bias(bias: Any) -> Any:
    if not is_float(bias.dtype):
        problem, hint = f"bias must be of floats, got {name(bias.dtype)}", "attn_mask= takes bools"
        raise MaskError(_NAME, problem, got=bias.dtype, wanted="float", hint=hint)
    return bias


def readable_mask(mask: Any) -> Any:
    """Return the mask, a bool or float tensor. Raises MaskError where it is unclear whether 1 means
    "may look" or is to be added.
    """
    if mask.dtype == bool_:
        return mask
    if not is_float(mask.dtype):
        wanted, hint = "bool or float", 'mask.bool() if True (1) means "may look"'
        problem = f"a mask of {name(mask.dtype)} is ambiguous, expected {wanted}"
        raise MaskError(_NAME, problem, got=mask.dtype, wanted=wanted, hint=hint)
    # The array, and not numpy(), which a recording refuses: the values decide about an error only.
    values = cast(mask.data, computing(mask.dtype))
    if values.size > 1 and not mask.requires_grad and _is_of_zeros_and_ones(values):
        wanted = "bool or 0 and -inf"
        problem = f"a float mask of zeros and ones is ambiguous, expected {wanted}"
        hint = (
            'mask.bool() if 1 means "may look"; where(mask, -inf, 0) if 1 means "hidden"; '
            "bias=mask to add it as it is"
        )
        raise MaskError(_NAME, problem, got="0 and 1", wanted=wanted, hint=hint)
    return mask


def _is_of_zeros_and_ones(mask: Array) -> bool:
    """True if both occur and nothing else does. The first row decides for most masks."""
    for part in (mask.reshape(-1)[:64] if mask.flags.c_contiguous else mask[:1], mask):
        ones = part == 1
        if not ((part == 0) | ones).all():
            return False
    return bool(ones.any() and not ones.all())


def _in_groups(q: Any, k: Any, v: Any, mask: Any) -> tuple[Any, Any, Any, Any]:
    """Query heads in groups that share a head of k and v: the group becomes an axis,
    (..., G, H/G, T, D), that k and v broadcast over.
    """
    H, G = q.shape[-3], k.shape[-3]

    def split(x: Any) -> Any:
        if x.shape[-3] != H:
            return x.unsqueeze(-3)
        return x.reshape(*x.shape[:-3], G, H // G, *x.shape[-2:])

    grouped = mask if mask is None or mask.ndim < 3 else split(mask)
    return split(q), k.unsqueeze(-3), v.unsqueeze(-3), grouped
