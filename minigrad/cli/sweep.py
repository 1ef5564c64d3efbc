"""`minigrad sweep`: many small training runs side by side, each a process of its own with one BLAS
thread.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from minigrad.cli.arguments import Commands, one_line, path, whole
from minigrad.cli.run_folder import CHECKPOINTS, WEIGHTS
from minigrad.cli.sweep_plan import Plan, Run, differences, parse, read_plan
from minigrad.compiler.compiled import cores
from minigrad.errors import ConfigError, MinigradError
from minigrad.files import peek
from minigrad.train import Interruption
from minigrad.viz import find_runs, plot
from minigrad.viz.metrics import METRICS

DESCRIPTION = """\
Train with every combination of settings, or with random ones, several runs at a time. Called again, it goes on: what is done is left alone,
what was interrupted is resumed. Ctrl-C lets every run save and stop. A run that fails is told, and the others go on.

  out = "runs/sweep"                  # the folder; each run gets one in it
  search = "grid"                     # or "random", with runs = 20 and seed = 0
  [train]                             # the same for all runs: the options of minigrad train
  steps = 500
  [sweep]                             # what varies
  lr = [0.001, 0.003, 0.01]           # "random" also takes { low = 1e-4, high = 1e-2, log = true }
  n_layer = [2, 4]"""

EXAMPLES = """\
examples:
  minigrad sweep sweep.toml
  minigrad sweep sweep.toml --jobs 4
  minigrad sweep sweep.toml --dry-run                     # only show the runs
"""

_THREADS = (
    "OPENBLAS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "MINIGRAD_THREADS",
)
_LOG = "log.txt"


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "sweep",
        help="many small training runs, side by side",
        description=DESCRIPTION,
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "config", metavar="CONFIG", type=path, help="the TOML file that describes the runs"
    )
    parser.option("--jobs", "N", whole(1), None, "runs at a time (default: one per core)")
    parser.add_argument(
        "--dry-run", action="store_true", help="show the commands of the runs and start none"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run what is not done yet; the exit code is 0, 1 if a run failed, or 128 + the signal that
    stopped it.
    """
    if options.dry_run and options.jobs:
        problem = "--dry-run starts no runs, so --jobs has no use"
        raise ConfigError("sweep", problem, got=options.jobs, hint="leave one of the two out")
    plan = read_plan(options.config)
    if options.dry_run:
        for one in plan.runs:
            print(
                shlex.join(
                    ["minigrad", "train", f"--out={plan.folder / one.name}", *one.arguments()]
                )
            )
        return 0
    sweep = Sweep(plan)
    left = [one for one in plan.runs if sweep.records[one.name]["state"] != "done"]
    jobs = options.jobs or cores()
    print(
        f"{len(plan.runs)} runs in {plan.folder}, {len(plan.runs) - len(left)} of them done; "
        f"{min(jobs, max(len(left), 1))} at a time",
        flush=True,
    )
    code = sweep.work(deque(left), jobs)
    print()
    for line in sweep.table():
        print(line)
    print(f"\nsaved in {plan.folder / 'results.csv'} and results.json{sweep.draw()}")
    if code:
        print(f"stopped; go on with:  minigrad sweep {shlex.quote(options.config)}")
    return code or int(any(record["state"] == "failed" for record in sweep.records.values()))


