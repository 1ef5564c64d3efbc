"""Every option of the layer against the same thing written out, or against PyTorch; blocks as
compositions.
"""

from __future__ import annotations

import numpy as np
import pytest

from minigrad import Tensor, functional as F, nn
from minigrad.errors import CacheError, ConfigError, ShapeError
from minigrad.testing import gradcheck

C, T = 16, 7


def randomised(module, seed=0):
    rng = np.random.default_rng(seed)
    module.to("float64")
    module.load_state_dict(
        {n: rng.normal(size=p.shape) * 0.4 for n, p in module.state_dict().items()}
    )
    return module


def data(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


def plain(layer, x, *, seen=None, turn=None, bias=0.0, context=None):
    """The layer in numpy: (y, weights)."""
    w = {n: p.data for n, p in layer.state_dict().items()}
    H, K, D = layer.n_head, layer.n_kv_head, layer.head_dim
    context = x if context is None else context
    rows = np.split(w["in_proj_weight"], [H * D, (H + K) * D])
    shifts = np.split(w["in_proj_bias"], [H * D, (H + K) * D])
    q, k, v = (
        (y @ r.T + b).reshape(*y.shape[:2], -1, D).swapaxes(1, 2)
        for y, r, b in zip((x, context, context), rows, shifts, strict=True)
    )
    if layer.q_norm is not None:
        q, k = (
            y / np.sqrt((y * y).mean(-1, keepdims=True) + 1e-6) * w[f"{n}_norm.weight"]
            for n, y in (("q", q), ("k", k))
        )
    q, k = (q, k) if turn is None else (turn(q), turn(k))
    s = q @ np.repeat(k, H // K, 1).swapaxes(-1, -2) / np.sqrt(D) + bias
    s = s if seen is None else np.where(seen, s, -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    y = (p @ np.repeat(v, H // K, 1)).swapaxes(1, 2).reshape(*x.shape)
    return y @ w["out_proj.weight"].T + w["out_proj.bias"], p


def turned(pairs, base=10000.0):
    """Pairs of features as complex numbers, times exp(i t f)."""

    def turn(x):
        y = x.copy()
        t = np.arange(x.shape[2])
        for n, (i, j) in enumerate(pairs):
            z = (x[..., i] + 1j * x[..., j]) * np.exp(1j * t * base ** (-n / len(pairs)))
            y[..., i], y[..., j] = z.real, z.imag
        return y

    return turn


TRIANGLE = np.tri(T, dtype=bool)
BAND = TRIANGLE & ~np.tri(T, k=-3, dtype=bool)
DISTANCE = np.abs(np.arange(T)[:, None] - np.arange(T))
OPTIONS = [
    ({}, {"seen": TRIANGLE}),
    ({"causal": False}, {}),
    ({"n_kv_head": 2}, {"seen": TRIANGLE}),
    ({"n_kv_head": 1}, {"seen": TRIANGLE}),
    ({"window": 3}, {"seen": BAND}),
    ({"window": 3, "causal": False}, {"seen": DISTANCE < 3}),
    (
        {"alibi": True},
        {
            "seen": TRIANGLE,
            "bias": -np.array([2.0**-2, 2**-4, 2**-6, 2**-8])[:, None, None] * DISTANCE,
        },
    ),
    (
        {"alibi": True, "causal": False},
        {"bias": -np.array([2.0**-2, 2**-4, 2**-6, 2**-8])[:, None, None] * DISTANCE},
    ),
    ({"rope": "half"}, {"seen": TRIANGLE, "turn": turned([(0, 2), (1, 3)])}),
    ({"rope": "interleaved", "n_kv_head": 2}, {"seen": TRIANGLE, "turn": turned([(0, 1), (2, 3)])}),
    (
        {"rope": nn.RotaryEmbedding(4, base=500.0, rotary_dim=2)},
        {"seen": TRIANGLE, "turn": turned([(0, 1)], 500.0)},
    ),
    ({"qk_norm": True, "rope": "half"}, {"seen": TRIANGLE, "turn": turned([(0, 2), (1, 3)])}),
]


@pytest.mark.parametrize(
    ("options", "meaning"),
    OPTIONS,
    ids=lambda x: str(x) if "seen" not in str(x) and "bias" not in str(x) else "",
)
def test_an_option_means_what_its_formula_says(options, meaning):
    layer, x = randomised(nn.MultiHeadAttention(C, 4, **options)), data(2, T, C)
    want, weights = plain(layer, x, **meaning)
    tolerance = 1e-6 if "rope" in options else 1e-12  # tables of angles are float32
    y, p = layer(Tensor(x), return_weights=True)
    assert np.allclose(layer(Tensor(x)).data, want, atol=tolerance)
    assert np.allclose(y.data, want, atol=tolerance) and np.allclose(
        p.data, weights, atol=tolerance
    )
    assert repr(layer) == repr(
        eval(
            repr(layer),
            {"MultiHeadAttention": nn.MultiHeadAttention, "RotaryEmbedding": nn.RotaryEmbedding},
        )
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"n_kv_head": 2, "rope": "half", "qk_norm": True}, {"window": 3, "alibi": True}],
    ids=str,
)
def test_the_gradients_of_the_whole_layer_are_exact(options):
    layer = randomised(nn.MultiHeadAttention(C, 4, **options))
    assert gradcheck(lambda x: layer(x), [Tensor(data(1, 4, C), requires_grad=True)])
    names = [n for n, _ in layer.named_parameters()]
    x, g, u = (
        Tensor(data(2, 5, C)),
        data(2, 5, C, seed=3),
        {n: data(*p.shape, seed=4) for n, p in layer.named_parameters()},
    )
    layer(x).backward(g)
    slope = sum((p.grad.data * u[n]).sum() for n, p in layer.named_parameters())
    before = {n: p.data.copy() for n, p in layer.named_parameters()}

    def at(h):
        layer.load_state_dict({n: before[n] + h * u[n] for n in names})
        return (layer(x).data * g).sum()

    h = 1e-4
    assert (
        abs((8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h) - slope)
        < 1e-8 * abs(slope) + 1e-8
    )


def test_cross_attention_looks_at_the_context():
    layer, x, context = (
        randomised(nn.MultiHeadAttention(C, 4, n_kv_head=2)),
        data(2, T, C),
        data(2, 3, C, seed=2),
    )
    assert np.allclose(
        layer(Tensor(x), Tensor(context)).data, plain(layer, x, context=context)[0], atol=1e-12
    )
    seen = np.array([[1, 1, 0], [1, 0, 0]], bool)[:, None, None]
    got = layer(Tensor(x), Tensor(context), lengths=[2, 1]).data
    assert np.allclose(got, plain(layer, x, context=context, seen=seen)[0], atol=1e-12)
    with pytest.raises(ConfigError):
        nn.MultiHeadAttention(C, 4, rope="half")(Tensor(x), Tensor(context))
    with pytest.raises(CacheError):
        layer(Tensor(x), Tensor(context), cache=nn.KVCache())


@pytest.mark.parametrize("causal", [True, False])
def test_padding_changes_nothing_for_what_is_real(causal):
    layer, x = randomised(nn.MultiHeadAttention(C, 4, causal=causal)), data(2, T, C)
    x[0, 4:] = np.nan
    leaf = Tensor(x, requires_grad=True)
    with np.errstate(invalid="ignore"):
        y = layer(leaf, lengths=[4, T])
    alone = layer(Tensor(x[:1, :4])).data
    assert np.allclose(y.data[0, :4], alone[0], atol=1e-12)
    assert np.allclose(y.data[1], layer(Tensor(x[1:])).data[0], atol=1e-12)


def test_it_is_pytorchs_layer_with_pytorchs_keys():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.MultiheadAttention(C, 4, batch_first=True, dtype=torch.float64)
    ours = nn.MultiHeadAttention(C, 4, causal=False).to("float64")
    ours.load_state_dict({n: p.detach().numpy() for n, p in theirs.state_dict().items()})
    x, pad = data(2, T, C), np.arange(T) >= np.array([[5], [T]])
    want, weights = theirs(
        *[torch.tensor(x)] * 3, key_padding_mask=torch.tensor(pad), average_attn_weights=False
    )
    y, p = ours(Tensor(x), lengths=[5, T], return_weights=True)
    assert np.allclose(y.data, want.detach().numpy(), atol=1e-12) and np.allclose(
        p.data, weights.detach().numpy(), atol=1e-12
    )


SCALINGS = {
    "linear": ({"type": "linear", "factor": 4.0}, lambda f: f / 4),
    "ntk": (
        {"type": "ntk", "factor": 4.0},
        lambda f: (10000 * 4 ** (8 / 6)) ** (-np.arange(0, 8, 2) / 8),
    ),
}


@pytest.mark.parametrize("kind", SCALINGS)
def test_scaled_positions_turn_by_the_scaled_angles(kind):
    scaling, formula = SCALINGS[kind]
    rope = nn.RotaryEmbedding(8, scaling=scaling)
    assert np.allclose(rope.frequencies, formula(10000.0 ** (-np.arange(0, 8, 2) / 8)))
    cos, sin = rope.tables(np.array([0, 300]))
    assert np.allclose(cos[1], np.cos(300 * rope.frequencies), atol=1e-6) and np.allclose(sin[0], 0)


def test_llama3_scaling_stretches_long_waves_keeps_short_ones_and_passes_between():
    setting = {
        "type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original": 8192,
    }
    plain_f, f = (
        nn.RotaryEmbedding(128, base=500000.0).frequencies,
        nn.RotaryEmbedding(128, base=500000.0, scaling=setting).frequencies,
    )
    wave = 2 * np.pi / plain_f
    assert np.array_equal(f[wave < 8192 / 4], plain_f[wave < 8192 / 4])
    assert np.allclose(f[wave > 8192], plain_f[wave > 8192] / 8, rtol=1e-14)
    between = (wave > 8192 / 4) & (wave < 8192)
    smooth = (8192 / wave[between] - 1) / 3
    assert between.any() and np.allclose(
        f[between], (1 - smooth) * plain_f[between] / 8 + smooth * plain_f[between]
    )


YARN = {"type": "yarn", "factor": 4.0, "original": 4096}


def yarn(d, base, s, L, fast=32, slow=1, whole=True):
    """NTK-by-parts, pair by pair: theta_i = base^(-2i/d) turns L theta_i / 2 pi times within L."""
    first, last = (d / 2 * np.log(L / (2 * np.pi * turns)) / np.log(base) for turns in (fast, slow))
    if whole:
        first, last = np.floor(first), np.ceil(last)
    ramp = np.array([min(max((i - first) / (last - first), 0), 1) for i in range(d // 2)])
    theta = base ** (-2 * np.arange(d // 2) / d)
    return (1 - ramp) * theta + ramp * theta / s


@pytest.mark.parametrize(
    ("more", "formula"),
    [
        ({}, {}),
        ({"truncate": False}, {"whole": False}),
        ({"beta_fast": 16, "beta_slow": 2.0}, {"fast": 16, "slow": 2}),
    ],
)
def test_yarn_keeps_fast_pairs_stretches_slow_ones_and_passes_between(more, formula):
    rope = nn.RotaryEmbedding(128, base=1e6, scaling={**YARN, **more})
    f, plain = rope.frequencies, nn.RotaryEmbedding(128, base=1e6).frequencies
    assert np.allclose(f, yarn(128, 1e6, 4.0, 4096, **formula), rtol=1e-13)
    turns = 4096 * plain / (2 * np.pi)
    fast, slow = (
        more.get("beta_fast", 32) * 1.25,
        more.get("beta_slow", 1) / 1.25,
    )  # a pair beyond, for the rounding to whole pairs
    assert np.array_equal(f[turns > fast], plain[turns > fast]) and np.allclose(
        f[turns < slow], plain[turns < slow] / 4, rtol=1e-14
    )
    between = f[(turns < 30) & (turns > 3)] / plain[(turns < 30) & (turns > 3)]
    assert len(between) > 5 and (np.diff(between) <= 0).all()


def test_yarn_multiplies_what_it_turns_by_its_attention_factor():
    x = data(1, 1, 1, 12)
    for scaling, a in (
        (YARN, 0.1 * np.log(4) + 1),
        ({**YARN, "factor": 1.0}, 1.0),
        ({**YARN, "attention_factor": 0.5}, 0.5),
    ):
        rope = nn.RotaryEmbedding(12, rotary_dim=8, scaling=scaling)
        cos, sin = rope.tables(np.array([5000]))
        assert np.allclose(cos, a * np.cos(5000 * rope.frequencies), atol=1e-6) and np.allclose(
            cos**2 + sin**2, a * a
        )
        leaf = Tensor(x, requires_grad=True)
        y = rope(leaf, np.array([5000]))
        assert np.allclose(
            (y.data[..., :8] ** 2).sum(), a * a * (x[..., :8] ** 2).sum()
        ) and np.array_equal(y.data[..., 8:], x[..., 8:])
        (y * y).sum().backward()
        assert np.allclose(leaf.grad.data, 2 * x * np.where(np.arange(12) < 8, a * a, 1), rtol=1e-6)
    assert np.array_equal(
        nn.RotaryEmbedding(8, scaling={**YARN, "factor": 1}).frequencies,
        nn.RotaryEmbedding(8).frequencies,
    )


def test_a_score_with_rope_depends_on_the_distance_only():
    q, k = (Tensor(data(1, 1, 1, 8, seed=s).astype(np.float32)) for s in (1, 2))
    for rope in (nn.RotaryEmbedding(8), nn.RotaryEmbedding(8, layout="interleaved")):
        scores = [
            (rope(q, np.array([t + 5])) * rope(k, np.array([t]))).sum().item() for t in (0, 3, 100)
        ]
        assert np.ptp(scores) < 1e-5


@pytest.mark.parametrize(
    "slopes", [(8, [2.0**-i for i in range(1, 9)]), (6, [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3])]
)
def test_alibis_slopes_are_the_papers(slopes):
    assert np.allclose(F.alibi_slopes(slopes[0]), slopes[1])


def test_blocks_are_gpt2s_llamas_and_berts():
    x = Tensor(data(2, 5, C))
    for settings in (
        {},
        {"norm": "rms", "mlp": "swiglu", "bias": False, "rope": "half", "n_kv_head": 2},
        {"norm_first": False, "causal": False},
    ):
        block = randomised(nn.TransformerBlock(C, 4, **settings))
        a, m = block.attn, block.mlp
        want = (
            block.ln_2((y := block.ln_1(x + a(x))) + m(y))
            if not block.norm_first
            else (y := x + a(block.ln_1(x))) + m(block.ln_2(y))
        )
        assert np.array_equal(block(x).data, want.data)
        assert repr(block) == repr(
            eval(
                repr(block),
                {"TransformerBlock": nn.TransformerBlock, "RotaryEmbedding": nn.RotaryEmbedding},
            )
        )
    gemma = randomised(nn.TransformerBlock(C, 4, norm="rms", mlp="geglu", post_norm=True))
    y = x + gemma.post_1(gemma.attn(gemma.ln_1(x)))
    want = y + gemma.post_2(gemma.mlp(gemma.ln_2(y)))
    assert np.array_equal(gemma(x).data, want.data) and "post_norm=True" in repr(gemma)
    with pytest.raises(ConfigError, match="post_norm"):
        nn.TransformerBlock(C, 4, norm_first=False, post_norm=True)
    w = randomised(nn.SwiGLU(C, 6)).state_dict()
    gate, up = x.data @ w["gate_proj.weight"].data.T, x.data @ w["up_proj.weight"].data.T
    want = (gate / (1 + np.exp(-gate)) * up) @ w["down_proj.weight"].data.T
    assert np.allclose(randomised(nn.SwiGLU(C, 6))(x).data, want, atol=1e-12)
    curve = np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3))
    want = (0.5 * gate * (1 + curve) * up) @ w["down_proj.weight"].data.T
    assert np.allclose(randomised(nn.GeGLU(C, 6))(x).data, want, atol=1e-12)


def test_a_block_has_the_width_the_eps_and_the_gelu_that_it_was_asked_for():
    x = 1e-3 * data(2, 5, C)  # so small that eps is seen
    for norm, given, eps in (
        ("layer", 1e-12, 1e-12),
        ("layer", 1e-3, 1e-3),
        ("layer", None, 1e-5),
        ("rms", None, 1e-6),
        ("rms", 0.1, 0.1),
    ):
        block = randomised(nn.TransformerBlock(C, 4, norm=norm, norm_eps=given))
        first = block.ln_1
        centred = x if norm == "rms" else x - x.mean(-1, keepdims=True)
        want = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * first.weight.data
        want = want if norm == "rms" else want + first.bias.data
        assert first.eps == block.ln_2.eps == eps and np.allclose(
            first(Tensor(x)).data, want, rtol=1e-10
        )
    bert = nn.TransformerBlock(
        C, 4, hidden=20, approximate="none", norm_eps=1e-12, norm_first=False, causal=False
    )
    llama = nn.TransformerBlock(
        C, 4, hidden=20, norm="rms", norm_eps=1e-5, mlp="swiglu", bias=False, rope="half"
    )
    assert (
        bert.mlp.c_fc.weight.shape
        == bert.mlp.c_proj.weight.shape[::-1]
        == llama.mlp.up_proj.weight.shape
        == (20, C)
    )
    h = Tensor(data(2, 5, C))
    mlp = randomised(bert).mlp
    exact, formula = (
        mlp.c_proj(F.gelu(mlp.c_fc(h), approximate=kind)).data for kind in ("none", "tanh")
    )
    assert np.array_equal(mlp(h).data, exact) and not np.allclose(exact, formula, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.MultiHeadAttention(C, 4, n_kv_head=3),
        lambda: nn.MultiHeadAttention(C, 4, window=0),
        lambda: nn.MultiHeadAttention(C, 4, rope="full"),
        lambda: nn.MultiHeadAttention(C, 4, rope=nn.RotaryEmbedding(6)),
        lambda: nn.RotaryEmbedding(5),
        lambda: nn.RotaryEmbedding(4, base=1.0),
        lambda: nn.RotaryEmbedding(4, scaling={"type": "yarn", "factor": 2.0}),
        lambda: nn.RotaryEmbedding(4, scaling={"type": "linear"}),
        lambda: nn.TransformerBlock(C, 4, norm="batch"),
        lambda: nn.TransformerBlock(C, 4, mlp="relu"),
        lambda: nn.TransformerBlock(C, 4, hidden=0),
        lambda: nn.TransformerBlock(C, 4, mlp="swiglu", hidden=2.5),
        lambda: nn.TransformerBlock(C, 4, norm_eps=-1e-5),
        lambda: nn.TransformerBlock(C, 4, norm_eps="small"),
        lambda: nn.TransformerBlock(C, 4, approximate="erf"),
        lambda: nn.TransformerBlock(C, 4, mlp="swiglu", approximate="none"),
        lambda: nn.RMSNorm(C, float("nan")),
        lambda: nn.LayerNorm(C, True),
    ],
)
def test_settings_that_make_no_sense_are_refused(make):
    with pytest.raises(ConfigError):
        make()


def test_lengths_that_do_not_fit_are_refused():
    layer, x = nn.MultiHeadAttention(C, 4), Tensor.zeros(2, T, C)
    for lengths in ([1], [1, T + 1], [-1, 2], [1.5, 2.0]):
        with pytest.raises(ShapeError):
            layer(x, lengths=lengths)
