"""What a row is does not depend on what it is computed beside, nor on the number of threads: to a
few roundings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, functional as F

T, C = 5, 8
rng = np.random.default_rng(0)
WEIGHT, BIAS = rng.normal(size=(C, C)), rng.normal(size=C)
SEQUENCES = [
    ("linear", lambda x: F.linear(x, Tensor(WEIGHT), Tensor(BIAS))),
    ("layer_norm", lambda x: F.layer_norm(x, C, Tensor(WEIGHT[0]), Tensor(BIAS))),
    ("rms_norm", lambda x: F.rms_norm(x, C, Tensor(WEIGHT[0]))),
    ("softmax", F.softmax),
    ("gelu", F.gelu),
    ("gelu, tanh", lambda x: F.gelu(x, approximate="tanh")),
    ("attention", lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True)),
    (
        "cross_entropy",
        lambda x: F.cross_entropy(
            x, np.arange(x.shape[-2]) % C + np.zeros(x.shape[:-1], int), reduction="none"
        ),
    ),
]
each = pytest.mark.parametrize(
    "f", [row[1] for row in SEQUENCES], ids=[row[0] for row in SEQUENCES]
)


def value_and_gradient(f: Any, x: Any) -> tuple[Any, Any]:
    t = Tensor(x, requires_grad=True)
    y = f(t)
    return y.numpy(), minigrad.grad(
        y, t, Tensor(np.cos(np.arange(y.shape[-1])) + np.zeros(y.shape))
    )[0].numpy()


def close(got: Any, wanted: Any) -> None:
    np.testing.assert_allclose(
        got, wanted, rtol=0, atol=64 * np.finfo(float).eps * np.max(np.abs(wanted))
    )


@each
@pytest.mark.parametrize("batch", [2, 3, 17])
def test_a_sequence_alone_equals_the_same_sequence_in_a_batch(f: Any, batch: int) -> None:
    x = np.random.default_rng(1).normal(size=(batch, T, C))
    together = value_and_gradient(f, x)
    for i in range(batch):
        for got, wanted in zip(value_and_gradient(f, x[i]), together, strict=True):
            close(got, wanted[i])


@each
def test_an_empty_batch_has_an_empty_result_and_gradient(f: Any) -> None:
    y, g = value_and_gradient(f, np.zeros((0, T, C)))
    assert y.shape[:2] == (0, T) and g.shape == (0, T, C)


@each
def test_the_number_of_blas_threads_changes_no_more_than_roundings(f: Any) -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    x = np.random.default_rng(2).normal(size=(16, 64, C))
    results = []
    for threads in (1, 2, 3, 4, 7):
        with threadpoolctl.threadpool_limits(threads):
            results.append(value_and_gradient(f, x))
    for value, grad in results[1:]:
        close(value, results[0][0])
        close(grad, results[0][1])
