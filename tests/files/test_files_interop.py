"""Safetensors and npz against the libraries that made them; conversion; what is refused."""

import contextlib
import json
import os
import struct
import sys

import numpy as np
import pytest
import safetensors.numpy
from forging import npy, npz
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

import minigrad
from minigrad import dtypes, nn
from minigrad.errors import (
    ConfigError,
    DTypeError,
    FormatError,
    MissingDependencyError,
    MissingFileError,
    StateDictError,
)
from minigrad.files import layout, load, save, save_checkpoint, write_durably
from minigrad.files.formats import convert, load_any, peek_any
from minigrad.files.npz import load_npz, save_npz
from minigrad.files.safetensors import load_safetensors, peek_safetensors, save_safetensors
from minigrad.optim import AdamW

NUMBERS = [d for d in layout.DTYPES.values() if d != dtypes.bfloat16]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
ARRAYS = st.dictionaries(
    st.text("abc.é_", min_size=1, max_size=6),
    st.sampled_from(NUMBERS).flatmap(lambda dtype: hnp.arrays(dtype, SHAPES)),
    max_size=5,
)


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def code_of(call, *args, **options):
    with pytest.raises(FormatError) as caught:
        call(*args, **options)
    assert caught.value.problem
    return caught.value.code


@settings(deadline=None, max_examples=60)
@given(ARRAYS, st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=1))
def test_safetensors_are_written_to_the_bytes_of_the_reference_and_read_back(
    tmp_path_factory, content, meta
):
    path = tmp_path_factory.getbasetemp() / "a.safetensors"
    save_safetensors(path, content, meta=meta)
    assert path.read_bytes() == safetensors.numpy.save(content, metadata=meta or None)
    loaded = load_safetensors(path)
    assert loaded.meta == meta and all(same(loaded[name], content[name]) for name in content)


def test_strided_arrays_go_into_safetensors_in_c_order(tmp_path):
    content = {
        "t": np.arange(6.0).reshape(2, 3).T,
        "r": np.arange(4)[::-1],
        "be": np.arange(3, dtype=">f4"),
    }
    save_safetensors(tmp_path / "a.safetensors", content)
    loaded = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    assert all(np.array_equal(loaded[name], content[name]) for name in content)


def test_bfloat16_passes_between_safetensors_and_torch(tmp_path):
    torch = pytest.importorskip("torch")
    torch_files = pytest.importorskip("safetensors.torch")
    values = torch.tensor([1.0, -2.5, 3e38, float("inf")], dtype=torch.bfloat16)
    torch_files.save_file({"w": values}, tmp_path / "a.safetensors")
    loaded = load_safetensors(tmp_path / "a.safetensors")["w"]
    assert loaded.dtype == dtypes.bfloat16
    assert dtypes.cast(loaded, dtypes.float32).tolist() == values.float().tolist()
    save_safetensors(tmp_path / "b.safetensors", {"w": loaded})
    assert torch.equal(torch_files.load_file(tmp_path / "b.safetensors")["w"], values)


def st_file(header, data=b"", pad=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) + len(pad)) + raw + pad + data


def one(**changes):
    fields = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes
    return {"w": {key: value for key, value in fields.items() if value is not ...}}


def two(first, second):
    u8 = {"dtype": "U8", "shape": [4]}
    return {"a": u8 | {"data_offsets": first}, "b": u8 | {"data_offsets": second}}


