"""The numpy back end: the program's lines as calls of the ops' own forwards, each value dropped
after its last use. The same bits as eager.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import numpy as np

from minigrad.compiler.program import Line, Program, Ref
from minigrad.dtypes import Array
from minigrad.tensor.core import run_op


class NumpyReplay:
    """Runs a program with numpy. Values, and after them scalar operands, are kept in slots by
    number.

    known: the arrays of constants and states.
    """

    kind = "numpy"

    def __init__(self, program: Program, known: Mapping[int, Array]) -> None:
        self.program = program
        self._slots: list[Any] = [known.get(i) for i in range(len(program.values))]
        # The last line that touches a value: after it the array is dropped, as Python would drop it
        last = {
            i: number
            for number, line in enumerate(program.lines)
            for i in (*line.reads(), *line.made())
        }
        dead: list[list[int]] = [[] for _ in program.lines]
        for i in last.keys() - {*program.results, *program.kept}:
            if program.values[i].source == "temporary":
                dead[last[i]].append(i)
        self._steps = [self._step(*pair) for pair in zip(program.lines, dead, strict=True)]

    def _step(self, line: Line, dead: list[int]) -> tuple[Any, ...]:
        places = [x.index if isinstance(x, Ref) else self._scalar(x) for x in line.operands]
        # An itemgetter of several places gives a tuple, of one slice a list: either way what is to
        # be passed on
        one = slice(places[0], places[0] + 1)
        fetch = itemgetter(*places) if len(places) > 1 else itemgetter(one)
        # A result that is None, or that no line reads, goes to a slot of its own
        outputs = [self._scalar(None) if i is None else i for i in line.outputs]
        first = outputs[0] if line.op.outputs == 1 else None
        return line.op, fetch, line.params, first, outputs, dead

    def _scalar(self, x: Any) -> int:
        self._slots.append(x)
        return len(self._slots) - 1

    def rebind(self, states: Mapping[int, Array]) -> None:
        """Take over other arrays for states: after a parameter got another array."""
        for i, array in states.items():
            self._slots[i] = array

    def run(self, bound: Mapping[int, Array], left: Array | None = None) -> list[Array]:
        """Run all lines on the arrays of inputs, once, whatever is `left`; the arrays of results,
        then of kept values, always in new memory.
        """
        # A copy, so that two threads may replay at once
        slots = self._slots.copy()
        for i, array in bound.items():
            slots[i] = array
        for op, fetch, params, first, outputs, dead in self._steps:
            out = run_op(op, fetch(slots), params)
            if first is not None:
                slots[first] = out if type(out) is np.ndarray else np.asarray(out)
            else:
                for i, y in zip(outputs, out, strict=True):
                    slots[i] = y
            for i in dead:
                slots[i] = None
        taken: set[int] = set()
        return [self._own(slots[i], i, taken) for i in (*self.program.results, *self.program.kept)]

    def _own(self, array: Array, index: int, taken: set[int]) -> Array:
        """The array, or a copy if its memory is another's, too."""
        is_temporary = self.program.values[index].source == "temporary"
        alone = array.base is None and index not in taken and is_temporary
        taken.add(index)
        return array if alone and array.flags.writeable else np.array(array)
