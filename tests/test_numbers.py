"""numpy scalars as sizes, counts and rates, and bools as none, wherever training takes a number."""

from typing import Any

import numpy as np
import pytest

from examples import tasks
from minigrad import Tensor, finetune, nn, optim
from minigrad.data import TextData
from minigrad.errors import ConfigError
from minigrad.evaluate import perplexity
from minigrad.files import CheckpointFolder
from minigrad.models import GPT, Conversation, GPTConfig, beam_search, generate_text
from minigrad.models.generation import speculative_generate
from minigrad.optim import lr_scheduler as schedules
from minigrad.text import ByteTokenizer, TokenStream, write_tokens
from minigrad.train import Trainer

TOKENS = np.arange(100, dtype=np.int32) % 7
MODEL = GPT(GPTConfig.gpt2(vocab_size=256, block_size=8, n_layer=1, n_head=1, n_embd=4))


def optimizer() -> optim.Optimizer:
    return optim.SGD([Tensor([1.0], requires_grad=True)], lr=0.1, momentum=0.9)


def talk(count: Any) -> str:
    conversation = Conversation(MODEL, ByteTokenizer(), seed=0)
    conversation.add("a")
    return "".join(conversation.answer(count))


class Stop:
    """Anything that is no model: the numbers are looked at first."""


