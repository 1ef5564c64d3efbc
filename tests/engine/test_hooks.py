"""Tensor.register_hook and retain_grad: PyTorch's meaning, eager, differentiable and compiled."""

from __future__ import annotations

import contextlib
import gc
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import Tensor
from minigrad.errors import CaptureError, GradientError, NoGradientError, NoGradModeError
from minigrad.func import checkpoint
from minigrad.primitive import primitive


@primitive(kind="elementwise", outputs=2)
def twice_and_thrice(x: Any) -> Any:
    """An op of two outputs."""
    return x * 2, x * 3


@twice_and_thrice.vjp
def _(g: Any, _y: Any, _x: Any) -> tuple[Any]:
    first, second = (0 if h is None else h for h in g)
    return (first * 2 + second * 3,)


def leaf(*values: float) -> Tensor:
    return Tensor(np.array(values), requires_grad=True)


@pytest.fixture(params=[False, True], ids=["on arrays", "on tensors"])
def mode(request: pytest.FixtureRequest) -> Callable[[], Any]:
    return minigrad.profile if request.param else contextlib.nullcontext


def test_a_leafs_hook_sees_the_sum_over_all_uses_once_and_replaces_it(mode: Any) -> None:
    x, seen = leaf(1.0, 2.0), []
    x.register_hook(lambda g: seen.append(g.tolist()))
    handle = x.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: seen.append(g.tolist()))
    with mode():
        (x * x + x).sum().backward()
    assert seen == [[3.0, 5.0], [30.0, 50.0]] and x.grad.tolist() == [30.0, 50.0]
    handle.remove()
    handle.remove()
    x.grad = None
    with mode():
        (x * 4).sum().backward()
    assert seen[2:] == [[4.0, 4.0]] * 2 and x.grad.tolist() == [4.0, 4.0]


def test_a_computed_tensors_hook_changes_what_flows_on(mode: Any) -> None:
    x, seen = leaf(1.0, 2.0), []
    h = x * 3
    h.register_hook(lambda g: seen.append(g.tolist()))
    handle = h.register_hook(lambda g: g + 1)
    h.register_hook(lambda g: g * 2)
    y = (h * h + h).sum()
    del h  # the hooks are those of the graph
    with mode():
        y.backward(retain_graph=True)
    assert seen == [[7.0, 13.0]] and x.grad.tolist() == [48.0, 84.0]
    handle.remove()
    with mode():
        assert minigrad.grad(y, x)[0].tolist() == [42.0, 78.0]


def test_each_output_of_an_op_has_its_own_hooks(mode: Any) -> None:
    x, seen = leaf(1.0), []
    a, b = twice_and_thrice(x)
    a.register_hook(lambda g: seen.append(("a", g.item())))
    b.register_hook(lambda g: seen.append(("b", g.item())))
    b.register_hook(lambda g: g * 100)
    with mode():
        (a * 5 + b * 7).sum().backward(retain_graph=True)
        minigrad.grad(b.sum(), x)
    assert seen == [("a", 5.0), ("b", 7.0), ("b", 1.0)] and x.grad.tolist() == [2110.0]


def test_a_hook_on_the_root_and_on_wanted_tensors_comes_before_grad_takes_them() -> None:
    x = leaf(3.0)
    h = x * x
    y = h * 2
    for t in (x, h, y):
        t.register_hook(lambda g: g * 10)
    gx, gh, gy, again = minigrad.grad(y, [x, h, y, x])
    assert (gx.item(), gh.item(), gy.item(), again.item()) == (12000.0, 200.0, 10.0, 12000.0)
    assert x.grad is None and h.grad is None


