"""Heat maps of attention: what is drawn is what the layers computed."""

from __future__ import annotations

import re
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from minigrad import Tensor, manual_seed, nn
from minigrad.cli.run_folder import save_model
from minigrad.data import CharTokenizer
from minigrad.errors import ConfigError
from minigrad.models import GPT, GPTConfig
from minigrad.viz import attention_maps
from tests.processes import called, command, finished

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
TOKENS = [1, 5, 2, 2, 7, 0]


@pytest.fixture(scope="module")
def model() -> GPT:
    manual_seed(3)
    model = GPT(
        GPTConfig.gpt2(vocab_size=11, block_size=32, n_layer=2, n_head=4, n_embd=16, dropout=0.2)
    )
    for p in model.parameters():
        p.data *= 8  # far from the even attention of a fresh model
    return model


def test_the_weights_are_those_of_the_layers_and_sum_to_one_over_what_a_token_may_see(
    model: GPT,
) -> None:
    maps = attention_maps(model, TOKENS)
    assert (
        maps.layers == ["h.0.attn", "h.1.attn"]
        and [w.shape for w in maps.weights] == [(4, 6, 6)] * 2
    )
    for weights in maps.weights:
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
        assert (np.triu(weights, 1) == 0).all()
    x = model.wte(Tensor([TOKENS])) + model.wpe.weight[:6]
    model.eval()
    _, wanted = model.h[0].attn(model.h[0].ln_1(x), return_weights=True)
    model.train()
    np.testing.assert_allclose(maps.weights[0], wanted.numpy()[0], atol=1e-6)


def test_looking_changes_nothing(model: GPT) -> None:
    model.train()
    before = [list(vars(m)) for m in model.modules()]
    attention_maps(model, TOKENS)
    assert [list(vars(m)) for m in model.modules()] == before
    assert all(m.training for m in model.modules()) and all(
        p.grad is None for p in model.parameters()
    )


def test_any_model_with_attention_has_maps_and_one_without_says_so() -> None:
    cross = nn.MultiHeadAttention(8, 2, causal=False)

    class Reader(nn.Module):
        def __init__(self) -> None:
            self.cross = cross

        def forward(self, x: Tensor) -> Tensor:
            """x looks at itself turned round, and asks for the weights itself."""
            y, weights = self.cross(x, x[:, ::-1], return_weights=True)
            assert weights.shape == (1, 2, 5, 5)
            return y

    maps = attention_maps(Reader(), Tensor.randn(1, 5, 8))
    assert maps.layers == ["cross"] and maps.labels == list("01234")
    with pytest.raises(ConfigError, match="no MultiHeadAttention"):
        attention_maps(nn.Embedding(4, 4), [1, 2])


def test_the_picture_has_a_map_per_layer_and_head_with_its_weights(model: GPT) -> None:
    pytest.importorskip("matplotlib")
    maps = attention_maps(model, TOKENS, list("The <&"))
    drawn = [axes for axes in maps.figure().axes if axes.images]
    assert [axes.get_title() for axes in drawn] == [
        f"h.{i}.attn, head {head}" for i in range(2) for head in range(4)
    ]
    for axes, weights in zip(drawn, np.concatenate(maps.weights), strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), weights)
        assert axes.images[0].norm(0.25) == 0.5  # the root of the weight
        labels = [
            [t.get_text() for t in axis.get_ticklabels()] for axis in (axes.xaxis, axes.yaxis)
        ]
        assert labels == [["T", "h", "e", "␣", "<", "&"]] * 2
    texts = {t.text for t in ET.fromstring(maps.svg()).iter(f"{SVG}text")}
    assert {"h.0.attn, head 0", "h.1.attn, head 3", "T", "␣", "<", "&", "weight"} <= texts
    assert maps._repr_svg_() == maps.svg()


