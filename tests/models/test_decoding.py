"""Decoding by a compiled step: the same tokens, one program for all lengths."""

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, no_grad, ops
from minigrad.errors import CacheError, ConfigError, DTypeError, IndexRangeError, NotFiniteError
from minigrad.models import GPT, GPTConfig, decoding
from minigrad.nn import Linear, MultiHeadAttention
from minigrad.nn.attention import KVCache, StaticCache
from minigrad.nn.quantised import FINE, QuantisedWeight, blocks_of
from minigrad.ops.quantised import ALL
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


def test_the_number_of_threads_changes_no_bit_of_the_scores(monkeypatch):
    def scores(threads):
        monkeypatch.setenv("MINIGRAD_THREADS", threads)
        made = gpt().generate([1, 2, 3], 100, jit=True, seed=1, return_log_probs=True)
        return [np.asarray(score) for _, score in made]

    assert scores("1") == scores("2") == scores("")  # the last: measured, while it runs


SAMPLERS = [
    {"temperature": 0.0},
    {"top_k": 5, "temperature": 1.5},
    {"top_p": 0.8},
    {"min_p": 0.05, "temperature": 2.0},
    {"repetition_penalty": 1.4, "temperature": 0.0},
    {"repetition_penalty": 1.4, "top_k": 20, "top_p": 0.9, "min_p": 0.01, "temperature": 0.9},
]


@pytest.mark.parametrize("how", SAMPLERS, ids=str)
def test_any_sampler_draws_the_tokens_of_the_eager_model(how):
    model = gpt(block_size=24)
    prompts = [[1, 2, 3], [[4], [5], [6], [7], [8]], [[1, 2, 3, 4, 5], [9], [4, 4, 4]]]
    for prompt in prompts:  # 60 tokens: the older half of a full context is dropped
        for seed in (0, 5):
            how = {**how, "seed": seed, "return_log_probs": True}
            got = list(model.generate(prompt, 60, jit=True, **how))
            wanted = list(model.generate(prompt, 60, **how))
            for (token, score), (token_, score_) in zip(got, wanted, strict=True):
                assert np.array_equal(token, token_)
                # each is up to 2e-4 off in float32, with weights as large as these
                assert np.allclose(score, score_, atol=1e-3)
                assert np.shape(score) == np.shape(score_)
    assert all(not decoder._jit.note for decoder in model._decoders.values())


def test_tokens_of_a_float64_model_are_drawn_through_numpy():
    model = gpt(block_size=24).to("float64")
    how = {"seed": 2, "top_k": 9}
    assert tokens_of(model, [[1], [2]], 50, jit=True, **how) == tokens_of(
        model, [[1], [2]], 50, **how
    )


def ended_rows(rows, stops):
    """Tokens (T, B) in which each row repeats the first that stops, up to the last of these."""
    ends = [min(np.flatnonzero(np.isin(row, stops))) for row in rows.T]
    places = np.minimum(np.arange(max(ends) + 1)[:, None], ends)
    return np.take_along_axis(rows, places, axis=0)


@pytest.mark.parametrize("jit", [False, True])
def test_generation_ends_after_a_token_that_stops(jit):
    model = gpt()
    how = {"seed": 4, "temperature": 1.5, "jit": jit}
    every = tokens_of(model, [1], 80, **how)
    stops = [every[30], every[61]]
    first = min(every.index(t) for t in stops)
    assert tokens_of(model, [1], 80, stop_tokens=stops, **how) == every[: first + 1]
    rows = np.array(tokens_of(model, [[1], [2], [3]], 80, **how))
    stops = np.unique(rows[40])
    wanted = ended_rows(rows, stops)
    assert tokens_of(model, [[1], [2], [3]], 80, stop_tokens=stops, **how) == wanted.tolist()
    assert tokens_of(model, [1], 0, stop_tokens=[1], **how) == []
    for bad, error in (([37], IndexRangeError), ([-1], IndexRangeError), ([0.5], DTypeError)):
        with pytest.raises(error):
            model.generate([1], 3, stop_tokens=bad, jit=jit)


@pytest.mark.parametrize(
    "how",
    [{"temperature": 0}, {"seed": 3}, {"seed": 1, "use_cache": False}, {"seed": 2, "jit": True}],
    ids=str,
)
@pytest.mark.parametrize("block_size", [256, 24])
def test_rows_that_end_leave_the_batch_and_change_no_other_row(how, block_size):
    class Watched(GPT):
        def _last_logits(self, tokens, caches, pad):
            computed.append(len(tokens))
            return super()._last_logits(tokens, caches, pad)

    model, computed = gpt(block_size), []
    model.__class__ = Watched
    how = {"repetition_penalty": 1.2, "return_log_probs": True, **how}
    prompts = [[1], [2, 3, 4, 5], [6, 7], [8], [9, 10, 11]]
    drawn = list(model.generate(prompts, 40, **how))
    rows, scores = (np.array([pair[i] for pair in drawn]) for i in (0, 1))
    stops = np.unique([rows[3, 0], rows[9, 1], rows[12, 2], rows[20, 3], rows[33, 4]])
    computed.clear()
    got = list(model.generate(prompts, 40, stop_tokens=stops, **how))
    wanted = ended_rows(rows, stops)
    assert np.array_equal([tokens for tokens, _ in got], wanted)
    ended = np.array([tokens for tokens, _ in got])[:-1]
    over = np.vstack([np.zeros(5, bool), np.maximum.accumulate(np.isin(ended, stops), axis=0)])
    expected = np.where(over, 0, scores[: len(got)])
    np.testing.assert_allclose([logp for _, logp in got], expected, atol=1e-4)
    if not how.get("jit"):
        assert computed == (~over).sum(axis=1).tolist() and computed[-1] < 5


