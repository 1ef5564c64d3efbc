"""The checkpoints of a run in their folder: which to keep, which is the latest good one, and who
may write.

    with CheckpointFolder("runs/a") as folder:
        last = folder.load_latest()                     # None in a new run
        ...
        folder.save(step, weights, state, metric=val_loss)

There is no pointer file that could be wrong: the latest is the highest step that validates, the
best the lowest metric in the headers.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import re
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from minigrad.arguments import as_int
from minigrad.errors import ConfigError, FormatError, LockedError, SaveError
from minigrad.files.checkpoints import Checkpoint, load_checkpoint, save_checkpoint, snapshot
from minigrad.files.reader import peek, verify

_STEP = re.compile(r"step-(\d{8,})\.mgrd")
_LEFTOVER = re.compile(r"\.minigrad-\d+-[0-9a-f]+\.tmp")


class CheckpointFolder:
    """A folder of checkpoints `step-00001200.mgrd`, for one trainer at a time.

    keep: how many of the last ones stay; the one with the lowest metric stays besides, and so does
        the last that is whole, if none of these is.
    background: `save` copies the arrays and returns; the file is written by a thread. If that
        fails, the next `save`, `check` or `close` raises it.

    Used as a context manager, which holds the folder's lock. Raises LockedError if another process
    holds it, ConfigError for keep < 1.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, keep: int = 3, background: bool = False
    ) -> None:
        keep = as_int("CheckpointFolder", "keep", keep)  # at least the last checkpoint must stay
        self.folder, self.keep, self.background = Path(folder), keep, background
        self.damaged: list[FormatError] = []
        # Files that were read to their last byte, and what the system said of them then
        self._whole: dict[Path, tuple[int, ...]] = {}
        self._lock: int | None = None
        self._saving: Future[None] | None = None

    def __repr__(self) -> str:
        steps = [step for step, _ in self.steps()]
        return f"CheckpointFolder({str(self.folder)!r}, keep={self.keep}, steps={steps})"

    # ---- the lock

    def __enter__(self) -> CheckpointFolder:
        flags, place = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, str(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.folder / "lock", flags, 0o666)
            try:
                self._take(fd)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            problem = f"{place}: cannot be locked: {error.strerror}"
            facts: dict[str, Any] = {"phase": "lock", "path": place, "errno": error.errno}
            raise SaveError("CheckpointFolder", problem, **facts) from error
        self._lock = fd
        return self

    def _take(self, fd: int) -> None:
        try:
            # The system drops this lock when the process ends, however it ends; the text in the
            # file is for people.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(fd, 200, 0).decode(errors="replace").strip()
            problem = f"{self.folder} is in use: {owner}"
            hint = "wait for it, or give another folder"
            raise LockedError("CheckpointFolder", problem, got=owner, hint=hint) from None
        with contextlib.suppress(OSError):  # a full disk must not prevent a lock
            os.truncate(fd, 0)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            os.write(fd, f"pid {os.getpid()}, since {since}\n".encode())
        sweep(self.folder)

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self._wait()
            if kind is None:
                self.check()
        finally:
            if self._lock is not None:
                with contextlib.suppress(OSError):
                    os.truncate(self._lock, 0)
                os.close(self._lock)
                self._lock = None

    # ---- saving

    def save(
        self,
        step: int,
        weights: Mapping[str, Any],
        state: Mapping[str, Any],
        *,
        metric: float | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the checkpoint of a step, then remove those that need not stay; returns its path.

        metric: the lower the better. It and the step go into the meta. Raises SaveError, also that
            of an earlier background save.
        """
        if self._lock is None:
            problem = "the folder is not locked"
            raise LockedError("CheckpointFolder.save", problem, hint="use it in a with statement")
        step = as_int("CheckpointFolder.save", "step", step, 0)
        self._wait()
        self.check()
        path = self.folder / f"step-{step:08d}.mgrd"
        try:
            metric = None if metric is None else float(metric)
        except (TypeError, ValueError):
            problem = f"metric must be a number or None, got {metric!r}"
            raise ConfigError("CheckpointFolder.save", problem, metric, "a number") from None
        full = {**(meta or {}), "step": step, "metric": metric}
        if self.background:
            (weights, state), pool = snapshot((weights, state)), ThreadPoolExecutor(1)
            self._saving = pool.submit(self._write, path, weights, state, full)
            pool.shutdown(wait=False)  # after this save
        else:
            self._write(path, weights, state, full)
        return path

    def check(self) -> None:
        """Raise the error of a failed save, once."""
        saving = self._saving
        if saving is not None and saving.done():
            self._saving = None
            saving.result()

    def _wait(self) -> None:
        wait([self._saving] if self._saving is not None else [])

    def _write(self, path: Path, weights: Any, state: Any, meta: dict[str, Any]) -> None:
        save_checkpoint(path, weights, state, meta=meta)
        self._prune(path)

    def _prune(self, written: Path) -> None:
        """Remove all but the last ones, the best, and the one just written. Files that are not good
        stay, and are not counted.
        """
        good = [path for _, path in self.steps() if _metric(path) is not None]
        stay = {*good[-self.keep :], written, self.best(), self._last_whole(good)}
        for path in good:
            if path not in stay:
                # The new one is safe; an old one too many is not a reason to stop a run.
                with contextlib.suppress(OSError):
                    path.unlink()

    def _last_whole(self, good: list[Path]) -> Path | None:
        """One of the last ones that is whole down to its SHA-256, else the last of all that is. A
        header can be good and its payload damaged.

        A file is read once: of `keep` new ones, one in the long run.
        """
        if len(good) <= self.keep:  # nothing is to go
            return None
        self._whole = {path: facts for path, facts in self._whole.items() if path in good}
        known = (path for path in good[-self.keep :] if self._whole.get(path) == _facts(path))
        return next(known, None) or next(filter(self._is_whole, reversed(good)), None)

    def _is_whole(self, path: Path) -> bool:
        facts = _facts(path)
        try:
            verify(path)
        except (FormatError, OSError):
            return False
        self._whole[path] = facts
        return True

    # ---- looking

    def steps(self) -> list[tuple[int, Path]]:
        """(step, path) of every checkpoint, good or not, in order."""
        with contextlib.suppress(FileNotFoundError):
            matches = [(_STEP.fullmatch(path.name), path) for path in self.folder.iterdir()]
            return sorted((int(match[1]), path) for match, path in matches if match)
        return []

    def best(self) -> Path | None:
        """The checkpoint with the lowest metric, by the headers; of equals the latest."""
        found = [(_metric(path), -step, path) for step, path in self.steps()]
        usable = [(m, step, path) for m, step, path in found if m is not None and m < math.inf]
        return min(usable)[2] if usable else None

    def load_latest(self) -> Checkpoint | None:
        """The checkpoint with the highest step that is whole, down to its SHA-256; None if there is
        none.

        What had to be passed over is in `damaged`.
        """
        self._wait()
        self.damaged = []
        for _, path in reversed(self.steps()):
            try:
                return load_checkpoint(path, verify=True)
            except FormatError as error:
                self.damaged.append(error)
        return None


def _facts(path: Path) -> tuple[int, ...]:
    """What changes when a file is written to or replaced; nothing if it is gone."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _metric(path: Path) -> float | None:
    """The metric in a checkpoint's header, infinity if it has none that is finite; None if the file
    is not good.
    """
    try:
        info = peek(path)
    except FormatError:
        return None
    metric = info.meta.get("metric")
    if info.kind != "checkpoint":
        return None
    return metric if type(metric) is float and math.isfinite(metric) else math.inf


def sweep(folder: Path) -> None:
    """Remove the temporaries of writers that were killed. For the holder of the folder's lock: no
    other process may be writing there.
    """
    for path in folder.iterdir():
        if _LEFTOVER.fullmatch(path.name):
            with contextlib.suppress(OSError):  # a folder of that name, or not ours to remove
                path.unlink()
