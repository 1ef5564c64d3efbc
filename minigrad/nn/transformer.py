"""The transformer's block: attention and MLP, each after a LayerNorm and added to its input."""

from __future__ import annotations

from typing import Any

from minigrad import functional as F
from minigrad.nn.attention import KVCache, MultiHeadAttention
from minigrad.nn.layers import Dropout, LayerNorm, Linear, check_size
from minigrad.nn.module import Module
from minigrad.tensor import Tensor


class MLP(Module):
    """c_proj(gelu(c_fc(x))), four times as wide inside; GELU by GPT-2's tanh formula. (..., C) -> (..., C)"""

    def __init__(self, n_embd: int, *, bias: bool = True, dropout: float = 0.0) -> None:
        check_size("MLP", n_embd=n_embd)
        self.c_fc = Linear(n_embd, 4 * n_embd, bias=bias)
        self.c_proj = Linear(4 * n_embd, n_embd, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """c_proj(gelu(c_fc(x)))."""
        return self.dropout(self.c_proj(F.gelu(self.c_fc(x), approximate="tanh")))

    def extra_repr(self) -> str:
        return f"{self.c_fc.in_features}, bias={self.c_fc.bias is not None}, dropout={self.dropout.p}"


class TransformerBlock(Module):
    """x = x + attn(ln_1(x));  x = x + mlp(ln_2(x)).   (B, T, C) -> (B, T, C)

    dropout: on the attention weights and on both sums. Pre-norm, as in Radford et al. 2019 (GPT-2).
    """

    def __init__(
        self, n_embd: int, n_head: int, *, bias: bool = True, causal: bool = True, dropout: float = 0.0
    ) -> None:
        self.ln_1 = LayerNorm(n_embd, bias=bias)
        self.attn = MultiHeadAttention(n_embd, n_head, bias=bias, causal=causal, dropout=dropout)
        self.dropout = Dropout(dropout)
        self.ln_2 = LayerNorm(n_embd, bias=bias)
        self.mlp = MLP(n_embd, bias=bias, dropout=dropout)

    def forward(self, x: Tensor, *, mask: Any = None, cache: KVCache | None = None) -> Tensor:
        """mask, cache: as for MultiHeadAttention."""
        x = x + self.dropout(self.attn(self.ln_1(x), mask=mask, cache=cache))
        return x + self.mlp(self.ln_2(x))

    def extra_repr(self) -> str:
        return self.attn.extra_repr()
