"""Train a model further, on another text: all of its weights, or with --lora small adapters next to
them, which are saved alone (adapters.mgrd, a few percent of the model; generate, chat, eval and
show read the run's folder as they read any other). Stops, saves and resumes as minigrad train does.
The text is read by the tokenizer of the model.

A published model (a GGUF file, or a folder) is tuned by adapters alone; its weights stay as they
are stored, and in their file, which the run needs (--base names it where it has moved). Merged, it
is a model in float32. Its context is long: the text is cut into pieces of --block-size tokens.

examples:
  minigrad finetune --model runs/gpt --text letters.txt --out runs/letters
  minigrad finetune --model runs/gpt --text letters.txt --lora 8 --out runs/letters
  minigrad finetune --model smollm2.gguf --text letters.txt --lora 8 --steps 100
  minigrad finetune --resume runs/letters        # continue a stopped or killed run exactly
  minigrad finetune --merge runs/letters         # adapters and model in one: model.mgrd
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

from minigrad.cli import recipe, run_folder, train
from minigrad.cli.evaluate import SKIP_UNKNOWN
from minigrad.cli.options import DIR, Command, Option, refuse, whole
from minigrad.distributed import default_parts
from minigrad.files import peek
from minigrad.models import GPT
from minigrad.nn.quantised import blocks_of

_PIECE = 128
_DEFAULTS = {"optimizer": "adamw", "steps": 500, "warmup": 20, "eval_interval": 50}
_HELP = {
    "text": "a UTF-8 text file, or a folder of them",
    "warmup": "steps of rising rate",
    "block_size": "tokens of a piece (default: the model's context; of a published model 128)",
    "batch_size": "pieces of text per step (default: 8; of a published model 4, one by one)",
    "lr": "the highest learning rate (default: a tenth of the optimizer's, with --lora all)",
    "jit": "compile the step to C (default: if there is a C compiler; of a published model, no)",
}
# Options of train that the model decides, or that are for a new one
_NEW = "tokenizer vocab_size size minutes arch n_layer n_head n_embd dropout decay final_lr mixed"
_ROWS = {row.name: row for row in train.COMMAND.options if row.name not in _NEW.split()}
_ROWS |= {name: _ROWS[name]._replace(default=value) for name, value in _DEFAULTS.items()}
_ROWS |= {name: _ROWS[name]._replace(help=words) for name, words in _HELP.items()}
OPTIONS = (
    run_folder.MODEL._replace(default=None),
    run_folder.BASE,
    run_folder.BEST,
    Option("lora", whole(1), None, "train adapters of this rank alone (default: all weights)"),
    Option("merge", DIR, None, "only add the adapters of this run to its model, in model.mgrd"),
    SKIP_UNKNOWN,
    *_ROWS.values(),
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
    published = run_folder.is_published(Path(options.model))
    if published and not options.lora:
        problem = f"{options.model} is a published model, whose weights stay as they are"
        refuse("finetune", problem, "train adapters: --lora 8")
    if options.lora and options.out is not None:
        run_folder.refuse_own_model(Path(options.out), options.model, options.best)
    base = run_folder.load_model(options.model, options.best)
    _settle(options, base[0], published)
    if options.lr is None:
        recipe.settle(options)
        options.lr = vars(options)["lr"] * (1.0 if options.lora else 0.1)
    return train.run(options, base)


def _settle(options: Namespace, model: GPT, published: bool) -> None:
    """Set the options that follow from the model. A published one is large: a step takes one short
    piece of text after the other, op by op, so that it fits into memory.
    """
    if not published and any(blocks_of(model)):
        problem = f"{options.model} has adapters of a published model"
        refuse("finetune", problem, f"merge them first: minigrad finetune --merge {options.model}")
    sizes, given = asdict(model.config), options.block_size
    context = sizes["block_size"]
    if given is not None and given > context:
        problem = f"--block-size {given} exceeds the model's context of {context}"
        refuse("finetune", problem, "give a smaller one")
    if (options.lora or 1) > (widest := sizes["n_embd"]):
        problem = f"--lora {options.lora} exceeds the model's width of {widest}"
        refuse("finetune", problem, "give a small rank, such as 8")
    for name in vars(options).keys() & sizes.keys() - {"vocab_size"}:
        setattr(options, name, sizes[name])
    options.block_size = given or (min(_PIECE, context) if published else context)
    options.architecture = None if published else sizes
    if published:
        options.parts = options.parts or default_parts()
        options.batch_size = options.batch_size or max(4, options.parts)
        if "accumulate" not in options.given:
            options.accumulate = max(1, options.batch_size // options.parts)
        options.jit = bool(options.jit)


def _merge(options: Namespace) -> int:
    """Write the model of a run with adapters as a model of its own."""
    folder = Path(options.merge)
    if options.given - {"merge", "base"}:
        hint = f"minigrad finetune --merge {folder}"
        refuse("finetune", "--merge takes no other options but --base", hint)
    adapters = folder / run_folder.ADAPTERS
    if not adapters.exists():
        problem = f"{folder} holds no {adapters.name}"
        refuse("finetune", problem, "name the folder of a run with --lora")
    model, tokenizer = run_folder.load_model(str(adapters), exact=True, base=options.base)
    run_folder.save_model(folder, model, tokenizer, peek(adapters).meta["run"])
    print(f"model and adapters are one in {folder / 'model.mgrd'}")
    return 0


COMMAND = Command("finetune", OPTIONS, run, "train a model further, on another text", __doc__)
