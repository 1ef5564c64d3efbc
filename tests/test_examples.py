"""The examples, run as a reader would run them."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(name: str, *arguments: str) -> str:
    call = [sys.executable, "-W", "error", f"examples/{name}.py", *arguments]
    done = subprocess.run(
        call,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_train_gpt_beats_the_table_of_pairs_on_a_text_of_its_own(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{a} plus {b} is {a + b}. " for a in range(30) for b in range(30)))
    output = run("train_gpt", str(text), "150")
    found = re.search(
        r"validation (\d\.\d+) nats per character; a table of pairs has (\d\.\d+)", output
    )
    assert found and float(found[1]) < 0.7 * float(found[2]), output


def test_train_gpt_fits_on_a_page() -> None:
    assert len((ROOT / "examples" / "train_gpt.py").read_text().splitlines()) <= 60


def test_the_tour_makes_the_stops_of_the_reading_path() -> None:
    output = run("tour")
    page = (ROOT / "docs" / "reading.md").read_text()
    stops = re.findall(r"^(\d)\. (\S+)$", output, flags=re.MULTILINE)
    assert [int(n) for n, _ in stops] == [int(n) for n in re.findall(r"^## (\d)\.", page, re.M)]
    assert all(f"`{place}" in page for _, place in stops)
    assert "the door ran" in output and "it learned to count: 0 1 2 -> [3, 4, 5, 6]" in output
