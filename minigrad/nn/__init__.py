"""Layers, and what they are made of."""

from minigrad.nn import init
from minigrad.nn.attention import CausalMaskCache, MultiHeadAttention
from minigrad.nn.cache import KVCache, all_or_none
from minigrad.nn.containers import (
    ModuleDict,
    ModuleList,
    ParameterDict,
    ParameterList,
    Sequential,
)
from minigrad.nn.layers import Dropout, Embedding, LayerNorm, Linear, RMSNorm
from minigrad.nn.module import Module, Parameter
from minigrad.nn.rotary import RotaryEmbedding
from minigrad.nn.transformer import MLP, SwiGLU, TransformerBlock

__all__ = [
    "MLP",
    "CausalMaskCache",
    "Dropout",
    "Embedding",
    "KVCache",
    "LayerNorm",
    "Linear",
    "Module",
    "ModuleDict",
    "ModuleList",
    "MultiHeadAttention",
    "Parameter",
    "ParameterDict",
    "ParameterList",
    "RMSNorm",
    "RotaryEmbedding",
    "Sequential",
    "SwiGLU",
    "TransformerBlock",
    "all_or_none",
    "init",
]
