"""Writing a file so that it is there whole, or the old one is: the one way in which this library
writes files.

A temporary file in the same folder is written and flushed to the disk, and then renamed over the
target; then the folder is flushed. A crash, a full disk or an error at any moment leaves the old
file as it was.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from minigrad.errors import SaveError

Buffer = bytes | memoryview  # flat, of single bytes
Path = str | os.PathLike[str]
T = TypeVar("T")

TEMPORARY = ".minigrad-{pid}-{token}.tmp"
# What file systems answer that know no permissions, or cannot reserve: the file is written without
_UNSUPPORTED = {
    "set the mode": (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS),
    "reserve the space": (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS),
}
THREADED = 4 << 20  # below this many bytes a thread costs more than it saves
_SLICE = 16 << 20  # written at once; between two slices Python can handle a signal


def write_durably(
    path: Path,
    pieces: Iterable[Buffer],
    *,
    nbytes: int,
    last: Callable[[], Buffer] = bytes,
    call: str = "save",
) -> None:
    """Replace the file at `path` by the pieces and the last one, `nbytes` in all, or raise and
    leave it as it was.

    last: asked for when the disk has all others, so that a checksum can be computed while the disk
        works.
    Raises SaveError with the phase that failed, errno, the bytes needed and those free. A symbolic
    link stays one: its target is replaced. Two processes may write the same path; the last one
        wins, whole.
    """
    target, mode = _look_at(os.fsdecode(path), call, nbytes)
    folder = os.path.dirname(target)
    temporary = os.path.join(folder, TEMPORARY.format(pid=os.getpid(), token=os.urandom(6).hex()))

    def do(phase: str, action: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return action(*arguments)
        except OSError as error:
            if error.errno in _UNSUPPORTED.get(phase, ()):
                return None
            raise _failure(call, phase, target, nbytes, error) from error

    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = do("create the temporary", os.open, temporary, flags, 0o666)
    try:
        try:
            written = _fill(fd, pieces, nbytes, last, mode, do)
            if written != nbytes:
                problem = f"{target}: {written:,} bytes, not the {nbytes:,} announced"
                raise SaveError(call, problem, phase="write", path=target, needed=nbytes)
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(fd)
            raise
        do("close", os.close, fd)
        do("rename", os.replace, temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    do("flush the folder", sync_folder, folder)


def _fill(
    fd: int,
    pieces: Iterable[Buffer],
    nbytes: int,
    last: Callable[[], Buffer],
    mode: int | None,
    do: Callable[..., Any],
) -> int:
    """Write everything to an empty file and flush it; return the number of bytes."""
    if mode is not None:
        do("set the mode", os.fchmod, fd, mode)
    # A full disk is found before anything is written, where the file system can tell.
    if nbytes and hasattr(os, "posix_fallocate"):
        do("reserve the space", os.posix_fallocate, fd, 0, nbytes)
    written: int = sum(do("write", _write_all, fd, piece) for piece in pieces)
    if nbytes > _SLICE:
        do("flush", os.fsync, fd)
    written += do("write", _write_all, fd, last())
    do("flush", os.fsync, fd)
    return written


def sync_folder(folder: str) -> None:
    """Flush a folder's list of names to the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _look_at(path: str, call: str, nbytes: int) -> tuple[str, int | None]:
    """Where a path leads, and the permissions of the file that will be replaced there, which the
    new one gets.
    """
    try:
        if path.endswith(os.sep):
            raise IsADirectoryError(errno.EISDIR, "this is the name of a folder", path)
        path = os.path.realpath(path)
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise FileExistsError(errno.EEXIST, "it exists and is not a regular file", path)
        return path, stat.S_IMODE(status.st_mode)
    except (OSError, ValueError) as error:
        # Without an absolute path, it is the current folder that was removed.
        if isinstance(error, FileNotFoundError) and os.path.isabs(path):
            return path, None
        if isinstance(error, ValueError):  # of a path that cannot be one
            path, error = ascii(path), OSError(errno.EINVAL, str(error))
        raise _failure(call, "look at the target", path, nbytes, error) from error


def _write_all(fd: int, data: Buffer) -> int:
    """Write every byte, and return their number."""
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left[:_SLICE]) :]
    return len(data)


def _failure(call: str, phase: str, path: str, nbytes: int, error: OSError) -> SaveError:
    free = None
    with contextlib.suppress(OSError):
        disk = os.statvfs(os.path.dirname(path))
        free = disk.f_bavail * disk.f_frsize
    state = "what stood there is untouched"
    if phase == "flush the folder":
        state = "the new file is in place, but may not survive a power cut"
    hint = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = f"{nbytes:,} bytes are needed" + (f", {free:,} are free" if free is not None else "")
    problem = f"{path}: could not {phase}: {error.strerror or error}; {state}"
    facts: dict[str, Any] = {"errno": error.errno, "needed": nbytes, "free": free}
    return SaveError(call, problem, phase=phase, path=path, hint=hint, **facts)


@contextlib.contextmanager
def alongside(work: Callable[[], T], nbytes: int) -> Iterator[Callable[[], T]]:
    """Run `work` on nbytes bytes in a thread while the block runs; yields a function that waits
    for its result. Hashing and disk calls release the GIL, so both together take as long as the
    slower one. Where a thread is not worth it, the function does the work.
    """
    if nbytes < THREADED:
        yield functools.cache(work)
        return
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(work).result
