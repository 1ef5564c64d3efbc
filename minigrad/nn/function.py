"""FunctionModule: a function of `functional` as a module.

A setting of the function is a field of a dataclass, with PyTorch's name, place and default.
`inplace=` is accepted and ignored: an activation never writes over its input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from minigrad.arguments import as_float, as_int
from minigrad.nn.module import Module

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:  # in typing from Python 3.11

    def dataclass_transform(**_):
        return lambda cls: cls


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
