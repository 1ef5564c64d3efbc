"""Recurrent networks: cells, which make one step, and layers of them over a sequence.

Parameters have PyTorch's names, shapes and order of gates, so that its checkpoints load by key.
First values: uniform in +-1 / sqrt(hidden_size).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from minigrad import functional as F
from minigrad.arguments import as_float, as_sizes, fits
from minigrad.dtypes import on_cpu
from minigrad.nn import init
from minigrad.nn.layers import empty
from minigrad.nn.module import Layer, layers_of
from minigrad.tensor import Tensor

State = tuple[Tensor, ...]  # (h,), or (h, c) of an LSTM


class Kind(NamedTuple):
    """gates: how many vectors a step computes from x and h.   state: how many it keeps.   step: the
    next state, from the gates' sums over x and over h, and the state.
    """

    gates: int
    state: int
    step: Callable[[Tensor, Tensor, State], State]


def _rnn(x: Tensor, h: Tensor, state: State) -> State:
    return (F.tanh(x + h),)


def _gru(x: Tensor, h: Tensor, state: State) -> State:
    (x_r, x_z, x_n), (h_r, h_z, h_n) = x.chunk(3, -1), h.chunk(3, -1)
    r, z = F.sigmoid(x_r + h_r), F.sigmoid(x_z + h_z)
    n = F.tanh(x_n + r * h_n)
    return (n + z * (state[0] - n),)


def _lstm(x: Tensor, h: Tensor, state: State) -> State:
    i, f, g, o = (x + h).chunk(4, -1)
    c = F.sigmoid(f) * state[1] + F.sigmoid(i) * F.tanh(g)
    return F.sigmoid(o) * F.tanh(c), c


class _Recurrent(Layer):
    """Weights (gates H, input) and (gates H, H), biases (gates H,), and the step that they make."""

    _kind: ClassVar[Kind]
    input_size: int
    hidden_size: int

    def _add_weights(self, input_size: int, bias: bool, suffix: str = "") -> None:
        H, bound = self.hidden_size, 1 / math.sqrt(self.hidden_size)
        rows = self._kind.gates * H
        shapes: dict[str, Any] = {"weight_ih": (rows, input_size), "weight_hh": (rows, H)}
        if bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        for name, shape in shapes.items():
            setattr(self, name + suffix, init.uniform_(empty(*shape), -bound, bound))

    def _sums(self, part: str, x: Tensor, suffix: str) -> Tensor:
        """The gates' sums over x, before the next step adds those over h."""
        bias = getattr(self, f"bias_{part}{suffix}", None)
        return F.linear(x, getattr(self, f"weight_{part}{suffix}"), bias)

    def _step(self, sums: Tensor, state: State, suffix: str = "") -> State:
        return self._kind.step(sums, self._sums("hh", state[0], suffix), state)

    def _first(self, given: Any, shape: tuple[int, ...], x: Tensor) -> State:
        """The given state as a tuple, or zeros. Raises ShapeError."""
        n, call = self._kind.state, type(self).__name__
        if given is None:
            return (Tensor.zeros(*shape, dtype=x.dtype),) * n
        state = (given,) if isinstance(given, Tensor) else tuple(given)
        got, wanted = [part.shape for part in state], [shape] * n
        problem = f"the first state must be {n} tensor(s) of shape {shape}, got {got}"
        fits(got == wanted, call, problem, got)
        return state

    def _result(self, state: State) -> Any:
        return state if self._kind.state > 1 else state[0]


class _Cell(_Recurrent):
    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None
    ) -> None:
        on_cpu(device, type(self).__name__)
        self.input_size, self.hidden_size = as_sizes(
            type(self).__name__, input_size=input_size, hidden_size=hidden_size
        )
        self.bias = bias
        self._add_weights(self.input_size, bias)

    def forward(self, x: Tensor, state: Any = None) -> Any:
        """The state after x, (N, input_size) or (input_size,); `state` is zeros unless given."""
        first = self._first(state, (*x.shape[:-1], self.hidden_size), x)
        return self._result(self._step(self._sums("ih", x, ""), first))


