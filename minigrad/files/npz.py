"""Reading numpy's npz archives without pickle, and writing them.

Each member's header is read by numpy's own parser, held to the member's size and to our dtypes, and
only then the data.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import MinigradError
from minigrad.files import foreign, header as headers, layout
from minigrad.files.durable import Path, write_durably
from minigrad.files.header import Refusal, shortened
from minigrad.files.layout import FileInfo, TensorInfo
from minigrad.files.opening import CHUNK, OpenFile, within_memory
from minigrad.files.reader import StateDict, check_bool, select
from minigrad.files.writer import checked_arrays

# A compressed archive may be this many times larger in memory, plus a little: zlib itself would let
# a file grow a thousandfold.
_MAX_RATIO, _SMALL = 32, 1 << 20
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # numpy writes no others
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # equal content, equal bytes
_HEADS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def load_npz(path: Path, *, names: Iterable[str] | None = None) -> StateDict:
    """Read an .npz archive: name -> numpy array. Members that would need pickle are refused.

    names: only these. Raises FormatError with a `code`, MissingFileError, or StateDictError for
        names that are not in
    the file.
    """
    call = "load_npz"
    with within_memory(call, path), contextlib.closing(OpenFile(path, call)) as file:
        _check_head(file)
        _check_directory(file)
        content = os.fdopen(os.dup(file.fd), "rb")
        with _reading(file), content, zipfile.ZipFile(content) as archive:
            members = _members(archive, file.size)
            wanted = select(sorted(members), names, file)
            found = {name: _read(file, archive, members[name]) for name in wanted}
        file.check_unchanged()
    infos = tuple(
        TensorInfo(n, layout.DTYPE_NAMES[a.dtype], a.shape, 0, a.nbytes, 0)
        for n, a in found.items()
    )
    return StateDict(found, FileInfo("npz", (0, 0), "", {}, infos, {}, file.size, ""))


def save_npz(path: Path, state_dict: Mapping[str, Any]) -> None:
    """Write named arrays to an uncompressed .npz archive, durably.

    Tied names are written each in full; there is no meta. Raises DTypeError, FormatError and
    SaveError like `minigrad.files.save`.
    """
    call = "save_npz"
    arrays = checked_arrays(path, state_dict, call, layout.MAX_PAYLOAD)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", allowZip64=True) as archive:
        for name in sorted(arrays):
            with archive.open(
                zipfile.ZipInfo(f"{name}.npy", _EARLIEST), "w", force_zip64=True
            ) as member:
                np.lib.format.write_array(member, arrays[name], allow_pickle=False)
    write_durably(path, [content.getbuffer()], nbytes=len(content.getbuffer()), call=call)


def _check_head(file: OpenFile) -> None:
    head = file.some_at(0, 16)
    file.check(len(head) > 0, "empty", "the file is empty")
    if not head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        found = foreign.recognise(head, b"")
        code, words = (
            (f"foreign-{found[0]}", f"this is {found[1]}")
            if found
            else ("magic", "this is no npz archive")
        )
        file.refuse(code, words)


def _check_directory(file: OpenFile) -> None:
    """The directory at the end is of a size that zipfile may be let read: it takes every entry into
    memory.
    """
    tail = file.some_at(
        max(0, file.size - 98), 98
    )  # a zip64 record of 56 bytes, its locator of 20, the end record of 22
    end = tail[-22:]
    good = len(end) == 22 and end[:4] == b"PK\x05\x06" and end[20:] == b"\0\0"
    file.check(good, "zip", "the archive is damaged, cut, or has a comment at its end")
    nbytes = int.from_bytes(end[12:16], "little")
    if tail[-42:-38] == b"PK\x06\x07":
        nbytes = max(nbytes, int.from_bytes(tail[-58:-50], "little"))
    said = f"a directory of {nbytes:,} bytes; {layout.MAX_HEADER:,} is the limit"
    file.check(nbytes <= layout.MAX_HEADER, "header-limit", said, nbytes, layout.MAX_HEADER)


@contextlib.contextmanager
def _reading(file: OpenFile) -> Any:
    """Turn what zipfile and numpy raise over a malformed archive into FormatError."""
    try:
        yield
    except Refusal as refusal:
        raise refusal.at(file.call, file.path) from None
    except MinigradError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        OverflowError,
    ) as error:
        raise Refusal("zip", f"the archive is damaged: {error}").at(file.call, file.path) from None


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The members by the names of their arrays, when all that can be told before reading them is as
    it should be.
    """
    if len(archive.infolist()) > layout.MAX_TENSORS:
        raise Refusal(
            "tensor-count",
            f"{len(archive.infolist()):,} members; {layout.MAX_TENSORS:,} is the limit",
        )
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name == member.filename:
            raise Refusal(
                "zip-member",
                f"the member {shortened(name)} is no .npy file; is this an npz archive?",
                name,
            )
        headers.check_name(name)
        if name in members:
            raise Refusal(
                "name-twice", f"the name {shortened(name)} stands twice in the archive", name
            )
        if member.compress_type not in _COMPRESSIONS:
            raise Refusal(
                "zip-compression",
                f"{shortened(name)} is compressed in a way that numpy never writes",
            )
        if member.file_size > layout.MAX_PAYLOAD:
            raise Refusal(
                "payload-limit",
                f"{shortened(name)} has {member.file_size:,} bytes",
                member.file_size,
            )
        members[name] = member
    total, most = sum(member.file_size for member in members.values()), _MAX_RATIO * size + _SMALL
    if total > most:
        problem = (
            f"{size:,} bytes that would become {total:,}, more than {_MAX_RATIO} times as "
            "many; save it with numpy.savez"
        )
        raise Refusal("zip-bomb", problem, total, most)
    return members


