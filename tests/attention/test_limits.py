"""Bounds and settings: the mask cache, threads, rotary positions, the layer's options; and scores
that are not finite.
"""

from __future__ import annotations

import numpy as np
import pytest

from minigrad import Tensor, functional as F, nn
from minigrad.errors import CacheError, ConfigError, IndexRangeError, ShapeError
from minigrad.ops.masks import CausalMaskCache
from minigrad.ops.parallel import set_num_threads


@pytest.mark.parametrize("max_bytes", [0, 1000, 4000, 1 << 20])
def test_a_mask_cache_stays_within_its_bytes_whatever_is_asked_of_it(max_bytes):
    cache = CausalMaskCache(max_bytes)
    for n in (3, 250_000, 7, 100, 1000, 100_000, 20):
        assert np.array_equal(
            cache.get_or_create(n)[-2:, -3:], np.tri(2, 3, 1 if n > 2 else 0, dtype=bool)
        )
        mask = cache.added(n, n, 0)
        assert mask.shape == (n, n) and mask[0, 1] == -np.inf and mask[1, 0] == 0
        assert cache.info().bytes <= max_bytes


def test_a_causal_mask_of_no_size_is_refused():
    for asked in ((-1,), (3, -5), (2.5,), ("a",), (3, -1), (True,)):
        with pytest.raises(ConfigError):
            CausalMaskCache().get_or_create(*asked)
    assert CausalMaskCache().get_or_create(np.int64(2), 1).tolist() == [
        [True, True, False],
        [True, True, True],
    ]


def test_threads_are_counted_in_whole_numbers():
    for n in (1.5, "a", -1, True):
        with pytest.raises(ConfigError):
            set_num_threads(n)


YARN = {"type": "yarn", "factor": 4.0, "original": 4096}
LLAMA3 = {
    "type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original": 8192,
}


@pytest.mark.parametrize(
    "scaling",
    [
        {**YARN, "beta_slow": 40},
        {**YARN, "beta_fast": 0},
        {**YARN, "original": -1},
        {**YARN, "truncate": 2},
        {**YARN, "mscale": 1.0},
        {**YARN, "attention_factor": "1"},
        {**YARN, "factor": 0.5},
        {"type": "yarn", "factor": 2.0},
        {"factor": 2.0},
        {**YARN, "factor": None},
        {**LLAMA3, "high_freq_factor": 1.0},
        {**LLAMA3, "original": 0},
        {"type": "linear", "factor": float("nan")},
        {"type": "linear", "factor": "2"},
        {"type": "ntk", "factor": float("inf")},
        {"type": "linear"},
        {"type": "else", "factor": 2.0},
        "linear",
        {**LLAMA3, "low_freq_factor": 0.0},
    ],
    ids=str,
)
def test_a_scaling_that_makes_no_sense_is_refused(scaling):
    with pytest.raises(ConfigError, match="scaling"):
        nn.RotaryEmbedding(8, scaling=scaling)


def test_hugging_faces_names_of_a_scaling_are_understood():
    theirs = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    one, two = nn.RotaryEmbedding(8, scaling=theirs), nn.RotaryEmbedding(8, scaling=LLAMA3)
    assert np.array_equal(one.frequencies, two.frequencies) and repr(one) == repr(two)
    theirs = {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 4096,
        "attention_factor": None,
        "beta_fast": 32,
    }
    one, two = nn.RotaryEmbedding(64, scaling=theirs), nn.RotaryEmbedding(64, scaling=YARN)
    assert (
        np.array_equal(one.frequencies, two.frequencies)
        and one.attention_factor == two.attention_factor
    )
    assert repr(eval(repr(one), {"RotaryEmbedding": nn.RotaryEmbedding})) == repr(one)


def test_rotary_positions_are_whole_and_not_negative():
    rope, x = nn.RotaryEmbedding(8), Tensor.ones(1, 1, 2, 8)
    for positions in (np.array([-1, 0]), np.array([0.0, 1.0]), [-2, 3]):
        with pytest.raises(IndexRangeError):
            rope(x, positions)
    assert np.array_equal(rope(x, [0, 1]).data, rope(x, np.array([0, 1])).data)
    with pytest.raises(ConfigError):
        nn.RotaryEmbedding(8, base="x")


@pytest.mark.parametrize(
    "option", [{"rope": True}, {"rope": 7}, {"dropout": "a"}, {"dropout": True}], ids=str
)
def test_options_of_the_layer_are_checked(option):
    with pytest.raises(ConfigError, match=next(iter(option))):
        nn.MultiHeadAttention(8, 2, **option)


def test_lengths_of_several_kinds_are_refused_in_words():
    layer, x = nn.MultiHeadAttention(8, 2).eval(), Tensor.ones(2, 5, 8)
    keys = Tensor.ones(2, 1, 5, 4)
    for lengths in ([[1], [2, 3]], 3, "ab", [6, 1], [None, 1]):
        with pytest.raises(ShapeError, match="lengths"):
            layer(x, lengths=lengths)
        with pytest.raises(CacheError, match="lengths"):
            nn.KVCache().append(keys, keys, lengths)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38])
@pytest.mark.parametrize("S", [4, 600])
def test_plain_and_flash_agree_on_scores_that_are_not_finite(value, S, dtype):
    rng = np.random.default_rng(1)
    q, k, v = (rng.normal(size=(1, 2, n, 2)).astype(dtype) for n in (4, S, S))
    k[0, 0, [1, S - 2], 0] = value
    k[0, 1, 2, 1] = value
    for kw in ({}, {"is_causal": True}):
        one, two = (
            F.scaled_dot_product_attention(*map(Tensor, (q, k, v)), method=method, **kw).data
            for method in ("plain", "flash")
        )
        assert np.array_equal(np.isnan(one), np.isnan(two))
        np.testing.assert_allclose(one, two, rtol=1e-5 if dtype == np.float32 else 1e-12, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("S", [4, 600])
def test_plain_and_flash_have_the_same_gradients_where_scores_overflow(S, causal):
    rng = np.random.default_rng(1)
    q, k, v = (rng.normal(size=(1, 2, n, 2)).astype(np.float32) for n in (4, S, S))
    q, k[0, 0, [1, S - 2], 0] = np.abs(q) * 1e10, 1e30
    found = []
    for method in ("plain", "flash"):
        operands = [Tensor(x, requires_grad=True) for x in (q, k, v)]
        y = F.scaled_dot_product_attention(*operands, is_causal=causal, method=method)
        (y * Tensor(np.arange(y.numel(), dtype=np.float32).reshape(y.shape))).sum().backward()
        found.append(
            [x.grad.data for x in operands[1:]]
        )  # dq is a difference of numbers times 1e30: nothing but rounding
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5 * np.abs(one).max())
