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
        o = _product_of_seen(p, v, hidden)
    return o, p


def hidden_keys(mask: Array | None, offset: int | None, T: int, S: int) -> Array | None:
    """The keys that may not be looked at, as a bool array broadcasting to (..., T, S); None where all may."""
    hidden = None if offset is None or (T == 1 and offset >= S - 1) else ~np.tri(T, S, offset, dtype=np.bool_)
    if mask is not None:
        blind = ~mask if mask.dtype == np.bool_ else mask == -np.inf
        hidden = blind if hidden is None else hidden | blind
    return hidden


def _product_of_seen(p: Array, v: Array, hidden: Array | None) -> Array:
    """p v where v holds NaN or inf: each query's sum runs over the keys it may see, so that 0 * NaN from behind the mask does not count."""
    if hidden is None:
        return np.matmul(p, v)
    seen = np.broadcast_to(~hidden, p.shape)
    batch = np.broadcast_shapes(p.shape[:-2], v.shape[:-2])
    p, seen, v = (np.broadcast_to(a, batch + a.shape[-2:]) for a in (p, seen, v))
    o = np.empty((*p.shape[:-1], v.shape[-1]), p.dtype)
    for row in np.ndindex(p.shape[:-1]):
        keys = seen[row]
        o[row] = p[row][keys] @ v[row[:-1]][keys]
    return o


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
    """`attention_grad` query by query, for values that are not finite: a query that nobody asks for (g = 0) or a key with no weight adds nothing,
    not even 0 * NaN."""
    batch = p.shape[:-2]
    g, q, k, v = (np.broadcast_to(a, batch + a.shape[-2:]) for a in (g, q, k, v))
    gq, gk, gv, gm = (np.zeros(a.shape, p.dtype) for a in (q, k, v, p))
    for row in np.ndindex(p.shape[:-1]):
        if not g[row].any():
            continue
        b, keys = row[:-1], np.flatnonzero(p[row])
        weights = p[row][keys]
        dp = v[b][keys] @ g[row]
        ds = weights * (dp - weights @ dp)
        gm[row][keys] = ds
        gq[row] = scale * (ds @ k[b][keys])
        gk[b][keys] += scale * ds[:, None] * q[row]
        gv[b][keys] += weights[:, None] * g[row]
    return gq, gk, gv, gm
