"""Recording one call of a step: every op with its operands, and every array that no op made.

An array is known by its identity while it lives; the recording keeps those alive that no op made.
Once a program is made of it, `strip` drops what only the comparison needed.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minigrad import ops
from minigrad.compiler.layout import address_of
from minigrad.compiler.program import Line, Ref, roots
from minigrad.compiler.structure import flatten, numpy_numbers
from minigrad.dtypes import Array, DType
from minigrad.errors import CaptureError
from minigrad.modes import Listener, Params, Values
from minigrad.primitive import Primitive
from minigrad.tape import user_line
from minigrad.tensor import Tensor

Part = tuple[Any, Array]  # the index of what an op writes in an array, and what was there before
_COPIED = 1 << 16  # elements of the largest array that is copied when it is first seen


def _forget(numbers: dict[int, int], key: int, _: weakref.ref[Array]) -> None:
    numbers.pop(key, None)


def _contents(array: Array) -> Array:
    """What is in an array, which the call may change later: a copy, but of a large array the array
    itself, unless it is filled with one number, as a new buffer is.
    """
    if array.size > _COPIED:
        bits = array.view(f"u{array.itemsize}")
        same = array.flags.writeable and bits.flat[0] == bits.flat[-1]  # a mapped file is not read
        if not same or bits.min() != bits.max():
            return array
        return np.broadcast_to(array[(slice(1),) * array.ndim].copy(), array.shape)
    return array.copy()


@dataclass
class Leaf:
    """An array that the recording met and that no op made, and the Tensor that held it.

    contents: what was in it when it was first seen.
    """

    array: Array
    tensor: Tensor | None
    contents: Array
    where: str


class Recording(Listener):
    """A listener that writes down every op of one call, which runs eagerly meanwhile.

    inputs: the tensors among the arguments.   seen: tensors that earlier recordings of the step
        met: what is in their .grad now, and afterwards, is part of what the step does.
    """

    def __init__(self, inputs: Sequence[Tensor], seen: Iterable[Tensor] = ()) -> None:
        self.lines: list[Line] = []
        self.arrays: list[weakref.ref[Array]] = []
        self.facts: list[tuple[tuple[int, ...], DType]] = []  # shape and dtype of each value
        self.leaves: dict[int, Leaf] = {}
        self.tensors: dict[int, Tensor] = {}  # that held a leaf, by id: parameters, among others
        self._held: dict[int, Array] = {}  # id of such a tensor -> the leaf's array
        self.parts: dict[int, Part] = {}  # of arrays by address
        self.drawn = ""  # the line where random numbers were first drawn outside an op
        self._numbers: dict[int, int] = {}
        self._pending: tuple[Sequence[Any], Any] = ((), None)
        self.arguments = list(inputs)
        self.given = [t.data for t in inputs]  # as they are before the call
        self.wanted = [t.requires_grad for t in inputs]
        self.inputs = [self._number(t.data, t) for t in inputs]
        self.before = {id(t): t for t in (*seen, *inputs)}
        self.begins = {i: t.data for i, t in self.before.items()}
        self.found = {id(t): t.grad for t in self.before.values() if t.grad is not None}
        self.results: list[Tensor] = []

    # --- what the door calls

    def run(self, op: Primitive, arrays: Values, params: Params) -> Any:
        """Run the op; `done` follows."""
        if op.kind in ("effect", "random"):
            where = str(user_line())
            for x in arrays:
                if isinstance(x, np.ndarray):
                    self._number(x, None, where)  # seen before it is changed
            if op.written is not None:
                at, key = address_of(arrays[0]), op.written(*arrays, **params)
                self.parts[at] = key, arrays[0][key].copy()
        out = op.forward(*arrays, **params)
        self._pending = arrays, out
        return out

    def done(self, op: Primitive, operands: Values, params: Params, outputs: Values) -> None:
        """Write the call down, and the casts that the door made before and after it."""
        # What the user sees as one call may be three lines: casts of operands, the op, a cast of
        # its result. The arrays between them are known to the door alone
        arrays, out = self._pending
        where = str(user_line())
        raw_outputs = (out,) if op.outputs == 1 else out
        made = [np.asarray(y) if isinstance(y, np.generic) else y for y in raw_outputs]
        shown = [(y, t.data) for y, t in zip(made, outputs, strict=True) if t is not None]
        if op.kind != "effect" and all(y is a and any(y is x for x in arrays) for y, a in shown):
            if isinstance(operands[0], Tensor):
                self._number(arrays[0], operands[0], where)
            return  # an op that returned its operand, such as a cast to the same dtype
        # An operand that no op made becomes a leaf here, when it is first seen
        refs = tuple(self._operand(x, a, where) for x, a in zip(operands, arrays, strict=True))
        numbers: list[int | None] = []
        casts: list[tuple[int, Array]] = []
        for raw, tensor in zip(made, outputs, strict=True):
            if tensor is None:
                numbers.append(None)
            elif isinstance(raw, np.ndarray) and raw.dtype != tensor.data.dtype:
                casts.append((self._number(raw, None, made=True), tensor.data))
                numbers.append(casts[-1][0])
            else:
                numbers.append(self._number(tensor.data, tensor, made=True))
        self.lines.append(Line(op, refs, params, tuple(numbers), where))
        for number, array in casts:
            self._cast(number, array, where)

    def reading(self, tensor: Tensor, how: str) -> None:
        """Refuse a value that is about to pass between tensors and Python, which a replay would not
        see change.
        """
        problem = f"{how} reads or writes a value in Python, which a replay would not do again"
        hint = "return the tensor and read it outside the step; choose between values with "
        hint += "where(); change settings, as schedule.step() does, between two calls"
        raise CaptureError("jit", problem, where=str(user_line()), got=how, hint=hint)

    def drawing(self, state: Array) -> None:
        """Note that a generator draws outside an op: what it draws is compared, as every array made
        inside the step is.
        """
        self.drawn = self.drawn or str(user_line())

    # --- numbers

    def _number(
        self, array: Array, tensor: Tensor | None, where: str = "", made: bool = False
    ) -> int:
        # By identity: leaves are kept alive, and the id of another array is forgotten with it, so
        # none is taken for one that had its id before. Whatever is not made by an op here is a
        # leaf: an argument, a state, or an array that the step makes
        number = self._numbers.get(id(array))
        if number is None:
            number = self._numbers[id(array)] = len(self.arrays)
            self.arrays.append(weakref.ref(array, partial(_forget, self._numbers, id(array))))
            self.facts.append((array.shape, array.dtype))
            if not made:
                self.leaves[number] = Leaf(array, tensor, _contents(array), where)
        if tensor is not None and number in self.leaves:
            if self.leaves[number].tensor is None:
                self.leaves[number].tensor = tensor
            if self.tensors.setdefault(id(tensor), tensor) is tensor:
                self._held.setdefault(id(tensor), array)
        return number

    def _operand(self, x: Any, array: Any, where: str) -> Any:
        if not isinstance(array, np.ndarray):
            return array
        # The door has cast the operand, once for all calls that read it
        if isinstance(x, Tensor) and x.data is not array:
            source = self._number(x.data, x, where)
            if id(array) not in self._numbers:
                self._cast(source, array, where)
            return Ref(self._numbers[id(array)])
        return Ref(self._number(array, x if isinstance(x, Tensor) else None, where))

    def _cast(self, source: int, array: Array, where: str) -> None:
        number = self._number(array, None, made=True)
        self.leaves.pop(number, None)
        self.lines.append(Line(ops.cast, (Ref(source),), {"dtype": array.dtype}, (number,), where))

    def array(self, number: int) -> Array:
        """A result, or an array that a tensor holds since the call."""
        found = self.arrays[number]()
        assert found is not None
        return found

    def find(self, array: Array) -> int | None:
        """The number of an array that the recording met."""
        return self._numbers.get(id(array))

    def number_of(self, tensor: Tensor) -> int | None:
        """The number of the leaf that a tensor held."""
        return self._numbers.get(id(self._held[id(tensor)]))

    def gradient_of(self, array: Array) -> Tensor | None:
        """The tensor in whose .grad this array was when the call began."""
        for key, g in self.found.items():
            if g.data is array:
                return self.before[key]
        return None

    def changed_leaves(self) -> set[int]:
        """The arrays that no op made and that the call writes into, itself or through a view."""
        return roots(self.lines, len(self.facts))[1] & self.leaves.keys()

    def shaping(self) -> list[tuple[Line, int]]:
        """Lines whose results' shapes depend on the values of an operand, as on a mask's, and the
        number of that operand.
        """
        return [
            (line, x.index)
            for line in self.lines
            for i, x in enumerate(line.operands)
            if isinstance(x, Ref) and line.op.shape_depends_on_values(i, self.facts[x.index][1])
        ]

    # --- at the end of the call

    def finish(self, out: Any) -> None:
        """Note what the call returned, and which tensors it has left with other arrays. Raises
        CaptureError for what a replay could not do again.
        """
        # What the call returned, with slots for its tensors
        self.shape, self.shape_key = flatten(out, self.results)
        for x in numpy_numbers(self.shape):
            problem = f"the step returns the numpy number {x!r}, which a replay would freeze"
            hint = "return a tensor, made by ops, and read it outside the step"
            raise CaptureError("jit", problem, got=x, hint=hint)
        # Tensors that were left with another array: `t[i] = x` where gradients flow does that
        self.rebound = {i: t for i, t in self.tensors.items() if t.data is not self._held[i]}
        for t in self.rebound.values():  # like a result, it has no graph
            t._node, t._index, t._wants = None, 0, False
        # Two recordings make a program only if the same arguments had one array in both, and both
        # added to as many gradients that were there
        added = sum(self.gradient_of(x.array) is not None for x in self.leaves.values())
        self.pattern = [self.inputs.index(n) for n in self.inputs], added

    def strip(self, lasting: set[int]) -> None:
        """Keep what later recordings are compared with: no array, and of tensors those of
        these ids.
        """
        self.arrays, self._numbers, self._held, self.results = [], {}, {}, []
        self.found, self.before, self.rebound, self.begins = {}, {}, {}, {}
        self.tensors = {i: t for i, t in self.tensors.items() if i in lasting}
        self.arguments, self.given, self.leaves, self._pending = [], [], {}, ((), None)
        self.parts = {}
