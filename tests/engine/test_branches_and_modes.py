"""What stays out of a gradient (the branch not taken, the flat row); gradients switched off."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, no_grad, ops
from minigrad.func import hessian
from minigrad.primitive import Primitive

BRANCHES: list[Callable[[Tensor], Tensor]] = [
    lambda x: x * x.log(),
    lambda x: (1 / x) ** 2,
    lambda x: (1 / x).square(),
    lambda x: (1 / x) * (1 / x),
    lambda x: 1 / x,
    lambda x: x.reciprocal(),
    lambda x: x.rsqrt(),
    lambda x: x.sqrt(),
    lambda x: (1 / x).exp(),
    lambda x: x.log(),
    lambda x: x**0.5,
    lambda x: (1 / x).sin(),
    lambda x: (1 / x).cos(),
    lambda x: x.log().square(),
]


@pytest.mark.parametrize("branch", BRANCHES)
def test_the_branch_that_where_does_not_take_leaves_no_nan_to_second_order(
    branch: Callable[[Tensor], Tensor],
) -> None:
    found = []
    for edge in ([0.0], []):  # beside the edge, and without it
        x = Tensor(np.array([*edge, 0.5, 2.0]), requires_grad=True)
        with np.errstate(all="ignore"):
            (g,) = minigrad.grad(minigrad.where(x > 0, branch(x), 0.0).sum(), x, create_graph=True)
            (h,) = minigrad.grad(g.sum(), x)
        found.append([g.tolist(), h.tolist()])
    assert found[0] == [[0.0, *row] for row in found[1]]


def elementwise_functions() -> Iterator[tuple[str, Callable[[Tensor], Any]]]:
    """Every elementwise op that has a gradient, as functions of one tensor: each operand of it in
    turn with 2 for the others, and all at once.
    """
    for name, op in vars(ops).items():
        is_elementwise = (
            isinstance(op, Primitive)
            and op.kind == "elementwise"
            and op.rule
            and op not in (ops.cast, ops.mask_cotangent)
        )
        is_activation = (
            not isinstance(op, Primitive)
            and getattr(op, "__module__", "") == "minigrad.ops.calculus"
        )
        if not (is_elementwise or is_activation):
            continue
        count = sum(
            p.kind is p.POSITIONAL_OR_KEYWORD and (p.default is p.empty)
            for p in inspect.signature(op).parameters.values()
        )
        if op is ops.where:
            yield name, lambda x: ops.where(np.array([True]), x, x * x)
            continue
        for i in range(count):
            yield (
                f"{name} {i}",
                lambda x, op=op, i=i, n=count: op(*(x if j == i else 2.0 for j in range(n))),
            )
        if count > 1:
            yield f"{name} all", lambda x, op=op, n=count: op(*(x, x * x, 1 / x)[:n])


FUNCTIONS = dict(elementwise_functions())


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    "before", [lambda x: x, lambda x: 1 / x, lambda x: -x.log()], ids=["x", "1 over x", "-log x"]
)
@np.errstate(all="ignore")
def test_no_elementwise_op_makes_a_nan_of_the_branch_that_where_does_not_take(
    name: str, before: Callable[[Tensor], Tensor]
) -> None:
    def derivatives(numbers: list[float], create_graph: bool) -> list[Any]:
        x = Tensor(np.array(numbers), requires_grad=True)
        y = FUNCTIONS[name](before(x))
        y = minigrad.where(
            Tensor(np.array(numbers) == 0.5), y[0] if isinstance(y, tuple) else y, 0.0
        )
        (g,) = minigrad.grad(y.sum(), x, create_graph=create_graph)
        return [
            g.numpy(),
            *(h.numpy() for h in ((g * g).sum().gradient(x) if g.requires_grad else ())),
        ]

    wanted = [row[0] for row in derivatives([0.5], True)]
    for bad in (0.0, 1.0, -1.0, 1e200, np.inf, -np.inf, np.nan):
        for create_graph in (False, True):
            for row, alone in zip(derivatives([bad, 0.5], create_graph), wanted, strict=False):
                assert row[0] == 0 and np.allclose(row[1], alone, rtol=1e-14, equal_nan=True), bad


def test_a_nan_that_a_wanted_gradient_meets_is_not_hidden() -> None:
    x = Tensor(np.array([0.0, np.nan]), requires_grad=True)
    y = Tensor(np.array([np.inf, 1.0]), requires_grad=True)
    with np.errstate(all="ignore"):
        (x * y).sum().backward()
    assert (
        x.grad.tolist() == [np.inf, 1.0]
        and y.grad.tolist()[0] == 0.0
        and np.isnan(y.grad.tolist()[1])
    )
    for name in ("tanh", "sigmoid", "abs", "atan"):
        (g,) = getattr(x, name)().sum().gradient(x)
        assert np.isfinite(g.numpy()[0]) and np.isnan(g.numpy()[1])


@np.errstate(all="ignore")
def test_0_times_nan_is_0_in_a_guarded_product_and_everything_else_is_what_it_is() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = (
            rng.choice([0.0, 0.0, 1.0, -2.0, np.inf, -np.inf, np.nan], size=shape)
            for shape in ((2, 3, 2), (2, 4))
        )
        want = np.where((a[..., None] == 0) | (b == 0), 0, a[..., None] * b)
        np.testing.assert_array_equal(ops.guard_matmul(a, b), want.sum(-2))


def test_the_softmax_of_a_row_of_nan_that_nobody_asks_for_has_gradient_0_to_second_order() -> None:
    x = Tensor(np.array([[np.nan, 1.0], [2.0, 1.0]]), requires_grad=True)
    (g,) = minigrad.grad(
        (x.softmax(-1)[1] * Tensor(np.array([1.0, 3.0]))).sum(), x, create_graph=True
    )
    (h,) = minigrad.grad((g * g).sum(), x)
    for found in (g.numpy(), h.numpy()):
        assert found[0].tolist() == [0, 0] and np.isfinite(found[1]).all() and found[1].any()


def test_the_standard_deviation_of_equal_numbers_has_gradient_0() -> None:
    x = Tensor(np.array([[2.0, 2.0, 2.0], [1.0, 2.0, 4.0]]), requires_grad=True)
    (g,) = minigrad.grad(x.std(1).sum(), x, create_graph=True)
    assert (
        g.numpy()[0].tolist() == [0, 0, 0]
        and np.isfinite(g.numpy()).all()
        and (g.numpy()[1] != 0).all()
    )
    assert np.isfinite(minigrad.grad((g * g).sum(), x)[0].numpy()).all()
    assert np.isnan(Tensor([1.0]).std().item())


def test_the_hessian_of_logsumexp_is_symmetric_where_one_term_outweighs_the_rest() -> None:
    for row in ([17.0, 0.0], [40.0, 0.0, 39.0], [0.0, 0.0]):
        h = hessian(lambda x: x.logsumexp(0))(Tensor(np.array(row, np.float32))).numpy()
        p = np.exp(row) / np.exp(row).sum()
        np.testing.assert_allclose(h, h.T, rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(h, np.diag(p) - np.outer(p, p), atol=1e-6)
    np.testing.assert_allclose(
        hessian(lambda x: x.logsumexp(0))(Tensor([17.0, 0.0])).numpy()[0, 1], -4.1399e-8, rtol=1e-3
    )


def test_binary_crossentropy_has_pytorch_s_slope_at_0_and_1() -> None:
    p, t = (
        Tensor(np.array([0.0, 1.0, 0.0, 1.0, 0.25]), requires_grad=True),
        Tensor(np.array([1.0, 0.0, 0.0, 1.0, 1.0]), requires_grad=True),
    )
    loss = ops.binary_cross_entropy(p, t, reduction="none")
    assert loss.numpy().tolist() == [100, 100, 0, 0, -np.log(0.25)]
    loss.sum().backward()
    np.testing.assert_allclose(p.grad.numpy(), [-1e12, 1e12, 0, 0, -4], rtol=1e-15)
    np.testing.assert_allclose(t.grad.numpy(), [100, -100, 100, -100, np.log(3)], rtol=1e-15)


# --- modes

x = Tensor([1.0, 2.0], requires_grad=True)


def taped() -> bool:
    return (x * 2).requires_grad


def test_set_grad_enabled_works_from_the_call_on_and_as_a_context_until_its_end() -> None:
    minigrad.set_grad_enabled(False)
    try:
        assert not taped() and not minigrad.is_grad_enabled()
    finally:
        minigrad.set_grad_enabled(True)
    assert taped()
    context = minigrad.set_grad_enabled(False)
    assert not taped()
    with context:
        assert not taped()
    assert taped()
    with context:  # again
        assert not taped()
    assert taped()
    with pytest.raises(KeyError), minigrad.set_grad_enabled(False):
        raise KeyError
    assert taped()


WAYS = [no_grad, lambda f: no_grad()(f), lambda f: minigrad.set_grad_enabled(False)(f)]


@pytest.mark.parametrize("off", WAYS)
def test_a_decorated_function_has_its_mode_and_nobody_else(off: Any) -> None:
    decorated = off(taped)
    assert decorated.__name__ == "taped"
    assert taped() and not decorated() and not decorated() and taped()


@pytest.mark.parametrize("off", WAYS)
def test_a_decorated_generator_has_its_mode_at_each_step_and_its_user_keeps_his(off: Any) -> None:
    log: list[object] = []

    @off
    def steps(count: int) -> Iterator[bool]:
        try:
            for _ in range(count):
                try:
                    log.append((yield taped()))
                except KeyError:
                    log.append("caught")
        finally:
            log.append(taped())
        return "end"

    generator = steps(3)
    assert next(generator) is False and taped()
    assert generator.send("sent") is False and generator.throw(KeyError()) is False and taped()
    with pytest.raises(StopIteration) as end:
        next(generator)
    assert end.value.value == "end" and log == ["sent", "caught", None, False]
    closed = steps(2)
    next(closed)
    closed.close()
    assert log[-1] is False and taped()
    assert minigrad.enable_grad(taped)() and no_grad(minigrad.enable_grad(taped))()
