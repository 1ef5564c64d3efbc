"""Train a small GPT on a text. Ctrl-C stops after the current step and saves; a second one stops at
once. --resume continues a stopped or killed run exactly. The run's folder has a line per step in
metrics.jsonl.

examples:
  minigrad train                                     # on Python's documentation: a minute or two
  minigrad train --text my_notes/ --out runs/notes   # on your own text: a file or a folder
  minigrad train --text book.txt --minutes 5         # a size and steps that fit into five minutes
  minigrad train --text book.txt --size medium --steps 5000 --dropout 0.1
  minigrad train --text book.txt --tokenizer bpe --vocab-size 512 --patience 3
  minigrad train --text book.txt --arch gpt2 --optimizer adamw --schedule cosine
  minigrad train --config small.toml --set lr=1e-3   # small.toml: n_layer = 2 and so on
"""

from __future__ import annotations

import contextlib
import sys
import time
from argparse import Namespace
from pathlib import Path

from minigrad import __version__, distributed
from minigrad.cli import recipe, resume, run_folder
from minigrad.cli.evaluate import known_text
from minigrad.cli.options import (
    DIR,
    FILE,
    FLAG,
    PATH,
    SETTING,
    SWITCH,
    WORDS,
    Command,
    Option,
    number,
    one_line,
    one_of,
    refuse,
    whole,
)
from minigrad.cli.session import Session
from minigrad.cli.terminal import read_and_report
from minigrad.data import TextData, default_text
from minigrad.dtypes import Array
from minigrad.errors import ConfigError
from minigrad.files import Checkpoint, CheckpointFolder
from minigrad.finetune import add_lora
from minigrad.models import GPT, GPTConfig
from minigrad.models.gpt import ARCHITECTURES
from minigrad.random import manual_seed
from minigrad.text import Tokenizer, tokenizer_from_state
from minigrad.train import Trainer

