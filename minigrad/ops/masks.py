"""Causal masks as windows into one short band.

Row i of a causal mask is row 0 shifted by i places, so every mask of every size is a view, with
strides (-1, 1), of a band of as many bytes as it has rows and columns: nothing of the size of the
mask is ever built.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minigrad.arguments import as_int
from minigrad.dtypes import Array


class MaskInfo(NamedTuple):
    """Requests answered from the band, requests for which it was made or grown, and its size."""

    hits: int
    misses: int
    bytes: int


class CausalMaskCache:
    """Causal masks of any length and offset: read-only views of one band, which is made on first
    use and grows by doubling.

    max_bytes: what does not fit is made for the call and not kept: the band of bool,
        and its float form, four times as long.
    """

    _band: Array
    _floats: Array
    _last: tuple[tuple[int, ...], Array]  # what `added` returned last, and for which arguments

    def __init__(self, max_bytes: int = 1 << 20) -> None:
        self.max_bytes = max_bytes
        self.clear()

    def get_or_create(self, seq_len: int, offset: int = 0) -> Array:
        """Return the mask of `seq_len` queries after `offset` earlier keys, (seq_len, offset +
        seq_len) of bool: True where j <= i + offset.

        Raises ConfigError unless both are integers >= 0.
        """
        seq_len = as_int("CausalMaskCache", "seq_len", seq_len, 0)
        offset = as_int("CausalMaskCache", "offset", offset, 0)
        band, middle = self._band_for(seq_len + offset + 1)
        return _window(band, middle - offset - 1, seq_len, offset + seq_len)

    def added(self, T: int, S: int, offset: int, before: bool = False) -> Array:
        """Return what hides keys when it is added to scores, (T, S) of float32: -inf where j > i +
        offset, or with `before` where j <= i + offset, else 0. For any offset, negative too.
        """
        asked, window = self._last
        if asked == (T, S, offset, before):  # by the layer before
            self._hits += 1
            return window
        n, floats = self._floats_for(max(T, S) + abs(offset) + 1)
        window = _window(floats, (n if before else 2 * n) - offset - 1, T, S)
        if floats is self._floats:
            self._last = (T, S, offset, before), window
        return window

    def _floats_for(self, reach: int) -> tuple[int, Array]:
        """Return n and the band as numbers to add."""
        band, n = self._band_for(reach)
        floats = self._floats
        if floats.size != band.size:
            floats = np.where(band, np.float32(-np.inf), np.float32(0))
            floats.flags.writeable = False
            if band is self._band and band.nbytes + floats.nbytes <= self.max_bytes:
                self._floats = floats
        return n, floats

    def info(self) -> MaskInfo:
        """Return hits, misses and bytes since the last clear()."""
        return MaskInfo(self._hits, self._misses, self._band.nbytes + self._floats.nbytes)

    def clear(self) -> None:
        """Forget the band and the counts."""
        self._band, self._floats = np.zeros(0, np.bool_), np.zeros(0, np.float32)
        self._last = (), self._floats
        self._hits = self._misses = 0

    def __len__(self) -> int:
        """Return how many bands are kept: 0 or 1."""
        return int(self._band.size > 0)

    def _band_for(self, reach: int) -> tuple[Array, int]:
        """Return a band of `n` times True, `n` False, `n` True with n >= reach, and n."""
        band = self._band
        if band.size >= 3 * reach:
            self._hits += 1
            return band, band.size // 3
        self._misses += 1
        n = max(64, 1 << (reach - 1).bit_length())
        band = np.ones(3 * n, np.bool_)
        band[n : 2 * n] = False
        band.flags.writeable = False
        if band.nbytes <= self.max_bytes:
            self._band, self._floats = band, np.zeros(0, np.float32)
        return band, n


def _window(band: Array, start: int, rows: int, columns: int) -> Array:
    """Return the view w[i, j] = band[start - i + j]."""
    size = band.itemsize
    return np.ndarray((rows, columns), band.dtype, band, offset=start * size, strides=(-size, size))


causal_masks = CausalMaskCache()
