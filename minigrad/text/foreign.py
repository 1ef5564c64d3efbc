"""Tokenizers of other makers: a tokenizer.json, through the optional `tokenizers` library."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import DataError, MissingDependencyError


class TokenizerFile:
    """The tokenizer that a tokenizer.json describes, whatever its kind.

    content: the JSON text; `TokenizerFile.read(path)` takes it from a file. Raises
        MissingDependencyError without the `tokenizers` library, DataError
    for what it cannot read.
    """

    def __init__(self, content: str) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise MissingDependencyError(
                "TokenizerFile",
                "reading a tokenizer.json needs the tokenizers library",
                hint="pip install 'minigrad[tokenizers]'",
            ) from None
        try:
            self._tokenizer = Tokenizer.from_str(content)
        except Exception as error:  # the library raises nothing more particular
            raise DataError(
                "TokenizerFile",
                f"this is no tokenizer.json: {error}",
                got=content[:80],
                wanted="a tokenizer.json",
            ) from None
        self.content = content

    @classmethod
    def read(cls, path: str | Path) -> TokenizerFile:
        """The tokenizer of a tokenizer.json file."""
        return cls(Path(path).read_text(encoding="utf-8"))

    @property
    def vocab_size(self) -> int:
        """The number of tokens, added ones among them."""
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> Array:
        """The tokens of `text`, int32, without those that the file would put before and after it."""
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of `tokens`, special ones among them."""
        return str(self._tokenizer.decode([int(t) for t in tokens], skip_special_tokens=False))

    def state(self) -> dict[str, Any]:
        """What `from_state` needs, in types that fit the meta of a weight file."""
        return {"kind": "tokenizer.json", "content": self.content}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TokenizerFile:
        """The tokenizer whose `state()` this is. Raises DataError if it is something else."""
        if state.get("kind") != "tokenizer.json":
            raise DataError(
                "TokenizerFile.from_state",
                "this is not the state of a tokenizer.json",
                got=state.get("kind"),
                wanted="tokenizer.json",
            )
        return cls(state["content"])

    def __repr__(self) -> str:
        return f"<TokenizerFile: {self.vocab_size} tokens>"
