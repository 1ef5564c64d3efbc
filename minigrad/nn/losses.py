"""The losses of `functional` as modules, with PyTorch's names and settings.

loss(x, target): one number, the mean over all elements or targets; with reduction="sum" their sum,
with reduction="none" each. `weight` and `pos_weight` are buffers: they move with `to` and are
saved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, fields
from typing import Any, ClassVar

from minigrad import functional as F
from minigrad.nn.function import FunctionModule
from minigrad.nn.module import layers_of
from minigrad.tensor import Tensor


class _Loss(FunctionModule, kw_only=True):
    """A loss that can be averaged, added up, or left as it is."""

    reduction: str = "mean"


class _Weighted(_Loss):
    """A loss whose classes or elements count differently."""

    weight: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in [f.name for f in fields(self) if f.name in ("weight", "pos_weight")]:
            value = getattr(self, name)
            self.register_buffer(name, value if isinstance(value, Tensor | None) else Tensor(value))


class MSELoss(_Loss):
    """(x - target)^2."""

    function = staticmethod(F.mse_loss)


class L1Loss(_Loss):
    """|x - target|."""

    function = staticmethod(F.l1_loss)


class SmoothL1Loss(_Loss, kw_only=True):
    """d^2 / (2 beta) for d = |x - target| below beta, else d - beta / 2. From Girshick 2015,
    arXiv:1504.08083.
    """

    beta: float = 1.0
    function = staticmethod(F.smooth_l1_loss)


class HuberLoss(_Loss, kw_only=True):
    """d^2 / 2 for d = |x - target| below delta, else delta (d - delta / 2). From Huber 1964."""

    delta: float = 1.0
    function = staticmethod(F.huber_loss)


class KLDivLoss(_Loss, kw_only=True):
    """target (log target - x), for log-probabilities x and probabilities, or with log_target
    log-probabilities, as targets. reduction="batchmean" divides the sum by the size of the batch.
    """

    log_target: bool = False
    function = staticmethod(F.kl_div)


class NLLLoss(_Weighted):
    """-x[target] for log-probabilities x, averaged by the weights of the targets that are not
    ignore_index.

    x: (N, C), (N, C, ...) or (N, ..., C), as the target's shape says; `axis` names the axis of the
        classes where both would fit.   target: (N, ...) class numbers.   weight: (C,).
    """

    axis: int | None = field(default=None, kw_only=True)
    ignore_index: int = field(default=-100, kw_only=True)
    function: ClassVar[Callable[..., Any]] = staticmethod(F.nll_loss)


class CrossEntropyLoss(NLLLoss):
    """NLLLoss of log_softmax(x). The target may also be probabilities, of the shape of x.

    label_smoothing s mixes in the uniform distribution: (1 - s) onehot + s / C.
    """

    label_smoothing: float = field(default=0.0, kw_only=True)
    function = staticmethod(F.cross_entropy)


class BCELoss(_Weighted):
    """-target log p - (1 - target) log(1 - p), times weight, for probabilities p; logarithms no
    lower than -100.
    """

    function = staticmethod(F.binary_cross_entropy)


class BCEWithLogitsLoss(_Weighted):
    """BCELoss of sigmoid(x), without overflow; pos_weight multiplies its first term."""

    pos_weight: Any = field(default=None, kw_only=True)
    function = staticmethod(F.binary_cross_entropy_with_logits)


__all__ = layers_of(globals())
