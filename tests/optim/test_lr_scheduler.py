"""Schedules: their formulas, PyTorch's numbers, and resuming."""

import importlib.util
import inspect
import math

import pytest
from hypothesis import given, strategies as st
from mpmath import mp, mpf

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
    ("StepLR", {"step_size": 3}),
    ("MultiStepLR", {"milestones": [8, 3, 3], "gamma": 0.5}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("CosineAnnealingLR", {"T_max": 7, "eta_min": 0.01}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2, "eta_min": 0.01}),
    ("CosineAnnealingWarmRestarts", {"T_0": 4}),
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


def test_one_cycle_moves_sgds_momentum_if_it_has_some():
    opt = optimizer(0.1, kind=optim.SGD, momentum=0.9)
    scheduler = schedules.OneCycleLR(opt, max_lr=1.0, total_steps=11, pct_start=0.5)
    assert opt.param_groups[0]["momentum"] == 0.95
    for _ in range(11):
        scheduler.step()
    assert opt.param_groups[0]["momentum"] == 0.95
    with pytest.raises(ConfigError):
        scheduler.step()
    without = optimizer(0.1, kind=optim.SGD)
    schedules.OneCycleLR(without, max_lr=1.0, total_steps=10).step()
    assert without.param_groups[0]["momentum"] == 0
    with pytest.raises(ConfigError, match="no momentum to cycle"):
        schedules.OneCycleLR(optimizer(0.1, kind=optim.Adafactor), max_lr=1.0, total_steps=10)


def test_one_cycle_counts_its_steps_in_epochs():
    a, b = optimizer(0.1), optimizer(0.1)
    counted = schedules.OneCycleLR(b, 0.5, epochs=3, steps_per_epoch=4)
    assert counted.total_steps == 12
    assert rates(a, schedules.OneCycleLR(a, 0.5, 12), 12) == rates(b, counted, 12)
    for wrong in ({}, {"epochs": 3}, {"steps_per_epoch": 4}, {"epochs": 0, "steps_per_epoch": 4}):
        with pytest.raises(ConfigError, match=r"(total_steps|epochs?) must be an integer >= 1"):
            schedules.OneCycleLR(optimizer(0.1), 0.5, **wrong)


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
        lambda o: schedules.MultiStepLR(o, 3),
        lambda o: schedules.ReduceLROnPlateau(o).step("a"),
        lambda o: optim.clip_grad_norm_(o.param_groups[0]["params"], 1.0, norm_type=1.0),
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


# --- against recursions, as the papers and PyTorch write them


def recursion(name, settings, lr, n):
    """Rates at steps 0 .. n - 1, each from the one before, in 50 digits."""
    base, found, milestones = mpf(lr), [mpf(lr)], settings.get("milestones", ())
    T_cur, T_i = 0, settings.get("T_0")
    for step in range(1, n):
        gamma = mpf(settings.get("gamma", 0.1))
        if name == "StepLR":
            found.append(found[-1] * (gamma if step % settings["step_size"] == 0 else 1))
        elif name == "MultiStepLR":
            found.append(found[-1] * gamma ** milestones.count(step))
        elif name == "ExponentialLR":
            found.append(found[-1] * gamma)
        else:
            T_cur += 1
            if T_cur == T_i:
                T_cur, T_i = 0, T_i * settings.get("T_mult", 1)
            low = mpf(settings.get("eta_min", 0))
            found.append(low + (base - low) * (1 + mp.cos(mp.pi * T_cur / T_i)) / 2)
    return found


RECURSIVE = [case for case in SAME_AS_TORCH if case[0] in ("StepLR", "MultiStepLR")] + [
    ("StepLR", {"step_size": 1, "gamma": 0.99}),
    ("ExponentialLR", {"gamma": 0.97}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2, "eta_min": 0.01}),
    ("CosineAnnealingWarmRestarts", {"T_0": 7}),
]


@pytest.mark.parametrize(("name", "settings"), RECURSIVE)
def test_a_formula_gives_the_rates_of_the_recursion_for_100_steps(name, settings):
    opt = optimizer(0.3)
    found = rates(opt, getattr(schedules, name)(opt, **settings), 100)
    for (lr,), wanted in zip(found, recursion(name, settings, 0.3, 100), strict=True):
        assert lr == pytest.approx(float(wanted), rel=1e-12)


