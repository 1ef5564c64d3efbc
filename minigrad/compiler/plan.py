"""A program ready to run: where its values come from at a call, and what becomes of its results."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from operator import is_
from typing import Any

from numpy.lib.array_utils import byte_bounds

from minigrad.compiler import passes
from minigrad.compiler.compare import (
    Difference,
    Outcome,
    Owner,
    capture,
    difference,
    leaf_difference,
    owners_at,
)
from minigrad.compiler.compiled import CompiledReplay
from minigrad.compiler.layout import address_of
from minigrad.compiler.record import Recording
from minigrad.compiler.replay import NumpyReplay
from minigrad.compiler.structure import is_slot, rebuild
from minigrad.dtypes import Array
from minigrad.tensor import Tensor

_CONFIRMED = 64  # structural states that are remembered for a program


class Plan:
    """The program of two recordings, and what a replay of it has to do besides.

    calls: made with this program so far, the two recorded ones included.   confirmed: structural
        states (`modes.STRUCTURE`) for which a recorded call was equal to this program.
    checked: the call that was last recorded and equal.
    """

    backend: NumpyReplay | CompiledReplay

    def __init__(self, first: Recording, second: Recording) -> None:
        self.outcome = outcome = Outcome(first, second)
        self.captured = captured = capture(first, second, outcome)
        self.trace, self.calls, self.checked, self.audit_at = second, 2, 2, 0
        self.confirmed: set[int] = set()
        program = captured.program
        root = passes.roots(program)
        changed = {root[i] for line in program.lines for i in line.changes()}
        captured.shares = share_memory({i: a for i, (a, _) in captured.states.items()}, changed)
        if not captured.shares:
            program, captured.constants = passes.simplify(program, captured.constants)
        self.program = program
        self.changed = [
            i for i in sorted(changed) if program.values[i].source in ("state", "input")
        ]
        self.bound = {i: array for i, (array, _) in captured.states.items()}
        self.bound.update((i, second.leaves[i].array) for i in captured.gradients)
        self.out, self.given = second.shape, outcome.given
        self._alone = is_slot(self.out)
        self.grads = [owner for _, owner in outcome.grads]
        self.gradients = list(captured.gradients.values())
        self.cleared, self.absent = outcome.cleared, outcome.absent
        self._pattern(first, second)
        self._remember_tensors(first, second)
        inputs = {_key(x) for x in self.gradients}
        self._released = [x for x in self.grads if _key(x) not in inputs]
        self._ranges: list[tuple[int, int]] | None = None
        owners = [*self.grads, *self.gradients, *outcome.absent, *self.cleared]
        self._has_positions = any(type(x) is int for x in owners)

    def _pattern(self, first: Recording, second: Recording) -> None:
        """Which arguments were one array, and which were the same array in both calls: the function
        may know that one by another way, too.
        """
        at = [second.inputs.index(n) for n in second.inputs]
        self._same = [(i, j) for i, j in enumerate(at) if i != j]
        self.pinned = {i: a for i, a in enumerate(second.given) if any(a is b for b in first.given)}

    def _remember_tensors(self, first: Recording, second: Recording) -> None:
        """The tensors whose arrays are states: several may share one, each is looked at."""
        lasting = {i for i, t in second.tensors.items() if first.tensors.get(i) is t}
        self._twins = [
            (second.tensors[i], number)
            for i in second.tensors
            if i in lasting and (number := second.number_of(i)) in self.captured.states
        ]
        self._tensors = [t for t, _ in self._twins]
        self._ids = {id(t) for t in self._tensors}
        self._wants = [t._wants for t in self._tensors]
        self._arrays = [self.bound[number] for _, number in self._twins]
        changed = set(self.changed)
        self._moved = [t for t, number in self._twins if number in changed]
        self._written = [i for n, i in self.captured.inputs.items() if n in changed]
        self._lasting = lasting

    def settle(self) -> None:
        """Drop what only making the program needed."""
        self.trace.strip(self._lasting)
        for number in self.captured.gradients:
            self.bound.pop(number, None)

    def magnified(self) -> set[int]:
        """Parameters that an optimizer moves by their gradients divided by the gradients' size."""
        lines = [
            line
            for line in self.program.lines
            if line.op.kind == "effect" and line.op.name not in _LINEAR
        ]
        parameters = {i for i, (_, t) in self.captured.states.items() if t is not None and t._wants}
        return parameters & {i for line in lines for i in line.changes()}

    # --- held against another recording

    def difference(self, now: Recording) -> Difference | None:
        """Where a later recording parts from this program; None if it is the same step. Then what
        the recording shows besides, such as a gradient that is left alone, is taken over.
        """
        found = difference(self.trace, now)
        if found is not None:
            return found
        outcome = Outcome(self.trace, now)
        found = leaf_difference(self.captured, now, outcome)
        if found is None and outcome.key() != self.outcome.key():
            found = Difference("", "it returns other tensors, or leaves other gradients", "", "")
        if found is None:
            self._learn(now, outcome)
        return found

    def _learn(self, now: Recording, outcome: Outcome) -> None:
        for i, array in list(self.pinned.items()):
            if now.given[i] is not array:
                del self.pinned[i]  # the program is right for other arguments, too
        absent = {_key(x) for x in outcome.absent}
        cleared = {_key(x) for x in outcome.cleared}
        self.cleared = self.cleared + [
            x for x in self.absent if _key(x) in cleared and _key(x) not in absent
        ]
        self.absent = [x for x in self.absent if _key(x) in absent]

    def confirm(self, state: int) -> None:
        """Note that the call that was just recorded equals the program, at this structural state."""
        if len(self.confirmed) >= _CONFIRMED:
            self.confirmed.clear()
        self.confirmed.add(state)
        self.checked = self.calls

    def seen(self) -> list[Tensor]:
        """Tensors of which a recording should know what is in .grad when it begins."""
        return list(self.trace.tensors.values())

    def _at(self, owners: list[Owner], tensors: Sequence[Tensor]) -> list[Any]:
        """The tensors of a call with these arguments."""
        return owners_at(owners, tensors) if self._has_positions else owners

    # --- before a replay

    def fits(self, tensors: Sequence[Tensor]) -> bool:
        """True if the arguments are distinct where they were, tensors that outlive the call have
        the same shapes and require gradients or do not, and gradients are in .grad, or are not, as
        they were at the recording.
        """
        for i, j in self._same:
            if tensors[i].data is not tensors[j].data:
                return False
        for i, array in self.pinned.items():
            if tensors[i].data is not array:
                return False
        for t in tensors:
            if id(t) in self._ids:
                return False  # an argument that the function also knows by itself
        for number, t in zip(
            self.captured.gradients, owners_at(self.gradients, tensors), strict=True
        ):
            value = self.program.values[number]
            if t.grad is None or (t.grad.data.shape, t.grad.data.dtype) != (
                value.shape,
                value.dtype,
            ):
                return False
        if self._wants != [t._wants for t in self._tensors]:
            return False
        if not self.follow():
            return False
        return not [t for t in self._at(self.absent, tensors) if t.grad is not None]

    def follow(self) -> bool:
        """Take over the arrays that tensors have got since; False if one has another shape, dtype
        or strides, or is no longer another's.
        """
        if all(map(is_, [t.data for t in self._tensors], self._arrays)):
            return True
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
        if self.gradients:
            owners = owners_at(self.gradients, tensors)
            for number, t in zip(self.captured.gradients, owners, strict=True):
                assert t.grad is not None
                bound[number] = t.grad.data
        return bound

    def overlaps(self, tensors: Sequence[Tensor]) -> bool:
        """True if an argument shares memory with another that the step changes, or with such a
        state: then order matters, and eager keeps it.
        """
        if self._ranges is None:
            values = self.program.values
            states = [i for i in self.changed if values[i].source == "state"]
            self._ranges = sorted(_span(self.bound[i]) for i in states)
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

    # --- a replay

    def run(self, tensors: Sequence[Tensor]) -> Any:
        """Replay, and hand out the results as new tensors."""
        wrap, new = Tensor._wrap, object.__new__
        for t in self._at(self._released, tensors):
            t.grad = None  # its memory is free for the next gradient, unless somebody holds it
        arrays = self.backend.run(self.binding(tensors))
        for number in self.captured.gradients:
            del self.bound[number]
        for t in self._moved:
            t._version[0] += 1
        for position in self._written:
            tensors[position]._version[0] += 1
        for i, wanted in self.outcome.asked:
            tensors[i].requires_grad_(wanted)
        fresh = iter(arrays)
        results = [
            wrap(next(fresh)) if x is None else tensors[x] if isinstance(x, int) else x
            for x in self.given
        ]
        for x, _ in self.outcome.rebound:
            t = tensors[x] if isinstance(x, int) else x
            t.data, t._version, t._wants = next(fresh), [0, None], False
        for t, array in zip(self._at(self.grads, tensors), fresh, strict=True):
            t.grad = g = new(Tensor)  # as Tensor._wrap does, without a call for each gradient
            g.data, g.grad, g._node, g._index, g._wants = array, None, None, 0, False
            g._version = [0, None]
        for t in self._at(self.cleared, tensors):
            t.grad = None
        return results[0] if self._alone else rebuild(self.out, results)


_LINEAR = {
    "sgd_",
    "assign",
    "put_",
    "append_",
}  # effects whose changes are proportional to what they are given


def _key(x: Owner) -> tuple[bool, int]:
    return (True, x) if isinstance(x, int) else (False, id(x))


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


def _span(a: Array) -> tuple[int, int]:
    """Where the array's memory begins and ends."""
    if a.flags.c_contiguous:
        start = address_of(a)
        return start, start + a.nbytes
    return byte_bounds(a)
