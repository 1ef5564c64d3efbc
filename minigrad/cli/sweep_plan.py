"""From a sweep's settings to its runs: a name and the options of `minigrad train` for each."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import re
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigrad.cli.options import read_toml, refuse
from minigrad.cli.train import COMMAND as TRAIN
from minigrad.errors import ConfigError

_KEYS = {"out", "search", "runs", "seed", "train", "sweep"}
_OURS = {"out", "resume", "overwrite", "accept", "config", "set"}  # what a sweep decides by itself
_RANGE = "{ low = 1e-4, high = 1e-2, log = true }"


@dataclass(frozen=True)
class Run:
    """One training run: its name, which is its folder's, what varies, and all of its options."""

    name: str
    varied: dict[str, Any]
    options: dict[str, Any]

    def arguments(self) -> list[str]:
        """Return the options for the command line of `minigrad train`."""
        return [
            f"--set={name}={str(value).lower()}"
            if isinstance(value, bool)
            else f"--{name.replace('_', '-')}={value}"
            for name, value in self.options.items()
        ]


@dataclass(frozen=True)
class Plan:
    """The folder of the runs, and the runs."""

    folder: Path
    runs: list[Run]


def read_plan(path: str) -> Plan:
    """Return the plan that a TOML file describes. Raises ConfigError for anything invalid in it."""
    settings = read_toml("sweep", path)
    if unknown := sorted(settings.keys() - _KEYS):
        problem = f"{path} has {unknown[0]!r} outside of [train] and [sweep]"
        refuse("sweep", problem, "known there: out, search, runs, seed")
    fixed, varied = _table(settings, "train"), _table(settings, "sweep")
    if not varied:
        refuse("sweep", f"{path} varies nothing", "a table [sweep] with e.g. lr = [0.001, 0.003]")
    if both := sorted(fixed.keys() & varied.keys()):
        refuse("sweep", f"{both[0]} stands both in [train] and in [sweep]")
    search, folder = settings.get("search", "grid"), settings.get("out", f"runs/{Path(path).stem}")
    if search not in ("grid", "random"):
        refuse("sweep", f"search = {search!r}", 'search = "grid" or search = "random"')
    if search == "grid" and (idle := sorted(settings.keys() & {"runs", "seed"})):
        problem = f"{idle[0]} = {settings[idle[0]]!r} has no use in a grid"
        refuse("sweep", problem, 'search = "random", or leave it out')
    if not isinstance(folder, str) or not folder:
        refuse("sweep", f"out = {folder!r}", 'out = "runs/sweep"')
    points = _grid(varied) if search == "grid" else _random(varied, settings)
    runs = [Run(_name(point), point, {"sample": 0, **fixed, **point}) for point in points]
    for run in runs:
        parse(run)
    return Plan(Path(folder), runs)


def parse(run: Run) -> Namespace:
    """Return the run's options as `minigrad train` has them. Raises ConfigError for an unknown one
    and for a bad value.
    """
    try:
        return TRAIN.complete(TRAIN.settings("", run.options.items()))
    except ConfigError as error:
        hint = error.hint or "[train] and [sweep] take the options of minigrad train --help"
        refuse("sweep", error.problem, hint)


def _table(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a table of options, each spelled with underscores."""
    table = settings.get(name, {})
    if not isinstance(table, dict):
        hint = f"write [{name}] in a line of its own, the options below it"
        refuse("sweep", f"{name} = {table!r} is not a table", hint)
    options = {key.replace("-", "_"): value for key, value in table.items()}
    if ours := sorted(options.keys() & _OURS):
        problem = f"[{name}] has {ours[0]}, which a sweep decides by itself"
        refuse("sweep", problem, "out = ... at the top names the folder")
    return options


def _grid(varied: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every combination of the values, the last option varying fastest."""
    for name, values in varied.items():
        if not isinstance(values, list) or not values:
            hint = f'a list of values: {name} = [1, 2]; ranges are for search = "random"'
            refuse("sweep", f"[sweep] {name} = {values!r}", hint)
        if len({repr(value) for value in values}) < len(values):
            hint = "each value gets a folder of its own"
            refuse("sweep", f"[sweep] {name} = {values!r} has a value twice", hint)
    return [dict(zip(varied, point, strict=True)) for point in itertools.product(*varied.values())]


def _random(varied: dict[str, Any], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return `runs` distinct points, a function of `seed`; more runs start with the same ones."""
    count, seed = settings.get("runs", 10), settings.get("seed", 0)
    for name, value in (("runs", count), ("seed", seed)):
        if type(value) is not int or value < (name == "runs"):
            refuse("sweep", f"{name} = {value!r}", f"{name} is a whole number")
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
    """Draw a value from a list, or from a range {low, high}: an integer if both are, else a float
    of four digits; log = true draws its logarithm evenly.
    """
    if isinstance(values, list) and values:
        return values[int(generator.random() * len(values))]
    facts: dict[str, Any] = values if isinstance(values, dict) else {}
    low: Any = facts.get("low")
    high: Any = facts.get("high")
    log = facts.get("log", False)
    numbers = all(type(x) in (int, float) and math.isfinite(x) for x in (low, high))
    known = facts.keys() <= {"low", "high", "log"} and isinstance(log, bool)
    if not (numbers and known and low < high and (low > 0 or not log)):
        refuse("sweep", f"[sweep] {name} = {values!r}", f"a list of values, or {name} = {_RANGE}")
    whole = isinstance(low, int) and isinstance(high, int)
    a, b = (low, high + 1) if whole else (low, high)
    u = generator.random()
    x = math.exp(math.log(a) + u * (math.log(b) - math.log(a))) if log else a + u * (b - a)
    return min(int(x), high) if whole else float(f"{x:.4g}")


def _name(point: dict[str, Any]) -> str:
    """Return a folder name that tells the point. Characters that a file system may not like are
    replaced, and a hash is added.
    """
    plain = ",".join(f"{name}={value}" for name, value in point.items())
    name = re.sub(r"[^\w.,=+-]+", "-", plain)[:100]
    return name if name == plain else f"{name}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}"


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield how a run's saved options differ from those it is to have now."""
    for name in sorted(saved.keys() | now.keys()):
        was, now_is = (x.get(name, "the default") for x in (saved, now))
        if was != now_is:
            yield f"{name} was {was} and is {now_is}"
