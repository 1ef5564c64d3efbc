"""One function, many spellings: operator, method, module function, functional and numpy function
give the same value, dtype and gradient, with a Python number on either side and in every dtype.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, strategies as st

import minigrad
from minigrad import Tensor, functional as F, ops
from tests.engine.cases import UNARY

FLOATS = ("float64", "float32", "float16", "bfloat16")
DTYPES = (*FLOATS, "int64", "int32", "uint8", "bool")

# method: (its op, the operator, numpy's function), where there are such
BINARY: dict[str, tuple[str, str | None, str | None]] = {
    "add": ("add", "add", "add"),
    "sub": ("sub", "sub", "subtract"),
    "mul": ("mul", "mul", "multiply"),
    "div": ("div", "truediv", "divide"),
    "floor_divide": ("floor_div", "floordiv", "floor_divide"),
    "mod": ("mod", "mod", "remainder"),
    "pow": ("pow", "pow", "power"),
    "maximum": ("maximum", None, "maximum"),
    "minimum": ("minimum", None, "minimum"),
    "logaddexp": ("logaddexp", None, "logaddexp"),
    "eq": ("equal", "eq", "equal"),
    "ne": ("not_equal", "ne", "not_equal"),
    "lt": ("less", "lt", "less"),
    "le": ("less_equal", "le", "less_equal"),
    "gt": ("greater", "gt", "greater"),
    "ge": ("greater_equal", "ge", "greater_equal"),
    "logical_and": ("logical_and", None, "logical_and"),
    "logical_or": ("logical_or", None, "logical_or"),
    "logical_xor": ("logical_xor", None, "logical_xor"),
    "bitwise_and": ("bitwise_and", "and_", "bitwise_and"),
    "bitwise_or": ("bitwise_or", "or_", "bitwise_or"),
    "bitwise_xor": ("bitwise_xor", "xor", "bitwise_xor"),
}
OF_ONE = [
    *(name for name in UNARY if hasattr(Tensor, name) and name not in ("zeros_like", "nan_to_num")),
    *[
        "isfinite",
        "isinf",
        "isnan",
        "logical_not",
        "celu",
        "elu",
        "gelu",
        "hardsigmoid",
        "hardswish",
        "hardtanh",
    ],
    *[
        "leaky_relu",
        "logsigmoid",
        "mish",
        "quick_gelu",
        "relu6",
        "selu",
        "silu",
        "softplus",
        "softsign",
        "softmax",
    ],
    *[
        "log_softmax",
        "sum",
        "mean",
        "prod",
        "max",
        "min",
        "argmax",
        "argmin",
        "any",
        "all",
        "cumsum",
        "cumprod",
        "logsumexp",
    ],
]


def binary_spellings(
    name: str, number: Any, left: bool
) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Each way to write the function of a tensor and `number`, as a function of the tensor."""
    _, symbol, numpy_name = BINARY[name]
    functions: dict[str, Any] = {"minigrad": getattr(minigrad, name, None)}
    functions["operator"] = getattr(operator, symbol) if symbol else None
    functions["numpy"] = getattr(np, numpy_name) if numpy_name else None
    functions["method"] = None if left else getattr(Tensor, name)
    for how, f in functions.items():
        if f is not None:
            yield how, (lambda t, f=f: f(number, t)) if left else (lambda t, f=f: f(t, number))


def outcome(call: Callable[[Tensor], Any], array: Any, dtype: str) -> tuple[Any, ...]:
    """The class of the error, or the dtype, the bits of the result and those of the gradient."""
    t = Tensor(array, dtype=dtype)
    if dtype in FLOATS:
        t.requires_grad_()
    try:
        with np.errstate(all="ignore"):
            y = call(t)
            assert isinstance(y, Tensor)
            if y.requires_grad:
                y.sum().backward()
    except (TypeError, ValueError, OverflowError) as error:
        return (type(error).__name__,)
    grad = None if t.grad is None else (t.grad.dtype, t.grad.data.tobytes())
    return y.dtype, y.shape, y.data.tobytes(), grad


