"""Elementwise ops in C: one expression per op, and the loop over any strides in which fused
expressions stand.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.compiler.kernel import Kernel, c_text
from minigrad.compiler.layout import Layout
from minigrad.compiler.lower import CTYPES, Builder, literal
from minigrad.compiler.program import Line, Ref
from minigrad.dtypes import DType, is_half, name as dtype_name

_LIBM = (
    "exp2",
    "expm1",
    "log2",
    "log10",
    "log1p",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "asinh",
    "acosh",
    "atanh",
    "floor",
    "ceil",
    "trunc",
    "sqrt",
)

# $f is the suffix of libm's float functions, $F that of the prelude's, 1$ a one of the right type.
_FLOAT: dict[str, str] = {
    "add": "({0} + {1})",
    "sub": "({0} - {1})",
    "mul": "({0} * {1})",
    "div": "({0} / {1})",
    "neg": "(-{0})",
    "square": "({0} * {0})",
    "maximum": "max_$F({0}, {1})",
    "minimum": "min_$F({0}, {1})",
    "where": "({0} ? {1} : {2})",
    "zeros_like": "0",
    "copy": "{0}",
    "alias": "{0}",
    "mask_cotangent": "(({0} != {0}) & ({1} == 0) ? 0 : {0})",
    "clamp": "min_$F(max_$F({0}, {1}), {2})",
    "abs": "fabs$f({0})",
    "sign": "({0} > 0 ? 1 : {0} < 0 ? -1 : {0})",
    "round": "rint$f({0})",
    "relu": "max_$F({0}, 0)",
    "rsqrt": "(1 / sqrt$f({0}))",
    "reciprocal": "(1 / {0})",
    "cast": "{0}",
    "pow": "pow$f({0}, {1})",
    "bernoulli_loss": "-({1} * max_$F(log$f({0}), -100) + (1 - {1}) * max_$F(log$f(1 - {0}), -100))",
    "gauss": "gauss_$F({0})",
    "logaddexp": "logaddexp_$F({0}, {1})",
    "atan2": "atan2$f({0}, {1})",
    "hypot": "hypot$f({0}, {1})",
    "copysign": "copysign$f({0}, {1})",
    "fmod": "fmod$f({0}, {1})",
    "mod": "mod_$F({0}, {1})",
    "log": "log$f({0})",
    **{name: f"{name}$f({{0}})" for name in _LIBM},
}
_BOOL: dict[str, str] = {
    "equal": "({0} == {1})",
    "not_equal": "({0} != {1})",
    "less": "({0} < {1})",
    "less_equal": "({0} <= {1})",
    "greater": "({0} > {1})",
    "greater_equal": "({0} >= {1})",
    "logical_and": "(({0} != 0) & ({1} != 0))",
    "logical_or": "(({0} != 0) | ({1} != 0))",
    "logical_xor": "(({0} != 0) ^ ({1} != 0))",
    "logical_not": "({0} == 0)",
    "isnan": "({0} != {0})",
    "isinf": "(isinf({0}) != 0)",
    "isfinite": "(isfinite({0}) != 0)",
    "bitwise_and": "({0} & {1})",
    "bitwise_or": "({0} | {1})",
    "bitwise_xor": "({0} ^ {1})",
    "bitwise_not": "({0} == 0)",
}
_INTEGER = {
    **{name: _FLOAT[name] for name in ("add", "sub", "mul", "where", "zeros_like", "copy")},
    "maximum": "({0} > {1} ? {0} : {1})",
    "minimum": "({0} < {1} ? {0} : {1})",
}
# Integers wrap around, which C promises of unsigned ones alone. 16 bits are added and multiplied in
# int, where they have room.
_WRAPPING = {
    name: f"(($u){{0}} {sign} ($u){{1}})"
    for name, sign in (("add", "+"), ("sub", "-"), ("mul", "*"))
}
_SPECIAL = {
    "float32": {
        "exp": "exp_f({0})",
        "tanh": "tanh_f({0})",
        "sigmoid": "sigmoid_f({0})",
        "share": "({1} ? 0.5f : {0} ? 1.f : 0.f)",
        "erf": "erf_f({0})",
        "erfc": "erfc_f({0})",
    },
    "float64": {
        "exp": "exp({0})",
        "tanh": "tanh({0})",
        "sigmoid": "(1 / (1 + exp(-{0})))",
        "erf": "erf({0})",
        "erfc": "erfc({0})",
    },
}
_IN_SPECIAL = frozenset(
    {"erf", "erfc", "gauss", "logaddexp", "mod"}
)  # whose functions are in special.c


def template(layout: Layout, line: Line) -> str | None:
    """The C expression of an elementwise line, None if there is none for its op and dtypes."""
    if len(line.made()) != 1 or line.op.kind not in ("elementwise", "view", "gather"):
        return None
    out = layout.stand_in[line.made()[0]].dtype
    ins = [layout.stand_in[i].dtype for i in line.reads()]
    name = line.op.name
    if out.name not in CTYPES or any(d.name not in CTYPES for d in ins):
        return None
    if any(map(is_half, (out, *ins))):
        return _of_half(name, ins[0], out) if len(ins) == 1 else None
    if name in _BOOL and out == np.bool_ and len({d.kind for d in ins}) <= 1:
        return _BOOL[name]
    if out.kind == "f":
        if name == "cast":
            return _FLOAT["cast"] if ins[0].kind in "fiub" else None
        if any(d != out for d in ins if d != np.bool_) or (
            name not in ("where", "share", "zeros_like") and np.bool_ in ins
        ):
            return None
        text = _SPECIAL.get(out.name, {}).get(name) or _FLOAT.get(name)
        return text and text.replace("$f", "f" if out == np.float32 else "").replace(
            "$F", "f" if out == np.float32 else "d"
        )
    if out.kind in "iu" and name in _INTEGER and all(d == out for d in ins if d != np.bool_):
        return (
            _WRAPPING[name].replace("$u", CTYPES[f"uint{8 * out.itemsize}"])
            if name in _WRAPPING
            else _INTEGER[name]
        )
    if name == "cast" and out.kind in "iub" and ins[0].kind in "fiub":
        return "{0}" if out != np.bool_ else "({0} != 0)"
    return _FLOAT[name] if name == "copy" else None


def _of_half(op: str, of: DType, to: DType) -> str | None:
    """The C expression of what is done to 16-bit floats: they are copied, and cast to float32 and
    back.
    """
    if op == "copy" and of == to:
        return "{0}"
    if op != "cast" or np.float32 not in (of, to):
        return None
    return (
        f"{dtype_name(of)}_to_float({{0}})"
        if to == np.float32
        else f"float_to_{dtype_name(to)}({{0}})"
    )


def number(x: Any, dtype: np.dtype[Any]) -> str:
    """A Python scalar as a C literal of the dtype that it takes on."""
    return f"({literal(x, dtype) if dtype.kind == 'f' else int(x)})"


def expression(layout: Layout, line: Line, names: dict[int, str]) -> str | None:
    """The line's expression with operands spelled: values by `names`, scalars as literals."""
    text = template(layout, line)
    if text is None:
        return None
    kinds = [layout.stand_in[i].dtype for i in line.reads() if layout.stand_in[i].dtype != np.bool_]
    dtype = kinds[0] if kinds and line.op.name != "cast" else layout.stand_in[line.made()[0]].dtype
    if any(not isinstance(x, (Ref, int, float)) for x in line.operands):
        return None
    if any(isinstance(x, float) and dtype.kind != "f" for x in line.operands):
        return None
    if any(isinstance(x, int) and x < 0 and dtype.kind == "u" for x in line.operands):
        return None  # C would make the number unsigned, too
    return text.format(
        *(names[x.index] if isinstance(x, Ref) else number(x, dtype) for x in line.operands)
    )


