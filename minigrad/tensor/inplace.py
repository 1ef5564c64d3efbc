"""The operators that change their left side: `t += x` and its like."""

from __future__ import annotations

import dis
from typing import TYPE_CHECKING, Any

from minigrad import ops
from minigrad.autograd import MODE, Node, Where, user_line
from minigrad.dtypes import is_float, name
from minigrad.errors import DTypeError, GradientError, ShapeError
from minigrad.primitive import Primitive
from minigrad.tensor.frame import Frame

if TYPE_CHECKING:
    from typing_extensions import Self


class InPlace(Frame):
    """Where no gradient is wanted, `t += x` writes into the memory of t. Where gradients flow, it
    makes a new tensor and gives it the name t, so that what was computed from the old one keeps its
    gradients. Shape and dtype stay.

    Raises GradientError for a leaf that requires a gradient, outside no_grad(): it would stop being
    the leaf that an optimizer knows; and for a view through which the change could not be seen
    (`t[i] += x` can: it writes into t).
    """

    __slots__ = ()

    def _changed_by(self, op: Primitive, other: Any) -> Self:
        if self.requires_grad and MODE.get().grad and not isinstance(self._node, Node):
            raise GradientError(
                f"{op.name} in place",
                "on a leaf that requires a gradient",
                got=self.shape,
                hint="with minigrad.no_grad(): around the update, or t = t + x for a new tensor",
            )
        result = op(self, other)
        if result.shape != self.shape:
            raise ShapeError(
                f"{op.name} in place",
                f"the result of shape {result.shape} does not fit {self.shape}",
                got=result.shape,
                wanted=self.shape,
                hint="t = t + x makes a new tensor",
            )
        if is_float(result.dtype) and not is_float(self.dtype):
            raise DTypeError(
                f"{op.name} in place",
                f"the result is {name(result.dtype)}, the tensor {name(self.dtype)}",
                got=result.dtype,
                wanted=self.dtype,
                hint="t = t.float() first",
            )
        if not result.requires_grad:
            ops.assign(self, result)
            return self
        if getattr(self, "_is_view", False) and not _stored_back(user_line()):
            raise GradientError(
                f"{op.name} in place",
                "through a view, where gradients are wanted: the tensor it is a view of would not "
                "see it",
                got=self.shape,
                hint="write t[i] += x into the tensor itself, or v = v + x for a new tensor",
            )
        return result if result.dtype == self.dtype else ops.cast(result, dtype=self.dtype)

    def __iadd__(self, other: Any) -> Self:
        return self._changed_by(ops.add, other)

    def __isub__(self, other: Any) -> Self:
        return self._changed_by(ops.sub, other)

    def __imul__(self, other: Any) -> Self:
        return self._changed_by(ops.mul, other)

    def __itruediv__(self, other: Any) -> Self:
        return self._changed_by(ops.div, other)

    def __ifloordiv__(self, other: Any) -> Self:
        return self._changed_by(ops.floor_div, other)

    def __imod__(self, other: Any) -> Self:
        return self._changed_by(ops.mod, other)

    def __ipow__(self, other: Any) -> Self:
        return self._changed_by(ops.pow, other)

    def __imatmul__(self, other: Any) -> Self:
        return self._changed_by(ops.matmul, other)

    def __iand__(self, other: Any) -> Self:
        return self._changed_by(ops.bitwise_and, other)

    def __ior__(self, other: Any) -> Self:
        return self._changed_by(ops.bitwise_or, other)

    def __ixor__(self, other: Any) -> Self:
        return self._changed_by(ops.bitwise_xor, other)

    def __ilshift__(self, other: Any) -> Self:
        return self._changed_by(ops.left_shift, other)

    def __irshift__(self, other: Any) -> Self:
        return self._changed_by(ops.right_shift, other)


_BETWEEN = {"CACHE", "SWAP", "ROT_TWO", "ROT_THREE", "ROT_FOUR", "NOP", "EXTENDED_ARG"}


def _stored_back(where: Where) -> bool:
    """Whether the statement there goes on to write its result into the tensor that the view came
    from, as `t[i] += x` does.
    """
    code = where.code.co_code
    following = (dis.opname[code[i]] for i in range(where.instruction + 2, len(code), 2))
    return next((name for name in following if name not in _BETWEEN), "") in (
        "STORE_SUBSCR",
        "STORE_SLICE",
    )
