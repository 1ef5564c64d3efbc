"""`minigrad train`: a transformer from a text, in a few minutes."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minigrad.cli.arguments import Commands, Parser, number, path, whole
from minigrad.cli.generate import print_stream
from minigrad.cli.resume import (
    CHECKPOINTS,
    checkpoint_folder,
    clear,
    differences,
    last_checkpoint,
    refuse_changes,
    restore,
    run_state,
    take_over,
)  # fmt: skip
from minigrad.cli.run_folder import WEIGHTS, new_folder, save_model
from minigrad.cli.terminal import progress
from minigrad.data import CharTokenizer, TextData, bigram_loss, default_text, read_text
from minigrad.errors import ConfigError
from minigrad.files import Checkpoint, CheckpointFolder
from minigrad.models import GPT, GPTConfig
from minigrad.optim import AdamW, decay_groups
from minigrad.optim.lr_scheduler import WarmupCosineLR
from minigrad.random import manual_seed
from minigrad.train import Interruption, Report, Trainer

DESCRIPTION = """\
Train a small GPT on the characters of a text. Ctrl-C stops after the step, and saves; a second one stops at once.
--resume goes on exactly where a run was stopped or killed."""

EXAMPLES = """\
examples:
  minigrad train                                          # on Python's documentation: about two minutes on two cores
  minigrad train --text my_notes/ --out runs/notes        # on your own text: a file, or a folder of them
  minigrad train --text book.txt --steps 5000 --n-layer 6 --n-head 6 --n-embd 192 --block-size 128 --dropout 0.1
"""


# Where a run lies, and how it was called, is no part of it: equal runs in two folders give equal files.
_NOT_OF_THE_RUN = {"accept", "command", "given", "out", "overwrite", "resume", "run"}


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser("train", help="train a transformer on a text", description=DESCRIPTION, epilog=EXAMPLES)
    parser.option(
        "--text", "PATH", path, None, "a UTF-8 text file, or a folder of them (default: Python's own documentation)"
    )
    parser.option(
        "--out", "DIR", path, None, "the folder for the model (default: runs/gpt, or runs/gpt-2, ... if that exists)"
    )
    parser.option(
        "--resume",
        "DIR",
        path,
        None,
        "go on with the run in this folder, exactly where its last checkpoint was taken (default: start a new one)",
    )
    parser.option(
        "--accept", "FIELD,...", str, None, "with --resume: these may differ from the saved run (default: none)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a model that is in --out already")
    parser.option("--steps", "N", whole(1), 1500, "training steps")
    parser.option("--seed", "N", whole(0), 0, "of weights, batches and sample: the same seed gives the same model")
    parser.option("--sample", "N", whole(0), 400, "characters to write at the end")
    _add_model_options(parser)
    _add_training_options(parser)
    parser.set_defaults(run=run, given=frozenset())


def _add_model_options(parser: Parser) -> None:
    parser.option("--block-size", "N", whole(1), 64, "characters the model sees at once")
    parser.option("--n-layer", "N", whole(1), 4, "transformer blocks")
    parser.option("--n-head", "N", whole(1), 4, "attention heads in each; must divide --n-embd")
    parser.option("--n-embd", "N", whole(1), 128, "width: numbers per character")
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
        "--lr", "X", number(0), 3e-3, "the highest learning rate; it warms up and then falls along a cosine to a tenth"
    )
    parser.option("--warmup", "N", whole(0), 100, "steps in which the learning rate rises")
    parser.option("--weight-decay", "X", number(0), 0.1, "AdamW's, on matrices only")
    parser.option("--clip-norm", "X", number(0, without=0), 1.0, "gradients longer than this are shortened to it")
    parser.option(
        "--eval-interval",
        "N",
        whole(1),
        250,
        "steps between measurements of the validation loss; the model is saved at each",
    )
    parser.option("--save-interval", "N", whole(1), None, "steps between checkpoints (default: as --eval-interval)")


def run(options: argparse.Namespace) -> int:
    """Train, save, and print a sample; the exit code is 0, or 128 + the number of the signal that stopped the run."""
    if options.resume is None:
        if options.accept:
            raise ConfigError("train", "--accept is for --resume", hint="give --resume DIR too")
        folder = new_folder(options.out, options.overwrite)
        with checkpoint_folder(folder) as checkpoints:
            clear(checkpoints, options.overwrite)
            return run_in(folder, checkpoints, options, None)
    if not Path(options.resume, CHECKPOINTS).is_dir():
        raise ConfigError("train", f"{options.resume} is not the folder of a run", got=options.resume,
                          hint="start one: minigrad train --out DIR")  # fmt: skip
    folder = Path(options.resume)
    with checkpoint_folder(folder) as checkpoints:
        return run_in(folder, checkpoints, options, last_checkpoint(checkpoints))


def run_in(folder: Path, checkpoints: CheckpointFolder, options: argparse.Namespace, found: Checkpoint | None) -> int:
    """Train in a folder that is ours, from the beginning or from what was `found` there; returns the exit code."""
    changed = take_over(options, found.state["options"]) if found else []
    text = default_text() if options.text is None else read_text(options.text)
    tokenizer = CharTokenizer.from_text(text)
    data = TextData(
        tokenizer.encode(text), block_size=options.block_size, batch_size=options.batch_size, seed=options.seed
    )
    model = build_model(options, tokenizer.vocab_size)
    trainer = build_trainer(options, model, data)
    if found:
        accepted = (options.accept or "").split(",")
        refuse_changes(changed + list(differences(found.state, trainer, text)), accepted)
        restore(trainer, model, found)
        if trainer.step >= trainer.steps:
            raise ConfigError("train", f"the run in {folder} is complete: step {trainer.step} of {trainer.steps}", got=trainer.step,
                              hint="to go further, give more --steps and --accept steps")  # fmt: skip
        print(f"resuming from {found.path}, after step {trainer.step}")
    baseline = bigram_loss(data, tokenizer.vocab_size)
    print(
        f"text     {options.text or 'the documentation of Python'}: {len(text):,} characters, {tokenizer.vocab_size} different ones"
    )
    print(
        f"model    {options.n_layer} layers, {options.n_head} heads, {options.n_embd} wide: {count(model):,} parameters"
    )
    print(
        f"to beat  {baseline:.3f} nats per character on the validation text, by a table of character pairs", flush=True
    )

    def save(report: Report | None) -> None:
        facts = {
            "step": trainer.step,
            "val_loss": report and report.val_loss,
            "bigram_loss": baseline,
            "options": chosen(options),
        }
        metric = report.val_loss if report else None
        state = run_state(trainer, chosen(options), text, tokenizer)
        checkpoints.save(trainer.step, model.state_dict(), state, metric=metric, meta={"run": folder.name})
        # A model that is to be overwritten stays until there is one that was trained.
        if metric is not None or interruption or not (folder / WEIGHTS).exists():
            save_model(folder, model, tokenizer, facts)

    def due(report: Report) -> bool:
        every = options.save_interval or options.eval_interval
        return report.val_loss is not None or report.step % every == 0 or bool(interruption)

    with Interruption() as interruption:
        report = train(trainer, save, due, interruption)
    place = shlex.quote(str(folder))
    if interruption:
        print(f"stopped after step {report.step} of {report.steps}; saved. Go on:  minigrad train --resume {place}")
    else:
        print(f"\nvalidation loss {report.val_loss:.3f} nats per character (table of pairs {baseline:.3f}); saved in {folder}")
    print(f"let it write:  minigrad generate --model {place} --prompt {shlex.quote(a_prompt(text, tokenizer))}", flush=True)
    if not interruption and options.sample:
        print("\na sample:\n")
        print_sample(model, tokenizer, options)
    return interruption.exit_code


def build_model(options: argparse.Namespace, vocab_size: int) -> GPT:
    """The model that the options describe, its weights drawn from the seed."""
    manual_seed(options.seed)
    return GPT(GPTConfig(vocab_size=vocab_size, block_size=options.block_size, n_layer=options.n_layer, n_head=options.n_head,
                         n_embd=options.n_embd, dropout=options.dropout))  # fmt: skip


def build_trainer(options: argparse.Namespace, model: GPT, data: TextData) -> Trainer:
    """AdamW with decay on matrices alone, as in GPT-2's successors, and the schedule that the options describe."""
    optimizer = AdamW(decay_groups(model.named_parameters(), options.weight_decay), lr=options.lr, betas=(0.9, 0.99))
    warmup = min(options.warmup, options.steps)
    schedule = WarmupCosineLR(optimizer, warmup, options.steps, min_lr=options.lr / 10)
    return Trainer(model, optimizer, data, steps=options.steps, schedule=schedule, clip_norm=options.clip_norm,
                   eval_interval=options.eval_interval)  # fmt: skip


