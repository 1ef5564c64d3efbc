"""Optimizer updates that see a parameter as a matrix: Muon and Adafactor, in place. Operands and
layout are those of `ops.update`.
"""

from __future__ import annotations

import math

import numpy as np

from minigrad.dtypes import Array, cast
from minigrad.ops.calculus import sqrt
from minigrad.ops.contract import matmul, swap_last
from minigrad.ops.elementwise import add, div, mul
from minigrad.ops.reduce import sum as total
from minigrad.primitive import primitive

# Jordan's: steep at 0, so that small singular values grow fast; after five steps all those above
# 0.01 lie in about 0.7 .. 1.2.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def newton_schulz(g, steps=5, coefficients=_COEFFICIENTS, eps=1e-7):
    """A matrix with the singular vectors of `g` and singular values near 1: an odd polynomial of
    fifth degree, applied `steps` times.

    x = g / (|g| + eps);   x <- a x + (b A + c A A) x   with A = x x^T;   a tall matrix is worked on
    as a wide one

    g: (..., M, N), array or Tensor.   |g|: the Frobenius norm, which no singular value exceeds.
    From Jordan et al. 2024, "Muon: an optimizer for hidden layers", after Bernstein and Newhouse
        2024, arXiv:2409.20325.
    """
    a, b, c = coefficients
    tall = g.shape[-2] > g.shape[-1]
    x = swap_last(g) if tall else g
    x = div(x, add(sqrt(total(mul(x, x), axis=(-2, -1), keepdim=True)), eps))
    for _ in range(steps):
        gram = matmul(x, swap_last(x))
        x = add(mul(x, a), matmul(add(mul(gram, b), mul(matmul(gram, gram), c)), x))
    return swap_last(x) if tall else x


@primitive(kind="effect")
def muon_(
    step: Array,
    m: Array,
    *others: Array,
    changes: int,
    nesterov: bool,
    ns_steps: int,
    match_rms: bool,
) -> Array:
    """One step of Muon; returns the step count.

    m <- momentum m + (1 - momentum) g;   u = newton_schulz(m), with nesterov of momentum m + (1 -
    momentum) g
    p <- p (1 - lr decay) - lr scale u;   scale = sqrt(max(1, M / N)), with match_rms 0.2
    sqrt(max(M, N))

    others: n parameters (M, N), settings [lr, momentum, decay] in float64, n gradients.   changes:
        2 + n.   step: int64, 0-d.
    m: flat, as long as all parameters together, in their order.   From Jordan et al. 2024;
        match_rms from Liu et al. 2025, arXiv:2502.16982.
    """
    lr, momentum, decay = others[changes - 2].tolist()
    step += 1
    start = 0
    with np.errstate(all="ignore"):
        for p, g in zip(others[: changes - 2], others[changes - 1 :], strict=True):
            M, N = p.shape
            mi, wide, g = (
                m[start : start + p.size].reshape(p.shape),
                cast(p, m.dtype),
                cast(g, m.dtype),
            )
            start += p.size
            mi *= momentum
            mi += g * (1 - momentum)
            u = newton_schulz(mi * momentum + g * (1 - momentum) if nesterov else mi, ns_steps)
            scale = (
                0.2 * math.sqrt(max(M, N)) if match_rms else math.sqrt(max(1, M / N)) if N else 1.0
            )
            _write(p, wide * (1 - lr * decay) - u * (lr * scale))
    return step


@primitive(kind="effect")
def adafactor_(
    step: Array, row: Array, column: Array, square: Array, *others: Array, changes: int
) -> Array:
    """One step of Adafactor; returns the step count.

    step <- step + 1 = t;   b = 1 - t^beta2_decay;   s = g^2 + eps1;   alpha = max(eps2, rms(p))
    min(lr, 1 / sqrt(t))
    v <- b v + (1 - b) s for a vector;   for matrices, of the last two axes, v = r c^T / mean(r)
    with
    r <- b r + (1 - b) (mean of s along rows),   c <- b c + (1 - b) (mean of s along columns)
    u = g / sqrt(v);   p <- p (1 - lr decay) - alpha u / max(1, rms(u) / clip)

    others: n parameters, settings [lr, beta2_decay, eps1, eps2, clip, decay] in float64, n
        gradients.   changes: 4 + n.   step: int64, 0-d.
    row, column: flat, r of all matrices one after the other, and c;   square: v of all others.
        From Shazeer and Stern 2018, arXiv:1804.04235.
    """
    lr, beta2_decay, eps1, eps2, clip, decay = others[changes - 4].tolist()
    step += 1
    share = float(step) ** beta2_decay
    rate = min(lr, 1 / math.sqrt(float(step)))
    at_row = at_column = at_square = 0
    with np.errstate(all="ignore"):
        for p, g in zip(others[: changes - 4], others[changes - 3 :], strict=True):
            if not p.size:
                continue
            wide, g = cast(p, square.dtype), cast(g, square.dtype)
            s = g * g + eps1
            if p.ndim > 1:
                r, at_row = _part(row, at_row, (*p.shape[:-1], 1))
                c, at_column = _part(column, at_column, (*p.shape[:-2], 1, p.shape[-1]))
                _blend(r, s.mean(axis=-1, keepdims=True), share)
                _blend(c, s.mean(axis=-2, keepdims=True), share)
                u = (
                    g / np.sqrt(r / r.mean(axis=-2, keepdims=True)) / np.sqrt(c)
                )  # r c would underflow: both may be as small as eps1
            else:
                v, at_square = _part(square, at_square, p.shape)
                _blend(v, s, share)
                u = g / np.sqrt(v)
            alpha = max(eps2, _rms(wide)) * rate / max(1.0, _rms(u) / clip)
            _write(p, wide * (1 - lr * decay) - u * alpha)
    return step


def _part(flat: Array, start: int, shape: tuple[int, ...]) -> tuple[Array, int]:
    stop = start + math.prod(shape)
    return flat[start:stop].reshape(shape), stop


def _blend(average: Array, new: Array, share: float) -> None:
    average *= 1 - share
    average += new * share


def _rms(x: Array) -> float:
    return math.sqrt(float(np.mean(np.square(x, dtype=np.float64))))


def _write(p: Array, value: Array) -> None:
    p[...] = cast(value, p.dtype)
