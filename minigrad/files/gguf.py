"""GGUF files, versions 2 and 3: read only, mapped, every length checked before it is used.

    0    "GGUF", u32 version, u64 number of tensors, u64 number of meta entries
         per entry: a string (u64 length, UTF-8), u32 type, a value;
             an array is u32 type, u64 count, values
         per tensor: a string, u32 number of axes, u64 sizes (innermost first), u32 type, u64 offset
    then data from the next multiple of general.alignment (32); offsets count from there

Numbers are little-endian. The format has no checksums: damage to the data cannot be seen.
From https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import math
import mmap
import struct
from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.files import header as headers, layout
from minigrad.files.durable import Path
from minigrad.files.header import Refusal, shortened
from minigrad.files.layout import FileInfo, TensorInfo
from minigrad.files.opening import OpenFile, opened, unreadable
from minigrad.files.reader import StateDict

MAX_ITEMS = 1 << 22  # values in all arrays of text: Python objects, unlike numbers
MAX_KEY = 1 << 10
_ALIGNMENT = "general.alignment"

# number -> (name, numbers in a block, bytes of a block)
TYPES: dict[int, tuple[str, int, int]] = {
    0: ("f32", 1, 4),
    1: ("f16", 1, 2),
    30: ("bf16", 1, 2),
    2: ("q4_0", 32, 18),
    3: ("q4_1", 32, 20),
    6: ("q5_0", 32, 22),
    7: ("q5_1", 32, 24),
    8: ("q8_0", 32, 34),
    12: ("q4_k", 256, 144),
    13: ("q5_k", 256, 176),
    14: ("q6_k", 256, 210),
}
_STRING, _ARRAY = 8, 9
_NUMBERS = dict(enumerate(["u1", "i1", "<u2", "<i2", "<u4", "<i4", "<f4", "?"])) | {
    10: "<u8",
    11: "<i8",
    12: "<f8",
}


def load_gguf(path: Path) -> StateDict:
    """Map a GGUF file: name -> (rows, bytes per row) of uint8, read-only views; `.info.tensors` has
    their formats and shapes, `.meta` what the file says of the model.

    Raises FormatError with a `code`, or MissingFileError. Do not cut the file while the arrays
    live: the process would be killed.
    """
    with opened(OpenFile, path, "load_gguf") as file:
        info, data = _read(file)
        return StateDict({t.name: _rows(t, data) for t in info.tensors}, info)


def peek_gguf(path: Path) -> FileInfo:
    """Read the header only."""
    with opened(OpenFile, path, "peek") as file:
        return _read(file)[0]


def _rows(tensor: TensorInfo, data: Array) -> Array:
    raw = data[tensor.offset : tensor.offset + tensor.nbytes]
    rows = math.prod(tensor.shape[:-1])
    return raw.reshape(rows, tensor.nbytes // rows)


def _read(file: OpenFile) -> tuple[FileInfo, Array]:
    file.check(file.size >= 24, "short", f"the file ends after {file.size} bytes", file.size)
    try:
        mapped = mmap.mmap(file.fd, file.size, access=mmap.ACCESS_READ)
    except OSError as error:
        raise unreadable(file.call, file.path, error) from error
    cursor = _Cursor(memoryview(mapped))
    version, tensors, entries = cursor.start()
    meta: dict[str, Any] = {}
    for _ in range(entries):
        key = cursor.text(MAX_KEY)
        if key in meta:
            raise Refusal("key-twice", f"the key {shortened(key)} is twice in the meta", key)
        meta[key] = cursor.value(cursor.number("<u4"))
    table = [cursor.tensor() for _ in range(tensors)]
    start = _aligned(cursor.at, _alignment(meta))
    found = tuple(_placed(row, start, file.size, _alignment(meta)) for row in table)
    _check_table(found)
    info = FileInfo("gguf", (version, 0), "", meta, found, {}, file.size, "")
    return info, np.frombuffer(mapped, np.uint8)


class _Cursor:
    """A place in the header, which moves on with what is read. Nothing is allocated for a length
    that the file has no room for.
    """

    def __init__(self, view: memoryview) -> None:
        self.view, self.at, self.items = view, 0, 0

    def start(self) -> tuple[int, int, int]:
        """The version, and the numbers of tensors and of meta entries."""
        if bytes(self.take(4)) != b"GGUF":
            raise Refusal("magic", "this is not a GGUF file", bytes(self.view[:4]), b"GGUF")
        version = self.number("<u4")
        if version not in (2, 3):
            problem = f"version {version} of GGUF is not supported, 2 and 3 are"
            raise Refusal("version", problem, version, (2, 3))
        tensors, entries = self.number("<u8"), self.number("<u8")
        headers.at_most("tensor-count", tensors, layout.MAX_TENSORS, "tensors")
        headers.at_most("meta-count", entries, layout.MAX_TENSORS, "meta entries")
        return version, tensors, entries

    def take(self, count: int) -> memoryview:
        """The next bytes."""
        if count > len(self.view) - self.at:
            problem = f"the header asks for {count:,} bytes at {self.at:,}, beyond the file's end"
            raise Refusal("header-cut", problem, count, len(self.view) - self.at)
        self.at += count
        return self.view[self.at - count : self.at]

    def number(self, dtype: str) -> Any:
        """One number, as Python's."""
        return np.frombuffer(self.take(np.dtype(dtype).itemsize), dtype)[0].item()

    def text(self, most: int | None = None) -> str:
        """A string."""
        length = _LENGTH.unpack(self.take(8))[0]
        if most is not None:
            headers.at_most("text-length", length, most, "bytes of text")
        try:
            return str(self.take(length), "utf-8")
        except UnicodeDecodeError as error:
            raise Refusal("utf-8", f"text at {self.at:,} is not UTF-8: {error.reason}") from None

    def value(self, kind: int) -> Any:
        """A value of the meta: a number, text, a list of text, or an array of numbers."""
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise Refusal("meta-type", f"a value at {self.at:,} has the unknown type {kind}", kind)
        kind, count = self.number("<u4"), self.number("<u8")
        if kind in _NUMBERS:
            dtype = np.dtype(_NUMBERS[kind])
            return np.frombuffer(self.take(count * dtype.itemsize), dtype).copy()
        if kind != _STRING:
            raise Refusal("array-type", f"an array at {self.at:,} has the type {kind}", kind)
        self.items += count
        headers.at_most("item-count", self.items, MAX_ITEMS, "texts in arrays")
        headers.at_most("header-cut", 8 * count, len(self.view) - self.at, "bytes of an array")
        return self.texts(count)

    def texts(self, count: int) -> list[str]:
        """Strings one after the other: a vocabulary has 100,000."""
        view, at, end, found = self.view, self.at, len(self.view), list[str]()
        try:
            for _ in range(count):
                stop = at + 8 + _LENGTH.unpack_from(view, at)[0]
                if stop > end:
                    break
                found.append(str(view[at + 8 : stop], "utf-8"))
                at = stop
        except UnicodeDecodeError as error:
            raise Refusal("utf-8", f"text at {at:,} is not UTF-8: {error.reason}") from None
        except struct.error:
            pass
        if len(found) < count:
            raise Refusal("header-cut", f"text at {at:,} goes beyond the file's end", at, end)
        self.at = at
        return found

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """A row of the table: name, shape, type, offset."""
        name, rank = self.text(MAX_KEY), self.number("<u4")
        headers.check_name(name)
        if not 1 <= rank <= 4:
            raise Refusal("rank", f"tensor {shortened(name)} has {rank} axes", rank, "1 to 4")
        shape = tuple(self.number("<u8") for _ in range(rank))[::-1]
        return name, shape, self.number("<u4"), self.number("<u8")


