"""Tensor's methods for neural networks: products, normalisation, losses, convolution.
`minigrad.functional` has them by PyTorch's names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from minigrad import ops
from minigrad.errors import ConfigError
from minigrad.ops.composite import composite
from minigrad.ops.loss import Reduce, cross_entropy
from minigrad.ops.reduce import axes
from minigrad.random import Generator, default_generator
from minigrad.tensor.attention import scaled_dot_product_attention
from minigrad.tensor.frame import Frame

if TYPE_CHECKING:
    from typing_extensions import Self

Sizes = int | Sequence[int]


class Neural(Frame):
    """Names as in tinygrad, numbers as in PyTorch."""

    __slots__ = ()

    # --- products

    def matmul(self, other: Any) -> Self:
        """self @ other."""
        return ops.matmul(self, other)

    def dot(self, other: Any) -> Self:
        """self @ other; of two vectors, their inner product."""
        return ops.matmul(self, other)

    @composite
    def linear(self, weight: Any, bias: Any = None) -> Self:
        """self @ weight.T + bias: (..., K), (N, K), (N,) -> (..., N)."""
        return ops.linear(self, weight) if bias is None else ops.linear(self, weight, bias)

    @staticmethod
    def einsum(formula: str, *operands: Any) -> Any:
        """The sum of products over the letters that the result lacks: Tensor.einsum("bij,bjk->bik",
        a, b).
        """
        return ops.einsum(
            formula,
            *(
                operands[0]
                if len(operands) == 1 and isinstance(operands[0], (list, tuple))
                else operands
            ),
        )

    def sequential(self, functions: Sequence[Callable[[Any], Any]]) -> Any:
        """The last of the functions of ... of the first of self."""
        x: Any = self
        for function in functions:
            x = function(x)
        return x

    scaled_dot_product_attention = scaled_dot_product_attention

    # --- normalisation and dropout

    @composite(widen=True)
    def layernorm(self, axis: int | tuple[int, ...] = -1, eps: float = 1e-5) -> Self:
        """(x - mean) / sqrt(var + eps) over `axis`."""
        if axes(axis, self.ndim, "layernorm") == (self.ndim - 1,):
            outputs: Any = ops.layer_norm(self, None, None, eps=eps)
            return outputs[0]
        centred = ops.sub(self, ops.mean(self, axis=axis, keepdim=True))
        return ops.mul(
            centred, ops.rsqrt(ops.mean(ops.square(centred), axis=axis, keepdim=True) + eps)
        )

    @composite(widen=True)
    def rms_norm(self, axis: int | tuple[int, ...] = -1, eps: float = 1e-6) -> Self:
        """x / sqrt(mean(x^2) + eps) over `axis`."""
        return ops.mul(self, ops.rsqrt(ops.mean(ops.square(self), axis=axis, keepdim=True) + eps))

    @composite
    def batchnorm(self, weight: Any, bias: Any, mean: Any, invstd: Any, axis: int = 1) -> Self:
        """(x - mean) invstd weight + bias, each one number per index of `axis`; weight and bias may
        be None.
        """
        result: Self = ops.batchnorm(self, weight, bias, mean, invstd, axis=axis)
        return result

    @composite
    def dropout(
        self, p: float = 0.5, training: bool = True, generator: Generator = default_generator
    ) -> Self:
        """In training, each element 0 with probability p, else scaled by 1 / (1 - p); self
        otherwise. From Srivastava et al. 2014.
        """
        if not 0 <= p <= 1:
            raise ConfigError("dropout", f"p={p} is no probability", got=p, wanted=(0, 1))
        if not training or p == 0:
            return self
        outputs: Any = ops.dropout(self, generator.state, p=p)
        return outputs[0]

    # --- losses

    @composite
    def mse(self, target: Any, reduction: Reduce = "mean") -> Self:
        """Return (self - target)^2, averaged."""
        result: Self = ops.mse_loss(self, self._as_tensor(target), reduction=reduction)
        return result

    def binary_crossentropy(
        self, target: Any, reduction: Reduce = "mean", *, weight: Any = None
    ) -> Self:
        """Return -target log p - (1 - target) log(1 - p), averaged, for probabilities p."""
        result: Self = ops.binary_cross_entropy(
            self, self._as_tensor(target), self._as_factor(weight), reduction=reduction
        )
        return result

    @composite
    def binary_crossentropy_logits(
        self,
        target: Any,
        reduction: Reduce = "mean",
        *,
        weight: Any = None,
        pos_weight: Any = None,
    ) -> Self:
        """Return the binary_crossentropy of sigmoid(self), without overflow."""
        result: Self = ops.binary_cross_entropy_with_logits(
            self,
            self._as_tensor(target),
            self._as_factor(weight),
            reduction=reduction,
            pos_weight=self._as_factor(pos_weight),
        )
        return result

    def _as_factor(self, x: Any) -> Any:
        return x if x is None or isinstance(x, (int, float)) else self._as_tensor(x)

    @composite
    def nll_loss(
        self,
        target: Any,
        ignore_index: int = -100,
        reduction: Reduce = "mean",
        *,
        weight: Any = None,
        axis: int | None = None,
    ) -> Self:
        """Return -self[target] for log-probabilities and targets, averaged over the targets that
        are not ignore_index. Shapes are those of cross_entropy.
        """
        result: Self = ops.nll_loss(
            self,
            self._as_tensor(target),
            self._as_factor(weight),
            axis=axis,
            ignore_index=ignore_index,
            reduction=reduction,
        )
        return result

    @composite
    def cross_entropy(
        self,
        target: Any,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: Reduce = "mean",
        *,
        weight: Any = None,
        axis: int | None = None,
    ) -> Self:
        """Return -log softmax(self)[target], averaged over the targets that are not ignore_index.

        self: logits (..., V) or (N, V, ...), which the target's shape decides; axis= names the axis
            of the classes where both would fit.
        target: class numbers, of the shape of self without that axis; or probabilities, of the
            shape of self.   weight: (V,), a factor of each class.
        """
        result: Self = cross_entropy(
            self,
            self._as_tensor(target),
            self._as_factor(weight),
            axis=axis,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            reduction=reduction,
        )
        return result

    def sparse_categorical_crossentropy(
        self,
        target: Any,
        ignore_index: int = -1,
        label_smoothing: float = 0.0,
        reduction: Reduce = "mean",
    ) -> Self:
        """Return cross_entropy by its other name, where ignore_index is -1."""
        return self.cross_entropy(target, ignore_index, label_smoothing, reduction)

    # --- convolution and pooling

    conv1d, conv2d = ops.conv1d, ops.conv2d
    max_pool2d, avg_pool2d = ops.max_pool2d, ops.avg_pool2d
