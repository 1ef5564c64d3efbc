"""The C back end: layout, kernels, phases, one C file, and the calls into it."""

from __future__ import annotations

import ctypes
import math
import os
import time
import weakref
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import numpy as np

from minigrad.compiler import native
from minigrad.compiler.blas import chosen_blas
from minigrad.compiler.emit import Emitter
from minigrad.compiler.kernel import Kernel
from minigrad.compiler.layout import ALIGNMENT, Layout, address_of, pack
from minigrad.compiler.program import Line, Program, Ref
from minigrad.compiler.schedule import Phase, Scheduler, shared_inside_chains
from minigrad.compiler.select import Selector, for_c
from minigrad.dtypes import Array, float32
from minigrad.errors import ConfigError, IndexRangeError, ShapeError


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _wanted_threads() -> int:
    """$MINIGRAD_THREADS, 0 where it is not set. Raises ConfigError if it is no number of threads."""
    text = os.environ.get("MINIGRAD_THREADS") or "0"
    if not text.strip().isdecimal():
        raise ConfigError(
            "MINIGRAD_THREADS",
            f"is {text!r}",
            got=text,
            wanted="a number of threads",
            hint="unset it for one thread per core",
        )
    return int(text)


_BLOCKS = 4  # of memory for gradients, at most; one that somebody holds is given away
# Floating-point operations below which one thread is faster: a second one takes 80 us to wake, in
# which the first does millions
_SMALL = 2e7
# Seconds of work per phase, as `Kernel.cost` counts them, below which threads wait for each other
# longer than they work
_SHORT = 3e-5


def _pays(phases: list[Phase]) -> bool:
    """True if several threads are faster than one."""
    kernels = [k for phase in phases for k in phase.kernels]
    return sum(k.flops for k in kernels) >= _SMALL and sum(k.cost for k in kernels) >= _SHORT * len(
        phases
    )


