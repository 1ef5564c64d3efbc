"""Every way in which a file can be wrong, each with a code of its own.

Everything around the fault is right: lengths, checksums, SHA-256.
"""

import os
import socket
import struct
import zlib

import msgpack
import numpy as np
import pytest
from forging import MAGIC, PAYLOADS, body, entry, forge, header, preamble, reseal, seal, trailer

from minigrad.errors import FormatError
from minigrad.files import load, peek, save, verify

GOOD = forge()
PACK = msgpack.packb
A, B = header()["tensors"]
RAW = PACK(header())
F32 = PAYLOADS[1]


def code_of(path, **options):
    with pytest.raises(FormatError) as caught:
        load(path, **options)
    assert caught.value.call == "load" and caught.value.problem
    return caught.value.code


def with_tensor(*fields):
    """The small file with its second tensor's entry replaced."""
    return forge(header(tensors=[A, list(fields)]))


def renamed(*names):
    return forge(
        header(
            tensors=[entry(n, "f32", [3], F32, offset=64 * i) for i, n in enumerate(names)],
            aliases={},
        ),
        [F32] * len(names),
    )


def raw_header(before, after):
    """The small file with some bytes of its packed header replaced."""
    assert RAW.count(before) == 1
    return forge(RAW.replace(before, after))


def nested(levels):
    return b"\x91" * levels + b"\xc0"


def in_meta(packed):
    """A header whose meta holds one value that is given packed."""
    return forge(PACK(header(meta={"x": 0})).replace(b"\x81\xa1x\x00", b"\x81\xa1x" + packed))


def meta(value):
    return forge(header(meta={"x": value}))


# A length beyond the limit and beyond the input: msgpack's two decoders look at the one or the
# other first.
ANNOUNCED = "header-length" if os.environ.get("MSGPACK_PUREPYTHON") else "header-msgpack"

