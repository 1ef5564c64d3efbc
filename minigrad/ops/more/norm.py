"""Vector norms and what is divided by them; batch normalisation by given statistics."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigrad.arguments import as_float
from minigrad.ops.axis import Axis, one_axis, with_sizes
from minigrad.ops.calculus import pow, sqrt, square
from minigrad.ops.composite import composite
from minigrad.ops.elementwise import abs as abs_, equal, maximum, not_equal, where
from minigrad.ops.movement import cast, reshape
from minigrad.ops.reduce import max as max_, min as min_, sum as sum_


@composite(widen=True, numpy=np.linalg.norm)
def norm(x: Any, p: float | str = 2, axis: Axis = None, keepdim: bool = False) -> Any:
    """Return the p-norm of the vectors along `axis` (None: of all elements): (sum |x|^p)^(1/p).

    p=2 or "fro" is the Euclidean norm, inf and -inf the largest and smallest |x|, 0 the number of
    elements that are not 0. The gradient at 0 is 0.
    """
    p = 2.0 if p == "fro" else as_float("norm", "p", p, -math.inf)
    if math.isinf(p):
        return (max_ if p > 0 else min_)(abs_(x), axis=axis, keepdim=keepdim)
    if p == 0:
        return cast(sum_(not_equal(x, 0), axis=axis, keepdim=keepdim), dtype=x.dtype)
    if p == 1:
        return sum_(abs_(x), axis=axis, keepdim=keepdim)
    total = sum_(square(x) if p == 2 else pow(abs_(x), p), axis=axis, keepdim=keepdim)
    flat = equal(total, 0)
    safe = where(flat, 1, total)
    return where(flat, 0, sqrt(safe) if p == 2 else pow(safe, 1 / p))


@composite(widen=True)
def normalize(x: Any, p: float = 2.0, axis: Axis = 1, eps: float = 1e-12) -> Any:
    """Return x / max(norm(x), eps), with the p-norm along `axis`."""
    return x / maximum(norm(x, p=p, axis=axis, keepdim=True), eps)


@composite(widen=True)
def cosine_similarity(x1: Any, x2: Any, axis: int = 1, eps: float = 1e-8) -> Any:
    """Return x1 . x2 / (max(|x1|, eps) max(|x2|, eps)) along `axis`."""
    lengths = (maximum(norm(x, axis=axis), eps) for x in (x1, x2))
    return sum_(x1 * x2, axis=axis) / (next(lengths) * next(lengths))


@composite(widen=True)
def batchnorm(x: Any, weight: Any, bias: Any, mean: Any, invstd: Any, axis: int = 1) -> Any:
    """Return (x - mean) invstd weight + bias, each of them one number per index of `axis`; weight
    and bias may be None.
    """
    shape = with_sizes((1,) * x.ndim, one_axis(axis, x.ndim, "batchnorm"), -1)
    y = (x - reshape(mean, shape=shape)) * reshape(invstd, shape=shape)
    y = y if weight is None else y * reshape(weight, shape=shape)
    return y if bias is None else y + reshape(bias, shape=shape)
