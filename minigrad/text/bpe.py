"""Byte-level byte-pair encoding, as GPT-2's: text is cut into words, a word is UTF-8 bytes, and
learned pairs are merged. WordPiece learns its pairs here too.
"""

from __future__ import annotations

import functools
import heapq
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from minigrad.arguments import as_int, require
from minigrad.dtypes import Array
from minigrad.errors import DataError
from minigrad.text.base import Tokenizer, checked_special, well_formed

Pair = tuple[int, int]

# GPT-2's numbering of the bytes: those with a printable character first.
_BYTES = [*range(33, 127), *range(161, 173), *range(174, 256)]
_BYTES += [b for b in range(256) if b not in _BYTES]
_NUMBER = {b: i for i, b in enumerate(_BYTES)}
_SPACE = "\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"


@functools.cache
def _words() -> re.Pattern[str]:
    """GPT-2's cut: contractions, letters, numbers, other signs, each with one space before it;
    white space.

    Python's `re` has no class of letters: it is \\w without the underscore and without the
    characters of the three categories of numbers.
    """
    others = map(chr, range(ord("9") + 1, sys.maxunicode + 1))
    numbers = "".join(c for c in others if unicodedata.category(c)[0] == "N")
    number, letter = f"[0-9{numbers}]", f"[^\\W_0-9{numbers}]"
    sign = f"(?:(?!{letter})[^{_SPACE}0-9{numbers}])"
    return re.compile(
        f"'(?:s|t|re|ve|m|ll|d)| ?{letter}+| ?{number}+| "
        f"?{sign}+|[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+"
    )


