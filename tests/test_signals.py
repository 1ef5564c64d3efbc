"""The tests of Ctrl-C where the process that starts them ignores it, as after `nohup ... &`."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = (
    "tests/test_train_command.py::test_ctrl_c_while_numpy_is_imported_is_no_traceback",
    "tests/test_train.py::test_a_signal_is_a_wish_the_second_interrupts_and_handlers_come_back",
)


def test_the_tests_of_signals_pass_below_a_parent_that_ignores_them() -> None:
    call = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *TESTS]
    script = "trap '' INT TERM; exec \"$@\""
    done = subprocess.run(
        ["bash", "-c", script, "bash", *call],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout + done.stderr
