"""What editors and type checkers see: the .pyi files are those of the ops, and a user's program is
typed.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """
import minigrad
import minigrad.functional as F
from minigrad import Tensor, nn, ops, optim

t = minigrad.zeros(2, 3, requires_grad=True)
a: Tensor = minigrad.exp(t)
b: Tensor = F.gelu(t, approximate="tanh")
c: Tensor = t.sum(dim=0)
d: Tensor = t.sum(0, True) + t.sum(axis=0, keepdims=True) + t.sum(dim=0, keepdim=True)
e: Tensor = t.exp() + 1 - 2.0 * t / t**2
f: Tensor = t @ t.T
g: Tensor = t.sort(dim=-1)[0]
h: Tensor = minigrad.cat([t, t], dim=0)
i: Tensor = minigrad.tensor([1.0], requires_grad=True)
j: Tensor = t.reshape(2, -1).transpose(0, 1).softmax(-1)
k: Tensor = F.cross_entropy(t, [0, 1], label_smoothing=0.1)
l: tuple[Tensor, ...] = t.split(1, dim=0)
m: Tensor = F.linear(t, weight=t, bias=None)
n: Tensor = nn.Linear(3, 2)(t)
o: bool = t.allclose(t)
p: Tensor = minigrad.where(t > 0, t, 0.0).masked_fill(t == 0, 1.0)
q: Tensor = F.scaled_dot_product_attention(t, t, t, is_causal=True)
r: minigrad.nn.Module = minigrad.models.GPT(minigrad.models.GPTConfig(vocab_size=5))
u: Tensor = t.sum(dtype=minigrad.int32) + t.mean(0, dtype="float64") + t.cumsum(dim=0, dtype=int)
v: Tensor = minigrad.prod(t, dtype=None) + F.softmax(t, dim=-1, dtype=minigrad.float32)
w: Tensor = F.relu(t, inplace=False) + F.dropout(t, 0.1, training=True, inplace=False)
y: Tensor = F.leaky_relu(t, 0.1, inplace=False) + F.silu(t, inplace=False)
values: Tensor = t.sort().values + minigrad.topk(t, 1).values
z: Tensor = F.hardtanh(t, inplace=False)
t += 1
t[0] = 1.0
opt = optim.AdamW([t], 1e-3, (0.9, 0.99), weight_decay=0.1, b1=0.5)
opt.lr = 2 * opt.lr
schedule = optim.lr_scheduler.StepLR(opt, 3, gamma=0.5, last_epoch=-1)
pool, loss = nn.MaxPool2d(2, ceil_mode=True), nn.CrossEntropyLoss(label_smoothing=0.1)
s: Tensor = minigrad.randn(2, dtype="float64", generator=minigrad.Generator(0))
"""
WRONG = """
import minigrad
import minigrad.functional as F
from minigrad import nn, optim

t = minigrad.ones(2)
t.nonsense()  # error
minigrad.nonsense  # error
F.nonsense(t)  # error
t.sum(nonsense=1)  # error
t.reshape("a")  # error
F.gelu(t, approximate="sigmoid")  # error
F.relu(t, inplace=True)  # error
minigrad.exp()  # error
x: int = t.exp()  # error
opt = optim.AdamW([t], nonsense=1)  # error
optim.AdamW(lr=1.0)  # error
optim.AdamW([t], lr="a")  # error
opt.exp_avg  # error
optim.lr_scheduler.StepLR(opt)  # error
optim.lr_scheduler.StepLR(opt, 3, gama=0.5)  # error
nn.MaxPool2d(2, 2, 0, 1, True)  # error
"""


def mypy(program: str, folder: Path) -> str:
    pytest.importorskip("mypy")
    (folder / "program.py").write_text(program)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "program.py"]
    environment = {"MYPYPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert not done.stderr
    return done.stdout


def test_the_stubs_are_what_the_ops_say() -> None:
    command = [sys.executable, "tools/make_stubs.py", "--check"]
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"run python tools/make_docs.py: {done.stdout}{done.stderr}"


def test_a_user_s_program_is_typed(tmp_path: Path) -> None:
    assert mypy(PROGRAM, tmp_path).startswith("Success")


def test_mistakes_in_a_user_s_program_are_found(tmp_path: Path) -> None:
    found = mypy(WRONG, tmp_path)
    lines = {int(line.split(":")[1]) for line in found.splitlines() if ": error:" in line}
    assert lines == {i for i, line in enumerate(WRONG.splitlines(), 1) if line.endswith("# error")}
