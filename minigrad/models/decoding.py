"""Decoding by a compiled step: one token per row, drawn in the step, with a cache whose length the
step reads when it runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from minigrad.compiler.jit import jit as jit
from minigrad.compiler.native import NativeError, has_bfloat16
from minigrad.dtypes import Array, DType, float32
from minigrad.errors import NotFiniteError
from minigrad.models.prompts import evaluating
from minigrad.models.sampling import Sampling, sample_, token_counts
from minigrad.nn.attention import KVCache, StaticCache
from minigrad.nn.module import Module
from minigrad.nn.quantised import FINE, blocks_of
from minigrad.ops.quantised import ALL
from minigrad.precision import PRECISION, matmul_precision
from minigrad.random import Generator
from minigrad.tensor import Tensor


def use_int8(model: Module) -> None:
    """Let the model's products with weights in blocks round their rows to int8. With this file the
    compiler is imported, which runs them in C, in eager calls too.
    """
    for _, _, _, weight in blocks_of(model):
        for part in weight.parts:
            part.int8 = True


def _fast_precision() -> str | None:
    """Of products far from the end of a prompt, unless the caller holds one; None: as elsewhere."""
    with suppress(NativeError):  # no compiler
        return "bfloat16" if PRECISION.get() is None and has_bfloat16() else None
    return None


_MOST = 64  # tokens of a group that is made ahead
_SECONDS = 0.05  # that it may take
_CHUNK = 64  # tokens of a prompt that are read at once
_LAST = 8  # tokens of a prompt whose own rounding affects the next ones most
_OFTEN = 1e11  # products that prompts took so far, from which on compiling their step pays


class Decoder:
    """The step from one token per row to the next, of one conversation at a time: the model, then
    `sample_`. It is repeated in C for a group of tokens, of which each is twice as large as the one
    before, so that the first ones come at once.

    forward(tokens, caches): the logits (B, V) after tokens (B, T), with one StaticCache per layer.
        Two calls of the step are eager, then it is compiled, for all lengths and settings. Where
        long prompts come again and again, a second step reads them.
    shape: of each cache, (B, n_head, capacity, head_dim).
    """

    def __init__(
        self,
        model: Module,
        forward: Callable[[Tensor, Sequence[StaticCache]], Tensor],
        n_layer: int,
        shape: Any,
        dtype: DType,
        vocab_size: int,
    ) -> None:
        self.model, self.forward, self.shape, self.dtype = model, forward, shape, dtype
        B, capacity, weights = shape[0], shape[2], list(blocks_of(model))
        zeros = {  # the operands of `sample_`, but for the logits
            "tokens": np.zeros((B, 1), np.int64),
            "length": np.array(0),
            "left": np.array(0),
            "state": np.zeros(2, np.uint64),
            "counts": np.zeros((B, vocab_size), np.int64),
            "ended": np.zeros(B, bool),
            "drawn": np.zeros((B, capacity), np.int64),
            "scores": np.zeros((B, capacity)),
            "settings": np.zeros(6),
            "stops": np.zeros(vocab_size, bool),
        }
        self._held = {name: Tensor._wrap(array) for name, array in zeros.items()}
        self._first = Tensor(np.zeros(B, np.int64))
        length = self._held["length"]
        self.caches = [StaticCache(shape, length, self._first, dtype) for _ in range(n_layer)]
        # No audits: the step has no Python value that could change, and an eager call among replays
        # would give logits of other bits.
        self._jit = jit(self._step, audit=False)
        self._part = Tensor._wrap(np.zeros((B, _CHUNK), np.int64))
        self._reading = jit(self._read_part, audit=False)
        shapes = [p.shape for p in model.parameters()] + [w.shape for *_, w in weights]
        self._products, self._per_token = 0, sum(map(math.prod, shapes))  # of prompts, op by op

    def _step(self) -> None:
        with evaluating(self.model):  # in the recording: a replay has no modes to switch
            *changed, settings, stops = self._held.values()
            logits = self.forward(changed[0], self.caches)
            sample_(*changed, logits, settings, stops, changes=len(changed))

    def _read_part(self, far: bool) -> Tensor | None:
        """far: for the caches alone."""
        with evaluating(self.model):
            logits = self.forward(self._part, self.caches)
        return None if far else logits

    @contextmanager
    def _distance(self, far: bool, rough: bool) -> Iterator[None]:
        """Round roughly, if at all, all of a part that is far from the end of the prompt, and all
        but the last tokens of one that is not, if there is one row.
        """
        token = FINE.set(0 if far else _LAST if rough and self.shape[0] == 1 else ALL)
        try:
            with matmul_precision(_fast_precision() if far else None):
                yield
        finally:
            FINE.reset(token)

    def read(self, context: Array, pad: Array | None, more: int) -> Array | None:
        """The logits (B, V) after a context (B, T) to which up to `more` tokens will be added; None
        where it should be read op by op: short contexts and the first ones, those that C does not
        compute, and those without room for padding, which makes the context whole parts.
        """
        T = context.shape[1]
        lead = -T % _CHUNK
        seldom = T < _CHUNK or self._products < _OFTEN or lead + T + more > self.shape[2]
        if seldom or self.dtype != float32 or self._jit.note or self._reading.note:
            self._products += T * self._per_token
            return None
        self._first.data[...] = lead + (0 if pad is None else pad)
        rough = any(part.int8 for *_, w in blocks_of(self.model) for part in w.parts)
        ready = True
        for far in {False, rough and T > _CHUNK}:
            with self._distance(far, rough):
                ready = ready and self._reading.ready(far)
        if not ready:  # a step is checked by what it changes
            for cache in self.caches:
                cache.clear()
        context = np.pad(context, ((0, 0), (lead, 0)))
        for start in range(0, lead + T, _CHUNK):
            self._set(length=start)
            self._part.data[...] = context[:, start : start + _CHUNK]
            far = rough and start + _CHUNK < lead + T
            with self._distance(far, rough):
                logits = self._reading(far)
        self._set(length=lead + T)
        return logits.data

    def take(self, caches: Sequence[KVCache], pad: Array | None) -> None:
        """Go on from what these caches hold, and empty them: layer by layer, so that keys and
        values are never there twice. pad: (B,), how many positions at the start of each row are
        padding.
        """
        self._first.data[...] = 0 if pad is None else pad
        self._set(length=caches[0].length)
        for own, cache in zip(self.caches, caches, strict=True):
            own.take(cache)

    def give(self, caches: Sequence[KVCache], length: int) -> None:
        """Let these caches hold `length` positions, adding those that they lack, layer by layer."""
        for own, cache in zip(self.caches, caches, strict=True):
            own.give(cache, length)

    def begin(self, context: Array, ended: Array) -> None:
        """Go on after a context, (B, T), in which padding is -1 and whose newest token has not been
        seen yet. ended: (B,).
        """
        counts = token_counts(context, self._held["stops"].shape[0])
        self._set(tokens=context[:, -1:], counts=counts, ended=ended)

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            self._held[name].data[...] = value

    def tokens(
        self, count: int, how: Sampling, generator: Generator, scored: bool, stops: Array
    ) -> Iterator[tuple[Array, Array | None]]:
        """Yield `count` tokens, (B,), and, if scored, their log-probabilities. The generator is as
        if they were drawn one by one: if it was used in between, the rest of the group is drawn
        again.
        """
        self._set(settings=[*how.numbers(), scored], stops=stops)
        length, drawn, scores = (self._held[x].data for x in ("length", "drawn", "scores"))
        each = -(-self.shape[0] // 4) if how.temperature else 0  # counts of the generator
        group = 1
        while count > 0:
            group, start = min(group, count), int(length)
            seed, counter = generator.get_state()
            self._set(left=group, state=(seed, counter))
            began, failed = time.perf_counter(), None
            try:
                self._jit.repeat(self._held["left"])
            except NotFiniteError as error:  # after those that were made before it
                failed = error
            places = range(start, int(length))
            took = max(time.perf_counter() - began, 1e-9)
            for at in places:
                counter = (counter + each) % (1 << 64)
                generator.set_state((seed, counter))
                yield drawn[:, at].copy(), scores[:, at].copy()
                count -= 1
                if generator.get_state() != (seed, counter) and at + 1 < int(length):
                    self._take_back(at + 1)
                    group, failed = 1, None
                    break
            else:
                group = max(1, min(2 * group, _MOST, int(group * _SECONDS / took)))
            if failed is not None:
                raise failed

    def _take_back(self, start: int) -> None:
        """Forget the tokens from place `start` on."""
        length, drawn, counts = (self._held[x].data for x in ("length", "drawn", "counts"))
        gone = drawn[:, start : int(length)]
        np.subtract.at(counts, (np.arange(len(gone))[:, None], gone), 1)
        self._set(length=start, tokens=drawn[:, start - 1 : start])
