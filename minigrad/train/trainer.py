"""The training loop: batch, gradients, a check of the numbers, update; evaluations, stopping,
saving and resuming.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from minigrad import distributed
from minigrad.arguments import as_float, as_int, require
from minigrad.dtypes import Array
from minigrad.errors import CaptureError, ConfigError, NotFiniteError
from minigrad.files import Checkpoint, CheckpointFolder, save_checkpoint
from minigrad.optim import Optimizer
from minigrad.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from minigrad.precision import as_precision, get_matmul_precision, matmul_precision
from minigrad.random import default_generator
from minigrad.tensor import Tensor
from minigrad.train.memory import Memory, estimate
from minigrad.train.metrics import Report
from minigrad.train.steps import Batch, EagerStep, MixedStep, Model, NotCompiled, evaluate, in_mode


class Data(Protocol):
    """What the loop needs of its data: batches that are a function of the step, and a validation
    part.
    """

    def batch(self, step: int) -> tuple[Array, Array]: ...
    def validation(self) -> Iterator[tuple[Array, Array]]: ...


def _check_kinds(call: str, schedule: Any, mixed: Any, jit: Any, crash_folder: Any) -> None:
    wanted = "a schedule of minigrad.optim.lr_scheduler or None"
    require(isinstance(schedule, LRScheduler | None), call, "schedule", schedule, wanted)
    require(isinstance(jit, bool | None), call, "jit", jit, "True, False or None")
    is_path = isinstance(crash_folder, str | Path | None)
    require(is_path, call, "crash_folder", crash_folder, "a path or None")
    wanted = f"False or None with mixed={mixed!r}: there is no C for 16-bit parameters"
    require(not (mixed and jit), call, "jit", jit, wanted)


class Trainer:
    """Trains a model, step by step.

    steps: the number of the last step.  schedule: sets the learning rate after each step, or after
        each evaluation if it is a ReduceLROnPlateau; None leaves it as it is.
    clip_norm: the norm that gradients are clipped to; None clips nothing.   eval_interval: steps
        between evaluations; there is one at the end too.
    accumulate: the pieces that a part of a batch is cut into, whose gradients are accumulated one
        after the other: the memory for activations is that of a piece.
        Pieces and parts are weighed by their targets other than -100, evaluations too. A model with
        a mean loss that is divided by something else says so by a method count_targets(y): for
        ignore_index=-1 (y >= 0).sum(), for weights of classes weight[y].sum() without the targets
        that are ignored. Without it, negative targets other than -100 are refused.
    parts: the equal parts of a batch whose gradients are added in a binary tree, shared among the
        ranks of `minigrad.distributed`: the number of ranks times a power of two; the same parts
        give the same bits on any number of ranks. None for 1, or 4 if there are several ranks
        (their number if that does not divide 4).
    patience: stop after this many evaluations without a lower validation loss.   callbacks: called
        with every Report.
    mixed: "bfloat16" or "float16" for parameters in 16 bits with float32 masters, see
        `optim.MixedPrecision`.
    matmul: "float32" or "bfloat16", what operands of matrix products are rounded to, see
        `minigrad.set_matmul_precision`; None for what is set.
    jit: True compiles the step (see docs/compiler.md), False runs it op by op, None compiles it
        where that can be. `backend` ("c" or "eager", or "numpy" for a step that was to be compiled
        and cannot be) and `note` say what runs and why; asking for them compiles.
    crash_folder: where to save the batch and the state that gave a NaN or an infinity.
    With several ranks, all call the same methods in the same order, and rank 0 alone writes files.
    Raises ConfigError for an invalid setting.
    """

    step = evaluations_since = 0
    best_val_loss = math.inf
    good_checkpoint: Path | None = None  # the last one from which a further step was made
    _last_checkpoint: Path | None = None
    # Loss, gradient norm, rate and speed of the last step until it is evaluated, if that is due
    _unevaluated: tuple[float, float, float, float] | None = None
    _engine: EagerStep | None = None

    def __init__(
        self,
        model: Model,
        optimizer: Optimizer,
        data: Data,
        *,
        steps: int,
        schedule: LRScheduler | None = None,
        clip_norm: float | None = 1.0,
        eval_interval: int = 250,
        accumulate: int = 1,
        parts: int | None = None,
        patience: int | None = None,
        callbacks: Sequence[Callable[[Report], object]] = (),
        mixed: str | None = None,
        matmul: str | None = None,
        jit: bool | None = None,
        crash_folder: str | Path | None = None,
    ) -> None:
        call = "Trainer"
        _check_kinds(call, schedule, mixed, jit, crash_folder)
        self.model, self.optimizer, self.data, self.schedule = model, optimizer, data, schedule
        self.steps = as_int(call, "steps", steps)
        self.eval_interval = as_int(call, "eval_interval", eval_interval)
        self.accumulate = as_int(call, "accumulate", accumulate)
        parts = distributed.default_parts() if parts is None else parts
        self.parts = as_int(call, "parts", parts)
        distributed.check_parts(call, self.parts)
        self.patience = None if patience is None else as_int(call, "patience", patience)
        clip_norm = math.inf if clip_norm is None else clip_norm
        self.clip_norm = as_float(call, "clip_norm", clip_norm, 0, above=True)
        self.callbacks = list(callbacks) if isinstance(callbacks, Iterable) else [None]
        good = all(map(callable, self.callbacks))
        require(good, call, "callbacks", callbacks, "functions of a Report")
        self.matmul = as_precision(call, "matmul", matmul or get_matmul_precision())
        self.jit, self.crash_folder = jit, crash_folder
        self._settings = (model, optimizer, self.clip_norm, self.parts)
        self._mixed = None if mixed is None else MixedStep(*self._settings, mixed)

    # --- how a step is made

    def prepare(self) -> None:
        """Choose how steps are made, and compile them, on the batch of the step that is next.
        Leaves no trace in weights and numbers. Raises ConfigError if the ranks differ.
        """
        if self._engine is None:
            with matmul_precision(self.matmul):
                self._engine = self._mixed or self._compiled_or_eager()
            names = "steps parts accumulate clip_norm eval_interval patience optimizer matmul"
            self._agree(
                **{name: getattr(self, name) for name in names.split()},
                numpy=np.__version__,
                backend=self._engine.backend,
                batch=distributed.checksum(self.data.batch(self.step)),
                generator=default_generator.get_state(),
            )

    def _compiled_or_eager(self) -> EagerStep:
        """A compiled step, or, where that cannot be and was not insisted on, an eager one."""
        if self.jit is False:
            return EagerStep(*self._settings)
        from minigrad.train.compiled import CompiledStep  # brings the compiler along

        try:
            step = CompiledStep(*self._settings, strict=bool(self.jit))
            quiet = np.errstate(over="ignore", invalid="ignore")
            with quiet, in_mode(self.model, training=True):
                step.prepare(self._pieces(self.data.batch(self.step)))
            return step
        except (NotCompiled, CaptureError) as error:
            if self.jit:
                raise
            why = error.problem if isinstance(error, CaptureError) else str(error)
            return EagerStep(*self._settings, why)

    def _agree(self, **facts: Any) -> None:
        """Raise ConfigError on every rank, with a table, if the ranks differ in these facts, or in
        what steps change.
        """
        if distributed.size() > 1:
            buffers: Iterable[Tensor] = getattr(self.model, "buffers", tuple)()
            written = (*self.model.parameters(), *buffers, *self.optimizer.written())
            weights = distributed.checksum(t.data for t in written)
            distributed.check_same("Trainer", {**facts, "step": self.step, "weights": weights})

    @property
    def engine(self) -> EagerStep:
        """What makes the steps."""
        self.prepare()
        assert self._engine is not None
        return self._engine

    @property
    def backend(self) -> str:
        """ "c" for a compiled step, "eager" for one that runs op by op, "numpy" for one that was to
        be compiled and cannot be.
        """
        return self.engine.backend

    @property
    def note(self) -> str:
        """Why it is that: the compiler, or what is missing; empty where it was asked for."""
        return self.engine.note

    def estimate_memory(self) -> Memory:
        """What a step will need, in bytes. Runs one row of a batch forward; a compiled step keeps
        less.
        """
        piece = self._pieces(self.data.batch(self.step))[0]
        masters = sum(p.data.nbytes for p in self._mixed.mixed.masters) if self._mixed else 0
        with in_mode(self.model, training=True):
            return estimate(self.model, self.optimizer, piece, masters)

    def measure(self, seconds: float = 2.0) -> tuple[float, float]:
        """Return the seconds that a step and an evaluation take here, measured for about so long.
        Weights, moments and the generator are then those before.
        """
        engine, pieces = self.engine, self._pieces(self.data.batch(self.step))
        quiet = np.errstate(over="ignore", invalid="ignore")
        with in_mode(self.model, training=True), quiet, matmul_precision(self.matmul):
            step = engine.measured(pieces, seconds)
        for _ in range(2):  # the first one may compile
            began = time.perf_counter()
            self._loss_of(itertools.islice(self.data.validation(), 4))
            took = time.perf_counter() - began
        batches = sum(1 for _ in self.data.validation())
        return step, took / min(batches, 4) * batches

    def _pieces(self, batch: Batch) -> list[Batch]:
        """The batch in `parts` times `accumulate` pieces of one size."""
        (x, y), n = batch, self.parts * self.accumulate
        cuts = f"parts={self.parts} times accumulate={self.accumulate}"
        if len(x) % n:
            problem = f"{cuts} does not divide a batch of {len(x)}"
            raise ConfigError("Trainer", problem, got=n, wanted=len(x), hint="change one of them")
        rows = len(x) // n
        return [(x[i : i + rows], y[i : i + rows]) for i in range(0, len(x), rows)]

    # --- steps

    def train_step(self) -> tuple[float, float, int]:
        """One step: batch, loss, gradients, clipping, update. Returns loss, gradient norm and
        number of tokens.

        Raises NotFiniteError if loss or gradient is not a number; weights, optimizer and generator
        are then those before the step, and are saved in `crash_folder` with the batch.
        """
        engine, batch = self.engine, self.data.batch(self.step)
        drawn = default_generator.get_state()
        # A run that diverges overflows first; it is reported below, once.
        quiet = np.errstate(over="ignore", invalid="ignore")
        with quiet, matmul_precision(self.matmul):
            loss, norm = engine.gradients(self._pieces(batch))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            default_generator.set_state(drawn)
            raise self._not_finite(batch, loss, norm)
        engine.update()
        if self.schedule is not None and not isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step()
        self.step += 1
        self.good_checkpoint = self._last_checkpoint or self.good_checkpoint
        self._last_checkpoint = None
        return loss, norm, batch[0].size

    def _not_finite(self, batch: Batch, loss: float, norm: float) -> NotFiniteError:
        """The error that stops a run; saves what led to it first."""
        hint = "the weights are those before this step; a smaller learning rate may help"
        if self.good_checkpoint is not None:
            hint += f"; the last good checkpoint is {self.good_checkpoint}"
        if self.crash_folder is not None:
            path = Path(self.crash_folder) / f"not-finite-{self.step + 1:08d}.mgrd"
            facts = {"x": batch[0], "y": batch[1], "loss": repr(loss), "grad_norm": repr(norm)}
            if distributed.is_first():
                path.parent.mkdir(parents=True, exist_ok=True)
                state = {**self.state_dict(), "not_finite": facts}
                save_checkpoint(path, self.model.state_dict(), state, meta={"step": self.step})
            distributed.barrier()  # the first error would end rank 0 while it writes
            hint += f"; batch and state are in {path}"
        problem = f"the loss is {loss} and the gradient's norm {norm} at step {self.step + 1}"
        wanted = "finite numbers"
        return NotFiniteError("Trainer", problem, got=(loss, norm), wanted=wanted, hint=hint)

    @property
    def finished(self) -> bool:
        """True after the last step and its evaluation, or when `patience` is at its end."""
        return self.evaluated and (self.step >= self.steps or self.out_of_patience)

    @property
    def evaluated(self) -> bool:
        """False while the last step's evaluation, if that is due, and its report are to come."""
        return self._unevaluated is None

    @property
    def out_of_patience(self) -> bool:
        """True after `patience` evaluations in a row without a lower validation loss."""
        return self.patience is not None and self.evaluations_since >= self.patience

    def run(self) -> Iterator[Report]:
        """Take the steps that are left and report after each. Leave the loop to stop; call `run`
        again to go on. An evaluation that an exception ended, such as one that the data raises, is
        done first then, also by a run that was saved and restored.
        """
        if self.finished:
            return
        self.prepare()
        began, first, seconds = time.perf_counter(), self.step, 0.0
        self.model.train()
        while not self.finished:
            if self._unevaluated is None:
                start, lr = time.perf_counter(), self.optimizer.lr
                loss, norm, tokens = self.train_step()
                took = time.perf_counter() - start
                # The mean, from 20 steps on a moving average over about as many: quick to follow a
                # change of load, slow enough to be read. The first step is often slow: it counts
                # only until there is a second.
                seconds += (took - seconds) / min(max(self.step - first - 1, 1), 20)
                self._unevaluated = (loss, norm, lr, tokens / seconds)
            due = self.step % self.eval_interval == 0 or self.step == self.steps
            val_loss = self._evaluate() if due else None
            taken, to_take = max(self.step - first, 1), self.steps - self.step
            left = (time.perf_counter() - began) / taken * to_take
            report = Report(self.step, self.steps, *self._unevaluated, left, val_loss)
            self._unevaluated = None
            for callback in self.callbacks:
                callback(report)
            yield report

    def _loss_of(self, batches: Iterable[Batch]) -> float:
        with matmul_precision(self.matmul):
            return evaluate(self.model, batches, self.engine.loss)

    def _evaluate(self) -> float:
        val_loss = self._loss_of(self.data.validation())
        self._agree()  # weights that drift apart would not be seen otherwise
        better = val_loss < self.best_val_loss
        self.best_val_loss = val_loss if better else self.best_val_loss
        self.evaluations_since = 0 if better else self.evaluations_since + 1
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(val_loss)
        return val_loss

    # --- saving and going on

    def state_dict(self) -> dict[str, Any]:
        """The state of the run besides the weights, as a checkpoint holds it: the step (which gives
        the batches), optimizer, schedule, the generator that dropout draws from, what early
        stopping has seen, and with mixed precision the masters and the scale.
        """
        optimizer, kind = self.optimizer.state_dict(), type(self.optimizer).__name__
        entries = {str(i): entry for i, entry in optimizer["state"].items()}
        best = self.best_val_loss if self.best_val_loss < math.inf else None
        return {
            "step": self.step,
            "optimizer": {**optimizer, "kind": kind, "state": entries},
            "schedule": self.schedule.state_dict() if self.schedule else None,
            "generator": np.array(default_generator.get_state(), np.uint64),
            "stopping": {"best": best, "since": self.evaluations_since},
            **({"unevaluated": list(self._unevaluated)} if self._unevaluated else {}),
            **(self._mixed.state_dict() if self._mixed is not None else {}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly from where `state_dict()` was taken, the model's weights being those of
        then.
        """
        self.optimizer.load_state_dict(state["optimizer"])
        if self._mixed is not None:
            self._mixed.load_state_dict(state)
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        default_generator.set_state(state["generator"])
        stopping = state.get("stopping", {"best": None, "since": 0})
        self.best_val_loss = math.inf if stopping["best"] is None else stopping["best"]
        self.step, self.evaluations_since = state["step"], stopping["since"]
        self._unevaluated = state.get("unevaluated")
        # A compiled step holds the moments that were; the next one is compiled for those that are
        self._engine = None

    def save(
        self,
        folder: CheckpointFolder,
        *,
        metric: float | None = None,
        state: Mapping[str, Any] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write a checkpoint of this step: weights, `state_dict()` and what `state` adds; return
        its path. Of several ranks, rank 0 writes.
        """
        path = Path()
        if distributed.is_first():
            weights, full = self.model.state_dict(), {**self.state_dict(), **(state or {})}
            path = folder.save(self.step, weights, full, metric=metric, meta=meta)
        self._last_checkpoint = path = distributed.broadcast(path)
        return path

    def restore(self, found: Checkpoint) -> None:
        """Put model and run where the checkpoint was taken; what follows is, to the bit, what would
        have followed there.
        """
        self.model.load_state_dict(found.weights)
        self.load_state_dict(found.state)
        self._last_checkpoint = Path(found.path)
