"""Written by `python tools/make_docs.py`; do not edit."""

from builtins import bool as _bool, float as _float, int as _int
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, overload

from minigrad.dtypes import DType
from minigrad.ops.loss import Reduce
from minigrad.random import Generator

from minigrad.tensor import Tensor

Axis = _int | tuple[_int, ...] | None
Sizes = _int | Sequence[_int]
class _Indexed(NamedTuple):
    values: Tensor
    indices: Tensor
Corner = Literal["upper_left", "lower_right"]
Method = Literal["auto", "plain", "flash"]

def adaptive_avg_pool1d(x: Any, output_size: Any) -> Tensor:
    """Return x averaged to output_size on its last axes: of L elements made M, y[i] is the mean
    of x[floor(i L / M) : ceil((i + 1) L / M)]. None keeps a size."""
def adaptive_avg_pool2d(x: Any, output_size: Any) -> Tensor:
    """Return x averaged to output_size on its last axes: of L elements made M, y[i] is the mean
    of x[floor(i L / M) : ceil((i + 1) L / M)]. None keeps a size."""
def alibi_slopes(n_head: _int) -> tuple[_float, ...]:
    """Return ALiBi's slope of each head: a geometric sequence from 2^(-8/n) if n is a power of two,
    otherwise filled up from the sequence of the next one."""
def apply_rotary(x: Tensor, cos: Any, sin: Any, interleaved: _bool = False) -> Tensor:
    """Return x with its pairs of features turned by the angles whose cosines and sines are given;
    see `ops.rope`. The result has the dtype of x."""
