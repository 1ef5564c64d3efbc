"""The plain layers: Linear, Embedding, LayerNorm, RMSNorm, Dropout; norms per channel;
convolutions. Parameter names, shapes and first values are PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from minigrad import functional as F
from minigrad.arguments import as_float, as_int, as_place, as_sizes, fits, require
from minigrad.dtypes import on_cpu
from minigrad.nn import init
from minigrad.nn.module import Layer, Parameter, layers_of
from minigrad.nn.quantised import QuantisedWeight, linear
from minigrad.ops.more.convolve import each
from minigrad.ops.shape import Sizes
from minigrad.tensor import Tensor


class Linear(Layer):
    """y = x @ weight.T + bias

    x: (..., in_features)   weight: (out_features, in_features)   bias: (out_features,)   ->   (...,
        out_features). A QuantisedWeight may take the place of the weight.
    First values: uniform in +-1 / sqrt(in_features).
    """

    _always = ("bias",)

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None
    ) -> None:
        on_cpu(device, "Linear")
        self.in_features, self.out_features = in_features, out_features = as_sizes(
            "Linear", in_features=in_features, out_features=out_features
        )
        bound = 1 / math.sqrt(in_features)
        self.weight = init.uniform_(empty(out_features, in_features), -bound, bound)
        self.bias = init.uniform_(empty(out_features), -bound, bound) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """x @ weight.T + bias."""
        return linear(x, self.weight, self.bias)


class Embedding(Layer):
    """Rows of a table by their number: index (...) of integers -> (..., embedding_dim).

    weight: (num_embeddings, embedding_dim), first normal with standard deviation 1.   padding_idx:
        a row that is zeros at first and gets no gradient; from the end if negative.
    Raises IndexRangeError for an index outside 0..num_embeddings-1.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        device: Any = None,
    ) -> None:
        on_cpu(device, "Embedding")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim = as_sizes(
            "Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim
        )
        self.weight = init.normal_(empty(num_embeddings, embedding_dim))
        self.padding_idx = padding_idx
        if padding_idx is not None:
            self.padding_idx = as_place("Embedding", "padding_idx", padding_idx, num_embeddings)
            if not init.is_skipped():
                self.weight.data[self.padding_idx] = 0

    def forward(self, index: Tensor) -> Tensor:
        """The rows that `index` names."""
        if isinstance(self.weight, QuantisedWeight):
            return self.weight.rows(index)
        return F.embedding(index, self.weight, self.padding_idx)


class LayerNorm(Layer):
    """y = (x - mean) / sqrt(var + eps) * weight + bias over the last axes, whose sizes are
    normalized_shape.

    elementwise_affine=False leaves out weight and bias, bias=False the bias. From Ba et al. 2016,
    arXiv:1607.06450.
    """

    _always = ("eps", "bias")

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        *,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
    ) -> None:
        on_cpu(device, "LayerNorm")
        self.normalized_shape = shape = _sizes("LayerNorm", normalized_shape)
        self.eps = as_float("LayerNorm", "eps", eps, 0, math.inf, below=True)
        self.weight = init.ones_(empty(*shape)) if elementwise_affine else None
        self.bias = init.zeros_(empty(*shape)) if elementwise_affine and bias else None

    def forward(self, x: Tensor) -> Tensor:
        """x normalised, scaled and shifted."""
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(Layer):
    """y = x / sqrt(mean(x^2) + eps) * weight over the last axes, whose sizes are normalized_shape.

    From Zhang and Sennrich 2019, arXiv:1910.07467.
    """

    _always = ("eps",)

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-6,
        *,
        elementwise_affine: bool = True,
        device: Any = None,
    ) -> None:
        on_cpu(device, "RMSNorm")
        self.normalized_shape = shape = _sizes("RMSNorm", normalized_shape)
        self.eps = as_float("RMSNorm", "eps", eps, 0, math.inf, below=True)
        self.weight = init.ones_(empty(*shape)) if elementwise_affine else None

    def forward(self, x: Tensor) -> Tensor:
        """x normalised and scaled."""
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)


class Dropout(Layer):
    """While training, each element is 0 with probability p and is else divided by 1 - p; in eval
    mode, x itself.

    From Srivastava et al. 2014.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        self.p = as_float("Dropout", "p", p, 0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x with a share of it dropped, if training."""
        return F.dropout(x, self.p) if self.training and self.p else x

    def extra_repr(self) -> str:
        return f"{self.p}"


class Dropout2d(Dropout):
    """Dropout of whole channels: each (H, W) of x (N, C, H, W) is 0 with probability p while
    training, and is else divided by 1 - p. From Tompson et al. 2015, arXiv:1411.4280.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x with a share of its channels dropped, if training."""
        if not (self.training and self.p):
            return x
        channels = Tensor.ones(*x.shape[:2], *(1,) * (x.ndim - 2), dtype=x.dtype)
        return x * F.dropout(channels, self.p)


class Dropout1d(Dropout2d):
    """Dropout2d for x (N, C, L)."""


def empty(*shape: int) -> Parameter:
    """A float32 parameter of this shape, to be filled by `init`."""
    if not init.is_skipped():
        return Parameter(np.zeros(shape, np.float32))
    parameter = Parameter(np.float32(0))
    parameter.data = np.broadcast_to(parameter.data, shape)
    return parameter


def _sizes(call: str, shape: int | Sequence[int]) -> tuple[int, ...]:
    sizes = shape if isinstance(shape, Iterable) else (shape,)
    return tuple(as_int(call, "normalized_shape", size) for size in sizes)


