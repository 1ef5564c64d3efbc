"""`minigrad train`: a transformer from a text, in a few minutes."""

from __future__ import annotations

import argparse
from pathlib import Path

from minigrad.cli.arguments import Commands, Parser, number, one_of, path, whole
from minigrad.cli.config import add_config_options
from minigrad.cli.recipe import OPTIMIZERS, SCHEDULES, by_optimizer, settle
from minigrad.cli.resume import (
    accepted_names,
    checkpoint_folder,
    differences,
    earlier_run,
    last_checkpoint,
    refuse_changes,
    state_of_a_run,
    take_over,
)
from minigrad.cli.run_folder import CHECKPOINTS, kept_if_used, make_folder
from minigrad.cli.session import Session, build_tokenizer
from minigrad.data import default_text, read_text
from minigrad.errors import ConfigError
from minigrad.files import Checkpoint, CheckpointFolder
from minigrad.files.folder import sweep
from minigrad.files.opening import printable
from minigrad.text import tokenizer_from_state

DESCRIPTION = """\
Train a small GPT on a text. Ctrl-C stops after the step, and saves; a second one stops at once.
--resume goes on exactly where a run was stopped or killed. The folder of the run has a line about every step in metrics.jsonl."""

EXAMPLES = """\
examples:
  minigrad train                                          # on Python's documentation: a minute or two on two cores
  minigrad train --text my_notes/ --out runs/notes        # on your own text: a file, or a folder of them
  minigrad train --text book.txt --steps 5000 --n-layer 6 --n-head 6 --n-embd 192 --block-size 128 --dropout 0.1
  minigrad train --text book.txt --tokenizer bpe --vocab-size 512 --patience 3
  minigrad train --text book.txt --optimizer lion --schedule wsd
  minigrad train --config small.toml --set lr=1e-3        # small.toml:  n_layer = 2  and so on, a line each
"""


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "train", help="train a transformer on a text", description=DESCRIPTION, epilog=EXAMPLES
    )
    parser.option(
        "--text",
        "PATH",
        path,
        None,
        "a UTF-8 text file, or a folder of them (default: Python's own documentation)",
    )
    parser.option(
        "--out",
        "DIR",
        path,
        None,
        "the folder for the model (default: runs/gpt, or runs/gpt-2, ... if that exists)",
    )
    parser.option(
        "--resume",
        "DIR",
        path,
        None,
        "go on with the run in this folder, exactly where its last checkpoint was taken (default: "
        "start a new one)",
    )
    parser.option(
        "--accept",
        "FIELD,...",
        str,
        None,
        "with --resume: these may differ from the saved run (default: none)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a model that is in --out already"
    )
    parser.option(
        "--tokenizer",
        "KIND",
        one_of("char", "byte", "bpe"),
        "char",
        "what the text is cut into: char (characters), byte (bytes) or bpe (pieces of words)",
    )
    parser.option(
        "--vocab-size", "N", whole(256), 1024, "with --tokenizer bpe: the most tokens there may be"
    )
    parser.option("--steps", "N", whole(1), 1500, "training steps")
    parser.option(
        "--seed",
        "N",
        whole(0),
        0,
        "of weights, batches and sample: the same seed gives the same model",
    )
    parser.option("--sample", "N", whole(0), 400, "tokens to write at the end")
    _add_model_options(parser)
    _add_training_options(parser)
    add_config_options(parser)
    parser.set_defaults(run=run, given=frozenset(), configured=frozenset())


def _add_model_options(parser: Parser) -> None:
    parser.option("--block-size", "N", whole(1), 64, "tokens (characters) the model sees at once")
    parser.option("--n-layer", "N", whole(1), 4, "transformer blocks")
    parser.option("--n-head", "N", whole(1), 4, "attention heads in each; must divide --n-embd")
    parser.option("--n-embd", "N", whole(1), 128, "width: numbers per token")
    parser.option(
        "--dropout",
        "P",
        number(0, 1, without=1),
        0.0,
        "share of activations dropped in training; for small texts and long runs 0.1 to 0.2",
    )