# Of the time of --minutes: the share that is planned for, and the seconds of the sample.
_USED, _ENDING = 0.96, 2.0
TOKENIZER_HELP = "char (characters), byte (bytes) or bpe (pieces of words)"
ARCH_HELP = "modern (rotary positions, RMSNorm, QK-norm, SwiGLU), llama (without QK-norm) or gpt2"
OPTIMIZER_HELP = f"{', '.join(recipe.OPTIMIZERS)}; muon is for the blocks, with adamw for the rest"
SIZE_HELP = (
    f"{', '.join(recipe.SIZES)}, or a number of parameters, such as 3M: sets layers, heads, width, "
    "rate, context and batch"
)
SCHEDULE_HELP = (
    "learning rate after the warmup: wsd (constant, then falling), cosine and linear end at "
    "--final-lr, one-cycle near 0, constant stays"
)
MINUTES_HELP = (
    f"set --steps to end in time, and --size if a text would be read more than {recipe.READINGS} "
    "times (default: --steps)"
)
PIECES_HELP = (
    "pieces of text per step (default: by --size, rounded up to --parts times --accumulate)"
)
PARTS_HELP = (
    "parts of a batch, shared among the ranks of mpiexec: the same parts give the same bits on "
    "any number of ranks (default: 1; with ranks 4, or their number)"
)
FAST_HELP = "bfloat16 rounds the operands of products, which CPUs with AMX or AVX512-BF16 do faster"
DECAY_HELP = f"on matrices alone {recipe.by_optimizer('weight_decay')}"
BY_SIZE = "(default: by --size)"
OPTIONS = (
    Option("text", PATH, None, "a UTF-8 file, or a folder (default: Python's documentation)"),
    Option("out", DIR, None, "the run's folder (default: a new one, runs/gpt, runs/gpt-2, ...)"),
    Option("resume", DIR, None, "continue the run in this folder (default: start a new one)"),
    Option("accept", WORDS, None, "with --resume: options that may differ (default: none)"),
    Option("overwrite", FLAG, False, "replace a model that is in --out already"),
    Option("tokenizer", one_of(*recipe.TOKENIZERS), "char", TOKENIZER_HELP),
    Option("vocab_size", whole(256), 1024, "with --tokenizer bpe: the most tokens to learn"),
    Option("size", recipe.SIZE, "small", SIZE_HELP),
    Option("minutes", number(0, without=0), None, MINUTES_HELP),
    Option("steps", whole(1), 1180, "training steps"),
    Option("stop_at", whole(1), None, "stop after this step, for --resume (default: the last)"),
    Option("seed", whole(0), 0, "the same seed gives the same weights, batches and sample"),
    Option("sample", whole(0), 400, "tokens to write at the end"),
    Option("arch", one_of(*ARCHITECTURES), "modern", ARCH_HELP),
    Option("block_size", whole(1), None, f"context: tokens that the model sees {BY_SIZE}"),
    Option("n_layer", whole(1), None, f"transformer blocks {BY_SIZE}"),
    Option("n_head", whole(1), None, f"attention heads per block; must divide --n-embd {BY_SIZE}"),
    Option("n_embd", whole(1), None, f"width: numbers per token {BY_SIZE}"),
    Option("dropout", number(0, 1, without=1), 0.0, "for small texts and long runs 0.1 to 0.2"),
    Option("batch_size", whole(1), None, PIECES_HELP),
    Option("optimizer", one_of(*recipe.OPTIMIZERS), "muon", OPTIMIZER_HELP),
    Option("schedule", one_of(*recipe.SCHEDULES), "wsd", SCHEDULE_HELP),
    Option("decay", number(0, 1), recipe.DECAY, "with --schedule wsd: share of steps that fall"),
    Option("final_lr", number(0, 1), 0.0, "where the learning rate ends, as a share of --lr"),
    Option("lr", number(0), None, f"the highest learning rate {recipe.by_optimizer('lr')}"),
    Option("warmup", whole(0), None, "steps of rising rate (default: 10%% of all, at most 100)"),
    Option("weight_decay", number(0), None, DECAY_HELP),
    Option("clip_norm", number(0, without=0), 1.0, "scale longer gradients down to this norm"),
    Option("eval_interval", whole(1), 250, "steps between validation losses; the model is saved"),
    Option("save_interval", whole(1), None, "steps between checkpoints (default: --eval-interval)"),
    Option("accumulate", whole(1), 1, "pieces of a part: equal up to rounding, with less memory"),
    Option("parts", whole(1), None, PARTS_HELP),
    Option("patience", whole(1), None, "stop after N evaluations without gain (default: never)"),
    Option("mixed", one_of("bfloat16", "float16"), None, "16-bit parameters (default: float32)"),
    Option("matmul", one_of("float32", "bfloat16"), "float32", FAST_HELP),
    Option("jit", SWITCH, None, "compile the step to C (default: if there is a C compiler)"),
    Option("config", FILE, None, "a TOML file of options; those given here win (default: none)"),
    Option("set", SETTING, (), "an option as in a config file (default: none)", repeated=True),
)


def run(options: Namespace, base: run_folder.Base | None = None) -> int:
    """Train, save, and print a sample. Return 0, or 128 + the number of the signal that stopped it.

    options -> text -> tokens -> model -> trainer -> run folder. A resumed run takes this path too,
    with the saved options.
    base: a model to start from, for a new run of `minigrad finetune`.
    """
    began, first = time.monotonic(), distributed.is_first()
    _meet(options)
    with contextlib.ExitStack() as held:

        def hold(folder: Path) -> CheckpointFolder:
            return held.enter_context(distributed.on_first(run_folder.checkpoint_folder(folder)))

        if options.resume is None:
            _refuse_odd(options)
            found, session = None, _session(options, None, base, began)
        else:
            checkpoints = hold(resume.run_to_resume(options))
            found = resume.last_checkpoint(checkpoints)
            with resume.state_of_a_run(found):
                session = _session(options, found, None, began)
                if not session.resume(checkpoints, found):
                    return 0
        session.announce()
        distributed.check_same("train", session.text)
        _compile(session, found)
        _fit(session, began)
        with session.interruption:
            if found is None:
                folder = run_folder.new_folder(options.out, options.overwrite) if first else Path()
                session.open(hold(distributed.broadcast(folder)))
            report = session.train()
        if first:
            session.farewell(report)
        return session.interruption.exit_code


