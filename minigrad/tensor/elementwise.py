"""Tensor's operators and elementwise methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad import ops
from minigrad.dtypes import bool_, float64, is_float, limits, name
from minigrad.errors import ConfigError, DTypeError
from minigrad.ops.composite import composite
from minigrad.primitive import Primitive
from minigrad.tensor.frame import Frame

if TYPE_CHECKING:
    from typing_extensions import Self


class Arithmetic(Frame):
    """Operators. An operand may be a tensor, an array or a number; a number never changes the
    dtype.
    """

    __slots__ = ()

    def _from_left(self, op: Primitive, other: Any) -> Self:
        result: Self = op(other, self)
        return result

    def __add__(self, other: Any) -> Self:
        return ops.add(self, other)

    def __radd__(self, other: Any) -> Self:
        return self._from_left(ops.add, other)

    def __sub__(self, other: Any) -> Self:
        return ops.sub(self, other)

    def __rsub__(self, other: Any) -> Self:
        return self._from_left(ops.sub, other)

    def __mul__(self, other: Any) -> Self:
        return ops.mul(self, other)

    def __rmul__(self, other: Any) -> Self:
        return self._from_left(ops.mul, other)

    def __truediv__(self, other: Any) -> Self:
        return ops.div(self, other)

    def __rtruediv__(self, other: Any) -> Self:
        return self._from_left(ops.div, other)

    def __floordiv__(self, other: Any) -> Self:
        return ops.floor_div(self, other)

    def __rfloordiv__(self, other: Any) -> Self:
        return self._from_left(ops.floor_div, other)

    def __mod__(self, other: Any) -> Self:
        return ops.mod(self, other)

    def __rmod__(self, other: Any) -> Self:
        return self._from_left(ops.mod, other)

    def __pow__(self, other: Any) -> Self:
        return ops.square(self) if type(other) is int and other == 2 else ops.pow(self, other)

    def __rpow__(self, other: Any) -> Self:
        return self._from_left(ops.pow, other)

    def __matmul__(self, other: Any) -> Self:
        return ops.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Self:
        return self._from_left(ops.matmul, other)

    def __and__(self, other: Any) -> Self:
        return ops.bitwise_and(self, other)

    def __rand__(self, other: Any) -> Self:
        return self._from_left(ops.bitwise_and, other)

    def __or__(self, other: Any) -> Self:
        return ops.bitwise_or(self, other)

    def __ror__(self, other: Any) -> Self:
        return self._from_left(ops.bitwise_or, other)

    def __xor__(self, other: Any) -> Self:
        return ops.bitwise_xor(self, other)

    def __rxor__(self, other: Any) -> Self:
        return self._from_left(ops.bitwise_xor, other)

    def __lshift__(self, other: Any) -> Self:
        return ops.left_shift(self, other)

    def __rlshift__(self, other: Any) -> Self:
        return self._from_left(ops.left_shift, other)

    def __rshift__(self, other: Any) -> Self:
        return ops.right_shift(self, other)

    def __rrshift__(self, other: Any) -> Self:
        return self._from_left(ops.right_shift, other)

    def __invert__(self) -> Self:
        return ops.bitwise_not(self)

    def __neg__(self) -> Self:
        return ops.neg(self)

    def __pos__(self) -> Self:
        return self

    def __abs__(self) -> Self:
        return ops.abs(self)

    def __eq__(self, other: object) -> Self:  # type: ignore[override]
        return ops.equal(self, other) if _is_comparable(other) else NotImplemented

    def __ne__(self, other: object) -> Self:  # type: ignore[override]
        return ops.not_equal(self, other) if _is_comparable(other) else NotImplemented

    __hash__ = Frame.__hash__

    def __lt__(self, other: Any) -> Self:
        return ops.less(self, other)

    def __le__(self, other: Any) -> Self:
        return ops.less_equal(self, other)

    def __gt__(self, other: Any) -> Self:
        return ops.greater(self, other)

    def __ge__(self, other: Any) -> Self:
        return ops.greater_equal(self, other)


def _is_comparable(other: object) -> bool:
    """True for a tensor, an array, a number and lists of them. Anything else is not equal to a
    tensor, as Python's protocol has it: `None in [t]` is False.
    """
    if isinstance(other, (list, tuple)):
        return all(map(_is_comparable, other))
    return isinstance(other, (Frame, int, float, np.ndarray, np.generic))


class Elementwise(Frame):
    """Functions of each element. Formulas and derivatives are with the ops of the same name."""

    __slots__ = ()

    def neg(self) -> Self:
        """-x."""
        return ops.neg(self)

    def exp(self) -> Self:
        """e ** x."""
        return ops.exp(self)

    def exp2(self) -> Self:
        """2 ** x."""
        return ops.exp2(self)

    def expm1(self) -> Self:
        """e ** x - 1, exact for small x."""
        return ops.expm1(self)

    def log(self) -> Self:
        """The natural logarithm."""
        return ops.log(self)

    def log2(self) -> Self:
        """The logarithm to base 2."""
        return ops.log2(self)

    def log10(self) -> Self:
        """The logarithm to base 10."""
        return ops.log10(self)

    def log1p(self) -> Self:
        """log(1 + x), exact for small x."""
        return ops.log1p(self)

    def sqrt(self) -> Self:
        """The square root."""
        return ops.sqrt(self)

    def rsqrt(self) -> Self:
        """1 / sqrt(x)."""
        return ops.rsqrt(self)

    def square(self) -> Self:
        """x * x."""
        return ops.square(self)

    def reciprocal(self) -> Self:
        """1 / x."""
        return ops.reciprocal(self)

    def sin(self) -> Self:
        """Sine of x in radians."""
        return ops.sin(self)

    def cos(self) -> Self:
        """Cosine of x in radians."""
        return ops.cos(self)

    def tan(self) -> Self:
        """Tangent of x in radians."""
        return ops.tan(self)

    def asin(self) -> Self:
        """Arc sine, in radians."""
        return ops.asin(self)

    def acos(self) -> Self:
        """Arc cosine, in radians."""
        return ops.acos(self)

    def atan(self) -> Self:
        """Arc tangent, in radians."""
        return ops.atan(self)

    def sinh(self) -> Self:
        """Hyperbolic sine."""
        return ops.sinh(self)

    def cosh(self) -> Self:
        """Hyperbolic cosine."""
        return ops.cosh(self)

    def tanh(self) -> Self:
        """Hyperbolic tangent."""
        return ops.tanh(self)

    def sigmoid(self) -> Self:
        """1 / (1 + exp(-x))."""
        return ops.sigmoid(self)

    def relu(self) -> Self:
        """max(x, 0); derivative 0 at 0."""
        return ops.relu(self)

    def abs(self) -> Self:
        """|x|; derivative 0 at 0."""
        return ops.abs(self)

    def sign(self) -> Self:
        """-1, 0 or 1."""
        return ops.sign(self)

    def floor(self) -> Self:
        """The largest integer not above x."""
        return ops.floor(self)

    def ceil(self) -> Self:
        """The smallest integer not below x."""
        return ops.ceil(self)

    def trunc(self) -> Self:
        """x without its fraction."""
        return ops.trunc(self)

    def round(self, decimals: int = 0) -> Self:
        """Round to the given number of decimals, halves to even. The dtype stays."""
        if not decimals:
            return ops.round(self)
        x: Any = self if is_float(self.dtype) else ops.cast(self, dtype=float64)
        y: Any = ops.div(ops.round(ops.mul(x, 10.0**decimals)), 10.0**decimals)
        return y if x is self else ops.cast(y, dtype=self.dtype)

    def isnan(self) -> Self:
        """True where x is not a number."""
        return ops.isnan(self)

    def isinf(self) -> Self:
        """True where x is infinite."""
        return ops.isinf(self)

    def isfinite(self) -> Self:
        """True where x is finite."""
        return ops.isfinite(self)

    def logical_not(self) -> Self:
        """True where x is zero."""
        return ops.logical_not(self)

    def add(self, other: Any) -> Self:
        """self + other."""
        return ops.add(self, other)

    def sub(self, other: Any) -> Self:
        """self - other."""
        return ops.sub(self, other)

    def mul(self, other: Any) -> Self:
        """self * other."""
        return ops.mul(self, other)

    def div(self, other: Any) -> Self:
        """self / other."""
        return ops.div(self, other)

    def pow(self, other: Any) -> Self:
        """self ** other."""
        return ops.pow(self, other)

    def mod(self, other: Any) -> Self:
        """The remainder, with the sign of other."""
        return ops.mod(self, other)

    def maximum(self, other: Any) -> Self:
        """The larger of the two; gradient halved at ties."""
        return ops.maximum(self, other)

    def minimum(self, other: Any) -> Self:
        """The smaller of the two; gradient halved at ties."""
        return ops.minimum(self, other)

    def logical_and(self, other: Any) -> Self:
        """True where both are not zero."""
        return ops.logical_and(self, other)

    def logical_or(self, other: Any) -> Self:
        """True where one is not zero."""
        return ops.logical_or(self, other)

    def logical_xor(self, other: Any) -> Self:
        """True where exactly one is not zero."""
        return ops.logical_xor(self, other)

    def eq(self, other: Any) -> Self:
        """self == other, as bool."""
        return ops.equal(self, other)

    def ne(self, other: Any) -> Self:
        """self != other, as bool."""
        return ops.not_equal(self, other)

    def lt(self, other: Any) -> Self:
        """self < other, as bool."""
        return ops.less(self, other)

    def le(self, other: Any) -> Self:
        """self <= other, as bool."""
        return ops.less_equal(self, other)

    def gt(self, other: Any) -> Self:
        """self > other, as bool."""
        return ops.greater(self, other)

    def ge(self, other: Any) -> Self:
        """self >= other, as bool."""
        return ops.greater_equal(self, other)

    def where(self, a: Any, b: Any) -> Self:
        """a where self, a bool tensor, is true, else b."""
        if self.dtype != bool_:
            raise DTypeError(
                "where",
                f"the condition is {name(self.dtype)}, not bool",
                got=self.dtype,
                wanted=bool_,
                hint="minigrad.where(cond, x, y) or cond.where(x, y), with a condition such as x > 0",
            )
        return ops.where(self, a, b)

    @composite
    def masked_fill(self, mask: Any, value: Any) -> Self:
        """`value` where `mask` is true, else self. The dtype stays."""
        dtype = self.dtype
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, np.ndarray):
            value = self._wrap(value)
        exact = not isinstance(value, float) or value.is_integer()
        if not is_float(dtype) and (not exact or is_float(getattr(value, "dtype", dtype))):
            raise DTypeError(
                "masked_fill",
                f"{value} into a tensor of {name(dtype)}",
                got=value,
                wanted=dtype,
                hint=".float() first",
            )
        if isinstance(value, Frame):
            value = ops.cast(value, dtype=dtype) if value.dtype != dtype else value
        elif not is_float(dtype):
            value = bool(value) if dtype == bool_ else int(value)
        return ops.where(mask, value, self)

    def clamp(self, min: Any = None, max: Any = None) -> Self:
        """min(max(x, low), high); either bound may be None. The gradient passes at the bounds."""
        if min is None and max is None:
            raise ConfigError(
                "clamp",
                "neither min nor max given",
                wanted="one of them, or both",
                hint="clamp(min=0)",
            )
        least, most = limits(self.dtype)
        return ops.clamp(self, least if min is None else min, most if max is None else max)

    clip = clamp
