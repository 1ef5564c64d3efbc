"""Losses: layouts, weights, and averages that do not depend on how targets are cut into batches."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

import minigrad
from minigrad import Tensor, evaluate, functional as F, nn
from minigrad.errors import ConfigError, MinigradError, ShapeError
from minigrad.train.steps import count_targets as counted, evaluate as validation_loss

rng = np.random.default_rng(0)


def log_softmax(x: Any, axis: int) -> Any:
    top = x.max(axis=axis, keepdims=True)
    return x - top - np.log(np.exp(x - top).sum(axis=axis, keepdims=True))


def definition(
    log_p: Any, target: Any, weight: Any, ignore_index: int, smoothing: float, reduction: str
) -> Any:
    """The loss of class numbers as PyTorch documents it, for log-probabilities (N, V)."""
    V = log_p.shape[1]
    weight = np.ones(V) if weight is None else weight
    losses, weights = np.zeros(len(target)), np.zeros(len(target))
    for i, k in enumerate(target):
        if k != ignore_index:
            uniform = -(weight * log_p[i]).sum() / V
            losses[i] = (1 - smoothing) * -weight[k] * log_p[i, k] + smoothing * uniform
            weights[i] = weight[k]
    if reduction == "none":
        return losses
    return losses.sum() / (weights.sum() if reduction == "mean" else 1)


@settings(deadline=None, max_examples=120)
@given(
    rest=st.lists(st.integers(1, 3), max_size=2),
    N=st.integers(1, 4),
    V=st.integers(2, 5),
    weighted=st.booleans(),
    ignore=st.sampled_from([-100, 1]),
    smoothing=st.sampled_from([0.0, 0.3]),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_losses_of_classes_are_their_definition_in_both_layouts(
    rest: list[int],
    N: int,
    V: int,
    weighted: bool,
    ignore: int,
    smoothing: float,
    reduction: str,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, *rest, V))
    target = np.where(rng.random(x.shape[:-1]) < 0.3, ignore, rng.integers(0, V, x.shape[:-1]))
    assume((target != ignore).any())
    weight = rng.uniform(0.5, 2, V) if weighted else None
    first = np.moveaxis(x, -1, 1)
    options = {"ignore_index": ignore, "reduction": reduction}
    both_fit = first.shape[:1] + first.shape[2:] == first.shape[:-1]
    for logits, axis in ((x, -1), (first, 1)):
        rows = log_softmax(x.reshape(-1, V), 1)
        for name, input_, s in (
            ("cross_entropy", logits, smoothing),
            ("nll_loss", log_softmax(logits, axis), 0.0),
        ):
            wanted = definition(rows, target.reshape(-1), weight, ignore, s, reduction)
            settings_ = {**options, **({"label_smoothing": s} if s else {})}
            loss = getattr(F, name)
            got = loss(Tensor(input_), target, weight, axis=axis, **settings_)
            np.testing.assert_allclose(got.numpy().reshape(-1), wanted, rtol=1e-12)
            if not both_fit or not rest:
                same = loss(Tensor(input_), target, weight, **settings_)
                assert same.tolist() == got.tolist()
            else:
                with pytest.raises(ShapeError, match="axis=-1 for"):
                    loss(Tensor(input_), target, weight, **settings_)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_a_large_vocabulary_takes_some_rows_at_a_time(smoothing: float) -> None:
    x = Tensor(rng.normal(size=(40, 30_000)).astype(np.float32))
    target = rng.integers(-1, 30_000, 40)
    how: Any = {"ignore_index": -1, "label_smoothing": smoothing, "reduction": "none"}
    one_by_one = [F.cross_entropy(x[n : n + 1], target[n : n + 1], **how).item() for n in range(40)]
    tracemalloc.start()
    losses = F.cross_entropy(x, target, **how)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert losses.numpy().tolist() == one_by_one
    assert peak < x.data.nbytes  # exponentials of all rows would take twice as much


@pytest.mark.parametrize("smoothing", [0.0, 0.25])
@pytest.mark.parametrize("weight", [None, np.array([0.5, 1.0, 2.0])])
@pytest.mark.parametrize("shape", [(3,), (4, 3), (4, 3, 2)])
def test_cross_entropy_takes_class_probabilities(
    shape: tuple[int, ...], weight: Any, smoothing: float
) -> None:
    axis = 1 if len(shape) > 1 else 0
    x = rng.normal(size=shape)
    q = rng.dirichlet(np.ones(3), shape[:axis] + shape[axis + 1 :])
    q = np.moveaxis(q, -1, axis)
    factor = 1 if weight is None else weight.reshape(-1, *(1,) * (len(shape) - axis - 1))
    mixed = q * (1 - smoothing) + smoothing / 3
    losses = -(mixed * factor * log_softmax(x, axis)).sum(axis)
    settings_ = {"label_smoothing": smoothing, **({"axis": 1} if len(shape) > 2 else {})}
    for reduction, wanted in (("none", losses), ("sum", losses.sum()), ("mean", losses.mean())):
        got = F.cross_entropy(Tensor(x), q, weight, reduction=reduction, **settings_)
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-12)
    if len(shape) > 2:
        with pytest.raises(ShapeError, match="axis=1"):
            F.cross_entropy(Tensor(x), q, weight)


def test_one_hot_probabilities_give_the_loss_of_class_numbers_with_minus_infinity_too() -> None:
    x = Tensor(np.array([[0.0, 1.0, -np.inf], [2.0, -np.inf, -1.0]]), requires_grad=True)
    y = Tensor(np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), requires_grad=True)
    loss = F.cross_entropy(x, y)
    numbers = F.cross_entropy(x, np.array([1, 0]))
    np.testing.assert_allclose(loss.item(), numbers.item(), rtol=1e-15)
    gx, gy = minigrad.grad(loss, (x, y), retain_graph=True)
    np.testing.assert_allclose(gx.numpy(), minigrad.grad(numbers, x)[0].numpy(), atol=1e-16)
    assert np.isfinite(gy.numpy()).all() and gy.numpy()[0, 0] > 0


def test_losses_of_shapes_that_do_not_fit_name_them() -> None:
    x = Tensor(np.zeros((2, 3, 4)))
    for call in (
        lambda: F.cross_entropy(x, np.zeros((2, 5), int)),
        lambda: F.nll_loss(x, np.zeros((3, 4), int)),
        lambda: F.cross_entropy(x, np.zeros((2, 4), int), np.ones(4)),
        lambda: F.cross_entropy(x, np.zeros((2, 4), int), axis=-1),
        lambda: F.l1_loss(x, np.zeros((2, 3))),
        lambda: F.kl_div(x, np.zeros((2, 3))),
    ):
        with pytest.raises(ShapeError):
            call()
    with pytest.raises(ConfigError):
        F.huber_loss(x, x, delta=0)
    with pytest.raises(MinigradError):
        F.mse_loss(x, x, reduction="average")  # type: ignore[arg-type]


def test_losses_of_numbers_are_what_pytorch_documents() -> None:
    x, y = rng.normal(size=(4, 5)) * 2, rng.normal(size=(4, 5))
    y[0] = x[0]
    d = np.abs(x - y)
    w, pw = rng.uniform(0.5, 2, 5), rng.uniform(0.5, 2, 5)
    p, q = 1 / (1 + np.exp(-x)), rng.dirichlet(np.ones(5), 4)
    soft = rng.random((4, 5))
    q[1, 2] = 0
    divergence = np.where(q == 0, 0, q * np.log(np.where(q == 0, 1, q))) - q * x
    X, Y = Tensor(x), Tensor(y)
    for got, wanted in (
        (F.l1_loss(X, Y), d.mean()),
        (F.l1_loss(X, y, reduction="none"), d),
        (F.mse_loss(X, Y, reduction="sum"), (d * d).sum()),
        (F.huber_loss(X, Y), np.where(d <= 1, d * d / 2, d - 0.5).mean()),
        (F.huber_loss(X, Y, "none", 0.7), np.where(d <= 0.7, d * d / 2, 0.7 * (d - 0.35))),
        (F.smooth_l1_loss(X, Y), np.where(d < 1, d * d / 2, d - 0.5).mean()),
        (
            F.smooth_l1_loss(X, Y, reduction="none", beta=2.0),
            np.where(d < 2, d * d / 4, d - 1),
        ),
        (F.smooth_l1_loss(X, Y, reduction="none", beta=0.0), d),
        (F.kl_div(X, q, reduction="none"), divergence),
        (F.kl_div(X, q, reduction="batchmean"), divergence.sum() / 4),
        (F.kl_div(X, y, log_target=True), (np.exp(y) * (y - x)).mean()),
        (
            F.binary_cross_entropy(Tensor(p), soft, w),
            (w * -(soft * np.log(p) + (1 - soft) * np.log(1 - p))).mean(),
        ),
        (
            F.binary_cross_entropy_with_logits(X, soft, w, pos_weight=pw),
            (w * -(soft * pw * np.log(p) + (1 - soft) * np.log(1 - p))).mean(),
        ),
    ):
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-12, atol=1e-15)


# --- averages over counted targets

V = 5


class Bigram(nn.Module):
    """Logits that depend on the token alone, so that batches may be cut anywhere."""

    def __init__(self) -> None:
        self.table = nn.Parameter(np.random.default_rng(1).normal(size=(V, V)))

    def forward(self, x: Any) -> Tensor:
        return F.embedding(Tensor(np.asarray(x)), self.table)

    def loss(self, x: Any, y: Any) -> Tensor:
        return F.cross_entropy(self(x), y, axis=-1)


@st.composite
def cuts(draw: Any) -> tuple[Any, Any, list[slice]]:
    """Tokens and targets (N,), some not counted, and a cut of them into parts."""
    n = draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x, y = rng.integers(0, V, (2, n))
    y = np.where(rng.random(n) < draw(st.sampled_from([0, 0.3, 0.9])), -100, y)
    y[rng.integers(n)] = rng.integers(V)  # one counts
    places = sorted(draw(st.sets(st.integers(1, max(n - 1, 1)), max_size=5)) - {n})
    return x, y, [slice(a, b) for a, b in zip([0, *places], [*places, n], strict=True)]


@settings(deadline=None, max_examples=80)
@given(cuts())
def test_averages_over_counted_targets_do_not_depend_on_the_cut(cut: Any) -> None:
    x, y, parts = cut
    model = Bigram()
    batches = [(x[part], y[part]) for part in parts]
    whole = model.loss(x, y).item()
    assert validation_loss(model, batches) == pytest.approx(whole, rel=1e-12)
    rows = [(a[None], b[None]) for a, b in batches]
    assert evaluate.accuracy(model, rows) == evaluate.accuracy(model, [(x[None], y[None])])
    # What accumulates gradients over parts needs: the mean of a part and its number of targets.
    gradient = minigrad.grad(model.loss(x, y), model.table)[0].numpy()
    for name in ("cross_entropy", "nll_loss"):
        loss = getattr(F, name)
        total, summed = np.zeros((V, V)), 0.0
        for a, b in batches:
            scores = model(a) if name == "cross_entropy" else model(a).log_softmax()
            if counted(b):
                mean = loss(scores, b)
                share = minigrad.grad(mean, model.table, retain_graph=True)[0].numpy()
                total += share * counted(b) / counted(y)
                summed += loss(scores, b, reduction="sum").item()
                assert loss(scores, b, reduction="none").sum().item() == pytest.approx(
                    mean.item() * counted(b), rel=1e-12
                )
        np.testing.assert_allclose(total, gradient, rtol=1e-9, atol=1e-15)
        assert summed / counted(y) == pytest.approx(whole, rel=1e-12)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(2, 40), st.integers(1, 12), st.integers(1, 5), st.data(), st.integers(0, 2**32 - 1)
)
def test_perplexity_does_not_depend_on_block_stride_and_batch(
    n: int, block: int, batch: int, data: Any, seed: int
) -> None:
    stride = data.draw(st.integers(1, block))
    tokens = np.random.default_rng(seed).integers(0, V, n)
    model = Bigram()
    whole = model.loss(tokens[:-1], tokens[1:]).item()
    found = evaluate.perplexity(model, tokens, block_size=block, stride=stride, batch_size=batch)
    assert found.tokens == n - 1 and found.nats == pytest.approx(whole, rel=1e-6)
    windows = list(evaluate.windows(tokens, block_size=block, stride=stride, batch_size=batch))
    assert validation_loss(model, windows) == pytest.approx(whole, rel=1e-12)


def test_a_validation_without_a_counted_target_is_refused() -> None:
    with pytest.raises(ConfigError, match="no targets"):
        validation_loss(Bigram(), [(np.zeros(2, int), np.full(2, -100))])
