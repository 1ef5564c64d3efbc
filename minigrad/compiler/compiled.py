"""The C back end: layout, kernels, phases, one C file, and the calls into it."""

from __future__ import annotations

import ctypes
import math
import os
import time
from collections import Counter
from collections.abc import Mapping
from itertools import count, groupby
from typing import Any

import numpy as np

from minigrad.arguments import one_of
from minigrad.compiler import native
from minigrad.compiler.emit import Emitter
from minigrad.compiler.kernel import Kernel
from minigrad.compiler.layout import Layout, address_of
from minigrad.compiler.memory import Arenas, Gradients, arena
from minigrad.compiler.passes import for_c
from minigrad.compiler.program import Line, Program, Ref
from minigrad.compiler.schedule import Phase, pays, schedule
from minigrad.compiler.select import Selector
from minigrad.dtypes import Array
from minigrad.errors import IndexRangeError, ShapeError
from minigrad.ops.parallel import Blas, cores, find_blas, wanted_threads
from minigrad.precision import get_matmul_precision
from minigrad.tensor.core import run_op


def chosen_blas() -> Blas | None:
    """The BLAS that compiled products go through; None where they are tiles in C.
    $MINIGRAD_PRODUCTS ("tiles", "blas") decides otherwise.

    Raises NativeError without a compiler, ConfigError for another word.
    """
    wanted = os.environ.get("MINIGRAD_PRODUCTS", "")
    wanted = wanted and one_of("jit", "$MINIGRAD_PRODUCTS", wanted, ("tiles", "blas"))
    tiles = native.has_tiles() if not wanted else wanted == "tiles"
    return None if tiles else find_blas()


