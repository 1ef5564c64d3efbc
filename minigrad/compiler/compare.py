"""Recordings held against each other: the ops, what a call reads and what it leaves behind.

The same comparison serves the first two calls, the call after a structural change and the audits:
a later recording is held against the one that a program was made of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigrad.compiler.program import Line, Ref
from minigrad.compiler.record import Leaf, Recording
from minigrad.dtypes import Array, is_float
from minigrad.errors import CaptureError
from minigrad.tensor import Tensor

_SHOWN = 4  # elements; a larger array is shown by its shape


@dataclass
class Difference:
    """Where two recordings part: the line, what is different, the earlier and the later value.

    is_value: True if the same ops are called on other Python values, so that more such
        differences may follow.
    """

    where: str
    what: str
    before: Any = None
    now: Any = None
    hint: str = "what changes must be an argument, or a 0-d Tensor that is changed by assign()"
    is_value: bool = False

    def __str__(self) -> str:
        return f"{self.what} ({self.where})" if self.where else self.what

    def error(self) -> CaptureError:
        """The error of a step whose first two calls differ."""
        problem = f"two calls of the step differ: {self.what}, which a replay would freeze"
        facts = {"got": self.now, "wanted": self.before}
        return CaptureError("jit", problem, where=self.where, hint=self.hint, **facts)


# --- the ops


def differences(a: Recording, b: Recording) -> Iterator[Difference]:
    """Where the ops or the returned structure of a later recording b differ from a's: the Python
    values that do, and as the last one whatever makes all that follows differ, too.
    """
    for i, (x, y) in enumerate(zip(a.lines, b.lines, strict=False)):
        found = _line_difference(x, y, a, b)
        if found is not None:
            found.where = x.where if x.where == y.where else f"{x.where} and {y.where}"
            found.what = f"op {i}: {found.what}"
            yield found
            if not found.is_value:
                return
    counts = len(a.lines), len(b.lines)
    if counts[0] != counts[1]:
        extra = max(a.lines, b.lines, key=len)[min(counts)]
        hint = "a branch of the step depends on something that changes from call to call; pass it "
        hint += "as an argument"
        yield Difference(extra.where, f"one went on with {extra.op.name}", *counts, hint)
    elif a.shape_key != b.shape_key:
        hint = "return tensors, in tuples, lists, dicts or named tuples, and work out the rest "
        hint += "outside the step"
        what = f"the result is {a.shape!r}, then {b.shape!r}"
        yield Difference("", what, a.shape, b.shape, hint)


def _line_difference(x: Line, y: Line, a: Recording, b: Recording) -> Difference | None:
    """What differs between two calls; None if nothing does."""
    name = x.op.name
    if x.op is not y.op:
        what = f"{name}, then {y.op.name} (a branch that changed?)"
        return Difference("", what, name, y.op.name)
    if len(x.operands) != len(y.operands) or x.outputs != y.outputs:
        return Difference("", f"{name} has other operands", x.operands, y.operands)
    for i in x.made():
        if a.facts[i] != b.facts[i]:
            return Difference("", f"{name} gives another shape", a.facts[i][0], b.facts[i][0])
    # Only Python values are left, and they do not make what follows differ: more may be found
    unequal = [(p, q) for p, q in zip(x.operands, y.operands, strict=True) if not _equal(p, q)]
    for p, q in unequal:
        if isinstance(p, Ref) or isinstance(q, Ref):
            return Difference("", f"{name} works on another value", p, q)
    unequal += [] if _equal(x.params, y.params) else [(x.params, y.params)]
    for p, q in unequal:
        value = "" if p is x.params else "the Python value "
        return Difference("", f"{name} has {value}{p!r}, then {q!r}", p, q, is_value=True)
    return None


def _equal(x: Any, y: Any) -> bool:
    # Masks and index arrays among the params
    if isinstance(x, np.ndarray) or isinstance(y, np.ndarray):
        return np.array_equal(x, y)
    if isinstance(x, (tuple, list)) and isinstance(y, (tuple, list)):
        return len(x) == len(y) and all(map(_equal, x, y))
    if type(x) is not type(y):
        return False
    if isinstance(x, dict):
        return x.keys() == y.keys() and all(_equal(x[k], y[k]) for k in x)
    if isinstance(x, float):
        return repr(x) == repr(y)  # NaN is equal to itself here, and -0.0 is not 0.0
    return bool(x == y)


# --- what the ops read


def array_difference(leaf: Leaf, before: Array | None, now: Recording) -> Difference:
    """The difference of an array that the step makes, or reads under a name, from what it was."""
    shape = leaf.array.shape
    if now.drawn:
        what = f"random numbers drawn past the ops: an array of shape {shape} differs"
        hint = "Tensor.rand, randn and dropout are replayed; draw others outside the step"
        return Difference(now.drawn, what, hint=hint + ", and pass them as an argument")
    both = (before, leaf.contents)
    old, new = (shape if a is None or a.size > _SHOWN else a.tolist() for a in both)
    values = f"is {old}, then {new}" if old != new else "differs"
    what = f"an array of shape {shape} that no op made {values}"
    hint = "pass what changes, such as random numbers, a counter or the time, as an argument: a "
    hint += "Tensor or an array; t.assign(...) changes a tensor that stays the same one"
    return Difference(leaf.where, what, old, new, hint)


def same_memory(a: Array, b: Array) -> bool:
    """True if two arrays are the same elements of the same memory."""
    return a is b or (
        a.__array_interface__["data"] == b.__array_interface__["data"]
        and (a.shape, a.strides, a.dtype) == (b.shape, b.strides, b.dtype)
    )


def same_bits(x: Array, y: Array) -> bool:
    """True if two arrays hold the same numbers, bit by bit."""
    p, q = (np.ascontiguousarray(a).reshape(-1).view(np.uint8) for a in (x, y))
    return (x.shape, x.dtype) == (y.shape, y.dtype) and np.array_equal(p, q)


def refuse_moving_shapes(first: Recording, second: Recording) -> None:
    """Raise CaptureError if the shape of what a call makes depends on values that may change."""
    shaping: dict[int, set[int]] = {}
    for line, number in second.shaping():
        shaping.setdefault(id(line), set()).add(number)
    if not shaping:
        return
    # Values that may differ from call to call: arguments, states, and what is computed from them
    moving = set(second.inputs)
    for number, leaf in second.leaves.items():
        twin = first.leaves.get(number)
        if leaf.tensor is not None and twin is not None and same_memory(twin.array, leaf.array):
            moving.add(number)  # a state, which may be written to between two calls
    for line in second.lines:
        if not moving.isdisjoint(shaping.get(id(line), ())):
            name, hint = line.op.name, "where(mask, x, 0) keeps the shape; or select outside the "
            hint += "step, or by an array of numpy that stays the same"
            problem = f"the shape of what {name} gives depends on values; a replay would freeze it"
            raise CaptureError("jit", problem, where=line.where, got=name, hint=hint)
        if line.op.kind in ("effect", "random") or not moving.isdisjoint(line.reads()):
            moving.update(line.made())
            moving.update(line.reads() if line.op.kind == "effect" else ())


# --- what a call leaves behind


@dataclass
class Outcome:
    """What a call leaves behind, besides states that ops have changed. A tensor that outlives the
    call is given by its place: the arguments come first, then `held`.

    given: for each result the tensor that is returned as it is, None for a computed one, whose
        numbers are `computed`.
    rebound: (tensor, number) of tensors left with another array (`t[i] = x` where gradients flow).
    grads: (tensor, number) of the gradients that it made.
    asked: (tensor, flag) of arguments of which the call changed whether they require a gradient.
    cleared: tensors that had a gradient and have none now; absent: that had none and have none, or
        a new one.
    """

    given: list[int | None]
    computed: list[int]
    rebound: list[tuple[int, int]]
    grads: list[tuple[int, int]]
    asked: list[tuple[int, bool]]
    cleared: list[int] = field(compare=False)
    absent: list[int] = field(compare=False)

    @classmethod
    def of(cls, now: Recording, held: Sequence[Tensor]) -> Outcome:
        """What a recorded call leaves, where these tensors are known to outlive calls."""
        # Results that are known tensors are returned as they are, others as new tensors
        place, count = places(now, held), len(now.arguments)
        owners = {i: t for i, t in enumerate([*now.arguments, *held]) if place[id(t)] == i}
        given = [place.get(id(t)) for t in now.results]
        fresh = [t for t, i in zip(now.results, given, strict=True) if i is None]
        rebound = [(place[i], t) for i, t in now.rebound.items() if i in place]
        # A gradient that was there when the call began, and is still, is left alone by a replay
        found = {id(g.data) for g in now.found.values()}
        made = {i: t.grad.data for i, t in owners.items() if t.grad is not None}
        numbers = {i: now.find(a) for i, a in made.items() if id(a) not in found}
        asked = zip(now.arguments, now.wanted, strict=True)
        # Arguments that require no gradient may have one or not: nothing is done with it
        without = {i: t for i, t in owners.items() if id(t) not in now.found and is_float(t.dtype)}
        return cls(
            given,
            [_number(now, t, "returns a tensor") for t in fresh],
            [(i, _number(now, t, "leaves a tensor with an array")) for i, t in rebound],
            [(i, number) for i, number in numbers.items() if number is not None],
            [(i, t.requires_grad) for i, (t, b) in enumerate(asked) if t.requires_grad != b],
            [i for i, t in owners.items() if t.grad is None and id(t) in now.found],
            [i for i, t in without.items() if t._wants or i >= count],
        )


def places(now: Recording, held: Sequence[Tensor]) -> dict[int, int]:
    """id of a tensor -> its place among the arguments, then `held`; the first of several."""
    owners = [*now.arguments, *held]
    return {id(t): i for i, t in reversed(list(enumerate(owners)))}


def _number(now: Recording, t: Tensor, does: str) -> int:
    number = now.find(t.data)
    if number is None:
        problem = f"the step {does} of shape {t.shape} that no recorded op made"
        hint = "compute it from the arguments with ops, or make it outside the step"
        raise CaptureError("jit", problem, got=t.shape, hint=hint)
    return number
