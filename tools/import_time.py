"""What `import minigrad` costs above `import numpy`, in milliseconds of processor time over fresh
processes, and the slowest modules.

    python tools/import_time.py [runs]

Processor time, because an import does not wait: on a busy machine the clock on the wall would
measure the others. One BLAS thread, because OpenBLAS's second one spins from the import of numpy
on, for longer than that takes: it would be booked to whatever comes after.
"""

import os
import resource
import statistics
import subprocess
import sys

LIMIT_MS = 50
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {
    "OPENBLAS_NUM_THREADS": "1"
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh Python with these arguments, which must succeed."""
    return subprocess.run(
        [sys.executable, *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )


def processor_ms(statement: str) -> float:
    """The processor time of a fresh process for a statement, the start of Python included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run("-c", statement)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    statements = ("pass", "import numpy", "import minigrad")
    run("-c", "import minigrad")
    times: dict[str, list[float]] = {statement: [] for statement in statements}
    for _ in range(runs):  # interleaved, so that a change of the clock rate meets all of them
        for statement in statements:
            times[statement].append(processor_ms(statement))
    python, numpy, minigrad = (statistics.median(times[s]) for s in statements)
    extra = minigrad - numpy
    print(
        f"python {python:.0f} ms   + numpy {numpy - python:.0f} ms   + minigrad {extra:.0f} ms   "
        f"(limit {LIMIT_MS})"
    )
    trace = run("-X", "importtime", "-c", "import minigrad").stderr
    rows = [line.removeprefix("import time:").split("|") for line in trace.splitlines()[1:]]
    ours = sorted(
        ((int(own), name.strip()) for own, _, name in rows if "numpy" not in name), reverse=True
    )
    print(
        "slowest, without what they import: "
        + "   ".join(f"{name} {own / 1000:.1f}" for own, name in ours[:8])
    )
    return 0 if extra <= LIMIT_MS else 1


if __name__ == "__main__":
    raise SystemExit(main())
