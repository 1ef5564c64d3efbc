"""docs/reliability.md: each tool writes its own section, so that no figure in it is written by hand."""

import platform
import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"
ORDER = ["fuzz_files", "fuzz_files_pure", "crash_test", "bench_files"]
HEAD = """# Reliability of the files

Every figure on this page was written by the tool that measured it; run the tool again and the page follows.
"""


def write_section(tool: str, lines: list[str]) -> None:
    """Replace this tool's section of the page."""
    text = PAGE.read_text() if PAGE.exists() else HEAD
    sections = dict(re.findall(r"<!-- (\w+) -->\n(.*?)\n<!-- end -->", text, flags=re.DOTALL))
    sections[tool] = "\n".join(lines)
    parts = [f"<!-- {name} -->\n{sections[name]}\n<!-- end -->" for name in ORDER if name in sections]
    PAGE.write_text(HEAD + "\n" + "\n\n".join(parts) + "\n")


def machine() -> str:
    """The machine in a few words."""
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
