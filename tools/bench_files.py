"""Speed of saving and loading against the safetensors library, on the same disk, runs interleaved.

python tools/bench_files.py [--megabytes 500] [--rounds 5] [--folder DIR] [--write]    # --write
puts the figures into docs/reliability.md
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pages

from minigrad.files import save


def touch(megabytes):
    """Make a virtual machine's host give the memory that the next action needs: without it, what
    runs after a large file was freed looks faster.
    """
    np.ones(3 * megabytes * 1_000_000, np.uint8)


def timed(action):
    """Seconds that an action takes by the clock, and seconds of processor time, which other
    programs disturb less.
    """
    start, used = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - start, time.process_time() - used


def timed_in_a_new_process(code):
    """The same, for the first load of a process, as programs do it: their memory is fresh then."""
    setup = (
        "from time import perf_counter, process_time\nfrom minigrad.files import load\nfrom "
        "safetensors.numpy import load_file\n"
    )
    timing = (
        f"start, used = perf_counter(), process_time()\nfound = {code}\nprint(perf_counter() "
        "- start, process_time() - used)"
    )
    done = subprocess.run(
        [sys.executable, "-c", setup + timing], check=True, capture_output=True, text=True
    )
    return tuple(map(float, done.stdout.split()))


def flush(path):
    """What the library leaves to the system, and `save` does not."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def measure(folder, megabytes, rounds):
    """Median (seconds, processor seconds) of every way to save and to load; files are warm in the
    page cache when loaded.
    """
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    tensors = {
        f"h.{i}.weight": rng.integers(0, 2**32, megabytes * 6_250, dtype=np.uint32).view(np.float32)
        for i in range(40)
    }
    ours, theirs = folder / "a.mgrd", folder / "a.safetensors"

    def save_and_flush():
        save_file(tensors, theirs)
        flush(theirs)

    actions = {
        "save": lambda: save(ours, tensors),
        "save, safetensors": lambda: save_file(tensors, theirs),
        "save, safetensors and fsync": save_and_flush,
    }
    loads = {
        "load, crc32": f"load({str(ours)!r}, verify=False)",
        "load, crc32 and SHA-256": f"load({str(ours)!r}, verify=True)",
        "load, safetensors": f"load_file({str(theirs)!r})",
        "mmap one tensor, crc32": f"load({str(ours)!r}, names=['h.20.weight'], mmap=True)",
    }
    seconds = {name: [] for name in [*actions, *loads]}
    for action in actions.values():
        action()  # once before it counts
    for _ in range(rounds):
        for name, action in actions.items():
            touch(megabytes)
            seconds[name].append(timed(action))
        for name, code in loads.items():
            touch(megabytes)
            seconds[name].append(timed_in_a_new_process(code))
    return {
        name: tuple(map(statistics.median, zip(*times, strict=True)))
        for name, times in seconds.items()
    }


def report(found, megabytes, rounds):
    """The section of the page."""
    what = (
        f"A file of {megabytes} MB in 40 float32 tensors, median of {rounds} interleaved "
        "rounds; page cache warm, memory touched before each. "
    )
    what += "Each load is in a new process."
    lines = [
        "## Speed",
        "",
        what,
        "",
        "| what | ms | MB/s | ms of processor time |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {s * 1000:.1f} | {megabytes / s:,.0f} | {cpu * 1000:.0f} |"
        for name, (s, cpu) in found.items()
    ]
    clock = {name: seconds for name, (seconds, _) in found.items()}
    saving, flushed = (
        clock[f"save, safetensors{more}"] / clock["save"] for more in ("", " and fsync")
    )
    crc, sha = (
        clock["load, safetensors"] / clock[f"load, crc32{more}"] for more in ("", " and SHA-256")
    )
    lines += [
        "",
        f"Saving, always with crc32, SHA-256 and both fsyncs, runs at {saving:.2f} of the "
        "library's speed, which leaves the flush to",
        f"the system; at {flushed:.2f} of it with the flush. Loading runs at {crc:.2f} of its "
        f"speed with crc32 and at {sha:.2f} with SHA-256 too.",
        "",
        f"{pages.machine()}, {os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f}.",
    ]
    return lines


def main():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--folder", help="on the disk to measure (default: the system's temporary folder)"
    )
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        lines = report(
            measure(Path(name), args.megabytes, args.rounds), args.megabytes, args.rounds
        )
    print("\n".join(lines))
    if args.write:
        pages.RELIABILITY.write("bench_files", lines)


if __name__ == "__main__":
    main()
