"""Optimizers in C that a GPT step's tests do not have: Lion, whose step is a sign; Adafactor, which
sees rows and columns; and Muon, whose step is made of products, with a whole Llama-type step.
"""

import numpy as np
import pytest

from minigrad import Tensor, functional as F, manual_seed
from minigrad.compiler import jit
from minigrad.nn import Embedding, Linear, ModuleList, Parameter, RMSNorm, TransformerBlock
from minigrad.optim import Adafactor, AdamW, Lion, Muon, clip_grad_norm_
from minigrad.optim.muon import newton_schulz
from tests.compiler.in_c import near

SHAPES = [(40, 30), (7,), (300, 50), (3, 5, 9), (), (1, 6), (20_000,)]
MAKERS = {
    "lion": lambda p: Lion(p, lr=1e-2),
    "lion, decay": lambda p: Lion(p, lr=1e-2, betas=(0.8, 0.95), weight_decay=0.1),
    "adafactor": lambda p: Adafactor(p),
    "adafactor, decay": lambda p: Adafactor(p, lr=0.3, clip=0.5, weight_decay=0.1),
    "two groups": lambda p: Lion([{"params": p[:3]}, {"params": p[3:], "lr": 1e-3}]),
}


MATRICES = [(40, 30), (1, 6), (130, 260), (300, 50), (64, 64), (5, 1), (17, 100)]
MUONS = {
    "muon": {},
    "muon, match_rms_adamw": {"adjust_lr": "match_rms_adamw", "momentum": 0.8},
    "muon, plain momentum": {"nesterov": False, "weight_decay": 0.0},
    "muon, 1 iteration": {"ns_steps": 1},
    "muon, 7 iterations": {"ns_steps": 7},
}


def steps_of(wrap, make, gradients, shapes=SHAPES):
    """(parameters, moments) after steps whose gradients are given."""
    local = np.random.default_rng(1)
    params = [Parameter(Tensor(local.normal(size=s).astype(np.float32))) for s in shapes]
    optimizer = make(params)

    def body(*given):
        optimizer.zero_grad()
        sum(((p * g).sum() for p, g in zip(params, given, strict=True)), Tensor(0.0)).backward()
        optimizer.step()

    step = wrap(body)
    for given in gradients:
        step(*map(Tensor, given))
    state = optimizer.state_dict()["state"]
    return [p.numpy() for p in params], [
        np.asarray(m) for s in state.values() for name, m in sorted(s.items())
    ]


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_thirty_steps_are_eager_and_the_same_with_any_number_of_threads(make):
    local = np.random.default_rng(2)
    gradients = [
        [(local.normal(size=s) * 10.0 ** local.integers(-6, 2)).astype(np.float32) for s in SHAPES]
        for _ in range(30)
    ]
    for given in gradients[::3]:
        given[0][:5], given[2][:] = 0, 0
    on_all_threads(make, gradients, SHAPES)


def on_all_threads(make, gradients, shapes):
    """Steps in C are eager's to rounding, and the same to the bit on 1, 2, 3 and 7 threads."""
    wanted, found = steps_of(lambda f: f, make, gradients, shapes), []
    for threads in (1, 2, 3, 7):
        steps = []
        found.append(
            steps_of(
                lambda f, n=threads, kept=steps: (
                    kept.append(jit(f, backend="c", threads=n)) or kept[0]
                ),
                make,
                gradients,
                shapes,
            )
        )
        assert "phase" in steps[0].explain() and "numpy" not in steps[0].explain()
        for got, right, first in zip(found[-1], wanted, found[0], strict=True):
            assert all(near(g, w, 256) for g, w in zip(got, right, strict=True))
            assert all(np.array_equal(g, f) for g, f in zip(got, first, strict=True))


@pytest.mark.parametrize("settings", MUONS.values(), ids=MUONS)
def test_muon_is_eager_and_the_same_with_any_number_of_threads(settings):
    local = np.random.default_rng(2)
    gradients = [
        [
            (local.normal(size=s) * 10.0 ** local.integers(-6, 2)).astype(np.float32)
            for s in MATRICES
        ]
        for _ in range(10)
    ]
    gradients[3][0][:5], gradients[4][2][:], gradients[5][3][:, 7] = 0, 0, 0
    on_all_threads(lambda p: Muon(p, lr=0.1, **settings), gradients, MATRICES)


