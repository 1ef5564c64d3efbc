"""Rotary positions: the angles by which queries and keys are turned. From Su et al. 2021,
arXiv:2104.09864.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from minigrad import functional as F
from minigrad.arguments import as_sizes
from minigrad.dtypes import Array
from minigrad.errors import ConfigError, IndexRangeError
from minigrad.tensor import Tensor

Layout = Literal["half", "interleaved"]


class RotaryEmbedding:
    """Pair i of a head's features at position t is turned by the angle t * base^(-2i / rotary_dim).

    layout: "half" pairs feature i with i + rotary_dim/2 (GPT-NeoX, Llama in safetensors),
        "interleaved" 2i with 2i + 1 (the paper, GPT-J).
    rotary_dim: only so many features turn (head_dim unless given).   scaling, for contexts longer
        than those trained on, a dict with "type":
      "linear": positions are divided by "factor" (Chen et al. 2023, arXiv:2306.15595);
      "ntk": the base grows by factor^(d / (d - 2)), so that high frequencies stay;
      "llama3": wavelengths above original / low_freq_factor are stretched by "factor", those below
        original / high_freq_factor are not, with a smooth passage between; wants "low_freq_factor",
        "high_freq_factor", "original" (the context trained on);
      "yarn": pairs that turn more than "beta_fast" (32) times within "original" stay, those that
        turn less than "beta_slow" (1) times are stretched by "factor", in between linearly by the
        pair's number, and what is turned is multiplied by "attention_factor" (0.1 ln(factor) + 1),
        scores
        by its square. "truncate" (True): the passage begins and ends at whole pairs. From Peng et
            al. 2023, arXiv:2309.00071, in the form of the
        authors' code, which models were trained with; the paper's passage is linear in the turns.
      Hugging Face's names, "rope_type" and "original_max_position_embeddings", are understood.
    Cosines and sines are tabulated in float64, kept in float32 up to the longest position asked
    for, and not saved.
    """

    def __init__(
        self,
        head_dim: int,
        base: float = 10000.0,
        layout: Layout = "half",
        rotary_dim: int | None = None,
        scaling: Mapping[str, Any] | None = None,
    ) -> None:
        if not _is_number(base) or not 1 < base < math.inf:
            raise ConfigError(
                "RotaryEmbedding", f"base={base!r}", got=base, wanted="a finite number above 1"
            )
        self.head_dim, self.rotary_dim = head_dim, _ = as_sizes(
            "RotaryEmbedding",
            head_dim=head_dim,
            rotary_dim=head_dim if rotary_dim is None else rotary_dim,
        )
        self.base, self.layout = float(base), layout
        self.scaling = _checked_scaling(scaling) if scaling else None
        if self.rotary_dim % 2 or self.rotary_dim > head_dim:
            raise ConfigError(
                "RotaryEmbedding",
                f"{self.rotary_dim} of {head_dim} features do not pair up",
                got=self.rotary_dim,
                wanted="an even number up to head_dim",
            )
        if layout not in ("half", "interleaved"):
            raise ConfigError(
                "RotaryEmbedding", f"layout={layout!r}", got=layout, wanted=("half", "interleaved")
            )
        self.frequencies, self.attention_factor = self._frequencies(), self._attention_factor()
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
        kept = self._kept_by_yarn() if kind == "yarn" else self._kept_by_llama3(plain)
        return plain * (kept + (1 - kept) / factor)

    def _kept_by_llama3(self, plain: Array) -> Array:
        """How far each pair keeps its frequency: 1 for short waves, 0 for long ones."""
        assert self.scaling is not None
        low, high = self.scaling["low_freq_factor"], self.scaling["high_freq_factor"]
        turns = (
            self.scaling["original"] * plain / (2 * math.pi)
        )  # so many turns within the context trained on
        kept: Array = np.clip((turns - low) / (high - low), 0, 1)
        return kept

    def _kept_by_yarn(self) -> Array:
        """The same: 1 up to the pair that turns beta_fast times within the context trained on, 0
        from the one that turns beta_slow times.
        """
        assert self.scaling is not None
        d, waves = self.rotary_dim, self.scaling["original"] / (2 * math.pi)
        fast, slow = self.scaling.get("beta_fast", 32), self.scaling.get("beta_slow", 1)
        first, last = (
            d * math.log(waves / turns) / (2 * math.log(self.base)) for turns in (fast, slow)
        )
        if self.scaling.get("truncate", True):
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, d - 1)
        kept: Array = np.clip((last - np.arange(d // 2)) / max(last - first, 1e-3), 0, 1)
        return kept

    def _attention_factor(self) -> float:
        """What YaRN multiplies the turned features by."""
        if self.scaling is None or self.scaling["type"] != "yarn":
            return 1.0
        return float(
            self.scaling.get("attention_factor", 0.1 * math.log(self.scaling["factor"]) + 1)
        )

    def tables(self, positions: Array) -> tuple[Array, Array]:
        """Cosines and sines at integer positions (...,), times the attention factor: (...,
        rotary_dim / 2) each, float32.
        """
        if positions.size and (positions.dtype.kind not in "iu" or positions.min() < 0):
            raise IndexRangeError(
                "RotaryEmbedding",
                f"positions of {positions.dtype}, the least {positions.min()}",
                got=positions.min(),
                wanted="integers >= 0",
            )
        needed = int(positions.max(initial=-1)) + 1
        if needed > len(self._cos):
            size = max(64, 1 << (needed - 1).bit_length())
            angles = np.arange(size)[:, None] * self.frequencies
            self._cos, self._sin = (
                (self.attention_factor * f(angles)).astype(np.float32) for f in (np.cos, np.sin)
            )
        return self._cos[positions], self._sin[positions]

    def __call__(self, x: Tensor, positions: Array) -> Tensor:
        """x turned: (B, H, T, D), positions (T,) or (B, T)."""
        positions = np.asarray(positions)
        cos, sin = self.tables(positions)
        if positions.ndim == 2:
            cos, sin = cos[:, None], sin[:, None]  # one table for all heads of a row
        return F.apply_rotary(
            x, Tensor._wrap(cos), Tensor._wrap(sin), interleaved=self.layout == "interleaved"
        )

    def at(self, x: Tensor, positions: Tensor, most: int) -> Tensor:
        """The same with positions as a tensor, (B, T), of integers below `most`: what a recorded
        step reads when it is replayed.
        """
        self.tables(np.array([most - 1]))
        cos, sin = (
            F.embedding(positions, Tensor._wrap(table))[:, None] for table in (self._cos, self._sin)
        )  # (B, 1, T, R/2)
        return F.apply_rotary(x, cos, sin, interleaved=self.layout == "interleaved")

    def __getstate__(self) -> dict[str, Any]:
        none = np.zeros((0, self.rotary_dim // 2), np.float32)
        return {**vars(self), "_cos": none, "_sin": none}

    def __repr__(self) -> str:
        text = f"RotaryEmbedding({self.head_dim}, base={self.base:g}, layout={self.layout!r}"
        text += f", rotary_dim={self.rotary_dim}" if self.rotary_dim != self.head_dim else ""
        return text + (f", scaling={self.scaling})" if self.scaling else ")")


# What each type of scaling must be given, and what it may be.
_SETTINGS: dict[str, tuple[set[str], set[str]]] = {
    "linear": ({"factor"}, set()),
    "ntk": ({"factor"}, set()),
    "llama3": ({"factor", "low_freq_factor", "high_freq_factor", "original"}, set()),
    "yarn": ({"factor", "original"}, {"beta_fast", "beta_slow", "attention_factor", "truncate"}),
}


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float | np.integer | np.floating) and not isinstance(x, bool)


def _checked_scaling(scaling: Any) -> dict[str, Any]:
    """The settings by our names. Raises ConfigError where one is missing, not known, or no number
    that makes sense.
    """
    ours = {"rope_type": "type", "original_max_position_embeddings": "original"}
    given = scaling.items() if isinstance(scaling, Mapping) else ()
    found: dict[Any, Any] = {ours.get(key, key): value for key, value in given if value is not None}
    wanted, optional = _SETTINGS.get(str(found.get("type")), (set(), set()))
    numbers = {key: value for key, value in found.items() if key not in ("type", "truncate")}
    sensible = {"type"} | wanted <= set(found) <= {"type"} | wanted | optional and found.get(
        "truncate", True
    ) in (True, False)
    sensible = (
        sensible
        and all(_is_number(x) and 0 < x < math.inf for x in numbers.values())
        and numbers["factor"] >= 1
    )
    for low, high in (("low_freq_factor", "high_freq_factor"), ("beta_slow", "beta_fast")):
        sensible = sensible and numbers.get(low, 1) < numbers.get(high, 32)
    if not sensible:
        raise ConfigError(
            "RotaryEmbedding",
            f"scaling={scaling}",
            got=scaling,
            wanted=tuple(_SETTINGS),
            hint='{"type": "linear", "factor": 2.0}, factor >= 1; "llama3" wants its own three, '
            '"yarn" "original", too',
        )
    return found
