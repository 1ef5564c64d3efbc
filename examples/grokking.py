"""Grokking: a model knows its training equations by heart long before it understands them.

    python examples/grokking.py [steps]

a + b = c modulo 31; two in five of the 961 equations are for training. The first accuracy reaches
100% soon. The second stays low, at about the share of equations that are a training one turned
around, until weight decay has made the rule cheaper than the table: about ten times later. From
Power et al. 2022, arXiv:2201.02177.
"""

import sys

import tasks

import minigrad
from minigrad import evaluate
from minigrad.models import GPT, GPTConfig
from minigrad.optim import AdamW


def main(steps: int = 3000) -> float:
    minigrad.manual_seed(0)
    task = tasks.modular(p=31, train_fraction=0.4, batch_size=384)
    model = GPT(GPTConfig.gpt2(**task.sizes, n_layer=1, n_head=4, n_embd=64, bias=False))
    optimizer = AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=1.0)
    print(f"held-out equations look like {task.show()}; chance is {1 / 31:.0%}")

    known_at = understood_at = None
    accuracy = 0.0
    for step in range(1, steps + 1):
        x, y = task.batch(step)
        loss = model.loss(x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0 or step == steps:
            known, accuracy = evaluate.accuracy(model, [(x, y)]), task.accuracy(model)
            print(
                f"step {step:4d}  loss {loss.item():.4f}  known {known:6.1%}  understood "
                f"{accuracy:6.1%}",
                flush=True,
            )
            known_at = known_at or (step if known > 0.99 else None)
            understood_at = understood_at or (step if accuracy > 0.99 else None)
            if understood_at:
                break
    print(f"known by heart at step {known_at}, understood at step {understood_at}")
    return accuracy


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
