"""Elementwise ops: one loop over any strides for fused expressions, and copies into another shape
or place, which are such loops. The expressions are macros in elementwise.c.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache

import numpy as np

from minigrad import ops
from minigrad.compiler.kernel import Kernel
from minigrad.compiler.layout import Layout
from minigrad.compiler.lower import CTYPES, Builder, Call, filled, given, literal, lowers, need
from minigrad.compiler.program import Line, Ref
from minigrad.compiler.signatures import c_text
from minigrad.dtypes import Array, DType, is_half, name as dtype_name


def _copy_of(ins: list[DType], out: DType) -> str | None:
    return "{0}" if ins == [out] else None


def _cast_of(ins: list[DType], out: DType) -> str | None:
    """A 16-bit float is cast to float32 and back alone."""
    of = ins[0]
    if is_half(out):
        return f"float_to_{dtype_name(out)}({{0}})" if of == np.float32 else None
    if is_half(of):
        return f"{dtype_name(of)}_to_float({{0}})" if out == np.float32 else None
    return "({0} != 0)" if out == np.bool_ else "{0}"


# Ops whose expression depends on both dtypes.
_BETWEEN: dict[str, Callable[[list[DType], DType], str | None]] = {}
_BETWEEN["copy"], _BETWEEN["cast"] = _copy_of, _cast_of


_MACRO = re.compile(r"^#define ((?:float|integer|bool)_\w+)\(([^)]*)\) (.*)", re.M)


@cache
def _macros() -> dict[str, tuple[list[str], str]]:
    """The C of elementwise ops: name -> (names of the operands, expression)."""
    found = _MACRO.findall(c_text("elementwise.c"))
    return {name: (operands.split(", "), body) for name, operands, body in found}


def template(layout: Layout, line: Line) -> str | None:
    """The C expression of an elementwise line, None if there is none for its op and dtypes."""
    if len(line.made()) != 1 or line.op.kind != "elementwise" or line.op.user_defined:
        return None
    out, name = layout.stand_in[line.made()[0]].dtype, line.op.name
    ins = [layout.stand_in[i].dtype for i in line.reads()]
    if any(d.name not in CTYPES for d in (out, *ins)):
        return None
    if name in _BETWEEN:
        return _BETWEEN[name](ins, out)
    # The macro is chosen by the dtype of the result: float_add for float32 and float64, integer_add
    # for whole numbers, bool_and for bools. C would convert operands of other kinds silently, where
    # numpy rounds or refuses, so only those are taken that mean the same in both.
    family = {"f": "float", "b": "bool"}.get(out.kind, "integer")
    operands, body = _macros().get(f"{family}_{name}", ([], ""))
    if not body or any(map(is_half, (out, *ins))):
        return None
    if len(operands) != len(line.operands) or (family == "bool" and len({d.kind for d in ins}) > 1):
        return None
    for operand, x in zip(operands, line.operands, strict=True) if family == "float" else ():
        # A bool is 0 or 1 to C: right in front of a ?, and among integers, which cast it.
        of = layout.stand_in[x.index].dtype if isinstance(x, Ref) else out
        condition = re.search(rf"(\(|: ){operand} \?", body)
        if of != out and re.search(rf"\b{operand}\b", body) and not (of == np.bool_ and condition):
            return None
    if family == "integer" and any(d not in (out, np.bool_) for d in ins):
        return None
    return f"{family}_{name}({', '.join(f'{{{i}}}' for i in range(len(operands)))})"


def is_addition(layout: Layout, line: Line) -> bool:
    """True for the sum of two floats, by its C: integers are added as unsigned ones."""
    macro = (template(layout, line) or "").partition("(")[0]
    both = all(isinstance(x, Ref) for x in line.operands)
    return both and _macros().get(macro, ([], ""))[1] == "(a + b)"


def expression(layout: Layout, line: Line, names: dict[int, str]) -> str:
    """The line's expression with operands spelled: values by `names`, scalars as literals of the
    dtype that they take on.
    """
    text = given(template(layout, line))
    # A Python scalar takes on the dtype of the arrays next to it, not that of the result
    kinds = [layout.stand_in[i].dtype for i in line.reads() if layout.stand_in[i].dtype != np.bool_]
    dtype = kinds[0] if kinds else layout.stand_in[line.made()[0]].dtype
    words = []
    for x in line.operands:
        if isinstance(x, Ref):
            words.append(names[x.index])
            continue
        need(isinstance(x, (int, float)))
        need(dtype.kind == "f" or not isinstance(x, float))
        need(dtype.kind != "u" or x >= 0)  # C would make the number unsigned, too
        words.append(f"({literal(x, dtype) if dtype.kind == 'f' else int(x)})")
    return text.format(*words)


def lower_elementwise(
    layout: Layout, lines: list[tuple[int, Line]], stored: set[int]
) -> list[Kernel]:
    """One loop for lines of one output shape, in order; of their outputs those in `stored` go to
    memory, the others stay in registers.
    """
    shape = layout.stand_in[lines[0][1].made()[0]].shape
    need(0 not in shape)
    k = Builder(Call(layout, lines[-1][1], lines[-1][0]))
    # Each value is loaded once, and each result is a local variable: what a later line of the group
    # reads never goes through memory.
    read = {i for _, line in lines for i in line.reads()}
    inputs = sorted(read - {i for _, line in lines for i in line.made()})
    steps = {i: _over(layout, i, shape) for i in (*inputs, *stored)}
    size = math.prod(shape)
    # Where all values are row-major, or single numbers, one index runs through them.
    packed = {i for i in steps if layout.contiguous(i) and layout.stand_in[i].size == size}
    flat = packed >= stored and all(i in packed or not any(steps[i]) for i in inputs)
    names: dict[int, str] = {}
    loads, statements, places = [], [], []
    for i in inputs:
        own = layout.stand_in[i].shape == shape and shape != ()
        pointer, names[i] = k.use(i, f"a{i}", share=own), f"x{i}"
        loads.append(f"{_ctype(layout, i)} x{i} = {pointer}[{_at(steps[i], flat)}];")
    for _, line in lines:
        out = line.made()[0]
        text, names[out] = expression(layout, line, names), f"x{out}"
        statements.append(f"{_ctype(layout, out)} x{out} = {text};")
        if out in stored:
            pointer = k.use(out, f"y{out}", share=shape != (), write=True)
            places.append(f"{pointer}[{_at(steps[out], flat)}] = x{out};")
    inside = "\n            ".join([*loads, *statements, *places])
    # Units are rows, so that the loop can be cut as the kernels before and after it are.
    width = shape[-1] if len(shape) > 1 else 1
    loop = f"for (int64_t i = lo * {width}; i < hi * {width}; i++) {{\n            {inside}\n    }}"
    found = [line.op.name for _, line in lines]
    kernel = k.kernel(
        "_".join(dict.fromkeys(found)) if len(lines) <= 3 else "fused",
        loop if flat else _nest(shape, inside),
        size // width,
        len(lines) * size,
        fused=found if len(lines) > 1 else [],
    )
    kernel.lines = tuple(n for n, _ in lines)
    return [kernel]


def _ctype(layout: Layout, i: int) -> str:
    return CTYPES[layout.stand_in[i].dtype.name]


def _over(layout: Layout, i: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides over `shape`, 0 where the value is broadcast."""
    own = layout.strides(i)
    return (0,) * (len(shape) - len(own)) + own


