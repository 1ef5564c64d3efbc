"""Axes and counts: any integer is accepted, a bool is refused, for every method that takes one."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, ops
from minigrad.errors import DTypeError, MinigradError

X = Tensor(np.arange(1.0, 10.0).reshape(3, 3))
INDEX = Tensor(np.array([[2, 0, 1]]))
# What a method needs besides its axis.
OTHERS: dict[str, dict[str, Any]] = {
    "cross_entropy": {"target": np.array([0, 2, 1])},
    "nll_loss": {"target": np.array([0, 2, 1])},
    "gather": {"index": INDEX},
    "scatter": {"index": INDEX, "src": 7.0},
    "scatter_reduce": {"index": INDEX, "src": X, "reduce": "sum"},
    "split": {"sizes": 1},
    "chunk": {"n": 2},
    "unflatten": {"sizes": (1, -1)},
    "unfold": {"size": 2},
    "repeat_interleave": {"repeats": 2},
    "roll": {"shifts": 1},
    "topk": {"k": 2},
    "select": {"index": 1},
    "narrow": {"start": 1, "length": 2},
    "index_select": {"index": np.array([2, 0])},
    "index_add": {"index": np.array([2, 0, 1]), "source": X},
    "scatter_add": {"index": INDEX, "src": X},
    "quantile": {"q": 0.5},
    "cosine_similarity": {"x2": X + 1},
    "batchnorm": {
        "weight": None,
        "bias": None,
        "mean": Tensor(np.arange(3.0)),
        "invstd": Tensor(np.ones(3)),
    },
}


def methods_with_an_axis() -> list[str]:
    found = []
    for name in dir(Tensor):
        member = inspect.getattr_static(Tensor, name)
        if name.startswith("_") or isinstance(member, (classmethod, staticmethod, property)):
            continue
        try:
            parameters = inspect.signature(getattr(Tensor, name)).parameters
        except (TypeError, ValueError):
            continue
        if "axis" in parameters and parameters["axis"].kind != inspect.Parameter.VAR_POSITIONAL:
            found.append(name)
    return found


def called(name: str, axis: Any) -> list[Any]:
    result = getattr(X, name)(axis=axis, **OTHERS.get(name, {}))
    return [y.tolist() for y in (result if isinstance(result, tuple) else (result,))]


@pytest.mark.parametrize("name", methods_with_an_axis())
def test_an_axis_is_any_integer_and_no_bool(name: str) -> None:
    for axis in (0, 1):
        expected = called(name, axis)
        for same in (np.int64(axis), np.uint8(axis), np.array(axis), Tensor(axis), axis - 2):
            if name not in ("stack", "unsqueeze") or not isinstance(same, int):
                assert str(called(name, same)) == str(expected)
    for refused in (False, True, np.True_, 0.0, "0"):
        with pytest.raises(MinigradError) as error:
            called(name, refused)
        assert {"amax": "max", "amin": "min"}.get(name, name) in str(error.value)


def test_methods_with_several_axes_refuse_bools_too() -> None:
    for call in (
        lambda: X.sum((0, True)),
        lambda: X.permute(False, True),
        lambda: X.flip(True),
        lambda: X.transpose(True, False),
        lambda: X.flatten(False),
        lambda: X.diagonal(0, False, True),
        lambda: X.size(True),
        lambda: minigrad.cat([X, X], True),
        lambda: minigrad.stack([X, X], axis=True),
        lambda: ops.softmax(X, axis=True),
        lambda: ops.cumsum(X, axis=True),
        lambda: X.layernorm(True),
        lambda: X.rms_norm((True,)),
    ):
        with pytest.raises(DTypeError):
            call()


@pytest.mark.parametrize("name", ["var", "std", "var_mean", "std_mean"])
def test_a_bool_that_pytorch_reads_as_unbiased_is_refused_with_the_name_correction(
    name: str,
) -> None:
    for args in ((False,), (0, False), (0, True), (None, False)):
        with pytest.raises(DTypeError, match=rf"{name}: .*\n.*correction=0"):
            getattr(X, name)(*args)
    unbiased = getattr(X, name)(0, unbiased=False)
    plain = getattr(X, name)(0, 0, True)
    first = (unbiased, plain) if isinstance(unbiased, Tensor) else (unbiased[0], plain[0])
    assert first[0].tolist() == first[1].tolist()[0]


@pytest.mark.parametrize("correction", [3, 4, 7.5])
def test_the_variance_with_a_correction_of_n_or_more_is_infinite(correction: float) -> None:
    x = np.array([[1.0, 2.0, 4.0], [3.0, 3.0, 3.0]])
    expected = [np.inf, np.nan]
    np.testing.assert_array_equal(Tensor(x).var(1, correction).numpy(), expected)
    with np.errstate(all="ignore"), pytest.warns(RuntimeWarning):
        np.testing.assert_array_equal(np.var(x, 1, ddof=int(correction + 0.5)), expected)
