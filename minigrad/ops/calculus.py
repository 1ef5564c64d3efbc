"""The functions of calculus, elementwise: powers, exponentials, trigonometry, error functions; and
activations, most of which are composed of them.

An entry of the table is a numpy function, its derivative and its docstring. A derivative may be
infinite or NaN: the walk makes 0 of what the rule gives for a cotangent of 0.
"""

# mypy: disable-error-code="has-type"

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, Literal

import numpy as np

from minigrad.arguments import one_of, require
from minigrad.dtypes import Array
from minigrad.ops.composite import composite
from minigrad.ops.elementwise import binary, difference, has_nan, mask_cotangent, unary, where
from minigrad.primitive import primitive

# --- powers, exponentials and logarithms


def _rsqrt(x: Array) -> Array:
    return 1 / np.sqrt(x)


def _reciprocal(x: Array) -> Array:
    return 1 / x


def _square(x: Array) -> Array:
    return np.square(x, dtype=np.int64 if x.dtype == np.bool_ else None)


exp = unary(np.exp, lambda g, y, _x: g * y, "e ** x")
exp2 = unary(np.exp2, lambda g, y, _x: g * (y * math.log(2)), "2 ** x")
expm1 = unary(np.expm1, lambda g, _y, x: g * exp(x), "e ** x - 1, exact for small x")
log = unary(np.log, lambda g, _y, x: g / x, "the natural logarithm; -inf at 0, NaN below")
log2 = unary(np.log2, lambda g, _y, x: g * (1 / math.log(2)) / x, "the logarithm to base 2")
log10 = unary(np.log10, lambda g, _y, x: g * (1 / math.log(10)) / x, "the logarithm to base 10")
log1p = unary(np.log1p, lambda g, _y, x: g / (1 + x), "log(1 + x), exact for small x")
sqrt = unary(np.sqrt, lambda g, y, _x: g * 0.5 / y, "the square root; NaN below 0, slope inf at 0")
rsqrt = unary(_rsqrt, lambda g, y, x: g * -0.5 * y / x, "1 / sqrt(x)", name="rsqrt")
reciprocal = unary(_reciprocal, lambda g, y, x: -(g / x * y), "1 / x", numpy=np.reciprocal)
square = unary(_square, lambda g, _y, x: g * x * 2, "x * x", "same", numpy=np.square)


@primitive(kind="elementwise", dtype="same", numpy=np.power)
def pow(x: Array, p: Array) -> Array:
    """Return x ** p.

    d/dx = p x^(p-1), which is 0 for p = 0, also at x = 0.
    d/dp = y log x, which is 0 at x = 0 for p >= 0.
    """
    return np.power(x, p)


@pow.vjp
def _(g, y, x, p, *, needs):
    gx = gp = None
    if needs[0]:
        slope = p * x ** (p - 1)
        is_one_power = isinstance(p, (int, float)) and p != 0
        gx = g * (slope if is_one_power else mask_cotangent(slope, p))
    if needs[1]:
        # A number stays one: in `where` it would become a float32.
        is_number = isinstance(x, (int, float)) and x != 0
        base = x if is_number else where((x == 0) & (p >= 0), 1, x)
        gp = g * (y * log(base))
    return gx, gp


def _hypot_rule(g, y, a, b):
    length = where(y == 0, 1, y)
    return g * (a / length), g * (b / length)


hypot = binary(np.hypot, _hypot_rule, "sqrt(a^2 + b^2), without overflow; slope 0 at 0", "float")

# --- trigonometric and hyperbolic functions, angles in radians


def _atan2_rule(g, _y, a, b):
    # g is divided last: 1 / length may overflow though the product is in range. The slope at the
    # origin, where there is none, is 0.
    length = hypot(a, b)
    length = where(length == 0, 1, length)
    return g * (b / length) / length, -(g * (a / length) / length)


def _asin_rule(g, _y, x):
    return g / sqrt((1 - x) * (1 + x))


