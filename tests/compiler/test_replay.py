"""Replay is eager: to the bit with numpy, to rounding in C, for random programs and any number of
threads.
"""

import numpy as np
import pytest
from random_programs import Program, differences, generate

from minigrad import Tensor, no_grad, ops
from minigrad.compiler import jit

rng = np.random.default_rng(0)
EPS = float(np.finfo(np.float32).eps)


def tensor(*shape, scale=1.0):
    return Tensor(rng.normal(0, scale, shape).astype(np.float32), requires_grad=True)


def close(got, wanted, factor=64):
    scale = max(1.0, float(np.abs(wanted).max(initial=0)))
    return np.allclose(got, wanted, rtol=0, atol=factor * EPS * scale, equal_nan=True)


@pytest.mark.parametrize("seed", range(0, 200, 20))
def test_random_programs_replayed_by_numpy_are_eager_to_the_bit(seed):
    for program in (generate(seed + i, length=12) for i in range(20)):
        assert not differences(program, "numpy"), program.describe()


def test_three_gradients_in_different_orders_of_axes_are_added_as_eager_adds_them():
    lines = "v0 = b * p0 + p1", "v1 = v0 + v0.softmax(0)", "v2 = v0.var(2) + v1.transpose(0, 0)"
    states = {"p0": ((8,), True), "p1": ((8,), True)}
    program = Program(
        91, (((3, 8), "plain"), ((1, 8, 8), "transposed")), "leave", states, lines, ("v2",)
    )
    assert not differences(program, "numpy")


def test_gelu_of_a_number_without_axes_is_compiled():
    lines = "v0 = a.sum()", 'v1 = functional.gelu(v0, "tanh")'
    program = Program(0, (((2, 3), "plain"), ((1,), "plain")), "none", {}, lines, ("v1",))
    assert not differences(program, "c")


@pytest.mark.parametrize("seed", range(1000, 1012))
def test_random_programs_compiled_are_eager_to_rounding(seed):
    program = generate(seed, length=25)
    assert not differences(program, "c"), program.describe()


def mlp_step(backend, threads=None):
    local = np.random.default_rng(2)
    w1, w2 = (
        Tensor(local.normal(0, 0.1, s).astype(np.float32), requires_grad=True)
        for s in ((48, 33), (33, 7))
    )
    rate = Tensor(0.1)

    def step(x, y):
        w1.grad = w2.grad = None
        hidden = (x @ w1).tanh()
        loss = (((hidden @ w2) - y) ** 2).mean()
        loss.backward()
        with no_grad():
            for w in (w1, w2):
                w.assign(w - rate * w.grad)
        return loss.detach()

    return (
        (step if backend is None else jit(step, backend=backend, threads=threads)),
        (w1, w2),
        rate,
    )


def train(backend, threads=None, steps=50):
    step, weights, rate = mlp_step(backend, threads)
    local, losses = np.random.default_rng(3), []
    for i in range(steps):
        if i == 30:
            rate.assign(0.05)  # a schedule changes numbers, not the program
        x, y = (
            Tensor(local.normal(size=(64, 48)).astype(np.float32)),
            Tensor(local.normal(size=(64, 7)).astype(np.float32)),
        )
        losses.append(step(x, y).item())
    return losses, [w.numpy().copy() for w in weights], [w.grad.numpy().copy() for w in weights]


def test_fifty_steps_replayed_by_numpy_are_eager_to_the_bit():
    for got, wanted in zip(train("numpy"), train(None), strict=True):
        assert all(np.array_equal(g, w) for g, w in zip(got, wanted, strict=True))


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_fifty_compiled_steps_are_eager_to_rounding_with_any_number_of_threads(threads):
    for got, wanted in zip(train("c", threads), train(None), strict=True):
        assert all(close(np.asarray(g), np.asarray(w)) for g, w in zip(got, wanted, strict=True))


