"""One row of the op table, and how it is judged: inputs drawn, run through the library and through
the oracle, errors in eps x scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import minigrad
from minigrad import Tensor
from minigrad.primitive import Primitive
from tests import oracle

REAL, POSITIVE = (-np.inf, np.inf), (0.0, np.inf)
N = -1  # in a shape: as many as there are inputs to try


@dataclass(frozen=True)
class Case:
    """An op by its name in the library, how to call it on Tensors, and the formula on oracle
    numbers that says what it is.

    shapes: of the float operands.   extra: operands without a gradient, passed as they are to
        `call` and `formula`, behind the others.
    domain: (low, high), without the ends; one for all operands, or one each.
    wide: the part of the exponent range that inputs are drawn from, 1 for all of it with
        subnormals, 0 for numbers around 1.
    budget: in eps x scale; 16 for an op of one step, 64 for a composite.   second: whether second
        derivatives are defined.
    ulps: for an op that is one numpy function, what `test_ulps.py` allows its float32 gradient.
    """

    name: str
    call: Callable[..., Any]
    formula: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    extra: tuple[Any, ...] = ()
    domain: Any = REAL
    wide: float = 1.0
    budget: int = 16
    second: bool = True
    ulps: float = 2.5

    @property
    def op(self) -> Primitive | None:
        """The op, if the row is one of the elementwise ops of one operand as it is."""
        op = self.call
        alone = isinstance(op, Primitive) and op.kind == "elementwise" and self.shapes == ((N,),)
        return op if alone else None

    def inputs(self, rng: np.random.Generator, dtype: Any, count: int, wide: float) -> list[Any]:
        """One array per float operand, then the extras."""
        domains = (
            self.domain if isinstance(self.domain[0], tuple) else (self.domain,) * len(self.shapes)
        )
        shapes = [tuple(count if n == N else n for n in shape) for shape in self.shapes]
        drawn = [
            draw(rng, shape, dtype, domain, wide)
            for shape, domain in zip(shapes, domains, strict=True)
        ]
        return [*drawn, *self.extra]


@dataclass
class Verdict:
    """The worst errors of a row, in eps x scale, and how many input numbers were tried."""

    value: float = 0.0
    grad: float = 0.0
    second: float = 0.0
    tried: int = 0

    @property
    def worst(self) -> float:
        return max(self.value, self.grad, self.second)

    def add(self, other: Verdict) -> None:
        """Keep the worse of both, and count both."""
        self.value, self.grad = max(self.value, other.value), max(self.grad, other.grad)
        self.second, self.tried = max(self.second, other.second), self.tried + other.tried


def specials(dtype: Any, wide: float) -> Any:
    """The edges of a dtype: zero, subnormals, the smallest and largest exponents, and the
    neighbours of 1.
    """
    f = np.finfo(dtype)
    far = 300 if f.bits == 64 else 37
    edges = [
        f.smallest_subnormal,
        5 * f.smallest_subnormal,
        f.tiny / 4,
        f.tiny,
        10.0**-far,
        10.0**far,
        f.max / 4,
        f.eps,
        1 - f.eps,
        1,
        1 + f.eps,
        0.5,
        88.0,
        700.0,
    ]
    low, high = float(f.smallest_subnormal) ** wide, float(f.max) ** wide
    kept = [float(x) for x in edges if low <= float(x) <= high]
    return np.array([0.0] * (wide == 1) + kept + [-x for x in kept], dtype)


def draw(
    rng: np.random.Generator, shape: Any, dtype: Any, domain: tuple[float, float], wide: float
) -> Any:
    """Random numbers of many magnitudes within a domain, no two alike; with `wide`, half of them
    from the edges of the dtype.
    """
    low, high = domain
    size = int(np.prod(shape))
    signs = rng.choice([-1.0, 1.0], 40 * size + 40)
    x = signs * 10 ** rng.uniform(-2, 1, signs.size)
    if np.isfinite(low) and np.isfinite(high):
        x = rng.uniform(low, high, signs.size)
    x = x.astype(dtype)
    x = x[(x > low) & (x < high)][:size]
    if wide:
        edges = specials(dtype, wide)
        some = rng.permutation(edges[(edges > low) & (edges < high)])[: max(size // 2, 1)]
        x[: len(some)] = some[: len(x)]
        x = rng.permutation(x)
    return x.reshape(shape)


def judge(case: Case, dtype: Any, rng: np.random.Generator, count: int) -> Verdict:
    """The errors of one draw over the whole range (value, gradient), and one of ordinary numbers
    (second derivatives as well).
    """
    verdict = compare(case, case.inputs(rng, dtype, count, 0), rng, second=case.second)
    if case.wide:
        verdict.add(compare(case, case.inputs(rng, dtype, count, case.wide), rng, second=False))
    return verdict


@np.errstate(over="ignore", invalid="ignore")
def compare(
    case: Case, inputs: Sequence[Any], rng: np.random.Generator, *, second: bool
) -> Verdict:
    """The errors of value, gradient and, if asked for, H v, on these inputs, for a random cotangent
    and random directions.
    """
    tensors = [Tensor(x, requires_grad=True) if oracle.is_float(x) else x for x in inputs]
    floats = [t for t in tensors if isinstance(t, Tensor)]
    y = case.call(*tensors)
    dtype = floats[0].dtype
    g = rng.uniform(0.5, 2, y.shape).astype(dtype) * rng.choice([-1, 1], y.shape).astype(dtype)
    along = [rng.uniform(-1, 1, t.shape).astype(dtype) for t in floats]
    expected = oracle.expect(case.formula, inputs, g, along, second=second)
    verdict = Verdict(tried=sum(t.numpy().size for t in floats))
    verdict.value = worst(y, expected.value)
    if y.requires_grad:
        for create_graph in (False, True)[
            : 1 + second
        ]:  # the fast rule, and the one that is differentiated again: not always the same
            grads = minigrad.grad(
                y,
                floats,
                Tensor(g),
                retain_graph=second,
                create_graph=create_graph,
                materialize_grads=True,
            )
            verdict.grad = max(
                verdict.grad, *(worst(a, b) for a, b in zip(grads, expected.grads, strict=True))
            )
        if second:
            verdict.second = max(
                worst(a, b)
                for a, b in zip(second_derivative(grads, floats, along), expected.hvps, strict=True)
            )
    return verdict


def second_derivative(
    grads: Sequence[Tensor], floats: Sequence[Tensor], along: Sequence[Any]
) -> Sequence[Tensor]:
    """H v: the derivative of the gradients along v, by a second backward pass."""
    moving = [(grad, Tensor(v)) for grad, v in zip(grads, along, strict=True) if grad.requires_grad]
    if not moving:
        return [Tensor(np.zeros_like(t.numpy())) for t in floats]
    outputs, weights = zip(*moving, strict=True)
    return minigrad.grad(outputs, floats, weights, materialize_grads=True)


def worst(got: Tensor, expected: Any) -> float:
    """The largest error of a tensor, in eps x scale; 0 for an empty one."""
    return float(np.max(oracle.errors(got.numpy(), expected), initial=0.0))
