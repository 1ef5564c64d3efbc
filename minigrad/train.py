"""The training loop: steps, evaluations, and a stop that loses nothing.

    trainer = Trainer(model, optimizer, data, steps=2000)
    for report in trainer.run():
        print(report.step, report.loss, report.val_loss)

The loop is the caller's: what to print, when to save and when to stop is decided there. All that a run needs to go on exactly, beside the
model's weights, is in `Trainer.state_dict()`.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Protocol

import numpy as np

from minigrad.autograd import no_grad
from minigrad.dtypes import Array
from minigrad.errors import ConfigError, NotFiniteError
from minigrad.optim import Optimizer, clip_grad_norm_
from minigrad.optim.lr_scheduler import LRScheduler
from minigrad.random import default_generator
from minigrad.tensor import Tensor

__all__ = ["Interruption", "Report", "Trainer", "evaluate"]


class Model(Protocol):
    """What the loop asks of a model."""

    training: bool

    def loss(self, x: Array, y: Array) -> Tensor: ...
    def parameters(self) -> Iterable[Tensor]: ...
    def train(self, mode: bool = True) -> Any: ...
    def eval(self) -> Any: ...


class Data(Protocol):
    """What the loop asks of its data: batches that are a function of the step, and a validation part."""

    def batch(self, step: int) -> tuple[Array, Array]: ...
    def validation(self) -> Iterator[tuple[Array, Array]]: ...


@dataclass(frozen=True)
class Report:
    """What there is to say after a step. Losses are in nats per token; `val_loss` is None where there was no evaluation."""

    step: int
    steps: int
    loss: float
    grad_norm: float
    lr: float
    tokens_per_second: float
    seconds_left: float
    val_loss: float | None


class Trainer:
    """Takes a model through its training steps.

    steps: the number of the last step.  schedule: sets the learning rate after each step; None leaves it as it is.
    clip_norm: the norm that gradients are clipped to.  eval_interval: steps between evaluations; there is one at the end in any case.
    """

    def __init__(
        self,
        model: Model,
        optimizer: Optimizer,
        data: Data,
        *,
        steps: int,
        schedule: LRScheduler | None = None,
        clip_norm: float = 1.0,
        eval_interval: int = 250,
    ) -> None:
        for name, value in (("steps", steps), ("eval_interval", eval_interval), ("clip_norm", clip_norm)):
            if not value > 0:
                raise ConfigError("Trainer", f"{name}={value}", got=value, wanted="> 0", hint=f"give a positive {name}")
        self.model, self.optimizer, self.data = model, optimizer, data
        self.steps, self.schedule, self.clip_norm, self.eval_interval = steps, schedule, clip_norm, eval_interval
        self.step = 0

    def train_step(self) -> tuple[float, float, int]:
        """One step: batch, loss, gradients, clipping, update. Returns loss, gradient norm and number of tokens.

        Raises NotFiniteError if loss or gradient is not a number; the weights are then those before the step.
        """
        x, y = self.data.batch(self.step)
        self.optimizer.zero_grad()
        # A run that diverges overflows first; what there is to say about it is said below, once.
        with np.errstate(over="ignore", invalid="ignore"):
            loss = self.model.loss(x, y)
            loss.backward()
        norm = float(clip_grad_norm_(self.model.parameters(), self.clip_norm))
        if not math.isfinite(norm) or not math.isfinite(float(loss)):
            raise NotFiniteError("Trainer", f"the loss is {float(loss)} and the gradient's norm {norm} at step {self.step + 1}",
                                 got=(float(loss), norm), wanted="finite numbers",
                                 hint="the weights are those before this step; a smaller learning rate may help")  # fmt: skip
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()
        self.step += 1
        return float(loss), norm, x.size

    def run(self) -> Iterator[Report]:
        """Take the steps that are left and report after each. Leave the loop to stop; call `run` again to go on."""
        began, first, seconds = time.perf_counter(), self.step, 0.0
        self.model.train()
        while self.step < self.steps:
            start, lr = time.perf_counter(), self.optimizer.lr
            loss, norm, tokens = self.train_step()
            took = time.perf_counter() - start
            # A moving average over about 20 steps: quick to follow a change of load, slow enough to be read.
            seconds = took if not seconds else 0.95 * seconds + 0.05 * took
            due = self.step % self.eval_interval == 0 or self.step == self.steps
            val_loss = evaluate(self.model, self.data.validation()) if due else None
            left = (time.perf_counter() - began) / (self.step - first) * (self.steps - self.step)
            yield Report(self.step, self.steps, loss, norm, lr, tokens / seconds, left, val_loss)

    def state_dict(self) -> dict[str, Any]:
        """Where the run stands: the step (which gives the batches), optimizer, schedule, and the generator that dropout draws from."""
        return {
            "step": self.step,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule else None,
            "generator": list(default_generator.get_state()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly from where `state_dict()` was taken."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        default_generator.set_state(tuple(state["generator"]))
        self.step = state["step"]


def evaluate(model: Model, batches: Iterable[tuple[Array, Array]]) -> float:
    """The mean loss per token over all `batches`, without gradients and without dropout. Raises ConfigError if there are none."""
    total, count, before = 0.0, 0, model.training
    model.eval()
    with no_grad():
        for x, y in batches:
            total += float(model.loss(x, y)) * y.size
            count += y.size
    model.train(before)
    if not count:
        raise ConfigError("evaluate", "there are no batches", got=0, wanted="at least one batch", hint="give some text to evaluate on")
    return total / count


class Interruption:
    """Ctrl-C and SIGTERM as a wish to stop after the step, while this is open as a context; a second one interrupts at once.

    True once there was one; `exit_code` is then 128 + the signal's number, as shells have it.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal; 0 if there was none."""
        return 128 + self.number if self.number else 0

    def __bool__(self) -> bool:
        return self.number != 0

    def __enter__(self) -> Interruption:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            raise KeyboardInterrupt
        self.number = number
