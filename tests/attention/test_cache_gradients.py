"""A cache works with gradients on: nothing is recorded, and a backward pass through it is an error
that names the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import minigrad
from minigrad import Tensor, functional as F, nn, no_grad
from minigrad.errors import CacheGradientError
from minigrad.models import GPT, GPTConfig
from minigrad.nn.cache import StaticCache

CACHES = ["growing", "fixed", "bfloat16", "ring", "ragged", "fork", "reordered", "static", "own"]
B, C, H = 2, 8, 2


def tensor(*shape: int, seed: int = 0, **options: Any) -> Tensor:
    return Tensor(np.random.default_rng(seed).normal(size=shape).astype(np.float32), **options)


def attention(kind: str) -> nn.MultiHeadAttention:
    minigrad.manual_seed(3)
    return nn.MultiHeadAttention(C, H, window=4 if kind == "ring" else None, rope="half")


def filled(kind: str, layer: nn.MultiHeadAttention, past: Tensor) -> Any:
    """A cache of this kind that holds `past`; None where the layer holds it itself."""
    if kind == "static":
        length, first = Tensor(np.array(0)), Tensor(np.zeros(B, np.int64))
        static = StaticCache((B, H, 16, C // H), length, first)
        layer(past, cache=static)
        length.data[...] = past.shape[1]
        return static
    if kind == "own":
        layer.enable_kv_cache()
        layer(past)
        return None
    cache = (
        layer.make_cache()
        if kind == "ring"
        else nn.KVCache(16, fixed=kind == "fixed", dtype="bfloat16" if kind == "bfloat16" else None)
    )
    layer(past, cache=cache, lengths=[3, 1] if kind == "ragged" else None)
    if kind == "reordered":
        cache.reorder([1, 0])
    return cache.fork() if kind == "fork" else cache


@pytest.mark.parametrize("kind", CACHES)
@settings(deadline=None, max_examples=6)
@given(T=st.integers(1, 6), learned=st.booleans(), frozen=st.booleans())
def test_a_layer_gives_the_same_numbers_with_gradients_on_and_off(
    kind: str, T: int, learned: bool, frozen: bool
) -> None:
    layer, past = attention(kind), tensor(B, 3, C)
    layer.requires_grad_(not frozen)
    x = tensor(B, T, C, seed=1, requires_grad=learned)
    y = layer(x, cache=filled(kind, layer, past))
    layer.disable_kv_cache()
    with no_grad():
        assert np.array_equal(y.numpy(), layer(x, cache=filled(kind, layer, past)).numpy())
    assert y.requires_grad == (learned or not frozen)
    if y.requires_grad:
        assert y.grad_fn is not None and all(p.is_leaf for p in y.grad_fn.operands[1:])
        for loss in (y.sum(), (x + y).square().sum()):  # past the cache on a residual path, too
            with pytest.raises(CacheGradientError, match="KV cache"):
                loss.backward()
        inputs = [t for t in (x, *layer.parameters()) if t.requires_grad]
        for create_graph in (False, True):
            for t in inputs:
                with pytest.raises(CacheGradientError, match="KV cache"):
                    minigrad.grad((x + y).sum(), t, create_graph=create_graph)
        assert all(t.grad is None for t in inputs)


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("T", [1, 3])
@pytest.mark.parametrize("learning", ["keys", "values"])
def test_what_a_cache_returns_carries_no_gradient(
    window: int | None, T: int, learning: str
) -> None:
    cache, q = nn.KVCache(window=window), tensor(B, H, T, 4, seed=5, requires_grad=True)
    k, v = (
        tensor(B, H, T, 4, seed=s, requires_grad=learning == n)
        for s, n in ((1, "keys"), (2, "values"))
    )
    keys, values = cache.append(k, v)
    for y in (keys.sum() + values.sum(), F.scaled_dot_product_attention(q, keys, values).sum()):
        with pytest.raises(CacheGradientError, match="KV cache"):
            y.backward()
    for held in (cache, cache.fork()):  # nor what is added to it later, which the first is part of
        keys, values = held.append(k.detach(), v.detach())
        with pytest.raises(CacheGradientError, match="KV cache"):
            F.scaled_dot_product_attention(q, keys, values).sum().backward()
    cache.reset()
    keys, values = cache.append(k.detach(), v.detach())
    F.scaled_dot_product_attention(q, keys, values).sum().backward()
    assert q.grad is not None


def test_weights_and_learned_masks_of_a_cached_layer_carry_no_gradient() -> None:
    layer, x, mask = attention("growing"), tensor(B, 3, C), tensor(3, 3, requires_grad=True)
    layer.requires_grad_(False)
    y, weights = layer(x, cache=layer.make_cache(), mask=mask, return_weights=True)
    for loss in (y.sum(), weights.sum()):
        with pytest.raises(CacheGradientError, match="KV cache"):
            loss.backward()


@pytest.mark.parametrize("own", [False, True])
def test_a_model_with_caches_needs_no_no_grad(own: bool) -> None:
    model = GPT(GPTConfig.gpt2(vocab_size=11, block_size=16, n_layer=2, n_head=2, n_embd=8)).eval()
    tokens = np.array([[1, 2, 3]])
    caches = model.enable_kv_cache() if own else model.make_caches()
    logits = model(tokens, caches=None if own else caches)
    loss = F.cross_entropy(logits.reshape(-1, 11), Tensor([2, 3, 4]))
    with pytest.raises(CacheGradientError, match="KV cache"):
        loss.backward()
    assert all(p.grad is None for p in model.parameters())
    model.disable_kv_cache()
    assert np.allclose(model(tokens).data, logits.data, atol=1e-6)


def test_a_failed_call_is_forgotten() -> None:
    cache, k = nn.KVCache(), tensor(1, 1, 2, 4, requires_grad=True)
    with pytest.raises(KeyError), nn.all_or_none([cache]):
        cache.append(k, k)
        raise KeyError
    keys, _ = cache.append(k.detach(), k.detach())
    assert not keys.requires_grad
