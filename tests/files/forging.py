"""Building MGRD files by hand, right or wrong in one chosen place, with everything else repaired
around it; and npz archives of any members.

A second implementation of the layout: it uses nothing of the library, so the two must agree.
"""

import hashlib
import io
import struct
import zipfile
import zlib

import msgpack
import numpy as np

MAGIC = b"\x89MGRD\r\n\x1a"


def entry(name, dtype, shape, payload, offset=0, **wrong):
    fields = {
        "name": name,
        "dtype": dtype,
        "shape": shape,
        "offset": offset,
        "nbytes": len(payload),
    }
    fields |= {"crc32": zlib.crc32(payload)} | wrong
    return list(fields.values())


PAYLOADS = [b"\x00\x01", struct.pack("<3f", 1.0, 2.0, 3.0)]


def header(**changes):
    """The header of a small good file of two tensors, with changes; a value of ... leaves the key
    out.
    """
    good = {
        "aliases": {"tied": "a"},
        "format": "minigrad",
        "kind": "weights",
        "meta": {"lr": 0.5, "n": 3},
        "producer": "minigrad",
        "requires": [],
        "tensors": [
            entry("a", "bool", [2], PAYLOADS[0]),
            entry("b", "f32", [3], PAYLOADS[1], offset=64),
        ],
        "version": [1, 0],
    }
    return {key: value for key, value in sorted((good | changes).items()) if value is not ...}


def preamble(header_len, file_len, *, major=1, minor=0, crc=0, reserved=0, magic=MAGIC):
    fields = struct.pack("<8sHHIQ", magic, major, minor, header_len, file_len)
    return b"\xc4\x1e" + fields + struct.pack("<IH", zlib.crc32(fields) ^ crc, reserved)


def trailer(before):
    return b"\xc4\x28MGRDEND\0" + hashlib.sha256(before).digest()


def body(raw, payloads=PAYLOADS):
    """Header and tensors as they lie after the preamble."""
    content = raw
    for payload in payloads:
        zeros = -(32 + len(content) + 10) % 64
        content += (
            b"\xc6"
            + struct.pack(">I", zeros)
            + bytes(zeros)
            + b"\xc6"
            + struct.pack(">I", len(payload))
            + payload
        )
    return content


def seal(content, length, **wrong):
    """The whole file around a header of this length and tensors; `wrong` goes to the preamble."""
    start = preamble(**{"header_len": length, "file_len": 32 + len(content) + 42} | wrong)
    return start + content + trailer(start + content)


def forge(head=None, payloads=PAYLOADS, **wrong):
    """A file with this header (a dict, or its bytes) and these payloads."""
    raw = head if isinstance(head, bytes) else msgpack.packb(header() if head is None else head)
    return seal(body(raw, payloads), len(raw), **wrong)


def reseal(content):
    """The same bytes with a right SHA-256."""
    return content[:-42] + trailer(content[:-42])


def npz(members, compression=zipfile.ZIP_STORED, comment=b""):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        archive.comment = comment
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=compression)
    return content.getvalue()


def npy(array):
    content = io.BytesIO()
    np.lib.format.write_array(content, array)
    return content.getvalue()
