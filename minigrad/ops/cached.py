"""Attention to a cache whose length is an operand: nothing in a recorded call depends on how much
the cache holds.

`append_` writes new positions into a buffer of fixed size, `cached_attention` reads the filled part
of it. Both read the length when they run. `through_cache` marks a result that no gradient can reach.
"""

from __future__ import annotations

import numpy as np

from minigrad.dtypes import Array, cast
from minigrad.errors import CacheError, CacheGradientError
from minigrad.ops.attention import attention
from minigrad.primitive import primitive


@primitive(kind="effect")
def append_(cache: Array, new: Array, length: Array) -> None:
    """Write `new`, (B, H, T, D), into the positions length .. length + T - 1 of `cache`, (B, H,
    capacity, D), of any strides.

    length: 0-d, integer. Raises CacheError where there is no room.
    """
    start = int(length)
    stop = start + new.shape[2]
    if start < 0 or stop > cache.shape[2]:
        raise CacheError(
            "append_",
            f"positions {start} to {stop - 1} in a cache for {cache.shape[2]}",
            got=stop,
            wanted=cache.shape[2],
        )
    cache[:, :, start:stop] = cast(new, cache.dtype)


@primitive(kind="contract")
def cached_attention(
    q: Array, keys: Array, values: Array, length: Array, first: Array, *, scale: float
) -> Array:
    """The attention of T queries to the keys before and among them, of which `length` lie before
    the first query.

    softmax(scale q keys[:length + T]^T) values[:length + T], where query i sees the positions first
    .. length + i.

    q: (B, H, T, D)   keys: (B, Hkv, capacity, D)   values: (B, Hkv, capacity, E)   length: 0-d,
        integer   first: (B,), integers   ->   (B, H, T, E)
    H is a multiple of Hkv: head h reads the keys of h * Hkv // H. What lies behind the filled part
        is not looked at. It has no derivative.
    """
    T, start, groups = q.shape[2], int(length), q.shape[1] // keys.shape[1]
    k, v = keys[:, :, : start + T], values[:, :, : start + T]
    if groups > 1:
        k, v = np.repeat(k, groups, axis=1), np.repeat(v, groups, axis=1)
    mask = (np.arange(start + T) >= first[:, None])[:, None, None] if first.any() else None
    return attention.forward(q, k, v, mask, None, start, scale=scale)[0]


@primitive(kind="view")
def through_cache(y: Array, *sources: Array) -> Array:
    """Return y, which a KV cache made from the `sources` without recording anything for backward.

    A backward pass that reaches it raises CacheGradientError. A cotangent of zero would be silently wrong.
    """
    return y[...]


@through_cache.vjp
def _(_g, _y, _result, *_sources):
    raise CacheGradientError(
        "backward",
        "no gradient flows through a KV cache",
        got="a result computed with a cache",
        wanted="a forward pass without a cache",
        hint="leave out cache= (or call disable_kv_cache()) to train; a cache is for generation",
    )
