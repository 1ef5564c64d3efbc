"""Functions of tensors: Tensor's methods (`minigrad.exp(x)` is `x.exp()`, of arrays, lists and
numbers too), and what layers compute.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigrad import ops
from minigrad.arguments import Names, as_int, as_place, fits
from minigrad.dtypes import computing, is_half, promote
from minigrad.errors import ConfigError, DTypeError, ShapeError
from minigrad.modes import no_grad
from minigrad.ops.axis import several
from minigrad.ops.composed import normalised
from minigrad.ops.composite import composite
from minigrad.primitive import Primitive
from minigrad.tensor.attention import scaled_dot_product_attention
from minigrad.tensor.core import Tensor
from minigrad.tensor.creation import Creation
from minigrad.tensor.indexing import Indexing
from minigrad.tensor.interop import Interop
from minigrad.tensor.surface import Surface

_OWNERS = (Surface, Indexing, Creation, Interop)
_ARRAYS = (Tensor, np.ndarray)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """Return `data` as a tensor: itself if it is one (of that dtype), else a copy."""
    if isinstance(data, Tensor) and device is None:
        return data if dtype is None else data.to(dtype)
    return Tensor(data, dtype, device=device)


def tensor(
    data: Any, *, dtype: Any = None, requires_grad: bool = False, device: Any = None
) -> Tensor:
    """Return a new tensor of `data`, as Tensor(data) does."""
    return Tensor(data, dtype, requires_grad, device)


def from_numpy(array: Any) -> Tensor:
    """Return a tensor on the memory of a numpy array: each sees what the other writes."""
    return Tensor.from_dlpack(array)


def is_tensor(x: Any) -> bool:
    """Return True if x is a Tensor."""
    return isinstance(x, Tensor)


# --- methods as functions


def names() -> list[str]:
    """The names of all methods that are functions too."""
    return sorted({n for c in _OWNERS for n in vars(c) if _is_public(n)})


def _is_public(name: str) -> bool:
    return not name.startswith("_") and not name.endswith("_")


@functools.cache
def function(name: str) -> Callable[..., Any] | None:
    """The method of that name as a function; None if there is no such method."""
    owner = next((c for c in _OWNERS if name in vars(c)), None)
    if owner is None or not _is_public(name):
        return None
    method: Any = getattr(Tensor, name)
    if isinstance(vars(owner)[name], (classmethod, staticmethod)):
        return method
    names = Names(method)
    spread = not names.positional  # meshgrid(x, y), of any number of tensors
    several = spread or names.positional[0] == "tensors"
    elementwise = isinstance(method, Primitive) and method.kind == "elementwise"

    @functools.wraps(method)
    def called(*args: Any, **kwargs: Any) -> Any:
        if not args:  # minigrad.sum(input=x)
            named = [n for n in kwargs if names.spelled(n) in names.positional[:1]]
            if not named:
                raise DTypeError(name, "the tensor to work on is missing", wanted="a tensor")
            args = (kwargs.pop(named[0]),)
        x, args = args[0], args[1:]
        if several and isinstance(x, (list, tuple)):
            tensors = [as_tensor(t) for t in x]
            return method(*tensors, *args, **kwargs) if spread else method(tensors, *args, **kwargs)
        if isinstance(x, (int, float, np.generic)):
            kinds = (*_ARRAYS, list) if elementwise else _ARRAYS
            others = [Tensor(y) if type(y) in kinds and type(y) is not Tensor else y for y in args]
            if any(isinstance(y, Tensor) for y in others):
                # A number next to a tensor stays one: it neither changes the dtype nor is rounded.
                return method(x, *others, **kwargs)
        return method(x if several and not spread else as_tensor(x), *args, **kwargs)

    return called


# --- what layers compute: embedding, norms, attention


@composite
def embedding(index: Any, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """Return rows of a table: (...) integers, (V, C) -> (..., C). Row padding_idx gets no gradient.

    Raises IndexRangeError for an index outside 0..V-1, ConfigError for a padding_idx outside
    -V..V-1.
    """
    index = as_tensor(index)
    rows = ops.embedding(weight, index)
    if padding_idx is None:
        return rows
    padding = index == as_place("embedding", "padding_idx", padding_idx, weight.shape[0])
    return ops.where(padding.unsqueeze(-1), rows.detach(), rows)


def _last_axes(call: str, x: Tensor, normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    wanted, shape = several(normalized_shape), x.shape
    if shape[-len(wanted) :] != wanted:
        problem = f"x {shape} does not end in {wanted}"
        raise ShapeError(call, problem, got=shape, wanted=wanted)
    return tuple(range(len(shape) - len(wanted), len(shape)))


@composite
def layer_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Return (x - mean) / sqrt(var + eps) * weight + bias over the last axes, which are
    `normalized_shape`. From Ba et al. 2016, arXiv:1607.06450.
    """
    axis = _last_axes("layer_norm", x, normalized_shape)
    return normalised(x, weight, bias, norm=ops.layer_norm, axis=axis, eps=eps)


