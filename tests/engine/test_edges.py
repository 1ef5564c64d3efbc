"""What happens at kinks, ties, zeros and infinities: the conventions, one test each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, functional as F, ops
from minigrad.errors import ShapeError, StaleValueError


def slope(f: Any, *values: float) -> list[float]:
    """The gradient of sum f(x)."""
    x = Tensor(np.array(values, float), requires_grad=True)
    return minigrad.grad(f(x).sum(), x)[0].tolist()


def test_relu_and_abs_have_slope_0_at_0() -> None:
    assert slope(ops.relu, -1, 0, 2) == [0, 0, 1]
    assert slope(ops.abs, -1, 0, 2) == [-1, 0, 1]


def test_maximum_and_minimum_share_a_tie_in_halves() -> None:
    assert slope(lambda x: ops.maximum(x, 0.0), -1, 0, 2) == [0, 0.5, 1]
    assert slope(lambda x: ops.minimum(x, 0.0), -1, 0, 2) == [1, 0.5, 0]


def test_clamp_has_slope_1_at_its_bounds_and_the_bounds_get_the_rest() -> None:
    assert slope(lambda x: ops.clamp(x, -1.0, 1.0), -2, -1, 0, 1, 2) == [0, 1, 1, 1, 0]
    low, high = (Tensor(np.array(v), requires_grad=True) for v in (-1.0, 1.0))
    ops.clamp(Tensor(np.array([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0])), low, high).sum().backward()
    assert (low.grad.item(), high.grad.item()) == (1, 2)


@pytest.mark.parametrize("op", [ops.max, ops.min])
def test_ties_of_max_and_min_share_evenly(op: Any) -> None:
    assert slope(op, 3, 3, 3, 3) == [0.25] * 4
    x = Tensor(np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]]), requires_grad=True)
    ops.max(x, axis=1).backward(Tensor(np.array([4.0, 8.0])))
    assert x.grad.tolist() == [[2, 2, 0], [0, 8, 0]]


def test_seventy_thousand_ties_in_float16_share_without_underflow_of_the_count() -> None:
    x = Tensor(np.ones(70_000), dtype="float16", requires_grad=True)
    x.max().backward()
    assert x.grad.dtype == np.float16 and abs(x.grad.double().sum().item() - 1) < 0.02


def test_where_keeps_the_branch_not_taken_out_of_the_gradient() -> None:
    assert slope(lambda x: ops.where(x > 0, ops.log(x), 0.0), 0, 2) == [0, 0.5]
    assert slope(lambda x: ops.where(x > 0, ops.sqrt(x), 0.0), 0, 4) == [0, 0.25]
    assert slope(lambda x: ops.where(x > 0, 1.0 / x, 0.0), 0, 2) == [0, -0.25]
    assert slope(lambda x: ops.where(x > 0, x**0.5, 0.0), 0, 4) == [0, 0.25]
    assert slope(lambda x: ops.where(x < 1, ops.exp(x), 0.0), 0, 1e4) == [1, 0]


def test_sqrt_and_log_have_slope_inf_at_0() -> None:
    assert (
        slope(ops.sqrt, 0) == [np.inf]
        and slope(ops.log, 0) == [np.inf]
        and slope(ops.rsqrt, 4) == [-1 / 16]
    )


def test_a_quotient_of_subnormals_has_a_finite_gradient() -> None:
    """d (a / b) / db = -(a / b) / b: 1e294 here, though 1 / b alone is beyond the largest float."""
    a, b = (Tensor(np.array(v), requires_grad=True) for v in (2.5e-323, 5.5e-309))
    (a / b).backward()
    assert b.grad.item() == -(2.5e-323 / 5.5e-309) / 5.5e-309
    assert np.isinf(a.grad.item())


def test_the_angle_of_a_subnormal_point_has_a_finite_gradient() -> None:
    """d atan2(a, b) / db = -a / (a^2 + b^2), which g brings back into the range of the floats."""
    a, b = (Tensor(np.array(v), requires_grad=True) for v in (5.562684646268003e-309, -2.5e-323))
    ops.atan2(a, b).backward(Tensor(np.array(0.625)))
    assert np.isclose(b.grad.item(), -0.625 / 5.562684646268003e-309, rtol=1e-12)


def test_the_angle_of_the_origin_has_slope_0() -> None:
    for fixed in (0.0, -0.0):
        assert slope(lambda a, x=fixed: ops.atan2(a, x), 0, 2)[0] == 0
        assert slope(lambda b, x=fixed: ops.atan2(x, b), 0, 2) == [0, 0]


def test_powers_at_zero() -> None:
    assert (
        slope(lambda x: x**0.0, 0, 2) == [0, 0]
        and slope(lambda x: x**1.0, 0) == [1]
        and slope(lambda x: x**2.0, 0) == [0]
    )
    assert slope(lambda p: 0.0**p, 0, 2) == [0, 0] and slope(lambda p: 2.0**p, 1) == [2 * np.log(2)]
    second = minigrad.grad(
        minigrad.grad(
            (x := Tensor(np.array(0.0), requires_grad=True)) ** 2.0, x, create_graph=True
        )[0],
        x,
    )[0]
    assert second.item() == 2


def test_gelu_is_the_one_with_erf_unless_told_otherwise() -> None:
    x = Tensor(np.array([1.0]))
    assert abs(F.gelu(x).item() - 0.8413447460685429) < 1e-15
    assert abs(F.gelu(x, approximate="tanh").item() - 0.8411919906082768) < 1e-15


@pytest.mark.parametrize("op", [ops.max, ops.min, ops.argmax, ops.argmin])
def test_the_extremum_of_an_empty_axis_is_an_error_that_names_the_axis(op: Any) -> None:
    with pytest.raises(ShapeError, match="axis 1") as caught:
        op(Tensor(np.zeros((2, 0))), axis=1)
    assert caught.value.got == (2, 0)


def test_sums_of_nothing_are_zero_and_means_are_nan() -> None:
    empty = Tensor(np.zeros((2, 0)), requires_grad=True)
    assert (
        ops.sum(empty, axis=1).tolist() == [0, 0]
        and np.isnan(ops.mean(empty, axis=1).numpy()).all()
    )
    assert ops.logsumexp(empty, axis=1).tolist() == [-np.inf, -np.inf]
    empty.sum().backward()
    assert empty.grad.shape == (2, 0)


def test_causal_attention_of_few_queries_starts_in_the_corner_that_is_named() -> None:
    k = v = Tensor(np.eye(3)[None])
    q = Tensor(np.zeros((1, 1, 3)))
    assert F.scaled_dot_product_attention(q, k, v, is_causal=True).tolist() == [[[1, 0, 0]]]
    np.testing.assert_allclose(
        F.scaled_dot_product_attention(q, k, v, is_causal=True, causal="lower_right").numpy(), 1 / 3
    )


SCALARS = [
    2,
    2.0,
    True,
    np.float64(2),
    np.float32(2),
    np.int64(2),
    1 / np.sqrt(64),
    np.array(2.0)[()],
]


@pytest.mark.parametrize("scalar", SCALARS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_scalars_never_change_a_dtype(dtype: str, scalar: Any) -> None:
    x = Tensor([1.0, 2.0], dtype=dtype, requires_grad=True)
    for y in (
        x * scalar,
        scalar * x,
        x + scalar,
        scalar - x,
        x / scalar,
        x**scalar,
        scalar / x,
        ops.where(x > 1, x, scalar),
    ):
        assert y.dtype == x.dtype
        x.grad = None
        y.sum().backward()
        assert x.grad.dtype == x.dtype


def test_nan_is_not_hidden_by_max_relu_or_a_comparison() -> None:
    x = Tensor(np.array([1.0, np.nan, 3.0]))
    assert (
        np.isnan(ops.max(x).item())
        and np.isnan(ops.min(x).item())
        and np.isnan(ops.relu(x).numpy()[1])
    )
    assert (
        np.isnan(ops.maximum(x, 5.0).numpy()[1])
        and np.isnan(ops.clamp(x, 0.0, 1.0).numpy()[1])
        and np.isnan(ops.softmax(x).numpy()).all()
    )


@pytest.mark.parametrize("x", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 3.0, 0.5, -1.0])
def test_pow_has_all_its_second_derivatives_at_the_edges_of_base_and_exponent(
    x: float, p: float
) -> None:
    """d/dx = p x^(p-1), d/dp = x^p log x;  d2/dxdp = x^(p-1) (1 + p log x), from both sides; 0 log
    0 and 0 * x^(p-1) at p = 0 count as 0.
    """
    a, b = Tensor(np.array(x), requires_grad=True), Tensor(np.array(p), requires_grad=True)
    gx, gp = minigrad.grad(a**b, (a, b), create_graph=True)
    assert gx.item() == (
        p * x ** (p - 1) if p and (x or p >= 1) else 0.0 if not p else np.copysign(np.inf, p)
    )
    if x:
        assert gp.item() == pytest.approx(x**p * np.log(x), rel=1e-15)
        mixed = x ** (p - 1) * (1 + p * np.log(x))
        assert minigrad.grad(gx, b, retain_graph=True)[0].item() == pytest.approx(mixed, rel=1e-15)
        assert minigrad.grad(gp, a, retain_graph=True)[0].item() == pytest.approx(mixed, rel=1e-15)
        second = p * (p - 1) * x ** (p - 2)
        assert minigrad.grad(gx, a, materialize_grads=True)[0].item() == pytest.approx(
            second, rel=1e-15
        )
    elif p >= 0:
        assert gp.item() == 0.0


def test_a_zero_in_an_exponent_or_a_base_leaves_the_other_elements_alone() -> None:
    x = Tensor(np.array([0.0, 1.0, 2.0]), requires_grad=True)
    for exponent, wanted in (
        (0, [0, 0, 0]),
        (np.array([0.0, 0.0, 3.0]), [0, 0, 12]),
        (1, [1, 1, 1]),
    ):
        assert (
            minigrad.grad(
                (x ** (Tensor(exponent) if isinstance(exponent, np.ndarray) else exponent)).sum(), x
            )[0].tolist()
            == wanted
        )


# --- faults that have survived the tests once


def test_views_share_a_version_so_that_a_write_through_one_is_noticed_through_another() -> None:
    weight = Tensor(np.ones((2, 3)), requires_grad=True)
    for view in (
        lambda t: t.reshape(6),
        lambda t: t.T,
        lambda t: t[0],
        lambda t: t.expand(2, 2, 3),
        lambda t: t.flip(0),
        lambda t: t.detach(),
    ):
        base = Tensor(np.ones((2, 3)))
        seen = view(base)
        y = (seen.reshape(seen.shape) * Tensor(np.ones(seen.shape), requires_grad=True)).sum()
        base[0, 0] = 5.0
        with pytest.raises(StaleValueError):
            y.backward()
        z = (base * weight).sum()
        if seen.data.flags.writeable:
            seen.assign(2.0)
            with pytest.raises(StaleValueError):
                z.backward()


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, bool])
def test_sorting_keeps_equal_elements_in_their_order(descending: bool, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 2 if dtype is bool else 4, (3, 500)).astype(
        dtype
    )  # long: short arrays are sorted by insertion, which is stable
    values, order = Tensor(keys).sort(descending=descending)
    wanted = [
        sorted(range(500), key=lambda i: -int(row[i]) if descending else int(row[i]))
        for row in keys
    ]
    assert (
        order.tolist() == wanted and Tensor(keys).argsort(descending=descending).tolist() == wanted
    )
    assert np.array_equal(values.numpy(), np.take_along_axis(keys, np.array(wanted), 1))


def test_a_running_sum_of_float32_keeps_the_digits_of_its_exact_sum() -> None:
    x = np.full(200_000, 0.1, np.float32)
    got = Tensor(x).cumsum(0).numpy()
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, np.arange(1, 200_001) * float(x[0]), rtol=1.2e-7)
    t = Tensor(x, requires_grad=True)
    t.cumsum(0)[-1].backward()
    assert (t.grad.numpy() == 1).all()


def test_cummax_stays_at_the_first_nan() -> None:
    x = Tensor(np.array([1.0, 3.0, np.nan, 5.0, np.nan, 7.0]), requires_grad=True)
    values, places = x.cummax(0)
    assert places.tolist()[:2] == [0, 1] and all(
        i >= 2 and np.isnan(x.numpy()[i]) for i in places.tolist()[2:]
    )
    assert values.tolist()[:2] == [1, 3] and np.isnan(values.numpy()[2:]).all()
    with np.errstate(invalid="ignore"):
        values[:2].sum().backward()
    assert x.grad.tolist() == [1, 1, 0, 0, 0, 0]


def test_of_several_writers_to_one_place_only_the_last_has_a_gradient() -> None:
    index = np.array([1, 0, 1, 1])
    for write in (
        lambda t, v: t.scatter(0, index, v),
        lambda t, v: (t.__setitem__(index, v), t)[1],
    ):
        x, v = (
            Tensor(np.arange(3.0), requires_grad=True),
            Tensor(np.arange(4.0) + 10, requires_grad=True),
        )
        y = write(x * 1, v)
        assert y.tolist() == [11, 13, 2]
        (y * Tensor(np.array([1.0, 2.0, 3.0]))).sum().backward()
        assert x.grad.tolist() == [0, 0, 3] and v.grad.tolist() == [0, 1, 0, 2]


def test_a_scattered_mean_counts_what_was_there_unless_told_not_to() -> None:
    x, index, src = Tensor(np.array([10.0, 5.0])), np.array([0, 0]), Tensor(np.array([1.0, 4.0]))
    assert x.scatter_reduce(0, index, src, "mean").tolist() == [5.0, 5.0]
    assert x.scatter_reduce(0, index, src, "mean", include_self=False).tolist() == [2.5, 5.0]
