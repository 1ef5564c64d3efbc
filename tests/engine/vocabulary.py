"""Rows of the op table for the names that PyTorch users expect: reductions, movements, order,
convolution and resampling.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad import functional as F, ops
from tests import formulas as f, oracle as o
from tests.engine.table import Case

M = ((3, 4),)
ZERO = o.given(0)
PICK = np.array([2, 0, 2])
KINDS = np.array([[0, 2, 1, 0], [2, 2, 0, 1]])


def absolute(x: Any) -> Any:
    return o.elementwise(lambda a: abs(a))(x)


def added_rows(x: Any, rows: Any, index: Any, factor: int = 1) -> Any:
    y = x.copy()
    for i, row in zip(index, rows, strict=True):
        y[i] = y[i] + factor * row
    return y


def scattered(x: Any, src: Any, index: Any) -> Any:
    y = x.copy()
    for i, j in np.ndindex(index.shape):
        y[i, index[i, j]] = y[i, index[i, j]] + src[i, j]
    return y


def quantiles(x: Any) -> Any:
    """The 0.25- and 0.9-quantile of rows of 4: at places 0.75 and 2.7."""
    s = np.sort(x, axis=1)
    q = [o.number(float(v)) for v in (np.float64(0.25) * 3, np.float64(0.9) * 3 - 2)]
    return np.stack([s[:, 0] + (s[:, 1] - s[:, 0]) * q[0], s[:, 2] + (s[:, 3] - s[:, 2]) * q[1]])


def transposed_conv(x: Any, w: Any, b: Any) -> Any:
    """Stride 2, padding 1, one output more; (N, C, L), (C, O, K), (O,)."""
    (N, C, L), (_, O, K) = x.shape, w.shape
    y = np.full((N, O, (L - 1) * 2 + K + 1), ZERO, dtype=object)
    for n, c, m, k, j in np.ndindex(N, C, L, O, K):
        y[n, k, 2 * m + j] = y[n, k, 2 * m + j] + x[n, c, m] * w[c, k, j]
    return y[:, :, 1:-1] + b[:, None]


def norm2(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return o.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims))


def outer_rows(norm: Any, x: Any) -> Any:
    """A norm of rows, of the first and the last axis together: (2, 3, 2)."""
    return norm(x.transpose(1, 0, 2).reshape(3, 4)).reshape(3, 2, 2).transpose(1, 0, 2)


REDUCED = [
    Case("norm", lambda x: ops.norm(x, axis=1), lambda x: norm2(x, 1), M, wide=0.2, budget=64),
    Case("norm, 1", lambda x: ops.norm(x, p=1), lambda x: np.sum(absolute(x)), M, budget=64),
    Case(
        "norm, 3",
        lambda x: ops.norm(x, p=3, axis=0, keepdim=True),
        lambda x: o.elementwise(lambda t: o.power(t, o.mp.mpf(1) / 3))(
            np.sum(absolute(x) ** 3, axis=0, keepdims=True)
        ),
        M,
        wide=0,
        budget=64,
    ),
    Case(
        "norm, inf",
        lambda x: ops.norm(x, p=np.inf, axis=1),
        lambda x: f.extremum(absolute(x), 1, np.max),
        M,
    ),
    Case(
        "normalize",
        F.normalize,
        lambda x: x / norm2(x, 1, True),
        M,
        wide=0,
        budget=64,
    ),
    Case(
        "cosine_similarity",
        F.cosine_similarity,
        lambda a, b: np.sum(a * b, axis=1) / norm2(a, 1) / norm2(b, 1),
        (*M, *M),
        wide=0,
        budget=64,
    ),
    Case("trace", ops.trace, lambda x: x[0, 0] + x[1, 1] + x[2, 2], M),
    Case("median", lambda x: ops.median(x, axis=1), lambda x: np.sort(x, axis=1)[:, 1], M),
    Case("median of all", ops.median, lambda x: np.sort(x.reshape(-1))[5], M),
    Case(
        "quantile",
        lambda x: ops.quantile(x, [0.25, 0.9], axis=1),
        quantiles,
        M,
        wide=0,
        budget=64,
    ),
    Case("cummin", lambda x: ops.cummin(x, axis=-1)[0], lambda x: -f.cummax(-x), M),
    Case(
        "bincount, weighted",
        lambda w: ops.bincount(PICK, w, minlength=4),
        lambda w: np.array([w[1], ZERO, w[0] + w[2], ZERO], dtype=object),
        ((3,),),
    ),
]

MOVED = [
    Case("index_select", lambda x: ops.index_select(x, 1, PICK), lambda x: x[:, PICK], M),
    Case(
        "index_add",
        lambda x, s: ops.index_add(x, 1, PICK, s, 2),
        lambda x, s: added_rows(x.T, s.T, PICK, 2).T,
        (*M, (3, 3)),
    ),
    Case(
        "scatter_add",
        lambda x, s, i: ops.scatter_add(x, 1, i, s),
        scattered,
        ((3, 3), (2, 4)),
        extra=(KINDS,),
    ),
    Case("narrow", lambda x: ops.narrow(x, 1, 1, 2), lambda x: x[:, 1:3], M),
    Case("select", lambda x: ops.select(x, 1, -1), lambda x: x[:, -1], M),
    Case("diag", lambda x: ops.diag(x, -1), lambda x: f.diag(x, -1), ((3,),)),
    Case("diff", lambda x: ops.diff(x, 2), lambda x: np.diff(x, 2), M),
    Case("hstack", ops.hstack, lambda a, b: np.concatenate([a, b], 1), ((2, 3), (2, 1))),
    Case("vstack", ops.vstack, lambda a, b: np.concatenate([a[None], b], 0), ((3,), (2, 3))),
    Case(
        "tensordot",
        lambda a, b: ops.tensordot(a, b, ((0, 2), (1, 0))),
        lambda a, b: np.tensordot(a, b, ((0, 2), (1, 0))),
        ((2, 3, 4), (4, 2, 2)),
        wide=0.4,
    ),
    Case(
        "pad, circular, cut on the left",
        lambda x: x.pad(((0, 0), (-1, 2)), "circular"),
        lambda x: x[:, [1, 2, 3, 1, 2]],
        M,
    ),
]

RESAMPLED = [
    Case(
        "conv_transpose1d",
        lambda x, w, b: ops.conv_transpose1d(x, w, b, 2, 1, 1),
        transposed_conv,
        ((2, 2, 3), (2, 3, 4), (3,)),
        wide=0.2,
    ),
    Case(
        "conv2d, without a batch",
        ops.conv2d,
        lambda x, w: f.conv(x[None], w)[0],
        ((2, 3, 3), (3, 2, 2, 2)),
        wide=0.2,
    ),
    Case(
        "max_pool1d",
        lambda x: ops.max_pool1d(x, 2),
        lambda x: x.reshape(2, 3, 2).max(-1),
        ((2, 6),),
    ),
    Case(
        "avg_pool1d",
        lambda x: ops.avg_pool1d(x, 2, ceil_mode=True),
        lambda x: np.stack([(x[:, 0] + x[:, 1]) / 2, (x[:, 2] + x[:, 3]) / 2, x[:, 4]], 1),
        ((2, 5),),
    ),
    Case(
        "adaptive_avg_pool1d",
        lambda x: ops.adaptive_avg_pool1d(x, 2),
        lambda x: np.stack([x[:, :3].sum(1) / 3, x[:, 2:].sum(1) / 3], 1),
        ((2, 5),),
    ),
    Case(
        "interpolate, nearest",
        lambda x: ops.interpolate(x, 5),
        lambda x: x[..., [0, 0, 1, 1, 2]],
        ((1, 2, 3),),
    ),
    Case(
        "interpolate, linear",
        lambda x: ops.interpolate(x, scale_factor=2, mode="linear"),
        lambda x: np.stack(
            [
                x[..., 0],
                (3 * x[..., 0] + x[..., 1]) / 4,
                (x[..., 0] + 3 * x[..., 1]) / 4,
                x[..., 1],
            ],
            -1,
        ),
        ((1, 2, 2),),
    ),
    Case(
        "unfold of a picture",
        lambda x: F.unfold(x, 2, padding=1, stride=2),
        lambda x: f.columns(x),
        ((1, 2, 2, 2),),
    ),
    Case(
        "fold of columns",
        lambda x: F.fold(x, (2, 2), (1, 2), padding=(0, 1)),
        lambda x: np.stack(
            [
                np.stack([x[:, 1, 0] + x[:, 0, 1], x[:, 1, 1] + x[:, 0, 2]], 1),
                np.stack([x[:, 1, 3] + x[:, 0, 4], x[:, 1, 4] + x[:, 0, 5]], 1),
            ],
            1,
        )[:, None],
        ((1, 2, 6),),
    ),
]

NORMS = [
    Case(
        "layernorm, of columns",
        lambda x: x.layernorm(axis=0),
        lambda x: f.layer_norm(x.T).T,
        M,
        wide=0,
        budget=64,
    ),
    Case(
        "layernorm, two axes apart",
        lambda x: x.layernorm(axis=(0, 2)),
        lambda x: outer_rows(f.layer_norm, x),
        ((2, 3, 2),),
        wide=0,
        budget=64,
    ),
    Case(
        "rms_norm, two axes apart",
        lambda x: x.rms_norm(axis=(-1, 0), eps=1e-5),
        lambda x: outer_rows(f.rms_norm, x),
        ((2, 3, 2),),
        wide=0,
        budget=64,
    ),
]

VOCABULARY = [*REDUCED, *MOVED, *RESAMPLED, *NORMS]
