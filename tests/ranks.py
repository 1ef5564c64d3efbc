"""Programs that the tests start on several ranks: python -m tests.ranks NAME [ARGUMENT]. Rank 0
prints one line of JSON.
"""

import builtins
import hashlib
import json
import os
import sys
import time
from typing import Any

import numpy as np

import minigrad
from minigrad import Tensor, distributed, nn
from minigrad.data import TextData
from minigrad.dtypes import Array
from minigrad.models import GPT, GPTConfig
from minigrad.optim import AdamW
from minigrad.optim.lr_scheduler import WarmupCosineLR
from minigrad.random import default_generator
from minigrad.train import Trainer, trainer as train_module

TOKENS = np.tile(np.arange(7, dtype=np.int32), 60)
SETTINGS: dict[str, dict[str, Any]] = {
    "compiled": {},
    "eager": {"jit": False},
    "accumulated": {"accumulate": 2},
    "mixed": {"mixed": "float16"},
    "without clipping": {"clip_norm": None, "jit": False},
    "missing targets": {"jit": False, "missing": True},
    "running means": {"jit": False, "normalized": True},
}


class Missing(TextData):
    """Batches whose second quarter has no target, and whose rows have unequal numbers of them."""

    def batch(self, step: int) -> tuple[Array, Array]:
        x, y = super().batch(step)
        y = y.copy()
        y[2:4] = -100
        y[5, 3:] = -100
        return x, y


class Normalized(nn.Module):
    """A small network with running means and dropout."""

    def __init__(self) -> None:
        self.table = nn.Embedding(7, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.2)
        self.out = nn.Linear(6, 7)

    def loss(self, x: Any, y: Any) -> Tensor:
        hidden = self.drop(self.norm(self.table(x).reshape(-1, 6)))
        return nn.functional.cross_entropy(self.out(hidden), Tensor(y).reshape(-1))


def make_trainer(
    parts: int | None = 4, steps: int = 6, dropout: float = 0.2, **settings: Any
) -> Trainer:
    minigrad.manual_seed(3)
    kind = Missing if settings.pop("missing", False) else TextData
    if settings.pop("normalized", False):
        model: Any = Normalized()
    else:
        model = GPT(GPTConfig.gpt2(7, block_size=8, n_layer=1, n_head=2, n_embd=8, dropout=dropout))
    optimizer = AdamW(model.parameters(), lr=0.01)
    data = kind(TOKENS, block_size=8, batch_size=8, seed=1)
    schedule = WarmupCosineLR(optimizer, 3, steps)
    return Trainer(
        model,
        optimizer,
        data,
        **{"steps": steps, "schedule": schedule, "eval_interval": 3, "parts": parts, **settings},
    )


def sha256(model: Any) -> str:
    state = model.state_dict()
    return hashlib.sha256(
        b"".join(np.asarray(state[k]).tobytes() for k in sorted(state))
    ).hexdigest()


def trained() -> dict[str, Any]:
    """For each setting the hash of the weights, the losses and the state of the generator."""
    found = {}
    for name, settings in SETTINGS.items():
        trainer = make_trainer(**settings)
        reports = [(r.loss, r.grad_norm, r.val_loss) for r in trainer.run()]
        found[name] = [sha256(trainer.model), reports, default_generator.get_state()[1]]
        distributed.check_same(name, {"weights": found[name][0]})
    return found


def tree(leaves: list[Array]) -> Array:
    """The sum in the order of the tree, written another way: neighbours first, level by level."""
    while len(leaves) > 1:
        pairs = [leaves[i] + leaves[i + 1] for i in range(0, len(leaves) - 1, 2)]
        leaves = pairs + leaves[len(pairs) * 2 :]
    return leaves[0]


def sums() -> dict[str, Any]:
    """Whether sums over the ranks have the bits of the tree, and broadcast and largest work."""
    n, good = distributed.size(), []
    for size in (0, 1, 2, 3, 1000, (1 << 20) + 5):
        everywhere = [np.random.default_rng(r).standard_normal(size) for r in range(n)]
        mine = everywhere[distributed.rank()]
        for dtype in (np.float32, np.float64):
            (got,) = distributed.sum_arrays([mine.astype(dtype)])
            good.append(np.array_equal(got, tree([x.astype(dtype) for x in everywhere])))
    mixed = distributed.sum_arrays(
        [np.ones((2, 3), np.float32), np.array(1.0), np.ones(2, np.int64)]
    )
    good += [
        x.shape == shape and bool((x == n).all())
        for x, shape in zip(mixed, [(2, 3), (), (2,)], strict=True)
    ]
    model = nn.Linear(2, 2, bias=False)
    model.weight.grad = Tensor(np.full((2, 2), 1.0 + distributed.rank(), np.float32))
    distributed.sum_gradients(model)
    good.append(bool((model.weight.grad.numpy() == n * (n + 1) / 2).all()))
    distributed.barrier()
    said = distributed.broadcast({"rank": distributed.rank()})
    return {
        "good": good,
        "size": n,
        "said": said,
        "largest": distributed.largest(distributed.rank()),
    }


def raising() -> None:
    """Rank 1 raises in the middle of a run."""
    trainer = make_trainer(steps=100_000, jit=False)
    for report in trainer.run():
        if report.step == 3 and distributed.rank() == 1:
            print(json.dumps({"raised": time.time()}), flush=True)
            raise ValueError("the disk is on fire")


def early() -> None:
    """Rank 1 ends before it is connected to the others, by the error that is named."""
    print(json.dumps({"raised": time.time()}), flush=True)
    if os.environ["PMI_RANK"] == "1":
        raise getattr(builtins, sys.argv[2])("not today")
    distributed.barrier()


def measured() -> bool:
    """Steps are measured for times that differ between ranks, as clocks do."""
    make_trainer(jit=False).measure(0.05 + 0.1 * distributed.rank())
    return True


def overflowing() -> None:
    """Every rank fails at a NaN, and rank 0 needs longer than the others wait to write it down."""
    trainer = make_trainer(jit=False, crash_folder=sys.argv[2])
    next(iter(trainer.model.parameters())).data[:] = np.nan
    write = train_module.save_checkpoint

    def slowly(*args: Any, **facts: Any) -> None:
        time.sleep(3)
        write(*args, **facts)

    train_module.save_checkpoint = slowly
    next(trainer.run())


def different() -> None:
    """Ranks with weights, or with buffers, of their own."""
    trainer = make_trainer(jit=False, normalized=sys.argv[2] == "buffers")
    if sys.argv[2] == "buffers":
        trainer.model.norm.running_mean.data[:] = distributed.rank()
    elif sys.argv[2] == "weights":
        if distributed.rank():
            next(iter(trainer.model.parameters())).data.flat[0] += 1e-6
    elif sys.argv[2] == "drift":
        for _ in trainer.run():
            if distributed.rank():
                next(iter(trainer.model.parameters())).data.flat[0] += 1e-6
    next(trainer.run())


def shared() -> dict[str, Any]:
    """The threads of a rank."""
    return {"threads": distributed.share_cores(), "cores": len(os.sched_getaffinity(0))}


if __name__ == "__main__":
    result = globals()[sys.argv[1]]()
    if distributed.is_first() and result is not None:
        print(json.dumps(result))