def directions(g, wrap):
    """What Muon subtracts for this gradient, whatever was before it."""
    p = Parameter(Tensor(np.zeros_like(g)))
    optimizer = Muon([p], 1.0, 0.0, 0.0, nesterov=False, adjust_lr="match_rms_adamw")

    def body(given):
        optimizer.zero_grad()
        (p * given).sum().backward()
        optimizer.step()

    step = wrap(body)
    for _ in range(3):
        p.data[...] = 0
        step(Tensor(g))
    return p.numpy() / -(0.2 * max(g.shape) ** 0.5)


@pytest.mark.parametrize("decades", [0, 2, 4, 8])
@pytest.mark.parametrize("shape", [(48, 144), (144, 48), (65, 65), (100, 520)])
def test_newton_schulz_in_c_is_exact_for_gradients_of_any_spectrum(shape, decades):
    """The singular values fall over some decades. Against float64: within 2^-14 of the largest
    number, as eager is, although the C takes products of the iterations in another order.
    """
    left, values, right = np.linalg.svd(
        np.random.default_rng(3).normal(size=shape), full_matrices=False
    )
    g = ((left * np.logspace(0, -decades, len(values))) @ right).astype(np.float32)
    exact = newton_schulz(g.astype(np.float64))
    for wrap in (lambda f: f, lambda f: jit(f, backend="c", threads=1)):
        error = np.abs(directions(g, wrap) - exact).max()
        assert error <= 2.0**-14 * np.abs(exact).max()


@pytest.mark.as_for_users
def test_a_llama_step_with_muon_and_adamw_is_one_program_in_c():
    """RMSNorm, rotary positions, QK-norm, SwiGLU, clipping and two optimizers: nothing goes through
    numpy, and the losses are eager's.
    """

    def losses(wrap):
        manual_seed(5)
        tokens = Embedding(11, 32)
        block = {"norm": "rms", "mlp": "swiglu", "rope": "half", "bias": False, "qk_norm": True}
        layers = ModuleList(TransformerBlock(32, 2, **block) for _ in range(2))
        norm, head = RMSNorm(32), Linear(32, 11, bias=False)
        params = [p for m in (tokens, layers, norm, head) for p in m.parameters()]
        matrices = [p for p in layers.parameters() if p.ndim == 2]
        rest = [p for p in params if all(p is not m for m in matrices)]
        optimizers = Muon(matrices, lr=0.02), AdamW(rest, lr=1e-3)

        def body(x, y):
            for optimizer in optimizers:
                optimizer.zero_grad()
            hidden = tokens(x)
            for layer in layers:
                hidden = layer(hidden)
            loss = F.cross_entropy(head(norm(hidden)), y, axis=-1)
            loss.backward()
            clip_grad_norm_(params, 1.0)
            for optimizer in optimizers:
                optimizer.step()
            return loss

        step, local = wrap(body), np.random.default_rng(4)
        batches = [local.integers(0, 11, (3, 13)) for _ in range(12)]
        return step, [float(step(Tensor(b[:, :-1]), Tensor(b[:, 1:])).numpy()) for b in batches]

    step, got = losses(lambda f: jit(f, backend="c"))
    assert "phase" in step.explain() and "numpy" not in step.explain()
    _, wanted = losses(lambda f: f)
    assert np.allclose(got, wanted, rtol=2e-5, atol=0)


@pytest.mark.as_for_users
@pytest.mark.parametrize("name", ["lion", "adafactor", "muon"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_goes_where_eager_puts_it(name, bad):
    shapes = MATRICES if name == "muon" else SHAPES
    gradients = [[np.ones(s, np.float32) for s in shapes] for _ in range(4)]
    gradients[3][0][3, 2] = gradients[3][1][..., -1] = bad
    make = MAKERS.get(name, Muon)
    got, wanted = (
        steps_of(wrap, make, gradients, shapes)
        for wrap in (lambda f: jit(f, backend="c"), lambda f: f)
    )
    for g, w in zip(got, wanted, strict=True):
        assert all(near(a, b) for a, b in zip(g, w, strict=True))
