"""What a step sees besides its arguments, in all the ways that Python has: a change of it is never
replayed away.
"""

import functools
import types
from collections import defaultdict, deque
from types import SimpleNamespace

import numpy as np
import pytest

from minigrad import Tensor, nn, optim
from minigrad.compiler import jit, surroundings
from minigrad.errors import CaptureError
from minigrad.nn import Dropout, Module, Parameter

BACKENDS = pytest.mark.parametrize("backend", ["numpy", "c"])


def x(*shape, start=1.0):
    return Tensor((np.arange(int(np.prod(shape)), dtype=np.float32) + start).reshape(shape))


class Model(Module):
    """Half of 2 w x in train mode, all of w x in eval mode."""

    def __init__(self):
        self.weight, self.drop = Parameter(np.ones(3, np.float32)), Dropout(0.5)

    def forward(self, t):
        return self.drop(t * self.weight)


def steps(model):
    """Steps that come to a model by different ways."""

    def helper(t):
        return model(t)

    def by_default(t, model=model):
        return model(t)

    def with_argument(model, t):
        return model(t)

    forward, inner = model.forward, jit(helper, backend="numpy")
    return {
        "the model": model,
        "a method": model.forward,
        "a partial": functools.partial(with_argument, model),
        "a default": by_default,
        "a helper": lambda t: helper(t),
        "a function that is handed on": lambda t: next(map(helper, [t])),
        "a method in a variable": lambda t: forward(t),
        "a step in a step": lambda t: inner(t),
        "a list": (lambda models: lambda t: models[0](t))([model]),
    }


@pytest.mark.parametrize("way", list(steps(Model())))
def test_eval_mode_is_noticed_by_whatever_way_the_step_comes_to_the_model(way):
    model = Model()
    step = jit(steps(model)[way], backend="numpy")
    for _ in range(4):
        assert set(step(x(3)).tolist()) <= {0, 2, 4, 6}
    model.eval()
    for _ in range(4):
        assert step(x(3)).tolist() == [1, 2, 3]


@jit
def early(t):
    return late(t)


late = Model()


def test_what_is_defined_after_the_step_is_seen_too():
    for _ in range(4):
        early(x(3))
    late.eval()
    assert early(x(3)).tolist() == [1, 2, 3]


class Settings:
    scale = 2.0


def holders():
    """Things that hold a factor: how it is read, and how it is changed."""
    listed, named, inside = [2.0], {"scale": 2.0}, {"model": {"scale": 2.0}}
    module, plain, tensors = (
        types.ModuleType("settings"),
        SimpleNamespace(scale=2.0),
        SimpleNamespace(scale=Tensor(2.0)),
    )
    deep, module.scale, Settings.scale = SimpleNamespace(config={"scale": 2.0}), 2.0, 2.0
    weights, many, row, rate = (
        {"w": Tensor([2.0])},
        {2.0},
        deque([2.0]),
        SimpleNamespace(scale=np.float32(2)),
    )
    counts = defaultdict(float, scale=2.0)
    return {
        "a set": (lambda t: t * max(many), lambda v: (many.clear(), many.add(v))),
        "a deque": (lambda t: t * row[0], lambda v: (row.clear(), row.append(v))),
        "a defaultdict": (lambda t: t * counts["scale"], lambda v: counts.update(scale=v)),
        "a number of numpy": (
            lambda t: t * rate.scale,
            lambda v: setattr(rate, "scale", np.float32(v)),
        ),
        "a list": (lambda t: t * listed[0], lambda v: listed.__setitem__(0, v)),
        "a dict": (lambda t: t * named["scale"], lambda v: named.update(scale=v)),
        "a dict in a dict": (
            lambda t: t * inside["model"]["scale"],
            lambda v: inside["model"].update(scale=v),
        ),
        "a class": (lambda t: t * Settings.scale, lambda v: setattr(Settings, "scale", v)),
        "a module": (lambda t: t * module.scale, lambda v: setattr(module, "scale", v)),
        "an object": (lambda t: t * plain.scale, lambda v: setattr(plain, "scale", v)),
        "a tensor of an object": (
            lambda t: t * tensors.scale,
            lambda v: setattr(tensors, "scale", Tensor(v)),
        ),
        "a dict of an object": (
            lambda t: t * deep.config["scale"],
            lambda v: deep.config.update(scale=v),
        ),
        "a dict of tensors": (lambda t: t * weights["w"], lambda v: weights.update(w=Tensor([v]))),
    }


