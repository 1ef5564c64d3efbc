"""A program of one signature, ready to run: where its values come from at a call, and what becomes
of its results.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import gt, is_
from sys import getrefcount
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from minigrad.compiler import passes
from minigrad.compiler.compiled import CompiledReplay
from minigrad.compiler.layout import address_of
from minigrad.compiler.program import Line, Program
from minigrad.compiler.record import Captured, Recording, capture
from minigrad.compiler.replay import NumpyReplay
from minigrad.compiler.structure import rebuild
from minigrad.dtypes import Array
from minigrad.errors import CaptureError
from minigrad.tensor import Tensor

_LINEAR = {
    "sgd_",
    "assign",
    "put_",
    "append_",
}  # effects whose changes are proportional to what they are given
_LISTED = next(
    map(getrefcount, [object()])
)  # the count of what one list alone holds, which differs between versions of Python


Owner = Tensor | int  # a tensor that outlives the call, or the position of an argument


class Owners:
    """Tensors, some of which are arguments: those are each call's own."""

    def __init__(self, found: Iterable[Owner]) -> None:
        self.found = list(found)
        self._fixed = [x for x in self.found if not isinstance(x, int)]

    def at(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors of a call with these arguments."""
        if len(self._fixed) == len(self.found):
            return self._fixed
        return [tensors[x] if isinstance(x, int) else x for x in self.found]

    def ids(self) -> list[int]:
        """What can be compared with those of another plan."""
        return [x if isinstance(x, int) else id(x) for x in self.found]


class Start:
    """What lies in .grad when a call begins, and whether the arguments require gradients.

    known: tensors that the function sees by itself.   gradients: id of an array -> the tensor whose
        gradient it is.   without: tensors without one.
    """

    def __init__(
        self, first: Recording | None, tensors: Sequence[Tensor], known: Sequence[Tensor]
    ) -> None:
        self.known = known
        seen = [] if first is None else [*first.tensors.values(), *known, *tensors]
        self._held = [
            t.grad.data for t in seen if t.grad is not None
        ]  # so that no other array gets their ids
        self.gradients = {id(t.grad.data): t for t in seen if t.grad is not None}
        self.without = [t for t in seen if t.grad is None]
        self.flags = [t.requires_grad for t in tensors]


class Plan:
    """A program of one signature, ready to run: where its values come from, and what becomes of its
    results.

    given: for each result the tensor that is returned as it is, None for one that is computed.
        grads: whose .grad program.kept are, in order.
    """

    def __init__(
        self,
        captured: Captured,
        program: Program,
        second: Recording,
        given: list[Owner | None],
        grads: Iterable[Owner],
    ) -> None:
        self.captured, self.program, self.given, self.grads = (
            captured,
            program,
            given,
            Owners(grads),
        )
        self.out, self.out_key = second.shape, second.shape_key
        self.pattern = [
            (i, at, second.arguments[i] if known else None)
            for i, (at, known) in enumerate(second.pattern)
            if at != i or known
        ]
        self.handed_out: list[Any] = []  # the gradients of the last replay
        self.cleared = Owners([])  # tensors whose .grad is None when the call ends
        self.expect_none = Owners([])  # tensors whose .grad must be None when the call begins
        self.asked: list[
            tuple[int, bool]
        ] = []  # arguments of which the call changes whether they require a gradient
        self.gradients = Owners(
            []
        )  # whose .grad the values captured.gradients are when the call begins
        self.backend: NumpyReplay | CompiledReplay
        self._ranges: list[tuple[int, int]] | None = None
        self._watched: list[tuple[Array, Array]] = []
        changed = {i for line in program.lines for i in line.changes()}
        self.cells = [
            t._version for i, (_, t) in captured.states.items() if t is not None and i in changed
        ]
        self.bound = {i: array for i, (array, _) in captured.states.items()}
        self.changed = [
            i for i in sorted(changed) if program.values[i].source in ("state", "input")
        ]
        # Of tensors that share an array each is looked at; the first stands for them.
        self._twins = [
            (t, i) for t in second.tensors.values() if (i := second.find(t.data)) in captured.states
        ]
        self._tensors = [t for t, _ in self._twins]
        self._arrays, self._wants = (
            [t.data for t in self._tensors],
            [t.requires_grad for t in self._tensors],
        )

    def watch(self, arrays: Iterable[Array]) -> None:
        """Look at numpy arrays of which a constant of the program may be a copy: they may be
        written to.
        """
        shapes = {a.shape for a in self.captured.constants.values()}
        self._watched = [
            (a, a.copy()) for a in arrays if a.shape in shapes
        ]  # the program reads as much at each call

    def magnified(self) -> set[int]:
        """Parameters that an optimizer moves by their gradients divided by the gradients' size."""
        lines = [
            line
            for line in self.program.lines
            if line.op.kind == "effect" and line.op.name not in _LINEAR
        ]
        parameters = {i for i, (_, t) in self.captured.states.items() if t is not None and t._wants}
        return parameters & {i for line in lines for i in line.changes()}

    def fits(self, tensors: Sequence[Tensor]) -> bool:
        """True if a replay is what the call would be: the same arguments are one, tensors that
        outlive the call have the same shapes and require gradients or do not, and gradients lie in
        .grad, or do not, as when it was recorded."""
        for i, at, known in self.pattern:
            if tensors[i].data is not tensors[at].data or (
                known is not None and tensors[i] is not known
            ):
                return False
        for number, t in zip(self.captured.gradients, self.gradients.at(tensors), strict=True):
            value = self.program.values[number]
            if t.grad is None or (t.grad.data.shape, t.grad.data.dtype) != (
                value.shape,
                value.dtype,
            ):
                return False
        if self._wants != [t._wants for t in self._tensors]:
            return False
        if not all(map(is_, [t.data for t in self._tensors], self._arrays)) and not self._follow():
            return False
        if not all(np.array_equal(a, copy) for a, copy in self._watched):
            return False
        return not [t for t in self.expect_none.at(tensors) if t.grad is not None]

    def _follow(self) -> bool:
        """Take over the arrays that tensors have got since; False if one has another shape, dtype
        or strides, or is no longer another's.
        """
        found: dict[int, Array] = {}
        for t, number in self._twins:
            before, now = self.bound[number], t.data
            if (now.shape, now.dtype, now.strides) != (
                before.shape,
                before.dtype,
                before.strides,
            ) or found.setdefault(number, now) is not now:
                return False
        if share_memory({**self.bound, **found}, self.changed) != self.captured.shares:
            return False
        for t, number in self._twins:
            self.captured.states[number] = t.data, t
        self.bound.update(found)
        self._arrays, self._ranges = [t.data for t in self._tensors], None
        if isinstance(self.backend, CompiledReplay):
            self.backend.rebind(self.bound)
        return True

    def binding(self, tensors: Sequence[Tensor]) -> dict[int, Array]:
        """value -> array, for inputs, states and gradients."""
        bound = self.bound
        for number, position in self.captured.inputs.items():
            bound[number] = tensors[position].data
        for number, t in zip(self.captured.gradients, self.gradients.at(tensors), strict=True):
            assert t.grad is not None
            bound[number] = t.grad.data
        return bound

    def overlaps(self, tensors: list[Tensor]) -> bool:
        """True if an argument shares memory with another that the step changes, or with such a
        state: then order matters, and eager knows it.
        """
        if self._ranges is None:
            spans = [
                _span(self.bound[i])
                for i in self.changed
                if self.program.values[i].source == "state"
            ]
            self._ranges = sorted(spans)
        for number, position in self.captured.inputs.items():
            low, high = _span(tensors[position].data)
            at = bisect_left(self._ranges, (high, 0))
            if any(stop > low for _, stop in self._ranges[max(at - 1, 0) : at]):
                return True
            if number in self.changed and (
                len(tensors) > 1 or not tensors[position].data.flags.c_contiguous
            ):
                return True
        return False

    def _held(self, grads: Sequence[Tensor]) -> bool:
        """True if somebody else holds a gradient that the last replay handed out: then it is not
        written to again.
        """
        handed = self.handed_out
        if not grads:
            return False
        if len(handed) != len(grads):
            return True
        if (
            max(map(getrefcount, [g.data for g in handed])) > _LISTED + 2
        ):  # the tensor and the back end
            return True
        if all(map(is_, [t.grad for t in grads], handed)):
            return max(map(getrefcount, handed)) > _LISTED + 1
        counts = list(map(getrefcount, handed))
        return any(
            map(gt, counts, [_LISTED + (t.grad is g) for t, g in zip(grads, handed, strict=True)])
        )

    def run(self, tensors: Sequence[Tensor]) -> Any:
        """Replay, and hand out the results as new tensors."""
        grads = self.grads.at(tensors)
        held = self._held(grads)
        arrays = self.backend.run(self.binding(tensors), held)
        for number in self.captured.gradients:
            del self.bound[
                number
            ]  # held by nobody, the step that made it may write its next gradient there
        for cell in self.cells:
            cell[0] += 1
        for i, wanted in self.asked:
            tensors[i].requires_grad_(wanted)
        gradients = arrays[len(self.program.results) :]
        if held or [g for g in self.handed_out if g._wants]:
            self.handed_out = list(map(Tensor._wrap, gradients))
        for t, g, array in zip(grads, self.handed_out, gradients, strict=True):
            g.data, t.grad = array, g
        for t in self.cleared.at(tensors):
            t.grad = None
        fresh = iter(arrays[: len(self.program.results)])
        return rebuild(
            self.out,
            [
                Tensor._wrap(next(fresh)) if t is None else tensors[t] if isinstance(t, int) else t
                for t in self.given
            ],
        )


def make_plan(first: Recording, second: Recording, start: Start, tensors: Sequence[Tensor]) -> Plan:
    """The plan of two recordings of a step. Raises CaptureError where they differ, and where the
    second returns what no op has made.
    """
    positions = {id(t): i for i, t in enumerate(tensors) if not second.pattern[i][1]}

    def owner(t: Tensor) -> Owner:
        return positions.get(id(t), t)

    given: list[Owner | None] = []
    numbers: list[int] = []
    for t in second.results:
        number = second.find(t.data)
        if number is None:
            raise CaptureError(
                "jit",
                f"the step returns a tensor of shape {t.shape} that no recorded op made",
                got=t.shape,
                hint="compute it from the arguments with ops, or return it from another function",
            )
        persistent = (
            id(t) in positions or first.tensors.get(id(t)) is t
        )  # not an alias that each call makes
        given.append(owner(t) if persistent else None)
        if not persistent:
            numbers.append(number)
    grads: dict[int, Owner] = {}
    seen = {
        id(t): t for t in (*second.tensors.values(), *start.known)
    }  # an op need not have met what is given a gradient
    for t in seen.values():
        if (
            t.grad is not None
            and (number := second.find(t.grad.data)) is not None
            and id(t.grad.data) not in start.gradients
        ):
            grads[number] = owner(t)
    captured = capture(first, second, start.gradients, numbers, list(grads))
    captured.shares = share_memory(
        {i: a for i, (a, _) in captured.states.items()},
        {i for line in captured.program.lines for i in line.changes()},
    )
    program = captured.program
    if not captured.shares:
        program, captured.constants = passes.simplify(program, captured.constants)
    plan = Plan(captured, program, second, given, grads.values())
    plan.gradients = Owners(map(owner, captured.gradients.values()))
    plan.bound.update((i, second.leaves[i].array) for i in captured.gradients)
    # Of a tensor without a gradient before and after, nobody knows whether the step would clear
    # one: it must be without at replays, too.
    had_none = {id(t) for t in start.without}
    plan.cleared = Owners(
        owner(t) for t in seen.values() if t.grad is None and id(t) not in had_none
    )
    plan.expect_none = Owners(owner(t) for t in seen.values() if id(t) in had_none)
    plan.asked = [
        (i, t.requires_grad)
        for i, (t, flag) in enumerate(zip(tensors, start.flags, strict=True))
        if t.requires_grad != flag
    ]
    return plan


def share_memory(arrays: Mapping[int, Array], changed: Collection[int]) -> bool:
    """True if one of the arrays that change shares memory with another."""
    spans = sorted((*_span(a), i in changed) for i, a in arrays.items() if a.size)
    end, end_changes = 0, False
    for low, high, changes in spans:
        if low < end and (changes or end_changes):
            return True
        if high >= end:
            end, end_changes = high, changes
    return False


def equal_plans(a: Plan, b: Plan) -> bool:
    """True if two plans compute the same from the same memory."""
    same = [
        _spelled(x) == _spelled(y) for x, y in zip(a.program.lines, b.program.lines, strict=False)
    ]
    constants, others = a.captured.constants, b.captured.constants
    return (
        len(a.program.lines) == len(b.program.lines)
        and all(same)
        and a.program.results == b.program.results
        and (a.out_key, a.asked, a._wants) == (b.out_key, b.asked, b._wants)
        and a.grads.ids() == b.grads.ids()
        and _ids(a.given) == _ids(b.given)
        and [(i, at, id(t)) for i, at, t in a.pattern] == [(i, at, id(t)) for i, at, t in b.pattern]
        and constants.keys() == others.keys()
        and all(
            np.array_equal(x, others[i], equal_nan=x.dtype.kind == "f")
            for i, x in constants.items()
        )
        and [id(x) for x, _ in a.captured.states.values()]
        == [id(x) for x, _ in b.captured.states.values()]
    )


def _spelled(line: Line) -> Any:
    return line.op, [(type(x), repr(x)) for x in line.operands], repr(line.params), line.outputs


def _ids(found: Sequence[Owner | None]) -> list[int]:
    return [x if isinstance(x, int) else id(x) for x in found]


def _span(a: Array) -> tuple[int, int]:
    """Where the array's memory begins and ends."""
    if a.flags.c_contiguous:
        start = address_of(a)
        return start, start + a.nbytes
    return byte_bounds(a)
