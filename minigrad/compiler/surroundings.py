"""What a step sees besides its arguments: what its code names, and what lies inside the objects
among that.

All of it is frozen into a recording, so all of it is looked at before a replay. What the code names
is looked at each time. What lies inside modules is looked at when some module has counted an
assignment (`modes.ASSIGNMENTS`), plain objects' attributes each time, as nobody counts there.
"""

from __future__ import annotations

import functools
import sys
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from operator import is_
from typing import Any

import numpy as np

from minigrad.modes import ASSIGNMENTS
from minigrad.tensor import Tensor

_PLAIN = frozenset({int, float, bool, str, type(None)})
_OPAQUE = (
    Tensor,
    np.ndarray,
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
)
_CODE = (types.FunctionType, types.MethodType, functools.partial)
_CONTAINERS = (list, dict, tuple, set, frozenset, deque, defaultdict, OrderedDict)
_BY_VALUE = _PLAIN.union(_CONTAINERS)
_MANY = 256  # entries of a list or dict beyond which it is known by identity alone
_DEPTH = 2  # how far into lists and dicts

Place = tuple[int, str]  # the id of what names or holds a value, and the name
Seen = dict[Place, Any]


class Surroundings:
    """What the code of a function names: closure, globals, defaults, and the same for functions of
    the user's among these.

    Numbers and strings are part of the signature by value, lists and dicts by what lies in them,
    other objects by identity; what the step itself changes is not. Of classes and modules, the
    attributes that the code names.
    """

    def __init__(self, function: Any) -> None:
        self.function = function
        self.ignored: set[Place] = set()
        self._names: list[_Name] = []
        self._values: list[Any] = []
        self._keys: list[Any] = []  # of the values
        self._containers: list[
            tuple[int, _Container]
        ] = []  # those that may change, with their numbers
        self._walk()

    def _walk(self) -> None:
        """Find all names, from one function to the next."""
        names: dict[Place, _Name] = {}
        self._mentioned: set[str] = set()
        todo, done = [self.function], set()
        while todo:
            source = todo.pop()
            if id(source) in done:
                continue
            done.add(id(source))
            if isinstance(code := getattr(source, "__code__", None), types.CodeType):
                self._mentioned.update(_sight(code, source.__module__) or ())
            for name in _named_by(source):
                names.setdefault(name.place, name)
                todo.extend(_leads_to(name.value()))
        self._names = list(names.values())
        self._take([name.value() for name in self._names])

    def _take(self, values: list[Any]) -> None:
        self._values, self._keys = values, list(map(_key, values))
        self._containers = [
            (i, _Container(x)) for i, x in enumerate(values) if type(x) in _CONTAINERS
        ]

    def values(self) -> list[Any]:
        """What the names hold now."""
        values = [name.value() for name in self._names]
        if not all(map(is_, values, self._values)):
            turned = any(
                _leads(x) or _leads(y)
                for x, y in zip(values, self._values, strict=True)
                if x is not y
            )
            self._take(values)
            if turned:
                self._walk()
        return self._values

    def signature(self) -> tuple[Any, ...]:
        """The part of the signature, of what `values` found last."""
        for i, container in self._containers:
            self._keys[i] = container.key()
        if not self.ignored:
            return tuple(self._keys)
        return tuple(
            [
                key
                for key, name in zip(self._keys, self._names, strict=True)
                if name.place not in self.ignored
            ]
        )

    def signature_of(self, keys: dict[Place, Any]) -> tuple[Any, ...]:
        """The same from keys that were taken before."""
        return tuple([key for place, key in keys.items() if place not in self.ignored])

    def keys(self, values: list[Any]) -> dict[Place, Any]:
        """A hashable key of each value as it is now."""
        return {name.place: _key(x) for x, name in zip(values, self._names, strict=True)}

    def ignore_changes(self, before: dict[Place, Any]) -> set[str]:
        """Leave out what a call has changed: a counter of the step's own is no reason to record it
        anew. The names.
        """
        after = self.keys(self.values())
        changed = {
            place for place in before.keys() | after.keys() if before.get(place) != after.get(place)
        }
        self.ignored |= changed
        return {name for _, name in changed}

    def mention(self, name: str, objects: Iterable[Any]) -> bool:
        """True if the code that the step may run names it: its functions, and methods of the user's
        classes among some objects that these name.
        """
        named = {"forward", "__call__", *self._mentioned}
        kinds = {kind for x in objects for kind in type(x).__mro__}
        methods = {
            (n, f)
            for kind in kinds
            for n, f in vars(kind).items()
            if isinstance(f, types.FunctionType)
        }
        while called := [(n, f) for n, f in methods if n in named]:
            named.update(*(_sight(f.__code__, f.__module__) or () for _, f in called))
            methods.difference_update(called)
        return name in named


