"""An open file that is being judged: regular files only, exact reads, and a clear word for
everything else.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Any, TypeVar

from minigrad.errors import FormatError, MissingFileError
from minigrad.files.header import Refusal, refusing

CHUNK = 1 << 20  # read and checked at once, while it is in the processor's cache
_SHORTER = "cut-while-loading", "the file became shorter while it was read"


class OpenFile:
    """A regular file, open for reading, with its size at that moment. Broken rules are Refusals,
    which `opened` turns into FormatErrors.
    """

    def __init__(self, path: str | os.PathLike[str], call: str) -> None:
        self.path, self.call = os.fsdecode(path), call
        self.fd = open_regular(self.path, call)
        self.status = os.fstat(self.fd)
        self.size = self.status.st_size

    def check(
        self, good: bool, code: str, problem: str, got: Any = None, wanted: Any = None
    ) -> None:
        """Raise Refusal unless good."""
        if not good:
            raise Refusal(code, problem, got, wanted)

    def bytes_at(self, position: int, count: int) -> bytes:
        """Exactly these bytes of the file."""
        found = self.some_at(position, count)
        self.check(len(found) == count, *_SHORTER)
        return found

    def some_at(self, position: int, count: int) -> bytes:
        """At most `count` bytes from a position."""
        try:
            return os.pread(self.fd, count, position)
        except OSError as error:
            raise unreadable(self.call, self.path, error) from error

    def chunks(self, position: int, buffer: memoryview) -> Iterator[memoryview]:
        """Fill the buffer from a position on, and yield each part of it as it comes."""
        done = 0
        while done < len(buffer):
            part = buffer[done : done + CHUNK]
            try:
                count = os.preadv(self.fd, [part], position + done)
            except OSError as error:
                raise unreadable(self.call, self.path, error) from error
            self.check(count > 0, *_SHORTER)
            yield part[:count]
            done += count


F = TypeVar("F", bound=OpenFile)


@contextlib.contextmanager
def opened(kind: type[F], path: str | os.PathLike[str], call: str) -> Iterator[F]:
    """An open file that is closed after the block. Raises FormatError for what the block refuses,
    and if the file was written to meanwhile.
    """
    with within_memory(call, path):
        file = kind(path, call)
        try:
            yield file
            now = os.fstat(file.fd)
        finally:
            os.close(file.fd)
        same = (now.st_size, now.st_mtime_ns) == (file.status.st_size, file.status.st_mtime_ns)
        problem = "the file was written to while it was read; load it again"
        file.check(same, "changed-while-loading", problem)


def printable(text: str) -> str:
    """The text, with everything escaped that a terminal could take for a command, or could not
    show.
    """
    return text if text.isprintable() else ascii(text)[1:-1]


@contextlib.contextmanager
def within_memory(call: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn a Refusal or a MemoryError of the block into a FormatError: a sparse file can be larger
    than any machine.
    """
    try:
        with refusing(call, path):
            yield
    except MemoryError:
        problem = f"{os.fsdecode(path)}: the content does not fit into the memory of this machine"
        hint = "load some names= of it, or with mmap=True"
        raise FormatError(call, problem, code="memory", hint=hint) from None


def unreadable(call: str, path: str, error: OSError) -> FormatError:
    """The error for a file that the system does not read, or that is not there."""
    if isinstance(error, FileNotFoundError):
        return _missing(call, path)
    problem = f"{path} cannot be read: {error.strerror}"
    return FormatError(call, problem, code="unreadable", got=error.errno)


def open_regular(path: str, call: str) -> int:
    """A file descriptor of a regular file, which is all that is ever read; raises MissingFileError
    or FormatError.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _missing(call, path) from None
    except ValueError as error:
        raise FormatError(call, f"{path!a}: {error}", code="path") from None
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise FormatError(call, f"{path} is a socket, not a file", code="socket") from None
        raise unreadable(call, path, error) from error
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(mode):
        hint = "give the file itself; CheckpointFolder reads run folders"
        raise FormatError(call, f"{path} is a folder", code="directory", hint=hint)
    kind = "fifo" if stat.S_ISFIFO(mode) else "device"
    raise FormatError(call, f"{path} is a {kind}, not a file", code=kind)


def _missing(call: str, path: str) -> MissingFileError:
    if os.path.islink(path):
        problem = f"{path} is a link to {os.readlink(path)}, which is not there"
        return MissingFileError(call, problem, code="dangling-link")
    folder, name = os.path.split(path)
    if not os.path.isdir(folder or "."):
        return MissingFileError(call, f"there is no folder {folder}", code="no-such-file")
    near: list[str] = []
    with contextlib.suppress(OSError):  # a folder that may be entered but not listed
        near = difflib.get_close_matches(name, os.listdir(folder or "."), 3)
    hint = f"near it: {', '.join(map(printable, near))}" if near else ""
    return MissingFileError(call, f"there is no file {path}", code="no-such-file", hint=hint)