def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(D)) v, without a mask."""
def attention_weights(q: Tensor, k: Tensor, mask: Any = None, scale: _float | None = None) -> Tensor:
    """Return the probabilities softmax(scale q k^T + mask), (..., T, S)."""
def attention_with_mask(q: Tensor, k: Tensor, v: Tensor, mask: Any = None, scale: _float | None = None) -> tuple[Tensor, Tensor]:
    """Return (output, weights): weights = softmax(scale q k^T + mask), output = weights v."""
def avg_pool1d(x: Any, kernel_size: Sizes = 2, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: _bool = False, count_include_pad: _bool = True) -> Tensor:
    """Return the mean of each window over the last axes; stride is kernel_size unless given."""
def avg_pool2d(x: Any, kernel_size: Sizes = 2, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: _bool = False, count_include_pad: _bool = True) -> Tensor:
    """Return the mean of each window over the last axes; stride is kernel_size unless given."""
def batch_norm(x: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None, weight: Tensor | None = None, bias: Tensor | None = None, training: _bool = False, momentum: _float | Tensor = 0.1, eps: _float = 1e-05) -> Tensor:
    """Return (x - mean) / sqrt(var + eps) * weight + bias per index of axis 1: (N, C, ...), (C,)."""
def binary_cross_entropy(p: Any, target: Any, weight: Any = None, reduction: Reduce = 'mean') -> Tensor:
    """Return -target log p - (1 - target) log(1 - p), averaged, for probabilities p."""
def binary_cross_entropy_with_logits(x: Any, target: Any, weight: Any = None, reduction: Reduce = 'mean', pos_weight: Any = None) -> Tensor:
    """Return binary_cross_entropy(sigmoid(x), target) without overflow: log(1 + exp(x)) - target x."""
def celu(x: Any, alpha: _float = 1.0, *, inplace: Literal[False] = False) -> Tensor:
    """Return x where x > 0, else alpha (exp(x / alpha) - 1). From Barron 2017, arXiv:1704.07483."""
def conv1d(x: Any, weight: Any, bias: Any = None, stride: Sizes = 1, padding: Sizes | Literal['same', 'valid'] = 0, dilation: Sizes = 1, groups: _int = 1) -> Tensor:
    """Return the cross-correlation of x with `weight` over the last axes."""
def conv2d(x: Any, weight: Any, bias: Any = None, stride: Sizes = 1, padding: Sizes | Literal['same', 'valid'] = 0, dilation: Sizes = 1, groups: _int = 1) -> Tensor:
    """Return the cross-correlation of x with `weight` over the last axes."""
def conv_transpose1d(x: Any, weight: Any, bias: Any = None, stride: Sizes = 1, padding: Sizes = 0, output_padding: Sizes = 0, groups: _int = 1, dilation: Sizes = 1) -> Tensor:
    """Return the transpose of conv with the same weight: what its backward pass does."""
def conv_transpose2d(x: Any, weight: Any, bias: Any = None, stride: Sizes = 1, padding: Sizes = 0, output_padding: Sizes = 0, groups: _int = 1, dilation: Sizes = 1) -> Tensor:
    """Return the transpose of conv with the same weight: what its backward pass does."""
@overload
def cosine_similarity(x1: Any, x2: Any, axis: _int = 1, eps: _float = 1e-08) -> Tensor:
    """Return x1 . x2 / (max(|x1|, eps) max(|x2|, eps)) along `axis` of x1 * x2."""
@overload
def cosine_similarity(x1: Any, x2: Any, dim: _int = 1, eps: _float = 1e-08) -> Tensor: ...
@overload
def cross_entropy(logits: Any, target: Any, weight: Any = None, axis: _int | None = None, ignore_index: _int = -100, label_smoothing: _float = 0.0, reduction: Reduce = 'mean') -> Tensor:
    """Return -log softmax(logits)[target], averaged over the targets that are not ignore_index."""
@overload
def cross_entropy(logits: Any, target: Any, weight: Any = None, dim: _int | None = None, ignore_index: _int = -100, label_smoothing: _float = 0.0, reduction: Reduce = 'mean') -> Tensor: ...
def dropout(self: Any, p: _float = 0.5, training: _bool = True, generator: Generator = ..., *, inplace: Literal[False] = False) -> Tensor:
    """Return x with each element 0 with probability p, else scaled by 1 / (1 - p); x itself
    outside training. From Srivastava et al. 2014."""
def elu(x: Any, alpha: _float = 1.0, *, inplace: Literal[False] = False) -> Tensor:
    """Return x where x > 0, else alpha (exp(x) - 1). From Clevert et al. 2015, arXiv:1511.07289."""
def embedding(index: Any, weight: Tensor, padding_idx: _int | None = None) -> Tensor:
    """Return rows of a table: (...) integers, (V, C) -> (..., C). Row padding_idx gets no gradient."""
def fold(x: Any, output_size: Sizes, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1) -> Tensor:
    """Return columns added up where `blocks` took them from: (N, C K, windows) -> (N, C, H, W), or
    (C K, windows) -> (C, H, W)."""
def gelu(x: Any, approximate: Literal['none', 'tanh'] = 'none') -> Tensor:
    """Return x Phi(x), Phi the normal distribution function."""
def group_norm(x: Tensor, num_groups: _int, weight: Tensor | None = None, bias: Tensor | None = None, eps: _float = 1e-05) -> Tensor:
    """Return (x - mean) / sqrt(var + eps) * weight + bias, mean and var over each group of channels
    of each row: (N, C, ...), (C,)."""
def hardsigmoid(x: Any, *, inplace: Literal[False] = False) -> Tensor:
    """Return relu6(x + 3) / 6, a sigmoid of three straight lines."""
def hardswish(x: Any, *, inplace: Literal[False] = False) -> Tensor:
    """Return x hardsigmoid(x). From Howard et al. 2019, arXiv:1905.02244."""
def hardtanh(x: Any, min_val: _float = -1.0, max_val: _float = 1.0, *, inplace: Literal[False] = False) -> Tensor:
    """Return x between min_val and max_val, and these beyond. The gradient at the bounds is 0 (that
    of clamp is 1)."""
def huber_loss(x: Any, target: Any, reduction: Reduce = 'mean', delta: _float = 1.0) -> Tensor:
    """Return d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2), averaged, for d = x -
    target."""
def instance_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: _float = 1e-05) -> Tensor:
    """Return group_norm with one channel per group: (N, C, ...), (C,). From Ulyanov et al. 2016,
    arXiv:1607.08022."""
def interpolate(x: Any, size: Sizes | None = None, scale_factor: Any = None, mode: str = 'nearest', align_corners: _bool | None = None) -> Tensor:
    """Return x (N, C, *L) resampled to `size`, or to floor(L scale_factor), on its last axes."""
def kl_div(log_p: Any, target: Any, reduction: Reduce | Literal['batchmean'] = 'mean', log_target: _bool = False) -> Tensor:
    """Return target (log target - log_p), where 0 log 0 is 0: summed, the Kullback-Leibler
    divergence from exp(log_p) to target."""
def l1_loss(x: Any, target: Any, reduction: Reduce = 'mean') -> Tensor:
    """Return |x - target|, averaged. The gradient is 0 where they are equal."""
def layer_norm(x: Tensor, normalized_shape: _int | Sequence[_int], weight: Tensor | None = None, bias: Tensor | None = None, eps: _float = 1e-05) -> Tensor:
    """Return (x - mean) / sqrt(var + eps) * weight + bias over the last axes, which are
    `normalized_shape`. From Ba et al. 2016, arXiv:1607.06450."""
def leaky_relu(x: Any, negative_slope: _float = 0.01, *, inplace: Literal[False] = False) -> Tensor:
    """Return x where x > 0, else negative_slope x."""
def linear(x: Any, weight: Any, bias: Any | None = None) -> Tensor:
    """Return x @ weight.T + bias: (..., K), (N, K), (N,) -> (..., N). Raises ShapeError if K
    differs."""
@overload
def log_softmax(x: Any, axis: _int = -1, *, dtype: Any = None) -> Tensor:
    """Return log(softmax(x)) = x - logsumexp(x) along `axis`; a row of -inf stays -inf; +inf gives
    0, and -inf to all others."""
@overload
def log_softmax(x: Any, dim: _int = -1, *, dtype: Any = None) -> Tensor: ...
def logsigmoid(x: Any) -> Tensor:
    """Return log(sigmoid(x)) = -softplus(-x)."""
def max_pool1d(x: Any, kernel_size: Sizes = 2, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1, ceil_mode: _bool = False) -> Tensor:
    """Return the largest element of each window over the last axes; ties share the gradient
    evenly. stride is kernel_size unless given."""
def max_pool2d(x: Any, kernel_size: Sizes = 2, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1, ceil_mode: _bool = False) -> Tensor:
    """Return the largest element of each window over the last axes; ties share the gradient
    evenly. stride is kernel_size unless given."""
def mish(x: Any, *, inplace: Literal[False] = False) -> Tensor:
    """Return x tanh(softplus(x)). From Misra 2019, arXiv:1908.08681."""
def mse_loss(x: Any, target: Any, reduction: Reduce = 'mean') -> Tensor:
    """Return (x - target)^2, averaged. Raises ShapeError if the shapes differ."""
@overload
def nll_loss(log_p: Any, target: Any, weight: Any = None, axis: _int | None = None, ignore_index: _int = -100, reduction: Reduce = 'mean') -> Tensor:
    """Return -log_p[target] for log-probabilities and targets, averaged over the targets that are
    not ignore_index."""
@overload
def nll_loss(log_p: Any, target: Any, weight: Any = None, dim: _int | None = None, ignore_index: _int = -100, reduction: Reduce = 'mean') -> Tensor: ...
@overload
def normalize(x: Any, p: _float = 2.0, axis: Axis = 1, eps: _float = 1e-12) -> Tensor:
    """Return x / max(norm(x), eps), with the p-norm along `axis`."""
@overload
def normalize(x: Any, p: _float = 2.0, dim: Axis = 1, eps: _float = 1e-12) -> Tensor: ...
def one_hot(index: Any, num_classes: _int = -1) -> Tensor:
    """Return 1 at the place that each index names on a new last axis, else 0, int64. -1: one class
    more than the largest index."""
def pad(x: Any, pad: Sequence[Any], mode: str = 'constant', value: _float = 0.0) -> Tensor:
    """Return x with more elements around it: `value`, or its own by "reflect", "replicate" or
    "circular"."""
def quick_gelu(x: Any) -> Tensor:
    """Return x sigmoid(1.702 x), CLIP's approximation of gelu."""
