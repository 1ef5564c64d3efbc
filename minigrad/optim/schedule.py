"""The base of all learning-rate schedules: see `lr_scheduler`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minigrad.arguments import as_float, as_int, require
from minigrad.errors import ConfigError
from minigrad.optim.optimizer import Optimizer, checks_of


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
        own: Any = type(self)
        for name, checks in checks_of(own).items():
            for check in checks:
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
