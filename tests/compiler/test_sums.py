"""Sums in C over any axes, of floats, integers and bools; and batch norm, which is made of them."""

import itertools

import numpy as np
import pytest

from minigrad import functional as F, ops
from tests.compiler.in_c import EPS, compiled, near, with_gradients

pytestmark = pytest.mark.as_for_users

rng = np.random.default_rng(0)
AXES = [axes for n in range(1, 5) for axes in itertools.combinations(range(4), n)]


@pytest.mark.parametrize("shape", [(3, 5, 4, 7), (40, 6, 9, 33), (1, 5, 1, 70), (2, 1, 3, 1)])
def test_sums_over_any_axes_are_exact_for_integers_in_float32(shape):
    x = rng.integers(-9, 9, shape).astype(np.float32)

    def step(t):
        return *(t.sum(axes) for axes in AXES), *((t * 1).sum(axes, keepdim=True) for axes in AXES)

    got, wanted = compiled(step, x, threads=(1, 3))
    assert all(
        np.array_equal(g, w) and g.dtype == w.dtype for g, w in zip(got, wanted, strict=True)
    )


@pytest.mark.parametrize("dtype", [np.bool_, np.int64, np.int32, np.uint8, np.int16, np.uint64])
def test_bools_and_integers_are_added_up_as_in_numpy(dtype):
    x = (
        rng.integers(0, 250, (6, 3, 40, 5)).astype(dtype)
        if dtype != np.bool_
        else rng.random((6, 3, 40, 5)) < 0.5
    )
    if dtype in (np.int64, np.uint64):
        x[0, 0, 0, :2] = np.iinfo(dtype).max  # they wrap around

    def step(t):
        return *((t[1:] * 1 if t.dtype != np.bool_ else t).sum(axes) for axes in AXES), t.sum()

    got, wanted = compiled(step, x, threads=(1, 3))
    assert all(
        np.array_equal(g, w) and g.dtype == w.dtype for g, w in zip(got, wanted, strict=True)
    )


def test_any_and_all_take_nan_for_true():
    x = np.where(rng.random((4, 3, 5, 6)) < 0.8, 0, rng.normal(size=(4, 3, 5, 6))).astype(
        np.float32
    )
    x[0, 0, 0, 0], x[1] = np.nan, 1

    def step(t):
        return (
            *(ops.any(t, axis=axes) for axes in AXES),
            *(ops.all(t, axis=axes) for axes in AXES),
            ops.all(t > -9),
            ops.any(t > 0, axis=0),
        )

    got, wanted = compiled(step, x, threads=(1, 3))
    assert all(
        np.array_equal(g, w) and g.dtype == np.bool_ for g, w in zip(got, wanted, strict=True)
    )


LONG = [
    ((2, 9000, 70), 1),
    ((300, 3, 400), (0, 2)),
    ((50000, 2), 0),
    ((64, 3, 30, 30), (0, 2, 3)),
    ((9, 20000), 1),
]


@pytest.mark.parametrize(("shape", "axes"), LONG)
def test_long_sums_keep_their_digits(shape, axes):
    x = (rng.normal(0, 1, shape) + 1).astype(np.float32)
    got, _ = compiled(lambda t: t.sum(axes), x, threads=(1, 7))
    wanted = x.astype(np.float64).sum(axes)
    assert np.abs(got[0] - wanted).max() <= 32 * EPS * np.abs(wanted).max()


@pytest.mark.parametrize("shape", [(8, 5), (6, 5, 7), (16, 4, 9, 11)])
def test_batch_norm_and_its_gradients_are_eager(shape):
    x = rng.normal(2, 3, shape).astype(np.float32)
    weight, bias, mean, var = (rng.normal(1, 0.2, shape[1]).astype(np.float32) for _ in range(4))

    def forward(t, w, b, m, v):
        m, v = m * 1, v * 1
        return ops.cat(
            *(y.reshape(-1) for y in (F.batch_norm(t, m, v, w, b, training=True), m, v)), axis=0
        )

    got, wanted = compiled(with_gradients(forward), x, weight, bias, mean, var)
    for g, w in zip(got[:4], wanted[:4], strict=True):
        assert near(g, w, 256)


def test_nan_and_inf_in_a_sum_stay_in_their_place():
    x = rng.normal(size=(3, 40, 5, 70)).astype(np.float32)
    x[0, 3, 0, 0], x[1, 4, 1, 1], x[2, 5, :2, 2] = np.nan, np.inf, np.inf
    got, wanted = compiled(lambda t: tuple(t.sum(axes) for axes in AXES), x, threads=(1,))
    assert all(near(g, w, 256) for g, w in zip(got, wanted, strict=True))
