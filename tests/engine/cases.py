"""The op table: one row per op. `test_op_table.py` and `tools/exactness.py` judge every row; the
property tests draw from it.

A new op is one new `Case` here (or `Exact`, for an op whose result carries no gradient and must be
right to the bit).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad import functional as F, ops
from tests import formulas as f, oracle as o
from tests.engine.more_cases import MORE_CASES
from tests.engine.table import POSITIVE, REAL, Case, N
from tests.oracle import mp

V, VV, VVV = ((N,),), ((N,), (N,)), ((N,), (N,), (N,))
M = ((3, 4),)
INSIDE = (-1.0, 1.0)


def zero(x: Any) -> Any:
    """0, with no derivative."""
    return o.flat(lambda a: 0 * a)(x)


ELEMENTWISE = [
    Case("add", ops.add, lambda a, b: a + b, VV),
    Case("sub", ops.sub, lambda a, b: a - b, VV),
    Case("mul", ops.mul, lambda a, b: a * b, VV),
    Case("div", ops.div, lambda a, b: a / b, VV, domain=(REAL, POSITIVE)),
    Case(
        "div by a negative number", ops.div, lambda a, b: a / b, VV, domain=(REAL, (-np.inf, 0.0))
    ),
    Case("neg", ops.neg, lambda x: -x, V),
    Case(
        "pow",
        ops.pow,
        o.elementwise(lambda x, p: o.power(x, p)),
        VV,
        domain=(POSITIVE, REAL),
        wide=0.02,
    ),
    Case("pow of a constant", lambda x: ops.pow(x, 3), lambda x: x**3, V, wide=0.3),
    Case(
        "pow of a negative constant",
        lambda x: ops.pow(x, -0.5),
        lambda x: x ** o.mp.mpf(-0.5),
        V,
        domain=POSITIVE,
        wide=0.6,
    ),
    Case("mod", ops.mod, f.mod, VV, domain=(REAL, POSITIVE), wide=0.02),
    Case(
        "floor_div",
        ops.floor_div,
        o.elementwise(lambda a, b: o.given(o.mp.floor(o.number(a) / o.number(b)))),
        VV,
        wide=0.02,
    ),
    Case("maximum", ops.maximum, o.elementwise(lambda a, b: max(a, b)), VV),
    Case("minimum", ops.minimum, o.elementwise(lambda a, b: min(a, b)), VV),
    Case(
        "clamp",
        lambda x: ops.clamp(x, -0.25, 1.5),
        o.elementwise(lambda x: o.given(-0.25) if x < -0.25 else min(x, o.given(1.5))),
        V,
    ),
    Case(
        "where",
        lambda a, b: ops.where(b > 0, a, b),
        o.elementwise(lambda a, b: a if b > 0 else b),
        VV,
    ),
    Case("mask_cotangent", lambda x: ops.mask_cotangent(x, 0.0), lambda x: x, V),
    Case("exp", ops.exp, o.exp, V, ulps=0),
    Case("exp2", ops.exp2, o.exp2, V, ulps=1.5),
    Case("expm1", ops.expm1, o.expm1, V, ulps=0),
    Case("log", ops.log, o.log, V, domain=POSITIVE, ulps=0.5),
    Case("log2", ops.log2, o.log2, V, domain=POSITIVE, ulps=1.5),
    Case("log10", ops.log10, o.log10, V, domain=POSITIVE, ulps=1.5),
    Case("log1p", ops.log1p, o.log1p, V, domain=(-0.999, np.inf), ulps=1.5),
    Case("sqrt", ops.sqrt, o.sqrt, V, domain=POSITIVE, ulps=0.5),
    Case("rsqrt", ops.rsqrt, o.rsqrt, V, domain=POSITIVE),
    Case("reciprocal", ops.reciprocal, o.reciprocal, V, domain=POSITIVE),
    Case("square", ops.square, lambda x: x * x, V),
    Case("sin", ops.sin, o.sin, V, ulps=0),
    Case("cos", ops.cos, o.cos, V, ulps=0),
    Case("tan", ops.tan, o.tan, V, ulps=1.5),
    Case("asin", ops.asin, o.asin, V, domain=INSIDE),
    Case("acos", ops.acos, o.acos, V, domain=INSIDE),
    Case("atan", ops.atan, o.atan, V, ulps=2),
    Case("sinh", ops.sinh, o.lift(mp.sinh, mp.cosh, mp.sinh, mp.cosh), V, ulps=0),
    Case("cosh", ops.cosh, o.lift(mp.cosh, mp.sinh, mp.cosh, mp.sinh), V, ulps=0),
    Case("tanh", ops.tanh, o.tanh, V, ulps=1.5),
    Case("sigmoid", ops.sigmoid, o.sigmoid, V),
    Case("erf", ops.erf, o.erf, V),
    Case("abs", ops.abs, o.elementwise(lambda x: abs(x)), V),
    Case("sign", ops.sign, o.flat(o.mp.sign), V),
    Case("floor", ops.floor, o.flat(o.mp.floor), V),
    Case("ceil", ops.ceil, o.flat(o.mp.ceil), V),
    Case("trunc", ops.trunc, o.flat(lambda x: o.mp.sign(x) * o.mp.floor(abs(x))), V),
    Case("round", ops.round, o.flat(o.mp.nint), V),
    Case("relu", ops.relu, f.relu, V),
    Case("zeros_like", ops.zeros_like, zero, V),
    Case("asinh", ops.asinh, o.asinh, V),
    Case("acosh", ops.acosh, o.acosh, V, domain=(1.0, np.inf), ulps=3),
    Case("atanh", ops.atanh, o.atanh, V, domain=INSIDE),
    Case("hypot", ops.hypot, f.hypot, VV),
    Case("atan2", ops.atan2, f.atan2, VV, domain=(REAL, POSITIVE)),
    Case(
        "atan2 of the left half",
        lambda a, b: ops.atan2(a, -b),
        lambda a, b: (
            o.elementwise(lambda x: o.constant(o.mp.pi if x >= 0 else -o.mp.pi))(a) - f.atan2(a, b)
        ),
        VV,
        domain=(REAL, POSITIVE),
    ),
    Case(
        "fmod",
        ops.fmod,
        f.fmod,
        VV,
        wide=0.02,
    ),
    Case(
        "copysign",
        ops.copysign,
        o.elementwise(lambda a, b: abs(a) if b >= 0 else -abs(a)),
        VV,
    ),
    Case("nan_to_num", ops.nan_to_num, lambda x: x, V),
]

REDUCTIONS = [
    Case("sum", lambda x: ops.sum(x), np.sum, M),
    Case("sum, axis 0", lambda x: ops.sum(x, axis=0), lambda x: x.sum(0), M),
    Case(
        "sum, two axes",
        lambda x: ops.sum(x, axis=(0, -1), keepdim=True),
        lambda x: x.sum((0, 2), keepdims=True),
        ((2, 3, 2),),
    ),
    Case("mean", lambda x: ops.mean(x, axis=1), lambda x: f.mean(x, 1), M),
    Case("var", lambda x: ops.var(x, axis=0), lambda x: f.var(x, 0), M, wide=0.4, budget=64),
    Case(
        "var, of the population",
        lambda x: ops.var(x, correction=0),
        lambda x: f.var(x, correction=0),
        M,
        wide=0.4,
        budget=64,
    ),
    Case("max", lambda x: ops.max(x, axis=1), lambda x: f.extremum(x, 1, np.max), M),
    Case(
        "min",
        lambda x: ops.min(x, axis=0, keepdim=True),
        lambda x: f.extremum(x, 0, np.min)[None],
        M,
    ),
    Case(
        "logsumexp",
        lambda x: ops.logsumexp(x, axis=1),
        lambda x: f.logsumexp(x, 1, keepdims=False),
        M,
        wide=0.02,
    ),
]

INDEX = np.array([[2, 0, 2], [1, 2, 2]])
# Three rows of one block of q4_1 each: q / 4 - 1, for q from 0 to 15.
QUARTERS = np.array([np.arange(32) % 16, np.arange(32) // 2, np.arange(32) % 5])
HEADS = np.array([[0.25, -1.0]] * 3, np.float16).view(np.uint8)
BLOCKS = np.concatenate([HEADS, QUARTERS[:, :16] | QUARTERS[:, 16:] << 4], 1).astype(np.uint8)
WEIGHT = np.vectorize(o.given, otypes=[object])(QUARTERS / 4 - 1)
MOVEMENT = [
    Case("alias", ops.alias, lambda x: x, M),
    Case("copy", ops.copy, lambda x: x, M),
    Case("cast", lambda x: ops.cast(x, dtype=np.dtype(np.float64)), lambda x: x, M),
    Case("reshape", lambda x: ops.reshape(x, shape=(2, -1)), lambda x: x.reshape(2, 6), M),
    Case(
        "split_heads",
        lambda x: ops.cat(*ops.split_heads(x, n_head=2), axis=0),
        lambda x: x.reshape(2, 3, 3, 2, 2).transpose(2, 0, 3, 1, 4).reshape(6, 2, 3, 2),
        ((2, 3, 12),),
    ),
    Case(
        "join_heads",
        ops.join_heads,
        lambda *qkv: np.stack([x.transpose(0, 2, 1, 3) for x in qkv], 2).reshape(2, 4, 18),
        ((2, 3, 4, 2),) * 3,
    ),
    Case(
        "merge_heads",
        ops.merge_heads,
        lambda x: x.transpose(0, 2, 1, 3).reshape(2, 4, 6),
        ((2, 3, 4, 2),),
    ),
    Case(
        "permute",
        lambda x: ops.permute(x, order=(2, 0, 1)),
        lambda x: x.transpose(2, 0, 1),
        ((2, 3, 4),),
    ),
    Case(
        "expand",
        lambda x: ops.expand(x, shape=(2, 3, 4)),
        lambda x: np.broadcast_to(x, (2, 3, 4)),
        ((3, 1),),
    ),
    Case("flip", lambda x: ops.flip(x, axis=(1,)), lambda x: x[:, ::-1], M),
    Case(
        "pad",
        lambda x: ops.pad(x, widths=((1, 0), (0, 2))),
        lambda x: np.pad(x, ((1, 0), (0, 2)), constant_values=o.given(0)),
        M,
    ),
    Case(
        "pad, negative",
        lambda x: ops.pad(x, widths=((-1, 1), (0, -2)), value=3.0),
        lambda x: np.pad(x[1:, :2], ((0, 1), (0, 0)), constant_values=o.given(3)),
        M,
    ),
    Case(
        "cat",
        lambda a, b: ops.cat(a, b, axis=1),
        lambda a, b: np.concatenate([a, b], 1),
        ((2, 3), (2, 1)),
    ),
    Case(
        "getitem",
        lambda x: ops.getitem(x, index=(slice(None, None, -2), None, 1)),
        lambda x: x[::-2, None, 1],
        M,
    ),
    Case(
        "ungetitem",
        lambda x: ops.ungetitem(x, index=(slice(1, 3), 0), shape=(4, 2)),
        lambda x: np.array([[0, 0], [x[0], 0], [x[1], 0], [0, 0]], dtype=object),
        ((2,),),
    ),
    Case("embedding", ops.embedding, lambda w, i: w[i], ((3, 2),), extra=(INDEX,)),
    Case(
        "embedding_grad",
        lambda g, i: ops.embedding_grad(g, i, size=4),
        lambda g, i: np.array(
            [g[i == row].sum(0) + np.zeros(2, int) for row in range(4)], dtype=object
        ),
        ((2, 3, 2),),
        extra=(INDEX,),
    ),
]


def attend(mask: Any = None, offset: int | None = None) -> Callable[..., Any]:
    """The attention op on (q, k, v), with its scale of 1/sqrt(D)."""
    return lambda q, k, v: ops.attention(
        q, k, v, *([] if mask is None else [mask]), scale=q.shape[-1] ** -0.5, offset=offset
    )[0]


def flash(mask: Any = None, **params: Any) -> Callable[..., Any]:
    """The tiled attention op on (q, k, v), with its scale of 1/sqrt(D)."""
    return lambda q, k, v: ops.attention(
        q, k, v, *([] if mask is None else [mask]), scale=q.shape[-1] ** -0.5, tiled=True, **params
    )[0]


PRESENT = np.arange(6) >= np.array([0, 1])[:, None, None, None, None]  # row 1 begins with padding


def weights(q: Any, k: Any, bias: Any = None, seen: Any = None) -> Any:
    """The probabilities of attention: what it makes of unit vectors."""
    return f.attention(
        q,
        k,
        np.broadcast_to(np.eye(k.shape[-2], dtype=int), (*k.shape[:-1], k.shape[-2])),
        seen,
        bias=bias,
    )


KEPT = np.random.default_rng(3).random((2, 3, 5)) < 0.6
QKV = ((2, 3, 4), (2, 5, 4), (2, 5, 2))
ALIBI = -np.array([0.5, 0.25])[:, None, None] * np.abs(np.arange(3)[:, None] - np.arange(5))
COS, SIN = (
    np.array([[1.0, 0.5], [-0.25, 0.75], [0.5, -1.0]]),
    np.array([[0.0, -0.5], [0.5, 0.25], [1.0, 0.125]]),
)
SEEN = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
TARGET = np.array([2, -100, 0])
FUSED = [
    Case("matmul", ops.matmul, np.matmul, ((3, 4), (4, 2)), wide=0.4),
    Case("matmul, batched", ops.matmul, np.matmul, ((2, 1, 3, 4), (3, 4, 2)), wide=0.4),
    Case("matmul, a batch by one matrix", ops.matmul, np.matmul, ((2, 3, 4), (4, 2)), wide=0.4),
    Case("matmul, two vectors", ops.matmul, np.matmul, ((4,), (4,)), wide=0.4),
    Case("matmul, a vector on the left", ops.matmul, np.matmul, ((4,), (2, 4, 3)), wide=0.4),
    Case("matmul, a vector on the right", ops.matmul, np.matmul, ((2, 3, 4), (4,)), wide=0.4),
    Case("guard_matmul", ops.guard_matmul, np.matmul, ((2, 3, 4), (4, 2)), wide=0.4),
    Case("linear", ops.linear, lambda x, w, b: x @ w.T + b, ((2, 3, 4), (2, 4), (2,)), wide=0.4),
    Case(
        "quantised_linear",
        lambda x, b: ops.quantised_linear(x, BLOCKS, b, kind="q4_1"),
        lambda x, b: x @ WEIGHT.T + b,
        ((2, 32), (3,)),
        wide=0.4,
    ),
    Case(
        "quantised_linear_grad",
        lambda g: ops.quantised_linear_grad(g, BLOCKS, kind="q4_1"),
        lambda g: g @ WEIGHT,
        ((2, 3),),
        wide=0.4,
    ),
    Case("linear without bias", ops.linear, lambda x, w: x @ w.T, ((3, 4), (2, 4)), wide=0.4),
    Case(
        "softmax",
        lambda x: ops.softmax(x, axis=0),
        lambda x: f.softmax(x, 0),
        M,
        wide=0.02,
        budget=64,
    ),
    Case("log_softmax", lambda x: ops.log_softmax(x), f.log_softmax, M, wide=0.02, budget=64),
    Case(
        "layer_norm",
        lambda x, w, b: ops.layer_norm(x, w, b)[0],
        f.layer_norm,
        ((2, 3, 4), (4,), (4,)),
        wide=0,
        budget=64,
    ),
    Case(
        "layer_norm, plain",
        lambda x: ops.layer_norm(x, None, None)[0],
        f.layer_norm,
        M,
        wide=0,
        budget=64,
    ),
    Case(
        "rms_norm",
        lambda x, w: ops.rms_norm(x, w)[0],
        lambda x, w: f.rms_norm(x, w, 1e-6),
        ((2, 3, 4), (4,)),
        wide=0,
        budget=64,
    ),
    Case(
        "rms_norm, plain",
        lambda x: ops.rms_norm(x, None)[0],
        lambda x: f.rms_norm(x, None, 1e-6),
        M,
        wide=0,
        budget=64,
    ),
    Case(
        "rope",
        lambda x: F.apply_rotary(x, COS, SIN),
        lambda x: f.rope(x, COS, SIN, [(0, 2), (1, 3)]),
        ((2, 3, 5),),
        wide=0.4,
        budget=64,
    ),
    Case(
        "rope, interleaved",
        lambda x: F.apply_rotary(x, COS, SIN, interleaved=True),
        lambda x: f.rope(x, COS, SIN, [(0, 1), (2, 3)]),
        ((2, 3, 5),),
        wide=0.4,
        budget=64,
    ),
    Case("gelu_tanh", lambda x: ops.gelu_tanh(x)[0], f.gelu_tanh, V, wide=0.02, budget=64),
    Case(
        "cross_entropy",
        lambda x, t: ops.cross_entropy(x, t)[0],
        lambda x, t: f.cross_entropy(x, t, reduction="none"),
        M,
        extra=(TARGET,),
        wide=0.02,
        budget=64,
    ),
    Case(
        "cross_entropy, smoothed",
        lambda x, t: ops.cross_entropy(x, t, ignore_index=1, label_smoothing=0.25)[0],
        lambda x, t: f.cross_entropy(x, t, ignore_index=1, label_smoothing=0.25, reduction="none"),
        M,
        extra=(np.array([2, 1, 0]),),
        wide=0.02,
        budget=64,
    ),
    Case(
        "attention, cached",
        lambda q, k, v: ops.attention(q, k, v, PRESENT, None, np.array(2), scale=0.5)[0],
        lambda q, k, v: f.attention(q, k, v, PRESENT & np.tri(2, 6, 2, dtype=bool)),
        ((2, 2, 2, 2, 4), (2, 2, 1, 6, 4), (2, 2, 1, 6, 3)),
        wide=0,
        budget=64,
    ),
    Case("attention", attend(), f.attention, QKV, wide=0, budget=64),
    Case(
        "attention, causal",
        attend(offset=0),
        lambda q, k, v: f.attention(q, k, v, np.tri(3, 5, dtype=bool)),
        QKV,
        wide=0,
        budget=64,
    ),
    Case(
        "attention, masked",
        attend(SEEN),
        lambda q, k, v: f.attention(q, k, v, SEEN),
        QKV,
        wide=0,
        budget=64,
    ),
    Case(
        "attention, masked and causal",
        attend(SEEN, 2),
        lambda q, k, v: f.attention(q, k, v, SEEN & np.tri(3, 5, 2, dtype=bool)),
        QKV,
        wide=0,
        budget=64,
    ),
    Case("attention, tiled", flash(), f.attention, QKV, wide=0, budget=64),
    Case(
        "attention, tiled, masked and causal",
        flash(SEEN, offset=2),
        lambda q, k, v: f.attention(q, k, v, SEEN & np.tri(3, 5, 2, dtype=bool)),
        QKV,
        wide=0,
        budget=64,
    ),
    Case(
        "attention, tiled, window",
        flash(offset=1, window=2),
        lambda q, k, v: f.attention(
            q, k, v, np.tri(3, 5, 1, dtype=bool) & ~np.tri(3, 5, -1, dtype=bool)
        ),
        QKV,
        wide=0,
        budget=64,
    ),
    Case(
        "attention, tiled, ALiBi",
        flash(slopes=(0.5, 0.25)),
        lambda q, k, v: f.attention(q, k, v, bias=ALIBI),
        QKV,
        wide=0,
        budget=64,
    ),
    Case(
        "attention, float mask",
        lambda q, k, v, b: ops.attention(q, k, v, b, scale=0.5)[0],
        lambda q, k, v, b: f.attention(q, k, v, bias=b),
        ((2, 3, 4), (5, 4), (5, 2), (3, 5)),
        wide=0,
        budget=64,
    ),
    Case(
        "attention, weights",
        lambda q, k, b: ops.attention(q, k, k, b, scale=0.5)[1],
        weights,
        ((2, 3, 4), (2, 5, 4), (3, 5)),
        wide=0,
        budget=64,
    ),
    Case(
        "attention, weights, masked and causal",
        lambda q, k: ops.attention(q, k, k, SEEN, scale=0.5, offset=2)[1],
        lambda q, k: weights(q, k, seen=SEEN & np.tri(3, 5, 2, dtype=bool)),
        QKV[:2],
        wide=0,
        budget=64,
    ),
    Case(
        "attention, dropout",
        lambda q, k, v: ops.attention(q, k, v, SEEN, KEPT, scale=0.5, factor=2.0)[0],
        lambda q, k, v: np.matmul(weights(q, k, seen=SEEN) * (2 * KEPT), v),
        QKV,
        wide=0,
        budget=64,
    ),
]


def gpt_block(x: Any, *p: Any) -> Any:
    """x + attention(layer_norm(x)), then y + mlp(layer_norm(y)): one layer of GPT-2 with two heads,
    out of the library's functions.
    """
    g1, b1, w_qkv, b_qkv, w_out, b_out, g2, b2, w_up, b_up, w_down, b_down = p
    T, C = x.shape
    qkv = F.linear(F.layer_norm(x, C, g1, b1), w_qkv, b_qkv)  # (T, 3C)
    q, k, v = qkv.reshape(T, 3, 2, C // 2).permute(1, 2, 0, 3)  # each (2, T, C / 2)
    seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    x = x + F.linear(seen.permute(1, 0, 2).reshape(T, C), w_out, b_out)
    return x + F.linear(
        F.gelu(F.linear(F.layer_norm(x, C, g2, b2), w_up, b_up), approximate="tanh"), w_down, b_down
    )


GROUPED = ((4, 3, 2), (2, 5, 2), (2, 5, 2))
FUNCTIONS = [
    Case("F.relu", F.relu, f.relu, V),
    Case("F.silu", F.silu, f.silu, V, wide=0.02, budget=64),
    Case("F.gelu", F.gelu, f.gelu, V, wide=0.02, budget=64),
    Case(
        "F.gelu, tanh",
        lambda x: F.gelu(x, approximate="tanh"),
        f.gelu_tanh,
        V,
        wide=0.02,
        budget=64,
    ),
    Case(
        "F.rms_norm",
        lambda x, w: F.rms_norm(x, 4, w, eps=1e-5),
        f.rms_norm,
        ((2, 3, 4), (4,)),
        wide=0,
        budget=64,
    ),
    Case(
        "F.rms_norm, two axes",
        lambda x: F.rms_norm(x, (2, 2), eps=1e-5),
        lambda x: f.rms_norm(x.reshape(3, 4)).reshape(3, 2, 2),
        ((3, 2, 2),),
        wide=0,
        budget=64,
    ),
    Case(
        "F.layer_norm, two axes",
        lambda x, w, b: F.layer_norm(x, (2, 2), w, b),
        lambda x, w, b: f.layer_norm(x.reshape(3, 4), w.ravel(), b.ravel()).reshape(3, 2, 2),
        ((3, 2, 2), (2, 2), (2, 2)),
        wide=0,
        budget=64,
    ),
    Case(
        "F.cross_entropy",
        F.cross_entropy,
        f.cross_entropy,
        M,
        extra=(TARGET,),
        wide=0.02,
        budget=64,
    ),
    Case(
        "F.cross_entropy, sum",
        lambda x, t: F.cross_entropy(x, t, label_smoothing=0.125, reduction="sum"),
        lambda x, t: f.cross_entropy(x, t, label_smoothing=0.125, reduction="sum"),
        M,
        extra=(TARGET,),
        wide=0.02,
        budget=64,
    ),
    Case("F.linear", F.linear, lambda x, w, b: x @ w.T + b, ((2, 4), (3, 4), (3,)), wide=0.4),
    Case(
        "F.embedding", lambda w, i: F.embedding(i, w), lambda w, i: w[i], ((3, 2),), extra=(INDEX,)
    ),
    Case(
        "F.scaled_dot_product_attention",
        lambda q, k, v: F.scaled_dot_product_attention(
            q, k, v, is_causal=True, causal="lower_right"
        ),
        lambda q, k, v: f.attention(q, k, v, np.tri(3, 5, 2, dtype=bool)),
        QKV,
        wide=0,
        budget=64,
    ),
    Case(
        "F.scaled_dot_product_attention, grouped",
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, SEEN, enable_gqa=True),
        lambda q, k, v: f.attention(q, np.repeat(k, 2, 0), np.repeat(v, 2, 0), SEEN),
        GROUPED,
        wide=0,
        budget=64,
    ),
    Case(
        "a whole GPT block", gpt_block, f.gpt_block, f.GPT_SHAPES, wide=0, budget=64, second=False
    ),
]

METHODS = [
    Case("Tensor.flatten", lambda x: x.flatten(1), lambda x: x.reshape(2, 6), ((2, 3, 2),)),
    Case("Tensor.squeeze", lambda x: x.squeeze(1), lambda x: x[:, 0], ((3, 1, 2),)),
    Case("Tensor.unsqueeze", lambda x: x.unsqueeze(-1), lambda x: x[..., None], M),
    Case("Tensor.transpose", lambda x: x.transpose(0, 1), lambda x: x.T, M),
    Case("Tensor.split", lambda x: x.split([1, 3], axis=1)[1], lambda x: x[:, 1:], M),
    Case("Tensor.chunk", lambda x: x.chunk(2, axis=1)[0], lambda x: x[:, :2], M),
    Case(
        "Tensor.stack", lambda a, b: a.stack(b, axis=1), lambda a, b: np.stack([a, b], 1), (*M, *M)
    ),
    Case(
        "Tensor.masked_fill",
        lambda x: x.masked_fill(SEEN[:, :4], 2.0),
        lambda x: np.where(SEEN[:, :4], o.given(2), x),
        M,
    ),
    Case(
        "Tensor.where", lambda a, b: (a > b).where(a, b), o.elementwise(lambda a, b: max(a, b)), VV
    ),
]

CASES = [*ELEMENTWISE, *REDUCTIONS, *MOVEMENT, *FUSED, *FUNCTIONS, *METHODS, *MORE_CASES]
UNARY = {case.op.name: case for case in CASES if case.op is not None}


@dataclass(frozen=True)
class Exact:
    """An op without a gradient: it is what numpy says, to the bit and with that dtype."""

    name: str
    call: Callable[..., Any]
    numpy: Callable[..., Any]
    inputs: tuple[Any, ...]


A = np.array([0.0, -0.0, 1.5, -2.0, np.inf, -np.inf, np.nan, 1.5, 3.0])
B = np.array([0.0, 1.0, 1.5, np.nan, np.inf, 5e-324, np.nan, -1.5, 0.0])
TIES = np.array([[3.0, 1.0, 3.0], [0.0, 5.0, 5.0]])
BITS = np.array([5, -3, 0, 1 << 40])
EXACT = [
    *(
        Exact(op.name, op, getattr(np, op.name), (A, B))
        for op in (
            ops.equal,
            ops.not_equal,
            ops.less,
            ops.less_equal,
            ops.greater,
            ops.greater_equal,
            ops.logical_and,
            ops.logical_or,
            ops.logical_xor,
        )
    ),
    *(
        Exact(op.name, op, getattr(np, op.name), (A,))
        for op in (ops.logical_not, ops.isnan, ops.isinf, ops.isfinite)
    ),
    Exact(
        "quantised_embedding",
        lambda i: ops.quantised_embedding(BLOCKS, i, kind="q4_1"),
        lambda i: (QUARTERS / 4 - 1).astype(np.float32)[i],
        (INDEX,),
    ),
    Exact("through_cache", ops.through_cache, lambda x: x, (A,)),
    Exact("any", lambda x: ops.any(x, axis=0), lambda x: x.any(0), (TIES,)),
    Exact(
        "all",
        lambda x: ops.all(x, axis=1, keepdim=True),
        lambda x: x.all(1, keepdims=True),
        (TIES,),
    ),
    Exact("argmax", lambda x: ops.argmax(x, axis=1), lambda x: x.argmax(1), (TIES,)),
    Exact("argmin", lambda x: ops.argmin(x), lambda x: x.argmin(), (TIES,)),
    *(
        Exact(op.name, op, getattr(np, op.name), (BITS, BITS[::-1].copy()))
        for op in (ops.bitwise_and, ops.bitwise_or, ops.bitwise_xor)
    ),
    Exact("bitwise_not", ops.bitwise_not, np.invert, (BITS,)),
    Exact("left_shift", ops.left_shift, np.left_shift, (BITS, np.array([0, 1, 2, 3]))),
    Exact("right_shift", ops.right_shift, np.right_shift, (BITS, np.array([0, 1, 2, 3]))),
    Exact(
        "argsort",
        lambda x: ops.argsort(x, axis=1),
        lambda x: np.argsort(x, axis=1, kind="stable"),
        (TIES,),
    ),
    Exact(
        "cummax_index",
        lambda x: ops.cummax_index(x, axis=1),
        lambda x: np.array([[0, 0, 2], [0, 1, 2]]),
        (TIES,),
    ),
    Exact("unique", ops.unique, np.unique, (TIES,)),
    Exact(
        "unique, inverse",
        lambda x: ops.unique(x, return_inverse=True)[1],
        lambda x: np.unique(x, return_inverse=True)[1].reshape(x.shape),
        (TIES,),
    ),
    Exact("bincount", ops.bincount, np.bincount, (np.array([3, 0, 3, 1]),)),
    Exact("searchsorted", ops.searchsorted, np.searchsorted, (np.array([0.5, 1.0, 3.0]), TIES)),
    Exact("nonzero", ops.nonzero, np.argwhere, (TIES,)),
    Exact(
        "one_hot",
        lambda i: ops.one_hot(i, num_classes=3),
        lambda i: np.eye(3, dtype=np.int64)[i],
        (INDEX,),
    ),
    Exact(
        "last_at",
        lambda i: ops.last_at(i, spec=(ops.index.ARRAY,), shape=(4,)),
        lambda i: np.array([0, 1, 1], bool),
        (np.array([-1, 0, 3]),),
    ),
]
