"""What a small GPT reaches on each synthetic task, and how long it takes: python tools/tasks.py
[name ...]

Trains until the stated accuracy, or for a minute of processor time, and prints a table. On a busy
machine set OPENBLAS_NUM_THREADS=1.
"""

from __future__ import annotations

import sys
import time

import minigrad
from minigrad import optim, tasks
from minigrad.models import GPT, GPTConfig

# name -> (task, model's sizes, learning rate, weight decay, stated accuracy)
SETTINGS = {
    "copy": (tasks.copy(), {"n_layer": 2}, 2e-3, 0.01, 0.99),
    "reverse": (tasks.reverse(), {"n_layer": 2}, 2e-3, 0.01, 0.99),
    "sort": (tasks.sort(), {"n_layer": 2}, 2e-3, 0.01, 0.99),
    "addition": (tasks.addition(), {"n_layer": 2}, 3e-3, 0.01, 0.99),
    "modular": (
        tasks.modular(p=23, train_fraction=0.8, batch_size=256),
        {"n_layer": 1},
        4e-3,
        1.0,
        0.95,
    ),
    "parity": (tasks.parity(), {"n_layer": 2}, 2e-3, 0.01, 0.99),
    "brackets": (tasks.brackets(), {"n_layer": 2}, 2e-3, 0.01, 0.99),
    "induction": (tasks.induction(), {"n_layer": 2}, 2e-3, 0.01, 0.99),
}


def learn(name: str, seconds: float = 60.0, every: int = 50) -> tuple[float, int, float]:
    """Accuracy, steps and seconds of processor time until the stated accuracy or the end of the
    time.
    """
    task, sizes, lr, decay, stated = SETTINGS[name]
    minigrad.manual_seed(0)
    model = GPT(GPTConfig(**task.sizes, n_embd=64, **sizes))
    optimizer = optim.AdamW(
        optim.decay_groups(model.named_parameters(), decay), lr=lr, betas=(0.9, 0.98)
    )
    start, step, accuracy = time.process_time(), 0, 0.0
    while accuracy < stated and time.process_time() - start < seconds:
        loss = model.loss(*task.batch(step))
        optimizer.zero_grad()
        loss.backward()
        optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % every == 0:
            accuracy = task.accuracy(model)
    return accuracy, step, time.process_time() - start


if __name__ == "__main__":
    print(f"{'task':<10} {'stated':>7} {'reached':>8} {'steps':>6} {'seconds':>8}   example")
    for name in sys.argv[1:] or SETTINGS:
        accuracy, steps, seconds = learn(name)
        print(
            f"{name:<10} {SETTINGS[name][4]:>7.0%} {accuracy:>8.1%} {steps:>6} {seconds:>8.1f}   "
            f"{SETTINGS[name][0].show()}",
            flush=True,
        )
