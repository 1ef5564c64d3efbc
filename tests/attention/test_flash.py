"""Tiled attention is plain attention, forward and backward, whatever the shapes, masks and threads;
and its memory grows with T.
"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from minigrad import Tensor, functional as F, manual_seed
from minigrad.errors import ConfigError
from minigrad.ops import parallel, tiles

B = tiles.ROWS
sdpa = F.scaled_dot_product_attention


def heads(T, S=None, H=2, G=None, D=8, E=None, batch=(1,), dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    S, G, E = S or T, G or H, E or D
    return [
        rng.normal(size=(*batch, n, t, d)).astype(dtype)
        for n, t, d in ((H, T, D), (G, S, D), (G, S, E))
    ]


def both(arrays, mask=None, **settings):
    """(output, dq, dk, dv) plain and in tiles."""
    answers = []
    for method in ("plain", "flash"):
        leaves = [Tensor(x, requires_grad=True) for x in arrays]
        y = sdpa(*leaves, mask, method=method, **settings)
        y.backward(np.random.default_rng(9).normal(size=y.shape))
        answers.append([y.data, *(x.grad.data for x in leaves)])
    return answers


def assert_close(answers):
    for plain, tiled in zip(*answers, strict=True):
        eps = np.finfo(plain.dtype).eps
        assert np.abs(plain - tiled).max(initial=0) <= 256 * eps * max(
            1, np.abs(plain).max(initial=0)
        )


@pytest.mark.parametrize("T", [1, 2, B - 1, B, B + 1, 2 * B, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_length_around_a_tile(T, dtype):
    assert_close(both(heads(T, D=7, dtype=dtype), is_causal=True))
    assert_close(both(heads(T, D=7, E=3, dtype=dtype)))


@settings(deadline=None, max_examples=60)
@given(
    T=st.integers(1, 300),
    S=st.integers(1, 700),
    groups=st.sampled_from([(4, 4), (4, 2), (6, 1)]),
    causal=st.booleans(),
    corner=st.sampled_from(["upper_left", "lower_right"]),
    window=st.none() | st.integers(1, 800),
    alibi=st.booleans(),
    mask=st.sampled_from([None, "padding", "bool", "float"]),
    seed=st.integers(0, 99),
)
def test_every_mixture_of_masks_windows_and_groups(
    T, S, groups, causal, corner, window, alibi, mask, seed
):
    H, G = groups
    rng = np.random.default_rng(seed)
    full = {
        None: None,
        "padding": np.arange(S) < rng.integers(0, S + 1, size=(2, 1, 1, 1)),
        "bool": rng.random((H, T, S)) < 0.7,
        "float": np.where(rng.random((2, 1, T, S)) < 0.7, rng.normal(size=(2, 1, T, S)), -np.inf),
    }[mask]
    arrays = heads(T, S, H, G, D=5, batch=(2,), seed=seed)
    slopes = F.alibi_slopes(H) if alibi else None
    assert_close(
        both(
            arrays,
            full,
            is_causal=causal,
            causal=corner,
            window=window,
            alibi=slopes,
            enable_gqa=True,
        )
    )


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_poison_behind_the_mask_changes_nothing_to_the_bit(poison, dtype):
    T, j = 2 * B + 9, B + 17
    g = np.random.default_rng(5).normal(size=(1, 2, T, 8)).astype(dtype)
    g[:, :, j:] = 0
    for method in ("plain", "flash"):
        answers = []
        for value in (None, poison):
            arrays = heads(T, dtype=dtype)
            for x in arrays:
                x[:, :, j] = x[:, :, j] if value is None else value
            leaves = [Tensor(x, requires_grad=True) for x in arrays]
            y = sdpa(*leaves, is_causal=True, method=method)
            y.backward(g)
            answers.append([y.data[:, :, :j], *(x.grad.data[:, :, :j] for x in leaves)])
        for clean, poisoned in zip(*answers, strict=True):
            assert np.isfinite(clean).all() and np.array_equal(clean, poisoned)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("method", ["plain", "flash"])
def test_poisoned_padding_keys_change_nothing_to_the_bit(poison, method):
    answers = []
    for value in (3.0, poison):
        arrays = heads(200)
        arrays[1][:, :, 150:], arrays[2][:, :, 150:] = value, value
        leaves = [Tensor(x, requires_grad=True) for x in arrays]
        y = sdpa(*leaves, np.arange(200) < 150, method=method)
        y.backward(np.ones(y.shape))
        answers.append([y.data, *(x.grad.data for x in leaves)])
    for clean, poisoned in zip(*answers, strict=True):
        assert np.array_equal(clean, poisoned)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", ["plain", "flash"])
@pytest.mark.parametrize("hidden_by", ["the causal edge", "the window", "a mask", "a float mask"])
def test_poison_behind_the_mask_changes_no_second_derivative_to_the_bit(hidden_by, method, poison):
    T, j = 7, 4
    causal, rng = hidden_by in ("the causal edge", "the window"), np.random.default_rng(5)
    g, w = rng.normal(size=(2, 1, 2, T, 8))
    g[..., j * causal + T * (not causal) :, :] = 0  # what the later queries see is not asked for
    hidden = np.arange(T) >= j
    mask = {"a mask": ~hidden, "a float mask": np.where(hidden, -np.inf, 0.25)}.get(hidden_by)
    answers = []
    for value in (3.0, poison):
        arrays = heads(T)
        for x in arrays if causal else arrays[1:]:
            x[:, :, j : j + 1 if causal else T] = value
        leaves = [Tensor(x, requires_grad=True) for x in arrays]
        y = sdpa(
            *leaves,
            mask,
            is_causal=causal,
            window=2 if hidden_by == "the window" else None,
            method=method,
        )
        first = y.gradient(*leaves, gradient=Tensor(g), create_graph=True)
        asked = [
            Tensor(np.where(hidden[:, None] & (causal or x is not leaves[0]), 0, w)) for x in leaves
        ]
        second = sum((f * f * a).sum() for f, a in zip(first, asked, strict=True)).gradient(*leaves)
        answers.append([x.data[:, :, :j] for x in (*first, *second)])
    for clean, poisoned in zip(*answers, strict=True):
        assert np.isfinite(clean).all() and clean.any() and np.array_equal(clean, poisoned)


@pytest.mark.parametrize("method", ["plain", "flash"])
def test_rows_that_see_nothing_are_zero_with_zero_gradients(method):
    q, k, v = (Tensor(x, requires_grad=True) for x in heads(9))
    seen = np.ones((9, 9), bool)
    seen[[2, 5]] = False
    y = sdpa(q, k, v, seen, method=method)
    y.backward(np.ones(y.shape))
    assert not y.data[:, :, [2, 5]].any() and not q.grad.data[:, :, [2, 5]].any()
    q, k, v = (Tensor(x, requires_grad=True) for x in heads(9))
    y = sdpa(q, k, v, np.zeros(9, bool), method=method)
    y.backward(np.ones(y.shape))
    assert not any(x.any() for x in (y.data, q.grad.data, k.grad.data, v.grad.data))


@pytest.mark.parametrize("method", ["plain", "flash"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0, 1e4])
def test_scores_of_any_size(method, scale):
    """The plain op's softmax without a maximum must notice where it needs one, row by row."""
    q, k, v = heads(70)
    q[:, 0, 40:] *= scale
    y = sdpa(Tensor(q), Tensor(k), Tensor(v), is_causal=True, method=method).data
    s = np.where(np.tri(70, dtype=bool), q @ k.swapaxes(-1, -2) / np.sqrt(8), -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    assert np.abs(y - p / p.sum(-1, keepdims=True) @ v).max() < 1e-11 * max(1, scale / 100)


@pytest.mark.parametrize("method", ["plain", "flash"])
@pytest.mark.parametrize("shift", [-1e4, -100.0, -95.0, -60.0, 60.0, 85.0, 100.0, 1e4])
def test_scores_shifted_out_of_the_range_of_exp_in_float32(method, shift):
    q, k, v = heads(9, dtype=np.float32)
    want = sdpa(Tensor(q), Tensor(k), Tensor(v), scale=1.0).data
    q, k = (
        np.concatenate([x, np.full((1, 2, 9, 1), n, np.float32)], -1)
        for x, n in ((q, 1), (k, shift))
    )
    got = sdpa(Tensor(q), Tensor(k), Tensor(v), scale=1.0, method=method).data
    assert (
        np.abs(got - want).max()
        < 8 * np.finfo(np.float32).eps * max(8, abs(shift)) * np.abs(v).max()
    )


@pytest.mark.parametrize("method", ["plain", "flash"])
@pytest.mark.parametrize("size", [1.0, 1e2, 1e4, -1e4, 1e6, 1e8, -1e8, 1e10])
def test_gradients_in_float32_have_their_digits_beside_scores_of_any_size(method, size):
    """The scores are `size` and small multiples of its last digit, so that rounding has no part in
    them.
    """
    T, digit = B + 9, max(np.spacing(np.float32(abs(size))), 2**-6)
    rng = np.random.default_rng(0)
    q, k = rng.integers(-2, 3, size=(2, 1, 2, T, 3)).astype(np.float32)
    q[..., 0], k[..., 0] = 1, size
    q[..., 1:] *= digit
    v, g = rng.normal(size=(2, 1, 2, T, 3)).astype(np.float32)
    leaves = [Tensor(x, requires_grad=True) for x in (q, k, v)]
    sdpa(*leaves, is_causal=True, scale=1.0, method=method).backward(g)
    q, k, v, g = (x.astype(np.float64) for x in (q, k, v, g))
    s = np.where(np.tri(T, dtype=bool), q @ k.swapaxes(-1, -2), -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    dp = g @ v.swapaxes(-1, -2)
    ds = p * (dp - (dp * p).sum(-1, keepdims=True))
    for x, want in zip(
        leaves, (ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ g), strict=True
    ):
        error = np.abs(x.grad.data - want).max((0, 1, 2)) / np.abs(want).max()
        assert (error < 1e-6)[
            x is leaves[0] :
        ].all()  # dq in the direction of `size` is a sum of terms of that size that cancel


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gradients_of_16_bit_tensors_are_as_close_in_tiles_as_in_the_plain_form(dtype):
    q, k, v = (Tensor(8 * x, dtype=dtype) for x in heads(B + 9))
    found = []
    for method, kind in (("plain", "float64"), ("plain", dtype), ("flash", dtype)):
        leaves = [x.cast(kind).detach().requires_grad_() for x in (q, k, v)]
        y = sdpa(*leaves, is_causal=True, scale=1.0, method=method)
        assert y.dtype == leaves[0].dtype
        y.sum().backward()
        found.append([x.grad.numpy().astype(np.float64) for x in leaves])
    for want, plain, tiled in zip(*found, strict=True):
        assert np.abs(tiled - want).max() <= max(
            np.abs(plain - want).max(), 2**-9 * np.abs(want).max()
        )


def test_heads_batch_and_keys_may_be_permuted():
    arrays, order = heads(150, H=3, batch=(2,)), np.array([2, 0, 1])
    for method in ("plain", "flash"):
        y = sdpa(*map(Tensor, arrays), is_causal=True, method=method).data
        assert np.array_equal(
            sdpa(*(Tensor(x[::-1][:, order]) for x in arrays), is_causal=True, method=method).data,
            y[::-1][:, order],
        )
        keys = np.random.default_rng(0).permutation(150)
        free = sdpa(*map(Tensor, arrays), method=method).data
        q, k, v = arrays
        assert (
            np.abs(
                sdpa(Tensor(q), Tensor(k[:, :, keys]), Tensor(v[:, :, keys]), method=method).data
                - free
            ).max()
            < 1e-14
        )


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 7])
def test_any_number_of_threads_gives_the_same_bits(threads):
    arrays = heads(400, H=3, batch=(2,), dtype=np.float32)
    before = parallel.get_num_threads()
    answers = []
    try:
        for n in (2, threads):
            parallel.set_num_threads(n)
            leaves = [Tensor(x, requires_grad=True) for x in arrays]
            y = sdpa(*leaves, is_causal=True, method="flash")
            y.backward(np.ones(y.shape, np.float32))
            answers.append([y.data, *(x.grad.data for x in leaves)])
    finally:
        parallel.set_num_threads(0)
    assert parallel.get_num_threads() == before
    for one, other in zip(*answers, strict=True):
        assert np.array_equal(one, other)


