"""Adafactor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrad import ops
from minigrad.errors import ConfigError
from minigrad.optim.optimizer import Bundle, Optimizer, ParamGroup, Params
from minigrad.tensor import Tensor


class Adafactor(Optimizer):
    """Adafactor: a matrix's mean squares are kept as one number per row and one per column; steps
    are relative to the size of the parameter.

    b = 1 - t^beta2_decay;   r <- b r + (1 - b) mean(g^2 + eps1) along rows;   c likewise along
    columns;   v = r c^T / mean(r)
    u = g / sqrt(v);   p <- p (1 - lr weight_decay) - max(eps2, rms(p)) min(lr, 1 / sqrt(t)) u /
    max(1, rms(u) / clip)

    eps: (eps1, eps2).   A vector keeps v itself.   From Shazeer and Stern 2018, arXiv:1804.04235,
        without momentum; the paper's numbers.
    """

    _settings = ("lr", "beta2_decay", "eps", "clip", "weight_decay")
    _moments = ("row_var", "col_var", "variance")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float, float] = (1e-30, 1e-3),
        clip: float = 1.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params, lr=lr, beta2_decay=beta2_decay, eps=eps, clip=clip, weight_decay=weight_decay
        )

    def add_param_group(self, group: dict[str, Any]) -> None:
        settings = {**self.defaults, **group}
        if not settings["beta2_decay"] <= 0:
            raise ConfigError(
                "Adafactor",
                f"beta2_decay={settings['beta2_decay']}",
                got=settings["beta2_decay"],
                wanted="<= 0",
                hint="-0.8",
            )
        if not settings["clip"] > 0:
            raise ConfigError(
                "Adafactor",
                f"clip={settings['clip']}",
                got=settings["clip"],
                wanted="> 0",
                hint="1.0",
            )
        super().add_param_group(group)

    def _moment_shapes(self, p: Tensor) -> Sequence[tuple[int, ...] | None]:
        if p.ndim < 2:
            return None, None, p.shape
        return (*p.shape[:-1], 1), (*p.shape[:-2], 1, p.shape[-1]), None

    def _update(self, bundle: Bundle, group: ParamGroup, gradients: list[Tensor]) -> None:
        ops.adafactor_(
            bundle.step,
            *bundle.moments,
            *bundle.params,
            group.settings,
            *gradients,
            changes=4 + len(gradients),
        )
