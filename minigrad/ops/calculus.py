"""The functions of calculus, elementwise: powers, exponentials, trigonometry.

Each is a numpy function, its derivative and its docstring. A derivative may be infinite or NaN: the
walk makes 0 of what the rule gives for a cotangent of 0.
"""

# mypy: disable-error-code="has-type"

from __future__ import annotations

import math

import numpy as np

from minigrad.dtypes import Array
from minigrad.ops.elementwise import (
    binary,
    equal,
    greater_equal,
    logical_and,
    mask_cotangent,
    unary,
    where,
)
from minigrad.primitive import primitive

# --- powers, exponentials and logarithms

exp = unary(np.exp, lambda g, y, _x: g * y, "Return e ** x.")
exp2 = unary(np.exp2, lambda g, y, _x: g * (y * math.log(2)), "Return 2 ** x.")
expm1 = unary(np.expm1, lambda g, _y, x: g * exp(x), "Return e ** x - 1, exact for small x.")
log = unary(np.log, lambda g, _y, x: g / x, "Return the natural logarithm; -inf at 0, NaN below.")
log2 = unary(np.log2, lambda g, _y, x: g * (1 / math.log(2)) / x, "Return the logarithm to base 2.")
log10 = unary(
    np.log10, lambda g, _y, x: g * (1 / math.log(10)) / x, "Return the logarithm to base 10."
)
log1p = unary(np.log1p, lambda g, _y, x: g / (1 + x), "Return log(1 + x), exact for small x.")
sqrt = unary(
    np.sqrt, lambda g, y, _x: g * 0.5 / y, "Return the square root; NaN below 0, slope inf at 0."
)
rsqrt = unary(
    lambda x: 1 / np.sqrt(x), lambda g, y, x: g * -0.5 * y / x, "Return 1 / sqrt(x).", name="rsqrt"
)
reciprocal = unary(
    lambda x: 1 / x,
    lambda g, y, x: -(g / x * y),
    "Return 1 / x.",
    name="reciprocal",
    numpy=np.reciprocal,
)
square = unary(
    lambda x: np.square(x, dtype=np.int64 if x.dtype == np.bool_ else None),
    lambda g, _y, x: g * x * 2,
    "Return x * x.",
    "same",
    "square",
    np.square,
)


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
        base = x if is_number else where(logical_and(equal(x, 0), greater_equal(p, 0)), 1, x)
        gp = g * (y * log(base))
    return gx, gp


def _hypot_rule(g, y, a, b):
    length = where(equal(y, 0), 1, y)
    return g * (a / length), g * (b / length)


hypot = binary(
    np.hypot, _hypot_rule, "Return sqrt(a^2 + b^2), without overflow. Slope 0 at (0, 0).", "float"
)

# --- trigonometric and hyperbolic functions, angles in radians

sin = unary(np.sin, lambda g, _y, x: g * cos(x), "Return the sine of x.")
cos = unary(np.cos, lambda g, _y, x: -(g * sin(x)), "Return the cosine of x.")
tan = unary(np.tan, lambda g, y, _x: g * (1 + y * y), "Return the tangent of x.")
asin = unary(
    np.arcsin, lambda g, _y, x: g / sqrt((1 - x) * (1 + x)), "Return the arc sine; NaN if |x| > 1."
)
acos = unary(
    np.arccos,
    lambda g, _y, x: -(g / sqrt((1 - x) * (1 + x))),
    "Return the arc cosine; NaN if |x| > 1.",
)
atan = unary(np.arctan, lambda g, _y, x: g / (1 + x * x), "Return the arc tangent.")


def _atan2_rule(g, _y, a, b):
    length = hypot(a, b)
    return g * (b / length / length), -(g * (a / length / length))


atan2 = binary(
    np.arctan2, _atan2_rule, "Return the angle of the point (b, a), from -pi to pi.", "float"
)
sinh = unary(np.sinh, lambda g, _y, x: g * cosh(x), "Return the hyperbolic sine.")
cosh = unary(np.cosh, lambda g, _y, x: g * sinh(x), "Return the hyperbolic cosine.")
# (1 - y)(1 + y) keeps its digits as y nears 1.
tanh = unary(np.tanh, lambda g, y, _x: g * ((1 - y) * (1 + y)), "Return the hyperbolic tangent.")
asinh = unary(np.arcsinh, lambda g, _y, x: g / hypot(x, 1.0), "Return the inverse of sinh.")
acosh = unary(
    np.arccosh,
    lambda g, _y, x: g / (sqrt(x - 1) * sqrt(x + 1)),
    "Return the inverse of cosh; NaN below 1.",
)
atanh = unary(
    np.arctanh, lambda g, _y, x: g / ((1 - x) * (1 + x)), "Return the inverse of tanh; inf at 1."
)


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


sigmoid = unary(
    _sigmoid,
    lambda g, _y, x: g * (sigmoid(x) * sigmoid(-x)),
    "Return 1 / (1 + exp(-x)), without overflow.",
    name="sigmoid",
)
