"""More rows of the op table: activations, scans, sorting, indexing, scattering, einsum,
convolution, losses.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad import ops
from tests import formulas as f, oracle as o
from tests.engine.table import POSITIVE, REAL, Case, N
from tests.engine.vocabulary import VOCABULARY

V, VV = ((N,),), ((N,), (N,))
M = ((3, 4),)
ZERO, ONE = o.given(0), o.given(1)


def erfc(x: Any) -> Any:
    return o.lift(
        o.mp.erfc,
        lambda x: _with_square(x, -1),
        lambda x: _with_square(x, 2 * x),
        lambda x: (2 - 4 * x * x) * _density(x),
    )(x)


def _density(x: Any) -> Any:
    return 2 / o.mp.sqrt(o.mp.pi) * o.mp.exp(-x * x)


def _with_square(x: Any, factor: Any) -> Any:
    return factor * _density(x)


gauss = o.lift(
    *(
        lambda x, p=p: p(x) * o.mp.exp(-x * x)
        for p in (
            lambda x: 1,
            lambda x: -2 * x,
            lambda x: 4 * x * x - 2,
            lambda x: 12 * x - 8 * x**3,
        )
    )
)

ACTIVATIONS = [
    Case("erfc", ops.erfc, erfc, V, wide=0.005),
    Case("gauss", ops.gauss, gauss, V, wide=0.005),
    Case("logaddexp", ops.logaddexp, f.logaddexp, VV, wide=0.02),
    Case("lerp", ops.lerp, lambda a, b, w: a + (b - a) * w, ((N,), (N,), (N,)), wide=0.2),
    Case("softplus", ops.softplus, o.softplus, V, wide=0.02),
    Case(
        "softplus, beta 2",
        lambda x: ops.softplus(x, 2.0),
        lambda x: o.softplus(x * 2) / 2,
        V,
        wide=0.02,
    ),
    Case("logsigmoid", ops.logsigmoid, f.logsigmoid, V, wide=0.02),
    Case("softsign", ops.softsign, f.softsign, V, wide=0.2),
    Case("silu", ops.silu, f.silu, V, wide=0.02, budget=64),
    Case("quick_gelu", ops.quick_gelu, f.quick_gelu, V, wide=0.02, budget=64),
    Case("mish", ops.mish, f.mish, V, wide=0.02, budget=64),
    Case(
        "gelu",
        ops.gelu,
        lambda x: x / 2 * erfc(x * -o.constant(1 / o.mp.sqrt(2))),
        V,
        wide=0.005,
        budget=64,
    ),
    Case("relu6", ops.relu6, f.relu6, V),
    Case("leaky_relu", ops.leaky_relu, f.leaky_relu, V),
    Case("elu", ops.elu, f.elu, V),
    Case("selu", ops.selu, f.selu, V),
    Case("celu", lambda x: ops.celu(x, 2.0), f.celu, V),
    Case("hardtanh", ops.hardtanh, f.hardtanh, V),
    Case("hardsigmoid", ops.hardsigmoid, f.hardsigmoid, V, wide=0.2),
    Case("hardswish", ops.hardswish, f.hardswish, V, wide=0.2),
]

KINDS = np.array([[0, 2, 1, 0], [2, 2, 0, 1]])


def running_product(x: Any) -> Any:
    return np.multiply.accumulate(x, axis=1)


def recurrence(a: Any, b: Any) -> Any:
    rows = [b[0]]
    for k in range(1, len(b)):
        rows.append(a[k] * rows[-1] + b[k])
    return np.array(rows, dtype=object)


def flattened_products(x: Any) -> Any:
    """The products over the first and last axis of three."""
    return np.multiply.reduce(x.transpose(1, 0, 2).reshape(x.shape[1], -1), axis=1)


SCANS = [
    Case("cumsum", lambda x: ops.cumsum(x, axis=0), lambda x: np.add.accumulate(x, axis=0), M),
    Case("cumprod", lambda x: ops.cumprod(x, axis=1), running_product, M, wide=0.1, budget=64),
    Case(
        "recurrence",
        lambda a, b: ops.recurrence(a, b, axis=0),
        recurrence,
        ((4, 2), (4, 2)),
        wide=0.1,
        budget=64,
    ),
    Case(
        "prod",
        lambda x: ops.prod(x),
        lambda x: np.multiply.reduce(x.reshape(-1)),
        ((2, 3),),
        wide=0.1,
    ),
    Case(
        "prod, two axes",
        lambda x: ops.prod(x, axis=(0, 2)),
        flattened_products,
        ((2, 3, 2),),
        wide=0.1,
    ),
    Case("cummax", lambda x: ops.cummax(x, axis=-1)[0], f.cummax, M),
    Case(
        "logcumsumexp",
        lambda x: ops.logcumsumexp(x, axis=1),
        f.logcumsumexp,
        M,
        wide=0.02,
        budget=64,
    ),
    Case("std", lambda x: ops.std(x, axis=1), lambda x: o.sqrt(f.var(x, 1)), M, wide=0, budget=64),
    Case(
        "std_mean",
        lambda x: sum(ops.std_mean(x, axis=1)),
        lambda x: o.sqrt(f.var(x, 1)) + f.mean(x, 1),
        M,
        wide=0,
        budget=64,
    ),
    Case("sort", lambda x: ops.sort(x, axis=0)[0], lambda x: np.sort(x, axis=0), M),
    Case("topk", lambda x: ops.topk(x, 2, axis=1)[0], lambda x: -np.sort(-x, axis=1)[:, :2], M),
]


def written(x: Any, src: Any, index: Any, reduce: str = "") -> Any:
    """scatter along the last axis, element by element."""
    y = x.copy()
    for i, j in np.ndindex(index.shape):
        place = i, index[i, j]
        y[place] = {
            "": src[i, j],
            "sum": y[place] + src[i, j],
            "prod": y[place] * src[i, j],
            "amax": max(y[place], src[i, j]),
        }[reduce]
    return y


def added(g: Any, shape: tuple[int, ...], index: Any) -> Any:
    y = np.full(shape, ZERO, dtype=object)
    return written(y, g, index, "sum")


def keyed(x: Any, value: Any, *key: Any) -> Any:
    y = x.copy()
    y[key] = value
    return y


ROWS, COLUMNS = np.array([0, -1, 0]), np.array([1, 1, -2])
MASK = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]], bool)
PAIR = (ops.index.ARRAY, ops.index.ARRAY)
ONE_KEY = (ops.index.ARRAY,)
SPLIT = (slice(None), ops.index.ARRAY)
INDEXING = [
    Case(
        "take_along",
        lambda x, i: ops.take_along(x, i, axis=1),
        lambda x, i: np.take_along_axis(x, i, 1),
        ((2, 3),),
        extra=(KINDS,),
    ),
    Case(
        "add_along",
        lambda g, i: ops.add_along(g, i, axis=1, shape=(3, 3)),
        lambda g, i: added(g, (3, 3), i),
        ((2, 4),),
        extra=(KINDS,),
    ),
    Case(
        "scatter",
        lambda x, s, i: ops.scatter(x, 1, i, s),
        written,
        ((3, 3), (2, 4)),
        extra=(KINDS,),
    ),
    Case(
        "take, pairs",
        lambda x, i, j: ops.take(x, i, j, spec=PAIR),
        lambda x, i, j: x[i, j],
        M,
        extra=(ROWS, COLUMNS),
    ),
    Case(
        "take, rows", lambda x, i: ops.take(x, i, spec=ONE_KEY), lambda x, i: x[i], M, extra=(ROWS,)
    ),
    Case(
        "take, columns",
        lambda x, i: ops.take(x, i, spec=SPLIT),
        lambda x, i: x[:, i],
        M,
        extra=(COLUMNS,),
    ),
    Case(
        "take, a mask",
        lambda x, m: ops.take(x, m, spec=ONE_KEY),
        lambda x, m: x[m],
        M,
        extra=(MASK,),
    ),
    Case(
        "add_at",
        lambda g, i: ops.add_at(g, i, spec=SPLIT, shape=(2, 5)),
        lambda g, i: added(g, (2, 5), np.stack([i % 5, i % 5])),
        ((2, 3),),
        extra=(COLUMNS,),
    ),
    Case(
        "put, pairs",
        lambda x, v, i, j: ops.put(x, v, i, j, spec=PAIR),
        keyed,
        (*M, (3,)),
        extra=(ROWS, COLUMNS),
    ),
    Case(
        "put, a mask",
        lambda x, v, m: ops.put(x, v, m, spec=ONE_KEY),
        keyed,
        (*M, (4,)),
        extra=(MASK,),
    ),
    Case(
        "put, a slice",
        lambda x, v: ops.put(x, v, spec=(slice(1, 3), 0)),
        lambda x, v: keyed(x, v, slice(1, 3), 0),
        (*M, (2,)),
    ),
    Case(
        "scatter_reduce, prod",
        lambda x, s, i: ops.scatter_reduce(x, 1, i, s, "prod"),
        lambda x, s, i: written(x, s, i, "prod"),
        ((3, 3), (2, 4)),
        extra=(KINDS,),
        wide=0.1,
    ),
    Case(
        "scatter_reduce, amax",
        lambda x, s, i: ops.scatter_reduce(x, 1, i, s, "amax"),
        lambda x, s, i: written(x, s, i, "amax"),
        ((3, 3), (2, 4)),
        extra=(KINDS,),
    ),
    Case(
        "scatter_reduce, sum",
        lambda x, s, i: ops.scatter_reduce(x, 1, i, s, "sum"),
        lambda x, s, i: written(x, s, i, "sum"),
        ((3, 3), (2, 4)),
        extra=(KINDS,),
    ),
]

ARRANGED = [
    Case("roll", lambda x: ops.roll(x, (1, -2), (0, 1)), lambda x: np.roll(x, (1, -2), (0, 1)), M),
    Case("roll, flat", lambda x: ops.roll(x, 5), lambda x: np.roll(x, 5), M),
    Case("repeat", lambda x: ops.repeat(x, (2, 1, 3)), lambda x: np.tile(x, (2, 1, 3)), M),
    Case(
        "repeat_interleave",
        lambda x: ops.repeat_interleave(x, 2, 1),
        lambda x: np.repeat(x, 2, 1),
        M,
    ),
    Case(
        "repeat_interleave, counts",
        lambda x: ops.repeat_interleave(x, (2, 0, 1), 0),
        lambda x: np.repeat(x, (2, 0, 1), 0),
        M,
    ),
    Case(
        "tril",
        lambda x: ops.tril(x, 1),
        lambda x: np.where(np.tri(3, 4, 1, dtype=bool), x, ZERO),
        M,
    ),
    Case(
        "triu",
        lambda x: ops.triu(x, -1),
        lambda x: np.where(np.tri(3, 4, -2, dtype=bool), ZERO, x),
        M,
    ),
    Case(
        "diagonal",
        lambda x: ops.diagonal(x, 1, 0, 2),
        lambda x: np.diagonal(x, 1, 0, 2),
        ((3, 2, 3),),
    ),
    Case(
        "meshgrid",
        lambda a, b: sum(ops.meshgrid(a, b, indexing="xy")),
        lambda a, b: sum(np.meshgrid(a, b)),
        ((3,), (4,)),
    ),
    Case(
        "pad, reflect",
        lambda x: x.pad(((0, 0), (2, 1)), "reflect"),
        lambda x: x[:, [2, 1, 0, 1, 2, 3, 2]],
        M,
    ),
    Case(
        "rearrange",
        lambda x: ops.rearrange(x, "a (b c) -> (c a) b", b=2),
        lambda x: x.reshape(3, 2, 2).transpose(2, 0, 1).reshape(6, 2),
        M,
    ),
    Case("unflatten", lambda x: ops.unflatten(x, 1, (2, -1)), lambda x: x.reshape(3, 2, 2), M),
    Case(
        "unfold",
        lambda x: ops.unfold(x, axis=1, size=2, step=2, dilation=2),
        lambda x: np.stack([x[:, 0:4:2], x[:, 2:6:2]], axis=1),
        ((2, 6),),
    ),
    Case(
        "fold",
        lambda g: ops.fold(g, axis=0, length=4),
        lambda g: np.array([g[0, 0], g[0, 1] + g[1, 0], g[1, 1] + g[2, 0], g[2, 1]], dtype=object),
        ((3, 2),),
    ),
]

PICTURE, KERNEL = (2, 4, 5, 4), (6, 4, 3, 2)
CONTRACTED = [
    Case(
        "einsum, batched",
        lambda a, b: ops.einsum("bij,bjk->bki", a, b),
        lambda a, b: (a @ b).transpose(0, 2, 1),
        ((2, 3, 4), (2, 4, 2)),
        wide=0.4,
    ),
    Case(
        "einsum, three",
        lambda a, b, c: ops.einsum("i,j,ij", a, b, c),
        lambda a, b, c: a @ c @ b,
        ((3,), (4,), (3, 4)),
        wide=0.2,
        budget=64,
    ),
    Case("einsum, a trace", lambda a: ops.einsum("ii", a), lambda a: np.trace(a), ((3, 3),)),
    Case(
        "conv",
        lambda x, w, b: ops.conv2d(x, w, b, stride=2, padding=1),
        lambda x, w, b: f.conv(x, w, b, stride=2, padding=1),
        (PICTURE, KERNEL, (6,)),
        wide=0.2,
        second=False,
    ),
    Case(
        "conv, one axis",
        lambda x, w: ops.conv1d(x, w),
        lambda x, w: f.conv(x, w),
        ((2, 2, 4), (3, 2, 2)),
        wide=0.2,
    ),
    Case(
        "max_pool2d",
        lambda x: ops.max_pool2d(x, 2),
        lambda x: f.windows(x, (2, 2), 2).reshape(1, 1, 2, 2, 4).max(-1),
        ((1, 1, 4, 4),),
    ),
    Case(
        "avg_pool2d",
        lambda x: ops.avg_pool2d(x, 2),
        lambda x: f.windows(x, (2, 2), 2).reshape(1, 1, 2, 2, 4).sum(-1) / 4,
        ((1, 1, 4, 4),),
    ),
    Case(
        "batchnorm",
        ops.batchnorm,
        lambda x, w, b, m, s: (x - m[:, None]) * s[:, None] * w[:, None] + b[:, None],
        ((2, 3, 2), (3,), (3,), (3,), (3,)),
        wide=0,
        budget=64,
    ),
]

CLASSES = np.array([2, -100, 0])
LOSSES = [
    Case(
        "mse", ops.mse_loss, lambda x, y: f.mean((x - y) * (x - y)), (*M, *M), wide=0.2, budget=64
    ),
    Case(
        "binary_crossentropy",
        ops.binary_cross_entropy,
        f.binary_cross_entropy,
        (*M, *M),
        domain=(0.0, 1.0),
        wide=0,
    ),
    Case(
        "binary_crossentropy_logits",
        ops.binary_cross_entropy_with_logits,
        f.binary_cross_entropy_with_logits,
        (*M, *M),
        wide=0.02,
        budget=64,
    ),
    Case("nll_loss", ops.nll_loss, lambda x, t: -(x[0, 2] + x[2, 0]) / 2, M, extra=(CLASSES,)),
    Case(
        "cross_entropy_loss",
        ops.loss.cross_entropy,
        f.cross_entropy,
        M,
        extra=(CLASSES,),
        wide=0.02,
        budget=64,
    ),
]

LOSSES += [
    Case(
        "l1_loss",
        ops.l1_loss,
        lambda x, y: f.mean(o.elementwise(lambda d: abs(d))(x - y)),
        (*M, *M),
        wide=0.2,
        budget=64,
    ),
    Case(
        "huber_loss",
        lambda x, y: ops.huber_loss(x, y, reduction="none", delta=0.75),
        lambda x, y: f.huber(x - y, 0.75),
        (*M, *M),
        wide=0.2,
        budget=64,
    ),
    Case(
        "smooth_l1_loss",
        lambda x, y: ops.smooth_l1_loss(x, y, reduction="sum", beta=0.5),
        lambda x, y: np.sum(f.huber(x - y, 0.5)) * 2,
        (*M, *M),
        wide=0.2,
        budget=64,
    ),
    Case(
        "kl_div",
        lambda x, y: ops.kl_div(x, y, reduction="batchmean"),
        lambda x, y: np.sum(y * (o.log(y) - x)) / 3,
        (*M, *M),
        domain=(REAL, (0.0, 1.0)),
        wide=0,
        budget=64,
    ),
    Case(
        "kl_div of logarithms",
        lambda x, y: ops.kl_div(x, y, log_target=True),
        lambda x, y: f.mean(o.exp(y) * (y - x)),
        (*M, *M),
        wide=0,
        budget=64,
    ),
    Case(
        "binary_crossentropy, weighted",
        ops.binary_cross_entropy,
        lambda p, y, w: f.mean(-w * (y * o.log(p) + (1 - y) * o.log(1 - p))),
        (*M, *M, (4,)),
        domain=(0.0, 1.0),
        wide=0,
    ),
    Case(
        "binary_crossentropy_logits, weighted",
        lambda x, y, w, p: ops.binary_cross_entropy_with_logits(x, y, w, pos_weight=p),
        lambda x, y, w, p: f.mean(w * ((1 - y) * o.softplus(x) + p * y * o.softplus(-x))),
        (*M, *M, (4,), (4,)),
        domain=(REAL, REAL, POSITIVE, POSITIVE),
        wide=0,
        budget=64,
    ),
    Case(
        "nll_loss, weighted, classes on axis 1",
        lambda x, w, t: ops.nll_loss(x, t, w),
        lambda x, w, t: -(w[3] * x[0, 3, 0] + w[1] * x[0, 1, 1]) / (w[3] + w[1]),
        ((1, 4, 3), (4,)),
        extra=(np.array([[3, 1, -100]]),),
        domain=(REAL, POSITIVE),
        wide=0.2,
        budget=64,
    ),
    Case(
        "cross_entropy_loss, weighted and smoothed",
        lambda x, w, t: ops.loss.cross_entropy(x, t, w, label_smoothing=0.25),
        f.weighted_cross_entropy,
        (*M, (4,)),
        extra=(CLASSES,),
        domain=(REAL, POSITIVE),
        wide=0,
        budget=64,
    ),
    Case(
        "cross_entropy_loss of probabilities",
        ops.loss.cross_entropy,
        lambda x, q: -np.sum(f.log_softmax(x) * q) / 3,
        (*M, *M),
        domain=(REAL, (0.0, 1.0)),
        wide=0,
        budget=64,
    ),
]

ON_OR_OFF = np.array(
    [[True, False, False, True], [False, True, False, False], [True, True, True, False]]
)
METHODS = [
    Case("Tensor.view", lambda x: x.view(2, -1), lambda x: x.reshape(2, 6), M),
    Case("Tensor.shrink", lambda x: x.shrink(((1, 3), (0, 2))), lambda x: x[1:, :2], M),
    Case(
        "Tensor.var_mean",
        lambda x: sum(x.var_mean(axis=1)),
        lambda x: f.var(x, 1) + f.mean(x, 1),
        M,
        wide=0,
        budget=64,
    ),
    Case("Tensor.dot", lambda a, b: a.dot(b), np.matmul, ((4,), (4,)), wide=0.4),
    Case("Tensor.masked_select", lambda x: x.masked_select(ON_OR_OFF), lambda x: x[ON_OR_OFF], M),
    Case(
        "Tensor.sparse_categorical_crossentropy",
        lambda x, t: x.sparse_categorical_crossentropy(t, ignore_index=-100),
        f.cross_entropy,
        M,
        extra=(CLASSES,),
        wide=0.02,
        budget=64,
    ),
]

MORE_CASES = [
    *ACTIVATIONS,
    *SCANS,
    *INDEXING,
    *ARRANGED,
    *CONTRACTED,
    *LOSSES,
    *METHODS,
    *VOCABULARY,
]