class Sweep:
    """The runs of a plan, what is known of each (`records`, by name), and the processes that are at
    work.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        plan.folder.mkdir(parents=True, exist_ok=True)
        saved = self._saved()
        self.records: dict[str, dict[str, Any]] = {}
        for one in plan.runs:
            record = saved.get(one.name)
            if changes := list(self._changes(one, record)):
                problem = f"{plan.folder / one.name} is a run with other options: {changes[0]}"
                hint = 'name another folder: out = "..."'
                raise ConfigError("sweep", problem, got=changes, hint=hint)
            self.records[one.name] = record or {
                "name": one.name,
                "state": "waiting",
                "options": one.options,
                "seconds": 0.0,
            }
            self._note_result(one)
        self.save()

    def _saved(self) -> dict[str, dict[str, Any]]:
        file = self.plan.folder / "results.json"
        if not file.exists():
            return {}
        try:
            return {
                record["name"]: record
                for record in json.loads(file.read_text(encoding="utf-8"))
                if "options" in record
            }
        except (ValueError, TypeError, KeyError):
            problem = f"{file} is not what a sweep has written"
            hint = 'move it away, or name another folder: out = "..."'
            raise ConfigError("sweep", problem, got=str(file), hint=hint) from None

    def _changes(self, one: Run, record: dict[str, Any] | None) -> Iterator[str]:
        """How the options of a run that is there differ from those it is to have: by its record,
        else by what its weight file tells.
        """
        if record:
            yield from differences(record["options"], one.options)
        elif trained := self._trained(one):
            wanted = vars(parse(one))
            names = one.options.keys() & trained.get("options", {}).keys()
            yield from differences(
                {n: trained["options"][n] for n in names}, {n: wanted[n] for n in names}
            )

    def _trained(self, one: Run) -> dict[str, Any]:
        """What the weight file of a run tells of its training; nothing if there is none."""
        try:
            found: dict[str, Any] = peek(self.plan.folder / one.name / WEIGHTS).meta.get("run", {})
        except (MinigradError, OSError):
            return {}
        return found

    def _note_result(self, one: Run) -> None:
        """Take step and validation loss from the run's weight file; the run is done if it has gone
        all its steps.
        """
        record, trained = self.records[one.name], self._trained(one)
        if trained:
            record |= {"step": trained.get("step"), "val_loss": trained.get("val_loss")}
            if record["val_loss"] is not None and record["step"] == parse(one).steps:
                record["state"] = "done"

    def work(self, waiting: deque[Run], jobs: int) -> int:
        """Run all that waits, `jobs` at a time; returns 0, or the exit code of the signal that
        ended it. A second signal kills the runs.
        """
        active: dict[subprocess.Popen[bytes], tuple[Run, float]] = {}
        told = False
        with Interruption() as interruption:
            try:
                while active or (waiting and not interruption):
                    if interruption and not told:
                        print(f"stopping {len(active)} runs; they save first", flush=True)
                        for process in active:
                            process.send_signal(signal.SIGINT)
                        told = True
                    while waiting and len(active) < jobs and not interruption:
                        one = waiting.popleft()
                        active[self.start(one)] = one, time.monotonic()
                    for process in [process for process in active if process.poll() is not None]:
                        one, started = active.pop(process)
                        self.finish(one, process.returncode, time.monotonic() - started)
                    time.sleep(0.05)
            finally:
                for process in active:  # only if something has gone wrong, or after a second Ctrl-C
                    process.kill()
                    process.wait()
        return interruption.exit_code

    def start(self, one: Run) -> subprocess.Popen[bytes]:
        """Begin the run, or go on with it if it has a checkpoint, in a session of its own: a
        terminal's Ctrl-C reaches the sweep alone.
        """
        folder = self.plan.folder / one.name
        folder.mkdir(exist_ok=True)
        resumed = any((folder / CHECKPOINTS).glob("*.mgrd"))
        arguments = [f"--resume={folder}"] if resumed else [f"--out={folder}", *one.arguments()]
        print(f"{one.name}: {'goes on' if resumed else 'starts'}", flush=True)
        with open(folder / _LOG, "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "minigrad", "train", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **dict.fromkeys(_THREADS, "1")},
                start_new_session=True,
            )

    def finish(self, one: Run, code: int, seconds: float) -> None:
        """Note and tell how a run has ended."""
        record = self.records[one.name]
        record.pop("error", None)
        self._note_result(one)
        record["seconds"] = round(record["seconds"] + seconds, 1)
        if code == 0:
            record["state"] = "done"
            told = f"validation {_loss(record)}, {record['seconds']:.0f} s"
        elif code in (128 + signal.SIGINT, -signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGTERM):
            record["state"] = "stopped"
            told = f"stopped after step {record.get('step')}"
        else:
            record |= {"state": "failed", "error": self._last_words(one, code)}
            told = f"failed: {record['error']}  (see {self.plan.folder / one.name / _LOG})"
        self.save()
        ended = sum(r["state"] in ("done", "failed") for r in self.records.values())
        print(f"{one.name}: {told}  [{ended}/{len(self.records)}]", flush=True)

    def _last_words(self, one: Run, code: int) -> str:
        lines = (
            (self.plan.folder / one.name / _LOG)
            .read_text(encoding="utf-8", errors="replace")
            .strip()
            .splitlines()
        )
        return lines[-1].removeprefix("minigrad train: error: ") if lines else f"exit code {code}"

    def ranked(self) -> list[dict[str, Any]]:
        """The records, best first; those without a result last."""
        return sorted(
            self.records.values(),
            key=lambda r: (
                r["state"] != "done",
                r.get("val_loss") is None,
                r.get("val_loss") or 0.0,
            ),
        )

    def _rows(self) -> list[list[str]]:
        varied = list(self.plan.runs[0].varied)
        rows = [["validation", *varied, "step", "seconds", "state", "run"]]
        for r in self.ranked():
            values = [str(r["options"].get(name, "")) for name in varied]
            rows.append(
                [
                    _loss(r),
                    *values,
                    str(r.get("step") or 0),
                    f"{r['seconds']:.1f}",
                    r["state"],
                    r["name"],
                ]
            )
        return rows

    def table(self) -> list[str]:
        """The results as aligned lines."""
        rows = [row[:-1] for row in self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in rows
        ]

    def draw(self) -> str:
        """Draw the curves of the runs into plot.svg, as `minigrad plot` does; what there is to say
        of it.
        """
        if not any(self.plan.folder.glob(f"*/{METRICS}")):
            return ""
        try:
            plot(find_runs([self.plan.folder])).save(self.plan.folder / "plot.svg")
        except (MinigradError, OSError) as error:
            return f"; no curves: {one_line(error)}"
        return ", the curves in plot.svg"

    def save(self) -> None:
        """Write results.json and results.csv; each is the old one or the new one, never half of it."""
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows(self._rows())
        for name, text in (
            ("results.json", json.dumps(self.ranked(), indent=1)),
            ("results.csv", table.getvalue()),
        ):
            draft = self.plan.folder / f".{name}.new"
            draft.write_text(text, encoding="utf-8")
            os.replace(draft, self.plan.folder / name)


def _loss(record: dict[str, Any]) -> str:
    return "-" if record.get("val_loss") is None else f"{record['val_loss']:.4f}"
