"""Several optimizers as one: each parameter is updated as by its own, and the state goes round."""

import copy
import pickle

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, jit, nn
from minigrad.errors import ConfigError, StateDictError
from minigrad.optim import SGD, AdamW, ChainedOptimizer, MixedPrecision, Muon, lr_scheduler


def model(seed=0):
    minigrad.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 4, bias=False))


def parts(m):
    matrices = [p for p in m.parameters() if p.ndim == 2]
    others = [p for p in m.parameters() if p.ndim < 2]
    return Muon(matrices, lr=0.05), AdamW(others, lr=0.01)


def gradients(m, step):
    x = np.random.default_rng(step).normal(size=(3, 6)).astype(np.float32)
    for p in m.parameters():
        p.grad = None
    (m(Tensor(x)) ** 2).sum().backward()


def weights(m):
    return [p.data.copy() for p in m.parameters()]


def test_a_chain_is_its_optimizers_side_by_side():
    one, two = model(), model()
    chain, apart = ChainedOptimizer(parts(one)), parts(two)
    for step in range(4):
        gradients(one, step)
        chain.step()
        gradients(two, step)
        for optimizer in apart:
            optimizer.step()
    assert all(map(np.array_equal, weights(one), weights(two)))
    assert chain.nbytes == sum(optimizer.nbytes for optimizer in apart)
    assert len(chain.written()) == sum(len(optimizer.written()) for optimizer in apart)
    assert [group["lr"] for group in chain.param_groups] == [0.05, 0.01] and chain.lr == 0.05


def test_one_schedule_serves_all_groups_by_their_own_rates():
    chain = ChainedOptimizer(parts(model()))
    schedule = lr_scheduler.WarmupStableDecayLR(chain, 2, 10, 4, min_lr=[0.005, 0.001])
    rates = []
    for _ in range(11):
        rates.append([group["lr"] for group in chain.param_groups])
        schedule.step()
    assert rates[0] == [0.025, 0.005] and rates[5] == [0.05, 0.01] and rates[10] == [0.005, 0.001]
    with pytest.raises(ConfigError, match="min_lr"):
        lr_scheduler.WarmupCosineLR(chain, 2, 10, min_lr=[0.1])


@pytest.mark.parametrize("way", ["state_dict", "pickle", "deepcopy"])
def test_a_chain_goes_on_from_its_state(way):
    whole, m = model(), model()
    wanted, chain = ChainedOptimizer(parts(whole)), ChainedOptimizer(parts(m))
    for step in range(6):
        gradients(whole, step)
        wanted.step()
    for step in range(3):
        gradients(m, step)
        chain.step()
    if way == "state_dict":
        state, chain = chain.state_dict(), ChainedOptimizer(parts(m))
        chain.load_state_dict(state)
        assert sorted(state["state"]) == [*range(len(list(m.parameters())))]
    else:
        copied = copy.deepcopy if way == "deepcopy" else lambda x: pickle.loads(pickle.dumps(x))
        m, chain = copied((m, chain))
    for step in range(3, 6):
        gradients(m, step)
        chain.step()
    assert all(map(np.array_equal, weights(m), weights(whole)))


def test_a_state_that_does_not_fit_changes_nothing():
    m = model()
    chain = ChainedOptimizer(parts(m))
    gradients(m, 0)
    chain.step()
    state, before = chain.state_dict(), chain.state_dict()
    state["state"][len(state["state"]) - 1]["exp_avg"] = np.zeros(99)
    state["state"][0]["momentum_buffer"] = np.ones_like(state["state"][0]["momentum_buffer"])
    with pytest.raises(StateDictError):
        chain.load_state_dict(state)
    for i, entry in chain.state_dict()["state"].items():
        for name, value in entry.items():
            assert np.array_equal(value, before["state"][i][name])
    with pytest.raises(StateDictError):
        chain.load_state_dict(ChainedOptimizer(reversed(parts(m))).state_dict())


def test_a_compiled_step_of_a_chain_is_the_eager_one():
    results = []
    for wrap in (jit, lambda f: f):
        m = model()
        chain = ChainedOptimizer(parts(m))

        @wrap
        def step(x, m=m, chain=chain):
            chain.zero_grad()
            loss = (m(x) ** 2).sum()
            loss.backward()
            chain.step()
            return loss

        for i in range(5):
            step(Tensor(np.full((2, 6), i + 1, np.float32)))
        results.append(weights(m))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_chain_updates_masters_in_mixed_precision():
    m = model()
    chain = ChainedOptimizer(parts(m))
    params = [p for group in chain.param_groups for p in group["params"]]
    mixed = MixedPrecision(params, chain.exchange, "bfloat16")
    before = weights(m)
    for p in m.parameters():
        p.grad = minigrad.ones_like(p)
    assert mixed.step()
    assert not any(map(np.array_equal, weights(m), before))


def test_parameters_belong_to_one_optimizer():
    m = model()
    with pytest.raises(ConfigError, match="belongs to two"):
        ChainedOptimizer([SGD(m.parameters(), lr=0.1), AdamW(m.parameters())])
    with pytest.raises(ConfigError, match="no optimizers"):
        ChainedOptimizer([])
    with pytest.raises(ConfigError, match="add it to one of them"):
        ChainedOptimizer(parts(m)).add_param_group({"params": []})
