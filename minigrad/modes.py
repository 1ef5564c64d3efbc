"""Modes: gradients on or off, and who listens. Both hold for one thread or task (contextvars)."""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Generator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import numpy as np

from minigrad.primitive import Primitive

F = TypeVar("F", bound=Callable[..., Any])
_GENERATOR = 0x20  # the flag of code that yields

ASSIGNMENTS = [
    0
    # How many attributes of modules have been assigned to so far: who has looked at modules sees
    # whether to look again
]


class _ErrorState:
    """Stands in for numpy's context variable in a numpy that keeps its error state elsewhere."""

    def set(self, state: Any) -> Any:
        """Set numpy's error state; returns what `reset` takes."""
        return np.seterr(**state)

    def reset(self, before: Any) -> None:
        """Restore numpy's error state."""
        np.seterr(**before)


def _error_state() -> tuple[Any, Any]:
    """The context variable in which numpy keeps its error state, and its value under
    np.errstate(all="ignore").

    Setting the variable takes a tenth of a microsecond, entering np.errstate eight tenths, and the
    door does it for every op.
    """
    before = contextvars.copy_context()
    with np.errstate(all="ignore"):
        for variable, state in contextvars.copy_context().items():
            if variable.name.startswith("numpy.") and before.get(variable) is not state:
                return variable, state
    return _ErrorState(), {"all": "ignore"}


ERROR_STATE, SILENT = _error_state()  # ERROR_STATE.set(SILENT) silences floating-point warnings


class Listener(Protocol):
    """Somebody who hears of every op at the Tensor's door: a profiler, a debugger, a recorder.

    Where it has them, `reading(tensor, how)` is told before a value leaves the tensors (float(t),
    t.numpy()), `walking(node)` of each node that a backward pass comes to, and None at its end,
    `drawing(state)` before a generator draws outside an op (Tensor.rand), and `setting(name)`
    before a setting of an optimizer is changed.
    """

    def run(self, op: Primitive, arrays: Sequence[Any], params: dict[str, Any]) -> Any:
        """Run the op's forward and return what it returns."""

    def done(
        self,
        op: Primitive,
        operands: Sequence[Any],
        params: dict[str, Any],
        outputs: tuple[Any, ...],
    ) -> None:
        """The op has been done: its operands and outputs as Tensors."""


class Relay:
    """A listener that hears and passes on, to the one that listened before it. Subclasses add what
    they want to hear.
    """

    def __init__(self) -> None:
        self.before: Any = MODE.get().listener

    def run(self, op: Primitive, arrays: Sequence[Any], params: dict[str, Any]) -> Any:
        """Run the op, or let the one before do it."""
        return (
            op.forward(*arrays, **params)
            if self.before is None
            else self.before.run(op, arrays, params)
        )

    def done(
        self,
        op: Primitive,
        operands: Sequence[Any],
        params: dict[str, Any],
        outputs: tuple[Any, ...],
    ) -> None:
        """Pass it on."""
        if self.before is not None:
            self.before.done(op, operands, params, outputs)

    def reading(self, tensor: Any, how: str) -> None:
        """A value is about to leave the tensors; one before may object."""
        hears = getattr(self.before, "reading", None)
        if hears is not None:
            hears(tensor, how)

    def walking(self, node: Any) -> None:
        """A backward pass has come to this node; None at its end."""
        hears = getattr(self.before, "walking", None)
        if hears is not None:
            hears(node)

    def drawing(self, state: Any) -> None:
        """The generator with this state array is about to draw."""
        hears = getattr(self.before, "drawing", None)
        if hears is not None:
            hears(state)

    def setting(self, name: str) -> None:
        """A setting of an optimizer, such as "lr", is about to be changed; one before may object."""
        hears = getattr(self.before, "setting", None)
        if hears is not None:
            hears(name)


class Mode(NamedTuple):
    """What the door looks at, once per op."""

    grad: bool = True
    listener: Listener | None = None


MODE: ContextVar[Mode] = ContextVar("minigrad_mode", default=Mode())  # noqa: B039 (a NamedTuple does not change)


