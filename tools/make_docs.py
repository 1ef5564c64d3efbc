"""Write docs/ops.md, the reference of Tensor's methods and the functions, from their signatures and docstrings.

    python tools/make_docs.py            # writes the page
    python tools/make_docs.py --print    # prints it
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import minigrad
from minigrad import Tensor

PAGE = Path(__file__).parents[1] / "docs" / "ops.md"
HEAD = """# Tensor and its functions

Written by `python tools/make_docs.py` from the docstrings; do not edit. Where an argument is called `axis` it may be written `dim`, and `keepdim`
`keepdims`. Operators: `+ - * / // % ** @ & | ^ ~ << >> == != < <= > >=`, reflected and in place. Numbers mean what they mean in PyTorch.
"""
MODULES = [
    ("minigrad", minigrad),
    ("minigrad.functions", minigrad.functions),
    ("minigrad.functional", minigrad.functional),
    ("minigrad.func", minigrad.func),
    ("minigrad.ops", minigrad.ops),
]


def methods() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Tensor's public methods, by the class that brings them in."""
    for cls in Tensor.__mro__[:-1]:
        found = [(name, member) for name, member in vars(cls).items() if not name.startswith("_") and _documented(member)]
        if found:
            yield cls.__doc__ or "", found


def _documented(member: Any) -> bool:
    return isinstance(member, (property, classmethod, staticmethod)) or inspect.isfunction(member)


def entry(name: str, thing: Any, hidden: tuple[str, ...] = ("self", "cls")) -> str:
    """One name: its signature, then what its docstring says."""
    function: Callable[..., Any] = thing.fget if isinstance(thing, property) else getattr(thing, "__func__", thing)
    text = inspect.getdoc(function) or ""
    shown = name if isinstance(thing, property) else name + _signature(function, hidden)
    first, _, rest = text.partition("\n")
    more = f"\n{rest.strip()}" if rest.strip() else ""
    return f"**`{shown}`** {first}{more}".replace("\n\n", "\n").replace("\n", "\n  ")


def _signature(function: Callable[..., Any], hidden: tuple[str, ...]) -> str:
    try:
        parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in hidden]
    except (TypeError, ValueError):
        return "(...)"
    shown, star = [], False
    for p in parameters:
        if p.kind is p.KEYWORD_ONLY and not star:
            shown.append("*")
        star = star or p.kind in (p.KEYWORD_ONLY, p.VAR_POSITIONAL)
        prefix = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        shown.append(prefix + ("x" if p.name == "self" else p.name) + ("" if p.default is p.empty else f"={_default(p.default)}"))
    return f"({', '.join(shown)})"


def _default(value: Any) -> str:
    """A default as one writes it in a program."""
    if isinstance(value, minigrad.Generator):
        return "default_generator"
    return value.__name__ if isinstance(value, type) else str(value) if hasattr(value, "itemsize") else repr(value)


def functions(module: ModuleType) -> list[tuple[str, Any]]:
    """The module's public functions."""
    names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
    things = [(name, getattr(module, name)) for name in sorted(names)]
    return [(n, t) for n, t in things if callable(t) and not inspect.isclass(t) and not inspect.ismodule(t)]


def page() -> str:
    parts = [HEAD, "## Tensor\n", (inspect.getdoc(Tensor) or "") + "\n"]
    for title, found in methods():
        if title != Tensor.__doc__:
            parts.append(f"### {title.strip().splitlines()[0]}\n")
        parts.append("\n".join(f"- {entry(name, member)}" for name, member in found) + "\n")
    for name, module in MODULES:
        title = (module.__doc__ or "").strip().splitlines()[0]
        parts.append(f"## {name}\n\n{title}\n\n" + "\n".join(f"- {entry(n, t, ())}" for n, t in functions(module)) + "\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="print the page instead of writing it")
    if parser.parse_args().print:
        print(page(), end="")
    else:
        PAGE.write_text(page())


if __name__ == "__main__":
    main()
