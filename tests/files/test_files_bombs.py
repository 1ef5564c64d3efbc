"""Small files that would cost much time or memory, if the readers let them."""

import contextlib
import time
import tracemalloc
import zipfile

import msgpack
import numpy as np
import pytest
from forging import entry, forge, header, npy, npz

from minigrad.errors import FormatError
from minigrad.files import load, load_checkpoint, peek
from minigrad.files.npz import load_npz
from minigrad.files.safetensors import load_safetensors


def cost(content, tmp_path, read=load):
    """(seconds of processor time, bytes of memory at the most) of reading a file that is refused or
    not.
    """
    path = tmp_path / "bomb.mgrd"
    path.write_bytes(content)
    start = time.process_time()
    with contextlib.suppress(FormatError):
        read(path)
    seconds = time.process_time() - start
    tracemalloc.start()
    try:
        with contextlib.suppress(FormatError):
            read(path)
        return seconds, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def late_duplicate(n):
    """A file whose meta holds a map of n sorted keys, the last of them twice."""
    keys = [msgpack.packb(f"{i:05d}") + b"\0" for i in [*range(n - 1), n - 2]]
    inner = b"\x81\xa1x\xde" + n.to_bytes(2, "big") + b"".join(keys)
    return forge(msgpack.packb(header(meta={"x": 0})).replace(b"\x81\xa1x\0", inner))


def test_a_late_duplicate_among_65535_keys_is_found_in_linear_time(tmp_path):
    path = tmp_path / "bomb.mgrd"
    path.write_bytes(late_duplicate(65_535))
    with pytest.raises(FormatError) as caught:
        load(path)
    assert caught.value.code == "header-duplicate-key"
    seconds, memory = cost(late_duplicate(65_535), tmp_path)
    assert seconds < 3 and memory < 64 * path.stat().st_size  # it was 34 s


@pytest.mark.parametrize("read", [load_checkpoint, peek])
def test_a_deep_and_wide_state_takes_little_memory(read, tmp_path):
    state = 0
    for _ in range(25):
        state = [0] * 20_000 + [state]
    content = forge(header(kind="checkpoint", state={"a": state}, meta={}, aliases={}))
    assert cost(content, tmp_path, read)[1] < 64 * len(content)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "x" * 60_000},
        {"kind": ["x" * 60_000] * 20},
        {"aliases": {"tied": ["x" * 60_000] * 20}},
        {"requires": ["x" * 60_000]},
        {"tensors": [entry("a", "x" * 60_000, [2], b"")]},
        {"x" * 60_000: 1},
    ],
)
def test_an_error_line_is_short_however_long_the_field(change, tmp_path):
    path = tmp_path / "long.mgrd"
    path.write_bytes(forge(header(**change)))
    with pytest.raises(FormatError) as caught:
        load(path)
    assert len(caught.value.problem) < 400 + len(str(path))


NPZ_BOMBS = [
    (
        "deflated zeros",
        npz([("w.npy", npy(np.zeros(4_000_000)))], zipfile.ZIP_DEFLATED),
        "zip-bomb",
    ),
    (
        "deflated in parts",
        npz([(f"{i}.npy", npy(np.zeros(40_000))) for i in range(100)], zipfile.ZIP_DEFLATED),
        "zip-bomb",
    ),
    ("bz2", npz([("w.npy", npy(np.ones(3)))], zipfile.ZIP_BZIP2), "zip-compression"),
    ("lzma", npz([("w.npy", npy(np.ones(3)))], zipfile.ZIP_LZMA), "zip-compression"),
    (
        "a wide directory",
        npz([("x" * 60_000 + f"{i}.npy", b"") for i in range(80)]),
        "name-length",
    ),
]


@pytest.mark.parametrize(
    ("content", "code"), [b[1:] for b in NPZ_BOMBS], ids=[b[0] for b in NPZ_BOMBS]
)
def test_an_npz_bomb_is_refused_before_it_is_read(content, code, tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        load_npz(path)
    assert caught.value.code == code and len(caught.value.problem) < 300 + len(str(path))
    assert cost(content, tmp_path, load_npz)[1] < 64 * len(content) + 2**20


def test_an_archive_with_too_many_members_is_refused(tmp_path):
    content = npz([(f"{i}.npy", b"") for i in range(66_000)])
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        load_npz(path)
    assert caught.value.code == "tensor-count"


def test_arrays_that_compress_well_are_read(tmp_path):
    np.savez_compressed(
        tmp_path / "a.npz",
        zeros=np.zeros(60_000),
        noise=np.random.default_rng(0).normal(size=30_000),
    )
    assert set(load_npz(tmp_path / "a.npz")) == {"zeros", "noise"}


@pytest.mark.parametrize("item", [b"[],", b"9,", b'"ab",'])
def test_a_safetensors_header_of_very_many_values_is_refused(item, tmp_path):
    raw = b'{"a":[' + item * 1_100_000 + b"1]}"
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw)
    with pytest.raises(FormatError) as caught:
        load_safetensors(path)
    assert caught.value.code == "safetensors" and len(caught.value.problem) < 400
