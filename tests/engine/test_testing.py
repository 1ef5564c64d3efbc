"""minigrad.testing: that it accepts what is right, catches what is wrong, and says where."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minigrad import Tensor, ops, primitive
from minigrad.errors import ConfigError, DTypeError, GradientMismatchError
from minigrad.testing import assert_close, gradcheck, gradgradcheck


def leaf(*shape: int, seed: int = 0) -> Tensor:
    return Tensor(np.random.default_rng(seed).normal(size=shape), requires_grad=True)


@primitive(kind="elementwise", dtype="float")
def cube(x: Any) -> Any:
    """x^3, with a rule that forgets the factor 3."""
    return x * x * x


@cube.vjp
def _(g: Any, _y: Any, x: Any) -> Any:
    return (g * x * x,)


@primitive(kind="elementwise", dtype="float")
def fourth(x: Any) -> Any:
    """x^4, with a right rule whose own derivative is wrong: the cube in it is the one above."""
    return np.square(x * x)


@fourth.vjp
def _(g: Any, _y: Any, x: Any) -> Any:
    return (g * cube(x) * 4,)


def test_right_gradients_pass() -> None:
    x, w = leaf(3, 4), leaf(4, 2, seed=1)
    assert gradcheck(lambda x, w: ops.tanh(x @ w), (x, w))
    assert gradgradcheck(lambda x, w: ops.tanh(x @ w), (x, w))


def test_functions_with_several_outputs_are_checked_in_each() -> None:
    assert gradcheck(lambda x: (ops.sin(x), ops.exp(x).sum(), ops.argmax(x)), leaf(3))
    with pytest.raises(GradientMismatchError, match=r"output\[1\]"):
        gradcheck(lambda x: (ops.sin(x), cube(x)), leaf(3))


def test_a_wrong_rule_is_caught_and_the_element_named() -> None:
    x = Tensor(np.array([0.0, 0.0, 2.0]), requires_grad=True)
    with pytest.raises(GradientMismatchError) as caught:
        gradcheck(cube, x)
    assert caught.value.got == 4.0 and abs(caught.value.wanted - 12.0) < 1e-5
    assert "output[0](2,) / d input[0](2,)" in str(caught.value) and "1 of 9" in str(caught.value)
    assert gradcheck(cube, x, raise_exception=False) is False


def test_a_wrong_second_derivative_is_caught_where_the_first_is_right() -> None:
    x = leaf(3)
    assert gradcheck(fourth, x)
    with pytest.raises(GradientMismatchError):
        gradgradcheck(fourth, x)


def test_a_gradient_that_is_off_by_one_percent_is_caught() -> None:
    @primitive(kind="elementwise", dtype="float")
    def almost(x: Any) -> Any:
        """sin x, with a rule that is 1 % too large."""
        return np.sin(x)

    @almost.vjp
    def _(g: Any, _y: Any, x: Any) -> Any:
        return (g * ops.cos(x) * 1.01,)

    assert not gradcheck(almost, leaf(4), raise_exception=False)


def test_inputs_without_requires_grad_are_held_fixed() -> None:
    weight = Tensor(np.random.default_rng(1).normal(size=(4, 2)))
    assert gradcheck(lambda x, w: x @ w, (leaf(3, 4), weight))


def test_an_output_that_does_not_depend_on_an_input_has_gradient_zero() -> None:
    assert gradcheck(lambda x, y: x * 2.0, (leaf(2), leaf(3)))
    with pytest.raises(GradientMismatchError):
        gradcheck(lambda x, y: x.detach() * y, (leaf(2), leaf(2)))


def test_empty_inputs_pass() -> None:
    assert gradcheck(lambda x: ops.exp(x), leaf(0, 3))


def test_chance_in_f_is_named_as_such() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(GradientMismatchError, match="two results"):
        gradcheck(lambda x: x * rng.normal(), leaf(2))


def test_float32_inputs_are_refused() -> None:
    with pytest.raises(DTypeError) as caught:
        gradcheck(ops.exp, Tensor([1.0, 2.0], requires_grad=True))
    assert caught.value.wanted == np.float64


@pytest.mark.parametrize(
    "inputs", [Tensor(np.ones(2)), [Tensor(np.ones(2), requires_grad=True), 3.0], []]
)
def test_inputs_that_cannot_be_checked_are_refused(inputs: Any) -> None:
    with pytest.raises(ConfigError):
        gradcheck(lambda *xs: xs[0], inputs)


def test_close_values_pass_and_distant_ones_name_the_worst() -> None:
    assert_close(Tensor([1.0, 2.0]), np.array([1.0, 2.0 + 1e-6], np.float32))
    with pytest.raises(
        AssertionError,
        match=r"1 of 4 elements differ \(25 %\)\n  worst at \(1, 0\): 3.5, wanted 3.0; off by 0.5",
    ):
        assert_close(np.array([[1.0, 2.0], [3.5, 4.0]]), np.array([[1.0, 2.0], [3.0, 4.0]]))


def test_tolerances_follow_the_dtype() -> None:
    one = np.ones(3)
    for dtype, near, far in [
        ("float64", 1e-8, 1e-6),
        ("float32", 5e-6, 1e-3),
        ("float16", 5e-4, 1e-2),
        ("bfloat16", 8e-3, 0.1),
    ]:
        assert_close(Tensor(one + near, dtype=dtype), Tensor(one, dtype=dtype))
        with pytest.raises(AssertionError):
            assert_close(Tensor(one + far, dtype=dtype), Tensor(one, dtype=dtype))


DIFFERENT = [
    ([1, 2], [1, 3]),
    ([True], [False]),
    ([np.inf], [-np.inf]),
    ([np.inf], [1e300]),
    ([1.0], [np.inf]),
    ([np.nan], [np.nan]),
]


@pytest.mark.parametrize("a, b", DIFFERENT)
def test_what_differs_is_not_close(a: Any, b: Any) -> None:
    with pytest.raises(AssertionError):
        assert_close(np.array(a), np.array(b))


def test_nan_is_close_to_nan_on_request_and_infinities_to_themselves() -> None:
    assert_close(
        np.array([np.nan, np.inf, -np.inf]), np.array([np.nan, np.inf, -np.inf]), equal_nan=True
    )


def test_shapes_and_dtypes_must_agree() -> None:
    with pytest.raises(AssertionError, match="shape"):
        assert_close(np.ones(3), np.ones((3, 1)))
    with pytest.raises(AssertionError, match="dtype float32, wanted float64"):
        assert_close(np.ones(3, np.float32), np.ones(3))
    assert_close(np.ones(3, np.float32), np.ones(3), check_dtype=False)
    assert_close(Tensor(np.ones((0, 2))), np.ones((0, 2)))


def test_one_tolerance_alone_is_refused() -> None:
    with pytest.raises(ConfigError):
        assert_close([1.0], [1.0], rtol=0.1)