_LENGTH = struct.Struct("<Q")


def _alignment(meta: dict[str, Any]) -> int:
    found = meta.get(_ALIGNMENT, 32)
    if type(found) is not int or not 1 <= found <= 1 << 16 or found & (found - 1):
        problem = f"{_ALIGNMENT} must be a power of 2, got {shortened(found)}"
        raise Refusal("alignment", problem, found, "a power of 2 up to 65536")
    return found


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def _placed(
    row: tuple[str, tuple[int, ...], int, int], start: int, size: int, alignment: int
) -> TensorInfo:
    """The tensor of a row of the table, which has a known type and lies within the file."""
    name, shape, number, offset = row
    if number not in TYPES:
        problem = f"tensor {shortened(name)} has the type {number}, which is not supported"
        raise Refusal("dtype", problem, number, [kind for kind, *_ in TYPES.values()])
    kind, block, nbytes = TYPES[number]
    if min(shape) < 1 or max(shape) > layout.MAX_DIM or shape[-1] % block:
        problem = f"tensor {shortened(name)} of {kind} has the shape {shape}"
        raise Refusal("shape", problem, shape, f"sizes >= 1, the last a multiple of {block}")
    total = math.prod(shape) // block * nbytes
    if offset % alignment or start + offset + total > size:
        problem = f"tensor {shortened(name)}: {total:,} bytes at {start:,} + {offset:,} of {size:,}"
        raise Refusal("offset", problem, offset, f"a multiple of {alignment} within the file")
    return TensorInfo(name, kind, shape, start + offset, total, 0)


def _check_table(tensors: tuple[TensorInfo, ...]) -> None:
    """Refuse a name that is there twice, and tensors that overlap."""
    names, end = set[str](), 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.name in names:
            problem = f"the name {shortened(tensor.name)} is twice in the table"
            raise Refusal("name-twice", problem, tensor.name)
        if tensor.offset < end:
            problem = f"tensor {shortened(tensor.name)} overlaps the one before it"
            raise Refusal("overlap", problem, tensor.offset, end)
        names.add(tensor.name)
        end = tensor.offset + tensor.nbytes
