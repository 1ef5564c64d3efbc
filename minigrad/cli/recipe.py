"""How a run learns: tokenizers, sizes, optimizers and schedules by the names that the command line
has for them, and their default settings. docs/recipe.md has the measurements behind the numbers.
"""

from __future__ import annotations

import re
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import Any, NamedTuple

from minigrad import optim
from minigrad.cli.options import Kind
from minigrad.distributed import default_parts
from minigrad.finetune import trainable
from minigrad.models import GPT
from minigrad.optim.lr_scheduler import LRScheduler, OneCycleLR, WarmupCosineLR, WarmupStableDecayLR
from minigrad.tensor import Tensor
from minigrad.text import BPETokenizer, ByteTokenizer, CharTokenizer, Tokenizer


class Size(NamedTuple):
    """What --size sets."""

    n_layer: int
    n_head: int
    n_embd: int
    block_size: int
    batch_size: int


SIZES = {
    "tiny": Size(2, 2, 64, 64, 8),
    "small": Size(3, 4, 128, 128, 8),
    "medium": Size(6, 6, 192, 128, 12),
}
READINGS = 4  # of a text, after which a larger model learns more in the same time
# Readings by the default size, for as many times its parameters: a larger model computes faster,
# and reads the text three to four times in the end.
_AIM = 2.5
_GROWTH = 8.0  # the most that --minutes enlarges a model, which has dropout then
_DROPOUT = 0.2
_HEAD = 32  # features per head of a size that is given as a number
_WIDTH = 128  # the width at which rates were measured


class Recipe(NamedTuple):
    """The class of an optimizer, the learning rate and weight decay that suit it, other settings.
    scaled: whether the rate falls with the width.
    """

    kind: Callable[..., optim.Optimizer]
    lr: float
    weight_decay: float
    settings: dict[str, Any]
    scaled: bool = True


OPTIMIZERS = {
    "muon": Recipe(optim.Muon, 0.02, 0.0, {"ns_steps": 3}, scaled=False),
    "adamw": Recipe(optim.AdamW, 3e-3, 0.1, {"betas": (0.9, 0.99)}),
    "adam": Recipe(optim.Adam, 3e-3, 0.0, {"betas": (0.9, 0.99)}),
    "lion": Recipe(optim.Lion, 1e-3, 0.3, {}),
    "adafactor": Recipe(optim.Adafactor, 3e-2, 0.0, {}, scaled=False),
    "sgd": Recipe(optim.SGD, 0.1, 0.0, {"momentum": 0.9}, scaled=False),
}
ADAMW_OF_MUON = 0.15  # the rate of AdamW in a chain with Muon, in Muon's
TOKENIZERS = ("char", "byte", "bpe")
SCHEDULES = ("wsd", "cosine", "constant", "linear", "one-cycle")
DECAY = 0.5  # the share of steps in which the rate falls, with wsd
_WARMUP, _ONE_CYCLE = 100, 0.3  # steps, and the share of them in which a single cycle rises
# What the runs of earlier versions had, which saved no such options.
FORMER = {
    "size": "small",
    "arch": "gpt2",
    "optimizer": "adamw",
    "schedule": "cosine",
    "decay": 0.2,
    "final_lr": 0.1,
}


def _size(text: str) -> str:
    if text in SIZES:
        return text
    found = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d+)?)([kKmM]?)", text)
    count = float(found[1]) * {"": 1, "k": 1e3, "m": 1e6}[found[2].lower()] if found else 0
    if not 1e3 <= count <= 1e9:
        wanted = f"{', '.join(SIZES)}, or a number of parameters, such as 3M"
        raise ArgumentTypeError(f"{text!r} is none of {wanted}")
    return str(int(count))


SIZE = Kind("NAME|N", _size)


def size_of(name: str) -> Size:
    """Return a size by its name, or the one that has about that many parameters in its blocks: a
    layer has 12 n_embd^2, and is 32 wide for each of the layers.
    """
    if name in SIZES:
        return SIZES[name]
    count = int(name)
    n_layer = max(round((count / 12 / _HEAD**2) ** (1 / 3)), 1)
    n_head = max(round((count / 12 / n_layer) ** 0.5 / _HEAD), 1)
    nearest = "tiny" if n_head <= 2 else "small" if n_head <= 4 else "medium"
    return SIZES[nearest]._replace(n_layer=n_layer, n_head=n_head, n_embd=_HEAD * n_head)


def kind_of(name: str) -> str:
    """Return the name of an optimizer's class, as checkpoints have it."""
    return "ChainedOptimizer" if name == "muon" else str(OPTIMIZERS[name].kind.__name__)