class _Name:
    """A name in somebody's code, and where its value is read."""

    __slots__ = ("place", "value")

    def __init__(self, owner: Any, name: str, value: Callable[[], Any]) -> None:
        self.place, self.value = (id(owner), name), value


def _key(x: Any, depth: int = _DEPTH) -> Any:
    """A hashable key of a value: plain ones by value, lists and dicts (and those in them) by what
    they hold, others by identity.
    """
    kind = type(x)
    if kind in _PLAIN:
        return (
            kind,
            x.hex() if kind is float else x,
        )  # NaN is equal to itself here, and -0.0 is not 0.0
    if depth and _is_container(x):
        inside = [_key(y, depth - 1) if type(y) in _BY_VALUE else id(y) for y in _parts(x)]
        return (kind, *inside, *(x if isinstance(x, dict) else ()))
    return (kind, x.tobytes()) if isinstance(x, np.generic) else id(x)


def _parts(x: Any) -> Iterable[Any]:
    """What lies in a list or dict."""
    return x.values() if isinstance(x, dict) else x


class _Container:
    """A list, dict or tuple that is looked at each time. Its key is worked out again where it holds
    something else, or lists and dicts in turn.
    """

    def __init__(self, x: Any) -> None:
        self._x, self._known = x, _key(x)
        self._held: list[Any] | None = None  # what it held, where that is all there is to it

    def key(self) -> Any:
        """As `_key` has it."""
        x, held = self._x, self._held
        if not _is_container(x):  # it has grown too long to be looked through
            return _key(x)
        entries = [*_parts(x), *x] if isinstance(x, dict) else list(x)
        if held is None or len(held) != len(entries) or not all(map(is_, held, entries)):
            self._known = _key(x)
            self._held = None if any(type(y) in _CONTAINERS for y in entries) else entries
        return self._known


# --- what code names


def _leads(x: Any) -> bool:
    """True if there may be more names behind a value."""
    return type(x) not in _PLAIN and (
        isinstance(x, (*_CODE, type, types.ModuleType))
        or (not isinstance(x, _OPAQUE) and hasattr(x, "__wrapped__"))
    )


def _leads_to(x: Any) -> list[Any]:
    """The functions behind a value: itself, or what a step or a cache is wrapped around."""
    return (
        []
        if not _leads(x) or isinstance(x, (type, types.ModuleType))
        else [x if isinstance(x, _CODE) else x.__wrapped__]
    )


def _named_by(source: Any) -> Iterator[_Name]:
    """The names of a function, a method, a partial or another callable object; none for code that
    is not the user's.
    """
    if isinstance(source, functools.partial):
        for i, x in enumerate((source.func, *source.args, *source.keywords.values())):
            yield _fixed(source, str(i), x)
    elif isinstance(source, types.MethodType):
        yield _fixed(source.__func__, "self", source.__self__)
        yield from _named_by(source.__func__)
    elif isinstance(source, types.FunctionType):
        names = _sight(source.__code__, source.__module__)
        yield from () if names is None else _seen_by(source, names)
        if hasattr(source, "__wrapped__"):
            yield _fixed(source, "__wrapped__", source.__wrapped__)
    elif not isinstance(source, (type, types.BuiltinFunctionType)):
        yield _fixed(source, "self", source)
        for name in ("__call__", "forward"):
            yield _fixed(source, name, getattr(type(source), name, None))


