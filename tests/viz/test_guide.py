"""docs/viz.md: its program and its commands, run as they stand."""

from __future__ import annotations

import re
import shlex
import sys
import xml.etree.ElementTree as ET
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.processes import finished

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "viz.md").read_text()


def run(*arguments: str, folder: Path) -> str:
    done = finished([sys.executable, "-W", "error", *arguments], folder)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


needed = pytest.mark.skipif(
    not (find_spec("matplotlib") and find_spec("tensorboardX")),
    reason="needs matplotlib and tensorboardX",
)


def blocks(language: str) -> str:
    return "\n".join(re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL))


@needed
def test_the_program_draws_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "guide.py").write_text(blocks("python"))
    output = run("guide.py", folder=tmp_path)
    assert re.search(r"^times +60 +\d\.\d{4} +\d\.\d{4} +\d+ ", output, flags=re.MULTILINE)
    assert "2 × TransformerBlock" in output and "h.1.attn, head 0" in output
    for name in ("curves.svg", "attention.svg"):
        assert ET.parse(tmp_path / name).getroot().tag.endswith("svg")
    assert len(list((tmp_path / "runs" / "times").iterdir())) == 2


@needed
def test_the_commands_work_on_a_run(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(
        "import this, and import that; from here import everything.\n" * 40
    )
    run(
        "-m",
        "minigrad",
        "train",
        "--text",
        "text.txt",
        "--out",
        "runs/gpt",
        "--steps",
        "30",
        "--eval-interval",
        "10",
        "--n-layer",
        "2",
        "--n-head",
        "2",
        "--n-embd",
        "16",
        "--block-size",
        "16",
        "--sample",
        "0",
        folder=tmp_path,
    )
    commands = [shlex.split(line, comments=True) for line in blocks("bash").splitlines() if line]
    output = "".join(run("-m", *command, folder=tmp_path) for command in commands)
    assert (
        re.search(r"^gpt +30 +\d\.\d{4} ", output, flags=re.MULTILINE)
        and "FLOPs/token" in output
        and "h.1.attn, head 0" in output
    )
    for made in ("runs/gpt/plot.svg", "loss.svg", "attention.svg", "logs/gpt"):
        assert (tmp_path / made).exists(), made
