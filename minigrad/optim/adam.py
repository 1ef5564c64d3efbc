"""Adam and AdamW."""

from __future__ import annotations

import math

import numpy as np

from minigrad.dtypes import Array
from minigrad.optim.bundle import Bundle
from minigrad.optim.groups import ParamGroup
from minigrad.optim.optimizer import Optimizer, Params
from minigrad.optim.update import PIECE, pieces, plus
from minigrad.primitive import primitive
from minigrad.tensor import Tensor


@primitive(kind="effect")
def adam_(step: Array, m: Array, v: Array, *others: Array, changes: int, decoupled: bool) -> Array:
    """One step of Adam: see `Adam`. Settings: [lr, b1, b2, eps, weight_decay].

    decoupled: AdamW's decay in place of Adam's.
    """
    n = changes - 3
    return _adam(step, m, v, None, others[:n], others[n], others[n + 1 :], decoupled)


@primitive(kind="effect")
def amsgrad_(
    step: Array, m: Array, v: Array, top: Array, *others: Array, changes: int, decoupled: bool
) -> Array:
    """One step of Adam with amsgrad=True, as `adam_`. top: the largest v so far."""
    n = changes - 4
    return _adam(step, m, v, top, others[:n], others[n], others[n + 1 :], decoupled)


def _adam(
    step: Array,
    m: Array,
    v: Array,
    top: Array | None,
    params: tuple[Array, ...],
    settings: Array,
    gradients: tuple[Array, ...],
    decoupled: bool,
) -> Array:
    lr, b1, b2, eps, decay = settings.tolist()
    step += 1
    t = int(step)
    # The corrections of both moments are moved to two scalars:
    # m' / (sqrt(v') + eps) = root / (1 - b1^t) * m / (sqrt(v) + eps root).
    root = math.sqrt(1 - b2**t)
    rate, eps = lr * root / (1 - b1**t), eps * root
    work, decayed = np.empty((2, PIECE), m.dtype)
    for start, p, g in pieces(params, gradients, m.dtype):
        here = slice(start, start + p.size)
        mi, vi, a = m[here], v[here], work[: p.size]
        if decay and decoupled:
            p *= 1 - lr * decay
        elif decay:
            g = plus(g, decay, p, decayed[: p.size])
        np.subtract(g, mi, out=a)
        a *= 1 - b1
        mi += a
        np.multiply(g, g, out=a)
        a *= 1 - b2
        vi *= b2
        vi += a
        if top is not None:
            vi = np.maximum(top[here], vi, out=top[here])
        np.sqrt(vi, out=a)
        a += eps
        np.divide(mi, a, out=a)
        a *= rate
        p -= a
    return step


class Adam(Optimizer):
    """Adam: steps of about lr, from the gradient's running mean and mean square, corrected for
    starting at 0.

    g <- g + weight_decay p;   m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) g^2
    p <- p - lr m' / (sqrt(v') + eps)   with m' = m / (1 - b1^t), v' = v / (1 - b2^t)

    amsgrad: use the largest v so far in place of v.   b1, b2: in place of betas.
    From Kingma and Ba 2015, arXiv:1412.6980; amsgrad from Reddi et al. 2018, arXiv:1904.09237.
    """

    _settings = ("lr", "betas", "eps", "weight_decay")
    _moments = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    _fixed = ("amsgrad",)
    _decoupled = False

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        b1: float | None = None,
        b2: float | None = None,
    ) -> None:
        if b1 is not None or b2 is not None:
            betas = (betas[0] if b1 is None else b1, betas[1] if b2 is None else b2)
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad
        )

    def _moment_shapes(self, group: ParamGroup, p: Tensor) -> list[tuple[int, ...] | None]:
        return [p.shape, p.shape, p.shape if group["amsgrad"] else None]

    def _update(self, bundle: Bundle, group: ParamGroup, gradients: list[Tensor]) -> None:
        if group["amsgrad"]:
            self._call(amsgrad_, bundle, group, gradients, decoupled=self._decoupled)
        else:
            self._call(adam_, bundle, group, gradients, moments=2, decoupled=self._decoupled)


class AdamW(Adam):
    """Adam with weight decay apart from the gradient: p <- p (1 - lr weight_decay) first, then
    Adam's step without decay.

    From Loshchilov and Hutter 2019, arXiv:1711.05101.
    """

    _decoupled = True

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        b1: float | None = None,
        b2: float | None = None,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, b1=b1, b2=b2)
