"""What the whole suite needs of its process: a loaded machine and an ignored Ctrl-C fail no test."""

import signal

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
