"""Updates in place, of all parameters of a group at once; and clipping.

An optimizer's step is an op (`@primitive(kind="effect")`) next to its class: a function of

    step (int64, 0-d), flat moments, parameters, settings (float64, flat), gradients

that changes all but the last two and returns the step count. The moments are as long as all
parameters together, in their order; a param `changes` says how many operands are changed. The
parameters are worked on in pieces that stay in the second-level cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from minigrad.dtypes import Array, DType, cast
from minigrad.errors import NotFiniteError
from minigrad.primitive import primitive

PIECE = 1 << 15  # numbers: six buffers of 128 KiB
_DOT = 1 << 13  # numbers whose squares are summed at once
_SINGLE, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


def plus(g: Array, factor: float, x: Array, out: Array) -> Array:
    """Return g + factor * x, written to `out`."""
    np.multiply(x, factor, out=out)
    out += g
    return out


def _wide(x: Array) -> Array:
    """Return x in the dtype to compute with: float64 if it is float64, else float32."""
    return x if x.dtype is _SINGLE or x.dtype == _DOUBLE else cast(x, _SINGLE)


def pieces(
    params: tuple[Array, ...], gradients: tuple[Array, ...], dtype: np.dtype[Any]
) -> Iterator[tuple[int, Array, Array]]:
    """Yield (start in the flat moments, parameters, gradients), flat, in `dtype`, at most PIECE
    long. What is done to the parameters stays.
    """
    start = 0
    for first, last in _runs([p.size for p in params], PIECE):
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
    """Return ranges of neighbours with at most `limit` numbers together, or of one with more: a
    hundred biases cost little more than one.
    """
    found, first, total = [], 0, 0
    for i, size in enumerate(sizes):
        if i > first and total + size > limit:
            found.append((first, i))
            first, total = i, 0
        total += size
    return [*found, (first, len(sizes))]


def _cut(start: int, p: Array, g: Array, dtype: DType) -> Iterator[tuple[int, Array, Array]]:
    flat, flat_g = cast(p, dtype).reshape(-1), cast(g, dtype).reshape(-1)
    for at in range(0, p.size, PIECE):
        yield start + at, flat[at : at + PIECE], flat_g[at : at + PIECE]
    if p.dtype != dtype or not p.flags.c_contiguous:  # flat was a copy
        p[...] = cast(flat.reshape(p.shape), p.dtype)


@primitive(kind="effect")
def clip_grad_norm_(
    *gradients: Array, changes: int, max_norm: float, error_if_nonfinite: bool
) -> Array:
    """Scale the gradients and return their norm before, 0-d: see `optim.clip_grad_norm_`."""
    norm = math.sqrt(_sum_of_squares(gradients))
    if error_if_nonfinite and not math.isfinite(norm):
        problem = f"the norm of the gradients is {norm}"
        hint = "error_if_nonfinite=False lets it pass; minigrad.debug(nan=True) finds its source"
        raise NotFiniteError("clip_grad_norm_", problem, got=norm, wanted="finite", hint=hint)
    scale = max_norm / (norm + 1e-6)
    if not scale >= 1:
        for g in gradients:
            if g.dtype.kind == "f":
                g *= scale
            else:
                g[...] = cast(_wide(g) * np.float32(scale), g.dtype)
    double = any(g.dtype == np.float64 for g in gradients)
    return np.array(norm, np.float64 if double else np.float32)


@primitive(kind="effect")
def clip_grad_value_(*gradients: Array, changes: int, clip_value: float) -> Array:
    """Limit the gradients: see `optim.clip_grad_value_`."""
    for g in gradients:
        if g.dtype.kind == "f":
            np.clip(g, -clip_value, clip_value, out=g)
        else:
            g[...] = cast(np.clip(_wide(g), -clip_value, clip_value), g.dtype)
    return np.array(clip_value, np.float32)


def _sum_of_squares(gradients: tuple[Array, ...]) -> float:
    """Summed in float64, in pieces that BLAS does not spread over threads: waking them would cost
    more than the sum.
    """
    flat = [_wide(g).reshape(-1) for g in gradients]
    work, total = np.empty(_DOT, np.float64), 0.0
    for first, last in _runs([g.size for g in flat], _DOT):
        if last > first + 1:
            size = sum(g.size for g in flat[first:last])
            joined = np.concatenate(flat[first:last], out=work[:size])
            total += float(np.dot(joined, joined))
            continue
        for start in range(0, flat[first].size, _DOT):
            part = flat[first][start : start + _DOT]
            copy = work[: part.size]
            copy[:] = part
            total += float(np.dot(copy, copy))
    return total
