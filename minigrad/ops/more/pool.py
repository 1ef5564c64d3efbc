"""Pooling and resampling over the last axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.arguments import as_int, one_of, require
from minigrad.dtypes import limits
from minigrad.ops.axis import fits
from minigrad.ops.composite import composite
from minigrad.ops.elementwise import where
from minigrad.ops.index import ARRAY, take
from minigrad.ops.more.convolve import Sizes, Window, around, each, unfolded, windows_on
from minigrad.ops.movement import reshape
from minigrad.ops.reduce import max as max_, sum as sum_


def _pooled(call: str, x: Any, windows: Sequence[Window], ceil_mode: bool, value: float) -> Any:
    """Return the windows over the last axes, flat on a new last axis: (..., H, W) -> (..., h, w,
    K). What lies outside x is `value`.
    """
    n = len(windows)
    fits(x.ndim >= n, call, f"x {x.shape} has fewer than {n} axes", x.shape)
    widths = []
    for length, w in zip(x.shape[-n:], windows, strict=True):
        good, over = 2 * w.padding <= w.size, 0
        require(good, call, "padding", w.padding, f"at most half the window of {w.size}")
        if ceil_mode:
            last = -(-(length + 2 * w.padding - w.reach) // w.step) * w.step
            # A window that would start in the padding after the end is left out.
            last -= w.step if last >= length + w.padding else 0
            over = max(0, last + w.reach - length - 2 * w.padding)
        widths.append((w.padding, w.padding + over))
    y = unfolded(around(x, widths, value), windows)
    return reshape(y, shape=(*y.shape[:-n], math.prod(w.size for w in windows)))


def _max_pool(n: int) -> Any:
    call = f"max_pool{n}d"

    @composite(name=call)
    def pool(
        x: Any,
        kernel_size: Sizes = 2,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        ceil_mode: bool = False,
    ) -> Any:
        """Return the largest element of each window over the last axes; ties share the gradient
        evenly. stride is kernel_size unless given.

        (..., L) -> (..., (L + 2 padding - dilation (kernel_size - 1) - 1) // stride + 1)

        ceil_mode: round up instead of down, with windows that reach over the end.
        """
        windows = windows_on(call, n, kernel_size, stride, padding, dilation)
        return max_(_pooled(call, x, windows, ceil_mode, limits(x.dtype)[0]), axis=-1)

    return pool


def _avg_pool(n: int) -> Any:
    call = f"avg_pool{n}d"

    @composite(widen=True, name=call)
    def pool(
        x: Any,
        kernel_size: Sizes = 2,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> Any:
        """Return the mean of each window over the last axes; stride is kernel_size unless given.

        ceil_mode: round the number of windows up, not down.   count_include_pad: True if the
            divisor counts the zeros of the padding; elements beyond the padding, which ceil_mode
            reaches, never count.
        """
        windows = windows_on(call, n, kernel_size, stride, padding)
        total = sum_(_pooled(call, x, windows, ceil_mode, 0), axis=-1)
        divisor = np.ones((), np.float64)
        for i, w in enumerate(windows, -n):
            first = np.arange(total.shape[i]) * w.step - w.padding
            inside = w.padding if count_include_pad else 0
            counts = np.minimum(first + w.size, x.shape[i] + inside) - np.maximum(first, -inside)
            divisor = divisor[..., None] * np.maximum(counts, 1)
        return total / divisor.astype(total.dtype, copy=False)

    return pool


def _adaptive_avg_pool(n: int) -> Any:
    call = f"adaptive_avg_pool{n}d"

    @composite(widen=True, name=call)
    def pool(x: Any, output_size: Any) -> Any:
        """Return x averaged to output_size on its last axes: of L elements made M, y[i] is the mean
        of x[floor(i L / M) : ceil((i + 1) L / M)]. None keeps a size.
        """
        sizes = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * n
        for axis, size in zip(range(x.ndim - n, x.ndim), sizes, strict=True):
            L = x.shape[axis]
            M = L if size is None else as_int(call, "output_size", size)
            starts, ends = np.arange(M) * L // M, -(-np.arange(1, M + 1) * L // M)
            places = starts[:, None] + np.arange((ends - starts).max())  # (M, window)
            after = (1,) * (x.ndim - axis - 1)
            inside = (places < ends[:, None]).reshape(*places.shape, *after)
            windows = _taken(x, np.minimum(places, L - 1), axis)
            x = sum_(where(inside, windows, 0), axis=axis + 1)
            x = x / (ends - starts).astype(x.dtype).reshape(-1, *after)
        return x

    return pool


max_pool1d, max_pool2d = _max_pool(1), _max_pool(2)
avg_pool1d, avg_pool2d = _avg_pool(1), _avg_pool(2)
adaptive_avg_pool1d, adaptive_avg_pool2d = _adaptive_avg_pool(1), _adaptive_avg_pool(2)


def _taken(x: Any, places: Any, axis: int) -> Any:
    return take(x, places, spec=(*(slice(None),) * axis, ARRAY))


@composite(widen=True)
def interpolate(
    x: Any,
    size: Sizes | None = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Any:
    """Return x (N, C, *L) resampled to `size`, or to floor(L scale_factor), on its last axes.

    mode: "nearest" takes element floor(i L / M); "linear" (also "bilinear", "trilinear") mixes the
        two elements next to place (i + 1/2) L / M - 1/2, with align_corners i (L - 1) / (M - 1).
    """
    modes = ("nearest", "linear", "bilinear", "trilinear")
    one_of("interpolate", "mode", mode, modes)
    n = x.ndim - 2
    good = (size is None) != (scale_factor is None) and n > 0
    require(good, "interpolate", "size or scale_factor", (size, scale_factor), "given, one of them")
    if size is not None:
        sizes = each("interpolate", "size", size, n)
        factors = [L / M for L, M in zip(x.shape[2:], sizes, strict=True)]
    else:
        given = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * n
        factors = [1 / f for f in given]
        sizes = tuple(math.floor(L * f) for L, f in zip(x.shape[2:], given, strict=True))
    for axis, (M, factor) in enumerate(zip(sizes, factors, strict=True), 2):
        L = x.shape[axis]
        steps = np.arange(M)
        if mode == "nearest":
            x = _taken(x, np.minimum((steps * factor).astype(np.int64), L - 1), axis)
            continue
        at = np.maximum((steps + 0.5) * factor - 0.5, 0)
        at = steps * ((L - 1) / max(M - 1, 1)) if align_corners else at
        lower = np.minimum(at.astype(np.int64), L - 1)
        share = (at - lower).astype(x.dtype).reshape(-1, *(1,) * (x.ndim - axis - 1))
        above = _taken(x, np.minimum(lower + 1, L - 1), axis)
        x = _taken(x, lower, axis) * (1 - share) + above * share
    return x
