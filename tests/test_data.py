"""Text, tokens, batches, and the baseline."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from minigrad.data import (
    CharTokenizer,
    TextData,
    _pair_counts,
    bigram_loss,
    default_text,
    read_text,
    standard_library_docstrings,
)
from minigrad.errors import ConfigError, DataError

TEXT = "the quick brown fox jumps over the lazy dog. " * 20


def make_data(
    text: str = TEXT, block_size: int = 8, batch_size: int = 4, seed: int = 0
) -> tuple[TextData, CharTokenizer]:
    tokenizer = CharTokenizer.from_text(text)
    return TextData(
        tokenizer.encode(text), block_size=block_size, batch_size=batch_size, seed=seed
    ), tokenizer


def test_the_default_text_is_prose_of_several_hundred_thousand_characters() -> None:
    text = default_text()
    assert 200_000 < len(text) < 2_000_000
    assert "statement" in text and text == default_text()


def test_without_the_documentation_the_docstrings_of_the_standard_library_serve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    text = default_text()
    assert text == standard_library_docstrings() and 200_000 < len(text) <= 500_000


def test_a_python_without_its_library_sources_asks_for_a_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(DataError, match="--text"):
        standard_library_docstrings()


@settings(deadline=None)
@given(st.text(min_size=2).filter(lambda t: len(set(t)) > 1))
def test_decode_undoes_encode_for_any_text(text: str) -> None:
    tokenizer = CharTokenizer.from_text(text)
    tokens = tokenizer.encode(text)
    assert tokens.shape == (len(text),) and tokens.dtype == np.int32
    assert tokenizer.decode(tokens) == text
    assert CharTokenizer.from_state(tokenizer.state()).encode(text).tolist() == tokens.tolist()


@given(st.text(min_size=2).filter(lambda t: len(set(t)) > 1), st.text(min_size=1))
def test_unknown_characters_are_all_named(known: str, text: str) -> None:
    tokenizer = CharTokenizer.from_text(known)
    unknown = sorted(set(text) - set(known))
    if unknown:
        with pytest.raises(DataError) as caught:
            tokenizer.encode(text)
        assert caught.value.got == unknown
    else:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_error_for_unknown_characters_stays_short() -> None:
    with pytest.raises(DataError, match=r"'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H' and 2 more"):
        CharTokenizer("ab").encode("ABCDEFGHIJ")


@pytest.mark.parametrize("text", ["", "x", "aaaa"])
def test_a_text_with_less_than_two_different_characters_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="nothing to predict"):
        CharTokenizer.from_text(text)


def test_the_state_of_another_tokenizer_is_refused() -> None:
    with pytest.raises(DataError):
        CharTokenizer.from_state({"kind": "bpe"})


def test_targets_are_the_inputs_one_token_later() -> None:
    data, _ = make_data()
    x, y = data.batch(3)
    assert x.shape == y.shape == (4, 8)
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    first, again, other = make_data(seed=1)[0], make_data(seed=1)[0], make_data(seed=2)[0]
    for step in (5, 0, 1000):  # in any order: nothing is remembered
        np.testing.assert_array_equal(first.batch(step)[0], again.batch(step)[0])
    assert any((first.batch(s)[0] != other.batch(s)[0]).any() for s in range(3))
    assert any((first.batch(0)[0] != first.batch(s)[0]).any() for s in (1, 2))


def test_training_batches_reach_every_window_and_never_the_validation_part() -> None:
    tokens = np.arange(40, dtype=np.int32)
    data = TextData(tokens, block_size=3, batch_size=16)
    starts = {int(x) for step in range(60) for x in data.batch(step)[0][:, 0]}
    assert starts == set(range(36 - 3))
    assert all(data.batch(step)[1].max() < 36 for step in range(60))


@settings(deadline=None)
@given(length=st.integers(6, 400), block_size=st.integers(1, 12), batch_size=st.integers(1, 5))
def test_validation_has_every_token_but_the_first_as_a_target_once(
    length: int, block_size: int, batch_size: int
) -> None:
    tokens = np.arange(length, dtype=np.int32)
    try:
        data = TextData(tokens, block_size=block_size, batch_size=batch_size)
    except ConfigError:
        return
    batches = list(data.validation())
    assert np.concatenate([y.ravel() for _, y in batches]).tolist() == data.val[1:].tolist()
    assert all(
        (y == x + 1).all() and x.shape[0] <= batch_size and x.shape[1] <= block_size
        for x, y in batches
    )
    np.testing.assert_array_equal(np.concatenate([data.train, data.val]), tokens)


@pytest.mark.parametrize(("length", "block_size"), [(10, 10), (10, 64), (10, 8), (2, 1), (0, 1)])
def test_a_text_shorter_than_one_window_is_refused(length: int, block_size: int) -> None:
    with pytest.raises(ConfigError, match="longer than the text"):
        TextData(np.zeros(length, np.int32), block_size=block_size, batch_size=1)


def test_the_block_size_that_the_error_proposes_is_the_longest_that_works() -> None:
    tokens = np.zeros(50, np.int32)
    with pytest.raises(ConfigError, match="at most 44"):
        TextData(tokens, block_size=64, batch_size=1)
    TextData(tokens, block_size=44, batch_size=1).batch(0)
    with pytest.raises(ConfigError):
        TextData(tokens, block_size=45, batch_size=1)


def test_the_pair_table_knows_an_alternating_text_and_not_a_random_one() -> None:
    data, tokenizer = make_data("ab" * 5000)
    assert bigram_loss(data, tokenizer.vocab_size) < 0.001
    noise = "".join(np.random.default_rng(0).choice(list("abcd"), 20_000))
    data, tokenizer = make_data(noise)
    assert bigram_loss(data, tokenizer.vocab_size) == pytest.approx(math.log(4), abs=0.01)


def test_the_pair_table_is_the_formula_of_its_docstring() -> None:
    data, tokenizer = make_data("abracadabra, said the magician. " * 8)
    V = tokenizer.vocab_size
    total = 0.0
    for a, b in zip(data.val[:-1].tolist(), data.val[1:].tolist(), strict=True):
        pairs = list(zip(data.train[:-1].tolist(), data.train[1:].tolist(), strict=True))
        total -= math.log(
            (pairs.count((a, b)) + 0.1) / (sum(first == a for first, _ in pairs) + 0.1 * V)
        )
    assert bigram_loss(data, V) == pytest.approx(total / (len(data.val) - 1), rel=1e-12)


def test_a_folder_is_read_in_the_order_of_its_paths_without_hidden_and_binary_files(
    tmp_path: Path,
) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "c.txt").write_text("third")
    (tmp_path / "a.md").write_bytes("\ufefffirst\r\nline".encode())
    (tmp_path / "b" / "x").write_text("second")
    (tmp_path / ".git" / "y").write_text("hidden")
    (tmp_path / "z.bin").write_bytes(b"\0\1\2")
    (tmp_path / "latin.txt").write_bytes(b"\xe4\xf6")
    assert read_text(tmp_path) == "first\nline\n\nsecond\n\nthird"


def test_what_is_no_text_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"latin\.txt is not UTF-8"):
        read_text(tmp_path / "latin.txt")
    with pytest.raises(DataError, match="no UTF-8 text"):
        read_text(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "nowhere")


def test_the_table_of_pairs_is_counted_alike_in_parts_and_by_sorting() -> None:
    tokens = np.random.default_rng(0).integers(0, 5, (1 << 20) + 50_000).astype(np.int32)
    data = TextData(tokens, block_size=4, batch_size=2)
    wanted = data.val[:-1].astype(np.int64) * 5 + data.val[1:]
    pairs = np.bincount(data.train[:-1].astype(np.int64) * 5 + data.train[1:], minlength=25)
    assert np.array_equal(_pair_counts(data, 5), pairs[wanted])
    assert np.array_equal(_pair_counts(data, 5000), pairs[wanted])


def test_what_a_folder_holds_beside_utf_8_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc")
    (tmp_path / "b.txt").write_bytes("caf\xe9".encode("latin-1"))
    (tmp_path / "c.bin").write_bytes(b"\0\1")
    (tmp_path / ".hidden").write_bytes(b"\xff")
    skipped: list[Path] = []
    assert read_text(tmp_path, skipped) == "abc"
    assert [path.name for path in skipped] == ["b.txt", "c.bin"]
