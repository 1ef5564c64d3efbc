"""Tensor's activations and the other elementwise functions that are composed of simpler ones.
Formulas are with the ops of the same name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from minigrad import ops
from minigrad.tensor.frame import Frame

if TYPE_CHECKING:
    from typing_extensions import Self


class Activation(Frame):
    """Elementwise, gradients as in PyTorch."""

    __slots__ = ()

    def softplus(self, beta: float = 1.0) -> Self:
        """log(1 + exp(beta x)) / beta."""
        return ops.softplus(self, beta)

    def logsigmoid(self) -> Self:
        """log(sigmoid(x))."""
        return ops.logsigmoid(self)

    def softsign(self) -> Self:
        """x / (1 + |x|)."""
        result: Self = ops.softsign(self)
        return result

    def silu(self) -> Self:
        """x sigmoid(x)."""
        return ops.silu(self)

    swish = silu

    def quick_gelu(self) -> Self:
        """x sigmoid(1.702 x)."""
        return ops.quick_gelu(self)

    def mish(self) -> Self:
        """x tanh(softplus(x))."""
        return ops.mish(self)

    def gelu(self, approximate: Literal["none", "tanh"] = "none") -> Self:
        """x Phi(x): "none" by the error function, "tanh" by GPT-2's formula."""
        result: Self = ops.gelu(self, approximate)
        return result

    def relu6(self) -> Self:
        """min(relu(x), 6)."""
        result: Self = ops.relu6(self)
        return result

    def leaky_relu(self, negative_slope: float = 0.01) -> Self:
        """x where x > 0, else negative_slope x."""
        result: Self = ops.leaky_relu(self, negative_slope)
        return result

    def elu(self, alpha: float = 1.0) -> Self:
        """x where x > 0, else alpha (exp(x) - 1)."""
        result: Self = ops.elu(self, alpha)
        return result

    def selu(self) -> Self:
        """elu, scaled so that activations keep mean 0 and variance 1."""
        result: Self = ops.selu(self)
        return result

    def celu(self, alpha: float = 1.0) -> Self:
        """x where x > 0, else alpha (exp(x / alpha) - 1)."""
        result: Self = ops.celu(self, alpha)
        return result

    def hardtanh(self, min_val: float = -1.0, max_val: float = 1.0) -> Self:
        """x between min_val and max_val, these beyond them; gradient 0 at the bounds."""
        result: Self = ops.hardtanh(self, min_val, max_val)
        return result

    def hardsigmoid(self) -> Self:
        """relu6(x + 3) / 6."""
        result: Self = ops.hardsigmoid(self)
        return result

    def hardswish(self) -> Self:
        """x relu6(x + 3) / 6."""
        result: Self = ops.hardswish(self)
        return result

    def erf(self) -> Self:
        """The error function."""
        return ops.erf(self)

    def erfc(self) -> Self:
        """1 - erf(x), with its digits kept where erf nears 1."""
        return ops.erfc(self)

    def logaddexp(self, other: Any) -> Self:
        """log(exp(self) + exp(other)), without overflow."""
        return ops.logaddexp(self, other)

    def lerp(self, end: Any, weight: Any) -> Self:
        """self + weight (end - self)."""
        result: Self = ops.lerp(self, end, weight)
        return result

    def floor_divide(self, other: Any) -> Self:
        """floor(self / other)."""
        return ops.floor_div(self, other)

    def bitwise_and(self, other: Any) -> Self:
        """self & other, for integers and bools."""
        return ops.bitwise_and(self, other)

    def bitwise_or(self, other: Any) -> Self:
        """self | other, for integers and bools."""
        return ops.bitwise_or(self, other)

    def bitwise_xor(self, other: Any) -> Self:
        """self ^ other, for integers and bools."""
        return ops.bitwise_xor(self, other)

    def bitwise_not(self) -> Self:
        """~self, for integers and bools."""
        return ops.bitwise_not(self)