class BPETokenizer(Tokenizer):
    """Byte-level BPE: tokens 0 .. 255 are the bytes, in GPT-2's order, and each merge adds one
    token made of two. Knows every text.

        tokenizer = BPETokenizer.train(text, vocab_size=1000, special_tokens=["<|endoftext|>"])
        tokenizer.decode(tokenizer.encode("hello"))

    merges: pairs of tokens, most important first.   special_tokens: texts with a token of their
        own, the last numbers of all.
    From Radford et al. 2019 (GPT-2); its merges give its tokens.
    """

    kind, fields = "bpe", ("merges", "special_tokens")

    def __init__(self, merges: Sequence[Pair], special_tokens: Sequence[str] = ()) -> None:
        self._pieces = [bytes([b]) for b in _BYTES]
        self._known = {piece: i for i, piece in enumerate(self._pieces)}
        self.merges: dict[Pair, int] = {}  # pair -> token, in order of rank
        for left, right in merges:
            left, right = int(left), int(right)
            if not (0 <= left < len(self._pieces) and 0 <= right < len(self._pieces)):
                problem = f"the merge ({left}, {right}) names a token that no earlier merge makes"
                wanted = (0, len(self._pieces) - 1)
                raise DataError("BPETokenizer", problem, (left, right), wanted)
            self.merges[left, right] = self._join((left, right))
        self._rank = {pair: i for i, pair in enumerate(self.merges)}
        special = checked_special(special_tokens, "BPETokenizer")
        self.special_tokens = {text: len(self._pieces) + i for i, text in enumerate(special)}
        longest_first = sorted(self.special_tokens, key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        self._cache: dict[str, list[int]] = {}

    def _join(self, pair: Pair) -> int:
        """The token of a pair; two pairs may spell the same bytes, and then share it."""
        piece = self._pieces[pair[0]] + self._pieces[pair[1]]
        if piece not in self._known:
            self._known[piece] = len(self._pieces)
            self._pieces.append(piece)
        return self._known[piece]

    @classmethod
    def train(
        cls,
        text: str | Iterable[str],
        vocab_size: int,
        special_tokens: Sequence[str] = (),
        min_frequency: int = 1,
    ) -> BPETokenizer:
        """Learn merges from a text, or from several, until there are vocab_size tokens or no pair
        occurs min_frequency times.

        Raises ConfigError for a vocab_size below 256 and the special tokens.
        """
        call = "BPETokenizer.train"
        special = checked_special(special_tokens, call)
        vocab_size = as_int(call, "vocab_size", vocab_size)
        min_frequency = as_int(call, "min_frequency", min_frequency)
        room = vocab_size - len(special)
        least = f"at least 256 + {len(special)} special tokens"
        require(room >= 256, call, "vocab_size", vocab_size, least)
        counts: Counter[str] = Counter()
        for part in [text] if isinstance(text, str) else text:
            counts.update(_words().findall(well_formed(part, call)))
        words = {tuple(_NUMBER[b] for b in word.encode()): n for word, n in counts.items()}
        made = cls(())
        merges = learn_merges(words, made._join, lambda: len(made._pieces) < room, min_frequency)
        return cls(merges, special)

    @property
    def vocab_size(self) -> int:
        """The number of tokens, special ones among them."""
        return len(self._pieces) + len(self.special_tokens)

    def encode(self, text: str, special: bool = False) -> Array:
        """Return the tokens of `text`, int32. With `special`, the text of a special token becomes
        that token; else it is text like any other.
        """
        text, tokens = well_formed(text, "BPETokenizer.encode"), list[int]()
        for part in self._special.split(text) if special and self.special_tokens else [text]:
            if special and part in self.special_tokens:
                tokens.append(self.special_tokens[part])
            else:
                for word in _words().findall(part):
                    tokens += self._word(word)
        return np.array(tokens, np.int32)

    def _word(self, word: str) -> list[int]:
        found = self._cache.get(word)
        if found is not None:
            return found
        tokens = [_NUMBER[b] for b in word.encode()]
        while len(tokens) > 1:
            pair = min(pairwise(tokens), key=lambda p: self._rank.get(p, len(self._rank)))
            if pair not in self._rank:
                break
            tokens = merged(tokens, pair, self.merges[pair])
        if len(self._cache) < 1 << 16:  # natural text has few words; other streams have no end
            self._cache[word] = tokens
        return tokens

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Return the bytes of `tokens`, which may end in the middle of a character."""
        pieces = [*self._pieces, *(text.encode() for text in self.special_tokens)]
        return b"".join([pieces[t] for t in self._checked(tokens)])

    def _decode(self, tokens: list[int]) -> str:
        return self.decode_bytes(tokens).decode("utf-8", "replace")

    def state(self) -> dict[str, Any]:
        """Return what `from_state` needs, in types that fit the meta of a weight file."""
        merges, special = [list(pair) for pair in self.merges], list(self.special_tokens)
        return {"kind": self.kind, "merges": merges, "special_tokens": special}

    def __repr__(self) -> str:
        special = len(self.special_tokens)
        return f"<BPETokenizer: {self.vocab_size} tokens, {special} of them special>"


def learn_merges(
    words: Mapping[tuple[int, ...], int],
    join: Callable[[Pair], int],
    room: Callable[[], bool],
    min_frequency: int = 1,
) -> list[Pair]:
    """The most frequent pair of neighbours is merged everywhere, again and again, while there is
    `room()` and one occurs min_frequency times.

    words: token sequences with their counts; pairs never reach across words.   join: gives a pair
        its (perhaps known) number.
    Of equally frequent pairs the smaller one goes first. From Sennrich et al. 2016,
    arXiv:1508.07909.
    """
    spelled, counts = [list(word) for word in words], list(words.values())
    frequency: Counter[Pair] = Counter()
    # The words in which a pair occurs, or has occurred
    places: defaultdict[Pair, set[int]] = defaultdict(set)
    for i, word in enumerate(spelled):
        for pair in pairwise(word):
            frequency[pair] += counts[i]
            places[pair].add(i)
    queue = [(-n, pair) for pair, n in frequency.items()]
    heapq.heapify(queue)
    merges: list[Pair] = []
    while queue and room():
        negative, pair = heapq.heappop(queue)
        if -negative != frequency[pair]:  # recounted since: push it with today's count
            if frequency[pair] > 0:
                heapq.heappush(queue, (-frequency[pair], pair))
            continue
        if frequency[pair] < min_frequency:
            break
        merges.append(pair)
        new, changed = join(pair), set()
        for i in places.pop(pair):
            before = spelled[i]
            after = merged(before, pair, new)
            _count(before, -counts[i], frequency)
            _count(after, counts[i], frequency)
            for p in pairwise(after):
                if new in p:
                    places[p].add(i)
                    changed.add(p)
            spelled[i] = after
        frequency.pop(pair, None)
        for p in changed:
            heapq.heappush(queue, (-frequency[p], p))
    return merges


def merged(word: list[int], pair: Pair, new: int) -> list[int]:
    """`word` with `new` in place of each occurrence of `pair`, from the left."""
    out, i, last = [], 0, len(word) - 1
    while i <= last:
        if i < last and word[i] == pair[0] and word[i + 1] == pair[1]:
            out.append(new)
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out


def _count(word: list[int], by: int, frequency: Counter[Pair]) -> None:
    for pair in pairwise(word):
        frequency[pair] += by
