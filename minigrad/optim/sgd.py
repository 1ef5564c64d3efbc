"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from minigrad import ops
from minigrad.errors import ConfigError
from minigrad.optim.optimizer import Bundle, Optimizer, ParamGroup, Params
from minigrad.tensor import Tensor


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

    def add_param_group(self, group: dict[str, Any]) -> None:
        settings = {**self.defaults, **group}
        if settings["nesterov"] and (not settings["momentum"] or settings["dampening"]):
            raise ConfigError(
                "SGD",
                "nesterov wants momentum > 0 and dampening = 0",
                got=settings["momentum"],
                wanted="> 0",
            )
        super().add_param_group(group)

    def _update(self, bundle: Bundle, group: ParamGroup, gradients: list[Tensor]) -> None:
        ops.sgd_(
            bundle.step,
            *bundle.moments,
            *bundle.params,
            group.settings,
            *gradients,
            changes=2 + len(gradients),
            nesterov=bool(group["nesterov"]),
        )
