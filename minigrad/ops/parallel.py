"""Work shared among the machine's cores by a few Python threads, while BLAS is held to one thread.

numpy releases the interpreter's lock inside its calls, so threads that each work on large blocks
run in parallel. OpenBLAS would start threads of its own in each of them, which wait for one another
(3 times slower, measured), so it is held to one thread meanwhile. Each piece of work is computed by
one thread, with one BLAS thread: results are the same to the bit for any number of threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from functools import cache
from itertools import product
from typing import NamedTuple, TypeVar

import numpy as np

from minigrad.arguments import as_int
from minigrad.errors import ConfigError

Item = TypeVar("Item")


class _State:
    """The number of threads to use (0: one per core), and how many callers hold BLAS to one."""

    def __init__(self) -> None:
        self.wanted = 0
        self.lock = threading.Lock()
        self.holders = self.blas_threads = 0


_state = _State()


def _forget_threads() -> None:
    # A forked child has none of the parent's threads, which may hold the lock or BLAS.
    wanted = _state.wanted
    _state.__init__()  # type: ignore[misc]
    _state.wanted = wanted


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def set_num_threads(n: int) -> None:
    """Use n threads for what eager ops share: heads and tiles of attention, weights in blocks.
    0: as many as `get_num_threads` says. Raises ConfigError unless n is an integer >= 0.
    """
    _state.wanted = as_int("set_num_threads", "n", n, 0)


def get_num_threads() -> int:
    """Return the number of threads that `for_each` uses: of `set_num_threads`, else
    $MINIGRAD_THREADS, else one per core. Raises ConfigError if the variable is not a number.
    """
    return _state.wanted or wanted_threads("MINIGRAD_THREADS") or cores()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def wanted_threads(name: str) -> int:
    """Return the number of threads in an environment variable, 0 where it is not set. Raises
    ConfigError for anything but a number.
    """
    text = os.environ.get(name) or "0"
    if not text.strip().isdecimal():
        hint = "unset it for a thread per core"
        raise ConfigError("threads", f"${name} is {text!r}, not a number", got=text, hint=hint)
    return int(text)


def for_each(work: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Call work(item) for every item, in any order, on several threads if BLAS can be held to one.
    The first exception is raised when all have ended.
    """
    with one_blas_thread() as held:
        _share(work, items, get_num_threads() if held else 1)


def _share(work: Callable[[Item], None], items: Iterable[Item], threads: int) -> None:
    if threads == 1:
        for item in items:
            work(item)
        return
    # The next() of a list's iterator is atomic: no two threads get the same item.
    queue = iter(list(items))
    errors: list[BaseException] = []

    def run() -> None:
        try:
            for item in queue:
                work(item)
        except BaseException as error:
            errors.append(error)

    # Work shared here takes milliseconds: a new thread costs little, and there is no pool to
    # import, or to lose in a fork.
    helpers = [
        threading.Thread(target=copy_context().run, args=(run,), name="minigrad")
        for _ in range(threads - 1)
    ]
    for helper in helpers:
        helper.start()
    run()
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]


# --- the threads of BLAS


class Blas(NamedTuple):
    """The BLAS that numpy has loaded: its float32 product, whose integers are int64 if it is wide,
    and the kernels that it chose for this CPU, such as Haswell.

    get_threads, set_threads: both None for another BLAS than OpenBLAS.
    """

    name: str
    path: str
    kernels: str
    sgemm: Callable[..., None]
    wide: bool
    get_threads: Callable[[], int] | None
    set_threads: Callable[[int], None] | None


@cache
def find_blas() -> Blas | None:
    """Return numpy's BLAS, or None if it cannot be found."""
    for path in blas_libraries():
        try:
            library = ctypes.CDLL(path)  # loaded already: this finds it again
        except OSError:
            continue
        # numpy wheels prefix the names, distributions do not; 64_ means 64-bit integers
        for prefix, suffix in product(("scipy_", ""), ("64_", "")):
            names = ("corename", "num_threads")
            getters = (f"{prefix}openblas_get_{name}{suffix}" for name in names)
            core, getter = (getattr(library, name, None) for name in getters)
            setter = getattr(library, f"{prefix}openblas_set_num_threads{suffix}", None)
            sgemm = getattr(library, f"{prefix}cblas_sgemm{suffix}", None)
            if sgemm is None:
                continue
            if core is not None:
                core.restype = ctypes.c_char_p
            kernels = "unknown" if core is None else core().decode()
            name = os.path.basename(path) if setter is None else "OpenBLAS"
            return Blas(name, path, kernels, sgemm, bool(suffix), getter, setter)
    return None


def blas_libraries() -> list[str]:
    """Return where numpy's BLAS may be: in its wheel first, then whatever BLAS this process has
    mapped, then Apple's.
    """
    root, found = os.path.dirname(np.__file__), []
    for folder in (os.path.join(root, "..", "numpy.libs"), os.path.join(root, ".dylibs")):
        with contextlib.suppress(OSError):
            files = sorted(os.listdir(folder))
            found += [os.path.join(folder, file) for file in files if "openblas" in file]
    with contextlib.suppress(OSError), open("/proc/self/maps") as maps:
        mapped = sorted({line.split()[-1] for line in maps if "/" in line})
        found += [p for p in mapped if "blas" in os.path.basename(p).lower() or "mkl_rt" in p]
    accelerate = "/System/Library/Frameworks/Accelerate.framework/Accelerate"
    return [*found, accelerate] if os.path.exists(os.path.dirname(accelerate)) else found


def blas_threads() -> int:
    """Return how many threads BLAS uses now, 1 where that is unknown."""
    blas = find_blas()
    return 1 if blas is None or blas.get_threads is None else blas.get_threads()


def hold_blas() -> bool:
    """Hold BLAS to one thread until `release_blas`; return False if that is impossible. Callers may
    overlap: the last one gives the threads back.
    """
    blas = find_blas()
    if blas is None or blas.get_threads is None or blas.set_threads is None:
        return False
    with _state.lock:
        if not _state.holders:
            _state.blas_threads = blas.get_threads()
            blas.set_threads(1)
        _state.holders += 1
    return True


def release_blas() -> None:
    """End what a `hold_blas` that returned True began."""
    with _state.lock:
        _state.holders -= 1
        if not _state.holders:
            set_blas_threads(_state.blas_threads)


@contextlib.contextmanager
def one_blas_thread(wanted: bool = True) -> Iterator[bool]:
    """Hold BLAS to one thread inside, if `wanted` and possible, and yield whether it is held: on
    some processors the last bits of OpenBLAS's products depend on its threads.
    """
    held = wanted and hold_blas()
    try:
        yield held
    finally:
        if held:
            release_blas()


def set_blas_threads(n: int) -> None:
    """Let BLAS use n threads, where that can be set."""
    blas = find_blas()
    if blas is not None and blas.set_threads is not None:
        blas.set_threads(n)
