"""Products with weights in blocks, in C: right for every format and every kind of CPU, and the
same to the bit however the work is cut.
"""

import ctypes
import gc
import mmap
import warnings

import numpy as np
import pytest

from minigrad import Tensor, ops
from minigrad.compiler import jit, native, quantised
from minigrad.compiler.compiled import CompiledReplay
from minigrad.compiler.signatures import c_text
from minigrad.ops.quantised import ALL, FORMATS, dequantise, rounded_to_int8
from tests.compiler.in_c import as_for_users, compiled

EPS = float(np.finfo(np.float32).eps)
KINDS = [kind for kind in FORMATS if kind != "f32"]
# Instructions that this CPU may lack are played by functions, compiled for it.
_VNNI = """
#include <immintrin.h>
#undef __AVX512VNNI__
static inline __m256i played(__m256i sum, __m256i w, __m256i x) {
    union { __m256i v; int32_t i[8]; uint8_t u[32]; int8_t s[32]; } a = {sum}, b = {w}, c = {x};
    for (int n = 0; n < 32; n++) a.i[n / 4] += b.u[n] * c.s[n];
    return a.v;
}
#define _mm256_dpbusd_avx_epi32 played
#define __AVXVNNI__ 1
"""
CPUS = {
    "this CPU's": "",
    "any CPU's": "#undef __AVX2__\n#undef __AVXVNNI__\n#undef __AVX512VNNI__\n#undef __F16C__\n",
    "AVX2": "#undef __AVXVNNI__\n#undef __AVX512VNNI__\n",
    "VNNI, played": _VNNI,
}
_OPEN = """
void {kind}(int int8, int64_t rough, int64_t M, int64_t N, int64_t K, const float *x,
            const uint8_t *w, const float *bias, const float *more, float *y,
            int64_t lo, int64_t hi)
    {{ LINEAR({format})(int8, rough, M, N, K, x, w, bias, more, y, lo, hi); }}
"""
FEW = ["q8_0", "q4_1", "q5_0", "q6_k", "bf16"]  # each path through the code


