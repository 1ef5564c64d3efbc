"""What all lowerings share: the line that is lowered, the kernel that is built, and their register.

The C of row-wise ops lowers itself (`rows`); elementwise ops are in `elementwise`, products in
`products`, and so on, each with a file of C of the same name. A lowering raises NoC where the C has
no form for a line: such a line is called back through numpy between two compiled parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from minigrad.compiler.kernel import Argument, Kernel
from minigrad.compiler.layout import Layout, common
from minigrad.compiler.program import Line, Ref
from minigrad.dtypes import Array, DType

# 16-bit floats are moved and cast as their bits; void16 is bfloat16.
CTYPES = {f"{u}int{n}": f"{u}int{n}_t" for u in ("", "u") for n in (8, 16, 32, 64)} | {
    "float32": "float",
    "float64": "double",
    "bool": "uint8_t",
    "float16": "uint16_t",
    "void16": "uint16_t",
}
BLOCK = 32  # rows of one partial sum, as in prelude.c
FLOAT32 = np.dtype(np.float32)
T = TypeVar("T")


class NoC(Exception):
    """The C has no form for a line: its dtypes, strides or params."""


def need(fits: object) -> None:
    """Raise NoC unless it fits."""
    if not fits:
        raise NoC


def given(x: T | None) -> T:
    """x. Raises NoC if it is None."""
    if x is None:
        raise NoC
    return x


@dataclass(frozen=True)
class Call:
    """A line that is lowered. residual: a value to be added to its first output, which is then
    written to `out` instead.
    """

    layout: Layout
    line: Line
    number: int
    residual: int | None = None
    out: int | None = None

    @property
    def outputs(self) -> tuple[int | None, ...]:
        """The values that it makes, None for one that is not read."""
        return self.line.outputs if self.out is None else (self.out, *self.line.outputs[1:])

    @property
    def y(self) -> int:
        """The first of them."""
        return given(self.outputs[0])

    def operand(self, i: int) -> int:
        """Operand number i as the number of a value. Raises NoC if it is a scalar or None."""
        return value_of(self.line.operands[i])

    def operands(self) -> list[int]:
        """All of them."""
        return [value_of(x) for x in self.line.operands]

    def array(self, value: int) -> Array:
        """The stand-in of a value."""
        return self.layout.stand_in[value]


def value_of(x: Any) -> int:
    """The number of a value. Raises NoC for a scalar, or None."""
    need(isinstance(x, Ref))
    return int(x.index)


class Builder:
    """Collects the arguments and the memory of one kernel."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.arguments: list[Argument] = []
        self.atoms: list[int] = []
        self.own: set[int] = set()
        self.whole: set[int] = set()
        self.written: set[int] = set()
        self.bytes = 0.0

    def use(
        self, value: int, name: str, *, share: bool = False, write: bool = False, ctype: str = ""
    ) -> str:
        """A pointer to a value. share: units lo..hi touch the corresponding share of its leading
        axes only.
        """
        layout = self.call.layout
        a, root = layout.stand_in[value], layout.root[value]
        ctype = ctype or given(CTYPES.get(a.dtype.name))
        self.arguments.append(Argument(f"{ctype} *" if write else f"const {ctype} *", name, value))
        # -1: a share of its units is not a range of its memory, so the kernel touches all of it
        atoms = layout.atoms(value) if share else -1
        self.bytes += a.nbytes
        if atoms >= 0:
            self.own.add(root)
            self.atoms.append(atoms)
        else:
            self.whole.add(root)
        if write:
            self.written.add(root)
        return name

    def reads(self, share: bool = False, **values: int) -> None:
        """Use values that are read, under these names."""
        for name, value in values.items():
            self.use(value, name, share=share)

    def writes(self, share: bool = False, **values: int) -> None:
        """Use values that are written, under these names."""
        for name, value in values.items():
            self.use(value, name, share=share, write=True)

    def kernel(self, name: str, body: str, units: int, flops: float = 0.0, **more: Any) -> Kernel:
        """The kernel. Memory touched share by share and also as a whole counts as touched as a
        whole.
        """
        # What the scheduler needs to know: whether a thread with units lo..hi stays within its own
        # share of each value, and at which multiples of units that holds. A value may be used
        # twice, as a share and as a whole: then another thread's share is read.
        own = self.own - self.whole
        atoms = common(self.atoms, units) if own else 0
        if self.written - own:
            atoms = 0  # what is written as a whole cannot be cut
        return Kernel(
            name,
            tuple(self.arguments),
            body,
            units,
            atoms,
            frozenset(own if atoms else ()),
            frozenset(self.whole | (set() if atoms else own)),
            frozenset(self.written),
            flops,
            self.bytes,
            self.call.line.where,
            (self.call.number,),
            **more,
        )


Lowering = Callable[[Call], "list[Kernel]"]
L = TypeVar("L", bound="Callable[[Call], list[Kernel]]")
LOWERINGS: dict[str, Lowering] = {}


def lowers(name: str) -> Callable[[L], L]:
    """Register the lowering of an op."""

    def register(function: L) -> L:
        LOWERINGS[name] = function
        return function

    return register


def plain(layout: Layout, *values: int, dtype: Any = np.float32) -> bool:
    """True if all are contiguous and of the dtype."""
    return all(layout.contiguous(i) and layout.stand_in[i].dtype == dtype for i in values)


def rows_of(layout: Layout, i: int) -> tuple[int, int]:
    """(rows, width) of a value seen as a matrix of its last axis."""
    a = layout.stand_in[i]
    width = a.shape[-1] if a.ndim else 1
    return (a.size // width if width else 0), width


def literal(x: float, dtype: DType = FLOAT32) -> str:
    """The C literal of the nearest number of a float dtype, infinities and NaN included."""
    x = float(dtype.type(x))
    if math.isfinite(x):
        return f"{x!r}f" if dtype == FLOAT32 else repr(x)
    text = "NAN" if math.isnan(x) else "INFINITY" if x > 0 else "-INFINITY"
    return text if dtype == FLOAT32 else f"(double){text}"


def filled(call: Call, y: int, value: float = 0.0) -> Kernel:
    """The same number over all of a value in memory of its own; of float32 if it is not 0."""
    a, k = call.layout.roots[call.layout.root[y]], Builder(call)
    units = a.shape[0] if a.ndim and a.shape[0] else 1
    if value == 0:
        k.use(y, "y", share=True, write=True, ctype="char")
        width = a.nbytes // units
        return k.kernel("zeros", f"memset(y + lo * {width}, 0, (hi - lo) * {width});", units)
    need(a.dtype == FLOAT32)
    k.writes(share=True, y=y)
    width = a.size // units
    loop = f"for (int64_t i = lo * {width}; i < hi * {width}; i++) y[i] = {literal(value)};"
    return k.kernel("filled", loop, units)
