"""Attention of all kinds, rotary positions and RMSNorm in C: eager's numbers, and nothing through
numpy.
"""

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import Tensor, ops
from minigrad.compiler import jit
from minigrad.errors import MaskError
from minigrad.nn import MultiHeadAttention, TransformerBlock
from minigrad.optim import SGD

EPS = float(np.finfo(np.float32).eps)


def tensor(*shape, seed=0):
    return Tensor(np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32))


def compiled(step, *inputs, through=()):
    """The outputs of the compiled step's third call, and eager's; both as lists of arrays."""
    wanted = [t.numpy() for t in step(*inputs)]
    jitted = jit(step, backend="c")
    for _ in range(3):
        got = [t.numpy() for t in jitted(*inputs)]
    passed = [
        row.split()[2] for row in jitted.explain().splitlines() if row.startswith("through numpy")
    ]
    assert sorted(set(passed)) == sorted(through)
    return got, wanted


def check(got, wanted, budget=256):
    for g, w in zip(got, wanted, strict=True):
        assert np.array_equal(np.isfinite(g), np.isfinite(w))
        finite = np.isfinite(w)
        assert np.abs(g - w)[finite].max(initial=0) <= budget * EPS * max(
            np.abs(w)[finite].max(initial=0), 1e-3
        )


