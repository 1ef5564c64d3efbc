"""Functions of `functional` as modules: activations, pooling, losses.

A setting of the function is a field of a dataclass, with PyTorch's name, place and default.
`inplace=` is accepted and ignored: an activation never writes over its input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from minigrad import functional as F
from minigrad.arguments import as_float, as_int
from minigrad.nn.module import Layer, Module, layers_of
from minigrad.tensor import Tensor

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:  # in typing from Python 3.11

    def dataclass_transform(**_):
        return lambda cls: cls


Sizes = int | Sequence[int]
_WHOLE = 2**63  # an integer of any sign


@dataclass_transform(eq_default=False, field_specifiers=(field,))
@dataclass(eq=False, repr=False)
class _FunctionModule(Layer):
    """A function as a module. A subclass, a dataclass, names the function; its fields are keyword
    arguments.
    """

    function: ClassVar[Callable[..., Any]]

    def __init_subclass__(cls, function: Any = None, kw_only: bool = False) -> None:
        if function is not None:
            cls.function = staticmethod(function)
        dataclass(eq=False, repr=False, kw_only=kw_only)(cls)

    def __post_init__(self) -> None:
        for f in fields(self):
            value = _checked(type(self).__name__, f.name, f.type, getattr(self, f.name))
            setattr(self, f.name, value)

    def forward(self, *inputs: Any) -> Any:
        """The function of the inputs, with this module's settings."""
        names = (f.name for f in fields(self) if f.name != "inplace")
        return self.function(*inputs, **{name: getattr(self, name) for name in names})


def _checked(call: str, name: str, kind: Any, value: Any) -> Any:
    """A setting in plain Python numbers. Raises ConfigError if it is not of its field's kind."""
    if value is None or not kind.startswith(("float", "int", "Sizes")):
        return value
    if kind != "float" and kind.startswith("float") and isinstance(value, tuple | list):
        return tuple(_checked(call, name, "float", part) for part in value)
    if kind.startswith("float"):
        return as_float(call, name, value, -math.inf, math.inf)
    if kind.startswith("int"):
        return as_int(call, name, value, least=-_WHOLE)
    least = 0 if "padding" in name else 1
    if isinstance(value, Sequence):
        return tuple(None if n is None else as_int(call, name, n, least) for n in value)
    return as_int(call, name, value, least)


# --- activations


