"""`minigrad train --optimizer --schedule`: each trains and goes on to the bit, and another one is
another run.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import pytest

from minigrad.cli.recipe import (
    OPTIMIZERS,
    SCHEDULES,
    build_optimizer,
    build_schedule,
    kind_of,
    settle,
)
from minigrad.files import load_checkpoint, peek, save_checkpoint
from minigrad.models import GPT, GPTConfig
from tests.commands.home import good
from tests.processes import called
from tests.runs import SMALL as COMMON

SMALL = [*COMMON, "--no-jit"]


@pytest.fixture(scope="module")
def home(run_home: Path) -> Path:
    """A folder with a text and a run of 20 steps."""
    return run_home


def half(home: Path, name: str, of: str = "whole") -> Path:
    """A copy of a run of 20 steps as it was after 10; returns its checkpoint."""
    shutil.copytree(home / of, home / name)
    (home / name / "checkpoints" / "step-00000020.mgrd").unlink()
    return home / name / "checkpoints" / "step-00000010.mgrd"


def options_of(home: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = peek(home / name / "model.mgrd").meta["run"]["options"]
    return found


PAIRS = [*zip(OPTIMIZERS, [*SCHEDULES[1:], "cosine"] * 2, strict=False)]


@pytest.mark.parametrize(("optimizer", "schedule"), PAIRS)
def test_a_run_of_every_kind_is_told_kept_and_goes_on_to_the_bit(
    home: Path, optimizer: str, schedule: str
) -> None:
    said = good(
        *SMALL,
        "--steps",
        "20",
        "--out",
        optimizer,
        "--optimizer",
        optimizer,
        "--schedule",
        schedule,
        folder=home,
    )
    assert f"learn    {optimizer}, rate {OPTIMIZERS[optimizer].lr:g}, {schedule} after " in said
    wanted = (home / optimizer / "model.mgrd").read_bytes()
    found = load_checkpoint(half(home, f"{optimizer}-half", optimizer))
    assert (
        found.state["optimizer"]["kind"] == kind_of(optimizer)
        and found.state["options"]["schedule"] == schedule
    )
    good("train", "--resume", f"{optimizer}-half", folder=home)
    assert (home / f"{optimizer}-half" / "model.mgrd").read_bytes() == wanted


@pytest.mark.parametrize(
    ("option", "row"),
    [
        (("--optimizer", "lion"), "optimizer | adamw | lion"),
        (("--schedule", "constant"), "schedule | cosine | constant"),
        (("--weight-decay", "0"), "weight_decay | 0.1   | 0.0"),
        (("--warmup", "5"), "warmup | 100   | 5"),
    ],
)
def test_another_way_to_learn_is_a_row_in_the_table_of_differences(
    home: Path, option: tuple[str, str], row: str
) -> None:
    done = called("train", "--resume", "whole", *option, folder=home)
    assert done.returncode == 2 and row in done.stderr and done.stderr.count("|") == 4, done.stderr


def test_an_optimizer_that_is_accepted_begins_with_its_own_rate_and_no_moments(home: Path) -> None:
    half(home, "changed")
    said = good(
        "train", "--resume", "changed", "--optimizer", "lion", "--accept", "optimizer", folder=home
    )
    assert f"learn    lion, rate {OPTIMIZERS['lion'].lr:g}" in said
    found = load_checkpoint(home / "changed" / "checkpoints" / "step-00000020.mgrd").state
    assert found["optimizer"]["kind"] == "Lion" and {
        entry["step"] for entry in found["optimizer"]["state"].values()
    } == {10}
    half(home, "chosen")
    good(
        "train",
        "--resume",
        "chosen",
        "--optimizer",
        "sgd",
        "--lr",
        "0.25",
        "--accept",
        "optimizer,lr",
        folder=home,
    )
    assert options_of(home, "chosen")["lr"] == 0.25


def test_a_run_from_before_there_was_a_choice_goes_on_as_it_was(home: Path) -> None:
    path = half(home, "old")
    found = load_checkpoint(path)
    options = {
        name: value
        for name, value in found.state["options"].items()
        if name not in ("optimizer", "schedule")
    }
    save_checkpoint(path, found.weights, {**found.state, "options": options}, meta=found.meta)
    good("train", "--resume", "old", folder=home)
    assert (home / "old" / "model.mgrd").read_bytes() == (
        home / "whole" / "model.mgrd"
    ).read_bytes()


def test_an_optimizer_that_is_not_there_gets_one_line(home: Path) -> None:
    for option in ("--optimizer", "--schedule"):
        done = called(*SMALL, option, "best", folder=home)
        assert (
            done.returncode == 2
            and done.stderr.count("\n") == 1
            and f"argument {option}: 'best' is none of" in done.stderr
        )


def rates(**settings: Any) -> list[float]:
    """The learning rate of each of 50 steps."""
    options = argparse.Namespace(
        **{
            "optimizer": "adamw",
            "lr": 1.0,
            "weight_decay": None,
            "warmup": 10,
            "steps": 50,
            **settings,
        }
    )
    settle(options)
    optimizer = build_optimizer(
        options, GPT(GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=1, n_embd=4))
    )
    schedule, found = build_schedule(options, optimizer), []
    for _ in range(options.steps):
        found.append(optimizer.lr)
        schedule.step()
    return found


@pytest.mark.parametrize("warmup", [0, 1, 10, 50, 100])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_rises_in_the_warmup_then_never_again(schedule: str, warmup: int) -> None:
    found = rates(schedule=schedule, warmup=warmup)
    top = max(min(warmup, 50) - 1, 0)
    assert found[top] == pytest.approx(1, abs=1e-2) and max(found) <= 1
    assert found[: top + 1] == sorted(found[: top + 1]) and found[top:] == sorted(
        found[top:], reverse=True
    )


def test_schedules_end_where_the_help_says() -> None:
    ends = {schedule: rates(schedule=schedule)[-1] for schedule in SCHEDULES}
    assert ends["constant"] == 1 and ends["one-cycle"] < 1e-2
    assert all(0.1 <= ends[schedule] < 0.2 for schedule in ("cosine", "linear", "wsd"))
    assert rates(schedule="wsd")[9:40] == [1.0] * 31 and rates(schedule="wsd")[41] < 1
    assert (
        max(range(50), key=rates(schedule="one-cycle", warmup=None).__getitem__) == 14
    )  # 30% of the steps
