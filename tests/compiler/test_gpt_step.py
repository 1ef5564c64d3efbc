"""A whole training step of a GPT - forward, backward, clipping, AdamW - replayed."""

import math

import numpy as np
import pytest

from minigrad import Tensor, manual_seed
from minigrad.compiler import jit
from minigrad.models.gpt import GPT, GPTConfig
from minigrad.optim import SGD, Adam, AdamW, clip_grad_norm_

pytestmark = pytest.mark.as_for_users

V, B, T = 17, 4, 12
EPS = float(np.finfo(np.float32).eps)


def trained(
    wrap,
    steps=50,
    dropout=0.0,
    max_norm=1.0,
    make=lambda params: AdamW(params, lr=1e-3, weight_decay=0.1),
    config=GPTConfig.gpt2,
    **parts,
):
    """(losses, parameters, gradients, moments) after some steps of a small GPT whose step went
    through `wrap`.
    """
    manual_seed(3)
    model = GPT(config(V, block_size=T, n_layer=2, n_head=2, n_embd=16, dropout=dropout, **parts))
    optimizer = make(model.parameters())

    def step(x, y):
        optimizer.zero_grad()
        loss = model.loss(x, y)
        loss.backward()
        clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        return loss

    step, rng, losses = wrap(step), np.random.default_rng(0), []
    for i in range(steps):
        optimizer.lr = 1e-3 * (1 - i / 100)
        tokens = rng.integers(0, V, (B, T + 1))
        losses.append(step(Tensor(tokens[:, :-1]), Tensor(tokens[:, 1:])).item())
    params = list(model.parameters())
    state = optimizer.state_dict()["state"]
    moments = [np.asarray(m) for s in state.values() for name, m in s.items() if name != "step"]
    return (
        [np.array(losses)],
        [p.numpy() for p in params],
        [p.grad.numpy() for p in params],
        moments,
    )


@pytest.fixture(scope="module")
def eager():
    return trained(lambda step: step)


def test_fifty_steps_replayed_by_numpy_are_eager_to_the_bit(eager):
    for got, wanted in zip(trained(lambda step: jit(step, backend="numpy")), eager, strict=True):
        assert all(np.array_equal(g, w) for g, w in zip(got, wanted, strict=True))


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_fifty_compiled_steps_are_eager_within_64_eps(eager, threads):
    for got, wanted in zip(
        trained(lambda step: jit(step, backend="c", threads=threads)), eager, strict=True
    ):
        scale = max(1.0, max(float(np.abs(w).max()) for w in wanted))
        assert (
            max(float(np.abs(g - w).max()) for g, w in zip(got, wanted, strict=True))
            <= 64 * EPS * scale
        )


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_number_of_threads_changes_no_bit(monkeypatch, dropout):
    monkeypatch.setenv("MINIGRAD_PRODUCTS", "tiles")
    one, *others = (
        trained(lambda step, n=n: jit(step, backend="c", threads=n), steps=12, dropout=dropout)
        for n in (1, 2, 3, 4, 7)
    )
    for other in others:
        for got, wanted in zip(other, one, strict=True):
            assert all(np.array_equal(g, w) for g, w in zip(got, wanted, strict=True))


def test_the_whole_step_is_one_call_without_numpy_in_between():
    steps = []
    trained(lambda step: steps.append(jit(step, backend="c")) or steps[0], steps=4)
    assert "through numpy" not in steps[0].explain()
    assert "adam_" in str(steps[0].program) and "attention_grad" in steps[0].c_source


def test_dropout_draws_the_same_numbers_replayed_as_eager():
    wanted, got = (
        trained(lambda step: step, 8, 0.2),
        trained(lambda step: jit(step, backend="numpy"), 8, 0.2),
    )
    assert np.array_equal(got[0][0], wanted[0][0])
    compiled = trained(lambda step: jit(step, backend="c"), 8, 0.2)
    assert np.allclose(compiled[0][0], wanted[0][0], rtol=64 * EPS)


@pytest.mark.parametrize("max_norm", [1e6, math.inf])
def test_gradients_below_the_norm_are_not_scaled(max_norm):
    wanted, got = (
        trained(wrap, 4, max_norm=max_norm)
        for wrap in (lambda step: step, lambda step: jit(step, backend="c"))
    )
    assert all(
        np.allclose(g, w, rtol=0, atol=64 * EPS) for g, w in zip(got[2], wanted[2], strict=True)
    )


