"""Layers, and what they are made of."""

from typing import TYPE_CHECKING

from minigrad.nn import (
    activation,
    containers,
    convolution,
    functional as functional,
    init,
    losses,
    normalization,
    recurrent,
)
from minigrad.nn.activation import *  # noqa: F403
from minigrad.nn.attention import CausalMaskCache, MultiHeadAttention
from minigrad.nn.cache import KVCache, all_or_none
from minigrad.nn.containers import *  # noqa: F403
from minigrad.nn.convolution import *  # noqa: F403
from minigrad.nn.layers import (
    Dropout,
    Dropout1d,
    Dropout2d,
    Embedding,
    LayerNorm,
    Linear,
    RMSNorm,
)
from minigrad.nn.losses import *  # noqa: F403
from minigrad.nn.module import Module, Parameter
from minigrad.nn.normalization import *  # noqa: F403
from minigrad.nn.recurrent import *  # noqa: F403
from minigrad.nn.rotary import RotaryEmbedding
from minigrad.nn.transformer import MLP, SwiGLU, TransformerBlock

__all__ = [
    "MLP",
    "CausalMaskCache",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Embedding",
    "KVCache",
    "LayerNorm",
    "Linear",
    "Module",
    "MultiHeadAttention",
    "Parameter",
    "RMSNorm",
    "RotaryEmbedding",
    "SwiGLU",
    "TransformerBlock",
    "all_or_none",
    "init",
]
__all__ += activation.__all__
__all__ += containers.__all__
__all__ += convolution.__all__
__all__ += losses.__all__
__all__ += normalization.__all__
__all__ += recurrent.__all__
__all__.sort(key=lambda name: (not name.isupper(), name))

_ATTENTION = "MultiHeadAttention(n_embd, n_head, causal=False)"
_BLOCK = "TransformerBlock(n_embd, n_head, causal=False)"
_COUNTERPARTS = {  # what PyTorch has under another name, or as a function
    "MultiheadAttention": f"{_ATTENTION}; with a second sequence, attention(x, context)",
    "TransformerEncoderLayer": f"{_BLOCK}, with norm_first=False for PyTorch's default",
    "TransformerEncoder": f"Sequential of {_BLOCK}",
    "TransformerDecoderLayer": f"TransformerBlock(n_embd, n_head) and {_ATTENTION}(x, context)",
    "Transformer": f"{_BLOCK} and TransformerBlock(n_embd, n_head)",
    "CosineSimilarity": "F.cosine_similarity",
    "Unflatten": "x.unflatten(axis, sizes)",
    "PixelShuffle": "x.rearrange('n (c p q) h w -> n c (h p) (w q)', p=2, q=2)",
    "utils": "optim.clip_grad_norm_",
}


if not TYPE_CHECKING:  # type checkers look at the names that there are

    def __getattr__(name):
        hint = _COUNTERPARTS.get(name) or next(
            (own for own in __all__ if own.lower() == name.lower()), ""
        )
        if not hint and name[:1].isupper() and hasattr(functional, name.lower()):
            hint = f"F.{name.lower()}, a function, which may stand in a Sequential, too"
        text = f"module 'minigrad.nn' has no attribute {name!r}"
        raise AttributeError(f"{text}. Use {hint}." if hint else text, name=name)
