"""The engine's gradients of a whole GPT against the step written by hand in numpy, which shares no
code with it.
"""

import sys
from pathlib import Path

import numpy as np

import minigrad
from minigrad.models import GPT, GPTConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from hand_gpt import HandGPT


def test_every_gradient_of_a_gpt_is_that_of_the_step_written_by_hand() -> None:
    minigrad.manual_seed(3)
    model = GPT(GPTConfig.gpt2(vocab_size=11, block_size=7, n_layer=2, n_head=2, n_embd=8))
    for (
        p
    ) in model.parameters():  # away from the first values, where biases are 0 and rows nearly equal
        p.data[...] += minigrad.Generator(p.numel()).normal(p.shape, std=0.3)
    hand = HandGPT({name: t.data for name, t in model.state_dict().items()}, n_layer=2, n_head=2)
    generator = minigrad.Generator(4)
    x, y = generator.integers(0, 11, (3, 7)), generator.integers(0, 11, (3, 7))
    loss = model.loss(x, y)
    loss.backward()
    wanted, gradients = hand.gradients(x, y)
    np.testing.assert_allclose(loss.item(), wanted, rtol=1e-6)
    for name, p in model.named_parameters():
        assert p.grad is not None
        scale = np.abs(gradients[name]).max()
        np.testing.assert_allclose(
            p.grad.data, gradients[name], rtol=0, atol=2e-6 * scale, err_msg=name
        )
