"""What the suite needs of its process: a loaded machine and an ignored Ctrl-C fail no test."""

import os
import shutil
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "minigrad", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # how long an example takes depends on what else runs
settings.load_profile("minigrad")


# Half the time of compiling. In the processes that tests start, too, from the first import of their
# environment on: results of code that is optimised otherwise differ by rounding.
QUICK = "-O1"
os.environ.setdefault("MINIGRAD_CFLAGS", QUICK)


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Optimise C as it is for users in tests that are marked so: all of files about whole steps and
    functions, and a few of others. Hardly optimise it where it computes little.
    """
    with pytest.MonkeyPatch.context() as patch:
        if os.environ["MINIGRAD_CFLAGS"] == QUICK:
            if item.get_closest_marker("as_for_users"):
                patch.delenv("MINIGRAD_CFLAGS")
            elif item.path.parent.name in ("compiler", "models", "nn"):
                patch.setenv("MINIGRAD_CFLAGS", "-Og")
        return (yield)


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
