"""What goes wrong silently elsewhere when a step is captured, and what happens here: an error with
the line, or the right result.
"""

import copy
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, no_grad, ops
from minigrad.compiler import jit
from minigrad.errors import CaptureError, ConfigError, IndexRangeError, NoGradientError, ShapeError
from minigrad.func import checkpoint
from minigrad.functional import dropout
from minigrad.nn import Dropout, Module, Parameter
from minigrad.optim import SGD
from minigrad.optim.lr_scheduler import LambdaLR

BACKENDS = pytest.mark.parametrize("backend", ["numpy", "c"])


def x(*shape, start=0.0):
    return Tensor((np.arange(int(np.prod(shape)), dtype=np.float32) + start).reshape(shape))


# --- what changes from call to call


def test_a_python_number_that_changes_is_refused_with_the_line():
    state = {"scale": 1.0}

    @jit
    def step(t):
        state["scale"] += 1
        return t * state["scale"]

    step(x(3))
    with pytest.raises(CaptureError, match=r"2\.0, then 3\.0") as caught:
        step(x(3))
    assert "test_footguns.py" in caught.value.where


def test_a_branch_that_changes_is_refused_with_both_lines():
    calls = []

    @jit
    def step(t):
        calls.append(1)
        if len(calls) == 1:
            return t.exp()
        return t.tanh()

    step(x(3))
    with pytest.raises(CaptureError, match="exp, then tanh") as caught:
        step(x(3))
    assert caught.value.where.count("test_footguns.py") == 2


def test_an_op_more_in_the_second_call_is_refused():
    calls = []

    @jit
    def step(t):
        calls.append(1)
        return t * 2 if len(calls) == 1 else (t * 2).exp()

    step(x(3))
    with pytest.raises(CaptureError, match="went on with exp"):
        step(x(3))


def test_an_array_made_inside_that_changes_is_refused():
    random = np.random.default_rng(0)

    @jit
    def step(t):
        return t + Tensor(random.normal(size=3).astype(np.float32))

    step(x(3))
    with pytest.raises(CaptureError, match="that no op made is"):
        step(x(3))


GENERATOR = minigrad.random.Generator(3)


@pytest.mark.parametrize(
    "draw",
    [
        lambda t: t * Tensor(GENERATOR.normal((3,))),
        lambda t: t[Tensor(GENERATOR.integers(0, 3, (64,)))],
    ],
)
def test_random_numbers_that_no_op_draws_are_refused_where_they_are_drawn(draw):
    def step(t):
        drawn = draw(t)
        return drawn * 2

    step = jit(step)
    step(x(3))
    with pytest.raises(CaptureError, match="random numbers drawn past the ops") as caught:
        step(x(3))
    line = draw.__code__.co_firstlineno
    assert (
        caught.value.where.endswith(f"test_footguns.py:{line}")
        and "Tensor.rand" in caught.value.hint
    )


def test_what_differs_for_another_reason_is_not_blamed_on_dropout():
    calls = []

    @jit
    def step(t):
        calls.append(1)
        return checkpoint(lambda s: dropout(s, 0.5), t) + Tensor([len(calls), 0.0, 0.0])

    t = x(3).requires_grad_()
    step(t)
    with pytest.raises(CaptureError, match="that no op made is"):
        step(t)


@pytest.mark.parametrize(
    "how", ["a schedule", "a schedule that has not begun", "the rate", "a group's momentum"]
)
def test_a_setting_of_an_optimizer_that_is_set_inside_is_refused(how):
    w = Parameter([1.0, 2.0, 3.0])
    optimizer = SGD([w], lr=0.5, momentum=0.5)
    schedule = LambdaLR(
        optimizer, lambda n: 1.0 if how.endswith("begun") and n < 9 else 1 / (1 + n)
    )

    @jit
    def step(t):
        optimizer.zero_grad()
        (w * t).sum().backward()
        optimizer.step()
        if how.startswith("a schedule"):
            schedule.step()
        elif how == "the rate":
            optimizer.lr = 0.1
        else:
            optimizer.param_groups[0]["momentum"] = 0.9

    wanted = "momentum" if "momentum" in how else "lr"
    with pytest.raises(CaptureError, match=f"setting '{wanted}' of an optimizer") as caught:
        step(x(3))
    assert "test_footguns.py" in caught.value.where and "between two calls" in caught.value.hint


