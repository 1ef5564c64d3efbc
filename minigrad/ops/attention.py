"""Scaled dot-product attention as one op with one gradient; and what its operands go through: heads
in and out of one row, rotary positions, and a cache of fixed size.

    P = softmax(scale q k^T + mask)      o = (P kept) v
    dv = (P kept)^T do      dP = (do v^T) kept      dS = P (dP - rowsum(dP P))
    dq = scale dS k         dk = scale dS^T q

Dropout is the operand `kept`, a cache's length the operand `offset`. Plain attention saves P for
backward; tiled attention saves two numbers per query and makes P again. `tiles.py` has the numpy
code of both.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.arguments import fits
from minigrad.dtypes import Array, DType, cast
from minigrad.errors import CacheError, CacheGradientError
from minigrad.ops.contract import guard_matmul, swap_last
from minigrad.ops.elementwise import where, zeros_like
from minigrad.ops.fused import softmax
from minigrad.ops.movement import permute, reshape
from minigrad.ops.tiles import Operands, backward, forward, per_head
from minigrad.primitive import primitive


@primitive(kind="contract", outputs=2)
def attention(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None = None,
    kept: Array | None = None,
    offset: Any = None,
    *,
    scale: float,
    window: int | None = None,
    slopes: tuple[float, ...] | None = None,
    center: int | None = None,
    factor: float = 1.0,
    tiled: bool = False,
) -> tuple[Array, Array]:
    """Return (P * kept * factor) v with P = softmax(scale q k^T + mask + bias), and what is saved.

    q: (..., T, D)   k: (..., S, D)   v: (..., S, E)   ->   (..., T, E), and P, (..., T, S)
    mask: bool, True where a query may look, or float, added to the scores; broadcasts to
        (..., T, S).   kept: bool, (..., T, S), the weights that dropout keeps.
    offset: None, or an integer (0-d): query i sees the keys j <= i + offset.
    window: query i sees only keys j > i + offset - window.   slopes: adds -slope |i + center - j|
        (ALiBi), one slope per head: the axis before T, or two axes of groups.   center: the offset
        unless given. No offset counts as 0 here.
    tiled: make the scores in tiles, so that memory grows with T and not with T S. The second result
        is then (..., T, 2), a shift m and the sum of exp(score - m) per query, without a gradient.

    A query that sees nothing gives zeros. Hidden keys have no influence, not even NaN and inf.
    """
    x = Operands(q, k, v, mask, kept, offset, scale, window, slopes, center, factor, tiled)
    batch, T = x.q.shape[:-2], q.shape[-2]
    x.o = _rows_like(q, batch, v.shape[-1], x.q.dtype)
    x.saved = np.empty((*batch, T, 2 if tiled else k.shape[-2]), x.q.dtype)
    forward(x)
    return x.o, x.saved


@attention.vjp
def _(g, y, q, k, v, mask=None, kept=None, offset=None, *, needs, **params):
    params["mask_grad"] = bool(mask is not None and needs[3])
    return attention_grad(g[0], g[1], *y, q, k, v, mask, kept, offset, **params)


@attention.composed
def _(q, k, v, mask=None, kept=None, offset=None, *, scale, window=None, slopes=None, **how):
    T, S = q.shape[-2], k.shape[-2]
    s, center = guard_matmul(q, swap_last(k)) * scale, how.get("center")
    past = np.arange(T)[:, None] + int(offset or 0) - np.arange(S)  # of each key, (T, S)
    if slopes is not None:
        away = past if center is None else past + (center - int(offset or 0))
        s = s - per_head(slopes, s.shape[:-2], s.dtype) * np.abs(away).astype(s.dtype)
    seen = None if offset is None else past >= 0
    if window is not None:
        seen = past < window if seen is None else seen & (past < window)
    if mask is not None:
        s = s if mask.dtype == np.bool_ else s + mask
        shown = mask if mask.dtype == np.bool_ else mask != -np.inf
        seen = shown if seen is None else shown & seen
    if seen is None:
        p = softmax(s, axis=-1)
    else:
        p = where(seen, softmax(where(seen, s, -np.inf), axis=-1), 0)
    return guard_matmul(p if kept is None else p * kept * how.get("factor", 1.0), v), p


@primitive(kind="contract", outputs=4)
def attention_grad(
    g: Array | None,
    gp: Array | None,
    o: Array,
    saved: Array,
    q: Array,
    k: Array,
    v: Array,
    *more: Any,
    mask_grad: bool = False,
    **how: Any,
) -> tuple[Array, Array, Array, Array | None]:
    """Return the cotangents of q, k, v and, with mask_grad, of the scores, which the mask's is the
    sum of.

    g, gp: the cotangents of o and of P, either may be None.   o, saved: the results of `attention`.
        more, how: its other operands and params.
    """
    x = Operands(q, k, v, *more, **how)
    batch, dtype = x.q.shape[:-2], x.q.dtype
    x.g, x.gp, x.o, x.saved = g, None if x.tiled else gp, o, saved
    x.gq, x.gk, x.gv = (_rows_like(y, batch, y.shape[-1], dtype) for y in (q, k, v))
    x.gs = np.empty((*batch, q.shape[-2], k.shape[-2]), dtype) if mask_grad else None
    backward(x)
    return x.gq, x.gk, x.gv, x.gs


def _rows_like(x: Array, batch: tuple[int, ...], width: int, dtype: DType) -> Array:
    """An empty array (*batch, rows of x, width). Its axes are stored in the order of x's, so
    that heads come together again without a copy.
    """
    shape = (*batch, x.shape[-2], width)
    if x.shape == shape and x.dtype == dtype:
        return np.empty_like(x, subok=False)
    return np.empty(shape, dtype)


# --- heads: views and copies that would be five ops, and in backward ten, if composed


@primitive(kind="view", outputs=3)
def split_heads(qkv: Array, *, n_head: int) -> tuple[Array, Array, Array]:
    """q, k and v of each head from their common product: (B, T, 3 C) -> three views (B, H, T, D)
    with H D = C.
    """
    B, T, C3 = qkv.shape
    problem = f"{C3} features do not split into 3 times {n_head} heads"
    fits(C3 % (3 * n_head) == 0, "split_heads", problem, C3)
    heads = qkv.reshape(B, T, 3, n_head, C3 // (3 * n_head))
    q, k, v = heads.transpose(2, 0, 3, 1, 4)  # each (B, H, T, D)
    return q, k, v


@split_heads.vjp
def _(g, _y, _qkv, *, n_head):
    some = next(part for part in g if part is not None)
    return (join_heads(*(zeros_like(some) if part is None else part for part in g)),)


@primitive(kind="gather", dtype="same")
def join_heads(q: Array, k: Array, v: Array) -> Array:
    """The transpose of `split_heads`: three of (B, H, T, D) -> (B, T, 3 H D)."""
    B, H, T, D = q.shape
    y = np.empty((B, T, 3 * H * D), q.dtype)
    for place, part in _in_rows(y, q, k, v):
        place[...] = part
    return y


def _in_rows(y: Array, *xs: Array) -> Any:
    """The places of n operands (B, H, T, D) in y, (B, T, n H D)."""
    B, H, T, D = xs[0].shape
    return list(zip(y.reshape(B, T, len(xs), H, D).transpose(2, 0, 3, 1, 4), xs, strict=True))


join_heads.parts = _in_rows


@join_heads.vjp
def _(g, _y, _q, _k, _v):
    return split_heads(g, n_head=_q.shape[1])


@primitive(kind="gather")
def merge_heads(x: Array) -> Array:
    """The heads of each position side by side: (B, H, T, D) -> (B, T, H D)."""
    B, H, T, D = x.shape
    # A copy, also of one head or one position, where reshape alone would give a view
    return np.array(x.transpose(0, 2, 1, 3), order="C").reshape(B, T, H * D)


merge_heads.parts = _in_rows


@merge_heads.vjp
def _(g, _y, _x):
    B, H, T, D = _x.shape
    return (permute(reshape(g, shape=(B, T, H, D)), order=(0, 2, 1, 3)),)


# --- rotary positions: pairs of features turned by angles that grow with the position. From Su et
# al. 2021, arXiv:2104.09864


@primitive(kind="reduce")
def rope(x: Array, cos: Array, sin: Array, *, interleaved: bool = False) -> Array:
    """Turn the pairs (a, b) of features into (a cos - b sin, b cos + a sin).

    x: (..., T, D)   cos, sin: (T, R/2), or with leading axes that broadcast to x's, R <= D;
        features from R on stay as they are.
    interleaved: pairs are (0, 1), (2, 3), ...; else (0, R/2), (1, R/2 + 1), ...   The angles are
        constants: no gradient flows into them.
    """
    half = cos.shape[-1]
    good = cos.shape == sin.shape and 2 * half <= x.shape[-1] and cos.ndim >= 2
    problem = f"x {x.shape} does not fit cos {cos.shape} and sin {sin.shape}"
    fits(good and cos.shape[-2] in (1, x.shape[-2]), "rope", problem, (cos.shape, sin.shape))
    cos, sin = (table.astype(x.dtype, copy=False) for table in (cos, sin))
    y = np.empty_like(x, subok=False)
    first, second = slice(0, half), slice(half, 2 * half)
    if interleaved:
        first, second = slice(0, 2 * half, 2), slice(1, 2 * half, 2)
    a, b = x[..., first], x[..., second]
    turned = np.multiply(a, cos, out=y[..., first])
    turned -= b * sin
    turned = np.multiply(b, cos, out=y[..., second])
    turned += a * sin
    y[..., 2 * half :] = x[..., 2 * half :]
    return y


@rope.vjp
def _(g, _y, _x, cos, sin, *, interleaved=False):
    return rope(g, cos, -sin, interleaved=interleaved), None, None


# --- a cache of fixed size, whose length is an operand: a recorded call does not depend on it


@primitive(kind="effect")
def append_(cache: Array, new: Array, length: Array) -> None:
    """Write `new`, (B, H, T, D), to the positions length .. length + T - 1 of `cache`,
    (B, H, capacity, D), of any strides.

    length: 0-d, integer. Raises CacheError if there is no room.
    """
    start = int(length)
    stop = start + new.shape[2]
    if start < 0 or stop > cache.shape[2]:
        problem = f"positions {start} to {stop - 1} in a cache for {cache.shape[2]}"
        raise CacheError("append_", problem, got=stop, wanted=cache.shape[2])
    cache[:, :, start:stop] = cast(new, cache.dtype)


append_.written = lambda _cache, new, length: np.s_[:, :, int(length) : int(length) + new.shape[2]]


@primitive(kind="view")
def through_cache(y: Array, *sources: Array) -> Array:
    """Return y, which a KV cache made from the `sources` without recording anything for backward.

    A backward pass that reaches it raises CacheGradientError. A cotangent of zero would be silently
    wrong.
    """
    return y[...]


@through_cache.vjp
def _(_g, _y, _result, *_sources):
    got, wanted = "a result computed with a cache", "a forward pass without a cache"
    hint = "leave out cache= (or call disable_kv_cache()) to train; a cache is for generation"
    problem = "no gradient flows through a KV cache"
    raise CacheGradientError("backward", problem, got=got, wanted=wanted, hint=hint)
