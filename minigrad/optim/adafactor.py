"""Adafactor."""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated

import numpy as np

from minigrad.arguments import as_float
from minigrad.dtypes import Array, cast
from minigrad.optim.groups import ParamGroup
from minigrad.optim.optimizer import Optimizer, Params, Rate, as_pair, given
from minigrad.primitive import primitive
from minigrad.tensor import Tensor


@primitive(kind="effect")
def adafactor_(
    step: Array, row: Array, column: Array, square: Array, *others: Array, changes: int
) -> Array:
    """One step of Adafactor: see `Adafactor`. Settings: [lr, beta2_decay, eps1, eps2, clip,
    weight_decay].

    row, column: r and c of all matrices, one after the other.   square: v of all others.
    """
    n = changes - 4
    lr, beta2_decay, eps1, eps2, clip, decay = others[n].tolist()
    step += 1
    share, rate = float(step) ** beta2_decay, min(lr, 1 / math.sqrt(float(step)))
    at_row = at_column = at_square = 0
    for p, g in zip(others[:n], others[n + 1 :], strict=True):
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


class Adafactor(Optimizer):
    """Adafactor: a matrix's mean squares are kept as one number per row and one per column; steps
    are relative to the size of the parameter.

    b = 1 - t^beta2_decay;   s = g^2 + eps1
    r <- b r + (1 - b) mean(s along rows);   c likewise along columns;   v = r c^T / mean(r)
    u = g / sqrt(v);   alpha = max(eps2, rms(p)) min(lr, 1 / sqrt(t))
    p <- p (1 - lr weight_decay) - alpha u / max(1, rms(u) / clip)

    eps: (eps1, eps2).   A vector keeps v <- b v + (1 - b) s itself.
    From Shazeer and Stern 2018, arXiv:1804.04235, without momentum; the paper's numbers.
    """

    _settings = ("lr", "beta2_decay", "eps", "clip", "weight_decay")
    _moments = ("row_var", "col_var", "variance")
    _op = adafactor_, ()

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-2,
        beta2_decay: Negative = -0.8,
        eps: Rates = (1e-30, 1e-3),
        clip: Positive = 1.0,
        weight_decay: Rate = 0.0,
    ) -> None:
        super().__init__(params, **given(locals()))

    def _moment_shapes(self, group: ParamGroup, p: Tensor) -> list[tuple[int, ...] | None]:
        if p.ndim < 2:
            return [None, None, p.shape]
        return [(*p.shape[:-1], 1), (*p.shape[:-2], 1, p.shape[-1]), None]
