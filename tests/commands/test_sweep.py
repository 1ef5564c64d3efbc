"""`minigrad sweep`: real runs side by side, what becomes of them when some fail or all are stopped,
and which settings it refuses.
"""

import csv
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

import minigrad
from minigrad.cli.sweep_plan import parse, read_plan
from minigrad.errors import ConfigError
from tests.commands.home import ENVIRONMENT, TEXT, command, good, refused, run

CONFIG = """
out = "out"
[train]
text = "text.txt"
steps = {steps}
eval-interval = 10
n-layer = 1
n_embd = 16
n_head = 2
block_size = 16
batch_size = 4
[sweep]
lr = {lr}
seed = [0, 1]
"""


def folder_with(path: Path, lr: str = "[1e-4, 1e-2]", steps: int = 30) -> Path:
    (path / "text.txt").write_text(TEXT * 10)
    (path / "sweep.toml").write_text(CONFIG.format(lr=lr, steps=steps))
    return path


def results(folder: Path) -> list[dict]:
    return json.loads((folder / "out" / "results.json").read_text())


def test_every_combination_is_trained_as_minigrad_train_would_and_told_best_first(
    tmp_path: Path,
) -> None:
    folder = folder_with(tmp_path)
    output = good("sweep", "sweep.toml", folder=folder)
    found = results(folder)
    assert {(r["options"]["lr"], r["options"]["seed"]) for r in found} == {
        (lr, seed) for lr in (1e-4, 1e-2) for seed in (0, 1)
    }
    losses = [r["val_loss"] for r in found]
    assert losses == sorted(losses) and all(r["state"] == "done" and r["step"] == 30 for r in found)
    assert found[0]["options"]["lr"] == 1e-2  # 30 steps of 1e-4 lead nowhere
    with open(folder / "out" / "results.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["validation"] for row in rows] == [f"{loss:.4f}" for loss in losses]
    assert [row["lr"] for row in rows] == [str(r["options"]["lr"]) for r in found]
    table = output[output.index("validation  ") :].splitlines()
    assert table[1].split()[0] == f"{losses[0]:.4f}"

    by_hand = (
        good("sweep", "sweep.toml", "--dry-run", folder=folder)
        .splitlines()[0]
        .replace("out/lr", "alone/lr")
        .split()
    )
    assert run(*by_hand[1:], folder=folder).returncode == 0  # a process of one thread, too
    name = "lr=0.0001,seed=0/model.mgrd"
    assert (folder / "alone" / name).read_bytes() == (folder / "out" / name).read_bytes()


def test_what_is_done_is_left_alone_and_more_values_add_runs(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, lr="[1e-3]", steps=10)
    good("sweep", "sweep.toml", folder=folder)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("out/*/model.mgrd")}
    folder_with(tmp_path, lr="[1e-3, 1e-2]", steps=10)
    assert "4 runs in out, 2 of them done" in good(
        "sweep", "sweep.toml", "--jobs", "1", folder=folder
    )
    assert len(list(folder.glob("out/*/model.mgrd"))) == 4
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    (folder / "out" / "results.json").unlink()  # the weight files know it too
    assert "4 of them done" in good("sweep", "sweep.toml", folder=folder)
    folder_with(tmp_path, lr="[1e-3, 1e-2]", steps=20)
    assert "steps was 10 and is 20" in refused("sweep", "sweep.toml", folder=folder)
    (folder / "out" / "results.json").unlink()
    assert "steps was 10 and is 20" in refused("sweep", "sweep.toml", folder=folder)


def test_a_run_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, lr="[1e30, 1e-3]", steps=10)
    done = run("sweep", "sweep.toml", folder=folder)
    assert done.returncode == 1 and done.stderr == ""
    states = {(r["options"]["lr"], r["state"]) for r in results(folder)}
    assert states == {(1e30, "failed"), (1e-3, "done")}
    assert "lr=1e+30,seed=0: failed: " in done.stdout and "smaller learning rate" in done.stdout
    assert [r["state"] for r in results(folder)] == ["done", "done", "failed", "failed"]


def children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for children in /proc")
def test_ctrl_c_stops_all_runs_cleanly_and_the_next_call_resumes_them(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, lr="[1e-3]", steps=400)
    environment = {**ENVIRONMENT, "OPENBLAS_NUM_THREADS": "2", "MINIGRAD_THREADS": "2"}
    with subprocess.Popen(
        command("sweep", "sweep.toml", "--jobs", "2"),
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as sweep:
        end = time.monotonic() + 300
        while len(list(folder.glob("out/*/checkpoints/*.mgrd"))) < 4:  # two of each
            assert time.monotonic() < end and sweep.poll() is None
            time.sleep(0.1)
        pids = children(sweep.pid)
        assert len(pids) == 2
        for pid in pids:
            assert (
                os.getsid(pid) == pid
            )  # so that a terminal's Ctrl-C comes to them once, from the sweep
            given = Path(f"/proc/{pid}/environ").read_text().split("\0")
            assert "OPENBLAS_NUM_THREADS=1" in given and "MINIGRAD_THREADS=1" in given
        sweep.send_signal(signal.SIGINT)
        output, complaints = sweep.communicate(timeout=300)
    assert (
        sweep.returncode == 130
        and complaints == ""
        and "continue with:  minigrad sweep sweep.toml" in output
    )
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert all(r["state"] == "stopped" and 0 < r["step"] < 400 for r in results(folder))
    output = good("sweep", "sweep.toml", folder=folder)
    assert output.count(": goes on") == 2 and ": starts" not in output
    assert all(r["state"] == "done" and r["step"] == 400 for r in results(folder))


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, lr="[1e-3]", steps=40)
    good("sweep", "sweep.toml", folder=folder)
    wanted = (folder / "out" / "lr=0.001,seed=0" / "model.mgrd").read_bytes()
    one = folder / "out" / "lr=0.001,seed=0"
    for path in sorted((one / "checkpoints").glob("*.mgrd"))[1:]:  # back to where it was stopped
        path.unlink()
    (one / "model.mgrd").unlink()
    (folder / "out" / "results.json").unlink()
    output = good("sweep", "sweep.toml", folder=folder)
    assert "lr=0.001,seed=0: goes on" in output and "seed=1: " not in output
    assert minigrad.files.peek(one / "model.mgrd").meta["run"]["step"] == 40
    assert (one / "model.mgrd").read_bytes() == wanted


