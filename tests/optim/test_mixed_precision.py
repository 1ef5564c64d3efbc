"""Parameters in 16 bits, masters in 32."""

from __future__ import annotations

import numpy as np
import pytest

from minigrad import Tensor, nn
from minigrad.errors import ConfigError, StateDictError
from minigrad.optim import SGD, AdamW, MixedPrecision

HALVES = ["float16", "bfloat16"]


def block(seed=0):
    layer = nn.TransformerBlock(16, 2)
    rng = np.random.default_rng(seed)
    layer.load_state_dict(
        {n: rng.normal(size=p.shape) * 0.2 for n, p in layer.state_dict().items()}
    )
    return layer


def train(layer, step, count):
    x, y = (
        Tensor(np.random.default_rng(s).normal(size=(2, 6, 16)).astype(np.float32)) for s in (1, 2)
    )
    losses = []
    for _ in range(count):
        loss = ((layer(x) - y) ** 2).mean()
        step(loss)
        losses.append(loss.item())
    return losses


def mixed_step(mixed):
    def step(loss):
        mixed.zero_grad()
        mixed.backward(loss)
        mixed.step(max_norm=1.0)

    return step


@pytest.mark.parametrize("dtype", HALVES)
def test_training_follows_float32(dtype):
    full, half = block(), block()
    optimizer = AdamW(full.parameters(), lr=1e-2)

    def step(loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    want = train(full, step, 40)
    mixed = MixedPrecision(half.parameters(), lambda params: AdamW(params, lr=1e-2), dtype)
    got = train(half, mixed_step(mixed), 40)
    assert want[-1] < 0.5 * want[0] and abs(got[-1] - want[-1]) < 0.1 * want[-1] + 0.02
    assert {p.dtype for p in half.parameters()} == {mixed.params[0].dtype}
    assert sum(p.data.nbytes for p in half.parameters()) * 2 == sum(
        p.data.nbytes for p in full.parameters()
    )


@pytest.mark.parametrize("dtype", HALVES)
def test_updates_too_small_for_16_bits_add_up_in_the_master(dtype):
    p = nn.Parameter([1.0])
    mixed = MixedPrecision([p], lambda params: SGD(params, lr=1e-4), dtype)
    while mixed.good_steps < 100:  # float16 skips the first, whose scaled gradient is 65536
        mixed.zero_grad()
        mixed.backward(p.sum())
        mixed.step()
    assert mixed.skipped <= 1
    assert abs(mixed.masters[0].item() - 0.99) < 1e-5
    assert abs(p.item() - 0.99) < 2**-8


def test_a_tiny_gradient_survives_in_float16_by_the_scale():
    p = nn.Parameter([1.0])
    mixed = MixedPrecision([p], lambda params: SGD(params, lr=1.0), "float16")
    mixed.backward((p * 1e-9).sum())
    mixed.step()
    assert abs(mixed.masters[0].grad.item() - 1e-9) < 1e-11


def test_an_overflow_skips_the_step_and_halves_the_scale_and_good_steps_double_it():
    p = nn.Parameter([1.0])
    mixed = MixedPrecision([p], lambda params: SGD(params, lr=0.0), "float16", growth_interval=3)
    mixed.backward((p * 10).sum())
    assert not mixed.step() and mixed.loss_scale == 32768 and mixed.skipped == 1 and p.item() == 1
    for _ in range(3):
        mixed.zero_grad()
        mixed.backward(p.sum())
        assert mixed.step()
    assert mixed.loss_scale == 65536


def test_a_saved_state_goes_on_to_the_bit():
    one, other = block(), block(5)
    first, second = (
        MixedPrecision(m.parameters(), lambda params: AdamW(params, lr=1e-2), "float16")
        for m in (one, other)
    )
    train(one, mixed_step(first), 5)
    second.load_state_dict(first.state_dict())
    assert train(one, mixed_step(first), 5) == train(other, mixed_step(second), 5)
    with pytest.raises(StateDictError):
        second.load_state_dict({**first.state_dict(), "masters": []})


def test_settings_that_make_no_sense_are_refused():
    for settings in ({"dtype": "float32"}, {"loss_scale": 0.0}, {"loss_scale": float("nan")}):
        with pytest.raises(ConfigError):
            MixedPrecision([nn.Parameter([1.0])], lambda params: SGD(params, lr=1.0), **settings)
