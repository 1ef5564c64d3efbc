"""Measure how well a model predicts a text.

examples:
  minigrad eval --model runs/gpt --text held_out.txt
  minigrad eval --model runs/gpt --text held_out.txt --stride 1  # fairest and slowest
  minigrad eval --model runs/gpt --text held_out.txt --json
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from argparse import Namespace
from typing import Any

from minigrad.cli.options import FLAG, PATH, REQUIRED, Command, Option, whole
from minigrad.cli.run_folder import LOADED, load_asked
from minigrad.cli.terminal import progress, read_and_report, watched
from minigrad.errors import DataError
from minigrad.evaluate import perplexity_and_accuracy, windows
from minigrad.models.generation import prompt_tokens
from minigrad.text import CharTokenizer, Tokenizer

_LONGEST, _LOGITS = 1024, 1 << 26  # tokens of context unless asked for, logits held at a time
SKIP_UNKNOWN = Option("skip_unknown", FLAG, False, "leave out characters that the model lacks")
OPTIONS = (
    *LOADED,
    Option("text", PATH, REQUIRED, "a UTF-8 text file, or a folder of them, not trained on"),
    Option("stride", whole(1), None, "tokens by which the context moves on (default: half of it)"),
    Option("context", whole(1), None, "tokens of context (default: the model's, 1024 at most)"),
    SKIP_UNKNOWN,
    Option("batch_size", whole(1), 16, "windows computed at once"),
    Option("json", FLAG, False, "print one JSON object instead of lines"),
)


def run(options: Namespace) -> int:
    """Measure and print."""
    found = measure(options)
    if options.json:
        print(json.dumps(found))
        return 0
    size = f"{found['characters']:,} characters, {found['tokens']:,} tokens predicted"
    print(f"text                {options.text}: {size}")
    if found["unknown_characters"]:
        print(f"unknown characters  {found['unknown_characters']:,}, left out")
    print(f"context             {found['block_size']} tokens, moved on by {found['stride']}")
    print(f"nats per token      {found['nats_per_token']:.4f}")
    print(f"perplexity          {found['perplexity']:.4f}")
    print(f"bits per character  {found['bits_per_character']:.4f}")
    print(f"accuracy            {found['accuracy']:.2%}   (the likeliest token is the right one)")
    return 0


def measure(options: Namespace) -> dict[str, Any]:
    """Return what is printed, by name."""
    model, tokenizer = load_asked(options)
    whole = read_and_report(options.text, sys.stderr)
    text = known_text(whole, tokenizer, options)
    tokens = prompt_tokens(tokenizer, text)
    if len(tokens) < 2:
        problem = f"{options.text} has {len(tokens)} token{'' if len(tokens) else 's'}"
        hint = "give a longer text: the first token is not predicted"
        raise DataError("eval", problem, got=len(tokens), wanted=2, hint=hint)
    size = min(options.context or _LONGEST, model.config.block_size)
    stride = options.stride or max(size // 2, 1)
    rows = max(1, min(options.batch_size, _LOGITS // (size * model.config.vocab_size)))
    how = {"block_size": size, "stride": stride, "batch_size": rows}
    with contextlib.closing(progress(sys.stderr)) as display:
        batches = watched(windows(tokens, **how), "evaluation", len(tokens) - 1, display.say)
        found, right = perplexity_and_accuracy(model, batches)
    bits = found.nats * found.tokens / math.log(2)
    return {
        "nats_per_token": found.nats,
        "perplexity": found.perplexity,
        "bits_per_character": bits / len(tokenizer.decode(tokens[1:])),
        "accuracy": right,
        "tokens": found.tokens,
        "unknown_characters": len(whole) - len(text),
        "characters": len(text),
        "block_size": size,
        "stride": stride,
    }


def known_text(text: str, tokenizer: Tokenizer, options: Namespace) -> str:
    """Return the text without the characters that the model does not know. Raises DataError for
    such characters, unless --skip-unknown.
    """
    known = tokenizer.characters if isinstance(tokenizer, CharTokenizer) else text
    unknown = sorted(set(text) - set(known))
    if not unknown:
        return text
    count = sum(text.count(c) for c in unknown)
    if not options.skip_unknown:
        at = min(text.index(c) for c in unknown)
        line = text.count("\n", 0, at) + 1
        problem = f"{options.text} has characters that the model does not know: {count:,} in all"
        problem += f", {len(unknown)} different; the first is {text[at]!r} in line {line}"
        raise DataError("eval", problem, got=unknown, hint="--skip-unknown leaves them out")
    return text.translate(dict.fromkeys(map(ord, unknown)))


COMMAND = Command("eval", OPTIONS, run, "measure how well a model predicts a text", __doc__)
