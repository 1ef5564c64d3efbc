"""The Trainer's comforts: compiled steps, accumulation, mixed precision, early stopping, the guard
against NaN, memory, metrics.
"""

import json
import math
import time
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import given, strategies as st

import minigrad
from minigrad import Tensor, functional as F, nn
from minigrad.compiler.native import has_bfloat16
from minigrad.data import TextData
from minigrad.dtypes import Array
from minigrad.errors import CaptureError, ConfigError, NotFiniteError
from minigrad.files import CheckpointFolder, load_checkpoint
from minigrad.models import GPT, GPTConfig
from minigrad.optim import SGD, Adafactor, AdamW, Muon, RMSprop
from minigrad.optim.lr_scheduler import ReduceLROnPlateau, WarmupCosineLR
from minigrad.precision import get_matmul_precision
from minigrad.random import default_generator
from minigrad.train import MetricsLog, Report, Trainer, evaluate
from minigrad.train.steps import EagerStep

TOKENS = np.tile(np.arange(7, dtype=np.int32), 60)


def make_trainer(
    steps: int = 12,
    dropout: float = 0.2,
    batch_size: int = 4,
    data: Any = None,
    lr: float = 0.01,
    **settings: Any,
) -> Trainer:
    minigrad.manual_seed(3)
    model = GPT(
        GPTConfig.gpt2(vocab_size=7, block_size=8, n_layer=1, n_head=2, n_embd=8, dropout=dropout)
    )
    optimizer = AdamW(model.parameters(), lr=lr)
    data = data or TextData(TOKENS, block_size=8, batch_size=batch_size, seed=1)
    return Trainer(
        model,
        optimizer,
        data,
        steps=steps,
        schedule=WarmupCosineLR(optimizer, 3, steps),
        **{"eval_interval": 5, "jit": False, **settings},
    )


def weights(trainer: Trainer) -> list[Array]:
    return [np.asarray(p.float().data).copy() for p in trainer.model.parameters()]  # type: ignore[attr-defined]


def assert_same_bits(one: Trainer, other: Trainer) -> None:
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


def losses(trainer: Trainer) -> list[float]:
    return [r.loss for r in trainer.run()]


compiled = pytest.mark.skipif(make_trainer(jit=None).backend != "c", reason="no C compiler")


# --- compiled steps


@compiled
def test_a_compiled_run_is_the_eager_one_to_rounding_and_says_what_it_is() -> None:
    one = make_trainer(dropout=0.2, jit=True)
    got = losses(one)
    other = make_trainer(dropout=0.2, jit=False)
    np.testing.assert_allclose(got, losses(other), rtol=2e-5)
    assert one.best_val_loss == pytest.approx(other.best_val_loss, rel=1e-5)
    assert (one.backend, other.backend) == ("c", "eager")
    assert one.note.startswith("by /") and other.note == ""


@compiled
def test_getting_ready_to_compile_leaves_no_trace() -> None:
    trainer = make_trainer(jit=True)
    before, state, drawn = weights(trainer), trainer.state_dict(), default_generator.get_state()
    trainer.prepare()
    for a, b in zip(before, weights(trainer), strict=True):
        np.testing.assert_array_equal(a, b)
    after = trainer.state_dict()
    assert after["optimizer"] == state["optimizer"] and default_generator.get_state() == drawn
    assert all(not m.data.any() for t in trainer.optimizer._bundles[0] for m in t.moments)
    assert all(p.grad is None for p in trainer.model.parameters())


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"jit": True}, marks=compiled),
        pytest.param({"jit": True, "parts": 2}, marks=compiled),
        {"jit": False, "accumulate": 2},
        {"mixed": "bfloat16"},
        {"mixed": "float16"},
    ],
    ids=str,
)
def test_measuring_the_speed_leaves_no_trace(how: dict[str, Any]) -> None:
    plain = make_trainer(steps=4, **how)
    wanted = losses(plain)
    measured = make_trainer(steps=4, **how)
    step, evaluation = measured.measure(0.01)
    assert step > 0 and evaluation > 0
    assert losses(measured) == wanted
    assert_same_bits(measured, plain)


