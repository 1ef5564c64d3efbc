"""The functions of calculus, elementwise: powers, exponentials, trigonometry, rounding.

A derivative may be infinite or NaN: the walk makes 0 of what such a rule gives for a cotangent of 0.
"""

from __future__ import annotations

import math

import numpy as np

from minigrad.dtypes import Array
from minigrad.ops.elementwise import (
    equal,
    greater_equal,
    less,
    logical_and,
    mask_cotangent,
    where,
    zeros_like,
)
from minigrad.primitive import primitive


@primitive(kind="elementwise", dtype="float")
def exp(x: Array) -> Array:
    """e ** x."""
    return np.exp(x)


@exp.vjp
def _(g, y, _x):
    return (g * y,)


@primitive(kind="elementwise", dtype="float")
def exp2(x: Array) -> Array:
    """2 ** x."""
    return np.exp2(x)


@exp2.vjp
def _(g, y, _x):
    return (g * (y * math.log(2)),)


@primitive(kind="elementwise", dtype="float")
def expm1(x: Array) -> Array:
    """e ** x - 1, exact for small x."""
    return np.expm1(x)


@expm1.vjp
def _(g, _y, x):
    return (g * exp(x),)


@primitive(kind="elementwise", dtype="float")
def log(x: Array) -> Array:
    """The natural logarithm; -inf at 0, NaN below."""
    return np.log(x)


@log.vjp
def _(g, _y, x):
    return (g / x,)


@primitive(kind="elementwise", dtype="float")
def log2(x: Array) -> Array:
    """The logarithm to base 2."""
    return np.log2(x)


@log2.vjp
def _(g, _y, x):
    return (g * (1 / math.log(2)) / x,)


@primitive(kind="elementwise", dtype="float")
def log10(x: Array) -> Array:
    """The logarithm to base 10."""
    return np.log10(x)


@log10.vjp
def _(g, _y, x):
    return (g * (1 / math.log(10)) / x,)


@primitive(kind="elementwise", dtype="float")
def log1p(x: Array) -> Array:
    """log(1 + x), exact for small x."""
    return np.log1p(x)


@log1p.vjp
def _(g, _y, x):
    return (g / (1 + x),)


@primitive(kind="elementwise", dtype="float")
def sqrt(x: Array) -> Array:
    """The square root; NaN below 0. Its derivative at 0 is inf."""
    return np.sqrt(x)


@sqrt.vjp
def _(g, y, _x):
    return (g * 0.5 / y,)


@primitive(kind="elementwise", dtype="float")
def rsqrt(x: Array) -> Array:
    """1 / sqrt(x)."""
    return 1 / np.sqrt(x)


@rsqrt.vjp
def _(g, y, x):
    return (g * -0.5 * y / x,)


@primitive(kind="elementwise", dtype="float")
def reciprocal(x: Array) -> Array:
    """1 / x."""
    return 1 / x


@reciprocal.vjp
def _(g, y, x):
    return (-(g / x * y),)


