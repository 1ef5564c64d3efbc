"""Listeners for people: `debug` finds the op that made the first NaN, `profile` counts time and
bytes per op and per line.

Both see forward and backward passes, and may be used inside one another.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from minigrad.dtypes import Array, cast, computing, is_float
from minigrad.errors import NotFiniteError
from minigrad.modes import Relay, listening
from minigrad.primitive import Primitive
from minigrad.tape import Node, user_line


class _Walked(Relay):
    """Knows which node of the tape a backward pass is at."""

    def __init__(self) -> None:
        super().__init__()
        self.node: Node | None = None

    def walking(self, node: Node | None) -> None:
        self.node = node
        super().walking(node)


# --- debug


@contextmanager
def debug(nan: bool = True, inf: bool = True) -> Iterator[None]:
    """Inside, the first op that makes a NaN (or an infinity) out of finite numbers raises
    NotFiniteError with the user's line.

    In a backward pass it is the line of the forward op whose derivative it was. A context manager
    and a decorator; it checks every number. inf=False lets infinities pass, of which a NaN may be
    made later.
    """
    with listening(_Finite(nan, inf)):
        yield


class _Finite(_Walked):
    def __init__(self, nan: bool, inf: bool) -> None:
        super().__init__()
        self.nan, self.inf = nan, inf

    def run(self, op: Primitive, arrays: Sequence[Any], params: dict[str, Any]) -> Any:
        if op.kind == "effect":
            return self.changing(op, arrays, params)
        out = super().run(op, arrays, params)
        for y in (out,) if op.outputs == 1 else out:
            found = _worst(y)
            if (found == "NaN" and self.nan) or (found == "inf" and self.inf):
                # A NaN made of an infinity is reported only where infinities may pass.
                came = {_worst(x) for x in (*arrays, *params.values())}
                if not came & ({"NaN", "inf"} if self.inf else {"NaN"}):
                    infinite = "operands of which some are infinite"
                    kind = infinite if "inf" in came else "finite operands"
                    self.tell(op, found, f"of {kind}", arrays)
        return out

    def changing(self, op: Primitive, arrays: Sequence[Any], params: dict[str, Any]) -> Any:
        """Run an op that writes into operands: report a NaN that was not in them wherever it comes
        from, an infinity unless one was given.
        """
        changed = arrays[: params.get("changes", 1)]
        before = [_worst(x) for x in changed]
        came = {_worst(x) for x in (*arrays, *params.values())}
        out = super().run(op, arrays, params)
        for x, had in zip(changed, before, strict=True):
            found = _worst(x)
            if (found == "NaN" and had != "NaN" and self.nan) or (
                found == "inf" and not came & {"inf", "NaN"} and self.inf
            ):
                self.tell(op, found, "by writing in place, with operands", arrays)
        return out

    def tell(self, op: Primitive, found: str, how: str, arrays: Sequence[Any]) -> None:
        shapes = [np.shape(a) for a in arrays if a is not None]
        hint = "look at the operands at this line: a division by 0, log of 0, too high a rate?"
        call, problem, where = op.name, f"made the first {found}, {how} {shapes}", user_line()
        if self.node is not None:
            call, where = f"backward of {self.node.op.name}", self.node.where
            problem = f"made the first {found} ({op.name} {how} {shapes})"
        raise NotFiniteError(call, problem, found, "finite numbers", hint, str(where))


def _worst(x: Any) -> str:
    """The word "NaN" or "inf" if such a number is in x, else nothing."""
    if isinstance(x, float) or (isinstance(x, (np.ndarray, np.generic)) and is_float(x.dtype)):
        values = np.asarray(x)
        values = cast(values, computing(values.dtype))
        if not np.isfinite(values).all():
            return "NaN" if np.isnan(values).any() else "inf"
    return ""


# --- profile


class Row(NamedTuple):
    """What one op, or one line, has cost: how often it ran, seconds in its forward functions, bytes
    of its results.
    """

    name: str
    calls: int
    seconds: float
    bytes: int


class Profile(_Walked):
    """What `profile` gives: `by_op()` and `by_line()` are lists of rows, the most time first; print
    it for both as tables.
    """

    def __init__(self) -> None:
        super().__init__()
        self.costs: dict[tuple[str, str], Array] = {}  # (op, line) -> [count, seconds, bytes]

    def run(self, op: Primitive, arrays: Sequence[Any], params: dict[str, Any]) -> Any:
        start = time.perf_counter()
        out = super().run(op, arrays, params)
        seconds = time.perf_counter() - start
        name, where = op.name, user_line()
        if self.node is not None:
            name, where = f"{op.name} (backward of {self.node.op.name})", self.node.where
        made = () if op.kind == "view" else (out,) if op.outputs == 1 else out
        size = sum(np.asarray(y).nbytes for y in made if y is not None)
        self.costs.setdefault((name, str(where)), np.zeros(3))[:] += 1, seconds, size
        return out

    def by_op(self) -> list[Row]:
        """One row per op; in backward passes, per op and the forward op that it belongs to."""
        return self._rows(0)

    def by_line(self) -> list[Row]:
        """One row per line of the user's code; backward passes count for the line of the forward
        op.
        """
        return self._rows(1)

    def _rows(self, key: int) -> list[Row]:
        sums: dict[str, Array] = {}
        for names, cost in self.costs.items():
            sums[names[key]] = sums.get(names[key], np.zeros(3)) + cost
        rows = [Row(name, int(n), float(t), int(size)) for name, (n, t, size) in sums.items()]
        return sorted(rows, key=lambda row: row.seconds, reverse=True)

    def __str__(self) -> str:
        return f"{_table('op', self.by_op())}\n\n{_table('line', self.by_line())}"


def _table(title: str, rows: list[Row]) -> str:
    calls, seconds, size = (sum(row[i] for row in rows) for i in (1, 2, 3))  # type: ignore[misc]
    lines = [f"{'ms':>10} {'%':>6} {'calls':>8} {'MB':>10}  {title}"]
    for r in (*rows[:30], Row("all", calls, seconds, size)):
        share, ms, mb = 100 * r.seconds / (seconds or 1.0), r.seconds * 1e3, r.bytes / 1e6
        lines.append(f"{ms:10.3f} {share:6.1f} {r.calls:8d} {mb:10.3f}  {r.name}")
    return "\n".join(lines)


@contextmanager
def profile(show: bool = True) -> Iterator[Profile]:
    """Count inside: time in the ops' forward functions and bytes that they make, per op and per
    line of the user's code.

        with minigrad.profile():
            loss = model.loss(x, y)
            loss.backward()

    show: print the tables at the end. The time that Python takes between ops is not in them, nor
        are the ops that a compiled step replays.
    """
    found = Profile()
    with listening(found):
        yield found
    if show:
        print(found)
