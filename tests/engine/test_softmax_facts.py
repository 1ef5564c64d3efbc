"""What holds for softmax and cross-entropy at any size of logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import minigrad
from minigrad import Tensor, ops

EPS = {np.float64: 2.0**-52, np.float32: 2.0**-23}
both_dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32])
logits = st.lists(
    st.lists(st.floats(-50, 50, width=32), min_size=5, max_size=5), min_size=1, max_size=4
)


def gradient(f: Any, x: Any, g: Any = None) -> Any:
    t = Tensor(x, requires_grad=True)
    return minigrad.grad(f(t), t, None if g is None else Tensor(g))[0].numpy()


@both_dtypes
@settings(deadline=None, max_examples=30)
@given(rows=logits)
def test_rows_of_a_softmax_sum_to_one_within_4_eps(dtype: Any, rows: list[list[float]]) -> None:
    p = ops.softmax(Tensor(np.array(rows, dtype))).numpy().astype(np.longdouble)
    assert np.all(p >= 0) and np.all(np.abs(p.sum(-1) - 1) <= 4 * EPS[dtype])


@both_dtypes
@pytest.mark.parametrize("shift", [1e4, -1e4, 8192.0])
def test_softmax_and_its_gradient_are_shift_invariant(dtype: Any, shift: float) -> None:
    """Multiples of 1/64 survive the shift exactly, so the results are the same to the bit."""
    rng = np.random.default_rng(0)
    x = (rng.integers(-256, 257, (3, 7)) / 64).astype(dtype)
    g = rng.normal(size=(3, 7)).astype(dtype)
    moved = x + dtype(shift)
    assert np.array_equal((moved - dtype(shift)), x)
    for op in (ops.softmax,):
        assert np.array_equal(op(Tensor(x)).numpy(), op(Tensor(moved)).numpy())
        assert np.array_equal(gradient(op, x, g), gradient(op, moved, g))
    plain, far = gradient(ops.log_softmax, x, g), gradient(ops.log_softmax, moved, g)
    np.testing.assert_allclose(far, plain, rtol=0, atol=64 * EPS[dtype] * 1e4)


def test_rows_of_the_softmax_jacobian_sum_to_zero() -> None:
    x = np.random.default_rng(1).normal(size=6) * 3
    jacobian = np.stack([gradient(ops.softmax, x, row) for row in np.eye(6)])
    assert np.all(np.abs(jacobian.sum(-1)) <= 4 * EPS[np.float64])
    assert np.all(np.abs(jacobian.sum(0)) <= 4 * EPS[np.float64])


@both_dtypes
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@settings(deadline=None, max_examples=30)
@given(rows=logits)
def test_a_cross_entropy_gradient_sums_to_zero_per_row(
    dtype: Any, smoothing: float, rows: list[list[float]]
) -> None:
    x = np.array(rows, dtype)
    target = np.arange(len(rows)) % 5
    g = gradient(lambda t: ops.cross_entropy(t, target, label_smoothing=smoothing)[0].sum(), x)
    assert np.all(np.abs(g.sum(-1)) <= (8 + 2 * np.max(np.abs(x))) * EPS[dtype])


@both_dtypes
def test_extreme_logits_give_certain_answers_and_finite_gradients(dtype: Any) -> None:
    x = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [3e38, -3e38, 0.0]], dtype)
    third = dtype(1) / dtype(3)
    assert np.array_equal(
        ops.softmax(Tensor(x)).numpy(), np.array([[1, 0, 0], [third] * 3, [1, 0, 0]], dtype)
    )
    loss, g = (
        ops.cross_entropy(Tensor(x), np.array([0, 1, 0]))[0].numpy(),
        gradient(lambda t: ops.cross_entropy(t, np.array([0, 1, 0]))[0].sum(), x),
    )
    np.testing.assert_allclose(loss, [0, np.log(3), 0], rtol=1e-3 if dtype is np.float32 else 1e-11)
    np.testing.assert_allclose(
        g,
        [[0, 0, 0], [1 / 3, -2 / 3, 1 / 3], [0, 0, 0]],
        rtol=1e-3 if dtype is np.float32 else 1e-11,
    )


@both_dtypes
def test_minus_infinity_is_a_probability_of_zero_and_a_row_of_it_is_zero(dtype: Any) -> None:
    x = np.array([[-np.inf, 0, 0], [-np.inf] * 3], dtype)
    p = ops.softmax(Tensor(x)).numpy()
    assert np.array_equal(p, np.array([[0, 0.5, 0.5], [0, 0, 0]], dtype))
    g = gradient(ops.softmax, x, np.array([[1, 2, 4], [1, 2, 4]], dtype))
    assert np.array_equal(g, np.array([[0, -0.5, 0.5], [0, 0, 0]], dtype))
    assert np.array_equal(
        ops.logsumexp(Tensor(x), axis=-1).numpy(), np.array([np.log(dtype(2)), -np.inf], dtype)
    )
    assert np.array_equal(gradient(lambda t: ops.logsumexp(t, axis=-1), x, np.ones(2, dtype)), p)


def test_plus_infinity_takes_all_and_ties_of_it_share() -> None:
    x = np.array([[np.inf, 0.0, -np.inf], [np.inf, np.inf, 5.0]])
    assert np.array_equal(ops.softmax(Tensor(x)).numpy(), [[1, 0, 0], [0.5, 0.5, 0]])
    assert np.array_equal(ops.logsumexp(Tensor(x), axis=-1).numpy(), [np.inf, np.inf])


def test_rows_whose_target_is_ignored_have_no_loss_and_no_gradient() -> None:
    x = np.random.default_rng(2).normal(size=(3, 4))
    x[1] = np.nan
    target = np.array([0, -100, 3])
    loss = ops.cross_entropy(Tensor(x), target)[0].numpy()
    g = gradient(lambda t: ops.cross_entropy(t, target)[0].sum(), x)
    assert (
        loss[1] == 0
        and np.array_equal(g[1], np.zeros(4))
        and np.isfinite(loss).all()
        and np.isfinite(g).all()
    )


@pytest.mark.parametrize("level", [0, 1e4, -1e4, 1e8, -1e8, 1e30])
def test_equal_logits_of_any_size_have_the_loss_and_the_gradient_of_zeros(level: float) -> None:
    x, target = np.full((2, 32), level, np.float32), np.array([1, 2])
    assert ops.cross_entropy(Tensor(x), target)[0].numpy() == pytest.approx(np.log(32), rel=1e-6)
    assert ops.cross_entropy(Tensor(x), target, label_smoothing=0.5)[0].numpy() == pytest.approx(
        np.log(32), rel=1e-6
    )
    assert ops.log_softmax(Tensor(x), axis=-1).numpy() == pytest.approx(-np.log(32), rel=1e-6)
    wanted = np.full((2, 32), 1 / 32)
    wanted[[0, 1], target] -= 1
    assert gradient(lambda t: ops.cross_entropy(t, target)[0].sum(), x) == pytest.approx(
        wanted, rel=1e-5
    )
    assert gradient(lambda t: ops.logsumexp(t, axis=1).sum(), x) == pytest.approx(
        np.full((2, 32), 1 / 32), rel=1e-5
    )


def test_log_softmax_of_a_row_does_not_depend_on_infinities_in_other_rows():
    rows = np.float32(
        [
            [-np.inf, -np.inf, -np.inf],
            [1.5, -np.inf, 1e4],
            [np.inf, 1, np.inf],
            [np.inf, np.nan, 0],
            [0.3, 0.1, 0.7],
        ]
    )
    together = ops.log_softmax(Tensor(rows), axis=-1).numpy()
    alone = [ops.log_softmax(Tensor(row), axis=-1).numpy() for row in rows]
    assert (
        np.array_equal(together, alone, equal_nan=True)
        and np.array_equal(together[2], [0, -np.inf, 0])
        and together.dtype == np.float32
    )
