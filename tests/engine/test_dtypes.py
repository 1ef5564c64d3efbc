"""Dtypes: what is one and what is not, what a call gives back, and the 16-bit floats that are
stored but not computed in.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, bfloat16, float16, float32, functional as F, nn
from minigrad.errors import ConfigError, DTypeError

HALVES = (float16, bfloat16)


@pytest.mark.parametrize(
    "wrong", ["flaot16", "float8", "cuda:x", None, 0, 2.5, "complex64", object(), [1], "(2,3"]
)
def test_what_is_no_dtype_is_refused_everywhere_with_the_list_of_those_that_are(wrong: Any) -> None:
    for ask in (
        lambda: minigrad.ones(2).cast(wrong),
        lambda: minigrad.full((2,), 1.0, dtype=wrong or 0),
        lambda: Tensor([1, 2], dtype=wrong or 0),
        lambda: minigrad.zeros(2, dtype=wrong or 0),
    ):
        with pytest.raises(DTypeError, match="bfloat16"):
            ask()
    with pytest.raises((DTypeError, ConfigError)):
        minigrad.ones(2).to(wrong)


def test_to_takes_the_cpu_as_the_only_device_and_a_dtype_beside_it() -> None:
    t, layer = minigrad.ones(2), nn.Linear(2, 2)
    assert (
        t.to("cpu") is t
        and t.to(device="cpu") is t
        and t.to("cpu:0") is t
        and layer.to("cpu") is layer
    )
    assert layer.weight.dtype == float32 and layer.to("cpu", "half").weight.dtype == float16
    assert (
        t.to("cpu", "half").dtype
        == t.to(dtype=float16).dtype
        == t.to("cpu", dtype="float16").dtype
        == float16
    )
    for wrong in (
        lambda: t.to("cuda"),
        lambda: layer.to("cuda:1"),
        lambda: t.to(),
        lambda: t.to("cpu", copy=True),
    ):
        with pytest.raises(ConfigError):
            wrong()
    with pytest.raises(DTypeError):
        layer.to(int)


def test_dtype_none_is_the_default_one() -> None:
    assert (
        minigrad.zeros(2, dtype=None).dtype == minigrad.full((2,), 1.0, dtype=None).dtype == float32
    )
    assert (
        minigrad.arange(3, dtype=None).dtype == np.int64
        and Tensor([1.0], dtype=None).dtype == float32
    )


@pytest.mark.parametrize("dtype", HALVES)
def test_a_16_bit_tensor_without_axes_is_read_like_any_other(dtype: Any) -> None:
    t = Tensor([1.5, 2.5]).cast(dtype)
    for one in (t[0], Tensor(1.5, dtype=dtype), minigrad.full((), 1.5, dtype=dtype)):
        assert (
            one.item() == float(one) == one.tolist() == np.asarray(one) == one.numpy() == 1.5
            and int(one) == 1
        )
        assert one.dropout(0.5).item() in (0.0, 3.0)
    assert t.dropout(0.5).dtype == dtype and set(t.dropout(0.5).tolist()) <= {0.0, 3.0, 5.0}


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("other", ["bool", "uint8", "int64"])
def test_bools_and_integers_are_joined_to_16_bit_floats(dtype: Any, other: str) -> None:
    t, ones = Tensor([1.5, 2.5]).cast(dtype), Tensor([0, 1]).cast(other)
    assert minigrad.cat([t, ones]).dtype == minigrad.stack([ones, t]).dtype == dtype
    assert minigrad.cat([t, ones]).tolist() == [1.5, 2.5, 0.0, 1.0]
    assert minigrad.stack([ones, t]).tolist() == [[0.0, 1.0], [1.5, 2.5]]


@pytest.mark.parametrize("dtype", HALVES)
def test_what_is_written_into_16_bit_floats_is_the_value_and_not_its_bits(dtype: Any) -> None:
    t, first = Tensor([1.0, 2.0, 3.0]).cast(dtype), Tensor([0])
    assert (
        t.pad((1, 1), value=1.5).tolist() == [1.5, 1, 2, 3, 1.5]
        and t.pad((1, 0), value=-math.inf).tolist()[0] == -math.inf
    )
    assert (
        t.scatter(0, first, 9.5).tolist()
        == t.scatter(0, first, Tensor([9.5])).tolist()
        == [9.5, 2, 3]
    )
    assert (
        t.scatter(0, first, 2.5, reduce="add").tolist() == [3.5, 2, 3]
        and t.scatter(0, first, 2.5, reduce="add").dtype == dtype
    )
    for reduce, wanted in {
        "amax": 9.5,
        "amin": -2.0,
        "prod": -19.0,
        "sum": 8.5,
        "mean": 8.5 / 3,
    }.items():
        reduced = t.scatter_reduce(0, Tensor([0, 0]), Tensor([9.5, -2.0]).cast(dtype), reduce)
        assert reduced.dtype == dtype and reduced.tolist() == [
            pytest.approx(wanted, rel=2**-8),
            2,
            3,
        ]
    t[1] = 0.5
    t[Tensor([2])] = Tensor([4.5])
    assert t.tolist() == [1, 0.5, 4.5]
    w = Tensor([1.0, 2.0]).cast(dtype).requires_grad_()
    z = w * 1
    z[0] = 7.5
    z.sum().backward()
    assert z.tolist() == [7.5, 2] and w.grad is not None and w.grad.tolist() == [0, 1]


def far_out(dtype: Any) -> Tensor:
    """Numbers whose squares and sums no float16 holds."""
    return Tensor(np.linspace(-400, 400, 240, dtype=np.float32).reshape(4, 60)).cast(dtype)


COMPOSED: dict[str, Any] = {
    "mean": lambda t: t.mul(100).mean(1),
    "var": lambda t: t.div(10).var(),
    "std": lambda t: t.std(),
    "std_mean": lambda t: t.std_mean(0)[0],
    "layernorm": lambda t: t.layernorm(axis=(0, 1)),
    "rms_norm": lambda t: t.rms_norm(),
    "batch_norm": lambda t: F.batch_norm(t, training=True),
    "mse": lambda t: F.mse_loss(t, t * 0.5),
    "bce": lambda t: F.binary_cross_entropy_with_logits(t, t.sigmoid()),
    "lerp": lambda t: t.mul(150).lerp(t.mul(-150), 0.25),
    "selu": lambda t: t.div(100).selu(),
    "hardswish": lambda t: t.div(100).hardswish(),
    "logsigmoid": lambda t: t.div(100).logsigmoid(),
    "mish": lambda t: t.div(100).mish(),
    "gelu": lambda t: t.div(100).gelu(),
    "cross_entropy": lambda t: F.cross_entropy(t, Tensor([0, 1, 2, 3])),
    "avg_pool2d": lambda t: t.mul(100).avg_pool2d(4),
    "einsum": lambda t: Tensor.einsum("ij,ij,ij->i", t, t.mul(1e-3), t.mul(1e-3)),
    "swiglu": lambda t: F.swiglu(t / 100, t),
    "conv1d": lambda t: t.unsqueeze(1).conv1d(t[:, :3].unsqueeze(1).div(100), t[:, 0]),
    "attention_weights": lambda t: F.attention_weights(t, t.flip(0), scale=1e-6),
}


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", COMPOSED)
def test_a_composed_function_of_16_bit_floats_is_the_float32_one_rounded_once(
    name: str, dtype: Any
) -> None:
    half = far_out(dtype).requires_grad_()
    wide = half.detach().float().requires_grad_()
    y = COMPOSED[name](half)
    wanted = COMPOSED[name](wide)
    assert y.dtype == dtype and np.isfinite(y.numpy().astype(np.float32)).all()
    eps = 2.0 ** -(10 if dtype == float16 else 7)
    exact = name in (
        "std",
        "std_mean",
        "layernorm",
        "rms_norm",
        "batch_norm",
        "cross_entropy",
    )  # these see the very same operands
    np.testing.assert_allclose(
        y.numpy().astype(np.float32),
        wanted.numpy(),
        rtol=(0.51 if exact else 4) * eps,
        atol=3 * eps,
    )
    y.float().sum().backward()
    wanted.sum().backward()
    assert half.grad is not None and wide.grad is not None and half.grad.dtype == dtype
    np.testing.assert_allclose(
        half.grad.numpy().astype(np.float32), wide.grad.numpy(), rtol=6 * eps, atol=6 * eps
    )


def test_a_mean_of_many_16_bit_numbers_does_not_overflow_on_its_way() -> None:
    ones = minigrad.ones(70000, dtype=float16)
    assert ones.mean().item() == 1 and [t.item() for t in ones.var_mean()] == [0, 1]


B, I, U8 = Tensor([True, False]), Tensor([1, 2]), Tensor(np.array([200, 100], np.uint8))
LARGE = 2**60 + 1
GIVEN: list[tuple[Any, str, list[Any]]] = [
    (lambda: minigrad.where(B, 1.0, 0.0), "float32", [1, 0]),
    (lambda: minigrad.where(B, B, 0.5), "float32", [1, 0.5]),
    (lambda: minigrad.where(B, 1, 2.5), "float32", [1, 2.5]),
    (lambda: minigrad.where(B, 1, 2), "int64", [1, 2]),
    (lambda: B * 2.5, "float32", [2.5, 0]),
    (lambda: B + 1.0, "float32", [2, 1]),
    (lambda: 0.5 - B, "float32", [-0.5, 0.5]),
    (lambda: B**2.0, "float32", [1, 0]),
    (lambda: B / 2, "float32", [0.5, 0]),
    (lambda: B > 0.5, "bool", [True, False]),
    (lambda: B.square(), "int64", [1, 0]),
    (lambda: B.sum(), "int64", [1]),
    (lambda: I.round(), "int64", [1, 2]),
    (lambda: I.floor(), "int64", [1, 2]),
    (lambda: B.trunc(), "bool", [True, False]),
    (lambda: I.clamp(min=0), "int64", [1, 2]),
    (lambda: Tensor([LARGE]).clamp(min=0), "int64", [LARGE]),
    (lambda: I.clamp(max=1.5), "float32", [1, 1.5]),
    (lambda: U8.sum(), "int64", [300]),
    (lambda: U8.prod(), "int64", [20000]),
    (lambda: U8.cumsum(), "int64", [200, 300]),
    (lambda: U8.cumprod(), "int64", [200, 20000]),
    (lambda: I.masked_fill(B, 7.0), "int64", [7, 2]),
    (lambda: -U8, "uint8", [56, 156]),
    (lambda: (B.unsqueeze(1) == B).tril()[1], "bool", [False, True]),
    (lambda: (B.unsqueeze(1) == B).triu()[0], "bool", [True, False]),
    (lambda: I.scatter_reduce(0, Tensor([0, 0]), Tensor([5, 6]), "amax"), "int64", [6, 2]),
    (
        lambda: I.scatter_reduce(0, Tensor([0, 0]), Tensor([5, 6]), "amin", include_self=False),
        "int64",
        [5, 2],
    ),
    (lambda: I.scatter_reduce(0, Tensor([0, 0]), Tensor([5, 6]), "prod"), "int64", [30, 2]),
    (lambda: I.scatter_reduce(0, Tensor([0, 0]), Tensor([5, 6]), "mean"), "int64", [4, 2]),
    (lambda: Tensor([LARGE]).scatter(0, Tensor([0]), 1, reduce="add"), "int64", [LARGE + 1]),
]


@pytest.mark.parametrize(("call", "dtype", "values"), GIVEN)
def test_a_number_never_widens_and_integers_stay_exact(
    call: Any, dtype: str, values: list[Any]
) -> None:
    y = call()
    assert y.dtype.name == dtype and y.reshape(-1).tolist() == values


def test_what_an_integer_tensor_cannot_hold_is_not_filled_in() -> None:
    with pytest.raises(DTypeError, match="masked_fill"):
        I.masked_fill(B, 2.5)
    with pytest.raises(ConfigError, match="clamp"):
        I.clamp()


def test_a_number_raised_to_a_float64_tensor_keeps_its_digits_in_second_derivatives() -> None:
    x = Tensor(np.array([0.5, 3.0]), requires_grad=True)
    (g,) = minigrad.grad((2.0**x).sum(), x, create_graph=True)
    (h,) = minigrad.grad(g.sum(), x)
    for found, power in ((g, 1), (h, 2)):
        np.testing.assert_allclose(
            found.numpy(), 2.0 ** x.numpy() * np.log(2.0) ** power, rtol=1e-15
        )


def test_full_holds_what_its_dtype_holds() -> None:
    t = Tensor.full((2,), 2**63, dtype="uint64")
    assert t.numpy().tolist() == [2**63] * 2 and t.dtype == np.uint64
    with pytest.raises(DTypeError, match="int64"):
        Tensor.full((2,), 2**63)
    with pytest.raises(DTypeError):
        Tensor.full((2,), 2**64, dtype="uint64")


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int16", "int32", "int64", "float64"])
def test_what_adds_and_multiplies_up_gives_the_dtype_that_is_asked_for(dtype: str) -> None:
    t, numbers = Tensor([100, 200, 3]), np.array([100, 200, 3]).astype(dtype)
    add, multiply = np.add.accumulate, np.multiply.accumulate
    for name, running in {"sum": add, "prod": multiply, "cumsum": add, "cumprod": multiply}.items():
        y = getattr(t, name)(dim=0, dtype=dtype)
        wanted = running(numbers, dtype="float64" if dtype == "float64" else "int64").astype(dtype)
        assert y.dtype == dtype
        assert (y.numpy() == (wanted if name.startswith("cum") else wanted[-1])).all()
        assert getattr(minigrad, name)(t, 0, dtype=np.dtype(dtype)).dtype == dtype
    assert minigrad.ops.sum(numbers, dtype=dtype).dtype == dtype
    step = minigrad.jit(lambda x: x.sum(dtype=dtype))
    assert [step(t).dtype for _ in range(3)] == [dtype] * 3
    assert t.sum(dtype=None).dtype == np.int64


def test_what_gives_floats_refuses_a_dtype_of_integers() -> None:
    t = Tensor([1.5, 2.5])
    for function in (Tensor.mean, Tensor.softmax, Tensor.var, Tensor.exp):
        with pytest.raises(DTypeError, match=r"gives floats, which dtype=int64 does not hold"):
            function(t, dtype=np.int64)
    assert t.mean(dtype="float64").dtype == "float64"
    assert t.sort(dtype="int8")[1].dtype == np.int64
