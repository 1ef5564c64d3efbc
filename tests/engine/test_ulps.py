"""What minigrad adds to numpy's rounding, in ulp of float32: a ceiling per op that holds on every
machine.

numpy picks its float32 functions by the CPU's vector extensions (AVX-512, AVX2, neither) and
promises 4 ulp for all of them, so that a ceiling measured against the exact result on one machine
fails on the next. Two ways around that:

- An op that is a numpy function must give numpy's own result on this machine, to the bit, and that
  must keep numpy's promise. Its gradient is compared with the formula of the rule in float64, on
  numpy's own float32 results: what is left are additions, products, quotients and square roots,
  which IEEE 754 rounds alike everywhere.
- An op composed of several steps runs with a correctly rounded np.exp, the only function of numpy
  in these, in place of numpy's. What is left is again the same everywhere.

An ulp is the distance between neighbouring float32 numbers at the right result; for ops that
saturate, whose results near 0 are differences of numbers near 1, it is at least that at 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import Tensor
from tests.engine.cases import CASES
from tests.engine.table import draw

ROWS = {case.name: case for case in CASES}
NUMPYS_PROMISE = 4.0  # ulp, of its float32 functions in SIMD


def numpys(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """numpy's float32 result at the float64 array x, as float64."""
    return lambda x: function(x.astype(np.float32)).astype(np.float64)


# name -> numpy's function; the derivative from x and numpy's y; how far the gradient may be from
# that: half an ulp for each rounded number or operation of the rule, and no less than 0.
SAME: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], Any], float]] = {
    "exp": (np.exp, lambda x, y: y, 0),
    "exp2": (np.exp2, lambda x, y: y * math.log(2), 1.5),
    "expm1": (np.expm1, lambda x, y: numpys(np.exp)(x), 0),
    "log": (np.log, lambda x, y: 1 / x, 0.5),
    "log2": (np.log2, lambda x, y: 1 / (x * math.log(2)), 1.5),
    "log10": (np.log10, lambda x, y: 1 / (x * math.log(10)), 1.5),
    "log1p": (np.log1p, lambda x, y: 1 / (1 + x), 1.5),
    "sqrt": (np.sqrt, lambda x, y: 0.5 / y, 0.5),
    "reciprocal": (np.reciprocal, lambda x, y: -1 / (x * x), 2),
    "square": (np.square, lambda x, y: 2 * x, 0),
    "sin": (np.sin, lambda x, y: numpys(np.cos)(x), 0),
    "cos": (np.cos, lambda x, y: -numpys(np.sin)(x), 0),
    "tan": (np.tan, lambda x, y: 1 + y * y, 1.5),
    "asin": (np.arcsin, lambda x, y: 1 / np.sqrt((1 - x) * (1 + x)), 2.5),
    "acos": (np.arccos, lambda x, y: -1 / np.sqrt((1 - x) * (1 + x)), 2.5),
    "atan": (np.arctan, lambda x, y: 1 / (1 + x * x), 2),
    "sinh": (np.sinh, lambda x, y: numpys(np.cosh)(x), 0),
    "cosh": (np.cosh, lambda x, y: numpys(np.sinh)(x), 0),
    "tanh": (np.tanh, lambda x, y: (1 - y) * (1 + y), 1.5),
    "pow of a constant": (
        lambda x: np.power(x, np.float32(3)),
        lambda x, y: 3 * x**2,
        NUMPYS_PROMISE + 0.5,
    ),
    "pow of a negative constant": (
        lambda x: np.power(x, np.float32(-0.5)),
        lambda x, y: -0.5 * x**-1.5,
        NUMPYS_PROMISE + 0.5,
    ),
}
# name -> the most that value and gradient may be off over 20,000 inputs, in ulp, as measured.
COMPOSED: dict[str, tuple[float, float]] = {
    "rsqrt": (1.5, 2),
    "sigmoid": (0.8, 0.4),
    "erf": (1.5, 1.8),
    "F.silu": (1.7, 1.5),
    "F.gelu": (1, 1.8),
    "F.gelu, tanh": (1.5, 1.8),
}
SATURATING = {"tanh", *COMPOSED} - {"rsqrt"}


def numbers(name: str, count: int = 20_000) -> Any:
    """`count` float32 numbers from the domain of the row."""
    domain = ROWS[name].domain
    domain = domain if isinstance(domain[0], float) else domain[0]
    return draw(np.random.default_rng(0), (count,), np.float32, domain, 0)


def value_and_gradient(name: str, x: Any) -> tuple[Any, Any]:
    t = Tensor(x, requires_grad=True)
    y = ROWS[name].call(t)
    return y.numpy(), minigrad.grad(y.sum(), t)[0].numpy()


def ulps(got: Any, right: Any, name: str) -> Any:
    """The distances in ulp of float32 at `right`, or at 1 for an op that saturates."""
    at = np.maximum(np.abs(right), 1.0 if name in SATURATING else 0.0).astype(np.float32)
    return np.abs(got.astype(np.float64) - right) / np.spacing(at).astype(np.float64)


def off(got: Any, right: Any, name: str) -> float:
    """The largest of these distances."""
    return float(np.max(ulps(got, right, name)))


@pytest.mark.parametrize("name", SAME)
def test_an_op_of_numpys_adds_nothing_to_its_value_and_a_few_roundings_to_its_gradient(
    name: str,
) -> None:
    function, derivative, ceiling = SAME[name]
    x = numbers(name)
    value, gradient = value_and_gradient(name, x)
    assert value.dtype == gradient.dtype == np.float32
    assert np.array_equal(value, function(x))
    assert off(value, function(x.astype(np.float64)), name) <= NUMPYS_PROMISE
    exact = x.astype(np.float64)
    assert off(gradient, derivative(exact, value.astype(np.float64)), name) <= ceiling


@pytest.mark.parametrize("name", COMPOSED)
def test_a_composed_op_is_off_by_a_few_roundings(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exp, called = np.exp, []

    def rounded(x: Any, **options: Any) -> Any:
        called.append(x.dtype)
        return exp(np.asarray(x, np.float64), **{"casting": "same_kind", **options}).astype(x.dtype)

    x = numbers(name)
    right = value_and_gradient(name, x.astype(np.float64))
    monkeypatch.setattr(np, "exp", rounded)
    got = value_and_gradient(name, x)
    assert called or name == "rsqrt"
    for mine, exact, ceiling in zip(got, right, COMPOSED[name], strict=True):
        assert mine.dtype == np.float32 and off(mine, exact, name) <= ceiling
