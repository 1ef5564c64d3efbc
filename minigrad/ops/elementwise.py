"""Elementwise ops: one number in, one number out, with numpy's broadcasting.

Arithmetic, comparison, logic and bits. The functions of calculus are in `calculus`, activations in
`activation`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import DTypeError
from minigrad.ops.composite import composite
from minigrad.primitive import primitive

# --- arithmetic


@primitive(kind="elementwise", dtype="same")
def add(a: Array, b: Array) -> Array:
    """a + b."""
    return a + b


@add.vjp
def _(g, _y, _a, _b):
    return g, g


@primitive(kind="elementwise", dtype="same")
def sub(a: Array, b: Array) -> Array:
    """a - b."""
    return a - b


@sub.vjp
def _(g, _y, _a, _b):
    return g, -g


@primitive(kind="elementwise", dtype="same")
def mul(a: Array, b: Array) -> Array:
    """a * b."""
    return a * b


@mul.vjp
def _(g, _y, a, b, *, needs):
    return (g * b if needs[0] else None), (g * a if needs[1] else None)


mul.reads_other_operand = True


@primitive(kind="elementwise", dtype="float")
def div(a: Array, b: Array) -> Array:
    """a / b. Integers divide to float32."""
    return np.true_divide(a, b)


@div.vjp
def _(g, y, _a, b, *, needs):
    # g y / b and not g / b y, which would overflow for a small b though the product is in range.
    return (g / b if needs[0] else None), (-(g * y / b) if needs[1] else None)


def has_nan(y: Array) -> bool:
    """True if y has a NaN: a sum of squares is NaN if and only if a term is, and BLAS computes it
    without an array in between.
    """
    flat = y.ravel("K")
    total = flat.dot(flat)
    return bool(total != total)


@primitive(kind="elementwise")
def mask_cotangent(x: Array, g: Array) -> Array:
    """x, but 0 where it is NaN and g is 0: a cotangent of zero asks for nothing, whatever it is
    multiplied by. To any order: what was masked passes no gradient on.
    """
    # A view and not x itself: what records ops tells arrays apart by identity.
    return np.where((g == 0) & np.isnan(x), 0, x) if has_nan(x) else x.view()


@mask_cotangent.vjp
def _(h, _y, x, g):
    return where(logical_and(isnan(x), equal(g, 0)), 0, h), None


mask_cotangent.zero_safe = True


@primitive(kind="elementwise", dtype="same")
def neg(x: Array) -> Array:
    """-x."""
    return np.negative(x)


@neg.vjp
def _(g, _y, _x):
    return (-g,)


@primitive(kind="elementwise", dtype="same")
def mod(a: Array, b: Array) -> Array:
    """a - b * floor(a / b): the remainder with the sign of b, as in Python.

    Integers divided by zero give 0 and numpy's warning.
    """
    return np.mod(a, b)


@mod.vjp
def _(g, _y, a, b):
    return g, -(g * floor_div(a, b))


@primitive(kind="elementwise", dtype="same")
def floor_div(a: Array, b: Array) -> Array:
    """floor(a / b). Piecewise constant: gradient 0.

    Integers divided by zero give 0 and numpy's warning.
    """
    return np.floor_divide(a, b)


@floor_div.vjp
def _(g, _y, _a, _b):
    return zeros_like(g), zeros_like(g)


@primitive(kind="elementwise", dtype="same")
def maximum(a: Array, b: Array) -> Array:
    """The larger of a and b; a NaN wins. Where they are equal the gradient is split in halves."""
    return np.maximum(a, b)


@maximum.vjp
def _(g, _y, a, b):
    return g * share(greater(a, b), equal(a, b)), g * share(greater(b, a), equal(a, b))


@primitive(kind="elementwise", dtype="same")
def minimum(a: Array, b: Array) -> Array:
    """The smaller of a and b; a NaN wins. Where they are equal the gradient is split in halves."""
    return np.minimum(a, b)


@minimum.vjp
def _(g, _y, a, b):
    return g * share(less(a, b), equal(a, b)), g * share(less(b, a), equal(a, b))


@primitive(kind="elementwise")
def share(wins: Array, ties: Array) -> Array:
    """1 where `wins`, 1/2 where `ties`, else 0, in float32 (all three are exact in any float)."""
    return np.where(ties, np.float32(0.5), np.asarray(wins, np.float32))


@primitive(kind="elementwise", dtype="same")
def clamp(x: Array, low: Array, high: Array) -> Array:
    """min(max(x, low), high). The gradient passes inside and at the bounds (1, as in PyTorch); the
    bounds get the rest.
    """
    return np.minimum(np.maximum(x, low), high)


@clamp.vjp
def _(g, _y, x, low, high):
    below, above = less(x, low), greater(x, high)
    crossed = greater(low, high)
    return (
        where(logical_or(below, above), 0, g),
        where(logical_and(below, logical_not(crossed)), g, 0),
        where(logical_or(above, crossed), g, 0),
    )


@primitive(kind="elementwise", dtype="same")
def where(condition: Array, a: Array, b: Array) -> Array:
    """a where `condition` is true, else b. Backward selects as well: the branch not taken gets 0,
    of which elementwise ops make no NaN."""
    if a is None or b is None:
        raise DTypeError(
            "where", "cannot choose None", got=type(None), wanted="a tensor, an array or a number"
        )
    return np.where(condition, a, b)


@where.vjp
def _(g, _y, condition, _a, _b):
    return None, where(condition, g, 0), where(condition, 0, g)


maximum.zero_safe = minimum.zero_safe = clamp.zero_safe = where.zero_safe = True


@composite(widen=True)
def lerp(a: Any, b: Any, weight: Any) -> Any:
    """a + weight (b - a): a at 0, b at 1."""
    return a + (b - a) * weight


@primitive(kind="elementwise")
def zeros_like(x: Array) -> Array:
    """Zeros of the shape and dtype of x."""
    return np.zeros_like(x)


@zeros_like.vjp
def _(g, _y, _x):
    return (zeros_like(g),)


# --- comparisons and logic: bool results, no gradients


@primitive(kind="elementwise", dtype="same")
def equal(a: Array, b: Array) -> Array:
    """a == b, as bool."""
    return np.equal(a, b)


@primitive(kind="elementwise", dtype="same")
def not_equal(a: Array, b: Array) -> Array:
    """a != b, as bool."""
    return np.not_equal(a, b)


@primitive(kind="elementwise", dtype="same")
def less(a: Array, b: Array) -> Array:
    """a < b, as bool."""
    return np.less(a, b)


@primitive(kind="elementwise", dtype="same")
def less_equal(a: Array, b: Array) -> Array:
    """a <= b, as bool."""
    return np.less_equal(a, b)


@primitive(kind="elementwise", dtype="same")
def greater(a: Array, b: Array) -> Array:
    """a > b, as bool."""
    return np.greater(a, b)


@primitive(kind="elementwise", dtype="same")
def greater_equal(a: Array, b: Array) -> Array:
    """a >= b, as bool."""
    return np.greater_equal(a, b)


@primitive(kind="elementwise")
def logical_and(a: Array, b: Array) -> Array:
    """True where both are true (not zero)."""
    return np.logical_and(a, b)


@primitive(kind="elementwise")
def logical_or(a: Array, b: Array) -> Array:
    """True where either is true (not zero)."""
    return np.logical_or(a, b)


@primitive(kind="elementwise")
def logical_xor(a: Array, b: Array) -> Array:
    """True where exactly one is true (not zero)."""
    return np.logical_xor(a, b)


@primitive(kind="elementwise")
def logical_not(x: Array) -> Array:
    """True where x is false (zero)."""
    return np.logical_not(x)


@primitive(kind="elementwise")
def isnan(x: Array) -> Array:
    """True where x is not a number."""
    return np.isnan(x)


@primitive(kind="elementwise")
def isinf(x: Array) -> Array:
    """True where x is +inf or -inf."""
    return np.isinf(x)


@primitive(kind="elementwise")
def isfinite(x: Array) -> Array:
    """True where x is neither NaN nor infinite."""
    return np.isfinite(x)


# --- the bits of integers (of bools: their truth values): no gradients


@primitive(kind="elementwise", dtype="same")
def bitwise_and(a: Array, b: Array) -> Array:
    """a & b. Raises DTypeError for floats, as all bitwise ops do."""
    return np.bitwise_and(a, b)


@primitive(kind="elementwise", dtype="same")
def bitwise_or(a: Array, b: Array) -> Array:
    """a | b."""
    return np.bitwise_or(a, b)


@primitive(kind="elementwise", dtype="same")
def bitwise_xor(a: Array, b: Array) -> Array:
    """a ^ b."""
    return np.bitwise_xor(a, b)


@primitive(kind="elementwise", dtype="same")
def bitwise_not(x: Array) -> Array:
    """~x: for bools, not x."""
    return np.bitwise_not(x)


@primitive(kind="elementwise", dtype="same")
def left_shift(a: Array, b: Array) -> Array:
    """a * 2 ** b, for integers."""
    return np.left_shift(a, b)


@primitive(kind="elementwise", dtype="same")
def right_shift(a: Array, b: Array) -> Array:
    """floor(a / 2 ** b), for integers."""
    return np.right_shift(a, b)