FAULTS = [
    ("empty", b"", "empty"),
    ("one byte", b"\xc4", "short"),
    ("cut inside the magic", GOOD[:5], "short"),
    ("shorter than a preamble", GOOD[:31], "short"),
    ("wrong magic", b"\xc4\x1eNOTMGRD!" + GOOD[10:], "magic"),
    ("no msgpack object first", b"\xc5" + GOOD[1:], "magic"),
    ("magic mangled by CRLF to LF", GOOD.replace(b"\r\n", b"\n"), "magic-newlines"),
    ("magic mangled by LF to CRLF", GOOD.replace(b"\n", b"\r\n"), "magic-newlines"),
    ("preamble crc", forge(crc=1), "preamble-crc"),
    ("reserved not 0", forge(reserved=1), "reserved"),
    ("major newer", forge(major=2), "version-newer"),
    ("major 0", forge(major=0), "version-unknown"),
    ("file_len one less", forge(file_len=len(GOOD) - 1), "trailing-bytes"),
    ("file_len one more", forge(file_len=len(GOOD) + 1), "cut"),
    ("one byte appended", GOOD + b"\0", "trailing-bytes"),
    ("a second file appended", GOOD + GOOD, "trailing-bytes"),
    ("header_len 0", forge(header_len=0), "header-empty"),
    ("header_len over the limit", forge(header_len=(4 << 20) + 1), "header-limit"),
    ("header_len past the file", forge(header_len=len(GOOD)), "header-past-end"),
    ("header_len into the trailer", forge(header_len=len(GOOD) - 32 - 41), "header-past-end"),
    ("trailer magic", GOOD[:-42] + b"\xc4\x28MGRDENDX" + GOOD[-32:], "trailer"),
    ("sha256", GOOD[:-1] + bytes([GOOD[-1] ^ 1]), "sha256"),
    ("header not a map", forge(PACK([1, 2])), "header-not-a-map"),
    ("header cut", forge(RAW[:-1]), "header-msgpack"),
    ("header with a reserved byte", forge(b"\xc1" + RAW), "header-msgpack"),
    ("bytes left inside the header", forge(RAW + b"\xc0"), "header-extra-bytes"),
    ("a map in the long encoding", forge(b"\xde\x00\x08" + RAW[1:]), "header-not-canonical"),
    (
        "a number in the long encoding",
        raw_header(b"\xa1n\x03", b"\xa1n\xcc\x03"),
        "header-not-canonical",
    ),
    (
        "a text in the long encoding",
        raw_header(b"\xa8minigrad\xa4k", b"\xd9\x08minigrad\xa4k"),
        "header-not-canonical",
    ),
    ("a float of 32 bits", in_meta(b"\xca" + struct.pack(">f", 0.5)), "header-not-canonical"),
    ("keys not sorted", forge(PACK(dict(reversed(header().items())))), "header-key-order"),
    ("keys of meta not sorted", meta({"b": 1, "a": 2}), "header-key-order"),
    (
        "duplicate key at the top",
        forge(b"\x89" + PACK("aliases") + PACK({}) + RAW[1:]),
        "header-duplicate-key",
    ),
    ("duplicate key in meta", in_meta(b"\x82\xa1a\x00\xa1a\x00"), "header-duplicate-key"),
    (
        "duplicate key deep in meta",
        in_meta(b"\x91\x91\x82\xa1a\x00\xa1a\x00"),
        "header-duplicate-key",
    ),
    (
        "duplicate alias",
        raw_header(b"\x81\xa4tied\xa1a", b"\x82\xa4tied\xa1a\xa4tied\xa1a"),
        "header-duplicate-key",
    ),
    ("a number as key", in_meta(b"\x81\x01\x01"), "header-key-type"),
    ("bytes as key", in_meta(b"\x81\xc4\x01a\x01"), "header-key-type"),
    ("a list as key", in_meta(b"\x81\x90\x01"), "header-key-type"),
    ("unknown key", forge(header(extra=1)), "header-key-unknown"),
    ("state in a file of weights", forge(header(state={})), "header-key-unknown"),
    *[(f"{key} missing", forge(header(**{key: ...})), "header-key-missing") for key in header()],
    ("another format", forge(header(format="maxigrad")), "header-format"),
    ("another kind", forge(header(kind="pickle")), "header-kind"),
    ("kind is no text", forge(header(kind=["weights"])), "header-kind"),
    ("version unlike the preamble's", forge(header(version=[1, 1])), "header-version"),
    ("version with a bool", forge(header(version=[True, False])), "field-type"),
    ("version with floats", forge(header(version=[1.0, 0.0])), "field-type"),
    ("version no list", forge(header(version=1)), "field-type"),
    ("producer no text", forge(header(producer=None)), "field-type"),
    ("requires no list", forge(header(requires={})), "field-type"),
    ("requires a number", forge(header(requires=[1])), "field-type"),
    ("requires what nobody knows", forge(header(requires=["holograms"])), "feature"),
    (
        "requires it in a newer minor version",
        forge(header(requires=["holograms"], version=[1, 7]), minor=7),
        "feature",
    ),
    ("tensors no list", forge(header(tensors={})), "field-type"),
    ("aliases no map", forge(header(aliases=[])), "field-type"),
    ("meta no map", forge(header(meta=[])), "field-type"),
    ("entry no list", forge(header(tensors=[A, {"name": "b"}])), "tensor-entry"),
    ("entry too short", forge(header(tensors=[A, B[:5]])), "tensor-entry"),
    ("entry too long", forge(header(tensors=[A, [*B, 0]])), "tensor-entry"),
    ("dtype unknown", with_tensor("b", "f31", *B[2:]), "dtype"),
    ("dtype a numpy expression", with_tensor("b", "f4,(1000000000,)f4", *B[2:]), "dtype"),
    ("dtype object", with_tensor("b", "O", *B[2:]), "dtype"),
    ("dtype no text", with_tensor("b", 4, *B[2:]), "dtype"),
    ("shape no list", with_tensor("b", "f32", 3, *B[3:]), "field-type"),
    ("dimension True", with_tensor("b", "f32", [3, True], *B[3:]), "field-type"),
    ("dimension 3.0", with_tensor("b", "f32", [3.0], *B[3:]), "field-type"),
    ("dimension as text", with_tensor("b", "f32", ["3"], *B[3:]), "field-type"),
    ("dimension negative", with_tensor("b", "f32", [-3], *B[3:]), "dimension"),
    ("dimensions negative twice", with_tensor("b", "f32", [-1, -3], *B[3:]), "dimension"),
    ("dimension huge", with_tensor("b", "f32", [2**48 + 1], *B[3:]), "dimension"),
    ("rank 33", with_tensor("b", "f32", [1] * 32 + [3], *B[3:]), "rank"),
    (
        "product overflows 64 bits to 12 bytes",
        with_tensor("b", "f32", [2**32, 2**32, 3], *B[3:]),
        "shape-overflow",
    ),
    (
        "product overflows beside a 0",
        with_tensor("b", "f32", [0, 2**48, 2**48], 64, 0, 0),
        "shape-overflow",
    ),
    ("nbytes not the product", with_tensor("b", "f32", [4], *B[3:]), "nbytes"),
    ("nbytes of another dtype", with_tensor("b", "f64", *B[2:]), "nbytes"),
    ("nbytes True", with_tensor("b", "u8", [1], 64, True, 0), "field-type"),
    ("nbytes a float", with_tensor("b", "f32", [3], 64, 12.0, B[5]), "field-type"),
    ("payload over the limit", with_tensor("b", "u8", [2**32], 64, 2**32, 0), "payload-limit"),
    ("offset True", with_tensor("b", "f32", [3], True, 12, B[5]), "field-type"),
    ("offset a float", with_tensor("b", "f32", [3], 64.0, 12, B[5]), "field-type"),
    ("offset negative", with_tensor("b", "f32", [3], -64, 12, B[5]), "offset-negative"),
    ("offset misaligned", with_tensor("b", "f32", [3], 65, 12, B[5]), "offset-misaligned"),
    ("offsets overlap", with_tensor("b", "f32", [3], 0, 12, B[5]), "offset-overlap"),
    ("offsets leave a hole", with_tensor("b", "f32", [3], 128, 12, B[5]), "offset-hole"),
    ("offset past the end", with_tensor("b", "f32", [3], 2**40, 12, B[5]), "offset-hole"),
    ("crc no number", with_tensor(*B[:5], "crc"), "field-type"),
    ("crc of 33 bits", with_tensor(*B[:5], 2**32), "crc-range"),
    ("crc negative", with_tensor(*B[:5], -1), "crc-range"),
    ("crc wrong", with_tensor(*B[:5], B[5] ^ 1), "crc"),
    ("name empty", renamed(""), "name-empty"),
    ("name of 513 bytes", renamed("x" * 513), "name-length"),
    ("name with NUL", renamed("a\0b"), "name-control"),
    ("name with an escape", renamed("a\x1b[31m"), "name-control"),
    ("name not NFC", renamed("e\u0301"), "name-nfc"),
    ("name no text", renamed(b"abc"), "name-type"),
    ("name twice", renamed("a", "a"), "name-twice"),
    ("table not sorted", renamed("b", "a"), "table-order"),
    ("alias to nothing", forge(header(aliases={"tied": "c"})), "alias-target"),
    ("alias to an alias", forge(header(aliases={"tied": "a", "tier": "tied"})), "alias-target"),
    ("alias to a number", forge(header(aliases={"tied": 0})), "alias-target"),
    ("alias of a stored name", forge(header(aliases={"b": "a"})), "alias-twice"),
    ("alias before its target", forge(header(aliases={"Tied": "a"})), "alias-order"),
    ("alias with a bad name", forge(header(aliases={"": "a"})), "name-empty"),
    ("ext type", in_meta(b"\xd4\x05\x00"), "header-ext"),
    ("ext type without content", in_meta(b"\xc7\x00\x05"), "header-ext"),
    ("timestamp", in_meta(b"\xd6\xff\x00\x00\x00\x00"), "header-ext"),
    ("nesting of 100,000 lists", in_meta(nested(100_000)), "header-depth"),
    ("nesting of 100,000 maps", in_meta(b"\x81\xa0" * 100_000 + b"\xc0"), "header-depth"),
    ("nesting of 600", in_meta(nested(600)), "depth"),
    ("nesting of 9", in_meta(nested(8)), "depth"),
    ("invalid UTF-8", in_meta(b"\xa2\xff\xfe"), "header-utf8"),
    ("half a surrogate pair", in_meta(b"\xa3\xed\xa0\x80"), "header-utf8"),
    ("text over 64 KiB", meta("x" * 65537), "header-length"),
    ("a text of 4 GiB announced", in_meta(b"\xdb\xff\xff\xff\xff"), ANNOUNCED),
    ("a list of 4 G announced", in_meta(b"\xdd\xff\xff\xff\xff"), "header-length"),
    ("a map of 4 G announced", in_meta(b"\xdf\xff\xff\xff\xff"), "header-length"),
    ("more maps than bytes allow", meta([[{}] * 30_000] * 4), "header-objects"),
    ("bytes in meta", meta(b"x"), "meta-type"),
    ("a number over 63 bits in meta", meta(2**63), "int64"),
    (
        "bool payload byte 2",
        forge(header(tensors=[entry("a", "bool", [2], b"\0\2"), B]), [b"\0\2", F32]),
        "bool-value",
    ),
    (
        "a tensor too many",
        forge(header(tensors=[A, B, entry("c", "u8", [0], b"", offset=128)])),
        "file-length",
    ),
    ("a tensor less than the file holds", forge(header(tensors=[A])), "file-length"),
]


