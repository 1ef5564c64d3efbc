"""Batches of different lengths, penalties, stop strings, beams, and a draft model that does not
change the distribution.
"""

import itertools
import tracemalloc

import numpy as np
import pytest

import minigrad
from minigrad import Generator
from minigrad.errors import ConfigError, IndexRangeError, ShapeError
from minigrad.evaluate import log_probabilities
from minigrad.models import (
    GPT,
    Conversation,
    Sampling,
    beam_search,
    generate_text,
    prompts,
    speculative_generate,
)
from minigrad.models.generation import accepted, looked_up, text_pieces
from minigrad.models.sampling import log_probability, sample
from minigrad.text import ByteTokenizer, CharTokenizer
from tests.models.architectures import config
from tests.models.test_gpt import gpt, tokens

pytestmark = pytest.mark.usefixtures("architecture")

PROMPTS = [[1, 2, 3, 4, 5], [7], [9, 8, 7]]


def log_softmax(x):
    x = x.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


# --- how probable the tokens are


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"temperature": 0},
        {"use_cache": False},
        {"jit": True},
        {"top_k": 3, "temperature": 0.5, "repetition_penalty": 2.0},
    ],
)
def test_log_probabilities_come_with_the_tokens_and_are_the_models_own(how):
    model = gpt()
    pairs = list(model.generate([1, 2, 3], 20, seed=4, return_log_probs=True, **how))
    drawn = [token for token, _ in pairs]
    assert drawn == list(model.generate([1, 2, 3], 20, seed=4, **how))
    assert all(type(token) is int and type(logp) is float for token, logp in pairs)
    wanted = log_probabilities(model, [1, 2, 3, *drawn])[2:]
    assert np.allclose([logp for _, logp in pairs], wanted, atol=1e-5)


def test_log_probabilities_of_a_batch_are_those_of_its_rows():
    model = gpt()
    pairs = list(model.generate(PROMPTS, 15, seed=1, return_log_probs=True))
    assert np.array_equal([row for row, _ in pairs], list(model.generate(PROMPTS, 15, seed=1)))
    logp = np.stack([logp for _, logp in pairs], axis=1)  # (B, 15)
    for prompt, drawn, got in zip(
        PROMPTS, np.stack([row for row, _ in pairs], axis=1), logp, strict=True
    ):
        assert np.allclose(
            got, log_probabilities(model, [*prompt, *drawn])[len(prompt) - 1 :], atol=1e-5
        )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    "how",
    [{"temperature": 0}, {"top_k": 1}, {"temperature": 0.8, "seed": 2, "repetition_penalty": 1.5}],
)
def test_a_model_in_16_bits_draws_from_its_logits_and_not_from_their_bits(dtype, how):
    model = gpt()
    model.to(dtype)
    wide = gpt()
    wide.load_state_dict({name: t.float() for name, t in model.state_dict().items()})
    found = list(model.generate([1, 2, 3], 12, return_log_probs=True, **how))
    wanted = log_probabilities(wide, [1, 2, 3, *(token for token, _ in found)])[2:]
    assert np.allclose([logp for _, logp in found], wanted, atol=0.2)
    assert np.mean(wanted) > np.log(1 / 17)  # better than any token at random


# --- batches of different lengths


@pytest.mark.parametrize("use_cache", [True, False])
def test_prompts_of_different_lengths_go_on_as_each_alone(use_cache):
    model = gpt()
    together = np.stack(
        list(model.generate(PROMPTS, 15, temperature=0, use_cache=use_cache)), axis=1
    )
    alone = [list(model.generate(prompt, 15, temperature=0)) for prompt in PROMPTS]
    assert together.tolist() == alone


def test_padding_is_neither_seen_nor_counted():
    model, x = gpt(), tokens(3, 9)
    pad = np.array([0, 3, 8])
    logits = model(x, pad=pad).numpy()
    for row, n in enumerate(pad):
        assert np.allclose(logits[row, n:], model(x[row : row + 1, n:]).numpy()[0], atol=1e-5)
    caches = model.make_caches()
    parts = [model(x[:, :4], caches=caches, pad=pad), model(x[:, 4:], caches=caches, pad=pad)]
    joined = np.concatenate([part.numpy() for part in parts], axis=1)
    assert all(
        np.allclose(joined[row, n:], logits[row, n:], atol=1e-5) for row, n in enumerate(pad)
    )
    with pytest.raises(ShapeError, match="pad"):
        model(x, pad=[1, 2])


def test_a_batch_of_different_lengths_goes_on_when_the_context_is_full():
    model = gpt()
    drawn = list(model.generate(PROMPTS, 60, seed=0))
    assert len(drawn) == 60 and all(step.shape == (3,) for step in drawn)
    cached = np.stack(list(model.generate(PROMPTS, 60, temperature=0)))
    assert np.array_equal(
        cached, np.stack(list(model.generate(PROMPTS, 60, temperature=0, use_cache=False)))
    )