@BACKENDS
def test_a_mask_that_stays_the_same_may_choose(backend):
    mask = np.array([True, False, True])
    step = jit(lambda t: t[mask].sum(), backend=backend)
    assert [step(x(3, start=i)).item() for i in range(4)] == [2, 4, 6, 8]


@BACKENDS
def test_an_array_made_inside_that_stays_the_same_is_a_constant(backend):
    step = jit(lambda t: t + Tensor([1.0, 2.0, 3.0]), backend=backend)
    for i in range(4):
        assert step(x(3, start=i)).tolist() == [1 + i, 3 + i, 5 + i]


@BACKENDS
def test_a_python_argument_is_part_of_the_signature(backend):
    step = jit(lambda t, k: t * k, backend=backend)
    for k in (2, 3, 2, 3, 2, 3, 2.0, 2.0, 2.0):
        assert step(x(3), k).tolist() == [0, k, 2 * k]


@BACKENDS
def test_a_number_of_the_closure_that_changes_later_is_found_by_the_next_audit(backend):
    scale = 2.0
    step = jit(lambda t: t * scale, backend=backend)
    for _ in range(3):
        assert step(x(3)).tolist() == [0, 2, 4]
    scale = 3.0
    with pytest.warns(RuntimeWarning, match=r"2\.0, then 3\.0") as caught:
        for _ in range(9):
            assert step(x(3)).tolist() == [0, 3, 6]
    assert len(caught) == 1 and "since call 2" in str(caught[0].message)


@BACKENDS
def test_a_tensor_that_no_op_meets_may_be_returned_as_it_is(backend):
    weight, scale = Parameter(np.ones(3, np.float32)), Tensor(2.0)
    step = jit(lambda t: {"y": t * 3, "weight": weight, "scale": scale}, backend=backend)
    for i in range(5):
        out = step(x(3, start=i))
        assert out["weight"] is weight and out["scale"] is scale
        assert out["y"].tolist() == [3 * i, 3 * i + 3, 3 * i + 6]
    scale.assign(Tensor(5.0))
    assert step(x(3))["scale"].item() == 5


@jit(backend="numpy", audit=3)
def doubled(t):
    return t * 2


class Counting(Module):
    """A module with a step of its own."""

    def __init__(self):
        self.weight = Parameter(np.ones(3, np.float32))
        self.step = jit(self.forward, backend="numpy")

    def forward(self, t):
        self.weight.add_(1.0)
        return t * self.weight


def test_a_step_is_copied_and_pickled_as_a_function_is():
    assert copy.deepcopy(doubled) is doubled is pickle.loads(pickle.dumps(doubled))
    for again in (copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))):
        model = Counting().requires_grad_(False)
        for _ in range(3):
            model.step(x(3))
        other = again(model)
        for _ in range(3):
            y = other.step(x(3))
        assert model.weight.tolist() == [4, 4, 4] and other.weight.tolist() == [7, 7, 7]
        assert y.tolist() == [0, 7, 14] and other.step.backend == "numpy"


# --- what lies inside the objects that a step sees


class Scaled(Module):
    """weight * x * factor, with settings in a plain object."""

    def __init__(self, factor):
        self.factor, self.weight, self.settings, self.calls = (
            factor,
            Parameter([1.0, 2.0]),
            SimpleNamespace(shift=0.0),
            0,
        )

    def forward(self, t):
        return t * self.weight * self.factor + self.settings.shift


