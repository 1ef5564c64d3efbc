"""Reading and writing safetensors files, validated like our own.

    0     u64 little-endian: length n of the header
    8     n bytes of JSON: {"__metadata__": {text: text}, name: {"dtype": ..., "shape": [...],
        "data_offsets": [begin,
    end]}, ...} 8+n   the payloads, one after the other without a hole, to the end of the file

The format has no checksums: damage to a payload cannot be seen. From
    https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np

from minigrad.dtypes import Array
from minigrad.files import foreign, header as headers, layout
from minigrad.files.durable import Path, write_durably
from minigrad.files.header import Refusal, shortened
from minigrad.files.layout import DTYPES, FileInfo, TensorInfo
from minigrad.files.opening import OpenFile, within_memory
from minigrad.files.reader import StateDict, check_bool, select
from minigrad.files.writer import checked_arrays

MAX_HEADER = 16 << 20
MAX_VALUES = (
    1_000_000  # commas and brackets of a header, in texts too: more would take seconds to parse
)
_METADATA = "__metadata__"
# The order in which the reference implementation lays tensors out: widest first, so that each is
# aligned to its size.
_ORDER = ["u64", "i64", "f64", "f32", "u32", "i32", "bf16", "f16", "u16", "i16", "i8", "u8", "bool"]


def load_safetensors(path: Path, *, names: Iterable[str] | None = None) -> StateDict:
    """Read a safetensors file: name -> numpy array (bfloat16 as minigrad's), its text metadata as
    `.meta`.

    names: only these. Raises FormatError with a `code`, MissingFileError, or StateDictError for
        names that are not in
    the file.
    """
    call = "load_safetensors"
    with within_memory(call, path), contextlib.closing(OpenFile(path, call)) as file:
        info = _read_info(file)
        wanted = set(select(info.names, names, file))
        arrays = {t.name: _read(file, t) for t in info.tensors if t.name in wanted}
        file.check_unchanged()
        return StateDict(arrays, info)


def peek_safetensors(path: Path) -> FileInfo:
    """Read the header only."""
    with contextlib.closing(OpenFile(path, "peek_safetensors")) as file:
        return _read_info(file)


def save_safetensors(
    path: Path, state_dict: Mapping[str, Any], *, meta: Mapping[str, str] | None = None
) -> None:
    """Write named arrays to a safetensors file, durably. Tied names are written each in full.

    meta: text -> text. Raises DTypeError, FormatError and SaveError like `minigrad.files.save`.
    """
    call = "save_safetensors"
    found = list(checked_arrays(path, state_dict, call).items())
    found.sort(key=lambda pair: (_ORDER.index(_dtype_name(pair[1])), pair[0]))
    try:
        for name in state_dict:
            _check_name(name)
        raw = _pack_header(found, _check_meta(dict(meta or {})))
    except Refusal as refusal:
        raise refusal.at(call, os.fsdecode(path)) from None
    pieces: list[bytes | memoryview] = [raw, *(layout.as_bytes(array) for _, array in found)]
    write_durably(path, pieces, nbytes=sum(map(len, pieces)), call=call)


def _dtype_name(array: Array) -> str:
    return layout.DTYPE_NAMES[array.dtype.newbyteorder("=")]


def _pack_header(found: list[tuple[str, Array]], meta: Mapping[str, str] | None) -> bytes:
    header: dict[str, Any] = {_METADATA: dict(meta)} if meta else {}
    end = 0
    for name, array in found:
        offsets = [end, end := end + array.nbytes]
        header[name] = {
            "dtype": _dtype_name(array).upper(),
            "shape": list(array.shape),
            "data_offsets": offsets,
        }
    raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    if len(raw) > MAX_HEADER:
        raise Refusal(
            "header-limit", f"the header would have {len(raw):,} bytes; {MAX_HEADER:,} is the limit"
        )
    _check_values(raw)
    return len(raw).to_bytes(8, "little") + raw


def _check_name(name: Any) -> None:
    headers.check_name(name)
    if name == _METADATA:
        raise Refusal("name-reserved", f"safetensors keeps the name {_METADATA} for itself", name)


# ---- reading
# ---------------------------------------------------------------------------------------------------
# - -


def _read_info(file: OpenFile) -> FileInfo:
    head = file.some_at(0, 16)
    file.check(len(head) > 0, "empty", "the file is empty")
    file.check(len(head) >= 8, "short", f"the file ends after {file.size} bytes")
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or length > MAX_HEADER:
        found = foreign.recognise(head, file.some_at(max(0, file.size - 4096), 4096))
        if head.startswith(b"\xc4\x1e"):
            found = ("mgrd", "a minigrad file: minigrad.files.load reads it")
        if found and found[0] != "safetensors":
            file.refuse(f"foreign-{found[0]}", f"this is {found[1]}", found[0], "safetensors")
    file.check(length > 0, "header-empty", "the header has 0 bytes")
    file.check(
        length <= MAX_HEADER,
        "header-limit",
        f"a header of {length:,} bytes; {MAX_HEADER:,} is the limit",
    )
    file.check(
        8 + length <= file.size,
        "header-past-end",
        f"a header of {length:,} bytes does not fit the file",
    )
    try:
        header = _decode(file.bytes_at(8, length))
        meta = _check_meta(header.pop(_METADATA, {}))
        tensors = _check_tensors(header, 8 + length, file.size)
    except Refusal as refusal:
        raise refusal.at(file.call, file.path) from None
    return FileInfo("safetensors", (0, 0), "", meta, tensors, {}, file.size, "")


def _decode(raw: bytes) -> dict[str, Any]:
    """The JSON of a header: an object, no key twice, no numbers but 64-bit integers."""
    if raw[:1] != b"{":
        raise Refusal("header-json", "the header does not begin with {")
    _check_values(raw)
    objects = 0

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal objects
        objects += 1
        if objects > layout.MAX_TENSORS + 2:
            raise Refusal("tensor-count", f"the header has more than {layout.MAX_TENSORS} entries")
        found = dict(pairs)
        if len(found) != len(pairs):
            raise Refusal(
                "header-duplicate-key",
                "a key stands twice in the header",
                [key for key, _ in pairs],
            )
        return found

    try:
        header = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=unique,
            parse_int=_integer,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
    except UnicodeDecodeError:
        raise Refusal("header-utf8", "the header holds text that is not UTF-8") from None
    except RecursionError:
        raise Refusal("header-depth", "the header is nested too deeply") from None
    except ValueError as error:
        raise Refusal("header-json", f"the header is not JSON: {error}") from None
    assert isinstance(header, dict)
    return header


def _check_values(raw: bytes) -> None:
    count = raw.count(b",") + raw.count(b"[")
    if count > MAX_VALUES:
        raise Refusal(
            "header-values",
            f"the header has {count:,} commas and brackets; {MAX_VALUES:,} is the limit",
            count,
            MAX_VALUES,
        )


def _integer(text: str) -> int:
    if text == "-0":
        _no_number(text)
    if len(text) > 19:
        raise Refusal("int64", f"the header holds a number of {len(text)} digits")
    return int(text)


def _no_number(text: str) -> NoReturn:
    raise Refusal(
        "field-type", f"the header holds the number {text[:40]}; only integers are allowed", text
    )


def _check_meta(meta: Any) -> dict[str, str]:
    if type(meta) is not dict or not all(
        type(key) is type(value) is str for key, value in meta.items()
    ):
        raise Refusal("meta-type", f"{_METADATA} is not a map of text to text")
    if any(
        "\ud800" <= c <= "\udfff"
        for pair in meta.items()
        for text in pair
        if not text.isascii()
        for c in text
    ):
        raise Refusal("meta-surrogate", f"{_METADATA} holds half a surrogate pair")
    return meta


def _check_tensors(header: dict[str, Any], base: int, size: int) -> tuple[TensorInfo, ...]:
    """The table of tensors: they cover the rest of the file, without overlap, hole or trailing
    bytes.
    """
    if len(header) > layout.MAX_TENSORS:
        raise Refusal(
            "tensor-count", f"{len(header)} tensors; {layout.MAX_TENSORS} is the limit", len(header)
        )
    found = [_entry(name, fields, base) for name, fields in header.items()]
    found.sort(key=lambda t: (t.offset, t.nbytes, t.name))
    end = base
    for tensor in found:
        if tensor.offset != end:
            code = "offset-overlap" if tensor.offset < end else "offset-hole"
            raise Refusal(
                code,
                f"tensor {tensor.name!r} begins at {tensor.offset} instead of {end}",
                tensor.offset,
                end,
            )
        end += tensor.nbytes
    if end > size:
        raise Refusal("cut", f"the file is cut: {size:,} of {end:,} bytes are there", size, end)
    if end < size:
        raise Refusal("trailing-bytes", f"{size - end:,} bytes too many at the end", size, end)
    return tuple(sorted(found, key=lambda t: t.name))


def _entry(name: str, fields: Any, base: int) -> TensorInfo:
    _check_name(name)
    if type(fields) is not dict or set(fields) != {"dtype", "shape", "data_offsets"}:
        raise Refusal(
            "tensor-entry",
            f"the entry of {name!r} does not hold just dtype, shape and data_offsets",
            fields,
        )
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if type(dtype) is not str or not dtype.isupper() or dtype.lower() not in DTYPES:
        raise Refusal(
            "dtype",
            f"tensor {name!r} has the dtype {shortened(dtype)}, which minigrad has not",
            dtype,
            [d.upper() for d in DTYPES],
        )
    headers.check_shape(name, shape)
    if type(offsets) is not list or len(offsets) != 2 or not all(type(o) is int for o in offsets):
        raise Refusal("field-type", f"data_offsets of {name!r} are not two integers", offsets)
    begin, end = offsets
    if begin < 0 or end < begin:
        raise Refusal(
            "offset-negative", f"data_offsets of {name!r} run backwards: {offsets}", offsets
        )
    wanted = math.prod(shape) * DTYPES[dtype.lower()].itemsize
    if end - begin != wanted:
        raise Refusal(
            "nbytes",
            f"tensor {name!r} says {end - begin} bytes instead of {wanted}",
            end - begin,
            wanted,
        )
    return TensorInfo(name, dtype.lower(), tuple(shape), base + begin, wanted, 0)


def _read(file: OpenFile, tensor: TensorInfo) -> Array:
    payload = np.empty(tensor.nbytes, np.uint8)
    for _ in file.chunks(tensor.offset, payload.data):
        pass
    check_bool(file, tensor, payload)
    return layout.restored(payload, DTYPES[tensor.dtype], tensor.shape)
