"""A training loop of one's own on several ranks: the same bits on 1, 2 and 4 of them.

python examples/ranks.py [steps]
mpiexec -n 4 python examples/ranks.py [steps]
"""

import hashlib
import sys

import numpy as np
import tasks

import minigrad
from minigrad import distributed
from minigrad.models import GPT, GPTConfig
from minigrad.optim import AdamW, clip_grad_norm_

PARTS = 4  # of a batch; their gradients are added in a tree, wherever they were computed


def main(steps: int = 300) -> str:
    threads = distributed.share_cores()
    minigrad.manual_seed(0)  # the same weights on every rank
    task = tasks.sort(length=6, symbols=10)
    model = GPT(GPTConfig.gpt2(**task.sizes, n_layer=2, n_head=4, n_embd=64, dropout=0.1))
    optimizer = AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        x, y = task.batch(step)  # the whole batch: a function of the step
        cut = list(zip(np.split(x, PARTS), np.split(y, PARTS), strict=True))

        def backward(part: int, cut: list[tuple[np.ndarray, np.ndarray]] = cut) -> minigrad.Tensor:
            """The gradients of one part; each rank is asked for its own parts."""
            loss = model.loss(*cut[part]) / PARTS
            loss.backward()
            return loss

        loss = distributed.sum_gradients(model, backward, parts=PARTS)
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 and distributed.is_first():
            print(f"step {step:4d}  loss {loss:.3f}", flush=True)

    weights = b"".join(np.asarray(p.data).tobytes() for p in model.parameters())
    digest = hashlib.sha256(weights).hexdigest()
    distributed.check_same("ranks.py", {"weights": digest})
    if distributed.is_first():
        print(f"{distributed.size()} ranks of {threads} threads; weights {digest[:16]}")
    return digest


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
