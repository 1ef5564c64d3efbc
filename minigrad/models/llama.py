"""Llama-type models: Llama, SmolLM, Qwen 2 and 3, Gemma 3. One block, `nn.TransformerBlock`, whose
parts are settings. From Touvron et al. 2023, arXiv:2302.13971.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from minigrad.arguments import as_float, as_int, require
from minigrad.models.gpt import GPT
from minigrad.nn import init
from minigrad.nn.containers import ModuleList
from minigrad.nn.layers import Dropout, Embedding, Linear, RMSNorm, empty
from minigrad.nn.quantised import linear
from minigrad.nn.rotary import Layout, RotaryEmbedding
from minigrad.nn.transformer import TransformerBlock
from minigrad.tensor import Tensor

if TYPE_CHECKING:
    from minigrad.models.decoding import Decoder

_WIDEST = 4096  # features of a head
_OF_BLOCK = ["n_embd", "n_head", "n_kv_head", "head_dim", "hidden"]
_SIZES = ["vocab_size", "block_size", "n_layer", *_OF_BLOCK]
# Settings of a TransformerBlock that have the same name here.
_SAME = [*_OF_BLOCK, "qk_norm", "norm_eps", "mlp", "post_norm"]


@dataclass(frozen=True)
class LlamaConfig:
    """The sizes and parts of a Llama-type model. Raises ConfigError for an invalid one.

    block_size: longest context.   hidden: the width inside the MLP.   head_dim: of each head,
        n_embd / n_head in Llama.   rope_layout: "half" for weights of Hugging Face, "interleaved"
        for those of a GGUF file of Llama, whose rows are permuted.   rope_scaling: see
        RotaryEmbedding.   rope_divisors: of the frequency of each pair, as GGUF files of Llama 3
        have them.
    qkv_bias: Qwen 2.   qk_norm: Qwen 3.   tied: the head is the embedding.
    Gemma 3: mlp "geglu";   post_norm: see TransformerBlock;   embedding_scale: times the embedding;
        window: how far layers look back whose number is not in `full`, and which have local_base.
    """

    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int
    hidden: int
    head_dim: int
    norm_eps: float = 1e-5
    rope_base: float = 10000.0
    rope_layout: Layout = "half"
    rope_scaling: Mapping[str, Any] | None = None
    rope_divisors: Sequence[float] = ()
    qkv_bias: bool = False
    qk_norm: bool = False
    tied: bool = True
    mlp: Literal["swiglu", "geglu"] = "swiglu"
    post_norm: bool = False
    embedding_scale: float = 1.0
    window: int | None = None
    full: Sequence[int] = ()
    local_base: float = 10000.0

    def __post_init__(self) -> None:
        for name in _SIZES:
            object.__setattr__(self, name, as_int("LlamaConfig", name, getattr(self, name)))
        as_float("LlamaConfig", "norm_eps", self.norm_eps, 0, 1)
        good, wanted = self.head_dim in range(2, _WIDEST + 1, 2), f"an even number up to {_WIDEST}"
        require(good, "LlamaConfig", "head_dim", self.head_dim, wanted)


class ScaledEmbedding(Embedding):
    """An embedding that is multiplied by `scale`, but not where it is the head."""

    def __init__(self, num_embeddings: int, embedding_dim: int, scale: float) -> None:
        super().__init__(num_embeddings, embedding_dim)
        self.scale = scale

    def forward(self, tokens: Any) -> Tensor:
        """scale * weight[tokens]."""
        return super().forward(tokens) * self.scale


class Llama(GPT):
    """Tokens in, logits of the next token out: (B, T) -> (B, T, vocab_size). Used as a GPT is:
    `generate`, caches, `loss`.

    x = wte[tokens];   x = h_i(x) for each block;   logits = head(ln_f(x))
    """

    config: LlamaConfig  # type: ignore[assignment]

    def __init__(self, config: LlamaConfig) -> None:
        self.config = config
        size, scale = (config.vocab_size, config.n_embd), config.embedding_scale
        self.wte = Embedding(*size) if scale == 1 else ScaledEmbedding(*size, scale)
        self.wpe, self.drop = None, Dropout(0.0)
        ropes = {window: _rope(config, window) for window in (None, config.window)}
        windows = (None if i in config.full else config.window for i in range(config.n_layer))
        self.h = ModuleList(_block(config, ropes[window], window) for window in windows)
        self.ln_f = RMSNorm(config.n_embd, config.norm_eps)
        self.lm_head = None if config.tied else Linear(*size[::-1], bias=False)
        self._caches, self._decoders = None, {}

    def _head(self, x: Tensor) -> Tensor:
        return linear(x, self.wte.weight) if self.lm_head is None else self.lm_head(x)

    def own_products(self) -> list[tuple[str, int]]:
        """What it multiplies itself, for `minigrad.viz.describe`: the head, if it is tied."""
        return super().own_products() if self.lm_head is None else []

    def _take_decoder(self, *request: Any) -> Decoder | None:
        return None if self.config.window is not None else super()._take_decoder(*request)


def _rope(config: LlamaConfig, window: int | None) -> RotaryEmbedding:
    """The positions of all layers with this window, which share its tables."""
    base = config.rope_base if window is None else config.local_base
    scaling = config.rope_scaling if window is None else None
    rope = RotaryEmbedding(config.head_dim, base, config.rope_layout, scaling=scaling)
    if config.rope_divisors:
        rope.frequencies = rope.frequencies / np.array(config.rope_divisors)
    return rope


def _block(config: LlamaConfig, rope: RotaryEmbedding, window: int | None) -> TransformerBlock:
    same = {name: getattr(config, name) for name in _SAME}
    block = TransformerBlock(**same, rope=rope, norm="rms", bias=False, window=window)
    for norm in (block.attn.q_norm, block.attn.k_norm):
        if norm is not None:
            norm.eps = config.norm_eps
    if config.qkv_bias:
        block.attn.in_proj_bias = init.zeros_(empty(block.attn.in_proj_weight.shape[0]))
    return block
