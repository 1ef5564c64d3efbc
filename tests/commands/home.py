"""Real processes, and calls where bad input is refused, for the tests of commands, and a model that
knows its text by heart.
"""

import subprocess
from pathlib import Path

from tests import processes
from tests.processes import called, command, finished

ROOT = Path(__file__).parents[2]
ENVIRONMENT = processes.ENVIRONMENT | {"TERM": "dumb"}
ENVIRONMENT |= {
    "OPENBLAS_NUM_THREADS": "1",
    "MINIGRAD_THREADS": "1",
}  # as a sweep has it: the last bits of a run depend on its threads
TEXT = "you: hi\nbot: hello\nyou: how are you\nbot: well\nyou: bye\nbot: see you soon\n\n"


def run(*arguments: str, folder: Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """The finished process of `minigrad arguments...`, with `given` as its standard input."""
    return finished(command(*arguments), folder, given, **ENVIRONMENT)


def good(*arguments: str, folder: Path, given: str = "") -> str:
    """The output of a call that must end well, without a word on stderr."""
    done = called(*arguments, folder=folder, given=given)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


def refused(*arguments: str, folder: Path) -> str:
    """The one line with which bad input is refused."""
    done = called(*arguments, folder=folder)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, (
        done.returncode,
        done.stdout,
        done.stderr,
    )
    assert done.stderr.startswith("minigrad") and ": error: " in done.stderr
    return done.stderr