@pytest.mark.parametrize("largest", [3.0, math.inf, math.nan])
def test_clipping_to_an_infinite_norm_is_eager_with_gradients_of_any_size(largest):
    w = Tensor(np.ones(3, np.float32), requires_grad=True)

    def body(t):
        w.grad = None
        (w * t).sum().backward()
        return clip_grad_norm_(w, math.inf)

    step, t = jit(body, backend="c"), Tensor([1.0, -2.0, largest])
    norms = [body(t).numpy(), *(step(t).numpy() for _ in range(3))]
    compiled = w.grad.numpy()
    body(t)
    assert np.array_equal(compiled, w.grad.numpy(), equal_nan=True) and np.allclose(
        norms, norms[0], rtol=EPS, equal_nan=True
    )
    assert "through numpy" not in step.explain() and ", (double)INFINITY, " in step.c_source


def test_a_compiled_step_wants_less_memory_than_seven_tenths_of_its_values():
    steps = []
    trained(lambda step: steps.append(jit(step, backend="c")) or steps[0], steps=3)
    backend = steps[0]._last.backend
    temporaries = [v for v in steps[0].program.values if v.source == "temporary"]
    values = sum(v.size * v.dtype.itemsize for v in temporaries)
    assert backend.arena_bytes <= 0.7 * values
    inside = backend.gradients.offsets.keys() - {
        backend.layout.root[i] for i in backend.program.kept
    }
    assert inside  # in the memory of gradients that are not yet there


OTHERS = [
    lambda p: Adam(p, lr=1e-3, weight_decay=0.1),
    lambda p: SGD(p, lr=1e-3),
    lambda p: SGD(p, lr=1e-3, momentum=0.9, weight_decay=0.1),
    lambda p: SGD(p, lr=1e-3, momentum=0.9, nesterov=True),
    lambda p: SGD(p, lr=1e-3, momentum=0.9, dampening=0.5),
]


@pytest.mark.parametrize("make", OTHERS, ids=["adam", "sgd", "momentum", "nesterov", "dampening"])
def test_the_other_optimizers_in_c_are_eager(make):
    steps = []
    got = trained(lambda step: steps.append(jit(step, backend="c")) or steps[0], 6, make=make)
    assert "through numpy" not in steps[0].explain()
    for g, w in zip(got, trained(lambda step: step, 6, make=make), strict=True):
        assert max(float(np.abs(a - b).max()) for a, b in zip(g, w, strict=True)) <= 64 * EPS * max(
            1.0, max(float(np.abs(b).max()) for b in w)
        )


@pytest.mark.parametrize("mlp", ["swiglu", "relu2"])
def test_a_modern_step_is_compiled_and_equals_the_eager_one(mlp):
    steps, parts = [], {"config": GPTConfig, "init": "gpt2", "mlp": mlp}

    def wrap(step):
        steps.append(jit(step, backend="c"))
        return steps[0]

    got, wanted = trained(wrap, 6, **parts), trained(lambda step: step, 6, **parts)
    assert "through numpy" not in steps[0].explain()
    for g, w in zip(got, wanted, strict=True):
        scale = max(1.0, max(float(np.abs(b).max()) for b in w))
        assert (
            max(float(np.abs(a - b).max()) for a, b in zip(g, w, strict=True)) <= 64 * EPS * scale
        )


def test_explain_measures_each_phase_and_changes_nothing():
    manual_seed(0)
    model = GPT(
        GPTConfig.gpt2(vocab_size=V, block_size=T, n_layer=1, n_head=2, n_embd=16, dropout=0.2)
    )
    optimizer = AdamW(model.parameters(), lr=1e-3)

    def body(x):
        optimizer.zero_grad()
        loss = model.loss(x, x)
        loss.backward()
        optimizer.step()
        return loss

    step, x = jit(body, backend="c"), Tensor(np.arange(24).reshape(2, 12) % V)
    for _ in range(3):
        loss = step(x)
    held = [p.grad for p in model.parameters()]
    before = [np.array(t.data) for t in (*model.parameters(), *held, loss)]
    text = step.explain(measure=True)
    rows = [row for row in text.splitlines() if row.startswith("phase ")]
    assert len(rows) > 3 and all(row.endswith(" us measured") for row in rows)
    after = [t.data for t in (*model.parameters(), *held, loss)]
    assert all(np.array_equal(a, b) for a, b in zip(after, before, strict=True))
    assert step.explain() == step.explain() and "measured" not in step.explain()