def test_a_bad_prompt_among_others_is_refused():
    with pytest.raises(IndexRangeError, match="17"):
        gpt().generate([[1, 2], [17]], 1)
    with pytest.raises(ShapeError, match="prompt"):
        gpt().generate([[1, 2], []], 1)
    with pytest.raises(ShapeError, match="among"):
        gpt().generate([[[1, 2]], [1]], 1)


# --- sampling


def test_min_p_leaves_those_near_the_likeliest():
    logits = np.tile(np.log([[0.5, 0.3, 0.15, 0.05]]), (2000, 1))
    for min_p, kept in ((0.05, 4), (0.2, 3), (0.5, 2), (0.7, 1), (1.0, 1)):
        assert set(sample(logits, Generator(0), min_p=min_p)) == set(range(kept)), min_p


def test_a_repetition_penalty_lowers_what_has_come_and_nothing_else():
    how = Sampling(repetition_penalty=2.0)
    logits = np.array([[4.0, -4.0, 1.0, 0.0], [4.0, -4.0, 1.0, 0.0]])
    assert how.penalised(logits, np.array([[0, 1, 1], [-1, -1, 2]])).tolist() == [
        [2.0, -8.0, 1.0, 0.0],
        [4.0, -4.0, 0.5, 0.0],
    ]
    assert Sampling().penalised(logits, np.array([[0], [1]])) is logits
    assert logits[0, 0] == 4.0


def test_generation_with_a_strong_penalty_repeats_nothing_while_it_can():
    model = gpt()
    said = list(model.generate([1], 10, temperature=0, repetition_penalty=1e9))
    assert len({1, *said}) == 11 and len(set(model.generate([1], 10, temperature=0))) < 10


@pytest.mark.parametrize(
    "bad",
    [{"min_p": -0.1}, {"min_p": 1.1}, {"repetition_penalty": 0.0}, {"repetition_penalty": np.inf}],
)
def test_settings_that_make_no_sense_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        gpt().generate([1], 1, **bad)


# --- text


class Scripted:
    """A model that says what it is told to."""

    def __init__(self, said):
        self.said = said

    def generate(self, prompt, max_new_tokens, **sampling):
        return iter(self.said[:max_new_tokens])


@pytest.mark.parametrize(
    ("stop", "wanted"),
    [
        ((), "hello wörld. the end"),
        ("the", "hello wörld. "),
        (["lo w", "ell"], "h"),
        ("end!", "hello wörld. the end"),
        ("h", ""),
    ],
)
def test_text_ends_before_the_first_stop_string(stop, wanted):
    tokenizer = ByteTokenizer()
    model = Scripted(tokenizer.encode("hello wörld. the end").tolist())
    pieces = list(generate_text(model, tokenizer, "x", 100, stop=stop))
    assert "".join(pieces) == wanted
    assert all(pieces) and "\ufffd" not in "".join(pieces)
    if not stop:
        assert len(pieces) == len(wanted)  # each character as soon as it is whole


def test_text_is_what_the_tokens_say():
    tokenizer = CharTokenizer("abcdefghijklmnopq")
    model = gpt()
    text = "".join(generate_text(model, tokenizer, "abc", 30, seed=5, top_k=4))
    assert text == tokenizer.decode(model.generate([0, 1, 2], 30, seed=5, top_k=4))
    with pytest.raises(ConfigError, match="stop"):
        generate_text(model, tokenizer, "abc", 3, stop=["a", ""])


def test_bytes_that_never_become_a_character_come_at_the_end():
    pieces = list(generate_text(Scripted([97, 195, 195]), ByteTokenizer(), "x", 3))
    assert "".join(pieces) == "a\ufffd\ufffd"


# --- beams


def every_continuation(model, prompt, n, stop=None):
    """All continuations of n tokens, or of fewer that end in `stop`, with their log-probabilities,
    best first.
    """
    found = {}
    for said in itertools.product(range(model.config.vocab_size), repeat=n):
        cut = said[: said.index(stop) + 1] if stop in said else said
        if cut not in found:
            logp = log_softmax(model(np.array([[*prompt, *cut]])).numpy()[0])
            found[cut] = sum(logp[len(prompt) - 1 + i, t] for i, t in enumerate(cut))
    return sorted(found.items(), key=lambda item: -item[1])