class CompiledReplay:
    """Runs a program as compiled phases, with what has no C called back through numpy in between.

    threads: None for one per core, or one for a program so small that waking another takes longer.
        Raises NativeError if there is no C compiler.
    repeats: it will be run with `left`, and finds out by itself whether one thread is faster.
    sequence: phases, and the lines that are called back between them.   table: the address of each
        value that the C works on, by its slot.
    """

    kind = "c"

    def __init__(
        self,
        program: Program,
        constants: Mapping[int, Array],
        states: Mapping[int, Array],
        threads: int | None = None,
        repeats: bool = False,
        arenas: Arenas | None = None,
    ) -> None:
        native.find_compiler()  # before any work is done for nothing
        self.program = for_c(program)
        self.layout = Layout(self.program, {**constants, **states})
        wanted = threads or wanted_threads("MINIGRAD_THREADS")
        # A step that is repeated tries in C whether one thread is faster
        self._schedule((wanted,) if wanted else (cores(),) if repeats else (cores(), 1))
        self._build()
        self._allocate(arenas or Arenas())
        self._views: dict[int, Array] = {}  # numpy arrays of values, for what goes through numpy
        self._constants = constants
        for i, a in constants.items():
            self._point(i, address_of(a))
        self.rebind(states)

    def _schedule(self, choices: tuple[int, ...]) -> None:
        chosen = Selector(self.program, self.layout).chosen
        # What has no C is a line, given by its number, between kernels
        items = [x if isinstance(x, Kernel) else self.program.lines[x] for x in chosen]
        # Phases are cut for a number of threads, so fewer threads are another schedule
        for self.threads in choices:
            self.sequence = schedule(items, self.threads)
            self.phases = [x for x in self.sequence if isinstance(x, Phase)]
            if pays(self.phases):
                break
        self._parts: list[tuple[int, int] | Line] = []  # what to run: phases first .. last - 1
        first = 0
        for kind, group in groupby(self.sequence, type):
            found = list(group)
            if kind is Phase:
                self._parts.append((first, first + len(found)))
                first += len(found)
            else:
                self._parts += [x for x in found if isinstance(x, Line)]

    def _build(self) -> None:
        bfloat16 = get_matmul_precision() == "bfloat16"
        blas = None if bfloat16 else chosen_blas()
        self.products = blas.name if blas else "tiles in bfloat16" if bfloat16 else "tiles"
        integers = "int64_t" if blas is None or blas.wide else "int"
        emitter = Emitter(self.phases, integers, bfloat16)
        self.source, self.slots = emitter.source, emitter.slots
        started = time.perf_counter()
        self.built = native.build(self.source)
        self.build_seconds = time.perf_counter() - started
        library = self.built.library
        library.bind_blas.argtypes = [ctypes.c_void_p] * 3
        functions = (blas.sgemm, blas.set_threads, blas.get_threads) if blas else (None,) * 3
        library.bind_blas(*functions)
        self._repeat = library.repeat
        self._repeat.argtypes = [ctypes.c_void_p, *[ctypes.c_int] * 3, ctypes.c_void_p]

    # --- memory

    def _allocate(self, arenas: Arenas) -> None:
        """One arena for all temporaries; gradients that are handed over have their own memory."""
        layout, program = self.layout, self.program
        self.table = np.zeros(max(len(self.slots), 1), np.uint64)
        self._table_address = address_of(self.table)
        # Kernels get pointers from one table by slot, so that C text does not depend on addresses.
        # Where a root's memory moves, the slots of all values in it are written again
        self._slots_of: dict[int, list[tuple[int, int]]] = {}  # root -> slots in it, and offsets
        for i, slot in self.slots.items():
            self._slots_of.setdefault(layout.root[i], []).append((slot, layout.offset(i)))
        # Results and gradients that are a part of something, or are shared, are copied out of the
        # arena; a gradient with memory of its own is computed where it stays
        direct = {i: layout.root[i] for i in program.kept if self._is_direct(i)}
        self.gradients = Gradients({root: layout.stand_in[i] for i, root in direct.items()})
        self._copied = [i not in direct for i in program.kept]
        self._gradient_address = 0
        self.arena_offsets, self.arena_bytes = arena(layout, self.sequence, self.gradients)
        self._arena, self._address = arenas.take(self.arena_bytes), dict[int, int]()
        base = address_of(self._arena) if self.arena_bytes else 0
        for root, offset in self.arena_offsets.items():
            self._point(root, base + offset)
        inputs = [v.index for v in program.values if v.source == "input"]
        self._inputs = [(i, self._slots_of.get(i, [])) for i in inputs]

    def _is_direct(self, i: int) -> bool:
        """True if a handed-over gradient is all of its root, which nothing else that is handed over
        shares.
        """
        layout, root = self.layout, self.layout.root[i]
        handed_over = [layout.root[j] for j in (*self.program.results, *self.program.kept)]
        is_whole = layout.contiguous(i) and layout.stand_in[i].nbytes == layout.roots[root].nbytes
        is_temporary = self.program.values[root].source == "temporary"
        return is_whole and handed_over.count(root) == 1 and is_temporary

    def _point(self, root: int, address: int) -> None:
        """Note where a root's memory begins."""
        self._address[root] = address
        for slot, offset in self._slots_of.get(root, ()):
            self.table[slot] = address + offset

    def rebind(self, states: Mapping[int, Array]) -> None:
        """Take over other arrays for states: after a parameter got another array."""
        self._states = dict(states)
        self._views.clear()
        for i, a in states.items():
            if a.strides != self.layout.roots[i].strides:
                raise native.NativeError("a state changed its strides")
            self._point(i, address_of(a))
        self.derived = {
            i: make(states[source] if source in states else self._constants[source])
            for i, (source, make) in self.layout.derived.items()
        }
        for i, a in self.derived.items():
            self._point(i, address_of(a))

    def _new_gradients(self) -> list[Array]:
        """Arrays for this call's gradients, in a block of which no part is held."""
        address, arrays = self.gradients.take()
        if address != self._gradient_address:
            self._gradient_address = address
            self._views.clear()
            for root, offset in self.gradients.offsets.items():
                self._point(root, address + offset)
        return arrays

    def _view(self, i: int) -> Array:
        view = self._views.get(i)
        if view is None:
            # Through the address alone, as arena, states and gradients have different owners
            root = self.layout.root[i]
            view = _at(self._address[root] + self.layout.offset(i), self.layout.stand_in[i])
            if self.program.values[root].source != "input":
                self._views[i] = view
        return view

    # --- running

    def run(self, bound: dict[int, Array], left: Array | None = None) -> list[Array]:
        """Run the step; copies of the results, then the gradients, in the memory of an earlier
        call's if none of those is held.

        bound: by value, the arrays of inputs, which are kept until the next call.
        left: a state that the step counts down; where all of the step is C, it is run until that
            is 0.
        Raises IndexRangeError if an index was out of its range.
        """
        arrays = self._new_gradients() if self.gradients.offsets else []
        # Arguments are the only addresses that move from call to call
        table, packed = self.table, list[tuple[Array, Array]]()
        for i, places in self._inputs:
            a = bound[i]
            if not a.flags.c_contiguous:
                bound[i] = np.ascontiguousarray(a)
                packed += [(a, bound[i])] if i in self.layout.changed else []
                a = bound[i]
            self._address[i] = address = address_of(a)
            for slot, offset in places:
                table[slot] = address + offset
        self._held = bound
        counter = address_of(left) if left is not None and len(self._parts) == 1 else None
        for part in self._parts:
            if isinstance(part, Line):
                self._call_back(part)
            elif refused := self._repeat(self._table_address, *part, self.threads, counter):
                self._raise_refusal(self.phases[refused - 2])
        # What the step wrote into an argument with gaps went into a copy without
        for a, copied in packed:
            a[...] = copied
        results = [self._view(i).copy() for i in self.program.results]
        if len(arrays) == len(self._copied):
            return results + arrays
        fresh = iter(arrays)
        for i, is_copied in zip(self.program.kept, self._copied, strict=True):
            results.append(self._view(i).copy() if is_copied else next(fresh))
        return results

    def _forward(self, line: Line) -> Any:
        operands = [self._view(x.index) if isinstance(x, Ref) else x for x in line.operands]
        return run_op(line.op, operands, line.params)

    def _call_back(self, line: Line) -> None:
        out = self._forward(line)
        for i, y in zip(line.outputs, (out,) if line.op.outputs == 1 else out, strict=True):
            if i is None:
                continue
            target = self._view(i)
            got, wanted = np.shape(y), target.shape
            if got != wanted:
                problem = f"{line.op.name} gives {got}, {wanted} when it was recorded"
                hint = f"its shape depends on values: call it outside the step ({line.where})"
                raise ShapeError("jit", problem, got=got, wanted=wanted, hint=hint)
            if target is not y:
                np.copyto(target, y)

    def _raise_refusal(self, phase: Phase) -> None:
        """Raise what the op in this phase says in eager code. Nothing that outlives the call has
        been changed from the refusal on; what was before it stays.
        """
        kernels = [k for k in phase.kernels if k.may_refuse]
        lines = [self.program.lines[n] for n in sorted({n for k in kernels for n in k.lines})]
        # The C says only that something was refused. Pure lines first: they can be run again on
        # what they read, and the first that raises is the one
        for line in sorted(lines, key=lambda line: line.op.kind == "effect"):
            self._forward(line)
        raise IndexRangeError("jit", "an index that the step works out is out of its range")

    # --- to look at

    def measure(self, times: int = 7) -> list[float]:
        """Return the seconds of each phase and each line that is called back, the least of several
        runs on what the last call left. Arguments, gradients and states are put back.
        """
        held = [*self._states.values(), *self._held.values()]
        before = [a.copy() for a in held]
        gradients = self._new_gradients()
        found = [math.inf] * len(self.sequence)
        for _ in range(times):
            phases = count()
            for n, item in enumerate(self.sequence):
                started = time.perf_counter()
                if isinstance(item, Line):
                    self._call_back(item)
                else:
                    phase = next(phases)
                    self._repeat(self._table_address, phase, phase + 1, self.threads, None)
                found[n] = min(found[n], time.perf_counter() - started)
        del gradients  # held until here, as the phases write there
        for a, old in zip(held, before, strict=True):
            if a.flags.writeable:
                a[...] = old
        return found

    def explain(self, measured: list[float] | None = None) -> str:
        """Phases and kernels, what was fused, what goes through numpy, bytes and operations.

        measured: the seconds of each phase and each line that is called back, to be shown, too.
        """
        kernels = [k for phase in self.phases for k in phase.kernels]
        total = sum(k.cost for k in kernels) or 1.0
        how = f"compiled in {self.build_seconds:.2f} s"
        how = "from the cache" if self.built.from_cache else how
        rows = [
            f"{len(self.phases)} phases, {len(kernels)} kernels, {self.threads} threads, arena "
            f"{self.arena_bytes / 1e6:.1f} MB, products by {self.products}, {how}",
            "% is the estimated share of the time",
        ]
        if measured:
            rows[1] += f"; measured: {1e6 * sum(measured):.1f} us, phase by phase"
        rows += [self.built.note] if self.built.note else []
        phases = count()
        for n, item in enumerate(self.sequence):
            took = f": {1e6 * measured[n]:.1f} us measured" if measured else ""
            if isinstance(item, Line):
                rows.append(f"through numpy: {item.op.name}{took}   {item.where}")
                continue
            kind = "a chain" if item.chain else "tasks side by side"
            share = 100 * sum(k.cost for k in item.kernels) / total
            rows.append(f"phase {next(phases)}, {kind}, {item.chunks} chunks, {share:.1f} %{took}")
            # Kernels that are alike, as those of the layers, share a row
            texts = (
                f"{f'{k.name} with ' + ', '.join(k.fused) if k.fused else k.name:<40} "
                f"{k.flops / 1e6:9.2f} MFLOP {k.bytes / 1e6:8.2f} MB "
                f"{100 * k.cost / total:5.1f} %   {k.where}"
                for k in item.kernels
            )
            rows += [f"{number:5} x {text}" for text, number in Counter(texts).items()]
        return "\n".join(rows)


def _at(address: int, like: Array) -> Array:
    """An array at an address, with the shape and strides of another."""
    if like.size == 0:
        return np.empty(like.shape, like.dtype)
    # Negative strides reach below the first element
    steps = [(n - 1) * s for n, s in zip(like.shape, like.strides, strict=True)]
    low = sum(s for s in steps if s < 0)
    span = sum(s for s in steps if s > 0) + like.itemsize
    memory = (ctypes.c_uint8 * (span - low)).from_address(address + low)
    return np.ndarray(like.shape, like.dtype, memory, -low, like.strides)
