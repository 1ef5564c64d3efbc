"""Attention, rotary positions and RMSNorm in C."""

from __future__ import annotations

import numpy as np

from minigrad.compiler.kernel import Kernel
from minigrad.compiler.layout import Layout
from minigrad.compiler.lower import BLOCK, Builder, column_sums, index, literal, lowers, plain, rows_of
from minigrad.compiler.program import Line, Ref

_AXES = 3  # leading axes of an operand of attention at most: batch, heads, and heads that share one of k and v


def _leading(layout: Layout, i: int) -> tuple[int, ...] | None:
    """Strides of the leading axes, as many as C wants, 0 where the operand is broadcast; None if there are too many."""
    steps = layout.strides(i)[:-2]
    return None if len(steps) > _AXES else (0,) * (_AXES - len(steps)) + steps


def _pairs(layout: Layout, i: int) -> str | None:
    """The strides_t literal of a (..., T, D) value, None if its rows are not whole."""
    a, s = layout.stand_in[i], layout.strides(i)
    if a.ndim < 2 or a.dtype != np.float32 or (a.shape[-1] > 1 and s[-1] != 1) or s[-2] < (a.shape[-1] if a.shape[-2] > 1 else 0):
        return None
    lead = _leading(layout, i)
    return None if lead is None else f"(strides_t){{{', '.join(map(str, lead))}, {s[-2] or a.shape[-1]}}}"


def _mask(layout: Layout, i: int | None) -> tuple[str, str] | None:
    """The kind of a mask as a C constant and its strides as a mask_t literal; None if there is no C for it."""
    if i is None:
        return "NO_MASK", "(mask_t){0}"
    a, s = layout.stand_in[i], layout.strides(i)
    s, kind = (0,) * (2 - a.ndim) + s, {"bool": "BOOL_MASK", "float32": "FLOAT_MASK"}.get(a.dtype.name)
    if kind is None or len(s) > _AXES + 2:
        return None
    lead = (0,) * (_AXES + 2 - len(s)) + s
    return kind, f"(mask_t){{{', '.join(map(str, lead))}}}"


class _Sizes:
    """The sizes of an attention line. Raises ValueError where C has no form for it."""

    def __init__(self, layout: Layout, line: Line, p_shape: tuple[int, ...], q: int, k: int, v: int) -> None:
        shapes = [layout.stand_in[i].shape for i in (q, k, v)]
        self.batch = p_shape[:-2]
        if len(self.batch) > _AXES or any(0 in s for s in shapes) or not line.params["scale"] > 0:
            raise ValueError
        self.pairs = int(np.prod(self.batch))
        self.shape = T, S, D, E = (*p_shape[-2:], shapes[0][-1], shapes[2][-1])
        _, middle, last = (1,) * (_AXES - len(self.batch)) + self.batch
        offset = line.params.get("offset")
        self.scores = self.pairs * T * S
        self.flops = 2.0 * self.scores * D * (0.6 if offset is not None else 1)
        self.text = (f"{middle}, {last}, {T}, {S}, {D}, {E}, {literal(line.params['scale'])}, {int(offset is not None)}, "
                     f"{offset or 0}")  # fmt: skip

    def shares(self, layout: Layout, i: int) -> bool:
        """True if each pair has a part of the operand to itself."""
        return layout.stand_in[i].shape[:-2] == self.batch


def _whole(layout: Layout, kept: int | None, shape: tuple[int, ...]) -> bool:
    """True unless dropout's bools do not lie as the probabilities do."""
    return kept is None or (layout.contiguous(kept) and layout.stand_in[kept].shape == shape and layout.stand_in[kept].dtype == np.bool_)


def _dropping(k: Builder, kept: int | None, line: Line) -> str:
    """The arguments `kept, factor` of an attention kernel."""
    return "NULL, 1" if kept is None else f"{k.use(kept, 'kept', share=True)}, {literal(line.params['factor'])}"


