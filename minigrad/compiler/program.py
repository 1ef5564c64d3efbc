"""The program: a typed straight line of op calls on numbered values. What is recorded, what passes
transform, what is replayed and emitted.

Printable, comparable and checkable. Knows shapes, dtypes and ops' kinds; does not know how anything
is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

from minigrad.dtypes import DType, name as dtype_name
from minigrad.primitive import Primitive

Source = Literal["input", "state", "constant", "temporary"]


@dataclass(frozen=True, slots=True)
class Ref:
    """An operand that is a value of the program; any other operand is a Python scalar."""

    index: int


@dataclass(frozen=True)
class Value:
    """A numbered array. input: an argument of the call; state: memory that outlives the call
    (parameters, moments), read and written by reference;
    constant: made inside the recording, always the same; temporary: computed by a line."""

    index: int
    shape: tuple[int, ...]
    dtype: DType
    source: Source
    name: str = ""

    def __str__(self) -> str:
        prefix = {"input": "in", "state": "s", "constant": "c", "temporary": "%"}[self.source]
        return self.name or f"{prefix}{self.index}"

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class Line:
    """One call: outputs = op(*operands, **params). An output is None where the op gave None. where:
    file:line of the user.
    """

    op: Primitive
    operands: tuple[Any, ...]
    params: dict[str, Any]
    outputs: tuple[int | None, ...]
    where: str = ""

    def reads(self) -> Iterator[int]:
        """The values among the operands."""
        return (x.index for x in self.operands if isinstance(x, Ref))

    def changes(self) -> tuple[int, ...]:
        """The values that the call changes in place."""
        if self.is_pure():
            return ()
        first = slice(self.params.get("changes", 1))
        changed = self.operands[first if self.op.kind == "effect" else slice(-1, None)]
        return tuple(x.index for x in changed if isinstance(x, Ref))

    def reading(self, instead: Mapping[int, int]) -> Line:
        """The same call on other values."""
        operands = (
            Ref(instead.get(x.index, x.index)) if isinstance(x, Ref) else x for x in self.operands
        )
        return replace(self, operands=tuple(operands))

    def is_pure(self) -> bool:
        """True if the call changes no memory and always gives the same."""
        return self.op.kind not in ("effect", "random")

    def made(self) -> tuple[int, ...]:
        """The values that the call makes."""
        return tuple(i for i in self.outputs if i is not None)


@dataclass(frozen=True)
class Program:
    """values: by number; lines: in order; results: the values that are handed out; kept:
    temporaries that must outlive the call (gradients).
    """

    values: tuple[Value, ...]
    lines: tuple[Line, ...]
    results: tuple[int, ...] = ()
    kept: tuple[int, ...] = ()

    def __str__(self) -> str:
        rows = [self._row(line) for line in self.lines]
        width = min(max((len(left) for left, _, _ in rows), default=0), 88)
        text = [f"program: {len(self.lines)} lines"]
        for left, types, where in rows:
            text.append(f"  {left:<{width}}  {types}{'   # ' + where if where else ''}")
        return "\n".join(
            [*text, f"  return {', '.join(str(self.values[i]) for i in self.results)}"]
        )

    def _row(self, line: Line) -> tuple[str, str, str]:
        outputs = ", ".join("_" if i is None else str(self.values[i]) for i in line.outputs)
        named = (self.values[x.index] if isinstance(x, Ref) else repr(x) for x in line.operands)
        operands = list(map(str, named))
        if len(operands) > 8:
            operands[4:-2] = [f"... {len(operands) - 6} more ..."]
        params = [f"{k}={v}" for k, v in line.params.items() if k != "changes"]
        made = [self.values[i] for i in line.made()]
        types = ", ".join(f"{dtype_name(v.dtype)}{list(v.shape)}" for v in made)
        return f"{outputs} = {line.op.name}({', '.join(operands + params)})", types, line.where

    def check(self) -> Program:
        """Itself, if every value is made once, before it is read, and everything handed out exists.
        AssertionError names what is not so.
        """
        known = {v.index for v in self.values if v.source != "temporary"}
        assert all(v.index == i for i, v in enumerate(self.values)), "values are numbered in order"
        for number, line in enumerate(self.lines):
            which = f"line {number} ({line.op.name})"
            for i in line.reads():
                assert i in known, f"{which} reads {self.values[i]} before it is made"
            for i in line.made():
                again = line.op.kind == "effect"  # an effect may return what it changed
                assert i not in known or again, f"{which} makes {self.values[i]} a second time"
            known.update(line.made())
        for i in (*self.results, *self.kept):
            assert i in known, f"{self.values[i]} is handed out but never made"
        return self

    def with_lines(self, lines: Iterable[Line], **changes: Any) -> Program:
        """The same program with other lines, checked."""
        return replace(self, lines=tuple(lines), **changes).check()


def roots(lines: Sequence[Line], count: int) -> tuple[list[int], set[int]]:
    """For each of `count` values the one whose memory it may share: views and effects' returns
    share that of their first operand. And those whose memory the lines change, themselves or by a
    view.
    """
    # Lines come in order, so the root of a view's operand is known when the view is met
    root = list(range(count))
    for line in lines:
        if line.op.kind in ("view", "effect") and isinstance(line.operands[0], Ref):
            for i in line.made():
                root[i] = root[line.operands[0].index]
    return root, {root[i] for line in lines for i in line.changes()}
