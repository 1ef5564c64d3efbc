"""README.md, held to its word: its programs run, its commands work from a fresh copy, its figures
are right.
"""

import doctest
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.processes import called

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The command lines of all shell blocks, without comments and with continued lines joined."""
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [
        line.split(" #")[0].strip() for line in lines if line.strip() and not line.startswith("#")
    ]


TRAIN = next(line for line in commands() if "minigrad train" in line and "venv" in line.split()[2])
TEST = next(line for line in commands() if line.endswith("pytest"))


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_the_python_blocks_give_the_output_that_stands_there() -> None:
    names: dict[str, object] = {}
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for number, block in enumerate(blocks("python")):
        assert ">>> " in block, "a block that nothing would check"
        test = doctest.DocTestParser().get_doctest(
            block, names, f"README.md, Python block {number}", "README.md", 0
        )
        runner.run(test, clear_globs=False)
        names = test.globs
    assert runner.summarize(verbose=False).failed == 0
    assert runner.tries > 15


def test_the_first_screen_is_a_sentence_a_program_and_a_picture() -> None:
    screen = "\n".join(README.splitlines()[:40])
    assert README.startswith("# minigrad\n")
    assert screen.index("```python") < screen.index("```text")


@pytest.fixture(scope="module")
def first_command(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A fresh copy of the checkout in which the first command has run, and what it printed."""
    folder = tmp_path_factory.mktemp("fresh") / "minigrad"
    made = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs")
    shutil.copytree(ROOT, folder, ignore=made)
    return folder, shell(TRAIN + " --steps 3 --n-layer 1 --n-embd 32", folder)


def test_the_first_command_installs_trains_and_prints_a_sample_with_numpy_and_msgpack_alone(
    first_command: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = first_command
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a sample:" in done.stdout and (folder / "runs" / "gpt" / "model.mgrd").is_file()
    packages = shell(".venv/bin/pip list --format freeze", folder).stdout
    assert {line.split("==")[0] for line in packages.split()} - {"pip", "setuptools"} == {
        "minigrad",
        "msgpack",
        "numpy",
    }


def test_the_commands_after_it_work_on_what_it_made(
    first_command: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    followers = [line for line in commands() if line.startswith(".venv/bin/minigrad generate")]
    assert followers
    for line in followers:
        done = shell(line, first_command[0])
        assert done.returncode == 0 and len(done.stdout) > 20, line + done.stderr


def test_the_test_command_is_the_one_that_ci_runs() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    for part in TEST.replace(".venv", ".ci/venv").split(" && "):
        assert all(word in script for word in part.split() if word != "-q"), part
    last = script.strip().splitlines()[-1]
    # In two processes
    assert last == ".ci/venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder"


def test_every_command_is_valid_shell() -> None:
    for line in commands():
        subprocess.run(["bash", "-n", "-c", line], check=True)


def test_every_option_that_the_commands_use_exists() -> None:
    for line in commands():
        if found := re.search(r"minigrad (train|generate)\b(.*)", line):
            help_text = called(found[1], "--help", folder=ROOT).stdout
            assert all(
                f"  {option} " in help_text for option in re.findall(r"--[a-z-]+", found[2])
            ), line


def test_the_stated_size_is_right() -> None:
    stated = re.search(r"Fewer than ([\d,]+) lines", README)
    lines = sum(len(path.read_text().splitlines()) for path in (ROOT / "minigrad").rglob("*.py"))
    assert stated and 1 <= int(stated[1].replace(",", "")) / lines < 2, lines


def test_every_path_it_names_exists() -> None:
    for path in re.findall(r"`([a-z_]+/[a-z_/.]*|docs/[a-z_.]+)`", README):
        assert (ROOT / path).exists() or path.startswith("runs/"), path
