"""`minigrad sweep`: real runs side by side, what becomes of them when some fail or all are stopped,
and which settings it refuses.
"""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import minigrad
from minigrad.cli.sweep import JOURNAL, Sweep, _Lock
from minigrad.cli.sweep_plan import Plan, read_plan
from minigrad.errors import ConfigError
from tests.commands.home import ENVIRONMENT, TEXT, command, good, refused, run

optuna = pytest.importorskip("optuna")

CONFIG = """
out = "out"
halving = {halving}
[train]
text = "text.txt"
steps = {steps}
n-layer = 1
n_embd = 16
n_head = 2
block_size = 16
batch_size = 4
{more}
[sweep]
lr = {lr}
seed = [0, 1]
"""


def folder_with(
    path: Path, lr: str = "[1e-4, 1e-2]", steps: int = 30, halving: int = 1, more: str = ""
) -> Path:
    (path / "text.txt").write_text(TEXT * 10)
    (path / "sweep.toml").write_text(CONFIG.format(lr=lr, steps=steps, halving=halving, more=more))
    return path


def study(folder: Path) -> list[tuple]:
    """The trials of the sweep in the folder."""
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "out" / JOURNAL))
    plan = read_plan(str(folder / "sweep.toml"))
    found = optuna.load_study(study_name=plan.name, storage=optuna.storages.JournalStorage(backend))
    return [(t.params, t.state.name, t.intermediate_values, t.value) for t in found.trials]


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "out" / "results.csv") as file:
        return list(csv.DictReader(file))


def test_every_combination_is_trained_as_minigrad_train_would_and_listed_best_first(
    tmp_path: Path,
) -> None:
    folder = folder_with(tmp_path)
    output = good("sweep", "sweep.toml", folder=folder)
    found = study(folder)
    assert {(params["lr"], params["seed"]) for params, *_ in found} == {
        (lr, seed) for lr in (1e-4, 1e-2) for seed in (0, 1)
    }
    assert all(state == "COMPLETE" and set(at) == {30} for _, state, at, _ in found)
    losses = sorted(value for *_, value in found)
    table = rows(folder)
    assert [row["validation"] for row in table] == [f"{loss:.4f}" for loss in losses]
    assert table[0]["lr"] == "0.01"  # 30 steps of 1e-4 lead nowhere
    lines = output[output.index("validation  ") :].splitlines()
    assert lines[1].split()[0] == f"{losses[0]:.4f}"

    by_hand = good("sweep", "sweep.toml", "--dry-run", folder=folder).splitlines()[0]
    by_hand = by_hand.replace("out/lr", "alone/lr").split()
    assert run(*by_hand[1:], folder=folder).returncode == 0  # a process of one thread, too
    name = "lr=0.0001,seed=0/model.mgrd"
    assert (folder / "alone" / name).read_bytes() == (folder / "out" / name).read_bytes()


def test_runs_are_taken_from_their_folders_and_other_options_are_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, lr="[1e-3]", steps=10)
    good("sweep", "sweep.toml", folder=folder)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("out/*/model.mgrd")}
    folder_with(tmp_path, lr="[1e-3, 1e-2]", steps=10)
    output = good("sweep", "sweep.toml", "--jobs", "1", folder=folder)
    assert output.count(": starts") == 2
    assert len(list(folder.glob("out/*/model.mgrd"))) == 4
    wanted = study(folder)
    (folder / "out" / JOURNAL).unlink()  # the folders of the runs know it too
    again = good("sweep", "sweep.toml", folder=folder)
    assert "starts" not in again and "waiting" not in again
    assert study(folder) == wanted and len(wanted) == 4
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert "4 of them done" in good("sweep", "sweep.toml", folder=folder)
    folder_with(tmp_path, lr="[1e-3, 1e-2]", steps=20)
    assert "steps was 10 and is 20" in run("sweep", "sweep.toml", folder=folder).stderr