@BACKENDS
@pytest.mark.parametrize("holder", list(holders()))
def test_a_factor_is_looked_at_wherever_it_lies(holder, backend):
    body, change = holders()[holder]
    step = jit(body, backend=backend)
    for factor in (2.0, 3.0, 2.0, 5.0):
        change(factor)
        for _ in range(3):
            assert step(x(2)).tolist() == [factor, 2 * factor]


class Counter:
    def __init__(self):
        self.scale, self.done = Tensor(2.0), 0

    def step(self, t):
        return t * self.scale * getattr(self, "other", 1.0)


named = Counter()
step = jit(
    lambda t: named.step(t), backend="numpy"
)  # a global with the name of the method that it calls


def test_what_lies_inside_a_step_is_not_looked_at(monkeypatch):
    for _ in range(4):
        assert step(x(2)).tolist() == [2, 4]
    monkeypatch.setattr(
        surroundings, "_objects", None
    )  # all objects again: what takes a millisecond
    for _ in range(3):
        assert step(x(2)).tolist() == [2, 4]


def test_a_counter_beside_what_the_step_uses_costs_little_and_hides_nothing(monkeypatch):
    trainer, calls = Counter(), []

    def body(t):
        calls.append(1)
        return trainer.step(t)

    counted = jit(body, backend="numpy")
    with pytest.warns(RuntimeWarning, match="body changes calls itself"):
        for trainer.done in (0, 0, 0, 1, 2, 3, 4):
            assert counted(x(2)).tolist() == [2, 4]
    assert len(calls) == 4  # the counter might have mattered, once
    with monkeypatch.context() as nothing:
        nothing.setattr(surroundings, "_objects", None)
        for trainer.done in range(6, 9):
            assert counted(x(2)).tolist() == [2, 4]
    trainer.done, trainer.scale = 9, Tensor(3.0)
    assert counted(x(2)).tolist() == [3, 6]
    del trainer.done
    trainer.other = 2.0  # in the counter's place
    assert counted(x(2)).tolist() == [6, 12]


@BACKENDS
@pytest.mark.parametrize("calls", [1, 2, 3, 5])
@pytest.mark.filterwarnings("ignore:minigrad.jit. epoch changes from call to call")
def test_what_made_no_difference_before_may_make_one_later(calls, backend):
    config = SimpleNamespace(epoch=0)
    step = jit(lambda t: t * (10.0 if config.epoch >= 4 else 1.0), backend=backend)
    for config.epoch in range(8):
        for _ in range(calls):
            assert step(x(1)).item() == (10 if config.epoch >= 4 else 1)


def test_what_changes_at_each_call_and_is_named_is_not_ignored_and_said():
    config = SimpleNamespace(epoch=0)
    step = jit(lambda t: t * (10.0 if config.epoch >= 4 else 1.0), backend="numpy")
    with pytest.warns(
        RuntimeWarning, match="epoch changes from call to call, and <lambda> names it"
    ) as caught:
        for config.epoch in range(8):
            step(x(1))
    assert len(caught) == 1 and caught[0].filename == __file__


def test_a_list_that_takes_the_place_of_another_is_another():
    settings, step = [1.0], jit(lambda t: t * settings[0], backend="numpy")
    for factor in range(1, 9):
        settings = None  # its memory may be given to the next one
        settings = [float(factor)]
        for _ in range(3):
            assert step(x(2)).tolist() == [factor, 2 * factor]