def _at(strides: tuple[int, ...], flat: bool) -> str:
    if flat:
        return "i" if any(strides) else "0"
    return " + ".join(f"i{d} * {s}" for d, s in enumerate(strides) if s) or "0"


def _nest(shape: tuple[int, ...], inside: str) -> str:
    """The loop over rows lo..hi of the last axis, with the other indices worked out from the row's
    number; over single elements of a vector.
    """
    # A row's number is taken apart into indices, last axis first, by division: once per row, while
    # the loop inside it runs over the last axis alone and can be vectorised
    last = len(shape) - 1
    below, indices = 1, []
    for d in reversed(range(max(last, min(len(shape), 1)))):
        indices.append(f"int64_t i{d} = r / {below} % {shape[d]};")
        below *= shape[d]
    inner = f"for (int64_t i{last} = 0; i{last} < {shape[last]}; i{last}++) " if last > 0 else ""
    head = " ".join(reversed(indices))
    return (
        f"for (int64_t r = lo; r < hi; r++) {{\n        {head}\n        {inner}{{\n"
        f"            {inside}\n        }}\n    }}"
    )


# --- copies


def lower_copy(call: Call, source: int, target: Array, value: int) -> list[Kernel]:
    """A copy into a view, `target`, of a value's memory."""
    if not target.size:
        return []
    view = call.layout.name_view(target, value)
    copy = Line(ops.copy, (Ref(source),), {}, (view,), call.line.where)
    return lower_elementwise(call.layout, [(call.number, copy)], {view})


def lower_parts(call: Call) -> list[Kernel]:
    """An op that only copies its operands into parts of its output."""
    layout, line, out, values = call.layout, call.line, call.y, call.operands()
    y, parts = call.array(out), given(line.op.parts)
    pieces = parts(y, *(call.array(i) for i in values), **line.params)
    # Zeros, or the value of a padding, where no operand goes
    covered = sum(target.size for target, _ in pieces) == y.size
    kernels = [] if covered else [filled(call, out, line.params.get("value", 0.0))]
    for value, (target, piece) in zip(values, pieces, strict=True):
        whole = piece is call.array(value)
        source = value if whole else layout.name_view(piece, value)
        kernels += lower_copy(call, source, target, out)
    return kernels


@lowers("assign")
def _assign(call: Call) -> list[Kernel]:
    """A change in place, from memory that is not the target's own."""
    target, source = call.operands()
    need(call.layout.root[source] != call.layout.root[target])
    x, y = call.array(source), call.array(target)
    need(x.dtype == y.dtype)
    if x.ndim > y.ndim:  # the axes in front have size 1, and the loop over y does not know them
        source = call.layout.name_view(x.squeeze(tuple(range(x.ndim - y.ndim))), source)
    kernels = lower_copy(call, source, y, target)
    need(kernels)
    for k in kernels:
        k.name = call.line.op.name
        k.solo = True
    return kernels
