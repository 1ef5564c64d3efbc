"""Text for training: where it comes from, its characters as numbers, and the batches drawn from it.

    text = read_text("poems/")                       # or default_text(), which is on every machine
    tokenizer = CharTokenizer.from_text(text)
    data = TextData(tokenizer.encode(text), block_size=64, batch_size=12, seed=0)
    x, y = data.batch(step)              # a function of seed and step alone: no position to save

Nothing here knows a model.
"""

from __future__ import annotations

import ast
import sys
import sysconfig
from pathlib import Path

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import DataError
from minigrad.random import Generator
from minigrad.text import CharTokenizer
from minigrad.text.stream import Windows

__all__ = [
    "CharTokenizer",
    "TextData",
    "bigram_loss",
    "default_text",
    "read_text",
    "standard_library_docstrings",
]


def default_text() -> str:
    """Return text that is on every machine with Python: the language's own documentation, about
    465,000 characters; where a distribution leaves it out, the docstrings of the standard library.
    Raises DataError if there is neither.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return standard_library_docstrings()
    return "\n\n".join(topics[name] for name in sorted(topics))


def standard_library_docstrings(limit: int = 500_000) -> str:
    """Return about `limit` characters of docstrings, from the source files of the standard
    library's public modules in alphabetical order.

    The files are parsed, not imported. Raises DataError if there are none.
    """
    folder, found, length = Path(sysconfig.get_paths()["stdlib"]), [], 0
    for name in sorted(n for n in sys.stdlib_module_names if not n.startswith("_")):
        for path in (folder / f"{name}.py", folder / name / "__init__.py"):
            if path.is_file() and length < limit:
                texts = _docstrings(ast.parse(path.read_bytes()))
                found += texts
                length += sum(len(text) + 2 for text in texts)
    if not found:
        problem = "this Python comes without its documentation and its library's source files"
        hint = "name a text of your own: --text FILE_OR_FOLDER"
        raise DataError("default_text", problem, got=str(folder), hint=hint)
    return "\n\n".join(found)[:limit]


def _docstrings(tree: ast.Module) -> list[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented)]
    return [text for text in found if text]


def read_text(path: str | Path, skipped: list[Path] | None = None) -> str:
    """Return the text of a UTF-8 file; or of all of them in a folder and its subfolders, in the
    order of their paths, with an empty line between.

    In a folder, hidden files and files that are not UTF-8 text are skipped; the latter are added to
    the list `skipped`. Raises FileNotFoundError if there is nothing at `path`, DataError if there
    is no text in it, or if it is a device.
    """
    path = Path(path)
    if path.is_dir():
        files = [p for p in path.rglob("*") if p.is_file() and not _is_hidden(p.relative_to(path))]
        found = [(file, _decode(file.read_bytes())) for file in sorted(files)]
        if skipped is not None:
            skipped += [file for file, text in found if text is None]
        texts = [text for _, text in found if text]
        if not texts:
            problem = f"the folder {path} holds no UTF-8 text"
            hint = f"files looked at: {len(files)}"
            raise DataError("read_text", problem, got=len(files), wanted="text files", hint=hint)
        return "\n\n".join(texts)
    if path.exists() and not (path.is_file() or path.is_fifo()):
        problem = f"{path} is a device or a socket, not a regular file or a pipe"
        raise DataError("read_text", problem, got=str(path), wanted="a text file")
    content = path.read_bytes()
    text = _decode(content)
    if text is None:
        problem, zeros = f"{path} is not UTF-8 text", b"\0" in content
        doubt = "it holds zero bytes: if it is UTF-16 text, " if zeros else ""
        convert = f"iconv -f {'UTF-16' if zeros else 'LATIN1'} -t UTF-8 {path}"
        hint = f"{doubt}convert it: {convert} > {path.stem}.utf8.txt"
        raise DataError("read_text", problem, got=str(path), wanted="UTF-8", hint=hint)
    return text


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _decode(content: bytes) -> str | None:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    # A zero byte is valid UTF-8, but only binary files have one.
    return None if "\0" in text else text.replace("\r\n", "\n").replace("\r", "\n")


class TextData(Windows):
    """Tokens split into a training and a validation part, and the batches drawn from them.

    The last `val_fraction` of the tokens is the validation part. Training batches are windows at
    random places, a function of seed and step; validation covers its part once, from end to end,
    always in the same way. Raises ConfigError if a part is too short for one window.
    """

    def batch(self, step: int) -> tuple[Array, Array]:
        """Return inputs and targets of a training step, each (B, T): y is x one token later."""
        B, T = self.batch_size, self.block_size
        generator = Generator(self.seed)
        # Weights and dropout count up from 0 under the same seed; batches have the upper half of
        # the counters to themselves.
        generator.set_state((self.seed, (1 << 63) + step * B))
        starts = generator.integers(0, len(self.train) - T, (B, 1))
        windows = self.train[starts + np.arange(T + 1)]  # (B, T + 1)
        return windows[:, :-1], windows[:, 1:]


def bigram_loss(data: TextData, vocab_size: int) -> float:
    """Return the validation loss, in nats per token, of a table of pairs counted on the training
    part: what a model has to beat.

    p(b | a) = (count(a, b) + 0.1) / (count(a) + 0.1 V);  the loss is the mean of -log p over the
    targets that `data.validation()` gives.
    """
    V = vocab_size
    first = np.bincount(data.train[:-1], minlength=V)[data.val[:-1]] + 0.1 * V
    return float(np.log(first / (_pair_counts(data, V) + 0.1)).mean())


def _pair_counts(data: TextData, V: int) -> Array:
    """How often each pair of neighbours in the validation part occurs in the training part."""
    wanted = data.val[:-1].astype(np.int64) * V + data.val[1:]
    if V * V <= 1 << 22:  # a table, filled in parts: as small as the text
        table = np.zeros(V * V, np.int64)
        for start in range(0, len(data.train) - 1, 1 << 20):
            part = data.train[start : start + (1 << 20) + 1].astype(np.int64)
            table += np.bincount(part[:-1] * V + part[1:], minlength=V * V)
        return table[wanted]
    seen, counts = np.unique(
        data.train[:-1].astype(np.int64) * V + data.train[1:], return_counts=True
    )
    place = np.searchsorted(seen, wanted).clip(max=len(seen) - 1)
    return np.where(seen[place] == wanted, counts[place], 0)