def test_long_tokens_are_turned_and_a_long_prompt_has_positions(model: GPT) -> None:
    pytest.importorskip("matplotlib")
    words = ["Once", "upon", "a", "time", "$x$ costs $1", "unbelievably\n"]
    axes = attention_maps(model, TOKENS, words).figure().axes[0]
    labels = axes.get_xticklabels()
    assert labels[5].get_rotation() == 90 and labels[5].get_text() == "unbelieva…"
    assert "$x$␣cost" in attention_maps(model, TOKENS, words).svg()
    long = nn.MultiHeadAttention(8, 2)
    axes = attention_maps(long, Tensor.randn(1, 40, 8)).figure().axes[0]
    assert {"0", "20"} <= {t.get_text() for t in axes.get_xticklabels()}


def test_a_terminal_shows_one_head_as_blocks(model: GPT) -> None:
    maps = attention_maps(model, TOKENS, list("ab\ncd "))
    title, *rows = maps.text(1, 2, width=80).splitlines()
    assert title.startswith("h.1.attn, head 2") and [r.split(" │")[0].strip() for r in rows] == [
        "a",
        "b",
        "⏎",
        "c",
        "d",
        "␣",
    ]
    for i, line in enumerate(rows):
        blocks = line.split("│")[1].ljust(12)
        levels = ["░▒▓█".find(c) + 1 for c in blocks[::2]]
        assert (
            blocks[::2] == blocks[1::2]
            and levels == np.rint(np.sqrt(maps.weights[1][2][i]) * 4).tolist()
        )
    narrow = maps.text(0, 0, width=22)
    assert all(len(line) <= 22 for line in narrow.splitlines()[1:])
    wide = attention_maps(model, [1] * 32).text(width=30)
    assert "last 16 of 32" in wide and len(wide.splitlines()) == 2 + 16


def test_a_layer_or_head_that_is_not_there_is_an_error_with_those_that_are(model: GPT) -> None:
    maps = attention_maps(model, TOKENS)
    with pytest.raises(ConfigError, match="layer 2 of 2"):
        maps.text(2, 0)
    with pytest.raises(ConfigError, match="head 4 of 4"):
        maps.text(0, 4)


def show(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return finished(command("show", *arguments), folder, COLUMNS="90")


def test_the_command_draws_all_heads_or_prints_one(tmp_path: Path) -> None:
    tokenizer = CharTokenizer.from_text("hello world\n")
    model = GPT(
        GPTConfig.gpt2(
            vocab_size=tokenizer.vocab_size, block_size=16, n_layer=2, n_head=2, n_embd=8
        )
    )
    save_model(tmp_path, model, tokenizer, {})
    maps = attention_maps(model, tokenizer.encode("hello"), list("hello"))
    done = show(".", "--attention", "hello", "--layer", "1", "--head", "1", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, maps.text(1, 1, 90) + "\n"), done.stderr
    for arguments, said in (
        (["--attention", "xyz"], "x"),
        (["--attention", ""], "empty"),
        (["--attention", "hello", "--head", "9"], "head 9 of 2"),
        (["--out", "a.svg"], "--attention"),
        (["--attention", "hello", "--out", "a.gif"], ".svg"),
        (["--attention", "hello" * 9], "block_size"),
        (["--layer", "0"], "--layer is for --attention"),
        (["--head", "1", "--full"], "--head is for --attention"),
        (["--attention", "hello", "--full"], "--full is for the tree"),
        (["--attention", "hello", "--layer", "1", "--out", "a.svg"], "so --layer has no use"),
    ):
        done = called("show", ".", *arguments, folder=tmp_path)
        assert (
            done.returncode == 2 and done.stderr.count("\n") == 1 and re.search(said, done.stderr)
        ), done.stderr


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_command_draws_all_heads(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("matplotlib")
    tokenizer = CharTokenizer.from_text("hello world\n")
    sizes = {"block_size": 16, "n_layer": 2, "n_head": 2, "n_embd": 8}
    save_model(tmp_path, GPT(GPTConfig.gpt2(tokenizer.vocab_size, **sizes)), tokenizer, {})
    done = called("show", ".", "--attention", "hello", "--out", f"a.{ending}", folder=tmp_path)
    assert done.returncode == 0 and done.stdout == f"2 layers of 2 heads drawn in a.{ending}\n"
    content = (tmp_path / f"a.{ending}").read_bytes()
    assert content.startswith(b"\x89PNG") if ending == "png" else b"h.1.attn, head 1" in content
