"""What a cache promises beyond decoding: forks are apart, failures leave no trace, and what does
not fit is refused.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from minigrad import Tensor, nn, no_grad
from minigrad.errors import CacheError, ConfigError, DTypeError, MinigradError


def entry(*values, B=1):
    """Keys or values of one head, one feature: position t holds values[t]."""
    return Tensor(np.tile(np.array(values, np.float32)[:, None], (B, 1, 1, 1)))


def held(cache, value):
    return cache.append(entry(value), entry(value))[0].numpy().ravel().tolist()


def ring(window=4, count=6):
    cache = nn.KVCache(window=window)
    for i in range(count):
        cache.append(entry(i), entry(i))
    return cache


def inputs(*shape, seed=1):
    return Tensor(np.random.default_rng(seed).normal(size=shape))


def layer(**kind):
    return nn.MultiHeadAttention(8, 2, **kind).to("float64").eval()


@pytest.mark.parametrize("taken_back", [(50,), (50, 51), (50, 51, 52, 53, 54)])
def test_an_append_taken_back_does_not_reach_a_fork_of_the_ring(taken_back):
    cache = ring()
    child = cache.fork()
    cache.append(entry(*taken_back), entry(*taken_back))
    cache.truncate(6)
    assert held(cache, 77) == [3, 4, 5, 77] and held(cache, 78) == [4, 5, 77, 78]
    assert held(child, 6) == [3, 4, 5, 6]


def test_a_fork_made_after_an_append_is_not_changed_when_that_is_taken_back():
    cache = ring(count=5)
    with pytest.raises(KeyError), nn.all_or_none([cache]):
        cache.append(entry(5), entry(5))
        child = cache.fork()
        raise KeyError
    assert held(cache, 50) == [2, 3, 4, 50]
    assert held(child, 6) == [3, 4, 5, 6]


def test_rows_of_a_ring_are_truncated_together_or_not_at_all():
    cache = ring(count=8)
    for lengths in ([1], [4]):
        with pytest.raises(CacheError, match="dropped"):
            cache.truncate(lengths)
    cache.truncate([7])
    assert cache.length == 7
    two = nn.KVCache(window=4)
    two.append(entry(0, 1, 2, B=2), entry(0, 1, 2, B=2))
    with pytest.raises(CacheError, match="one length"):
        two.truncate([3, 2])


def test_a_ring_that_has_not_wrapped_can_be_truncated_anywhere():
    cache = ring(window=8, count=5)
    cache.truncate(2)
    assert held(cache, 7) == [0, 1, 7]
    cache.reorder([0, 0])
    cache.truncate(1)
    assert cache.lengths.tolist() == [1, 1]


def test_a_ring_gives_positions_in_their_order():
    cache = ring(count=5)
    assert held(cache, 5) == [2, 3, 4, 5]
    keys, _ = cache.append(entry(6, 7), entry(6, 7))
    assert keys.numpy().ravel().tolist() == [3, 4, 5, 6, 7]


def test_masks_and_weights_of_a_ring_are_those_of_a_plain_cache():
    attention, x = layer(window=4), inputs(1, 9, 8)
    short, long = attention.make_cache(), nn.KVCache()
    seen = np.array([False, True, True, True])  # of positions t-3 to t
    with no_grad():
        for t in range(9):
            for mask in (None, seen[None]) if t >= 3 else (None,):
                whole = mask if mask is None else np.concatenate([np.ones(t - 3, bool), seen])[None]
                pairs = [
                    attention(x[:, t : t + 1], cache=cache.fork(), mask=m, return_weights=True)
                    for cache, m in ((short, mask), (long, whole))
                ]
                (y, weights), (z, wanted) = ([part.numpy() for part in pair] for pair in pairs)
                assert np.abs(y - z).max() < 1e-14
                assert np.abs(weights - wanted[..., -weights.shape[-1] :]).max() < 1e-14
            attention(x[:, t : t + 1], cache=short)
            attention(x[:, t : t + 1], cache=long)


@pytest.mark.parametrize("kind", [{}, {"window": 4}], ids=str)
@pytest.mark.parametrize("T", [1, 2])
def test_a_layer_that_fails_after_its_append_takes_it_back(kind, T):
    attention, x = layer(**kind), inputs(1, 9, 8)
    cache, other = attention.make_cache(), attention.make_cache()
    with no_grad():
        with pytest.raises(MinigradError):
            attention(inputs(2, T, 8), cache=cache, mask=np.ones((7, 7), bool))
        assert cache.length == 0
        for t in range(6):  # another batch than that of the call that failed
            assert np.array_equal(
                attention(x[:, t : t + 1], cache=cache).data,
                attention(x[:, t : t + 1], cache=other).data,
            )
        with pytest.raises(MinigradError):
            attention(x[:, 6 : 6 + T], cache=cache, mask=np.ones((7, 7), bool))
        assert cache.length == 6
        assert np.array_equal(
            attention(x[:, 6:], cache=cache).data, attention(x[:, 6:], cache=other).data
        )


def test_after_a_failed_first_call_a_cache_takes_any_batch():
    cache = nn.KVCache()
    with pytest.raises(KeyError), nn.all_or_none([cache]):
        cache.append(entry(1, 2, B=2), entry(1, 2, B=2))
        raise KeyError
    assert held(cache, 5) == [5]
    cache.truncate(0)
    cache.append(entry(1, B=3), entry(1, B=3))
    assert cache.lengths.tolist() == [1, 1, 1]


@pytest.mark.parametrize("count", [2, 7])
def test_all_or_none_takes_back_any_number_of_appends_and_shows_the_error_of_the_block(count):
    caches = [ring(count=count), nn.KVCache()]
    with pytest.raises(KeyError, match="mine"), nn.all_or_none(iter(caches)):
        for value in ((50,), (51, 52), (53,)):
            for cache in caches:
                cache.append(entry(*value), entry(*value))
        caches[0].reorder([0, 0])
        raise KeyError("mine")
    assert [cache.length for cache in caches] == [count, 0]
    assert held(caches[0], 9) == [*range(count), 9][-4:]


def test_a_ring_with_a_capacity_goes_on_beyond_it():
    cache = nn.KVCache(capacity=10, window=4)
    for i in range(12):
        cache.append(entry(i), entry(i))
    assert cache.length == 12
    with pytest.raises(CacheError):
        few = nn.KVCache(capacity=2, window=4)
        few.append(entry(1, 2, 3), entry(1, 2, 3))


K = Tensor.zeros(2, 2, 3, 4)
BAD_VALUES = [Tensor.zeros(*s) for s in [(2, 2, 1, 4), (1, 2, 3, 4), (2, 1, 3, 4), (2, 2, 4)]] + [
    np.zeros((2, 2, 3, 4)),
    None,
]


@pytest.mark.parametrize("v", BAD_VALUES, ids=lambda v: str(getattr(v, "shape", v)))
@pytest.mark.parametrize("window", [None, 4])
def test_values_that_do_not_fit_their_keys_are_refused(v, window):
    cache = nn.KVCache(window=window)
    for keys, values in ((K, v), (v, K)):
        with pytest.raises(CacheError):
            cache.append(keys, values)
    cache.append(K, K)
    for keys, values in (
        (K, v),
        (K, Tensor.zeros(2, 2, 3, 5)),
        (K, K.cast("float64")),
        (K, K.cast("bfloat16")),
    ):
        with pytest.raises(CacheError):
            cache.append(keys, values)
    assert cache.length == 3


def test_a_cache_is_of_floats():
    for dtype in ("int32", "bool"):
        with pytest.raises(DTypeError):
            nn.KVCache(dtype=dtype)
    with pytest.raises(CacheError):
        nn.KVCache().append(K.cast("int64"), K.cast("int64"))


def test_errors_name_what_is_wrong():
    with pytest.raises(ConfigError, match="window must be an integer >= 1, got 0"):
        nn.KVCache(window=0)
    with pytest.raises(ConfigError, match="capacity must be an integer >= 1, got 0"):
        nn.KVCache(0)
    for wrong in ([], True, [nn.KVCache()]):
        with pytest.raises(CacheError, match="must be a KVCache"):
            layer()(inputs(1, 2, 8), cache=wrong)
    with pytest.raises(DTypeError):
        layer()([[1]])


moves = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 9)),
    st.tuples(st.just("truncate"), st.integers(0, 9)),
    st.tuples(st.just("take back"), st.integers(1, 9)),
    st.tuples(st.just("fail"), st.integers(1, 9)),
    st.tuples(st.just("fork"), st.integers(1, 9)),
    st.tuples(st.just("reorder"), st.integers(1, 2)),
)


@settings(deadline=None, max_examples=200)
@given(st.none() | st.integers(1, 6), st.lists(moves, max_size=25))
def test_any_sequence_of_changes_leaves_what_a_list_would_hold(window, changes):
    """The rows of a list, and what a window leaves of them: W - 1 positions before the new ones."""
    numbers = iter(range(10_000))
    cache = nn.KVCache(window=window)
    rows = np.zeros((1, 0), np.float32)

    def append(cache, rows, T):
        new = np.array([[next(numbers) for _ in range(T)] for _ in rows], np.float32)
        keys, values = cache.append(*(Tensor(sign * new[:, None, :, None]) for sign in (1, -1)))
        whole = np.concatenate([rows, new], 1)
        seen = whole if window is None else whole[:, max(0, rows.shape[1] - window + 1) :]
        assert np.array_equal(keys.data[:, 0, :, 0], seen)
        assert np.array_equal(values.data, -keys.data)
        assert cache.length == whole.shape[1]
        if window is not None:
            assert cache.allocated <= 2 * window + 9
        return whole

    for change, n in changes:
        length = rows.shape[1]
        if change == "append":
            rows = append(cache, rows, n)
        elif change == "truncate":
            wanted = max(0, length - n)
            try:
                cache.truncate(wanted)
            except CacheError:
                assert window is not None and cache.length == length
            else:
                rows = rows[:, :wanted] if wanted else np.zeros((1, 0), np.float32)
        elif change == "take back":
            append(cache, rows, n)
            cache.truncate(length)
            rows = rows if length else np.zeros((1, 0), np.float32)
        elif change == "fail":
            with pytest.raises(KeyError), nn.all_or_none([cache]):
                more = append(cache, rows, n)
                cache.truncate(more.shape[1] - 1)
                append(cache, more[:, :-1], 2)
                raise KeyError
        elif change == "fork":
            append(cache.fork(), rows, n)
        elif length:
            order = np.arange(n) % len(rows)
            cache.reorder(order)
            rows = rows[order]
