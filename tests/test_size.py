"""The package does not grow beyond the ceilings of tools/size.py."""

import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).resolve().parent.parent / "tools" / "size.py"


def test_every_file_belongs_to_a_room_and_none_has_grown_past_its_ceiling() -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "in no room" not in done.stdout, done.stdout
