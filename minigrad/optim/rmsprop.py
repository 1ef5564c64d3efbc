"""RMSprop."""

from __future__ import annotations

import numpy as np

from minigrad.dtypes import Array
from minigrad.optim.bundle import Bundle
from minigrad.optim.groups import ParamGroup
from minigrad.optim.optimizer import Optimizer, Params
from minigrad.optim.update import PIECE, pieces, plus
from minigrad.primitive import primitive
from minigrad.tensor import Tensor


@primitive(kind="effect")
def rmsprop_(
    step: Array, v: Array, m: Array, mean: Array, *others: Array, changes: int, centered: bool
) -> Array:
    """One step of RMSprop: see `RMSprop`. Settings: [lr, alpha, eps, weight_decay, momentum].

    mean: of size 0 unless centered.
    """
    n = changes - 4
    lr, alpha, eps, decay, momentum = others[n].tolist()
    step += 1
    work, other = np.empty((2, PIECE), v.dtype)
    for start, p, g in pieces(others[:n], others[n + 1 :], v.dtype):
        here = slice(start, start + p.size)
        vi, a, b = v[here], work[: p.size], other[: p.size]
        if decay:
            g = plus(g, decay, p, np.empty_like(a))
        np.multiply(g, g, out=a)
        a *= 1 - alpha
        vi *= alpha
        vi += a
        if centered:
            average = mean[here]
            average += np.multiply(np.subtract(g, average, out=a), 1 - alpha, out=a)
            # Rounding may leave less than 0 of a variance near 0.
            vi = np.maximum(np.subtract(vi, np.multiply(average, average, out=a), out=a), 0, out=a)
        np.sqrt(vi, out=b)
        b += eps
        np.divide(g, b, out=a)
        if momentum:
            mi = m[here]
            mi *= momentum
            mi += a
            np.multiply(mi, lr, out=a)
        else:
            a *= lr
        p -= a
    return step


class RMSprop(Optimizer):
    """RMSprop: the gradient divided by the root of its running mean square.

    g <- g + weight_decay p;   v <- alpha v + (1 - alpha) g^2
    u = g / (sqrt(v) + eps);   with momentum m <- momentum m + u, and m in place of u
    p <- p - lr u

    centered: with mean <- alpha mean + (1 - alpha) g, use v - mean^2 in place of v.
    From Tieleman and Hinton 2012, lecture 6e of "Neural networks for machine learning"; centered
    from Graves 2013, arXiv:1308.0850; names and numbers are PyTorch's.
    """

    _settings = ("lr", "alpha", "eps", "weight_decay", "momentum")
    _moments = ("square_avg", "momentum_buffer", "grad_avg")
    _fixed = ("centered",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
        )

    def _moment_shapes(self, group: ParamGroup, p: Tensor) -> list[tuple[int, ...] | None]:
        return [p.shape, p.shape, p.shape if group["centered"] else None]

    def _update(self, bundle: Bundle, group: ParamGroup, gradients: list[Tensor]) -> None:
        self._call(rmsprop_, bundle, group, gradients, centered=group["centered"])