class CompiledReplay:
    """Runs a program as compiled phases, with what has no C called back through numpy in between.

    threads: None for one per core, or one for a program so small that waking another takes longer.
        Raises NativeError if there is no C compiler.
    """

    kind = "c"

    def __init__(
        self,
        program: Program,
        constants: Mapping[int, Array],
        bound: Mapping[int, Array],
        threads: int | None = None,
    ) -> None:
        native.find_compiler()  # before any work is done for nothing
        self.original, self.program = program, for_c(program)
        self.layout = Layout(self.program, {**constants, **bound})
        self._hold = dict(constants)
        chosen = Selector(self.program, self.layout).chosen
        given = threads or _wanted_threads()
        self._arrange(chosen, given or cores())
        if not given and not _pays(self.phases):
            self._arrange(chosen, 1)
        blas = chosen_blas()
        self.products = "tiles" if blas is None else blas.name
        emitter = Emitter(self.phases, "int64_t" if blas is None or blas.wide else "int")
        self.source, self.slots = emitter.source, emitter.slots
        started = time.perf_counter()
        self.built = native.build(self.source)
        self.build_seconds = time.perf_counter() - started
        library = self.built.library
        library.bind_blas.argtypes = [ctypes.c_void_p] * 3
        library.bind_blas(
            *(
                (None, None, None)
                if blas is None
                else (blas.sgemm, blas.set_threads, blas.get_threads)
            )
        )
        self._step = library.step
        self._step.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int]
        self._allocate()
        self.rebind(bound)

    def _arrange(self, chosen: list[Kernel | int], threads: int) -> None:
        """Phases for so many threads; `parts` is what to do in order: (first, last) phases, or the
        number of a line to call back.
        """
        self.threads = threads
        self.phases: list[Phase] = []
        self.parts: list[tuple[int, int] | int] = []
        scheduler = Scheduler(threads)

        def close() -> None:
            scheduler.flush()
            if len(scheduler.phases) > len(self.phases):
                self.parts.append((len(self.phases), len(scheduler.phases)))
                self.phases = list(scheduler.phases)

        for item in chosen:
            if isinstance(item, Kernel):
                scheduler.add(item)
            else:
                close()
                self.parts.append(item)
        close()
        self.called_back = [self.program.lines[n] for n in self.parts if isinstance(n, int)]

    # --- memory

    def _allocate(self) -> None:
        """One arena for all temporaries by their lifetimes; gradients that are handed over lie
        apart, in memory that Python objects own.
        """
        layout, values = self.layout, self.program.values
        lifetimes = self._lifetimes()
        self._direct = [i for i in self.program.kept if self._is_direct(i)]
        apart = {layout.root[i] for i in self._direct}
        mine = {
            r: span
            for r, span in lifetimes.items()
            if r >= len(values) or values[r].source == "temporary"
        }
        sizes = {r: max(layout.roots[r].nbytes, 1) for r in mine}
        same = shared_inside_chains(
            self.phases, {r: s for r, s in mine.items() if r not in apart}, sizes, self._moments()
        )
        offsets, total = pack(
            {r: s for r, s in mine.items() if r not in apart and r not in same}, sizes
        )
        offsets.update((r, offsets[other]) for r, other in same.items())
        self.arena_bytes, self.arena_offsets = total, offsets
        self._arena = np.empty(total + ALIGNMENT, np.uint8)
        base = address_of(self._arena)
        base += -base % ALIGNMENT
        self._root_address = {r: base + at for r, at in offsets.items()}
        self._offsets = {i: layout.offset(i) for i in layout.stand_in}
        self.table = np.zeros(max(len(self.slots), 1), np.uint64)
        self._table_address = address_of(self.table)
        self._root_address.update((i, address_of(a)) for i, a in self._hold.items())
        self._views: dict[int, Array] = {}
        self._inputs = [v.index for v in values if v.source == "input"]
        self._moving = [
            (i, [(self.slots[j], self._offsets[j]) for j in self.slots if layout.root[j] == i])
            for i in self._inputs
        ]
        self._handed_over = [(i, i in self._direct) for i in self.program.kept]
        self._place_gradients()
        self._new_gradients()
        for i in self.slots:
            if (root := layout.root[i]) in self._root_address:
                self._point(i, self._root_address[root])
        needed = {
            i
            for n in self.parts
            if isinstance(n, int)
            for i in chain(self.program.lines[n].reads(), self.program.lines[n].made())
        }
        self._needed = needed | set(self.program.results) | set(self.program.kept)

    def _lifetimes(self) -> dict[int, tuple[int, int]]:
        """root -> the first and the last moment (phase or call back) that touches it."""
        found: dict[int, tuple[int, int]] = {}
        moment = 0
        for part in self.parts:
            if isinstance(part, int):
                line = self.program.lines[part]
                groups = [{self.layout.root[i] for i in chain(line.reads(), line.made())}]
            else:
                groups = [
                    set().union(*(k.touches for k in phase.kernels))
                    for phase in self.phases[slice(*part)]
                ]
            for group in groups:
                for r in group:
                    found[r] = (found.get(r, (moment, 0))[0], moment)
                moment += 1
        for i in (*self.program.results, *self.program.kept):
            r = self.layout.root[i]
            found[r] = (found.get(r, (0, 0))[0], moment)
        return found

    def _moments(self) -> list[int]:
        """The moment of each phase, as `_lifetimes` counts them."""
        moments: list[int] = []
        moment = 0
        for part in self.parts:
            count = 1 if isinstance(part, int) else part[1] - part[0]
            if not isinstance(part, int):
                moments += range(moment, moment + count)
            moment += count
        return moments

    def _is_direct(self, i: int) -> bool:
        """True if a handed-over gradient is all of its root, which nothing else that is handed over
        shares.
        """
        root, layout = self.layout.root[i], self.layout
        others = [j for j in (*self.program.results, *self.program.kept) if layout.root[j] == root]
        whole = layout.contiguous(i) and layout.stand_in[i].nbytes == layout.roots[root].nbytes
        return whole and len(others) == 1 and self.program.values[root].source == "temporary"

    def _place_gradients(self) -> None:
        """Where each gradient that is handed over stands in memory of their own, and which slots
        point there.
        """
        values, at = self.program.values, 0
        self._parts: list[tuple[Any, slice]] = []  # shape, None if it has one axis, and elements
        self._not_float32: list[tuple[int, Any, Any, int]] = []
        self._all_direct = all(is_direct for _, is_direct in self._handed_over)
        places: dict[int, int] = {}
        for i in self._direct:
            shape, size = values[i].shape, values[i].size
            if values[i].dtype != float32:
                self._not_float32.append((len(self._parts), shape, values[i].dtype, at))
                shape, size = (0,), 0
            part = slice(at // 4, at // 4 + size)
            self._parts.append((None if len(shape) == 1 else shape, part))
            places[self.layout.root[i]] = at
            at += -(-values[i].size * values[i].dtype.itemsize // ALIGNMENT) * ALIGNMENT
        self._gradient_bytes, self._gradients = max(at, ALIGNMENT), list[Array]()
        mine = [i for i in self.slots if self.layout.root[i] in places]
        self._gradient_slots = np.array([self.slots[i] for i in mine], np.intp)
        self._gradient_offsets = np.array(
            [places[self.layout.root[i]] + self._offsets[i] for i in mine], np.uint64
        )
        self._gradient_roots = list(places.items())
        # Blocks with a reference to the array that stands for each: numpy keeps that array as the
        # base of every view of it, so it is gone when the last gradient and view are
        self._blocks: list[tuple[memoryview, Callable[[], Array | None]]] = []
        self._current = -1

    def _new_gradients(self) -> None:
        """Arrays for this call's gradients, in a block that nobody holds a part of."""
        n = next((n for n, (_, array) in enumerate(self._blocks) if array() is None), -1)
        if n < 0:
            memory = np.empty(self._gradient_bytes + ALIGNMENT, np.uint8)
            at = -address_of(memory) % ALIGNMENT
            block = memoryview(memory[at : at + self._gradient_bytes])  # type: ignore[arg-type]
            n = len(self._blocks) % _BLOCKS
            self._blocks[n : n + 1] = [(block, _gone)]
            self._current = -1
        block = self._blocks[n][0]
        whole = np.frombuffer(block, np.float32)
        self._blocks[n] = block, weakref.ref(whole)
        self._gradients = [
            whole[part] if shape is None else whole[part].reshape(shape)
            for shape, part in self._parts
        ]
        for i, shape, dtype, at in self._not_float32:
            self._gradients[i] = np.ndarray(shape, dtype, whole, at)
        if n != self._current:
            self._current, base = n, address_of(whole)
            self.table[self._gradient_slots] = self._gradient_offsets + np.uint64(base)
            for root, at in self._gradient_roots:
                self._root_address[root] = base + at
            self._views.clear()

    def _point(self, i: int, root_address: int) -> None:
        self.table[self.slots[i]] = root_address + self._offsets[i]

    def rebind(self, bound: Mapping[int, Array]) -> None:
        """Take over other arrays for states: after a parameter got another array."""
        self._views.clear()
        for i in self.slots:
            root = self.layout.root[i]
            if root in bound and root not in self._inputs:
                if bound[root].strides != self.layout.roots[root].strides:
                    raise native.NativeError("a state changed its strides")
                self._point(i, address_of(bound[root]))
        self._bound = bound

    def _view(self, i: int) -> Array:
        """The numpy array of a value, for what goes through numpy."""
        view = self._views.get(i)
        if view is None:
            root, stand_in = self.layout.root[i], self.layout.stand_in[i]
            if root in self._bound or root in self._hold:
                base = self._bound[root] if root in self._bound else self._hold[root]
                view = base if i == root else _at(address_of(base) + self._offsets[i], stand_in)
            else:
                view = _at(self._root_address[root] + self._offsets[i], stand_in)
            if root not in self._inputs:
                self._views[i] = view
        return view

    # --- running

    def run(self, bound: Mapping[int, Array]) -> list[Array]:
        """Run the step; copies of the results, then the gradients, in the memory of an earlier
        call's if nobody holds any of those.

        Raises IndexRangeError if an index was out of its range.
        """
        if self._direct:
            self._new_gradients()
        gathered: dict[int, Array] = {}
        table = self.table
        for i, places in self._moving:
            a = bound[i]
            if not a.flags.c_contiguous:
                a = gathered[i] = np.ascontiguousarray(a)
            address = address_of(a)
            for slot, offset in places:
                table[slot] = address + offset
        self._bound = {**bound, **gathered} if gathered else bound
        for part in self.parts:
            if isinstance(part, int):
                self._call_back(part)
            elif self._step(self._table_address, part[0], part[1], self.threads):
                self._say_what_was_refused()
        results = [self._view(i).copy() for i in self.program.results]
        gradients, self._gradients = iter(self._gradients), []  # the caller's alone from here on
        if self._all_direct:
            return [*results, *gradients]
        return results + [
            next(gradients) if is_direct else self._view(i).copy()
            for i, is_direct in self._handed_over
        ]

    def _forward(self, line: Line) -> Any:
        operands = [self._view(x.index) if isinstance(x, Ref) else x for x in line.operands]
        with np.errstate(all="ignore"):
            return line.op.forward(*operands, **line.params)

    def _say_what_was_refused(self) -> None:
        """Raise what the op says in eager code. Nothing that outlives the call has been changed
        from the refusal on; what was before it stays.
        """
        kernels = [k for phase in self.phases for k in phase.kernels if k.may_refuse]
        numbers = sorted({n for k in kernels for n in k.lines})
        refusing = [self.program.lines[n] for n in numbers]
        for line in sorted(refusing, key=lambda line: line.op.kind == "effect"):
            try:
                self._forward(line)
            except IndexError as error:  # numpy's own, too
                raise (
                    error
                    if isinstance(error, IndexRangeError)
                    else IndexRangeError(line.op.name, str(error))
                ) from None
        raise IndexRangeError("jit", "an index that the step works out is out of its range")

    def _call_back(self, number: int) -> None:
        line = self.program.lines[number]
        out = self._forward(line)
        for i, y in zip(line.outputs, (out,) if line.op.outputs == 1 else out, strict=True):
            if i is not None:
                target = self._view(i)
                if np.shape(y) != target.shape:
                    raise ShapeError(
                        "jit",
                        f"{line.op.name} gives {np.shape(y)}, {target.shape} when it was recorded",
                        got=np.shape(y),
                        wanted=target.shape,
                        hint="its shape depends on values: call it outside the step "
                        f"({line.where})",
                    )
                if target is not y:
                    np.copyto(target, y)

    # --- to look at

    def measure(self, times: int = 7) -> list[float]:
        """Return the seconds of each phase, the least of several runs on what the last call left.
        Results, gradients and states are put back.
        """
        states = [
            (a, a.copy())
            for i, a in self._bound.items()
            if self.program.values[i].source != "input"
        ]
        self._new_gradients()
        found = [math.inf] * len(self.phases)
        for _ in range(times):
            for part in self.parts:
                for n in range(*part) if not isinstance(part, int) else ():
                    started = time.perf_counter()
                    self._step(self._table_address, n, n + 1, self.threads)
                    found[n] = min(found[n], time.perf_counter() - started)
                if isinstance(part, int):
                    self._call_back(part)
        for a, before in states:
            a[...] = before
        self._gradients = []
        return found

    def explain(self, measured: list[float] | None = None) -> str:
        """Phases and kernels, what was fused, what goes through numpy, bytes and operations.

        measured: the seconds of each phase, which are shown, too.
        """
        from_cache = (
            "from the cache" if self.built.from_cache else f"compiled in {self.build_seconds:.2f} s"
        )
        total = sum(k.cost for phase in self.phases for k in phase.kernels) or 1.0
        rows = [
            f"{len(self.phases)} phases, {sum(len(p.kernels) for p in self.phases)} kernels, {self.threads} threads, arena "
            f"{self.arena_bytes / 1e6:.1f} MB, products by {self.products}, {from_cache}"
        ]
        if self.built.note:
            rows.append(self.built.note)
        for n, phase in enumerate(self.phases):
            rows.append(
                f"phase {n}: {'a chain' if phase.chain else 'tasks side by side'}, {phase.chunks} "
                f"chunks{f', {1e6 * measured[n]:.1f} us' if measured else ''}"
            )
            for k in phase.kernels:
                fused = f" with {', '.join(k.fused)}" if k.fused else ""
                rows.append(
                    f"    {k.name + fused:<40} {k.flops / 1e6:9.2f} MFLOP {k.bytes / 1e6:8.2f} MB "
                    f"{100 * k.cost / total:5.1f} %   {k.where}"
                )
        for line in self.called_back:
            rows.append(f"through numpy: {line.op.name}   {line.where}")
        return "\n".join(rows)


def _gone() -> None:
    """A reference to nothing."""


def _at(address: int, like: Array) -> Array:
    """An array at an address, with the shape and strides of another."""
    if like.size == 0:
        return np.empty(like.shape, like.dtype)
    span = (
        sum((n - 1) * s for n, s in zip(like.shape, like.strides, strict=True) if s > 0)
        + like.itemsize
    )
    low = sum((n - 1) * s for n, s in zip(like.shape, like.strides, strict=True) if s < 0)
    memory = (ctypes.c_uint8 * (span - low)).from_address(address + low)
    return np.ndarray(like.shape, like.dtype, memory, -low, like.strides)
