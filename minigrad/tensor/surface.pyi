"""Written by `python tools/make_docs.py`; do not edit."""

from builtins import bool as _bool, float as _float, int as _int
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, overload

from minigrad.dtypes import DType
from minigrad.ops.loss import Reduce
from minigrad.random import Generator

from typing_extensions import Self

from minigrad.tensor.base import TensorBase
from minigrad.tensor.core import Tensor


Axis = _int | tuple[_int, ...] | None
Sizes = _int | Sequence[_int]
class _Indexed(NamedTuple):
    values: Tensor
    indices: Tensor
Corner = Literal["upper_left", "lower_right"]
Method = Literal["auto", "plain", "flash"]

class Surface(TensorBase):
    def __add__(self, other: Any) -> Self: ...
    def __radd__(self, other: Any) -> Self: ...
    def __sub__(self, other: Any) -> Self: ...
    def __rsub__(self, other: Any) -> Self: ...
    def __mul__(self, other: Any) -> Self: ...
    def __rmul__(self, other: Any) -> Self: ...
    def __truediv__(self, other: Any) -> Self: ...
    def __rtruediv__(self, other: Any) -> Self: ...
    def __floordiv__(self, other: Any) -> Self: ...
    def __rfloordiv__(self, other: Any) -> Self: ...
    def __mod__(self, other: Any) -> Self: ...
    def __rmod__(self, other: Any) -> Self: ...
    def __pow__(self, other: Any) -> Self: ...
    def __rpow__(self, other: Any) -> Self: ...
    def __matmul__(self, other: Any) -> Self: ...
    def __rmatmul__(self, other: Any) -> Self: ...
    def __and__(self, other: Any) -> Self: ...
    def __rand__(self, other: Any) -> Self: ...
    def __or__(self, other: Any) -> Self: ...
    def __ror__(self, other: Any) -> Self: ...
    def __xor__(self, other: Any) -> Self: ...
    def __rxor__(self, other: Any) -> Self: ...
    def __lshift__(self, other: Any) -> Self: ...
    def __rlshift__(self, other: Any) -> Self: ...
    def __rshift__(self, other: Any) -> Self: ...
    def __rrshift__(self, other: Any) -> Self: ...
    def __eq__(self, other: object) -> Self: ...  # type: ignore[override]
    def __ne__(self, other: object) -> Self: ...  # type: ignore[override]
    def __lt__(self, other: Any) -> Self: ...
    def __le__(self, other: Any) -> Self: ...
    def __gt__(self, other: Any) -> Self: ...
    def __ge__(self, other: Any) -> Self: ...
    def __invert__(self) -> Self: ...
    def __neg__(self) -> Self: ...
    def __pos__(self) -> Self: ...
    def __abs__(self) -> Self: ...
    def add(self, b: Any) -> Self:
        """Return a + b."""
    def sub(self, b: Any) -> Self:
        """Return a - b."""
    def mul(self, b: Any) -> Self:
        """Return a * b."""
    def div(self, b: Any, rounding_mode: str | None = None) -> Self:
        """Return a / b; the quotient rounded down with rounding_mode="floor", towards 0 with "trunc".
        The gradient of a rounded quotient is 0."""
    def pow(self, p: Any) -> Self:
        """Return x ** p."""
    def subtract(self, b: Any) -> Self:
        """Return a - b."""
    def multiply(self, b: Any) -> Self:
        """Return a * b."""
    def divide(self, b: Any, rounding_mode: str | None = None) -> Self:
        """Return a / b; the quotient rounded down with rounding_mode="floor", towards 0 with "trunc".
        The gradient of a rounded quotient is 0."""
    def true_divide(self, b: Any) -> Self:
        """Return a / b; integers divide to float32."""
    def floor_divide(self, b: Any) -> Self:
        """Return floor(a / b); for integers divided by zero 0, with numpy's warning. Gradient 0."""
    def mod(self, b: Any) -> Self:
        """Return a - b * floor(a / b): the remainder with the sign of b, as in Python. For integers
        divided by zero 0, with numpy's warning."""
    def remainder(self, b: Any) -> Self:
        """Return a - b * floor(a / b): the remainder with the sign of b, as in Python. For integers
        divided by zero 0, with numpy's warning."""
    def fmod(self, b: Any) -> Self:
        """Return a - b * trunc(a / b): the remainder with the sign of a, as in C."""
    def lerp(self, b: Any, weight: Any) -> Self:
        """Return a + weight (b - a): a at 0, b at 1."""
    def copysign(self, b: Any) -> Self:
        """Return |a| with the sign of b. Slope 0 at a = 0."""
    def nan_to_num(self, nan: _float = 0.0, posinf: _float | None = None, neginf: _float | None = None) -> Self:
        """Return x with `nan` for NaN, `posinf` and `neginf` for infinities; None: the largest and the
        least number of the dtype. The gradient passes where x is finite."""
    def maximum(self, b: Any) -> Self:
        """Return the larger of a and b, or NaN. A tie splits the gradient."""
    def minimum(self, b: Any) -> Self:
        """Return the smaller of a and b, or NaN. A tie splits the gradient."""
    def clamp(self, min: Any = None, max: Any = None) -> Self:
        """Return min(max(x, low), high); a bound may be None. The gradient passes at the bounds."""
    def clip(self, min: Any = None, max: Any = None) -> Self:
        """Return min(max(x, low), high); a bound may be None. The gradient passes at the bounds."""
    def eq(self, b: Any) -> Self:
        """Return a == b, as bool."""
    def ne(self, b: Any) -> Self:
        """Return a != b, as bool."""
    def lt(self, b: Any) -> Self:
        """Return a < b, as bool."""
    def le(self, b: Any) -> Self:
        """Return a <= b, as bool."""
    def gt(self, b: Any) -> Self:
        """Return a > b, as bool."""
    def ge(self, b: Any) -> Self:
        """Return a >= b, as bool."""
    def isnan(self) -> Self:
        """Return True where x is not a number."""
    def isinf(self) -> Self:
        """Return True where x is +inf or -inf."""
    def isfinite(self) -> Self:
        """Return True where x is neither NaN nor infinite."""
    def logical_and(self, b: Any) -> Self:
        """Return True where both are nonzero."""
    def logical_or(self, b: Any) -> Self:
        """Return True where either is nonzero."""
    def logical_xor(self, b: Any) -> Self:
        """Return True where exactly one is nonzero."""
    def logical_not(self) -> Self:
        """Return True where x is zero."""
    def bitwise_and(self, b: Any) -> Self:
        """Return a & b. Raises DTypeError for floats."""
    def bitwise_or(self, b: Any) -> Self:
        """Return a | b. Raises DTypeError for floats."""
    def bitwise_xor(self, b: Any) -> Self:
        """Return a ^ b. Raises DTypeError for floats."""
    def bitwise_not(self) -> Self:
        """Return ~x: for bools, not x."""
    def where(self, x: Any = None, y: Any = None) -> Self:
        """Return x where `condition`, of bools, is true, else y. Without both, return the indices of
        the true elements, one vector per axis. A NaN in the branch not taken has no influence, forward
        or backward, along elementwise ops."""
    def masked_fill(self, mask: Any, value: Any) -> Self:
        """Return `value` where `mask` is true, else x. The dtype stays."""
    def neg(self) -> Self:
        """Return -x."""
    def negative(self) -> Self:
        """Return -x."""
    def abs(self) -> Self:
        """Return |x|. Slope 0 at 0."""
    def absolute(self) -> Self:
        """Return |x|. Slope 0 at 0."""
    def sign(self) -> Self:
        """Return -1, 0 or 1. Piecewise constant: gradient 0."""
    def floor(self) -> Self:
        """Return the largest integer <= x. Piecewise constant: gradient 0."""
    def ceil(self) -> Self:
        """Return the smallest integer >= x. Piecewise constant: gradient 0."""
    def trunc(self) -> Self:
        """Return x without its fraction. Piecewise constant: gradient 0."""
    def round(self, decimals: _int = 0) -> Self:
        """Return x rounded to the given number of decimals, halves to even. The dtype stays."""
    def exp(self) -> Self:
        """Return e ** x."""
    def exp2(self) -> Self:
        """Return 2 ** x."""
    def expm1(self) -> Self:
        """Return e ** x - 1, exact for small x."""
    def log(self) -> Self:
        """Return the natural logarithm; -inf at 0, NaN below."""
    def log2(self) -> Self:
        """Return the logarithm to base 2."""
    def log10(self) -> Self:
        """Return the logarithm to base 10."""
    def log1p(self) -> Self:
        """Return log(1 + x), exact for small x."""
    def sqrt(self) -> Self:
        """Return the square root; NaN below 0, slope inf at 0."""
    def rsqrt(self) -> Self:
        """Return 1 / sqrt(x)."""
    def square(self) -> Self:
        """Return x * x."""
    def reciprocal(self) -> Self:
        """Return 1 / x."""
    def sin(self) -> Self:
        """Return the sine."""
    def cos(self) -> Self:
        """Return the cosine."""
    def tan(self) -> Self:
        """Return the tangent."""
    def asin(self) -> Self:
        """Return the arc sine; NaN if |x| > 1."""
    def acos(self) -> Self:
        """Return the arc cosine; NaN if |x| > 1."""
    def atan(self) -> Self:
        """Return the arc tangent."""
    def arcsin(self) -> Self:
        """Return the arc sine; NaN if |x| > 1."""
    def arccos(self) -> Self:
        """Return the arc cosine; NaN if |x| > 1."""
    def arctan(self) -> Self:
        """Return the arc tangent."""
    def sinh(self) -> Self:
        """Return the hyperbolic sine."""
    def cosh(self) -> Self:
        """Return the hyperbolic cosine."""
    def tanh(self) -> Self:
        """Return the hyperbolic tangent."""
    def asinh(self) -> Self:
        """Return the inverse of sinh."""
    def acosh(self) -> Self:
        """Return the inverse of cosh; NaN below 1."""
    def atanh(self) -> Self:
        """Return the inverse of tanh; inf at 1."""
    def atan2(self, b: Any) -> Self:
        """Return the angle of the point (b, a), from -pi to pi."""
    def hypot(self, b: Any) -> Self:
        """Return sqrt(a^2 + b^2), without overflow; slope 0 at 0."""
    def erf(self) -> Self:
        """Return 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
    def erfc(self) -> Self:
        """Return 1 - erf(x), for large x."""
    def logaddexp(self, b: Any) -> Self:
        """Return log(exp(a) + exp(b)), without overflow."""
    def relu(self, *, inplace: Literal[False] = False) -> Self:
        """Return max(x, 0). Slope 0 at 0."""
    def relu6(self, *, inplace: Literal[False] = False) -> Self:
        """Return min(relu(x), 6). The gradient at 0 and at 6 is 0."""
    def leaky_relu(self, negative_slope: _float = 0.01, *, inplace: Literal[False] = False) -> Self:
        """Return x where x > 0, else negative_slope x."""
    def sigmoid(self) -> Self:
        """Return 1 / (1 + exp(-x)), without overflow."""
    def gelu(self, approximate: Literal['none', 'tanh'] = 'none') -> Self:
        """Return x Phi(x), Phi the normal distribution function."""
    def quick_gelu(self) -> Self:
        """Return x sigmoid(1.702 x), CLIP's approximation of gelu."""
    def silu(self, *, inplace: Literal[False] = False) -> Self:
        """Return x sigmoid(x), also called swish. From Elfwing et al. 2017, arXiv:1702.03118."""
    def swish(self, *, inplace: Literal[False] = False) -> Self:
        """Return x sigmoid(x), also called swish. From Elfwing et al. 2017, arXiv:1702.03118."""
    def mish(self, *, inplace: Literal[False] = False) -> Self:
        """Return x tanh(softplus(x)). From Misra 2019, arXiv:1908.08681."""
    def elu(self, alpha: _float = 1.0, *, inplace: Literal[False] = False) -> Self:
        """Return x where x > 0, else alpha (exp(x) - 1). From Clevert et al. 2015, arXiv:1511.07289."""
    def selu(self, *, inplace: Literal[False] = False) -> Self:
        """Return 1.0507 elu(x, 1.67326). From Klambauer et al. 2017, arXiv:1706.02515."""
    def celu(self, alpha: _float = 1.0, *, inplace: Literal[False] = False) -> Self:
        """Return x where x > 0, else alpha (exp(x / alpha) - 1). From Barron 2017, arXiv:1704.07483."""
    def softplus(self, beta: _float = 1.0, threshold: _float | None = None) -> Self:
        """Return log(1 + exp(beta x)) / beta, without overflow: a smooth relu."""
    def logsigmoid(self) -> Self:
        """Return log(sigmoid(x)) = -softplus(-x)."""
    def softsign(self) -> Self:
        """Return x / (1 + |x|)."""
    def hardtanh(self, min_val: _float = -1.0, max_val: _float = 1.0, *, inplace: Literal[False] = False) -> Self:
        """Return x between min_val and max_val, and these beyond. The gradient at the bounds is 0 (that
        of clamp is 1)."""
    def hardsigmoid(self, *, inplace: Literal[False] = False) -> Self:
        """Return relu6(x + 3) / 6, a sigmoid of three straight lines."""
    def hardswish(self, *, inplace: Literal[False] = False) -> Self:
        """Return x hardsigmoid(x). From Howard et al. 2019, arXiv:1905.02244."""
    @overload
    def softmax(self, axis: _int = -1, *, dtype: Any = None) -> Self:
        """Return exp(x) / sum(exp(x)) along `axis`; the maximum is subtracted first. A row of -inf
        gives zeros; several +inf share the whole evenly."""
    @overload
    def softmax(self, dim: _int = -1, *, dtype: Any = None) -> Self: ...
    @overload
    def log_softmax(self, axis: _int = -1, *, dtype: Any = None) -> Self:
        """Return log(softmax(x)) = x - logsumexp(x) along `axis`; a row of -inf stays -inf; +inf gives
        0, and -inf to all others."""
    @overload
    def log_softmax(self, dim: _int = -1, *, dtype: Any = None) -> Self: ...
    @overload
    def sum(self, axis: Axis = None, keepdim: _bool = False, *, dtype: Any = None) -> Self:
        """Return the sum along `axis` (None: all); 0 for an empty one. Bools and small integers add up
        in int64."""
    @overload
    def sum(self, dim: Axis = None, keepdim: _bool = False, *, dtype: Any = None) -> Self: ...
    @overload
    def sum(self, axis: Axis = None, keepdims: _bool = False, *, dtype: Any = None) -> Self: ...
    @overload
    def mean(self, axis: Axis = None, keepdim: _bool = False, *, dtype: Any = None) -> Self:
        """Return the mean along `axis`: sum / n."""
    @overload
    def mean(self, dim: Axis = None, keepdim: _bool = False, *, dtype: Any = None) -> Self: ...
    @overload
    def mean(self, axis: Axis = None, keepdims: _bool = False, *, dtype: Any = None) -> Self: ...
    @overload
    def prod(self, axis: Axis = None, keepdim: _bool = False, *, dtype: Any = None) -> Self:
        """Return the product along `axis`; of nothing, 1. Each element's derivative is the product of
        all others, zeros among them or not."""
    @overload
    def prod(self, dim: Axis = None, keepdim: _bool = False, *, dtype: Any = None) -> Self: ...
    @overload
    def prod(self, axis: Axis = None, keepdims: _bool = False, *, dtype: Any = None) -> Self: ...
    @overload
    def logsumexp(self, axis: Axis = None, keepdim: _bool = False, *, dtype: Any = None) -> Self:
        """Return log(sum(exp(x))) along `axis`, without overflow: the maximum is subtracted first. -inf
        for an empty or all -inf axis."""
    @overload
    def logsumexp(self, dim: Axis = None, keepdim: _bool = False, *, dtype: Any = None) -> Self: ...
    @overload
    def logsumexp(self, axis: Axis = None, keepdims: _bool = False, *, dtype: Any = None) -> Self: ...
    @overload
    def var(self, axis: Axis = None, correction: _float = 1, keepdim: _bool = False, *, dtype: Any = None) -> Self:
        """Return the variance along `axis`: sum (x - mean)^2 / (n - correction)."""
    @overload
    def var(self, dim: Axis = None, correction: _float = 1, keepdim: _bool = False, *, dtype: Any = None) -> Self: ...
    @overload
    def var(self, axis: Axis = None, correction: _float = 1, keepdims: _bool = False, *, dtype: Any = None) -> Self: ...
    @overload
    def std(self, axis: Axis = None, correction: _float = 1, keepdim: _bool = False, *, dtype: Any = None) -> Self:
        """Return the standard deviation along `axis`: sqrt(var). Its gradient is 0 where all elements
        are equal, as in PyTorch."""
    @overload
    def std(self, dim: Axis = None, correction: _float = 1, keepdim: _bool = False, *, dtype: Any = None) -> Self: ...
    @overload
    def std(self, axis: Axis = None, correction: _float = 1, keepdims: _bool = False, *, dtype: Any = None) -> Self: ...
    @overload
    def var_mean(self, axis: Axis = None, correction: _float = 1, keepdim: _bool = False) -> Self:
        """Return the variance and the mean along `axis`."""
    @overload
    def var_mean(self, dim: Axis = None, correction: _float = 1, keepdim: _bool = False) -> Self: ...
    @overload
    def var_mean(self, axis: Axis = None, correction: _float = 1, keepdims: _bool = False) -> Self: ...
    @overload
    def std_mean(self, axis: Axis = None, correction: _float = 1, keepdim: _bool = False) -> Self:
        """Return the standard deviation and the mean along `axis`."""
    @overload
    def std_mean(self, dim: Axis = None, correction: _float = 1, keepdim: _bool = False) -> Self: ...
    @overload
    def std_mean(self, axis: Axis = None, correction: _float = 1, keepdims: _bool = False) -> Self: ...
    @overload
    def max(self, axis: Axis = None, keepdim: _bool = False) -> Self:
        """Return the largest along `axis`; NaN if there is one. Ties share the gradient evenly. Raises
        ShapeError for an empty axis."""
    @overload
    def max(self, dim: Axis = None, keepdim: _bool = False) -> Self: ...
    @overload
    def max(self, axis: Axis = None, keepdims: _bool = False) -> Self: ...
    @overload
    def min(self, axis: Axis = None, keepdim: _bool = False) -> Self:
        """Return the smallest along `axis`; NaN if there is one. Ties share the gradient evenly. Raises
        ShapeError for an empty axis."""
    @overload
    def min(self, dim: Axis = None, keepdim: _bool = False) -> Self: ...
    @overload
    def min(self, axis: Axis = None, keepdims: _bool = False) -> Self: ...
    @overload
    def any(self, axis: Axis = None, keepdim: _bool = False) -> Self:
        """Return True where some element along `axis` is true (not zero)."""
    @overload
    def any(self, dim: Axis = None, keepdim: _bool = False) -> Self: ...
    @overload
    def any(self, axis: Axis = None, keepdims: _bool = False) -> Self: ...
    @overload
    def all(self, axis: Axis = None, keepdim: _bool = False) -> Self:
        """Return True where every element along `axis` is true (not zero)."""
    @overload
    def all(self, dim: Axis = None, keepdim: _bool = False) -> Self: ...
    @overload
    def all(self, axis: Axis = None, keepdims: _bool = False) -> Self: ...
    @overload
    def argmax(self, axis: _int | None = None, keepdim: _bool = False) -> Self:
        """Return the index of the first largest element along `axis` (None: in the flattened tensor),
        as int64."""
    @overload
    def argmax(self, dim: _int | None = None, keepdim: _bool = False) -> Self: ...
    @overload
    def argmax(self, axis: _int | None = None, keepdims: _bool = False) -> Self: ...
    @overload
    def argmin(self, axis: _int | None = None, keepdim: _bool = False) -> Self:
        """Return the index of the first smallest element along `axis` (None: in the flattened tensor),
        as int64."""
    @overload
    def argmin(self, dim: _int | None = None, keepdim: _bool = False) -> Self: ...
    @overload
    def argmin(self, axis: _int | None = None, keepdims: _bool = False) -> Self: ...
    @overload
    def max_with_index(self, axis: _int, keepdim: _bool = False) -> _Indexed:
        """Return the largest along `axis` and the index of the first of them: PyTorch's max(dim)."""
    @overload
    def max_with_index(self, dim: _int, keepdim: _bool = False) -> _Indexed: ...
    @overload
    def max_with_index(self, axis: _int, keepdims: _bool = False) -> _Indexed: ...
    @overload
    def min_with_index(self, axis: _int, keepdim: _bool = False) -> _Indexed:
        """Return the smallest along `axis` and the index of the first of them: PyTorch's min(dim)."""
    @overload
    def min_with_index(self, dim: _int, keepdim: _bool = False) -> _Indexed: ...
    @overload
    def min_with_index(self, axis: _int, keepdims: _bool = False) -> _Indexed: ...
    @overload
    def cumsum(self, axis: _int = 0, *, dtype: Any = None) -> Self:
        """Return the sums of the first 1, 2, ... elements along `axis`. Floats are added in float64,
        bools and small integers in int64."""
    @overload
    def cumsum(self, dim: _int = 0, *, dtype: Any = None) -> Self: ...
    @overload
    def cumprod(self, axis: _int = 0, *, dtype: Any = None) -> Self:
        """Return the products of the first 1, 2, ... elements along `axis`."""
    @overload
    def cumprod(self, dim: _int = 0, *, dtype: Any = None) -> Self: ...
    @overload
    def cummax(self, axis: _int = 0) -> tuple[Self, Self]:
        """Return the largest of the first 1, 2, ... elements along `axis`, and its index. The gradient
        goes to that element."""
    @overload
    def cummax(self, dim: _int = 0) -> tuple[Self, Self]: ...
    @overload
    def cummin(self, axis: _int = 0) -> tuple[Self, Self]:
        """Return the smallest of the first 1, 2, ... elements along `axis`, and its index. The gradient
        goes to that element."""
    @overload
    def cummin(self, dim: _int = 0) -> tuple[Self, Self]: ...
    @overload
    def logcumsumexp(self, axis: _int = 0) -> Self:
        """Return log of the sums of the first 1, 2, ... elements' exponentials, without overflow.
        Computed in float64."""
    @overload
    def logcumsumexp(self, dim: _int = 0) -> Self: ...
    @overload
    def median(self, axis: _int | None = None, keepdim: _bool = False) -> Self:
        """Return the median along `axis` (None: of all), as in PyTorch: of an even number of elements
        the lower of the two in the middle. NaN if there is one. The gradient goes to that element."""
    @overload
    def median(self, dim: _int | None = None, keepdim: _bool = False) -> Self: ...
    @overload
    def median(self, axis: _int | None = None, keepdims: _bool = False) -> Self: ...
    @overload
    def quantile(self, q: Any, axis: _int | None = None, keepdim: _bool = False, interpolation: str = 'linear') -> Self:
        """Return the q-quantile along `axis` (None: of all), 0 <= q <= 1, at place q (n - 1) of the
        sorted elements; NaN if there is one. A vector of q makes a new first axis."""
    @overload
    def quantile(self, q: Any, dim: _int | None = None, keepdim: _bool = False, interpolation: str = 'linear') -> Self: ...
    @overload
    def quantile(self, q: Any, axis: _int | None = None, keepdims: _bool = False, interpolation: str = 'linear') -> Self: ...
    @overload
    def norm(self, p: _float | str = 2, axis: Axis = None, keepdim: _bool = False, *, dtype: Any = None) -> Self:
        """Return the p-norm of the vectors along `axis` (None: of all elements): (sum |x|^p)^(1/p)."""
    @overload
    def norm(self, p: _float | str = 2, dim: Axis = None, keepdim: _bool = False, *, dtype: Any = None) -> Self: ...
    @overload
    def norm(self, p: _float | str = 2, axis: Axis = None, keepdims: _bool = False, *, dtype: Any = None) -> Self: ...
    @overload
    def amax(self, axis: Axis = None, keepdim: _bool = False) -> Self:
        """Return the largest along `axis`; NaN if there is one. Ties share the gradient evenly. Raises
        ShapeError for an empty axis."""
    @overload
    def amax(self, dim: Axis = None, keepdim: _bool = False) -> Self: ...
    @overload
    def amax(self, axis: Axis = None, keepdims: _bool = False) -> Self: ...
    @overload
    def amin(self, axis: Axis = None, keepdim: _bool = False) -> Self:
        """Return the smallest along `axis`; NaN if there is one. Ties share the gradient evenly. Raises
        ShapeError for an empty axis."""
    @overload
    def amin(self, dim: Axis = None, keepdim: _bool = False) -> Self: ...
    @overload
    def amin(self, axis: Axis = None, keepdims: _bool = False) -> Self: ...
    @overload
    def sort(self, axis: _int = -1, descending: _bool = False, stable: _bool = True) -> _Indexed:
        """Return x in order along `axis`, and the indices that the elements came from. Always stable; a
        NaN counts as the largest."""
    @overload
    def sort(self, dim: _int = -1, descending: _bool = False, stable: _bool = True) -> _Indexed: ...
    @overload
    def argsort(self, axis: _int = -1, descending: _bool = False, stable: _bool = True) -> Self:
        """Return the indices that sort x along `axis`; a NaN counts as the largest. Always stable:
        equal elements stay in their own order. int64."""
    @overload
    def argsort(self, dim: _int = -1, descending: _bool = False, stable: _bool = True) -> Self: ...
    @overload
    def topk(self, k: _int, axis: _int = -1, largest: _bool = True, sorted: _bool = True) -> _Indexed:
        """Return the k largest (or smallest) along `axis`, and their indices; of equals the first ones.
        They come in order, sorted or not. Raises ConfigError if k is too large."""
    @overload
    def topk(self, k: _int, dim: _int = -1, largest: _bool = True, sorted: _bool = True) -> _Indexed: ...
    def reshape(self, *shape: Sizes) -> Self:
        """Return the same elements in row-major order under another shape; one size may be -1."""
    def view(self, *shape: Sizes) -> Self:
        """Return the same elements in row-major order under another shape; one size may be -1."""
    def flatten(self, start_dim: _int = 0, end_dim: _int = -1) -> Self:
        """Return x with the axes start_dim .. end_dim joined."""
    def ravel(self, start_dim: _int = 0, end_dim: _int = -1) -> Self:
        """Return x with the axes start_dim .. end_dim joined."""
    @overload
    def unflatten(self, axis: _int, sizes: Sequence[_int]) -> Self:
        """Return x with the axis split into several of these sizes, one of which may be -1."""
    @overload
    def unflatten(self, dim: _int, sizes: Sequence[_int]) -> Self: ...
    @overload
    def squeeze(self, axis: Axis = None) -> Self:
        """Return x without axes of size 1: all of them, or those named that have size 1."""
    @overload
    def squeeze(self, dim: Axis = None) -> Self: ...
    @overload
    def unsqueeze(self, axis: _int) -> Self:
        """Return x with a new axis of size 1 at `axis`."""
    @overload
    def unsqueeze(self, dim: _int) -> Self: ...
    def permute(self, *order: Sizes) -> Self:
        """Return x with its axes in another order: y.shape[i] = x.shape[order[i]]."""
    def transpose(self, dim0: _int = 1, dim1: _int = 0) -> Self:
        """Return x with two axes exchanged; without arguments the first two."""
    def t(self) -> Self:
        """Return the transpose of a matrix; a vector or a number as it is."""
    def movedim(self, source: Axis, destination: Axis) -> Self:
        """Return x with the axes `source` moved to `destination`, the others in their order."""
    def swapaxes(self, axis1: _int, axis2: _int) -> Self:
        """Return x with two axes exchanged."""
    def expand(self, *shape: Sizes) -> Self:
        """Return x broadcast to `shape`, without a copy; -1 keeps a size."""
    def broadcast_to(self, *shape: Sizes) -> Self:
        """Return x broadcast to `shape`, without a copy; -1 keeps a size."""
    def expand_as(self, other: Any) -> Self:
        """Return x broadcast to the shape of `other`, without a copy."""
    @overload
    def cat(self: Any, *others: Any, axis: _int = 0) -> Tensor:
        """Return the tensors one after the other along `axis`; all other sizes must agree:
        cat([a, b], dim=1) or a.cat(b, dim=1)."""
    @overload
    def cat(self: Any, *others: Any, dim: _int = 0) -> Tensor: ...
    @overload
    def stack(self: Any, *others: Any, axis: _int = 0) -> Tensor:
        """Return the tensors along a new axis; all shapes must agree: stack([a, b]) or a.stack(b)."""
    @overload
    def stack(self: Any, *others: Any, dim: _int = 0) -> Tensor: ...
    @overload
    def split(self, sizes: Sizes, axis: _int = 0) -> tuple[Self, ...]:
        """Return pieces along `axis`: of one size (the last may be smaller), or of the sizes named."""
    @overload
    def split(self, sizes: Sizes, dim: _int = 0) -> tuple[Self, ...]: ...
    @overload
    def chunk(self, n: _int, axis: _int = 0) -> tuple[Self, ...]:
        """Return at most n pieces of equal size along `axis` (the last may be smaller)."""
    @overload
    def chunk(self, n: _int, dim: _int = 0) -> tuple[Self, ...]: ...
    @overload
    def unbind(self, axis: _int = 0) -> tuple[Self, ...]:
        """Return the parts of x at each index of `axis`, without that axis."""
    @overload
    def unbind(self, dim: _int = 0) -> tuple[Self, ...]: ...
    def hstack(self, *xs: Any) -> Self:
        """Return the operands one after the other along axis 1, numbers and vectors along axis 0."""
    def vstack(self, *xs: Any) -> Self:
        """Return the operands one after the other along axis 0, numbers and vectors as rows."""
    def flip(self, *axis: Any) -> Self:
        """Return x in reverse order along each axis given, or along all: flip(0), flip(0, 1)."""
    @overload
    def roll(self, shifts: _int | Sequence[_int], axis: _int | Sequence[_int] | None = None) -> Self:
        """Return x with its elements moved by `shifts` along `axis`; those that fall off at the end
        come in at the front. None: as one flat row."""
    @overload
    def roll(self, shifts: _int | Sequence[_int], dim: _int | Sequence[_int] | None = None) -> Self: ...
    def repeat(self, *counts: Sizes) -> Self:
        """Return x put counts[i] times one after the other along axis i; further counts in front make
        new axes."""
    def tile(self, *counts: Sizes) -> Self:
        """Return x put counts[i] times one after the other, counted from the last axis."""
    @overload
    def repeat_interleave(self, repeats: _int | Sequence[_int], axis: _int | None = None) -> Self:
        """Return x with each element along `axis` repeated `repeats` times, one number for all or one
        for each; None: of the flat row."""
    @overload
    def repeat_interleave(self, repeats: _int | Sequence[_int], dim: _int | None = None) -> Self: ...
    def rearrange(self, pattern: str, **sizes: _int) -> Self:
        """Return the axes of x, named on the left of "->", in the order and grouping of the right."""
    def meshgrid(self, *xs: Any, indexing: Literal['ij', 'xy'] = 'ij') -> tuple[Self, ...]:
        """Return the vectors as grids: all of shape (len(x0), len(x1), ...), the i-th varying along
        axis i; "xy" exchanges the first two axes."""
    def tril(self, diagonal: _int = 0) -> Self:
        """Return the lower triangle of the last two axes, up to the given diagonal above the main one;
        0 elsewhere."""
    def triu(self, diagonal: _int = 0) -> Self:
        """Return the upper triangle of the last two axes, from the given diagonal above the main one
        on; 0 elsewhere."""
    def diagonal(self, offset: _int = 0, dim1: _int = 0, dim2: _int = 1) -> Self:
        """Return the elements with equal indices on the two axes (the second's larger by `offset`), as
        a new last axis: a view."""
    @overload
    def unfold(self, axis: _int, size: _int, step: _int = 1, dilation: _int = 1) -> Self:
        """Return the windows of `size` elements (`dilation` apart) along `axis`, every `step`, on a new
        last axis. A view."""
    @overload
    def unfold(self, dim: _int, size: _int, step: _int = 1, dilation: _int = 1) -> Self: ...
    def pad(self, pad: Sequence[Any], mode: str = 'constant', value: _float = 0.0) -> Self:
        """Return x with more elements around it: `value`, or its own by "reflect", "replicate" or
        "circular"."""
    def shrink(self, bounds: Sequence[tuple[_int, _int] | None]) -> Self:
        """Return the part of x between (start, stop) of each axis; None leaves an axis whole."""
    @overload
    def narrow(self, axis: _int, start: _int, length: _int) -> Self:
        """Return the `length` elements from `start` on along `axis`; a negative start counts from the
        end."""
    @overload
    def narrow(self, dim: _int, start: _int, length: _int) -> Self: ...
    @overload
    def select(self, axis: _int, index: _int) -> Self:
        """Return x at one index along `axis`, without that axis; negative ones count from the end."""
    @overload
    def select(self, dim: _int, index: _int) -> Self: ...
    def trace(self) -> Self:
        """Return the sum of the main diagonal of a matrix (..., M, N)."""
    def diag(self, offset: _int = 0) -> Self:
        """Return the matrix with the vector x on a diagonal; of a matrix, its diagonal."""
    @overload
    def diff(self, n: _int = 1, axis: _int = -1) -> Self:
        """Return the differences of neighbours along `axis`, x[i + 1] - x[i], taken n times. Of bools,
        True where they differ."""
    @overload
    def diff(self, n: _int = 1, dim: _int = -1) -> Self: ...
    def matmul(self, b: Any) -> Self:
        """Return the matrix product over the last two axes: (..., M, K) @ (..., K, N) -> (..., M, N);
        leading axes broadcast."""
    def dot(self, b: Any) -> Self:
        """Return the matrix product over the last two axes: (..., M, K) @ (..., K, N) -> (..., M, N);
        leading axes broadcast."""
    def mm(self, b: Any) -> Self:
        """Return the matrix product over the last two axes: (..., M, K) @ (..., K, N) -> (..., M, N);
        leading axes broadcast."""
    def bmm(self, b: Any) -> Self:
        """Return the matrix product over the last two axes: (..., M, K) @ (..., K, N) -> (..., M, N);
        leading axes broadcast."""
    def tensordot(self, b: Any, dims: Any = 2) -> Self:
        """Return the sum of products over pairs of axes: the last `dims` of a with the first of b, or,
        for dims=(axes of a, axes of b), those. The other axes of a come first, then those of b."""
    @overload
    def normalize(self, p: _float = 2.0, axis: Axis = 1, eps: _float = 1e-12) -> Self:
        """Return x / max(norm(x), eps), with the p-norm along `axis`."""
    @overload
    def normalize(self, p: _float = 2.0, dim: Axis = 1, eps: _float = 1e-12) -> Self: ...
    @overload
    def cosine_similarity(self, x2: Any, axis: _int = 1, eps: _float = 1e-08) -> Self:
        """Return x1 . x2 / (max(|x1|, eps) max(|x2|, eps)) along `axis` of x1 * x2."""
    @overload
    def cosine_similarity(self, x2: Any, dim: _int = 1, eps: _float = 1e-08) -> Self: ...
    def outer(self, other: Any) -> Self:
        """Return the products of each element of x with each of `other`: (N,), (M,) -> (N, M)."""
    def linear(self, weight: Any, bias: Any | None = None) -> Self:
        """Return x @ weight.T + bias: (..., K), (N, K), (N,) -> (..., N). Raises ShapeError if K
        differs."""
    @staticmethod
    def einsum(formula: str, *operands: Any) -> Any:
        """Return the sum of products over the letters that the result lacks: einsum("bij,bjk->bik", a,
        b) is a batched matrix product."""
    def sequential(self, functions: Sequence[Callable[[Any], Any]]) -> Self:
        """Return the last of the functions of ... of the first of x."""
    def scaled_dot_product_attention(self, k: Any, v: Any, attn_mask: Any = None, dropout_p: _float = 0.0, is_causal: _bool = False, scale: _float | None = None, enable_gqa: _bool = False, causal: Corner = 'upper_left', window: _int | None = None, bias: Any = None, alibi: Sequence[_float] | None = None, method: Method = 'auto', return_weights: _bool = False) -> Self:
        """Return softmax(scale q k^T + mask + bias) v."""
    @overload
    def layernorm(self, axis: _int | tuple[_int, ...] = -1, eps: _float = 1e-05) -> Self:
        """Return (x - mean) / sqrt(var + eps) over `axis`."""
    @overload
    def layernorm(self, dim: _int | tuple[_int, ...] = -1, eps: _float = 1e-05) -> Self: ...
    @overload
    def rms_norm(self, axis: _int | tuple[_int, ...] = -1, eps: _float = 1e-06) -> Self:
        """Return x / sqrt(mean(x^2) + eps) over `axis`."""
    @overload
    def rms_norm(self, dim: _int | tuple[_int, ...] = -1, eps: _float = 1e-06) -> Self: ...
    @overload
    def batchnorm(self, weight: Any, bias: Any, mean: Any, invstd: Any, axis: _int = 1) -> Self:
        """Return (x - mean) invstd weight + bias, each of them one number per index of `axis`; weight
        and bias may be None."""
    @overload
    def batchnorm(self, weight: Any, bias: Any, mean: Any, invstd: Any, dim: _int = 1) -> Self: ...
    def mse(self, target: Any, reduction: Reduce = 'mean') -> Self:
        """Return (x - target)^2, averaged. Raises ShapeError if the shapes differ."""
    @overload
    def nll_loss(self, target: Any, weight: Any = None, axis: _int | None = None, ignore_index: _int = -100, reduction: Reduce = 'mean') -> Self:
        """Return -log_p[target] for log-probabilities and targets, averaged over the targets that are
        not ignore_index."""
    @overload
    def nll_loss(self, target: Any, weight: Any = None, dim: _int | None = None, ignore_index: _int = -100, reduction: Reduce = 'mean') -> Self: ...
    @overload
    def cross_entropy(self, target: Any, weight: Any = None, axis: _int | None = None, ignore_index: _int = -100, label_smoothing: _float = 0.0, reduction: Reduce = 'mean') -> Self:
        """Return -log softmax(logits)[target], averaged over the targets that are not ignore_index."""
    @overload
    def cross_entropy(self, target: Any, weight: Any = None, dim: _int | None = None, ignore_index: _int = -100, label_smoothing: _float = 0.0, reduction: Reduce = 'mean') -> Self: ...
    def binary_crossentropy(self, target: Any, weight: Any = None, reduction: Reduce = 'mean') -> Self:
        """Return -target log p - (1 - target) log(1 - p), averaged, for probabilities p."""
    def binary_crossentropy_logits(self, target: Any, weight: Any = None, reduction: Reduce = 'mean', pos_weight: Any = None) -> Self:
        """Return binary_cross_entropy(sigmoid(x), target) without overflow: log(1 + exp(x)) - target x."""
    def sparse_categorical_crossentropy(self, target: Any, ignore_index: _int = -1, label_smoothing: _float = 0.0, reduction: Reduce = 'mean') -> Self:
        """Return cross_entropy by its other name, where ignore_index is -1."""
    def conv1d(self, weight: Any, bias: Any = None, stride: Sizes = 1, padding: Sizes | Literal['same', 'valid'] = 0, dilation: Sizes = 1, groups: _int = 1) -> Self:
        """Return the cross-correlation of x with `weight` over the last axes."""
    def conv2d(self, weight: Any, bias: Any = None, stride: Sizes = 1, padding: Sizes | Literal['same', 'valid'] = 0, dilation: Sizes = 1, groups: _int = 1) -> Self:
        """Return the cross-correlation of x with `weight` over the last axes."""
    def max_pool2d(self, kernel_size: Sizes = 2, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1, ceil_mode: _bool = False) -> Self:
        """Return the largest element of each window over the last axes; ties share the gradient
        evenly. stride is kernel_size unless given."""
    def avg_pool2d(self, kernel_size: Sizes = 2, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: _bool = False, count_include_pad: _bool = True) -> Self:
        """Return the mean of each window over the last axes; stride is kernel_size unless given."""
    @overload
    def gather(self, axis: _int, index: Any) -> Self:
        """Return y[i, j, ...] = x[i, .., index[i, j, ...], ..], the index standing on `axis`."""
    @overload
    def gather(self, dim: _int, index: Any) -> Self: ...
    @overload
    def scatter(self, axis: _int, index: Any, src: Any, reduce: str | None = None) -> Self:
        """Return x with y[.., index[i, j, ...], ..] = src[i, j, ...], the index standing on `axis`; of
        several writers to one place the last wins."""
    @overload
    def scatter(self, dim: _int, index: Any, src: Any, reduce: str | None = None) -> Self: ...
    @overload
    def scatter_reduce(self, axis: _int, index: Any, src: Any, reduce: str, include_self: _bool = True) -> Self:
        """Return x with the elements of src that share a place, and the element of x there, combined:
        reduce="sum", "prod", "mean", "amax" or "amin"."""
    @overload
    def scatter_reduce(self, dim: _int, index: Any, src: Any, reduce: str, include_self: _bool = True) -> Self: ...
    @overload
    def scatter_add(self, axis: _int, index: Any, src: Any) -> Self:
        """Return x with src[i, j, ...] added at [.., index[i, j, ...], ..], the index on `axis`."""
    @overload
    def scatter_add(self, dim: _int, index: Any, src: Any) -> Self: ...
    @overload
    def index_add(self, axis: _int, index: Any, source: Any, alpha: _float = 1) -> Self:
        """Return x with alpha times the i-th slice of source along `axis` added to slice index[i]."""
    @overload
    def index_add(self, dim: _int, index: Any, source: Any, alpha: _float = 1) -> Self: ...
    @overload
    def index_select(self, axis: _int, index: Any) -> Self:
        """Return the slices of x along `axis` that a vector of integers names. Raises IndexRangeError
        for one outside 0 .. size - 1."""
    @overload
    def index_select(self, dim: _int, index: Any) -> Self: ...
    def bincount(self, weights: Any | None = None, minlength: _int = 0) -> Self:
        """Return how often each integer 0, 1, ... occurs in the vector x, or the sum of the weights
        there; at least minlength numbers."""
    def searchsorted(self, values: Any, right: _bool = False) -> Self:
        """Return where each value belongs in the sorted vector: before its equals, or after them
        (right=True). int64."""
    def unique(self, return_inverse: _bool = False, return_counts: _bool = False) -> Self:
        """Return the distinct elements of x in order; if asked for, with where each element of x stands
        among them, and how often each occurs."""
    def one_hot(self, num_classes: _int = -1) -> Self:
        """Return 1 at the place that each index names on a new last axis, else 0, int64. -1: one class
        more than the largest index."""
    def nonzero(self, as_tuple: _bool = False) -> Self:
        """Return the indices of the elements that are not 0: (count, ndim), int64; or one vector per
        axis."""
    def cast(self, dtype: Any) -> Self:
        """Return x in another dtype; x itself if it has it already."""
    def to(self, *wanted: Any, **options: Any) -> Self:
        """Return x in another dtype, or x itself: to(dtype), to(device), to(device, dtype). "cpu" is
        the only device."""
    def type_as(self, other: Any) -> Self:
        """Return x in the dtype of `other`."""
    def float(self) -> Self:
        """Return x in float32."""
    def double(self) -> Self:
        """Return x in float64."""
    def half(self) -> Self:
        """Return x in float16."""
    def bfloat16(self) -> Self:
        """Return x in bfloat16."""
    def int(self) -> Self:
        """Return x in int32."""
    def long(self) -> Self:
        """Return x in int64."""
    def bool(self) -> Self:
        """Return x in bool."""
    def clone(self) -> Self:
        """Return the same elements in new memory, in row-major order."""
    def contiguous(self) -> Self:
        """Return x, or a copy in row-major order if it is not in that order."""
    def isclose(self, other: Any, rtol: _float = 1e-05, atol: _float = 1e-08, equal_nan: _bool = False) -> Self:
        """Return True where |x - other| <= atol + rtol |other|, or both are the same infinity."""
    def allclose(self, other: Any, rtol: _float = 1e-05, atol: _float = 1e-08, equal_nan: _bool = False) -> _bool:
        """Return True if all elements are close, as by isclose."""
    def equal(self, other: Any) -> _bool:
        """Return True if the shapes are equal and all elements too."""