@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid", "log", "sqrt"])
def test_functions_of_the_prelude_are_within_two_ulp_and_keep_nan_and_inf(name):
    x = np.concatenate(
        [rng.normal(0, s, 4000) for s in (1e-6, 0.1, 1, 10, 60)] + [np.linspace(-105, 90, 4001)]
    ).astype(np.float32)
    x = np.concatenate(
        [x, np.float32([0, -0.0, np.inf, -np.inf, np.nan, 1e-42, -1e-42, 3e38, -3e38])]
    )
    jitted = jit(lambda t: getattr(t, name)(), backend="c")
    for _ in range(3):
        got = jitted(Tensor(x)).numpy()
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"):
        wanted = {"sigmoid": lambda v: 1 / (1 + np.exp(-v))}.get(name, getattr(np, name, None))(
            wide
        )
        rounded = wanted.astype(np.float32)
    assert np.array_equal(np.isnan(got), np.isnan(rounded))
    finite = np.isfinite(rounded)
    assert np.array_equal(got[~finite & ~np.isnan(rounded)], rounded[~finite & ~np.isnan(rounded)])
    error = np.abs(got[finite] - wanted[finite]) / np.spacing(np.abs(rounded[finite]))
    assert error.max() <= 2.5, (x[finite][error.argmax()], error.max())


