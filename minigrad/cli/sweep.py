"""`minigrad sweep`: many small training runs side by side, each a process of its own with one BLAS
thread.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections import deque
from collections.abc import Iterator
from typing import Any

from minigrad.cli.doctor import THREADS
from minigrad.cli.options import FILE, FLAG, REQUIRED, Command, Option, one_line, refuse, whole
from minigrad.cli.run_folder import CHECKPOINTS, facts_of_model
from minigrad.cli.sweep_plan import Plan, Run, differences, parse, read_plan
from minigrad.errors import MinigradError
from minigrad.ops.parallel import cores
from minigrad.train import Interruption
from minigrad.viz import find_runs, plot
from minigrad.viz.metrics import METRICS

DESCRIPTION = """\
Train with every combination of settings, or with random ones, several runs at a time. A second call
continues: finished runs are left alone, interrupted ones are resumed. Ctrl-C lets every run save
and stop. A run that fails is reported, and the others go on.

  out = "runs/sweep"                  # the folder; each run gets one in it
  search = "grid"                     # or "random", with runs = 20 and seed = 0
  [train]                             # the same for all runs: the options of minigrad train
  steps = 500
  [sweep]                             # what varies
  lr = [0.001, 0.003, 0.01]           # "random" also takes { low = 1e-4, high = 1e-2, log = true }
  n_layer = [2, 4]"""

EXAMPLES = """\
  minigrad sweep sweep.toml
  minigrad sweep sweep.toml --jobs 4
  minigrad sweep sweep.toml --dry-run                     # only show the runs
