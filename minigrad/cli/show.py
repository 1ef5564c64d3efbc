"""Show a trained model as a tree: its modules with their shapes, parameters, FLOPs per token and
bytes. With --attention, show where each token of a text attends: one head here, or all of them in a
picture (--out).

examples:
  minigrad show runs/gpt
  minigrad show runs/gpt --attention "First Citizen:"   # layer 0, head 0, as blocks
  minigrad show runs/gpt --attention "First Citizen:" --layer 3 --head 1
  minigrad show runs/gpt --attention "First Citizen:" --out attention.svg     # all layers and heads
"""

from __future__ import annotations

import shutil
from argparse import Namespace

from minigrad.cli.options import FILE, FLAG, PATH, REQUIRED, TEXT, Command, Option, refuse, whole
from minigrad.cli.run_folder import BASE, BEST, MODEL, load_model
from minigrad.models import GPT
from minigrad.nn import Module
from minigrad.viz import attention_maps, describe

OPTIONS = (
    Option("MODEL", PATH, REQUIRED, MODEL.help, flag="--model"),
    BASE,
    BEST,
    Option("full", FLAG, False, "list equal layers one by one"),
    Option("attention", TEXT, None, "show the attention weights for this text"),
    Option("layer", whole(0), 0, "with --attention: the layer, counted from 0"),
    Option("head", whole(0), 0, "with --attention: the head, counted from 0"),
    Option("out", FILE, None, "with --attention: draw all heads as .svg or .png"),
)


def run(options: Namespace) -> int:
    """Print the tree or the map, or write the picture."""
    chosen = [name for name in ("layer", "head", "out") if name in options.given]
    if options.attention is None and chosen:
        refuse("show", f"--{chosen[0]} is for --attention", 'give --attention "some text" too')
    if options.attention is not None and options.full:
        refuse("show", "--full is for the tree, and --attention shows none")
    if options.out is not None and len(chosen) > 1:
        refuse("show", f"--out draws all layers and heads, so --{chosen[0]} has no use")
    kind = Module if options.attention is None else GPT
    model, tokenizer = load_model(options.model, options.best, base=options.base, kind=kind)
    if options.attention is None:
        print(describe(model).text(full=options.full))
        return 0
    tokens = [int(token) for token in tokenizer.encode(options.attention)]
    if not tokens:
        refuse("show", "the text is empty", '--attention "some text"')
    maps = attention_maps(model, tokens, [tokenizer.decode([token]) for token in tokens])
    if options.out is not None:
        maps.save(options.out)
        print(f"{len(maps.layers)} layers of {len(maps.weights[0])} heads drawn in {options.out}")
    else:
        print(maps.text(options.layer, options.head, shutil.get_terminal_size().columns))
    return 0


COMMAND = Command("show", OPTIONS, run, "show a model as a tree, or its attention", __doc__)
