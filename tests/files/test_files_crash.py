"""A short run of the crash test: kills, failing system calls, full disks."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_run_killed_twice_ends_like_one_that_was_not_and_faults_leave_a_good_checkpoint():
    command = [sys.executable, str(ROOT / "tools" / "crash_test.py"), "--kills", "2", "--seed", "3"]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "2 SIGKILLs" in done.stdout and "Full disks survived" in done.stdout
