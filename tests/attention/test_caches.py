"""Decoding with a cache equals the full forward pass, whatever the cache is and however the
positions come in.
"""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from minigrad import Tensor, nn, no_grad
from minigrad.errors import CacheError
from minigrad.models import GPT, GPTConfig

C = 12
KINDS = [
    {},
    {"n_kv_head": 1},
    {"rope": "half", "n_kv_head": 2},
    {"rope": "interleaved", "qk_norm": True},
    {"alibi": True},
    {"window": 5},
    {"window": 5, "rope": "half"},
    {"window": 4, "alibi": True},
]


def layer(dtype=np.float64, **kind):
    attention = nn.MultiHeadAttention(C, 4 if kind.get("rope") is None else 2, **kind)
    rng = np.random.default_rng(0)
    attention.to(dtype)
    attention.load_state_dict(
        {name: rng.normal(size=p.shape) * 0.5 for name, p in attention.state_dict().items()}
    )
    return attention.eval()


def inputs(B, T, seed=1, dtype=np.float64):
    return Tensor(np.random.default_rng(seed).normal(size=(B, T, C)).astype(dtype))


def budget(y):
    return 64 * np.finfo(y.dtype).eps * np.abs(y).max()


def decoded(attention, cache, x, cuts):
    with no_grad():
        parts = [attention(x[:, a:b], cache=cache).data for a, b in pairwise(cuts)]
    return np.concatenate(parts, 1)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@settings(deadline=None, max_examples=12)
@given(cuts=st.lists(st.integers(1, 79), max_size=8, unique=True))
def test_any_chunks_across_growth_give_the_full_forward(kind, cuts):
    attention, x = layer(**kind), inputs(2, 80)
    full = attention(x).data
    got = decoded(attention, attention.make_cache(), x, [0, *sorted(cuts), 80])
    assert np.abs(got - full).max() <= budget(full)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_token_by_token_gives_the_full_forward(kind):
    attention, x = layer(**kind), inputs(1, 20)
    got = decoded(attention, attention.make_cache(), x, range(21))
    assert np.abs(got - attention(x).data).max() <= budget(got)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_rows_of_different_lengths_decode_as_they_do_alone(kind):
    if kind.get("window"):
        kind = {
            **kind,
            "alibi": True,
        }  # a ring holds rows of one length; a window with ALiBi has no ring
    attention, x, lengths = layer(**kind), inputs(3, 9), [9, 2, 5]
    more = inputs(3, 4, seed=2)
    cache = attention.make_cache()
    with no_grad():
        first = attention(x, lengths=lengths, cache=cache).data
        assert cache.lengths.tolist() == lengths
        second = [attention(more[:, t : t + 1], cache=cache).data for t in range(4)]
        for b, n in enumerate(lengths):
            whole = attention(
                Tensor(np.concatenate([x.data[b : b + 1, :n], more.data[b : b + 1]], 1))
            ).data
            got = np.concatenate([first[b : b + 1, :n], *(part[b : b + 1] for part in second)], 1)
            assert np.abs(got - whole).max() <= budget(whole)


def test_after_truncate_and_reorder_the_rows_go_on_as_if_never_otherwise():
    attention, x, other = layer(rope="half"), inputs(2, 8), inputs(2, 3, seed=5)
    cache = attention.make_cache()
    decoded(attention, cache, x, [0, 6, 8])
    cache.truncate(5)
    cache.reorder([1, 0])
    got = decoded(attention, cache, other, [0, 3])
    whole = attention(Tensor(np.concatenate([x.data[[1, 0], :5], other.data], 1))).data[:, 5:]
    assert np.abs(got - whole).max() <= budget(whole)


@pytest.mark.parametrize("kind", [{}, {"window": 4}], ids=str)
def test_forks_share_the_past_and_not_the_future(kind):
    attention, x = layer(**kind), inputs(1, 7)
    cache = attention.make_cache()
    decoded(attention, cache, x, [0, 6, 7])
    fork = cache.fork()
    assert fork._held.keys is cache._held.keys
    ends = [inputs(1, 3, seed=s) for s in (3, 4)]
    got = [[], []]
    for t in range(3):  # in turns, so that one would see what the other has written
        for parts, c, end in zip(got, (cache, fork), ends, strict=True):
            parts.append(decoded(attention, c, end[:, t : t + 1], [0, 1]))
    for parts, end in zip(got, ends, strict=True):
        y = np.concatenate(parts, 1)
        whole = attention(Tensor(np.concatenate([x.data, end.data], 1))).data[:, 7:]
        assert np.abs(y - whole).max() <= budget(whole)