ST_FAULTS = [
    ("short", b"", "short"),
    ("short", b"1234567", "short"),
    ("header 0", bytes(8), "safetensors"),
    ("header over the limit", struct.pack("<Q", 2**40) + b"{}", "header-limit"),
    ("header past the end", struct.pack("<Q", 100) + b"{}", "safetensors"),
    ("no object", st_file([]), "safetensors"),
    ("a comma too many", st_file(b'{"a":1,}'), "safetensors"),
    ("invalid UTF-8", st_file(b'{"\xff":1}'), "safetensors"),
    ("nested", st_file(b'{"a":' + b"[" * 200_000), "safetensors"),
    ("a key twice", st_file(b'{"w":{"a":1,"a":2}}'), "safetensors"),
    ("a tensor twice", st_file(b'{"w":1,"w":2}'), "safetensors"),
    ("NaN", st_file(b'{"w":NaN}'), "safetensors"),
    ("a huge number", st_file(b'{"w":' + b"9" * 5000 + b"}"), "safetensors"),
    ("metadata no map", st_file({"__metadata__": 1}), "safetensors"),
    ("metadata no text", st_file({"__metadata__": {"a": 1}}), "safetensors"),
    (
        "metadata with half a surrogate pair",
        st_file(b'{"__metadata__":{"a":"\\ud800"}}'),
        "safetensors",
    ),
    (
        "minus zero",
        st_file(b'{"w":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}'),
        "safetensors",
    ),
    ("entry no map", st_file({"w": 1}), "safetensors"),
    ("key missing", st_file(one(shape=...), bytes(8)), "safetensors"),
    ("dtype unknown", st_file(one(dtype="F8_E4M3"), bytes(8)), "safetensors"),
    ("dtype in small letters", st_file(one(dtype="f32"), bytes(8)), "safetensors"),
    ("dtype no text", st_file(one(dtype=32), bytes(8)), "safetensors"),
    ("shape no list", st_file(one(shape=2), bytes(8)), "safetensors"),
    ("shape True", st_file(one(shape=[2, True]), bytes(8)), "safetensors"),
    (
        "shape a float",
        st_file(b'{"w":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}', bytes(8)),
        "safetensors",
    ),
    ("shape negative", st_file(one(shape=[-2]), bytes(8)), "safetensors"),
    ("shape overflows", st_file(one(shape=[2**32, 2**32, 2]), bytes(8)), "safetensors"),
    ("rank 33", st_file(one(shape=[1] * 32 + [2]), bytes(8)), "rank"),
    ("offsets no pair", st_file(one(data_offsets=[0]), bytes(8)), "safetensors"),
    ("offsets True", st_file(one(data_offsets=[False, 8]), bytes(8)), "safetensors"),
    ("offsets negative", st_file(one(data_offsets=[-8, 0]), bytes(8)), "safetensors"),
    ("offsets backwards", st_file(one(data_offsets=[8, 0]), bytes(8)), "safetensors"),
    ("offsets unlike the shape", st_file(one(data_offsets=[0, 4]), bytes(4)), "safetensors"),
    ("overlap", st_file(two([0, 4], [0, 4]), bytes(4)), "safetensors"),
    ("hole", st_file(two([0, 4], [5, 9]), bytes(9)), "safetensors"),
    ("hole at the start", st_file(two([1, 5], [5, 9]), bytes(9)), "safetensors"),
    ("safetensors", st_file(one(), bytes(7)), "safetensors"),
    ("trailing bytes", st_file(one(), bytes(9)), "safetensors"),
    ("bytes without a tensor", st_file({}, b"x"), "safetensors"),
    ("bool 2", st_file(one(dtype="BOOL", data_offsets=[0, 2]), b"\1\2"), "bool-value"),
    ("name empty", st_file({"": one()["w"]}, bytes(8)), "name-empty"),
    ("half a surrogate pair", st_file(b'{"\\ud800":{}}'), "safetensors"),
    ("an npy file", b"\x93NUMPY\x01\x00" + bytes(20), "foreign-npy"),
]


@pytest.mark.parametrize(
    ("content", "code"), [f[1:] for f in ST_FAULTS], ids=[f[0] for f in ST_FAULTS]
)
def test_a_malformed_safetensors_file_is_refused(tmp_path, content, code):
    (tmp_path / "a.safetensors").write_bytes(content)
    assert code_of(load_safetensors, tmp_path / "a.safetensors") == code


