"""What minigrad adds to numpy's rounding, in ulp of float32: a ceiling per op that holds on every
machine.

numpy picks its float32 functions by the CPU's vector extensions (AVX-512, AVX2, neither) and
promises 4 ulp for all of them, so that a ceiling measured against the exact result on one machine
fails on the next. Two ways around that:

- An op that is a numpy function must give numpy's own result on this machine, to the bit, and that
  must keep numpy's promise. Its gradient is compared with its rule in float64, on numpy's own
  float32 results: what is left are additions, products, quotients and square roots, which IEEE 754
  rounds alike everywhere. (That the rule is right, `test_op_table.py` says.) How far it may be off
  stands in the op's row: half an ulp for each rounded number or operation of the rule.
- An op composed of several steps runs with a correctly rounded np.exp, the only function of numpy
  in these, in place of numpy's. What is left is again the same everywhere.

An ulp is the distance between neighbouring float32 numbers at the right result; for ops that
saturate, whose results near 0 are differences of numbers near 1, it is at least that at 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, ops
from minigrad.primitive import Primitive
from tests.engine.cases import CASES, UNARY
from tests.engine.table import draw

ROWS = {case.name: case for case in CASES}
NUMPYS_PROMISE = 4.0  # ulp, of its float32 functions in SIMD


def numpys(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """numpy's float32 result at float64 numbers, as float64."""
    return lambda *xs: function(*(np.float32(x) for x in xs)).astype(np.float64)


def is_numpys(op: Primitive) -> bool:
    """True for a float function of numpy's, other than the square root, which IEEE 754 rounds."""
    return isinstance(op.forward, np.ufunc) and op.dtype == "float" and op.forward is not np.sqrt


# The ops that are numpy functions, and the powers of a constant, whose derivatives are powers too.
SAME: dict[str, Any] = {
    name: case
    for name, case in UNARY.items()
    if isinstance(case.op.forward, np.ufunc) and case.op.dtype == "float"
}
POWERS = {"pow of a constant": np.float32(3), "pow of a negative constant": np.float32(-0.5)}
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
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, x = SAME[name], numbers(name)
    value, gradient = value_and_gradient(name, x)
    assert value.dtype == gradient.dtype == np.float32
    assert np.array_equal(value, case.op.forward(x))
    exact = x.astype(np.float64)
    assert off(value, case.op.forward(exact), name) <= NUMPYS_PROMISE
    for op in vars(ops).values():
        if isinstance(op, Primitive) and is_numpys(op):
            monkeypatch.setattr(op, "forward", numpys(op.forward))
    right = case.op.rule(np.ones_like(exact), value.astype(np.float64), exact)[0]
    assert off(gradient, right, name) <= case.ulps


@pytest.mark.parametrize("name", POWERS)
def test_a_power_adds_nothing_to_its_value_and_a_few_roundings_to_its_gradient(name: str) -> None:
    p, x = POWERS[name], numbers(name)
    value, gradient = value_and_gradient(name, x)
    exact = x.astype(np.float64)
    assert np.array_equal(value, np.power(x, p))
    assert off(value, np.power(exact, p), name) <= NUMPYS_PROMISE
    assert off(gradient, p * exact ** (p - 1), name) <= NUMPYS_PROMISE + 0.5


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
