"""The numpy code of attention: blocks of queries against tiles of keys.

Both strategies are one loop. The plain one has a single tile, which ends as the probabilities; it
works on all heads at once. The tiled one (Dao et al. 2022, arXiv:2205.14135) works on one head and
a tile that stays in the cache, and keeps two numbers per query: the shift m and the sum l of
exp(score - m), of which backward makes the probabilities again. Their logarithm would lose its
digits next to a large m.

Hidden scores are added -inf, and m is 0: exp(s) / sum(exp(s)) has all its digits as long as the sum
is neither huge nor tiny. Where it is not, or where anything is not finite, the block is done again
with care. Then m is the maximum in rows that need it, hidden scores are overwritten, and in
products 0 * NaN is 0. Every row is mended by what it sees, so that the others keep their bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.dtypes import Array, DType
from minigrad.ops.contract import guarded
from minigrad.ops.masks import causal_masks
from minigrad.ops.parallel import for_each
from minigrad.ops.reduce import ones_column
from minigrad.precision import operand

ROWS, COLUMNS = 128, 512  # of a tile: 256 KB of scores, which stay in the second-level cache
_BLOCK = 64  # queries of a causal block whose probabilities are kept
_PARALLEL = 1 << 20  # scores from which threads pay off: waking one costs 0.1 ms
_TINY, _HUGE = 1e-9, 1e18  # a sum of exp(s) between these has lost nothing, in float32 either

Block = tuple[int, int, int, int]  # queries a..b-1, which see keys among c..d-1

_ARRAYS = ("q", "k", "v", "mask", "kept", "slopes", "o", "saved", "g", "gp", "gq", "gk", "gv", "gs")


_NONE: Any = None


@dataclass(eq=False)
class Operands:
    """The operands and params of one call of `ops.attention`, the arrays with common leading axes
    and in one dtype, and what comes out.

    first, last: query i sees the keys i + first .. i + last, all before or after where None.
    slopes: (..., 1, 1).   o, saved: what forward fills.   g, gp: the cotangents of o and of the
    probabilities, either may be missing.   gq, gk, gv, gs: what backward fills, gs, those of the
    scores, unless None.
    """

    q: Array
    k: Array
    v: Array
    mask: Array | None = None
    kept: Array | None = None
    offset: Any = None
    scale: float = 1.0
    window: int | None = None
    slopes: Any = None
    center: Any = None
    factor: float = 1.0
    tiled: bool = False
    # Not given, but found or filled
    first = last = o = saved = g = gp = gq = gk = gv = gs = _NONE

    def __post_init__(self) -> None:
        q, k, v, mask, kept = self.q, self.k, self.v, self.mask, self.kept
        batch, dtype = q.shape[:-2], q.dtype
        alike = batch == k.shape[:-2] == v.shape[:-2] and dtype == k.dtype == v.dtype
        if not alike or mask is not None or kept is not None:
            given = [y.shape[:-2] for y in (q, k, v, mask, kept) if y is not None]
            batch, dtype = np.broadcast_shapes(*given), np.result_type(q, k, v)
            self.q, self.k, self.v = (_with_batch(y, batch, dtype) for y in (q, k, v))
        if mask is not None:
            self.mask = _with_batch(mask, batch, mask.dtype if mask.dtype == np.bool_ else dtype)
        if kept is not None:
            self.kept = _with_batch(kept, batch, kept.dtype)
        if self.slopes is not None:
            self.slopes = np.broadcast_to(per_head(self.slopes, batch, dtype), (*batch, 1, 1))
        if self.offset is not None:
            self.last = int(self.offset)
        if self.window is not None:
            self.first = (self.last or 0) - self.window + 1
        if self.center is None:
            self.center = self.last or 0

    def parts(self) -> list[Operands]:
        """The parts that threads share: each head if tiled, rows of the first axis if large."""
        batch = self.q.shape[:-2]
        if self.tiled:
            places = list(np.ndindex(batch))
        elif math.prod(batch) * self.q.shape[-2] * self.k.shape[-2] < _PARALLEL:
            return [self]
        else:
            first = next((i for i, n in enumerate(batch) if n > 1), -1)
            places = list(np.ndindex(batch[: first + 1]))
        given = {name: x for name in _ARRAYS if (x := getattr(self, name)) is not None}
        found = [copy(self) for _ in places]
        for part, at in zip(found, places, strict=True):
            for name, x in given.items():
                setattr(part, name, x[at])
        return found

    def blocks(self) -> list[Block]:
        """The blocks of queries."""
        T, S, first, last = self.q.shape[-2], self.k.shape[-2], self.first, self.last
        rows = ROWS if self.tiled else max(T, 1) if first is last is None else _BLOCK
        found = []
        for a in range(0, T, rows):
            b = min(a + rows, T)
            d = S if last is None else min(S, max(0, b + last))
            found.append((a, b, 0 if first is None else min(d, max(0, a + first)), d))
        return found

    def tiles(self, block: Block) -> list[Block]:
        """The tiles of a block, at least one."""
        if not self.tiled:
            return [block]
        a, b, c, d = block
        starts = range(c, max(d, c + 1), COLUMNS)
        return [(a, b, start, min(start + COLUMNS, d)) for start in starts]

    def scaled(self, block: Block) -> Array:
        """The queries of a block, times the scale."""
        return operand(self.q[..., block[0] : block[1], :]) * self.q.dtype.type(self.scale)

    def fill(self, q: Array, tile: Block, out: Array, careful: bool) -> Array | None:
        """Fill `out` with the scores of a tile, -inf where hidden. q: its queries, scaled.

        Returns what is hidden if careful; else a score that is not finite may become NaN there.
        """
        a, b, c, d = tile
        np.matmul(q, operand(self.k[..., c:d, :]).swapaxes(-1, -2), out=out)
        if self.slopes is not None:
            places = np.arange(a + self.center, b + self.center)[:, None]
            out -= np.abs(places - np.arange(c, d)).astype(out.dtype) * self.slopes
        mask = None if self.mask is None else _window(self.mask, tile)
        if mask is not None and mask.dtype != np.bool_:
            out += mask
        if careful:
            hidden = self.hidden(mask, tile)
            np.copyto(out, -np.inf, where=hidden)
            return hidden
        if mask is not None and mask.dtype == np.bool_:
            out += np.where(mask, out.dtype.type(0), out.dtype.type(-np.inf))
        if self.last is not None and a + self.last < d - 1:
            start = max(a + self.last, c)  # all queries see the keys up to this one
            tail = out[..., start - c :]
            tail += causal_masks.added(b - a, d - start, a + self.last - start)
        if self.first is not None and c < b - 1 + self.first:
            stop = min(d, b - 1 + self.first)  # all queries see the keys from here on
            head = out[..., : stop - c]
            head += causal_masks.added(b - a, stop - c, a + self.first - 1 - c, before=True)
        return None

    def hidden(self, mask: Array | None, tile: Block) -> Array:
        """The keys of a tile that its queries must not see, as bool."""
        a, b, c, d = tile
        ahead = np.arange(c, d) - np.arange(a, b)[:, None]
        hidden = np.zeros(ahead.shape, np.bool_)
        if self.first is not None:
            hidden |= ahead < self.first
        if self.last is not None:
            hidden |= ahead > self.last
        if mask is None:
            return hidden
        return hidden | (~mask if mask.dtype == np.bool_ else mask == -np.inf)

    def exponentials(
        self, q: Array, tile: Block, shift: Array | None, careful: bool, out: Array
    ) -> None:
        """Fill `out` with exp(score - shift), 0 where hidden. In rows of shift inf the scores that
        are inf share all evenly.
        """
        hidden = self.fill(q, tile, out, careful)
        if shift is not None:
            if (infinite := shift == np.inf).any():
                np.copyto(out, np.where(out == np.inf, 0, -np.inf), where=infinite)
            out -= np.where(np.isinf(shift), 0, shift)
        np.exp(out, out=out)
        if hidden is not None:
            np.copyto(out, 0, where=hidden)  # also in a row of NaN

    def shifts(self, q: Array, block: Block) -> Array:
        """What to subtract from the scores of each query, (..., rows, 1): the largest where the sum
        of exponentials is out of range, else 0.
        """
        top: Any = -np.inf
        total: Any = 0
        for tile in self.tiles(block):
            s = _scratch(q, tile)
            self.fill(q, tile, s, careful=True)
            top = np.maximum(top, s.max(axis=-1, keepdims=True, initial=-np.inf))
            total = total + np.exp(s).sum(axis=-1, keepdims=True)
        return np.where(_in_range(total), 0, top).astype(q.dtype)

    def dropout(self, tile: Block) -> Array | None:
        """What the probabilities of a tile are multiplied by: 0, or the factor."""
        if self.kept is None:
            return None
        dtype = self.q.dtype
        return np.multiply(_window(self.kept, tile), dtype.type(self.factor), dtype=dtype)


def per_head(slopes: tuple[float, ...], batch: tuple[int, ...], dtype: DType) -> Array:
    """The slopes as (heads, 1, 1), or (groups, heads, 1, 1) where heads are two axes."""
    heads = batch[-1:] if batch[-1:] in ((), (len(slopes),)) else batch[-2:]
    return np.array(slopes, dtype).reshape(*heads, 1, 1)


def _with_batch(x: Array, batch: tuple[int, ...], dtype: DType) -> Array:
    """x with these leading axes, as a view where it has the dtype."""
    x = x.astype(dtype, copy=False)
    if x.ndim > 1 and x.shape[:-2] == batch:
        return x
    last = x.shape[-2:] if x.ndim > 1 else (1, x.size)
    return np.broadcast_to(x.reshape(*x.shape[:-2], *last), batch + last)


def _in_range(total: Array) -> Array:
    return (total > _TINY) & (total < _HUGE)


def _is_sound(total: Array, out: Array) -> bool:
    """True if all sums of exponentials are in range, and `out` is finite. A sum of squares, which
    BLAS makes at once, is small only if all terms are.
    """
    sums = total.ravel()
    in_range = sums.dot(sums) < _HUGE**2 and np.minimum.reduce(sums, initial=1) > _TINY
    return bool(in_range) and _is_finite(out)


def _is_finite(x: Array) -> bool:
    """True if all of x is finite; False also where numbers are so large that their squares are
    not.
    """
    row = x.ravel("K")
    return math.isfinite(row.dot(row))


def _window(x: Array, tile: Block) -> Array:
    """x[..., a:b, c:d] of an array that may broadcast along its last two axes."""
    a, b, c, d = tile
    rows = slice(a, b) if x.shape[-2] != 1 else slice(None)
    return x[..., rows, slice(c, d) if x.shape[-1] != 1 else slice(None)]


def _scratch(q: Array, tile: Block) -> Array:
    return np.empty((*q.shape[:-1], tile[3] - tile[2]), q.dtype)


def _in_parts(work: Callable[[Operands, Any], None], operands: Operands, blocks: list[Any]) -> None:
    """Call work(part, block) for all parts and blocks, on several threads if there are parts."""
    parts = operands.parts()
    items = [(part, block) for part in parts for block in blocks]
    if parts == [operands] or len(items) == 1:
        for item in items:
            work(*item)
    else:
        for_each(np.errstate(all="ignore")(lambda item: work(*item)), items)


def forward(operands: Operands) -> None:
    """Fill o and saved: the probabilities, (..., T, S), or, tiled, the shift and the sum of each
    query, (..., T, 2).
    """
    _in_parts(_forward_block, operands, operands.blocks())


def _forward_block(x: Operands, block: Block) -> None:
    a, b, c, d = block
    q, out = x.scaled(block), x.o[..., a:b, :]
    shift: Array | None = None
    total: Any = None
    for careful in (False, True):
        for n, tile in enumerate(x.tiles(block)):
            _, _, start, stop = tile
            s = _scratch(q, tile) if x.tiled else x.saved[..., a:b, start:stop]
            x.exponentials(q, tile, shift, careful, s)
            sums = np.matmul(s, ones_column(stop - start, s.dtype))
            total = sums if n == 0 else total + sums
            if not x.tiled:
                if careful:
                    np.divide(s, total, out=s, where=s != 0)
                else:
                    s /= total
            if x.kept is not None:
                s = s * x.dropout(tile)
            _put(out, operand(s), operand(x.v[..., start:stop, :]), careful, add=n > 0)
        if careful or _is_sound(total, out):
            break
        shift = x.shifts(q, block)
    if x.tiled:
        out /= np.where(total == 0, 1, total)
        x.saved[..., a:b, :1] = 0 if shift is None else shift
        x.saved[..., a:b, 1:] = total
    elif d - c < x.saved.shape[-1]:
        x.saved[..., a:b, :c] = 0
        x.saved[..., a:b, d:] = 0


def _put(into: Array, x: Array, y: Array, careful: bool, add: bool) -> None:
    """Write the matrix product x y of operands that are rounded already, or add it. Careful: what
    has no weight has no influence.
    """
    if add:
        into += guarded(x, y) if careful else np.matmul(x, y)
    elif careful:
        into[...] = guarded(x, y)
    else:
        np.matmul(x, y, out=into)


def backward(operands: Operands) -> None:
    """Fill the cotangents of q, k and v, and of the scores where that is not None."""

    def work(x: Operands, _all: None) -> None:
        for careful in (False, True):
            _backward_part(x, careful)
            if _is_finite(x.gq) and _is_finite(x.gk) and _is_finite(x.gv):
                break

    _in_parts(work, operands, [None])


def _backward_part(x: Operands, careful: bool) -> None:
    """The last block of queries writes to the cotangents of its keys, the others add."""
    blocks = x.blocks()
    c, d = blocks[-1][2:] if blocks else (0, 0)
    if d - c < x.gk.shape[-2]:
        for y in (x.gk, x.gv):
            y[..., :c, :] = 0
            y[..., d:, :] = 0
    if x.gs is not None:
        x.gs[...] = 0
    if x.g is None:
        x.gv[...] = 0
    for n, block in enumerate(reversed(blocks)):
        _backward_block(x, block, careful, add=n > 0)


def _backward_block(x: Operands, block: Block, careful: bool, add: bool) -> None:
    """dP = (g v^T) kept + gp,   dS = P (dP - rowsum(dP P)),   where rowsum(g v^T kept P) is
    rowsum(g o). Tiled, P lacks the division by the sum; g and rowsum(g o) have it instead.
    """
    (a, b, *_), q = block, x.scaled(block)
    g, gp, delta, asked = _rows(x, block, careful)
    shift = None
    if x.tiled:
        shift, total = x.saved[..., a:b, :1], x.saved[..., a:b, 1:]
        shift = shift if shift.any() else None
        g, delta = (y / np.where(total == 0, 1, total) for y in (g, delta))
    for n, tile in enumerate(x.tiles(block)):
        _, _, c, d = tile
        if x.tiled:
            p = _scratch(q, tile)
            x.exponentials(q, tile, shift, careful, p)
        else:
            p = x.saved[..., a:b, c:d]
        present = (p != 0) & asked if careful else None
        if present is not None:
            p = np.where(present, p, 0)
        kept = x.dropout(tile)
        if g is None:
            ds = np.zeros(p.shape, p.dtype)
        else:
            ds = np.matmul(operand(g), operand(x.v[..., c:d, :]).swapaxes(-1, -2))
            ds = ds if kept is None else np.multiply(ds, kept, out=ds)
        if gp is not None:
            ds += gp[..., c:d]
        ds -= delta
        ds *= p
        if present is not None:
            np.copyto(ds, 0, where=~present)
        if g is not None:
            weights = operand(p if kept is None else p * kept).swapaxes(-1, -2)
            _put(x.gv[..., c:d, :], weights, operand(g), careful, add)
        if x.gs is not None:
            x.gs[..., a:b, c:d] = ds
        ds = operand(ds)
        _put(x.gq[..., a:b, :], ds, operand(x.k[..., c:d, :]), careful, n > 0)
        _put(x.gk[..., c:d, :], ds.swapaxes(-1, -2), q, careful, add)
    x.gq[..., a:b, :] *= q.dtype.type(x.scale)


def _rows(x: Operands, block: Block, careful: bool) -> tuple[Any, Any, Any, Any]:
    """The rows of g and gp, rowsum(dP P), and, if careful, which queries have a cotangent: the
    others ask for nothing, not for 0 * NaN.
    """
    rows = slice(block[0], block[1])
    g, gp = (None if y is None else y[..., rows, :] for y in (x.g, x.gp))
    asked: Any = None
    if careful:
        asked = np.bool_(False)
        for y in (g, gp):
            if y is not None:
                asked = asked | (y != 0).any(axis=-1, keepdims=True)
        g = None if g is None else np.where(asked, g, 0)
        if gp is not None:
            gp = np.where(asked & (x.saved[..., rows, :] != 0), gp, 0)
    delta: Any = 0 if g is None else np.vecdot(g, x.o[..., rows, :])[..., None]
    if gp is not None:
        delta = delta + np.vecdot(gp, x.saved[..., rows, :])[..., None]
    return g, gp, delta if asked is None else np.where(asked, delta, 0), asked
