"""TensorBoard's event files: held against a decoder written here from the formats' descriptions,
and against TensorBoard where it is installed.
"""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from minigrad import Tensor
from minigrad.errors import ConfigError, DTypeError
from minigrad.looking import EventWriter
from minigrad.looking.events import crc32c
from minigrad.train import Report

ROOT = Path(__file__).parents[2]


# --- an independent reader


def slow_crc(data: bytes) -> int:
    """CRC-32C as a division of polynomials, a bit at a time, the way RFC 3720 tells it: bits of a
    byte from the lowest on.
    """
    bits = [byte >> i & 1 for byte in data for i in range(8)] + [0] * 32
    remainder = 0
    for i, bit in enumerate(bits):
        bit ^= 1 if i < 32 else 0
        top, remainder = remainder >> 31, (remainder << 1 & 0xFFFFFFFF) | bit
        remainder ^= 0x1EDC6F41 if top else 0
    return int(f"{remainder ^ 0xFFFFFFFF:032b}"[::-1], 2)


def slow_masked(data: bytes) -> int:
    crc = slow_crc(data)
    return ((crc >> 15) + (crc << 17) % 2**32 + 0xA282EAD8) % 2**32


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at


def fields(data: bytes) -> dict[int, list[Any]]:
    """The fields of a message: bytes of any length, fixed 4 and 8 bytes, and varints."""
    found: dict[int, list[Any]] = {}
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value: Any
            value, at = varint(data, at)
        else:
            size, at = varint(data, at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
            value, at = data[at : at + size], at + size
            assert len(value) == size
        found.setdefault(key >> 3, []).append(value)
    return found


def events(path: Path) -> Iterator[dict[int, list[Any]]]:
    content, at = path.read_bytes(), 0
    while at < len(content):
        length, length_crc = struct.unpack_from("<QI", content, at)
        data = content[at + 12 : at + 12 + length]
        (data_crc,) = struct.unpack_from("<I", content, at + 12 + length)
        assert length_crc == slow_masked(content[at : at + 8]) and data_crc == slow_masked(data)
        yield fields(data)
        at += 16 + length


def scalars(path: Path) -> list[tuple[str, int, float, float]]:
    """(tag, step, value, time) of every scalar in the file, whose first event must be its version."""
    first, *others = events(path)
    assert first[3] == [b"brain.Event:2"]
    found = []
    for event in others:
        value = fields(fields(event[5][0])[1][0])
        if 2 in value:
            found.append(
                (
                    value[1][0].decode(),
                    event[2][0],
                    *struct.unpack("<f", value[2][0]),
                    *struct.unpack("<d", event[1][0]),
                )
            )
    return found


# --- the format


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_the_crc_has_the_values_of_rfc_3720(data: bytes, crc: int) -> None:
    assert crc32c(data) == crc and (slow_crc(data) == crc or not data)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.text(max_size=20), st.floats(width=32), st.integers(0, 2**62)), max_size=5
    )
)
def test_scalars_of_any_value_tag_and_step_are_read_back(
    points: list[tuple[str, float, int]],
) -> None:
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"minigrad-events-{os.getpid()}"
    points = [(tag.encode("utf-8", "replace").decode(), value, step) for tag, value, step in points]
    with EventWriter(folder, name="tfevents") as writer:
        for i, (tag, value, step) in enumerate(points):
            writer.add_scalar(tag, value, step, wall_time=1e9 + i)
    found = scalars(writer.path)
    writer.path.unlink()
    folder.rmdir()
    assert [(t, s, time) for t, s, _, time in found] == [
        (t, s, 1e9 + i) for i, (t, _, s) in enumerate(points)
    ]
    np.testing.assert_array_equal([v for _, _, v, _ in found], [v for _, v, _ in points])


def test_a_histogram_counts_every_number_and_a_text_is_there(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(50, 20)).astype(np.float32)
    with EventWriter(tmp_path) as writer:
        writer.add_histogram("weights", Tensor(values), 3)
        writer.add_histogram("empty", [math.nan], 3)
        writer.add_text("sample", "Größe *x*", 4)
    _, one, empty, text = events(writer.path)
    histogram = fields(fields(fields(one[5][0])[1][0])[5][0])
    low, high, count, total, squares = (
        struct.unpack("<d", histogram[i][0])[0] for i in range(1, 6)
    )
    assert (low, high, count) == (values.min(), values.max(), 1000)
    np.testing.assert_allclose(
        [total, squares], [values.sum(dtype=float), np.square(values, dtype=float).sum()]
    )
    limits, buckets = (np.frombuffer(histogram[i][0], "<f8") for i in (6, 7))
    for left, right, bucket in zip([-np.inf, *limits[:-1]], limits, buckets, strict=True):
        inside = (values >= left) & ((values < right) | (right == limits[-1]) & (values <= right))
        assert bucket == inside.sum()
    assert struct.unpack("<d", fields(fields(fields(empty[5][0])[1][0])[5][0])[3][0])[0] == 0
    value = fields(fields(text[5][0])[1][0])
    assert fields(value[8][0])[8] == ["Größe *x*".encode()] and fields(fields(value[9][0])[1][0])[
        1
    ] == [b"text"]


