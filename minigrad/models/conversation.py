"""A conversation: a text that a model and a user write in turns, computed once.

talk = Conversation(model, tokenizer, seed=0)
talk.add("you: hi\\nbot:")
for piece in talk.answer(100, stop="\\nyou:", temperature=0.8):
    print(piece, end="")
talk.add("\\nyou: and now?\\nbot:")             # only this is new to the caches
talk.save_cache("talk.mgrd")                    # for load_cache of another day
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.arguments import as_int
from minigrad.dtypes import Array, cast, float64, is_half
from minigrad.errors import CacheError, ConfigError, StateDictError
from minigrad.files import StateDict, load, save
from minigrad.models.generation import (
    checked_stops,
    end_tokens,
    prompt_tokens,
    text_after,
    text_pieces,
)
from minigrad.models.gpt import GPT
from minigrad.models.prompts import generator_of
from minigrad.models.sampling import Sampling
from minigrad.nn.attention import KVCache
from minigrad.tensor import Tensor
from minigrad.text import Tokenizer


class Conversation:
    """The tokens of both sides, and the KV caches of those that the model has seen. What has been
    seen is not computed again, unless the context is full: then its older half is dropped from what
    the model sees (not from `tokens`), and the rest computed again.

    seed: of the draws; None goes on with the library's generator.
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer, *, seed: int | None = None) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.tokens: list[int] = []
        self._generator = generator_of("Conversation", seed)
        # The caches hold tokens[start : start + length]
        self._caches, self._start = model.make_caches(), 0
        self._earlier: StateDict | None = None  # what load_cache has read

    @property
    def text(self) -> str:
        """All that both sides have written."""
        return self.tokenizer.decode(self.tokens)

    @property
    def seen(self) -> int:
        """How many tokens the caches hold."""
        return self._caches[0].length

    def add(self, text: str) -> None:
        """Write the other side's part. Raises DataError for characters that the tokenizer does not
        know.
        """
        said, tokenizer = self.tokens, self.tokenizer
        new = tokenizer.encode_after(said, text) if said else prompt_tokens(tokenizer, text)
        self.tokens += new.tolist()

    def rewrite(self, tokens: Sequence[int]) -> None:
        """Let these be the tokens of both sides. What they begin with as those before do is not
        computed again.
        """
        self.take_back(_alike(self.tokens, tokens))
        self.tokens += tokens[len(self.tokens) :]

    def take_back(self, length: int) -> None:
        """Forget all tokens from `length` on. Raises ConfigError if there are fewer."""
        if not 0 <= length <= len(self.tokens):
            problem = f"to {length} of {len(self.tokens)} tokens"
            wanted = (0, len(self.tokens))
            raise ConfigError("Conversation.take_back", problem, got=length, wanted=wanted)
        del self.tokens[length:]
        if length <= self._start:  # nothing of what the caches hold is left
            self._look_from(0)
        # An error amid a run may have left some layers longer than others
        held = min(cache.length for cache in self._caches)
        for cache in self._caches:
            cache.truncate(min(held, length - self._start))

    def answer(
        self,
        max_new_tokens: int,
        *,
        stop: str | Sequence[str] = (),
        jit: bool = False,
        **sampling: Any,
    ) -> Generator[str, None, None]:
        """Let the model write: yields the text in pieces, up to the first of the `stop` strings or
        max_new_tokens tokens.

        What was yielded is part of the conversation, the stop string is not; one may leave in the
        middle. jit: as in `GPT.generate`. sampling: see `Sampling`. Raises ConfigError, at the
            call, for settings that make no sense and if nothing has been said yet.
        """
        max_new_tokens = as_int("Conversation.answer", "max_new_tokens", max_new_tokens, 0)
        how = Sampling(call="Conversation.answer", **sampling)
        stops = [*checked_stops("Conversation.answer", stop), *end_tokens(self.tokenizer)]
        if not self.tokens:
            problem = "there is nothing to answer yet"
            hint = "add(text) first"
            raise ConfigError("Conversation.answer", problem, got=0, wanted=">= 1 token", hint=hint)
        return self._answer(max_new_tokens, stops, how, jit)

    def save_cache(self, path: Path) -> None:
        """Write what the caches hold, tokens with their keys and values, to a MGRD file, for
        `load_cache` of a later conversation. Raises ConfigError if they hold nothing yet.
        """
        n = self.seen
        if n == 0:
            problem, hint = "the model has seen no token yet", "answer() first"
            raise ConfigError("Conversation.save_cache", problem, got=0, wanted=">= 1", hint=hint)
        held = {name: x[:, :, :n] for name, x in _held(self._caches).items()}
        save(path, {"tokens": np.array(self.tokens[self._start :][:n]), **held})

    def load_cache(self, path: Path) -> None:
        """Read a file of `save_cache`: what this conversation begins with as that one did is not
        computed again. Its first token is, as a trial. Raises CacheError if the file is another
        model's or no cache, and what `minigrad.load` raises.
        """
        trial = self.model.make_caches()
        names = [f"{i}.{what}" for i in range(len(trial)) for what in ("keys", "values")]
        hint = "keep a file per model"
        another = CacheError("Conversation.load_cache", f"{path} is another model's", hint=hint)
        try:
            earlier = load(path, names=["tokens", *names])
        except StateDictError as error:  # a cache of fewer layers, or no cache
            if "tokens" in error.got:
                another.problem = f"{path} is not a cache of a conversation"
            raise another from None
        tokens = earlier["tokens"]
        whole = tokens.ndim == 1 and tokens.dtype.kind == "i" and tokens.size > 0
        if whole and 0 <= tokens.min() <= tokens.max() < self.model.config.vocab_size:
            self._run(tokens[:1].tolist(), trial)
            pairs = ((earlier[name], own, len(tokens)) for name, own in _held(trial).items())
            if all(_begin_alike(*pair) for pair in pairs):
                self._earlier = earlier
                return
        raise another

    def _recall(self, earlier: StateDict) -> None:
        """Fill empty caches with what a file holds of this beginning."""
        n = _alike(self.tokens[self._start :], earlier["tokens"].tolist())
        if n == 0:
            return
        for i, cache in enumerate(self._caches):
            keys, values = (Tensor(earlier[f"{i}.{x}"][:, :, :n]) for x in ("keys", "values"))
            cache.append(keys, values)

    def _answer(
        self, count: int, stops: list[str], how: Sampling, jit: bool
    ) -> Generator[str, None, None]:
        before, said = self.tokens[:], ""
        try:
            with contextlib.closing(self._drawn(count, how, jit)) as drawn:
                for piece in text_pieces(self.tokenizer, drawn, stops, before):
                    said += piece
                    yield piece
        finally:
            self._keep(before, said)

    def _drawn(self, count: int, how: Sampling, jit: bool) -> Generator[int, None, None]:
        end = len(self.tokens) + count
        while len(self.tokens) < end:
            logits = how.penalised(self._logits(), np.array([self.tokens[self._start :]]))
            self.tokens.append(int(how.draw(logits, self._generator)[0]))
            yield self.tokens[-1]
            if jit and len(self.tokens) < end:
                with contextlib.closing(self._ahead(end - len(self.tokens), how)) as ahead:
                    for token in ahead:
                        self.tokens.append(token)
                        yield token

    def _ahead(self, count: int, how: Sampling) -> Generator[int, None, None]:
        """Up to `count` tokens by the compiled step, as many as the context has room for. In the
        end the caches hold what it has seen.
        """
        context, size = np.array([self.tokens[self._start :]]), self.model.config.block_size
        decoder = self.model._take_decoder(1, min(context.shape[1] + count, size))
        if decoder is None:
            return
        try:
            decoder.take(self._caches, None)
            decoder.begin(context, np.zeros(1, bool))
            stops = np.zeros(self.model.config.vocab_size, bool)
            count = min(count, size + 1 - context.shape[1])
            for token, _ in decoder.tokens(count, how, self._generator, False, stops):
                yield int(token[0])
        finally:
            decoder.give(self._caches, len(self.tokens) - 1 - self._start)
            self.model._decoders[1] = decoder

    def _logits(self) -> Array:
        """The logits after the last token, (1, V): what the caches do not hold yet goes through the
        model.
        """
        size = self.model.config.block_size
        if len(self.tokens) - self._start > size:
            self._look_from(len(self.tokens) - max(size // 2, 1))
        if self._earlier is not None and not self.seen:
            self._recall(self._earlier)
        # The last token goes in again if nothing is new
        seen = min(self.seen, len(self.tokens) - self._start - 1)
        for cache in self._caches:
            cache.truncate(seen)
        return self._run(self.tokens[self._start + self.seen :], self._caches)

    def _run(self, tokens: list[int], caches: list[KVCache]) -> Array:
        return self.model._last_logits(np.array([tokens]), caches)[:, 0]

    def _look_from(self, start: int) -> None:
        self._start = start
        for cache in self._caches:
            cache.reset()

    def _keep(self, before: list[int], said: str) -> None:
        """Of the answer after the tokens `before`, keep `said`: as many of its tokens as spell a
        beginning of it, and the rest encoded again.
        """
        answer = self.tokens[len(before) :]
        while not said.startswith(kept := text_after(self.tokenizer, before, answer)):
            del answer[-1]
        self.take_back(len(before) + len(answer))
        if rest := said[len(kept) :]:
            self.add(rest)


def _alike(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def _held(caches: list[KVCache]) -> dict[str, Array]:
    """The buffers of all layers' keys and values, (1, H, positions, D), by their names in files."""
    found: dict[str, Array] = {}
    for i, cache in enumerate(caches):
        held = cache.mark()
        assert held.keys is not None and held.values is not None
        found |= {f"{i}.keys": held.keys, f"{i}.values": held.values}
    return found


def _begin_alike(x: Array, own: Array, n: int) -> bool:
    """True if x, (1, H, n, D), begins with the first keys or values of `own`, (1, H, positions, D),
    but for rounding.
    """
    if x.dtype != own.dtype or x.shape != (*own.shape[:2], n, own.shape[3]):
        return False
    a, b = (cast(each[:, :, 0], float64) for each in (x, own))
    return bool(np.linalg.norm(a - b) <= (2e-2 if is_half(x.dtype) else 1e-3) * np.linalg.norm(b))
