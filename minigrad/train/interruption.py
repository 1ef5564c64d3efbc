"""Signals to stop while something runs that should not be torn apart."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from minigrad import distributed


class Interruption:
    """Ctrl-C, SIGTERM and the end of the terminal (SIGHUP, unless it is ignored, as by nohup) as a
    request to stop after the step, while this is open as a context; a second Ctrl-C or SIGTERM
    interrupts at once.

    True once there was one; `exit_code` is then 128 + the signal's number, as shells have it. Of
    several ranks, `poll` decides for all.
    """

    def __init__(self) -> None:
        self.number = self._caught = 0
        self._before: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal; 0 if there was none."""
        return 128 + self.number if self.number else 0

    def __bool__(self) -> bool:
        return self.number != 0

    def poll(self) -> bool:
        """True if any rank has caught a signal; all ranks call this after the same step."""
        self.number = distributed.largest(self._caught)
        return bool(self)

    def __enter__(self) -> Interruption:
        hangup = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []
        numbers = (signal.SIGINT, signal.SIGTERM, *hangup)
        self._before = {number: signal.signal(number, self.note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def note(self, number: int, _frame: FrameType | None = None) -> None:
        """Ask for a stop, as the signal of this number does."""
        if self._caught and number in (signal.SIGINT, signal.SIGTERM):
            raise KeyboardInterrupt
        self._caught = self._caught or number  # a shell and the system may both send SIGHUP
        self.number = self._caught if distributed.size() == 1 else self.number