@composite
def rms_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) * weight over the last axes. From Zhang and Sennrich 2019,
    arXiv:1910.07467.
    """
    axis = _last_axes("rms_norm", x, normalized_shape)
    return normalised(x, weight, norm=ops.rms_norm, axis=axis, eps=eps)


@composite
def batch_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return (x - mean) / sqrt(var + eps) * weight + bias per index of axis 1: (N, C, ...), (C,).

    In training by the batch's own mean and variance, towards which the running ones are moved in
    place by `momentum` (the variance with n - 1); else by the running ones. From Ioffe and Szegedy
    2015, arXiv:1502.03167.
    """
    if not training and (running_mean is None or running_var is None):
        problem, hint = "running_mean and running_var are missing", "training=True uses the batch's"
        raise ConfigError("batch_norm", problem, hint=hint)
    dtype = promote(x.dtype, *(p.dtype for p in (weight, bias) if p is not None))
    x = x.cast(computing(x.dtype))  # one rounding, at the end
    mean, var = running_mean, running_var
    if training:
        axis = (0, *range(2, x.ndim))
        count = math.prod(x.shape[i] for i in axis)
        fits(
            count != 1, "batch_norm", f"x {x.shape} has one value per channel to train on", x.shape
        )
        var, mean = x.var_mean(axis=axis, correction=0)
        if count and running_mean is not None and running_var is not None:
            with no_grad():
                running_mean.assign(running_mean.lerp(mean, momentum))
                running_var.assign(running_var.lerp(var * (count / (count - 1)), momentum))
    assert mean is not None and var is not None
    y: Tensor = x.batchnorm(weight, bias, mean, ops.rsqrt(var + eps))
    return y.cast(dtype) if is_half(dtype) else y


@composite
def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Return (x - mean) / sqrt(var + eps) * weight + bias, mean and var over each group of channels
    of each row: (N, C, ...), (C,).

    Raises ShapeError unless num_groups divides C. From Wu and He 2018, arXiv:1803.08494.
    """
    problem = f"num_groups={num_groups} must divide axis 1 of x, got {x.shape}"
    fits(x.ndim >= 2 and x.shape[1] % num_groups == 0, "group_norm", problem, x.shape)
    rows = x.reshape(x.shape[0], num_groups, math.prod(x.shape[1:]) // num_groups)
    y = layer_norm(rows, rows.shape[-1], eps=eps).reshape(x.shape)
    shape = (x.shape[1], *(1,) * (x.ndim - 2))
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


@composite
def instance_norm(
    x: Tensor, *, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Return group_norm with one channel per group: (N, C, ...), (C,). From Ulyanov et al. 2016,
    arXiv:1607.08022.
    """
    return group_norm(x, x.shape[1], weight, bias, eps)


@composite(widen=True)
def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) * up. From Shazeer 2020, arXiv:2002.05202."""
    return ops.silu(gate) * up


# --- attention, ALiBi's slopes, the rotary embedding


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(D)) v, without a mask."""
    return scaled_dot_product_attention(q, k, v)


def attention_with_mask(
    q: Tensor, k: Tensor, v: Tensor, mask: Any = None, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Return (output, weights): weights = softmax(scale q k^T + mask), output = weights v.

    mask: bool, True where a query may look, or float, added to the scores (0 and -inf); broadcasts
        to (..., T, S).   scale: 1 / sqrt(D) unless given.
    """
    y, weights = scaled_dot_product_attention(q, k, v, mask, scale=scale, return_weights=True)
    return y, weights


def attention_weights(q: Tensor, k: Tensor, mask: Any = None, scale: float | None = None) -> Tensor:
    """Return the probabilities softmax(scale q k^T + mask), (..., T, S)."""
    return attention_with_mask(q, k, k[..., :0], mask, scale)[1]


def alibi_slopes(n_head: int) -> tuple[float, ...]:
    """Return ALiBi's slope of each head: a geometric sequence from 2^(-8/n) if n is a power of two,
    otherwise filled up from the sequence of the next one.

    The score of a key d places away falls by slope * d. From Press et al. 2021, arXiv:2108.12409.
    """
    n_head = as_int("alibi_slopes", "n_head", n_head)
    n = 1 << (n_head.bit_length() - 1)
    whole = [2 ** (-8 * (i + 1) / n) for i in range(n)]
    between = [2 ** (-4 * (i + 1) / n) for i in range(2 * n)]
    return tuple(whole + between[0::2][: n_head - n])


def apply_rotary(x: Tensor, cos: Any, sin: Any, interleaved: bool = False) -> Tensor:
    """Return x with its pairs of features turned by the angles whose cosines and sines are given;
    see `ops.rope`. The result has the dtype of x.

    x: (..., T, D)   cos, sin: (T, R/2), R <= D, or with leading axes that broadcast to those of x.
    """
    y: Tensor = ops.rope(x, cos, sin, interleaved=interleaved)
    return y if y.dtype == x.dtype else y.cast(x.dtype)
