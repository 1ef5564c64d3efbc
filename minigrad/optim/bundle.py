"""Parameters that are updated together, with their moments."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from minigrad import dtypes
from minigrad.tensor import Tensor

MomentShapes = Callable[[Tensor], Sequence[tuple[int, ...] | None]]
Moments = list[dtypes.Array | None]


class Bundle:
    """Parameters of one dtype that have been updated equally often, with their step count and their
    flat moments.

    Small parameters come first, so that they are neighbours. A parameter that gets no gradient in
    some step moves to a bundle of its own.
    shapes: of a parameter's moments, one each; None for a moment that it does not have.
    """

    def __init__(self, params: list[Tensor], shapes: MomentShapes, step: int = 0) -> None:
        self.params, self.shapes = sorted(params, key=lambda p: p.data.size), shapes
        dtype = np.float64 if self.params[0].dtype == np.float64 else np.float32
        sizes = [[_size(shape) for shape in shapes(p)] for p in self.params]
        self.step = Tensor._wrap(np.array(step, np.int64))
        self.moments = [
            Tensor._wrap(np.zeros(sum(column), dtype)) for column in zip(*sizes, strict=True)
        ]

    def views(self) -> list[tuple[Tensor, Moments]]:
        """Return each parameter with its part of each moment, in that moment's shape, sharing
        memory; None for a moment that it does not have.
        """
        found, starts = [], [0] * len(self.moments)
        for p in self.params:
            parts: Moments = []
            for i, (m, shape) in enumerate(zip(self.moments, self.shapes(p), strict=True)):
                stop = starts[i] + _size(shape)
                parts.append(None if shape is None else m.data[starts[i] : stop].reshape(shape))
                starts[i] = stop
            found.append((p, parts))
        return found

    def split(self) -> list[Bundle]:
        """Return two bundles: of the parameters with a gradient and of those without."""
        parts = []
        for has_grad in (True, False):
            chosen = [(p, m) for p, m in self.views() if (p.grad is not None) == has_grad]
            part = Bundle([p for p, _ in chosen], self.shapes, int(self.step.data))
            for (_, new), (_, old) in zip(part.views(), chosen, strict=True):
                copy_moments(new, old)
            parts.append(part)
        self.retire()
        return parts

    def retire(self) -> None:
        """Give up the memory after other bundles have taken over, so that a compiled step that
        writes to it is seen to be stale.
        """
        for t in (self.step, *self.moments):
            t.data = np.zeros(0, t.dtype)


def _size(shape: tuple[int, ...] | None) -> int:
    return 0 if shape is None else math.prod(shape)


def copy_moments(to: Moments, source: Moments) -> None:
    """Copy the moments that both have."""
    for new, old in zip(to, source, strict=True):
        if new is not None and old is not None:
            new[...] = old