class Identity(Module):
    """x itself. Takes any arguments, and ignores them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """x."""
        return x


class Flatten(_FunctionModule, function=Tensor.flatten):
    """The axes from start_dim to end_dim as one: (N, C, H, W) -> (N, C H W)."""

    start_dim: int = 1
    end_dim: int = -1


class _Plain(_FunctionModule):
    """An activation that has no setting of its own."""

    inplace: bool = False


class ReLU(_Plain, function=F.relu):
    """max(x, 0), elementwise."""


class SiLU(_Plain, function=F.silu):
    """x sigmoid(x), elementwise. From Elfwing et al. 2017, arXiv:1702.03118."""


class Tanh(_FunctionModule, function=F.tanh):
    """tanh(x), elementwise."""


class Sigmoid(_FunctionModule, function=F.sigmoid):
    """1 / (1 + exp(-x)), elementwise."""


class GELU(_FunctionModule, function=F.gelu):
    """x Phi(x), Phi the normal distribution function; "tanh" takes GPT-2's formula for it. From
    Hendrycks and Gimpel 2016, arXiv:1606.08415.
    """

    approximate: Literal["none", "tanh"] = "none"


class LeakyReLU(_FunctionModule, function=F.leaky_relu):
    """x where x > 0, else negative_slope x."""

    negative_slope: float = 0.01
    inplace: bool = False


class ELU(_FunctionModule, function=F.elu):
    """x where x > 0, else alpha (exp(x) - 1). From Clevert et al. 2015, arXiv:1511.07289."""

    alpha: float = 1.0
    inplace: bool = False


class Softplus(_FunctionModule, function=F.softplus):
    """log(1 + exp(beta x)) / beta, elementwise, and x itself where beta x > threshold."""

    beta: float = 1.0
    threshold: float = 20.0


class Softmax(_FunctionModule, function=F.softmax):
    """exp(x) / sum(exp(x)) along an axis, the last unless given (PyTorch's choice depends on x)."""

    dim: int = -1


class LogSoftmax(_FunctionModule, function=F.log_softmax):
    """log(softmax(x)) along an axis, the last unless given."""

    dim: int = -1


# --- pooling and resampling


class MaxPool2d(_FunctionModule, function=F.max_pool2d):
    """The largest element of each window over the last two axes; ties share the gradient evenly.

    (..., H, W) -> (..., h, w),  h = (H + 2 padding - dilation (kernel_size - 1) - 1) // stride + 1.
    stride is kernel_size unless given.   ceil_mode: round h up instead of down.
    """

    kernel_size: Sizes
    stride: Sizes | None = None
    padding: Sizes = 0
    dilation: Sizes = 1
    ceil_mode: bool = field(default=False, kw_only=True)


class MaxPool1d(MaxPool2d, function=F.max_pool1d):
    """The same over the last axis: (..., L) -> (..., M)."""


class AvgPool2d(_FunctionModule, function=F.avg_pool2d):
    """The mean of each window over the last two axes. Sizes as for MaxPool2d.

    count_include_pad: True if the zeros of the padding count.
    """

    kernel_size: Sizes
    stride: Sizes | None = None
    padding: Sizes = 0
    ceil_mode: bool = False
    count_include_pad: bool = True


class AvgPool1d(AvgPool2d, function=F.avg_pool1d):
    """The same over the last axis: (..., L) -> (..., M)."""


class AdaptiveAvgPool2d(_FunctionModule, function=F.adaptive_avg_pool2d):
    """The means of output_size windows that divide the last two axes as evenly as they can: window
    i of n begins at i H // n and ends before -(-(i + 1) H // n). None keeps a size.

    (..., H, W) -> (..., *output_size)
    """

    output_size: Sizes


class AdaptiveAvgPool1d(AdaptiveAvgPool2d, function=F.adaptive_avg_pool1d):
    """The same over the last axis: (..., L) -> (..., output_size)."""


class Upsample(_FunctionModule, function=F.interpolate):
    """x at other sizes of its last axes, `size`, or scale_factor times theirs: the nearest element,
    or linear between neighbours. See F.interpolate.
    """

    size: Sizes | None = None
    scale_factor: float | tuple[float, ...] | None = None
    mode: str = "nearest"
    align_corners: bool | None = None


# --- losses: of (x, target) one number, the mean over all elements or targets; with reduction="sum"
# their sum, with reduction="none" each. `weight` and `pos_weight` are buffers: they move with `to`
# and are saved.


class _Loss(_FunctionModule, kw_only=True):
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


class MSELoss(_Loss, function=F.mse_loss):
    """(x - target)^2."""


class L1Loss(_Loss, function=F.l1_loss):
    """|x - target|."""


class SmoothL1Loss(_Loss, kw_only=True, function=F.smooth_l1_loss):
    """d^2 / (2 beta) for d = |x - target| below beta, else d - beta / 2. From Girshick 2015,
    arXiv:1504.08083.
    """

    beta: float = 1.0


class HuberLoss(_Loss, kw_only=True, function=F.huber_loss):
    """d^2 / 2 for d = |x - target| below delta, else delta (d - delta / 2). From Huber 1964."""

    delta: float = 1.0


class KLDivLoss(_Loss, kw_only=True, function=F.kl_div):
    """target (log target - x), for log-probabilities x and probabilities, or with log_target
    log-probabilities, as targets. reduction="batchmean" divides the sum by the size of the batch.
    """

    log_target: bool = False


class NLLLoss(_Weighted, kw_only=True, function=F.nll_loss):
    """-x[target] for log-probabilities x, averaged by the weights of the targets that are not
    ignore_index.

    x: (N, C), (N, C, ...) or (N, ..., C), as the target's shape says; `axis` names the axis of the
        classes where both would fit.   target: (N, ...) class numbers.   weight: (C,).
    """

    axis: int | None = None
    ignore_index: int = -100


class CrossEntropyLoss(NLLLoss, kw_only=True, function=F.cross_entropy):
    """NLLLoss of log_softmax(x). The target may also be probabilities, of the shape of x.

    label_smoothing s mixes in the uniform distribution: (1 - s) onehot + s / C.
    """

    label_smoothing: float = 0.0


class BCELoss(_Weighted, function=F.binary_cross_entropy):
    """-target log p - (1 - target) log(1 - p), times weight, for probabilities p; logarithms no
    lower than -100.
    """


class BCEWithLogitsLoss(_Weighted, kw_only=True, function=F.binary_cross_entropy_with_logits):
    """BCELoss of sigmoid(x), without overflow; pos_weight multiplies its first term."""

    pos_weight: Any = None


__all__ = layers_of(globals())
