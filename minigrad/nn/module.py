"""Module, the base of layers and models, and Parameter.

A Module's parameters, buffers and children are its attributes: assigning one registers it, reading
one costs what reading an attribute costs. There is no other state. What a Module computes is
its `forward`.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from minigrad import dtypes
from minigrad.arguments import Names
from minigrad.autograd import clear_gradients
from minigrad.counterparts import missing
from minigrad.errors import ConfigError, DTypeError, ReadOnlyError, StateDictError
from minigrad.modes import MISSING, STRUCTURE, no_grad
from minigrad.tensor import Tensor
from minigrad.tensor.base import Self

M = TypeVar("M", bound="Module")
T = TypeVar("T")


class Parameter(Tensor):
    """A Tensor that a Module trains: assigned to an attribute of a Module it becomes one of its
    parameters. Copies `data`, as Tensor does.
    """

    __slots__ = ()
    _wrap = staticmethod(Tensor._wrap)  # type: ignore[assignment]  # what is computed from a parameter, or detached, is a plain Tensor

    def __init__(self, data: Any, dtype: Any = None, requires_grad: bool = True) -> None:
        super().__init__(data, dtype=dtype)
        self._wants = requires_grad  # a new one changes nothing
        if requires_grad:
            self.requires_grad_()

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Train this parameter, or freeze it with requires_grad=False."""
        STRUCTURE.changed(self, "requires_grad", self._wants, requires_grad)
        return super().requires_grad_(requires_grad)


class Loaded(NamedTuple):
    """What `load_state_dict` found: names the model has and the weights lack, and the reverse."""

    missing: list[str]
    unexpected: list[str]


