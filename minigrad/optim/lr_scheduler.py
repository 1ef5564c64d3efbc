"""Learning-rate schedules: each is a formula from the number of steps made to the rate, so that any
step can be resumed from its number.

    optimizer.step(); scheduler.step()

The rates are written into the optimizer's groups in place. Names and numbers are PyTorch's;
`WarmupCosineLR` is the schedule of most transformers.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from minigrad.errors import ConfigError
from minigrad.optim.optimizer import Optimizer, ParamGroup


class LRScheduler:
    """The base: counts steps and writes `rate(base_lr, step, group)` into every group. base_lr is
    the group's rate when it was first scheduled.

    A schedule of your own is a subclass with `rate`, or a `LambdaLR`.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer, self.last_epoch = optimizer, 0
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.base_lrs = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self._apply(0)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """The learning rate of a group after `step` steps."""
        raise NotImplementedError

    def _apply(self, step: int) -> None:
        for i, (group, base_lr) in enumerate(
            zip(self.optimizer.param_groups, self.base_lrs, strict=True)
        ):
            group["lr"] = self.rate(base_lr, step, i)

    def step(self) -> None:
        """One step of the optimizer has been made: set the rates for the next one."""
        self.last_epoch += 1
        self._apply(self.last_epoch)

    def get_last_lr(self) -> list[float]:
        """The rates in use, one per group."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The number of steps made and the base rates."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict()`, and set the rates that belong there."""
        base_lrs = [float(lr) for lr in state_dict["base_lrs"]]
        if len(base_lrs) != len(self.base_lrs):
            raise ConfigError(
                type(self).__name__,
                f"the state is of {len(base_lrs)} groups, the optimizer has {len(self.base_lrs)}",
                got=len(base_lrs),
                wanted=len(self.base_lrs),
            )
        self.last_epoch, self.base_lrs = int(state_dict["last_epoch"]), base_lrs
        self._apply(self.last_epoch)


class LambdaLR(LRScheduler):
    """lr = base_lr * f(step), with one function for all groups or a list with one for each."""

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
    ) -> None:
        n = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * n if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != n:
            raise ConfigError(
                "LambdaLR",
                f"{len(self.lr_lambdas)} functions for {n} groups",
                got=len(self.lr_lambdas),
                wanted=n,
            )
        super().__init__(optimizer)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        return base_lr * self.lr_lambdas[group](step)


class ConstantLR(LRScheduler):
    """lr = base_lr * factor for total_iters steps, then base_lr."""

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5) -> None:
        _need("ConstantLR", "factor", factor, 0 <= factor <= 1, "0 <= factor <= 1")
        _need("ConstantLR", "total_iters", total_iters, total_iters >= 0, "total_iters >= 0")
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        return base_lr * (self.factor if step < self.total_iters else 1)


class LinearLR(LRScheduler):
    """lr = base_lr * (from start_factor to end_factor in a straight line over total_iters steps,
    then end_factor).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
    ) -> None:
        _need(
            "LinearLR", "start_factor", start_factor, 0 < start_factor <= 1, "0 < start_factor <= 1"
        )
        _need("LinearLR", "end_factor", end_factor, 0 <= end_factor <= 1, "0 <= end_factor <= 1")
        _need("LinearLR", "total_iters", total_iters, total_iters >= 1, "total_iters >= 1")
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        done = min(step / self.total_iters, 1)
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * done)


class CosineAnnealingLR(LRScheduler):
    """lr = eta_min + (base_lr - eta_min) (1 + cos(pi step / T_max)) / 2. From Loshchilov and Hutter
    2017, arXiv:1608.03983.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        _need("CosineAnnealingLR", "T_max", T_max, T_max >= 1, "T_max >= 1")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        return _cosine(base_lr, self.eta_min, step / self.T_max)


