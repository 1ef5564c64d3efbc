"""Measures of a model: log-probabilities, perplexity with a stride, bits per character, accuracy.

    found = perplexity(model, tokens, block_size=256, stride=64)
    print(found.nats, found.perplexity, found.tokens)

A model is anything that takes tokens (B, T) and gives logits (B, T, V). Dropout is off during
evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import starmap
from typing import Any, NamedTuple

import numpy as np

from minigrad import functional as F
from minigrad.arguments import as_int, as_sizes, require
from minigrad.dtypes import Array, cast, computing
from minigrad.errors import DataError, ShapeError
from minigrad.nn.module import Module, at_rest
from minigrad.tensor import Tensor
from minigrad.text import Tokenizer

__all__ = [
    "Perplexity",
    "accuracy",
    "bits_per_byte",
    "bits_per_character",
    "log_probabilities",
    "perplexity",
    "windows",
]


class Perplexity(NamedTuple):
    """The mean loss in nats per token, exp of it, and how many tokens it is the mean of."""

    nats: float
    perplexity: float
    tokens: int


def log_probabilities(model: Module, tokens: Any) -> Array:
    """Return log p(token | those before it) for every token but the first of each row, float64.

    (T,) -> (T - 1,)   or   (B, T) -> (B, T - 1)

    Raises ShapeError for anything else, and for rows of less than two tokens.
    """
    tokens = np.asarray(tokens)
    if tokens.ndim not in (1, 2) or tokens.shape[-1] < 2:
        problem = f"tokens of shape {tokens.shape}"
        hint = "at least two tokens: the first has none before it"
        wanted = "(T,) or (B, T) with T >= 2"
        raise ShapeError("log_probabilities", problem, got=tokens.shape, wanted=wanted, hint=hint)
    rows = np.atleast_2d(tokens)
    (losses,) = _of_logits(model, rows[:, :-1], rows[:, 1:], _loss)  # (B, T - 1)
    found = -losses.astype(np.float64)
    return found[0] if tokens.ndim == 1 else found


def perplexity(
    model: Module, tokens: Any, *, block_size: int, stride: int | None = None, batch_size: int = 16
) -> Perplexity:
    """Return exp(mean of -log p(token | up to block_size tokens before it)) over every token of a
    text (N,) but the first, each counted once.

    A window of block_size moves on by `stride`, and only its new tokens count, so each token but
    those of the first window has at least block_size - stride tokens before it. stride =
    block_size, the default, is the quickest; a smaller one is fairer and takes block_size / stride
    times as long. Raises ConfigError for a stride that leaves gaps, DataError for a text of less
    than two tokens.
    """
    how: dict[str, Any] = {"block_size": block_size, "stride": stride, "batch_size": batch_size}
    return perplexity_and_accuracy(model, windows(tokens, **how))[0]


def perplexity_and_accuracy(
    model: Module, batches: Iterable[tuple[Array, Array]]
) -> tuple[Perplexity, float]:
    """Return the perplexity over the targets of the batches of `windows`, and the share of those
    targets that are the model's likeliest.
    """
    total, count = np.zeros(2), 0
    for x, y in batches:
        # A target that does not count has the loss 0, and is no token
        total += _of_logits(model, x, y, _loss, _is_likeliest).sum(axis=(1, 2), dtype=np.float64)
        count += int((y >= 0).sum())
    nats, right = (total / count).tolist()
    return Perplexity(nats, math.exp(nats) if nats < 700 else math.inf, count), right


def windows(
    tokens: Any, *, block_size: int, stride: int | None = None, batch_size: int = 16
) -> Iterator[tuple[Array, Array]]:
    """Batches (x, y), each (B, T), that have every token of a text (N,) but the first as a target
    once; the others in y are -100.

    See `perplexity`, whose windows and errors these are.
    """
    tokens = np.asarray(tokens)
    block_size, batch_size = as_sizes("perplexity", block_size=block_size, batch_size=batch_size)
    stride = block_size if stride is None else as_int("perplexity", "stride", stride)
    wanted = f"from 1 to block_size={block_size}"
    require(stride <= block_size, "perplexity", "stride", stride, wanted)
    if tokens.ndim != 1 or len(tokens) < 2:
        problem = f"tokens of shape {tokens.shape}"
        hint = "a text of at least two tokens"
        wanted = "(N,) with N >= 2"
        raise DataError("perplexity", problem, got=tokens.shape, wanted=wanted, hint=hint)
    T, targets = min(block_size, len(tokens) - 1), len(tokens) - 1
    ends = np.minimum(np.arange(T, targets + stride, stride), targets)  # the last with the text
    starts, old = ends - T, T - np.diff(ends, prepend=0)  # how many were targets before
    cuts = (slice(i, i + batch_size) for i in range(0, len(ends), batch_size))
    return (_batch(tokens, T, starts[cut, None], old[cut, None]) for cut in cuts)


def _batch(tokens: Array, T: int, starts: Array, old: Array) -> tuple[Array, Array]:
    rows = tokens[starts + np.arange(T + 1)]  # (B, T + 1)
    return rows[:, :-1], np.where(np.arange(T) >= old, rows[:, 1:], -100)


def bits_per_character(
    model: Module,
    tokenizer: Tokenizer,
    text: str,
    *,
    block_size: int,
    stride: int | None = None,
    batch_size: int = 16,
) -> float:
    """The mean bits that the model needs to write a character of `text`: comparable between models
    of different tokenizers.

    -log2 p of all tokens but the first, divided by the characters that they spell. See `perplexity`
    for the settings.
    """
    tokens = tokenizer.encode(text)
    found = perplexity(model, tokens, block_size=block_size, stride=stride, batch_size=batch_size)
    return found.nats * found.tokens / math.log(2) / len(tokenizer.decode(tokens[1:]))


def bits_per_byte(nats: float, tokenizer: Tokenizer, tokens: Any) -> float:
    """Return a loss in nats per token as bits per byte of the text that `tokens` spell, in UTF-8:
    comparable between runs with different tokenizers. Raises DataError without a token.
    """
    tokens = np.asarray(tokens)
    if not tokens.size:
        raise DataError("bits_per_byte", "there are no tokens", got=0, wanted=">= 1")
    size = len(tokenizer.decode(tokens).encode("utf-8", "surrogatepass"))
    return nats * tokens.size / math.log(2) / max(size, 1)


def accuracy(model: Module, batches: Iterable[tuple[Any, Any]]) -> float:
    """The share of targets that are the model's likeliest; -100 does not count. batches: (x, y)
    with y of the shape of logits without the last axis.

    Raises DataError if there is no target at all.
    """
    right = total = 0
    for x, y in batches:
        y = np.asarray(y)
        counted = y != -100
        right += int(_of_logits(model, x, y, _is_likeliest)[0][counted].sum())
        total += int(counted.sum())
    if not total:
        problem = "there is no target to judge by"
        hint = "an iterator may have been used up"
        raise DataError("accuracy", problem, got=0, wanted=">= 1", hint=hint)
    return right / total


def _of_logits(model: Module, x: Any, y: Array, *measures: Callable[..., Array]) -> Array:
    """Each measure of the logits and targets, (k, *y.shape). Logits come in parts from a model that
    has `logits_in_parts`, as GPT has.
    """

    def measured(at: Any, logits: Tensor) -> Array:
        return np.stack([measure(logits, y[at]) for measure in measures])

    with at_rest(model):
        parts = getattr(model, "logits_in_parts", lambda x: [(..., model(x))])
        # Unlike a loop's variable, starmap lets a part go before the next one is computed
        return np.concatenate([*starmap(measured, parts(x))], axis=-1)


def _loss(logits: Tensor, y: Array) -> Array:
    return F.cross_entropy(logits, y, axis=-1, reduction="none").numpy()


def _is_likeliest(logits: Tensor, y: Array) -> Array:
    # numpy copies a read-only array here, such as logits.numpy()
    equal: Array = cast(logits.data, computing(logits.dtype)).argmax(axis=-1) == y
    return equal
