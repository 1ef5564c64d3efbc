"""Attention, rotary positions and RMSNorm in C."""

from __future__ import annotations

import numpy as np

from minigrad.compiler.kernel import Kernel
from minigrad.compiler.layout import Layout
from minigrad.compiler.lower import (
    BLOCK,
    Builder,
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


def _leading(layout: Layout, i: int) -> tuple[int, ...] | None:
    """Strides of the leading axes, as many as C wants, 0 where the operand is broadcast; None if
    there are too many.
    """
    steps = layout.strides(i)[:-2]
    return None if len(steps) > _AXES else (0,) * (_AXES - len(steps)) + steps


def _pairs(layout: Layout, i: int) -> str | None:
    """The strides_t literal of a (..., T, D) value, None if its rows are not whole."""
    a, s = layout.stand_in[i], layout.strides(i)
    if (
        a.ndim < 2
        or a.dtype != np.float32
        or (a.shape[-1] > 1 and s[-1] != 1)
        or s[-2] < (a.shape[-1] if a.shape[-2] > 1 else 0)
    ):
        return None
    lead = _leading(layout, i)
    return (
        None
        if lead is None
        else f"(strides_t){{{', '.join(map(str, lead))}, {s[-2] or a.shape[-1]}}}"
    )


def _mask(layout: Layout, k: Builder, i: int | None) -> str | None:
    """Kind, pointer and strides of a mask, as attention_t wants them; None if there is no C for it."""
    if i is None:
        return "NO_MASK, NULL, {0}"
    a, s = layout.stand_in[i], layout.strides(i)
    s, kind = (
        (0,) * (2 - a.ndim) + s,
        {"bool": "BOOL_MASK", "float32": "FLOAT_MASK"}.get(a.dtype.name),
    )
    if kind is None or len(s) > _AXES + 2:
        return None
    lead = (0,) * (_AXES + 2 - len(s)) + s
    return f"{kind}, {k.use(i, 'mask')}, {{{', '.join(map(str, lead))}}}"


class _Call:
    """What the kernels of an attention line and of its gradient have in common. Raises ValueError
    where C has no form for the line.

    shape: (..., T, S).   mask, kept: values, or None.   sizes, setting: T, S, D, E and the
        attention_t literal.
    """

    def __init__(
        self,
        layout: Layout,
        line: Line,
        number: int,
        shape: tuple[int, ...],
        operands: list[int],
        mask: int | None,
        kept: int | None,
    ) -> None:
        q, k, v = (layout.stand_in[i] for i in operands[-3:])
        self.layout, self.builder, self.batch = layout, Builder(layout, line, number), shape[:-2]
        odd = (
            line.params.get("window") is not None
            or line.params.get("slopes") is not None
            or not line.params["scale"] > 0
        )
        if odd or len(self.batch) > _AXES or any(0 in x.shape for x in (q, k, v)):
            raise ValueError
        if kept is not None and (
            not plain(layout, kept, dtype=np.bool_) or layout.stand_in[kept].shape != shape
        ):
            raise ValueError
        self.pairs, self.sizes = int(np.prod(self.batch)), (*shape[-2:], q.shape[-1], v.shape[-1])
        self.scores = self.pairs * shape[-2] * shape[-1]
        offset = line.params.get("offset")
        self.flops = 2.0 * self.scores * q.shape[-1] * (0.6 if offset is not None else 1)
        for i, name in zip(operands, ("g", "q", "k", "v")[-len(operands) :], strict=True):
            self.builder.use(i, name, share=layout.stand_in[i].shape[:-2] == self.batch)
        hiding = _mask(layout, self.builder, mask)
        if hiding is None:
            raise ValueError
        dropping = (
            "NULL, 1"
            if kept is None
            else f"{self.builder.use(kept, 'kept', share=True)}, {literal(line.params['factor'])}"
        )
        middle, last = (1, 1, *self.batch)[-2:]
        numbers = ", ".join(map(str, (middle, last, *self.sizes)))
        scaled = f"{literal(line.params['scale'])}, {int(offset is not None)}, {offset or 0}"
        self.setting = f"(attention_t){{{numbers}, {scaled}, {hiding}, {dropping}}}"

    def strided(self, values: list[int], names: str) -> str:
        """ "q, strides, k, strides ...". Raises ValueError where rows are not whole."""
        found = [_pairs(self.layout, i) for i in values]
        if None in found:
            raise ValueError
        return ", ".join(f"{name}, {s}" for name, s in zip(names.split(), found, strict=True))

    def rows(self, i: int | None, name: str, write: bool = False) -> str:
        """A pointer to a value of which each pair has its share, "NULL" for none. Raises ValueError
        unless it is whole.
        """
        if i is None:
            return "NULL"
        if not plain(self.layout, i):
            raise ValueError
        return self.builder.use(i, name, share=True, write=write)


@lowers("attention", "dropped_attention", "flash_attention")
def _attention(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    """Probabilities that nobody reads are made in a few rows of scratch; a flash_attention's always
    are.
    """
    q, key, v, *more = (x.index for x in line.operands if isinstance(x, Ref))
    kept = more.pop(0) if line.op.name == "dropped_attention" else None
    o, *kept_values = line.outputs
    p, (top, total) = (
        (None, kept_values) if line.op.name == "flash_attention" else (kept_values[0], (None, None))
    )
    assert o is not None
    shape = (*layout.stand_in[o].shape[:-1], layout.stand_in[key].shape[-2])
    try:
        call = _Call(layout, line, number, shape, [q, key, v], more[0] if more else None, kept)
        strided = call.strided([q, key, v], "q k v")
        to = call.strided([o], "o")
        call.builder.use(o, "o", share=True, write=True)
        stored = ", ".join(
            call.rows(i, name, write=True) for i, name in ((p, "p"), (top, "top"), (total, "total"))
        )
    except ValueError:
        return None
    _, S, D, E = call.sizes
    body = (
        f"static _Thread_local float room[PANELS({S}, {D}) + PANELS({E}, {S})], rows[ROWS * "
        f"{S}];\n    "
        f"attention_pairs({call.setting}, {strided}, {to}, {stored}, rows, room, lo, hi);"
    )
    return [call.builder.kernel(line.op.name, body, call.pairs, 2 * call.flops + 20 * call.scores)]


@lowers("attention_grad", "dropped_attention_grad", "flash_attention_grad")
def _attention_grad(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    """What the mask hides has probability 0: only probabilities that are made again need it. Its
    own gradient goes through numpy.
    """
    g, q, key, v, *more = (x.index for x in line.operands if isinstance(x, Ref))
    flash, kept = (
        line.op.name == "flash_attention_grad",
        more.pop(0) if line.op.name == "dropped_attention_grad" else None,
    )
    gq, gk, gv = line.outputs[:3]
    assert gq is not None and gk is not None and gv is not None
    p, top, total = (None, *more[1:3]) if flash else (more[0], None, None)
    mask = more[3] if flash and len(more) > 3 else None
    shape = (*layout.stand_in[g].shape[:-1], layout.stand_in[key].shape[-2])
    if line.outputs[3:] not in ((), (None,)) or (
        p is not None and layout.stand_in[p].shape != shape
    ):
        return None
    try:
        call = _Call(layout, line, number, shape, [g, q, key, v], mask, kept)
        strided, to = (
            call.strided([g, q, key, v], "g q k v"),
            call.strided([gq, gk, gv], "gq gk gv"),
        )
        read = ", ".join(
            call.rows(i, name) for i, name in ((p, "p"), (top, "top"), (total, "total"))
        )
    except ValueError:
        return None
    for i, name in ((gq, "gq"), (gk, "gk"), (gv, "gv")):
        call.builder.use(i, name, share=True, write=True)
    T, S, D, E = call.sizes
    room = (
        f"PANELS({S}, {D}) + PANELS({S}, {E}) + PANELS({D}, {S}) + PANELS({D}, {T}) + "
        f"PANELS({E}, {T})"
    )
    tiles = 1 if kept is None and not flash else 2
    body = (
        f"static _Thread_local float room[{room}], d[{tiles} * TILE * {S}];\n    "
        f"attention_grad_pairs({call.setting}, {strided}, {read}, {to}, d, room, lo, hi);"
    )
    again = call.flops + 20 * call.scores if flash else 0
    return [
        call.builder.kernel(
            line.op.name, body, call.pairs, 4 * call.flops + 6 * call.scores + again
        )
    ]


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
