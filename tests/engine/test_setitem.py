"""Writing into tensors: t[key] = value and the in-place operators, with and without gradients."""

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

import minigrad
from minigrad import Tensor
from minigrad.errors import (
    DTypeError,
    GradientError,
    IndexRangeError,
    ReadOnlyError,
    ShapeError,
    StaleValueError,
)

SHAPE = (3, 4, 2)
BASIC = hnp.basic_indices(SHAPE, allow_newaxis=True, allow_ellipsis=True)
ADVANCED = hnp.integer_array_indices(SHAPE, result_shape=hnp.array_shapes(max_dims=2, max_side=3))
MASKS = hnp.arrays(np.bool_, st.sampled_from([SHAPE, SHAPE[:2], SHAPE[:1]]))
KEYS = BASIC | ADVANCED | MASKS


def leaf(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return Tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True)


@settings(deadline=None)
@given(key=KEYS)
def test_indexing_gives_what_numpy_gives_and_sends_the_gradient_back_there(key: object) -> None:
    x = leaf(SHAPE)
    y = x[key]
    assert np.array_equal(y.numpy(), x.numpy()[key])
    weights = np.random.default_rng(1).standard_normal(y.shape)
    y.backward(Tensor(weights))
    wanted = np.zeros(SHAPE)
    np.add.at(wanted, key, weights)
    np.testing.assert_allclose(x.grad.numpy(), wanted, rtol=1e-14, atol=1e-14)


@settings(deadline=None)
@given(key=KEYS)
def test_setitem_writes_what_numpy_writes_and_splits_the_gradient(key: object) -> None:
    x = leaf(SHAPE)
    value = leaf(x.numpy()[key].shape, 1)
    t = x * 1
    t[key] = value
    wanted = np.array(x.numpy())
    wanted[key] = value.numpy()
    assert np.array_equal(t.numpy(), wanted)
    places = np.arange(x.numel()).reshape(SHAPE)
    source = np.full(SHAPE, -1)
    source[key] = np.arange(value.numel()).reshape(
        value.shape
    )  # which element of value stands where, -1 for none
    (t * Tensor(places + 1.0)).sum().backward()
    assert np.array_equal(x.grad.numpy(), np.where(source < 0, places + 1.0, 0))
    expected = np.zeros(value.numel())
    expected[source[source >= 0]] = (places + 1.0)[source >= 0]
    assert np.array_equal(
        value.grad.numpy().ravel() if value.grad is not None else np.zeros(value.numel()), expected
    )


def test_a_recurrence_written_into_rows_of_a_buffer_has_the_gradient_of_the_unrolled_one() -> None:
    w = Tensor(np.eye(3) * 0.5, requires_grad=True)
    h = Tensor(np.zeros((5, 3)))
    h[0] = Tensor(np.array([1.0, 2.0, 3.0]))
    for i in range(1, 5):
        h[i] = (h[i - 1] @ w).tanh()
    h.sum().backward()
    found, w.grad = w.grad.numpy(), None
    rows = [Tensor(np.array([1.0, 2.0, 3.0]))]
    for _ in range(4):
        rows.append((rows[-1] @ w).tanh())
    Tensor.stack(rows).sum().backward()
    assert np.array_equal(found, w.grad.numpy())


def test_what_was_computed_from_the_tensor_before_keeps_its_gradient() -> None:
    for size in (2, 5000):  # below and above the size where the tape keeps operands as they are
        a = leaf((size,))
        t = a * 2
        before = t + 1
        t[0] = 0.0
        (before.sum() + t.sum()).backward()
        assert a.grad.numpy()[:2].tolist() == [2, 4]


def test_a_rule_that_needs_the_overwritten_values_refuses_with_both_lines() -> None:
    a = leaf((2,))
    t = a * 2
    square = t * t
    t[0] = 0.0
    with pytest.raises(StaleValueError, match="mul needs a value") as caught:
        square.sum().backward()
    assert __file__ in caught.value.where and __file__ in str(caught.value.got)


