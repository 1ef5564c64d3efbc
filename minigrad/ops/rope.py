"""Rotary position embedding: pairs of features turned by angles that grow with the position. From
Su et al. 2021, arXiv:2104.09864.
"""

from __future__ import annotations

import numpy as np

from minigrad.dtypes import Array
from minigrad.ops.axis import fits
from minigrad.primitive import primitive


@primitive(kind="reduce")
def rope(x: Array, cos: Array, sin: Array, *, interleaved: bool = False) -> Array:
    """Turn the pairs (a, b) of features into (a cos - b sin, b cos + a sin).

    x: (..., T, D)   cos, sin: (T, R/2), or with leading axes that broadcast to x's, R <= D;
        features from R on stay as they are.
    interleaved: pairs are (0, 1), (2, 3), ...; else (0, R/2), (1, R/2 + 1), ...   The angles are
        constants: no gradient flows into them.
    """
    half = cos.shape[-1]
    good = cos.shape == sin.shape and 2 * half <= x.shape[-1] and cos.ndim >= 2
    problem = f"x {x.shape} does not fit cos {cos.shape} and sin {sin.shape}"
    fits(good and cos.shape[-2] in (1, x.shape[-2]), "rope", problem, (cos.shape, sin.shape))
    cos, sin = (table.astype(x.dtype, copy=False) for table in (cos, sin))
    y = np.empty_like(x, subok=False)
    first, second = (
        (slice(0, 2 * half, 2), slice(1, 2 * half, 2))
        if interleaved
        else (slice(0, half), slice(half, 2 * half))
    )
    a, b = x[..., first], x[..., second]
    turned = np.multiply(a, cos, out=y[..., first])
    turned -= b * sin
    turned = np.multiply(b, cos, out=y[..., second])
    turned += a * sin
    y[..., 2 * half :] = x[..., 2 * half :]
    return y


@rope.vjp
def _(g, _y, _x, cos, sin, *, interleaved=False):
    return rope(g, cos, -sin, interleaved=interleaved), None, None
