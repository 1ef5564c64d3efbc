"""Scaled dot-product attention of tensors: checks, masks, windows, groups and dropout around
`ops.attention`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from minigrad import dtypes, ops
from minigrad.arguments import as_float, as_int, one_of, require
from minigrad.dtypes import Array, DType, bool_, computing, float32, is_float
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
    dtype, shapes = _checked_operands(q, k, v)
    _check_options(is_causal, causal, method, return_weights)
    batch, T, S = _common_batch(shapes, enable_gqa), shapes[0][-2], shapes[1][-2]
    mask = None
    if attn_mask is not None or bias is not None:
        mask, batch = _one_mask(q, attn_mask, bias, (*batch, T, S), computing(dtype))
    settings: dict[str, Any] = {"scale": _scale(shapes[0][-1], scale)}
    offset = S - T if causal == "lower_right" else 0
    last = offset if is_causal else None
    if window is not None:
        window = as_int(_NAME, "window", window)
        if not is_causal:  # a band that reaches as far ahead as back
            last, window = offset + window - 1, 2 * window - 1
        settings["window"] = window
    if alibi is not None:
        settings.update(slopes=_checked_slopes(alibi, batch), center=offset)
    large = math.prod(batch) * T * S * computing(dtype).itemsize >= FLASH_BYTES
    if method == "flash" or (large and method == "auto" and not return_weights):
        settings["tiled"] = True
    p = 0.0 if dropout_p == 0.0 else as_float(_NAME, "dropout_p", dropout_p, 0, 1)
    y, saved = _attend((q, k, v, mask, last), settings, batch, enable_gqa, p)
    y = _as_asked(y, (*batch, T, shapes[2][-1]), dtype)
    return (y, _as_asked(saved, (*batch, T, S), dtype)) if return_weights else y


def _attend(operands: Any, settings: Any, batch: Any, gqa: bool, p: float) -> Any:
    """The op's results. With gqa, query heads that share a head of k and v become an axis of their
    own, (..., G, H/G, T, D), that k and v broadcast over.
    """
    q, k, v, mask, last = operands
    if gqa and q.ndim > 2 and (H := q.shape[-3]) != (G := k.shape[-3]):
        split, batch = (G, H // G), (*batch[:-1], G, H // G)
        q, k, v = q.reshape(*q.shape[:-3], *split, *q.shape[-2:]), k.unsqueeze(-3), v.unsqueeze(-3)
        if mask is not None and mask.ndim > 2:
            split = split if mask.shape[-3] == H else (1, 1)
            mask = mask.reshape(*mask.shape[:-3], *split, *mask.shape[-2:])
    kept = None
    if p:  # drawn at the door, so that a recording sees it
        drawing = {"shape": (*batch, q.shape[-2], k.shape[-2]), "p": p}
        kept = q.__apply_primitive__(ops.kept, [default_generator.state], drawing)
        settings["factor"] = 1 / (1 - p) if p < 1 else 0.0
    further = () if mask is kept is last is None else (mask, kept, last)
    return _in_float32(q, k, v, *further, **settings)


# What it saves for backward must not be rounded to 16 bits.
_in_float32: Any = composite(widen=True)(ops.attention)


def _checked_operands(q: Any, k: Any, v: Any) -> tuple[DType, Any]:
    """The dtype of the result, and the shapes. Raises unless these are float tensors that fit
    together.
    """
    for x, letter in ((q, "q"), (k, "k"), (v, "v")):
        if not isinstance(x, TensorBase):
            problem = f"{letter} must be a Tensor, got {type(x).__name__}"
            raise DTypeError(_NAME, problem, got=type(x), wanted="Tensor", hint=f"Tensor({letter})")
        if x.dtype is not float32 and not is_float(x.dtype):
            problem = f"{letter} must be of floats, got {dtypes.name(x.dtype)}"
            hint = f"{letter}.float()"
            raise DTypeError(_NAME, problem, got=x.dtype, wanted="a float dtype", hint=hint)
    one, two, three = shapes = (q.shape, k.shape, v.shape)
    if min(map(len, shapes)) < 2 or two[-1] != one[-1] or three[-2] != two[-2]:
        wanted = "(..., T, D), (..., S, D), (..., S, E)"
        problem = f"q, k and v do not fit together, got {shapes}, expected {wanted}"
        raise ShapeError(_NAME, problem, got=shapes, wanted=wanted)
    dtype = q.dtype if q.dtype is k.dtype is v.dtype else dtypes.promote(q.dtype, k.dtype, v.dtype)
    return dtype, shapes


def _check_options(is_causal: Any, causal: Any, method: Any, return_weights: bool) -> None:
    hint = 'is_causal=True, causal="lower_right"'
    good = isinstance(is_causal, (bool, np.bool_))
    require(good, _NAME, "is_causal", is_causal, "a bool", hint)
    one_of(_NAME, "causal", causal, _CORNERS)
    one_of(_NAME, "method", method, _METHODS)
    good = not (method == "flash" and return_weights)
    require(good, _NAME, "method", method, '"plain" to return weights')


def _scale(D: int, scale: Any) -> float:
    if scale is None:
        return float(max(D, 1) ** -0.5)
    return as_float(_NAME, "scale", scale, -math.inf, math.inf)


def _common_batch(shapes: Any, gqa: bool) -> tuple[int, ...]:
    """The leading axes that q, k and v broadcast to, heads the last of them; with groups, k and v
    have a part of the heads.
    """
    leading = [x[:-2] for x in shapes]
    if leading[0] == leading[1] == leading[2]:
        return tuple(leading[0])
    (q, k, v), hint = shapes, ""
    if min(map(len, leading)) > 0 and (H := q[-3]) != (G := k[-3]):
        divides = H % max(G, 1) == 0
        if gqa and (v[-3] != G or not divides):
            problem = f"{H} query heads do not divide into the heads of k and v, got {shapes}"
            raise ShapeError(_NAME, problem, got=shapes)
        if gqa:
            leading[1:] = [(*x[:-3], H) for x in (k, v)]
        elif divides:
            hint = "enable_gqa=True lets query heads share a head of k and v"
    try:
        return np.broadcast_shapes(*leading)
    except ValueError:
        wanted = "(..., H, T, D), (..., H, S, D), (..., H, S, E)"
        problem = f"the leading axes of q, k and v do not broadcast, got {shapes}"
        raise ShapeError(_NAME, problem, got=shapes, wanted=wanted, hint=hint) from None


def _one_mask(
    q: Any, mask: Any, bias: Any, shape: tuple[int, ...], dtype: DType
) -> tuple[Any, tuple[int, ...]]:
    """A mask and a bias as one mask, bool or of this dtype, and the leading axes of the scores,
    (..., T, S), with its own. Raises MaskError unless both are readable and broadcast to the shape.
    """
    given = {}
    for what, x in (("mask", mask), ("bias", bias)):
        if x is None:
            continue
        x = x if isinstance(x, TensorBase) else q._wrap(np.array(x))
        x = readable_mask(x) if what == "mask" else _checked_bias(x)
        try:
            full = np.broadcast_shapes(shape, x.shape)
        except ValueError:
            full = ()
        if full[-2:] != shape[-2:]:
            problem = f"{what} {x.shape} does not broadcast to {shape}"
            raise MaskError(_NAME, problem, got=x.shape, wanted=shape)
        shape = full
        given[what] = x if x.dtype in (bool_, dtype) else x.cast(dtype)
    if len(given) == 1:
        return next(iter(given.values())), shape[:-2]
    mask, bias = given["mask"], given["bias"]
    both = ops.where(mask, bias, -math.inf) if mask.dtype == bool_ else mask + bias
    return both, shape[:-2]


def _checked_slopes(alibi: Any, batch: tuple[int, ...]) -> tuple[float, ...]:
    slopes, heads = np.asarray(alibi), batch[-1] if batch else 1
    good = slopes.shape == (heads,) and slopes.dtype.kind in "iuf"
    require(good, _NAME, "alibi", alibi, f"{heads} heads' slopes", f"F.alibi_slopes({heads})")
    return tuple(float(slope) for slope in slopes)


def _as_asked(y: Any, shape: tuple[int, ...], dtype: DType) -> Any:
    """y with its heads in one axis again, in the dtype of q, k and v."""
    y = y if y.shape == shape else y.reshape(shape)
    return y if y.dtype == dtype else y.cast(dtype)


def _checked_bias(bias: Any) -> Any:
    if not is_float(bias.dtype):
        problem = f"bias must be of floats, got {dtypes.name(bias.dtype)}; attn_mask= takes bools"
        raise MaskError(_NAME, problem, got=bias.dtype, wanted="float")
    return bias


def readable_mask(mask: Any) -> Any:
    """Return the mask, a bool or float tensor. Raises MaskError where it is unclear whether 1 means
    "may look" or is to be added.
    """
    if mask.dtype == bool_:
        return mask
    if not is_float(mask.dtype):
        wanted, hint = "bool or float", 'mask.bool() if True (1) means "may look"'
        problem = f"a mask of {dtypes.name(mask.dtype)} is ambiguous, expected {wanted}"
        raise MaskError(_NAME, problem, got=mask.dtype, wanted=wanted, hint=hint)
    # The array, and not numpy(), which a recording refuses: the values decide about an error only.
    values = dtypes.cast(mask.data, computing(mask.dtype))
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