def test_a_ring_holds_its_window_however_long_the_conversation():
    attention = layer(window=5)
    cache = attention.make_cache()
    decoded(attention, cache, inputs(1, 200), [0, 3, *range(100, 201)])
    assert cache.length == 200
    assert cache.info().bytes <= 2 * C * (2 * 5) * 8


@pytest.mark.parametrize("cuts", [[0, 7, 8], [0, 3, 9]])
def test_a_ring_takes_its_last_append_back_but_not_all(cuts):
    attention, x = layer(window=4), inputs(1, 9)
    cache = attention.make_cache()
    decoded(attention, cache, x, cuts)
    cache.truncate(cuts[1])
    got = decoded(attention, cache, x[:, cuts[1] :], [0, 9 - cuts[1]])
    assert np.abs(got - attention(x).data[:, cuts[1] :]).max() <= budget(got)
    decoded(attention, cache, inputs(1, 9), range(10))
    with pytest.raises(CacheError, match="dropped"):
        cache.truncate(1)


@pytest.mark.parametrize("kind", [{}, {"window": 3}], ids=str)
def test_an_error_in_a_later_layer_leaves_all_caches_at_one_length(kind):
    layers = [layer(**kind) for _ in range(3)]
    caches = [attention.make_cache() for attention in layers]

    def run(x, fail):
        with no_grad(), nn.all_or_none(caches):
            for i, (attention, cache) in enumerate(zip(layers, caches, strict=True)):
                if i == fail:
                    raise KeyboardInterrupt
                x = attention(x, cache=cache)
        return x.data

    x, more = inputs(1, 5), inputs(1, 1, seed=3)
    run(x, None)
    for fail in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            run(more, fail)
        assert [cache.length for cache in caches] == [5, 5, 5]
    y = run(more, None)
    for cache in caches:
        cache.reset()
    run(x, None)
    assert np.array_equal(run(more, None), y)


def test_a_model_with_its_own_caches_continues_and_does_not_save_them():
    model = GPT(GPTConfig.gpt2(vocab_size=11, block_size=16, n_layer=2, n_head=2, n_embd=8)).eval()
    tokens = np.random.default_rng(0).integers(0, 11, size=(2, 9))
    full = model(tokens).data
    caches = model.enable_kv_cache()
    parts = [model(tokens[:, a:b]).data for a, b in pairwise([0, 4, 5, 9])]
    assert np.abs(np.concatenate(parts, 1) - full).max() < 1e-6 and [
        len(cache) for cache in caches
    ] == [9, 9]
    assert np.allclose(pickle.loads(pickle.dumps(model))(tokens).data, full)
    model.loss(tokens, tokens).backward()  # training looks at no cache
    model.disable_kv_cache()
    assert np.array_equal(model(tokens).data, full)


def test_a_cache_of_half_floats_stores_half_the_bytes():
    k = Tensor(np.random.default_rng(0).normal(size=(1, 2, 3, 4)).astype(np.float32))
    full, half = nn.KVCache(8, fixed=True), nn.KVCache(8, fixed=True, dtype="bfloat16")
    full.append(k, k)
    keys, _ = half.append(k, k)
    assert full.info().bytes == 2 * half.info().bytes == 2 * 8 * 8 * 4
    assert np.abs(keys.numpy() - k.data).max() <= 2**-8 * np.abs(k.data).max()


def test_what_does_not_fit_a_cache_is_refused_and_changes_nothing():
    k = Tensor.zeros(2, 1, 3, 4)
    cache = nn.KVCache(5)
    for lengths in ([1], [1, 4], [-1, 0], [0.5, 1.0]):
        with pytest.raises(CacheError):
            cache.append(k, k, lengths)
    cache.append(k, k, [1, 3])
    for length in (4, [2, 3], [0], -1):
        with pytest.raises(CacheError):
            cache.truncate(length)
    assert cache.lengths.tolist() == [1, 3]
    with pytest.raises(CacheError):
        nn.KVCache(window=3).append(k, k, [1, 2])
    with pytest.raises(CacheError):
        nn.KVCache(fixed=True)
    with pytest.raises(CacheError):
        layer()(inputs(1, 2), cache=nn.KVCache(window=3))