@pytest.mark.parametrize(
    "part",
    [
        lambda x: x[1, 2],
        lambda x: x[1][2],
        lambda x: x.diagonal(),
        lambda x: x.diagonal(-1),
        lambda x: x[None].diagonal(1, 2, 1),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bool"])
def test_an_item_and_a_diagonal_are_views_in_any_dtype(part: Any, dtype: str) -> None:
    x = Tensor.zeros(3, 3, dtype=dtype)
    part(x).fill_(True)
    seen = x.float().numpy() == 1
    assert 0 < seen.sum() < 9 and part(x).float().numpy().all()
    with pytest.raises(GradientError, match="through a view"):
        part(leaf((3, 3)) * 1).fill_(1.0)
    fixed = Tensor(np.zeros(3)).expand(3, 3)
    with pytest.raises(ReadOnlyError):
        part(fixed).fill_(1.0)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.roll(0, 0),
        lambda x: x.roll((3, -3), (0, 1)),
        lambda x: x.repeat(1, 1),
        lambda x: x[:1].repeat(3, 1),
        lambda x: x.tile(1),
        lambda x: x.repeat_interleave(1, 0),
        lambda x: +x,
    ],
)
def test_what_moves_or_repeats_nothing_is_a_tensor_of_its_own(change: Any) -> None:
    x = Tensor(np.arange(9.0).reshape(3, 3))
    y = change(x)
    kept = y.numpy().copy()
    y.add_(1.0)
    assert np.array_equal(y.numpy(), kept + 1)
    assert np.array_equal(x.numpy(), np.arange(9.0).reshape(3, 3))


def test_without_gradients_setitem_writes_in_place_and_views_see_it() -> None:
    t = Tensor(np.zeros((2, 2)))
    row = t[1]
    memory = t.data
    t[1, 0] = 5
    t[0][1] = 7
    assert t.data is memory and t.tolist() == [[0, 7], [5, 0]] and row.tolist() == [5, 0]


def test_numbers_lists_ranges_and_arrays_are_written_with_all_their_digits() -> None:
    t = Tensor(np.zeros((2, 3)))
    t[0] = [0.1, Tensor(2), np.float64(0.3)]
    t[1] = range(3)
    t[1, 0] = 0.1
    assert t.tolist() == [[0.1, 2, 0.3], [0.1, 1, 2]]
    t[:, 1] = np.array([0.7, 0.9])
    assert t.tolist() == [[0.1, 0.7, 0.3], [0.1, 0.9, 2]]


def test_a_value_that_backward_needs_is_guarded_against_a_write_in_place() -> None:
    x, scale = leaf((2,)), Tensor(np.ones(2))
    y = x * scale
    scale[0] = 3.0
    with pytest.raises(StaleValueError):
        y.sum().backward()


def test_a_leaf_that_requires_a_gradient_is_not_written_into_outside_no_grad() -> None:
    x = leaf((2,))
    with pytest.raises(GradientError, match="no_grad"):
        x[0] = 1.0
    with minigrad.no_grad():
        x[0] = 1.0
    assert x.numpy()[0] == 1 and x.is_leaf


def test_a_write_through_a_view_that_nobody_could_see_is_refused() -> None:
    h, w = leaf((2, 2)) * 1, leaf(())
    with pytest.raises(GradientError, match=r"t\[i, j\]"):
        h[0][1] = 0.0
    with pytest.raises(GradientError, match=r"t\[i, j\]"):
        Tensor(np.zeros((2, 2)))[0][1] = w
    h[0, 1] = w
    assert h.grad_fn.op.name == "put"


def test_values_are_broadcast_and_cast_to_the_tensor_s_dtype() -> None:
    t = Tensor([[1, 2], [3, 4]])
    t[:, 0] = 2.9
    t[1] = np.array([[7, 8]])
    assert t.tolist() == [[2, 2], [7, 8]] and t.dtype == np.int64
    for half in ("float16", "bfloat16"):
        x = Tensor([1.0, 2.0], dtype=half, requires_grad=True)
        y = x * 1
        y[0] = Tensor(0.5)
        y.sum().backward()
        assert y.tolist() == [0.5, 2.0] and x.grad.tolist() == [0, 1] and x.grad.dtype == x.dtype


