"""From text to tokens and back: characters, bytes, BPE, WordPiece, tokenizer.json; and token files
larger than memory.

Every tokenizer has vocab_size, encode(text) -> int32 array, decode(tokens) -> text, state() and
from_state().
"""

from minigrad.text.base import Tokenizer, tokenizer_from_state
from minigrad.text.bpe import BPETokenizer
from minigrad.text.library import TokenizerFile, WordPieceTokenizer
from minigrad.text.plain import ByteTokenizer, CharTokenizer
from minigrad.text.stream import TokenStream, shuffled, write_tokens

__all__ = [
    "BPETokenizer",
    "ByteTokenizer",
    "CharTokenizer",
    "TokenStream",
    "Tokenizer",
    "TokenizerFile",
    "WordPieceTokenizer",
    "shuffled",
    "tokenizer_from_state",
    "write_tokens",
]
