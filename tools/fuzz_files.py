"""Feed the readers of weight files with inputs that are wrong on purpose.

    python tools/fuzz_files.py --runs 100000 [--seed 0] [--write]        # --write puts the figures
    into docs/reliability.md

Every input begins as a good file and is changed: bytes, the tree of the header, the payloads. Most
are then repaired around the change (lengths, crc32, SHA-256), so that the reader has to find the
change itself. What must hold for every input:

- nothing but FormatError comes out, within a second and 64 times the input's memory (plus 1 MiB);
- a MGRD file that is accepted is the one file that `save` writes for its content, to the byte.

With --atheris the same check of MGRD files runs under coverage guidance (`pip install atheris`),
with libFuzzer's own options:

    python tools/fuzz_files.py --atheris [--write] -max_total_time=300        # or -runs=100000;
    without either, until stopped
"""

import argparse
import collections
import hashlib
import multiprocessing
import os
import random
import struct
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import pages
from wrong_files import Mgrd, bombs, large_seeds, mutated, seeds

from minigrad.errors import FormatError
from minigrad.files import load, load_checkpoint, peek, save, save_checkpoint
from minigrad.files.npz import load_npz
from minigrad.files.safetensors import load_safetensors

PURE = bool(os.environ.get("MSGPACK_PUREPYTHON"))
DECODER = "pure Python" if PURE else "C"
# From here on the memory of an input says something of the 64-fold; below, of the 1 MiB that is
# free
LARGE = 65_536
MEMORY_EVERY = (
    20  # tracing memory is slow: every twentieth of the small inputs, and every large one
)
LARGE_EVERY = 400  # large inputs are slow


class Failure(Exception):
    """An input that broke one of the rules."""


class Target:
    """Reads inputs through the public doors, and judges what comes out."""

    def __init__(self, folder):
        self.path, self.again = folder / "input", folder / "again"
        self.fd = os.open(self.path, os.O_CREAT | os.O_WRONLY)
        self.codes, self.accepted, self.slowest, self.hungriest = collections.Counter(), 0, 0.0, 0.0

    def check(self, format_, content, options):
        """One input: raises Failure, or counts what the reader said."""
        os.pwrite(self.fd, content, 0)
        os.truncate(self.fd, len(content))
        try:
            result = self.read(format_, options)
        except FormatError as error:
            self.codes[f"{format_}: {error.code}"] += 1
            result = None
        except Exception as error:
            raise Failure(f"{type(error).__name__}: {error}") from error
        if result is not None:
            self.accepted += 1
            if format_ == "mgrd":
                self.check_canonical(content, result)

    def read(self, format_, options):
        """What a user would call for such a file."""
        if format_ == "safetensors":
            return self.timed(load_safetensors)
        if format_ == "npz":
            return self.timed(load_npz)
        if self.timed(peek).kind == "checkpoint":
            return self.timed(load_checkpoint)
        return self.timed(load, **options)

    def timed(self, reader, **options):
        """Call a reader. Time counts the processor's, so that other programs on the machine do not,
        and not while memory is traced.
        """
        start = time.process_time()
        try:
            return reader(self.path, **options)
        finally:
            seconds = time.process_time() - start
            if not tracemalloc.is_tracing():
                self.slowest = max(self.slowest, seconds)
                if seconds > 1:
                    raise Failure(f"{reader.__name__} took {seconds:.2f} seconds")

    def check_canonical(self, content, result):
        info = result.info
        if info.version != (1, 0) or info.producer != "minigrad":
            return
        if info.kind == "checkpoint":
            save_checkpoint(self.again, result.weights, result.state, meta=result.meta)
        else:
            save(self.again, result, meta=result.meta)
        if (
            self.again.read_bytes()[:-32] != content[:-32]
        ):  # a wrong SHA-256 passes where it was not asked for
            raise Failure("was accepted, but its content is written to other bytes")

    def check_memory(self, format_, content, options):
        """The same input again, with its memory traced; up to three times, since the interpreter's
        own tables grow now and then.
        """
        peak = self.peak_memory(format_, options)
        for _ in range(2):
            if peak > 64 * len(content) + 2**20:
                peak = min(peak, self.peak_memory(format_, options))
        self.hungriest = (
            max(self.hungriest, peak / len(content)) if len(content) > LARGE else self.hungriest
        )
        if peak > 64 * len(content) + 2**20:
            raise Failure(f"took {peak:,} bytes of memory for an input of {len(content):,}")

    def peak_memory(self, format_, options):
        tracemalloc.start()
        try:
            self.read(format_, options)
        except FormatError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return peak


def fuzz(runs, seed, folder, with_bombs):
    """Run the mutations; returns the Target with its counts, or stops at the first Failure."""
    target, rng = Target(folder), random.Random(seed)
    small, large = (
        [
            (format_, content, Mgrd(content) if format_ == "mgrd" else None)
            for format_, content in found
        ]
        for found in (seeds(folder), large_seeds(folder))
    )
    for format_, content in bombs() if with_bombs else ():
        judge(target, format_, content, {}, memory=True)
    for run in range(runs):
        chosen = (
            rng.choice(large)
            if run % LARGE_EVERY == 0
            else small[rng.choice([0, 0, 0, 1, 2, 3, 3, 3, 4, 5])]
        )
        format_, content = chosen[0], mutated(rng, *chosen)
        options = rng.choice([{}, {}, {"mmap": True}, {"verify": False}])
        judge(
            target,
            format_,
            content,
            options,
            memory=run % MEMORY_EVERY == 0 or len(content) > LARGE,
        )
        if run % 100_000 == 99_999:
            print(f"{run + 1:,} inputs, {target.accepted:,} accepted", flush=True)
    return target


