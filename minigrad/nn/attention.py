"""Multi-head attention: over one sequence or across two, with positions, masks and caches.

A `KVCache` belongs to one conversation and is passed as an argument: one model serves many.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from minigrad import functional as F, ops
from minigrad.arguments import as_float, as_int, require
from minigrad.dtypes import Array, bool_
from minigrad.errors import CacheError, ConfigError, DTypeError, ShapeError
from minigrad.modes import no_grad
from minigrad.nn import init
from minigrad.nn.cache import (
    KVCache as KVCache,
    StaticCache as StaticCache,
    row_counts,
    without_gradient,
)
from minigrad.nn.layers import Linear, RMSNorm, empty
from minigrad.nn.module import Layer
from minigrad.nn.quantised import linear
from minigrad.nn.rotary import Layout, RotaryEmbedding
from minigrad.ops.masks import CausalMaskCache as CausalMaskCache, causal_masks
from minigrad.tensor import Tensor
from minigrad.tensor.attention import readable_mask

_NAME = "MultiHeadAttention"
Heads = tuple[Tensor, Tensor, Tensor]  # q, k and v


class MultiHeadAttention(Layer):
    """Attention with n_head heads of width D = n_embd / n_head, or head_dim where it is given.

    q, k, v = x in_proj_weight^T + in_proj_bias
    y = out_proj(concatenation over heads of softmax(q k^T / sqrt(D)) v)

    x: (B, T, C)  ->  (B, T, C).   causal: position i sees positions j <= i only.   dropout: on the
        attention weights.
    n_kv_head: heads of k and v, each shared by n_head / n_kv_head heads of q (grouped; 1:
        multi-query); n_head unless given.
    rope: "half", "interleaved" or a RotaryEmbedding turns q and k by their positions.   alibi:
        scores fall with distance, see `F.alibi_slopes`.
    window: position i sees the last `window` positions only, its own among them.   qk_norm: RMSNorm
        over each head of q and k, before rope.
    in_proj_weight: ((n_head + 2 n_kv_head) D, C), the rows of q, then k, then v. Parameter names
        are PyTorch's.

    Encoder: causal=False.   Decoder with an encoder: `layer(x, context)` is cross-attention, x
    looks at the context, whatever `causal` is.

    Raises ConfigError unless n_head divides n_embd and n_kv_head n_head. From Vaswani et al. 2017,
    arXiv:1706.03762; Ainslie et al. 2023, arXiv:2305.13245 (groups); Henry et al. 2020,
    arXiv:2010.04245 (qk_norm); Beltagy et al. 2020, arXiv:2004.05150 (window).
    """

    _always = ("bias", "causal", "dropout")

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
        head_dim: int | None = None,
    ) -> None:
        call = type(self).__name__
        n_embd, n_head = as_int(call, "n_embd", n_embd), as_int(call, "n_head", n_head)
        kv = as_int(call, "n_kv_head", n_head if n_kv_head is None else n_kv_head)
        if head_dim is None:
            check_heads(call, n_embd, n_head)
        require(n_head % kv == 0, call, "n_kv_head", kv, f"a divisor of n_head={n_head}")
        choices = '"half", "interleaved" or a RotaryEmbedding'
        require(isinstance(rope, str | RotaryEmbedding | None), call, "rope", rope, choices)
        D = n_embd // n_head if head_dim is None else as_int(call, "head_dim", head_dim)
        self.n_embd, self.n_head, self.n_kv_head, self.head_dim = n_embd, n_head, kv, D
        self.causal, self.alibi = causal, alibi
        self.window = None if window is None else as_int(call, "window", window)
        self.dropout = as_float(call, "dropout", dropout, 0, 1, below=True)
        self.rope = RotaryEmbedding(D, layout=rope) if isinstance(rope, str) else rope
        fits = self.rope is None or self.rope.head_dim == D
        require(fits, call, "rope", self.rope, f"an embedding for heads of {D} features")
        width = (n_head + 2 * kv) * D
        self.in_proj_weight = init.xavier_uniform_(empty(width, n_embd))
        self.in_proj_bias = init.zeros_(empty(width)) if bias else None
        self.out_proj = Linear(n_head * D, n_embd, bias=bias)
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
        """Return the attention of x to itself, or, with a context (B, S, C), of x to that: then
        nothing is causal.

        mask: bool, True where a query may look, or float, added to the scores; broadcasts to
            (B, H, T, S). With `causal`, both hold. S counts the cache's positions, oldest first; of
            a cache with a window the window - 1 before x, and x.
        lengths: how many positions of each row are real, those of the context if there is one; the
            rest, at the end, is padding that no query sees.
        cache: the keys and values of earlier positions, S - T of them; x is the T positions that
            follow. Nothing is recorded for backward: a later backward() through y raises
            CacheGradientError.
        return_weights: also return the probabilities, (B, H, T, S): (y, weights).
        """
        for part in (x,) if context is None else (x, context):
            self._check_input(part)
        cache = self._cache if cache is None and context is None else cache
        if cache is None:
            q, k, v = self._heads(x, context, None)
            if lengths is not None:
                B, _, S, _ = k.shape
                counts = row_counts(lengths, B, S, _NAME, ShapeError)
                mask = _with_hidden(mask, (np.arange(S) >= counts[:, None])[:, None, None])
            causal = self.causal and context is None
            return self._attend((q, k, v), mask, causal, self.window, return_weights)
        self._check_cache(cache, context)
        with no_grad():
            if isinstance(cache, StaticCache):
                plain = mask is None and lengths is None and not return_weights
                made = self._attend_to_static(x, cache, plain)
            else:
                made = self._attend_to_cache(x, cache, mask, lengths, return_weights)

        def marked(y: Tensor) -> Tensor:
            return without_gradient(y, chain((x, mask), self.parameters()))

        return (marked(made[0]), marked(made[1])) if return_weights else marked(made)

    def _check_input(self, x: Any) -> None:
        if not isinstance(x, Tensor):
            problem = f"x must be a Tensor, got {type(x).__name__}"
            raise DTypeError(_NAME, problem, got=type(x), wanted="Tensor", hint="Tensor(x)")
        if x.ndim != 3 or x.shape[2] != self.n_embd:
            wanted = f"(batch, position, feature) with {self.n_embd} features"
            problem = f"x must be {wanted}, got shape {x.shape}"
            raise ShapeError(_NAME, problem, got=x.shape, wanted=("B", "T", self.n_embd))

    def _check_cache(self, cache: Any, context: Tensor | None) -> None:
        got: Any = type(cache)
        problem, wanted, hint = "", "KVCache", "layer.make_cache(); one per layer and conversation"
        if not isinstance(cache, KVCache | StaticCache):
            problem = f"cache must be a KVCache, got {cache!r}"
        elif not self.causal or context is not None:
            problem = "a cache is for causal self-attention: earlier positions see no later ones"
            got, wanted, hint = "causal=False or a context", "causal=True", ""
        elif isinstance(cache, KVCache) and cache.window not in (None, self.window):
            problem = f"a cache with window={cache.window} for a layer with window={self.window}"
            got, wanted = cache.window, f"window={self.window}"
        if problem:
            raise CacheError(_NAME, problem, got=got, wanted=wanted, hint=hint)

    def _attend_to_static(self, x: Tensor, cache: StaticCache, plain: bool) -> Tensor:
        plain = plain and self.window is None and not self.alibi
        if not plain or (self.training and self.dropout):
            wanted = "no window, alibi, mask, lengths, weights or dropout"
            got, hint = (self.window, self.alibi, self.dropout), "a KVCache can do all that"
            problem = "a StaticCache is for plain causal attention"
            raise CacheError(_NAME, problem, got=got, wanted=wanted, hint=hint)
        return self.out_proj(ops.merge_heads(cache.attend(*self._heads(x, None, cache))))

    def _attend_to_cache(
        self, x: Tensor, cache: KVCache, mask: Any, lengths: Any, return_weights: bool
    ) -> Any:
        """Append the keys and values of x, and attend to all positions held. If anything fails, the
        cache is as it was.
        """
        q, k, v = self._heads(x, None, cache)
        causal, window, before = True, self.window, cache.mark()
        try:
            hidden = cache.hidden(q.shape[2], window)
            k, v = cache.append(k, v, lengths)  # (B, Hkv, S, D)
            if hidden is not None:
                mask, causal, window = _with_hidden(mask, hidden), False, None
            return self._attend((q, k, v), mask, causal, window, return_weights)
        except BaseException:
            cache.go_back(before)
            raise

    def _attend(self, heads: Heads, mask: Any, causal: bool, window: Any, weights: bool) -> Any:
        how: dict[str, Any] = {"window": window, "alibi": self._slopes, "return_weights": weights}
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(
            *heads, mask, dropout, causal, None, True, causal="lower_right", **how
        )
        if weights:
            return self.out_proj(ops.merge_heads(y[0])), y[1]
        return self.out_proj(ops.merge_heads(y))

    def _heads(
        self, x: Tensor, context: Tensor | None, cache: KVCache | StaticCache | None
    ) -> Heads:
        """q (B, H, T, D) of x, and k and v (B, Hkv, S, D) of x, or of the context; q and k
        normalised, and turned by their positions.
        """
        C, K = self.n_head * self.head_dim, self.n_kv_head * self.head_dim
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if context is None:
            qkv = linear(x, weight, bias)  # (B, T, C + 2 Hkv D)
            if self.n_kv_head == self.n_head:
                q, k, v = ops.split_heads(qkv, n_head=self.n_head)
            else:
                q, k, v = map(self._split, qkv.split([C, K, K], 2))
        else:
            apart = self.rope is None and not self.alibi and self.window is None
            wanted = "left out with rope, alibi or window: positions have no common measure"
            require(apart, _NAME, "context", context.shape, wanted)
            q = self._split(ops.linear(x, weight[:C], None if bias is None else bias[:C]))
            kv = ops.linear(context, weight[C:], None if bias is None else bias[C:])
            k, v = map(self._split, kv.split([K, K], 2))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rope is None:
            return q, k, v
        T = x.shape[1]
        if isinstance(cache, StaticCache):
            places, most = cache.slots(T), cache.capacity
            return self.rope.at(q, places, most), self.rope.at(k, places, most), v
        positions = np.arange(T) if cache is None else cache.positions(T)
        return self.rope(q, positions), self.rope(k, positions), v

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, n D) -> (B, n, T, D)"""
        B, T, width = x.shape
        return x.reshape(B, T, width // self.head_dim, self.head_dim).permute(0, 2, 1, 3)

    # --- caches

    def make_cache(self, capacity: int | None = None) -> KVCache:
        """Return an empty cache for one conversation. With a window it holds no more than that;
        with ALiBi it holds all, so that rows may have different lengths.
        """
        return KVCache(capacity, window=None if self.alibi else self.window)

    def enable_kv_cache(self, capacity: int | None = None) -> KVCache:
        """Keep a cache in the layer, for one conversation, and return it. Calls from now on
        continue where the last one ended.
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
        """Return (seq_len, seq_len) of bool, True where position i may look at j: j <= i. A view of
        the shared cache.
        """
        return causal_masks.get_or_create(seq_len)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_cache": None}  # caches are never saved

    def _worked_out(self) -> dict[str, Any]:
        grouped = None if self.n_kv_head == self.n_head else self.n_kv_head
        width = None if self.head_dim * self.n_head == self.n_embd else self.head_dim
        given = {"n_kv_head": grouped, "head_dim": width}
        return given | {"bias": self.in_proj_bias, "qk_norm": self.q_norm}


def _with_hidden(mask: Any, hidden: Array) -> Any:
    """A user's mask, bool or float, that hides these keys as well."""
    seen = Tensor._wrap(~hidden)
    if mask is None:
        return seen
    # Checked before it has numbers in it that are not the user's.
    mask = readable_mask(mask if isinstance(mask, Tensor) else Tensor(mask))
    return ops.logical_and(mask, seen) if mask.dtype == bool_ else ops.where(seen, mask, -np.inf)


def check_heads(call: str, n_embd: int, n_head: int) -> None:
    """Raise ConfigError unless n_head divides n_embd."""
    if n_embd % n_head:
        divisors = (h for h in range(1, n_embd + 1) if n_embd % h == 0)
        problem = f"n_head must divide n_embd, got n_embd={n_embd} and n_head={n_head}"
        hint = f"try n_head={min(divisors, key=lambda h: abs(h - n_head))}"
        raise ConfigError(call, problem, (n_embd, n_head), "n_embd % n_head == 0", hint)
