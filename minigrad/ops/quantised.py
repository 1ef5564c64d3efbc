"""Weights of 4 to 8 bits in blocks, in the formats of ggml: their values, and products with them.

A row of a weight is cut into blocks of 32 numbers (K-quants: 256). A block holds small integers q
and a float16 scale d (with a float16 minimum m in some); K-quants add a 6- or 8-bit scale per 16
or 32 numbers. Values are float32 and equal ggml's to the bit. A weight (out, in) is a uint8 array
(out, bytes per row) and the name of its format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from minigrad.arguments import one_of
from minigrad.dtypes import Array, bfloat16, cast, computing, float32
from minigrad.errors import DTypeError, ShapeError
from minigrad.ops.axis import matrix_shape
from minigrad.ops.contract import product
from minigrad.ops.index import check_range
from minigrad.ops.movement import reshape
from minigrad.ops.reduce import sum as sum_
from minigrad.primitive import primitive

CODES = 32  # numbers that are rounded to int8 together
_TINY = np.float32(1e-30)
_MOST = np.float32(127 * 256)
ALL = 1 << 62  # rows
PIECE = 1 << 20  # numbers that a product dequantises at a time: 4 MB


class Format(NamedTuple):
    """A way to store numbers: ggml's number for it, `block` numbers in `nbytes` bytes, and the
    values of (n, nbytes) of uint8 as (n, block) of float32.
    """

    number: int
    block: int
    nbytes: int
    values: Callable[[Array], Array]


def _half(raw: Array, at: int = 0) -> Array:
    """The float16 at a byte of every block, (n, 1) in float32."""
    return np.ascontiguousarray(raw[:, at : at + 2]).view(np.float16).astype(np.float32)


def _nibbles(raw: Array) -> Array:
    """The low half of every byte, then the high half: (..., k) -> (..., 2k)."""
    return np.concatenate([raw & 15, raw >> 4], axis=-1)


def _fives(raw: Array, at: int) -> Array:
    """The 32 numbers of 5 bits from a byte on: 4 bytes of fifth bits, lowest first, and nibbles."""
    high = np.unpackbits(raw[:, at : at + 4], axis=1, bitorder="little")
    return _nibbles(raw[:, at + 4 :]) | high << 4


def _centred(q: Array, middle: int) -> Array:
    """Codes of uint8 as the signed numbers that they stand for."""
    return q.view(np.int8) - np.int8(middle)


def _q4_k(raw: Array, high: Array | None = None) -> Array:
    """The 8 parts of a Q4_K block: d * sc * q - dmin * sm, where 12 bytes hold sc and sm with 6
    bits each. high: the fifth bits, of a Q5_K block.

    Bytes 0-3: the low bits are sc[0:4]; 4-7: sm[0:4]; 8-11: the low 4 bits of sc[4:8] and of
    sm[4:8], whose high 2 bits are the high bits of bytes 0-3 and 4-7.
    """
    a, b, c = raw[:, 4:8], raw[:, 8:12], raw[:, 12:16]
    sc = np.concatenate([a & 63, (c & 15) | ((a >> 6) << 4)], axis=1)
    sm = np.concatenate([b & 63, (c >> 4) | ((b >> 6) << 4)], axis=1)
    d, m = (_half(raw, 0) * sc)[:, :, None], (_half(raw, 2) * sm)[:, :, None]
    q = _nibbles(raw[:, -128:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    return (d * (q if high is None else q | high << 4) - m).reshape(-1, 256)


def _q5_k(raw: Array) -> Array:
    # Bit j of the 32 bytes after the scales is the fifth bit of part j.
    return _q4_k(raw, (raw[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & 1)


def _q6_k(raw: Array) -> Array:
    low = _nibbles(raw[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    high = (raw[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & 3
    q = _centred((low | (high << 4)).reshape(-1, 16, 16), 32)
    d = _half(raw, 208) * np.ascontiguousarray(raw[:, 192:208]).view(np.int8)
    return (d[:, :, None] * q).reshape(-1, 256)


FORMATS = {
    "f32": Format(0, 1, 4, lambda raw: np.ascontiguousarray(raw).view(np.float32)),
    "f16": Format(1, 1, 2, _half),
    "bf16": Format(30, 1, 2, lambda raw: cast(np.ascontiguousarray(raw).view(bfloat16), float32)),
    "q4_0": Format(2, 32, 18, lambda raw: _centred(_nibbles(raw[:, 2:]), 8) * _half(raw)),
    "q4_1": Format(3, 32, 20, lambda raw: _nibbles(raw[:, 4:]) * _half(raw) + _half(raw, 2)),
    "q5_0": Format(6, 32, 22, lambda raw: _centred(_fives(raw, 2), 16) * _half(raw)),
    "q5_1": Format(7, 32, 24, lambda raw: _fives(raw, 4) * _half(raw) + _half(raw, 2)),
    "q8_0": Format(8, 32, 34, lambda raw: raw[:, 2:].view(np.int8) * _half(raw)),
    "q4_k": Format(12, 256, 144, _q4_k),
    "q5_k": Format(13, 256, 176, _q5_k),
    "q6_k": Format(14, 256, 210, _q6_k),
}


def features(blocks: Array, kind: str) -> int:
    """How many numbers a row of such blocks holds. Raises ConfigError for an unknown format,
    DTypeError or ShapeError for an array that holds no rows of it.
    """
    one_of("quantised", "kind", kind, (*FORMATS,))
    if blocks.dtype != np.uint8:
        raise DTypeError("quantised", f"blocks must be uint8, got {blocks.dtype}", blocks.dtype)
    _, block, nbytes, _ = FORMATS[kind]
    if blocks.ndim != 2 or blocks.shape[1] % nbytes:
        problem = f"blocks {blocks.shape} are not rows of {nbytes}-byte blocks ({kind})"
        raise ShapeError("quantised", problem, got=blocks.shape, wanted=("out", f"{nbytes} n"))
    return blocks.shape[1] // nbytes * block


def dequantise(blocks: Array, kind: str) -> Array:
    """Return the values of rows of blocks: (n, bytes) of uint8 -> (n, in) of float32.

    Raises ConfigError for an unknown format, DTypeError or ShapeError for blocks that are not rows
    of it.
    """
    width, form = features(blocks, kind), FORMATS[kind]
    with np.errstate(all="ignore"):  # a damaged scale may be NaN or infinite
        return form.values(blocks.reshape(-1, form.nbytes)).reshape(len(blocks), width)


def _pieces(blocks: Array, kind: str) -> Iterator[tuple[slice, Array]]:
    """Some rows at a time, with their values in float32."""
    step = max(1, PIECE // max(features(blocks, kind), 1))
    for start in range(0, len(blocks), step):
        rows = slice(start, start + step)
        yield rows, dequantise(blocks[rows], kind)


def rounded_to_int8(x: Array, rough: int = 0) -> Array:
    """Return x, (M, in) of float32, as a sum of two numbers of int8 with scales: a block of 32 is
    rounded to (256 a + b) d, where d is its largest magnitude divided by 127 * 256. A block below
    1e-30 becomes 0, one that is not finite NaN.

    rough: in that many rows, the first ones, only the 4 neighbours that hold the largest number
        have an a; d is at least what the others need, their largest magnitude divided by 127.
    """
    blocks = x.reshape(len(x), x.shape[1] // CODES, CODES)
    fours = np.sort(np.abs(blocks).reshape(*blocks.shape[:2], CODES // 4, 4).max(axis=-1))
    most = np.where(np.isfinite(fours[..., -1:]), fours[..., -1:], np.float32(np.nan))
    most[most <= _TINY] = 0
    with np.errstate(all="ignore"):
        scale = most.copy()
        np.maximum(scale[:rough], 256 * fours[:rough, :, -2:-1], out=scale[:rough])
        q = np.rint(blocks * np.where(most > 0, _MOST / scale, np.float32(0)))
        return (np.where(np.isfinite(q), q, np.float32(0)) * (scale / _MOST)).reshape(x.shape)


def _product(rows: Array, blocks: Array, kind: str, int8: int, rough: int) -> Array:
    if int8 and FORMATS[kind].block > 1:
        rows = cast(rounded_to_int8(cast(rows, float32), rough), rows.dtype)
    y = np.empty((len(rows), len(blocks)), rows.dtype)
    for part, weight in _pieces(blocks, kind):
        y[:, part] = product(rows, weight.astype(rows.dtype, copy=False).T)
    return y


Product = Callable[[Array, Array, str, int, int], Array | None]
_products: list[Product] = [_product]


def set_product(function: Product) -> None:
    """Compute `quantised_linear` by function(x, blocks, kind, int8, rough), x of float32,
    (M, in), where that returns an array and not None: the compiler's, once it is imported.
    """
    _products[:] = [function, _product]


@primitive(kind="contract")
def quantised_linear(
    x: Array, blocks: Array, bias: Array | None = None, *, kind: str, int8: int = 0, fine: int = ALL
) -> Array:
    """Return x @ weight.T + bias for a weight in blocks: (..., in), (out, bytes) of uint8, (out,)
    -> (..., out), with the dtype of x. The weight is dequantised some rows at a time.

    int8: if true, x is first rounded to pairs of int8, by blocks of 32, as fast products with
        weights of 4 to 8 bits want it; float formats take no notice.
    fine: how many rows of x, the last ones, are rounded so. The others keep the second int8 only
        where a block is largest, which nearly suffices for tokens far from those to be made.
    Raises ShapeError if `in` differs, ConfigError for an unknown format.
    """
    width = features(blocks, kind)
    if x.ndim == 0 or x.shape[-1] != width:
        problem = f"x {x.shape} does not fit a weight ({len(blocks)}, {width}) of {kind}"
        raise ShapeError("quantised_linear", problem, got=x.shape, wanted=(..., width))
    rows = cast(x, computing(x.dtype)).reshape(matrix_shape(x.shape))
    made = (compute(rows, blocks, kind, int8, max(len(rows) - fine, 0)) for compute in _products)
    y = next(y for y in made if y is not None)
    if bias is not None:
        y += cast(bias, y.dtype)
    return cast(y, x.dtype).reshape(*x.shape[:-1], len(blocks))


@quantised_linear.vjp
def _(g, _y, _x, blocks, _bias=None, *, kind, int8=0, fine=ALL, needs):
    rows = reshape(g, shape=matrix_shape(g.shape))
    of_x = quantised_linear_grad(g, blocks, kind=kind) if needs[0] else None
    of_bias = sum_(rows, axis=0) if len(needs) > 2 and needs[2] else None
    return (of_x, None, of_bias)[: len(needs)]


@primitive(kind="contract")
def quantised_linear_grad(g: Array, blocks: Array, *, kind: str) -> Array:
    """Return g @ weight for a weight in blocks: (..., out), (out, bytes) of uint8 -> (..., in); the
    transpose of `quantised_linear`.
    """
    rows = cast(g, computing(g.dtype)).reshape(matrix_shape(g.shape))
    y = np.zeros((len(rows), features(blocks, kind)), rows.dtype)
    for part, weight in _pieces(blocks, kind):
        y += product(rows[:, part], weight.astype(rows.dtype, copy=False))
    return cast(y, g.dtype).reshape(*g.shape[:-1], y.shape[1])


@quantised_linear_grad.vjp
def _(h, _y, _g, blocks, *, kind):
    return quantised_linear(h, blocks, kind=kind), None


@primitive(kind="gather")
def quantised_embedding(blocks: Array, index: Array, *, kind: str) -> Array:
    """Return the values of rows of a table in blocks: (V, bytes) of uint8, (...) -> (..., C) of
    float32. Raises IndexRangeError for an index outside 0..V-1.
    """
    check_range(index, len(blocks), "quantised_embedding", "index")
    rows = blocks[index.reshape(-1)]
    return dequantise(rows, kind).reshape(*index.shape, features(blocks, kind))
