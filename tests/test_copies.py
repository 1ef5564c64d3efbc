"""Pickle and deepcopy of everything that has state: the twin does what the original does, and
shares nothing with it.
"""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, finetune, nn, optim
from minigrad.models import GPT, GPTConfig, Sampling
from minigrad.optim import lr_scheduler
from minigrad.text import BPETokenizer, ByteTokenizer, CharTokenizer, WordPieceTokenizer
from tests.nn.rows import ROWS

TWINS: list[Callable[[Any], Any]] = [
    copy.deepcopy,
    *(
        lambda x, protocol=protocol: pickle.loads(pickle.dumps(x, protocol))
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    ),
]
TEXT = "to be or not to be, that is the question " * 3


def gpt() -> GPT:
    minigrad.manual_seed(0)
    return GPT(GPTConfig.gpt2(vocab_size=11, block_size=12, n_layer=2, n_head=2, n_embd=16))


def adapted() -> GPT:
    model = gpt()
    finetune.add_lora(model, rank=2)
    for name, p in finetune.trainable(model):
        nn.init.normal_(p, std=0.1 if name.endswith(".b") else 1.0)
    return model


def same_state(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return list(ours) == list(theirs) and all(
        np.array_equal(t.data, theirs[name].data) for name, t in ours.items()
    )


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize(
    "make",
    [
        *(lambda row=row: row.make(*row.args, **row.options) for row in ROWS),
        lambda: nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5)),
        lambda: nn.ModuleList([nn.Linear(2, 3)]),
        lambda: nn.ModuleDict({"a": nn.Linear(2, 3)}),
        gpt,
        adapted,
        lambda: GPTConfig(5),
        lambda: Sampling(0.5, top_k=3),
    ],
)
def test_a_module_and_its_twin_are_equal_and_share_nothing(make, twin):
    made = make()
    again = twin(made)
    assert type(again) is type(made)
    if not isinstance(made, nn.KVCache):
        assert repr(again) == repr(made)
    if isinstance(made, nn.Module):
        assert same_state(made, again)
        assert [m.training for m in again.modules()] == [m.training for m in made.modules()]
        assert [p.requires_grad for p in again.parameters()] == [
            p.requires_grad for p in made.parameters()
        ]
        for p, q in zip(made.parameters(), again.parameters(), strict=True):
            assert type(q) is nn.Parameter
            assert not np.shares_memory(p.data, q.data)


@pytest.mark.parametrize("twin", TWINS)
def test_the_twin_of_a_model_with_adapters_computes_trains_and_merges(twin):
    model, tokens = adapted(), np.arange(8).reshape(2, 4)
    again = twin(model)
    assert np.array_equal(again(tokens).data, model(tokens).data)
    assert type(again.h[0].attn) is type(model.h[0].attn)
    optimizer = optim.SGD(finetune.trainable(again), lr=0.1)
    again.loss(tokens, tokens).backward()
    optimizer.step()
    assert not same_state(model, again)
    assert finetune.merge_lora(again) == finetune.merge_lora(model)
    assert type(again.h[0].attn) is nn.MultiHeadAttention


OPTIMIZERS = [
    lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9),
    lambda ps: optim.Adam(ps, lr=0.1),
    lambda ps: optim.AdamW(ps, lr=0.1),
    lambda ps: optim.Adafactor(ps, lr=0.1),
    lambda ps: optim.Lion(ps, lr=0.1),
    lambda ps: optim.Muon(ps, lr=0.1),
]
SCHEDULES = [
    lambda o: lr_scheduler.LambdaLR(o, half_life),
    lambda o: lr_scheduler.ConstantLR(o, 0.5, 2),
    lambda o: lr_scheduler.LinearLR(o, 0.5, 1.0, 4),
    lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    lambda o: lr_scheduler.WarmupCosineLR(o, 2, 5),
    lambda o: lr_scheduler.WarmupStableDecayLR(o, 2, 9, 4),
    lambda o: lr_scheduler.OneCycleLR(o, 1.0, 9),
    lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.5, 1.0, 2), lr_scheduler.CosineAnnealingLR(o, 5)], [2]
    ),
]


def half_life(step: int) -> float:
    return 0.5**step


def trained(model: nn.Module, optimizer: Any, schedule: Any, steps: int) -> list[Any]:
    """The parameters after further steps."""
    for i in range(steps):
        optimizer.zero_grad()
        (model(Tensor([[1.0, 2.0 + i], [0.5, -1.0]])) ** 2).sum().backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
    return [p.data.copy() for p in model.parameters()]


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_a_model_with_its_optimizer_goes_on_as_its_twin_does(make, twin):
    minigrad.manual_seed(1)
    model = nn.Linear(2, 3, bias=False)
    optimizer = make(model.parameters())
    trained(model, optimizer, None, 2)
    other, twin_of_it, _ = pair = twin((model, optimizer, None))
    ours, theirs = trained(model, optimizer, None, 3), trained(*pair, 3)
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not np.shares_memory(model.weight.data, other.weight.data)
    assert repr(optimizer) == repr(twin_of_it)


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("make", SCHEDULES)
def test_a_schedule_goes_on_as_its_twin_does(make, twin):
    minigrad.manual_seed(1)
    model = nn.Linear(2, 3)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    schedule = make(optimizer)
    trained(model, optimizer, schedule, 2)
    triple = twin((model, optimizer, schedule))
    for _ in range(5):
        ours, theirs = trained(model, optimizer, schedule, 1), trained(*triple, 1)
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert schedule.get_last_lr() == triple[2].get_last_lr()


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize(
    "make",
    [
        lambda: CharTokenizer.from_text(TEXT),
        ByteTokenizer,
        lambda: BPETokenizer.train(TEXT, 270),
        lambda: WordPieceTokenizer(["[UNK]", "to", "be", "##t"]),
    ],
)
def test_a_tokenizer_and_its_twin_give_the_same_tokens(make, twin):
    tokenizer = make()
    again = twin(tokenizer)
    tokens = tokenizer.encode("to be or not")
    assert np.array_equal(again.encode("to be or not"), tokens)
    assert again.decode(tokens) == tokenizer.decode(tokens)


@pytest.mark.parametrize("twin", TWINS)
def test_a_generator_and_its_twin_draw_the_same(twin):
    generator = minigrad.Generator(7)
    generator.uniform((3,))
    again = twin(generator)
    assert np.array_equal(again.normal((4,)), generator.normal((4,)))
