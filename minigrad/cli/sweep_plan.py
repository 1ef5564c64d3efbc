"""From a sweep's settings to its runs: a name and the options of `minigrad train` for each."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import math
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from minigrad.cli import train
from minigrad.cli.arguments import Parser
from minigrad.cli.toml import read_toml
from minigrad.errors import ConfigError

_KEYS = {"out", "search", "runs", "seed", "train", "sweep"}
_OURS = {
    "out",
    "resume",
    "overwrite",
    "accept",
    "config",
    "set",
}  # options that a sweep decides by itself


@dataclass(frozen=True)
class Run:
    """One training run: its name, which is its folder's, what varies, and all of its options."""

    name: str
    varied: dict[str, Any]
    options: dict[str, Any]

    def arguments(self) -> list[str]:
        """The options as `minigrad train` takes them on its command line."""
        return [
            f"--set={name}={str(value).lower()}"
            if isinstance(value, bool)
            else f"--{name.replace('_', '-')}={value}"
            for name, value in self.options.items()
        ]


@dataclass(frozen=True)
class Plan:
    """Where the runs go, and the runs."""

    folder: Path
    runs: list[Run]


def read_plan(path: str) -> Plan:
    """The plan that a TOML file describes. Raises ConfigError for everything in it that makes no
    sense.
    """
    settings = read_toml("sweep", path)
    if unknown := sorted(settings.keys() - _KEYS):
        raise _wrong(
            f"{path} has {unknown[0]!r} outside of [train] and [sweep]",
            hint="known there: out, search, runs, seed",
        )
    fixed, varied = _table(settings, "train"), _table(settings, "sweep")
    if not varied:
        raise _wrong(f"{path} varies nothing", hint="a table [sweep] with e.g. lr = [0.001, 0.003]")
    if both := sorted(fixed.keys() & varied.keys()):
        raise _wrong(
            f"{both[0]} stands both in [train] and in [sweep]", hint="leave one of the two out"
        )
    search = settings.get("search", "grid")
    if search not in ("grid", "random"):
        raise _wrong(f"search = {search!r}", hint='search = "grid" or search = "random"')
    if search == "grid" and (idle := sorted(settings.keys() & {"runs", "seed"})):
        raise _wrong(
            f"{idle[0]} = {settings[idle[0]]!r} has no use in a grid",
            hint='search = "random", or leave it out',
        )
    points = _grid(varied) if search == "grid" else _random(varied, settings)
    folder = settings.get("out", f"runs/{Path(path).stem}")
    if not isinstance(folder, str) or not folder:
        raise _wrong(f"out = {folder!r}", hint='out = "runs/sweep"')
    runs = [Run(_name(point), point, {"sample": 0, **fixed, **point}) for point in points]
    for run in runs:
        parse(run)
    return Plan(Path(folder), runs)


def parse(run: Run) -> argparse.Namespace:
    """The run's options as `minigrad train` understands them. Raises ConfigError for those that it
    does not.
    """
    parser: Parser = _Checker(prog="minigrad sweep")
    train.add_to(parser.add_subparsers(dest="command"))
    return parser.parse_args(["train", *run.arguments()])


class _Checker(Parser):
    def error(self, message: str) -> NoReturn:
        raise _wrong(
            message,
            hint="[train] and [sweep] take the options of minigrad train: see minigrad train "
            "--help",
        )


def _table(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A table of options, each spelled with underscores."""
    table = settings.get(name, {})
    if not isinstance(table, dict):
        raise _wrong(
            f"{name} = {table!r} is no table",
            hint=f"write [{name}] in a line of its own, the options below it",
        )
    options = {key.replace("-", "_"): value for key, value in table.items()}
    if ours := sorted(options.keys() & _OURS):
        raise _wrong(
            f"[{name}] has {ours[0]}, which a sweep decides by itself",
            hint="out = ... at the top names the folder",
        )
    return options


def _grid(varied: dict[str, Any]) -> list[dict[str, Any]]:
    """Every combination of the values, the last option varying fastest."""
    for name, values in varied.items():
        if not isinstance(values, list) or not values:
            raise _wrong(
                f"[sweep] {name} = {values!r}",
                hint=f'a list of values: {name} = [1, 2]; ranges are for search = "random"',
            )
        if len({repr(value) for value in values}) < len(values):
            raise _wrong(
                f"[sweep] {name} = {values!r} has a value twice",
                hint="two runs in one folder would be in each other's way",
            )
    return [dict(zip(varied, point, strict=True)) for point in itertools.product(*varied.values())]


def _random(varied: dict[str, Any], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`runs` different points, a function of `seed`: more runs go on where fewer have ended."""
    count, seed = settings.get("runs", 10), settings.get("seed", 0)
    for name, value in (("runs", count), ("seed", seed)):
        if not isinstance(value, int) or isinstance(value, bool) or value < (name == "runs"):
            raise _wrong(f"{name} = {value!r}", hint=f"{name} is a whole number")
    generator = random.Random(seed)
    points: list[dict[str, Any]] = []
    for _ in range(100 * count):  # there may be fewer different points than runs
        point = {name: _drawn(name, values, generator) for name, values in varied.items()}
        if point not in points:
            points.append(point)
        if len(points) == count:
            break
    return points


def _drawn(name: str, values: Any, generator: random.Random) -> Any:
    """A value from a list, or from a range {low, high}: whole if both are, else of four digits; log
    = true draws its logarithm evenly.
    """
    if isinstance(values, list) and values:
        return values[int(generator.random() * len(values))]
    wrong = _wrong(
        f"[sweep] {name} = {values!r}",
        hint=f"a list of values, or {name} = {{ low = 1e-4, high = 1e-2, log = true }}",
    )
    if not isinstance(values, dict) or not {"low", "high"} <= values.keys() <= {
        "low",
        "high",
        "log",
    }:
        raise wrong
    low, high, log = values["low"], values["high"], values.get("log", False)
    numbers = all(
        isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x)
        for x in (low, high)
    )
    if not numbers or not low < high or (log and low <= 0) or not isinstance(log, bool):
        raise wrong
    whole = isinstance(low, int) and isinstance(high, int)
    a, b = (low, high + 1) if whole else (low, high)
    u = generator.random()
    x = math.exp(math.log(a) + u * (math.log(b) - math.log(a))) if log else a + u * (b - a)
    return min(int(x), high) if whole else float(f"{x:.4g}")


def _name(point: dict[str, Any]) -> str:
    """A folder name that tells the point; what a file system may not like is replaced, and told
    apart by a hash.
    """
    plain = ",".join(f"{name}={value}" for name, value in point.items())
    name = re.sub(r"[^\w.,=+-]+", "-", plain)[:100]
    return name if name == plain else f"{name}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}"


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """How a run's saved options differ from those it is to have now."""
    for name in sorted(saved.keys() | now.keys()):
        was, now_is = (x.get(name, "the default") for x in (saved, now))
        if was != now_is:
            yield f"{name} was {was} and is {now_is}"


def _wrong(problem: str, hint: str) -> ConfigError:
    return ConfigError("sweep", problem, hint=hint)
