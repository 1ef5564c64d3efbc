"""From kernels to phases: what runs without a barrier in between, and what lies where.

Kernels that cut along the same axis (rows, batch) and touch only their own share of what the others make follow one another inside one phase: a
thread takes its share of a whole forward pass through all of them while it is in the cache. Kernels that need everything (weight gradients) are
put off and gathered, and run side by side as tasks of one phase.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil, gcd

from minigrad.compiler.kernel import Kernel

_MIN_CUT = 4  # a phase of several kernels must be cut into at least so many parts
_GATHER = 2e-3  # seconds of work put off at most
_MAX_CHUNKS = 32


@dataclass
class Phase:
    """chain: kernels one after the other on the same share; tasks: (kernel, lo, hi) side by side. One of the two.

    units, chunks: as in the C struct phase_t."""

    chain: list[Kernel] = field(default_factory=list)
    tasks: list[tuple[Kernel, int, int]] = field(default_factory=list)
    units: int = 1
    chunks: int = 1

    @property
    def kernels(self) -> list[Kernel]:
        """The kernels in it, each once."""
        return self.chain or list({id(k): k for k, _, _ in self.tasks}.values())


class Scheduler:
    """Goes through kernels in order, with a chain that is growing and kernels put off, in levels: those of a level need only the levels before."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.phases: list[Phase] = []
        self.chain: list[Kernel] = []
        self.cut = 0
        self.later: list[list[Kernel]] = []

    def add(self, k: Kernel) -> None:
        """The next kernel."""
        if k.solo:
            self.flush()
            self._tasks([k])
        elif k.atoms >= _MIN_CUT:
            if any(_depends(k, other) for level in self.later for other in level):
                self.flush()
            if not self._join(k):
                self._flush_chain()
                self.chain, self.cut = [k], k.atoms
        else:
            waits_for = [n + 1 for n, level in enumerate(self.later) if any(_depends(k, other) for other in level)]
            level = max(waits_for, default=0)
            self.later[level : level + 1] = [[*self.later[level], k] if level < len(self.later) else [k]]
            if sum(other.cost for kernels in self.later for other in kernels) > _GATHER:
                self.flush()

    def _join(self, k: Kernel) -> bool:
        """Append k to the chain if it can be cut where the chain is cut and needs nothing of another share."""
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
            self.phases.append(Phase(chain=chain, units=units, chunks=self._chunks(units, sum(k.cost for k in chain))))

    def _chunks(self, units: int, cost: float) -> int:
        """A few per thread, none below ten microseconds, all of equal size if that can be had."""
        if self.threads == 1:
            wanted = min(units, 4) if cost > 1e-3 else 1  # parts that fit the cache
        else:
            wanted = max(1, min(units, _MAX_CHUNKS, 2 * self.threads, ceil(cost / 1e-5)))
        even = [n for n in range(wanted, min(units, _MAX_CHUNKS, 2 * wanted) + 1) if units % n == 0]
        return even[0] if even else wanted

    def _tasks(self, kernels: list[Kernel]) -> None:
        """One phase of kernels that do not need each other, cut into tasks of about equal length, the longest first."""
        total = sum(k.cost for k in kernels)
        target = max(1e-5, total / (3 * self.threads)) if self.threads > 1 else total
        tasks = []
        for k in kernels:
            grain = 16 if k.name == "product" else 1
            parts = max(1, min(round(k.cost / target), ceil(k.units / grain)))
            edges = [min(k.units, ceil(k.units * i / parts / grain) * grain) for i in range(parts)] + [k.units]
            tasks += [(k, lo, hi) for lo, hi in pairwise(edges) if lo < hi]
        tasks.sort(key=lambda task: -task[0].cost * (task[2] - task[1]) / task[0].units)
        chunks = min(len(tasks), _MAX_CHUNKS, max(1, ceil(total / 2e-6)))
        self.phases.append(Phase(tasks=tasks, units=len(tasks), chunks=chunks))


def _depends(k: Kernel, other: Kernel) -> bool:
    """True if k must come after `other`."""
    return bool(k.touches & other.writes or k.writes & other.touches)


def _crosses(k: Kernel, other: Kernel) -> bool:
    """True if k, on its share, would need what `other` does on another share."""
    shared = (k.touches & other.writes) | (k.writes & other.touches)
    return bool(shared & (k.whole | other.whole))
