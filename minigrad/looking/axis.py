"""An axis: from numbers to pixels, with ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from minigrad.dtypes import Array

_MARGIN = 0.04  # of the range, beyond the smallest and the largest number
_LOG_STEPS = ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10)))  # per decade, from coarse to fine


@dataclass(frozen=True)
class Axis:
    """The numbers from low to high on the pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def around(
        cls,
        numbers: Array,
        start: float,
        end: float,
        *,
        log: bool = False,
        zero: bool = False,
        margin: float = _MARGIN,
    ) -> Axis:
        """The axis on which all these numbers lie. zero: it begins at 0 at the latest. With `log`
        they must be positive.
        """
        low, high = (float(numbers.min()), float(numbers.max())) if len(numbers) else (1.0, 10.0)
        low = min(low, 0.0) if zero and not log else low
        a, b = (math.log10(low), math.log10(high)) if log else (low, high)
        if b - a <= 1e-9 * max(abs(a), abs(b)):
            half = 0.1 if log else 0.1 * abs(a) or 1.0
            a, b = a - half, b + half
        room = margin * (b - a)
        a, b = (a if zero and a == 0 and not log else a - room), b + room
        return cls(10**a if log else a, 10**b if log else b, start, end, log)

    def place(self, numbers: Array | float) -> Array:
        """The pixels of these numbers."""
        scale = np.log10 if self.log else np.asarray
        low, high = scale(self.low), scale(self.high)
        return self.start + (scale(numbers) - low) / (high - low) * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Round numbers on the axis, `about` so many."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in _LOG_STEPS:
                found = [
                    s * 10.0**d
                    for d in decades
                    for s in steps
                    if self.low <= s * 10.0**d <= self.high
                ]
                if len(found) >= 3:
                    return found[:: math.ceil(len(found) / (about + 3))]
        return self._even_ticks(about)

    def _even_ticks(self, about: int) -> list[float]:
        rough = (self.high - self.low) / about
        size = 10.0 ** math.floor(math.log10(rough))
        step = size * min((1, 2, 5, 10), key=lambda s: abs(math.log(s * size / rough)))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def spelled(numbers: Iterable[float]) -> list[str]:
    """The numbers of one axis in short: 0.5, 1,500, 20k, 1.2M, 3e-4."""
    values = list(numbers)
    largest = max(map(abs, values), default=0.0)
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if largest >= (1e4 if unit == 1e3 else unit):
            return [f"{v / unit:g}{sign}" if v else "0" for v in values]
    if largest < 1e-2:
        return [_scientific(v) for v in values]
    return [f"{v:,.10g}" for v in values]


def _scientific(value: float) -> str:
    mantissa, _, exponent = f"{value:.6e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}" if value else "0"
