"""Saving and loading weights: what goes in comes out; equal content gives equal bytes; what cannot
go in says so.
"""

import os
import tempfile
import unicodedata
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from minigrad import dtypes
from minigrad.errors import DTypeError, FormatError, MissingFileError, SaveError, StateDictError
from minigrad.files import layout, load, peek, save

NUMBERS = [d for d in layout.DTYPES.values() if d != dtypes.bfloat16]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@st.composite
def arrays(draw):
    dtype = draw(st.sampled_from([*NUMBERS, dtypes.bfloat16]))
    bits = hnp.arrays(np.uint16, SHAPES) if dtype == dtypes.bfloat16 else hnp.arrays(dtype, SHAPES)
    array = draw(bits)
    if dtype == dtypes.bfloat16:
        array = array.view(dtype)
    view = draw(st.sampled_from(["plain", "transposed", "reversed", "strided", "big-endian"]))
    if view == "transposed":
        return array.T
    if view == "big-endian":
        return array.astype(array.dtype.newbyteorder(">"))
    if array.ndim == 0:
        return array
    return {"plain": array, "reversed": array[::-1], "strided": np.repeat(array, 2, axis=0)[::2]}[
        view
    ]


NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=8
).map(lambda s: unicodedata.normalize("NFC", s))
INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=5)
LEAVES = st.none() | st.booleans() | INT64 | st.floats(allow_nan=False) | TEXT
TREES = st.recursive(
    LEAVES, lambda x: st.lists(x, max_size=3) | st.dictionaries(TEXT, x, max_size=3), max_leaves=8
)
META = st.dictionaries(TEXT, TREES, max_size=4)


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(NAMES, arrays(), max_size=4), META, st.booleans())
def test_arrays_of_every_dtype_shape_and_stride_come_back_to_the_bit(content, meta, mmap):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.mgrd")
        digest = save(path, content, meta=meta)
        loaded = load(path, mmap=mmap)
        assert list(loaded) == sorted(content)
        assert loaded.meta == meta and loaded.sha256 == digest
        for name, array in content.items():
            assert same(loaded[name], array.astype(array.dtype.newbyteorder("=")))
        again = os.path.join(folder, "b.mgrd")
        save(again, dict(reversed(content.items())), meta=dict(reversed(meta.items())))
        assert Path(path).read_bytes() == Path(again).read_bytes()


def test_a_file_is_a_row_of_plain_msgpack_objects(tmp_path):
    save(tmp_path / "a.mgrd", {"w": np.arange(6, dtype=np.float32)})
    unpacker = msgpack.Unpacker(raw=True, strict_map_key=False)
    unpacker.feed((tmp_path / "a.mgrd").read_bytes())
    preamble, header, pad, data, trailer = unpacker
    assert (len(preamble), header[b"format"], set(pad), len(trailer)) == (30, b"minigrad", {0}, 40)
    assert np.frombuffer(data, np.float32).tolist() == [0, 1, 2, 3, 4, 5]


def test_every_payload_lies_at_a_multiple_of_64_bytes(tmp_path):
    for n in range(70):
        save(tmp_path / "a.mgrd", {"w" * (n + 1): np.zeros(n, np.uint8), "x": np.ones(3)})
        assert all(t.offset % 64 == 0 for t in peek(tmp_path / "a.mgrd").tensors)


def test_tied_weights_are_stored_once_and_tied_again(tmp_path):
    w = np.random.default_rng(0).normal(size=(100, 10))
    save(tmp_path / "a.mgrd", {"wte": w, "head": w, "view": w[:], "part": w[1:], "turned": w.T})
    loaded = load(tmp_path / "a.mgrd")
    assert loaded["wte"] is loaded["head"] is loaded["view"]
    assert loaded["part"] is not loaded["head"] and loaded["turned"].shape == (10, 100)
    assert loaded.info.aliases == {"view": "head", "wte": "head"}
    assert same(load(tmp_path / "a.mgrd", names=["wte"])["wte"], w)


def test_equal_arrays_in_different_memory_are_not_tied(tmp_path):
    save(tmp_path / "a.mgrd", {"a": np.ones(3), "b": np.ones(3), "c": np.ones(0), "d": np.ones(0)})
    assert peek(tmp_path / "a.mgrd").aliases == {}


