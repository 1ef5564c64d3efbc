"""Layers, and what they are made of."""

from typing import TYPE_CHECKING

from minigrad.counterparts import missing
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


if not TYPE_CHECKING:  # type checkers look at the names that there are

    def __getattr__(name):
        raise missing("minigrad.nn", name)