@pytest.mark.parametrize("jit", [False, True])
def test_a_row_of_a_batch_says_what_it_would_say_alone(jit):
    model = gpt()
    prompts = [[1], [2, 3, 4, 5], [6, 7], [8, 9, 10, 11, 12, 13]]
    alone = [tokens_of(model, prompt, 40, temperature=0) for prompt in prompts]
    stops = [row[n] for row, n in zip(alone, (30, 7, 20, 12), strict=True)]
    rows = np.array(tokens_of(model, prompts, 40, temperature=0, stop_tokens=stops, jit=jit)).T
    for row, prompt in zip(rows, prompts, strict=True):
        own = tokens_of(model, prompt, 40, temperature=0, stop_tokens=stops)
        assert row[: len(own)].tolist() == own and (row[len(own) :] == own[-1]).all()


def test_a_conversation_that_is_left_has_drawn_for_the_tokens_it_gave():
    model = gpt()
    states = []
    for jit in (False, True):
        minigrad.manual_seed(3)
        stream = model.generate([[1], [2], [3], [4], [5]], 90, jit=jit)
        tokens = [next(stream).tolist() for _ in range(39)]
        stream.close()
        states.append((tokens, minigrad.random.default_generator.get_state()))
    assert states[0] == states[1]


def test_draws_between_two_tokens_are_seen():
    model, found = gpt(), []
    for jit in (False, True):
        minigrad.manual_seed(3)
        how = {"repetition_penalty": 1.3, "jit": jit}
        streams = [model.generate([[1], [2]], 60, **how), model.generate([3], 60, **how)]
        drawn = []
        for n in range(60):
            drawn.append(next(streams[0]).tolist())
            if n % 7 == 3:
                drawn.append(minigrad.randn(2).tolist())
            if n > 25:
                drawn.append(next(streams[1]))
        found.append(drawn)
    assert found[0] == found[1]


def test_tokens_before_logits_that_are_not_finite_are_given():
    model, found = GPT(GPTConfig.gpt2(37, 64, 2, 2, 32)), []
    tokens_of(model, [1, 2], 10, jit=True)
    model.wpe.weight.data[30] = np.nan
    for jit in (False, True):
        given = []
        with pytest.raises(NotFiniteError):
            given.extend(model.generate([1, 2], 60, seed=1, jit=jit))
        found.append(given)
    assert len(found[0]) == 29 and found[0] == found[1]


def test_groups_of_tokens_grow_and_end_with_the_generation():
    model, groups = gpt(), []
    tokens_of(model, [1], 6, jit=True)
    decoder = model._decoders[1]
    repeat = decoder._jit.repeat

    def counted(left):
        groups.append(int(left.data))
        repeat(left)

    decoder._jit.repeat = counted
    tokens_of(model, [1], 41, jit=True)
    assert sum(groups) == 40 and groups[:3] == [1, 2, 4] and max(groups) > 4


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


@pytest.mark.parametrize("rows", [1, 3])
def test_prompts_that_come_again_and_again_are_read_by_a_compiled_step(rows, monkeypatch):
    monkeypatch.setattr(decoding, "_OFTEN", 1)
    model, how = gpt(512), {"temperature": 0.7, "seed": 1, "return_log_probs": True}
    rng = np.random.default_rng(2)
    for n in (400, 400, 300, 130, 128, 256):
        prompt = [rng.integers(0, 37, n - 20 * row).tolist() for row in range(rows)]
        prompt = prompt[0] if rows == 1 else prompt
        made, wanted = (tokens_of(model, prompt, 90, jit=jit, **how) for jit in (True, False))
        assert [t for t, _ in made] == [t for t, _ in wanted]
        assert np.allclose([p for _, p in made], [p for _, p in wanted], atol=2e-3)
    decoder = model._decoders[rows]
    assert "numpy" not in decoder._reading.explain()
    assert int(decoder._held["length"].data) == 256 + 90 - 1


def in_blocks(model):
    """The model with weights in blocks of 8 bits where a row holds whole ones."""
    for layer in model.modules():
        if isinstance(layer, Linear) and layer.weight.shape[1] % 32 == 0:
            w = layer.weight.data.reshape(-1, 32)
            d = (np.abs(w).max(axis=1, keepdims=True) / 127).astype(np.float16)
            codes = np.rint(w / d.astype(np.float32)).astype(np.int8)
            raw = np.concatenate([d.view(np.uint8), codes.view(np.uint8)], axis=1)
            shape = layer.weight.shape
            layer.weight = QuantisedWeight("q8_0", shape, raw.reshape(shape[0], -1))
    return model


