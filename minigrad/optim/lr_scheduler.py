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

from minigrad.arguments import as_float, as_int, one_of, require
from minigrad.optim.optimizer import Optimizer
from minigrad.optim.schedule import (
    CosineAnnealingWarmRestarts,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
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


class LambdaLR(LRScheduler):
    """lr = base_lr * f(step), with one function for all groups or a list with one for each."""

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        self.optimizer, self.lr_lambda = optimizer, lr_lambda
        if not callable(lr_lambda):
            self._one_per_group("lr_lambda", lr_lambda)
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        one = self.lr_lambda
        return base_lr * (one if callable(one) else of_group("LambdaLR", one, group))(step)


class StepLR(LRScheduler):
    """lr = base_lr * gamma^floor(step / step_size)."""

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.step_size = as_int("StepLR", "step_size", step_size)
        self.gamma = as_float("StepLR", "gamma", gamma, 0)
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        return base_lr * self.gamma ** (step // self.step_size)


class MultiStepLR(LRScheduler):
    """lr = base_lr * gamma^(number of milestones <= step)."""

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Sequence[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        self.milestones = sorted(as_int("MultiStepLR", "milestones", m, 0) for m in milestones)
        self.gamma = as_float("MultiStepLR", "gamma", gamma, 0)
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        return base_lr * self.gamma ** bisect_right(self.milestones, step)


class ExponentialLR(LRScheduler):
    """lr = base_lr * gamma^step."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = as_float("ExponentialLR", "gamma", gamma, 0)
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        return base_lr * self.gamma**step


class ConstantLR(LRScheduler):
    """lr = base_lr * factor for total_iters steps, then base_lr."""

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.factor = as_float("ConstantLR", "factor", factor, 0, 1)
        self.total_iters = as_int("ConstantLR", "total_iters", total_iters, 0)
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        return base_lr * (self.factor if step < self.total_iters else 1)


class LinearLR(LRScheduler):
    """lr = base_lr * (a line from start_factor to end_factor over total_iters steps).

    From there on it is base_lr * end_factor.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.start_factor = as_float("LinearLR", "start_factor", start_factor, 0, 1, above=True)
        self.end_factor = as_float("LinearLR", "end_factor", end_factor, 0, 1)
        self.total_iters = as_int("LinearLR", "total_iters", total_iters)
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        done = min(step / self.total_iters, 1)
        return base_lr * line(self.start_factor, self.end_factor, done)


class CosineAnnealingLR(LRScheduler):
    """lr = eta_min + (base_lr - eta_min) (1 + cos(pi step / T_max)) / 2.

    From Loshchilov and Hutter 2017, arXiv:1608.03983.
    """

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_max = as_int("CosineAnnealingLR", "T_max", T_max)
        self.eta_min = as_float("CosineAnnealingLR", "eta_min", eta_min, 0)
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        return cosine(base_lr, self.eta_min, step / self.T_max)


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

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int,
        total_steps: int,
        decay_steps: int | None,
        min_lr: float | Sequence[float] = 0.0,
        decay: str = "linear",
    ) -> None:
        self.optimizer = optimizer
        self.warmup_steps = as_int(self._name, "warmup_steps", warmup_steps, 0)
        self.total_steps = as_int(self._name, "total_steps", total_steps, 0)
        longest, wanted = self.total_steps - self.warmup_steps, f"at most total_steps={total_steps}"
        require(longest >= 0, self._name, "warmup_steps", warmup_steps, wanted)
        self._falls, steps = decay_steps != 0, longest if decay_steps is None else decay_steps
        self.decay_steps = as_int(self._name, "decay_steps", steps, 0)
        wanted = f"at most total_steps - warmup_steps = {longest}"
        require(self.decay_steps <= longest, self._name, "decay_steps", decay_steps, wanted)
        self.min_lr = self._rates("min_lr", min_lr)
        one_of(self._name, "decay", decay, ("linear", "sqrt", "cosine"))
        self.decay = decay
        super().__init__(optimizer)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        if step < self.warmup_steps:
            return base_lr * (step + 1) / self.warmup_steps
        min_lr = of_group(self._name, self.min_lr, group)
        if step >= self.total_steps:
            return min_lr if self._falls else base_lr
        done = max(step - (self.total_steps - self.decay_steps), 0) / max(self.decay_steps, 1)
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


class SequentialLR(LRScheduler):
    """One schedule after the other: schedulers[i] from step milestones[i-1] on, where it counts
    from 0.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        call = "SequentialLR"
        self.schedulers = list(schedulers)
        self.milestones = [as_int(call, "milestones", m, 0) for m in milestones]
        count = len(self.schedulers) - 1
        wanted = f"{max(count, 0)} steps, one between each two schedulers"
        require(len(self.milestones) == count, call, "milestones", milestones, wanted)
        rising = self.milestones == sorted(set(self.milestones))
        require(rising, call, "milestones", milestones, "rising step numbers")
        for i, inner in enumerate(self.schedulers):
            good = inner.optimizer is optimizer and not isinstance(inner, ReduceLROnPlateau)
            wanted = "a schedule of the same optimizer that needs no metric"
            require(good, call, f"schedulers[{i}]", inner, wanted)
        super().__init__(optimizer, last_epoch)

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
