"""A tensor given as several operands has the sum of the gradients that separate copies have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, functional as F, ops
from minigrad.func import checkpoint
from minigrad.primitive import primitive
from tests import oracle
from tests.engine.cases import CASES, Case
from tests.engine.test_rules import arrays_of


@primitive(kind="elementwise", dtype="float")
def weighted(a: Any, b: Any) -> Any:
    """a * a * b, as a user's own op."""
    return a * a * b


@weighted.vjp
def _(g: Any, _y: Any, a: Any, b: Any) -> tuple[Any, Any]:
    return 2 * g * a * b, g * a * a


SQUARE = np.linspace(0.5, 1.7, 16).reshape(4, 4)
FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mul": lambda a, b: a * b,
    "a user's op": weighted,
    "cat": lambda a, b: ops.cat(a, b, axis=0) ** 2,
    "stack": lambda a, b: a.stack(b).exp(),
    "where": lambda a, b: ops.where(a > 1, a * a, b),
    "einsum": lambda a, b: minigrad.einsum("ij,jk->ik", a, b),
    "matmul": lambda a, b: a @ b.T,
    "attention": lambda a, b: F.scaled_dot_product_attention(a[None], b[None], b[None] * a),
    "lerp": lambda a, b: ops.lerp(a, b, b),
    "checkpoint": lambda a, b: checkpoint(lambda s, t: s * t.exp(), a, b),
    "two checkpoints": lambda a, b: checkpoint(
        lambda s, t: checkpoint(lambda u, v: u * v, s, t) * s, a, b
    ),
    "checkpoint of a closed-over tensor": lambda a, b: checkpoint(lambda s: s * a.sin(), b),
    "scatter": lambda a, b: a.scatter(0, np.array([[1, 2, 0, 3]]), b) ** 2,
    "jvp": lambda a, b: minigrad.func.jvp(lambda s: s**3, (a,), (b,))[1],
    "vjp": lambda a, b: minigrad.func.vjp(lambda s: s**3, a)[1](b)[0],
    "grad": lambda a, b: minigrad.func.grad(lambda s, t: (s * s * t).sum(), (0, 1))(a, b)[0],
}


def shared_and_separate(f: Callable[..., Tensor], x: Any, count: int) -> tuple[Any, Any]:
    """The gradient of f(x, x, ...), and the sum of the gradients of `count` copies."""
    one = Tensor(x, requires_grad=True)
    copies = [Tensor(x, requires_grad=True) for _ in range(count)]
    for operands in ((one,) * count, copies):
        y = f(*operands)
        weights = np.random.default_rng(1).uniform(1, 2, y.shape)
        y.backward(Tensor(weights, dtype=y.dtype))
    return one.grad.numpy(), sum(t.grad.numpy() for t in copies if t.grad is not None)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_one_tensor_given_twice(name: str) -> None:
    f = FUNCTIONS[name]
    wrapped = (f, lambda a, b: checkpoint(f, a, b), lambda a, b: f(a * 1, b * 1))
    for g in (*wrapped, lambda a, b: (c := a * 2, f(c, c * b))[1]):
        shared, separate = shared_and_separate(g, SQUARE, 2)
        np.testing.assert_allclose(shared, separate, rtol=1e-14)


def alike(case: Case) -> bool:
    return len(case.shapes) > 1 and len(set(case.shapes)) == 1


@pytest.mark.parametrize(
    "case", [case for case in CASES if alike(case)], ids=lambda case: case.name
)
def test_an_op_of_one_tensor_given_as_every_operand(case: Case) -> None:
    arrays = arrays_of(case)
    count = len(case.shapes)
    x = np.abs(arrays[count - 1]) % 0.9 + 0.05  # inside of every domain
    if not case.call(*(Tensor(x, requires_grad=True),) * count, *arrays[count:]).requires_grad:
        return
    for wrap in (lambda f: f, lambda f: lambda *xs: checkpoint(f, *xs)):
        f = wrap(lambda *xs: case.call(*xs, *arrays[count:]))
        shared, separate = shared_and_separate(f, x, count)
        np.testing.assert_allclose(shared, separate, rtol=1e-12, atol=1e-13)
    assert oracle.is_float(x)


def test_the_nested_checkpoint_of_a_square_times_x() -> None:
    x = Tensor([3.0], requires_grad=True)
    checkpoint(lambda a, b: checkpoint(lambda c, d: c * d, a, b) + a, x, x).sum().backward()
    assert x.grad.tolist() == [7.0]
