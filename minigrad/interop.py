"""Other libraries' functions on Tensors, where they must be registered. numpy and DLPack need
nothing of the kind: see `tensor/interop.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrad import ops
from minigrad.dtypes import Array, is_float
from minigrad.errors import needs
from minigrad.tensor import Tensor


def use_einops() -> None:
    """Let einops' rearrange, reduce, repeat, pack, unpack and einsum take Tensors, with gradients.
    Call it once.

    x.rearrange(pattern) needs neither this nor einops. Raises MissingDependencyError where einops
    is not installed.
    """
    with needs("use_einops", "einops is not installed", "einops"):
        from einops._backends import AbstractBackend
    # einops finds its backends among the subclasses of its base class, by the name of a module that
    # is imported. A class that nothing refers to is collected, so it is held here.
    if _Einops.backend is None:
        _Einops.backend = type("MinigradBackend", (_Einops, AbstractBackend), {})


class _Einops:
    """What einops asks of a tensor library."""

    framework_name = "minigrad"
    backend: type | None = None  # the class that einops knows

    def is_appropriate_type(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor)

    def from_numpy(self, x: Array) -> Tensor:
        return Tensor(x)

    def to_numpy(self, x: Tensor) -> Array:
        return x.numpy()

    def arange(self, start: int, stop: int) -> Tensor:
        return Tensor.arange(start, stop)

    def transpose(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return x.permute(axes)

    def reduce(self, x: Tensor, operation: str, axes: Sequence[int]) -> Tensor:
        return getattr(x, operation)(axis=tuple(axes))

    def stack_on_zeroth_dimension(self, tensors: list[Tensor]) -> Tensor:
        return tensors[0].stack(*tensors[1:])

    def add_axis(self, x: Tensor, new_position: int) -> Tensor:
        return x.unsqueeze(new_position)

    def tile(self, x: Tensor, repeats: Sequence[int]) -> Tensor:
        return x.repeat(repeats)

    def concat(self, tensors: list[Tensor], axis: int) -> Tensor:
        return tensors[0].cat(*tensors[1:], axis=axis)

    def is_float_type(self, x: Tensor) -> bool:
        return is_float(x.dtype)

    def einsum(self, pattern: str, *xs: Tensor) -> Tensor:
        return ops.einsum(pattern, *xs)
