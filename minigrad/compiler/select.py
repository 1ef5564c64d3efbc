"""From a program to kernels: which lines go together into one kernel, which have C, which go back
through numpy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from minigrad.compiler import attention, gathers, products, quantised, sampling, sums, updates
from minigrad.compiler.draws import Draws
from minigrad.compiler.elementwise import (
    is_addition,
    lower_copy,
    lower_elementwise,
    lower_parts,
    template,
)
from minigrad.compiler.kernel import Kernel
from minigrad.compiler.layout import Layout
from minigrad.compiler.lower import LOWERINGS, Call, Lowering, NoC, need
from minigrad.compiler.program import Line, Program, Ref
from minigrad.compiler.rows import has_rows, lower_rows
from minigrad.compiler.signatures import adds_residual
from minigrad.primitive import Primitive

# Their imports register their lowerings.
assert attention and gathers and products and quantised and sampling and sums and updates
_GROUP = 24  # lines in one fused loop at most


def lowering_of(op: Primitive) -> Lowering | None:
    """The lowering of an op that has C of its own, None for others and for ops of the user's."""
    if op.user_defined:
        return None
    return LOWERINGS.get(op.name) or (lower_rows if has_rows(op) else None)


class Selector:
    """Goes through the lines once. `chosen` is a list of kernels and of lines (by number) that are
    called back.
    """

    def __init__(self, program: Program, layout: Layout) -> None:
        self.program, self.layout = program, layout
        self.chosen: list[Kernel | int] = []
        self.makers: dict[int, int] = {}
        self.readers: dict[int, set[int]] = defaultdict(set)  # -1: it is handed out
        for number, line in enumerate(program.lines):
            for i in line.reads():
                self.readers[i].add(number)
            self.makers.update((i, number) for i in line.made())
        for i in (*program.results, *program.kept):
            self.readers[i].add(-1)
        # number of a line -> (number of the addition that it takes over, the other operand)
        self.absorbed = dict(self._absorbed())
        self.draws = Draws(program, layout)
        self.gone = {addition for addition, _ in self.absorbed.values()}
        self._choose()
        self.chosen.extend(self.draws.advance())

    def _absorbed(self) -> Iterator[tuple[int, tuple[int, int]]]:
        """The additions that the C of the line before can do: of its first output, which nothing
        else reads, and a value that is there by then.
        """
        # A product adds bias and residual while its sums are in registers, and a gradient what came
        # along the residual stream: the addition costs no pass through memory of its own
        taken = set()
        for number, line in enumerate(self.program.lines):
            if not is_addition(self.layout, line):
                continue
            a, b = line.reads()
            # In x + linear(y) the right operand is what a layer has just computed: it goes first.
            for value, other in ((b, a), (a, b)):
                maker = self.makers.get(value, -1)
                if maker >= 0 and maker not in taken and self._absorbs(maker, value, other, number):
                    taken.add(maker)
                    yield maker, (number, other)
                    break

    def _absorbs(self, maker: int, value: int, other: int, number: int) -> bool:
        line, out = self.program.lines[maker], self.program.lines[number].made()[0]
        arrays = [self.layout.stand_in[i] for i in (value, other, out)]
        # `other` must be there when the maker runs, and must not change until the addition
        return (
            adds_residual(line.op)
            and self.readers[value] == {number}
            and line.outputs[0] == value
            and self.makers.get(other, -1) < maker
            and self.layout.root[other] not in self.layout.changed
            and all(
                x.shape == arrays[0].shape and x.dtype == np.float32 and x.flags.c_contiguous
                for x in arrays
            )
        )

    def _nothing_to_do(self, number: int, line: Line) -> bool:
        view = line.op.kind == "view" and number not in self.layout.copies
        return view or number in self.layout.placed or number in self.gone

    def _choose(self) -> None:
        number, lines = 0, self.program.lines
        while number < len(lines):
            line = lines[number]
            if self._nothing_to_do(number, line):
                number += 1
                continue
            # A line that fits no loop, or whose loop would store nothing, is tried by itself; what
            # has no C at all is in `chosen` by its number.
            try:
                if group := self._group(number):
                    self.chosen.extend(self._fused(group))
                    number = group[-1][0] + 1
                    continue
            except NoC:
                pass
            try:
                self.chosen.extend(self._single(number, line))
            except NoC:
                self.chosen.append(number)
            number += 1

    def _single(self, number: int, line: Line) -> list[Kernel]:
        call, lowering = Call(self.layout, line, number), lowering_of(line.op)
        if number in self.absorbed and lowering is not None:
            addition, other = self.absorbed[number]
            out = self.program.lines[addition].made()[0]
            try:
                return lowering(replace(call, residual=other, out=out))
            except NoC:
                self.gone.discard(addition)  # it has to be done by itself
        if line.op.kind == "random":
            return self.draws.lower(call)
        if line.op.parts is not None:
            return lower_parts(call)
        if lowering is None:
            need(template(self.layout, line))
            return lower_elementwise(self.layout, [(number, line)], set(line.made()))
        try:
            return lowering(call)
        except NoC:
            return self._packed(call, lowering)

    def _packed(self, call: Call, lowering: Lowering) -> list[Kernel]:
        """The kernels of a line whose C wants rows without gaps, after copies of the operands that
        have them.
        """
        copies: list[Kernel] = []
        operands, layout, line = [], call.layout, call.line
        for x in line.operands:
            gaps = isinstance(x, Ref) and not layout.contiguous(x.index)
            if gaps and x.index not in line.changes():
                like = call.array(x.index)
                scratch = layout.scratch(like.shape, like.dtype)
                copies += lower_copy(call, x.index, call.array(scratch), scratch)
                x = Ref(scratch)
            operands.append(x)
        if not copies:
            raise NoC
        return [*copies, *lowering(replace(call, line=replace(line, operands=tuple(operands))))]

    # --- loops

    def _group(self, number: int) -> list[tuple[int, Line]]:
        """Elementwise lines from `number` on that make values of one shape, with only views in
        between.
        """
        found: list[tuple[int, Line]] = []
        shape, made = None, set[int]()
        for n in range(number, len(self.program.lines)):
            line = self.program.lines[n]
            if self._nothing_to_do(n, line):
                continue
            if len(found) == _GROUP or lowering_of(line.op) or not template(self.layout, line):
                break
            out = line.made()[0]
            # One loop has one shape; operands may broadcast to it.
            if shape is not None and self.layout.stand_in[out].shape != shape:
                break
            # A view of what the loop makes would read it before it is whole.
            if any(self.layout.root[i] in made and i not in made for i in line.reads()):
                break
            if any(not isinstance(x, (Ref, int, float)) for x in line.operands):
                break
            shape = self.layout.stand_in[out].shape
            made.add(out)
            found.append((n, line))
        return found

    def _fused(self, group: list[tuple[int, Line]]) -> list[Kernel]:
        """One loop for these lines, which stores what others read, too, views among them."""
        numbers = {n for n, _ in group}
        made = (i for _, line in group for i in line.made())
        stored = {i for i in made if not self.readers[i] <= numbers}
        need(stored)
        return lower_elementwise(self.layout, group, stored)
