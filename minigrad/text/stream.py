"""Tokens in a file larger than memory, and the batches drawn from it.

    parts = (tokenizer.encode(text) for text in texts)
    count = write_tokens("corpus.npy", parts, tokenizer.vocab_size)
    data = TokenStream("corpus.npy", block_size=256, batch_size=16, seed=0)
    x, y = data.batch(step)         # a function of seed and step alone: no position to save

The file is numpy's .npy with one axis; it is mapped, never read as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from minigrad.arguments import as_float, as_int, as_sizes, require
from minigrad.dtypes import Array
from minigrad.errors import ConfigError, DataError
from minigrad.random import Generator
from minigrad.text.base import checked_tokens

_ROUNDS = 6


def write_tokens(path: str | Path, parts: Iterable[Array], vocab_size: int) -> int:
    """Write arrays of tokens one after the other into a .npy file, uint16 if vocab_size allows it,
    else uint32; return their number.

    The file appears under its name only when it is complete. Raises IndexRangeError for a token
    outside 0..vocab_size-1, DTypeError for tokens that are not integers, ConfigError for a
    vocab_size outside 1..2**32.
    """
    call = "write_tokens"
    vocab_size = as_int(call, "vocab_size", vocab_size)
    require(vocab_size <= 1 << 32, call, "vocab_size", vocab_size, "at most 2**32")
    path, count = Path(path), 0
    dtype = np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
    unfinished = path.with_name(path.name + ".part")
    try:
        with open(unfinished, "wb") as file:
            _write_header(file, dtype, 0)
            for part in parts:
                part = checked_tokens(np.asarray(part).reshape(-1), vocab_size, call)
                file.write(part.astype(dtype).tobytes())
                count += part.size
            file.seek(0)
            # numpy leaves room for a longer number: the header keeps its length
            _write_header(file, dtype, count)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def _write_header(file: IO[bytes], dtype: np.dtype[np.unsignedinteger], count: int) -> None:
    header = {"descr": dtype.str, "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, header)


def shuffled(index: Array, n: int, seed: int, epoch: int) -> Array:
    """Return the places of the numbers `index` of 0 .. n - 1 in the shuffled order of an epoch,
    without making that order: no memory, any n < 2**62.

    A Feistel network of 6 rounds on the next even power of two, with keys from Philox at
    (seed, epoch), is a permutation; following its cycle to the next number below n makes it one of
    0 .. n - 1 (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
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


class Windows:
    """Tokens in a training and a validation part, which is the last `val_fraction` of them, seen
    through windows of block_size tokens and their successors.
    """

    def __init__(
        self,
        tokens: Array,
        *,
        block_size: int,
        batch_size: int,
        seed: int = 0,
        val_fraction: float = 0.1,
    ) -> None:
        call = type(self).__name__
        sizes = as_sizes(call, block_size=block_size, batch_size=batch_size)
        self.block_size, self.batch_size = sizes
        fraction = as_float(call, "val_fraction", val_fraction, 0, 1, below=True)
        cut = len(tokens) - self._held_out(len(tokens), fraction)
        if cut < self.block_size + 1:
            most = f"block_size can be at most {cut - 1}" if cut > 1 else "give a longer one"
            problem = f"block_size={self.block_size} is longer than the text"
            hint = f"the text has {len(tokens)} tokens, {max(cut, 0)} of them for training; " + most
            raise ConfigError(call, problem, len(tokens), f"> {self.block_size}", hint)
        self.train, self.val, self.seed = tokens[:cut], tokens[cut:], seed

    def _held_out(self, count: int, fraction: float) -> int:
        return max(int(count * fraction), 2)

    def _read(self, tokens: Array) -> Array:
        return tokens

    def validation(self) -> Iterator[tuple[Array, Array]]:
        """Yield batches that cover the validation part once: every token but the first is a target.
        The last row may be shorter than T.
        """
        T, targets = self.block_size, max(len(self.val) - 1, 0)
        rows = targets // T
        for first in range(0, rows, self.batch_size):
            last = min(first + self.batch_size, rows)
            span = self._read(self.val[first * T : last * T + 1])
            yield span[:-1].reshape(-1, T), span[1:].reshape(-1, T)
        if rows * T < targets:
            span = self._read(self.val[rows * T :])
            yield span[None, :-1], span[None, 1:]


class TokenStream(Windows):
    """Batches from a mapped file of tokens: each epoch goes through every window of the training
    part once, in an order of its own.

    path: a .npy file of one axis of integers, as `write_tokens` makes.
    Batches are a function of seed and step: to resume, continue with the step. Raises DataError for
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
        self.path, sizes = Path(path), {"block_size": block_size, "batch_size": batch_size}
        super().__init__(_mapped(self.path), seed=seed, val_fraction=val_fraction, **sizes)
        self.windows = (len(self.train) - 1) // self.block_size  # in one epoch

    def _held_out(self, count: int, fraction: float) -> int:
        return super()._held_out(count, fraction) if fraction else 0

    def _read(self, tokens: Array) -> Array:
        return np.asarray(tokens, np.int32)

    def batch(self, step: int) -> tuple[Array, Array]:
        """Return inputs and targets of a training step, each (B, T), int32: y is x one token
        later.
        """
        B, T = self.batch_size, self.block_size
        number = step * B + np.arange(B)  # windows are numbered through all epochs
        epochs = number // self.windows
        at = np.empty(B, np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            within = number[chosen] % self.windows
            at[chosen] = shuffled(within, self.windows, self.seed, int(epoch))
        windows = self._read(np.stack([self.train[i * T : i * T + T + 1] for i in at]))  # (B, T+1)
        return windows[:, :-1], windows[:, 1:]

    def __repr__(self) -> str:
        sizes = f"{len(self.train)} tokens to train on, {len(self.val)} to validate"
        return f"<TokenStream: {self.path}, {sizes}>"


def _mapped(path: Path) -> Array:
    try:
        tokens = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise
    except (ValueError, OSError, EOFError) as error:
        problem = f"{path} is not a .npy file: {error}"
        hint = "write_tokens makes one"
        raise DataError("TokenStream", problem, str(path), ".npy", hint) from None
    if not isinstance(tokens, np.ndarray) or tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        array = isinstance(tokens, np.ndarray)
        what = f"{tokens.dtype} of shape {tokens.shape}" if array else "an archive"
        problem = f"{path} holds {what}, not a row of tokens"
        raise DataError("TokenStream", problem, what, "integers of one axis")
    return tokens
