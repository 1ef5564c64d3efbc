"""Broadcasting equals explicit tiling, for every pair of shapes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, ops
from minigrad.errors import ShapeError

SHAPES = [shape for rank in range(5) for shape in itertools.product((0, 1, 2), repeat=rank)]


def tiled(x: Any, shape: tuple[int, ...]) -> Any:
    """x repeated to `shape`, by concatenation alone."""
    x = x.reshape((1,) * (len(shape) - x.ndim) + x.shape)
    for axis, n in enumerate(shape):
        if x.shape[axis] != n:
            x = np.concatenate([x] * n, axis) if n else x[(slice(None),) * axis + (slice(0, 0),)]
    return x


def folded(g: Any, shape: tuple[int, ...]) -> Any:
    """The transpose of `tiled`: the sum of the copies' gradients."""
    while g.ndim > len(shape):
        g = g.sum(0)
    for axis, n in enumerate(shape):
        if n != g.shape[axis]:
            g = g.sum(axis, keepdims=True)
    return g


def common(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape of a and b together, by the rule as it is taught; None where there is none."""
    sizes = []
    for m, n in itertools.zip_longest(reversed(a), reversed(b), fillvalue=1):
        if m != n and 1 not in (m, n):
            return None
        sizes.append(n if m == 1 else m)
    return tuple(reversed(sizes))


@pytest.mark.parametrize("rank", range(5))
def test_every_pair_of_shapes_to_rank_4_equals_explicit_tiling(rank: int) -> None:
    """Integer-valued, so that equality is to the bit."""
    rng = np.random.default_rng(0)
    for a, b in itertools.product([shape for shape in SHAPES if len(shape) == rank], SHAPES):
        together = common(a, b)
        if together is None:
            continue
        x, y = (rng.integers(-8, 9, shape).astype(float) for shape in (a, b))
        g = rng.integers(-8, 9, together).astype(float)
        tx, ty = Tensor(x, requires_grad=True), Tensor(y, requires_grad=True)
        z = tx * ty
        gx, gy = minigrad.grad(z, (tx, ty), Tensor(g))
        assert np.array_equal(z.numpy(), tiled(x, together) * tiled(y, together)), (a, b)
        assert gx.shape == a and gy.shape == b, (a, b)
        assert np.array_equal(gx.numpy(), folded(g * tiled(y, together), a)), (a, b)
        assert np.array_equal(gy.numpy(), folded(g * tiled(x, together), b)), (a, b)


def test_every_pair_that_does_not_broadcast_is_a_shape_error() -> None:
    for a, b in itertools.product(SHAPES, SHAPES):
        if common(a, b) is None:
            with pytest.raises(ShapeError):
                Tensor(np.zeros(a)) + Tensor(np.zeros(b))


@pytest.mark.parametrize(
    "shapes",
    [
        ((3, 1), (1, 4), (2, 1, 1)),
        ((), (2, 3), (3,)),
        ((0, 1), (1,), (2, 1, 4)),
        ((1,), (1, 1), ()),
    ],
)
def test_an_op_of_three_operands_broadcasts_all_of_them(shapes: Any) -> None:
    together = np.broadcast_shapes(*shapes)
    rng = np.random.default_rng(1)
    arrays = [rng.integers(-8, 9, shape).astype(float) for shape in shapes]
    condition, a, b = (Tensor(x, requires_grad=True) for x in arrays)
    g = rng.integers(-8, 9, together).astype(float)
    y = ops.where(condition > 0, a, b)
    ga, gb = minigrad.grad(y, (a, b), Tensor(g))
    chosen = tiled(arrays[0], together) > 0
    assert np.array_equal(
        y.numpy(), np.where(chosen, tiled(arrays[1], together), tiled(arrays[2], together))
    )
    assert np.array_equal(ga.numpy(), folded(np.where(chosen, g, 0), shapes[1]))
    assert np.array_equal(gb.numpy(), folded(np.where(chosen, 0, g), shapes[2]))


@pytest.mark.parametrize(
    "a, b",
    [
        ((2, 3, 4), (4, 2)),
        ((5, 1, 3, 4), (6, 4, 2)),
        ((1, 3, 0), (2, 0, 2)),
        ((0, 3, 4), (4, 2)),
        ((2, 0, 4), (1, 4, 3)),
    ],
)
def test_matmul_broadcasts_its_batch_axes(a: Any, b: Any) -> None:
    rng = np.random.default_rng(2)
    x, y = (rng.integers(-4, 5, shape).astype(float) for shape in (a, b))
    batch = np.broadcast_shapes(a[:-2], b[:-2])
    g = rng.integers(-4, 5, (*batch, a[-2], b[-1])).astype(float)
    tx, ty = Tensor(x, requires_grad=True), Tensor(y, requires_grad=True)
    z = tx @ ty
    gx, gy = minigrad.grad(z, (tx, ty), Tensor(g))
    wide_x, wide_y = tiled(x, (*batch, *a[-2:])), tiled(y, (*batch, *b[-2:]))
    assert np.array_equal(z.numpy(), np.einsum("...ij,...jk->...ik", wide_x, wide_y))
    assert np.array_equal(gx.numpy(), folded(np.einsum("...ik,...jk->...ij", g, wide_y), a))
    assert np.array_equal(gy.numpy(), folded(np.einsum("...ij,...ik->...jk", wide_x, g), b))
