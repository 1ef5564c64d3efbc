"""Whose memory is whose in a captured step: leaves are read where they lie, results and gradients
that somebody holds are the caller's own.
"""

import numpy as np
import pytest

from minigrad import Tensor
from minigrad.compiler import jit

BACKENDS = pytest.mark.parametrize("backend", ["numpy", "c"])


def x(*shape, start=0.0):
    return Tensor((np.arange(int(np.prod(shape)), dtype=np.float32) + start).reshape(shape))


@BACKENDS
def test_leaves_are_read_by_reference(backend):
    weight = Tensor([1.0, 2.0, 3.0])
    step = jit(lambda t: t * weight, backend=backend)
    for _ in range(3):
        step(x(3))
    weight.assign([10.0, 20.0, 30.0])
    assert step(x(3)).tolist() == [0, 20, 60]


@BACKENDS
def test_a_leaf_whose_array_was_replaced_is_found_again(backend):
    weight = Tensor([1.0, 2.0, 3.0])
    step = jit(lambda t: t * weight, backend=backend)
    for _ in range(3):
        step(x(3))
    weight.data = np.float32([10, 20, 30])
    assert step(x(3)).tolist() == [0, 20, 60]


@BACKENDS
def test_a_leaf_of_another_shape_makes_a_new_program(backend):
    weight = Tensor([1.0, 2.0, 3.0])
    step = jit(lambda t: t * weight, backend=backend)
    for _ in range(3):
        step(x(3))
    weight.data = np.float32([2])
    for _ in range(4):
        assert step(x(3)).tolist() == [0, 2, 4]


@BACKENDS
def test_results_are_the_callers_own(backend):
    step = jit(lambda t: (t * 2, t[:1]), backend=backend)
    results = [step(x(3, start=i)) for i in range(5)]
    for i, (double, first) in enumerate(results):
        assert double.tolist() == [2 * i, 2 * i + 2, 2 * i + 4] and first.tolist() == [i]
    results[-1][0].assign([7.0, 7.0, 7.0])
    assert step(x(3))[0].tolist() == [0, 2, 4]


@BACKENDS
def test_a_gradient_that_somebody_holds_is_not_overwritten(backend):
    w = Tensor([1.0, 2.0], requires_grad=True)

    def body(t):
        w.grad = None
        (w * t).sum().backward()

    step, held = jit(body, backend=backend), []
    for i in range(6):
        step(x(2, start=i))
        held.append(w.grad)
    assert [g.tolist() for g in held] == [[i, i + 1] for i in range(6)]


@BACKENDS
def test_what_was_done_to_a_gradient_does_not_reach_the_next(backend):
    w = Tensor([1.0, 2.0], requires_grad=True)

    def body(t):
        w.grad = None
        (w * t).sum().backward()

    step = jit(body, backend=backend)
    for i in range(6):
        step(x(2, start=i))
        assert w.grad.tolist() == [i, i + 1] and not w.grad.requires_grad and w.grad.grad is None
        w.grad.requires_grad_()


@BACKENDS
def test_gradients_that_are_not_cleared_add_up(backend):
    w = Tensor([1.0, 2.0], requires_grad=True)
    step = jit(lambda t: (w * t).sum().backward(), backend=backend)
    for _ in range(6):
        step(x(2, start=1))
    assert w.grad.tolist() == [6, 12]
    w.grad = None
    for _ in range(3):
        step(x(2, start=1))
    assert w.grad.tolist() == [3, 6]


@BACKENDS
def test_gradients_cleared_outside_or_not_are_told_apart(backend):
    w = Tensor([1.0, 2.0], requires_grad=True)
    step = jit(lambda t: (w * t).sum().backward(), backend=backend)
    for clear in (True, True, True, False, False, True, False):
        before = [0, 0] if clear or w.grad is None else w.grad.tolist()
        if clear:
            w.grad = None
        step(x(2, start=1))
        assert w.grad.tolist() == [before[0] + 1, before[1] + 2]


@BACKENDS
def test_an_argument_that_shares_memory_with_what_the_step_changes_is_right(backend):
    total = Tensor(np.zeros(4, np.float32))

    def body(t):
        total.assign(total + 1)
        return t * 2

    step = jit(body, backend=backend)
    for _ in range(3):
        step(x(4))
    assert step(total).tolist() == [8, 8, 8, 8]  # the argument is read after the change
    assert total.tolist() == [4, 4, 4, 4]


@BACKENDS
def test_arguments_of_any_strides_are_right(backend):
    step = jit(lambda t: t.exp().sum(0), backend=backend)
    base = np.arange(24, dtype=np.float32).reshape(4, 6) / 10
    for a in (
        base[:, ::2],
        base[:, ::2],
        base[:, 1::2],
        np.ascontiguousarray(base[:, :3]),
        base.T[:4, :3],
        base[::-1, :3],
    ):
        assert np.allclose(step(Tensor._wrap(a)).numpy(), np.exp(a).sum(0), rtol=1e-6)


@BACKENDS
def test_a_changed_leaf_makes_eager_graphs_stale(backend):
    w = Tensor([1.0, 2.0])

    def body(t):
        w.assign(w + t)

    step = jit(body, backend=backend)
    for _ in range(3):
        step(x(2))
    before = w._version[0]
    step(x(2))
    assert w._version[0] > before