def test_a_few_slow_steps_do_not_change_what_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A compiled step is made op by op at times, to be checked: one such step must not count."""
    trainer, made = make_trainer(jit=False), []
    update = EagerStep.update

    def sometimes_slow(step: EagerStep) -> None:
        made.append(time.sleep(0.3 if len(made) in (1, 3, 8) else 0.0))
        update(step)

    monkeypatch.setattr(EagerStep, "update", sometimes_slow)
    assert trainer.measure(0.2)[0] < 0.1
    assert len(made) >= 9


@pytest.mark.parametrize("jit", [pytest.param(True, marks=compiled), False])
def test_operands_in_bfloat16_reach_the_steps_and_the_evaluation(jit: bool) -> None:
    if jit and not has_bfloat16():
        pytest.skip("no AVX512-BF16")
    rounded = make_trainer(jit=jit, matmul="bfloat16")
    got, plain = losses(rounded), make_trainer(jit=jit)
    wanted = losses(plain)
    assert (plain.matmul, rounded.matmul) == ("float32", "bfloat16")
    np.testing.assert_allclose(got, wanted, rtol=1e-2)
    assert got != wanted and rounded.best_val_loss != plain.best_val_loss
    assert get_matmul_precision() == "float32"
    with pytest.raises(ConfigError, match="matmul must be"):
        make_trainer(matmul="high")


def test_without_a_compiler_the_run_is_eager_with_one_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    trainer = make_trainer(jit=None)
    assert (
        trainer.backend == "eager"
        and "no-such-compiler: not found" in trainer.note
        and "\n" not in trainer.note
    )
    got = losses(trainer)
    assert got == losses(make_trainer(jit=False))


def test_a_step_that_must_be_compiled_is_replayed_by_numpy_without_a_compiler_with_one_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    trainer = make_trainer(jit=True)
    with pytest.warns(RuntimeWarning, match="no-such-compiler") as caught:
        got = losses(trainer)
    assert trainer.backend == "numpy" and "no-such-compiler" in trainer.note and len(caught) == 1
    assert got == losses(make_trainer(jit=False))


class Peeking(nn.Module):
    """A model whose loss reads a value, which a recording cannot follow."""

    def __init__(self) -> None:
        self.layer = nn.Linear(3, 1)

    def loss(self, x: Any, y: Any) -> Tensor:
        loss = (self.layer(Tensor(x) if isinstance(x, np.ndarray) else x) - y).square().mean()
        return loss * 2 if loss.item() > 1 else loss


class Rows:
    """Batches of the same numbers over and over."""

    def __init__(self, x: Array, y: Array) -> None:
        self.x, self.y = x, y

    def batch(self, step: int) -> tuple[Array, Array]:
        return self.x, self.y

    def validation(self) -> Iterator[tuple[Array, Array]]:
        yield self.x, self.y


def test_a_model_that_cannot_be_recorded_runs_eagerly_unless_compiling_was_asked_for() -> None:
    rng = np.random.default_rng(0)
    data = Rows(rng.normal(size=(6, 3)).astype(np.float32), np.ones((6, 1), np.float32))
    model = Peeking()
    make = {
        "model": model,
        "optimizer": SGD(model.parameters(), lr=0.1),
        "data": data,
        "steps": 20,
        "eval_interval": 20,
    }
    trainer = Trainer(**make)
    *_, last = trainer.run()
    assert last.val_loss is not None and last.val_loss < 0.5
    if trainer.note.startswith("item()"):  # with a compiler
        with pytest.raises(CaptureError, match="item"):
            next(Trainer(**make, jit=True).run())


@compiled
@pytest.mark.parametrize(
    "make",
    [
        lambda p: SGD(p, lr=0.1, momentum=0.9),
        lambda p: Adafactor(p),
        lambda p: AdamW(p, lr=0.01),
        lambda p: AdamW(p, lr=0.01, amsgrad=True),
        lambda p: RMSprop(p, lr=0.01, momentum=0.5, centered=True, eps=1e-3),
    ],
)
def test_every_optimizer_is_the_eager_one(make: Any) -> None:
    runs = []
    for jit in (True, False):
        trainer = make_trainer(dropout=0.0)
        optimizer = make(trainer.model.parameters())
        runs.append(losses(Trainer(trainer.model, optimizer, trainer.data, steps=8, jit=jit)))
    np.testing.assert_allclose(runs[0], runs[1], rtol=1e-4)


class Halves(nn.Module):
    """One half of it is trained, the other never gets a gradient."""

    def __init__(self) -> None:
        self.used, self.unused = nn.Linear(3, 1), nn.Linear(3, 2)

    def loss(self, x: Any, y: Any) -> Tensor:
        return (self.used(Tensor(x) if isinstance(x, np.ndarray) else x) - y).square().mean()


@pytest.mark.parametrize("jit", [None, False])
def test_parameters_without_a_gradient_stay_and_the_rest_is_trained(jit: bool | None) -> None:
    minigrad.manual_seed(0)
    model = Halves()
    unused = model.unused.weight.numpy().copy()
    data = Rows(np.eye(3, dtype=np.float32), np.ones((3, 1), np.float32))
    trainer = Trainer(
        model, AdamW(model.parameters(), lr=0.1), data, steps=60, eval_interval=60, jit=jit
    )
    *_, last = trainer.run()
    assert last.loss < 0.01
    np.testing.assert_array_equal(model.unused.weight.numpy(), unused)
    assert sorted(trainer.state_dict()["optimizer"]["state"]) == ["0", "1"]


def test_muon_trains_through_the_trainer() -> None:
    model = nn.Linear(4, 4, bias=False)
    model.loss = lambda x, y: (model(x if isinstance(x, Tensor) else Tensor(x)) - y).square().mean()  # type: ignore[method-assign]
    data = Rows(np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32))
    trainer = Trainer(model, Muon(model.parameters(), lr=0.05), data, steps=80, eval_interval=80)  # type: ignore[arg-type]
    *_, last = trainer.run()
    assert last.loss < 0.01


def test_a_slow_first_step_does_not_count_in_the_speed_once_there_is_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer, now = make_trainer(jit=False), 0.0
    seconds, step = iter([100.0, 1.0, 3.0, *[2.0] * 100]), trainer.train_step

    def timed() -> tuple[float, float, int]:
        nonlocal now
        now += next(seconds)
        return step()

    monkeypatch.setattr(trainer, "train_step", timed)
    monkeypatch.setattr("minigrad.train.trainer.time.perf_counter", lambda: now)
    speeds = [report.tokens_per_second for report, _ in zip(trainer.run(), range(4), strict=False)]
    tokens = 100 * speeds[0]
    assert speeds == pytest.approx([tokens / 100, tokens / 1, tokens / 2, tokens / 2])


# --- accumulation and mixed precision


@pytest.mark.parametrize(("parts", "jit"), [(2, False), (6, False), (2, None), (3, None)])
def test_a_batch_in_parts_is_the_batch_as_a_whole(parts: int, jit: bool | None) -> None:
    whole = make_trainer(dropout=0.0, batch_size=6, jit=False)
    cut = make_trainer(dropout=0.0, batch_size=6, accumulate=parts, jit=jit)
    minigrad.manual_seed(3)
    for a, b in zip(whole.run(), cut.run(), strict=True):
        assert a.loss == pytest.approx(b.loss, rel=1e-5) and a.grad_norm == pytest.approx(
            b.grad_norm, rel=1e-4
        )
        assert b.tokens_per_second > 0


class Scores(nn.Module):
    """A table of logits: the smallest model with a loss over targets."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.table = nn.Parameter(rng.normal(size=(7, 7)).astype(np.float32))

    def loss(self, x: Any, y: Any) -> Tensor:
        return F.cross_entropy(self.table[x], y)