def test_what_carries_an_array_as_data_is_saved_like_the_array(tmp_path):
    class Box:
        data = np.arange(3, dtype=np.uint16).view(dtypes.bfloat16)

    save(
        tmp_path / "a.mgrd",
        {"box": Box(), "list": [[1, 2], [3, 4]], "scalar": 2.5, "np": np.int16(7)},
    )
    loaded = load(tmp_path / "a.mgrd")
    assert same(loaded["box"], Box.data)
    assert (loaded["list"].tolist(), loaded["scalar"].shape, loaded["np"].dtype) == (
        [[1, 2], [3, 4]],
        (),
        np.int16,
    )


def test_some_names_can_be_loaded_alone(tmp_path):
    save(tmp_path / "a.mgrd", {"h.0.weight": np.ones(3), "h.0.bias": np.zeros(3)})
    assert list(load(tmp_path / "a.mgrd", names=["h.0.bias"])) == ["h.0.bias"]
    with pytest.raises(StateDictError) as caught:
        load(tmp_path / "a.mgrd", names=["h.0.wieght"])
    assert caught.value.got == ["h.0.wieght"] and "h.0.weight" in caught.value.hint


def test_damage_elsewhere_does_not_hinder_a_partial_load_that_is_not_verified(tmp_path):
    path = tmp_path / "a.mgrd"
    save(path, {"a": np.zeros(9), "b": np.ones(9)})
    content = bytearray(path.read_bytes())
    content[peek(path).tensors[0].offset] ^= 1
    path.write_bytes(content)
    assert load(path, names=["b"], verify=False)["b"].sum() == 9
    for options, code in [
        ({"names": ["a"], "verify": False}, "crc"),
        ({}, "sha256"),
        ({"verify": False}, "crc"),
        ({"mmap": True}, "sha256"),
        ({"mmap": True, "verify": False}, "crc"),
        ({"names": ["b"]}, "sha256"),
    ]:
        with pytest.raises(FormatError) as caught:
            load(path, **options)
        assert caught.value.code == code


def test_a_mapped_array_is_read_only_and_a_loaded_one_is_not(tmp_path):
    save(tmp_path / "a.mgrd", {"a": np.ones(3)})
    assert not load(tmp_path / "a.mgrd", mmap=True)["a"].flags.writeable
    assert load(tmp_path / "a.mgrd")["a"].flags.writeable


def test_a_file_can_be_held_to_its_sha256(tmp_path):
    digest = save(tmp_path / "a.mgrd", {"a": np.ones(3)})
    load(tmp_path / "a.mgrd", sha256=digest.upper())
    with pytest.raises(FormatError) as caught:
        load(tmp_path / "a.mgrd", sha256="0" * 64)
    assert (caught.value.code, caught.value.got) == ("sha256-other", digest)


def test_large_files_are_verified_in_threads(tmp_path):
    path = tmp_path / "a.mgrd"
    content = {f"w{i}": np.random.default_rng(i).normal(size=200_000) for i in range(5)}
    digest = save(path, content)
    loaded = load(path, sha256=digest)
    assert all(same(loaded[name], content[name]) for name in content)
    damaged = bytearray(path.read_bytes())
    damaged[4_000_000] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(FormatError) as caught:
        load(path)
    assert caught.value.code == "sha256" and "'w2'" in caught.value.problem


@pytest.mark.parametrize(
    "array",
    [
        np.array([None]),
        np.array(["text"]),
        np.array(["2020-01-01"], "M8[D]"),
        np.array([1j]),
        np.zeros(2, "f4,i4"),
        np.zeros(2, np.longdouble),
        np.ma.masked_array([1.0, 2.0], [0, 1]),
        [[1], [2, 3]],
        {"a": 1},
        None,
        b"bytes",
    ],
    ids=lambda x: type(x).__name__ + str(getattr(x, "dtype", "")),
)
def test_what_is_no_number_is_refused_before_the_disk_is_touched(tmp_path, array):
    with pytest.raises(DTypeError):
        save(tmp_path / "a.mgrd", {"good": np.ones(2), "bad": array})
    assert os.listdir(tmp_path) == []


def deep(levels):
    return {"x": deep(levels - 1)} if levels else 1


CYCLE: dict = {}
CYCLE["again"] = CYCLE


