"""Activations, composed of the functions of calculus; relu, sigmoid and tanh are there, the fused
tanh form of gelu is in `fused`.

None is a primitive with a rule of its own; those are in `calculus`. Each is written
so that nothing overflows and nothing cancels; the gradients at the joints are PyTorch's.
"""

from __future__ import annotations

from typing import Any, Literal

from minigrad.arguments import one_of, require
from minigrad.ops.calculus import erfc, expm1, logaddexp, sigmoid, tanh
from minigrad.ops.composite import composite
from minigrad.ops.elementwise import abs, greater, greater_equal, less_equal, mul, where
from minigrad.ops.fused import gelu_tanh
from minigrad.primitive import T

_SQRT_HALF = 0.7071067811865476
# The constants of Klambauer et al. 2017, for which activations keep mean 0 and variance 1.
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


@composite(widen=True)
def softplus(x: T, beta: float = 1.0, threshold: float | None = None) -> T:
    """Return log(1 + exp(beta x)) / beta, without overflow: a smooth relu.

    threshold: x itself where beta x is above it, as in PyTorch, whose default is 20; None for the
    exact formula everywhere. Raises ConfigError for beta = 0.
    """
    require(beta != 0, "softplus", "beta", beta, "a number other than 0")
    scaled = x if beta == 1 else mul(x, beta)
    y = logaddexp(scaled, 0)
    y = y if beta == 1 else mul(y, 1 / beta)
    return y if threshold is None else where(greater(scaled, threshold), x, y)


@composite(widen=True)
def logsigmoid(x: T) -> T:
    """Return log(sigmoid(x)) = -softplus(-x)."""
    return mul(softplus(mul(x, -1)), -1)


@composite(widen=True)
def softsign(x: Any) -> Any:
    """Return x / (1 + |x|)."""
    return x / (1 + abs(x))


@composite(widen=True)
def silu(x: T) -> T:
    """Return x sigmoid(x), also called swish. From Elfwing et al. 2017, arXiv:1702.03118."""
    return mul(x, sigmoid(x))


@composite(widen=True)
def quick_gelu(x: T) -> T:
    """Return x sigmoid(1.702 x), CLIP's approximation of gelu."""
    return mul(x, sigmoid(mul(x, 1.702)))


@composite(widen=True)
def mish(x: T) -> T:
    """Return x tanh(softplus(x)). From Misra 2019, arXiv:1908.08681."""
    return mul(x, tanh(softplus(x)))


@composite(widen=True)
def gelu(x: Any, approximate: Literal["none", "tanh"] = "none") -> Any:
    """Return x Phi(x), Phi the normal distribution function.

    approximate: "none" by erfc, to the last digits of both tails; "tanh" by GPT-2's formula.
    Raises ConfigError for another. From Hendrycks and Gimpel 2016, arXiv:1606.08415.
    """
    one_of("gelu", "approximate", approximate, ("none", "tanh"))
    if approximate == "tanh":
        return gelu_tanh(x)[0]
    return mul(x, erfc(x * -_SQRT_HALF)) * 0.5


@composite(widen=True)
def relu6(x: Any) -> Any:
    """Return min(relu(x), 6). The gradient at 0 and at 6 is 0."""
    return hardtanh(x, 0.0, 6.0)


@composite(widen=True)
def leaky_relu(x: Any, negative_slope: float = 0.01) -> Any:
    """Return x where x > 0, else negative_slope x."""
    return where(greater(x, 0), x, x * negative_slope)


@composite(widen=True)
def elu(x: Any, alpha: float = 1.0) -> Any:
    """Return x where x > 0, else alpha (exp(x) - 1). From Clevert et al. 2015, arXiv:1511.07289."""
    return where(greater(x, 0), x, expm1(x) * alpha)


@composite(widen=True)
def selu(x: Any) -> Any:
    """Return 1.0507 elu(x, 1.67326). From Klambauer et al. 2017, arXiv:1706.02515."""
    return elu(x, _SELU_ALPHA) * _SELU_SCALE


@composite(widen=True)
def celu(x: Any, alpha: float = 1.0) -> Any:
    """Return x where x > 0, else alpha (exp(x / alpha) - 1). From Barron 2017, arXiv:1704.07483."""
    return where(greater(x, 0), x, expm1(x / alpha) * alpha)


@composite(widen=True)
def hardtanh(x: Any, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    """Return x between min_val and max_val, and these beyond. The gradient at the bounds is 0 (that
    of clamp is 1).
    """
    return where(less_equal(x, min_val), min_val, where(greater_equal(x, max_val), max_val, x))


@composite(widen=True)
def hardsigmoid(x: Any) -> Any:
    """Return relu6(x + 3) / 6, a sigmoid of three straight lines."""
    return relu6(x + 3) * (1 / 6)


@composite(widen=True)
def hardswish(x: Any) -> Any:
    """Return x hardsigmoid(x). From Howard et al. 2019, arXiv:1905.02244."""
    return x * hardsigmoid(x)
