"""What people expect of the command line: no traces of a run that never began, checkpoints that can
be read, suggestions, and a word where something is left out.
"""

import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minigrad.cli import terminal
from minigrad.cli.terminal import PlainProgress, WatchedData
from minigrad.data import TextData
from minigrad.train import Report
from tests.commands.home import ENVIRONMENT, good, refused, run
from tests.processes import called

SMALL = ("--n-layer", "1", "--n-head", "1", "--n-embd", "8", "--block-size", "8", "--no-jit")


@pytest.mark.parametrize(
    "options", [("--n-head", "7"), ("--text", "one.txt"), ("--text", "nothing.txt")]
)
def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "one.txt").write_text("aaaa")
    refused("train", *options, folder=tmp_path)
    refused("train", *options, "--out", "deep/er/run", folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.txt"]


def test_ctrl_c_while_the_text_is_read_leaves_no_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "text.txt")  # reading it waits for a writer
    call = [sys.executable, "-m", "minigrad", "train", "--text", "text.txt", "--out", "deep/run"]
    with subprocess.Popen(
        call, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        writer = os.open(tmp_path / "text.txt", os.O_WRONLY)  # returns when it is being read
        process.send_signal(signal.SIGINT)
        os.close(writer)
        assert process.wait(60) == 130 and process.stderr is not None
        assert process.stderr.read() == b"\n"
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_every_command_reads_a_checkpoint(home: Path) -> None:
    path = str(max((home / "bot" / "checkpoints").glob("step-*.mgrd")).relative_to(home))
    asked = ("--prompt", "you: hi\n", "--temperature", "0", "--tokens", "10")
    text = good("generate", "--model", path, *asked, folder=home)
    assert text == good("generate", "--model", "bot", *asked, folder=home)
    assert "perplexity" in good("eval", "--model", path, "--text", "text.txt", folder=home)
    assert "GPT" in good("show", path, folder=home)
    chat = ("chat", "--model", path, "--template", r"you: {message}\nbot: ", "--temperature", "0")
    assert good(*chat, folder=home, given="hi\n") == "hello\n"


@pytest.mark.parametrize("name", ["show", "inspect"])
def test_show_and_inspect_take_a_model_as_other_commands_do(name: str, home: Path) -> None:
    assert good(name, "--model", "bot", folder=home) == good(name, "bot", folder=home)
    assert "--model is required" in refused(name, folder=home)
    assert "not allowed with" in refused(name, "bot", "--model", "bot", folder=home)


def test_a_better_model_from_before_is_named_and_best_picks_it(tmp_path: Path) -> None:
    noise = random.Random(0)
    (tmp_path / "text.txt").write_text("".join(noise.choices("abcdefgh", k=300)))
    options = ("--steps", "200", "--eval-interval", "20", "--lr", "0.03", "--sample", "0")
    wide = ("--n-embd", "32", "--n-layer", "1", "--n-head", "1", "--block-size", "8")
    output = good("train", "--text", "text.txt", *options, *wide, folder=tmp_path)
    step = re.search(r"it was lower, [\d.]+, after step (\d+): ", output)
    assert step and "minigrad generate --model runs/gpt --best" in output and "--patience" in output
    checkpoint = f"runs/gpt/checkpoints/step-{int(step[1]):08d}.mgrd"
    asked = ("--tokens", "9", "--prompt", "a", "--temperature", "0")
    best = good("generate", "--model", "runs/gpt", "--best", *asked, folder=tmp_path)
    assert best == good("generate", "--model", checkpoint, *asked, folder=tmp_path)
    of_text = ("--text", "text.txt", "--json")
    nats = [
        json.loads(good("eval", "--model", "runs/gpt", *of_text, *which, folder=tmp_path))
        for which in (("--best",), ())
    ]
    assert nats[0] != nats[1]
    assert "--best is for the folder of a run" in refused(
        "show", checkpoint, "--best", folder=tmp_path
    )


def test_a_loss_that_was_lower_by_less_than_a_percent_is_not_named(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("".join(random.Random(0).choices("abcdefgh", k=300)))
    options = ("--steps", "40", "--eval-interval", "5", "--lr", "0.003", "--out", "run")
    output = good("train", "--text", "text.txt", *options, *SMALL, folder=tmp_path)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [row["val_loss"] for row in map(json.loads, lines) if "val_loss" in row]
    assert 0.99 * losses[-1] < min(losses) < losses[-1] and "it was lower" not in output


def test_a_run_without_its_model_is_continued(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("abc abd abe " * 40)
    good("train", "--text", "text.txt", "--steps", "2", "--out", "run", *SMALL, folder=tmp_path)
    (tmp_path / "run" / "model.mgrd").unlink()
    line = refused("generate", "--model", "run", folder=tmp_path)
    assert "run holds no model.mgrd, but checkpoints up to step 2; continue the run: " in line
    assert line.endswith("minigrad train --resume run\n")
    assert "except for its model" in good("train", "--resume", "run", folder=tmp_path)
    good("generate", "--model", "run", "--tokens", "3", folder=tmp_path)


def test_a_model_that_embeds_nothing_is_named(home: Path) -> None:
    for model in ("bot", "bot/model.mgrd"):
        line = refused("embed", "--model", model, "hello", folder=home)
        assert f"{model} is a model of minigrad train, not a BERT-type model; minigrad gen" in line


def test_unknown_characters_are_counted_and_may_be_left_out(home: Path) -> None:
    (home / "other.txt").write_text("you: hi\nbot: hello\nyou: h\u00e9h\u00e9 Z\nbot: well\n" * 3)
    error = refused("eval", "--model", "bot", "--text", "other.txt", folder=home)
    assert "has characters that the model does not know: 9 in all, 2 different; " in error
    assert "the first is '\u00e9' in line 3" in error and "--skip-unknown" in error
    done = called("eval", "--model", "bot", "--text", "other.txt", "--skip-unknown", folder=home)
    assert done.returncode == 0 and "unknown characters  9, left out" in done.stdout


def test_a_model_of_a_text_without_line_ends_writes_without_a_prompt(tmp_path: Path) -> None:
    (tmp_path / "line.txt").write_text("abc abd abe " * 40)
    good("train", "--text", "line.txt", "--steps", "2", "--out", "run", *SMALL, folder=tmp_path)
    done = called("generate", "--model", "run", "--tokens", "3", folder=tmp_path)
    assert done.returncode == 0 and len(done.stdout) == 5 and done.stdout[0] == " "


def test_files_that_are_left_out_are_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "good.txt").write_text("good text, good text. " * 30)
    for name in ("a.txt", "b.txt", "c.txt", "d.txt"):
        (tmp_path / "notes" / name).write_bytes(b"caf\xe9")
    options = ("--steps", "1", "--sample", "0", *SMALL)
    output = good("train", "--text", "notes", *options, folder=tmp_path)
    assert "skipped  4 files that are not UTF-8 text: notes/a.txt, notes/b.txt" in output
    assert "notes/c.txt and 1 more" in output and "; text 0.0" in output
    done = called("eval", "--model", "runs/gpt", "--text", "notes", "--json", folder=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["characters"] == 660
    assert "skipped  4 files that are not UTF-8 text: notes/a.txt" in done.stderr


def test_a_run_is_resumed_from_another_folder(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("abc abd abe " * 40)
    begin = ("train", "--text", "text.txt", "--steps", "3", "--sample", "0", "--out", "runs/a")
    good(*begin, *SMALL, folder=tmp_path)
    elsewhere = tmp_path / "runs"
    more = ("train", "--resume", "a", "--steps", "4", "--accept", "steps", "--sample", "0")
    assert "resuming from" in good(*more, folder=elsewhere)
    shutil.move(tmp_path / "text.txt", tmp_path / "moved.txt")
    more = ("train", "--resume", "a", "--steps", "5", "--accept", "steps")
    assert "was text.txt, which is not here" in refused(*more, folder=elsewhere)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("train", "--n-layers", "3"), "did you mean --n-layer?"),
        (("train", "--n-embed=3"), "did you mean --n-embd?"),
        (("generate", "--model", "x", "--temprature", "1"), "did you mean --temperature?"),
        (("train", "--zzz"), "unrecognized arguments: --zzz; see minigrad train --help"),
        (("inspect", "empty"), "empty is a folder without a model.mgrd"),
    ],
)
def test_a_mistake_gets_a_suggestion(tmp_path: Path, words: tuple[str, ...], expected: str) -> None:
    (tmp_path / "empty").mkdir()
    assert expected in refused(*words, folder=tmp_path)


def test_help_in_every_way_people_ask_for_it(tmp_path: Path) -> None:
    whole = called("--help", folder=tmp_path)
    assert whole.returncode == 0 and "let a trained model write" in whole.stdout
    alone = called(folder=tmp_path)
    assert (alone.returncode, alone.stderr) == (0, "") and alone.stdout == whole.stdout
    assert called("help", folder=tmp_path).stdout == whole.stdout
    train = called("help", "train", folder=tmp_path)
    assert (
        train.returncode == 0 and train.stdout == called("train", "--help", folder=tmp_path).stdout
    )
    assert "bpe (pieces of words)" in " ".join(train.stdout.split())


def test_a_folder_stands_for_its_model(home: Path) -> None:
    by_folder = called("inspect", "bot", folder=home)
    assert by_folder.stdout == called("inspect", "bot/model.mgrd", folder=home).stdout
    assert by_folder.returncode == 0
    assert good("diff", "bot", "bot/model.mgrd", folder=home).startswith("no difference")
    assert "tensors" in good("convert", "bot", "bot.npz", folder=home)
    differences = called("diff", "bot.npz", "bot", folder=home).stdout.splitlines()
    assert {line.partition(".")[0] for line in differences} == {"meta"}  # npz has none


def test_plot_finds_the_run_of_a_checkpoint(home: Path) -> None:
    pytest.importorskip("matplotlib")
    path = max((home / "bot" / "checkpoints").glob("step-*.mgrd")).relative_to(home)
    assert "drawn in bot/plot.svg" in good("plot", str(path), folder=home)


def test_plain_progress_has_a_line_within_seconds_and_every_half_minute() -> None:
    clock, out = [0.0], io.StringIO()
    display = PlainProgress(out, lambda: clock[0])
    seen = []
    for step in range(1, 200):
        clock[0] += 1.0
        display.show(Report(step, 100_000, 1.0, 1.0, 0.1, 10.0, 100.0, None))
        seen.append(out.getvalue().count("\n"))
    assert seen[1] == 0 and seen[2] == 1 and seen[31] == 1 and seen[32] == 2 and seen[-1] == 7


def test_large_texts_for_bpe_are_announced_before_they_are_learned(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one two three four five. " * 50_000)
    options = ("--tokenizer", "bpe", "--vocab-size", "270", "--steps", "1", "--sample", "0")
    done = run("train", "--text", "text.txt", *options, *SMALL, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tokens   learning 270 tokens from 1,250,000 characters ...")
    assert os.path.exists(tmp_path / "runs" / "gpt" / "model.mgrd")


def test_a_long_validation_says_how_far_it_is() -> None:
    data = TextData(np.arange(1000) % 7, block_size=8, batch_size=2)
    said, clock = list[str](), iter(range(1000))
    watched = WatchedData(data, said.append, lambda: next(clock))
    seen = [(x.tolist(), y.tolist()) for x, y in watched.validation()]
    assert seen == [(x.tolist(), y.tolist()) for x, y in data.validation()]
    assert said[0] == "validation 32% done" and len(said) == 2
    assert [x.tolist() for x in watched.batch(3)] == [x.tolist() for x in data.batch(3)]
    said.clear()
    assert list(WatchedData(data, said.append).validation()) and not said


def test_a_validation_ends_at_the_next_batch_when_it_is_to_stop() -> None:
    data, stop = TextData(np.arange(1000) % 7, block_size=8, batch_size=2), iter((False, True))
    batches = WatchedData(data, print, stop=lambda: next(stop)).validation()
    next(batches)
    with pytest.raises(terminal.ValidationStopped):
        next(batches)


def test_compiling_the_validation_is_said_if_it_takes_long(monkeypatch) -> None:
    monkeypatch.setattr(terminal, "_SLOW", 0.01)
    said = list[str]()
    watched = WatchedData(TextData(np.arange(1000) % 7, block_size=8, batch_size=2), said.append)
    watched.compiles = True
    for compiling in (["jit      compiling the validation ..."], []):
        for i, _ in enumerate(watched.validation()):
            time.sleep(0.1 if i == 0 else 0)
        assert said == compiling
        said.clear()
