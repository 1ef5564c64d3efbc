"""Bytes, BPE and WordPiece: round trips, and the `tokenizers` library's answers."""

import functools
import json
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from minigrad import Tensor
from minigrad.data import default_text
from minigrad.errors import (
    ConfigError,
    DataError,
    DTypeError,
    IndexRangeError,
    MissingDependencyError,
)
from minigrad.text import (
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    TokenizerFile,
    WordPieceTokenizer,
    tokenizer_from_state,
)
from minigrad.text.bpe import _BYTES

TEXT = default_text()[:60_000] + " naïve café — 北京 ½ ² Ⅷ ٣ 🙂 don't WE'LL  \n\n\t x_y __init__ "
BPE = BPETokenizer.train(TEXT, 600, special_tokens=["<|end|>"])
WORDPIECE = WordPieceTokenizer.train(TEXT, 500)
ASSIGNED = st.text(st.characters(exclude_categories=["Cs", "Cn"]))
PROSE = st.lists(
    st.sampled_from(
        [*"abctheing 'sdll\n\t  123½²٣é北_-.🙂Ⅷ\u00a0\u2003\x85\x1c", " the", "don't", "__"]
    ),
    max_size=60,
).map("".join)


def printable(piece: bytes) -> str:
    """Bytes as the `tokenizers` library writes them: the n-th unprintable byte as character 256 +
    n.
    """
    shown = {b: chr(b) if i < 188 else chr(256 + i - 188) for i, b in enumerate(_BYTES)}
    return "".join(shown[b] for b in piece)


@functools.cache
def library_bpe(ours: BPETokenizer):
    tokenizers = pytest.importorskip("tokenizers")
    pieces = [
        printable(ours.decode_bytes([t])) for t in range(ours.vocab_size - len(ours.special_tokens))
    ]
    model = tokenizers.models.BPE(
        vocab={p: i for i, p in enumerate(pieces)},
        merges=[(pieces[a], pieces[b]) for a, b in ours.merges],
    )
    theirs = tokenizers.Tokenizer(model)
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = tokenizers.decoders.ByteLevel()
    return theirs


def test_the_bytes_are_numbered_as_in_gpt2():
    assert sorted(_BYTES) == list(range(256))
    assert BPE.decode([0, 1, 220]) == '!" '


@settings(deadline=None)
@given(ASSIGNED)
def test_bytes_and_bpe_give_every_text_back(text):
    for tokenizer in (ByteTokenizer(), BPE):
        tokens = tokenizer.encode(text)
        assert tokens.dtype == np.int32 and tokenizer.decode(tokens) == text
    assert ByteTokenizer().encode(text).tolist() == list(text.encode())


@settings(deadline=None, max_examples=300)
@given(st.one_of(ASSIGNED, PROSE))
def test_bpe_encodes_as_the_library_does(text):
    assert BPE.encode(text).tolist() == library_bpe(BPE).encode(text).ids


def test_bpe_learns_the_merges_that_the_library_learns():
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    theirs.train_from_iterator([TEXT], trainer)
    ours = BPETokenizer.train(TEXT, 600)
    assert {printable(ours.decode_bytes([t])): t for t in range(600)} == theirs.get_vocab()
    merges = json.loads(theirs.to_str())["model"]["merges"]
    assert [tuple(printable(ours.decode_bytes([t])) for t in pair) for pair in ours.merges] == [
        tuple(m) for m in merges
    ]


def test_pairs_never_reach_across_words_or_parts():
    a, b, space = (int(BPE.encode(c)[0]) for c in "ab ")
    assert BPETokenizer.train(["ab ab", "ab"], 300).merges == {(a, b): 256, (space, 256): 257}
    assert BPETokenizer.train(["ab ab", "ab"], 300, min_frequency=2).merges == {(a, b): 256}
    assert BPETokenizer.train(["ab ab", "ab"], 257).merges == {(a, b): 256}


def test_special_tokens_are_read_only_when_asked_for():
    end = BPE.special_tokens["<|end|>"]
    assert end == BPE.vocab_size - 1 == 599
    assert BPE.encode("a<|end|>b", special=True).tolist() == [
        *BPE.encode("a"),
        end,
        *BPE.encode("b"),
    ]
    assert end not in BPE.encode("a<|end|>b") and BPE.decode(BPE.encode("a<|end|>b")) == "a<|end|>b"
    assert BPE.decode([end]) == "<|end|>"


def test_a_text_becomes_shorter_than_its_bytes():
    assert len(BPE.encode(TEXT)) < 0.55 * len(TEXT.encode())


