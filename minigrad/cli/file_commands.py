"""`minigrad inspect`, `verify`, `diff` and `convert`: commands on weights files. For a run's folder
they take the model in it.
"""

from __future__ import annotations

import json
import math
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minigrad import dtypes
from minigrad.cli.options import FILE, FLAG, PATH, REQUIRED, Command, Option, refuse
from minigrad.cli.run_folder import model_file
from minigrad.columns import columns
from minigrad.dtypes import Array
from minigrad.errors import ConfigError, FormatError, MinigradError
from minigrad.files import layout
from minigrad.files.formats import READABLE, convert as convert_file, ending_of, load_any, peek_any
from minigrad.files.gguf import load_gguf
from minigrad.files.layout import FileInfo
from minigrad.files.opening import open_regular, printable, within_memory
from minigrad.files.reader import verify as verify_file

_HELD = "a run's folder, or a .mgrd, .safetensors, .npz, .gguf"
_FILE = Option("FILE", FILE, REQUIRED, _HELD, flag="--model")
_STATS = Option("stats", FLAG, False, "show min, max, mean and NaNs too (not of a .gguf)")
_PATHS = Option("PATH", PATH, REQUIRED, "a file, or a folder whose files are all checked", True)
_A = Option("A", FILE, REQUIRED, "weights or a checkpoint: a .mgrd, .safetensors or .npz")
_B = Option("B", FILE, REQUIRED, "another one, also of another of these formats")
_SOURCE = Option("SOURCE", FILE, REQUIRED, "the file to read: .mgrd, .safetensors or .npz")
_TARGET = Option("TARGET", FILE, REQUIRED, "the file to write; its ending names the format")
_OVERWRITE = Option("overwrite", FLAG, False, "replace TARGET if it exists")
COMMANDS: list[Command] = []
Run = Callable[[Namespace], int]


def _command(purpose: str, example: str, *options: Option) -> Callable[[Run], Run]:
    """Make the function that it decorates a command of the same name."""

    def add(run: Run) -> Run:
        name = run.__name__
        about = f"{purpose.capitalize()}.\n\nexamples:\n  minigrad {name} {example}\n"
        COMMANDS.append(Command(name, options, run, purpose, about))
        return run

    return add


# ---- inspect


@_command("show what a weights file holds", "runs/gpt --stats", _FILE, _STATS)
def inspect(options: Namespace) -> int:
    """Print what a file holds: names, dtypes, shapes, bytes, meta, SHA-256; with --stats, min, max,
    mean and NaNs too.
    """
    path, stats = _model_in("inspect", options.file), options.stats
    with within_memory("inspect", path):
        info = peek_any(path)
        lines = _tensor_table(info, load_any(path, with_state=True) if stats else None)
    lines += [f"{printable(a)} is tied to {printable(b)}" for a, b in info.aliases.items()]
    print(*lines, *_summary(info, verified=stats), sep="\n")
    return 0


def _inside(folder: Path) -> list[Path]:
    """The files of weights in a folder and its folders."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in READABLE)


def _model_in(call: str, place: str) -> str:
    """The model or the adapters of a run's folder, or the file itself."""
    path = Path(place)
    if not path.exists():
        open_regular(place, call)  # raises MissingFileError
    if not path.is_dir():
        return place
    model = model_file(path) or path / "model.safetensors"  # of a published model
    if not model.exists():
        inside = ", ".join(printable(file.name) for file in _inside(path)[:3])
        problem = f"{place} is a folder without a model.mgrd"
        hint = f"name a file in it: {inside}" if inside else ""
        raise ConfigError(call, problem, place, "a file", hint)
    return str(model)


def _tensor_table(info: FileInfo, arrays: dict[str, Array] | None) -> list[str]:
    """A line per tensor; with statistics, if there are arrays."""
    with_stats = ["min", "max", "mean", "NaN"] if arrays is not None else []
    rows = [["name", "dtype", "shape", "bytes", *with_stats]]
    for tensor in info.tensors:
        shape = "×".join(map(str, tensor.shape)) or "scalar"
        row = [printable(tensor.name), tensor.dtype, shape, f"{tensor.nbytes:,}"]
        rows.append(row + (_statistics(arrays[tensor.name]) if arrays is not None else []))
    return columns(rows, left=3)


