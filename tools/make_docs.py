"""Write the reference from signatures and docstrings: docs/ops.md of Tensor's methods and the
functions, docs/modules.md of what is built on them.

python tools/make_docs.py                    # writes the pages
python tools/make_docs.py --print [modules]  # prints one
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import make_stubs

import minigrad
from minigrad import Tensor
from minigrad.primitive import Primitive
from minigrad.tensor import functions as lifted
from minigrad.tensor.surface import Surface

FIRST = ("self", "cls", "the first operand")  # hidden in a method's signature
DOCS = Path(__file__).parents[1] / "docs"
HEAD = """# Tensor and its functions

Written by `python tools/make_docs.py` from the docstrings; do not edit. Where an argument
is called `axis` it may be written `dim`, and `keepdim` `keepdims`. Operators: `+ - * / // % **
@ & | ^ ~ << >> == != < <= > >=`, reflected and in place. Numbers mean what they mean in PyTorch.
Layers, optimizers and the rest are in [modules.md](modules.md).
"""
REST_HEAD = """# Modules, optimizers and the rest

Written by `python tools/make_docs.py` from the docstrings; do not edit. Tensor and
its functions are in [ops.md](ops.md).
"""
MODULES = [
    ("minigrad", minigrad),
    ("minigrad.functional", minigrad.functional),
    ("minigrad.func", minigrad.func),
    ("minigrad.ops", minigrad.ops),
]
REST = [
    "nn",
    "nn.init",
    "optim",
    "optim.lr_scheduler",
    "models",
    "testing",
    "random",
    "interop",
    "errors",
]


def methods() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Tensor's public methods, in the groups of surface.py, then by the class that has them."""
    group, found = "", list[tuple[str, Any]]()
    for line in inspect.getsource(Surface).splitlines():
        if title := re.match(r"    # --- (.*)", line):
            if found:
                yield group, found
            group, found = title[1].capitalize(), []
        elif assigned := re.match(r"    (\w[\w, ]*) = ", line):
            names = [n for n in assigned[1].split(", ") if not n.startswith("_")]
            found += [(n, vars(Surface)[n]) for n in names]
    yield group, found
    for cls in Tensor.__mro__[:-1]:
        found = [
            (name, member)
            for name, member in vars(cls).items()
            if not name.startswith("_") and _documented(member)
        ]
        if found and cls is not Surface:
            yield cls.__doc__ or "", found


def _documented(member: Any) -> bool:
    kinds = (property, classmethod, staticmethod, Primitive)
    return isinstance(member, kinds) or inspect.isfunction(member)


def entry(name: str, thing: Any, hidden: tuple[str, ...] = ("self", "cls")) -> str:
    """One name: its signature, then what its docstring says."""
    function: Callable[..., Any] = (
        thing.fget if isinstance(thing, property) else getattr(thing, "__func__", thing)
    )
    text = (inspect.getdoc(function) or "") + _card(thing)
    shown = name if isinstance(thing, property) else name + _signature(function, hidden)
    first, _, rest = text.partition("\n")
    more = f"\n{rest.strip()}" if rest.strip() else ""
    return f"**`{shown}`** {first}{more}".replace("\n\n", "\n").replace("\n", "\n  ")


def _card(op: Any) -> str:
    """What a card says besides its docstring: the op's kind, and numpy's functions."""
    functions = [f"np.{_path(f)}" for f in getattr(op, "numpy", ())]
    facts = [*([op.kind] if isinstance(op, Primitive) else []), *functions]
    return f" *({', '.join(facts)})*" if facts else ""


def _path(function: Any) -> str:
    module = getattr(function, "__module__", "numpy") or "numpy"
    inside = module.removeprefix("numpy").strip(".")
    return f"{inside}.{function.__name__}" if inside else function.__name__


def _signature(function: Callable[..., Any], hidden: tuple[str, ...]) -> str:
    try:
        parameters = [
            p for p in inspect.signature(function).parameters.values() if p.name not in hidden
        ]
        if (
            hidden == FIRST
            and parameters
            and parameters[0].kind is not parameters[0].VAR_POSITIONAL
        ):
            parameters = parameters[1:]
    except (TypeError, ValueError):
        return "(...)"
    # Surplus positional arguments of an op are its keywords, in order.
    op = function if isinstance(function, Primitive) else getattr(function, "__wrapped__", None)
    spreads = isinstance(op, Primitive) and op.spreads
    shown, star = [], isinstance(op, Primitive) and not op._names.variadic
    for p in parameters:
        if p.kind is p.KEYWORD_ONLY and not star:
            shown.append("*")
        star = star or p.kind in (p.KEYWORD_ONLY, p.VAR_POSITIONAL)
        if spreads and p.kind is p.KEYWORD_ONLY:
            p = p.replace(kind=p.VAR_POSITIONAL, default=p.empty)
        prefix = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        shown.append(
            prefix
            + ("x" if p.name == "self" else p.name)
            + ("" if p.default is p.empty else f"={_default(p.default)}")
        )
    return f"({', '.join(shown)})"