class RNNCell(_Cell):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh).   (N, input_size), (N, hidden_size) -> h'. From
    Elman 1990.
    """

    _kind = Kind(1, 1, _rnn)


class GRUCell(_Cell):
    """r = sigmoid(W_ir x + b_ir + W_hr h + b_hr);   z likewise
    n = tanh(W_in x + b_in + r (W_hn h + b_hn));   h' = (1 - z) n + z h

    (N, input_size), (N, hidden_size) -> h'. Rows of weight_ih and weight_hh: r, z, n. From Cho et
    al. 2014, arXiv:1406.1078.
    """

    _kind = Kind(3, 1, _gru)


class LSTMCell(_Cell):
    """i = sigmoid(W_ii x + b_ii + W_hi h + b_hi);   f and o likewise, g with tanh
    c' = f c + i g;   h' = o tanh(c')

    (N, input_size), ((N, hidden_size), (N, hidden_size)) -> (h', c'). Rows of weight_ih and
    weight_hh: i, f, g, o. From Hochreiter and Schmidhuber 1997.
    """

    _kind = Kind(4, 2, _lstm)


class _Layers(_Recurrent):
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        device: Any = None,
    ) -> None:
        call = type(self).__name__
        on_cpu(device, call)
        self.input_size, self.hidden_size, self.num_layers = as_sizes(
            call, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers
        )
        self.bias, self.batch_first, self.bidirectional = bias, batch_first, bidirectional
        self.dropout = as_float(call, "dropout", dropout, 0, 1)
        self._directions = ("", "_reverse") if bidirectional else ("",)
        for layer in range(self.num_layers):
            size = self.hidden_size * len(self._directions) if layer else self.input_size
            for direction in self._directions:
                self._add_weights(size, bias, f"_l{layer}{direction}")

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """(outputs, last state): the last layer's h at every position, directions side by side, and
        the state of every layer and direction after its last step.

        x: (T, N, input_size), (N, T, input_size) with batch_first, or (T, input_size)
        state: (layers * directions, N, hidden_size), for an LSTM a pair of these; zeros unless
            given.
        """
        time = 1 if self.batch_first and x.ndim == 3 else 0
        steps = x.transpose(0, 1) if time else x
        total = self.num_layers * len(self._directions)
        first = self._first(state, (total, *steps.shape[1:-1], self.hidden_size), x)
        last: list[State] = []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                steps = F.dropout(steps, self.dropout, self.training)
            outputs = []
            for direction in self._directions:
                start = tuple(part[len(last)] for part in first)
                y, end = self._run(steps, start, f"_l{layer}{direction}")
                outputs.append(y)
                last.append(end)
            steps = Tensor.cat(outputs, axis=-1) if len(outputs) > 1 else outputs[0]
        ends = tuple(Tensor.stack(parts) for parts in zip(*last, strict=True))
        return steps.transpose(0, 1) if time else steps, self._result(ends)

    def _run(self, x: Tensor, state: State, suffix: str) -> tuple[Tensor, State]:
        """One direction of one layer: h at every step, and the state after the last."""
        order = slice(None, None, -1 if suffix.endswith("_reverse") else 1)
        outputs = []
        for sums in _unbound(self._sums("ih", x, suffix))[order]:
            state = self._step(sums, state, suffix)
            outputs.append(state[0])
        return Tensor.stack(outputs[order]), state


def _unbound(x: Tensor) -> list[Tensor]:
    """x[0], x[1], ... by halves: the gradient of a slice fills an array of its parent's size, so
    that T slices of x itself would write T^2 rows in backward, and these write T log T.
    """
    if len(x) == 1:
        return [x[0]]
    half = len(x) // 2
    return _unbound(x[:half]) + _unbound(x[half:])


class RNN(_Layers):
    """Layers of RNNCell over a sequence, each on the outputs of the one before."""

    _kind = RNNCell._kind


class GRU(_Layers):
    """Layers of GRUCell over a sequence, each on the outputs of the one before.

    weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0 of the first layer, ..._l0_reverse of its
    other direction.   dropout: on the outputs of all layers but the last.
    """

    _kind = GRUCell._kind


class LSTM(_Layers):
    """Layers of LSTMCell over a sequence, each on the outputs of the one before. As GRU."""

    _kind = LSTMCell._kind


__all__ = layers_of(globals())
