"""Data parallelism over MPI: the processes of one launch, and sums of gradients whose bits do not
depend on how many processes there are.

    $ mpiexec -n 4 minigrad train --text book.txt

    loss = distributed.sum_gradients(model, backward_of_part, parts=4)
    optimizer.step()                                             # the same bits on every rank

A batch is cut into `parts` equal parts, whose gradients are added in one fixed binary tree. Each
rank computes the parts of a subtree of its own; then the ranks add the sums of their subtrees, up
the rest of the tree. So the bits depend on the parts and not on the ranks.

A process that was started alone is rank 0 of 1: it does not import mpi4py, and no function here
does anything that its caller would have to ask about. See docs/distributed.md.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, reduce
from typing import Any, NamedTuple, TypeVar
from zlib import crc32

import numpy as np

from minigrad import start
from minigrad.arguments import require
from minigrad.autograd import no_grad
from minigrad.columns import columns
from minigrad.dtypes import Array
from minigrad.errors import ConfigError, MinigradError, MissingDependencyError
from minigrad.ops import parallel
from minigrad.random import default_generator
from minigrad.tensor import Tensor

T = TypeVar("T")
_BUCKET = 1 << 20  # numbers that are exchanged at a time: what is received is added from the cache
_STREAM = 48  # part i draws its random numbers from counter + (i << 48) on
_PATIENCE = 1.0  # seconds in which a rank that has failed waits for the others to fail as well


class _World(NamedTuple):
    """The module mpi4py.MPI, the communicator of all ranks, and another one for their end."""

    mpi: Any
    comm: Any
    ending: Any


@cache
def _world() -> _World | None:
    """Return the ranks of this launch, None for a process that was started alone."""
    started = start.launched()
    if started == 1:
        return None
    os.environ.setdefault("MPIR_CVAR_SUPPRESS_ABORT_MESSAGE", "1")  # `end_together` has said why
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: there is no MPI library
        why = str(error).partition("\n")[0]
        problem = f"this is one of {started} processes, which need mpi4py and an MPI library: {why}"
        hint = "pip install 'minigrad[mpi]'"
        raise MissingDependencyError("distributed", problem, hint=hint) from None
    if MPI.COMM_WORLD.Get_size() != started:
        found = MPI.COMM_WORLD.Get_size()
        problem = f"the launcher started {started} processes, but MPI connects {found}"
        hint = "use the mpiexec of the MPI library that mpi4py was installed for"
        raise ConfigError("distributed", problem, got=found, wanted=started, hint=hint)
    return _World(MPI, MPI.COMM_WORLD.Dup(), MPI.COMM_WORLD.Dup())


def rank() -> int:
    """Return the number of this process, 0 .. size() - 1."""
    world = _world()
    return 0 if world is None else int(world.comm.Get_rank())


def size() -> int:
    """Return the number of processes of this launch."""
    world = _world()
    return 1 if world is None else int(world.comm.Get_size())


def is_first() -> bool:
    """True on rank 0, which writes files and prints."""
    return rank() == 0


def barrier() -> None:
    """Return when all ranks have called this."""
    largest(0)


def broadcast(value: T) -> T:
    """Return rank 0's `value` on every rank. It may be any object that pickle takes."""
    world = _world()
    return value if world is None else world.comm.bcast(value)


def largest(number: int) -> int:
    """Return the largest of the ranks' numbers."""
    world = _world()
    if world is None:
        return number
    found = np.array(number, np.int64)
    world.comm.Allreduce(world.mpi.IN_PLACE, found, world.mpi.MAX)
    return int(found)


def on_first(manager: T) -> Any:
    """Return a context manager that enters `manager` on rank 0, and is its value on the others: a
    `CheckpointFolder`, say, whose lock one process holds.
    """
    return manager if is_first() else contextlib.nullcontext(manager)


def print_on_first_alone() -> None:
    """Print nothing from here on, except on rank 0 and what `end_together` says."""
    if not is_first():
        sys.stdout = sys.stderr = _Nowhere()


class _Nowhere(io.TextIOBase):
    """A file that forgets what is written."""

    def write(self, text: str) -> int:
        return len(text)


# --- sums


def default_parts() -> int:
    """Return 1 for a single process, and for several ranks 4, or their number where 4 is not a
    multiple of it.
    """
    ranks = size()
    return 1 if ranks == 1 else 4 if ranks in (2, 4) else ranks


def check_parts(call: str, parts: int) -> None:
    """Raise ConfigError unless every rank gets a subtree: `parts` is the number of ranks times a
    power of two. A single rank takes any number of parts.
    """
    ranks, each = size(), parts // size()
    good = parts >= 1 and (ranks == 1 or (parts == ranks * each and each & (each - 1) == 0))
    wanted = f"the number of ranks, {ranks}, times a power of two"
    require(good, call, "parts", parts, wanted, hint=f"for example parts={default_parts()}")


