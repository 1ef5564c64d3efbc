"""Decoding by a compiled step: one token per row, with a cache whose length the step reads when it
runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigrad.compiler.jit import jit
from minigrad.dtypes import Array, DType
from minigrad.models.prompts import evaluating
from minigrad.nn.attention import KVCache, StaticCache
from minigrad.nn.module import Module
from minigrad.nn.quantised import QuantisedWeight, StackedWeight
from minigrad.tensor import Tensor


def use_int8(model: Module) -> None:
    """Let the model's products with weights in blocks round their rows to int8. With this file the
    compiler is imported, which runs them in C, in eager calls too.
    """
    for module in model.modules():
        for weight in vars(module).values():
            for part in weight.parts if isinstance(weight, StackedWeight) else [weight]:
                if isinstance(part, QuantisedWeight):
                    part.int8 = True


class Decoder:
    """The step from one token per row, (B, 1), to the logits of the next, (B, V), of one
    conversation at a time.

    forward(tokens, caches): the model's step, with one StaticCache per layer. Two calls are eager,
        then it is compiled, for all lengths.
    shape: of each cache, (B, n_head, capacity, head_dim).
    """

    def __init__(
        self,
        model: Module,
        forward: Callable[[Tensor, Sequence[StaticCache]], Tensor],
        n_layer: int,
        shape: Any,
        dtype: DType,
    ) -> None:
        self.model, self.forward, self.shape, self.dtype = model, forward, shape, dtype
        self._length, self._first = Tensor(np.array(0)), Tensor(np.zeros(shape[0], np.int64))
        self._tokens = Tensor(np.zeros((shape[0], 1), np.int64))
        self.caches = [StaticCache(shape, self._length, self._first, dtype) for _ in range(n_layer)]
        # No audits: the step has no Python value that could change, and an eager call among replays
        # would give logits of other bits.
        self._jit = jit(self._step, audit=False)

    def _step(self) -> Tensor:
        with evaluating(self.model):  # in the recording: a replay has no modes to switch
            return self.forward(self._tokens, self.caches)

    def load(self, caches: Sequence[KVCache], pad: Array | None) -> None:
        """Go on from what the caches hold. pad: (B,), how many positions at the start of each row
        are padding.
        """
        for own, cache in zip(self.caches, caches, strict=True):
            own.load(cache)
        self._length.data[...] = caches[0].length
        self._first.data[...] = 0 if pad is None else pad

    def __call__(self, tokens: Array) -> Array:
        """The logits after one more token per row, (B, 1) -> (B, V)."""
        self._tokens.data[...] = tokens
        logits: Tensor = self._jit()
        self._length.data += 1
        return logits.data