def test_the_number_of_threads_is_what_was_set_else_the_variable_else_the_cores(monkeypatch):
    monkeypatch.delenv("MINIGRAD_THREADS", raising=False)
    assert parallel.get_num_threads() == parallel.cores()
    monkeypatch.setenv("MINIGRAD_THREADS", "5")
    assert parallel.get_num_threads() == 5
    parallel.set_num_threads(3)
    assert parallel.get_num_threads() == 3
    parallel.set_num_threads(0)
    monkeypatch.setenv("MINIGRAD_THREADS", "few")
    with pytest.raises(ConfigError, match="MINIGRAD_THREADS"):
        parallel.get_num_threads()


def test_an_error_in_a_thread_is_raised_and_the_threads_go_on():
    def work(i):
        if i == 3:
            raise ValueError("three")

    for _ in range(2):
        with pytest.raises(ValueError, match="three"):
            parallel.for_each(work, range(8))
    done = []
    parallel.for_each(done.append, range(50))
    assert sorted(done) == list(range(50))
    with pytest.raises(ConfigError):
        parallel.set_num_threads(-1)


def test_memory_grows_with_t_and_not_with_its_square():
    def peak(T):
        leaves = [Tensor(x, requires_grad=True) for x in heads(T, D=16, dtype=np.float32)]
        tracemalloc.start()
        sdpa(*leaves, is_causal=True, method="flash").sum().backward()
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert (
        peak(2048) < 2048 * 2048 * 4
    )  # a quarter of the probabilities of two heads and their gradient
    assert peak(4096) < 2.2 * peak(2048)


