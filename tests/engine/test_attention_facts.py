"""What holds for attention: its closed form, what a mask hides, and its symmetries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, ops

SCALE = 0.5


def attend(
    q: Any, k: Any, v: Any, g: Any, mask: Any = None, offset: int | None = None
) -> tuple[Any, ...]:
    """Output, probabilities, dq, dk, dv, as arrays."""
    leaves = [Tensor(x, requires_grad=True) for x in (q, k, v)]
    o, p = ops.attention(
        *leaves, *([] if mask is None else [Tensor(mask)]), scale=SCALE, offset=offset
    )
    return (o.numpy(), p.numpy(), *(t.numpy() for t in minigrad.grad(o, leaves, Tensor(g))))


def drawn(
    T: int = 6,
    S: int = 6,
    D: int = 4,
    batch: tuple[int, ...] = (2, 3),
    seed: int = 0,
    dtype: Any = np.float64,
) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(*batch, n, D)).astype(dtype) for n in (T, S, S, T)]


@pytest.mark.parametrize("offset", [None, 0, 2])
def test_gradients_are_those_of_the_closed_form(offset: int | None) -> None:
    """dV = P^T dO,  dS = P (dP - rowsum(dO O)),  dQ = scale dS K,  dK = scale dS^T Q."""
    q, k, v, g = drawn(T=5, S=7)
    o, p, dq, dk, dv = attend(q, k, v, g, offset=offset)
    seen = np.ones((5, 7), bool) if offset is None else np.tri(5, 7, offset, dtype=bool)
    e = np.where(seen, np.exp(SCALE * q @ k.swapaxes(-1, -2)), 0)
    wide = e / e.sum(-1, keepdims=True)
    ds = wide * (g @ v.swapaxes(-1, -2) - np.sum(g * (wide @ v), -1, keepdims=True))
    close = {"rtol": 1e-13, "atol": 1e-14}
    np.testing.assert_allclose(p, wide, **close)
    np.testing.assert_allclose(o, wide @ v, **close)
    np.testing.assert_allclose(dv, wide.swapaxes(-1, -2) @ g, **close)
    np.testing.assert_allclose(dq, SCALE * ds @ k, **close)
    np.testing.assert_allclose(dk, SCALE * ds.swapaxes(-1, -2) @ q, **close)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_rows_of_p_sum_to_one_within_4_eps(dtype: Any) -> None:
    q, k, v, g = drawn(T=16, S=16, dtype=dtype)
    p = attend(3 * q, 3 * k, v, g, offset=0)[1]
    assert np.all(np.abs(p.astype(np.longdouble).sum(-1) - 1) <= 4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("j", [1, 3, 5])
@pytest.mark.parametrize("which", ["q", "k", "v", "all"])
def test_nothing_in_token_j_reaches_the_tokens_before_it(which: str, j: int, poison: float) -> None:
    """Outputs at i < j, and the gradients of a loss on them, are unchanged to the bit, whatever
    stands in token j.
    """
    q, k, v, g = drawn()
    g[..., j:, :] = 0
    clean = attend(q, k, v, g, offset=0)
    for name, x in (("q", q), ("k", k), ("v", v)):
        if which in (name, "all"):
            x[..., j, :] = poison
    dirty = attend(q, k, v, g, offset=0)
    assert np.array_equal(dirty[0][..., :j, :], clean[0][..., :j, :])
    for a, b in zip(dirty[2:], clean[2:], strict=True):
        assert np.array_equal(a[..., :j, :], b[..., :j, :])


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_stands_behind_a_padding_mask_has_no_influence(poison: float) -> None:
    q, k, v, g = drawn()
    mask = np.ones((6, 6), bool)
    mask[:, 4:] = False
    clean = attend(q, k, v, g, mask)
    k[..., 4:, :] = v[..., 4:, :] = poison
    dirty = attend(q, k, v, g, mask)
    assert np.array_equal(clean[0], dirty[0]) and np.array_equal(clean[2], dirty[2])
    for i in (3, 4):
        assert np.array_equal(clean[i][..., :4, :], dirty[i][..., :4, :])
        assert np.array_equal(dirty[i][..., 4:, :], np.zeros_like(q[..., 4:, :]))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("hidden_by", ["the causal edge", "a mask", "a float mask"])
@pytest.mark.parametrize("op", ["attention", "dropout", "weights"])
def test_what_is_hidden_changes_no_second_derivative_to_the_bit(
    op: str, hidden_by: str, poison: float
) -> None:
    """Nor a first one that can be differentiated again. Under the causal edge, what is asked for is
    what comes before the poison.
    """
    j, causal = 4, hidden_by == "the causal edge"
    hidden = np.arange(6) >= j
    mask = {"a mask": ~hidden, "a float mask": np.where(hidden, -np.inf, 0.25)}.get(hidden_by)
    kept = np.random.default_rng(7).random((2, 3, 6, 6)) < 0.6
    answers = []
    for value in (3.0, poison):
        arrays = drawn()[:3]
        for x in arrays if causal else arrays[1:]:
            x[..., j:, :] = value
        leaves = [Tensor(x, requires_grad=True) for x in arrays]
        options: dict[str, Any] = {"scale": SCALE, "offset": 0 if causal else None}
        masks = [] if mask is None else [mask]
        if op == "weights":
            y = ops.attention(*leaves, *masks, **options)[1]
            leaves = leaves[:2]
        elif op == "attention":
            y = ops.attention(*leaves, *masks, **options)[0]
        else:
            y = ops.attention(*leaves, *(masks or [None]), kept, **options, factor=2.0)[0]
        rng = np.random.default_rng(5)
        g = rng.normal(size=y.shape)
        g[..., j if causal else 6 :, :] = 0
        first = minigrad.grad(y, leaves, Tensor(g), create_graph=True)
        asked = [
            np.where(hidden[:, None] & (causal or x is not leaves[0]), 0, rng.normal(size=x.shape))
            for x in leaves
        ]
        second = minigrad.grad(
            sum((f * f * Tensor(a)).sum() for f, a in zip(first, asked, strict=True)), leaves
        )
        answers.append([x.numpy()[..., :j, :] for x in (*first, *second)])
    for clean, poisoned in zip(*answers, strict=True):
        assert np.isfinite(clean).all() and clean.any() and np.array_equal(clean, poisoned)


def test_a_nan_that_is_looked_at_is_seen() -> None:
    """The other side of hiding: a NaN in a value or key within sight must come out, in the output
    and in the gradients.
    """
    q, k, v, g = drawn()
    v[..., 2, 0] = np.nan
    o, _, dq, dk, _ = attend(q, k, v, g, offset=0)
    assert (
        np.isnan(o[..., 2:, 0]).all()
        and np.isfinite(o[..., :2, :]).all()
        and np.isfinite(o[..., 1:]).all()
    )
    assert (
        np.isnan(dq[..., 2:, :]).all()
        and np.isfinite(dq[..., :2, :]).all()
        and np.isnan(dk[..., :2, :]).all()
    )


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_row_that_sees_nothing_is_zero_with_zero_gradients(kind: str) -> None:
    q, k, v, g = drawn()
    seen = np.ones((6, 6), bool)
    seen[2] = False
    mask = seen if kind == "bool" else np.where(seen, 0.0, -np.inf)
    o, p, dq, dk, dv = attend(q, k, v, g, mask)
    assert not o[..., 2, :].any() and not p[..., 2, :].any() and not dq[..., 2, :].any()
    assert all(np.isfinite(x).all() for x in (o, p, dq, dk, dv))
    without = attend(np.delete(q, 2, -2), k, v, np.delete(g, 2, -2))
    np.testing.assert_allclose(dk, without[3], rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(dv, without[4], rtol=1e-13, atol=1e-14)


def test_everything_hidden_is_zero_everywhere() -> None:
    q, k, v, g = drawn()
    for x in attend(q, k, v, g, np.zeros((6, 6), bool)):
        assert not x.any()


@pytest.mark.parametrize("axis", [0, 1])
def test_batch_and_heads_are_independent_and_permute(axis: int) -> None:
    arrays = drawn()
    order = np.random.default_rng(1).permutation(arrays[0].shape[axis])
    before, after = (
        attend(*arrays, offset=0),
        attend(*(np.take(x, order, axis) for x in arrays), offset=0),
    )
    for a, b in zip(before, after, strict=True):
        assert np.array_equal(np.take(a, order, axis), b)


def test_keys_permute_where_there_is_no_mask() -> None:
    q, k, v, g = drawn()
    order = np.array([3, 0, 5, 1, 4, 2])
    o, p, dq, dk, dv = attend(q, k, v, g)
    o2, p2, dq2, dk2, dv2 = attend(q, k[..., order, :], v[..., order, :], g)
    for a, b in (
        (o, o2),
        (p[..., order], p2),
        (dq, dq2),
        (dk[..., order, :], dk2),
        (dv[..., order, :], dv2),
    ):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-14)


def test_a_mask_and_the_causal_offset_are_anded() -> None:
    q, k, v, g = drawn()
    mask = np.random.default_rng(2).random((6, 6)) < 0.7
    both, one = attend(q, k, v, g, mask, 0), attend(q, k, v, g, mask & np.tri(6, dtype=bool))
    for a, b in zip(both, one, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 1, 1), (2, 0, 3), (0, 2, 3), (5, 1, 2)])
@pytest.mark.parametrize("offset", [None, 0])
def test_the_fused_op_equals_its_composed_form(
    shape: tuple[int, int, int], offset: int | None
) -> None:
    q, k, v, g = drawn(*shape)
    leaves = [Tensor(x, requires_grad=True) for x in (q, k, v)]
    o, _ = ops.attention.composed_form(*leaves, scale=SCALE, offset=offset)
    grads = minigrad.grad(o, leaves, Tensor(g))
    fused = attend(q, k, v, g, offset=offset)
    for a, b in zip((fused[0], *fused[2:]), (o, *grads), strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("poisoned", ["query", "value"])
def test_a_row_that_is_not_finite_leaves_nothing_at_keys_that_it_may_not_see(
    tiled: bool, poisoned: str
) -> None:
    q, k, v, g = drawn()
    if poisoned == "query":
        q[..., 0, :] = np.nan  # which sees key 0 only
    else:
        v[..., 0, :] = np.inf  # which all see
        k, v = k[..., :3, :], v[..., :3, :]
    leaves = [Tensor(x, requires_grad=True) for x in (q, k, v)]
    settings, hidden = (
        ({"offset": 0}, slice(1, None)) if poisoned == "query" else ({}, slice(2, None))
    )
    masks = [] if poisoned == "query" else [Tensor(np.array([True, True, False]))]
    dk, dv = minigrad.grad(
        ops.attention(*leaves, *masks, scale=SCALE, tiled=tiled, **settings)[0], leaves, Tensor(g)
    )[1:]
    assert np.isnan(dk.numpy()[..., 0, :]).any()
    assert (
        np.isfinite(dk.numpy()[..., hidden, :]).all()
        and np.isfinite(dv.numpy()[..., hidden, :]).all()
    )


@pytest.mark.parametrize("shape", [(2, 1, 3, 4), (2, 3, 1, 4), (2, 3, 3, 4)])
def test_merged_heads_are_a_copy_for_one_head_and_one_position_too(shape):
    heads = Tensor(np.ones(shape, np.float32))
    merged = ops.merge_heads(heads)
    heads.mul_(2.0)
    assert merged.data.max() == 1 and merged.data.flags.c_contiguous
