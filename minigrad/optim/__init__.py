"""Optimizers, gradient clipping, and learning-rate schedules, with PyTorch's names and numbers."""

from minigrad.optim import lr_scheduler
from minigrad.optim.adafactor import Adafactor
from minigrad.optim.clip import clip_grad_norm_, clip_grad_value_
from minigrad.optim.elementwise import SGD, Adam, AdamW, Lion, RMSprop
from minigrad.optim.groups import ParamGroup, decay_groups, grouped
from minigrad.optim.mixed import MixedPrecision
from minigrad.optim.muon import Muon
from minigrad.optim.optimizer import ChainedOptimizer, Optimizer

__all__ = [
    "SGD",
    "Adafactor",
    "Adam",
    "AdamW",
    "ChainedOptimizer",
    "Lion",
    "MixedPrecision",
    "Muon",
    "Optimizer",
    "ParamGroup",
    "RMSprop",
    "clip_grad_norm_",
    "clip_grad_value_",
    "decay_groups",
    "grouped",
    "lr_scheduler",
]
