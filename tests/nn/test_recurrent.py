"""Recurrent networks, against the formulas in numpy, step by step."""

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, nn
from minigrad.errors import ShapeError


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_step(kind, w, x, state):
    """One step of a cell with weights `w`, from the formulas of its documentation."""
    gates = x @ w["weight_ih"].T + w.get("bias_ih", 0)
    past = state[0] @ w["weight_hh"].T + w.get("bias_hh", 0)
    if kind == "RNN":
        return (np.tanh(gates + past),)
    if kind == "GRU":
        (xr, xz, xn), (hr, hz, hn) = np.split(gates, 3, -1), np.split(past, 3, -1)
        r, z = sigmoid(xr + hr), sigmoid(xz + hz)
        n = np.tanh(xn + r * hn)
        return ((1 - z) * n + z * state[0],)
    i, f, g, o = np.split(gates + past, 4, -1)
    c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def numpy_layers(kind, module, x, state):
    """All layers and directions over x (T, N, C): the outputs and the last states."""
    w = {name: t.data for name, t in module.state_dict().items()}
    last = []
    for layer in range(module.num_layers):
        outputs = []
        for suffix in ("", "_reverse")[: 1 + module.bidirectional]:
            end = f"_l{layer}{suffix}"
            own = {name.removesuffix(end): v for name, v in w.items() if name.endswith(end)}
            now, ys = tuple(part[len(last)] for part in state), [None] * len(x)
            for t in reversed(range(len(x))) if suffix else range(len(x)):
                now = numpy_step(kind, own, x[t], now)
                ys[t] = now[0]
            outputs.append(np.stack(ys))
            last.append(now)
        x = np.concatenate(outputs, -1)
    return x, [np.stack(parts) for parts in zip(*last, strict=True)]


def as_tuple(state):
    return state if isinstance(state, tuple) else (state,)


KINDS = {"RNN": 1, "GRU": 1, "LSTM": 2}
rng = np.random.default_rng(0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [(), (4,)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_is_its_formula(kind, batch, bias):
    cell = getattr(nn, kind + "Cell")(3, 5, bias).to("float64")
    x = rng.normal(size=(*batch, 3))
    state = [rng.normal(size=(*batch, 5)) for _ in range(KINDS[kind])]
    tensors = tuple(map(Tensor, state))
    got = as_tuple(cell(Tensor(x), tensors if len(tensors) > 1 else tensors[0]))
    w = {name: t.data for name, t in cell.state_dict().items()}
    for ours, wanted in zip(got, numpy_step(kind, w, x, state), strict=True):
        assert np.allclose(ours.data, wanted, rtol=1e-12, atol=1e-14)
    zeros = [np.zeros((*batch, 5))] * KINDS[kind]
    for ours, wanted in zip(as_tuple(cell(Tensor(x))), numpy_step(kind, w, x, zeros), strict=True):
        assert np.allclose(ours.data, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_cells_over_the_sequence(kind, length, layers, bidirectional):
    module = getattr(nn, kind)(3, 5, layers, bidirectional=bidirectional).to("float64")
    x = rng.normal(size=(length, 2, 3))
    total = layers * (1 + bidirectional)
    state = [rng.normal(size=(total, 2, 5)) for _ in range(KINDS[kind])]
    tensors = tuple(map(Tensor, state))
    y, last = module(Tensor(x), tensors if len(tensors) > 1 else tensors[0])
    wanted, ends = numpy_layers(kind, module, x, state)
    assert np.allclose(y.data, wanted, rtol=1e-12, atol=1e-14)
    for ours, end in zip(as_tuple(last), ends, strict=True):
        assert np.allclose(ours.data, end, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_the_batch_may_come_first_or_be_left_out(kind):
    module = getattr(nn, kind)(3, 5, 2).to("float64")
    x = rng.normal(size=(4, 2, 3))
    y, last = module(Tensor(x))
    for i in range(2):
        single, end = module(Tensor(x[:, i]))
        assert single.shape == (4, 5)
        assert np.allclose(single.data, y.data[:, i], rtol=1e-12, atol=1e-14)
        for ours, whole in zip(as_tuple(end), as_tuple(last), strict=True):
            assert np.allclose(ours.data, whole.data[:, i], rtol=1e-12, atol=1e-14)
    module.batch_first = True
    z, end = module(Tensor(x.transpose(1, 0, 2)))
    assert np.array_equal(z.data, y.data.transpose(1, 0, 2))
    assert all(
        np.array_equal(a.data, b.data) for a, b in zip(as_tuple(end), as_tuple(last), strict=True)
    )


def test_dropout_is_between_layers_and_in_training_only():
    module = nn.GRU(3, 5, 2, dropout=1.0).to("float64")
    x = Tensor(rng.normal(size=(4, 2, 3)))
    y, h = module(x)
    zeros, _ = nn.GRU(3, 5).to("float64")(x * 0)
    second = nn.GRU(5, 5).to("float64")
    second.load_state_dict(
        {
            name.replace("l1", "l0"): t
            for name, t in module.state_dict().items()
            if name.endswith("l1")
        }
    )
    assert np.array_equal(y.data, second(zeros * 0)[0].data)
    assert not np.array_equal(module.eval()(x)[0].data, y.data)
    assert np.array_equal(module(x)[1].data[0], h.data[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_first_state_of_another_shape_is_refused(kind):
    module = getattr(nn, kind)(3, 5, 2)
    with pytest.raises(ShapeError, match=kind):
        module(Tensor.zeros(4, 2, 3), Tensor.zeros(1, 2, 5))


def test_first_values_are_uniform_in_one_over_the_root_of_the_hidden_size():
    minigrad.manual_seed(0)
    for _, p in nn.LSTM(50, 400).named_parameters():
        assert 0.049 < np.abs(p.data).max() <= 0.05
        assert abs(p.data.mean()) < 0.002


def test_an_lstm_learns_to_remember_the_first_of_many_inputs():
    minigrad.manual_seed(1)
    lstm, head = nn.LSTM(1, 8, batch_first=True), nn.Linear(8, 1)
    optimizer = minigrad.optim.Adam([*lstm.parameters(), *head.parameters()], lr=0.02)
    x = rng.normal(size=(32, 10, 1)).astype(np.float32)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        _, (h, _) = lstm(Tensor(x))
        loss = ((head(h[-1]) - Tensor(x[:, 0])) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
