"""Reading numpy's npz archives without pickle, and writing them.

Each member's header is read by numpy's own parser, held to the member's size and to our dtypes, and only then the data.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.files import foreign, header as headers, layout
from minigrad.files.durable import Path, write_durably
from minigrad.files.header import Refusal
from minigrad.files.layout import FileInfo, TensorInfo
from minigrad.files.opening import OpenFile
from minigrad.files.reader import StateDict, check_bool, select
from minigrad.files.writer import as_array

_EARLIEST = (1980, 1, 1, 0, 0, 0)  # equal content, equal bytes
_HEADS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def load_npz(path: Path, *, names: Iterable[str] | None = None) -> StateDict:
    """Read an .npz archive: name -> numpy array. Members that would need pickle are refused.

    names: only these. Raises FormatError with a `code`, MissingFileError, or StateDictError for names that are not in
    the file.
    """
    call = "load_npz"
    with contextlib.closing(OpenFile(path, call)) as file:
        _check_head(file)
        content = os.fdopen(os.dup(file.fd), "rb")
        with _reading(file), content, zipfile.ZipFile(content) as archive:
            members = _members(archive)
            wanted = select(sorted(members), names, file)
            found = {name: _read(file, archive, members[name]) for name in wanted}
        file.check_unchanged()
    infos = tuple(TensorInfo(n, layout.DTYPE_NAMES[a.dtype], a.shape, 0, a.nbytes, 0) for n, a in found.items())
    return StateDict(found, FileInfo("npz", (0, 0), "", {}, infos, {}, file.size, ""))


def save_npz(path: Path, state_dict: Mapping[str, Any]) -> None:
    """Write named arrays to an uncompressed .npz archive, durably.

    Tied names are written each in full; there is no meta.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", allowZip64=True) as archive:
        for name in sorted(state_dict):
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _EARLIEST), "w", force_zip64=True) as member:
                array = layout.stored(as_array(name, state_dict[name], "save_npz"))
                np.lib.format.write_array(member, array, allow_pickle=False)
    write_durably(path, [content.getbuffer()], nbytes=len(content.getbuffer()), call="save_npz")


def _check_head(file: OpenFile) -> None:
    head = file.some_at(0, 16)
    file.check(len(head) > 0, "empty", "the file is empty")
    if not head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        found = foreign.recognise(head, b"")
        code, words = (f"foreign-{found[0]}", f"this is {found[1]}") if found else ("magic", "this is no npz archive")
        file.refuse(code, words)


@contextlib.contextmanager
def _reading(file: OpenFile) -> Any:
    """Turn what zipfile and numpy raise over a malformed archive into FormatError."""
    try:
        yield
    except Refusal as refusal:
        raise refusal.at(file.call, file.path) from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise Refusal("zip", f"the archive is damaged: {error}").at(file.call, file.path) from None


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name == member.filename:
            raise Refusal("zip-member", f"the member {name!r} is no .npy file; is this an npz archive?", name)
        headers.check_name(name)
        if name in members:
            raise Refusal("name-twice", f"the name {name!r} stands twice in the archive", name)
        if member.file_size > layout.MAX_PAYLOAD:
            raise Refusal("payload-limit", f"{name!r} has {member.file_size:,} bytes", member.file_size)
        members[name] = member
    return members


def _read(file: OpenFile, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    name = member.filename.removesuffix(".npy")
    with archive.open(member) as content:
        shape, fortran, dtype = _head(name, content)
        headers.check_shape(name, list(shape))
        if dtype.newbyteorder("=") not in layout.DTYPE_NAMES:
            raise Refusal(
                "dtype", f"{name!r} has dtype {dtype}; minigrad never unpickles", str(dtype), list(layout.DTYPES)
            )
        nbytes = math.prod(shape) * dtype.itemsize
        if content.tell() + nbytes != member.file_size:
            raise Refusal("nbytes", f"{name!r} holds {member.file_size - content.tell()} bytes instead of {nbytes}")
        payload = np.frombuffer(bytearray(content.read(nbytes)), np.uint8)
        if content.read(1) or len(payload) != nbytes:  # reading to the end makes zipfile compare the crc32
            raise Refusal("nbytes", f"{name!r} does not hold the {nbytes} bytes that it says")
    native = dtype.newbyteorder("=")
    check_bool(file, TensorInfo(name, layout.DTYPE_NAMES[native], shape, 0, nbytes, 0), payload)
    array: Array = payload.view(dtype).astype(native, copy=False)
    return array.reshape(shape[::-1]).T.copy() if fortran else array.reshape(shape)


def _head(name: str, content: Any) -> Any:
    try:
        version = np.lib.format.read_magic(content)
        if version not in _HEADS:
            raise Refusal("version-unknown", f"{name!r} is in npy version {version}", version, list(_HEADS))
        return _HEADS[version](content)
    except (Refusal, zipfile.BadZipFile, zlib.error):
        raise
    except Exception as error:  # numpy parses the header as Python text, and lets whatever its tokenizer raises through
        raise Refusal("npy", f"{name!r} is no npy file: {error}") from None
