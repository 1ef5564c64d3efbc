"""Ctrl-C while the command `minigrad` is still importing numpy: a quiet end with exit code 130, as
it has later on.

Imported before all else. In every other program it does nothing.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def _is_the_command() -> bool:
    name = os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else ""
    return name == "minigrad" or (name == "-m" and "minigrad" in sys.orig_argv)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)


def hand_over() -> None:
    """Restore Python's own handler: from here on KeyboardInterrupt is caught."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if _is_the_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)
