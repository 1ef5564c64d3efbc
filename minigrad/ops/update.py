"""Optimizer updates: one op for all parameters of a group, in place.

The moments of all parameters lie one after the other in one flat buffer, so that an update is a few
numpy calls on pieces that stay in the cache, however many small parameters there are. Settings (lr,
betas, ...) and the step count are operands and not params: a schedule changes numbers in place,
never the program.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from minigrad.dtypes import Array, cast
from minigrad.errors import NotFiniteError
from minigrad.primitive import primitive

_PIECE = (
    1 << 15
)  # numbers worked on at a time: six buffers of 128 KiB stay in the second-level cache
_DOT = 1 << 13  # the same for sums of squares
_SINGLE, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


@primitive(kind="effect")
def adam_(step: Array, m: Array, v: Array, *others: Array, changes: int, decoupled: bool) -> Array:
    """One step of Adam; returns the step count.

    step <- step + 1 = t;   m <- m + (1 - b1) (g - m);   v <- b2 v + (1 - b2) g^2
    p <- p - lr m' / (sqrt(v') + eps)   with m' = m / (1 - b1^t), v' = v / (1 - b2^t)

    others: n parameters, settings [lr, b1, b2, eps, decay] in float64, n gradients.   changes: 3 +
        n.   step: int64, 0-d.
    m, v: flat, as long as all parameters together, in their order.
    decoupled: decay is p <- p (1 - lr decay) first (AdamW: Loshchilov and Hutter 2019,
        arXiv:1711.05101), else it is added to the gradient,
    g + decay p (Adam: Kingma and Ba 2015, arXiv:1412.6980).
    """
    lr, b1, b2, eps, decay = others[changes - 3].tolist()
    step += 1
    t = int(step)
    # The corrections of both moments are moved to two scalars: m' / (sqrt(v') + eps) = root / (1 -
    # b1^t) * m / (sqrt(v) + eps root).
    root = math.sqrt(1 - b2**t)
    rate, eps = lr * root / (1 - b1**t), eps * root
    work, decayed = np.empty((2, _PIECE), m.dtype)
    with np.errstate(all="ignore"):
        for start, p, g in _pieces(others[: changes - 3], others[changes - 2 :], m.dtype):
            n = p.size
            mi, vi, a = m[start : start + n], v[start : start + n], work[:n]
            if decay and decoupled:
                p *= 1 - lr * decay
            elif decay:
                g = _plus(g, decay, p, decayed[:n])
            np.subtract(g, mi, out=a)
            a *= 1 - b1
            mi += a
            np.multiply(g, g, out=a)
            a *= 1 - b2
            vi *= b2
            vi += a
            np.sqrt(vi, out=a)
            a += eps
            np.divide(mi, a, out=a)
            a *= rate
            p -= a
    return step


@primitive(kind="effect")
def sgd_(step: Array, m: Array, *others: Array, changes: int, nesterov: bool) -> Array:
    """One step of gradient descent with momentum; returns the step count.

    g <- g + decay p;   m <- g at the first step, then momentum m + (1 - dampening) g
    p <- p - lr m,   with nesterov p - lr (g + momentum m),   without momentum p - lr g

    others: n parameters, settings [lr, momentum, dampening, decay] in float64, n gradients.
        changes: 2 + n.   step: int64, 0-d.
    m: flat, as long as all parameters together, in their order.   From Sutskever et al. 2013, in
        PyTorch's form.
    """
    lr, momentum, dampening, decay = others[changes - 2].tolist()
    step += 1
    share = 1.0 if step == 1 else 1 - dampening
    work, decayed = np.empty((2, _PIECE), m.dtype)
    with np.errstate(all="ignore"):
        for start, p, g in _pieces(others[: changes - 2], others[changes - 1 :], m.dtype):
            n = p.size
            a = work[:n]
            if decay:
                g = _plus(g, decay, p, decayed[:n])
            if momentum:
                mi = m[start : start + n]
                mi *= momentum
                mi += g if share == 1 else np.multiply(g, share, out=a)
                g = _plus(g, momentum, mi, a) if nesterov else mi
            p -= np.multiply(g, lr, out=a)
    return step


@primitive(kind="effect")
def lion_(step: Array, m: Array, *others: Array, changes: int) -> Array:
    """One step of Lion; returns the step count.

    p <- p (1 - lr decay) - lr sign(b1 m + (1 - b1) g);   m <- b2 m + (1 - b2) g

    others: n parameters, settings [lr, b1, b2, decay] in float64, n gradients.   changes: 2 + n.
        step: int64, 0-d.
    m: flat, as long as all parameters together, in their order.   From Chen et al. 2023,
        arXiv:2302.06675.
    """
    lr, b1, b2, decay = others[changes - 2].tolist()
    step += 1
    work, scaled = np.empty((2, _PIECE), m.dtype)
    with np.errstate(all="ignore"):
        for start, p, g in _pieces(others[: changes - 2], others[changes - 1 :], m.dtype):
            n = p.size
            mi, a, b = m[start : start + n], work[:n], scaled[:n]
            np.multiply(mi, b1, out=a)
            a += np.multiply(g, 1 - b1, out=b)
            np.sign(a, out=a)
            a *= lr
            if decay:
                p *= 1 - lr * decay
            p -= a
            mi *= b2
            mi += np.multiply(g, 1 - b2, out=b)
    return step


def _plus(g: Array, factor: float, x: Array, out: Array) -> Array:
    """g + factor * x, written to `out`."""
    np.multiply(x, factor, out=out)
    out += g
    return out


@primitive(kind="effect")
def clip_grad_norm_(
    *gradients: Array, changes: int, max_norm: float, error_if_nonfinite: bool
) -> Array:
    """Scale the gradients together, in place, so that their common 2-norm is at most max_norm;
    returns the norm before, 0-d.

    g <- g min(1, max_norm / (norm + 1e-6)).   The squares are summed in float64.   changes: the
    number of gradients. A norm that is not finite makes them NaN or 0, or raises NotFiniteError
    before anything is changed, if error_if_nonfinite.
    """
    norm = math.sqrt(_sum_of_squares(gradients))
    if error_if_nonfinite and not math.isfinite(norm):
        raise NotFiniteError(
            "clip_grad_norm_",
            f"the norm of the gradients is {norm}",
            got=norm,
            wanted="finite",
            hint="error_if_nonfinite=False lets it pass; minigrad.debug(nan=True) finds where it "
            "comes from",
        )
    scale = max_norm / (norm + 1e-6)
    if not scale >= 1:
        with np.errstate(all="ignore"):
            for g in gradients:
                if g.dtype.kind == "f":
                    g *= scale
                else:
                    g[...] = cast(_wide(g) * np.float32(scale), g.dtype)
    return np.array(norm, np.float64 if any(g.dtype == _DOUBLE for g in gradients) else np.float32)


def _sum_of_squares(gradients: tuple[Array, ...]) -> float:
    """Summed in float64, in pieces that BLAS does not spread over threads: waking them would cost
    more than the sum.
    """
    flat = [_wide(g).reshape(-1) for g in gradients]
    work, total = np.empty(_DOT, np.float64), 0.0
    for first, last in _runs([g.size for g in flat], _DOT):
        if last > first + 1:
            wide = np.concatenate(
                flat[first:last], out=work[: sum(g.size for g in flat[first:last])]
            )
            total += float(np.dot(wide, wide))
            continue
        for start in range(0, flat[first].size, _DOT):
            part = flat[first][start : start + _DOT]
            wide = work[: part.size]
            wide[:] = part
            total += float(np.dot(wide, wide))
    return total


def _wide(x: Array) -> Array:
    """x in float64 if it is, else in float32: what is computed with."""
    return x if x.dtype is _SINGLE or x.dtype == _DOUBLE else cast(x, _SINGLE)


def _pieces(
    params: tuple[Array, ...], gradients: tuple[Array, ...], dtype: np.dtype[Any]
) -> Iterator[tuple[int, Array, Array]]:
    """(start in the flat buffers, parameters, gradients), flat, in `dtype`, at most _PIECE long;
    what is done to the parameters stays.
    """
    start = 0
    for first, last in _runs([p.size for p in params], _PIECE):
        if last == first + 1:
            yield from _cut(start, params[first], gradients[first], dtype)
            start += params[first].size
            continue
        flat = _joined(params[first:last], dtype)
        yield start, flat, _joined(gradients[first:last], dtype)
        start, at = start + flat.size, 0
        for p in params[first:last]:
            part = flat[at : at + p.size].reshape(p.shape)
            p[...] = part if p.dtype is dtype else cast(part, p.dtype)
            at += p.size


def _joined(arrays: tuple[Array, ...], dtype: np.dtype[Any]) -> Array:
    """One after the other, flat, in `dtype`."""
    return np.concatenate([(x if x.dtype is dtype else cast(x, dtype)).reshape(-1) for x in arrays])


def _runs(sizes: list[int], limit: int) -> list[tuple[int, int]]:
    """Ranges of neighbours with at most `limit` numbers together, or of one with more: a hundred
    biases cost little more than one.
    """
    runs, first, total = [], 0, 0
    for i, size in enumerate(sizes):
        if i > first and total + size > limit:
            runs.append((first, i))
            first, total = i, 0
        total += size
    return [*runs, (first, len(sizes))]


def _cut(
    start: int, p: Array, g: Array, dtype: np.dtype[Any]
) -> Iterator[tuple[int, Array, Array]]:
    flat, flat_g = cast(p, dtype).reshape(-1), cast(g, dtype).reshape(-1)
    for at in range(0, p.size, _PIECE):
        yield start + at, flat[at : at + _PIECE], flat_g[at : at + _PIECE]
    if p.dtype != dtype or not p.flags.c_contiguous:  # flat was a copy
        p[...] = cast(flat.reshape(p.shape), p.dtype)
