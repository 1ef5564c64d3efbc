"""The training steps of these programs under `jit`: eager weights to the bit when replayed with
numpy, eager losses to rounding in C.
"""

import warnings

import numpy as np
import pytest

import minigrad as torch
from minigrad import nn, optim
from minigrad.nn import functional as F
from tests.programs import (
    char_lstm,
    digits_cnn,
    gan,
    nano_gpt,
    training_loop,
    translation,
    two_moons,
    vae,
)

CALLS = 9  # two recorded ones, and audits at 4 and 9


def trained(model, optimizer, loss_of, clip=None):
    """A step that trains a model; what it returns is the loss."""

    def step(*batch):
        optimizer.zero_grad()
        loss = loss_of(*batch)
        loss.backward()
        if clip is not None:
            torch.optim.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        return loss

    return step, [model], lambda i: None


def moons():
    x, y = two_moons.two_moons(40)
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    criterion, optimizer = nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=1e-2)
    return *trained(model, optimizer, lambda x, y: criterion(model(x), y)), lambda i: (x, y)


def digits():
    model, rng = digits_cnn.Net(), np.random.default_rng(0)
    images = np.stack([digits_cnn.draw(digit, rng) for digit in range(10)])
    x, y = torch.tensor(images, dtype=torch.float32).unsqueeze(1), torch.arange(10)
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    step = trained(model, optimizer, lambda x, y: F.cross_entropy(model(x), y))
    return *step, lambda i: (x, y)


def gpt():
    model = nano_gpt.GPT(nano_gpt.Config(vocab_size=11))
    optimizer = model.configure_optimizers(0.1, 3e-3, (0.9, 0.95))
    tokens = torch.randint(11, (2, model.config.block_size + 1))
    step = trained(model, optimizer, lambda x, y: model(x, y)[1], clip=1.0)
    return *step, lambda i: (tokens[:, :-1], tokens[:, 1:])


def sequences():
    model = translation.Seq2Seq()
    optimizer = optim.AdamW(model.parameters(), lr=3e-3)
    scheduler = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=30)
    source = torch.randint(0, translation.VOCAB, (4, translation.LENGTH))

    def loss_of(src, tgt):
        logits = model(src, tgt).reshape(-1, translation.VOCAB)
        return F.cross_entropy(logits, src.reshape(-1))

    step, models, _ = trained(model, optimizer, loss_of, clip=1.0)
    return step, models, lambda i: scheduler.step() if i else None, lambda i: (source, source)


def lstm():
    model = char_lstm.CharLSTM(7, hidden_size=8)
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    x = torch.randint(7, (1, 6))

    def step(x, h, c):
        optimizer.zero_grad()
        output, hidden = model(x, (h, c))
        loss = F.cross_entropy(output.view(-1, 7), x.view(-1))
        loss.backward()
        optimizer.step()
        return loss, *(t.detach() for t in hidden)

    zeros = torch.zeros(1, 1, 8)
    return step, [model], lambda i: None, lambda i: (x, zeros + i, zeros)


def autoencoder():
    model, x = vae.VAE(), vae.bars(12)
    optimizer = optim.Adam(model.parameters(), lr=5e-3)

    def loss_of(x):
        recon, mu, logvar = model(x)
        return vae.loss_function(recon, x, mu, logvar)

    return *trained(model, optimizer, loss_of), lambda i: (x,)


def adversaries():
    netG, netD, criterion = gan.Generator(), gan.Discriminator(), nn.BCEWithLogitsLoss()
    optimizers = [optim.Adam(net.parameters(), lr=2e-3) for net in (netD, netG)]

    def step(real):
        n = len(real)
        netD.zero_grad()
        fake = netG(torch.randn(n, 4))
        loss = criterion(netD(real), torch.ones(n))
        loss.backward()
        criterion(netD(fake.detach()), torch.zeros(n)).backward()
        optimizers[0].step()
        netG.zero_grad()
        criterion(netD(fake), torch.ones(n)).backward()
        optimizers[1].step()
        return loss

    real = gan.ring(8)
    return step, [netG, netD], lambda i: None, lambda i: (real,)


def loop():
    model, optimizer, scheduler = training_loop.make()
    x, y = torch.randn(6, 8), torch.randn(6)
    step, models, _ = trained(model, optimizer, lambda x, y: F.mse_loss(model(x), y), clip=1.0)

    def before(i):
        model.train(i not in (5, 6))
        if i:
            scheduler.step()

    return step, models, before, lambda i: (x, y)


def run(make, wrap):
    """The losses, and the parameters and buffers at the end."""
    torch.manual_seed(0)
    step, models, before, batch = make()
    step, losses = wrap(step), []
    for i in range(CALLS):
        before(i)
        out = step(*batch(i))
        losses.append((out[0] if isinstance(out, tuple) else out).item())
    return [np.array(losses), *(t.numpy() for m in models for t in m.state_dict().values())]


PROGRAMS = [moons, digits, gpt, sequences, lstm, autoencoder, adversaries, loop]


def check_jitted_is_eager(make, backend):
    """A jitted program trains as in eager code: to the bit when replayed with numpy, and in C its
    losses to rounding, for Adam moves weights whose gradient is nothing but rounding at full speed.
    """
    wanted = run(make, lambda f: f)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = run(make, lambda f: torch.jit(f, backend=backend))
    np.testing.assert_allclose(got[0], wanted[0], rtol=2e-3)
    if backend == "numpy":
        assert all(np.array_equal(g, w) for g, w in zip(got, wanted, strict=True))


@pytest.mark.parametrize("backend", ["numpy", "c"])
@pytest.mark.parametrize("make", PROGRAMS, ids=lambda make: make.__name__)
def test_a_jitted_program_trains_as_in_eager_code(make, backend):
    check_jitted_is_eager(make, backend)
