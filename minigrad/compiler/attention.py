"""Attention, rotary positions and RMSNorm in C."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigrad.compiler.kernel import Kernel
from minigrad.compiler.layout import Layout
from minigrad.compiler.lower import (
    BLOCK,
    Builder,
    NoC,
    column_sums,
    index,
    literal,
    lowers,
    plain,
    rows_of,
)
from minigrad.compiler.program import Line, Ref

# Leading axes of an operand of attention at most: batch, heads, and heads that share one of k and v
_AXES = 3


def _strides(layout: Layout, i: int, across: bool = False) -> str:
    """The strides_t literal of a (..., T, D) value, 0 where it is broadcast. Raises NoC unless its
    rows, or, across, its columns, are contiguous.
    """
    a, s = layout.stand_in[i], layout.strides(i)
    if a.dtype != np.float32 or not 2 <= a.ndim <= _AXES + 2:
        raise NoC
    row, step = (-2, -1) if across else (-1, -2)
    if (a.shape[row] > 1 and s[row] != 1) or (a.shape[step] > 1 and s[step] < a.shape[row]):
        raise NoC
    leading = (0,) * (_AXES + 2 - a.ndim) + s[:-2]
    return f"(strides_t){{{', '.join(map(str, leading))}, {s[step] or a.shape[row]}}}"


class _Call:
    """What the kernels of an attention line and of its gradient share. Raises NoC where C has no
    form for the line.

    shape: of the scores, (..., T, S).   sizes, setting: T, S, D, E and the attention_t literal.
    """

    def __init__(
        self, layout: Layout, line: Line, number: int, operands: list[int], rest: tuple[Any, ...]
    ) -> None:
        """operands: q, k and v, and g before them in a gradient.   rest: mask, kept, offset."""
        self.layout, self.params = layout, line.params
        self.builder = Builder(layout, line, number)
        q, k, v = (layout.stand_in[i] for i in operands[-3:])
        mask, kept, offset = (*rest, None, None, None)[:3]
        offset = line.params.get("offset") if offset is None else offset
        batch = layout.stand_in[line.made()[0]].shape[:-2]
        T, S, D, E = self.sizes = (q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1])
        self.shape = (*batch, T, S)
        self.length = index(offset) if isinstance(offset, Ref) else None
        offset = 0 if self.length is not None else offset
        biased = line.params.get("window") or line.params.get("slopes")
        hiding = mask is None or layout.stand_in[index(mask)].dtype == np.bool_
        self.simple = not biased and hiding and kept is None
        odd = not line.params["scale"] > 0 or len(batch) > _AXES
        if odd or any(0 in x.shape for x in (q, k, v)):
            raise NoC
        self.pairs, self.tiled = math.prod(batch), bool(line.params.get("tiled"))
        self.scores = self.pairs * T * S
        self.flops = 2.0 * self.scores * D * (0.6 if offset is not None else 1)
        for i, name in zip(operands, ("g", "q", "k", "v")[-len(operands) :], strict=True):
            self.builder.use(i, name, share=layout.stand_in[i].shape[:-2] == batch)
        numbers = ", ".join(map(str, (*(1, 1, *batch)[-2:], T, S, D, E)))
        scaled = f"{literal(line.params['scale'])}, {int(offset is not None)}, {offset or 0}"
        parts = (numbers, scaled, self._bias(offset), self._mask(mask), self._dropout(kept))
        self.setting = f"(attention_t){{{', '.join(parts)}}}"

    def _bias(self, offset: int | None) -> str:
        """Window, slopes, how many there are, and center."""
        window, slopes = self.params.get("window"), self.params.get("slopes") or ()
        center = self.params.get("center")
        listed = ", ".join(literal(slope) for slope in slopes)
        array = f"(const float[]){{{listed}}}" if slopes else "NULL"
        place = (offset or 0) if center is None else center
        return f"{window or 0}, {array}, {len(slopes)}, {place}"

    def _mask(self, mask: Any) -> str:
        """Kind, pointer and strides of a mask."""
        if mask is None:
            return "NO_MASK, NULL, {0}"
        a, s = self.layout.stand_in[index(mask)], self.layout.strides(index(mask))
        kind = {"bool": "BOOL_MASK", "float32": "FLOAT_MASK"}.get(a.dtype.name)
        if kind is None or a.ndim > _AXES + 2:
            raise NoC
        steps = ", ".join(map(str, (0,) * (_AXES + 2 - a.ndim) + s))
        return f"{kind}, {self.builder.use(index(mask), 'mask')}, {{{steps}}}"

    def _dropout(self, kept: Any) -> str:
        """The weights that dropout keeps, and the factor."""
        if kept is None:
            return "NULL, 1"
        a = self.layout.stand_in[index(kept)]
        if not plain(self.layout, index(kept), dtype=np.bool_) or a.shape != self.shape:
            raise NoC
        factor = literal(self.params.get("factor", 1.0))
        return f"{self.builder.use(index(kept), 'kept', share=True)}, {factor}"

    def strided(self, values: list[int], names: str) -> str:
        """ "q, strides, k, strides ..."."""
        found = (_strides(self.layout, i) for i in values)
        return ", ".join(f"{name}, {s}" for name, s in zip(names.split(), found, strict=True))

    def saved(self, value: int | None, write: bool) -> str:
        """The pointers to P and to the two numbers per query, one of them NULL."""
        if value is None:
            return "NULL, NULL"
        if not plain(self.layout, value):
            raise NoC
        name = self.builder.use(value, "stats" if self.tiled else "p", share=True, write=write)
        return f"NULL, {name}" if self.tiled else f"{name}, NULL"


@lowers("attention")
def _attention(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    """Probabilities that nobody reads are made in a few rows of scratch, and tiled ones always."""
    q, key, v, *rest = line.operands
    o, saved = line.outputs
    assert o is not None
    operands = [index(q), index(key), index(v)]
    call = _Call(layout, line, number, operands, tuple(rest))
    if call.length is not None:
        return None if saved is not None else [_cached_attention(call, operands, o)]
    strided, to = call.strided(operands, "q k v"), call.strided([o], "o")
    call.builder.use(o, "o", share=True, write=True)
    stored = call.saved(saved, write=True)
    _, S, D, E = call.sizes
    room = f"room[PANELS({S}, {D}) + PANELS({E}, {S})], rows[ROWS * {S}]"
    body = (
        f"static _Thread_local float {room};\n    "
        f"attention_pairs({call.setting}, {strided}, {to}, {stored}, rows, room, lo, hi);"
    )
    return [call.builder.kernel("attention", body, call.pairs, 2 * call.flops + 20 * call.scores)]


def _cached_attention(call: _Call, operands: list[int], o: int) -> Kernel:
    """Attention of a few queries to a cache. Raises NoC unless its length is an int64, and all that
    hides keys a bool mask.
    """
    layout, k, length = call.layout, call.builder, call.length
    assert length is not None
    if not call.simple or layout.stand_in[length].dtype != np.int64:
        raise NoC
    q, key, v = operands
    steps = (_strides(layout, q), _strides(layout, key, across=True), _strides(layout, v))
    names = (f"{name}, {s}" for name, s in zip("qkv", steps, strict=True))
    to = call.strided([o], "o")
    k.use(length, "length"), k.use(o, "o", share=True, write=True)
    _, S, _, E = call.sizes
    k.use(layout.scratch((call.pairs, S)), "s", write=True)
    body = f"cached_attention_pairs({call.setting}, length, {', '.join(names)}, {to}, s, lo, hi);"
    return k.kernel("attention", body, call.pairs, call.flops + call.scores * E)


@lowers("attention_grad")
def _attention_grad(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    """A cotangent of P, and the gradient of a mask, go through numpy."""
    g, gp, _, saved, *operands = line.operands
    gq, gk, gv, gs = line.outputs
    if g is None or gp is not None or gs is not None:
        return None
    assert gq is not None and gk is not None and gv is not None
    values, to = [index(x) for x in (g, *operands[:3])], [gq, gk, gv]
    call = _Call(layout, line, number, values, tuple(operands[3:]))
    if call.length is not None:
        return None
    if not call.tiled and layout.stand_in[index(saved)].shape != call.shape:
        return None
    strided, into = call.strided(values, "g q k v"), call.strided(to, "gq gk gv")
    read = call.saved(index(saved), write=False)
    for i, name in zip(to, ("gq", "gk", "gv"), strict=True):
        call.builder.use(i, name, share=True, write=True)
    T, S, D, E = call.sizes
    sizes = ((S, D), (S, E), (D, S), (D, T), (E, T))
    room = " + ".join(f"PANELS({m}, {n})" for m, n in sizes)
    halves = 2 if call.tiled or line.operands[8:9] not in ((), (None,)) else 1
    body = (
        f"static _Thread_local float room[{room}], d[{halves} * TILE * {S}];\n    "
        f"attention_grad_pairs({call.setting}, {strided}, {read}, {into}, d, room, lo, hi);"
    )
    again = call.flops + 20 * call.scores if call.tiled else 0
    flops = 4 * call.flops + 6 * call.scores + again
    return [call.builder.kernel("attention_grad", body, call.pairs, flops)]


@lowers("rope")
def _rope(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    x, cos, sin = (index(i) for i in line.operands)
    y = line.made()[0]
    a, table = layout.stand_in[x], layout.stand_in[cos]
    D, half, steps, turns = a.shape[-1], table.shape[-1], layout.strides(x), layout.strides(cos)
    fits = (
        all(layout.stand_in[i].dtype == np.float32 for i in (x, cos, sin))
        and a.size > 0
        and half > 0
        and plain(layout, y)
    )
    if (
        not fits
        or (D > 1 and steps[-1] != 1)
        or (half > 1 and turns[-1] != 1)
        or turns != layout.strides(sin)
    ):
        return None
    turns = (0,) * (a.ndim - table.ndim) + turns
    k = Builder(layout, line, number)
    (
        k.use(x, "x", share=True),
        k.use(cos, "cos"),
        k.use(sin, "sin"),
        k.use(y, "y", share=True, write=True),
    )
    places, below = [], 1
    for n, s, t in zip(a.shape[-2::-1], steps[-2::-1], turns[-2::-1], strict=True):
        places.append(
            (f"r / {below} % {n} * {s}", f"r / {below} % {n} * {t}") if n > 1 else ("0", "0")
        )
        below *= n
    at, turn = (" + ".join(p[i] for p in places) or "0" for i in (0, 1))
    pair = int(bool(line.params.get("interleaved")))
    row = f"rope_row(x + {at}, cos + c, sin + c, y + r * {D}, {D}, {half}, {pair});"
    body = f"for (int64_t r = lo; r < hi; r++) {{ int64_t c = {turn};\n        {row} }}"
    return [k.kernel("rope", body, a.size // D, 3 * a.size)]


@lowers("rms_norm")
def _rms_norm(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    x, weight, (y, scale) = index(line.operands[0]), line.operands[1], line.made()
    weights = [weight.index] if isinstance(weight, Ref) else []
    if not plain(layout, x, y, scale, *weights) or layout.stand_in[x].size == 0:
        return None
    k = Builder(layout, line, number)
    k.use(x, "x", share=True)
    w = k.use(weights[0], "weight") if weights else "NULL"
    k.use(y, "y", share=True, write=True), k.use(scale, "scale", share=True, write=True)
    rows, C = rows_of(layout, x)
    body = f"rms_norm_rows(x, {w}, y, scale, {C}, {literal(line.params.get('eps', 1e-6))}, lo, hi);"
    return [k.kernel("rms_norm", body, rows, 5 * rows * C)]


@lowers("rms_norm_grad")
def _rms_norm_grad(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    g, x, scale, weight = (
        index(line.operands[0]),
        index(line.operands[1]),
        index(line.operands[3]),
        line.operands[2],
    )
    gx, gw = line.outputs
    weights = [weight.index] if isinstance(weight, Ref) else []
    assert gx is not None and gw is not None
    if not plain(layout, g, x, scale, gx, *weights) or layout.stand_in[x].size == 0:
        return None
    rows, C = rows_of(layout, x)
    blocks, whole = (
        -(-rows // BLOCK),
        rows % BLOCK == 0,
    )  # a short last block makes units no equal shares
    part = layout.scratch((blocks, C))
    k = Builder(layout, line, number)
    k.use(g, "g", share=whole), k.use(x, "x", share=whole)
    w = k.use(weights[0], "weight") if weights else "NULL"
    (
        k.use(scale, "scale", share=whole),
        k.use(gx, "gx", share=whole, write=True),
        k.use(part, "part", share=True, write=True),
    )
    body = f"rms_norm_grad_blocks(g, x, {w}, scale, gx, part, {rows}, {C}, lo, hi);"
    return [
        k.kernel("rms_norm_grad", body, blocks, 10 * rows * C),
        column_sums(layout, line, number, part, gw, blocks, C),
    ]
