"""Gathering by index, adding up by index, windows and padding in C, with their gradients."""

import numpy as np
import pytest

from minigrad import Tensor, functional as F, ops
from minigrad.compiler import jit
from minigrad.errors import IndexRangeError
from tests.compiler.in_c import EPS, compiled, near, with_gradients

rng = np.random.default_rng(0)


def floats(*shape):
    return rng.normal(size=shape).astype(np.float32)


def eager_in_c(function, *arrays, factor=16):
    got, wanted = compiled(with_gradients(function), *arrays)
    assert all(near(g, w, factor) for g, w in zip(got, wanted, strict=True))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize(
    ("shape", "index", "axis"),
    [
        ((8, 6), (8, 3), 1),
        ((8, 6), (5, 6), 0),
        ((300, 7), (300, 1), -1),
        ((4, 5, 6), (3, 9, 2), 1),
        ((40,), (1000,), 0),
        ((3, 400), (3, 900), 1),
        ((50, 3, 20), (700, 3, 20), 0),
    ],
)
def test_elements_along_an_axis_and_their_gradients_are_eager(shape, index, axis, dtype):
    i = rng.integers(0, shape[axis], index).astype(dtype)
    eager_in_c(lambda x, i: ops.take_along(x, i, axis=axis), floats(*shape), i)


def test_many_numbers_added_to_one_place_keep_their_digits():
    g, i = np.full(200_000, 0.1, np.float32), np.zeros(200_000, np.int64)
    got, _ = compiled(
        lambda g, i: (
            ops.add_along(g, i, axis=0, shape=(3,)),
            ops.add_at(g, i, spec=("array",), shape=(3,)),
        ),
        g,
        i,
        threads=(1, 3),
    )
    assert np.abs(got[0] / (np.float64(np.float32(0.1)) * 200_000) - [1, 0, 0]).max() <= EPS
    assert np.abs(got[1] / (np.float64(np.float32(0.1)) * 200_000) - [1, 0, 0]).max() <= EPS


@pytest.mark.parametrize("ignored", [False, True])
def test_the_loss_of_log_probabilities_and_its_gradient_are_eager(ignored):
    target = rng.integers(0, 11, (30, 20))
    if ignored:
        target[3:7] = -100
    eager_in_c(lambda x, t: F.nll_loss(F.log_softmax(x, -1), t), floats(30, 20, 11), target)
    eager_in_c(
        lambda x, t: F.nll_loss(F.log_softmax(x, -1), t, reduction="none"),
        floats(30, 20, 11),
        target,
    )


KEYS = [
    lambda x, i, j: x[i],
    lambda x, i, j: x[:, i],
    lambda x, i, j: x[:, :, i],
    lambda x, i, j: x[i, j],
    lambda x, i, j: x[:, i, j],
    lambda x, i, j: x[i.reshape(-1, 1), j],
    lambda x, i, j: x[np.arange(len(i.numpy())) % 5, i],
    lambda x, i, j: x[i - 4, j.cast("int32")],
    lambda x, i, j: (x.transpose(0, 2) * 1)[i],
    lambda x, i, j: x.transpose(0, 2)[i],
    lambda x, i, j: x.reshape(-1)[i * 7 + j],
]


@pytest.mark.parametrize("key", range(len(KEYS)))
@pytest.mark.parametrize("count", [6, 500])
def test_arrays_in_a_key_and_their_gradients_are_eager(key, count):
    if key == 6:  # a number that the recording must know
        constant = Tensor(np.arange(count) % 5)
        eager_in_c(lambda x, i: x[constant, i], floats(5, 5, 5), rng.integers(-5, 5, count))
    else:
        i, j = rng.integers(0, 4, (2, count))
        eager_in_c(KEYS[key], floats(5, 4, 5) if key == 7 else floats(5, 5, 5), i, j, factor=64)


