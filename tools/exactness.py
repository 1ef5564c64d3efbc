"""How exact every op is: the worst error against a 50-digit oracle, in eps x scale, over at least
200 inputs each; and float32 in ulp.

    python tools/exactness.py                 print both tables and write them into
    docs/exactness.md
    python tools/exactness.py softmax tanh    print the rows whose name contains one of the words,
    and write nothing

The rows are those of the op table in tests/engine/cases.py. Ends with status 1 if a row is over its
budget. Takes a few minutes.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.engine.cases import CASES, EXACT, Case  # noqa: E402
from tests.engine.table import Verdict, judge  # noqa: E402
from tests.engine.test_ulps import (  # noqa: E402
    COMPOSED,
    POWERS,
    SAME,
    numbers,
    ulps,
    value_and_gradient,
)

PAGE = ROOT / "docs" / "exactness.md"
INPUTS = 200  # numbers to try per row, at least


def judged(case: Case, dtype: type[np.floating]) -> Verdict:
    """The worst of as many draws as it takes."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()) + 1)
    verdict = Verdict()
    while verdict.tried < INPUTS:
        verdict.add(judge(case, dtype, rng, count=100))
    return verdict


def error_table(words: list[str]) -> tuple[list[str], bool]:
    """The lines of the table, printed as they come, and whether every row is within its budget."""
    lines = [
        (
            "| op | budget | inputs | float64: value | gradient | second | float32: value | "
            "gradient | "
            "second |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    print(*lines, sep="\n")
    fine = True
    for case in CASES:
        if words and not any(word in case.name for word in words):
            continue
        wide, narrow = judged(case, np.float64), judged(case, np.float32)
        fine &= max(wide.worst, narrow.worst) <= case.budget
        cells = [case.name, str(case.budget), str(wide.tried)]
        for verdict in (wide, narrow):
            cells += [
                f"{verdict.value:.2f}",
                f"{verdict.grad:.2f}",
                f"{verdict.second:.2f}" if case.second else "",
            ]
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return lines, fine


def ulp_table() -> list[str]:
    """The histogram of float32 errors on this machine, per op, of value and gradient."""
    lines = [
        "| op | of | <= 0.5 ulp | <= 1 | <= 2 | <= 4 | <= 8 | more | worst |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in (*SAME, *POWERS, *COMPOSED):
        x = numbers(name)
        results = zip(
            ("value", "gradient"),
            value_and_gradient(name, x),
            value_and_gradient(name, x.astype(np.float64)),
            strict=True,
        )
        for kind, got, right in results:
            far = ulps(got, right, name)
            counts = np.histogram(far, [-1, 0.5000001, 1, 2, 4, 8, np.inf])[0] / far.size
            shares = [f"{100 * share:.2f} %" if share else "" for share in counts]
            lines.append("| " + " | ".join([name, kind, *shares, f"{np.max(far):.2f}"]) + " |")
    print(*lines, sep="\n")
    return lines


def write_section(name: str, lines: list[str]) -> None:
    """Replace the section `name` of the page, between its two marks, by these lines."""
    text = PAGE.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    PAGE.write_text("\n".join([before + begin, "", *lines, "", end + after]), encoding="utf-8")


def main() -> int:
    """Run from the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", help="only rows whose name contains one of these")
    words = parser.parse_args().words
    lines, fine = error_table(words)
    if not words:
        exact = ", ".join(row.name for row in EXACT)
        write_section(
            "errors",
            [*lines, "", f"To the bit, on ties, NaN, infinities and signed zeros: {exact}."],
        )
        write_section("ulps", ulp_table())
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
