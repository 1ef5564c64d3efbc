"""The folder of a run: `model.mgrd`, which holds the weights, and in its meta the model's config,
its tokenizer and how it was made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from minigrad.errors import ConfigError, DataError, FormatError, MinigradError, StateDictError
from minigrad.files import StateDict, load, load_checkpoint, peek, save
from minigrad.models import GPT, GPTConfig
from minigrad.text import Tokenizer, tokenizer_from_state

WEIGHTS, CHECKPOINTS = "model.mgrd", "checkpoints"


def make_folder(wanted: str | None, overwrite: bool) -> tuple[Path, list[Path]]:
    """Make the folder for a new run, `wanted`, or the first of runs/gpt, runs/gpt-2, ... that is
    free. Return it and which of it and its parents were not there before, innermost first.

    Raises ConfigError if there is a model in the wanted one already, unless it may be overwritten.
    """
    if wanted is None:
        names = (Path("runs") / ("gpt" if n == 1 else f"gpt-{n}") for n in range(1, 1_000_000))
        folder = next(path for path in names if not path.exists())
    else:
        folder = Path(wanted)
        if (folder / WEIGHTS).exists() and not overwrite:
            problem = f"{folder} holds a model already"
            hint = "name another --out, or say --overwrite"
            raise ConfigError("train", problem, got=str(folder), wanted="a new folder", hint=hint)
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return folder, missing


def new_folder(wanted: str | None, overwrite: bool) -> Path:
    """Make the folder for a new run and return it; see `make_folder`."""
    return make_folder(wanted, overwrite)[0]


@contextlib.contextmanager
def kept_if_used(folder: Path, missing: list[Path]) -> Iterator[None]:
    """Remove the folders of a new run, of which `missing` were not there before, if nothing was
    written to them: a run that could not even begin leaves nothing behind.
    """
    try:
        yield
    finally:
        checkpoints = folder / CHECKPOINTS
        if folder in missing and {path.name for path in folder.rglob("*")} <= {CHECKPOINTS, "lock"}:
            (checkpoints / "lock").unlink(missing_ok=True)
            for empty in (checkpoints, *missing):
                with contextlib.suppress(OSError):
                    empty.rmdir()


def save_model(folder: Path, model: GPT, tokenizer: Tokenizer, run: Mapping[str, Any]) -> None:
    """Write the model to its folder; `run` are facts for the reader: steps, losses, options."""
    meta = {"model": asdict(model.config), "tokenizer": tokenizer.state(), "run": dict(run)}
    save(folder / WEIGHTS, model.state_dict(), meta=meta)


def last_of_model(folder: Path) -> tuple[Any, Any]:
    """(step, validation loss) of the model in a run's folder; (None, None) if there is none that is
    good.
    """
    try:
        run = peek(folder / WEIGHTS).meta.get("run")
    except FormatError:
        return None, None
    return (run.get("step"), run.get("val_loss")) if isinstance(run, dict) else (None, None)


def load_model(place: str) -> tuple[GPT, Tokenizer]:
    """Return the model of a run's folder, of a weight file or of a checkpoint, and its tokenizer.
    Raises an error that names what is missing.
    """
    path = Path(place)
    if path.is_dir():
        path = path / WEIGHTS
        if not path.exists():
            problem = f"{place} holds no {WEIGHTS}"
            hint = f"train one: minigrad train --out {place}"
            raise ConfigError("load_model", problem, got=place, wanted=WEIGHTS, hint=hint)
    state_dict = _checkpoint(path) or load(path)
    if not {"model", "tokenizer"} <= state_dict.meta.keys():
        raise ConfigError(
            "load_model",
            f"{path} is not a model made by minigrad train: its meta has no config and tokenizer",
            got=sorted(state_dict.meta),
            wanted=["model", "tokenizer"],
        )
    tokenizer = _tokenizer_of(path, state_dict.meta["tokenizer"])
    model = _model_of(path, state_dict, tokenizer)
    model.eval()
    return model, tokenizer


def _checkpoint(path: Path) -> StateDict | None:
    """The weights of a checkpoint of `minigrad train`, with the meta of a model; None for a file of
    weights.
    """
    if path.suffix != ".mgrd" or peek(path).kind != "checkpoint":
        return None
    found = load_checkpoint(path)
    try:
        options, state = found.state["options"], found.state["tokenizer"]
        sizes = {name: options[name] for name in ("block_size", "n_layer", "n_head", "n_embd")}
        size = tokenizer_from_state(state).vocab_size
    except (KeyError, TypeError, DataError):
        return None
    meta = {"model": {"vocab_size": size, **sizes}, "tokenizer": state}
    return StateDict(dict(found.weights), replace(found.info, meta=meta))


def _tokenizer_of(path: Path, state: Any) -> Tokenizer:
    try:
        return tokenizer_from_state(state)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        problem = (
            error.problem
            if isinstance(error, MinigradError)
            else "its state is not that of a tokenizer"
        )
        problem = f"the tokenizer in {path} cannot be read: {problem}"
        hint = f"minigrad inspect {path} shows what there is"
        raise ConfigError("load_model", problem, got=state, hint=hint) from error


def _model_of(path: Path, state_dict: StateDict, tokenizer: Tokenizer) -> GPT:
    """The GPT that the file's meta describes, with the file's weights."""
    sizes = state_dict.meta["model"]
    try:
        model = GPT(GPTConfig(**sizes))
        model.load_state_dict(state_dict)
    except (TypeError, StateDictError) as error:
        problem = f"the weights in {path} are not those of the model that its meta describes"
        hint = f"minigrad inspect {path} shows both"
        raise ConfigError("load_model", problem, got=sizes, hint=hint) from error
    if tokenizer.vocab_size != model.config.vocab_size:
        raise ConfigError(
            "load_model",
            f"{path} has {tokenizer.vocab_size} tokens in its tokenizer and "
            f"{model.config.vocab_size} in its model",
            got=tokenizer.vocab_size,
            wanted=model.config.vocab_size,
        )
    return model
