"""What the self-attention notes promise, one test each, by the names that they give."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from minigrad import Tensor, functional as F, nn, no_grad
from minigrad.ops.masks import CausalMaskCache

WIDTH, HEADS = 256, 8


@pytest.fixture
def layer():
    attention = nn.MultiHeadAttention(WIDTH, HEADS)
    rng = np.random.default_rng(0)
    attention.load_state_dict(
        {n: rng.normal(size=p.shape) / 16 for n, p in attention.state_dict().items()}
    )
    attention.causal_mask_cache.clear()
    return attention


def data(B, T, scale=1.0, seed=1):
    return (np.random.default_rng(seed).normal(size=(B, T, WIDTH)) * scale).astype(np.float32)


def closed_form(attention, x):
    """The layer in float64, written out."""
    w, b, wo, bo = (
        attention.state_dict()[n].data.astype(np.float64)
        for n in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
    )
    B, T, C = x.shape
    q, k, v = np.moveaxis(
        (x.astype(np.float64) @ w.T + b).reshape(B, T, 3, HEADS, C // HEADS), 2, 0
    ).transpose(0, 1, 3, 2, 4)
    s = np.where(np.tri(T, dtype=bool), q @ k.swapaxes(-1, -2) / np.sqrt(C // HEADS), -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return (p @ v).transpose(0, 2, 1, 3).reshape(B, T, C) @ wo.T + bo


def test_causal_mask_caching(layer):
    cache = layer.causal_mask_cache
    assert len(cache) == 0
    mask = layer.get_or_create_causal_mask(128)
    assert np.array_equal(mask, np.tri(128, dtype=bool))
    assert len(cache) == 1 and cache.info().misses == 1
    assert np.shares_memory(layer.get_or_create_causal_mask(128), mask)
    assert cache.info().hits == 1
    layer(Tensor(data(1, 128)))
    assert cache.info().misses == 1 and cache.info().hits > 1
    cache.clear()
    assert (len(cache), cache.info()) == (0, (0, 0, 0))


def test_multiple_sequence_lengths(layer):
    for T in (1, 7, 8, 16, 32, 64, 65, 128, 200):
        x = data(1, T)
        want = closed_form(layer, x)
        assert np.abs(layer(Tensor(x)).data - want).max() < 1e-5 * np.abs(want).max()
    assert (
        layer.causal_mask_cache.info().bytes <= 128 * 128 * 4
    )  # what one mask of length 128 used to cost


@pytest.mark.parametrize("scale", [100.0, 1000.0])
def test_numerical_stability_with_large_values(layer, scale):
    x = Tensor(data(1, 32, scale), requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert np.isfinite(y.data).all() and np.isfinite(x.grad.data).all()
    assert np.abs(y.data - closed_form(layer, x.data)).max() < 1e-3 * np.abs(y.data).max()
    rows = np.array(
        [[1000.0, 999.0, -1000.0], [-1e30, 0.0, 1e30], [-np.inf, -np.inf, -np.inf]], np.float32
    )
    assert np.allclose(
        F.stable_softmax(Tensor(rows)).data, [[0.7310586, 0.26894143, 0], [0, 0, 1], [0, 0, 0]]
    )


def test_numerical_stability_with_small_values(layer):
    x = data(1, 32, 0.001)
    assert np.abs(layer(Tensor(x)).data - closed_form(layer, x)).max() < 1e-6
    p = F.stable_softmax(Tensor([[0.001, 0.001, 0.002], [1e-30, 0.0, -1e-30]])).data
    assert np.allclose(p.sum(-1), 1) and np.allclose(p[1], 1 / 3)


def test_gradient_flow(layer):
    x = Tensor(data(2, 16), requires_grad=True)
    (layer(x) ** 2).sum().backward()
    for t in (x, *layer.parameters()):
        assert np.isfinite(t.grad.data).all() and np.abs(t.grad.data).max() > 0
    assert (np.abs(x.grad.data).max(-1) > 0).all()  # every position gets some


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_gradient_stability_with_extreme_values(layer, scale):
    x = Tensor(data(1, 16, scale), requires_grad=True)
    layer(x).sum().backward()
    for t in (x, *layer.parameters()):
        assert np.isfinite(t.grad.data).all()


def test_forward_backward_consistency(layer):
    layer.to("float64")
    rng = np.random.default_rng(2)
    x, u = data(1, 9).astype(np.float64), rng.normal(size=(1, 9, WIDTH))
    leaf = Tensor(x, requires_grad=True)
    g = rng.normal(size=x.shape)
    layer(leaf).backward(g)
    with no_grad():
        h = 1e-5
        slope = ((layer(Tensor(x + h * u)).data - layer(Tensor(x - h * u)).data) * g).sum() / (
            2 * h
        )
    assert abs(slope - (leaf.grad.data * u).sum()) < 1e-8 * np.abs(leaf.grad.data * u).sum()
    first, again = (layer(Tensor(x)).data for _ in range(2))
    assert np.array_equal(first, again)


def test_mask_cache_performance():
    cache = CausalMaskCache()
    for T in (8, 16, 32, 64, 128) * 20:
        cache.get_or_create(T)
    info = cache.info()
    assert info.hits + info.misses == 100 and info.misses <= 3  # doubled twice
    for T in range(1, 3000):
        cache.get_or_create(T)
    assert cache.info().bytes <= 1 << 20


def test_output_causality(layer):
    x = data(1, 24)
    y = layer(Tensor(x)).data
    for j in (5, 23):
        for poison in (1e3, np.nan, np.inf):
            changed = x.copy()
            changed[:, j] = poison
            with np.errstate(invalid="ignore"):
                assert np.array_equal(layer(Tensor(changed)).data[:, :j], y[:, :j])


def test_different_batch_sizes(layer):
    x = data(5, 12)
    whole = layer(Tensor(x)).data
    for B in (1, 2, 5):
        got = np.concatenate([layer(Tensor(x[b : b + B])).data for b in range(0, 5, B)])
        assert np.abs(got - whole).max() < 1e-5


def test_caches_are_not_saved_and_come_back_empty(layer):
    layer.enable_kv_cache()
    with no_grad():
        layer(Tensor(data(1, 6)))
    copy = pickle.loads(pickle.dumps(layer))
    assert copy._cache is None
    assert set(copy.state_dict()) == {
        "in_proj_weight",
        "in_proj_bias",
        "out_proj.weight",
        "out_proj.bias",
    }
    layer.disable_kv_cache()
    assert np.array_equal(copy(Tensor(data(1, 6))).data, layer(Tensor(data(1, 6))).data)
