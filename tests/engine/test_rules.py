"""What holds for the backward rule of every op: facts that need no oracle of numbers, only of
algebra.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, ops
from tests import oracle
from tests.engine.cases import CASES, UNARY, Case
from tests.engine.table import second_derivative

INSIDE_RULES = {
    "embedding_grad"
}  # ops that rules alone call: they see cotangents, which are never 16-bit floats
every_op = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def arrays_of(case: Case, dtype: Any = np.float64, wide: float = 0) -> list[Any]:
    """The row's inputs, the same each time."""
    return case.inputs(np.random.default_rng(zlib.crc32(case.name.encode())), dtype, 8, wide)


def tensors_of(arrays: list[Any]) -> list[Any]:
    return [Tensor(x, requires_grad=True) if oracle.is_float(x) else x for x in arrays]


def floats_of(operands: list[Any]) -> list[Tensor]:
    return [t for t in operands if isinstance(t, Tensor)]


def cotangent_of(y: Tensor) -> Any:
    return np.random.default_rng(1).uniform(-2, 2, y.shape).astype(y.dtype)


def gradients(case: Case, arrays: list[Any], scale: float = 1.0) -> list[Any]:
    """The gradients of the row for its usual cotangent times `scale`, as arrays."""
    operands = tensors_of(arrays)
    y = case.call(*operands)
    if not y.requires_grad:
        return []
    return [
        g.numpy()
        for g in minigrad.grad(
            y,
            floats_of(operands),
            Tensor(cotangent_of(y) * y.dtype.type(scale)),
            materialize_grads=True,
        )
    ]


@every_op
def test_a_cotangent_of_zero_gives_zero_even_where_the_derivative_is_infinite(case: Case) -> None:
    for g in gradients(case, arrays_of(case, wide=case.wide), scale=0.0):
        assert np.array_equal(g, np.zeros_like(g))


@every_op
def test_a_gradient_is_linear_in_the_cotangent_to_the_bit_for_powers_of_two(case: Case) -> None:
    arrays = arrays_of(case)
    for one, four in zip(gradients(case, arrays), gradients(case, arrays, scale=-4.0), strict=True):
        assert np.array_equal(-4 * one, four)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name not in INSIDE_RULES], ids=lambda case: case.name
)
def test_a_gradient_has_the_dtype_of_its_tensor(case: Case, dtype: str) -> None:
    operands = [
        t if not isinstance(t, Tensor) else Tensor(t.numpy(), dtype=dtype, requires_grad=True)
        for t in tensors_of(arrays_of(case))
    ]
    y = case.call(*operands)
    if case.name != "cast":
        assert y.dtype == minigrad.dtypes.as_dtype(dtype)
    if y.requires_grad:
        y.backward(Tensor(np.ones(y.shape), dtype=y.dtype))
        assert [t.grad.dtype for t in floats_of(operands) if t.grad is not None] == [
            t.dtype for t in floats_of(operands) if t.grad is not None
        ]
        assert all(t.grad.shape == t.shape for t in floats_of(operands) if t.grad is not None)


def disguises(x: Any) -> list[Any]:
    """The same values with other strides, in other memory orders, and read-only."""
    every_second = np.full((*x.shape, 2), np.nan, x.dtype)
    every_second[..., 0] = x
    turn = (slice(None, None, -1),) * x.ndim
    backwards = x[turn].copy()[turn]
    locked = x.copy()
    locked.flags.writeable = False
    return [x.copy(order="F"), every_second[..., 0], backwards, locked, np.broadcast_to(x, x.shape)]


@every_op
def test_results_do_not_depend_on_the_memory_layout_of_the_inputs(case: Case) -> None:
    arrays = arrays_of(case)
    plain_value, plain = case.call(*tensors_of(arrays)).numpy(), gradients(case, arrays)
    places = [i for i, x in enumerate(arrays) if oracle.is_float(x)]
    for choice in range(5):
        other = list(arrays)
        for i in places:
            other[i] = disguises(arrays[i])[choice]
        operands = [Tensor._wrap(x) if i in places else x for i, x in enumerate(other)]
        budget = 64 * np.finfo(float).eps
        np.testing.assert_allclose(
            case.call(*operands).numpy(), plain_value, rtol=budget, atol=budget
        )
        for t in floats_of(operands):
            t.requires_grad_()
        y = case.call(*operands)
        if y.requires_grad:
            g = Tensor._wrap(disguises(cotangent_of(y))[choice])
            for got, wanted in zip(
                minigrad.grad(y, floats_of(operands), g, materialize_grads=True), plain, strict=True
            ):
                np.testing.assert_allclose(
                    got.numpy(),
                    wanted,
                    rtol=budget,
                    atol=budget * np.max(np.abs(wanted), initial=1),
                )


