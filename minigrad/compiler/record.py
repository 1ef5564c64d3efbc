"""Listening to a step, twice, and what both recordings agree on as a Program.

A recording holds every array of the call alive, so an array is known by its identity. What both
recordings do not share - another op, shape, Python number, or an array made from something that
changed - is a CaptureError with both lines.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigrad import ops
from minigrad.autograd import user_line
from minigrad.compiler.program import Line, Program, Ref, Source, Value
from minigrad.compiler.structure import flatten
from minigrad.compiler.surroundings import within
from minigrad.dtypes import Array
from minigrad.errors import CaptureError
from minigrad.primitive import Primitive
from minigrad.tensor import Tensor


@dataclass
class Leaf:
    """An array that the recording met and had not made, and the Tensor that held it."""

    array: Array
    tensor: Tensor | None
    contents: Array  # a copy, as first seen
    where: str


@dataclass
class Call:
    """One call as heard: operands are value numbers (Ref) or Python scalars."""

    op: Primitive
    operands: tuple[Any, ...]
    params: dict[str, Any]
    outputs: tuple[int | None, ...]
    where: str


class Recording:
    """A listener that writes down every op of one call. The step runs eagerly meanwhile: a recorded
    call is a real one.

    known: tensors and arrays that the function sees without being given them. An argument that is
        one of them may be read by either way.
    pattern: for each argument the first one with the same array, and the argument's id where it is
        known, 0 where not.
    """

    def __init__(self, inputs: Sequence[Tensor], known: Sequence[Any] = ()) -> None:
        self.calls: list[Call] = []
        self.arrays: list[Array] = []
        self.leaves: dict[int, Leaf] = {}
        self.drawn = ""  # the line where random numbers were first drawn outside an op
        self.read_gradients = False  # whether it added to gradients that it found in .grad
        self.tensors: dict[int, Tensor] = {}  # leaf tensors by id: parameters, among others
        self._numbers: dict[int, int] = {}
        self._pending: tuple[Sequence[Any], Any] = ((), None)
        self.inputs = [self._number(t.data, t) for t in inputs]
        self.known = seen = {id(x.data) if isinstance(x, Tensor) else id(x) for x in known}
        self.arguments = list(inputs)
        self.pattern = [
            (self.inputs.index(n), id(t) if id(t.data) in seen else 0)
            for n, t in zip(self.inputs, inputs, strict=True)
        ]
        self.results: list[Tensor] = []
        self.shape: Any = None  # of what the call returned
        self.shape_key: Any = None

    # --- what the door calls

    def run(self, op: Primitive, arrays: Sequence[Any], params: dict[str, Any]) -> Any:
        """Run the op; `done` follows."""
        where = str(user_line())
        for x in arrays:
            if isinstance(x, np.ndarray) and id(x) in self._numbers:
                continue
            if isinstance(x, np.ndarray) and op.kind in ("effect", "random"):
                self._number(x, None, where)  # seen before it is changed
        out = op.forward(*arrays, **params)
        self._pending = arrays, out
        return out

    def done(
        self,
        op: Primitive,
        operands: Sequence[Any],
        params: dict[str, Any],
        outputs: tuple[Any, ...],
    ) -> None:
        """Write the call down, and the casts that the door made before and after it."""
        arrays, out = self._pending
        where = str(user_line())
        made = [
            np.asarray(y) if isinstance(y, np.generic) else y
            for y in ((out,) if op.outputs == 1 else out)
        ]
        if op.kind != "effect" and all(
            any(y is x for x in arrays) and y is t.data
            for y, t in zip(made, outputs, strict=True)
            if t is not None
        ):
            return  # an op that gave back what it was given, such as a cast to the same dtype
        refs = tuple(self._operand(x, a, where) for x, a in zip(operands, arrays, strict=True))
        numbers: list[int | None] = []
        for raw, tensor in zip(made, outputs, strict=True):
            if tensor is None:
                numbers.append(None)
            elif isinstance(raw, np.ndarray) and raw.dtype != tensor.data.dtype:
                numbers.append(self._number(raw, None, made=True))
            else:
                numbers.append(self._number(tensor.data, tensor, made=True))
        self.calls.append(Call(op, refs, params, tuple(numbers), where))
        for raw, tensor in zip(made, outputs, strict=True):
            if (
                tensor is not None
                and isinstance(raw, np.ndarray)
                and raw.dtype != tensor.data.dtype
            ):
                self._cast(self._numbers[id(raw)], tensor.data, where)

    def reading(self, tensor: Tensor, how: str) -> None:
        """A value is about to leave the tensors: the recording could not follow it."""
        where = str(user_line())
        raise CaptureError(
            "jit",
            f"{how} reads a value while the step is recorded; a replay would not see it change",
            where=where,
            got=how,
            hint="return the tensor and read it outside the step; choose between values with "
            "where()",
        )

    def drawing(self, state: Array) -> None:
        """A generator draws outside an op. What comes of it is compared with the other recording's,
        as every array made inside is.
        """
        self.drawn = self.drawn or str(user_line())

    def setting(self, name: str) -> None:
        """A setting of an optimizer is about to be changed by Python, which a replay would not run."""
        what = "the learning rate" if name == "lr" else f"the setting {name!r} of an optimizer"
        raise CaptureError(
            "jit",
            f"{what} is set inside the step, which a replay would not do",
            where=str(user_line()),
            got=name,
            hint="set it between two calls, as by schedule.step(): the step reads it each time",
        )

    # --- numbers

    def _number(
        self, array: Array, tensor: Tensor | None, where: str = "", made: bool = False
    ) -> int:
        number = self._numbers.get(id(array))
        if number is None:
            number = self._numbers[id(array)] = len(self.arrays)
            self.arrays.append(array)
            if not made:
                contents = array.copy() if array.size <= 1 << 16 else array
                self.leaves[number] = Leaf(array, tensor, contents, where)
        if tensor is not None and number in self.leaves:
            if self.leaves[number].tensor is None:
                self.leaves[number].tensor = tensor
            self.tensors.setdefault(id(tensor), tensor)
        return number

    def _operand(self, x: Any, array: Any, where: str) -> Any:
        if not isinstance(array, np.ndarray):
            return array
        if isinstance(x, Tensor) and x.data is not array:
            source = self._number(x.data, x, where)
            if id(array) not in self._numbers:
                self._cast(source, array, where)
            return Ref(self._numbers[id(array)])
        return Ref(self._number(array, x if isinstance(x, Tensor) else None, where))

    def _cast(self, source: int, array: Array, where: str) -> None:
        number = self._number(array, None, made=True)
        self.leaves.pop(number, None)
        self.calls.append(Call(ops.cast, (Ref(source),), {"dtype": array.dtype}, (number,), where))

    def finish(self, out: Any) -> None:
        """Note what the call returned. Raises CaptureError for a number that numpy has made, of
        tensors' values that is.
        """
        self.shape, self.shape_key = flatten(out, self.results)
        for x in within([self.shape]):
            if isinstance(x, np.generic):
                raise CaptureError(
                    "jit",
                    f"the step returns the numpy number {x!r}, which a replay would freeze",
                    got=x,
                    hint="return a tensor, made by ops, and read it outside the step",
                )

    def reads(self, arrays: Collection[int]) -> bool:
        """True if it read one of the arrays, given by id, as it found it."""
        return any(id(leaf.array) in arrays for leaf in self.leaves.values())

    def find(self, array: Array) -> int | None:
        """The number of an array that the recording met."""
        return self._numbers.get(id(array))


@dataclass
class Captured:
    """What two recordings agree on: the program, and where its values that are not computed come
    from.
    """

    program: Program
    inputs: dict[int, int] = field(
        default_factory=dict
    )  # value -> position among the tensors of the arguments
    states: dict[int, tuple[Array, Tensor | None]] = field(default_factory=dict)
    gradients: dict[int, Tensor] = field(
        default_factory=dict
    )  # value -> the tensor whose .grad it is when the call begins
    constants: dict[int, Array] = field(default_factory=dict)
    shares: bool = False  # whether a state that the step changes shares memory with another


def capture(
    first: Recording,
    second: Recording,
    start_grads: dict[int, Tensor],
    results: Sequence[int],
    kept: Sequence[int],
) -> Captured:
    """The program of two recordings of the same step. Raises CaptureError where they differ.

    start_grads: id of the array of a gradient that lay in .grad when the second call began -> the
        tensor whose gradient it is.
    """
    moving = set(second.inputs)  # values that may be others at the next call
    for i, (a, b) in enumerate(zip(first.calls, second.calls, strict=False)):
        _refuse_a_shape_that_moves(b, first, second, moving)
        _compare(i, a, b, first, second)
    if len(first.calls) == len(second.calls) and first.shape_key != second.shape_key:
        raise CaptureError(
            "jit",
            f"the first two calls return {first.shape!r}, then {second.shape!r}, which a replay "
            "would freeze",
            got=second.shape,
            wanted=first.shape,
            hint="return tensors, in tuples, lists, dicts or named tuples, and work out the rest "
            "outside the step",
        )
    if len(first.calls) != len(second.calls):
        shorter, longer = sorted((first.calls, second.calls), key=len)
        extra = longer[len(shorter)]
        raise CaptureError(
            "jit",
            f"the first two calls did not do the same: one went on with {extra.op.name}",
            where=extra.where,
            got=len(second.calls),
            wanted=len(first.calls),
            hint="a branch of the step depends on something that changes from call to call; pass "
            "it as an argument",
        )
    captured = Captured(Program((), ()))
    values = []
    for number, array in enumerate(second.arrays):
        leaf, source, name = second.leaves.get(number), "temporary", ""
        if leaf is not None:
            source, name = _place(number, leaf, first, second, start_grads, captured)
        values.append(Value(number, array.shape, array.dtype, _source(source), name))
    lines = [Line(c.op, c.operands, c.params, c.outputs, c.where) for c in second.calls]
    captured.program = Program(tuple(values), tuple(lines), tuple(results), tuple(kept)).check()
    return captured


def _source(text: str) -> Source:
    assert text in ("input", "state", "constant", "temporary")
    return text  # type: ignore[return-value]


def _place(
    number: int,
    leaf: Leaf,
    first: Recording,
    second: Recording,
    start_grads: dict[int, Tensor],
    captured: Captured,
) -> tuple[str, str]:
    """Where a leaf comes from, written into `captured`; its source and name."""
    if number in second.inputs:
        captured.inputs[number] = second.inputs.index(number)
        return "input", f"in{captured.inputs[number]}"
    if id(leaf.array) in start_grads:
        captured.gradients[number] = start_grads[id(leaf.array)]
        return "input", f"g{number}"
    twin = first.leaves.get(number)
    if twin is not None and _same_memory(twin.array, leaf.array):
        keep = leaf.tensor if leaf.tensor is not None and twin.tensor is leaf.tensor else None
        captured.states[number] = leaf.array, keep
        return "state", f"s{number}"
    if id(leaf.array) in second.known:
        raise CaptureError(
            "jit",
            f"a tensor of shape {leaf.array.shape} that the step finds under a name is another one "
            "at each call",
            where=leaf.where,
            got=leaf.array.shape,
            hint="t.assign(...) changes a tensor that stays the same one; or pass it as an "
            "argument and return the new one",
        )
    if twin is None or not np.array_equal(_bits(twin.contents), _bits(leaf.contents)):
        if second.drawn:
            raise CaptureError(
                "jit",
                "random numbers made inside the step cannot be replayed: an array of shape "
                f"{leaf.array.shape} differs from call to call",
                where=second.drawn,
                got=leaf.array.shape,
                hint="draw them outside, and pass them as an argument; dropout may stay inside",
            )
        raise CaptureError(
            "jit",
            f"an array of shape {leaf.array.shape} that is made inside the step, not by an op, "
            "differs from call to call",
            where=leaf.where,
            got=leaf.array.shape,
            hint="pass what changes, such as random numbers, a counter or the time, as an "
            "argument: a Tensor or an array",
        )
    captured.constants[number] = leaf.contents.copy()
    return "constant", f"c{number}"


def _refuse_a_shape_that_moves(
    call: Call, first: Recording, second: Recording, moving: set[int]
) -> None:
    """Raise CaptureError if the shape of what the call makes depends on values that may change;
    note which of its values may.
    """
    refs = [(i, x.index) for i, x in enumerate(call.operands) if isinstance(x, Ref)]
    for _, number in refs:
        leaf, twin = second.leaves.get(number), first.leaves.get(number)
        if (
            leaf is not None
            and leaf.tensor is not None
            and twin is not None
            and _same_memory(twin.array, leaf.array)
        ):
            moving.add(
                number
            )  # a state, which may be written to between two calls; arrays of numpy are looked at
    for i, number in refs:
        if number in moving and call.op.shape_depends_on_values(i, second.arrays[number].dtype):
            raise CaptureError(
                "jit",
                f"the shape of what {call.op.name} gives depends on values, which a replay would "
                "freeze",
                where=call.where,
                got=call.op.name,
                hint="where(mask, x, 0) keeps the shape; or select outside the step, or by an "
                "array of numpy that stays the same",
            )
    if call.op.kind in ("effect", "random") or any(number in moving for _, number in refs):
        moving.update(n for n in call.outputs if n is not None)
        if call.op.kind == "effect":
            moving.update(number for _, number in refs)


def _bits(x: Array) -> Array:
    return np.ascontiguousarray(x).reshape(-1).view(np.uint8)


def _same_memory(a: Array, b: Array) -> bool:
    return a.__array_interface__["data"] == b.__array_interface__["data"] and (
        a.shape,
        a.strides,
        a.dtype,
    ) == (b.shape, b.strides, b.dtype)


def _compare(index: int, a: Call, b: Call, first: Recording, second: Recording) -> None:
    """Raise CaptureError unless two calls are the same one."""

    def differ(what: str, got: Any, wanted: Any) -> CaptureError:
        lines = a.where if a.where == b.where else f"{a.where} and {b.where}"
        return CaptureError(
            "jit",
            f"the first two calls of the step differ at op {index}: {what}",
            where=lines,
            got=got,
            wanted=wanted,
            hint="what changes from call to call must be an argument, or a 0-d Tensor changed by "
            "assign()",
        )

    if a.op is not b.op:
        raise differ(
            f"{a.op.name}, then {b.op.name} (a branch that changed?)", b.op.name, a.op.name
        )
    if len(a.operands) != len(b.operands) or a.outputs != b.outputs:
        raise differ(f"{a.op.name} got other operands", b.operands, a.operands)
    for x, y in zip(a.operands, b.operands, strict=True):
        if type(x) is not type(y) or not _equal(x, y):
            what = (
                "works on another value"
                if isinstance(x, Ref)
                else f"has the Python value {x!r}, then {y!r}, which a replay would freeze"
            )
            raise differ(f"{a.op.name} {what}", y, x)
    if a.params.keys() != b.params.keys() or not all(
        _equal(a.params[k], b.params[k]) for k in a.params
    ):
        raise differ(
            f"{a.op.name} has {a.params}, then {b.params}, which a replay would freeze",
            b.params,
            a.params,
        )
    for i, j in zip(a.outputs, b.outputs, strict=True):
        if (
            i is not None
            and j is not None
            and (first.arrays[i].shape, first.arrays[i].dtype)
            != (second.arrays[j].shape, second.arrays[j].dtype)
        ):
            raise differ(
                f"{a.op.name} gives another shape", second.arrays[j].shape, first.arrays[i].shape
            )


def _equal(x: Any, y: Any) -> bool:
    if isinstance(x, np.ndarray) or isinstance(y, np.ndarray):
        return np.array_equal(x, y)
    if isinstance(x, (tuple, list)) and isinstance(y, (tuple, list)):
        return len(x) == len(y) and all(_equal(p, q) for p, q in zip(x, y, strict=True))
    return bool(x == y) or (x != x and y != y)
