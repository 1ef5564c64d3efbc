"""Softmax and its kin, extremes and their places, along any axis, in C."""

import numpy as np
import pytest

from minigrad import functional as F, ops
from tests.compiler.in_c import EPS, compiled, near, with_gradients

rng = np.random.default_rng(0)
SOFT, EXTREMES = ["softmax", "log_softmax", "logsumexp"], ["max", "min", "argmax", "argmin"]
# Few and many rows, strips shorter and longer than 64, blocks of rows that are not full.
PLACES = [
    ((9, 33), -1),
    ((40, 21, 100), 1),
    ((40, 21, 100), 0),
    ((3, 5, 130), 1),
    ((200, 7), 0),
    ((1, 70, 200), 1),
    ((4, 5, 1, 6), 1),
    ((4, 1, 6), 1),
]


@pytest.mark.parametrize("name", [*SOFT, "max", "min"])
@pytest.mark.parametrize(("shape", "axis"), PLACES)
def test_reductions_along_any_axis_and_their_gradients_are_eager(name, shape, axis):
    x = rng.normal(0, 3, shape).astype(np.float32)
    got, wanted = compiled(with_gradients(lambda t: getattr(ops, name)(t, axis=axis)), x)
    assert all(near(g, w, 16) for g, w in zip(got, wanted, strict=True))


@pytest.mark.parametrize("name", ["max", "min", "logsumexp"])
@pytest.mark.parametrize("axis", [None, (1, 2), (0, 1), (-1, -2)])
@pytest.mark.parametrize("keepdim", [False, True])
def test_reductions_over_several_axes_and_their_gradients_are_eager(name, axis, keepdim):
    x = rng.integers(0, 5, (6, 3, 4, 5)).astype(np.float32)  # with ties
    got, wanted = compiled(
        with_gradients(lambda t: getattr(ops, name)(t, axis=axis, keepdim=keepdim)), x
    )
    assert all(near(g, w, 16) for g, w in zip(got, wanted, strict=True))


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize(("shape", "axis"), [*PLACES, ((7, 90), None), ((50,), 0)])
def test_the_first_of_equal_extremes_is_found(name, shape, axis):
    x = rng.integers(0, 4, shape).astype(np.float32)
    got, wanted = compiled(
        lambda t: (
            getattr(ops, name)(t, axis=axis),
            getattr(ops, name)(t * 0.5, axis=axis, keepdim=True),
        ),
        x,
    )
    assert all(
        np.array_equal(g, w) and g.dtype == np.int64 for g, w in zip(got, wanted, strict=True)
    )


EDGES = np.float32(
    [
        [0, 1, 2],
        [-np.inf, 0, 1],
        [-np.inf] * 3,
        [np.nan, 0, 1],
        [0, np.nan, np.nan],
        [np.nan, -np.inf, 0],
        [1e4, -1e4, 1e4],
        [3e38, -3e38, 0],
        [-0.0, 0.0, 0.0],
        [np.inf, 0, 1],
        [np.inf, np.inf, 1],
        [np.inf, -np.inf, 1],
        [np.inf, np.nan, -np.inf],
    ]
)


@pytest.mark.as_for_users
@pytest.mark.parametrize("name", [*SOFT, *EXTREMES])
@pytest.mark.parametrize("axis", [0, 1])
def test_infinities_and_nan_along_any_axis_are_eager(name, axis):
    got, wanted = compiled(
        lambda t: getattr(ops, name)(t, axis=axis),
        np.ascontiguousarray(EDGES if axis else EDGES.T),
        threads=(1,),
    )
    assert np.allclose(got[0], wanted[0], rtol=4 * EPS, atol=0, equal_nan=True), (got[0], wanted[0])


@pytest.mark.parametrize("axis", [0, 1])
def test_a_long_log_softmax_keeps_its_digits(axis):
    x = (rng.normal(0, 1, (3, 5000)) + 1e4).astype(np.float32)
    wide = x.astype(np.float64)
    wanted = wide - 1e4 - np.log(np.exp(wide - 1e4).sum(1, keepdims=True))
    got, _ = compiled(
        lambda t: ops.log_softmax(t, axis=axis),
        np.ascontiguousarray(x if axis else x.T),
        threads=(1, 3),
    )
    assert np.abs((got[0] if axis else got[0].T) - wanted).max() <= 8 * EPS * np.abs(wanted).max()


def test_the_accuracy_of_a_batch_is_in_c():
    logits, target = rng.normal(size=(50, 7)).astype(np.float32), rng.integers(0, 7, 50)
    got, wanted = compiled(lambda x, y: (x.argmax(-1) == y).float().mean(), logits, target)
    assert got[0] == wanted[0]


def test_max_pooling_shares_the_gradient_of_ties():
    x = rng.integers(0, 3, (3, 2, 8, 8)).astype(np.float32)
    got, wanted = compiled(
        lambda t: (ops.tie_shares(t, ops.max(t, axis=(2, 3)), axis=(2, 3)), F.softmax(t, 1)), x
    )
    assert np.array_equal(got[0], wanted[0]) and near(got[1], wanted[1])
