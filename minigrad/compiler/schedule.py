"""From kernels to phases: what runs without a barrier in between.

Kernels that cut along the same axis (rows, batch) and touch only their own share of what the others
make follow one another inside one phase: a thread takes its share of a whole forward pass through
all of them while it is in the cache. Kernels that need everything (weight gradients) are put off
and gathered, and run side by side as tasks of one phase.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from math import ceil, gcd

from minigrad.compiler.kernel import Kernel
from minigrad.compiler.program import Line

_MIN_CUT = 4  # a phase of several kernels must be cut into at least this many parts
_GATHER = 4e-3  # seconds of work put off at most
_MAX_CHUNKS = 32
_GRAIN = 48  # whole tiles of a product, whichever of rows and columns are cut
# Floating-point operations below which one thread is faster: a second one takes 80 us to wake, in
# which the first does millions
_SMALL = 2e7
# Seconds of work per phase, as `Kernel.cost` counts them, below which threads wait for each other
# longer than they work
_SHORT = 3e-5


@dataclass
class Phase:
    """chain: kernels one after the other on the same share; tasks: (kernel, lo, hi) side by side.
    One of the two.

    units, chunks: as in the C struct phase_t."""

    chain: list[Kernel] = field(default_factory=list)
    tasks: list[tuple[Kernel, int, int]] = field(default_factory=list)
    units: int = 1
    chunks: int = 1

    @property
    def kernels(self) -> list[Kernel]:
        """The kernels in it, each once."""
        return self.chain or list({id(k): k for k, _, _ in self.tasks}.values())


def schedule(items: Iterable[Kernel | Line], threads: int) -> list[Phase | Line]:
    """Phases of kernels for a number of threads, and lines that are called back between them."""
    scheduler = _Scheduler(threads)
    for item in items:
        if isinstance(item, Kernel):
            scheduler.add(item)
        else:
            scheduler.flush()
            scheduler.sequence.append(item)
    scheduler.flush()
    return scheduler.sequence


def pays(phases: list[Phase]) -> bool:
    """True if several threads are faster than one."""
    kernels = [k for phase in phases for k in phase.kernels]
    flops, seconds = sum(k.flops for k in kernels), sum(k.cost for k in kernels)
    return flops >= _SMALL and seconds >= _SHORT * len(phases)


class _Scheduler:
    """Goes through kernels in order, with a chain that is growing and kernels put off, in levels:
    those of a level need only the levels before.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.sequence: list[Phase | Line] = []
        self.chain: list[Kernel] = []
        self.cut = 0
        self.later: list[list[Kernel]] = []

    def add(self, k: Kernel) -> None:
        """The next kernel."""
        # Kernels put off run after the chain, level by level: k needs the levels before its own
        waits_for = [n for n, level in enumerate(self.later) if any(_depends(k, x) for x in level)]
        if k.solo:
            self.flush()
            self._tasks([k])
        elif k.atoms >= _MIN_CUT:
            # The chain would run before what k reads: what was put off comes first
            if waits_for:
                self.flush()
            if not self._join(k):
                self._flush_chain()
                self.chain, self.cut = [k], k.atoms
        else:
            level = max(waits_for, default=-1) + 1
            if level == len(self.later):
                self.later.append([])
            self.later[level].append(k)
            if sum(other.cost for kernels in self.later for other in kernels) > _GATHER:
                self.flush()

    def _join(self, k: Kernel) -> bool:
        """Append k to the chain if it can be cut where the chain is cut and needs nothing of
        another share.
        """
        cut = gcd(self.cut, k.atoms)
        if not self.chain or cut < _MIN_CUT or any(_crosses(k, other) for other in self.chain):
            return False
        self.chain.append(k)
        self.cut = cut
        return True

    def flush(self) -> None:
        """Close all phases that are open."""
        self._flush_chain()
        levels, self.later = self.later, []
        for kernels in levels:
            self._tasks(kernels)

    def _flush_chain(self) -> None:
        chain, cut = self.chain, self.cut
        self.chain, self.cut = [], 0
        if chain:
            units = chain[0].units if len(chain) == 1 else cut
            # A kernel alone gains nothing from parts that fit the cache, each of which packs
            alone = len(chain) == self.threads == 1
            chunks = 1 if alone else self._chunks(units, sum(k.cost for k in chain))
            self.sequence.append(Phase(chain, units=units, chunks=chunks))

    def _chunks(self, units: int, cost: float) -> int:
        """A few per thread, one in a short phase, as every chunk packs the weights again (5 % of a
        short step); none below ten microseconds, all of equal size if that can be had.
        """
        is_long = cost > 1e-3
        if self.threads == 1:
            wanted = min(units, 4) if is_long else 1  # parts that fit the cache
        else:
            most = (1 + is_long) * self.threads
            wanted = max(1, min(units, _MAX_CHUNKS, most, ceil(cost / 1e-5)))
        # Chunks of equal size end at the same time
        for n in range(wanted, min(units, _MAX_CHUNKS, 2 * wanted) + 1):
            if units % n == 0:
                return n
        return wanted

    def _tasks(self, kernels: list[Kernel]) -> None:
        """One phase of kernels that do not need each other, cut into tasks of about equal length,
        the longest first.
        """
        # About two tasks per thread: the last ones fill the gaps, and each packs its operands
        total = sum(k.cost for k in kernels)
        target = max(1e-5, total / (2 * self.threads)) if self.threads > 1 else total
        tasks: list[tuple[float, Kernel, int, int]] = []
        for k in kernels:
            grain = _GRAIN if k.name == "product" else 1
            parts = max(1, min(round(k.cost / target), ceil(k.units / grain)))
            if len(kernels) == 1 and parts > 1:
                parts = ceil(parts / self.threads) * self.threads  # as many for each
            for lo, hi in pairwise(_edges(k, parts, grain)):
                if lo < hi:
                    cost = k.cost / parts if k.sizes else k.cost * (hi - lo) / k.units
                    tasks.append((cost, k, lo, hi))
        tasks.sort(key=lambda task: -task[0])
        chunks = min(len(tasks), _MAX_CHUNKS, max(1, ceil(total / 2e-6)))
        cut = [task[1:] for task in tasks]
        self.sequence.append(Phase(tasks=cut, units=len(tasks), chunks=chunks))


def _edges(k: Kernel, parts: int, grain: int) -> list[int]:
    """Where to cut a kernel into parts of about equal work, at multiples of the grain."""
    # Causal attention: later rows have more to do
    if k.sizes:
        before = list(accumulate(k.sizes, initial=0))
        edges = [bisect_left(before, before[-1] * i / parts) for i in range(parts)]
    else:
        edges = [min(k.units, ceil(k.units * i / parts / grain) * grain) for i in range(parts)]
    return [*edges, k.units]


def _depends(k: Kernel, other: Kernel) -> bool:
    """True if k must come after `other`."""
    return bool(k.touches & other.writes or k.writes & other.touches)


def _crosses(k: Kernel, other: Kernel) -> bool:
    """True if k, on its share, would need what `other` does on another share."""
    shared = (k.touches & other.writes) | (k.writes & other.touches)
    return bool(shared & (k.whole | other.whole))
