"""Learning-rate schedules. Each is a formula from the number of steps made to the rate, so that a
run can be resumed from that number alone; `ReduceLROnPlateau` follows a metric.

    optimizer.step(); scheduler.step()

A schedule writes the rates into the optimizer's groups in place. Names, arguments and numbers are
PyTorch's; `WarmupCosineLR` is the schedule of most transformers. A group that is added later
follows the schedule from its own rate.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from minigrad.arguments import as_float, as_int, require
from minigrad.optim.optimizer import Optimizer
from minigrad.optim.schedule import (
    CosineAnnealingWarmRestarts,
    Count,
    LRScheduler,
    OneCycleLR,
    Rate,
    ReduceLROnPlateau,
    Share,
    Whole,
    choice,
    cosine,
    line,
    of_group,
)

__all__ = [
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
    "WarmupCosineLR",
    "WarmupStableDecayLR",
]


@dataclass(repr=False, eq=False)
class LambdaLR(LRScheduler):
    """lr = base_lr * f(step), with one function for all groups or a list with one for each."""

    lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]]
    last_epoch: int = -1

    def _settle(self) -> None:
        if not callable(self.lr_lambda):
            self._one_per_group("lr_lambda", self.lr_lambda)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        one = self.lr_lambda
        return base_lr * (one if callable(one) else of_group("LambdaLR", one, group))(step)


@dataclass(repr=False, eq=False)
class StepLR(LRScheduler):
    """lr = base_lr * gamma^floor(step / step_size)."""

    step_size: Count
    gamma: Rate = 0.1
    last_epoch: int = -1

    def rate(self, base_lr: float, step: int, group: int) -> float:
        return base_lr * self.gamma ** (step // self.step_size)


@dataclass(repr=False, eq=False)
class MultiStepLR(LRScheduler):
    """lr = base_lr * gamma^(number of milestones <= step)."""

    milestones: Sequence[int]
    gamma: Rate = 0.1
    last_epoch: int = -1

    def _settle(self) -> None:
        self.milestones = sorted(as_int(self._name, "milestones", m, 0) for m in self.milestones)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        return base_lr * self.gamma ** bisect_right(self.milestones, step)


@dataclass(repr=False, eq=False)
class ExponentialLR(LRScheduler):
    """lr = base_lr * gamma^step."""

    gamma: Rate
    last_epoch: int = -1

    def rate(self, base_lr: float, step: int, group: int) -> float:
        return base_lr * self.gamma**step


@dataclass(repr=False, eq=False)
class ConstantLR(LRScheduler):
    """lr = base_lr * factor for total_iters steps, then base_lr."""

    factor: Share = 1 / 3
    total_iters: Whole = 5
    last_epoch: int = -1

    def rate(self, base_lr: float, step: int, group: int) -> float:
        return base_lr * (self.factor if step < self.total_iters else 1)


@dataclass(repr=False, eq=False)
class LinearLR(LRScheduler):
    """lr = base_lr * (a line from start_factor to end_factor over total_iters steps).

    From there on it is base_lr * end_factor.
    """

    start_factor: Annotated[float, partial(as_float, least=0, most=1, above=True)] = 1 / 3
    end_factor: Share = 1.0
    total_iters: Count = 5
    last_epoch: int = -1

    def rate(self, base_lr: float, step: int, group: int) -> float:
        done = min(step / self.total_iters, 1)
        return base_lr * line(self.start_factor, self.end_factor, done)


@dataclass(repr=False, eq=False)
class CosineAnnealingLR(LRScheduler):
    """lr = eta_min + (base_lr - eta_min) (1 + cos(pi step / T_max)) / 2.

    From Loshchilov and Hutter 2017, arXiv:1608.03983.
    """

    T_max: Count
    eta_min: Rate = 0.0
    last_epoch: int = -1

    def rate(self, base_lr: float, step: int, group: int) -> float:
        return cosine(base_lr, self.eta_min, step / self.T_max)


@dataclass(repr=False, eq=False)
class WarmupStableDecayLR(LRScheduler):
    """From base_lr / warmup_steps up to base_lr in a line, constant, and down to min_lr in the last
    decay_steps of total_steps (None: in all after the warmup); min_lr is one for all groups or one
    for each.

    step s < warmup_steps:  base_lr (s + 1) / warmup_steps
    in the decay:  min_lr + (base_lr - min_lr) shape(done)
                   with done = (s - (total_steps - decay_steps)) / decay_steps
    shape(x):  1 - x for "linear", 1 - sqrt(x) for "sqrt", (1 + cos(pi x)) / 2 for "cosine"

    From Hu et al. 2024, arXiv:2404.06395; "sqrt" from Hägele et al. 2024, arXiv:2405.18392.
    """

    warmup_steps: Whole
    total_steps: Whole
    decay_steps: int | None
    min_lr: float | Sequence[float] = 0.0
    decay: Annotated[str, choice("linear", "sqrt", "cosine")] = "linear"

    def _settle(self) -> None:
        longest = self.total_steps - self.warmup_steps
        wanted = f"at most total_steps={self.total_steps}"
        require(longest >= 0, self._name, "warmup_steps", self.warmup_steps, wanted)
        steps = longest if self.decay_steps is None else self.decay_steps
        self._falling = as_int(self._name, "decay_steps", steps, 0)
        wanted = f"at most total_steps - warmup_steps = {longest}"
        require(steps <= longest, self._name, "decay_steps", steps, wanted)
        self.min_lr = self._rates("min_lr", self.min_lr)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        if step < self.warmup_steps:
            return base_lr * (step + 1) / self.warmup_steps
        min_lr = of_group(self._name, self.min_lr, group)
        if step >= self.total_steps:
            return base_lr if self.decay_steps == 0 else min_lr
        done = max(step - (self.total_steps - self._falling), 0) / max(self._falling, 1)
        if self.decay == "cosine":
            return cosine(base_lr, min_lr, done)
        return line(base_lr, min_lr, math.sqrt(done) if self.decay == "sqrt" else done)


class WarmupCosineLR(WarmupStableDecayLR):
    """From base_lr / warmup_steps up to base_lr in a line, down to min_lr by a cosine at
    total_steps, and min_lr, one for all groups or one for each, from there on.

    step s < warmup_steps:  base_lr (s + 1) / warmup_steps
    else:  min_lr + (base_lr - min_lr) (1 + cos(pi done)) / 2
           with done = (s - warmup_steps) / (total_steps - warmup_steps)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int,
        total_steps: int,
        min_lr: float | Sequence[float] = 0.0,
    ) -> None:
        super().__init__(optimizer, warmup_steps, total_steps, None, min_lr, "cosine")


