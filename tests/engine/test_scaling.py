"""How ops behave when their inputs are multiplied, and how finite differences approach the
gradient.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, functional as F, ops


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def gradient(f: Any, x: Any, g: Any = None) -> Any:
    t = Tensor(x, requires_grad=True)
    y = f(t)
    return minigrad.grad(y, t, Tensor(np.ones(y.shape) if g is None else g))[0].numpy()


HOMOGENEOUS = [
    ("sum", lambda x: ops.sum(x, axis=0), 1),
    ("mean", lambda x: ops.mean(x, axis=0), 1),
    ("max", lambda x: ops.max(x, axis=0), 1),
    ("min", lambda x: ops.min(x, axis=0), 1),
    ("abs", ops.abs, 1),
    ("relu", ops.relu, 1),
    ("neg", ops.neg, 1),
    ("square", ops.square, 2),
    ("sqrt", lambda x: ops.sqrt(ops.abs(x)), 0.5),
    ("rsqrt", lambda x: ops.rsqrt(ops.abs(x)), -0.5),
    ("reciprocal", ops.reciprocal, -1),
    ("var", lambda x: ops.var(x, axis=0), 2),
    ("std", lambda x: x.std(axis=0), 1),
    ("matmul with itself", lambda x: x @ x, 2),
    ("division by its maximum", lambda x: x / ops.max(x), 0),
    ("cube", lambda x: x**3, 3),
    ("layer_norm without eps", lambda x: F.layer_norm(x, 4, eps=0.0), 0),
    ("rms_norm without eps", lambda x: F.rms_norm(x, 4, eps=0.0), 0),
    ("clamp at 0", lambda x: ops.clamp(x, 0.0, np.inf), 1),
    ("maximum", lambda x: ops.maximum(x, -x), 1),
]


@pytest.mark.parametrize("power", [-40, -4, 4, 40])
@pytest.mark.parametrize(
    "f, degree", [row[1:] for row in HOMOGENEOUS], ids=[row[0] for row in HOMOGENEOUS]
)
def test_homogeneous_ops_scale_exactly_with_powers_of_two(
    f: Any, degree: float, power: int
) -> None:
    """f(2^p x) = 2^(p d) f(x) to the bit, and its gradient goes with 2^(p (d - 1)): an epsilon
    hidden anywhere would show.
    """
    x, c = rng().normal(size=(4, 4)), 2.0**power
    assert np.array_equal(f(Tensor(c * x)).numpy(), 2.0 ** (power * degree) * f(Tensor(x)).numpy())
    assert np.array_equal(gradient(f, c * x), 2.0 ** (power * (degree - 1)) * gradient(f, x))


TARGET = np.array([1, 0, 3])
SMOOTH = [
    ("gelu", F.gelu),
    ("gelu, tanh", lambda x: F.gelu(x, approximate="tanh")),
    ("silu", F.silu),
    ("softmax", ops.softmax),
    ("log_softmax", ops.log_softmax),
    ("layer_norm", lambda x: F.layer_norm(x, 4)),
    ("rms_norm", lambda x: F.rms_norm(x, 4)),
    ("cross_entropy", lambda x: F.cross_entropy(x, TARGET)),
    ("attention", lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True)),
    ("logsumexp", lambda x: ops.logsumexp(x, axis=1)),
    ("erf", ops.erf),
    ("tanh", ops.tanh),
    ("sigmoid", ops.sigmoid),
    ("std", lambda x: x.std(axis=0)),
    ("a product", lambda x: x @ ops.exp(x).T),
    ("pow", lambda x: ops.abs(x) ** 2.5),
]


@pytest.mark.parametrize("f", [row[1] for row in SMOOTH], ids=[row[0] for row in SMOOTH])
def test_the_error_of_finite_differences_falls_as_h_squared(f: Any) -> None:
    """A gradient that is wrong by as little as 1e-6 makes a plateau. Four halvings of h, each to
    leave a quarter; rounding is far below.
    """
    generator = rng()
    x, v = generator.normal(size=(3, 4)), generator.normal(size=(3, 4))
    g = generator.normal(size=f(Tensor(x)).shape)
    slope = np.sum(gradient(f, x, g) * v)

    def error(h: float) -> float:
        up, down = (np.sum(g * f(Tensor(x + s * v)).numpy()) for s in (h, -h))
        return float((up - down) / (2 * h) - slope)

    errors = [error(2.0**-k / 100) for k in range(5)]
    ratios = [a / b for a, b in itertools.pairwise(errors)]
    assert all(3.8 < ratio < 4.2 for ratio in ratios), ratios