def _statistics(array: Array) -> list[str]:
    """The least, the largest and the mean value, and the number of NaNs."""
    values = dtypes.cast(array, dtypes.computing(array.dtype))
    nans = int(np.isnan(values).sum()) if values.dtype.kind == "f" else 0
    good = values[~np.isnan(values)] if nans else values
    if good.size == 0:
        return ["-", "-", "-", f"{nans:,}"]
    with np.errstate(all="ignore"):
        mean = good.mean(dtype=np.float64)
    return [*(f"{value:.6g}" for value in (good.min(), good.max(), mean)), f"{nans:,}"]


def _summary(info: FileInfo, verified: bool) -> Iterator[str]:
    elements = sum(math.prod(t.shape) for t in info.tensors)
    version = f", format {info.version[0]}.{info.version[1]}" if info.version != (0, 0) else ""
    what = f"{len(info.tensors)} tensors, {elements:,} elements; {info.kind}{version}"
    yield f"{what}; {info.size:,} bytes"
    for where, tree in (("meta", info.meta), ("state", info.state or {})):
        for key, value in tree.items():
            yield f"{where}.{printable(key)}: {_short(value)}"
    if info.sha256:
        doubt = "" if verified else " (as the file states it; `minigrad verify` checks it)"
        yield f"SHA-256 {info.sha256}{doubt}"


def _short(value: Any, limit: int = 200) -> str:
    text = printable(json.dumps(value, ensure_ascii=False, default=lambda b: f"{len(b)} bytes"))
    return text if len(text) <= limit else text[: limit - 3] + "..."


# ---- verify


@_command("check weights files down to the last byte", "runs/gpt", _PATHS)
def verify(options: Namespace) -> int:
    """Check files, and all files in folders, down to every byte; exit code 1 if one is not good."""
    bad = 0
    for file in _files(options.path):
        try:
            digest = _verified(file)
        except MinigradError as error:
            bad += 1
            code = error.code if isinstance(error, FormatError) else type(error).__name__
            problem = error.problem.removeprefix(str(file)).lstrip(": ")
            print(f"BAD   {printable(str(file))}: {printable(problem)} [{code}]")
        else:
            print(f"good  {printable(str(file))}  {digest}")
    return 1 if bad else 0


def _files(paths: list[str]) -> list[Path]:
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            open_regular(str(path), "verify")  # raises MissingFileError
        inside = _inside(path) if path.is_dir() else [path]
        if not inside:
            problem = f"{path} holds no file that ends in {', '.join(READABLE)}"
            raise ConfigError("verify", problem, str(path))
        found += inside
    for path in found:
        ending_of(path, READABLE, "verify")  # raises ConfigError
    return found


def _verified(path: Path) -> str:
    ending = ending_of(path, READABLE)
    if ending == ".mgrd":
        return f"sha256 {verify_file(path).sha256}"
    if ending == ".gguf":
        load_gguf(path)
        return "(only its header: this format has no checksum)"
    load_any(path)
    return "(this format has no checksum)" if ending == ".safetensors" else "(crc32)"


# ---- diff


