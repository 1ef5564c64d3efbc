"""The reading path of docs/reading.md, stop by stop, on numbers small enough to check by hand.

    python examples/tour.py

Read a stop on the page, open the file that it names, and look here at what the code does.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

import minigrad
from minigrad import Tensor, functional as F, nn, ops
from minigrad.models import GPT, GPTConfig
from minigrad.modes import Listener, listening
from minigrad.optim import AdamW


class Narrator(Listener):
    """A listener at the Tensor's door: it runs every op, and says so."""

    def run(self, op: Any, arrays: Sequence[Any], params: dict[str, Any]) -> Any:
        """Run the op's forward. A recorder or a profiler would do more here."""
        return op.forward(*arrays, **params)

    def done(
        self, op: Any, operands: Sequence[Any], params: dict[str, Any], outputs: tuple[Any, ...]
    ) -> None:
        """Print the op and its shapes."""
        shapes = ", ".join(str(getattr(x, "shape", x)) for x in operands)
        print(f"    the door ran {op.name}({shapes}) -> {outputs[0].shape}")


def stop(number: int, file: str, sentence: str) -> None:
    print(f"\n{number}. {file}\n   {sentence}")


def shown(x: Any) -> str:
    """A tensor on one line."""
    return " ".join(repr(x).split())


def ops_and_primitive() -> None:
    stop(1, "minigrad/ops", "An op is a function on arrays, and a rule for its derivative.")
    y = ops.tanh.forward(np.float64(0.5))
    (slope,) = ops.tanh.rule(1.0, y, 0.5)
    near = (np.tanh(0.501) - np.tanh(0.499)) / 0.002
    print(f"    forward of tanh at 0.5: {y:.6f}; rule: 1 -> {slope:.6f}; a difference: {near:.6f}")

    stop(2, "minigrad/primitive.py", "A primitive is the function and its facts.")
    print(f"    {ops.tanh!r}; on an array it is numpy: {ops.tanh(np.array([0.0, 0.5]))}")
    print(f"    on a Tensor it goes to the Tensor's door: {ops.tanh(Tensor([0.0, 0.5]))!r}")


def tape() -> None:
    x = Tensor([[1.0, 2.0], [3.0, 4.0]])
    w = Tensor([[0.5, 1.0], [2.0, -1.0]], requires_grad=True)
    b = Tensor([0.5, -0.5], requires_grad=True)

    stop(3, "minigrad/tensor", "Every op of a line goes through one door: loss = (x @ w + b) ** 2.")
    with listening(Narrator()):
        loss = ((x @ w + b) ** 2).sum()
    print(f"    loss is {shown(loss)}; each result knows the node that made it:")
    node, depth = loss.grad_fn, 0
    while node is not None:
        operands = ", ".join(str(getattr(x, "shape", x)) for x in node.operands)
        print(f"      {'  ' * depth}node {node.op.name}({operands}), made at {node.where}")
        node, depth = getattr(node.operands[0], "grad_fn", None), depth + 1

    stop(4, "minigrad/autograd.py", "backward() walks those nodes, newest first, by their rules:")
    with listening(Narrator()):
        loss.backward()
    by_hand = x.numpy().T @ (2 * (x.numpy() @ w.numpy() + b.numpy()))
    print(f"    w.grad = {shown(w.grad)}, x.T @ 2 (x @ w + b) = {by_hand.round(4).tolist()}")
    print(f"    b was broadcast over two rows, its gradient is summed over them: {shown(b.grad)}")


def layers() -> None:
    stop(5, "minigrad/nn", "A layer is such a line with its weights as attributes.")
    layer = nn.Linear(2, 3)
    with listening(Narrator()):
        layer(Tensor([[1.0, 2.0]]))
    parameters = ", ".join(f"{name} {p.shape}" for name, p in layer.named_parameters())
    print(f"    {layer!r} has {parameters}")

    stop(6, "minigrad/ops/attention.py", "Attention is one op: three places, each sees its past.")
    q = Tensor(np.eye(3)[None, None])
    v = Tensor([[[[1.0], [10.0], [100.0]]]])
    with listening(Narrator()):
        seen = F.scaled_dot_product_attention(q, q, v.double(), is_causal=True)
    print(
        f"    place 0 takes its own value, place 2 a mean of all: {seen.numpy().ravel().round(2)}"
    )


def training() -> None:
    stop(7, "minigrad/optim", "An optimizer changes the leaves in place; then it all repeats.")
    minigrad.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=10, block_size=9, n_layer=1, n_head=2, n_embd=16))
    optimizer = AdamW(model.parameters(), lr=1e-2)
    counting = Tensor([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]])
    for step in range(31):
        loss = model.loss(counting[:, :-1], counting[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        before = model.ln_f.weight.numpy()[0].item()
        optimizer.step()
        if step % 10 == 0:
            after = model.ln_f.weight.numpy()[0].item()
            print(
                f"    step {step:2d}: loss {loss.item():.3f}; a weight {before:.4f} -> {after:.4f}"
            )
    print(f"    it learned to count: 0 1 2 -> {list(model.generate([0, 1, 2], 4, temperature=0))}")


if __name__ == "__main__":
    ops_and_primitive()
    tape()
    layers()
    training()
