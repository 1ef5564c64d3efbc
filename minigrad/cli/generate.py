"""`minigrad generate`: text from a trained model, printed as it comes."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Iterator

from minigrad.cli.arguments import Commands, number, path, whole
from minigrad.cli.run_folder import load_model
from minigrad.data import CharTokenizer
from minigrad.errors import ConfigError

EXAMPLES = """\
examples:
  minigrad generate --model runs/gpt --prompt "The import statement"
  minigrad generate --model runs/gpt --prompt "def " --temperature 0.5 --top-k 20 --tokens 1000
  minigrad generate --model runs/gpt --prompt "A list is" --temperature 0       # always the likeliest next character
"""


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser("generate", help="let a trained model write", epilog=EXAMPLES,
                                 description="Continue a prompt with a model that `minigrad train` has made.")  # fmt: skip
    parser.add_argument("--model", metavar="DIR", type=path, required=True, help="the folder of the run, or a .mgrd file from it")
    parser.option(
        "--prompt", "TEXT", str, "\n", "the text to go on from; its characters must have been in the training text (default: a line end)"
    )
    parser.option("--tokens", "N", whole(1), 400, "how many tokens (characters) to write")
    parser.option(
        "--temperature", "X", number(0), 0.8, "below 1: more predictable; above 1: wilder; 0: always the likeliest"
    )
    parser.option("--top-k", "N", whole(1), None, "choose among the N likeliest tokens only")
    parser.option(
        "--top-p", "X", number(0, 1, without=0), None, "choose among the likeliest tokens that together have probability X"
    )
    parser.option("--seed", "N", whole(0), None, "the same seed gives the same text (default: a new one each time)")
    parser.add_argument(
        "--no-cache",
        action="store_true",
        help="compute every token from scratch, without the KV cache: same text, slower",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Load the model and print prompt and continuation."""
    model, tokenizer = load_model(options.model)
    if not options.prompt:
        raise ConfigError(
            "generate",
            "the prompt is empty",
            got="",
            wanted="at least one character",
            hint="give some text to go on from",
        )
    tokens = tokenizer.encode(options.prompt)
    seed = secrets.randbits(32) if options.seed is None else options.seed
    stream = model.generate(tokens, options.tokens, temperature=options.temperature, top_k=options.top_k, top_p=options.top_p,
                            seed=seed, use_cache=not options.no_cache)  # fmt: skip
    print(options.prompt, end="")
    print_stream(stream, tokenizer)
    return 0


def print_stream(tokens: Iterator[int], tokenizer: CharTokenizer) -> None:
    """Print tokens as they come, and a line end after the last."""
    for token in tokens:
        print(tokenizer.decode([token]), end="", flush=True)
    print()