@primitive(kind="elementwise", dtype="same")
def pow(x: Array, p: Array) -> Array:
    """x ** p. d/dx = p x^(p-1), which is 0 for p = 0, also at x = 0;  d/dp = y log x, which is 0 at
    x = 0 for p >= 0.
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


@primitive(kind="elementwise", dtype="same")
def square(x: Array) -> Array:
    """x * x."""
    return np.square(x, dtype=np.int64 if x.dtype == np.bool_ else None)


@square.vjp
def _(g, _y, x):
    return (g * x * 2,)


@primitive(kind="elementwise", dtype="float")
def sin(x: Array) -> Array:
    """Sine of x in radians."""
    return np.sin(x)


@sin.vjp
def _(g, _y, x):
    return (g * cos(x),)


@primitive(kind="elementwise", dtype="float")
def cos(x: Array) -> Array:
    """Cosine of x in radians."""
    return np.cos(x)


@cos.vjp
def _(g, _y, x):
    return (-(g * sin(x)),)


@primitive(kind="elementwise", dtype="float")
def tan(x: Array) -> Array:
    """Tangent of x in radians."""
    return np.tan(x)


@tan.vjp
def _(g, y, _x):
    return (g * (1 + y * y),)


@primitive(kind="elementwise", dtype="float")
def asin(x: Array) -> Array:
    """Arc sine, in radians; NaN outside [-1, 1]."""
    return np.arcsin(x)


@asin.vjp
def _(g, _y, x):
    return (g / sqrt((1 - x) * (1 + x)),)


@primitive(kind="elementwise", dtype="float")
def acos(x: Array) -> Array:
    """Arc cosine, in radians; NaN outside [-1, 1]."""
    return np.arccos(x)


@acos.vjp
def _(g, _y, x):
    return (-(g / sqrt((1 - x) * (1 + x))),)


@primitive(kind="elementwise", dtype="float")
def atan(x: Array) -> Array:
    """Arc tangent, in radians."""
    return np.arctan(x)


@atan.vjp
def _(g, _y, x):
    return (g / (1 + x * x),)


@primitive(kind="elementwise", dtype="float")
def sinh(x: Array) -> Array:
    """Hyperbolic sine."""
    return np.sinh(x)


@sinh.vjp
def _(g, _y, x):
    return (g * cosh(x),)


@primitive(kind="elementwise", dtype="float")
def cosh(x: Array) -> Array:
    """Hyperbolic cosine."""
    return np.cosh(x)


@cosh.vjp
def _(g, _y, x):
    return (g * sinh(x),)


@primitive(kind="elementwise", dtype="float")
def tanh(x: Array) -> Array:
    """Hyperbolic tangent. d/dx = (1 - y)(1 + y), which keeps its digits as y nears 1."""
    return np.tanh(x)


@tanh.vjp
def _(g, y, _x):
    return (g * ((1 - y) * (1 + y)),)


@primitive(kind="elementwise", dtype="float")
def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow: exp(-|x|) is at most 1."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


@sigmoid.vjp
def _(g, _y, x):
    return (g * (sigmoid(x) * sigmoid(-x)),)


@primitive(kind="elementwise", dtype="same")
def abs(x: Array) -> Array:
    """|x|. Its derivative at 0 is 0."""
    return np.abs(x)


@abs.vjp
def _(g, _y, x):
    return (g * sign(x),)


@primitive(kind="elementwise", dtype="same")
def sign(x: Array) -> Array:
    """-1, 0 or 1. Piecewise constant: gradient 0."""
    return np.sign(x)


@sign.vjp
def _(g, _y, _x):
    return (zeros_like(g),)


@primitive(kind="elementwise", dtype="same")
def floor(x: Array) -> Array:
    """The largest integer not above x. Piecewise constant: gradient 0."""
    return np.floor(x) if x.dtype.kind == "f" else np.array(x)


@floor.vjp
def _(g, _y, _x):
    return (zeros_like(g),)


@primitive(kind="elementwise", dtype="same")
def ceil(x: Array) -> Array:
    """The smallest integer not below x. Piecewise constant: gradient 0."""
    return np.ceil(x) if x.dtype.kind == "f" else np.array(x)


@ceil.vjp
def _(g, _y, _x):
    return (zeros_like(g),)


@primitive(kind="elementwise", dtype="same")
def trunc(x: Array) -> Array:
    """x without its fraction. Piecewise constant: gradient 0."""
    return np.trunc(x) if x.dtype.kind == "f" else np.array(x)


@trunc.vjp
def _(g, _y, _x):
    return (zeros_like(g),)


@primitive(kind="elementwise", dtype="same")
def round(x: Array) -> Array:
    """The nearest integer, halves to even. Piecewise constant: gradient 0."""
    return np.rint(x) if x.dtype.kind == "f" else np.array(x)


@round.vjp
def _(g, _y, _x):
    return (zeros_like(g),)


@primitive(kind="elementwise", dtype="same")
def relu(x: Array) -> Array:
    """max(x, 0). Its derivative at 0 is 0."""
    return np.maximum(x, 0)


@relu.vjp
def _(g, y, _x):
    return (where(less(0, y), g, 0),)


relu.zero_safe = True
