"""Activations as modules."""

from __future__ import annotations

from typing import Any, Literal

from minigrad import functional as F
from minigrad.nn.function import FunctionModule
from minigrad.nn.module import Module, layers_of
from minigrad.tensor import Tensor


class Identity(Module):
    """x itself. Takes any arguments, and ignores them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """x."""
        return x


class Flatten(FunctionModule):
    """The axes from start_dim to end_dim as one: (N, C, H, W) -> (N, C H W)."""

    start_dim: int = 1
    end_dim: int = -1
    function = staticmethod(Tensor.flatten)


class _Plain(FunctionModule):
    """An activation that has no setting of its own."""

    inplace: bool = False


class ReLU(_Plain):
    """max(x, 0), elementwise."""

    function = staticmethod(F.relu)


class SiLU(_Plain):
    """x sigmoid(x), elementwise. From Elfwing et al. 2017, arXiv:1702.03118."""

    function = staticmethod(F.silu)


class Tanh(FunctionModule):
    """tanh(x), elementwise."""

    function = staticmethod(F.tanh)


class Sigmoid(FunctionModule):
    """1 / (1 + exp(-x)), elementwise."""

    function = staticmethod(F.sigmoid)


class GELU(FunctionModule):
    """x Phi(x), Phi the normal distribution function; "tanh" takes GPT-2's formula for it. From
    Hendrycks and Gimpel 2016, arXiv:1606.08415.
    """

    approximate: Literal["none", "tanh"] = "none"
    function = staticmethod(F.gelu)


class LeakyReLU(FunctionModule):
    """x where x > 0, else negative_slope x."""

    negative_slope: float = 0.01
    inplace: bool = False
    function = staticmethod(F.leaky_relu)


class ELU(FunctionModule):
    """x where x > 0, else alpha (exp(x) - 1). From Clevert et al. 2015, arXiv:1511.07289."""

    alpha: float = 1.0
    inplace: bool = False
    function = staticmethod(F.elu)


class Softplus(FunctionModule):
    """log(1 + exp(beta x)) / beta, elementwise, and x itself where beta x > threshold."""

    beta: float = 1.0
    threshold: float = 20.0
    function = staticmethod(F.softplus)


class Softmax(FunctionModule):
    """exp(x) / sum(exp(x)) along an axis, the last unless given (PyTorch's choice depends on x)."""

    dim: int = -1
    function = staticmethod(F.softmax)


class LogSoftmax(FunctionModule):
    """log(softmax(x)) along an axis, the last unless given."""

    dim: int = -1
    function = staticmethod(F.log_softmax)


__all__ = layers_of(globals())
