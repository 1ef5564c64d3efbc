"""Matrix products in C: right for every shape and every kind of vector registers, and the same to
the bit however the work is cut.
"""

import ctypes
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import minigrad
import minigrad.compiler
from minigrad import Tensor, functional as F
from minigrad.compiler import native
from tests.compiler.in_c import as_for_users, compiled, near, with_gradients

EPS = float(np.finfo(np.float32).eps)
_FOLDER = Path(minigrad.compiler.__file__).parent / "c"
_OPEN = """
void run(int ta, int tb, int64_t M, int64_t N, int64_t K, const float *a, int64_t lda,
         const float *b, int64_t ldb, const float *bias, const float *more, int64_t ldm, float *y,
         int64_t ldc) {
    product(ta, tb, M, N, K, a, lda, b, ldb, bias, more, ldm, y, ldc);
}
void run_symmetric(int ta, int tb, int64_t R, int64_t K, const float *a, const float *b, int64_t ld,
                   float *y) { symmetric_product(ta, tb, R, K, a, b, ld, y); }
void run_some(int64_t M, int64_t N, int64_t K, const float *a, const float *b, const float *bias,
              const float *more, float *y, int64_t lo, int64_t hi) {
    some_rows(a, K + 1, b, K + 2, bias, more, y, N + 3, M, N, K, lo, hi);
}
int wide(void) { return WIDE; }
"""
# The compiler does in several steps what the CPU has no registers for: slow, and right.
KINDS = {
    "this CPU's": "",
    "AVX-512's": "#define __AVX512F__ 1\n",
    "any CPU's": "#undef __AVX2__\n#undef __AVX512F__\n",
}