@pytest.mark.parametrize("stop", [None, 2])
def test_wide_beams_find_the_most_probable_continuations(stop):
    model = gpt(vocab_size=5)
    wanted = every_continuation(model, [1, 2], 3, stop)
    found = beam_search(model, [1, 2], 3, beams=30, stop_token=stop)
    assert len(found) == 30
    for beam, (said, logp) in zip(found, wanted[:30], strict=True):
        assert tuple(beam.tokens) == said and beam.log_probability == pytest.approx(logp, abs=1e-4)


def test_one_beam_is_greedy_and_more_are_no_worse():
    model = gpt()
    greedy = beam_search(model, [1, 2], 8, beams=1)
    assert greedy[0].tokens == list(model.generate([1, 2], 8, temperature=0))
    assert (
        beam_search(model, [1, 2], 8, beams=8)[0].log_probability
        >= greedy[0].log_probability - 1e-6
    )


def test_a_length_penalty_favours_longer_beams():
    model = gpt(vocab_size=5)
    short, long = (
        beam_search(model, [1, 2], 6, beams=4, stop_token=2, length_penalty=a)[0]
        for a in (0.0, 3.0)
    )
    assert len(short.tokens) < len(long.tokens)


def test_what_does_not_fit_is_refused():
    model = gpt()
    for call in (beam_search, lambda m, p, n: speculative_generate(m, m, p, n)):
        with pytest.raises(ConfigError, match="block_size"):
            call(model, [1, 2], 23)
        with pytest.raises(ShapeError, match="one prompt"):
            call(model, [[1, 2]], 3)
        with pytest.raises(ConfigError, match="max_new_tokens"):
            call(model, [1, 2], -1)
    with pytest.raises(ConfigError, match="beams"):
        beam_search(model, [1], 3, beams=0)
    with pytest.raises(ConfigError, match="lookahead"):
        speculative_generate(model, model, [1], 3, lookahead=0)
    with pytest.raises(ConfigError, match="vocabulary"):
        speculative_generate(model, gpt(vocab_size=5), [1], 3)


# --- a draft model


def test_a_draft_does_not_change_the_greedy_choice():
    model, draft = gpt(), gpt(seed=1, n_layer=1)
    for lookahead in (1, 3, 30):
        said = list(
            speculative_generate(model, draft, [1, 2], 20, lookahead=lookahead, temperature=0)
        )
        assert said == list(model.generate([1, 2], 20, temperature=0))


def test_accepted_tokens_are_distributed_as_the_model_says():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(4), 3), rng.dirichlet(np.ones(4), 2)
    q[0, 3] = 0.0
    q /= q.sum(1, keepdims=True)
    n, generator, pairs = 1500, Generator(3), np.zeros((4, 4))
    for _ in range(n):
        proposed = [int((np.cumsum(row) <= generator.uniform()).sum().clip(0, 3)) for row in q]
        made = accepted(p, q, proposed, generator)
        if (
            len(made) == 1
        ):  # the next place would be drawn in the next round, from the model's distribution there
            made.append(int((np.cumsum(p[1]) <= generator.uniform()).sum().clip(0, 3)))
        pairs[made[0], made[1]] += 1
    wanted = n * np.outer(p[0], p[1])
    assert (
        (pairs - wanted) ** 2 / wanted
    ).sum() < 37.7  # chi-square of 15 degrees of freedom: 1 in 1000


@pytest.mark.parametrize("prompt", [[1, 2], [1, 2, 0, 1, 2]], ids=["draft", "looked up"])
def test_speculative_tokens_are_distributed_as_the_models_own(prompt):
    model = gpt(vocab_size=3, n_layer=1, block_size=8)
    draft = gpt(seed=1, vocab_size=3, n_layer=1, block_size=8) if len(prompt) == 2 else None
    n, counts = 400, np.zeros((3, 3))
    for seed in range(n):
        a, b = speculative_generate(
            model, draft, prompt, 2, lookahead=2, temperature=1.5, seed=seed
        )
        counts[a, b] += 1
    wanted = np.zeros((3, 3))
    for a in range(3):
        logits = model(np.array([[*prompt, a]])).numpy()[0, -2:] / 1.5
        first, second = np.exp(log_softmax(logits[0])), np.exp(log_softmax(logits[1]))
        wanted[a] = n * first[a] * second
    assert ((counts - wanted) ** 2 / wanted).sum() < 26.1  # 8 degrees of freedom: 1 in 1000


def test_looking_up_takes_no_memory_for_the_square_of_a_vocabulary():
    model = gpt(vocab_size=3000, n_layer=1, n_embd=8, block_size=32)
    tracemalloc.start()
    assert len(list(speculative_generate(model, None, [1, 2, 3, 1, 2], 4, temperature=0))) == 4
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6  # 3000^2 numbers are 72 MB


