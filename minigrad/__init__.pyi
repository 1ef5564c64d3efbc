"""Written by `python tools/make_docs.py`; do not edit."""

from builtins import bool as _bool, float as _float, int as _int
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, overload

from minigrad.dtypes import DType
from minigrad.ops.loss import Reduce
from minigrad.random import Generator

from minigrad import dtypes as dtypes
from minigrad import func as func
from minigrad import functional as functional
from minigrad import ops as ops
from minigrad import random as random
from minigrad.autograd import grad as grad
from minigrad.dtypes import bfloat16 as bfloat16
from minigrad.dtypes import float16 as float16
from minigrad.dtypes import float32 as float32
from minigrad.dtypes import float64 as float64
from minigrad.dtypes import int32 as int32
from minigrad.dtypes import int64 as int64
from minigrad.func import checkpoint as checkpoint
from minigrad.listeners import debug as debug
from minigrad.listeners import profile as profile
from minigrad.modes import enable_grad as enable_grad
from minigrad.modes import is_grad_enabled as is_grad_enabled
from minigrad.modes import no_grad as no_grad
from minigrad.modes import set_grad_enabled as set_grad_enabled
from minigrad.precision import get_matmul_precision as get_matmul_precision
from minigrad.precision import set_float32_matmul_precision as set_float32_matmul_precision
from minigrad.precision import set_matmul_precision as set_matmul_precision
from minigrad.primitive import primitive as primitive
from minigrad.random import Generator as Generator
from minigrad.random import manual_seed as manual_seed
from minigrad.tensor import Tensor as Tensor
from minigrad.tensor.functions import as_tensor as as_tensor
from minigrad.tensor.functions import from_numpy as from_numpy
from minigrad.tensor.functions import is_tensor as is_tensor
from minigrad.tensor.functions import tensor as tensor
from minigrad import arguments as arguments
from minigrad import autograd as autograd
from minigrad import cli as cli
from minigrad import columns as columns
from minigrad import compiler as compiler
from minigrad import counterparts as counterparts
from minigrad import data as data
from minigrad import distributed as distributed
from minigrad import errors as errors
from minigrad import evaluate as evaluate
from minigrad import files as files
from minigrad import finetune as finetune
from minigrad import heap as heap
from minigrad import interop as interop
from minigrad import listeners as listeners
from minigrad import models as models
from minigrad import modes as modes
from minigrad import nn as nn
from minigrad import optim as optim
from minigrad import precision as precision
from minigrad import start as start
from minigrad import tape as tape
from minigrad import testing as testing
from minigrad import text as text
from minigrad import train as train
from minigrad import viz as viz
from minigrad.compiler.jit import jit as jit
from minigrad.files import load as load, save as save
from minigrad.dtypes import DType as _DType

Axis = _int | tuple[_int, ...] | None
Sizes = _int | Sequence[_int]
class _Indexed(NamedTuple):
    values: Tensor
    indices: Tensor
Corner = Literal["upper_left", "lower_right"]
Method = Literal["auto", "plain", "flash"]

__version__: str
bool: _DType
uint8: _DType
int8: _DType
int16: _DType
half: _DType
float: _DType
double: _DType
int: _DType
long: _DType
pi: _float
e: _float
inf: _float
nan: _float
newaxis: None
def abs(x: Any) -> Tensor:
    """Return |x|. Slope 0 at 0."""
def absolute(x: Any) -> Tensor:
    """Return |x|. Slope 0 at 0."""
def acos(x: Any) -> Tensor:
    """Return the arc cosine; NaN if |x| > 1."""
def acosh(x: Any) -> Tensor:
    """Return the inverse of cosh; NaN below 1."""
def add(a: Any, b: Any) -> Tensor:
    """Return a + b."""
@overload
def all(x: Any, axis: Axis = None, keepdim: _bool = False) -> Tensor:
    """Return True where every element along `axis` is true (not zero)."""
@overload
def all(x: Any, dim: Axis = None, keepdim: _bool = False) -> Tensor: ...
@overload
def all(x: Any, axis: Axis = None, keepdims: _bool = False) -> Tensor: ...
def allclose(x: Any, other: Any, rtol: _float = 1e-05, atol: _float = 1e-08, equal_nan: _bool = False) -> _bool:
    """Return True if all elements are close, as by isclose."""
@overload
def amax(x: Any, axis: Axis = None, keepdim: _bool = False) -> Tensor:
    """Return the largest along `axis`; NaN if there is one. Ties share the gradient evenly. Raises
    ShapeError for an empty axis."""
@overload
def amax(x: Any, dim: Axis = None, keepdim: _bool = False) -> Tensor: ...
@overload
def amax(x: Any, axis: Axis = None, keepdims: _bool = False) -> Tensor: ...
@overload
def amin(x: Any, axis: Axis = None, keepdim: _bool = False) -> Tensor:
    """Return the smallest along `axis`; NaN if there is one. Ties share the gradient evenly. Raises
    ShapeError for an empty axis."""
@overload
def amin(x: Any, dim: Axis = None, keepdim: _bool = False) -> Tensor: ...
@overload
def amin(x: Any, axis: Axis = None, keepdims: _bool = False) -> Tensor: ...
@overload
def any(x: Any, axis: Axis = None, keepdim: _bool = False) -> Tensor:
    """Return True where some element along `axis` is true (not zero)."""
@overload
def any(x: Any, dim: Axis = None, keepdim: _bool = False) -> Tensor: ...
@overload
def any(x: Any, axis: Axis = None, keepdims: _bool = False) -> Tensor: ...
def arange(start: _float, stop: _float | None = None, step: _float = 1, dtype: Any = None, requires_grad: _bool = False, device: Any = None) -> Tensor:
    """Return start, start + step, ... below stop; arange(n) is 0 .. n - 1. int64 if all are
    integers, else float32."""
def arccos(x: Any) -> Tensor:
    """Return the arc cosine; NaN if |x| > 1."""
def arcsin(x: Any) -> Tensor:
    """Return the arc sine; NaN if |x| > 1."""
def arctan(x: Any) -> Tensor:
    """Return the arc tangent."""
@overload
def argmax(x: Any, axis: _int | None = None, keepdim: _bool = False) -> Tensor:
    """Return the index of the first largest element along `axis` (None: in the flattened tensor),
    as int64."""
@overload
def argmax(x: Any, dim: _int | None = None, keepdim: _bool = False) -> Tensor: ...
@overload
def argmax(x: Any, axis: _int | None = None, keepdims: _bool = False) -> Tensor: ...
@overload
def argmin(x: Any, axis: _int | None = None, keepdim: _bool = False) -> Tensor:
    """Return the index of the first smallest element along `axis` (None: in the flattened tensor),
    as int64."""
