"""The base of all optimizers: groups of parameters, checks, and state.

The arithmetic is an op next to each optimizer, for all parameters of a `Bundle` at once; a
`ParamGroup` holds settings that can be changed in place while a step is running or compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import InitVar
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np

from minigrad import dtypes
from minigrad.arguments import Names, as_float, require
from minigrad.autograd import clear_gradients, no_grad
from minigrad.errors import ConfigError, DTypeError, ShapeError, StateDictError
from minigrad.fields import Fields
from minigrad.modes import MISSING, STRUCTURE
from minigrad.optim.groups import Bundle, Entry, ParamGroup, Shapes
from minigrad.tensor import Tensor
from minigrad.tensor.base import Self

Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]


def as_flag(call: str, name: str, value: Any) -> Any:
    """Return a bool. Raises ConfigError for another value."""
    require(isinstance(value, bool), call, name, value, "True or False")
    return value


def as_pair(call: str, name: str, value: Any, **interval: Any) -> tuple[float, ...]:
    """Return a pair of numbers in an interval, as `as_float` takes it. Raises ConfigError."""
    pair = isinstance(value, tuple | list) and len(value) == 2
    require(pair, call, name, value, "a pair of numbers")
    return tuple(as_float(call, name, x, **interval) for x in value)


# Settings with their checks: see `fields`.
Flag = Annotated[bool, as_flag]
Rate = Annotated[float, partial(as_float, least=0, below=True)]
Fraction = Annotated[float, partial(as_float, least=0, most=1, below=True)]
Fractions = Annotated[tuple[float, float], partial(as_pair, least=0, most=1, below=True)]


class Setting:
    """A setting as an attribute of the optimizer."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, optimizer: Any, owner: Any = None) -> Any:
        return self if optimizer is None else optimizer.param_groups[0][self.name]

    def __set__(self, optimizer: Any, value: Any) -> None:
        for group in optimizer.param_groups:
            group[self.name] = value


