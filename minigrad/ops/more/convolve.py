"""Sliding windows: convolution, pooling and resampling.

`unfold`, which gives windows as views, and `fold` are each other's transpose; everything else is
composed of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from minigrad.arguments import as_int, fits, one_of, require
from minigrad.dtypes import Array, limits
from minigrad.ops.axis import one_axis, several, with_sizes
from minigrad.ops.composite import composite
from minigrad.ops.contract import matmul, swap_last
from minigrad.ops.elementwise import where
from minigrad.ops.index import ARRAY, take
from minigrad.ops.movement import pad, permute, reshape
from minigrad.ops.reduce import max as max_, sum as sum_
from minigrad.primitive import primitive

Sizes = int | Sequence[int]


@primitive(kind="view")
def unfold(x: Array, *, axis: int, size: int, step: int = 1, dilation: int = 1) -> Array:
    """Return the windows of `size` elements (`dilation` apart) along `axis`, every `step`, on a new
    last axis. A view.

    (.., L, ..) -> (.., (L - dilation (size - 1) - 1) // step + 1, .., size)
    """
    axis = one_axis(axis, x.ndim, "unfold")
    require(min(size, step) >= 1, "unfold", "size and step", (size, step), "at least 1")
    count = (x.shape[axis] - dilation * (size - 1) - 1) // step + 1
    problem = f"a window of {size} (dilation {dilation}) on an axis of {x.shape[axis]}"
    fits(count >= 1, "unfold", problem, x.shape[axis], "pad the axis, or take a smaller window")
    stride = x.strides[axis]
    shape = (*with_sizes(x.shape, axis, count), size)
    strides = (*with_sizes(x.strides, axis, stride * step), stride * dilation)
    return np.lib.stride_tricks.as_strided(x, shape, strides, writeable=False)


@unfold.vjp
def _(g, _y, _x, *, axis, size, step=1, dilation=1):
    return (fold(g, axis=axis % _x.ndim, length=_x.shape[axis], step=step, dilation=dilation),)


@primitive(kind="reduce")
def fold(g: Array, *, axis: int, length: int, step: int = 1, dilation: int = 1) -> Array:
    """Return windows added up where they came from: the transpose of `unfold`, for an axis of
    `length`.
    """
    y = np.zeros(with_sizes(g.shape[:-1], axis, length), g.dtype)
    before, reach = (slice(None),) * axis, (g.shape[axis] - 1) * step + 1
    for i in range(g.shape[-1]):
        place = (*before, slice(i * dilation, i * dilation + reach, step))
        y[place] += g[..., i]
    return y


@fold.vjp
def _(h, _y, _g, *, axis, length, step=1, dilation=1):
    return (unfold(h, axis=axis, size=_g.shape[-1], step=step, dilation=dilation),)


# --- windows over several axes


class Window(NamedTuple):
    """How a window moves along one axis."""

    size: int
    step: int
    dilation: int
    padding: int

    @property
    def reach(self) -> int:
        """The number of elements from its first to its last."""
        return self.dilation * (self.size - 1) + 1

    def count(self, length: int) -> int:
        """Return the number of windows on an axis that is `length` long with its padding."""
        return (length - self.reach) // self.step + 1


def each(call: str, name: str, value: Any, n: int, least: int = 1) -> tuple[int, ...]:
    """Return one integer >= least for each of n axes."""
    given = several(value) if isinstance(value, (tuple, list)) else (value,) * n
    require(len(given) == n, call, name, value, f"a number, or one for each of {n} axes")
    return tuple(as_int(call, name, v, least) for v in given)


def windows_on(
    call: str, n: int, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1
) -> list[Window]:
    """Return the window on each of n axes; stride is kernel_size unless given."""
    sizes = each(call, "kernel_size", kernel_size, n)
    steps = sizes if stride is None else each(call, "stride", stride, n)
    dilations = each(call, "dilation", dilation, n)
    paddings = each(call, "padding", padding, n, 0)
    return [Window(*w) for w in zip(sizes, steps, dilations, paddings, strict=True)]


def around(x: Any, widths: Sequence[tuple[int, int]], value: float = 0) -> Any:
    """Return x padded on its last axes."""
    if not any(map(any, widths)):
        return x
    return pad(x, widths=((0, 0),) * (x.ndim - len(widths)) + tuple(widths), value=value)


def unfolded(x: Any, windows: Sequence[Window]) -> Any:
    """Return the windows over the last axes: (..., *L) -> (..., *counts, *sizes)."""
    for axis, w in enumerate(windows, x.ndim - len(windows)):
        x = unfold(x, axis=axis, size=w.size, step=w.step, dilation=w.dilation)
    return x


def _columns(x: Any, windows: Sequence[Window]) -> tuple[Any, tuple[int, ...]]:
    """Return (N, C, *L) as (N, C K, M): K elements in each of M windows; and the counts of windows
    on each axis.
    """
    y = permute(unfolded(x, windows), order=_turned(len(windows)))  # (N, C, *sizes, *counts)
    sizes, counts = y.shape[2 : x.ndim], y.shape[x.ndim :]
    return reshape(y, shape=(x.shape[0], x.shape[1] * math.prod(sizes), math.prod(counts))), counts


def _from_columns(
    x: Any, windows: Sequence[Window], lengths: Sequence[int], extra: Sequence[int] = (0, 0)
) -> Any:
    """Return (N, C K, M) added up where `_columns` took it from: its transpose. `lengths` include
    the padding, which is cut off; `extra` places of 0 are added at the end.
    """
    sizes = [w.size for w in windows]
    counts = [w.count(length) for w, length in zip(windows, lengths, strict=True)]
    K, M = math.prod(sizes), math.prod(counts)
    problem = f"columns {x.shape} are not (N, C {K}, {M}), as the sizes ask for"
    fits(x.ndim == 3 and x.shape[2] == M and not x.shape[1] % K, "fold", problem, x.shape)
    x = reshape(x, shape=(x.shape[0], x.shape[1] // K, *sizes, *counts))
    x = permute(x, order=_turned(len(windows)))  # (N, C, *counts, *sizes)
    for i, w in reversed(list(enumerate(windows))):
        x = fold(x, axis=2 + i, length=lengths[i], step=w.step, dilation=w.dilation)
    return around(x, [(-w.padding, n - w.padding) for w, n in zip(windows, extra, strict=False)])


def _turned(n: int) -> tuple[int, ...]:
    """Return the order that exchanges the n axes after the first two with the n last ones."""
    return (0, 1, *range(2 + n, 2 + 2 * n), *range(2, 2 + n))


def blocks(
    x: Any, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1
) -> Any:
    """Return the windows of x as columns: (N, C, H, W) -> (N, C K, number of windows), or (C, H, W)
    -> (C K, number of windows).
    """
    n = len(kernel_size) if isinstance(kernel_size, (tuple, list)) else max(x.ndim - 2, 2)
    windows = windows_on("unfold", n, kernel_size, stride, padding, dilation)
    fits(x.ndim in (n + 1, n + 2), "unfold", f"x {x.shape} must have {n} axes to cut", x.shape)
    y, lead = around(x, [(w.padding, w.padding) for w in windows]), x.shape[: -n - 1]
    y = _columns(reshape(y, shape=(*(lead or (1,)), *y.shape[-n - 1 :])), windows)[0]
    return reshape(y, shape=(*lead, *y.shape[1:]))


def from_blocks(
    x: Any,
    output_size: Sizes,
    kernel_size: Sizes,
    dilation: Sizes = 1,
    padding: Sizes = 0,
    stride: Sizes = 1,
) -> Any:
    """Return columns added up where `blocks` took them from: (N, C K, windows) -> (N, C, H, W), or
    (C K, windows) -> (C, H, W).
    """
    n = len(output_size) if isinstance(output_size, (tuple, list)) else 2
    windows = windows_on("fold", n, kernel_size, stride, padding, dilation)
    sizes = zip(each("fold", "output_size", output_size, n), windows, strict=True)
    lead = x.shape[:-2]
    x = reshape(x, shape=(*(lead or (1,)), *x.shape[-2:]))
    y = _from_columns(x, windows, [size + 2 * w.padding for size, w in sizes])
    return reshape(y, shape=(*lead, *y.shape[1:]))


# --- convolution


def _conv(n: int) -> Any:
    call = f"conv{n}d"

    @composite(widen=True, name=call)
    def conv(
        x: Any,
        weight: Any,
        bias: Any = None,
        stride: Sizes = 1,
        padding: Sizes | Literal["same", "valid"] = 0,
        dilation: Sizes = 1,
        groups: int = 1,
    ) -> Any:
        """Return the cross-correlation of x with `weight` over the last axes.

        x: (N, C, *L) or (C, *L)   weight: (O, C / groups, *K)   bias: (O,)   ->   (N, O, *M) or (O,
            *M), M = (L + 2 padding - dilation (K - 1) - 1) // stride + 1
        y[n, o, m] = bias[o] + sum over c, k of x[n, c, m stride + k dilation - padding]
            weight[o, c, k]

        padding="same" keeps L (for stride 1). groups: the channels are split into as many groups,
        each with its own results. Raises ShapeError, ConfigError.
        """
        single, x = _batched(call, n, x, weight, 1, groups)
        width = 0 if isinstance(padding, str) else padding
        windows = windows_on(call, n, weight.shape[2:], stride, width, dilation)
        widths = [(w.padding, w.padding) for w in windows]
        if isinstance(padding, str):
            one_of(call, "padding", padding, ("same", "valid"))
        if padding == "same":
            good = all(w.step == 1 for w in windows)
            require(good, call, 'stride with padding="same"', stride, "1")
            widths = [((w.reach - 1) // 2, w.reach // 2) for w in windows]
        columns, counts = _columns(around(x, widths), windows)  # (N, C K, M)
        N, O, inner = x.shape[0], weight.shape[0], columns.shape[1] // groups
        columns = reshape(columns, shape=(N, groups, inner, columns.shape[2]))
        y = matmul(reshape(weight, shape=(groups, O // groups, inner)), columns)
        return _finished(reshape(y, shape=(N, O, *counts)), bias, single)

    return conv


def _conv_transpose(n: int) -> Any:
    call = f"conv_transpose{n}d"

    @composite(widen=True, name=call)
    def conv_transpose(
        x: Any,
        weight: Any,
        bias: Any = None,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        dilation: Sizes = 1,
    ) -> Any:
        """Return the transpose of conv with the same weight: what its backward pass does.

        x: (N, C, *L) or (C, *L)   weight: (C, O / groups, *K)   bias: (O,)   ->   (N, O, *M) or (O,
            *M), M = (L - 1) stride - 2 padding + dilation (K - 1) + output_padding + 1

        output_padding: places added at the end, since conv maps several M to one L. Raises
        ShapeError, ConfigError.
        """
        single, x = _batched(call, n, x, weight, 0, groups)
        windows = windows_on(call, n, weight.shape[2:], stride, padding, dilation)
        extra = each(call, "output_padding", output_padding, n, 0)
        good = all(more < max(w.step, w.dilation) for w, more in zip(windows, extra, strict=True))
        require(good, call, "output_padding", extra, "smaller than stride or dilation")
        sizes = zip(x.shape[2:], windows, strict=True)
        lengths = [(length - 1) * w.step + w.reach for length, w in sizes]
        N, C, M = x.shape[0], x.shape[1], math.prod(x.shape[2:])
        factors = swap_last(reshape(weight, shape=(groups, C // groups, -1)))  # (G, O/G K, C/G)
        y = matmul(factors, reshape(x, shape=(N, groups, C // groups, M)))
        y = _from_columns(reshape(y, shape=(N, groups * y.shape[2], M)), windows, lengths, extra)
        return _finished(y, bias, single)

    return conv_transpose


conv1d, conv2d = _conv(1), _conv(2)
conv_transpose1d, conv_transpose2d = _conv_transpose(1), _conv_transpose(2)


def _batched(call: str, n: int, x: Any, weight: Any, axis: int, groups: int) -> tuple[bool, Any]:
    """Return whether x has no batch, and x with one. Raises ShapeError unless it fits `weight`,
    whose axis 0 and 1 count channels, those of x on `axis`.
    """
    single = x.ndim == n + 1
    x = reshape(x, shape=(1, *x.shape)) if single else x
    C = weight.shape[axis] * (groups if axis else 1) if weight.ndim == n + 2 else None
    got = x.shape[1] if x.ndim > 1 else x.shape
    good = x.ndim == n + 2 and got == C and groups >= 1 and not weight.shape[0] % groups
    hint = "conv: x (N, C, *L), weight (out, C / groups, *sizes); conv_transpose: weight (C, out /"
    hint += " groups, *sizes); groups divides both"
    problem = f"x {x.shape} does not fit weight {weight.shape} in {groups} groups"
    fits(good, call, problem, got, hint)
    return single, x


def _finished(y: Any, bias: Any, single: bool) -> Any:
    y = y if bias is None else y + reshape(bias, shape=(-1, *(1,) * (y.ndim - 2)))
    return reshape(y, shape=y.shape[1:]) if single else y


# --- pooling and resampling over the last axes


def _pooled(call: str, x: Any, windows: Sequence[Window], ceil_mode: bool, value: float) -> Any:
    """Return the windows over the last axes, flat on a new last axis: (..., H, W) -> (..., h, w,
    K). Outside x everything is `value`.
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

    mode: "nearest" takes element floor(i L / M); "linear" (for 2 or 3 axes "bilinear", "trilinear")
        mixes the two elements next to place (i + 1/2) L / M - 1/2, with align_corners i (L - 1) /
        (M - 1). Raises ShapeError if x has other axes than the mode.
    """
    modes, n = ("nearest", "linear", "bilinear", "trilinear"), x.ndim - 2
    one_of("interpolate", "mode", mode, modes)
    hint = 'x (N, C, *L); "linear" for one axis L, "bilinear" for two, "trilinear" for three'
    good = n > 0 and mode in ("nearest", *modes[n : n + 1])
    fits(good, "interpolate", f'x {x.shape} does not fit mode="{mode}"', x.shape, hint)
    good = align_corners is None or mode != "nearest"
    require(good, "interpolate", "align_corners", align_corners, 'None for mode="nearest"')
    good = (size is None) != (scale_factor is None)
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
