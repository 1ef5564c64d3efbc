"""SGD, Adam and AdamW against their formulas in 50 digits, over 100 steps."""

import importlib.util

import numpy as np
import pytest

from minigrad import Tensor, optim
from minigrad.errors import ShapeError, StaleValueError
from tests.optim.reference import adam, rmsprop, sgd

STEPS = 100
SGD_CASES = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.5},
    {"momentum": 0.9, "nesterov": True},
    {"weight_decay": 0.1},
    {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
]
ADAM_CASES = [
    {},
    {"weight_decay": 0.1},
    {"betas": (0.5, 0.9)},
    {"betas": (0.0, 0.99), "lr": 0.1},
    {"eps": 1e-3, "weight_decay": 0.01},
    {"lr": 0.0},
    {"amsgrad": True},
    {"amsgrad": True, "weight_decay": 0.1, "betas": (0.9, 0.5)},
]
RMSPROP_CASES = [
    {},
    {"weight_decay": 0.1},
    {"alpha": 0.5, "lr": 0.1},
    {"momentum": 0.9},
    {"centered": True, "eps": 1e-3},
    {"centered": True, "momentum": 0.5, "weight_decay": 0.01, "eps": 1e-2},
]


def gradients_of_every_kind(size, seed=0):
    """One row per step: ordinary numbers, zeros in some steps, always zero, 1e-30, 1e15, and one
    that is seen once.
    """
    g = np.random.default_rng(seed).normal(size=(STEPS, size)).astype(np.float32)
    g[::3, 0] = 0
    g[:, 1] = 0
    g[:, 2] *= np.float32(1e-30)
    g[:, 3] *= np.float32(1e15)
    g[1:, 4] = 0
    return g


def run(optimizer, p, gradients):
    for g in gradients:
        p.grad = Tensor(g.reshape(p.shape).astype(p.dtype))
        optimizer.step()
    return p.data.reshape(-1)


def assert_near(got, wanted, start, lr):
    """Each step may round the parameter once and the update a few times."""
    eps = np.finfo(got.dtype).eps
    for value, exact, first in zip(got, wanted, start, strict=True):
        scale = max(abs(float(first)), abs(float(exact)), lr)
        assert abs(float(value - exact)) <= 4 * STEPS * eps * scale


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("settings", ADAM_CASES, ids=str)
@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW])
def test_adam_follows_its_formula_for_100_steps(kind, settings, dtype):
    start = np.array([1.0, -0.5, 0.3, 2.0, -1.5, 0.0], dtype)
    gradients = gradients_of_every_kind(6)
    p = Tensor(start, requires_grad=True)
    full = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, **settings}
    got = run(kind([p], **full), p, gradients)
    wanted = [
        adam(s, g, decoupled=kind is optim.AdamW, **full)
        for s, g in zip(start, gradients.T, strict=True)
    ]
    assert_near(got, wanted, start, full["lr"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("settings", SGD_CASES, ids=str)
def test_sgd_follows_its_formula_for_100_steps(settings, dtype):
    start = np.array([1.0, -0.5, 0.3, 2.0, -1.5, 0.0], dtype)
    gradients = gradients_of_every_kind(6)
    gradients[:, 3] *= np.float32(1e-15)
    p = Tensor(start, requires_grad=True)
    full = {
        "lr": 1e-2,
        "momentum": 0.0,
        "dampening": 0.0,
        "weight_decay": 0.0,
        "nesterov": False,
        **settings,
    }
    got = run(optim.SGD([p], **full), p, gradients)
    wanted = [sgd(s, g, **full) for s, g in zip(start, gradients.T, strict=True)]
    assert_near(got, wanted, start, 1.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("settings", RMSPROP_CASES, ids=str)
def test_rmsprop_follows_its_formula_for_100_steps(settings, dtype):
    start = np.array([1.0, -0.5, 0.3, 2.0, -1.5, 0.0], dtype)
    gradients = gradients_of_every_kind(6)
    if settings.get("centered"):
        gradients[:, 3] *= np.float32(1e-15)  # v - mean^2 of 1e30 has no digits left
    p = Tensor(start, requires_grad=True)
    full = {"lr": 1e-3, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0}
    full |= {"centered": False, **settings}
    got = run(optim.RMSprop([p], **full), p, gradients)
    wanted = [rmsprop(s, g, **full) for s, g in zip(start, gradients.T, strict=True)]
    assert_near(got, wanted, start, 10 * full["lr"] / (1 - full["momentum"]))


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop])
def test_many_shapes_together_are_updated_as_each_alone(kind):
    settings = {"momentum": 0.9} if kind is optim.SGD else {}
    rng = np.random.default_rng(0)
    shapes = [(), (3,), (200, 300), (1,), (0,), (2, 3, 4), (40_000,), (7,), (32_768,), (32_767,)]
    starts = [rng.normal(size=s).astype(np.float32) for s in shapes]
    together, alone = ([Tensor(s, requires_grad=True) for s in starts] for _ in range(2))
    optimizer = kind(together, weight_decay=0.1, **settings)
    singles = [kind([p], weight_decay=0.1, **settings) for p in alone]
    for _ in range(3):
        for p, q in zip(together, alone, strict=True):
            p.grad = q.grad = Tensor(rng.normal(size=p.shape).astype(np.float32))
        optimizer.step()
        for single in singles:
            single.step()
    for p, q in zip(together, alone, strict=True):
        assert np.array_equal(p.data, q.data)


def test_parameters_in_any_memory_order_are_updated_in_place():
    start = np.random.default_rng(0).normal(size=(60, 40)).astype(np.float32)
    big = np.random.default_rng(1).normal(size=(300, 200)).astype(np.float32)
    for values in (start, big):
        straight = Tensor(values, requires_grad=True)
        turned = Tensor._wrap(np.asfortranarray(values)).requires_grad_()
        memory = turned.data
        for p in (straight, turned):
            p.grad = Tensor(np.ones(values.shape, np.float32))
            optim.AdamW([p]).step()
        assert turned.data is memory
        assert np.array_equal(straight.data, turned.data)
        assert not np.array_equal(straight.data, values)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_parameters_are_updated_in_float32_and_rounded_once(dtype):
    p = Tensor([1.0, -2.0, 0.5]).cast(dtype).detach().requires_grad_()
    q = Tensor([1.0, -2.0, 0.5], requires_grad=True)
    p.grad, q.grad = Tensor([0.5, 1.0, -4.0]).cast(dtype), Tensor([0.5, 1.0, -4.0])
    optim.AdamW([p], lr=0.1).step()
    optim.AdamW([q], lr=0.1).step()
    assert np.array_equal(p.float().data, q.detach().cast(dtype).float().data)


def test_float64_and_float32_parameters_may_be_in_one_group():
    a, b = Tensor([1.0], dtype="float64", requires_grad=True), Tensor([1.0], requires_grad=True)
    a.grad, b.grad = Tensor([0.5], dtype="float64"), Tensor([0.5])
    optimizer = optim.AdamW([a, b])
    optimizer.step()
    state = optimizer.state_dict()["state"]
    assert (state[0]["exp_avg"].dtype, state[1]["exp_avg"].dtype) == (np.float64, np.float32)
    assert abs(a.item() - b.item()) < 1e-7


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.Lion, optim.Muon, optim.Adafactor])
@pytest.mark.parametrize("wrong", [Tensor.ones(3, 2), Tensor.ones(1, 3), Tensor.ones(6), [1.0]])
def test_a_gradient_of_another_shape_is_refused(make, wrong):
    p = Tensor.ones(2, 3, requires_grad=True)
    optimizer = make([p], lr=0.1)
    p.grad = wrong
    with pytest.raises(ShapeError, match=r"does not fit a parameter of shape \(2, 3\)"):
        optimizer.step()
    assert (p.numpy() == 1).all()


