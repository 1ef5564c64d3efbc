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
from minigrad.nn.module import Module, Parameter
from minigrad.tensor import Tensor


class Linear(Module):
    """y = x @ weight.T + bias

    x: (..., in_features)   weight: (out_features, in_features)   bias: (out_features,)   ->   (...,
        out_features)
    First values: uniform in +-1 / sqrt(in_features).
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        self.in_features, self.out_features = in_features, out_features = as_sizes(
            "Linear", in_features=in_features, out_features=out_features
        )
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
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim = as_sizes(
            "Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim
        )
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
        self, normalized_shape: int | Sequence[int], eps: float = 1e-5, bias: bool = True
    ) -> None:
        self.normalized_shape = _sizes("LayerNorm", normalized_shape)
        self.eps = as_float("LayerNorm", "eps", eps, 0, math.inf, below=True)
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

    def __init__(self, normalized_shape: int | Sequence[int], eps: float = 1e-6) -> None:
        self.normalized_shape = _sizes("RMSNorm", normalized_shape)
        self.eps = as_float("RMSNorm", "eps", eps, 0, math.inf, below=True)
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
        self.p = as_float("Dropout", "p", p, 0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x with a share of it dropped, if training."""
        return F.dropout(x, self.p) if self.training and self.p else x

    def extra_repr(self) -> str:
        return f"{self.p}"


def empty(*shape: int) -> Parameter:
    """A float32 parameter of this shape, to be filled by `init`."""
    return Parameter(np.zeros(shape, np.float32))


def _sizes(call: str, shape: int | Sequence[int]) -> tuple[int, ...]:
    sizes = shape if isinstance(shape, Iterable) else (shape,)
    return tuple(as_int(call, "normalized_shape", size) for size in sizes)


def _spelled(shape: tuple[int, ...]) -> str:
    return str(shape[0]) if len(shape) == 1 else str(shape)