def test_a_run_that_fails_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, lr="[1e30, 1e-3]", steps=10)
    done = run("sweep", "sweep.toml", folder=folder)
    assert done.returncode == 1 and done.stderr == ""
    states = {(params["lr"], state) for params, state, *_ in study(folder)}
    assert states == {(1e30, "FAIL"), (1e-3, "COMPLETE")}
    assert "lr=1e+30,seed=0: failed: " in done.stdout and "smaller learning rate" in done.stdout
    assert [row["state"] for row in rows(folder)] == ["done", "done", "failed", "failed"]
    assert f"remove {Path('out', JOURNAL)}" in done.stdout


def test_a_damaged_journal_is_named_and_can_be_removed(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, lr="[1e-3]", steps=5)
    good("sweep", "sweep.toml", folder=folder)
    journal = folder / "out" / JOURNAL
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([*lines[:-2], lines[-2][:40] + lines[-1]]) + lines[-1])
    said = refused("sweep", "sweep.toml", folder=folder)
    assert f"{Path('out', JOURNAL)} is damaged; remove it and call again" in said
    journal.unlink()
    assert "starts" not in good("sweep", "sweep.toml", folder=folder)


def test_workers_that_a_launcher_started_are_not_ranks(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, lr="[1e-3]", steps=5)
    facts = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
    done = subprocess.run(
        command("sweep", "sweep.toml"),
        cwd=folder,
        env={**ENVIRONMENT, **facts},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_halving_pauses_runs_and_ends_alike_for_two_workers_that_were_killed(
    tmp_path: Path,
) -> None:
    (tmp_path / "alone").mkdir(), (tmp_path / "killed").mkdir()
    settings = {"lr": "[1e-4, 1e-2]", "steps": 40, "halving": 2}
    alone = folder_with(tmp_path / "alone", **settings)
    killed = folder_with(tmp_path / "killed", **settings)
    good("sweep", "sweep.toml", folder=alone)
    wanted = study(alone)
    assert [state for _, state, *_ in wanted].count("COMPLETE") == 1
    steps = sum(max(at) for _, _, at, _ in wanted)
    assert steps == 40 + 20 + 2 * 10 <= 4 * 40 / 2
    best = min((value, params["lr"]) for params, state, _, value in wanted if state == "COMPLETE")
    assert best[1] == 1e-2

    def workers() -> list[subprocess.Popen]:
        line = command("sweep", "sweep.toml", "--jobs", "1")
        facts = {"cwd": killed, "env": ENVIRONMENT, "stdout": subprocess.DEVNULL}
        return [subprocess.Popen(line, **facts) for _ in range(2)]

    for kind, reached in ((signal.SIGKILL, 1), (signal.SIGTERM, 3)):
        running = workers()
        end = time.monotonic() + 300
        while len(list(killed.glob("out/*/metrics.jsonl"))) < reached:
            assert time.monotonic() < end
            time.sleep(0.02)
        for process in running:
            process.send_signal(kind)
        for process in running:
            process.wait(timeout=300)
    assert [process.wait(timeout=300) for process in workers()] == [0, 0]
    assert study(killed) == wanted
    for one, other in zip(
        sorted(alone.glob("out/*/model.mgrd")), sorted(killed.glob("out/*/model.mgrd")), strict=True
    ):
        assert one.read_bytes() == other.read_bytes()


def children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for children in /proc")
def test_ctrl_c_stops_all_runs_cleanly_and_the_next_call_resumes_them(tmp_path: Path) -> None:
    never = {"steps": 1_000_000, "more": "save-interval = 50"}  # more steps than are ever made
    folder = folder_with(tmp_path, lr="[1e-3]", **never)
    environment = {**ENVIRONMENT, "OPENBLAS_NUM_THREADS": "2", "MINIGRAD_THREADS": "2"}

    def stopped_when(reached: Callable[[str], bool]) -> str:
        """What a sweep printed that was stopped by Ctrl-C once its two runs had come so far."""
        lines, log = command("sweep", "sweep.toml", "--jobs", "2"), folder / "log.txt"
        with open(log, "w") as to:
            sweep = subprocess.Popen(
                lines, cwd=folder, env=environment, stdout=to, stderr=subprocess.STDOUT
            )
        try:
            end = time.monotonic() + 300
            while not reached(log.read_text()):
                assert time.monotonic() < end and sweep.poll() is None
                time.sleep(0.1)
            pids = children(sweep.pid)
            assert len(pids) == 2
            for pid in pids:  # a session each: a terminal's Ctrl-C comes once, from the sweep
                assert os.getsid(pid) == pid
                given = Path(f"/proc/{pid}/environ").read_text().split("\0")
                assert "OPENBLAS_NUM_THREADS=1" in given and "MINIGRAD_THREADS=1" in given
        finally:
            sweep.send_signal(signal.SIGINT)
            code = sweep.wait(timeout=300)
        assert code == 130
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        return log.read_text()

    def steps() -> list[int]:
        saved = [path.glob("checkpoints/*.mgrd") for path in sorted(folder.glob("out/lr*"))]
        return [max((int(p.stem.split("-")[1]) for p in paths), default=0) for paths in saved]

    output = stopped_when(lambda _: len(steps()) == 2 and min(steps()) > 0)
    assert "continue with:  minigrad sweep sweep.toml" in output and "Traceback" not in output
    assert all(state == "RUNNING" and not at for _, state, at, _ in study(folder))
    before = steps()
    output = stopped_when(
        lambda text: text.count(": goes on") == 2 and min(map(int.__sub__, steps(), before)) > 0
    )
    assert ": starts" not in output and "Traceback" not in output


def test_runs_are_saved_where_ctrl_c_also_ends_what_reads_the_sweep(tmp_path: Path) -> None:
    """As in `minigrad sweep sweep.toml | tee log`."""
    folder = folder_with(tmp_path, lr="[1e-3]", steps=1_000_000)
    call = command("sweep", "sweep.toml", "--jobs", "1")
    with subprocess.Popen(call, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE) as sweep:
        assert sweep.stdout is not None
        end = time.monotonic() + 300
        while not list(folder.glob("out/lr*/checkpoints/*.mgrd")):
            assert time.monotonic() < end and sweep.poll() is None
            time.sleep(0.1)
        sweep.stdout.close()
        sweep.send_signal(signal.SIGINT)
        assert sweep.wait(300) == 1
    (log,) = folder.glob("out/lr*/log.txt")
    assert "; saved. Continue:" in log.read_text()


def test_a_run_that_is_stopped_while_its_python_starts_has_not_failed(tmp_path: Path) -> None:
    """Python ends with 1 where Ctrl-C comes before its own start is over."""
    folder, waiting = folder_with(tmp_path, lr="[1e-3]", steps=10), tmp_path / "waiting"
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib, sys, time\n"
        "if any(part.startswith('--stop-at') for part in sys.orig_argv):\n"
        f"    pathlib.Path({str(waiting)!r}).touch()\n"
        "    time.sleep(300)\n"
    )
    path = os.pathsep.join([str(tmp_path), ENVIRONMENT.get("PYTHONPATH", "")])
    sweep = subprocess.Popen(
        command("sweep", "sweep.toml", "--jobs", "1"),
        cwd=folder,
        env={**ENVIRONMENT, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 300
    while not waiting.exists():
        assert time.monotonic() < end and sweep.poll() is None
        time.sleep(0.05)
    sweep.send_signal(signal.SIGINT)
    output = sweep.communicate(timeout=300)[0]
    assert sweep.returncode == 130 and "seed=0: stopped" in output, output
    assert "init_import_site" in (folder / "out" / "lr=0.001,seed=0" / "log.txt").read_text()
    assert [state for _, state, *_ in study(folder)] == ["RUNNING"] * 2
    assert "2 of them done" not in output and "seed=0: starts" in good(
        "sweep", "sweep.toml", folder=folder
    )


def test_a_lock_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os; from minigrad.cli.sweep import _Lock\n"
        f"_Lock({str(tmp_path / 'lock')!r}).acquire(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT)
    assert done.returncode == -signal.SIGKILL
    with _Lock(tmp_path / "lock"):
        pass


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, lr="[1e-3]", steps=40)
    good("sweep", "sweep.toml", folder=folder)
    wanted = (folder / "out" / "lr=0.001,seed=0" / "model.mgrd").read_bytes()
    one = folder / "out" / "lr=0.001,seed=0"
    for path in sorted((one / "checkpoints").glob("*.mgrd"))[1:]:  # back to where it was stopped
        path.unlink()
    for path in (one / "model.mgrd", one / "metrics.jsonl", folder / "out" / JOURNAL):
        path.unlink()
    output = good("sweep", "sweep.toml", folder=folder)
    assert "lr=0.001,seed=0: goes on" in output and "seed=1: " not in output
    assert minigrad.files.peek(one / "model.mgrd").meta["run"]["step"] == 40
    assert (one / "model.mgrd").read_bytes() == wanted


def test_curves_and_settings_are_drawn_and_a_spoilt_record_costs_only_the_pictures(
    tmp_path: Path,
) -> None:
    pytest.importorskip("matplotlib")
    folder = folder_with(tmp_path, lr="[1e-3]", steps=10)
    assert "the curves in plot.svg" in good("sweep", "sweep.toml", folder=folder)
    picture = (folder / "out" / "plot.svg").read_text()
    assert "<svg" in picture and all(f"seed={seed}" in picture for seed in (0, 1))
    assert "<svg" in (folder / "out" / "parallel.svg").read_text()
    (folder / "out" / "lr=0.001,seed=0" / "metrics.jsonl").write_text("nonsense\n")
    assert "no curves: " in good("sweep", "sweep.toml", folder=folder)


def test_without_optuna_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install 'minigrad[sweep]'" in refused(
        "sweep", "sweep.toml", folder=folder_with(tmp_path)
    )


