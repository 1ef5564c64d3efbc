"""Count lines of code against the budget in docs/design.md.

    python tools/size.py            print rooms, long functions, long files, files to edit per op
    python tools/size.py --check    print only what has grown past its ceiling; exit with status 1
                                    if anything has

A room that is over its budget has a ceiling instead: the lines it had when it was last made
smaller; the core's is rounded up to 50, so that an op more fits under it. A ceiling may fall, and
goes when the budget is reached.

A line of code is one that holds a token other than a comment or a docstring. Lines are counted as
they stand, formatted by `ruff format` at 100 columns.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tokenize
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "minigrad"
LONGEST_FUNCTION, LONGEST_FILE = 40, 500

# room -> (files and folders of the package, budget in lines of code)
ROOMS: dict[str, tuple[str, int]] = {
    "core": (
        "__init__.py __main__.py start.py heap.py errors.py arguments.py columns.py "
        "counterparts.py dtypes.py fields.py precision.py "
        "primitive.py tape.py autograd.py modes.py random.py ops tensor "
        "functional.py func.py nn interop.py",
        6000,
    ),
    "compiler (Python)": ("compiler", 3200),
    "training": (
        "optim train data.py text evaluate.py finetune.py listeners.py testing.py",
        2300,
    ),
    "models": ("models", 1400),
    "files": ("files", 1500),
    "command line": ("cli viz", 1900),
    "distributed": ("distributed.py", 250),
}
ALL_PYTHON, ALL_C = 16500, 1935

CEILINGS = {
    "core": 8_450,
    "compiler (Python)": 4_185,
    "training": 3_493,
    "models": 1_642,
    "files": 1_683,
    "command line": 3_311,
}
CEILINGS["all Python"] = sum(CEILINGS.values()) + ROOMS["distributed"][1]


@cache
def code_lines(path: Path) -> set[int]:
    """The numbers of the lines that hold code."""
    source = path.read_bytes()
    skipped = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and ast.get_docstring(node, clean=False) is not None
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    blank = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
    }
    with path.open("rb") as file:
        lines = {
            line
            for token in tokenize.tokenize(file.readline)
            if token.type not in blank
            for line in range(token.start[0], token.end[0] + 1)
        }
    return lines - skipped


def files_of(names: str) -> list[Path]:
    """The Python files of a room."""
    found: list[Path] = []
    for name in names.split():
        path = PACKAGE / name
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path] if path.exists() else []
    return found


def c_lines() -> int:
    """Lines of C without blank lines and comments."""
    total = 0
    for path in PACKAGE.rglob("*.c"):
        text = re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        total += sum(bool(line.strip()) for line in text.splitlines())
    return total


def long_functions() -> list[tuple[int, str]]:
    """Functions with more than LONGEST_FUNCTION lines of code, longest first."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        lines = code_lines(path)
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = len(lines & set(range(node.lineno, (node.end_lineno or 0) + 1)))
                if size > LONGEST_FUNCTION:
                    place = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
                    found.append((size, place))
    return sorted(found, reverse=True)


def long_files() -> list[tuple[int, str]]:
    """Files with more than LONGEST_FILE physical lines, longest first."""
    sizes = [
        (len(path.read_text(encoding="utf-8").splitlines()), str(path.relative_to(ROOT)))
        for path in PACKAGE.rglob("*.py")
    ]
    return sorted((x for x in sizes if x[0] > LONGEST_FILE), reverse=True)


def files_that_name(word: str) -> list[str]:
    """Files of the package and the tests, written by hand, in which `word` stands."""
    pattern = re.compile(rf"\b{word}\b")
    paths = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.c"), *(ROOT / "tests").rglob("*.py")]
    return sorted(
        str(path.relative_to(ROOT))
        for path in paths
        if pattern.search(path.read_text(encoding="utf-8"))
    )


def main() -> int:
    """Run from the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="print only what exceeds a limit")
    parser.add_argument("--files", action="store_true", help="also print every file's lines")
    arguments = parser.parse_args()
    rows = [
        (room, sum(len(code_lines(path)) for path in files_of(names)), budget)
        for room, (names, budget) in ROOMS.items()
    ]
    placed = {path for names, _ in ROOMS.values() for path in files_of(names)}
    for path in sorted(set(PACKAGE.rglob("*.py")) - placed):
        print(f"in no room: {path.relative_to(ROOT)}")
    everything = sum(len(code_lines(path)) for path in PACKAGE.rglob("*.py"))
    rows += [("all Python", everything, ALL_PYTHON), ("C", c_lines(), ALL_C)]
    over = [row for row in rows if row[1] > CEILINGS.get(row[0], row[2])]
    if arguments.check:
        for room, lines, budget in over:
            ceiling = CEILINGS.get(room, budget)
            print(f"{room}: {lines:,} lines, over the ceiling of {ceiling:,} in tools/size.py")
    else:
        for room, lines, budget in rows:
            print(f"{room:20} {lines:7,} {budget:7,}{'  over' if lines > budget else ''}")
    functions, files = long_functions(), long_files()
    print(f"functions over {LONGEST_FUNCTION} lines: {len(functions)}")
    for size, place in functions[:20]:
        print(f"  {size:4} {place}")
    print(f"files over {LONGEST_FILE} lines: {len(files)}")
    for size, place in files:
        print(f"  {size:4} {place}")
    if arguments.files:
        for path in sorted(PACKAGE.rglob("*.py")):
            print(f"  {len(code_lines(path)):4} {path.relative_to(ROOT)}")
    if not arguments.check:
        for word in ("cosh", "rms_norm", "SwiGLU"):
            names = files_that_name(word)
            print(f"files that name {word}: {len(names)}: {', '.join(names)}")
    return 1 if arguments.check and over else 0


if __name__ == "__main__":
    sys.exit(main())