@pytest.mark.parametrize("rows", [1, 2])
def test_what_is_far_from_the_end_of_a_prompt_is_read_roughly(rows, monkeypatch):
    monkeypatch.setattr(decoding, "_OFTEN", 0)
    model = in_blocks(gpt(512))
    decoder = model._take_decoder(rows, 512)
    decoding.use_int8(model)
    assert sum(w.parts[0].int8 for *_, w in blocks_of(model)) == 6
    rng = np.random.default_rng(3)
    for n in (64, 64, 64, 200, 200, 256, 321, 130):
        prompt = rng.integers(0, 37, (rows, n))
        found = decoder.read(prompt, None, 0)
        with no_grad():
            wanted = model(prompt).numpy()[:, -1]
        error = np.abs(found - wanted).std() / wanted.std()
        assert error < 0.1
        if n == 64:  # there is nothing far, and the last tokens of one row are read finely
            assert (error < 1e-4) == (rows == 2)
        else:
            assert error > 1e-4
    assert repr(decoder._reading).endswith("2 programs>")
    assert "numpy" not in decoder._reading.explain()


def test_rough_rounding_ends_with_the_reading_of_a_prompt(monkeypatch):
    monkeypatch.setattr(decoding, "_OFTEN", 0)
    model = in_blocks(gpt(512))
    decoding.use_int8(model)
    prompt = [i % 37 for i in range(200)]
    for _ in range(3):
        made = tokens_of(model, prompt, 60, jit=True, temperature=0.0)
    assert FINE.get() == ALL
    # What follows is as fine as ever: given the text so far, each token is the eager model's
    with no_grad():
        logits = model(np.array([[*prompt, *made]])).numpy()[0, len(prompt) :]
    chosen = np.take_along_axis(logits[:-1], np.array(made[1:])[:, None], 1)[:, 0]
    assert (logits[:-1].max(axis=1) - chosen < 0.05 * logits.std()).all()


def test_a_prompt_without_room_for_padding_is_read_op_by_op(monkeypatch):
    monkeypatch.setattr(decoding, "_OFTEN", 1)
    model, how = gpt(1024), {"temperature": 0.0}
    list(model.generate([1, 2], 5, jit=True))
    prompt = [i % 7 for i in range(1000)]  # 24 positions are left, and 24 of padding are needed
    assert tokens_of(model, prompt, 20, jit=True, **how) == tokens_of(model, prompt, 20, **how)
    assert model._decoders[1]._reading._last is None


def test_a_small_model_compiles_nothing_for_its_prompts():
    model = gpt()
    for _ in range(4):
        list(model.generate([1] * 200, 5, jit=True))
    assert model._decoders[1]._reading._last is None


def test_a_model_that_is_frozen_goes_on_by_its_compiled_step():
    model = gpt()
    list(model.generate([1, 2], 8, jit=True))
    step = model._decoders[1]._jit
    model.requires_grad_(False)
    list(model.generate([1, 2], 8, jit=True))
    assert step.ready()


def test_keys_and_values_are_held_once():
    model = gpt()
    caches = model.make_caches()
    with no_grad():
        model([[1, 2, 3]], caches=caches)
    held = [cache.mark().keys[:, :, :3].copy() for cache in caches]
    decoder = model._take_decoder(1, 16)
    decoder.take(caches, None)
    assert [cache.info().bytes for cache in caches] == [0] * len(caches)
    decoder.give(caches, 3)
    for own, cache, keys in zip(decoder.caches, caches, held, strict=True):
        assert np.array_equal(cache.mark().keys[:, :, :3], keys)
        assert not own.keys.data.any() and not own.values.data.any()


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
@pytest.mark.parametrize(("T", "capacity"), [(1, 12), (2, 12), (9, 45)])
def test_a_recorded_step_is_replayed_at_any_length(backend, T, capacity):
    rng = np.random.default_rng(0)
    eager, cache = (static(first=(0, 2), capacity=capacity) for _ in range(2))
    for c in (eager, cache):
        c.keys.data[...] = c.values.data[...] = np.nan  # what has not been written is not looked at

    step = minigrad.jit(lambda q, k, v: cache.attend(q, k, v), backend=backend)
    for _ in range(capacity // T):
        q = Tensor(rng.normal(size=(2, 4, T, 5)).astype(np.float32))
        k, v = (Tensor(rng.normal(size=(2, 2, T, 5)).astype(np.float32)) for _ in range(2))
        want, got = eager.attend(q, k, v).numpy(), step(q, k, v).numpy()
        if backend == "numpy":
            assert np.array_equal(got, want)
        else:
            assert np.abs(got - want).max() < 64 * np.finfo(np.float32).eps
        for c in (eager, cache):
            c.length.data += T
    with pytest.raises(CacheError, match=f"positions {capacity}"):
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
        fixed.take(grown.fork())
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
        static().take(KVCache())
