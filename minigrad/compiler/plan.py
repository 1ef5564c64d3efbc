"""A program of one signature, ready to run: where its values come from at a call, and what becomes of its results."""

from __future__ import annotations

from bisect import bisect_left
from operator import gt, is_
from sys import getrefcount
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from minigrad.compiler.compiled import CompiledReplay
from minigrad.compiler.layout import address_of
from minigrad.compiler.program import Program
from minigrad.compiler.record import Captured
from minigrad.compiler.replay import NumpyReplay
from minigrad.compiler.structure import rebuild
from minigrad.dtypes import Array
from minigrad.tensor import Tensor

_LISTED = next(map(getrefcount, [object()]))  # the count of what one list alone holds, which differs between versions of Python


class Plan:
    """A program of one signature, ready to run: where its values come from, and what becomes of its results."""

    def __init__(self, captured: Captured, program: Program, out: Any, result_tensors: list[Tensor | None], grads: dict[int, Tensor]) -> None:
        self.captured, self.program, self.out, self.result_tensors = captured, program, out, result_tensors
        self.grads = list(grads.values())  # tensors whose .grad is program.kept, in order
        self.handed_out: list[Any] = []  # the gradients of the last replay
        self.cleared: list[Tensor] = []  # tensors whose .grad is None when the call ends
        self.expect_none: list[Tensor] = []  # tensors whose .grad must be None when the call begins
        self.backend: NumpyReplay | CompiledReplay
        self._ranges: list[tuple[int, int]] | None = None
        changed = {i for line in program.lines for i in line.changes()}
        self.cells = [t._version for i, (_, t) in captured.states.items() if t is not None and i in changed]
        self.bound = {i: array for i, (array, _) in captured.states.items()}
        self.changed = [i for i in sorted(changed) if program.values[i].source in ("state", "input")]
        self._tensors = [t for _, t in captured.states.values() if t is not None]
        self._arrays = [array for array, t in captured.states.values() if t is not None]

    def fits(self) -> bool:
        """True if the gradients that lie in .grad are there, or not there, as when it was recorded, and no tensor changed its shape."""
        for number, t in self.captured.gradients.items():
            value = self.program.values[number]
            if t.grad is None or (t.grad.data.shape, t.grad.data.dtype) != (value.shape, value.dtype):
                return False
        if not all(map(is_, [t.data for t in self._tensors], self._arrays)) and not self._follow():
            return False
        return all(t.grad is None for t in self.expect_none)

    def _follow(self) -> bool:
        """Take over the arrays that tensors have got since; False if one has another shape or dtype."""
        for number, (_, tensor) in self.captured.states.items():
            value = self.program.values[number]
            if tensor is not None and (tensor.data.shape, tensor.data.dtype) != (value.shape, value.dtype):
                return False
            if tensor is not None:
                self.captured.states[number] = tensor.data, tensor
                self.bound[number] = tensor.data
        self._arrays, self._ranges = [t.data for t in self._tensors], None
        if isinstance(self.backend, CompiledReplay):
            self.backend.rebind(self.bound)
        return True

    def binding(self, tensors: list[Tensor]) -> dict[int, Array]:
        """value -> array, for inputs, states and gradients."""
        bound = self.bound
        for number, position in self.captured.inputs.items():
            bound[number] = tensors[position].data
        for number, t in self.captured.gradients.items():
            assert t.grad is not None
            bound[number] = t.grad.data
        return bound

    def overlaps(self, tensors: list[Tensor]) -> bool:
        """True if an argument shares memory with another that the step changes, or with such a state: then order matters, and eager knows it."""
        if self._ranges is None:
            spans = [_span(self.bound[i]) for i in self.changed if self.program.values[i].source == "state"]
            self._ranges = sorted(spans)
        for number, position in self.captured.inputs.items():
            low, high = _span(tensors[position].data)
            at = bisect_left(self._ranges, (high, 0))
            if any(stop > low for _, stop in self._ranges[max(at - 1, 0) : at]):
                return True
            if number in self.changed and (len(tensors) > 1 or not tensors[position].data.flags.c_contiguous):
                return True
        return False

    def _held(self) -> bool:
        """True if somebody else holds a gradient that the last replay handed out: then it is not written to again."""
        handed = self.handed_out
        if not self.grads:
            return False
        if len(handed) != len(self.grads):
            return True
        counts, arrays = list(map(getrefcount, handed)), list(map(getrefcount, [g.data for g in handed]))
        own = [_LISTED + (t.grad is g) for t, g in zip(self.grads, handed, strict=True)]
        return any(map(gt, counts, own)) or max(arrays, default=0) > _LISTED + 2  # the tensor and the back end

    def run(self, tensors: list[Tensor]) -> Any:
        """Replay, and hand out the results as new tensors."""
        held = self._held()
        arrays = self.backend.run(self.binding(tensors), held)
        for number in self.captured.gradients:
            del self.bound[number]  # held by nobody, the step that made it may write its next gradient there
        for cell in self.cells:
            cell[0] += 1
        gradients = arrays[len(self.program.results) :]
        if held or [g for g in self.handed_out if g._wants]:
            self.handed_out = list(map(Tensor._wrap, gradients))
        for t, g, array in zip(self.grads, self.handed_out, gradients, strict=True):
            g.data, t.grad = array, g
        for t in self.cleared:
            t.grad = None
        fresh = iter(arrays[: len(self.program.results)])
        return rebuild(self.out, [Tensor._wrap(next(fresh)) if t is None else t for t in self.result_tensors])


def equal_plans(a: Plan, b: Plan) -> bool:
    """True if two plans compute the same from the same memory."""
    same = [(x.op, x.operands, repr(x.params), x.outputs) == (y.op, y.operands, repr(y.params), y.outputs)
            for x, y in zip(a.program.lines, b.program.lines, strict=False)]  # fmt: skip
    constants, others = a.captured.constants, b.captured.constants
    return (len(a.program.lines) == len(b.program.lines) and all(same) and a.program.results == b.program.results
            and list(map(id, a.grads)) == list(map(id, b.grads)) and constants.keys() == others.keys()
            and all(np.array_equal(x, others[i], equal_nan=x.dtype.kind == "f") for i, x in constants.items())
            and [id(x) for x, _ in a.captured.states.values()] == [id(x) for x, _ in b.captured.states.values()])  # fmt: skip


def _span(a: Array) -> tuple[int, int]:
    """Where the array's memory begins and ends."""
    if a.flags.c_contiguous:
        start = address_of(a)
        return start, start + a.nbytes
    return byte_bounds(a)