def test_safetensors_may_pad_the_header_with_spaces_and_lack_metadata(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(st_file(one(), bytes(8), pad=b"   "))
    assert load_safetensors(tmp_path / "a.safetensors")["w"].tolist() == [0, 0]


def test_every_cut_of_a_safetensors_file_is_refused(tmp_path):
    good = st_file(two([0, 4], [4, 8]), bytes(8))
    for i in range(len(good)):
        (tmp_path / "a.safetensors").write_bytes(good[:i])
        code_of(load_safetensors, tmp_path / "a.safetensors")


def test_some_names_of_a_safetensors_file_can_be_loaded_alone(tmp_path):
    save_safetensors(tmp_path / "a.safetensors", {"a": np.ones(2), "b": np.zeros(2)})
    assert list(load_safetensors(tmp_path / "a.safetensors", names=["b"])) == ["b"]
    assert peek_safetensors(tmp_path / "a.safetensors").names == ["a", "b"]
    with pytest.raises(StateDictError):
        load_safetensors(tmp_path / "a.safetensors", names=["c"])
    with pytest.raises(MissingFileError):
        load_safetensors(tmp_path / "b.safetensors")


def test_what_safetensors_cannot_hold_is_refused_before_writing(tmp_path):
    path = tmp_path / "a.safetensors"
    for content, meta, error in [
        ({"a": np.array([None])}, None, DTypeError),
        ({"__metadata__": np.ones(1)}, None, FormatError),
        ({}, {"a": 1}, FormatError),
        ({"": np.ones(1)}, None, FormatError),
    ]:
        with pytest.raises(error):
            save_safetensors(path, content, meta=meta)
    assert not path.exists()


@settings(deadline=None, max_examples=40)
@given(ARRAYS)
def test_npz_is_read_like_numpy_reads_it_and_numpy_reads_ours(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "a.npz"
    content = {name: (array.T if array.ndim == 2 else array) for name, array in content.items()}
    np.savez_compressed(path, **content)
    loaded = load_npz(path)
    assert sorted(loaded) == sorted(content) and all(same(loaded[n], content[n]) for n in content)
    save_npz(path, content)
    with np.load(path) as theirs:
        assert sorted(theirs) == sorted(content) and all(
            same(theirs[n], content[n]) for n in content
        )


def npy_header(text):
    raw = text.encode().ljust(118)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw


ONES = npy(np.ones(3))
OBJECTS = npy(np.array([{"a": 1}], dtype=object))
NPZ_FAULTS = [
    ("empty", b"", "empty"),
    ("no archive", b"hello", "magic"),
    ("cut", npz([("w.npy", ONES)])[:-30], "npz"),
    ("damaged", npz([("w.npy", ONES)]).replace(ONES, ONES[:-1] + b"\1"), "npz"),
    ("a pickled array", npz([("w.npy", OBJECTS)]), "npz"),
    ("another member", npz([("evil.pkl", b"x")]), "zip-member"),
    ("member cut", npz([("w.npy", ONES[:-1])]), "npz"),
    ("no npy", npz([("w.npy", b"hello world")]), "npy"),
    ("npy version 3", npz([("w.npy", b"\x93NUMPY\x03\x00" + bytes(100))]), "npz"),
    ("a structured dtype", npz([("w.npy", npy(np.zeros(2, "f4,f4")))]), "dtype"),
    ("text", npz([("w.npy", npy(np.array(["a"])))]), "dtype"),
    ("code in the header", npz([("w.npy", npy_header("__import__('os').getcwd()"))]), "npz"),
    (
        "a huge shape",
        npz(
            [
                (
                    "w.npy",
                    npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (10**12,), }"),
                )
            ]
        ),
        "npz",
    ),
    (
        "a huge shape, written out",
        npz(
            [
                (
                    "w.npy",
                    npy_header(
                        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
                    ),
                )
            ]
        ),
        "memory",
    ),
    (
        "a negative shape",
        npz([("w.npy", npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }"))]),
        "npz",
    ),
    ("bool 2", npz([("w.npy", npy(np.array([True])).replace(b"\n\1", b"\n\2"))]), "bool-value"),
    ("name empty", npz([(".npy", ONES)]), "name-empty"),
]


@pytest.mark.parametrize(
    ("content", "code"), [f[1:] for f in NPZ_FAULTS], ids=[f[0] for f in NPZ_FAULTS]
)
def test_a_malformed_npz_archive_is_refused(tmp_path, content, code):
    (tmp_path / "a.npz").write_bytes(content)
    assert code_of(load_npz, tmp_path / "a.npz") == code


def test_a_name_that_stands_twice_in_an_archive_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        (tmp_path / "a.npz").write_bytes(npz([("w.npy", ONES), ("w.npy", ONES)]))
    assert code_of(load_npz, tmp_path / "a.npz") == "name-twice"


CONTENT = {
    "h.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "bf": np.ones(2, np.uint16).view(dtypes.bfloat16),
}
META = {"n_layer": 2, "lr": 0.1, "big": 2**63 - 1, "deep": [{"x": None}], "text": "é"}


def test_weights_pass_through_every_format_and_back(tmp_path):
    save(tmp_path / "a.mgrd", CONTENT, meta=META)
    convert(tmp_path / "a.mgrd", tmp_path / "b.safetensors")
    convert(tmp_path / "b.safetensors", tmp_path / "c.mgrd")
    assert (tmp_path / "a.mgrd").read_bytes() == (tmp_path / "c.mgrd").read_bytes()
    convert(tmp_path / "a.mgrd", tmp_path / "d.npz")
    convert(tmp_path / "d.npz", tmp_path / "e.mgrd")
    assert all(same(load(tmp_path / "e.mgrd")[name], CONTENT[name]) for name in CONTENT)
    for name in ["a.mgrd", "b.safetensors", "d.npz"]:
        assert peek_any(tmp_path / name).names == sorted(CONTENT) == list(load_any(tmp_path / name))


def test_metadata_of_text_stays_as_it_is_in_safetensors(tmp_path):
    save_safetensors(tmp_path / "a.safetensors", CONTENT, meta={"format": "pt"})
    convert(tmp_path / "a.safetensors", tmp_path / "b.mgrd")
    convert(tmp_path / "b.mgrd", tmp_path / "c.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "c.safetensors").read_bytes()


def test_an_ending_that_names_no_format_is_refused(tmp_path):
    save(tmp_path / "a.mgrd", {})
    with pytest.raises(ConfigError) as caught:
        convert(tmp_path / "a.mgrd", tmp_path / "a.pt")
    assert ".safetensors" in caught.value.hint


def test_a_safetensors_file_under_our_ending_is_named_and_the_reverse(tmp_path):
    write_durably(tmp_path / "a.mgrd", [st_file({})], nbytes=10)
    assert code_of(load, tmp_path / "a.mgrd") == "foreign-safetensors"
    save(tmp_path / "b.mgrd", {})
    os.rename(tmp_path / "b.mgrd", tmp_path / "b.safetensors")
    assert load(tmp_path / "b.safetensors") == {}  # as earlier versions wrote it
    assert code_of(load_safetensors, tmp_path / "b.safetensors") == "foreign-mgrd"


class Many(dict):
    """A dict that says it has more entries than a file may."""

    def __len__(self):
        return 65_537


@pytest.mark.parametrize("write", [save_safetensors, save_npz])
@pytest.mark.parametrize(
    ("content", "code"),
    [
        ({"a": np.zeros((1,) * 33)}, "rank"),
        ({"a\0b": 1.0}, "name-control"),
        ({"a\ud800": 1.0}, "name-surrogate"),
        ({"x" * 600: 1.0}, "name-length"),
        ({"": 1.0}, "name-empty"),
        ({5: 1.0}, "name-type"),
        ({"e\u0301": 1.0}, "name-nfc"),
        (Many(a=1.0), "tensor-count"),
    ],
)
def test_writers_hold_the_limits_of_their_readers_before_the_disk_is_touched(
    tmp_path, write, content, code
):
    assert code_of(write, tmp_path / "a", content) == code
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("meta", "code"),
    [
        ({"a": "\ud800"}, "meta-type"),
        ({"\udfff": "a"}, "meta-type"),
        ({"a": "x" * (17 << 20)}, "header-limit"),
        ({1: "a"}, "meta-type"),
    ],
)
def test_safetensors_metadata_has_its_limits_when_written(tmp_path, meta, code):
    assert code_of(save_safetensors, tmp_path / "a", {"w": np.ones(1)}, meta=meta) == code
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "inner",
    [
        '{"a": ' + "[" * 900 + "]" * 900 + "}",
        '{"a": 1' + "0" * 400 + "}",
        '{"a": "\\ud800"}',
        '{"a": NaN}',
    ],
)
def test_odd_meta_of_our_own_key_is_kept_as_text_or_refused_by_convert(tmp_path, inner):
    save_safetensors(tmp_path / "a.safetensors", {"w": np.ones(1)}, meta={"minigrad.meta": inner})
    with contextlib.suppress(FormatError):
        convert(tmp_path / "a.safetensors", tmp_path / "a.mgrd")
    assert isinstance(peek_any(tmp_path / "a.safetensors").meta, dict)


# --- minigrad.save and minigrad.load: the format follows the ending


@pytest.mark.parametrize(
    ("name", "magic"),
    [
        ("a.mgrd", b"MGRD"),
        ("a", b"MGRD"),
        ("a.safetensors", b'{"'),
        ("a.npz", b"PK"),
        ("A.NPZ", b"PK"),
    ],
)
def test_the_format_that_is_written_follows_the_ending(tmp_path, name, magic):
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array([1, 2])}
    digest = minigrad.save(tmp_path / name, arrays)
    assert magic in (tmp_path / name).read_bytes()[:16]
    assert bool(digest) == (magic == b"MGRD")
    found = minigrad.load(tmp_path / name)
    assert {k: (v.dtype, v.tolist()) for k, v in found.items()} == {
        k: (v.dtype, v.tolist()) for k, v in arrays.items()
    }
    assert list(minigrad.load(tmp_path / name, names=["n"])) == ["n"]


def test_meta_goes_where_there_is_room_for_it(tmp_path):
    meta = {"text": "yes", "n": 3, "list": [1.5, None]}
    for name in ("a.mgrd", "a.safetensors"):
        minigrad.save(tmp_path / name, {}, meta=meta)
        assert minigrad.load(tmp_path / name).meta == meta
    with pytest.raises(ConfigError, match="meta must be left out"):
        minigrad.save(tmp_path / "a.npz", {}, meta=meta)


@pytest.mark.parametrize("ending", [".pt", ".pth", ".bin", ".npy", ".h5", ".gguf", ".pkl", ".PT"])
def test_the_ending_of_another_format_is_never_written(tmp_path, ending):
    with pytest.raises(ConfigError, match=r"\.mgrd, \.safetensors, \.npz"):
        minigrad.save(tmp_path / f"a{ending}", {"w": np.ones(2)})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("option", [{"mmap": True}, {"sha256": "0" * 64}, {"verify": True}])
def test_options_of_mgrd_are_refused_for_other_formats(tmp_path, option):
    for name in ("a.npz", "a.safetensors"):
        minigrad.save(tmp_path / name, {"w": np.ones(2)})
        with pytest.raises(ConfigError, match=next(iter(option))):
            minigrad.load(tmp_path / name, **option)


def test_a_call_in_another_order_or_of_another_thing_shows_the_call_to_write(tmp_path):
    model = nn.Linear(3, 2)
    optimizer = AdamW(model.parameters())
    path, usual = tmp_path / "a.mgrd", r"minigrad.save\(path, model.state_dict\(\)\)"
    state = r"save_checkpoint\(path, model.state_dict\(\), {'optimizer'"
    for first, second, shown in [
        (model.state_dict(), path, usual),
        (model, str(path), usual),
        (path, model, usual),
        (path, list(model.parameters()), usual),
        (path, model.weight, r"minigrad.save\(path, {'name': tensor}\)"),
        (path, np.ones(3), r"minigrad.save\(path, {'name': tensor}\)"),
        (path, optimizer, state),
        (path, optimizer.state_dict(), state),
        (path, {"model": model.state_dict()}, r"{f'part.{name}': array"),
        (path, {"model": model}, r"{f'part.{name}': array"),
        (path, {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, state),
    ]:
        with pytest.raises(DTypeError, match=shown):
            minigrad.save(first, second)
    for first, second in [(model.state_dict(), path), (path, model), (path, optimizer)]:
        with pytest.raises(DTypeError, match="call minigrad"):
            save_checkpoint(first, second, {})
    with pytest.raises(DTypeError, match=r"minigrad.load\(path\)"):
        minigrad.load(model)
    assert os.listdir(tmp_path) == []


def test_without_the_library_reading_safetensors_names_what_to_install(tmp_path, monkeypatch):
    minigrad.save(tmp_path / "a.safetensors", {"w": np.ones(2)})  # writing does without
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'minigrad\[models\]'"):
        minigrad.load(tmp_path / "a.safetensors")
