"""How a run learns: optimizers and schedules by the names that the command line has for them, and
what each takes where nothing is said.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

from minigrad.models import GPT
from minigrad.optim import SGD, Adafactor, Adam, AdamW, Lion, Optimizer, decay_groups
from minigrad.optim.lr_scheduler import LRScheduler, OneCycleLR, WarmupCosineLR, WarmupStableDecayLR


class Recipe(NamedTuple):
    """The class of an optimizer, the rate and the decay that suit it, and its other settings."""

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
_WARMUP, _ONE_CYCLE = 100, 0.3  # steps, and the share of them that a single cycle rises in


def kind_of(name: str) -> str:
    """The name of an optimizer's class, as a checkpoint has it."""
    return str(OPTIMIZERS[name].kind.__name__)


def by_optimizer(setting: str) -> str:
    """What each optimizer takes for a setting, for the help."""
    return (
        "(default: "
        + ", ".join(f"{name} {getattr(recipe, setting):g}" for name, recipe in OPTIMIZERS.items())
        + ")"
    )


def settle(options: argparse.Namespace) -> None:
    """Give the options that nobody has chosen the values that suit the optimizer and the schedule."""
    recipe = OPTIMIZERS[options.optimizer]
    options.lr = recipe.lr if options.lr is None else options.lr
    options.weight_decay = (
        recipe.weight_decay if options.weight_decay is None else options.weight_decay
    )
    if options.warmup is None:
        options.warmup = (
            round(_ONE_CYCLE * options.steps) if options.schedule == "one-cycle" else _WARMUP
        )


def build_optimizer(options: argparse.Namespace, model: GPT) -> Optimizer:
    """The optimizer that the options name, with decay on matrices alone, as in GPT-2's successors."""
    recipe = OPTIMIZERS[options.optimizer]
    return recipe.kind(
        decay_groups(model.named_parameters(), options.weight_decay),
        lr=options.lr,
        **recipe.settings,
    )


def build_schedule(options: argparse.Namespace, optimizer: Optimizer) -> LRScheduler:
    """The schedule that the options name: it rises to --lr in the steps of --warmup, and falls to a
    tenth, where it falls.
    """
    steps, lr = options.steps, options.lr
    warmup = min(options.warmup, steps)
    if options.schedule == "cosine":
        return WarmupCosineLR(optimizer, warmup, steps, min_lr=lr / 10)
    if (
        options.schedule == "one-cycle"
        # Which has a rate for the steps of its cycle only, and is asked for the next one after the
        # last
    ):
        return OneCycleLR(
            optimizer, lr, steps + 1, pct_start=warmup / (steps + 1), cycle_momentum=False
        )
    falling = {"constant": 0, "linear": steps - warmup, "wsd": min(steps // 5, steps - warmup)}[
        options.schedule
    ]
    return WarmupStableDecayLR(optimizer, warmup, steps, falling, min_lr=lr / 10)
