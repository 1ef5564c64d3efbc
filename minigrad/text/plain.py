"""The two tokenizers that learn nothing: characters and bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import DataError
from minigrad.text.base import Tokenizer, well_formed

_PART = 1 << 20  # characters encoded at once


class CharTokenizer(Tokenizer):
    """Characters as numbers: token i is the i-th of the sorted distinct characters. `encode` raises
    DataError that names the characters this tokenizer does not know.

    >>> tokenizer = CharTokenizer("abc")
    >>> tokenizer.encode("cab")
    array([2, 0, 1], dtype=int32)
    >>> tokenizer.decode([2, 0, 1])
    'cab'
    """

    kind, fields = "char", ("characters",)

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = sorted({well_formed(c, "CharTokenizer") for c in characters})
        if not self.characters:
            raise DataError("CharTokenizer", "no characters", got=0, wanted="at least one")
        self._tokens = np.full(ord(self.characters[-1]) + 2, -1, np.int32)
        self._tokens[[ord(c) for c in self.characters]] = np.arange(self.vocab_size)

    @classmethod
    def from_text(cls, text: str) -> CharTokenizer:
        """Return the tokenizer of the characters of `text`. Raises DataError if there are fewer
        than two: nothing could be learned.
        """
        distinct = set(text)
        if len(distinct) < 2:
            what = "is empty" if not text else f"holds a single character, {text[0]!r}"
            problem = f"the text {what}; there is nothing to predict"
            hint = "give a text of at least a few thousand characters"
            raise DataError("CharTokenizer", problem, got=len(distinct), wanted=2, hint=hint)
        return cls(well_formed(text, "CharTokenizer.from_text"))

    @property
    def vocab_size(self) -> int:
        """The number of tokens."""
        return len(self.characters)

    def _encode(self, text: str) -> Array:
        # In parts, and by a table from code to token: little more memory than the tokens take.
        tokens = np.empty(len(text), np.int32)
        for start in range(0, len(text), _PART):
            part = text[start : start + _PART].encode("utf-32-le")
            codes = np.minimum(np.frombuffer(part, "<u4"), len(self._tokens) - 1)
            tokens[start : start + _PART] = self._tokens[codes]
        if len(text) and tokens.min() < 0:
            unknown = sorted(set(text) - set(self.characters))
            shown = ", ".join(map(repr, unknown[:8]))
            shown += f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
            problem = f"unknown character{'s'[: len(unknown) - 1]} {shown}"
            hint = f"known are: {_visible(self.characters)}"
            raise DataError("CharTokenizer.encode", problem, unknown, self.characters, hint)
        return tokens

    def _decode(self, tokens: list[int]) -> str:
        return "".join([self.characters[t] for t in tokens])

    def __repr__(self) -> str:
        return f"CharTokenizer({_visible(self.characters)!r})"


def _visible(characters: list[str]) -> str:
    return "".join(characters).replace("\n", "\\n").replace("\t", "\\t")


class ByteTokenizer(Tokenizer):
    """UTF-8 bytes as numbers, 0 .. 255: knows every text, needs no training, and a non-ASCII
    character is several tokens.

    >>> ByteTokenizer().encode("né")
    array([110, 195, 169], dtype=int32)
    """

    kind = "byte"

    @property
    def vocab_size(self) -> int:
        """256."""
        return 256

    def _encode(self, text: str) -> Any:
        return np.frombuffer(text.encode(), np.uint8)

    def _decode(self, tokens: list[int]) -> str:
        return bytes(tokens).decode("utf-8", "replace")

    def __repr__(self) -> str:
        return "ByteTokenizer()"