def _read(file: OpenFile, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    name = member.filename.removesuffix(".npy")
    with archive.open(member) as content:
        shape, fortran, dtype = _head(name, content)
        headers.check_shape(name, list(shape))
        if dtype.newbyteorder("=") not in layout.DTYPE_NAMES:
            raise Refusal(
                "dtype",
                f"{shortened(name)} has dtype {shortened(str(dtype))}; minigrad never unpickles",
                str(dtype),
                list(layout.DTYPES),
            )
        nbytes = math.prod(shape) * dtype.itemsize
        if content.tell() + nbytes != member.file_size:
            held = member.file_size - content.tell()
            raise Refusal("nbytes", f"{shortened(name)} holds {held} bytes instead of {nbytes}")
        payload, done = np.empty(nbytes, np.uint8), 0
        while part := content.read(min(CHUNK, nbytes - done)):
            payload[done : done + len(part)] = np.frombuffer(part, np.uint8)
            done += len(part)
        if content.read(1) or done != nbytes:  # reading to the end makes zipfile compare the crc32
            raise Refusal(
                "nbytes", f"{shortened(name)} does not hold the {nbytes} bytes that it says"
            )
    native = dtype.newbyteorder("=")
    check_bool(file, TensorInfo(name, layout.DTYPE_NAMES[native], shape, 0, nbytes, 0), payload)
    array: Array = payload.view(dtype).astype(native, copy=False)
    return array.reshape(shape[::-1]).T.copy() if fortran else array.reshape(shape)


def _head(name: str, content: Any) -> Any:
    try:
        version = np.lib.format.read_magic(content)
        if version not in _HEADS:
            raise Refusal(
                "version-unknown", f"{name!r} is in npy version {version}", version, list(_HEADS)
            )
        return _HEADS[version](content)
    except (Refusal, zipfile.BadZipFile, zlib.error, MemoryError):
        raise
    # Numpy parses the header as Python text, and lets whatever its tokenizer raises through
    except Exception as error:
        raise Refusal("npy", f"{shortened(name)} is no npy file: {shortened(str(error))}") from None