"""

OPTIONS = (
    Option("FILE", FILE, REQUIRED, "the TOML file that describes the runs"),
    Option("jobs", whole(1), None, "runs at a time (default: one per core)"),
    Option("dry_run", FLAG, False, "show the commands of the runs and start none"),
)

_LOG = "log.txt"
_STOPPED = {
    sign * n + 128 * (sign > 0) for n in (signal.SIGINT, signal.SIGTERM) for sign in (1, -1)
}


def run(options: Namespace) -> int:
    """Run what is not done. Return 0, 1 if a run failed, or 128 + the signal that stopped it."""
    if options.dry_run and options.jobs:
        refuse("sweep", "--dry-run starts no runs, so --jobs has no use")
    plan = read_plan(options.file)
    if options.dry_run:
        for one in plan.runs:
            out = f"--out={plan.folder / one.name}"
            print(shlex.join(["minigrad", "train", out, *one.arguments()]))
        return 0
    sweep = Sweep(plan)
    left = [one for one in plan.runs if sweep.records[one.name]["state"] != "done"]
    jobs = options.jobs or cores()
    done, at_once = len(plan.runs) - len(left), min(jobs, max(len(left), 1))
    print(
        f"{len(plan.runs)} runs in {plan.folder}, {done} of them done; {at_once} at a time",
        flush=True,
    )
    code = sweep.work(deque(left), jobs)
    print("", *sweep.table(), sep="\n")
    print(f"\nsaved in {plan.folder / 'results.csv'} and results.json{sweep.draw()}")
    if code:
        print(f"stopped; continue with:  minigrad sweep {shlex.quote(options.file)}")
    return code or int(any(record["state"] == "failed" for record in sweep.records.values()))


class Sweep:
    """The runs of a plan, what is known of each (`records`, by name), and their processes."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        plan.folder.mkdir(parents=True, exist_ok=True)
        saved = self._saved()
        self.records: dict[str, dict[str, Any]] = {}
        for one in plan.runs:
            record = saved.get(one.name)
            for change in self._changes(one, record):
                problem = f"{plan.folder / one.name} is a run with other options: {change}"
                refuse("sweep", problem, 'name another folder: out = "..."')
            new = {"name": one.name, "state": "waiting", "options": one.options, "seconds": 0.0}
            self.records[one.name] = record or new
            self._note_result(one)
        self.save()

    def _saved(self) -> dict[str, dict[str, Any]]:
        file = self.plan.folder / "results.json"
        try:
            records = json.loads(file.read_text(encoding="utf-8"))
            return {record["name"]: record for record in records if "options" in record}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError):
            hint = 'move it away, or name another folder: out = "..."'
            refuse("sweep", f"{file} is not what a sweep has written", hint)

    def _changes(self, one: Run, record: dict[str, Any] | None) -> Iterator[str]:
        """Yield how an existing run differs from the planned one, by its record or its model."""
        if record:
            yield from differences(record["options"], one.options)
            return
        saved, wanted = self._facts(one).get("options", {}), vars(parse(one))
        names = one.options.keys() & saved.keys()
        yield from differences({n: saved[n] for n in names}, {n: wanted[n] for n in names})

    def _facts(self, one: Run) -> dict[str, Any]:
        return facts_of_model(self.plan.folder / one.name)

    def _note_result(self, one: Run) -> None:
        """Take step and validation loss from the run's model; it is done after its last step."""
        record, facts = self.records[one.name], self._facts(one)
        if facts:
            record |= {"step": facts.get("step"), "val_loss": facts.get("val_loss")}
            if record["val_loss"] is not None and record["step"] == parse(one).steps:
                record["state"] = "done"

    def work(self, waiting: deque[Run], jobs: int) -> int:
        """Run all that waits, `jobs` at a time; return 0, or the exit code of the signal that ended
        it. A second signal kills the runs.
        """
        active: dict[subprocess.Popen[bytes], tuple[Run, float]] = {}
        signalled = False
        with Interruption() as interruption:
            try:
                while active or (waiting and not interruption):
                    if interruption and not signalled:
                        print(f"stopping {len(active)} runs; they save first", flush=True)
                        for process in active:
                            process.send_signal(signal.SIGINT)
                        signalled = True
                    while waiting and len(active) < jobs and not interruption:
                        one = waiting.popleft()
                        active[self.start(one)] = one, time.monotonic()
                    for process in [process for process in active if process.poll() is not None]:
                        one, started = active.pop(process)
                        self.finish(one, process.returncode, time.monotonic() - started)
                    time.sleep(0.05)
            finally:
                for process in active:  # only after an error, or after a second Ctrl-C
                    process.kill()
                    process.wait()
        return interruption.exit_code

    def start(self, one: Run) -> subprocess.Popen[bytes]:
        """Start the run, or resume it if it has a checkpoint, in a session of its own: a terminal's
        Ctrl-C reaches the sweep alone.
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
                env={**os.environ, **dict.fromkeys(THREADS, "1")},
                start_new_session=True,
            )

    def finish(self, one: Run, code: int, seconds: float) -> None:
        """Record and print how a run has ended."""
        record = self.records[one.name]
        record.pop("error", None)
        self._note_result(one)
        record["seconds"] = round(record["seconds"] + seconds, 1)
        if code == 0:
            record["state"] = "done"
            how = f"validation {_loss(record)}, {record['seconds']:.0f} s"
        elif code in _STOPPED:
            record["state"] = "stopped"
            how = f"stopped after step {record.get('step')}"
        else:
            log = self.plan.folder / one.name / _LOG
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            error = lines[-1] if lines else f"exit code {code}"
            record |= {"state": "failed", "error": error.removeprefix("minigrad train: error: ")}
            how = f"failed: {record['error']}  (see {log})"
        self.save()
        ended = sum(r["state"] in ("done", "failed") for r in self.records.values())
        print(f"{one.name}: {how}  [{ended}/{len(self.records)}]", flush=True)

    def ranked(self) -> list[dict[str, Any]]:
        """Return the records, best first; those without a result last."""

        def order(record: dict[str, Any]) -> tuple[bool, bool, float]:
            loss = record.get("val_loss")
            return record["state"] != "done", loss is None, loss or 0.0

        return sorted(self.records.values(), key=order)

    def _rows(self) -> list[list[str]]:
        varied = list(self.plan.runs[0].varied)
        rows = [["validation", *varied, "step", "seconds", "state", "run"]]
        for r in self.ranked():
            values = [str(r["options"].get(name, "")) for name in varied]
            facts = [str(r.get("step") or 0), f"{r['seconds']:.1f}", r["state"], r["name"]]
            rows.append([_loss(r), *values, *facts])
        return rows

    def table(self) -> list[str]:
        """Return the results as aligned lines."""
        rows = [row[:-1] for row in self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(map(str.rjust, row, widths)) for row in rows]

    def draw(self) -> str:
        """Draw the curves of the runs into plot.svg; return what to print about it."""
        if not any(self.plan.folder.glob(f"*/{METRICS}")):
            return ""
        try:
            plot(find_runs([self.plan.folder])).save(self.plan.folder / "plot.svg")
        except (MinigradError, OSError) as error:
            return f"; no curves: {one_line(error)}"
        return ", the curves in plot.svg"

    def save(self) -> None:
        """Write results.json and results.csv; each is the old or the new one, never half of it."""
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows(self._rows())
        texts = {
            "results.json": json.dumps(self.ranked(), indent=1),
            "results.csv": table.getvalue(),
        }
        for name, text in texts.items():
            draft = self.plan.folder / f".{name}.new"
            draft.write_text(text, encoding="utf-8")
            os.replace(draft, self.plan.folder / name)


def _loss(record: dict[str, Any]) -> str:
    return "-" if record.get("val_loss") is None else f"{record['val_loss']:.4f}"


COMMAND: Command = Command(
    "sweep", run, "many small training runs, side by side", OPTIONS, DESCRIPTION, EXAMPLES
)
