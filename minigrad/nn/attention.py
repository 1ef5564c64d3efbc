"""Multi-head self-attention, and the memory of what it has seen.

A `KVCache` belongs to one conversation and arrives as an argument: one model serves many. Causal masks need no cache of their own in a layer; the
attention op takes them from the library's `causal_masks`, a `CausalMaskCache`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minigrad import functional as F, ops
from minigrad.autograd import is_grad_enabled
from minigrad.dtypes import Array, DType, name
from minigrad.errors import CacheError, ConfigError, ShapeError
from minigrad.nn import init
from minigrad.nn.layers import Linear, check_size, empty
from minigrad.nn.module import Module
from minigrad.ops.masks import CausalMaskCache as CausalMaskCache
from minigrad.tensor import Tensor


class CacheInfo(NamedTuple):
    """Positions held, positions there is room for in all, bytes allocated."""

    length: int
    capacity: int
    bytes: int


class KVCache:
    """The keys and values of the positions that one attention layer has seen: two buffers (B, H, positions, D), which grow by doubling.

    capacity: how many positions it may hold. Batch, heads, width and dtype are those of the first `append`.
    Raises CacheError when it is full, for keys of another batch, model or dtype, and for keys that carry gradients.
    """

    _FIRST = 64  # positions allocated at first

    def __init__(self, capacity: int) -> None:
        check_size("KVCache", capacity=capacity)
        self.capacity, self.length = capacity, 0
        self._keys: Array | None = None
        self._values: Array | None = None

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values of T positions, (B, H, T, D); returns those of all positions, (B, H, length, D), as views."""
        start, stop = self.length, self.length + k.shape[2]
        keys, values = self._keys, self._values
        if keys is None or values is None or stop > keys.shape[2]:
            keys, values = self._grow(k, v, stop)
        # Every wrong batch, head count, width or dtype ends here; growing checks the rest.
        if k.dtype != keys.dtype or k.shape[:2] != keys.shape[:2] or k.shape[3] != keys.shape[3]:
            raise self._foreign(k, keys)
        if (k.requires_grad or v.requires_grad) and is_grad_enabled():
            raise CacheError("KVCache", "no gradient flows through a cache", got="keys that require gradients", wanted="no_grad",
                             hint="with minigrad.no_grad(): model(x, caches=caches)")  # fmt: skip
        keys[:, :, start:stop] = k.data
        values[:, :, start:stop] = v.data
        self.length = stop
        return Tensor._wrap(keys[:, :, :stop]), Tensor._wrap(values[:, :, :stop])

    def _grow(self, k: Tensor, v: Tensor, needed: int) -> tuple[Array, Array]:
        if needed > self.capacity:
            raise CacheError("KVCache", f"{needed} positions in a cache for {self.capacity}, of which {self.length} are in use", got=needed,
                             wanted=self.capacity, hint="truncate(n) or reset() makes room; KVCache(capacity) a larger one")  # fmt: skip
        B, H, _, _ = k.shape
        size = min(self.capacity, max(needed, 2 * self.allocated, self._FIRST))
        keys, values = np.empty((B, H, size, k.shape[3]), k.dtype), np.empty((B, H, size, v.shape[3]), v.dtype)
        if self._keys is not None and self._values is not None:
            if self._keys.shape[:2] != (B, H) or self._keys.shape[3] != k.shape[3] or self._keys.dtype != k.dtype:
                raise self._foreign(k, self._keys)
            keys[:, :, : self.length] = self._keys[:, :, : self.length]
            values[:, :, : self.length] = self._values[:, :, : self.length]
        self._keys, self._values = keys, values
        return keys, values

    def _foreign(self, k: Tensor, keys: Array) -> CacheError:
        def shown(shape: tuple[int, ...], dtype: DType) -> str:
            return f"batch {shape[0]}, {shape[1]} heads of {shape[3]}, {name(dtype)}"

        return CacheError("KVCache", f"keys of {shown(k.shape, k.dtype)} for a cache of {shown(keys.shape, keys.dtype)}",
                          got=k.shape, wanted=keys.shape, hint="one cache per layer and conversation; reset() makes it new")  # fmt: skip

    @property
    def allocated(self) -> int:
        """Positions that memory is allocated for."""
        return 0 if self._keys is None else self._keys.shape[2]

    def truncate(self, length: int) -> None:
        """Forget all positions from `length` on."""
        if not 0 <= length <= self.length:
            raise CacheError("KVCache.truncate", f"to {length} of {self.length} positions", got=length, wanted=(0, self.length))
        self.length = length

    def reorder(self, rows: Sequence[int] | Array) -> None:
        """Let row b of the batch go on from what was row rows[b], for beam search; the batch may change its size."""
        index = np.asarray(rows)
        if self._keys is None or self._values is None or index.ndim != 1 or index.dtype.kind not in "iu":
            raise CacheError("KVCache.reorder", f"rows {rows!r} of {'an empty' if self._keys is None else 'this'} cache", got=rows,
                             wanted="a list of row numbers, after the first append")  # fmt: skip
        B = self._keys.shape[0]
        if index.size == 0 or index.min() < 0 or index.max() >= B:
            raise CacheError("KVCache.reorder", f"rows {index.tolist()} of a batch of {B}", got=rows, wanted=(0, B - 1))
        self._keys, self._values = self._keys[index], self._values[index]

    def reset(self) -> None:
        """Empty: ready for another conversation, of any batch."""
        self.length, self._keys, self._values = 0, None, None

    def info(self) -> CacheInfo:
        """Length, capacity and bytes."""
        used = 0 if self._keys is None or self._values is None else self._keys.nbytes + self._values.nbytes
        return CacheInfo(self.length, self.capacity, used)

    def __len__(self) -> int:
        return self.length

    def __bool__(self) -> bool:
        return True  # an empty cache is a cache

    def __repr__(self) -> str:
        return f"<KVCache: {self.length} of {self.capacity} positions>"


