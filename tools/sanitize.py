"""Run tests of the compiler with the C of its steps under GCC's sanitizers, which find accesses out
of bounds, undefined behaviour and data races.

    python tools/sanitize.py                                  # all three, 20 minutes on two cores
    python tools/sanitize.py --kinds undefined --tests tests/compiler/test_gathers.py
    python tools/sanitize.py --write                          # into docs/compiler.md

Python and numpy are as always: what is checked are the compiled steps, and the arrays that they are
called with. Values within a step share one block of memory, whose inner borders are not seen.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench import machine
from pages import replaced

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "compiler.md"
ALL = "tests/compiler"
THREADED = [f"{ALL}/test_{n}.py" for n in ("gpt_step", "products", "replay", "updates")]
BOUNDS = [f"{ALL}/test_{n}.py" for n in ("attention", "gathers", "gpt_step", "products")]


@dataclass(frozen=True)
class Sanitizer:
    """flags: of the compiler.   library: its runtime, loaded before Python.   settings: of it."""

    flags: str
    library: str
    variable: str
    settings: str
    tests: list[str]


SANITIZERS = {
    "address": Sanitizer(
        "-fsanitize=address -fsanitize-recover=address",
        "libasan.so",
        "ASAN_OPTIONS",
        "detect_leaks=0:halt_on_error=0",
        BOUNDS,
    ),
    "undefined": Sanitizer(
        "-fsanitize=undefined", "libubsan.so", "UBSAN_OPTIONS", "print_stacktrace=0", [ALL]
    ),
    "thread": Sanitizer(
        "-fsanitize=thread", "libtsan.so", "TSAN_OPTIONS", "halt_on_error=0", THREADED
    ),
}
_REPORT = re.compile(r"(runtime error: .*|SUMMARY: .*)")


def run(kind: str, tests: list[str], folder: Path) -> tuple[str, list[str]]:
    """The closing line of pytest, and what the sanitizer reported, each report once."""
    sanitizer, log = SANITIZERS[kind], folder / kind
    found = ["gcc", f"-print-file-name={sanitizer.library}"]
    library = subprocess.run(found, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(library).is_absolute():
        sys.exit(f"there is no {sanitizer.library}: install GCC's sanitizers")
    environment = {
        **os.environ,
        "CC": "env -u LD_PRELOAD gcc",  # which needs no sanitizer itself
        "LD_PRELOAD": library,
        "MINIGRAD_CACHE": str(folder / "cache"),
        "MINIGRAD_CFLAGS": f"-O1 -g {sanitizer.flags}",
        "OPENBLAS_NUM_THREADS": "1",
        sanitizer.variable: f"{sanitizer.settings}:log_path={log}",
    }
    # The thread sanitizer wants memory where it was in older kernels
    fixed = ["setarch", "-R"] if kind == "thread" and shutil.which("setarch") else []
    # A step that is compiled elsewhere, or without these flags, has no place here
    left_out = ["--deselect", f"{ALL}/test_native.py", "--deselect", f"{ALL}/test_export.py"]
    call = [*fixed, sys.executable, "-m", "pytest", "-n", "2", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*call, *left_out, *tests], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    reports = {
        line
        for path in folder.glob(f"{kind}.*")
        for line in _REPORT.findall(path.read_text(errors="replace"))
    }
    if done.returncode:
        print(done.stdout[-3000:], done.stderr[-1000:], file=sys.stderr)
        reports.add(f"pytest ended with {done.returncode}")
    summary = re.findall(r"\d+ passed.* in .*?s\b", done.stdout)
    return (summary or ["no test passed"])[-1], sorted(reports)


def main() -> int:
    """Run the tests under each sanitizer and print, or write, what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", default=",".join(SANITIZERS), help=f"of {list(SANITIZERS)}")
    parser.add_argument("--tests", nargs="+", help="files of tests (default: each kind's own)")
    parser.add_argument("--write", action="store_true", help=f"write into {PAGE.name}")
    given = parser.parse_args()
    lines = ["| sanitizer | tests | reports |", "|---|---|---|"]
    clean = True
    for kind in given.kinds.split(","):
        with tempfile.TemporaryDirectory() as folder:
            tests = given.tests or SANITIZERS[kind].tests
            summary, reports = run(kind, tests, Path(folder))
        clean = clean and not reports
        lines.append(f"| {kind} | {summary.split(' in ')[0]} | {len(reports) or 'none'} |")
        print(lines[-1], *reports, sep="\n", flush=True)
    if given.write:
        text = replaced(PAGE.read_text(), "sanitize", [*lines, "", machine(os.cpu_count() or 1)])
        PAGE.write_text(text)
    return int(not clean)


if __name__ == "__main__":
    sys.exit(main())
