"""Movement: the same numbers in another shape or place. Each rule is another movement."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from minigrad.dtypes import Array, as_elements, cast as cast_array
from minigrad.errors import ReadOnlyError, ShapeError
from minigrad.ops.axis import Axis, Shape, axes, several
from minigrad.primitive import primitive

Parts = list[tuple[Array, Array]]  # see Primitive.parts


def part(x: Any, axis: int, start: int, stop: int | None = None) -> Any:
    """Return x[start:stop] along `axis`, which is >= 0."""
    return getitem(x, index=(*(slice(None),) * axis, slice(start, stop)))


@primitive(kind="view")
def alias(x: Array) -> Array:
    """Return x itself, as a tensor of its own."""
    return x


@primitive(kind="elementwise")
def cast(x: Array, *, dtype: Any) -> Array:
    """Return x in another dtype; float to integer truncates. The gradient is cast back."""
    return cast_array(x, dtype)


@primitive(kind="view", numpy=np.reshape)
def reshape(x: Array, *, shape: Shape = ()) -> Array:
    """Return the same elements in row-major order under another shape; one size may be -1."""
    y = x.reshape(shape)
    if y.shape != shape and min(several(shape)) < -1:  # numpy takes any negative size for -1
        raise ShapeError("reshape", f"the size {min(shape)} in {shape}", got=shape)
    return y


reshape.parts = lambda y, x, *, shape: [(y.reshape(x.shape), x)]


@reshape.vjp
def _(g, _y, _x, *, shape=()):
    return (reshape(g, shape=_x.shape),)


@primitive(kind="view")
def permute(x: Array, *, order: Shape = ()) -> Array:
    """Return x with its axes in another order: y.shape[i] = x.shape[order[i]]."""
    return x.transpose(order)


@permute.vjp
def _(g, _y, _x, *, order=()):
    back = [0] * len(order)
    for i, axis in enumerate(order):
        back[axis] = i
    return (permute(g, order=tuple(back)),)


@primitive(kind="view", numpy=np.broadcast_to)
def expand(x: Array, *, shape: Shape = ()) -> Array:
    """Return x broadcast to `shape`, without a copy; -1 keeps a size."""
    if -1 in (shape := several(shape)):
        old = (-1,) * (len(shape) - x.ndim) + x.shape
        shape = tuple(n if size == -1 else size for size, n in zip(shape, old, strict=False))
    return np.broadcast_to(x, shape)


@primitive(kind="view", numpy=np.flip)
def flip(x: Array, *, axis: Axis = None) -> Array:
    """Return x in reverse order along each axis given, or along all: flip(0), flip(0, 1)."""
    return np.flip(x, axes(axis, x.ndim, "flip"))


@flip.vjp
def _(g, _y, _x, *, axis=None):
    return (flip(g, axis=axis),)


for _op in (reshape, permute, expand, flip):
    _op.spreads = True


@primitive(kind="gather")
def pad(x: Array, *, widths: tuple[tuple[int, int], ...], value: float = 0.0) -> Array:
    """Return x with `widths[i] = (before, after)` elements of `value` put around axis i. Negative
    widths cut.
    """
    shape = tuple(n + a + b for n, (a, b) in zip(x.shape, widths, strict=True))
    if min(shape, default=0) < 0:
        problem = f"widths {widths} cut more than there is from {x.shape}"
        raise ShapeError("pad", problem, got=widths)
    y = np.full(shape, as_elements(value, x.dtype), x.dtype)
    for inside, kept in _padded(y, x, widths=widths):
        inside[...] = kept
    return y


def _padded(y: Array, x: Array, *, widths: Any, value: float = 0.0) -> Parts:
    if not widths:
        return [(y, x)]
    cut = tuple((-a, -b) for a, b in widths)
    return [(y[_inside(y.shape, widths)], x[_inside(x.shape, cut)])]


pad.parts = _padded


def _inside(shape: Shape, widths: Sequence[tuple[int, int]]) -> tuple[slice, ...]:
    """Return the part of an array of `shape` within positive widths."""
    pairs = zip(shape, widths, strict=True)
    return tuple(slice(max(a, 0), n - max(b, 0)) for n, (a, b) in pairs)


@pad.vjp
def _(g, _y, _x, *, widths, value=0.0):
    return (pad(g, widths=tuple((-a, -b) for a, b in widths)),)


@primitive(kind="gather", dtype="same")
def cat(*xs: Array, axis: int) -> Array:
    """Return the operands one after the other along `axis`; all other sizes must agree."""
    return np.concatenate(xs, axis)


def _one_after_the_other(y: Array, *xs: Array, axis: int) -> Parts:
    ends = list(accumulate(x.shape[axis] for x in xs))
    return list(zip(np.split(y, ends[:-1], axis), xs, strict=True))


cat.parts = _one_after_the_other


@cat.vjp
def _(g, _y, *_xs, axis):
    ends = list(accumulate((x.shape[axis] for x in _xs), initial=0))
    return tuple(part(g, axis % g.ndim, *pair) for pair in pairwise(ends))


@primitive(kind="view")
def getitem(x: Array, *, index: tuple[Any, ...]) -> Array:
    """Return x[index] for integers, slices, None and Ellipsis: a view."""
    return x[index if Ellipsis in index else (*index, ...)]  # numpy copies a single element


@getitem.vjp
def _(g, _y, _x, *, index):
    return (ungetitem(g, index=index, shape=_x.shape),)


@primitive(kind="gather")
def ungetitem(g: Array, *, index: tuple[Any, ...], shape: Shape) -> Array:
    """Return zeros of `shape` with y[index] = g: the transpose of `getitem`."""
    y = np.zeros(shape, g.dtype)
    y[index] = g
    return y


def _at_index(y: Array, g: Array, *, index: tuple[Any, ...], shape: Shape) -> Parts:
    return [(y[index if Ellipsis in index else (*index, ...)], g)]


ungetitem.parts = _at_index


@ungetitem.vjp
def _(h, _y, _g, *, index, shape):
    return (getitem(h, index=index),)


@primitive(kind="elementwise", numpy=(np.copy, np.positive))
def copy(x: Array) -> Array:
    """Return the same elements in new memory, in row-major order."""
    return np.array(x, order="C")


@alias.vjp
@cast.vjp
@copy.vjp
@expand.vjp
def _(g, _y, _x, **_params):
    return (g,)  # the walk sums over what was broadcast, and gives it the operand's dtype


@primitive(kind="effect")
def assign(x: Array, value: Array) -> None:
    """Write `value`, broadcast and cast, into the memory of x. Raises ReadOnlyError."""
    writable("assign", x)[...] = as_elements(value, x.dtype)


def writable(call: str, x: Array) -> Array:
    """Return x. Raises ReadOnlyError unless it can be written to."""
    if not x.flags.writeable:
        hint = "write into a copy: x.clone()"
        raise ReadOnlyError(call, "the tensor's memory is read-only", hint=hint)
    return x
