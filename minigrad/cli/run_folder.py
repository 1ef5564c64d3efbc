"""The folder of a run: `model.mgrd`, with weights, the model's config, its tokenizer and how it was
made, or `adapters.mgrd`, with what is added to another model; `checkpoints/`; `metrics.jsonl`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.cli.options import DIR, FLAG, REQUIRED, Option, refuse
from minigrad.distributed import on_first
from minigrad.errors import ConfigError, DataError, FormatError, MinigradError, StateDictError
from minigrad.files import CheckpointFolder, StateDict, load, load_checkpoint, peek, save
from minigrad.finetune import BASE as BASE_DIGEST, load_lora, lora_state, merge_lora
from minigrad.models import GPT, GPTConfig, Llama, LlamaConfig, load as load_published
from minigrad.models.gpt import ARCHITECTURES
from minigrad.nn.quantised import blocks_of, expand
from minigrad.text import Tokenizer, tokenizer_from_state
from minigrad.text.published import PublishedTokenizer

WEIGHTS, ADAPTERS, CHECKPOINTS = "model.mgrd", "adapters.mgrd", "checkpoints"
BEST = Option("best", FLAG, False, "use the checkpoint with the lowest loss (default: the model)")
_PLACES = "a run's folder, weights, a checkpoint, a GGUF file, or a published folder"
MODEL = Option("model", DIR, REQUIRED, _PLACES)
BASE = Option("base", DIR, None, "of adapters: their model, if it has moved (default: as saved)")
EXACT = Option("exact", FLAG, False, "expand published weights to float32 (default: as stored)")
INT8 = Option("int8", FLAG, False, "faster published models, logits a bit off (default: float32)")
LOADED = (MODEL, BASE, BEST, EXACT, INT8)  # what `load_asked` takes


Base = tuple[GPT, Tokenizer]  # what `minigrad finetune` starts from


def checkpoint_folder(folder: Path) -> CheckpointFolder:
    """Return the checkpoints of a run."""
    return CheckpointFolder(folder / CHECKPOINTS, keep=2)


def refuse_to_replace(folder: Path, overwrite: bool) -> None:
    """Raise an error if a new run cannot have this folder: it is a file, or holds another run and
    may not be overwritten.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))
    if overwrite and (folder / CHECKPOINTS).is_dir():
        with on_first(checkpoint_folder(folder)):  # raises LockedError if it is in use
            return
    if overwrite:
        return
    if model_file(folder):
        refuse("train", f"{folder} holds a model already", "name another --out, or add --overwrite")
    if steps := checkpoint_folder(folder).steps():
        problem = f"{folder} holds checkpoints of a run, up to step {steps[-1][0]}"
        hint = f"continue it with --resume {folder}, name another --out, or add --overwrite"
        refuse("train", problem, hint)


def refuse_unwritable(folder: Path) -> None:
    """Raise ConfigError if this folder, or the nearest above it, cannot be written to."""
    above = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not os.access(above, os.W_OK | os.X_OK):
        refuse("train", f"{above} cannot be written to", "name a folder elsewhere: --out DIR")


def new_folder(wanted: str | None, overwrite: bool) -> Path:
    """Make the folder for a new run and return it: `wanted`, or the first of runs/gpt, runs/gpt-2,
    ... that does not exist. Raises ConfigError if the wanted one holds a run, unless `overwrite`.
    """
    if wanted is not None:
        refuse_to_replace(Path(wanted), overwrite)
        Path(wanted).mkdir(parents=True, exist_ok=True)
        return Path(wanted)
    folder, n = Path("runs", "gpt"), 1
    while True:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
        n += 1
        folder = folder.with_name(f"gpt-{n}")


def save_model(folder: Path, model: GPT, tokenizer: Tokenizer, run: Mapping[str, Any]) -> None:
    """Write the model to its folder; `run` are facts for the reader: steps, losses, options."""
    meta = {"model": asdict(model.config), "tokenizer": tokenizer.state(), "run": dict(run)}
    save(folder / WEIGHTS, model.state_dict(), meta=meta)


def save_adapters(folder: Path, model: GPT, base: str, run: Mapping[str, Any]) -> None:
    """Write the adapters of a model alone, with the place of the model that they were made for."""
    save(folder / ADAPTERS, lora_state(model), meta={"base": base, "run": dict(run)})
    (folder / WEIGHTS).unlink(missing_ok=True)  # merged from earlier adapters


def model_file(folder: Path) -> Path | None:
    """Return the file with the weights of a run, or with its adapters; None if there is none."""
    return next((folder / n for n in (WEIGHTS, ADAPTERS) if (folder / n).exists()), None)


def facts_of_model(folder: Path) -> dict[str, Any]:
    """Return the facts in the folder's model, such as step and val_loss; {} if it is missing or
    damaged.
    """
    try:
        run = peek(model_file(folder) or folder).meta.get("run")
    except (FormatError, OSError):
        return {}
    return run if isinstance(run, dict) else {}


