"""A cotangent of zero asks for nothing: 0 times an infinite derivative is 0 in a backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, ops
from minigrad.primitive import primitive

INF = float("inf")


@primitive(kind="elementwise", dtype="float")
def cube_root(x: Any) -> Any:
    """A user's op whose derivative is infinite at 0."""
    return np.cbrt(x)


@cube_root.vjp
def _(g: Any, y: Any, _x: Any) -> tuple[Any]:
    return (g / (3 * y * y),)


@primitive(kind="elementwise", dtype="float", outputs=2)
def log_and_inverse(x: Any) -> Any:
    """A user's op of two outputs."""
    return np.log(x), 1 / x


@log_and_inverse.vjp
def _(g: Any, y: Any, x: Any) -> tuple[Any]:
    first, second = (0 if h is None else h for h in g)
    return (first / x - second * y[1] / x,)


@primitive(kind="elementwise", dtype="float")
def scaled_log(x: Any, scale: Any) -> Any:
    """A user's op with an operand of fewer axes."""
    return np.log(x) * scale


@scaled_log.vjp
def _(g: Any, _y: Any, x: Any, scale: Any) -> tuple[Any, Any]:
    return g * scale / x, g * ops.log(x)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "a user's op": cube_root,
    "the first of two outputs": lambda x: log_and_inverse(x)[0],
    "the second of two outputs": lambda x: log_and_inverse(x)[1],
    "both outputs": lambda x: log_and_inverse(x)[0] * log_and_inverse(x)[1],
    "an operand of fewer axes": lambda x: scaled_log(x, Tensor(2.0, dtype="float64")),
    "times inf": lambda x: (x * INF) * 0 + x.log(),
    "log of a log": lambda x: (-x.log()).log(),
    "a quotient": lambda x: x / (x * x),
    "a power": lambda x: x**-1.5,
    "an exponential": lambda x: (1 / x).exp() * x.sqrt(),
    "the exponent": lambda x: x ** (1 / x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_element_that_is_not_taken_adds_nothing_to_any_order(name: str) -> None:
    f = FUNCTIONS[name]
    found = []
    for numbers in ([0.0, 0.3, 0.0, 0.6], [0.3, 0.6]):
        x = Tensor(np.array(numbers), requires_grad=True)
        y = minigrad.where(Tensor(np.array(numbers) > 0), f(x), 0.0).sum()
        orders = [minigrad.grad(y, x, retain_graph=True)[0]]
        (g,) = minigrad.grad(y, x, create_graph=True)
        (h,) = minigrad.grad(g.sum(), x, create_graph=True)
        orders += [g, h, *minigrad.grad((g * g + h).sum(), x)]
        found.append([t.tolist() for t in orders])
    for with_edges, alone in zip(*found, strict=True):
        assert with_edges[0::2] == [0.0, 0.0]
        np.testing.assert_allclose(with_edges[1::2], alone, rtol=1e-14, equal_nan=True)


def test_what_is_asked_for_stays_infinite_or_nan() -> None:
    x = Tensor(np.array([0.0, np.nan, 0.0]), requires_grad=True)
    w = Tensor(np.array([1.0, 1.0, 0.0]))
    for f in (cube_root, ops.log, ops.sqrt, lambda x: 1 / x):
        for create_graph in (False, True):
            (g,) = minigrad.grad((f(x) * w).sum(), x, create_graph=create_graph)
            assert np.isinf(g.tolist()[0]) and np.isnan(g.tolist()[1]) and g.tolist()[2] == 0


@pytest.mark.parametrize("f", [cube_root, ops.sqrt, ops.log, lambda x: x.sqrt() * 2])
def test_forward_mode_finds_the_infinite_derivative(f: Any) -> None:
    x = Tensor(np.array([0.0, 1.0]))
    slopes = minigrad.func.jvp(f, (x,), (x.ones_like(),))[1].tolist()
    assert slopes[0] == np.inf and np.isfinite(slopes[1]) and slopes[1] > 0


@pytest.mark.parametrize("compiled", ["numpy", None])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_replay_meets_the_edge_though_the_recorded_calls_did_not(
    name: str, compiled: str | None
) -> None:
    f = FUNCTIONS[name]

    def step(x: Tensor) -> Tensor:
        y = minigrad.where(x > 0, f(x), 0.0).sum()
        return minigrad.grad(y, x)[0]

    replay = minigrad.jit(step, backend=compiled)
    for first in (0.5, 0.25, 0.125, 0.0, 0.0):
        x = Tensor(np.array([first, 0.3, 0.6], np.float32), requires_grad=True)
        wanted = step(x).numpy()
        got = replay(x).numpy()
        np.testing.assert_allclose(got, wanted, rtol=1e-5)
        assert got[0] == 0 or first