def lower_elementwise(
    layout: Layout, lines: list[tuple[int, Line]], stored: set[int]
) -> Kernel | None:
    """One loop for lines of one output shape, in order; of their outputs those in `stored` go to
    memory, the others stay in registers.
    """
    shape = layout.stand_in[lines[0][1].made()[0]].shape
    if 0 in shape:
        return None
    k = Builder(layout, lines[-1][1], lines[-1][0])
    names: dict[int, str] = {}
    statements, loads, places = [], [], []
    flat = all(layout.contiguous(i) for i in stored)
    inputs = sorted(
        {i for _, line in lines for i in line.reads()}
        - {i for _, line in lines for i in line.made()}
    )
    spread = {i: _spread(layout, i, shape) for i in inputs}
    flat = flat and all(spread[i] == _packed(shape) or not any(spread[i]) for i in inputs)
    for i in inputs:
        own = layout.stand_in[i].shape == shape and shape != ()
        pointer = k.use(i, f"a{i}", share=own)
        names[i] = f"x{i}"
        ctype = CTYPES[layout.stand_in[i].dtype.name]
        loads.append(f"{ctype} x{i} = {pointer}[{_at(spread[i], flat)}];")
    for _, line in lines:
        out = line.made()[0]
        text = expression(layout, line, names)
        if text is None:
            return None
        names[out] = f"x{out}"
        statements.append(f"{CTYPES[layout.stand_in[out].dtype.name]} x{out} = {text};")
        if out in stored:
            pointer = k.use(out, f"y{out}", share=shape != (), write=True)
            places.append(f"{pointer}[{_at(_spread(layout, out, shape), flat)}] = x{out};")
    size = int(np.prod(shape))
    width = shape[-1] if shape else 1
    if len(shape) == 1:
        width = 1
    inside = "\n            ".join([*loads, *statements, *places])
    if flat:
        body = f"for (int64_t i = lo * {width}; i < hi * {width}; i++) {{\n            {inside}\n    }}"
    else:
        body = _nest(shape, width, inside)
    name = (
        "_".join(dict.fromkeys(line.op.name for _, line in lines)) if len(lines) <= 3 else "fused"
    )
    special = any(line.op.name in _IN_SPECIAL for _, line in lines) or any(
        "_to_float" in s or "float_to_" in s for s in statements
    )
    helper = c_text("special.c") if special else ""
    fused = [line.op.name for _, line in lines] if len(lines) > 1 else []
    kernel = k.kernel(name, body, size // width, len(lines) * size, fused=fused, helper=helper)
    kernel.lines = tuple(n for n, _ in lines)
    return kernel


def _packed(shape: tuple[int, ...]) -> tuple[int, ...]:
    steps, below = [], 1
    for n in reversed(shape):
        steps.append(below if n > 1 else 0)
        below *= n
    return tuple(reversed(steps))


def _spread(layout: Layout, i: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides over `shape`, 0 where the value is broadcast."""
    own = layout.strides(i)
    return (0,) * (len(shape) - len(own)) + tuple(own)


def _at(strides: tuple[int, ...], flat: bool) -> str:
    if flat:
        return "i" if any(strides) else "0"
    return " + ".join(f"i{d} * {s}" for d, s in enumerate(strides) if s) or "0"


def _nest(shape: tuple[int, ...], width: int, inside: str) -> str:
    """The loop over rows lo..hi of the last axis, with the other indices worked out from the row's
    number.
    """
    axes = range(len(shape) - 1) if width > 1 or len(shape) > 1 else range(len(shape))
    below, indices = 1, []
    for d in reversed(axes):
        indices.append(f"int64_t i{d} = r / {below} % {shape[d]};")
        below *= shape[d]
    inner = (
        f"for (int64_t i{len(shape) - 1} = 0; i{len(shape) - 1} < {width}; i{len(shape) - 1}++) "
        if len(axes) < len(shape)
        else ""
    )
    head = " ".join(reversed(indices))
    return f"for (int64_t r = lo; r < hi; r++) {{\n        {head}\n        {inner}{{\n            {inside}\n        }}\n    }}"
