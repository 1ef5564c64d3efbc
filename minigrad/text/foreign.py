"""Tokenizers of other libraries: a tokenizer.json, through the optional `tokenizers` library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minigrad.errors import DataError, needs
from minigrad.text.base import BaseTokenizer


def library(call: str) -> Any:
    """The `tokenizers` package; raises MissingDependencyError without it."""
    problem = f"{call.split('.')[0]} needs the tokenizers library"
    with needs(call, problem, "'minigrad[models]'"):
        import tokenizers
    return tokenizers


class LibraryTokenizer(BaseTokenizer):
    """A tokenizer whose text is cut and looked up by the `tokenizers` library's `_tokenizer`."""

    _tokenizer: Any

    def _encode(self, text: str) -> list[int]:
        found: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return found


class TokenizerFile(LibraryTokenizer):
    """The tokenizer that a tokenizer.json describes, whatever its kind.

    content: the JSON text; `TokenizerFile.read(path)` takes it from a file.
    `encode` leaves out the tokens that the file would put before and after a text.
    Raises MissingDependencyError without the `tokenizers` library, DataError for another content.
    """

    kind, fields = "tokenizer.json", ("content",)

    def __init__(self, content: str) -> None:
        tokenizers = library("TokenizerFile")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(content)
        except Exception as error:  # the library raises nothing more particular
            problem = f"this is not a tokenizer.json: {error}"
            raise DataError("TokenizerFile", problem, content[:80], "a tokenizer.json") from None
        self.content = content

    @classmethod
    def read(cls, path: str | Path) -> TokenizerFile:
        """Return the tokenizer of a tokenizer.json file."""
        return cls(Path(path).read_text(encoding="utf-8"))

    @property
    def vocab_size(self) -> int:
        """The number of tokens, added ones among them."""
        return int(self._tokenizer.get_vocab_size())

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False))
