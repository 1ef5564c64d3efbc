"""Losses as modules, against their formulas in numpy; the functions have tests of their own."""

import numpy as np
import pytest

from minigrad import Tensor, nn
from minigrad.errors import ShapeError

rng = np.random.default_rng(0)
X, T, P = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.uniform(0.1, 0.9, (4, 3))
D = np.abs(X - T)
Q = P / P.sum(1, keepdims=True)
LOG = X - np.log(np.exp(X).sum(1, keepdims=True))
LABELS = np.array([2, 0, 1, 2])
WEIGHT = np.array([0.5, 2.0, 1.0])
PICKED = LOG[range(4), LABELS]
SIGMOID = 1 / (1 + np.exp(-X))
FORMULAS = [
    (nn.MSELoss, {}, (X, T), D**2),
    (nn.L1Loss, {}, (X, T), D),
    (nn.SmoothL1Loss, {"beta": 0.5}, (X, T), np.where(D < 0.5, D**2, D - 0.25)),
    (nn.HuberLoss, {"delta": 0.5}, (X, T), np.where(D < 0.5, D**2 / 2, (D - 0.25) / 2)),
    (nn.KLDivLoss, {}, (LOG, Q), Q * (np.log(Q) - LOG)),
    (nn.KLDivLoss, {"log_target": True}, (LOG, np.log(Q)), Q * (np.log(Q) - LOG)),
    (nn.NLLLoss, {}, (LOG, LABELS), -PICKED),
    (nn.CrossEntropyLoss, {}, (X, LABELS), -PICKED),
    (nn.CrossEntropyLoss, {}, (X, Q), -(Q * LOG).sum(1)),
    (nn.BCELoss, {}, (SIGMOID, P), -P * np.log(SIGMOID) - (1 - P) * np.log(1 - SIGMOID)),
    (nn.BCEWithLogitsLoss, {}, (X, P), -P * np.log(SIGMOID) - (1 - P) * np.log(1 - SIGMOID)),
    (
        nn.BCEWithLogitsLoss,
        {"weight": WEIGHT, "pos_weight": WEIGHT[::-1].copy()},
        (X, P),
        WEIGHT * (-WEIGHT[::-1] * P * np.log(SIGMOID) - (1 - P) * np.log(1 - SIGMOID)),
    ),
]


@pytest.mark.parametrize(("make", "options", "inputs", "wanted"), FORMULAS)
def test_a_loss_is_its_formula_for_every_reduction(make, options, inputs, wanted):
    for reduction, number in (("none", wanted), ("sum", wanted.sum()), ("mean", wanted.mean())):
        loss = make(reduction=reduction, **options)
        assert np.allclose(loss(*map(Tensor, inputs)).data, number, rtol=1e-10, atol=1e-14)


def test_classes_and_positives_may_weigh_differently():
    share = WEIGHT[LABELS]
    for made, x in ((nn.NLLLoss(WEIGHT), LOG), (nn.CrossEntropyLoss(WEIGHT), X)):
        assert np.isclose(
            made(Tensor(x), Tensor(LABELS)).item(), -(share * PICKED).sum() / share.sum()
        )
    some = nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=2)(Tensor(X), Tensor(LABELS)).item()
    assert np.isclose(some, -(share * PICKED)[1:3].sum() / share[1:3].sum())


def test_weights_are_buffers():
    loss = nn.BCEWithLogitsLoss(WEIGHT, pos_weight=WEIGHT)
    assert list(loss.state_dict()) == ["weight", "pos_weight"]
    assert list(loss.parameters()) == []
    assert loss.to("float32").weight.dtype == np.float32
    assert list(nn.CrossEntropyLoss().state_dict()) == []


def test_classes_lie_on_axis_1_or_last_and_axis_decides_between_them():
    x, labels = rng.normal(size=(2, 3, 3)), rng.integers(0, 3, (2, 3))
    with pytest.raises(ShapeError, match="axis"):
        nn.CrossEntropyLoss()(Tensor(x), Tensor(labels))
    last = nn.CrossEntropyLoss(axis=-1)(Tensor(x), Tensor(labels)).item()
    second = nn.CrossEntropyLoss(axis=1)(Tensor(x.swapaxes(1, 2)), Tensor(labels)).item()
    assert np.isclose(last, second)


@pytest.mark.parametrize("make", [nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.BCEWithLogitsLoss])
def test_shapes_that_differ_are_refused(make):
    with pytest.raises(ShapeError):
        make()(Tensor.zeros(4, 1), Tensor.zeros(4))
