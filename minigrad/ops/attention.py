"""Scaled dot-product attention as one op with one gradient.

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

from minigrad.dtypes import Array, DType
from minigrad.ops.contract import guard_matmul, swap_last
from minigrad.ops.elementwise import logical_and, not_equal, where
from minigrad.ops.fused import softmax
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
        shown = mask if mask.dtype == np.bool_ else not_equal(mask, -np.inf)
        seen = shown if seen is None else logical_and(shown, seen)
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
    """An empty array (*batch, rows of x, width). Its axes lie in memory in the order of x's, so
    that heads come together again without a copy.
    """
    shape = (*batch, x.shape[-2], width)
    if x.shape == shape and x.dtype == dtype:
        return np.empty_like(x, subok=False)
    return np.empty(shape, dtype)
