"""One row per module of `nn`: a call that makes it, for the tests that sweep over all of them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from minigrad import nn


class Row(NamedTuple):
    """make(*args, **options): `args` and `options` hold every number that the module takes."""

    make: Callable[..., Any]
    args: tuple[Any, ...] = ()
    options: Mapping[str, Any] = MappingProxyType({})

    @property
    def name(self) -> str:
        """The name of what is made."""
        return self.make.__name__


ROWS = [
    Row(nn.Linear, (3, 2)),
    Row(nn.Embedding, (5, 3)),
    Row(nn.LayerNorm, (4,), {"eps": 1e-5}),
    Row(nn.LayerNorm, ((2, 4),), {"eps": 0}),
    Row(nn.RMSNorm, (4,), {"eps": 1e-6}),
    Row(nn.Dropout, (0.25,)),
    Row(nn.Dropout, (0,)),
    Row(nn.MLP, (4, 6), {"dropout": 0.5}),
    Row(nn.SwiGLU, (6, 4), {"dropout": 0.5}),
    Row(nn.MultiHeadAttention, (8, 4, 2), {"window": 3, "dropout": 0.5}),
    Row(
        nn.TransformerBlock,
        (8, 4),
        {"n_kv_head": 2, "window": 3, "dropout": 0.5, "hidden": 6, "norm_eps": 1e-6},
    ),
    Row(nn.RotaryEmbedding, (8,), {"base": 100.0, "rotary_dim": 4}),
    Row(nn.KVCache, (8,), {"window": 4}),
]
# Modules that take no number.
CONTAINERS = {
    "Module",
    "ModuleDict",
    "ModuleList",
    "ParameterDict",
    "ParameterList",
    "Sequential",
}
