"""Containers of modules and of parameters: lists and dicts whose parts are found by name."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, Generic, TypeVar

from minigrad.errors import ConfigError
from minigrad.nn.module import Module, Parameter, bracketed
from minigrad.tensor import Tensor

__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]

P = TypeVar("P")
L = TypeVar("L", bound="_List[Any]")
Pairs = Mapping[str, Any] | Iterable[tuple[str, Any]]


def _module(self: Module, value: Any) -> Any:
    """`value` as a part of a container of modules."""
    if not isinstance(value, Module):
        call = type(self).__name__
        raise ConfigError(call, f"item {value!r} is not a Module", got=value, wanted="Module")
    return value


def _parameter(self: Module, value: Any) -> Any:
    """`value` as a part of a container of parameters."""
    if not isinstance(value, Tensor):
        call = type(self).__name__
        raise ConfigError(call, f"item {value!r} is not a Parameter", got=value, wanted="Parameter")
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

    def append(self: L, part: Any) -> L:
        """Add one part at the end; returns self."""
        return self.extend([part])

    def extend(self: L, parts: Iterable[Any]) -> L:
        """Add parts at the end; returns self."""
        self._items = [*self._items, *map(self._part, parts)]
        return self

    def insert(self: L, index: int, part: Any) -> L:
        """Add one part before `index`; returns self."""
        items = list(self._items)
        items.insert(index, self._part(part))
        self._items = items
        return self

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
        items = list(self._items)
        items[index] = self._part(part)
        self._items = items

    def __delitem__(self, index: int | slice) -> None:
        items = list(self._items)
        del items[index]
        self._items = items

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


class _Dict(Module, Generic[P]):
    """Parts by name, in the order in which they were put in. Like _List, assigned anew."""

    def __init__(self, parts: Pairs = ()) -> None:
        self._items: dict[str, P] = {}
        self.update(parts)

    _part: Callable[[Any], P]

    def _attributes(self) -> Iterable[tuple[str, Any]]:
        return self._items.items()

    def keys(self) -> KeysView[str]:
        """The names."""
        return self._items.keys()

    def values(self) -> ValuesView[P]:
        """The parts."""
        return self._items.values()

    def items(self) -> ItemsView[str, P]:
        """Pairs of name and part."""
        return self._items.items()

    def update(self, parts: Pairs) -> None:
        """Put in all parts of a dict or of pairs."""
        for name, part in dict(parts).items():
            self[name] = part

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __getitem__(self, name: str) -> Any:
        return self._items[name]

    def __getattr__(self, name: str) -> Any:
        # Asked only for a name that is no attribute; a copy that is being made has no `_items` yet.
        try:
            return vars(self)["_items"][name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no {name!r}") from None

    def __setitem__(self, name: str, part: Any) -> None:
        if not name or "." in name:
            raise ConfigError(
                type(self).__name__,
                f"a name must be a string without a dot, got {name!r}",
                got=name,
                wanted="not empty, without a dot",
            )
        self._items = {**self._items, name: self._part(part)}

    def __delitem__(self, name: str) -> None:
        items = dict(self._items)
        del items[name]
        self._items = items

    def __repr__(self) -> str:
        pairs = (f"{name!r}: {part!r}" for name, part in self._items.items())
        return bracketed(f"{type(self).__name__}({{", pairs, "})")


class ModuleDict(_Dict[Any]):
    """A dict of modules whose parameters are found. A module is an attribute, too, unless its name
    is that of a method. It has no forward of its own.
    """

    _part = _module

    def __init__(self, modules: Pairs = ()) -> None:
        super().__init__(modules)


class ParameterDict(_Dict[Parameter]):
    """A dict of parameters. A plain tensor put into it becomes a Parameter."""

    _part = _parameter
