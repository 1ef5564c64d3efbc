"""From kernels to phases: what runs without a barrier in between, and what lies where.

Kernels that cut along the same axis (rows, batch) and touch only their own share of what the others
make follow one another inside one phase: a thread takes its share of a whole forward pass through
    all of them while it is in the cache. Kernels that need everything (weight gradients) are
put off and gathered, and run side by side as tasks of one phase.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from math import ceil, gcd

from minigrad.compiler.kernel import Kernel

_MIN_CUT = 4  # a phase of several kernels must be cut into at least so many parts
_GATHER = 4e-3  # seconds of work put off at most
_MAX_CHUNKS = 32


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


class Scheduler:
    """Goes through kernels in order, with a chain that is growing and kernels put off, in levels:
    those of a level need only the levels before.
    """

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
            waits_for = [
                n + 1
                for n, level in enumerate(self.later)
                if any(_depends(k, other) for other in level)
            ]
            level = max(waits_for, default=0)
            self.later[level : level + 1] = [
                [*self.later[level], k] if level < len(self.later) else [k]
            ]
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
            self.phases.append(
                Phase(
                    chain=chain, units=units, chunks=self._chunks(units, sum(k.cost for k in chain))
                )
            )

    def _chunks(self, units: int, cost: float) -> int:
        """A few per thread, one in a short phase, none below ten microseconds, all of equal size if
        that can be had.
        """
        if self.threads == 1:
            wanted = min(units, 4) if cost > 1e-3 else 1  # parts that fit the cache
        else:
            each = (
                2 if cost > 1e-3 else 1
            )  # every chunk packs the weights anew: 5 % of a short step
            wanted = max(1, min(units, _MAX_CHUNKS, each * self.threads, ceil(cost / 1e-5)))
        even = [n for n in range(wanted, min(units, _MAX_CHUNKS, 2 * wanted) + 1) if units % n == 0]
        return even[0] if even else wanted

    def _tasks(self, kernels: list[Kernel]) -> None:
        """One phase of kernels that do not need each other, cut into tasks of about equal length,
        the longest first.
        """
        total = sum(k.cost for k in kernels)
        target = max(1e-5, total / (3 * self.threads)) if self.threads > 1 else total
        tasks: list[tuple[float, Kernel, int, int]] = []
        for k in kernels:
            grain = (
                48 if k.name == "product" else 1
            )  # whole tiles of a product, whichever of rows and columns are cut
            parts = max(1, min(round(k.cost / target), ceil(k.units / grain)))
            if len(kernels) == 1 and parts > 1:
                parts = ceil(parts / self.threads) * self.threads  # as many for each
            edges = _edges(k, parts, grain)
            tasks += [
                (k.cost / parts if k.sizes else k.cost * (hi - lo) / k.units, k, lo, hi)
                for lo, hi in pairwise(edges)
                if lo < hi
            ]
        tasks.sort(key=lambda task: -task[0])
        chunks = min(len(tasks), _MAX_CHUNKS, max(1, ceil(total / 2e-6)))
        self.phases.append(
            Phase(tasks=[task[1:] for task in tasks], units=len(tasks), chunks=chunks)
        )


def _edges(k: Kernel, parts: int, grain: int) -> list[int]:
    """Where to cut a kernel into parts of about equal work, at multiples of the grain."""
    if not k.sizes:
        return [min(k.units, ceil(k.units * i / parts / grain) * grain) for i in range(parts)] + [
            k.units
        ]
    before = list(accumulate(k.sizes, initial=0))
    return [bisect_left(before, before[-1] * i / parts) for i in range(parts)] + [k.units]


def _depends(k: Kernel, other: Kernel) -> bool:
    """True if k must come after `other`."""
    return bool(k.touches & other.writes or k.writes & other.touches)


def _crosses(k: Kernel, other: Kernel) -> bool:
    """True if k, on its share, would need what `other` does on another share."""
    shared = (k.touches & other.writes) | (k.writes & other.touches)
    return bool(shared & (k.whole | other.whole))


def shared_inside_chains(
    phases: list[Phase],
    lifetimes: Mapping[int, tuple[int, int]],
    sizes: Mapping[int, int],
    moments: list[int],
) -> dict[int, int]:
    """root -> another root of the same size whose memory it may take over, within one chain.

    In a chain a thread goes through all kernels with the same share of each value. Values that live
    inside the chain only, and of which each kernel touches its share only, may therefore follow one
    another in the same memory: share lies on share.
    """
    same: dict[int, int] = {}
    for phase, moment in zip(phases, moments, strict=True):
        spans: dict[int, tuple[int, int]] = {}
        for n, k in enumerate(phase.chain):
            for r in k.own:
                spans[r] = (spans.get(r, (n, n))[0], n)
        whole = set().union(*(k.whole for k in phase.chain))
        free: dict[int, list[tuple[int, int]]] = {}  # size -> (last use, root whose memory it is)
        for r, (first, last) in sorted(spans.items(), key=lambda item: item[1]):
            if r in whole or lifetimes.get(r) != (moment, moment):
                continue
            places = free.setdefault(sizes[r], [])
            found = next((i for i, (end, _) in enumerate(places) if end < first), None)
            if found is None:
                places.append((last, r))
            else:
                same[r] = places[found][1]
                places[found] = (last, same[r])
    return same
