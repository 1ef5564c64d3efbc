"""The names that PyTorch users expect, held against numpy and their definitions."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import minigrad
from minigrad import Tensor, functional as F, ops
from minigrad.counterparts import counterparts
from minigrad.errors import ConfigError, IndexRangeError, MinigradError, ShapeError

rng = np.random.default_rng(0)
numbers = st.integers(-4, 4)


@st.composite
def arrays(draw: Any, least: int = 1) -> Any:
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=least, max_size=3)))
    return (
        np.array(draw(st.lists(numbers, min_size=(n := int(np.prod(shape))), max_size=n)))
        .reshape(shape)
        .astype(draw(st.sampled_from([np.float64, np.int64])))
    )


def same(got: Any, wanted: Any) -> None:
    np.testing.assert_array_equal(got.numpy(), wanted)
    assert got.shape == np.shape(wanted)


@settings(deadline=None, max_examples=80)
@given(arrays(), st.data())
def test_movements_agree_with_numpy(x: Any, data: Any) -> None:
    t, axis = Tensor(x), data.draw(st.integers(-x.ndim, x.ndim - 1))
    n = x.shape[axis]
    start = data.draw(st.integers(0, n - 1))
    length = data.draw(st.integers(0, n - start))
    same(ops.narrow(t, axis, start, length), np.take(x, range(start, start + length), axis))
    same(ops.narrow(t, axis, start - n, length), np.take(x, range(start, start + length), axis))
    same(ops.select(t, axis, start), np.take(x, start, axis))
    index = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=5)), np.int64)
    same(ops.index_select(t, axis, index), np.take(x, index, axis))
    added = np.moveaxis(x.copy(), axis, 0)
    source = np.moveaxis(np.resize(np.arange(7.0), (len(index), *added.shape[1:])), 0, axis)
    np.add.at(added, index, 2 * np.moveaxis(source, axis, 0).astype(x.dtype))
    source = source.astype(x.dtype)
    same(ops.index_add(t, axis, index, Tensor(source), 2), np.moveaxis(added, 0, axis))
    times = data.draw(st.integers(0, 3))
    same(ops.diff(t, times, axis), np.diff(x, times, axis=axis))
    other = data.draw(st.integers(1, 3))
    y = np.ones((*x.shape[1:], other)) if x.ndim > 1 else np.ones((n, other))
    same(ops.tensordot(t, Tensor(x), 0), np.tensordot(x, x, 0))
    dims = min(x.ndim, x.ndim - 1 or 1)
    np.testing.assert_allclose(
        ops.tensordot(t, Tensor(y), dims).numpy(), np.tensordot(x, y, dims), rtol=1e-6
    )
    same(ops.hstack(t, t), np.hstack([x, x]))
    same(ops.vstack(t, t), np.vstack([x, x]))


@settings(deadline=None, max_examples=80)
@given(arrays(), st.booleans(), st.booleans(), st.data())
def test_order_statistics_agree_with_numpy(x: Any, keep: bool, whole: bool, data: Any) -> None:
    axis = None if whole else data.draw(st.integers(-x.ndim, x.ndim - 1))
    t = Tensor(x)
    lower = np.quantile(x, 0.5, axis=axis, keepdims=keep, method="lower")
    same(ops.median(t, axis=axis, keepdim=keep), lower)
    q = data.draw(st.lists(st.floats(0, 1), min_size=1, max_size=3))
    floats = Tensor(x.astype(np.float64))
    for mode in ("linear", "lower", "higher", "midpoint"):
        for at in (q, q[0]):
            got = ops.quantile(floats, at, axis=axis, keepdim=keep, interpolation=mode)
            wanted = np.quantile(x, at, axis=axis, keepdims=keep, method=mode)
            np.testing.assert_allclose(got.numpy(), wanted, atol=1e-13)
    if axis is not None:
        values, index = ops.cummin(t, axis=axis)
        same(values, np.minimum.accumulate(x, axis))
        same(values, np.take_along_axis(x, index.numpy(), axis))
    found, inverse, counts = ops.unique(t, return_inverse=True, return_counts=True)
    same(found, np.unique(x))
    same(counts, np.unique(x, return_counts=True)[1])
    np.testing.assert_array_equal(found.numpy()[inverse.numpy()], x)
    for right in (False, True):
        side: Any = "right" if right else "left"
        same(ops.searchsorted(found, t, right=right), np.searchsorted(found.numpy(), x, side))
    flat = np.abs(x).astype(np.int64).reshape(-1)
    same(ops.bincount(Tensor(flat), minlength=3), np.bincount(flat, minlength=3))
    weights = rng.normal(size=flat.size)
    np.testing.assert_allclose(
        ops.bincount(Tensor(flat), Tensor(weights)).numpy(), np.bincount(flat, weights)
    )


def test_a_nan_makes_medians_and_quantiles_nan() -> None:
    x = Tensor([[1.0, np.nan, 2.0], [3.0, 1.0, 2.0]])
    np.testing.assert_array_equal(ops.median(x, axis=1).numpy(), [np.nan, 2])
    np.testing.assert_array_equal(ops.quantile(x, 0.5, axis=1).numpy(), [np.nan, 2])
    np.testing.assert_array_equal(
        ops.quantile(Tensor([1.0, np.inf, np.inf]), [0.0, 0.5]).numpy(), [1, np.inf]
    )


@pytest.mark.parametrize("p", [0, 0.5, 1, 2, 3, np.inf, -np.inf, -1])
@pytest.mark.parametrize("axis", [None, 0, 1, (0, 1)])
def test_norms_agree_with_numpy(p: float, axis: Any) -> None:
    x = rng.normal(size=(3, 4))
    flat = x.reshape(-1) if axis in (None, (0, 1)) else x
    wanted = np.linalg.norm(flat, p, axis=None if flat.ndim == 1 else axis)
    np.testing.assert_allclose(ops.norm(Tensor(x), p=p, axis=axis).numpy(), wanted, rtol=1e-13)


def test_the_gradient_of_a_norm_at_zero_is_zero() -> None:
    for p in (1, 1.5, 2, 3, np.inf):
        x = Tensor(np.zeros(3), requires_grad=True)
        ops.norm(x, p=p).backward()
        assert x.grad is not None and x.grad.tolist() == [0, 0, 0]
    for f in (F.normalize, lambda v: F.cosine_similarity(v, v + 1)):
        x = Tensor(np.zeros((1, 3)), requires_grad=True)
        f(x).sum().backward()
        assert x.grad is not None and np.isfinite(x.grad.numpy()).all()


def test_indices_out_of_range_are_refused() -> None:
    x = Tensor(np.zeros((2, 3)))
    for call in (
        lambda: ops.index_select(x, 1, np.array([-1])),
        lambda: ops.index_select(x, 1, np.array([3])),
        lambda: ops.index_add(x, 0, np.array([2]), Tensor(np.ones((1, 3)))),
        lambda: ops.bincount(np.array([1, -1])),
    ):
        with pytest.raises(IndexRangeError):
            call()
    for refused in (
        lambda: ops.narrow(x, 1, 2, 2),
        lambda: ops.index_select(x, 1, np.array([[0]])),
        lambda: ops.tensordot(x, x, 1),
        lambda: ops.diff(x, -1),
        lambda: ops.quantile(x, 1.5),
        lambda: ops.quantile(x, 0.5, interpolation="cubic"),
        lambda: ops.median(Tensor(np.zeros((0,)))),
        lambda: ops.trace(Tensor(np.zeros(3))),
    ):
        with pytest.raises((ShapeError, ConfigError)):
            refused()


# --- pads, convolution, resampling


def reflected(i: int, n: int) -> int:
    return -i if i < 0 else 2 * (n - 1) - i if i >= n else i


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 6), st.integers(-3, 5), st.integers(-3, 5), st.data())
def test_pads_with_negative_widths_cut_before_they_add(
    n: int, before: int, after: int, data: Any
) -> None:
    mode = data.draw(st.sampled_from(["reflect", "replicate", "circular"]))
    kept = list(range(n))[max(-before, 0) : n - max(-after, 0)]
    most = {"reflect": len(kept) - 1, "circular": len(kept), "replicate": 99}[mode]
    x = Tensor(np.arange(float(n)))
    if not kept or max(before, after) > most:
        if (before, after) != (0, 0):
            with pytest.raises(ShapeError):
                x.pad((before, after), mode)
        return
    m = len(kept)
    place = {
        "reflect": lambda i: reflected(i, m),
        "replicate": lambda i: min(max(i, 0), m - 1),
        "circular": lambda i: i % m,
    }[mode]
    wanted = [kept[place(i)] for i in range(-max(before, 0), m + max(after, 0))]
    assert x.pad((before, after), mode).tolist() == wanted


@st.composite
def convolutions(draw: Any) -> Any:
    groups, n = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    sizes = tuple(draw(st.integers(1, 3)) for _ in range(n))
    settings_ = {
        "stride": draw(st.integers(1, 3)),
        "padding": draw(st.integers(0, 2)),
        "dilation": draw(st.integers(1, 2)),
        "groups": groups,
    }
    reach = [settings_["dilation"] * (k - 1) + 1 for k in sizes]
    lengths = tuple(draw(st.integers(max(1, r - 2 * settings_["padding"]), 7)) for r in reach)
    O, C = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    return (2, C, *lengths), (O, C // groups, *sizes), settings_


@settings(deadline=None, max_examples=60)
@given(convolutions(), st.integers(0, 2**32 - 1))
def test_conv_transpose_is_the_transpose_of_conv(case: Any, seed: int) -> None:
    shape, kernel, options = case
    rng = np.random.default_rng(seed)
    x = Tensor(rng.normal(size=shape), requires_grad=True)
    w = Tensor(rng.normal(size=kernel))
    conv = F.conv1d if len(kernel) == 3 else F.conv2d
    transpose = F.conv_transpose1d if len(kernel) == 3 else F.conv_transpose2d
    y = conv(x, w, **options)
    g = rng.normal(size=y.shape)
    (back,) = minigrad.grad(y, x, Tensor(g))
    s, p, d = (options[name] for name in ("stride", "padding", "dilation"))
    extra = tuple(
        n - ((m - 1) * s - 2 * p + d * (k - 1) + 1)
        for n, m, k in zip(shape[2:], y.shape[2:], kernel[2:], strict=True)
    )
    if max(extra) < max(s, d):
        got = transpose(Tensor(g), w, output_padding=extra, **options)
        np.testing.assert_allclose(got.numpy(), back.numpy(), atol=1e-12)
    one = conv(x[0], w, **options)
    np.testing.assert_allclose(one.numpy(), y[0].numpy(), atol=1e-12)
    if options["groups"] == 1 and len(kernel) == 4:
        columns = F.unfold(x, kernel[2:], d, p, s)
        product = w.numpy().reshape(kernel[0], -1) @ columns.numpy()
        np.testing.assert_allclose(product.reshape(y.shape), y.numpy(), atol=1e-12)
        ones = F.unfold(Tensor(np.ones(shape)), kernel[2:], d, p, s)
        folded = F.fold(ones, shape[2:], kernel[2:], d, p, s)
        (counts,) = minigrad.grad(columns.sum(), x)
        np.testing.assert_array_equal(folded.numpy(), counts.numpy())


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=2), st.data())
def test_adaptive_pools_and_interpolation_are_their_definitions(lengths: Any, data: Any) -> None:
    x = rng.normal(size=(2, 3, *lengths))
    sizes = tuple(data.draw(st.integers(1, 7)) for _ in lengths)
    pool = F.adaptive_avg_pool1d if len(lengths) == 1 else F.adaptive_avg_pool2d
    parts = [
        [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]
        for n, m in zip(lengths, sizes, strict=True)
    ]
    wanted = np.zeros((2, 3, *sizes))
    for at in np.ndindex(*sizes):
        cut = tuple(slice(*part[i]) for part, i in zip(parts, at, strict=True))
        wanted[(..., *at)] = x[(..., *cut)].mean(axis=tuple(range(2, x.ndim)))
    np.testing.assert_allclose(pool(Tensor(x), sizes).numpy(), wanted, atol=1e-14)
    nearest = x
    for axis, (n, m) in enumerate(zip(lengths, sizes, strict=True), 2):
        nearest = np.take(nearest, [i * n // m for i in range(m)], axis)
    np.testing.assert_array_equal(F.interpolate(Tensor(x), sizes).numpy(), nearest)
    mode = ["linear", "bilinear"][len(lengths) - 1]
    for corners in (False, True):
        y = x
        for axis, (n, m) in enumerate(zip(lengths, sizes, strict=True), 2):
            at = [
                i * (n - 1) / max(m - 1, 1) if corners else max((i + 0.5) * n / m - 0.5, 0)
                for i in range(m)
            ]
            line = np.moveaxis(y, axis, -1)
            flat = np.array([np.interp(at, range(n), row) for row in line.reshape(-1, n)]).reshape(
                *line.shape[:-1], m
            )
            y = np.moveaxis(flat, -1, axis)
        got = F.interpolate(Tensor(x), sizes, mode=mode, align_corners=corners)
        np.testing.assert_allclose(got.numpy(), y, atol=1e-13)


def test_unfold_and_fold_take_a_picture_without_a_batch() -> None:
    x = Tensor(rng.normal(size=(2, 4, 5)))
    columns = F.unfold(x, 2, padding=1)
    assert columns.shape == (8, 30)
    np.testing.assert_array_equal(columns.numpy(), F.unfold(x[None], 2, padding=1)[0].numpy())
    folded = F.fold(columns, (4, 5), 2, padding=1)
    np.testing.assert_array_equal(folded.numpy(), 4 * x.numpy())
    assert F.unfold(x, (3,)).shape == (2, 12, 3)  # one axis to cut


def test_an_infinity_stays_in_its_own_window() -> None:
    x = Tensor(np.array([[np.inf, 1.0, 2.0, 3.0, np.nan]]))
    np.testing.assert_array_equal(F.adaptive_avg_pool1d(x, 3).numpy(), [[np.inf, 2.0, np.nan]])


def test_sizes_that_do_not_fit_are_refused() -> None:
    x = Tensor(np.zeros((2, 4, 5)))
    w = Tensor(np.zeros((4, 2, 3)))
    for call in (
        lambda: F.conv_transpose1d(x, w, groups=3),
        lambda: F.conv_transpose1d(x, w, output_padding=1),
        lambda: F.conv_transpose1d(x[:, :3], w),
        lambda: F.conv1d(Tensor(np.zeros(5)), w),
        lambda: F.conv2d(x, w),
        lambda: F.interpolate(x),
        lambda: F.interpolate(x, 3, 2.0),
        lambda: F.interpolate(x, 3, mode="cubic"),
        lambda: F.max_pool1d(x, 3, padding=2),
        lambda: F.unfold(x[0, 0], 2),
        lambda: F.unfold(x, (2, 2, 2)),
        lambda: F.fold(x[:, :, :4], (3, 4), 2),
        lambda: F.fold(x[:, :3, :4], (3, 3), 2),
        lambda: F.fold(x[0, 0], (3, 3), 2),
        lambda: F.interpolate(x, 3, mode="bilinear"),
        lambda: F.interpolate(x[None], 3, mode="linear"),
        lambda: F.interpolate(x[None], 3, mode="trilinear"),
        lambda: F.interpolate(x[0], scale_factor=2),
        lambda: F.interpolate(x, 3, align_corners=True),
        lambda: F.interpolate(x, 3, align_corners=False),
        lambda: F.avg_pool1d(x, 0),
    ):
        with pytest.raises(MinigradError):
            call()


def test_every_pair_of_rows_has_its_cosine() -> None:
    a, b = rng.normal(size=(3, 5)), rng.normal(size=(4, 5))
    got = F.cosine_similarity(Tensor(a[:, None]), Tensor(b[None]), -1)
    for i, j in itertools.product(range(3), range(4)):
        wanted = a[i] @ b[j] / np.linalg.norm(a[i]) / np.linalg.norm(b[j])
        assert got.numpy()[i, j] == pytest.approx(wanted, rel=1e-14)


def test_cosines_are_taken_along_an_axis_of_the_shape_that_both_have_together() -> None:
    a, b = Tensor(rng.normal(size=(3, 4))), Tensor(rng.normal(size=4))
    for axis in (0, 1, -1):
        for got, wanted in (
            (F.cosine_similarity(a, b, axis), F.cosine_similarity(a, b.expand(3, 4), axis)),
            (F.cosine_similarity(b, a, axis), F.cosine_similarity(b.expand(3, 4), a, axis)),
        ):
            np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=1e-14)


def test_bools_and_small_integers_are_close_by_their_values() -> None:
    mask = Tensor([True, False, True])
    assert minigrad.isclose(mask, Tensor([True, True, True])).tolist() == [True, False, True]
    assert minigrad.allclose(mask, mask)
    few, more = Tensor(np.array([3, 5], np.uint8)), Tensor(np.array([5, 3], np.uint8))
    assert minigrad.allclose(few, more, rtol=0, atol=2) and not minigrad.allclose(
        few, more, rtol=0, atol=1
    )


def test_bincount_takes_unsigned_integers() -> None:
    assert ops.bincount(Tensor(np.array([2, 0, 2], np.uint8))).tolist() == [1, 0, 2]


@settings(deadline=None, max_examples=60)
@given(arrays(0), st.sampled_from([-3, -2, 1, 2, 5]), st.booleans())
def test_a_rounded_quotient_is_numpy_s_and_has_gradient_0(x: Any, b: int, left: bool) -> None:
    x = np.where(x == 0, 1, x) if left else x
    a, c = (b, Tensor(x)) if left else (Tensor(x), b)
    quotient = np.divide(b, x) if left else np.divide(x, b)
    for mode, rounded in (("floor", np.floor), ("trunc", np.trunc)):
        y = minigrad.div(a, c, rounding_mode=mode)
        same(y, rounded(quotient))
        assert y.dtype == x.dtype
    if x.dtype == np.float64:
        t = Tensor(x, requires_grad=True)
        for mode in ("floor", "trunc"):
            y = (t.div(b, rounding_mode=mode) + t * t).sum()
            (g,) = minigrad.grad(y, t, create_graph=True)
            same(g.detach(), 2 * x)
            same(minigrad.grad(g.sum(), t)[0], np.full(x.shape, 2.0))


def test_div_without_a_rounding_mode_is_the_operator_and_another_mode_is_refused() -> None:
    t = Tensor([7.0, -7.0], requires_grad=True)
    t.div(2.0, rounding_mode=None).sum().backward()
    assert t.grad is not None and t.grad.tolist() == [0.5, 0.5]
    assert Tensor([7, -7]).div(2).tolist() == [3.5, -3.5]
    with pytest.raises(ConfigError, match="rounding_mode must be one of 'floor', 'trunc'"):
        t.div(2.0, rounding_mode="round")


def test_where_with_a_condition_alone_names_the_places() -> None:
    x = rng.integers(0, 2, (3, 4))
    for got, wanted in zip(minigrad.where(Tensor(x) > 0), np.where(x > 0), strict=True):
        same(got, wanted)


def test_the_first_operand_may_be_named_as_pytorch_names_it() -> None:
    x = rng.standard_normal((2, 3))
    for got, wanted in (
        (F.dropout(input=Tensor(x), p=0.5, training=False), x),
        (F.pad(input=Tensor(x), pad=(1, 0)), np.pad(x, ((0, 0), (1, 0)))),
        (F.one_hot(input=Tensor([1, 0]), num_classes=2), np.eye(2)[::-1]),
        (minigrad.sum(input=x, dim=0), x.sum(0)),
        (F.relu(input=Tensor(x)), np.maximum(x, 0)),
        (F.softmax(input=Tensor(x * 0), dim=1), np.full((2, 3), 1 / 3)),
        (F.linear(input=Tensor(x), weight=Tensor(np.eye(3))), x),
        (minigrad.cat(tensors=[Tensor(x), x], dim=1), np.concatenate([x, x], 1)),
    ):
        same(got, wanted)
    for call in (lambda: minigrad.sum(dim=0), minigrad.meshgrid, lambda: F.pad(pad=(1, 1))):
        with pytest.raises(MinigradError, match="the tensor to work on is missing"):
            call()


ACTIVATIONS = "relu relu6 leaky_relu elu selu celu silu mish hardtanh hardsigmoid hardswish dropout"


@pytest.mark.parametrize("name", ACTIVATIONS.split())
def test_inplace_is_accepted_if_false_and_else_refused_by_name(name: str) -> None:
    t, function = Tensor([1.5, -0.5]), getattr(F, name)
    options = {"training": False} if name == "dropout" else {}
    same(function(t, inplace=False, **options), function(t, **options).numpy())
    with pytest.raises(ConfigError, match=rf"{name}: inplace=True .*\n  x = {name}\(x\)"):
        function(t, inplace=True, **options)
    assert t.tolist() == [1.5, -0.5]


def test_the_cpu_is_the_only_device() -> None:
    t = Tensor([1.0])
    for make in (
        lambda d: minigrad.zeros(1, device=d),
        lambda d: minigrad.full((1,), 0.0, device=d),
        lambda d: minigrad.randn(1, device=d) * 0,
        lambda d: minigrad.randperm(1, device=d),
        lambda d: minigrad.zeros_like(t, device=d),
        lambda d: minigrad.rand_like(t, device=d) * 0,
        lambda d: minigrad.tensor([0.0], device=d),
        lambda d: minigrad.as_tensor([0.0], device=d),
        lambda d: (t * 0).to(device=d),
    ):
        assert make("cpu").tolist() == make("cpu:0").tolist() == make(None).tolist() == [0]
        for device in ("cuda", "tpu", "float32", 0):
            with pytest.raises(ConfigError, match=f"no device {device!r}"):
                make(device)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_norms_of_16_bit_floats_round_once(dtype: str) -> None:
    x = Tensor(rng.standard_normal((4, 6)) + 8, dtype=dtype, requires_grad=True)
    wide = Tensor(x.float().numpy(), requires_grad=True)
    upstream = rng.standard_normal((4, 6))
    for norm in (F.layer_norm, F.rms_norm):
        grads = []
        for t in (x, wide):
            y = norm(t, 6)
            (g,) = minigrad.grad((y.float() * Tensor(upstream).float()).sum(), t)
            grads.append((y, g))
        for half, exact in zip(*grads, strict=True):
            assert half.dtype == x.dtype
            np.testing.assert_array_equal(half.float().numpy(), exact.to(dtype).float().numpy())


@pytest.mark.parametrize(
    ("owner", "name", "hint"),
    [
        (minigrad, "Size", "tuple"),
        (minigrad, "Linear", "nn.Linear"),
        (minigrad, "Adam", "optim.Adam"),
        (minigrad, "addmm", r"a \+ b @ c"),
        (minigrad.nn, "Conv2D", "Conv2d"),
        (minigrad.nn, "Mish", "F.mish"),
        (F, "upsample", "F.interpolate"),
        (F, "exp", "minigrad.exp"),
        (F, "Linear", "nn.Linear"),
        (minigrad.nn, "ReflectionPad2d", "F.pad"),
        (F, "relu_", "the function without the underscore"),
        (Tensor([1.0]), "clamp_min", r"t.clamp\(min=value\)"),
        (Tensor([1.0]), "relu_", r"t.copy_\(...\) of the function without the underscore"),
        (Tensor([1.0]), "cuda", "the tensor as it is"),
        (Tensor([1.0]), "layer_norm", "F.layer_norm"),
    ],
)
def test_a_name_of_pytorch_s_is_answered_with_its_counterpart(
    owner: Any, name: str, hint: str
) -> None:
    with pytest.raises(AttributeError, match=f"no attribute '{name}'. Use {hint}"):
        getattr(owner, name)
    with pytest.raises(AttributeError, match=r"no attribute 'nonsense'$"):
        _ = owner.nonsense


def test_counterparts_are_there_and_what_they_stand_for_is_not() -> None:
    owners: dict[str, Any] = {"minigrad.functional": F, "minigrad.nn": minigrad.nn}
    owners |= {"Tensor": Tensor, "minigrad": minigrad, "Module": minigrad.nn.Module}
    for owner, hints in counterparts().items():
        for name, hint in hints.items():
            if owner != "minigrad" or name not in counterparts()["Tensor"]:
                assert name not in dir(owners[owner]), (owner, name)
            if "without the underscore" in hint:
                assert hasattr(owners[owner], name[:-1]), (owner, name)
            for part, found in re.findall(r"\b(minigrad|F|nn)\.(\w+)", hint):
                where = {"minigrad": minigrad, "F": F, "nn": minigrad.nn}[part]
                assert hasattr(where, found), hint
