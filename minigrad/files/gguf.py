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
from dataclasses import replace
from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.files import header as headers, layout
from minigrad.files.durable import Path
from minigrad.files.header import Refusal, shortened
from minigrad.files.layout import FileInfo, TensorInfo
from minigrad.files.opening import OpenFile, opened, unreadable
from minigrad.files.reader import StateDict
from minigrad.ops.quantised import FORMATS

MAX_ITEMS = 1 << 22  # values in all arrays of text: Python objects, unlike numbers
MAX_KEY = 1 << 10

KINDS = {form.number: kind for kind, form in FORMATS.items()}
_STRING, _ARRAY = 8, 9
_NUMBERS = {**dict(enumerate("BbHhIif?")), 10: "Q", 11: "q", 12: "d"}  # as `struct` spells them


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


def _rows(t: TensorInfo, data: Array) -> Array:
    return data[t.offset : t.offset + t.nbytes].reshape(math.prod(t.shape[:-1]), -1)


def _read(file: OpenFile) -> tuple[FileInfo, Array]:
    file.check(file.size >= 24, "short", f"the file ends after {file.size} bytes", file.size)
    try:
        mapped = mmap.mmap(file.fd, file.size, access=mmap.ACCESS_READ)
    except OSError as error:
        raise unreadable(file.call, file.path, error) from error
    cursor = _Cursor(memoryview(mapped))
    if bytes(cursor.take(4)) != b"GGUF":
        raise Refusal("magic", "this is not a GGUF file", mapped[:4], b"GGUF")
    version, tensors, entries = (cursor.number(code) for code in "IQQ")
    if version not in (2, 3):
        problem = f"version {version} of GGUF is not supported, 2 and 3 are"
        raise Refusal("version", problem, version, (2, 3))
    headers.at_most("tensor-count", tensors, layout.MAX_TENSORS, "tensors")
    headers.at_most("meta-count", entries, layout.MAX_TENSORS, "meta entries")
    meta: dict[str, Any] = {}
    for _ in range(entries):
        key = cursor.text(MAX_KEY)
        if key in meta:
            raise Refusal("key-twice", f"the key {shortened(key)} is twice in the meta", key)
        meta[key] = cursor.value(cursor.number("I"))
    table = [cursor.tensor() for _ in range(tensors)]
    alignment = meta.get("general.alignment", 32)
    if type(alignment) is not int or not 1 <= alignment <= 1 << 16 or alignment & (alignment - 1):
        problem = f"general.alignment must be a power of 2, got {shortened(alignment)}"
        raise Refusal("alignment", problem, alignment, "a power of 2 up to 65536")
    start = -(-cursor.at // alignment) * alignment
    found = tuple(_placed(table, start, file.size, alignment))
    info = FileInfo("gguf", (version, 0), "", meta, found, {}, file.size, "")
    return info, np.frombuffer(mapped, np.uint8)


class _Cursor:
    """A place in the header, which moves on with what is read. Nothing is allocated for a length
    that the file has no room for.
    """

    def __init__(self, view: memoryview) -> None:
        self.view, self.at, self.items = view, 0, 0

    def take(self, count: int) -> memoryview:
        """The next bytes."""
        if count > len(self.view) - self.at:
            problem = f"the header asks for {count:,} bytes at {self.at:,}, beyond the file's end"
            raise Refusal("header-cut", problem, count, len(self.view) - self.at)
        self.at += count
        return self.view[self.at - count : self.at]

    def number(self, code: str) -> Any:
        """One number, as Python's."""
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def text(self, most: int | None = None) -> str:
        """A string. A vocabulary has 100,000: this looks at each in few steps."""
        length = _LENGTH(self.take(8))[0]
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
        kind, count = self.number("I"), self.number("Q")
        if kind in _NUMBERS:
            dtype = np.dtype(f"<{_NUMBERS[kind]}")
            return np.frombuffer(self.take(count * dtype.itemsize), dtype).copy()
        if kind != _STRING:
            raise Refusal("array-type", f"an array at {self.at:,} has the type {kind}", kind)
        self.items += count
        headers.at_most("item-count", self.items, MAX_ITEMS, "texts in arrays")
        return [self.text() for _ in range(count)]

    def tensor(self) -> TensorInfo:
        """A row of the table, whose offset counts from where the data begins."""
        name, rank = self.text(MAX_KEY), self.number("I")
        headers.check_name(name)
        if not 1 <= rank <= 4:
            raise Refusal("rank", f"tensor {shortened(name)} has {rank} axes", rank, "1 to 4")
        shape = tuple(self.number("Q") for _ in range(rank))[::-1]
        number, offset = self.number("I"), self.number("Q")
        if number not in KINDS:
            problem = f"tensor {shortened(name)} has the type {number}, which is not supported"
            raise Refusal("dtype", problem, number, [*FORMATS])
        kind = KINDS[number]
        _, block, nbytes, _ = FORMATS[kind]
        if min(shape) < 1 or max(shape) > layout.MAX_DIM or shape[-1] % block:
            problem = f"tensor {shortened(name)} of {kind} has the shape {shape}"
            raise Refusal("shape", problem, shape, f"sizes >= 1, the last a multiple of {block}")
        return TensorInfo(name, kind, shape, offset, math.prod(shape) // block * nbytes, 0)


_LENGTH = struct.Struct("<Q").unpack


def _placed(table: list[TensorInfo], start: int, size: int, alignment: int) -> list[TensorInfo]:
    """The tensors with their places in the file: aligned, within it, apart, and each name once."""
    names, end = set[str](), 0
    for tensor in sorted(table, key=lambda tensor: tensor.offset):
        name, offset, nbytes = tensor.name, tensor.offset, tensor.nbytes
        which = f"tensor {shortened(name)}"
        if name in names:
            raise Refusal("name-twice", f"the name of {which} is twice in the table", name)
        if offset % alignment or start + offset + nbytes > size:
            problem = f"{which}: {nbytes:,} bytes at {start:,} + {offset:,} of {size:,}"
            raise Refusal("offset", problem, offset, f"a multiple of {alignment} within the file")
        if offset < end:
            raise Refusal("overlap", f"{which} overlaps the one before it", offset, end)
        names.add(name)
        end = offset + nbytes
    return [replace(tensor, offset=start + tensor.offset) for tensor in table]