def scaled(backend, factor=2.0):
    model, outer = Scaled(factor), Module()
    outer.part = model
    step = jit(lambda t: outer.part(t), backend=backend)
    for _ in range(3):
        assert step(x(2, start=1.0)).tolist() == [factor, 4 * factor]
    return outer, model, step


@BACKENDS
def test_a_number_inside_a_module_that_changes_later_makes_a_new_program(backend):
    _, model, step = scaled(backend)
    for factor in (3.0, 5.0, 2.0):
        model.factor = factor
        for _ in range(3):
            assert step(x(2, start=1.0)).tolist() == [factor, 4 * factor]


@BACKENDS
def test_another_parameter_or_module_under_the_same_name_makes_a_new_program(backend):
    outer, model, step = scaled(backend)
    model.weight = Parameter([10.0, 10.0])
    assert step(x(2, start=1.0)).tolist() == [20, 40]
    outer.part = Scaled(7.0)
    assert step(x(2, start=1.0)).tolist() == [7, 28]


def test_the_probability_of_a_dropout_that_changes_later_holds():
    drop = Dropout(0.5)
    step = jit(lambda t: drop(t))
    for _ in range(3):
        assert 0 < (step(x(1000, start=1.0)).numpy() == 0).mean() < 1
    drop.p = 0.0
    assert not (step(x(1000, start=1.0)).numpy() == 0).any()


@BACKENDS
def test_an_attribute_that_changes_before_every_call_is_named_once(backend):
    outer, model, step = scaled(backend)
    program = step.program
    with pytest.warns(RuntimeWarning, match="epoch of Module changes before each call") as caught:
        for i in range(9):
            model.calls = i + 1
            outer.epoch = f"epoch {i}"
            assert step(x(2, start=1.0)).tolist() == [2, 8]
    assert step.program is program and len(caught) == 1
    assert repr(step).endswith("1 program>")


@BACKENDS
def test_a_number_outside_that_changes_with_every_call_does_not_prevent_replays(
    backend,
):
    class Loop:
        def __init__(self):
            self.iteration, self.eager = 0, 0
            self.step = jit(self.body, backend=backend)

        def body(self, t):
            self.eager += 1
            return t * 2

    loop = Loop()
    for loop.iteration in range(6):
        loop.step(x(2))
    assert loop.eager == 3  # two calls and an audit


@BACKENDS
def test_a_number_that_the_step_uses_and_changes_itself_is_refused(backend):
    class Loop:
        count = 0

        def body(self, t):
            self.count += 1
            return t * self.count

    loop = Loop()
    loop.count = 0
    step = jit(loop.body, backend=backend)
    step(x(2))
    with pytest.raises(CaptureError, match="1, then 2"):
        step(x(2))


@BACKENDS
def test_another_tensor_under_the_same_name_is_found_by_the_next_audit(backend):
    w = Tensor([1.0, 1.0])
    step = jit(lambda t: t * w, backend=backend)
    for _ in range(3):
        step(x(2))
    w = Tensor([5.0, 5.0])
    with pytest.warns(RuntimeWarning, match="another array"):
        assert step(x(2)).tolist() == [0, 5]


@BACKENDS
def test_a_counter_of_the_step_itself_does_not_keep_it_from_being_replayed(backend):
    count = 0

    def body(t):
        nonlocal count
        count += 1
        return t * 2

    step = jit(body, backend=backend)
    for _ in range(9):
        assert step(x(2)).tolist() == [0, 2]
    assert "1 program" in repr(step) and count == 4  # two calls, and the audits 4 and 9


@BACKENDS
def test_a_method_is_a_step_of_its_object(backend):
    class Model:
        def __init__(self, w):
            self.w = Tensor([w])

        def double(self, t):
            return t * self.w

        step = jit(double, backend=backend)

    models = Model(2.0), Model(3.0)
    for _ in range(4):
        assert [m.step(x(1, start=1)).item() for m in models] == [2, 3]
        assert jit(models[0].double, backend=backend)(x(1, start=1)).item() == 2


# --- values read while recording


