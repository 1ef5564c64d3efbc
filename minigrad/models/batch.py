"""The rows that `GPT.generate` continues: what each has said, and which still go on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minigrad.dtypes import Array
from minigrad.nn.attention import KVCache


class Batch:
    """A batch of contexts of which each grows by one token at a time, until it has ended by one
    that `stops`, (V,) of bool.

    tokens: (B, T).   pad: (B,), how many at the start of each row are padding.   size: the longest
        context; of a longer one, the older half is dropped.   make_caches: empty caches, or None to
        compute without them.

    rows: the numbers of those that the model computes; those that ended may `leave`.   ended: (B,).
    context, pad, caches: of the rows that are computed.   new: what the model reads next.
    """

    def __init__(
        self,
        tokens: Array,
        pad: Array | None,
        stops: Array,
        size: int,
        make_caches: Callable[[], list[KVCache] | None],
    ) -> None:
        self.stops, self.size, self._make_caches = stops, size, make_caches
        self.rows, self.ended = np.arange(len(tokens)), np.zeros(len(tokens), bool)
        self._tokens = np.zeros(len(tokens), np.int64)  # the newest of each row
        self.context, self.pad = tokens, pad
        self._begin(size)

    def _begin(self, size: int) -> None:
        """Keep the last `size` tokens, of which the caches hold none."""
        dropped = max(self.context.shape[1] - size, 0)
        self.context = self.context[:, dropped:]
        self.pad = None if self.pad is None else np.maximum(self.pad - dropped, 0)
        self.new, self.caches = self.context, self._make_caches()

    @property
    def seen(self) -> Array:
        """The context with -1 in place of padding."""
        if self.pad is None:
            return self.context
        return np.where(np.arange(self.context.shape[1]) < self.pad[:, None], -1, self.context)

    def take(self, drawn: Array, scores: Array | None) -> tuple[Array, Array]:
        """Take the next token of each computed row, and its score; return those of all rows, (B,).
        A row that has ended repeats its last token, with score 0.
        """
        going = ~self.ended[self.rows]
        tokens, all_scores = self._tokens.copy(), np.zeros(len(self.ended))
        tokens[self.rows[going]] = drawn[going]
        if scores is not None:
            all_scores[self.rows[going]] = scores[going]
        self._tokens, self.ended = tokens, self.stops[tokens]
        return tokens, all_scores

    def leave(self) -> None:
        """Compute no longer what has ended."""
        going = np.flatnonzero(~self.ended[self.rows])
        if len(going) == len(self.rows):
            return
        self.rows, self.context = self.rows[going], self.context[going]
        self.pad = None if self.pad is None else self.pad[going]
        for cache in self.caches or ():
            cache.reorder(going)

    def grow(self) -> bool:
        """Add the tokens that were taken to the contexts. Return True if these were full: what was
        computed for them is then forgotten.
        """
        new = self._tokens[self.rows][:, None]
        self.context = np.concatenate([self.context, new], axis=1)
        if self.context.shape[1] > self.size:
            self._begin(max(self.size // 2, 1))
            return True
        self.new = self.context if self.caches is None else new
        return False
