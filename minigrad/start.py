"""What comes before the imports: what launchers tell a process; and Ctrl-C while the command
`minigrad` is still importing numpy, which is a quiet end with exit code 130, as it is later on.

Imported before all else. In every other program it handles nothing.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

# What MPICH's and Intel's mpiexec, Open MPI's mpirun and Slurm's srun tell a process
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")


def launched() -> int:
    """Return the number of processes that a launcher has started, 1 without one."""
    return max(int(os.environ.get(name) or 1) for name in SIZES)


def end_by_sigint() -> None:
    """End this process by a signal. A launcher ends the other processes then; the exit code of one
    that is not yet connected to it tells it nothing, and the others wait forever.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


def _is_the_command() -> bool:
    name = os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else ""
    return name == "minigrad" or (name == "-m" and "minigrad" in sys.orig_argv)


def _end(number: int, frame: FrameType | None) -> None:
    if launched() > 1:
        end_by_sigint()
    os._exit(128 + number)


def hand_over() -> None:
    """Restore Python's own handler: from here on KeyboardInterrupt is caught."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if _is_the_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)
