"""How one training step is made: eagerly, or with parameters in 16 bits; for the third way see
`compiled`.

All have the same four parts, which the Trainer calls in order: `prepare` before the first step,
`gradients` of a batch, `update`, and `loss` for evaluation. Between `gradients` and `update` only
the generator has changed, so that the Trainer can check the numbers and stop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from minigrad.autograd import no_grad
from minigrad.dtypes import Array
from minigrad.errors import ConfigError
from minigrad.optim import MixedPrecision, Optimizer, clip_grad_norm_
from minigrad.random import default_generator
from minigrad.tensor import Tensor

Batch = tuple[Array, Array]


class Model(Protocol):
    """What the loop needs of a model; the two state_dict methods only for saving and loading."""

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
    """Return the mean loss over the targets of all `batches`, without gradients and dropout.

    A target of -100 does not count, as in cross_entropy.
    loss: a function of (x, y) to use in place of `model.loss`.
    Raises ConfigError if there is no target.
    """
    total, count, before = 0.0, 0, model.training
    model.eval()
    try:
        with no_grad():
            for x, y in batches:
                if targets := count_targets(y):
                    total += float((loss or model.loss)(x, y)) * targets
                    count += targets
    finally:
        model.train(before)
    if not count:
        problem = "there are no targets in the batches"
        hint = "give some text to evaluate on"
        raise ConfigError("evaluate", problem, got=0, wanted="at least one target", hint=hint)
    return total / count


def count_targets(y: Any) -> int:
    """Return the number of targets that a mean loss averages over: of integers, those other than
    -100.
    """
    y = np.asarray(y)
    return int(np.count_nonzero(y != -100)) if y.dtype.kind in "iu" else y.size


def shares(parts: list[Batch], dtype: Any = np.float32) -> list[tuple[Batch, Array | None]]:
    """Return the parts of a batch that have targets, each with its share of all of them, 0-d: the
    mean loss of the batch is the sum of share * (mean loss of the part). None for a single part.
    """
    counts = [count_targets(y) for _, y in parts]
    if not any(counts):  # the loss decides what the mean over no target is
        counts = [1] * len(parts)
    used = [(part, n) for part, n in zip(parts, counts, strict=True) if n]
    if len(used) == 1:
        return [(used[0][0], None)]
    # An array, since a number would be a constant of the compiled step.
    return [(part, np.array(n / sum(counts), dtype)) for part, n in used]


class NotCompiled(Exception):
    """Why a step is not compiled, in one line."""


class EagerStep:
    """Runs op by op. `backend` names what runs, `note` says why."""

    backend = "eager"

    def __init__(
        self, model: Model, optimizer: Optimizer, clip_norm: float, note: str = ""
    ) -> None:
        self.note = note
        self.model, self.optimizer, self.clip_norm = model, optimizer, clip_norm
        wide = any(p.dtype == np.float64 for p in model.parameters())
        self._dtype = np.float64 if wide else np.float32
        self._call_part: Callable[..., tuple[Tensor, Tensor | None]] = self._part
        self._call_update: Callable[[], None] = optimizer.step

    def prepare(self, parts: list[Batch]) -> None:
        """Prepare for steps on batches like this one, without changing weights, optimizer and
        generator.
        """

    def gradients(self, parts: list[Batch]) -> tuple[float, float]:
        """Leave the clipped gradients of the mean loss over the targets of all `parts` in `.grad`;
        return that loss and the norm of the gradients before clipping.
        """
        total, norm, used = 0.0, None, shares(parts, self._dtype)
        for i, ((x, y), share) in enumerate(used):
            loss, norm = self._call_part(x, y, share, i == 0, i == len(used) - 1)
            total += float(loss)
        assert norm is not None
        return total, float(norm)

    def _part(
        self, x: Array, y: Array, share: Array | None, first: bool, last: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Add the gradients of a part, times its share of the targets, to `.grad`; clip them after
        the last part.
        """
        if first:
            self.optimizer.zero_grad()
        loss = self.model.loss(x, y)
        if share is not None:
            loss = loss * share
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

    A step whose scaled gradients overflow is repeated with half the scale, on the same batch and
    with the same dropout, so that no batch is lost.
    """

    def __init__(self, model: Model, optimizer: Optimizer, clip_norm: float, dtype: str) -> None:
        super().__init__(model, optimizer, clip_norm, "there is no C for 16-bit parameters")
        params = [p for group in optimizer.param_groups for p in group["params"]]
        self.mixed = MixedPrecision(params, optimizer.exchange, dtype)
        self._call_update = self.mixed.update

    def gradients(self, parts: list[Batch]) -> tuple[float, float]:
        """As `EagerStep.gradients`, in the masters' `.grad`."""
        drawn = default_generator.get_state()
        while True:
            loss, norm = super().gradients(parts)
            if math.isfinite(norm) or not math.isfinite(loss) or not self.mixed.lower_scale():
                return loss, norm
            default_generator.set_state(drawn)

    def _part(
        self, x: Array, y: Array, share: Array | None, first: bool, last: bool
    ) -> tuple[Tensor, Tensor | None]:
        if first:
            self.mixed.zero_grad()
        loss = self.model.loss(x, y)
        if share is not None:
            loss = loss * share
        self.mixed.backward(loss)
        self.mixed.collect()
        return loss, clip_grad_norm_(self.mixed.masters, self.clip_norm) if last else None

    def state_dict(self) -> dict[str, Any]:
        """The masters and the scale; the optimizer's state is saved by the Trainer."""
        state = self.mixed.state_dict()
        del state["optimizer"]
        return {"mixed": state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load masters and scale."""
        self.mixed.load_state_dict({**state["mixed"], "optimizer": self.optimizer.state_dict()})