def attention_inputs(T, D, poison):
    local = np.random.default_rng(4)
    q, k, v, g = (local.normal(size=(2, 3, T, D)).astype(np.float32) for _ in range(4))
    if poison:
        k[:, :, T // 2 :], v[:, :, T // 2 :] = np.nan, np.inf
    return [Tensor(a) for a in (q, k, v, g)]


@pytest.mark.parametrize(
    ("T", "D", "poison"),
    [
        (1, 4, False),
        (63, 8, False),
        (64, 8, False),
        (65, 5, False),
        (130, 16, False),
        (70, 8, True),
    ],
)
def test_causal_attention_in_tiles_is_eager_and_what_is_behind_the_mask_stays_there(T, D, poison):
    def step(q, k, v, g):
        q, k, v = (t.detach().requires_grad_() for t in (q, k, v))
        out = ops.attention(q, k, v, scale=0.5, offset=0)[0]
        return out.detach(), *out.gradient(q, k, v, gradient=g)

    inputs = attention_inputs(T, D, poison)
    wanted = [t.numpy() for t in step(*inputs)]
    jitted = jit(step, backend="c")
    for _ in range(3):
        got = [t.numpy() for t in jitted(*inputs)]
    seen = slice(0, T // 2) if poison else slice(None)
    for g, w in zip(
        got[:2], wanted[:2], strict=True
    ):  # outputs and dq of queries that see no poison
        assert close(g[:, :, seen], w[:, :, seen], 256)
    if not poison:
        assert all(close(g, w, 256) for g, w in zip(got, wanted, strict=True))


def test_no_scatter_races_in_an_embedding_with_many_repeats():
    table, index = tensor(11, 6), Tensor(rng.integers(0, 11, (40, 9)))

    def step(i, g):
        table.grad = None
        ops.embedding(table, i).backward(g)
        return (table.grad * 1).detach()

    g = tensor(40, 9, 6).detach()
    wanted = step(index, g).numpy()
    jitted = jit(step, backend="c", threads=7)
    for _ in range(3):
        got = jitted(index, g).numpy()
    assert close(got, wanted)


def test_what_has_no_c_goes_through_numpy_between_compiled_parts():
    step = jit(lambda x: (ops.argsort((x * 2).tanh(), axis=-1), (x.tanh() + 1).sum()), backend="c")
    for _ in range(3):
        x = tensor(4, 5).detach()
        order, total = step(x)
    assert np.array_equal(order.numpy(), x.numpy().argsort(-1)) and total.item() == pytest.approx(
        float((np.tanh(x.numpy()) + 1).sum()), rel=1e-6
    )
    assert "through numpy: argsort" in step.explain()


def test_gelu_and_its_gradient_are_eager_at_the_edges_too():
    x = np.concatenate(
        [np.linspace(-12, 12, 4001), [0, np.inf, -np.inf, np.nan, 1e20, -1e20, -30, 30]]
    ).astype(np.float32)

    def step(t):
        t = t.detach().requires_grad_()
        y = ops.gelu_tanh(t)[0]
        unasked = ops.where(t.isfinite(), ops.gelu_tanh(t)[0], 0.0).sum().gradient(t)[0]
        return y.detach(), y.sum().gradient(t)[0], unasked

    wanted, jitted = step(Tensor(x)), jit(step, backend="c")
    for _ in range(3):
        got = jitted(Tensor(x))
    for g, w in zip(got, wanted, strict=True):
        assert np.allclose(g.numpy(), w.numpy(), rtol=0, atol=16 * EPS * 12, equal_nan=True)
    assert "through numpy" not in jitted.explain() and "numpy replay" not in jitted.explain()


@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
def test_dropout_in_c_draws_eagers_bits_and_leaves_the_generator_where_eager_does(p):
    from minigrad.random import Generator

    def masks(wrap):
        generator = Generator(7)
        step = wrap(
            lambda t: (
                ops.dropout(t, generator.state, p=p)[1],
                ops.dropout(t[1:] * 1, generator.state, p=p)[0],
            )
        )
        x = Tensor(np.ones((5, 37), np.float32))
        return [[t.numpy() for t in step(x)] for _ in range(5)], generator.get_state()

    wanted = masks(lambda f: f)
    for threads in (1, 3):
        steps = []
        got = masks(
            lambda f, n=threads, kept=steps: kept.append(jit(f, backend="c", threads=n)) or kept[0]
        )
        assert got[1] == wanted[1] and "through numpy" not in steps[0].explain()
        assert all(
            np.array_equal(g, w)
            for a, b in zip(got[0], wanted[0], strict=True)
            for g, w in zip(a, b, strict=True)
        )


@pytest.mark.parametrize("name", ["softmax", "logsumexp", "max"])
def test_rows_with_infinities_are_eager(name):
    x = np.float32(
        [
            [0, 1, 2],
            [-np.inf, 0, 1],
            [-np.inf] * 3,
            [np.inf, 0, 1],
            [np.inf, np.inf, 1],
            [np.nan, 0, 1],
            [1e4, -1e4, 1e4],
        ]
    )
    jitted = jit(lambda t: getattr(ops, name)(t, axis=-1), backend="c")
    for _ in range(3):
        got = jitted(Tensor(x)).numpy()
    assert np.allclose(
        got, getattr(ops, name)(Tensor(x), axis=-1).numpy(), rtol=4 * EPS, atol=0, equal_nan=True
    )
    assert "numpy" not in jitted.explain()


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.uint32, np.uint64])
def test_integers_wrap_around_and_are_compared_as_in_numpy(dtype, recwarn):
    top = np.iinfo(dtype).max
    x = Tensor(np.array([top, top - 1, 0, 5], dtype))

    def step(a):
        return a * a + 12, a + 1 > a, a - 7, a > -1, a == 5

    jitted = jit(step, backend="c")
    for _ in range(3):
        got = jitted(x)
    assert all(
        np.array_equal(g.numpy(), w.numpy()) and g.dtype == w.dtype
        for g, w in zip(got, step(x), strict=True)
    )
    assert not recwarn.list


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("backend", ["numpy", "c"])
def test_a_step_on_16_bit_weights_is_eager(name, backend):
    import minigrad
    from minigrad import functional as F
    from minigrad.models.gpt import GPT, GPTConfig

    def run(wrap):
        minigrad.manual_seed(0)
        model = GPT(
            GPTConfig.gpt2(vocab_size=11, block_size=6, n_layer=1, n_head=2, n_embd=8, dropout=0.1)
        ).to(getattr(minigrad, name))
        optimizer = minigrad.optim.SGD(model.parameters(), lr=0.1)
        scale = Tensor(np.float32(2)).cast(getattr(minigrad, name))

        def body(tokens):
            optimizer.zero_grad()
            loss = model.loss(tokens, tokens) + F.relu(model.wte.weight * scale).mean().float()
            loss.backward()
            optimizer.step()
            return loss, model.wte.weight.sum()

        step, tokens = wrap(body), Tensor(np.arange(12).reshape(2, 6) % 11)
        losses = [[t.float().item() for t in step(tokens)] for _ in range(5)]
        return losses, [p.float().numpy().copy() for p in model.parameters()]

    (losses, weights), (wanted, wanted_weights) = (
        run(lambda f: jit(f, backend=backend)),
        run(lambda f: f),
    )
    if backend == "numpy":
        assert losses == wanted and all(
            np.array_equal(p, q) for p, q in zip(weights, wanted_weights, strict=True)
        )
    assert np.allclose(losses, wanted, rtol=2e-2) and all(
        np.allclose(p, q, atol=2e-2) for p, q in zip(weights, wanted_weights, strict=True)
    )


