"""The header of a MGRD 1 file: strict decoding, the schema, canonical encoding.

The writer passes its own header through the reader's checks, so both hold the same limits. Knows
bytes and plain Python values; no file.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import unicodedata
from collections.abc import Iterator
from typing import Any

import msgpack

from minigrad.errors import FormatError
from minigrad.files import layout
from minigrad.files.layout import DTYPES, TensorInfo

KINDS = ("weights", "checkpoint")
# msgpack without its C extension: 30 times slower
PURE_DECODER = msgpack.Unpacker.__module__.endswith("fallback")
# How a checkpoint's state points to its arrays among the tensors
ARRAY_KEY, ARRAY_PREFIX = "$array", "state/"
_TYPES: dict[str, type] = {
    **dict.fromkeys(("format", "kind", "producer"), str),
    **dict.fromkeys(("version", "requires", "tensors"), list),
    **dict.fromkeys(("aliases", "meta", "state"), dict),
}
INT64 = range(-(2**63), 2**63)
_UINT32 = range(2**32)
_LEAVES = {type(None), bool, int, float, str}


class Refusal(Exception):
    """A broken rule, on its way to the FormatError that adds the call and the file."""

    def __init__(self, code: str, problem: str, got: Any = None, wanted: Any = None) -> None:
        super().__init__(problem)
        self.code, self.problem, self.got, self.wanted = code, problem, got, wanted


@contextlib.contextmanager
def refusing(call: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn a Refusal of the block into a FormatError that names the call and the file."""
    try:
        yield
    except Refusal as no:
        problem = f"{os.fsdecode(path)}: {no.problem}"
        raise FormatError(call, problem, code=no.code, got=no.got, wanted=no.wanted) from None


def at_most(code: str, got: int, limit: int, unit: str, name: str | None = None) -> None:
    """Refuse a number above its limit; `name` is that of the tensor it belongs to."""
    if got > limit:
        where = "" if name is None else f"tensor {shortened(name)}: "
        raise Refusal(code, f"{where}{got:,} {unit}; {limit:,} is the limit", got, limit)


def pack(header: dict[str, Any]) -> bytes:
    """The canonical encoding of a checked header: keys sorted everywhere, shortest forms. Raises
    Refusal for values that msgpack cannot hold.
    """
    try:
        packed = msgpack.packb(_sorted(header), strict_types=True)
    except (ValueError, TypeError, OverflowError) as error:
        raise Refusal("header-value", f"the header cannot hold this: {error}") from None
    assert isinstance(packed, bytes)
    return packed


def _sorted(value: Any) -> Any:
    if type(value) is dict:
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if type(value) is list else value


def unpack(raw: bytes) -> dict[str, Any]:
    """Decode the bytes of a header: one map, keys str, sorted and unique at every level, no ext
    types, canonical to the byte.
    """
    if PURE_DECODER:
        unit = "bytes of header for msgpack in pure Python, without its C extension"
        at_most("header-limit", len(raw), layout.MAX_PURE_HEADER, unit)
    hooks = _Hooks(len(raw))
    try:
        header = msgpack.unpackb(
            raw,
            raw=False,
            strict_map_key=True,
            list_hook=hooks.sequence,
            object_pairs_hook=hooks.mapping,
            ext_hook=hooks.ext,
            max_str_len=layout.MAX_STRING,
            max_bin_len=layout.MAX_STRING,
            max_array_len=layout.MAX_TENSORS,
            max_map_len=layout.MAX_TENSORS,
            max_ext_len=0,
        )
    except Exception as error:
        raise _explain(error) from None
    if type(header) is not dict:
        raise Refusal("header-not-a-map", "the header is not a map", type(header).__name__, "map")
    try:
        canonical = msgpack.packb(header, strict_types=True)
    except (ValueError, TypeError, OverflowError) as error:
        code = "header-depth" if "recursion" in str(error) else "header-type"
        raise Refusal(code, f"the header holds what it may not: {error}") from None
    if canonical != raw:
        raise Refusal("header-not-canonical", "the header is not in the shortest msgpack encoding")
    return header


