"""The derivative of a gradient that does not change with x is zero, and not an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, functional as F, ops
from minigrad.errors import UnusedInputError
from minigrad.optim import SGD

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": ops.relu,
    "abs": ops.abs,
    "clamp": lambda x: x.clamp(-0.5, 1.5),
    "maximum": lambda x: ops.maximum(x, 0.25),
    "minimum": lambda x: ops.minimum(x, x * 2),
    "max": lambda x: ops.max(x, axis=1),
    "min": lambda x: ops.min(x),
    "where": lambda x: ops.where(x > 0, x, x * 3),
    "masked_fill": lambda x: x.masked_fill(x > 1, 2.0),
    "hardtanh": F.hardtanh,
    "relu6": F.relu6,
    "hardsigmoid": F.hardsigmoid,
    "leaky_relu": F.leaky_relu,
    "sort": lambda x: x.sort(1)[0],
    "topk": lambda x: x.topk(2)[0],
    "cummax": lambda x: x.cummax(1)[0],
    "floor": ops.floor,
    "ceil": ops.ceil,
    "round": ops.round,
    "trunc": ops.trunc,
    "sign": ops.sign,
    "floor_div": lambda x: x // 0.4,
    "mod": lambda x: x % 0.4,
    "zeros_like": ops.zeros_like,
    "neg": ops.neg,
    "times 3": lambda x: x * 3,
    "sum": lambda x: x.sum(0),
    "mean": lambda x: x.mean(1),
    "cumsum": lambda x: x.cumsum(1),
    "permute": lambda x: x.T,
    "pad": lambda x: ops.pad(x, widths=((1, 0), (0, 2))),
    "index": lambda x: x[1:, ::2],
    "embedding": lambda x: F.embedding(np.array([2, 0, 2]), x),
    "cat": lambda x: ops.cat(x, x, axis=0),
    "product with a constant": lambda x: x @ np.ones((4, 2)),
    "max_pool2d": lambda x: F.max_pool2d(x[None, None], 2),
    "avg_pool2d": lambda x: F.avg_pool2d(x[None, None], 2),
    "float": lambda x: x.float(),
    "the leaf itself": lambda x: x,
    "median": lambda x: x.abs().sort(0)[0][1],
}
X = np.random.default_rng(3).uniform(-2, 2, (3, 4))
piecewise_linear = pytest.mark.parametrize("name", FUNCTIONS)


@piecewise_linear
def test_the_second_derivative_is_zeros_by_every_way(name: str) -> None:
    f = FUNCTIONS[name]
    zeros = np.zeros_like(X)
    for options in ({}, {"allow_unused": True}, {"materialize_grads": True}):
        x = Tensor(X, requires_grad=True)
        (g,) = minigrad.grad(f(x).sum(), x, create_graph=True)
        assert g.requires_grad
        (h,) = minigrad.grad(g.sum(), x, **options)
        assert np.array_equal(h.numpy(), zeros) and h.dtype == x.dtype
    x = Tensor(X, requires_grad=True)
    f(x).sum().backward(create_graph=True)
    g, x.grad = x.grad, None
    assert np.array_equal(g.numpy(), minigrad.grad(f(x).sum(), x)[0].numpy())
    g.sum().backward()
    assert np.array_equal(x.grad.numpy(), zeros)


@piecewise_linear
def test_functions_of_functions_find_zeros(name: str) -> None:
    def total(x: Tensor) -> Tensor:
        return FUNCTIONS[name](x).sum()

    slope = minigrad.func.grad(total)
    bend = minigrad.func.grad(lambda x: slope(x).sum())
    for x in (Tensor(X), Tensor(X, requires_grad=True)):
        assert not minigrad.func.hessian(total)(x).numpy().any()
        assert not minigrad.func.hvp(total, x, Tensor(X)).numpy().any()
        assert not minigrad.func.jvp(slope, (x,), (Tensor(X),))[1].numpy().any()
        assert not minigrad.func.jacobian(lambda x: slope(x).sum(1))(x).numpy().any()
        assert not minigrad.func.grad(lambda x: bend(x).sum())(x).numpy().any()


@piecewise_linear
def test_a_term_that_bends_is_all_that_remains(name: str) -> None:
    x = Tensor(X, requires_grad=True)
    (g,) = minigrad.grad(FUNCTIONS[name](x).sum() + (x**3).sum(), x, create_graph=True)
    np.testing.assert_allclose(minigrad.grad(g.sum(), x)[0].numpy(), 6 * X, rtol=1e-15)


def test_a_gradient_depends_on_all_that_its_output_depends_on_and_on_nothing_else() -> None:
    a, b, c = (Tensor(X, requires_grad=True) for _ in range(3))
    ga, gb = minigrad.grad((a * b).sum(), (a, b), create_graph=True)
    assert minigrad.grad(ga.sum(), a, retain_graph=True)[0].tolist() == np.zeros_like(X).tolist()
    assert minigrad.grad(ga.sum(), b, retain_graph=True)[0].tolist() == np.ones_like(X).tolist()
    assert minigrad.grad(gb.sum(), c, allow_unused=True, retain_graph=True) == (None,)
    with pytest.raises(UnusedInputError):
        minigrad.grad(gb.sum(), c)


def test_without_create_graph_a_gradient_is_a_constant() -> None:
    x = Tensor(X, requires_grad=True)
    assert not minigrad.grad(x.relu().sum(), x)[0].requires_grad
    x.relu().sum().backward()
    assert not x.grad.requires_grad


@pytest.mark.parametrize("function", [lambda x: x**3, ops.relu, ops.exp])
def test_gradients_that_are_part_of_a_graph_can_be_zeroed_and_used(function: Any) -> None:
    x = Tensor(X, requires_grad=True)
    optimizer = SGD([x], lr=0.1)
    function(x).sum().backward(create_graph=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    assert not x.grad.requires_grad and not x.grad.numpy().any()
    function(x).sum().backward()
    wanted = minigrad.grad(function(x).sum(), x)[0]
    assert np.array_equal(x.grad.numpy(), wanted.numpy())


def test_a_penalty_on_the_gradient_adds_to_the_gradient_of_the_loss() -> None:
    x = Tensor(X, requires_grad=True)
    loss = (x.relu() ** 2).sum()
    loss.backward(create_graph=True)
    (x.grad**2).sum().backward()
    assert np.array_equal(x.grad.numpy(), np.where(X > 0, 2 * X + 8 * X, 0))
