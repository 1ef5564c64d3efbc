"""Tokens in a file larger than memory, and the batches drawn from it.

    count = write_tokens("corpus.npy", (tokenizer.encode(text) for text in texts),
    tokenizer.vocab_size) data = TokenStream("corpus.npy", block_size=256, batch_size=16, seed=0)
    x, y = data.batch(step)                          # a function of seed and step alone: no
    position to save

The file is numpy's .npy with one axis; it is mapped, never read as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import ConfigError, DataError, DTypeError, IndexRangeError
from minigrad.random import Generator

_ROUNDS = 6


def write_tokens(path: str | Path, parts: Iterable[Array], vocab_size: int) -> int:
    """Write arrays of tokens one after the other into a .npy file, uint16 if vocab_size allows it,
    else uint32; returns their number.

    The file appears under its name only when it is whole. Raises IndexRangeError for a token
    outside 0..vocab_size-1, DTypeError for tokens that are no integers, ConfigError for a
    vocab_size outside 1..2**32.
    """
    if not isinstance(vocab_size, int | np.integer) or not 1 <= vocab_size <= 1 << 32:
        raise ConfigError(
            "write_tokens",
            f"vocab_size={vocab_size!r}",
            got=vocab_size,
            wanted=(1, 1 << 32),
            hint="a whole number, at most 2**32",
        )
    path, count = Path(path), 0
    dtype = np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
    unfinished = path.with_name(path.name + ".part")
    try:
        with open(unfinished, "wb") as file:
            _write_header(file, dtype, 0)
            for part in parts:
                part = np.asarray(part).reshape(-1)
                if (
                    part.size and part.dtype.kind not in "iu"
                ):  # an empty list has no integers to tell its kind from
                    raise DTypeError(
                        "write_tokens",
                        f"tokens of {part.dtype}",
                        got=part.dtype,
                        wanted="integers",
                        hint="tokenizer.encode gives them",
                    )
                if part.size and (part.min() < 0 or part.max() >= vocab_size):
                    bad = int(part.min() if part.min() < 0 else part.max())
                    raise IndexRangeError(
                        "write_tokens",
                        f"token {bad} is outside 0..{vocab_size - 1}",
                        got=bad,
                        wanted=(0, vocab_size - 1),
                    )
                file.write(part.astype(dtype).tobytes())
                count += part.size
            file.seek(0)
            _write_header(
                file, dtype, count
            )  # numpy leaves room for a longer number: the header keeps its length
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def _write_header(file: IO[bytes], dtype: np.dtype[np.unsignedinteger], count: int) -> None:
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (count,),
    }
    np.lib.format.write_array_header_1_0(file, header)


def shuffled(index: Array, n: int, seed: int, epoch: int) -> Array:
    """Where the numbers `index` of 0 .. n - 1 stand in the shuffled order of an epoch, without
    making that order: no memory, any n < 2**62.

    A Feistel network of 6 rounds on the next even power of two, with keys from Philox at (seed,
    epoch), is a permutation; walking on along its cycle until one is below n makes it one of 0 .. n
    - 1 (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
    """
    half = max((max(n - 1, 1).bit_length() + 1) // 2, 1)
    low, shift = np.uint64((1 << half) - 1), np.uint64(half)
    generator = Generator(seed)
    generator.set_state((seed, (1 << 62) + epoch * _ROUNDS))
    words = generator.bits(4 * _ROUNDS).astype(np.uint64).reshape(_ROUNDS, 4)
    keys = words[:, 0] << np.uint64(32) | words[:, 1]

    def permute(x: Array) -> Array:
        left, right = x >> shift, x & low
        for key in keys:
            left, right = right, left ^ (_mixed(right + key) & low)
        return left << shift | right

    x = permute(np.asarray(index).astype(np.uint64))
    while (outside := x >= n).any():
        x[outside] = permute(x[outside])
    return x.astype(np.int64)


def _mixed(x: Array) -> Array:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): every bit of the result depends on
    every bit of x.
    """
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


class TokenStream:
    """Batches from a mapped file of tokens: each epoch goes through every window of the training
    part once, in an order of its own.

    path: a .npy file of one axis of integers, as `write_tokens` makes.   The last `val_fraction` of
        the tokens is the validation part.
    Batches are a function of seed and step: to resume, go on with the step. Raises DataError for
        another file, ConfigError if a part is too short.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        block_size: int,
        batch_size: int,
        seed: int = 0,
        val_fraction: float = 0.01,
    ) -> None:
        for name, value in (("block_size", block_size), ("batch_size", batch_size)):
            if value < 1:
                raise ConfigError("TokenStream", f"{name}={value}", got=value, wanted=">= 1")
        if not 0 <= val_fraction < 1:
            raise ConfigError(
                "TokenStream",
                f"val_fraction={val_fraction}",
                got=val_fraction,
                wanted="0 <= val_fraction < 1",
            )
        tokens = _mapped(Path(path))
        cut = len(tokens) - (max(int(len(tokens) * val_fraction), 2) if val_fraction else 0)
        self.windows = (cut - 1) // block_size  # in one epoch
        if self.windows < 1:
            raise ConfigError(
                "TokenStream",
                f"block_size={block_size} is longer than the {max(cut, 0)} training tokens",
                got=block_size,
                wanted=f"<= {max(cut - 1, 0)}",
            )
        self.train, self.val = tokens[:cut], tokens[cut:]
        self.path, self.block_size, self.batch_size, self.seed = (
            Path(path),
            block_size,
            batch_size,
            seed,
        )

    def batch(self, step: int) -> tuple[Array, Array]:
        """Inputs and targets of a training step, each (B, T), int32: y is x one token later."""
        B, T = self.batch_size, self.block_size
        number = step * B + np.arange(B)  # windows are numbered through all epochs
        epochs = number // self.windows
        at = np.empty(B, np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            at[chosen] = shuffled(
                number[chosen] % self.windows, self.windows, self.seed, int(epoch)
            )
        windows = np.stack([self.train[i * T : i * T + T + 1] for i in at]).astype(
            np.int32
        )  # (B, T + 1)
        return windows[:, :-1], windows[:, 1:]

    def validation(self) -> Iterator[tuple[Array, Array]]:
        """Batches that cover the validation part once: every token but the first is a target. The
        last row may be shorter than T.
        """
        T, targets = self.block_size, max(len(self.val) - 1, 0)
        rows = targets // T
        for first in range(0, rows, self.batch_size):
            last = min(first + self.batch_size, rows)
            span = np.asarray(self.val[first * T : last * T + 1], np.int32)
            yield span[:-1].reshape(-1, T), span[1:].reshape(-1, T)
        if rows * T < targets:
            span = np.asarray(self.val[rows * T :], np.int32)
            yield span[None, :-1], span[None, 1:]

    def __repr__(self) -> str:
        return (
            f"<TokenStream: {self.path}, {len(self.train)} tokens to train on, {len(self.val)} "
            "to validate>"
        )


def _mapped(path: Path) -> Array:
    try:
        tokens = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise
    except (ValueError, OSError, EOFError) as error:
        raise DataError(
            "TokenStream",
            f"{path} is no .npy file: {error}",
            got=str(path),
            wanted=".npy",
            hint="write_tokens makes one",
        ) from None
    if not isinstance(tokens, np.ndarray) or tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        what = (
            f"{tokens.dtype} of shape {tokens.shape}"
            if isinstance(tokens, np.ndarray)
            else "an archive"
        )
        raise DataError(
            "TokenStream",
            f"{path} holds {what}, not a row of tokens",
            got=what,
            wanted="integers of one axis",
        )
    return tokens
