"""Resuming a run: what a checkpoint holds besides the weights, and whether the options and the text
are still those of the run.

A run that was stopped or killed continues to the bit: weights, moments, schedule, the random
stream, and the step, from which the batches follow.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.cli.options import near, refuse
from minigrad.cli.recipe import FORMER, kind_of
from minigrad.cli.run_folder import (
    CHECKPOINTS,
    Base,
    base_in,
    load_model,
    merged_file,
    refusing_damage,
)
from minigrad.columns import columns
from minigrad.distributed import broadcast, is_first
from minigrad.errors import ConfigError, MinigradError
from minigrad.files import Checkpoint, CheckpointFolder
from minigrad.finetune import base_digest
from minigrad.ops.parallel import find_blas
from minigrad.train import Trainer

Change = tuple[str, Any, Any]  # field, saved, now

# These may differ without changing the numbers. The text is compared by its content.
FREE = {"text", "sample", "eval_interval", "save_interval"}

# How a run was called and where its folder is are not part of it: equal runs in two folders give
# equal files.
_CALL = {
    *("accept", "base", "config", "given", "merge", "minutes", "out", "overwrite", "resume", "set"),
    "stop_at",
}


def chosen(options: Namespace) -> dict[str, Any]:
    """Return the options of the run as plain values, for its files."""
    return {name: escaped(v) for name, v in vars(options).items() if name not in _CALL}


def escaped(value: Any) -> Any:
    """Escape what is not UTF-8, as in a path."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def run_to_resume(options: Namespace) -> Path:
    """Return the folder of `--resume`. Raises ConfigError for options that do not go with it, or a
    folder without checkpoints.
    """
    if options.out is not None or options.overwrite:
        hint = "leave --out and --overwrite out, or copy the folder"
        refuse("train", "--resume continues the run in its own folder", hint)
    if options.minutes is not None:
        hint = "leave it out; to go further, give more --steps and --accept steps"
        refuse("train", "--minutes is for a new run: it sets --steps", hint)
    if not Path(options.resume, CHECKPOINTS).is_dir():
        hint = "start one: minigrad train --out DIR"
        refuse("train", f"{options.resume} is not the folder of a run", hint)
    return Path(options.resume)


def last_checkpoint(folder: CheckpointFolder) -> Checkpoint:
    """Return the latest good checkpoint, read by rank 0; report damaged ones. Raises ConfigError if
    there is none.
    """
    found = broadcast(folder.load_latest() if is_first() else None)
    for error in folder.damaged:
        print(f"passed over a damaged checkpoint: {error.problem}", file=sys.stderr)
    if found is None:
        hint = "start a run there: minigrad train --out DIR"
        refuse("train", f"{folder.folder.parent} holds no checkpoint to resume from", hint)
    return found


def take_over(options: Namespace, found: Checkpoint) -> list[Change]:
    """Set every option that was not given to its saved value; return those that were given and
    change the run.
    """
    _refuse_other_command(options, found.state["options"])
    changed = []
    # Runs from before there was a choice had these.
    saved = {"jit": False, "parts": 1, "matmul": "float32", **FORMER, **found.state["options"]}
    for name, value in saved.items():
        # Evaluations count where patience does.
        free = name in FREE and not (name == "eval_interval" and saved.get("patience"))
        if name not in options.given:
            setattr(options, name, value)
        elif not free and getattr(options, name) != value:
            changed.append((name, value, getattr(options, name)))
    if options.optimizer != saved["optimizer"]:  # the rate of one does not suit another
        for name in {"lr", "weight_decay"} - options.given:
            setattr(options, name, None)
    return changed


def _refuse_other_command(options: Namespace, saved: Mapping[str, Any]) -> None:
    """Raise ConfigError if `finetune --resume` is not how this run goes on: `train` made it, or its
    adapters are merged in place.
    """
    place = options.resume
    if "architecture" in vars(options) and "architecture" not in saved:
        hint = f"continue it with minigrad train --resume {place}"
        refuse("finetune", f"the run in {place} was made by minigrad train", hint)
    if saved.get("lora") and (file := merged_file(Path(place))):
        problem = f"{file} is the run's model with its adapters merged, which would be removed"
        hint = f"tune it with minigrad finetune --model {place}, or remove it to go on without it"
        refuse("finetune", problem, hint)


