"""What generation begins with: prompts, checked and made into one array; and a model without
dropout.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from minigrad import random
from minigrad.autograd import no_grad
from minigrad.dtypes import Array
from minigrad.errors import ConfigError, DTypeError, IndexRangeError, ShapeError
from minigrad.nn.module import Module, at_rest
from minigrad.random import Generator


def evaluating(model: Module) -> AbstractContextManager[object]:
    """As `at_rest`, for one token: a model in evaluation mode is not walked, which would take as
    long as a layer.
    """
    return at_rest(model) if model.training else no_grad()


def generator_of(call: str, seed: int | None) -> Generator:
    """A generator of this seed; the library's for None. ConfigError in the name of `call`."""
    if seed is None:
        return random.default_generator
    try:
        return Generator(seed)
    except ConfigError as error:
        raise ConfigError(
            call, error.problem, got=seed, wanted=(0, 2**64 - 1), hint=error.hint
        ) from None


READ = 256  # tokens of a prompt that are read at a time


def parts(tokens: Array, last: int = 1) -> list[Array]:
    """Cut a prompt, (B, T), into parts of READ tokens and a final one of at least `last`: what a
    layer computes for all tokens of a long prompt may be larger than the weights.
    """
    return np.split(tokens, range(READ, tokens.shape[1] - last + 1, READ), axis=1)


def stop_mask(call: str, tokens: Sequence[int], vocab_size: int) -> Array:
    """True for each of the tokens, (vocab_size,). Raises as `checked_prompt` does."""
    mask = np.zeros(vocab_size, bool)
    if len(tokens):
        mask[checked_prompt(call, tokens, vocab_size)[0]] = True
    return mask


def checked_prompt(call: str, prompt: Any, vocab_size: int) -> tuple[Array, Array | None]:
    """The prompt as int64, (T,) or (B, T); prompts of different lengths are padded with 0 at their
    start, and the (B,) amounts come with them.

    Raises ShapeError, DTypeError or IndexRangeError.
    """
    if isinstance(prompt, list | tuple) and len({np.shape(row) for row in prompt}) > 1:
        rows = [checked_prompt(call, row, vocab_size)[0] for row in prompt]
        for row in rows:
            if row.ndim != 1:
                problem = f"a prompt of shape {row.shape} among others"
                raise ShapeError(call, problem, got=row.shape, wanted="(T,)")
        longest = max(map(len, rows))
        pad = np.array([longest - len(row) for row in rows])
        return np.stack([np.pad(row, (n, 0)) for row, n in zip(rows, pad, strict=True)]), pad
    tokens = np.asarray(prompt)
    if tokens.ndim not in (1, 2) or tokens.size == 0:
        problem = f"a prompt of shape {tokens.shape}"
        hint = "start with at least one token, such as a newline's"
        raise ShapeError(call, problem, got=tokens.shape, wanted="(T,) or (B, T)", hint=hint)
    if tokens.dtype.kind not in "iu":
        raise DTypeError(call, f"a prompt of {tokens.dtype}", got=tokens.dtype, wanted="integers")
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        bad = int(tokens.min() if tokens.min() < 0 else tokens.max())
        raise IndexRangeError(
            call, f"token {bad} is outside 0..{vocab_size - 1}", got=bad, wanted=(0, vocab_size - 1)
        )
    return tokens.astype(np.int64), None
