"""Opening a file to read it: regular files only, and a clear word for everything else."""

from __future__ import annotations

import difflib
import errno
import os
import stat

from minigrad.errors import FormatError, MissingFileError


def open_regular(path: str, call: str) -> int:
    """A file descriptor of a regular file, which is all that is ever read; raises MissingFileError or FormatError."""
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
        hint = "give the file itself; for run folders there is CheckpointFolder"
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
    near = difflib.get_close_matches(name, os.listdir(folder or "."), 3)
    hint = f"near it: {', '.join(near)}" if near else ""
    return MissingFileError(call, f"there is no file {path}", code="no-such-file", hint=hint)


def unreadable(call: str, path: str, error: OSError) -> FormatError:
    """The error for a file that the system will not read."""
    return FormatError(call, f"{path} cannot be read: {error.strerror}", code="unreadable", got=error.errno)
