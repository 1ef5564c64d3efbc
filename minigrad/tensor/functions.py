"""Tensor's methods as functions: `minigrad.exp(x)` is `x.exp()` for a tensor, an array, a list or a
number.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.arguments import Names
from minigrad.errors import DTypeError
from minigrad.primitive import Primitive
from minigrad.tensor.core import Tensor
from minigrad.tensor.creation import Creation
from minigrad.tensor.indexing import Indexing
from minigrad.tensor.interop import Interop
from minigrad.tensor.surface import Surface

_OWNERS = (Surface, Indexing, Creation, Interop)
_ARRAYS = (Tensor, np.ndarray)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """Return `data` as a tensor: itself if it is one (of that dtype), else a copy."""
    if isinstance(data, Tensor) and device is None:
        return data if dtype is None else data.to(dtype)
    return Tensor(data, dtype, device=device)


def tensor(
    data: Any, *, dtype: Any = None, requires_grad: bool = False, device: Any = None
) -> Tensor:
    """Return a new tensor of `data`, as Tensor(data) does."""
    return Tensor(data, dtype, requires_grad, device)


def from_numpy(array: Any) -> Tensor:
    """Return a tensor on the memory of a numpy array: each sees what the other writes."""
    return Tensor.from_dlpack(array)


def is_tensor(x: Any) -> bool:
    """Return True if x is a Tensor."""
    return isinstance(x, Tensor)


def names() -> list[str]:
    """The names of all methods that are functions too."""
    return sorted({n for c in _OWNERS for n in vars(c) if _is_public(n)})


def _is_public(name: str) -> bool:
    return not name.startswith("_") and not name.endswith("_")


@functools.cache
def function(name: str) -> Callable[..., Any] | None:
    """The method of that name as a function; None if there is no such method."""
    owner = next((c for c in _OWNERS if name in vars(c)), None)
    if owner is None or not _is_public(name):
        return None
    method: Any = getattr(Tensor, name)
    if isinstance(vars(owner)[name], (classmethod, staticmethod)):
        return method
    names = Names(method)
    spread = not names.positional  # meshgrid(x, y), of any number of tensors
    several = spread or names.positional[0] == "tensors"
    elementwise = isinstance(method, Primitive) and method.kind == "elementwise"

    @functools.wraps(method)
    def called(*args: Any, **kwargs: Any) -> Any:
        if not args:  # minigrad.sum(input=x)
            named = [n for n in kwargs if names.spelled(n) in names.positional[:1]]
            if not named:
                raise DTypeError(name, "the tensor to work on is missing", wanted="a tensor")
            args = (kwargs.pop(named[0]),)
        x, args = args[0], args[1:]
        if several and isinstance(x, (list, tuple)):
            tensors = [as_tensor(t) for t in x]
            return method(*tensors, *args, **kwargs) if spread else method(tensors, *args, **kwargs)
        if isinstance(x, (int, float, np.generic)):
            kinds = (*_ARRAYS, list) if elementwise else _ARRAYS
            others = [Tensor(y) if type(y) in kinds and type(y) is not Tensor else y for y in args]
            if any(isinstance(y, Tensor) for y in others):
                # A number beside a tensor stays one: it neither changes the dtype nor is rounded.
                return method(x, *others, **kwargs)
        return method(x if several and not spread else as_tensor(x), *args, **kwargs)

    return called
