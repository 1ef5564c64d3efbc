"""Train with many settings, several runs at a time, one thread each. A second call continues:
finished runs are left alone, interrupted ones are resumed. Several calls, also on several machines
with a shared folder, work on one sweep. Ctrl-C lets every run save and stop. A run that fails is
reported, and the others go on. Needs Optuna: pip install 'minigrad[sweep]'.

  out = "runs/sweep"         # the folder; each run gets one in it
  search = "grid"            # or "random" or "tpe", with runs = 20 and seed = 0
  halving = 3                # of every three runs the best one goes on; 1 (default): all do
  [train]                    # the same for all runs: the options of minigrad train
  steps = 500
  [sweep]                    # what varies; random and tpe also take ranges:
  lr = [0.001, 0.003, 0.01]  # lr = { low = 1e-4, high = 1e-2, log = true }
  n_layer = [2, 4]

"tpe" draws round = 8 settings at once, each round where the rounds before were good. The study is
in journal.log, for Optuna's tools too.

examples:
  minigrad sweep sweep.toml
  minigrad sweep sweep.toml --jobs 4
  minigrad sweep sweep.toml --dry-run                     # only show the runs
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import itertools
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from argparse import Namespace
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minigrad.cli.doctor import THREADS
from minigrad.cli.options import FILE, FLAG, REQUIRED, Command, Option, one_line, refuse, whole
from minigrad.cli.run_folder import checkpoint_folder, facts_of_model
from minigrad.cli.sweep_plan import Plan, parse, read_plan
from minigrad.cli.terminal import tell
from minigrad.columns import columns
from minigrad.errors import MinigradError, needs
from minigrad.files import write_durably
from minigrad.ops.parallel import cores
from minigrad.start import RANKS, SIZES
from minigrad.train import Interruption
from minigrad.viz import find_runs, plot, read_run
from minigrad.viz.metrics import METRICS

OPTIONS = (
    Option("FILE", FILE, REQUIRED, "the TOML file that describes the runs"),
    Option("jobs", whole(1), None, "runs at a time (default: one per core)"),
    Option("dry_run", FLAG, False, "show the commands of the runs and start none"),
)

JOURNAL, _LOG = "journal.log", "log.txt"


def run(options: Namespace) -> int:
    """Run what is left. Return 0, 1 if a run failed, or 128 + the signal that stopped it."""
    if options.dry_run and options.jobs:
        refuse("sweep", "--dry-run starts no runs, so --jobs has no use")
    optuna, plan = _optuna(), read_plan(options.file)
    if options.dry_run:
        for trial, _ in Sweep(plan, optuna.storages.InMemoryStorage()).moves():
            out = f"--out={plan.folder_of(trial.params)}"
            print(shlex.join(["minigrad", "train", out, *plan.arguments(trial.params)]))
        return 0
    plan.folder.mkdir(parents=True, exist_ok=True)
    for name in (*SIZES, *RANKS):  # processes of `srun -n 4 minigrad sweep` are no ranks of a run
        os.environ.pop(name, None)
    try:
        return _run(options, plan)
    except json.JSONDecodeError:  # of half a line, on a disk that was full
        hint = "remove it and call again: the runs are kept"
        refuse("sweep", f"{plan.folder / JOURNAL} is damaged", hint)


def _run(options: Namespace, plan: Plan) -> int:
    storages, jobs = _optuna().storages, options.jobs or cores()
    path = plan.folder / JOURNAL
    backend = storages.journal.JournalFileBackend(str(path), _Lock(path))
    sweep = Sweep(plan, storages.JournalStorage(backend), _Lock(plan.folder / "sweep.lock"))
    sweep.moves()
    done = sum(trial.state.is_finished() for trial in sweep.trials())
    print(f"{plan.runs} runs in {plan.folder}, {done} of them done; {jobs} at a time", flush=True)
    code = sweep.work(jobs)
    print("", *sweep.table(), sep="\n")
    print(f"\nsaved in {plan.folder / 'results.csv'}{sweep.draw()}")
    if code or sweep.moves():
        print(f"stopped; continue with:  minigrad sweep {shlex.quote(options.file)}")
        return code or 1
    if failed := any(trial.state.name == "FAIL" for trial in sweep.trials()):
        print(f"to try failed runs again, remove {plan.folder / JOURNAL}: the others are kept")
    return int(failed)


def _optuna() -> Any:
    with needs("sweep", "a sweep is searched by Optuna", "'minigrad[sweep]'"):
        import optuna
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class Sweep:
    """A study and the processes that train its runs. A trial is one run: its intermediate values
    are its validation losses at the rungs, and it is RUNNING until its last rung is known.

    What is drawn and which runs go on is a function of the plan and of the losses, whatever the
    number of workers and however often they were killed: the journal of the study decides what is
    trained next, and the folders of the runs hold how far each is.
    """

    def __init__(self, plan: Plan, storage: Any, lock: Any = None) -> None:
        self.plan, self.optuna, self.storage = plan, _optuna(), storage
        self.lock = lock or contextlib.nullcontext()  # held while trials are drawn
        create = self.optuna.create_study
        self.study = create(storage=storage, study_name=plan.name, load_if_exists=True)
        self.left: set[int] = set()  # trials that this sweep leaves to the next one
        self.active: dict[int, Process] = {}  # by the numbers of their trials
        self.waiting = False  # for another sweep
        self.interruption = Interruption()
        self.say = partial(tell, self.interruption, partial(print, flush=True))

    def trials(self) -> list[Any]:
        """Return the trials of the study, in the order in which they were drawn."""
        return list(self.study.get_trials(deepcopy=False))[: self.plan.runs]

    # --- what is to be done

    def moves(self) -> list[tuple[Any, int]]:
        """Return the trials to be trained now, each with the step to be reached; draw a round of
        them when the one before is decided.
        """
        plan = self.plan
        for start in range(0, plan.runs, plan.round):
            end = min(start + plan.round, plan.runs)
            if len(self.trials()) < end:
                with self.lock:
                    for number in range(len(self.trials()), end):
                        self._add(number)
            if moves := self._decide(self.trials()[start:end]):
                return moves
        return []

    def _decide(self, trials: list[Any]) -> list[tuple[Any, int]]:
        """Return what is left to be trained up to the first rung that is not complete. Of the runs
        at a complete rung the best go on, and the others stay where they are.
        """
        states, plan = self.optuna.trial.TrialState, self.plan
        rungs = {trial.number: plan.rungs(trial.params) for trial in trials}
        *_, last = range(len(rungs[trials[0].number]))  # where steps vary, all have one rung
        for level in range(last + 1):
            at = [(t, rungs[t.number][level]) for t in trials if t.state != states.FAIL]
            if left := [(t, step) for t, step in at if step not in t.intermediate_values]:
                return left
            ranked = sorted((t.intermediate_values[step], t.number, t) for t, step in at)
            count = -(-len(trials) // plan.halving) if level < last else len(ranked)
            for _, number, _ in ranked[count:]:
                self._tell(number, state=states.PRUNED)
            trials = [trial for _, _, trial in ranked[:count]]
        for loss, number, _ in ranked:
            self._tell(number, values=loss)
        return []

    def _tell(self, number: int, **result: Any) -> None:
        """Finish a trial, unless another sweep has done so."""
        with contextlib.suppress(RuntimeError):
            self.study.tell(number, **result, skip_if_finished=True)

    def _add(self, number: int) -> None:
        """Draw the settings of a trial and add it, in one entry of the journal. They are drawn in a
        study in memory, from the plan's seed and the trials before.
        """
        plan, optuna = self.plan, self.optuna
        ranges = {name: self._distribution(values) for name, values in plan.varied.items()}
        if plan.search == "grid":
            values = next(itertools.islice(itertools.product(*plan.varied.values()), number, None))
            point = dict(zip(plan.varied, values, strict=True))
        else:
            seed, samplers = plan.seed + number, optuna.samplers
            tpe = plan.search == "tpe" and number >= plan.round
            sampler = samplers.TPESampler if tpe else samplers.RandomSampler
            twin = optuna.create_study(sampler=sampler(seed=seed))
            twin.add_trials(self.trials())
            drawn = twin.ask(ranges).params
            point = {name: _rounded(value, plan.varied[name]) for name, value in drawn.items()}
        running = optuna.trial.TrialState.RUNNING
        trial = optuna.trial.create_trial(state=running, params=point, distributions=ranges)
        self.study.add_trial(trial)

    def _distribution(self, values: Any) -> Any:
        kinds = self.optuna.distributions
        if isinstance(values, list):
            return kinds.CategoricalDistribution(values)
        whole_numbers = isinstance(values["low"], int) and isinstance(values["high"], int)
        kind = kinds.IntDistribution if whole_numbers else kinds.FloatDistribution
        return kind(values["low"], values["high"], log=values.get("log", False))

    # --- processes

    def work(self, jobs: int) -> int:
        """Run all that is left, `jobs` at a time; return 0, or the exit code of the signal that
        ended it. A second signal kills the runs.
        """
        with self.interruption:
            try:
                while not self.interruption and self._begin(jobs):
                    self._wait()
                if self.active:
                    self.say(f"stopping {len(self.active)} runs; they save first")
                for process in self.active.values():
                    process.popen.send_signal(signal.SIGINT)
                while self.active:
                    self._wait()
            finally:
                for process in self.active.values():  # after an error, or a second Ctrl-C
                    process.popen.kill()
                    process.popen.wait()
        return self.interruption.exit_code

    def _begin(self, jobs: int) -> bool:
        """Start what can be started. Return False if nothing is running and nothing is left."""
        moves = [move for move in self.moves() if move[0].number not in self.left]
        taken = False
        for trial, step in moves:
            if len(self.active) < jobs and trial.number not in self.active:
                taken |= not self._start(trial, step)
        others = taken and not self.active
        if others and not self.waiting:
            self.say("waiting for the runs of another sweep in this folder")
        self.waiting = others
        return bool(self.active or moves)

    def _wait(self) -> None:
        """Wait until a process ends, a second at most; take its result."""
        end = time.monotonic() + 1
        while time.monotonic() < end and (self.active or self.waiting):
            for number, process in list(self.active.items()):
                if process.popen.poll() is not None:
                    del self.active[number]
                    self._finish(process)
                    os.close(process.lock)
                    return
            time.sleep(0.05)

    def _start(self, trial: Any, step: int) -> bool:
        """Start or resume a run, unless it has been there already. Return False if another sweep
        has it.
        """
        folder = self.plan.folder_of(trial.params)
        folder.mkdir(exist_ok=True)
        # The process inherits the lock: where a sweep is killed, its runs stay locked to their end.
        lock = os.open(folder / "sweep.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._refuse_changes(trial, folder)
        if self._report(trial, step) is not None:
            os.close(lock)
            return True
        resumed = bool(checkpoint_folder(folder).steps())
        arguments = [f"--out={folder}", *self.plan.arguments(trial.params)]
        arguments = [f"--resume={folder}"] if resumed else arguments
        self.say(f"{folder.name}: {'goes on' if resumed else 'starts'}")
        with open(folder / _LOG, "ab") as log:
            popen = subprocess.Popen(
                [sys.executable, "-m", "minigrad", "train", *arguments, f"--stop-at={step}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **dict.fromkeys(THREADS, "1")},
                start_new_session=True,  # a terminal's Ctrl-C reaches the sweep alone
                pass_fds=[lock],
            )
        self.active[trial.number] = Process(popen, lock, trial, step)
        return True

    def _finish(self, process: Process) -> None:
        """Report how a run has ended."""
        trial, code, states = process.trial, process.popen.returncode, self.optuna.trial.TrialState
        folder = self.plan.folder_of(trial.params)
        value = self._report(trial, process.step) if code == 0 else None
        if value is not None:
            how = f"validation {value:.4f} after step {process.step}"
        elif self.interruption or code < 0 or code > 128:  # 1 if it came while Python started
            self.left.add(trial.number)
            how = "stopped" if self.interruption else f"ended by signal {abs(code) % 128}"
        else:
            log = (folder / _LOG).read_text(encoding="utf-8", errors="replace")
            said = re.findall("^minigrad train: error: (.*)", log, re.MULTILINE)
            error = (said or [f"exit code {code}"])[-1] if code else "no finite validation loss"
            self.storage.set_trial_user_attr(trial._trial_id, "error", error)
            self._tell(trial.number, state=states.FAIL)
            how = f"failed: {error}  (see {folder / _LOG})"
        self.moves()  # which decides a rung that is complete now
        done = sum(t.state.is_finished() for t in self.trials())
        self.say(f"{folder.name}: {how}  [{done}/{self.plan.runs} decided]")

    def _report(self, trial: Any, step: int) -> float | None:
        """Tell the study the run's validation loss after a step, with patience the lowest until
        then, and return it; None if the run ended before.
        """
        folder, patience = self.plan.folder_of(trial.params), self._options(trial)["patience"]
        if not (folder / METRICS).exists():
            return None
        steps, losses = read_run(folder).column("val_loss")
        losses = losses[steps <= step]
        ended = patience and len(losses) and len(losses) - 1 - int(np.argmin(losses)) >= patience
        if not ended and step not in steps:
            return None
        value = float(min(losses) if patience else losses[-1])
        with contextlib.suppress(RuntimeError):  # it is finished: another sweep has reported it
            self.storage.set_trial_intermediate_value(trial._trial_id, step, value)
        return value

    def _options(self, trial: Any) -> dict[str, Any]:
        return vars(parse(self.plan.options(trial.params)))

    def _refuse_changes(self, trial: Any, folder: Path) -> None:
        """Raise ConfigError if the folder has a run with other options."""
        saved, wanted = facts_of_model(folder).get("options", {}), self._options(trial)
        for name in sorted(saved.keys() & wanted.keys() - {"sample"}):
            if wanted[name] is not None and saved[name] != wanted[name]:
                change = f"{name} was {saved[name]} and is {wanted[name]}"
                problem = f"{folder} is a run with other options: {change}"
                refuse("sweep", problem, 'name another folder: out = "..."')

    # --- results

    def table(self) -> list[str]:
        """Return the results as aligned lines, a row per run: the furthest first, of equals the one
        with the lowest loss. Write them to results.csv.
        """
        words = {"COMPLETE": "done", "PRUNED": "paused", "FAIL": "failed", "RUNNING": "waiting"}
        found = []
        for trial in self.trials():
            last, name = trial.last_step or 0, self.plan.folder_of(trial.params).name
            loss = trial.intermediate_values.get(last, math.inf)
            values = [str(value) for value in (*trial.params.values(), last)]
            row = [f"{loss:.4f}" if last else "-", *values, words[trial.state.name], name]
            found.append((-last, loss, trial.number, row))
        head, text = ["validation", *self.plan.varied, "step", "state", "run"], io.StringIO()
        rows = [head, *(row for *_, row in sorted(found))]
        csv.writer(text, lineterminator="\n").writerows(rows)
        content = text.getvalue().encode()
        write_durably(self.plan.folder / "results.csv", [content], nbytes=len(content))
        return columns([row[:-1] for row in rows], left=0)

    def draw(self) -> str:
        """Draw the curves of the runs into plot.svg, and settings against losses into
        parallel.svg; return what to print about it.
        """
        if not any(self.plan.folder.glob(f"*/{METRICS}")):
            return ""
        try:
            plot(find_runs([self.plan.folder])).save(self.plan.folder / "plot.svg")
            self._draw_parallel(self.plan.folder / "parallel.svg")
        except (MinigradError, OSError) as error:
            return f"; no curves: {one_line(error)}"
        return ", the curves in plot.svg, the settings in parallel.svg"

    def _draw_parallel(self, path: Path) -> None:
        """Draw parallel coordinates of all runs, each with the loss that it has come to."""
        twin = self.optuna.create_study()
        for t in self.trials():
            if t.intermediate_values:
                facts = {"params": t.params, "distributions": t.distributions}
                value = t.intermediate_values[t.last_step]
                twin.add_trial(self.optuna.trial.create_trial(value=value, **facts))
        if not twin.trials:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls its plots experimental
            draw = self.optuna.visualization.matplotlib.plot_parallel_coordinate
            draw(twin, target_name="validation loss").figure.savefig(path)


@dataclass
class _Lock:
    """A lock for the sweeps in one folder, which ends with its process. (Optuna's own lock of a
    journal outlives a kill.)
    """

    path: Path

    def acquire(self, *_: Any) -> bool:
        self.file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(self.file, fcntl.LOCK_EX)
        return True

    def release(self, *_: Any) -> None:
        os.close(self.file)

    __enter__, __exit__ = acquire, release


class Process(NamedTuple):
    """A run that is being trained up to a step, and the lock of its folder."""

    popen: subprocess.Popen[bytes]
    lock: int
    trial: Any
    step: int


def _rounded(value: Any, values: Any) -> Any:
    """Return a float that was drawn from a range with four digits, for the name of its folder."""
    if not isinstance(value, float) or isinstance(values, list):
        return value
    return min(max(float(f"{value:.4g}"), values["low"]), values["high"])


COMMAND = Command("sweep", OPTIONS, run, "many small training runs, side by side", __doc__)
