"""The attention layer: its formula, what it may see, and its gradients."""

import copy
import pickle

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, nn, no_grad, ops
from minigrad.errors import CacheError, ConfigError, ShapeError


def layer(n_embd=12, n_head=3, **settings):
    minigrad.manual_seed(1)
    return nn.MultiHeadAttention(n_embd, n_head, **settings).to("float64")


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def by_hand(attention, x, allowed):
    """The layer written with loops over batch and heads, in numpy."""
    B, _, C = x.shape
    D = C // attention.n_head
    qkv = x @ attention.in_proj_weight.data.T + attention.in_proj_bias.data
    y = np.zeros_like(x)
    for b in range(B):
        for h in range(attention.n_head):
            q, k, v = (qkv[b, :, i * C + h * D : i * C + (h + 1) * D] for i in range(3))
            s = np.where(allowed, q @ k.T / np.sqrt(D), -np.inf)
            p = np.exp(s - s.max(-1, keepdims=True))
            y[b, :, h * D : (h + 1) * D] = p / p.sum(-1, keepdims=True) @ v
    return y @ attention.out_proj.weight.data.T + attention.out_proj.bias.data


@pytest.mark.parametrize("T", [1, 2, 7])
@pytest.mark.parametrize("causal", [True, False])
def test_the_layer_is_its_formula(T, causal):
    attention, x = layer(causal=causal), data(2, T, 12)
    attention.in_proj_bias.data[:] = data(36, seed=1)
    allowed = np.tri(T, dtype=bool) if causal else np.ones((T, T), bool)
    assert np.allclose(attention(Tensor(x)).data, by_hand(attention, x, allowed), atol=1e-12)


def test_a_mask_and_causality_both_hold():
    attention, x = layer(), data(2, 5, 12)
    mask = np.ones((5, 5), bool)
    mask[:, 1] = False
    mask[0, 1] = mask[1, 0] = True
    got = attention(Tensor(x), mask=Tensor(mask)).data
    assert np.allclose(got, by_hand(attention, x, mask & np.tri(5, dtype=bool)), atol=1e-12)
    added = np.where(mask, 0.0, -np.inf)
    assert np.allclose(attention(Tensor(x), mask=Tensor(added)).data, got, atol=1e-12)


def test_its_parameters_have_pytorchs_names_and_shapes():
    shapes = {name: p.shape for name, p in layer().named_parameters()}
    assert shapes == {
        "in_proj_weight": (36, 12),
        "in_proj_bias": (36,),
        "out_proj.weight": (12, 12),
        "out_proj.bias": (12,),
    }
    assert [name for name, _ in layer(bias=False).named_parameters()] == [
        "in_proj_weight",
        "out_proj.weight",
    ]


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_nothing_leaks_from_a_later_position_forward_or_backward(poison):
    attention, x, j = layer(), data(2, 8, 12), 5
    g = data(2, 8, 12, seed=1)
    g[:, j:] = 0
    clean = Tensor(x, requires_grad=True)
    y = attention(clean)
    y.backward(Tensor(g))
    x = x.copy()
    x[:, j] = poison
    spoilt = Tensor(x, requires_grad=True)
    with np.errstate(all="ignore"):
        z = attention(spoilt)
        z.backward(Tensor(g))
    assert np.array_equal(y.data[:, :j], z.data[:, :j])
    assert np.array_equal(clean.grad.data[:, :j], spoilt.grad.data[:, :j])


@pytest.mark.parametrize("T", [1, 6])
def test_gradients_are_those_of_differences(T):
    attention, x = layer(), Tensor(data(2, T, 12), requires_grad=True)
    g = data(2, T, 12, seed=1)
    attention(x).backward(Tensor(g))
    for t in (x, attention.in_proj_weight, attention.in_proj_bias, attention.out_proj.weight):
        v = data(*t.shape, seed=2)
        before, h = t.data.copy(), 1e-6
        values = []
        for sign in (1, -1):
            t.data[...] = before + sign * h * v
            with no_grad():
                values.append((attention(x).data * g).sum())
        t.data[...] = before
        assert (values[0] - values[1]) / (2 * h) == pytest.approx(
            (t.grad.data * v).sum(), rel=1e-7, abs=1e-8
        )


