"""Gathering by index, and its transpose, adding up by index.

An embedding, gather and scatter check their indices and never wrap them: -1 is an error there, not
the last row. x[key] counts from the end, as Python does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.dtypes import Array, as_elements
from minigrad.errors import DTypeError, IndexRangeError, ReadOnlyError, ShapeError
from minigrad.ops.elementwise import where
from minigrad.primitive import primitive


def check_range(index: Array, size: int, call: str, what: str) -> None:
    """Raise IndexRangeError unless 0 <= index < size everywhere, DTypeError unless index holds
    integers.
    """
    if index.dtype.kind not in "iu":
        raise DTypeError(
            call, f"{what} must be integers, not {index.dtype}", got=index.dtype, wanted="int64"
        )
    if index.size and not (index.min() >= 0 and index.max() < size):
        bad = int(index[(index < 0) | (index >= size)].flat[0])
        raise IndexRangeError(
            call, f"{what} {bad} is outside 0..{size - 1}", got=bad, wanted=(0, size - 1)
        )


@primitive(kind="gather")
def embedding(weight: Array, index: Array) -> Array:
    """Rows of a table: (V, C), (...) -> (..., C). Raises IndexRangeError for an index outside
    0..V-1.
    """
    check_range(index, len(weight), "embedding", "index")
    return weight[index]


@embedding.vjp
def _(g, _y, _weight, index):
    return embedding_grad(g, index, size=_weight.shape[0]), None


@primitive(kind="gather")
def embedding_grad(g: Array, index: Array, *, size: int) -> Array:
    """Rows of g added up by their index: (..., C), (...) -> (size, C); the transpose of
    `embedding`.

    Sorted segments, each summed by one call: np.add.at is 100 times slower for long rows.
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


# --- along one axis: an index for every element


def _mesh(index: Array, axis: int) -> tuple[Any, ...]:
    """The key under which x[key][i, j, ...] is x[i, .., index[i, j, ...], ..]: `index` on its axis,
    counting on the others.
    """
    return tuple(
        index if i == axis % index.ndim else grid
        for i, grid in enumerate(np.ogrid[tuple(map(slice, index.shape))])
    )


def _checked_along(index: Array, shape: tuple[int, ...], axis: int, call: str) -> None:
    if index.ndim != len(shape) or any(
        n > m
        for i, (n, m) in enumerate(zip(index.shape, shape, strict=True))
        if i != axis % len(shape)
    ):
        raise ShapeError(
            call,
            f"index {index.shape} does not fit {shape} beside axis {axis}",
            got=index.shape,
            wanted=shape,
            hint="as many axes, and on all but this one no larger sizes",
        )
    check_range(index, shape[axis], call, "index")


@primitive(kind="gather")
def take_along(x: Array, index: Array, *, axis: int) -> Array:
    """y[i, j, ...] = x[i, .., index[i, j, ...], ..], the index standing on `axis`. Raises
    IndexRangeError, ShapeError.
    """
    _checked_along(index, x.shape, axis, "gather")
    return x[_mesh(index, axis)]


@take_along.vjp
def _(g, _y, _x, index, *, axis):
    return add_along(g, index, axis=axis, shape=_x.shape), None


@primitive(kind="reduce")
def add_along(g: Array, index: Array, *, axis: int, shape: tuple[int, ...]) -> Array:
    """Zeros of `shape`, with each g added where its index points: the transpose of `take_along`."""
    _checked_along(index, shape, axis, "scatter")
    return _added(g, np.ravel_multi_index(np.broadcast_arrays(*_mesh(index, axis)), shape), shape)


@add_along.vjp
def _(h, _y, _g, index, *, axis, shape):
    return take_along(h, index, axis=axis), None


def _added(g: Array, places: Array, shape: tuple[int, ...]) -> Array:
    """Zeros of `shape` with g added up at flat `places`, in float64: bincount is 10 times faster
    than np.add.at.
    """
    if g.dtype.kind in "iub":  # exactly: float64 holds integers up to 2 ** 53
        total = np.zeros(int(np.prod(shape)), g.dtype)
        np.add.at(total, places.reshape(-1), g.reshape(-1))
        return total.reshape(shape)
    y = np.bincount(places.reshape(-1), weights=g.reshape(-1), minlength=int(np.prod(shape)))
    return y.astype(g.dtype, copy=False).reshape(shape)


@primitive(kind="gather")
def put_along(x: Array, src: Array, index: Array, *, axis: int) -> Array:
    """A copy of x with src written where the index points; of several writers to one place the last
    wins.
    """
    _checked_along(index, x.shape, axis, "scatter")
    y = np.array(x)
    y[_mesh(index, axis)] = as_elements(src, x.dtype)
    return y


