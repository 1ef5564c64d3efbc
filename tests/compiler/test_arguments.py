"""Arguments and results of a step: which tensor is which, what becomes of their gradients, and what
is handed back.
"""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest

from minigrad import Tensor, func, grad, nn, optim
from minigrad.compiler import jit
from minigrad.errors import CaptureError

BACKENDS = pytest.mark.parametrize("backend", ["numpy", "c"])
Pair = namedtuple("Pair", "x y")


def x(*shape, start=0.0):
    return Tensor((np.arange(int(np.prod(shape)), dtype=np.float32) + start).reshape(shape))


@BACKENDS
@pytest.mark.parametrize(
    "twice",
    [lambda a: (a.numpy(),) * 2, lambda a: (a, a.detach()), lambda a: (a, a)],
    ids=["array", "detached", "tensor"],
)
def test_one_array_for_two_arguments_is_no_rule_for_later_calls(twice, backend):
    step = jit(lambda a, b: a * 2 + b, backend=backend)
    for _ in range(3):
        assert step(*twice(x(3))).tolist() == [0, 3, 6]
    for _ in range(3):
        assert step(x(3), x(3, start=10)).tolist() == [10, 13, 16]


@BACKENDS
@pytest.mark.parametrize(
    "way",
    [lambda w: w, lambda w: w.detach(), lambda w: w.numpy()],
    ids=["itself", "detached", "array"],
)
def test_an_argument_that_the_function_knows_already_is_told_apart_from_it(way, backend):
    w = x(3, start=1)
    step = jit(lambda a: a * 2 + w, backend=backend)
    for _ in range(3):
        assert step(way(w)).tolist() == [3, 6, 9]
    for _ in range(4):
        assert step(x(3)).tolist() == [1, 4, 7]
        assert step(way(w)).tolist() == [3, 6, 9]


@BACKENDS
def test_an_argument_that_is_returned_is_the_one_of_the_call(backend):
    step = jit(lambda a: (a, a * 2), backend=backend)
    for i in range(5):
        given = x(3, start=i)
        same, double = step(given)
        assert same is given and double.tolist() == [2 * i, 2 * i + 2, 2 * i + 4]


@BACKENDS
def test_the_gradient_of_an_argument_goes_to_the_argument_of_the_call(backend):
    step = jit(lambda a: (a * a).sum().backward(), backend=backend)
    for i in range(5):
        given = x(3, start=i).requires_grad_()
        step(given)
        step(given)
        assert given.grad.tolist() == [4 * i, 4 * i + 4, 4 * i + 8]


@BACKENDS
def test_an_argument_that_is_asked_for_a_gradient_inside_requires_one_afterwards(backend):
    def body(a):
        a.requires_grad_()
        (a * a).sum().backward()
        return a.grad * 1

    step = jit(body, backend=backend)
    for i in range(5):
        given = x(3, start=i)
        assert step(given).tolist() == given.grad.tolist() == [2 * i, 2 * i + 2, 2 * i + 4]
        assert given.requires_grad


@BACKENDS
def test_derivatives_of_derivatives_with_respect_to_an_argument(backend):
    def f(w, a):
        return ((w * a).tanh() ** 2).sum()

    def penalty(a):
        a = a.detach().requires_grad_()
        (slope,) = grad(model(a).tanh().sum(), [a], create_graph=True)
        return ((slope * slope).sum() - 1) ** 2

    model = nn.Linear(3, 1)
    for body in (
        lambda w: func.value_and_grad(f)(w, x(3)),
        lambda w: func.hessian(lambda w: f(w, x(3)))(w),
        lambda w: penalty(w[None]),
    ):
        step = jit(body, backend=backend)
        for i in range(4):
            got, wanted = step(x(3, start=i / 10)), body(x(3, start=i / 10))
            pairs = zip(got, wanted, strict=True) if isinstance(got, tuple) else [(got, wanted)]
            assert all(np.allclose(g.numpy(), w.numpy(), rtol=1e-5, atol=1e-6) for g, w in pairs)


@BACKENDS
def test_named_tuples_and_ordered_dicts_come_and_go(backend):
    step = jit(
        lambda pair, more: Pair(OrderedDict(a=pair.x * 2), pair.y + more["b"]), backend=backend
    )
    for i in range(6):
        out = step(Pair(x(2, start=i), x(2)), OrderedDict(b=x(2)))
        assert (
            type(out) is Pair
            and out.x["a"].tolist() == [2 * i, 2 * i + 2]
            and out.y.tolist() == [0, 2]
        )
    assert repr(step).endswith("1 program>")


def test_a_number_of_numpy_is_an_argument_by_value():
    step = jit(lambda a, k: a * k, backend="numpy")
    for k in (2, 2, 2, 3, 3, 3, 2):
        assert step(x(2, start=1), np.float32(k)).tolist() == [k, 2 * k]
    assert repr(step).endswith("2 programs>")


def test_programs_that_are_dropped_all_the_time_are_told_of_once():
    step = jit(lambda a, k: a * k, backend="numpy", max_programs=4)
    with pytest.warns(RuntimeWarning, match="pass numbers that change as tensors") as told:
        for k in range(60):
            assert step(x(2, start=1), k).tolist() == [k, 2 * k]
    assert len(told) == 1 and told[0].filename == __file__


