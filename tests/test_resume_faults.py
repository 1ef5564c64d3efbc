"""Runs killed, overwritten or tampered with at the worst moments, in real processes."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from minigrad.files import CheckpointFolder, load, save_checkpoint
from tests.processes import finished

ROOT = Path(__file__).parents[1]
TRAIN = [
    "train",
    "--text",
    "text.txt",
    "--n-layer",
    "1",
    "--n-head",
    "2",
    "--n-embd",
    "8",
    "--block-size",
    "8",
    "--batch-size",
    "2",
    "--steps",
    "20",
    "--dropout",
    "0.1",
    "--sample",
    "0",
    "--eval-interval",
    "10",
    "--save-interval",
    "5",
    "--seed",
    "3",
    "--no-jit",
]
# Kills itself when the n-th temporary outside the checkpoints is made: after a checkpoint, before
# the model that belongs to it.
KILLED = """
import os, signal, sys
from minigrad.cli import main
real, left = os.open, int(sys.argv.pop(1))
def hooked(path, *args, **options):
    global left
    fd = real(path, *args, **options)
    if ".minigrad-" in str(path) and "checkpoints" not in str(path):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return fd
os.open = hooked
sys.exit(main(sys.argv[1:]))
"""


def run(folder, *arguments, code=None, **environment):
    start = [sys.executable, "-W", "error", *(["-c", code] if code else ["-m", "minigrad"])]
    return finished([*start, *arguments], folder, **environment)


def content(folder):
    loaded = load(folder / "model.mgrd")
    return {name: array.tobytes() for name, array in loaded.items()}, loaded.meta


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a text, and a whole run."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "text.txt").write_text("It was the best of times, it was the worst of times.\n" * 40)
    done = run(folder, *TRAIN, "--out", "whole")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copy(home):
    """A copy of the whole run."""
    shutil.rmtree(home / "copy", ignore_errors=True)
    shutil.copytree(home / "whole", home / "copy")
    return home / "copy"


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_run_killed_between_a_checkpoint_and_its_model_ends_with_the_right_model(home, n):
    out = home / f"killed-{n}"
    assert run(home, str(n), *TRAIN, "--out", out.name, code=KILLED).returncode == -9
    assert list(out.glob(".minigrad-*.tmp"))
    done = run(home, "train", "--resume", out.name)
    assert done.returncode == 0, done.stderr
    assert content(out) == content(home / "whole")
    assert not list(out.rglob(".minigrad-*.tmp"))
    again = run(home, "train", "--resume", out.name)
    assert again.returncode == 2 and "is complete" in again.stderr


def test_the_model_of_another_run_in_the_same_folder_is_not_taken_for_the_new_one(home, copy):
    other = [*TRAIN[:-2], "4", "--no-jit"]
    assert run(home, "2", *other, "--out", "copy", "--overwrite", code=KILLED).returncode == -9
    done = run(home, "train", "--resume", "copy")
    assert done.returncode == 0, done.stderr
    fresh = run(home, *other, "--out", "fresh")
    assert fresh.returncode == 0 and content(copy) == content(home / "fresh")


def test_overwriting_with_a_run_that_cannot_begin_loses_nothing(home, copy):
    before = sorted(path.name for path in copy.glob("checkpoints/step-*"))
    (home / "one.txt").write_text("a")
    for text in ["missing.txt", "one.txt"]:
        done = run(home, *TRAIN, "--out", "copy", "--overwrite", "--text", text)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert sorted(path.name for path in copy.glob("checkpoints/step-*")) == before
    done = run(home, *TRAIN, "--out", "copy", "--overwrite", "--steps", "10")
    assert done.returncode == 0, done.stderr
    assert max(step for step, _ in CheckpointFolder(copy / "checkpoints").steps()) == 10


CHANGES = {
    "no options": lambda state: state.pop("options"),
    "no data": lambda state: state.pop("data"),
    "options a list": lambda state: state.update(options=[1]),
    "no optimizer": lambda state: state.pop("optimizer"),
    "a step of text": lambda state: state.update(step="x"),
    "another generator": lambda state: state.update(generator="mt19937"),
    "a tokenizer of lists": lambda state: state.update(tokenizer=[1]),
    "no moments": lambda state: state["optimizer"]["state"]["0"].clear(),
    "layers of text": lambda state: state["options"].update(n_layer="x"),
    "a schedule of text": lambda state: state.update(schedule="x"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_state_that_no_run_has_written_gets_one_line(home, copy, change):
    folder = CheckpointFolder(copy / "checkpoints")
    found = folder.load_latest()
    change(found.state)
    shutil.rmtree(copy / "checkpoints")
    (copy / "checkpoints").mkdir()
    save_checkpoint(
        copy / "checkpoints" / "step-00000010.mgrd", found.weights, found.state, meta=found.meta
    )
    done = run(home, "train", "--resume", "copy")
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].startswith("minigrad train: error:") or "  " in done.stderr


def test_other_kernels_of_the_blas_are_a_warning(home, copy):
    saved = CheckpointFolder(copy / "checkpoints").load_latest().state["environment"]
    if saved["BLAS kernels"] in ("unknown", "Nehalem"):
        pytest.skip("this BLAS does not tell its kernels, or has no others")
    done = run(
        home,
        "train",
        "--resume",
        "copy",
        "--steps",
        "21",
        "--accept",
        "steps",
        OPENBLAS_CORETYPE="Nehalem",
    )
    assert done.returncode == 0 and "warning: BLAS kernels was" in done.stderr, done.stderr


def test_a_path_that_is_no_utf8_can_be_trained_in(home):
    odd = os.fsdecode(b"tx\xff.txt")
    shutil.copy(home / "text.txt", home / odd)
    done = run(home, *TRAIN, "--text", odd, "--out", os.fsdecode(b"o\xff"), "--steps", "5")
    assert done.returncode == 0, done.stderr
