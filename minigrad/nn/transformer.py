"""The transformer's block: attention and MLP, each with a norm and added to its input. GPT-2's, Llama's and BERT's are settings of one."""

from __future__ import annotations

from typing import Any, Literal

from minigrad import functional as F
from minigrad.errors import ConfigError
from minigrad.nn.attention import KVCache, MultiHeadAttention, StaticCache
from minigrad.nn.layers import Dropout, LayerNorm, Linear, RMSNorm, check_size
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


class SwiGLU(Module):
    """down(silu(gate(x)) * up(x)), the MLP of Llama-type models. (..., C) -> (..., C)

    hidden: the width inside; 8/3 of n_embd unless given, so that there are as many weights as in an MLP. From Shazeer 2020, arXiv:2002.05202.
    """

    def __init__(self, n_embd: int, hidden: int | None = None, *, bias: bool = False, dropout: float = 0.0) -> None:
        width = 8 * n_embd // 3 if hidden is None else hidden
        check_size("SwiGLU", n_embd=n_embd, hidden=width)
        self.gate_proj = Linear(n_embd, width, bias=bias)
        self.up_proj = Linear(n_embd, width, bias=bias)
        self.down_proj = Linear(width, n_embd, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """down(silu(gate(x)) * up(x))."""
        return self.dropout(self.down_proj(F.swiglu(self.gate_proj(x), self.up_proj(x))))

    def extra_repr(self) -> str:
        return f"{self.gate_proj.in_features}, {self.gate_proj.out_features}, bias={self.gate_proj.bias is not None}, dropout={self.dropout.p}"


class TransformerBlock(Module):
    """Attention and MLP, each with a norm and added to its input.   (B, T, C) -> (B, T, C)

    norm_first (GPT-2, Llama):   x = x + attn(ln_1(x));   x = x + mlp(ln_2(x))
    else (BERT, Vaswani 2017):   x = ln_1(x + attn(x));   x = ln_2(x + mlp(x))

    dropout: on the attention weights and on both sums.   norm: "layer" or "rms".   mlp: "gelu" or "swiglu".
    attention: further settings of MultiHeadAttention, such as n_kv_head=2, rope="half", window=128.
    A GPT-2 block is the default; Llama's is norm="rms", mlp="swiglu", bias=False, rope="half"; BERT's norm_first=False, causal=False.
    """

    def __init__(
        self, n_embd: int, n_head: int, *, bias: bool = True, causal: bool = True, dropout: float = 0.0, norm_first: bool = True,
        norm: Literal["layer", "rms"] = "layer", mlp: Literal["gelu", "swiglu"] = "gelu", **attention: Any,
    ) -> None:  # fmt: skip
        for name, value, wanted in (("norm", norm, ("layer", "rms")), ("mlp", mlp, ("gelu", "swiglu"))):
            if value not in wanted:
                raise ConfigError("TransformerBlock", f"{name}={value!r}", got=value, wanted=wanted)
        self.norm_first, self._style = norm_first, (norm, mlp)
        self.ln_1 = LayerNorm(n_embd, bias=bias) if norm == "layer" else RMSNorm(n_embd)
        self.attn = MultiHeadAttention(n_embd, n_head, bias=bias, causal=causal, dropout=dropout, **attention)
        self.dropout = Dropout(dropout)
        self.ln_2 = LayerNorm(n_embd, bias=bias) if norm == "layer" else RMSNorm(n_embd)
        self.mlp = MLP(n_embd, bias=bias, dropout=dropout) if mlp == "gelu" else SwiGLU(n_embd, bias=bias, dropout=dropout)

    def forward(self, x: Tensor, *, mask: Any = None, lengths: Any = None, cache: KVCache | StaticCache | None = None) -> Tensor:
        """mask, lengths, cache: as for MultiHeadAttention."""
        if self.norm_first:
            x = x + self.dropout(self.attn(self.ln_1(x), mask=mask, lengths=lengths, cache=cache))
            return x + self.mlp(self.ln_2(x))
        x = self.ln_1(x + self.dropout(self.attn(x, mask=mask, lengths=lengths, cache=cache)))
        return self.ln_2(x + self.mlp(x))

    def extra_repr(self) -> str:
        norm, mlp = self._style
        text = self.attn.extra_repr()
        text += "" if self.norm_first else ", norm_first=False"
        text += f", norm={norm!r}" if norm != "layer" else ""
        return text + (f", mlp={mlp!r}" if mlp != "gelu" else "")
