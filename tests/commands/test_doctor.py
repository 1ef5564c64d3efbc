"""`minigrad doctor` on machines of many kinds: it says what is there, measures, advises, and
changes nothing.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minigrad.cli.doctor import gflops
from minigrad.ops.parallel import cores, find_blas

ROOT = Path(__file__).parents[2]
PLAIN = {
    name: value
    for name, value in os.environ.items()
    if not name.endswith("_THREADS") and not name.startswith("OPENBLAS")
}


def doctor(*options: str, **environment: str) -> str:
    call = [sys.executable, "-W", "error", "-m", "minigrad", "doctor", *options]
    done = subprocess.run(
        call,
        env={**PLAIN, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


def test_it_names_blas_compiler_flags_threads_and_cache_and_measures_a_product(
    tmp_path: Path,
) -> None:
    facts = json.loads(doctor("--json", MINIGRAD_CACHE=str(tmp_path / "new" / "cache")))
    assert {"BLAS", "compiler", "flags", "threads", "cache", "GFLOP/s", "advice"} <= facts.keys()
    assert all(0.01 < speed < 100_000 for speed in facts["GFLOP/s"].values()) and (
        "1" in facts["GFLOP/s"] or "?" in facts["GFLOP/s"]
    )
    assert (
        "not there yet" in facts["cache"] and not (tmp_path / "new").exists()
    )  # it changes nothing


def test_without_a_compiler_it_says_so_and_how_to_get_one() -> None:
    output = doctor(CC="no-such-compiler")
    assert (
        "none: no C compiler works (no-such-compiler: not found)" in output
        and "pip install ziglang" in output
    )
    assert "compiling" not in output


def test_a_compiler_that_breaks_when_it_compiles_is_found_out(tmp_path: Path) -> None:
    broken = tmp_path / "cc"
    broken.write_text(
        "#!/bin/sh\ncase $1 in --version) echo broken 1.0;; *) echo 'step.c: error: no luck' >&2; "
        "exit 3;; esac\n"
    )
    broken.chmod(0o755)
    output = doctor(CC=str(broken))
    assert "broken 1.0" in output and "no luck" in output and "name another in CC" in output


def test_a_cache_that_cannot_be_used_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for cache in (tmp_path / "file", tmp_path / "file" / "below"):
        output = doctor(MINIGRAD_CACHE=str(cache))
        assert "not used: " in output and "MINIGRAD_CACHE names another" in output
    open_to_all = tmp_path / "open"
    open_to_all.mkdir(mode=0o755)
    assert (
        "yours, writable" in doctor(MINIGRAD_CACHE=str(open_to_all))
        and open_to_all.stat().st_mode & 0o777 == 0o755
    )


def test_forced_kernels_are_named() -> None:
    blas = find_blas()
    if blas is None or blas.name != "OpenBLAS":
        pytest.skip("needs OpenBLAS")
    assert "OPENBLAS_CORETYPE=Haswell forces kernels: unset it" in doctor(
        OPENBLAS_CORETYPE="Haswell"
    )


def test_numbers_of_threads_that_make_it_slow_are_named() -> None:
    output = doctor(MINIGRAD_THREADS="4096", OMP_NUM_THREADS="many")
    assert (
        "MINIGRAD_THREADS=4096, but there are" in output
        and "OMP_NUM_THREADS=many is not a number" in output
    )


def test_measuring_leaves_the_threads_of_blas_as_they_were() -> None:
    blas = find_blas()
    if blas is None or not blas.get_threads:
        pytest.skip("needs a BLAS whose threads can be asked for")
    before = blas.get_threads()
    assert set(gflops()) == {str(n) for n in {1, cores()}} and blas.get_threads() == before
