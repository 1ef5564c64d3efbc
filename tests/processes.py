"""The command `minigrad` as a real process, in which a warning is an error."""

import sys


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "minigrad", *arguments]