sin = unary(np.sin, lambda g, _y, x: g * cos(x), "the sine")
cos = unary(np.cos, lambda g, _y, x: -(g * sin(x)), "the cosine")
tan = unary(np.tan, lambda g, y, _x: g * (1 + y * y), "the tangent")
asin = unary(np.arcsin, _asin_rule, "the arc sine; NaN if |x| > 1")
acos = unary(np.arccos, lambda g, y, x: -_asin_rule(g, y, x), "the arc cosine; NaN if |x| > 1")
atan = unary(np.arctan, lambda g, _y, x: g / (1 + x * x), "the arc tangent")
atan2 = binary(np.arctan2, _atan2_rule, "the angle of the point (b, a), from -pi to pi", "float")
sinh = unary(np.sinh, lambda g, _y, x: g * cosh(x), "the hyperbolic sine")
cosh = unary(np.cosh, lambda g, _y, x: g * sinh(x), "the hyperbolic cosine")
# (1 - y)(1 + y) keeps its digits as y nears 1.
tanh = unary(np.tanh, lambda g, y, _x: g * ((1 - y) * (1 + y)), "the hyperbolic tangent")
asinh = unary(np.arcsinh, lambda g, _y, x: g / hypot(x, 1.0), "the inverse of sinh")
acosh = unary(
    np.arccosh, lambda g, _y, x: g / (sqrt(x - 1) * sqrt(x + 1)), "the inverse of cosh; NaN below 1"
)
atanh = unary(np.arctanh, lambda g, _y, x: g / ((1 - x) * (1 + x)), "the inverse of tanh; inf at 1")


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.maximum(small, x >= 0) / (1 + small)  # five times as fast as np.where


def _sigmoid_rule(g, _y, x):
    return g * (sigmoid(x) * sigmoid(-x))


sigmoid = unary(_sigmoid, _sigmoid_rule, "1 / (1 + exp(-x)), without overflow")


# --- the error functions, which numpy lacks, and log(exp(a) + exp(b))


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split()))


# In float32: erf(x) / x on |x| <= 0.46875, a ratio of polynomials in x^2, from W. J. Cody 1969,
# "Rational Chebyshev approximations for the error function", Math. Comp. 23. Highest power first.
_A = _numbers(
    "1.85777706184603153e-1 3.16112374387056560e0 1.13864154151050156e2 3.77485237685302021e2"
    " 3.20937758913846947e3"
)
_B = _numbers(
    "1.0 2.36012909523441209e1 2.44024637934444173e2 1.28261652607737228e3 2.84423683343917062e3"
)
# erfc(x) = t R(t) exp(-x^2), t = 1 / (1 + 3x / 8), for x >= 0: a polynomial fitted to 5e-9 of R
# with mpmath's chebyfit.
_R = _numbers(
    "-0.01465743611 0.05907695048 -0.06002933764 -0.03422119442 0.04570267676 0.004815015686"
    " 0.08899198024 0.1233109047 0.1671867917 0.1966811609 0.2115713929 0.2115710928"
)
_PIECE = 1 << 14  # elements at a time, so that the many passes of one function stay in the cache


def _in_pieces(
    function: Callable[[Array], Array], exact: Callable[[float], float] | None = None
) -> Callable[[Array], Array]:
    """The function of each element: of float32 in float32, of everything else in float64, by
    `exact`, a function of one number, if there is one.
    """

    @wraps(function)
    def over(x: Array) -> Array:
        dtype = np.float32 if x.dtype == np.float32 else np.float64
        flat = np.ascontiguousarray(x, dtype).reshape(-1)
        y = np.empty(flat.size, x.dtype)
        for start in range(0, flat.size, _PIECE):
            piece = flat[start : start + _PIECE]
            if exact is None or dtype is np.float32:
                y[start : start + _PIECE] = function(piece)
            else:
                y[start : start + _PIECE] = list(map(exact, piece.tolist()))
        return y.reshape(x.shape)

    return over


def _horner(coefficients: tuple[float, ...], x: Array) -> Array:
    y = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        y *= x
        y += c
    return y


def _erfc_tail(x: Array) -> Array:
    """erfc(x) for x >= 0."""
    t = 1 / (1 + 0.375 * x)
    t *= _horner(_R, t)
    return _times_gauss(t, x)


def _times_gauss(y: Array, x: Array) -> Array:
    """y exp(-x^2), x split after 4 binary digits so that the square of the head is exact."""
    head = np.trunc(x * 16) / 16
    y = y * np.exp(-(x - head) * (x + head))
    y *= np.exp(-head * head)
    return y


def _erf(x: Array) -> Array:
    size = np.minimum(np.abs(x), 26)  # erf is 1 to the last bit long before; beyond, exp underflows
    square = np.square(np.minimum(size, 0.5))
    near = x * (_horner(_A, square) / _horner(_B, square))
    tail = np.copysign(1 - _erfc_tail(np.maximum(size, 0.46875)), x)
    return np.where(size <= 0.46875, near, tail)


