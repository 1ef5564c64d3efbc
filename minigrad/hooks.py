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


def register_hook(x: Any, hook: Callable[[Any], Any]) -> HookHandle:
    """See Tensor.register_hook."""
    if not x._wants:
        raise no_graph("register_hook", x)
    shape, dtype = x.shape, x.dtype

    def changed(g: Any) -> Any:
        new = hook(g if g.dtype == dtype else ops.cast(g, dtype=dtype))
        if new is None:
            return g
        if getattr(new, "shape", None) != shape or not hasattr(new, "_node"):
            problem = f"the hook must return None or a tensor of shape {shape}, got {new!r}"
            raise GradientError("register_hook", problem, new, shape)
        return new if new.dtype == g.dtype else ops.cast(new, dtype=g.dtype)

    return HookHandle(x if x.is_leaf else x._node, (x._index, changed))


def retain_grad(x: Any) -> None:
    """See Tensor.retain_grad."""
    if not x._wants:
        raise no_graph("retain_grad", x)
    if not x.is_leaf and not retains_grad(x):
        if (listener := MODE.get().listener) is not None:
            listener.reading(x, "retain_grad()")
        x._node.retaining = (*x._node.retaining, weakref.ref(x))


def retains_grad(x: Any) -> bool:
    """True for a computed tensor whose .grad backward() fills in."""
    return not x.is_leaf and any(ref() is x for ref in x._node.retaining)
