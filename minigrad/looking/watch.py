"""Standing beside a model while it computes: a look at every call of its modules, which are left as
they were.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from minigrad.autograd import no_grad
from minigrad.nn import Module

Around = Callable[[Module, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


@contextlib.contextmanager
def watching(modules: Iterable[Module], around: Around) -> Iterator[None]:
    """Inside, a call of one of the modules gives what `around(module, forward, args, kwargs)`
    returns, where `forward` is the module's own.
    """
    watched = []
    try:
        for module in [m for m in modules if hasattr(m, "forward")]:  # a ModuleList has none
            # An attribute of the object stands before the method of its class, until it is deleted
            # again.
            module.forward = functools.partial(_call, around, module, module.forward)
            watched.append(module)
        yield
    finally:
        for module in watched:
            del module.forward


def _call(
    around: Around, module: Module, forward: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    return around(module, forward, args, kwargs)


@contextlib.contextmanager
def at_rest(model: Module) -> Iterator[None]:
    """Inside, nothing is taped and dropout is off; afterwards every module is in the mode that it
    was in.
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
