"""Token files: written in parts, mapped, shuffled without a list, resumed by the step alone."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from minigrad.errors import ConfigError, DataError, DTypeError, IndexRangeError
from minigrad.text import TokenStream, shuffled, write_tokens


def stream(folder: Path, n: int = 1000, **settings) -> TokenStream:
    write_tokens(folder / "tokens.npy", [np.arange(n)], n)
    return TokenStream(
        folder / "tokens.npy", **{"block_size": 7, "batch_size": 4, "seed": 3, **settings}
    )


@pytest.mark.parametrize(("vocab_size", "dtype"), [(256, "<u2"), (65536, "<u2"), (65537, "<u4")])
def test_parts_are_written_one_after_the_other_in_the_smallest_dtype(tmp_path, vocab_size, dtype):
    parts = [
        np.arange(5),
        np.array([], np.int64),
        np.array([vocab_size - 1]),
        np.arange(100_000) % 200,
    ]
    assert write_tokens(tmp_path / "t.npy", iter(parts), vocab_size) == 100_006
    found = np.load(tmp_path / "t.npy")
    assert found.dtype == dtype and np.array_equal(found, np.concatenate(parts))
    assert [p.name for p in tmp_path.iterdir()] == ["t.npy"]


def test_a_bad_token_leaves_what_was_there(tmp_path):
    path = tmp_path / "t.npy"
    write_tokens(path, [np.arange(5)], 10)
    with pytest.raises(IndexRangeError, match="10"):
        write_tokens(path, [np.arange(5), np.array([10])], 10)
    assert np.load(path).tolist() == [0, 1, 2, 3, 4] and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("tokens", [[1.5], np.array([1.0, 2.0]), [True], ["1"], [2**80]])
def test_tokens_that_are_no_integers_are_refused_and_not_rounded(tmp_path, tokens):
    with pytest.raises(DTypeError, match="tokens must be integers"):
        write_tokens(tmp_path / "t.npy", [np.arange(5), tokens], 10)
    assert list(tmp_path.iterdir()) == []
    assert write_tokens(tmp_path / "t.npy", [[], [3]], 10) == 1  # an empty list is no fraction


@pytest.mark.parametrize("vocab_size", [2**32 + 1, 0, -1, 10.0, None])
def test_a_vocabulary_whose_tokens_do_not_fit_32_bits_is_refused(tmp_path, vocab_size):
    with pytest.raises(ConfigError, match="vocab_size must be"):
        write_tokens(tmp_path / "t.npy", [np.array([1])], vocab_size)
    assert list(tmp_path.iterdir()) == []


def test_the_highest_token_of_32_bits_comes_back(tmp_path):
    write_tokens(tmp_path / "t.npy", [np.array([2**32 - 1, 0])], 2**32)
    assert np.load(tmp_path / "t.npy").tolist() == [2**32 - 1, 0]


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**64 - 1), st.integers(0, 10**6))
def test_the_shuffled_order_has_every_number_once(n, seed, epoch):
    order = shuffled(np.arange(n), n, seed, epoch)
    assert np.array_equal(np.sort(order), np.arange(n))


def test_orders_differ_by_seed_and_epoch_and_look_random():
    n = 4000
    orders = [shuffled(np.arange(n), n, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    for i, a in enumerate(orders):
        assert (
            abs(np.corrcoef(a, np.arange(n))[0, 1]) < 0.06
            and abs(np.corrcoef(a[1:], a[:-1])[0, 1]) < 0.06
        )
        assert (a == np.arange(n)).sum() < 10
        assert all((a == b).sum() < 10 for b in orders[:i])
    # In 3 places of 6 orders are about equally frequent.
    firsts = np.array([shuffled(np.arange(3), 3, seed, 0) for seed in range(1200)])
    _, counts = np.unique(firsts, axis=0, return_counts=True)
    assert len(counts) == 6 and counts.min() > 140


def test_a_number_beyond_any_list_is_shuffled():
    n = 10**15
    order = shuffled(np.arange(n - 5, n), n, 1, 2)
    assert len(set(order.tolist())) == 5 and order.min() >= 0 and order.max() < n


def test_an_epoch_gives_every_window_once_and_targets_are_one_token_later(tmp_path):
    data = stream(tmp_path, batch_size=1)
    assert data.windows == 141 and isinstance(data.train, np.memmap)
    seen = [data.batch(step) for step in range(2 * data.windows)]
    assert all(x.shape == (1, 7) and np.array_equal(y, x + 1) for x, y in seen)
    starts = [int(x[0, 0]) for x, _ in seen]
    assert sorted(starts[:141]) == sorted(starts[141:]) == [7 * i for i in range(141)]
    assert starts[:141] != starts[141:]


def test_batches_are_a_function_of_seed_and_step_alone_across_epochs(tmp_path):
    data, again = stream(tmp_path), stream(tmp_path)
    rows = np.concatenate([data.batch(step)[0] for step in range(150)])
    single = stream(tmp_path, batch_size=1)
    assert all(np.array_equal(rows[i], single.batch(i)[0][0]) for i in range(0, 600, 7))
    assert np.array_equal(again.batch(149)[0], rows[-4:])
    assert not np.array_equal(stream(tmp_path, seed=4).batch(0)[0], rows[:4])


@pytest.mark.parametrize("n", [1000, 950, 1007])
def test_validation_covers_its_part_once(tmp_path, n):
    data = stream(tmp_path, n, val_fraction=0.2)
    targets = np.concatenate([y.reshape(-1) for _, y in data.validation()])
    assert np.array_equal(targets, np.arange(n - int(0.2 * n) + 1, n))
    assert all(np.array_equal(y, x + 1) for x, y in data.validation())
    assert list(stream(tmp_path, n, val_fraction=0.0).validation()) == []


def test_what_is_no_file_of_tokens_is_refused(tmp_path):
    path = tmp_path / "t.npy"
    with pytest.raises(FileNotFoundError):
        TokenStream(path, block_size=2, batch_size=1)
    for content in (b"", b"hello" * 100):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"not a \.npy"):
            TokenStream(path, block_size=2, batch_size=1)
    for array in (np.zeros((2, 3), np.int32), np.zeros(5)):
        np.save(path, array)
        with pytest.raises(DataError, match="row of tokens"):
            TokenStream(path, block_size=2, batch_size=1)


@pytest.mark.parametrize(
    "settings", [{"block_size": 0}, {"batch_size": 0}, {"block_size": 999}, {"val_fraction": 1.0}]
)
def test_settings_that_make_no_sense_are_refused(tmp_path, settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        stream(tmp_path, **settings)
