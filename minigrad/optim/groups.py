"""Parameters that are trained alike: groups with settings of their own, and bundles, updated
together, with their moments.
"""

from __future__ import annotations

import math
from collections import UserDict
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from minigrad import dtypes
from minigrad.errors import ConfigError
from minigrad.modes import MISSING, STRUCTURE
from minigrad.tensor import Tensor


class ParamGroup(UserDict[str, Any]):
    """A dict of one group's parameters and settings. Writing a setting (`group["lr"] = 1e-4`)
    checks it and changes the optimizer's copy in place, so that a schedule never makes a compiled
    step stale.

    owner: the Optimizer whose group it is: it checks settings, knows which are numbers of the
        update and which cannot change, and makes the update.
    """

    def __init__(self, owner: Any, values: dict[str, Any]) -> None:
        self.owner = owner
        self.settings = Tensor._wrap(np.zeros(0))
        super().__init__(values)
        self.settings = Tensor._wrap(self._numbers())

    def _numbers(self) -> dtypes.Array:
        values = [self.data[name] for name in self.owner._settings]
        parts = [value if isinstance(value, tuple) else (value,) for value in values]
        return np.array([number for part in parts for number in part], np.float64)

    def __setitem__(self, key: str, value: Any) -> None:
        value = self.owner._check(key, value)
        if key in self.owner._fixed and self.data.get(key, value) != value:
            problem = f"{key} cannot be changed once the group is made: moments depend on it"
            raise ConfigError("ParamGroup", problem, got=value, wanted=self.data[key])
        if key not in self.owner._settings:
            STRUCTURE.changed(self, key, self.data.get(key, MISSING), value)
            self.data[key] = value
        elif not self.settings.data.size:  # while it is being made
            self.data[key] = value
        else:
            self.settings._read(f"setting {key!r} of an optimizer")
            self.data[key] = value
            self.settings.assign(Tensor._wrap(self._numbers()))

    def spelled(self) -> str:
        """Return the settings as arguments; flags that are off are left out."""
        hidden = ("params", "param_names", "initial_lr")
        shown = {k: v for k, v in self.items() if k not in hidden and v is not False}
        return ", ".join(f"{k}={v!r}" for k, v in shown.items())

    def __repr__(self) -> str:
        return f"ParamGroup({len(self['params'])} tensors, {self.spelled()})"


MomentShapes = Callable[[Tensor], Sequence[tuple[int, ...] | None]]
Moments = list[dtypes.Array | None]


class Bundle:
    """Parameters of one dtype that have been updated equally often, with their step count and their
    flat moments.

    Small parameters come first, so that they are neighbours. A parameter that gets no gradient in
    some step moves to a bundle of its own.
    shapes: of a parameter's moments, one each; None for a moment that it does not have.
    """

    def __init__(self, params: list[Tensor], shapes: MomentShapes, step: int = 0) -> None:
        self.params, self.shapes = sorted(params, key=lambda p: p.data.size), shapes
        dtype = np.float64 if self.params[0].dtype == np.float64 else np.float32
        sizes = [[_size(shape) for shape in shapes(p)] for p in self.params]
        self.step = Tensor._wrap(np.array(step, np.int64))
        self.moments = [
            Tensor._wrap(np.zeros(sum(column), dtype)) for column in zip(*sizes, strict=True)
        ]

    def views(self) -> list[tuple[Tensor, Moments]]:
        """Return each parameter with its part of each moment, in that moment's shape, sharing
        memory; None for a moment that it does not have.
        """
        found, starts = [], [0] * len(self.moments)
        for p in self.params:
            parts: Moments = []
            for i, (m, shape) in enumerate(zip(self.moments, self.shapes(p), strict=True)):
                stop = starts[i] + _size(shape)
                parts.append(None if shape is None else m.data[starts[i] : stop].reshape(shape))
                starts[i] = stop
            found.append((p, parts))
        return found

    def split(self) -> list[Bundle]:
        """Return two bundles: of the parameters with a gradient and of those without."""
        parts = []
        for has_grad in (True, False):
            chosen = [(p, m) for p, m in self.views() if (p.grad is not None) == has_grad]
            part = Bundle([p for p, _ in chosen], self.shapes, int(self.step.data))
            for (_, new), (_, old) in zip(part.views(), chosen, strict=True):
                copy_moments(new, old)
            parts.append(part)
        self.retire()
        return parts

    def retire(self) -> None:
        """Give up the memory after other bundles have taken over, so that a compiled step that
        writes to it is seen to be stale.
        """
        for t in (self.step, *self.moments):
            t.data = np.zeros(0, t.dtype)


def _size(shape: tuple[int, ...] | None) -> int:
    return 0 if shape is None else math.prod(shape)


def copy_moments(to: Moments, source: Moments) -> None:
    """Copy the moments that both have."""
    for new, old in zip(to, source, strict=True):
        if new is not None and old is not None:
            new[...] = old


Rule = str | Callable[[str, Tensor], bool]


def grouped(
    named_parameters: Iterable[tuple[str, Tensor]], rules: Sequence[tuple[Rule, dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Return groups for an optimizer: each parameter goes to the first rule that matches it, the
    others to a last group with the optimizer's own settings.

    rules: (pattern of the name, or function of name and parameter; settings). Groups without a
        parameter are left out.

        rules = [("wte.*", {"lr": 1e-4}), (lambda name, p: p.ndim < 2, {"weight_decay": 0.0})]
        AdamW(grouped(model.named_parameters(), rules))

    Raises ConfigError for a pattern that matches no name, such as a misspelt one.
    """
    groups: list[dict[str, Any]] = [
        {"params": [], **settings} for _, settings in [*rules, ("*", {})]
    ]
    names = []
    for name, p in named_parameters:
        names.append(name)
        at = next((i for i, (rule, _) in enumerate(rules) if fits(rule, name, p)), len(rules))
        groups[at]["params"].append((name, p))
    for rule, _ in rules:
        if isinstance(rule, str) and not any(fnmatchcase(name, rule) for name in names):
            problem = f"no parameter's name matches {rule!r}"
            hint = f"names are like {names[:3]}"
            raise ConfigError("grouped", problem, got=rule, wanted=names, hint=hint)
    return [group for group in groups if group["params"]]


def decay_groups(
    named_parameters: Iterable[tuple[str, Tensor]],
    weight_decay: float,
    exclude: Rule = lambda name, p: p.ndim < 2,
) -> list[dict[str, Any]]:
    """Return two groups: what `exclude` matches has no weight decay, the rest `weight_decay`. By
    default biases and norms, which have one axis, are excluded, as for GPT-2.

        AdamW(decay_groups(model.named_parameters(), 0.1), lr=3e-4)
    """
    rules: list[tuple[Rule, dict[str, Any]]] = [(exclude, {"weight_decay": 0.0})]
    return grouped(named_parameters, [*rules, ("*", {"weight_decay": weight_decay})])


def fits(rule: Rule, name: str, p: Tensor) -> bool:
    """True if a rule, a pattern of names or a function, matches a parameter."""
    return fnmatchcase(name, rule) if isinstance(rule, str) else rule(name, p)