@pytest.mark.parametrize(
    ("names", "meta", "code"),
    [
        ([""], {}, "name-empty"),
        (["x" * 513], {}, "name-length"),
        (["é" * 257], {}, "name-length"),
        (["a\0b"], {}, "name-control"),
        (["a\x85"], {}, "name-control"),
        (["e\u0301"], {}, "name-nfc"),
        (["\ud800"], {}, "name-surrogate"),
        ([3], {}, "name-type"),
        ([], {"x": 2**63}, "int64"),
        ([], {"x": b"bytes"}, "meta-type"),
        ([], {"x": np.ones(2)}, "meta-type"),
        ([], {"x": 1j}, "meta-type"),
        ([], {3: 1}, "header-key-type"),
        ([], {"x": {None: 1}}, "header-key-type"),
        ([], deep(9), "depth"),
        ([], CYCLE, "depth"),
        ([], {"x": "a" * 65537}, "header-length"),
        ([], {"x" * 65537: 1}, "header-length"),
        ([], {"x": "\ud800"}, "header-value"),
        ([], {"x": [{"a": 1}] * 40000}, "header-objects"),
        ([], {"x": ["ab" * 30000] * 100}, "header-limit"),
    ],
)
def test_names_and_meta_that_have_no_room_are_refused_before_the_disk_is_touched(
    tmp_path, names, meta, code
):
    with pytest.raises(FormatError) as caught:
        save(tmp_path / "a.mgrd", {name: np.ones(2) for name in names}, meta=meta)
    assert caught.value.code == code
    assert os.listdir(tmp_path) == []


def test_meta_keeps_its_limits_from_within(tmp_path):
    meta = {
        **deep(8),
        "text": "a" * 65536,
        "low": -(2**63),
        "high": 2**63 - 1,
        "numpy": np.float32(0.5),
        "pair": (1, 2),
    }
    save(tmp_path / "a.mgrd", {"x" * 512: np.ones(2)}, meta=meta)
    assert load(tmp_path / "a.mgrd").meta == {**meta, "numpy": 0.5, "pair": [1, 2]}


def test_a_missing_file_is_a_file_not_found_error_with_its_neighbours(tmp_path):
    save(tmp_path / "weights.mgrd", {})
    with pytest.raises(MissingFileError) as caught:
        load(tmp_path / "wieghts.mgrd")
    assert isinstance(caught.value, FileNotFoundError) and "weights.mgrd" in caught.value.hint
    assert caught.value.code == "no-such-file"


def test_save_errors_are_os_errors(tmp_path):
    with pytest.raises(SaveError) as caught:
        save(tmp_path / "no" / "folder.mgrd", {})
    assert (
        isinstance(caught.value, OSError)
        and caught.value.errno == 2
        and "folder" in str(caught.value)
    )


def said(loaded):
    return {name: array.tolist() for name, array in loaded.items()}, loaded.meta


@pytest.mark.parametrize(
    "read", [lambda p: load(p, names=["tied"]), lambda p: load(p, mmap=True)], ids=["names", "mmap"]
)
def test_no_flipped_bit_of_a_small_file_gives_other_numbers_in_any_mode(tmp_path, read):
    path, w = tmp_path / "a.mgrd", np.ones(3, np.float32)
    save(path, {"a": w, "c": np.full(3, 7, np.float32), "tied": w}, meta={"n_head": 4})
    good, wanted = path.read_bytes(), said(read(path))
    for i in range(len(good)):
        path.write_bytes(good[:i] + bytes([good[i] ^ (1 << i % 8)]) + good[i + 1 :])
        try:
            assert said(read(path)) == wanted, i
        except FormatError:
            continue


def test_a_path_that_is_none_is_one_error(tmp_path, monkeypatch):
    with pytest.raises(SaveError, match="null"):
        save("a\0b", {})
    with pytest.raises(SaveError, match="folder"):
        save(str(tmp_path / "x") + "/", {})
    assert not os.listdir(tmp_path)
    with pytest.raises(FormatError):
        load("a\0b")
    (tmp_path / "model\x1b[31m.mgrd").write_bytes(b"")
    with pytest.raises(MissingFileError) as caught:
        load(tmp_path / "model.mgrd")
    assert "model" in caught.value.hint and "\x1b" not in caught.value.hint
    monkeypatch.setattr(
        os, "listdir", lambda _: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    with pytest.raises(MissingFileError):
        load(tmp_path / "model.mgrd")
