"""A cache of fixed size whose length is an operand, so that a recorded call does not depend on it.

`append_` writes new positions into it; `attention` reads the filled part if its offset is the
length. `through_cache` marks a result that no gradient can reach.
"""

from __future__ import annotations

from minigrad.dtypes import Array, cast
from minigrad.errors import CacheError, CacheGradientError
from minigrad.primitive import primitive


@primitive(kind="effect")
def append_(cache: Array, new: Array, length: Array) -> None:
    """Write `new`, (B, H, T, D), to the positions length .. length + T - 1 of `cache`,
    (B, H, capacity, D), of any strides.

    length: 0-d, integer. Raises CacheError if there is no room.
    """
    start = int(length)
    stop = start + new.shape[2]
    if start < 0 or stop > cache.shape[2]:
        problem = f"positions {start} to {stop - 1} in a cache for {cache.shape[2]}"
        raise CacheError("append_", problem, got=stop, wanted=cache.shape[2])
    cache[:, :, start:stop] = cast(new, cache.dtype)


@primitive(kind="view")
def through_cache(y: Array, *sources: Array) -> Array:
    """Return y, which a KV cache made from the `sources` without recording anything for backward.

    A backward pass that reaches it raises CacheGradientError. A cotangent of zero would be silently
    wrong.
    """
    return y[...]


@through_cache.vjp
def _(_g, _y, _result, *_sources):
    got, wanted = "a result computed with a cache", "a forward pass without a cache"
    hint = "leave out cache= (or call disable_kv_cache()) to train; a cache is for generation"
    problem = "no gradient flows through a KV cache"
    raise CacheGradientError("backward", problem, got=got, wanted=wanted, hint=hint)
