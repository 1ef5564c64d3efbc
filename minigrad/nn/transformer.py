"""The transformer's block: attention and MLP, each with a norm and added to its input. GPT-2's,
Llama's and BERT's are settings of one.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from minigrad import functional as F
from minigrad.arguments import as_float, as_int, one_of, require
from minigrad.nn.attention import KVCache, MultiHeadAttention, StaticCache
from minigrad.nn.layers import Dropout, LayerNorm, Linear, RMSNorm
from minigrad.nn.module import Module, layers_of
from minigrad.tensor import Tensor

Approximate = Literal["tanh", "none"]


class MLP(Module):
    """c_proj(gelu(c_fc(x))). (..., C) -> (..., C)

    hidden: the width inside, four times n_embd unless given.   approximate: "tanh", GPT-2's formula
        for GELU, or "none", GELU itself, as in BERT.
    activation: "gelu", or "relu2" for relu(x)^2, from So et al. 2021, arXiv:2109.08668.
    """

    def __init__(
        self,
        n_embd: int,
        hidden: int | None = None,
        *,
        bias: bool = True,
        dropout: float = 0.0,
        approximate: Approximate = "tanh",
        activation: Literal["gelu", "relu2"] = "gelu",
    ) -> None:
        n_embd = as_int("MLP", "n_embd", n_embd)
        width = 4 * n_embd if hidden is None else as_int("MLP", "hidden", hidden)
        one_of("MLP", "approximate", approximate, ("tanh", "none"))
        one_of("MLP", "activation", activation, ("gelu", "relu2"))
        self.c_fc = Linear(n_embd, width, bias=bias)
        self.c_proj = Linear(width, n_embd, bias=bias)
        self.dropout = Dropout(dropout)
        self.approximate, self.activation = approximate, activation

    def forward(self, x: Tensor) -> Tensor:
        """c_proj(gelu(c_fc(x)))."""
        x = self.c_fc(x)
        x = F.gelu(x, approximate=self.approximate) if self.activation == "gelu" else _relu2(x)
        return self.dropout(self.c_proj(x))

    def extra_repr(self) -> str:
        C, width = self.c_fc.in_features, self.c_fc.out_features
        text = f"{C}" if width == 4 * C else f"{C}, {width}"
        text += f", bias={self.c_fc.bias is not None}, dropout={self.dropout.p}"
        text += f", approximate={self.approximate!r}" if self.approximate != "tanh" else ""
        return text + (f", activation={self.activation!r}" if self.activation != "gelu" else "")


def _relu2(x: Tensor) -> Tensor:
    x = F.relu(x)
    return x * x


class SwiGLU(Module):
    """down(silu(gate(x)) * up(x)), the MLP of Llama-type models. (..., C) -> (..., C)

    hidden: the width inside; 8/3 of n_embd unless given, so that there are as many weights as in an
        MLP. From Shazeer 2020, arXiv:2002.05202.
    """

    def __init__(
        self, n_embd: int, hidden: int | None = None, *, bias: bool = False, dropout: float = 0.0
    ) -> None:
        n_embd = as_int("SwiGLU", "n_embd", n_embd)
        width = 8 * n_embd // 3 if hidden is None else as_int("SwiGLU", "hidden", hidden)
        self.gate_proj = Linear(n_embd, width, bias=bias)
        self.up_proj = Linear(n_embd, width, bias=bias)
        self.down_proj = Linear(width, n_embd, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """down(silu(gate(x)) * up(x))."""
        return self.dropout(self.down_proj(F.swiglu(self.gate_proj(x), self.up_proj(x))))

    def extra_repr(self) -> str:
        return (
            f"{self.gate_proj.in_features}, {self.gate_proj.out_features}, "
            f"bias={self.gate_proj.bias is not None}, dropout={self.dropout.p}"
        )


class GeGLU(SwiGLU):
    """down(gelu(gate(x)) * up(x)), the MLP of Gemma. (..., C) -> (..., C)

    hidden: as for SwiGLU. GELU by the "tanh" formula. From Shazeer 2020, arXiv:2002.05202.
    """

    def forward(self, x: Tensor) -> Tensor:
        """down(gelu(gate(x)) * up(x))."""
        gate = F.gelu(self.gate_proj(x), approximate="tanh")
        return self.dropout(self.down_proj(gate * self.up_proj(x)))


class TransformerBlock(Module):
    """Attention and MLP, each with a norm and added to its input.   (B, T, C) -> (B, T, C)

    norm_first (GPT-2, Llama):   x = x + attn(ln_1(x));   x = x + mlp(ln_2(x))
    else (BERT, Vaswani 2017):   x = ln_1(x + attn(x));   x = ln_2(x + mlp(x))
    cross:   between the two, x looks at a context: x = x + cross_attn(ln_cross(x), context), or
        x = ln_cross(x + cross_attn(x, context)).

    dropout: on the attention weights and on both sums.   norm: "layer" or "rms".   norm_eps: of
        all norms, 1e-5 and 1e-6 unless given.
    mlp: "gelu", "relu2", "swiglu" or "geglu".   hidden: the width inside the MLP, 4 n_embd, and
        8/3 n_embd for the last two, unless given.   approximate: of "gelu", as for MLP.
    post_norm: what attention and MLP give is normalised too before it is added (Gemma):
        x = x + post_1(attn(ln_1(x))).
    attention: further settings of MultiHeadAttention, such as n_kv_head=2, rope="half", window=128.

    A GPT-2 block is the default; Llama's is norm="rms", norm_eps=1e-5, mlp="swiglu", hidden=11008,
    bias=False, rope="half"; BERT's norm_first=False, causal=False, norm_eps=1e-12,
    approximate="none". The counterpart of PyTorch's TransformerEncoderLayer is causal=False, that
    of its TransformerDecoderLayer cross=True: `x = block(x, memory)`.
    """

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        *,
        bias: bool = True,
        causal: bool = True,
        dropout: float = 0.0,
        norm_first: bool = True,
        norm: Literal["layer", "rms"] = "layer",
        norm_eps: float | None = None,
        mlp: Literal["gelu", "relu2", "swiglu", "geglu"] = "gelu",
        hidden: int | None = None,
        approximate: Approximate = "tanh",
        cross: bool = False,
        post_norm: bool = False,
        **attention: Any,
    ) -> None:
        call = "TransformerBlock"
        one_of(call, "norm", norm, ("layer", "rms"))
        one_of(call, "mlp", mlp, ("gelu", "relu2", "swiglu", "geglu"))
        wanted = "left out unless norm_first"
        require(norm_first or not post_norm, call, "post_norm", post_norm, wanted)
        hidden = None if hidden is None else as_int(call, "hidden", hidden)
        if norm_eps is not None:
            norm_eps = as_float(call, "norm_eps", norm_eps, 0, below=True)
        normalised = partial(_norm, norm, n_embd, norm_eps, bias)
        both: dict[str, Any] = {"bias": bias, "dropout": dropout}

        self.norm_first, self._style = norm_first, (norm, mlp, norm_eps, hidden)
        self.ln_1 = normalised()
        self.attn = MultiHeadAttention(n_embd, n_head, causal=causal, **both, **attention)
        self.ln_cross = normalised() if cross else None
        self.cross_attn = None
        if cross:
            self.cross_attn = MultiHeadAttention(n_embd, n_head, causal=False, **both)
        self.dropout = Dropout(dropout)
        self.ln_2 = normalised()
        self.mlp: MLP | SwiGLU = _mlp(mlp, approximate)(n_embd, hidden, **both)
        self.post_1 = normalised() if post_norm else None
        self.post_2 = normalised() if post_norm else None

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Any = None,
        lengths: Any = None,
        context_mask: Any = None,
        context_lengths: Any = None,
        cache: KVCache | StaticCache | None = None,
    ) -> Tensor:
        """mask, lengths, cache: as for MultiHeadAttention.   context: (B, S, C), what a block with
        cross=True looks at, with a mask and lengths of its own.
        """
        wanted = "left out without cross=True" if self.cross_attn is None else "a Tensor"
        given, needed = context is not None, self.cross_attn is not None
        require(given == needed, "TransformerBlock", "context", context, wanted)

        def attend(x: Tensor) -> Tensor:
            y: Tensor = self.dropout(self.attn(x, mask=mask, lengths=lengths, cache=cache))
            return y if self.post_1 is None else self.post_1(y)

        def look(x: Tensor) -> Tensor:
            assert self.cross_attn is not None
            return self.dropout(
                self.cross_attn(x, context, mask=context_mask, lengths=context_lengths)
            )

        def think(x: Tensor) -> Tensor:
            y: Tensor = self.mlp(x)
            return y if self.post_2 is None else self.post_2(y)

        parts = ((self.ln_1, attend), (self.ln_cross, look), (self.ln_2, think))
        for norm, part in parts:
            if norm is not None:
                x = x + part(norm(x)) if self.norm_first else norm(x + part(x))
        return x

    def extra_repr(self) -> str:
        norm, mlp, norm_eps, hidden = self._style
        text = self.attn.extra_repr()
        text += "" if self.norm_first else ", norm_first=False"
        text += f", norm={norm!r}" if norm != "layer" else ""
        text += f", norm_eps={norm_eps}" if norm_eps is not None else ""
        text += f", mlp={mlp!r}" if mlp != "gelu" else ""
        text += f", hidden={hidden}" if hidden is not None else ""
        text += ", cross=True" if self.cross_attn is not None else ""
        text += ", post_norm=True" if self.post_1 is not None else ""
        exact = getattr(self.mlp, "approximate", "tanh") == "none"
        return text + (", approximate='none'" if exact else "")


def _mlp(kind: Any, approximate: Approximate) -> Any:
    fits = kind == "gelu" or approximate == "tanh"
    wanted = 'left out unless mlp is "gelu"'
    require(fits, "TransformerBlock", "approximate", approximate, wanted, 'mlp="gelu"')
    if kind in ("swiglu", "geglu"):
        return SwiGLU if kind == "swiglu" else GeGLU
    return partial(MLP, approximate=approximate, activation=kind)


def _norm(kind: str, n_embd: int, eps: float | None, bias: bool) -> LayerNorm | RMSNorm:
    if kind == "rms":
        return RMSNorm(n_embd, 1e-6 if eps is None else eps)
    return LayerNorm(n_embd, 1e-5 if eps is None else eps, bias=bias)


__all__ = layers_of(globals())