def _fixed(owner: Any, name: str, x: Any) -> _Name:
    return _Name(owner, name, lambda: x)


def _seen_by(function: types.FunctionType, names: frozenset[str]) -> Iterator[_Name]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield from _with_attributes(
            _Name(function, name, functools.partial(_contents, cell)), names
        )
    for name in names:  # those that are not there may come to be
        yield from _with_attributes(
            _Name(function, name, functools.partial(function.__globals__.get, name)), names
        )
    for i, x in enumerate(
        (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    ):
        yield _fixed(function, f"default {i}", x)


def _with_attributes(name: _Name, names: frozenset[str]) -> Iterator[_Name]:
    """A name; of a class or module of the user's also the attributes that the code names."""
    yield name
    x = name.value()
    if isinstance(x, (type, types.ModuleType)) and _of_user(
        x.__name__ if isinstance(x, types.ModuleType) else x.__module__
    ):
        held = vars(x)
        yield from (
            _Name(x, attribute, functools.partial(held.get, attribute))
            for attribute in names
            if attribute in held
        )


@functools.lru_cache(maxsize=1024)
def _sight(code: types.CodeType, module: str | None) -> frozenset[str] | None:
    """The names in a function's code and in the functions inside it, None for the library's and
    installed code.
    """
    return (
        frozenset(_names(code))
        if _of_user(module) and "site-packages" not in code.co_filename
        else None
    )


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


@functools.lru_cache(maxsize=1024)
def _of_user(module: str | None) -> bool:
    """False for this library, numpy and Python's own modules."""
    top = (module or "").split(".")[0]
    return top == "__main__" or top not in {
        __name__.split(".")[0],
        "numpy",
        *sys.stdlib_module_names,
    }


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


# --- what lies inside objects


class Reach:
    """What lies inside some objects: the modules in them, train or eval mode of each, and what all
    attributes hold.

    modes: of the modules, in order.   inside: (id of an object, name of an attribute) -> what it
        holds; a new dict when something may have changed.
    """

    def __init__(self, found: list[Any]) -> None:
        self._found = [x for x in found if _has_attributes(x)]
        self.modes: tuple[bool, ...] = ()
        self.inside: Seen = {}
        self._counted = -1
        self._sources: list[
            Iterable[Any]
        ] = []  # live: the attributes of plain objects, what lies in lists and dicts
        self._held: list[Any] = []
        self._places: list[
            Place
        ] = []  # of the attributes of plain objects, which are the first of `_held`
        self._holders: list[Any] = []
        self.objects: dict[int, Any] = {}  # all that hold attributes, by id
        self.look()

    def look(self) -> None:
        """See what has changed since the last look."""
        held = list(chain.from_iterable(self._sources))
        if self._counted == ASSIGNMENTS[0] and len(held) == len(self._held):
            if all(map(is_, held, self._held)):
                return
            changed = [
                i for i, (x, y) in enumerate(zip(held, self._held, strict=True)) if x is not y
            ]
            if self._only_numbers(changed, held):
                self._held, found = (
                    held,
                    {self._places[i]: held[i] for i in changed if self._places[i] in self.inside},
                )
                self.inside = {**self.inside, **found} if found else self.inside
                return
        modules, holders = _objects(self._found)
        self._counted = ASSIGNMENTS[0]
        attributes = [vars(x).values() for x in holders]
        containers = [
            c
            for x in chain(*attributes, *[vars(m).values() for m in modules])
            if _is_container(x)
            for c in _containers(x, _DEPTH)
        ]
        self._sources = [
            *attributes,
            *containers,
            *[c.values() for c in containers if isinstance(c, dict)],
        ]
        self._held = list(chain.from_iterable(self._sources))
        self._holders, self._places = holders, _places(holders)
        self.objects = {id(x): x for x in (*modules, *holders)}
        self.modes = tuple(m.training for m in modules)
        self.inside = {
            (id(m), name): _frozen(x)
            for m in modules
            for name, x in vars(m).items()
            if name != "training"
        }
        self.inside.update(
            ((id(x), name), _frozen(value))
            for x in holders
            for name, value in vars(x).items()
            if _is_watched(x, name, value)
        )

    def of_user(self, places: Iterable[Place]) -> set[str]:
        """The names among some attributes that are not of the library's own objects."""
        return {
            name for i, name in places if i in self.objects and not _of_library(self.objects[i])
        }

    def _only_numbers(self, changed: list[int], held: list[Any]) -> bool:
        """True if no more has changed than numbers and strings among the attributes of plain
        objects: a counter in a user's own trainer.
        """
        plain = all(
            i < len(self._places) and type(held[i]) in _PLAIN and type(self._held[i]) in _PLAIN
            for i in changed
        )
        return plain and self._places == _places(self._holders)


def _places(holders: list[Any]) -> list[Place]:
    return [(id(x), name) for x in holders for name in vars(x)]


def _has_attributes(x: Any) -> bool:
    """True if what lies in the object counts: not for a step or a cache (`opt.step()` names a
    global `step`, too), whose function does.
    """
    return hasattr(x, "__dict__") and not isinstance(x, _OPAQUE) and not hasattr(x, "__wrapped__")


def _is_container(x: Any) -> bool:
    return type(x) in _CONTAINERS and len(x) <= _MANY


def _containers(x: Any, depth: int) -> Iterator[Any]:
    """A list or dict and those in it."""
    yield x
    for y in _parts(x):
        if depth > 1 and _is_container(y):
            yield from _containers(y, depth - 1)


def _is_watched(x: Any, name: str, value: Any) -> bool:
    """True if what an attribute holds counts: not for what the library keeps for itself, such as
    which shapes a Trainer has compiled.
    """
    if name.startswith("_") and _of_library(x):
        return False
    return (
        type(value) in _PLAIN
        or isinstance(value, (Tensor, np.ndarray, np.generic))
        or _is_container(value)
    )


def _of_library(x: Any) -> bool:
    return type(x).__module__.split(".")[0] == __name__.split(".")[0]


class _Frozen:
    """A list or dict as it was: its key, and what lies in it, held so that ids in the key stay
    their own.
    """

    def __init__(self, x: Any) -> None:
        self.key, self.parts = _key(x), list(within([x]))


def _frozen(x: Any) -> Any:
    return _Frozen(x) if _is_container(x) else x


def _objects(found: list[Any]) -> tuple[list[Any], list[Any]]:
    """The modules among some objects and their attributes, with all modules below; and the other
    objects that have attributes.
    """
    modules: dict[int, Any] = {}
    holders: dict[int, Any] = {}

    def note(x: Any) -> None:
        if callable(getattr(type(x), "modules", None)) and hasattr(x, "training"):
            modules.update((id(m), m) for m in x.modules())
        elif _has_attributes(x):
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


def differences(a: Seen, b: Seen) -> set[Place]:
    """The attributes that hold something else: plain values are compared by value, lists and dicts
    by what is in them, others by identity.
    """
    if len(a) == len(b):  # most are the same objects
        suspects = [k for k, x in a.items() if x is not b.get(k, a)]
        if not any(k not in b for k in suspects):
            return {k for k in suspects if not _same(a[k], b[k])}
    return {k for k in a.keys() | b.keys() if not _same(a.get(k), b.get(k))}


def _same(x: Any, y: Any) -> bool:
    if type(x) is _Frozen and type(y) is _Frozen:
        return bool(x.key == y.key)
    return x is y or (
        type(x) is type(y)
        and (type(x) in _PLAIN or isinstance(x, np.generic))
        and bool(_key(x) == _key(y))
    )


def within(found: Iterable[Any]) -> Iterator[Any]:
    """Values, and what lies in nested tuples, lists and dicts of them, each once."""
    todo, done = list(found), set()
    while todo:
        x = todo.pop()
        if id(x) not in done:
            done.add(id(x))
            yield x
            if type(x) is _Frozen:
                todo.extend(x.parts)
            elif isinstance(x, _CONTAINERS) and len(x) <= _MANY:
                todo.extend(_parts(x))
