"""Random bits: Philox 4x32-10, and dropout, which is made of them.

The state, a uint64 array [seed, counter], is the last operand of an op of kind "random", which
advances it in place.
"""

from __future__ import annotations

import math

import numpy as np

from minigrad.arguments import require
from minigrad.dtypes import Array, cast, computing
from minigrad.primitive import primitive

# The multipliers and Weyl constants of Philox 4x32, from Salmon et al. 2011, section 3.3 and table
# 2.
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


@primitive(kind="random")
def philox(state: Array, *, n: int) -> Array:
    """Return n uint32 words. Block i of four comes from counter (c + i, 0) and key = seed;
    afterwards the counter is c + ceil(n / 4).
    """
    blocks = -(-n // 4)
    seed, counter = state
    with np.errstate(over="ignore"):
        index = np.arange(blocks, dtype=np.uint64) + counter
        state[1] = counter + np.uint64(blocks)
    x0, x1 = index & _LOW, index >> _32
    x2, x3 = np.zeros(blocks, np.uint64), np.zeros(blocks, np.uint64)
    k0, k1 = int(seed) & 0xFFFFFFFF, int(seed) >> 32
    for _ in range(10):
        p0, p1 = x0 * _M0, x2 * _M1  # 32 x 32 -> 64 bits: exact
        x0, x1 = (p1 >> _32) ^ x1 ^ np.uint64(k0), p1 & _LOW
        x2, x3 = (p0 >> _32) ^ x3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return np.stack([x0, x1, x2, x3], axis=1).astype(np.uint32).reshape(-1)[:n]


@primitive(kind="random")
def kept(state: Array, *, shape: tuple[int, ...], p: float) -> Array:
    """Return True for the elements of an array of this shape that a dropout keeps, each with
    probability 1 - p. Word i of Philox decides element i.
    """
    words = philox.forward(state, n=math.prod(shape))
    return (words >= np.uint32(min(round(p * 2.0**32), 2**32 - 1))).reshape(shape)


@primitive(kind="random", outputs=2)
def dropout(x: Array, state: Array, *, p: float) -> tuple[Array, Array]:
    """Return x with each element set to 0 with probability p, else scaled by 1 / (1 - p), which
    keeps the expectation; and the factors, in float32 for 16-bit floats.
    """
    wide = computing(x.dtype)
    factor = wide.type(1 / (1 - p) if p < 1 else 0)
    mask = (kept.forward(state, shape=x.shape, p=p) * factor).astype(wide, copy=False)
    return cast(cast(x, wide) * mask, x.dtype), mask


@dropout.vjp
def _(g, y, _x, _state, *, p):
    return None if g[0] is None else g[0] * y[1], None


@primitive(kind="random")
def multinomial(weights: Array, state: Array, *, num_samples: int, replacement: bool) -> Array:
    """Return indices drawn in proportion to the weights of each row: (..., K) -> (...,
    num_samples), int64.

    Without replacement by exponential races: the k smallest of -log(u) / weight. From Efraimidis
        and Spirakis 2006, Inf. Process. Lett. 97.
    """
    w = np.asarray(weights, np.float64)
    rows = w.reshape(-1, w.shape[-1])
    possible = (rows > 0).sum(axis=-1)
    good = np.isfinite(rows).all() and (rows >= 0).all() and (possible > 0).all()
    require(good, "multinomial", "weights", weights.shape, "finite, none negative, and not all 0")
    most = num_samples if replacement else possible.min(initial=num_samples)
    hint = "replacement=True draws any number"
    wanted = f"from 1 to the {possible.min(initial=num_samples)} possible ones"
    require(1 <= num_samples <= most, "multinomial", "num_samples", num_samples, wanted, hint)
    draws = num_samples if replacement else rows.shape[-1]
    words = philox.forward(state, n=2 * len(rows) * draws).astype(np.uint64)
    high, low = words.reshape(2, len(rows), draws)
    unit = ((high << np.uint64(21) ^ low >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    if replacement:
        ends = np.cumsum(rows, axis=-1)
        drawn = zip(ends, unit, strict=True)
        index = np.stack([np.searchsorted(e, u * e[-1], side="right") for e, u in drawn])
    else:
        with np.errstate(divide="ignore"):
            index = np.argsort(-np.log(unit) / rows, axis=-1, kind="stable")[:, :num_samples]
    return index.reshape(*w.shape[:-1], num_samples)