@dataclass(repr=False, eq=False)
class SequentialLR(LRScheduler):
    """One schedule after the other: schedulers[i] from step milestones[i-1] on, where it counts
    from 0.
    """

    schedulers: Sequence[LRScheduler]
    milestones: Sequence[int]
    last_epoch: int = -1

    def _settle(self) -> None:
        call, milestones, count = self._name, self.milestones, len(self.schedulers) - 1
        self.milestones = [as_int(call, "milestones", m, 0) for m in milestones]
        wanted = f"{max(count, 0)} steps, one between each two schedulers"
        require(len(self.milestones) == count, call, "milestones", milestones, wanted)
        rising = self.milestones == sorted(set(self.milestones))
        require(rising, call, "milestones", milestones, "rising step numbers")
        for i, inner in enumerate(self.schedulers):
            good = inner.optimizer is self.optimizer and not isinstance(inner, ReduceLROnPlateau)
            wanted = "a schedule of the same optimizer that needs no metric"
            require(good, call, f"schedulers[{i}]", inner, wanted)

    def _at(self, step: int) -> tuple[LRScheduler, int]:
        """The schedule of a step, and the step as it counts."""
        i = bisect_right(self.milestones, step)
        return self.schedulers[i], step - (self.milestones[i - 1] if i else 0)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        inner, step = self._at(step)
        return inner.rate(base_lr, step, group)

    def _apply(self, step: int) -> None:
        self._find_new_groups()
        inner, own_step = self._at(step)
        inner.base_lrs = list(self.base_lrs)
        inner.last_epoch = own_step
        inner._apply(own_step)  # some set more than the rates, such as momentum
