"""LoRA: a model that sorts upwards is taught to sort downwards by training a small part of it; the
adapter is saved alone, and merged.

python examples/lora.py [steps of the base model] [steps of the adapter]
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import tasks
from tasks import Task

import minigrad
from minigrad import finetune
from minigrad.models import GPT, GPTConfig
from minigrad.optim import AdamW


def sort_down(length: int = 5, symbols: int = 8) -> Task:
    """A task of one's own: `make` gives tokens, and where they are answers."""

    def make(generator, n, held_out):
        x = generator.integers(0, symbols, (n, length))
        row = np.concatenate([x, np.full((n, 1), symbols), -np.sort(-x, axis=1)], axis=1)
        return row, np.arange(2 * length + 1) > length

    return Task("sort down", [*map(str, range(symbols)), "="], make)


def train(model, task, parameters, steps, lr):
    optimizer = AdamW(parameters, lr=lr)
    for step in range(steps):
        loss = model.loss(*task.batch(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main(base_steps: int = 500, steps: int = 400) -> float:
    minigrad.manual_seed(0)
    up, down = tasks.sort(length=5, symbols=8), sort_down()
    model = GPT(GPTConfig.gpt2(**up.sizes, n_layer=2, n_head=4, n_embd=64))
    train(model, up, model.parameters(), base_steps, 3e-3)
    print(
        f"the base model     sorts up {up.accuracy(model):6.1%}   down {down.accuracy(model):6.1%}"
    )

    adapted = finetune.add_lora(model, rank=4)
    count = sum(p.data.size for _, p in finetune.trainable(model))
    total = sum(p.data.size for p in model.parameters())
    print(
        f"adapters on {len(adapted)} weights: {count} of {total} numbers are trained, "
        f"{count / total:.0%}"
    )
    train(model, down, finetune.trainable(model), steps, 1e-2)
    accuracy = down.accuracy(model)
    print(f"with the adapter   sorts up {up.accuracy(model):6.1%}   down {accuracy:6.1%}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter.mgrd"
        minigrad.save(path, finetune.lora_state(model))
        print(f"the adapter alone is a file of {path.stat().st_size / 1024:.0f} KiB")
    finetune.merge_lora(model)
    print(
        f"merged             sorts down {down.accuracy(model):6.1%}, with "
        f"{sum(p.data.size for p in model.parameters())} numbers"
    )
    return accuracy


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
