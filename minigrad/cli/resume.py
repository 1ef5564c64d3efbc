"""Going on with a run: what a checkpoint holds beside the weights, and whether this run is still
that one.

A run that was stopped or killed goes on to the bit: weights, moments, schedule, the random stream,
and the step, from which the batches follow.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.cli.recipe import kind_of
from minigrad.cli.run_folder import CHECKPOINTS
from minigrad.compiler.blas import find_blas
from minigrad.errors import ConfigError, MinigradError
from minigrad.files import Checkpoint, CheckpointFolder
from minigrad.text import Tokenizer
from minigrad.train import Trainer

# What may differ without changing the numbers: where things lie, what is shown, and when it is
# saved. The text is compared by its content.
FREE = {"text", "out", "overwrite", "sample", "eval_interval", "save_interval"}

# Where a run lies, and how it was called, is no part of it: equal runs in two folders give equal
# files.
NOT_OF_THE_RUN = {"accept", "command", "configured", "given", "out", "overwrite", "resume", "run"}


def take_over(options: argparse.Namespace, saved: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Set every option that was not given to its saved value; returns (field, saved, now) of those
    that were given and differ.
    """
    changed = []
    # Runs from before there was a choice had these; and evaluations count where patience does.
    saved = {"jit": False, "optimizer": "adamw", "schedule": "cosine", **saved}
    for name, value in saved.items():
        free = name in FREE and not (name == "eval_interval" and saved.get("patience"))
        if name not in options.given:
            setattr(options, name, value)
        elif not free and getattr(options, name) != value:
            changed.append((name, value, getattr(options, name)))
    if options.optimizer != saved["optimizer"]:  # the rate of one is no rate for another
        for name in {"lr", "weight_decay"} - options.given:
            setattr(options, name, None)
    return changed


def accepted_names(options: argparse.Namespace) -> list[str]:
    """What `--accept` names. Raises ConfigError for a name that no row of the table of differences
    can have.
    """
    known = sorted(
        ({*vars(options), "data"} - NOT_OF_THE_RUN - FREE) | {"eval_interval"}
    )  # with --patience, that one counts too
    names = [
        name.strip().replace("-", "_") for name in (options.accept or "").split(",") if name.strip()
    ]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            problem = f"--accept: a run has no {name!r} that could differ"
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ConfigError("train", problem, got=name, wanted=known, hint=hint)
    return names


def last_checkpoint(folder: CheckpointFolder) -> Checkpoint:
    """The latest good checkpoint; says which damaged ones it passes over. Raises ConfigError if
    there is none.
    """
    found = folder.load_latest()
    for error in folder.damaged:
        print(f"passed over a damaged checkpoint: {error.problem}", file=sys.stderr)
    if found is None:
        problem = f"{folder.folder.parent} holds no checkpoint to resume from"
        hint = "start a run there: minigrad train --out DIR"
        raise ConfigError("train", problem, got=str(folder.folder.parent), hint=hint)
    return found


def refuse_changes(changed: list[tuple[str, Any, Any]], accepted: list[str]) -> None:
    """Print the table of what differs from the saved run and raise ConfigError, unless all of it is
    accepted by name.
    """
    odd = [row for row in changed if row[0] not in accepted]
    if not odd:
        return
    rows = [("field", "saved", "now"), *((name, str(saved), str(now)) for name, saved, now in odd)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(),
            file=sys.stderr,
        )
    names = ",".join(row[0] for row in odd)
    problem = "this is not the run that was saved"
    hint = f"leave it as it was, or say --accept {names}"
    raise ConfigError("train", problem, got=odd, hint=hint)


def run_facts(
    options: Mapping[str, Any], text: str, tokenizer: Tokenizer, compiler: str
) -> dict[str, Any]:
    """What a checkpoint of the command holds beside the trainer's state. compiler: what compiled
    the step, if anything did.
    """
    data, surroundings = (
        text_identity(text),
        {**environment(), **({"compiler": compiler} if options["jit"] else {})},
    )
    return {
        "data": data,
        "tokenizer": tokenizer.state(),
        "options": dict(options),
        "environment": surroundings,
    }