def test_a_perfect_draft_saves_runs_of_the_model():
    model = gpt()
    runs = []
    hidden = model._hidden
    model._hidden = lambda *args: (runs.append(1), hidden(*args))[1]
    twin = gpt()
    assert len(list(speculative_generate(model, twin, [1, 2], 20, lookahead=4, seed=0))) == 20
    assert len(runs) == 4


def test_what_followed_the_last_tokens_before_is_looked_up():
    assert looked_up([1, 2, 3, 4, 9, 2, 3, 4], 2) == [9, 2]
    assert looked_up([2, 3, 8, 1, 2, 3, 7, 0, 2, 3], 4) == [7, 0, 2, 3]  # the latest place
    assert looked_up([5, 1, 2, 3, 9, 0, 2, 3, 6, 1, 2, 3], 1) == [9]  # three before two
    assert looked_up([1, 2, 3], 2) == looked_up([1], 2) == looked_up([1, 2, 3, 1, 2], 0) == []


def test_looking_up_does_not_change_the_greedy_choice_and_saves_runs_of_the_model():
    model, prompt = gpt(block_size=64), [3, 1, 4, 1, 5]
    wanted = list(model.generate(prompt, 40, temperature=0))
    runs, forward = [], model.forward
    model.forward = lambda *args, **settings: (runs.append(1), forward(*args, **settings))[1]
    for lookahead in (1, 4, 30):
        runs.clear()
        said = speculative_generate(model, None, prompt, 40, lookahead=lookahead, temperature=0)
        assert list(said) == wanted
        assert len(runs) < 40  # a greedy text soon repeats itself


def test_dropout_is_off_while_generating_and_on_again_after():
    minigrad.manual_seed(0)
    model = GPT(config(vocab_size=9, block_size=8, n_layer=1, n_head=1, n_embd=8, dropout=0.5))
    assert beam_search(model, [1], 4) == beam_search(model, [1], 4)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "3"])
def test_a_seed_that_is_none_is_refused_in_the_name_of_the_call(seed):
    with pytest.raises(ConfigError, match=r"^generate: the seed must be"):
        gpt().generate([1], 3, seed=seed)
    with pytest.raises(ConfigError, match=r"^speculative_generate: the seed must be"):
        speculative_generate(gpt(), gpt(), [1], 3, seed=seed)


def test_a_long_text_in_pieces_is_the_whole_text():
    text = "".join(chr(0x20AC + i) if i % 3 == 0 else "ab "[i % 3] for i in range(200))
    tokens = ByteTokenizer().encode(text).tolist()
    assert "".join(text_pieces(ByteTokenizer(), iter(tokens), ["zzz", "ab b"])) == text
    assert (
        "".join(text_pieces(ByteTokenizer(), iter(tokens), [text[150:153]]))
        == text[: text.index(text[150:153])]
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 1e-30},
        {"top_k": 3},
        {"top_p": 0.5, "repetition_penalty": 1e30},
        {"use_cache": False, "min_p": 0.1},
    ],
)
def test_a_confident_model_generates_in_any_error_state(settings):
    model = gpt()
    for p in model.parameters():
        p.data[...] *= 1000
    with np.errstate(all="raise"):
        assert len(list(model.generate([0, 1], 3, **settings))) == 3
        assert beam_search(model, [0, 1], 3)
        assert len(list(speculative_generate(model, gpt(), [0, 1], 3))) == 3
        assert log_probability(np.array([[0.0, -2000.0]], "f4"), np.array([0])).tolist() == [0.0]


def test_a_long_prompt_is_read_in_parts_and_has_no_logits_but_at_its_end(monkeypatch):
    class Watched(GPT):
        def _hidden(self, tokens, *rest):
            read.append(np.shape(tokens)[1])
            return super()._hidden(tokens, *rest)

        def _head(self, x):
            scored.append(int(np.prod(x.shape[1:-1])))
            return super()._head(x)

    def said():
        talk = Conversation(model, ByteTokenizer())
        talk.tokens += prompt
        return [
            "".join(talk.answer(3, temperature=0)),
            list(model.generate(prompt, 3, temperature=0)),
            [row.tolist() for row in model.generate([prompt, [1, 2]], 3, temperature=0)],
            [row.tokens for row in beam_search(model, prompt, 3, beams=2)],
            list(speculative_generate(model, None, prompt, 3, lookahead=20, temperature=0)),
        ]

    model, read, scored = gpt(block_size=64), [], []
    model.__class__ = Watched
    prompt = np.random.default_rng(0).integers(0, model.config.vocab_size, 45).tolist()
    whole = said()
    monkeypatch.setattr(prompts, "READ", 8)
    read.clear(), scored.clear()
    assert said() == whole
    assert max(read) < 8 + 3 and max(scored) < 8 + 3
