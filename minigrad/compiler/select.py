"""From a program to kernels: which lines go together into one kernel, which have C, which go back
through numpy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from minigrad import ops
from minigrad.compiler import (
    attention,
    cached,
    expressions,
    gathers,
    lower,
    reductions,
    sums,
    updates,
)
from minigrad.compiler.draws import Draws
from minigrad.compiler.kernel import Kernel
from minigrad.compiler.layout import Layout
from minigrad.compiler.lower import LOWERINGS
from minigrad.compiler.passes import with_recomputation, with_tiled_attention
from minigrad.compiler.program import Line, Program, Ref
from minigrad.dtypes import Array

assert (
    attention and cached and gathers and reductions and sums and updates
)  # their imports register their lowerings
_ABSORBERS = {
    "linear",
    "layer_norm_grad",
}  # kernels that can add another value to their first output
_GROUP = 24  # lines in one fused loop at most


def for_c(program: Program) -> Program:
    """The program as C wants it: GELU's backward works its exponential out again instead of reading
    it, attention its probabilities where those are large, and outputs that nobody reads are not
    made."""
    single = [v.dtype == np.float32 and v.size > 0 for v in program.values]
    lines = []
    for line in program.lines:
        if line.op.name == "gelu_tanh_grad" and all(single[i] for i in line.reads()):
            line = replace(line, operands=(*line.operands[:2], None))
        lines.append(line)
    wanted = {*program.results, *program.kept, *(i for line in lines for i in line.reads())}
    spare = {"gelu_tanh": 1, "attention": 1}
    for n, line in enumerate(lines):
        if (at := spare.get(line.op.name)) is not None and line.outputs[at] not in wanted:
            lines[n] = replace(line, outputs=(*line.outputs[:at], None, *line.outputs[at + 1 :]))
    return with_recomputation(with_tiled_attention(program.with_lines(lines)))


class Selector:
    """Goes through the lines once. `chosen` is a list of kernels and of lines (by number) that are
    called back.
    """

    def __init__(self, program: Program, layout: Layout) -> None:
        self.program, self.layout = program, layout
        self.chosen: list[Kernel | int] = []
        self.uses: dict[int, int] = {}
        self.makers: dict[int, int] = {}
        for number, line in enumerate(program.lines):
            for i in line.reads():
                self.uses[i] = self.uses.get(i, 0) + 1
            self.makers.update((i, number) for i in line.made())
        for i in (*program.results, *program.kept):
            self.uses[i] = self.uses.get(i, 0) + 2
        self.absorbed = dict(
            self._absorbed()
        )  # number of a line -> (number of the addition it takes over, the other operand)
        self.draws = Draws(program, layout)
        self.gone = {addition for addition, _ in self.absorbed.values()}
        self._choose()
        self.chosen.extend(self.draws.advance())

    def _absorbed(self) -> Iterator[tuple[int, tuple[int, int]]]:
        taken = set()
        for number, line in enumerate(self.program.lines):
            if line.op.name != "add" or not all(isinstance(x, Ref) for x in line.operands):
                continue
            a, b = (x.index for x in line.operands)
            for value, other in ((b, a), (a, b)):
                maker = self.makers.get(value, -1)
                if (
                    maker < 0
                    or maker in taken
                    or self.uses[value] != 1
                    or self.program.lines[maker].op.name not in _ABSORBERS
                ):
                    continue
                arrays = [self.layout.stand_in[i] for i in (value, other, line.made()[0])]
                alike = all(
                    x.shape == arrays[0].shape and x.dtype == np.float32 and x.flags.c_contiguous
                    for x in arrays
                )
                if (
                    alike
                    and self.program.lines[maker].outputs[0] == value
                    and self._made_before(other, maker)
                ):
                    taken.add(maker)
                    yield maker, (number, other)
                    break

    def _made_before(self, value: int, number: int) -> bool:
        return (
            self.makers.get(value, -1) < number and self.program.values[value].source == "temporary"
        )

    def _choose(self) -> None:
        number, lines = 0, self.program.lines
        while number < len(lines):
            line = lines[number]
            if (
                number in self.layout.placed
                or number in self.gone
                or (line.op.kind == "view" and number not in self.layout.copies)
            ):
                number += 1
                continue
            group = self._group(number)
            if group:
                kernel = self._fused(group)
                if kernel is not None:
                    self.chosen.append(kernel)
                    number = group[-1][0] + 1
                    continue
            try:
                kernels = self._single(number, line)
            except lower.NoC:
                kernels = None
            self.chosen.extend(kernels or [number])
            number += 1

    def _single(self, number: int, line: Line) -> list[Kernel] | None:
        if number in self.absorbed:
            addition, other = self.absorbed[number]
            out = self.program.lines[addition].made()[0]
            function = (
                lower.lower_linear if line.op.name == "linear" else lower.lower_layer_norm_grad
            )
            if kernels := function(self.layout, line, number, other, out):
                return kernels
            self.gone.discard(addition)  # it has to be done by itself
        if line.op.kind == "random":
            return self.draws.lower(number, line)
        if line.op.name == "assign":
            return self._assign(number, line)
        copies = self._copies(number, line)
        if copies is not None:
            return copies
        if line.op.name in LOWERINGS:
            return LOWERINGS[line.op.name](self.layout, line, number) or self._packed(number, line)
        if (
            line.op.kind == "elementwise"
            and len(line.made()) == 1
            and expressions.template(self.layout, line)
        ):
            kernel = expressions.lower_elementwise(self.layout, [(number, line)], set(line.made()))
            return None if kernel is None else [kernel]
        return None

    def _packed(self, number: int, line: Line) -> list[Kernel] | None:
        """The kernels of a line whose C wants rows without gaps, behind copies of the operands that
        have them; None if that does not help.
        """
        copies, operands = [], []
        for i, x in enumerate(line.operands):
            changed = line.op.kind == "effect" and i < line.params.get("changes", 1)
            if isinstance(x, Ref) and not changed and not self.layout.contiguous(x.index):
                like = self.layout.stand_in[x.index]
                room = self.layout.scratch(like.shape, like.dtype)
                copy = self._copy(number, line, x, self.layout.stand_in[room], room)
                if copy is None:
                    return None
                copies.append(copy)
                x = Ref(room)
            operands.append(x)
        kernels = (
            LOWERINGS[line.op.name](self.layout, replace(line, operands=tuple(operands)), number)
            if copies
            else None
        )
        return None if kernels is None else [*copies, *kernels]

    # --- loops

    def _group(self, number: int) -> list[tuple[int, Line]]:
        """Elementwise lines from `number` on that make values of one shape, with only views in
        between.
        """
        found: list[tuple[int, Line]] = []
        shape, made = None, set()
        for n in range(number, len(self.program.lines)):
            line = self.program.lines[n]
            if (
                n in self.layout.placed
                or n in self.gone
                or (line.op.kind == "view" and n not in self.layout.copies)
            ):
                continue
            if (
                line.op.kind != "elementwise"
                or line.op.name in LOWERINGS
                or len(line.made()) != 1
                or len(found) == _GROUP
            ):
                break
            out = self.layout.stand_in[line.made()[0]]
            if (shape is not None and out.shape != shape) or not expressions.template(
                self.layout, line
            ):
                break
            # A view of what the loop makes would read it before it is whole.
            if any(self.layout.root[i] in made and i not in made for i in line.reads()):
                break
            if any(not isinstance(x, (Ref, int, float)) for x in line.operands):
                break
            shape = out.shape
            made.add(line.made()[0])
            found.append((n, line))
        return found

    def _fused(self, group: list[tuple[int, Line]]) -> Kernel | None:
        inside: dict[int, int] = {}
        for _, line in group:
            for i in line.reads():
                inside[i] = inside.get(i, 0) + 1
        views = {
            i
            for n, line in enumerate(self.program.lines)
            if line.op.kind == "view" and n not in self.layout.copies
            for i in line.reads()
        }
        stored = {
            i
            for _, line in group
            for i in line.made()
            if self.uses.get(i, 0) > inside.get(i, 0) or i in views
        }
        return expressions.lower_elementwise(self.layout, group, stored) if stored else None

    # --- copies into another shape

    def _copies(self, number: int, line: Line) -> list[Kernel] | None:
        """Reshapes that must copy, heads put side by side, concatenation: each a copy into a view
        of the output.
        """
        layout, out = self.layout, next(iter(line.made() or line.reads()))
        y, refs, value = (
            layout.stand_in[out],
            [x for x in line.operands if isinstance(x, Ref)],
            line.params.get("value", 0),
        )
        sources = [layout.stand_in[x.index] for x in refs]
        if number in layout.copies and line.op.name == "reshape":
            targets = [y.reshape(sources[0].shape)]
        elif line.op.name == "merge_heads":
            B, H, T, D = sources[0].shape
            targets = [y.reshape(B, T, H, D).transpose(0, 2, 1, 3)]
        elif line.op.name == "join_heads":
            B, H, T, D = sources[0].shape
            targets = [y.reshape(B, T, 3, H, D)[:, :, i].transpose(0, 2, 1, 3) for i in range(3)]
        elif line.op.name == "ungetitem" and isinstance(
            part := y[line.params["index"]], np.ndarray
        ):
            targets = [part]
        elif line.op.name == "pad" and y.ndim and (value == 0 or y.dtype == np.float32):
            widths = line.params["widths"]
            targets = [
                y[
                    tuple(
                        slice(max(a, 0), n - max(b, 0))
                        for n, (a, b) in zip(y.shape, widths, strict=True)
                    )
                ]
            ]
            kept = sources[0][
                tuple(
                    slice(max(-a, 0), n - max(-b, 0))
                    for n, (a, b) in zip(sources[0].shape, widths, strict=True)
                )
            ]
            refs = [Ref(layout.name_view(kept, refs[0].index))]
        elif line.op.name == "cat" and len({s.dtype for s in (*sources, y)}) == 1:
            stops = np.cumsum([s.shape[line.params["axis"]] for s in sources])[:-1]
            targets = np.split(y, stops, line.params["axis"])
        else:
            return None
        kernels = (
            []
            if sum(t.size for t in targets) == y.size
            else [lower.filled(layout, line, number, out, value)]
        )
        for target, source in zip(targets, refs, strict=True):
            if target.size == 0:
                continue
            kernel = self._copy(number, line, source, target, out)
            if kernel is None:
                return None
            kernels.append(kernel)
        return kernels

    def _copy(
        self, number: int, line: Line, source: Ref, target: Array, value: int
    ) -> Kernel | None:
        """A copy into a view, `target`, of a value's memory."""
        virtual = self.layout.name_view(target, value)
        copy = Line(ops.copy, (source,), {}, (virtual,), line.where)
        return (
            expressions.lower_elementwise(self.layout, [(number, copy)], {virtual})
            if target.size
            else None
        )

    def _assign(self, number: int, line: Line) -> list[Kernel] | None:
        """A change in place, from memory that is not the target's own."""
        target, source = line.operands
        if (
            not isinstance(source, Ref)
            or self.layout.root[source.index] == self.layout.root[target.index]
        ):
            return None
        x, y = self.layout.stand_in[source.index], self.layout.stand_in[target.index]
        if x.dtype != y.dtype:
            return None
        if (
            x.ndim > y.ndim
        ):  # the axes in front have size 1, and the loop over the target does not know them
            source = Ref(
                self.layout.name_view(x.squeeze(tuple(range(x.ndim - y.ndim))), source.index)
            )
        kernel = self._copy(number, line, source, y, target.index)
        if kernel is None:
            return None
        kernel.name, kernel.solo = "assign", True
        return [kernel]
