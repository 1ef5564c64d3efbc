"""Convolution as a module, with PyTorch's arguments and parameter names."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

from minigrad import functional as F
from minigrad.arguments import as_sizes, require
from minigrad.nn import init
from minigrad.nn.layers import empty
from minigrad.nn.module import Layer, layers_of
from minigrad.ops.more.convolve import each
from minigrad.ops.shape import Sizes
from minigrad.tensor import Tensor


class _Convolution(Layer):
    """What all convolutions share. First values: uniform in +-1 / sqrt(fan_in), fan_in the product
    of all sizes of weight but the first.
    """

    _axes: ClassVar[int]
    _function: ClassVar[Callable[..., Tensor]]
    _transposed: ClassVar[bool] = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        call, n = type(self).__name__, self._axes
        self.in_channels, self.out_channels, self.groups = as_sizes(
            call, in_channels=in_channels, out_channels=out_channels, groups=groups
        )
        divides = self.in_channels % self.groups == self.out_channels % self.groups == 0
        both = f"in_channels={in_channels} and out_channels={out_channels}"
        require(divides, call, "groups", groups, f"a divisor of {both}")
        self.kernel_size = each(call, "kernel_size", kernel_size, n)
        self.stride = each(call, "stride", stride, n)
        self.padding: Any = padding
        if not isinstance(padding, str) or padding not in ("same", "valid"):
            self.padding = each(call, "padding", padding, n, 0)
        self.dilation = each(call, "dilation", dilation, n)
        outer, inner = self.out_channels, self.in_channels
        if self._transposed:
            outer, inner = inner, outer
        shape = (outer, inner // self.groups, *self.kernel_size)
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        self.weight = init.uniform_(empty(*shape), -bound, bound)
        self.bias = init.uniform_(empty(self.out_channels), -bound, bound) if bias else None

    def _settings(self) -> dict[str, Any]:
        names = ("stride", "padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of x with weight, plus bias."""
        return type(self)._function(x, self.weight, self.bias, **self._settings())


class Conv1d(_Convolution):
    """y[n, o, m] =
        bias[o] + sum over c, k of x[n, c, m stride + k dilation - padding] weight[o, c, k]

    x: (N, C, L)   weight: (O, C / groups, K)   bias: (O,)   ->   (N, O, M),
        M = (L + 2 padding - dilation (K - 1) - 1) // stride + 1
    padding: a number, "same" or "valid".
    """

    _axes, _function = 1, staticmethod(F.conv1d)


class Conv2d(_Convolution):
    """The same over two axes: (N, C, H, W), weight (O, C / groups, K, L) -> (N, O, h, w)."""

    _axes, _function = 2, staticmethod(F.conv2d)


class _ConvolutionTransposed(_Convolution):
    _transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        )
        call, n = type(self).__name__, self._axes
        self.output_padding = each(call, "output_padding", output_padding, n, 0)

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "output_padding": self.output_padding}


class ConvTranspose1d(_ConvolutionTransposed):
    """The transpose of Conv1d as a map of x, plus bias: x[n, c, m] weight[c, o, k] is added to
    y[n, o, m stride + k dilation - padding].

    x: (N, C, M)   weight: (C, O / groups, K)   bias: (O,)   ->   (N, O, L),
        L = (M - 1) stride - 2 padding + dilation (K - 1) + output_padding + 1
    """

    _axes, _function = 1, staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_ConvolutionTransposed):
    """The same over two axes: (N, C, H, W), weight (C, O / groups, K, L) -> (N, O, h, w)."""

    _axes, _function = 2, staticmethod(F.conv_transpose2d)


__all__ = layers_of(globals())
