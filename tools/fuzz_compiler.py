"""Hold compiled steps against eager ones, on random programs, for as long as wanted.

    python tools/fuzz_compiler.py --minutes 10 [--seed 0] [--length 10] [--backend c] [--keep-going]

Of a program that differs the smallest that still does is printed, as text that can be run. The
generator is tests/compiler/random_programs.py.
"""

import argparse
import collections
import itertools
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "compiler"))

from random_programs import differences, generate, smaller


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument(
        "--seed", type=int, default=0, help="of the first program; the others count from there"
    )
    parser.add_argument("--length", type=int, default=10, help="lines of a program")
    parser.add_argument("--backend", choices=["numpy", "c"], help="both, unless told otherwise")
    parser.add_argument("--keep-going", action="store_true", help="after a program that differs")
    given = parser.parse_args()
    stop, counts, refusals = (
        time.monotonic() + 60 * given.minutes,
        collections.Counter(),
        collections.Counter(),
    )
    with tempfile.TemporaryDirectory() as cache:
        os.environ["MINIGRAD_CACHE"] = cache
        for seed in itertools.count(given.seed):
            if time.monotonic() > stop:
                break
            program = generate(seed, given.length)
            for backend in [given.backend] if given.backend else ["numpy", "c"]:
                what = differences(program, backend)
                counts[
                    "refused" if what.startswith("refused") else "different" if what else "the same"
                ] += 1
                if what.startswith("refused"):
                    refusals[what.splitlines()[0]] += 1
                elif what:
                    report(program, backend, what)
                    if not given.keep_going:
                        return 1
            if sys.stderr.isatty() or seed % 50 == 0:
                print(f"\rseed {seed}: {dict(counts)}", end="", file=sys.stderr, flush=True)
    print(f"\n{dict(counts)}", *(f"{n} x {text}" for text, n in refusals.most_common()), sep="\n")
    return int(counts["different"] > 0)


def report(program, backend: str, what: str) -> None:
    """The program that differs, made small."""
    end = time.monotonic() + 60
    small = smaller(program, backend, lambda: time.monotonic() > end)
    print(
        f"\nseed {program.seed}, {backend}: "
        f"{what.splitlines()[0]}\n\n{small.describe()}\n{differences(small, backend)}\n",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
