"""The memory that a training step will need, estimated before the first one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minigrad.dtypes import Array
from minigrad.optim import Optimizer
from minigrad.random import default_generator
from minigrad.tape import nodes_above
from minigrad.tensor import Tensor
from minigrad.train.steps import Batch, Model


class Memory(NamedTuple):
    """Bytes, by purpose. Activations are what forward keeps for backward."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {_megabytes(size)}" for name, size in self._asdict().items())
        return f"about {_megabytes(self.total)} MB: {parts}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.{0 if size >= 1e7 else 1}f}"


def estimate(model: Model, optimizer: Optimizer, batch: Batch, masters: int) -> Memory:
    """Parameters, gradients and moments are counted. Activations are recorded: one forward pass of
    one row, times the rows of the batch.
    """
    params = list(model.parameters())
    x, y = batch
    with default_generator.replaying(default_generator.get_state()):
        kept = _kept_by(model.loss(x[:1], y[:1]), params)
    size = sum(p.data.nbytes for p in params)
    return Memory(size + masters, size + masters, optimizer.nbytes, kept * len(x))


def _kept_by(loss: Tensor, params: list[Tensor]) -> int:
    """The bytes that the graph of `loss` holds alive, parameters left out. Arrays that share memory
    count once.
    """
    weights = {id(_whole(p.data)) for p in params}
    found: dict[int, int] = {}
    for node in nodes_above([loss]):
        held: list[Any] = [*node.operands, *(node.outputs or ())]
        for array in (
            _whole(x.data if isinstance(x, Tensor) else x)
            for x in held
            if isinstance(x, (Tensor, np.ndarray))
        ):
            if id(array) not in weights:
                found[id(array)] = array.nbytes
    return sum(found.values())


def _whole(array: Array) -> Array:
    """The array whose memory a view looks into."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
