"""The training steps of the examples under `jit`, held against eager code as the programs are."""

import numpy as np
import pytest

import minigrad
from examples import encoder as pictures, physics_informed as physics, tasks, tiny_llama as llama
from minigrad import Tensor, finetune, functional as F
from minigrad.models import GPT, GPTConfig
from minigrad.optim import Adam, AdamW, decay_groups, lr_scheduler
from tests.programs.test_jitted import check_jitted_is_eager, trained


def scheduled(step, schedule, batch):
    """As `run` wants it: a step with a schedule that goes on after each call."""
    function, models, _ = step
    return function, models, lambda i: schedule.step() if i else None, batch


def encoder():
    drawn, digits = pictures.drawn(16, np.random.default_rng(0))
    model = pictures.Encoder()
    optimizer = AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    step = trained(model, optimizer, lambda x, y: F.cross_entropy(model(x), y))
    schedule = lr_scheduler.WarmupCosineLR(optimizer, 2, 20)
    return scheduled(step, schedule, lambda i: (Tensor(drawn[i:][:8]), Tensor(digits[i:][:8])))


def grokking():
    task = tasks.modular(p=7, train_fraction=0.4, batch_size=8)
    model = GPT(GPTConfig(**task.sizes, n_layer=1, n_head=4, n_embd=16, bias=False))
    optimizer = AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=1.0)
    return *trained(model, optimizer, model.loss), task.batch


def physics_informed():
    net = physics.Net()
    optimizer = Adam(net.parameters(), lr=5e-3)
    t = Tensor(np.linspace(0, 6, 16, dtype=np.float32)[:, None], requires_grad=True)
    step = trained(net, optimizer, lambda: physics.residual(net, t)[0].square().mean())
    return scheduled(step, lr_scheduler.WarmupCosineLR(optimizer, 0, 20), lambda i: ())


def sorting():
    task = tasks.sort(length=4, symbols=5)
    model = GPT(GPTConfig(**task.sizes, n_layer=2, n_head=4, n_embd=16))
    optimizer = AdamW(model.parameters(), lr=3e-3)
    schedule = lr_scheduler.WarmupStableDecayLR(optimizer, 2, 20, 5)
    return scheduled(trained(model, optimizer, model.loss, clip=1.0), schedule, task.batch)


def tiny_llama():
    model = llama.Llama(11)
    groups = decay_groups(model.named_parameters(), 0.1)
    optimizer = AdamW(groups, lr=4e-3, betas=(0.9, 0.99))
    tokens = minigrad.randint(11, (9, 2, 9))
    step = trained(model, optimizer, model.loss, clip=1.0)
    schedule = lr_scheduler.WarmupCosineLR(optimizer, 2, 20)
    return scheduled(step, schedule, lambda i: (tokens[i][:, :-1], tokens[i][:, 1:]))


def lora():
    model = GPT(GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=16))
    finetune.add_lora(model, rank=2)
    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    tokens = minigrad.randint(11, (9, 2, 9))
    step = trained(model, optimizer, model.loss)
    return *step, lambda i: (tokens[i][:, :-1], tokens[i][:, 1:])


MAKES = [encoder, grokking, physics_informed, sorting, tiny_llama, lora]


@pytest.mark.parametrize("backend", ["numpy", "c"])
@pytest.mark.parametrize("make", MAKES, ids=lambda make: make.__name__)
def test_a_jitted_example_trains_as_in_eager_code(make, backend):
    check_jitted_is_eager(make, backend)
