"""Write the .pyi files: the types of what is assigned in a class body or found by `__getattr__`,
for editors and type checkers. The names, arguments and docstrings are those of the ops.

python tools/make_stubs.py           # writes them
python tools/make_stubs.py --check   # says which are out of date
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import minigrad
from minigrad import Tensor, functional, nn, ops
from minigrad.primitive import Primitive
from minigrad.tensor import functions
from minigrad.tensor.surface import Surface

PACKAGE = Path(minigrad.__file__).parent
HEAD = '"""Written by `python tools/make_docs.py`; do not edit."""\n\n'
TYPES = """from builtins import bool as _bool, float as _float, int as _int
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, overload

from minigrad.dtypes import DType
from minigrad.ops.loss import Reduce
from minigrad.random import Generator
"""
ALIASES = """
Axis = _int | tuple[_int, ...] | None
Sizes = _int | Sequence[_int]
class _Indexed(NamedTuple):
    values: Tensor
    indices: Tensor
Corner = Literal["upper_left", "lower_right"]
Method = Literal["auto", "plain", "flash"]
"""
# Options that calls take without the functions having them (`arguments.in_dtype`, `respelled`)
_DTYPE = "sum mean prod cumsum cumprod softmax log_softmax logsumexp var std norm"
_INPLACE = "relu relu6 leaky_relu elu selu celu silu mish hardtanh hardsigmoid hardswish dropout"
FURTHER = dict.fromkeys(_DTYPE.split(), "dtype: Any = None")
FURTHER |= dict.fromkeys(_INPLACE.split(), "inplace: Literal[False] = False")
OPERATORS = {
    **dict.fromkeys(
        (
            f"__{side}{name}__"
            for side in ("", "r")
            for name in (
                *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"),
                *("and", "or", "xor", "lshift", "rshift"),
            )
        ),
        "(self, other: Any) -> Self",
    ),
    **dict.fromkeys(("__lt__", "__le__", "__gt__", "__ge__"), "(self, other: Any) -> Self"),
    **dict.fromkeys(("__invert__", "__neg__", "__pos__", "__abs__"), "(self) -> Self"),
    **dict.fromkeys(("__eq__", "__ne__"), "(self, other: object) -> Self"),
}


def typed(annotation: Any, result: str) -> str:
    """An annotation of an op as users see it: operands are anything, results tensors."""
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "Any")
    text = re.sub(r"\b(Array|T|_empty|Self)\b", "Any", text)
    if result:
        text = re.sub(r"\bAny\b", result, text)
    return re.sub(r"\b(bool|int|float|Indexed)\b", r"_\1", text)


def default(value: Any) -> str:
    return (
        repr(value)
        if isinstance(value, (int, float, str, tuple, type(None))) and value == value
        else "..."
    )


def variants(function: Any, first: str, result: str) -> Iterator[str]:
    """The signatures of a function: as it is, with dim for axis, and with keepdims for keepdim."""
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name != "cls"]
    returns = signature.return_annotation
    if isinstance(function, Primitive):
        several = ", ".join(["Any"] * function.outputs)
        returns = "Any" if function.outputs == 1 else f"tuple[{several}]"
        if function.spreads:  # reshape(2, 3), and reshape((2, 3))
            row = {"kind": inspect.Parameter.VAR_POSITIONAL, "default": inspect.Parameter.empty}
            kind = "Sizes" if parameters[-1].annotation == "Shape" else "Any"
            parameters[-1] = parameters[-1].replace(annotation=kind, **row)
    known = {p.name for p in parameters}
    renamed: list[dict[str, str]] = [{}]
    rows = {p.name for p in parameters if p.kind is p.VAR_POSITIONAL}
    if "axis" in known - rows and "dim" not in known:
        renamed.append({"axis": "dim"})
        if "keepdim" in known:
            renamed.append({"keepdim": "keepdims"})
    for names in renamed:
        text = signature_text(parameters, names, first, isinstance(function, Primitive))
        if further := FURTHER.get(function.__name__):
            text = ", ".join(t for t in (text, "*", further) if t)
        yield f"({text}) -> {typed(returns, result)}"


def signature_text(
    parameters: list[Any], names: dict[str, str], first: str, primitive: bool
) -> str:
    shown, keywords = ([first] if first else []), False
    for i, p in enumerate(parameters):
        if i == 0 and p.kind in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY) and first:
            continue
        if p.kind is p.POSITIONAL_ONLY:
            p = p.replace(kind=p.POSITIONAL_OR_KEYWORD)
        # Surplus positional arguments are the keywords in order, so nothing is for keywords alone,
        # unless there is a row of operands.
        variadic = any(q.kind is q.VAR_POSITIONAL for q in parameters)
        if (
            p.kind is p.KEYWORD_ONLY
            and variadic
            and not keywords
            and not any(t.startswith("*") for t in shown)
        ):
            shown.append("*")
        keywords = keywords or p.kind is p.KEYWORD_ONLY
        star = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        text = f"{star}{names.get(p.name, p.name)}: {typed(p.annotation, '')}"
        shown.append(text if p.default is p.empty else f"{text} = {default(p.default)}")
    return ", ".join(shown)


def stub(name: str, function: Any, first: str, result: str, indent: str = "") -> str:
    """The lines of one function."""
    made = list(variants(function, first, result))
    doc = (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", f"\n{indent}    ")
    lines = []
    for i, text in enumerate(made):
        if len(made) > 1:
            lines.append(f"{indent}@overload")
        body = f'\n{indent}    """{doc}"""' if i == 0 and doc else " ..."
        lines.append(f"{indent}def {name}{text}:{body}")
    return "\n".join(lines)


def surface() -> str:
    """tensor/surface.pyi: Tensor's operators and vocabulary."""
    parts = [
        HEAD + TYPES,
        "from typing_extensions import Self\n\nfrom minigrad.tensor.base import TensorBase\n"
        "from minigrad.tensor.core import Tensor\n",
        ALIASES,
    ]
    parts.append("class Surface(TensorBase):")
    for name, member in vars(Surface).items():
        if name in OPERATORS:
            ignore = "  # type: ignore[override]" if name in ("__eq__", "__ne__") else ""
            parts.append(f"    def {name}{OPERATORS[name]}: ...{ignore}")
        elif not name.startswith("_"):
            static = isinstance(member, staticmethod)
            function = member.__func__ if static else member
            several = (
                next(iter(inspect.signature(inspect.unwrap(function)).parameters)) == "tensors"
            )
            first, result = ("self: Any", "Tensor") if several else ("self", "Self")
            if static:
                first, result = "", "Any"
            text = stub(name, function, first, result, "    ")
            parts.append(("    @staticmethod\n" if static else "") + text)
    return "\n".join(parts) + "\n"