def merged_file(folder: Path) -> Path | None:
    """Return the folder's model if `minigrad finetune --merge` made it, else None."""
    file, options = folder / WEIGHTS, facts_of_model(folder).get("options")
    return file if file.exists() and isinstance(options, dict) and options.get("lora") else None


def is_published(place: Path) -> bool:
    """True for a GGUF file, and for a folder with a config.json that is not a run's."""
    inside = place.is_dir() and (place / "config.json").exists()
    return place.suffix.lower() == ".gguf" or (inside and not model_file(place))


def _is_model(place: Path) -> bool:
    return model_file(place) is not None or is_published(place)


def load_asked(options: Namespace) -> Base:
    """Return the model of these options, and its tokenizer. Raises what `load_model` does."""
    if options.exact and options.int8:
        refuse("load_model", "--exact computes in float32, --int8 does not", "leave one out")
    model, tokenizer = load_model(options.model, options.best, options.exact, options.base)
    if options.int8:
        from minigrad.models.decoding import use_int8

        use_int8(model)
    return model, tokenizer


def load_model(
    place: str,
    best: bool = False,
    exact: bool = False,
    base: str | None = None,
    kind: type[Any] = GPT,
) -> Base:
    """Return the model of a run's folder, of a weights file or of a checkpoint, or a published one,
    and its tokenizer. Raises an error that names what is missing.

    best: of a run's folder, take the checkpoint with the lowest validation loss.
    exact: expand the weights of a published model to float32.
    base: of adapters, the place of the model that they were made for, unless it is the saved one.
    kind: what a published model must be, one that generates unless given.
    """
    without_base = f"--base is for adapters, and {place} holds none"
    if is_published(Path(place)) and not best:
        if base is not None:
            refuse("load_model", without_base, "leave it out")
        found, words = load_published(place, dtype="float32" if exact else None)
        if not isinstance(found, kind):
            problem = f"{place} is a {type(found).__name__}, which does not generate text"
            refuse("load_model", problem, "minigrad embed")
        return found, words
    path = _file_of(Path(place), best)
    state_dict = _stored(path)
    if "base" in state_dict.meta:
        return _adapted(path, state_dict, exact, base)
    if base is not None:
        refuse("load_model", without_base, "leave it out")
    if not {"model", "tokenizer"} <= state_dict.meta.keys():
        problem = f"{path} is not a model of minigrad train: its meta has no config and tokenizer"
        hint = f"name its folder: {path.parent}" if is_published(path.parent) else ""
        raise ConfigError("load_model", problem, hint=hint)
    with refusing_damage("load_model", path, f"the tokenizer in {path} cannot be read"):
        tokenizer = tokenizer_from_state(state_dict.meta["tokenizer"])
    problem = f"the weights in {path} are not those of the model that its meta describes"
    with refusing_damage("load_model", path, problem):
        model = _model_of(state_dict)
    tokens, rows = tokenizer.vocab_size, model.config.vocab_size
    padded = isinstance(tokenizer, PublishedTokenizer) and tokenizer.rows(added=False) <= rows
    if tokens != rows and not padded:
        problem = f"{path} has {tokens} tokens in its tokenizer and {rows} in its model"
        raise ConfigError("load_model", problem)
    model.eval()
    return model, tokenizer


@contextlib.contextmanager
def refusing_damage(call: str, path: object, problem: str, passing: Any = ()) -> Iterator[None]:
    """Raise ConfigError for whatever the content of a file raises that a run did not write, but for
    the errors `passing`.
    """
    try:
        yield
    except passing:
        raise
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as no:
        reason = no.problem if isinstance(no, MinigradError) else f"{type(no).__name__}: {no}"
        hint = f"minigrad inspect {path} shows the file"
        raise ConfigError(call, f"{problem}: {reason[:200]}", got=no, hint=hint) from no


def _file_of(place: Path, best: bool) -> Path:
    if best:
        found = checkpoint_folder(place).best() if place.is_dir() else None
        if found is None:
            problem = f"{place} holds no checkpoint with a validation loss"
            refuse("load_model", problem, "--best is for the folder of a run")
        return found
    if found := model_file(place):
        return found
    if not place.is_dir() and (place.exists() or place.suffix):
        return place
    if steps := checkpoint_folder(place).steps():
        problem = f"{place} holds no {WEIGHTS}, but checkpoints up to step {steps[-1][0]}"
        refuse("load_model", problem, f"continue the run: minigrad train --resume {place}")
    folder = place if place.is_dir() else place.parent
    inside = [str(run) for run in sorted(folder.glob("*")) if _is_model(run)]
    hint = f"train one first: minigrad train --out {place}"
    hint = f"there are models in {', '.join(inside[:3])}" if inside else hint
    problem = f"{place} holds no {WEIGHTS}" if place.is_dir() else f"there is no folder {place}"
    refuse("load_model", problem, hint)