def plateaus(metrics, lr, mode, factor, patience, threshold, threshold_mode, cooldown, min_lr):
    """The rates after each metric, told by the definition: look at the whole past anew."""
    best, bad, cooling, found = None, 0, 0, []
    for metric in metrics:
        if best is None:
            better = True
        elif threshold_mode == "rel":
            bound = best * (1 - threshold) if mode == "min" else best * (1 + threshold)
            better = metric < bound if mode == "min" else metric > bound
        else:
            better = metric < best - threshold if mode == "min" else metric > best + threshold
        best, bad = (metric, 0) if better else (best, bad + 1)
        if cooling > 0:
            cooling, bad = cooling - 1, 0
        if bad > patience:
            lr, cooling, bad = max(lr * factor, min_lr), cooldown, 0
        found.append(lr)
    return found


@given(
    metrics=st.lists(st.sampled_from([0.5, 0.9, 0.99, 1.0, 1.01, 1.5]), max_size=40),
    mode=st.sampled_from(["min", "max"]),
    patience=st.integers(0, 3),
    threshold=st.sampled_from([0.0, 1e-4, 0.02]),
    threshold_mode=st.sampled_from(["rel", "abs"]),
    cooldown=st.integers(0, 3),
    cut=st.integers(0, 40),
)
def test_a_plateau_lowers_the_rates_and_a_resumed_one_goes_on(metrics, cut, **settings):
    settings = {"factor": 0.5, "min_lr": 0.01, **settings}
    opt = optimizer(0.3)
    schedule, found = schedules.ReduceLROnPlateau(opt, **settings), []
    for i, metric in enumerate(metrics):
        if i == cut:
            fresh = optimizer(0.3)
            other = schedules.ReduceLROnPlateau(fresh, **settings)
            other.load_state_dict(schedule.state_dict())
            opt, schedule = fresh, other
        schedule.step(Tensor(metric, dtype="float64"))
        found.append(opt.lr)
    assert found == plateaus(metrics, 0.3, **settings)


def test_a_plateau_needs_its_metric_and_makes_no_tiny_change():
    opt = optimizer(1e-9)
    schedule = schedules.ReduceLROnPlateau(opt, patience=0)
    with pytest.raises(ConfigError, match="metrics must be a number"):
        schedule.step()
    schedule.step(1.0)
    schedule.step(math.nan)
    assert opt.lr == 1e-9


def test_warm_restarts_move_to_a_fraction_of_an_epoch_and_back_from_a_state():
    opt = optimizer(1.0)
    schedule = schedules.CosineAnnealingWarmRestarts(opt, T_0=2, T_mult=2)
    schedule.step(3.5)  # 1.5 steps into a cycle of 4
    assert opt.lr == pytest.approx((1 + math.cos(math.pi * 1.5 / 4)) / 2, rel=1e-12)
    fresh = optimizer(1.0)
    other = schedules.CosineAnnealingWarmRestarts(fresh, T_0=2, T_mult=2)
    other.load_state_dict(schedule.state_dict())
    assert fresh.lr == opt.lr
    for _ in range(9):
        schedule.step()
        other.step()
        assert fresh.lr == opt.lr


# --- what every schedule must do, nested or not


def _sequence(opt):
    return schedules.SequentialLR(
        opt, [schedules.LinearLR(opt, total_iters=3), schedules.CosineAnnealingLR(opt, 20)], [3]
    )


MAKERS = {
    "lambda": lambda o: schedules.LambdaLR(o, lambda step: 0.9**step),
    "step": lambda o: schedules.StepLR(o, 2),
    "multistep": lambda o: schedules.MultiStepLR(o, [2, 5]),
    "exponential": lambda o: schedules.ExponentialLR(o, 0.9),
    "constant": lambda o: schedules.ConstantLR(o),
    "linear": lambda o: schedules.LinearLR(o),
    "cosine": lambda o: schedules.CosineAnnealingLR(o, 9, 0.001),
    "restarts": lambda o: schedules.CosineAnnealingWarmRestarts(o, 2, 2),
    "warmup-cosine": lambda o: schedules.WarmupCosineLR(o, 2, 9),
    "warmup-stable-decay": lambda o: schedules.WarmupStableDecayLR(o, 2, 9, 3),
    "one-cycle": lambda o: schedules.OneCycleLR(o, 0.5, 30),
    "sequence": _sequence,
}
NESTED = {
    f"{name} nested": lambda o, make=make: schedules.SequentialLR(
        o, [schedules.ConstantLR(o), make(o)], [2]
    )
    for name, make in MAKERS.items()
}
NESTED["sequence nested twice"] = lambda o: schedules.SequentialLR(
    o, [NESTED["sequence nested"](o), _sequence(o)], [4]
)