def test_a_hook_under_create_graph_is_differentiated_too() -> None:
    """h = x^2, dL/dh = 2h becomes h * 2h = 2h^2, so dL/dx = 4x^5 and its derivative 20x^4."""
    x = leaf(1.5, -2.0)
    h = x * x
    handle = h.register_hook(lambda g: g * g / 2)
    (g,) = minigrad.grad((h * h).sum(), x, create_graph=True)
    handle.remove()  # the second derivative flows through h too
    (second,) = minigrad.grad(g.sum(), x)
    v = x.numpy()
    np.testing.assert_allclose(g.numpy(), 4 * v**5, rtol=1e-14)
    np.testing.assert_allclose(second.numpy(), 20 * v**4, rtol=1e-14)
    w = leaf(1.5)
    w.register_hook(lambda g: g * g)
    (w * w).sum().backward(create_graph=True)  # (2w)^2, with derivative 8w
    assert minigrad.grad(w.grad.sum(), w, materialize_grads=True)[0].item() == 12.0**2


def test_a_hook_gets_the_tensors_dtype_and_no_graph() -> None:
    x = Tensor([1.0, 2.0], dtype="float16", requires_grad=True)
    h, seen = x * 2, []
    for t in (x, h):
        t.register_hook(lambda g: seen.append((g.dtype, g.requires_grad)))
        t.register_hook(lambda g: (g * x).detach())
    h.sum().backward()
    assert seen == [(np.float16, False)] * 2 and x.grad.dtype == np.float16
    assert x.grad.tolist() == [2.0, 8.0]


def test_what_a_hook_keeps_stays_as_it_was(mode: Any) -> None:
    x, kept = leaf(1.0, 2.0), []
    h = x * 1
    h.register_hook(kept.append)
    x.register_hook(kept.append)
    with mode():
        (h * 3).sum().backward()
    x.grad.assign(0.0)
    x.grad += 7
    assert [g.tolist() for g in kept] == [[3.0, 3.0]] * 2


def test_retain_grad_keeps_and_adds_up_the_gradient_of_a_computed_tensor(mode: Any) -> None:
    x = leaf(1.0, 2.0)
    h = x * x
    assert not h.retains_grad
    h.retain_grad()
    h.retain_grad()
    h.register_hook(lambda g: g * 10)  # hooks come first
    x.retain_grad()  # a leaf has its .grad anyway
    assert h.retains_grad and not x.retains_grad
    y = (h * 3).sum()
    with mode():
        y.backward(retain_graph=True)
        assert h.grad.tolist() == [30.0, 30.0] and x.grad.tolist() == [60.0, 120.0]
        assert minigrad.grad(y, h, retain_graph=True)[0].tolist() == [30.0, 30.0]
        y.backward()
    assert h.grad.tolist() == [60.0, 60.0]
    h.grad += 1
    assert x.grad.tolist() == [120.0, 240.0]


def test_retain_grad_of_the_root_of_one_of_several_outputs_and_under_create_graph() -> None:
    x = leaf(2.0)
    a, b = twice_and_thrice(x)
    y = (a * b).sum()
    for t in (b, y):
        t.retain_grad()
    y.backward(create_graph=True)
    assert (a.grad, b.grad.item(), y.grad.item(), x.grad.item()) == (None, 4.0, 1.0, 24.0)
    assert minigrad.grad(b.grad.sum(), x)[0].item() == 2.0
    h = x * 3
    h.retain_grad()
    h.sum().backward(create_graph=True)
    assert minigrad.grad(h.grad.sum(), x)[0].item() == 0.0  # constant, but a function of x


def test_a_tensor_that_is_written_into_retains_the_gradient_of_what_it_is_now() -> None:
    x = leaf(1.0, 2.0)
    h = x * 2
    h.retain_grad()
    before = (h * 5).sum()
    h[0] = 7.0
    ((h * h).sum() + before).backward()
    assert h.grad.tolist() == [14.0, 8.0] and x.grad.tolist() == [10.0, 26.0]


