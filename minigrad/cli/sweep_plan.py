"""What the TOML file of a sweep describes: the options that vary, how they are searched, and the
steps at which runs are compared.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minigrad.cli.options import DIR, Option, Table, one_of, read_toml, refuse, whole
from minigrad.cli.train import COMMAND

SEARCHES = ("grid", "random", "tpe")
_TABLES = ("train", "sweep")
_ROWS = (
    Option("out", DIR, None, "the folder"),
    Option("search", one_of(*SEARCHES), "grid", "how settings are drawn"),
    Option("runs", whole(1), 10, "how many"),
    Option("seed", whole(0), 0, "of the draws"),
    Option("round", whole(1), 8, "settings that are drawn at once"),
    Option("halving", whole(1), 1, "of this many runs one goes on"),
)
_KEYS, _TRAIN = Table("sweep", _ROWS), Table("sweep", COMMAND.options)
_UNUSED = {"grid": {"runs", "seed", "round"}, "random": {"round"}, "tpe": set[str]()}  # by a search
# What a sweep decides by itself
_OURS = {"out", "resume", "overwrite", "accept", "config", "set", "stop_at", "minutes"}
_RANGE = "{ low = 1e-4, high = 1e-2, log = true }"


@dataclass(frozen=True)
class Plan:
    """A sweep. round: the settings that are drawn at once, and compared with each other.
    halving: at each rung the best of every `halving` runs go on; 1 for all of them.
    """

    folder: Path
    search: str
    fixed: dict[str, Any]
    varied: dict[str, Any]  # a list of values, or a range {low, high, log}
    runs: int
    seed: int
    round: int
    halving: int

    @property
    def name(self) -> str:
        """The name of the study: equal for equal settings. More runs continue a study."""
        facts = {k: v for k, v in asdict(self).items() if k not in ("folder", "runs")}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]

    def options(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of `minigrad train` for a run with the values of `point`."""
        evaluated = {"eval_interval": self.rungs(point)[0]} if self.halving > 1 else {}
        return {"sample": 0, **evaluated, **self.fixed, **point}

    def arguments(self, point: Mapping[str, Any]) -> list[str]:
        """Return these options as a command line has them."""
        options = self.options(point).items()
        plain = [f"--{k.replace('_', '-')}={v}" for k, v in options if not isinstance(v, bool)]
        return plain + [f"--set={k}={str(v).lower()}" for k, v in options if isinstance(v, bool)]

    def rungs(self, point: Mapping[str, Any]) -> list[int]:
        """Return the steps at which the run is compared with the others; the last step is one."""
        options = parse({**self.fixed, **point})
        levels = 0
        while self.halving ** (levels + 1) <= self.round and self.halving > 1:
            levels += 1
        every = options.eval_interval if "eval_interval" in options.given else 1
        first = math.ceil(options.steps / self.halving**levels / every) * every
        rungs = (first * self.halving**level for level in range(levels))
        return [*(step for step in rungs if step < options.steps), options.steps]

    def folder_of(self, point: Mapping[str, Any]) -> Path:
        """Return the folder of a run, named by the point. Characters that a file system may not
        like are replaced, and a hash is added.
        """
        plain = ",".join(f"{name}={value}" for name, value in point.items())
        name = re.sub(r"[^\w.,=+-]+", "-", plain)[:100]
        digest = hashlib.sha256(plain.encode()).hexdigest()[:8]
        return self.folder / (name if name == plain else f"{name}-{digest}")


def read_plan(path: str) -> Plan:
    """Return the plan in a TOML file. Raises ConfigError for anything invalid in it."""
    settings = read_toml("sweep", path)
    own = ((name, value) for name, value in settings.items() if name not in _TABLES)
    keys = _KEYS.complete(_KEYS.settings(f"{path}: ", own))
    fixed, varied = _table(settings, "train"), _table(settings, "sweep")
    if not varied:
        refuse("sweep", f"{path} varies nothing", "a table [sweep] with e.g. lr = [0.001, 0.003]")
    if both := sorted(fixed.keys() & varied.keys()):
        refuse("sweep", f"{both[0]} is both in [train] and in [sweep]")
    search = keys.search
    if unused := sorted(keys.given & _UNUSED[search]):
        problem = f"{unused[0]} = {vars(keys)[unused[0]]} has no use with search = {search!r}"
        refuse("sweep", problem, "leave it out")
    if search == "grid":
        keys.runs = math.prod(len(_values(name, values, ())) for name, values in varied.items())
    if search != "tpe":
        keys.round = keys.runs
    parse(fixed)
    for name, values in varied.items():
        for value in _values(name, values, () if search == "grid" else ("low", "high")):
            parse({name: value})
    odd = sorted({"steps", "eval_interval"} & varied.keys())
    if odd and keys.halving > 1:
        refuse("sweep", f"halving compares runs after equal steps, and {odd[0]} varies")
    folder = Path(keys.out or f"runs/{Path(path).stem}")
    return Plan(folder, search, fixed, varied, keys.runs, keys.seed, keys.round, keys.halving)


def parse(options: Mapping[str, Any]) -> Any:
    """Return the options as `minigrad train` has them. Raises ConfigError for an unknown one and
    for a bad value.
    """
    return _TRAIN.complete(_TRAIN.settings("", options.items()))


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


def _values(name: str, values: Any, ends: tuple[str, ...]) -> list[Any]:
    """Return the values of an option that varies; of a range, where `ends` allow one, its ends."""
    if isinstance(values, list) and values:
        if len({repr(value) for value in values}) < len(values):
            hint = "each value gets a folder of its own"
            refuse("sweep", f"[sweep] {name} = {values!r} has a value twice", hint)
        return values
    if not ends:
        hint = f'a list of values: {name} = [1, 2]; ranges are for search = "random" and "tpe"'
        refuse("sweep", f"[sweep] {name} = {values!r}", hint)
    facts: dict[str, Any] = values if isinstance(values, dict) else {}
    low, high, log = (facts.get(key, False) for key in (*ends, "log"))
    numbers = all(type(x) in (int, float) and math.isfinite(x) for x in (low, high))
    known = facts.keys() <= {*ends, "log"} and isinstance(log, bool)
    if not (numbers and known and low < high and (low > 0 or not log)):
        refuse("sweep", f"[sweep] {name} = {values!r}", f"a list of values, or {name} = {_RANGE}")
    return [low, high]
