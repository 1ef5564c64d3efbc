"""Structures of tensors: arguments and results as tuples, lists and dicts, taken apart and put
together again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from minigrad.tensor import Tensor

_DICTS = (dict, OrderedDict)


class Slot:
    """Stands in a structure for tensor number `index`. `_slot` makes one object per number, so that
    equal slots are identical.
    """

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __repr__(self) -> str:
        return "tensor"


_slot = cache(Slot)


def flatten(x: Any, tensors: list[Tensor]) -> tuple[Any, Any]:
    """Return (x with its tensors replaced by slots, a hashable key of x by shapes, dtypes and
    values). Tensors and arrays are appended to `tensors`.
    """
    kind = type(x)
    if kind is dict and not x:  # the keywords of most calls
        return {}, dict
    parts = None if kind is Tensor else _parts(x)
    if parts is not None:
        made, keys = [], [kind, tuple(x)] if kind in _DICTS else [kind]
        for item in parts:
            part, key = flatten(item, tensors)
            made.append(part)
            keys.append(key)
        return _made(x, made), tuple(keys)
    if kind is not Tensor and isinstance(x, np.ndarray):
        # An array object of its own: the function may know the same array by another way
        x = Tensor._wrap(x.view())
    if isinstance(x, Tensor):
        # The same tensor twice is one argument
        for i, known in enumerate(tensors):
            if known is x:
                return _slot(i), ("again", i)
        tensors.append(x)
        data = x.data
        # A gradient goes on through a computed tensor, and stays at a leaf
        return _slot(len(tensors) - 1), (data.shape, data.dtype, x._wants and (x.is_leaf or "on"))
    if isinstance(x, np.generic):
        return x, (kind, x.dtype, x.tobytes())
    if isinstance(x, float):
        return x, (float, repr(x))  # NaN is equal to itself here, and -0.0 is not 0.0
    if isinstance(x, (int, str, bytes, bool, type(None))):
        return x, (kind, x)
    # Anything else is known by identity; the entry of the key keeps it alive
    return x, ("object", id(x))


def _parts(x: Any) -> Any:
    """The items of a tuple, list, named tuple or dict, in order; None for anything else."""
    kind = type(x)
    if kind is tuple or kind is list or (isinstance(x, tuple) and hasattr(kind, "_fields")):
        return x
    return x.values() if kind in _DICTS else None


def _made(like: Any, parts: list[Any]) -> Any:
    """A container like another, with other items."""
    kind = type(like)
    if kind is tuple or kind is list:
        return kind(parts)
    return kind(zip(like, parts, strict=True)) if kind in _DICTS else kind(*parts)


def rebuild(x: Any, tensors: list[Any]) -> Any:
    """Return the structure with its slots filled."""
    if type(x) is Slot:
        return tensors[x.index]
    parts = _parts(x)
    return x if parts is None else _made(x, [rebuild(item, tensors) for item in parts])


def alike(x: Any, y: Any) -> bool:
    """True if two structures hold the same slots and objects at the same places."""
    parts, others = _parts(x), _parts(y)
    if parts is None or type(x) is not type(y) or len(parts) != len(others):
        return x is y
    return (type(x) not in _DICTS or list(x) == list(y)) and all(map(alike, parts, others))


def numpy_numbers(x: Any) -> Iterator[np.generic]:
    """The numpy scalars in a structure."""
    if isinstance(x, np.generic):
        yield x
    for item in _parts(x) or ():
        yield from numpy_numbers(item)
