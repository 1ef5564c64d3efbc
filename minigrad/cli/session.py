"""One training run: what it prints, what it saves in its folder and when, and how it ends."""

from __future__ import annotations

import math
import shlex
import sys
from argparse import Namespace
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from minigrad.cli import run_folder
from minigrad.cli.generate import first_prompt, print_text
from minigrad.cli.options import one_line, refuse
from minigrad.cli.resume import chosen, environment, escaped, restore, tunes_published
from minigrad.cli.terminal import ValidationStopped, WatchedData, progress, tell
from minigrad.data import TextData, bigram_loss
from minigrad.distributed import broadcast, is_first
from minigrad.errors import NotFiniteError
from minigrad.evaluate import bits_per_byte
from minigrad.files import Checkpoint, CheckpointFolder
from minigrad.files.folder import sweep
from minigrad.finetune import base_digest, trainable
from minigrad.models import GPT, generate_text
from minigrad.nn.quantised import blocks_of
from minigrad.text import CharTokenizer, Tokenizer
from minigrad.train import Interruption, MetricsLog, Report, Trainer
from minigrad.train.steps import evaluate

METRICS, CRASHES = "metrics.jsonl", "crash"


@dataclass
class Session:
    """A run. `open` gives it a folder; `train` fills it.

    text: the identity of the text.
    """

    options: Namespace
    text: dict[str, Any]
    tokenizer: Tokenizer
    data: TextData
    model: GPT
    trainer: Trainer
    folder: Path = field(init=False)
    checkpoints: CheckpointFolder = field(init=False)

    def __post_init__(self) -> None:
        self.command = "finetune" if "architecture" in vars(self.options) else "train"
        self.unit = "character" if isinstance(self.tokenizer, CharTokenizer) else "token"
        self.baseline = bigram_loss(self.data, self.tokenizer.vocab_size)
        self.interruption = Interruption()
        self.trainer.data = self.watched = WatchedData(
            self.data, partial(print, flush=True), stop=partial(bool, self.interruption)
        )
        self.source: dict[str, Any] = {"tokenizer": self.tokenizer.state()}
        if tunes_published(self.options):  # which has the tokenizer
            self.source = {"tokenizer": None, "base": base_digest(self.model).tobytes().hex()}

    # --- before the first step

    def open(self, checkpoints: CheckpointFolder) -> None:
        """Use the folder of these checkpoints, whose lock is held. What an earlier run left in it
        is removed when this run has its first checkpoint.
        """
        self.folder, self.checkpoints = checkpoints.folder.parent, checkpoints
        self.trainer.crash_folder = self.folder / CRASHES
        if is_first():
            sweep(self.folder)

    def resume(self, checkpoints: CheckpointFolder, found: Checkpoint) -> bool:
        """Put model and trainer where the checkpoint was taken. Return False if only the model was
        left to write; raise ConfigError if nothing was left to do.
        """
        self.open(checkpoints)
        trainer, folder = self.trainer, self.folder
        restore(trainer, found)
        late = broadcast(is_first() and self._catch_up(found.meta.get("metric")))
        if not trainer.finished:
            if trainer.evaluated and trainer.step >= (stop := self.options.stop_at or math.inf):
                problem = f"the run in {folder} is already at step {trainer.step}"
                refuse("train", problem, f"give a later step than --stop-at {stop}, or none")
            print(f"resuming from {found.path}, after step {trainer.step}")
            return True
        why = f"step {trainer.step} of {trainer.steps}"
        why += ", and its patience has come to its end" if trainer.out_of_patience else ""
        if late:
            print(f"the run was complete ({why}) except for its model, which is now in {folder}")
            return False
        name = "patience" if trainer.out_of_patience else "steps"
        hint = f"to go further, give more --{name} and --accept {name}"
        refuse("train", f"the run in {folder} is complete: {why}", hint)

    def _catch_up(self, val_loss: float | None) -> bool:
        """Write the model of the checkpoint if the run was killed between the two."""
        facts = run_folder.facts_of_model(self.folder)
        saved = (facts.get("step"), facts.get("val_loss")) == (self.trainer.step, val_loss)
        if saved or not self._is_wanted(val_loss):
            return False
        self._save_model(val_loss)
        return True

    def announce(self) -> None:
        """Print what will be done, a line for each part."""
        options, vocabulary = self.options, self.tokenizer.vocab_size
        cut = f"{len(self.data.train) + len(self.data.val):,} tokens of {vocabulary:,}"
        cut = f"{vocabulary} different ones" if self.unit == "character" else cut
        text = options.text or "the documentation of Python"
        sizes = f"{options.n_layer} layers, {options.n_head} heads, {options.n_embd} wide"
        parameters = sum(p.data.size for p in self.model.parameters())
        parameters += sum(math.prod(weight.shape) for *_, weight in blocks_of(self.model))
        rate = f"rate {options.lr:g}, {options.schedule} after {options.warmup} steps of warmup"
        held = (self.data.train.nbytes + self.data.val.nbytes) / 1e6
        compiling = "" if options.jit is False else "; more while the step is compiled"
        print(f"text     {text}: {self.text['characters']:,} characters, {cut}")
        trained = sum(p.data.size for _, p in trainable(self.model))
        which = "" if trained == parameters else f", {trained:,} of them trained"
        print(f"model    {sizes}: {parameters:,} parameters{which}")
        half = "" if options.matmul == "float32" else f", products in {options.matmul}"
        print(f"learn    {options.optimizer}, {rate}, weight decay {options.weight_decay:g}{half}")
        print(f"memory   {self.trainer.estimate_memory()}; text {held:,.1f}{compiling}")
        if "architecture" in vars(options) and not self.trainer.step:
            before = evaluate(self.model, self.watched.validation())
            print(f"before   {before:.3f} nats per {self.unit} on the validation text", flush=True)
        beaten = f"{self.baseline:.3f} nats per {self.unit} on the validation text"
        print(f"to beat  {beaten}, by a table of {self.unit} pairs", flush=True)

    # --- the run

    def train(self) -> Report | None:
        """Run to the end or to an interruption, showing progress and saving; return the last
        report, if there is one.
        """
        # The untrained model is saved too: a folder that cannot be written to is found out now.
        if self.trainer.step == 0:
            self._save(None)
        log, display = MetricsLog(self.folder / METRICS, self.trainer.step), progress(sys.stdout)
        self.trainer.callbacks += [log, partial(tell, self.interruption, display.show)]
        self.watched.say = partial(tell, self.interruption, display.say)
        every = self.options.save_interval or self.options.eval_interval
        report = None
        try:
            for report in self.trainer.run():
                due = report.val_loss is not None or report.step % every == 0
                stop = self.interruption.poll() or report.step >= (self.options.stop_at or math.inf)
                if due or stop:
                    self._save(report)
                if stop:
                    break
        except ValidationStopped:  # by a signal; --resume begins with this validation
            self._save(None)
        except NotFiniteError as error:
            raise self._diverged(error) from None
        finally:
            display.close()
            log.close()
        return report

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint holds besides the trainer's state."""
        compiler = {"compiler": self.trainer.note} if self.options.jit else {}
        made = {"options": chosen(self.options), "environment": environment() | compiler}
        return {"data": self.text, **self.source, **made}

    def _save(self, report: Report | None) -> None:
        """Write a checkpoint; and the model, if it was evaluated (with --patience: if it is the
        best so far), if the run is interrupted, or if there is none yet.
        """
        val_loss = report.val_loss if report else None
        facts = {"state": self.facts(), "meta": {"run": escaped(self.folder.name)}}
        written = self.trainer.save(self.checkpoints, metric=val_loss, **facts)
        if not is_first():
            return
        if not self.trainer.step and self.options.resume is None:  # what an earlier run has left
            for path in {path for _, path in self.checkpoints.steps()} - {written}:
                path.unlink(missing_ok=True)
        # A model that is to be overwritten stays until there is one that was trained.
        stopped = bool(self.interruption) and self.trainer.patience is None
        if self._is_wanted(val_loss) or stopped or not run_folder.model_file(self.folder):
            self._save_model(val_loss)

    def _is_wanted(self, val_loss: float | None) -> bool:
        """True if the model of an evaluation is to be written."""
        measured = val_loss is not None and math.isfinite(val_loss)
        return measured and (self.trainer.patience is None or not self.trainer.evaluations_since)

    def _save_model(self, val_loss: float | None) -> None:
        facts = {"step": self.trainer.step, "val_loss": val_loss, "bigram_loss": self.baseline}
        run = {**facts, "options": chosen(self.options)}
        if vars(self.options).get("lora"):
            run_folder.save_adapters(self.folder, self.model, self.options.model, run)
        else:
            run_folder.save_model(self.folder, self.model, self.tokenizer, run)

    # --- the end

    def _diverged(self, error: NotFiniteError) -> NotFiniteError:
        """Return the error of a run whose numbers overflowed, with the way on. The checkpoint from
        which it overflowed, if any, is in the crash file too, and is removed: --resume takes the
        last one.
        """
        good = self.trainer.good_checkpoint
        for _, path in self.checkpoints.steps() if good is not None and is_first() else ():
            if path.name > Path(str(good)).name:
                path.unlink()
        place, lr = shlex.quote(str(self.folder)), f"{self.options.lr / 3:.2g}"
        hint = f"go on from there:  minigrad {self.command} --resume {place} --lr {lr} --accept lr"
        hint = "start again with a smaller --lr" if good is None else hint
        return NotFiniteError("train", one_line(error), got=error.got, hint=hint)

    def farewell(self, report: Report | None) -> None:
        """Print how it went, where the model is and what to do with it; and a sample if the run is
        complete.
        """
        trainer, place = self.trainer, shlex.quote(str(self.folder))
        if trainer.out_of_patience:
            evaluations = f"no lower validation loss in {trainer.evaluations_since} evaluations"
            print(f"\n{evaluations}: stopped early, after step {trainer.step}")
        if trainer.finished:
            patient = trainer.patience is not None
            last = report.val_loss if report else None
            loss = (trainer.best_val_loss if patient else last) or math.nan
            which = ", the lowest of the run" if patient else ""
            bits = bits_per_byte(loss, self.tokenizer, self.data.val)
            reached = f"{loss:.3f} nats per {self.unit} (table of pairs {self.baseline:.3f})"
            reached += f", {bits:.3f} bits per byte{which}"
            print(f"\nvalidation loss {reached}; saved in {self.folder}")
            self._name_the_best(loss, place)
        else:
            stopped = f"stopped after step {trainer.step} of {trainer.steps}"
            stopped += ", before its validation" if trainer.step == trainer.steps else ""
            print(f"{stopped}; saved. Continue:  minigrad {self.command} --resume {place}")
        call = f"minigrad generate --model {place} --prompt {shlex.quote(self._prompt())}"
        print(f"let it write:  {call}", flush=True)
        if trainer.finished and self.options.sample:
            print("\na sample:\n")
            self._print_sample()

    def _name_the_best(self, loss: float, place: str) -> None:
        """Name the best model if the last one is worse by more than 1 % and a digit printed."""
        best, lowest = self.checkpoints.best(), self.trainer.best_val_loss
        if best is not None and lowest < min(0.99 * loss, loss - 0.001):
            step = int(best.stem.removeprefix("step-"))
            lower = f"it was lower, {lowest:.3f}, after step {step}"
            call = f"minigrad generate --model {place} --best"
            print(f"{lower}: the model has begun to memorize its text. The best one:  {call}")
            print("(--patience N stops there, and saves the best)")

    def _prompt(self) -> str:
        """Return something that the model can continue: its text may have no capital T."""
        known = self.tokenizer
        if not isinstance(known, CharTokenizer) or set("The ") <= set(known.characters):
            return "The "
        text = known.decode(self.data.train[:100])
        return text.strip()[:8].partition("\n")[0] or text[:1]

    def _print_sample(self) -> None:
        """Let the saved model write from a line end, or from the first character it knows."""
        patient = self.trainer.patience is not None
        model = run_folder.load_model(str(self.folder))[0] if patient else self.model
        facts = {"temperature": 0.8, "seed": self.options.seed}
        start = first_prompt(self.tokenizer)
        print_text(generate_text(model, self.tokenizer, start, self.options.sample, **facts))
