"""Containers of modules and of parameters: lists and dicts whose parts are found by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from itertools import chain, count
from typing import Any, ClassVar, Generic, TypeVar

from minigrad.arguments import require
from minigrad.nn.module import Module, Parameter, bracketed, layers_of
from minigrad.tensor import Tensor

P = TypeVar("P")
L = TypeVar("L", bound="_List[Any]")
Pairs = Mapping[str, Any] | Iterable[tuple[str, Any]]


def _module(self: Module, value: Any) -> Any:
    """`value` as a part of a container of modules."""
    require(isinstance(value, Module), type(self).__name__, "item", value, "a Module")
    return value


def _parameter(self: Module, value: Any) -> Any:
    """`value` as a part of a container of parameters."""
    require(isinstance(value, Tensor), type(self).__name__, "item", value, "a Parameter")
    return value if isinstance(value, Parameter) else Parameter(value)


class _Container(Module):
    """Items by name, which are parts besides the attributes, and attributes themselves unless the
    class has the name. They are assigned again whenever they change, so that the assignment counts
    as a structural change.
    """

    _items: Mapping[str, Any] = {}
    _part: Callable[[Any], Any]
    _adopted: ClassVar[Any] = Module  # what becomes an item when it is assigned to an attribute

    def _attributes(self) -> Iterable[tuple[str, Any]]:
        return chain(self._items.items(), (p for p in super()._attributes() if p[0] != "_items"))

    def _put(self, name: str, part: Any) -> None:
        good = isinstance(name, str) and name and "." not in name and name not in vars(self)
        wanted = "a string without a dot, not empty and not the name of another attribute"
        require(good, type(self).__name__, "a name", name, wanted)
        self._items = {**self._items, name: self._part(part)}

    def __getattr__(self, name: str) -> Any:
        if name in self._items:
            return self._items[name]
        return super().__getattr__(name)  # type: ignore[misc]  # hidden from type checkers

    def __setattr__(self, name: str, value: Any) -> None:
        item = name in self._items or isinstance(value, self._adopted)
        if item and name not in vars(self) and not hasattr(type(self), name):
            self._put(name, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in vars(self) or name not in self._items:
            super().__delattr__(name)
        else:
            self._items = {n: part for n, part in self._items.items() if n != name}

    def __len__(self) -> int:
        return len(self._items)

    def _shown(self) -> Iterator[str]:
        """The items as a dict shows them."""
        return (f"{name!r}: {part!r}" for name, part in self._items.items())


class _List(_Container, Generic[P]):
    """A list of parts, which are named by their places, "0", "1", ..., unless they have a name."""

    def __init__(self, parts: Iterable[Any] = ()) -> None:
        self.extend(parts)

    def _edited(self: L, edit: Callable[..., Any], *arguments: Any) -> L:
        pairs = list(self._items.items())
        edit(pairs, *arguments)
        self._items = {n if not n.isdigit() else str(i): p for i, (n, p) in enumerate(pairs)}
        return self

    def append(self: L, part: Any) -> L:
        """Add one part at the end; returns self."""
        return self.extend([part])

    def extend(self: L, parts: Iterable[Any]) -> L:
        """Add parts at the end; returns self."""
        items = dict(self._items)
        for part in parts:
            name = next(n for n in map(str, count(len(items))) if n not in items)
            items[name] = self._part(part)
        self._items = items
        return self

    def __iadd__(self: L, parts: Iterable[Any]) -> L:
        return self.extend(parts)

    def insert(self: L, index: int, part: Any) -> L:
        """Add one part before `index`; returns self."""
        return self._edited(list.insert, index, ("0", self._part(part)))

    def __iter__(self) -> Iterator[P]:
        return iter(self._items.values())

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, slice):
            return [*self._items.values()][index]
        part = type(self)()
        part._items = dict([*self._items.items()][index])
        return part._edited(list.copy)

    def __setitem__(self, index: int, part: Any) -> None:
        self._items = {**self._items, [*self._items][index]: self._part(part)}

    def __delitem__(self, index: int | slice) -> None:
        self._edited(list.__delitem__, index)

    def __repr__(self) -> str:
        return bracketed(f"{type(self).__name__}([", map(repr, self), "])")


class ModuleList(_List[Any]):
    """A list of modules whose parameters are found. It has no forward of its own."""

    _part = _module

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__(modules)


class ParameterList(_List[Parameter]):
    """A list of parameters. A plain tensor put into it becomes a Parameter."""

    _part, _adopted = _parameter, ()


class Sequential(_List[Any]):
    """Modules one after the other: the output of each is the input of the next.

    A function, such as F.relu, may stand among them. A dict gives them names. A module that is
    assigned to an attribute goes to the end, under that name.

        Sequential(Linear(2, 16), F.relu, Linear(16, 1))
    """

    def __init__(self, *modules: Module | Callable[..., Any] | Mapping[str, Any]) -> None:
        named = modules[0] if len(modules) == 1 and isinstance(modules[0], Mapping) else None
        super().__init__(modules if named is None else ())
        for name, module in (named or {}).items():
            self._put(name, module)

    def _part(self, value: Any) -> Module:
        if callable(value) and not isinstance(value, Module | type):
            return _Called(value)
        return _module(self, value)

    def forward(self, x: Any) -> Any:
        """x through every module in turn."""
        for module in self._items.values():
            x = module(x)
        return x

    def __repr__(self) -> str:
        if [*self._items] == [*map(str, range(len(self)))]:
            return bracketed("Sequential(", map(repr, self), ")")
        return bracketed("Sequential({", self._shown(), "})")


class _Called(Module):
    """A function as a module, for Sequential."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.forward = function

    def __repr__(self) -> str:
        return str(getattr(self.forward, "__name__", self.forward))


class _Dict(_Container, MutableMapping[str, Any]):
    """Parts by name, in the order in which they were put in."""

    __eq__, __hash__ = object.__eq__, object.__hash__  # a module is equal to itself alone

    def __init__(self, parts: Pairs = ()) -> None:
        self.update(parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __getitem__(self, name: str) -> Any:
        return self._items[name]

    def __setitem__(self, name: str, part: Any) -> None:
        self._put(name, part)

    def __delitem__(self, name: str) -> None:
        items = dict(self._items)
        del items[name]
        self._items = items

    def __repr__(self) -> str:
        return bracketed(f"{type(self).__name__}({{", self._shown(), "})")


class ModuleDict(_Dict):
    """A dict of modules whose parameters are found. A module is an attribute, too, unless its name
    is that of a method. It has no forward of its own.
    """

    _part = _module

    def __init__(self, modules: Pairs = ()) -> None:
        super().__init__(modules)


class ParameterDict(_Dict):
    """A dict of parameters. A plain tensor put into it becomes a Parameter."""

    _part, _adopted = _parameter, Parameter


__all__ = layers_of(globals())