def judge(target, format_, content, options, memory):
    """One input; a failing one is kept in a file."""
    try:
        target.check(format_, content, options)
        if memory:
            target.check_memory(format_, content, options)
    except Failure as failure:
        kept = (
            Path(tempfile.gettempdir())
            / f"fuzz-{hashlib.sha256(content).hexdigest()[:16]}.{format_}"
        )
        kept.write_bytes(content)
        sys.exit(f"FAILURE: {failure}\n  options {options}; the input is kept in {kept}")


def main():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--write", action="store_true", help="write the figures into docs/reliability.md"
    )
    parser.add_argument("--no-bombs", action="store_true", help="leave the few large inputs out")
    parser.add_argument("--atheris", action="store_true", help="guided by coverage, until stopped")
    args, rest = parser.parse_known_args()
    memory_disk = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory_disk) as name:
        if args.atheris:
            return guided(Path(name), rest, args.write)
        start = time.perf_counter()
        target = fuzz(args.runs, args.seed, Path(name), with_bombs=not args.no_bombs)
        seconds = time.perf_counter() - start
    lines = [
        (
            f"{sum(target.codes.values()) + target.accepted:,} inputs (seed {args.seed}, msgpack "
            "in "
            f"{DECODER}) in {seconds:,.0f} s: no failure."
        ),
        f"{sum(target.codes.values()):,} were refused, with {len(target.codes)} different codes; "
        f"{target.accepted:,} were accepted, and each",
        "accepted MGRD file was the very file that `save` writes for its content.",
        f"The slowest input took {target.slowest * 1000:.0f} ms; the hungriest above 64 KiB took "
        f"{target.hungriest:.0f} times its size in memory.",
    ]
    print("\n".join(lines))
    if args.write:
        name = "fuzz_files_pure" if PURE else "fuzz_files"
        title = f"## Fuzzing (msgpack in {DECODER})"
        pages.RELIABILITY.write(name, [title, "", *lines, "", f"{pages.machine()}."])
    return None


def guided(folder, rest, write):
    """The check under atheris, which the user has installed, in a process of its own: libFuzzer
    ends it on the spot, and the folder is to go. Returns the exit code."""
    counts, start = (
        multiprocessing.RawArray("q", 3),
        time.perf_counter(),
    )  # inputs, those accepted, codes: memory that both processes see
    try:
        import atheris
    except ImportError:
        sys.exit("fuzz_files: atheris is not installed: pip install atheris")
    if child := os.fork():
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            tell_guided(*counts, time.perf_counter() - start, write)
        return code
    target, found = (
        Target(folder),
        [content for format_, content in seeds(folder) if format_ == "mgrd"],
    )
    parts, corpus = [Mgrd(content) for content in found], folder / "corpus"
    corpus.mkdir()
    for i, content in enumerate(found):
        (corpus / str(i)).write_bytes(content)

    def mutate(data, max_size, seed):
        """Now and then a change that keeps the structure; otherwise atheris' own, with length and
        sums repaired.
        """
        rng = random.Random(seed)
        if rng.random() < 0.2 or len(data) < 74:
            return rng.choice(parts).mutate(rng)[:max_size]
        raw = bytes(atheris.Mutate(data[32:-42], max(max_size - 74, 1)))
        return (
            Mgrd.join(None, raw[: struct.unpack_from("<I", data, 14)[0]], [])
            if rng.random() < 0.5
            else data[:32] + raw + data[-42:]
        )

    def check(data):
        judge(target, "mgrd", data, {}, memory=False)
        counts[:] = counts[0] + 1, target.accepted, len(target.codes)
        if counts[0] % 100_000 == 0:
            print(
                f"{counts[0]:,} inputs, {target.accepted:,} accepted, {len(target.codes)} codes",
                flush=True,
            )

    atheris.instrument_all()  # the library was imported long before
    atheris.Setup([sys.argv[0], *rest, str(corpus)], check, custom_mutator=mutate)
    return atheris.Fuzz()


def tell_guided(inputs, accepted, codes, seconds, write):
    """The figures of a guided run without a failure, on the terminal and, if asked, the page."""
    lines = [
        (
            f"{inputs:,} MGRD files, changed under the guidance of coverage (atheris, msgpack in "
            f"{DECODER}), in {seconds:,.0f} s: no failure."
        ),
        f"{inputs - accepted:,} were refused, with {codes} different codes; {accepted:,} were "
        "accepted, and each",
        "was the very file that `save` writes for its content.",
    ]
    print("\n".join(lines))
    if write:
        pages.RELIABILITY.write(
            "fuzz_files_guided",
            ["## Fuzzing, guided by coverage", "", *lines, "", f"{pages.machine()}."],
        )


if __name__ == "__main__":
    sys.exit(main())