def _session(
    options: Namespace, found: Checkpoint | None, base: run_folder.Base | None, began: float
) -> Session:
    """Return the run that the options describe, up to its folder: text, tokens, model, trainer."""
    if found:
        changed = resume.take_over(options, found)
        base = resume.base_of(options, found)
    recipe.settle(options)
    text = _text(options)
    identity = resume.text_identity(text)
    if found:
        resume.refuse_changes([*changed, *resume.differences(found, identity)], options)
    tokenizer = _tokenizer(options, text, found, base)
    if "skip_unknown" in vars(options):  # a tuned model keeps its tokenizer
        text = known_text(text, tokenizer, options)
    _say_if_long("encoding", text)
    tokens = tokenizer.encode(text)
    parts = _parts(options, tokens, tokenizer, base)
    if options.minutes is not None and _grow(options, *parts, began):
        parts = _parts(options, tokens, tokenizer, base)
    return Session(options, identity, tokenizer, *parts)


def _meet(options: Namespace) -> None:
    """Let the ranks of a launch agree on the options and share the cores."""
    distributed.print_on_first_alone()
    words = {name: value for name, value in vars(options).items() if name != "given"}
    distributed.check_same("train", {"minigrad": __version__, **words})
    threads = distributed.share_cores()
    if distributed.size() > 1:
        said = "thread" if threads == 1 else "threads"
        print(f"ranks    {distributed.size()}, each with {threads} {said} of this machine")


def _refuse_odd(options: Namespace) -> None:
    """Refuse options of a new run that do not go together, and a folder that is taken."""
    if options.accept:
        refuse("train", "--accept is for --resume", "give --resume DIR too")
    if {"minutes", "steps"} <= options.given:
        refuse("train", "--minutes sets --steps")
    if options.overwrite and options.out is None:
        problem = "--overwrite is for --out: without it a run gets a new folder"
        refuse("train", problem, "give --out DIR too")
    if "vocab_size" in options.given and options.tokenizer != "bpe":
        problem = f"--vocab-size has no effect with --tokenizer {options.tokenizer}"
        refuse("train", problem, "add --tokenizer bpe")
    if options.out is not None:
        run_folder.refuse_to_replace(Path(options.out), options.overwrite)
    if distributed.is_first():
        run_folder.refuse_unwritable(Path(options.out or "runs"))


def _text(options: Namespace) -> str:
    """Read the text. That of a resumed run is also looked for in the folders above the run's."""
    if options.text is None:
        return default_text()
    place: Path | None = Path(options.text)
    if options.resume is not None:
        place = run_folder.found_above(options.text, Path(options.resume))
    if place is None:
        problem = f"the text of the run in {options.resume} was {options.text}, which is not here"
        hint = "give --text PATH, or go to the folder where the run was started"
        refuse("train", problem, hint)
    return read_and_report(place, sys.stdout)


def _tokenizer(
    options: Namespace, text: str, found: Checkpoint | None, base: run_folder.Base | None
) -> Tokenizer:
    """Return the tokenizer of the resumed run or of the base, else that of the options."""
    if base is not None:
        return base[1]
    if found is not None:
        return tokenizer_from_state(found.state["tokenizer"])
    if options.tokenizer == "bpe":
        _say_if_long(f"learning {options.vocab_size:,} tokens from", text)
    return recipe.build_tokenizer(options, text)


def _parts(
    options: Namespace, tokens: Array, tokenizer: Tokenizer, base: run_folder.Base | None
) -> tuple[TextData, GPT, Trainer]:
    """Return what the options describe: the tokens for training and validation, the model, and the
    trainer of both.
    """
    sizes = {name: getattr(options, name) for name in ("block_size", "batch_size", "seed")}
    try:
        data = TextData(tokens, **sizes)
    except ConfigError as error:  # in the words of the options
        words = one_line(error).replace("block_size=", "--block-size ")
        refuse("train", words.replace("block_size", "--block-size"), "")
    model = _model(options, tokenizer.vocab_size, base)
    return data, model, build_trainer(options, model, data)


def _say_if_long(doing: str, text: str) -> None:
    """Print what is done with a text that takes a second or more."""
    if len(text) > 1_000_000:
        print(f"tokens   {doing} {len(text):,} characters ...", flush=True)


