"""Log-probabilities, perplexity with a stride, bits per character and accuracy, each against its
definition.
"""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import minigrad
from minigrad import evaluate
from minigrad.errors import ConfigError, DataError, ShapeError
from minigrad.models import GPT, GPTConfig
from minigrad.text import BPETokenizer, ByteTokenizer, CharTokenizer

minigrad.manual_seed(0)
MODEL = GPT(
    GPTConfig.gpt2(vocab_size=13, block_size=16, n_layer=1, n_head=2, n_embd=16, dropout=0.3)
)
for p in MODEL.parameters():
    p.data *= 4


def log_softmax(x):
    x = x.astype(np.float64)
    return (
        x
        - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - x.max(-1, keepdims=True)
    )


def logits(x):
    MODEL.eval()
    y = MODEL(np.asarray(x)).numpy()
    MODEL.train()
    return y


def tokens(n, seed=0):
    return np.random.default_rng(seed).integers(0, 13, n)


def test_log_probabilities_are_those_of_the_tokens_given_what_came_before():
    x = tokens((3, 9))
    wanted = np.take_along_axis(log_softmax(logits(x[:, :-1])), x[:, 1:, None], 2)[..., 0]
    assert np.allclose(evaluate.log_probabilities(MODEL, x), wanted, atol=1e-5)


def test_one_sequence_is_a_row_without_its_batch():
    x = tokens(9)
    assert np.array_equal(
        evaluate.log_probabilities(MODEL, x), evaluate.log_probabilities(MODEL, [x])[0]
    )


@pytest.mark.parametrize("shape", [(), (1,), (3, 1), (2, 3, 4)])
def test_tokens_without_one_that_follows_another_are_refused(shape):
    with pytest.raises(ShapeError, match="log_probabilities: tokens of shape"):
        evaluate.log_probabilities(MODEL, np.zeros(shape, np.int64))


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 40), st.integers(1, 12), st.data())
def test_every_token_counts_once_with_as_much_context_as_the_stride_grants(n, block_size, data):
    stride = data.draw(st.integers(1, block_size))
    text, T = tokens(n, n), min(block_size, n - 1)
    total, done = 0.0, 0
    while done < n - 1:  # the definition, one window after the other
        end = min(done + (stride if done else T), n - 1)
        logp = log_softmax(logits([text[end - T : end]])[0])
        total -= sum(logp[i - (end - T), text[i + 1]] for i in range(done, end))
        done = end
    found = evaluate.perplexity(
        MODEL, text, block_size=block_size, stride=stride, batch_size=data.draw(st.integers(1, 5))
    )
    assert found.tokens == n - 1
    assert found.nats == pytest.approx(total / (n - 1), abs=1e-5)
    assert found.perplexity == pytest.approx(math.exp(found.nats))


def test_a_stride_of_one_gives_every_token_the_full_context():
    text = tokens(30)
    wanted = [log_softmax(logits([text[max(0, i - 8) : i]])[0])[-1, text[i]] for i in range(1, 30)]
    found = evaluate.perplexity(MODEL, text, block_size=8, stride=1)
    assert found.nats == pytest.approx(-np.mean(wanted), abs=1e-5)


def test_bits_per_character_count_characters_and_not_tokens():
    text = "the cat sat on the mat, the cat sat on the hat. " * 4
    tokenizer = BPETokenizer.train(text, 280)
    minigrad.manual_seed(1)
    model = GPT(
        GPTConfig.gpt2(
            vocab_size=tokenizer.vocab_size, block_size=16, n_layer=1, n_head=1, n_embd=8
        )
    )
    uniform = (
        len(tokenizer.encode(text)[1:])
        * math.log2(tokenizer.vocab_size)
        / len(tokenizer.decode(tokenizer.encode(text)[1:]))
    )
    assert evaluate.bits_per_character(
        model, tokenizer, text, block_size=16, stride=8
    ) == pytest.approx(uniform, rel=0.02)
    characters = CharTokenizer.from_text(text)
    model = GPT(
        GPTConfig.gpt2(
            vocab_size=characters.vocab_size, block_size=16, n_layer=1, n_head=1, n_embd=8
        )
    )
    nats = evaluate.perplexity(model, characters.encode(text), block_size=16).nats
    assert evaluate.bits_per_character(model, characters, text, block_size=16) == pytest.approx(
        nats / math.log(2)
    )


def test_accuracy_is_the_share_of_counted_targets():
    x = tokens((4, 6))
    best = logits(x).argmax(-1)
    y = np.where(np.arange(6) < 3, best, (best + 1) % 13)
    y[:, 5] = -100
    assert evaluate.accuracy(MODEL, [(x, y), (x, best)]) == pytest.approx((12 + 24) / (20 + 24))
    with pytest.raises(DataError, match="no target"):
        evaluate.accuracy(MODEL, iter([]))


def test_dropout_is_off_meanwhile_and_on_again_after():
    text = tokens(20)
    assert evaluate.perplexity(MODEL, text, block_size=8) == evaluate.perplexity(
        MODEL, text, block_size=8
    )
    assert all(module.training for module in MODEL.modules())


@pytest.mark.parametrize("bad", [{"stride": 9}, {"stride": 0}, {"batch_size": 0}])
def test_settings_that_make_no_sense_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        evaluate.perplexity(MODEL, tokens(20), **{"block_size": 8, **bad})


def test_what_is_no_text_is_refused():
    for bad in (tokens(1), tokens((2, 3))):
        with pytest.raises(DataError, match="tokens"):
            evaluate.perplexity(MODEL, bad, block_size=8)


def test_bits_per_byte_count_the_bytes_that_the_tokens_spell():
    tokenizer = CharTokenizer.from_text("aïb")
    tokens = tokenizer.encode("aïïb")  # six bytes
    assert evaluate.bits_per_byte(math.log(2), tokenizer, tokens) == pytest.approx(4 / 6)
    assert evaluate.bits_per_byte(math.log(2), ByteTokenizer(), ByteTokenizer().encode("aïïb")) == 1
    with pytest.raises(DataError):
        evaluate.bits_per_byte(1.0, tokenizer, tokens[:0])


def test_logits_of_a_large_vocabulary_are_never_all_there():
    model = GPT(GPTConfig(vocab_size=20_000, block_size=256, n_layer=1, n_head=2, n_embd=16))
    x = np.random.default_rng(0).integers(0, 20_000, 257)
    wanted = np.take_along_axis(log_softmax(model(x[None, :-1]).numpy()[0]), x[1:, None], 1)[:, 0]
    tracemalloc.start()
    found = evaluate.perplexity(model, x, block_size=256)
    right = evaluate.accuracy(model, [(x[None, :-1], x[None, 1:])])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 256 * 20_000 * 4 / 1.5
    assert found.nats == pytest.approx(-wanted.mean(), rel=1e-6) and right == 0


def test_a_subclass_with_other_logits_is_measured_by_them():
    class Twice(GPT):
        def forward(self, tokens, **more):
            return super().forward(tokens, **more) * 2

    model, x = Twice(GPTConfig(vocab_size=13, block_size=16, n_layer=1)), tokens(9)
    wanted = log_softmax(model(x[None, :-1]).numpy())[0, np.arange(8), x[1:]]
    assert np.allclose(evaluate.log_probabilities(model, x), wanted, atol=1e-5)
