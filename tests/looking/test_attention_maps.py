"""Heat maps of attention: what is drawn is what the layers computed."""

from __future__ import annotations

import base64
import os
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path

import numpy as np
import pytest

from minigrad import Tensor, manual_seed, nn
from minigrad.cli.run_folder import save_model
from minigrad.data import CharTokenizer
from minigrad.errors import ConfigError
from minigrad.looking import attention_maps
from minigrad.models import GPT, GPTConfig
from tests.processes import called

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
TOKENS = [1, 5, 2, 2, 7, 0]


@pytest.fixture(scope="module")
def model() -> GPT:
    manual_seed(3)
    model = GPT(
        GPTConfig(vocab_size=11, block_size=32, n_layer=2, n_head=4, n_embd=16, dropout=0.2)
    )
    for p in model.parameters():
        p.data *= 8  # far from the even attention of a fresh model
    return model


def images(svg: str) -> list[np.ndarray]:
    """The opacities of the maps in a picture, decoded here: (rows, columns) of 0 to 255."""
    found = []
    for image in ET.fromstring(svg).iter(f"{SVG}image"):
        png = base64.b64decode((image.get("href") or "").partition(",")[2])
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        chunks, at = {}, 8
        while at < len(png):
            (size,) = struct.unpack_from(">I", png, at)
            kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
            assert struct.unpack_from(">I", png, at + 8 + size)[0] == zlib.crc32(kind + data)
            chunks[kind], at = data, at + 12 + size
        width, height, depth, colour, *_ = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
        rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
        assert (
            (depth, colour) == (8, 3)
            and (rows[:, 0] == 0).all()
            and chunks[b"PLTE"][:3] * 256 == chunks[b"PLTE"]
        )
        found.append(np.frombuffer(chunks[b"tRNS"], np.uint8)[rows[:, 1:]])
    return found


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


def test_the_picture_has_a_map_per_layer_and_head_whose_opacity_is_the_root_of_the_weight(
    model: GPT,
) -> None:
    maps = attention_maps(model, TOKENS, list("The <&"))
    pictures = images(maps.svg())
    assert len(pictures) == 8
    for picture, weights in zip(pictures, np.concatenate(maps.weights), strict=True):
        times = len(picture) // 6
        wanted = np.rint(np.sqrt(weights.astype(float)) * 255).repeat(times, 0).repeat(times, 1)
        np.testing.assert_array_equal(picture, wanted)
    texts = [t.text for t in ET.fromstring(maps.svg()).iter(f"{SVG}text")]
    assert {"h.0.attn, head 0", "h.1.attn, head 3", "T", "␣", "<", "&"} <= set(texts)
    assert "@media (prefers-color-scheme: dark)" in maps.svg() and maps._repr_svg_() == maps.svg()


def test_the_scale_shows_what_the_opacities_mean(model: GPT) -> None:
    root = ET.fromstring(attention_maps(model, TOKENS).svg())
    scale = next(g for g in root.iter(f"{SVG}g") if g.get("class") == "scale")
    opacities = [
        float(r.get("fill-opacity") or 0)
        for r in scale.iter(f"{SVG}rect")
        if r.get("class") == "swatch"
    ]
    weights = [float(t.text or 0) for t in scale.iter(f"{SVG}text") if t.text != "weight"]
    np.testing.assert_allclose(np.square(opacities), weights, atol=1e-3)


def test_long_tokens_are_turned_and_where_there_is_no_room_positions_are_numbered(
    model: GPT,
) -> None:
    words = attention_maps(
        model, TOKENS, ["Once", "upon", "a", "time", "there", "unbelievably\n"]
    ).svg()
    assert words.count("rotate(-90") == 6 * 8 and "unbelieva…" in words
    long = attention_maps(model, [1] * 32).svg()
    assert "rotate" not in long and ">20</text>" in long


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
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "COLUMNS": "90"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "minigrad", "show", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        timeout=600,
        stdin=subprocess.DEVNULL,
    )


def test_the_command_draws_all_heads_or_prints_one(tmp_path: Path) -> None:
    tokenizer = CharTokenizer.from_text("hello world\n")
    model = GPT(
        GPTConfig(vocab_size=tokenizer.vocab_size, block_size=16, n_layer=2, n_head=2, n_embd=8)
    )
    save_model(tmp_path, model, tokenizer, {})
    maps = attention_maps(model, tokenizer.encode("hello"), list("hello"))
    done = show(".", "--attention", "hello", "--layer", "1", "--head", "1", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, maps.text(1, 1, 90) + "\n"), done.stderr
    done = show(".", "--attention", "hello", "--out", "maps.svg", folder=tmp_path)
    assert done.returncode == 0 and "maps.svg" in done.stdout
    assert (tmp_path / "maps.svg").read_text() == maps.svg()
    for arguments, said in (
        (["--attention", "xyz"], "x"),
        (["--attention", ""], "empty"),
        (["--attention", "hello", "--head", "9"], "head 9 of 2"),
        (["--out", "a.svg"], "--attention"),
        (["--attention", "hello", "--out", "a.png"], ".svg"),
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