class _Hooks:
    """What msgpack calls for every container and ext object: refuses what is not canonical, and
    what would fill the memory.
    """

    def __init__(self, nbytes: int) -> None:
        # A map of one byte becomes 240 bytes of Python; real headers spend at least 5 bytes per
        # list or map.
        self.left = 4096 + nbytes // 5

    def sequence(self, items: list[Any]) -> list[Any]:
        self.left -= 1
        if self.left < 0:
            problem = "the header has more lists and maps than a fifth of its bytes"
            raise Refusal("header-objects", problem)
        return items

    def mapping(self, pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in self.sequence(pairs)]
        if not all(type(key) is str for key in keys):
            raise _no_text()
        if any(before >= after for before, after in itertools.pairwise(keys)):
            for before, after in itertools.pairwise(sorted(keys)):
                if before == after:
                    problem = f"the key {shortened(after)} stands twice in one map"
                    raise Refusal("header-duplicate-key", problem, after)
            raise Refusal("header-key-order", "the keys of a map are not sorted")
        return dict(pairs)

    def ext(self, code: int, data: bytes) -> Any:
        raise Refusal("header-ext", f"the header holds a msgpack ext type ({code})", code)


def _no_text() -> Refusal:
    return Refusal("header-key-type", "a key of the header is not text", wanted="str")


def _explain(error: Exception) -> Refusal:
    """The broken rule for what msgpack raises."""
    text = str(error)
    if isinstance(error, Refusal):
        return error
    if isinstance(error, msgpack.ExtraData):
        left = len(error.extra)
        return Refusal("header-extra-bytes", f"{left} bytes left over inside the header", left)
    if isinstance(error, (msgpack.StackError, RecursionError)):
        most = layout.MAX_STATE_DEPTH
        return Refusal("header-depth", f"the header is nested more than {most} deep", wanted=most)
    if isinstance(error, UnicodeDecodeError):
        return Refusal("header-utf8", "the header holds text that is not UTF-8")
    if "max_ext_len" in text:
        return Refusal("header-ext", "the header holds a msgpack ext type; none is allowed")
    if "exceeds max_" in text:
        return Refusal("header-length", f"something in the header is too long: {text}")
    if "map key" in text or "strict_map_key" in text:
        return _no_text()
    return Refusal("header-msgpack", f"the header is not msgpack: {text or type(error).__name__}")


def check(header: dict[str, Any], version: tuple[int, int]) -> None:
    """Hold a decoded header against the schema; raises Refusal. `version` is the preamble's."""
    _check_keys(header, version)
    checkpoint = header["kind"] == "checkpoint"
    _one_of("format", header["format"], "minigrad")
    _one_of("kind", header["kind"], *KINDS)
    for field, kind in _TYPES.items():
        if field != "state" or checkpoint:
            _typed(field, header[field], kind)
    if (found := header["version"]) != list(version):
        problem = f"version is {shortened(found)} instead of {list(version)}"
        raise Refusal("header-version", problem, found, list(version))
    for part in found:
        _typed("version", part, int)
    for feature in header["requires"]:  # none is known yet
        _typed("requires", feature, str)
        problem = f"needs the feature {shortened(feature)}, unknown here: upgrade minigrad"
        raise Refusal("feature", problem, feature)
    names, aliases = _check_table(header["tensors"]), header["aliases"]
    _check_aliases(aliases, set(names))
    at_most("tensor-count", len(names) + len(aliases), layout.MAX_TENSORS, "tensors")
    check_tree("meta", header["meta"], layout.MAX_META_DEPTH)
    if checkpoint:
        check_tree("state", header["state"], layout.MAX_STATE_DEPTH, with_bytes=True)
        _check_references(header["state"], [*names, *aliases])


def tensor_infos(header: dict[str, Any], base: int) -> tuple[TensorInfo, ...]:
    """The tensor table of a checked header, offsets counted from the beginning of the file; `base`
    is where the first payload begins.
    """
    return tuple(
        TensorInfo(n, d, tuple(s), base + o, b, c) for n, d, s, o, b, c in header["tensors"]
    )


def _check_keys(header: dict[str, Any], version: tuple[int, int]) -> None:
    wanted = _TYPES.keys() - (set() if header.get("kind") == "checkpoint" else {"state"})
    missing, unknown = sorted(wanted - header.keys()), sorted(header.keys() - wanted)
    if missing:
        problem = f"the header lacks {', '.join(missing)}"
        raise Refusal("header-key-missing", problem, sorted(header), sorted(wanted))
    # A newer minor version may say more; what a reader must understand of it is named in
    # `requires`.
    if unknown and version[1] <= layout.MINOR:
        problem = f"the header has an unknown key: {shortened(unknown[0])}"
        raise Refusal("header-key-unknown", problem, unknown, sorted(wanted))


def _check_table(rows: list[Any]) -> list[str]:
    """The names of the tensor table, whose rows, order and offsets are as they must be."""
    for row in rows:
        _check_row(row)
    names = [row[0] for row in rows]
    for before, after in itertools.pairwise(names):
        if before == after:
            raise Refusal("name-twice", f"the name {shortened(after)} is twice in the table", after)
        if before > after:
            problem = f"the table is not sorted: {shortened(before)} before {shortened(after)}"
            raise Refusal("table-order", problem)
    for row, right in zip(rows, layout.relative_offsets([row[4] for row in rows]), strict=True):
        if (offset := row[3]) != right:
            problem = f"tensor {shortened(row[0])} says offset {shortened(offset)}, not {right}"
            raise Refusal(_offset_code(offset, right), problem, offset, right)
    return names


def _check_row(row: Any) -> None:
    if type(row) is not list or len(row) != 6:
        problem = "a row of the tensor table is not [name, dtype, shape, offset, nbytes, crc32]"
        raise Refusal("tensor-entry", problem, row)
    name, dtype, shape, offset, nbytes, crc = row
    check_name(name)
    check_dtype(name, dtype, dtype)
    check_shape(name, shape)
    for label, number in (("offset", offset), ("nbytes", nbytes), ("crc32", crc)):
        _typed(label, number, int, name)
    wanted = math.prod(shape) * DTYPES[dtype].itemsize
    if nbytes != wanted:
        problem = f"tensor {shortened(name)} says {nbytes} bytes instead of {wanted}"
        raise Refusal("nbytes", problem, nbytes, wanted)
    at_most("payload-limit", nbytes, layout.MAX_PAYLOAD, "bytes", name)
    if crc not in _UINT32:
        raise Refusal("crc-range", f"tensor {shortened(name)} has a crc32 outside 32 bits", crc)


def check_dtype(name: str, dtype: Any, written: Any) -> None:
    """Refuse a dtype that is not one of a MGRD file's; `written` is how the file spells it."""
    if type(dtype) is not str or dtype not in DTYPES:
        problem = f"tensor {shortened(name)} has the unknown dtype {shortened(written)}"
        raise Refusal("dtype", problem, written, list(DTYPES))


def check_shape(name: str, shape: Any) -> None:
    """A shape that numpy can hold: a list of at most 32 ints from 0 to 2^48, within 64 bits in all;
    raises Refusal.
    """
    at_most("rank", len(_typed("shape", shape, list, name)), layout.MAX_RANK, "dimensions", name)
    for dim in shape:
        if not 0 <= _typed("shape", dim, int, name) <= layout.MAX_DIM:
            problem = f"tensor {shortened(name)} has a dimension of {dim}; 0 to 2^48 is allowed"
            raise Refusal("dimension", problem, dim)
    # numpy multiplies the other dimensions of an empty array too, in 64 bits.
    if math.prod(dim for dim in shape if dim) * 8 not in INT64:
        raise Refusal("shape-overflow", f"the shape of {shortened(name)} overflows 64 bits", shape)


def check_name(name: Any) -> None:
    """A tensor's name: 1 to 512 bytes of UTF-8 in NFC without control characters or surrogates;
    raises Refusal.
    """
    if type(name) is not str:
        raise Refusal("name-type", "a tensor's name is not text", type(name).__name__, "str")
    if not name:
        raise Refusal("name-empty", "a tensor's name is empty")
    if any("\ud800" <= c <= "\udfff" for c in name):
        raise Refusal("name-surrogate", f"the name {name[:40]!a} holds half a surrogate pair", name)
    if len(name) > layout.MAX_NAME or len(name.encode()) > layout.MAX_NAME:
        problem = f"the name {name[:40]!r}... is longer than {layout.MAX_NAME} bytes"
        raise Refusal("name-length", problem, name)
    if any(c < " " or "\x7f" <= c <= "\x9f" for c in name):
        raise Refusal("name-control", f"the name {shortened(name)} holds a control character", name)
    if not name.isascii() and not unicodedata.is_normalized("NFC", name):
        raise Refusal("name-nfc", f"the name {name[:80]!a} is not in Unicode normal form NFC", name)


def _offset_code(offset: int, right: int) -> str:
    if offset < 0:
        return "offset-negative"
    if offset % layout.ALIGNMENT:
        return "offset-misaligned"
    return "offset-overlap" if offset < right else "offset-hole"


