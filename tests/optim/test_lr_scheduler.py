"""Schedules: their formulas, PyTorch's numbers, and resuming."""

import importlib.util
import math

import pytest

from minigrad import Tensor, optim
from minigrad.errors import ConfigError
from minigrad.optim import lr_scheduler as schedules


def optimizer(*lrs, kind=optim.AdamW, **settings):
    return kind(
        [{"params": [Tensor([0.0], requires_grad=True)], "lr": lr} for lr in lrs or (0.1,)],
        **settings,
    )


def rates(opt, scheduler, n):
    """The learning rates in use at steps 0 .. n - 1."""
    found = []
    for _ in range(n):
        found.append([group["lr"] for group in opt.param_groups])
        scheduler.step()
    return found


SAME_AS_TORCH = [
    ("LambdaLR", {"lr_lambda": lambda step: 0.95**step}),
    ("ConstantLR", {}),
    ("ConstantLR", {"factor": 0.1, "total_iters": 12}),
    ("LinearLR", {}),
    ("LinearLR", {"start_factor": 0.1, "end_factor": 0.5, "total_iters": 12}),
    ("CosineAnnealingLR", {"T_max": 7, "eta_min": 0.01}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 25}),
    (
        "OneCycleLR",
        {
            "max_lr": [0.5, 1.0],
            "total_steps": 25,
            "anneal_strategy": "linear",
            "pct_start": 0.4,
            "div_factor": 10,
        },
    ),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 25, "three_phase": True}),
]


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize(("name", "settings"), SAME_AS_TORCH)
def test_pytorch_gives_the_same_rates_and_betas(name, settings):
    import torch

    ours = optimizer(0.1, 0.3)
    theirs = torch.optim.AdamW(
        [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.1, 0.3)]
    )
    a, b = (
        getattr(schedules, name)(ours, **settings),
        getattr(torch.optim.lr_scheduler, name)(theirs, **settings),
    )
    for step in range(25):
        for own, other in zip(ours.param_groups, theirs.param_groups, strict=True):
            assert own["lr"] == pytest.approx(other["lr"], rel=1e-9)
            assert own["betas"] == pytest.approx(other["betas"], rel=1e-9)
        if step < 24:
            theirs.step()
            a.step()
            b.step()


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_pytorch_gives_the_same_sequence():
    import torch

    ours = optimizer(0.1)
    theirs = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    a = schedules.SequentialLR(
        ours,
        [schedules.LinearLR(ours, 0.1, total_iters=5), schedules.CosineAnnealingLR(ours, 20)],
        [5],
    )
    t = torch.optim.lr_scheduler
    b = t.SequentialLR(
        theirs, [t.LinearLR(theirs, 0.1, total_iters=5), t.CosineAnnealingLR(theirs, 20)], [5]
    )
    for _ in range(20):
        assert ours.lr == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-9)
        theirs.step()
        a.step()
        b.step()


def test_warmup_rises_in_a_line_then_falls_by_a_cosine_and_stays():
    opt = optimizer(1.0)
    found = [
        r[0]
        for r in rates(
            opt, schedules.WarmupCosineLR(opt, warmup_steps=4, total_steps=12, min_lr=0.1), 15
        )
    ]
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    assert found[4] == 1.0
    assert found[8] == pytest.approx(0.55)
    assert found[6] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert found[12:] == [0.1, 0.1, 0.1]


def test_a_schedule_is_used_by_the_optimizer_in_place():
    opt = optimizer(1.0, kind=optim.SGD)
    leaf = opt.param_groups[0].settings
    scheduler = schedules.LambdaLR(opt, lambda step: 1 / (1 + step))
    scheduler.step()
    assert opt.param_groups[0].settings is leaf
    assert leaf.data[0] == 0.5
    assert scheduler.get_last_lr() == [0.5]


def test_one_cycle_moves_sgds_momentum_and_wants_some():
    opt = optimizer(0.1, kind=optim.SGD, momentum=0.9)
    scheduler = schedules.OneCycleLR(opt, max_lr=1.0, total_steps=11, pct_start=0.5)
    assert opt.param_groups[0]["momentum"] == 0.95
    for _ in range(10):
        scheduler.step()
    assert opt.param_groups[0]["momentum"] == 0.95
    with pytest.raises(ConfigError):
        scheduler.step()
    with pytest.raises(ConfigError, match="momentum"):
        schedules.OneCycleLR(optimizer(0.1, kind=optim.SGD), max_lr=1.0, total_steps=10)


def test_a_resumed_schedule_goes_on_where_it_was():
    a, b = optimizer(0.1), optimizer(0.1)
    first = schedules.WarmupCosineLR(a, 3, 10)
    rates(a, first, 5)
    second = schedules.WarmupCosineLR(b, 3, 10)
    second.load_state_dict(first.state_dict())
    assert b.lr == a.lr
    assert rates(a, first, 4) == rates(b, second, 4)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: schedules.LinearLR(o, start_factor=0.0),
        lambda o: schedules.LinearLR(o, total_iters=0),
        lambda o: schedules.CosineAnnealingLR(o, 0),
        lambda o: schedules.WarmupCosineLR(o, 11, 10),
        lambda o: schedules.LambdaLR(o, [lambda s: 1.0] * 3),
        lambda o: schedules.SequentialLR(o, [schedules.LinearLR(o)], [3]),
        lambda o: schedules.SequentialLR(
            o, [schedules.LinearLR(o), schedules.LinearLR(optimizer())], [3]
        ),
        lambda o: schedules.OneCycleLR(o, 0.1, 10, anneal_strategy="cubic"),
        lambda o: schedules.LambdaLR(o, lambda step: -1.0),
    ],
)
def test_schedules_that_make_no_sense_are_refused(make):
    with pytest.raises(ConfigError):
        make(optimizer())


DECAYS = [
    ("linear", lambda x: 1 - x),
    ("sqrt", lambda x: 1 - math.sqrt(x)),
    ("cosine", lambda x: (1 + math.cos(math.pi * x)) / 2),
]


@pytest.mark.parametrize(("decay", "shape"), DECAYS)
def test_warm_up_stable_decay_goes_up_stays_and_comes_down(decay, shape):
    opt = optimizer(0.4)
    found = rates(opt, schedules.WarmupStableDecayLR(opt, 4, 20, 8, min_lr=0.1, decay=decay), 24)
    wanted = (
        [0.1, 0.2, 0.3, 0.4] + [0.4] * 8 + [0.1 + 0.3 * shape(i / 8) for i in range(8)] + [0.1] * 4
    )
    assert [lr for (lr,) in found] == pytest.approx(wanted, rel=1e-12)


def test_warm_up_stable_decay_without_a_decay_stays_where_it_is():
    opt = optimizer(0.4)
    assert [lr for (lr,) in rates(opt, schedules.WarmupStableDecayLR(opt, 2, 5, 0), 7)] == [0.2] + [
        0.4
    ] * 6


@pytest.mark.parametrize(
    "settings", [{"decay_steps": 9}, {"decay_steps": -1}, {"decay": "no"}, {"min_lr": -1.0}]
)
def test_warm_up_stable_decay_refuses_what_makes_no_sense(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        schedules.WarmupStableDecayLR(
            optimizer(), **{"warmup_steps": 2, "total_steps": 10, "decay_steps": 4, **settings}
        )
