"""Gathering by index, and its transpose, adding up by index.

An embedding, gather and scatter check their indices and never wrap them: -1 is an error there, not
the last row. x[key] counts from the end, as Python does.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from minigrad.dtypes import Array, as_elements
from minigrad.errors import DTypeError, IndexRangeError, ShapeError
from minigrad.ops.elementwise import where
from minigrad.ops.movement import writable
from minigrad.primitive import primitive


def check_range(index: Array, size: int, call: str, what: str) -> None:
    """Raise IndexRangeError unless 0 <= index < size everywhere, DTypeError unless index holds
    integers.
    """
    if index.dtype.kind not in "iu":
        raise DTypeError(call, f"{what} must be integers, got {index.dtype}", got=index.dtype)
    if index.size and not (index.min() >= 0 and index.max() < size):
        bad = int(index[(index < 0) | (index >= size)].flat[0])
        problem = f"{what} {bad} is outside 0..{size - 1}"
        raise IndexRangeError(call, problem, got=bad, wanted=(0, size - 1))


@primitive(kind="gather")
def embedding(weight: Array, index: Array) -> Array:
    """Return rows of a table: (V, C), (...) -> (..., C). Raises IndexRangeError for an index
    outside 0..V-1.
    """
    check_range(index, len(weight), "embedding", "index")
    return weight[index]


@embedding.vjp
def _(g, _y, _weight, index):
    return embedding_grad(g, index, size=_weight.shape[0]), None


@primitive(kind="gather")
def embedding_grad(g: Array, index: Array, *, size: int) -> Array:
    """Return rows of g added up by their index: (..., C), (...) -> (size, C); the transpose of
    `embedding`. In sorted segments: np.add.at is 100 times slower for long rows.
    """
    flat, rows = index.reshape(-1), g.reshape(index.size, *g.shape[index.ndim :])
    y = np.zeros((size, *rows.shape[1:]), g.dtype)
    if flat.size:
        order = np.argsort(flat, kind="stable")
        ordered = flat[order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        y[ordered[starts]] = np.add.reduceat(rows[order], starts, axis=0)
    return y


@embedding_grad.vjp
def _(h, _y, _g, index, *, size):
    return embedding(h, index), None


@primitive(kind="gather")
def one_hot(index: Array, *, num_classes: int) -> Array:
    """Return 1 at the place that each index names on a new last axis of size num_classes, else 0,
    int64.

    Raises IndexRangeError for an index outside 0 .. num_classes - 1.
    """
    check_range(index, num_classes, "one_hot", "index")
    return (index[..., None] == np.arange(num_classes)).astype(np.int64)


# --- along one axis: an index for every element


def mesh(index: Any, shape: tuple[int, ...], axis: int, call: str) -> tuple[Any, ...]:
    """Return the key with x[key][i, j, ...] = x[i, .., index[i, j, ...], ..] for an x of `shape`:
    `index` on its axis, counting on the others. Raises ShapeError for an index that does not fit.
    """
    others = (n <= m for a, (n, m) in enumerate(zip(index.shape, shape, strict=False)) if a != axis)
    if index.ndim != len(shape) or not all(others):
        problem = f"index {index.shape} does not fit {shape} next to axis {axis}"
        hint = "as many axes, and on all but this one no larger sizes"
        raise ShapeError(call, problem, got=index.shape, hint=hint)
    grids: list[Any] = list(np.ogrid[tuple(map(slice, index.shape))])
    grids[axis] = index
    return tuple(grids)


@primitive(kind="gather")
def take_along(x: Array, index: Array, *, axis: int) -> Array:
    """Return y[i, j, ...] = x[i, .., index[i, j, ...], ..], the index standing on `axis`. Raises
    IndexRangeError, ShapeError.
    """
    key = mesh(index, x.shape, axis, "gather")
    check_range(index, x.shape[axis], "gather", "index")
    return x[key]


@take_along.vjp
def _(g, _y, _x, index, *, axis):
    return add_along(g, index, axis=axis, shape=_x.shape), None


@primitive(kind="reduce")
def add_along(g: Array, index: Array, *, axis: int, shape: tuple[int, ...]) -> Array:
    """Return zeros of `shape` with each g added where its index points: the transpose of
    `take_along`.
    """
    key = mesh(index, shape, axis, "scatter")
    check_range(index, shape[axis], "scatter", "index")
    return _added(g, np.ravel_multi_index(np.broadcast_arrays(*key), shape), shape)


@add_along.vjp
def _(h, _y, _g, index, *, axis, shape):
    return take_along(h, index, axis=axis), None


def _added(g: Array, places: Array, shape: tuple[int, ...]) -> Array:
    """Return zeros of `shape` with g added up at flat `places`, in float64: bincount is 10 times
    faster than np.add.at.
    """
    places, g, size = places.reshape(-1), g.reshape(-1), prod(shape)
    if g.dtype.kind in "iub":  # exactly: float64 holds integers up to 2 ** 53
        y = np.zeros(size, g.dtype)
        np.add.at(y, places, g)
    else:
        y = np.bincount(places, g, size).astype(g.dtype, copy=False)
    return y.reshape(shape)


# --- by arrays of indices and masks, as in x[rows, columns]. `spec` is the key, with ARRAY in place
# of each of `keys`.

ARRAY = "array"


def filled(spec: tuple[Any, ...], keys: tuple[Array, ...]) -> tuple[Any, ...]:
    """Return the key for numpy."""
    arrays = iter(keys)
    return tuple(next(arrays) if isinstance(part, str) else part for part in spec)


@primitive(kind="gather")
def take(x: Array, *keys: Array, spec: tuple[Any, ...]) -> Array:
    """Return x[key] by numpy's rules for integer and bool arrays in a key; negative indices count
    from the end.
    """
    return np.array(x[filled(spec, keys)])


take.shape_depends_on_values = lambda i, dtype: i > 0 and dtype == np.bool_


@take.vjp
def _(g, _y, _x, *keys, spec):
    return (add_at(g, *keys, spec=spec, shape=_x.shape), *(None for _ in keys))


@primitive(kind="reduce")
def add_at(g: Array, *keys: Array, spec: tuple[Any, ...], shape: tuple[int, ...]) -> Array:
    """Return zeros of `shape` with each g added at the place that the key names: the transpose of
    `take`.
    """
    masks = [key.dtype == np.bool_ for key in keys]
    if all(masks):  # no place is named twice
        return put.forward(np.zeros(shape, g.dtype), g, *keys, spec=spec)
    if spec == (ARRAY,) * len(spec) and not any(masks):  # whole rows are added as rows
        leading = shape[: len(spec)]
        rows = np.broadcast_arrays(*(key % n for key, n in zip(keys, leading, strict=True)))
        places = np.ravel_multi_index(rows, leading)
        return embedding_grad.forward(g, places, size=prod(leading)).reshape(shape)
    return _added(g, np.arange(prod(shape)).reshape(shape)[filled(spec, keys)], shape)


@add_at.vjp
def _(h, _y, _g, *keys, spec, shape):
    return (take(h, *keys, spec=spec), *(None for _ in keys))


@primitive(kind="gather")
def put(x: Array, value: Array, *keys: Array, spec: tuple[Any, ...], wrap: bool = True) -> Array:
    """Return a copy of x with x[key] = value; of several writers to one place the last wins.

    wrap: True if negative indices count from the end, else IndexRangeError is raised for them.
    """
    for key, n in () if wrap else zip(keys, x.shape, strict=True):
        check_range(key, n, "scatter", "index")
    y = np.array(x)
    y[filled(spec, keys)] = as_elements(value, x.dtype)
    return y


@put.vjp
def _(g, _y, _x, _value, *keys, spec, wrap=True, needs):
    gvalue = take(g, *keys, spec=spec) if needs[1] else None
    if needs[1] and keys:
        gvalue = where(last_at(*keys, spec=spec, shape=_x.shape), gvalue, 0)
    return (put(g, 0, *keys, spec=spec), gvalue, *(None for _ in keys))


@primitive(kind="effect")
def put_(x: Array, value: Array, *keys: Array, spec: tuple[Any, ...]) -> None:
    """Write x[key] = value in the memory of x."""
    writable("setitem", x)[filled(spec, keys)] = as_elements(value, x.dtype)


@primitive(kind="gather")
def last_at(*keys: Array, spec: tuple[Any, ...], shape: tuple[int, ...]) -> Array:
    """Return True where an element of x[key] is the last that names its place."""
    places = np.arange(prod(shape)).reshape(shape)[filled(spec, keys)]
    writers = np.arange(places.size).reshape(places.shape)
    last = np.zeros(prod(shape), np.int64)
    last[places] = writers
    return last[places] == writers


last_at.shape_depends_on_values = lambda _i, dtype: dtype == np.bool_


@primitive(kind="reduce")
def nonzero(x: Array) -> Array:
    """Return the indices of the nonzero elements in row-major order: (count, ndim), int64."""
    return np.argwhere(x)


nonzero.shape_depends_on_values = lambda _i, _dtype: True