class Module:
    """The base of layers and models. A subclass makes its parts in `__init__` and computes in
    `forward`.

    class MLP(Module):
        def __init__(self, width):
            self.up, self.down = Linear(width, 4 * width), Linear(4 * width, width)

        def forward(self, x):
            return self.down(F.gelu(self.up(x)))
    """

    training: bool = True
    _buffers: Mapping[str, bool] = {}  # name -> whether it belongs to the state_dict

    forward: Callable[..., Any]

    def __new__(cls, *_: Any, **options: Any) -> Self:
        names = Names(cls.__init__)
        for name in options:
            if names.takes_any_keyword or name in names.known:
                continue
            if name not in ("device", "dtype"):
                raise names.unknown(name, cls.__name__)
            problem, hint = f"no argument is called {name}", 'module.to("float16")'
            problem += "; a layer is made of float32 on the CPU"
            raise DTypeError(cls.__name__, problem, got=options[name], hint=hint)
        return super().__new__(cls)

    if not TYPE_CHECKING:  # type checkers look at the names that there are

        def __getattr__(self, name):
            raise missing("Module", name, f"{type(self).__name__!r} object")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        if (
            isinstance(value, Tensor)
            and not isinstance(value, Parameter)
            and isinstance(vars(self).get(name), Parameter)
        ):
            problem = "a Tensor in place of a Parameter would not be trained"
            hint = f"Parameter(...), or {name}.assign(...) to change its values"
            call = f"{type(self).__name__}.{name}"
            raise ConfigError(call, problem, got=value, wanted="Parameter", hint=hint)
        old = vars(self).get(name, MISSING)
        if old is MISSING:
            old = getattr(type(self), name, MISSING)  # a default, such as `training`
        object.__setattr__(self, name, value)
        STRUCTURE.changed(self, name, old, value)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        STRUCTURE.changed(self, name, None, MISSING)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Make `tensor` the attribute `name` that is not trained, but moves with `to`, and is part
        of the state_dict if `persistent`.
        """
        setattr(self, name, tensor)
        self._buffers = {**self._buffers, name: persistent}

    # --- parts: pairs of name and part, this module's own first

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules that are attributes of this one. Raises ConfigError for a plain list of
        modules, which would not be trained.
        """
        for name, value in self._attributes():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, _PLAIN) and _hides_parts(value):
                problem = f"a {type(value).__name__} hides the modules in it"
                call, hint = f"{type(self).__name__}.{name}", f"self.{name} = ModuleList([...])"
                wanted = "ModuleList or ModuleDict"
                raise ConfigError(call, problem, got=value, wanted=wanted, hint=hint)

    def _attributes(self) -> Iterable[tuple[str, Any]]:
        """Name and value of whatever may be a part; a container's items."""
        return vars(self).items()

    def children(self) -> Iterator[Module]:
        """The modules that are attributes of this one, each once."""
        return (child for _, child in _once(self.named_children()))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module, under the name `prefix`, and all below it, each once, parents first."""
        return self._walk(prefix, once=True)

    def _walk(self, prefix: str, once: bool) -> Iterator[tuple[str, Module]]:
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if not (once and id(module) in seen):
                seen.add(id(module))
                yield name, module
                stack += [*_below(name, module.named_children())][::-1]

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_parameters(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Name and parameter, as "blocks.0.attn.in_proj_weight". A parameter with several names
        comes once, under the first.
        """
        modules = self.named_modules(prefix) if recurse else [(prefix, self)]
        return _once(p for name, m in modules for p in _below(name, _own(m, Parameter)))

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, each once: what an optimizer takes."""
        return (p for _, p in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor of the buffers."""
        modules = self.named_modules(prefix) if recurse else [(prefix, self)]
        return _once(b for name, m in modules for b in _below(name, _buffers(m, persistent=False)))

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers: tensors that belong to the model and are not trained."""
        return (b for _, b in self.named_buffers(recurse=recurse))

    # --- changing all parts

    def apply(self: M, function: Callable[[Module], Any]) -> M:
        """Call `function` on every module below, then on this one; for initialisation."""
        for module in reversed(list(self.modules())):
            function(module)
        return self

    def train(self: M, mode: bool = True) -> M:
        """Switch training behaviour, such as dropout, on for this module and all below it, or off
        with mode=False.
        """
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: M) -> M:
        """Switch training behaviour off: train(False)."""
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Let all parameters gather gradients, or none: requires_grad_(False) freezes."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters; or, with set_to_none=False, write zeros over
        them.
        """
        clear_gradients(self.parameters(), set_to_none)

    def to(self: M, *wanted: Any, **options: Any) -> M:
        """to(dtype), to("cpu", dtype): floating parameters and buffers in another dtype. They stay
        the same objects: an optimizer keeps them.

        to("cpu") changes nothing: it is the only device there is. Raises DTypeError for a dtype
            without gradients, ConfigError for another device.
        """
        dtype = dtypes.asked_of_to(wanted, options, "Module.to")
        if dtype is None:
            return self
        if not dtypes.is_float(dtype):
            problem = f"parameters of {dtypes.name(dtype)} cannot have gradients"
            raise DTypeError("Module.to", problem, got=dtype, wanted=dtypes.float32)
        for t in [*self.parameters(), *self.buffers()]:
            if dtypes.is_float(t.dtype) and t.dtype != dtype:
                STRUCTURE.changed(t, "dtype", t.dtype, dtype)
                t.data, t.grad = dtypes.cast(t.data, dtype), None
                t._version[0] += 1  # what was computed from the old values has no backward any more
        return self

    # --- saving

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of all parameters and persistent buffers by name; later training does not
        change it. Tied parameters have all their names and one copy, so that a file stores them
        once.
        """
        named = list(self._state())
        copies = {id(t): Tensor(t.data) for t in {id(t): t for _, t in named}.values()}
        return {name: copies[id(t)] for name, t in named}

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        """Every name in the state_dict, with the tensor itself. A module that has two names is
        walked twice.
        """
        for name, module in self._walk("", once=False):
            yield from _below(name, _own(module, Parameter))
            yield from _below(name, _buffers(module, persistent=True))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Loaded:
        """Load the values in `state_dict`, Tensors or arrays by name, cast to each parameter's
        dtype. All or nothing.

        Returns the missing and the unexpected names. Raises StateDictError, with the model
        unchanged, if a shape does not fit, or, if `strict`, for a missing or unexpected name; it
        lists up to 20 of each. Raises ReadOnlyError if a parameter is in read-only memory.
        """
        if not hasattr(state_dict, "keys"):
            call, hint = (
                f"{type(self).__name__}.load_state_dict",
                "minigrad.load(path) reads a file",
            )
            raise StateDictError(call, f"not a dict of names and values: {state_dict!r}", hint=hint)
        own = dict(self._state())
        given = {name: state_dict[name] for name in own if name in state_dict}
        arrays = {
            name: value.data if isinstance(value, Tensor) else np.asarray(value)
            for name, value in given.items()
        }
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        mismatched = [
            name
            for name, a in arrays.items()
            if a.shape != own[name].shape or not _castable(a.dtype, own[name].dtype)
        ]
        if mismatched or (strict and (missing or unexpected)):
            raise _misfit(type(self).__name__, own, arrays, missing, unexpected, mismatched)
        for name in arrays:
            if not own[name].data.flags.writeable:
                problem, wanted = f"{name} is in read-only memory", "writable memory"
                raise ReadOnlyError("load_state_dict", problem, got=name, wanted=wanted)
        values = {name: Tensor._wrap(dtypes.cast(a, own[name].dtype)) for name, a in arrays.items()}
        with no_grad():
            for name, value in values.items():
                own[name].assign(value)
        return Loaded(missing, unexpected)

    # --- showing

    def extra_repr(self) -> str:
        """Return the constructor's arguments as `repr` shows them. A subclass may override it."""
        return ""

    def __repr__(self) -> str:
        """The layer as the call that makes it; without an `extra_repr`, its children by name."""
        name, arguments = type(self).__name__, self.extra_repr()
        if arguments:
            return f"{name}({arguments})"
        children = (f"{child_name}={child!r}" for child_name, child in self.named_children())
        return bracketed(f"{name}(", children, ")")


# Where a layer keeps what an argument asks for, unless in the attribute of the argument's name.
_KEPT = {"affine": "weight", "elementwise_affine": "weight", "track_running_stats": "running_mean"}