def test_the_curves_of_all_runs_are_drawn_and_a_spoilt_record_costs_only_the_picture(
    tmp_path: Path,
) -> None:
    pytest.importorskip("matplotlib")
    folder = folder_with(tmp_path, lr="[1e-3]", steps=10)
    good("sweep", "sweep.toml", folder=folder)
    for seed in (0, 1):
        lines = "".join(f'{{"step": {step}, "loss": {3 / step}}}\n' for step in range(1, 11))
        (folder / "out" / f"lr=0.001,seed={seed}" / "metrics.jsonl").write_text(lines)
    assert "the curves in plot.svg" in good("sweep", "sweep.toml", folder=folder)
    picture = (folder / "out" / "plot.svg").read_text()
    assert "<svg" in picture and all(f"seed={seed}" in picture for seed in (0, 1))
    (folder / "out" / "lr=0.001,seed=0" / "metrics.jsonl").write_text("nonsense\n")
    assert "no curves: " in good("sweep", "sweep.toml", folder=folder)


def plan_of(folder: Path, text: str) -> list[dict]:
    (folder / "plan.toml").write_text(text)
    return [one.varied for one in read_plan(str(folder / "plan.toml")).runs]


def test_a_random_search_stays_in_its_ranges_and_more_runs_begin_with_the_same(
    tmp_path: Path,
) -> None:
    text = (
        'search = "random"\nruns = {}\nseed = {}\n[sweep]\nlr = {{ low = 1e-4, high = 1e-2, log = '
        "true }}\n"
        "n_layer = {{ low = 1, high = 3 }}\ndropout = [0.0, 0.1]\n"
    )
    few, many, other = (plan_of(tmp_path, text.format(*x)) for x in ((5, 1), (60, 1), (5, 2)))
    assert many[:5] == few and few != other and len(many) == 60
    assert all(1e-4 <= p["lr"] <= 1e-2 for p in many) and {p["n_layer"] for p in many} == {1, 2, 3}
    assert 15 < sum(p["lr"] < 1e-3 for p in many) < 45  # half of the logarithms
    assert {p["dropout"] for p in many} == {0.0, 0.1}
    assert (
        len(plan_of(tmp_path, 'search = "random"\nruns = 9\n[sweep]\nseed = [1, 2]\n')) == 2
    )  # there are no more


def test_a_switch_is_a_truth_value(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text("[train]\njit = false\n[sweep]\nlr = [0.1]\n")
    assert not parse(read_plan(str(tmp_path / "plan.toml")).runs[0]).jit


def test_names_tell_the_values_and_stay_apart(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(
        '[sweep]\ntext = ["a/b.txt", "a-b.txt"]\nlr = [0.1, 1e-4]\n'
    )
    names = [one.name for one in read_plan(str(tmp_path / "plan.toml")).runs]
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
        ("[sweep]\nlrr = [1]", "unknown option 'lrr'; did you mean 'lr'?"),
        ('[sweep]\nlr = ["x"]', "lr = 'x': 'x' is not a number"),
        ("[train]\nout = 'x'\n[sweep]\nlr = [1]", "has out, which a sweep decides"),
        ("[train]\nlr = 1\n[sweep]\nlr = [1]", "both in"),
        ("jobs = 3\n[sweep]\nlr = [1]", "'jobs' outside"),
        ('search = "best"\n[sweep]\nlr = [1]', "search = 'best'"),
        ("[sweep]\nlr = [0.1, 0.1]", "has a value twice"),
        ("runs = 3\n[sweep]\nlr = [1]", "no use in a grid"),
        ("train = 3\n[sweep]\nlr = [1]", "is not a table"),
        ('search = "random"\n[sweep]\nlr = { low = 2, high = 1 }', "low = 1e-4"),
        ('search = "random"\n[sweep]\nlr = { low = 0, high = 1, log = true }', "low = 1e-4"),
        ('search = "random"\nruns = 0\n[sweep]\nlr = [1]', "runs = 0"),
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
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.json").write_text("{]")
    assert "not what a sweep has written" in refused("sweep", "sweep.toml", folder=tmp_path)
    assert "argument --jobs" in refused("sweep", "sweep.toml", "--jobs", "0", folder=tmp_path)
    assert "so --jobs has no use" in refused(
        "sweep", "sweep.toml", "--jobs", "2", "--dry-run", folder=tmp_path
    )
