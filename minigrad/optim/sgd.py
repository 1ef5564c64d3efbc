"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import ConfigError
from minigrad.optim.bundle import Bundle
from minigrad.optim.groups import ParamGroup
from minigrad.optim.optimizer import Optimizer, Params
from minigrad.optim.update import PIECE, pieces, plus
from minigrad.primitive import primitive
from minigrad.tensor import Tensor


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

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
        )

    def _check_group(self, group: dict[str, Any]) -> None:
        if group["nesterov"] and (not group["momentum"] or group["dampening"]):
            problem = "nesterov needs momentum > 0 and dampening = 0"
            raise ConfigError("SGD", problem, got=group["momentum"], wanted="> 0")

    def _update(self, bundle: Bundle, group: ParamGroup, gradients: list[Tensor]) -> None:
        self._call(sgd_, bundle, group, gradients, nesterov=bool(group["nesterov"]))
