"""Optimizers: groups of parameters with their settings, and the state that goes with them.

The arithmetic is in `ops.update`, one op for all parameters of a group. Here is what surrounds it:
which parameters are updated together (a `Bundle`), settings that can be changed in place while a
step is running or compiled (a `ParamGroup`), and saving.
"""

from __future__ import annotations

import math
from collections import UserDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from minigrad import dtypes
from minigrad.autograd import MODE, no_grad
from minigrad.errors import ConfigError, DTypeError, StateDictError
from minigrad.tensor import Tensor

Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]


class ParamGroup(UserDict[str, Any]):
    """A dict of one group's parameters and settings. Writing a setting (`group["lr"] = 1e-4`)
    checks it and changes the optimizer's copy in place, so that a schedule never makes a compiled
    step stale."""

    def __init__(self, owner: str, settings: tuple[str, ...], values: dict[str, Any]) -> None:
        self._owner, self._names = owner, settings
        self.settings = Tensor._wrap(np.zeros(0))
        super().__init__(values)
        self.settings = Tensor._wrap(self._numbers())

    def _numbers(self) -> dtypes.Array:
        numbers: list[float] = []
        for name in self._names:
            value = self.data[name]
            numbers.extend(value if isinstance(value, tuple | list) else (value,))
        return np.array(numbers, np.float64)

    def __setitem__(self, key: str, value: Any) -> None:
        value, in_use = (
            _checked(self._owner, key, value),
            self.settings.data.size and key in self._names,
        )
        if in_use and (setting := getattr(MODE.get().listener, "setting", None)) is not None:
            setting(key)
        self.data[key] = value
        if in_use:
            self.settings.assign(Tensor._wrap(self._numbers()))

    def __repr__(self) -> str:
        return f"ParamGroup({len(self['params'])} tensors, {_spelled(self)})"


def _spelled(group: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{k}={v!r}" for k, v in group.items() if k not in ("params", "param_names", "initial_lr")
    )


def _checked(owner: str, key: str, value: Any) -> Any:
    """The setting, as plain Python numbers. Raises ConfigError for one that makes no sense."""
    if key == "betas":
        b1, b2 = (float(b) for b in value)
        if not (0 <= b1 < 1 and 0 <= b2 < 1):
            raise ConfigError(
                owner, f"betas={value} must lie in 0 <= beta < 1", got=value, wanted="0 <= beta < 1"
            )
        return b1, b2
    if key == "eps" and isinstance(value, tuple | list):
        return tuple(_checked(owner, key, part) for part in value)
    if key in ("lr", "eps", "weight_decay", "momentum", "dampening", "clip"):
        value = float(value)
        if not 0 <= value < math.inf:
            raise ConfigError(
                owner,
                f"{key}={value} must be a finite number >= 0",
                got=value,
                wanted=f"{key} >= 0",
            )
    return value


MomentShapes = Callable[[Tensor], Sequence[tuple[int, ...] | None]]


