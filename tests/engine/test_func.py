"""minigrad.func: derivatives as functions, and checkpointing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import minigrad
from minigrad import Tensor, func, functional as F
from minigrad.errors import ConfigError, DTypeError, GradientError, ShapeError, StaleValueError
from minigrad.func import checkpoint, grad, hessian, hvp, jacobian, jacrev, jvp, value_and_grad, vjp

RNG = np.random.default_rng(0)
A = RNG.standard_normal((3, 3))


def tensor(*shape: int, seed: int = 0, requires_grad: bool = False) -> Tensor:
    return Tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=requires_grad)


def quadratic(x: Tensor) -> Tensor:
    """x^T A x: gradient (A + A^T) x, Hessian A + A^T."""
    return (x * (Tensor(A) @ x)).sum()


def close(a: Tensor, b: object) -> None:
    np.testing.assert_allclose(
        a.numpy(), b.numpy() if isinstance(b, Tensor) else b, rtol=1e-12, atol=1e-12
    )


def test_grad_and_value_and_grad_give_the_derivative_and_leave_grad_alone() -> None:
    x = tensor(3, requires_grad=True)
    value, g = value_and_grad(quadratic)(x)
    close(value, x.numpy() @ A @ x.numpy())
    close(g, (A + A.T) @ x.numpy())
    close(grad(quadratic)(np.ones(3)), (A + A.T).sum(1))
    assert x.grad is None


def test_grad_takes_several_arguments_and_an_auxiliary_result() -> None:
    x, y = tensor(3), tensor(3, seed=1)
    gx, gy = grad(lambda a, b, k: (a * b).sum() * k, argnums=(0, 1))(x, y, 2.0)
    close(gx, 2 * y.numpy())
    close(gy, 2 * x.numpy())
    g, aux = grad(lambda a: ((a * a).sum(), "aux"), has_aux=True)(x)
    (_value, again), _ = value_and_grad(lambda a: ((a * a).sum(), "aux"), has_aux=True)(x)
    assert aux == again == "aux"
    close(g, 2 * x.numpy())
    close(grad(lambda a, b: (a * b).sum(), argnums=-1)(x, y), x.numpy())


def test_results_are_free_of_the_graph_unless_something_outside_is_differentiated() -> None:
    x, w = tensor(3), tensor(3, seed=1, requires_grad=True)
    value, g = value_and_grad(lambda a: (a * a).sum())(x)
    assert not value.requires_grad and not g.requires_grad
    value, g = value_and_grad(lambda a: (a * a * w).sum())(x)
    assert value.requires_grad and g.requires_grad
    g.sum().backward()
    close(w.grad, 2 * x.numpy())
    with minigrad.no_grad():
        assert not grad(lambda a: (a * a * w).sum())(x).requires_grad


def test_derivatives_nest_to_any_order() -> None:
    f = lambda x: x**5  # noqa: E731
    x = Tensor(np.float64(1.5))
    for order, wanted in enumerate(
        [1.5**5, 5 * 1.5**4, 20 * 1.5**3, 60 * 1.5**2, 120 * 1.5, 120.0, 0.0]
    ):
        g = f
        for _ in range(order):
            g = grad(g)
        assert float(g(x)) == pytest.approx(wanted, rel=1e-14)
    mixed = grad(lambda y: grad(lambda x: x * x * y)(Tensor(np.float64(3.0))))(
        Tensor(np.float64(2.0))
    )
    assert float(mixed) == 6.0


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**20))
def test_jvp_and_vjp_are_each_other_s_transpose(seed: int) -> None:
    f = lambda a, b: (a @ b).tanh().softmax(-1) * a.exp().sum()  # noqa: E731
    a, b, ta, tb, u = (tensor(2, 2, seed=seed + i) for i in range(5))
    y, forward = jvp(f, (a, b), (ta, tb))
    again, pull = vjp(f, a, b)
    ga, gb = pull(u)
    close(y, again)
    left, right = (forward * u).sum().item(), ((ga * ta).sum() + (gb * tb).sum()).item()
    assert left == pytest.approx(right, rel=1e-10, abs=1e-10)


def test_jvp_is_exact_along_a_direction_and_vjp_may_be_called_again() -> None:
    x, t = tensor(4), tensor(4, seed=1)
    y, forward = jvp(lambda a: a.sin(), (x,), (t,))
    close(y, np.sin(x.numpy()))
    close(forward, np.cos(x.numpy()) * t.numpy())
    _, pull = vjp(lambda a: a.sin(), x)
    close(pull(t)[0], pull(t)[0])
    close(jvp(lambda a: a.zeros_like(), (x,), (t,))[1], np.zeros(4))
    close(jvp(lambda a: (a * 2).relu(), (Tensor([-1.0, 2.0]),), (Tensor([1.0, 1.0]),))[1], [0, 2])


@pytest.mark.parametrize("rows", [2, 5])
def test_jacobians_by_rows_and_by_columns_are_the_matrix(rows: int) -> None:
    m, x = tensor(rows, 3, seed=2), tensor(3)
    f = lambda a: (m @ a).exp()  # noqa: E731
    wanted = np.exp(m.numpy() @ x.numpy())[:, None] * m.numpy()
    close(jacrev(f)(x), wanted)
    close(jacobian(f)(x), wanted)
    first, second = jacrev(lambda a, b: a * b, argnums=(0, 1))(x, x * 2)
    close(first, np.diag(2 * x.numpy()))
    close(second, np.diag(x.numpy()))
    assert jacobian(lambda a: a.sum())(tensor(2, 3)).shape == (2, 3) and jacrev(lambda a: a[:0])(
        x
    ).shape == (0, 3)


def test_hessian_and_hvp_are_those_of_a_quadratic_form() -> None:
    x, t = tensor(3), tensor(3, seed=1)
    close(hessian(quadratic)(x), A + A.T)
    close(hvp(quadratic, x, t), (A + A.T) @ t.numpy())
    ha, hb = hvp(lambda a, b: (a * a * b).sum(), (x, t), (t, x))
    close(ha, 2 * t.numpy() * t.numpy() + 2 * x.numpy() * x.numpy())
    close(hb, 2 * x.numpy() * t.numpy())
    close(hvp(lambda a: (a * 3).sum(), x, t), np.zeros(3))


def test_transforms_refuse_what_they_cannot_differentiate() -> None:
    x = tensor(3)
    with pytest.raises(ShapeError, match="jacrev"):
        grad(lambda a: a * 2)(x)
    with pytest.raises(DTypeError, match="float"):
        grad(lambda a: a.sum())(Tensor([1, 2]))
    with pytest.raises(DTypeError, match="gave float"):
        grad(lambda a: 1.0)(x)
    with pytest.raises(ConfigError, match="argnums"):
        grad(lambda a: a.sum(), argnums=1)(x)
    with pytest.raises(ConfigError, match="has_aux"):
        grad(lambda a: a.sum(), has_aux=True)(x)
    with pytest.raises(ShapeError, match="direction"):
        jvp(quadratic, (x,), (tensor(2),))
    with pytest.raises(ShapeError):
        jvp(quadratic, (x,), ())
    for primals, tangents, named in ((x, (x,), "primals"), ((x,), x, "tangents")):
        with pytest.raises(ConfigError, match=f"jvp: {named} must be a tuple of tensors, got"):
            jvp(quadratic, primals, tangents)
    with pytest.raises(ShapeError):
        hvp(quadratic, (x,), ())


# --- checkpoint


def block(w: Tensor, p: float = 0.5) -> object:
    return lambda x, scale=1.0: F.dropout((x @ w).tanh(), p) * scale + x


def test_a_checkpointed_part_gives_the_same_values_and_gradients_to_the_bit() -> None:
    def run(wrap: object) -> list[np.ndarray]:
        minigrad.manual_seed(5)
        x, w, v = (
            tensor(6, 4, requires_grad=True),
            tensor(4, 4, seed=1, requires_grad=True),
            tensor(4, 4, seed=2, requires_grad=True),
        )
        h = wrap(block(v), wrap(block(w), x * 1) * 2)
        loss = (h * h).sum() + F.dropout(h, 0.3).sum()
        loss.backward()
        return [
            loss.numpy(),
            x.grad.numpy(),
            w.grad.numpy(),
            v.grad.numpy(),
            np.array(minigrad.random.default_generator.get_state()),
        ]

    for plain, again in zip(run(lambda f, *xs: f(*xs)), run(checkpoint), strict=True):
        assert np.array_equal(plain, again)


def test_a_checkpointed_part_keeps_nothing_of_its_inside() -> None:
    def f(x: Tensor) -> Tensor:
        inside = [x]
        for _ in range(10):
            inside.append(inside[-1].tanh())
        return inside[-1]

    x = tensor(5, requires_grad=True)
    y = checkpoint(f, x)
    assert (
        y.grad_fn.operands == [x]
        and "checkpoint(f)" in repr(y.grad_fn)
        and "test_func.py" in repr(y.grad_fn)
    )
    y.sum().backward()
    plain = tensor(5, requires_grad=True)
    f(plain).sum().backward()
    assert np.array_equal(x.grad.numpy(), plain.grad.numpy())


def test_a_checkpoint_reaches_computed_tensors_that_f_closes_over_each_once() -> None:
    def run(wrap: object) -> tuple[np.ndarray, np.ndarray]:
        x, w = tensor(3, requires_grad=True), tensor(3, seed=1, requires_grad=True)
        a = x * w
        b = a.exp()  # made of a: what flows to a through b must not be counted twice
        y = wrap(lambda t: t * a * b + t * x, a)
        (y * y).sum().backward()
        return x.grad.numpy(), w.grad.numpy()

    for plain, again in zip(run(lambda f, *xs: f(*xs)), run(checkpoint), strict=True):
        np.testing.assert_allclose(again, plain, rtol=1e-14)


def test_checkpoints_nest_give_tuples_and_have_second_derivatives() -> None:
    x = tensor(3)
    inner = lambda t: checkpoint(lambda s: (s * s * s, s.sin()), t)  # noqa: E731
    f = lambda t: sum(y.sum() for y in checkpoint(inner, t * 1))  # noqa: E731
    close(grad(f)(x), 3 * x.numpy() ** 2 + np.cos(x.numpy()))
    close(hessian(f)(x), np.diag(6 * x.numpy() - np.sin(x.numpy())))
    only_one = checkpoint(lambda s: (s * 2, s * 3), y := tensor(3, requires_grad=True))[1]
    only_one.sum().backward()
    close(y.grad, np.full(3, 3.0))


def test_a_checkpoint_refuses_a_changed_operand_and_a_strange_result() -> None:
    x, scale = tensor(3, requires_grad=True), tensor(3, seed=1)
    y = checkpoint(lambda t, s: t * s, x, scale)
    scale.assign(0.0)
    with pytest.raises(StaleValueError, match="checkpoint"):
        y.sum().backward()
    with pytest.raises(DTypeError):
        checkpoint(lambda t: 1.0, x)
    with minigrad.no_grad():
        assert not checkpoint(lambda t: t * 2, x).requires_grad
    assert not checkpoint(lambda t: t * 2, scale).requires_grad
    assert issubclass(StaleValueError, GradientError)


def test_the_module_lists_its_functions() -> None:
    assert func.__all__ == sorted(func.__all__)
