"""What the suite needs of its process: a loaded machine and an ignored Ctrl-C fail no test."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "minigrad", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # how long an example takes depends on what else runs
settings.load_profile("minigrad")


def pytest_configure() -> None:
    """Undo `nohup pytest ... &` and `trap '' INT`: a process started with Ctrl-C ignored passes
    that on to all its children, and the tests of Ctrl-C start some. A handler is not passed on.
    """
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


AS_USERS_COMPILE = ("attention", "compiler", "test_guide.py", "test_readme.py", "test_short.py")


@pytest.fixture(scope="module", autouse=True)
def quick_compiling(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compile with -O1, in half the time, except where a test is about what the compiler makes."""
    before = os.environ.get("MINIGRAD_CFLAGS")
    if before is None and not set(request.path.parts) & {*AS_USERS_COMPILE}:
        os.environ["MINIGRAD_CFLAGS"] = "-O1"
        yield
        del os.environ["MINIGRAD_CFLAGS"]
    else:
        yield


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text and `whole`, a run of 20 steps: to be copied, not changed."""
    from tests.processes import called
    from tests.runs import SMALL, TEXT

    folder = tmp_path_factory.mktemp("small")
    (folder / "text.txt").write_text(TEXT)
    done = called(*SMALL, "--out", "whole", "--steps", "20", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def run_home(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `small_run` for a test file."""
    return shutil.copytree(small_run, tmp_path_factory.mktemp("home") / "runs")