@settings(deadline=None, max_examples=300)
@given(st.one_of(ASSIGNED, PROSE), st.booleans())
def test_wordpiece_encodes_as_the_library_does(text, lowercase):
    tokenizers = pytest.importorskip("tokenizers")
    # Letters whose lower case is spelled differently by Unicode versions, and ß-like ones, are not
    # the subject here; nor are characters that younger Unicode versions have added or moved.
    text = "".join(
        c
        for c in text
        if unicodedata.ucd_3_2_0.category(c) == unicodedata.category(c)
        and unicodedata.normalize("NFD", c.lower()).lower()
        == unicodedata.normalize("NFD", c).lower()
    )
    model = tokenizers.models.WordPiece(
        {p: i for i, p in enumerate(WORDPIECE.pieces)},
        unk_token="[UNK]",
        max_input_chars_per_word=100,
    )
    theirs = tokenizers.Tokenizer(model)
    theirs.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lowercase)
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    ours = WordPieceTokenizer(WORDPIECE.pieces, lowercase)
    assert ours.encode(text).tolist() == theirs.encode(text).ids


def test_wordpiece_spells_words_with_the_longest_pieces_and_knows_what_it_does_not_know():
    tokenizer = WordPieceTokenizer(["[UNK]", "un", "##aff", "##able", "##a", "!"])
    assert [tokenizer.pieces[t] for t in tokenizer.encode("Unaffable! unx")] == [
        "un",
        "##aff",
        "##able",
        "!",
        "[UNK]",
    ]
    assert tokenizer.decode(tokenizer.encode("unaffable !")) == "unaffable !"
    assert (
        WORDPIECE.vocab_size == 500
        and WORDPIECE.decode(WORDPIECE.encode("The statement")) == "the statement"
    )


ALL = [CharTokenizer("abc"), ByteTokenizer(), BPE, WORDPIECE]


@pytest.mark.parametrize("tokenizer", ALL, ids=repr)
def test_a_tokenizer_comes_back_from_its_state(tokenizer):
    state = json.loads(json.dumps(tokenizer.state()))
    again = tokenizer_from_state(state)
    assert type(again) is type(tokenizer) and again.vocab_size == tokenizer.vocab_size
    assert np.array_equal(again.encode("abcab"), tokenizer.encode("abcab"))
    with pytest.raises(DataError, match="from_state"):
        type(tokenizer).from_state({"kind": "other"})
    with pytest.raises(DataError, match="other"):
        tokenizer_from_state({"kind": "other"})


@pytest.mark.parametrize("tokenizer", ALL[1:], ids=repr)
def test_a_token_out_of_range_is_refused(tokenizer):
    for bad in (-1, tokenizer.vocab_size):
        with pytest.raises(IndexRangeError, match=str(bad)):
            tokenizer.decode([0, bad])


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="256"):
        BPETokenizer.train("abc", 256, special_tokens=["<|end|>"])
    with pytest.raises(DataError, match="300"):
        BPETokenizer([(1, 300)])
    with pytest.raises(ConfigError, match="characters"):
        WordPieceTokenizer.train("abcdef", 6)
    with pytest.raises(DataError, match="UNK"):
        WordPieceTokenizer(["a"])


def test_a_tokenizer_json_is_read_through_the_library(tmp_path: Path):
    path = tmp_path / "tokenizer.json"
    library_bpe(BPE).save(str(path))
    tokenizer = TokenizerFile.read(path)
    assert np.array_equal(tokenizer.encode(TEXT[:1000]), BPE.encode(TEXT[:1000]))
    assert tokenizer.decode(tokenizer.encode("naïve café")) == "naïve café"
    assert tokenizer.vocab_size == BPE.vocab_size - 1
    assert (
        tokenizer_from_state(tokenizer.state()).encode("abc").tolist()
        == tokenizer.encode("abc").tolist()
    )
    path.write_text("{}")
    with pytest.raises(DataError, match=r"not a tokenizer\.json"):
        TokenizerFile.read(path)


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    state = WORDPIECE.state()
    for make in (
        lambda: TokenizerFile("{}"),
        lambda: tokenizer_from_state(state),
        lambda: WordPieceTokenizer.train("ab", 30),
    ):
        with pytest.raises(MissingDependencyError, match=r"minigrad\[models\]"):
            make()


def test_a_wordpiece_tokenizer_saved_before_the_library_was_used_loads_and_encodes_alike():
    pieces = ["[PAD]", "[UNK]", *"abehn", "##a", "##e", "##n", "##ana", "ban", "北"]
    tokenizer = tokenizer_from_state(
        {"kind": "wordpiece", "pieces": pieces, "lowercase": True, "unknown": "[UNK]"}
    )
    tokens = tokenizer.encode("Banana BÀN 北北 hen\x07 zebra")
    assert tokens.tolist() == [11, 10, 11, 12, 12, 5, 8, 9, 1]
    assert tokenizer.decode(tokens) == "banana ban 北 北 hen [UNK]"


# --- one policy for all


def make_file() -> TokenizerFile:
    return TokenizerFile(library_bpe(BPE).to_str())


