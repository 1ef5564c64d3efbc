"""Attention to a cache in C: what is appended and how far is read depend on a length that the
kernels read when they run.
"""

from __future__ import annotations

import numpy as np

from minigrad.compiler.kernel import Kernel
from minigrad.compiler.layout import Layout
from minigrad.compiler.lower import Builder, index, literal, lowers
from minigrad.compiler.program import Line


def _places(layout: Layout, i: int) -> str:
    """The strides of a 4-d value as a C literal."""
    return "(places_t){" + ", ".join(map(str, layout.strides(i))) + "}"


@lowers("append_")
def _append(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    cache, new, length = (index(x) for x in line.operands)
    to, added = layout.stand_in[cache], layout.stand_in[new]
    if (
        {to.dtype, added.dtype} != {np.dtype(np.float32)}
        or 0 in to.shape
        or layout.stand_in[length].dtype != np.int64
    ):
        return None
    _, H, T, D = added.shape
    k = Builder(layout, line, number)
    k.use(cache, "cache", write=True), k.use(new, "more"), k.use(length, "length")
    body = (
        f"append_pairs(cache, {_places(layout, cache)}, more, {_places(layout, new)}, length, "
        f"{H}, {T}, {to.shape[2]}, {D}, lo, hi);"
    )
    kernel = k.kernel("append", body, added.shape[0] * H)
    kernel.bytes = 2.0 * added.nbytes
    return [kernel]


@lowers("cached_attention")
def _cached_attention(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    q, keys, values, length, first = (index(x) for x in line.operands)
    o = line.made()[0]
    arrays = [layout.stand_in[i] for i in (q, keys, values, o)]
    (B, H, T, D), capacity, E = arrays[0].shape, arrays[1].shape[2], arrays[2].shape[3]
    steps = [layout.strides(i) for i in (q, keys, values, o)]
    # The C reads keys by feature and values by position: there the filled part lies without gaps.
    whole = (
        D == 1 or steps[0][3] == 1,
        capacity == 1 or steps[1][2] == 1,
        E == 1 or steps[2][3] == 1,
        E == 1 or steps[3][3] == 1,
    )
    integers = [layout.stand_in[i] for i in (length, first)]
    if (
        any(a.dtype != np.float32 for a in arrays)
        or not all(whole)
        or any(a.dtype != np.int64 or not a.flags.c_contiguous for a in integers)
    ):
        return None
    k = Builder(layout, line, number)
    names = [
        k.use(i, name)
        for i, name in (
            (q, "q"),
            (keys, "keys"),
            (values, "values"),
            (length, "length"),
            (first, "first"),
        )
    ]
    k.use(o, "o", write=True), k.use(layout.scratch((B * H, capacity)), "s", write=True)
    q_places, k_places, v_places, o_places = (_places(layout, i) for i in (q, keys, values, o))
    body = (
        f"cached_attention_pairs(q, {q_places}, keys, {k_places}, values, {v_places}, "
        f"{', '.join(names[3:])}, o, {o_places}, s, "
        f"{H}, {H // arrays[1].shape[1]}, {T}, {capacity}, {D}, {E}, "
        f"{literal(line.params['scale'])}, lo, hi);"
    )
    return [k.kernel("cached_attention", body, B * H, 2.0 * B * H * T * capacity * (D + E) / 2)]
