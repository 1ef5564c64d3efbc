"""float32 against float64, in ulp: a histogram per op, with a ceiling. One ulp worse than today
fails.

An ulp is the distance between neighbouring float32 numbers at the right result, which is the op's
own in float64; for ops that saturate, whose results near 0 are differences of numbers near 1, it is
at least that at 1. The ceilings were measured with numpy 2.4 on x86-64 with AVX-512; they hold the
library and its numpy together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import Tensor
from tests.engine.cases import CASES, Case
from tests.engine.table import draw

# name -> the most that value and gradient may be off, in ulp, over 20,000 inputs.
CEILINGS: dict[str, tuple[int, int]] = {
    "exp": (3, 3),
    "exp2": (1, 2),
    "expm1": (1, 3),
    "log": (4, 1),
    "log2": (1, 1),
    "log10": (2, 1),
    "log1p": (1, 2),
    "sqrt": (1, 2),
    "rsqrt": (2, 2),
    "reciprocal": (1, 2),
    "square": (1, 0),
    "sin": (2, 2),
    "cos": (2, 2),
    "tan": (1, 2),
    "asin": (1, 2),
    "acos": (1, 2),
    "atan": (1, 2),
    "sinh": (2, 1),
    "cosh": (1, 2),
    "pow of a constant": (1, 2),
    "pow of a negative constant": (1, 1),
    "tanh": (1, 1),
    "sigmoid": (1, 1),
    "erf": (2, 2),
    "F.silu": (2, 2),
    "F.gelu": (2, 2),
    "F.gelu, tanh": (2, 3),
}
SATURATING = {"tanh", "sigmoid", "erf", "F.silu", "F.gelu", "F.gelu, tanh"}
ROWS = {case.name: case for case in CASES}


def distances(case: Case, count: int = 20_000) -> tuple[Any, Any]:
    """|float32 - float64| in ulp, of value and gradient, for `count` numbers drawn from the row's
    domain.
    """
    domain = case.domain if isinstance(case.domain[0], float) else case.domain[0]
    x = draw(np.random.default_rng(0), (count,), np.float32, domain, 0)
    results = []
    for dtype in (np.float32, np.float64):
        t = Tensor(x.astype(dtype), requires_grad=True)
        y = case.call(t)
        results.append((y.numpy(), minigrad.grad(y.sum(), t)[0].numpy()))
    (value, grad), (right_value, right_grad) = results
    least = 1.0 if case.name in SATURATING else 0.0
    return off(value, right_value, least), off(grad, right_grad, least)


def off(got: Any, right: Any, least: float) -> Any:
    """The distance in ulp of float32 at `right`, or at `least` if that is more."""
    at = np.maximum(np.abs(right), least).astype(np.float32)
    return np.abs(got.astype(np.float64) - right) / np.spacing(at).astype(np.float64)


def histogram(ulps: Any) -> list[float]:
    """The shares of results off by at most 0.5, 1, 2, 4 and 8 ulp, and by more."""
    edges = [-1, 0.5000001, 1, 2, 4, 8, np.inf]
    return [float(n) / ulps.size for n in np.histogram(ulps, edges)[0]]


@pytest.mark.parametrize("name", CEILINGS)
def test_float32_is_no_further_from_float64_than_it_was(name: str) -> None:
    for ulps, ceiling in zip(distances(ROWS[name]), CEILINGS[name], strict=True):
        assert np.max(ulps) <= ceiling