HIGH, LOW = "\ud800\udbff\ud83d", "\udc00\udfff\ude42"
PAIRS = "".join(
    (a + b).encode("utf-16", "surrogatepass").decode("utf-16") for a in HIGH for b in LOW
)
KINDS = {
    "char": lambda: CharTokenizer("ab\0\ufffd\U0001f642 " + PAIRS),
    "byte": ByteTokenizer,
    "bpe": lambda: BPE,
    "wordpiece": lambda: WORDPIECE,
    "file": make_file,
}
every_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
ANY = st.text(st.sampled_from("ab\0 \U0001f642\ufffd" + HIGH + LOW))


@every_kind
@settings(deadline=None)
@given(text=ANY)
def test_a_lone_surrogate_is_u_fffd_and_a_pair_its_character(make, text):
    tokenizer = make()
    sane = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    tokens = tokenizer.encode(text)
    assert tokens.dtype == np.int32
    assert tokens.tolist() == tokenizer.encode(sane).tolist()
    if not isinstance(tokenizer, WordPieceTokenizer):
        assert tokenizer.decode(tokens) == sane
    tokenizer.decode(tokens).encode()  # what comes back can be printed and saved


@every_kind
def test_nothing_is_no_tokens_and_nul_is_a_character(make):
    tokenizer = make()
    assert tokenizer.encode("").shape == (0,) and tokenizer.encode("").dtype == np.int32
    assert tokenizer.decode([]) == "" and tokenizer.decode(np.array([], np.int64)) == ""
    nul = tokenizer.encode("a\0b")
    assert tokenizer.decode(nul) == ("ab" if make is KINDS["wordpiece"] else "a\0b")


@every_kind
def test_what_is_not_a_text_or_a_row_of_tokens_is_refused(make):
    tokenizer = make()
    for text in (None, b"ab", 3, ["a"]):
        with pytest.raises(DTypeError, match="encode"):
            tokenizer.encode(text)
    for tokens in ([0.0], [[0, 1]], ["a"], np.zeros((1, 1), np.int32), [True]):
        with pytest.raises(DTypeError, match="decode"):
            tokenizer.decode(tokens)
    for bad in (-1, tokenizer.vocab_size, 2**40):
        with pytest.raises(IndexRangeError, match=str(bad)):
            tokenizer.decode([0, bad])
    some = [0, tokenizer.vocab_size - 1]
    wanted = tokenizer.decode(some)
    for same in (
        np.array(some, np.uint8 if tokenizer.vocab_size <= 256 else np.int16),
        Tensor(some),
        iter(some),
    ):
        assert tokenizer.decode(same) == wanted


@every_kind
def test_a_state_that_lacks_something_is_refused(make):
    tokenizer = make()
    state = tokenizer.state()
    for name in state:
        with pytest.raises(DataError, match="from_state"):
            type(tokenizer).from_state({key: value for key, value in state.items() if key != name})
        if name not in ("kind", "lowercase"):
            for wrong in (3, None):
                with pytest.raises((DataError, ConfigError, DTypeError)):
                    type(tokenizer).from_state({**state, name: wrong})
    assert type(tokenizer).from_state({**state, "newer": 1}).vocab_size == tokenizer.vocab_size


@pytest.mark.parametrize("tokens", [[""], ["<a>", ""], "<a>"])
def test_a_special_token_is_not_empty(tokens):
    for make in (
        lambda: BPETokenizer([], tokens),
        lambda: BPETokenizer.train("ab", 300, tokens),
        lambda: WordPieceTokenizer.train("ab", 300, special_tokens=tokens),
    ):
        with pytest.raises(ConfigError, match="special_tokens"):
            make()


def test_texts_to_train_on_may_be_broken_or_empty_and_special_tokens_come_twice():
    broken = ["a\ud800b", "", "\0"]
    sane = ["a\ufffdb", "", "\0"]
    assert BPETokenizer.train(broken, 300).merges == BPETokenizer.train(sane, 300).merges
    assert WordPieceTokenizer.train(broken, 30).pieces == WordPieceTokenizer.train(sane, 30).pieces
    assert CharTokenizer.from_text(broken[0]).characters == ["a", "b", "\ufffd"]
    assert CharTokenizer("a\ud800").state() == {"kind": "char", "characters": ["a", "\ufffd"]}
    twice = BPETokenizer([], ["<a>", "\ud800", "<a>"])
    assert twice.special_tokens == {"<a>": 256, "\ufffd": 257}
    assert twice.encode("\ud800<a>", special=True).tolist() == [257, 256]


def test_numpy_scalars_are_sizes_and_a_bool_is_not():
    size, least = np.int64(300), np.int32(2)
    assert BPETokenizer.train(TEXT, size, min_frequency=least).vocab_size == 300
    assert WordPieceTokenizer.train("ab ab", size, min_frequency=least).vocab_size == 8
    for train in (BPETokenizer.train, WordPieceTokenizer.train):
        for wrong in ({"vocab_size": True}, {"vocab_size": 3.5}, {"min_frequency": 0}):
            with pytest.raises(ConfigError, match=next(iter(wrong))):
                train("ab", **{"vocab_size": 300, **wrong})