def _model(options: Namespace, vocab_size: int, base: run_folder.Base | None) -> GPT:
    """Return the model that the options describe, its weights drawn from the seed or those of the
    base, with adapters where they are wanted.
    """
    manual_seed(options.seed)
    if "architecture" in vars(options):
        model = base[0] if base else run_folder.model_of_sizes(options.architecture)
        if options.lora:
            add_lora(model, options.lora)
        return model
    sizes = ("block_size", "n_layer", "n_head", "n_embd", "dropout")
    parts = ARCHITECTURES[options.arch]
    return GPT(GPTConfig(vocab_size, **{name: getattr(options, name) for name in sizes}, **parts))


def build_trainer(options: Namespace, model: GPT, data: TextData) -> Trainer:
    """Return the trainer, with the optimizer and the schedule that the options describe."""
    optimizer = recipe.build_optimizer(options, model)
    schedule = recipe.build_schedule(options, optimizer)
    jit = None if options.jit else options.jit  # where it cannot be, `_compile` says so
    names = "steps clip_norm eval_interval accumulate parts patience mixed matmul"
    settings = {name: getattr(options, name) for name in names.split()}
    return Trainer(model, optimizer, data, schedule=schedule, jit=jit, **settings)


def _compile(session: Session, found: Checkpoint | None) -> None:
    """Compile the step and say how it runs. Raises ConfigError if a run that was compiled cannot be
    now: its numbers would differ.
    """
    options, trainer = session.options, session.trainer
    wanted, began = options.jit, time.monotonic()
    if wanted is not False and not options.mixed:
        print("jit      compiling the step ...", flush=True)
    trainer.prepare()
    options.jit = session.watched.compiles = trainer.backend == "c"
    if found is not None:
        if wanted and not options.jit:
            print(f"the step cannot be compiled: {trainer.note}", file=sys.stderr)
            resume.refuse_changes([("jit", True, False)], options)
        resume.warn_of_changes(found.state["environment"], session.facts()["environment"])
    how = "the step runs op by op" + (f": {trainer.note}" if trainer.note else "")
    if options.jit:
        took = f" in {time.monotonic() - began:.1f} s" if options.minutes is None else ""
        how = f"the step is compiled {trainer.note}{took}; --no-jit runs it op by op"
    print(f"jit      {how}", flush=True)


def _grow(options: Namespace, data: TextData, model: GPT, trainer: Trainer, began: float) -> bool:
    """Compile and measure a step of this size, if it is open. Return True if the text would be read
    so often in --minutes that the options now name a larger one.
    """
    if not recipe.leaves_size_open(options):
        return False
    print("minutes  compiling and measuring a step ...", flush=True)
    steps, *_ = _steps_in_time(options, trainer, began)
    seen = steps * options.batch_size * options.block_size
    return recipe.grow(options, seen / len(data.train))


def _fit(session: Session, began: float) -> None:
    """Set the number of steps, and the schedule, so that the command ends in --minutes, if given.
    The steps are saved as an option: resuming does not measure again.
    """
    options, trainer = session.options, session.trainer
    if options.minutes is None:
        return
    options.steps, step, late = _steps_in_time(options, trainer, began)
    if "warmup" not in options.given:
        options.warmup = None
    recipe.settle(options)
    trainer.steps = options.steps
    trainer.schedule = recipe.build_schedule(options, trainer.optimizer)
    print(f"minutes  {options.minutes:g}: {options.steps:,} steps of {1e3 * step:,.1f} ms{late}")


def _steps_in_time(options: Namespace, trainer: Trainer, began: float) -> tuple[int, float, str]:
    """Return the steps that end in --minutes, the same on all ranks, the seconds of one, and a
    remark if there is no time left for one.
    """
    budget = 60 * options.minutes
    step, evaluation = trainer.measure(min(budget / 20, 2.0))
    left = budget * _USED - _ENDING - (time.monotonic() - began)
    steps = int((left - evaluation) / (step + evaluation / options.eval_interval))
    late = "" if left > evaluation + step else "; it will take longer"
    return distributed.broadcast(max(steps, 1)), step, late


COMMAND: Command = Command("train", OPTIONS, run, "train a transformer on a text", __doc__)
