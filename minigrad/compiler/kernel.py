"""A kernel: one C function over units lo..hi, with what a scheduler must know about it."""

from __future__ import annotations

from dataclasses import dataclass, field

from minigrad.compiler.signatures import may_refuse


@dataclass(frozen=True)
class Argument:
    """A pointer argument of a kernel: its C type, its name in the body, the value it points to."""

    ctype: str
    name: str
    value: int


@dataclass
class Kernel:
    """body: C statements over `int64_t lo, hi` and `int thread`.   units: what lo..hi counts.

    atoms: cuts at multiples of units / atoms give parts that touch only their own share of the
        `own` memory; 0: it cannot be cut that way.
    own, whole: roots touched share by share, and roots touched anywhere.   writes: those of them
        that are written.   flops, bytes: estimates.
    """

    name: str
    arguments: tuple[Argument, ...]
    body: str
    units: int
    atoms: int
    own: frozenset[int]
    whole: frozenset[int]
    writes: frozenset[int]
    flops: float = 0.0
    bytes: float = 0.0
    where: str = ""
    lines: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()  # how much work each unit is, where they differ
    helper: str = ""  # C text outside the function, such as a table
    solo: bool = False  # changes memory that outlives the call: is not moved
    fused: list[str] = field(default_factory=list)

    @property
    def touches(self) -> frozenset[int]:
        """All roots that it reads or writes."""
        return self.own | self.whole

    @property
    def may_refuse(self) -> bool:
        """True if its C may set `status`, as for an index that is out of its range."""
        return may_refuse(self.body)

    @property
    def cost(self) -> float:
        """Seconds on one thread, roughly."""
        return self.flops / 4e10 + self.bytes / 1e10 + 1e-7