arrays = st.lists(st.sampled_from([0, 1, 2, 3, 5]), min_size=1, max_size=4).map(np.array)
numbers = st.one_of(
    st.integers(-3, 300),
    st.sampled_from([0.1, 0.5, -1.5, 1e-3, 1e30, float("inf"), True]),
    st.sampled_from([0.1, 2.0]).map(np.float64),
    st.sampled_from([0.1, 2.0]).map(np.float32),
    st.integers(0, 3).map(np.int32),
)


@pytest.mark.parametrize("name", BINARY)
@given(array=arrays, number=numbers, dtype=st.sampled_from(DTYPES), left=st.booleans())
@example(array=np.array([1, 2]), number=0.1, dtype="float64", left=True)
@example(array=np.array([1, 2]), number=2.0, dtype="float16", left=True)
def test_every_spelling_with_a_number_is_the_op_with_that_number(
    name: str, array: Any, number: Any, dtype: str, left: bool
) -> None:
    op = getattr(ops, BINARY[name][0])
    plain = number.item() if isinstance(number, np.generic) else number
    wanted = outcome(lambda t: op(plain, t) if left else op(t, plain), array, dtype)
    for how, call in binary_spellings(name, number, left):
        got = outcome(call, array, dtype)
        if how == "operator" and name == "pow" and not left and type(plain) is int and plain == 2:
            wanted_here = outcome(ops.square, array, dtype)
        else:
            wanted_here = wanted
        assert got == wanted_here, (how, number)


@pytest.mark.parametrize("name", [n for n in BINARY if not n.startswith("bitwise")])
@given(array=arrays, number=st.sampled_from([0.1, 1 / 3, 2.5]), left=st.booleans())
def test_a_number_is_used_with_all_its_digits(
    name: str, array: Any, number: float, left: bool
) -> None:
    f, g = getattr(minigrad, name), getattr(np, str(BINARY[name][2]))
    array = array.astype(float)
    for operand in (array, Tensor(array)):  # an array beside the number, too
        y = f(number, operand) if left else f(operand, number)
        with np.errstate(all="ignore"):
            wanted = g(number, array) if left else g(array, number)
        assert y.dtype == wanted.dtype
        np.testing.assert_array_max_ulp(y.numpy(), wanted, 2) if wanted.dtype != bool else None


@pytest.mark.parametrize("name", [n for n in BINARY if BINARY[n][0] not in ("pow", "div")])
@given(array=arrays, number=st.integers(0, 3), dtype=st.sampled_from(DTYPES), left=st.booleans())
def test_an_integer_leaves_every_dtype_as_it_is(
    name: str, array: Any, number: int, dtype: str, left: bool
) -> None:
    t = Tensor(array, dtype=dtype)
    f = getattr(ops, BINARY[name][0])
    try:
        with np.errstate(all="ignore"):
            y = f(number, t) if left else f(t, number)
    except TypeError:
        return
    if y.dtype != np.bool_ and dtype != "bool" and name != "logaddexp":
        assert y.dtype == t.dtype


@pytest.mark.parametrize("name", OF_ONE)
@given(array=arrays, dtype=st.sampled_from(DTYPES))
def test_every_spelling_of_a_function_of_one_tensor_is_the_same(
    name: str, array: Any, dtype: str
) -> None:
    wanted = outcome(lambda t: getattr(t, name)(), array, dtype)
    functions = [getattr(module, name, None) for module in (minigrad, F)]
    if name not in ("round", "cumsum", "cumprod", "softmax", "log_softmax"):
        functions.append(getattr(ops, name, None))
    if len(wanted) > 1:
        functions += getattr(getattr(ops, name), "numpy", ())
    for f in functions:
        if f is not None:
            assert outcome(f, array, dtype) == wanted, f
