"""Filling parameters with their first values, in place.

Each function writes to its tensor and returns it. Random numbers come from the library's generator
(`manual_seed`), or from a given one. For a matrix (out, in), fan_in is `in` and fan_out is `out`,
each times the number of elements beyond the first two axes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

from minigrad import random
from minigrad.arguments import fits, one_of
from minigrad.modes import no_grad
from minigrad.random import Generator
from minigrad.tensor import Tensor

T = TypeVar("T", bound=Tensor)
_SKIPPED: ContextVar[bool] = ContextVar("skipped", default=False)


@contextlib.contextmanager
def skipped() -> Iterator[None]:
    """Inside, parameters of new layers have a shape, but neither values nor memory: for a model
    whose weights are loaded next.
    """
    before = _SKIPPED.set(True)
    try:
        yield
    finally:
        _SKIPPED.reset(before)


def is_skipped() -> bool:
    """True inside `skipped()`."""
    return _SKIPPED.get()


def constant_(tensor: T, value: float) -> T:
    """Every element = value."""
    return _filled(tensor, lambda _: value)


def _filled(tensor: T, values: Callable[[Generator], Any], generator: Generator | None = None) -> T:
    if not _SKIPPED.get():
        with no_grad():
            tensor.assign(values(generator or random.default_generator))
    return tensor


def zeros_(tensor: T) -> T:
    """Every element = 0."""
    return constant_(tensor, 0.0)


def ones_(tensor: T) -> T:
    """Every element = 1."""
    return constant_(tensor, 1.0)


def uniform_(tensor: T, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> T:
    """Uniform in [a, b)."""
    return _filled(tensor, lambda drawn: drawn.uniform(tensor.shape, a, b), generator)


def normal_(
    tensor: T, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None
) -> T:
    """Normal with this mean and standard deviation."""
    return _filled(tensor, lambda drawn: drawn.normal(tensor.shape, mean, std), generator)


def xavier_uniform_(tensor: T, gain: float = 1.0, generator: Generator | None = None) -> T:
    """Uniform in +-gain sqrt(6 / (fan_in + fan_out)). From Glorot and Bengio 2010."""
    bound = gain * math.sqrt(6 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: T, gain: float = 1.0, generator: Generator | None = None) -> T:
    """Normal with standard deviation gain sqrt(2 / (fan_in + fan_out)). From Glorot and Bengio
    2010.
    """
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(fans(tensor))), generator)


def kaiming_uniform_(
    tensor: T,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> T:
    """Uniform in +-gain sqrt(3 / fan), with gain sqrt(2 / (1 + a^2)) for leaky_relu. From He et al.
    2015, arXiv:1502.01852.
    """
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: T,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> T:
    """Normal with standard deviation gain / sqrt(fan), with gain sqrt(2 / (1 + a^2)) for
    leaky_relu. From He et al. 2015, arXiv:1502.01852.
    """
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    leaky = math.sqrt(2 / (1 + a * a))
    gains = {"linear": 1.0, "relu": math.sqrt(2), "leaky_relu": leaky, "tanh": 5 / 3}
    one_of("kaiming", "nonlinearity", nonlinearity, tuple(gains))
    one_of("kaiming", "mode", mode, ("fan_in", "fan_out"))
    fan_in, fan_out = fans(tensor)
    return gains[nonlinearity] / math.sqrt(fan_in if mode == "fan_in" else fan_out)


def fans(tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out). Raises ShapeError for fewer than two axes."""
    problem = f"a tensor of shape {tensor.shape} has no fan_in and fan_out"
    hint = "normal_ or uniform_ with numbers of your own"
    fits(tensor.ndim >= 2, "fans", problem, tensor.shape, hint)
    inside = math.prod(tensor.shape[2:])
    return tensor.shape[1] * inside, tensor.shape[0] * inside
