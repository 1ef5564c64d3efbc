"""Pages of docs/ whose figures are written by the tools that measured them: each tool replaces its
own section, so that none is written by hand.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Page:
    """path: under docs/.   title: its first line.   sections: their names, in the order in which
    they stand.
    """

    path: str
    title: str
    sections: tuple[str, ...]

    def write(self, section: str, lines: list[str]) -> None:
        """Put these lines into a section and leave the others as they are."""
        file = Path(__file__).parents[1] / "docs" / self.path
        text = file.read_text() if file.exists() else ""
        found = dict(re.findall(r"<!-- (\w+) -->\n(.*?)\n<!-- end -->", text, flags=re.DOTALL))
        found[section] = "\n".join(lines)
        parts = [
            f"<!-- {name} -->\n{found[name]}\n<!-- end -->"
            for name in self.sections
            if name in found
        ]
        head = (
            f"# {self.title}\n\nEvery figure on this page was written by the tool that "
            "measured "
            "it; run the tool again and the page follows.\n"
        )
        file.write_text(head + "\n" + "\n\n".join(parts) + "\n")


def replaced(text: str, section: str, lines: list[str]) -> str:
    """A page that people write, with one section of figures replaced."""
    block = f"<!-- {section} -->\n" + "\n".join(lines).strip() + "\n<!-- end -->"
    pattern = rf"<!-- {section} -->\n.*?<!-- end -->"
    found, count = re.subn(pattern, lambda _: block, text, flags=re.DOTALL)
    assert count == 1, f"the page has {count} sections {section!r}"
    return found


RELIABILITY = Page(
    "reliability.md",
    "Reliability of the files",
    ("fuzz_files", "fuzz_files_pure", "fuzz_files_guided", "crash_test", "bench_files"),
)
PERFORMANCE = Page(
    "performance.md",
    "Performance",
    (
        "bench",
        "bench_compile",
        "bench_text",
        "speedrun",
        "speedrun_minutes",
        "bench_decode",
        "bench_models_avx512",
        "bench_models",
        "bench_memory",
    ),
)


def machine() -> str:
    """The machine in a few words."""
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
