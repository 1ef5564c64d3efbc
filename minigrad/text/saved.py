"""What all tokenizers have in common, and which one a saved state belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from minigrad.dtypes import Array
from minigrad.errors import DataError
from minigrad.text.bpe import BPETokenizer
from minigrad.text.foreign import TokenizerFile
from minigrad.text.plain import ByteTokenizer, CharTokenizer
from minigrad.text.wordpiece import WordPieceTokenizer


class Tokenizer(Protocol):
    """Text to tokens and back."""

    @property
    def vocab_size(self) -> int:
        """The number of tokens."""

    def encode(self, text: str) -> Array:
        """The tokens of `text`, int32."""

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of `tokens`."""

    def state(self) -> dict[str, Any]:
        """All there is to save."""


def tokenizer_from_state(state: dict[str, Any]) -> Tokenizer:
    """The tokenizer whose `state()` this is, of whichever kind. Raises DataError for an unknown
    kind.
    """
    kinds: dict[str, type[Any]] = {
        "char": CharTokenizer,
        "byte": ByteTokenizer,
        "bpe": BPETokenizer,
        "wordpiece": WordPieceTokenizer,
        "tokenizer.json": TokenizerFile,
    }
    kind = state.get("kind")
    if kind not in kinds:
        raise DataError(
            "tokenizer_from_state",
            f"unknown kind {kind!r}",
            got=kind,
            wanted=list(kinds),
            hint="one of " + ", ".join(kinds),
        )
    tokenizer: Tokenizer = kinds[kind].from_state(state)
    return tokenizer
