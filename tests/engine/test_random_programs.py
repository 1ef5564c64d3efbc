"""Programs of 3 to 12 ops, drawn at random: value and gradient against the 50-digit oracle, and
against other frameworks where installed.

A program is a list of steps, each an op and the values it works on; it is written once and runs on
any `Backend`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import minigrad
from minigrad import Tensor, ops
from tests import formulas as f, oracle as o

Step = tuple[str, tuple[int, ...]]
INPUTS = ((2, 3), (3,), (2, 1), (3, 3))

library = SimpleNamespace(
    tanh=ops.tanh,
    sin=ops.sin,
    exp=ops.exp,
    log=ops.log,
    sqrt=ops.sqrt,
    sigmoid=ops.sigmoid,
    relu=ops.relu,
    maximum=ops.maximum,
    pick=lambda a, b: ops.where(a > b, a, b * 2.0),
    sum=lambda a, axis: a.sum(axis=axis, keepdim=True),
    mean=lambda a, axis: a.mean(axis=axis, keepdim=True),
    max=lambda a, axis: a.max(axis=axis, keepdim=True),
    swap=lambda a: a.transpose(0, 1),
    flat=lambda a: a.reshape(-1),
    cat=lambda a, b: ops.cat(a, b, axis=-1),
    matmul=lambda a, b: a @ b,
    softmax=ops.softmax,
)
exact = SimpleNamespace(
    tanh=o.tanh,
    sin=o.sin,
    exp=o.exp,
    log=o.log,
    sqrt=o.sqrt,
    sigmoid=o.sigmoid,
    relu=f.relu,
    maximum=o.elementwise(lambda a, b: max(a, b)),
    pick=o.elementwise(lambda a, b: a if a > b else b * 2),
    sum=lambda a, axis: a.sum(axis, keepdims=True),
    mean=lambda a, axis: f.mean(a, axis, keepdims=True),
    max=lambda a, axis: np.expand_dims(f.extremum(a, axis, np.max), axis),
    swap=lambda a: a.T,
    flat=lambda a: a.reshape(-1),
    cat=lambda a, b: np.concatenate([a, b], -1),
    matmul=np.matmul,
    softmax=f.softmax,
)

# name -> (how many operands, which shapes it takes, what it does).
PROGRAM_OPS: dict[str, tuple[int, Callable[..., bool], Callable[..., Any]]] = {
    "tanh": (1, lambda a: True, lambda m, a: m.tanh(a)),
    "sin": (1, lambda a: True, lambda m, a: m.sin(a)),
    "sigmoid": (1, lambda a: True, lambda m, a: m.sigmoid(a)),
    "relu": (1, lambda a: True, lambda m, a: m.relu(a)),
    "bell": (1, lambda a: True, lambda m, a: m.exp(-(a * a))),
    "log": (1, lambda a: True, lambda m, a: m.log(a * a + 1.0)),
    "sqrt": (1, lambda a: True, lambda m, a: m.sqrt(a * a + 0.5)),
    "cube": (1, lambda a: True, lambda m, a: a * a * a),
    "add": (2, lambda a, b: fit(a, b), lambda m, a, b: a + b),
    "sub": (2, lambda a, b: fit(a, b), lambda m, a, b: a - b),
    "mul": (2, lambda a, b: fit(a, b), lambda m, a, b: a * b),
    "div": (2, lambda a, b: fit(a, b), lambda m, a, b: a / (b * b + 1.0)),
    "maximum": (2, lambda a, b: fit(a, b), lambda m, a, b: m.maximum(a, b)),
    "pick": (2, lambda a, b: fit(a, b), lambda m, a, b: m.pick(a, b)),
    "sum": (1, lambda a: len(a) > 0, lambda m, a: m.sum(a, 0)),
    "mean": (1, lambda a: len(a) > 0, lambda m, a: m.mean(a, -1)),
    "max": (1, lambda a: len(a) > 0, lambda m, a: m.max(a, -1)),
    "softmax": (1, lambda a: len(a) > 0, lambda m, a: m.softmax(a)),
    "swap": (1, lambda a: len(a) == 2, lambda m, a: m.swap(a)),
    "flat": (1, lambda a: True, lambda m, a: m.flat(a)),
    "cat": (
        2,
        lambda a, b: len(a) == len(b) > 0 and a[:-1] == b[:-1] and a[-1] + b[-1] < 8,
        lambda m, a, b: m.cat(a, b),
    ),
    "matmul": (
        2,
        lambda a, b: len(a) == len(b) == 2 and a[1] == b[0],
        lambda m, a, b: m.matmul(a, b),
    ),
}


def fit(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether two shapes broadcast, to something small."""
    try:
        return int(np.prod(np.broadcast_shapes(a, b))) <= 24
    except ValueError:
        return False


def run(program: Sequence[Step], m: Any, inputs: Sequence[Any]) -> Any:
    """The last value of the program."""
    values = list(inputs)
    for name, places in program:
        values.append(PROGRAM_OPS[name][2](m, *(values[i] for i in places)))
    return values[-1]


def written(choices: Sequence[tuple[int, int, int]], inputs: Sequence[Any]) -> list[Step]:
    """A program from numbers: each step takes an op and operands that fit. Steps whose values grow
    beyond 30 become a tanh.
    """
    program: list[Step] = []
    shapes = [x.shape for x in inputs]
    for which, first, second in choices:
        i, j = len(shapes) - 1 - first % len(shapes), second % len(shapes)
        fitting = [
            n
            for n, (count, takes, _) in PROGRAM_OPS.items()
            if (takes(shapes[i]) if count == 1 else takes(shapes[i], shapes[j]))
        ]
        name = fitting[which % len(fitting)]
        step = (name, (i,) if PROGRAM_OPS[name][0] == 1 else (i, j))
        value = run([*program, step], library, [Tensor(x) for x in inputs])
        if np.max(np.abs(value.numpy())) > 30:
            step = ("tanh", (i,))
            value = run([*program, step], library, [Tensor(x) for x in inputs])
        program.append(step)
        shapes.append(value.shape)
    return program


