"""Elementwise ops, with numpy's broadcasting: arithmetic, rounding, comparisons, logic and bits.

An op that is one numpy function is one entry of a table: `unary` and `binary` take the function,
the derivative and the docstring. Calculus and activations are in `calculus`.
"""

# mypy: disable-error-code="has-type"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import DTypeError
from minigrad.ops.composite import composite
from minigrad.primitive import Casting, Primitive, primitive

Function = Callable[..., Any]


def unary(
    function: Function, rule: Function | None, doc: str, dtype: Casting = "float", **names: Any
) -> Primitive:
    """Make a function of one array into an op.

    rule: (g, y, x) -> the cotangent of x; None for an op without a gradient.
    doc: what the op returns.
    name=: the function's ("arcsin" is "asin", "_erf" is "erf"), unless given.
    numpy=: the numpy functions that it answers for; the function itself, if that is numpy's.
    """

    def forward(x: Array) -> Any:
        return function(x)

    op = _op(forward, function, doc, dtype, **names)
    if rule is not None:
        op.vjp(rule)
        op.rule = lambda g, y, x: (rule(g, y, x),)
    return op


def binary(
    function: Function, rule: Function | None, doc: str, dtype: Casting = "same", **names: Any
) -> Primitive:
    """Make a function of two arrays into an op. rule: (g, y, a, b) -> both cotangents."""

    def forward(a: Array, b: Array) -> Any:
        return function(a, b)

    op = _op(forward, function, doc, dtype, **names)
    if rule is not None:
        op.vjp(rule)
    return op


def predicate(function: np.ufunc, doc: str, name: str = "") -> Primitive:
    """Make a numpy function into an op without a gradient."""
    return (unary if function.nin == 1 else binary)(function, None, doc, "same", name=name)


def _op(
    forward: Function, function: Function, doc: str, dtype: Casting, name: str = "", numpy: Any = ()
) -> Primitive:
    numpy = function if isinstance(function, np.ufunc) and not numpy else numpy
    name = name or function.__name__.replace("arc", "a").lstrip("_")
    forward.__name__ = forward.__qualname__ = name
    forward.__module__, forward.__doc__ = "minigrad.ops", f"Return {doc}."
    op = primitive(kind="elementwise", dtype=dtype, numpy=numpy)(forward)
    op.forward = function  # which saves a call; `forward` shows the arguments
    return op


def flat(g: Any, _y: Any, _x: Any) -> Any:
    """The rule of a piecewise constant function of x."""
    return zeros_like(g)


# --- arithmetic


def _mul_rule(g, _y, a, b, *, needs):
    return (g * b if needs[0] else None), (g * a if needs[1] else None)


def _div_rule(g, y, _a, b, *, needs):
    # g y / b and not g / b y, which would overflow for a small b though the product is in range.
    return (g / b if needs[0] else None), (-(g * y / b) if needs[1] else None)


def _maximum_rule(g, _y, a, b):
    ties = equal(a, b)
    return g * share(greater(a, b), ties), g * share(greater(b, a), ties)


def _minimum_rule(g, _y, a, b):
    ties = equal(a, b)
    return g * share(less(a, b), ties), g * share(less(b, a), ties)


def _copysign_rule(g, y, a, _b):
    return g * (sign(y) * sign(a)), zeros_like(g)


