"""Tokenizers by the optional `tokenizers` library: the one that a tokenizer.json describes, and
WordPiece, as BERT's: words are cut at white space and signs, and spelled with the longest pieces of
the vocabulary. The library cuts and spells; training is ours.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from codecs import getincrementaldecoder
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from minigrad.arguments import as_int, require
from minigrad.dtypes import Array
from minigrad.errors import DataError, needs
from minigrad.text.base import Tokenizer, checked_special, encoding, well_formed
from minigrad.text.bpe import Pair, learn_merges

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# How the parts of a tokenizer.json, by type, put nothing before a text
_BARE = {"Prepend": {"prepend": ""}, "Metaspace": {"prepend_scheme": "never"}}
_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")
_LONGEST = 100  # characters of a word; a longer one is unknown, as in BERT
_PIECE, _ALL = 1 << 15, 1 << 26  # bytes of a piece of a packed tokenizer.json, and of all of it


def library(call: str) -> Any:
    """The `tokenizers` package; raises MissingDependencyError without it."""
    problem = f"{call.split('.')[0]} needs the tokenizers library"
    with needs(call, problem, "'minigrad[models]'"):
        import tokenizers
    return tokenizers


class LibraryTokenizer(Tokenizer):
    """A tokenizer whose text is cut and looked up by the `tokenizers` library's `_tokenizer`."""

    _tokenizer: Any

    def _encode(self, text: str) -> list[int]:
        with encoding("encode"):
            found: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return found


class TokenizerFile(LibraryTokenizer):
    """The tokenizer that a tokenizer.json describes, whatever its kind.

    content: the JSON text; `TokenizerFile.read(path)` takes it from a file.
    `encode` leaves out the tokens that the file would put before and after a text.
    Raises MissingDependencyError without the `tokenizers` library, DataError for another content.
    """

    kind = "tokenizer.json"
    fields: ClassVar[tuple[str, ...]] = ("content",)

    def __init__(self, content: str | list[str]) -> None:
        tokenizers = library("TokenizerFile")
        if isinstance(content, list):
            content = _unpacked(content)
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

    def state(self) -> dict[str, Any]:
        """Return what `from_state` needs; the content compressed, in pieces of base64, as a weight
        file takes no long texts.
        """
        found = super().state()
        packed = base64.b64encode(zlib.compress(found["content"].encode())).decode()
        return found | {"content": [packed[i : i + _PIECE] for i in range(0, len(packed), _PIECE)]}

    @property
    def vocab_size(self) -> int:
        """The number of tokens, added ones among them."""
        return int(self._tokenizer.get_vocab_size())

    def encode_after(self, tokens: Sequence[int], text: str) -> Array:
        """Return the tokens of a text that goes on after `tokens`, int32: without the space that
        SentencePiece's tokenizers put before a text, if `tokens` do not end in a special one.
        """
        new = self.encode(text)
        last = self._tokenizer.get_added_tokens_decoder().get(tokens[-1]) if tokens else None
        if last is not None:
            both = self.encode(f"{last.content}{text}")
            return both[1:] if both[:1].tolist() == [*tokens[-1:]] else new
        spaced = self.decode([*new, *new]) != 2 * self.decode(new)
        return self._bare.encode(text) if tokens and spaced else new

    @cached_property
    def _bare(self) -> TokenizerFile:
        """This tokenizer, but it puts no space before a text."""

        def bare(part: dict[str, Any]) -> dict[str, Any]:
            return part | _BARE.get(str(part.get("type")), {})

        return TokenizerFile(json.dumps(json.loads(self.content, object_hook=bare)))

    def _decode(self, tokens: list[int]) -> str:
        text = str(self._tokenizer.decode(tokens, skip_special_tokens=False))
        if "\ufffd" in text and self._tokenizer.decoder is not None:
            pieces = _apart(self._tokenizer.id_to_token(token) for token in tokens)
            text = str(self._tokenizer.decoder.decode(pieces))
        return text


def _unpacked(pieces: list[str]) -> str:
    """The content that `state` packed, or the beginning of it that has 64 MB."""
    try:
        packed = base64.b64decode("".join(pieces))
        return zlib.decompressobj().decompress(packed, _ALL).decode()
    except zlib.error as error:
        raise ValueError(error) from None


