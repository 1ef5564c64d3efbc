"""From C text to a loaded library: compiler discovery, flags, and the cache of built objects.

Knows nothing of programs or ops. Every failure is a NativeError with one line of text; whoever
catches it goes on without C.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

FLAGS = shlex.split(
    "-std=gnu11 -O3 -march=native -fPIC -shared -fno-math-errno -fno-trapping-math "
    "-ffp-contract=fast -fno-strict-aliasing -pthread"
)
_TIMEOUT = 120  # seconds; zig's very first run builds its own runtime
_FACTS = ("model name", "flags", "Features", "CPU part")  # of /proc/cpuinfo


class NativeError(Exception):
    """Why there is no compiled code, in one line."""


@dataclass(frozen=True)
class Compiler:
    """A C compiler: the command that runs it and what it says it is."""

    command: tuple[str, ...]
    version: str

    def __str__(self) -> str:
        return f"{' '.join(self.command)} ({self.version})"


@dataclass(frozen=True)
class Built:
    """A loaded object, and whether it came from the cache. note: what went wrong, in one line."""

    library: ctypes.CDLL
    from_cache: bool
    note: str = ""


# --- the compiler


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command. Raises NativeError if it does not run to its end."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT)
    except (OSError, subprocess.SubprocessError) as error:
        raise NativeError(f"{command[0]} did not run: {error}") from None


def _words(variable: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise NativeError(f"${variable} is {text!r}: {str(error).lower()}") from None


@lru_cache(maxsize=8)
def _find_compiler(cc: str | None, path: str | None) -> Compiler:
    found = [["cc"], ["gcc"], ["clang"], [sys.executable, "-m", "ziglang", "cc"]]
    problems = []
    wanted = _words("CC", cc or "")
    for name, *options in [wanted] if wanted else found:
        program = shutil.which(name)
        if program is None:
            problems.append(f"{name}: not found")
            continue
        try:
            ran = _run([program, *options, "--version"])
        except NativeError as error:
            problems.append(str(error))
            continue
        # The version is part of the key of what it builds
        if ran.returncode == 0:
            return Compiler((program, *options), (ran.stdout.strip() or "unknown").splitlines()[0])
        problems.append(f"{name}: exit {ran.returncode}")
    hint = "fix $CC" if wanted else "install gcc or clang, or `pip install ziglang`"
    raise NativeError(f"no C compiler works ({'; '.join(problems)}): {hint}")


def find_compiler() -> Compiler:
    """The first of $CC, cc, gcc, clang and the `ziglang` package that runs. Raises NativeError,
    which says what was tried.
    """
    return _find_compiler(os.environ.get("CC") or None, os.environ.get("PATH"))


def has_tiles() -> bool:
    """True if the compiler builds for a CPU whose vector registers products.c has tiles for: its
    products are then as fast as BLAS's, or faster.

    Raises NativeError without a compiler.
    """
    return "__AVX512F__" in _macros() or {"__AVX2__", "__FMA__"} <= _macros()


def has_bfloat16() -> bool:
    """True if the compiler builds for a CPU that multiplies bfloat16 faster than float32.

    Raises NativeError without a compiler.
    """
    return bool(bfloat16_products())


def bfloat16_products() -> str:
    """What multiplies bfloat16 faster than float32 here, "AMX" or "AVX512-BF16"; "" if nothing.

    Raises NativeError without a compiler.
    """
    has_amx = sys.platform == "linux" and "__AMX_BF16__" in _macros()
    return "AMX" if has_amx else "AVX512-BF16" if "__AVX512BF16__" in _macros() else ""


def flags() -> list[str]:
    """What the compiler is called with: FLAGS, and then those of $MINIGRAD_CFLAGS."""
    return [*FLAGS, *_words("MINIGRAD_CFLAGS", os.environ.get("MINIGRAD_CFLAGS", ""))]


@cache
def _macros() -> set[str]:
    ran = _run([*find_compiler().command, *flags(), "-dM", "-E", "-x", "c", os.devnull])
    return {line.split()[1] for line in ran.stdout.splitlines() if line.startswith("#define ")}


@cache
def cpu_identity() -> str:
    """What -march=native means here: machines that share a home folder must not share objects."""
    lines = {platform.machine(), platform.system()}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.split("\t")[0].strip() in _FACTS:
                lines.add(line)
    except OSError:
        lines.add(platform.processor())
    return "\n".join(sorted(lines))


# --- the cache


def cache_folder() -> Path:
    """Where built objects are kept: $MINIGRAD_CACHE, else `minigrad` in the user's cache folder,
    or in the temporary one if the user has no home.
    """
    if chosen := os.environ.get("MINIGRAD_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    # Of a user who is not in the list of users, as in some containers, "~" stays as it is
    return Path(tempfile.gettempdir() if base[0] == "~" else base) / "minigrad"


def cache_problem(folder: Path) -> str:
    """Why a folder cannot be the cache; "" if it can, or can be made. Changes nothing."""
    if not os.path.lexists(folder):
        above = next(p for p in folder.absolute().parents if p.exists())
        return "" if os.access(above, os.W_OK | os.X_OK) else f"cannot be made in {above}"
    facts = folder.lstat()
    if not _is_own(folder):
        return f"belongs to another user (uid {facts.st_uid})"
    if not stat.S_ISDIR(facts.st_mode):
        return "is a link or a file, not a folder"
    if facts.st_mode & stat.S_ISVTX:  # root's own /tmp: closing it would take it from all others
        return "is one that all users share; name a folder in it"
    return "" if os.access(folder, os.W_OK | os.X_OK) else "cannot be written"


def _is_own(path: Path) -> bool:
    return not hasattr(os, "getuid") or path.lstat().st_uid == os.getuid()


def open_cache(folder: Path) -> None:
    """Make `folder` and see that it is the user's alone (owner checked, mode 0700, writable).
    Raises NativeError if it cannot be.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if problem := cache_problem(folder):
            raise NativeError(f"the cache folder {folder} {problem}")
        if folder.lstat().st_mode & 0o077:
            folder.chmod(0o700)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = error.strerror or error
        raise NativeError(f"the cache folder {folder} cannot be written ({why})") from None


