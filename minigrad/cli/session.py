"""One training run in its folder: what it is made of, what it says, what it saves, and how it ends."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from minigrad.cli.arguments import one_line
from minigrad.cli.generate import first_prompt, print_text
from minigrad.cli.recipe import build_optimizer, build_schedule
from minigrad.cli.resume import NOT_OF_THE_RUN, refuse_changes, restore, run_facts, warn_of_changes
from minigrad.cli.run_folder import WEIGHTS, last_of_model, load_model, save_model
from minigrad.cli.terminal import progress
from minigrad.data import TextData, bigram_loss
from minigrad.errors import ConfigError, NotFiniteError
from minigrad.files import Checkpoint, CheckpointFolder
from minigrad.models import GPT, GPTConfig, generate_text
from minigrad.random import manual_seed
from minigrad.text import BPETokenizer, ByteTokenizer, CharTokenizer, Tokenizer
from minigrad.train import Interruption, MetricsLog, Report, Trainer

METRICS, CRASHES = "metrics.jsonl", "crash"


class Session:
    """A run, from the beginning or, after `go_on`, from a checkpoint."""

    def __init__(
        self,
        folder: Path,
        checkpoints: CheckpointFolder,
        options: argparse.Namespace,
        text: str,
        tokenizer: Tokenizer,
        replaced: Iterable[Path] = (),
    ) -> None:
        self.replaced = list(
            replaced
        )  # checkpoints of an earlier run, which go when this one has one
        self.folder, self.checkpoints, self.options, self.text, self.tokenizer = (
            folder,
            checkpoints,
            options,
            text,
            tokenizer,
        )
        self.unit = "character" if isinstance(tokenizer, CharTokenizer) else "token"
        self.data = TextData(
            tokenizer.encode(text),
            block_size=options.block_size,
            batch_size=options.batch_size,
            seed=options.seed,
        )
        self.model = build_model(options, tokenizer.vocab_size)
        self.trainer = build_trainer(options, self.model, self.data, folder / CRASHES)
        self.baseline = bigram_loss(self.data, tokenizer.vocab_size)
        self.interruption = Interruption()

    # --- before the first step

    def go_on(self, found: Checkpoint) -> bool:
        """Put model and trainer where the checkpoint was taken. False if all that was left was to
        write the model; raises ConfigError if nothing was left to do."""
        trainer = self.trainer
        restore(trainer, found)
        late = self.catch_up(found.meta.get("metric"))
        if not trainer.finished:
            print(f"resuming from {found.path}, after step {trainer.step}")
            return True
        why = f"step {trainer.step} of {trainer.steps}" + (
            ", and its patience has come to its end" if trainer.out_of_patience else ""
        )
        if late:
            print(f"the run was complete ({why}) but for its model, which is now in {self.folder}")
            return False
        more = (
            "--patience and --accept patience"
            if trainer.out_of_patience
            else "--steps and --accept steps"
        )
        problem = f"the run in {self.folder} is complete: {why}"
        hint = f"to go further, give more {more}"
        raise ConfigError("train", problem, got=trainer.step, hint=hint)

    def catch_up(self, val_loss: float | None) -> bool:
        """Write the model of the checkpoint if the run was killed after the one and before the
        other; True if it was.
        """
        if not self.is_wanted(val_loss) or last_of_model(self.folder) == (
            self.trainer.step,
            val_loss,
        ):
            return False
        self.save_model(val_loss)
        return True

    def prepare(self, found: Checkpoint | None, accepted: list[str]) -> None:
        """Compile the step. Raises ConfigError where a run that goes on was compiled and now cannot
        be: its numbers would be others.
        """
        wanted = self.options.jit
        self.trainer.prepare()
        self.options.jit = self.trainer.backend == "c"
        if found and wanted and not self.options.jit:
            print(f"the step cannot be compiled: {self.trainer.note}", file=sys.stderr)
            refuse_changes([("jit", True, False)], accepted)
        if found:
            warn_of_changes(found.state["environment"], self.facts()["environment"])

    def facts(self) -> dict[str, Any]:
        """What a checkpoint holds beside the trainer's state."""
        return run_facts(chosen(self.options), self.text, self.tokenizer, self.trainer.note)

    def announce(self) -> None:
        """Say what will be done, a line for each thing."""
        options, tokenizer, trainer = self.options, self.tokenizer, self.trainer
        memory = trainer.estimate_memory()
        tokens = len(self.data.train) + len(self.data.val)
        cut = (
            f"{tokenizer.vocab_size} different ones"
            if self.unit == "character"
            else f"{tokens:,} tokens of {tokenizer.vocab_size:,}"
        )
        parameters = sum(p.data.size for p in self.model.parameters())
        how = (
            f"the step is compiled {trainer.note}; --no-jit runs it op by op"
            if options.jit
            else "the step runs op by op"
        )
        print(
            f"text     {options.text or 'the documentation of Python'}: {len(self.text):,} "
            f"characters, {cut}"
        )
        print(
            f"model    {options.n_layer} layers, {options.n_head} heads, {options.n_embd} wide: "
            f"{parameters:,} parameters"
        )
        print(
            f"learn    {options.optimizer}, rate {options.lr:g}, {options.schedule} after "
            f"{options.warmup} steps of warmup, "
            f"weight decay {options.weight_decay:g}"
        )
        held = sys.getsizeof(self.text) + self.data.train.nbytes + self.data.val.nbytes
        compiling = "; more while it is compiled" if options.jit else ""
        print(f"memory   {memory}; text {held / 1e6:,.1f}{compiling}")
        print(f"jit      {how}{'' if options.jit or not trainer.note else f': {trainer.note}'}")
        print(
            f"to beat  {self.baseline:.3f} nats per {self.unit} on the validation text, by a table "
            f"of {self.unit} pairs",
            flush=True,
        )

    # --- the run

    def train(self) -> int:
        """Run to the end or to an interruption, showing progress and saving whenever it is due;
        returns the exit code.
        """
        # The untrained model is saved too: a folder that cannot be written to is found out now and
        # not in three minutes.
        if self.trainer.step == 0:
            self.save(None)
        log, display = MetricsLog(self.folder / METRICS, self.trainer.step), progress(sys.stdout)
        self.trainer.callbacks += [log, display.show]
        try:
            with self.interruption:
                for report in self.trainer.run():
                    if self.due(report):
                        self.save(report)
                    if self.interruption:
                        break
        except NotFiniteError as error:
            raise self.diverged(error) from None
        finally:
            display.close()
            log.close()
        self.farewell(report)
        return self.interruption.exit_code

    def due(self, report: Report) -> bool:
        """True if the run is to be saved after this step."""
        every = self.options.save_interval or self.options.eval_interval
        return report.val_loss is not None or report.step % every == 0 or bool(self.interruption)

    def save(self, report: Report | None) -> None:
        """Write a checkpoint, and the model if it was evaluated (with --patience: if it is the best
        so far) or there is none yet.
        """
        val_loss = report.val_loss if report else None
        self.trainer.save(
            self.checkpoints,
            metric=val_loss,
            state=self.facts(),
            meta={"run": _escaped(self.folder.name)},
        )
        while self.replaced:
            path = self.replaced.pop()
            if path != self.checkpoints.folder / f"step-{self.trainer.step:08d}.mgrd":
                path.unlink(missing_ok=True)
        # A model that is to be overwritten stays until there is one that was trained.
        if (
            self.is_wanted(val_loss)
            or self.interrupted_now()
            or not (self.folder / WEIGHTS).exists()
        ):
            self.save_model(val_loss)

    def is_wanted(self, val_loss: float | None) -> bool:
        """Whether the model of an evaluation is written: each, or with --patience the best so far."""
        measured = val_loss is not None and math.isfinite(val_loss)
        return measured and (self.trainer.patience is None or not self.trainer.evaluations_since)

    def interrupted_now(self) -> bool:
        return bool(self.interruption) and self.trainer.patience is None

    def save_model(self, val_loss: float | None) -> None:
        facts = {
            "step": self.trainer.step,
            "val_loss": val_loss,
            "bigram_loss": self.baseline,
            "options": chosen(self.options),
        }
        save_model(self.folder, self.model, self.tokenizer, facts)

    # --- the end

    def diverged(self, error: NotFiniteError) -> NotFiniteError:
        """The error of a run whose numbers overflowed, with the way on. The checkpoint that it
        overflowed from, if any, lies in the crash file too,
        and is removed: --resume takes the last one."""
        good = self.trainer.good_checkpoint
        for _, path in self.checkpoints.steps() if good is not None else ():
            if path.name > Path(str(good)).name:
                path.unlink()
        again = (
            f"minigrad train --resume {shlex.quote(str(self.folder))} --lr "
            f"{self.options.lr / 3:.2g} --accept lr"
        )
        start = "start again with a smaller --lr" if good is None else f"go on from there:  {again}"
        return NotFiniteError(
            "train", one_line(error), got=error.got, wanted=error.wanted, hint=start
        )

    def farewell(self, report: Report) -> None:
        """Say how it went, where the model is and what to do with it; print a sample if the run is
        complete.
        """
        trainer, place = self.trainer, shlex.quote(str(self.folder))
        if trainer.out_of_patience:
            print(
                f"\nno lower validation loss in {trainer.evaluations_since} evaluations: stopped "
                f"early, after step {report.step}"
            )
        if not trainer.finished:
            print(
                f"stopped after step {report.step} of {report.steps}; saved. Go on:  minigrad "
                f"train --resume {place}"
            )
        else:
            loss, early = (
                (report.val_loss, "")
                if trainer.patience is None
                else (trainer.best_val_loss, ", the lowest of the run")
            )
            print(
                f"\nvalidation loss {loss:.3f} nats per {self.unit}{early} (table of pairs "
                f"{self.baseline:.3f}); saved in {self.folder}"
            )
            self.say_if_worse(loss)
        prompt = shlex.quote(a_prompt(self.text, self.tokenizer))
        print(f"let it write:  minigrad generate --model {place} --prompt {prompt}", flush=True)
        if trainer.finished and self.options.sample:
            print("\na sample:\n")
            self.print_sample()

    def say_if_worse(self, loss: float | None) -> None:
        """Say where the best checkpoint is if the validation loss has risen since."""
        best, lowest = self.checkpoints.best(), self.trainer.best_val_loss
        if best is None or loss is None or not lowest < loss:
            return
        step = int(best.stem.removeprefix("step-"))
        print(
            f"it was lower, {lowest:.3f}, after step {step}: the model has begun to learn its text "
            f"by heart. That one is in {shlex.quote(str(best))}; --patience N would keep it"
        )

    def print_sample(self) -> None:
        """Let the model that was saved write from a line end, or from the first character it knows."""
        model = self.model if self.trainer.patience is None else load_model(str(self.folder))[0]
        print_text(
            generate_text(
                model,
                self.tokenizer,
                first_prompt(self.tokenizer),
                self.options.sample,
                temperature=0.8,
                seed=self.options.seed,
            )
        )