def _adapted(path: Path, adapters: StateDict, exact: bool, base: str | None) -> Base:
    """Return the model for which adapters were made, with them. They are merged into it unless its
    weights stay in blocks.
    """
    place = base or base_in(str(adapters.meta["base"]), path)
    _needed(place)
    model, tokenizer = load_model(place)
    try:
        load_lora(model, adapters)
    except StateDictError as error:
        problem = f"the adapters in {path} do not fit {place}: {error.problem}"
        refuse("load_model", problem, "name the model they were made for: --base PLACE")
    if exact:
        expand(model)
    if not any(blocks_of(model)):
        merge_lora(model)
    return model, tokenizer


def _needed(place: str, best: bool = False) -> list[Path]:
    """Return the file of a model and, while it has adapters, that of the model they were made for;
    of a published folder its config.json. Raises ConfigError for adapters that need themselves.
    """
    found: list[Path] = []
    while True:
        published = is_published(Path(place)) and not best
        path = Path(place) if published else _file_of(Path(place), best)
        path = path / "config.json" if published and path.is_dir() else path
        path = path.parent.resolve() / path.name
        if path in found:
            problem = f"the adapters in {path} name themselves as the model they were made for"
            refuse("load_model", problem, "name that model: --base PLACE")
        found.append(path)
        base = peek(path).meta.get("base") if path.suffix == ".mgrd" else None
        if base is None:
            return found
        place, best = base_in(str(base), path), False


def refuse_own_model(folder: Path, place: str, best: bool) -> None:
    """Raise ConfigError if a run of adapters cannot have this folder: it is that of their model, or
    of one that this needs, which the run would replace.
    """
    taken = [folder.resolve() / name for name in (CHECKPOINTS, WEIGHTS, ADAPTERS, "config.json")]
    for path in _needed(place, best):
        if path in taken or path.parent in taken:
            problem = f"the adapters would need the model in {folder}, and replace it"
            refuse("finetune", problem, "name another --out")


def base_in(saved: str, path: Path) -> str:
    """Return the place of the base of a run: the saved one, or the same from a folder above the
    run. Raises ConfigError if there is none.
    """
    if place := found_above(saved, path):
        return str(place)
    problem = f"{path} was made for the model in {saved}, which is not here"
    refuse("load_model", problem, "put it back, or name it: --base PLACE")


def found_above(place: str, inside: Path) -> Path | None:
    """Return the place if it exists here, or in one of the folders above `inside`."""
    above = (folder / place for folder in inside.resolve().parents)
    return next((found for found in (Path(place), *above) if found.exists()), None)


def _stored(path: Path) -> StateDict:
    try:
        return _checkpoint(path) or load(path)
    except FormatError as error:
        if error.code == "magic":
            error.hint = f"--model takes {_PLACES}"
        raise


def _checkpoint(path: Path) -> StateDict | None:
    """Return the weights of a checkpoint of `minigrad train`, with the meta of a model; None for
    another file.
    """
    if path.suffix != ".mgrd" or peek(path).kind != "checkpoint":
        return None
    found = load_checkpoint(path)
    try:
        options, state = found.state["options"], found.state["tokenizer"]
        if "base" in found.state:
            adapters = {name: t for name, t in found.weights.items() if ".lora." in name}
            adapters[BASE_DIGEST] = np.frombuffer(bytes.fromhex(found.state["base"]), np.uint8)
            return StateDict(adapters, replace(found.info, meta={"base": options["model"]}))
        names = ("block_size", "n_layer", "n_head", "n_embd")
        parts = ARCHITECTURES[options.get("arch", "gpt2")]
        sizes = options.get("architecture") or {name: options[name] for name in names} | parts
        size = tokenizer_from_state(state).vocab_size
    except (KeyError, TypeError, DataError):
        return None
    meta = {"model": {"vocab_size": size, **sizes}, "tokenizer": state}
    return StateDict(dict(found.weights), replace(found.info, meta=meta))


def model_of_sizes(sizes: Mapping[str, Any]) -> GPT:
    """Return a model of a saved config, from `dataclasses.asdict(model.config)`."""
    return Llama(LlamaConfig(**sizes)) if "rope_base" in sizes else GPT(GPTConfig.from_dict(sizes))


def _model_of(state_dict: StateDict) -> GPT:
    """Return the GPT that a file's meta describes, with the file's weights."""
    model = model_of_sizes(state_dict.meta["model"])
    adapters = {n: t for n, t in state_dict.items() if ".lora." in n}
    model.load_state_dict({n: t for n, t in state_dict.items() if n not in adapters})
    load_lora(model, adapters)
    merge_lora(model)
    return model
