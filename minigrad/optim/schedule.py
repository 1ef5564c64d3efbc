"""The base of all learning-rate schedules, and those with a memory or a shape of their own: see
`lr_scheduler`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, get_type_hints

from minigrad.arguments import as_float, as_int, one_of, require
from minigrad.errors import ConfigError
from minigrad.optim.groups import ParamGroup
from minigrad.optim.optimizer import Optimizer


def choice(*words: str) -> Callable[[str, str, Any], Any]:
    """Return the check of a setting that is one of these words."""

    def check(call: str, name: str, value: Any) -> Any:
        one_of(call, name, value, words)
        return value

    return check


# A setting's annotation has its check, a function of call, name and value.
Count = Annotated[int, as_int]
Whole = Annotated[int, partial(as_int, least=0)]
Rate = Annotated[float, partial(as_float, least=0)]
Positive = Annotated[float, partial(as_float, least=0, above=True)]
Share = Annotated[float, partial(as_float, least=0, most=1)]
Fraction = Annotated[float, partial(as_float, least=0, most=1, below=True)]


@dataclass(init=False, repr=False, eq=False)
class LRScheduler:
    """The base: count steps and write `rate(base_lr, step, group)` into every group. base_lr is
    the group's rate when it was first scheduled.

    last_epoch: the number of the last step made; -1 for a new run.
    A schedule of your own is a subclass with `rate`, or a `LambdaLR`.
    """

    optimizer: Optimizer

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = optimizer
        self.base_lrs: list[float] = []
        self.last_epoch = as_int(self._name, "last_epoch", last_epoch, -1) + 1
        self._apply(self.last_epoch)

    def __post_init__(self) -> None:
        """Check the settings of a schedule that is a dataclass of them."""
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            for check in getattr(hint, "__metadata__", ()):
                setattr(self, name, check(self._name, name, getattr(self, name)))
        self._settle()
        LRScheduler.__init__(self, self.optimizer, getattr(self, "last_epoch", -1))

    def _settle(self) -> None:
        """Complete the settings, and check how they go together."""

    @property
    def _name(self) -> str:
        return type(self).__name__

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return the learning rate of a group after `step` steps."""
        raise NotImplementedError

    def _apply(self, step: int) -> None:
        self._find_new_groups()
        for i, group in enumerate(self.optimizer.param_groups):
            group["lr"] = self.rate(self.base_lrs[i], step, i)

    def _find_new_groups(self) -> None:
        for group in self.optimizer.param_groups[len(self.base_lrs) :]:
            self.base_lrs.append(float(group.setdefault("initial_lr", group["lr"])))

    def step(self) -> None:
        """Count a step of the optimizer, and set the rates of the next one."""
        self._apply(self.last_epoch + 1)
        self.last_epoch += 1

    def get_last_lr(self) -> list[float]:
        """Return the rates in use, one per group."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps made and the base rates."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict()`, and set the rates that belong to it."""
        base_lrs = [float(lr) for lr in state_dict["base_lrs"]]
        self._check_groups(len(base_lrs))
        self.last_epoch, self.base_lrs = int(state_dict["last_epoch"]), base_lrs
        self._apply(self.last_epoch)

    def _check_groups(self, count: int) -> None:
        own = len(self.optimizer.param_groups)
        problem = f"the state is of {count} groups, the optimizer has {own}"
        if count != own:
            raise ConfigError(self._name, problem, got=count, wanted=own)

    def _one_per_group(self, name: str, value: Any) -> list[Any]:
        """A setting as a list with one entry per group, if it is given so."""
        values, count = list(value), len(self.optimizer.param_groups)
        require(len(values) == count, self._name, name, value, f"one, or one for each of {count}")
        return values

    def _rates(self, name: str, value: float | Sequence[float]) -> float | list[float]:
        """One learning rate for all groups, or a list with one for each, checked."""
        if not isinstance(value, Sequence):
            return as_float(self._name, name, value, 0)
        return [as_float(self._name, name, lr, 0) for lr in self._one_per_group(name, value)]

    def __repr__(self) -> str:
        names = list(inspect.signature(type(self).__init__).parameters)
        own = [name for name in names if name not in ("self", "optimizer", "last_epoch")]
        settings = [f"{name}={getattr(self, name)!r}" for name in own if hasattr(self, name)]
        lrs = ", ".join(f"{lr:g}" for lr in self.get_last_lr())
        return f"{self._name}({', '.join([*settings, f'last_epoch={self.last_epoch}'])}; lr {lrs})"


def of_group(call: str, values: Any, group: int) -> Any:
    """Return a group's entry of a list with one for each; a single value is that of all groups."""
    if not isinstance(values, Sequence):
        return values
    if group >= len(values):
        problem = f"group {group} was added later, and only {len(values)} have a setting"
        hint = "give one setting for all groups, or make a new schedule"
        raise ConfigError(call, problem, got=group, wanted=len(values), hint=hint)
    return values[group]


def cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def line(start: float, end: float, done: float) -> float:
    return start + (end - start) * done


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
    base_momentum and back. With three_phase, the way down first mirrors the way up, then goes from
    the initial to the final rate. `step()` may be called total_steps times; the last call keeps the
    final rate. From Smith and Topin 2019, arXiv:1708.07120.
    """

    max_lr: float | Sequence[float]
    total_steps: Count
    pct_start: Share = 0.3
    anneal_strategy: Annotated[str, choice("cos", "linear")] = "cos"
    cycle_momentum: bool = True
    base_momentum: Fraction = 0.85
    max_momentum: Fraction = 0.95
    div_factor: Positive = 25.0
    final_div_factor: Positive = 1e4
    three_phase: bool = False
    last_epoch: int = -1

    def _settle(self) -> None:
        self.max_lr = self._rates("max_lr", self.max_lr)

    def _phases(self) -> list[tuple[float, float]]:
        """The last step of each phase with the factor of max_lr there; momentum is at its base
        exactly where the factor is 1.
        """
        first, final = 1 / self.div_factor, 1 / self.div_factor / self.final_div_factor
        up, end = self.pct_start * self.total_steps - 1, self.total_steps - 1.0
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
        if step > self.total_steps:
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
    else:
        problem = "the optimizer has no momentum to cycle"
        hint = "pass cycle_momentum=False, or give the optimizer a momentum"
        raise ConfigError("OneCycleLR", problem, dict(group), "momentum > 0 or betas", hint)


@dataclass(repr=False, eq=False)
class ReduceLROnPlateau(LRScheduler):
    """Multiply every rate by `factor` after more than `patience` steps without a better metric.

    mode: "min" if lower is better, else "max".   cooldown: steps after a reduction that are not
        counted as bad.   min_lr: the lowest rate, one for all groups or one for each.
    threshold: by how much a metric must improve on the best one, relative to it for
        threshold_mode="rel", absolute for "abs".   eps: a smaller change of a rate is not made.
    """

    mode: Annotated[str, choice("min", "max")] = "min"
    factor: Fraction = 0.1
    patience: Whole = 10
    threshold: Rate = 1e-4
    threshold_mode: Annotated[str, choice("rel", "abs")] = "rel"
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
        if metrics is None:
            require(False, "ReduceLROnPlateau.step", "metrics", None, "a number: step(val_loss)")
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
