"""The memory that a training step will need, estimated before the first one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
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
    held: Iterator[Any] = chain.from_iterable(
        (*node.operands, *(node.outputs or ())) for node in nodes_above([loss])
    )
    found = {id(array): array.nbytes for array in map(_whole, held) if array is not None}
    return sum(found.values()) - sum(found.get(id(_whole(p)), 0) for p in params)


def _whole(x: Any) -> Array | None:
    """The array into whose memory a tensor or an array looks; None for another operand."""
    array = x.data if isinstance(x, Tensor) else x
    if not isinstance(array, np.ndarray):
        return None
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
