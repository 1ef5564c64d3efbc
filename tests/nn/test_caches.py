"""KVCache and CausalMaskCache by themselves."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from minigrad import Tensor, nn
from minigrad.errors import CacheError


def part(T, B=2, H=3, D=4, seed=0, dtype=np.float32):
    k = np.random.default_rng(seed).normal(size=(B, H, T, D)).astype(dtype)
    return Tensor(k), Tensor(-k)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.one_of(st.integers(1, 90), st.integers(-40, -1)), max_size=12), st.integers(1, 400)
)
def test_a_cache_holds_what_a_list_would(moves, capacity):
    cache, kept = nn.KVCache(capacity), np.zeros((2, 3, 0, 4), np.float32)
    for i, move in enumerate(moves):
        if move < 0:
            length = max(kept.shape[2] + move, 0)
            cache.truncate(length)
            kept = kept[:, :, :length]
            continue
        k, v = part(move, seed=i)
        if kept.shape[2] + move > capacity:
            with pytest.raises(CacheError):
                cache.append(k, v)
            continue
        kept = np.concatenate([kept, k.data], 2)
        keys, values = cache.append(k, v)
        assert np.array_equal(keys.data, kept)
        assert np.array_equal(values.data, -kept)
    assert len(cache) == cache.info().length == kept.shape[2]
    assert cache.info().bytes <= 2 * 4 * 24 * max(capacity, 1)


def test_a_growing_cache_copies_seldom_and_a_full_one_says_so():
    cache, sizes = nn.KVCache(1000), []
    for i in range(1000):
        cache.append(*part(1, seed=i))
        sizes.append(cache.allocated)
    assert sorted(set(sizes)) == [64, 128, 256, 512, 1000]
    with pytest.raises(CacheError) as caught:
        cache.append(*part(1))
    assert (caught.value.got, caught.value.wanted) == (1001, 1000)
    assert len(cache) == 1000


def test_reorder_lets_rows_go_on_from_others():
    cache = nn.KVCache(10)
    k, v = part(3)
    cache.append(k, v)
    cache.reorder([1, 1, 0])
    keys, _ = cache.append(*part(1, B=3, seed=1))
    assert np.array_equal(keys.data[:, :, :3], k.data[[1, 1, 0]])
    for bad in ([2, 3], [-1], [], [0.5], [[0]]):
        with pytest.raises(CacheError):
            cache.reorder(bad)
    with pytest.raises(CacheError):
        nn.KVCache(3).reorder([0])


@pytest.mark.parametrize("other", [{"B": 1}, {"H": 1}, {"D": 1}, {"dtype": np.float64}])
@pytest.mark.parametrize("T", [1, 70])
def test_keys_of_another_batch_model_or_dtype_are_refused_and_nothing_is_changed(other, T):
    cache = nn.KVCache(100)
    k, v = part(2)
    cache.append(k, v)
    with pytest.raises(CacheError, match="batch"):
        cache.append(*part(T, **other))
    keys, values = cache.append(*part(1, seed=5))
    assert np.array_equal(keys.data[:, :, :2], k.data)
    assert np.array_equal(values.data[:, :, :2], v.data)
    cache.reset()
    cache.append(*part(T, **other))
    assert len(cache) == T


def test_truncating_to_more_than_there_is_is_refused():
    cache = nn.KVCache(10)
    cache.append(*part(3))
    for bad in (4, -1):
        with pytest.raises(CacheError):
            cache.truncate(bad)
    assert repr(cache) == "<KVCache: 3 of 10 positions>"
    assert cache


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 150), st.integers(0, 150)), max_size=5), st.integers(0, 4))
def test_causal_masks_of_any_size_come_from_one_band(requests, clear_at):
    masks = nn.CausalMaskCache()
    for i, (T, offset) in enumerate(requests):
        if i == clear_at:
            masks.clear()
        mask = masks.get_or_create(T, offset)
        assert np.array_equal(mask, np.tri(T, T + offset, offset, dtype=bool))
        assert not mask.flags.writeable
        for S in (T, T + offset, offset):
            for shift in (offset, -offset):
                shown = masks.added(T, S, shift) == 0
                assert np.array_equal(shown, np.tri(T, S, shift, dtype=bool))
        assert len(masks) == 1


def test_masks_cost_a_few_bytes_per_row_and_are_made_once():
    masks = nn.CausalMaskCache()
    assert (masks.info(), len(masks)) == ((0, 0, 0), 0)
    first = masks.get_or_create(1000)
    assert np.shares_memory(first, masks.get_or_create(500, 20))
    assert masks.info() == (1, 1, 3 * 1024)
    masks.clear()
    assert masks.info() == (0, 0, 0)


def test_a_band_over_the_limit_is_not_kept():
    masks = nn.CausalMaskCache(max_bytes=1000)
    assert masks.get_or_create(2000).shape == (2000, 2000)
    assert masks.info().bytes == 0
