"""Numpy's npz archives: numpy reads and writes the arrays, without pickle."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import MinigradError
from minigrad.files import foreign, header as headers, layout
from minigrad.files.durable import Path, write_durably
from minigrad.files.header import Refusal, shortened
from minigrad.files.layout import FileInfo, TensorInfo
from minigrad.files.opening import OpenFile, opened
from minigrad.files.reader import StateDict, array_of, select
from minigrad.files.writer import checked_arrays

# A compressed archive may be this many times larger in memory, plus a little: zlib itself would let
# a file grow a thousandfold.
_MAX_RATIO, _SMALL = 32, 1 << 20
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # numpy writes no others
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # equal content, equal bytes


def load_npz(path: Path, *, names: Iterable[str] | None = None) -> StateDict:
    """Read an .npz archive: name -> numpy array. Members that would need pickle are refused.

    names: only these. Raises FormatError with a `code`, MissingFileError, or StateDictError for
        names that are not in the file.
    """
    call = "load_npz"
    with opened(OpenFile, path, call) as file:
        head = file.some_at(0, 16)
        file.check(len(head) > 0, "empty", "the file is empty")
        if not head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            foreign.refuse(head, b"", "npz")
            raise Refusal("magic", "this is not an npz archive")
        try:
            found = _read(file, names)
        except (MinigradError, MemoryError, Refusal):
            raise
        except Exception as error:  # numpy and zipfile let through whatever their parsers raise
            problem = f"the archive is damaged: {shortened(str(error), 200)}"
            raise Refusal("npz", problem) from None
    infos = tuple(_info(name, array) for name, array in found.items())
    return StateDict(found, FileInfo("npz", (0, 0), "", {}, infos, {}, file.size, ""))


def peek_npz(path: Path) -> FileInfo:
    """Read the whole archive, which has no header."""
    return load_npz(path).info


def _read(file: OpenFile, names: Iterable[str] | None) -> dict[str, Array]:
    with os.fdopen(os.dup(file.fd), "rb") as content:
        content.seek(0)
        with np.load(content, allow_pickle=False) as archive:
            members = _checked_members(archive.zip.infolist(), file.size)
            wanted = select(sorted(members), names, file)
            return {name: _array(name, archive[f"{name}.npy"]) for name in wanted}


def _info(name: str, array: Array) -> TensorInfo:
    return TensorInfo(name, layout.DTYPE_NAMES[array.dtype], array.shape, 0, array.nbytes, 0)


def _checked_members(members: list[zipfile.ZipInfo], size: int) -> set[str]:
    """The names of the arrays, if all that can be known before reading them is as it should be."""
    headers.at_most("tensor-count", len(members), layout.MAX_TENSORS, "members")
    found: set[str] = set()
    for member in members:
        name = member.filename.removesuffix(".npy")
        if name == member.filename:
            problem = f"the member {shortened(name)} is not a .npy file; is this an npz archive?"
            raise Refusal("zip-member", problem, name)
        headers.check_name(name)
        if name in found:
            problem = f"the name {shortened(name)} is twice in the archive"
            raise Refusal("name-twice", problem, name)
        if member.compress_type not in _COMPRESSIONS:
            problem = f"{shortened(name)} is compressed in a way that numpy never uses"
            raise Refusal("zip-compression", problem)
        found.add(name)
    total, most = sum(member.file_size for member in members), _MAX_RATIO * size + _SMALL
    if total > most:
        problem = f"{size:,} bytes would become {total:,}, more than {_MAX_RATIO} times as many"
        raise Refusal("zip-bomb", f"{problem}; save it with numpy.savez", total, most)
    return found


def _array(name: str, array: Any) -> Array:
    """An array as ours are: C-contiguous, in the byte order of the machine."""
    if not isinstance(array, np.ndarray):
        raise Refusal("npy", f"{shortened(name)} is not an npy file")
    native = array.dtype.newbyteorder("=")
    headers.check_dtype(name, layout.DTYPE_NAMES.get(native), str(array.dtype))
    array = np.asarray(array, dtype=native, order="C")
    if native.kind == "b":
        array_of(_info(name, array), array.reshape(-1).view(np.uint8))  # refuses what is not 0 or 1
    return array


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
            info = zipfile.ZipInfo(f"{name}.npy", _EARLIEST)
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, arrays[name], allow_pickle=False)
    write_durably(path, [content.getbuffer()], nbytes=len(content.getbuffer()), call=call)
