"""Drawing the next token."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from minigrad import Generator, Tensor
from minigrad.errors import NotFiniteError
from minigrad.models.sampling import Sampling, sample, sample_


def draws(logits, n=4000, seed=0, **how):
    return sample(np.tile(np.asarray(logits, np.float32), (n, 1)), Generator(seed), **how)


def test_tokens_come_as_often_as_the_softmax_says():
    logits = np.array([1.0, 2.0, -1.0, 0.5, -np.inf])
    for temperature in (0.5, 1.0, 3.0):
        p = np.exp(logits / temperature)
        p /= p.sum()
        found = np.bincount(draws(logits, temperature=temperature), minlength=5) / 4000
        assert np.abs(found - p).max() < 4 * np.sqrt(0.25 / 4000)
        assert found[4] == 0


def test_temperature_0_is_the_first_of_the_likeliest():
    assert draws([1.0, 3.0, 3.0, 2.0], n=5, temperature=0).tolist() == [1] * 5


def test_top_k_leaves_the_k_likeliest():
    assert set(draws([0.0, 0.1, 0.2, 0.3], top_k=2)) == {2, 3}
    assert set(draws([0.0, 0.1, 0.2, 0.3], top_k=9)) == {0, 1, 2, 3}
    assert set(draws([0.0, 0.1, 0.2, 0.3], top_k=1)) == {3}


def test_top_p_leaves_the_fewest_that_reach_p():
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    for p, kept in ((0.4, 1), (0.5, 1), (0.6, 2), (0.8, 2), (0.9, 3), (1.0, 4)):
        assert set(draws(logits, top_p=p - 1e-9 if p < 1 else p)) == set(range(kept)), p


def test_top_k_comes_before_top_p():
    assert set(draws(np.log([0.4, 0.3, 0.2, 0.1]), top_k=2, top_p=0.57)) == {0}


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.floats(0.01, 100), st.integers(1, 40), st.floats(0.01, 1))
def test_a_token_that_is_ruled_out_is_never_drawn(seed, temperature, top_k, top_p):
    logits = np.random.default_rng(seed).normal(size=(8, 30)).astype(np.float32) * 10
    logits[:, ::3] = -np.inf
    drawn = sample(logits, Generator(seed), temperature, top_k, top_p)
    assert drawn.shape == (8,)
    assert (drawn % 3 != 0).all()
    ranks = (logits > np.take_along_axis(logits, drawn[:, None], 1)).sum(1)
    assert (ranks < top_k).all()


@pytest.mark.parametrize("bad", [[np.nan, 1.0], [np.inf, 1.0], [-np.inf, -np.inf]])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_logits_that_are_not_finite_are_refused(bad, temperature):
    with pytest.raises(NotFiniteError):
        sample(np.array([[0.0, 1.0], bad], np.float32), Generator(0), temperature)


@pytest.mark.parametrize("nudge", [1 - 2**-52, 1 + 2**-52])
def test_a_step_draws_alike_with_settings_that_are_moved_by_a_rounding(nudge):
    found = []
    for factor in (1, nudge):
        how = Sampling(temperature=1.0, top_k=3, top_p=1.0, min_p=1.0)
        numbers = np.array([*how.numbers(), 1.0]) * factor
        tokens, drawn = np.zeros((2, 1), np.int64), np.zeros((2, 4), np.int64)
        changed = [tokens, np.array(0), np.array(2), np.array([7, 0], np.uint64)]
        changed += [np.zeros((2, 5), np.int64), np.zeros(2, bool), drawn, np.zeros((2, 4))]
        logits = np.array([[0.0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])
        operands = [*changed, logits, numbers, np.zeros(5, bool)]
        sample_(*map(Tensor._wrap, operands), changes=len(changed))
        found.append(drawn[:, 0].tolist())
    assert found[0] == found[1] == [4, 0]