def test_setitem_refuses_what_does_not_fit() -> None:
    t = Tensor(np.zeros((2, 3)))
    with pytest.raises(ShapeError):
        t[0] = np.ones(4)
    with pytest.raises(IndexRangeError):
        t[5] = 1.0
    with pytest.raises(IndexRangeError, match="float"):
        t[np.array([0.5])] = 1.0
    with pytest.raises(IndexRangeError, match="str"):
        t["a"] = 1.0
    frozen = Tensor.from_dlpack(np.zeros(2))
    frozen.data.flags.writeable = False
    with pytest.raises(ReadOnlyError):
        frozen[0] = 1.0


def test_in_place_operators_write_into_memory_where_no_gradient_is_wanted() -> None:
    t = Tensor(np.array([8.0, 9.0]))
    same, memory = t, t.data
    t += 1
    t -= Tensor(np.array([1.0, 2.0]))
    t *= 2
    t /= 4
    t **= 2
    t //= 1
    t %= 7
    assert t is same and t.data is memory and t.tolist() == [2.0, 2.0]
    bits = Tensor([6, 5])
    bits &= 3
    bits |= 8
    bits ^= 1
    bits <<= 2
    bits >>= 1
    assert bits.tolist() == [22, 16]


def test_in_place_operators_keep_gradients_exact_where_they_flow() -> None:
    x = leaf((3,))
    y = x * x
    y *= x
    y += x
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 3 * x.numpy() ** 2 + 1, rtol=1e-15)


def test_in_place_operators_refuse_leaves_other_shapes_and_other_kinds() -> None:
    x = leaf((2,))
    with pytest.raises(GradientError, match="no_grad"):
        x += 1
    with minigrad.no_grad():
        x -= x
    assert x.is_leaf and x.requires_grad and x.tolist() == [0, 0]
    t = Tensor(np.ones(2))
    with pytest.raises(ShapeError):
        t += np.ones((3, 2))
    whole = Tensor([1, 2])
    with pytest.raises(DTypeError):
        whole += 0.5


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        (0, (1, 4)),
        (0, (1, 1, 1)),
        ((0, 1), (1,)),
        ([0, 2], (1, 2, 4)),
        (slice(1), (1, 1, 4)),
        (0, (1,)),
    ],
)
def test_axes_of_size_1_in_front_of_a_value_are_left_out_and_get_their_gradient(
    key: object, shape: tuple[int, ...]
) -> None:
    out, w = leaf((3, 4)) * 1, leaf(shape, 1)
    out[key] = w
    wanted = np.array(leaf((3, 4)).numpy())
    wanted[key] = w.numpy().reshape(
        [n for i, n in enumerate(shape) if n > 1 or i >= len(shape) - np.ndim(wanted[key])]
    )
    assert np.array_equal(out.numpy(), wanted)
    out.sum().backward()
    assert w.grad.shape == shape and float(w.grad.sum()) == wanted[key].size


def test_one_element_in_a_vector_is_written_into_one_place() -> None:
    t = minigrad.zeros(3)
    t[0] = Tensor([1.0])
    t[1] = Tensor([[2.0]])
    assert t.tolist() == [1, 2, 0]
    with pytest.raises(ShapeError):
        t[2] = Tensor([1.0, 2.0])


def test_an_operator_in_place_on_a_view_is_refused_as_setitem_is_where_gradients_flow() -> None:
    w, plain = leaf((4,)), Tensor(np.zeros(4))
    t = w * 1
    for view, other in ((t[0:2], 1.0), (t.reshape(2, 2), 1.0), (w[0:2], 1.0), (plain[0:2], w[0:2])):
        with pytest.raises(GradientError, match="through a view") as caught:
            view += other
        assert "v = v + x" in caught.value.hint
    v = plain[0:2]
    v += 1
    assert plain.tolist() == [1, 1, 0, 0]


def test_an_operator_in_place_on_an_item_is_refused_where_gradients_flow_with_what_to_write() -> (
    None
):
    w = leaf((4,))
    t = w * 1
    for change in ("t[0] *= 3.0", "t[0:1] *= 3.0", "t[1:3] += w[0:2]", "t[[0, 1]][0:1] -= 1.0"):
        with pytest.raises(GradientError, match=r"t\[i\] = t\[i\] \+ x"):
            exec(change)
    t[0] = t[0] * 3.0
    t[1:3] = t[1:3] + w[0:2]
    t.sum().backward()
    assert w.grad.tolist() == [4, 2, 1, 1]
    with minigrad.no_grad():
        t[0:2] *= 2.0
    assert t.tolist()[0:2] == [2 * 3 * w.tolist()[0], 2 * (w.tolist()[1] + w.tolist()[0])]


