"""Optimizers that treat every number alone: SGD, RMSprop, Adam, AdamW and Lion."""

from __future__ import annotations

import math

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import ConfigError
from minigrad.optim.groups import Bundle, ParamGroup
from minigrad.optim.optimizer import Flag, Fraction, Fractions, Optimizer, Params, Rate, given
from minigrad.optim.update import PIECE, pieces, plus
from minigrad.primitive import primitive
from minigrad.tensor import Tensor

Arrays = tuple[Array, ...]


@primitive(kind="effect")
def sgd_(step: Array, m: Array, *others: Array, changes: int, nesterov: bool) -> Array:
    """A step of gradient descent: see `SGD`. Settings: [lr, momentum, dampening, weight_decay]."""
    n = changes - 2
    lr, momentum, dampening, decay = others[n].tolist()
    step += 1
    share = 1.0 if step == 1 else 1 - dampening
    work, decayed = np.empty((2, PIECE), m.dtype)
    for start, p, g in pieces(others[:n], others[n + 1 :], m.dtype):
        a = work[: p.size]
        if decay:
            g = plus(g, decay, p, decayed[: p.size])
        if momentum:
            mi = m[start : start + p.size]
            mi *= momentum
            mi += g if share == 1 else np.multiply(g, share, out=a)
            g = plus(g, momentum, mi, a) if nesterov else mi
        p -= np.multiply(g, lr, out=a)
    return step


sgd_.proportional = True


class SGD(Optimizer):
    """Gradient descent, with momentum if asked for.

    g <- g + weight_decay p;   m <- momentum m + (1 - dampening) g  (g at the first step)
    p <- p - lr m,   with nesterov p - lr (g + momentum m),   without momentum p - lr g

    Raises ConfigError for nesterov without momentum or with dampening. From Sutskever et al. 2013,
    in PyTorch's form.
    """

    _settings = ("lr", "momentum", "dampening", "weight_decay")
    _moments = ("momentum_buffer",)
    _op = sgd_, ("nesterov",)

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-3,
        momentum: Rate = 0.0,
        dampening: Rate = 0.0,
        weight_decay: Rate = 0.0,
        nesterov: Flag = False,
    ) -> None:
        super().__init__(params, **given(locals()))

    def _check_group(self, group: dict[str, object]) -> None:
        if group["nesterov"] and (not group["momentum"] or group["dampening"]):
            problem = "nesterov needs momentum > 0 and dampening = 0"
            raise ConfigError("SGD", problem, got=group["momentum"], wanted="> 0")


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
    _op = rmsprop_, ("centered",)

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-2,
        alpha: Fraction = 0.99,
        eps: Rate = 1e-8,
        weight_decay: Rate = 0.0,
        momentum: Rate = 0.0,
        centered: Flag = False,
    ) -> None:
        super().__init__(params, **given(locals()))

    def _moment_shapes(self, group: ParamGroup, p: Tensor) -> list[tuple[int, ...] | None]:
        return [p.shape, p.shape, p.shape if group["centered"] else None]


@primitive(kind="effect")
def adam_(step: Array, m: Array, v: Array, *others: Array, changes: int, decoupled: bool) -> Array:
    """One step of Adam: see `Adam`. Settings: [lr, b1, b2, eps, weight_decay].

    decoupled: AdamW's decay in place of Adam's.
    """
    return _adam(step, m, v, None, others, changes - 3, decoupled)


@primitive(kind="effect")
def amsgrad_(
    step: Array, m: Array, v: Array, top: Array, *others: Array, changes: int, decoupled: bool
) -> Array:
    """One step of Adam with amsgrad=True, as `adam_`. top: the largest v so far."""
    return _adam(step, m, v, top, others, changes - 4, decoupled)


def _adam(
    step: Array, m: Array, v: Array, top: Array | None, others: Arrays, n: int, decoupled: bool
) -> Array:
    lr, b1, b2, eps, decay = others[n].tolist()
    step += 1
    t = int(step)
    # The corrections of both moments are moved to two scalars:
    # m' / (sqrt(v') + eps) = root / (1 - b1^t) * m / (sqrt(v) + eps root).
    root = math.sqrt(1 - b2**t)
    rate, eps = lr * root / (1 - b1**t), eps * root
    work, decayed = np.empty((2, PIECE), m.dtype)
    for start, p, g in pieces(others[:n], others[n + 1 :], m.dtype):
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
        lr: Rate = 1e-3,
        betas: Fractions = (0.9, 0.999),
        eps: Rate = 1e-8,
        weight_decay: Rate = 0.0,
        amsgrad: Flag = False,
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
        op, moments = (amsgrad_, 3) if group["amsgrad"] else (adam_, 2)
        self._call(op, bundle, group, gradients, moments, decoupled=self._decoupled)


class AdamW(Adam):
    """Adam with weight decay apart from the gradient: p <- p (1 - lr weight_decay) first, then
    Adam's step without decay.

    From Loshchilov and Hutter 2019, arXiv:1711.05101.
    """

    _decoupled = True

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-3,
        betas: Fractions = (0.9, 0.999),
        eps: Rate = 1e-8,
        weight_decay: Rate = 1e-2,
        amsgrad: Flag = False,
        *,
        b1: float | None = None,
        b2: float | None = None,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, b1=b1, b2=b2)


@primitive(kind="effect")
def lion_(step: Array, m: Array, *others: Array, changes: int) -> Array:
    """One step of Lion: see `Lion`. Settings: [lr, b1, b2, weight_decay]."""
    n = changes - 2
    lr, b1, b2, decay = others[n].tolist()
    step += 1
    work, scaled = np.empty((2, PIECE), m.dtype)
    for start, p, g in pieces(others[:n], others[n + 1 :], m.dtype):
        mi, a, b = m[start : start + p.size], work[: p.size], scaled[: p.size]
        np.multiply(mi, b1, out=a)
        a += np.multiply(g, 1 - b1, out=b)
        np.sign(a, out=a)
        a *= lr
        if decay:
            p *= 1 - lr * decay
        p -= a
        mi *= b2
        mi += np.multiply(g, 1 - b2, out=b)
    return step


class Lion(Optimizer):
    """Lion: every number moves by exactly lr, in the direction of a blend of momentum and gradient.
    One moment, half of Adam's memory.

    p <- p (1 - lr weight_decay) - lr sign(b1 m + (1 - b1) g);   m <- b2 m + (1 - b2) g

    A step is as long as lr whatever the gradients, so lr should be 3 to 10 times smaller than
    AdamW's, and weight_decay as many times larger. From Chen et al. 2023, arXiv:2302.06675.
    """

    _settings = ("lr", "betas", "weight_decay")
    _moments = ("exp_avg",)
    _op = lion_, ()

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-4,
        betas: Fractions = (0.9, 0.99),
        weight_decay: Rate = 0.0,
    ) -> None:
        super().__init__(params, **given(locals()))