@pytest.mark.parametrize(
    "read",
    [float, bool, int, lambda t: t.item(), lambda t: t.tolist(), lambda t: t.numpy()],
    ids=["float", "bool", "int", "item", "tolist", "numpy"],
)
def test_reading_a_value_while_recording_is_refused_with_a_way_out(read):
    @jit
    def step(t):
        total = t.sum()
        read(total)
        return total

    with pytest.raises(CaptureError) as caught:
        step(x(3))
    assert "outside the step" in str(caught.value) or "where" in str(caught.value)


def test_printing_while_recording_is_allowed(capsys):
    @jit
    def step(t):
        print(t)
        return t * 2

    step(x(3))
    assert "Tensor" in capsys.readouterr().out


# --- shapes that depend on values


@BACKENDS
@pytest.mark.parametrize(
    "select",
    [
        lambda t: t[t > 0],
        lambda t: t.masked_select(t > 0),
        lambda t: (t > 0).nonzero(),
        lambda t: t.nonzero(),
    ],
    ids=["mask", "masked_select", "nonzero", "nonzero of floats"],
)
@pytest.mark.parametrize("second", [[-1.0, 3.0, 4.0], [1.0, 1.0, 1.0]], ids=["as many", "more"])
def test_a_shape_that_depends_on_values_is_refused_with_the_line_and_a_way_out(
    select, second, backend
):
    step = jit(lambda t: (select(t) * 2).sum(), backend=backend)
    step(Tensor([1.0, 2.0, -1.0]))
    with pytest.raises(CaptureError, match=r"take|nonzero") as caught:
        step(Tensor(second))
    assert "test_footguns.py" in caught.value.where and "where(mask, x, 0)" in caught.value.hint


@BACKENDS
def test_a_shape_that_depends_on_a_state_is_refused(backend):
    mask = Tensor([True, False, True])
    step = jit(lambda t: t[mask], backend=backend)
    step(x(3))
    with pytest.raises(CaptureError, match="take"):
        step(x(3))


@BACKENDS
def test_a_mask_that_is_a_constant_of_the_step_selects(backend):
    step = jit(
        lambda t: t[[True, False, True]] * 2 + t[Tensor([1.0, -1.0, 1.0]) > 0], backend=backend
    )
    for i in range(4):
        assert step(x(3, start=i)).tolist() == [3 * i, 3 * i + 6]


@BACKENDS
def test_a_number_may_be_written_where_a_mask_says_so(backend):
    w = Tensor([1.0, 2.0, 3.0], requires_grad=True)

    def body(t):
        w.grad = None
        y = w * t
        y[t > 1] = 0
        y.sum().backward()
        return y

    step = jit(body, backend=backend)
    for i in range(4):
        t = x(3, start=i - 1)
        assert step(t).tolist() == (w.numpy() * t.numpy() * (t.numpy() <= 1)).tolist()
        assert w.grad.tolist() == (t.numpy() * (t.numpy() <= 1)).tolist()


def test_tensors_in_a_list_that_is_an_index_are_not_frozen():
    step = jit(lambda t, i: t[[i[0], i[1]]])
    with pytest.raises(CaptureError, match="reads or writes a value"):
        step(x(3), Tensor([0, 1]))


# --- signatures


@BACKENDS
def test_each_shape_is_a_program_and_their_number_is_bounded(backend):
    step = jit(lambda t: t.sum(), backend=backend, max_programs=2)
    for _ in range(2):
        for n in (2, 3, 4):
            for _ in range(3):
                assert step(x(n)).item() == n * (n - 1) / 2
    assert "2 programs" in repr(step)


def test_grad_mode_is_part_of_the_signature():
    w = Tensor([2.0], requires_grad=True)
    step = jit(lambda t: (w * t).sum())
    for _ in range(3):
        step(x(1))
    with no_grad():
        for _ in range(3):
            step(x(1))
    assert "2 programs" in repr(step)


