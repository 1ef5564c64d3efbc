"""The heads of attention, in and out of one row: views and copies that would be five ops, and in
backward ten, if composed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.ops.axis import fits
from minigrad.ops.elementwise import zeros_like
from minigrad.ops.movement import permute, reshape
from minigrad.primitive import primitive


@primitive(kind="view", outputs=3)
def split_heads(qkv: Array, *, n_head: int) -> tuple[Array, Array, Array]:
    """q, k and v of each head from their common product: (B, T, 3 C) -> three views (B, H, T, D)
    with H D = C.
    """
    B, T, C3 = qkv.shape
    problem = f"{C3} features do not split into 3 times {n_head} heads"
    fits(C3 % (3 * n_head) == 0, "split_heads", problem, C3)
    heads = qkv.reshape(B, T, 3, n_head, C3 // (3 * n_head))
    q, k, v = heads.transpose(2, 0, 3, 1, 4)  # each (B, H, T, D)
    return q, k, v


@split_heads.vjp
def _(g, _y, _qkv, *, n_head):
    some = next(part for part in g if part is not None)
    return (join_heads(*(zeros_like(some) if part is None else part for part in g)),)


@primitive(kind="gather", dtype="same")
def join_heads(q: Array, k: Array, v: Array) -> Array:
    """The transpose of `split_heads`: three of (B, H, T, D) -> (B, T, 3 H D)."""
    B, H, T, D = q.shape
    y = np.empty((B, T, 3 * H * D), q.dtype)
    for place, part in _in_rows(y, q, k, v):
        place[...] = part
    return y


def _in_rows(y: Array, *xs: Array) -> Any:
    """The places of n operands (B, H, T, D) in y, (B, T, n H D)."""
    B, H, T, D = xs[0].shape
    return list(zip(y.reshape(B, T, len(xs), H, D).transpose(2, 0, 3, 1, 4), xs, strict=True))


join_heads.parts = _in_rows


@join_heads.vjp
def _(g, _y, _q, _k, _v):
    return split_heads(g, n_head=_q.shape[1])


@primitive(kind="gather")
def merge_heads(x: Array) -> Array:
    """The heads of each position side by side: (B, H, T, D) -> (B, T, H D)."""
    B, H, T, D = x.shape
    return x.transpose(0, 2, 1, 3).reshape(B, T, H * D)


merge_heads.parts = _in_rows


@merge_heads.vjp
def _(g, _y, _x):
    B, H, T, D = _x.shape
    return (permute(reshape(g, shape=(B, T, H, D)), order=(0, 2, 1, 3)),)
