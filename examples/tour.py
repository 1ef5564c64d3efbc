"""One addition, followed through every floor of minigrad. Prints what it sees on the way.

python examples/tour.py
"""

import inspect
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import minigrad
from minigrad import Tensor, files, nn, ops
from minigrad.autograd import listening
from minigrad.errors import ShapeError
from minigrad.models import GPT, GPTConfig
from minigrad.optim import SGD


class Narrator:
    """A listener at the Tensor's door: it is told of every op, forward and backward."""

    def run(self, op: Any, arrays: Sequence[Any], params: dict[str, Any]) -> Any:
        """The op's forward; a recorder or a profiler would do more here."""
        return op.forward(*arrays, **params)

    def done(
        self, op: Any, operands: Sequence[Any], params: dict[str, Any], outputs: tuple[Any, ...]
    ) -> None:
        """Say which op it was."""
        shapes = ", ".join(str(getattr(x, "shape", x)) for x in operands)
        print(f"    the door ran {op.name}({shapes}) -> {outputs[0].shape}; its kind is {op.kind}")


class Census:
    """A listener that counts ops by name."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def run(self, op: Any, arrays: Sequence[Any], params: dict[str, Any]) -> Any:
        """The op's forward, counted."""
        self.counts[op.name] = self.counts.get(op.name, 0) + 1
        return op.forward(*arrays, **params)

    def done(
        self, op: Any, operands: Sequence[Any], params: dict[str, Any], outputs: tuple[Any, ...]
    ) -> None:
        """Nothing to add."""


def floor(number: int, name: str, sentence: str) -> None:
    print(f"\nfloor {number}  {name}: {sentence}")


def main() -> None:
    x = Tensor([[1.0, 2.0], [3.0, 4.0]])
    w = Tensor([[1.0, 0.0], [0.0, 1.0]])
    b = Tensor([10.0, 20.0], requires_grad=True)

    floor(0, "errors and dtypes", "what can go wrong has a class, and says what to do.")
    try:
        x + Tensor([1.0, 2.0, 3.0])
    except ShapeError as error:
        print("    " + str(error).replace("\n", "\n    "))
    print(
        f"    and what a number is: {x.dtype}, whatever the Python scalar: (x + 1).dtype = "
        f"{(x + 1).dtype}"
    )

    floor(1, "primitive", "an op is a function on numpy arrays, its kind, and its rule beside it.")
    print(
        f"    {ops.add!r}; on arrays it is numpy: [1 2] and [3 4] give "
        f"{ops.add(np.array([1, 2]), np.array([3, 4]))}"
    )

    floor(2, "ops", "this is the whole of the addition, forward and rule:")
    for part in (ops.add.forward, ops.add.rule):
        print("      " + inspect.getsource(part).rstrip().replace("\n", "\n      "))

    floor(3, "random", "numbers are a function of a seed and a counter.")
    generator = minigrad.random.Generator(7)
    print(
        f"    the first three of seed 7: {generator.uniform((3,))}; the state is now "
        f"{generator.get_state()}"
    )

    floor(
        4,
        "tensor",
        "a user line, x @ w + b; the plus finds a Tensor among its operands and hands it to the "
        "Tensor's door.",
    )
    with listening(Narrator()):
        y = x @ w + b
    print("    the line gave " + " ".join(repr(y).split()) + ", which knows what made it")

    floor(
        3,
        "autograd",
        "backward goes through the nodes, newest first; each rule gives what its op passes on.",
    )
    with listening(Narrator()):
        y.backward(Tensor([[1.0, 2.0], [3.0, 4.0]]))
    print(
        f"    b was broadcast over two rows, so its gradient is the sum of them: b.grad = {b.grad}"
    )

    floor(5, "optim", "an optimizer changes the leaf in place.")
    before = b.tolist()
    SGD([b], lr=0.5).step()
    print(f"    b was {before}; after b - 0.5 * b.grad it is {b.tolist()}")

    floor(7, "nn", "a layer is the same line with its weights kept.")
    layer = nn.Linear(2, 2)
    with listening(Narrator()):
        layer(x)
    print(f"    {layer!r} holds {', '.join(name for name, _ in layer.named_parameters())}")

    floor(
        8,
        "models",
        "a GPT is layers, and its residual stream is our addition, twice in every block.",
    )
    census = Census()
    model = GPT(GPTConfig(vocab_size=11, block_size=8, n_layer=3, n_head=2, n_embd=16))
    with listening(census), minigrad.no_grad():
        model(Tensor([[1, 2, 3]]))
    print(
        "    one pass through 3 blocks: "
        + ", ".join(f"{name} {n}" for name, n in sorted(census.counts.items()))
    )

    floor(1, "files", "weights are saved under their names, and nothing else is.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.mgrd"
        minigrad.save(path, layer.state_dict())
        print(
            f"    {path.stat().st_size} bytes: "
            + ", ".join(f"{t.name} {t.shape}" for t in files.peek(path).tensors)
        )

    floor(
        9,
        "minigrad",
        f"{len(minigrad.__all__)} public names, in a table of contents without logic.",
    )


if __name__ == "__main__":
    main()