@overload
def argmin(x: Any, dim: _int | None = None, keepdim: _bool = False) -> Tensor: ...
@overload
def argmin(x: Any, axis: _int | None = None, keepdims: _bool = False) -> Tensor: ...
@overload
def argsort(x: Any, axis: _int = -1, descending: _bool = False, stable: _bool = True) -> Tensor:
    """Return the indices that sort x along `axis`; a NaN counts as the largest. Always stable:
    equal elements stay in their own order. int64."""
@overload
def argsort(x: Any, dim: _int = -1, descending: _bool = False, stable: _bool = True) -> Tensor: ...
def asin(x: Any) -> Tensor:
    """Return the arc sine; NaN if |x| > 1."""
def asinh(x: Any) -> Tensor:
    """Return the inverse of sinh."""
def atan(x: Any) -> Tensor:
    """Return the arc tangent."""
def atan2(a: Any, b: Any) -> Tensor:
    """Return the angle of the point (b, a), from -pi to pi."""
def atanh(x: Any) -> Tensor:
    """Return the inverse of tanh; inf at 1."""
def avg_pool2d(x: Any, kernel_size: Sizes = 2, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: _bool = False, count_include_pad: _bool = True) -> Tensor:
    """Return the mean of each window over the last axes; stride is kernel_size unless given."""
@overload
def batchnorm(x: Any, weight: Any, bias: Any, mean: Any, invstd: Any, axis: _int = 1) -> Tensor:
    """Return (x - mean) invstd weight + bias, each of them one number per index of `axis`; weight
    and bias may be None."""
@overload
def batchnorm(x: Any, weight: Any, bias: Any, mean: Any, invstd: Any, dim: _int = 1) -> Tensor: ...
def bernoulli(x: Any, p: Any = None, generator: Generator = ...) -> Tensor:
    """Return 1 with probability p, else 0, in this tensor's shape and dtype; p is a number or a
    tensor, unless given this tensor itself. No gradient flows."""
def binary_crossentropy(p: Any, target: Any, weight: Any = None, reduction: Reduce = 'mean') -> Tensor:
    """Return -target log p - (1 - target) log(1 - p), averaged, for probabilities p."""
def binary_crossentropy_logits(x: Any, target: Any, weight: Any = None, reduction: Reduce = 'mean', pos_weight: Any = None) -> Tensor:
    """Return binary_cross_entropy(sigmoid(x), target) without overflow: log(1 + exp(x)) - target x."""
def bincount(x: Any, weights: Any | None = None, minlength: _int = 0) -> Tensor:
    """Return how often each integer 0, 1, ... occurs in the vector x, or the sum of the weights
    there; at least minlength numbers."""
def bitwise_and(a: Any, b: Any) -> Tensor:
    """Return a & b. Raises DTypeError for floats."""
def bitwise_not(x: Any) -> Tensor:
    """Return ~x: for bools, not x."""
def bitwise_or(a: Any, b: Any) -> Tensor:
    """Return a | b. Raises DTypeError for floats."""
def bitwise_xor(a: Any, b: Any) -> Tensor:
    """Return a ^ b. Raises DTypeError for floats."""
def bmm(a: Any, b: Any) -> Tensor:
    """Return the matrix product over the last two axes: (..., M, K) @ (..., K, N) -> (..., M, N);
    leading axes broadcast."""
def broadcast_to(x: Any, *shape: Sizes) -> Tensor:
    """Return x broadcast to `shape`, without a copy; -1 keeps a size."""
def cast(x: Any, dtype: Any) -> Tensor:
    """Return x in another dtype; x itself if it has it already."""
@overload
def cat(tensors: Any, *others: Any, axis: _int = 0) -> Tensor:
    """Return the tensors one after the other along `axis`; all other sizes must agree:
    cat([a, b], dim=1) or a.cat(b, dim=1)."""
@overload
def cat(tensors: Any, *others: Any, dim: _int = 0) -> Tensor: ...
def ceil(x: Any) -> Tensor:
    """Return the smallest integer >= x. Piecewise constant: gradient 0."""
def celu(x: Any, alpha: _float = 1.0, *, inplace: Literal[False] = False) -> Tensor:
    """Return x where x > 0, else alpha (exp(x / alpha) - 1). From Barron 2017, arXiv:1704.07483."""
@overload
def chunk(x: Any, n: _int, axis: _int = 0) -> tuple[Tensor, ...]:
    """Return at most n pieces of equal size along `axis` (the last may be smaller)."""
@overload
def chunk(x: Any, n: _int, dim: _int = 0) -> tuple[Tensor, ...]: ...
def clamp(x: Any, min: Any = None, max: Any = None) -> Tensor:
    """Return min(max(x, low), high); a bound may be None. The gradient passes at the bounds."""
def clip(x: Any, min: Any = None, max: Any = None) -> Tensor:
    """Return min(max(x, low), high); a bound may be None. The gradient passes at the bounds."""
def clone(x: Any) -> Tensor:
    """Return the same elements in new memory, in row-major order."""
def contiguous(x: Any) -> Tensor:
    """Return x, or a copy in row-major order if it is not in that order."""
def conv1d(x: Any, weight: Any, bias: Any = None, stride: Sizes = 1, padding: Sizes | Literal['same', 'valid'] = 0, dilation: Sizes = 1, groups: _int = 1) -> Tensor:
    """Return the cross-correlation of x with `weight` over the last axes."""
def conv2d(x: Any, weight: Any, bias: Any = None, stride: Sizes = 1, padding: Sizes | Literal['same', 'valid'] = 0, dilation: Sizes = 1, groups: _int = 1) -> Tensor:
    """Return the cross-correlation of x with `weight` over the last axes."""
def copysign(a: Any, b: Any) -> Tensor:
    """Return |a| with the sign of b. Slope 0 at a = 0."""
def cos(x: Any) -> Tensor:
    """Return the cosine."""
def cosh(x: Any) -> Tensor:
    """Return the hyperbolic cosine."""
@overload
def cosine_similarity(x1: Any, x2: Any, axis: _int = 1, eps: _float = 1e-08) -> Tensor:
    """Return x1 . x2 / (max(|x1|, eps) max(|x2|, eps)) along `axis` of x1 * x2."""
@overload
def cosine_similarity(x1: Any, x2: Any, dim: _int = 1, eps: _float = 1e-08) -> Tensor: ...
@overload
def cross_entropy(logits: Any, target: Any, weight: Any = None, axis: _int | None = None, ignore_index: _int = -100, label_smoothing: _float = 0.0, reduction: Reduce = 'mean') -> Tensor:
    """Return -log softmax(logits)[target], averaged over the targets that are not ignore_index."""
@overload
def cross_entropy(logits: Any, target: Any, weight: Any = None, dim: _int | None = None, ignore_index: _int = -100, label_smoothing: _float = 0.0, reduction: Reduce = 'mean') -> Tensor: ...
@overload
def cummax(x: Any, axis: _int = 0) -> tuple[Tensor, Tensor]:
    """Return the largest of the first 1, 2, ... elements along `axis`, and its index. The gradient
    goes to that element."""
