"""Whatever error state of numpy's the caller has set, ops on floats neither warn nor raise."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, functional as F, modes, ops
from minigrad.errors import ConfigError
from minigrad.primitive import primitive
from tests import oracle
from tests.engine.cases import CASES, Case
from tests.engine.table import second_derivative

EDGES = np.array([0.0, -0.0, 1e-30, -1e-38, 1e-45, 3e38, -3e38, np.inf, -np.inf, np.nan, 1.0])


@primitive(kind="elementwise", dtype="float")
def ratio(a: Any, b: Any) -> Any:
    """a / b, as a user's own op."""
    return np.true_divide(a, b)


@ratio.vjp
def _(g: Any, y: Any, _a: Any, b: Any) -> tuple[Any, Any]:
    return g / b, -g * y / b


def through(case: Case, inputs: list[Any]) -> None:
    """Forward, backward and second derivatives of a row."""
    tensors = [Tensor(x, requires_grad=True) if oracle.is_float(x) else x for x in inputs]
    floats = [t for t in tensors if isinstance(t, Tensor)]
    y = case.call(*tensors)
    if y.requires_grad:
        y.backward(Tensor(np.full(y.shape, 1e30), dtype=y.dtype), retain_graph=True)
        if case.second:
            g = Tensor(np.full(y.shape, 1e-30), dtype=y.dtype)
            grads = minigrad.grad(y, floats, g, create_graph=True, materialize_grads=True)
            second_derivative(grads, floats, [np.ones(t.shape, t.dtype) for t in floats])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_op_is_silent_at_the_edges_of_its_dtype(case: Case) -> None:
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for dtype in (np.float32, np.float64):
            inputs = case.inputs(rng, dtype, len(EDGES), case.wide)
            with np.errstate(all="ignore"):
                edges = EDGES.astype(dtype)
            filled = [np.resize(edges, x.shape) if oracle.is_float(x) else x for x in inputs]
            for state in ("raise", "warn"):
                with np.errstate(all=state):
                    through(case, inputs)
                    with contextlib.suppress(ConfigError):  # no probabilities
                        through(case, filled)


@np.errstate(all="raise")
def test_a_product_that_underflows_is_zero() -> None:
    assert (Tensor([1e-30]) * Tensor([1e-30])).tolist() == [0.0]


@np.errstate(all="raise")
def test_the_users_own_op_is_silent_forward_and_backward() -> None:
    a, b = Tensor([1.0, 0.0], requires_grad=True), Tensor([0.0, 0.0], requires_grad=True)
    y = ratio(a, b)
    y.sum().backward(create_graph=True)
    minigrad.grad(b.grad.sum(), b)
    assert y.tolist()[0] == np.inf and a.grad.tolist() == [np.inf, np.inf]


@np.errstate(all="raise")
def test_layers_losses_and_updates_are_silent() -> None:
    model = minigrad.nn.TransformerBlock(8, 2)
    x = Tensor(np.full((1, 4, 8), 1e-30), dtype="float32", requires_grad=True)
    optimizer = minigrad.optim.AdamW(model.parameters(), lr=1e-30)
    for _ in range(2):
        F.cross_entropy(model(x)[0], np.array([0, 1, 2, 3])).backward()
        optimizer.step()
    Tensor([1e-300, 1e300]), Tensor([1e300], dtype="float16"), Tensor.randn(100) * 1e-44


def test_integers_divided_by_zero_warn_as_numpy_does() -> None:
    one, zero = Tensor([1, 2]), Tensor([0, 1])
    for op in (ops.floor_div, ops.mod):
        with pytest.warns(RuntimeWarning, match="divide by zero"):
            assert op(one, zero).tolist()[0] == 0
        with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
            op(one, zero)
        with np.errstate(divide="raise"):
            op(one.float(), zero)


def test_the_warning_names_the_users_line_and_comes_once_per_line() -> None:
    one = Tensor([1, 2])
    uses = (lambda: one // 0, lambda: one % 0, lambda: one.div(0, rounding_mode="trunc"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for use in uses:
            use()
            use()
    assert len(caught) >= 1 and {w.filename for w in caught} == {__file__}
    assert all(w.lineno == uses[0].__code__.co_firstlineno for w in caught)


def test_the_callers_error_state_is_as_it_was_after_an_op_and_after_an_error() -> None:
    with np.errstate(divide="raise", over="warn", under="print", invalid="call", call=print):
        before = np.geterr()
        with minigrad.debug(nan=False, inf=False):
            (Tensor([1.0], requires_grad=True) / 0.0).sum().backward()
        with pytest.raises(minigrad.errors.ShapeError):
            Tensor([1.0, 2.0]) + Tensor([1.0, 2.0, 3.0])
        assert np.geterr() == before


def test_tasks_keep_their_own_error_state() -> None:
    async def divide(state: str) -> str:
        with np.errstate(divide=state):
            for _ in range(3):
                Tensor([1.0]) / 0.0
                await asyncio.sleep(0)
            return np.geterr()["divide"]

    async def both() -> list[str]:
        return await asyncio.gather(divide("raise"), divide("warn"))

    assert asyncio.run(both()) == ["raise", "warn"]


def test_a_numpy_that_keeps_its_error_state_elsewhere_is_silenced_too() -> None:
    before, state = np.geterr(), modes._ErrorState()
    token = state.set({"all": "ignore"})
    assert set(np.geterr().values()) == {"ignore"}
    state.reset(token)
    assert np.geterr() == before
