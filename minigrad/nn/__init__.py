"""Layers, and what they are made of. The types that editors and type checkers see are in
__init__.pyi.
"""

from minigrad.counterparts import missing
from minigrad.nn import functional, init
from minigrad.nn.attention import CausalMaskCache, MultiHeadAttention
from minigrad.nn.cache import KVCache, all_or_none
from minigrad.nn.containers import *
from minigrad.nn.function import *
from minigrad.nn.layers import *
from minigrad.nn.module import Module, Parameter
from minigrad.nn.recurrent import *
from minigrad.nn.rotary import RotaryEmbedding
from minigrad.nn.transformer import *

__all__ = [name for name, x in globals().items() if isinstance(x, type)]
__all__ += ["all_or_none", "init"]
__all__.sort(key=lambda name: (not name.isupper(), name))


def __getattr__(name: str) -> object:
    raise missing("minigrad.nn", name)