def _erfc(x: Array) -> Array:
    tail = _erfc_tail(np.minimum(np.abs(x), 30))  # beyond 27.3 erfc underflows to 0
    return np.where(x < 0, 2 - tail, tail)


def _gauss(x: Array) -> Array:
    return _times_gauss(np.ones_like(x), np.clip(x, -30, 30))


def _gauss_rule(g, y, x):
    return g * y * (where(y == 0, 0, x) * -2)  # at infinite x, y x would be 0 * inf


_INTEGRAL = "2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x"
_EXACTLY = "exp(-x^2), to the last digits: rounding x^2 alone would cost x^2 of them"
_SLOPE = 2 / math.sqrt(math.pi)
erf = unary(_in_pieces(_erf, math.erf), lambda g, _y, x: g * (gauss(x) * _SLOPE), _INTEGRAL)
erfc = unary(
    _in_pieces(_erfc, math.erfc),
    lambda g, _y, x: g * (gauss(x) * -_SLOPE),
    "1 - erf(x), for large x",
)
gauss = unary(_in_pieces(_gauss), _gauss_rule, _EXACTLY)


def _logaddexp_rule(g, _y, a, b):
    gap = difference(a, b)  # two equal infinities share the gradient, as two equal numbers do
    return g * sigmoid(gap), g * sigmoid(-gap)


logaddexp = binary(np.logaddexp, _logaddexp_rule, "log(exp(a) + exp(b)), without overflow", "float")


# --- activations, written so that nothing overflows and nothing cancels; the gradients at the
# joints are PyTorch's. relu is in `elementwise`

_GELU_SLOPE, _GELU_CUBE = math.sqrt(2 / math.pi), 0.044715
# Elements computed at a time, so that the ten passes of one op stay in the first-level cache.
_CHUNK = 1 << 14


