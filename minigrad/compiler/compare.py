"""Two recordings of a step compared, and what they agree on as a Program.

The same comparison serves the first two calls, the call after a structural change and the audits:
a later recording is held against the one that a program was made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minigrad import ops
from minigrad.compiler.program import Line, Program, Ref, Source, Value
from minigrad.compiler.record import Call, Leaf, Recording, changed_leaves
from minigrad.dtypes import Array, is_float
from minigrad.errors import CaptureError
from minigrad.tensor import Tensor

Owner = Tensor | int  # a tensor that outlives the call, or the position of an argument
_SHOWN = 4  # elements; a larger array is shown by its shape


@dataclass
class Difference:
    """Where two recordings part: the line, what is different, the earlier and the later value."""

    where: str
    what: str
    before: Any
    now: Any
    hint: str = (
        "what changes from call to call must be an argument, or a 0-d Tensor changed by assign()"
    )


@dataclass
class Captured:
    """What two recordings agree on: the program, and where its values that are not computed come
    from.

    written: an array made inside and written into -> the constant that it is a copy of.
    """

    program: Program
    inputs: dict[int, int] = field(default_factory=dict)  # value -> position of an argument
    states: dict[int, tuple[Array, Tensor | None]] = field(default_factory=dict)
    gradients: dict[int, Owner] = field(default_factory=dict)  # value -> whose .grad it was
    constants: dict[int, Array] = field(default_factory=dict)
    written: dict[int, int] = field(default_factory=dict)
    unread: frozenset[int] = frozenset()  # leaves that no op reads
    shares: bool = False  # True if a state that the step changes shares memory with another


class Outcome:
    """What a call leaves behind, besides states that ops have changed.

    given: for each result the tensor that is returned as it is, None for a computed one, whose
        numbers are `computed`.
    rebound: tensors that are left with another array (`t[i] = x` where gradients flow).
    grads: (number, owner) of the gradients that it made.   cleared: owners that had one and have
        none now; absent: that had none and have none, or a new one.
    asked: arguments of which the call changed whether they require a gradient.
    """

    def __init__(self, earlier: Recording, now: Recording) -> None:
        self._positions = {id(t): i for i, t in enumerate(now.arguments)}
        self._known = earlier.tensors
        self.given: list[Owner | None] = []
        self.computed: list[int] = []
        for t in now.results:
            lasting = self.is_lasting(t)
            self.given.append(self.owner(t) if lasting else None)
            if not lasting:
                self.computed.append(self._number(now, t, "returns a tensor"))
        self.rebound = [
            (self.owner(t), self._number(now, t, "leaves a tensor with an array"))
            for t in now.rebound
            if self.is_lasting(t)
        ]
        tensors = [t for t in {**now.before, **now.tensors}.values() if self.is_lasting(t)]
        found = {id(g.data) for g in now.found.values()}
        self.grads = [
            (number, self.owner(t))
            for t in tensors
            if t.grad is not None
            and id(t.grad.data) not in found
            and (number := now.find(t.grad.data)) is not None
        ]
        without = [
            t
            for t in tensors
            if id(t) in now.before and id(t) not in now.found and is_float(t.dtype)
            if t._wants or id(t) not in self._positions
        ]
        self.absent = [self.owner(t) for t in without]
        self.cleared = [self.owner(t) for t in tensors if t.grad is None and id(t) in now.found]
        self.asked = [
            (i, t.requires_grad)
            for i, (t, flag) in enumerate(zip(now.arguments, now.wanted, strict=True))
            if t.requires_grad != flag
        ]

    def is_lasting(self, t: Tensor) -> bool:
        """True for an argument and for a tensor that the earlier call met, too."""
        return id(t) in self._positions or self._known.get(id(t)) is t

    def owner(self, t: Tensor) -> Owner:
        """The position of an argument, any other tensor itself."""
        return self._positions.get(id(t), t)

    def key(self) -> Any:
        """What must be equal of two calls with the same ops; owners by identity."""
        return (
            [_id(x) for x in self.given],
            self.computed,
            [(_id(x), n) for x, n in self.rebound],
            [(n, _id(x)) for n, x in self.grads],
            self.asked,
        )

    def _number(self, now: Recording, t: Tensor, does: str) -> int:
        number = now.find(t.data)
        if number is None:
            raise CaptureError(
                "jit",
                f"the step {does} of shape {t.shape} that no recorded op made",
                got=t.shape,
                hint="compute it from the arguments with ops, or make it outside the step",
            )
        return number


def _id(x: Owner | None) -> tuple[str, int]:
    return ("argument", x) if isinstance(x, int) else ("tensor", id(x))


# --- comparing


def difference(a: Recording, b: Recording) -> Difference | None:
    """Where the ops or the returned structure of a later recording b differ from a's."""
    for i, (x, y) in enumerate(zip(a.calls, b.calls, strict=False)):
        found = _call_difference(x, y, a, b)
        if found is not None:
            what, before, now = found
            lines = x.where if x.where == y.where else f"{x.where} and {y.where}"
            return Difference(lines, f"op {i}: {what}", before, now)
    if len(a.calls) != len(b.calls):
        shorter, longer = sorted((a.calls, b.calls), key=len)
        extra = longer[len(shorter)]
        return Difference(
            extra.where,
            f"one went on with {extra.op.name}",
            len(a.calls),
            len(b.calls),
            "a branch of the step depends on something that changes from call to call; pass it as "
            "an argument",
        )
    if a.shape_key != b.shape_key:
        return Difference(
            "",
            f"the result is {a.shape!r}, then {b.shape!r}",
            a.shape,
            b.shape,
            "return tensors, in tuples, lists, dicts or named tuples, and work out the rest "
            "outside the step",
        )
    return None


