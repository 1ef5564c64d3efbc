"""Attention, its gradient, and the cache that it reads."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigrad.compiler.kernel import Kernel
from minigrad.compiler.layout import Layout
from minigrad.compiler.lower import (
    FLOAT32,
    Builder,
    Call,
    given,
    literal,
    lowers,
    need,
    plain,
    value_of,
)
from minigrad.compiler.program import Ref

# Leading axes of an operand of attention at most: batch, heads, and heads that share one of k and v
_AXES = 3
_MANY = 8  # queries from which a cache is read in tiles


def _strides(layout: Layout, i: int, across: bool = False) -> str:
    """The strides_t literal of a (..., T, D) value, 0 where it is broadcast. Raises NoC unless its
    rows, or, across, its columns, are contiguous.
    """
    a, s = layout.stand_in[i], layout.strides(i)
    need(a.dtype == FLOAT32 and 2 <= a.ndim <= _AXES + 2)
    row, step = (-2, -1) if across else (-1, -2)
    need(a.shape[row] == 1 or s[row] == 1)
    need(a.shape[step] == 1 or s[step] >= a.shape[row])
    leading = (0,) * (_AXES + 2 - a.ndim) + s[:-2]
    return f"(strides_t){{{', '.join(map(str, leading))}, {s[step] or a.shape[row]}}}"


class _Attention:
    """What the kernels of an attention line and of its gradient share. Raises NoC where C has no
    form for the line.

    shape: of the scores, (..., T, S).   sizes, setting: T, S, D, E and the attention_t literal.
    """

    def __init__(self, call: Call, operands: list[int], rest: tuple[Any, ...]) -> None:
        """operands: q, k and v, and g before them in a gradient.   rest: mask, kept, offset."""
        self.layout, self.params, self.builder = call.layout, call.line.params, Builder(call)
        q, k, v = (call.array(i) for i in operands[-3:])
        mask, kept, offset = (*rest, None, None, None)[:3]
        offset = self.params.get("offset") if offset is None else offset
        # The output's leading axes are the pairs; q, k and v may broadcast to them, as keys do that
        # several heads share: their strides are then 0.
        batch = call.array(call.line.made()[0]).shape[:-2]
        T, S, D, E = self.sizes = (q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1])
        need(self.params["scale"] > 0 and len(batch) <= _AXES)
        need(q.size and k.size and v.size)
        self.shape = (*batch, T, S)
        # An offset that is a tensor is the length of a cache: the kernel reads it when it runs.
        self.length = value_of(offset) if isinstance(offset, Ref) else None
        offset = 0 if self.length is not None else offset
        # The kernel for a cache knows nothing but a bool mask that hides keys
        biased = self.params.get("window") or self.params.get("slopes")
        hiding = mask is None or call.array(value_of(mask)).dtype == np.bool_
        self.simple = not biased and hiding and kept is None
        self.pairs, self.tiled = math.prod(batch), bool(self.params.get("tiled"))
        self.scores = self.pairs * T * S
        # Causal attention computes about half of the scores, in groups of rows a bit more.
        self.flops = 2.0 * self.scores * D * (0.6 if offset is not None else 1)
        # Units are pairs of batch and head. What broadcasts over them is read as a whole
        for i, name in zip(operands, ("g", "q", "k", "v")[-len(operands) :], strict=True):
            self.builder.use(i, name, share=call.array(i).shape[:-2] == batch)
        # The fields of attention_t, in its order: sizes, scale and causality, what biases scores,
        # what hides them, what dropout keeps
        numbers = ", ".join(map(str, (*(1, 1, *batch)[-2:], T, S, D, E)))
        scaled = f"{literal(self.params['scale'])}, {int(offset is not None)}, {offset or 0}"
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
        i = value_of(mask)
        a, s = self.layout.stand_in[i], self.layout.strides(i)
        kind = given({"bool": "BOOL_MASK", "float32": "FLOAT_MASK"}.get(a.dtype.name))
        need(a.ndim <= _AXES + 2)
        steps = ", ".join(map(str, (0,) * (_AXES + 2 - a.ndim) + s))
        return f"{kind}, {self.builder.use(i, 'mask')}, {{{steps}}}"

    def _dropout(self, kept: Any) -> str:
        """The weights that dropout keeps, and the factor."""
        if kept is None:
            return "NULL, 1"
        i = value_of(kept)
        need(plain(self.layout, i, dtype=np.bool_) and self.layout.stand_in[i].shape == self.shape)
        factor = literal(self.params.get("factor", 1.0))
        return f"{self.builder.use(i, 'kept', share=True)}, {factor}"

    def strided(self, values: list[int], names: str) -> str:
        """ "q, strides, k, strides ..."."""
        found = (_strides(self.layout, i) for i in values)
        return ", ".join(f"{name}, {s}" for name, s in zip(names.split(), found, strict=True))

    def tiles(self, how: str) -> str:
        """The call with these arguments, and scratch that stays in the cache of the thread: panels
        of k and v, and a group of rows of scores.
        """
        _, S, D, E = self.sizes
        scratch = f"scratch[PANELS({S}, {D}) + PANELS({E}, {S})], rows[GROUP * {S}]"
        call = f"attention_pairs({how}, rows, scratch, lo, hi);"
        return f"static _Thread_local float {scratch};\n    {call}"

    def saved(self, value: int | None, write: bool) -> str:
        """The pointers to P and to the two numbers per query, one of them NULL."""
        if value is None:
            return "NULL, NULL"
        need(plain(self.layout, value))
        name = self.builder.use(value, "stats" if self.tiled else "p", share=True, write=write)
        return f"NULL, {name}" if self.tiled else f"{name}, NULL"


@lowers("attention")
def _attention(call: Call) -> list[Kernel]:
    """Probabilities that nothing reads are made in a few rows of scratch, and tiled ones always."""
    o, saved = call.y, call.outputs[1]
    operands = [call.operand(i) for i in range(3)]
    a = _Attention(call, operands, call.line.operands[3:])
    if a.length is not None:
        need(saved is None)
        return [_cached_attention(a, operands, o)]
    strided, to = a.strided(operands, "q k v"), a.strided([o], "o")
    a.builder.writes(share=True, o=o)
    stored = a.saved(saved, write=True)
    how = f"{a.setting}, 0, {strided}, {to}, {stored}"
    return [a.builder.kernel("attention", a.tiles(how), a.pairs, 2 * a.flops + 20 * a.scores)]


def _cached_attention(a: _Attention, operands: list[int], o: int) -> Kernel:
    """Attention to a cache, of a few queries or in tiles. Raises NoC unless its length is an int64,
    and all that hides keys a bool mask.
    """
    layout, k, length = a.layout, a.builder, given(a.length)
    need(a.simple and layout.stand_in[length].dtype == np.int64)
    q, key, v = operands
    steps = (_strides(layout, q), _strides(layout, key, across=True), _strides(layout, v))
    names = ", ".join(f"{name}, {s}" for name, s in zip("qkv", steps, strict=True))
    to = a.strided([o], "o")
    k.reads(length=length)
    k.writes(share=True, o=o)
    T, S, _, E = a.sizes
    if T >= _MANY:
        filled = f"a.offset = *length, a.S = MAX(1, MIN({S}, *length + {T}));"
        body = f"attention_t a = {a.setting};\n    {filled}\n    "
        body += a.tiles(f"a, 1, {names}, {to}, NULL, NULL")
        return k.kernel("attention", body, a.pairs, 2 * a.flops + 20 * a.scores)
    k.writes(s=layout.scratch((a.pairs, S)))
    body = f"cached_attention_pairs({a.setting}, length, {names}, {to}, s, lo, hi);"
    return k.kernel("attention", body, a.pairs, a.flops + a.scores * E)


@lowers("attention_grad")
def _attention_grad(call: Call) -> list[Kernel]:
    """A cotangent of P, and the gradient of a mask, go through numpy."""
    g, gp, _, saved, *operands = call.line.operands
    need(gp is None and call.outputs[3] is None)
    values, to = [value_of(x) for x in (g, *operands[:3])], [given(i) for i in call.outputs[:3]]
    a = _Attention(call, values, tuple(operands[3:]))
    need(a.length is None)
    need(a.tiled or call.array(value_of(saved)).shape == a.shape)
    strided, into = a.strided(values, "g q k v"), a.strided(to, "gq gk gv")
    read = a.saved(value_of(saved), write=False)
    a.builder.writes(share=True, **dict(zip(("gq", "gk", "gv"), to, strict=True)))
    # Panels of k and v across, of k, q and g down. d holds a tile of dS, and a second one of P
    # where dropout changes it or it is computed again.
    T, S, D, E = a.sizes
    sizes = ((S, D), (S, E), (D, S), (D, T), (E, T))
    scratch = " + ".join(f"PANELS({m}, {n})" for m, n in sizes)
    halves = 2 if a.tiled or operands[4:5] not in ([], [None]) else 1
    body = (
        f"static _Thread_local float scratch[{scratch}], d[{halves} * QUERIES * {S}];\n    "
        f"attention_grad_pairs({a.setting}, {strided}, {read}, {into}, d, scratch, lo, hi);"
    )
    again = a.flops + 20 * a.scores if a.tiled else 0
    flops = 4 * a.flops + 6 * a.scores + again
    return [a.builder.kernel("attention_grad", body, a.pairs, flops)]


@lowers("append_")
def _append(call: Call) -> list[Kernel]:
    """Append to a cache, at a length that the kernel reads when it runs."""
    (cache, new, length), layout, k = call.operands(), call.layout, Builder(call)
    to, added = call.array(cache), call.array(new)
    need(to.dtype == added.dtype == FLOAT32 and to.size and call.array(length).dtype == np.int64)
    B, H, T, D = added.shape
    k.writes(cache=cache)
    k.reads(new=new, length=length)
    where, source = (
        f"(places_t){{{', '.join(map(str, layout.strides(i)))}}}" for i in (cache, new)
    )
    body = (
        f"append_pairs(cache, {where}, new, {source}, length, "
        f"{H}, {T}, {to.shape[2]}, {D}, lo, hi);"
    )
    kernel = k.kernel("append", body, B * H)
    kernel.bytes = 2.0 * added.nbytes
    return [kernel]
