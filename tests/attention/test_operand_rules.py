"""What scaled_dot_product_attention makes of its operands: masks, biases, dtypes, leading axes,
dropout and weights.
"""

from __future__ import annotations

import numpy as np
import pytest

from minigrad import Tensor, functional as F, manual_seed, nn, no_grad
from minigrad.errors import ConfigError, DTypeError, MaskError, ShapeError
from minigrad.testing import gradcheck, gradgradcheck

attend = F.scaled_dot_product_attention


def draw(*shape, seed=0, dtype=np.float64, **kw):
    return Tensor(np.random.default_rng(seed).normal(size=shape).astype(dtype), **kw)


def three(*shape, dtype=np.float64, requires_grad=False):
    return [draw(*shape, seed=seed, dtype=dtype, requires_grad=requires_grad) for seed in (1, 2, 3)]


def plainly(q, k, v, mask=None, causal=False, bias=0.0):
    """The formula, and nothing else."""
    s = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]) + bias
    seen = np.ones(s.shape, bool) if mask is None else np.broadcast_to(mask, s.shape)
    seen = seen & np.tri(*s.shape[-2:], dtype=bool) if causal else seen
    s = np.where(seen, s, -np.inf)
    top = s.max(-1, keepdims=True)
    p = np.exp(s - np.where(top == -np.inf, 0, top))
    total = p.sum(-1, keepdims=True)
    p /= np.where(total == 0, 1, total)
    return p @ v, p


# --- what is hidden


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e38])
@pytest.mark.parametrize("masked", ["bool", "float", "causal"])
@pytest.mark.parametrize(
    "kw",
    [{"dropout_p": 0.3}, {"return_weights": True}, {"return_weights": True, "dropout_p": 0.3}],
    ids=str,
)
def test_what_is_hidden_has_no_influence_with_dropout_and_weights_either(kw, masked, poison, dtype):
    T, last = 5, 3
    seen = np.arange(T) < last
    settings = {
        "bool": {"attn_mask": Tensor(seen)},
        "float": {"attn_mask": Tensor(np.where(seen, 0, -np.inf).astype(dtype))},
        "causal": {"is_causal": True},
    }[masked]

    def run(value):
        operands = three(2, 2, T, 4, dtype=dtype)
        for x in operands[1:]:
            x.data[..., last:, :] = value
        operands = [Tensor(x.data, requires_grad=True) for x in operands]
        manual_seed(3)
        out = attend(*operands, **settings, **kw)
        parts = [
            y[..., :last, :] if masked == "causal" else y
            for y in (out if isinstance(out, tuple) else (out,))
        ]
        loss = sum((y * draw(*y.shape, seed=9, dtype=dtype)).sum() for y in parts)
        loss.backward()
        rows = slice(0, last) if masked == "causal" else slice(None)
        return (
            [y.data for y in parts]
            + [operands[0].grad.data[..., rows, :]]
            + [x.grad.data[..., :last, :] for x in operands[1:]]
        )

    for clean, poisoned in zip(run(0.5), run(poison), strict=True):
        assert np.isfinite(poisoned).all() and np.array_equal(clean, poisoned)


@pytest.mark.parametrize("masked", [None, "bool", "float", "causal"])
def test_dropout_is_the_formula_with_weights_left_out(masked):
    rng, (q, k, v) = np.random.default_rng(5), three(2, 3, 70, 4)
    seen = rng.random((70, 70)) < 0.5
    mask = {"bool": Tensor(seen), "float": Tensor(np.where(seen, 0.0, -np.inf))}.get(masked)
    manual_seed(1)
    y, weights = attend(q, k, v, mask, 0.25, is_causal=masked == "causal", return_weights=True)
    manual_seed(1)
    kept = F.dropout(Tensor.ones(2, 3, 70, 70), 0.25).data != 0
    _, p = plainly(q.data, k.data, v.data, None if mask is None else seen, masked == "causal")
    assert np.abs(weights.data - p).max() < 1e-14
    assert np.abs(y.data - (p * kept / 0.75) @ v.data).max() < 1e-13
    assert not attend(q, k, v, dropout_p=1.0).data.any()


