"""Order: sort, argsort, topk. Values are gathered by the order found, and gradients go back the way
the values came.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import ConfigError
from minigrad.ops.index import take_along
from minigrad.ops.movement import getitem
from minigrad.ops.reduce import one_axis
from minigrad.primitive import primitive


@primitive(kind="reduce")
def argsort(x: Array, *, axis: int = -1, descending: bool = False) -> Array:
    """The indices that sort x along `axis`, equal elements in the order in which they stand; a NaN
    counts as the largest. int64.
    """
    if not descending:
        return np.argsort(x, axis=axis, kind="stable")
    # Sorted from the back and read from the back, equal elements come out in their own order.
    order = np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
    return x.shape[axis] - 1 - order


def sort(x: Any, *, axis: int = -1, descending: bool = False) -> tuple[Any, Any]:
    """x in order along `axis`, and the indices that its elements came from. The sort is stable."""
    order = argsort(x, axis=axis, descending=descending)
    return take_along(x, order, axis=axis), order


def topk(x: Any, k: int, *, axis: int = -1, largest: bool = True) -> tuple[Any, Any]:
    """The k largest (or smallest) along `axis`, in order, and their indices; of equals the first
    ones. Raises ConfigError if k is too large.
    """
    a = one_axis(axis, x.ndim, "topk")
    if not 0 <= k <= x.shape[a]:
        raise ConfigError(
            "topk", f"k={k} of {x.shape[a]} elements on axis {axis}", got=k, wanted=(0, x.shape[a])
        )
    order = getitem(
        argsort(x, axis=a, descending=largest), index=(*(slice(None),) * a, slice(0, k))
    )
    return take_along(x, order, axis=a), order