@overload
def cummax(x: Any, dim: _int = 0) -> tuple[Tensor, Tensor]: ...
@overload
def cummin(x: Any, axis: _int = 0) -> tuple[Tensor, Tensor]:
    """Return the smallest of the first 1, 2, ... elements along `axis`, and its index. The gradient
    goes to that element."""
@overload
def cummin(x: Any, dim: _int = 0) -> tuple[Tensor, Tensor]: ...
@overload
def cumprod(x: Any, axis: _int = 0, *, dtype: Any = None) -> Tensor:
    """Return the products of the first 1, 2, ... elements along `axis`."""
@overload
def cumprod(x: Any, dim: _int = 0, *, dtype: Any = None) -> Tensor: ...
@overload
def cumsum(x: Any, axis: _int = 0, *, dtype: Any = None) -> Tensor:
    """Return the sums of the first 1, 2, ... elements along `axis`. Floats are added in float64,
    bools and small integers in int64."""
@overload
def cumsum(x: Any, dim: _int = 0, *, dtype: Any = None) -> Tensor: ...
def diag(x: Any, offset: _int = 0) -> Tensor:
    """Return the matrix with the vector x on a diagonal; of a matrix, its diagonal."""
def diagonal(x: Any, offset: _int = 0, dim1: _int = 0, dim2: _int = 1) -> Tensor:
    """Return the elements with equal indices on the two axes (the second's larger by `offset`), as
    a new last axis: a view."""
@overload
def diff(x: Any, n: _int = 1, axis: _int = -1) -> Tensor:
    """Return the differences of neighbours along `axis`, x[i + 1] - x[i], taken n times. Of bools,
    True where they differ."""
@overload
def diff(x: Any, n: _int = 1, dim: _int = -1) -> Tensor: ...
def div(a: Any, b: Any, rounding_mode: str | None = None) -> Tensor:
    """Return a / b; the quotient rounded down with rounding_mode="floor", towards 0 with "trunc".
    The gradient of a rounded quotient is 0."""
def divide(a: Any, b: Any, rounding_mode: str | None = None) -> Tensor:
    """Return a / b; the quotient rounded down with rounding_mode="floor", towards 0 with "trunc".
    The gradient of a rounded quotient is 0."""
def dot(a: Any, b: Any) -> Tensor:
    """Return the matrix product over the last two axes: (..., M, K) @ (..., K, N) -> (..., M, N);
    leading axes broadcast."""
def dropout(x: Any, p: _float = 0.5, training: _bool = True, generator: Generator = ..., *, inplace: Literal[False] = False) -> Tensor:
    """Return x with each element 0 with probability p, else scaled by 1 / (1 - p); x itself
    outside training. From Srivastava et al. 2014."""
def einsum(formula: str, *operands: Any) -> Tensor:
    """Return the sum of products over the letters that the result lacks: einsum("bij,bjk->bik", a,
    b) is a batched matrix product."""
def elu(x: Any, alpha: _float = 1.0, *, inplace: Literal[False] = False) -> Tensor:
    """Return x where x > 0, else alpha (exp(x) - 1). From Clevert et al. 2015, arXiv:1511.07289."""
def empty(*shape: Sizes, dtype: Any = None, requires_grad: _bool = False, device: Any = None) -> Tensor:
    """Return a tensor for elements that will be written before they are read. They are 0 here,
    so that nothing depends on chance."""
def empty_like(x: Any, dtype: Any = None, **options: Any) -> Tensor:
    """Return zeros, to be written before they are read, of this tensor's shape and (unless given) dtype."""
def eq(a: Any, b: Any) -> Tensor:
    """Return a == b, as bool."""
def equal(x: Any, other: Any) -> _bool:
    """Return True if the shapes are equal and all elements too."""
def erf(x: Any) -> Tensor:
    """Return 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
def erfc(x: Any) -> Tensor:
    """Return 1 - erf(x), for large x."""
def exp(x: Any) -> Tensor:
    """Return e ** x."""
def exp2(x: Any) -> Tensor:
    """Return 2 ** x."""
def expand(x: Any, *shape: Sizes) -> Tensor:
    """Return x broadcast to `shape`, without a copy; -1 keeps a size."""
def expand_as(x: Any, other: Any) -> Tensor:
    """Return x broadcast to the shape of `other`, without a copy."""
def expm1(x: Any) -> Tensor:
    """Return e ** x - 1, exact for small x."""
def eye(n: _int, m: _int | None = None, dtype: Any = None, requires_grad: _bool = False, device: Any = None) -> Tensor:
    """Return the n x m matrix (m = n if not given) with ones on its diagonal."""
def flatten(x: Any, start_dim: _int = 0, end_dim: _int = -1) -> Tensor:
    """Return x with the axes start_dim .. end_dim joined."""
def flip(x: Any, *axis: Any) -> Tensor:
    """Return x in reverse order along each axis given, or along all: flip(0), flip(0, 1)."""
def floor(x: Any) -> Tensor:
    """Return the largest integer <= x. Piecewise constant: gradient 0."""
def floor_divide(a: Any, b: Any) -> Tensor:
    """Return floor(a / b); for integers divided by zero 0, with numpy's warning. Gradient 0."""
def fmod(a: Any, b: Any) -> Tensor:
    """Return a - b * trunc(a / b): the remainder with the sign of a, as in C."""
def from_dlpack(source: Any) -> Tensor:
    """A tensor on the memory of another library's array (CPU), not a copy: each sees what the
    other writes."""
def full(shape: Sizes, value: _float, dtype: Any = None, requires_grad: _bool = False, device: Any = None) -> Tensor:
    """Return a tensor with all elements `value`: without a dtype float32 for a float, int64 for
    an integer, bool for a bool."""
def full_like(x: Any, value: _float, dtype: Any = None, **options: Any) -> Tensor:
    """Return a tensor of this one's shape and, unless given, dtype, filled with `value`."""
@overload
def gather(x: Any, axis: _int, index: Any) -> Tensor:
    """Return y[i, j, ...] = x[i, .., index[i, j, ...], ..], the index standing on `axis`."""
@overload
def gather(x: Any, dim: _int, index: Any) -> Tensor: ...
def ge(a: Any, b: Any) -> Tensor:
    """Return a >= b, as bool."""
def gelu(x: Any, approximate: Literal['none', 'tanh'] = 'none') -> Tensor:
    """Return x Phi(x), Phi the normal distribution function."""
def glorot_uniform(*shape: Sizes, dtype: Any = None, requires_grad: _bool = False, device: Any = None, generator: Generator = ...) -> Tensor:
    """Return uniform numbers in (-b, b) with b = sqrt(6 / (in + out)) for a weight
    (out, in, ...). From Glorot and Bengio 2010."""
def gt(a: Any, b: Any) -> Tensor:
    """Return a > b, as bool."""
