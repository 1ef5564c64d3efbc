"""Movement: the same numbers in another shape or place. Each rule is another movement."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from minigrad.dtypes import Array, as_elements, cast as cast_array
from minigrad.errors import ReadOnlyError, ShapeError
from minigrad.primitive import primitive

Shape = tuple[int, ...]


def matrix_shape(shape: Shape) -> Shape:
    """(..., C) -> (N, C): all axes but the last in one. Unlike reshape's -1 this is defined for C =
    0.
    """
    return math.prod(shape[:-1]), shape[-1]


def several(value: Any) -> tuple[Any, ...]:
    """Return a list or tuple as a tuple, anything else as a tuple of one."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def with_sizes(shape: Shape, axis: int, *sizes: int) -> Shape:
    """Return `shape` with these sizes in place of the one on `axis`."""
    return (*shape[:axis], *sizes, *shape[axis + 1 :])


def part(x: Any, axis: int, start: int, stop: int | None = None) -> Any:
    """Return x[start:stop] along `axis`, which is >= 0."""
    return getitem(x, index=(*(slice(None),) * axis, slice(start, stop)))


@primitive(kind="view")
def alias(x: Array) -> Array:
    """x itself, as a tensor of its own."""
    return x


@alias.vjp
def _(g, _y, _x):
    return (g,)


@primitive(kind="elementwise")
def cast(x: Array, *, dtype: Any) -> Array:
    """x with another dtype; float to integer cuts the fraction off. The gradient is cast back."""
    return cast_array(x, dtype)


@cast.vjp
def _(g, _y, _x, *, dtype):
    return (g,)  # the walk gives every cotangent its operand's dtype


@primitive(kind="view")
def reshape(x: Array, *, shape: Shape) -> Array:
    """The same elements in row-major order under another shape; one size may be -1."""
    return x.reshape(shape)


@reshape.vjp
def _(g, _y, _x, *, shape):
    return (reshape(g, shape=_x.shape),)


@primitive(kind="view")
def permute(x: Array, *, order: Shape) -> Array:
    """Axes in another order: y.shape[i] = x.shape[order[i]]."""
    return x.transpose(order)


@permute.vjp
def _(g, _y, _x, *, order):
    back = [0] * len(order)
    for i, axis in enumerate(order):
        back[axis] = i
    return (permute(g, order=tuple(back)),)


@primitive(kind="view")
def expand(x: Array, *, shape: Shape) -> Array:
    """x broadcast to `shape`, without a copy."""
    return np.broadcast_to(x, shape)


@expand.vjp
def _(g, _y, _x, *, shape):
    return (g,)  # the walk sums over what was broadcast


@primitive(kind="view")
def flip(x: Array, *, axis: Shape) -> Array:
    """x in reverse order along each of the axes."""
    return np.flip(x, axis)


@flip.vjp
def _(g, _y, _x, *, axis):
    return (flip(g, axis=axis),)


@primitive(kind="gather")
def pad(x: Array, *, widths: tuple[tuple[int, int], ...], value: float = 0.0) -> Array:
    """x with `widths[i] = (before, after)` elements of `value` put around axis i. Negative widths
    cut.
    """
    shape = tuple(n + a + b for n, (a, b) in zip(x.shape, widths, strict=True))
    if min(shape, default=0) < 0:
        raise ShapeError(
            "pad", f"widths {widths} cut more than there is from {x.shape}", got=widths
        )
    inside = tuple(slice(max(a, 0), n - max(b, 0)) for n, (a, b) in zip(shape, widths, strict=True))
    kept = tuple(
        slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape, widths, strict=True)
    )
    y = np.full(shape, as_elements(value, x.dtype), x.dtype)
    y[inside] = x[kept]
    return y


@pad.vjp
def _(g, _y, _x, *, widths, value=0.0):
    return (pad(g, widths=tuple((-a, -b) for a, b in widths)),)


@primitive(kind="gather", dtype="same")
def cat(*xs: Array, axis: int) -> Array:
    """The operands one after the other along `axis`; all other sizes must agree."""
    return np.concatenate(xs, axis)


@cat.vjp
def _(g, _y, *_xs, axis):
    ends = list(accumulate((x.shape[axis] for x in _xs), initial=0))
    return tuple(part(g, axis % g.ndim, *pair) for pair in pairwise(ends))


@primitive(kind="view")
def getitem(x: Array, *, index: tuple[Any, ...]) -> Array:
    """x[index] for integers, slices, None and Ellipsis: a view."""
    return x[index]


@getitem.vjp
def _(g, _y, _x, *, index):
    return (ungetitem(g, index=index, shape=_x.shape),)


@primitive(kind="gather")
def ungetitem(g: Array, *, index: tuple[Any, ...], shape: Shape) -> Array:
    """Zeros of `shape` with y[index] = g: the transpose of `getitem`."""
    y = np.zeros(shape, g.dtype)
    y[index] = g
    return y


@ungetitem.vjp
def _(h, _y, _g, *, index, shape):
    return (getitem(h, index=index),)


@primitive(kind="elementwise")
def copy(x: Array) -> Array:
    """The same elements in new memory, in row-major order."""
    return np.array(x, order="C")


@copy.vjp
def _(g, _y, _x):
    return (g,)


@primitive(kind="effect")
def assign(x: Array, value: Array) -> None:
    """Write `value`, broadcast and cast, into the memory of x."""
    if not x.flags.writeable:
        raise ReadOnlyError(
            "assign", "the tensor's memory is read-only", hint="assign to a copy: x.clone()"
        )
    x[...] = as_elements(value, x.dtype)