@every_op
def test_no_op_writes_to_its_inputs_or_to_the_cotangent(case: Case) -> None:
    arrays = arrays_of(case)
    operands = [Tensor._wrap(x) if oracle.is_float(x) else x for x in arrays]
    before = [np.copy(x) for x in arrays if isinstance(x, np.ndarray)]
    for t in floats_of(operands):
        t.requires_grad_()
    y = case.call(*operands)
    if y.requires_grad:
        value, g = y.numpy().copy(), cotangent_of(y)
        cotangent = Tensor._wrap(g.copy())
        grads = minigrad.grad(
            y, floats_of(operands), cotangent, retain_graph=True, materialize_grads=True
        )
        again = minigrad.grad(y, floats_of(operands), cotangent, materialize_grads=True)
        assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(grads, again, strict=True))
        assert np.array_equal(cotangent.numpy(), g) and np.array_equal(y.numpy(), value)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(before, [x for x in arrays if isinstance(x, np.ndarray)], strict=True)
    )


def jvp(case: Case, arrays: list[Any], directions: list[Any]) -> Any:
    """J v by the oracle's dual numbers, with one direction for all inputs: forward mode,
    independent of every rule. As floats.
    """
    moved = iter(directions)
    duals = [oracle.along(x, next(moved)) if oracle.is_float(x) else x for x in arrays]
    return oracle.slopes(case.formula(*duals))


@every_op
def test_forward_and_backward_mode_agree(case: Case) -> None:
    """<u, J v> = <J^T u, v>, J v by dual numbers."""
    arrays, rng = arrays_of(case), np.random.default_rng(2)
    directions = [rng.uniform(-1, 1, x.shape) for x in arrays if oracle.is_float(x)]
    operands = tensors_of(arrays)
    y = case.call(*operands)
    u = cotangent_of(y)
    grads = gradients(case, arrays) or [np.zeros_like(v) for v in directions]
    left, right = (
        np.sum(u * jvp(case, arrays, directions)),
        sum(np.sum(g * v) for g, v in zip(grads, directions, strict=True)),
    )
    terms = sum(np.sum(np.abs(g * v)) for g, v in zip(grads, directions, strict=True))
    assert abs(left - right) <= 1e-13 * (terms + abs(left))


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.second], ids=lambda case: case.name
)
def test_second_derivatives_are_symmetric(case: Case) -> None:
    """<u, H v> = <v, H u>."""
    arrays, rng = arrays_of(case), np.random.default_rng(3)

    def times(directions: list[Any]) -> list[Any]:
        operands = tensors_of(arrays)
        y = case.call(*operands)
        if not y.requires_grad:
            return [np.zeros_like(v) for v in directions]
        floats = floats_of(operands)
        grads = minigrad.grad(
            y, floats, Tensor(cotangent_of(y)), create_graph=True, materialize_grads=True
        )
        return [h.numpy() for h in second_derivative(grads, floats, directions)]

    u, v = ([rng.uniform(-1, 1, x.shape) for x in arrays if oracle.is_float(x)] for _ in range(2))
    terms = (
        [np.sum(a * b) for a, b in zip(u, times(v), strict=True)],
        [np.sum(a * b) for a, b in zip(v, times(u), strict=True)],
    )
    size = sum(np.sum(np.abs(a * b)) for a, b in zip(u, times(v), strict=True))
    assert abs(sum(terms[0]) - sum(terms[1])) <= 1e-12 * (size + abs(sum(terms[0])))


ANALYTIC = [
    case
    for name, case in UNARY.items()
    if ("D->D" in getattr(case.op.forward, "types", ()) and name != "sign")
    or name in ("reciprocal", "rsqrt", "square")
]


@pytest.mark.parametrize("case", ANALYTIC, ids=lambda case: case.name)
def test_analytic_ops_agree_with_the_complex_step(case: Case) -> None:
    """f'(x) = Im f(x + ih) / h has no cancellation: at h = 1e-40 it is right to the last digits."""
    x = np.random.default_rng(4).uniform(0.05, 0.95, 50) + max(case.domain[0], 0)
    t = Tensor(x, requires_grad=True)
    case.op(t).sum().backward()
    step = case.op.forward(x + 1e-40j).imag / 1e-40
    np.testing.assert_allclose(t.grad.numpy(), step, rtol=8 * np.finfo(float).eps)


@pytest.mark.parametrize("p", [0.0, 0.25, 1.0])
def test_dropout_sends_back_what_it_let_through(p: float) -> None:
    """y = x m and dx = g m for one and the same m, whose elements are 0 or 1 / (1 - p)."""
    x, g = (
        Tensor(np.full(1000, 3.0), requires_grad=True),
        np.random.default_rng(5).normal(size=1000),
    )
    y, _ = ops.dropout(x, minigrad.Generator(1).state, p=p)
    mask = y.numpy() / 3.0
    assert set(np.unique(mask)) <= {0.0, 1 / (1 - p) if p < 1 else 0.0}
    dx = minigrad.grad(y, x, Tensor(g), create_graph=True)[0]
    assert np.array_equal(dx.numpy(), g * mask)
    assert not minigrad.grad(dx.sum(), x)[0].numpy().any()  # the mask does not depend on x