def differences(found: Checkpoint, data: Mapping[str, Any]) -> Iterator[Change]:
    """Yield what differs from the resumed run and is not an option: the text, by its identity, and
    the optimizer.
    """
    state = found.state
    if state["data"] != data:
        pair = (state["data"], data)
        texts = [f"{d['characters']:,} characters, sha256 {d['sha256'][:12]}" for d in pair]
        yield "data", texts[0], texts[1]
    wanted = kind_of(state["options"].get("optimizer", "adamw"))
    if state["optimizer"]["kind"] != wanted:
        yield "optimizer", state["optimizer"]["kind"], wanted


def refuse_changes(changed: list[Change], options: Namespace) -> None:
    """Print the table of changes and raise ConfigError, unless `--accept` names all of them."""
    accepted = accepted_names(options)
    odd = [row for row in changed if row[0] not in accepted]
    if not odd:
        return
    rows = [("field", "saved", "now"), *(tuple(map(str, row)) for row in odd)]
    print(*columns(rows, 3, " | "), sep="\n", file=sys.stderr)
    hint = f"leave it as it was, or add --accept {','.join(row[0] for row in odd)}"
    raise ConfigError("train", "this is not the run that was saved", got=odd, hint=hint)


def accepted_names(options: Namespace) -> list[str]:
    """Return what `--accept` names. Raises ConfigError for a name that cannot differ."""
    known = sorted(({*chosen(options), "data"} - FREE) | {"eval_interval"})
    names = [name.replace("-", "_") for name in options.accept or ()]
    for name in names:
        if name not in known:
            hint = near(name, known, f"known: {', '.join(known)}")
            refuse("train", f"--accept: a run has no {name!r} that could differ", hint)
    return names


def tunes_published(options: Namespace) -> bool:
    """True for a run of adapters on a published model: its architecture is in the model's file."""
    return "architecture" in vars(options) and options.architecture is None


def base_of(options: Namespace, found: Checkpoint) -> Base | None:
    """Return the published model that a resumed run tunes; None for another run. Raises ConfigError
    if it is not there, or has other weights than the run began with.
    """
    if not tunes_published(options):
        return None
    place = vars(options).get("base") or base_in(options.model, Path(found.path))
    base = load_model(place)
    if base_digest(base[0]).tobytes().hex() != found.state["base"]:
        problem = f"{place} is not the model that the run in {options.resume} tunes"
        refuse("finetune", f"{problem}: its weights differ", "name that one: --base PLACE")
    return base


def restore(trainer: Trainer, found: Checkpoint) -> None:
    """Put the trainer where the checkpoint was taken. Learning rate and weight decay are those of
    the options, which are saved or accepted; what is not an option of the optimizer stays as it
    was. An optimizer of another kind starts without moments.
    """
    now, state = trainer.state_dict(), found.state
    same = state["optimizer"]["kind"] == now["optimizer"]["kind"]
    kept = state["optimizer"] if same else now["optimizer"]
    groups = [
        {**was, **{name: group[name] for name in ("lr", "initial_lr", "weight_decay")}}
        for was, group in zip(kept["param_groups"], now["optimizer"]["param_groups"], strict=True)
    ]
    optimizer = {**kept, "param_groups": groups}
    schedule = {**state["schedule"], "base_lrs": now["schedule"]["base_lrs"]}
    trainer.restore(replace(found, state={**state, "optimizer": optimizer, "schedule": schedule}))


def text_identity(text: str) -> dict[str, Any]:
    """Return what identifies a training text."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return {"sha256": digest, "characters": len(text)}


def environment() -> dict[str, str]:
    """Return what decides the last bits of a matrix product: numpy, its BLAS and the kernels that
    it chose, the processor's instructions.
    """
    library, built = find_blas(), np.show_config(mode="dicts")
    assert isinstance(built, dict)
    blas = built.get("Build Dependencies", {}).get("blas", {})
    simd = built.get("SIMD Extensions", {}).get("found", [])
    return {
        "numpy": np.__version__,
        "BLAS": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
        "BLAS kernels": library.kernels if library else "unknown",
        "processor": " ".join(simd) or "baseline",
    }


def warn_of_changes(saved: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Report what changed about the machine and changes the last bits."""
    for name in saved.keys() & now.keys():
        if now[name] != saved[name]:
            change = f"{name} was {saved[name]} and is {now[name]}"
            effect = "the run goes on, but is equal only to rounding"
            print(f"warning: {change}: {effect}", file=sys.stderr)


def state_of_a_run(found: Checkpoint) -> contextlib.AbstractContextManager[None]:
    """Raise ConfigError for what a state raises that `minigrad train` did not write."""
    problem = f"the state in {found.path} is not that of a run of minigrad train"
    return refusing_damage("train", found.path, problem, passing=MinigradError)