# (what is called with one number, a good number, kinds of numbers)
COUNTS: dict[str, tuple[Any, int]] = {
    "TextData(block_size)": (lambda n: TextData(TOKENS, block_size=n, batch_size=2), 4),
    "TextData(batch_size)": (lambda n: TextData(TOKENS, block_size=4, batch_size=n), 2),
    "perplexity(block_size)": (lambda n: perplexity(MODEL, TOKENS, block_size=n), 4),
    "perplexity(stride)": (lambda n: perplexity(MODEL, TOKENS, block_size=4, stride=n), 2),
    "perplexity(batch_size)": (lambda n: perplexity(MODEL, TOKENS, block_size=4, batch_size=n), 2),
    "tasks.sort(length)": (lambda n: tasks.sort(n), 3),
    "tasks.sort(symbols)": (lambda n: tasks.sort(3, n), 3),
    "tasks.sort(batch_size)": (lambda n: tasks.sort(batch_size=n), 3),
    "tasks.addition(digits)": (lambda n: tasks.addition(n), 2),
    "tasks.modular(p)": (lambda n: tasks.modular(n), 5),
    "tasks.brackets(length)": (lambda n: tasks.brackets(n), 6),
    "tasks.induction(questions)": (lambda n: tasks.induction(questions=n), 2),
    "CheckpointFolder(keep)": (lambda n: CheckpointFolder("x", keep=n), 2),
    "add_lora(rank)": (lambda n: finetune.add_lora(nn.Linear(3, 3), rank=n), 2),
    "generate(max_new_tokens)": (lambda n: list(MODEL.generate([1], n, seed=0)), 2),
    "generate(top_k)": (lambda n: list(MODEL.generate([1], 2, top_k=n, seed=0)), 2),
    "generate_text": (lambda n: list(generate_text(MODEL, ByteTokenizer(), "a", n)), 2),
    "answer(max_new_tokens)": (talk, 2),
    "beam_search(beams)": (lambda n: beam_search(MODEL, [1], 2, beams=n), 2),
    "beam_search(max_new_tokens)": (lambda n: beam_search(MODEL, [1], n), 2),
    "speculative(lookahead)": (
        lambda n: list(speculative_generate(MODEL, MODEL, [1], 3, lookahead=n)),
        2,
    ),
    "StepLR(step_size)": (lambda n: schedules.StepLR(optimizer(), n), 2),
    "MultiStepLR(milestones)": (lambda n: schedules.MultiStepLR(optimizer(), [n]), 2),
    "CosineAnnealingLR(T_max)": (lambda n: schedules.CosineAnnealingLR(optimizer(), n), 2),
    "WarmRestarts(T_0)": (lambda n: schedules.CosineAnnealingWarmRestarts(optimizer(), n), 2),
    "WarmupCosineLR(total_steps)": (lambda n: schedules.WarmupCosineLR(optimizer(), 1, n), 2),
    "OneCycleLR(total_steps)": (lambda n: schedules.OneCycleLR(optimizer(), 0.1, n), 2),
    "ReduceLROnPlateau(patience)": (
        lambda n: schedules.ReduceLROnPlateau(optimizer(), patience=n),
        2,
    ),
    **{
        f"Trainer({name})": (
            lambda n, name=name: Trainer(
                MODEL,
                optimizer(),
                TextData(TOKENS, block_size=4, batch_size=2),
                **{"steps": 4, name: n},
            ),
            2,
        )
        for name in ("steps", "eval_interval", "accumulate", "patience")
    },
}
RATES: dict[str, tuple[Any, float]] = {
    "SGD(lr)": (lambda x: optim.SGD([Tensor([1.0], requires_grad=True)], lr=x), 0.5),
    "TextData(val_fraction)": (
        lambda x: TextData(TOKENS, block_size=4, batch_size=2, val_fraction=x),
        0.25,
    ),
    "tasks.modular(train_fraction)": (lambda x: tasks.modular(5, train_fraction=x), 0.5),
    "generate(temperature)": (lambda x: list(MODEL.generate([1], 2, temperature=x)), 0.5),
    "generate(top_p)": (lambda x: list(MODEL.generate([1], 2, top_p=x)), 0.5),
    "generate(min_p)": (lambda x: list(MODEL.generate([1], 2, min_p=x)), 0.5),
    "generate(repetition_penalty)": (
        lambda x: list(MODEL.generate([1], 2, repetition_penalty=x)),
        0.5,
    ),
    "clip_grad_norm_": (lambda x: optim.clip_grad_norm_([], x), 0.5),
    "ExponentialLR(gamma)": (lambda x: schedules.ExponentialLR(optimizer(), x), 0.5),
    "LinearLR(start_factor)": (lambda x: schedules.LinearLR(optimizer(), x), 0.5),
    "OneCycleLR(max_lr)": (lambda x: schedules.OneCycleLR(optimizer(), x, 5), 0.5),
    "ReduceLROnPlateau(factor)": (
        lambda x: schedules.ReduceLROnPlateau(optimizer(), factor=x),
        0.5,
    ),
}


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.array])
def test_numpy_integers_are_counts(name: str, kind: Any) -> None:
    call, good = COUNTS[name]
    call(kind(good))


@pytest.mark.parametrize("name", COUNTS)
def test_bools_floats_and_texts_are_no_counts(name: str) -> None:
    call, good = COUNTS[name]
    for bad in (True, np.True_, float(good), str(good), np.float64(good), -1):
        with pytest.raises(ConfigError):
            call(bad)


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
def test_numpy_floats_are_rates(name: str, kind: Any) -> None:
    call, good = RATES[name]
    call(kind(good))


@pytest.mark.parametrize("name", RATES)
def test_bools_texts_and_nan_are_no_rates(name: str) -> None:
    call, good = RATES[name]
    for bad in (True, np.True_, str(good), np.nan, -1.0, 1j):
        with pytest.raises(ConfigError):
            call(bad)


def test_a_file_of_tokens_takes_numpy_numbers(tmp_path: Any) -> None:
    path, n = tmp_path / "a.npy", np.int64(2)
    assert write_tokens(path, [TOKENS], np.int64(7)) == 100
    TokenStream(path, block_size=n, batch_size=n, val_fraction=np.float32(0.5))
    for bad in ({"block_size": True}, {"batch_size": 2.0}, {"val_fraction": True}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            TokenStream(path, **{"block_size": 2, "batch_size": 2, **bad})  # type: ignore[arg-type]
