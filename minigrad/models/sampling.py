"""From logits to the next token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.arguments import as_float, as_int
from minigrad.dtypes import Array
from minigrad.errors import NotFiniteError
from minigrad.random import Generator


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn from logits; each step works on what the one before it left.

    repetition_penalty r: the logit of a token that was seen is divided by r if positive, else
        multiplied (Keskar et al. 2019, CTRL).
    temperature: logits / temperature; 0 is the likeliest, the first of equals.
    top_k: only the k likeliest (and their equals).
    top_p: only the fewest likeliest ones whose probabilities reach top_p (nucleus: Holtzman et al.
        2020, arXiv:1904.09751).
    min_p: only those at least min_p times as probable as the likeliest (Nguyen et al. 2024,
        arXiv:2407.01082).
    Raises ConfigError for invalid settings, in the name of `call`.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    call: str = "generate"

    def __post_init__(self) -> None:
        def keep(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)  # as a Python number

        call = self.call
        keep("temperature", as_float(call, "temperature", self.temperature, 0, below=True))
        penalty = self.repetition_penalty
        penalty = as_float(call, "repetition_penalty", penalty, 0, above=True, below=True)
        keep("repetition_penalty", penalty)
        if self.top_k is not None:
            keep("top_k", as_int(call, "top_k", self.top_k))
        if self.top_p is not None:
            keep("top_p", as_float(call, "top_p", self.top_p, 0, 1, above=True))
        if self.min_p is not None:
            keep("min_p", as_float(call, "min_p", self.min_p, 0, 1))

    @np.errstate(over="ignore", under="ignore")
    def penalised(self, logits: Array, seen: Array) -> Array:
        """Logits, (B, V), after the repetition penalty for the tokens `seen`, (B, T); negative ones
        stand for nothing.
        """
        if self.repetition_penalty == 1:
            return logits
        mask = np.zeros(logits.shape, bool)
        rows, at = np.nonzero(seen >= 0)
        mask[rows, seen[rows, at]] = True
        changed = np.where(
            logits > 0, logits / self.repetition_penalty, logits * self.repetition_penalty
        )
        return np.where(mask, changed, logits)

    @np.errstate(over="ignore", under="ignore")
    def probabilities(self, logits: Array) -> Array:
        """The distribution that a token is drawn from, (..., V) in float64. Raises NotFiniteError
        for a NaN or +inf among the logits, or a row of -inf."""
        scaled = logits.astype(np.float64)
        top = _finite_top(scaled)
        if self.temperature == 0:
            return np.asarray(
                scaled.argmax(axis=-1)[..., None] == np.arange(scaled.shape[-1]), np.float64
            )
        scaled -= top  # before the division, which could overflow at a small temperature
        scaled /= self.temperature
        if self.top_k is not None and self.top_k < scaled.shape[-1]:
            least = np.partition(scaled, -self.top_k, axis=-1)[..., -self.top_k, None]
            scaled[scaled < least] = -np.inf
        p = np.exp(scaled)
        p /= p.sum(axis=-1, keepdims=True)
        if self.top_p is not None and self.top_p < 1:
            order = np.argsort(-p, axis=-1, kind="stable")
            ordered = np.take_along_axis(p, order, axis=-1)
            ordered[np.cumsum(ordered, axis=-1) - ordered >= self.top_p] = 0
            np.put_along_axis(p, order, ordered, axis=-1)
        if self.min_p:
            p[p < self.min_p * p.max(axis=-1, keepdims=True)] = 0
        return p / p.sum(axis=-1, keepdims=True)

    def draw(self, logits: Array, generator: Generator) -> Array:
        """One token for each row of logits, (B, V) -> (B,) int64; temperature 0 draws nothing.
        Raises as `probabilities` does.
        """
        if self.temperature:
            return draw(self.probabilities(logits), generator)
        _finite_top(logits)
        return logits.argmax(axis=-1)


def _finite_top(logits: Array) -> Array:
    """The largest of each row. Raises NotFiniteError where it is not finite."""
    top = logits.max(axis=-1, keepdims=True)
    if not np.isfinite(top).all():
        problem = "a row of logits has no finite maximum"
        raise NotFiniteError("sample", problem, got=top.ravel().tolist(), wanted="finite logits")
    return top


@np.errstate(under="ignore")
def log_probability(logits: Array, tokens: Array) -> Array:
    """log p of one token for each row under the softmax of logits: (B, V), (B,) -> (B,) float64."""
    x = logits.astype(np.float64)
    x -= x.max(axis=-1, keepdims=True)
    return x[np.arange(len(x)), tokens] - np.log(np.exp(x).sum(axis=-1))


def draw(p: Array, generator: Generator) -> Array:
    """One number for each row of a distribution, (B, V) -> (B,) int64."""
    edges = np.cumsum(p, axis=-1)
    u = generator.uniform((len(p), 1)).astype(np.float64) * edges[:, -1:]
    return (edges <= u).sum(axis=-1)


def sample(
    logits: Array,
    generator: Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Array:
    """One token for each row of logits, (B, V) -> (B,) int64. Settings and errors are those of
    `Sampling`; temperature=0 draws nothing.
    """
    return Sampling(temperature, top_k, top_p, min_p, call="sample").draw(logits, generator)
