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
from minigrad.files import foreign, header as headers, layout
from minigrad.files.durable import Path
from minigrad.files.header import Refusal, shortened
from minigrad.files.layout import FileInfo, TensorInfo
from minigrad.files.opening import OpenFile, opened, unreadable
from minigrad.files.reader import StateDict
from minigrad.ops.quantised import FORMATS

MAX_ITEMS = 1 << 22  # values in all arrays of text: Python objects, unlike numbers
MAX_KEY = 1 << 10

KINDS = {form.number: (kind, form) for kind, form in FORMATS.items()}
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
    foreign.refuse(file.some_at(0, 24), b"", "gguf")
    file.check(file.size >= 24, "short", f"the file ends after {file.size} bytes", file.size)
    try:
        mapped = mmap.mmap(file.fd, file.size, access=mmap.ACCESS_READ)
    except OSError as error:
        raise unreadable(file.call, file.path, error) from error
    cursor = _Cursor(file, memoryview(mapped))
    magic, version, tensors, entries = cursor.numbers("4sIQQ")
    file.check(magic == b"GGUF", "magic", "this is not a GGUF file", magic, b"GGUF")
    problem = f"version {version} of GGUF is not supported, 2 and 3 are"
    file.check(version in (2, 3), "version", problem, version, (2, 3))
    headers.at_most("tensor-count", tensors, layout.MAX_TENSORS, "tensors")
    headers.at_most("meta-count", entries, layout.MAX_TENSORS, "meta entries")
    meta: dict[str, Any] = {}
    for _ in range(entries):
        key = cursor.text(MAX_KEY)
        file.check(key not in meta, "key-twice", f"the key {shortened(key)} is there twice", key)
        meta[key] = cursor.value(*cursor.numbers("I"))
    table = [cursor.tensor() for _ in range(tensors)]
    alignment = meta.get("general.alignment", 32)
    problem = f"general.alignment must be a power of 2, got {shortened(alignment)}"
    good = type(alignment) is int and alignment in [1 << n for n in range(17)]
    file.check(good, "alignment", problem, alignment, "a power of 2 up to 65536")
    start = -(-cursor.at // alignment) * alignment
    found = tuple(_placed(file, table, start, alignment))
    info = FileInfo("gguf", (version, 0), "", meta, found, {}, file.size, "")
    return info, np.frombuffer(mapped, np.uint8)


class _Cursor:
    """A place in the header, which moves on with what is read. Nothing is allocated for a length
    that the file has no room for.
    """

    def __init__(self, file: OpenFile, view: memoryview) -> None:
        self.check, self.view, self.at, self.items = file.check, view, 0, 0

    def take(self, count: int) -> memoryview:
        """The next bytes."""
        if count > len(self.view) - self.at:
            problem = f"the header asks for {count:,} bytes at {self.at:,}, beyond the file's end"
            raise Refusal("header-cut", problem, count, len(self.view) - self.at)
        self.at += count
        return self.view[self.at - count : self.at]

    def numbers(self, codes: str) -> tuple[Any, ...]:
        """Some numbers, as Python's."""
        return struct.unpack(f"<{codes}", self.take(struct.calcsize(f"<{codes}")))

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
            return self.numbers(_NUMBERS[kind])[0]
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise Refusal("meta-type", f"a value at {self.at:,} has the unknown type {kind}", kind)
        kind, count = self.numbers("IQ")
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
        name, (rank,) = self.text(MAX_KEY), self.numbers("I")
        headers.check_name(name)
        which = f"tensor {shortened(name)}"
        self.check(1 <= rank <= 4, "rank", f"{which} has {rank} axes", rank, "1 to 4")
        shape = self.numbers(f"{rank}Q")[::-1]
        number, offset = self.numbers("IQ")
        problem = f"{which} has the unsupported type {number}: convert to Q4_K or larger"
        self.check(number in KINDS, "dtype", problem, number, [*FORMATS])
        kind, (_, block, nbytes, _) = KINDS[number]
        good = min(shape) >= 1 and max(shape) <= layout.MAX_DIM and shape[-1] % block == 0
        wanted = f"sizes >= 1, the last a multiple of {block}"
        self.check(good, "shape", f"{which} of {kind} has the shape {shape}", shape, wanted)
        return TensorInfo(name, kind, shape, offset, math.prod(shape) // block * nbytes, 0)


_LENGTH = struct.Struct("<Q").unpack


def _placed(file: OpenFile, table: list[TensorInfo], start: int, step: int) -> list[TensorInfo]:
    """The tensors with their places in the file: aligned, within it, apart, and each name once."""
    names, end, wanted = set[str](), 0, f"a multiple of {step} within the file"
    for tensor in sorted(table, key=lambda tensor: tensor.offset):
        name, offset, nbytes = tensor.name, tensor.offset, tensor.nbytes
        which = f"tensor {shortened(name)}"
        file.check(name not in names, "name-twice", f"the name of {which} is there twice", name)
        problem = f"{which}: {nbytes:,} bytes at {start + offset:,}, the file ends at {file.size:,}"
        good = offset % step == 0 and start + offset + nbytes <= file.size
        file.check(good, "offset", problem, offset, wanted)
        file.check(offset >= end, "overlap", f"{which} overlaps the one before it", offset, end)
        names.add(name)
        end = offset + nbytes
    return [replace(tensor, offset=start + tensor.offset) for tensor in table]
