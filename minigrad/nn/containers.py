"""Containers of modules and of parameters: lists and dicts whose parts are found by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Generic, TypeVar

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


class _List(Module, Generic[P]):
    """A list of parts, which are named "0", "1", ... It is assigned anew whenever it changes, so
    that the assignment counts as a structural change.
    """

    def __init__(self, parts: Iterable[Any] = ()) -> None:
        self._items: list[P] = []
        self.extend(parts)

    _part: Callable[[Any], P]

    def _attributes(self) -> Iterable[tuple[str, Any]]:
        return ((str(i), part) for i, part in enumerate(self._items))

    def _edited(self: L, edit: Callable[..., Any], *arguments: Any) -> L:
        items = list(self._items)
        edit(items, *arguments)
        self._items = items
        return self

    def append(self: L, part: Any) -> L:
        """Add one part at the end; returns self."""
        return self.extend([part])

    def extend(self: L, parts: Iterable[Any]) -> L:
        """Add parts at the end; returns self."""
        return self._edited(list.extend, [self._part(part) for part in parts])

    def insert(self: L, index: int, part: Any) -> L:
        """Add one part before `index`; returns self."""
        return self._edited(list.insert, index, self._part(part))

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[P]:
        return iter(self._items)

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, slice):
            return self._items[index]
        part = type(self)()
        part._items = self._items[index]
        return part

    def __setitem__(self, index: int, part: Any) -> None:
        self._edited(list.__setitem__, index, self._part(part))

    def __delitem__(self, index: int | slice) -> None:
        self._edited(list.__delitem__, index)

    def __repr__(self) -> str:
        return bracketed(f"{type(self).__name__}([", map(repr, self._items), "])")


class ModuleList(_List[Any]):
    """A list of modules whose parameters are found. It has no forward of its own."""

    _part = _module

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__(modules)


class ParameterList(_List[Parameter]):
    """A list of parameters. A plain tensor put into it becomes a Parameter."""

    _part = _parameter


class Sequential(_List[Any]):
    """Modules one after the other: the output of each is the input of the next.

    A function, such as F.relu, may stand among them.

        Sequential(Linear(2, 16), F.relu, Linear(16, 1))
    """

    def __init__(self, *modules: Module | Callable[..., Any]) -> None:
        super().__init__(modules)

    def _part(self, value: Any) -> Module:
        if callable(value) and not isinstance(value, Module | type):
            return _Called(value)
        return _module(self, value)

    def forward(self, x: Any) -> Any:
        """x through every module in turn."""
        for module in self._items:
            x = module(x)
        return x

    def __repr__(self) -> str:
        return bracketed("Sequential(", map(repr, self._items), ")")


class _Called(Module):
    """A function as a module, for Sequential."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.forward = function

    def __repr__(self) -> str:
        return str(getattr(self.forward, "__name__", self.forward))


class _Dict(Module, MutableMapping[str, Any]):
    """Parts by name, in the order in which they were put in. Like _List, assigned anew."""

    __eq__, __hash__ = object.__eq__, object.__hash__  # a module is equal to itself alone

    def __init__(self, parts: Pairs = ()) -> None:
        self._items: dict[str, Any] = {}
        self.update(parts)

    _part: Callable[[Any], Any]

    def _attributes(self) -> Iterable[tuple[str, Any]]:
        return self._items.items()

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __getitem__(self, name: str) -> Any:
        return self._items[name]

    def __getattr__(self, name: str) -> Any:
        # Asked only for a name that is no attribute; a copy that is being made has no `_items` yet.
        try:
            return vars(self)["_items"][name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no {name!r}") from None

    def __setitem__(self, name: str, part: Any) -> None:
        good = bool(name) and "." not in name
        require(good, type(self).__name__, "a name", name, "a string without a dot, not empty")
        self._items = {**self._items, name: self._part(part)}

    def __delitem__(self, name: str) -> None:
        items = dict(self._items)
        del items[name]
        self._items = items

    def __repr__(self) -> str:
        pairs = (f"{name!r}: {part!r}" for name, part in self._items.items())
        return bracketed(f"{type(self).__name__}({{", pairs, "})")


class ModuleDict(_Dict):
    """A dict of modules whose parameters are found. A module is an attribute, too, unless its name
    is that of a method. It has no forward of its own.
    """

    _part = _module

    def __init__(self, modules: Pairs = ()) -> None:
        super().__init__(modules)


class ParameterDict(_Dict):
    """A dict of parameters. A plain tensor put into it becomes a Parameter."""

    _part = _parameter


__all__ = layers_of(globals())
