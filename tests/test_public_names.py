"""The public surface: explicit, sorted, typed, documented."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

import minigrad

MODULES = [
    "minigrad",
    *sorted(
        m.name
        for m in pkgutil.walk_packages(minigrad.__path__, "minigrad.")
        if not m.name.endswith("__main__")
    ),
]
LISTED = [name for name in MODULES if hasattr(importlib.import_module(name), "__all__")]


def isort_order(name: str) -> tuple[int, list[str | int]]:
    """CONSTANTS, then Classes, then the rest, each by alphabet, numbers by size: ruff's RUF022."""
    parts: list[str | int] = [
        int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)
    ]
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2), parts


def callables(module: ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The functions and classes in `module.__all__`, and the public methods of the classes, each
    under its name.
    """
    for name in module.__all__:
        thing = getattr(module, name)
        if (
            isinstance(thing, ModuleType)
            or not callable(thing)
            or not getattr(thing, "__module__", "minigrad").startswith("minigrad")
        ):
            continue
        yield name, thing
        if inspect.isclass(thing):
            for key, member in vars(thing).items():
                if not key.startswith("_") and (
                    inspect.isfunction(member)
                    or isinstance(member, (classmethod, staticmethod, property))
                ):
                    function = (
                        member.fget
                        if isinstance(member, property)
                        else getattr(member, "__func__", member)
                    )
                    assert function is not None
                    yield f"{name}.{key}", function


def test_the_top_level_is_a_short_list_without_extras() -> None:
    listed = set(minigrad.__all__)
    public = {
        name
        for name, value in vars(minigrad).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public <= listed
    assert {"Tensor", "grad", "load", "manual_seed", "nn", "no_grad", "optim", "save"} <= listed
    assert len(listed) <= 60


@pytest.mark.parametrize("name", LISTED)
def test_a_list_of_public_names_is_sorted_complete_and_without_repeats(name: str) -> None:
    module = importlib.import_module(name)
    assert len(set(module.__all__)) == len(module.__all__)
    assert [n for n in module.__all__ if not hasattr(module, n)] == []
    assert list(module.__all__) == sorted(module.__all__, key=isort_order)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_for(name: str) -> None:
    assert (importlib.import_module(name).__doc__ or "").strip()


@pytest.mark.parametrize("name", LISTED)
def test_every_public_function_and_class_is_documented(name: str) -> None:
    undocumented = [
        key for key, thing in callables(importlib.import_module(name)) if not inspect.getdoc(thing)
    ]
    assert undocumented == []


@pytest.mark.parametrize("name", LISTED)
def test_every_public_function_is_typed(name: str) -> None:
    untyped = []
    for key, thing in callables(importlib.import_module(name)):
        if inspect.isclass(thing):
            continue
        signature = inspect.signature(thing)
        holes = [
            p.name
            for p in signature.parameters.values()
            if p.annotation is p.empty and p.name not in ("self", "cls")
        ]
        if holes or signature.return_annotation is signature.empty:
            untyped.append((key, holes))
    assert untyped == []


def test_star_import_gives_the_list_and_nothing_else() -> None:
    code = "from minigrad import *; print(*sorted(n for n in dir() if not n.startswith('__')))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == sorted(n for n in minigrad.__all__ if not n.startswith("__"))


def test_importing_minigrad_brings_in_numpy_and_neither_files_nor_the_compiler() -> None:
    code = (
        "import sys; before = set(sys.modules); import minigrad; "
        "new = {n.split('.')[0] for n, m in sys.modules.items() if n not in before and getattr(m, "
        "'__file__', None)}; "
        "later = {'minigrad.compiler', 'minigrad.files'} & set(sys.modules); "
        "print(*sorted(new - set(sys.stdlib_module_names)), *later)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["minigrad", "numpy"]


@pytest.mark.parametrize(
    "name",
    [
        "testing",
        "jit",
        "load",
        "save",
        "bool",
        "exp",
        *sorted(
            m.name for m in pkgutil.iter_modules(minigrad.__path__) if not m.name.startswith("_")
        ),
    ],
)
def test_what_is_imported_when_asked_for_is_there_in_a_fresh_process(name: str) -> None:
    """A fresh process: here another test may have imported it before."""
    program = (
        f"import minigrad; minigrad.{name}\n"
        f"from minigrad import {name}\n"
        "assert not hasattr(minigrad, 'nothing_of_that_name')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