def test_gradients_through_dropout_and_weights_are_exact():
    seen = Tensor(np.random.default_rng(5).random((4, 5)) < 0.6)
    q, k, v = draw(2, 4, 3, seed=1), draw(2, 5, 3, seed=2), draw(2, 5, 3, seed=3)
    bias = draw(2, 4, 5, seed=4)

    def dropped(q, k, v, bias):
        manual_seed(7)
        return attend(q, k, v, seen, 0.4, bias=bias)

    def weights(q, k, v, bias):
        y, weights = attend(q, k, v, seen, bias=bias, return_weights=True)
        return y.sum() + (weights * weights).sum(axis=-1)

    for function in (dropped, weights):
        operands = [Tensor(x.data, requires_grad=True) for x in (q, k, v, bias)]
        assert gradcheck(function, operands)
        assert gradgradcheck(function, operands)


# --- masks and biases


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("cached", [False, True])
def test_an_ambiguous_mask_is_refused_where_there_are_lengths_too(dtype, cached):
    layer, x = nn.MultiHeadAttention(8, 2).eval(), draw(2, 5, 8, dtype=np.float32)
    cache = nn.KVCache() if cached else None
    with no_grad(), pytest.raises(MaskError, match="ambiguous"):
        layer(x, mask=np.tril(np.ones((5, 5), dtype)), lengths=[5, 3], cache=cache)


def test_a_mask_of_zeros_and_ones_is_found_wherever_its_zeros_are():
    q, k = draw(1, 1, 1, 8), draw(1, 1, 5000, 8)
    mask = np.ones((1, 5000))
    attend(q, k, k, mask)  # adding the same to all is harmless
    mask[0, 4500:] = 0
    with pytest.raises(MaskError, match="bias="):
        attend(q, k, k, mask)
    mask[0, 4999] = -np.inf
    attend(q, k, k, mask)


def test_a_mask_may_be_an_array_where_the_queries_are_a_parameter():
    q, k, v = three(2, 3, 4)
    seen = np.tri(3, dtype=bool)
    y = attend(nn.Parameter(q.data, dtype="float64"), k, v, seen, bias=np.full((3, 3), 0.5))
    assert np.allclose(y.data, plainly(q.data, k.data, v.data, seen, bias=0.5)[0])
    assert y.requires_grad


@pytest.mark.parametrize("method", ["plain", "flash"])
def test_a_bias_of_another_shape_or_kind_is_refused(method):
    q = draw(1, 2, 3, 4)
    for bias in (
        np.ones((7, 7)),
        np.ones((3, 7)),
        np.ones((2, 2)),
        np.ones((5, 3, 3)),
        np.ones((3, 3), bool),
        np.ones((3, 3), int),
    ):
        with pytest.raises(MaskError, match="bias"):
            attend(q, q, q, bias=bias, method=method)


@pytest.mark.parametrize("method", ["plain", "flash"])
def test_alibi_wants_a_slope_per_head(method):
    q = draw(1, 4, 3, 4)
    for slopes in ([0.5], [0.5, 0.1], [0.5] * 3, 0.5, ["a"] * 4, [[0.5] * 4]):
        with pytest.raises(ConfigError, match="4 heads"):
            attend(q, q, q, is_causal=True, alibi=slopes, method=method)
    one = draw(3, 4)
    away = np.abs(np.arange(3)[:, None] - np.arange(3))
    assert np.allclose(
        attend(one, one, one, is_causal=True, alibi=[0.5], method=method).data,
        plainly(one.data, one.data, one.data, None, True, -0.5 * away)[0],
    )


# --- dtypes