@put_along.vjp
def _(g, _y, _x, _src, index, *, axis):
    wins = last_along(index, axis=axis, shape=_x.shape)
    return put_along(g, 0, index, axis=axis), where(wins, take_along(g, index, axis=axis), 0), None


@primitive(kind="gather")
def last_along(index: Array, *, axis: int, shape: tuple[int, ...]) -> Array:
    """True where an element of the index is the last that points to its place."""
    writers = np.arange(index.size).reshape(index.shape)
    return (
        take_along.forward(
            put_along.forward(np.zeros(shape, np.int64), writers, index, axis=axis),
            index,
            axis=axis,
        )
        == writers
    )


# --- by arrays of indices and masks, as in x[rows, columns]. `spec` is the key, with ARRAY where
# the next of `keys` belongs.

ARRAY = "array"


def filled(spec: tuple[Any, ...], keys: tuple[Array, ...]) -> tuple[Any, ...]:
    """The key as numpy wants it."""
    arrays = iter(keys)
    return tuple(next(arrays) if isinstance(part, str) else part for part in spec)


@primitive(kind="gather")
def take(x: Array, *keys: Array, spec: tuple[Any, ...]) -> Array:
    """x[key] by numpy's rules for integer and bool arrays in a key; negative indices count from the
    end.
    """
    return np.array(x[filled(spec, keys)])


take.shape_depends_on_values = lambda i, dtype: i > 0 and dtype == np.bool_


@take.vjp
def _(g, _y, _x, *keys, spec):
    return (add_at(g, *keys, spec=spec, shape=_x.shape), *(None for _ in keys))


@primitive(kind="reduce")
def add_at(g: Array, *keys: Array, spec: tuple[Any, ...], shape: tuple[int, ...]) -> Array:
    """Zeros of `shape`, with each g added at the place that the key names: the transpose of `take`."""
    if all(key.dtype == np.bool_ for key in keys):  # No place is named twice.
        y = np.zeros(shape, g.dtype)
        y[filled(spec, keys)] = g
        return y
    if spec == (ARRAY,) * len(spec) and all(
        key.dtype != np.bool_ for key in keys
    ):  # Whole rows: add them as rows.
        leading = shape[: len(spec)]
        rows = np.ravel_multi_index(
            np.broadcast_arrays(*(key % n for key, n in zip(keys, leading, strict=True))), leading
        )
        return embedding_grad.forward(g, rows, size=int(np.prod(leading))).reshape(shape)
    places = np.arange(int(np.prod(shape))).reshape(shape)[filled(spec, keys)]
    return _added(g, places, shape)


@add_at.vjp
def _(h, _y, _g, *keys, spec, shape):
    return (take(h, *keys, spec=spec), *(None for _ in keys))


@primitive(kind="gather")
def put(x: Array, value: Array, *keys: Array, spec: tuple[Any, ...]) -> Array:
    """A copy of x with x[key] = value; of several writers to one place the last wins."""
    y = np.array(x)
    y[filled(spec, keys)] = as_elements(value, x.dtype)
    return y


@put.vjp
def _(g, _y, _x, _value, *keys, spec, needs):
    if not needs[1]:
        return (put(g, 0, *keys, spec=spec), *(None for _ in (_value, *keys)))
    gvalue = take(g, *keys, spec=spec)
    if keys:
        gvalue = where(last_at(*keys, spec=spec, shape=_x.shape), gvalue, 0)
    return (put(g, 0, *keys, spec=spec), gvalue, *(None for _ in keys))


@primitive(kind="effect")
def put_(x: Array, value: Array, *keys: Array, spec: tuple[Any, ...]) -> None:
    """x[key] = value, in the memory of x."""
    if not x.flags.writeable:
        raise ReadOnlyError(
            "setitem", "the tensor's memory is read-only", hint="write into a copy: x.clone()"
        )
    x[filled(spec, keys)] = as_elements(value, x.dtype)


@primitive(kind="gather")
def last_at(*keys: Array, spec: tuple[Any, ...], shape: tuple[int, ...]) -> Array:
    """True where an element of x[key] is the last that names its place."""
    places = np.arange(int(np.prod(shape))).reshape(shape)[filled(spec, keys)]
    writers = np.arange(places.size).reshape(places.shape)
    last = np.zeros(int(np.prod(shape)), np.int64)
    last[places] = writers
    return last[places] == writers


last_at.shape_depends_on_values = lambda _i, dtype: dtype == np.bool_


@primitive(kind="reduce")
def nonzero(x: Array) -> Array:
    """The indices of the elements that are not 0, in row-major order: (count, ndim), int64."""
    return np.argwhere(x)


nonzero.shape_depends_on_values = lambda _i, _dtype: True
