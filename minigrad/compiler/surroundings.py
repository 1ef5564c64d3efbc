"""What a step sees besides its arguments: its closure, its globals, and what lies inside the objects among them.

All of it is frozen into a recording, so all of it is looked at before a replay. Closure and globals are looked at each time. What lies inside modules
is looked at when some module has counted an assignment (`modes.ASSIGNMENTS`), plain objects' numbers each time, as nobody counts there.
"""

from __future__ import annotations

import functools
import inspect
import types
from typing import Any

from minigrad.modes import ASSIGNMENTS
from minigrad.tensor import Tensor

_PLAIN = frozenset({int, float, bool, str, type(None)})
_OPAQUE = (Tensor, type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType)


class Surroundings:
    """The variables of a function's closure and the globals that it names.

    Numbers and strings among them are part of the signature by value, other objects by identity; what the step itself changes is not.
    """

    def __init__(self, function: Any) -> None:
        plain = function.func if isinstance(function, functools.partial) else inspect.unwrap(function)
        plain = getattr(plain, "__func__", plain)
        code, names = getattr(plain, "__code__", None), getattr(plain, "__globals__", {})
        self.owner = getattr(function, "__self__", None)
        self.cells = list(getattr(plain, "__closure__", None) or ())
        self.names, self.globals = sorted(_named(code) & names.keys()) if code else [], names
        self.ignored: set[int] = set()

    def values(self) -> list[Any]:
        """What they hold now."""
        return [self.owner, *map(_contents, self.cells), *[self.globals.get(n) for n in self.names]]

    def key(self, values: list[Any]) -> tuple[Any, ...]:
        """The part of the signature."""
        return tuple([0 if i in self.ignored else (x if type(x) in _PLAIN else id(x)) for i, x in enumerate(values)])

    def ignore_changes(self, before: tuple[Any, ...]) -> None:
        """Leave out what a call has changed: a counter of the step's own is no reason to record it anew."""
        after = self.key(self.values())
        self.ignored.update(i for i, (x, y) in enumerate(zip(before, after, strict=True)) if x != y)


def _named(code: Any) -> set[str]:
    """The global names in a function's code and in the functions inside it."""
    inner = [_named(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    return set(code.co_names).union(*inner)


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


Inside = dict[tuple[int, str], Any]


class Reach:
    """What lies inside some objects: the modules in them, train or eval mode of each, and what all attributes hold.

    modes: of the modules, in order.   inside: (id of an object, name of an attribute) -> what it holds; a new dict when something may have changed.
    """

    def __init__(self, found: list[Any]) -> None:
        self._found = [x for x in found if hasattr(x, "__dict__") and not isinstance(x, _OPAQUE)]
        self.modes: tuple[bool, ...] = ()
        self.inside: Inside = {}
        self._counted = -1
        self._holders: list[dict[str, Any]] = []
        self._numbers: list[Any] = []
        self.look()

    def look(self) -> None:
        """See what has changed since the last look."""
        numbers = [x for holder in self._holders for x in holder.values() if type(x) in _PLAIN]
        if self._counted == ASSIGNMENTS[0] and numbers == self._numbers:
            return
        modules, holders = _objects(self._found)
        self._counted, self._holders = ASSIGNMENTS[0], [vars(x) for x in holders]
        self._numbers = [x for holder in self._holders for x in holder.values() if type(x) in _PLAIN]
        self.modes = tuple(m.training for m in modules)
        self.inside = {(id(m), name): x for m in modules for name, x in vars(m).items() if name != "training"}
        self.inside.update(((id(x), name), value) for x in holders for name, value in vars(x).items() if type(value) in _PLAIN)


def _objects(found: list[Any]) -> tuple[list[Any], list[Any]]:
    """The modules among some objects and their attributes, with all modules below; and the other objects that have attributes."""
    modules: dict[int, Any] = {}
    holders: dict[int, Any] = {}

    def note(x: Any) -> None:
        if callable(getattr(type(x), "modules", None)) and hasattr(x, "training"):
            modules.update((id(m), m) for m in x.modules())
        elif hasattr(x, "__dict__") and not isinstance(x, _OPAQUE):
            holders[id(x)] = x

    for x in found:
        note(x)
        for value in list(vars(x).values()):
            note(value)
    for module in list(modules.values()):
        for value in list(vars(module).values()):
            if id(value) not in modules:
                note(value)
    return list(modules.values()), list(holders.values())


def differences(a: Inside, b: Inside) -> set[tuple[int, str]]:
    """The attributes that hold something else: plain values are compared by value, other objects by identity."""
    return {k for k in a.keys() | b.keys() if not _same(a.get(k), b.get(k))}


def _same(x: Any, y: Any) -> bool:
    return x is y or (type(x) is type(y) and type(x) in _PLAIN and bool(x == y))