def plan_of(folder: Path, text: str) -> Plan:
    (folder / "plan.toml").write_text(text)
    return read_plan(str(folder / "plan.toml"))


def points(folder: Path, text: str) -> list[dict]:
    """The settings that a sweep draws first."""
    sweep = Sweep(plan_of(folder, text), optuna.storages.InMemoryStorage())
    return [trial.params for trial, _ in sweep.moves()]


def test_a_random_search_stays_in_its_ranges_and_more_runs_begin_with_the_same(
    tmp_path: Path,
) -> None:
    text = (
        'search = "random"\nruns = {}\nseed = {}\n[sweep]\nlr = {{ low = 1e-4, high = 1e-2, log = '
        "true }}\n"
        "n_layer = {{ low = 1, high = 3 }}\ndropout = [0.0, 0.1]\n"
    )
    few, many, other = (points(tmp_path, text.format(*x)) for x in ((5, 1), (60, 1), (5, 200)))
    assert many[:5] == few and few != other and len(many) == 60
    assert all(1e-4 <= p["lr"] <= 1e-2 for p in many) and {p["n_layer"] for p in many} == {1, 2, 3}
    assert 15 < sum(p["lr"] < 1e-3 for p in many) < 45  # half of the logarithms
    assert {p["dropout"] for p in many} == {0.0, 0.1}