def _default(value: Any) -> str:
    """A default as one writes it in a program."""
    if isinstance(value, minigrad.Generator):
        return "default_generator"
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    return str(value) if hasattr(value, "itemsize") else repr(value)


def functions(module: ModuleType) -> list[tuple[str, Any]]:
    """The module's public functions."""
    names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
    if module is minigrad:
        names = set(names) - set(lifted.names())
    things = [(name, getattr(module, name)) for name in sorted(names)]
    return [
        (n, t)
        for n, t in things
        if callable(t) and not inspect.isclass(t) and not inspect.ismodule(t)
    ]


def listed(found: list[tuple[str, Any]], hidden: tuple[str, ...]) -> Iterator[str]:
    """A line per method; a second name of one says so."""
    first: dict[int, str] = {}
    for name, member in found:
        known = first.setdefault(id(member), name)
        yield (
            f"- **`{name}`** is `{known}`." if known != name else f"- {entry(name, member, hidden)}"
        )


def page() -> str:
    parts = [HEAD, "## Tensor\n", (inspect.getdoc(Tensor) or "") + "\n"]
    for title, found in methods():
        if title != Tensor.__doc__:
            parts.append(f"### {title.strip().splitlines()[0]}\n")
        hidden = FIRST if found[0][0] in vars(Surface) else ("self", "cls")
        lines = listed(found, hidden)
        parts.append("\n".join(lines) + "\n")
    shared = ", ".join(f"`{name}`" for name in lifted.names())
    parts.append(f"## The methods as functions\n\n`minigrad.exp(x)` is `x.exp()`: {shared}.\n")
    for name, module in MODULES:
        title = (module.__doc__ or "").strip().splitlines()[0]
        parts.append(
            f"## {name}\n\n{title}\n\n"
            + "\n".join(f"- {entry(n, t, ())}" for n, t in functions(module))
            + "\n"
        )
    return "\n".join(parts)


def classes(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The module's public classes: those that it lists, or makes itself."""
    names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
    for name in names:
        thing = getattr(module, name)
        listed = (
            hasattr(module, "__all__")
            or module.__file__ is None
            or Path(module.__file__).name == "__init__.py"
        )
        if inspect.isclass(thing) and thing.__module__.startswith(
            "minigrad" if listed else module.__name__
        ):
            yield name, thing


def class_entries(name: str, cls: Any) -> Iterator[str]:
    """A class: how it is made and what it is; its public methods beneath, those of private bases
    included.
    """
    private = [base for base in cls.__mro__ if base is cls or base.__name__.startswith("_")]
    members = {key: member for base in private[::-1] for key, member in vars(base).items()}
    made = members.get("__init__")
    text = (inspect.getdoc(cls) or "").replace("\n\n", "\n").replace("\n", "\n  ")
    yield f"- **`{name}{_signature(made, ('self',)) if made else ''}`** {text}"
    for key, member in members.items():
        shown = (
            not key.startswith("_") and key not in ("forward", "extra_repr") and _documented(member)
        )
        if shown and inspect.getdoc(getattr(member, "__func__", member)):
            yield "  - " + entry(key, member).replace("\n", "\n  ")


def rest_page() -> str:
    parts = [REST_HEAD]
    for name in REST:
        module = importlib.import_module(f"minigrad.{name}")
        lines = [line for key, cls in classes(module) for line in class_entries(key, cls)]
        own = [
            (n, t)
            for n, t in functions(module)
            if hasattr(module, "__all__") or t.__module__.startswith(module.__name__)
        ]
        lines += [f"- {entry(n, t, ())}" for n, t in own]
        parts.append(
            f"## minigrad.{name}\n\n{(inspect.getdoc(module) or '').splitlines()[0]}\n\n"
            + "\n".join(lines)
            + "\n"
        )
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--print",
        nargs="?",
        const="ops",
        choices=("ops", "modules"),
        help="print a page instead of writing them",
    )
    pages = {"ops": page, "modules": rest_page}
    if asked := parser.parse_args().print:
        print(pages[asked](), end="")
        return
    make_stubs.write()
    for name, made in pages.items():
        (DOCS / f"{name}.md").write_text(made())


if __name__ == "__main__":
    main()