def test_a_list_that_the_step_appends_to_does_not_keep_it_from_being_replayed():
    calls, losses = [], []

    def body(t):
        calls.append(1)
        losses.append(t)
        return t * 2

    step = jit(body, backend="numpy")
    with pytest.warns(RuntimeWarning, match="body changes calls, losses itself") as caught:
        for _ in range(6):
            assert step(x(2)).tolist() == [2, 4]
    assert len(calls) == 2 and len(caught) == 1


@pytest.mark.parametrize(
    "use", [lambda t, a: t * a, lambda t, a: t * Tensor(a)], ids=["operand", "Tensor"]
)
@pytest.mark.parametrize("size", [2, 40000])
def test_an_array_of_numpy_that_is_written_to_is_noticed(use, size):
    factors = np.ones(size, np.float32)
    step = jit(lambda t: use(t, factors), backend="numpy")
    for factor in (1, 3, 4):
        factors[-1] = factor
        for _ in range(3):
            assert step(x(size)).data[-1] == size * factor


@BACKENDS
def test_freezing_and_unfreezing_weights_is_noticed(backend):
    body, head = nn.Linear(3, 2), nn.Linear(2, 2)

    def run(t):
        for p in (*body.parameters(), *head.parameters()):
            p.grad = None
        loss = (head(body(t)) ** 2).sum()
        loss.backward()
        return loss

    step = jit(run, backend=backend)
    for wanted in (False, True, False):
        body.requires_grad_(wanted)
        for _ in range(4):
            step(x(1, 3))
            assert (body.weight.grad is not None) == wanted and head.weight.grad is not None


@BACKENDS
def test_weights_that_lie_otherwise_in_memory_make_a_new_program(backend):
    weight = Tensor(np.arange(6, dtype=np.float32).reshape(2, 3))
    step = jit(lambda t: t @ weight, backend=backend)
    for array in (
        weight.data,
        np.asfortranarray(weight.data + 1),
        np.arange(12, dtype=np.float32).reshape(2, 6)[:, ::2],
    ):
        weight.data = array
        for _ in range(3):
            assert np.array_equal(step(x(4, 2)).numpy(), x(4, 2).numpy() @ array)


@BACKENDS
def test_an_optimizer_that_loads_its_state_goes_on_from_it(backend):
    def build(wrap):
        model = nn.Linear(3, 2)
        for p in model.parameters():
            p.assign(np.ones(p.shape)) if not p.requires_grad else p.data.fill(1)
        optimizer = optim.Adam(model.parameters(), lr=0.1)

        def body(t):
            optimizer.zero_grad()
            loss = (model(t) ** 2).sum()
            loss.backward()
            optimizer.step()
            return loss

        step, losses = wrap(body), []
        losses += [step(x(2, 3)).item() for _ in range(5)]
        saved = {k: v.numpy().copy() for k, v in model.state_dict().items()}, optimizer.state_dict()
        losses += [step(x(2, 3)).item() for _ in range(5)]
        model.load_state_dict(saved[0])
        optimizer.load_state_dict(saved[1])
        return losses + [step(x(2, 3)).item() for _ in range(5)]

    assert build(lambda f: jit(f, backend=backend)) == pytest.approx(build(lambda f: f), rel=1e-5)


@BACKENDS
def test_tensors_that_share_memory_with_what_the_step_changes_are_right(backend, recwarn):
    whole = Tensor(np.zeros(6, np.float32))
    part = Tensor._wrap(whole.data[:3])

    def body(t):
        before = part * 2 + t
        whole.assign(whole + 1)
        return before, part * 2 + t

    step = jit(body, backend=backend)
    for i in range(5):
        before, after = step(x(3, start=0.0))
        assert before.tolist() == [2 * i, 2 * i + 1, 2 * i + 2] and after.tolist() == [
            2 * i + 2,
            2 * i + 3,
            2 * i + 4,
        ]


def test_writing_past_the_ops_is_refused():
    weight = Tensor(np.ones(3, np.float32))

    @jit
    def step(t):
        weight.data -= 0.1 * t.data
        return weight * t

    step(x(3))
    with pytest.raises(CaptureError, match="by way of numpy") as caught:
        step(x(3))
    assert "assign" in str(caught.value)
