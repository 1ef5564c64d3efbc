"""Small programs, twelve and four more, and what happens at each call of their steps, as
docs/compiler.md has it.

R: the function runs, as the call is recorded or audited.   W: likewise, with a warning.
.: replayed.   X: refused with a CaptureError.
"""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from minigrad import Tensor, jit, manual_seed, nn, optim
from minigrad.errors import CaptureError, IndexRangeError

pytestmark = pytest.mark.as_for_users


def t(i=0, n=3):
    return Tensor(np.arange(n, dtype=np.float32) + i)


def happens(body, count, before=lambda i: (t(i),)):
    """What happens at each call. before: what is done before call i (from 0), and its arguments.

    A call that is replayed or recorded gives what eager code gives, unless the case allows for an
    old value.
    """
    runs, found, results = [], "", []
    step = jit(lambda *args: (runs.append(1), body(*args))[1], backend="numpy")
    for i in range(count):
        arguments, ran = before(i), len(runs)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                results.append(step(*arguments))
            except CaptureError:
                found += "X"
                continue
        found += "W" if caught else "R" if len(runs) > ran else "."
    return found, [r.tolist() if isinstance(r, Tensor) else r for r in results]


def test_1_a_step_that_stays_the_same():
    found, results = happens(lambda x: x * 2, 19)
    assert found == "RR.R....R........R."
    assert results == [[2 * i, 2 * i + 2, 2 * i + 4] for i in range(19)]


def test_2_two_shapes_in_turn_are_two_keys():
    found, _ = happens(lambda x: x * 2, 10, lambda i: (t(i, 3 + i % 2),))
    assert found == "RRRR..RR.."


def test_3_a_python_number_among_the_arguments_is_part_of_the_key():
    found, results = happens(lambda x, k: x * k, 9, lambda i: (t(), 1 + i // 3))
    assert found == "RR.RR.RR." and results[-1] == [0, 3, 6]


def test_4_a_number_in_a_dict_that_changes_is_old_until_the_next_audit():
    named = {"scale": 1}

    def before(i):
        named["scale"] = 1 if i < 5 else 3
        return (t(),)

    found, results = happens(lambda x: x * named["scale"], 11, before)
    assert found == "RR.R....WR."  # the new value is recorded at call 9, and once more to agree
    assert [r[1] for r in results] == [1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 3]


def test_5_a_number_that_differs_in_the_first_two_calls_is_refused():
    named = {"scale": 1}

    def body(x):
        named["scale"] += 1
        return x * named["scale"]

    assert happens(body, 2)[0] == "RX"


def test_6_a_learning_rate_is_read_at_each_call():
    w = nn.Parameter(np.zeros(3, np.float32))
    optimizer = optim.SGD([w], lr=1.0)
    schedule = optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 / (1 + n))
    weights = []

    def body(x):
        optimizer.zero_grad()
        (w * x).sum().backward()
        optimizer.step()

    def before(i):
        weights.append(w.tolist()[0])
        if i:
            schedule.step()
        return (Tensor([1.0, 1.0, 1.0]),)

    assert happens(body, 7, before)[0] == "RR.R..."
    assert np.allclose(np.diff(weights), [-1 / (1 + i) for i in range(6)])


def test_7_eval_mode_is_seen_at_once_and_train_mode_finds_its_program():
    manual_seed(0)
    drop = nn.Dropout(0.5)

    def before(i):
        drop.train(not 3 <= i < 6)
        return (t(1),)

    found, results = happens(lambda x: drop(x) * 2, 9, before)
    assert found == "RR.RR.R.."  # the seventh call is call 4 of the first program: an audit
    assert results[3:6] == [[2, 4, 6]] * 3


def test_8_an_attribute_of_a_module_that_changes_before_each_call():
    model = nn.Linear(3, 3)

    def before(i):
        model.scale = float(i)
        return (t(),)

    found, _ = happens(lambda x: model(x) * model.scale, 6, before)
    assert found[0] == "R" and "." not in found and found.count("W") == 1


def test_9_a_value_that_is_read_in_python_is_refused_in_the_first_call():
    assert happens(lambda x: x * float(x.sum()), 1)[0] == "X"


def test_10_a_mask_that_chooses_is_refused_when_the_program_is_made():
    assert happens(lambda x: x[x > 1], 2)[0] == "RX"


def test_11_a_counter_of_the_step_counts_recorded_calls_only():
    own = SimpleNamespace(calls=0)

    def body(x):
        own.calls += 1
        return x + 1

    assert happens(body, 9)[0] == "RR.R....R" and own.calls == 4


def test_12_gradients_that_are_added_up_are_recorded_without_and_with_them():
    w = nn.Parameter(np.ones(3, np.float32))

    def before(i):
        if i == 7:
            w.grad = None
        return (Tensor([1.0, 2.0, 3.0]),)

    found, _ = happens(lambda x: (w * x).sum().backward(), 9, before)
    assert found == "RRR.R..R." and w.grad.tolist() == [2, 4, 6]


def test_13_an_array_of_numpy_is_a_tensor_and_a_name_is_another_key():
    found, results = happens(lambda a: Tensor([1.0, 2.0]) * a, 6, lambda i: (np.full(2, i, "f"),))
    assert found == "RR.R.." and results[5] == [5, 10]
    step = jit(lambda x, k: x * k, backend="numpy")
    for _ in range(2):
        step(t(), t(1))
    assert step.ready(t(), t(1)) and not step.ready(t(), k=t(1))


def test_14_an_error_goes_to_the_caller_and_its_call_does_not_count():
    written, failing = Tensor(0.0), []

    def body(x):
        written.add_(1.0)
        if failing:
            raise ValueError("in the second call")
        return x * written

    step, found = jit(body, backend="numpy"), []
    for i in range(5):
        failing[:] = [i] if i == 1 else []
        try:
            found.append(step(t(1))[0].item())
        except ValueError:
            found.append(None)
    assert found == [1, None, 3, 4, 5] and written.item() == 5


def test_15_an_index_out_of_range_raises_in_a_replay_after_the_same_writes():
    table, written = nn.Embedding(3, 2), Tensor(0.0)

    def body(index):
        written.add_(1.0)
        return table(index).sum()

    for backend in ("numpy", "c"):
        step = jit(body, backend=backend, audit=False)
        written.zero_()
        for index in ([0, 1], [0, 2], [1, 1], [0, 3], [2, 2]):
            if max(index) < 3:
                step(Tensor(index))
            else:
                with pytest.raises(IndexRangeError, match="index 3"):
                    step(Tensor(index))
        assert written.item() == 5


def test_16_a_jitted_function_inside_another_is_part_of_its_recording():
    inner_runs = []
    inner = jit(lambda x: (inner_runs.append(1), x * 2)[1], backend="numpy")
    assert happens(lambda x: inner(x) + 1, 6)[0] == "RR.R.." and len(inner_runs) == 3
    inner(t())  # its own calls begin here
    assert not inner.ready(t())
