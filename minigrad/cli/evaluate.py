"""`minigrad eval`: how well a trained model predicts a text."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from minigrad.cli.arguments import Commands, path, whole
from minigrad.cli.run_folder import load_model
from minigrad.data import read_text
from minigrad.errors import DataError
from minigrad.evaluate import accuracy, perplexity, windows
from minigrad.text import CharTokenizer

EXAMPLES = """\
examples:
  minigrad eval --model runs/gpt --text held_out.txt
  minigrad eval --model runs/gpt --text held_out.txt --stride 1       # every token with the longest context: the fairest and slowest
  minigrad eval --model runs/gpt --text held_out.txt --json
"""


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "eval",
        help="measure how well a model predicts a text",
        epilog=EXAMPLES,
        description="Perplexity, nats per token, bits per character and accuracy of a model on a "
        "text.",
    )
    parser.add_argument(
        "--model",
        metavar="DIR",
        type=path,
        required=True,
        help="the folder of the run, or a .mgrd file from it",
    )
    parser.add_argument(
        "--text",
        metavar="PATH",
        type=path,
        required=True,
        help="a UTF-8 text file, or a folder of them, not trained on",
    )
    parser.option(
        "--stride",
        "N",
        whole(1),
        None,
        "tokens by which the model's window moves on: every token but those of the first "
        "window has at least block_size - N before it (default: half of the model's block_size)",
    )
    parser.add_argument(
        "--skip-unknown",
        action="store_true",
        help="leave out characters that were not in the training text",
    )
    parser.option("--batch-size", "N", whole(1), 16, "windows computed at once")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of lines"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure and print."""
    found = measure(options)
    if options.json:
        print(json.dumps(found))
        return 0
    print(
        f"text                {options.text}: {found['characters']:,} characters, "
        f"{found['tokens']:,} tokens predicted"
    )
    if found["unknown_characters"]:
        print(f"left out            {found['unknown_characters']:,} unknown characters")
    print(f"context             {found['block_size']} tokens, moved on by {found['stride']}")
    print(f"nats per token      {found['nats_per_token']:.4f}")
    print(f"perplexity          {found['perplexity']:.4f}")
    print(f"bits per character  {found['bits_per_character']:.4f}")
    print(f"accuracy            {found['accuracy']:.2%}   (the likeliest token is the right one)")
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """What is printed, by name."""
    model, tokenizer = load_model(options.model)
    text = read_text(options.text)
    if isinstance(tokenizer, CharTokenizer):
        text, skipped = without_unknown(text, tokenizer, options)
    else:
        skipped = 0
    tokens = tokenizer.encode(text)
    if len(tokens) < 2:
        problem = f"{options.text} has {len(tokens)} tokens"
        hint = "a longer text: the first is not predicted"
        raise DataError("eval", problem, got=len(tokens), wanted=2, hint=hint)
    size = model.config.block_size
    how = {
        "block_size": size,
        "stride": options.stride or max(size // 2, 1),
        "batch_size": options.batch_size,
    }
    found = perplexity(model, tokens, **how)
    characters = len(tokenizer.decode(tokens[1:]))
    return {
        "nats_per_token": found.nats,
        "perplexity": found.perplexity,
        "bits_per_character": found.nats * found.tokens / math.log(2) / characters,
        "accuracy": accuracy(model, windows(tokens, **how)),
        "tokens": found.tokens,
        "unknown_characters": skipped,
        "characters": len(text),
        "block_size": size,
        "stride": how["stride"],
    }


def without_unknown(
    text: str, tokenizer: CharTokenizer, options: argparse.Namespace
) -> tuple[str, int]:
    """The text without the characters that the model does not know, and how many there were. Raises
    DataError if there are some, unless they may be left out.
    """
    known = set(tokenizer.characters)
    unknown = sorted(set(text) - known)
    if not unknown:
        return text, 0
    count = sum(text.count(c) for c in unknown)
    if not options.skip_unknown:
        at = min(text.index(c) for c in unknown)
        line = text.count("\n", 0, at) + 1
        problem = (
            f"{options.text} has {count:,} characters that the model does not know, "
            f"{len(unknown)} different ones; the first is {text[at]!r} in line {line}"
        )
        raise DataError("eval", problem, got=unknown, hint="--skip-unknown leaves them out")
    return text.translate(dict.fromkeys(map(ord, unknown))), count
