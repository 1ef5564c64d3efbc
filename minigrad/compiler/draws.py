"""Random bits in C, of dropout and of attention's: the bits of Philox 4x32-10 at the places where
numpy would have drawn them.

The counter is advanced once, at the end of the step: each draw knows how far behind the counter it
begins. So a step that stops at a wrong index has drawn nothing, and draws do not wait for each
other.
"""

from __future__ import annotations

import numpy as np

from minigrad.compiler.kernel import Kernel
from minigrad.compiler.layout import Layout
from minigrad.compiler.lower import Builder, literal, plain, rows_of
from minigrad.compiler.program import Line, Program, Ref


class Draws:
    """Lowers the random lines of a program, if all of them are `kept` or dropouts of float32
    values; else none, and numpy draws in order.
    """

    def __init__(self, program: Program, layout: Layout) -> None:
        self.layout = layout
        self.drawn: dict[int, int] = {}  # root of a state -> blocks drawn so far
        self.last: dict[
            int, tuple[int, Line, int]
        ] = {}  # root of a state -> (number of its last line, the line, the state)
        random = [line for line in program.lines if line.op.kind == "random"]
        states = {layout.root[i] for line in random for i in line.changes()}
        # Where a state is also set or read by another op, as by checkpoint(), it must stand where
        # it should at each line.
        others = (line for line in program.lines if line.op.kind != "random")
        self.possible = all(map(self._fits, random)) and not any(
            layout.root[i] in states for line in others for i in line.reads()
        )

    def _fits(self, line: Line) -> bool:
        if line.op.name not in ("dropout", "kept") or not all(
            isinstance(x, Ref) for x in line.operands
        ):
            return False
        *values, state = line.reads()
        made = line.made()[0]
        floats = (
            plain(self.layout, *values, *line.made()) if values else self.layout.contiguous(made)
        )
        return floats and self.layout.contiguous(state) and self.layout.stand_in[made].size > 0

    def lower(self, number: int, line: Line) -> list[Kernel] | None:
        """The kernel of a dropout, y = x * mask and the mask, or of `kept`, which is the mask as
        bools.
        """
        if not self.possible:
            return None
        *values, state = line.reads()
        *outputs, mask = line.made()
        root, (rows, C) = self.layout.root[state], rows_of(self.layout, mask)
        before = self.drawn.get(root, 0)
        self.drawn[root] = before + -(-rows * C // 4)
        self.last[root] = number, line, state
        p = float(line.params["p"])
        k = Builder(self.layout, line, number)
        k.use(state, "state"), k.use(mask, "mask", share=True, write=True)
        threshold = min(round(p * 2.0**32), 2**32 - 1)
        if not values:
            body = (
                f"dropout_range(NULL, state, {before}, NULL, NULL, mask, {threshold}u, 0, lo * "
                f"{C}, hi * {C});"
            )
            return [k.kernel("kept", body, rows, 15 * rows * C)]
        k.use(values[0], "x", share=True), k.use(outputs[0], "y", share=True, write=True)
        factor = literal(float(np.float32(1 / (1 - p) if p < 1 else 0)))
        body = (
            f"dropout_range(x, state, {before}, y, mask, NULL, {threshold}u, {factor}, lo * "
            f"{C}, hi * {C});"
        )
        return [k.kernel("dropout", body, rows, 20 * rows * C)]

    def advance(self) -> list[Kernel]:
        """The counters' way forward, when all has been drawn."""
        kernels = []
        for root, (number, line, state) in self.last.items():
            k = Builder(self.layout, line, number)
            k.use(state, "state", write=True)
            kernels.append(
                k.kernel(
                    "advance", f"(void)lo, (void)hi; state[1] += {self.drawn[root]}u;", 1, solo=True
                )
            )
        return kernels
