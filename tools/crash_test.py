"""Kill training at random moments, let system calls fail, fill the disk: the run must go on as if
nothing had happened.

    python tools/crash_test.py [--kills 200] [--seed 0] [--write]      # --write puts the counts
    into docs/reliability.md

1. `minigrad train` (dropout on, a checkpoint every 2 steps) is killed by SIGKILL after a random
   time and resumed, until it has been killed that often; every checkpoint must validate, and the
   weights at the end must equal, to the bit, those of a run that was never killed.
2. A checkpoint is saved with the n-th system call of its kind failing, for every n; the old one
    must stay readable, or the new one be whole.
3. The same with a limit on the size of files, and on a small full disk where this user may mount
    one.
"""

import argparse
import contextlib
import errno
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pages

from minigrad.errors import SaveError
from minigrad.files import CheckpointFolder, load, load_checkpoint

CALLS = ["open", "posix_fallocate", "write", "fsync", "close", "replace", "unlink", "fchmod"]
TEXT = "It was the best of times, it was the worst of times; " * 40 + "and so on.\n"


# ---- 1: SIGKILL
# --------------------------------------------------------------------------------------------------
# - -


def command(folder, text, steps):
    """The arguments that start a run."""
    options = (
        f"--text {text} --out {folder} --steps {steps} --n-layer 1 --n-head 2 --n-embd 16 "
        "--block-size 16 --batch-size 2"
    )
    more = "--dropout 0.2 --eval-interval 50 --save-interval 2 --sample 0 --seed 5"
    return [*minigrad(), *options.split(), *more.split()]


def minigrad():
    return [sys.executable, "-m", "minigrad", "train"]


def start(arguments):
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def identity(folder):
    """The SHA-256 of the weights of a finished run, without the meta, which names the folder."""
    loaded = load(folder / "model.mgrd")
    return (
        [(name, array.tobytes()) for name, array in loaded.items()],
        loaded.meta["run"]["step"],
        loaded.meta["run"]["val_loss"],
    )


def kill_often(kills, seed, work):
    """Kill and resume until `kills` are done, over as many runs as that takes; returns the counts
    for the page.
    """
    rng, text, steps = random.Random(seed), work / "text.txt", 100
    text.write_text(TEXT)
    runs, done, left = 0, 0, set()
    subprocess.run(command(work / "whole", text, steps), check=True, stdout=subprocess.DEVNULL)
    whole = identity(work / "whole")
    while done < kills:
        folder = work / f"run-{runs}"
        arguments = command(folder, text, steps)
        while True:
            process = start(arguments)
            code = live(process, folder, rng, steps) if done < kills else process.wait()
            if code is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
                process.stderr.close()
                done += 1
                left |= set(
                    folder.rglob(".minigrad-*.tmp")
                )  # each has a name of its own, so none is counted twice
                check_after_kill(folder)
            elif is_over(process, code):
                break
            resumable = any(folder.glob("checkpoints/step-*"))
            arguments = (
                [*minigrad(), "--resume", str(folder)]
                if resumable
                else command(folder, text, steps)
            )
        runs += 1
        if identity(folder) != whole:
            sys.exit(
                f"FAILURE: the weights of {folder} differ from those of the run that was never "
                "killed"
            )
        if still := list(folder.rglob(".minigrad-*.tmp")):
            sys.exit(f"FAILURE: the run is over and {still[0]} is still there")
        print(f"{done} kills, {runs} runs finished, all equal", flush=True)
    return done, runs, len(left)


def is_over(process, code):
    """True for a run that has come to its end, also if that was before the last kill."""
    complaint = process.stderr.read()
    process.stderr.close()
    if code != 0 and "is complete" not in complaint:
        sys.exit(f"FAILURE: a run ended with exit code {code}: {complaint}")
    return True


def live(process, folder, rng, steps):
    """Let a run live for a random time: its exit code, or None if it is to be killed now. A fifth
    of them die during start-up, a third at the end, when the last checkpoint is there and the model
    that belongs to it perhaps not."""
    moment = rng.random()
    if moment < 0.2:
        return wait(process, rng.uniform(0, 1))
    seen, last = (
        set(folder.glob("checkpoints/step-*")),
        folder / f"checkpoints/step-{steps:08d}.mgrd",
    )
    at_the_end = moment < 0.53
    while process.poll() is None and not (
        last.exists() if at_the_end else set(folder.glob("checkpoints/step-*")) != seen
    ):
        time.sleep(0.0005 if at_the_end else 0.002)
    return wait(process, rng.uniform(0, 0.02 if at_the_end else 0.2))