def _add_training_options(parser: Parser) -> None:
    parser.option("--batch-size", "N", whole(1), 12, "pieces of text per step")
    parser.option(
        "--optimizer",
        "NAME",
        one_of(*OPTIMIZERS),
        "adamw",
        f"what makes the updates: {', '.join(OPTIMIZERS)}",
    )
    parser.option(
        "--schedule",
        "NAME",
        one_of(*SCHEDULES),
        "cosine",
        "the learning rate after its warmup: cosine, linear and wsd (level, then falling in "
        "the last fifth) end at a tenth, one-cycle near 0, constant stays",
    )
    parser.option("--lr", "X", number(0), None, f"the highest learning rate {by_optimizer('lr')}")
    parser.option(
        "--warmup",
        "N",
        whole(0),
        None,
        "steps in which the learning rate rises (default: 100; with one-cycle 30%% of all)",
    )
    parser.option(
        "--weight-decay",
        "X",
        number(0),
        None,
        f"the optimizer's, on matrices only {by_optimizer('weight_decay')}",
    )
    parser.option(
        "--clip-norm",
        "X",
        number(0, without=0),
        1.0,
        "gradients longer than this are shortened to it",
    )
    parser.option(
        "--eval-interval",
        "N",
        whole(1),
        250,
        "steps between measurements of the validation loss; the model is saved at each",
    )
    parser.option(
        "--save-interval",
        "N",
        whole(1),
        None,
        "steps between checkpoints (default: as --eval-interval)",
    )
    parser.option(
        "--accumulate",
        "N",
        whole(1),
        1,
        "parts that a batch is cut into: the same numbers but for rounding, in less memory",
    )
    parser.option(
        "--patience",
        "N",
        whole(1),
        None,
        "stop after N evaluations without a lower loss, and keep the best model (default: never)",
    )
    parser.option(
        "--mixed",
        "DTYPE",
        one_of("bfloat16", "float16"),
        None,
        "keep parameters in 16 bits, with float32 copies (default: float32)",
    )
    parser.switch(
        "jit",
        None,
        "compile the step to C, or run it op by op (default: compile it if there is a C compiler)",
    )


def run(options: argparse.Namespace) -> int:
    """Train, save, and print a sample; the exit code is 0, or 128 + the number of the signal that
    stopped the run.
    """
    if options.resume is None:
        if options.accept:
            raise ConfigError("train", "--accept is for --resume", hint="give --resume DIR too")
        if options.overwrite and options.out is None:
            problem = "--overwrite is for --out: without it a run gets a new folder"
            raise ConfigError("train", problem, hint="give --out DIR too")
        folder, missing = make_folder(options.out, options.overwrite)
        with checkpoint_folder(folder) as checkpoints, kept_if_used(folder, missing):
            sweep(folder)
            replaced = earlier_run(checkpoints, options.overwrite)
            settle(options)
            text = _text(options)
            if options.tokenizer == "bpe" and len(text) > 1_000_000:
                learned = f"learning {options.vocab_size:,} tokens from {len(text):,} characters"
                print(f"tokens   {learned} ...", flush=True)
            tokenizer = build_tokenizer(options, text)
            session = Session(folder, checkpoints, options, text, tokenizer, replaced)
            return _run(session, None, [])
    if options.out is not None or options.overwrite:
        problem = "--resume goes on in its own folder"
        hint = "leave --out and --overwrite away, or copy the folder"
        raise ConfigError("train", problem, got=options.out, hint=hint)
    if not Path(options.resume, CHECKPOINTS).is_dir():
        problem = f"{options.resume} is not the folder of a run"
        hint = "start one: minigrad train --out DIR"
        raise ConfigError("train", problem, got=options.resume, hint=hint)
    folder, accepted = Path(options.resume), accepted_names(options)
    with checkpoint_folder(folder) as checkpoints:
        sweep(folder)
        found = last_checkpoint(checkpoints)
        with state_of_a_run(found):
            session = _session_of(folder, checkpoints, options, found, accepted)
            if not session.go_on(found):
                return 0
        return _run(session, found, accepted)


def _session_of(
    folder: Path,
    checkpoints: CheckpointFolder,
    options: argparse.Namespace,
    found: Checkpoint,
    accepted: list[str],
) -> Session:
    """The run that the checkpoint belongs to. Raises ConfigError if the options make another one of
    it.
    """
    changed = take_over(options, found.state["options"])
    settle(options)
    text = _text(options, folder)
    refuse_changes(changed + list(differences(found.state, text)), accepted)
    return Session(
        folder, checkpoints, options, text, tokenizer_from_state(found.state["tokenizer"])
    )


def _run(session: Session, found: Checkpoint | None, accepted: list[str]) -> int:
    session.prepare(found, accepted)
    session.announce()
    return session.train()


def _text(options: argparse.Namespace, resumed: Path | None = None) -> str:
    """The text to train on; that of a resumed run is also looked for near its folder."""
    if options.text is None:
        return default_text()
    place, skipped = options.text, list[Path]()
    if resumed is not None and not Path(place).exists():
        place = _found_again(place, resumed)
    text = read_text(place, skipped)
    if skipped:
        names = ", ".join(printable(str(path)) for path in skipped[:3])
        more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        print(f"skipped  {len(skipped)} files that are not UTF-8 text: {names}{more}", flush=True)
    return text


def _found_again(text: str, folder: Path) -> str:
    """The text of a run that goes on, whose path was relative to the folder it was started in: that
    is looked for above the run's folder. Raises ConfigError if it is not there.
    """
    for above in folder.resolve().parents:
        if (above / text).exists():
            return str(above / text)
    problem = f"the text of the run in {folder} was {text}, which is not here"
    hint = "give --text PATH, or go to the folder where the run was started"
    raise ConfigError("train", problem, got=text, hint=hint)
