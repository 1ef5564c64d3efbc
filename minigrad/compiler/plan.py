"""The program of two recordings, ready to run: where its values come from at a call, and what
becomes of its results.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import is_
from typing import Any

from numpy.lib.array_utils import byte_bounds

from minigrad import ops
from minigrad.compiler import passes
from minigrad.compiler.compare import (
    Difference,
    Outcome,
    array_difference,
    differences,
    places,
    refuse_moving_shapes,
    same_bits,
    same_memory,
)
from minigrad.compiler.compiled import CompiledReplay
from minigrad.compiler.layout import address_of
from minigrad.compiler.program import Line, Program, Ref, Source, Value, roots
from minigrad.compiler.record import Leaf, Recording
from minigrad.compiler.replay import NumpyReplay
from minigrad.compiler.structure import Slot, rebuild
from minigrad.dtypes import Array
from minigrad.tensor import Tensor

_CONFIRMED = 64  # structural states that are remembered for a program


class Plan:
    """The program of two recordings, and what a replay of it has to do besides.

    held: tensors that outlive the call, besides arguments. An owner is a place among the
        arguments, then these.
    inputs: value -> position of an argument.   gradients: value -> owner of the .grad it was.
    bound: value -> array, of states.   constants: value -> array.   written: an array made inside
        and written into -> the constant that it is a copy of.   unread: leaves that no op reads.
    shares: True if a state that the step changes shares memory with another.
    calls: made with this program so far, the two recorded ones included.   confirmed: structural
        states (`modes.STRUCTURE`) for which a recorded call was equal to this program.
    checked: the call that was last recorded and equal.   audit_at: the next audit, 0 for none.

    Raises CaptureError if the recordings differ.
    """

    backend: NumpyReplay | CompiledReplay

    def __init__(self, first: Recording, second: Recording) -> None:
        refuse_moving_shapes(first, second)
        for found in differences(first, second):
            raise found.error()
        self.trace, self.calls, self.checked, self.audit_at = second, 2, 2, 0
        self.confirmed: set[int] = set()
        # A tensor outlives the calls if both met the very same object: a parameter, a buffer. What
        # the step makes inside is another object each time
        lasting = {i for i, t in second.tensors.items() if first.tensors.get(i) is t}
        with_gradient = (second.gradient_of(x.array) for x in second.leaves.values())
        held = {id(t): t for t in with_gradient if t is not None}
        held.update((i, second.tensors[i]) for i in lasting)
        held.update((id(t), t) for t in second.results if any(t is x for x in first.results))
        self.held = list(held.values())
        self.outcome = outcome = Outcome.of(second, self.held)
        self.inputs: dict[int, int] = {}
        self.gradients: dict[int, int] = {}
        self.bound: dict[int, Array] = {}
        self.constants: dict[int, Array] = {}
        self.written: dict[int, int] = {}
        self._place_leaves(first, second)
        self._make_program(second)
        self._alone, self._given = type(second.shape) is Slot, outcome.given
        # Which arguments had one array, and which had the same array in both calls: the function
        # may know that one by another way, too
        at = second.pattern[0]
        self._same = [(i, j) for i, j in enumerate(at) if i != j]
        self.pinned = {i: a for i, a in enumerate(second.given) if any(a is b for b in first.given)}
        numbers = ((t, second.number_of(t)) for i, t in second.tensors.items() if i in lasting)
        self.twins = [(t, n) for t, n in numbers if n in self.bound]  # several may share an array
        self._tensors = [t for t, _ in self.twins]
        self._ids = set(map(id, self._tensors))
        self._wants = [t._wants for t in self._tensors]
        self._arrays = [self.bound[n] for _, n in self.twins]
        # Their version counters move with each replay, as they do in an eager call
        self._moved = [t for t, n in self.twins if n in self.changed]
        self._written = [i for n, i in self.inputs.items() if n in self.changed]
        made = [i for i, _ in outcome.grads]
        self._made = self._at(made)
        # Not those that the program reads, as `p.grad += ...` does
        self._released = self._at([i for i in made if i not in self.gradients.values()])
        self._added_to = self._at(list(self.gradients.values()))
        self._set_grads(outcome.cleared, outcome.absent)
        self._ranges: list[tuple[int, int]] | None = None

    def _owner(self, i: int, tensors: Sequence[Tensor]) -> Tensor:
        """The tensor of an owner, for a call with these arguments."""
        return tensors[i] if i < len(tensors) else self.held[i - len(tensors)]

    def _at(self, owners: list[int]) -> Callable[[Sequence[Tensor]], list[Any]]:
        """A function of the arguments that gives the tensors of these owners."""
        # Nearly always no owner is an argument: then the list is the same at every call
        count = len(self.trace.inputs)
        if all(i >= count for i in owners):
            fixed = [self.held[i - count] for i in owners]
            return lambda tensors: fixed
        return lambda tensors: [self._owner(i, tensors) for i in owners]

    def _set_grads(self, cleared: list[int], absent: list[int]) -> None:
        """Note which owners have no .grad after the call, and which have none before."""
        self.cleared, self.absent = cleared, absent
        self._cleared, self._absent = self._at(cleared), self._at(absent)

    # --- the program

    def _place_leaves(self, first: Recording, second: Recording) -> None:
        """Find out where each array that no op made comes from. Raises CaptureError for one that
        is not the same in both calls.
        """
        # A tensor that was only shown, or an operand that came back unchanged: it may change freely
        read = {i for line in second.lines for i in line.reads()} | {*self.outcome.computed}
        read |= {number for _, number in self.outcome.grads}
        self.unread, changed = second.leaves.keys() - read, second.changed_leaves()
        owners, masks = places(second, self.held), {number for _, number in second.shaping()}
        for number, leaf in second.leaves.items():
            twin, owner = first.leaves.get(number), second.gradient_of(leaf.array)
            if number in second.inputs:
                self.inputs[number] = second.inputs.index(number)
            elif owner is not None:
                self.gradients[number] = owners[id(owner)]
            elif (
                twin is not None
                and (same_memory(twin.array, leaf.array) or _was_rebound(second, twin, leaf))
                # What shapes depend on is a constant, unless a tensor holds it
                and (number not in masks or (twin.tensor is leaf.tensor is not None))
            ):
                self.bound[number] = leaf.array
            else:
                lost = number in changed and leaf.contents is leaf.array  # not copied, and changed
                moves = lost or twin is None or not same_bits(twin.contents, leaf.contents)
                if moves and number not in self.unread:
                    before = None if twin is None else twin.contents
                    raise array_difference(leaf, before, second).error()
                self.constants[number] = leaf.contents.copy()

    def _make_program(self, second: Recording) -> None:
        # Inputs get a new array at each call, states stay where they are, constants are copies
        names = {n: f"in{i}" for n, i in self.inputs.items()} | {n: f"g{n}" for n in self.gradients}
        sources = dict[int, Source]()
        sources.update(dict.fromkeys(names, "input"))
        sources.update(dict.fromkeys(self.bound, "state"))
        sources.update(dict.fromkeys(self.constants, "constant"))
        values = [
            Value(n, *facts, sources.get(n, "temporary"), names.get(n, ""))
            for n, facts in enumerate(second.facts)
        ]
        lines = list(second.lines)
        for number in sorted(second.changed_leaves() & self.constants.keys()):
            # Each call writes into an array of its own
            self.written[number] = copied = len(values)
            self.constants[copied] = self.constants.pop(number)
            values.append(replace(values[number], index=copied))
            values[number] = replace(values[number], source="temporary")
            lines.insert(0, Line(ops.copy, (Ref(copied),), {}, (number,)))
        outcome = self.outcome
        results = (*outcome.computed, *(number for _, number in outcome.rebound))
        kept = tuple(number for _, number in outcome.grads)
        program = Program(tuple(values), tuple(lines), results, kept).check()
        _, changed = roots(program.lines, len(program.values))
        self.shares = share_memory(self.bound, changed)
        # Passes move and join lines by the values they name, and memory that two values share is
        # not in the names
        if not self.shares:
            program, self.constants = passes.simplify(program, self.constants)
        self.program = program
        outside = {v.index for v in program.values if v.source in ("state", "input")}
        self.changed = sorted(changed & outside)

    def settle(self) -> None:
        """Drop what only making the program needed."""
        self.trace.strip(set(map(id, self.held)))

    def magnified(self) -> set[int]:
        """Parameters that an optimizer moves by their gradients divided by the gradients' size."""
        updates = [line for line in self.program.lines if "changes" in line.params]
        moved = {i for line in updates if not line.op.proportional for i in line.changes()}
        return moved & {n for t, n in self.twins if t._wants}

    # --- held against another recording

    def differences(self, now: Recording) -> list[Difference]:
        """Where a later recording parts from this program; empty if it is the same step. Then what
        the recording shows besides, such as a gradient that is left alone, is taken over.
        """
        found = list(differences(self.trace, now))
        if all(difference.is_value for difference in found):
            found += self._leaf_differences(now)
        if found:
            return found
        outcome = Outcome.of(now, self.held)
        if outcome != self.outcome:
            return [Difference("", "it returns other tensors, or leaves other gradients")]
        # It is the same step. What was taken for a rule from two calls may have been an accident
        # The program is right for other arguments than the same ones, too
        self.pinned = {i: a for i, a in self.pinned.items() if now.given[i] is a}
        gone = [i for i in self.absent if i not in outcome.absent]
        cleared = self.cleared + [i for i in gone if i in outcome.cleared]
        self._set_grads(cleared, [i for i in self.absent if i not in gone])
        return []

    def _leaf_differences(self, now: Recording) -> Iterator[Difference]:
        """Where a recording with the ops of this program reads other arrays than the program."""
        owners = places(now, self.held)
        for number, leaf in now.leaves.items():
            is_input, same = number in now.inputs, True
            if number in self.inputs:
                same = is_input and now.inputs.index(number) == self.inputs[number]
            elif number in self.gradients:
                owner = now.gradient_of(leaf.array)
                same = owner is not None and owners.get(id(owner)) == self.gradients[number]
            elif number in self.bound:
                same = same_memory(self.bound[number], leaf.array)
            elif number not in self.unread:
                before = self.constants[self.written.get(number, number)]
                if is_input or not same_bits(before, leaf.contents):
                    yield array_difference(leaf, before, now)
            if not same:
                yield Difference(leaf.where, f"works on another array of shape {leaf.array.shape}")

    def is_audited_next(self) -> bool:
        """True if the next call is an audit."""
        return self.calls + 1 == self.audit_at

    def confirm(self, state: int) -> None:
        """Note that the call just recorded equals the program, at this structural state."""
        if len(self.confirmed) >= _CONFIRMED:
            self.confirmed.clear()
        self.confirmed.add(state)
        self.checked = self.calls
        self._wants = [t._wants for t in self._tensors]  # perhaps others, under no_grad

    # --- before a replay

    def fits(self, tensors: Sequence[Tensor]) -> bool:
        """True if the arguments are distinct where they were, tensors that outlive the call have
        the same shapes and require gradients or do not, and gradients are in .grad, or are not, as
        they were at the recording.
        """
        # The cheap questions first: this runs before every replay
        if self._same and any(tensors[i].data is not tensors[j].data for i, j in self._same):
            return False
        if self.pinned and any(tensors[i].data is not a for i, a in self.pinned.items()):
            return False
        if not self._ids.isdisjoint(map(id, tensors)):
            return False  # an argument that the function also knows by itself
        for number, t in zip(self.gradients, self._added_to(tensors), strict=True):
            value, g = self.program.values[number], t.grad
            if g is None or (g.data.shape, g.data.dtype) != (value.shape, value.dtype):
                return False
        if self._wants != [t._wants for t in self._tensors] or not self.follow():
            return False
        return not [t for t in self._absent(tensors) if t.grad is not None]

    def follow(self) -> bool:
        """Take over the arrays that tensors have got since; False if one has another shape, dtype
        or strides, or is no longer another's.
        """
        # One identity per tensor: `t.data = array`, and `t[i] = x` where gradients flow, show here
        if all(map(is_, [t.data for t in self._tensors], self._arrays)):
            return True
        found: dict[int, Array] = {}
        for t, number in self.twins:
            old, now = self.bound[number], t.data
            if (now.shape, now.dtype, now.strides) != (old.shape, old.dtype, old.strides):
                return False
            if found.setdefault(number, now) is not now:
                return False
        if share_memory({**self.bound, **found}, self.changed) != self.shares:
            return False
        self.bound.update(found)
        self._arrays, self._ranges = [t.data for t in self._tensors], None
        self.backend.rebind(self.bound)
        return True

    def numpy_replay(self) -> NumpyReplay:
        """The program, to be run with numpy."""
        return NumpyReplay(self.program, {**self.constants, **self.bound})

    def binding(self, tensors: Sequence[Tensor]) -> dict[int, Array]:
        """value -> array, for arguments and gradients."""
        bound = {number: tensors[position].data for number, position in self.inputs.items()}
        if self.gradients:
            for number, t in zip(self.gradients, self._added_to(tensors), strict=True):
                bound[number] = t.grad.data
        return bound

    def overlaps(self, tensors: Sequence[Tensor]) -> bool:
        """True if an argument shares memory with what the step changes, or is read-only and would
        be changed: then order matters, or numpy refuses it, and eager keeps that.
        """
        if not self.changed:
            return False
        if self._written:  # an argument that changes may share memory with whatever is read
            if not all(tensors[i].data.flags.writeable for i in self._written):
                return True
            return share_memory({**self.bound, **self.binding(tensors)}, self.changed)
        # Sorted intervals of the memory that the step changes, kept until a state moves
        if self._ranges is None:
            self._ranges = sorted(_span(self.bound[i]) for i in self.changed if i in self.bound)
        for position in self.inputs.values():
            low, high = _span(tensors[position].data)
            at = bisect_left(self._ranges, (high, 0))
            if any(stop > low for _, stop in self._ranges[max(at - 1, 0) : at]):
                return True
        return False

    # --- a replay

    def run(self, tensors: Sequence[Tensor], left: Array | None = None) -> Any:
        """Replay, and hand out the results as new tensors. left: see `CompiledReplay.run`."""
        wrap, new, outcome = Tensor._wrap, object.__new__, self.outcome
        bound = self.binding(tensors)
        for t in self._released(tensors):
            t.grad = None  # its memory is free for the next gradient, if nothing else holds it
        # From here on a refused index is the only error, and it comes before anything is changed
        arrays = self.backend.run(bound, left)
        for number in self.gradients:
            del bound[number]  # the back end keeps the others until the next call
        for t in self._moved:
            t._version[0] += 1
        for position in self._written:
            tensors[position]._version[0] += 1
        for i, wanted in outcome.asked:
            tensors[i].requires_grad_(wanted)
        # In the order of the program: results, tensors with another array, gradients
        fresh = iter(arrays)
        results = [wrap(next(fresh)) if i is None else self._owner(i, tensors) for i in self._given]
        for i, _ in outcome.rebound:
            t = self._owner(i, tensors)
            t.data, t._version, t._wants = next(fresh), [0, None], False
        for t, array in zip(self._made(tensors), fresh, strict=True):
            t.grad = g = new(Tensor)  # Tensor._wrap, without a call for each gradient
            g.data, g.grad, g._node, g._index, g._wants = array, None, None, 0, False
            g._version, g._hooks = [0, None], ()
        for t in self._cleared(tensors):
            t.grad = None
        return results[0] if self._alone else rebuild(self.trace.shape, results)


def _was_rebound(second: Recording, twin: Leaf, leaf: Leaf) -> bool:
    """True if the leaf's tensor had got this array by the time that the second call began."""
    return twin.tensor is leaf.tensor and second.begins.get(id(leaf.tensor)) is leaf.array


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