def wait(process, seconds):
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None


def check_after_kill(folder):
    """Every checkpoint of the folder must be whole: a rename either happened or not."""
    for path in sorted(folder.glob("checkpoints/step-*.mgrd")):
        load_checkpoint(path, verify=True)


# ---- 2: every n-th system call fails
# -------------------------------------------------------------------------------


class Fault:
    """While open, the n-th call of one kind fails."""

    def __init__(self, name, n):
        self.name, self.n, self.count, self.real = name, n, 0, getattr(os, name)

    def __enter__(self):
        setattr(os, self.name, self.call)
        return self

    def __exit__(self, *_):
        setattr(os, self.name, self.real)

    def call(self, *args, **options):
        self.count += 1
        if self.count == self.n:
            if self.name == "close":
                self.real(*args)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self.real(*args, **options)


def fail_every_call(work):
    """Save over an older checkpoint with every n-th call of every kind failing; returns how many
    faults there were.
    """
    faults = 0
    for name in CALLS:
        n = 0
        while True:
            n += 1
            folder = CheckpointFolder(work / f"{name}-{n}", keep=1)
            with folder:
                save_step(folder, 1)
                with Fault(name, n) as fault, contextlib.suppress(SaveError, OSError):
                    save_step(folder, 2)
                found = folder.load_latest()
                if found is None or found.weights["w"][0] != found.state["step"]:
                    sys.exit(f"FAILURE: no good checkpoint after {name} number {n} failed")
            if fault.count < n:
                break
            faults += 1
    return faults


def save_step(folder, step, size=1000):
    folder.save(
        step, {"w": np.full(size, float(step))}, {"step": step, "m": np.ones(3)}, metric=1.0 / step
    )


# ---- 3: full disks
# -------------------------------------------------------------------------------------------------


def fill_the_disk(work):
    """Save more than fits, under a limit and on a small disk; returns what was tried."""
    tried = []
    with CheckpointFolder(work / "limit", keep=1) as folder:
        save_step(folder, 1)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
        expect_full(folder, "RLIMIT_FSIZE")
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        tried.append("a limit on the size of files")
    disk = work / "disk"
    disk.mkdir()
    if (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True
        ).returncode
        == 0
    ):
        try:
            with CheckpointFolder(disk, keep=1) as folder:
                save_step(folder, 1)
                expect_full(folder, "a full disk")
            tried.append("a disk of 256 KiB")
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    return tried


def expect_full(folder, what):
    try:
        save_step(folder, 2, size=1_000_000)
    except SaveError as error:
        if error.errno in (errno.ENOSPC, errno.EFBIG) and folder.load_latest().state["step"] == 1:
            return
    sys.exit(f"FAILURE: {what} was not survived")


def main():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--write", action="store_true", help="write the counts into docs/reliability.md"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        faults = fail_every_call(work)
        tried = fill_the_disk(work)
        done, runs, leftovers = kill_often(args.kills, args.seed, work) if args.kills else (0, 0, 0)
    lines = [
        (
            f"{done} SIGKILLs at random moments of `minigrad train`, with dropout, over {runs} "
            "runs "
            f"(seed {args.seed}): after each, every checkpoint"
        ),
        "was whole, and each run ended with the weights, to the bit, of the one that was never "
        "killed. A third of the kills were aimed at",
        f"the end of a run. {leftovers} temporaries were left; none was there when its run was "
        "over.",
        f"{faults} system calls made to fail ({', '.join(CALLS)}; every n-th of each): a good "
        "checkpoint was always there.",
        f"Full disks survived: {', '.join(tried)}.",
    ]
    print("\n".join(lines))
    if args.write:
        pages.RELIABILITY.write("crash_test", ["## Crashes", "", *lines, "", f"{pages.machine()}."])


if __name__ == "__main__":
    main()
