"""Adam and AdamW."""

from __future__ import annotations

from minigrad import ops
from minigrad.optim.optimizer import Bundle, Optimizer, ParamGroup, Params
from minigrad.tensor import Tensor


class Adam(Optimizer):
    """Adam: steps of about lr, from the gradient's running mean and mean square, corrected for
    starting at 0.

    g <- g + weight_decay p;   m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) g^2
    p <- p - lr m' / (sqrt(v') + eps)   with m' = m / (1 - b1^t), v' = v / (1 - b2^t)

    b1, b2 may be given in place of betas. From Kingma and Ba 2015, arXiv:1412.6980.
    """

    _settings = ("lr", "betas", "eps", "weight_decay")
    _moments = ("exp_avg", "exp_avg_sq")
    _decoupled = False

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        b1: float | None = None,
        b2: float | None = None,
    ) -> None:
        betas = (betas[0] if b1 is None else b1, betas[1] if b2 is None else b2)
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def _update(self, bundle: Bundle, group: ParamGroup, gradients: list[Tensor]) -> None:
        ops.adam_(
            bundle.step,
            *bundle.moments,
            *bundle.params,
            group.settings,
            *gradients,
            changes=3 + len(gradients),
            decoupled=self._decoupled,
        )


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
        *,
        b1: float | None = None,
        b2: float | None = None,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, b1=b1, b2=b2)
