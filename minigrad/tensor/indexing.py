"""Indexing: t[...], t[...] = value, iteration, gather and scatter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad import ops
from minigrad.autograd import MODE, Node, show
from minigrad.dtypes import bool_, is_float, name
from minigrad.errors import DTypeError, GradientError, IndexRangeError
from minigrad.ops.composite import composite
from minigrad.ops.index import ARRAY, filled
from minigrad.ops.reduce import one_axis
from minigrad.tensor.frame import Frame

if TYPE_CHECKING:
    from typing_extensions import Self


class Indexing(Frame):
    """By numpy's rules. Integers, slices, None and Ellipsis make views; arrays of indices and masks
    make copies.
    """

    __slots__ = ()

    def __getitem__(self, index: Any) -> Self:
        """Integers, slices, None, Ellipsis, integer arrays and bool masks, alone or in a tuple.
        Negative indices count from the end.
        """
        parts = index if type(index) is tuple else (index,)
        for part in parts:
            if not (type(part) is int or type(part) is slice or part is None or part is Ellipsis):
                spec, keys = _spec_and_keys(parts)
                return ops.take(self, *keys, spec=spec) if keys else ops.getitem(self, index=spec)
        return ops.getitem(self, index=parts)

    @composite(name="setitem")
    def __setitem__(self, index: Any, value: Any) -> None:
        """Write `value`, broadcast and cast, into the part that t[index] names.

        Where no gradient is wanted, in place: views see it, and a backward pass that needs the old
            values refuses. Where gradients flow through t
        or `value`, t becomes a new tensor (same object) that they flow through; what was computed
        from the old one stays as it was. Raises GradientError for a leaf that requires a gradient,
        and for a view through which the change could not be seen; DTypeError for a value that is
        not made of numbers.
        """
        spec, keys = _spec_and_keys(index if type(index) is tuple else (index,))
        value = self._as_value(value, spec, keys)
        if not (MODE.get().grad and (self.requires_grad or value.requires_grad)):
            ops.put_(self, value, *keys, spec=spec)
            return
        if self.requires_grad and not isinstance(self._node, Node):
            raise GradientError(
                "setitem",
                "a leaf that requires a gradient cannot be changed in place",
                got=self.shape,
                hint="with minigrad.no_grad(): t[...] = value, or write into a copy: t.clone()",
            )
        if getattr(self, "_is_view", False):
            raise GradientError(
                "setitem",
                "through a view, where gradients are wanted: the tensor it is a view of would not "
                "see it",
                got=self.shape,
                hint="write t[i, j] = value instead of t[i][j] = value, or into a copy: t.clone()",
            )
        show(self)
        after = ops.put(self._as_it_stands(), value, *keys, spec=spec)
        self.data, self._wants, self._node, self._index, self._version = (
            after.data,
            after._wants,
            after._node,
            after._index,
            after._version,
        )

    def __delitem__(self, index: Any) -> None:
        raise DTypeError(
            "delitem",
            "the elements of a tensor cannot be deleted",
            got=index,
            hint="select the ones to keep: t[keep]",
        )

    def _as_value(self, value: Any, spec: tuple[Any, ...], keys: list[Any]) -> Self:
        """A value to be written: in this tensor's dtype, and without axes of size 1 in front of
        those of the part that it is written into.
        """
        copy: Any = type(self)
        t: Self = self._as_tensor(value) if _is_of_numbers(value) else copy(value, dtype=self.dtype)
        if t.dtype != self.dtype:
            t = ops.cast(t, dtype=self.dtype)
        if t.ndim and t.shape[0] == 1:
            places = np.broadcast_to(np.zeros((), bool_), self.shape)[
                filled(spec, tuple(np.asarray(key) for key in keys))
            ]
            extra = t.ndim - places.ndim
            if extra > 0 and t.shape[:extra] == (1,) * extra:
                t = ops.reshape(t, shape=t.shape[extra:])
        return t

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        found: Any = ops.any(ops.equal(self, value))
        return bool(found)

    # --- by an index for every element

    @composite
    def gather(self, axis: int, index: Any) -> Self:
        """y[i, j, ...] = self[i, .., index[i, j, ...], ..], the index standing on `axis`. Raises
        IndexRangeError outside 0 .. size - 1.
        """
        return ops.take_along(self, index, axis=one_axis(axis, self.ndim, "gather"))

    @composite
    def scatter(self, axis: int, index: Any, src: Any, reduce: str | None = None) -> Self:
        """A copy with y[i, .., index[i, j, ...], ..] = src[i, j, ...]; of several writers to one
        place the last wins.

        reduce: "add" or "multiply" combine with what is there.
        """
        result: Self = ops.scatter(self, axis, self._as_tensor(index), src, reduce)
        return result

    @composite
    def scatter_reduce(
        self, axis: int, index: Any, src: Any, reduce: str, include_self: bool = True
    ) -> Self:
        """The elements of src that the index sends to one place, and the one that is there, made
        one by "sum", "prod", "mean", "amax", "amin".
        """
        result: Self = ops.scatter_reduce(
            self, axis, self._as_tensor(index), src, reduce, include_self
        )
        return result

    def masked_select(self, mask: Any) -> Self:
        """The elements where `mask` (bool, of this shape or broadcasting to it) is true, as a
        vector.
        """
        mask = self._as_tensor(mask)
        if mask.dtype != bool_:
            raise DTypeError(
                "masked_select",
                f"a mask of {name(mask.dtype)}",
                got=mask.dtype,
                wanted="bool",
                hint="mask.bool() or mask > 0",
            )
        mask = ops.expand(mask, shape=self.shape)
        return self[mask]

    def nonzero(self) -> Self:
        """The indices of the elements that are not 0: (count, ndim), int64."""
        return ops.nonzero(self)


def _is_of_numbers(value: Any) -> bool:
    """Is it a number, an array of numbers or a tensor? Lists have yet to be looked into."""
    return isinstance(value, (float, int, Frame)) or (
        isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "fiub"
    )


def _spec_and_keys(parts: tuple[Any, ...]) -> tuple[tuple[Any, ...], list[Any]]:
    """A key as `ops.take` wants it: arrays apart, their places marked."""
    spec: list[Any] = []
    keys: list[Any] = []
    for part in parts:
        if part is None or part is Ellipsis or isinstance(part, slice):
            spec.append(part)
        elif isinstance(part, (int, np.integer)) and not isinstance(part, bool):
            spec.append(int(part))
        else:
            key = part if isinstance(part, Frame) else _as_key(part)
            if is_float(key.dtype) or key.dtype.kind not in "iub":
                raise IndexRangeError(
                    "getitem",
                    f"cannot index with {name(key.dtype)}",
                    got=key.dtype,
                    wanted="integers or bool",
                    hint=".long() makes integers of floats",
                )
            spec.append(ARRAY)
            keys.append(key)
    return tuple(spec), keys


def _as_key(part: Any) -> Any:
    if not isinstance(part, (list, tuple, np.ndarray, bool, np.bool_)):
        raise IndexRangeError(
            "getitem",
            f"cannot index with {type(part).__name__}",
            got=type(part),
            wanted="integers, slices, arrays, masks",
        )
    try:
        key = np.asarray(
            [np.asarray(p) if isinstance(p, Frame) else p for p in part]
            if isinstance(part, (list, tuple))
            else part
        )
    except ValueError:
        raise IndexRangeError(
            "getitem",
            "cannot index with a ragged list",
            got=part,
            wanted="integers or bool in lists of equal length",
        ) from None
    return key.astype(np.int64) if key.size == 0 and key.dtype != bool_ else key
