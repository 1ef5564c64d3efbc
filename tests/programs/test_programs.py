"""The programs of this folder run and learn, as they would with PyTorch under the name `torch`."""

import importlib
import math
from typing import Any

import pytest

import minigrad


@pytest.fixture(autouse=True)
def one_seed() -> None:
    minigrad.manual_seed(0)


def run(name: str) -> Any:
    return importlib.import_module(f"tests.programs.{name}").main()


def test_a_network_of_sequential_tells_two_moons_apart() -> None:
    losses, accuracy = run("two_moons")
    assert losses[-1] < 0.1 * losses[0] and accuracy > 0.97


def test_a_convolutional_network_reads_digits() -> None:
    losses, accuracy = run("digits_cnn")
    assert losses[-1] < 0.5 * losses[0] and accuracy > 0.8


def test_the_model_of_nanogpt_learns_a_sentence() -> None:
    losses, text = run("nano_gpt")
    assert losses[0] == pytest.approx(math.log(28), rel=0.1) and losses[-1] < 0.5
    assert "the quick brown fox" in text or "jumps over" in text


def test_a_decoder_looks_at_what_the_encoder_read() -> None:
    losses, accuracy = run("translation")
    assert losses[-1] < 0.1 * losses[0] and accuracy > 0.95


def test_an_lstm_carries_its_state_along_a_text() -> None:
    losses, text = run("char_lstm")
    assert losses[-1] < 0.1 * losses[0] and "sea shells" in text


def test_a_variational_autoencoder_draws_bars() -> None:
    losses, _ = run("vae")
    assert losses[-1] < 0.5 * losses[0]


def test_a_generator_and_a_discriminator_train_each_other() -> None:
    before, after = run("gan")
    assert after < 0.5 * before


def test_a_loop_with_schedules_and_evaluation_resumes_from_its_state() -> None:
    first, best, history = run("training_loop")
    assert best < 0.8 * first and best == min(history)
