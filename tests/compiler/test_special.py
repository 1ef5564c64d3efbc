"""Functions of calculus in C that the prelude does not have, against 50 digits; exact GELU,
softplus and the losses made of them.
"""

import numpy as np
import pytest
from mpmath import mp

from minigrad import Tensor, dtypes, functional as F, ops
from minigrad.compiler import jit
from tests.compiler.in_c import EPS, compiled, near, with_gradients

pytestmark = pytest.mark.as_for_users

rng = np.random.default_rng(0)
EDGES = np.float32(
    [
        0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        1e-42,
        -1e-42,
        3e38,
        -3e38,
        1e-30,
        0.46875,
        -0.46875,
        30,
        -30,
    ]
)
SPREAD = np.concatenate(
    [rng.normal(0, s, 150) for s in (1e-6, 0.1, 1, 4, 40)] + [np.linspace(-12, 12, 300)]
).astype(np.float32)


def exact(function, *arrays):
    """The function to 30 digits, rounded to float64."""
    with mp.workdps(30):
        return np.array(
            [float(function(*map(mp.mpf, map(float, xs)))) for xs in zip(*arrays, strict=True)]
        )


def ulps(got, wanted):
    """The largest error, in units of the last place of float32; of results below the smallest
    normal float, in units of that float's last place.
    """
    return np.max(
        np.abs(got - wanted) / np.spacing(np.maximum(np.abs(wanted), 1.2e-38).astype(np.float32))
    )


@pytest.mark.parametrize(
    ("name", "function", "limit"),
    [
        ("erf", mp.erf, 3),
        ("erfc", mp.erfc, 8),
        ("gauss", lambda x: mp.exp(-x * x), 4),
        ("softplus", lambda x: mp.log1p(mp.exp(x)), 4),
    ],
)
def test_functions_are_within_a_few_ulp_of_50_digits_and_keep_nan_and_inf(name, function, limit):
    got, _ = compiled(getattr(ops, name), SPREAD, threads=(1,))
    assert ulps(got[0], exact(function, SPREAD)) <= limit
    edges, wanted = compiled(getattr(ops, name), EDGES, threads=(1,))
    assert np.allclose(edges[0], wanted[0], rtol=4 * EPS, atol=1e-44, equal_nan=True), (
        edges[0],
        wanted[0],
    )


def test_logaddexp_is_within_a_few_ulp_of_50_digits():
    a, b = SPREAD, rng.permutation(SPREAD)
    got, _ = compiled(ops.logaddexp, a, b, threads=(1,))
    wanted = exact(lambda x, y: mp.log(mp.exp(x) + mp.exp(y)), a, b)
    larger = np.maximum(
        np.abs(np.maximum(a, b)), np.abs(wanted)
    )  # where a negative maximum and the logarithm cancel, digits go
    difference = np.abs(np.float64(a) - b)  # whose rounding is a factor of its exponential
    assert (
        np.abs(got[0] - wanted)
        <= 4 * EPS * np.maximum(larger, 1e-38) + EPS * difference * np.exp(-difference)
    ).all()
    grid = np.array(np.meshgrid(EDGES, EDGES)).reshape(2, -1)
    edges, wanted = compiled(ops.logaddexp, *grid, threads=(1,))
    assert np.allclose(edges[0], wanted[0], rtol=4 * EPS, atol=1e-44, equal_nan=True)


