"""`minigrad train --optimizer --schedule`: each trains and goes on to the bit, and another one is
another run.
"""

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigrad.cli.recipe import (
    FORMER,
    OPTIMIZERS,
    SCHEDULES,
    SIZE,
    SIZES,
    Size,
    build_optimizer,
    build_schedule,
    grow,
    kind_of,
    settle,
    size_of,
)
from minigrad.cli.run_folder import load_model
from minigrad.cli.train import COMMAND as TRAIN
from minigrad.files import load, load_checkpoint, peek, save_checkpoint
from minigrad.models import GPT, GPTConfig
from minigrad.optim import ChainedOptimizer
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


def rate_of(optimizer: str, width: int = 16) -> float:
    """An optimizer's rate for a model of the small run."""
    recipe = OPTIMIZERS[optimizer]
    return recipe.lr * 128 / width if recipe.scaled else recipe.lr


PAIRS = [*zip(OPTIMIZERS, [*SCHEDULES[1:], "wsd"] * 2, strict=False)]


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
    assert f"learn    {optimizer}, rate {rate_of(optimizer):g}, {schedule} after " in said
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
        (("--optimizer", "lion"), "optimizer | muon  | lion"),
        (("--schedule", "constant"), "schedule | wsd   | constant"),
        (("--weight-decay", "1"), "weight_decay | 0.0   | 1.0"),
        (("--warmup", "5"), "warmup | 2     | 5"),
        (("--arch", "gpt2"), "arch  | modern | gpt2"),
        (("--size", "tiny"), "size  | small | tiny"),
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
    assert f"learn    lion, rate {rate_of('lion'):g}" in said
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
    was = [f"--{name.replace('_', '-')}={value}" for name, value in FORMER.items()]
    good(*SMALL, "--steps", "20", "--out", "former", *was, folder=home)
    path = half(home, "old", "former")
    found = load_checkpoint(path)
    options = {n: value for n, value in found.state["options"].items() if n not in FORMER}
    save_checkpoint(path, found.weights, {**found.state, "options": options}, meta=found.meta)
    model, _ = load_model(str(path))
    assert model.config == GPTConfig.gpt2(20, 16, 1, 2, 16)
    good("train", "--resume", "old", folder=home)
    was_saved, saved = (load(home / name / "model.mgrd") for name in ("former", "old"))
    assert saved.meta == was_saved.meta
    assert all(np.array_equal(saved[name], was_saved[name]) for name in was_saved)


def test_settings_that_are_no_options_stay_those_of_the_checkpoint(home: Path) -> None:
    path = half(home, "five")
    found = load_checkpoint(path)
    optimizer = found.state["optimizer"]
    muon, adamw = optimizer["param_groups"]
    changed = [{**muon, "ns_steps": 5, "momentum": 0.9}, {**adamw, "betas": (0.8, 0.95)}]
    state = {**found.state, "optimizer": {**optimizer, "param_groups": changed}}
    save_checkpoint(path, found.weights, state, meta=found.meta)
    good("train", "--resume", "five", folder=home)
    last = load_checkpoint(home / "five" / "checkpoints" / "step-00000020.mgrd").state
    muon, adamw = last["optimizer"]["param_groups"]
    assert (muon["ns_steps"], muon["momentum"]) == (5, 0.9)
    assert tuple(adamw["betas"]) == (0.8, 0.95)


@pytest.mark.parametrize("size", [*SIZES, "1e5", "786432", "3M", "85m"])
def test_a_size_sets_what_is_not_given(size: str) -> None:
    found = TRAIN.complete({"size": SIZE.parse(size), "n_head": 1})
    settle(found)
    made = size_of(SIZE.parse(size))
    assert (found.n_layer, found.n_embd, found.block_size) == (
        made.n_layer,
        made.n_embd,
        made.block_size,
    )
    assert found.n_head == 1 and made.n_embd == 32 * made.n_head
    if size not in SIZES:
        wanted = float(size.lower().replace("m", "e6"))
        assert 0.75 < 12 * made.n_layer * made.n_embd**2 / wanted < 1.35


def test_a_rate_falls_with_the_width_but_for_muon() -> None:
    for optimizer, rates in {"adamw": (0.006, 0.002), "muon": (0.02, 0.02)}.items():
        for size, rate in zip(("tiny", "medium"), rates, strict=True):
            found = TRAIN.complete({"size": size, "optimizer": optimizer})
            settle(found)
            assert found.lr == rate


@pytest.mark.parametrize("size", ["huge", "0", "1e20", "12k5", "-3"])
def test_a_size_that_is_not_there_is_refused(size: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="tiny, small, medium, or a number"):
        SIZE.parse(size)