class WarmupCosineLR(LRScheduler):
    """From base_lr / warmup_steps up to base_lr in a straight line, down to min_lr by a cosine at
    total_steps, and min_lr from there on.

    step s < warmup_steps:  base_lr (s + 1) / warmup_steps      else:  min_lr + (base_lr - min_lr)
    (1 + cos(pi done)) / 2, done = (s - warmup_steps) / (total_steps - warmup_steps)
    """

    def __init__(
        self, optimizer: Optimizer, warmup_steps: int, total_steps: int, min_lr: float = 0.0
    ) -> None:
        _need(
            "WarmupCosineLR",
            "warmup_steps",
            warmup_steps,
            0 <= warmup_steps <= total_steps,
            "0 <= warmup_steps <= total_steps",
        )
        _need("WarmupCosineLR", "min_lr", min_lr, min_lr >= 0, "min_lr >= 0")
        self.warmup_steps, self.total_steps, self.min_lr = warmup_steps, total_steps, min_lr
        super().__init__(optimizer)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        if step < self.warmup_steps:
            return base_lr * (step + 1) / self.warmup_steps
        if step >= self.total_steps:
            return self.min_lr
        return _cosine(
            base_lr,
            self.min_lr,
            (step - self.warmup_steps) / (self.total_steps - self.warmup_steps),
        )


class WarmupStableDecayLR(LRScheduler):
    """From base_lr / warmup_steps up to base_lr in a straight line, level, and down to min_lr in
    the last decay_steps of total_steps.

    step s < warmup_steps:  base_lr (s + 1) / warmup_steps;   in the decay, with done = (s -
    (total_steps - decay_steps)) / decay_steps:
    "linear" min_lr + (base_lr - min_lr) (1 - done),   "sqrt" 1 - sqrt(done) in place of 1 - done,
    "cosine" (1 + cos(pi done)) / 2

    From Hu et al. 2024, arXiv:2404.06395; "sqrt" from Hägele et al. 2024, arXiv:2405.18392.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int,
        total_steps: int,
        decay_steps: int,
        min_lr: float = 0.0,
        decay: str = "linear",
    ) -> None:
        call = "WarmupStableDecayLR"
        _need(call, "warmup_steps", warmup_steps, warmup_steps >= 0, "warmup_steps >= 0")
        _need(
            call,
            "decay_steps",
            decay_steps,
            0 <= decay_steps <= total_steps - warmup_steps,
            "0 <= decay_steps <= total_steps - warmup_steps",
        )
        _need(call, "min_lr", min_lr, min_lr >= 0, "min_lr >= 0")
        _need(
            call,
            "decay",
            decay,
            decay in ("linear", "sqrt", "cosine"),
            "'linear', 'sqrt' or 'cosine'",
        )
        self.warmup_steps, self.total_steps, self.decay_steps, self.min_lr, self.decay = (
            warmup_steps,
            total_steps,
            decay_steps,
            min_lr,
            decay,
        )
        super().__init__(optimizer)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        if step < self.warmup_steps:
            return base_lr * (step + 1) / self.warmup_steps
        if step >= self.total_steps:
            return self.min_lr if self.decay_steps else base_lr
        done = max(step - (self.total_steps - self.decay_steps), 0) / max(self.decay_steps, 1)
        if self.decay == "cosine":
            return _cosine(base_lr, self.min_lr, done)
        return _line(base_lr, self.min_lr, math.sqrt(done) if self.decay == "sqrt" else done)


class SequentialLR(LRScheduler):
    """One schedule after the other: schedulers[i] from step milestones[i-1] on, counting from 0
    there.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]
    ) -> None:
        if not schedulers or len(milestones) != len(schedulers) - 1:
            raise ConfigError(
                "SequentialLR",
                f"{len(schedulers)} schedulers want one milestone between each two, not "
                f"{len(milestones)}",
                got=len(milestones),
                wanted=len(schedulers) - 1,
            )
        _need(
            "SequentialLR",
            "milestones",
            milestones,
            list(milestones) == sorted(set(milestones)),
            "rising step numbers",
        )
        for i, scheduler in enumerate(schedulers):
            _need(
                "SequentialLR",
                f"schedulers[{i}].optimizer",
                scheduler.optimizer,
                scheduler.optimizer is optimizer,
                "the same one",
            )
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        super().__init__(optimizer)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        i = bisect_right(self.milestones, step)
        return self.schedulers[i].rate(base_lr, step - (self.milestones[i - 1] if i else 0), group)


