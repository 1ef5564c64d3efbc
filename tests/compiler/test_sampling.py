"""The next token drawn in C: the same as `Sampling` in numpy, and steps that are repeated in C."""

import numpy as np
import pytest

import minigrad
from minigrad import Generator, Tensor, no_grad
from minigrad.errors import NotFiniteError
from minigrad.models.sampling import Sampling, log_probability, sample_, token_counts

pytestmark = pytest.mark.as_for_users

SETTINGS = [
    {"temperature": 0.0},
    {},
    {"temperature": 0.3},
    {"temperature": 1.7, "top_k": 1},
    {"top_k": 5},
    {"top_k": 1000},
    {"top_p": 0.5},
    {"top_p": 1e-6},
    {"top_p": 1.0, "min_p": 0.1},
    {"min_p": 1.0},
    {"repetition_penalty": 1.5, "temperature": 0.0},
    {"repetition_penalty": 0.7},
    {"temperature": 0.8, "top_k": 9, "top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.2},
]


def held(B, V, seed, how, scored=True, capacity=40):
    """The operands of `sample_` but for the logits."""
    numbers = [*how.numbers(), scored]
    arrays = [np.zeros((B, 1), np.int64), np.array(0), np.array(0), np.array([seed, 3], np.uint64)]
    arrays += [np.zeros((B, V), np.int64), np.zeros(B, bool), np.zeros((B, capacity), np.int64)]
    arrays += [np.zeros((B, capacity)), np.array(numbers, float), np.zeros(V, bool)]
    return [Tensor._wrap(a) for a in arrays]


def stepper(values, table):
    """A step that draws from row `length` of a table of logits, (n, B, V)."""
    *changed, settings, stops = values

    @minigrad.jit(audit=False)
    def step():
        with no_grad():
            logits = table[changed[1].reshape(1)][0] * 1.0
            sample_(*changed, logits, settings, stops, changes=8)

    return step


def eager(table, seed, how):
    """Tokens and log-probabilities, (B, n), one after the other by `Sampling` itself."""
    B = table.shape[1]
    generator = Generator(seed)
    generator.set_state((seed, 3))
    context, scores = np.zeros((B, 0), np.int64), []
    for logits in table:
        drawn = how.draw(how.penalised(logits, context), generator)
        scores.append(log_probability(logits, drawn))
        context = np.concatenate([context, drawn[:, None]], axis=1)
    return context, np.stack(scores, axis=1), generator.get_state()


def spread(rng, shape):
    """Logits with equal ones and -inf among them; the first is never -inf."""
    logits = np.round(rng.normal(size=shape) * 3, 1).astype(np.float32)
    logits[rng.random(shape) < 0.1] = -np.inf
    logits[..., 0] = 0.5
    return logits


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("B", "V"), [(1, 1), (1, 37), (3, 200), (70, 12)])
def test_tokens_log_probabilities_and_generator_are_those_of_numpy(settings, B, V):
    how, n = Sampling(**settings), 30
    for seed in (0, 2**63 + 11):
        table = spread(np.random.default_rng(seed), (n, B, V))
        values = held(B, V, seed, how)
        step = stepper(values, Tensor(table))
        left, drawn, scores = values[2], values[6].data, values[7].data
        for group in (1, 1, 5, n - 7):
            left.data[...] = group
            step.repeat(left)
        assert "phases" in step.explain() and "through numpy" not in step.explain()
        wanted, log_p, state = eager(table, seed, how)
        assert drawn[:, :n].tolist() == wanted.tolist()
        assert np.allclose(scores[:, :n], log_p, rtol=1e-13, atol=1e-13)
        assert tuple(values[3].data.tolist()) == state
        assert values[4].data.tolist() == token_counts(wanted, V).tolist()
        assert values[0].data[:, 0].tolist() == wanted[:, -1].tolist()
        assert (int(values[1].data), int(left.data)) == (n, 0)


def test_repetition_ends_once_every_row_has_a_token_that_stops():
    table = np.full((12, 2, 4), -9.0, np.float32)
    table[:, :, 1] = 0  # token 1, but for
    table[4, 0, 2], table[7, 1, 3], table[5, 0, 0] = 1, 1, 1
    values = held(2, 4, 0, Sampling(temperature=0.0))
    values[-1].data[[2, 3]] = True
    step = stepper(values, Tensor(table))
    values[2].data[...] = 12
    step.repeat(values[2])
    assert int(values[1].data) == 8
    assert values[5].data.tolist() == [True, True]
    assert values[6].data[:, :9].tolist() == [[1, 1, 1, 1, 2, 0, 1, 1, 0], [1] * 7 + [3, 0]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_end_the_repetition(bad, temperature):
    table = np.zeros((9, 2, 5), np.float32)
    table[6, 1] = bad
    values = held(2, 5, 0, Sampling(temperature=temperature))
    step = stepper(values, Tensor(table))
    values[2].data[...] = 9
    with pytest.raises(NotFiniteError):
        step.repeat(values[2])
    assert int(values[1].data) == 6


@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_a_step_is_repeated_until_its_counter_is_0(backend):
    left, total = Tensor(np.array(0)), Tensor(np.zeros(3, np.float32))

    @minigrad.jit(backend=backend)
    def step():
        with no_grad():
            total.assign(total + 1.0)
            left.assign(left - 1)

    for count in (0, 1, 1, 7, 100, 0, -3):
        left.data[...] = count
        before = total.numpy().copy()
        step.repeat(left)
        assert (total.numpy() - before).tolist() == [max(count, 0)] * 3
        assert int(left.data) == min(count, 0)