def test_tpe_draws_a_round_where_the_rounds_before_were_good(tmp_path: Path) -> None:
    text = (
        'search = "tpe"\nruns = 40\nround = 10\nhalving = 3\n[train]\nsteps = 90\n'
        "[sweep]\nlr = { low = 1e-4, high = 1.0, log = true }\n"
    )

    def searched() -> list[float]:
        sweep = Sweep(plan_of(tmp_path, text), optuna.storages.InMemoryStorage())
        while moves := sweep.moves():
            for trial, step in moves:  # a loss that is lowest at lr = 1e-2
                loss = abs(np.log10(trial.params["lr"]) + 2) + 1 / step
                sweep.storage.set_trial_intermediate_value(trial._trial_id, step, float(loss))
        assert [t.state.name for t in sweep.trials()].count("COMPLETE") == 4 * 2
        return [abs(np.log10(trial.params["lr"]) + 2) for trial in sweep.trials()]

    distances = searched()
    assert len(distances) == 40 and np.mean(distances[20:]) < 0.75 * np.mean(distances[:10])
    assert searched() == distances


def test_the_rungs_divide_the_steps_by_the_share_that_goes_on(tmp_path: Path) -> None:
    def rungs(train: str, halving: int, runs: int = 24) -> list[int]:
        values = [*range(runs)]
        head = f"halving = {halving}\n[train]\n{train}\n[sweep]\nseed = {values}"
        return plan_of(tmp_path, head).rungs({"seed": 0})

    assert rungs("steps = 90", 3) == [10, 30, 90]
    assert rungs("steps = 100", 3) == [12, 36, 100]
    assert rungs("steps = 96", 2) == [6, 12, 24, 48, 96]
    assert rungs("steps = 90\neval_interval = 20", 3) == [20, 60, 90]
    assert rungs("steps = 5", 3) == [1, 3, 5]
    assert rungs("steps = 90", 1) == [90]
    assert rungs("steps = 90", 3, runs=2) == [90]