def hardsigmoid(x: Any, *, inplace: Literal[False] = False) -> Tensor:
    """Return relu6(x + 3) / 6, a sigmoid of three straight lines."""
def hardswish(x: Any, *, inplace: Literal[False] = False) -> Tensor:
    """Return x hardsigmoid(x). From Howard et al. 2019, arXiv:1905.02244."""
def hardtanh(x: Any, min_val: _float = -1.0, max_val: _float = 1.0, *, inplace: Literal[False] = False) -> Tensor:
    """Return x between min_val and max_val, and these beyond. The gradient at the bounds is 0 (that
    of clamp is 1)."""
def hstack(*xs: Any) -> Tensor:
    """Return the operands one after the other along axis 1, numbers and vectors along axis 0."""
def hypot(a: Any, b: Any) -> Tensor:
    """Return sqrt(a^2 + b^2), without overflow; slope 0 at 0."""
@overload
def index_add(x: Any, axis: _int, index: Any, source: Any, alpha: _float = 1) -> Tensor:
    """Return x with alpha times the i-th slice of source along `axis` added to slice index[i]."""
@overload
def index_add(x: Any, dim: _int, index: Any, source: Any, alpha: _float = 1) -> Tensor: ...
@overload
def index_select(x: Any, axis: _int, index: Any) -> Tensor:
    """Return the slices of x along `axis` that a vector of integers names. Raises IndexRangeError
    for one outside 0 .. size - 1."""
@overload
def index_select(x: Any, dim: _int, index: Any) -> Tensor: ...
def isclose(x: Any, other: Any, rtol: _float = 1e-05, atol: _float = 1e-08, equal_nan: _bool = False) -> Tensor:
    """Return True where |x - other| <= atol + rtol |other|, or both are the same infinity."""
def isfinite(x: Any) -> Tensor:
    """Return True where x is neither NaN nor infinite."""
def isinf(x: Any) -> Tensor:
    """Return True where x is +inf or -inf."""
def isnan(x: Any) -> Tensor:
    """Return True where x is not a number."""
def kaiming_normal(*shape: Sizes, a: _float = 0.01, dtype: Any = None, requires_grad: _bool = False, device: Any = None, generator: Generator = ...) -> Tensor:
    """Return normal numbers with std = sqrt(2 / ((1 + a^2) in)) for a weight (out, in, ...).
    From He et al. 2015, arXiv:1502.01852."""
def kaiming_uniform(*shape: Sizes, a: _float = 0.01, dtype: Any = None, requires_grad: _bool = False, device: Any = None, generator: Generator = ...) -> Tensor:
    """Return uniform numbers in (-b, b) with b = sqrt(6 / ((1 + a^2) in)) for a weight
    (out, in, ...). From He et al. 2015, arXiv:1502.01852."""
@overload
def layernorm(x: Any, axis: _int | tuple[_int, ...] = -1, eps: _float = 1e-05) -> Tensor:
    """Return (x - mean) / sqrt(var + eps) over `axis`."""
@overload
def layernorm(x: Any, dim: _int | tuple[_int, ...] = -1, eps: _float = 1e-05) -> Tensor: ...
def le(a: Any, b: Any) -> Tensor:
    """Return a <= b, as bool."""
def leaky_relu(x: Any, negative_slope: _float = 0.01, *, inplace: Literal[False] = False) -> Tensor:
    """Return x where x > 0, else negative_slope x."""
def lerp(a: Any, b: Any, weight: Any) -> Tensor:
    """Return a + weight (b - a): a at 0, b at 1."""
def linear(x: Any, weight: Any, bias: Any | None = None) -> Tensor:
    """Return x @ weight.T + bias: (..., K), (N, K), (N,) -> (..., N). Raises ShapeError if K
    differs."""
def linspace(start: _float, stop: _float, steps: _int, dtype: Any = None, requires_grad: _bool = False, device: Any = None) -> Tensor:
    """Return `steps` numbers at equal distances from start to stop, both included."""
def log(x: Any) -> Tensor:
    """Return the natural logarithm; -inf at 0, NaN below."""
def log10(x: Any) -> Tensor:
    """Return the logarithm to base 10."""
def log1p(x: Any) -> Tensor:
    """Return log(1 + x), exact for small x."""
def log2(x: Any) -> Tensor:
    """Return the logarithm to base 2."""
@overload
def log_softmax(x: Any, axis: _int = -1, *, dtype: Any = None) -> Tensor:
    """Return log(softmax(x)) = x - logsumexp(x) along `axis`; a row of -inf stays -inf; +inf gives
    0, and -inf to all others."""
@overload
def log_softmax(x: Any, dim: _int = -1, *, dtype: Any = None) -> Tensor: ...
def logaddexp(a: Any, b: Any) -> Tensor:
    """Return log(exp(a) + exp(b)), without overflow."""
@overload
def logcumsumexp(x: Any, axis: _int = 0) -> Tensor:
    """Return log of the sums of the first 1, 2, ... elements' exponentials, without overflow.
    Computed in float64."""
@overload
def logcumsumexp(x: Any, dim: _int = 0) -> Tensor: ...
def logical_and(a: Any, b: Any) -> Tensor:
    """Return True where both are nonzero."""
def logical_not(x: Any) -> Tensor:
    """Return True where x is zero."""
def logical_or(a: Any, b: Any) -> Tensor:
    """Return True where either is nonzero."""
def logical_xor(a: Any, b: Any) -> Tensor:
    """Return True where exactly one is nonzero."""
def logsigmoid(x: Any) -> Tensor:
    """Return log(sigmoid(x)) = -softplus(-x)."""
@overload
def logsumexp(x: Any, axis: Axis = None, keepdim: _bool = False, *, dtype: Any = None) -> Tensor:
    """Return log(sum(exp(x))) along `axis`, without overflow: the maximum is subtracted first. -inf
    for an empty or all -inf axis."""
@overload
def logsumexp(x: Any, dim: Axis = None, keepdim: _bool = False, *, dtype: Any = None) -> Tensor: ...
@overload
def logsumexp(x: Any, axis: Axis = None, keepdims: _bool = False, *, dtype: Any = None) -> Tensor: ...
def lt(a: Any, b: Any) -> Tensor:
    """Return a < b, as bool."""
def masked_fill(x: Any, mask: Any, value: Any) -> Tensor:
    """Return `value` where `mask` is true, else x. The dtype stays."""
def masked_select(x: Any, mask: Any) -> Tensor:
    """Return the elements where `mask` (bool, of this shape or broadcasting to it) is true, as
    a vector."""
def matmul(a: Any, b: Any) -> Tensor:
    """Return the matrix product over the last two axes: (..., M, K) @ (..., K, N) -> (..., M, N);
    leading axes broadcast."""
