"""Functions of `functional` as modules: the base of such modules, and the activations.

A setting of the function is a field of a dataclass, with PyTorch's name, place and default.
`inplace=` is accepted and ignored: an activation never writes over its input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from minigrad import functional as F
from minigrad.arguments import as_float, as_int
from minigrad.nn.module import Module
from minigrad.tensor import Tensor

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:  # in typing from Python 3.11

    def dataclass_transform(**_):
        return lambda cls: cls


__all__ = [
    "ELU",
    "GELU",
    "Flatten",
    "Identity",
    "LeakyReLU",
    "LogSoftmax",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
]

Sizes = int | Sequence[int]
_WHOLE = 2**63  # an integer of any sign


@dataclass_transform(eq_default=False, field_specifiers=(field,))
@dataclass(eq=False, repr=False)
class FunctionModule(Module):
    """A function as a module. A subclass, a dataclass, names the function; its fields are keyword
    arguments.
    """

    function: ClassVar[Callable[..., Any]]

    def __init_subclass__(cls, kw_only: bool = False) -> None:
        dataclass(eq=False, repr=False, kw_only=kw_only)(cls)

    def __post_init__(self) -> None:
        for f in fields(self):
            value = _checked(type(self).__name__, f.name, f.type, getattr(self, f.name))
            setattr(self, f.name, value)

    def forward(self, *inputs: Any) -> Any:
        """The function of the inputs, with this module's settings."""
        names = (f.name for f in fields(self) if f.name != "inplace")
        return self.function(*inputs, **{name: getattr(self, name) for name in names})

    def extra_repr(self) -> str:
        """The settings that have no default, or another value than the default."""
        settings = ((f.name, getattr(self, f.name), f.default) for f in fields(self))
        return ", ".join(f"{name}={value!r}" for name, value, usual in settings if value != usual)


def _checked(call: str, name: str, kind: Any, value: Any) -> Any:
    """A setting in plain Python numbers. Raises ConfigError if it is not of its field's kind."""
    if value is None or not kind.startswith(("float", "int", "Sizes")):
        return value
    if kind != "float" and kind.startswith("float") and isinstance(value, tuple | list):
        return tuple(_checked(call, name, "float", part) for part in value)
    if kind.startswith("float"):
        return as_float(call, name, value, -math.inf, math.inf)
    if kind.startswith("int"):
        return as_int(call, name, value, least=-_WHOLE)
    least = 0 if "padding" in name else 1
    if isinstance(value, Sequence):
        return tuple(None if n is None else as_int(call, name, n, least) for n in value)
    return as_int(call, name, value, least)


class Identity(Module):
    """x itself. Takes any arguments, and ignores them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """x."""
        return x


class Flatten(FunctionModule):
    """The axes from start_dim to end_dim as one: (N, C, H, W) -> (N, C H W)."""

    start_dim: int = 1
    end_dim: int = -1
    function = staticmethod(Tensor.flatten)


class _Plain(FunctionModule):
    """An activation that has no setting of its own."""

    inplace: bool = False


class ReLU(_Plain):
    """max(x, 0), elementwise."""

    function = staticmethod(F.relu)


class SiLU(_Plain):
    """x sigmoid(x), elementwise. From Elfwing et al. 2017, arXiv:1702.03118."""

    function = staticmethod(F.silu)


class Tanh(FunctionModule):
    """tanh(x), elementwise."""

    function = staticmethod(F.tanh)


class Sigmoid(FunctionModule):
    """1 / (1 + exp(-x)), elementwise."""

    function = staticmethod(F.sigmoid)


class GELU(FunctionModule):
    """x Phi(x), Phi the normal distribution function; "tanh" takes GPT-2's formula for it. From
    Hendrycks and Gimpel 2016, arXiv:1606.08415.
    """

    approximate: Literal["none", "tanh"] = "none"
    function = staticmethod(F.gelu)


class LeakyReLU(FunctionModule):
    """x where x > 0, else negative_slope x."""

    negative_slope: float = 0.01
    inplace: bool = False
    function = staticmethod(F.leaky_relu)


class ELU(FunctionModule):
    """x where x > 0, else alpha (exp(x) - 1). From Clevert et al. 2015, arXiv:1511.07289."""

    alpha: float = 1.0
    inplace: bool = False
    function = staticmethod(F.elu)


class Softplus(FunctionModule):
    """log(1 + exp(beta x)) / beta, elementwise, and x itself where beta x > threshold."""

    beta: float = 1.0
    threshold: float = 20.0
    function = staticmethod(F.softplus)


class Softmax(FunctionModule):
    """exp(x) / sum(exp(x)) along an axis, the last unless given (PyTorch's choice depends on x)."""

    dim: int = -1
    function = staticmethod(F.softmax)


class LogSoftmax(FunctionModule):
    """log(softmax(x)) along an axis, the last unless given."""

    dim: int = -1
    function = staticmethod(F.log_softmax)