def test_muon_has_the_matrices_of_the_blocks() -> None:
    options = TRAIN.complete({"size": "tiny", "lr": 0.04})
    settle(options)
    model = GPT(GPTConfig(9, 8, 2, 2, 8))
    optimizer = build_optimizer(options, model)
    assert isinstance(optimizer, ChainedOptimizer)
    muon, adamw = optimizer.optimizers
    names = [group["param_names"] for one in (muon, adamw) for group in one.param_groups]
    assert len(names[0]) == 2 * 5 and all("weight" in name for name in names[0])
    assert "wte.weight" in names[1] and "h.0.attn.q_norm.weight" in names[1]
    assert (muon.lr, adamw.lr) == (0.04, 0.006)


# --- a budget of time


def test_minutes_set_the_steps_and_a_resumed_run_keeps_them(home: Path) -> None:
    said = good(*SMALL, "--minutes", "0.07", "--out", "timed", folder=home)
    steps = options_of(home, "timed")["steps"]
    assert f"minutes  0.07: {steps:,} steps of " in said and f"step {steps}/{steps}" in said
    assert re.search(r"steps of [\d,]+\.\d ms\b", said), "never as 1.08e+03"
    assert "minutes" not in options_of(home, "timed")
    lines = (home / "timed" / "metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["lr"] for line in lines]
    falling = steps // 2
    assert len(rates) == steps and rates[-1] <= max(rates) / max(falling, 1) + 1e-9
    same = good(*SMALL, "--steps", str(steps), "--out", "counted", folder=home)
    assert "minutes" not in same
    assert (home / "timed" / "model.mgrd").read_bytes() == (
        home / "counted" / "model.mgrd"
    ).read_bytes()


def test_a_text_that_is_read_often_gets_a_larger_model() -> None:
    options = TRAIN.complete({"optimizer": "adamw"})
    settle(options)
    assert not grow(options, 4.0) and options.size == "small" and options.lr == 0.003
    assert grow(options, 16.0)
    small, larger = (12 * s.n_layer * s.n_embd**2 for s in map(size_of, ("small", options.size)))
    assert larger / small == pytest.approx(16 / 2.5, rel=0.15)
    made = size_of(options.size)
    assert (options.n_layer, options.n_embd) == (made.n_layer, made.n_embd)
    assert options.lr == pytest.approx(0.003 * 128 / options.n_embd, rel=0.01)
    # Not without end, and not where the options say how large it is
    settle(most := TRAIN.complete({}))
    assert grow(most, 1e9) and int(most.size) < 10 * small
    assert options.dropout == 0.0 and most.dropout == 0.2
    settle(own := TRAIN.complete({"dropout": 0.1}))
    assert grow(own, 1e9) and own.dropout == 0.1
    for given in ({"size": "small"}, {"n_layer": 3}, {"block_size": 64}, {"batch_size": 8}):
        fixed = TRAIN.complete(given)
        settle(fixed)
        assert not grow(fixed, 16.0) and fixed.size == "small"


def test_minutes_enlarge_the_model_of_a_short_text(home: Path) -> None:
    words = "train --text text.txt --no-jit --sample 0 --minutes 20 --stop-at 1 --out grown"
    said = good(*words.split(), folder=home)
    options = options_of(home, "grown")
    assert options["size"].isdigit() and options["n_layer"] > 3
    assert f"{options['n_layer']} layers, {options['n_head']} heads" in said


def test_minutes_are_for_a_new_run_without_steps(home: Path) -> None:
    for arguments, said in (
        ((*SMALL, "--steps", "9", "--minutes", "1"), "--minutes sets --steps"),
        (("train", "--resume", "whole", "--minutes", "1"), "--minutes is for a new run"),
        ((*SMALL, "--minutes", "0"), "argument --minutes: '0' is not a number"),
    ):
        done = called(*arguments, folder=home)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


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
            "final_lr": 0.1,
            "decay": 0.2,
            **dict.fromkeys(Size._fields),
            "size": "tiny",
            "parts": 1,
            "accumulate": 1,
            **settings,
        }
    )
    settle(options)
    optimizer = build_optimizer(
        options, GPT(GPTConfig.gpt2(vocab_size=5, block_size=4, n_layer=1, n_head=1, n_embd=4))
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
    zero = {schedule: rates(schedule=schedule, final_lr=0.0)[-1] for schedule in SCHEDULES}
    assert all(0 < zero[schedule] < 0.11 for schedule in ("cosine", "linear", "wsd"))
    assert rates(schedule="wsd")[9:40] == [1.0] * 31 and rates(schedule="wsd")[41] < 1
    assert (
        max(range(50), key=rates(schedule="one-cycle", warmup=None).__getitem__) == 14
    )  # 30% of the steps
