"""Weights in blocks: their values are ggml's to the bit, and a Linear is one thing whatever its
storage.
"""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from minigrad import Tensor, nn
from minigrad.errors import ConfigError, DTypeError, IndexRangeError, ShapeError
from minigrad.nn.quantised import QuantisedWeight
from minigrad.ops import quantised
from minigrad.ops.quantised import FORMATS, dequantise

# CRC-32 of the values of `blocks_of(kind)`, checked against ggml's with the library `gguf` 0.19.
CHECKSUMS: dict[str, int] = {
    "f32": 0xAB8A5769,
    "f16": 0xC7B3A028,
    "bf16": 0x20B814DF,
    "q8_0": 0xBE42B97A,
    "q4_0": 0xF1812B31,
    "q4_1": 0x1B998548,
    "q5_0": 0x33E832DC,
    "q5_1": 0x7EAAE997,
    "q4_k": 0x2D7CBF39,
    "q5_k": 0xD9FE3B00,
    "q6_k": 0xA49227DE,
}


def blocks_of(kind: str, rows: int = 6, width: int = 512) -> np.ndarray:
    """Random blocks whose scales are any 16 bits: subnormal, infinite and NaN among them."""
    _, block, nbytes, _ = FORMATS[kind]
    raw = np.random.default_rng(list(kind.encode())).integers(
        0, 256, (rows, width // block * nbytes)
    )
    return raw.astype(np.uint8)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_values_of_random_blocks_are_those_that_ggml_gave(kind: str) -> None:
    values = dequantise(blocks_of(kind), kind)
    assert values.dtype == np.float32 and values.shape == (6, 512)
    values[np.isnan(values)] = np.nan  # of one sign
    assert zlib.crc32(values.tobytes()) == CHECKSUMS[kind]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_values_of_random_blocks_equal_those_of_the_gguf_library(kind: str) -> None:
    gguf = pytest.importorskip("gguf")
    blocks = blocks_of(kind, rows=200)
    with np.errstate(all="ignore"):
        wanted = gguf.dequantize(blocks.copy(), gguf.GGMLQuantizationType[kind.upper()])
    assert dequantise(blocks, kind).tobytes() == np.asarray(wanted, np.float32).tobytes()


def weight(rows: int = 5, kind: str = "q4_1") -> QuantisedWeight:
    """A weight (rows, 64) with ordinary scales."""
    blocks = blocks_of(kind, rows, 64).reshape(-1, FORMATS[kind].nbytes)
    blocks[:, :4] = np.array([0.01, -0.08], np.float16).view(np.uint8)
    return QuantisedWeight(kind, (rows, 64), blocks.reshape(rows, -1))


@pytest.mark.parametrize("piece", [1, 100, 1 << 20])
def test_a_linear_means_the_same_with_its_weight_in_blocks(
    piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantised, "PIECE", piece)
    plain, stored = nn.Linear(64, 5), nn.Linear(64, 5)
    plain.weight = nn.Parameter(weight().dequantise())
    stored.weight = weight()  # type: ignore[assignment]
    stored.bias = plain.bias
    x, other = (Tensor(np.linspace(-1, 1, 192).reshape(3, 64), requires_grad=True) for _ in "ab")
    y, wanted = stored(x), plain(other)
    np.testing.assert_allclose(y.numpy(), wanted.numpy(), rtol=1e-6, atol=1e-6)
    (y * y).sum().backward()
    (wanted * wanted).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), other.grad.numpy(), rtol=1e-5, atol=1e-5)
    assert [name for name, _ in stored.named_parameters()] == ["bias"]


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_the_product_has_the_dtype_of_x(dtype: str) -> None:
    stored = nn.Linear(64, 5, bias=False)
    stored.weight = weight()  # type: ignore[assignment]
    x = Tensor(np.ones((1, 2, 64), np.float32)).to(dtype)
    assert stored(x).dtype == x.dtype and stored(x).shape == (1, 2, 5)


def test_an_embedding_reads_rows_in_blocks() -> None:
    table = nn.Embedding(5, 64)
    table.weight = weight()  # type: ignore[assignment]
    index = np.array([[4, 0], [1, 1]])
    assert np.array_equal(table(Tensor(index)).numpy(), weight().dequantise()[index])
    assert np.array_equal(weight().dequantise(slice(1, 3)), weight().dequantise()[1:3])
    with pytest.raises(IndexRangeError):
        table(Tensor([5]))


def test_blocks_that_do_not_fit_are_refused() -> None:
    blocks = blocks_of("q4_1", 5, 64)
    with pytest.raises(ConfigError, match="q3_x"):
        QuantisedWeight("q3_x", (5, 64), blocks)
    with pytest.raises(ShapeError, match="20-byte"):
        QuantisedWeight("q4_1", (5, 64), blocks[:, :-1])
    with pytest.raises(ShapeError, match="expected"):
        QuantisedWeight("q4_1", (5, 32), blocks)
    with pytest.raises(DTypeError):
        QuantisedWeight("q4_1", (5, 64), blocks.view(np.int8))
    with pytest.raises(ShapeError, match="does not fit"):
        weight().linear(Tensor(np.ones((2, 32))))
