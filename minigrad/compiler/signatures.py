"""What the files of C say of themselves: the functions in them, and the header line of an op's C.

    /* op layer_norm: rows of x; weight, bias may be NULL; 8 flops; cheap */
    BODY layer_norm_rows(const float *RESTRICT x, ..., int64_t lo, int64_t hi) {

A header names an op, or several, and is followed by clauses, in any order:

    UNIT of A, B    lo..hi counts rows of A, blocks of BLOCK of them, columns, or strips of columns;
                    of the operands A, B, ... and of all outputs only that share is touched
    A, B may be NULL    these operands may be None; these outputs are left out where not read
    N flops         for each element of A
    cheap           computing it again costs less than keeping a large result for backward
    draws           draws random numbers; `draws` says from where
    any strides     writes outputs of any strides, as long as each row is contiguous
    tiled           has a form that saves two numbers per query instead of the probabilities

`rows` lowers ops by their headers of `rows`, `blocks`, `columns` and `strips`, `updates` by
`pieces`. An op whose C has a parameter `residual` can add another value to its first output.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from minigrad.primitive import Primitive

# Every program has the first two; of the others those whose functions it calls, in this order.
_FILES = [f"{name}.c" for name in ("prelude", "products", "elementwise", "rows", "gathers", "sums")]
_FILES += ["quantised.c", "attention.c", "updates.c", "sampling.c"]
_ALWAYS = _FILES[:2]  # the step itself calls them
# A header is the line right above the function, after whatever comment the function has.
_HEADER = re.compile(r"^/\* op ([\w, ]+): ([^*]+) \*/\n[^(\n]*?(\w+)\(([^{]*)\) \{", re.M)
# const, the C type, * for a pointer, the name
_PARAMETER = re.compile(r"(const )?(\w+) (\*?)(?:RESTRICT )?(\w+)")
_UNIT = re.compile(r"(\w+) of (.+)")
# A function of one line, or up to the first closing brace at the beginning of a line
_FUNCTION = re.compile(
    r"^(?:BODY|static)\b[^;={(]*?(\w+)\([^;{]*\) \{(?:[^\n]*\}$|.*?^\})", re.M | re.S
)
BY_SIGNATURE = ("rows", "blocks", "columns", "strips")
_MACRO = re.compile(r"^#define (\w+)", re.M)
REFUSES = "atomic_store(&status, 1)"


@dataclass(frozen=True)
class Parameter:
    """A parameter of a C function: `ctype` without `const` and `*`."""

    name: str
    ctype: str
    pointer: bool
    written: bool


@dataclass(frozen=True)
class Signature:
    """A C function with its header. See the module for what the clauses mean."""

    function: str
    parameters: tuple[Parameter, ...]
    unit: str
    cut: tuple[str, ...]
    nullable: frozenset[str]
    flops: float
    flags: frozenset[str]

    def names(self, written: bool) -> list[str]:
        """The pointers that are written, or those that are read, in order."""
        return [p.name for p in self.parameters if p.pointer and p.written == written]


def _signature(clauses: str, function: str, parameters: str) -> Signature:
    found = tuple(
        Parameter(name, ctype, bool(star), bool(star) and not const)
        for const, ctype, star, name in _PARAMETER.findall(parameters)
    )
    unit, cut, nullable, flops, flags = "", "", "", 0.0, set()
    for clause in clauses.replace("\n", " ").split("; "):
        if match := _UNIT.fullmatch(clause):
            unit, cut = match.groups()
        elif clause.endswith(" may be NULL"):
            nullable = clause.removesuffix(" may be NULL")
        elif clause.endswith(" flops"):
            flops = float(clause.removesuffix(" flops"))
        else:
            flags.add(clause)
    names = frozenset(nullable.split(", "))
    return Signature(function, found, unit, tuple(cut.split(", ")), names, flops, frozenset(flags))


@cache
def c_text(name: str) -> str:
    """A file of C."""
    return (Path(__file__).parent / "c" / name).read_text(encoding="utf-8")


@cache
def all_signatures() -> dict[str, dict[str, Signature]]:
    """op -> unit -> signature."""
    found: dict[str, dict[str, Signature]] = {}
    for text in map(c_text, _FILES):
        for ops, clauses, function, parameters in _HEADER.findall(text):
            signature = _signature(clauses, function, parameters)
            for op in ops.split(", "):
                found.setdefault(op, {})[signature.unit] = signature
    return found


def signatures_of(op: Primitive) -> dict[str, Signature]:
    """unit -> the signature of the op's C; {} for an op of the user's own, whatever its name."""
    return {} if op.user_defined else all_signatures().get(op.name, {})


@cache
def arguments_of(op: Primitive) -> tuple[list[str], dict[str, Any]]:
    """The names of the op's operands, and its params with their defaults, None without one."""
    # Of the op, not of its forward: that may be a ufunc, and numpy 2.0's have no signature.
    found = inspect.signature(op).parameters.values()
    params = {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY}
    names = [p.name for p in found if p.kind is p.POSITIONAL_OR_KEYWORD]
    return names, {n: None if x is inspect.Parameter.empty else x for n, x in params.items()}


def has_flag(op: Primitive, flag: str) -> bool:
    """True if a header of the op's C has the flag."""
    return any(flag in s.flags for s in signatures_of(op).values())


def adds_residual(op: Primitive) -> bool:
    """True if the op's C can add another value to its first output."""
    return any("residual" in s.names(written=False) for s in signatures_of(op).values())


def spare_outputs(op: Primitive) -> list[int]:
    """The outputs that the op's C can leave out."""
    return [
        i
        for s in signatures_of(op).values()
        for i, name in enumerate(s.names(written=True))
        if name in s.nullable
    ]


def unread_operands(op: Primitive) -> list[int]:
    """The operands that the op's C does without."""
    found = [s for s in signatures_of(op).values() if s.unit in BY_SIGNATURE]
    read = {p.name for s in found for p in s.parameters}
    return [i for i, name in enumerate(arguments_of(op)[0]) if found and name not in read]


@cache
def _functions() -> dict[str, dict[str, str]]:
    """file -> function or macro in it -> its text."""
    return {
        file: {
            found[1]: found[0]
            for pattern in (_MACRO, _FUNCTION)
            for found in pattern.finditer(c_text(file))
        }
        for file in _FILES
    }


def files_for(text: str) -> list[str]:
    """The files that a program needs, in order: those whose functions its text names, and those
    that they name.
    """
    # Files call only functions of files before them: one walk from the last to the first is enough.
    words, needed = _words(text), set(_ALWAYS)
    for file in reversed(_FILES):
        if file in needed or not words.isdisjoint(_functions()[file]):
            needed |= _before(file) | {file}
    return [file for file in _FILES if file in needed]


@cache
def _before(file: str) -> frozenset[str]:
    """The files whose functions a file calls, whatever its comments speak of."""
    words = _words(re.sub(r"/\*.*?\*/", "", c_text(file), flags=re.S))
    return frozenset(f for f in _FILES[: _FILES.index(file)] if words & _functions()[f].keys())


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def may_refuse(text: str) -> bool:
    """True if C text may set `status`, itself or in a function that it names."""
    words = _words(text)
    return REFUSES in text or any(
        name in words and REFUSES in body
        for functions in _functions().values()
        for name, body in functions.items()
    )
