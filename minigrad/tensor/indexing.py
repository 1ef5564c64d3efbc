"""Reading and writing parts of a tensor, and changing it in place: t[...], t[...] = value, t += x,
t.add_(x).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minigrad import ops
from minigrad.autograd import show
from minigrad.dtypes import bool_, is_float, name
from minigrad.errors import DTypeError, GradientError, IndexRangeError, ShapeError
from minigrad.modes import MODE
from minigrad.ops import composed
from minigrad.ops.composite import composite
from minigrad.ops.index import ARRAY, filled
from minigrad.primitive import Primitive
from minigrad.tape import Node
from minigrad.tensor.base import Self, TensorBase


def _in_place(op: Primitive) -> Any:
    return lambda self, other: self._changed_by(op, other)


class Indexing(TensorBase):
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
                return self._taken(parts)
        return ops.getitem(self, index=parts)

    @composite(name="getitem")
    def _taken(self, parts: tuple[Any, ...]) -> Self:
        spec, keys = _spec_and_keys(parts)
        return ops.take(self, *keys, spec=spec) if keys else ops.getitem(self, index=spec)

    @composite(name="setitem")
    def __setitem__(self, index: Any, value: Any) -> None:
        """Write `value`, broadcast and cast, into the part that t[index] names.

        Where no gradient is wanted, in place: views see it, and a backward pass that needs the old
        values raises. Where gradients flow through t or `value`, t becomes a new tensor (the same
        object) that they flow through; what was computed from the old one stays as it was. Raises
        GradientError for a leaf that requires a gradient, and for a view, through which the change
        could not be seen; DTypeError for a value that is not made of numbers.
        """
        spec, keys = _spec_and_keys(index if type(index) is tuple else (index,))
        value = self._as_value(value, spec, keys)
        if not (MODE.get().grad and (self.requires_grad or value.requires_grad)):
            ops.put_(self, value, *keys, spec=spec)
            return
        self._refuse_leaf("setitem")
        show([self])
        self._become(ops.put(self._as_it_stands(), value, *keys, spec=spec))

    def __delitem__(self, index: Any) -> None:
        problem, hint = "the elements of a tensor cannot be deleted", "select others: t[keep]"
        raise DTypeError("delitem", problem, got=index, hint=hint)

    def _as_value(self, value: Any, spec: tuple[Any, ...], keys: list[Any]) -> Self:
        """A value to be written: in this tensor's dtype, and without axes of size 1 in front of
        those of the part that it is written into.
        """
        copy: Any = type(self)
        t: Self = self._as_tensor(value) if _is_of_numbers(value) else copy(value, dtype=self.dtype)
        if t.dtype != self.dtype:
            t = ops.cast(t, dtype=self.dtype)
        if t.ndim and t.shape[0] == 1:
            key = filled(spec, tuple(np.asarray(key) for key in keys))
            places = np.broadcast_to(np.zeros((), bool_), self.shape)[key]
            extra = t.ndim - places.ndim
            if extra > 0 and t.shape[:extra] == (1,) * extra:
                t = ops.reshape(t, shape=t.shape[extra:])
        return t

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        found: Any = ops.any(ops.equal(self, value))
        return bool(found)

    @composite
    def masked_select(self, mask: Any) -> Self:
        """Return the elements where `mask` (bool, of this shape or broadcasting to it) is true, as
        a vector.
        """
        mask = self._as_tensor(mask)
        if mask.dtype != bool_:
            problem, hint = f"a mask of {name(mask.dtype)}", "mask.bool() or mask > 0"
            raise DTypeError("masked_select", problem, got=mask.dtype, wanted="bool", hint=hint)
        return self[ops.expand(mask, shape=self.shape)]

    # --- operators in place

    def _changed_by(self, op: Primitive, other: Any) -> Self:
        """t += x. Where no gradient is wanted, this writes into the memory of t. Where gradients
        flow, it makes a new tensor and gives it the name t, so that what was computed from the old
        one keeps its gradients. Shape and dtype stay.

        Raises GradientError for a leaf that requires a gradient, outside no_grad(): it would stop
        being the leaf that an optimizer knows; and for a view, `t[i] += x` too: the tensor that it
        is a view of would not see the change.
        """
        call = f"{op.name} in place"
        self._refuse_leaf(call)
        result = self._like_self(call, op(self, other))
        if result.requires_grad:
            hint = "write t[i] = t[i] + x instead of t[i] += x, or v = v + x for a new tensor"
            self._refuse_view(call, hint)
            return result
        ops.assign(self, result)
        return self

    __iadd__, __isub__, __imul__ = _in_place(ops.add), _in_place(ops.sub), _in_place(ops.mul)
    __itruediv__, __ifloordiv__ = _in_place(ops.div), _in_place(ops.floor_div)
    __imod__, __ipow__, __imatmul__ = _in_place(ops.mod), _in_place(ops.pow), _in_place(ops.matmul)
    __iand__, __ior__ = _in_place(ops.bitwise_and), _in_place(ops.bitwise_or)
    __ixor__ = _in_place(ops.bitwise_xor)
    __ilshift__, __irshift__ = _in_place(ops.left_shift), _in_place(ops.right_shift)

    def _refuse_leaf(self, call: str) -> None:
        if self.requires_grad and MODE.get().grad and not isinstance(self._node, Node):
            problem = "a leaf that requires a gradient cannot be changed in place"
            hint = "change it under minigrad.no_grad(), or a copy: t = t + x, u = t.clone()"
            raise GradientError(call, problem, self.shape, hint=hint)

    def _refuse_view(self, call: str, hint: str) -> None:
        if getattr(self, "_is_view", False):
            problem = "through a view: where gradients flow, the viewed tensor would not see it"
            raise GradientError(call, problem, got=self.shape, hint=hint)

    def _like_self(self, call: str, result: Any) -> Any:
        """The result in this tensor's dtype; raises where it does not fit."""
        if result.shape != self.shape:
            problem = f"the result of shape {result.shape} does not fit {self.shape}"
            hint = "t = t + x makes a new tensor"
            raise ShapeError(call, problem, got=result.shape, wanted=self.shape, hint=hint)
        if is_float(result.dtype) and not is_float(self.dtype):
            problem = f"the result is {name(result.dtype)}, the tensor {name(self.dtype)}"
            hint = "t = t.float() first"
            raise DTypeError(call, problem, got=result.dtype, wanted=self.dtype, hint=hint)
        return result if result.dtype == self.dtype else ops.cast(result, dtype=self.dtype)

    # --- methods in place: the same tensor, changed

    def _become(self, after: Any) -> Self:
        """Take the place of `after` on the tape where gradients flow, else its values, in place."""
        if after.requires_grad:
            hint = "write t[i, j] = x instead of t[i][j] = x, or into a copy: t.clone()"
            self._refuse_view("setitem", hint)
            me: Any = self
            retained = me.retains_grad
            me._take_place(after)
            if retained:
                me.retain_grad()
            return self
        ops.assign(self, after)
        return self

    def _set(self, call: str, function: Any, *args: Any) -> Self:
        self._refuse_leaf(call)
        show([self])
        return self._become(self._like_self(call, function(self._as_it_stands(), *args)))

    def add_(self, other: Any, *, alpha: float = 1) -> Self:
        """Add `other`, times alpha, in place."""
        return self._set("add_", ops.add, other if alpha == 1 else ops.mul(other, alpha))

    def sub_(self, other: Any, *, alpha: float = 1) -> Self:
        """Subtract `other`, times alpha, in place."""
        return self._set("sub_", ops.sub, other if alpha == 1 else ops.mul(other, alpha))

    def mul_(self, other: Any) -> Self:
        """Multiply by `other`, in place."""
        return self._set("mul_", ops.mul, other)

    def div_(self, other: Any) -> Self:
        """Divide by `other`, in place."""
        return self._set("div_", ops.div, other)

    def clamp_(self, min: Any = None, max: Any = None) -> Self:
        """Limit the elements to [min, max], in place; either bound may be None."""
        return self._set("clamp_", composed.clamp, min, max)

    @composite
    def copy_(self, source: Any) -> Self:
        """Write the elements of `source`, broadcast and cast, in place."""
        self[...] = source
        return self

    @composite
    def fill_(self, value: Any) -> Self:
        """Write one value into every element, in place."""
        return self.copy_(value)

    @composite
    def zero_(self) -> Self:
        """Write 0 into every element, in place."""
        return self.copy_(0)


def _is_of_numbers(value: Any) -> bool:
    """Is it a number, an array of numbers or a tensor? Lists have yet to be looked into."""
    return isinstance(value, (float, int, TensorBase)) or (
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
            spec.append(ARRAY)
            keys.append(_as_key(part))
    return tuple(spec), keys


def _as_key(part: Any) -> Any:
    """An array of indices or a mask, from a tensor, an array, a list or a bool."""
    key, what = part, type(part).__name__
    if isinstance(part, (list, tuple)):
        part = [np.asarray(p) if isinstance(p, TensorBase) else p for p in part]
    if isinstance(part, (list, np.ndarray, bool, np.bool_)):
        try:
            key = np.asarray(part)
            key = key.astype(np.int64) if key.size == 0 and key.dtype != bool_ else key
        except ValueError:
            what = "a ragged list"
    if isinstance(key, (TensorBase, np.ndarray)):
        if key.dtype.kind in "iub":
            return key
        what = name(key.dtype)
    wanted, hint = "integers, slices, arrays of integers, bool masks", ".long() makes integers"
    problem = f"cannot index with {what}"
    raise IndexRangeError("getitem", problem, got=part, wanted=wanted, hint=hint)
