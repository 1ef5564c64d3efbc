"""The short suite's own tests: minigrad imports without a warning, and the README's first command
trains, with whatever Python and numpy run this. `.ci/run` adds the op table and a compiled step.
"""

import os
import subprocess
import sys
from pathlib import Path

from tests.processes import command

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}


def test_every_module_imports_without_a_warning() -> None:
    program = (
        "import importlib, pkgutil, minigrad\n"
        "for module in pkgutil.walk_packages(minigrad.__path__, 'minigrad.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        importlib.import_module(module.name)\n"
    )
    call = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(call, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def test_the_first_command_trains_a_small_model_and_writes_a_sample(tmp_path: Path) -> None:
    call = command("train", "--steps", "3", "--n-layer", "1", "--n-embd", "32")
    done = subprocess.run(
        call, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    assert "a sample:" in done.stdout and (tmp_path / "runs" / "gpt" / "model.mgrd").is_file()
