"""Ctrl-C and SIGTERM while something runs that should not be torn apart."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any


class Interruption:
    """Ctrl-C and SIGTERM as a wish to stop after the step, while this is open as a context; a
    second one interrupts at once.

    True once there was one; `exit_code` is then 128 + the signal's number, as shells have it.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal; 0 if there was none."""
        return 128 + self.number if self.number else 0

    def __bool__(self) -> bool:
        return self.number != 0

    def __enter__(self) -> Interruption:
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            raise KeyboardInterrupt
        self.number = number