def by_optimizer(setting: str) -> str:
    """Return each optimizer's default of a setting, for the help."""
    shown = (f"{name} {getattr(recipe, setting):g}" for name, recipe in OPTIMIZERS.items())
    return f"(default: {', '.join(shown)})"


def settle(options: Namespace) -> None:
    """Give options that are None the values that suit the size, the optimizer and the schedule. The
    batch of a size is rounded up, to be cut into equal pieces.
    """
    options.parts = default_parts() if options.parts is None else options.parts
    size, pieces = size_of(options.size), options.parts * options.accumulate
    size = size._replace(batch_size=-(-size.batch_size // pieces) * pieces)
    for name, value in size._asdict().items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    recipe = OPTIMIZERS[options.optimizer]
    if options.lr is None:
        scale = _WIDTH / options.n_embd if recipe.scaled else 1
        options.lr = float(f"{recipe.lr * scale:.2g}")
    if options.weight_decay is None:
        options.weight_decay = recipe.weight_decay
    if options.warmup is None:
        share = _ONE_CYCLE if options.schedule == "one-cycle" else 0.1
        warmup = round(share * options.steps)
        options.warmup = warmup if options.schedule == "one-cycle" else min(warmup, _WARMUP)


def leaves_size_open(options: Namespace) -> bool:
    """Return True if no option names the size, or a part of it."""
    return options.given.isdisjoint({"size", *Size._fields})


def grow(options: Namespace, readings: float) -> bool:
    """Choose a larger size for a text that would be read so often, where the options leave the size
    open, and dropout where that is not enough. Return True if they have changed.
    """
    if readings <= READINGS or not leaves_size_open(options):
        return False
    growth = min(readings / _AIM, _GROWTH)
    options.size = str(round(12 * options.n_layer * options.n_embd**2 * growth))
    if growth == _GROWTH and "dropout" not in options.given:
        options.dropout = _DROPOUT
    for name in {*Size._fields, "lr"} - options.given:
        setattr(options, name, None)
    settle(options)
    return True


def build_tokenizer(options: Namespace, text: str) -> Tokenizer:
    """Return the tokenizer that the options name, made for the text. Raises DataError for a text
    with fewer than two different characters.
    """
    characters = CharTokenizer.from_text(text)
    if options.tokenizer == "char":
        return characters
    bpe = options.tokenizer == "bpe"
    return BPETokenizer.train(text, options.vocab_size) if bpe else ByteTokenizer()


def build_optimizer(options: Namespace, model: GPT) -> optim.Optimizer:
    """Return the optimizer that the options name, with decay on matrices alone. Muon is for the
    matrices of the blocks, with AdamW for the rest.
    """
    recipe = OPTIMIZERS[options.optimizer]
    if options.optimizer != "muon":
        groups = optim.decay_groups(trainable(model), options.weight_decay)
        return recipe.kind(groups, lr=options.lr, **recipe.settings)
    matrices: list[tuple[str, Tensor]] = []
    others: list[tuple[str, Tensor]] = []
    for name, p in trainable(model):
        (matrices if name.startswith("h.") and p.ndim == 2 else others).append((name, p))
    second, rate = OPTIMIZERS["adamw"], ADAMW_OF_MUON * options.lr
    chain: list[optim.Optimizer] = []
    if matrices:
        decay = options.weight_decay
        chain.append(optim.Muon(matrices, lr=options.lr, weight_decay=decay, **recipe.settings))
    if others:
        chain.append(optim.AdamW(others, lr=rate, weight_decay=0.0, **second.settings))
    return optim.ChainedOptimizer(chain)


def build_schedule(options: Namespace, optimizer: optim.Optimizer) -> LRScheduler:
    """Return the schedule that the options name: it rises to --lr in --warmup steps, and where it
    falls, it ends at --final-lr times that.
    """
    steps, groups = options.steps, optimizer.param_groups
    rates = [group.get("initial_lr", group["lr"]) for group in groups]
    warmup, share = min(options.warmup, steps), options.final_lr
    ends = [rate / (1 / share) if share else 0.0 for rate in rates]  # 0.1 is a tenth, exactly
    if options.schedule == "cosine":
        return WarmupCosineLR(optimizer, warmup, steps, min_lr=ends)
    if options.schedule == "one-cycle":
        # It has a rate for the steps of its cycle alone, and is asked once more after the last one.
        rising = warmup / (steps + 1)
        return OneCycleLR(optimizer, rates, steps + 1, pct_start=rising, cycle_momentum=False)
    left = steps - warmup
    part = {"constant": 0.0, "linear": 1.0, "wsd": options.decay}[options.schedule]
    falling = min(int(part * steps), left)
    return WarmupStableDecayLR(optimizer, warmup, steps, falling, min_lr=ends)
