"""Generation beyond the simple door `model.generate`: text with stop strings, beams, a draft model.

They work with any model that has a `forward(tokens, caches=)`, `make_caches()` and a config with
vocab_size and block_size, as GPT has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from minigrad.arguments import as_int
from minigrad.dtypes import Array
from minigrad.errors import ConfigError, ShapeError
from minigrad.models.gpt import GPT
from minigrad.models.prompts import checked_prompt, generator_of
from minigrad.models.sampling import Sampling, draw
from minigrad.nn.attention import KVCache
from minigrad.random import Generator
from minigrad.text import Tokenizer
from minigrad.text.published import PublishedTokenizer


def generate_text(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int,
    *,
    stop: str | Sequence[str] = (),
    **sampling: Any,
) -> Iterator[str]:
    """Yield the text that continues the prompt, in pieces as it is made, up to the first of the
    `stop` strings or max_new_tokens tokens.

    The stop string itself is not given, nor half of a character; the end tokens of a published
    model's tokenizer stop too.

    sampling: temperature, top_k, ..., seed, as for `model.generate`.
    Raises ConfigError for an empty stop string, and what `model.generate` raises.
    """
    stops = [*checked_stops("generate_text", stop), *end_tokens(tokenizer)]
    tokens = prompt_tokens(tokenizer, prompt)
    drawn = model.generate(tokens, max_new_tokens, **sampling)
    return text_pieces(tokenizer, drawn, stops, tokens.tolist())


def end_tokens(tokenizer: Tokenizer) -> tuple[str, ...]:
    """What ends an answer of a published model; () for other tokenizers."""
    return tokenizer.eos if isinstance(tokenizer, PublishedTokenizer) else ()


def prompt_tokens(tokenizer: Tokenizer, text: str) -> Array:
    """The tokens of a whole text, with the special token that begins it in a published model."""
    if isinstance(tokenizer, PublishedTokenizer):
        return tokenizer.encode_prompt(text)
    return tokenizer.encode(text)


def checked_stops(call: str, stop: str | Sequence[str]) -> list[str]:
    """The stop strings as a list. Raises ConfigError for an empty one."""
    stops = [stop] if isinstance(stop, str) else list(stop)
    if "" in stops:
        raise ConfigError(
            call, "an empty stop string would stop at once", got=stops, wanted="no empty strings"
        )
    return stops


_WINDOW, _KEPT = 64, 16  # tokens that are decoded again with each new one, and that stay of them


def text_pieces(
    tokenizer: Tokenizer, drawn: Iterable[int], stops: Sequence[str], before: Sequence[int] = ()
) -> Iterator[str]:
    """The text of tokens as they are drawn after those `before`, up to the first of the stop
    strings: neither part of one nor half of a character is given.
    """
    tokens = list(before[-_KEPT:])
    given, text = len(tokenizer.decode(tokens)), ""
    for token in drawn:
        tokens.append(token)
        text = tokenizer.decode(tokens)[given:]
        # A character whose bytes are incomplete ends the text in U+FFFD; what may become a stop
        # string waits too.
        whole = text.rstrip("\ufffd")
        if any(s in whole for s in stops):
            break
        ready = len(whole) - max(
            (n for s in stops for n in range(1, len(s)) if whole.endswith(s[:n])), default=0
        )
        if ready:
            yield text[:ready]
            given, text = given + ready, text[ready:]
        if len(tokens) > _WINDOW and not text:
            # No stop string has begun here: a long text need not be decoded from its start
            tokens = tokens[-_KEPT:]
            given = len(tokenizer.decode(tokens))
    end = min((at for s in stops if (at := text.find(s)) >= 0), default=len(text))
    if end:
        yield text[:end]


def text_after(tokenizer: Tokenizer, before: Sequence[int], tokens: Sequence[int]) -> str:
    """What the text of all tokens has more than that of those before: SentencePiece's tokenizers
    drop a space that begins a text.
    """
    near = before[-_KEPT:]
    return tokenizer.decode([*near, *tokens])[len(tokenizer.decode(near)) :]


class Beam(NamedTuple):
    """A continuation: its tokens, and the sum of their log-probabilities."""

    tokens: list[int]
    log_probability: float


def _extended(rows: list[Beam], logp: Array, beams: int) -> list[tuple[int, Beam]]:
    """The best continuations by one token, with the number of the row that each goes on from: so
    many that `beams` are left if every row could end here.
    """
    total = logp + np.array([row.log_probability for row in rows])[:, None]
    best = np.argsort(-total, axis=None, kind="stable")[: 2 * beams]
    places = zip(*np.unravel_index(best, total.shape), strict=True)
    return [(int(r), Beam([*rows[r].tokens, int(v)], float(total[r, v]))) for r, v in places]


def beam_search(
    model: GPT,
    prompt: Any,
    max_new_tokens: int,
    *,
    beams: int = 4,
    length_penalty: float = 0.0,
    stop_token: int | None = None,
) -> list[Beam]:
    """The most probable continuations of a prompt (T,) that a search `beams` wide finds, best
    first.

    Every step keeps the `beams` best of all continuations by one token. A beam ends with
    stop_token, or at max_new_tokens. Beams are ranked by log_probability / length^length_penalty: 0
    is the probability itself, 1 its mean per token, which favours longer ones. Raises ConfigError
    if prompt and continuation do not fit into the model's context.
    """
    beams = as_int("beam_search", "beams", beams)
    tokens = _single_prompt("beam_search", prompt, max_new_tokens, model)
    caches, rows, new = model.make_caches(), [Beam([], 0.0)], tokens[None]
    ended: list[Beam] = []
    for _ in range(max_new_tokens):
        logp = _log_softmax(model._last_logits(new, caches)[:, 0])  # (beams, V)
        grown = _extended(rows, logp, beams)
        kept = [pair for pair in grown if pair[1].tokens[-1] != stop_token][:beams]
        ended += [beam for _, beam in grown if beam.tokens[-1] == stop_token]
        rows = [beam for _, beam in kept]
        if not rows or (
            len(ended) >= beams and not _may_win(rows, ended, beams, length_penalty, max_new_tokens)
        ):
            break
        for cache in caches:
            cache.reorder([parent for parent, _ in kept])
        new = np.array([[row.tokens[-1]] for row in rows])
    found = [*ended, *(row for row in rows if len(row.tokens) == max_new_tokens)]
    return sorted(found, key=lambda beam: -_worth(beam, length_penalty))[:beams]


def _worth(beam: Beam, length_penalty: float, length: int | None = None) -> float:
    return beam.log_probability / max(length or len(beam.tokens), 1) ** length_penalty


def _may_win(
    rows: list[Beam], ended: list[Beam], beams: int, length_penalty: float, longest: int
) -> bool:
    """Whether a living beam could still be among the best: log-probabilities only fall, but a
    longer beam may be divided by more.
    """
    worst = sorted((_worth(beam, length_penalty) for beam in ended), reverse=True)[beams - 1]
    return (
        max(_worth(row, length_penalty, longest if length_penalty > 0 else None) for row in rows)
        > worst
    )


def speculative_generate(
    model: GPT,
    draft: GPT | None,
    prompt: Any,
    max_new_tokens: int,
    *,
    lookahead: int = 4,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | None = None,
) -> Iterator[int]:
    """Yield max_new_tokens tokens that continue the prompt (T,), distributed exactly as
    `model.generate` would, with fewer runs of the model.

    A smaller `draft` proposes `lookahead` tokens, the model judges all of them in one run, and the
    first that is rejected is drawn again (see `accepted`). Without a draft (None), what followed
    the last tokens when they stood in the text before is proposed, which pays where an answer
    repeats parts of its prompt: code, summaries. From Leviathan et al. 2023, arXiv:2211.17192;
    prompt lookup from Saxena 2023. Raises ConfigError if prompt and continuation do not fit into
    the context of both, or the models' vocabularies differ.
    """
    how = Sampling(temperature, top_k, top_p, min_p, call="speculative_generate")
    lookahead = as_int("speculative_generate", "lookahead", lookahead)
    tokens = _single_prompt("speculative_generate", prompt, max_new_tokens, model)
    if draft is not None:
        wanted, got = model.config.vocab_size, draft.config.vocab_size
        if got != wanted:
            problem = "the draft has another vocabulary"
            raise ConfigError("speculative_generate", problem, got=got, wanted=wanted)
        _single_prompt("speculative_generate", prompt, max_new_tokens, draft)
    generator = generator_of("speculative_generate", seed)
    return _speculate(model, draft, tokens, max_new_tokens, lookahead, how, generator)


def _speculate(
    model: GPT,
    draft: GPT | None,
    tokens: Array,
    count: int,
    lookahead: int,
    how: Sampling,
    generator: Generator,
) -> Iterator[int]:
    known = tokens.tolist()  # all tokens so far; each model's caches hold a beginning of them
    caches, draft_caches = model.make_caches(), [] if draft is None else draft.make_caches()
    end = len(known) + count
    while len(known) < end:
        most = min(lookahead, end - len(known) - 1)
        if draft is None:
            proposed = looked_up(known, most)
            q = np.zeros((len(proposed), model.config.vocab_size))
            q[np.arange(len(proposed)), proposed] = 1.0
        else:
            proposed, q = _propose(draft, draft_caches, known, most, how, generator)
        new = np.array([[*known, *proposed][caches[0].length :]])
        logits = model._last_logits(new, caches, last=1 + len(proposed))[0]  # (proposed + 1, V)
        made = accepted(how.probabilities(logits), q, proposed, generator)
        known += made
        for cache in (*caches, *draft_caches):  # forget what was rejected; the newest is not seen
            cache.truncate(min(cache.length, len(known) - 1))
        yield from made


def _propose(
    draft: GPT, caches: list[KVCache], known: list[int], n: int, how: Sampling, generator: Generator
) -> tuple[list[int], Array]:
    """The n tokens that the draft goes on with, and the distributions they came from, (n, V)."""
    proposed: list[int] = []
    q = np.zeros((n, draft.config.vocab_size))
    for i in range(n):
        new = np.array([[*known, *proposed][caches[0].length :]])
        q[i] = how.probabilities(draft._last_logits(new, caches)[:, 0])[0]
        proposed.append(int(draw(q[i : i + 1], generator)[0]))
    return proposed, q


def looked_up(known: list[int], n: int) -> list[int]:
    """Up to n tokens: what followed the last three tokens, or two, where they last stood before."""
    for size in (3, 2):
        for at in range(len(known) - size - 1, -1, -1):
            if known[at : at + size] == known[-size:]:
                return known[at + size : at + size + n]
    return []


@np.errstate(under="ignore")
def accepted(p: Array, q: Array, proposed: Sequence[int], generator: Generator) -> list[int]:
    """The proposed tokens up to the first that is rejected, and one more token: drawn in its place,
    or after the last.

    p: (n + 1, V), the model's distributions at each place;  q: (n, V), the draft's, from which
        `proposed` were drawn. Token x is accepted with
    probability min(1, p(x) / q(x)), else the place gets one from max(p - q, 0), normalised. So
    every token is distributed as p says.
    """
    made: list[int] = []
    for i, x in enumerate(proposed):
        if float(generator.uniform()) * q[i, x] >= p[i, x]:
            left = np.maximum(p[i] - q[i], 0)
            return [*made, int(draw(left[None] / left.sum(), generator)[0])]
        made.append(x)
    return [*made, int(draw(p[len(made)][None], generator)[0])]


@np.errstate(under="ignore")
def _log_softmax(x: Array) -> Array:
    x = x.astype(np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def _single_prompt(call: str, prompt: Any, count: int, model: GPT) -> Array:
    as_int(call, "max_new_tokens", count, least=0)
    tokens, _ = checked_prompt(call, prompt, model.config.vocab_size)
    if tokens.ndim != 1:
        problem = f"a prompt of shape {tokens.shape}"
        hint = "one prompt at a time"
        raise ShapeError(call, problem, got=tokens.shape, wanted="(T,)", hint=hint)
    if len(tokens) + count > model.config.block_size:
        raise ConfigError(
            call,
            f"{len(tokens)} tokens and {count} new ones, but block_size={model.config.block_size}",
            got=len(tokens) + count,
            wanted=model.config.block_size,
            hint="a shorter prompt or fewer new tokens",
        )
    return tokens