@pytest.mark.parametrize(("content", "code"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_malformed_file_is_refused_with_the_code_of_its_fault(tmp_path, content, code):
    path = tmp_path / "a.mgrd"
    path.write_bytes(content)
    assert code_of(path) == code
    assert code_of(path, mmap=True, verify=True) == code
    with pytest.raises(FormatError) as caught:
        verify(path)
    assert caught.value.code == code


def test_the_forged_file_is_good_without_a_fault(tmp_path):
    (tmp_path / "a.mgrd").write_bytes(GOOD)
    loaded = load(tmp_path / "a.mgrd")
    assert {name: array.tolist() for name, array in loaded.items()} == {
        "a": [False, True],
        "b": [1, 2, 3],
        "tied": [False, True],
    }
    assert loaded.meta == {"lr": 0.5, "n": 3}


def test_every_fault_has_a_name_of_its_own():
    assert len({f[0] for f in FAULTS}) == len(FAULTS)
    assert len({f[2] for f in FAULTS}) > 55


def test_payloads_swapped_under_a_right_sha256_are_found_by_their_crc(tmp_path):
    head = header(
        tensors=[entry("a", "f32", [3], F32), entry("b", "f32", [3], F32[::-1], offset=64)],
        aliases={},
    )
    (tmp_path / "a.mgrd").write_bytes(forge(head, [F32[::-1], F32]))
    assert code_of(tmp_path / "a.mgrd") == "crc"


@pytest.mark.parametrize("damage", ["zero", "length", "marker"])
def test_a_pad_that_is_not_what_the_layout_says_is_refused(tmp_path, damage):
    start = 32 + len(RAW)
    place = {"zero": start + 5, "length": start + 4, "marker": start}[damage]
    content = bytearray(GOOD)
    content[place] ^= 1
    (tmp_path / "a.mgrd").write_bytes(reseal(bytes(content)))
    assert code_of(tmp_path / "a.mgrd") == "pad"


def test_the_header_may_not_be_followed_by_a_second_one(tmp_path):
    (tmp_path / "a.mgrd").write_bytes(seal(body(RAW + RAW), len(RAW)))
    assert code_of(tmp_path / "a.mgrd") == "file-length"


def test_a_newer_minor_version_may_say_more(tmp_path):
    (tmp_path / "a.mgrd").write_bytes(forge(header(version=[1, 7], zebra=1), minor=7))
    assert load(tmp_path / "a.mgrd")["b"].tolist() == [1, 2, 3]


def test_every_bit_flip_and_every_cut_of_a_small_file_is_refused(tmp_path):
    path = tmp_path / "a.mgrd"
    for i in range(len(GOOD)):
        path.write_bytes(GOOD[:i])
        assert code_of(path) in {"empty", "short", "cut"}
        for bit in range(8):
            path.write_bytes(GOOD[:i] + bytes([GOOD[i] ^ 1 << bit]) + GOOD[i + 1 :])
            code_of(path)
    assert len(GOOD) * 8 > 2000


def test_no_bit_flip_under_a_right_sha256_changes_what_the_arrays_hold(tmp_path):
    path = tmp_path / "a.mgrd"
    arrays = {F32, PAYLOADS[0]}
    for i in range(32, len(GOOD) - 42):
        for bit in range(8):
            path.write_bytes(reseal(GOOD[:i] + bytes([GOOD[i] ^ 1 << bit]) + GOOD[i + 1 :]))
            try:
                loaded = load(path)
            except FormatError:
                continue
            assert i < 32 + len(RAW)
            assert {a.tobytes() for a in loaded.values()} == arrays


FOREIGN = [
    ("npy", b"\x93NUMPY\x01\x00", "npy"),
    ("hdf5", b"\x89HDF\r\n\x1a\n" + bytes(40), "hdf5"),
    ("gguf", b"GGUF\x03\0\0\0" + bytes(40), "gguf"),
    ("git lfs pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git-lfs"),
    ("gzip", b"\x1f\x8b\x08" + bytes(40), "gzip"),
    ("pickle", b"\x80\x04\x95" + bytes(40), "pickle"),
    ("npz", b"PK\x03\x04" + bytes(40) + b"w.npy", "npz"),
    ("a zipped pickle", b"PK\x03\x04" + bytes(40) + b"archive/data.pkl", "pickle"),
    ("zip", b"PK\x03\x04" + bytes(40), "zip"),
    ("safetensors", struct.pack("<Q", 2) + b"{}", "safetensors"),
]


@pytest.mark.parametrize(("content", "name"), [f[1:] for f in FOREIGN], ids=[f[0] for f in FOREIGN])
def test_files_of_other_formats_get_their_own_words(tmp_path, content, name):
    (tmp_path / "a.mgrd").write_bytes(content)
    assert code_of(tmp_path / "a.mgrd") == f"foreign-{name}"
    if name == "git-lfs":
        for suffix in ("safetensors", "gguf"):
            (tmp_path / f"a.{suffix}").write_bytes(content + bytes(100))
            with pytest.raises(FormatError, match="git lfs pull"):
                peek(tmp_path / f"a.{suffix}")


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkdir(tmp_path / "folder")
    os.mkfifo(tmp_path / "fifo")
    os.symlink(tmp_path / "nowhere", tmp_path / "link")
    os.symlink(tmp_path / "link2", tmp_path / "link2")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name, code in [
            ("folder", "directory"),
            ("fifo", "fifo"),
            ("socket", "socket"),
            ("link", "dangling-link"),
            ("link2", "unreadable"),
            ("nothing", "no-such-file"),
            ("no/folder", "no-such-file"),
        ]:
            assert code_of(tmp_path / name) == code
    assert code_of("/dev/null") == "device"
    assert code_of("a\0b") == "path"


def test_a_link_to_a_good_file_is_followed(tmp_path):
    (tmp_path / "a.mgrd").write_bytes(GOOD)
    os.symlink("a.mgrd", tmp_path / "link")
    assert len(load(tmp_path / "link")) == 3


def test_a_file_without_permission_is_unreadable(tmp_path):
    (tmp_path / "a.mgrd").write_bytes(GOOD)
    (tmp_path / "a.mgrd").chmod(0)
    if os.access(tmp_path / "a.mgrd", os.R_OK):
        pytest.skip("this user may read everything")
    assert code_of(tmp_path / "a.mgrd") == "unreadable"


def test_weights_are_no_checkpoint(tmp_path):
    (tmp_path / "a.mgrd").write_bytes(forge(header(kind="checkpoint", state={})))
    assert code_of(tmp_path / "a.mgrd") == "kind"


def test_peek_refuses_what_it_can_see_without_the_payloads(tmp_path):
    path = tmp_path / "a.mgrd"
    path.write_bytes(GOOD)
    assert peek(path).names == ["a", "b", "tied"]
    seen = 0
    for name, content, _ in FAULTS:
        path.write_bytes(content)
        try:
            peek(path)
        except FormatError:
            seen += 1
        else:
            assert name in {"sha256", "crc wrong", "bool payload byte 2"}
    assert seen == len(FAULTS) - 3


def test_the_layout_of_the_forge_is_the_one_of_the_library(tmp_path):
    save(
        tmp_path / "a.mgrd",
        {"a": np.array([False, True]), "b": np.array([1, 2, 3], np.float32)},
        meta={"n": 3, "lr": 0.5},
    )
    assert (tmp_path / "a.mgrd").read_bytes() == forge(header(aliases={}))
    assert (
        preamble(1, 2)[:10] == b"\xc4\x1e" + MAGIC
        and len(trailer(b"")) == 42
        and zlib.crc32(b"") == 0
    )