def test_train_and_eval_mode_are_part_of_the_signature():
    from minigrad.nn import Dropout

    drop = Dropout(0.5)
    step = jit(lambda t: drop(t))
    results = [step(Tensor(np.ones(1000, np.float32))).numpy() for _ in range(3)]
    drop.eval()
    assert step(Tensor(np.ones(1000, np.float32))).numpy().min() == 1
    assert all(r.min() == 0 for r in results) and not np.array_equal(results[1], results[2])


# --- errors, re-entrance, threads, processes


@BACKENDS
def test_an_exception_while_recording_leaves_nothing_behind(backend):
    fail = [True]

    def body(t):
        y = t * 2
        if fail[0]:
            raise RuntimeError("in the middle")
        return y

    step = jit(body, backend=backend)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="in the middle"):
            step(x(3))
    fail[0] = False
    for _ in range(4):
        assert step(x(3)).tolist() == [0, 2, 4]
    assert step(x(3) + 0).requires_grad is False


@BACKENDS
def test_an_index_out_of_its_range_is_the_eager_error_and_changes_nothing(backend):
    table = Tensor(np.ones((4, 2), np.float32), requires_grad=True)
    count = Tensor(0.0)

    def body(i):
        y = ops.embedding(table, i).sum()
        count.assign(count + 1)
        return y

    step = jit(body, backend=backend, audit=False)
    for _ in range(3):
        step(Tensor([1, 2]))
    for bad in (4, -1):
        with pytest.raises(IndexRangeError, match=str(bad)):
            step(Tensor([1, bad]))
    assert count.item() == 3 and step(Tensor([1, 2])).item() == 4


def test_shapes_that_do_not_fit_are_the_eager_error():
    step = jit(lambda a, b: a + b)
    with pytest.raises(ShapeError):
        step(x(3), x(4))


@BACKENDS
def test_a_step_inside_a_step_is_part_of_it(backend):
    inner = jit(lambda t: t * 2, backend=backend)
    outer = jit(lambda t: inner(t) + 1, backend=backend)
    for _ in range(4):
        assert outer(x(3)).tolist() == [1, 3, 5]


@BACKENDS
def test_gradients_go_through_a_step_inside_a_call_that_is_eager_for_its_arguments(backend):
    state, w = Tensor([1.0, 2.0, 3.0]), Parameter([2.0, 2.0, 2.0])
    inner = jit(lambda t: t * w, backend=backend)

    @jit(backend=backend, audit=False)
    def outer(t):
        w.grad = None
        y = inner(t)
        y.sum().backward()
        with minigrad.no_grad():
            state.assign(state + t)
        return y

    for _ in range(4):
        inner(x(3)), outer(x(3))
    y = outer(Tensor._wrap(state.data[::-1]))  # shares memory with what the step changes
    assert w.grad.tolist() == [11, 6, 1] and not y.requires_grad


@BACKENDS
def test_threads_may_call_one_step(backend):
    step, wrong = jit(lambda t: (t * 2).tanh().sum(), backend=backend), []

    def work(n):
        t = x(8, start=n)
        wanted = np.tanh(t.numpy() * 2).sum()
        for _ in range(50):
            if abs(step(t).item() - wanted) > 1e-5:
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_may_go_on(recwarn):
    step = jit(lambda a, b: (a @ b).tanh().sum(), backend="c", threads=2)
    a, b = x(64, 64) * 0.01, x(64, 64) * 0.01
    wanted = [step(a, b).item() for _ in range(4)][-1]
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe()
    child = context.Process(target=lambda: send.send([step(a, b).item() for _ in range(3)]))
    child.start()
    assert receive.poll(30) and receive.recv() == [wanted] * 3
    child.join()
    assert step(a, b).item() == wanted


@pytest.mark.parametrize("wrong", ["numpy", 5, Tensor([1.0])])
def test_what_cannot_be_called_is_refused_at_once(wrong):
    with pytest.raises(ConfigError, match="must be a function of Tensors") as caught:
        jit(wrong)
    assert caught.value.got is wrong and 'jit(backend="numpy")' in caught.value.hint


