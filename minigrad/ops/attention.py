"""Scaled dot-product attention as one op: scores, mask and softmax in one buffer.

    P = softmax(scale q k^T + mask)      o = P v
    dv = P^T do      dP = do v^T      dS = P (dP - rowsum(dP P))      dq = scale dS k      dk =
    scale dS^T q

Three things make it fast. Under causality the rows go in blocks, each as wide as its last row sees.
The mask is added, not selected, and the
softmax first tries without its maximum: exp(s) / sum(exp(s)) has all its digits as long as the sum
    is neither huge nor tiny. And what is not
finite is mended afterwards, where it shows: rows out of range get their maximum taken out; products
that NaN or inf from behind the mask has got into (0 * NaN) are done again without it. Each row is
mended by what it sees itself, so that the others keep their bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.ops.contract import guard_matmul, swap_last
from minigrad.ops.elementwise import logical_and, not_equal, quiet, where
from minigrad.ops.fused import softmax, softmax_in_place
from minigrad.ops.masks import causal_masks
from minigrad.ops.parallel import for_each
from minigrad.ops.reduce import ones_column
from minigrad.primitive import primitive

_ROWS = 64  # queries in a causal block
_PARALLEL = 1 << 20  # scores from which threads pay: waking one costs 0.1 ms
_TINY, _HUGE = (
    1e-18,
    1e30,
)  # between these a sum of exp(s) has lost nothing to underflow or overflow, in float32 either


@primitive(kind="contract", dtype="same", outputs=2)
@quiet
def attention(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None = None,
    *,
    scale: float,
    offset: int | None = None,
) -> tuple[Array, Array]:
    """softmax(scale q k^T + mask) v, and the probabilities.

    q: (..., T, D)   k: (..., S, D)   v: (..., S, E)   mask: bool (True: may look) or float (added),
        broadcasting to (..., T, S)
    offset: None, or the causal shift: query i sees the keys j <= i + offset.   ->   (..., T, E),
        (..., T, S)
    A row that sees nothing gives zeros. What stands behind the mask, NaN and inf too, has no
    influence.
    """
    return attend(q, k, v, None, mask, scale, offset)


def attend(
    q: Array,
    k: Array,
    v: Array,
    factors: Array | None,
    mask: Array | None,
    scale: float,
    offset: int | None,
) -> tuple[Array, Array]:
    """(P * factors) v and P; see `attention`. factors: those of dropout, of P's shape, or None."""
    batch = common_batch(q, k, v, mask)
    p = np.empty((*batch, q.shape[-2], k.shape[-2]), q.dtype)
    o = rows_like(q, batch, v.shape[-1])
    for_each_part(_attend, p.size, (q, k, v, factors, mask, p, o), scale, offset)
    return o, p


def common_batch(*operands: Array | None) -> tuple[int, ...]:
    """The leading axes, all but two, that the operands broadcast to."""
    shapes = {x.shape[:-2] for x in operands if x is not None}
    return shapes.pop() if len(shapes) == 1 else np.broadcast_shapes(*shapes)


def rows_like(x: Array, batch: tuple[int, ...], width: int) -> Array:
    """An empty array (*batch, rows of x, width) whose axes lie in memory in the order of x's, so
    that heads come together again without a copy.
    """
    shape = (*batch, x.shape[-2], width)
    if x.shape == shape:
        return np.empty_like(x, subok=False)
    return np.empty(shape, x.dtype)


def for_each_part(work: Any, size: int, arrays: tuple[Array | None, ...], *settings: Any) -> None:
    """work(*arrays, *settings), by threads in parts of the first batch axis that can be cut, if
    `size` is worth it.
    """
    if size >= _PARALLEL:
        ndim = max(x.ndim for x in arrays if x is not None)
        sizes = [
            max(x.shape[axis] for x in arrays if x is not None and x.ndim >= -axis)
            for axis in range(-ndim, -2)
        ]
        axis = next((i - ndim for i, n in enumerate(sizes) if n > 1), None)
        if axis is not None:
            parts = [tuple(part_of(x, axis, i) for x in arrays) for i in range(sizes[axis + ndim])]
            for_each(lambda part: quiet(work)(*part, *settings), parts)
            return
    work(*arrays, *settings)


