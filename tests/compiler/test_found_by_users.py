"""Programs that once went wrong without a word: a replay is what the eager call would be."""

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, jit, nn, optim
from minigrad.compiler import select
from minigrad.errors import IndexRangeError, ShapeError

BACKENDS = pytest.mark.parametrize("backend", ["numpy", "c"])


def some(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@BACKENDS
def test_a_residual_around_a_norm_behind_a_transpose(backend):
    """The C of layer_norm's backward cannot take the residual's gradient along; it was lost."""
    norm, p = nn.LayerNorm(8), Tensor(some(8, 10), requires_grad=True)

    def step(x):
        h = (p * x).transpose(0, 1)
        loss = (h + norm(h)).tanh().sum()
        loss.backward()
        return loss

    found = []
    for run in (step, jit(step, backend=backend)):
        p.grad = None
        for i in range(5):
            run(Tensor(some(8, 10, seed=i)))
        found.append(p.grad.data)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-5)


@BACKENDS
@pytest.mark.parametrize(
    "lay",
    [np.asfortranarray, lambda a: np.stack([a, a], -1)[..., 0], lambda a: a[::-1]],
    ids=["columns", "gaps", "backwards"],
)
def test_an_argument_with_other_strides_than_when_it_was_recorded(lay, backend):
    step = jit(lambda x: (x.reshape(4, 3), x.reshape(-1).cumprod(0), x * 2), backend=backend)
    for i in range(5):
        a = some(3, 4, seed=i)
        a = a if i < 2 else lay(a)
        reshaped, summed, doubled = step(Tensor(a))
        assert np.array_equal(reshaped.data, a.reshape(4, 3)) and np.array_equal(
            doubled.data, a * 2
        )
        np.testing.assert_allclose(summed.data, a.reshape(-1).cumprod(), rtol=1e-5, atol=1e-6)


@BACKENDS
def test_an_argument_that_numpy_spreads_is_not_read_past_its_end(backend):
    step = jit(lambda x: (x.reshape(-1).logcumsumexp(0), x.reshape(-1)), backend=backend)
    for i in range(3):
        last, flat = step(
            np.ones((300, 300), np.float32) if i < 2 else np.broadcast_to(np.float32(1), (300, 300))
        )
        assert np.isclose(last.data[-1], 1 + np.log(90000)) and flat.data.all()


@BACKENDS
@pytest.mark.parametrize(
    "make",
    [lambda p: optim.SGD(p, lr=0.05, momentum=0.9), lambda p: optim.AdamW(p, lr=0.05)],
    ids=["SGD", "AdamW"],
)
def test_freezing_for_a_while_leaves_moments_and_steps_as_in_eager(make, backend):
    """The optimizer makes new moments for what is frozen; the program from before wrote to the old
    ones.
    """

    def run(wrap):
        minigrad.manual_seed(0)
        model = nn.Linear(3, 1)
        optimizer = make(model.parameters())

        def step(x):
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        step = wrap(step)
        for i in range(12):
            if i in (4, 8):
                model.weight.requires_grad_(i == 8)
            step(Tensor(some(4, 3, seed=i)))
        return model.weight.data, optimizer.state_dict()["state"]

    (weight, state), (wanted, wanted_state) = (
        run(lambda f: jit(f, backend=backend)),
        run(lambda f: f),
    )
    np.testing.assert_allclose(weight, wanted, rtol=1e-5)
    assert (
        [s["step"] for s in state.values()] == [s["step"] for s in wanted_state.values()] == [8, 12]
    )


@BACKENDS
def test_an_alias_of_an_argument_that_is_returned_follows_the_argument(backend):
    weight = Tensor([5.0])

    @jit(backend=backend)
    def step(x):
        d = x.detach()
        return d, d * weight, x, weight

    for i in range(5):
        x = Tensor([float(i)])
        alias, product, same, held = step(x)
        assert (alias.item(), product.item()) == (i, 5.0 * i) and same is x and held is weight


@BACKENDS
def test_an_index_out_of_range_does_nothing_twice(backend):
    count, table = Tensor([0.0]), nn.Embedding(10, 4)

    @jit(backend=backend, audit=False)
    def step(x):
        with minigrad.no_grad():
            count.assign(count + 1)
        return table(x).sum()

    for _ in range(3):
        step(Tensor([1]))
    with pytest.raises(IndexError, match=r"embedding: index 99 is outside 0\.\.9"):
        step(Tensor([99]))
    assert count.item() == 4


@pytest.mark.parametrize(
    "make",
    [lambda p: optim.SGD(p, lr=0.1), lambda p: optim.AdamW(p, lr=0.1), None],
    ids=["SGD", "AdamW", "added up"],
)
def test_a_wrong_gradient_is_seen_whatever_becomes_of_it(make, monkeypatch):
    """Half as much again, put in by hand: cleared at the end of the step, or added to what lay in
    .grad.
    """
    right = select.lower_rows

    def wrong(call):
        kernels = right(call)
        for k in kernels if call.line.op is minigrad.ops.gelu_tanh_grad else ():
            k.body += "\n    for (int64_t i = lo * 8; i < hi * 8; i++) y[i] *= 1.5f;"
        return kernels

    monkeypatch.setattr(select, "lower_rows", wrong)
    first, second = nn.Linear(4, 8), nn.Linear(8, 1)
    optimizer = make([*first.parameters(), *second.parameters()]) if make else None

    @jit(backend="c")
    def step(x):
        loss = second(minigrad.functional.gelu(first(x), approximate="tanh")).square().mean()
        loss.backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()
        return loss

    with pytest.warns(RuntimeWarning, match="differs from the eager one"):
        for i in range(4):
            step(Tensor(some(5, 4, seed=i)))


def test_an_op_of_the_users_own_with_another_shape_is_not_stretched():
    @minigrad.primitive(kind="gather")
    def positive(x):
        return x[x > 0]

    step = jit(lambda x: positive(x).sum(), backend="c")
    for values in ([1.0, 2, -1], [-1.0, 3, 4]):
        assert step(Tensor(values)).item() == sum(v for v in values if v > 0)
    with pytest.raises(ShapeError, match=r"positive gives \(1,\), \(2,\) when it was recorded"):
        step(Tensor([7.0, -1, -1]))


@pytest.mark.parametrize(
    "choose",
    [
        lambda t, i: t[i],
        lambda t, i: t.gather(0, i),
        lambda t, i: minigrad.functional.one_hot(i, 3),
    ],
    ids=["x[i]", "gather", "one_hot"],
)
def test_an_index_out_of_range_is_named(choose):
    t, step = Tensor([1.0, 2.0, 3.0]), jit(choose, backend="c", audit=False)
    for _ in range(3):
        step(t, Tensor([2, 0]))
    assert "numpy" not in step.explain()
    with pytest.raises(IndexRangeError, match="index 9 is"):
        step(t, Tensor([2, 9]))


def write(t, i):
    t[i] = 0.0
    return t + 1


@BACKENDS
@pytest.mark.parametrize(
    "choose", [lambda t, i: t[i], lambda t, i: t[i, None], write], ids=["x[i]", "x[i, None]", "put"]
)
def test_an_index_that_numpy_refuses_is_the_error_of_eager_code(choose, backend):
    t, step = Tensor([1.0, 2.0, 3.0]), jit(choose, backend=backend, audit=False)
    for _ in range(3):
        step(t, Tensor([2, 0]))
    with pytest.raises(IndexRangeError, match=r"index 9 is out of bounds .*operands: float32"):
        step(t, Tensor([2, 9]))
