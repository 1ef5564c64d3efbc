"""How a run learns: optimizers and schedules by the names that the command line has for them, and
their default settings.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any, NamedTuple

from minigrad.finetune import trainable
from minigrad.models import GPT
from minigrad.optim import SGD, Adafactor, Adam, AdamW, Lion, Optimizer, decay_groups
from minigrad.optim.lr_scheduler import LRScheduler, OneCycleLR, WarmupCosineLR, WarmupStableDecayLR


class Recipe(NamedTuple):
    """The class of an optimizer, a learning rate and weight decay that suit it, other settings."""

    kind: Callable[..., Optimizer]
    lr: float
    weight_decay: float
    settings: dict[str, Any]


OPTIMIZERS = {
    "adamw": Recipe(AdamW, 3e-3, 0.1, {"betas": (0.9, 0.99)}),
    "adam": Recipe(Adam, 3e-3, 0.0, {"betas": (0.9, 0.99)}),
    "lion": Recipe(Lion, 1e-3, 0.3, {}),
    "adafactor": Recipe(Adafactor, 3e-2, 0.0, {}),
    "sgd": Recipe(SGD, 0.1, 0.0, {"momentum": 0.9}),
}
SCHEDULES = ("cosine", "constant", "linear", "one-cycle", "wsd")
_WARMUP, _ONE_CYCLE = 100, 0.3  # steps, and the share of them in which a single cycle rises


def kind_of(name: str) -> str:
    """Return the name of an optimizer's class, as checkpoints have it."""
    return str(OPTIMIZERS[name].kind.__name__)


def by_optimizer(setting: str) -> str:
    """Return each optimizer's default of a setting, for the help."""
    shown = (f"{name} {getattr(recipe, setting):g}" for name, recipe in OPTIMIZERS.items())
    return f"(default: {', '.join(shown)})"


def settle(options: Namespace) -> None:
    """Give options that are None the values that suit the optimizer and the schedule."""
    recipe = OPTIMIZERS[options.optimizer]
    options.lr = recipe.lr if options.lr is None else options.lr
    if options.weight_decay is None:
        options.weight_decay = recipe.weight_decay
    if options.warmup is None:
        one_cycle = options.schedule == "one-cycle"
        options.warmup = round(_ONE_CYCLE * options.steps) if one_cycle else _WARMUP


def build_optimizer(options: Namespace, model: GPT) -> Optimizer:
    """Return the optimizer that the options name, with decay on matrices alone."""
    recipe = OPTIMIZERS[options.optimizer]
    groups = decay_groups(trainable(model), options.weight_decay)
    return recipe.kind(groups, lr=options.lr, **recipe.settings)


def build_schedule(options: Namespace, optimizer: Optimizer) -> LRScheduler:
    """Return the schedule that the options name: it rises to --lr in --warmup steps, and ends at a
    tenth of it, where it falls.
    """
    steps, lr = options.steps, options.lr
    warmup = min(options.warmup, steps)
    if options.schedule == "cosine":
        return WarmupCosineLR(optimizer, warmup, steps, min_lr=lr / 10)
    if options.schedule == "one-cycle":
        # It has a rate for the steps of its cycle alone, and is asked once more after the last one.
        rising = warmup / (steps + 1)
        return OneCycleLR(optimizer, lr, steps + 1, pct_start=rising, cycle_momentum=False)
    left = steps - warmup
    falling = {"constant": 0, "linear": left, "wsd": min(steps // 5, left)}[options.schedule]
    return WarmupStableDecayLR(optimizer, warmup, steps, falling, min_lr=lr / 10)
