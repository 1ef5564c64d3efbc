"""Sentences as vectors, and their similarities.

examples:
  minigrad embed --model all-MiniLM-L6-v2 "A man eats." "A man is eating." "It rains."
  minigrad embed --model all-MiniLM-L6-v2 --json < sentences.txt      # one text per line
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

from minigrad.cli.options import FLAG, PATH, REQUIRED, TEXT, Command, Option, refuse
from minigrad.cli.run_folder import model_file
from minigrad.dtypes import Array
from minigrad.models import Bert, load

OPTIONS = (
    Option("model", PATH, REQUIRED, "the folder of a BERT-type model"),
    Option("TEXT", TEXT, (), "texts (default: the lines of the input)", True),
    Option("json", FLAG, False, "print texts and vectors as JSON instead of the similarities"),
)
_MANY = 500  # texts for which compiling pays
_WIDEST = 40  # characters of a text in the table


def run(options: Namespace) -> int:
    """Embed the texts and print their similarities, or the vectors."""
    texts = list(options.text) or [line.rstrip("\r\n") for line in sys.stdin or ()]
    if not texts:
        refuse("embed", "there is no text", "give texts, or one per line on stdin")
    place = Path(options.model)
    if place.suffix == ".mgrd" or model_file(place):
        problem = f"{place} is a model of minigrad train, not a BERT-type model"
        refuse("embed", problem, "minigrad generate --model takes it")
    model, tokenizer = load(options.model)
    if not isinstance(model, Bert):
        problem = f"{options.model} is a {type(model).__name__}, not a BERT-type model"
        refuse("embed", problem, "minigrad generate --model takes it")
    vectors = model.embed(tokenizer, texts, jit=len(texts) >= _MANY)
    if options.json:
        for text, vector in zip(texts, vectors.tolist(), strict=True):
            print(json.dumps({"text": text, "vector": vector}, ensure_ascii=False))
    else:
        print(table(texts, vectors @ vectors.T))
    return 0


def table(texts: list[str], similarity: Array) -> str:
    """Format the cosines between all texts, a row per text."""
    width = len(str(len(texts)))
    lines = [" " * width + "".join(f"{i + 1:>8}" for i in range(len(texts)))]
    for i, (text, row) in enumerate(zip(texts, similarity, strict=True)):
        shown = text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
        cosines = "".join(f"{x:8.3f}" for x in row)
        lines.append(f"{i + 1:>{width}}{cosines}   {shown!r}")
    return "\n".join(lines)


COMMAND = Command("embed", OPTIONS, run, "sentences as vectors, and their similarities", __doc__)
