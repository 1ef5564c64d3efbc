"""Random numbers that are a function of a seed and a counter, and of nothing else.

Philox 4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3")
turns a 128-bit counter and a 64-bit key into four 32-bit words. A generator is its state, a uint64
array [seed, counter]; drawing n words advances the counter by ceil(n / 4). So a state is saved as
two integers, the bits are the same from numpy and from C, and to draw the same again one sets the
counter back.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from minigrad.arguments import require
from minigrad.dtypes import Array, DType, float32, float64, int64
from minigrad.modes import MODE
from minigrad.ops.philox import philox
from minigrad.primitive import primitive

Shape = tuple[int, ...]


class Generator:
    """A stream of random numbers. `state` is the array [seed, counter]; random ops read it and
    advance it in place.

    seed: 0 .. 2**64 - 1.   Not thread-safe: give each thread its own.
    """

    def __init__(self, seed: int = 0) -> None:
        self.state = np.zeros(2, np.uint64)
        self.manual_seed(seed)

    def manual_seed(self, seed: int) -> Generator:
        """Start over with this seed."""
        good = isinstance(seed, (int, np.integer)) and 0 <= int(seed) < 1 << 64
        require(good, "manual_seed", "the seed", seed, "an integer from 0 to 2**64 - 1")
        self.state[:] = int(seed), 0
        return self

    def get_state(self) -> tuple[int, int]:
        """(seed, counter): all there is to save."""
        return int(self.state[0]), int(self.state[1])

    def set_state(self, state: tuple[int, int]) -> None:
        """Go on where `get_state` was taken."""
        self.state[:] = state

    def bits(self, n: int) -> Array:
        """n random uint32 words."""
        if (listener := MODE.get().listener) is not None:
            listener.drawing(self.state)
        return philox(self.state, n=n)

    def uniform(
        self, shape: Shape = (), low: float = 0.0, high: float = 1.0, dtype: DType = float32
    ) -> Array:
        """Numbers uniform in [low, high): float32 of 24 random bits each, or float64 of 53."""
        n, number = math.prod(shape), dtype.type
        if dtype == float64:
            upper, lower = self.bits(2 * n).astype(np.uint64).reshape(2, n)
            unit = ((upper << np.uint64(21)) ^ (lower >> np.uint64(11))).astype(float64) * 2.0**-53
        else:
            unit = (self.bits(n) >> np.uint32(8)).astype(float32) * number(2.0**-24)
        y = unit * number(high - low) + number(low)
        if high > low:  # rounding may reach high
            y = np.minimum(y, np.nextafter(number(high), number(low)))
        return y.reshape(shape)

    def normal(self, shape: Shape = (), mean: float = 0.0, std: float = 1.0) -> Array:
        """float32 numbers, normal with the given mean and standard deviation, by Box and Muller's
        transform in float64.
        """
        n = math.prod(shape)
        pairs = (n + 1) // 2
        u = self.bits(2 * pairs).astype(np.float64)
        radius = np.sqrt(-2.0 * np.log((u[:pairs] + 1.0) * 2.0**-32))  # + 1: never the log of 0
        angle = u[pairs:] * (2.0 * np.pi * 2.0**-32)
        y = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:n]
        return (y * std + mean).astype(float32).reshape(shape)

    def integers(self, low: int, high: int, shape: Shape = ()) -> Array:
        """int64 numbers, uniform in low .. high - 1 (bias below 2**-32 per unit of range, for
        ranges up to 2**32).
        """
        good = 0 < high - low <= 1 << 32
        require(good, "integers", "(low, high)", (low, high), "a range of 1 to 2**32 integers")
        wide = self.bits(math.prod(shape)).astype(np.uint64) * np.uint64(high - low)
        return ((wide >> np.uint64(32)).astype(int64) + low).reshape(shape)

    def permutation(self, n: int) -> Array:
        """The numbers 0 .. n - 1 in random order, int64."""
        high, low = self.bits(2 * n).astype(np.uint64).reshape(2, n)
        return np.argsort(high << np.uint64(32) | low, kind="stable")

    @contextlib.contextmanager
    def replaying(self, state: tuple[int, int]) -> Iterator[None]:
        """Inside, draw from `state`; afterwards go on as if nothing had been drawn."""
        now = self.get_state()
        self.set_state(state)
        try:
            yield
        finally:
            self.set_state(now)


class StateGenerator(Generator):
    """The generator of a state within an op that draws from it, which listeners see as that op."""

    def __init__(self, state: Array) -> None:
        self.state = state

    def bits(self, n: int) -> Array:
        return philox.forward(self.state, n=n)


@primitive(kind="random")
def draw(state: Array, *, how: str, **settings: Any) -> Array:
    """An array of random numbers, drawn by the Generator method `how` with these settings:
    "uniform", "normal", "integers" or "permutation". As an op, a compiled step draws new ones at
    each call.
    """
    return getattr(StateGenerator(state), how)(**settings)


default_generator = Generator(0)


def manual_seed(seed: int) -> Generator:
    """Seed the default generator, from which initial weights, dropout and sampling draw."""
    return default_generator.manual_seed(seed)
