"""Hooks: what is done with the gradient of one tensor when a backward pass has computed it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from minigrad import ops
from minigrad.errors import GradientError
from minigrad.modes import MODE, STRUCTURE
from minigrad.tape import Node, hooks_of, no_graph


class HookHandle:
    """One hook on a tensor."""

    def __init__(self, place: Any, entry: tuple[int, Callable[[Any], Any]]) -> None:
        self._place, self._entry = place, entry  # a leaf, or the node of a computed tensor
        self._set((*hooks_of(place), entry))

    def remove(self) -> None:
        """Take the hook away. To do so twice does nothing."""
        self._set(tuple(entry for entry in self._place._hooks if entry is not self._entry))

    def _set(self, hooks: Any) -> None:
        self._place._hooks = hooks
        if not isinstance(self._place, Node):
            STRUCTURE.changed(self._place, "the hooks", None, hooks)


def register_hook(self: Any, hook: Callable[[Any], Any]) -> HookHandle:
    """Call `hook(g)` with the gradient with respect to this tensor when a backward pass has
    computed it; a tensor that it returns takes its place. `g` must not be changed in place.

    Returns a handle: `handle.remove()` takes the hook away. Hooks run in the order of their
    registration, in backward(), in grad() and, under create_graph, on tensors with a graph. In
    a jitted function the ops of a hook are part of the program; anything else that it does,
    such as print, happens in recorded calls alone. Raises NoGradientError for a tensor that
    requires no gradient.
    """
    if not self._wants:
        raise no_graph("register_hook", self)
    shape, dtype = self.shape, self.dtype

    def changed(g: Any) -> Any:
        new = hook(g if g.dtype == dtype else ops.cast(g, dtype=dtype))
        if new is None:
            return g
        if getattr(new, "shape", None) != shape or not hasattr(new, "_node"):
            problem = f"the hook must return None or a tensor of shape {shape}, got {new!r}"
            raise GradientError("register_hook", problem, new, shape)
        return new if new.dtype == g.dtype else ops.cast(new, dtype=g.dtype)

    return HookHandle(self if self.is_leaf else self._node, (self._index, changed))


def retain_grad(self: Any) -> None:
    """Let backward() add to the .grad of this computed tensor too, after its hooks; a leaf has
    it anyway. Raises NoGradientError for a tensor that requires no gradient, CaptureError in a
    jitted function: use minigrad.grad(loss, t) there.
    """
    if not self._wants:
        raise no_graph("retain_grad", self)
    if not self.is_leaf and not retains_grad(self):
        if (listener := MODE.get().listener) is not None:
            listener.reading(self, "retain_grad()")
        self._node.retaining = (*self._node.retaining, weakref.ref(self))


def retains_grad(self: Any) -> bool:
    """True for a computed tensor after retain_grad()."""
    return not self.is_leaf and any(ref() is self for ref in self._node.retaining)
