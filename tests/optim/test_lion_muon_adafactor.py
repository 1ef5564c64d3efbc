"""Lion, Muon and Adafactor against their papers' formulas in 50 digits, over 100 steps; and what is
said of them.
"""

import importlib.util

import numpy as np
import pytest

from minigrad import Tensor, functional as F, nn, optim
from minigrad.errors import ConfigError, ShapeError, StateDictError
from minigrad.optim.muon import newton_schulz
from tests.optim.reference import adafactor, lion, muon
from tests.optim.test_optimizers import STEPS, assert_near, gradients_of_every_kind, run

TORCH = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)
LION = [{}, {"weight_decay": 0.5}, {"betas": (0.5, 0.9), "lr": 0.01}]
MUON = [
    {},
    {"nesterov": False, "momentum": 0.5, "lr": 0.1},
    {"weight_decay": 0.0, "adjust_lr": "match_rms_adamw"},
    {"ns_steps": 2},
]
ADAFACTOR = [
    {},
    {"weight_decay": 0.1},
    {"lr": 0.5, "beta2_decay": -0.5},
    {"eps": (1e-3, 0.5), "clip": 0.5},
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("settings", LION, ids=str)
def test_lion_follows_its_formula_for_100_steps(settings, dtype):
    start = np.array([1.0, -0.5, 0.3, 2.0, -1.5, 0.0], dtype)
    gradients = gradients_of_every_kind(6)
    p = Tensor(start, requires_grad=True)
    full = {"lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 0.0, **settings}
    got = run(optim.Lion([p], **full), p, gradients)
    assert_near(
        got,
        [lion(s, g, **full) for s, g in zip(start, gradients.T, strict=True)],
        start,
        full["lr"],
    )


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (1, 3)])
@pytest.mark.parametrize("settings", MUON, ids=str)
def test_muon_follows_its_formula_for_100_steps(settings, shape):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=shape), rng.normal(size=(STEPS, *shape))
    gradients[50] = 0
    full = {
        "lr": 1e-2,
        "momentum": 0.95,
        "weight_decay": 0.1,
        "nesterov": True,
        "ns_steps": 5,
        "adjust_lr": "original",
        **settings,
    }
    p = Tensor(start, requires_grad=True)
    got = run(optim.Muon([p], **full), p, gradients)
    wanted = np.array(muon(start, gradients, **full).tolist(), dtype=np.float64)
    assert np.allclose(got.reshape(shape), wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", [(3, 5), (4, 1), (6,)])
@pytest.mark.parametrize("settings", ADAFACTOR, ids=str)
def test_adafactor_follows_its_formula_for_100_steps(settings, shape):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=shape), rng.normal(size=(STEPS, *shape))
    gradients[:, 0] *= 1e-20
    gradients[::3] = 0
    full = {
        "lr": 1e-2,
        "beta2_decay": -0.8,
        "eps": (1e-30, 1e-3),
        "clip": 1.0,
        "weight_decay": 0.0,
        **settings,
    }
    p = Tensor(start, requires_grad=True)
    got = run(optim.Adafactor([p], **full), p, gradients)
    wanted = np.array(adafactor(start, gradients, **full).tolist(), dtype=np.float64)
    assert np.allclose(got, wanted.reshape(-1), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("kind", "near"), [(optim.Muon, 1e-3), (optim.Adafactor, 1e-5)])
def test_float32_stays_near_float64(kind, near):
    rng = np.random.default_rng(1)
    start, gradients = rng.normal(size=(6, 9)), rng.normal(size=(STEPS, 6, 9))
    narrow, wide = (
        Tensor(start.astype(np.float32), requires_grad=True),
        Tensor(start, requires_grad=True),
    )
    assert (
        np.abs(
            run(kind([narrow], lr=0.01), narrow, gradients)
            - run(kind([wide], lr=0.01), wide, gradients)
        ).max()
        < near
    )


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (7, 7)])
def test_newton_schulz_keeps_the_singular_vectors_and_brings_the_values_near_one(shape):
    g = np.random.default_rng(0).normal(size=shape)
    x = newton_schulz(g)
    assert np.all(np.abs(np.linalg.svd(x, compute_uv=False) - 1) < 0.35)
    u, _, vh = np.linalg.svd(g, full_matrices=False)
    inner = u.T @ x @ vh.T
    assert np.abs(inner - np.diag(np.diag(inner))).max() < 1e-12
    stacked = newton_schulz(Tensor(np.stack([g, g * 1000])))
    assert np.allclose(stacked.numpy(), x, atol=1e-6)


@TORCH
@pytest.mark.parametrize("shape", [(4, 6), (5,)])
def test_pytorchs_adafactor_makes_the_same_steps_on_ordinary_gradients(shape):
    import torch

    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=shape), rng.normal(size=(30, *shape))
    p, q = Tensor(start, requires_grad=True), torch.nn.Parameter(torch.tensor(start))
    theirs = torch.optim.Adafactor([q], lr=0.01, weight_decay=0.1)
    got = run(optim.Adafactor([p], lr=0.01, weight_decay=0.1), p, gradients)
    for g in gradients:
        q.grad = torch.tensor(g)
        theirs.step()
    assert np.allclose(got.reshape(shape), q.detach().numpy(), rtol=1e-9, atol=1e-11)


