"""Appending to a cache in C, at a length that the kernel reads when it runs."""

from __future__ import annotations

import numpy as np

from minigrad.compiler.kernel import Kernel
from minigrad.compiler.layout import Layout
from minigrad.compiler.lower import Builder, index, lowers
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
