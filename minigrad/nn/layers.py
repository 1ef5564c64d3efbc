"""The plain layers: Linear, Embedding, LayerNorm, RMSNorm, Dropout. Parameter names, shapes and
first values are PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from minigrad import functional as F
from minigrad.arguments import as_float, as_int, as_sizes
from minigrad.nn import init
from minigrad.nn.module import Layer, Parameter, layers_of
from minigrad.nn.quantised import QuantisedWeight, linear
from minigrad.tensor import Tensor


class Linear(Layer):
    """y = x @ weight.T + bias

    x: (..., in_features)   weight: (out_features, in_features)   bias: (out_features,)   ->   (...,
        out_features). A QuantisedWeight may take the place of the weight.
    First values: uniform in +-1 / sqrt(in_features).
    """

    _always = ("bias",)

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
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
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None
    ) -> None:
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim = as_sizes(
            "Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim
        )
        self.weight = init.normal_(empty(num_embeddings, embedding_dim))
        self.padding_idx = padding_idx
        if padding_idx is not None:
            self.padding_idx = as_int("Embedding", "padding_idx", padding_idx, -num_embeddings)
            self.padding_idx %= num_embeddings
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
    ) -> None:
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
    ) -> None:
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


__all__ = layers_of(globals())