def test_methods_in_place_change_the_tensor_and_keep_its_gradient() -> None:
    plain = Tensor([1.0, 2.0])
    view = plain[:1]
    for call, wanted in (
        (lambda t: t.add_(1.0), [2, 3]),
        (lambda t: t.add_(Tensor([1.0, 1.0]), alpha=-2), [0, 1]),
        (lambda t: t.mul_(3.0).sub_(1.0), [-1, 2]),
        (lambda t: t.clamp_(min=0.0), [0, 2]),
        (lambda t: t.div_(2.0), [0, 1]),
        (lambda t: t.fill_(7), [7, 7]),
        (lambda t: t.copy_(np.array([1, 2])), [1, 2]),
        (lambda t: t.zero_(), [0, 0]),
    ):
        assert call(plain) is plain and plain.tolist() == wanted and plain.dtype == np.float32
        assert view.tolist() == wanted[:1]
    w = leaf((2,))
    for change in (lambda t: t.add_(w), lambda t: t.zero_(), lambda t: t.clamp_(0.0, 1.0)):
        with pytest.raises(GradientError, match="leaf"):
            change(w)
        with pytest.raises(GradientError, match="view"):
            change((w * 1)[:2])
    t = w * 1
    before = t.sum()
    t.mul_(3.0).add_(w)
    (before + t.sum()).backward()
    assert w.grad.tolist() == [5, 5]
    with minigrad.no_grad():
        assert w.mul_(2.0) is w
    with pytest.raises(ShapeError, match="add_"):
        Tensor([1.0]).add_(Tensor([1.0, 2.0]))
    with pytest.raises(DTypeError, match="mul_"):
        Tensor([1]).mul_(0.5)


def test_writing_and_reading_in_turn_visits_every_node_once() -> None:
    """Where each read looked back through all writes, the time for n of them grew as n^2."""

    def lines(n: int) -> int:
        w = leaf((n,))
        t = w * 1
        for i in range(1, n):
            t[i] = t[i - 1] * 1.0
        count = 0

        def trace(frame: object, event: str, _arg: object) -> object:
            nonlocal count
            count += frame.f_code.co_name == "nodes_above"
            return trace

        loss = t.sum()
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            loss.backward()
        finally:
            sys.settrace(before)
        assert w.grad.tolist() == [n] + [0] * (n - 1)
        return count

    assert lines(80) < 2.5 * lines(40)


def test_a_value_that_a_product_does_not_need_may_be_changed() -> None:
    products = (
        lambda y, c: y * 2.0,
        lambda y, c: y * c,
        lambda y, c: c * y,
        lambda y, c: y @ c,
        lambda y, c: y[0] @ c[0],
    )
    for size in (3, 40):  # below and above the size where the tape keeps operands as they are
        constant = Tensor(np.full((size, size), 2.0))
        for product in products:
            x = leaf((size, size))
            y = x * 1
            u = product(y, constant)
            y[0] = 5.0
            (u.sum() + y.sum()).backward()
            wanted = minigrad.grad((product(x, constant).sum() + x[1:].sum()), x)[0]
            assert np.array_equal(x.grad.numpy(), wanted.numpy())
    y = leaf((3, 3)) * 1
    u = y * leaf((3, 3))
    y[0] = 5.0
    with pytest.raises(StaleValueError):
        u.sum().backward()


def test_a_reshape_that_had_to_copy_is_a_tensor_of_its_own() -> None:
    x = leaf((2, 3))
    y = x * x
    z = (y * y).sum()
    v = y.T.reshape(-1)
    v += 1
    v[0] = 0.0
    assert y.tolist() == (x * x).tolist()
    (z + v.sum()).backward()
    plain = Tensor(np.zeros((2, 3)))
    flat = plain.T.reshape(-1)
    used = (leaf((2, 3)) * plain).sum()
    flat += 1
    used.backward()
    assert (
        plain.tolist() == [[0] * 3] * 2
        and plain.reshape(-1)._version is plain._version
        and plain.expand(2, 2, 3)._version is plain._version
    )
