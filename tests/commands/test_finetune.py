"""`minigrad finetune`: all weights or adapters, stopped and resumed, merged, and refusals."""

import shutil
import sys
from pathlib import Path

import pytest

import minigrad
from minigrad.cli.run_folder import load_model
from minigrad.files import peek
from minigrad.nn.quantised import blocks_of
from tests.commands.home import ROOT, TEXT, good, refused

sys.path.insert(0, str(ROOT / "tools"))
from gguf_bytes import small_llama

SIZES = "--n-layer 1 --n-embd 16 --n-head 2 --block-size 16 --batch-size 4 --sample 0 --dropout 0.1"
TUNE = [
    "finetune",
    "--model",
    "base",
    "--text",
    "new.txt",
    "--steps",
    "30",
    "--sample",
    "0",
    "--batch-size",
    "4",
    "--lr",
    "1e-2",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two texts and a model of the first."""
    folder = tmp_path_factory.mktemp("tuned")
    (folder / "text.txt").write_text(TEXT * 10)
    (folder / "new.txt").write_text("bot: see you\nyou: bye bye\n" * 40)
    line = ["train", "--text", "text.txt", "--out", "base", "--steps", "40"]
    good(*line, *SIZES.split(), folder=folder)
    return folder


@pytest.fixture
def home(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "home")


def loss_of(home: Path, model: str) -> float:
    out = good("eval", "--model", model, "--text", "new.txt", folder=home)
    return float(out.split("nats per token")[1].split()[0])


@pytest.mark.parametrize("lora", [(), ("--lora", "2")])
def test_a_tuned_model_knows_the_new_text_better_and_resumes_to_the_same_bits(
    home: Path, lora: tuple[str, ...]
) -> None:
    out = good(*TUNE, *lora, "--out", "whole", folder=home)
    assert "before   " in out and out.count("step ") > 5
    assert loss_of(home, "whole") < loss_of(home, "base") - 0.05
    stopped = good(*TUNE, *lora, "--out", "parts", "--stop-at", "11", folder=home)
    assert "Continue:  minigrad finetune --resume parts" in stopped
    shutil.move(home / "base", home / "elsewhere")  # a resumed run does not need it
    good("finetune", "--resume", "parts", folder=home)
    shutil.move(home / "elsewhere", home / "base")
    name = "adapters.mgrd" if lora else "model.mgrd"
    assert (home / "whole" / name).read_bytes() == (home / "parts" / name).read_bytes()
    assert {path.name for path in (home / "whole").glob("*.mgrd")} == {name}


def test_adapters_are_small_merge_on_request_and_name_the_model_that_they_need(home: Path) -> None:
    out = good(*TUNE, "--lora", "2", "--out", "tuned", folder=home)
    assert " of them trained" in out
    state = minigrad.load(home / "tuned" / "adapters.mgrd")
    assert all("lora." in name for name in state)
    loss = loss_of(home, "tuned")
    assert loss_of(home, "tuned/adapters.mgrd") == loss
    checkpoint = max((home / "tuned" / "checkpoints").glob("*.mgrd"))
    assert loss_of(home, str(checkpoint)) == loss
    assert "are one in tuned/model.mgrd" in good("finetune", "--merge", "tuned", folder=home)
    shutil.rmtree(home / "base")
    assert loss_of(home, "tuned") == loss
    assert peek(home / "tuned" / "model.mgrd").meta["run"]["step"] == 30
    (home / "tuned" / "model.mgrd").unlink()
    line = refused("generate", "--model", "tuned", folder=home)
    assert "was made for the model in base, which is not here" in line


def test_adapters_of_other_weights_are_refused(home: Path) -> None:
    good(*TUNE, "--lora", "2", "--out", "tuned", folder=home)
    good(*TUNE, "--out", "other", folder=home)
    shutil.rmtree(home / "base")
    shutil.move(home / "other", home / "base")
    line = refused("generate", "--model", "tuned", folder=home)
    assert "other weights; name the model they were made for: --base PLACE" in line


@pytest.mark.parametrize("model", ["base", "base/model.mgrd", "base/checkpoints/{}", "lora"])
def test_adapters_do_not_replace_a_model_that_they_need(home: Path, model: str) -> None:
    good(*TUNE, "--lora", "2", "--steps", "1", "--out", "lora", folder=home)
    before = (home / "base" / "model.mgrd").read_bytes()
    checkpoint = max((home / "base" / "checkpoints").glob("*.mgrd"))
    call = [*TUNE, "--model", model.format(checkpoint.name), "--lora", "2", "--steps", "1"]
    (home / "link").symlink_to("base")
    for out in ("base", "link"):
        line = refused(*call, "--out", out, "--overwrite", folder=home)
        assert f"the adapters would need the model in {out}, and replace it" in line
    assert (home / "base" / "model.mgrd").read_bytes() == before and checkpoint.exists()
    good(*call[:-4], "--steps", "1", "--out", "base", "--overwrite", folder=home)  # all weights


def test_adapters_that_name_themselves_as_their_model_are_refused(home: Path) -> None:
    good(*TUNE, "--lora", "2", "--steps", "1", "--out", "one", folder=home)
    state = minigrad.load(home / "one" / "adapters.mgrd")
    for name, base in (("one", "two"), ("two", "one")):
        (home / name).mkdir(exist_ok=True)
        minigrad.save(home / name / "adapters.mgrd", dict(state), meta={"base": base})
    for call in (["generate", "--model", "one"], ["show", "two"], [*TUNE, "--model", "one"]):
        assert "name themselves" in refused(*call, folder=home)
    good("generate", "--model", "one", "--base", "base", "--tokens", "1", folder=home)


def test_a_run_that_finetune_cannot_go_on_with_is_refused(home: Path) -> None:
    line = refused("finetune", "--resume", "base", folder=home)
    assert "made by minigrad train; continue it with minigrad train --resume base" in line
    good(*TUNE, "--lora", "2", "--out", "tuned", "--stop-at", "5", folder=home)
    good("finetune", "--merge", "tuned", folder=home)
    merged = home / "tuned" / "model.mgrd"
    line = refused("finetune", "--resume", "tuned", folder=home)
    assert "tuned/model.mgrd is the run's model with its adapters merged" in line
    assert merged.exists()
    merged.unlink()
    good("finetune", "--resume", "tuned", folder=home)


def test_unknown_characters_are_counted_and_left_out_on_request(home: Path) -> None:
    (home / "new.txt").write_text("bot: see you!\nyou: bye bye\n" * 40)
    line = refused(*TUNE, "--out", "tuned", folder=home)
    assert "characters that the model does not know: 40 in all" in line and "--skip-unknown" in line
    good(*TUNE, "--out", "tuned", "--skip-unknown", "--stop-at", "5", folder=home)
    good("finetune", "--resume", "tuned", folder=home)
    assert "!" not in load_model(str(home / "tuned"))[1].characters


def test_what_does_not_go_together_is_refused(home: Path) -> None:
    assert "--model is missing" in refused("finetune", "--text", "new.txt", folder=home)
    assert "--text is missing" in refused("finetune", "--model", "base", folder=home)
    assert "holds no adapters.mgrd" in refused("finetune", "--merge", "base", folder=home)
    line = refused("finetune", "--merge", "base", "--steps", "3", folder=home)
    assert "--merge takes no other options" in line
    assert "holds a model already" in refused(*TUNE, "--out", "base", folder=home)
    good(*TUNE, "--out", "tuned", "--stop-at", "5", folder=home)
    line = refused("finetune", "--resume", "tuned", "--out", "there", folder=home)
    assert "--resume continues the run in its own folder" in line


# --- published models

PUBLISHED = [
    *("finetune", "--model", "base.gguf", "--text", "new.txt", "--lora", "2", "--block-size", "16"),
    *("--steps", "12", "--warmup", "2", "--lr", "0.03", "--sample", "4", "--eval-interval", "6"),
]


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder with a small GGUF file and a text."""
    pytest.importorskip("tokenizers")
    (tmp_path / "new.txt").write_text("ab cd abcd 012 kabc!" * 60)
    (tmp_path / "base.gguf").write_bytes(small_llama("q4_1"))
    return tmp_path


@pytest.mark.parametrize("jit", [(), ("--jit",)])
def test_adapters_of_a_published_model_resume_to_the_same_bits(
    published: Path, jit: tuple[str, ...]
) -> None:
    out = good(*PUBLISHED, *jit, "--out", "whole", folder=published)
    assert "21,312 parameters, 1,792 of them trained" in out
    assert loss_of(published, "whole") < loss_of(published, "base.gguf") - 0.05
    good(*PUBLISHED, *jit, "--out", "parts", "--stop-at", "5", folder=published)
    good("finetune", "--resume", "parts", folder=published)
    files = [published / run / "adapters.mgrd" for run in ("whole", "parts")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].stat().st_size < 15_000


def test_a_run_of_adapters_is_read_as_a_model_and_merged(published: Path) -> None:
    good(*PUBLISHED, "--out", "tuned", folder=published)
    state = minigrad.load(published / "tuned" / "adapters.mgrd")
    assert all("lora." in name for name in state)
    model, _ = load_model(str(published / "tuned"))
    assert any(blocks_of(model))
    loss = loss_of(published, "tuned")
    checkpoint = max((published / "tuned" / "checkpoints").glob("*.mgrd"))
    assert loss_of(published, str(checkpoint)) == loss
    prompt = ("--prompt", "ab", "--tokens", "8", "--temperature", "0")
    written = good("generate", "--model", "tuned", *prompt, folder=published)
    assert "lora" in good("show", "tuned", "--full", folder=published)
    assert "lora" in good("inspect", "tuned", folder=published)
    good("finetune", "--merge", "tuned", folder=published)
    (published / "base.gguf").unlink()
    model, tokenizer = load_model(str(published / "tuned"))
    assert not any(blocks_of(model)) and tokenizer.eos == ("</s>",)
    assert loss_of(published, "tuned") == pytest.approx(loss, abs=2e-4)
    assert good("generate", "--model", "tuned", *prompt, folder=published) == written


def test_a_base_that_has_moved_is_named_and_another_one_is_refused(published: Path) -> None:
    good(*PUBLISHED, "--out", "tuned", "--stop-at", "5", folder=published)
    shutil.move(published / "base.gguf", published / "moved.gguf")
    for call in (["eval", "--text", "new.txt", "--model"], ["finetune", "--resume"]):
        line = refused(*call, "tuned", folder=published)
        assert "for the model in base.gguf, which is not here" in line and "--base" in line
        good(*call, "tuned", "--base", "moved.gguf", folder=published)
    (published / "base.gguf").write_bytes(small_llama("q4_1", seed=1))
    assert "other weights" in refused("generate", "--model", "tuned", folder=published)
    line = refused("finetune", "--resume", "tuned", "--accept", "steps", folder=published)
    assert "base.gguf is not the model that the run in tuned tunes" in line
    good("finetune", "--merge", "tuned", "--base", "moved.gguf", folder=published)
    for model in ("base.gguf", "moved.gguf"):
        line = refused("generate", "--model", model, "--base", "moved.gguf", folder=published)
        assert "--base is for adapters" in line
    line = refused("generate", "--model", "tuned", "--base", "moved.gguf", folder=published)
    assert "--base is for adapters" in line


def test_a_published_model_is_tuned_by_adapters_within_its_context(published: Path) -> None:
    call = ["finetune", "--model", "base.gguf", "--text", "new.txt"]
    assert "train adapters: --lora 8" in refused(*call, folder=published)
    line = refused(*call, "--lora", "2", "--block-size", "65", folder=published)
    assert "--block-size 65 exceeds the model's context of 64" in line
    line = refused(*call, "--lora", "33", folder=published)
    assert "--lora 33 exceeds the model's width of 32" in line