def masks(B, H, T, S):
    rng = np.random.default_rng(5)
    square = rng.random((T, S)) < 0.7
    square[3] = False  # a query that sees nothing
    bias = rng.normal(size=(H, T, S)).astype(np.float32)
    bias[rng.random(bias.shape) < 0.3] = -np.inf
    padding = np.arange(S) < np.array([S, S // 2])[:, None, None, None]
    return {
        "square": square,
        "padding": padding,
        "whole": rng.random((B, H, T, S)) < 0.5,
        "bias": bias,
        "row": np.zeros(S, np.float32),
    }


def out_and_gradients(attend, q, k, v, g):
    """attend(q, k, v) and its gradients to the three."""
    q, k, v = (t.detach().requires_grad_() for t in (q, k, v))
    out = attend(q, k, v)
    return out.detach(), *out.gradient(q, k, v, gradient=g)


@pytest.mark.parametrize("kind", ["square", "padding", "whole", "bias", "row"])
def test_masked_attention_and_its_gradients_are_eager(kind):
    B, H, T, S, D = 2, 3, 70, 72, 5
    mask = Tensor(masks(B, H, T, S)[kind])

    def step(*inputs):  # both in one program: building it is what takes the time
        return [
            t
            for offset in (None, 2)
            for t in out_and_gradients(
                lambda q, k, v, at=offset: ops.attention(q, k, v, mask, scale=0.4, offset=at)[0],
                *inputs,
            )
        ]

    check(
        *compiled(
            step,
            tensor(B, H, T, D),
            tensor(B, H, S, D, seed=1),
            tensor(B, H, S, D, seed=2),
            tensor(B, H, T, D, seed=3),
        )
    )


@pytest.mark.parametrize(
    "kind, offset",
    [(None, None), (None, 2), (None, -3), ("square", None), ("padding", 2), ("bias", 2)],
)
def test_tiled_attention_and_its_gradients_are_eager(kind, offset):
    B, H, D, cases = 2, 3, 5, [(7, 0.4), (200, 0.4), (200, 20)]  # T and scale, all in one program
    operands = {T: [] if kind is None else [Tensor(masks(B, H, T, T + 2)[kind])] for T in (7, 200)}

    def step(*inputs):
        def attend(T, scale):
            return out_and_gradients(
                lambda q, k, v: ops.attention(
                    q, k, v, *operands[T], scale=scale, offset=offset, tiled=True
                )[0],
                *inputs[4 * (T == 200) :][:4],
            )

        return [t for T, scale in cases for t in attend(T, scale)]

    inputs = [
        tensor(B, H, length, D, seed=i)
        for T in (7, 200)
        for i, length in enumerate((T, T + 2, T + 2, T))
    ]
    got, wanted = compiled(step, *inputs)
    for i, (_, scale) in enumerate(cases):
        check(got[4 * i :][:4], wanted[4 * i :][:4], budget=256 if scale < 1 else 4096)


@pytest.mark.parametrize("masked", [None, "square", "bias"])
def test_windows_and_slopes_and_their_gradients_are_eager(masked):
    B, H, T, S, D = 2, 4, 70, 72, 5
    mask = {} if masked is None else {"attn_mask": Tensor(masks(B, H, T, S)[masked])}
    kinds = [
        {"is_causal": causal, "window": window, "alibi": alibi, "method": method, **mask}
        for causal in (True, False)
        for window, alibi in ((9, None), (None, F.alibi_slopes(H)), (50, F.alibi_slopes(H)))
        for method in ("plain", "flash")
    ]

    def step(*inputs):
        return [
            t
            for kind in kinds
            for t in out_and_gradients(
                lambda q, k, v, how=kind: F.scaled_dot_product_attention(
                    q, k, v, causal="lower_right", enable_gqa=True, **how
                ),
                *inputs,
            )
        ]

    check(
        *compiled(
            step,
            tensor(B, H, T, D),
            tensor(B, 2, S, D, seed=1),
            tensor(B, 2, S, D, seed=2),
            tensor(B, H, T, D, seed=3),
        )
    )


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_stands_behind_the_edge_of_tiles_has_no_influence(poison):
    T, D = 100, 4

    def step(q, k, v, g):
        q, k, v = (t.detach().requires_grad_() for t in (q, k, v))
        out = ops.attention(q, k, v, scale=0.5, offset=0, tiled=True)[0]
        return out.detach(), *out.gradient(q, k, v, gradient=g)

    arrays = [tensor(1, 2, T, D, seed=i).numpy().copy() for i in range(4)]
    arrays[3][:, :, 60:] = 0  # nobody asks for what the poisoned places say
    jitted = jit(step, backend="c", audit=False)
    clean = [[t.numpy() for t in jitted(*map(Tensor, arrays))] for _ in range(3)][-1]
    for i in (1, 2):
        arrays[i][:, :, 70:] = poison
    got = [t.numpy() for t in jitted(*map(Tensor, arrays))]
    assert "NULL, stats" in jitted.c_source
    assert np.array_equal(got[0][:, :, :60], clean[0][:, :, :60])
    for g, c in zip(got[1:], clean[1:], strict=True):
        assert np.isfinite(g).all()
        assert np.abs(g - c).max() <= 256 * EPS * np.abs(c).max()


def replayed_as_eager(step, inputs):
    """The step compiled, after a replay that gave what an eager call gives from the same seed."""
    jitted = jit(step, backend="c")
    for _ in range(2):
        jitted(*inputs)
    minigrad.manual_seed(7)
    wanted = [t.numpy() for t in step(*inputs)]
    minigrad.manual_seed(7)
    check([t.numpy() for t in jitted(*inputs)], wanted)
    return jitted


@pytest.mark.parametrize("T, kind", [(8, None), (70, "square"), (70, "bias")])
def test_attention_with_dropout_draws_eagers_bits_and_has_its_gradients(T, kind):
    B, H, S, D = 2, 3, T + 2 * (T > 8), 5
    options = (
        {}
        if kind is None
        else {"bias" if kind == "bias" else "attn_mask": Tensor(masks(B, H, T, S)[kind])}
    )

    def step(q, k, v, g):
        q, k, v = (t.detach().requires_grad_() for t in (q, k, v))
        out, weights = F.scaled_dot_product_attention(
            q, k, v, dropout_p=0.3, is_causal=True, return_weights=True, **options
        )
        return out.detach(), weights.detach(), *out.gradient(q, k, v, gradient=g)

    inputs = [
        tensor(B, H, T, D),
        tensor(B, H, S, D, seed=1),
        tensor(B, H, S, D, seed=2),
        tensor(B, H, T, D, seed=3),
    ]
    jitted = replayed_as_eager(step, inputs)
    assert "through numpy" not in jitted.explain()


@pytest.mark.parametrize(
    "T, options",
    [(24, {}), (40, {"is_causal": True}), (120, {"is_causal": True}), (40, {"bias": "square"})],
)
def test_gradients_of_dropout_whose_probabilities_are_made_again_are_eagers(T, options):
    B, H, S, D = 2, 3, T + 2, 5
    if "bias" in options:
        options = {"bias": tensor(T, S, seed=4)}

    def step(q, k, v, g):
        q, k, v = (t.detach().requires_grad_() for t in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=0.3, **options)
        return out.detach(), *out.gradient(q, k, v, gradient=g)

    sizes = (T, S, S, T)
    inputs = [tensor(B, H, n, D, seed=seed) for seed, n in enumerate(sizes)]
    jitted = replayed_as_eager(step, inputs)
    assert "NULL, stats" in jitted.c_source and "through numpy" not in jitted.explain()


FLOAT_MASKED = [
    {},
    {"is_causal": True},
    {"is_causal": True, "window": 9},
    {"is_causal": True, "method": "flash"},
]


@pytest.mark.parametrize("backend", ["numpy", "c"])
@pytest.mark.parametrize("inside", [False, True], ids=["an argument", "made inside"])
def test_a_float_mask_as_attn_mask_is_recorded_and_is_eager_forward_and_backward(backend, inside):
    B, H, T, S, D = 2, 3, 20, 22, 5
    masked = masks(B, H, T, S)["bias"]
    masked[:, 3] = -np.inf  # a query that sees nothing

    def step(mask, *inputs):
        given = mask * 0.5 if inside else mask
        return [
            t
            for settings in FLOAT_MASKED
            for t in out_and_gradients(
                lambda q, k, v, how=settings: F.scaled_dot_product_attention(q, k, v, given, **how),
                *inputs,
            )
        ]

    jitted = jit(step, backend=backend)
    for i in range(4):  # other values in every call, of the mask too
        mask = Tensor(masked + np.float32(i) * (np.arange(S) % 3).astype(np.float32))
        inputs = (
            mask,
            tensor(B, H, T, D, seed=i),
            tensor(B, H, S, D, seed=1),
            tensor(B, H, S, D, seed=2),
            tensor(B, H, T, D, seed=3),
        )
        check(
            [t.numpy() for t in jitted(*inputs)],
            [t.numpy() for t in step(*inputs)],
            budget=256 if backend == "c" else 0,
        )
    assert "1 program" in repr(jitted) and "through numpy" not in (
        jitted.explain() if backend == "c" else ""
    )


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_a_float_mask_of_zeros_and_ones_is_refused_while_it_is_recorded_too(dtype):
    mask = Tensor(np.eye(6, dtype=np.float32)).cast(dtype)
    with pytest.raises(MaskError, match="ambiguous"):
        jit(lambda q: F.scaled_dot_product_attention(q, q, q, mask))(tensor(1, 6, 4))


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_what_stands_behind_a_mask_has_no_influence(kind):
    seen = np.array([True] * 6 + [False] * 4)
    mask = Tensor(seen) if kind == "bool" else Tensor(np.where(seen, 0, -np.inf).astype(np.float32))
    q, k, v = tensor(1, 2, 7, 4), tensor(1, 2, 10, 4, seed=1), tensor(1, 2, 10, 4, seed=2)
    clean = ops.attention(q, k[:, :, :6], v[:, :, :6], scale=0.5)[0].numpy()
    k.data[:, :, 6:], v.data[:, :, 6:] = np.nan, np.inf
    (got,), _ = compiled(lambda q, k, v: (ops.attention(q, k, v, mask, scale=0.5)[0],), q, k, v)
    check([got], [clean])


def test_the_gradient_of_a_learned_bias_goes_through_numpy():
    bias = Tensor(np.zeros((3, 6, 6), np.float32), requires_grad=True)

    def step(q, k, v):
        out = ops.attention(q, k, v, bias, scale=0.5)[0]
        return out.gradient(bias, gradient=Tensor(np.ones((2, 3, 6, 4), np.float32)))

    inputs = [tensor(2, 3, 6, 4, seed=i) for i in range(3)]
    check(*compiled(step, *inputs, through=["attention_grad"]))


def test_heads_that_share_keys_are_eager():
    layer = MultiHeadAttention(24, 6, n_kv_head=2)
    seen = Tensor(np.arange(9) < 7)

    def step(x):
        layer.zero_grad()
        y = layer(x, mask=seen)
        y.square().sum().backward()
        return (y, *(p.grad for p in layer.parameters()))

    check(*compiled(step, tensor(3, 9, 24)))


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("half", [4, 2])
def test_rotary_positions_are_eager(interleaved, half):
    def step(x, cos, sin):
        x = x.permute(0, 2, 1, 3).detach().requires_grad_()
        y = ops.rope(x, cos, sin, interleaved=interleaved)
        return y.detach(), *y.gradient(x, gradient=y.detach())

    check(
        *compiled(step, tensor(2, 5, 3, 8), tensor(2, 1, 5, half), tensor(2, 1, 5, half, seed=1)),
        budget=4,
    )


@pytest.mark.parametrize("rows", [1, 32, 45])
def test_rms_norm_and_its_gradient_are_eager(rows):
    def step(x, weight, g):
        x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
        y = ops.rms_norm(x, weight, eps=1e-5)[0]
        plain = ops.rms_norm(x, None, eps=1e-5)[0]
        return y.detach(), plain.detach(), *(y + plain).gradient(x, weight, gradient=g)

    check(*compiled(step, tensor(rows, 19), tensor(19), tensor(rows, 19, seed=1)))


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 4, 5)])
def test_sums_over_axes_in_the_middle_are_eager(shape):
    check(
        *compiled(
            lambda x: (x.sum(axis=1), x.sum(axis=tuple(range(1, len(shape) - 1)), keepdim=True)),
            tensor(*shape),
        ),
        budget=8,
    )