def relu(x: Any, *, inplace: Literal[False] = False) -> Tensor:
    """Return max(x, 0). Slope 0 at 0."""
def relu6(x: Any, *, inplace: Literal[False] = False) -> Tensor:
    """Return min(relu(x), 6). The gradient at 0 and at 6 is 0."""
def rms_norm(x: Tensor, normalized_shape: _int | Sequence[_int], weight: Tensor | None = None, eps: _float = 1e-06) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) * weight over the last axes. From Zhang and Sennrich 2019,
    arXiv:1910.07467."""
def scaled_dot_product_attention(q: Any, k: Any, v: Any, attn_mask: Any = None, dropout_p: _float = 0.0, is_causal: _bool = False, scale: _float | None = None, enable_gqa: _bool = False, causal: Corner = 'upper_left', window: _int | None = None, bias: Any = None, alibi: Sequence[_float] | None = None, method: Method = 'auto', return_weights: _bool = False) -> Tensor:
    """Return softmax(scale q k^T + mask + bias) v."""
def selu(x: Any, *, inplace: Literal[False] = False) -> Tensor:
    """Return 1.0507 elu(x, 1.67326). From Klambauer et al. 2017, arXiv:1706.02515."""
def sigmoid(x: Any) -> Tensor:
    """Return 1 / (1 + exp(-x)), without overflow."""
def silu(x: Any, *, inplace: Literal[False] = False) -> Tensor:
    """Return x sigmoid(x), also called swish. From Elfwing et al. 2017, arXiv:1702.03118."""
def smooth_l1_loss(x: Any, target: Any, reduction: Reduce = 'mean', beta: _float = 1.0) -> Tensor:
    """Return d^2 / (2 beta) where |d| < beta, else |d| - beta / 2, averaged, for d = x - target."""
@overload
def softmax(x: Any, axis: _int = -1, *, dtype: Any = None) -> Tensor:
    """Return exp(x) / sum(exp(x)) along `axis`; the maximum is subtracted first. A row of -inf
    gives zeros; several +inf share the whole evenly."""
@overload
def softmax(x: Any, dim: _int = -1, *, dtype: Any = None) -> Tensor: ...
def softplus(x: Any, beta: _float = 1.0, threshold: _float | None = None) -> Tensor:
    """Return log(1 + exp(beta x)) / beta, without overflow: a smooth relu."""
def softsign(x: Any) -> Tensor:
    """Return x / (1 + |x|)."""
@overload
def stable_softmax(x: Any, axis: _int = -1, *, dtype: Any = None) -> Tensor:
    """Return exp(x) / sum(exp(x)) along `axis`; the maximum is subtracted first. A row of -inf
    gives zeros; several +inf share the whole evenly."""
@overload
def stable_softmax(x: Any, dim: _int = -1, *, dtype: Any = None) -> Tensor: ...
def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) * up. From Shazeer 2020, arXiv:2002.05202."""
def tanh(x: Any) -> Tensor:
    """Return the hyperbolic tangent."""
def unfold(x: Any, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1) -> Tensor:
    """Return the windows of x as columns: (N, C, H, W) -> (N, C K, number of windows), or (C, H, W)
    -> (C K, number of windows)."""