@_command("show how two weights files differ", "runs/gpt runs/gpt-2", _A, _B)
def diff(options: Namespace) -> int:
    """Print how two files differ: tensors, meta, ties, and the state where both are checkpoints;
    exit code 0 if they do not, else 1.
    """
    lines, paths = list[str](), [_model_in("diff", path) for path in (options.a, options.b)]
    mgrd = all(ending_of(path) == ".mgrd" for path in paths)
    with within_memory("diff", " and ".join(paths)):
        checkpoints = mgrd and all(peek_any(path).kind == "checkpoint" for path in paths)
        left, right = (load_any(path, with_state=checkpoints) for path in paths)
        sides = [(printable(paths[0]), left, right), (printable(paths[1]), right, left)]
        for here, one, other in sides:
            lines += [f"only in {here}: {printable(name)}" for name in sorted(one.keys() - other)]
        for name in sorted(left.keys() & right.keys()):
            if difference := _difference(left[name], right[name]):
                lines.append(f"{printable(name)}: {difference}")
    for here, one, other in sides if mgrd else []:  # the others know no ties
        lines += [
            f"tied only in {here}: {printable(name)} to {printable(target)}"
            for name, target in one.info.aliases.items()
            if name in one and other.info.aliases.get(name) != target
        ]
    lines += _unlike("meta", left.meta, right.meta)
    lines += _unlike("state", left.info.state, right.info.state) if checkpoints else []
    print(*(lines or [f"no difference: {len(left)} tensors, equal to the bit"]), sep="\n")
    return 1 if lines else 0


def _unlike(where: str, a: Any, b: Any) -> Iterator[str]:
    """The places at which two trees of plain values differ, each with the values there. 1, 1.0 and
    True are not equal; NaN is NaN.
    """
    if type(a) is type(b) is dict:
        for key in sorted(a.keys() | b.keys()):
            place = f"{where}.{printable(key)}"
            if key not in a or key not in b:
                said = [_short(side[key], 60) if key in side else "(not there)" for side in (a, b)]
                yield f"{place}: {said[0]} against {said[1]}"
            else:
                yield from _unlike(place, a[key], b[key])
    elif type(a) is type(b) is list and len(a) == len(b):
        for i, (left, right) in enumerate(zip(a, b, strict=True)):
            yield from _unlike(f"{where}[{i}]", left, right)
    elif type(a) is not type(b) or repr(a) != repr(b):
        said = [_short(side, 60) for side in (a, b)]
        later = " (further on)" if said[0] == said[1] else ""
        yield f"{where}: {said[0]} against {said[1]}{later}"


def _difference(a: Array, b: Array) -> str:
    """How two arrays differ; empty if they are equal to the bit."""
    if a.dtype != b.dtype or a.shape != b.shape:
        said = [f"{layout.DTYPE_NAMES[x.dtype]}{list(x.shape)}" for x in (a, b)]
        return f"{said[0]} against {said[1]}"
    left, right = (np.asarray(x, order="C").reshape(-1).view(np.uint8) for x in (a, b))
    unlike = (left != right).reshape(-1, a.dtype.itemsize).any(axis=1)
    if not unlike.any():
        return ""
    values = [dtypes.cast(x, dtypes.computing(x.dtype)).reshape(-1)[unlike] for x in (a, b)]
    distance = _largest_distance(*values)
    return f"{int(unlike.sum()):,} of {a.size:,} elements differ, by {distance} at most"


def _largest_distance(a: Array, b: Array) -> str:
    if a.dtype.kind in "iu":
        # The distance of two 64-bit integers fits 64 bits without a sign; wrapped subtraction of
        # the smaller one gives it.
        larger, smaller = np.maximum(a, b).astype(np.uint64), np.minimum(a, b).astype(np.uint64)
        return f"{int((larger - smaller).max()):,}"
    with np.errstate(all="ignore"):
        distance = np.abs(a.astype(np.float64) - b.astype(np.float64))
    return f"{np.nanmax(distance):.3g}" if not np.isnan(distance).all() else "NaN"


# ---- convert


@_command(
    "write weights in another format", "runs/gpt model.safetensors", _SOURCE, _TARGET, _OVERWRITE
)
def convert(options: Namespace) -> int:
    """Write the weights of one file in another format."""
    target = options.target
    if ending_of(target) and Path(target).exists() and not options.overwrite:
        refuse("convert", f"{target} exists already", "name another file, or add --overwrite")
    with within_memory("convert", options.source):
        content = convert_file(_model_in("convert", options.source), target)
    dropped = ending_of(target) == ".npz" and content.meta
    lost = " (an npz archive has no room for the meta)" if dropped else ""
    nbytes = sum(array.nbytes for array in content.values())
    print(f"{len(content)} tensors, {nbytes:,} bytes -> {printable(target)}{lost}")
    return 0
