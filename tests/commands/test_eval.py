"""`minigrad eval` against its definitions, computed here one token after the other."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from minigrad.cli import terminal
from minigrad.cli.run_folder import load_model
from tests.commands.home import TEXT, good, refused
from tests.processes import called


def by_definition(place: Path, text: str) -> tuple[float, float]:
    """Mean -log p and share of right guesses, each token with all the context that the model can
    take.
    """
    model, tokenizer = load_model(str(place))
    tokens, T = tokenizer.encode(text), model.config.block_size
    losses, right = [], []
    for i in range(1, len(tokens)):
        logits = model(tokens[None, max(0, i - T) : i]).numpy()[0, -1].astype(np.float64)
        losses.append(
            np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[tokens[i]]
        )
        right.append(logits.argmax() == tokens[i])
    return float(np.mean(losses)), float(np.mean(right))


def test_a_stride_of_one_gives_the_definitions(home: Path) -> None:
    text = (
        TEXT[10:] + "bye see hello you are soon how well hi\n" * 3
    )  # known words in an order that is not
    (home / "held.txt").write_text(text)
    found = json.loads(
        good("eval", "--model", "bot", "--text", "held.txt", "--stride", "1", "--json", folder=home)
    )
    nats, right = by_definition(home / "bot", text)
    assert found["nats_per_token"] == pytest.approx(nats, abs=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(nats), rel=1e-4)
    assert found["bits_per_character"] == pytest.approx(
        nats / math.log(2), abs=1e-5
    )  # a token is a character here
    assert found["accuracy"] == pytest.approx(right)
    coarse = json.loads(
        good(
            "eval", "--model", "bot", "--text", "held.txt", "--stride", "32", "--json", folder=home
        )
    )
    assert coarse["nats_per_token"] != found["nats_per_token"]
    assert found["characters"] == len(text) and found["tokens"] == len(text) - 1


def test_it_prints_the_same_as_lines_and_more_context_is_better(home: Path) -> None:
    (home / "twice.txt").write_text(TEXT * 2)
    lines = good("eval", "--model", "bot", "--text", "twice.txt", folder=home)
    strides = {
        n: json.loads(
            good(
                "eval",
                "--model",
                "bot",
                "--text",
                "twice.txt",
                "--stride",
                n,
                "--json",
                folder=home,
            )
        )
        for n in ("16", "32")
    }
    assert (
        f"{strides['16']['perplexity']:.4f}" in lines
        and f"{strides['16']['accuracy']:.2%}" in lines
    )
    assert strides["16"]["nats_per_token"] < strides["32"]["nats_per_token"]


def test_bad_input_gets_one_line(home: Path) -> None:
    (home / "one.txt").write_text("y")
    (home / "strange.txt").write_text("you: ü")
    assert "stride must be from 1 to" in refused(
        "eval", "--model", "bot", "--text", "text.txt", "--stride", "33", folder=home
    )
    assert "one.txt has 1 token;" in refused(
        "eval", "--model", "bot", "--text", "one.txt", folder=home
    )
    assert "'ü'" in refused("eval", "--model", "bot", "--text", "strange.txt", folder=home)
    assert "nowhere" in refused("eval", "--model", "nowhere", "--text", "text.txt", folder=home)
    assert "nowhere.txt" in refused("eval", "--model", "bot", "--text", "nowhere.txt", folder=home)
    assert "--text" in refused("eval", "--model", "bot", folder=home)


def test_a_long_one_says_how_far_it_is_on_stderr(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "_FIRST", 0.0)
    arguments = ("eval", "--model", "bot", "--text", "text.txt", "--json")
    done = called(*arguments, folder=home)
    assert set(json.loads(done.stdout)) >= {"perplexity", "accuracy"}
    said = done.stderr.splitlines()
    assert said[0] == "evaluation 0% done"
    assert all(re.fullmatch(r"evaluation \d+% done", line) for line in said)
