"""Tensor's movement methods: the same numbers in another shape, place or dtype."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from minigrad import ops
from minigrad.dtypes import (
    as_dtype,
    asked_of_to,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int32,
    int64,
)
from minigrad.errors import ConfigError, ShapeError
from minigrad.ops.composite import composite
from minigrad.ops.reduce import axes, one_axis
from minigrad.tensor.frame import Frame

if TYPE_CHECKING:
    from typing_extensions import Self

Sizes = int | Sequence[int]


def flat(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    """reshape(2, 3), reshape((2, 3)) and reshape([2, 3]) are the same."""
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes


class Movement(Frame):
    """Views where numpy can, copies where it must; exact either way."""

    __slots__ = ()

    @composite
    def reshape(self, *shape: Sizes) -> Self:
        """The same elements in row-major order under another shape; one size may be -1."""
        wanted = flat(shape)
        if wanted and min(wanted) < -1:
            raise ShapeError(
                "reshape",
                f"the size {min(wanted)} in {wanted}",
                got=wanted,
                wanted="sizes >= 0, or one -1",
            )
        return ops.reshape(self, shape=wanted)

    view = reshape

    @composite
    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Self:
        """The axes start_dim .. end_dim as one."""
        if not self.ndim:
            return self.reshape(1)
        start, end = (
            one_axis(start_dim, self.ndim, "flatten"),
            one_axis(end_dim, self.ndim, "flatten"),
        )
        if start >= end:
            return self
        return self.reshape(
            *self.shape[:start], math.prod(self.shape[start : end + 1]), *self.shape[end + 1 :]
        )

    @composite
    def permute(self, *order: Sizes) -> Self:
        """Axes in another order: result.shape[i] = shape[order[i]]."""
        wanted = flat(order)
        normal = tuple(one_axis(a, self.ndim, "permute") for a in wanted)
        if sorted(normal) != list(range(self.ndim)):
            raise ShapeError(
                "permute",
                f"{wanted} is no order of the {self.ndim} axes of {self.shape}",
                got=wanted,
                hint="name each axis once",
            )
        return ops.permute(self, order=normal)

    def transpose(self, dim0: int = 1, dim1: int = 0) -> Self:
        """Two axes exchanged; without arguments the first two."""
        order = list(range(self.ndim))
        a, b = one_axis(dim0, self.ndim, "transpose"), one_axis(dim1, self.ndim, "transpose")
        order[a], order[b] = b, a
        return ops.permute(self, order=tuple(order))

    @property
    def T(self) -> Self:
        """The axes in reverse order: the transpose of a matrix."""
        return ops.permute(self, order=tuple(reversed(range(self.ndim))))

    @composite
    def expand(self, *shape: Sizes) -> Self:
        """Broadcast to `shape` without a copy; -1 keeps a size."""
        wanted = flat(shape)
        new = len(wanted) - self.ndim
        if -1 in wanted[: max(new, 0)] or min(wanted, default=0) < -1:
            raise ShapeError(
                "expand",
                f"{self.shape} to {wanted}: there is no size to keep",
                got=self.shape,
                wanted=wanted,
                hint="-1 stands for a size that is there already; new axes in front want one >= 0",
            )
        kept = (1,) * new + self.shape
        return ops.expand(
            self, shape=tuple(k if n == -1 else n for n, k in zip(wanted, kept, strict=False))
        )

    @composite
    def squeeze(self, axis: int | tuple[int, ...] | None = None) -> Self:
        """Without axes of size 1: all of them, or the named ones that have size 1."""
        gone = {a for a in axes(axis, self.ndim, "squeeze") if self.shape[a] == 1}
        return self.reshape(tuple(n for i, n in enumerate(self.shape) if i not in gone))

    @composite
    def unsqueeze(self, axis: int) -> Self:
        """With a new axis of size 1 at `axis`."""
        a = one_axis(axis, self.ndim + 1, "unsqueeze")
        return self.reshape(*self.shape[:a], 1, *self.shape[a:])

    @composite
    def flip(self, *axis: Sizes) -> Self:
        """In reverse order along each axis named: flip(0), flip(0, 1), flip((0, 1))."""
        return ops.flip(self, axis=axes(flat(axis), self.ndim, "flip"))

    @composite
    def cat(self, *others: Any, axis: int = 0) -> Self:
        """self and the others one after the other along `axis`: a.cat(b, dim=1) or Tensor.cat([a,
        b], dim=1).
        """
        first, *rest = _operands(self, others)
        a = one_axis(axis, first.ndim, "cat")
        return ops.cat(first, *rest, axis=a)

    @composite
    def stack(self, *others: Any, axis: int = 0) -> Self:
        """self and the others along a new axis: a.stack(b) or Tensor.stack([a, b])."""
        operands = _operands(self, others)
        if len({x.shape for x in operands}) > 1:
            shapes = [x.shape for x in operands]
            raise ShapeError(
                "stack",
                f"shapes {shapes} differ",
                got=shapes,
                wanted="equal shapes",
                hint="cat joins along an axis that is there",
            )
        first, *rest = (x.unsqueeze(axis) for x in operands)
        return ops.cat(first, *rest, axis=one_axis(axis, first.ndim, "stack"))

    @composite
    def split(self, sizes: Sizes, axis: int = 0) -> tuple[Self, ...]:
        """Pieces along `axis`: of one size (the last may be smaller), or of the sizes named."""
        a = one_axis(axis, self.ndim, "split")
        n = self.shape[a]
        if isinstance(sizes, (int, np.integer)):
            if sizes < 1:
                raise ConfigError("split", f"pieces of size {sizes}", got=sizes, wanted="size >= 1")
            sizes = [min(int(sizes), n - i) for i in range(0, n, int(sizes))] or [0]
        if sum(sizes) != n or min(sizes, default=0) < 0:
            raise ShapeError(
                "split",
                f"the sizes {list(sizes)} add up to {sum(sizes)}, axis {axis} has {n}",
                got=sizes,
                wanted=n,
            )
        before, start, pieces = (slice(None),) * a, 0, []
        for size in sizes:
            pieces.append(ops.getitem(self, index=(*before, slice(start, start + size))))
            start += size
        return tuple(pieces)

    @composite
    def chunk(self, n: int, axis: int = 0) -> tuple[Self, ...]:
        """At most n pieces of equal size along `axis` (the last may be smaller)."""
        size = self.shape[one_axis(axis, self.ndim, "chunk")]
        if n < 1:
            raise ConfigError("chunk", f"{n} pieces", got=n, wanted="n >= 1")
        return self.split(-(-size // n), axis) if size else self.split([0] * n, axis)

    # --- composed movements

    @composite
    def unflatten(self, axis: int, sizes: Sequence[int]) -> Self:
        """The axis cut into several of these sizes, one of which may be -1."""
        result: Self = ops.unflatten(self, axis, sizes)
        return result

    @composite
    def repeat(self, *counts: Sizes) -> Self:
        """Put counts[i] times one after the other along axis i; further counts in front make new
        axes.
        """
        result: Self = ops.repeat(self, flat(counts))
        return result

    @composite
    def repeat_interleave(self, repeats: int | Sequence[int], axis: int | None = None) -> Self:
        """Each element along `axis` repeated, all as often or each its own number of times; None:
        of the flat row.
        """
        result: Self = ops.repeat_interleave(self, repeats, axis)
        return result

    @composite
    def roll(self, shifts: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Self:
        """Moved by `shifts` along `axis`; what falls off at the end comes in at the front. None: as
        one flat row.
        """
        result: Self = ops.roll(self, shifts, axis)
        return result

    def tril(self, diagonal: int = 0) -> Self:
        """The lower triangle of the last two axes; 0 elsewhere."""
        result: Self = ops.tril(self, diagonal)
        return result

    def triu(self, diagonal: int = 0) -> Self:
        """The upper triangle of the last two axes; 0 elsewhere."""
        result: Self = ops.triu(self, diagonal)
        return result

    @composite
    def diagonal(self, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Self:
        """The elements with equal indices on the two axes, as a new last axis."""
        result: Self = ops.diagonal(self, offset, dim1, dim2)
        return result

    @composite
    def unfold(self, axis: int, size: int, step: int = 1) -> Self:
        """The windows of `size` elements along `axis`, every `step`, on a new last axis. A view."""
        if min(size, step) < 1:
            raise ConfigError(
                "unfold", f"size {size}, step {step}", got=(size, step), wanted="both >= 1"
            )
        return ops.unfold(self, axis=one_axis(axis, self.ndim, "unfold"), size=size, step=step)

    def meshgrid(self, *others: Any, indexing: Literal["ij", "xy"] = "ij") -> tuple[Self, ...]:
        """This vector and the others as grids: the i-th varies along axis i; "xy" exchanges the
        first two axes.
        """
        return ops.meshgrid(self, *others, indexing=indexing)

    def rearrange(self, pattern: str, /, **sizes: int) -> Self:
        """The axes in the order and grouping of the pattern, in einops' notation: x.rearrange("b t
        (h d) -> b h t d", h=4).
        """
        result: Self = ops.rearrange(self, pattern, **sizes)
        return result

    @composite
    def pad(self, padding: Sequence[Any], mode: str = "constant", value: float = 0.0) -> Self:
        """With more elements around: of `value`, or by "reflect", "replicate" or "circular" of its
        own.

        padding: numbers in PyTorch's order, (before, after) of the last axis first; or one pair (or
            None) per axis, in the order of the axes.
        Negative numbers cut (mode "constant").
        """
        result: Self = ops.pad_by(self, _widths(tuple(padding), self.shape), mode, value)
        return result

    @composite
    def shrink(self, bounds: Sequence[tuple[int, int] | None]) -> Self:
        """The part between (start, stop) of each axis; None leaves an axis whole."""
        if len(bounds) != self.ndim:
            raise ShapeError(
                "shrink", f"{len(bounds)} bounds for {self.ndim} axes", got=bounds, wanted=self.ndim
            )
        whole = [
            (0, n) if pair is None else tuple(pair)
            for pair, n in zip(bounds, self.shape, strict=True)
        ]
        if any(
            not 0 <= start <= stop <= n for (start, stop), n in zip(whole, self.shape, strict=True)
        ):
            raise ShapeError(
                "shrink",
                f"{bounds} is not inside {self.shape}",
                got=bounds,
                wanted="0 <= start <= stop <= size",
            )
        return ops.getitem(self, index=tuple(slice(*pair) for pair in whole))

    # --- dtypes

    def cast(self, dtype: Any) -> Self:
        """With another dtype; self if it has it already."""
        wanted = as_dtype(dtype, "cast")
        return self if wanted == self.dtype else ops.cast(self, dtype=wanted)

    def float(self) -> Self:
        """In float32."""
        return self.cast(float32)

    def double(self) -> Self:
        """In float64."""
        return self.cast(float64)

    def half(self) -> Self:
        """In float16."""
        return self.cast(float16)

    def bfloat16(self) -> Self:
        """In bfloat16."""
        return self.cast(bfloat16)

    def int(self) -> Self:
        """In int32, fractions cut off."""
        return self.cast(int32)

    def long(self) -> Self:
        """In int64, fractions cut off."""
        return self.cast(int64)

    def bool(self) -> Self:
        """True where not zero."""
        return self.cast(bool_)

    def clone(self) -> Self:
        """A copy in new memory, through which gradients flow."""
        return ops.copy(self)

    def to(self, *wanted: Any, **options: Any) -> Self:
        """to(dtype), to(device), to(device, dtype): with another dtype; self if it has it already.
        "cpu" is the only device.
        """
        found = asked_of_to(wanted, options, "to")
        return self if found is None else self.cast(found)

    def contiguous(self) -> Self:
        """self, or a copy in row-major order if it is not in that order."""
        return self if self.data.flags.c_contiguous else ops.copy(self)


def _operands(first: Any, others: tuple[Any, ...]) -> list[Any]:
    """a.cat(b, c), Tensor.cat([a, b, c]) and a.cat([b, c]) name the same operands."""
    named = [*first] if not hasattr(first, "shape") else [first]
    for x in others:
        named += x if isinstance(x, (list, tuple)) else [x]
    if not named:
        raise ShapeError("cat", "of no tensors", hint="give one or more")
    return named


def _widths(padding: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Either habit of writing a padding, as (before, after) for each axis."""
    if any(isinstance(p, (tuple, list)) or p is None for p in padding):
        pairs = [(0, 0) if p is None else tuple(p) for p in padding]
    else:
        pairs = [tuple(padding[i : i + 2]) for i in range(0, len(padding), 2)][::-1]
        pairs = [(0, 0)] * (len(shape) - len(pairs)) + pairs
    if len(pairs) != len(shape) or any(len(pair) != 2 for pair in pairs):
        raise ShapeError(
            "pad",
            f"padding {padding} does not fit {shape}",
            got=padding,
            wanted="pairs",
            hint="(before, after) of the last axis first, or a pair or None per axis",
        )
    return tuple((int(a), int(b)) for a, b in pairs)