# --- normalisation per channel: over the batch, over groups of channels, over each instance


class _PerChannel(Layer):
    """A norm with weight and bias, (C,), one number per channel; x is (N, C, ...)."""

    _axes: ClassVar[tuple[int, ...]]  # how many axes x may have

    def _prepare(self, channels: int, eps: float, affine: bool, device: Any) -> None:
        on_cpu(device, type(self).__name__)
        self.eps = as_float(type(self).__name__, "eps", eps, 0, math.inf, below=True)
        self.weight = init.ones_(empty(channels)) if affine else None
        self.bias = init.zeros_(empty(channels)) if affine else None

    def _check(self, x: Tensor, channels: int, single: bool = False) -> None:
        axes, at = " or ".join(str(n - single) for n in self._axes), 1 - single
        problem = f"x must have {axes} axes, axis {at} of {channels} channels, got {x.shape}"
        good = x.ndim + single in self._axes and x.shape[at] == channels
        fits(good, type(self).__name__, problem, x.shape)


class _BatchNorm(_PerChannel):
    _always = ("eps", "momentum")

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
    ) -> None:
        call = type(self).__name__
        self.num_features = as_int(call, "num_features", num_features)
        self.momentum = None if momentum is None else as_float(call, "momentum", momentum, 0, 1)
        self._prepare(self.num_features, eps, affine, device)
        mean, var = Tensor.zeros(num_features), Tensor.ones(num_features)
        first = {"running_mean": mean, "running_var": var, "num_batches_tracked": Tensor(0)}
        for name, tensor in first.items():
            self.register_buffer(name, tensor if track_running_stats else None)

    def forward(self, x: Tensor) -> Tensor:
        """x normalised, scaled and shifted."""
        self._check(x, self.num_features)
        mean, var = self.running_mean, self.running_var
        momentum: float | Tensor = 0.0 if self.momentum is None else self.momentum
        if self.training and mean is not None:
            tracked = self.num_batches_tracked + 1
            if self.momentum is None:  # the average over all batches so far
                momentum = tracked.cast(mean.dtype).reciprocal()
        batch = self.training or mean is None
        y = F.batch_norm(x, mean, var, self.weight, self.bias, batch, momentum, self.eps)
        if self.training and mean is not None:  # a batch that was refused does not count
            self.num_batches_tracked.assign(tracked)
        return y


class BatchNorm1d(_BatchNorm):
    """y = (x - mean) / sqrt(var + eps) * weight + bias per channel.   x: (N, C) or (N, C, L)

    In training, mean and var are the batch's, and running_mean and running_var move towards them by
    `momentum` (var with the divisor n - 1); momentum=None averages over all batches. In eval mode,
    they are the running ones, if those are tracked. From Ioffe and Szegedy 2015, arXiv:1502.03167.
    """

    _axes = (2, 3)


class BatchNorm2d(_BatchNorm):
    """The same for x: (N, C, H, W)."""

    _axes = (4,)


class GroupNorm(_PerChannel):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, mean and var over each group of channels
    of each row.   x: (N, C, ...)   weight, bias: (C,)

    num_groups divides num_channels. From Wu and He 2018, arXiv:1803.08494.
    """

    _always = ("eps",)

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
    ) -> None:
        self.num_groups, self.num_channels = as_sizes(
            "GroupNorm", num_groups=num_groups, num_channels=num_channels
        )
        divides = self.num_channels % self.num_groups == 0
        wanted = f"a divisor of num_channels={num_channels}"
        require(divides, "GroupNorm", "num_groups", num_groups, wanted)
        self._prepare(self.num_channels, eps, affine, device)

    def forward(self, x: Tensor) -> Tensor:
        """x normalised, scaled and shifted."""
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class _InstanceNorm(_PerChannel):
    _always = ("eps", "affine")

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
    ) -> None:
        call = type(self).__name__
        tracks, wanted = track_running_stats, "False: an instance has its own statistics"
        require(not tracks, call, "track_running_stats", tracks, wanted)
        self.num_features = as_int(call, "num_features", num_features)
        self._prepare(self.num_features, eps, affine, device)

    def forward(self, x: Tensor) -> Tensor:
        """x normalised, scaled and shifted."""
        single = x.ndim == self._axes[0] - 1
        self._check(x, self.num_features, single)
        if single:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


class InstanceNorm1d(_InstanceNorm):
    """GroupNorm with one channel per group, without weight and bias unless affine: x (N, C, L)
    or (C, L).

    From Ulyanov et al. 2016, arXiv:1607.08022.
    """

    _axes = (3,)


class InstanceNorm2d(_InstanceNorm):
    """The same for x: (N, C, H, W) or (C, H, W)."""

    _axes = (4,)


# --- convolution


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
        padding_mode: str = "zeros",
        device: Any = None,
    ) -> None:
        call, n = type(self).__name__, self._axes
        on_cpu(device, call)
        hint = 'x = F.pad(x, widths, mode="reflect") in front of it, and padding=0'
        require(padding_mode == "zeros", call, "padding_mode", padding_mode, "'zeros'", hint)
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
        return {n: getattr(self, n) for n in ("stride", "padding", "dilation", "groups")}

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
        padding_mode: str = "zeros",
        device: Any = None,
    ) -> None:
        sizes, more = (in_channels, out_channels, kernel_size), (groups, bias, padding_mode)
        super().__init__(*sizes, stride, padding, dilation, *more, device=device)
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
