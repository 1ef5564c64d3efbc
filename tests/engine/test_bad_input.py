"""Bad input gets one error of minigrad's, which names the call that was made; what is odd but
sensible works.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, functional as F
from minigrad.errors import (
    ConfigError,
    DTypeError,
    GradientError,
    IndexRangeError,
    MinigradError,
    ShapeError,
)

X = Tensor(np.arange(12, dtype=np.float32).reshape(3, 4))
V, LEAF, ONE = Tensor([1.0] * 7), Tensor([1.0], requires_grad=True), Tensor(2.5)
U8, I32 = Tensor(np.array([1], np.uint8)), Tensor(np.array([1], np.int32))

REFUSED: list[tuple[Callable[[], Any], type[MinigradError], str]] = [
    (lambda: minigrad.zeros(-1), ShapeError, "zeros"),
    (lambda: minigrad.zeros(2.5), ShapeError, "zeros"),
    (lambda: minigrad.randn(-1), ShapeError, "randn"),
    (lambda: minigrad.rand(2, -3), ShapeError, "rand"),
    (lambda: minigrad.eye(-2), ConfigError, "eye"),
    (lambda: minigrad.arange(0, 10, 0), ConfigError, "arange"),
    (lambda: minigrad.linspace(0, 1, -1), ConfigError, "linspace"),
    (lambda: minigrad.full((2,), "a"), DTypeError, "full"),
    (lambda: minigrad.full((2,), None), DTypeError, "full"),
    (lambda: Tensor.uniform(2, low=2, high=1), ConfigError, "uniform"),
    (lambda: Tensor.normal(2, std=-1), ConfigError, "normal"),
    (lambda: Tensor([LEAF, LEAF]), GradientError, "Tensor"),
    (lambda: Tensor.from_dlpack(np.ones(2, np.complex64)), DTypeError, "from_dlpack"),
    (lambda: U8 + 300, DTypeError, "add"),
    (lambda: I32 + 2**40, DTypeError, "add"),
    (lambda: X + 2**2000, DTypeError, "add"),
    (lambda: 2 @ X, ShapeError, "matmul"),
    (lambda: X @ None, DTypeError, "matmul"),
    (lambda: Tensor([1, 2]) ** -1, DTypeError, "pow"),
    (lambda: X + V, ShapeError, "add"),
    (lambda: X.masked_fill(V > 0, 0), ShapeError, "masked_fill"),
    (lambda: X.lerp(V, 0.5), ShapeError, "lerp"),
    (lambda: X.masked_select(Tensor([1, 0, 1, 0])), DTypeError, "masked_select"),
    (lambda: X.leaky_relu("a"), DTypeError, "leaky_relu"),
    (lambda: minigrad.cat([]), ShapeError, "cat"),
    (lambda: minigrad.cat(3), DTypeError, "cat"),
    (lambda: minigrad.stack([X, X[0]]), ShapeError, "stack"),
    (lambda: X.layernorm(axis=5), IndexRangeError, "layernorm"),
    (lambda: X.scatter(0, Tensor([[9]]), 1.0), IndexRangeError, "scatter"),
    (lambda: X.scatter(0, Tensor([[0]]), None), DTypeError, "scatter"),
    (lambda: X.batchnorm(None, None, V, V), ShapeError, "batchnorm"),
    (lambda: F.nll_loss(X, Tensor([0, 1])), ShapeError, "nll_loss"),
    (lambda: X.reshape(-2, 12), ShapeError, "reshape"),
    (lambda: X.reshape(5), ShapeError, "reshape"),
    (lambda: X[0].expand(-1, 4), ShapeError, "expand"),
    (lambda: X.shrink(((0, 9), None)), ShapeError, "shrink"),
    (lambda: X.chunk(0), ConfigError, "chunk"),
    (lambda: X.split("a"), DTypeError, "split"),
    (lambda: X.split([-1, 4]), ShapeError, "split"),
    (lambda: X.unfold(1, 2, step=0), ConfigError, "unfold"),
    (lambda: X.unsqueeze((0, 1)), DTypeError, "unsqueeze"),
    (lambda: X.pad(1), DTypeError, "pad"),
    (lambda: X.roll(1.5), DTypeError, "roll"),
    (lambda: X.permute("a", "b"), DTypeError, "permute"),
    (lambda: X.sort(None), DTypeError, "sort"),
    (lambda: X.cumsum(None), DTypeError, "cumsum"),
    (lambda: X.topk("a"), ConfigError, "topk"),
    (lambda: X.sum("a"), DTypeError, "sum"),
    (lambda: X.sum(1.5), DTypeError, "sum"),
    (lambda: X.sum(nonsense=1), DTypeError, "sum"),
    (lambda: X.sum(dim=0, axis=1), ConfigError, "sum"),
    (lambda: X.mean(7), IndexRangeError, "mean"),
    (lambda: X.max_pool2d(0), ConfigError, "max_pool2d"),
    (lambda: X.softplus(0.0), ConfigError, "softplus"),
    (lambda: X.dropout("a"), DTypeError, "dropout"),
    (lambda: ONE.cross_entropy(Tensor(0)), ShapeError, "cross_entropy"),
    (
        lambda: F.cross_entropy(X, Tensor([0, 1, 2]), label_smoothing=2),
        ConfigError,
        "cross_entropy",
    ),
    (lambda: F.binary_cross_entropy(X, X * 0), ConfigError, "binary_cross_entropy"),
    (lambda: minigrad.einsum(X, X), DTypeError, "einsum"),
    (
        lambda: minigrad.ones(1, 1, 5).conv1d(minigrad.ones(1, 1, 2), padding=-1),
        ConfigError,
        "conv1d",
    ),
    (
        lambda: minigrad.ones(1, 1, 5).conv1d(minigrad.ones(1, 1, 2), stride=0),
        ConfigError,
        "conv1d",
    ),
    (lambda: Tensor.cat([X, "a"]), DTypeError, "cat"),
    (lambda: X.reshape(), ShapeError, "reshape"),
    (lambda: X.reshape(-2, 6), ShapeError, "reshape"),
    (lambda: X.expand(-1, 3, 4), ShapeError, "expand"),
    (lambda: minigrad.zeros(2, dtype="foo"), DTypeError, "zeros"),
]


@pytest.mark.parametrize(("call", "kind", "name"), REFUSED)
def test_bad_input_has_one_error_that_names_the_call_of_the_user(
    call: Callable[[], Any], kind: type[MinigradError], name: str
) -> None:
    with pytest.raises(MinigradError) as caught:
        call()
    assert (type(caught.value), caught.value.call) == (kind, name) and str(caught.value).startswith(
        name + ": "
    )


SHAPES: list[tuple[Callable[[], Tensor], tuple[int, ...]]] = [
    (lambda: X.sum(np.int64(0)), (4,)),
    (lambda: X.sum((np.int64(0), 1)), ()),
    (lambda: X.reshape(shape=(4, 3)), (4, 3)),
    (lambda: X.permute(dims=(1, 0)), (4, 3)),
    (lambda: X.permute([1, 0]), (4, 3)),
    (lambda: X.view(np.int64(2), 6), (2, 6)),
    (lambda: X.sum().reshape(), ()),
    (lambda: X.sum().permute(), ()),
    (lambda: X.sum().expand(2), (2,)),
    (lambda: X.flip(0, 1), (3, 4)),
    (lambda: X.flip(dims=(0,)), (3, 4)),
    (lambda: X.split(split_size=2)[0], (2, 4)),
    (lambda: X.chunk(chunks=2)[0], (2, 4)),
    (lambda: minigrad.cat([X, X], axis=1), (3, 8)),
    (lambda: minigrad.stack((t for t in (X, X)), dim=1), (3, 2, 4)),
    (lambda: X.unfold(dimension=1, size=2, step=1), (3, 3, 2)),
    (lambda: X.unflatten(dim=1, sizes=(2, 2)), (3, 2, 2)),
    (lambda: X.diagonal(axis1=1, axis2=0), (3,)),
    (lambda: minigrad.arange(0, end=5), (5,)),
    (lambda: X.scatter(0, Tensor([[0]]), value=2.5), (3, 4)),
    (lambda: minigrad.randint(0, 10, size=(3,)), (3,)),
    (lambda: minigrad.zeros(size=(2, 3)), (2, 3)),
    (lambda: minigrad.full(size=(2,), fill_value=3), (2,)),
    (lambda: F.softmax(X, axis=0), (3, 4)),
    (lambda: F.log_softmax(X, dim=0), (3, 4)),
    (lambda: Tensor.scaled_uniform(0, 3), (0, 3)),
    (lambda: X.expand(2, -1, 4), (2, 3, 4)),
    (lambda: Tensor(np.zeros((0, 3, 4, 4))).flatten(1), (0, 48)),
    (lambda: Tensor(np.zeros((2, 0))).split(2, dim=1)[0], (2, 0)),
    (lambda: Tensor(np.zeros((0, 3))).chunk(2)[1], (0, 3)),
    (
        lambda: F.scaled_dot_product_attention(
            minigrad.ones(1, 2, 0), minigrad.ones(1, 2, 0), minigrad.ones(1, 2, 3)
        ),
        (1, 2, 3),
    ),
]


@pytest.mark.parametrize(("call", "shape"), SHAPES)
def test_both_spellings_empty_axes_and_numpy_integers_work(
    call: Callable[[], Tensor], shape: tuple[int, ...]
) -> None:
    assert call().shape == shape


@pytest.mark.parametrize(
    "name",
    ["softmax", "log_softmax", "cumsum", "cumprod", "cummax", "logcumsumexp", "sort", "argsort"],
)
def test_a_tensor_without_axes_is_a_row_of_one(name: str) -> None:
    x = Tensor(2.5, requires_grad=True)
    results = getattr(x, name)()
    results = results if isinstance(results, tuple) else (results,)
    wanted = {"softmax": 1.0, "log_softmax": 0.0, "argsort": 0}.get(name, 2.5)
    assert results[0].item() == wanted and all(y.shape == () for y in results)
    assert [t.item() for t in ONE.topk(1)] == [2.5, 0]


def test_spread_takes_all_three_names_of_its_correction_and_round_takes_decimals() -> None:
    assert (
        X.var(unbiased=False).item()
        == X.var(ddof=0).item()
        == X.var(correction=0).item()
        != X.var(unbiased=True).item()
    )
    assert Tensor([1.26, -0.04]).round(decimals=1).tolist() == [pytest.approx(1.3), 0]


def test_uniform_numbers_stay_below_one_in_every_dtype_and_float64_has_all_its_bits() -> None:
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        drawn = minigrad.rand(20000, dtype=dtype)
        assert (
            drawn.min().item() >= 0
            and 0.99 < drawn.max().item() < 1
            and abs(drawn.double().mean().item() - 0.5) < 0.02
        )
    assert any(math.ldexp(u, 30) % 1 for u in minigrad.rand(20, dtype="float64").tolist())
    assert Tensor.uniform(1000, low=2, high=3, dtype="half").max().item() < 3


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logcumsumexp", "sum", "sort"])
@pytest.mark.parametrize("axis", [True, np.False_])
def test_a_bool_is_no_axis(name: str, axis: Any) -> None:
    hint = r"axis .* is not an integer\n  axis=-1 is the last axis"
    with pytest.raises(DTypeError, match=f"^{name}: {hint}"):
        getattr(X, name)(axis=axis)
    with pytest.raises(DTypeError, match=hint):
        X.permute(True, False)


def test_an_axis_out_of_range_is_named() -> None:
    with pytest.raises(IndexRangeError, match="softmax: axis 5 of a tensor with 2 axes"):
        X.softmax(5)


def test_a_tensor_in_the_place_of_an_array_is_refused_by_the_next_op() -> None:
    p = minigrad.nn.Parameter([1.0, 2.0])
    p.data = Tensor([3.0, 4.0])  # type: ignore[assignment]
    for use in (lambda: p + 1, lambda: p.relu(), lambda: p.sum(), lambda: p.reshape(2, 1)):
        with pytest.raises(DTypeError, match=r"is a Tensor, not a numpy array\n  t\.assign"):
            use()
    p.data = Tensor([3.0, 4.0]).data
    assert (p + 1).tolist() == [4.0, 5.0]


def test_an_error_says_what_a_size_and_a_value_must_be() -> None:
    with pytest.raises(ShapeError, match=r"^normal: sizes must be integers >= 0, got 0\.5 in"):
        minigrad.normal(0.5, 1.0, (3,))
    with pytest.raises(DTypeError, match=r"^full: the value must be a number, got 'a'"):
        minigrad.full((2,), "a")


def test_none_is_equal_to_no_tensor_and_no_operand_of_eq() -> None:
    assert (X == None) is False and (X != None) is True  # noqa: E711
    for name in ("eq", "ne", "lt", "ge"):
        for other in (None, "text"):
            with pytest.raises(DTypeError, match="cannot work on"):
                getattr(X, name)(other)
