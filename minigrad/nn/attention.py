"""Multi-head attention: over one sequence or across two, with all that positions, masks and caches
can be.

A `KVCache` belongs to one conversation and arrives as an argument: one model serves many. Causal
masks need no cache in a layer; the attention op takes them from the library's `causal_masks`, a
`CausalMaskCache`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from minigrad import functional as F, ops
from minigrad.arguments import as_float, as_int, as_sizes
from minigrad.autograd import no_grad
from minigrad.dtypes import Array, bool_
from minigrad.errors import CacheError, ConfigError, DTypeError, ShapeError
from minigrad.nn import init
from minigrad.nn.cache import (
    KVCache as KVCache,
    StaticCache as StaticCache,
    without_gradient,
)
from minigrad.nn.layers import Linear, RMSNorm, empty
from minigrad.nn.module import Module
from minigrad.nn.rotary import Layout, RotaryEmbedding
from minigrad.ops.masks import CausalMaskCache as CausalMaskCache, causal_masks
from minigrad.tensor import Tensor
from minigrad.tensor.attention import readable_mask

_CACHES = (KVCache, StaticCache)


class MultiHeadAttention(Module):
    """Attention with n_head heads of width D = n_embd / n_head.

    q, k, v = x in_proj_weight^T + in_proj_bias;   y = concat over heads of softmax(q k^T / sqrt(D))
    v;   out_proj(y)

    x: (B, T, C)  ->  (B, T, C).   causal: position i sees positions j <= i only.   dropout: on the
        attention weights.
    n_kv_head: heads of k and v, each shared by n_head / n_kv_head heads of q (grouped; 1:
        multi-query); n_head unless given.
    rope: "half", "interleaved" or a RotaryEmbedding turns q and k by their positions.   alibi:
        scores fall with distance, see `F.alibi_slopes`.
    window: position i sees the last `window` positions only, its own among them.   qk_norm: RMSNorm
        over each head of q and k, before rope.
    in_proj_weight: (C + 2 n_kv_head D, C), the rows of q, then k, then v. Parameter names are
        PyTorch's. Raises ConfigError unless n_head divides
    n_embd and n_kv_head n_head. From Vaswani et al. 2017, arXiv:1706.03762; Ainslie et al. 2023,
    arXiv:2305.13245 (groups); Henry et al. 2020, arXiv:2010.04245 (qk_norm); Beltagy et al. 2020,
    arXiv:2004.05150 (window).
    """

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        n_kv_head: int | None = None,
        bias: bool = True,
        causal: bool = True,
        rope: Layout | RotaryEmbedding | None = None,
        window: int | None = None,
        alibi: bool = False,
        qk_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        call, kv = type(self).__name__, n_head if n_kv_head is None else n_kv_head
        n_embd, n_head, kv = as_sizes(call, n_embd=n_embd, n_head=n_head, n_kv_head=kv)
        window = None if window is None else as_int(call, "window", window)
        check_heads(call, n_embd, n_head)
        if n_head % kv:
            raise ConfigError(
                call,
                f"n_head={n_head} heads do not share n_kv_head={kv} evenly",
                got=(n_head, kv),
                wanted="n_head % n_kv_head == 0",
            )
        dropout = as_float(call, "dropout", dropout, 0, 1, below=True)
        if not isinstance(rope, str | RotaryEmbedding | None):
            raise ConfigError(
                call,
                f"rope={rope!r}",
                got=rope,
                wanted='"half", "interleaved" or a RotaryEmbedding',
            )
        D = n_embd // n_head
        self.n_embd, self.n_head, self.n_kv_head, self.head_dim = n_embd, n_head, kv, D
        self.causal, self.window, self.alibi, self.dropout = causal, window, alibi, dropout
        self.rope = RotaryEmbedding(D, layout=rope) if isinstance(rope, str) else rope
        if self.rope is not None and self.rope.head_dim != D:
            raise ConfigError(
                call, f"{self.rope} for heads of {D}", got=self.rope.head_dim, wanted=D
            )
        width = n_embd + 2 * kv * D
        self.in_proj_weight = init.xavier_uniform_(empty(width, n_embd))
        self.in_proj_bias = init.zeros_(empty(width)) if bias else None
        self.out_proj = Linear(n_embd, n_embd, bias=bias)
        self.q_norm = RMSNorm(D) if qk_norm else None
        self.k_norm = RMSNorm(D) if qk_norm else None
        self._slopes = F.alibi_slopes(n_head) if alibi else None
        self._cache: KVCache | None = None

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Any = None,
        lengths: Sequence[int] | Array | None = None,
        cache: KVCache | StaticCache | None = None,
        return_weights: bool = False,
    ) -> Any:
        """The attention of x to itself, or, with a context (B, S, C), of x to that: then nothing is
        causal.

        mask: bool, True where a query may look, or float, added to the scores; broadcasts to (B, H,
            T, S). With `causal`, both hold. S counts the cache's positions, oldest first; of a ring
            the last min(window, length) for T = 1, else the window - 1 before x, and x.
        lengths: how many positions of each row are real, those of the context if there is one; the
            rest, at the end, is padding that no one sees.
        cache: the keys and values of earlier positions, S - T of them; x is the T positions that
            follow. Nothing is recorded for backward: a later backward() through y raises
            CacheGradientError.
        return_weights: also the probabilities, (B, H, T, S), as a pair (y, weights).
        """
        for part in (x,) if context is None else (x, context):
            if not isinstance(part, Tensor):
                raise DTypeError(
                    "MultiHeadAttention",
                    f"x is a {type(part).__name__}",
                    got=type(part),
                    wanted="Tensor",
                    hint="Tensor(x)",
                )
            if part.ndim != 3 or part.shape[2] != self.n_embd:
                raise ShapeError(
                    "MultiHeadAttention",
                    f"x has shape {part.shape}",
                    got=part.shape,
                    wanted=("B", "T", self.n_embd),
                    hint="x is (batch, position, feature)",
                )
        causal, cache = (
            self.causal and context is None,
            self._cache if cache is None and context is None else cache,
        )
        if cache is not None and not causal:
            raise CacheError(
                "MultiHeadAttention",
                "a cache is for causal attention: earlier positions would have to see later ones",
                got="causal=False or a context",
                wanted="causal=True",
            )
        if cache is not None and not isinstance(cache, _CACHES):
            raise CacheError(
                "MultiHeadAttention",
                f"cache={cache!r} is no KVCache",
                got=type(cache),
                wanted="KVCache",
                hint="layer.make_cache(); one per layer and conversation",
            )
        if cache is None:
            return self._attend_to_all(x, context, mask, lengths, return_weights)
        with no_grad():
            made = self._attend_to_cache(x, cache, mask, lengths, return_weights)

        def marked(y: Tensor) -> Tensor:
            return without_gradient(y, chain((x, mask), self.parameters()))

        return (marked(made[0]), marked(made[1])) if return_weights else marked(made)

    def _attend_to_all(
        self,
        x: Tensor,
        context: Tensor | None,
        mask: Any,
        lengths: Sequence[int] | Array | None,
        return_weights: bool,
    ) -> Any:
        """`forward` without a cache."""
        q, k, v = self._heads(x) if context is None else self._heads_across(x, context)
        q, k = self._placed(q, k, None)
        if lengths is not None:
            mask = _with_hidden(mask, _padding(lengths, k.shape[0], k.shape[2]))
        return self._attend(
            q, k, v, mask, self.causal and context is None, self.window, return_weights
        )

    def _attend_to_cache(
        self,
        x: Tensor,
        cache: KVCache | StaticCache,
        mask: Any,
        lengths: Sequence[int] | Array | None,
        return_weights: bool,
    ) -> Any:
        """Append the keys and values of x, and attend to all positions held. If anything fails, the
        cache is as it was.
        """
        q, k, v = self._heads(x)
        if isinstance(cache, StaticCache):
            return self._attend_to_static(
                q, k, v, cache, mask is not None or lengths is not None or return_weights
            )
        q, k = self._placed(q, k, cache)
        T, causal, before = q.shape[2], True, cache.mark()
        window = self._reach(cache, T)
        try:
            k, v = cache.append(
                k, v, lengths, in_order=mask is not None or return_weights
            )  # (B, Hkv, S, D)
            hidden = cache.hidden(T, window)
            if hidden is not None:
                mask, causal, window = _with_hidden(mask, hidden), False, None
            return self._attend(q, k, v, mask, causal, window, return_weights)
        except BaseException:
            cache.go_back(before)
            raise

    def _attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Any,
        causal: bool,
        window: int | None,
        return_weights: bool,
    ) -> Any:
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            mask,
            dropout,
            causal,
            enable_gqa=True,
            causal="lower_right",
            window=window,
            alibi=self._slopes,
            return_weights=return_weights,
        )
        if return_weights:
            return self.out_proj(ops.merge_heads(y[0])), y[1]
        return self.out_proj(ops.merge_heads(y))

    def _attend_to_static(
        self, q: Tensor, k: Tensor, v: Tensor, cache: StaticCache, more: bool
    ) -> Tensor:
        if more or self.window is not None or self.alibi or (self.training and self.dropout):
            raise CacheError(
                "MultiHeadAttention",
                "a StaticCache is for plain causal attention",
                got=(self.window, self.alibi, self.dropout),
                wanted="no window, alibi, mask, lengths, weights or dropout",
                hint="a KVCache can do all that",
            )
        q, k = self._placed(q, k, cache)
        return self.out_proj(ops.merge_heads(cache.attend(q, k, v)))

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q (B, H, T, D), k and v (B, Hkv, T, D), from one product."""
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)  # (B, T, C + 2 Hkv D)
        if self.n_kv_head == self.n_head:
            q, k, v = ops.split_heads(qkv, n_head=self.n_head)
            return q, k, v
        C, K = self.n_embd, self.n_kv_head * self.head_dim
        return (
            self._split(qkv[:, :, :C]),
            self._split(qkv[:, :, C : C + K]),
            self._split(qkv[:, :, C + K :]),
        )

    def _heads_across(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q from x, k and v from the context."""
        if self.rope is not None or self.alibi or self.window is not None:
            raise ConfigError(
                "MultiHeadAttention",
                "positions of x and of a context have no common measure",
                got="a context",
                wanted="rope=None, alibi=False, window=None",
            )
        C, K, bias = self.n_embd, self.n_kv_head * self.head_dim, self.in_proj_bias
        q = F.linear(x, self.in_proj_weight[:C], None if bias is None else bias[:C])
        kv = F.linear(context, self.in_proj_weight[C:], None if bias is None else bias[C:])
        return self._split(q), self._split(kv[:, :, :K]), self._split(kv[:, :, K:])

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, n D) -> (B, n, T, D)"""
        return x.reshape(*x.shape[:2], x.shape[2] // self.head_dim, self.head_dim).permute(
            0, 2, 1, 3
        )

    def _placed(
        self, q: Tensor, k: Tensor, cache: KVCache | StaticCache | None
    ) -> tuple[Tensor, Tensor]:
        """q and k, normed and turned by their positions."""
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rope is not None:
            T = q.shape[2]
            if isinstance(cache, StaticCache):
                places, most = cache.positions(T), cache.capacity
                return self.rope.at(q, places, most), self.rope.at(k, places, most)
            positions = np.arange(T) if cache is None else cache.positions(T)
            q, k = self.rope(q, positions), self.rope(k, positions)
        return q, k

    def _reach(self, cache: KVCache | None, T: int) -> int | None:
        """The window that attention must still see to: a ring, asked for one position, gives no
        more than that anyway.
        """
        if cache is None or cache.window is None:
            return self.window
        if self.window != cache.window or self.alibi:
            raise CacheError(
                "MultiHeadAttention",
                f"a ring of {cache.window} positions for window={self.window}, alibi={self.alibi}",
                got=cache.window,
                wanted=self.window,
                hint="layer.make_cache() makes one that fits",
            )
        return None if T == 1 else self.window

    # --- caches

    def make_cache(self, capacity: int | None = None) -> KVCache:
        """An empty cache for one conversation; with a window, a ring that holds no more than that."""
        ring = self.window is not None and not self.alibi
        return KVCache(capacity, window=self.window if ring else None)

    def enable_kv_cache(self, capacity: int | None = None) -> KVCache:
        """Keep a cache in the layer, for one conversation; returns it. Calls from now on continue
        where the last one ended.
        """
        self._cache = self.make_cache(capacity)
        return self._cache

    def disable_kv_cache(self) -> None:
        """Forget the layer's own cache."""
        self._cache = None

    @property
    def causal_mask_cache(self) -> CausalMaskCache:
        """The causal masks that all layers share."""
        return causal_masks

    def get_or_create_causal_mask(self, seq_len: int) -> Array:
        """(seq_len, seq_len) of bool, True where position i may look at j: j <= i. A view of the
        shared cache.
        """
        return causal_masks.get_or_create(seq_len)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_cache": None}  # caches are never saved

    def extra_repr(self) -> str:
        text = f"{self.n_embd}, {self.n_head}"
        text += f", n_kv_head={self.n_kv_head}" if self.n_kv_head != self.n_head else ""
        text += f", bias={self.in_proj_bias is not None}, causal={self.causal}"
        text += f", rope={self.rope}" if self.rope is not None else ""
        text += f", window={self.window}" if self.window is not None else ""
        text += ", alibi=True" if self.alibi else ""
        text += ", qk_norm=True" if self.q_norm is not None else ""
        return text + f", dropout={self.dropout}"


def _padding(lengths: Sequence[int] | Array, B: int, S: int) -> Array:
    """The keys behind each row's length, (B, 1, 1, S) of bool."""
    try:
        counts = np.asarray(lengths)
    except ValueError:  # lists of several lengths
        counts = np.empty(0)
    if (
        counts.shape != (B,)
        or counts.dtype.kind not in "iu"
        or counts.min(initial=0) < 0
        or counts.max(initial=0) > S
    ):
        raise ShapeError(
            "MultiHeadAttention",
            f"lengths {lengths!r} for {B} rows of {S} positions",
            got=lengths,
            wanted=f"{B} integers from 0 to {S}",
        )
    return (np.arange(S) >= counts[:, None])[:, None, None]


def _with_hidden(mask: Any, hidden: Array | None) -> Any:
    """A user's mask, bool or float, that hides these keys as well."""
    if hidden is None:
        return mask
    seen = Tensor._wrap(~hidden)
    if mask is None:
        return seen
    mask = readable_mask(
        mask if isinstance(mask, Tensor) else Tensor(mask)
    )  # before it has numbers in it that are not the user's
    return ops.logical_and(mask, seen) if mask.dtype == bool_ else ops.where(seen, mask, -np.inf)


def check_heads(call: str, n_embd: int, n_head: int) -> None:
    """Raise ConfigError unless n_head divides n_embd."""
    if n_embd % n_head:
        nearest = min(
            (h for h in range(1, n_embd + 1) if n_embd % h == 0), key=lambda h: abs(h - n_head)
        )
        raise ConfigError(
            call,
            f"n_embd={n_embd} does not split into n_head={n_head} heads",
            got=(n_embd, n_head),
            wanted="n_embd % n_head == 0",
            hint=f"try n_head={nearest}",
        )
