"""The plain layers: Linear, Embedding, LayerNorm, RMSNorm, Dropout. Parameter names, shapes and
first values are PyTorch's.
"""

from __future__ import annotations

import math

import numpy as np

from minigrad import functional as F
from minigrad.errors import ConfigError
from minigrad.nn import init
from minigrad.nn.module import Module, Parameter
from minigrad.tensor import Tensor


def check_size(call: str, **sizes: int) -> None:
    """Raise ConfigError unless every size is an integer >= 1."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ConfigError(
                call, f"{name}={size!r} is no size", got=size, wanted="an integer >= 1"
            )


class Linear(Module):
    """y = x @ weight.T + bias

    x: (..., in_features)   weight: (out_features, in_features)   bias: (out_features,)   ->   (...,
        out_features)
    First values: uniform in +-1 / sqrt(in_features).
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        check_size("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        bound = 1 / math.sqrt(in_features)
        self.weight = init.uniform_(empty(out_features, in_features), -bound, bound)
        self.bias = init.uniform_(empty(out_features), -bound, bound) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """x @ weight.T + bias."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class Embedding(Module):
    """Rows of a table by their number: index (...) of integers -> (..., embedding_dim).

    weight: (num_embeddings, embedding_dim), first normal with standard deviation 1. Raises
        IndexRangeError for an index outside 0..num_embeddings-1.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        check_size("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.weight = init.normal_(empty(num_embeddings, embedding_dim))

    def forward(self, index: Tensor) -> Tensor:
        """The rows that `index` names."""
        return F.embedding(index, self.weight)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"


class LayerNorm(Module):
    """y = (x - mean) / sqrt(var + eps) * weight + bias over the last axes, whose sizes are
    normalized_shape.

    From Ba et al. 2016, arXiv:1607.06450.
    """

    def __init__(
        self, normalized_shape: int | tuple[int, ...], eps: float = 1e-5, bias: bool = True
    ) -> None:
        self.normalized_shape = _sizes("LayerNorm", normalized_shape)
        self.eps = _checked_eps("LayerNorm", eps)
        self.weight = init.ones_(empty(*self.normalized_shape))
        self.bias = init.zeros_(empty(*self.normalized_shape)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """x normalised, scaled and shifted."""
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{_spelled(self.normalized_shape)}, eps={self.eps}, bias={self.bias is not None}"


class RMSNorm(Module):
    """y = x / sqrt(mean(x^2) + eps) * weight over the last axes, whose sizes are normalized_shape.

    From Zhang and Sennrich 2019, arXiv:1910.07467.
    """

    def __init__(self, normalized_shape: int | tuple[int, ...], eps: float = 1e-6) -> None:
        self.normalized_shape = _sizes("RMSNorm", normalized_shape)
        self.eps = _checked_eps("RMSNorm", eps)
        self.weight = init.ones_(empty(*self.normalized_shape))

    def forward(self, x: Tensor) -> Tensor:
        """x normalised and scaled."""
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{_spelled(self.normalized_shape)}, eps={self.eps}"


class Dropout(Module):
    """While training, each element is 0 with probability p and is else divided by 1 - p; in eval
    mode, x itself.

    From Srivastava et al. 2014.
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ConfigError("Dropout", f"p={p} is no probability", got=p, wanted="0 <= p <= 1")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x with a share of it dropped, if training."""
        return F.dropout(x, self.p) if self.training and self.p else x

    def extra_repr(self) -> str:
        return f"{self.p}"


def empty(*shape: int) -> Parameter:
    """A float32 parameter of this shape, to be filled by `init`."""
    return Parameter(np.zeros(shape, np.float32))


def _sizes(call: str, shape: int | tuple[int, ...]) -> tuple[int, ...]:
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    for size in sizes:
        check_size(call, normalized_shape=size)
    return sizes


def _checked_eps(call: str, eps: float) -> float:
    if (
        not isinstance(eps, int | float | np.integer | np.floating)
        or isinstance(eps, bool)
        or not 0 <= eps < math.inf
    ):
        raise ConfigError(call, f"eps={eps!r}", got=eps, wanted="a finite number >= 0")
    return float(eps)


def _spelled(shape: tuple[int, ...]) -> str:
    return str(shape[0]) if len(shape) == 1 else str(shape)
