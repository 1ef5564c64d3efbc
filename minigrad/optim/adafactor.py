"""Adafactor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import numpy as np

from minigrad.arguments import as_float
from minigrad.dtypes import Array, cast
from minigrad.optim.groups import Shapes
from minigrad.optim.optimizer import Optimizer, Rate, as_pair
from minigrad.optim.update import begin
from minigrad.primitive import primitive
from minigrad.tensor import Tensor


@primitive(kind="effect")
def adafactor_(step: Array, *operands: Array, changes: int) -> Array:
    """One step of Adafactor: see `Adafactor`. The moments are r and c of all matrices, one after
    the other, and v of all others.
    """
    t, settings, moments, params, gradients = begin(step, operands, changes)
    (lr, beta2_decay, eps1, eps2, clip, decay), (row, column, square) = settings, moments
    share, rate = float(t) ** beta2_decay, min(lr, 1 / math.sqrt(t))
    at_row = at_column = at_square = 0
    for p, g in zip(params, gradients, strict=True):
        if not p.size:
            continue
        wide, g = cast(p, square.dtype), cast(g, square.dtype)
        s = g * g + eps1
        if p.ndim > 1:
            r, at_row = _part(row, at_row, (*p.shape[:-1], 1))
            c, at_column = _part(column, at_column, (*p.shape[:-2], 1, p.shape[-1]))
            _blend(r, s.mean(axis=-1, keepdims=True), share)
            _blend(c, s.mean(axis=-2, keepdims=True), share)
            # r c would underflow: both may be as small as eps1.
            u = g / np.sqrt(r / r.mean(axis=-2, keepdims=True)) / np.sqrt(c)
        else:
            v, at_square = _part(square, at_square, p.shape)
            _blend(v, s, share)
            u = g / np.sqrt(v)
        alpha = max(eps2, _rms(wide)) * rate / max(1.0, _rms(u) / clip)
        p[...] = cast(wide * (1 - lr * decay) - u * alpha, p.dtype)
    return step


def _part(flat: Array, start: int, shape: tuple[int, ...]) -> tuple[Array, int]:
    stop = start + math.prod(shape)
    return flat[start:stop].reshape(shape), stop


def _blend(average: Array, new: Array, share: float) -> None:
    average *= 1 - share
    average += new * share


def _rms(x: Array) -> float:
    return math.sqrt(float(np.mean(np.square(x, dtype=np.float64))))


Negative = Annotated[float, partial(as_float, least=-math.inf, most=0, above=True)]
Positive = Annotated[float, partial(as_float, least=0, above=True, below=True)]
Rates = Annotated[tuple[float, float], partial(as_pair, least=0, below=True)]


class Adafactor(Optimizer, update=adafactor_, moments=("row_var", "col_var", "variance")):
    """Adafactor: a matrix's mean squares are kept as one number per row and one per column; steps
    are relative to the size of the parameter.

    b = 1 - t^beta2_decay;   s = g^2 + eps1
    r <- b r + (1 - b) mean(s along rows);   c likewise along columns;   v = r c^T / mean(r)
    u = g / sqrt(v);   alpha = max(eps2, rms(p)) min(lr, 1 / sqrt(t))
    p <- p (1 - lr weight_decay) - alpha u / max(1, rms(u) / clip)

    eps: (eps1, eps2).   A vector keeps v <- b v + (1 - b) s itself.
    From Shazeer and Stern 2018, arXiv:1804.04235, without momentum; the paper's numbers.
    """

    lr: Rate = 1e-2
    beta2_decay: Negative = -0.8
    eps: Rates = (1e-30, 1e-3)
    clip: Positive = 1.0
    weight_decay: Rate = 0.0

    def _moment_shapes(self, group: Mapping[str, Any], p: Tensor) -> Shapes:
        if p.ndim < 2:
            return {"variance": p.shape}
        return {"row_var": (*p.shape[:-1], 1), "col_var": (*p.shape[:-2], 1, p.shape[-1])}
