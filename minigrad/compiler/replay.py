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

# Ops that are one ufunc: they write into the memory of an operand that nobody reads any more.
_UFUNCS = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "square": np.square,
}


def last_uses(program: Program) -> dict[int, int]:
    """value -> the number of the last line that reads or makes it; views are uses of what they are
    views of.
    """
    last: dict[int, int] = {}
    for number, line in enumerate(program.lines):
        for i in (*line.reads(), *line.made()):
            last[i] = number
    return last


class NumpyReplay:
    """Runs a program with numpy. Values are kept in slots by number."""

    kind = "numpy"

    def __init__(self, program: Program, constants: Mapping[int, Array]) -> None:
        self.program = program
        self._slots: list[Any] = [constants.get(i) for i in range(len(program.values))]
        last, held = last_uses(program), {*program.results, *program.kept}
        dead: list[list[int]] = [[] for _ in program.lines]
        for i, number in last.items():
            if i not in held and program.values[i].source == "temporary":
                dead[number].append(i)
        self._steps = [self._step(line, dead[number]) for number, line in enumerate(program.lines)]

    def _step(self, line: Line, dead: list[int]) -> tuple[Any, ...]:
        outputs = line.outputs[0] if line.op.outputs == 1 else line.outputs
        forward = _UFUNCS[line.op.name] if self._is_ufunc(line) else line.op.forward
        places = [self._place(x) for x in line.operands]
        # An itemgetter of several places gives a tuple, of one slice a list: either way what is to
        # be passed on.
        fetch = (
            itemgetter(*places) if len(places) > 1 else itemgetter(slice(places[0], places[0] + 1))
        )
        return forward, fetch, line.params, outputs, tuple(dead)

    def _place(self, x: Any) -> int:
        """The slot of an operand: a value's number, or one behind the values for a Python scalar."""
        if isinstance(x, Ref):
            return x.index
        self._slots.append(x)
        return len(self._slots) - 1

    def _is_ufunc(self, line: Line) -> bool:
        """A ufunc's result may be a scalar where the op's is wrapped: only arrays with axes take
        the short way.
        """
        return line.op.name in _UFUNCS and all(
            self.program.values[i].shape != () for i in line.made()
        )

    def run(self, bound: Mapping[int, Array]) -> list[Array]:
        """Run all lines on the arrays of inputs and states; the arrays of results, then of kept
        values, always in new memory.
        """
        slots = self._slots.copy()
        for i, array in bound.items():
            slots[i] = array
        with np.errstate(all="ignore"):
            for forward, fetch, params, outputs, dead in self._steps:
                out = forward(*fetch(slots), **params) if params else forward(*fetch(slots))
                if type(outputs) is tuple:
                    for i, y in zip(outputs, out, strict=True):
                        if i is not None:
                            slots[i] = y
                elif outputs is not None:
                    slots[outputs] = out if type(out) is np.ndarray else np.asarray(out)
                for i in dead:
                    slots[i] = None
        taken: set[int] = set()
        return [self._own(slots[i], i, taken) for i in (*self.program.results, *self.program.kept)]

    def _own(self, array: Array, index: int, taken: set[int]) -> Array:
        alone = (
            array.base is None
            and index not in taken
            and self.program.values[index].source == "temporary"
        )
        taken.add(index)
        return array if alone and array.flags.writeable else np.array(array)
