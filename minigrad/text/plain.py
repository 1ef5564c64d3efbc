"""The two tokenizers that learn nothing: characters and bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import DataError, IndexRangeError


class CharTokenizer:
    """Characters as numbers: token i is the i-th of the sorted distinct characters.

    >>> tokenizer = CharTokenizer("abc")
    >>> tokenizer.encode("cab")
    array([2, 0, 1], dtype=int32)
    >>> tokenizer.decode([2, 0, 1])
    'cab'
    """

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = sorted(set(characters))
        if not self.characters:
            raise DataError("CharTokenizer", "no characters", got=0, wanted="at least one")
        self._codes = np.array([ord(c) for c in self.characters], dtype=np.uint32)

    @classmethod
    def from_text(cls, text: str) -> CharTokenizer:
        """The tokenizer of the characters of `text`. Raises DataError if there are fewer than two:
        nothing could be learned.
        """
        distinct = set(text)
        if len(distinct) < 2:
            what = "is empty" if not text else f"holds a single character, {text[0]!r}"
            raise DataError(
                "CharTokenizer",
                f"the text {what}; there is nothing to predict",
                got=len(distinct),
                wanted=2,
                hint="give a text of at least a few thousand characters",
            )
        return cls(distinct)

    @property
    def vocab_size(self) -> int:
        """The number of tokens."""
        return len(self.characters)

    def encode(self, text: str) -> Array:
        """The tokens of `text`, int32. Raises DataError that names the characters this tokenizer
        does not know.
        """
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        tokens = np.searchsorted(self._codes, codes).clip(max=self.vocab_size - 1)
        strange = codes[self._codes[tokens] != codes]
        if strange.size:
            unknown = sorted({chr(c) for c in strange})
            shown = ", ".join(map(repr, unknown[:8])) + (
                f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
            )
            raise DataError(
                "CharTokenizer.encode",
                f"unknown character{'s'[: len(unknown) - 1]} {shown}",
                got=unknown,
                wanted=self.characters,
                hint=f"known are: {_visible(self.characters)}",
            )
        return tokens.astype(np.int32)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of `tokens`."""
        try:
            return "".join([self.characters[t if t >= 0 else len(self.characters)] for t in tokens])
        except IndexError:
            raise IndexRangeError(
                "CharTokenizer.decode",
                f"a token is outside 0..{self.vocab_size - 1}",
                got=tokens,
                wanted=(0, self.vocab_size - 1),
            ) from None

    def state(self) -> dict[str, Any]:
        """What `from_state` needs, in types that fit the meta of a weight file."""
        return {"kind": "char", "characters": list(self.characters)}

    @classmethod
    def from_state(cls, state: Any) -> CharTokenizer:
        """The tokenizer whose `state()` this is. Raises DataError if it is something else."""
        characters = (
            state.get("characters")
            if isinstance(state, Mapping) and state.get("kind") == "char"
            else None
        )
        if not isinstance(characters, list) or not all(
            isinstance(c, str) and len(c) == 1 for c in characters
        ):
            raise DataError(
                "CharTokenizer.from_state",
                "this is not the state of a character tokenizer",
                got=state,
                wanted={"kind": "char", "characters": ["a", "b"]},
            )
        return cls(characters)

    def __repr__(self) -> str:
        return f"CharTokenizer({_visible(self.characters)!r})"


def _visible(characters: list[str]) -> str:
    return "".join(characters).replace("\n", "\\n").replace("\t", "\\t")


class ByteTokenizer:
    """UTF-8 bytes as numbers, 0 .. 255: knows every text, needs no training, and a non-ASCII
    character is several tokens.

    >>> ByteTokenizer().encode("né")
    array([110, 195, 169], dtype=int32)
    """

    vocab_size = 256

    def encode(self, text: str) -> Array:
        """The bytes of `text`, int32."""
        return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int32)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of `tokens`; bytes that are no UTF-8 become U+FFFD. Raises IndexRangeError for
        what is no byte.
        """
        numbers = [int(t) for t in tokens]
        bad = [t for t in numbers if not 0 <= t < 256]
        if bad:
            raise IndexRangeError(
                "ByteTokenizer.decode", f"token {bad[0]} is no byte", got=bad[0], wanted=(0, 255)
            )
        return bytes(numbers).decode("utf-8", "replace")

    def state(self) -> dict[str, Any]:
        """What `from_state` needs, in types that fit the meta of a weight file."""
        return {"kind": "byte"}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ByteTokenizer:
        """The tokenizer whose `state()` this is. Raises DataError if it is something else."""
        if state.get("kind") != "byte":
            raise DataError(
                "ByteTokenizer.from_state",
                "this is not the state of a byte tokenizer",
                got=state.get("kind"),
                wanted="byte",
            )
        return cls()

    def __repr__(self) -> str:
        return "ByteTokenizer()"