def restore(trainer: Trainer, found: Checkpoint) -> None:
    """Put the trainer where the checkpoint was taken. Learning rate and weight decay are those of
    the options: saved or accepted. An optimizer of another kind, if that was accepted, begins
        without moments."""
    now, state = trainer.state_dict(), found.state
    kept = (
        state["optimizer"]
        if state["optimizer"]["kind"] == now["optimizer"]["kind"]
        else now["optimizer"]
    )
    optimizer = {**kept, "param_groups": now["optimizer"]["param_groups"]}
    schedule = {**state["schedule"], "base_lrs": now["schedule"]["base_lrs"]}
    trainer.restore(replace(found, state={**state, "optimizer": optimizer, "schedule": schedule}))


def differences(state: Mapping[str, Any], text: str) -> Iterator[tuple[str, Any, Any]]:
    """(field, saved, now) of what no option tells: the data and the optimizer."""
    if state["data"] != text_identity(text):
        yield "data", _said(state["data"]), _said(text_identity(text))
    wanted = kind_of(state["options"].get("optimizer", "adamw"))
    if state["optimizer"]["kind"] != wanted:
        yield "optimizer", state["optimizer"]["kind"], wanted


def warn_of_changes(saved: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Say what is different about the machine, as far as that changes the last bits."""
    for name in saved.keys() & now.keys():
        if now[name] != saved[name]:
            print(
                f"warning: {name} was {saved[name]} and is {now[name]}: the run goes on, but is "
                "equal only to rounding",
                file=sys.stderr,
            )


def text_identity(text: str) -> dict[str, Any]:
    """What tells one training text from another."""
    return {
        "sha256": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
        "characters": len(text),
    }


def environment() -> dict[str, str]:
    """What the last bits of a matrix product depend on: numpy, its BLAS and the kernels that this
    chose, the processor's instructions.
    """
    library = find_blas()
    built = np.show_config(mode="dicts")
    assert isinstance(built, dict)
    blas = built.get("Build Dependencies", {}).get("blas", {})
    simd = built.get("SIMD Extensions", {}).get("found", [])
    return {
        "numpy": np.__version__,
        "BLAS": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
        "BLAS kernels": library.kernels if library else "unknown",
        "processor": " ".join(simd) or "baseline",
    }


def checkpoint_folder(folder: Path) -> CheckpointFolder:
    """The checkpoints of a run's folder."""
    return CheckpointFolder(folder / CHECKPOINTS, keep=2)


def earlier_run(checkpoints: CheckpointFolder, overwrite: bool) -> list[Path]:
    """The checkpoints of a run that a new one takes the place of; raises ConfigError unless it may
    be overwritten.

    They go when the new run has written its first one: until then nothing is lost if it cannot even
    begin.
    """
    steps = checkpoints.steps()
    if steps and not overwrite:
        folder = checkpoints.folder.parent
        problem = f"{folder} holds checkpoints of a run, up to step {steps[-1][0]}"
        hint = f"go on with it: --resume {folder}; or name another --out, or say --overwrite"
        raise ConfigError("train", problem, got=str(folder), hint=hint)
    return [path for _, path in steps]


@contextlib.contextmanager
def state_of_a_run(found: Checkpoint) -> Iterator[None]:
    """Turn what a state raises that no `minigrad train` has written into a ConfigError."""
    try:
        yield
    except MinigradError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        TypeError,
        ValueError,
    ) as error:
        problem = (
            f"the state in {found.path} is not that of a run of minigrad train: "
            f"{type(error).__name__}: {str(error)[:120]}"
        )
        hint = f"minigrad inspect {found.path} shows it"
        raise ConfigError("train", problem, got=sorted(found.state), hint=hint) from error


def _said(identity: Mapping[str, Any]) -> str:
    return f"{identity['characters']:,} characters, sha256 {identity['sha256'][:12]}"