HALF_SETTINGS = [
    {"is_causal": True, "window": 2},
    {"alibi": [0.5, 0.2]},
    {"is_causal": True, "return_weights": True},
    {"dropout_p": 0.2},
    {"attn_mask": np.triu(np.full((5, 5), -np.inf), 1)},
    {"attn_mask": Tensor(np.triu(np.full((5, 5), -np.inf), 1), dtype="bfloat16")},
    {"bias": np.ones((5, 5), np.float32)},
    {"bias": Tensor.ones(5, 5, dtype="bfloat16"), "attn_mask": np.tri(5, dtype=bool)},
]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("kw", HALF_SETTINGS, ids=lambda kw: ",".join(kw))
def test_the_result_has_the_dtype_of_q(dtype, kw):
    q, k, v = (Tensor(x.data, dtype=dtype, requires_grad=True) for x in three(1, 2, 5, 4))
    manual_seed(2)
    y = attend(q, k, v, **kw)
    manual_seed(2)
    wide = attend(*(x.detach().cast("float64") for x in (q, k, v)), **kw)
    if isinstance(y, tuple):
        assert y[1].dtype == q.dtype
        y, wide = y[0], wide[0]
    y.sum().backward()
    assert y.dtype == q.dtype and q.grad.dtype == q.dtype
    assert (
        np.abs(y.cast("float64").data - wide.data).max()
        < {"float16": 4e-3, "bfloat16": 3e-2, "float32": 1e-5}[dtype]
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    "kind", [{"window": 4}, {"alibi": True}, {"window": 3, "alibi": True}], ids=str
)
def test_models_of_16_bits_with_windows_or_slopes_decode(dtype, kind):
    blocks = [nn.TransformerBlock(16, 2, **kind).to(dtype).eval() for _ in range(2)]
    caches = [block.attn.make_cache() for block in blocks]
    x = draw(1, 9, 16).cast(dtype)

    def run(x, caches):
        for block, cache in zip(blocks, caches, strict=True):
            x = block(x, cache=cache)
        return x

    with no_grad():
        whole = run(x, [None, None])
        parts = [run(x[:, :4], caches), *(run(x[:, t : t + 1], caches) for t in range(4, 9))]
    assert all(part.dtype == x.dtype for part in (whole, *parts))
    assert (
        np.abs(
            np.concatenate([part.cast("float32").data for part in parts], 1)
            - whole.cast("float32").data
        ).max()
        < 0.1
    )


# --- shapes


@pytest.mark.parametrize("method", ["plain", "flash"])
@pytest.mark.parametrize(
    "shapes",
    [
        ((1, 2, 5, 4), (3, 2, 6, 4), (3, 2, 6, 4), None),
        ((3, 2, 5, 4), (1, 2, 6, 4), (3, 1, 6, 4), None),
        ((5, 4), (6, 4), (6, 4), (3, 2, 5, 6)),
        ((1, 2, 5, 4), (1, 2, 6, 4), (1, 2, 6, 4), (3, 1, 5, 6)),
        ((2, 5, 4), (2, 6, 4), (2, 6, 4), (3, 2, 5, 6)),
        ((5, 4), (2, 6, 4), (6, 4), None),
    ],
    ids=str,
)
def test_leading_axes_broadcast(shapes, method):
    q, k, v = (draw(*shape, seed=i, requires_grad=True) for i, shape in enumerate(shapes[:3]))
    bias = 0.0 if shapes[3] is None else draw(*shapes[3], seed=7).data
    y = attend(q, k, v, None if shapes[3] is None else Tensor(bias), method=method)
    wanted, p = plainly(q.data, k.data, v.data, bias=bias)
    assert y.shape == wanted.shape and np.abs(y.data - wanted).max() < 1e-13
    y.sum().backward()
    assert [x.grad.shape for x in (q, k, v)] == [x.shape for x in (q, k, v)]
    if method == "plain":
        weights = attend(q, k, v, None if shapes[3] is None else Tensor(bias), return_weights=True)[
            1
        ]
        assert weights.shape == p.shape and np.abs(weights.data - p).max() < 1e-14


