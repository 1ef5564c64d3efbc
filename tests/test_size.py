"""The package does not grow beyond the ceilings of tools/size.py."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools import size

TOOL = Path(__file__).resolve().parent.parent / "tools" / "size.py"


def test_every_file_belongs_to_a_room_and_none_has_grown_past_its_ceiling() -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "in no room" not in done.stdout, done.stdout


def test_a_room_that_has_grown_is_named_with_its_ceiling(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(size.CEILINGS, "core", 1234)
    monkeypatch.setattr("sys.argv", ["size.py", "--check"])
    assert size.main() == 1
    assert ", over the ceiling of 1,234 in tools/size.py\n" in capsys.readouterr().out
