"""Structures of tensors: arguments and results as tuples, lists and dicts, taken apart and put
together again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np

from minigrad.tensor import Tensor


class _Slot:
    """Stands in a structure of arguments or results for tensor number `index`."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __repr__(self) -> str:
        return "tensor"


def flatten(x: Any, tensors: list[Tensor]) -> tuple[Any, Any]:
    """(x with its tensors replaced by slots, a hashable key of x by shapes, dtypes and values).
    Tensors and arrays are appended to `tensors`.
    """
    kind = type(x)
    if kind is tuple or kind is list:
        parts, keys = [], [kind]
        for item in x:
            part, key = flatten(item, tensors)
            parts.append(part)
            keys.append(key)
        return (parts if kind is list else tuple(parts)), tuple(keys)
    if kind in _DICTS:
        if not x:
            return kind(), (kind,)
        named = {k: flatten(item, tensors) for k, item in x.items()}
        return kind((k, p) for k, (p, _) in named.items()), (
            kind,
            *[(k, key) for k, (_, key) in named.items()],
        )
    if kind is not Tensor and isinstance(x, np.ndarray):
        # An array object of its own: the function may know the same array by another way
        x = Tensor._wrap(x.view())
    if isinstance(x, Tensor):
        for i, known in enumerate(tensors):
            if known is x:
                return _Slot(i), ("again", i)
        tensors.append(x)
        data = x.data
        return _Slot(len(tensors) - 1), (data.shape, data.dtype, x._wants)
    if is_named(x):
        pairs = [flatten(item, tensors) for item in x]
        return kind(*[p for p, _ in pairs]), (kind, *[k for _, k in pairs])
    if isinstance(x, np.generic):
        return x, (kind, x.dtype, x.tobytes())
    if isinstance(x, float):
        return x, (float, repr(x))  # NaN is equal to itself here, and -0.0 is not 0.0
    if isinstance(x, (int, str, bytes, bool, type(None))):
        return x, (type(x), x)
    return x, ("object", id(x))


_DICTS = (dict, OrderedDict)


def is_slot(x: Any) -> bool:
    """True if a structure is one tensor."""
    return type(x) is _Slot


def is_named(x: Any) -> bool:
    """True for a named tuple."""
    return isinstance(x, tuple) and hasattr(x, "_fields")


def _sequence(kind: Any, parts: list[Any]) -> Any:
    return kind(*parts) if hasattr(kind, "_fields") else kind(parts)


def rebuild(x: Any, tensors: list[Any]) -> Any:
    """The structure with its slots filled."""
    if isinstance(x, _Slot):
        return tensors[x.index]
    if type(x) in (tuple, list) or is_named(x):
        return _sequence(type(x), [rebuild(item, tensors) for item in x])
    return type(x)((k, rebuild(item, tensors)) for k, item in x.items()) if type(x) in _DICTS else x


def alike(x: Any, y: Any) -> bool:
    """True if two structures hold the same slots and objects at the same places."""
    if type(x) is not type(y):
        return False
    if isinstance(x, _Slot):
        return bool(x.index == y.index)
    if type(x) in (tuple, list) or is_named(x):
        return len(x) == len(y) and all(map(alike, x, y))
    if type(x) in _DICTS:
        return list(x) == list(y) and all(map(alike, x.values(), y.values()))
    return x is y


def numpy_numbers(x: Any) -> Iterator[np.generic]:
    """The numpy scalars in a structure."""
    if isinstance(x, np.generic):
        yield x
    elif type(x) in (tuple, list) or is_named(x):
        for item in x:
            yield from numpy_numbers(item)
    elif type(x) in _DICTS:
        for item in x.values():
            yield from numpy_numbers(item)
