"""Short runs of the fuzzer, with both of msgpack's decoders."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("pure", "runs"), [("", "1,000"), ("1", "400")], ids=["C", "pure Python"])
def test_fuzzed_inputs_give_nothing_but_format_errors(pure, runs):
    environment = {key: value for key, value in os.environ.items() if key != "MSGPACK_PUREPYTHON"}
    environment |= {"PYTHONPATH": str(ROOT)} | ({"MSGPACK_PUREPYTHON": pure} if pure else {})
    command = [
        sys.executable,
        str(ROOT / "tools" / "fuzz_files.py"),
        "--runs",
        runs.replace(",", ""),
        "--seed",
        "7",
        "--no-bombs",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{runs} inputs") and "no failure" in done.stdout


def test_malformed_files_are_refused_by_the_pure_python_decoder_too():
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MSGPACK_PUREPYTHON": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/files/test_files_malformed.py",
        "-k",
        "malformed",
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
