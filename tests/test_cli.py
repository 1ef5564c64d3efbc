"""The command line, as a user meets it: through real processes."""

import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import minigrad
from minigrad.files import peek
from tests import processes
from tests.processes import called, command, finished

ROOT = Path(__file__).parents[1]
TEXT = "It was the best of times, it was the worst of times.\n" * 40
TRAIN = [
    "train",
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
    "--eval-interval",
    "10",
]
ENVIRONMENT = processes.ENVIRONMENT | {"TERM": "xterm"}


def run(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return finished(command(*arguments), folder, TERM="xterm")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text and a model trained on it for 40 steps."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "text.txt").write_text(TEXT)
    done = run(*TRAIN, "--out", "model", "--steps", "40", "--seed", "7", folder=folder)
    assert done.returncode == 0, done.stderr
    (folder / "log").write_text(done.stdout)
    return folder


def test_train_prints_progress_both_losses_and_a_sample_and_says_how_to_go_on(home: Path) -> None:
    log = (home / "log").read_text()
    assert "\r" not in log and "\x1b" not in log
    losses = [float(x) for x in re.findall(r"validation (\d+\.\d+)", log)]
    assert len(losses) == 4 and losses[-1] < losses[0]
    assert re.search(
        r"step 40/40  loss \d+\.\d{3}  validation \d+\.\d{3}  [\d,]+ tokens/s  0:00 left", log
    )
    final = re.search(
        r"^validation loss (\d+\.\d+) nats per character \(table of pairs (\d+\.\d+)\), "
        r"\d+\.\d{3} bits per byte; saved in model$",
        log,
        flags=re.MULTILINE,
    )
    assert final and float(final[1]) == losses[-1] and float(final[2]) > 0
    assert "saved in model" in log
    sample = log.split("a sample:\n\n")[1]
    assert len(sample) >= 400 and set(sample) <= set(TEXT)
    assert "minigrad generate --model model" in log


def test_the_weight_file_holds_config_tokenizer_and_how_it_was_made(home: Path) -> None:
    header = peek(home / "model" / "model.mgrd")
    assert header.meta["model"]["n_embd"] == 16
    assert header.meta["run"]["step"] == 40 and header.meta["run"]["options"]["seed"] == 7


def test_the_same_seed_gives_the_same_losses_and_bytes_and_another_seed_others(
    home: Path, tmp_path: Path
) -> None:
    contents = {}
    for seed in ("7", "8"):
        (folder := tmp_path / seed).mkdir()
        (folder / "text.txt").write_text(TEXT)
        done = run(*TRAIN, "--out", "model", "--steps", "40", "--seed", seed, folder=folder)
        contents[seed] = (
            (folder / "model" / "model.mgrd").read_bytes(),
            re.findall(r"(?:loss|validation) \d+\.\d+", done.stdout),
        )
    first = (
        (home / "model" / "model.mgrd").read_bytes(),
        re.findall(r"(?:loss|validation) \d+\.\d+", (home / "log").read_text()),
    )
    assert contents["7"] == first
    assert contents["8"][0] != first[0] and contents["8"][1] != first[1]


def test_generate_continues_the_prompt_and_repeats_itself_for_a_seed(home: Path) -> None:
    call = ["generate", "--model", "model", "--prompt", "It was", "--tokens", "60", "--seed", "3"]
    first, again = run(*call, folder=home), run(*call, folder=home)
    assert first.returncode == 0 and first.stdout == again.stdout
    assert first.stdout.startswith("It was") and len(first.stdout) == 6 + 60 + 1
    assert run(*call[:-1], "4", folder=home).stdout != first.stdout


def test_without_the_cache_the_text_is_the_same(home: Path) -> None:
    call = [
        "generate",
        "--model",
        "model/model.mgrd",
        "--prompt",
        "the ",
        "--tokens",
        "40",
        "--temperature",
        "0",
    ]
    assert run(*call, folder=home).stdout == run(*call, "--no-cache", folder=home).stdout


def test_generate_streams(home: Path) -> None:
    call = command("generate", "--model", "model", "--prompt", "It", "--tokens", "100000")
    with subprocess.Popen(
        call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, cwd=home
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert len(process.stdout.read(20)) == 20  # while it is far from done
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(300) == 130
        assert b"Traceback" not in process.stderr.read()


def test_a_reader_that_goes_away_ends_generate_quietly(home: Path) -> None:
    call = command("generate", "--model", "model", "--tokens", "100000")
    with subprocess.Popen(
        call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, cwd=home
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(5)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(300) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_and_says_how_to_go_on(home: Path, number: signal.Signals) -> None:
    out = f"stopped-{number.name}"
    call = command(*TRAIN, "--out", out, "--steps", "1000000")
    with subprocess.Popen(
        call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, cwd=home, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        while "step 10/" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(number)
        rest, complaints = process.stdout.read(), process.stderr.read()
        assert process.wait(300) == 128 + number
    assert complaints == ""
    stopped = re.search(r"stopped after step (\d+) of 1000000", rest)
    assert stopped and f"--model {out}" in rest
    assert peek(home / out / "model.mgrd").meta["run"]["step"] == int(stopped[1])
    assert run("generate", "--model", out, "--tokens", "5", folder=home).returncode == 0


def through_a_terminal(call: Sequence[str], folder: Path) -> str:
    """The output of a process whose stdout is a terminal."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        call,
        stdout=follower,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        cwd=folder,
        stdin=subprocess.DEVNULL,
    ) as process:
        os.close(follower)
        output, end = b"", time.monotonic() + 300
        while time.monotonic() < end:
            if select.select([leader], [], [], 1)[0]:
                try:
                    output += os.read(leader, 65536)
                except OSError:  # Linux says EIO where the other side is closed
                    break
        assert process.wait(300) == 0, process.stderr and process.stderr.read()
    os.close(leader)
    return output.decode()


WITHOUT_RICH = (
    "import sys; sys.modules['rich.console'] = None; from minigrad.cli import main; "
    "raise SystemExit(main(sys.argv[1:]))"
)


@pytest.mark.parametrize("with_rich", [False, True])
def test_on_a_terminal_rich_draws_a_bar_and_evaluations_stay(home: Path, with_rich: bool) -> None:
    if with_rich:
        pytest.importorskip("rich")
    starter = command() if with_rich else [sys.executable, "-W", "error", "-c", WITHOUT_RICH]
    out = f"terminal-{with_rich}"
    output = through_a_terminal([*starter, *TRAIN, "--out", out, "--steps", "20"], home)
    assert ("\r" in output.replace("\r\n", "\n")) == ("\x1b[" in output) == with_rich
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output)
    for step in (10, 20):
        assert re.search(
            rf"step {step}/20  loss \d\.\d+  validation \d\.\d+  [\d,]+ tokens/s  \d+:\d\d left "
            r"*\r\n",
            plain,
        )
    assert ("━" in plain) == with_rich


BAD_INPUT = {
    "no such file": (["train", "--text", "nowhere.txt"], "there is no file nowhere.txt"),
    "a name that is nearly a file's": (["train", "--text", "texts.txt"], "near it: text.txt"),
    "an empty text": (["train", "--text", "empty.txt"], "the text is empty"),
    "a text of one character": (["train", "--text", "one.txt"], "single character, 'a'"),
    "a text of one character many times": (
        ["train", "--text", "same.txt"],
        "single character, 'a'",
    ),
    "a file that is no text": (["train", "--text", "binary"], "binary is not UTF-8 text"),
    "a folder without text": (["train", "--text", "hollow"], "hollow holds no UTF-8 text"),
    "a context longer than the text": (
        [*TRAIN, "--block-size", "9999"],
        "--block-size 9999 is longer than the text",
    ),
    "heads that do not divide the width": (
        [*TRAIN, "--n-embd", "30", "--n-head", "4"],
        "n_embd=30",
    ),
    "no number": (
        ["train", "--steps", "many"],
        "argument --steps: 'many' is not a whole number of at least 1",
    ),
    "a negative number": (
        ["train", "--lr", "-1"],
        "argument --lr: '-1' is not a number of at least 0",
    ),
    "a learning rate that is no number": (
        ["train", "--lr", "nan"],
        "argument --lr: 'nan' is not a number",
    ),
    "dropout of everything": (
        [*TRAIN, "--dropout", "1"],
        "argument --dropout: '1' is not a number of at least 0 and below 1",
    ),
    "a limit of nothing": (["train", "--clip-norm", "0"], "'0' is not a number above 0;"),
    "an unknown option": (["train", "--stepz", "3"], "--stepz 3"),
    "a shortened option": (["train", "--step", "3"], "--step 3"),
    "an unknown command": (["zzz"], "no command 'zzz'; minigrad --help lists"),
    "a mistyped command": (["tarin"], "no command 'tarin'; did you mean train?"),
    "a text that never ends": (["train", "--text", "/dev/zero"], "not a regular file or a pipe"),
    "a text in UTF-16": (["train", "--text", "wide"], "convert it: iconv -f UTF-16 -t UTF-8 wide"),
    "a folder that holds a model": ([*TRAIN, "--out", "model"], "model holds a model already"),
    "an output folder that is a file": ([*TRAIN, "--out", "one.txt"], "one.txt: File exists"),
    "a folder that is missing": (
        ["generate", "--model", "runs/gpt"],
        "there is no folder runs/gpt; train one first: minigrad train --out runs/gpt",
    ),
    "a missing folder beside a model": (
        ["generate", "--model", "nowhere"],
        "there is no folder nowhere; there are models in model",
    ),
    "plotting without a run": (["plot", "nowhere"], "there is no nowhere; train first"),
    "inspecting what is missing": (["inspect", "nowhere"], "there is no file nowhere"),
    "a folder without weights": (["generate", "--model", "hollow"], "hollow holds no model.mgrd"),
    "a folder of runs": (["generate", "--model", "."], "there are models in model"),
    "a model that is a text": (
        ["generate", "--model", "text.txt"],
        "text.txt: this is not a minigrad file; --model takes a run's folder",
    ),
    "a model that is a device": (["chat", "--model", "/dev/null"], "/dev/null is a device"),
    "a folder with a GGUF file": (["generate", "--model", "ggufs"], "models in ggufs/a.gguf"),
    "a GGUF file of another name": (["show", "ggufs/plain"], "name it FILE.gguf for commands"),
    "weights of a published model": (
        ["generate", "--model", "published/model.safetensors"],
        "name its folder: published",
    ),
    "statistics of a GGUF file": (["inspect", "--stats", "ggufs/a.gguf"], "and has no --stats"),
    "a weight file of something else": (["generate", "--model", "other.mgrd"], "other.mgrd"),
    "a prompt with unknown characters": (
        ["generate", "--model", "model", "--prompt", "Zürich"],
        "unknown characters 'Z', 'c', 'ü'",
    ),
    "an empty prompt": (["generate", "--model", "model", "--prompt", ""], "the prompt is empty"),
    "a negative temperature": (
        ["generate", "--model", "model", "--temperature", "-1"],
        "argument --temperature",
    ),
    "a top-p above 1": (
        ["generate", "--model", "model", "--top-p", "1.5"],
        "argument --top-p: '1.5' is not a number above 0 and at most 1",
    ),
}


@pytest.fixture(scope="module")
def mistakes(home: Path) -> Path:
    """The home, with the files that the rows above name."""
    (home / "empty.txt").write_text("")
    (home / "one.txt").write_text("a")
    (home / "same.txt").write_text("a" * 5000)
    (home / "binary").write_bytes(bytes(range(256)))
    (home / "wide").write_text(TEXT, encoding="utf-16")
    for name in ("hollow", "ggufs", "published"):
        (home / name).mkdir()
    for name in ("a.gguf", "plain"):
        (home / "ggufs" / name).write_bytes(b"GGUF\3" + bytes(59))
    (home / "published" / "config.json").write_text("{}")
    minigrad.save(home / "published/model.safetensors", {"x": minigrad.Tensor([1.0])})
    minigrad.save(home / "other.mgrd", {"x": minigrad.Tensor([1.0])})
    return home


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gets_one_clear_line_and_exit_code_2(mistakes: Path, case: str) -> None:
    arguments, expected = BAD_INPUT[case]
    # Two of them as real processes: one that the parser refuses, one that a file does.
    done = (run if case in ("no such file", "no number") else called)(*arguments, folder=mistakes)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("minigrad") and ": error: " in done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("\n")
    assert expected in done.stderr


def test_a_loss_that_is_no_number_stops_the_run_with_one_line(home: Path) -> None:
    former = ("--arch", "gpt2", "--optimizer", "adamw")  # norms without biases never overflow
    rate = ("--lr", "1e20", "--warmup", "0")
    done = run(*TRAIN, "--out", "diverged", "--steps", "50", *former, *rate, folder=home)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "smaller learning rate" in done.stderr


def test_overwrite_replaces_a_model(home: Path) -> None:
    for extra in ([], ["--overwrite"]):
        assert run(*TRAIN, "--out", "twice", "--steps", "2", *extra, folder=home).returncode == 0
    assert sorted(p.name for p in (home / "twice").iterdir()) == [
        "checkpoints",
        "metrics.jsonl",
        "model.mgrd",
    ]


def test_without_out_every_run_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    for _ in range(2):
        assert run(*TRAIN, "--steps", "1", "--sample", "0", folder=tmp_path).returncode == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["gpt", "gpt-2"]


def test_version_and_help() -> None:
    assert run("--version").stdout == f"minigrad {minigrad.__version__}\n"
    assert "train" in run("--help").stdout


@pytest.mark.parametrize("name", ["train", "generate"])
def test_the_help_of_a_command_explains_every_option_and_gives_examples(name: str) -> None:
    text = called(name, "--help", folder=ROOT).stdout
    assert f"  minigrad {name} --" in text and "examples:" in text
    options = re.findall(
        r"^  (--[a-z-]+)(?: [A-Z]+)?(.*)$((?:\n {10,}.*)*)", text, flags=re.MULTILINE
    )
    assert len(options) >= 7
    for option, same_line, next_lines in options:
        assert len((same_line + next_lines).strip()) > 10, option
        without_default = ("--help", "--overwrite", "--model", "--no-cache", "--top-k", "--top-p")
        assert "default" in same_line + next_lines or option in without_default, option


def test_a_switch_shows_both_ways_where_the_usage_is() -> None:
    usage = called("train", "--help", folder=ROOT).stdout.split("\n\n")[0]
    assert "[--jit | --no-jit]" in " ".join(usage.split())


def test_a_model_that_is_overwritten_stays_until_there_is_a_trained_one(
    home: Path, tmp_path: Path
) -> None:
    shutil.copytree(home / "model", tmp_path / "model")
    (tmp_path / "text.txt").write_text(TEXT)
    before = (tmp_path / "model" / "model.mgrd").read_bytes()
    done = run(
        *TRAIN, "--out", "model", "--overwrite", "--steps", "40", "--lr", "1e30", folder=tmp_path
    )
    assert done.returncode == 2 and "gradient" in done.stderr
    assert (tmp_path / "model" / "model.mgrd").read_bytes() == before


def test_the_command_that_is_printed_at_the_end_works_for_odd_folders_and_texts(
    tmp_path: Path,
) -> None:
    (tmp_path / "text.txt").write_text("abcdefg hij klm no\n" * 200)
    done = run(*TRAIN, "--out", "my out", "--steps", "2", "--sample", "0", folder=tmp_path)
    printed = shlex.split(done.stdout.split("let it write:")[1])
    assert printed[:4] == ["minigrad", "generate", "--model", "my out"]
    assert run(*printed[1:], "--tokens", "5", folder=tmp_path).returncode == 0


@pytest.mark.parametrize(
    "meta",
    [
        {"model": {}, "tokenizer": {}},
        {"model": 3, "tokenizer": 7},
        {"model": {"vocab_size": 3}, "tokenizer": {"kind": "char", "characters": [1]}},
        {
            "model": {"vocab_size": 3, "odd": 1},
            "tokenizer": {"kind": "char", "characters": ["a", "b", "c"]},
        },
    ],
)
def test_a_weight_file_with_odd_meta_is_refused_in_one_line(tmp_path: Path, meta: dict) -> None:
    minigrad.save(tmp_path / "odd.mgrd", {"w": np.ones(3, np.float32)}, meta=meta)
    done = called("generate", "--model", "odd.mgrd", folder=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--text", "--out", "--resume"])
def test_an_empty_path_is_refused(tmp_path: Path, option: str) -> None:
    done = called("train", option, "", folder=tmp_path)
    assert done.returncode == 2 and "empty path" in done.stderr


def test_a_closed_stdout_is_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, '-m', "
            "'minigrad', "
            "'train', '--help'])",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr
