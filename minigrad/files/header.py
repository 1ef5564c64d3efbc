"""The header of a MGRD 1 file: strict decoding, the schema, canonical encoding.

The writer passes its own header through the reader's checks, so both hold the same limits. Knows
bytes and plain Python values; no file.
"""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Iterator
from typing import Any

import msgpack

from minigrad.errors import FormatError
from minigrad.files import layout
from minigrad.files.layout import DTYPES, TensorInfo

KINDS = ("weights", "checkpoint")
PURE_DECODER = msgpack.Unpacker.__module__.endswith(
    "fallback"
)  # msgpack without its C extension: 30 times slower
KNOWN_FEATURES: frozenset[str] = frozenset()
ARRAY_KEY, ARRAY_PREFIX = (
    "$array",
    "state/",
)  # how a checkpoint's state points to its arrays among the tensors
_KEYS = {"aliases", "format", "kind", "meta", "producer", "requires", "tensors", "version"}
INT64 = range(-(2**63), 2**63)
_UINT32 = range(2**32)
_LEAVES = {type(None), bool, int, float, str}


class Refusal(Exception):
    """A broken rule, on its way to the FormatError that adds the call and the file."""

    def __init__(self, code: str, problem: str, got: Any = None, wanted: Any = None) -> None:
        super().__init__(problem)
        self.code, self.problem, self.got, self.wanted = code, problem, got, wanted

    def at(self, call: str, path: str) -> FormatError:
        """The error that the user sees."""
        where = f"{path}: " if path else ""
        return FormatError(
            call, where + self.problem, code=self.code, got=self.got, wanted=self.wanted
        )


def pack(header: dict[str, Any]) -> bytes:
    """The canonical encoding:

    Keys sorted at every level, shortest forms. Raises Refusal for values that msgpack has no room
    for.
    """
    try:
        packed = msgpack.packb(_sorted(header, 0), strict_types=True)
    except (ValueError, TypeError, OverflowError) as error:
        raise Refusal("header-value", f"the header cannot hold this: {error}") from None
    assert isinstance(packed, bytes)
    return packed


def _sorted(value: Any, depth: int) -> Any:
    if depth > layout.MAX_STATE_DEPTH + 2:
        problem = f"nested more than {layout.MAX_STATE_DEPTH} deep"
        raise Refusal("header-depth", problem, wanted=layout.MAX_STATE_DEPTH)
    if type(value) is dict:
        return {key: _sorted(value[key], depth + 1) for key in sorted(value)}
    if type(value) is list:
        return [_sorted(item, depth + 1) for item in value]
    return value


def unpack(raw: bytes) -> dict[str, Any]:
    """Decode the bytes of a header:

    One map, keys str, sorted and unique at every level, no ext types, canonical to the byte.
    """
    if PURE_DECODER and len(raw) > layout.MAX_PURE_HEADER:
        problem = (
            f"a header of {len(raw):,} bytes is too long for msgpack in pure Python; "
            "install "
            "it with its C extension"
        )
        raise Refusal("header-limit", problem, len(raw), layout.MAX_PURE_HEADER)
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
        raise Refusal("header-not-a-map", "the header is no map", type(header).__name__, "map")
    try:
        canonical = msgpack.packb(header, strict_types=True)
    except (ValueError, TypeError, OverflowError) as error:
        code = "header-depth" if "recursion" in str(error) else "header-type"
        raise Refusal(code, f"the header holds what it may not: {error}") from None
    if canonical != raw:
        raise Refusal("header-not-canonical", "the header is not in the shortest msgpack encoding")
    return header


