"""Padding and one-hot vectors, by PyTorch's names and arguments. Convolution and pooling are ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrad.ops.composite import composite
from minigrad.ops.more.convolve import blocks, from_blocks
from minigrad.tensor import Tensor

unfold, fold = blocks, from_blocks


@composite
def one_hot(index: Any, num_classes: int = -1) -> Tensor:
    """Return 1 at the place that each index names on a new last axis, else 0, int64. -1: one class
    more than the largest index.
    """
    return (index if isinstance(index, Tensor) else Tensor(index)).one_hot(num_classes)


@composite
def pad(x: Tensor, pad: Sequence[Any], mode: str = "constant", value: float = 0.0) -> Tensor:
    """Return x with more elements around, (before, after) of the last axis first; of `value`, or by
    "reflect", "replicate" or "circular" of its own. Negative numbers cut.
    """
    return x.pad(pad, mode, value)
