"""Modes: gradients on or off, and who listens. Both hold for one thread or task (contextvars)."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from minigrad.primitive import Primitive

F = TypeVar("F", bound=Callable[..., Any])
_GENERATOR = 0x20  # the flag of code that yields

ASSIGNMENTS = [0]  # how many attributes of modules have been assigned to so far: who has looked at modules sees whether to look again


class Listener(Protocol):
    """Somebody who hears of every op at the Tensor's door: a profiler, a debugger, a recorder.

    Where it has them, `reading(tensor, how)` is told before a value leaves the tensors (float(t), t.numpy()), `walking(node)` of each node
    that a backward pass comes to, and None at its end, and `drawing(state)` before a generator draws outside an op (Tensor.rand).
    """

    def run(self, op: Primitive, arrays: Sequence[Any], params: dict[str, Any]) -> Any:
        """Run the op's forward and return what it returns."""

    def done(self, op: Primitive, operands: Sequence[Any], params: dict[str, Any], outputs: tuple[Any, ...]) -> None:
        """The op has been done: its operands and outputs as Tensors."""


class Relay:
    """A listener that hears and passes on, to the one that listened before it. Subclasses add what they want to hear."""

    def __init__(self) -> None:
        self.before: Any = MODE.get().listener

    def run(self, op: Primitive, arrays: Sequence[Any], params: dict[str, Any]) -> Any:
        """Run the op, or let the one before do it."""
        return op.forward(*arrays, **params) if self.before is None else self.before.run(op, arrays, params)

    def done(self, op: Primitive, operands: Sequence[Any], params: dict[str, Any], outputs: tuple[Any, ...]) -> None:
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


class Mode(NamedTuple):
    """What the door looks at, once per op."""

    grad: bool = True
    listener: Listener | None = None


MODE: ContextVar[Mode] = ContextVar("minigrad_mode", default=Mode())  # noqa: B039 (a NamedTuple does not change)


class GradMode(contextlib.ContextDecorator):
    """Gradients on or off inside a `with` block or a decorated function; holds for this thread or task only."""

    def __init__(self, mode: bool) -> None:
        self.mode = bool(mode)
        self.before: list[bool] = []

    def __enter__(self) -> None:
        before = MODE.get()
        self.before.append(before.grad)
        MODE.set(before._replace(grad=self.mode))

    def __exit__(self, *exception: object) -> None:
        MODE.set(MODE.get()._replace(grad=self.before.pop()))

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
    """Gradients on or off, from the call on; as a context manager until its end, as a decorator inside the function alone.

    Holds for this thread or task only.
    """

    def __init__(self, mode: bool) -> None:
        super().__init__(mode)
        super().__enter__()
        self.entered = False

    def __enter__(self) -> None:
        if self.entered:  # the first time, the call has done it
            super().__enter__()
        self.entered = True

    def __call__(self, function: F) -> F:
        """The function under this mode, which holds there alone."""
        self.__exit__()
        return super().__call__(function)


def no_grad(function: Any = None) -> Any:
    """No gradients inside: nothing is taped. A context manager and a decorator, of generators too; with or without parentheses."""
    return GradMode(False) if function is None else GradMode(False)(function)


def enable_grad(function: Any = None) -> Any:
    """Gradients inside, also within no_grad(). A context manager and a decorator, of generators too; with or without parentheses."""
    return GradMode(True) if function is None else GradMode(True)(function)


def is_grad_enabled() -> bool:
    """True unless under no_grad()."""
    return MODE.get().grad


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let `listener` hear of every op inside. One at a time: the newest hears, and may pass on what it hears."""
    before = MODE.get()
    MODE.set(before._replace(listener=listener))
    try:
        yield
    finally:
        MODE.set(MODE.get()._replace(listener=before.listener))
