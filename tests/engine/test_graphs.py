"""Graphs of every form: values used many times, chains, diamonds, and the memory they hold."""

from __future__ import annotations

import contextlib
import gc
import os
import weakref
from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, ops
from minigrad.optim import clip_grad_norm_


def leaf(*values: float) -> Tensor:
    return Tensor(np.array(values), requires_grad=True)


@pytest.mark.parametrize("uses", [1, 2, 3, 7, 100])
def test_a_tensor_used_k_times_gets_the_sum_of_k_gradients(uses: int) -> None:
    """Integer-valued, so that the sum is the same to the bit."""
    x = leaf(3.0, -2.0)
    y = x * 1.0
    for k in range(2, uses + 1):
        y = y + x * float(k)
    y.backward(Tensor(np.array([1.0, 2.0])))
    total = uses * (uses + 1) / 2
    assert x.grad.tolist() == [total, 2 * total]


def test_k_uses_equal_k_separate_copies() -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(size=(4, 4))
    one, copies = (
        Tensor(array, requires_grad=True),
        [Tensor(array, requires_grad=True) for _ in range(4)],
    )

    def f(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        return ((a @ ops.tanh(b)) * ops.sin(c) + a / (2 + ops.square(d))).sum()

    f(one, one, one, one).backward()
    f(*copies).backward()
    np.testing.assert_allclose(
        one.grad.numpy(), sum(c.grad.numpy() for c in copies), rtol=1e-14, atol=1e-14
    )


def test_the_same_tensor_as_both_operands_counts_twice() -> None:
    for op, slope in [
        (ops.mul, 6.0),
        (ops.add, 2.0),
        (ops.sub, 0.0),
        (ops.div, 0.0),
        (ops.maximum, 1.0),
    ]:
        x = leaf(3.0)
        op(x, x).backward()
        assert x.grad.tolist() == [slope], op


def test_q_is_k_is_v_in_attention_gets_the_sum_of_the_three_gradients() -> None:
    rng = np.random.default_rng(1)
    array = rng.normal(size=(2, 5, 3))
    one, three = (
        Tensor(array, requires_grad=True),
        [Tensor(array, requires_grad=True) for _ in range(3)],
    )
    g = Tensor(rng.normal(size=(2, 5, 3)))
    ops.attention(one, one, one, scale=0.5, offset=0)[0].backward(g)
    ops.attention(*three, scale=0.5, offset=0)[0].backward(g)
    np.testing.assert_allclose(
        one.grad.numpy(), sum(t.grad.numpy() for t in three), rtol=1e-13, atol=1e-14
    )


def test_a_ladder_of_diamonds_has_the_gradient_of_its_closed_form() -> None:
    """2**40 paths from end to end, in 40 steps."""
    x = leaf(1.0)
    y = x
    for _ in range(40):
        y = y + y
    y.backward()
    assert x.grad.tolist() == [2.0**40]


@pytest.mark.parametrize("depth", [10_000, 100_000])
def test_a_deep_chain_needs_no_recursion(depth: int) -> None:
    x = leaf(0.0)
    y = x
    for _ in range(depth):
        y = y + 1.0
    y.backward()
    assert y.item() == depth and x.grad.tolist() == [1.0]
    del y  # freeing 100,000 nodes one inside the other must not overflow the C stack either


def test_a_deep_chain_is_freed_without_recursion_when_backward_never_ran() -> None:
    x = leaf(0.0)
    y = x
    for _ in range(100_000):
        y = y * 1.0
    alive = weakref.ref(y)
    del y
    assert alive() is None


def test_second_derivatives_through_a_deep_chain() -> None:
    x = leaf(1.5)
    y = x * x
    for _ in range(1_000):
        y = y + 0.0
    (g,) = minigrad.grad(y, x, create_graph=True)
    assert minigrad.grad(g, x)[0].tolist() == [2.0]


def mlp_step(x: Any, w1: Tensor, w2: Tensor) -> float:
    loss = ops.square(ops.tanh(Tensor(x) @ w1) @ w2).sum()
    loss.backward()
    with minigrad.no_grad():
        for w in (w1, w2):
            w.assign(w - 0.01 * w.grad)
            w.grad = None
    return loss.item()


def test_a_step_leaves_no_reference_cycle() -> None:
    rng = np.random.default_rng(0)
    x, w1, w2 = (
        rng.normal(size=(4, 8)),
        *(Tensor(rng.normal(size=s), requires_grad=True) for s in ((8, 8), (8, 2))),
    )
    mlp_step(x, w1, w2)
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            mlp_step(x, w1, w2)
        found = gc.collect()
    finally:
        gc.enable()
    assert found == 0


def test_a_graph_of_a_gradient_is_no_cycle() -> None:
    def penalty() -> None:
        x = Tensor(np.ones((3, 4)), requires_grad=True)
        y = ops.layer_norm(ops.softmax(x) * x, None, None)[0]
        (g,) = minigrad.grad(y.sum(), x, create_graph=True)
        ops.square(g).sum().backward()

    penalty()
    gc.collect()
    gc.disable()
    try:
        penalty()
        found = gc.collect()
    finally:
        gc.enable()
    assert found == 0


def test_what_the_graph_holds_is_freed_with_the_last_name() -> None:
    x = Tensor(np.ones(1000), requires_grad=True)
    hidden = ops.exp(x)
    alive = weakref.ref(hidden)
    loss = (hidden * 2.0).sum()
    del hidden
    del loss
    assert alive() is None


def resident() -> int:
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")
def test_memory_is_flat_over_ten_thousand_steps() -> None:
    rng = np.random.default_rng(0)
    x, w1, w2 = (
        rng.normal(size=(4, 8)),
        *(Tensor(rng.normal(size=s), requires_grad=True) for s in ((8, 8), (8, 2))),
    )
    for _ in range(1_000):
        mlp_step(x, w1, w2)
    before = resident()
    for _ in range(10_000):
        mlp_step(x, w1, w2)
    assert resident() - before <= 1 << 20


def test_no_two_leaves_share_the_memory_of_a_gradient_also_while_somebody_listens() -> None:
    for listening in (False, True):
        a, b = (Tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
        with minigrad.profile() if listening else contextlib.nullcontext():
            (a + b).sum().backward()
        clip_grad_norm_([a, b], 1.0)
        assert a.grad is not None and b.grad is not None
        np.testing.assert_allclose([*a.grad.data, *b.grad.data], 0.5, rtol=1e-5)