def test_hooks_and_retained_gradients_make_no_cycle() -> None:
    def step() -> weakref.ref[Tensor]:
        x = leaf(1.0)
        h = x * 2
        h.retain_grad()
        h.register_hook(lambda g: g * 2)
        x.register_hook(lambda g: g * 2)
        (h * h).sum().backward()
        assert h.grad is not None
        return weakref.ref(h)

    step()
    gc.collect()
    gc.disable()
    try:
        left = [(step()(), gc.collect()) for _ in range(3)]
    finally:
        gc.enable()
    assert (None, 0) in left  # what other tests have left may be collected in between


def test_in_a_checkpoint_the_hooks_of_leaves_run_once_and_those_inside_at_the_recomputation() -> (
    None
):
    x, w, seen = leaf(2.0), leaf(3.0), []
    for name, t in (("x", x), ("w", w)):
        t.register_hook(lambda g, name=name: seen.append((name, g.item())))

    def f(t: Tensor) -> Tensor:
        h = t * w
        if h.requires_grad:
            h.register_hook(lambda g: seen.append(("h", g.item())))
        return h * h

    checkpoint(f, x).sum().backward()
    assert sorted(seen) == [("h", 12.0), ("w", 24.0), ("x", 36.0)]


def test_what_cannot_be_hooked_or_returned_is_refused() -> None:
    x = leaf(1.0, 2.0)
    with minigrad.no_grad():
        hidden = x * 2
    for call in (lambda t: t.retain_grad(), lambda t: t.register_hook(print)):
        with pytest.raises(NoGradientError):
            call(Tensor([1.0]))
        with pytest.raises(NoGradModeError):
            call(hidden)
    for wrong in (lambda g: g.sum(), lambda g: g.numpy(), lambda g: 0.0):
        handle = x.register_hook(wrong)
        with pytest.raises(GradientError, match="register_hook: the hook must return") as caught:
            (x * x).sum().backward()
        assert caught.value.wanted == (2,) and x.grad is None
        handle.remove()


# --- in a jitted function


@pytest.mark.parametrize("backend", ["numpy", None])
def test_the_ops_of_a_hook_are_part_of_the_program(backend: str | None) -> None:
    w = Tensor(np.array([1.0, 2.0], np.float32), requires_grad=True)
    w.register_hook(lambda g: g.clamp(-1.0, 1.0))

    def step(x: Tensor) -> Tensor:
        h = w * x
        h.register_hook(lambda g: g * h.detach())
        return minigrad.grad((h * h).sum(), w)[0]

    compiled = minigrad.jit(step, backend=backend)
    for i in range(6):
        x = Tensor(np.array([0.1 * i, -0.05 * i], np.float32))
        np.testing.assert_allclose(compiled(x).numpy(), step(x).numpy(), rtol=1e-6)
    assert compiled(Tensor(np.ones(2, np.float32))).tolist() == [1.0, 1.0]


def test_a_hook_that_comes_or_goes_is_a_structural_change() -> None:
    w = Tensor(np.array([1.0, 2.0], np.float32), requires_grad=True)
    step = minigrad.jit(lambda x: minigrad.grad((w * x).sum(), w)[0], backend="numpy", audit=False)
    x = Tensor(np.ones(2, np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(5):
            assert step(x).tolist() == [1.0, 1.0]
        handle = w.register_hook(lambda g: g * 3)
        for _ in range(5):
            assert step(x).tolist() == [3.0, 3.0]
        handle.remove()
        for _ in range(5):
            assert step(x).tolist() == [1.0, 1.0]


def test_a_program_refuses_retain_grad_and_a_hook_that_reads_a_value() -> None:
    w = Tensor(np.ones(2, np.float32), requires_grad=True)

    def retaining(x: Tensor) -> Tensor:
        h = w * x
        h.retain_grad()
        h.sum().backward()
        return h

    def reading(x: Tensor) -> Tensor:
        h = w * x
        h.register_hook(lambda g: g * g.sum().item())
        h.sum().backward()
        return h

    for step, how in ((retaining, r"retain_grad\(\)"), (reading, r"numpy\(\)")):
        with pytest.raises(CaptureError, match=how):
            minigrad.jit(step, backend="numpy")(Tensor(np.ones(2, np.float32)))
