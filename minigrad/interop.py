"""Other libraries' functions on Tensors, where they must be registered. numpy and DLPack need
nothing of the kind: see `tensor/interop.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrad import ops
from minigrad.errors import needs
from minigrad.ops import shape
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

    from_numpy, to_numpy = staticmethod(Tensor), staticmethod(Tensor.numpy)
    arange, einsum = staticmethod(Tensor.arange), staticmethod(ops.einsum)
    concat, stack_on_zeroth_dimension = staticmethod(shape.cat), staticmethod(ops.stack)
    transpose, add_axis = staticmethod(ops.permute), staticmethod(ops.unsqueeze)
    tile, is_float_type = staticmethod(ops.repeat), staticmethod(Tensor.is_floating_point)

    def is_appropriate_type(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor)

    def reduce(self, x: Tensor, operation: str, axes: Sequence[int]) -> Tensor:
        return getattr(x, operation)(axis=tuple(axes))
