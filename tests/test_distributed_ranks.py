"""Several ranks as real MPI processes: the same bits on any number of them, and one end for all."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minigrad.files import load_checkpoint
from tools import ranks as tool

ROOT = Path(__file__).parents[1]
try:
    MPIEXEC, ENVIRONMENT = tool.launcher()
except FileNotFoundError:
    pytest.skip("needs mpi4py and mpich", allow_module_level=True)

MODEL = """--text text.txt --n-layer 1 --n-head 2 --n-embd 16 --block-size 16 --batch-size 8 --seed
    3 --dropout 0.2 --sample 0 --eval-interval 100 --save-interval 5 --parts 4"""
RUN = [*MODEL.split(), "--steps", "600"]
LIMIT = 5.0  # seconds after which no rank may be left


def program(ranks: int, *arguments: str) -> list[str]:
    start = [*MPIEXEC, "-n", str(ranks)] if ranks else []
    return [*start, sys.executable, "-W", "error", "-m", "tests.ranks", *arguments]


def ended(call: list[str], folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        call, capture_output=True, text=True, env=ENVIRONMENT, cwd=folder, timeout=300
    )


def result(ranks: int, *arguments: str) -> Any:
    """What rank 0 of a program of tests/ranks.py prints."""
    done = ended(program(ranks, *arguments))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def train(folder: Path, ranks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return ended(tool.train(ranks, *arguments), folder)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, and a run in a single process."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "text.txt").write_text("It was the best of times, it was the worst of times.\n" * 40)
    done = train(folder, 0, *RUN, "--out", "whole")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def running(home: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Any, Path]]:
    """A run of four ranks that has written its first checkpoints and goes on."""
    out = home / re.sub(r"\W", "-", request.node.name)
    process = subprocess.Popen(
        tool.train(4, *RUN, "--out", out.name),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        cwd=home,
    )
    deadline = time.monotonic() + 120
    while not any((out / "checkpoints").glob("step-*.mgrd")):  # the first ones go again
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    yield process, out
    process.kill()
    process.wait()


def assert_it_goes_on(home: Path, out: Path, ranks: int) -> None:
    """Resume a run that was stopped: every checkpoint is good, and the model at the end is that of
    the run that nothing disturbed.
    """
    for path in (out / "checkpoints").glob("step-*.mgrd"):
        load_checkpoint(path)
    done = train(home, ranks, "--resume", out.name)
    assert done.returncode == 0, done.stderr
    assert tool.weights(out) == tool.weights(home / "whole")


def test_sums_over_ranks_have_the_bits_of_the_tree() -> None:
    for n in (2, 3, 4):
        found = result(n, "sums")
        assert all(found["good"]) and found["size"] == n and found["largest"] == n - 1
        assert found["said"] == {"rank": 0}


def test_one_two_and_four_ranks_end_with_the_same_bits() -> None:
    alone = result(0, "trained")
    assert len({bits for bits, _, _ in alone.values()}) == len(alone), "every setting matters"
    assert result(2, "trained") == alone
    assert result(4, "trained") == alone


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_command_gives_the_same_model_on_any_ranks_and_says_what_it_does(
    home: Path, ranks: int
) -> None:
    out = home / f"on-{ranks}"
    done = train(home, ranks, *RUN, "--out", out.name)
    assert done.returncode == 0 and done.stderr == ""
    assert re.match(rf"ranks    {ranks}, each with \d+ threads? of this machine\n", done.stdout)
    assert done.stdout.count("step 600/600") == 1
    assert tool.weights(out) == tool.weights(home / "whole")
    lines = (out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 601))


def test_the_defaults_fit_any_number_of_ranks(home: Path) -> None:
    for ranks, size in ((2, "tiny"), (4, "small"), (5, "tiny")):
        out = f"defaults-{ranks}"
        facts = ["--text", "text.txt", "--steps", "1", "--sample", "0", "--no-jit"]
        done = train(home, ranks, *facts, "--size", size, "--out", out)
        assert done.returncode == 0, done.stderr


def test_a_rank_that_is_killed_ends_all_and_the_run_goes_on_with_one(
    home: Path, running: tuple[Any, Path]
) -> None:
    process, out = running
    ranks = tool.rank_processes(process.pid)
    assert sorted(ranks) == [0, 1, 2, 3]
    os.kill(ranks[2], signal.SIGKILL)
    start = time.monotonic()
    said = "".join(process.communicate(timeout=60))
    assert time.monotonic() - start < LIMIT and process.returncode != 0
    assert "Killed (signal 9)" in said
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks.values())
    assert_it_goes_on(home, out, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_launcher_saves_once(
    home: Path, running: tuple[Any, Path], number: int
) -> None:
    process, out = running
    process.send_signal(number)
    said, complaints = process.communicate(timeout=60)
    assert process.returncode == 128 + number, complaints
    (step,) = re.findall(r"^stopped after step (\d+) of 600; saved", said, flags=re.MULTILINE)
    last = sorted((out / "checkpoints").glob("step-*.mgrd"))[-1]
    assert last.name == f"step-{int(step):08d}.mgrd"
    assert_it_goes_on(home, out, 2)


def test_a_rank_that_raises_ends_all_with_one_line() -> None:
    done = ended(program(2, "raising"))
    end = time.time()
    assert done.returncode == 1
    lines = [x for x in done.stderr.splitlines() if x.startswith("minigrad: rank")]
    assert lines == ["minigrad: rank 1 of 2 failed: ValueError: the disk is on fire"]
    assert end - json.loads(done.stdout.splitlines()[-1])["raised"] < LIMIT


def test_a_mistake_that_all_ranks_make_is_said_once(home: Path) -> None:
    done = train(home, 3, *RUN, "--out", "three")
    assert done.returncode == 2 and done.stderr.count("minigrad train: error") == 1
    assert "parts must be the number of ranks, 3, times a power of two, got 4" in done.stderr
    usage = train(home, 3, *RUN, "--lr", "-1")
    assert usage.returncode == 2 and usage.stderr.count("\n") == 1
    assert usage.stderr.startswith("minigrad train: error: argument --lr: '-1'")
    again = train(home, 2, *RUN, "--out", "whole")
    assert again.returncode == 2 and again.stderr.count("holds a model already") == 1


def test_ranks_that_differ_are_refused_with_a_table(home: Path) -> None:
    one = tool.train(0, *RUN, "--out", "mixed")
    (home / "elsewhere").mkdir()
    (home / "elsewhere" / "text.txt").write_text("It was the worst of times. " * 80)
    for place, more, row in (
        (home, ["--lr", "0.5"], r"^lr +\| None +\| 0\.5$"),
        (home, ["--stop-at", "5"], r"^stop_at +\| None +\| 5$"),
        (home, ["--minutes", "5"], r"^minutes +\| None +\| 5\.0$"),
        (home / "elsewhere", [], r"^sha256 +\| [0-9a-f]{64} \| [0-9a-f]{64}$"),
    ):
        other = ["-n", "1", "-wdir", str(place), *one, *more]
        both = [*MPIEXEC, "-n", "1", *one, ":", *other]
        done = ended(both, home)
        assert done.returncode == 2
        assert re.search(row, done.stderr, flags=re.MULTILINE), done.stderr
        assert "ranks 1 differ from rank 0 in" in done.stderr
    assert not (home / "mixed" / "model.mgrd").exists()


def test_a_mistake_that_one_rank_makes_ends_all(home: Path) -> None:
    one = tool.train(0, *RUN, "--out", "mixed")
    both = [*MPIEXEC, "-n", "1", *one, ":", "-n", "1", *one, "--lr", "-1"]
    done = ended(both, home)
    assert done.returncode == 2
    (said,) = [x for x in done.stderr.splitlines() if x.startswith("minigrad")]
    assert said.startswith("minigrad: rank 1 of 2 failed: ConfigError: minigrad train: argument")


@pytest.mark.parametrize("error", ["ValueError", "KeyboardInterrupt"])
def test_a_rank_that_ends_before_it_is_connected_ends_all(error: str) -> None:
    done = ended(program(2, "early", error))
    assert done.returncode != 0
    said = "minigrad: rank 1 of 2 failed: ValueError: not today"
    assert (said in done.stderr) == (error == "ValueError")


def test_ctrl_c_during_the_imports_of_one_rank_ends_all(home: Path) -> None:
    """Rank 0 waits for rank 1 to connect."""
    sentence = "import sys, os; sys.argv = ['minigrad']; import minigrad; os.kill(os.getpid(), 2)"
    both = [*MPIEXEC, "-n", "1", *tool.train(0, *RUN, "--out", "mixed")]
    both += [":", "-n", "1", sys.executable, "-c", sentence]
    done = ended(both, home)
    assert done.returncode != 0


def test_ranks_measure_equally_many_steps() -> None:
    assert result(2, "measured")


def test_the_batch_that_overflowed_is_written_before_all_end(tmp_path: Path) -> None:
    done = ended(program(2, "overflowing", str(tmp_path)))
    assert done.returncode and done.stderr.count("NotFiniteError") == 1
    load_checkpoint(tmp_path / "not-finite-00000001.mgrd")


@pytest.mark.parametrize("what", ["weights", "buffers", "drift"])
def test_ranks_with_other_weights_are_refused(what: str) -> None:
    done = ended(program(2, "different", what))
    assert done.returncode != 0
    assert re.search(r"^weights +\| [0-9a-f]{8} +\| [0-9a-f]{8}$", done.stderr, flags=re.MULTILINE)


def test_ranks_share_the_cores() -> None:
    found = result(2, "shared")
    assert found["threads"] == max(found["cores"] // 2, 1)
    given = {**ENVIRONMENT, "MINIGRAD_THREADS": "0"}  # a thread per core, of the rank's share
    call = program(2, "shared")
    done = subprocess.run(call, env=given, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == found


def test_the_example_is_a_loop_of_its_own_with_the_same_bits() -> None:
    digests = set()
    for ranks in (0, 2):
        start = [*MPIEXEC, "-n", str(ranks)] if ranks else []
        call = [*start, sys.executable, "-W", "error", "examples/ranks.py", "4"]
        done = ended(call)
        assert done.returncode == 0, done.stderr
        digests.add(re.findall(r"weights ([0-9a-f]{16})", done.stdout)[0])
    assert len(digests) == 1