@TORCH
def test_pytorchs_muon_makes_the_same_steps_up_to_its_bfloat16():
    import torch

    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(8, 5)), rng.normal(size=(10, 8, 5))
    p, q = Tensor(start, requires_grad=True), torch.nn.Parameter(torch.tensor(start))
    theirs = torch.optim.Muon([q], lr=0.01, weight_decay=0.1)
    got = run(optim.Muon([p], lr=0.01, weight_decay=0.1), p, gradients)
    for g in gradients:
        q.grad = torch.tensor(g)
        theirs.step()
    assert np.abs(got.reshape(8, 5) - q.detach().numpy()).max() < 5e-3


def small_gpt():
    return nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 3))


KINDS = [
    lambda model: optim.Lion(optim.decay_groups(model.named_parameters(), 0.1), lr=0.01),
    lambda model: optim.Adafactor(model.parameters(), lr=0.1),
    lambda model: optim.Muon([p for p in model.parameters() if p.ndim == 2], lr=0.01),
]


def train(model, optimizer, seed, n=4):
    rng = np.random.default_rng(seed)
    for i in range(n):
        optimizer.zero_grad()
        loss = F.cross_entropy(
            model(Tensor(rng.normal(size=(4, 5)).astype(np.float32))), rng.integers(0, 3, 4)
        )
        loss.backward()
        if i % 2:
            next(iter(model.parameters())).grad = None
        optimizer.step()


@pytest.mark.parametrize("make", KINDS)
def test_going_on_from_a_saved_state_is_going_on_without_a_break(make):
    model, other = small_gpt(), small_gpt()
    optimizer, again = make(model), make(other)
    train(model, optimizer, 1)
    other.load_state_dict(model.state_dict())
    again.load_state_dict(optimizer.state_dict())
    train(model, optimizer, 2)
    train(other, again, 2)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert np.array_equal(p.data, q.data)


def test_adafactor_keeps_a_row_and_a_column_for_a_matrix_and_refuses_another_state():
    p, b = Tensor(np.ones((30, 20)), requires_grad=True), Tensor(np.ones(7), requires_grad=True)
    optimizer = optim.Adafactor([p, b])
    p.grad, b.grad = Tensor(np.ones((30, 20))), Tensor(np.ones(7))
    optimizer.step()
    state = optimizer.state_dict()
    shapes = [
        {k: v.shape for k, v in entry.items() if k != "step"} for entry in state["state"].values()
    ]
    assert shapes == [{"row_var": (30, 1), "col_var": (1, 20)}, {"variance": (7,)}]
    state["state"][0]["row_var"] = Tensor(np.ones((20, 1)))
    with pytest.raises(StateDictError, match="row_var"):
        optimizer.load_state_dict(state)


@pytest.mark.parametrize("kind", [optim.Lion, optim.Adafactor, optim.Muon])
def test_16_bit_parameters_are_updated_in_float32_and_rounded_once(kind):
    values = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    p = Tensor(values).cast("bfloat16").detach().requires_grad_()
    q = p.float().detach().requires_grad_()
    p.grad, q.grad = Tensor(values).cast("bfloat16"), Tensor(values).cast("bfloat16").float()
    kind([p], lr=0.1).step()
    kind([q], lr=0.1).step()
    assert np.array_equal(p.float().data, q.detach().cast("bfloat16").float().data)


def test_what_makes_no_sense_is_refused():
    p = Tensor(np.ones((2, 3)), requires_grad=True)
    with pytest.raises(ShapeError, match="must be a matrix"):
        optim.Muon([Tensor(np.ones(3), requires_grad=True)])
    for settings in ({"momentum": 1.0}, {"ns_steps": 0}, {"adjust_lr": "no"}):
        with pytest.raises(ConfigError, match=next(iter(settings))):
            optim.Muon([p], **settings)
    for settings in ({"beta2_decay": 0.8}, {"clip": 0.0}, {"eps": (-1.0, 1e-3)}):
        with pytest.raises(ConfigError, match=next(iter(settings))):
            optim.Adafactor([p], **settings)
    with pytest.raises(ConfigError, match="betas"):
        optim.Lion([p], betas=(1.0, 0.9))


# --- groups


def test_decay_groups_leave_out_what_has_one_axis():
    model = small_gpt()
    optimizer = optim.AdamW(optim.decay_groups(model.named_parameters(), 0.3), lr=0.1)
    names = {
        name: group["weight_decay"]
        for group in optimizer.param_groups
        for name in group["param_names"]
    }
    assert {name for name, decay in names.items() if decay == 0.3} == {"0.weight", "2.weight"}
    assert len(names) == 6 and set(names.values()) == {0.0, 0.3}


def test_a_parameter_goes_to_the_first_rule_that_it_fits_and_the_rest_to_the_last_group():
    model = small_gpt()
    rules = [("0.*", {"lr": 0.5}), (lambda name, p: p.ndim < 2, {"weight_decay": 0.0})]
    groups = optim.grouped(model.named_parameters(), rules)
    assert [[name for name, _ in group["params"]] for group in groups] == [
        ["0.weight", "0.bias"],
        ["1.weight", "1.bias", "2.bias"],
        ["2.weight"],
    ]
    optimizer = optim.AdamW(groups, lr=0.1, weight_decay=0.2)
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [
        (0.5, 0.2),
        (0.1, 0.0),
        (0.1, 0.2),
    ]


def test_a_pattern_that_fits_no_name_is_refused():
    with pytest.raises(ConfigError, match="wieght"):
        optim.grouped(small_gpt().named_parameters(), [("1.wieght", {"lr": 0.0})])
