"""Random bits in C, of dropout and of attention's: the bits of Philox 4x32-10 at the places where
numpy would have drawn them.

The counter is advanced once, at the end of the step: each draw knows how far after the counter it
begins. So a step that stops at a wrong index has drawn nothing, and draws do not wait for each
other.
"""

from __future__ import annotations

import numpy as np

from minigrad.compiler.kernel import Kernel
from minigrad.compiler.layout import Layout
from minigrad.compiler.lower import Builder, Call, literal, need, plain, rows_of
from minigrad.compiler.program import Line, Program, Ref
from minigrad.compiler.signatures import has_flag


class Draws:
    """Lowers the random lines of a program, if C draws what all of them draw; else none, and numpy
    draws in order.
    """

    def __init__(self, program: Program, layout: Layout) -> None:
        self.layout = layout
        self.drawn: dict[int, int] = {}  # root of a state -> blocks drawn so far
        self.last: dict[int, Call] = {}  # root of a state -> the last call that draws from it
        random = [line for line in program.lines if line.op.kind == "random"]
        states = {layout.root[i] for line in random for i in line.changes()}
        # Where a state is also set or read by another op, as by checkpoint(), it must be up to
        # date at each line.
        others = (line for line in program.lines if line.op.kind != "random")
        self.possible = all(map(self._fits, random)) and not any(
            layout.root[i] in states for line in others for i in line.reads()
        )

    def _fits(self, line: Line) -> bool:
        if not has_flag(line.op, "draws") or not all(isinstance(x, Ref) for x in line.operands):
            return False
        *values, state = line.reads()
        layout, made = self.layout, line.made()
        floats = plain(layout, *values, *made) if values else layout.contiguous(made[0])
        return floats and layout.contiguous(state) and layout.stand_in[made[0]].size > 0

    def lower(self, call: Call) -> list[Kernel]:
        """The kernel of a dropout, y = x * mask and the mask, or of `kept`, which is the mask as
        bools.
        """
        need(self.possible)
        *values, state = call.operands()
        *outputs, mask = call.line.made()
        root, (rows, C) = self.layout.root[state], rows_of(self.layout, mask)
        before = self.drawn.get(root, 0)
        self.drawn[root], self.last[root] = before + -(-rows * C // 4), call
        p, k = float(call.line.params["p"]), Builder(call)
        k.reads(state=state)
        k.writes(share=True, mask=mask)
        threshold, span = min(round(p * 2.0**32), 2**32 - 1), f"lo * {C}, hi * {C}"
        x, to, flops = "NULL", f"NULL, NULL, mask, {threshold}u, 0", 15
        if values:
            k.reads(share=True, x=values[0])
            k.writes(share=True, y=outputs[0])
            factor = literal(float(np.float32(1 / (1 - p) if p < 1 else 0)))
            x, to, flops = "x", f"y, mask, NULL, {threshold}u, {factor}", 20
        body = f"dropout_range({x}, state, {before}, {to}, {span});"
        return [k.kernel(call.line.op.name, body, rows, flops * rows * C)]

    def advance(self) -> list[Kernel]:
        """Advance the counters, when all has been drawn."""
        kernels = []
        for root, call in self.last.items():
            k = Builder(call)
            k.writes(state=call.operands()[-1])
            body = f"(void)lo, (void)hi; state[1] += {self.drawn[root]}u;"
            kernels.append(k.kernel("advance", body, 1, solo=True))
        return kernels