class Optimizer(Fields):
    """The base of all optimizers. The annotated attributes of a subclass are its settings.

    params: tensors, or (name, tensor) pairs, or dicts {"params": ..., "lr": ...} of groups with
        their own settings.
    A setting is an attribute too, `lr` say: that of the first group; setting it sets that of every
    group, in place.
    Raises ConfigError for an empty list, a parameter given twice, or an invalid setting.

    A subclass says:   update: its op, which reads the settings that are numbers, in order, and has
        the others as params.   moments: their names in a state.   extra: flags, each with a further
        moment that it asks for.
    """

    params: InitVar[Params]
    lr: Rate
    _settings: ClassVar[tuple[str, ...]] = ()  # those that are numbers of the update, in order
    _moments: ClassVar[tuple[str, ...]] = ()
    _extra: ClassVar[Mapping[str, str]] = {}
    _op: ClassVar[Callable[..., Any]]

    def __init_subclass__(
        cls,
        update: Callable[..., Any] | None = None,
        moments: tuple[str, ...] = (),
        extra: Mapping[str, str] = {},
    ) -> None:
        super().__init_subclass__()
        if update is not None:
            cls._op = staticmethod(update)
        if moments:
            cls._moments, cls._extra = moments, extra
        fields = [f for f in cls._fields.values() if "InitVar" not in str(f.annotation)]
        cls._settings = tuple(f.name for f in fields if isinstance(f.default, float | tuple))
        for f in fields:
            setattr(cls, f.name, Setting(f.name))

    def __new__(cls, *_: Any, **options: Any) -> Self:
        names = Names(cls.__init__)
        names.call = cls.__name__
        if not names.takes_any_keyword:
            names.respelled(options)  # raises for an unknown one
        return super().__new__(cls)

    def __init__(self, params: Params, **defaults: Any) -> None:
        self.defaults = defaults
        self.param_groups: list[ParamGroup] = []
        if isinstance(params, Tensor):
            problem, hint = "params must be a list of tensors, got one tensor", "pass [tensor]"
            raise DTypeError(self._name, problem, got=params, wanted="a list", hint=hint)
        given: list[Any] = list(params)
        if not given:
            problem = "there are no parameters"
            hint = "if they come from a generator, it may have been used up"
            raise ConfigError(self._name, problem, [], "at least one parameter", hint)
        for group in given if isinstance(given[0], dict) else [{"params": given}]:
            self.add_param_group(group)

    def _take(self, arguments: dict[str, Any]) -> None:
        Optimizer.__init__(self, **arguments)

    @property
    def _name(self) -> str:
        return type(self).__name__

    # --- groups

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
        for key in group:
            if key not in (*self.defaults, "param_names", "initial_lr"):
                problem, known = f"a group has no setting {key!r}", list(self.defaults)
                raise ConfigError(self._name, problem, key, known, hint=f"known: {known}")
        self._check_params(params)
        settings = {"params": params, **self.defaults, **group}
        self._check_group(settings)
        added = ParamGroup(self, settings)
        self.param_groups.append(added)
        STRUCTURE.changed(self, "param_groups", MISSING, added)

    def _check_params(self, params: list[Any]) -> None:
        seen = {id(p) for group in self.param_groups for p in group["params"]}
        for i, p in enumerate(params):
            if not isinstance(p, Tensor) or not dtypes.is_float(p.dtype):
                what = f"a tensor of {p.dtype}" if isinstance(p, Tensor) else repr(type(p).__name__)
                wanted = "a tensor of a floating dtype"
                problem = f"params[{i}] must be {wanted}, got {what}"
                raise DTypeError(self._name, problem, got=p, wanted=wanted)
            if id(p) in seen:
                problem = f"params[{i}], of shape {p.shape}, is given twice"
                hint = "model.parameters() gives tied weights once"
                raise ConfigError(self._name, problem, got=i, wanted="each once", hint=hint)
            seen.add(id(p))

    def _check_group(self, group: dict[str, Any]) -> None:
        """Raise ConfigError for settings that do not go together."""

    def _checked(self, name: str, value: Any) -> Any:
        """The setting to keep, as plain Python numbers. Raises ConfigError for an invalid one."""
        if isinstance(value, np.generic | np.ndarray | Tensor) and math.prod(value.shape) == 1:
            value = value.item()
        return super()._checked(name, value)

    def _moment_names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """The moments that a group's update takes."""
        return (*self._moments, *(name for flag, name in self._extra.items() if group[flag]))

    def _moment_shapes(self, group: Mapping[str, Any], p: Tensor) -> Shapes:
        """The shapes of the moments that a parameter has: of all, the parameter's, by default."""
        return dict.fromkeys(self._moment_names(group), p.shape)

    # --- steps

    def step(self) -> None:
        """Update every parameter that has a gradient. The others keep their value, moments and step
        count. Raises ShapeError for a gradient of another shape.
        """
        with no_grad():
            for group, bundle in self._due():
                gradients: list[Any] = [p.grad for p in bundle.params]
                for p, g in zip(bundle.params, gradients, strict=True):
                    array = g.data if isinstance(g, Tensor) else g
                    if getattr(array, "shape", None) != p.data.shape:
                        problem = f"a .grad that does not fit a parameter of shape {p.shape}"
                        raise ShapeError(type(self).__name__, problem, np.shape(g), p.shape)
                group.owner._update(bundle, group, gradients)

    def _due(self) -> list[tuple[ParamGroup, Bundle]]:
        """The bundles with gradients. One with gradients for only some of its parameters is split
        first.
        """
        due = []
        for group in self.param_groups:
            for bundle in list(group.bundles):
                missing = [p.grad is None for p in bundle.params]
                if any(missing) and not all(missing):
                    at = group.bundles.index(bundle)
                    group.bundles[at : at + 1] = bundle.split()
                    bundle = group.bundles[at]
                if not all(missing):
                    due.append((group, bundle))
        return due

    def _all_bundles(self) -> Iterator[Bundle]:
        return (bundle for group in self.param_groups for bundle in group.bundles)

    def _update(self, bundle: Bundle, group: ParamGroup, gradients: list[Tensor]) -> None:
        """Change a bundle by its gradients: call the op on all that it changes and reads."""
        changed = (bundle.step, *bundle.moments.values(), *bundle.params)
        flags = {n: group[n] for n in self.defaults if n not in (*self._settings, *self._extra)}
        self._op(*changed, group.settings, *gradients, changes=len(changed), **flags)

    def written(self) -> list[Tensor]:
        """Return what `step()` would write to now: step counts, moments, and parameters that have a
        gradient. With copies of them, a step can be undone.
        """
        due = [bundle for _, bundle in self._due()]
        return [t for b in due for t in (b.step, *b.moments.values(), *b.params)]

    @property
    def nbytes(self) -> int:
        """The memory of the moments."""
        return sum(m.data.nbytes for b in self._all_bundles() for m in b.moments.values())

    def exchange(self, params: Iterable[Tensor]) -> Optimizer:
        """Update other tensors from now on, one for each parameter in the order of the groups, and
        return self: for copies in another precision.

        Raises ConfigError after the first step, and if they do not fit.
        """
        new, old = list(params), [p for group in self.param_groups for p in group["params"]]
        stepped = any(bundle.step.data for bundle in self._all_bundles())
        if [p.shape for p in new] != [p.shape for p in old] or stepped:
            problem = "exchange() needs a tensor for each parameter, before the first step"
            wanted = [p.shape for p in old]
            raise ConfigError(self._name, problem, got=[p.shape for p in new], wanted=wanted)
        STRUCTURE.changed(self, "param_groups", MISSING, new)
        fresh = iter(new)
        for group in self.param_groups:
            group.data["params"] = [next(fresh) for _ in group["params"]]
            group.bundle([(p, 0, {}) for p in group["params"]])
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Remove all gradients; or, with set_to_none=False, write zeros over them."""
        for group in self.param_groups:
            clear_gradients(group["params"], set_to_none)

    # --- state

    def state_dict(self) -> dict[str, Any]:
        """Return a snapshot in PyTorch's layout: {"state": {index: {"step", moments...}},
        "param_groups": [{settings..., "params": indices}]}.

        Parameters are numbered through all groups; one that was never updated has no state.
        """
        params = [p for group in self.param_groups for p in group["params"]]
        index = {id(p): i for i, p in enumerate(params)}
        state: dict[int, dict[str, Any]] = {}
        for p, step, moments in (e for bundle in self._all_bundles() for e in bundle.entries()):
            if step:
                copies = {name: Tensor(m) for name, m in moments.items()}
                state[index[id(p)]] = {"step": step, **copies}
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
            wanted = ["state", "param_groups"]
            problem = f"the state must have the keys {wanted}, got {sorted(state_dict)}"
            raise StateDictError(self._name, problem, got=sorted(state_dict), wanted=wanted)
        groups = list(state_dict["param_groups"])
        state = {int(i): entry for i, entry in state_dict["state"].items()}  # text from a file
        sizes = [len(group["params"]) for group in groups]
        own_sizes = [len(group["params"]) for group in self.param_groups]
        if sizes != own_sizes:
            problem = f"the groups must have {own_sizes} parameters, got {sizes}"
            raise StateDictError(self._name, problem, got=sizes, wanted=own_sizes)
        changes = []  # found before any is made: an error must leave all as it was
        for own, group in zip(self.param_groups, groups, strict=True):
            new = own.owner._fitting(group)
            entries = [
                own.owner._entry(i, p, {**own, **new}, state.get(i))
                for i, p in zip(group["params"], own["params"], strict=True)
            ]
            changes.append((own, new, entries))
        STRUCTURE.changed(self, "state", MISSING, state)
        for own, new, entries in changes:
            own.data.update({name: new[name] for name in own.owner._extra if name in new})
            own.update(new)
            for bundle in own.bundles:
                bundle.retire()
            own.bundle(entries)

    def _fitting(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a saved group."""
        for name in self._settings:
            if name not in group:
                problem = f"the state has no setting {name!r}: it is of another kind of optimizer"
                raise StateDictError(self._name, problem, got=sorted(group), wanted=self._settings)
        kept = (*self.defaults, "initial_lr")
        return {name: self._checked(name, group[name]) for name in kept if name in group}

    def _entry(self, i: Any, p: Tensor, group: Any, entry: Mapping[str, Any] | None) -> Entry:
        """A saved parameter's entry of a bundle."""
        if entry is None:
            return p, 0, {}
        arrays = {name: np.asarray(value) for name, value in entry.items()}
        for name, shape in {"step": (), **self._moment_shapes(group, p)}.items():
            if name not in entry:
                problem = f"the state of parameter {i} has no {name!r}"
                raise StateDictError(self._name, problem, sorted(entry), self._moments)
            if (got := arrays[name].shape) != shape:
                problem = f"{name} of parameter {i} must have shape {shape}, got {got}"
                raise StateDictError(self._name, problem, got=got, wanted=shape)
        return p, int(entry["step"]), arrays

    def __repr__(self) -> str:
        return f"{self._name}({'; '.join(group.spelled() for group in self.param_groups)})"


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
