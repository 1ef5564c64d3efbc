"""Decoding by a compiled step: the same tokens, one program for all lengths."""

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, no_grad, ops
from minigrad.errors import CacheError, ConfigError
from minigrad.models import GPT
from minigrad.nn import MultiHeadAttention
from minigrad.nn.attention import KVCache, StaticCache
from tests.models.architectures import config

pytestmark = pytest.mark.usefixtures("architecture")


def gpt(block_size=256, **more):
    minigrad.manual_seed(7)
    model = GPT(config(37, block_size, 2, 2, 32, **more))
    for p in model.parameters():
        p.data *= 5  # so that logits differ by more than rounding
    return model


def tokens_of(model, prompt, count, **how):
    return [np.asarray(t).tolist() for t in model.generate(prompt, count, **how)]


@pytest.mark.parametrize(
    "how",
    [
        {"temperature": 0.0},
        {"temperature": 0.9, "top_k": 10, "seed": 3},
        {"repetition_penalty": 1.3, "seed": 1},
    ],
    ids=["greedy", "top-k", "penalty"],
)
def test_two_hundred_compiled_tokens_are_those_of_the_eager_model(how):
    model = gpt()
    assert tokens_of(model, [1, 2, 3], 200, jit=True, **how) == tokens_of(
        model, [1, 2, 3], 200, **how
    )


def test_prompts_of_different_lengths_are_decoded_together():
    model = gpt()
    prompts = [[1, 2, 3, 4, 5], [9], [4, 4, 4]]
    assert tokens_of(model, prompts, 60, jit=True, temperature=0.0) == tokens_of(
        model, prompts, 60, temperature=0.0
    )


def test_a_full_context_is_halved_alike():
    model = gpt(block_size=16)
    assert tokens_of(model, [5, 6], 70, jit=True, temperature=0.0) == tokens_of(
        model, [5, 6], 70, temperature=0.0
    )


def test_one_program_serves_all_lengths_and_conversations():
    model = gpt()
    tokens_of(model, [1], 10, jit=True)
    (decoder,) = model._decoders.values()
    program = decoder._jit.program
    tokens_of(model, list(range(30)), 40, jit=True)
    assert model._decoders == {1: decoder}
    assert decoder._jit.program is program
    assert repr(decoder._jit).endswith("1 program>")


def test_a_long_context_makes_room_for_what_is_needed():
    model = gpt(block_size=4096)
    how = {"temperature": 0.0}
    assert tokens_of(model, [1, 2], 6, jit=True, **how) == tokens_of(model, [1, 2], 6, **how)
    (short,) = model._decoders.values()
    assert short.shape[2] == 1024
    prompt = [i % 7 for i in range(1030)]
    assert tokens_of(model, prompt, 6, jit=True, **how) == tokens_of(model, prompt, 6, **how)
    (long,) = model._decoders.values()
    assert long.shape[2] == 2048
    tokens_of(model, [3], 4, jit=True)
    assert model._decoders == {1: long}


def test_nothing_of_the_compiled_step_goes_through_numpy():
    model = gpt()
    tokens_of(model, [1], 6, jit=True)
    assert "through numpy" not in model._decoders[1]._jit.explain()


def test_two_conversations_at_once_do_not_meet():
    model = gpt()
    first, second = (
        model.generate([1, 2], 20, temperature=0.0, jit=True),
        model.generate([8], 20, temperature=0.0, jit=True),
    )
    pairs = list(zip(first, second, strict=True))
    assert [a for a, _ in pairs] == tokens_of(model, [1, 2], 20, temperature=0.0)
    assert [b for _, b in pairs] == tokens_of(model, [8], 20, temperature=0.0)


def test_a_model_trained_on_gives_its_new_tokens_and_keeps_its_modes():
    model = gpt(dropout=0.5)
    before = tokens_of(model, [1], 12, jit=True, temperature=0.0)
    with no_grad():
        for p in model.parameters():
            p.assign(p * -1.5)
    after = tokens_of(model, [1], 12, jit=True, temperature=0.0)
    assert after == tokens_of(model, [1], 12, temperature=0.0) != before
    assert all(m.training for m in model.modules())


def test_the_compiled_step_wants_the_cache():
    with pytest.raises(ConfigError, match="use_cache"):
        gpt().generate([1], 3, jit=True, use_cache=False)


# --- the ops


def static(B=2, H=2, capacity=12, D=5, first=(0, 0)):
    return StaticCache((B, H, capacity, D), Tensor(np.array(0)), Tensor(np.array(first)))


@pytest.mark.parametrize("backend", ["numpy", "c"])
@pytest.mark.parametrize("T", [1, 2])
def test_a_recorded_step_is_replayed_at_any_length(backend, T):
    rng = np.random.default_rng(0)
    eager, cache = static(first=(0, 2)), static(first=(0, 2))
    for c in (eager, cache):
        c.keys.data[...] = c.values.data[...] = np.nan  # what has not been written is not looked at

    step = minigrad.jit(lambda q, k, v: cache.attend(q, k, v), backend=backend)
    for _ in range(12 // T):
        q = Tensor(rng.normal(size=(2, 4, T, 5)).astype(np.float32))
        k, v = (Tensor(rng.normal(size=(2, 2, T, 5)).astype(np.float32)) for _ in range(2))
        want, got = eager.attend(q, k, v).numpy(), step(q, k, v).numpy()
        if backend == "numpy":
            assert np.array_equal(got, want)
        else:
            assert np.abs(got - want).max() < 64 * np.finfo(np.float32).eps
        for c in (eager, cache):
            c.length.data += T
    with pytest.raises(CacheError, match="positions 12"):
        step(q, k, v)


def test_cached_attention_is_attention_to_the_filled_part():
    rng = np.random.default_rng(1)
    q, k, v = (rng.normal(size=(1, 4, n, 6)) for n in (3, 9, 9))
    k[:, :, 7:] = v[:, :, 7:] = np.nan
    got, _ = ops.attention(q, k, v, np.arange(9) >= 1, None, np.array(4), scale=0.4)
    scores = np.where(
        np.tri(3, 7, 4, bool) & (np.arange(7) >= 1), 0.4 * q @ k[:, :, :7].swapaxes(2, 3), -np.inf
    )
    p = np.exp(scores - scores.max(-1, keepdims=True))
    assert np.allclose(got, p / p.sum(-1, keepdims=True) @ v[:, :, :7], rtol=1e-12)


def test_grouped_heads_with_rotary_positions_are_those_of_a_growing_cache():
    minigrad.manual_seed(0)
    layer = MultiHeadAttention(24, 4, n_kv_head=2, rope="half").eval()
    grown, fixed = (
        KVCache(),
        StaticCache((2, 2, 10, 6), Tensor(np.array(0)), Tensor(np.zeros(2, np.int64))),
    )
    with no_grad():
        layer(minigrad.randn(2, 3, 24), cache=grown)
        fixed.load(grown)
        step = minigrad.jit(lambda x: layer(x, cache=fixed))
        for n in range(3, 10):
            fixed.length.assign(n)
            x = minigrad.randn(2, 1, 24)
            assert np.allclose(step(x).numpy(), layer(x, cache=grown).numpy(), atol=1e-6)


def test_what_a_static_cache_cannot_do_is_refused():
    layer = MultiHeadAttention(8, 2, window=3)
    with pytest.raises(CacheError, match="plain causal"), no_grad():
        layer(minigrad.randn(1, 1, 8), cache=static(1, 2, 4, 4))
    with pytest.raises(CacheError, match="cannot hold"):
        static().load(KVCache())
