"""A transformer learns to sort, and says what it has learned token by token.

python examples/sorting.py [steps]
"""

import sys

import numpy as np
import tasks

import minigrad
from minigrad.models import GPT, GPTConfig
from minigrad.optim import AdamW, clip_grad_norm_, lr_scheduler


def main(steps: int = 800) -> float:
    minigrad.manual_seed(0)
    task = tasks.sort(length=6, symbols=10)
    model = GPT(GPTConfig.gpt2(**task.sizes, n_layer=2, n_head=4, n_embd=64))
    optimizer = AdamW(model.parameters(), lr=3e-3)
    schedule = lr_scheduler.WarmupStableDecayLR(optimizer, steps // 10, steps, steps // 3)
    for step in range(steps):
        loss = model.loss(*task.batch(step))
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(
                f"step {step:4d}  loss {loss.item():.3f}  wholly right {task.accuracy(model):6.1%}",
                flush=True,
            )

    accuracy = task.accuracy(model)
    print(f"wholly right on new lists: {accuracy:.1%}")
    for numbers in ([3, 1, 4, 1, 5, 9], [2, 7, 1, 8, 2, 8]):
        prompt = np.array([*numbers, task.words.index("=")])
        print(numbers, "->", list(model.generate(prompt, len(numbers), temperature=0)))
    return accuracy


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
