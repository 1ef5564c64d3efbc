"""The training loop."""

import math
import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest

import minigrad
from minigrad import Tensor
from minigrad.data import TextData
from minigrad.dtypes import Array
from minigrad.errors import ConfigError, NotFiniteError
from minigrad.models import GPT, GPTConfig
from minigrad.optim import SGD, AdamW
from minigrad.optim.lr_scheduler import WarmupCosineLR
from minigrad.train import Interruption, Trainer, evaluate

TOKENS = np.tile(np.arange(7, dtype=np.int32), 60)


def make_trainer(steps: int = 12, dropout: float = 0.2, eval_interval: int = 5) -> Trainer:
    minigrad.manual_seed(3)
    model = GPT(
        GPTConfig.gpt2(vocab_size=7, block_size=8, n_layer=1, n_head=2, n_embd=8, dropout=dropout)
    )
    optimizer = AdamW(model.parameters(), lr=0.01)
    data = TextData(TOKENS, block_size=8, batch_size=2, seed=1)
    schedule = WarmupCosineLR(optimizer, 3, steps)
    settings = {"steps": steps, "schedule": schedule, "eval_interval": eval_interval}
    return Trainer(model, optimizer, data, jit=False, **settings)  # type: ignore[arg-type]


def weights(trainer: Trainer) -> list[Array]:
    return [p.numpy().copy() for p in trainer.model.parameters()]


def test_reports_come_after_every_step_with_evaluations_at_the_interval_and_at_the_end() -> None:
    reports = list(make_trainer().run())
    assert [r.step for r in reports] == list(range(1, 13))
    assert [r.step for r in reports if r.val_loss is not None] == [5, 10, 12]
    assert all(
        r.steps == 12 and r.loss > 0 and r.grad_norm > 0 and r.tokens_per_second > 0
        for r in reports
    )
    assert reports[-1].seconds_left == 0


def test_the_loss_falls_on_a_text_that_can_be_foretold() -> None:
    *_, last = make_trainer(steps=150, dropout=0.0, eval_interval=150).run()
    assert last.val_loss is not None and last.val_loss < 0.3 < math.log(7)


def test_the_learning_rate_of_a_report_is_the_one_its_step_used() -> None:
    trainer = make_trainer()
    rates = [r.lr for r in trainer.run()]
    assert rates[:3] == pytest.approx([0.01 / 3, 0.02 / 3, 0.01])
    assert rates[-1] < rates[3]


@pytest.mark.parametrize("stop", [1, 5, 8])
def test_a_run_that_was_stopped_and_restored_elsewhere_ends_in_the_same_bits_dropout_included(
    stop: int,
) -> None:
    whole = make_trainer()
    losses = [r.loss for r in whole.run()]
    first = make_trainer()
    for report in first.run():
        if report.step == stop:
            break
    state, saved = first.state_dict(), first.model.state_dict()  # type: ignore[attr-defined]
    second = make_trainer()
    minigrad.manual_seed(99)
    second.model.load_state_dict(saved)  # type: ignore[attr-defined]
    second.load_state_dict(state)
    assert [r.loss for r in second.run()] == losses[stop:]
    for a, b in zip(weights(whole), weights(second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_goes_on_where_the_loop_was_left() -> None:
    trainer = make_trainer()
    for report in trainer.run():
        if report.step == 4:
            break
    assert [r.step for r in trainer.run()] == list(range(5, 13))
    assert list(trainer.run()) == []


def test_a_loss_that_is_no_number_stops_before_the_weights_change() -> None:
    trainer = make_trainer()
    next(trainer.run())
    next(iter(trainer.model.parameters())).data[0] = np.nan
    before = weights(trainer)
    with pytest.raises(NotFiniteError, match="step 2"):
        trainer.train_step()
    assert trainer.step == 1
    for a, b in zip(before, weights(trainer), strict=True):
        np.testing.assert_array_equal(a, b)


class Constant:
    """A model whose loss is the mean of its targets: what evaluate should give can be said without
    it.
    """

    training = True

    def __init__(self) -> None:
        self.modes: list[bool] = []

    def loss(self, x: Array, y: Array) -> Tensor:
        self.modes.append(self.training)
        return Tensor(float(y.mean()))

    def parameters(self) -> Iterator[Tensor]:
        return iter(())

    def train(self, mode: bool = True) -> None:
        self.training = mode

    def eval(self) -> None:
        self.training = False


def test_evaluate_weighs_every_token_alike_however_the_batches_are_cut() -> None:
    y = np.arange(10.0)
    model = Constant()
    assert evaluate(model, [(y[:8], y[:8]), (y[8:], y[8:])]) == pytest.approx(y.mean())
    assert model.modes == [False, False] and model.training


def test_evaluate_leaves_a_model_in_the_mode_it_found_and_asks_for_batches() -> None:
    model = Constant()
    model.eval()
    evaluate(model, [(np.ones(1), np.ones(1))])
    assert not model.training
    with pytest.raises(ConfigError, match="no targets"):
        evaluate(model, [])


@pytest.mark.parametrize(
    "setting", [{"steps": 0}, {"eval_interval": 0}, {"clip_norm": 0.0}, {"clip_norm": math.nan}]
)
def test_settings_that_make_no_sense_are_refused(setting: dict[str, float]) -> None:
    optimizer = SGD([Tensor(1.0, requires_grad=True)], lr=0.1)
    data = TextData(TOKENS, block_size=8, batch_size=2)
    with pytest.raises(ConfigError, match=next(iter(setting))):
        Trainer(Constant(), optimizer, data, **{"steps": 1, **setting})  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_wish_the_second_interrupts_and_handlers_come_back(
    number: signal.Signals,
) -> None:
    before = signal.getsignal(number)
    with Interruption() as interruption:
        assert not interruption and interruption.exit_code == 0
        os.kill(os.getpid(), number)
        assert interruption and interruption.exit_code == 128 + number
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_the_end_of_the_terminal_is_a_wish_however_often_it_comes_unless_it_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, lambda *_: None)
    try:
        with Interruption() as interruption:
            for _ in range(2):  # from the shell, and from the system
                os.kill(os.getpid(), signal.SIGHUP)
            assert interruption.exit_code == 128 + signal.SIGHUP
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interruption
    finally:
        signal.signal(signal.SIGHUP, before)
