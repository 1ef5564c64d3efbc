"""Structures of tensors: arguments and results as tuples, lists and dicts, taken apart and put together again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minigrad.tensor import Tensor


class _Slot:
    """Stands in a structure of arguments or results for tensor number `index`."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


def flatten(x: Any, tensors: list[Tensor]) -> tuple[Any, Any]:
    """(x with its tensors replaced by slots, a hashable key of x by shapes, dtypes and values). Tensors and arrays are appended to `tensors`."""
    kind = type(x)
    if kind is tuple or kind is list:
        parts = [flatten(item, tensors) for item in x]
        return kind([p for p, _ in parts]), (kind, *[k for _, k in parts])
    if kind is dict:
        named = {k: flatten(item, tensors) for k, item in x.items()}
        return {k: p for k, (p, _) in named.items()}, (dict, *[(k, key) for k, (_, key) in named.items()])
    if isinstance(x, np.ndarray):
        x = Tensor._wrap(x)
    if isinstance(x, Tensor):
        for i, known in enumerate(tensors):
            if known is x:
                return _Slot(i), ("again", i)
        tensors.append(x)
        return _Slot(len(tensors) - 1), (x.data.shape, x.data.dtype, x.requires_grad)
    if isinstance(x, float):
        return x, (float, repr(x))  # NaN is equal to itself here, and -0.0 is not 0.0
    if isinstance(x, (int, str, bytes, bool, type(None))):
        return x, (type(x), x)
    return x, ("object", id(x))


def rebuild(x: Any, tensors: list[Any]) -> Any:
    """The structure with its slots filled."""
    if isinstance(x, _Slot):
        return tensors[x.index]
    if type(x) in (tuple, list):
        return type(x)(rebuild(item, tensors) for item in x)
    return {k: rebuild(item, tensors) for k, item in x.items()} if type(x) is dict else x


def leaves(x: Any) -> Iterator[Any]:
    """What lies in nested tuples, lists and dicts."""
    if isinstance(x, (tuple, list)):
        for item in x:
            yield from leaves(item)
    elif isinstance(x, dict):
        for item in x.values():
            yield from leaves(item)
    else:
        yield x
