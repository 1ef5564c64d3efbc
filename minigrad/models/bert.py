"""BERT-type encoders (Devlin et al. 2019, arXiv:1810.04805), and sentence embeddings from them
(Reimers and Gurevych 2019, arXiv:1908.10084).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from minigrad.arguments import as_float, as_int, one_of, require
from minigrad.dtypes import Array
from minigrad.errors import ShapeError
from minigrad.models.prompts import evaluating
from minigrad.nn.attention import check_heads
from minigrad.nn.containers import ModuleList
from minigrad.nn.layers import Embedding, LayerNorm
from minigrad.nn.module import Module
from minigrad.nn.transformer import TransformerBlock
from minigrad.tensor import Tensor

_ROW = 256  # tokens of texts that are computed together
_SHORTEST = 16  # tokens of a compiled row
_BLOCK = {"norm_first": False, "causal": False, "approximate": "none"}
_SIZES = ["vocab_size", "block_size", "n_layer", "n_head", "n_embd", "hidden", "n_type"]


@dataclass(frozen=True)
class BertConfig:
    """The sizes of a BERT. Raises ConfigError for an invalid one.

    block_size: longest text, in tokens.   hidden: the width inside the MLP.   n_type: kinds of
        tokens (first and second text).   longest: where `embed` cuts a text, block_size unless
        given.   pooling: the vector of a text is the mean of its tokens' or the first one's.
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
    pooling: Literal["mean", "cls"] = "mean"

    def __post_init__(self) -> None:
        for name in _SIZES if self.longest is None else [*_SIZES, "longest"]:
            object.__setattr__(self, name, as_int("BertConfig", name, getattr(self, name)))
        as_float("BertConfig", "norm_eps", self.norm_eps, 0, 1)
        check_heads("BertConfig", self.n_embd, self.n_head)
        one_of("BertConfig", "pooling", self.pooling, ("mean", "cls"))


class Bert(Module):
    """Tokens in, a vector per token out: (B, T) -> (B, T, n_embd).

    x = ln(wte[tokens] + wpe[0..T-1] + wtt[types]);   x = h_i(x) for each block
    """

    def __init__(self, config: BertConfig) -> None:
        self.config, width, self._jit = config, config.n_embd, None
        self.wte = Embedding(config.vocab_size, width)
        self.wpe = Embedding(config.block_size, width)
        self.wtt = Embedding(config.n_type, width)
        self.ln = LayerNorm(width, config.norm_eps)
        style: Any = {**_BLOCK, "hidden": config.hidden, "norm_eps": config.norm_eps}
        blocks = (TransformerBlock(width, config.n_head, **style) for _ in range(config.n_layer))
        self.h = ModuleList(blocks)

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
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]] + kinds  # (B, T, C)
        return self._blocks(x, lengths=lengths)

    def _blocks(self, x: Tensor, **seen: Any) -> Tensor:
        x = self.ln(x)
        for block in self.h:
            x = block(x, **seen)
        return x

    def embed(
        self, tokenizer: Any, texts: Sequence[str], batch_size: int = 32, jit: bool = False
    ) -> Array:
        """Return a vector of length 1 for each text, (N, n_embd): the mean over its tokens (or the
        first token's vector: config.pooling), normalised; 0 for a text without tokens. Texts are
        cut to config.longest tokens.

        Up to batch_size texts of up to 256 tokens in all are computed together, one after the other
        in a row, where each sees itself alone: nearly nothing is padding.
        jit: by compiled steps, kept by the model, for rows of 16, 24, 32, 48, 64, ... tokens; each
            takes a second or two of compiling the first time.
        """
        batch_size = as_int("Bert.embed", "batch_size", batch_size)
        require(not isinstance(texts, str), "Bert.embed", "texts", texts, "a list of texts")
        rows = tokenizer.encode_sentences([*texts], self.config.longest or self.config.block_size)
        found = np.zeros((len(rows), self.config.n_embd), np.float32)
        for batch in _packed([len(row) for row in rows], batch_size):
            found[batch] = self._embed([rows[i] for i in batch], jit)
        return found / np.maximum(np.sqrt((found * found).sum(axis=1, keepdims=True)), 1e-12)

    def _embed(self, rows: list[Array], jit: bool) -> Array:
        """The vectors of texts, by config.pooling, which are computed in one row."""
        lengths = np.array([len(row) for row in rows])
        starts = np.cumsum(lengths) - lengths
        total = int(lengths.sum())
        size = _size(total) if jit else total
        tokens, owner, places = np.zeros((3, size), np.int64)
        tokens[:total] = np.concatenate(rows)
        owner[:total] = np.repeat(np.arange(len(rows)) + 1, lengths)  # 0: padding
        places[:total] = np.arange(total) - np.repeat(starts, lengths)
        forward = self._forward_packed
        if jit:
            from minigrad.models import decoding

            self._jit = forward = self._jit or decoding.jit(forward, audit=False)
        mask = owner[:, None] == owner
        x = forward(*(Tensor._wrap(a) for a in (tokens[None], places[None], mask))).numpy()[0]
        if self.config.pooling == "cls":
            return x[starts]
        return np.add.reduceat(x[:total], starts, axis=0) / lengths[:, None]

    def _forward_packed(self, tokens: Tensor, places: Tensor, mask: Tensor) -> Tensor:
        """The vectors of tokens at these places of their texts, (1, T), of which each sees those
        that the mask has, (T, T).
        """
        with evaluating(self):
            return self._blocks(self.wte(tokens) + self.wpe(places) + self.wtt.weight[0], mask=mask)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_jit": None}  # never saved

    def extra_repr(self) -> str:
        return repr(self.config)


def _size(tokens: int) -> int:
    """The length of the compiled row that has room for them: 2^n or 3/4 of that."""
    power = max(_SHORTEST, 1 << (tokens - 1).bit_length())
    return power * 3 // 4 if _SHORTEST < tokens <= power * 3 // 4 else power


def _packed(lengths: list[int], most: int) -> Iterator[list[int]]:
    """Put texts into rows, each up to `most` texts and _ROW tokens, or one longer text: the longest
    ones that are left while they fit, then the shortest. Empty ones are left out.
    """
    order = deque(sorted(np.flatnonzero(lengths).tolist(), key=lambda i: -lengths[i]))
    while order:
        row = [order.popleft()]
        room = _ROW - lengths[row[0]]
        while order and len(row) < most and lengths[order[-1]] <= room:
            row.append(order.popleft() if lengths[order[0]] <= room else order.pop())
            room -= lengths[row[-1]]
        yield row