class OneCycleLR(LRScheduler):
    """Up from max_lr / div_factor to max_lr in the first pct_start of total_steps, down to max_lr /
    div_factor / final_div_factor in the rest.

    With cycle_momentum, momentum (or the first beta) goes the other way, from max_momentum to
    base_momentum and back. With three_phase, the way down first mirrors the way up, then goes from
    the initial to the final rate. From Smith and Topin 2019, arXiv:1708.07120.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ) -> None:
        _need("OneCycleLR", "total_steps", total_steps, total_steps >= 1, "total_steps >= 1")
        _need("OneCycleLR", "pct_start", pct_start, 0 <= pct_start <= 1, "0 <= pct_start <= 1")
        _need(
            "OneCycleLR",
            "anneal_strategy",
            anneal_strategy,
            anneal_strategy in ("cos", "linear"),
            "'cos' or 'linear'",
        )
        n = len(optimizer.param_groups)
        self.max_lrs = (
            [float(lr) for lr in max_lr] if isinstance(max_lr, Sequence) else [float(max_lr)] * n
        )
        _need(
            "OneCycleLR",
            "max_lr",
            max_lr,
            len(self.max_lrs) == n,
            f"one rate, or one for each of {n} groups",
        )
        self.total_steps, self.cycle_momentum, self.momenta = (
            total_steps,
            cycle_momentum,
            (max_momentum, base_momentum),
        )
        self._anneal = _cosine if anneal_strategy == "cos" else _line
        first, top, final = 1 / div_factor, 1.0, 1 / div_factor / final_div_factor
        up = pct_start * total_steps - 1
        # (last step of the phase, factor of max_lr there); momentum is at its base exactly where
        # the rate is at its top.
        self._phases = [(0.0, first), (up, top), (total_steps - 1.0, final)]
        if three_phase:
            self._phases[2:] = [(2 * up, first), (total_steps - 1.0, final)]
        super().__init__(optimizer)

    def _at(self, step: int, values: list[float]) -> float:
        """The value between those at the ends of the phase in which `step` lies."""
        ends = [end for end, _ in self._phases]
        i = next((i for i in range(1, len(ends)) if step <= ends[i]), len(ends) - 1)
        length = ends[i] - ends[i - 1]
        return self._anneal(
            values[i - 1], values[i], (step - ends[i - 1]) / length if length else 1.0
        )

    def rate(self, base_lr: float, step: int, group: int) -> float:
        if step >= self.total_steps:
            raise ConfigError(
                "OneCycleLR",
                f"step {step} of a cycle of {self.total_steps} steps",
                got=step,
                wanted=self.total_steps - 1,
            )
        return self._at(step, [self.max_lrs[group] * factor for _, factor in self._phases])

    def _apply(self, step: int) -> None:
        super()._apply(step)
        if self.cycle_momentum:
            high, low = self.momenta
            momentum = self._at(
                step, [low if factor == 1.0 else high for _, factor in self._phases]
            )
            for group in self.optimizer.param_groups:
                _set_momentum(group, momentum)


def _set_momentum(group: ParamGroup, momentum: float) -> None:
    if "betas" in group:
        group["betas"] = (momentum, group["betas"][1])
    elif group.get("momentum"):
        group["momentum"] = momentum
    else:
        raise ConfigError(
            "OneCycleLR",
            "the optimizer has no momentum to cycle",
            got=dict(group),
            wanted="momentum > 0 or betas",
            hint="cycle_momentum=False",
        )


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def _line(start: float, end: float, done: float) -> float:
    return start + (end - start) * done


def _need(call: str, name: str, value: Any, good: bool, wanted: str) -> None:
    if not good:
        raise ConfigError(
            call,
            f"{name}={value!r} will not do",
            got=value,
            wanted=wanted,
            hint=f"wanted: {wanted}",
        )