def _call_difference(x: Call, y: Call, a: Recording, b: Recording) -> tuple[str, Any, Any] | None:
    """What differs between two calls, the earlier and the later value; None if nothing does."""
    name = x.op.name
    if x.op is not y.op:
        return f"{name}, then {y.op.name} (a branch that changed?)", name, y.op.name
    if len(x.operands) != len(y.operands) or x.outputs != y.outputs:
        return f"{name} has other operands", x.operands, y.operands
    for p, q in zip(x.operands, y.operands, strict=True):
        if not _equal(p, q):
            if isinstance(p, Ref) or isinstance(q, Ref):
                return f"{name} works on another value", p, q
            return f"{name} has the Python value {p!r}, then {q!r}", p, q
    if x.params.keys() != y.params.keys() or not all(
        _equal(x.params[k], y.params[k]) for k in x.params
    ):
        return f"{name} has {x.params}, then {y.params}", x.params, y.params
    for i in x.outputs:
        if i is not None and a.facts[i] != b.facts[i]:
            return f"{name} gives another shape", a.facts[i][0], b.facts[i][0]
    return None


def _equal(x: Any, y: Any) -> bool:
    if isinstance(x, np.ndarray) or isinstance(y, np.ndarray):
        return np.array_equal(x, y)
    if isinstance(x, (tuple, list)) and isinstance(y, (tuple, list)):
        return len(x) == len(y) and all(_equal(p, q) for p, q in zip(x, y, strict=True))
    if type(x) is not type(y):
        return False
    if isinstance(x, float):
        return repr(x) == repr(y)  # NaN is equal to itself here, and -0.0 is not 0.0
    return bool(x == y)


def leaf_difference(captured: Captured, now: Recording, outcome: Outcome) -> Difference | None:
    """Where a recording with the ops of a program reads other arrays than the program does."""
    for number, leaf in now.leaves.items():
        what = f"works on another array of shape {leaf.array.shape}"
        if number in captured.inputs:
            same = number in now.inputs and now.inputs.index(number) == captured.inputs[number]
        elif number in captured.gradients:
            owner = now.gradient_of(leaf.array)
            same = owner is not None and _id(outcome.owner(owner)) == _id(
                captured.gradients[number]
            )
        elif number in captured.states:
            same = same_memory(captured.states[number][0], leaf.array)
        elif number not in captured.unread:
            before = captured.constants[captured.written.get(number, number)]
            same = number not in now.inputs and _same_bits(before, leaf.contents)
            if not same:
                return _array_difference(leaf, before, now)
        else:
            same = True
        if not same:
            return Difference(leaf.where, what, leaf.array.shape, leaf.array.shape)
    return None


def _array_difference(leaf: Leaf, before: Array | None, now: Recording) -> Difference:
    """An array that the step makes, or reads under a name, is another one than before."""
    shape = leaf.array.shape
    if now.drawn:
        return Difference(
            now.drawn,
            f"random numbers drawn past the ops: an array of shape {shape} differs",
            shape,
            shape,
            "Tensor.rand, randn and dropout are replayed; draw others outside, and pass them as an "
            "argument",
        )
    old, new = (
        shape if a is None or a.size > _SHOWN else a.tolist() for a in (before, leaf.contents)
    )
    return Difference(
        leaf.where,
        f"an array of shape {shape} that no op made"
        + (f" is {old}, then {new}" if old != new else " differs"),
        old,
        new,
        "pass what changes, such as random numbers, a counter or the time, as an argument: a "
        "Tensor or an array; t.assign(...) changes a tensor that stays the same one",
    )


def same_memory(a: Array, b: Array) -> bool:
    """True if two arrays are the same elements of the same memory."""
    return a is b or (
        a.__array_interface__["data"] == b.__array_interface__["data"]
        and (a.shape, a.strides, a.dtype) == (b.shape, b.strides, b.dtype)
    )


def _same_bits(x: Array, y: Array) -> bool:
    return (x.shape, x.dtype) == (y.shape, y.dtype) and np.array_equal(_bits(x), _bits(y))


def _bits(x: Array) -> Array:
    return np.ascontiguousarray(x).reshape(-1).view(np.uint8)


# --- the program of two recordings