@pytest.mark.parametrize("backend", ["numpy", "c"])
def test_dropout_that_is_computed_again_by_checkpoint_draws_the_same_bits(backend):
    import minigrad
    from minigrad import functional as F

    def run(wrap):
        minigrad.manual_seed(0)
        w = Tensor(np.ones((8, 8), np.float32), requires_grad=True)

        def body(x):
            w.grad = None
            y = minigrad.checkpoint(lambda h: F.dropout(F.dropout(h @ w, 0.5).tanh() @ w, 0.5), x)
            F.dropout(y, 0.3).sum().backward()
            return y

        step, x = wrap(body), Tensor(np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8))
        found = [(step(x).numpy(), w.grad.numpy().copy()) for _ in range(5)]
        return found, minigrad.random.default_generator.get_state()

    (got, state), (wanted, wanted_state) = run(lambda f: jit(f, backend=backend)), run(lambda f: f)
    assert state == wanted_state
    for pair, wanted_pair in zip(got, wanted, strict=True):
        assert all(
            np.allclose(g, w, atol=0 if backend == "numpy" else 1e-5)
            for g, w in zip(pair, wanted_pair, strict=True)
        )


def test_a_seed_that_is_set_inside_the_step_is_refused():
    import minigrad
    from minigrad import functional as F

    def body(x):
        minigrad.manual_seed(3)
        return F.dropout(x, 0.5)

    step = jit(body, backend="numpy")
    step(Tensor(np.ones(64, np.float32)))
    with pytest.raises(minigrad.errors.CaptureError, match="its ops do not show"):
        step(Tensor(np.ones(64, np.float32)))


@pytest.mark.parametrize("backend", ["numpy", "c"])
@pytest.mark.parametrize(
    "shape, source",
    [
        ((4,), (1, 4)),
        ((5, 1), (1, 5, 1)),
        ((2, 3), (1, 1, 3)),
        ((), (1, 1)),
        ((3, 4), (1, 1, 4, 3)),
    ],
)
def test_a_state_is_assigned_what_has_more_axes_in_front(shape, source, backend):
    def body(t):
        value = t * 3
        with no_grad():
            state.assign(value.transpose(-1, -2) if len(source) == 4 else value)
        return state + 1

    step = jit(body, backend=backend)
    state = Tensor(np.zeros(shape, np.float32))
    for i in range(4):
        t = Tensor(np.arange(np.prod(source), dtype=np.float32).reshape(source) + i)
        wanted = np.zeros(shape, np.float32)
        wanted[...] = t.numpy().swapaxes(-1, -2) * 3 if len(source) == 4 else t.numpy() * 3
        assert np.array_equal(step(t).numpy(), wanted + 1) and np.array_equal(state.numpy(), wanted)
