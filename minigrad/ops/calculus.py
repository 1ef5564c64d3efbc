"""The functions of calculus, elementwise: powers, exponentials, trigonometry.

Each is a numpy function, its derivative and its docstring. A derivative may be infinite or NaN: the
walk makes 0 of what the rule gives for a cotangent of 0.
"""

# mypy: disable-error-code="has-type"

from __future__ import annotations

import math

import numpy as np

from minigrad.dtypes import Array
from minigrad.ops.elementwise import binary, equal, logical_and, mask_cotangent, unary, where
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
        base = x if is_number else where(logical_and(equal(x, 0), p >= 0), 1, x)
        gp = g * (y * log(base))
    return gx, gp


def _hypot_rule(g, y, a, b):
    length = where(equal(y, 0), 1, y)
    return g * (a / length), g * (b / length)


hypot = binary(np.hypot, _hypot_rule, "sqrt(a^2 + b^2), without overflow; slope 0 at 0", "float")

# --- trigonometric and hyperbolic functions, angles in radians


def _atan2_rule(g, _y, a, b):
    # g is divided last: 1 / length may overflow though the product is in range.
    length = hypot(a, b)
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
    return np.where(x >= 0, 1, small) / (1 + small)


def _sigmoid_rule(g, _y, x):
    return g * (sigmoid(x) * sigmoid(-x))


sigmoid = unary(_sigmoid, _sigmoid_rule, "1 / (1 + exp(-x)), without overflow")
