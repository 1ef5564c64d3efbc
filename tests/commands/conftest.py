"""A folder with a text and a model that was trained on it."""

from pathlib import Path

import pytest

from tests.commands.home import TEXT, good


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "text.txt").write_text(TEXT * 20)
    good(
        "train",
        "--text",
        "text.txt",
        "--out",
        "bot",
        "--steps",
        "300",
        "--n-layer",
        "2",
        "--n-head",
        "2",
        "--n-embd",
        "32",
        "--block-size",
        "32",
        "--batch-size",
        "16",
        "--lr",
        "0.01",
        "--sample",
        "0",
        folder=folder,
    )
    return folder