class _Held:
    """A mode that holds inside a `with` block. However the block is left, by a signal's exception
    between two instructions too, what held before
    holds again: Python raises those after a call and where a function begins, so that nothing but
        `MODE.set` is called where it counts.

    One that comes where `__exit__` begins keeps it from running. Then a block around this one puts
    all of the mode back, or else the guard does when it is dropped. It is a generator, as a
    `__del__` would swallow signals after every block.
    """

    def __init__(self) -> None:
        # What held before, what holds inside, and a guard; several where it is entered within
        # itself.
        self._held: list[tuple[Mode, Mode, Generator[None, None, None]]] = []

    def _inside(self, before: Mode) -> Mode:
        """The mode inside."""
        raise NotImplementedError

    def _after(self, now: Mode, before: Mode) -> Mode:
        """The mode at the end, where the rest of it may have been changed inside for good."""
        raise NotImplementedError

    def __enter__(self) -> None:
        self._enter(MODE.get())

    def _enter(self, before: Mode) -> None:
        depth = len(self._held)
        try:
            inside = self._inside(before)
            guard = _guard(before, inside)
            next(guard)
            self._held.append((before, inside, guard))
            MODE.set(inside)
        except BaseException:
            MODE.set(before)
            del self._held[depth:]
            raise

    def __exit__(self, kind: Any = None, *_: object) -> None:
        before, inside, guard = self._held[-1]
        mode = before
        try:
            # What fails leaves nothing changed. A generator may be closed long after it was
            # entered, in another mode.
            if (kind is None or kind is GeneratorExit) and (now := MODE.get()) is not inside:
                mode = self._after(now, before)
        finally:
            MODE.set(mode)
            guard.close()
            self._held.pop()


def _guard(before: Mode, inside: Mode) -> Generator[None, None, None]:
    """Puts back what held before if it is dropped while the mode still is the one of its block."""
    try:
        yield
    finally:
        if MODE.get() is inside:
            MODE.set(before)


class GradMode(_Held, contextlib.ContextDecorator):
    """Gradients on or off inside a `with` block or a decorated function; holds for this thread or
    task only.
    """

    def __init__(self, mode: bool) -> None:
        super().__init__()
        self.mode = bool(mode)

    def _inside(self, before: Mode) -> Mode:
        return before._replace(grad=self.mode)

    def _after(self, now: Mode, before: Mode) -> Mode:
        return now._replace(grad=before.grad)

    def _recreate_cm(self) -> GradMode:
        return GradMode(self.mode)

    def __call__(self, function: F) -> F:
        """The function under this mode; a generator at each of its steps, and not while it waits."""
        code = getattr(function, "__code__", None)
        if code is None or not code.co_flags & _GENERATOR:
            return super().__call__(function)

        @functools.wraps(function)
        def stepped(*args: Any, **kwargs: Any) -> Any:
            generator = function(*args, **kwargs)
            resume = functools.partial(next, generator)
            while True:
                try:
                    with GradMode(self.mode):
                        item = resume()
                except StopIteration as end:
                    return end.value
                try:
                    resume = functools.partial(generator.send, (yield item))
                except GeneratorExit:
                    with GradMode(self.mode):
                        generator.close()
                    raise
                except BaseException as error:
                    resume = functools.partial(generator.throw, error)

        return cast("F", stepped)


class set_grad_enabled(GradMode):
    """Gradients on or off, from the call on; as a context manager until its end, as a decorator
    inside the function alone.

    Holds for this thread or task only.
    """

    def __init__(self, mode: bool) -> None:
        super().__init__(mode)
        now = MODE.get()
        self.start: bool | None = now.grad  # None once it has been entered
        MODE.set(self._inside(now))

    def __enter__(self) -> None:
        now = MODE.get()
        start, self.start = self.start, None
        self._enter(now if start is None else now._replace(grad=start))

    def __call__(self, function: F) -> F:
        """The function under this mode, which holds there alone."""
        MODE.set(MODE.get()._replace(grad=bool(self.start)))
        return super().__call__(function)


def no_grad(function: Any = None) -> Any:
    """No gradients inside: nothing is taped. A context manager and a decorator, of generators too;
    with or without parentheses.
    """
    return GradMode(False) if function is None else GradMode(False)(function)


def enable_grad(function: Any = None) -> Any:
    """Gradients inside, also within no_grad(). A context manager and a decorator, of generators
    too; with or without parentheses.
    """
    return GradMode(True) if function is None else GradMode(True)(function)


def is_grad_enabled() -> bool:
    """True unless under no_grad()."""
    return MODE.get().grad


class listening(_Held):
    """Let `listener` hear of every op inside. One at a time: the newest hears, and may pass on what
    it hears.
    """

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self.listener = listener

    def _inside(self, before: Mode) -> Mode:
        return before._replace(listener=self.listener)

    def _after(self, now: Mode, before: Mode) -> Mode:
        return now._replace(listener=before.listener) if now.listener is self.listener else now