class Bundle:
    """Parameters of one dtype that have been updated equally often, with their step count and their
    flat moments.

    Small parameters come first, so that they lie together. A parameter that gets no gradient in
    some step leaves for a bundle of its own.
    shapes: of a parameter's moments, one each; None for a moment that it does not have.
    """

    def __init__(self, params: list[Tensor], shapes: MomentShapes, step: int = 0) -> None:
        self.params, self.shapes = sorted(params, key=lambda p: p.data.size), shapes
        dtype = np.float64 if self.params[0].dtype == np.float64 else np.float32
        sizes = [
            [math.prod(shape) if shape is not None else 0 for shape in shapes(p)]
            for p in self.params
        ]
        self.step = Tensor._wrap(np.array(step, np.int64))
        self.moments = [
            Tensor._wrap(np.zeros(sum(column), dtype)) for column in zip(*sizes, strict=True)
        ]

    def views(self) -> list[tuple[Tensor, list[dtypes.Array | None]]]:
        """Each parameter with its part of each moment, in that moment's shape, sharing memory; None
        for a moment it does not have.
        """
        found, starts = [], [0] * len(self.moments)
        for p in self.params:
            parts: list[dtypes.Array | None] = []
            for i, (m, shape) in enumerate(zip(self.moments, self.shapes(p), strict=True)):
                size = math.prod(shape) if shape is not None else 0
                parts.append(
                    None if shape is None else m.data[starts[i] : starts[i] + size].reshape(shape)
                )
                starts[i] += size
            found.append((p, parts))
        return found

    def split(self) -> list[Bundle]:
        """Two bundles: of the parameters with a gradient and of those without."""
        parts = []
        for has_grad in (True, False):
            chosen = [
                (p, moments) for p, moments in self.views() if (p.grad is not None) == has_grad
            ]
            part = Bundle([p for p, _ in chosen], self.shapes, int(self.step.data))
            for (_, new), (_, old) in zip(part.views(), chosen, strict=True):
                _copy(new, old)
            parts.append(part)
        self.retire()
        return parts

    def retire(self) -> None:
        """Give up the memory, once other bundles have taken over: a compiled step that writes to it
        must not run any more, and sees that so.
        """
        for t in (self.step, *self.moments):
            t.data = np.zeros(0, t.dtype)


def _copy(to: Sequence[dtypes.Array | None], source: Sequence[dtypes.Array | None]) -> None:
    for new, old in zip(to, source, strict=True):
        if new is not None and old is not None:
            new[...] = old