@BACKENDS
def test_a_computed_argument_hands_its_gradient_on_where_a_leaf_had_it(backend):
    w, v = nn.Parameter([1.0, 2.0]), nn.Parameter([3.0, 4.0])

    @jit(backend=backend, audit=False)
    def step(t):
        (t * v).sum().backward()

    for _ in range(3):
        leaf = Tensor([5.0, 6.0], requires_grad=True)
        step(leaf)
        assert leaf.grad.tolist() == [3, 4] and w.grad is None
    step(w * 2)
    assert w.grad.tolist() == [6, 8]


# --- what cannot be replayed is refused


def refused(body, *args):
    step = jit(body, backend="numpy")
    with pytest.raises(CaptureError) as caught:
        for _ in range(3):
            step(*args)
    return str(caught.value)


def test_a_returned_number_that_changes_is_refused():
    count = [0]

    def body(a):
        count[0] += 1
        return a * 2, count[0]

    assert "1" in refused(body, x(2)) and count[0] == 2


def test_a_returned_number_of_numpy_is_refused():
    assert "outside the step" in refused(lambda a: (a * 2, a.data.max()), x(2))


def test_a_returned_object_that_is_made_anew_is_refused():
    @dataclass
    class Result:
        loss: Tensor

    assert "named tuples" in refused(lambda a: Result(a * 2), x(2))


def test_a_list_that_is_given_and_changed_is_refused():
    log = []
    assert "outside the step" in refused(lambda a, log: log.append(a * 2), x(2), log)
    assert "outside the step" in refused(lambda named: named.update(a=named["a"] * 2), {"a": x(2)})


@BACKENDS
def test_a_returned_name_that_changes_later_is_not_replayed_away(backend):
    class Tagged(nn.Module):
        def __init__(self):
            self.tag = "a"

    model = Tagged()
    step = jit(lambda a: {"double": a * 2, "tag": model.tag}, backend=backend)
    for tag in ("a", "b", "a"):
        model.tag = tag
        for _ in range(4):
            assert step(x(2))["tag"] == tag


def test_a_step_without_ops_is_not_replayed():
    model = nn.Linear(2, 2)

    def clear():
        for p in model.parameters():
            p.grad = None

    step = jit(clear, backend="numpy")
    for _ in range(4):
        model(x(1, 2)).sum().backward()
        step()
        assert model.weight.grad is None


@BACKENDS
def test_an_evaluation_recorded_before_there_were_gradients_does_not_clear_them(backend):
    model = nn.Linear(3, 2)
    evaluate = jit(lambda a: model(a).detach(), backend=backend)
    for _ in range(4):
        evaluate(x(1, 3))
    model(x(1, 3, start=1)).sum().backward()
    for _ in range(4):
        evaluate(x(1, 3))
        assert model.weight.grad.tolist() == [[1, 2, 3]] * 2


@BACKENDS
def test_a_step_of_another_model_clears_what_eager_would_clear(backend):
    body, head = nn.Linear(2, 2), nn.Linear(2, 2)

    def run(a):
        for p in (*body.parameters(), *head.parameters()):
            p.grad = None
        (head(body(a).detach()) ** 2).sum().backward()

    step = jit(run, backend=backend)
    for i in range(8):
        step(x(1, 2, start=1))
        assert body.weight.grad is None and head.weight.grad is not None
        if i in (3, 6):
            body(x(1, 2)).sum().backward()


@BACKENDS
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gradients_that_mixed_precision_collects_inside_the_step_are_new_ones(backend, dtype):
    def run(wrap):
        weight = nn.Parameter(np.ones((3, 3), np.float32))
        mixed = optim.MixedPrecision(
            [weight], lambda params: optim.AdamW(params, lr=0.1), dtype=dtype, loss_scale=8
        )

        def body(a):
            mixed.zero_grad()
            loss = ((a @ weight.float()) ** 2).mean()
            mixed.backward(loss)
            mixed.collect()
            return loss

        step, found = wrap(body), []
        for i in range(6):
            found.append((step(x(2, 3, start=i)).item(), mixed.masters[0].grad.tolist()))
            assert weight.grad is None
            mixed.update()
        return found

    for (loss, gradient), (wanted, wanted_gradient) in zip(
        run(lambda f: jit(f, backend=backend)), run(lambda f: f), strict=True
    ):
        assert loss == pytest.approx(wanted, rel=1e-2) and np.allclose(
            gradient, wanted_gradient, rtol=2e-2
        )


@BACKENDS
def test_a_gradient_that_the_step_clears_of_a_weight_it_does_not_use_is_cleared(backend):
    used, other = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = optim.SGD([*used.parameters(), *other.parameters()], lr=0.1)

    def body(a):
        optimizer.zero_grad()
        used(a).sum().backward()

    step = jit(body, backend=backend)
    for i in range(9):
        step(x(1, 2))
        assert other.weight.grad is None
        if i % 3:
            other(x(1, 2)).sum().backward()