def _check_aliases(aliases: dict[str, Any], stored: set[str]) -> None:
    for alias, target in aliases.items():
        check_name(alias)
        said = f"the tied name {shortened(alias)}"
        if type(target) is not str or target not in stored:
            problem = f"{said} points to {shortened(target)}, not a tensor"
            raise Refusal("alias-target", problem, target)
        if alias in stored:
            raise Refusal("alias-twice", f"{said} is that of a tensor too", alias)
        if alias < target:
            raise Refusal("alias-order", f"{said} comes before {shortened(target)}", alias)


def check_tree(where: str, tree: dict[str, Any], depth: int, with_bytes: bool = False) -> None:
    """Plain values only, int64, at most `depth` levels. Level by level, since there can be a
    million values.
    """
    level: list[Any] = [tree]
    allowed = _LEAVES | {dict, list} | ({bytes} if with_bytes else set())
    while level:
        if depth == 0:
            raise Refusal("depth", f"{where} is nested too deeply")
        inner: list[Any] = []
        for container in level:
            items = container if type(container) is list else container.values()
            kinds = set(map(type, items))
            if not kinds <= allowed:
                odd = (kinds - allowed).pop().__name__
                raise Refusal(f"{where}-type", f"{where} holds what it may not: {odd}", odd)
            # msgpack itself goes down to -2^63 and up to 2^64 - 1.
            numbers = items if kinds == {int} else [item for item in items if type(item) is int]
            if int in kinds and (largest := max(numbers)) not in INT64:
                raise Refusal("int64", f"{where} holds {largest}, which is not an int64", largest)
            if dict in kinds or list in kinds:
                inner += [item for item in items if type(item) is dict or type(item) is list]
        level, depth = inner, depth - 1


def array_name(path: tuple[str, ...]) -> str:
    """The name under which an array at this path of a checkpoint's state is stored among the
    tensors.
    """
    return ARRAY_PREFIX + "/".join(part.replace("%", "%25").replace("/", "%2F") for part in path)


def _check_references(state: dict[str, Any], names: list[str]) -> None:
    """Every array of the state is pointed to exactly from its own place."""
    stored = {name for name in names if name.startswith(ARRAY_PREFIX)}
    for path, value in _references(state):
        name = array_name(path)
        if value != {ARRAY_KEY: name} or not path:
            problem = f"the state at {shortened('.'.join(path))} points elsewhere"
            raise Refusal("state-reference", problem, value, name)
        if name not in stored:
            problem = f"the state points to {shortened(name)}, which is not in the tensor table"
            raise Refusal("state-arrays", problem, name)
        stored.remove(name)
    if stored:
        problem = f"the state does not point to {shortened(min(stored))} of the tensor table"
        raise Refusal("state-arrays", problem)


def _references(
    value: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """(path, map) of every map with `$array` in the state, which is 32 levels deep at most."""
    if type(value) is dict and ARRAY_KEY in value:
        yield path, value
    elif holds_containers(value):
        for key, item in value.items() if type(value) is dict else enumerate(value):
            if type(item) is dict or type(item) is list:
                yield from _references(item, (*path, str(key)))


def holds_containers(value: dict[str, Any] | list[Any]) -> bool:
    """True if a list or map is in it. A state can hold millions of numbers: this looks at them
    without a step of Python for each.
    """
    kinds = set(map(type, value if type(value) is list else value.values()))  # type: ignore[union-attr]
    return dict in kinds or list in kinds


def shortened(value: Any, limit: int = 80) -> str:
    """The repr for an error line, which must not be as long as the file wants it."""
    text = repr(value[: limit + 1] if isinstance(value, (str, bytes, list)) else value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _typed(field: str, value: Any, kind: type, name: str | None = None) -> Any:
    if type(value) is not kind:
        where = field if name is None else f"{field} of {shortened(name)}"
        found, wanted = type(value).__name__, kind.__name__
        problem = f"{where} is of type {found} instead of {wanted}"
        raise Refusal("field-type", problem, found, wanted)
    return value


def _one_of(field: str, value: Any, *wanted: str) -> None:
    if type(value) is not str or value not in wanted:
        problem = f"{field} is {shortened(value)} instead of {' or '.join(wanted)}"
        raise Refusal(f"header-{field}", problem, value, wanted)