@pytest.mark.parametrize("bad", [-6, 5])
def test_an_index_out_of_range_stops_the_step(bad):
    good, wrong = Tensor(np.array([0, 4, 2])), Tensor(np.array([0, bad, 2]))
    for function in (
        lambda x, i: x[i],
        lambda x, i: x[:, i],
        lambda x, i: ops.take_along(x, i.reshape(1, 3), axis=0),
        lambda x, i: ops.add_along(x[:1, :3], i.reshape(1, 3), axis=0, shape=(5, 3)),
        lambda x, i: F.one_hot(i, 5),
    ):
        step = jit(function, backend="c", audit=False)
        for _ in range(3):
            step(Tensor(floats(5, 5)), good)
        with pytest.raises(IndexRangeError):
            step(Tensor(floats(5, 5)), wrong)


def test_integers_and_bools_are_gathered_and_one_hot():
    x, i = rng.integers(0, 99, (6, 5)), rng.integers(0, 5, (6, 2)).astype(np.int32)

    def step(x, i):
        return (
            ops.take_along(x, i, axis=1),
            (x > 40)[:, i[0]],
            x[i[:, 0] - 5],
            F.one_hot(i, 7),
            F.one_hot(i[0], 5) * 2,
        )

    got, wanted = compiled(step, x, i)
    assert all(
        np.array_equal(g, w) and g.dtype == w.dtype for g, w in zip(got, wanted, strict=True)
    )


@pytest.mark.parametrize("widths", [((1, 2), (0, 3)), ((-1, 2), (1, -3)), ((-2, -1), (-1, 0))])
@pytest.mark.parametrize("value", [0.0, -np.inf, 0.5])
def test_padding_and_cutting_and_their_gradients_are_eager(widths, value):
    eager_in_c(lambda x: ops.pad(x, widths=widths, value=value), floats(6, 9))
    got, wanted = compiled(
        lambda i: ops.pad(i, widths=((1, 0), (0, 2))), rng.integers(0, 9, (3, 4))
    )
    assert np.array_equal(got[0], wanted[0])


@pytest.mark.parametrize(
    ("axis", "size", "step", "dilation"),
    [(0, 3, 1, 1), (1, 2, 2, 1), (2, 3, 2, 2), (2, 5, 1, 1), (1, 1, 3, 1)],
)
def test_windows_are_added_up_with_eagers_bits(axis, size, step, dilation):
    def forward(x):
        return ops.unfold(x, axis=axis, size=size, step=step, dilation=dilation) * 1

    got, wanted = compiled(with_gradients(forward), floats(12, 10, 33))
    assert np.array_equal(got[1], wanted[1])


@pytest.mark.as_for_users
@pytest.mark.parametrize(
    "layer",
    [
        lambda x, w, b: F.conv2d(x, w, b, padding=1),
        lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=2),
        lambda x, w, b: F.conv2d(x, w, b, dilation=2),
        lambda x, w, b: F.conv2d(x, w[:, :2], b, groups=2),
        lambda x, w, b: F.max_pool2d(F.conv2d(x, w, b), 2),
        lambda x, w, b: F.avg_pool2d(F.conv2d(x, w, b), 3, 2, 1),
        lambda x, w, b: F.max_pool2d(F.conv2d(x, w, b).round(), 3, 2, 1),
        lambda x, w, b: F.conv1d(x.reshape(8, 8, -1)[:, :4], w[:, :, 0], b, padding="same"),
    ],
)
def test_convolutions_and_pooling_and_their_gradients_are_eager(layer):
    eager_in_c(layer, floats(8, 4, 10, 10), floats(6, 4, 3, 3), floats(6), factor=256)


def test_no_two_threads_meet_in_a_scatter_with_many_repeats():
    i = np.zeros((400, 50), np.int64)
    for axis in (0, 1):
        got, wanted = compiled(
            with_gradients(lambda x, i, axis=axis: ops.take_along(x, i, axis=axis)),
            floats(400, 50),
            i,
        )
        assert near(got[1], wanted[1], 4)
