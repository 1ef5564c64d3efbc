"""Lion."""

from __future__ import annotations

import numpy as np

from minigrad.dtypes import Array
from minigrad.optim.bundle import Bundle
from minigrad.optim.groups import ParamGroup
from minigrad.optim.optimizer import Optimizer, Params
from minigrad.optim.update import PIECE, pieces
from minigrad.primitive import primitive
from minigrad.tensor import Tensor


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

    def __init__(
        self,
        params: Params,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, weight_decay=weight_decay)

    def _update(self, bundle: Bundle, group: ParamGroup, gradients: list[Tensor]) -> None:
        self._call(lion_, bundle, group, gradients)
