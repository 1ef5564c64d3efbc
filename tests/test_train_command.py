"""`minigrad train` as a workbench: compiled or not, config files, tokenizers, metrics, early
stopping, divergence. Through real processes.
"""

import json
import os
import re
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from minigrad.files import load, load_checkpoint, peek
from tests.processes import called, command
from tests.runs import SMALL, TEXT

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "COLUMNS": "100"}


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, **environment},
        cwd=folder,
        timeout=600,
    )


def succeeds(folder: Path, *arguments: str, **environment: str) -> str:
    done = (
        run(folder, *arguments, **environment) if environment else called(*arguments, folder=folder)
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


def refused(folder: Path, *arguments: str, **environment: str) -> str:
    done = (
        run(folder, *arguments, **environment) if environment else called(*arguments, folder=folder)
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def home(run_home: Path) -> Path:
    """A folder with a text and a run of 20 steps."""
    return run_home


def stop_at(folder: Path, name: str, step: int) -> None:
    """A copy of the whole run, as if it had been killed some steps after a checkpoint."""
    subprocess.run(["cp", "-r", "whole", name], cwd=folder, check=True)
    for path in (folder / name / "checkpoints").glob("step-*.mgrd"):
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()


def compiles(folder: Path) -> bool:
    return bool(peek(folder / "whole" / "model.mgrd").meta["run"]["options"]["jit"])


# --- compiled or not


def test_one_line_says_that_the_step_is_compiled_or_why_not(home: Path) -> None:
    said = succeeds(home, *SMALL, "--out", "said", "--steps", "1", CC="no-such-compiler")
    assert [line for line in said.splitlines() if line.startswith("jit")] == [
        "jit      compiling the step ...",
        (
            "jit      the step runs op by op: no C compiler works (no-such-compiler: not found): "
            "fix "
            "$CC"
        ),
    ]
    said = succeeds(home, *SMALL, "--out", "said-2", "--steps", "1", "--no-jit")
    assert "jit      the step runs op by op\n" in said and "compiling" not in said
    said = succeeds(home, *SMALL, "--out", "said-3", "--steps", "1")
    assert not compiles(home) or re.search(
        r"^jit      compiling the step \.\.\.\n"
        r"jit      the step is compiled by /.* in [\d.]+ s; --no-jit runs it op by op$",
        said,
        re.MULTILINE,
    )
    assert re.search(r"^memory   about [\d.]+ MB: parameters [\d.]+, gradients", said, re.MULTILINE)


@pytest.mark.parametrize("jit", ["--jit", "--no-jit"])
def test_a_resumed_run_ends_with_the_bytes_of_one_that_was_not_stopped(
    home: Path, jit: str
) -> None:
    options = [*SMALL, jit, "--steps", "20"]
    for name in (f"one{jit}", f"two{jit}"):
        succeeds(home, *options, "--out", name)
    last = home / f"two{jit}" / "checkpoints" / "step-00000020.mgrd"
    last.unlink()
    assert "after step 10" in succeeds(home, "train", "--resume", f"two{jit}")
    one, two = (home / f"{name}{jit}" for name in ("one", "two"))
    assert (one / "model.mgrd").read_bytes() == (two / "model.mgrd").read_bytes()
    weights, again = load(one / "model.mgrd"), load_checkpoint(last).weights
    assert all(weights[name].tobytes() == again[name].tobytes() for name in weights)
    assert [{**r, "time": 0, "seconds": 0, "tokens_per_second": 0} for r in metrics(one)] == [
        {**r, "time": 0, "seconds": 0, "tokens_per_second": 0} for r in metrics(two)
    ]


def test_another_setting_of_jit_is_a_row_in_the_table_of_differences(home: Path) -> None:
    if not compiles(home):
        pytest.skip("no C compiler")
    stop_at(home, "was-compiled", 10)
    assert "jit   | True  | False" in refused(home, "train", "--resume", "was-compiled", "--no-jit")
    lost = refused(home, "train", "--resume", "was-compiled", CC="no-such-compiler")
    assert "jit   | True  | False" in lost and "--accept jit" in lost and "no-such-compiler" in lost
    said = run(home, "train", "--resume", "was-compiled", "--accept", "jit", CC="no-such-compiler")
    assert said.returncode == 0 and "the step runs op by op" in said.stdout
    succeeds(
        home, "train", "--resume", "was-compiled", "--steps", "21", "--accept", "steps"
    )  # a run that goes on eagerly is an eager one
    assert peek(home / "was-compiled" / "model.mgrd").meta["run"]["options"]["jit"] is False


# --- metrics


def test_metrics_are_cut_back_when_a_run_goes_on(home: Path) -> None:
    stop_at(home, "cut", 10)
    before = metrics(home / "cut")
    with (home / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 21, "ti')
    succeeds(home, "train", "--resume", "cut")
    rows = metrics(home / "cut")
    assert [r["step"] for r in rows] == list(range(1, 21)) and rows[:10] == before[:10]
    assert [(r["loss"], r.get("val_loss")) for r in rows] == [
        (r["loss"], r.get("val_loss")) for r in before
    ]
    assert all(a["seconds"] <= b["seconds"] for a, b in pairwise(rows))


# --- what the run is made of


@pytest.mark.parametrize(("kind", "size"), [("byte", 256), ("bpe", 280)])
def test_a_model_of_bytes_or_pieces_of_words_is_trained_resumed_and_writes(
    home: Path, kind: str, size: int
) -> None:
    options = ["--tokenizer", kind, *(["--vocab-size", str(size)] if kind == "bpe" else [])]
    said = succeeds(home, *SMALL, *options, "--out", kind, "--steps", "10", "--sample", "5")
    assert f"tokens of {size}" in said and "nats per token" in said
    assert peek(home / kind / "model.mgrd").meta["tokenizer"]["kind"] == kind
    assert "after step 10" in succeeds(
        home, "train", "--resume", kind, "--steps", "11", "--accept", "steps"
    )
    assert succeeds(
        home, "generate", "--model", kind, "--prompt", "Zürich", "--tokens", "5", "--seed", "1"
    ).startswith("Zürich")


def test_a_vocabulary_without_bpe_is_refused(home: Path) -> None:
    assert "--tokenizer bpe" in refused(home, *SMALL, "--vocab-size", "300", "--out", "vocabulary")


def test_accumulation_and_16_bits_are_part_of_the_run(home: Path) -> None:
    said = succeeds(
        home, *SMALL, "--out", "mixed", "--steps", "10", "--accumulate", "2", "--mixed", "bfloat16"
    )
    assert "there is no C for 16-bit parameters" in said
    options = peek(home / "mixed" / "model.mgrd").meta["run"]["options"]
    assert (options["accumulate"], options["mixed"], options["jit"]) == (2, "bfloat16", False)
    assert "accumulate | 2     | 4" in refused(
        home, "train", "--resume", "mixed", "--accumulate", "4"
    )
    more = ["--steps", "14", "--accept", "steps"]
    assert "after step 10" in succeeds(home, "train", "--resume", "mixed", *more)
    assert succeeds(
        home, "generate", "--model", "mixed", "--tokens", "5", "--prompt", "It"
    ).startswith("It")
    assert metrics(home / "mixed")[-1]["step"] == 14


def test_the_precision_of_products_is_part_of_the_run(home: Path) -> None:
    small = [*SMALL, "--no-jit", "--steps", "6"]
    said = succeeds(home, *small, "--out", "half", "--matmul", "bfloat16")
    assert "weight decay 0, products in bfloat16\n" in said
    assert peek(home / "half" / "model.mgrd").meta["run"]["options"]["matmul"] == "bfloat16"
    succeeds(home, *small, "--out", "parts", "--stop-at", "3", "--matmul", "bfloat16")
    assert "bfloat16 | float32" in refused(
        home, "train", "--resume", "parts", "--matmul", "float32"
    )
    succeeds(home, "train", "--resume", "parts")
    succeeds(home, *small, "--out", "full")
    half, parts, whole = (
        [row["loss"] for row in metrics(home / name)] for name in ("half", "parts", "full")
    )
    assert half == parts and half != whole
    assert "'high' is none of float32, bfloat16" in refused(home, *small, "--matmul", "high")


def test_a_run_out_of_patience_stops_keeps_the_best_model_and_says_so(home: Path) -> None:
    said = succeeds(
        home,
        *SMALL,
        "--out",
        "patient",
        "--steps",
        "500",
        "--lr",
        "0",
        "--patience",
        "2",
        "--eval-interval",
        "3",
    )
    assert "no lower validation loss in 2 evaluations: stopped early, after step 9" in said
    assert peek(home / "patient" / "model.mgrd").meta["run"]["step"] == 3
    assert "its patience has come to its end" in refused(home, "train", "--resume", "patient")


# --- config files


def test_a_config_file_gives_options_and_the_command_line_wins(home: Path) -> None:
    (home / "run.toml").write_text(
        'text = "text.txt"\nn-layer = 1\nn_head = 2\nn_embd = 8\nblock-size = 8\nlr = 0.5\njit = '
        "false\nsample = 0\n"
    )
    succeeds(
        home,
        "train",
        "--lr",
        "0.25",
        "--config",
        "run.toml",
        "--set",
        "steps=2",
        "--set",
        "n-embd=4",
        "--out",
        "configured",
    )
    options = peek(home / "configured" / "model.mgrd").meta["run"]["options"]
    wanted = {
        "n_layer": 1,
        "n_head": 2,
        "n_embd": 4,
        "block_size": 8,
        "lr": 0.25,
        "jit": False,
        "steps": 2,
        "batch_size": 8,
    }
    assert wanted.items() <= options.items() and not {"config", "set", "configured"} & set(options)


@pytest.mark.parametrize(
    ("content", "arguments", "expected"),
    [
        ("n_layers = 1", [], "run.toml: unknown option 'n_layers'; did you mean n_layer?"),
        ("lr = 'fast'", [], "run.toml: lr = 'fast': 'fast' is not a number"),
        ("steps = 1.5", [], "run.toml: steps = 1.5: '1.5' is not a whole number"),
        ("steps = true", [], "this option takes a value"),
        ("overwrite = 3", [], "expected true or false"),
        ("[model]\nn_layer = 1", [], "unknown option 'model'"),
        ("lr = [1, 2]", [], "expected a single value"),
        ("lr = ", [], "run.toml is not TOML"),
        ("", ["--set", "lr"], "'lr' is not KEY=VALUE"),
        ("", ["--set", "nothing=1"], "unknown option 'nothing'"),
        ("", ["--config", "nowhere.toml"], "nowhere.toml: No such file"),
        ("", ["--set", "config=run.toml"], "unknown option 'config'"),
    ],
)
def test_a_bad_config_gets_one_line(
    tmp_path: Path, content: str, arguments: list[str], expected: str
) -> None:
    (tmp_path / "run.toml").write_text(content)
    error = refused(tmp_path, "train", "--config", "run.toml", *arguments)
    assert error.count("\n") == 1 and expected in error


def test_what_a_config_file_says_counts_as_said_when_a_run_goes_on(home: Path) -> None:
    (home / "more.toml").write_text("batch_size = 5\n")
    stop_at(home, "more", 10)
    assert "batch_size | 4     | 5" in refused(
        home, "train", "--resume", "more", "--config", "more.toml"
    )


# --- bad ends


def test_a_divergence_says_which_checkpoint_is_good_and_how_to_go_on(home: Path) -> None:
    options = [
        "--lr",
        "1e20",
        "--warmup",
        "15",
        "--save-interval",
        "1",
        "--steps",
        "50",
        "--dropout",
        "0",
    ]
    done = run(home, *SMALL, *options, "--out", "diverged")
    error = done.stderr
    assert done.returncode == 2 and error.count("\n") == 1
    good = re.search(r"the last good checkpoint is (\S+step-(\d+)\.mgrd)", error)
    crash = re.search(r"batch and state are in (\S+\.mgrd)", error)
    again = re.search(
        r"go on from there: minigrad (train --resume diverged --lr \S+ --accept lr)$", error.strip()
    )
    assert good and crash and again, error
    left = sorted((home / "diverged" / "checkpoints").glob("step-*.mgrd"))
    assert left[-1] == home / good[1]  # what --resume takes
    found = load_checkpoint(home / crash[1])
    assert found.state["step"] >= int(good[2]) and found.state["not_finite"]["x"].shape == (4, 16)
    smaller = ["train", "--resume", "diverged", "--lr", "1e-3", "--accept", "lr"]
    assert f"after step {int(good[2])}" in succeeds(home, *smaller)
    rates = [r["lr"] for r in metrics(home / "diverged")]
    assert max(rates[int(good[2]) :]) <= 1e-3  # the accepted rate is the one that is used


def test_ctrl_c_while_numpy_is_imported_is_no_traceback() -> None:
    call = [sys.executable, "-X", "importtime", "-m", "minigrad", "--version"]
    with subprocess.Popen(
        call, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=ENVIRONMENT, text=True
    ) as process:
        assert process.stderr is not None
        while "numpy" not in (line := process.stderr.readline()):
            assert line
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(300) == 130
    assert "Traceback" not in rest


def test_a_run_is_saved_and_ends_when_the_reader_of_its_output_is_gone(tmp_path: Path) -> None:
    """As in `minigrad train | head`."""
    (tmp_path / "text.txt").write_text(TEXT)
    options = ("--steps", "20000", "--eval-interval", "20000", "--no-jit", "--out", "run")
    with subprocess.Popen(
        command(*SMALL, *options),
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        while not (line := process.stdout.readline()).startswith("step "):
            assert line
        process.stdout.close()
        assert process.wait(300) == 1 and process.stderr.read() == ""
    shown = int(line.split()[1].split("/")[0])
    step = max(int(path.stem[5:]) for path in (tmp_path / "run/checkpoints").glob("step-*"))
    assert 0 < shown < step < 20000
    assert peek(tmp_path / "run" / "model.mgrd").meta["run"]["step"] == step


def test_a_program_that_imports_minigrad_keeps_its_ctrl_c() -> None:
    code = (
        "import signal, minigrad; assert signal.getsignal(signal.SIGINT) is "
        "signal.default_int_handler"
    )
    assert subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT).returncode == 0
