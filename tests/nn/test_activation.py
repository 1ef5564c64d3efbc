"""Activations as modules, against the formulas in Python's own floats."""

import math

import numpy as np
import pytest

from minigrad import Tensor, nn

FORMULAS = [
    (nn.ReLU(), lambda x: max(x, 0.0)),
    (nn.ReLU(inplace=True), lambda x: max(x, 0.0)),
    (nn.LeakyReLU(), lambda x: x if x > 0 else 0.01 * x),
    (nn.LeakyReLU(0.3, True), lambda x: x if x > 0 else 0.3 * x),
    (nn.ELU(0.5), lambda x: x if x > 0 else 0.5 * math.expm1(x)),
    (nn.GELU(), lambda x: x * math.erfc(-x / math.sqrt(2)) / 2),
    (
        nn.GELU("tanh"),
        lambda x: x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    ),
    (nn.SiLU(), lambda x: x / (1 + math.exp(-x))),
    (nn.Tanh(), math.tanh),
    (nn.Sigmoid(), lambda x: 1 / (1 + math.exp(-x))),
    (nn.Softplus(), lambda x: math.log1p(math.exp(x))),
    (nn.Softplus(beta=2), lambda x: math.log1p(math.exp(2 * x)) / 2),
    (nn.Identity(54, unused=True), lambda x: x),
]


@pytest.mark.parametrize(("module", "formula"), FORMULAS)
def test_an_activation_is_its_formula_and_leaves_its_input_alone(module, formula):
    x = np.linspace(-3, 3, 13).reshape(1, 13)
    given = Tensor(x)
    wanted = [[formula(v) for v in x[0]]]
    assert np.allclose(module(given).data, wanted, rtol=1e-13, atol=1e-15)
    assert np.array_equal(given.data, x)
    assert list(module.parameters()) == []


def test_softmax_is_along_its_axis():
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    for dim in (0, 1, -1):
        e = np.exp(x)
        wanted = e / e.sum(dim, keepdims=True)
        assert np.allclose(nn.Softmax(dim=dim)(Tensor(x)).data, wanted)
        assert np.allclose(nn.LogSoftmax(dim)(Tensor(x)).data, np.log(wanted))
    assert np.array_equal(nn.Softmax()(Tensor(x)).data, nn.Softmax(-1)(Tensor(x)).data)


def test_flatten_keeps_the_batch():
    x = Tensor.zeros(2, 3, 4, 5)
    assert nn.Flatten()(x).shape == (2, 60)
    assert nn.Flatten(0, 1)(x).shape == (6, 4, 5)
    assert nn.Flatten(end_dim=-2)(x).shape == (2, 12, 5)


def test_a_setting_can_be_changed_later():
    module = nn.LeakyReLU()
    module.negative_slope = 0.5
    assert module(Tensor([-2.0])).tolist() == [-1.0]
    assert repr(module) == "LeakyReLU(negative_slope=0.5)"
