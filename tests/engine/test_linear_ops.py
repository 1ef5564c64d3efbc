"""Linear ops move numbers, or add them up: on integers they are exact, and each rule is the
transpose of its op.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

import minigrad
from minigrad import Tensor, ops

integers = st.integers(-1000, 1000).map(float)
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
tensors = shapes.flatmap(lambda shape: hnp.arrays(np.float64, shape, elements=integers))


def transpose(f: Any, x: Any, g: Any) -> Any:
    """f^T g, by the rule."""
    t = Tensor(x, requires_grad=True)
    return minigrad.grad(f(t), t, Tensor(g))[0].numpy()


def holds(f: Any, like: Any, x: Any, data: Any) -> None:
    """f is `like` to the bit, and <g, f x> = <f^T g, x>, in integers that no rounding touches."""
    y = f(Tensor(x)).numpy()
    wanted = like(x)
    assert y.shape == wanted.shape and np.array_equal(y, wanted)
    g = data.draw(hnp.arrays(np.float64, y.shape, elements=integers))
    back = transpose(f, x, g)
    assert back.shape == x.shape and np.sum(g * y) == np.sum(back * x)


@settings(deadline=None, max_examples=60)
@given(x=tensors, data=st.data())
def test_reshape_permute_flip_and_expand(x: Any, data: Any) -> None:
    order = tuple(data.draw(st.permutations(range(x.ndim))))
    holds(lambda t: ops.permute(t, order=order), lambda a: a.transpose(order), x, data)
    holds(lambda t: ops.reshape(t, shape=(x.size,)), lambda a: a.reshape(x.size), x, data)
    axes = tuple(data.draw(st.sets(st.sampled_from(range(x.ndim))))) if x.ndim else ()
    holds(lambda t: ops.flip(t, axis=axes), lambda a: np.flip(a, axes), x, data)
    wide = (
        data.draw(st.integers(0, 3)),
        *(n if n != 1 else data.draw(st.integers(0, 3)) for n in x.shape),
    )
    holds(lambda t: ops.expand(t, shape=wide), lambda a: np.broadcast_to(a, wide), x, data)


@settings(deadline=None, max_examples=60)
@given(x=tensors, keepdim=st.booleans(), data=st.data())
def test_sum_over_any_axes(x: Any, keepdim: bool, data: Any) -> None:
    axis = (
        data.draw(
            st.none() | st.sets(st.sampled_from(range(-x.ndim, x.ndim)), max_size=x.ndim).map(tuple)
        )
        if x.ndim
        else None
    )
    if axis is not None and len({a % x.ndim for a in axis}) < len(axis):
        axis = tuple({a % x.ndim for a in axis})
    holds(
        lambda t: ops.sum(t, axis=axis, keepdim=keepdim),
        lambda a: a.sum(axis=axis, keepdims=keepdim),
        x,
        data,
    )


@settings(deadline=None, max_examples=60)
@given(x=tensors, data=st.data())
def test_pad_and_cut(x: Any, data: Any) -> None:
    widths = tuple((data.draw(st.integers(-n, 3)), data.draw(st.integers(0, 3))) for n in x.shape)

    def padded(a: Any) -> Any:
        inner = a[tuple(slice(max(-before, 0), None) for before, _ in widths)]
        return np.pad(inner, [(max(before, 0), after) for before, after in widths]) if a.ndim else a

    holds(lambda t: ops.pad(t, widths=widths), padded, x, data)


slices = st.builds(
    slice,
    st.none() | st.integers(-5, 5),
    st.none() | st.integers(-5, 5),
    st.sampled_from([None, 1, 2, -1, -3]),
)


@settings(deadline=None, max_examples=100)
@given(x=tensors, data=st.data())
def test_basic_indexing(x: Any, data: Any) -> None:
    index: list[Any] = [
        data.draw(slices | (st.integers(-n, n - 1) if n else slices))
        for n in x.shape[: data.draw(st.integers(0, x.ndim))]
    ]
    if data.draw(st.booleans()):
        index.insert(data.draw(st.integers(0, len(index))), None)
    if data.draw(st.booleans()):
        index.append(Ellipsis)
    holds(lambda t: t[tuple(index)], lambda a: a[tuple(index)], x, data)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), rank=st.integers(1, 4))
def test_concatenation(data: Any, rank: int) -> None:
    shape = [data.draw(st.integers(0, 3)) for _ in range(rank)]
    axis = data.draw(st.integers(-rank, rank - 1))
    pieces = []
    for _ in range(data.draw(st.integers(1, 3))):
        shape[axis] = data.draw(st.integers(0, 3))
        pieces.append(data.draw(hnp.arrays(np.float64, tuple(shape), elements=integers)))
    joined = ops.cat(*map(Tensor, pieces), axis=axis)
    assert np.array_equal(joined.numpy(), np.concatenate(pieces, axis))
    for i, piece in enumerate(pieces):  # linear in one piece, the others being 0
        holds(
            lambda t, i=i: ops.cat(
                *(Tensor(0 * p) if k != i else t for k, p in enumerate(pieces)), axis=axis
            ),
            lambda a, i=i: np.concatenate(
                [0 * p if k != i else a for k, p in enumerate(pieces)], axis
            ),
            piece,
            data,
        )


@settings(deadline=None, max_examples=60)
@given(data=st.data(), rows=st.integers(1, 5), width=st.integers(0, 3))
def test_gathering_rows_is_the_transpose_of_adding_them_up(
    data: Any, rows: int, width: int
) -> None:
    table = data.draw(hnp.arrays(np.float64, (rows, width), elements=integers))
    index = data.draw(
        hnp.arrays(
            np.int64,
            hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
            elements=st.integers(0, rows - 1),
        )
    )
    holds(lambda t: ops.embedding(t, index), lambda a: a[index], table, data)
    g = data.draw(hnp.arrays(np.float64, (*index.shape, width), elements=integers))
    added = np.zeros((rows, width))
    np.add.at(added, index, g)
    assert np.array_equal(transpose(lambda t: ops.embedding(t, index), table, g), added)
    holds(
        lambda t: ops.embedding_grad(t, index, size=rows), lambda a: added if a is g else a, g, data
    )


@settings(deadline=None, max_examples=40)
@given(data=st.data(), sizes=st.tuples(*[st.integers(0, 4)] * 3))
def test_matrix_products_of_integers_are_exact(data: Any, sizes: Any) -> None:
    m, k, n = sizes
    a, b = (
        data.draw(hnp.arrays(np.float64, shape, elements=integers)) for shape in ((m, k), (k, n))
    )
    holds(lambda t: t @ Tensor(b), lambda x: np.einsum("ij,jk->ik", x, b), a, data)
    holds(lambda t: Tensor(a) @ t, lambda x: np.einsum("ij,jk->ik", a, x), b, data)
    holds(lambda t: ops.linear(t, Tensor(b.T)), lambda x: np.einsum("ij,jk->ik", x, b), a, data)


def test_a_long_float32_sum_keeps_its_digits_along_every_axis() -> None:
    """4 million terms of 0.1: a plain loop is off by 1e-2, blocks and pairs by less than 64 eps of
    the sum. How much less depends on the order in which the BLAS at hand adds within a block:
    8 eps with OpenBLAS 0.3.31, 20 with the AVX-512 kernels of numpy 2.0's.
    """
    limit = 64 * float(np.finfo(np.float32).eps)
    tall = np.full((1 << 21, 2), 0.1, np.float32)
    exact = (1 << 21) * float(np.float32(0.1))
    wide = tall.reshape(2, -1, 2)
    for x, axis in (
        (tall, 0),
        (tall.T, 1),
        (tall.T.copy(), 1),
        (tall[:, 0], 0),
        (wide, (0, 1)),
        (wide.swapaxes(0, 1), (0, 1)),
        (tall[:, :1], None),
    ):
        got = ops.sum(Tensor._wrap(x), axis=axis).numpy()
        assert np.all(np.abs(got / exact - 1) < limit)
    w = Tensor(np.zeros(2, np.float32), requires_grad=True)
    (w * Tensor._wrap(tall)).sum().backward()
    assert np.all(np.abs(w.grad.numpy() / exact - 1) < limit)


def test_many_rows_of_nothing_add_up_to_nothing() -> None:
    assert Tensor(np.zeros((40, 0))).sum(0).shape == (0,)
    assert Tensor(np.zeros((9, 0, 9, 4))).sum((0, 2, 3)).shape == (0,)
