"""Rotary positions: the angles by which queries and keys are turned. From Su et al. 2021,
arXiv:2104.09864.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from minigrad import functional as F
from minigrad.arguments import as_float, as_int, one_of, require
from minigrad.dtypes import Array
from minigrad.errors import IndexRangeError
from minigrad.tensor import Tensor

Layout = Literal["half", "interleaved"]


class RotaryEmbedding:
    """Turns pair i of a head's features at position t by the angle t * base^(-2i / rotary_dim).

    layout: "half" pairs feature i with i + rotary_dim/2 (GPT-NeoX, Llama in safetensors),
        "interleaved" 2i with 2i + 1 (the paper, GPT-J).
    rotary_dim: how many features turn, head_dim unless given.   scaling: for contexts longer than
        those trained on, a dict with "type":

    - "linear": positions are divided by "factor" (Chen et al. 2023, arXiv:2306.15595).
    - "ntk": the base grows by factor^(d / (d - 2)), so that high frequencies stay.
    - "llama3": wavelengths above original / low_freq_factor are stretched by "factor", those below
      original / high_freq_factor are not, with a smooth passage between. Needs "low_freq_factor",
      "high_freq_factor" and "original", the context trained on.
    - "yarn": pairs that turn more than "beta_fast" (32) times within "original" stay, those that
      turn less than "beta_slow" (1) times are stretched by "factor", in between linearly by the
      pair's number. What is turned is multiplied by "attention_factor" (0.1 ln(factor) + 1),
      scores by its square. "truncate" (True): the passage begins and ends at whole pairs. From
      Peng et al. 2023, arXiv:2309.00071, in the form of the authors' code, with which models were
      trained; the paper's passage is linear in the turns.

    The names of Hugging Face, "rope_type" and "original_max_position_embeddings", and of GGUF files
    ("original_context_length", "yarn_beta_fast", "yarn_beta_slow") are understood. Cosines and
    sines are computed in float64, kept in float32 up to the longest position asked for, and not
    saved.
    """

    def __init__(
        self,
        head_dim: int,
        base: float = 10000.0,
        layout: Layout = "half",
        rotary_dim: int | None = None,
        scaling: Mapping[str, Any] | None = None,
    ) -> None:
        call = "RotaryEmbedding"
        self.head_dim = as_int(call, "head_dim", head_dim)
        self.rotary_dim = as_int(call, "rotary_dim", head_dim if rotary_dim is None else rotary_dim)
        self.base, self.layout = as_float(call, "base", base, 1, above=True, below=True), layout
        self.scaling = _checked_scaling(scaling) if scaling else None
        even = self.rotary_dim % 2 == 0 and self.rotary_dim <= self.head_dim
        require(even, call, "rotary_dim", self.rotary_dim, f"an even number up to {head_dim}")
        one_of(call, "layout", layout, ("half", "interleaved"))
        self.frequencies, self.attention_factor = self._frequencies(), self._attention_factor()
        self._cos = self._sin = np.zeros((0, self.rotary_dim // 2), np.float32)

    def _frequencies(self) -> Array:
        """Radians per position of each pair, (rotary_dim / 2,), float64."""
        d, scaling = self.rotary_dim, self.scaling or {"type": "linear", "factor": 1.0}
        kind, factor, base = scaling["type"], float(scaling["factor"]), self.base
        if kind == "ntk":
            base, factor = base * factor ** (d / max(d - 2, 1)), 1.0
        plain: Array = base ** (-np.arange(0, d, 2) / d)
        if kind in ("linear", "ntk"):
            return plain / factor
        # How far each pair keeps its frequency: 1 for short waves, 0 for long ones.
        if kind == "llama3":
            low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
            turns = scaling["original"] * plain / (2 * math.pi)  # within the context trained on
            kept = np.clip((turns - low) / (high - low), 0, 1)
        else:
            kept = self._kept_by_yarn(scaling)
        return plain * (kept + (1 - kept) / factor)

    def _kept_by_yarn(self, scaling: Mapping[str, Any]) -> Array:
        """1 up to the pair that turns beta_fast times within the context trained on, 0 from the one
        that turns beta_slow times.
        """
        d, turns = self.rotary_dim, (scaling.get("beta_fast", 32), scaling.get("beta_slow", 1))
        waves = scaling["original"] / (2 * math.pi)
        first, last = (d * math.log(waves / n) / (2 * math.log(self.base)) for n in turns)
        if scaling.get("truncate", True):
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, d - 1)
        return np.clip((last - np.arange(d // 2)) / max(last - first, 1e-3), 0, 1)

    def _attention_factor(self) -> float:
        """What YaRN multiplies the turned features by."""
        if self.scaling is None or self.scaling["type"] != "yarn":
            return 1.0
        usual = 0.1 * math.log(self.scaling["factor"]) + 1
        return float(self.scaling.get("attention_factor", usual))

    def tables(self, positions: Array) -> tuple[Array, Array]:
        """Return the cosines and sines at integer positions (...,), times the attention factor:
        (..., rotary_dim / 2) each, float32.
        """
        if positions.size and (positions.dtype.kind not in "iu" or positions.min() < 0):
            least, wanted = positions.min(), "integers >= 0"
            problem = f"positions must be {wanted}, got {least} of {positions.dtype}"
            raise IndexRangeError("RotaryEmbedding", problem, got=least, wanted=wanted)
        needed = int(positions.max(initial=-1)) + 1
        if needed > len(self._cos):
            size = max(64, 1 << (needed - 1).bit_length())
            angles = np.arange(size)[:, None] * self.frequencies
            self._cos = (self.attention_factor * np.cos(angles)).astype(np.float32)
            self._sin = (self.attention_factor * np.sin(angles)).astype(np.float32)
        return self._cos[positions], self._sin[positions]

    def __call__(self, x: Tensor, positions: Array) -> Tensor:
        """x turned: (B, H, T, D), positions (T,) or (B, T)."""
        positions = np.asarray(positions)
        cos, sin = self.tables(positions)
        if positions.ndim == 2:
            cos, sin = cos[:, None], sin[:, None]  # one table for all heads of a row
        return self._turned(x, Tensor._wrap(cos), Tensor._wrap(sin))

    def _turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return F.apply_rotary(x, cos, sin, interleaved=self.layout == "interleaved")

    def at(self, x: Tensor, positions: Tensor, most: int) -> Tensor:
        """The same with positions as a tensor, (B, T), of integers below `most`: what a recorded
        step reads when it is replayed.
        """
        self.tables(np.array([most - 1]))
        tables = Tensor._wrap(self._cos), Tensor._wrap(self._sin)
        cos, sin = (F.embedding(positions, t)[:, None] for t in tables)  # (B, 1, T, R/2)
        return self._turned(x, cos, sin)

    def __getstate__(self) -> dict[str, Any]:
        none = np.zeros((0, self.rotary_dim // 2), np.float32)
        return {**vars(self), "_cos": none, "_sin": none}

    def __repr__(self) -> str:
        text = f"RotaryEmbedding({self.head_dim}, base={self.base:g}, layout={self.layout!r}"
        text += f", rotary_dim={self.rotary_dim}" if self.rotary_dim != self.head_dim else ""
        return text + (f", scaling={self.scaling})" if self.scaling else ")")


# What each type of scaling needs, and what else it may have.
_SETTINGS: dict[str, tuple[set[str], set[str]]] = {
    "linear": ({"factor"}, set()),
    "ntk": ({"factor"}, set()),
    "llama3": ({"factor", "low_freq_factor", "high_freq_factor", "original"}, set()),
    "yarn": ({"factor", "original"}, {"beta_fast", "beta_slow", "attention_factor", "truncate"}),
}
_NUMBERS = (int, float, np.integer, np.floating)
_OURS = {"rope_type": "type", "original_max_position_embeddings": "original"}
_OURS |= {"original_context_length": "original"}
_OURS |= {"yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow"}


def _checked_scaling(scaling: Any) -> dict[str, Any]:
    """The settings by our names. Raises ConfigError if one is missing, unknown or invalid."""
    given = scaling.items() if isinstance(scaling, Mapping) else ()
    found: dict[Any, Any] = {_OURS.get(key, key): x for key, x in given if x is not None}
    needed, optional = _SETTINGS.get(str(found.get("type")), (set(), set()))
    numbers = {key: x for key, x in found.items() if key not in ("type", "truncate")}
    good: Any = bool(needed) and {"type"} | needed <= set(found) <= {"type"} | needed | optional
    good = good and found.get("truncate", True) in (True, False)
    for x in numbers.values():
        good = good and isinstance(x, _NUMBERS) and not isinstance(x, bool) and 0 < x < math.inf
    good = good and numbers["factor"] >= 1
    for low, high in (("low_freq_factor", "high_freq_factor"), ("beta_slow", "beta_fast")):
        good = good and numbers.get(low, 1) < numbers.get(high, 32)
    hint = (
        '{"type": "linear", "factor": 2.0}, factor >= 1; "llama3" needs its own three as well, '
        '"yarn" needs "original"'
    )
    require(
        good, "RotaryEmbedding", "scaling", scaling, f"a dict of a type in {[*_SETTINGS]}", hint
    )
    return found
