"""Functions around one op, with the checks, options and defaults that users expect."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from minigrad import ops
from minigrad.dtypes import (
    Array,
    DType,
    as_dtype,
    asked_of_to,
    bool_,
    float64,
    is_float,
    limits,
    name,
)
from minigrad.errors import ConfigError, DTypeError
from minigrad.ops.composite import composite
from minigrad.ops.loss import Reduce, cross_entropy
from minigrad.ops.reduce import axes, one_axis
from minigrad.ops.shape import flat

F = TypeVar("F", bound=Callable[..., Any])


# --- along an axis


def accepts_0d(function: F) -> F:
    """Let a function along an axis take a tensor without axes as a row of one, as PyTorch does."""

    @functools.wraps(function)
    def as_row(x: Any, *args: Any, **options: Any) -> Any:
        if x.ndim:
            return function(x, *args, **options)
        result = function(ops.reshape(x, shape=(1,)), *args, **options)
        if isinstance(result, tuple):
            return tuple(ops.reshape(y, shape=()) for y in result)
        return ops.reshape(result, shape=())

    return as_row  # type: ignore[return-value]


@composite
@accepts_0d
def softmax(x: Any, axis: int = -1) -> Any:
    """Return exp(x) / sum(exp(x)) along `axis`; a row of -inf gives zeros."""
    return ops.softmax(x, axis=axis if type(axis) is int else one_axis(axis, x.ndim, "softmax"))


@composite
@accepts_0d
def log_softmax(x: Any, axis: int = -1) -> Any:
    """Return log(softmax(x)) along `axis`."""
    axis = axis if type(axis) is int else one_axis(axis, x.ndim, "log_softmax")
    return ops.log_softmax(x, axis=axis)


@composite(numpy=np.cumsum)
@accepts_0d
def cumsum(x: Any, axis: int = 0) -> Any:
    """Return the sums of the first 1, 2, ... elements along `axis`."""
    return ops.cumsum(x, axis=one_axis(axis, x.ndim, "cumsum"))


@composite(numpy=np.cumprod)
@accepts_0d
def cumprod(x: Any, axis: int = 0) -> Any:
    """Return the products of the first 1, 2, ... elements along `axis`."""
    return ops.cumprod(x, axis=one_axis(axis, x.ndim, "cumprod"))


@composite
@accepts_0d
def logcumsumexp(x: Any, axis: int = 0) -> Any:
    """Return log of the sums of the first 1, 2, ... elements' exponentials along `axis`."""
    return ops.logcumsumexp(x, axis=one_axis(axis, x.ndim, "logcumsumexp"))


@composite
@accepts_0d
def sort(
    x: Any, axis: int = -1, descending: bool = False, *, stable: bool = True
) -> tuple[Any, Any]:
    """Return x in order along `axis`, and the indices that the elements came from. Always stable; a
    NaN counts as the largest.
    """
    return ops.sort(x, axis=one_axis(axis, x.ndim, "sort"), descending=descending)


@composite(numpy=np.argsort)
@accepts_0d
def argsort(x: Any, axis: int = -1, descending: bool = False, *, stable: bool = True) -> Any:
    """Return the indices that sort x along `axis`. Always stable."""
    return ops.argsort(x, axis=one_axis(axis, x.ndim, "argsort"), descending=descending)


@composite
@accepts_0d
def topk(
    x: Any, k: int, axis: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Any, Any]:
    """Return the k largest (or smallest) along `axis`, always in order, and their indices."""
    return ops.topk(x, k, axis=axis, largest=largest)


@composite
def max_with_index(x: Any, axis: int, keepdim: bool = False) -> tuple[Any, Any]:
    """Return the largest along `axis` and the index of the first of them: PyTorch's max(dim)."""
    return ops.max(x, axis=axis, keepdim=keepdim), ops.argmax(x, axis=axis, keepdim=keepdim)