draws = st.lists(st.tuples(*[st.integers(0, 1000)] * 3), min_size=3, max_size=12)


def prepared(choices: Any, seed: int) -> tuple[list[Step], list[Any], Any]:
    """The program, its inputs, and a cotangent for its value."""
    rng = np.random.default_rng(seed)
    inputs = [rng.normal(size=shape) for shape in INPUTS]
    program = written(choices, inputs)
    return (
        program,
        inputs,
        rng.normal(size=run(program, library, [Tensor(x) for x in inputs]).shape),
    )


def by_library(
    program: Sequence[Step], inputs: Sequence[Any], g: Any, dtype: Any = np.float64
) -> tuple[Any, list[Any]]:
    leaves = [Tensor(x.astype(dtype), requires_grad=True) for x in inputs]
    y = run(program, library, leaves)
    return y.numpy(), [
        t.numpy() for t in minigrad.grad(y, leaves, Tensor(g.astype(dtype)), materialize_grads=True)
    ]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@settings(deadline=None, max_examples=100)
@given(choices=draws, seed=st.integers(0, 2**32))
def test_random_programs_are_exact(dtype: Any, choices: Any, seed: int) -> None:
    program, inputs, g = prepared(choices, seed)
    inputs, g = [x.astype(dtype) for x in inputs], g.astype(dtype)
    value, grads = by_library(program, inputs, g, dtype)
    expected = o.expect(lambda *xs: run(program, exact, xs), inputs, g, [], second=False)
    for got, wanted in zip((value, *grads), (expected.value, *expected.grads), strict=True):
        assert np.max(o.errors(got, wanted), initial=0.0) <= 64


def installed(name: str) -> Any:
    return pytest.mark.skipif(
        importlib.util.find_spec(name) is None, reason=f"{name} is not installed"
    )


@installed("torch")
@settings(deadline=None, max_examples=60)
@given(choices=draws, seed=st.integers(0, 2**32))
def test_random_programs_agree_with_pytorch(choices: Any, seed: int) -> None:
    import torch

    m = SimpleNamespace(
        tanh=torch.tanh,
        sin=torch.sin,
        exp=torch.exp,
        log=torch.log,
        sqrt=torch.sqrt,
        sigmoid=torch.sigmoid,
        relu=torch.relu,
        maximum=torch.maximum,
        pick=lambda a, b: torch.where(a > b, a, b * 2.0),
        sum=lambda a, axis: a.sum(axis, keepdim=True),
        mean=lambda a, axis: a.mean(axis, keepdim=True),
        max=lambda a, axis: a.amax(axis, keepdim=True),
        swap=lambda a: a.T,
        flat=lambda a: a.reshape(-1),
        cat=lambda a, b: torch.cat([a, b], -1),
        matmul=torch.matmul,
        softmax=lambda a: torch.softmax(a, -1),
    )
    program, inputs, g = prepared(choices, seed)
    value, grads = by_library(program, inputs, g)
    leaves = [torch.tensor(x, requires_grad=True) for x in inputs]
    y = run(program, m, leaves)
    y.backward(torch.tensor(g))
    wanted = [
        np.zeros_like(x) if t.grad is None else t.grad.numpy()
        for t, x in zip(leaves, inputs, strict=True)
    ]
    for a, b in zip((value, *grads), (y.detach().numpy(), *wanted), strict=True):
        np.testing.assert_allclose(
            a, b, rtol=1e-9, atol=1e-11 * max(1.0, np.max(np.abs(b), initial=0))
        )


@installed("jax")
@settings(deadline=None, max_examples=2)
@given(choices=draws, seed=st.integers(0, 2**32))
def test_random_programs_agree_with_jax(choices: Any, seed: int) -> None:
    import jax
    import jax.numpy as jnp

    m = SimpleNamespace(
        tanh=jnp.tanh,
        sin=jnp.sin,
        exp=jnp.exp,
        log=jnp.log,
        sqrt=jnp.sqrt,
        sigmoid=jax.nn.sigmoid,
        relu=jax.nn.relu,
        maximum=jnp.maximum,
        pick=lambda a, b: jnp.where(a > b, a, b * 2.0),
        sum=lambda a, axis: a.sum(axis, keepdims=True),
        mean=lambda a, axis: a.mean(axis, keepdims=True),
        max=lambda a, axis: a.max(axis, keepdims=True),
        swap=lambda a: a.T,
        flat=lambda a: a.reshape(-1),
        cat=lambda a, b: jnp.concatenate([a, b], -1),
        matmul=jnp.matmul,
        softmax=jax.nn.softmax,
    )
    program, inputs, g = prepared(choices, seed)
    value, grads = by_library(program, inputs, g)
    with jax.enable_x64(True):
        y, back = jax.vjp(lambda *xs: run(program, m, xs), *(jnp.asarray(x) for x in inputs))
        wanted = [np.asarray(t) for t in (y, *back(jnp.asarray(g)))]
    for a, b in zip((value, *grads), wanted, strict=True):
        np.testing.assert_allclose(
            a, b, rtol=1e-9, atol=1e-11 * max(1.0, np.max(np.abs(b), initial=0))
        )
