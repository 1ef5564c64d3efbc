"""Every numpy function that a Tensor answers means on tensors what it means on arrays: numpy's
names of arguments, numpy's order, numpy's defaults.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from minigrad import Tensor
from minigrad.errors import MinigradError
from minigrad.tensor import interop

SHAPE = (2, 3, 4)
# numpy 2.0 calls reshape's shape "newshape".
NEWSHAPE = list(inspect.signature(np.reshape).parameters)[1]
Call = tuple[tuple[Any, ...], dict[str, Any]]


def some(*choices: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(choices)


FLAT = some(None, 0, 1, -1)
AXIS = some(0, 1, 2, -1, -3, np.int64(1))
AXES = some(None, 0, -1, (0, 1), (0, 2), (-1, 0, 1))
# Each function's arguments after the array. None of them need be given, unless REQUIRED says so.
ARGUMENTS: dict[Any, dict[str, st.SearchStrategy[Any]]] = {
    np.sum: {"axis": AXES, "keepdims": st.booleans()},
    np.mean: {"axis": AXES, "keepdims": st.booleans()},
    np.prod: {"axis": AXES, "keepdims": st.booleans()},
    np.max: {"axis": AXES, "keepdims": st.booleans()},
    np.min: {"axis": AXES, "keepdims": st.booleans()},
    np.amax: {"axis": AXES, "keepdims": st.booleans()},
    np.amin: {"axis": AXES, "keepdims": st.booleans()},
    np.any: {"axis": AXES, "keepdims": st.booleans()},
    np.all: {"axis": AXES, "keepdims": st.booleans()},
    np.argmax: {"axis": FLAT, "keepdims": st.booleans()},
    np.argmin: {"axis": FLAT, "keepdims": st.booleans()},
    np.var: {"axis": AXES, "ddof": some(0, 1, 0.5), "keepdims": st.booleans()},
    np.std: {"axis": AXES, "ddof": some(0, 1, 0.5), "keepdims": st.booleans()},
    np.cumsum: {"axis": FLAT},
    np.cumprod: {"axis": FLAT},
    np.sort: {"axis": FLAT, "kind": some(None, "stable", "heapsort")},
    np.argsort: {"axis": FLAT, "kind": some("stable")},
    np.copy: {},
    np.flip: {"axis": AXES},
    np.roll: {"shift": some(0, 1, -5, np.int64(2), (1, 2)), "axis": some(None, 0, -1, (0, 1))},
    np.tril: {"k": st.integers(-3, 3)},
    np.triu: {"k": st.integers(-3, 3)},
    np.round: {"decimals": st.integers(-1, 3)},
    np.reshape: {NEWSHAPE: some((6, 4), (4, -1), -1, (24, 1)), "order": some("C")},
    np.transpose: {"axes": some(None, (2, 0, 1), [0, 2, 1], (-1, 0, 1))},
    np.expand_dims: {"axis": some(0, 1, 3, -1, (0, 2), (-1, 1, 0))},
    np.swapaxes: {"axis1": AXIS, "axis2": AXIS},
    np.squeeze: {"axis": some(None)},
    np.clip: {"a_min": some(None, -0.5), "a_max": some(0.5, 1)},
    np.diagonal: {"offset": st.integers(-2, 2), "axis1": some(0), "axis2": some(1, 2, -1)},
    np.broadcast_to: {"shape": some((2, 3, 4), (5, 2, 3, 4))},
    np.around: {"decimals": st.integers(-1, 3)},
    np.ravel: {"order": some("C")},
    np.moveaxis: {"source": some(0, 1, -1), "destination": some(1, 2, 0, -2)},
    np.tile: {"reps": some(2, (2, 1), (2, 1, 1, 3))},
    np.repeat: {"repeats": some(1, 3), "axis": some(None, 0, -1)},
    np.linalg.norm: {"axis": some(None, 0, -1), "keepdims": st.booleans()},
    np.trace: {"offset": st.integers(-2, 2), "axis1": some(0), "axis2": some(1, 2, -1)},
    np.diag: {"k": st.integers(-1, 2)},
    np.diff: {"n": some(1, 2), "axis": some(0, 1, -1)},
    np.nan_to_num: {},
    np.unique: {},
    np.quantile: {"q": some(0.25, 1.0), "axis": some(None, 0, -1), "keepdims": st.booleans()},
}
REQUIRED = {
    np.roll: ["shift"],
    np.reshape: [NEWSHAPE],
    np.expand_dims: ["axis"],
    np.swapaxes: ["axis1", "axis2"],
    np.clip: ["a_min", "a_max"],
    np.broadcast_to: ["shape"],
    np.moveaxis: ["source", "destination"],
    np.tile: ["reps"],
    np.repeat: ["repeats"],
    np.quantile: ["q"],
}
# These take several arrays; test_interop has their calls.
SEVERAL = {
    *(np.einsum, np.where, np.dot, np.concatenate, np.stack, np.hstack, np.vstack, np.outer),
    *(np.tensordot, np.isclose, np.allclose, np.array_equal, np.bincount, np.searchsorted),
}
JOINS = (np.concatenate, np.stack, np.hstack, np.vstack)
SHAPES = some((), (3,), (3, 4), SHAPE)


@st.composite
def calls(draw: Any, function: Any) -> Call:
    """Arguments for a numpy function: the first few by position, the others by name or left out."""
    choices = ARGUMENTS[function]
    needed = REQUIRED.get(function, [])
    names = [n for n in choices if n in needed or draw(st.booleans())]
    given = {n: draw(choices[n]) for n in names}
    if function in (np.diagonal, np.trace) and len({"axis1", "axis2"} & given.keys()) == 1:
        given = {n: v for n, v in given.items() if n == "offset"}
    positional = []
    for name in needed[: draw(st.integers(0, len(needed)))]:
        positional.append(given.pop(name))
    return tuple(positional), given


def test_the_sweep_covers_every_function_that_a_tensor_answers() -> None:
    assert set(interop._FUNCTIONS) == set(ARGUMENTS) | SEVERAL


@pytest.mark.filterwarnings("ignore:Degrees of freedom", "ignore:invalid value", "ignore:divide by")
@pytest.mark.parametrize("function", ARGUMENTS, ids=lambda f: f.__name__)
@given(data=st.data())
def test_a_numpy_function_means_on_tensors_what_it_means_on_arrays(
    function: Callable[..., Any], data: Any
) -> None:
    args, options = data.draw(calls(function))
    x = np.random.default_rng(0).normal(size=data.draw(SHAPES))
    t = Tensor(x, requires_grad=True)
    try:
        wanted = np.asarray(function(x, *args, **options))
    except (TypeError, ValueError):  # numpy's AxisError is a ValueError
        with pytest.raises(MinigradError):
            function(t, *args, **options)
        return
    got = function(t, *args, **options)
    assert isinstance(got, Tensor) and got.shape == wanted.shape
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-13, atol=1e-15)
    assert got.requires_grad == (wanted.dtype.kind == "f" and function is not np.unique)


@pytest.mark.parametrize("join", JOINS, ids=lambda f: f.__name__)
@given(data=st.data())
def test_a_join_takes_a_list_and_one_tensor_as_the_sequence_of_its_rows(
    join: Callable[..., Any], data: Any
) -> None:
    x = np.random.default_rng(0).normal(size=data.draw(SHAPES))
    options = {}
    if join in JOINS[:2] and data.draw(st.booleans()):
        options["axis"] = data.draw(FLAT)
    t = Tensor(x, requires_grad=True)
    for arrays, tensors in ((x, t), ([x, x], [t, t]), ((x, 2 * x), (t, 2 * x))):
        try:
            wanted = join(arrays, **options)
        except (TypeError, ValueError):
            with pytest.raises((MinigradError, TypeError)):  # numpy's own for one without axes
                join(tensors, **options)
            continue
        got = join(tensors, **options)
        assert got.requires_grad and got.shape == wanted.shape
        np.testing.assert_array_equal(got.numpy(), wanted)


def test_functions_of_several_arrays_too() -> None:
    x, v = np.random.default_rng(0).normal(size=SHAPE), np.array([1, 0, 3, 1])
    for call in (
        lambda a, v: np.outer(a, v),
        lambda a, v: np.hstack([a, a]),
        lambda a, v: np.vstack((a, a)),
        lambda a, v: np.tensordot(a, v, 1),
        lambda a, v: np.tensordot(a, a, axes=([0, 1], [0, 1])),
        lambda a, v: np.isclose(a, a + 1e-9, atol=1e-8),
        lambda a, v: np.bincount(v),
        lambda a, v: np.bincount(v, minlength=7),
        lambda a, v: np.searchsorted(np.sort(a, None), a[0, 0]),
        lambda a, v: np.searchsorted(np.sort(a, None), a[0], side="right"),
        lambda a, v: np.outer(a, 2),
        lambda a, v: np.tensordot(a, a, np.int64(3)),
        lambda a, v: np.tensordot(a, v, axes=(np.int64(2), np.int64(0))),
        lambda a, v: np.einsum("ijk,ijk->i", a, a, optimize=True),
        lambda a, v: np.concatenate((a, a), 1),
        lambda a, v: np.stack((a, a), axis=-1),
    ):
        for tensors in ((Tensor(x), Tensor(v)), (Tensor(x), v)):
            got, wanted = call(*tensors), call(x, v)
            if not isinstance(got, np.ndarray):
                got = got.numpy()
            np.testing.assert_allclose(got, wanted, rtol=1e-13)
    t = Tensor(x, requires_grad=True)
    assert np.allclose(t, x) is True and np.array_equal(t, x) is True and np.array_equal(x, t)
    assert not np.array_equal(t, x[0]) and not np.allclose(t, x + 1)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
@example(data=None)
def test_integers_and_bools_too(data: Any) -> None:
    x = np.arange(-12, 12).reshape(SHAPE)
    for function in ARGUMENTS:
        args, options = data.draw(calls(function)) if data else ((), {})
        if function in REQUIRED and not data:
            continue
        for array in (x, x > 0):
            if function is np.diag or (function is np.linalg.norm and array.dtype == bool):
                continue
            if array.dtype == bool and function in (
                *(np.clip, np.var, np.std, np.mean, np.round),
                np.argsort,  # numpy's default is not stable
                *(np.around, np.diff, np.nan_to_num, np.quantile, np.unique),
            ):
                continue
            got, wanted = (
                function(Tensor(array), *args, **options),
                function(array, *args, **options),
            )
            np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-6, atol=1e-6)
            if wanted.dtype.kind != "f":
                assert got.dtype == np.asarray(wanted).dtype, function


def test_positional_arguments_stand_where_numpy_has_them() -> None:
    x = np.random.default_rng(0).normal(size=SHAPE)
    t = Tensor(x)
    for call in (
        lambda a: np.sum(a, 1, None, None, True),
        lambda a: np.var(a, 1, None, None, 1, True),
        lambda a: np.max(a, 1, None, True),
        lambda a: np.roll(a, 2, 1),
        lambda a: np.tril(a, 1),
        lambda a: np.diagonal(a, 1, 0, 2),
        lambda a: np.clip(a, -1, 1),
        lambda a: np.clip(a, -1, None),
        lambda a: np.round(a, 2),
        lambda a: np.flip(a, (0, 2)),
    ):
        np.testing.assert_allclose(call(t).numpy(), call(x), rtol=1e-14)
    for refused in (
        lambda: np.sum(t, initial=1.0),
        lambda: np.sum(t, where=x > 0),
        lambda: np.reshape(t, (4, 6), order="F"),
        lambda: np.diff(t, axis=None),
    ):
        with pytest.raises(TypeError, match=r"np|diff"):
            refused()
    with pytest.raises(TypeError, match="cast"):
        np.concatenate([t, t], dtype="float32")