@overload
def max(x: Any, axis: Axis = None, keepdim: _bool = False) -> Tensor:
    """Return the largest along `axis`; NaN if there is one. Ties share the gradient evenly. Raises
    ShapeError for an empty axis."""
@overload
def max(x: Any, dim: Axis = None, keepdim: _bool = False) -> Tensor: ...
@overload
def max(x: Any, axis: Axis = None, keepdims: _bool = False) -> Tensor: ...
def max_pool2d(x: Any, kernel_size: Sizes = 2, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1, ceil_mode: _bool = False) -> Tensor:
    """Return the largest element of each window over the last axes; ties share the gradient
    evenly. stride is kernel_size unless given."""
@overload
def max_with_index(x: Any, axis: _int, keepdim: _bool = False) -> _Indexed:
    """Return the largest along `axis` and the index of the first of them: PyTorch's max(dim)."""
@overload
def max_with_index(x: Any, dim: _int, keepdim: _bool = False) -> _Indexed: ...
@overload
def max_with_index(x: Any, axis: _int, keepdims: _bool = False) -> _Indexed: ...
def maximum(a: Any, b: Any) -> Tensor:
    """Return the larger of a and b, or NaN. A tie splits the gradient."""
@overload
def mean(x: Any, axis: Axis = None, keepdim: _bool = False, *, dtype: Any = None) -> Tensor:
    """Return the mean along `axis`: sum / n."""
@overload
def mean(x: Any, dim: Axis = None, keepdim: _bool = False, *, dtype: Any = None) -> Tensor: ...
@overload
def mean(x: Any, axis: Axis = None, keepdims: _bool = False, *, dtype: Any = None) -> Tensor: ...
@overload
def median(x: Any, axis: _int | None = None, keepdim: _bool = False) -> Tensor:
    """Return the median along `axis` (None: of all), as in PyTorch: of an even number of elements
    the lower of the two in the middle. NaN if there is one. The gradient goes to that element."""
@overload
def median(x: Any, dim: _int | None = None, keepdim: _bool = False) -> Tensor: ...
@overload
def median(x: Any, axis: _int | None = None, keepdims: _bool = False) -> Tensor: ...
def meshgrid(*xs: Any, indexing: Literal['ij', 'xy'] = 'ij') -> tuple[Tensor, ...]:
    """Return the vectors as grids: all of shape (len(x0), len(x1), ...), the i-th varying along
    axis i; "xy" exchanges the first two axes."""
@overload
def min(x: Any, axis: Axis = None, keepdim: _bool = False) -> Tensor:
    """Return the smallest along `axis`; NaN if there is one. Ties share the gradient evenly. Raises
    ShapeError for an empty axis."""
@overload
def min(x: Any, dim: Axis = None, keepdim: _bool = False) -> Tensor: ...
@overload
def min(x: Any, axis: Axis = None, keepdims: _bool = False) -> Tensor: ...
@overload
def min_with_index(x: Any, axis: _int, keepdim: _bool = False) -> _Indexed:
    """Return the smallest along `axis` and the index of the first of them: PyTorch's min(dim)."""
@overload
def min_with_index(x: Any, dim: _int, keepdim: _bool = False) -> _Indexed: ...
@overload
def min_with_index(x: Any, axis: _int, keepdims: _bool = False) -> _Indexed: ...
def minimum(a: Any, b: Any) -> Tensor:
    """Return the smaller of a and b, or NaN. A tie splits the gradient."""
def mish(x: Any, *, inplace: Literal[False] = False) -> Tensor:
    """Return x tanh(softplus(x)). From Misra 2019, arXiv:1908.08681."""
def mm(a: Any, b: Any) -> Tensor:
    """Return the matrix product over the last two axes: (..., M, K) @ (..., K, N) -> (..., M, N);
    leading axes broadcast."""
def mod(a: Any, b: Any) -> Tensor:
    """Return a - b * floor(a / b): the remainder with the sign of b, as in Python. For integers
    divided by zero 0, with numpy's warning."""
def movedim(x: Any, source: Axis, destination: Axis) -> Tensor:
    """Return x with the axes `source` moved to `destination`, the others in their order."""
def mse(x: Any, target: Any, reduction: Reduce = 'mean') -> Tensor:
    """Return (x - target)^2, averaged. Raises ShapeError if the shapes differ."""
def mul(a: Any, b: Any) -> Tensor:
    """Return a * b."""
def multinomial(x: Any, num_samples: _int = 1, replacement: _bool = False, generator: Generator = ...) -> Tensor:
    """Return indices drawn with probabilities in proportion to the weights: (K,) ->
    (num_samples,), (N, K) -> (N, num_samples), int64."""
def multiply(a: Any, b: Any) -> Tensor:
    """Return a * b."""
def nan_to_num(x: Any, nan: _float = 0.0, posinf: _float | None = None, neginf: _float | None = None) -> Tensor:
    """Return x with `nan` for NaN, `posinf` and `neginf` for infinities; None: the largest and the
    least number of the dtype. The gradient passes where x is finite."""
@overload
def narrow(x: Any, axis: _int, start: _int, length: _int) -> Tensor:
    """Return the `length` elements from `start` on along `axis`; a negative start counts from the
    end."""
@overload
def narrow(x: Any, dim: _int, start: _int, length: _int) -> Tensor: ...
def ne(a: Any, b: Any) -> Tensor:
    """Return a != b, as bool."""
def neg(x: Any) -> Tensor:
    """Return -x."""
def negative(x: Any) -> Tensor:
    """Return -x."""
@overload
def nll_loss(log_p: Any, target: Any, weight: Any = None, axis: _int | None = None, ignore_index: _int = -100, reduction: Reduce = 'mean') -> Tensor:
    """Return -log_p[target] for log-probabilities and targets, averaged over the targets that are
    not ignore_index."""
@overload
def nll_loss(log_p: Any, target: Any, weight: Any = None, dim: _int | None = None, ignore_index: _int = -100, reduction: Reduce = 'mean') -> Tensor: ...
def nonzero(x: Any, as_tuple: _bool = False) -> Tensor:
    """Return the indices of the elements that are not 0: (count, ndim), int64; or one vector per
    axis."""
@overload
def norm(x: Any, p: _float | str = 2, axis: Axis = None, keepdim: _bool = False, *, dtype: Any = None) -> Tensor:
    """Return the p-norm of the vectors along `axis` (None: of all elements): (sum |x|^p)^(1/p)."""
@overload
def norm(x: Any, p: _float | str = 2, dim: Axis = None, keepdim: _bool = False, *, dtype: Any = None) -> Tensor: ...
@overload
def norm(x: Any, p: _float | str = 2, axis: Axis = None, keepdims: _bool = False, *, dtype: Any = None) -> Tensor: ...
def normal(*shape: Sizes, mean: _float = 0.0, std: _float = 1.0, dtype: Any = None, requires_grad: _bool = False, device: Any = None, generator: Generator = ...) -> Tensor:
    """Return normal numbers of the given mean and standard deviation."""