@pytest.mark.parametrize("method", ["plain", "flash"])
def test_groups_broadcast_too(method):
    q, k, v = draw(1, 6, 5, 4), draw(3, 2, 6, 4, seed=1), draw(3, 2, 6, 4, seed=2)
    y = attend(q, k, v, enable_gqa=True, method=method)
    assert (
        np.abs(y.data - plainly(q.data, np.repeat(k.data, 3, 1), np.repeat(v.data, 3, 1))[0]).max()
        < 1e-13
    )


@pytest.mark.parametrize(
    "kind", [{"n_kv_head": 1}, {"n_kv_head": 2}, {}, {"n_kv_head": 2, "rope": "half"}], ids=str
)
def test_no_positions_give_no_positions(kind):
    layer = nn.MultiHeadAttention(16, 4, **kind)
    assert layer(Tensor.zeros(3, 0, 16)).shape == (3, 0, 16)
    if "rope" not in kind:
        assert layer(Tensor.zeros(3, 0, 16), Tensor.zeros(3, 2, 16)).shape == (3, 0, 16)
        y = layer(Tensor.zeros(3, 2, 16), Tensor.zeros(3, 0, 16))
        assert y.shape == (3, 2, 16) and np.array_equal(
            y.data, np.broadcast_to(layer.out_proj.bias.data, y.shape)
        )


# --- errors


def test_what_cannot_be_attended_to_is_refused_in_words():
    q = draw(1, 4, 3, 4)
    for operands in (
        (q.data, q, q),
        (q, None, q),
        (q, q, [[1.0]]),
        [Tensor(np.ones((1, 2, 3, 4), np.int64))] * 3,
    ):
        with pytest.raises(DTypeError):
            attend(*operands)
    for kw in (
        {"scale": "x"},
        {"scale": True},
        {"window": 1.5},
        {"window": True},
        {"window": 0},
        {"is_causal": "lower_right"},
        {"dropout_p": "a"},
        {"dropout_p": -0.1},
        {"dropout_p": 1.5},
        {"dropout_p": float("nan")},
    ):
        with pytest.raises(ConfigError, match=next(iter(kw))):
            attend(q, q, q, **kw)
    with pytest.raises(ShapeError, match="enable_gqa=True"):
        attend(q, q[:, :2], q[:, :2])
    with pytest.raises(ShapeError, match="heads"):
        attend(q, q[:, :3], q[:, :3], enable_gqa=True)
    for mask in (np.ones((5, 3, 3), bool), np.ones((2, 3), bool)):
        with pytest.raises(MaskError, match="broadcast"):
            attend(q, q, q, mask)
    for n_head in (0, -3, 2.0):
        with pytest.raises(ConfigError):
            F.alibi_slopes(n_head)


@pytest.mark.parametrize("integer", [np.int32, np.int64, np.uint8, np.array])
@pytest.mark.parametrize("real", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("method", ["plain", "flash"])
def test_numpy_numbers_are_taken_as_python_numbers(integer, real, method):
    q, plain = draw(1, 2, 5, 4), {"scale": 0.5, "dropout_p": 0.25, "window": 2}
    found = []
    for kw in (
        plain,
        {"scale": real(0.5), "dropout_p": real(0.25), "window": integer(2)},
    ):
        manual_seed(1)
        y = attend(q, q, q, is_causal=True, alibi=[0.5, 0.25], method=method, **kw)
        assert y.dtype == np.float64
        found.append(y.data)
    assert np.array_equal(*found)
    for wrong in ({"window": np.True_}, {"scale": np.True_}, {"window": np.float64(2)}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            attend(q, q, q, is_causal=True, method=method, **wrong)
