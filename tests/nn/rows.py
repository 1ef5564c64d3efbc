"""One row per module of `nn`: a call that makes it and inputs for it, for the tests that sweep over
all modules.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from minigrad import nn

Input = tuple[int, ...] | Callable[[np.random.Generator], Any]


def numbers_below(high: int, *shape: int) -> Input:
    """Random integers 0 .. high - 1."""
    return lambda rng: rng.integers(0, high, shape)


def probabilities(*shape: int) -> Input:
    """Random numbers between 0.1 and 0.9."""
    return lambda rng: rng.uniform(0.1, 0.9, shape)


class Row(NamedTuple):
    """make(*args, **options) makes the module; `args` and `options` hold every number that it
    takes. inputs: of a call of it; a shape stands for normal numbers.
    """

    make: Callable[..., Any]
    args: tuple[Any, ...] = ()
    options: Mapping[str, Any] = MappingProxyType({})
    inputs: tuple[Input, ...] = ()

    @property
    def name(self) -> str:
        """The name of what is made."""
        return self.make.__name__

    def made(self) -> Any:
        """The module."""
        return self.make(*self.args, **self.options)

    def arrays(self, seed: int = 0) -> list[Any]:
        """Inputs, the floats among them float64."""
        rng = np.random.default_rng(seed)
        return [rng.normal(size=x) if isinstance(x, tuple) else x(rng) for x in self.inputs]


X = (2, 3, 4)
WEIGHT = np.array([0.5, 2.0, 1.0])
C = (4, 3)  # a batch of four, three classes
ROWS = [
    Row(nn.Linear, (3, 2), {}, ((4, 3),)),
    Row(nn.Linear, (3, 2), {"bias": False}, ((3,),)),
    Row(nn.Embedding, (5, 3), {}, (numbers_below(5, 2, 3),)),
    Row(nn.Embedding, (5, 3), {"padding_idx": -4}, (numbers_below(5, 4, 3),)),
    Row(nn.LayerNorm, (4,), {"eps": 1e-5}, (X,)),
    Row(nn.LayerNorm, ((3, 4),), {"eps": 0}, (X,)),
    Row(nn.LayerNorm, (4,), {"elementwise_affine": False}, (X,)),
    Row(nn.RMSNorm, (4,), {"eps": 1e-6}, (X,)),
    Row(nn.RMSNorm, (4,), {"eps": 1e-6, "elementwise_affine": False}, (X,)),
    Row(nn.Dropout, (0.25,), {}, (X,)),
    Row(nn.Dropout, (0,), {}, (X,)),
    Row(nn.Dropout1d, (0.25,), {}, (X,)),
    Row(nn.Dropout2d, (0.25,), {}, ((2, 3, 2, 2),)),
    Row(nn.MLP, (4, 6), {"dropout": 0.5}, (X,)),
    Row(nn.SwiGLU, (6, 4), {"dropout": 0.5}, ((2, 3, 6),)),
    Row(nn.GeGLU, (6, 4), {"dropout": 0.5}, ((2, 3, 6),)),
    Row(nn.MultiHeadAttention, (8, 4, 2), {"window": 3, "dropout": 0.5}, ((1, 3, 8),)),
    Row(
        nn.TransformerBlock,
        (4, 2),
        {"n_kv_head": 1, "window": 2, "dropout": 0.5, "hidden": 3, "norm_eps": 1e-6},
        ((1, 3, 4),),
    ),
    Row(nn.Identity, (), {}, (X,)),
    Row(nn.Flatten, (), {}, (X,)),
    Row(nn.Flatten, (0, 1), {}, (X,)),
    Row(nn.ReLU, (), {}, (X,)),
    Row(nn.ReLU, (), {"inplace": True}, (X,)),
    Row(nn.LeakyReLU, (0.3,), {}, (X,)),
    Row(nn.ELU, (0.7,), {}, (X,)),
    Row(nn.GELU, (), {}, (X,)),
    Row(nn.GELU, (), {"approximate": "tanh"}, (X,)),
    Row(nn.SiLU, (), {}, (X,)),
    Row(nn.Tanh, (), {}, (X,)),
    Row(nn.Sigmoid, (), {}, (X,)),
    Row(nn.Softplus, (2.0,), {}, (X,)),
    Row(nn.Softmax, (), {"dim": 1}, (X,)),
    Row(nn.LogSoftmax, (-1,), {}, (X,)),
    Row(nn.Conv1d, (4, 6, 3, 2, 1, 2, 2), {}, ((2, 4, 7),)),
    Row(nn.Conv1d, (2, 3, 2), {"padding": "same", "bias": False}, ((2, 2, 5),)),
    Row(nn.Conv2d, (2, 3, (2, 3)), {"stride": (2, 1), "padding": (0, 1)}, ((2, 2, 4, 5),)),
    Row(nn.MaxPool2d, (2,), {"stride": 1, "padding": 1}, ((1, 2, 4, 5),)),
    Row(nn.MaxPool2d, ((2, 3),), {"ceil_mode": True}, ((1, 2, 5, 5),)),
    Row(nn.AvgPool2d, (3, 2, 1), {"count_include_pad": False}, ((1, 2, 4, 5),)),
    Row(nn.ConvTranspose1d, (2, 4, 3, 2, 1, 1, 2, True, 2), {}, ((2, 2, 4),)),
    Row(nn.ConvTranspose2d, (2, 3, (2, 3)), {"stride": (2, 1), "bias": False}, ((1, 2, 3, 4),)),
    Row(nn.MaxPool1d, (3, 2, 1), {}, ((2, 3, 6),)),
    Row(nn.AvgPool1d, (3,), {"stride": 2, "ceil_mode": True}, ((2, 3, 6),)),
    Row(nn.AdaptiveAvgPool1d, (3,), {}, ((2, 3, 5),)),
    Row(nn.AdaptiveAvgPool2d, ((2, 3),), {}, ((1, 2, 3, 5),)),
    Row(nn.AdaptiveAvgPool2d, (1,), {}, ((1, 2, 3, 5),)),
    Row(nn.AdaptiveAvgPool2d, ((None, 2),), {}, ((1, 2, 3, 5),)),
    Row(nn.Upsample, (), {"scale_factor": 2.0}, ((1, 2, 3, 2),)),
    Row(nn.Upsample, ((5, 3), None, "bilinear"), {}, ((1, 2, 3, 2),)),
    Row(nn.BatchNorm1d, (3,), {"eps": 1e-4, "momentum": 0.3}, ((4, 3),)),
    Row(nn.BatchNorm1d, (3,), {"momentum": None, "affine": False}, (X,)),
    Row(nn.BatchNorm2d, (3,), {"track_running_stats": False}, ((2, 3, 2, 2),)),
    Row(nn.GroupNorm, (2, 4), {"eps": 1e-4}, ((2, 4, 3),)),
    Row(nn.GroupNorm, (1, 4), {"affine": False}, ((2, 4, 2, 2),)),
    Row(nn.InstanceNorm1d, (3,), {"affine": True, "eps": 1e-4}, (X,)),
    Row(nn.InstanceNorm2d, (3,), {}, ((2, 3, 2, 3),)),
    Row(nn.RNNCell, (3, 2), {}, ((4, 3), (4, 2))),
    Row(nn.GRUCell, (3, 2), {}, ((4, 3), (4, 2))),
    Row(nn.LSTMCell, (3, 2), {"bias": False}, ((4, 3),)),
    Row(nn.RNN, (3, 2), {}, ((4, 2, 3),)),
    Row(nn.GRU, (2, 1, 2), {"bidirectional": True, "dropout": 0.5}, ((2, 1, 2),)),
    Row(nn.GRU, (3, 2), {"bias": False}, ((3, 3), (1, 2))),
    Row(nn.LSTM, (2, 1), {"num_layers": 2, "batch_first": True}, ((2, 3, 2),)),
    Row(nn.LSTM, (2, 2), {"bidirectional": True, "bias": False}, ((2, 1, 2),)),
    Row(nn.MSELoss, (), {}, (X, X)),
    Row(nn.MSELoss, (), {"reduction": "none"}, (X, X)),
    Row(nn.L1Loss, (), {"reduction": "sum"}, (X, X)),
    Row(nn.SmoothL1Loss, (), {"beta": 0.5}, (X, X)),
    Row(nn.HuberLoss, (), {"delta": 0.7, "reduction": "sum"}, (X, X)),
    Row(nn.KLDivLoss, (), {"reduction": "batchmean"}, (X, probabilities(*X))),
    Row(nn.KLDivLoss, (), {"log_target": True, "reduction": "sum"}, (X, X)),
    Row(nn.CrossEntropyLoss, (), {}, (C, numbers_below(3, 4))),
    Row(
        nn.CrossEntropyLoss,
        (WEIGHT,),
        {"label_smoothing": 0.2, "ignore_index": 1, "reduction": "sum"},
        (C, numbers_below(3, 4)),
    ),
    Row(nn.CrossEntropyLoss, (), {}, ((2, 3, 5), numbers_below(3, 2, 5))),
    Row(nn.CrossEntropyLoss, (), {}, (C, C)),
    Row(nn.NLLLoss, (WEIGHT,), {"ignore_index": 0}, (C, numbers_below(3, 4))),
    Row(nn.NLLLoss, (), {"reduction": "none"}, (C, numbers_below(3, 4))),
    Row(nn.BCELoss, (), {}, (probabilities(4, 3), probabilities(4, 3))),
    Row(nn.BCELoss, (WEIGHT,), {}, (probabilities(4, 3), probabilities(4, 3))),
    Row(nn.BCEWithLogitsLoss, (WEIGHT,), {"pos_weight": WEIGHT}, (C, probabilities(4, 3))),
    Row(nn.BCEWithLogitsLoss, (), {"reduction": "none"}, (C, probabilities(4, 3))),
    Row(nn.RotaryEmbedding, (8,), {"base": 100.0, "rotary_dim": 4}),
    Row(nn.KVCache, (8,), {"window": 4}),
]
MODULES = [row for row in ROWS if issubclass(row.make, nn.Module)]  # type: ignore[arg-type]
# Modules that take no number.
CONTAINERS = {
    "Module",
    "ModuleDict",
    "ModuleList",
    "ParameterDict",
    "ParameterList",
    "Sequential",
}
