"""GGUF files: read as they are written, and refused by name where they are damaged."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigrad.errors import FormatError
from minigrad.files import gguf as ours
from minigrad.files.formats import peek_any

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from gguf_bytes import gguf_bytes, text, value

META = {"a": 7, "b": 1.5, "c": "ünï", "d": True, "e": ["x", "yy"], "f": [1, -2], "g": [0.5]}
ROWS = np.arange(12, dtype="<f4").reshape(3, 4)
TENSORS = {"rows": ("f32", (3, 4), ROWS.tobytes()), "flat": ("q8_0", (32,), bytes(34))}


def written(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_what_was_written_is_read(version: int, tmp_path: Path) -> None:
    found = ours.load_gguf(written(tmp_path / "a.gguf", gguf_bytes(META, TENSORS, version)))
    assert found.info.version == (version, 0)
    plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in found.meta.items()}
    assert plain == META
    assert np.array_equal(found["rows"].view("<f4"), ROWS) and not found["rows"].flags.writeable
    assert found["flat"].shape == (1, 34)
    assert [(t.name, t.dtype, t.shape) for t in found.info.tensors] == [
        ("rows", "f32", (3, 4)),
        ("flat", "q8_0", (32,)),
    ]
    assert peek_any(tmp_path / "a.gguf").tensors == found.info.tensors


def test_the_alignment_is_the_files_own(tmp_path: Path) -> None:
    raw = gguf_bytes({"general.alignment": 256}, TENSORS, alignment=256)
    found = ours.load_gguf(written(tmp_path / "a.gguf", raw))
    assert np.array_equal(found["rows"].view("<f4"), ROWS)


def entry(key: str, raw: bytes) -> bytes:
    """A file with one entry of the meta, and no tensors."""
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text(key) + raw


HUGE = 2**63
BAD: dict[str, bytes] = {
    "magic": b"GGML" + bytes(30),
    "version": b"GGUF" + struct.pack("<IQQ", 4, 0, 0),
    "tensor-count": b"GGUF" + struct.pack("<IQQ", 3, HUGE, 0),
    "meta-count": b"GGUF" + struct.pack("<IQQ", 3, 0, HUGE),
    "text-length": b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, HUGE),
    "header-cut": entry("a", struct.pack("<IQ", 8, HUGE)),
    "header-cut of an array": entry("a", struct.pack("<IIQ", 9, 5, HUGE)),
    "header-cut of texts": entry("a", struct.pack("<IIQQ", 9, 8, 2, 1)),
    "item-count": entry("a", struct.pack("<IIQ", 9, 8, HUGE)),
    "array-type": entry("a", struct.pack("<IIQ", 9, 9, 1)),
    "meta-type": entry("a", struct.pack("<I", 99)),
    "utf-8": entry("a", struct.pack("<IQ", 8, 2) + b"\xff\xff"),
    "utf-8 in texts": entry("a", struct.pack("<IIQQ", 9, 8, 1, 2) + b"\xff\xff"),
    "alignment": entry("general.alignment", value(33)),
    "key-twice": b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + 2 * (text("a") + value(1)),
    "short": b"GGUF",
}


def row(shape: tuple[int, ...], kind: int = 0, offset: int = 0, name: str = "x") -> bytes:
    """A file with one tensor, and 64 bytes of data."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text(name)
    head += struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return head + bytes(-len(head) % 32 + 64)


BAD |= {
    "rank": row((1,) * 5),
    "dtype": row((4,), kind=10),
    "shape": row((0,)),
    "shape of half a block": row((16,), kind=8),
    "shape beyond numbers": row((HUGE, HUGE)),
    "offset": row((4,), offset=HUGE),
    "offset beyond the file": row((17,)),
    "offset out of line": row((4,), offset=16),
    "name-control": row((4,), name="\n"),
}
BAD["overlap"] = gguf_bytes({}, TENSORS).replace(
    struct.pack("<IQ", 8, 64), struct.pack("<IQ", 8, 0)
)
BAD["name-twice"] = gguf_bytes({}, TENSORS).replace(b"flat", b"rows")


@pytest.mark.parametrize("case", BAD)
def test_a_broken_rule_is_named(case: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.gguf", BAD[case])
    for call in (ours.load_gguf, ours.peek_gguf):
        with pytest.raises(FormatError) as caught:
            call(path)
        assert caught.value.code == case.split(" ")[0]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (row((4,))[:-60], "tensor 'x': .* the file ends at"),
        (row((4,), kind=10), "unsupported type 10: convert to Q4_K"),
    ],
)
def test_an_error_says_what_to_do(raw: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=words):
        ours.load_gguf(written(tmp_path / "a.gguf", raw))


def test_every_cut_of_a_header_is_a_format_error(tmp_path: Path) -> None:
    raw: Any = gguf_bytes(META, TENSORS)
    for end in range(0, len(raw) - 32, 3):
        with pytest.raises(FormatError):
            ours.load_gguf(written(tmp_path / "a.gguf", raw[:end]))