@composite
def min_with_index(x: Any, axis: int, keepdim: bool = False) -> tuple[Any, Any]:
    """Return the smallest along `axis` and the index of the first of them: PyTorch's min(dim)."""
    return ops.min(x, axis=axis, keepdim=keepdim), ops.argmin(x, axis=axis, keepdim=keepdim)


@composite(widen=True)
def layernorm(x: Any, axis: int | tuple[int, ...] = -1, eps: float = 1e-5) -> Any:
    """Return (x - mean) / sqrt(var + eps) over `axis`."""
    if axes(axis, x.ndim, "layernorm") == (x.ndim - 1,):
        return ops.layer_norm(x, None, None, eps=eps)[0]
    centred = x - ops.mean(x, axis=axis, keepdim=True)
    return centred * ops.rsqrt(ops.mean(ops.square(centred), axis=axis, keepdim=True) + eps)


@composite(widen=True)
def rms_norm(x: Any, axis: int | tuple[int, ...] = -1, eps: float = 1e-6) -> Any:
    """Return x / sqrt(mean(x^2) + eps) over `axis`."""
    if axes(axis, x.ndim, "rms_norm") == (x.ndim - 1,):
        return ops.rms_norm(x, None, eps=eps)[0]
    return x * ops.rsqrt(ops.mean(ops.square(x), axis=axis, keepdim=True) + eps)


# --- of each element


@composite(numpy=(np.round, np.around))
def round(x: Any, decimals: int = 0) -> Any:
    """Return x rounded to the given number of decimals, halves to even. The dtype stays."""
    if not decimals:
        return ops.round(x)
    wide = x if is_float(x.dtype) else ops.cast(x, dtype=float64)
    y = ops.round(wide * 10.0**decimals) / 10.0**decimals
    return y if wide is x else ops.cast(y, dtype=x.dtype)


@composite(numpy=np.clip)
def clamp(x: Any, min: Any = None, max: Any = None) -> Any:
    """Return min(max(x, low), high); either bound may be None. The gradient passes at the bounds."""
    if min is None and max is None:
        raise ConfigError(
            "clamp",
            "neither min nor max given",
            wanted="one of them, or both",
            hint="clamp(min=0)",
        )
    least, most = limits(x.dtype)
    return ops.clamp(x, least if min is None else min, most if max is None else max)


@composite
def where(condition: Any, x: Any, y: Any) -> Any:
    """Return x where `condition`, of bools, is true, else y. A NaN in the branch not taken has no
    influence, forward or backward, along elementwise ops.
    """
    if condition.dtype != bool_:
        raise DTypeError(
            "where",
            f"the condition is {name(condition.dtype)}, not bool",
            got=condition.dtype,
            wanted=bool_,
            hint="minigrad.where(cond, x, y) or cond.where(x, y), with a condition such as x > 0",
        )
    return ops.where(condition, x, y)


@composite
def masked_fill(x: Any, mask: Any, value: Any) -> Any:
    """Return `value` where `mask` is true, else x. The dtype stays."""
    dtype = x.dtype
    if isinstance(value, np.generic):
        value = value.item()
    exact = not isinstance(value, float) or value.is_integer()
    if not is_float(dtype) and (not exact or is_float(getattr(value, "dtype", dtype))):
        raise DTypeError(
            "masked_fill",
            f"{value} into a tensor of {name(dtype)}",
            got=value,
            wanted=dtype,
            hint=".float() first",
        )
    if hasattr(value, "dtype"):
        value = ops.cast(value, dtype=dtype) if value.dtype != dtype else value
    elif not is_float(dtype) and value is not None:
        value = bool(value) if dtype == bool_ else int(value)
    return ops.where(mask, value, x)