class Optimizer:
    """The base of all optimizers: groups, checks, state. A subclass names its settings and moments
    and says `_update`.

    params: tensors, or (name, tensor) pairs, or dicts {"params": ..., "lr": ...} of groups with
        their own settings.
    Raises ConfigError for an empty list, a parameter given twice, or a setting that makes no sense.
    """

    _settings: tuple[str, ...] = ()
    _moments: tuple[str, ...] = ()

    def __init__(self, params: Params, **defaults: Any) -> None:
        self.defaults = defaults
        self.param_groups: list[ParamGroup] = []
        self._bundles: list[list[Bundle]] = []
        given: list[Any] = [params] if isinstance(params, Tensor) else list(params)
        if isinstance(params, Tensor):
            raise DTypeError(
                self._name,
                "params is one tensor",
                got=params,
                wanted="a list",
                hint="pass [tensor]",
            )
        if not given:
            raise ConfigError(
                self._name,
                "there are no parameters",
                got=[],
                wanted="at least one parameter",
                hint="if they come from a generator, it may have been used up",
            )
        for group in given if isinstance(given[0], dict) else [{"params": given}]:
            self.add_param_group(group)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add a group {"params": ..., and any settings of its own}, as for the parameters of a
        layer that is trained from now on.
        """
        group = {**group}
        params = group.pop("params", ())
        params = [params] if isinstance(params, Tensor) else list(params)
        if params and isinstance(params[0], tuple):
            group["param_names"] = [name for name, _ in params]
            params = [p for _, p in params]
        unknown = [key for key in group if key not in (*self.defaults, "param_names", "initial_lr")]
        if unknown:
            raise ConfigError(
                self._name,
                f"a group has no setting {unknown[0]!r}",
                got=unknown,
                wanted=list(self.defaults),
            )
        self._check_params(params)
        settings = {"params": params, **self.defaults, **group}
        self.param_groups.append(ParamGroup(self._name, self._settings, settings))
        self._bundles.append(self._bundled([(p, 0) for p in params]))

    def _check_params(self, params: list[Any]) -> None:
        seen = {id(p) for group in self.param_groups for p in group["params"]}
        for i, p in enumerate(params):
            if not isinstance(p, Tensor) or not dtypes.is_float(p.dtype):
                what = f"a tensor of {p.dtype}" if isinstance(p, Tensor) else repr(type(p).__name__)
                raise DTypeError(
                    self._name,
                    f"params[{i}] is {what}",
                    got=p,
                    wanted="a tensor of a floating dtype",
                )
            if id(p) in seen:
                raise ConfigError(
                    self._name,
                    f"params[{i}], of shape {p.shape}, is given twice",
                    got=i,
                    wanted="each once",
                    hint="model.parameters() gives tied weights once",
                )
            seen.add(id(p))

    def _bundled(self, params: list[tuple[Tensor, int]]) -> list[Bundle]:
        """The fewest bundles for parameters with their step counts."""
        kinds: dict[tuple[bool, int], list[Tensor]] = {}
        for p, step in params:
            kinds.setdefault((p.dtype == np.float64, step), []).append(p)
        return [Bundle(group, self._moment_shapes, step) for (_, step), group in kinds.items()]

    def _moment_shapes(self, p: Tensor) -> Sequence[tuple[int, ...] | None]:
        """The shapes of a parameter's moments, None for one that it does not have: the parameter's
        own, unless an optimizer says otherwise.
        """
        return [p.shape] * len(self._moments)

    @property
    def lr(self) -> float:
        """The learning rate of the first group; setting it sets that of every group, in place."""
        return float(self.param_groups[0]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        for group in self.param_groups:
            group["lr"] = value

    def step(self) -> None:
        """Update every parameter that has a gradient. The others keep their value, moments and step
        count.
        """
        with no_grad():
            for group, bundle in self._due():
                self._update(bundle, group, [p.grad for p in bundle.params if p.grad is not None])

    def _due(self) -> list[tuple[ParamGroup, Bundle]]:
        """The bundles with gradients; one with gradients for some of its parameters only is split
        first.
        """
        due = []
        for group, bundles in zip(self.param_groups, self._bundles, strict=True):
            for bundle in list(bundles):
                missing = [p.grad is None for p in bundle.params]
                if any(missing) and not all(missing):
                    at = bundles.index(bundle)
                    bundles[at : at + 1] = bundle.split()
                    bundle = bundles[at]
                if not all(missing):
                    due.append((group, bundle))
        return due

    def written(self) -> list[Tensor]:
        """What `step()` would write to now: step counts, moments, parameters that have a gradient.
        With copies of them, a step can be undone.
        """
        return [
            t for _, bundle in self._due() for t in (bundle.step, *bundle.moments, *bundle.params)
        ]

    @property
    def nbytes(self) -> int:
        """The memory of the moments."""
        return sum(
            m.data.nbytes for bundles in self._bundles for bundle in bundles for m in bundle.moments
        )

    def exchange(self, params: Iterable[Tensor]) -> Optimizer:
        """Update other tensors from now on, one for each parameter in the order of the groups, and
        return self: for copies in another precision.

        Raises ConfigError after the first step, and if they do not fit.
        """
        new, old = list(params), [p for group in self.param_groups for p in group["params"]]
        if [p.shape for p in new] != [p.shape for p in old] or any(
            b.step.data for bundles in self._bundles for b in bundles
        ):
            raise ConfigError(
                self._name,
                "exchange() wants a tensor for each parameter, before the first step",
                got=[p.shape for p in new],
                wanted=[p.shape for p in old],
            )
        fresh = iter(new)
        for at, group in enumerate(self.param_groups):
            group.data["params"] = [next(fresh) for _ in group["params"]]
            self._bundles[at] = self._bundled([(p, 0) for p in group["params"]])
        return self

    def _update(self, bundle: Bundle, group: ParamGroup, gradients: list[Tensor]) -> None:
        raise NotImplementedError

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients; or, with set_to_none=False, write zeros over them."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p.grad = None
                elif p.grad is not None:
                    if p.grad.requires_grad:  # part of a graph, by create_graph=True
                        p.grad = p.grad.detach()
                    p.grad.assign(0)

    def state_dict(self) -> dict[str, Any]:
        """A snapshot in PyTorch's layout: {"state": {index: {"step", moments...}}, "param_groups":
        [{settings..., "params": indices}]}.

        Parameters are numbered through all groups; one that was never updated has no state.
        Training on does not change it.
        """
        index = {
            id(p): i
            for i, p in enumerate(p for group in self.param_groups for p in group["params"])
        }
        state: dict[int, dict[str, Any]] = {}
        for bundle in (b for bundles in self._bundles for b in bundles if b.step.data):
            for p, moments in bundle.views():
                named = zip(self._moments, moments, strict=True)
                state[index[id(p)]] = {
                    "step": int(bundle.step.data),
                    **{name: Tensor(m) for name, m in named if m is not None},
                }
        groups = [
            {**group.data, "params": [index[id(p)] for p in group["params"]]}
            for group in self.param_groups
        ]
        return {"state": dict(sorted(state.items())), "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over moments, step counts and settings of `state_dict()`, made by an optimizer of
        the same kind with groups of the same sizes.

        Raises StateDictError, and changes nothing, if they do not fit.
        """
        if not {"state", "param_groups"} <= set(state_dict):
            raise StateDictError(
                self._name,
                "no state of an optimizer",
                got=sorted(state_dict),
                wanted=["state", "param_groups"],
            )
        groups = list(state_dict["param_groups"])
        state = {int(i): entry for i, entry in state_dict["state"].items()}  # text from a file
        settings = [
            self._fitting(own, group) for own, group in zip(self.param_groups, groups, strict=False)
        ]
        sizes, own_sizes = (
            [len(g["params"]) for g in groups],
            [len(g["params"]) for g in self.param_groups],
        )
        if sizes != own_sizes:
            raise StateDictError(
                self._name,
                f"groups of {sizes} parameters for groups of {own_sizes}",
                got=sizes,
                wanted=own_sizes,
            )
        numbers = [i for group in groups for i in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        entries = {
            id(p): self._entry(i, p, state[i])
            for i, p in zip(numbers, params, strict=True)
            if i in state
        }
        for at, (own, new) in enumerate(zip(self.param_groups, settings, strict=True)):
            own.update(new)
            for bundle in self._bundles[at]:
                bundle.retire()
            self._bundles[at] = self._bundled(
                [(p, entries[id(p)][0] if id(p) in entries else 0) for p in own["params"]]
            )
            for p, moments in (view for bundle in self._bundles[at] for view in bundle.views()):
                if id(p) in entries:
                    _copy(moments, entries[id(p)][1])

    def _fitting(self, own: ParamGroup, group: Mapping[str, Any]) -> dict[str, Any]:
        missing = [name for name in self._settings if name not in group]
        if missing:
            raise StateDictError(
                self._name,
                f"the state has no setting {missing[0]!r}: it is of another kind of optimizer",
                got=sorted(group),
                wanted=self._settings,
            )
        kept = (*self.defaults, "initial_lr")
        return {name: _checked(self._name, name, group[name]) for name in kept if name in group}

    def _entry(
        self, i: Any, p: Tensor, entry: Mapping[str, Any]
    ) -> tuple[int, list[dtypes.Array | None]]:
        shapes = dict(zip(self._moments, self._moment_shapes(p), strict=True))
        missing = [
            name
            for name, shape in [("step", ()), *shapes.items()]
            if shape is not None and name not in entry
        ]
        if missing:
            raise StateDictError(
                self._name,
                f"the state of parameter {i} has no {missing[0]!r}",
                got=sorted(entry),
                wanted=self._moments,
            )
        moments = [
            None if shape is None else np.asarray(entry[name]) for name, shape in shapes.items()
        ]
        for (name, shape), m in zip(shapes.items(), moments, strict=True):
            if m is not None and m.shape != shape:
                raise StateDictError(
                    self._name,
                    f"{name} of parameter {i} has shape {m.shape}, wanted is {shape}",
                    got=m.shape,
                    wanted=shape,
                )
        return int(entry["step"]), moments

    def __repr__(self) -> str:
        return f"{self._name}({'; '.join(_spelled(group) for group in self.param_groups)})"