@overload
def normalize(x: Any, p: _float = 2.0, axis: Axis = 1, eps: _float = 1e-12) -> Tensor:
    """Return x / max(norm(x), eps), with the p-norm along `axis`."""
@overload
def normalize(x: Any, p: _float = 2.0, dim: Axis = 1, eps: _float = 1e-12) -> Tensor: ...
def one_hot(index: Any, num_classes: _int = -1) -> Tensor:
    """Return 1 at the place that each index names on a new last axis, else 0, int64. -1: one class
    more than the largest index."""
def ones(*shape: Sizes, dtype: Any = None, requires_grad: _bool = False, device: Any = None) -> Tensor:
    """Return a tensor with all elements 1."""
def ones_like(x: Any, dtype: Any = None, **options: Any) -> Tensor:
    """Return ones of this tensor's shape and (unless given) dtype."""
def outer(x: Any, other: Any) -> Tensor:
    """Return the products of each element of x with each of `other`: (N,), (M,) -> (N, M)."""
def pad(x: Any, pad: Sequence[Any], mode: str = 'constant', value: _float = 0.0) -> Tensor:
    """Return x with more elements around it: `value`, or its own by "reflect", "replicate" or
    "circular"."""
def permute(x: Any, *order: Sizes) -> Tensor:
    """Return x with its axes in another order: y.shape[i] = x.shape[order[i]]."""
def pow(x: Any, p: Any) -> Tensor:
    """Return x ** p."""
@overload
def prod(x: Any, axis: Axis = None, keepdim: _bool = False, *, dtype: Any = None) -> Tensor:
    """Return the product along `axis`; of nothing, 1. Each element's derivative is the product of
    all others, zeros among them or not."""
@overload
def prod(x: Any, dim: Axis = None, keepdim: _bool = False, *, dtype: Any = None) -> Tensor: ...
@overload
def prod(x: Any, axis: Axis = None, keepdims: _bool = False, *, dtype: Any = None) -> Tensor: ...
@overload
def quantile(x: Any, q: Any, axis: _int | None = None, keepdim: _bool = False, interpolation: str = 'linear') -> Tensor:
    """Return the q-quantile along `axis` (None: of all), 0 <= q <= 1, at place q (n - 1) of the
    sorted elements; NaN if there is one. A vector of q makes a new first axis."""
@overload
def quantile(x: Any, q: Any, dim: _int | None = None, keepdim: _bool = False, interpolation: str = 'linear') -> Tensor: ...
@overload
def quantile(x: Any, q: Any, axis: _int | None = None, keepdims: _bool = False, interpolation: str = 'linear') -> Tensor: ...
def quick_gelu(x: Any) -> Tensor:
    """Return x sigmoid(1.702 x), CLIP's approximation of gelu."""
def rand(*shape: Sizes, dtype: Any = None, requires_grad: _bool = False, device: Any = None, generator: Generator = ...) -> Tensor:
    """Return uniform numbers in [0, 1)."""
def rand_like(x: Any, dtype: Any = None, **options: Any) -> Tensor:
    """Return uniform numbers in [0, 1) of this tensor's shape and (unless given) dtype."""
def randint(*args: Any, low: _int | None = None, high: _int | None = None, size: Any = None, dtype: Any = None, requires_grad: _bool = False, device: Any = None, generator: Generator = ...) -> Tensor:
    """Return uniform integers low .. high - 1: randint(high, shape), randint(low, high, shape),
    or randint(*shape, low=0, high=10)."""
def randn(*shape: Sizes, dtype: Any = None, requires_grad: _bool = False, device: Any = None, generator: Generator = ...) -> Tensor:
    """Return normal numbers of mean 0 and standard deviation 1."""
def randn_like(x: Any, dtype: Any = None, **options: Any) -> Tensor:
    """Return normal numbers of this tensor's shape and (unless given) dtype."""
def randperm(n: _int, dtype: Any = None, requires_grad: _bool = False, device: Any = None, generator: Generator = ...) -> Tensor:
    """Return the integers 0 .. n - 1 in random order."""
def ravel(x: Any, start_dim: _int = 0, end_dim: _int = -1) -> Tensor:
    """Return x with the axes start_dim .. end_dim joined."""
def rearrange(x: Any, pattern: str, **sizes: _int) -> Tensor:
    """Return the axes of x, named on the left of "->", in the order and grouping of the right."""
def reciprocal(x: Any) -> Tensor:
    """Return 1 / x."""
def relu(x: Any, *, inplace: Literal[False] = False) -> Tensor:
    """Return max(x, 0). Slope 0 at 0."""
def relu6(x: Any, *, inplace: Literal[False] = False) -> Tensor:
    """Return min(relu(x), 6). The gradient at 0 and at 6 is 0."""
def remainder(a: Any, b: Any) -> Tensor:
    """Return a - b * floor(a / b): the remainder with the sign of b, as in Python. For integers
    divided by zero 0, with numpy's warning."""
def repeat(x: Any, *counts: Sizes) -> Tensor:
    """Return x put counts[i] times one after the other along axis i; further counts in front make
    new axes."""
@overload
def repeat_interleave(x: Any, repeats: _int | Sequence[_int], axis: _int | None = None) -> Tensor:
    """Return x with each element along `axis` repeated `repeats` times, one number for all or one
    for each; None: of the flat row."""
@overload
def repeat_interleave(x: Any, repeats: _int | Sequence[_int], dim: _int | None = None) -> Tensor: ...
def reshape(x: Any, *shape: Sizes) -> Tensor:
    """Return the same elements in row-major order under another shape; one size may be -1."""