@pytest.mark.parametrize("wrong", [-1, 0, 2.5, True, None])
def test_a_number_of_programs_that_makes_no_sense_is_refused_at_once(wrong):
    with pytest.raises(ConfigError, match="max_programs must be"):
        jit(lambda t: t, max_programs=wrong)


def test_a_result_that_is_gone_back_through_is_told_that_it_has_no_graph():
    w = Parameter([1.0, 2.0, 3.0])
    step = jit(lambda t: (w * t).sum(), backend="numpy")
    for _ in range(3):
        with pytest.raises(NoGradientError) as caught:
            step(x(3)).backward()
        assert "a jitted function has no graph: call backward() inside it" in caught.value.hint


# --- warnings name the line that called the step


def one_warning(step, t):
    with pytest.warns(RuntimeWarning) as told:
        for _ in range(2):
            step(t)
    (warning,) = told
    assert (warning.filename, warning.lineno) == (__file__, one_warning.__code__.co_firstlineno + 3)
    return str(warning.message)


def test_a_warning_that_there_is_no_compiler_names_the_call(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "no-such-compiler" in one_warning(jit(lambda t: t * 2 + 1), x(3))


def test_a_warning_of_shared_memory_names_the_call():
    whole = x(6)
    part = Tensor._wrap(whole.data[:3])

    def step(t):
        with no_grad():
            whole.assign(whole + 1)
        return part * t

    assert "two of its tensors share" in one_warning(jit(step), x(3))


def test_a_warning_that_c_differs_names_the_call(monkeypatch):
    found = iter(["a result", ""])
    monkeypatch.setattr(sys.modules[jit.__module__], "replay_difference", lambda *_: next(found))
    assert "differs from the eager one" in one_warning(jit(lambda t: t * 2 + 1, backend="c"), x(3))


def in_a_child(work):
    """What a forked child's work amounts to: "right", "wrong", or the signal that ended it after 20
    seconds.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # newer Pythons warn of a fork beside threads, which is what is tested
        child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        os._exit(0 if work() else 1)
    status = os.waitpid(child, 0)[1]
    return {0: "right", 1: "wrong"}.get(os.waitstatus_to_exitcode(status), f"ended by {status}")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_forked_while_another_thread_is_inside_the_step_may_go_on():
    inside, leave, wait = threading.Event(), threading.Event(), [True]

    def body(t):
        if wait[0]:
            inside.set()
            leave.wait(60)
        return t * 2

    step = jit(body, backend="numpy")
    thread = threading.Thread(target=step, args=(x(3),))
    thread.start()
    assert inside.wait(60)
    wait[0] = False
    got = in_a_child(lambda: all(step(x(3)).tolist() == [0, 2, 4] for _ in range(4)))
    leave.set()
    thread.join()
    assert got == "right"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_child_forked_while_another_thread_is_inside_the_compiled_code_may_go_on(threads):
    step = jit(lambda a, b: (a @ b).sum(), backend="c", threads=threads, audit=False)
    a, b = x(300, 300) * 1e-4, x(300, 300) * 1e-4
    wanted = [step(a, b).item() for _ in range(3)][-1]
    stop = threading.Event()

    def work():
        while not stop.is_set():
            step(a, b)

    thread = threading.Thread(target=work)
    thread.start()
    got = [in_a_child(lambda: step(a, b).item() == wanted) for _ in range(16)]
    stop.set()
    thread.join()
    assert got == ["right"] * 16


def test_there_is_nothing_to_show_before_the_first_program():
    step = jit(lambda t: t)
    with pytest.raises(ConfigError, match="no program yet"):
        _ = step.program


def test_the_numpy_replay_has_no_c_source():
    step = jit(lambda t: t * 2, backend="numpy")
    for _ in range(3):
        step(x(3))
    with pytest.raises(ConfigError, match="no C source"):
        _ = step.c_source