def part_of(x: Array | None, axis: int, i: int) -> Array | None:
    """Row i of x along a negative axis, kept as size 1; x itself where it broadcasts there."""
    if x is None or x.ndim < -axis or x.shape[axis] == 1:
        return x
    index: Any = (..., slice(i, i + 1), *(slice(None),) * (-axis - 1))
    return x[index]


def blocks(T: int, S: int, offset: int | None) -> list[tuple[int, int, int]]:
    """Blocks of queries as (first, last + 1, how many keys they see)."""
    if offset is None or T == 1:
        return [(0, T, S if offset is None else min(S, max(0, 1 + offset)))]
    return [
        (a, b, min(S, max(0, b + offset)))
        for a in range(0, max(T, 1), _ROWS)
        for b in (min(a + _ROWS, T),)
    ]


def _attend(
    q: Array,
    k: Array,
    v: Array,
    factors: Array | None,
    mask: Array | None,
    p: Array,
    o: Array,
    scale: float,
    offset: int | None,
) -> None:
    """Fill p and o."""
    T, S = p.shape[-2:]
    q = q * q.dtype.type(scale)
    added = added_mask(mask, q.dtype)
    for a, b, seen in blocks(T, S, offset):
        s = p[..., a:b, :seen]
        p[..., a:b, seen:] = 0
        np.matmul(q[..., a:b, :], k[..., :seen, :].swapaxes(-1, -2), out=s)
        if added is not None:
            s += window(added, a, b, 0, seen)
        _hide_later(s, a, offset)
        np.exp(s, out=s)
        total = np.matmul(s, ones_column(seen, s.dtype))
        good = (total > _TINY) & (total < _HUGE)
        if good.all():
            s /= total
        else:
            _mend(s, q[..., a:b, :], k[..., :seen, :], added, _hidden(mask, a, b, seen, offset), a)
        out = o[..., a:b, :]
        if factors is not None:
            s = s * factors[..., a:b, :seen]
        np.matmul(s, v[..., :seen, :], out=out)
        if not np.isfinite(out).all():
            hidden = _hidden(mask, a, b, seen, offset)
            out[...] = product_of_present(s, v[..., :seen, :], None if hidden is None else ~hidden)


def added_mask(mask: Array | None, dtype: Any) -> Array | None:
    """The mask as numbers to add to the scores: a bool mask becomes 0 and -inf."""
    if mask is None or mask.dtype != np.bool_:
        return mask
    return np.where(mask, dtype.type(0), dtype.type(-np.inf))


def window(x: Array, a: int, b: int, c: int, d: int) -> Array:
    """x[..., a:b, c:d] of an array that may broadcast along its last two axes."""
    rows = slice(a, b) if x.ndim > 1 and x.shape[-2] != 1 else slice(None)
    columns = slice(c, d) if x.ndim and x.shape[-1] != 1 else slice(None)
    return x[..., rows, columns] if x.ndim > 1 else x[..., columns] if x.ndim else x


def _hide_later(s: Array, a: int, offset: int | None) -> None:
    """Add -inf to the scores of queries a, a+1, ... where the key is later than query + offset."""
    columns = s.shape[-1]
    if offset is not None and a + offset + 1 < columns:
        first = max(a + offset + 1, 0)  # the columns before this are seen by all
        tail = s[..., first:]
        tail += causal_masks.added(s.shape[-2], columns - first, a + offset - first)


def _hidden(mask: Array | None, a: int, b: int, seen: int, offset: int | None) -> Array | None:
    """Which of the keys 0..seen the queries a..b may not look at, as bool; None if they may at all."""
    hidden = None if offset is None else causal_masks.hidden(b - a, seen, a + offset)
    if mask is not None:
        part = window(mask, a, b, 0, seen)
        blind = ~part if mask.dtype == np.bool_ else part == -np.inf
        hidden = blind if hidden is None else hidden | blind
    return hidden


