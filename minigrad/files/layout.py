"""The layout of a MGRD 1 file: where every byte is, and the limits that writer and reader share.

    0     preamble, 32 bytes: C4 1E, then magic, major, minor, header_len, file_len, crc32 of those
          24 bytes, two zero bytes
    32    header: one msgpack map
    then  per tensor: bin32 of zeros, bin32 of data, whose first byte is at a multiple of 64
    end   trailer, 42 bytes: C4 28, "MGRDEND\\0", SHA-256 of everything before

The offsets of tensors follow from their sizes alone, so a file has no room for overlap, holes or
trailing bytes. Knows no file and no header.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigrad import dtypes
from minigrad.dtypes import Array, DType

MAGIC = b"\x89MGRD\r\n\x1a"
END_MAGIC = b"MGRDEND\0"
MAJOR, MINOR = 1, 0
PREAMBLE_SIZE, TRAILER_SIZE = 32, 42
ALIGNMENT = 64
# The two bin32 heads between one payload's end and the next payload, without the zeros that align
# it
GAP_SIZE = 10

MAX_HEADER = 4 << 20
# Where msgpack has no C extension, decoding more would take a second and longer
MAX_PURE_HEADER = 512 << 10
MAX_TENSORS = 65_536
MAX_NAME = 512
MAX_RANK = 32
MAX_DIM = 2**48
MAX_PAYLOAD = 2**32 - 1
MAX_META_DEPTH = 8
MAX_STATE_DEPTH = 32
MAX_STRING = 64 << 10
VERIFIED_BY_DEFAULT = 256 << 20  # the largest file whose SHA-256 is checked unless asked otherwise

_PREAMBLE = struct.Struct("<8sHHIQ")

DTYPES: dict[str, DType] = {"bool": dtypes.bool_}
DTYPES |= {f"{k}{8 * n}": np.dtype(f"{k}{n}") for n in (1, 2, 4, 8) for k in "ui"}
DTYPES |= {"f16": dtypes.float16, "bf16": dtypes.bfloat16}
DTYPES |= {"f32": dtypes.float32, "f64": dtypes.float64}
DTYPE_NAMES: dict[DType, str] = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file: name, dtype ("f32"), shape, place of its first byte in the file, size
    in bytes, crc32.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    crc32: int


@dataclass(frozen=True)
class FileInfo:
    """What the header of a file says. `sha256` is what the trailer claims (hex); `load` and
    `verify` check it.
    """

    kind: str
    version: tuple[int, int]
    producer: str
    meta: dict[str, Any]
    tensors: tuple[TensorInfo, ...]
    aliases: dict[str, str]
    size: int
    sha256: str
    state: Any = field(default=None, repr=False)

    @property
    def names(self) -> list[str]:
        """Every name of the file, tied ones too, sorted."""
        return sorted([t.name for t in self.tensors] + list(self.aliases))


def round_up(position: int) -> int:
    """The next multiple of 64."""
    return -(-position // ALIGNMENT) * ALIGNMENT


def first_payload(header_len: int) -> int:
    """Where the first payload begins; the header's offsets count from here."""
    return round_up(PREAMBLE_SIZE + header_len + GAP_SIZE)


def relative_offsets(sizes: list[int]) -> list[int]:
    """The offset of each payload from the first one, given their sizes: the only ones that a file
    may have.
    """
    offsets, position = [], 0
    for size in sizes:
        offsets.append(position)
        position = round_up(position + size + GAP_SIZE)
    return offsets


def file_length(header_len: int, sizes: list[int]) -> int:
    """The length of the whole file."""
    end = PREAMBLE_SIZE + header_len
    if sizes:
        end = first_payload(header_len) + relative_offsets(sizes)[-1] + sizes[-1]
    return end + TRAILER_SIZE


def gap(start: int, payload: int, nbytes: int) -> bytes:
    """The bytes from the end of what comes before (`start`) to a payload: a bin32 of zeros, and the
    payload's bin32 Head.
    """
    zeros = payload - start - GAP_SIZE
    return b"\xc6" + zeros.to_bytes(4, "big") + bytes(zeros) + b"\xc6" + nbytes.to_bytes(4, "big")


def pack_preamble(
    header_len: int, file_len: int, version: tuple[int, int] = (MAJOR, MINOR)
) -> bytes:
    """The first 32 bytes."""
    fields = _PREAMBLE.pack(MAGIC, *version, header_len, file_len)
    return b"\xc4\x1e" + fields + zlib.crc32(fields).to_bytes(4, "little") + b"\0\0"


def unpack_preamble(preamble: bytes) -> tuple[bytes, int, int, int, int, bool, bytes]:
    """(magic, major, minor, header_len, file_len, whether the crc is right, reserved bytes) of the
    first 32 bytes.
    """
    fields = preamble[2:26]
    right = zlib.crc32(fields) == int.from_bytes(preamble[26:30], "little")
    return (*_PREAMBLE.unpack(fields), right, preamble[30:32])


def pack_trailer(digest: bytes) -> bytes:
    """The last 42 bytes, of the SHA-256 digest of all others."""
    return b"\xc4\x28" + END_MAGIC + digest


def stored(array: Array) -> Array:
    """The array as a file stores it: C-contiguous, little-endian; itself if it is so already."""
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def as_bytes(array: Array) -> memoryview:
    """The bytes of a C-contiguous array, without a copy."""
    return array.reshape(-1).view(np.uint8).data


def restored(payload: Array, dtype: DType, shape: tuple[int, ...]) -> Array:
    """The array whose stored bytes are `payload` (uint8, flat); a view of it on little-endian
    machines.
    """
    array: Array = payload.view(dtype.newbyteorder("<")).astype(dtype, copy=False)
    return array.reshape(shape)
