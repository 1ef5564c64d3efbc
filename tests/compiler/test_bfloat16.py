"""Products of operands that are rounded to bfloat16: eager, replayed and in C, against float64."""

import ctypes
import sys
import warnings

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, functional as F, nn
from minigrad.compiler import jit, native
from minigrad.compiler.signatures import c_text
from minigrad.errors import ConfigError
from minigrad.nn.attention import StaticCache
from minigrad.optim import AdamW, Muon
from minigrad.precision import PRECISION, matmul_precision, operand

EPS = 2.0**-23
HALF = 2.0**-8  # what rounding an operand to bfloat16 is worth, twice


@pytest.fixture(autouse=True)
def in_bfloat16(monkeypatch):
    """Everything in bfloat16, on other CPUs by C that rounds as AVX512-BF16 does."""
    try:
        native.find_compiler()
    except native.NativeError:
        pytest.skip("no C compiler")
    if not native.has_bfloat16():
        monkeypatch.setattr(sys.modules["minigrad.compiler.jit"], "has_bfloat16", lambda: True)
    with matmul_precision("bfloat16"):
        yield


def rounded(x):
    """x in float64, rounded to 8 significant bits, to nearest and to even."""
    m, e = np.frexp(np.asarray(x, np.float64))
    return np.ldexp(np.rint(m * 256), e - 8)


def in_c(function, *arrays, threads=(1, 3)):
    """The results of the C on several numbers of threads, which must be equal to the bit."""
    inputs, found = [Tensor(a) for a in arrays], []
    for n in threads:
        step = jit(function, backend="c", threads=n)
        for _ in range(3):
            minigrad.manual_seed(3)
            got = step(*inputs)
        assert "numpy" not in step.explain() and "bfloat16" in step.explain(), step.explain()
        found.append([np.array(y.numpy()) for y in (got if isinstance(got, tuple) else (got,))])
    for other in found[1:]:
        pairs = zip(found[0], other, strict=True)
        assert all(np.array_equal(x, y, equal_nan=True) for x, y in pairs)
    return found[0]


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


SIZES = [
    *((m, n, k) for m in (1, 5, 8, 13, 64) for n in (1, 7, 32, 33) for k in (1, 2, 3, 32, 67)),
    (65, 97, 1025),
    (30, 31, 2500),
    (200, 600, 130),
    (70, 40, 1024),
]


def test_products_are_the_float64_products_of_rounded_operands():
    forms = [(ta, tb, *size) for ta in (0, 1) for tb in (0, 1) for size in SIZES]
    arrays = []
    for ta, tb, m, n, k in forms:
        arrays += [numbers(*((k, m) if ta else (m, k))), numbers(*((n, k) if tb else (k, n)))]

    def products(*xs):
        pairs = zip(xs[::2], xs[1::2], forms, strict=True)
        return tuple((a.T if ta else a) @ (b.T if tb else b) for a, b, (ta, tb, *_) in pairs)

    eager = [y.numpy() for y in products(*map(Tensor, arrays))]
    wide = products(*map(rounded, arrays))
    scales = products(*(np.abs(rounded(x)) for x in arrays))
    for found in (eager, in_c(products, *arrays, threads=(1, 7))):
        for y, wanted, scale, form in zip(found, wide, scales, forms, strict=True):
            assert np.all(abs(y - wanted) <= 2 * (form[-1] + 4) ** 0.5 * EPS * scale), form


# What a CPU must have, and what hides it from products.c
KINDS = {
    "AMX": ("__AMX_BF16__", ""),
    "AVX512-BF16": ("__AVX512BF16__", "#undef __AMX_BF16__\n"),
    "any CPU": ("", "#undef __AMX_BF16__\n#undef __AVX512BF16__\n"),
}
_OPEN = """
void run(int ta, int tb, int64_t M, int64_t N, int64_t K, const float *a, int64_t lda,
         const float *b, int64_t ldb, const float *bias, const float *more, float *y) {
    product(ta, tb, M, N, K, a, lda, b, ldb, bias, more, N, y, N + 3);
}
int uses_amx(void) {
#if AMX
    return may_use_amx;
#endif
    return 0;
}
"""


