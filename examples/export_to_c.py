"""A training step and a trained model as C: three files that need a C compiler and nothing else,
and give the same numbers as here.

python examples/export_to_c.py [folder]

Needs a C compiler (cc, gcc, clang, or `pip install ziglang`). The model learns the exclusive or of
three bits.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import minigrad
from minigrad import Tensor, compiler, functional as F, nn
from minigrad.compiler.native import find_compiler
from minigrad.optim import AdamW

BITS = np.array([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)], np.float32)
WANTED = BITS.sum(axis=1).astype(np.int64) % 2


class Net(nn.Module):
    def __init__(self, width=32):
        self.hidden, self.deeper, self.out = (
            nn.Linear(3, width),
            nn.Linear(width, width),
            nn.Linear(width, 2),
        )

    def forward(self, x):
        return self.out(
            F.gelu(self.deeper(F.gelu(self.hidden(x), approximate="tanh")), approximate="tanh")
        )


def run(folder: Path, *arguments: str) -> list[float]:
    """Build the C of a folder, run it, and read the numbers that it prints."""
    call = [
        *find_compiler().command,
        "-O2",
        "-march=native",
        "step.c",
        "main.c",
        "-o",
        "run",
        "-lm",
        "-lpthread",
    ]
    subprocess.run(call, cwd=folder, check=True)
    done = subprocess.run(
        ["./run", "values.bin", *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return [float(number) for number in done.stdout.split()]


def main(place: str = "") -> tuple[float, float]:
    minigrad.manual_seed(0)
    folder = Path(place or tempfile.mkdtemp(prefix="minigrad-export-"))
    net = Net()
    optimizer = AdamW(net.parameters(), lr=1e-2)
    x, y = Tensor(BITS), Tensor(WANTED)

    @minigrad.jit
    def step(x, y):
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(3):  # two are recorded, from the third on the program is C
        step(x, y)
    compiler.export(step, folder / "training", x, y)
    here = [step(x, y).item() for _ in range(200)]
    there = run(folder / "training", "200")  # 200 steps on from where it was exported, in C alone
    apart = max(abs(a - b) for a, b in zip(here, there, strict=True))
    print(
        f"200 steps here: loss {here[-1]:.6f};  in C: {there[-1]:.6f};  never further apart than "
        f"{apart:.1e}"
    )

    answer = minigrad.jit(lambda x: net(x).softmax(-1))
    with minigrad.no_grad():
        for _ in range(3):
            p = answer(x).numpy()
    compiler.export(answer, folder / "model", x)
    q = np.array(run(folder / "model")).reshape(8, 2)
    print("the trained model in C says", q.argmax(axis=1).tolist(), "wanted", WANTED.tolist())
    size = sum(path.stat().st_size for path in (folder / "model").iterdir() if path.name != "run")
    print(
        f"{folder / 'model'}: {size / 1024:.0f} KiB;  cc -O2 -march=native step.c main.c -o run "
        "-lm -lpthread && ./run values.bin"
    )
    return apart, float(abs(p - q).max())


if __name__ == "__main__":
    main(*sys.argv[1:])
