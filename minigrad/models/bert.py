"""BERT-type encoders (Devlin et al. 2019, arXiv:1810.04805), and sentence embeddings from them
(Reimers and Gurevych 2019, arXiv:1908.10084).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.arguments import as_float, as_int
from minigrad.dtypes import Array
from minigrad.errors import ShapeError
from minigrad.models.prompts import evaluating
from minigrad.nn.attention import check_heads
from minigrad.nn.containers import ModuleList
from minigrad.nn.layers import Embedding, LayerNorm
from minigrad.nn.module import Module
from minigrad.nn.transformer import TransformerBlock
from minigrad.tensor import Tensor

_SIZES = ["vocab_size", "block_size", "n_layer", "n_head", "n_embd", "hidden", "n_type"]


@dataclass(frozen=True)
class BertConfig:
    """The sizes of a BERT. Raises ConfigError for an invalid one.

    block_size: longest text, in tokens.   hidden: the width inside the MLP.   n_type: kinds of
        tokens (first and second text).   longest: where `embed` cuts a text, block_size unless
        given.
    """

    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    hidden: int
    n_type: int = 2
    norm_eps: float = 1e-12
    longest: int | None = None

    def __post_init__(self) -> None:
        for name in _SIZES:
            object.__setattr__(self, name, as_int("BertConfig", name, getattr(self, name)))
        as_float("BertConfig", "norm_eps", self.norm_eps, 0, 1)
        check_heads("BertConfig", self.n_embd, self.n_head)


class Bert(Module):
    """Tokens in, a vector per token out: (B, T) -> (B, T, n_embd).

    x = ln(wte[tokens] + wpe[0..T-1] + wtt[types]);   x = h_i(x) for each block
    """

    def __init__(self, config: BertConfig) -> None:
        self.config = config
        self.wte = Embedding(config.vocab_size, config.n_embd)
        self.wpe = Embedding(config.block_size, config.n_embd)
        self.wtt = Embedding(config.n_type, config.n_embd)
        self.ln = LayerNorm(config.n_embd, config.norm_eps)
        self.h = ModuleList(
            TransformerBlock(
                config.n_embd,
                config.n_head,
                hidden=config.hidden,
                norm_first=False,
                causal=False,
                norm_eps=config.norm_eps,
                approximate="none",
            )
            for _ in range(config.n_layer)
        )

    def forward(self, tokens: Any, *, lengths: Any = None, types: Any = None) -> Tensor:
        """The vector of each token.

        lengths: (B,), how many tokens of each row are real; the rest is padding that no other sees.
        types: (B, T), 0 and 1 for a first and a second text; all 0 unless given.
        """
        tokens = tokens if isinstance(tokens, Tensor) else Tensor(tokens)
        if tokens.ndim != 2 or not 0 < tokens.shape[1] <= self.config.block_size:
            wanted = ("B", f"1 to {self.config.block_size}")
            raise ShapeError("Bert", f"tokens of shape {tokens.shape}", tokens.shape, wanted)
        kinds = self.wtt.weight[0] if types is None else self.wtt(Tensor(np.asarray(types)))
        x = self.ln(self.wte(tokens) + self.wpe.weight[: tokens.shape[1]] + kinds)  # (B, T, C)
        for block in self.h:
            x = block(x, lengths=lengths)
        return x

    def embed(self, tokenizer: Any, texts: Sequence[str], batch_size: int = 32) -> Array:
        """Return a vector of length 1 for each text, (N, n_embd): the mean over its tokens,
        normalised. Texts are cut to config.longest tokens.

        Texts of similar lengths are computed together; a vector does not depend on its batch.
        """
        batch_size = as_int("Bert.embed", "batch_size", batch_size)
        longest = self.config.longest or self.config.block_size
        rows = tokenizer.encode_sentences(list(texts), longest)
        found = np.zeros((len(rows), self.config.n_embd), np.float32)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for first in range(0, len(rows), batch_size):
            batch = order[first : first + batch_size]
            found[batch] = self._embed([rows[i] for i in batch])
        return found

    def _embed(self, rows: list[Array]) -> Array:
        lengths = np.array([len(row) for row in rows])
        tokens = np.zeros((len(rows), lengths.max()), np.int64)
        for row, text in zip(tokens, rows, strict=True):
            row[: len(text)] = text
        same = bool((lengths == lengths[0]).all())
        with evaluating(self):
            x = self(tokens, lengths=None if same else lengths).numpy()  # (B, T, C)
        real = np.arange(tokens.shape[1]) < lengths[:, None]
        mean = (x * real[..., None]).sum(axis=1) / lengths[:, None]
        return mean / np.maximum(np.sqrt((mean * mean).sum(axis=1, keepdims=True)), 1e-12)

    def extra_repr(self) -> str:
        return repr(self.config)