def test_a_parameter_without_a_gradient_stands_still_and_does_not_count_the_step():
    a, b = Tensor([1.0, 2.0], requires_grad=True), Tensor([3.0], requires_grad=True)
    alone = Tensor([3.0], requires_grad=True)
    optimizer, single = optim.AdamW([a, b], lr=0.1), optim.AdamW([alone], lr=0.1)
    for step in range(6):
        a.grad = Tensor([0.1, -0.2])
        b.grad = alone.grad = None if step in (1, 4) else Tensor([0.7 - step])
        before = b.data.copy()
        optimizer.step()
        single.step()
        assert (step in (1, 4)) == np.array_equal(b.data, before)
    assert np.array_equal(b.data, alone.data)
    assert [entry["step"] for entry in optimizer.state_dict()["state"].values()] == [6, 4]


def test_a_step_raises_the_version_of_what_it_changed_so_that_backward_refuses_it():
    p = Tensor([1.0, 2.0], requires_grad=True)
    loss = (p * p).sum()
    p.grad = Tensor([1.0, 1.0])
    optim.SGD([p], lr=0.1).step()
    with pytest.raises(StaleValueError):
        loss.backward()


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        ("Adam", {"weight_decay": 0.1}),
        ("AdamW", {"weight_decay": 0.1}),
        ("Adam", {"weight_decay": 0.1, "amsgrad": True}),
        ("RMSprop", {"weight_decay": 0.1, "momentum": 0.5, "centered": True}),
    ],
)
def test_pytorch_makes_the_same_steps(name, settings):
    import torch

    start, gradients = np.ones(6), gradients_of_every_kind(6)
    gradients[:, 3] *= np.float32(1e-15)
    p, q = Tensor(start, requires_grad=True), torch.nn.Parameter(torch.tensor(start))
    ours, theirs = (
        getattr(optim, name)([p], lr=0.01, **settings),
        getattr(torch.optim, name)([q], lr=0.01, **settings),
    )
    for g in gradients:
        p.grad, q.grad = Tensor(g.astype(np.float64)), torch.tensor(g.astype(np.float64))
        ours.step()
        theirs.step()
    assert np.allclose(p.data, q.detach().numpy(), rtol=1e-12, atol=1e-13)