def _mend(s: Array, q: Array, k: Array, added: Array | None, hidden: Array | None, a: int) -> None:
    """Write the probabilities over s where some rows' sums are out of range: those rows get their
    maximum taken out, the others are as before.
    """
    scores = np.matmul(q, k.swapaxes(-1, -2))
    if added is not None:
        scores += window(added, a, a + s.shape[-2], 0, s.shape[-1])
    if hidden is not None:
        np.copyto(scores, -np.inf, where=hidden)
    np.exp(scores, out=s)
    total = np.matmul(s, ones_column(s.shape[-1], s.dtype))
    good = (total > _TINY) & (total < _HUGE)
    s /= np.where(good, total, 1)
    np.copyto(s, softmax_in_place(scores), where=~good)
    if hidden is not None:
        np.copyto(s, 0, where=hidden)  # In a row of NaN, too, a hidden key has no weight.


def product_of_present(a: Array, b: Array, present: Array | None) -> Array:
    """a b, in which only the elements of a that are `present` meet NaN and inf in b: an absent one
    stands for nothing, not for 0 * NaN.

    Where all that a row meets is finite, the result is that of a b with finite b, to the bit.
    """
    finite = np.isfinite(b)
    y = np.matmul(a, np.where(finite, b, 0))
    if finite.all():
        return y
    shown = np.ones(a.shape, np.bool_) if present is None else np.broadcast_to(present, a.shape)
    nothing = shown & (a == 0)
    up, down = (
        np.matmul((shown & (a > 0)).astype(a.dtype), (b == x).astype(a.dtype))
        for x in (np.inf, -np.inf)
    )
    up_too, down_too = (
        np.matmul((shown & (a < 0)).astype(a.dtype), (b == x).astype(a.dtype))
        for x in (-np.inf, np.inf)
    )
    lost = np.matmul(shown.astype(a.dtype), np.isnan(b).astype(a.dtype)) + np.matmul(
        nothing.astype(a.dtype), np.isinf(b).astype(a.dtype)
    )
    y += np.where(up + up_too > 0, np.inf, 0)
    y += np.where(down + down_too > 0, -np.inf, 0)
    y += np.where(lost > 0, np.nan, 0)
    return y


@attention.vjp
def _(g, y, q, k, v, mask=None, *, scale, offset=None):
    gq, gk, gv, gm = attention_grad(g[0], q, k, v, y[1], mask, scale=scale, offset=offset)
    return (gq, gk, gv) if mask is None else (gq, gk, gv, gm if mask.dtype != np.bool_ else None)


@attention.composed
def _(q, k, v, mask=None, *, scale, offset=None):
    return guard_matmul(composed_weights(q, k, mask, scale, offset), v)


def composed_weights(q: Any, k: Any, mask: Any, scale: float, offset: int | None) -> Any:
    """softmax(scale q k^T + mask) made of simple ops, in which what is hidden has no influence
    either.
    """
    s = guard_matmul(q, swap_last(k)) * scale
    seen = None if offset is None else np.tri(s.shape[-2], s.shape[-1], offset, dtype=np.bool_)
    if mask is not None:
        s = s if mask.dtype == np.bool_ else s + mask
        shown = mask if mask.dtype == np.bool_ else not_equal(mask, -np.inf)
        seen = shown if seen is None else logical_and(shown, seen)
    if seen is None:
        return softmax(s, axis=-1)
    return where(seen, softmax(where(seen, s, -np.inf), axis=-1), 0)


@primitive(kind="contract", outputs=4)
@quiet
def attention_grad(
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    p: Array,
    mask: Array | None,
    *,
    scale: float,
    offset: int | None,
) -> tuple[Array, Array, Array, Array | None]:
    """The cotangents of q, k, v and of a float mask (dS before scaling), from the probabilities p.
    See the module's formulas.
    """
    return attend_grad(g, q, k, v, None, p, mask, scale, offset)


def attend_grad(
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    factors: Array | None,
    p: Array,
    mask: Array | None,
    scale: float,
    offset: int | None,
) -> tuple[Array, Array, Array, Array | None]:
    """The cotangents of `attend`'s operands: dP has the factors in it, and dv = (P * factors)^T do."""
    batch = p.shape[:-2]
    gq, gk, gv = (rows_like(x, batch, x.shape[-1]) for x in (q, k, v))
    gm = None if mask is None or mask.dtype == np.bool_ else np.zeros_like(p)
    for_each_part(_attend_grad, p.size, (g, q, k, v, factors, p, gq, gk, gv, gm), scale, offset)
    return gq, gk, gv, gm


