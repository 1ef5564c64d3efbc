"""A step that writes into its arguments is replayed like any other, on each call's own."""

import warnings

import numpy as np
import pytest

from minigrad import Tensor
from minigrad.compiler import jit
from minigrad.compiler.compiled import CompiledReplay

BACKENDS = pytest.mark.parametrize("backend", ["numpy", "c"])


def t(*values):
    return Tensor(np.array(values, np.float32))


def halve_and_add(buffer, x):
    buffer.assign(buffer * 0.5 + x)
    return buffer.sum()


def set_first(buffer, x):
    buffer[0] = x[1]
    return buffer


def add_twice(buffer, x):
    buffer.assign(buffer + x)
    buffer.assign(buffer + x)
    return buffer * x


STEPS = pytest.mark.parametrize("body", [halve_and_add, set_first, add_twice])


def alike(x, y):
    return all(np.array_equal(a, b) for a, b in zip(x, y, strict=True))


@BACKENDS
@STEPS
@pytest.mark.parametrize("way", ["fresh", "the same", "transposed", "every other"])
def test_a_step_that_writes_into_an_argument_is_replayed(body, way, backend):
    def run(wrap):
        runs, found, same = [], [], np.ones((3, 4), np.float32)
        step = wrap(lambda *args: (runs.append(1), body(*args))[1])
        for i in range(8):
            whole = same if way == "the same" else np.full((3, 4), i, np.float32)
            array = {"transposed": whole.T[:3], "every other": whole[:, ::2][:2]}.get(way, whole)
            buffer = Tensor._wrap(array)
            out = step(buffer, Tensor(np.full(array.shape, i + 1.0, np.float32)))
            found += [out.data.copy(), whole.copy()]
        return found, len(runs)

    wanted, got = run(lambda f: f), run(lambda f: jit(f, backend=backend))
    assert alike(wanted[0], got[0]) and got[1] == 3  # calls 1, 2 and 4


@BACKENDS
def test_an_argument_that_shares_memory_with_another_is_written_to_in_order(backend):
    step = jit(add_twice, backend=backend)
    for _ in range(4):
        step(t(1, 2), t(3, 4))
    for own in (slice(0, 2), slice(1, 3)):
        array = np.array([1, 2, 3], np.float32)
        wanted = array.copy()
        expected = add_twice(Tensor._wrap(wanted[own]), Tensor._wrap(wanted[:2]))
        got = step(Tensor._wrap(array[own]), Tensor._wrap(array[:2]))
        assert np.array_equal(array, wanted) and got.tolist() == expected.tolist()


@BACKENDS
def test_an_argument_that_is_a_part_of_what_the_step_reads_is_written_to_in_order(backend):
    weight = t(1, 2, 3)

    def body(buffer):
        buffer.assign(buffer * 2)
        return weight.sum() + buffer.sum()

    step = jit(body, backend=backend)
    for _ in range(3):
        assert step(t(1, 1)).item() == 6 + 4
    assert step(t(1, 1)).item() == 10
    assert step(Tensor._wrap(weight.data[:2])).item() == 9 + 6


@BACKENDS
def test_a_read_only_argument_is_refused_as_in_eager_code(backend):
    step = jit(halve_and_add, backend=backend)
    for _ in range(4):
        step(t(1, 2), t(3, 4))
    frozen = np.ones(2, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        step(Tensor._wrap(frozen), t(3, 4))
    assert frozen.tolist() == [1, 1]


@BACKENDS
def test_writing_where_gradients_flow_gives_each_call_its_own(backend):
    weight = Tensor([1.0, 2.0], requires_grad=True)

    def body(buffer, x):
        weight.grad = None
        buffer[0] = buffer[0] * 2 + (weight * x).sum()
        (buffer * buffer).sum().backward()
        return buffer * 1

    def run(step):
        found = []
        for i in range(6):
            buffer = t(i, 1)
            out = step(buffer, t(1, i))
            found.append((out.tolist(), buffer.tolist(), weight.grad.tolist()))
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(jit(body, backend=backend)) == run(body)


def test_what_is_written_into_an_argument_is_held_against_the_second_call(monkeypatch):
    run = CompiledReplay.run

    def wrong(self, bound):
        results = run(self, bound)
        for i in self.layout.changed & bound.keys():
            bound[i][...] *= 2
        return results

    monkeypatch.setattr(CompiledReplay, "run", wrong)
    step = jit(halve_and_add, backend="c")
    step(t(1, 2), t(3, 4))
    with pytest.warns(
        RuntimeWarning, match=r"differs from the eager one \(a state of shape \(2,\)"
    ):
        step(t(1, 2), t(3, 4))


def test_measuring_leaves_an_argument_that_is_written_to_as_it_was():
    def body(buffer, x):
        buffer.assign(buffer.sort()[0] + x)
        return buffer

    step, buffer = jit(body, backend="c"), t(3, 1)
    for _ in range(3):
        step(buffer, t(1, 1))
    text = step.explain(measure=True)
    assert buffer.tolist() == [4, 6]
    (row,) = (row for row in text.splitlines() if row.startswith("through numpy: "))
    assert "sort" in row and " us measured " in row
