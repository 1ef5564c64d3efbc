"""Tiled ("flash") attention: the scores are made and used up tile by tile, so that memory grows
with T and not with T x S.

Forward keeps for each query the maximum m of the scores so far, the sum l of exp(s - m) and the
weighted sum of values, and rescales the last two when m rises (online softmax). It saves m and l,
whose logarithm would lose its digits beside a large m. Backward makes each tile's probabilities
again, P = exp(s - m) / l, and with delta = rowsum(do * o) has dS = P (dP - delta) without another
pass; it divides do by l once, instead of every tile. Tiles that the causal edge or the window hides
are never visited. Heads and, in forward, blocks of queries are shared among threads. From Dao et
al. 2022, arXiv:2205.14135; Milakov and Gimelshein 2018, arXiv:1805.02867.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.dtypes import Array, DType, computing
from minigrad.errors import GradientError
from minigrad.ops.attention import (
    attention,
    common_batch,
    product_of_present,
    rows_like,
    window as window_of,
)
from minigrad.ops.elementwise import quiet, where
from minigrad.ops.masks import causal_masks
from minigrad.ops.parallel import for_each
from minigrad.ops.reduce import ones_column
from minigrad.primitive import primitive

ROWS, COLUMNS = 128, 512  # of a tile: 256 KB of scores, which stay in the second-level cache


@primitive(kind="contract", dtype="same", outputs=3)
@quiet
def flash_attention(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None = None,
    *,
    scale: float,
    offset: int | None = None,
    window: int | None = None,
    slopes: tuple[float, ...] | None = None,
) -> tuple[Array, Array, Array]:
    """softmax(scale q k^T + mask + bias) v without the matrix of scores; each row's largest score
    m, and its sum of exp(score - m).

    q: (..., T, D)   k: (..., S, D)   v: (..., S, E)   mask: bool (True: may look) or float (added),
        broadcasting to (..., T, S)
    offset: query i sees the keys j <= i + offset;  window: and j > i + offset - window.   ->
        (..., T, E), (..., T), (..., T)
    slopes: one per head, the axis before T, or two axes of groups: adds -slope |i + offset - j|
        (ALiBi); an offset of None counts as 0 there.
    Means what `attention` means, zeros for rows that see nothing and nothing from behind the mask
    included. A mask gets no gradient.
    """
    batch = common_batch(q, k, v, mask)
    plan = Plan(float(scale), q.shape[-2], k.shape[-2], offset, window, slopes)
    o, (top, total) = rows_like(q, batch, v.shape[-1]), np.empty((2, *batch, q.shape[-2]), q.dtype)
    q, k, v, mask = (spread_batch(x, batch) for x in (q, k, v, mask))

    def work(item: tuple[tuple[int, ...], int]) -> None:
        at, a = item
        b = min(a + ROWS, plan.T)
        out = (o[at][a:b], top[at][a:b], total[at][a:b])
        _forward_rows(
            plan,
            q[at],
            k[at],
            v[at],
            None if mask is None else mask[at],
            plan.head(at, batch),
            a,
            b,
            out,
        )

    for_each(quiet(work), [(at, a) for at in np.ndindex(batch) for a in range(0, plan.T, ROWS)])
    return o, top, total


def spread_batch(x: Any, batch: tuple[int, ...]) -> Any:
    """x with `batch` as its leading axes, without a copy, so that x[at] is one head."""
    if x is None:
        return None
    last = x.shape[-2:] if x.ndim > 1 else (1, *x.shape) if x.ndim else (1, 1)
    return np.broadcast_to(x.reshape(*x.shape[:-2], *last), batch + last)


@dataclass(frozen=True)
class Plan:
    """What is the same for all tiles."""

    scale: float
    T: int
    S: int
    offset: int | None
    window: int | None
    slopes: tuple[float, ...] | None

    def seen(self, a: int, b: int) -> tuple[int, int]:
        """The range of keys that some query of a..b-1 sees."""
        high = self.S if self.offset is None else min(self.S, max(0, b + self.offset))
        low = 0 if self.window is None else min(high, max(0, a + self._shift - self.window + 1))
        return low, high

    @property
    def _shift(self) -> int:
        return self.offset or 0

    def head(self, at: tuple[int, ...], batch: tuple[int, ...]) -> int:
        """The number of a head among the slopes; heads may be an axis, or two of groups and heads
        in the group.
        """
        return 0 if self.slopes is None else int(np.ravel_multi_index(at, batch)) % len(self.slopes)

    def hidden(self, a: int, b: int, c: int, d: int) -> Array | None:
        """Which keys c..d-1 the edge and the window hide from the queries a..b-1; None if none."""
        hidden = None
        if self.offset is not None and d - 1 > a + self.offset:
            hidden = causal_masks.hidden(b - a, d - c, a + self.offset - c)
        if self.window is not None and c <= b - 1 + self._shift - self.window:
            early = ~causal_masks.hidden(b - a, d - c, a + self._shift - self.window - c)
            hidden = early if hidden is None else hidden | early
        return hidden

    def scores(
        self,
        q: Array,
        k: Array,
        mask: Array | None,
        head: int,
        tile: tuple[int, int, int, int],
        out: Array,
    ) -> Array | None:
        """Fill `out` with the tile's scores, -inf where hidden, and return what is hidden. q has
        the scale in it.
        """
        a, b, c, d = tile
        np.matmul(q, k[c:d].T, out=out)
        if self.slopes is not None:
            distance = np.abs(
                np.arange(a + self._shift, b + self._shift)[:, None] - np.arange(c, d)
            ).astype(q.dtype)
            distance *= q.dtype.type(self.slopes[head])
            out -= distance
        hidden = self.hidden(a, b, c, d)
        if mask is not None:
            part = window_of(mask, a, b, c, d)
            if part.dtype == np.bool_:
                blind = ~part
            else:
                out += part
                blind = part == -np.inf
            hidden = blind if hidden is None else hidden | blind
        if hidden is not None:
            np.copyto(out, -np.inf, where=hidden)
        return hidden


def _forward_rows(
    plan: Plan,
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None,
    head: int,
    a: int,
    b: int,
    out: tuple[Array, Array, Array],
) -> None:
    """Fill (o, maximum, sum) for the queries a..b-1 of one head, against all keys that they see."""
    q = q[a:b] * q.dtype.type(plan.scale)
    for careful in (False, True):
        o, top, total = _pass_over_keys(plan, q, k, v, mask, head, a, b, careful)
        o /= np.where(total == 0, 1, total)
        if careful or np.isfinite(o).all():
            break
    for x, found in zip(out, (o, top[:, 0], total[:, 0]), strict=True):
        x[...] = found


def _pass_over_keys(
    plan: Plan,
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None,
    head: int,
    a: int,
    b: int,
    careful: bool,
) -> tuple[Array, Array, Array]:
    """The online softmax: weighted sum of values (rows, E), maximum (rows, 1) and sum of
    exponentials (rows, 1).
    """
    o = np.zeros((b - a, v.shape[-1]), q.dtype)
    top, total = np.full((b - a, 1), -np.inf, q.dtype), np.zeros((b - a, 1), q.dtype)
    buffer = np.empty((b - a) * min(COLUMNS, plan.S), q.dtype)
    low, high = plan.seen(a, b)
    for c in range(low, high, COLUMNS):
        d = min(c + COLUMNS, high)
        s = buffer[: (b - a) * (d - c)].reshape(b - a, d - c)
        hidden = plan.scores(q, k, mask, head, (a, b, c, d), s)
        raised = np.maximum(top, s.max(axis=1, keepdims=True))
        shift = np.where(raised == -np.inf, 0, raised)
        faded = np.exp(top - shift)
        if (raised == np.inf).any():
            # As in `softmax`, +inf takes all, shared evenly, and what came before it counts for
            # nothing.
            _share_evenly(s, raised == np.inf)
            shift = np.where(raised == np.inf, 0, shift)
            faded = np.where(raised == np.inf, top == np.inf, faded).astype(s.dtype)
        s -= shift
        np.exp(s, out=s)
        total *= faded
        total += np.matmul(s, ones_column(d - c, s.dtype))
        o *= faded
        if careful:
            o += product_of_present(
                s if hidden is None else np.where(hidden, 0, s),
                v[c:d],
                None if hidden is None else ~hidden,
            )
        else:
            o += np.matmul(s, v[c:d])
        top = raised
    return o, top, total


def _share_evenly(s: Array, infinite: Array) -> None:
    """Make the scores +inf of these rows 0 and the others -inf: their exponentials are what counts."""
    np.copyto(s, np.where(s == np.inf, 0, -np.inf), where=infinite)


@flash_attention.vjp
def _(g, y, q, k, v, mask=None, *, scale, offset=None, window=None, slopes=None, needs):
    if len(needs) > 3 and needs[3]:
        raise GradientError(
            "flash_attention",
            "a mask that learns needs a gradient of T x S numbers, which tiles do not keep",
            hint='method="plain"',
        )
    return flash_attention_grad(
        g[0], q, k, v, *y, mask, scale=scale, offset=offset, window=window, slopes=slopes
    )


@flash_attention.composed
def _(q, k, v, mask=None, *, scale, offset=None, window=None, slopes=None):
    whole = band_and_bias(q.shape[-2], k.shape[-2], offset, window, slopes, computing(q.dtype))
    if whole is not None and slopes is not None and q.shape[-3] != len(slopes):
        whole = whole.reshape(*q.shape[-4:-2], *whole.shape[-2:])
    if whole is not None and mask is not None:
        whole = where(mask, whole, -np.inf) if mask.dtype == np.bool_ else mask + whole
    mask = mask if whole is None else whole
    operands = (q, k, v) if mask is None else (q, k, v, mask)
    assert attention.composed_form is not None
    return attention.composed_form(*operands, scale=scale, offset=offset)


def band_and_bias(
    T: int,
    S: int,
    offset: int | None,
    window: int | None,
    slopes: tuple[float, ...] | None,
    dtype: DType,
) -> Array | None:
    """The window (0 inside, -inf before it) and ALiBi's bias as one mask (T, S) or (heads, T, S);
    None if there is neither.
    """
    if window is None and slopes is None:
        return None
    behind = (
        np.arange(T)[:, None] + (offset or 0) - np.arange(S)
    )  # how far the key is behind the query
    bias = np.zeros((T, S), dtype)
    if slopes is not None:
        bias = -np.array(slopes, dtype)[:, None, None] * np.abs(behind).astype(dtype)
    return bias if window is None else np.where(behind < window, bias, dtype.type(-np.inf))


@primitive(kind="contract", outputs=3)
@quiet
def flash_attention_grad(
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    o: Array,
    top: Array,
    total: Array,
    mask: Array | None,
    *,
    scale: float,
    offset: int | None,
    window: int | None,
    slopes: tuple[float, ...] | None,
) -> tuple[Array, Array, Array]:
    """The cotangents of q, k and v, from the output, the maxima and the sums of the forward pass."""
    batch = top.shape[:-1]
    plan = Plan(float(scale), q.shape[-2], k.shape[-2], offset, window, slopes)
    gq, gk, gv = (rows_like(x, batch, x.shape[-1]) for x in (q, k, v))
    g, q, k, v, mask = (spread_batch(x, batch) for x in (g, q, k, v, mask))

    def work(at: tuple[int, ...]) -> None:
        out = (gq[at], gk[at], gv[at])
        arrays = tuple(x[at] for x in (g, q, k, v, o, top, total))
        for careful in (False, True):
            _backward_head(
                plan, arrays, None if mask is None else mask[at], plan.head(at, batch), out, careful
            )
            if all(np.isfinite(x).all() for x in out):
                return

    for_each(quiet(work), list(np.ndindex(batch)))
    return gq, gk, gv


def _backward_head(
    plan: Plan,
    arrays: tuple[Array, ...],
    mask: Array | None,
    head: int,
    out: tuple[Array, ...],
    careful: bool,
) -> None:
    """Fill one head's (gq, gk, gv), block of queries by block of queries."""
    g, q, k, v, o, top, total = arrays
    for x in out:
        x[...] = 0
    buffers = np.empty((2, min(ROWS, plan.T) * min(COLUMNS, plan.S)), q.dtype)
    for a in range(0, plan.T, ROWS):
        b = min(a + ROWS, plan.T)
        asked = (g[a:b] != 0).any(axis=1, keepdims=True) if careful else None
        # P = exp(s - top) / total: what divides the rows of P divides those of g and delta.
        shared = g[a:b] / np.where(total[a:b] == 0, 1, total[a:b])[:, None]
        delta = np.vecdot(shared, o[a:b])[:, None]
        if asked is not None:
            shared, delta = np.where(asked, shared, 0), np.where(asked, delta, 0)
        low, high = plan.seen(a, b)
        shift = top[a:b, None]
        infinite = shift == np.inf if (shift == np.inf).any() else None
        rows = (
            shared,
            q[a:b] * q.dtype.type(plan.scale),
            np.where(np.isinf(shift), 0, shift),
            delta,
            infinite,
        )
        for c in range(low, high, COLUMNS):
            d = min(c + COLUMNS, high)
            tiles = [x[: (b - a) * (d - c)].reshape(b - a, d - c) for x in buffers]
            _backward_tile(plan, rows, k, v, mask, head, (a, b, c, d), tiles, out, asked)
        out[0][a:b] *= q.dtype.type(plan.scale)


