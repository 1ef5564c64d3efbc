"""Optimizers in C that a GPT step's tests do not have: Lion, whose step is a sign, and Adafactor,
which sees rows and columns.
"""

import numpy as np
import pytest

from minigrad import Tensor
from minigrad.compiler import jit
from minigrad.nn import Parameter
from minigrad.optim import Adafactor, Lion
from tests.compiler.in_c import near

SHAPES = [(40, 30), (7,), (300, 50), (3, 5, 9), (), (1, 6), (20_000,)]
MAKERS = {
    "lion": lambda p: Lion(p, lr=1e-2),
    "lion, decay": lambda p: Lion(p, lr=1e-2, betas=(0.8, 0.95), weight_decay=0.1),
    "adafactor": lambda p: Adafactor(p),
    "adafactor, decay": lambda p: Adafactor(p, lr=0.3, clip=0.5, weight_decay=0.1),
    "two groups": lambda p: Lion([{"params": p[:3]}, {"params": p[3:], "lr": 1e-3}]),
}


def steps_of(wrap, make, gradients):
    """(parameters, moments) after steps whose gradients are given."""
    local = np.random.default_rng(1)
    params = [Parameter(Tensor(local.normal(size=s).astype(np.float32))) for s in SHAPES]
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
    wanted, found = steps_of(lambda f: f, make, gradients), []
    for threads in (1, 2, 3, 7):
        steps = []
        found.append(
            steps_of(
                lambda f, n=threads, kept=steps: (
                    kept.append(jit(f, backend="c", threads=n)) or kept[0]
                ),
                make,
                gradients,
            )
        )
        assert "phase" in steps[0].explain() and "numpy" not in steps[0].explain()
        for got, right, first in zip(found[-1], wanted, found[0], strict=True):
            assert all(near(g, w, 256) for g, w in zip(got, right, strict=True))
            assert all(np.array_equal(g, f) for g, f in zip(got, first, strict=True))


@pytest.mark.parametrize("name", ["lion", "adafactor"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_goes_where_eager_puts_it(name, bad):
    gradients = [[np.ones(s, np.float32) for s in SHAPES] for _ in range(4)]
    gradients[3][0][3, 2] = gradients[3][1][4] = bad
    got, wanted = (
        steps_of(wrap, MAKERS[name], gradients)
        for wrap in (lambda f: jit(f, backend="c"), lambda f: f)
    )
    for g, w in zip(got, wanted, strict=True):
        assert all(near(a, b) for a, b in zip(g, w, strict=True))
