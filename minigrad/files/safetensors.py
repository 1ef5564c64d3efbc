"""Safetensors files: the library checks what is read, and we read and write the arrays.

    0     u64 little-endian: length n of the header
    8     n bytes of JSON: {"__metadata__": {text: text}, name: {"dtype": ..., "shape": [...],
          "data_offsets": [begin, end]}, ...}
    8+n   the payloads, one after the other without a hole, to the end of the file

The format has no checksums: damage to a payload cannot be seen.
From https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import needs
from minigrad.files import foreign, header as headers, layout
from minigrad.files.durable import Path, write_durably
from minigrad.files.header import Refusal, shortened
from minigrad.files.layout import FileInfo, TensorInfo
from minigrad.files.opening import OpenFile, opened
from minigrad.files.reader import StateDict, array_of, select
from minigrad.files.writer import checked_arrays

MAX_HEADER = 16 << 20
_METADATA = "__metadata__"
META = "minigrad.meta"  # the key under which meta that is not all text is kept, as JSON
# The order in which the reference implementation stores tensors: widest first, so that each is
# aligned to its size.
_ORDER = ["u64", "i64", "f64", "f32", "u32", "i32", "bf16", "f16", "u16", "i16", "i8", "u8", "bool"]


def load_safetensors(path: Path, *, names: Iterable[str] | None = None) -> StateDict:
    """Read a safetensors file: name -> numpy array (bfloat16 as minigrad's), its text metadata as
    `.meta`.

    names: only these. Raises FormatError with a `code`, MissingFileError, StateDictError for names
        that are not in the file, or MissingDependencyError without the safetensors library.
    """
    call = "load_safetensors"
    with opened(OpenFile, path, call) as file:
        info = _read_info(file)
        wanted = set(select(info.names, names, file))
        return StateDict({t.name: _read(file, t) for t in info.tensors if t.name in wanted}, info)


def peek_safetensors(path: Path) -> FileInfo:
    """Read the header only."""
    with opened(OpenFile, path, "peek") as file:
        return _read_info(file)


def _read_info(file: OpenFile) -> FileInfo:
    problem = "reading .safetensors needs the safetensors library"
    with needs(file.call, problem, "'minigrad[models]'"):
        from safetensors import SafetensorError, safe_open
    mgrd = "this is a MGRD file: name it FILE.mgrd"
    file.check(file.some_at(2, 8) != layout.MAGIC, "foreign-mgrd", mgrd)
    foreign.refuse(file.some_at(0, 24), b"", "safetensors")
    file.check(file.size >= 8, "short", f"the file ends after {file.size} bytes", file.size)
    length = int.from_bytes(file.bytes_at(0, 8), "little")
    headers.at_most("header-limit", length, MAX_HEADER, "bytes of header")
    try:
        with safe_open(file.path, framework="np"):
            header = json.loads(file.bytes_at(8, length))
    except (SafetensorError, OSError) as error:
        problem = f"this is not a safetensors file: {shortened(str(error), 200)}"
        raise Refusal("safetensors", problem) from None
    meta = _own_meta(header.pop(_METADATA, None) or {})
    tensors = [_entry(name, entry, 8 + length) for name, entry in sorted(header.items())]
    return FileInfo("safetensors", (0, 0), "", meta, tuple(tensors), {}, file.size, "")


def _own_meta(meta: dict[str, Any]) -> dict[str, Any]:
    """Meta that was kept as JSON, unpacked again; anything else stays as it is."""
    with contextlib.suppress(ValueError, RecursionError, Refusal):
        found = json.loads(meta[META]) if set(meta) == {META} else None
        if isinstance(found, dict):
            headers.check_tree("meta", found, layout.MAX_META_DEPTH)
            return found
    return meta


def _entry(name: str, entry: Mapping[str, Any], base: int) -> TensorInfo:
    """A row of a header that the library has checked, held to what our arrays can be."""
    headers.check_name(name)
    dtype, shape, (begin, end) = entry["dtype"].lower(), entry["shape"], entry["data_offsets"]
    headers.check_dtype(name, dtype, entry["dtype"])
    headers.check_shape(name, shape)
    return TensorInfo(name, dtype, tuple(shape), base + begin, end - begin, 0)


def _read(file: OpenFile, tensor: TensorInfo) -> Array:
    payload = np.empty(tensor.nbytes, np.uint8)
    for _ in file.chunks(tensor.offset, payload.data):
        pass
    return array_of(tensor, payload)


def save_safetensors(
    path: Path, state_dict: Mapping[str, Any], *, meta: Mapping[str, str] | None = None
) -> None:
    """Write named arrays to a safetensors file, durably. Tied names are written each in full.

    meta: text -> text. Raises DTypeError, FormatError and SaveError like `minigrad.save`.
    """
    call = "save_safetensors"
    found = list(checked_arrays(path, state_dict, call).items())
    found.sort(key=lambda pair: (_ORDER.index(_dtype_name(pair[1])), pair[0]))
    with headers.refusing(call, path):
        raw = _pack_header(found, dict(meta or {}))
    pieces: list[bytes | memoryview] = [raw, *(layout.as_bytes(array) for _, array in found)]
    write_durably(path, pieces, nbytes=sum(map(len, pieces)), call=call)


def _dtype_name(array: Array) -> str:
    return layout.DTYPE_NAMES[array.dtype.newbyteorder("=")]


def _pack_header(found: list[tuple[str, Array]], meta: dict[Any, Any]) -> bytes:
    texts = [text for pair in meta.items() for text in pair]
    if not all(map(_is_text, texts)):
        raise Refusal("meta-type", "the meta of a safetensors file must be text -> text", meta)
    header: dict[str, Any] = {_METADATA: meta} if meta else {}
    end = 0
    for name, array in found:
        if name == _METADATA:
            raise Refusal("name-reserved", f"safetensors reserves the name {_METADATA}", name)
        offsets = [end, end := end + array.nbytes]
        dtype = _dtype_name(array).upper()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
    raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    headers.at_most("header-limit", len(raw), MAX_HEADER, "bytes of header")
    return len(raw).to_bytes(8, "little") + raw


def _is_text(value: Any) -> bool:
    """True for a str without lone surrogates."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)
