"""The command `minigrad` as a real process, in which a warning is an error, and as a call in this
one, where the process is not what is tested.
"""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

from minigrad.cli import main

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "COLUMNS": "100"}


def finished(
    call: list[str], folder: Path | None, given: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """A process that has ended, with `given` as its standard input."""
    return subprocess.run(
        call,
        capture_output=True,
        text=True,
        env=ENVIRONMENT | environment,
        cwd=folder,
        timeout=600,
        input=given,
    )


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "minigrad", *arguments]


def called(*arguments: str, folder: Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """What `minigrad arguments...` prints in `folder`, with `given` as standard input, without a
    new process, which would spend most of its time on importing numpy. An exception fails the test,
    as a traceback would.
    """
    out, err = (
        io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)
    )
    before, stdin = Path.cwd(), sys.stdin
    os.chdir(folder)
    sys.stdin = io.TextIOWrapper(io.BytesIO(given.encode()), encoding="utf-8")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(arguments)
            except SystemExit as end:
                code = int(end.code or 0)
    finally:
        os.chdir(before)
        sys.stdin = stdin
    said, complaints = (stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(arguments, code, said, complaints)