add = binary(np.add, lambda g, _y, _a, _b: (g, g), "a + b")
sub = binary(np.subtract, lambda g, _y, _a, _b: (g, -g), "a - b", name="sub")
mul = binary(np.multiply, _mul_rule, "a * b", name="mul")
mul.reads_other_operand = True
div = binary(np.true_divide, _div_rule, "a / b; integers divide to float32", "float", name="div")
neg = unary(np.negative, lambda g, _y, _x: -g, "-x", "same", name="neg")
floor_div = binary(
    np.floor_divide,
    lambda g, _y, _a, _b: (zeros_like(g), zeros_like(g)),
    "floor(a / b); for integers divided by zero 0, with numpy's warning. Gradient 0",
    name="floor_div",
)
mod = binary(
    np.mod,
    lambda g, _y, a, b: (g, -(g * floor_div(a, b))),
    "a - b * floor(a / b): the remainder with the sign of b, as in Python. For integers\n"
    "divided by zero 0, with numpy's warning",
    name="mod",
)
fmod = binary(
    np.fmod,
    lambda g, _y, a, b: (g, -(g * trunc(a / b))),
    "a - b * trunc(a / b): the remainder with the sign of a, as in C",
)
maximum = binary(
    np.maximum, _maximum_rule, "the larger of a and b, or NaN. A tie splits the gradient"
)
minimum = binary(
    np.minimum, _minimum_rule, "the smaller of a and b, or NaN. A tie splits the gradient"
)
copysign = binary(np.copysign, _copysign_rule, "|a| with the sign of b. Slope 0 at a = 0", "float")
floor_div.warns = mod.warns = fmod.warns = True


@primitive(kind="elementwise")
def share(wins: Array, ties: Array) -> Array:
    """Return 1 where `wins`, 1/2 where `ties`, else 0, in float32: exact in any float."""
    return np.where(ties, np.float32(0.5), np.asarray(wins, np.float32))


@primitive(kind="elementwise", dtype="same", numpy=np.clip)
def clamp(x: Array, low: Array, high: Array) -> Array:
    """Return min(max(x, low), high). The gradient passes inside and at the bounds (1, as in
    PyTorch); the bounds get the rest.
    """
    return np.minimum(np.maximum(x, low), high)


@clamp.vjp
def _(g, _y, x, low, high):
    below, above, crossed = less(x, low), greater(x, high), greater(low, high)
    return (
        where(logical_or(below, above), 0, g),
        where(logical_and(below, logical_not(crossed)), g, 0),
        where(logical_or(above, crossed), g, 0),
    )


@primitive(kind="elementwise", dtype="same", numpy=np.where)
def where(condition: Array, x: Array, y: Array) -> Array:
    """Return x where `condition`, of bools, is true, else y. A NaN in the branch not taken has no
    influence, forward or backward, along elementwise ops.
    """
    if getattr(condition, "dtype", np.bool_) != np.bool_:
        problem = f"the condition is {condition.dtype.name}, not bool"
        hint = "minigrad.where(cond, x, y) or cond.where(x, y), with a condition such as x > 0"
        raise DTypeError("where", problem, got=condition.dtype, wanted=np.bool_, hint=hint)
    if x is None or y is None:
        raise DTypeError("where", "cannot choose None", got=type(None), wanted="numbers")
    return np.where(condition, x, y)


@where.vjp
def _(g, _out, condition, _x, _y):
    return None, where(condition, g, 0), where(condition, 0, g)


def difference(a: Any, b: Any) -> Any:
    """Return a - b, and 0 for two equal infinities."""
    return where(logical_and(equal(a, b), isinf(a)), 0, a - b)


@composite(widen=True)
def lerp(a: Any, b: Any, weight: Any) -> Any:
    """Return a + weight (b - a): a at 0, b at 1."""
    return a + (b - a) * weight


# --- rounding and other pieces of straight lines


def _rounding(function: np.ufunc, doc: str, name: str = "") -> Primitive:
    def of_floats(x: Array) -> Array:
        return function(x) if x.dtype.kind == "f" else np.array(x)

    name = name or function.__name__
    doc = f"{doc}. Piecewise constant: gradient 0"
    return unary(of_floats, flat, doc, "same", name=name, numpy=function)


def _relu(x: Array) -> Array:
    return np.maximum(x, 0)


def _sign(x: Array) -> Array:
    x = np.asarray(x)
    return np.sign(x) if x.dtype != np.bool_ else x.copy()  # numpy has no sign of bools


def _zeros_like(x: Array) -> Array:
    return np.zeros_like(x)


