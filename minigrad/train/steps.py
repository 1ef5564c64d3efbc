"""How one training step is made: eagerly, or with parameters in 16 bits; `compiled` has the third
way.

All have the same four parts, which the Trainer calls in order: `prepare` before the first step,
`gradients` of a batch, `update`, and `loss` for evaluation. Between `gradients` and `update`
nothing has changed but the generator: there the Trainer looks at the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from minigrad.autograd import no_grad
from minigrad.dtypes import Array
from minigrad.errors import ConfigError
from minigrad.optim import MixedPrecision, Optimizer, clip_grad_norm_
from minigrad.random import default_generator
from minigrad.tensor import Tensor

Batch = tuple[Array, Array]


class Model(Protocol):
    """What the loop asks of a model; the two that save and load only where that is asked for."""

    training: bool

    def loss(self, x: Array, y: Array) -> Tensor: ...
    def parameters(self) -> Iterable[Tensor]: ...
    def state_dict(self) -> Mapping[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...
    def train(self, mode: bool = True) -> Any: ...
    def eval(self) -> Any: ...


def evaluate(
    model: Model, batches: Iterable[Batch], loss: Callable[[Array, Array], Any] | None = None
) -> float:
    """The mean loss per token over all `batches`, without gradients and without dropout. Raises
    ConfigError if there are none.

    loss: computes what `model.loss` does in another way.
    """
    total, count, before = 0.0, 0, model.training
    model.eval()
    with no_grad():
        for x, y in batches:
            total += float((loss or model.loss)(x, y)) * y.size
            count += y.size
    model.train(before)
    if not count:
        raise ConfigError(
            "evaluate",
            "there are no batches",
            got=0,
            wanted="at least one batch",
            hint="give some text to evaluate on",
        )
    return total / count


class NotCompiled(Exception):
    """Why a step is not compiled, in one line."""


class EagerStep:
    """Op by op. `backend` names what runs, `note` says why it is that."""

    backend = "eager"

    def __init__(
        self, model: Model, optimizer: Optimizer, clip_norm: float, note: str = ""
    ) -> None:
        self.note = note
        self.model, self.optimizer, self.clip_norm = model, optimizer, clip_norm
        self._call_part: Callable[..., tuple[Tensor, Tensor | None]] = self._part
        self._call_update: Callable[[], None] = optimizer.step

    def prepare(self, parts: list[Batch]) -> None:
        """Get ready for steps on batches like this one. Leaves no trace in weights, optimizer and
        generator.
        """

    def gradients(self, parts: list[Batch]) -> tuple[float, float]:
        """Leave the clipped gradients of the mean loss over `parts`, which are of one size, in
        `.grad`; returns that loss and their norm.
        """
        losses, norm = [], None
        for i, (x, y) in enumerate(parts):
            loss, norm = self._call_part(x, y, i == 0, i == len(parts) - 1, len(parts))
            losses.append(float(loss))
        assert norm is not None
        return sum(losses), float(norm)

    def _part(
        self, x: Array, y: Array, first: bool, last: bool, count: int
    ) -> tuple[Tensor, Tensor | None]:
        """One part's share of the loss, its gradients added to what lies in `.grad`; after the last
        they are clipped.
        """
        if first:
            self.optimizer.zero_grad()
        loss = self.model.loss(x, y)
        if count > 1:
            loss = loss * (1 / count)
        loss.backward()
        return loss, clip_grad_norm_(self.model.parameters(), self.clip_norm) if last else None

    def update(self) -> None:
        """Take the optimizer's step with the gradients that `gradients` has left."""
        self._call_update()

    def loss(self, x: Array, y: Array) -> Any:
        """The loss of an evaluation's batch."""
        return self.model.loss(x, y)


class MixedStep(EagerStep):
    """With `MixedPrecision`: the model's parameters in 16 bits, the optimizer on float32 masters.
    Runs eagerly: there is no 16-bit C.

    A step whose scaled gradients overflow is made again with half the scale, on the same batch and
    with the same dropout, so that none is lost.
    """

    def __init__(self, model: Model, optimizer: Optimizer, clip_norm: float, dtype: str) -> None:
        super().__init__(model, optimizer, clip_norm, "there is no C for 16-bit parameters")
        params = [p for group in optimizer.param_groups for p in group["params"]]
        self.mixed = MixedPrecision(params, optimizer.exchange, dtype)
        self._call_update = self.mixed.update

    def gradients(self, parts: list[Batch]) -> tuple[float, float]:
        """As eager's, in the masters' `.grad`."""
        drawn = default_generator.get_state()
        while True:
            loss, norm = super().gradients(parts)
            if math.isfinite(norm) or not math.isfinite(loss) or not self.mixed.lower_scale():
                return loss, norm
            default_generator.set_state(drawn)

    def _part(
        self, x: Array, y: Array, first: bool, last: bool, count: int
    ) -> tuple[Tensor, Tensor | None]:
        if first:
            self.mixed.zero_grad()
        loss = self.model.loss(x, y) * (1 / count)
        self.mixed.backward(loss)
        self.mixed.collect()
        return loss, clip_grad_norm_(self.mixed.masters, self.clip_norm) if last else None

    def state_dict(self) -> dict[str, Any]:
        """The masters and the scale; the optimizer's state is saved by the Trainer."""
        state = self.mixed.state_dict()
        del state["optimizer"]
        return {"mixed": state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over masters and scale."""
        self.mixed.load_state_dict({**state["mixed"], "optimizer": self.optimizer.state_dict()})