@pytest.mark.as_for_users
def test_a_llama_type_block_trains_all_in_c():
    def train(backend):
        minigrad.manual_seed(0)
        block = TransformerBlock(
            24, 4, norm="rms", mlp="swiglu", bias=False, rope="half", n_kv_head=2, qk_norm=True
        )
        optimizer = SGD(block.parameters(), lr=0.1)

        def step(x):
            optimizer.zero_grad()
            loss = block(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        run = step if backend is None else jit(step, backend=backend)
        losses = [float(run(tensor(2, 11, 24, seed=i))) for i in range(6)]
        return losses, "" if backend is None else run.explain()

    (eager, _), (replayed, _), (in_c, explained) = train(None), train("numpy"), train("c")
    assert replayed == eager
    assert np.allclose(in_c, eager, rtol=64 * EPS)
    assert "through numpy" not in explained


@pytest.mark.parametrize("T, tiled", [(8, False), (120, True)])
def test_probabilities_larger_than_their_operands_are_made_again_in_backward(T, tiled):
    block = TransformerBlock(8, 2)

    def step(x):
        loss = block(x).square().mean()
        return loss, *loss.gradient(*block.parameters())

    inputs = tensor(2, T, 8)
    check(*compiled(step, inputs), budget=1024)
    jitted = jit(step, backend="c")
    for _ in range(3):
        jitted(inputs)
    assert ("NULL, stats" in jitted.c_source) == tiled