@pytest.mark.parametrize("make", [*MAKERS.values(), *NESTED.values()], ids=[*MAKERS, *NESTED])
def test_a_group_that_is_added_later_follows_the_schedule_from_its_own_rate(make):
    opt, wide = optimizer(0.1), optimizer(0.1, 0.02)
    schedule, wanted = make(opt), make(wide)
    for step in range(9):
        schedule.step()
        wanted.step()
        if step == 3:
            opt.add_param_group({"params": [Tensor([0.0], requires_grad=True)], "lr": 0.02})
        if step > 3:
            assert opt.param_groups[1]["lr"] == wide.param_groups[1]["lr"]
        assert opt.lr == wide.lr
        assert opt.param_groups[0]["betas"] == wide.param_groups[0]["betas"]
    again = make(fresh := optimizer(0.3, 0.4))
    again.load_state_dict(schedule.state_dict())
    for _ in range(5):
        assert [g["lr"] for g in fresh.param_groups] == [g["lr"] for g in opt.param_groups]
        again.step()
        schedule.step()


@pytest.mark.parametrize("make", [*MAKERS.values(), *NESTED.values()], ids=[*MAKERS, *NESTED])
def test_a_schedule_prints_its_settings_its_step_and_its_rates(make):
    schedule = make(optimizer(0.1))
    schedule.step()
    text = repr(schedule)
    assert text.startswith(type(schedule).__name__ + "(") and "last_epoch=1" in text
    assert f"lr {schedule.get_last_lr()[0]:g}" in text


def test_a_nested_one_cycle_moves_the_momentum_in_its_own_time():
    opt, alone = optimizer(0.1), optimizer(0.1)
    nested = schedules.SequentialLR(
        opt, [schedules.ConstantLR(opt), schedules.OneCycleLR(opt, 0.5, 10)], [3]
    )
    cycle = schedules.OneCycleLR(alone, 0.5, 10)
    for _ in range(3):
        nested.step()
    for _ in range(9):
        assert opt.param_groups[0]["betas"] == alone.param_groups[0]["betas"]
        assert opt.lr == alone.lr
        nested.step()
        cycle.step()


@pytest.mark.parametrize("total_steps", [1, 2, 3, 10])
def test_one_cycle_makes_as_many_steps_as_it_was_made_for(total_steps):
    opt = optimizer(0.1)
    schedule = schedules.OneCycleLR(opt, max_lr=1.0, total_steps=total_steps)
    for _ in range(total_steps):
        schedule.step()
    assert opt.lr == pytest.approx(1 / 25 / 1e4)
    with pytest.raises(ConfigError, match=f"step {total_steps + 1} of"):
        schedule.step()


def test_a_setting_for_each_group_is_missing_for_one_that_is_added_later():
    for make in (
        lambda o: schedules.LambdaLR(o, [lambda step: 1.0]),
        lambda o: schedules.OneCycleLR(o, [0.5], 10),
    ):
        opt = optimizer(0.1)
        schedule = make(opt)
        opt.add_param_group({"params": [Tensor([0.0], requires_grad=True)]})
        with pytest.raises(ConfigError, match="group 1 was added later"):
            schedule.step()
        assert schedule.last_epoch == 0


def test_a_schedule_that_starts_at_a_step_has_the_rates_of_that_step():
    for make in MAKERS.values():
        opt, other = optimizer(0.1), optimizer(0.1)
        schedule = make(opt)
        for _ in range(4):
            schedule.step()
        if "last_epoch" in inspect.signature(type(schedule)).parameters:
            settings = inspect.signature(type(schedule)).parameters
            given = {n: getattr(schedule, n) for n in settings if n not in ("optimizer",)}
            if "schedulers" not in given:
                type(schedule)(other, **{**given, "last_epoch": 3})
                assert other.lr == opt.lr
