"""Good weight files, ways to make them wrong, and small files that would be large: what
`fuzz_files.py` feeds the readers with.
"""

import copy
import hashlib
import io
import json
import random
import struct
import zipfile
import zlib

import msgpack
import numpy as np

from minigrad import bfloat16
from minigrad.files import save, save_checkpoint
from minigrad.files.npz import save_npz
from minigrad.files.safetensors import save_safetensors

NUMBERS = [
    0,
    1,
    -1,
    2,
    3,
    63,
    64,
    65,
    127,
    128,
    255,
    256,
    2**16,
    2**31,
    2**32 - 1,
    2**32,
    2**48,
    2**48 + 1,
    2**62,
    2**63 - 1,
    -(2**63),
]
VALUES = [
    *NUMBERS,
    2**63,
    2**64 - 1,
    True,
    False,
    None,
    0.0,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "a",
    "\0",
    "e\u0301",
    "x" * 600,
    b"",
    b"x",
    [],
    {},
    [[]],
    {"": {}},
    {"$array": "w"},
    "weights",
    "checkpoint",
    "f32",
    "f64",
    "bool",
    "bf16",
    "O",
    [[{}] * 9] * 2,
]


# ---- good files to begin with
# --------------------------------------------------------------------------------------


def seeds(folder):
    """Small good files: (format, bytes)."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(3, 4)).astype(np.float32)
    weights = {
        "wte": w,
        "head": w,
        "h.0.b": np.arange(5, dtype=np.int64),
        "mask": np.array([True, False, True]),
        "e": np.zeros((0, 3)),
    }
    weights |= {
        "bf": np.arange(3, dtype=np.uint16).view(bfloat16),
        "u8": np.arange(7, dtype=np.uint8),
        "s": np.float64(1.5),
    }
    meta = {"n_layer": 2, "lr": 0.1, "text": "é", "deep": [{"a": [None, True]}], "low": -(2**63)}
    state = {
        "optimizer": {"kind": "AdamW", "m": {"wte": w * 2}, "step": 3},
        "rng": b"\0" * 16,
        "list": [w[0], {"x": 1}],
    }
    path = folder / "seed"
    found = []
    for format_, write in [
        ("mgrd", lambda: save(path, weights, meta=meta)),
        ("mgrd", lambda: save(path, {})),
        ("mgrd", lambda: save(path, {"w": w[:2, :2]})),
        ("mgrd", lambda: save_checkpoint(path, {"wte": w, "head": w}, state, meta=meta)),
        ("safetensors", lambda: save_safetensors(path, weights, meta={"format": "pt"})),
        ("npz", lambda: save_npz(path, weights)),
    ]:
        write()
        found.append((format_, path.read_bytes()))
    return found


def large_seeds(folder):
    """Good files of 100 KB and more, most of it header: (format, bytes)."""
    weights = {f"transformer.h.{i}.attention.weight": np.full(4, i, np.float32) for i in range(600)}
    state = {
        "moments": {
            str(i): {"step": i, "exp_avg": np.zeros(2), "flags": [True, None, 0.5]}
            for i in range(400)
        },
        "words": [f"word {i}" for i in range(3000)],
    }
    path = folder / "seed"
    found = []
    for format_, write in [
        ("mgrd", lambda: save(path, weights, meta={"merges": [f"merge {i}" for i in range(3000)]})),
        ("mgrd", lambda: save_checkpoint(path, weights, state)),
        ("safetensors", lambda: save_safetensors(path, weights)),
        ("npz", lambda: save_npz(path, weights)),
    ]:
        write()
        found.append((format_, path.read_bytes()))
    return found


# ---- mutations
# -------------------------------------------------------------------------------------------------
# - -


def change_bytes(rng, content):
    """A few changes to raw bytes."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        i, j = sorted(rng.randrange(len(content) + 1) for _ in range(2))
        j = min(j, i + rng.choice([1, 4, 16, 200]))
        kind = rng.randrange(7)
        if kind <= 1 and i < len(content):
            content[i] ^= 1 << rng.randrange(8)
        elif kind == 2 and i < len(content):
            content[i] = rng.choice(
                [0, 1, 0x7F, 0x80, 0xC0, 0xC1, 0xC4, 0xC6, 0xD4, 0xDC, 0xDD, 0xDE, 0xDF, 0xFF]
            )
        elif kind == 3:
            content[i:i] = rng.randbytes(rng.choice([1, 2, 8]))
        elif kind == 4:
            del content[i:j]
        elif kind == 5:
            content[i:i] = content[i:j]
        else:
            content[i : i + 8] = struct.pack(rng.choice(["<Q", ">Q"]), rng.choice(NUMBERS) % 2**64)
    return bytes(content)