class Layer(Module):
    """A module whose attributes hold the arguments of its constructor, under their names."""

    _always: ClassVar[tuple[str, ...]] = ()  # the options that repr shows with the usual value, too

    def extra_repr(self) -> str:
        """The arguments without a default, and the options that have another value than theirs."""
        classes: Any = type(self).__mro__
        for cls in classes:  # the constructor of a class of the user's may take others
            names = Names(cls.__init__)
            if all(hasattr(self, n) for n in names.positional[1:] if n not in names.defaults):
                break
        shown, worked_out = [], self._worked_out()
        for name in (*names.positional[1:], *names.keyword):
            usual = names.defaults.get(name)
            value = worked_out.get(name, getattr(self, _KEPT.get(name, name), usual))
            if isinstance(usual, bool) and not isinstance(value, bool):
                value = value is not None  # a weight or a bias
            one = value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value
            if name not in names.defaults:
                shown.append(repr(one if value == (one,) else value))
            elif name in self._always or one != usual:
                shown.append(f"{name}={value!r}")
        return ", ".join(shown)

    def _worked_out(self) -> dict[str, Any]:
        """The arguments that no attribute holds as they were given."""
        return {}


_PLAIN, _PARTS = (list, tuple, dict), (Module, Parameter)


def _hides_parts(value: Any) -> bool:
    parts = value.values() if isinstance(value, dict) else value
    return any(isinstance(part, _PARTS) for part in parts)


def _own(module: Module, kind: type[T]) -> Iterator[tuple[str, T]]:
    for name, value in module._attributes():
        if isinstance(value, kind) and name not in module._buffers:
            yield name, value


def _buffers(module: Module, persistent: bool) -> Iterator[tuple[str, Tensor]]:
    for name, kept in module._buffers.items():
        if (kept or not persistent) and getattr(module, name) is not None:
            yield name, getattr(module, name)


def _below(name: str, parts: Iterable[tuple[str, T]]) -> Iterator[tuple[str, T]]:
    """The parts of the module of this name, under their whole names."""
    return ((f"{name}.{part_name}" if name else part_name, part) for part_name, part in parts)


def _once(parts: Iterable[tuple[str, T]]) -> Iterator[tuple[str, T]]:
    seen: set[int] = set()
    for name, part in parts:
        if id(part) not in seen:
            seen.add(id(part))
            yield name, part


def layers_of(namespace: dict[str, Any]) -> list[str]:
    """The modules that a file defines, by name: its `__all__`."""
    classes = {n: x for n, x in namespace.items() if isinstance(x, type) and issubclass(x, Module)}
    own = (n for n, x in classes.items() if x.__module__ == namespace["__name__"] and n[0] != "_")
    return sorted(own, key=lambda name: (not name.isupper(), name))


def bracketed(opening: str, items: Iterable[str], closing: str) -> str:
    """The items between brackets, one a line and indented."""
    lines = ["  " + item.replace("\n", "\n  ") + "," for item in items]
    return "\n".join([opening, *lines, closing]) if lines else opening + closing


# --- the error of load_state_dict

_LISTED = 20


def _castable(source: dtypes.DType, target: dtypes.DType) -> bool:
    """Floats of any width fit one another; whole numbers fit whole numbers that hold them."""
    if dtypes.is_float(source) or dtypes.is_float(target):
        return dtypes.is_float(source) and dtypes.is_float(target)
    return np.can_cast(source, target, casting="same_kind")


def _misfit(
    call: str,
    own: Mapping[str, Tensor],
    arrays: Mapping[str, dtypes.Array],
    missing: list[str],
    unexpected: list[str],
    mismatched: list[str],
) -> StateDictError:
    def shown(t: Any) -> str:
        return f"{dtypes.name(t.dtype)}{list(t.shape)}"

    lines = _listed("missing", missing, lambda name: _nearest(name, unexpected, "given is"))
    lines += _listed("unexpected", unexpected, lambda name: _nearest(name, own, "the model has"))
    lines += _listed(
        "mismatched", mismatched, lambda name: f": {shown(arrays[name])} for {shown(own[name])}"
    )
    counts = f"{len(missing)} names missing, {len(unexpected)} unexpected"
    counts += f", {len(mismatched)} mismatched"
    return StateDictError(
        f"{call}.load_state_dict",
        f"the weights do not fit: {counts}; the model is unchanged" + "".join(lines),
        got={"missing": missing, "unexpected": unexpected, "mismatched": mismatched},
        wanted=list(own),
        hint="" if mismatched else "strict=False loads what fits",
    )


@contextlib.contextmanager
def at_rest(model: Module) -> Iterator[None]:
    """Inside, no graph is recorded and dropout is off; afterwards every module is in its mode from
    before.
    """
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        with no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def _listed(title: str, names: list[str], remark: Callable[[str], str]) -> list[str]:
    shown = [f"{name}{remark(name)}" for name in names[:_LISTED]]
    if len(names) > _LISTED:
        shown.append(f"and {len(names) - _LISTED} more")
    return [f"\n  {title}: {text}" for text in shown]


def _nearest(name: str, others: Iterable[str], word: str) -> str:
    near = difflib.get_close_matches(name, list(others), n=1, cutoff=0.6)
    return f" ({word} {near[0]})" if near else ""