def _apart(pieces: Iterable[str | None]) -> list[str]:
    """The pieces, with an empty one between any two characters that pieces <0x..> spell: of a row
    of such pieces that has a bad byte anywhere, the library makes nothing but U+FFFD.
    """
    found: list[str] = []
    utf8 = getincrementaldecoder("utf-8")("replace")
    for piece in filter(None, pieces):
        byte = _BYTE.fullmatch(piece)
        if byte is None:
            utf8.reset()
        ended = utf8.decode(bytes.fromhex(byte[1])) if byte else ""
        waiting = len(utf8.getstate()[0])
        if ended and len(ended) + waiting > 1:  # this byte belongs to none before it
            found.append("")
        found.append(piece)
        if byte and not waiting:
            found.append("")
    return found


class WordPieceTokenizer(LibraryTokenizer):
    """WordPiece: each word is the longest piece of the vocabulary it begins with, then the longest
    "##" piece, ...; or [UNK] if that fails.

    pieces: the vocabulary; a piece's place is its token.   lowercase: also remove accents, as
        BERT's uncased models do.
    `encode` adds no [CLS] and [SEP]. Case, white space and unknown words are lost: `decode` puts a
    space before each piece that has no ##. Raises MissingDependencyError without the `tokenizers`
    library. From Wu et al. 2016, arXiv:1609.08144, in BERT's form (Devlin et al. 2019,
    arXiv:1810.04805).
    """

    kind, fields = "wordpiece", ("pieces", "lowercase", "unknown")

    def __init__(
        self, pieces: Sequence[str], lowercase: bool = True, unknown: str = "[UNK]"
    ) -> None:
        self.pieces, self.lowercase, self.unknown = list(pieces), lowercase, unknown
        call = "WordPieceTokenizer"
        if unknown not in self.pieces:
            hint = "every vocabulary needs a piece for unknown words: unknown=..."
            problem = f"the vocabulary has no {unknown!r}"
            raise DataError(call, problem, self.pieces[:8], unknown, hint)
        models = library(call).models
        numbers = {piece: i for i, piece in enumerate(self.pieces)}
        model = models.WordPiece(numbers, unk_token=unknown, max_input_chars_per_word=_LONGEST)
        self._tokenizer = library(call).Tokenizer(model)
        self._tokenizer.normalizer, self._tokenizer.pre_tokenizer = _bert(lowercase, call)

    @classmethod
    def train(
        cls,
        text: str | Iterable[str],
        vocab_size: int,
        lowercase: bool = True,
        special_tokens: Sequence[str] = _SPECIAL,
        min_frequency: int = 2,
    ) -> WordPieceTokenizer:
        """Learn pieces from a text, or from several: all characters, alone and with ##, then merged
        pairs, the most frequent first.

        Raises ConfigError if the characters and special tokens alone are more than vocab_size.
        """
        call = "WordPieceTokenizer.train"
        special = checked_special(special_tokens, call)
        vocab_size = as_int(call, "vocab_size", vocab_size)
        min_frequency = as_int(call, "min_frequency", min_frequency)
        normalizer, cutter = _bert(lowercase, call)
        counts: Counter[str] = Counter()
        for part in [text] if isinstance(text, str) else text:
            normal = normalizer.normalize_str(well_formed(part, call))
            counts.update(word for word, _ in cutter.pre_tokenize_str(normal))
        spelled = {(word[0], *("##" + c for c in word[1:])): n for word, n in counts.items()}
        pieces = [*special, *sorted({c for word in spelled for c in word})]
        least = f"at least the {len(pieces)} characters and special tokens"
        require(len(pieces) <= vocab_size, call, "vocab_size", vocab_size, least)
        number = {piece: i for i, piece in enumerate(pieces)}

        def join(pair: Pair) -> int:
            piece = pieces[pair[0]] + pieces[pair[1]].removeprefix("##")
            if piece not in number:
                number[piece] = len(pieces)
                pieces.append(piece)
            return number[piece]

        numbered = {tuple(number[c] for c in word): n for word, n in spelled.items()}
        learn_merges(numbered, join, lambda: len(pieces) < vocab_size, min_frequency)
        return cls(pieces, lowercase)

    @property
    def vocab_size(self) -> int:
        """The number of tokens."""
        return len(self.pieces)

    def _decode(self, tokens: list[int]) -> str:
        return " ".join([self.pieces[t] for t in tokens]).replace(" ##", "")


def _bert(lowercase: bool, call: str) -> tuple[Any, Any]:
    """BERT's normalizer and its cut into words, from the library."""
    tokenizers = library(call)
    normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lowercase)
    return normalizer, tokenizers.pre_tokenizers.BertPreTokenizer()
