"""A conversation: a text that a model and somebody else write in turns, computed once.

talk = Conversation(model, tokenizer, seed=0)
talk.add("you: hi\\nbot:")
for piece in talk.answer(100, stop="\\nyou:", temperature=0.8):
    print(piece, end="")
talk.add("\\nyou: and now?\\nbot:")             # only this is new to the caches
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from minigrad.arguments import as_int
from minigrad.dtypes import Array
from minigrad.errors import ConfigError
from minigrad.models.generation import checked_stops, end_tokens, prompt_tokens, text_pieces
from minigrad.models.gpt import GPT
from minigrad.models.prompts import evaluating, generator_of
from minigrad.models.sampling import Sampling, draw
from minigrad.text import Tokenizer


class Conversation:
    """The tokens of both sides, and the KV caches of those that the model has seen. What has been
    seen is not computed again, unless the context
    is full: then its older half is dropped from what the model sees (not from `tokens`), and the
        rest computed anew.

    seed: of the draws; None goes on with the library's generator.
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer, *, seed: int | None = None) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.tokens: list[int] = []
        self._generator = generator_of("Conversation", seed)
        self._caches, self._start = (
            model.make_caches(),
            0,
        )  # the caches hold tokens[start : start + length]

    @property
    def text(self) -> str:
        """All that both sides have written."""
        return self.tokenizer.decode(self.tokens)

    def add(self, text: str) -> None:
        """Write the other side's part. Raises DataError for characters that the tokenizer does not
        know.
        """
        encode = self.tokenizer.encode if self.tokens else partial(prompt_tokens, self.tokenizer)
        self.tokens += encode(text).tolist()

    def take_back(self, length: int) -> None:
        """Forget all tokens from `length` on. Raises ConfigError if there are fewer."""
        if not 0 <= length <= len(self.tokens):
            problem = f"to {length} of {len(self.tokens)} tokens"
            wanted = (0, len(self.tokens))
            raise ConfigError("Conversation.take_back", problem, got=length, wanted=wanted)
        del self.tokens[length:]
        if length <= self._start:  # nothing of what the caches hold is left
            self._look_from(0)
        for cache in self._caches:
            cache.truncate(min(cache.length, length - self._start))

    def answer(
        self, max_new_tokens: int, *, stop: str | Sequence[str] = (), **sampling: Any
    ) -> Generator[str, None, None]:
        """Let the model write: yields the text in pieces, up to the first of the `stop` strings or
        max_new_tokens tokens.

        What was yielded is part of the conversation, the stop string is not; one may leave in the
        middle. sampling: see `Sampling`. Raises ConfigError, at the call, for settings that make no
            sense and if nothing has been said yet.
        """
        max_new_tokens = as_int("Conversation.answer", "max_new_tokens", max_new_tokens, 0)
        how = Sampling(call="Conversation.answer", **sampling)
        stops = [*checked_stops("Conversation.answer", stop), *end_tokens(self.tokenizer)]
        if not self.tokens:
            problem = "there is nothing to answer yet"
            hint = "add(text) first"
            raise ConfigError("Conversation.answer", problem, got=0, wanted=">= 1 token", hint=hint)
        return self._answer(max_new_tokens, stops, how)

    def _answer(self, count: int, stops: list[str], how: Sampling) -> Generator[str, None, None]:
        first, said = len(self.tokens), ""
        try:
            for piece in text_pieces(self.tokenizer, self._drawn(count, how), stops):
                said += piece
                yield piece
        finally:
            self._keep(first, said)

    def _drawn(self, count: int, how: Sampling) -> Iterator[int]:
        for _ in range(count):
            logits = how.penalised(self._logits(), np.array([self.tokens[self._start :]]))
            p = how.probabilities(logits)  # (1, V)
            self.tokens.append(
                int(draw(p, self._generator)[0]) if how.temperature else int(p.argmax())
            )
            yield self.tokens[-1]

    def _logits(self) -> Array:
        """The logits after the last token, (1, V): what the caches do not hold yet goes through the
        model.
        """
        size = self.model.config.block_size
        if len(self.tokens) - self._start > size:
            self._look_from(len(self.tokens) - max(size // 2, 1))
        seen = min(
            self._caches[0].length, len(self.tokens) - self._start - 1
        )  # the last token goes in again if nothing is new
        for cache in self._caches:
            cache.truncate(seen)
        with evaluating(self.model):
            return self.model([self.tokens[self._start + seen :]], caches=self._caches).numpy()[
                :, -1
            ]

    def _look_from(self, start: int) -> None:
        self._start = start
        for cache in self._caches:
            cache.reset()

    def _keep(self, first: int, said: str) -> None:
        """Of the answer that begins at token `first`, keep `said`: as many of its tokens as spell a
        beginning of it, and the rest encoded anew.
        """
        n = len(self.tokens)
        while not said.startswith(self.tokenizer.decode(self.tokens[first:n])):
            n -= 1
        rest = said[len(self.tokenizer.decode(self.tokens[first:n])) :]
        self.take_back(n)
        if rest:
            self.add(rest)