def _backward_tile(
    plan: Plan,
    rows: tuple[Any, ...],
    k: Array,
    v: Array,
    mask: Array | None,
    head: int,
    tile: tuple[int, int, int, int],
    buffers: list[Array],
    out: tuple[Array, ...],
    asked: Array | None,
) -> None:
    """Add one tile's share to (gq, gk, gv). The division that p lacks, g and delta have had.

    asked: None, or, when NaN or inf is about, the queries whose cotangent is not zero.
    """
    (g, q, top, delta, infinite), (p, ds), (gq, gk, gv) = rows, buffers, out
    a, b, c, d = tile
    hidden = plan.scores(q, k, mask, head, tile, p)
    if infinite is not None:
        _share_evenly(p, infinite)
    p -= top
    np.exp(p, out=p)
    np.matmul(g, v[c:d].T, out=ds)
    if asked is None:
        ds -= delta
        ds *= p
        gq[a:b] += np.matmul(ds, k[c:d])
        gk[c:d] += np.matmul(ds.T, q)
        gv[c:d] += np.matmul(p.T, g)
        return
    present = (p != 0) & asked if hidden is None else (p != 0) & asked & ~hidden
    p[~present] = 0
    ds[~present] = 0
    ds -= delta
    ds[...] = np.where(present, ds * p, 0)
    gq[a:b] += product_of_present(ds, k[c:d], present)
    gk[c:d] += product_of_present(ds.T, q, present.T)
    gv[c:d] += product_of_present(p.T, g, present.T)
