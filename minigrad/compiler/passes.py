"""Passes: functions from a Program to a Program, each of which can be printed before and after.

simplify = dead code out, equal computations once. What changes memory (effects, random draws) is
never moved, joined or dropped, and nothing is read across it that it changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from minigrad.compiler.program import Line, Program, Ref, roots
from minigrad.compiler.signatures import has_flag, spare_outputs, unread_operands
from minigrad.dtypes import Array


def simplify(program: Program, constants: Mapping[int, Array]) -> tuple[Program, dict[int, Array]]:
    """All passes that every back end wants: exact ones, which keep every bit. Also the constants,
    with those that were computed.
    """
    program, known = with_constants_folded(program, constants)
    return without_dead_code(without_repetition(program, known)), known


def with_constants_folded(
    program: Program, constants: Mapping[int, Array]
) -> tuple[Program, dict[int, Array]]:
    """Lines that read constants only are computed now; small results and views become constants."""
    known, lines, values = dict(constants), [], list(program.values)
    root, changed = roots(program.lines, len(program.values))
    handed_out = {*program.results, *program.kept}
    for line in program.lines:
        fixed = line.is_pure() and handed_out.isdisjoint(line.made())
        fixed = fixed and changed.isdisjoint(root[i] for i in (*line.reads(), *line.made()))
        if not fixed or any(i not in known for i in line.reads()):
            lines.append(line)
            continue
        operands = (known[x.index] if isinstance(x, Ref) else x for x in line.operands)
        with np.errstate(all="ignore"):
            out = line.op.forward(*operands, **line.params)
        for i, y in zip(line.outputs, (out,) if line.op.outputs == 1 else out, strict=True):
            if i is not None:
                known[i] = np.asarray(y)
                values[i] = replace(values[i], source="constant", name=f"c{i}")
    return program.with_lines(lines, values=tuple(values)), known


def without_dead_code(program: Program) -> Program:
    """The lines whose outputs are read, handed out or kept, and those that change memory."""
    wanted = {*program.results, *program.kept}
    lines: list[Line] = []
    for line in reversed(program.lines):
        if line.changes() or not wanted.isdisjoint(line.made()):
            wanted.update(line.reads())
            lines.append(line)
    return program.with_lines(reversed(lines))


def without_repetition(program: Program, constants: Mapping[int, Array]) -> Program:
    """Each computation once: a line equal to an earlier one, on values that did not change in
    between, gives way to it.
    """
    root, changed = roots(program.lines, len(program.values))
    handed_out = {*program.results, *program.kept}
    same: dict[int, int] = _equal_constants(constants)
    seen: dict[Any, Line] = {}
    lines = []
    for line in program.lines:
        line = line.reading(same)
        # What is changed somewhere is left alone altogether: it would have to be compared by
        # version.
        touched = {root[i] for i in (*line.reads(), *line.made())}
        if line.is_pure() and touched.isdisjoint(changed) and handed_out.isdisjoint(line.made()):
            operands = tuple((type(x), x) for x in line.operands)
            earlier = seen.setdefault((line.op, operands, repr(line.params)), line)
            if earlier is not line and earlier.outputs != line.outputs:
                pairs = zip(line.outputs, earlier.outputs, strict=True)
                same.update((i, j) for i, j in pairs if i is not None and j is not None)
                continue
        lines.append(line)
    return program.with_lines(lines)


def _equal_constants(constants: Mapping[int, Array]) -> dict[int, int]:
    first: dict[Any, int] = {}
    same: dict[int, int] = {}
    for i, a in constants.items():
        j = first.setdefault((a.shape, a.dtype, np.ascontiguousarray(a).tobytes()), i)
        if j != i:
            same[i] = j
    return same


def for_c(program: Program) -> Program:
    """The program as C wants it: without operands that C works out again, with the probabilities of
    attention only where they are small, and without outputs that nothing reads.
    """
    single = [v.dtype == np.float32 and v.size > 0 for v in program.values]
    lines = []
    for line in program.lines:
        # In C GELU hands its slope to its gradient, which does not read x then. numpy does, so it
        # goes only where C is sure to take the line.
        unread = unread_operands(line.op)
        if unread and all(single[i] for i in line.reads()):
            operands = (None if i in unread else x for i, x in enumerate(line.operands))
            line = replace(line, operands=tuple(operands))
        lines.append(line)
    program = with_recomputation(with_tiled_attention(program.with_lines(lines)))
    # Outputs that are there for backward alone, such as probabilities, in a program without one
    lines = list(program.lines)
    wanted = {*program.results, *program.kept, *(i for line in lines for i in line.reads())}
    for n, line in enumerate(lines):
        gone = {i for i in spare_outputs(line.op) if line.outputs[i] not in wanted}
        if gone:
            outputs = (None if i in gone else y for i, y in enumerate(line.outputs))
            lines[n] = replace(line, outputs=tuple(outputs))
    return program.with_lines(lines)


# Numbers, 2 MB: smaller values are faster kept (3 % of a step), and memory is not what small steps
# lack.
_LARGE = 1 << 19
_FAR = 24  # lines between the computation of a value and a use that is far away


def with_recomputation(program: Program) -> Program:
    """Large values that are cheap to compute are computed again for uses that come much later,
    instead of being kept: from forward to backward.
    """
    values, lines = list(program.values), list(program.lines)
    handed_out = {*program.results, *program.kept}
    _, changed = roots(lines, len(values))
    first_change = min((n for n, line in enumerate(lines) if line.changes()), default=len(lines))
    clones: dict[int, list[Line]] = {}
    for number, line in enumerate(program.lines):
        large = line.outputs[0]
        if not has_flag(line.op, "cheap") or large is None or values[large].size < _LARGE:
            continue
        made = set(line.made())
        if not made.isdisjoint(handed_out | changed):
            continue
        # Uses nearby keep the value for as long as they need it; from the first far one on, a copy
        # of the line makes it again. Its operands must still be what they were.
        uses = [n for n in range(number + 1, len(lines)) if not made.isdisjoint(lines[n].reads())]
        far = [n for n in uses if n > number + _FAR]
        if not far or len(far) == len(uses) or far[0] > first_change:
            continue
        again: dict[int, int] = {}
        for i in line.made():
            again[i] = len(values)
            values.append(replace(values[i], index=len(values), name=f"{values[i]}'"))
        outputs = (None if i is None else again[i] for i in line.outputs)
        clones.setdefault(far[0], []).append(replace(line, outputs=tuple(outputs)))
        for n in far:
            lines[n] = lines[n].reading(again)
    spread = [piece for n, line in enumerate(lines) for piece in (*clones.get(n, ()), line)]
    return program.with_lines(spread, values=tuple(values))


def with_tiled_attention(program: Program) -> Program:
    """Attention whose probabilities take more memory than its operands saves two numbers per query
    instead; backward makes them again.
    """
    values, lines = list(program.values), list(program.lines)
    handed_out = {*program.results, *program.kept}
    for number, line in enumerate(program.lines):
        # p: the probabilities, if all that becomes of them is that the gradient reads them
        p = line.outputs[1] if len(line.outputs) == 2 and has_flag(line.op, "tiled") else None
        if p is None or line.params.get("tiled"):
            continue
        readers = [n for n, other in enumerate(program.lines) if p in other.reads()]
        alone = all(_reads_as_saved(lines[n], p) for n in readers)
        operands = sum(values[x.index].size for x in line.operands[:3] if isinstance(x, Ref))
        if p in handed_out or not alone or not readers or values[p].size <= operands:
            continue
        saved, shape = len(values), (*values[p].shape[:-1], 2)
        values.append(replace(values[p], index=saved, shape=shape, name=f"{values[p]}'"))
        lines[number] = replace(
            line, params={**line.params, "tiled": True}, outputs=(line.outputs[0], saved)
        )
        for n in readers:
            read = (*lines[n].operands[:3], Ref(saved), *lines[n].operands[4:])
            params = {**lines[n].params, "tiled": True}
            lines[n] = replace(lines[n], params=params, operands=read)
    return program.with_lines(lines, values=tuple(values))


def _reads_as_saved(line: Line, p: int) -> bool:
    """True for the gradient of o alone, which reads p as what the forward pass saved."""
    return (
        has_flag(line.op, "tiled")
        and line.operands[1] is None
        and line.operands[3] == Ref(p)
        and line.outputs[3] is None
    )
