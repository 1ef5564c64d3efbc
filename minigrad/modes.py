"""Modes: gradients on or off, and the listener. Both hold for one thread or task (contextvars)."""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Generator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np

from minigrad.primitive import Primitive

F = TypeVar("F", bound=Callable[..., Any])
_GENERATOR = 0x20  # the flag of code that yields

_PLAIN = {bool, int, float, str, type(None)}


class Structure:
    """One number for the state of the library's own objects: which attributes modules have, which
    parameters are trained, which groups an optimizer has. A compiled step compares it with the
    number at its recording.

    state: moves with every structural change, and moves back when a plain value is restored: after
        `eval()` and `train()` it is what it was.   last: what was changed last, for messages.
    """

    __slots__ = ("last", "state")

    def __init__(self) -> None:
        self.state, self.last = 0, ""

    def changed(self, owner: Any, name: str, old: Any, new: Any) -> None:
        """Note that attribute `name` of `owner` held `old` and holds `new`."""
        if old is new:
            return
        self.last = f"{name} of {type(owner).__name__}"
        if type(old) in _PLAIN and type(new) in _PLAIN:
            # A sum of hashes: a value's share is taken out when the value goes. Of texts, since
            # tuples that differ in one small number have hashes at a few equal distances, and
            # two changes cancel
            self.state += hash(f"{id(owner)}.{name}={new!r}") - hash(f"{id(owner)}.{name}={old!r}")
        else:
            self.state += 1  # an object may come back at the address of another: never undone


STRUCTURE = Structure()
MISSING = object()  # the old value of an attribute that was not there


def error_state(**how: Any) -> tuple[Any, Any]:
    """The context variable in which numpy keeps its error state, and its value under
    np.errstate(**how).

    Setting the variable takes a tenth of a microsecond, entering np.errstate eight tenths, and the
    door does it for every op.
    """
    before = contextvars.copy_context()
    with np.errstate(**how):
        for variable, state in contextvars.copy_context().items():
            if variable.name.startswith("numpy.") and before.get(variable) is not state:
                return variable, state
    return _ErrorState(), how


class _ErrorState:
    """Stands in for numpy's context variable in a numpy that keeps its error state elsewhere."""

    def get(self) -> Any:
        """No state that is known."""

    def set(self, state: Any) -> Any:
        """Set numpy's error state; returns what `reset` takes."""
        return np.seterr(**state)

    def reset(self, before: Any) -> None:
        """Restore numpy's error state."""
        np.seterr(**before)


# ERROR_STATE.set(SILENT) silences floating-point warnings.
ERROR_STATE, SILENT = error_state(all="ignore")


# --- listeners

Values: TypeAlias = Sequence[Any]
Params: TypeAlias = dict[str, Any]


class Listener:
    """What the door calls for every op: the base of a profiler, a debugger, a recorder."""

    def run(self, op: Primitive, arrays: Values, params: Params) -> Any:
        """Run the op's forward and return what it returns."""
        return op.forward(*arrays, **params)

    def done(self, op: Primitive, operands: Values, params: Params, outputs: Values) -> None:
        """Called after the op, with its operands and outputs as Tensors."""

    def reading(self, tensor: Any, how: str) -> None:
        """Called before a value leaves the tensors, as by float(t) or t.numpy(). May raise."""

    def walking(self, node: Any) -> None:
        """Called for each node that a backward pass comes to, and with None at its end."""

    def drawing(self, state: Any) -> None:
        """Called before the generator with this state array draws outside an op."""


def _passed_on(name: str) -> Any:
    """The method that calls the method of this name of the listener before."""
    return lambda self, *args: getattr(self.before, name)(*args)


class Relay(Listener):
    """A listener that passes every call on to the listener before it. Subclasses override what they
    need.
    """

    def __init__(self) -> None:
        self.before = MODE.get().listener or Listener()

    run, done, reading = _passed_on("run"), _passed_on("done"), _passed_on("reading")
    walking, drawing = _passed_on("walking"), _passed_on("drawing")


# --- modes