@st.composite
def cut_batches(draw: st.DrawFn) -> tuple[Array, Array, list[int]]:
    """Tokens and targets, (B, T), some of the targets -100, and where the batch is cut."""
    B, T = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x, y = rng.integers(0, 7, (2, B, T))
    dropped = draw(st.lists(st.booleans(), min_size=B * T, max_size=B * T))
    y[np.reshape(dropped, (B, T))] = -100
    cuts = draw(st.sets(st.integers(1, B - 1))) if B > 1 else set()
    return x, y, sorted(cuts)


@given(cut_batches())
def test_any_cut_of_a_batch_gives_the_gradient_loss_and_norm_of_the_whole(
    batch: tuple[Array, Array, list[int]],
) -> None:
    x, y, cuts = batch
    hypothesis.assume((y != -100).any())
    parts = list(zip(np.split(x, cuts), np.split(y, cuts), strict=True))
    found = []
    for clip in (math.inf, 0.01):
        for cut in ([(x, y)], parts):
            model = Scores()
            step = EagerStep(model, SGD(model.parameters(), lr=1.0), clip)
            loss, norm = step.gradients(cut)
            assert model.table.grad is not None
            found.append((loss, norm, model.table.grad.numpy().copy()))
        (loss, norm, gradient), (cut_loss, cut_norm, cut_gradient) = found[-2:]
        assert cut_loss == pytest.approx(loss, rel=1e-5)
        assert cut_norm == pytest.approx(norm, rel=1e-5)
        np.testing.assert_allclose(cut_gradient, gradient, rtol=1e-4, atol=1e-8)
    assert evaluate(model, parts) == pytest.approx(found[0][0], rel=1e-5)


