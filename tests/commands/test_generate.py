"""What `minigrad generate` can do beyond drawing from a temperature."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import minigrad
from minigrad.compiler import NativeError
from minigrad.compiler.native import find_compiler
from tests.commands.home import ENVIRONMENT, called, command, good, refused, run

GREEDY = ("generate", "--model", "bot", "--prompt", "you: hi\n", "--temperature", "0")


def test_it_stops_before_the_first_stop_string_and_takes_a_line_end_from_a_shell(
    home: Path,
) -> None:
    assert good(*GREEDY, "--stop", r"\n", folder=home) == "you: hi\nbot: hello\n"
    assert good(*GREEDY, "--stop", "zzz", "--stop", "lo", folder=home) == "you: hi\nbot: hel\n"


def test_beams_find_the_likeliest_text_and_stay_inside_the_context(home: Path) -> None:
    call = ("generate", "--model", "bot", "--prompt", "you: how are you\n", "--beams", "3")
    assert good(*call, folder=home).startswith("you: how are you\nbot: well\n")
    assert good(*call, "--stop", r"\n", folder=home) == "you: how are you\nbot: well\n"
    assert "block_size=32" in refused(*call, "--tokens", "100", folder=home)
    assert "--beams draws nothing, so --top-k has no use" in refused(
        *call, "--top-k", "3", folder=home
    )


def test_what_the_context_has_no_room_for_is_named(home: Path) -> None:
    long = "you: how are you\n" * 3
    done = run("generate", "--model", "bot", "--prompt", long, folder=home)
    assert done.returncode == 0 and done.stdout.startswith(long)
    assert done.stderr.startswith("minigrad generate: warning: 51 tokens; the model sees 32, and")
    chat = ("chat", "--model", "bot", "--template", "{message}")
    done = run(*chat, folder=home, given=f"{long[:40]}\n".replace("\n", " ") + "\n")
    assert done.stderr.startswith("minigrad chat: warning: 41 tokens; the model sees 32, and")


def test_min_p_of_one_is_greedy_and_a_penalty_changes_the_text(home: Path) -> None:
    greedy = good(*GREEDY, "--tokens", "60", folder=home)
    assert (
        good(*GREEDY[:-2], "--temperature", "3", "--min-p", "1", "--tokens", "60", folder=home)
        == greedy
    )
    assert good(*GREEDY, "--tokens", "60", "--repetition-penalty", "100", folder=home) != greedy


def test_an_error_amid_the_text_has_a_line_of_its_own(home: Path) -> None:
    held = minigrad.load(home / "bot/model.mgrd")
    spoilt = {name: array * np.nan for name, array in held.items()}
    minigrad.save(home / "nan.mgrd", spoilt, meta=held.meta)
    done = called("generate", "--model", "nan.mgrd", "--prompt", "you", folder=home)
    assert (done.returncode, done.stdout) == (2, "you\n") and "logit" in done.stderr


def test_bad_settings_get_one_line(home: Path) -> None:
    for option, value in (
        ("--min-p", "2"),
        ("--repetition-penalty", "0"),
        ("--beams", "0"),
        ("--stop", ""),
    ):
        assert f"argument {option}" in refused(*GREEDY, option, value, folder=home)
    assert "leave one" in refused(*GREEDY, "--jit", "--no-cache", folder=home)
    assert "so --no-cache has no use" in refused(
        "generate", "--model", "bot", "--beams", "2", "--no-cache", folder=home
    )


def test_compiled_it_writes_the_same_and_without_a_compiler_too_with_a_line_about_it(
    home: Path,
) -> None:
    eager = good(*GREEDY, "--tokens", "60", folder=home)
    call = command(*GREEDY, "--tokens", "60", "--jit")
    done = subprocess.run(
        call,
        env={**ENVIRONMENT, "CC": "no-such-compiler"},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0 and done.stdout == eager
    assert (
        done.stderr.count("\n") == 1
        and "warning: " in done.stderr
        and "no-such-compiler" in done.stderr
    )
    try:
        find_compiler()
    except NativeError:
        pytest.skip("there is no C compiler")
    assert good(*GREEDY, "--tokens", "60", "--jit", folder=home) == eager


@pytest.mark.parametrize("option", ["--prompt", "--stop"])
def test_a_text_that_is_not_utf_8_is_refused_in_one_line(home: Path, option: str) -> None:
    line = command("generate", "--model", "bot", option)
    done = subprocess.run(
        [*map(os.fsencode, line), b"caf\xe9"],
        capture_output=True,
        env=ENVIRONMENT,
        cwd=home,
        timeout=120,
    )
    assert done.returncode == 2 and done.stdout == b""
    assert done.stderr.count(b"\n") == 1 and b"b'caf\\xe9' is not UTF-8 text" in done.stderr
