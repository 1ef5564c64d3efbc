"""Scaled dot-product attention as one op: scores, mask and softmax in one buffer.

    P = softmax(scale q k^T + mask)      o = P v
    dv = P^T do      dP = do v^T      dS = P (dP - rowsum(dP P))      dq = scale dS k      dk = scale dS^T q
"""

from __future__ import annotations

import numpy as np

from minigrad.dtypes import Array
from minigrad.ops.contract import matmul, swap_last
from minigrad.ops.elementwise import quiet, where
from minigrad.ops.fused import row_sums, softmax, softmax_in_place
from minigrad.ops.masks import causal_masks
from minigrad.primitive import primitive


@primitive(kind="contract", dtype="same", outputs=2)
@quiet
def attention(q: Array, k: Array, v: Array, mask: Array | None = None, *, scale: float, offset: int | None = None) -> tuple[Array, Array]:
    """softmax(scale q k^T + mask) v, and the probabilities.

    q: (..., T, D)   k: (..., S, D)   v: (..., S, E)   mask: bool (True: may look) or float (added), broadcasting to (..., T, S)
    offset: None, or the causal shift: query i sees the keys j <= i + offset.   ->   (..., T, E), (..., T, S)
    A row that sees nothing gives zeros. What stands behind the mask, NaN and inf too, has no influence.
    """
    p = np.matmul(q, k.swapaxes(-1, -2))
    p *= p.dtype.type(scale)
    hidden = hidden_keys(mask, offset, p.shape[-2], p.shape[-1])
    if mask is not None and mask.dtype != np.bool_:
        p += mask
    if hidden is not None:
        np.copyto(p, -np.inf, where=hidden)
    softmax_in_place(p)
    o = np.matmul(p, v)
    if not np.isfinite(o).all():
        o = _product_of_seen(p, v, np.True_ if hidden is None else ~hidden)
    return o, p


def hidden_keys(mask: Array | None, offset: int | None, T: int, S: int) -> Array | None:
    """The keys that may not be looked at, as a bool array broadcasting to (..., T, S); None where all may."""
    hidden = None if offset is None or (T == 1 and offset >= S - 1) else causal_masks.hidden(T, S, offset)
    if mask is not None:
        blind = ~mask if mask.dtype == np.bool_ else mask == -np.inf
        hidden = blind if hidden is None else hidden | blind
    return hidden


def _product_of_seen(weights: Array, x: Array, seen: Array | np.bool_) -> Array:
    """weights x, where the NaN and inf of x count in the rows that see them and nowhere else: 0 * NaN from behind a mask is 0.

    weights: (..., T, S)   x: (..., S, E)   seen: bool, broadcasting to (..., T, S)
    What is finite goes through one product, as it always does, so that hidden values do not change the others by so much as a rounding.
    """
    finite = np.isfinite(x)
    y = np.matmul(weights, np.where(finite, x, 0))
    odd = np.where(finite, 0, x)
    seen = np.broadcast_to(seen, weights.shape)
    for j in np.flatnonzero(~finite.all(axis=(*range(x.ndim - 2), x.ndim - 1))):
        y += np.where(seen[..., j, None], weights[..., j, None] * odd[..., j : j + 1, :], 0)
    return y


@attention.vjp
def _(g, y, q, k, v, mask=None, *, scale, offset=None):
    gq, gk, gv, gm = attention_grad(g[0], q, k, v, y[1], mask, scale=scale, offset=offset)
    return (gq, gk, gv) if mask is None else (gq, gk, gv, gm if mask.dtype != np.bool_ else None)


@attention.composed
def _(q, k, v, mask=None, *, scale, offset=None):
    s = matmul(q, swap_last(k)) * scale
    if mask is not None:
        s = where(mask, s, -np.inf) if mask.dtype == np.bool_ else s + mask
    if offset is not None:
        s = where(np.tri(s.shape[-2], s.shape[-1], offset, dtype=np.bool_), s, -np.inf)
    return matmul(softmax(s, axis=-1), v)


@primitive(kind="contract", outputs=4)
@quiet
def attention_grad(
    g: Array, q: Array, k: Array, v: Array, p: Array, mask: Array | None, *, scale: float, offset: int | None
) -> tuple[Array, Array, Array, Array]:
    """The cotangents of q, k, v and of a float mask (dS before scaling), from the probabilities p. See the module's formulas."""
    ds = np.matmul(g, v.swapaxes(-1, -2))
    ds *= p
    ds -= row_sums(ds) * p
    gm = ds if mask is None or mask.dtype == np.bool_ else ds.copy()
    ds *= ds.dtype.type(scale)
    grads = np.matmul(ds, k), np.matmul(ds.swapaxes(-1, -2), q), np.matmul(p.swapaxes(-1, -2), g), gm
    if all(np.isfinite(a).all() for a in grads[:3]):
        return grads
    return _grads_of_seen(g, q, k, v, p, scale)


def _grads_of_seen(g: Array, q: Array, k: Array, v: Array, p: Array, scale: float) -> tuple[Array, Array, Array, Array]:
    """`attention_grad` where something is not finite: a query that nobody asks for (g = 0) and a key without weight add 0, not 0 * NaN."""
    p = np.where((g != 0).any(axis=-1, keepdims=True), p, 0)
    seen = p != 0
    ds = np.where(seen, np.matmul(g, v.swapaxes(-1, -2)) * p, 0)
    gm = np.where(seen, ds - row_sums(ds) * p, 0)
    ds = gm * p.dtype.type(scale)
    back = seen.swapaxes(-1, -2)
    gq, gk = _product_of_seen(ds, k, seen), _product_of_seen(ds.swapaxes(-1, -2), q, back)
    return gq, gk, _product_of_seen(p.swapaxes(-1, -2), g, back), gm
