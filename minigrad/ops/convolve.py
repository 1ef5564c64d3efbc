"""Convolution and pooling: sliding windows as views, then a matrix product, a maximum or a mean.

`unfold` and `fold` are each other's transpose; everything else is composed.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from minigrad.dtypes import Array, limits
from minigrad.errors import ConfigError, ShapeError
from minigrad.ops.composite import composite
from minigrad.ops.contract import matmul
from minigrad.ops.movement import pad, permute, reshape
from minigrad.ops.reduce import max as max_, sum as sum_
from minigrad.primitive import primitive

Sizes = int | Sequence[int]


@primitive(kind="view")
def unfold(x: Array, *, axis: int, size: int, step: int = 1, dilation: int = 1) -> Array:
    """The windows of `size` elements (`dilation` apart) along `axis`, every `step`; they stand on a
    new last axis. A view.

    (.., L, ..) -> (.., (L - dilation (size - 1) - 1) // step + 1, .., size)
    """
    axis %= x.ndim
    count = _windows(x.shape[axis], size, step, dilation)
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :], size)
    stride = x.strides[axis]
    strides = (*x.strides[:axis], stride * step, *x.strides[axis + 1 :], stride * dilation)
    return np.lib.stride_tricks.as_strided(x, shape, strides, writeable=False)


def _windows(length: int, size: int, step: int, dilation: int) -> int:
    count = (length - dilation * (size - 1) - 1) // step + 1
    if min(size, step, dilation) < 1 or count < 1:
        raise ShapeError(
            "unfold",
            f"a window of {size} (step {step}, dilation {dilation}) does not fit an axis of "
            f"{length}",
            got=length,
            wanted=dilation * (size - 1) + 1,
            hint="pad the axis, or take a smaller window",
        )
    return count


@unfold.vjp
def _(g, _y, _x, *, axis, size, step=1, dilation=1):
    return (fold(g, axis=axis % _x.ndim, length=_x.shape[axis], step=step, dilation=dilation),)


@primitive(kind="reduce")
def fold(g: Array, *, axis: int, length: int, step: int = 1, dilation: int = 1) -> Array:
    """Windows added up where they came from: the transpose of `unfold`, for an axis of `length`."""
    y = np.zeros((*g.shape[:axis], length, *g.shape[axis + 1 : -1]), g.dtype)
    before, reach = (slice(None),) * axis, (g.shape[axis] - 1) * step + 1
    for i in range(g.shape[-1]):
        part = (*before, slice(i * dilation, i * dilation + reach, step))
        y[part] += g[..., i]
    return y


@fold.vjp
def _(h, _y, _g, *, axis, length, step=1, dilation=1):
    return (unfold(h, axis=axis, size=_g.shape[-1], step=step, dilation=dilation),)


def _each(value: Sizes, n: int, call: str, what: str) -> tuple[int, ...]:
    """Return one number for each of n axes: >= 0 for a padding, >= 1 for all else."""
    given: Any = value if isinstance(value, (tuple, list)) else (value,) * n
    found = tuple(map(operator.index, given))
    if len(found) != n:
        raise ConfigError(
            call, f"{what}={value} for {n} axes", got=value, wanted=f"a number, or {n} of them"
        )
    least = int(what != "padding")
    if min(found) < least:
        raise ConfigError(call, f"{what}={value}", got=value, wanted=f"{what} >= {least}")
    return found


def _unfolded(
    x: Any, sizes: tuple[int, ...], steps: tuple[int, ...], dilations: tuple[int, ...]
) -> Any:
    """Windows over the last axes: (..., *L) -> (..., *counts, *sizes)."""
    first = x.ndim - len(sizes)
    for i, (size, step, dilation) in enumerate(zip(sizes, steps, dilations, strict=True)):
        x = unfold(x, axis=first + i, size=size, step=step, dilation=dilation)
    return x


@composite(widen=True)
def conv(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: Sizes = 1,
    padding: Sizes | Literal["same", "valid"] = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Any:
    """The cross-correlation of x with `weight` over the last axes, however many weight has beyond
    two.

    x: (N, C, *L)   weight: (O, C / groups, *K)   bias: (O,)   ->   (N, O, *M),  M = (L + 2 padding
        - dilation (K - 1) - 1) // stride + 1
    y[n, o, m] = bias[o] + sum over c, k of x[n, c, m stride + k dilation - padding] weight[o, c, k]
    padding="same" keeps L (for stride 1). groups: channels in so many groups that do not see one
    another. Raises ShapeError, ConfigError.
    """
    n = weight.ndim - 2
    if n < 1 or x.ndim != n + 2:
        raise ShapeError(
            "conv",
            f"x {x.shape} and weight {weight.shape}",
            got=(x.shape, weight.shape),
            wanted="(N, C, *L), (O, C, *K)",
        )
    O, C = weight.shape[0], weight.shape[1] * groups
    if groups < 1 or x.shape[1] != C or O % groups:
        raise ShapeError(
            "conv",
            f"x has {x.shape[1]} channels, weight {weight.shape} in {groups} groups wants {C}, and "
            f"{O} results",
            got=x.shape[1],
            wanted=C,
            hint="weight is (out, in / groups, *sizes), and groups divides both",
        )
    sizes = tuple(weight.shape[2:])
    steps, dilations = _each(stride, n, "conv", "stride"), _each(dilation, n, "conv", "dilation")
    x = pad(x, widths=((0, 0), (0, 0), *_paddings(padding, sizes, steps, dilations)))
    windows = _unfolded(x, sizes, steps, dilations)  # (N, C, *M, *K)
    N, M = windows.shape[0], windows.shape[2 : 2 + n]
    grouped = reshape(windows, shape=(N, groups, C // groups, *M, *sizes))
    columns = permute(
        grouped, order=(0, 1, 2, *range(3 + n, 3 + 2 * n), *range(3, 3 + n))
    )  # (N, G, C/G, *K, *M)
    columns = reshape(
        columns, shape=(N, groups, C // groups * int(np.prod(sizes)), int(np.prod(M)))
    )
    y = matmul(
        reshape(weight, shape=(groups, O // groups, columns.shape[2])), columns
    )  # (N, G, O/G, M)
    y = reshape(y, shape=(N, O, *M))
    return y if bias is None else y + reshape(bias, shape=(O, *(1,) * n))


def _paddings(
    padding: Any, sizes: tuple[int, ...], steps: tuple[int, ...], dilations: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    if padding == "valid":
        return ((0, 0),) * len(sizes)
    if padding == "same":
        if set(steps) != {1}:
            raise ConfigError(
                "conv",
                f'padding="same" with stride {steps}',
                got=steps,
                wanted=1,
                hint="give the padding as numbers",
            )
        total = [d * (k - 1) for d, k in zip(dilations, sizes, strict=True)]
        return tuple((t // 2, t - t // 2) for t in total)
    if isinstance(padding, str):
        raise ConfigError(
            "conv", f"padding={padding!r}", got=padding, wanted=("same", "valid", "a number")
        )
    return tuple((p, p) for p in _each(padding, len(sizes), "conv", "padding"))


def _pooled(
    call: str,
    x: Any,
    sizes: tuple[int, ...],
    steps: tuple[int, ...],
    widths: tuple[int, ...],
    dilations: tuple[int, ...],
    ceil_mode: bool,
    value: float,
) -> Any:
    """Return the windows over the last axes, flat on a new last axis: (..., H, W) -> (..., h, w,
    K). What lies outside x is `value`.
    """
    n = len(sizes)
    if x.ndim < n:
        raise ShapeError(
            call, f"x {x.shape} has fewer than {n} axes", got=x.shape, wanted=f">= {n} axes"
        )
    if any(2 * p > k for p, k in zip(widths, sizes, strict=True)):
        raise ConfigError(
            call,
            f"padding {widths} is more than half the window {sizes}",
            got=widths,
            wanted="padding <= kernel_size / 2",
        )
    around = []
    for length, k, s, p, d in zip(x.shape[-n:], sizes, steps, widths, dilations, strict=True):
        reach, over = d * (k - 1) + 1, 0
        if ceil_mode:
            last = -(-(length + 2 * p - reach) // s) * s
            # A window that would start in the padding after the end is left out.
            last -= s if last >= length + p else 0
            over = max(0, last + reach - length - 2 * p)
        around.append((p, p + over))
    if any(map(any, around)):
        x = pad(x, widths=((0, 0),) * (x.ndim - n) + tuple(around), value=value)
    windows = _unfolded(x, sizes, steps, dilations)
    return reshape(windows, shape=(*windows.shape[:-n], math.prod(sizes)))


def max_pool2d(
    x: Any,
    kernel_size: Sizes = 2,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Any:
    """Return the largest element of each window over the last two axes; ties share the gradient
    evenly. stride is kernel_size unless given.

    (..., H, W) -> (..., h, w),  h = (H + 2 padding - dilation (kernel_size - 1) - 1) // stride + 1

    ceil_mode: round h up instead of down, with windows that reach over the end.
    """
    sizes = _each(kernel_size, 2, "max_pool2d", "kernel_size")
    windows = _pooled(
        "max_pool2d",
        x,
        sizes,
        sizes if stride is None else _each(stride, 2, "max_pool2d", "stride"),
        _each(padding, 2, "max_pool2d", "padding"),
        _each(dilation, 2, "max_pool2d", "dilation"),
        ceil_mode,
        limits(x.dtype)[0],
    )
    return max_(windows, axis=-1)


@composite(widen=True)
def avg_pool2d(
    x: Any,
    kernel_size: Sizes = 2,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """Return the mean of each window over the last two axes; stride is kernel_size unless given.

    ceil_mode: as in `max_pool2d`.   count_include_pad: True if the divisor counts the zeros of the
        padding; elements beyond the padding, which ceil_mode reaches, never count.
    """
    sizes = _each(kernel_size, 2, "avg_pool2d", "kernel_size")
    steps = sizes if stride is None else _each(stride, 2, "avg_pool2d", "stride")
    widths = _each(padding, 2, "avg_pool2d", "padding")
    windows = _pooled("avg_pool2d", x, sizes, steps, widths, (1, 1), ceil_mode, 0)
    divisor = np.ones((), np.float64)
    for i, (k, s, p) in enumerate(zip(sizes, steps, widths, strict=True), -2):
        first = np.arange(windows.shape[i - 1]) * s - p
        inside = p if count_include_pad else 0
        counts = np.minimum(first + k, x.shape[i] + inside) - np.maximum(first, -inside)
        divisor = divisor[..., None] * np.maximum(counts, 1)
    total = sum_(windows, axis=-1)
    return total / divisor.astype(total.dtype, copy=False)