def build_tokenizer(options: argparse.Namespace, text: str) -> Tokenizer:
    """The tokenizer that the options name, made for a text. Raises DataError for a text that
    nothing can be learned from.
    """
    if "vocab_size" in options.given and options.tokenizer != "bpe":
        problem = f"--vocab-size has no use with --tokenizer {options.tokenizer}"
        raise ConfigError("train", problem, got=options.vocab_size, hint="say --tokenizer bpe too")
    characters = CharTokenizer.from_text(text)
    if options.tokenizer == "char":
        return characters
    return (
        ByteTokenizer()
        if options.tokenizer == "byte"
        else BPETokenizer.train(text, options.vocab_size)
    )


def build_model(options: argparse.Namespace, vocab_size: int) -> GPT:
    """The model that the options describe, its weights drawn from the seed."""
    manual_seed(options.seed)
    return GPT(
        GPTConfig(
            vocab_size=vocab_size,
            block_size=options.block_size,
            n_layer=options.n_layer,
            n_head=options.n_head,
            n_embd=options.n_embd,
            dropout=options.dropout,
        )
    )


def build_trainer(
    options: argparse.Namespace, model: GPT, data: TextData, crash_folder: Path
) -> Trainer:
    """The trainer, with the optimizer and the schedule that the options describe."""
    optimizer = build_optimizer(options, model)
    schedule = build_schedule(options, optimizer)
    return Trainer(
        model,
        optimizer,
        data,
        steps=options.steps,
        schedule=schedule,
        clip_norm=options.clip_norm,
        eval_interval=options.eval_interval,
        accumulate=options.accumulate,
        patience=options.patience,
        mixed=options.mixed,
        jit=False if options.jit is False else None,
        crash_folder=crash_folder,
    )


def a_prompt(text: str, tokenizer: Tokenizer) -> str:
    """Something that the model can be asked to go on from: its text may have no capital T."""
    if not isinstance(tokenizer, CharTokenizer) or set("The ") <= set(tokenizer.characters):
        return "The "
    return text.strip()[:8].partition("\n")[0] or text[:1]


def chosen(options: argparse.Namespace) -> dict[str, Any]:
    """The options as plain values, for the record in the weight file. A path that is no UTF-8 is
    escaped: --resume needs --text then.
    """
    return {
        name: _escaped(value) for name, value in vars(options).items() if name not in NOT_OF_THE_RUN
    }


def _escaped(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
