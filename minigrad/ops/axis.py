"""Axes and sizes as users give them, and as ops work with them."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from minigrad.errors import DTypeError, IndexRangeError, ShapeError

Axis = int | tuple[int, ...] | None
Shape = tuple[int, ...]


def axes(axis: Axis, ndim: int, call: str) -> Shape:
    """Return `axis` (None: all) as a sorted tuple of integers >= 0.

    Raises IndexRangeError for an axis out of range, ShapeError for one named twice, DTypeError for
    anything but an integer; a bool is not one.
    """
    if axis is None:
        return tuple(range(ndim))
    found = sorted(_counted(a, ndim, call) for a in several(axis))
    if len(set(found)) < len(found):
        raise ShapeError(call, f"axis {axis} names an axis twice", got=axis)
    return tuple(found) if ndim else ()


def one_axis(axis: Any, ndim: int, call: str) -> int:
    """Return `axis` as an integer >= 0. Raises as `axes` does, and ShapeError if there are no
    axes.
    """
    if not ndim:
        raise ShapeError(call, "a tensor without axes", got=(), hint=".reshape(1) first")
    return _counted(axis, ndim, call)


def _counted(axis: Any, ndim: int, call: str) -> int:
    """Return an axis counted from the front. A tensor without axes has 0 and -1, as in numpy."""
    try:
        number = operator.index("" if isinstance(axis, (bool, np.bool_)) else axis)  # type: ignore[arg-type]
    except TypeError:
        hint = "axis=-1 is the last axis, axis=(0, 1) the first two"
        shown = repr(axis)
        if getattr(axis, "ndim", 0):
            shown = f"{type(axis).__name__} {axis.shape}"
            if call in ("max", "min"):
                hint = f"minigrad.{call}imum(a, b) compares two tensors element by element"
        if call.startswith(("var", "std")):
            hint = "correction=0 divides by n, correction=1 by n - 1"
        problem = f"axis {shown} is not an integer"
        raise DTypeError(call, problem, got=axis, hint=hint) from None
    count = ndim or 1
    if not -count <= number < count:
        problem = f"axis {axis} of a tensor with {ndim} axes"
        raise IndexRangeError(call, problem, got=axis, wanted=(-ndim, ndim - 1))
    return number % count


def kept_shape(shape: Shape, axis: Axis) -> Shape:
    """Return `shape` with size 1 on the reduced axes, as keepdim=True gives it."""
    gone = axes(axis, len(shape), "reduce")
    return tuple(1 if i in gone else n for i, n in enumerate(shape))


def matrix_shape(shape: Shape) -> Shape:
    """(..., C) -> (N, C): all axes but the last in one. Unlike reshape's -1 this is defined for C =
    0.
    """
    return math.prod(shape[:-1]), shape[-1]


def several(value: Any) -> tuple[Any, ...]:
    """Return a list or tuple as a tuple, anything else as a tuple of one."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def flat(sizes: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return sizes in a row, (2, 3), or in one tuple or list, ((2, 3),), as a tuple."""
    return several(sizes[0]) if len(sizes) == 1 else sizes


def with_sizes(shape: Shape, axis: int, *sizes: int) -> Shape:
    """Return `shape` with these sizes in place of the one on `axis`."""
    return (*shape[:axis], *sizes, *shape[axis + 1 :])
