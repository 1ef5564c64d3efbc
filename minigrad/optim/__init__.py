"""Optimizers, gradient clipping, and learning-rate schedules, with PyTorch's names and numbers."""

from minigrad.optim import lr_scheduler
from minigrad.optim.adam import Adam, AdamW
from minigrad.optim.clip import clip_grad_norm_
from minigrad.optim.optimizer import Optimizer, ParamGroup
from minigrad.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "ParamGroup", "clip_grad_norm_", "lr_scheduler"]
