"""Optimizers that treat every number alone: SGD, RMSprop, Adam, AdamW and Lion."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, InitVar
from functools import partial
from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import ConfigError
from minigrad.optim.optimizer import Flag, Fraction, Fractions, Optimizer, Rate
from minigrad.optim.update import begin, pieces, plus
from minigrad.primitive import primitive


@primitive(kind="effect")
def sgd_(step: Array, *operands: Array, changes: int, nesterov: bool) -> Array:
    """A step of gradient descent: see `SGD`."""
    t, (lr, momentum, dampening, decay), *arrays = begin(step, operands, changes)
    share = 1.0 if t == 1 else 1 - dampening
    for p, g, m, a, b in pieces(*arrays):
        if decay:
            g = plus(g, decay, p, b)
        if momentum:
            m *= momentum
            m += g if share == 1 else np.multiply(g, share, out=a)
            g = plus(g, momentum, m, a) if nesterov else m
        p -= np.multiply(g, lr, out=a)
    return step


sgd_.proportional = True


class SGD(Optimizer, update=sgd_, moments=("momentum_buffer",)):
    """Gradient descent, with momentum if asked for.

    g <- g + weight_decay p;   m <- momentum m + (1 - dampening) g  (g at the first step)
    p <- p - lr m,   with nesterov p - lr (g + momentum m),   without momentum p - lr g

    Raises ConfigError for nesterov without momentum or with dampening. From Sutskever et al. 2013,
    in PyTorch's form.
    """

    lr: Rate = 1e-3
    momentum: Rate = 0.0
    dampening: Rate = 0.0
    weight_decay: Rate = 0.0
    nesterov: Flag = False

    def _check_group(self, group: dict[str, object]) -> None:
        if group["nesterov"] and (not group["momentum"] or group["dampening"]):
            problem = "nesterov needs momentum > 0 and dampening = 0"
            raise ConfigError("SGD", problem, got=group["momentum"], wanted="> 0")


@primitive(kind="effect")
def rmsprop_(step: Array, *operands: Array, changes: int) -> Array:
    """One step of RMSprop: see `RMSprop`. A third moment is the mean of a centered one."""
    _, (lr, alpha, eps, decay, momentum), *arrays = begin(step, operands, changes)
    for p, g, v, m, *means, a, b in pieces(*arrays):
        if decay:
            g = plus(g, decay, p, np.empty_like(a))
        np.multiply(g, g, out=a)
        a *= 1 - alpha
        v *= alpha
        v += a
        for mean in means:
            mean += np.multiply(np.subtract(g, mean, out=a), 1 - alpha, out=a)
            # Rounding may leave less than 0 of a variance near 0.
            v = np.maximum(np.subtract(v, np.multiply(mean, mean, out=a), out=a), 0, out=a)
        np.sqrt(v, out=b)
        b += eps
        np.divide(g, b, out=a)
        if momentum:
            m *= momentum
            m += a
            np.multiply(m, lr, out=a)
        else:
            a *= lr
        p -= a
    return step


class RMSprop(
    Optimizer,
    update=rmsprop_,
    moments=("square_avg", "momentum_buffer"),
    extra={"centered": "grad_avg"},
):
    """RMSprop: the gradient divided by the root of its running mean square.

    g <- g + weight_decay p;   v <- alpha v + (1 - alpha) g^2
    u = g / (sqrt(v) + eps);   with momentum m <- momentum m + u, and m in place of u
    p <- p - lr u

    centered: with mean <- alpha mean + (1 - alpha) g, use v - mean^2 in place of v.
    From Tieleman and Hinton 2012, lecture 6e of "Neural networks for machine learning"; centered
    from Graves 2013, arXiv:1308.0850; names and numbers are PyTorch's.
    """

    lr: Rate = 1e-2
    alpha: Fraction = 0.99
    eps: Rate = 1e-8
    weight_decay: Rate = 0.0
    momentum: Rate = 0.0
    centered: Flag = False


@primitive(kind="effect")
def adam_(step: Array, *operands: Array, changes: int, decoupled: bool) -> Array:
    """One step of Adam: see `Adam`. A third moment is the largest v so far, for amsgrad.

    decoupled: AdamW's decay in place of Adam's.
    """
    t, (lr, b1, b2, eps, decay), *arrays = begin(step, operands, changes)
    # The corrections of both moments are moved to two scalars:
    # m' / (sqrt(v') + eps) = root / (1 - b1^t) * m / (sqrt(v) + eps root).
    root = math.sqrt(1 - b2**t)
    rate, eps = lr * root / (1 - b1**t), eps * root
    for p, g, m, v, *tops, a, b in pieces(*arrays):
        if decay and decoupled:
            p *= 1 - lr * decay
        elif decay:
            g = plus(g, decay, p, b)
        np.subtract(g, m, out=a)
        a *= 1 - b1
        m += a
        np.multiply(g, g, out=a)
        a *= 1 - b2
        v *= b2
        v += a
        for top in tops:
            v = np.maximum(top, v, out=top)
        np.sqrt(v, out=a)
        a += eps
        np.divide(m, a, out=a)
        a *= rate
        p -= a
    return step


class Adam(
    Optimizer,
    update=partial(adam_, decoupled=False),
    moments=("exp_avg", "exp_avg_sq"),
    extra={"amsgrad": "max_exp_avg_sq"},
):
    """Adam: steps of about lr, from the gradient's running mean and mean square, corrected for
    starting at 0.

    g <- g + weight_decay p;   m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) g^2
    p <- p - lr m' / (sqrt(v') + eps)   with m' = m / (1 - b1^t), v' = v / (1 - b2^t)

    amsgrad: use the largest v so far in place of v.   b1, b2: in place of betas.
    From Kingma and Ba 2015, arXiv:1412.6980; amsgrad from Reddi et al. 2018, arXiv:1904.09237.
    """

    lr: Rate = 1e-3
    betas: Fractions = (0.9, 0.999)
    eps: Rate = 1e-8
    weight_decay: Rate = 0.0
    amsgrad: Flag = False
    _: KW_ONLY
    b1: InitVar[float | None] = None
    b2: InitVar[float | None] = None

    def _take(self, arguments: dict[str, Any]) -> None:
        b1, b2 = arguments.pop("b1"), arguments.pop("b2")
        if b1 is not None or b2 is not None:
            betas = arguments["betas"]
            arguments["betas"] = betas[0] if b1 is None else b1, betas[1] if b2 is None else b2
        super()._take(arguments)


class AdamW(Adam, update=partial(adam_, decoupled=True)):
    """Adam with weight decay apart from the gradient: p <- p (1 - lr weight_decay) first, then
    Adam's step without decay.

    From Loshchilov and Hutter 2019, arXiv:1711.05101.
    """

    weight_decay: Rate = 1e-2


@primitive(kind="effect")
def lion_(step: Array, *operands: Array, changes: int) -> Array:
    """One step of Lion: see `Lion`."""
    _, (lr, b1, b2, decay), *arrays = begin(step, operands, changes)
    for p, g, m, a, b in pieces(*arrays):
        np.multiply(m, b1, out=a)
        a += np.multiply(g, 1 - b1, out=b)
        np.sign(a, out=a)
        a *= lr
        if decay:
            p *= 1 - lr * decay
        p -= a
        m *= b2
        m += np.multiply(g, 1 - b2, out=b)
    return step


class Lion(Optimizer, update=lion_, moments=("exp_avg",)):
    """Lion: every number moves by exactly lr, in the direction of a blend of momentum and gradient.
    One moment, half of Adam's memory.

    p <- p (1 - lr weight_decay) - lr sign(b1 m + (1 - b1) g);   m <- b2 m + (1 - b2) g

    A step is as long as lr whatever the gradients, so lr should be 3 to 10 times smaller than
    AdamW's, and weight_decay as many times larger. From Chen et al. 2023, arXiv:2302.06675.
    """

    lr: Rate = 1e-4
    betas: Fractions = (0.9, 0.99)
    weight_decay: Rate = 0.0
