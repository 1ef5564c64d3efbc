"""docs/guide/: the commands and programs of every page, run in the order in which they stand, with
runs made short.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import called

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "guide"
PAGES = sorted(path.stem for path in GUIDE.glob("*.md") if path.stem != "README")
NOTES = "It was the best of times, it was the worst of times.\n" * 40
NEW = "for a better time, wait. I was there first.\n" * 40
# `minigrad` as the pages call it. Sizes and steps are part of the prose; here only that the command
# works is at stake.
SHIM = """#!{python}
import sys
from minigrad.cli import main
sizes = {{"--steps": "40", "--n-layer": "1", "--n-head": "2", "--n-embd": "16", "--block-size": "16", "--batch-size": "4",
         "--eval-interval": "20", "--sample": "20"}}
given = sys.argv[1:]
if given[0] == "train":
    kept = [word for i, word in enumerate(given) if word not in sizes and (i == 0 or given[i - 1] not in sizes)]
    given = [*kept, *((word for pair in sizes.items() for word in pair) if "--resume" not in given else ("--steps", "60"))]
sys.exit(main(given))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts, a command, and a model."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text(NOTES)
    (folder / "held_out.txt").write_text("the worst of times\n")
    (folder / "new.txt").write_text(NEW)
    (folder / "bin").mkdir()
    (folder / "bin" / "minigrad").write_text(SHIM.format(python=sys.executable))
    (folder / "bin" / "minigrad").chmod(0o755)
    bash("minigrad train --text notes/ --out runs/notes", folder)
    return folder


def bash(script: str, folder: Path) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONUTF8": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    environment["PATH"] = f"{folder}/bin:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_works_as_it_stands(home: Path, page: str) -> None:
    text = (GUIDE / f"{page}.md").read_text()
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert blocks and len(text.splitlines()) <= 90
    program = ""
    for language, block in blocks:
        if language == "python":
            program += block  # a program goes on in the next block of the page
            (home / f"{page}.py").write_text(program)
        if language == "bash" and program:
            bash(f"{sys.executable} -W error {page}.py", home)
            program = ""
        if language == "bash":
            if page == "train" and "minigrad train " in block and "runs/notes" in block:
                block = block.replace(
                    "--out runs/notes", "--out runs/notes --overwrite"
                )  # the fixture's model
            block = block.replace(
                "steps = 200\nn_embd = 32\n",
                "steps = 40\nn_embd = 16\nn_head = 2\nblock_size = 16\n",
            )  # the shim's, for a sweep
            bash(block, home)
    if program:
        assert bash(f"{sys.executable} -W error {page}.py", home) or page == "resume"


@pytest.mark.parametrize("page", [*PAGES, "README"])
def test_links_lead_somewhere(page: str) -> None:
    text = (GUIDE / f"{page}.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert (GUIDE / link).is_file(), link
    for path in re.findall(r"`((?:examples|docs|tools)/[\w/.]+)`", text):
        assert (ROOT / path).is_file(), path


def test_every_page_is_in_the_list_and_every_option_on_them_exists() -> None:
    listed = (GUIDE / "README.md").read_text()
    assert all(f"({page}.md)" in listed for page in PAGES)
    texts = "".join((GUIDE / f"{page}.md").read_text() for page in PAGES)
    used = {
        (command, option)
        for line in texts.splitlines()
        for command in re.findall(r"minigrad (\w+)", line)[:1]
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)
    }
    helps = {command: called(command, "--help", folder=ROOT).stdout for command, _ in used}
    assert [pair for pair in used if not re.search(rf"{pair[1]}\b", helps[pair[0]])] == []
