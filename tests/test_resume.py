"""`minigrad train --resume`: a run that was killed goes on to the bit, and only as the run it was.
Through real processes.
"""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from minigrad.data import TextData
from minigrad.files import CheckpointFolder, load, load_checkpoint, save_checkpoint
from tests.processes import ENVIRONMENT, called, command, finished

ROOT = Path(__file__).parents[1]
TEXT = "It was the best of times, it was the worst of times.\n" * 40
TRAIN = [
    "--text",
    "text.txt",
    "--n-layer",
    "1",
    "--n-head",
    "2",
    "--n-embd",
    "16",
    "--block-size",
    "16",
    "--batch-size",
    "4",
    "--dropout",
    "0.2",
    "--sample",
    "0",
    "--eval-interval",
    "30",
    "--save-interval",
    "7",
    "--seed",
    "3",
]


def run(folder, *arguments):
    return finished(command(*arguments), folder)


def started(folder, *arguments):
    """A run in a process of its own that has written a few checkpoints and goes on."""
    process = subprocess.Popen(
        command("train", *arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
        cwd=folder,
    )
    out = folder / arguments[arguments.index("--out") + 1]
    deadline = time.monotonic() + 300
    while not any(out.glob("checkpoints/step-*1.mgrd")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    return process


def content(folder):
    loaded = load(folder / "model.mgrd")
    return {name: array.tobytes() for name, array in loaded.items()}, loaded.meta["run"]["val_loss"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a text, and a run of 240 steps that nobody disturbed."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "text.txt").write_text(TEXT)
    done = run(folder, "train", *TRAIN, "--out", "whole", "--steps", "240")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_was_stopped_ends_with_the_bits_of_one_that_was_not(home, number):
    process = started(home, *TRAIN, "--out", f"stopped-{number}", "--steps", "240")
    process.send_signal(number)
    assert process.wait(timeout=300) == (-9 if number == signal.SIGKILL else 128 + number)
    done = run(home, "train", "--resume", f"stopped-{number}")
    assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stdout and done.stderr == ""
    assert content(home / f"stopped-{number}") == content(home / "whole")


def test_a_damaged_checkpoint_is_passed_over_and_the_run_goes_on_from_the_one_before(home):
    process = started(home, *TRAIN, "--out", "damaged", "--steps", "240")
    process.kill()
    process.wait()
    last = sorted((home / "damaged" / "checkpoints").glob("step-*"))[-1]
    last.write_bytes(last.read_bytes()[:-1])
    done = run(home, "train", "--resume", "damaged")
    assert done.returncode == 0 and "passed over a damaged checkpoint" in done.stderr
    assert content(home / "damaged") == content(home / "whole")


@pytest.fixture
def half(home):
    """The folder's name of a run that stands in the middle: the last checkpoint of the whole run
    but one.
    """
    name = "half"
    if not (home / name).exists():
        process = started(home, *TRAIN, "--out", name, "--steps", "100000")
        process.kill()
        process.wait()
    return name


@pytest.mark.parametrize(
    ("arguments", "row"),
    [
        (["--batch-size", "5"], "batch_size | 4     | 5"),
        (["--seed", "4"], "seed  | 3     | 4"),
        (["--lr", "0.5"], "lr    | 0.02  | 0.5"),
        (["--text", "other.txt"], "data  | 2,120 characters, sha256"),
    ],
)
def test_a_changed_run_is_a_table_and_stops(home, half, arguments, row):
    (home / "other.txt").write_text(TEXT.replace("best", "rest"))
    done = called("train", "--resume", half, *arguments, folder=home)
    assert done.returncode == 2 and row in done.stderr and "--accept" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_same_text_under_another_name_is_the_same_run_and_free_options_may_change(home):
    process = started(home, *TRAIN, "--out", "moved", "--steps", "240")
    process.kill()
    process.wait()
    (home / "moved.txt").write_text(TEXT)
    done = run(home, "train", "--resume", "moved", "--text", "moved.txt", "--save-interval", "50")
    assert done.returncode == 0, done.stderr
    assert content(home / "moved") == content(home / "whole")


def test_a_change_that_is_accepted_by_name_goes_on(home):
    done = run(home, "train", *TRAIN, "--out", "more", "--steps", "10")
    assert done.returncode == 0
    done = run(home, "train", "--resume", "more")
    assert done.returncode == 2 and "is complete" in done.stderr
    done = run(
        home,
        "train",
        "--resume",
        "more",
        "--steps",
        "20",
        "--batch-size",
        "5",
        "--accept",
        "steps,batch_size",
    )
    assert done.returncode == 0, done.stderr
    assert load(home / "more" / "model.mgrd").meta["run"]["step"] == 20


def test_a_second_trainer_in_the_same_folder_is_refused(home):
    process = started(home, *TRAIN, "--out", "busy", "--steps", "100000")
    try:
        done = run(home, "train", "--resume", "busy")
        assert done.returncode == 2 and f"pid {process.pid}" in done.stderr
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("options", [(), ("--patience", "1"), ("--steps", "20")])
def test_a_signal_ends_a_validation_which_a_resumed_run_does_first(home, monkeypatch, options):
    call = ["train", *TRAIN, "--eval-interval", "10", "--steps", "40", "--lr", "0.3", *options]
    done = called(*call, "--out", "undisturbed", "--overwrite", folder=home)
    assert done.returncode == 0, done.stderr
    left, validation = [3], TextData.validation

    def disturbed(data):  # in the second evaluation, after its first batch
        left[0] -= 1
        for i, batch in enumerate(validation(data)):
            if left[0] == 1 and i == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            assert left[0] != 1 or i < 2
            yield batch

    with monkeypatch.context() as patched:
        patched.setattr(TextData, "validation", disturbed)
        done = called(*call, "--out", "disturbed", "--overwrite", folder=home)
    assert done.returncode == 128 + signal.SIGTERM
    last = ", before its validation" if "20" in options else ""
    assert re.search(f"stopped after step 20 of .0{last}; saved", done.stdout)
    # Without options, first as a run that is to go no further than to this validation
    for more in ([],) if options else (["--stop-at", "20"], []):
        done = called("train", "--resume", "disturbed", *more, folder=home)
        assert done.returncode == 0 and "after step 20" in done.stdout, done.stderr
    assert content(home / "disturbed") == content(home / "undisturbed")
    rows = [
        [json.loads(line) for line in (home / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("disturbed", "undisturbed")
    ]
    facts = [[(r["step"], r["loss"], r["lr"], r.get("val_loss")) for r in run] for run in rows]
    assert facts[0] == facts[1]


def test_a_folder_that_cannot_be_had_is_refused_before_the_text_is_read(home):
    with CheckpointFolder(home / "whole" / "checkpoints"):
        for out, problem in (
            ("whole", "is in use"),
            ("text.txt/run", "text.txt cannot be written"),
        ):
            done = called("train", *TRAIN, "--out", out, "--overwrite", folder=home)
            assert done.returncode == 2 and problem in done.stderr and done.stdout == ""


def test_a_step_to_stop_at_that_is_reached_is_refused_and_nothing_is_trained(home, half):
    before = sorted(path.name for path in (home / "half" / "checkpoints").iterdir())
    last = int(before[-1].removeprefix("step-").removesuffix(".mgrd"))
    for step in (last - 1, last):
        done = called("train", "--resume", half, "--stop-at", str(step), folder=home)
        assert done.returncode == 2 and f"half is already at step {last}" in done.stderr
        assert f"--stop-at {step}" in done.stderr and "jit" not in done.stdout
    assert sorted(path.name for path in (home / "half" / "checkpoints").iterdir()) == before


@pytest.mark.parametrize("arguments", [["--resume", "nowhere"], ["--accept", "lr"]])
def test_resuming_nothing_gets_one_line(home, arguments):
    done = called("train", *arguments, folder=home)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_a_new_run_does_not_mix_with_the_checkpoints_of_an_old_one(home):
    small = [*TRAIN, "--out", "again", "--steps"]
    assert run(home, "train", *small, "9").returncode == 0
    (home / "again" / "model.mgrd").unlink()
    done = run(home, "train", *small, "2")
    assert done.returncode == 2 and "--resume again" in done.stderr
    assert run(home, "train", *small, "2", "--overwrite").returncode == 0
    assert [p.name for p in sorted((home / "again" / "checkpoints").glob("step-*"))] == [
        "step-00000000.mgrd",
        "step-00000002.mgrd",
    ]


def test_a_checkpoint_holds_the_whole_state(home):
    found = load_checkpoint(sorted((home / "whole" / "checkpoints").glob("step-*"))[-1])
    assert sorted(found.state) == [
        "data",
        "environment",
        "generator",
        "optimizer",
        "options",
        "schedule",
        "step",
        "stopping",
        "tokenizer",
    ]
    assert (
        found.state["step"] == found.meta["step"] == 240
        and found.state["optimizer"]["kind"] == "ChainedOptimizer"
    )
    assert found.state["generator"].dtype == np.uint64 and found.state["data"]["characters"] == len(
        TEXT
    )
    assert all(
        set(entry) in ({"step", "momentum_buffer"}, {"step", "exp_avg", "exp_avg_sq"})
        for entry in found.state["optimizer"]["state"].values()
    )


def test_another_environment_is_a_warning(home, half):
    path = sorted((home / half / "checkpoints").glob("step-*"))[-1]
    found = load_checkpoint(path)
    save_checkpoint(
        path,
        found.weights,
        {**found.state, "environment": {**found.state["environment"], "numpy": "1.0"}},
        meta=found.meta,
    )
    done = run(
        home,
        "train",
        "--resume",
        half,
        "--steps",
        str(found.state["step"] + 1),
        "--accept",
        "steps",
    )
    assert done.returncode == 0
    assert done.stderr == (
        f"warning: numpy was 1.0 and is {np.__version__}: the run goes on, but is equal only "
        "to "
        "rounding\n"
    )


def test_the_file_commands_are_there(home):
    model = "whole/model.mgrd"
    assert "wte.weight" in run(home, "inspect", model, "--stats").stdout
    assert called("verify", "whole", folder=home).returncode == 0
    assert called("convert", model, "model.safetensors", folder=home).returncode == 0
    assert called("diff", model, "model.safetensors", folder=home).stdout.startswith(
        "no difference"
    )
    done = called("inspect", "whole/model.pt", folder=home)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_a_resumed_run_has_no_other_folder(home):
    for more in (("--out", "elsewhere"), ("--overwrite",)):
        done = called("train", "--resume", "whole", *more, folder=home)
        assert (
            done.returncode == 2
            and "continues the run in its own folder" in done.stderr
            and done.stderr.count("\n") == 1
        )
    assert not (home / "elsewhere").exists()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("learning_rate", "no 'learning_rate'"),
        ("lr,stepps", "did you mean steps?"),
        ("sample", "no 'sample'"),
    ],
)
def test_a_name_to_accept_that_nothing_has_gets_one_line(home, names, expected):
    done = called("train", "--resume", "whole", "--accept", names, folder=home)
    assert done.returncode == 2 and expected in done.stderr and done.stderr.count("\n") == 1


def test_names_to_accept_may_be_spelled_as_options_and_may_be_more_than_differ(home):
    assert run(home, "train", *TRAIN, "--out", "spelled", "--steps", "2").returncode == 0
    done = run(
        home,
        "train",
        "--resume",
        "spelled",
        "--steps",
        "3",
        "--batch-size",
        "5",
        "--accept",
        "steps, batch-size,data,lr,jit,patience",
    )
    assert done.returncode == 0, done.stderr


def test_overwriting_wants_a_folder_to_overwrite(home):
    done = called("train", *TRAIN, "--overwrite", folder=home)
    assert (
        done.returncode == 2
        and "--overwrite is for --out" in done.stderr
        and done.stderr.count("\n") == 1
    )
    assert not (home / "runs").exists()
