"""Weights in blocks for the products in C: they are packed once, into the order in which
quantised.c reads them, when a program or an eager product first reads them.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
import weakref
from functools import cache, partial
from typing import Any

import numpy as np

from minigrad.compiler import native
from minigrad.compiler.kernel import Kernel
from minigrad.compiler.layout import ALIGNMENT, Layout, address_of
from minigrad.compiler.lower import Builder, Call, lowers, need, plain, value_of
from minigrad.compiler.memory import aligned
from minigrad.compiler.signatures import arguments_of, c_text, files_for
from minigrad.dtypes import Array
from minigrad.ops.parallel import get_num_threads
from minigrad.ops.quantised import FORMATS, features, set_product

PANEL = 16  # rows side by side, as in quantised.c
_PAIR = 2  # panels that a thread takes at least: no tile is wider
_ENOUGH, _LONGEST = 32, 1 << 15  # see _by_rows
# Where a block has its float16 scales and minima.
_SCALES = {kind: [0] if kind in ("q8_0", "q4_0", "q5_0") else [0, 2] for kind in FORMATS}
_SCALES |= {"q6_k": [208], "f16": [], "bf16": []}
_PIECE = 1 << 22  # bytes of blocks that are packed at a time
_SLAB = 1 << 25


def _nibbles(raw: Array) -> Array:
    """The low half of each byte of 32, then the high half: (..., 32) -> (..., 2, 32)."""
    return np.stack([raw & 15, raw >> 4], axis=-2)


def _codes(raw: Array, kind: str) -> tuple[Array, Array | None]:
    """The codes of blocks, (n, bytes), by 32 of them: the low halves of numbers j and j + 16 in
    byte j, (n, parts, 16), and the bits above, (n, parts, 32), if there are any.
    """
    high: Array | None = None
    low: Array
    if kind in ("q4_0", "q4_1", "q5_0", "q5_1"):
        if kind[1] == "5":
            high = np.unpackbits(raw[:, None, -20:-16], axis=2, bitorder="little")
        return raw[:, None, -16:], high
    if kind == "q6_k":
        # Each half of 128 has its first 64 numbers in the low halves of 64 bytes
        low = _nibbles(raw[:, :128].reshape(-1, 2, 2, 32)).swapaxes(2, 3)
        shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
        high = ((raw[:, 128:192].reshape(-1, 2, 1, 32) >> shifts) & 3).reshape(-1, 8, 32)
    else:
        low = _nibbles(raw[:, -128:].reshape(-1, 4, 32))
        if kind == "q5_k":
            high = (raw[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & 1
    low = low.reshape(-1, 8, 32)
    return low[..., :16] | low[..., 16:] << 4, high


def _vectors(raw: Array, kind: str) -> Array:
    """The codes of blocks as uint32 of 4 neighbours: (n, bytes) -> (n, parts, 4, 5, 6 or 8);
    those of 8 bits without sign; numbers of 16 bits as they are.
    """
    if not _SCALES[kind]:
        return np.ascontiguousarray(raw).view(np.uint16)
    if kind == "q8_0":
        return np.ascontiguousarray(raw[:, None, 2:] ^ np.uint8(128)).view(np.uint32)
    low, high = _codes(raw, kind)
    planes = [np.ascontiguousarray(low).view(np.uint32)]
    if high is not None:
        bits = 2 if kind == "q6_k" else 1
        fields = high.reshape(*high.shape[:2], bits, 8 // bits, 4)
        shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
        both = np.bitwise_or.reduce(fields << shifts, axis=3)
        planes.append(np.ascontiguousarray(both).view(np.uint32)[..., 0])
    return np.concatenate(planes, axis=-1)


def _integer_scales(raw: Array, kind: str) -> Array:
    """The integer scales of K-quants, then their minima: (n, 16) of bytes; (n, 0) for others."""
    if kind == "q6_k":
        return raw[:, 192:208]
    if kind not in ("q4_k", "q5_k"):
        return raw[:, :0]
    a, b, c = raw[:, 4:8], raw[:, 8:12], raw[:, 12:16]
    return np.concatenate([a & 63, c & 15 | a >> 6 << 4, b & 63, c >> 4 | b >> 6 << 4], axis=1)


class _Pool:
    """Memory for packed weights, cut from slabs that are large enough for huge pages: a token reads
    every weight once, and with pages of 4 kB looking them up takes a third of the time.
    """

    def __init__(self) -> None:
        self._slab, self._at = np.empty(0, np.uint8), 0

    def take(self, nbytes: int) -> Array:
        """That many bytes. A slab is freed when no part of it is held."""
        if self._at + nbytes > len(self._slab):
            self._slab, self._at = aligned(max(nbytes, _SLAB)), 0
        part = self._slab[self._at : self._at + nbytes]
        self._at += -(-nbytes // ALIGNMENT) * ALIGNMENT
        return part


_pool = _Pool()


def pack(blocks: Array, kind: str) -> Array:
    """Blocks (N, bytes) of uint8 as quantised.c reads them: (panels of 16 rows, bytes), with rows
    of zeros after the last.
    """
    size, panels = FORMATS[kind].nbytes, -(-len(blocks) // PANEL)
    packed = np.empty((0, 0), np.uint8)
    step = max(1, _PIECE // (PANEL * max(blocks.shape[1], 1)))
    for start in range(0, panels, step):
        rows = blocks[start * PANEL : (start + step) * PANEL]
        if len(rows) % PANEL:
            rows = np.concatenate([rows, np.zeros((-len(rows) % PANEL, rows.shape[1]), np.uint8)])
        raw = rows.reshape(-1, size)
        halves = [np.ascontiguousarray(raw[:, at : at + 2]).view(np.uint16) for at in _SCALES[kind]]
        vectors = _vectors(raw, kind).reshape(len(raw), -1)
        parts = [*halves, _integer_scales(raw, kind), vectors]
        made = np.concatenate([_across(x, len(rows)) for x in parts], axis=2)
        if start == 0:
            packed = _pool.take(panels * made[0].size).reshape(panels, -1)
        packed[start : start + step] = made.reshape(len(made), -1)
        _give_back(blocks)
    return packed


def _across(x: Array, rows: int) -> Array:
    """What 16 rows have, side by side: (rows * blocks, k) -> (panels, blocks, bytes)."""
    across = x.reshape(rows // PANEL, PANEL, len(x) // rows, x.shape[1]).transpose(0, 2, 3, 1)
    width = PANEL * x.shape[1]
    return np.ascontiguousarray(across).reshape(*across.shape[:2], width).view(np.uint8)


# --- lowering

_packed: dict[int, tuple[weakref.ref[Array], Array]] = {}  # by the id of the blocks


def packed(blocks: Array, kind: str) -> Array:
    """The blocks, packed once, and kept for as long as they are there. They must not change."""
    key = id(blocks)
    found = _packed.get(key)
    if found is None or found[0]() is not blocks:
        gone = partial(_forget, key)
        found = _packed[key] = weakref.ref(blocks, gone), pack(blocks, kind)
    return found[1]


def _give_back(blocks: Array) -> None:
    """Let go of the pages of the file that the blocks are views of; what reads them maps them
    again.
    """
    owner: Any = blocks
    while isinstance(owner, np.ndarray):
        owner = owner.base
    file = owner.obj if isinstance(owner, memoryview) else owner
    if isinstance(file, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        file.madvise(mmap.MADV_DONTNEED)


def _forget(key: int, reference: weakref.ref[Array]) -> None:
    if key in _packed and _packed[key][0] is reference:
        del _packed[key]


def _weight(layout: Layout, value: int, kind: str) -> tuple[int, int, int]:
    """(the packed weight as a value, its rows, its columns)."""
    need(kind != "f32" and layout.is_given(value))
    blocks = layout.stand_in[value]
    derived = layout.derive(value, partial(packed, kind=kind))
    return derived, len(blocks), features(blocks, kind)


def _by_rows(kind: str, int8: int, M: int, K: int) -> bool:
    """Whether threads share the rows of x, and not those of the weight: where x has many that are
    rounded to int8, which each thread would do for itself, and quantised.c has room for rows of K.
    Otherwise columns of the weight become float32, once for all rows.
    """
    return int8 > 0 and FORMATS[kind].block > 1 and M >= _ENOUGH and K <= _LONGEST


@lowers("quantised_linear")
def _linear(call: Call) -> list[Kernel]:
    """Rows of x in parallel, or panels of the weight where x has few of them."""
    x, blocks, *rest = call.line.operands
    params = arguments_of(call.line.op)[1] | call.line.params
    x, y, layout, k = value_of(x), call.y, call.layout, Builder(call)
    added = {"bias": value_of(rest[0]) if rest and rest[0] is not None else None}
    added["residual"] = call.residual
    need(plain(layout, x, y, *(i for i in added.values() if i is not None)))
    weight, N, K = _weight(layout, value_of(blocks), params["kind"])
    M = call.array(x).size // max(K, 1)
    need(M and N and K)
    by_rows = _by_rows(params["kind"], params["int8"], M, K)
    k.reads(share=by_rows, x=x)
    k.reads(weight=weight)
    for name, i in added.items():
        if i is not None:
            k.reads(share=by_rows and name == "residual", **{name: i})
    k.writes(share=by_rows, y=y)
    panels = -(-N // PANEL)
    names = {name: name if i is not None else "NULL" for name, i in added.items()}
    rough = f"{max(M - params['fine'], 0)}{' - lo' * by_rows}"
    rows, to, part = f"{M}", "y", f"{_PAIR} * lo, MIN({_PAIR} * hi, {panels})"
    if by_rows:
        rows, to, part = "hi - lo", f"y + lo * {N}", f"0, {panels}"
        if call.residual is not None:
            names["residual"] += f" + lo * {N}"
    body = (
        f"LINEAR({params['kind'].upper()})({int(params['int8'])}, {rough}, {rows}, {N}, {K}, "
        f"x{f' + lo * {K}' * by_rows}, weight, {names['bias']}, {names['residual']}, {to}, {part});"
    )
    fused = [name for name, i in added.items() if i is not None]
    units = M if by_rows else -(-panels // _PAIR)
    return [k.kernel("quantised_product", body, units, 2.0 * M * N * K, fused=fused)]


@lowers("quantised_embedding")
def _embedding(call: Call) -> list[Kernel]:
    blocks, index = call.operands()
    kind, a = call.line.params["kind"], call.array(index)
    need(a.dtype.kind in "iu" and a.flags.c_contiguous and plain(call.layout, call.y))
    weight, N, K = _weight(call.layout, blocks, kind)
    need(a.size and K)
    k = Builder(call)
    k.reads(weight=weight)
    k.use(index, "index", share=True, ctype="void")
    k.writes(share=True, y=call.y)
    size = a.itemsize if a.dtype.kind == "i" else -a.itemsize
    k.bytes = 5.0 * a.size * K  # not the whole table
    body = f"quantised_embedding_rows({kind.upper()}, weight, {N}, {K}, index, {size}, y, lo, hi);"
    return [k.kernel("quantised_embedding", body, a.size, 8.0 * a.size * K)]


# --- eager products

_EAGER = """
static void rows(void *const *p, int64_t lo, int64_t hi, int thread) {
    const int64_t *n = p[0];  /* int8, M, N, K, whether units are rows of x, how many are rough */
    const float *x = p[1];
    float *y = p[3];
    int64_t first = n[4] ? lo : 0, count = n[4] ? hi - lo : n[1];
    int64_t panels = (n[2] + PANEL - 1) / PANEL;
    lo = n[4] ? 0 : PAIR * lo, hi = n[4] ? panels : MIN(PAIR * hi, panels);
    x += first * n[3], y += first * n[2];
    LINEAR(FORMAT)(n[0], n[5] - first, count, n[2], n[3], x, p[2], NULL, NULL, y, lo, hi);
    (void)thread;
}
static phase_t phases[] = {{rows, 1, 1}};
void cut(int64_t units, int chunks) { phases[0] = (phase_t){rows, units, chunks}; }
"""
_SMALL = 1 << 16  # numbers of a weight for which no C is compiled
_lock = threading.Lock()  # a library runs one product at a time


@cache
def _library(kind: str) -> Any:
    """The C of a format, None without a C compiler."""
    text = _EAGER.replace("FORMAT", kind.upper()).replace("PAIR", str(_PAIR))
    try:
        files = "\n".join(map(c_text, files_for(text)))
        library = native.build(files + text + c_text("entry.c")).library
    except native.NativeError:
        return None
    library.cut.argtypes = [ctypes.c_int64, ctypes.c_int]
    library.step.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    return library


def product(x: Array, blocks: Array, kind: str, int8: int, rough: int = 0) -> Array | None:
    """x @ weight.T for rows x, (M, in), of float32; None where the C has no form for it."""
    K = x.shape[1]
    if kind == "f32" or x.dtype != np.float32 or not len(x) or len(blocks) * K < _SMALL:
        return None
    library = _library(kind)
    if library is None:
        return None
    x, weight = np.ascontiguousarray(x), packed(blocks, kind)
    y = np.empty((len(x), len(blocks)), np.float32)
    threads = get_num_threads()
    by_rows = _by_rows(kind, int8, len(x), K)
    sizes = np.array([int8, len(x), len(blocks), K, by_rows, rough], np.int64)
    table = np.array([address_of(a) for a in (sizes, x, weight, y)], np.uint64)
    units = len(x) if by_rows else -(-len(weight) // _PAIR)
    with _lock:
        library.cut(units, min(units, 32, 2 * threads))
        library.step(address_of(table), 0, 1, threads)
    return y


set_product(product)
