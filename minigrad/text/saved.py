"""Which tokenizer a saved state belongs to."""

from __future__ import annotations

from typing import Any

from minigrad.errors import DataError
from minigrad.text.base import BaseTokenizer, Tokenizer
from minigrad.text.bpe import BPETokenizer
from minigrad.text.foreign import TokenizerFile
from minigrad.text.plain import ByteTokenizer, CharTokenizer
from minigrad.text.wordpiece import WordPieceTokenizer


def tokenizer_from_state(state: dict[str, Any]) -> Tokenizer:
    """Return the tokenizer whose `state()` this is, of any kind. Raises DataError for an unknown
    kind.
    """
    known = (CharTokenizer, ByteTokenizer, BPETokenizer, WordPieceTokenizer, TokenizerFile)
    kinds: dict[str, type[BaseTokenizer]] = {tokenizer.kind: tokenizer for tokenizer in known}
    kind = state.get("kind")
    if kind not in kinds:
        wanted = "one of " + ", ".join(kinds)
        problem = f"unknown kind of tokenizer {kind!r}"
        raise DataError("tokenizer_from_state", problem, kind, list(kinds), wanted)
    return kinds[kind].from_state(state)
