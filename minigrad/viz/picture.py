"""What matplotlib draws: files, SVG text, and pictures in notebooks."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minigrad.errors import ConfigError, MissingDependencyError, needs


class Picture:
    """The base of what matplotlib draws. In a notebook it shows itself.

    Every method raises MissingDependencyError where matplotlib is not installed.
    """

    def figure(self) -> Any:
        """Return the picture as a new matplotlib Figure."""
        with _settings():
            from matplotlib.figure import Figure

            figure = Figure(layout="constrained")
            self._fill(figure)
        return figure

    def _fill(self, figure: Any) -> None:
        """Draw into an empty Figure."""
        raise NotImplementedError

    def svg(self) -> str:
        """Return the picture as an SVG document; the same picture gives the same text."""
        return self._drawn("svg").decode()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture to a file. Raises ConfigError unless it ends in .svg or .png."""
        ending = Path(path).suffix.lower()
        if ending not in (".svg", ".png"):
            problem = f"{path} ends neither in .svg nor in .png"
            hint = f"name it {Path(path).stem or 'plot'}.svg"
            raise ConfigError("plot", problem, got=str(path), wanted=".svg or .png", hint=hint)
        Path(path).write_bytes(self._drawn(ending[1:]))

    def _repr_svg_(self) -> str | None:
        with contextlib.suppress(MissingDependencyError):
            return self.svg()
        return None

    def _drawn(self, kind: str) -> bytes:
        """Return the content of a file."""
        content, metadata = io.BytesIO(), {"Date": None} if kind == "svg" else {}
        with _settings():
            self.figure().savefig(content, format=kind, dpi=120, metadata=metadata)
        return content.getvalue()


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Text stays text in SVG, element names do not change, and a glyph that the font lacks is
    drawn as a box without a warning.
    """
    with needs("plot", "pictures need matplotlib", "'minigrad[plot]'"):
        from matplotlib import rc_context
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "minigrad", "font.size": 9}
    with rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def plain(text: str) -> str:
    """Return text that matplotlib shows as it is, not as a formula, and that XML allows."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text).replace("$", r"\$")