def test_the_writer_is_a_callback_that_takes_the_reports_of_a_trainer(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        writer(
            Report(
                1,
                10,
                loss=2.5,
                grad_norm=1.0,
                lr=0.5,
                tokens_per_second=1e4,
                seconds_left=3.0,
                val_loss=None,
            )
        )
        writer(
            Report(
                2,
                10,
                loss=2.25,
                grad_norm=1.0,
                lr=0.5,
                tokens_per_second=1e4,
                seconds_left=3.0,
                val_loss=2.75,
            )
        )
        writer({"step": 3, "time": 1.5e9, "lr": 0.25, "val_loss": None})
        *found, last = scalars(writer.path)  # there while the writer is still open
    assert last == ("lr", 3, 0.25, 1.5e9)
    found = [(tag, step, value) for tag, step, value, _ in found]
    assert [f for f in found if f[0].startswith("loss")] == [
        ("loss/train", 1, 2.5),
        ("loss/train", 2, 2.25),
        ("loss/validation", 2, 2.75),
    ]
    assert {tag for tag, *_ in found} == {
        "loss/train",
        "loss/validation",
        "lr",
        "grad_norm",
        "tokens_per_second",
    }


def test_what_cannot_be_written_is_refused_and_leaves_the_file_readable(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        for bad in (
            lambda: writer.add_scalar("a", "high", 1),
            lambda: writer.add_scalar("a", 1.0, -1),
            lambda: writer.add_scalar("a", 1.0, 1.5),
        ):  # type: ignore[arg-type]
            with pytest.raises(DTypeError):
                bad()
        writer.add_scalar("a", 1e300, 1)
    with pytest.raises(ConfigError, match="closed"):
        writer.add_scalar("a", 1.0, 2)
    assert [value for _, _, value, _ in scalars(writer.path)] == [math.inf]


# --- the command, and TensorBoard itself


def some_runs(folder: Path) -> None:
    for name, factor in (("a", 1.0), ("b", 2.0)):
        (folder / "runs" / name).mkdir(parents=True)
        lines = [
            {
                "step": s,
                "time": 1.7e9 + s,
                "seconds": float(s),
                "loss": factor * s,
                "lr": 0.25,
                "grad_norm": 1.0,
                "tokens_per_second": 8.0,
                **({"val_loss": 3.0 * factor} if s == 4 else {}),
            }
            for s in range(1, 6)
        ]
        (folder / "runs" / name / "metrics.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines)
        )


def export(folder: Path) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "minigrad", "plot", "runs", "--tensorboard", "logs"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=600,
        check=True,
    ).stdout


def test_the_command_writes_a_folder_per_run_with_the_numbers_of_its_file_and_a_second_time_the_same(
    tmp_path: Path,
) -> None:
    some_runs(tmp_path)
    for _ in range(2):
        assert "tensorboard --logdir logs" in export(tmp_path)
        (path,) = (tmp_path / "logs" / "b").iterdir()
        found = scalars(path)
        assert [(step, value, time) for tag, step, value, time in found if tag == "loss/train"] == [
            (s, 2.0 * s, 1.7e9 + s) for s in range(1, 6)
        ]
        assert [(step, value) for tag, step, value, _ in found if tag == "loss/validation"] == [
            (4, 6.0)
        ]
    assert not (tmp_path / "runs" / "plot.svg").exists()


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorBoard's own
        accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        some_runs(tmp_path)
        export(tmp_path)
        with EventWriter(tmp_path / "logs" / "a") as writer:
            writer.add_histogram("weights", np.arange(10.0), 3)
            writer.add_text("sample", "Größe", 4)
        read = accumulators.EventAccumulator(str(tmp_path / "logs" / "a"))
        read.Reload()
        assert [(e.step, e.value, e.wall_time) for e in read.Scalars("loss/train")] == [
            (s, float(s), 1.7e9 + s) for s in range(1, 6)
        ]
        assert [(e.step, e.value) for e in read.Scalars("loss/validation")] == [(4, 3.0)]
        histogram = read.Histograms("weights")[0].histogram_value
        assert (histogram.num, histogram.min, histogram.max, sum(histogram.bucket)) == (
            10,
            0,
            9,
            10,
        )
        assert read.Tensors("sample")[0].tensor_proto.string_val == ["Größe".encode()]