def _attend_grad(
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    factors: Array | None,
    p: Array,
    gq: Array,
    gk: Array,
    gv: Array,
    gm: Array | None,
    scale: float,
    offset: int | None,
) -> None:
    """Fill gq, gk, gv and gm."""
    scaled = q * q.dtype.type(scale)
    for grads in (_block_grads, _careful_grads):
        _add_up_blocks(grads, g, scaled, k, v, factors, p, gq, gk, gv, gm, offset)
        if all(np.isfinite(x).all() for x in (gq, gk, gv)):
            break
    gq *= q.dtype.type(scale)


def _add_up_blocks(
    grads: Any,
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    factors: Array | None,
    p: Array,
    gq: Array,
    gk: Array,
    gv: Array,
    gm: Array | None,
    offset: int | None,
) -> None:
    """The grads of every block of queries; the widest block comes first and fills gk and gv, the
    others add to them.
    """
    T, S = p.shape[-2:]
    parts = blocks(T, S, offset)
    widest = parts[-1][2]
    gk[..., widest:, :] = 0
    gv[..., widest:, :] = 0
    buffer = np.empty((*p.shape[:-2], min(T, max(b - a for a, b, _ in parts)) * widest), p.dtype)
    for a, b, seen in reversed(parts):
        ds = buffer[..., : (b - a) * seen].reshape(*p.shape[:-2], b - a, seen)
        into_k, into_v = gk[..., :seen, :], gv[..., :seen, :]
        if b < T:
            into_k, into_v = np.empty(into_k.shape, p.dtype), np.empty(into_v.shape, p.dtype)
        kept = None if factors is None else factors[..., a:b, :seen]
        into = (ds, gq[..., a:b, :], into_k, into_v)
        grads(
            g[..., a:b, :],
            q[..., a:b, :],
            k[..., :seen, :],
            v[..., :seen, :],
            kept,
            p[..., a:b, :seen],
            *into,
        )
        if b < T:
            gk[..., :seen, :] += into_k
            gv[..., :seen, :] += into_v
        if gm is not None:
            gm[..., a:b, :seen] = ds


def _block_grads(
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    factors: Array | None,
    p: Array,
    ds: Array,
    gq: Array,
    gk: Array,
    gv: Array,
) -> None:
    """Fill dS, dS k, dS^T q and (P * factors)^T g; q has the scale in it."""
    np.matmul(g, v.swapaxes(-1, -2), out=ds)
    if factors is not None:
        ds *= factors
    ds -= np.vecdot(ds, p)[..., None]
    ds *= p
    np.matmul(ds, k, out=gq)
    np.matmul(ds.swapaxes(-1, -2), q, out=gk)
    p = p if factors is None else p * factors
    np.matmul(p.swapaxes(-1, -2), g, out=gv)


def _careful_grads(
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    factors: Array | None,
    p: Array,
    ds: Array,
    gq: Array,
    gk: Array,
    gv: Array,
) -> None:
    """`_block_grads` for values that are not finite: a query that nobody asks for (g = 0) or a key
    without weight adds nothing, not even 0 * NaN.
    """
    present = (p != 0) & (g != 0).any(axis=-1, keepdims=True)
    p = np.where(present, p, 0)
    ds[...] = np.where(present, np.matmul(g, v.swapaxes(-1, -2)), 0)
    if factors is not None:
        ds *= factors
    ds -= np.vecdot(ds, p)[..., None]
    ds[...] = np.where(present, ds * p, 0)  # a row of NaN has none for a key without weight
    across = present.swapaxes(-1, -2)
    gq[...] = product_of_present(ds, k, present)
    gk[...] = product_of_present(ds.swapaxes(-1, -2), q, across)
    p = p if factors is None else p * factors
    gv[...] = product_of_present(p.swapaxes(-1, -2), g, across)
