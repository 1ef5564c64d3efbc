"""Clipping by the common norm."""

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from minigrad import Tensor, optim
from minigrad.errors import ConfigError, NotFiniteError
from minigrad.optim import update


def with_gradients(*gradients):
    params = []
    for g in gradients:
        g = np.asarray(g, np.float32)
        params.append(Tensor(np.zeros_like(g), requires_grad=True))
        params[-1].grad = Tensor(g)
    return params


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3), st.floats(-12, 12))
def test_the_norm_is_returned_and_then_at_most_max_norm(seed, max_norm, exponent):
    rng = np.random.default_rng(seed)
    gradients = [
        (rng.normal(size=s) * 10**exponent).astype(np.float32)
        for s in [(3, 4), (), (40_000,), (0,)]
    ]
    params = with_gradients(*gradients)
    wanted = math.sqrt(math.fsum(float(x) ** 2 for g in gradients for x in g.ravel()))
    norm = optim.clip_grad_norm_(params, max_norm)
    assert norm.shape == ()
    assert abs(norm.item() - wanted) <= 1e-6 * wanted
    scale = min(1.0, max_norm / (wanted + 1e-6))
    for p, g in zip(params, gradients, strict=True):
        assert np.allclose(p.grad.data, g * scale, rtol=1e-6, atol=0)


def test_gradients_below_the_norm_keep_their_bits():
    params = with_gradients([0.1, 0.2], [0.3])
    before = [p.grad.data.copy() for p in params]
    optim.clip_grad_norm_(params, 1.0)
    assert all(np.array_equal(p.grad.data, b) for p, b in zip(params, before, strict=True))


def test_squares_that_float32_cannot_hold_are_summed():
    assert optim.clip_grad_norm_(with_gradients([3e30, 4e30]), 1.0).item() == pytest.approx(
        5e30, rel=1e-6
    )
    assert optim.clip_grad_norm_(with_gradients([3e-30, 4e-30]), 1.0).item() == pytest.approx(
        5e-30, rel=1e-6
    )


def test_parameters_without_gradients_do_not_count():
    params = [*with_gradients([3.0, 4.0]), Tensor([1.0], requires_grad=True)]
    assert optim.clip_grad_norm_(params, 10.0).item() == 5.0
    assert optim.clip_grad_norm_([Tensor([1.0], requires_grad=True)], 1.0).item() == 0.0
    assert optim.clip_grad_norm_(with_gradients([3.0, 4.0])[0], 10.0).item() == 5.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_norm_that_is_not_finite_passes_as_in_pytorch_or_raises_with_gradients_unchanged(bad):
    params = with_gradients([1.0, bad], [2.0])
    with pytest.raises(NotFiniteError):
        optim.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    assert (params[0].grad.data[0], params[1].grad.data[0]) == (1.0, 2.0)
    norm = optim.clip_grad_norm_(params, 1.0)
    assert np.array_equal(norm.data, np.float32(bad), equal_nan=True)
    left = params[1].grad.item()
    assert left == 0.0 if bad == math.inf else math.isnan(left)
    assert math.isnan(params[0].grad.data[1])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_gradients_are_clipped(dtype):
    p = Tensor([0.0, 0.0]).cast(dtype).requires_grad_()
    p.grad = Tensor([3.0, 4.0]).cast(dtype)
    assert optim.clip_grad_norm_([p], 0.5).item() == 5.0
    assert np.allclose(p.grad.float().data, [0.3, 0.4], rtol=1e-2)


@pytest.mark.parametrize("max_norm", [0.0, -1.0, math.nan])
def test_a_max_norm_that_is_not_positive_is_refused(max_norm):
    with pytest.raises(ConfigError):
        optim.clip_grad_norm_(with_gradients([1.0]), max_norm)


def test_clipping_raises_the_versions_of_all_gradients():
    params = with_gradients([3.0], [4.0])
    optim.clip_grad_norm_(params, 1.0)
    assert [p.grad._version[0] for p in params] == [1, 1]
    assert update.clip_grad_norm_.kind == "effect"


# --- by value


@given(
    st.lists(st.floats(width=32), min_size=1, max_size=6),
    st.floats(0, 100, width=32),
    st.sampled_from(["float32", "float64", "float16", "bfloat16"]),
)
def test_every_number_of_a_gradient_is_limited_in_place(values, limit, dtype):
    with np.errstate(all="ignore"):
        gradient = Tensor(np.array(values, np.float32)).cast(dtype)
    p, other = Tensor(values, requires_grad=True), Tensor([1.0], requires_grad=True)
    p.grad, memory, before = gradient, gradient.data, gradient.float().numpy().copy()
    optim.clip_grad_value_([p, other], limit)
    with np.errstate(all="ignore"):
        bound = float(Tensor(np.array(limit, np.float32)).cast(dtype).float().numpy())
    assert p.grad.data is memory and other.grad is None
    assert np.array_equal(p.grad.float().numpy(), np.clip(before, -bound, bound), equal_nan=True)


@pytest.mark.parametrize("limit", [-1.0, math.nan, True, "1", None])
def test_a_limit_that_is_not_one_is_refused(limit):
    with pytest.raises(ConfigError, match="clip_value"):
        optim.clip_grad_value_(Tensor([1.0], requires_grad=True), limit)