def sum_gradients(
    model: Any,
    part: Callable[[int], Any] | None = None,
    parts: int | None = None,
    parameters: Iterable[Tensor] | None = None,
) -> float:
    """Leave in `.grad`, on every rank, the sum of the gradients of all parts; return the sum of
    their losses.

        def part(i):
            loss = model.loss(x[rows[i]], y[rows[i]]) / 4
            loss.backward()
            return loss

        loss = distributed.sum_gradients(model, part, parts=4)

    part: part(i) leaves the gradients of part i in `.grad`, which is None when it begins, and
        returns the loss of the part; it is called for the parts of this rank. Without it, the
        gradients that the ranks have in `.grad` are added.
    parameters: in whose `.grad` they are, if not in that of the model's parameters.
    Random numbers that part i draws from the default generator depend on i and not on the rank.
    With several parts, BLAS has one thread while they are computed, so that the bits do not depend
    on how many cores a rank has.
    Buffers that parts change, such as running means, get the average of the changes.
    Raises ConfigError unless `parts` is the number of ranks times a power of two.
    """
    params = list(model.parameters() if parameters is None else parameters)
    if part is None:
        if size() > 1:
            _put(params, sum_arrays(_take(params)))
        return 0.0
    parts = default_parts() if parts is None else parts
    check_parts("sum_gradients", parts)
    states = [b for b in getattr(model, "buffers", tuple)() if b.data.dtype.kind in "fi"]
    before = [b.data.copy() for b in states]
    seed, counter = default_generator.get_state()

    def compute(i: int) -> list[Array]:
        for p in params:
            p.grad = None
        _write(states, before)
        start = counter + (i << _STREAM)
        default_generator.set_state((seed, start))
        loss = float(part(i))
        drawn = default_generator.get_state()[1] - start
        moved = [np.asarray(b.data - old) for b, old in zip(states, before, strict=True)]
        return [np.array([loss, drawn]), *moved, *_take(params)]

    each = parts // size()
    with parallel.one_blas_thread(parts > 1):
        leaves = _tree(compute, rank() * each, each)
    facts, *rest = sum_arrays(leaves)
    average = [x / parts if x.dtype.kind == "f" else x // parts for x in rest[: len(states)]]
    _write(states, [old + x.astype(old.dtype) for old, x in zip(before, average, strict=True)])
    _put(params, rest[len(states) :])
    default_generator.set_state((seed, counter + int(facts[1])))
    return float(facts[0])


def _tree(compute: Callable[[int], list[Array]], first: int, n: int) -> list[Array]:
    """Return the sum of n leaves: that of the largest power of two below n, plus the rest."""
    if n == 1:
        return compute(first)
    half = 1 << (n - 1).bit_length() - 1
    left, right = _tree(compute, first, half), _tree(compute, first + half, n - half)
    for x, y in zip(left, right, strict=True):
        np.add(x, y, out=x)
    return left


def _take(params: list[Tensor]) -> list[Array]:
    """Return which parameters have a gradient, and the gradients, which are taken out of `.grad`;
    zeros for one that is missing.
    """
    grads = [p.grad for p in params]
    for p in params:
        p.grad = None
    present = np.array([float(g is not None) for g in grads])
    zeros = [
        np.zeros_like(p.data) if g is None else g.data for p, g in zip(params, grads, strict=True)
    ]
    return [present, *zeros]


def _put(params: list[Tensor], arrays: list[Array]) -> None:
    """Put sums of what `_take` returned into `.grad`, for parameters that had one in some part."""
    for p, present, g in zip(params, arrays[0], arrays[1:], strict=True):
        p.grad = Tensor(g) if present else None


def _write(tensors: list[Tensor], arrays: list[Array]) -> None:
    with no_grad():
        for t, array in zip(tensors, arrays, strict=True):
            t.assign(Tensor(array))


def sum_arrays(arrays: list[Array]) -> list[Array]:
    """Return the sum over the ranks of each array, with the same bits on every rank: by the tree
    over ranks. All ranks give arrays of the same shapes and dtypes.
    """
    world, summed = _world(), list(arrays)
    if world is None:
        return summed
    for dtype in dict.fromkeys(x.dtype for x in arrays):
        chosen = [i for i, x in enumerate(arrays) if x.dtype == dtype]
        flat = np.concatenate([arrays[i].ravel() for i in chosen])
        for at in range(0, len(flat), _BUCKET):
            _sum_over_ranks(world.comm, flat[at : at + _BUCKET])
        ends = np.cumsum([arrays[i].size for i in chosen])
        for i, piece in zip(chosen, np.split(flat, ends[:-1]), strict=True):
            summed[i] = piece.reshape(arrays[i].shape)
    return summed


def _sum_over_ranks(comm: Any, x: Array) -> None:
    """Add a vector over the ranks, in place. For a power of two: halves of halves are added with
    partners 1, 2, 4, ... away, and gathered on the way back, so a rank sends 2 (1 - 1 / size)
    vectors. For other numbers, sums go down to rank 0 and back.
    """
    here, ranks, taken = comm.Get_rank(), comm.Get_size(), np.empty_like(x)
    distances = [1 << n for n in range((ranks - 1).bit_length())]
    if ranks & (ranks - 1):
        for d in distances:
            if here % (2 * d) == d:
                comm.Send(x, here - d)
                break
            if here + d < ranks:
                comm.Recv(taken, here + d)
                x += taken
        comm.Bcast(x)
        return
    mine, halves = slice(0, len(x)), []
    for d in distances:
        middle = (mine.start + mine.stop) // 2
        low, high = slice(mine.start, middle), slice(middle, mine.stop)
        mine, other = (high, low) if here & d else (low, high)
        comm.Sendrecv(x[other], here ^ d, recvbuf=taken[mine], source=here ^ d)
        x[mine] += taken[mine]
        halves.append((d, mine, other))
    for d, mine, other in reversed(halves):
        comm.Sendrecv(x[mine], here ^ d, recvbuf=x[other], source=here ^ d)


# --- one launch


def check_same(call: str, facts: Mapping[str, Any]) -> None:
    """Raise ConfigError on every rank if a fact differs between ranks; rank 0 prints which."""
    world = _world()
    if world is None:
        return
    first, *_ = everywhere = world.comm.allgather({name: str(x) for name, x in facts.items()})
    odd = [n for n, found in enumerate(everywhere) if found != first]
    if not odd:
        return
    names = [name for name in first if any(everywhere[n].get(name) != first[name] for n in odd)]
    heads = ("field", "rank 0", *(f"rank {n}" for n in odd[:3]))
    rows = [(name, first[name], *(everywhere[n].get(name, "") for n in odd[:3])) for name in names]
    if is_first():
        print(*columns([heads, *rows], len(heads), " | "), sep="\n", file=sys.stderr)
    problem = f"ranks {', '.join(map(str, odd))} differ from rank 0 in {', '.join(names)}"
    hint = "start every rank with the same options, files and versions"
    raise ConfigError(call, problem, got=everywhere, hint=hint)


def checksum(arrays: Iterable[Array]) -> str:
    """Return a checksum of arrays, to be compared between ranks."""
    return f"{reduce(lambda crc, x: crc32(x.tobytes(), crc), arrays, 0):08x}"


def share_cores() -> int:
    """Give BLAS, ops and compiled steps of this rank its share of the cores that the ranks on this
    machine have together, and return it. $MINIGRAD_THREADS and $OPENBLAS_NUM_THREADS, if they are
    set and not 0, win.
    """
    world = _world()
    if world is None:
        return parallel.get_num_threads()
    here = world.comm.Split_type(world.mpi.COMM_TYPE_SHARED)
    cores = set(getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0))
    sharing = sum(not cores.isdisjoint(others) for others in here.allgather(cores))
    share = max(len(cores) // sharing, 1)
    threads = parallel.wanted_threads("MINIGRAD_THREADS") or share
    os.environ["MINIGRAD_THREADS"] = str(threads)
    parallel.set_blas_threads(parallel.wanted_threads("OPENBLAS_NUM_THREADS") or threads)
    return threads


@contextlib.contextmanager
def end_together() -> Iterator[None]:
    """End all ranks within seconds if the block raises on some of them, with one line that names
    the rank. An error that all of them have is raised on rank 0 alone, and the others exit.
    """
    try:
        yield
    except BaseException as error:
        _end(error)
        raise


def _end(error: BaseException) -> None:
    """Abort all ranks; return if this is the only one, or rank 0 and all others have failed."""
    interrupted = isinstance(error, KeyboardInterrupt)
    if start.launched() == 1 or (isinstance(error, SystemExit) and not error.code):
        return
    if interrupted and not _world.cache_info().currsize:
        start.end_by_sigint()  # to connect now could mean to wait for ranks that are gone
    try:
        world = _world()
    except MinigradError:  # the launcher's rank is all there is
        if any(int(os.environ.get(name) or 0) for name in start.RANKS):
            raise SystemExit(2) from None
        return
    assert world is not None
    expected = isinstance(error, MinigradError | OSError | SystemExit)
    code, here = 130 if interrupted else 2 if expected else 1, rank()
    all_failed, end = world.ending.Ibarrier(), time.monotonic() + _PATIENCE + min(here, 10) / 5
    while not interrupted and time.monotonic() < end:
        if all_failed.Test():
            if here:
                raise SystemExit(code) from None
            return
        time.sleep(0.01)
    if not (expected or interrupted):
        traceback.print_exception(error, file=sys.__stderr__)
    what = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    print(f"minigrad: rank {here} of {size()} failed: {what}", file=sys.__stderr__, flush=True)
    world.comm.Abort(code)


def _excepthook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """End all ranks when a user's program ends with an error, which Python alone would not."""
    _end(error)
    sys.__excepthook__(kind, error, trace)


if start.launched() > 1:
    sys.excepthook = _excepthook