@pytest.mark.parametrize("method", ["plain", "flash"])
@pytest.mark.parametrize("causal", [True, False])
def test_scores_outside_a_window_are_not_computed(method, causal, monkeypatch):
    T, W, fill, computed = 5 * B, 20, tiles.Operands.fill, []

    def counted(self, q, tile, out, careful):
        computed.append(out.size)
        return fill(self, q, tile, out, careful)

    monkeypatch.setattr(tiles.Operands, "fill", counted)
    sdpa(*(Tensor(x) for x in heads(T, H=1)), is_causal=causal, window=W, method=method)
    assert T * W <= sum(computed) <= T * (B + 2 * W)


def test_auto_takes_tiles_when_the_probabilities_are_many():
    small, large = (
        sdpa(*(Tensor(x, requires_grad=True) for x in heads(T, D=2, H=8, dtype=np.float32)))
        for T in (8, 1024)
    )
    assert ["tiled" in y._node.params for y in (small, large)] == [False, True]


def test_second_derivatives_go_through_the_composed_form():
    grads = []
    for method in ("plain", "flash"):
        leaves = [Tensor(x, requires_grad=True) for x in heads(5, H=4, G=2)]
        y = sdpa(
            *leaves,
            is_causal=True,
            window=3,
            alibi=F.alibi_slopes(4),
            enable_gqa=True,
            method=method,
        )
        (g,) = y.sum().gradient(leaves[0], create_graph=True)
        grads.append([x.data for x in (g * g).sum().gradient(*leaves)])
    for plain, tiled in zip(*grads, strict=True):
        assert np.abs(plain).max() > 0 and np.allclose(plain, tiled, atol=1e-12)


def test_dropout_and_learned_biases_are_the_same_in_tiles():
    found = []
    for method in ("plain", "flash"):
        manual_seed(4)
        leaves = [Tensor(x, requires_grad=True) for x in heads(B + 9, H=4, G=2)]
        bias = Tensor.zeros(4, B + 9, B + 9, dtype="float64", requires_grad=True)
        y = sdpa(*leaves, None, 0.3, True, enable_gqa=True, window=70, bias=bias, method=method)
        (y * y).sum().backward()
        found.append([y.data, *(x.grad.data for x in (*leaves, bias))])
    assert_close(found)


def test_what_tiles_cannot_do_is_said():
    q, k, v = (Tensor(x, requires_grad=True) for x in heads(4))
    with pytest.raises(ConfigError, match="plain"):
        sdpa(q, k, v, return_weights=True, method="flash")
    with pytest.raises(ConfigError):
        sdpa(q, k, v, method="fast")
    with pytest.raises(ConfigError):
        sdpa(q, k, v, window=0)