@pytest.fixture(scope="module", params=as_for_users(KINDS, "this CPU's"))
def run(request):
    texts = [(_FOLDER / name).read_text() for name in ("prelude.c", "products.c")]
    split = texts[1].index("/* --- matrix products")
    text = texts[0] + texts[1][:split] + KINDS[request.param] + texts[1][split:] + _OPEN
    library = native.build(text).library
    if request.param != "this CPU's":
        assert library.wide() == {"AVX-512's": 32, "any CPU's": 16}[request.param]

    def product(ta, tb, a, b, bias=None, more=None, rows=slice(None), columns=slice(None)):
        """op(a) op(b) (+ bias) (+ more), of these rows and columns only."""
        a, b = a[:, rows] if ta else a[rows], b[columns] if tb else b[:, columns]
        bias, more = (
            None if bias is None else bias[columns],
            None if more is None else more[rows, columns],
        )
        K, M, N = a.shape[0 if ta else 1], a.shape[1 if ta else 0], b.shape[0 if tb else 1]
        y = np.full((M, N + 3), 7, np.float32)
        pa, pb, pbias, pmore, py = (
            None if x is None else ctypes.c_void_p(x.ctypes.data) for x in (a, b, bias, more, y)
        )
        lda, ldb, ldm, ldc = (
            ctypes.c_int64(0 if x is None else x.strides[0] // 4) for x in (a, b, more, y)
        )
        library.run(
            int(ta),
            int(tb),
            *map(ctypes.c_int64, (M, N, K)),
            pa,
            lda,
            pb,
            ldb,
            pbias,
            pmore,
            ldm,
            py,
            ldc,
        )
        assert (y[:, N:] == 7).all()  # nothing is written beside it
        return y[:, :N]

    def symmetric(ta, tb, a, b):
        """op(a) op(b), which is symmetric; only the half above the diagonal is computed."""
        R, K = a.shape[::-1] if ta else a.shape
        y = np.full((R + 1, R), 7, np.float32)
        sizes = map(ctypes.c_int64, (R, K))
        pa, pb, py = (ctypes.c_void_p(x.ctypes.data) for x in (a, b, y))
        library.run_symmetric(int(ta), int(tb), *sizes, pa, pb, ctypes.c_int64(a.shape[1]), py)
        assert (y[R] == 7).all()  # nothing is written after it
        return y[:R]

    def some(a, b, bias, more, *cuts):
        """a b^T (+ bias) (+ more) by the function that packs a, between these cuts of b's rows."""
        (M, K), N = a.shape, len(b)
        y = np.full((M, N + 3), 7, np.float32)
        a, b = np.pad(a, ((0, 0), (0, 1))), np.pad(b, ((0, 0), (0, 2)))
        pointers = [None if x is None else ctypes.c_void_p(x.ctypes.data) for x in (bias, more, y)]
        for lo, hi in itertools.pairwise(cuts):
            library.run_some(
                *map(ctypes.c_int64, (M, N, K)),
                ctypes.c_void_p(a.ctypes.data),
                ctypes.c_void_p(b.ctypes.data),
                *pointers,
                ctypes.c_int64(lo),
                ctypes.c_int64(hi),
            )
        assert (y[:, N:] == 7).all()
        return y[:, :N]

    product.symmetric, product.some = symmetric, some
    return product


def operands(ta, tb, M, N, K, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (K, M) if ta else (M, K), (N, K) if tb else (K, N), (N,), (M, N)
    return tuple(rng.normal(size=s).astype(np.float32) for s in shapes)


@settings(max_examples=60, deadline=None)
@given(
    st.booleans(),
    st.booleans(),
    *[st.integers(1, 70)] * 2,
    st.sampled_from([0, 1, 2, 7, 33, 511, 512, 513, 1100]),
    st.integers(0, 3),
)
def test_a_product_of_any_shape_is_that_of_float64(run, ta, tb, M, N, K, added):
    a, b, bias, more = operands(ta, tb, M, N, K)
    bias, more = bias if added & 1 else None, more if added & 2 else None
    left, right = (a.T if ta else a).astype(np.float64), (b.T if tb else b).astype(np.float64)
    wanted, scale = left @ right, np.abs(left) @ np.abs(right)
    for x in (bias, more):
        wanted, scale = (wanted, scale) if x is None else (wanted + x, scale + np.abs(x))
    assert (np.abs(run(ta, tb, a, b, bias, more) - wanted) <= (4 + K**0.5) * EPS * scale).all()


@pytest.mark.parametrize("ta", [False, True])
@pytest.mark.parametrize("tb", [False, True])
def test_a_part_of_the_rows_or_columns_has_the_bits_of_the_whole(run, ta, tb):
    a, b, bias, more = operands(ta, tb, 101, 167, 700)
    whole = run(ta, tb, a, b, bias, more)
    for first, last in ((0, 1), (5, 30), (31, 101), (99, 167)):
        assert np.array_equal(
            run(ta, tb, a, b, bias, more, rows=slice(first, min(last, 101))), whole[first:last]
        )
        assert np.array_equal(
            run(ta, tb, a, b, bias, more, columns=slice(first, last)), whole[:, first:last]
        )


@pytest.mark.parametrize("M", [8, 9, 16, 17, 24, 25, 31, 48, 63, 64])
@pytest.mark.parametrize("K", [2, 33, 512, 513, 1100])
@pytest.mark.parametrize("added", range(4))
def test_a_product_of_some_rows_has_the_bits_of_any_other(run, M, K, added):
    for N in (1, 12, 13, 50):
        a, b, bias, more = operands(False, True, M, N, K)
        bias, more = bias if added & 1 else None, more if added & 2 else None
        wanted = run(False, True, a, b, bias, more)
        assert np.array_equal(run.some(a, b, bias, more, 0, N), wanted)
        assert np.array_equal(run.some(a, b, bias, more, 0, N // 3, N // 2, N), wanted)


@pytest.mark.parametrize("M", [8, 24, 30, 64])
def test_threads_change_no_bit_of_a_product_of_some_rows(M):
    rng = np.random.default_rng(M)
    x, w, b = (Tensor(rng.normal(size=s).astype(np.float32)) for s in ((M, 700), (770, 700), 770))
    found = []
    for threads in (1, 2, 3, 7):
        step = minigrad.jit(lambda x: F.linear(x, w, b), audit=False, threads=threads)
        with minigrad.no_grad():
            found.append([step(x).numpy() for _ in range(4)][-1])
        assert "some_rows" in step.c_source.split("the kernels of this program")[1]
    assert all(np.array_equal(y, found[0]) for y in found)


@pytest.mark.parametrize("R", [1, 5, 16, 33, 96, 101, 200])
@pytest.mark.parametrize("K", [1, 40, 530, 1100])
def test_a_symmetric_product_has_the_bits_of_the_whole_one(run, R, K):
    """K = 1100 takes several depths, and with R = 200 several parts of the columns."""
    wide = np.random.default_rng(0).normal(size=(R, K)).astype(np.float32)
    tall = np.ascontiguousarray(wide.T)
    for ta, tb, a in ((False, True, wide), (True, False, tall)):
        y, whole = run.symmetric(ta, tb, a, a), run(ta, tb, a, a)
        assert np.array_equal(y, y.T)
        assert np.array_equal(np.triu(y), np.triu(whole))


def test_nan_and_inf_stay_in_their_rows_and_columns(run):
    a, b, *_ = operands(False, False, 20, 40, 30)
    a[3, 5], b[7, 11] = np.nan, np.inf
    y = run(False, False, a, b)
    assert np.isnan(y[3]).all() and not np.isfinite(y[:, 11]).any()
    assert np.isfinite(np.delete(np.delete(y, 3, 0), 11, 1)).all()


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((6,), (6,)),
        ((1000,), (1000,)),
        ((1,), (1,)),
        ((300, 40), (40,)),
        ((3, 40), (40,)),
        ((40,), (40, 300)),
        ((40,), (40, 1)),
        ((5, 30, 7), (7,)),
        ((7,), (5, 7, 30)),
        ((7,), (2, 5, 7, 1)),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_products_with_a_vector_and_their_gradients_are_eager(left, right, turned):
    rng = np.random.default_rng(0)

    def lies(x, n):
        return x.transpose(0, 1).contiguous().transpose(0, 1) if turned and n == 2 else x

    a, b = (rng.normal(size=s).astype(np.float32) for s in (left, right))
    got, wanted = compiled(
        with_gradients(lambda a, b: lies(a, len(left)) @ lies(b, len(right))), a, b
    )
    assert all(near(g, w) for g, w in zip(got, wanted, strict=True))
