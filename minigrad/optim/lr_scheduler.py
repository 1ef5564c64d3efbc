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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from minigrad.arguments import as_float, as_int, as_sizes, one_of, require
from minigrad.errors import ConfigError
from minigrad.optim.groups import ParamGroup
from minigrad.optim.optimizer import Fraction, Optimizer, Rate
from minigrad.optim.schedule import LRScheduler as LRScheduler, of_group

Count = Annotated[int, as_int]
Whole = Annotated[int, partial(as_int, least=0)]
Positive = Annotated[float, partial(as_float, least=0, above=True)]
Share = Annotated[float, partial(as_float, least=0, most=1)]


def cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def line(start: float, end: float, done: float) -> float:
    return start + (end - start) * done


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
        good = isinstance(self.milestones, Iterable)
        require(good, self._name, "milestones", self.milestones, "a list of step numbers")
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
class CosineAnnealingWarmRestarts(LRScheduler):
    """lr = eta_min + (base_lr - eta_min) (1 + cos(pi T_cur / T_i)) / 2, where T_cur counts from the
    last restart. The first cycle has T_i = T_0 steps, each further one T_mult times as many. From
    Loshchilov and Hutter 2017, arXiv:1608.03983.
    """

    T_0: Count
    T_mult: Count = 1
    eta_min: Rate = 0.0
    last_epoch: int = -1

    def rate(self, base_lr: float, step: float, group: int) -> float:
        done, length = self._cycle(step)
        return cosine(base_lr, self.eta_min, done / length)

    def _cycle(self, step: float) -> tuple[float, int]:
        """Steps since the last restart, and the length of the cycle."""
        length = self.T_0
        if self.T_mult == 1:
            return step % length, length
        while step >= length:
            step, length = step - length, length * self.T_mult
        return step, length

    def _apply(self, step: float) -> None:
        self.T_cur, self.T_i = self._cycle(step)
        super()._apply(step)  # type: ignore[arg-type]

    def step(self, epoch: float | None = None) -> None:
        """Count a step, or move to `epoch`, which may be a fraction: epoch + i / iterations."""
        if epoch is None:
            epoch = self.last_epoch + math.fmod(self.T_cur, 1) + 1
        self._apply(as_float("CosineAnnealingWarmRestarts.step", "epoch", epoch, 0, below=True))
        self.last_epoch = math.floor(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps made, the base rates, and the place in the cycle."""
        return {**super().state_dict(), "T_cur": self.T_cur, "T_i": self.T_i}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict()`, and set the rates that belong to it."""
        super().load_state_dict(state_dict)
        self._apply(self.last_epoch + math.fmod(state_dict.get("T_cur", 0), 1))


@dataclass(repr=False, eq=False)
class OneCycleLR(LRScheduler):
    """Up from max_lr / div_factor to max_lr in the first pct_start of total_steps, down to max_lr /
    div_factor / final_div_factor in the rest.

    With cycle_momentum, momentum (or the first beta) goes the other way, from max_momentum to
    base_momentum and back; an SGD without momentum stays without. With three_phase, the way down
    first mirrors the way up, then goes from the initial to the final rate. total_steps is epochs *
    steps_per_epoch unless given; `step()` may be called that often, and the last call keeps the
    final rate. From Smith and Topin 2019, arXiv:1708.07120.
    """

    max_lr: float | Sequence[float]
    total_steps: int | None = None
    epochs: int | None = None
    steps_per_epoch: int | None = None
    pct_start: Share = 0.3
    anneal_strategy: Annotated[str, partial(one_of, choices=("cos", "linear"))] = "cos"
    cycle_momentum: bool = True
    base_momentum: Fraction = 0.85
    max_momentum: Fraction = 0.95
    div_factor: Positive = 25.0
    final_div_factor: Positive = 1e4
    three_phase: bool = False
    last_epoch: int = -1

    def _settle(self) -> None:
        self.max_lr = self._rates("max_lr", self.max_lr)
        steps: Any = self.total_steps
        if steps is None and self.epochs is not None:
            parts = {"epochs": self.epochs, "steps_per_epoch": self.steps_per_epoch}
            steps = math.prod(as_sizes(self._name, **parts))
        self.total_steps = self._steps = as_int(self._name, "total_steps", steps)

    def _phases(self) -> list[tuple[float, float]]:
        """The last step of each phase with the factor of max_lr there; momentum is at its base
        exactly where the factor is 1.
        """
        first, final = 1 / self.div_factor, 1 / self.div_factor / self.final_div_factor
        up, end = self.pct_start * self._steps - 1, self._steps - 1.0
        middle = [(up, 1.0), (2 * up, first)] if self.three_phase else [(up, 1.0)]
        return [(0.0, first), *middle, (end, final)]

    def _at(self, step: int, values: list[float]) -> float:
        """The value between those at the ends of the phase that `step` is in."""
        ends = [end for end, _ in self._phases()]
        i = next((i for i in range(1, len(ends)) if step <= ends[i]), len(ends) - 1)
        length = ends[i] - ends[i - 1]
        done = min((step - ends[i - 1]) / length, 1.0) if length else 1.0
        anneal = cosine if self.anneal_strategy == "cos" else line
        return anneal(values[i - 1], values[i], done)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        if step > self._steps:
            problem = f"step {step} of a cycle of total_steps={self.total_steps} steps"
            raise ConfigError("OneCycleLR", problem, got=step, wanted=self.total_steps)
        top = of_group("OneCycleLR", self.max_lr, group)
        return self._at(step, [top * factor for _, factor in self._phases()])

    def _apply(self, step: int) -> None:
        super()._apply(step)
        if self.cycle_momentum:
            factors = [factor for _, factor in self._phases()]
            low, high = self.base_momentum, self.max_momentum
            momentum = self._at(step, [low if factor == 1.0 else high for factor in factors])
            for group in self.optimizer.param_groups:
                _set_momentum(group, momentum)


def _set_momentum(group: ParamGroup, momentum: float) -> None:
    if "betas" in group:
        group["betas"] = (momentum, group["betas"][1])
    elif group.get("momentum"):
        group["momentum"] = momentum
    elif "momentum" not in group:
        problem = "the optimizer has no momentum to cycle"
        hint = "pass cycle_momentum=False"
        raise ConfigError("OneCycleLR", problem, dict(group), "momentum or betas", hint)


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
    decay: Annotated[str, partial(one_of, choices=("linear", "sqrt", "cosine"))] = "linear"

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
class ReduceLROnPlateau(LRScheduler):
    """Multiply every rate by `factor` after more than `patience` steps without a better metric.

    mode: "min" if lower is better, else "max".   cooldown: steps after a reduction that are not
        counted as bad.   min_lr: the lowest rate, one for all groups or one for each.
    threshold: by how much a metric must improve on the best one, relative to it for
        threshold_mode="rel", absolute for "abs".   eps: a smaller change of a rate is not made.
    """

    mode: Annotated[str, partial(one_of, choices=("min", "max"))] = "min"
    factor: Fraction = 0.1
    patience: Whole = 10
    threshold: Rate = 1e-4
    threshold_mode: Annotated[str, partial(one_of, choices=("rel", "abs"))] = "rel"
    cooldown: Whole = 0
    min_lr: float | Sequence[float] = 0.0
    eps: Rate = 1e-8

    def _settle(self) -> None:
        self.min_lr = self._rates("min_lr", self.min_lr)
        self.best = math.inf if self.mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = 0

    def _apply(self, step: int) -> None:
        """Rates change in `step` alone."""

    def step(self, metrics: Any = None) -> None:
        """Take note of a metric, a number or a tensor of one, and lower the rates if it is due."""
        good = metrics is not None and not isinstance(metrics, (str, bytes))
        require(good, "ReduceLROnPlateau.step", "metrics", metrics, "a number: step(val_loss)")
        metric = float(metrics)
        self.last_epoch += 1
        self.num_bad_epochs += 1
        if self._is_better(metric):
            self.best, self.num_bad_epochs = metric, 0
        if self.cooldown_counter:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown_counter - 1, 0
        if self.num_bad_epochs > self.patience:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
            self._reduce()

    def _is_better(self, metric: float) -> bool:
        sign = 1.0 if self.mode == "max" else -1.0
        if self.threshold_mode == "rel":
            return sign * metric > sign * self.best * (1 + sign * self.threshold)
        return sign * metric > sign * self.best + self.threshold

    def _reduce(self) -> None:
        for i, group in enumerate(self.optimizer.param_groups):
            least = of_group("ReduceLROnPlateau", self.min_lr, i)
            lr = max(group["lr"] * self.factor, least)
            if group["lr"] - lr > self.eps:
                group["lr"] = lr

    def state_dict(self) -> dict[str, Any]:
        """Return the steps made, the best metric, the counters, and the rates in use."""
        names = ("last_epoch", "best", "num_bad_epochs", "cooldown_counter")
        return {**{name: getattr(self, name) for name in names}, "_last_lr": self.get_last_lr()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict()`, and set the rates that belong to it."""
        lrs = [float(lr) for lr in state_dict["_last_lr"]]
        self._check_groups(len(lrs))
        self.best = float(state_dict["best"])
        for name in ("last_epoch", "num_bad_epochs", "cooldown_counter"):
            setattr(self, name, int(state_dict[name]))
        for group, lr in zip(self.optimizer.param_groups, lrs, strict=True):
            group["lr"] = lr


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


__all__ = sorted(
    name for name, x in globals().items() if isinstance(x, type) and issubclass(x, LRScheduler)
)
