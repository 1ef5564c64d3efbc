"""What tests of single ops in C share: a step is run until it is replayed, on several numbers of
threads, and compared with eager.
"""

import numpy as np
import pytest

from minigrad import Tensor
from minigrad.compiler import jit

EPS = float(np.finfo(np.float32).eps)


def as_for_users(kinds, own):
    """The params of a fixture that builds C for kinds of CPU: with all options for this CPU's own,
    in less time for the others.
    """
    return [pytest.param(k, marks=pytest.mark.as_for_users) if k == own else k for k in kinds]


def compiled(function, *arrays, threads=(1, 3)):
    """(the results in C, those of eager), as lists of arrays. Everything is in C, and the number of
    threads changes no bit.
    """
    inputs = [Tensor(a) for a in arrays]
    wanted = function(*inputs)
    found = []
    for n in threads:
        step = jit(function, backend="c", threads=n)
        for _ in range(3):
            got = step(*inputs)
        assert "phase" in step.explain() and "numpy" not in step.explain(), step.explain()
        found.append([np.array(t.numpy()) for t in (got if isinstance(got, tuple) else (got,))])
    assert all(
        np.array_equal(g, f, equal_nan=True)
        for other in found[1:]
        for g, f in zip(other, found[0], strict=True)
    )
    return found[0], [t.numpy() for t in (wanted if isinstance(wanted, tuple) else (wanted,))]


def with_gradients(function, *others):
    """The function, and the gradients of its floating operands by a fixed cotangent."""

    def step(*inputs):
        inputs = [t.detach().requires_grad_() if t.dtype.kind == "f" else t for t in inputs]
        y = function(*inputs, *others)
        g = np.cos(np.arange(y.numel(), dtype=np.float32)).reshape(y.shape)
        return y.detach(), *y.gradient(*(t for t in inputs if t.requires_grad), gradient=Tensor(g))

    return step


def near(got, wanted, factor=64):
    """Equal to float32 rounding, beside the largest finite number; infinities and NaN where eager
    has them.
    """
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return False
    if wanted.dtype.kind != "f":
        return np.array_equal(got, wanted)
    scale = max(1e-30, float(np.abs(wanted).max(initial=0, where=np.isfinite(wanted))))
    return np.allclose(got, wanted, rtol=0, atol=factor * EPS * scale, equal_nan=True)
