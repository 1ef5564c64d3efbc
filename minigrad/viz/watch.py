"""Observing the calls of a model's modules, which are left as they were."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from minigrad.nn import Module

Around = Callable[[Module, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


@contextlib.contextmanager
def watching(modules: Iterable[Module], around: Around) -> Iterator[None]:
    """Inside, a call of one of the modules returns `around(module, forward, args, kwargs)`, where
    `forward` is the module's own.
    """

    def call(module: Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return around(module, forward, args, kwargs)

    watched = []
    try:
        for module in [m for m in modules if hasattr(m, "forward")]:  # a ModuleList has none
            # An attribute of the object hides the method of its class until it is deleted.
            module.forward = functools.partial(call, module, module.forward)
            watched.append(module)
        yield
    finally:
        for module in watched:
            del module.forward
