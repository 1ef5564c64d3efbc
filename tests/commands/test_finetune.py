"""`minigrad finetune`: all weights or adapters, stopped and resumed, merged, and refusals."""

import shutil
from pathlib import Path

import pytest

import minigrad
from minigrad.cli.run_folder import load_model
from minigrad.files import peek
from tests.commands.home import TEXT, good, refused

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
    assert "other weights" in refused("generate", "--model", "tuned", folder=home)


def test_unknown_characters_are_counted_and_left_out_on_request(home: Path) -> None:
    (home / "new.txt").write_text("bot: see you!\nyou: bye bye\n" * 40)
    line = refused(*TUNE, "--out", "tuned", folder=home)
    assert "40 characters that the model does not know" in line and "--skip-unknown" in line
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
