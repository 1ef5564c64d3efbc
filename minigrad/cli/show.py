"""`minigrad show`: a trained model as a tree, or where its attention goes for a text."""

from __future__ import annotations

import argparse
import shutil

from minigrad.cli.arguments import Commands, path, whole
from minigrad.cli.run_folder import load_model
from minigrad.errors import ConfigError
from minigrad.viz import attention_maps, describe

DESCRIPTION = """\
Show a trained model as a tree: its modules with their shapes, parameters, FLOPs per token and bytes.
With --attention, show where each token of a text looks: one head here, or all of them in a picture (--out)."""

EXAMPLES = """\
examples:
  minigrad show runs/gpt
  minigrad show runs/gpt --attention "First Citizen:"                         # layer 0, head 0, as blocks
  minigrad show runs/gpt --attention "First Citizen:" --layer 3 --head 1
  minigrad show runs/gpt --attention "First Citizen:" --out attention.svg     # all layers and heads
"""


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "show",
        help="show a model as a tree, or its attention",
        description=DESCRIPTION,
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "model", metavar="MODEL", type=path, help="the folder of a run, or a .mgrd file from it"
    )
    parser.add_argument("--full", action="store_true", help="write out equal layers one by one")
    parser.option(
        "--attention",
        "TEXT",
        str,
        None,
        "show the attention weights for this text; its characters must have been in the training "
        "text",
    )
    parser.option("--layer", "N", whole(0), 0, "with --attention: of which layer, counted from 0")
    parser.option("--head", "N", whole(0), 0, "with --attention: of which head, counted from 0")
    parser.option(
        "--out", "FILE.svg", path, None, "with --attention: draw all layers and heads in this file"
    )
    parser.set_defaults(run=run, given=frozenset())


def run(options: argparse.Namespace) -> int:
    """Print the tree or the map, or write the picture."""
    refuse_what_has_no_use(options)
    model, tokenizer = load_model(options.model)
    if options.attention is None:
        print(describe(model).text(full=options.full))
        return 0
    tokens = [int(token) for token in tokenizer.encode(options.attention)]
    if not tokens:
        problem = "the text is empty"
        hint = '--attention "some text"'
        raise ConfigError("show", problem, got="", wanted="at least one character", hint=hint)
    maps = attention_maps(model, tokens, [tokenizer.decode([token]) for token in tokens])
    if options.out is not None:
        maps.save(options.out)
        print(f"{len(maps.layers)} layers of {len(maps.weights[0])} heads drawn in {options.out}")
    else:
        print(maps.text(options.layer, options.head, shutil.get_terminal_size().columns))
    return 0


def refuse_what_has_no_use(options: argparse.Namespace) -> None:
    """Raise ConfigError for an option that would change nothing beside the others."""
    chosen = [f"--{name}" for name in ("layer", "head", "out") if name in options.given]
    if options.attention is None and chosen:
        problem = f"{chosen[0]} is for --attention"
        raise ConfigError("show", problem, got=chosen, hint='give --attention "some text" too')
    if options.attention is not None and options.full:
        problem = "--full is for the tree, and --attention shows none"
        raise ConfigError("show", problem, hint="leave one of the two out")
    if options.out is not None and len(chosen) > 1:
        problem = f"--out draws all layers and heads, so {chosen[0]} has no use"
        raise ConfigError("show", problem, got=chosen, hint="leave one of the two out")