def nodes(tree):
    """Every (container, key) of a tree."""
    found, todo = [], [tree]
    while todo:
        value = todo.pop()
        pairs = (
            value.items()
            if isinstance(value, dict)
            else enumerate(value)
            if isinstance(value, list)
            else ()
        )
        for key, item in pairs:
            found.append((value, key))
            todo.append(item)
    return found


def change_tree(rng, tree):
    """A few changes to values, keys and order of a tree of dicts and lists, in place."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        places = nodes(tree)
        if not places:
            return
        container, key = rng.choice(places)
        kind = rng.randrange(8)
        if kind <= 2:
            value = rng.choice(VALUES)
            container[key] = copy.deepcopy(value) if isinstance(value, (list, dict)) else value
        elif kind == 3 and type(container[key]) is int:
            container[key] += rng.choice([-64, -1, 1, 64])
        elif kind == 4:
            del container[key]
        elif kind == 5 and isinstance(container, dict):
            container[
                rng.choice([key + "x", "", "z", "extra", "$array", 7, "\x1b"])
                if isinstance(key, str)
                else "k"
            ] = container.pop(key)
        elif kind == 6 and isinstance(container, list):
            rng.shuffle(container)
        else:
            other, place = rng.choice(places)
            container[key] = (
                copy.deepcopy(other[place])
                if place in (other if isinstance(other, dict) else range(len(other)))
                else None
            )
            if rng.random() < 0.02:
                for _ in range(rng.choice([9, 33, 100])):
                    container[key] = [container[key]]


def sort_keys(value):
    """The same tree with sorted keys, as the format wants it."""
    if isinstance(value, dict):
        return {key: sort_keys(value[key]) for key in sorted(value, key=str)}
    return [sort_keys(item) for item in value] if isinstance(value, list) else value


class Mgrd:
    """A good MGRD file taken apart, to be put together again around a change."""

    def __init__(self, content):
        header_len = struct.unpack_from("<I", content, 14)[0]
        self.raw = content[32 : 32 + header_len]
        self.payloads = []
        base = -(-(32 + header_len + 10) // 64) * 64
        for _, _, _, offset, nbytes, _ in msgpack.unpackb(self.raw)["tensors"]:
            self.payloads.append(content[base + offset : base + offset + nbytes])

    def mutate(self, rng):
        header, payloads = msgpack.unpackb(self.raw), list(self.payloads)
        kind = rng.randrange(5)
        if kind <= 2:
            change_tree(rng, header)
        if kind >= 2 and payloads:
            i = rng.randrange(len(payloads))
            payloads[i] = change_bytes(rng, payloads[i]) if payloads[i] else b"\1"
            if rng.random() < 0.8:
                self.repair(header, payloads)
        if rng.random() < 0.1:
            rng.shuffle(payloads)
        raw = pack(header if rng.random() < 0.1 else sort_keys(header))
        if kind == 4 or rng.random() < 0.1:
            raw = change_bytes(rng, raw)
        return self.join(rng, raw, payloads)

    @staticmethod
    def repair(header, payloads):
        """Right crc32, offsets and sizes in the table, as far as it is still one."""
        offset = 0
        table = header.get("tensors")
        for entry, payload in zip(table if isinstance(table, list) else [], payloads, strict=False):
            if isinstance(entry, list) and len(entry) == 6:
                entry[3:] = [offset, len(payload), zlib.crc32(payload)]
            offset = -(-(offset + len(payload) + 10) // 64) * 64

    @staticmethod
    def join(rng, raw, payloads):
        """The file of a header and payloads, its sums right; damaged now and then if there is a
        random generator.
        """
        body = raw
        for payload in payloads:
            zeros = -(32 + len(body) + 10) % 64
            body += (
                b"\xc6"
                + struct.pack(">I", zeros)
                + bytes(zeros)
                + b"\xc6"
                + struct.pack(">I", len(payload))
                + payload
            )
        if rng and rng.random() < 0.1:
            body = change_bytes(rng, body)
        minor = rng.choice([0] * 20 + [1, 7]) if rng else 0
        fields = struct.pack(
            "<8sHHIQ", b"\x89MGRD\r\n\x1a", 1, minor, len(raw), 32 + len(body) + 42
        )
        if rng and rng.random() < 0.05:
            fields = change_bytes(rng, fields)
        start = b"\xc4\x1e" + fields + struct.pack("<IH", zlib.crc32(fields), 0)
        end = b"\xc4\x28MGRDEND\0" + hashlib.sha256(start + body).digest()
        return start + body + end


def pack(tree):
    """msgpack of a tree, whatever is in it."""
    try:
        return msgpack.packb(tree)
    except (ValueError, OverflowError, TypeError):
        return msgpack.packb(None)


def change_safetensors(rng, content):
    """A change to the JSON header, or to the bytes, with the length repaired."""
    length = struct.unpack_from("<Q", content)[0]
    raw, data = content[8 : 8 + length], content[8 + length :]
    if rng.random() < 0.7:
        tree = json.loads(raw)
        change_tree(rng, tree)
        raw = json.dumps(tree, default=lambda _: None, skipkeys=True).encode(errors="surrogatepass")
    if rng.random() < 0.3:
        raw = change_bytes(rng, raw)
    if rng.random() < 0.2:
        data = change_bytes(rng, data) if data else b"x"
    return struct.pack("<Q", len(raw)) + raw + data


def change_npz(rng, content):
    """A change to a member, zipped again with a right crc32; or to the bytes of the archive."""
    if rng.random() < 0.3:
        return change_bytes(rng, content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    i = rng.randrange(len(members))
    name, data = members[i]
    members[i] = (
        rng.choice([name, name, name, "x", ".npy", "\0.npy"]),
        change_bytes(rng, data[:128]) + data[128:],
    )
    found = io.BytesIO()
    with zipfile.ZipFile(
        found, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    ) as archive:
        for name, data in dict(members).items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return found.getvalue()


def mutated(rng, format_, content, parts):
    """A good file, changed in the way of its format."""
    if format_ == "safetensors":
        return change_safetensors(rng, content)
    if format_ == "npz":
        return change_npz(rng, content)
    return parts.mutate(rng) if rng.random() < 0.85 else change_bytes(rng, content)


# ---- bombs
# -------------------------------------------------------------------------------------------------
# - -


def bombs():
    """Inputs that are small on disk and would be large in memory or slow, if the reader let them.
    Nothing else is wrong with them.
    """
    entry = ["w", "u8", [0], 0, 0, 0]
    good = {
        "aliases": {},
        "format": "minigrad",
        "kind": "weights",
        "meta": {},
        "producer": "",
        "requires": [],
        "tensors": [entry],
        "version": [1, 0],
    }
    rng, deep = random.Random(0), 0
    for _ in range(25):
        deep = [0] * 20_000 + [deep]
    values = [
        [{"": None}] * 60000,
        [[]] * 65000,
        [[[{}] * 60000] * 15],
        [{"a": [{}]}] * 30000,
        [["ab"] * 65000] * 20,
        [[2.5] * 60000] * 7,
        [[300] * 60000] * 20,
        {str(i): {} for i in range(60000)},
        "x" * 65000,
        [["x" * 60000]] * 60,
        [[0] * 65000] * 60,
    ]
    for value in values:
        for field in ["meta", rng.choice(["aliases", "tensors", "requires", "version", "kind"])]:
            header = good | {field: {"x": value} if field == "meta" else value}
            yield "mgrd", Mgrd.join(None, pack(sort_keys(header)), [b""])
    for value in [
        *values,
        deep,
        [{"$array": "w"}] * 60000,
        [{"$array": f"state/x/{i}"} for i in range(30000)],
    ]:
        yield (
            "mgrd",
            Mgrd.join(
                None, pack(sort_keys(good | {"kind": "checkpoint", "state": {"x": value}})), [b""]
            ),
        )
    for n in (1000, 65_535):
        keys = b"".join(pack(f"{i:05d}") + b"\0" for i in [*range(n - 1), n - 2])
        raw = pack(sort_keys(good | {"meta": {"x": 0}}))
        yield (
            "mgrd",
            Mgrd.join(
                None,
                raw.replace(b"\x81\xa1x\0", b"\x81\xa1x\xde" + n.to_bytes(2, "big") + keys),
                [b""],
            ),
        )
    yield "mgrd", Mgrd.join(None, b"\x91" * 4_000_000, [])
    yield "mgrd", Mgrd.join(None, b"\x81\xa0" * 2_000_000, [])
    yield "safetensors", struct.pack("<Q", 8_000_000) + b'{"a":' + b"[" * 7_999_995
    for inside in [
        b"{}," * 2_000_000,
        b"[]," * 4_000_000,
        b'"ab",' * 2_000_000,
        b"999," * 2_000_000,
    ]:
        raw = b'{"a":[' + inside + b"1]}"
        yield "safetensors", struct.pack("<Q", len(raw)) + raw
    yield from (("npz", content) for content in npz_bombs())


def npz_bombs():
    """Archives that would grow a thousandfold, in one member or in many, by each of the
    compressions that zip knows.
    """
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "|u1", "fortran_order": False, "shape": (10_000_000,)}
    )
    for compression in [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]:
        for count in (1, 3):
            found = io.BytesIO()
            with zipfile.ZipFile(found, "w", compression) as archive:
                for i in range(count):
                    archive.writestr(f"{i}.npy", head.getvalue() + bytes(10_000_000))
            yield found.getvalue()
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as archive:
        for i in range(66_000):
            archive.writestr(f"{i}.npy", b"")
    yield found.getvalue()
