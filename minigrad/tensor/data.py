"""What people pass for a tensor (numbers, nested lists, arrays of any library) as a numpy array."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.dtypes import Array, DType, as_dtype, cast, float32, is_float, promote
from minigrad.errors import DTypeError, GradientError
from minigrad.modes import MODE
from minigrad.tensor.base import TensorBase

SCALARS = frozenset({float, int, bool, type(None)})


def as_array(data: Any, dtype: Any) -> Array:
    """Return a new array of `data`. Python floats become float32, Python integers int64; arrays,
    numpy scalars and tensors, also inside lists, keep their dtype.

    Raises DTypeError for anything but numbers, for ragged lists, and for an integer beyond int64.
    """
    wanted = None if dtype is None else as_dtype(dtype)
    if isinstance(data, TensorBase):
        array, found = np.array(data.data), data.dtype
    elif isinstance(data, (np.ndarray, np.generic)):
        array, found = np.array(data), as_dtype(data.dtype)
    else:
        array, found = _from_lists(data, wanted)
    return cast(array, wanted or found)


def _from_lists(data: Any, wanted: DType | None) -> tuple[Array, DType]:
    """The array that numpy makes of nested lists, and the dtype that it should have."""
    python, typed = set[type](), set[DType]()
    try:
        array = np.array(_plain(data, python, typed))
    except GradientError:
        raise
    except (ValueError, TypeError, RuntimeError):  # ragged lists, a tensor on another device
        array = np.array(None)
    # numpy turns integers beyond int64 into uint64, floats or objects
    beyond = wanted is None and not typed and float not in python and array.dtype.kind in "uf"
    if array.dtype.kind not in "biuf" or (beyond and array.size):
        place, what = _odd_one(data, "input")
        problem = f"{place} is {what}" if what else "an integer that int64 does not hold"
        numbers = "numbers in lists of equal length, integers from -2**63 to 2**63 - 1"
        hint = "pad ragged lists; tokenizers make integers of text; uint64 goes up to 2**64 - 1"
        raise DTypeError("Tensor", problem, what or data, numbers, hint)
    floats = [as_dtype(d) for d in typed if is_float(d)]
    if floats:  # a Python number never changes the dtype
        return array, promote(*floats)
    return array, float32 if float in python or not array.size else array.dtype


def _plain(data: Any, python: set[type], typed: set[DType]) -> Any:
    """Nested lists with arrays in place of tensors. The types of Python numbers are added to
    `python`, the dtypes of all others to `typed`.
    """
    if isinstance(data, (list, tuple)):
        kinds = set(map(type, data))
        if not kinds <= SCALARS:
            return [_plain(x, python, typed) for x in data]
        python |= kinds
    elif isinstance(data, TensorBase):
        if data.requires_grad and MODE.get().grad:
            problem = "a list of tensors that require gradients, which a copy would lose"
            hint = "minigrad.stack keeps them; t.detach() if none are wanted"
            raise GradientError("Tensor", problem, data.shape, hint=hint)
        typed.add(data.dtype)
        return np.asarray(data)
    elif hasattr(data, "__array__"):
        data = data if isinstance(data, np.generic) else np.asarray(data)
        typed.add(data.dtype)
    else:
        python.update(t for t in (float, int) if isinstance(data, t))
    return data


def _odd_one(data: Any, path: str) -> tuple[str, str]:
    """The first place in nested lists that is not a number or breaks the shape, and what it is."""
    if not isinstance(data, (list, tuple)):
        kind = getattr(getattr(data, "dtype", None), "kind", "-")
        good = isinstance(data, (int, float, TensorBase)) or kind in "biuf"
        return ("", "") if good else (path, f"{data!r}, not a number")
    sizes = [len(x) if isinstance(x, (list, tuple)) else np.shape(x) for x in data]
    for i, x in enumerate(data):
        place, what = _odd_one(x, f"{path}[{i}]")
        if not what and sizes[i] != sizes[0]:
            place, what = f"{path}[{i}]", f"of size {sizes[i]}, {path}[0] of {sizes[0]}: ragged"
        if what:
            return place, what
    return "", ""
