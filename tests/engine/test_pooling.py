"""Pooling against its definition, element by element, in every combination of its options."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from hypothesis import given, settings, strategies as st

from minigrad import Tensor, functional as F


def windows_of(length: int, k: int, s: int, p: int, d: int, ceil_mode: bool) -> list[list[int]]:
    """The places that each window covers along an axis, by PyTorch's documentation."""
    steps = (length + 2 * p - d * (k - 1) - 1) / s
    count = (math.ceil(steps) if ceil_mode else math.floor(steps)) + 1
    if ceil_mode and (count - 1) * s >= length + p:
        count -= 1
    return [[i * s - p + j * d for j in range(k)] for i in range(count)]


def inside(place: int, length: int, beyond: int = 0) -> bool:
    return -beyond <= place < length + beyond


def pooled(x: Any, options: list[tuple[int, ...]], ceil_mode: bool, mode: str) -> Any:
    """Pooling over the last axes; `options` are kernel, stride, padding and dilation per axis."""
    shape = x.shape[-len(options) :]
    axes = [windows_of(n, *o, ceil_mode) for n, o in zip(shape, options, strict=True)]
    y = np.zeros((*x.shape[: -len(options)], *map(len, axes)))
    for at in np.ndindex(*map(len, axes)):
        places = list(itertools.product(*(axis[i] for axis, i in zip(axes, at, strict=True))))
        values = [
            x[(..., *place)]
            for place in places
            if all(inside(q, n) for q, n in zip(place, shape, strict=True))
        ]
        counted = sum(
            all(inside(q, n, o[2]) for q, n, o in zip(place, shape, options, strict=True))
            for place in places
        )
        if mode == "max":
            y[(..., *at)] = np.max(values, axis=0, initial=-np.inf)
        else:
            divisor = counted if mode == "mean with padding" else len(values)
            y[(..., *at)] = np.sum(values, axis=0) / max(divisor, 1)
    return y


@st.composite
def poolings(draw: Any) -> Any:
    """Per axis: length, kernel, stride, padding, dilation; and ceil_mode."""
    axes = []
    for _ in range(2):
        k, d = draw(st.integers(1, 4)), draw(st.integers(1, 2))
        s, p = draw(st.integers(1, 5)), draw(st.integers(0, k // 2))
        n = draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), 9))
        axes.append((n, k, s, p, d))
    return axes, draw(st.booleans())


@settings(max_examples=150, deadline=None)
@given(poolings(), st.integers(0, 2**32 - 1))
def test_pooling_is_its_definition(case: Any, seed: int) -> None:
    axes, ceil_mode = case
    lengths, ks, ss, ps, ds = map(tuple, zip(*axes, strict=True))
    x = np.random.default_rng(seed).integers(-9, 9, (2, *lengths)).astype(np.float64)
    options = list(zip(ks, ss, ps, ds, strict=True))
    got = F.max_pool2d(Tensor(x), ks, ss, ps, ds, ceil_mode)
    np.testing.assert_array_equal(got.numpy(), pooled(x, options, ceil_mode, "max"))
    whole = F.max_pool2d(Tensor(x.astype(np.int64)), ks, ss, ps, ds, ceil_mode)
    assert whole.dtype == np.int64
    if np.isfinite(got.numpy()).all():
        np.testing.assert_array_equal(whole.numpy(), got.numpy())
    if ds != (1, 1):
        return
    for include, mode in ((True, "mean with padding"), (False, "mean")):
        mean = F.avg_pool2d(Tensor(x), ks, ss, ps, ceil_mode, include)
        np.testing.assert_allclose(
            mean.numpy(), pooled(x, options, ceil_mode, mode), rtol=1e-15, atol=1e-15
        )


def test_the_fifth_argument_of_avg_pool2d_is_ceil_mode() -> None:
    x = Tensor(np.arange(36.0).reshape(1, 1, 6, 6))
    assert F.avg_pool2d(x, 3, 2, 1, False).numpy()[0, 0, 0, 0] == (0 + 1 + 6 + 7) / 9
    assert F.avg_pool2d(x, 3, 2, 0, True).shape == (1, 1, 3, 3)
    assert F.max_pool2d(x, np.int64(3), np.int64(2), np.int64(0)).shape == (1, 1, 2, 2)