class MultiHeadAttention(Module):
    """Self-attention with n_head heads of width D = n_embd / n_head.

    q, k, v = x in_proj_weight^T + in_proj_bias;   y = concat over heads of softmax(q k^T / sqrt(D)) v;   out_proj(y)

    x: (B, T, C)  ->  (B, T, C).   causal: position i sees positions j <= i only.   dropout: on the attention weights.
    in_proj_weight: (3 C, C), the rows of q, then k, then v. Parameter names are PyTorch's. Raises ConfigError unless n_head divides n_embd.
    From Vaswani et al. 2017, arXiv:1706.03762.
    """

    def __init__(
        self, n_embd: int, n_head: int, *, bias: bool = True, causal: bool = True, dropout: float = 0.0
    ) -> None:
        check_size("MultiHeadAttention", n_embd=n_embd, n_head=n_head)
        check_heads("MultiHeadAttention", n_embd, n_head)
        if not 0 <= dropout < 1:
            raise ConfigError("MultiHeadAttention", f"dropout={dropout}", got=dropout, wanted="0 <= dropout < 1")
        self.n_embd, self.n_head, self.causal, self.dropout = n_embd, n_head, causal, dropout
        self.in_proj_weight = init.xavier_uniform_(empty(3 * n_embd, n_embd))
        self.in_proj_bias = init.zeros_(empty(3 * n_embd)) if bias else None
        self.out_proj = Linear(n_embd, n_embd, bias=bias)
        self._cache: KVCache | None = None

    def forward(self, x: Tensor, *, mask: Any = None, cache: KVCache | None = None) -> Tensor:
        """mask: bool, True where a query may look, or float, added to the scores; broadcasts to (B, H, T, S). With `causal`, both hold.

        cache: the keys and values of earlier positions, S - T of them; x is the T positions that follow.
        """
        if x.ndim != 3 or x.shape[2] != self.n_embd:
            raise ShapeError("MultiHeadAttention", f"x has shape {x.shape}", got=x.shape, wanted=("B", "T", self.n_embd),
                             hint="x is (batch, position, feature)")  # fmt: skip
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)  # (B, T, 3 C)
        q, k, v = ops.split_heads(qkv, n_head=self.n_head)  # (B, H, T, D)
        cache = cache if cache is not None else self._cache
        if cache is not None:
            if not self.causal:
                raise CacheError("MultiHeadAttention", "a cache is for causal attention: earlier positions would have to see later ones",
                                 got="causal=False", wanted="causal=True")  # fmt: skip
            k, v = cache.append(k, v)  # (B, H, S, D)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout, self.causal, causal="lower_right")
        return self.out_proj(ops.merge_heads(y))

    def enable_kv_cache(self, capacity: int) -> KVCache:
        """Keep a cache in the layer, for one conversation; returns it. Calls from now on continue where the last one ended."""
        self._cache = KVCache(capacity)
        return self._cache

    def disable_kv_cache(self) -> None:
        """Forget the layer's own cache."""
        self._cache = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_cache": None}  # caches are never saved

    def extra_repr(self) -> str:
        bias = self.in_proj_bias is not None
        return f"{self.n_embd}, {self.n_head}, bias={bias}, causal={self.causal}, dropout={self.dropout}"


def check_heads(call: str, n_embd: int, n_head: int) -> None:
    """Raise ConfigError unless n_head divides n_embd."""
    if n_embd % n_head:
        nearest = min((h for h in range(1, n_embd + 1) if n_embd % h == 0), key=lambda h: abs(h - n_head))
        raise ConfigError(call, f"n_embd={n_embd} does not split into n_head={n_head} heads", got=(n_embd, n_head),
                          wanted="n_embd % n_head == 0", hint=f"try n_head={nearest}")  # fmt: skip
