"""From logits to the next token."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import ConfigError, NotFiniteError
from minigrad.random import Generator


def check_sampling(call: str, temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raise ConfigError for settings that make no sense."""

    def need(name: str, value: Any, good: bool, wanted: str) -> None:
        if not good:
            raise ConfigError(call, f"{name}={value!r} will not do", got=value, wanted=wanted, hint=f"wanted: {wanted}")

    need("temperature", temperature, 0 <= temperature < math.inf, "a finite number >= 0 (0: always the likeliest)")
    need("top_k", top_k, top_k is None or (isinstance(top_k, int) and top_k >= 1), "an integer >= 1, or None")
    need("top_p", top_p, top_p is None or 0 < top_p <= 1, "0 < top_p <= 1, or None")


def sample(logits: Array, generator: Generator, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> Array:
    """One token for each row of logits, (B, V) -> (B,) int64, drawn from softmax(logits / temperature).

    temperature=0: the likeliest, the first of equals.   top_k: among the k likeliest (and their equals) only.
    top_p: among the fewest likeliest ones whose probabilities reach top_p only (nucleus: Holtzman et al. 2020, arXiv:1904.09751).
    Raises NotFiniteError for a NaN or +inf among the logits, or a row of -inf.
    """
    if temperature == 0:
        scaled = logits.astype(np.float64)
    else:
        scaled = logits.astype(np.float64) / temperature
    top = scaled.max(axis=-1, keepdims=True)
    if not np.isfinite(top).all():
        raise NotFiniteError("sample", "a row of logits has no finite maximum", got=top.ravel().tolist(), wanted="finite logits")
    if temperature == 0:
        return scaled.argmax(axis=-1)
    if top_k is not None and top_k < scaled.shape[-1]:
        least = np.partition(scaled, -top_k, axis=-1)[:, -top_k, None]
        scaled[scaled < least] = -np.inf
    p = np.exp(scaled - top)
    p /= p.sum(axis=-1, keepdims=True)
    if top_p is not None and top_p < 1:
        order = np.argsort(-p, axis=-1, kind="stable")
        ordered = np.take_along_axis(p, order, axis=-1)
        ordered[np.cumsum(ordered, axis=-1) - ordered >= top_p] = 0
        np.put_along_axis(p, order, ordered, axis=-1)
    edges = np.cumsum(p, axis=-1)
    u = generator.uniform((len(p), 1)).astype(np.float64) * edges[:, -1:]
    return (edges <= u).sum(axis=-1)