floor = _rounding(np.floor, "the largest integer <= x")
ceil = _rounding(np.ceil, "the smallest integer >= x")
trunc = _rounding(np.trunc, "x without its fraction")
round = _rounding(np.rint, "the nearest integer, halves to even", "round")
sign = unary(
    _sign, flat, "-1, 0 or 1. Piecewise constant: gradient 0", "same", numpy=np.sign, name="sign"
)
abs = unary(np.abs, lambda g, _y, x: g * sign(x), "|x|. Slope 0 at 0", "same", name="abs")
abs.numpy = np.abs, np.fabs
relu = unary(_relu, lambda g, y, _x: where(less(0, y), g, 0), "max(x, 0). Slope 0 at 0", "same")
zeros_like = unary(_zeros_like, flat, "zeros of the shape of x", None)


@primitive(kind="elementwise", dtype="same", numpy=np.nan_to_num)
def nan_to_num(
    x: Array, *, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Array:
    """Return x with `nan` for NaN, `posinf` and `neginf` for infinities; None: the largest and the
    least number of the dtype. The gradient passes where x is finite.
    """
    return np.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf)


@nan_to_num.vjp
def _(g, _y, x, **_params):
    return (where(isfinite(x), g, 0),)


# --- cotangents of zero


def has_nan(y: Array) -> bool:
    """True if y has a NaN: a sum of squares is NaN if and only if a term is, and BLAS computes it
    without an array in between.
    """
    row = y.ravel("K")
    total = row.dot(row)
    return bool(total != total)


@primitive(kind="elementwise")
def mask_cotangent(x: Array, g: Array) -> Array:
    """Return x, but 0 where it is NaN and g is 0: a cotangent of zero asks for nothing, whatever it
    is multiplied by. To any order: what was masked passes no gradient on.
    """
    # A view and not x itself: what records ops tells arrays apart by identity.
    return np.where((g == 0) & np.isnan(x), 0, x) if has_nan(x) else x.view()


@mask_cotangent.vjp
def _(h, _y, x, g):
    return where(logical_and(isnan(x), equal(g, 0)), 0, h), None


for _op_ in (maximum, minimum, clamp, where, relu, nan_to_num, mask_cotangent):
    _op_.zero_safe = True

# --- comparisons and logic give bools; the bits of integers (of bools: their truth values)


def _compared(function: np.ufunc, doc: str) -> Primitive:
    def of_numbers(a: Array, b: Array) -> Any:
        if a is None or b is None:  # which numpy compares as an object
            raise TypeError("None is not a number")
        return function(a, b)

    return binary(of_numbers, None, doc, "same", name=function.__name__, numpy=function)


equal = _compared(np.equal, "a == b, as bool")
not_equal = _compared(np.not_equal, "a != b, as bool")
less = predicate(np.less, "a < b, as bool")
less_equal = predicate(np.less_equal, "a <= b, as bool")
greater = predicate(np.greater, "a > b, as bool")
greater_equal = predicate(np.greater_equal, "a >= b, as bool")
logical_and = predicate(np.logical_and, "True where both are nonzero")
logical_or = predicate(np.logical_or, "True where either is nonzero")
logical_xor = predicate(np.logical_xor, "True where exactly one is nonzero")
logical_not = predicate(np.logical_not, "True where x is zero")
isnan = predicate(np.isnan, "True where x is not a number")
isinf = predicate(np.isinf, "True where x is +inf or -inf")
isfinite = predicate(np.isfinite, "True where x is neither NaN nor infinite")
bitwise_and = predicate(np.bitwise_and, "a & b. Raises DTypeError for floats")
bitwise_or = predicate(np.bitwise_or, "a | b. Raises DTypeError for floats")
bitwise_xor = predicate(np.bitwise_xor, "a ^ b. Raises DTypeError for floats")
bitwise_not = predicate(np.invert, "~x: for bools, not x", "bitwise_not")
left_shift = predicate(np.left_shift, "a * 2 ** b, for integers")
right_shift = predicate(np.right_shift, "floor(a / 2 ** b), for integers")
