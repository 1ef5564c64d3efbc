"""Tables of words, as lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def columns(rows: Iterable[Sequence[str]], left: int = 1, between: str = "  ") -> list[str]:
    """Return a line per row, its words in columns: the first `left` columns are aligned at the
    left, the others at the right.
    """
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    cells = [f"{{:{'<' if i < left else '>'}{width}}}" for i, width in enumerate(widths)]
    return [between.join(cells).format(*row).rstrip() for row in table]
