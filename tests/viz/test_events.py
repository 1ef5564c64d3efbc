"""TensorBoard's event files, read by a decoder written here from the format's description, and by
TensorBoard where it is installed.
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

from minigrad import Tensor
from minigrad.train import Report
from minigrad.viz import EventWriter
from tests.processes import called

pytest.importorskip("tensorboardX")
ROOT = Path(__file__).parents[2]


# --- an independent reader


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
        (length,) = struct.unpack_from("<Q", content, at)  # and a checksum of four bytes
        yield fields(content[at + 12 : at + 12 + length])
        at += 16 + length


def scalars(path: Path) -> list[tuple[str, int, float, float]]:
    """(tag, step, value, time) of each scalar in the file, whose first event is its version."""
    first, *others = events(path)
    assert first[3] == [b"brain.Event:2"]
    found = []
    for event in others:
        value = fields(fields(event[5][0])[1][0])
        if 2 in value:
            found.append(
                (
                    value[1][0].decode(),
                    event.get(2, [0])[0],  # a zero is not written
                    *struct.unpack("<f", value[2][0]),
                    *struct.unpack("<d", event[1][0]),
                )
            )
    return found


# --- the writer


def only_file(folder: Path) -> Path:
    (path,) = folder.glob("events.out.tfevents.*")
    return path


def test_scalars_are_read_back(tmp_path: Path) -> None:
    points = [("a", 1.5, 0), ("Größe/ü", -2.0, 3), ("a", math.inf, 2**40), ("a", 1e300, 7)]
    with EventWriter(tmp_path) as writer:
        for i, (tag, value, step) in enumerate(points):
            writer.add_scalar(tag, value, step, wall_time=1e9 + i)
    found = scalars(only_file(tmp_path))
    assert [step for _, step, _, _ in found] == [0, 3, 2**40, 7]
    assert [value for _, _, value, _ in found] == [1.5, -2.0, math.inf, math.inf]
    assert [time for *_, time in found] == [1e9 + i for i in range(4)]


def test_a_histogram_counts_every_finite_number_and_a_text_is_there(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(50, 20)).astype(np.float32)
    values[0, 0] = math.nan
    with EventWriter(tmp_path) as writer:
        writer.add_histogram("weights", Tensor(values), 3)
        writer.add_text("sample", "Größe *x*", 4)
    _, one, text = events(only_file(tmp_path))
    histogram = fields(fields(fields(one[5][0])[1][0])[5][0])
    low, high, count = (struct.unpack("<d", histogram[i][0])[0] for i in (1, 2, 3))
    assert (low, high, count) == (np.nanmin(values), np.nanmax(values), 999)
    assert np.frombuffer(histogram[7][0], "<f8").sum() == 999
    assert "Größe *x*".encode() in fields(text[5][0])[1][0]


def test_the_writer_is_a_callback_that_takes_the_reports_of_a_trainer(tmp_path: Path) -> None:
    facts = {"grad_norm": 1.0, "lr": 0.5, "tokens_per_second": 1e4, "seconds_left": 3.0}
    with EventWriter(tmp_path) as writer:
        writer(Report(1, 10, loss=2.5, val_loss=None, **facts))
        writer(Report(2, 10, loss=2.25, val_loss=2.75, **facts))
        writer({"step": 3, "time": 1.5e9, "lr": 0.25, "val_loss": None})
    *found, last = scalars(only_file(tmp_path))
    assert last == ("lr", 3, 0.25, 1.5e9)
    losses = [(tag, step, value) for tag, step, value, _ in found if tag.startswith("loss")]
    assert sorted(losses) == [
        ("loss/train", 1, 2.5),
        ("loss/train", 2, 2.25),
        ("loss/validation", 2, 2.75),
    ]
    others = {"lr", "grad_norm", "tokens_per_second"}
    assert {tag for tag, *_ in found} == {"loss/train", "loss/validation", *others}


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


def test_the_command_writes_a_folder_per_run_with_its_numbers_and_the_same_a_second_time(
    tmp_path: Path,
) -> None:
    some_runs(tmp_path)
    for _ in range(2):
        assert "tensorboard --logdir logs" in export(tmp_path)
        (path,) = (tmp_path / "logs" / "b").iterdir()
        found = scalars(path)
        assert [facts for tag, *facts in found if tag == "loss/train"] == [
            [s, 2.0 * s, 1.7e9 + s] for s in range(1, 6)
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


def test_without_tensorboardx_the_command_names_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_runs(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    done = called("plot", "runs", "--tensorboard", "logs", folder=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "pip install 'minigrad[tensorboard]'" in done.stderr