def capture(first: Recording, second: Recording, outcome: Outcome) -> Captured:
    """The program of two recordings of the same step. Raises CaptureError where they differ."""
    _refuse_moving_shapes(first, second)
    found = difference(first, second)
    if found is not None:
        raise _error(found)
    read = {x.index for c in second.calls for x in c.operands if isinstance(x, Ref)}
    read |= {*outcome.computed, *(n for n, _ in outcome.grads)}
    captured = Captured(Program((), ()), unread=frozenset(second.leaves.keys() - read))
    values = []
    for number, (shape, dtype) in enumerate(second.facts):
        leaf, source, name = second.leaves.get(number), "temporary", ""
        if leaf is not None:
            source, name = _place(number, leaf, first, second, outcome, captured)
        values.append(Value(number, shape, dtype, _source(source), name))
    lines = [Line(c.op, c.operands, c.params, c.outputs, c.where) for c in second.calls]
    for number in sorted(changed_leaves(second)):
        if values[number].source == "constant":  # each call writes into an array of its own
            captured.written[number] = copied = len(values)
            captured.constants[copied] = captured.constants.pop(number)
            values.append(replace(values[number], index=copied, name=f"c{copied}"))
            values[number] = replace(values[number], source="temporary", name="")
            lines.insert(0, Line(ops.copy, (Ref(copied),), {}, (number,)))
    results = (*outcome.computed, *(n for _, n in outcome.rebound))
    kept = tuple(n for n, _ in outcome.grads)
    captured.program = Program(tuple(values), tuple(lines), results, kept).check()
    return captured


def _error(found: Difference) -> CaptureError:
    return CaptureError(
        "jit",
        f"the first two calls of the step differ: {found.what}, which a replay would freeze",
        where=found.where,
        got=found.now,
        wanted=found.before,
        hint=found.hint,
    )


def _source(text: str) -> Source:
    assert text in ("input", "state", "constant", "temporary")
    return text  # type: ignore[return-value]


def _place(
    number: int,
    leaf: Leaf,
    first: Recording,
    second: Recording,
    outcome: Outcome,
    captured: Captured,
) -> tuple[str, str]:
    """Where a leaf comes from, written into `captured`; its source and name."""
    if number in second.inputs:
        captured.inputs[number] = second.inputs.index(number)
        return "input", f"in{captured.inputs[number]}"
    owner = second.gradient_of(leaf.array)
    if owner is not None:
        captured.gradients[number] = outcome.owner(owner)
        return "input", f"g{number}"
    twin = first.leaves.get(number)
    if twin is not None and (
        same_memory(twin.array, leaf.array) or _was_rebound(first, twin, leaf)
    ):
        held = leaf.tensor if leaf.tensor is not None and twin.tensor is leaf.tensor else None
        if held is not None or not _chooses(number, second):
            captured.states[number] = leaf.array, held
            return "state", f"s{number}"
    moves = twin is None or not _same_bits(twin.contents, leaf.contents)
    if moves and number not in captured.unread:
        raise _error(_array_difference(leaf, None if twin is None else twin.contents, second))
    captured.constants[number] = leaf.contents.copy()
    return "constant", f"c{number}"


def _was_rebound(first: Recording, twin: Leaf, leaf: Leaf) -> bool:
    """True if the first call left the leaf's tensor with the array that the second found."""
    return twin.tensor is leaf.tensor and any(
        t is leaf.tensor and first.ends.get(id(t)) is leaf.array for t in first.rebound
    )


def _chooses(number: int, recording: Recording) -> bool:
    """True if the shape of a result depends on this value, as on a mask's."""
    return any(
        x == Ref(number) and call.op.shape_depends_on_values(i, recording.facts[number][1])
        for call in recording.calls
        for i, x in enumerate(call.operands)
    )


def _refuse_moving_shapes(first: Recording, second: Recording) -> None:
    """Raise CaptureError if the shape of what a call makes depends on values that may change."""
    moving = set(second.inputs)
    for call in second.calls:
        refs = [(i, x.index) for i, x in enumerate(call.operands) if isinstance(x, Ref)]
        for _, number in refs:
            leaf, twin = second.leaves.get(number), first.leaves.get(number)
            if leaf is None or leaf.tensor is None or twin is None:
                continue
            if same_memory(twin.array, leaf.array):
                moving.add(number)  # a state, which may be written to between two calls
        for i, number in refs:
            if number in moving and call.op.shape_depends_on_values(i, second.facts[number][1]):
                raise CaptureError(
                    "jit",
                    f"the shape of what {call.op.name} gives depends on values, which a replay "
                    "would freeze",
                    where=call.where,
                    got=call.op.name,
                    hint="where(mask, x, 0) keeps the shape; or select outside the step, or by an "
                    "array of numpy that stays the same",
                )
        effect = call.op.kind == "effect"
        if effect or call.op.kind == "random" or any(number in moving for _, number in refs):
            moving.update(n for n in call.outputs if n is not None)
            if effect:
                moving.update(number for _, number in refs)


def owners_at(owners: Sequence[Owner], tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors of a call with these arguments."""
    return [tensors[x] if type(x) is int else x for x in owners]  # type: ignore[misc]
