"""The meaning of every composite op, written plainly: numpy over arrays of oracle numbers, no trick
for speed or range.

Each function takes and returns object arrays (see `tests.oracle`); the same code also runs on float
arrays where only + - * / and comparisons occur in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests import oracle as o

Objects = Any


# --- activations


relu = o.elementwise(lambda x: x if x > 0 else 0 * x)
leaky_relu = o.elementwise(lambda x: x if x > 0 else o.constant("0.01") * x)
elu = o.elementwise(lambda x: x if x > 0 else o.expm1(x))
celu = o.elementwise(lambda x: x if x > 0 else 2 * o.expm1(x / 2))
_ALPHA, _LAMBDA = (
    o.constant("1.6732632423543772848170429916717"),
    o.constant("1.0507009873554804934193349852946"),
)
selu = o.elementwise(lambda x: _LAMBDA * (x if x > 0 else _ALPHA * o.expm1(x)))
softsign = o.elementwise(lambda x: x / (1 + abs(x)))
hardtanh = o.elementwise(lambda x: x if abs(x) < 1 else 0 * x + (1 if x > 0 else -1))
relu6 = o.elementwise(lambda x: 0 * x + 6 if x > 6 else relu(x))


def logsigmoid(x: Objects) -> Objects:
    return -o.softplus(-x)


def silu(x: Objects) -> Objects:
    return x * o.sigmoid(x)


def quick_gelu(x: Objects) -> Objects:
    return x * o.sigmoid(o.constant("1.702") * x)


def mish(x: Objects) -> Objects:
    return x * o.tanh(o.softplus(x))


def hardsigmoid(x: Objects) -> Objects:
    return relu6(x + 3) / 6


def hardswish(x: Objects) -> Objects:
    return x * relu6(x + 3) / 6


def gelu(x: Objects) -> Objects:
    return x / 2 * (1 + o.erf(x * o.constant(1 / o.mp.sqrt(2))))


def gelu_tanh(x: Objects) -> Objects:
    inner = o.constant(o.mp.sqrt(2 / o.mp.pi)) * (x + o.constant("0.044715") * x * x * x)
    return x / 2 * (1 + o.tanh(inner))


@o.elementwise
def logaddexp(a: Any, b: Any) -> Any:
    return a + o.softplus(b - a) if a >= b else b + o.softplus(a - b)


@o.elementwise
def fmod(a: Any, b: Any) -> Any:
    quotient = o.number(a) / o.number(b)
    return a - b * o.given(o.mp.sign(quotient) * o.mp.floor(abs(quotient)))


def hypot(a: Objects, b: Objects) -> Objects:
    return o.sqrt(a * a + b * b)


def atan2(a: Objects, b: Objects) -> Objects:
    """The angle of (b, a) for b > 0."""
    return o.atan(a / b)


@o.elementwise
def mod(a: Any, b: Any) -> Any:
    return a - b * o.given(o.mp.floor(o.number(a) / o.number(b)))


# --- reductions


def extremum(x: Objects, axis: Any, best: Callable[..., Any]) -> Objects:
    """max or min as the mean over the places that attain it: ties share the gradient evenly."""
    values = np.frompyfunc(o.number, 1, 1)(x)
    ties = values == best(values, axis=axis, keepdims=True)
    count = np.sum(ties, axis=axis)
    return np.sum(np.where(ties, x, o.given(0)), axis=axis) / count


def mean(x: Objects, axis: Any = None, keepdims: bool = False) -> Objects:
    total = np.sum(x, axis=axis, keepdims=keepdims)
    return total / (x.size // np.size(total))


def var(x: Objects, axis: Any = None, correction: int = 1) -> Objects:
    centred = x - mean(x, axis, keepdims=True)
    total = np.sum(centred * centred, axis=axis)
    return total / (x.size // np.size(total) - correction)


def logsumexp(x: Objects, axis: Any = -1, keepdims: bool = True) -> Objects:
    top = np.max(x, axis=axis, keepdims=True)
    y = o.log(np.sum(o.exp(x - top), axis=axis, keepdims=True)) + top
    return y if keepdims else np.squeeze(y, axis)


def logcumsumexp(x: Objects) -> Objects:
    """Along the last axis."""
    return np.concatenate([logsumexp(x[..., : i + 1]) for i in range(x.shape[-1])], axis=-1)


def cummax(x: Objects) -> Objects:
    """Along the last axis; of equal elements the last one counts."""
    out, best = x.copy(), x[..., 0]
    for i in range(x.shape[-1]):
        best = np.where(x[..., i] >= best, x[..., i], best)
        out[..., i] = best
    return out


# --- a transformer's parts


def softmax(x: Objects, axis: int = -1) -> Objects:
    e = o.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)


def log_softmax(x: Objects, axis: int = -1) -> Objects:
    return x - logsumexp(x, axis)


def cross_entropy(
    logits: Objects,
    target: Any,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Objects:
    kept = target != ignore_index
    log_p = log_softmax(logits)
    hit = np.take_along_axis(log_p, np.where(kept, target, 0)[:, None], 1)[:, 0]
    smooth = o.constant(label_smoothing) if label_smoothing else o.given(0)
    loss = np.where(kept, -((1 - smooth) * hit + smooth * mean(log_p, -1)), o.given(0))
    return (
        loss
        if reduction == "none"
        else np.sum(loss) / (int(np.sum(kept)) if reduction == "mean" else 1)
    )


def weighted_cross_entropy(logits: Objects, weight: Objects, target: Any) -> Objects:
    """With label_smoothing 1/4."""
    rows = [i for i, t in enumerate(target) if t != -100]
    log_p = log_softmax(logits)
    hit = sum(weight[target[i]] * log_p[i, target[i]] for i in rows)
    uniform = sum(mean(weight * log_p[i], -1) for i in rows)
    return -(3 * hit + uniform) / 4 / sum(weight[target[i]] for i in rows)


def layer_norm(x: Objects, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Objects:
    centred = x - mean(x, -1, keepdims=True)
    y = centred * o.rsqrt(mean(centred * centred, -1, keepdims=True) + o.constant(eps))
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def rms_norm(x: Objects, weight: Any = None, eps: float = 1e-5) -> Objects:
    y = x * o.rsqrt(mean(x * x, -1, keepdims=True) + o.constant(eps))
    return y if weight is None else y * weight


def rope(x: Objects, cos: Any, sin: Any, pairs: Any) -> Objects:
    """The features i, j of each pair turned by the pair's angle: (x_i cos - x_j sin, x_j cos + x_i
    sin).
    """
    y = np.array(x)
    for pair, (i, j) in enumerate(pairs):
        c, s = (
            np.array([o.given(float(n)) for n in table[:, pair]], dtype=object)
            for table in (cos, sin)
        )
        y[..., i], y[..., j] = x[..., i] * c - x[..., j] * s, x[..., j] * c + x[..., i] * s
    return y


def attention(q: Objects, k: Objects, v: Objects, seen: Any = None, bias: Any = None) -> Objects:
    """softmax(q k^T / sqrt(D) + bias) v over the keys that are `seen` (bool, (T, S)); a row that
    sees nothing is 0.
    """
    scores = q @ np.swapaxes(k, -1, -2) * o.constant(1 / o.mp.sqrt(q.shape[-1]))
    scores = scores if bias is None else scores + bias
    seen = np.broadcast_to(True if seen is None else seen, scores.shape)
    v = np.broadcast_to(v, (*scores.shape[:-2], *v.shape[-2:]))
    out = np.empty((*scores.shape[:-1], v.shape[-1]), dtype=object)
    for row in np.ndindex(scores.shape[:-1]):
        some = np.flatnonzero(seen[row])
        values = v[row[:-1]]
        out[row] = softmax(scores[row][some]) @ values[some] if len(some) else o.given(0)
    return out


# x, then weights and biases of a layer of GPT-2 with C = 4, in the order of its state dict.
GPT_SHAPES = (
    (3, 4),
    (4,),
    (4,),
    (12, 4),
    (12,),
    (4, 4),
    (4,),
    (4,),
    (4,),
    (8, 4),
    (8,),
    (4, 8),
    (4,),
)


def gpt_block(x: Objects, *p: Objects) -> Objects:
    g1, b1, w_qkv, b_qkv, w_out, b_out, g2, b2, w_up, b_up, w_down, b_down = p
    q, k, v = (layer_norm(x, g1, b1) @ w_qkv.T + b_qkv).reshape(3, 3, 2, 2).transpose(1, 2, 0, 3)
    seen = attention(q, k, v, np.tri(3, dtype=bool)).transpose(1, 0, 2).reshape(3, 4)
    x = x + seen @ w_out.T + b_out
    return x + gelu_tanh(layer_norm(x, g2, b2) @ w_up.T + b_up) @ w_down.T + b_down


def huber(d: Objects, delta: float) -> Objects:
    bound = o.given(delta)
    return o.elementwise(lambda d: d * d / 2 if abs(d) <= bound else bound * (abs(d) - bound / 2))(
        d
    )


def binary_cross_entropy_with_logits(x: Objects, y: Objects) -> Objects:
    return mean(o.softplus(x) - x * y)


def binary_cross_entropy(p: Objects, y: Objects) -> Objects:
    return mean(-(y * o.log(p) + (1 - y) * o.log(1 - p)))


# --- movements and windows


def diag(x: Objects, offset: int) -> Objects:
    """The matrix with a vector on a diagonal below or above the main one."""
    n = len(x) + abs(offset)
    y = np.full((n, n), o.given(0), dtype=object)
    for i, element in enumerate(x):
        y[i + max(-offset, 0), i + max(offset, 0)] = element
    return y


def columns(x: Objects) -> Objects:
    """The windows of 2 x 2, every second one, of a picture padded by 1."""
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=o.given(0))
    starts = [(i, j) for i in range(0, x.shape[2] - 1, 2) for j in range(0, x.shape[3] - 1, 2)]
    seen = [x[:, :, i : i + 2, j : j + 2].reshape(len(x), -1) for i, j in starts]
    return np.stack(seen, -1)


def windows(x: Objects, size: Sequence[int], stride: int) -> Objects:
    """(N, C, *spatial) -> (N, C, *counts, *size)."""
    spatial = tuple(range(2, x.ndim))
    views = np.lib.stride_tricks.sliding_window_view(x, tuple(size), axis=spatial)
    return views[(slice(None), slice(None), *(slice(None, None, stride),) * len(spatial))]


def conv(
    x: Objects, weight: Objects, bias: Any = None, *, stride: int = 1, padding: int = 0
) -> Objects:
    """(N, C, *spatial), (O, C, *size) -> (N, O, *counts): cross-correlation, as in PyTorch."""
    space = weight.ndim - 2
    x = np.pad(x, ((0, 0), (0, 0), *((padding, padding),) * space), constant_values=o.given(0))
    seen = windows(x, weight.shape[2:], stride)  # (N, C, *counts, *size)
    terms = np.moveaxis(seen, 1, 1 + space).reshape(x.shape[0], *seen.shape[2 : 2 + space], -1)
    y = np.moveaxis(terms @ weight.reshape(len(weight), -1).T, -1, 1)
    return y if bias is None else y + bias.reshape(-1, *(1,) * space)


def batch_norm(x: Objects, weight: Objects, bias: Objects, eps: float = 1e-5) -> Objects:
    """Over every axis but 1, by the batch's own statistics."""
    axes = (0, *range(2, x.ndim))
    centred = x - mean(x, axes, keepdims=True)
    shape = (1, -1, *(1,) * (x.ndim - 2))
    y = centred * o.rsqrt(mean(centred * centred, axes, keepdims=True) + o.constant(eps))
    return y * weight.reshape(shape) + bias.reshape(shape)
