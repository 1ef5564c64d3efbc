"""Writing a MGRD 1 file: arrays and plain values in, one canonical file out.

Equal content gives equal bytes. Everything that is wrong with the content is found before the disk
is touched.
"""

from __future__ import annotations

import hashlib
import os
import sys
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import DTypeError
from minigrad.files import header as headers, layout
from minigrad.files.durable import Buffer, Path, alongside, write_durably
from minigrad.files.header import Refusal

PRODUCER = "minigrad"


def write(
    path: Path,
    kind: str,
    arrays: Mapping[str, Any],
    meta: Mapping[str, Any],
    state: Mapping[str, Any] | None = None,
    *,
    call: str,
) -> str:
    """Write a file in the MGRD 1 format; `state` is a checkpoint's tree. Returns the SHA-256."""
    with headers.refusing(call, path):
        arrays = dict(arrays)
        trees = {"meta": plain(meta, ("meta",))}
        if state is not None:
            trees["state"] = plain(state, ("state",), arrays)
        stored, aliases = _store(arrays, call)
        raw = _header(kind, stored, aliases, trees)
    total = layout.file_length(len(raw), [a.nbytes for _, a in stored])
    pieces = _pieces(raw, [a for _, a in stored], total)

    def trailer() -> bytes:
        sha = hashlib.sha256()
        for piece in pieces:
            sha.update(piece)
        return layout.pack_trailer(sha.digest())

    with alongside(trailer, total) as last:
        write_durably(path, pieces, nbytes=total, last=last, call=call)
        return last()[-32:].hex()


def check_arguments(call: str, path: Any, weights: Any) -> None:
    """Raise DTypeError that shows the call to write, unless the arguments are a path and a dict
    whose values may be arrays.
    """
    checkpoint = "minigrad.files.save_checkpoint(path, model.state_dict(), "
    usual = "minigrad.save(path, model.state_dict())" if call == "save" else f"{checkpoint}state)"
    optimizers = f"{checkpoint}{{'optimizer': optimizer.state_dict()}})"
    if not isinstance(path, str | bytes | os.PathLike):
        raise wrong_kind(call, path, "the path first", usual)
    if hasattr(weights, "param_groups"):
        raise wrong_kind(call, weights, "a dict of arrays", optimizers)
    if not isinstance(weights, Mapping):
        tensor = "minigrad.save(path, {'name': tensor})"
        known = hasattr(weights, "state_dict") or not hasattr(weights, "shape")
        raise wrong_kind(call, weights, "a dict of arrays", usual if known else tensor)
    if "param_groups" in weights and "state" in weights:
        raise wrong_kind(call, weights, "a dict of arrays, not an optimizer's state", optimizers)
    for name, value in weights.items():
        if isinstance(value, Mapping) or hasattr(value, "state_dict"):
            what = f"an array for {name!r} in the dict of arrays"
            flat = "minigrad.save(path, {f'part.{name}': array for name, array in part.items()})"
            raise wrong_kind(call, value, what, f"{flat}, or {optimizers}")


def wrong_kind(call: str, got: Any, wanted: str, hint: str) -> DTypeError:
    """The error for an argument of another kind; the hint is the call to write."""
    found = type(got).__name__
    return DTypeError(call, f"expected {wanted}, got a {found}", found, wanted, f"call {hint}")


def array_in(value: Any) -> Array | None:
    """The array itself, or the one that a Tensor carries as `.data`; None for everything else,
    numpy scalars too.
    """
    held = value if isinstance(value, np.ndarray) else getattr(value, "data", None)
    return held if isinstance(held, np.ndarray) else None


def as_array(name: str, value: Any, call: str) -> Array:
    """The array to store for a Tensor, array, scalar or list; raises DTypeError for anything but
    numbers.
    """
    held = array_in(value)
    source = value if held is None else held
    if type(source) is not np.ndarray and isinstance(source, np.ma.MaskedArray):
        hint = "save .filled() and the mask as two arrays"
        problem = f"{name!r} is a masked array, and no file holds a mask"
        raise DTypeError(call, problem, "MaskedArray", hint=hint)
    try:
        array = np.asarray(source)
    except (ValueError, TypeError) as error:
        problem = f"{name!r} cannot be made an array: {error}"
        raise DTypeError(call, problem, type(value).__name__) from None
    if array.dtype.newbyteorder("=") not in layout.DTYPE_NAMES:
        hint = "convert it with astype to one of " + ", ".join(layout.DTYPES)
        problem = f"{name!r} has dtype {array.dtype}, which no file holds"
        raise DTypeError(call, problem, array.dtype, list(layout.DTYPES), hint)
    return array


def checked_arrays(
    path: Path, state_dict: Mapping[str, Any], call: str, largest: int = sys.maxsize
) -> dict[str, Array]:
    """The arrays to store in a file of another format, by name, within the limits that the readers
    hold.
    """
    with headers.refusing(call, path):
        headers.at_most("tensor-count", len(state_dict), layout.MAX_TENSORS, "tensors")
        for name in state_dict:
            headers.check_name(name)
        arrays = {n: layout.stored(as_array(n, value, call)) for n, value in state_dict.items()}
        for name, array in arrays.items():
            headers.check_shape(name, list(array.shape))
            headers.at_most("payload-limit", array.nbytes, largest, "bytes", name)
    return arrays


