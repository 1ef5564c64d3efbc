"""Where values are: which share memory, with what strides, and how temporaries share one arena.

Views are resolved by running their ops on stand-ins, numpy arrays whose pages are never touched:
numpy itself says what is a view and with what strides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ctypes import addressof, c_char
from math import gcd, inf, prod
from mmap import mmap
from typing import Any

import numpy as np

from minigrad.compiler.program import Line, Program, Ref, roots
from minigrad.compiler.signatures import has_flag
from minigrad.dtypes import Array

ALIGNMENT = 64
_PAGES = 1 << 26


class Layout:
    """Stand-ins for all values of a program, and whose memory (`root`) each is in.

    changed: the values whose memory the lines change, themselves or by a view.   copies: numbers of
        the lines that are views for numpy when it can, but here must copy.   placed: lines that
        have nothing left to do.   derived: value -> what it is made of, and how.
    """

    def __init__(self, program: Program, bound: Mapping[int, Array]) -> None:
        self.program = program
        _, self.changed = roots(program.lines, len(program.values))
        self.stand_in: dict[int, Array] = {}
        self.root: dict[int, int] = {}
        self.roots: dict[int, Array] = {}  # root -> the stand-in of all its memory
        self.copies: set[int] = set()
        self.placed: set[int] = set()
        self.derived: dict[int, tuple[int, Callable[[Array], Array]]] = {}
        self._extra = len(program.values)
        self._pages, self._at = mmap(-1, _PAGES), 0
        for v in program.values:
            if v.source == "input":
                self._allocate(v.index, v.shape, v.dtype)
            elif v.source != "temporary":
                self.stand_in[v.index] = self.roots[v.index] = bound[v.index]
                self.root[v.index] = v.index
        self._find_places()
        for number, line in enumerate(program.lines):
            self._resolve(number, line)

    def _allocate(self, index: int, shape: tuple[int, ...], dtype: Any) -> Array:
        """A stand-in in pages that are never touched, and so take no memory; numpy's would be used
        ones.
        """
        count = prod(shape) * np.dtype(dtype).itemsize
        if self._at + count > len(self._pages):
            self._pages, self._at = mmap(-1, max(count, _PAGES)), 0
        made: Array = np.ndarray(shape, dtype, self._pages, self._at)
        self._at += -(-count // ALIGNMENT) * ALIGNMENT
        self.stand_in[index], self.roots[index], self.root[index] = made, made, index
        return made

    def scratch(self, shape: tuple[int, ...], dtype: Any = np.float32) -> int:
        """Memory that a kernel wants for itself, as a value that the program does not have."""
        index, self._extra = self._extra, self._extra + 1
        self._allocate(index, shape, dtype)
        return index

    def is_given(self, value: int) -> bool:
        """True for a state or a constant, which is there before the program runs."""
        values = self.program.values
        return value < len(values) and values[value].source in ("state", "constant")

    def derive(self, value: int, make: Callable[[Array], Array]) -> int:
        """Memory with what `make` gives for a state or a constant, before the program runs."""
        index, self._extra = self._extra, self._extra + 1
        made = make(self.stand_in[value])
        self.stand_in[index], self.roots[index], self.root[index] = made, made, index
        self.derived[index] = value, make
        return index

    def name_view(self, view: Array, value: int) -> int:
        """A number for a view of a value's memory that the program does not have."""
        index, self._extra = self._extra, self._extra + 1
        self.stand_in[index], self.root[index] = view, self.root[value]
        return index

    def _find_places(self) -> None:
        """Compute operands in their places at once where an op only puts them together, and C can
        write them there.
        """
        makers = {i: line.op for line in self.program.lines for i in line.made()}
        for number, line in enumerate(self.program.lines):
            touched = (*line.reads(), *line.made())
            if line.op.parts is None or line.op.kind == "view" or self.changed & {*touched}:
                continue
            values = [self.program.values[x.index] for x in line.operands if isinstance(x, Ref)]
            # Only a temporary that no earlier join has placed, and whose C can leave gaps between
            # rows, may be written into the middle of another value
            free = [
                v.index not in self.stand_in
                and v.index in makers
                and has_flag(makers[v.index], "any strides")
                for v in values
            ]
            if not all(free) or len({v.index for v in values}) != len(line.operands):
                continue
            out = self.program.values[line.made()[0]]
            y = self._allocate(out.index, out.shape, out.dtype)
            # The op itself says where its operands go: it is asked with operands of their shapes
            like = [np.broadcast_to(y.dtype.type(0), v.shape) for v in values]
            places = line.op.parts(y, *like, **line.params)
            # Not where only a part of an operand is copied, or where something is put around it.
            all_of_it = all(p.shape == v.shape for v, (p, _) in zip(values, places, strict=True))
            if all_of_it and sum(place.size for place, _ in places) == y.size:
                for v, (place, _) in zip(values, places, strict=True):
                    self.stand_in[v.index], self.root[v.index] = place, out.index
                self.placed.add(number)

    def _resolve(self, number: int, line: Line) -> None:
        if line.op.kind == "view":
            operands = [self.stand_in[x.index] if isinstance(x, Ref) else x for x in line.operands]
            out = line.op.forward(*operands, **line.params)
            source = self.root[next(line.reads())]
            # numpy decides: where it gives a view, the values share memory; where it had to copy,
            # as for a reshape of what is transposed, so does the C
            views = (out,) if line.op.outputs == 1 else out
            if all(np.may_share_memory(v, self.roots[source]) for v in views):
                for i, v in zip(line.outputs, views, strict=True):
                    if i is not None:
                        self.stand_in[i], self.root[i] = v, source
                return
            self.copies.add(number)
        for value in (self.program.values[i] for i in line.made() if i not in self.stand_in):
            self._allocate(value.index, value.shape, value.dtype)

    # --- questions

    def strides(self, i: int) -> tuple[int, ...]:
        """Strides in elements; 0 along axes of size 1, which are never walked."""
        a = self.stand_in[i]
        pairs = zip(a.shape, a.strides, strict=True)
        return tuple(0 if n == 1 else s // a.itemsize for n, s in pairs)

    def offset(self, i: int) -> int:
        """Bytes from the beginning of the root's memory to the first element."""
        return address_of(self.stand_in[i]) - address_of(self.roots[self.root[i]])

    def contiguous(self, i: int) -> bool:
        """True if the elements are in row-major order without gaps."""
        return bool(self.stand_in[i].flags.c_contiguous)

    def atoms(self, i: int) -> int:
        """Into how many equal pieces of its root's memory the value's leading axes cut it, piece by
        piece in order; 0: any; -1: into none.

        A kernel that works on units lo..hi of a value touches only that share of the memory if the
        cut is at a multiple of an atom.
        """
        a, whole = self.stand_in[i], self.roots[self.root[i]]
        if a.flags.c_contiguous and a.size == whole.size:
            return 0
        # Axes of a strided value are cut where the leading one is: its steps must cover the root
        # one after the other, and all that a step holds must come before the next one
        if a.ndim == 0 or not whole.flags.c_contiguous or min(a.strides, default=0) < 0:
            return -1
        n, step, rest = a.shape[0], a.strides[0], 1
        # Leading axes that follow one another without a gap are one axis
        while rest < a.ndim and step == a.shape[rest] * a.strides[rest]:
            n, step, rest = n * a.shape[rest], a.strides[rest], rest + 1
        pairs = zip(a.shape[rest:], a.strides[rest:], strict=True)
        inside = self.offset(i) + sum((d - 1) * s for d, s in pairs) + a.itemsize
        return n if n * step == whole.nbytes and inside <= step else -1


def common(atoms: list[int], units: int) -> int:
    """The finest cut that suits all: the greatest common divisor, where 0 suits everything; 0 if
    some value cannot be cut.
    """
    found = units
    for n in atoms:
        if n < 0:
            return 0
        found = gcd(found, n) if n else found
    return found


def address_of(a: Array) -> int:
    """The address of the first element."""
    try:
        return addressof(c_char.from_buffer(a.data))  # a third of the time
    except (TypeError, ValueError, BufferError):  # it is read-only, empty, or has gaps
        return int(a.__array_interface__["data"][0])


def pack(
    lifetimes: Mapping[int, tuple[int, int]],
    sizes: Mapping[int, int],
    placed: Mapping[int, int],
    room: float = inf,
) -> dict[int, int]:
    """Offsets in one block of memory such that values alive at the same time do not overlap, the
    largest placed first after those that are `placed` already; of all that fit into `room` bytes.
    """
    offsets = dict(placed)
    for i in sorted((i for i in lifetimes if i not in placed), key=lambda i: -sizes[i]):
        first, last = lifetimes[i]
        busy = sorted(
            (offsets[j], offsets[j] + sizes[j])
            for j in offsets
            if lifetimes[j][0] <= last and lifetimes[j][1] >= first
        )
        # The lowest gap among those that are alive at the same time
        at = 0
        for start, stop in busy:
            if at + sizes[i] <= start:
                break
            at = max(at, -(-stop // ALIGNMENT) * ALIGNMENT)
        if at + sizes[i] <= room:
            offsets[i] = at
    return offsets
