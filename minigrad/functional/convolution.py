"""Convolution and pooling, and what goes with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrad.tensor import Tensor

Sizes = int | Sequence[int]


def one_hot(index: Any, num_classes: int = -1) -> Tensor:
    """1 at the place that each index names on a new last axis, else 0, int64. -1: one class more
    than the largest index.
    """
    return (index if isinstance(index, Tensor) else Tensor(index)).one_hot(num_classes)


def pad(x: Tensor, pad: Sequence[Any], mode: str = "constant", value: float = 0.0) -> Tensor:
    """More elements around, (before, after) of the last axis first; of `value`, or "reflect",
    "replicate", "circular".
    """
    return x.pad(pad, mode, value)


def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation over the last axis: (N, C, L), (O, C / groups, K), (O,) -> (N, O, M)."""
    return x.conv1d(weight, bias, stride, padding, dilation, groups)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation over the last two axes: (N, C, H, W), (O, C / groups, K, L), (O,) -> (N, O,
    h, w).
    """
    return x.conv2d(weight, bias, stride, padding, dilation, groups)


def max_pool2d(
    x: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Return the largest element of each window over the last two axes; ties share the gradient
    evenly. ceil_mode: round the number of windows up, not down.
    """
    return x.max_pool2d(kernel_size, stride, padding, dilation, ceil_mode)


def avg_pool2d(
    x: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Return the mean of each window over the last two axes.

    ceil_mode: round the number of windows up, not down.   count_include_pad: True if the divisor
        counts the zeros of the padding.
    """
    return x.avg_pool2d(kernel_size, stride, padding, ceil_mode, count_include_pad)
