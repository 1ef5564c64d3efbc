"""The base of all optimizers: groups of parameters, checks, and state.

The arithmetic is an op next to each optimizer, for all parameters of a `Bundle` at once; a
`ParamGroup` holds settings that can be changed in place while a step is running or compiled.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, get_type_hints

import numpy as np

from minigrad import dtypes
from minigrad.arguments import Names, as_float, require
from minigrad.autograd import clear_gradients, no_grad
from minigrad.errors import ConfigError, DTypeError, ShapeError, StateDictError
from minigrad.modes import MISSING, STRUCTURE
from minigrad.optim.groups import Bundle, Moments, ParamGroup, copy_moments
from minigrad.primitive import Primitive
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


# The annotation of a setting of an optimizer or a schedule has its check, a function of call, name
# and value that returns the value to keep.
Flag = Annotated[bool, as_flag]
Rate = Annotated[float, partial(as_float, least=0, below=True)]
Fraction = Annotated[float, partial(as_float, least=0, most=1, below=True)]
Fractions = Annotated[tuple[float, float], partial(as_pair, least=0, most=1, below=True)]


@functools.cache
def checks_of(annotated: Any) -> dict[str, tuple[Any, ...]]:
    """Return the checks of a function's arguments or of a class's attributes, by name."""
    hints = get_type_hints(annotated, include_extras=True).items()
    return {name: hint.__metadata__ for name, hint in hints if hasattr(hint, "__metadata__")}


def given(arguments: dict[str, Any]) -> dict[str, Any]:
    """The settings among the arguments of an optimizer: `locals()`, as its `__init__` begins."""
    return {name: x for name, x in arguments.items() if name not in ("self", "params", "__class__")}


class Optimizer:
    """The base of all optimizers. A subclass names its update, with the settings and moments of it.

    params: tensors, or (name, tensor) pairs, or dicts {"params": ..., "lr": ...} of groups with
        their own settings.
    Raises ConfigError for an empty list, a parameter given twice or computed from others, or an
    invalid setting.
    """

    _op: tuple[Primitive, tuple[str, ...]]  # the update, and the settings that are its keywords
    _settings: tuple[str, ...] = ()  # the numbers that it reads, in order
    _moments: tuple[str, ...] = ()
    _fixed: tuple[str, ...] = ()  # settings that decide which moments there are

    def __new__(cls, *_: Any, **options: Any) -> Self:
        names = Names(cls.__init__)
        names.call = cls.__name__
        if not names.takes_any_keyword:
            names.respelled(options)  # raises for an unknown one
        return super().__new__(cls)

    def __init__(self, params: Params, **defaults: Any) -> None:
        self.defaults = defaults
        self.param_groups: list[ParamGroup] = []
        self._bundles: list[list[Bundle]] = []
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
            group["param_names"], params = map(list, zip(*params, strict=True))
        for key in group:
            if key not in (*self.defaults, "param_names", "initial_lr"):
                problem, known = f"a group has no setting {key!r}", list(self.defaults)
                raise ConfigError(self._name, problem, key, known, hint=f"known: {known}")
        self._check_params(params)
        settings = {"params": params, **self.defaults, **group}
        self._check_group(settings)
        added = ParamGroup(self, settings)
        self.param_groups.append(added)
        self._bundles.append(self._bundled(added, [(p, 0) for p in params]))
        STRUCTURE.changed(self, "param_groups", MISSING, added)

    def _check_params(self, params: list[Any]) -> None:
        seen = {id(p) for group in self.param_groups for p in group["params"]}
        for i, p in enumerate(params):
            if not isinstance(p, Tensor) or not dtypes.is_float(p.dtype):
                what = f"a tensor of {p.dtype}" if isinstance(p, Tensor) else repr(type(p).__name__)
                wanted = "a tensor of a floating dtype"
                problem = f"params[{i}] must be {wanted}, got {what}"
                raise DTypeError(self._name, problem, got=p, wanted=wanted)
            require(p.is_leaf or p.retains_grad, self._name, f"params[{i}]", p, "a leaf tensor")
            if id(p) in seen:
                problem = f"params[{i}], of shape {p.shape}, is given twice"
                hint = "model.parameters() gives tied weights once"
                raise ConfigError(self._name, problem, got=i, wanted="each once", hint=hint)
            seen.add(id(p))

    def _check_group(self, group: dict[str, Any]) -> None:
        """Raise ConfigError for settings that do not go together."""

    def _check(self, key: str, value: Any) -> Any:
        """The setting to keep, as plain Python numbers. Raises ConfigError for an invalid one."""
        if isinstance(value, np.generic | np.ndarray | Tensor) and math.prod(value.shape) == 1:
            value = value.item()
        for check in checks_of(type(self).__init__).get(key, ()):
            value = check(self._name, key, value)
        return value

    def _bundled(self, group: ParamGroup, params: list[tuple[Tensor, int]]) -> list[Bundle]:
        """The fewest bundles for parameters with their step counts."""
        kinds: dict[tuple[bool, int], list[Tensor]] = {}
        for p, step in params:
            kinds.setdefault((p.dtype == np.float64, step), []).append(p)
        shapes = functools.partial(self._moment_shapes, group)
        return [Bundle(same, shapes, step) for (_, step), same in kinds.items()]

    def _moment_shapes(self, group: ParamGroup, p: Tensor) -> Sequence[tuple[int, ...] | None]:
        """The shapes of a parameter's moments, None for one that it does not have: the parameter's
        own by default.
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

    def _update(self, bundle: Bundle, group: ParamGroup, gradients: list[Tensor]) -> None:
        """Change a bundle by its gradients, with one `_call`."""
        op, flags = self._op
        self._call(op, bundle, group, gradients, **{name: group[name] for name in flags})

    def _call(
        self,
        op: Primitive,
        bundle: Bundle,
        group: ParamGroup,
        gradients: list[Tensor],
        moments: int | None = None,
        **params: Any,
    ) -> None:
        """Call an update's op on all that it changes and reads; moments: only the first ones."""
        changed = [*bundle.moments[:moments], *bundle.params]
        count = 1 + len(changed)
        op(bundle.step, *changed, group.settings, *gradients, changes=count, **params)

    def written(self) -> list[Tensor]:
        """Return what `step()` would write to now: step counts, moments, and parameters that have a
        gradient. With copies of them, a step can be undone.
        """
        due = [bundle for _, bundle in self._due()]
        return [t for bundle in due for t in (bundle.step, *bundle.moments, *bundle.params)]

    @property
    def nbytes(self) -> int:
        """The memory of the moments."""
        bundles = [bundle for bundles in self._bundles for bundle in bundles]
        return sum(m.data.nbytes for bundle in bundles for m in bundle.moments)

    def exchange(self, params: Iterable[Tensor]) -> Optimizer:
        """Update other tensors from now on, one for each parameter in the order of the groups, and
        return self: for copies in another precision.

        Raises ConfigError after the first step, and if they do not fit.
        """
        new, old = list(params), [p for group in self.param_groups for p in group["params"]]
        stepped = any(bundle.step.data for bundles in self._bundles for bundle in bundles)
        if [p.shape for p in new] != [p.shape for p in old] or stepped:
            problem = "exchange() needs a tensor for each parameter, before the first step"
            wanted = [p.shape for p in old]
            raise ConfigError(self._name, problem, got=[p.shape for p in new], wanted=wanted)
        STRUCTURE.changed(self, "param_groups", MISSING, new)
        fresh = iter(new)
        for at, group in enumerate(self.param_groups):
            group.data["params"] = [next(fresh) for _ in group["params"]]
            self._bundles[at][:] = group.owner._bundled(group, [(p, 0) for p in group["params"]])
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
        for group, bundles in zip(self.param_groups, self._bundles, strict=True):
            for bundle in (b for b in bundles if b.step.data):
                for p, moments in bundle.views():
                    named = zip(group.owner._moments, moments, strict=True)
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
        for bundles, own, group in zip(self._bundles, self.param_groups, groups, strict=True):
            new = own.owner._fitting(group)
            entries = [
                (p, own.owner._entry(i, p, {**own, **new}, state.get(i)))
                for i, p in zip(group["params"], own["params"], strict=True)
            ]
            changes.append((bundles, own, new, entries))
        STRUCTURE.changed(self, "state", MISSING, state)
        for bundles, own, new, entries in changes:
            own.data.update({name: new[name] for name in own.owner._fixed if name in new})
            own.update(new)
            for bundle in bundles:
                bundle.retire()
            bundles[:] = own.owner._bundled(own, [(p, step) for p, (step, _) in entries])
            moments = {id(p): kept for p, (_, kept) in entries if kept is not None}
            for p, views in (view for bundle in bundles for view in bundle.views()):
                if id(p) in moments:
                    copy_moments(views, moments[id(p)])

    def _fitting(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a saved group."""
        for name in self._settings:
            if name not in group:
                problem = f"the state has no setting {name!r}: it is of another kind of optimizer"
                raise StateDictError(self._name, problem, got=sorted(group), wanted=self._settings)
        kept = (*self.defaults, "initial_lr")
        return {name: self._check(name, group[name]) for name in kept if name in group}

    def _entry(
        self, i: Any, p: Tensor, group: Any, entry: Mapping[str, Any] | None
    ) -> tuple[int, Moments | None]:
        """Step count and moments of a saved parameter."""
        if entry is None:
            return 0, None
        shapes = dict(zip(self._moments, self._moment_shapes(group, p), strict=True))
        moments: Moments = []
        for name, shape in [("step", ()), *shapes.items()]:
            if shape is not None and name not in entry:
                problem = f"the state of parameter {i} has no {name!r}"
                raise StateDictError(self._name, problem, sorted(entry), self._moments)
            m = None if shape is None else np.asarray(entry[name])
            if m is not None and m.shape != shape:
                problem = f"{name} of parameter {i} must have shape {shape}, got {m.shape}"
                raise StateDictError(self._name, problem, got=m.shape, wanted=shape)
            moments.append(m)
        return int(entry["step"]), moments[1:]

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
