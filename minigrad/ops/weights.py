"""What attention needs when its probabilities matter by themselves: dropout on them, and a gradient
that comes in through them.
"""

from __future__ import annotations

import numpy as np

from minigrad.dtypes import Array
from minigrad.ops.attention import attend, attend_grad, composed_weights, product_of_present
from minigrad.ops.contract import guard_matmul
from minigrad.ops.elementwise import quiet
from minigrad.primitive import primitive


@primitive(kind="contract", dtype="same", outputs=2)
@quiet
def dropped_attention(
    q: Array,
    k: Array,
    v: Array,
    kept: Array,
    mask: Array | None = None,
    *,
    scale: float,
    offset: int | None = None,
    factor: float,
) -> tuple[Array, Array]:
    """(P * kept * factor) v and P, with P = softmax(scale q k^T + mask): attention with dropout;
    see `attention`.

    kept: bool, of P's shape, which weights stay;  factor: what those are multiplied by, 1 / (1 -
        p).
    """
    return attend(q, k, v, _factors(kept, factor, q), mask, scale, offset)


def _factors(kept: Array, factor: float, like: Array) -> Array:
    return np.multiply(kept, like.dtype.type(factor), dtype=like.dtype)


@dropped_attention.vjp
def _(g, y, q, k, v, kept, mask=None, *, scale, offset=None, factor):
    gq, gk, gv, gm = dropped_attention_grad(
        g[0], q, k, v, kept, y[1], mask, scale=scale, offset=offset, factor=factor
    )
    return (
        (gq, gk, gv, None)
        if mask is None
        else (gq, gk, gv, None, gm if mask.dtype != np.bool_ else None)
    )


@dropped_attention.composed
def _(q, k, v, kept, mask=None, *, scale, offset=None, factor):
    return guard_matmul(composed_weights(q, k, mask, scale, offset) * kept * factor, v)


@primitive(kind="contract", outputs=4)
@quiet
def dropped_attention_grad(
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    kept: Array,
    p: Array,
    mask: Array | None,
    *,
    scale: float,
    offset: int | None,
    factor: float,
) -> tuple[Array, Array, Array, Array | None]:
    """The cotangents of q, k, v and of a float mask, from the probabilities p."""
    return attend_grad(g, q, k, v, _factors(kept, factor, q), p, mask, scale, offset)


@primitive(kind="contract", dtype="same")
@quiet
def attention_weights(
    q: Array, k: Array, mask: Array | None = None, *, scale: float, offset: int | None = None
) -> Array:
    """P = softmax(scale q k^T + mask) by itself, (..., T, S); operands as for `attention`. What is
    hidden has no weight and no influence.
    """
    nothing = np.zeros((*k.shape[:-1], 0), q.dtype)
    return attend(q, k, nothing, None, mask, scale, offset)[1]


@attention_weights.vjp
def _(g, y, q, k, mask=None, *, scale, offset=None):
    gq, gk, gs = attention_weights_grad(g, q, k, y, scale=scale)
    return (gq, gk) if mask is None else (gq, gk, gs if mask.dtype != np.bool_ else None)


@attention_weights.composed
def _(q, k, mask=None, *, scale, offset=None):
    return composed_weights(q, k, mask, scale, offset)


@primitive(kind="contract", outputs=3)
@quiet
def attention_weights_grad(
    g: Array, q: Array, k: Array, p: Array, *, scale: float
) -> tuple[Array, Array, Array]:
    """dS = P (g - rowsum(g P)), and of it scale dS k and scale dS^T q: the cotangents of q, k and
    the scores. A key without weight adds nothing.
    """
    present = (p != 0) & (g != 0).any(axis=-1, keepdims=True)  # nor does a row that nobody asks for
    ds = np.where(present, g, 0)
    ds -= np.vecdot(ds, np.where(present, p, 0))[..., None]
    ds = np.where(present, ds * p, 0)
    scaled = q.dtype.type(scale)
    gq = product_of_present(ds, k, present) * scaled
    gk = product_of_present(ds.swapaxes(-1, -2), q * scaled, present.swapaxes(-1, -2))
    return gq, gk, ds