@composite(numpy=np.isclose)
def isclose(
    x: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Any:
    """Return True where |x - other| <= atol + rtol |other|, or both are the same infinity."""
    same = ops.equal(x, other)
    if equal_nan:
        both = ops.logical_and(ops.not_equal(x, x), ops.not_equal(other, other))
        same = ops.logical_or(same, both)
    near = ops.less_equal(ops.abs(ops.sub(x, other)), atol + rtol * ops.abs(other))
    return ops.logical_or(same, ops.logical_and(near, ops.isfinite(other)))


@composite(numpy=np.allclose)
def allclose(
    x: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    """Return True if all elements are close, as by isclose."""
    return bool(ops.all(isclose(x, other, rtol, atol, equal_nan)))


@composite(numpy=np.array_equal)
def equal(x: Any, other: Any) -> bool:
    """Return True if the shapes are equal and all elements too."""
    return x.shape == np.shape(other) and bool(ops.all(ops.equal(x, other)))


# --- by index


@composite
def gather(x: Any, axis: int, index: Any) -> Any:
    """Return y[i, j, ...] = x[i, .., index[i, j, ...], ..], the index standing on `axis`.

    Raises IndexRangeError for an index outside 0 .. size - 1.
    """
    return ops.take_along(x, index, axis=one_axis(axis, x.ndim, "gather"))


@composite
def one_hot(index: Any, num_classes: int = -1) -> Any:
    """Return 1 at the place that each index names on a new last axis, else 0, int64. -1: one class
    more than the largest index.
    """
    if num_classes == -1:
        num_classes = int(ops.max(index)) + 1
    return ops.one_hot(index, num_classes=num_classes)


@composite
def nonzero(x: Any, as_tuple: bool = False) -> Any:
    """Return the indices of the elements that are not 0: (count, ndim), int64; or one vector per
    axis.
    """
    found = ops.nonzero(x)
    if not as_tuple:
        return found
    return tuple(ops.getitem(found, index=(slice(None), i)) for i in range(x.ndim))


# --- products and losses


@composite
def einsum(formula: str, *operands: Any) -> Any:
    """Return the sum of products over the letters that the result lacks:
    einsum("bij,bjk->bik", a, b) is a batched matrix product.
    """
    return ops.einsum(formula, *flat(operands))


def sequential(x: Any, functions: Sequence[Callable[[Any], Any]]) -> Any:
    """Return the last of the functions of ... of the first of x."""
    for function in functions:
        x = function(x)
    return x


@composite(numpy=np.outer)
def outer(x: Any, other: Any) -> Any:
    """Return the products of each element of x with each of `other`: (N,), (M,) -> (N, M)."""
    return ops.mul(ops.reshape(x, shape=(-1, 1)), ops.reshape(other, shape=(1, -1)))


@composite(lists=True)
def sparse_categorical_crossentropy(
    x: Any,
    target: Any,
    ignore_index: int = -1,
    label_smoothing: float = 0.0,
    reduction: Reduce = "mean",
) -> Any:
    """Return cross_entropy by its other name, where ignore_index is -1."""
    return cross_entropy(
        x,
        target,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
    )


# --- dtypes and memory


@composite
def cast(x: Any, dtype: Any) -> Any:
    """Return x in another dtype; x itself if it has it already."""
    wanted = as_dtype(dtype, "cast")
    return x if wanted == x.dtype else ops.cast(x, dtype=wanted)


@composite
def to(x: Any, *wanted: Any, **options: Any) -> Any:
    """Return x in another dtype, or x itself: to(dtype), to(device), to(device, dtype). "cpu" is the
    only device.
    """
    found = asked_of_to(wanted, options, "to")
    return x if found is None else cast(x, found)


@composite
def type_as(x: Any, other: Any) -> Any:
    """Return x in the dtype of `other`."""
    return cast(x, other.dtype)


@composite
def contiguous(x: Any) -> Any:
    """Return x, or a copy in row-major order if it is not in that order."""
    array: Array = x if isinstance(x, np.ndarray) else x.data
    return x if array.flags.c_contiguous else ops.copy(x)


def in_dtype(dtype: DType) -> Callable[[Any], Any]:
    """The method that casts to one dtype."""

    def method(x: Any) -> Any:
        return cast(x, dtype)

    method.__name__, method.__doc__ = name(dtype), f"Return x in {name(dtype)}."
    return method
