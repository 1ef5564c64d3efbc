"""An op of one's own: a function on arrays and its rule, checked and used in a network.

    python examples/custom_op.py [steps]

The op is snake(x) = x + sin(a x)^2 / a, with a learned (Ziyin et al. 2020, arXiv:2006.08195): made
for periodic data, which it continues where tanh goes flat. Property tests for it are in
examples/test_custom_op.py.
"""

import sys

import numpy as np

import minigrad
from minigrad import Tensor, nn, ops, primitive
from minigrad.optim import Adam
from minigrad.testing import gradcheck, gradgradcheck


@primitive(kind="elementwise", dtype="float")
def snake(x, a):
    """x + sin(a x)^2 / a, elementwise."""
    return x + np.sin(a * x) ** 2 / a


@snake.vjp
def _(g, _y, x, a):
    # Written with ops, so that it can be differentiated again. The walk undoes the broadcasting of
    # a.
    s = ops.sin(a * x)
    dx = 1 + ops.sin(2 * a * x)
    da = x * ops.sin(2 * a * x) / a - s * s / (a * a)
    return g * dx, g * da


class Snake(nn.Module):
    def __init__(self, width):
        self.a = nn.Parameter(np.ones(width, np.float32))

    def forward(self, x):
        return snake(x, self.a)


def main(steps: int = 1000) -> float:
    rng = np.random.default_rng(0)
    x, a = (
        Tensor(rng.normal(size=(3, 4)), requires_grad=True),
        Tensor(rng.uniform(0.5, 2, 4), requires_grad=True),
    )
    print("first derivatives as finite differences say:", gradcheck(snake, (x, a)))
    print("second derivatives too:", gradgradcheck(snake, (x, a)))

    minigrad.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 32), Snake(32), nn.Linear(32, 32), Snake(32), nn.Linear(32, 1))
    optimizer = Adam(net.parameters(), lr=3e-3)
    t = Tensor(np.linspace(-4, 4, 128, dtype=np.float32)[:, None])
    wanted = (3 * t).sin() + t / 2
    for step in range(steps):
        loss = ((net(t) - wanted) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 200 == 0:
            print(f"step {step:4d}  loss {loss.item():.4f}", flush=True)
    print(
        f"last loss {loss.item():.5f}; the a of the first layer: {net[1].a.numpy()[:4].round(2)} "
        "..."
    )
    return loss.item()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
