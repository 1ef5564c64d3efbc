"""Lion."""

from __future__ import annotations

from minigrad import ops
from minigrad.optim.optimizer import Bundle, Optimizer, ParamGroup, Params
from minigrad.tensor import Tensor


class Lion(Optimizer):
    """Lion: every number moves by exactly lr, in the direction of a blend of momentum and gradient.
    One moment, half of Adam's memory.

    p <- p (1 - lr weight_decay) - lr sign(b1 m + (1 - b1) g);   m <- b2 m + (1 - b2) g

    lr wants to be 3 to 10 times smaller than AdamW's, weight_decay as many times larger. From Chen
    et al. 2023, arXiv:2302.06675.
    """

    _settings = ("lr", "betas", "weight_decay")
    _moments = ("exp_avg",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, weight_decay=weight_decay)

    def _update(self, bundle: Bundle, group: ParamGroup, gradients: list[Tensor]) -> None:
        ops.lion_(
            bundle.step,
            *bundle.moments,
            *bundle.params,
            group.settings,
            *gradients,
            changes=2 + len(gradients),
        )
