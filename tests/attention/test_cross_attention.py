"""Encoder and decoder: blocks that look at a context."""

from __future__ import annotations

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, functional as F, nn, no_grad, optim
from minigrad.errors import ConfigError

C = 8


def draw(*shape, seed=0):
    return Tensor(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_cross_block_is_its_three_parts(norm_first):
    block, x, context = (
        nn.TransformerBlock(C, 2, cross=True, norm_first=norm_first),
        draw(2, 5, C),
        draw(2, 7, C, seed=1),
    )
    y, want = block(x, context, context_lengths=[7, 4]), x
    parts = (
        (block.ln_1, block.attn),
        (block.ln_cross, lambda x: block.cross_attn(x, context, lengths=[7, 4])),
        (block.ln_2, block.mlp),
    )
    for norm, part in parts:
        want = want + part(norm(want)) if norm_first else norm(want + part(want))
    assert np.array_equal(y.numpy(), want.numpy())
    hidden = context.numpy().copy()
    hidden[1, 4:] = np.nan  # padding
    assert np.array_equal(block(x, Tensor(hidden), context_lengths=[7, 4]).numpy(), y.numpy())
    mask = np.arange(7) < np.array([7, 4])[:, None, None, None]
    assert np.array_equal(block(x, context, context_mask=mask).numpy(), y.numpy())


def test_a_context_is_given_where_it_is_used():
    x = draw(1, 2, C)
    with pytest.raises(ConfigError, match="context"):
        nn.TransformerBlock(C, 2)(x, x)
    with pytest.raises(ConfigError, match="context"):
        nn.TransformerBlock(C, 2, cross=True)(x)


def test_a_decoder_with_a_cache_continues_as_without():
    block, x, memory = (
        nn.TransformerBlock(C, 2, cross=True, rope="half").eval(),
        draw(1, 6, C),
        draw(1, 4, C, seed=1),
    )
    cache = block.attn.make_cache()
    with no_grad():
        parts = [block(x[:, t : t + 1], memory, cache=cache).numpy() for t in range(6)]
    assert np.allclose(np.concatenate(parts, 1), block(x, memory).numpy(), atol=1e-6)


def test_an_encoder_and_decoder_learn_to_reverse():
    minigrad.manual_seed(0)
    rng = np.random.default_rng(0)
    V, T, width = 6, 5, 32

    class Reverser(nn.Module):
        def __init__(self):
            self.tokens, self.places = nn.Embedding(V + 1, width), nn.Embedding(T, width)
            self.encoder = nn.TransformerBlock(width, 4, causal=False)
            self.decoder = nn.TransformerBlock(width, 4, cross=True)
            self.head = nn.Linear(width, V)

        def forward(self, source, target):
            places = self.places(Tensor(np.arange(T)))
            memory = self.encoder(self.tokens(source) + places)
            return self.head(self.decoder(self.tokens(target) + places, memory))

    model = Reverser()
    optimizer = optim.AdamW(model.parameters(), lr=3e-3)

    def batch(n):
        source = rng.integers(0, V, size=(n, T))
        target = source[:, ::-1]
        given = np.concatenate([np.full((n, 1), V), target[:, :-1]], 1)
        return Tensor(source), Tensor(given), Tensor(target.copy())

    for _ in range(250):
        source, given, target = batch(32)
        loss = F.cross_entropy(model(source, given).reshape(-1, V), target.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model.encoder.attn.in_proj_weight.grad.numpy().any()
    source, given, target = batch(64)
    assert (model(source, given).numpy().argmax(-1) == target.numpy()).mean() > 0.9