def train(
    trainer: Trainer, save: Callable[[Report | None], None], due: Callable[[Report], bool], interruption: Interruption
) -> Report:
    """Run to the end or to an interruption, showing progress and saving whenever it is due; returns the last report."""
    # The untrained model is saved too: a folder that cannot be written to is found out now and not in three minutes.
    if trainer.step == 0:
        save(None)
    display = progress(sys.stdout)
    try:
        for report in trainer.run():
            display.show(report)
            if due(report):
                save(report)
            if interruption:
                break
    finally:
        display.close()
    return report


def a_prompt(text: str, tokenizer: CharTokenizer) -> str:
    """Something that the model can be asked to go on from: its text may have no capital T."""
    return "The " if set("The ") <= set(tokenizer.characters) else text.strip()[:8].partition("\n")[0] or text[:1]


def print_sample(model: GPT, tokenizer: CharTokenizer, options: argparse.Namespace) -> None:
    """Let the model write from a line end, or from the first character it knows."""
    prompt = "\n" if "\n" in tokenizer.characters else tokenizer.characters[0]
    tokens = model.generate(tokenizer.encode(prompt), options.sample, temperature=0.8, seed=options.seed)
    print_stream(tokens, tokenizer)


def chosen(options: argparse.Namespace) -> dict[str, Any]:
    """The options as plain values, for the record in the weight file."""
    return {name: value for name, value in vars(options).items() if name not in _NOT_OF_THE_RUN}


def count(model: GPT) -> int:
    """The number of the model's parameters."""
    return sum(p.data.size for p in model.parameters())
