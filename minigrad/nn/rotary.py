"""Rotary positions: the angles by which queries and keys are turned. From Su et al. 2021, arXiv:2104.09864."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from minigrad import functional as F
from minigrad.dtypes import Array
from minigrad.errors import ConfigError, IndexRangeError
from minigrad.nn.layers import check_size
from minigrad.tensor import Tensor

Layout = Literal["half", "interleaved"]


class RotaryEmbedding:
    """Pair i of a head's features at position t is turned by the angle t * base^(-2i / rotary_dim).

    layout: "half" pairs feature i with i + rotary_dim/2 (GPT-NeoX, Llama in safetensors), "interleaved" 2i with 2i + 1 (the paper, GPT-J).
    rotary_dim: only so many features turn (head_dim unless given).   scaling, for contexts longer than those trained on, a dict with "type":
      "linear": positions are divided by "factor" (Chen et al. 2023, arXiv:2306.15595);
      "ntk": the base grows by factor^(d / (d - 2)), so that high frequencies stay;
      "llama3": wavelengths above original / low_freq_factor are stretched by "factor", those below original / high_freq_factor are not, with a
        smooth passage between; wants "low_freq_factor", "high_freq_factor", "original" (the context trained on).
      Hugging Face's names, "rope_type" and "original_max_position_embeddings", are understood.
    Cosines and sines are tabulated in float64, kept in float32 up to the longest position asked for, and not saved.
    """

    def __init__(
        self, head_dim: int, base: float = 10000.0, layout: Layout = "half", rotary_dim: int | None = None, scaling: Mapping[str, Any] | None = None
    ) -> None:
        if not _is_number(base) or not 1 < base < math.inf:
            raise ConfigError("RotaryEmbedding", f"base={base!r}", got=base, wanted="a finite number above 1")
        self.head_dim, self.base, self.layout = head_dim, float(base), layout
        self.rotary_dim = head_dim if rotary_dim is None else rotary_dim
        self.scaling = _checked_scaling(scaling) if scaling else None
        check_size("RotaryEmbedding", head_dim=head_dim, rotary_dim=self.rotary_dim)
        if self.rotary_dim % 2 or self.rotary_dim > head_dim:
            raise ConfigError("RotaryEmbedding", f"{self.rotary_dim} of {head_dim} features do not pair up", got=self.rotary_dim,
                              wanted="an even number up to head_dim")  # fmt: skip
        if layout not in ("half", "interleaved"):
            raise ConfigError("RotaryEmbedding", f"layout={layout!r}", got=layout, wanted=("half", "interleaved"))
        self.frequencies = self._frequencies()
        self._cos = self._sin = np.zeros((0, self.rotary_dim // 2), np.float32)

    def _frequencies(self) -> Array:
        """Radians per position of each pair, (rotary_dim / 2,), float64."""
        d = self.rotary_dim
        exponent = -np.arange(0, d, 2) / d
        if self.scaling is None:
            return self.base**exponent
        kind, factor = self.scaling["type"], float(self.scaling["factor"])
        if kind == "linear":
            return self.base**exponent / factor
        if kind == "ntk":
            return (self.base * factor ** (d / max(d - 2, 1))) ** exponent
        plain = self.base**exponent
        low, high = self.scaling["low_freq_factor"], self.scaling["high_freq_factor"]
        turns = self.scaling["original"] * plain / (2 * math.pi)  # so many turns within the context trained on
        kept = np.clip((turns - low) / (high - low), 0, 1)
        return plain * (kept + (1 - kept) / factor)

    def tables(self, positions: Array) -> tuple[Array, Array]:
        """Cosines and sines at integer positions (...,): (..., rotary_dim / 2) each, float32."""
        if positions.size and (positions.dtype.kind not in "iu" or positions.min() < 0):
            raise IndexRangeError("RotaryEmbedding", f"positions of {positions.dtype}, the least {positions.min()}", got=positions.min(),
                                  wanted="integers >= 0")  # fmt: skip
        needed = int(positions.max(initial=-1)) + 1
        if needed > len(self._cos):
            size = max(64, 1 << (needed - 1).bit_length())
            angles = np.arange(size)[:, None] * self.frequencies
            self._cos, self._sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        return self._cos[positions], self._sin[positions]

    def __call__(self, x: Tensor, positions: Array) -> Tensor:
        """x turned: (B, H, T, D), positions (T,) or (B, T)."""
        positions = np.asarray(positions)
        cos, sin = self.tables(positions)
        if positions.ndim == 2:
            cos, sin = cos[:, None], sin[:, None]  # one table for all heads of a row
        return F.apply_rotary(x, Tensor._wrap(cos), Tensor._wrap(sin), interleaved=self.layout == "interleaved")

    def at(self, x: Tensor, positions: Tensor, most: int) -> Tensor:
        """The same with positions as a tensor, (B, T), of integers below `most`: what a recorded step reads when it is replayed."""
        self.tables(np.array([most - 1]))
        cos, sin = (F.embedding(positions, Tensor._wrap(table))[:, None] for table in (self._cos, self._sin))  # (B, 1, T, R/2)
        return F.apply_rotary(x, cos, sin, interleaved=self.layout == "interleaved")

    def __getstate__(self) -> dict[str, Any]:
        none = np.zeros((0, self.rotary_dim // 2), np.float32)
        return {**vars(self), "_cos": none, "_sin": none}

    def __repr__(self) -> str:
        text = f"RotaryEmbedding({self.head_dim}, base={self.base:g}, layout={self.layout!r}"
        text += f", rotary_dim={self.rotary_dim}" if self.rotary_dim != self.head_dim else ""
        return text + (f", scaling={self.scaling})" if self.scaling else ")")


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float | np.integer | np.floating) and not isinstance(x, bool)


def _checked_scaling(scaling: Any) -> dict[str, Any]:
    """The settings by our names. Raises ConfigError where one is missing, not known, or no number that makes sense."""
    ours = {"rope_type": "type", "original_max_position_embeddings": "original"}
    found: dict[Any, Any] = {ours.get(key, key): value for key, value in scaling.items()} if isinstance(scaling, Mapping) else {}
    kind, numbers = found.get("type"), {key: value for key, value in found.items() if key != "type"}
    wanted = {"factor", "low_freq_factor", "high_freq_factor", "original"} if kind == "llama3" else {"factor"}
    sensible = kind in ("linear", "ntk", "llama3") and set(numbers) == wanted and all(map(_is_number, numbers.values()))
    sensible = sensible and 1 <= numbers["factor"] < math.inf
    if sensible and kind == "llama3":
        sensible = 0 < numbers["low_freq_factor"] < numbers["high_freq_factor"] < math.inf and 0 < numbers["original"] < math.inf
    if not sensible:
        raise ConfigError("RotaryEmbedding", f"scaling={scaling}", got=scaling, wanted=("linear", "ntk", "llama3"),
                          hint='{"type": "linear", "factor": 2.0}, factor >= 1; "llama3" wants its own three, too')  # fmt: skip
    return found