@lowers("attention", "dropped_attention")
def _attention(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    q, key, v, *more = (x.index for x in line.operands if isinstance(x, Ref))
    kept = more.pop(0) if line.op.name == "dropped_attention" else None
    mask = more[0] if more else None
    o, p = line.outputs
    assert o is not None
    strides, masked = [_pairs(layout, i) for i in (q, key, v, o)], _mask(layout, mask)
    shape = (*layout.stand_in[o].shape[:-1], layout.stand_in[key].shape[-2])
    try:
        sizes = _Sizes(layout, line, shape, q, key, v)
    except ValueError:
        return None
    if None in strides or masked is None or (p is not None and not plain(layout, p)) or not _whole(layout, kept, shape):
        return None
    k = Builder(layout, line, number)
    for i, name in ((q, "q"), (key, "k"), (v, "v")):
        k.use(i, name, share=sizes.shares(layout, i))
    seen = "NULL" if mask is None else k.use(mask, "mask")
    dropping = _dropping(k, kept, line)
    k.use(o, "o", share=True, write=True)
    k.use(layout.scratch((sizes.pairs, sizes.scores // sizes.pairs)) if p is None else p, "p", share=True, write=True)
    sq, sk, sv, so = strides
    _, S, D, E = sizes.shape
    dropped = 1 if kept is None else f"ROWS * {S}"
    body = (f"static _Thread_local float room[PANELS({S}, {D}) + PANELS({E}, {S})], dropped[{dropped}];\n    "
            f"attention_pairs(q, {sq}, k, {sk}, v, {sv}, {masked[0]}, {seen}, {masked[1]}, {dropping}, dropped, "
            f"o, {so}, p, room, {sizes.text}, lo, hi);")
    return [k.kernel(line.op.name, body, sizes.pairs, 2 * sizes.flops + 20 * sizes.scores)]


@lowers("attention_grad", "dropped_attention_grad")
def _attention_grad(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    """What the mask hides has probability 0, so backward does not need it; its own gradient goes through numpy."""
    g, q, key, v, *more = (x.index for x in line.operands if isinstance(x, Ref))
    kept = more.pop(0) if line.op.name == "dropped_attention_grad" else None
    p = more[0]
    gq, gk, gv, gm = line.outputs
    assert gq is not None and gk is not None and gv is not None
    strides = [_pairs(layout, i) for i in (g, q, key, v, gq, gk, gv)]
    shape = layout.stand_in[p].shape
    try:
        sizes = _Sizes(layout, line, shape, q, key, v)
    except ValueError:
        return None
    if gm is not None or None in strides or not plain(layout, p) or layout.stand_in[g].shape[:-2] != sizes.batch or not _whole(layout, kept, shape):
        return None
    k = Builder(layout, line, number)
    for i, name in ((g, "g"), (q, "q"), (key, "k"), (v, "v"), (p, "p")):
        k.use(i, name, share=sizes.shares(layout, i))
    dropping = _dropping(k, kept, line)
    for i, name in ((gq, "gq"), (gk, "gk"), (gv, "gv")):
        k.use(i, name, share=True, write=True)
    sg, sq, sk, sv, tq, tk, tv = strides
    strided = ", ".join(f"{name}, {s}" for name, s in (("g", sg), ("q", sq), ("k", sk), ("v", sv)))
    T, S, D, E = sizes.shape
    room = f"PANELS({S}, {E}) + PANELS({D}, {S}) + PANELS({D}, {T}) + PANELS({E}, {T})"
    body = (f"static _Thread_local float room[{room}], d[{1 if kept is None else 2} * TILE * {S}];\n    "
            f"attention_grad_pairs({strided}, {dropping}, p, gq, {tq}, gk, {tk}, gv, {tv}, d, room, {sizes.text}, lo, hi);")  # fmt: skip
    return [k.kernel(line.op.name, body, sizes.pairs, 4 * sizes.flops + 6 * sizes.scores)]


@lowers("rope")
def _rope(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    x, cos, sin = (index(i) for i in line.operands)
    y = line.made()[0]
    a, table = layout.stand_in[x], layout.stand_in[cos]
    D, half, steps, turns = a.shape[-1], table.shape[-1], layout.strides(x), layout.strides(cos)
    fits = all(layout.stand_in[i].dtype == np.float32 for i in (x, cos, sin)) and a.size > 0 and half > 0 and plain(layout, y)
    if not fits or (D > 1 and steps[-1] != 1) or (half > 1 and turns[-1] != 1) or turns != layout.strides(sin):
        return None
    turns = (0,) * (a.ndim - table.ndim) + turns
    k = Builder(layout, line, number)
    k.use(x, "x", share=True), k.use(cos, "cos"), k.use(sin, "sin"), k.use(y, "y", share=True, write=True)
    places, below = [], 1
    for n, s, t in zip(a.shape[-2::-1], steps[-2::-1], turns[-2::-1], strict=True):
        places.append((f"r / {below} % {n} * {s}", f"r / {below} % {n} * {t}") if n > 1 else ("0", "0"))
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
    g, x, scale, weight = index(line.operands[0]), index(line.operands[1]), index(line.operands[3]), line.operands[2]
    gx, gw = line.outputs
    weights = [weight.index] if isinstance(weight, Ref) else []
    assert gx is not None and gw is not None
    if not plain(layout, g, x, scale, gx, *weights) or layout.stand_in[x].size == 0:
        return None
    rows, C = rows_of(layout, x)
    blocks, whole = -(-rows // BLOCK), rows % BLOCK == 0  # a short last block makes units no equal shares
    part = layout.scratch((blocks, C))
    k = Builder(layout, line, number)
    k.use(g, "g", share=whole), k.use(x, "x", share=whole)
    w = k.use(weights[0], "weight") if weights else "NULL"
    k.use(scale, "scale", share=whole), k.use(gx, "gx", share=whole, write=True), k.use(part, "part", share=True, write=True)
    body = f"rms_norm_grad_blocks(g, x, {w}, scale, gx, part, {rows}, {C}, lo, hi);"
    return [k.kernel("rms_norm_grad", body, blocks, 10 * rows * C), column_sums(layout, line, number, part, gw, blocks, C)]