@overload
def rms_norm(x: Any, axis: _int | tuple[_int, ...] = -1, eps: _float = 1e-06) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) over `axis`."""
@overload
def rms_norm(x: Any, dim: _int | tuple[_int, ...] = -1, eps: _float = 1e-06) -> Tensor: ...
@overload
def roll(x: Any, shifts: _int | Sequence[_int], axis: _int | Sequence[_int] | None = None) -> Tensor:
    """Return x with its elements moved by `shifts` along `axis`; those that fall off at the end
    come in at the front. None: as one flat row."""
@overload
def roll(x: Any, shifts: _int | Sequence[_int], dim: _int | Sequence[_int] | None = None) -> Tensor: ...
def round(x: Any, decimals: _int = 0) -> Tensor:
    """Return x rounded to the given number of decimals, halves to even. The dtype stays."""
def rsqrt(x: Any) -> Tensor:
    """Return 1 / sqrt(x)."""
def scaled_dot_product_attention(q: Any, k: Any, v: Any, attn_mask: Any = None, dropout_p: _float = 0.0, is_causal: _bool = False, scale: _float | None = None, enable_gqa: _bool = False, causal: Corner = 'upper_left', window: _int | None = None, bias: Any = None, alibi: Sequence[_float] | None = None, method: Method = 'auto', return_weights: _bool = False) -> Tensor:
    """Return softmax(scale q k^T + mask + bias) v."""
def scaled_uniform(*shape: Sizes, dtype: Any = None, requires_grad: _bool = False, device: Any = None, generator: Generator = ...) -> Tensor:
    """Return uniform numbers in (-b, b) with b = 1 / sqrt(number of elements)."""
@overload
def scatter(x: Any, axis: _int, index: Any, src: Any, reduce: str | None = None) -> Tensor:
    """Return x with y[.., index[i, j, ...], ..] = src[i, j, ...], the index standing on `axis`; of
    several writers to one place the last wins."""
@overload
def scatter(x: Any, dim: _int, index: Any, src: Any, reduce: str | None = None) -> Tensor: ...
@overload
def scatter_add(x: Any, axis: _int, index: Any, src: Any) -> Tensor:
    """Return x with src[i, j, ...] added at [.., index[i, j, ...], ..], the index on `axis`."""
@overload
def scatter_add(x: Any, dim: _int, index: Any, src: Any) -> Tensor: ...
@overload
def scatter_reduce(x: Any, axis: _int, index: Any, src: Any, reduce: str, include_self: _bool = True) -> Tensor:
    """Return x with the elements of src that share a place, and the element of x there, combined:
    reduce="sum", "prod", "mean", "amax" or "amin"."""
@overload
def scatter_reduce(x: Any, dim: _int, index: Any, src: Any, reduce: str, include_self: _bool = True) -> Tensor: ...
def searchsorted(sorted_sequence: Any, values: Any, right: _bool = False) -> Tensor:
    """Return where each value belongs in the sorted vector: before its equals, or after them
    (right=True). int64."""
@overload
def select(x: Any, axis: _int, index: _int) -> Tensor:
    """Return x at one index along `axis`, without that axis; negative ones count from the end."""
@overload
def select(x: Any, dim: _int, index: _int) -> Tensor: ...
def selu(x: Any, *, inplace: Literal[False] = False) -> Tensor:
    """Return 1.0507 elu(x, 1.67326). From Klambauer et al. 2017, arXiv:1706.02515."""
def sequential(x: Any, functions: Sequence[Callable[[Any], Any]]) -> Tensor:
    """Return the last of the functions of ... of the first of x."""
def shrink(x: Any, bounds: Sequence[tuple[_int, _int] | None]) -> Tensor:
    """Return the part of x between (start, stop) of each axis; None leaves an axis whole."""
def sigmoid(x: Any) -> Tensor:
    """Return 1 / (1 + exp(-x)), without overflow."""
def sign(x: Any) -> Tensor:
    """Return -1, 0 or 1. Piecewise constant: gradient 0."""
def silu(x: Any, *, inplace: Literal[False] = False) -> Tensor:
    """Return x sigmoid(x), also called swish. From Elfwing et al. 2017, arXiv:1702.03118."""
def sin(x: Any) -> Tensor:
    """Return the sine."""
def sinh(x: Any) -> Tensor:
    """Return the hyperbolic sine."""
@overload
def softmax(x: Any, axis: _int = -1, *, dtype: Any = None) -> Tensor:
    """Return exp(x) / sum(exp(x)) along `axis`; the maximum is subtracted first. A row of -inf
    gives zeros; several +inf share the whole evenly."""
@overload
def softmax(x: Any, dim: _int = -1, *, dtype: Any = None) -> Tensor: ...
def softplus(x: Any, beta: _float = 1.0, threshold: _float | None = None) -> Tensor:
    """Return log(1 + exp(beta x)) / beta, without overflow: a smooth relu."""
def softsign(x: Any) -> Tensor:
    """Return x / (1 + |x|)."""
@overload
def sort(x: Any, axis: _int = -1, descending: _bool = False, stable: _bool = True) -> _Indexed:
    """Return x in order along `axis`, and the indices that the elements came from. Always stable; a
    NaN counts as the largest."""
@overload
def sort(x: Any, dim: _int = -1, descending: _bool = False, stable: _bool = True) -> _Indexed: ...
def sparse_categorical_crossentropy(x: Any, target: Any, ignore_index: _int = -1, label_smoothing: _float = 0.0, reduction: Reduce = 'mean') -> Tensor:
    """Return cross_entropy by its other name, where ignore_index is -1."""
@overload
def split(x: Any, sizes: Sizes, axis: _int = 0) -> tuple[Tensor, ...]:
    """Return pieces along `axis`: of one size (the last may be smaller), or of the sizes named."""
@overload
def split(x: Any, sizes: Sizes, dim: _int = 0) -> tuple[Tensor, ...]: ...
def sqrt(x: Any) -> Tensor:
    """Return the square root; NaN below 0, slope inf at 0."""
def square(x: Any) -> Tensor:
    """Return x * x."""
@overload
def squeeze(x: Any, axis: Axis = None) -> Tensor:
    """Return x without axes of size 1: all of them, or those named that have size 1."""
@overload
def squeeze(x: Any, dim: Axis = None) -> Tensor: ...
@overload
def stack(tensors: Any, *others: Any, axis: _int = 0) -> Tensor:
    """Return the tensors along a new axis; all shapes must agree: stack([a, b]) or a.stack(b)."""
@overload
def stack(tensors: Any, *others: Any, dim: _int = 0) -> Tensor: ...
@overload
def std(x: Any, axis: Axis = None, correction: _float = 1, keepdim: _bool = False, *, dtype: Any = None) -> Tensor:
    """Return the standard deviation along `axis`: sqrt(var). Its gradient is 0 where all elements
    are equal, as in PyTorch."""
@overload
def std(x: Any, dim: Axis = None, correction: _float = 1, keepdim: _bool = False, *, dtype: Any = None) -> Tensor: ...
@overload
def std(x: Any, axis: Axis = None, correction: _float = 1, keepdims: _bool = False, *, dtype: Any = None) -> Tensor: ...
@overload
def std_mean(x: Any, axis: Axis = None, correction: _float = 1, keepdim: _bool = False) -> Tensor:
    """Return the standard deviation and the mean along `axis`."""
@overload
def std_mean(x: Any, dim: Axis = None, correction: _float = 1, keepdim: _bool = False) -> Tensor: ...
@overload
def std_mean(x: Any, axis: Axis = None, correction: _float = 1, keepdims: _bool = False) -> Tensor: ...
def sub(a: Any, b: Any) -> Tensor:
    """Return a - b."""
def subtract(a: Any, b: Any) -> Tensor:
    """Return a - b."""
@overload
def sum(x: Any, axis: Axis = None, keepdim: _bool = False, *, dtype: Any = None) -> Tensor:
    """Return the sum along `axis` (None: all); 0 for an empty one. Bools and small integers add up
    in int64."""
@overload
def sum(x: Any, dim: Axis = None, keepdim: _bool = False, *, dtype: Any = None) -> Tensor: ...
@overload
def sum(x: Any, axis: Axis = None, keepdims: _bool = False, *, dtype: Any = None) -> Tensor: ...
def swapaxes(x: Any, axis1: _int, axis2: _int) -> Tensor:
    """Return x with two axes exchanged."""
def swish(x: Any, *, inplace: Literal[False] = False) -> Tensor:
    """Return x sigmoid(x), also called swish. From Elfwing et al. 2017, arXiv:1702.03118."""
def t(x: Any) -> Tensor:
    """Return the transpose of a matrix; a vector or a number as it is."""
def tan(x: Any) -> Tensor:
    """Return the tangent."""
def tanh(x: Any) -> Tensor:
    """Return the hyperbolic tangent."""
def tensordot(a: Any, b: Any, dims: Any = 2) -> Tensor:
    """Return the sum of products over pairs of axes: the last `dims` of a with the first of b, or,
    for dims=(axes of a, axes of b), those. The other axes of a come first, then those of b."""
def tile(x: Any, *counts: Sizes) -> Tensor:
    """Return x put counts[i] times one after the other, counted from the last axis."""
def to(x: Any, *wanted: Any, **options: Any) -> Tensor:
    """Return x in another dtype, or x itself: to(dtype), to(device), to(device, dtype). "cpu" is
    the only device."""
@overload
def topk(x: Any, k: _int, axis: _int = -1, largest: _bool = True, sorted: _bool = True) -> _Indexed:
    """Return the k largest (or smallest) along `axis`, and their indices; of equals the first ones.
    They come in order, sorted or not. Raises ConfigError if k is too large."""
@overload
def topk(x: Any, k: _int, dim: _int = -1, largest: _bool = True, sorted: _bool = True) -> _Indexed: ...
def trace(x: Any) -> Tensor:
    """Return the sum of the main diagonal of a matrix (..., M, N)."""
def transpose(x: Any, dim0: _int = 1, dim1: _int = 0) -> Tensor:
    """Return x with two axes exchanged; without arguments the first two."""
def tril(x: Any, diagonal: _int = 0) -> Tensor:
    """Return the lower triangle of the last two axes, up to the given diagonal above the main one;
    0 elsewhere."""
def triu(x: Any, diagonal: _int = 0) -> Tensor:
    """Return the upper triangle of the last two axes, from the given diagonal above the main one
    on; 0 elsewhere."""
def true_divide(a: Any, b: Any) -> Tensor:
    """Return a / b; integers divide to float32."""
def trunc(x: Any) -> Tensor:
    """Return x without its fraction. Piecewise constant: gradient 0."""
def type_as(x: Any, other: Any) -> Tensor:
    """Return x in the dtype of `other`."""
@overload
def unbind(x: Any, axis: _int = 0) -> tuple[Tensor, ...]:
    """Return the parts of x at each index of `axis`, without that axis."""
@overload
def unbind(x: Any, dim: _int = 0) -> tuple[Tensor, ...]: ...
@overload
def unflatten(x: Any, axis: _int, sizes: Sequence[_int]) -> Tensor:
    """Return x with the axis split into several of these sizes, one of which may be -1."""
@overload
def unflatten(x: Any, dim: _int, sizes: Sequence[_int]) -> Tensor: ...
@overload
def unfold(x: Any, axis: _int, size: _int, step: _int = 1, dilation: _int = 1) -> Tensor:
    """Return the windows of `size` elements (`dilation` apart) along `axis`, every `step`, on a new
    last axis. A view."""
@overload
def unfold(x: Any, dim: _int, size: _int, step: _int = 1, dilation: _int = 1) -> Tensor: ...
def uniform(*shape: Sizes, low: _float = 0.0, high: _float = 1.0, dtype: Any = None, requires_grad: _bool = False, device: Any = None, generator: Generator = ...) -> Tensor:
    """Return uniform numbers in [low, high)."""
def unique(x: Any, return_inverse: _bool = False, return_counts: _bool = False) -> Tensor:
    """Return the distinct elements of x in order; if asked for, with where each element of x stands
    among them, and how often each occurs."""
@overload
def unsqueeze(x: Any, axis: _int) -> Tensor:
    """Return x with a new axis of size 1 at `axis`."""
@overload
def unsqueeze(x: Any, dim: _int) -> Tensor: ...
@overload
def var(x: Any, axis: Axis = None, correction: _float = 1, keepdim: _bool = False, *, dtype: Any = None) -> Tensor:
    """Return the variance along `axis`: sum (x - mean)^2 / (n - correction)."""
@overload
def var(x: Any, dim: Axis = None, correction: _float = 1, keepdim: _bool = False, *, dtype: Any = None) -> Tensor: ...
@overload
def var(x: Any, axis: Axis = None, correction: _float = 1, keepdims: _bool = False, *, dtype: Any = None) -> Tensor: ...
@overload
def var_mean(x: Any, axis: Axis = None, correction: _float = 1, keepdim: _bool = False) -> Tensor:
    """Return the variance and the mean along `axis`."""
@overload
def var_mean(x: Any, dim: Axis = None, correction: _float = 1, keepdim: _bool = False) -> Tensor: ...
@overload
def var_mean(x: Any, axis: Axis = None, correction: _float = 1, keepdims: _bool = False) -> Tensor: ...
def view(x: Any, *shape: Sizes) -> Tensor:
    """Return the same elements in row-major order under another shape; one size may be -1."""
def vstack(*xs: Any) -> Tensor:
    """Return the operands one after the other along axis 0, numbers and vectors as rows."""
def where(condition: Any, x: Any = None, y: Any = None) -> Tensor:
    """Return x where `condition`, of bools, is true, else y. Without both, return the indices of
    the true elements, one vector per axis. A NaN in the branch not taken has no influence, forward
    or backward, along elementwise ops."""
def zeros(*shape: Sizes, dtype: Any = None, requires_grad: _bool = False, device: Any = None) -> Tensor:
    """Return a tensor with all elements 0."""
def zeros_like(x: Any, dtype: Any = None, **options: Any) -> Tensor:
    """Return zeros of this tensor's shape and (unless given) dtype."""
__all__ = ['Generator', 'Tensor', 'arange', 'as_tensor', 'bfloat16', 'cat', 'checkpoint', 'debug', 'einsum', 'empty', 'enable_grad', 'eye', 'float16', 'float32', 'float64', 'from_numpy', 'full', 'func', 'functional', 'get_matmul_precision', 'grad', 'int32', 'int64', 'is_grad_enabled', 'is_tensor', 'jit', 'linspace', 'load', 'manual_seed', 'nn', 'no_grad', 'ones', 'ops', 'optim', 'primitive', 'profile', 'rand', 'randint', 'randn', 'random', 'save', 'set_float32_matmul_precision', 'set_grad_enabled', 'set_matmul_precision', 'stack', 'tensor', 'where', 'zeros']