def test_a_switch_is_a_truth_value(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "[train]\njit = false\n[sweep]\nlr = [0.1]\n")
    assert "--set=jit=false" in plan.arguments({"lr": 0.1})


def test_names_tell_the_values_and_stay_apart(tmp_path: Path) -> None:
    text = '[sweep]\ntext = ["a/b.txt", "a-b.txt"]\nlr = [0.1, 1e-4]\n'
    plan = plan_of(tmp_path, text)
    names = [plan.folder_of(point).name for point in points(tmp_path, text)]
    assert (
        len(set(names)) == 4
        and all("/" not in name for name in names)
        and "text=a-b.txt,lr=0.1" in names
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nonsense", "is not TOML"),
        ("", "varies nothing"),
        ("[sweep]\nlr = 3", "a list of values"),
        ("[sweep]\nlr = []", "a list of values"),
        ("[sweep]\nlrr = [1]", "unknown option 'lrr'; did you mean lr?"),
        ('[sweep]\nlr = ["x"]', "lr = 'x': 'x' is not a number"),
        ("[train]\nout = 'x'\n[sweep]\nlr = [1]", "has out, which a sweep decides"),
        ("[train]\nlr = 1\n[sweep]\nlr = [1]", "both in"),
        ("jobs = 3\n[sweep]\nlr = [1]", "unknown option 'jobs'"),
        ('search = "best"\n[sweep]\nlr = [1]', "search = 'best'"),
        ("[sweep]\nlr = [0.1, 0.1]", "has a value twice"),
        ("runs = 3\n[sweep]\nlr = [1]", "has no use with search"),
        ("train = 3\n[sweep]\nlr = [1]", "is not a table"),
        ('search = "random"\n[sweep]\nlr = { low = 2, high = 1 }', "low = 1e-4"),
        ('search = "random"\n[sweep]\nlr = { low = 0, high = 1, log = true }', "low = 1e-4"),
        ('search = "random"\nruns = 0\n[sweep]\nlr = [1]', "runs = 0"),
        ('search = "random"\nround = 3\n[sweep]\nlr = [1]', "round = 3 has no use"),
        ("halving = 0\n[sweep]\nlr = [1]", "halving = 0"),
        ("halving = 2\n[sweep]\nsteps = [1, 2]", "steps varies"),
        ("[train]\nminutes = 1\n[sweep]\nlr = [1]", "has minutes, which a sweep decides"),
        ('out = ""\n[sweep]\nlr = [1]', "out = ''"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of(tmp_path, text)
    assert (
        caught.value.call == "sweep" and expected in f"{caught.value.problem}; {caught.value.hint}"
    )


def test_bad_input_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[sweep]\nlr = [-1]\n")
    assert "lr = -1: '-1' is not a number" in refused("sweep", "bad.toml", folder=tmp_path)
    assert "nowhere.toml" in refused("sweep", "nowhere.toml", folder=tmp_path)
    folder_with(tmp_path)
    assert "argument --jobs" in refused("sweep", "sweep.toml", "--jobs", "0", folder=tmp_path)
    assert "so --jobs has no use" in refused(
        "sweep", "sweep.toml", "--jobs", "2", "--dry-run", folder=tmp_path
    )
