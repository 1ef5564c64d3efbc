"""Several optimizers as one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minigrad.errors import ConfigError
from minigrad.optim.optimizer import Optimizer


class ChainedOptimizer(Optimizer):
    """Several optimizers as one, each for parameters of its own: one `step`, one schedule, one
    state.

        ChainedOptimizer([Muon(matrices, lr=0.02), AdamW(others, lr=3e-3)])

    Its groups are those of the optimizers, in order; setting `lr` sets the rate of all of them.
    Raises ConfigError without an optimizer, and for a parameter that two of them have.
    """

    def __init__(self, optimizers: Iterable[Optimizer]) -> None:
        self.optimizers = list(optimizers)
        self.defaults: dict[str, Any] = {}
        self.param_groups = [group for one in self.optimizers for group in one.param_groups]
        self._bundles = [bundles for one in self.optimizers for bundles in one._bundles]
        params = [id(p) for group in self.param_groups for p in group["params"]]
        if not params or len(set(params)) < len(params):
            problem = "a parameter belongs to two optimizers" if params else "no optimizers"
            wanted = "each parameter once" if params else "a list of optimizers"
            raise ConfigError(self._name, problem, got=self.optimizers, wanted=wanted)

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Raise ConfigError: a group belongs to one of the optimizers."""
        problem = "a group cannot be added to several optimizers at once"
        hint = "add it to one of them, then chain them again"
        raise ConfigError(self._name, problem, got=group, hint=hint)

    def __repr__(self) -> str:
        return f"{self._name}({self.optimizers})"
