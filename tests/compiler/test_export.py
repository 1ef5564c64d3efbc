"""An exported step builds with a C compiler alone and gives the numbers of the step."""

import subprocess

import numpy as np
import pytest

from minigrad import Tensor, jit, manual_seed, ops
from minigrad.compiler import export
from minigrad.compiler.native import find_compiler
from minigrad.errors import ConfigError
from minigrad.models.gpt import GPT, GPTConfig
from minigrad.optim import AdamW, clip_grad_norm_


@pytest.mark.parametrize("config", [GPTConfig, GPTConfig.gpt2], ids=["modern", "gpt2"])
def test_an_exported_training_step_of_a_gpt_gives_the_same_losses(tmp_path, config):
    manual_seed(1)
    model = GPT(config(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=16, dropout=0.1))
    optimizer = AdamW(model.parameters(), lr=1e-2)

    @jit
    def step(x, y):
        optimizer.zero_grad()
        loss = model.loss(x, y)
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    tokens = np.random.default_rng(0).integers(0, 11, (4, 9))
    x, y = Tensor(tokens[:, :-1]), Tensor(tokens[:, 1:])
    for _ in range(3):
        step(x, y)
    folder = export(step, tmp_path / "out", x, y)
    files = [str(folder / "step.c"), str(folder / "main.c")]
    subprocess.run(
        [
            *find_compiler().command,
            "-O2",
            "-march=native",
            *files,
            "-o",
            str(tmp_path / "run"),
            "-lm",
            "-lpthread",
        ],
        check=True,
    )
    out = subprocess.run(
        [str(tmp_path / "run"), str(folder / "values.bin"), "5", "2"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert [float(v) for v in out.split()] == pytest.approx(
        [step(x, y).item() for _ in range(5)], rel=1e-5
    )


def test_a_step_that_goes_through_numpy_is_not_exported(tmp_path):
    step = jit(lambda t: ops.argsort(t * 2, axis=-1))
    for _ in range(3):
        step(Tensor([[1.0, 2.0]]))
    with pytest.raises(ConfigError, match="argsort"):
        export(step, tmp_path, Tensor([[1.0, 2.0]]))


def test_other_shapes_than_the_programs_are_refused(tmp_path):
    step = jit(lambda t: t * 2)
    for _ in range(3):
        step(Tensor([1.0, 2.0]))
    with pytest.raises(ConfigError, match="no program fits"):
        export(step, tmp_path, Tensor([1.0]))


def test_arguments_and_gradients_that_want_another_program_are_refused(tmp_path):
    x, other = Tensor(np.ones((2, 3), np.float32)), Tensor(np.zeros((2, 3), np.float32))
    step = jit(lambda a, b: a * 2 + b, backend="c")
    for _ in range(3):
        step(x, x.detach())
    with pytest.raises(ConfigError, match="no program fits these arguments"):
        export(step, tmp_path, x, other)
    step = jit(lambda a, b, k: (a + b) * k, backend="c")
    for _ in range(3):
        step(x, x, 2)
    for wrong in ((x, other, 2), (x, x, 3)):
        with pytest.raises(ConfigError, match="no program fits these arguments"):
            export(step, tmp_path, *wrong)
    weight = Tensor(np.ones(3, np.float32), requires_grad=True)
    step = jit(lambda a: (a * weight).sum().backward(), backend="c")
    for _ in range(4):
        step(x)
    weight.grad = None
    with pytest.raises(ConfigError, match=r"\.grad"):
        export(step, tmp_path, x)
