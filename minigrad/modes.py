"""Modes: gradients on or off, and who listens. Both hold for one thread or task (contextvars)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

from minigrad.primitive import Primitive

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


class set_grad_enabled(contextlib.ContextDecorator):
    """Gradients on or off inside a `with` block or a decorated function; holds for this thread or task only."""

    def __init__(self, mode: bool) -> None:
        self.mode = mode
        self.before: list[Mode] = []

    def __enter__(self) -> None:
        self.before.append(MODE.get())
        MODE.set(self.before[-1]._replace(grad=self.mode))

    def __exit__(self, *exception: object) -> None:
        MODE.set(MODE.get()._replace(grad=self.before.pop().grad))

    def _recreate_cm(self) -> set_grad_enabled:
        return set_grad_enabled(self.mode)


def no_grad() -> set_grad_enabled:
    """No gradients inside: nothing is taped. A context manager and a decorator."""
    return set_grad_enabled(False)


def enable_grad() -> set_grad_enabled:
    """Gradients inside, also within no_grad(). A context manager and a decorator."""
    return set_grad_enabled(True)


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