def build(source: str) -> Built:
    """Compile `source` and load it, or load what an earlier build of the same code left in the
    cache.

    The key is a hash of the source without its comments, which name lines of the user's program,
    the flags, the compiler and the CPU. A folder that cannot be
    trusted or written is replaced by a temporary one, a damaged object by a new build; either way
    `note` says so in one line. Raises NativeError.
    """
    # Everything that decides what the compiler makes is in the key, so an object is never stale
    compiler, folder = find_compiler(), cache_folder()
    code = "".join(part.partition("*/")[2] for part in f"*/{source}".split("/*"))
    text = "\0".join((code, *flags(), *compiler.command, compiler.version, cpu_identity()))
    key = hashlib.sha256(text.encode()).hexdigest()[:32]
    try:
        open_cache(folder)
    except NativeError as error:
        return Built(_build_once(source), False, f"{error}: the compiled step is not kept")
    # A damaged object is built again under the same name; one that is loaded stays as it is,
    # since the new one replaces the file and does not write into it
    path, note = folder / f"{key}.so", ""
    if path.exists():
        if _is_whole(path):
            with suppress(NativeError):
                return Built(_load(path), True)
        note = f"the cached object {path} was damaged and has been built again"
    return Built(_load(_compile(compiler, source, folder, key)), False, note)


def _build_once(source: str) -> ctypes.CDLL:
    """Build in a folder that is deleted: what is loaded stays loaded."""
    with tempfile.TemporaryDirectory(prefix="minigrad-") as folder:
        return _load(_compile(find_compiler(), source, Path(folder), "step"))


def trial() -> float:
    """Build and load an empty function, past the cache: the seconds it took. Raises NativeError if
    the compiler does not do its work.
    """
    started = time.perf_counter()
    _build_once("int trial(void) { return 0; }\n")
    return time.perf_counter() - started


def _is_whole(path: Path) -> bool:
    """True if the object is the user's own and its bytes have the hash that was written with it."""
    try:
        seal = path.with_suffix(".sha256").read_text()
        return _is_own(path) and seal == hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return False


def _compile(compiler: Compiler, source: str, folder: Path, key: str) -> Path:
    """Run the compiler on a temporary file in `folder`; the object and its hash appear under their
    names only when whole.
    """
    with tempfile.TemporaryDirectory(dir=folder) as work:
        text, made, seal = (Path(work) / name for name in ("step.c", "step.so", "seal"))
        text.write_text(source)
        ran = _run([*compiler.command, *flags(), str(text), "-o", str(made), "-lm"])
        if ran.returncode != 0 or not made.exists():
            errors = [line for line in ran.stderr.splitlines() if "error" in line]
            first = errors[0] if errors else ran.stderr.strip()[:200]
            raise NativeError(f"{compiler.command[0]} failed (exit {ran.returncode}): {first}")
        # The hash first: an object without one is not loaded
        seal.write_text(hashlib.sha256(made.read_bytes()).hexdigest())
        os.replace(seal, folder / f"{key}.sha256")
        os.replace(made, folder / f"{key}.so")
    return folder / f"{key}.so"


def _load(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeError(f"the compiled object does not load: {error}") from None