class Mode(NamedTuple):
    """What the door reads, once per op."""

    grad: bool = True
    listener: Listener | None = None


MODE: ContextVar[Mode] = ContextVar("minigrad_mode", default=Mode())  # noqa: B039 (a NamedTuple does not change)


def _block(before: Mode, inside: Mode, field: str) -> Generator[None, Any, None]:
    """The mode `inside` until it is sent the kind of exception that the block ends with. Then the
    field is restored; after an error, all of the mode.

    A signal may keep `__exit__` from running. Then this generator is dropped, and restores the mode
    unless a block around it has done so. It refers to nothing that refers to it, so that this
    happens at once.
    """
    after = before
    try:
        MODE.set(inside)
        kind = yield
        now = MODE.get()
        if kind is None and now is not inside:
            after = now._replace(**{field: getattr(before, field)})
        elif kind is GeneratorExit and now is not inside:  # closed long after, in another mode
            after = now
    except GeneratorExit:
        after = before if MODE.get() is inside else MODE.get()
        return
    finally:
        MODE.set(after)
    yield


class _Mode:
    """A mode that holds inside a `with` block, which may be entered within itself."""

    field = ""

    def __init__(self, value: Any) -> None:
        self._value = value
        self._blocks: list[Generator[None, Any, None]] = []

    def __enter__(self) -> None:
        self._enter(MODE.get())

    def _enter(self, before: Mode) -> None:
        block = _block(before, before._replace(**{self.field: self._value}), self.field)
        next(block)
        self._blocks.append(block)

    def __exit__(self, kind: Any = None, *_: object) -> None:
        self._blocks.pop().send(kind)


class listening(_Mode):
    """Make `listener` the listener inside. There is one at a time; a `Relay` calls the last."""

    field = "listener"


class GradMode(_Mode, contextlib.ContextDecorator):
    """Gradients on or off in a `with` block or a decorated function, for this thread or task."""

    field = "grad"

    def _recreate_cm(self) -> GradMode:
        return GradMode(self._value)

    def __call__(self, function: F) -> F:
        """The function under this mode; a generator at each of its steps, not while it waits."""
        code = getattr(function, "__code__", None)
        if code is None or not code.co_flags & _GENERATOR:
            return super().__call__(function)

        @functools.wraps(function)
        def stepped(*args: Any, **kwargs: Any) -> Any:
            return (yield from _Stepped(self._value, function(*args, **kwargs)))

        return cast("F", stepped)


class _Stepped(Generator[Any, Any, Any]):
    """A generator that takes each of its steps in a mode."""

    def __init__(self, value: bool, generator: Generator[Any, Any, Any]) -> None:
        self._value, self._generator = value, generator

    def send(self, item: Any) -> Any:
        with GradMode(self._value):
            return self._generator.send(item)

    def throw(self, *error: Any) -> Any:
        with GradMode(self._value):
            return self._generator.throw(*error)


class set_grad_enabled(GradMode):
    """Gradients on or off, from the call on; as a context manager until its end, as a decorator
    inside the function alone. For this thread or task.
    """

    def __init__(self, mode: bool) -> None:
        super().__init__(bool(mode))
        self._start = MODE.get().grad
        MODE.set(MODE.get()._replace(grad=self._value))

    def __enter__(self) -> None:
        self._enter(MODE.get()._replace(grad=self._start))

    def __call__(self, function: F) -> F:
        """The function under this mode, which holds there alone."""
        MODE.set(MODE.get()._replace(grad=self._start))
        return super().__call__(function)


def no_grad(function: Any = None) -> Any:
    """Record no graph inside. A context manager and a decorator, of generators too; with or without
    parentheses.
    """
    return GradMode(False) if function is None else GradMode(False)(function)


def enable_grad(function: Any = None) -> Any:
    """Record the graph inside, also within no_grad(). A context manager and a decorator, of
    generators too; with or without parentheses.
    """
    return GradMode(True) if function is None else GradMode(True)(function)


def is_grad_enabled() -> bool:
    """True unless under no_grad()."""
    return MODE.get().grad