@pytest.mark.parametrize("name", ["erf", "erfc", "gauss"])
def test_functions_of_float64_are_eager(name):
    x = np.concatenate([SPREAD, EDGES]).astype(np.float64)
    got, wanted = compiled(getattr(ops, name), x, threads=(1,))
    assert np.allclose(got[0], wanted[0], rtol=1e-13, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", ["asinh", "acosh", "atanh", "hypot", "atan2", "copysign", "fmod"])
def test_inverse_and_two_operand_functions_of_calculus_are_eager_at_every_edge(name):
    op = getattr(ops, name)
    values = np.concatenate([SPREAD, EDGES])
    operands = (values,) if op.__wrapped__.__code__.co_argcount == 1 else (values, values[::-1])
    got, wanted = compiled(op, *operands, threads=(1,))
    assert np.allclose(got[0], wanted[0], rtol=8 * EPS, atol=1e-44, equal_nan=True)


@pytest.mark.parametrize("name", ["gelu", "softplus", "logsigmoid", "mish", "erf", "erfc"])
def test_activations_made_of_them_and_their_gradients_are_eager(name):
    x = np.concatenate([SPREAD, SPREAD[::-1]]).reshape(6, -1)
    got, wanted = compiled(with_gradients(getattr(ops, name)), np.float32(x))
    for g, w in zip(got, wanted, strict=True):
        assert np.allclose(g, w, rtol=16 * EPS, atol=1e-7), np.abs(g - w).max()


def test_exact_gelu_keeps_the_digits_of_its_left_tail():
    x = np.linspace(-12, -2, 500).astype(np.float32)
    got, _ = compiled(ops.gelu, x, threads=(1,))
    wanted = exact(lambda v: v * mp.ncdf(v), x)
    assert (
        np.abs(got[0] - wanted) <= (16 + 2 * x**2) * EPS * np.abs(wanted)
    ).all()  # rounding x / sqrt(2) costs x^2 ulp


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "binary_cross_entropy_with_logits"])
def test_losses_of_two_classes_and_their_gradients_are_eager(loss):
    p, target = (
        rng.random((40, 9)).astype(np.float32),
        (rng.random((40, 9)) < 0.5).astype(np.float32),
    )
    p[0, :4], target[0, :4] = (0, 1, 0, 1), (0, 1, 1, 0)
    x = p if loss == "binary_cross_entropy" else p * 20 - 10
    got, wanted = compiled(
        with_gradients(lambda a, b: getattr(F, loss)(a, b, reduction="none")), x, target
    )
    assert all(
        np.allclose(g, w, rtol=32 * EPS, atol=1e-7) for g, w in zip(got, wanted, strict=True)
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_remainder_has_the_sign_of_the_divisor_as_in_python(dtype):
    values = np.array(
        [0, -0.0, 1, -1, 0.3, -0.3, 7, -7, 2.5, -2.5, 1e30, -1e30, np.inf, -np.inf, np.nan], dtype
    )
    a, b = np.array(np.meshgrid(values, values)).reshape(2, -1)
    got, wanted = compiled(ops.mod, a, b, threads=(1,))
    assert np.array_equal(got[0], wanted[0], equal_nan=True) and np.array_equal(
        np.signbit(got[0]), np.signbit(wanted[0])
    )


@pytest.mark.parametrize(
    "to", ["int64", "int32", "int16", "int8", "uint8", "uint32", "bool", "float64"]
)
@pytest.mark.parametrize("of", [np.float32, np.float64])
def test_floats_become_integers_as_in_numpy(of, to):
    x = np.concatenate([np.linspace(0, 120, 999), [0.5, 0.999, 1e-9, 127]]).astype(of)
    if not to.startswith(("u", "bool")):
        x = np.concatenate([x, -x]).astype(of)
    if to == "bool":
        x = np.concatenate([x, -x, [np.nan, np.inf]]).astype(of)
    got, wanted = compiled(lambda t: ((t * 1).cast(to), t.reshape(1, -1).cast(to)), x, threads=(1,))
    assert all(
        np.array_equal(g, w) and g.dtype == w.dtype for g, w in zip(got, wanted, strict=True)
    )


def test_bools_are_joined_by_the_bitwise_operators():
    x = rng.normal(size=(7, 9)).astype(np.float32)
    got, wanted = compiled(
        lambda t: ((t > -1) & (t < 1), (t > 1) | (t < -1), (t > 0) ^ (t < 1), ~(t > 0)),
        x,
        threads=(1,),
    )
    assert all(near(g, w) for g, w in zip(got, wanted, strict=True))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_16_bit_float_is_cast_as_in_eager(name):
    half = dtypes.as_dtype(name)
    every = np.arange(1 << 16, dtype=np.uint16).view(half)
    step = jit(lambda t: t.cast("float32"), backend="c")
    for _ in range(3):
        got = step(Tensor(every)).numpy()
    assert "numpy" not in step.explain() and np.array_equal(
        got, dtypes.cast(every, dtypes.float32), equal_nan=True
    )


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_float32_is_rounded_to_16_bits_as_in_eager(name):
    half = dtypes.as_dtype(name)
    every = dtypes.cast(np.arange(1 << 16, dtype=np.uint16).view(half), dtypes.float32)
    every = every[np.isfinite(every)]
    middle = ((every[1:].astype(np.float64) + every[:-1]) / 2).astype(
        np.float32
    )  # ties, and what lies beside them
    x = np.concatenate(
        [
            every,
            middle,
            np.nextafter(middle, np.float32(np.inf)),
            np.nextafter(middle, np.float32(-np.inf)),
            EDGES,
            np.float32(
                [65519.99, 65520, 65536, 1e5, 2.0**-25, 2.0**-25 * 1.0001, 2.0**-14, 3.3895e38]
            ),
            # Fmt: skip  # a NaN that rounding must not carry on to a number
            np.array([0x7FFFFFFF], np.uint32).view(np.float32),
        ]
    )
    step = jit(
        lambda t: ((t * 1).cast(name), t.reshape(1, -1).cast(name).cast("float32")), backend="c"
    )
    for _ in range(3):
        bits, back = (t.data for t in step(Tensor(x)))
    wanted = dtypes.cast(x, half)
    assert "numpy" not in step.explain() and bits.dtype == half
    numbers = ~np.isnan(x)
    assert np.array_equal(bits.view(np.uint16)[numbers], wanted.view(np.uint16)[numbers])
    assert np.array_equal(back[0], dtypes.cast(wanted, dtypes.float32), equal_nan=True)
