"""Reading what runs have written."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from minigrad.errors import ConfigError, DataError
from minigrad.viz import find_runs, read_run, summary


def record(step: int, **facts: float) -> dict[str, Any]:
    return {
        "step": step,
        "time": 1.7e9 + step,
        "seconds": 0.5 * step,
        "loss": 4 - 0.01 * step,
        "lr": 1e-3,
        "grad_norm": 1.0,
        "tokens_per_second": 9000.0,
        **facts,
    }


def write(folder: Path, *records: Any, end: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records) + end)
    return folder


def test_columns_are_the_numbers_of_the_file_where_it_has_them(tmp_path: Path) -> None:
    run = read_run(write(tmp_path / "a", record(1), record(2, val_loss=3.5), record(5)))
    steps, losses = run.column("loss")
    assert steps.tolist() == [1, 2, 5] and losses.tolist() == [3.99, 3.98, 3.95]
    assert [c.tolist() for c in run.column("val_loss")] == [[2], [3.5]]
    assert [len(c) for c in run.column("accuracy")] == [0, 0]
    assert run.name == "a" and run.columns()[-1] == "val_loss"


@settings(deadline=None, max_examples=60)
@given(cut=st.integers(0, 700))
def test_a_file_that_is_cut_off_anywhere_gives_the_records_before_the_cut(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "cut"
    written = [record(step) for step in range(1, 6)]
    content = (write(folder, *written) / "metrics.jsonl").read_bytes()[:cut]
    (folder / "metrics.jsonl").write_bytes(content)
    # A line is whole with its closing brace, whether its line end got there or not.
    assert read_run(folder).records == written[: content.count(b"}")]


def test_what_a_resumed_run_writes_again_replaces_what_stood_there(tmp_path: Path) -> None:
    run = read_run(
        write(
            tmp_path,
            record(1),
            record(2),
            record(3, loss=9.0),
            record(4, loss=9.0),
            record(3, loss=1.0),
        )
    )
    assert run.column("loss")[0].tolist() == [1, 2, 3] and run.column("loss")[1][-1] == 1.0


def test_a_loss_that_is_no_number_any_more_is_read_as_that(tmp_path: Path) -> None:
    assert math.isnan(read_run(write(tmp_path, record(1, loss=math.nan))).column("loss")[1][0])


def test_a_whole_last_line_that_is_no_record_is_an_error_and_not_left_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 2: this is not JSON"):
        read_run(write(tmp_path, record(1), end='{"step": 2, "lo\n'))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"step": 2, "lo', "not JSON"),
        ("[1, 2]", "list"),
        ('{"loss": 1.0}', "step is None"),
        ('{"step": 1.5}', "step is 1.5"),
        ('{"step": 2, "loss": "low"}', "loss is 'low'"),
        ('{"step": 2, "loss": true}', "loss is True"),
    ],
)
def test_a_line_that_is_no_record_is_one_error_with_file_and_line(
    tmp_path: Path, line: str, problem: str
) -> None:
    write(tmp_path, record(1), end=line + "\n" + json.dumps(record(3)) + "\n")
    with pytest.raises(DataError) as caught:
        read_run(tmp_path)
    assert problem in str(caught.value) and f"{tmp_path / 'metrics.jsonl'}, line 2" in str(
        caught.value
    )


def test_a_folder_of_runs_gives_them_all_under_names_that_tell_them_apart(tmp_path: Path) -> None:
    for name in ("x/gpt", "y/gpt", "y/deep/other"):
        write(tmp_path / name, record(1))
    assert [run.name for run in find_runs([tmp_path])] == ["x/gpt", "deep/other", "y/gpt"]
    assert [run.name for run in find_runs([tmp_path / "x" / "gpt"])] == ["gpt"]
    assert len(find_runs([tmp_path, tmp_path / "x" / "gpt"])) == 3  # named twice, read once


def test_a_place_without_a_run_is_an_error_that_names_it(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "gone"):
        with pytest.raises(ConfigError, match=place.name):
            find_runs([place])


def test_the_summary_has_the_last_loss_the_best_validation_and_the_time(tmp_path: Path) -> None:
    evaluations = {
        40: {"val_loss": 2.5},
        80: {"val_loss": 2.25},
        120: {"val_loss": 2.75},
        150: {"tokens_per_second": 1.0},
    }
    write(tmp_path / "a", *(record(s, **evaluations.get(s, {})) for s in range(1, 151)))
    write(tmp_path / "empty")
    rows = [line.split() for line in summary(find_runs([tmp_path])).splitlines()]
    assert rows[1] == ["a", "150", "2.5000", "2.2500", "80", "9,000", "1:15"]
    assert rows[2] == ["empty", "0", "-", "-", "-", "-", "-"]
    assert np.ptp([len(line) for line in summary(find_runs([tmp_path])).splitlines()]) == 0