def blocks_of(kind: str, rows: int, width: int, seed: int = 0) -> np.ndarray:
    """Random codes, with ordinary scales of both signs; float formats hold normal numbers."""
    rng, form = np.random.default_rng(seed), FORMATS[kind]
    if form.block == 1:
        numbers = rng.standard_normal((rows, width)).astype(np.float32)
        if kind == "f16":
            return numbers.astype(np.float16).view(np.uint8)
        return np.ascontiguousarray(numbers.view(np.uint16)[:, 1::2]).view(np.uint8)
    raw = rng.integers(0, 256, (rows * width // form.block, form.nbytes)).astype(np.uint8)
    for at in quantised._SCALES[kind]:
        scales = rng.normal(size=len(raw)).astype(np.float16)
        raw[:, at : at + 2] = scales[:, None].view(np.uint8)
    return raw.reshape(rows, -1)


@pytest.fixture(scope="module", params=as_for_users(CPUS, "this CPU's"))
def run(request):
    """(x, blocks, kind, int8, bias, more, panels, rough) -> y, by code for a kind of CPU."""
    if request.param in ("AVX2", "VNNI, played") and not native.has_tiles():
        pytest.skip("this CPU lacks AVX2")
    files = ("prelude.c", "products.c", "elementwise.c")
    text = "".join(map(c_text, files)) + CPUS[request.param] + c_text("quantised.c")
    kinds = KINDS if request.param == "this CPU's" else FEW
    opened = (_OPEN.format(kind=kind, format=kind.upper()) for kind in kinds)
    library = native.build(text + "".join(opened)).library

    def product(x, blocks, kind, int8, bias=None, more=None, panels=None, rough=0):
        if kind not in kinds:
            pytest.skip(f"{kind} goes the same way as others")
        weight, N = quantised.pack(blocks, kind), len(blocks)
        y = np.full((len(x), N), 7, np.float32)
        sizes = map(ctypes.c_int64, (rough, len(x), N, x.shape[1]))
        arrays = (
            None if a is None else ctypes.c_void_p(a.ctypes.data)
            for a in (x, weight, bias, more, y)
        )
        part = map(ctypes.c_int64, panels or (0, -(-N // quantised.PANEL)))
        getattr(library, kind)(int(int8), *sizes, *arrays, *part)
        return y

    return product


def wanted(x, blocks, kind, int8, rough=0):
    """The product in float64, and the sum of magnitudes."""
    x = rounded_to_int8(x, rough) if int8 and FORMATS[kind].block > 1 else x
    w = dequantise(blocks, kind).astype(np.float64)
    return x @ w.T, np.abs(x) @ np.abs(w).T


@pytest.mark.parametrize("int8", [False, True], ids=["float32", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_product_with_blocks_is_that_of_their_values(run, kind, int8):
    rng = np.random.default_rng(1)
    for M, N, K in ((1, 16, 512), (7, 43, 768), (2, 5, 256)):
        blocks, x = blocks_of(kind, N, K), rng.normal(size=(M, K)).astype(np.float32)
        bias = rng.normal(size=N).astype(np.float32)
        more = rng.normal(size=(M, N)).astype(np.float32)
        y = run(x, blocks, kind, int8, bias, more)
        exact, size = wanted(x, blocks, kind, int8)
        assert (np.abs(y - (exact + bias + more)) <= 4 * EPS * (size + 4)).all()
        # Cut by panels, or by rows, the bits are the same
        first = run(x, blocks, kind, int8, bias, more, panels=(0, 1))[:, :8]
        assert np.array_equal(first, y[:, :8])
        assert np.array_equal(run(x[-1:], blocks, kind, int8, bias, more[-1:])[0], y[-1])


BLOCKS = [kind for kind in KINDS if FORMATS[kind].block > 1]


@pytest.mark.parametrize("kind", BLOCKS)
def test_the_first_rows_may_be_rounded_roughly(run, kind):
    rng = np.random.default_rng(6)
    blocks, x = blocks_of(kind, 21, 512), rng.normal(size=(21, 512)).astype(np.float32)
    x *= np.where(rng.random(x.shape) < 0.05, np.float32(30), np.float32(1))
    more, bias = rng.normal(size=(21, 21)), rng.normal(size=21)
    more, bias = more.astype(np.float32), bias.astype(np.float32)
    for rough in (1, 8, 18, 21):
        y = run(x, blocks, kind, True, bias, more, rough=rough)
        exact, size = wanted(x, blocks, kind, True, rough)
        assert (np.abs(y - (exact + bias + more)) <= 4 * EPS * (size + 4)).all()
        # A row has the same bits wherever it stands
        alone = run(x[:1], blocks, kind, True, bias, more[:1], rough=1)[0]
        assert np.array_equal(alone, y[0])
        rest = run(x[rough:], blocks, kind, True, bias, more[rough:])
        assert np.array_equal(rest, y[rough:])
        part = run(x, blocks, kind, True, bias, more, panels=(0, 1), rough=rough)
        assert np.array_equal(part[:, :16], y[:, :16])


def test_rough_rounding_costs_half_a_step_of_what_a_block_holds_beside_its_largest_numbers():
    rng = np.random.default_rng(7)
    x = (rng.normal(size=(40, 512)) * 10.0 ** rng.integers(-3, 3, (40, 512))).astype(np.float32)
    fours = np.sort(np.abs(x).reshape(40, 16, 8, 4).max(-1), axis=-1)
    step = np.maximum(fours[..., -2] / 127, fours[..., -1] / (127 * 256))
    error = np.abs(rounded_to_int8(x, 40) - x).reshape(40, 16, 32).max(-1)
    assert (error <= 0.5001 * step).all()
    assert (error > 0.3 * step).mean() > 0.9  # and not less
    both = rounded_to_int8(x, 7)
    assert np.array_equal(both[:7], rounded_to_int8(x[:7], 7))
    assert np.array_equal(both[7:], rounded_to_int8(x[7:]))


@pytest.mark.parametrize("kind", BLOCKS)
def test_rounding_to_int8_costs_at_most_half_a_step_of_each_block(run, kind):
    rng = np.random.default_rng(2)
    x = (rng.normal(size=(3, 512)) * 10.0 ** rng.integers(-3, 3, (3, 512))).astype(np.float32)
    blocks = blocks_of(kind, 24, 512)
    y, weight = run(x, blocks, kind, True), np.abs(dequantise(blocks, kind)).astype(np.float64)
    step = np.repeat(np.abs(x.reshape(3, -1, 32)).max(-1), 32, axis=1) / (127 * 256)
    exact, size = wanted(x, blocks, kind, False)
    assert (np.abs(y - exact) <= 0.5001 * step @ weight.T + 4 * EPS * size).all()


def test_extreme_codes_do_not_overflow(run):
    # Codes and x as large as they get, all of one sign or of the two that add up
    for kind in ("q8_0", "q4_1", "q5_0", "q6_k"):
        blocks = np.full((8, 512 // FORMATS[kind].block * FORMATS[kind].nbytes), 255, np.uint8)
        raw = blocks.reshape(-1, FORMATS[kind].nbytes)
        if kind == "q8_0":
            raw[:] = 128  # -128
        for at in quantised._SCALES[kind]:
            raw[:, at : at + 2] = [0, 0x3C]  # 1
        largest = np.full((5, 512), 3, np.float32)
        low = largest * np.float32((126 * 256 + 128) / (127 * 256))  # of two int8, 127 and -128
        low[:, ::32] = 3
        lonely = largest.copy()
        lonely[:, ::32] = 3 * 256
        for x in (largest, -largest, low, lonely, -lonely):
            for rough in (0, 5):
                exact, size = wanted(x, blocks, kind, True, rough)
                y = run(x, blocks, kind, True, rough=rough)
                assert (np.abs(y - exact) <= 4 * EPS * size).all()


def test_blocks_of_x_that_are_tiny_zero_or_not_finite(run):
    x = np.ones((6, 64), np.float32)
    x[0, :32], x[1, :32], x[2, 3], x[3, 3], x[4, 40] = 0, 1e-38, np.inf, np.nan, -np.inf
    blocks = blocks_of("q4_1", 8, 64)
    for rough in (0, 6):
        y = run(x, blocks, "q4_1", True, rough=rough)
        exact = wanted(x, blocks, "q4_1", True, rough)[0]
        assert np.isnan(y).all(1).tolist() == [False, False, True, True, True, False]
        np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fine", [0, 1, 8, ALL])
@pytest.mark.parametrize("rows", [2, 40])
def test_a_step_with_blocks_runs_in_c(rows, fine):
    table, other = (Tensor._wrap(blocks_of(kind, 45, 256)) for kind in ("q8_0", "q5_k"))
    bias = Tensor(np.linspace(-1, 1, 45, dtype=np.float32))

    def step(index, x, residual):
        h = ops.quantised_embedding(table, index, kind="q8_0") + x
        y = ops.quantised_linear(h, other, bias, kind="q5_k", int8=True, fine=fine)
        y = 2 * residual + y
        return h, y, ops.quantised_linear(h, table, kind="q8_0")

    rng = np.random.default_rng(3)
    index = rng.integers(0, 45, (rows, 1))
    x, residual = (rng.normal(size=(rows, 1, n)).astype(np.float32) for n in (256, 45))
    got, expected = compiled(step, index, x, residual)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-6 * np.abs(b).max())


def test_an_index_outside_the_table_is_refused_and_other_blocks_are_packed_anew():
    blocks = Tensor._wrap(blocks_of("q4_0", 16, 64))

    @jit(backend="c", audit=False)
    def step(i):
        return ops.quantised_embedding(blocks, i, kind="q4_0")

    for _ in range(3):
        y = step(Tensor(np.array([1, 15])))
    with pytest.raises(IndexError, match="16"):
        step(Tensor(np.array([1, 16])))
    blocks.data = blocks_of("q4_0", 16, 64, seed=1)
    assert not np.array_equal(step(Tensor(np.array([1, 15]))).numpy(), y.numpy())
    np.testing.assert_array_equal(
        step(Tensor(np.array([1, 15]))).numpy(), dequantise(blocks.data[[1, 15]], "q4_0")
    )


def test_blocks_of_a_mapped_file_are_read_again_after_they_were_packed(tmp_path):
    path, made = tmp_path / "blocks", blocks_of("q4_0", 16, 64)
    path.write_bytes(made.tobytes())
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    blocks = np.frombuffer(mapped, np.uint8).reshape(made.shape)
    assert np.array_equal(quantised.packed(blocks, "q4_0"), quantised.pack(made, "q4_0"))
    assert np.array_equal(blocks, made)


def test_a_mapped_file_is_given_back_while_it_is_packed(monkeypatch):
    given_back = []
    monkeypatch.setattr(quantised, "_give_back", given_back.append)
    monkeypatch.setattr(quantised, "_PIECE", 1)
    quantised.packed(blocks_of("q4_0", 48, 64), "q4_0")
    assert len(given_back) == 3  # after each panel of 16 rows


def test_packed_blocks_go_with_the_blocks():
    blocks = blocks_of("q4_0", 16, 64)
    assert quantised.packed(blocks, "q4_0") is quantised.packed(blocks, "q4_0")
    gc.collect()  # of what other tests left
    before = len(quantised._packed)
    del blocks
    gc.collect()
    assert len(quantised._packed) == before - 1


@pytest.mark.parametrize("int8", [False, True], ids=["float32", "int8"])
@pytest.mark.parametrize("fine", [0, 9, ALL])
@pytest.mark.parametrize("rows", [1, 40, 70])
def test_an_eager_product_is_in_c_and_the_same_on_any_number_of_threads(rows, fine, int8):
    blocks, x = blocks_of("q4_1", 1030, 64), np.random.default_rng(4).normal(size=(rows, 64))
    x = x.astype(np.float32)
    found = []
    for threads in (1, 3, 16):
        ops.parallel.set_num_threads(threads)
        found.append(ops.quantised_linear(x, blocks, kind="q4_1", int8=int8, fine=fine))
    ops.parallel.set_num_threads(0)
    rough = max(rows - fine, 0)
    exact, size = wanted(x, blocks, "q4_1", int8, rough)
    assert all(np.array_equal(found[0], other) for other in found)
    assert (np.abs(found[0] - exact) <= 4 * EPS * size).all()
    assert np.array_equal(found[0], quantised.product(x, blocks, "q4_1", int8, rough))
    assert quantised.product(x, blocks[:8], "q4_1", True) is None  # too small to compile for


def test_no_rows_make_no_results():
    blocks, x = blocks_of("q4_1", 8, 64), np.ones((0, 64), np.float32)
    assert ops.quantised_linear(x, blocks, kind="q4_1", int8=True, fine=0).shape == (0, 8)


def test_only_rough_products_are_held_less_strictly_against_the_eager_call(monkeypatch):
    blocks = Tensor._wrap(blocks_of("q4_1", 1030, 64))
    x = Tensor(np.random.default_rng(8).normal(size=(40, 64)).astype(np.float32))
    run = CompiledReplay.run

    def off(self, bound):
        return [y * 1.01 for y in run(self, bound)]

    monkeypatch.setattr(CompiledReplay, "run", off)
    for how, fine in ((True, 8), (True, ALL), (False, 8)):
        step = jit(
            lambda x, how=how, fine=fine: ops.quantised_linear(
                x, blocks, kind="q4_1", int8=how, fine=fine
            ),
            audit=False,
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step(x), step(x)
        assert len(caught) == (0 if how and fine == 8 else 1)


def test_rows_too_long_to_be_rounded_at_once_are_multiplied_in_float32():
    blocks = blocks_of("q4_1", 4, 65_568)
    x = np.random.default_rng(5).normal(size=(9, 65_568)).astype(np.float32)
    exact, size = wanted(x, blocks, "q4_1", False)
    assert (np.abs(quantised.product(x, blocks, "q4_1", True) - exact) <= 4 * EPS * size).all()