@primitive(kind="elementwise", dtype="float", outputs=2)
def gelu_tanh(x: Array) -> tuple[Array, Array]:
    """Return x / 2 (1 + tanh(u)) with u = sqrt(2/pi) (x + 0.044715 x^3); and exp(-2 u). From
    Hendrycks and Gimpel 2016, arXiv:1606.08415.

    Computed as x / (1 + exp(-2 u)): numpy's exp takes half the time of its tanh, and no digits are
    lost where tanh(u) is near 1 or -1.
    """
    flat = np.ascontiguousarray(x).reshape(-1)
    y, e = np.empty(x.size, x.dtype), np.empty(x.size, x.dtype)
    for start in range(0, x.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        u, out, total = flat[part], e[part], y[part]
        np.multiply(u, u, out=out)
        out *= -2 * _GELU_SLOPE * _GELU_CUBE
        out -= 2 * _GELU_SLOPE
        out *= u
        np.exp(out, out=out)
        np.add(out, 1, out=total)
        np.divide(u, total, out=total)
    return y.reshape(x.shape), e.reshape(x.shape)


@gelu_tanh.vjp
def _(g, y, x):
    return (gelu_tanh_grad(g[0], x, y[1]),)


gelu_tanh.zero_safe = True


@gelu_tanh.composed
def _(x):
    return 0.5 * x * (1 + tanh(_GELU_SLOPE * (x + _GELU_CUBE * (x * x * x))))


@primitive(kind="elementwise")
def gelu_tanh_grad(g: Array, x: Array, e: Array) -> Array:
    """Return g s (1 + 2 (1 - s) x u') with s = 1 / (1 + e), 1 - s = e s, x u' = sqrt(2/pi) (x + 3 *
    0.044715 x^3); 0 wherever g is 0.
    """
    y = np.empty(x.size, x.dtype)
    flat, gs, es = (np.ascontiguousarray(a).reshape(-1) for a in (x, g, e))
    for start in range(0, x.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        u, exps, out = flat[part], es[part], y[part]
        s = exps + 1
        np.reciprocal(s, out=s)
        rest = exps * s
        rest *= u
        np.multiply(u, u, out=out)
        out *= 6 * _GELU_SLOPE * _GELU_CUBE
        out += 2 * _GELU_SLOPE
        out *= rest
        out += 1
        out *= s
        out *= gs[part]
        if has_nan(out):  # from inf * 0, where the slope is 0 or 1 to the last bit, or from x or g
            out[:] = np.where(exps == np.inf, 0 * gs[part], np.where(exps == 0, gs[part], out))
            out[gs[part] == 0] = 0
    return y.reshape(x.shape)


_SQRT_HALF = 0.7071067811865476
# The constants of Klambauer et al. 2017, for which activations keep mean 0 and variance 1.
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


@composite(widen=True)
def softplus(x: Any, beta: float = 1.0, threshold: float | None = None) -> Any:
    """Return log(1 + exp(beta x)) / beta, without overflow: a smooth relu.

    threshold: x itself where beta x is above it, as in PyTorch, whose default is 20; None for the
    exact formula everywhere. Raises ConfigError for beta = 0.
    """
    require(beta != 0, "softplus", "beta", beta, "a number other than 0")
    scaled = x if beta == 1 else x * beta
    y = logaddexp(scaled, 0)
    y = y if beta == 1 else y * (1 / beta)
    return y if threshold is None else where(scaled > threshold, x, y)


@composite(widen=True)
def logsigmoid(x: Any) -> Any:
    """Return log(sigmoid(x)) = -softplus(-x)."""
    return -softplus(x * -1)


@composite(widen=True)
def softsign(x: Any) -> Any:
    """Return x / (1 + |x|)."""
    return x / (1 + abs(x))


@composite(widen=True)
def silu(x: Any) -> Any:
    """Return x sigmoid(x), also called swish. From Elfwing et al. 2017, arXiv:1702.03118."""
    return x * sigmoid(x)


@composite(widen=True)
def quick_gelu(x: Any) -> Any:
    """Return x sigmoid(1.702 x), CLIP's approximation of gelu."""
    return x * sigmoid(x * 1.702)


@composite(widen=True)
def mish(x: Any) -> Any:
    """Return x tanh(softplus(x)). From Misra 2019, arXiv:1908.08681."""
    return x * tanh(softplus(x))


@composite(widen=True)
def gelu(x: Any, approximate: Literal["none", "tanh"] = "none") -> Any:
    """Return x Phi(x), Phi the normal distribution function.

    approximate: "none" by erfc, to the last digits of both tails; "tanh" by GPT-2's formula.
    Raises ConfigError for another. From Hendrycks and Gimpel 2016, arXiv:1606.08415.
    """
    one_of("gelu", "approximate", approximate, ("none", "tanh"))
    if approximate == "tanh":
        return gelu_tanh(x)[0]
    return x * erfc(x * -_SQRT_HALF) * 0.5


@composite(widen=True)
def relu6(x: Any) -> Any:
    """Return min(relu(x), 6). The gradient at 0 and at 6 is 0."""
    return hardtanh(x, 0.0, 6.0)


@composite(widen=True)
def leaky_relu(x: Any, negative_slope: float = 0.01) -> Any:
    """Return x where x > 0, else negative_slope x."""
    return where(x > 0, x, x * negative_slope)


@composite(widen=True)
def elu(x: Any, alpha: float = 1.0) -> Any:
    """Return x where x > 0, else alpha (exp(x) - 1). From Clevert et al. 2015, arXiv:1511.07289."""
    return where(x > 0, x, expm1(x) * alpha)


@composite(widen=True)
def selu(x: Any) -> Any:
    """Return 1.0507 elu(x, 1.67326). From Klambauer et al. 2017, arXiv:1706.02515."""
    return elu(x, _SELU_ALPHA) * _SELU_SCALE


@composite(widen=True)
def celu(x: Any, alpha: float = 1.0) -> Any:
    """Return x where x > 0, else alpha (exp(x / alpha) - 1). From Barron 2017, arXiv:1704.07483."""
    return where(x > 0, x, expm1(x / alpha) * alpha)


@composite(widen=True)
def hardtanh(x: Any, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    """Return x between min_val and max_val, and these beyond. The gradient at the bounds is 0 (that
    of clamp is 1).
    """
    return where(x <= min_val, min_val, where(x >= max_val, max_val, x))


@composite(widen=True)
def hardsigmoid(x: Any) -> Any:
    """Return relu6(x + 3) / 6, a sigmoid of three straight lines."""
    return relu6(x + 3) * (1 / 6)


@composite(widen=True)
def hardswish(x: Any) -> Any:
    """Return x hardsigmoid(x). From Howard et al. 2019, arXiv:1905.02244."""
    return x * hardsigmoid(x)
