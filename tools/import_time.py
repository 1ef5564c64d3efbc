"""What `import minigrad` costs above `import numpy`: medians over fresh processes, in milliseconds, and the slowest modules.

    python tools/import_time.py [runs]
"""

import os
import statistics
import subprocess
import sys
import time

LIMIT_MS = 50


def seconds(statement: str) -> float:
    """How long a fresh process takes for a statement, the start of Python included."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, env=environment)
    return time.perf_counter() - began


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    statements = ("pass", "import numpy", "import minigrad")
    times: dict[str, list[float]] = {statement: [] for statement in statements}
    seconds(statements[-1])  # compiles to bytecode what has not been yet
    for _ in range(runs):  # interleaved, so that a change of load meets all of them
        for statement in statements:
            times[statement].append(seconds(statement) * 1000)
    python, numpy, minigrad = (statistics.median(times[s]) for s in statements)
    print(f"python {python:.0f} ms   + numpy {numpy - python:.0f} ms   + minigrad {minigrad - numpy:.0f} ms   (limit {LIMIT_MS})")
    trace = subprocess.run([sys.executable, "-X", "importtime", "-c", "import minigrad"], capture_output=True, text=True, check=True)
    rows = [line.removeprefix("import time:").split("|") for line in trace.stderr.splitlines()[1:]]
    ours = sorted(((int(own), name.strip()) for own, _, name in rows if "numpy" not in name), reverse=True)
    print("slowest, without what they import:  " + "   ".join(f"{name} {own / 1000:.1f}" for own, name in ours[:8]))
    return 0 if minigrad - numpy <= LIMIT_MS else 1


if __name__ == "__main__":
    raise SystemExit(main())