def test_second_derivatives_pass_through_the_heads():
    q = Tensor(data(2, 3, 12), requires_grad=True)
    heads = ops.split_heads(q, n_head=2)
    y = ops.merge_heads(heads[0] * heads[1] * heads[2])
    (first,) = minigrad.grad(y.sum(), q, create_graph=True)
    (second,) = minigrad.grad((first * first).sum(), q)
    Q, K, V = np.split(q.data, 3, axis=-1)
    wanted = [2 * a * (b**2 + c**2) for a, b, c in ((Q, K, V), (K, Q, V), (V, Q, K))]
    assert np.allclose(second.data, np.concatenate(wanted, -1), atol=1e-12)


def test_a_head_that_nobody_uses_gets_a_gradient_of_zero():
    x = Tensor(data(2, 3, 12), requires_grad=True)
    ops.split_heads(x, n_head=2)[1].sum().backward()
    assert np.array_equal(x.grad.data, np.broadcast_to(np.repeat([0.0, 1.0, 0.0], 4), (2, 3, 12)))


def test_heads_are_views_and_share_the_version_of_their_product():
    x = Tensor(data(1, 2, 12))
    heads = ops.split_heads(x, n_head=2)
    assert all(np.shares_memory(h.data, x.data) for h in heads)
    x.assign(0.0)
    assert [h._version[0] for h in heads] == [1, 1, 1]


def test_dropout_on_the_weights_is_for_training_only():
    attention, x = layer(dropout=0.5), Tensor(data(2, 6, 12))
    minigrad.manual_seed(0)
    first = attention(x).data
    minigrad.manual_seed(0)
    assert np.array_equal(attention(x).data, first)
    assert not np.array_equal(attention(x).data, first)
    attention.eval()
    assert np.array_equal(attention(x).data, layer()(x).data)


def test_wrong_shapes_and_heads_are_refused():
    with pytest.raises(ConfigError, match="try n_head=2"):
        nn.MultiHeadAttention(10, 3)
    for shape in ((5, 12), (2, 5, 10)):
        with pytest.raises(ShapeError):
            layer()(Tensor(data(*shape)))
    with pytest.raises(CacheError, match="causal"), no_grad():
        layer(causal=False)(Tensor(data(1, 2, 12)), cache=nn.KVCache(8))


def test_a_layers_own_cache_continues_and_is_never_saved():
    attention, x = layer(), data(1, 6, 12)
    whole = attention(Tensor(x)).data
    attention.enable_kv_cache(6)
    with no_grad():
        parts = [attention(Tensor(x[:, i : i + 2])).data for i in (0, 2, 4)]
    assert np.allclose(np.concatenate(parts, 1), whole, atol=1e-12)
    for twin in (copy.deepcopy(attention), pickle.loads(pickle.dumps(attention))):
        assert np.allclose(twin(Tensor(x)).data, whole, atol=1e-12)
    attention.disable_kv_cache()
    assert np.allclose(attention(Tensor(x)).data, whole, atol=1e-12)


def test_a_block_is_two_residual_sums():
    minigrad.manual_seed(0)
    block, x = nn.TransformerBlock(8, 2), Tensor(data(2, 5, 8).astype(np.float32))
    middle = x + block.attn(block.ln_1(x))
    wanted = middle + block.mlp(block.ln_2(middle))
    assert np.array_equal(block(x).data, wanted.data)
    inside = block.mlp.c_fc(x).data
    gelu = 0.5 * inside * (1 + np.tanh(np.sqrt(2 / np.pi) * (inside + 0.044715 * inside**3)))
    assert np.allclose(
        block.mlp(x).data,
        gelu @ block.mlp.c_proj.weight.data.T + block.mlp.c_proj.bias.data,
        atol=1e-6,
    )
