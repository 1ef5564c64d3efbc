"""Normalisation per channel: over the batch, over groups of channels, over each instance. The norms
over the last axes, LayerNorm and RMSNorm, are in `layers`.
"""

from __future__ import annotations

import math
from typing import ClassVar

from minigrad import functional as F
from minigrad.arguments import as_float, as_int, as_sizes, require
from minigrad.modes import no_grad
from minigrad.nn import init
from minigrad.nn.layers import empty
from minigrad.nn.module import Layer, layers_of
from minigrad.ops.axis import fits
from minigrad.tensor import Tensor


class _PerChannel(Layer):
    """A norm with weight and bias, (C,), one number per channel; x is (N, C, ...)."""

    _axes: ClassVar[tuple[int, ...]]  # how many axes x may have

    def _prepare(self, channels: int, eps: float, affine: bool) -> None:
        self.eps = as_float(type(self).__name__, "eps", eps, 0, math.inf, below=True)
        self.weight = init.ones_(empty(channels)) if affine else None
        self.bias = init.zeros_(empty(channels)) if affine else None

    def _check(self, x: Tensor, channels: int) -> None:
        axes = " or ".join(map(str, self._axes))
        problem = f"x must have {axes} axes, axis 1 of {channels} channels, got {x.shape}"
        good = x.ndim in self._axes and x.shape[1] == channels
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
    ) -> None:
        call = type(self).__name__
        self.num_features = as_int(call, "num_features", num_features)
        self.momentum = None if momentum is None else as_float(call, "momentum", momentum, 0, 1)
        self._prepare(self.num_features, eps, affine)
        first = {
            "running_mean": Tensor.zeros(num_features),
            "running_var": Tensor.ones(num_features),
        }
        for name, tensor in {**first, "num_batches_tracked": Tensor(0)}.items():
            self.register_buffer(name, tensor if track_running_stats else None)

    def forward(self, x: Tensor) -> Tensor:
        """x normalised, scaled and shifted."""
        self._check(x, self.num_features)
        mean, var = self.running_mean, self.running_var
        momentum: float | Tensor = 0.0 if self.momentum is None else self.momentum
        if self.training and mean is not None:
            with no_grad():
                self.num_batches_tracked.assign(self.num_batches_tracked + 1)
                if self.momentum is None:  # the average over all batches so far
                    momentum = self.num_batches_tracked.cast(mean.dtype).reciprocal()
        batch = self.training or mean is None
        return F.batch_norm(x, mean, var, self.weight, self.bias, batch, momentum, self.eps)


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
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True
    ) -> None:
        self.num_groups, self.num_channels = as_sizes(
            "GroupNorm", num_groups=num_groups, num_channels=num_channels
        )
        divides = self.num_channels % self.num_groups == 0
        wanted = f"a divisor of num_channels={num_channels}"
        require(divides, "GroupNorm", "num_groups", num_groups, wanted)
        self._prepare(self.num_channels, eps, affine)

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
    ) -> None:
        call = type(self).__name__
        tracks, wanted = track_running_stats, "False: an instance has its own statistics"
        require(not tracks, call, "track_running_stats", tracks, wanted)
        self.num_features = as_int(call, "num_features", num_features)
        self._prepare(self.num_features, eps, affine)

    def forward(self, x: Tensor) -> Tensor:
        """x normalised, scaled and shifted."""
        self._check(x, self.num_features)
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


class InstanceNorm1d(_InstanceNorm):
    """GroupNorm with one channel per group, without weight and bias unless affine: x (N, C, L).

    From Ulyanov et al. 2016, arXiv:1607.08022.
    """

    _axes = (3,)


class InstanceNorm2d(_InstanceNorm):
    """The same for x: (N, C, H, W)."""

    _axes = (4,)


__all__ = layers_of(globals())
