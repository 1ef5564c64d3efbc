"""Higher-order gradients: a network that solves a differential equation because its own derivatives
are in the loss.

    python examples/physics_informed.py [steps]

u'' = -u on [0, 6] with u(0) = 0 and u'(0) = 1; the answer is sin(t), which the network never sees.
`create_graph=True` makes du/dt differentiable again, first by t and then by the weights. From
Raissi et al. 2019, "Physics-informed neural networks".
"""

import sys

import numpy as np

import minigrad
from minigrad import Tensor, nn
from minigrad.optim import Adam, lr_scheduler


class Net(nn.Module):
    def __init__(self, width=32):
        self.inner, self.middle, self.outer = (
            nn.Linear(1, width),
            nn.Linear(width, width),
            nn.Linear(width, 1),
        )

    def forward(self, t):
        x = self.inner(t / 3 - 1).tanh()
        # u(0) = 0 and u'(0) = 1 hold by construction; what is left to learn is the equation.
        return t + t * t * self.outer(self.middle(x).tanh())


def residual(net, t):
    """u'' + u at the points t, and u."""
    u = net(t)
    (du,) = minigrad.grad(u.sum(), t, create_graph=True)
    (ddu,) = minigrad.grad(du.sum(), t, create_graph=True)
    return ddu + u, u


def main(steps: int = 2000) -> float:
    minigrad.manual_seed(0)
    net = Net()
    optimizer = Adam(net.parameters(), lr=5e-3)
    schedule = lr_scheduler.WarmupCosineLR(optimizer, 0, steps)
    t = Tensor(np.linspace(0, 6, 64, dtype=np.float32)[:, None], requires_grad=True)
    for step in range(steps):
        r, _ = residual(net, t)
        loss = (r * r).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            print(f"step {step:4d}  mean square of u'' + u  {loss.item():.2e}", flush=True)
    _, u = residual(net, t)
    error = float(np.abs(u.numpy() - np.sin(t.numpy())).max())
    print(f"largest distance from sin(t): {error:.4f}")
    for i in range(0, 64, 9):
        print(
            f"  u({t.numpy()[i, 0]:.2f}) = {u.numpy()[i, 0]:+.3f}   sin = "
            f"{np.sin(t.numpy()[i, 0]):+.3f}"
        )
    return error


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
