r"""Let a trained model write.

examples:
  minigrad generate --model runs/gpt --prompt "The import statement"
  minigrad generate --model runs/gpt --prompt "def " --temperature 0.5 --top-k 20 --tokens 1000
  minigrad generate --model runs/gpt --prompt "A list is" --temperature 0   # the likeliest one
  minigrad generate --model runs/gpt --prompt "A list is" --stop "\n\n"    # a paragraph
  minigrad generate --model runs/gpt --prompt "A list is" --beams 8 --tokens 40
"""

from __future__ import annotations

import contextlib
import secrets
import sys
import warnings
from argparse import Namespace
from collections.abc import Iterable, Iterator
from typing import Any

from minigrad.cli.options import ESCAPED, FLAG, SWITCH, TEXT, Command, Option, number, refuse, whole
from minigrad.cli.run_folder import LOADED, load_asked
from minigrad.errors import MinigradError
from minigrad.models import GPT, beam_search, generate_text
from minigrad.models.generation import end_tokens, prompt_tokens, text_pieces
from minigrad.text import CharTokenizer, Tokenizer

# How a token is chosen, as `model.generate` takes it
DRAWING = (
    Option("temperature", number(0), 0.8, "below 1 more predictable, 0 always the likeliest"),
    Option("top_k", whole(1), None, "choose among the N likeliest tokens"),
    Option("top_p", number(0, 1, without=0), None, "choose among the likeliest, of probability X"),
    Option("min_p", number(0, 1), None, "drop tokens below X times the likeliest (default: none)"),
    Option("repetition_penalty", number(0, without=0), 1.0, "above 1: fewer repetitions"),
)
SAMPLING = (
    *DRAWING,
    Option("stop", ESCAPED, None, r"stop before this text; \n is a line end (default: none)", True),
    Option("seed", whole(0), None, "the same seed gives the same text (default: a new seed)"),
)
OPTIONS = (
    *LOADED,
    Option("prompt", TEXT, None, "text to continue (default: a line end, or a character it knows)"),
    Option("tokens", whole(1), 400, "the most tokens to write"),
    *SAMPLING,
    Option("beams", whole(1), None, "the likeliest text of a search N wide (default: draw)"),
    Option("no_cache", FLAG, False, "compute every token without the KV cache: same text, slower"),
    Option("jit", SWITCH, False, "compile the model to C, for long texts (default: do not)"),
)


def sampling(options: Namespace) -> dict[str, Any]:
    """Return the settings of DRAWING, as `model.generate` takes them."""
    return {option.name: getattr(options, option.name) for option in DRAWING}


def run(options: Namespace) -> int:
    """Load the model and print prompt and continuation."""
    drawing = {*sampling(options), "seed", "jit", "no_cache"} & options.given
    if options.beams and drawing:
        name = min(drawing).replace("_", "-")
        refuse("generate", f"--beams draws nothing, so --{name} has no use")
    if options.jit and options.no_cache:
        refuse("generate", "--jit works with the KV cache, not with --no-cache")
    model, tokenizer = load_asked(options)
    if options.prompt is None:
        options.prompt = first_prompt(tokenizer)
    if not options.prompt:
        refuse("generate", "the prompt is empty", "give some text to continue")
    if not options.beams:
        warn_of_length("generate", len(prompt_tokens(tokenizer, options.prompt)), model)
    write = searched if options.beams else drawn
    pieces = write(model, tokenizer, options)
    print(options.prompt, end="", flush=True)
    with plain_warnings("generate"):
        print_text(pieces)
    return 0


def warn_of_length(command: str, count: int, model: GPT) -> None:
    """Say on stderr that a text of so many tokens does not fit into the model's context."""
    if count > (size := model.config.block_size):
        text = f"{count:,} tokens; the model sees {size:,}, and forgets what comes before them"
        print(f"minigrad {command}: warning: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def plain_warnings(command: str) -> Iterator[None]:
    """Print warnings when the block ends, a line each: no C compiler, or one that does not work."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        print(f"minigrad {command}: warning: {warning.message}", file=sys.stderr)


def first_prompt(tokenizer: Tokenizer) -> str:
    """Return the default prompt: a line end, or the first character that the tokenizer knows."""
    known = tokenizer.characters if isinstance(tokenizer, CharTokenizer) else ["\n"]
    return "\n" if "\n" in known else known[0]


def drawn(model: GPT, tokenizer: Tokenizer, options: Namespace) -> Iterator[str]:
    """Return the continuation, in pieces as it is drawn."""
    seed = secrets.randbits(32) if options.seed is None else options.seed
    how = {**sampling(options), "seed": seed, "stop": options.stop or ()}
    how |= {"use_cache": not options.no_cache, "jit": options.jit}
    return generate_text(model, tokenizer, options.prompt, options.tokens, **how)


def searched(model: GPT, tokenizer: Tokenizer, options: Namespace) -> Iterator[str]:
    """Return the likeliest continuation that beam search finds, up to the first stop string."""
    prompt = prompt_tokens(tokenizer, options.prompt)
    # Beams cannot go beyond the context: the default number of tokens is cut, a chosen one refused.
    tokens, left = options.tokens, max(model.config.block_size - len(prompt), 1)
    tokens = tokens if "tokens" in options.given else min(tokens, left)
    found = beam_search(model, prompt, tokens, beams=options.beams)[0].tokens
    stops = [*(options.stop or ()), *end_tokens(tokenizer)]
    return text_pieces(tokenizer, found, stops, prompt.tolist())


def print_text(pieces: Iterable[str]) -> None:
    """Print pieces of text as they come, and a line end after the last."""
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
    except MinigradError:
        print(flush=True)
        raise
    print()


COMMAND = Command("generate", OPTIONS, run, "let a trained model write", __doc__)
