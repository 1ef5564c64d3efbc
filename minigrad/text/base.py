"""What all tokenizers share: the policy for text and tokens, and saving.

Text is Unicode. A lone surrogate, which is not, becomes U+FFFD; a pair becomes the character that
it stands for. Every other character, NUL too, reaches the tokenizer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import ConfigError, DataError, DTypeError, IndexRangeError, MinigradError

if TYPE_CHECKING:
    from typing_extensions import Self


@contextlib.contextmanager
def encoding(call: str) -> Iterator[None]:
    """Turn whatever a library raises about a text into a DataError."""
    try:
        yield
    except BaseException as error:  # a panic of a library in Rust is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise DataError(call, f"the tokenizer cannot encode the text: {error}") from None


class Tokenizer:
    """Text to tokens and back. A tokenizer says its `kind`, `vocab_size`, `_encode` and `_decode`.

    fields: the constructor's arguments, which are attributes too and make up the state.
    """

    kind: ClassVar[str]
    fields: ClassVar[tuple[str, ...]] = ()
    kinds: ClassVar[dict[str, type[Tokenizer]]] = {}  # every class that has a kind

    def __init_subclass__(cls) -> None:
        if "kind" in vars(cls):
            cls.kinds[cls.kind] = cls

    @property
    def vocab_size(self) -> int:
        """The number of tokens."""
        raise NotImplementedError

    def encode(self, text: str) -> Array:
        """Return the tokens of `text`, int32. A lone surrogate counts as U+FFFD."""
        return np.asarray(self._encode(well_formed(text, self._call("encode"))), np.int32)

    def encode_after(self, tokens: Sequence[int], text: str) -> Array:
        """Return the tokens of a text that goes on after `tokens`, int32."""
        return self.encode(text)

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of `tokens`; bytes that are not UTF-8 become U+FFFD. Raises
        IndexRangeError for a token outside 0..vocab_size-1.
        """
        return self._decode(self._checked(tokens))

    def _encode(self, text: str) -> Any:
        raise NotImplementedError

    def _decode(self, tokens: list[int]) -> str:
        raise NotImplementedError

    def _call(self, method: str) -> str:
        return f"{type(self).__name__}.{method}"

    def _checked(self, tokens: Iterable[int]) -> list[int]:
        """Tokens as ints in range."""
        numbers = np.asarray(tokens if hasattr(tokens, "__array__") else list(tokens))
        found: list[int] = checked_tokens(numbers, self.vocab_size, self._call("decode")).tolist()
        return found

    def state(self) -> dict[str, Any]:
        """Return what `from_state` needs, in types that fit the meta of a weight file."""
        return {"kind": self.kind, **{name: getattr(self, name) for name in self.fields}}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the tokenizer whose `state()` this is. Raises DataError for anything else."""
        try:
            if state["kind"] == cls.kind:
                return cls(**{name: state[name] for name in cls.fields})
            got = state["kind"]
        except MinigradError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            got = f"{type(error).__name__}: {error}"
        wanted = {"kind": cls.kind, **dict.fromkeys(cls.fields, "...")}
        problem = f"this is not the state of a {cls.__name__} ({got})"
        raise DataError(f"{cls.__name__}.from_state", problem, got=state, wanted=wanted)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.vocab_size} tokens>"


def tokenizer_from_state(state: dict[str, Any]) -> Tokenizer:
    """Return the tokenizer whose `state()` this is, of any kind. Raises DataError for an unknown
    kind.
    """
    kind, kinds = state.get("kind"), Tokenizer.kinds
    if kind not in kinds:
        wanted = "one of " + ", ".join(kinds)
        problem = f"unknown kind of tokenizer {kind!r}"
        raise DataError("tokenizer_from_state", problem, kind, list(kinds), wanted)
    return kinds[kind].from_state(state)


def well_formed(text: str, call: str) -> str:
    """The text without lone surrogates, which stand for U+FFFD."""
    if not isinstance(text, str):
        problem = f"text must be a str, got {type(text).__name__}"
        raise DTypeError(call, problem, got=type(text).__name__, wanted="str")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def checked_tokens(tokens: Array, vocab_size: int, call: str) -> Array:
    """The tokens, if they are a row of integers in 0..vocab_size-1. An empty list is not of an
    integer dtype, and is accepted.
    """
    if tokens.size and (tokens.dtype.kind not in "iu" or tokens.ndim != 1):
        problem = f"tokens must be integers in a row, got {tokens.dtype} of shape {tokens.shape}"
        hint = "tokenizer.encode gives them"
        raise DTypeError(call, problem, tokens.dtype, "integers (T,)", hint)
    for bad in (int(tokens.min()), int(tokens.max())) if tokens.size else ():
        if not 0 <= bad < vocab_size:
            problem = f"token {bad} is outside 0..{vocab_size - 1}"
            raise IndexRangeError(call, problem, bad, (0, vocab_size - 1))
    return tokens


def checked_special(tokens: Sequence[str], call: str) -> list[str]:
    """Special tokens, each once. Raises ConfigError for an empty one, which every text would
    contain everywhere.
    """
    found = list(dict.fromkeys(well_formed(token, call) for token in tokens))
    if isinstance(tokens, str) or "" in found:
        problem = f"special_tokens must be a list of texts that are not empty, got {tokens!r}"
        raise ConfigError(call, problem, got=tokens, wanted=["<|endoftext|>"])
    return found
