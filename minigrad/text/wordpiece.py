"""WordPiece, as BERT's: words are cut at white space and signs, and spelled with the longest pieces
that there are.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from minigrad.arguments import as_int
from minigrad.dtypes import Array
from minigrad.errors import ConfigError, DataError
from minigrad.text.base import BaseTokenizer, checked_special, well_formed
from minigrad.text.merges import Pair, learn_merges

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LONGEST = 100  # characters of a word; a longer one is unknown, as in BERT
# Where ideographs are: each is a word of its own.
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPieceTokenizer(BaseTokenizer):
    """WordPiece: each word is the longest piece of the vocabulary it begins with, then the longest
    "##" piece, ...; or [UNK] if that fails.

    pieces: the vocabulary; a piece's place is its token.   lowercase: also takes accents away, as
        BERT's uncased models do.
    What is lost (case, white space, unknown words) does not come back from `decode`. From Wu et al.
    2016, arXiv:1609.08144, in BERT's form (Devlin et al. 2019, arXiv:1810.04805).
    """

    kind, fields = "wordpiece", ("pieces", "lowercase", "unknown")

    def __init__(
        self, pieces: Sequence[str], lowercase: bool = True, unknown: str = "[UNK]"
    ) -> None:
        self.pieces, self.lowercase, self.unknown = list(pieces), lowercase, unknown
        self._token = {piece: i for i, piece in enumerate(self.pieces)}
        if unknown not in self._token:
            problem = f"the vocabulary has no {unknown!r}"
            hint = "every vocabulary needs a piece for unknown words: unknown=..."
            wanted = unknown
            raise DataError(
                "WordPieceTokenizer", problem, got=self.pieces[:8], wanted=wanted, hint=hint
            )

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
        counts: Counter[str] = Counter()
        for part in [text] if isinstance(text, str) else text:
            counts.update(words(well_formed(part, call), lowercase))
        spelled = {
            tuple(c if i == 0 else "##" + c for i, c in enumerate(word)): n
            for word, n in counts.items()
        }
        pieces = [*special, *sorted({c for word in spelled for c in word})]
        if len(pieces) > vocab_size:
            raise ConfigError(
                call,
                f"vocab_size must be at least the {len(pieces)} characters and special tokens, "
                f"got {vocab_size}",
                got=vocab_size,
                wanted=len(pieces),
            )
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

    def encode(self, text: str) -> Array:
        """Return the tokens of `text`, int32, without [CLS] and [SEP]."""
        return super().encode(text)

    def _encode(self, text: str) -> list[int]:
        return [t for word in words(text, self.lowercase) for t in self._word(word)]

    def _word(self, word: str) -> list[int]:
        tokens, start = [], 0
        while start < len(word) <= _LONGEST:
            mark = "##" if start else ""
            stop = next(
                (i for i in range(len(word), start, -1) if mark + word[start:i] in self._token),
                None,
            )
            if stop is None:
                break
            tokens.append(self._token[mark + word[start:stop]])
            start = stop
        return tokens if start == len(word) else [self._token[self.unknown]]

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the pieces of `tokens`, with a space before each that has no ##."""
        return super().decode(tokens)

    def _decode(self, tokens: list[int]) -> str:
        return " ".join([self.pieces[t] for t in tokens]).replace(" ##", "")

    def __repr__(self) -> str:
        return f"<WordPieceTokenizer: {self.vocab_size} pieces>"


def words(text: str, lowercase: bool) -> list[str]:
    """BERT's cut: control characters go; white space separates; signs and ideographs stand alone."""
    text = "".join(" " if _is_space(c) else c for c in text if _is_kept(c))
    text = "".join(f" {c} " if _is_ideograph(c) else c for c in text)
    if lowercase:
        text = "".join(
            c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn"
        ).lower()
    return "".join(f" {c} " if _is_sign(c) else c for c in text).split()


def _is_space(c: str) -> bool:
    return c in "\t\n\r" or unicodedata.category(c) == "Zs"


def _is_kept(c: str) -> bool:
    return c in "\t\n\r" or not (c in "\0\ufffd" or unicodedata.category(c)[0] == "C")


def _is_ideograph(c: str) -> bool:
    return any(first <= ord(c) <= last for first, last in _IDEOGRAPHS)


def _is_sign(c: str) -> bool:
    return (c < "\x7f" and c > " " and not c.isalnum()) or unicodedata.category(c)[0] == "P"
