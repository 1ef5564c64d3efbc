"""Train a model further, on another text: all of its weights, or with --lora small adapters beside
them, which are saved alone (adapters.mgrd, a few percent of the model; generate, chat, eval and
show read the run's folder as they read any other). Stops, saves and resumes as minigrad train does.
The text is read by the tokenizer of the model.

examples:
  minigrad finetune --model runs/gpt --text letters.txt --out runs/letters
  minigrad finetune --model runs/gpt --text letters.txt --lora 8 --out runs/letters
  minigrad finetune --resume runs/letters        # continue a stopped or killed run exactly
  minigrad finetune --merge runs/letters         # adapters and model in one: model.mgrd
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

from minigrad.cli import recipe, train
from minigrad.cli.evaluate import SKIP_UNKNOWN
from minigrad.cli.options import DIR, Command, Option, refuse, whole
from minigrad.cli.run_folder import ADAPTERS, BEST, MODEL, is_published, load_model, save_model
from minigrad.files import peek

_RATE = "the highest learning rate (default: a tenth of the optimizer's in train, with --lora all)"
_DEFAULTS = {"optimizer": "adamw", "steps": 500, "warmup": 20, "eval_interval": 50}
_NAMES = (
    "text out resume accept overwrite steps stop_at seed sample batch_size optimizer schedule lr "
    "warmup weight_decay clip_norm eval_interval save_interval accumulate parts patience "
    "matmul jit config set"
)
_ROWS = {option.name: option for option in train.COMMAND.options}
_ROWS |= {name: _ROWS[name]._replace(default=value) for name, value in _DEFAULTS.items()}
_ROWS["text"] = _ROWS["text"]._replace(help="a UTF-8 text file, or a folder of them")
_ROWS["warmup"] = _ROWS["warmup"]._replace(help="steps of rising rate")
_ROWS["lr"] = _ROWS["lr"]._replace(help=_RATE)
OPTIONS = (
    MODEL._replace(default=None),
    BEST,
    Option("lora", whole(1), None, "train adapters of this rank alone (default: all weights)"),
    Option("merge", DIR, None, "only add the adapters of this run to its model, in model.mgrd"),
    SKIP_UNKNOWN,
    *(_ROWS[name] for name in _NAMES.split()),
)


def run(options: Namespace) -> int:
    """Tune, save, and print a sample: the path of `minigrad train`, with a model to start from. Or
    merge.
    """
    if options.merge is not None:
        return _merge(options)
    # What the path of `minigrad train` reads besides, for a resumed run until it is replaced.
    options = Namespace(**{**vars(train.COMMAND.complete({})), **vars(options)})
    if options.resume is not None:
        options.architecture = None
        return train.run(options)
    for name in ("model", "text"):
        if getattr(options, name) is None:
            refuse("finetune", f"--{name} is missing", "see minigrad finetune --help")
    if is_published(Path(options.model)):
        hint = "minigrad.finetune trains it from Python"
        refuse("finetune", f"{options.model} is not a model of minigrad train", hint)
    base = load_model(options.model, options.best)
    options.architecture = asdict(base[0].config)
    for name in vars(options).keys() & options.architecture.keys() - {"vocab_size"}:
        setattr(options, name, options.architecture[name])
    if options.lr is None:
        recipe.settle(options)
        options.lr = vars(options)["lr"] * (1.0 if options.lora else 0.1)
    return train.run(options, base)


def _merge(options: Namespace) -> int:
    """Write the model of a run with adapters as a model of its own."""
    folder = Path(options.merge)
    if len(options.given) > 1:
        refuse("finetune", "--merge takes no other options", f"minigrad finetune --merge {folder}")
    if not (folder / ADAPTERS).exists():
        refuse("finetune", f"{folder} holds no {ADAPTERS}", "name the folder of a run with --lora")
    model, tokenizer = load_model(str(folder / ADAPTERS))
    save_model(folder, model, tokenizer, peek(folder / ADAPTERS).meta["run"])
    print(f"model and adapters are one in {folder / 'model.mgrd'}")
    return 0


COMMAND: Command = Command(
    "finetune", run, "train a model further, on another text", OPTIONS, __doc__
)