def plain(value: Any, path: tuple[str, ...], arrays: dict[str, Any] | None = None) -> Any:
    """The value as the header holds it: numpy scalars become Python's, tuples lists. With `arrays`,
    arrays become references to their places among them, and keys that are ints become text.

    path: the tree's name and the keys to the value. Raises Refusal for anything else.
    """
    if arrays is not None and array_in(value) is not None:
        name = headers.array_name(path[1:])
        arrays[name] = value
        return {headers.ARRAY_KEY: name}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, float, str, bytes):
        return value
    where = ".".join(path)
    if type(value) is int:
        if value not in headers.INT64:
            problem = f"{where} is {value}, wider than int64; store it as text or bytes"
            raise Refusal("int64", problem, value)
        return value
    if len(path) > layout.MAX_STATE_DEPTH + 1:
        problem = f"{where[:80]} is nested too deeply (or holds itself)"
        raise Refusal("depth", problem, wanted=layout.MAX_STATE_DEPTH)
    if isinstance(value, Mapping):
        keys = _keys(value, where, arrays is not None)
        items = zip(keys, value.values(), strict=True)
        return {key: plain(item, (*path, key), arrays) for key, item in items}
    if isinstance(value, (list, tuple)):
        return [plain(item, (*path, str(i)), arrays) for i, item in enumerate(value)]
    problem = f"{where} is a {type(value).__name__}, which a header cannot hold"
    wanted = "None, bool, int, float, str, list, dict"
    raise Refusal(f"{path[0]}-type", problem, type(value).__name__, wanted)


def _keys(value: Mapping[Any, Any], where: str, of_state: bool) -> list[str]:
    """The keys of a dict as text; in a state, ints too, but not the key of references to arrays."""
    keys = [str(key) if of_state and type(key) is int else key for key in value]
    for key in keys:
        if type(key) is not str or (of_state and key == headers.ARRAY_KEY):
            problem = f"{where} has the key {key!r}; keys are text other than {headers.ARRAY_KEY!r}"
            raise Refusal("header-key-type", problem, key, "str")
    if len(set(keys)) < len(keys):
        raise Refusal("header-key-type", f"{where} has a key twice, as int and as text", keys)
    return keys


def _store(arrays: Mapping[str, Any], call: str) -> tuple[list[tuple[str, Array]], dict[str, str]]:
    """The arrays to store, sorted by name, and the names tied to one of them."""
    for name in arrays:
        headers.check_name(name)
    found = [(name, as_array(name, arrays[name], call)) for name in sorted(arrays)]
    first: dict[Any, str] = {}
    stored, aliases = [], {}
    for name, array in found:
        target = first.setdefault(identity(array), name)
        if target == name:
            stored.append((name, layout.stored(array)))
        else:
            aliases[name] = target
    return stored, aliases


def identity(array: Array) -> Any:
    """Equal for two arrays that are the same view of the same memory."""
    if array.size == 0:
        return id(array)
    address = array.__array_interface__["data"][0]
    return address, array.shape, array.strides, array.dtype.str, array.dtype.names


def _header(
    kind: str, stored: list[tuple[str, Array]], aliases: dict[str, str], trees: dict[str, Any]
) -> bytes:
    """The bytes of the header, which has passed the reader's own checks."""
    offsets = layout.relative_offsets([a.nbytes for _, a in stored])
    crcs = _checksums([layout.as_bytes(a) for _, a in stored])
    tensors = [
        [name, layout.DTYPE_NAMES[a.dtype.newbyteorder("=")], list(a.shape), offset, a.nbytes, crc]
        for (name, a), offset, crc in zip(stored, offsets, crcs, strict=True)
    ]
    version = (layout.MAJOR, layout.MINOR)
    header: dict[str, Any] = {"format": "minigrad", "kind": kind, "version": list(version)}
    header |= {"requires": [], "producer": PRODUCER, "tensors": tensors, "aliases": aliases}
    header |= trees
    headers.check(header, version)
    raw = headers.pack(header)
    headers.at_most("header-limit", len(raw), layout.MAX_HEADER, "bytes of header")
    headers.unpack(raw)
    return raw


def _checksums(payloads: list[memoryview]) -> list[int]:
    """The crc32 of each payload; of large ones every other in a thread."""
    found = [0] * len(payloads)
    with alongside(
        lambda: [*map(zlib.crc32, payloads[1::2])], sum(p.nbytes for p in payloads)
    ) as others:
        found[::2] = map(zlib.crc32, payloads[::2])
        found[1::2] = others()
    return found


def _pieces(raw: bytes, arrays: list[Array], total: int) -> list[Buffer]:
    """Every byte of the file in order, but for the trailer, which holds the SHA-256 of these."""
    pieces: list[Buffer] = [layout.pack_preamble(len(raw), total) + raw]
    end, payload = layout.PREAMBLE_SIZE + len(raw), layout.first_payload(len(raw))
    for array in arrays:
        pieces += [layout.gap(end, payload, array.nbytes), layout.as_bytes(array)]
        end = payload + array.nbytes
        payload = layout.round_up(end + layout.GAP_SIZE)
    return pieces