@pytest.mark.parametrize("jit", [False, None])
def test_parts_with_unequal_numbers_of_targets_are_the_batch_as_a_whole(jit: bool | None) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 7, (2, 4, 8))
    y[:2, 1:], y[3] = -100, -100

    def run(accumulate: int) -> list[Report]:
        model = GPT(GPTConfig.gpt2(vocab_size=7, block_size=8, n_layer=1, n_head=2, n_embd=8))
        model.load_state_dict(start)
        return list(
            Trainer(
                model,
                AdamW(model.parameters(), lr=0.01),
                Rows(x, y),
                steps=4,
                accumulate=accumulate,
                jit=jit,
            ).run()
        )

    start = GPT(
        GPTConfig.gpt2(vocab_size=7, block_size=8, n_layer=1, n_head=2, n_embd=8)
    ).state_dict()
    wholes = run(1)
    for parts in (2, 4):
        for whole, cut in zip(wholes, run(parts), strict=True):
            assert cut.loss == pytest.approx(whole.loss, rel=1e-5)
            assert cut.grad_norm == pytest.approx(whole.grad_norm, rel=1e-4)
            if whole.val_loss is not None:
                assert cut.val_loss == pytest.approx(whole.val_loss, rel=1e-5)


class Counted(Scores):
    """Losses that are divided by something else than the targets other than -100."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.each = kind, np.arange(1, 8, dtype=np.float32) ** 2

    def loss(self, x: Any, y: Any) -> Tensor:
        if self.kind == "ignore_index":
            return F.cross_entropy(self.table[x], y, ignore_index=-1)
        if self.kind == "weight":
            return F.cross_entropy(self.table[x], y, weight=Tensor(self.each))
        if self.kind == "probabilities":
            return F.cross_entropy(self.table[x], np.eye(7, dtype=np.float32)[y], axis=-1)
        return F.mse_loss(self.table[x].sum(-1), y)

    def count_targets(self, y: Array) -> float:
        if self.kind == "ignore_index":
            return float((y >= 0).sum())
        return float(self.each[y].sum()) if self.kind == "weight" else y.size


@pytest.mark.parametrize("kind", ["ignore_index", "weight", "probabilities", "numbers"])
@pytest.mark.parametrize("jit", [False, None])
def test_a_model_says_what_its_mean_loss_is_divided_by(kind: str, jit: bool | None) -> None:
    x, y = np.random.default_rng(1).integers(0, 7, (2, 4, 8))
    if kind in ("ignore_index", "numbers"):
        y[:2, 1:], y[3] = -1, -1 if kind == "ignore_index" else -100

    def step(**settings: int) -> tuple[float, ...]:
        model = Counted(kind)
        optimizer = SGD(model.parameters(), lr=0.1)
        trainer = Trainer(model, optimizer, Rows(x, y), steps=1, jit=jit, **settings)
        loss, norm, _ = trainer.train_step()
        return loss, norm, *model.table.numpy().ravel()

    for cut in ({"accumulate": 2}, {"accumulate": 4}, {"parts": 4}):
        assert step(**cut) == pytest.approx(step(), rel=1e-5, abs=1e-7)
    whole = evaluate(Counted(kind), [(x, y)])
    for n in (1, 2, 3):
        cuts = [(x[:n], y[:n]), (x[n:], y[n:])]
        assert evaluate(Counted(kind), cuts) == pytest.approx(whole, rel=1e-5)


def test_targets_of_another_ignore_index_are_refused_unless_the_model_counts_them() -> None:
    x, y = np.array([[0, 1], [2, 3]]), np.array([[-1, 2], [1, 1]])
    with pytest.raises(
        ConfigError, match=r"^count_targets: y must .* a method count_targets.* got -1"
    ):
        evaluate(Scores(), [(x, y)])
    step = EagerStep(Scores(), SGD([nn.Parameter([1.0])], lr=1.0), 1.0)
    with pytest.raises(ConfigError, match=r"^count_targets: y must be"):
        step.gradients([(x[:1], y[:1]), (x[1:], y[1:])])


def test_a_float64_model_gets_its_parts_shares_in_float64() -> None:
    x, y = np.random.default_rng(0).integers(0, 7, (2, 3, 2))
    gradients = []
    for parts in ([(x, y)], [(x[:1], y[:1]), (x[1:], y[1:])]):
        model = Scores().to("float64")
        EagerStep(model, SGD(model.parameters(), lr=1.0), 1.0).gradients(parts)
        gradients.append(model.table.grad.numpy())
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-14, atol=1e-17)


def test_parts_that_do_not_divide_the_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match="accumulate=3 does not divide a batch of 4"):
        next(make_trainer(accumulate=3).run())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision_follows_float32_with_half_the_parameters_memory(dtype: str) -> None:
    full, mixed = (
        make_trainer(steps=60, dropout=0.0, jit=False),
        make_trainer(steps=60, dropout=0.0, mixed=dtype, accumulate=2),
    )
    minigrad.manual_seed(3)
    *_, want = full.run()
    *_, got = mixed.run()
    assert want.val_loss is not None and got.val_loss is not None and want.val_loss < 1.5
    assert got.val_loss == pytest.approx(want.val_loss, abs=0.1)
    assert {p.dtype.itemsize for p in mixed.model.parameters()} == {2}
    assert mixed.backend == "eager" and "16-bit" in mixed.note


def test_an_overflow_in_float16_costs_no_step_and_draws_the_same_dropout() -> None:
    reports = []
    for scale in (2.0**10, 2.0**40):
        trainer = make_trainer(mixed="float16")
        assert trainer._mixed is not None
        trainer._mixed.mixed.loss_scale = scale
        reports.append(next(trainer.run()))
    assert trainer._mixed.mixed.skipped > 3 and trainer._mixed.mixed.loss_scale < 2.0**32
    assert reports[0].step == reports[1].step == 1 and reports[0].loss == reports[1].loss
    assert reports[0].grad_norm == pytest.approx(reports[1].grad_norm, rel=1e-2)


def test_mixed_precision_and_jit_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match="mixed='bfloat16'"):
        make_trainer(mixed="bfloat16", jit=True)


# --- resuming


@pytest.mark.parametrize(
    "settings",
    [
        {"jit": None},
        {},
        {"jit": None, "accumulate": 2},
        {"mixed": "float16"},
        {"mixed": "bfloat16"},
    ],
    ids=str,
)
def test_a_run_goes_on_from_a_checkpoint_to_the_bit(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole = make_trainer(**settings)
    wanted = list(whole.run())
    first = make_trainer(**settings)
    with CheckpointFolder(tmp_path) as folder:
        for report in first.run():
            if report.step in (3, 7):
                first.save(folder)
            if report.step == 8:
                break
        second = make_trainer(**settings)
        minigrad.manual_seed(99)
        found = folder.load_latest()
        assert found is not None
        second.restore(found)
    got = list(second.run())
    assert [(r.step, r.loss, r.grad_norm, r.lr, r.val_loss) for r in got] == [
        (r.step, r.loss, r.grad_norm, r.lr, r.val_loss) for r in wanted[7:]
    ]
    assert_same_bits(whole, second)


@pytest.mark.parametrize("jit", [None, False])
def test_a_run_can_be_taken_back_in_the_same_trainer(tmp_path: Path, jit: bool | None) -> None:
    trainer, seen = make_trainer(jit=jit), []
    with CheckpointFolder(tmp_path) as folder:
        for report in trainer.run():
            seen.append(report.loss)
            if report.step == 4:
                trainer.save(folder)
        found = folder.load_latest()
    assert found is not None
    trainer.restore(found)
    assert trainer.step == 4 and losses(trainer) == seen[4:]


@compiled
def test_the_gradients_of_all_compiled_steps_lie_in_the_same_memory() -> None:
    trainer, places = make_trainer(jit=True), []
    for _ in trainer.run():
        places.append(
            [p.grad.data.ctypes.data for p in trainer.model.parameters() if p.grad is not None]
        )
    assert len(places[0]) > 10 and all(place == places[0] for place in places)


# --- early stopping and callbacks


def test_a_run_without_patience_left_stops_and_stays_stopped_when_it_is_resumed(
    tmp_path: Path,
) -> None:
    trainer = make_trainer(steps=50, lr=0.0, dropout=0.0, eval_interval=2, patience=3)
    reports = list(trainer.run())
    assert (
        reports[-1].step == 8 and trainer.out_of_patience and trainer.finished
    )  # the first evaluation is the best, three are not better
    assert list(trainer.run()) == []
    with CheckpointFolder(tmp_path) as folder:
        trainer.save(folder)
        other = make_trainer(steps=50, lr=0.0, dropout=0.0, eval_interval=2, patience=3)
        found = folder.load_latest()
        assert found is not None
        other.restore(found)
    assert other.finished and list(other.run()) == []


def test_a_lower_validation_loss_gives_new_patience() -> None:
    trainer = make_trainer(steps=30, dropout=0.0, eval_interval=5, patience=1)
    assert [r.step for r in trainer.run()][-1] == 30
    assert trainer.best_val_loss < math.log(7)


def test_a_plateau_is_told_every_validation_loss() -> None:
    trainer = make_trainer(steps=8, dropout=0.0, lr=0.0, eval_interval=2)
    trainer.schedule = ReduceLROnPlateau(trainer.optimizer, factor=0.5, patience=1, eps=0.0)
    trainer.optimizer.lr = 1e-12  # nothing gets better
    rates = [report.lr for report in trainer.run()]
    assert rates == [1e-12] * 6 + [5e-13] * 2 and trainer.optimizer.lr == 5e-13
    assert trainer.schedule.last_epoch == 4


def test_callbacks_get_every_report_before_the_loop_does() -> None:
    seen: list[Report] = []
    trainer = make_trainer(steps=3, callbacks=[seen.append])
    for report in trainer.run():
        assert seen[-1] is report
    assert [r.step for r in seen] == [1, 2, 3]


@pytest.mark.parametrize(
    "setting",
    [
        {"accumulate": 0},
        {"patience": 0},
        {"accumulate": 1.5},
        {"patience": "3"},
        {"eval_interval": None},
        {"eval_interval": True},
        {"clip_norm": "1"},
        {"clip_norm": [1.0]},
        {"clip_norm": -1},
        {"callbacks": print},
        {"callbacks": ["print"]},
        {"callbacks": None},
        {"jit": "c"},
        {"jit": 1},
        {"crash_folder": 3},
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        make_trainer(**setting)


@pytest.mark.parametrize(
    "setting",
    [
        {"steps": "9"},
        {"steps": 2.5},
        {"steps": None},
        {"schedule": 0.1},
        {"schedule": lambda step: 0.1},
    ],
)
def test_steps_and_schedules_of_another_kind_are_refused(setting: dict[str, Any]) -> None:
    one = make_trainer()
    with pytest.raises(ConfigError, match=next(iter(setting))):
        Trainer(one.model, one.optimizer, one.data, **{"steps": 9, **setting})


@pytest.mark.parametrize(
    "settings", [{"jit": False}, {"jit": None}, {"mixed": "bfloat16"}], ids=str
)
@pytest.mark.parametrize("clip_norm", [None, math.inf])
def test_without_a_norm_to_clip_to_gradients_stay_as_they_are(
    settings: dict[str, Any], clip_norm: float | None
) -> None:
    free, wide = (
        make_trainer(clip_norm=clip_norm, lr=0.5, **settings),
        make_trainer(clip_norm=1e30, lr=0.5, **settings),
    )
    assert free.backend == wide.backend
    minigrad.manual_seed(3)
    reports = list(free.run())
    minigrad.manual_seed(3)
    assert [(r.loss, r.grad_norm) for r in reports] == [(r.loss, r.grad_norm) for r in wide.run()]
    assert max(r.grad_norm for r in reports) > 0.5
    assert_same_bits(free, wide)


# --- the guard


class Poisoned:
    """Weights that overflow at a step of its own: its batch is of infinities."""

    def __init__(self, at: int) -> None:
        self.at = at

    def batch(self, step: int) -> tuple[Array, Array]:
        x = np.full((2, 3), 1.0 + step, np.float32)
        return (np.full_like(x, np.inf) if step == self.at else x), np.ones((2, 1), np.float32)

    def validation(self) -> Iterator[tuple[Array, Array]]:
        yield self.batch(0)


@pytest.mark.parametrize("jit", [None, False])
def test_what_is_not_finite_stops_before_the_update_and_is_saved_to_be_seen_again(
    tmp_path: Path, jit: bool | None
) -> None:
    def make() -> Trainer:
        minigrad.manual_seed(1)
        model = Halves()
        return Trainer(
            model,
            AdamW(model.parameters(), lr=1e-2),
            Poisoned(5),
            steps=9,
            eval_interval=9,
            jit=jit,
            crash_folder=tmp_path / "crash",
        )

    trainer = make()
    before: list[Any] = []
    with (
        CheckpointFolder(tmp_path / "checkpoints") as folder,
        pytest.raises(NotFiniteError, match="step 6") as caught,
    ):
        for report in trainer.run():
            before = [weights(trainer), trainer.state_dict()]
            if report.step in (2, 4):
                trainer.save(folder)
    for a, b in zip(before[0], weights(trainer), strict=True):
        np.testing.assert_array_equal(a, b)
    after = trainer.state_dict()
    assert trainer.step == 5
    for name in ("step", "schedule", "stopping"):
        assert after[name] == before[1][name]
    for i, entry in after["optimizer"]["state"].items():
        for name, value in entry.items():
            np.testing.assert_array_equal(value, before[1]["optimizer"]["state"][i][name])
    path = tmp_path / "crash" / "not-finite-00000006.mgrd"
    assert str(path) in caught.value.hint and "step-00000004.mgrd" in caught.value.hint
    found = load_checkpoint(path)
    again = make()
    again.model.load_state_dict(found.weights)
    again.load_state_dict(found.state)
    facts = found.state["not_finite"]
    np.testing.assert_array_equal(facts["x"], trainer.data.batch(5)[0])
    with pytest.raises(NotFiniteError, match="step 6"):
        again.train_step()


def test_the_generator_goes_back_too_so_that_the_bundle_draws_the_same_dropout(
    tmp_path: Path,
) -> None:
    trainer = make_trainer(crash_folder=tmp_path, jit=False)
    next(trainer.run())
    drawn = default_generator.get_state()
    next(iter(trainer.model.parameters())).data[0] = np.nan
    with pytest.raises(NotFiniteError):
        trainer.train_step()
    assert default_generator.get_state() == drawn
    assert (
        tuple(
            int(w)
            for w in load_checkpoint(tmp_path / "not-finite-00000002.mgrd").state["generator"]
        )
        == drawn
    )


def test_a_checkpoint_is_good_once_a_step_was_made_from_it(tmp_path: Path) -> None:
    trainer = make_trainer()
    with CheckpointFolder(tmp_path) as folder:
        first = trainer.save(folder)
        run = trainer.run()
        next(run)
        assert trainer.good_checkpoint == first
        trainer.save(folder)  # from here on nothing works
        next(iter(trainer.model.parameters())).data[0] = np.nan
        with pytest.raises(NotFiniteError) as caught:
            next(run)
    assert str(first) in caught.value.hint


def test_the_checkpoint_that_a_run_goes_on_from_is_good_once_it_did(tmp_path: Path) -> None:
    trainer = make_trainer(jit=False)
    with CheckpointFolder(tmp_path) as folder:
        path = trainer.save(folder)
        found = folder.load_latest()
    assert found is not None
    other = make_trainer(jit=False)
    other.restore(found)
    assert other.good_checkpoint is None
    next(other.run())
    assert other.good_checkpoint == path


# --- memory


def test_the_estimate_of_memory_is_what_a_step_takes() -> None:
    minigrad.manual_seed(0)
    model = GPT(GPTConfig.gpt2(vocab_size=50, block_size=64, n_layer=2, n_head=2, n_embd=32))
    optimizer = AdamW(model.parameters(), lr=1e-3)
    tokens = np.random.default_rng(0).integers(0, 50, 4000).astype(np.int32)
    trainer = Trainer(
        model, optimizer, TextData(tokens, block_size=64, batch_size=16), steps=5, jit=False
    )
    drawn = default_generator.get_state()
    memory = trainer.estimate_memory()
    size = sum(p.data.nbytes for p in model.parameters())
    assert (memory.parameters, memory.gradients, memory.optimizer) == (size, size, 2 * size)
    assert default_generator.get_state() == drawn and model.training
    trainer.train_step()
    optimizer.zero_grad()
    tracemalloc.start()
    trainer.train_step()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.6 * peak < memory.activations + memory.gradients < 1.3 * peak
    halved = Trainer(model, optimizer, trainer.data, steps=5, accumulate=2).estimate_memory()
    assert halved.activations == pytest.approx(memory.activations / 2)
    assert str(memory).startswith("about ") and "activations" in str(memory)


# --- metrics.jsonl


def lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_are_a_line_per_step_written_at_once(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for report in make_trainer(callbacks=[log]).run():
        last = lines(tmp_path / "metrics.jsonl")[-1]
        assert (last["step"], last["loss"], last["lr"], last["grad_norm"]) == (
            report.step,
            report.loss,
            report.lr,
            report.grad_norm,
        )
        assert last.get("val_loss") == report.val_loss
    log.close()
    rows = lines(tmp_path / "metrics.jsonl")
    assert [r["step"] for r in rows] == list(range(1, 13))
    assert (
        list(rows[0]) == ["step", "time", "seconds", "loss", "lr", "grad_norm", "tokens_per_second"]
        and "val_loss" in rows[4]
    )
    assert all(a["seconds"] <= b["seconds"] for a, b in pairwise(rows)) and rows[0]["time"] > 1e9


@pytest.mark.parametrize("torn", [b"", b'{"step": 9, "se', b"\xff\n", b'{"step": 5}\n'])
def test_metrics_are_cut_back_to_the_step_that_a_run_goes_on_from(
    tmp_path: Path, torn: bytes
) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for step in range(1, 9):
        log(Report(step, 10, 1.0, 1.0, 0.1, 100.0, 0.0, math.inf if step == 4 else None))
    log.close()
    path.write_bytes(path.read_bytes() + torn)
    log = MetricsLog(path, after_step=5)
    log(Report(6, 10, 2.0, 1.0, 0.1, 100.0, 0.0, None))
    log.close()
    rows = lines(path)
    assert [(r["step"], r["loss"]) for r in rows] == [(n, 1.0) for n in range(1, 6)] + [(6, 2.0)]
    assert "val_loss" not in rows[3] and rows[5]["seconds"] >= rows[4]["seconds"]
