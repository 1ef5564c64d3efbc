"""Muon."""

from __future__ import annotations

from typing import Any

from minigrad import ops
from minigrad.errors import ConfigError, ShapeError
from minigrad.optim.optimizer import Bundle, Optimizer, ParamGroup, Params
from minigrad.tensor import Tensor


class Muon(Optimizer):
    """Muon: momentum whose singular values are all made about 1, for the weight matrices of hidden
    layers.

    m <- momentum m + (1 - momentum) g;   u = newton_schulz(m), with nesterov of momentum m + (1 -
    momentum) g p <- p (1 - lr weight_decay) - lr scale u

    adjust_lr: "original", scale = sqrt(max(1, rows / columns)); or "match_rms_adamw", scale = 0.2
        sqrt(max(rows, columns)), with which AdamW's lr
    and weight_decay go on to fit. ns_steps: iterations of `ops.newton_schulz`. Raises ShapeError
        for a parameter that is no matrix: embeddings, the
    head, norms and biases belong to AdamW in a second optimizer.
    From Jordan et al. 2024, "Muon: an optimizer for hidden layers"; names and numbers are
        PyTorch's.
    """

    _settings = ("lr", "momentum", "weight_decay")
    _moments = ("momentum_buffer",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        adjust_lr: str = "original",
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            weight_decay=weight_decay,
            momentum=momentum,
            nesterov=nesterov,
            ns_steps=ns_steps,
            adjust_lr=adjust_lr,
        )

    def add_param_group(self, group: dict[str, Any]) -> None:
        settings = {**self.defaults, **group}
        if not 0 <= settings["momentum"] < 1:
            raise ConfigError(
                "Muon",
                f"momentum={settings['momentum']}",
                got=settings["momentum"],
                wanted="0 <= momentum < 1",
            )
        if not isinstance(settings["ns_steps"], int) or settings["ns_steps"] < 1:
            raise ConfigError(
                "Muon",
                f"ns_steps={settings['ns_steps']!r}",
                got=settings["ns_steps"],
                wanted="an integer >= 1",
            )
        if settings["adjust_lr"] not in ("original", "match_rms_adamw"):
            raise ConfigError(
                "Muon",
                f"adjust_lr={settings['adjust_lr']!r}",
                got=settings["adjust_lr"],
                wanted=("original", "match_rms_adamw"),
            )
        super().add_param_group(group)

    def _check_params(self, params: list[Any]) -> None:
        super()._check_params(params)
        for i, p in enumerate(params):
            if p.ndim != 2:
                raise ShapeError(
                    "Muon",
                    f"params[{i}] of shape {p.shape} is no matrix",
                    got=p.shape,
                    wanted=("rows", "columns"),
                    hint="give Muon the hidden layers' matrices, and the rest to AdamW",
                )

    def _update(self, bundle: Bundle, group: ParamGroup, gradients: list[Tensor]) -> None:
        ops.muon_(
            bundle.step,
            *bundle.moments,
            *bundle.params,
            group.settings,
            *gradients,
            changes=2 + len(gradients),
            nesterov=bool(group["nesterov"]),
            ns_steps=group["ns_steps"],
            match_rms=group["adjust_lr"] == "match_rms_adamw",
        )