@pytest.mark.as_for_users
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_tile_is_right_and_does_not_depend_on_the_cut(kind):
    needs, hidden = KINDS[kind]
    if needs and needs not in native._macros():
        pytest.skip(f"this CPU has no {kind}")
    text = "".join(map(c_text, ("prelude.c", "products.c")))
    run = native.build("#define BFLOAT16 1\n" + hidden + text + _OPEN).library
    assert run.uses_amx() == (kind == "AMX")

    def product(ta, tb, a, b, bias, more):
        M, K = a.shape[::-1] if ta else a.shape
        N = b.shape[0 if tb else 1]
        y = np.full((M, N + 3), 7, np.float32)
        pointer = [None if x is None else ctypes.c_void_p(x.ctypes.data) for x in (a, b)]
        extra = [None if x is None else ctypes.c_void_p(x.ctypes.data) for x in (bias, more, y)]
        size = [ctypes.c_int64(n) for n in (M, N, K)]
        steps = [ctypes.c_int64(x.shape[1]) for x in (a, b)]
        run.run(ta, tb, *size, pointer[0], steps[0], pointer[1], steps[1], *extra)
        assert (y[:, N:] == 7).all()  # nothing is written beside it
        return y[:, :N]

    sizes = [*SIZES, (17, 17, 32), (64, 64, 70)]
    for ta, tb, (M, N, K) in ((ta, tb, size) for ta in (0, 1) for tb in (0, 1) for size in sizes):
        a, b = numbers(*((K, M) if ta else (M, K))), numbers(*((N, K) if tb else (K, N)))
        bias, more = numbers(N), numbers(M, N, seed=2)
        left, right = (rounded(a.T if ta else a), rounded(b.T if tb else b))
        scale = abs(left) @ abs(right) + abs(bias) + abs(more)
        for begun in ((None, None), (bias, None), (None, more), (bias, more)):
            wanted = left @ right + sum(x for x in begun if x is not None)
            y = product(ta, tb, a, b, *begun)
            assert np.all(abs(y - wanted) <= 2 * (K + 4) ** 0.5 * EPS * scale), (ta, tb, M, N, K)
        some = slice(M // 3, M - M // 4), slice(N // 3, N - N // 4)
        a = np.ascontiguousarray(a[:, some[0]] if ta else a[some[0]])
        b = np.ascontiguousarray(b[some[1]] if tb else b[:, some[1]])
        part = product(ta, tb, a, b, bias[some[1]], np.ascontiguousarray(more[some]))
        assert np.array_equal(part, y[some]), (ta, tb, M, N, K)


def test_bias_residual_batches_and_strides():
    x, w, b, r = numbers(3, 50, 37), numbers(45, 37, seed=1), numbers(45), numbers(3, 50, 45)
    (got,) = in_c(lambda x, w, b, r: (r * 1.0) + F.linear(x, w, b), x, w, b, r)
    wanted = rounded(x) @ rounded(w).T + b + r
    assert np.abs(got - wanted).max() < 64 * EPS * np.abs(wanted).max()
    a, c = numbers(2, 3, 17, 23), numbers(3, 23, 11)
    (got,) = in_c(lambda a, c: a @ c, a, c)
    assert np.abs(got - rounded(a) @ rounded(c)).max() < 64 * EPS * np.abs(got).max()
    (got,) = in_c(lambda a, c: a[:, :, ::2] @ c[..., ::3], a, c)
    wanted = rounded(a[:, :, ::2]) @ rounded(c[..., ::3])
    assert np.abs(got - wanted).max() < 64 * EPS * np.abs(wanted).max()
    (got,) = in_c(lambda a, v: a @ v, a, numbers(23))
    assert np.abs(got - rounded(a) @ rounded(numbers(23))).max() < 64 * EPS * np.abs(got).max()


def test_rounding_is_to_even_and_keeps_what_is_not_finite():
    x = np.array([1 + 2**-8, 1 + 3 * 2**-8, 3.4e38, -np.inf, np.nan, 1e-39, -0.0], np.float32)
    wanted = np.array([1, 1 + 2**-6, np.inf, -np.inf, np.nan, 0, 0], np.float32)
    assert np.array_equal(operand(x), wanted, equal_nan=True)
    one = np.ones((1, 1), np.float32)
    for rows in (1, 16):  # dot products, tiles
        a = np.repeat(x[:, None], rows, 1)
        for column in range(len(x)):
            (got,) = in_c(lambda a, b: a @ b, a[column][:, None], one, threads=(1,))
            assert np.array_equal(got[:, 0], np.repeat(wanted[column], rows), equal_nan=True)


def test_gradients_round_the_operands_of_their_products():
    x, w, g = numbers(40, 33), numbers(21, 33, seed=1), numbers(40, 21, seed=2)

    def step(x, w, g):
        x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
        return F.linear(x, w).gradient(x, w, gradient=g)

    for got in (in_c(step, x, w, g), [y.numpy() for y in step(*map(Tensor, (x, w, g)))]):
        for y, wanted in zip(
            got, (rounded(g) @ rounded(w), rounded(g).T @ rounded(x)), strict=True
        ):
            assert np.abs(y - wanted).max() < 64 * EPS * np.abs(wanted).max()


def test_second_derivatives_are_those_of_products_of_rounded_operands():
    x, w = numbers(9, 5), numbers(4, 5, seed=1)

    def step(x, w):
        x = x.detach().requires_grad_()
        y = (F.linear(x, w) ** 3).sum()
        (g,) = minigrad.grad(y, x, create_graph=True)
        return minigrad.grad((g * g).sum(), x)

    (got,), (eager,) = in_c(step, x, w), step(Tensor(x), Tensor(w))
    with matmul_precision("float32"):
        (wide,) = step(Tensor(x.astype(np.float64)), Tensor(w.astype(np.float64)))
    scale = np.abs(wide.numpy()).max()
    assert np.abs(got - eager.numpy()).max() < HALF * scale
    assert 8 * EPS * scale < np.abs(got - wide.numpy()).max() < 8 * HALF * scale


CAUSAL = {"is_causal": True}


@pytest.mark.parametrize(
    "T, D, forms",
    [(33, 16, [CAUSAL | {"dropout_p": 0.25}])]
    + [(T, D, [CAUSAL, {}, CAUSAL | {"window": 7}]) for T, D in [(5, 3), (130, 24), (97, 7)]]
    + [(1100, 8, [CAUSAL])],
)
def test_attention_and_its_gradient_are_near_float64(T, D, forms):
    arrays = [numbers(2, 3, T, D, seed=i) for i in range(4)]

    def step(q, k, v, g):
        found = []
        for form in forms:
            q, k, v = (t.detach().requires_grad_() for t in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v, **form)
            found += [y.detach(), *y.gradient(q, k, v, gradient=g)]
        return tuple(found)

    minigrad.manual_seed(3)
    eager = [y.numpy() for y in step(*map(Tensor, arrays))]
    minigrad.manual_seed(3)
    wide = [y.numpy() for y in step(*(Tensor(x.astype(np.float64)) for x in arrays))]
    for found in (eager, in_c(step, *arrays, threads=(1, 2, 7))):
        for y, wanted in zip(found, wide, strict=True):
            assert EPS < np.abs(y - wanted).max() / np.abs(wanted).max() < 4 * HALF


def test_what_is_not_finite_stays_where_it_is_seen():
    q, k, v, g = (numbers(1, 2, 40, 8, seed=i) for i in range(4))
    k[..., 31, :], v[..., 31, 0] = np.inf, np.nan

    def step(q, k, v, g):
        q, k, v = (t.detach().requires_grad_() for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return y.detach(), *y.gradient(q, k, v, gradient=g)

    for y in (in_c(step, q, k, v, g)[0], step(*map(Tensor, (q, k, v, g)))[0].numpy()):
        assert np.isfinite(y[..., :31, :]).all() and not np.isfinite(y[..., 31:, :]).all()


@pytest.mark.parametrize(("T", "capacity"), [(1, 12), (3, 12), (9, 45)])
def test_attention_to_a_cache_rounds_what_it_reads(T, capacity):
    rng, shape = np.random.default_rng(0), (2, 2, capacity, 6)
    eager, cache, wide = (
        StaticCache(shape, Tensor(np.array(0)), Tensor(np.array([0, 2]))) for _ in range(3)
    )
    step = jit(lambda q, k, v: cache.attend(q, k, v), backend="c")
    for _ in range(capacity // T):
        q, k, v = (rng.normal(size=(2, h, T, 6)).astype(np.float32) for h in (4, 2, 2))
        got, want = step(Tensor(q), Tensor(k), Tensor(v)), eager.attend(*map(Tensor, (q, k, v)))
        with matmul_precision("float32"):
            plain = wide.attend(Tensor(q), Tensor(k), Tensor(v)).numpy()
        for y in (got.numpy(), want.numpy()):
            assert EPS < np.abs(y - plain).max() < 4 * HALF * np.abs(plain).max()
        # But for numbers beside a tie, which may be rounded the other way
        assert np.median(np.abs(got.numpy() - want.numpy())) < 4 * EPS
        for c in (eager, cache, wide):
            c.length.data += T
    assert "bfloat16" in step.explain() and "numpy" not in step.explain()


def model_and_step(matmul, optimizer=AdamW, **options):
    minigrad.manual_seed(0)
    model = nn.Sequential(nn.Linear(19, 30), nn.GELU(), nn.Linear(30, 1, bias=False))
    chosen = optimizer([p for p in model.parameters() if p.ndim == 2], lr=1e-2)

    @jit(matmul=matmul, **options)
    def step(x):
        chosen.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        chosen.step()
        return loss

    return model, step


@pytest.mark.as_for_users
@pytest.mark.parametrize("optimizer", [AdamW, Muon])
def test_a_step_in_c_does_what_its_numpy_replay_does(optimizer):
    x = Tensor(numbers(24, 19))
    found = {}
    for backend, matmul in (("c", "medium"), ("numpy", "bfloat16"), ("numpy", "float32")):
        model, step = model_and_step(matmul, optimizer, backend=backend)
        losses = [float(step(x)) for _ in range(6)]
        assert step.note == ""
        found[backend, matmul] = losses, model[0].weight.numpy()
    (losses, w), (others, v), (plain, u) = found.values()
    assert np.allclose(losses, others, rtol=1e-3) and np.abs(w - v).max() < 2e-3
    assert losses != plain and np.allclose(losses, plain, rtol=2e-2) and np.abs(w - u).max() > 0


def test_products_of_muon_stay_in_float32():
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    found = []
    for precision in ("float32", "bfloat16"):
        w = Tensor(np.zeros((3, 4), np.float32), requires_grad=True)
        optimizer = Muon([w], lr=0.1, momentum=0.0, nesterov=False)
        w.grad = Tensor(x)
        with matmul_precision(precision):
            optimizer.step()
        found.append(w.numpy())
    assert np.array_equal(*found)


def test_another_precision_is_another_program_and_the_first_is_found_again():
    calls = []

    @jit(audit=False)
    def step(x):
        calls.append(1)
        return x @ x

    x, found = Tensor(numbers(16, 16)), []
    for precision in ("bfloat16", "float32", "bfloat16", "float32"):
        with matmul_precision(precision):
            found.append([step(x).numpy() for _ in range(3)][-1])
        assert len(calls) == 2 * min(len(found), 2)
    assert np.array_equal(found[0], found[2]) and np.array_equal(found[1], found[3])
    assert not np.array_equal(found[0], found[1])


def test_a_setting_inside_a_step_does_not_reach_it():
    @jit(matmul="bfloat16")
    def step(x):
        minigrad.set_matmul_precision("float32")
        return x @ x

    x = Tensor(numbers(16, 16))
    found = [step(x).numpy() for _ in range(3)]
    assert np.abs(found[0] - found[2]).max() < 1e-5 and "bfloat16" in step.explain()


def test_a_cpu_without_bfloat16_says_so_once_and_uses_float32(monkeypatch):
    module = sys.modules["minigrad.compiler.jit"]
    monkeypatch.setattr(module, "has_bfloat16", lambda: False)
    monkeypatch.setattr(module, "_NO_BFLOAT16", ["no bfloat16 here"])
    x = Tensor(numbers(16, 16))
    with matmul_precision("float32"):
        wanted = (x @ x).numpy()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            step = jit(lambda x: x @ x)
            assert all(np.allclose(step(x).numpy(), wanted, rtol=1e-6, atol=1e-5) for _ in range(3))
    assert ["no bfloat16 here" in str(w.message) for w in caught] == [True]


def test_spellings_of_the_setting(monkeypatch):
    monkeypatch.setattr(sys.modules["minigrad.precision"], "_chosen", ["float32"])
    token = PRECISION.set(None)
    try:
        for word, wanted in (("medium", "bfloat16"), ("highest", "float32"), ("bfloat16",) * 2):
            minigrad.set_matmul_precision(word)
            assert minigrad.get_matmul_precision() == wanted
        for wrong in ("high", "fp16", None, 16):
            with pytest.raises(ConfigError, match=r'"float32" .* or "bfloat16"'):
                minigrad.set_matmul_precision(wrong)
        assert minigrad.get_matmul_precision() == "bfloat16"
    finally:
        PRECISION.reset(token)
    with pytest.raises(ConfigError, match="jit: matmul must be"):
        jit(lambda x: x, matmul="high")


def test_float64_and_integers_are_left_alone():
    for x in (numbers(4, 4).astype(np.float64), np.arange(16).reshape(4, 4) + 1001):
        assert np.array_equal((Tensor(x) @ Tensor(x)).numpy(), x @ x)
