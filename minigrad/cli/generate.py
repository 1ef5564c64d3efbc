"""`minigrad generate`: text from a trained model, printed as it comes."""

from __future__ import annotations

import argparse
import secrets
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from minigrad.cli.arguments import Commands, Parser, number, path, unescaped, utf8, whole
from minigrad.cli.run_folder import load_model
from minigrad.errors import ConfigError
from minigrad.models import GPT, beam_search, generate_text
from minigrad.text import CharTokenizer, Tokenizer

EXAMPLES = """\
examples:
  minigrad generate --model runs/gpt --prompt "The import statement"
  minigrad generate --model runs/gpt --prompt "def " --temperature 0.5 --top-k 20 --tokens 1000
  minigrad generate --model runs/gpt --prompt "A list is" --temperature 0       # always the likeliest next character
  minigrad generate --model runs/gpt --prompt "A list is" --stop "\\n\\n"         # up to the end of the paragraph
  minigrad generate --model runs/gpt --prompt "A list is" --beams 8 --tokens 40
"""


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "generate",
        help="let a trained model write",
        epilog=EXAMPLES,
        description="Continue a prompt with a model that `minigrad train` has made.",
    )
    parser.add_argument(
        "--model",
        metavar="DIR",
        type=path,
        required=True,
        help="the folder of the run, or a .mgrd file from it",
    )
    parser.option(
        "--prompt",
        "TEXT",
        utf8,
        None,
        "the text to go on from; for a model of characters, of those in its training text "
        "(default: a line end, or the first character that the model knows)",
    )
    parser.option(
        "--tokens",
        "N",
        whole(1),
        400,
        "how many tokens (characters, unless the model was trained on others) to write at most",
    )
    add_sampling_options(parser)
    parser.option(
        "--beams",
        "N",
        whole(1),
        None,
        "do not draw: print the likeliest text that a search N wide finds (default: draw)",
    )
    parser.add_argument(
        "--no-cache",
        action="store_true",
        help="compute every token from scratch, without the KV cache: same text, slower",
    )
    parser.switch(
        "jit",
        False,
        "compile the model to C: several times faster for long texts, after a second or two the "
        "first time (default: do not)",
    )
    parser.set_defaults(run=run, given=frozenset())


def add_sampling_options(parser: Parser) -> None:
    """How a token is chosen, and where to stop: for every command that writes."""
    parser.option(
        "--temperature",
        "X",
        number(0),
        0.8,
        "below 1: more predictable; above 1: wilder; 0: always the likeliest",
    )
    parser.option("--top-k", "N", whole(1), None, "choose among the N likeliest tokens only")
    parser.option(
        "--top-p",
        "X",
        number(0, 1, without=0),
        None,
        "choose among the likeliest tokens that together have probability X",
    )
    parser.option(
        "--min-p",
        "X",
        number(0, 1),
        None,
        "choose among tokens at least X times as likely as the likeliest (default: all)",
    )
    parser.option(
        "--repetition-penalty",
        "X",
        number(0, without=0),
        1.0,
        "above 1: tokens that have come already are made less likely",
    )
    parser.add_argument(
        "--stop",
        metavar="TEXT",
        type=unescaped,
        action="append",
        default=None,
        help=r"stop before this text, \n for a line end; may be given several times (default: "
        r"none)",
    )
    parser.option(
        "--seed",
        "N",
        whole(0),
        None,
        "the same seed gives the same text (default: a new one each time)",
    )


def sampling(options: argparse.Namespace) -> dict[str, Any]:
    """The chosen settings, as `model.generate` takes them."""
    return {
        name: getattr(options, name)
        for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    }


def run(options: argparse.Namespace) -> int:
    """Load the model and print prompt and continuation."""
    drawing = {"temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "jit"} & {
        *options.given
    }
    drawing |= {"no_cache"} if options.no_cache else set()
    if options.beams and drawing:
        problem = f"--beams draws nothing, so --{min(drawing).replace('_', '-')} has no use"
        raise ConfigError("generate", problem, got=sorted(drawing), hint="leave one of the two out")
    if options.jit and options.no_cache:
        problem = "--jit works with the KV cache, not with --no-cache"
        raise ConfigError("generate", problem, hint="leave one of the two out")
    model, tokenizer = load_model(options.model)
    if options.prompt is None:
        options.prompt = first_prompt(tokenizer)
    if not options.prompt:
        problem = "the prompt is empty"
        hint = "give some text to go on from"
        raise ConfigError("generate", problem, got="", wanted="at least one character", hint=hint)
    pieces = (
        searched(model, tokenizer, options) if options.beams else drawn(model, tokenizer, options)
    )
    print(options.prompt, end="")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        print_text(pieces)
    for warning in caught:  # there is no C compiler, or it does not work
        print(f"minigrad generate: warning: {warning.message}", file=sys.stderr)
    return 0


def first_prompt(tokenizer: Tokenizer) -> str:
    """What to begin with if nothing is given: a line end, or the first character it knows."""
    known = tokenizer.characters if isinstance(tokenizer, CharTokenizer) else ["\n"]
    return "\n" if "\n" in known else known[0]


def drawn(model: GPT, tokenizer: Tokenizer, options: argparse.Namespace) -> Iterator[str]:
    """The continuation, in pieces as it is drawn."""
    seed = secrets.randbits(32) if options.seed is None else options.seed
    return generate_text(
        model,
        tokenizer,
        options.prompt,
        options.tokens,
        stop=options.stop or (),
        seed=seed,
        use_cache=not options.no_cache,
        jit=options.jit,
        **sampling(options),
    )


def searched(model: GPT, tokenizer: Tokenizer, options: argparse.Namespace) -> list[str]:
    """The likeliest continuation that beam search finds, up to the first stop string."""
    prompt = tokenizer.encode(options.prompt)
    # Beams cannot go beyond the context. A number of tokens that nobody has chosen gives way; one
    # that was chosen is refused.
    room = (
        options.tokens
        if "tokens" in options.given
        else min(options.tokens, max(model.config.block_size - len(prompt), 1))
    )
    best = beam_search(model, prompt, room, beams=options.beams)[0]
    text = tokenizer.decode(best.tokens)
    return [
        text[
            : min((at for stop in options.stop or () if (at := text.find(stop)) >= 0), default=None)
        ]
    ]


def print_text(pieces: Iterable[str]) -> None:
    """Print pieces of text as they come, and a line end after the last."""
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