def package() -> str:
    """minigrad/__init__.pyi: the names of the package, and each method as a function."""
    source = (PACKAGE / "__init__.py").read_text()
    lines = [
        f"from {node.module} import {alias.name} as {alias.name}"
        for node in ast.parse(source).body
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("minigrad")
        for alias in node.names
        if not (alias.asname or "").startswith("_")
    ]
    given = {line.rpartition(" ")[2] for line in lines} | {"tensor"}
    modules = {p.stem for p in PACKAGE.iterdir() if is_module(p)} - given
    lines += [f"from minigrad import {m} as {m}" for m in sorted(modules)]
    lines += [
        "from minigrad.compiler.jit import jit as jit",
        "from minigrad.files import load as load, save as save",
    ]
    lines += ["from minigrad.dtypes import DType as _DType"]
    parts = [HEAD + TYPES, "\n".join(dict.fromkeys(lines)), ALIASES, "__version__: str"]
    parts += [f"{n}: _DType" for n in minigrad._DTYPES]
    parts += [f"{n}: {'None' if v is None else '_float'}" for n, v in minigrad._CONSTANTS.items()]
    for name in functions.names():
        if name not in {*given, *minigrad._DTYPES} and functions.function(name) is not None:
            parts.append(function_stub(name))
    parts.append(f"__all__ = {minigrad.__all__!r}")
    return "\n".join(parts) + "\n"


def is_module(path: Path) -> bool:
    inside = path.suffix == ".py" or (path / "__init__.py").exists()
    return inside and not path.stem.startswith("_")


def function_stub(name: str) -> str:
    owner = next(c for c in Tensor.__mro__ if name in vars(c))
    member = vars(owner)[name]
    if isinstance(member, (classmethod, staticmethod)):
        return stub(name, member.__func__, "", "Tensor")
    first = next(iter(inspect.signature(inspect.unwrap(member)).parameters.values()))
    named = "x: Any" if first.name == "self" else f"{first.name}: Any"
    return stub(name, member, "" if first.kind is first.VAR_POSITIONAL else named, "Tensor")


def ops_package() -> str:
    """ops/__init__.pyi: where each op is."""
    places = {name: module for module in ops._MODULES for name in defined(module)}
    lines = [
        f"from {places[name].__name__} import {name} as {name}"
        for name, thing in sorted(vars(ops).items())
        if hasattr(thing, "numpy") and not inspect.ismodule(thing) and name in places
    ]
    return (
        HEAD
        + "from types import ModuleType\n\n"
        + "\n".join(lines)
        + "\n\n_MODULES: tuple[ModuleType, ...]\n"
    )


def defined(module: ModuleType) -> Iterator[str]:
    """The names that the file of a module defines itself."""
    for node in ast.parse(Path(str(module.__file__)).read_text()).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name))


def functional_package() -> str:
    """functional.pyi."""
    parts = [HEAD + TYPES, "from minigrad.tensor import Tensor", ALIASES]
    for name, thing in sorted(vars(functional).items()):
        if not name.startswith("_") and (inspect.isfunction(thing) or isinstance(thing, Primitive)):
            parts.append(stub(name, thing, "", "Tensor"))
    return "\n".join(parts) + "\n"


def nn_package() -> str:
    """nn/__init__.pyi: where each layer is."""
    parts = [name for name in nn.__all__ if isinstance(getattr(nn, name), ModuleType)]
    lines = [f"from minigrad.nn import {name} as {name}" for name in ("functional", *parts)]
    lines += [
        f"from {getattr(nn, name).__module__} import {name} as {name}"
        for name in nn.__all__
        if name not in parts
    ]
    return f"{HEAD}{chr(10).join(lines)}\n\n__all__ = {nn.__all__!r}\n"


STUBS = {
    "__init__.pyi": package,
    "functional.pyi": functional_package,
    "nn/__init__.pyi": nn_package,
    "ops/__init__.pyi": ops_package,
    "tensor/surface.pyi": surface,
}


def write(check: bool = False) -> list[str]:
    """The stubs that are out of date; they are written unless `check`."""
    stale = []
    for name, made in STUBS.items():
        path, text = PACKAGE / name, made()
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not check:
                path.write_text(text)
    return stale


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; say what would change")
    check = parser.parse_args().check
    stale = write(check)
    print(*(f"{name} is out of date" for name in stale), sep="\n", end="\n" if stale else "")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
