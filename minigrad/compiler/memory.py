"""Where a compiled step keeps its numbers: temporaries in one arena, by their lifetimes, and the
gradients that it hands over in blocks that Python objects own.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from minigrad.compiler.layout import ALIGNMENT, Layout, address_of, pack
from minigrad.compiler.program import Line
from minigrad.compiler.schedule import Phase
from minigrad.dtypes import Array

_BLOCKS = 4  # of memory for gradients, at most; one that is held is given away


def aligned(nbytes: int) -> Array:
    """Memory of a number of bytes, which begins at a multiple of ALIGNMENT."""
    memory = np.empty(nbytes + ALIGNMENT, np.uint8)
    at = -address_of(memory) % ALIGNMENT
    return memory[at : at + nbytes]


class Arenas:
    """Memory for the temporaries of programs of which one runs at a time: they share the newest
    arena if it is large enough for them.
    """

    def __init__(self) -> None:
        self._newest: weakref.ref[Array] | None = None

    def take(self, nbytes: int) -> Array:
        """That many bytes. What was in them is lost when another program runs."""
        newest = self._newest() if self._newest is not None else None
        if newest is None or len(newest) < nbytes:
            # Pages that nothing touches take no memory: a similar program may need a little more
            newest = aligned(nbytes + nbytes // 4)
            self._newest = weakref.ref(newest)
        return newest


def arena(
    layout: Layout, sequence: Sequence[Phase | Line], gradients: Gradients
) -> tuple[dict[int, int], int]:
    """root -> its offset in the arena, for the temporaries that a step touches and the memory of
    kernels' own; and the arena's size.

    Temporaries that are dead before a gradient is computed are put into its memory, as far as they
    fit: they are added to `gradients.offsets`.
    """
    # Memory is needed from the first moment that touches a root to the last one
    program = layout.program
    lifetimes: dict[int, tuple[int, int]] = {}  # the first and the last moment, in the sequence
    for moment, item in enumerate(sequence):
        touched = (
            {layout.root[i] for i in chain(item.reads(), item.made())}
            if isinstance(item, Line)
            else set[int]().union(*(k.touches for k in item.kernels))
        )
        lifetimes.update((r, (lifetimes.get(r, (moment, 0))[0], moment)) for r in touched)
    # Results and gradients are read when everything has run
    for r in {layout.root[i] for i in (*program.results, *program.kept)}:
        lifetimes[r] = (lifetimes.get(r, (0, 0))[0], len(sequence))
    outside = {v.index for v in program.values if v.source != "temporary"} | {*layout.derived}
    lifetimes = {r: span for r, span in lifetimes.items() if r not in outside}
    sizes = {r: max(layout.roots[r].nbytes, 1) for r in lifetimes}
    # First within a chain, where many values have the same short life; what is left is packed
    same = _shared_inside_chains(sequence, lifetimes, sizes)
    left = {r: span for r, span in lifetimes.items() if r not in same}
    inside = pack(left, sizes, gradients.offsets, gradients.size)
    offsets = pack({r: span for r, span in left.items() if r not in inside}, sizes, {})
    total = max((at + sizes[r] for r, at in offsets.items()), default=0)
    for r, other in same.items():
        into = inside if other in inside else offsets
        into[r] = into[other]
    gradients.offsets = inside
    return offsets, total


def _shared_inside_chains(
    sequence: Sequence[Phase | Line],
    lifetimes: Mapping[int, tuple[int, int]],
    sizes: Mapping[int, int],
) -> dict[int, int]:
    """root -> another root of the same size whose memory it may take over, within one chain.

    In a chain a thread goes through all kernels with the same share of each value. Values that live
    inside the chain only, and of which each kernel touches its share only, may therefore follow one
    another in the same memory: share upon share.
    """
    same: dict[int, int] = {}
    for moment, phase in enumerate(sequence):
        kernels = [] if isinstance(phase, Line) else phase.chain
        spans: dict[int, tuple[int, int]] = {}
        for n, k in enumerate(kernels):
            spans.update((r, (spans.get(r, (n, n))[0], n)) for r in k.own)
        whole = set[int]().union(*(k.whole for k in kernels))
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


class Gradients:
    """Memory for gradients that are handed over. Those of one call share a block, and a block is
    used again once nothing refers to a part of it.

    numpy keeps the array over a block as the base of every view of it, so a weak reference to that
    array tells.   offsets: root -> its place in a block, of gradients, and of temporaries that are
    dead before these are computed.   size: of a block, in bytes.
    """

    def __init__(self, likes: Mapping[int, Array]) -> None:
        self.offsets: dict[int, int] = {}
        self.size = 0
        # Each begins at a multiple of ALIGNMENT, as vector loads like it
        for root, like in likes.items():
            self.offsets[root] = self.size
            self.size += -(-like.nbytes // ALIGNMENT) * ALIGNMENT
        self._parts = [
            (_row(a, at), a.shape, a.dtype, at)
            for a, at in zip(likes.values(), self.offsets.values(), strict=True)
        ]
        self._blocks: list[tuple[Any, int, Callable[[], Array | None]]] = []

    def take(self) -> tuple[int, list[Array]]:
        """The address of a block of which no part is held, and its arrays, in order."""
        # A new block if parts of all are held; at _BLOCKS the oldest is given away to its holders
        n = next((n for n, (_, _, holder) in enumerate(self._blocks) if holder() is None), -1)
        if n >= 0:
            block, address, _ = self._blocks[n]
        else:
            n, memory = len(self._blocks) % _BLOCKS, aligned(max(self.size, ALIGNMENT))
            block, address = memoryview(memory), address_of(memory)  # type: ignore[arg-type]
        whole = np.frombuffer(block, np.float32)
        self._blocks[n : n + 1] = [(block, address, weakref.ref(whole))]
        return address, [
            np.ndarray(shape, dtype, whole, at) if row is None else whole[row]
            for row, shape, dtype, at in self._parts
        ]


def _row(like: Array, at: int) -> slice | None:
    """The elements of a block of float32 that are a gradient with one axis: a slice is the fastest
    view; None for another.
    """
    is_row = like.ndim == 1 and like.dtype == np.float32
    return slice(at // 4, at // 4 + like.size) if is_row else None
