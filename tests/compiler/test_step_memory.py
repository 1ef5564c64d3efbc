"""Whose memory is whose in a captured step: leaves are read where they lie, results and gradients
that somebody holds are the caller's own.
"""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest

from minigrad import Tensor, nn, no_grad, ops
from minigrad.compiler import jit
from minigrad.compiler.layout import ALIGNMENT, pack
from minigrad.compiler.replay import NumpyReplay
from minigrad.errors import CaptureError
from minigrad.optim import AdamW

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


@BACKENDS
def test_a_program_keeps_no_array_of_the_calls_it_was_made_of(backend):
    model = nn.Linear(20, 30)
    optimizer = AdamW(model.parameters(), lr=0.1)

    def body(t):
        optimizer.zero_grad()
        loss = model(t).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    step, recorded = jit(body, backend=backend, audit=False), []
    for _ in range(2):
        step(x(4, 20))
        recorded += [weakref.ref(p.grad.data) for p in model.parameters()]
    step(x(4, 20))
    gc.collect()
    assert all(ref() is None for ref in recorded)


def test_what_is_packed_around_values_in_their_places_overlaps_with_nothing_that_is_alive():
    rng = np.random.default_rng(0)
    for _ in range(50):
        n = int(rng.integers(2, 30))
        sizes = {i: int(rng.integers(1, 500)) for i in range(n)}
        lifetimes = {i: tuple(sorted(map(int, rng.integers(0, 12, 2)))) for i in range(n)}
        first = pack({i: lifetimes[i] for i in range(n // 2)}, sizes, {})
        room = max(at + sizes[i] for i, at in first.items())
        offsets = pack(lifetimes, sizes, first, room)
        assert first.items() <= offsets.items()
        spans = {i: range(at, at + sizes[i]) for i, at in offsets.items()}
        for i, a in spans.items():
            assert a.stop <= room and a.start % ALIGNMENT == 0
            for j, b in spans.items():
                at_once = lifetimes[i][0] <= lifetimes[j][1] and lifetimes[j][0] <= lifetimes[i][1]
                assert i == j or not at_once or a.stop <= b.start or b.stop <= a.start


def test_a_recording_keeps_no_array_that_an_op_made_and_takes_no_new_one_for_it():
    made = []

    def step(x):
        y = (x * 2).exp()
        made.append(weakref.ref(y.data))
        z = (y + 1).log()  # y and what came before it may be where later arrays are
        del y
        return (z * z).sum()

    compiled, x = jit(step, audit=False), Tensor(np.linspace(0, 1, 1000, dtype=np.float32))
    for _ in range(3):
        assert abs(float(compiled(x)) - float(step(x))) < 1e-3
    assert all(reference() is None for reference in made)


def test_programs_of_one_step_share_the_memory_of_their_temporaries():
    step = jit(lambda t, up: ((t * 2 if up else t * 3).exp() @ t).sum(), backend="c")
    calls = [(x(64, 64) / 4096, up) for up in (True, False)]
    wanted = [step.function(*call).item() for call in calls]
    for _ in range(4):
        found = [step(*call).item() for call in calls]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    arenas = [e.plans[0].backend._arena for e in step._entries.values()]
    assert len(arenas) == 2 and arenas[0] is arenas[1]
    gone = weakref.ref(arenas.pop())
    arenas.clear()
    del step
    gc.collect()
    assert gone() is None


def appending():
    """A step that changes one place of large states, the states, and what is put there."""
    states = [Tensor(np.full((1, 1, 1 << 12, 64), -0.0, np.float32)) for _ in range(6)]
    length = Tensor(np.array(3))
    for state in states:
        state.data[0, 0, :2] = np.float32([np.nan, np.inf])[:, None]

    def step(new):
        with no_grad():
            for state in states:
                ops.append_(state, new, length)
        return new * 2

    return step, states, Tensor(np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 1, 1, 64))


@BACKENDS
def test_large_states_of_which_little_changes_are_not_copied(backend):
    step, states, new = appending()
    compiled = jit(step, backend=backend)
    compiled(new)
    tracemalloc.start()
    compiled(new)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = sum(state.data.nbytes for state in states)
    assert peak < 0.6 * size  # a few of one state
    wanted = appending()[1][0].data
    wanted[0, 0, 3] = new.data
    assert all(state.data.tobytes() == wanted.tobytes() for state in states)


@pytest.mark.parametrize("place", [3, 9])  # that the op writes to, and another
def test_a_wrong_number_in_a_large_state_is_found(place, monkeypatch):
    step, states, new = appending()
    run = NumpyReplay.run

    def wrong(self, bound):
        out = run(self, bound)
        states[2].data[0, 0, place, 9] = 1
        return out

    monkeypatch.setattr(NumpyReplay, "run", wrong)
    compiled = jit(step, backend="numpy")
    compiled(new)
    with pytest.raises(CaptureError, match="a state of shape"):
        compiled(new)
    assert states[2].data[0, 0, 3, 9] == new.data[..., 9]