class _Hooks:
    """What msgpack calls for every container and ext object:

    Refuses what is not canonical, and what would fill the memory.
    """

    def __init__(self, nbytes: int) -> None:
        # A map of one byte becomes 240 bytes of Python; real headers spend at least 5 bytes per
        # list or map.
        self.left = 4096 + nbytes // 5

    def sequence(self, items: list[Any]) -> list[Any]:
        self.count()
        return items

    def mapping(self, pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        self.count()
        if len(pairs) == 1 and type(pairs[0][0]) is str:
            return dict(pairs)
        keys = [key for key, _ in pairs]
        if not all(type(key) is str for key in keys):
            raise Refusal("header-key-type", "a key of the header is no text", wanted="str")
        in_order = sorted(keys)
        for before, after in itertools.pairwise(in_order):
            if before == after:
                problem = f"the key {shortened(after)} stands twice in one map"
                raise Refusal("header-duplicate-key", problem, after)
        if keys != in_order:
            raise Refusal("header-key-order", "the keys of a map are not sorted")
        return dict(pairs)

    def ext(self, code: int, data: bytes) -> Any:
        raise Refusal(
            "header-ext", f"the header holds a msgpack ext type ({code}); none is allowed", code
        )

    def count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Refusal(
                "header-objects", "the header has more lists and maps than a fifth of its bytes"
            )


def _explain(error: Exception) -> Refusal:
    if isinstance(error, Refusal):
        return error
    if isinstance(error, msgpack.ExtraData):
        return Refusal(
            "header-extra-bytes",
            f"{len(error.extra)} bytes left over inside the header",
            got=len(error.extra),
        )
    if isinstance(error, (msgpack.StackError, RecursionError)):
        return Refusal(
            "header-depth", "the header is nested too deeply", wanted=layout.MAX_STATE_DEPTH
        )
    if isinstance(error, UnicodeDecodeError):
        return Refusal("header-utf8", "the header holds text that is not UTF-8")
    text = str(error)
    if "max_ext_len" in text:
        return Refusal("header-ext", "the header holds a msgpack ext type; none is allowed")
    if "exceeds max_" in text:
        return Refusal("header-length", f"something in the header is too long: {text}")
    if "map key" in text or "strict_map_key" in text:
        return Refusal("header-key-type", "a key of the header is no text", wanted="str")
    return Refusal("header-msgpack", f"the header is not msgpack: {text or type(error).__name__}")


def check(header: dict[str, Any], version: tuple[int, int]) -> None:
    """Hold a decoded header against the schema; raises Refusal. `version` is the preamble's."""
    _check_keys(header, version)
    _equal("format", header["format"], "minigrad")
    _one_of("kind", header["kind"], KINDS)
    _equal("version", _typed("version", header["version"], list), list(version))
    for part in header["version"]:
        _typed("version", part, int)
    _typed("producer", header["producer"], str)
    _check_features(header["requires"])
    entries = [_entry(e) for e in _typed("tensors", header["tensors"], list)]
    names = [e[0] for e in entries]
    _check_sorted(names)
    _check_offsets(entries)
    _check_aliases(header["aliases"], names)
    if len(entries) + len(header["aliases"]) > layout.MAX_TENSORS:
        raise Refusal(
            "tensor-count", f"more than {layout.MAX_TENSORS} tensors", wanted=layout.MAX_TENSORS
        )
    check_tree("meta", _typed("meta", header["meta"], dict), layout.MAX_META_DEPTH)
    if header["kind"] == "checkpoint":
        check_tree(
            "state", _typed("state", header["state"], dict), layout.MAX_STATE_DEPTH, with_bytes=True
        )
        _check_references(header["state"], [*names, *header["aliases"]])


def tensor_infos(header: dict[str, Any], base: int) -> tuple[TensorInfo, ...]:
    """The tensor table of a checked header, offsets counted from the beginning of the file;

    `base` is where the first payload lies.
    """
    return tuple(
        TensorInfo(n, d, tuple(s), base + o, b, c) for n, d, s, o, b, c in header["tensors"]
    )


def _check_keys(header: dict[str, Any], version: tuple[int, int]) -> None:
    wanted = _KEYS | ({"state"} if header.get("kind") == "checkpoint" else set())
    missing, unknown = sorted(wanted - set(header)), sorted(set(header) - wanted)
    if missing:
        problem = f"the header lacks {', '.join(missing)}"
        raise Refusal("header-key-missing", problem, sorted(header), sorted(wanted))
    # A newer minor version may say more; what a reader must understand of it is named in
    # `requires`.
    if unknown and version[1] <= layout.MINOR:
        problem = f"the header has an unknown key: {shortened(unknown[0])}"
        raise Refusal("header-key-unknown", problem, unknown, sorted(wanted))


def _check_features(requires: Any) -> None:
    for feature in _typed("requires", requires, list):
        _typed("requires", feature, str)
        if feature not in KNOWN_FEATURES:
            raise Refusal(
                "feature",
                f"this file needs the feature {shortened(feature)}, unknown here: upgrade minigrad",
                feature,
            )
    if requires != sorted(set(requires)):
        raise Refusal(
            "feature-order", "the required features are not sorted, or stand twice", requires
        )


def _entry(entry: Any) -> tuple[str, str, list[int], int, int, int]:
    if type(entry) is not list or len(entry) != 6:
        problem = "a row of the tensor table is not [name, dtype, shape, offset, nbytes, crc32]"
        raise Refusal("tensor-entry", problem, entry)
    name, dtype, shape, offset, nbytes, crc = entry
    check_name(name)
    if type(dtype) is not str or dtype not in DTYPES:
        problem = f"tensor {shortened(name)} has the unknown dtype {shortened(dtype)}"
        raise Refusal("dtype", problem, dtype, sorted(DTYPES))
    check_shape(name, shape)
    for label, number in (("offset", offset), ("nbytes", nbytes), ("crc32", crc)):
        _typed(f"{label} of {name!r}", number, int)
    wanted = math.prod(shape) * DTYPES[dtype].itemsize
    if nbytes != wanted:
        problem = f"tensor {shortened(name)} says {nbytes} bytes instead of {wanted}"
        raise Refusal("nbytes", problem, nbytes, wanted)
    if nbytes > layout.MAX_PAYLOAD:
        problem = f"tensor {shortened(name)} has {nbytes} bytes; the limit is {layout.MAX_PAYLOAD}"
        raise Refusal("payload-limit", problem, nbytes)
    if crc not in _UINT32:
        raise Refusal("crc-range", f"the crc32 of {shortened(name)} is no 32-bit number", crc)
    return name, dtype, shape, offset, nbytes, crc


def check_shape(name: str, shape: Any) -> None:
    """A shape that numpy can hold: a list of at most 32 ints from 0 to 2^48, within 64 bits in all;
    raises Refusal.
    """
    _typed(f"shape of {name!r}", shape, list)
    if len(shape) > layout.MAX_RANK:
        raise Refusal(
            "rank",
            f"tensor {shortened(name)} has {len(shape)} dimensions; {layout.MAX_RANK} is the limit",
        )
    for dim in shape:
        _typed(f"shape of {name!r}", dim, int)
        if not 0 <= dim <= layout.MAX_DIM:
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
        raise Refusal("name-type", "a tensor's name is no text", type(name).__name__, "str")
    if not name:
        raise Refusal("name-empty", "a tensor's name is empty")
    if any("\ud800" <= c <= "\udfff" for c in name):
        raise Refusal("name-surrogate", f"the name {name[:40]!a} holds half a surrogate pair", name)
    if len(name) > layout.MAX_NAME or len(name.encode()) > layout.MAX_NAME:
        raise Refusal(
            "name-length", f"the name {name[:40]!r}... is longer than {layout.MAX_NAME} bytes", name
        )
    if any(c < " " or "\x7f" <= c <= "\x9f" for c in name):
        raise Refusal("name-control", f"the name {shortened(name)} holds a control character", name)
    if not name.isascii() and not unicodedata.is_normalized("NFC", name):
        raise Refusal("name-nfc", f"the name {name[:80]!a} is not in Unicode normal form NFC", name)


def _check_sorted(names: list[str]) -> None:
    for before, after in itertools.pairwise(names):
        if before == after:
            raise Refusal(
                "name-twice", f"the name {shortened(after)} stands twice in the tensor table", after
            )
        if before > after:
            raise Refusal(
                "table-order",
                f"the tensor table is not sorted: {shortened(before)} before {shortened(after)}",
            )


def _check_offsets(entries: list[tuple[str, str, list[int], int, int, int]]) -> None:
    wanted = layout.relative_offsets([e[4] for e in entries])
    for (name, _, _, offset, _, _), right in zip(entries, wanted, strict=True):
        if offset != right:
            problem = (
                f"tensor {shortened(name)} says offset {shortened(offset)}; it lies at {right}"
            )
            raise Refusal(_offset_code(offset, right), problem, offset, right)


def _offset_code(offset: int, right: int) -> str:
    if offset < 0:
        return "offset-negative"
    if offset % layout.ALIGNMENT:
        return "offset-misaligned"
    return "offset-overlap" if offset < right else "offset-hole"


def _check_aliases(aliases: Any, names: list[str]) -> None:
    stored = set(names)
    for alias, target in _typed("aliases", aliases, dict).items():
        check_name(alias)
        if type(target) is not str or target not in stored:
            problem = f"the tied name {shortened(alias)} points to {shortened(target)}, no tensor"
            raise Refusal("alias-target", problem, target)
        if alias in stored:
            problem = f"the name {shortened(alias)} is both a tensor and a tied name"
            raise Refusal("alias-twice", problem, alias)
        if alias < target:
            raise Refusal(
                "alias-order",
                f"of the tied names {shortened(alias)} and {shortened(target)} the first is stored",
                alias,
            )


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
                raise Refusal("int64", f"{where} holds {largest}, which is no int64", largest)
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


def _references(state: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """(path, map) of every map with `$array` in the state. One path and one iterator per level,
    whatever its size.
    """
    path: list[str] = []
    levels: list[Iterator[tuple[Any, Any]]] = [iter([("", state)])]
    while levels:
        for key, value in levels[-1]:
            if type(value) is dict or type(value) is list:
                path.append(str(key))
                break
        else:
            levels.pop()
            del path[-1:]
            continue
        if type(value) is dict and ARRAY_KEY in value:
            yield tuple(path[1:]), value
            path.pop()
        elif holds_containers(value):
            levels.append(iter(value.items() if type(value) is dict else enumerate(value)))
        else:
            path.pop()


def holds_containers(value: dict[str, Any] | list[Any]) -> bool:
    """Whether a list or map lies in it. A state can hold millions of numbers: this looks at them
    without a step of Python for each.
    """
    kinds = set(map(type, value if type(value) is list else value.values()))  # type: ignore[union-attr]
    return dict in kinds or list in kinds


def shortened(value: Any, limit: int = 80) -> str:
    """The repr for an error line, which must not be as long as the file wants it."""
    text = repr(value[: limit + 1] if isinstance(value, (str, bytes, list)) else value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _typed(field: str, value: Any, kind: type) -> Any:
    if type(value) is not kind:
        found = type(value).__name__
        problem = f"{field} is of type {found} instead of {kind.__name__}"
        raise Refusal("field-type", problem, found, kind.__name__)
    return value


def _equal(field: str, value: Any, wanted: Any) -> None:
    if value != wanted:
        raise Refusal(
            f"header-{field}", f"{field} is {shortened(value)} instead of {wanted!r}", value, wanted
        )


def _one_of(field: str, value: Any, wanted: tuple[str, ...]) -> None:
    if type(value) is not str or value not in wanted:
        problem = f"{field} is {shortened(value)} instead of one of {', '.join(wanted)}"
        raise Refusal(f"header-{field}", problem, value, wanted)
