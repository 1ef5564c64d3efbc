"""From logits to the next token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.arguments import as_float, as_int
from minigrad.dtypes import Array
from minigrad.errors import NotFiniteError
from minigrad.primitive import primitive
from minigrad.random import Generator, StateGenerator


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

    def numbers(self) -> list[float]:
        """The settings as numbers, for `sample_`: top_k is 0 for all tokens."""
        top_p = 1 if self.top_p is None else self.top_p
        return [self.temperature, self.top_k or 0, top_p, self.min_p or 0, self.repetition_penalty]

    def penalised(self, logits: Array, seen: Array) -> Array:
        """Logits, (B, V), after the repetition penalty for the tokens `seen`, (B, T); negative ones
        stand for nothing.
        """
        if self.repetition_penalty == 1:
            return logits
        return self.discouraged(logits, token_counts(seen, logits.shape[-1]))

    @np.errstate(over="ignore", under="ignore")
    def discouraged(self, logits: Array, counts: Array) -> Array:
        """The same, given how often each token was seen, (B, V)."""
        r = self.repetition_penalty
        return np.where(counts > 0, np.where(logits > 0, logits / r, logits * r), logits)

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

    def draw(
        self, logits: Array, generator: Generator, rows: Array | None = None, batch: int = 0
    ) -> Array:
        """One token for each row of logits, (B, V) -> (B,) int64; temperature 0 draws nothing.
        Raises as `probabilities` does. rows, batch: see the function `draw`.
        """
        if self.temperature:
            return draw(self.probabilities(logits), generator, rows, batch)
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


def draw(p: Array, generator: Generator, rows: Array | None = None, batch: int = 0) -> Array:
    """One number for each row of a distribution, (B, V) -> (B,) int64.

    rows: their places in a larger `batch`, with whose draws these are the same.
    """
    edges = np.cumsum(p, axis=-1)
    drawn = generator.uniform((batch or len(p), 1))
    u = (drawn if rows is None else drawn[rows]).astype(np.float64) * edges[:, -1:]
    return (edges <= u).sum(axis=-1)


def token_counts(tokens: Array, vocab_size: int) -> Array:
    """How often each token is in each row, (B, T) -> (B, vocab_size) int64; negative ones stand for
    nothing.
    """
    counts = np.zeros((len(tokens), vocab_size), np.int64)
    rows, at = np.nonzero(tokens >= 0)
    np.add.at(counts, (rows, tokens[rows, at]), 1)
    return counts


@primitive(kind="effect")
def sample_(
    tokens: Array,
    length: Array,
    left: Array,
    state: Array,
    counts: Array,
    ended: Array,
    drawn: Array,
    scores: Array,
    logits: Array,
    settings: Array,
    stops: Array,
    *,
    changes: int,
) -> None:
    """Draw a token for each row of logits, (B, V), and do what comes with it: `tokens`, (B, 1), and
    place `length` of `drawn`, (B, capacity), get it, `counts`, (B, V), counts it, `length` goes up
    by 1, and `left` goes down by 1, or to 0 once each row has `ended` by a token that `stops`.

    state: of the generator.   settings: `Sampling.numbers()`, and whether to write log p of the
        tokens to `scores`.   Raises NotFiniteError as `Sampling.probabilities` does.
    """
    temperature, k, top_p, min_p, penalty, scored = settings.tolist()
    # A replay is also checked with numbers that are moved by a rounding, here out of their range
    how = Sampling(temperature, round(k) or None, min(top_p, 1.0), min(min_p, 1.0), penalty)
    y = how.draw(how.discouraged(logits, counts), StateGenerator(state))
    if scored:
        scores[:, length] = log_probability(logits, y)
    tokens[:, 0] = drawn[:, length] = y
    counts[np.arange(len(y)), y] += 1
    ended |= stops[y]
    length += 1
    left[...] = 0 if ended.all() else left - 1


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
