"""A model as text: its modules as a tree, with shapes, parameters, FLOPs and bytes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from minigrad import dtypes
from minigrad.columns import columns
from minigrad.nn import Module, MultiHeadAttention, Parameter
from minigrad.nn.quantised import Blocks, blocks_of
from minigrad.tensor import Tensor
from minigrad.viz.flops import Measured, measure, own_flops, shape_of

_WIDEST = 44  # characters of a module's class and arguments


@dataclass
class Part:
    """A module in the tree. Its numbers include everything below it; what is shared counts where it
    comes first.

    flops: per position, or of the measured call; exact is False if some of them are unknown.
    times: the number of equal neighbours that it stands for.
    """

    name: str
    title: str
    shapes: str = ""
    parameters: int = 0
    bytes: int = 0
    flops: int = 0
    exact: bool = True
    times: int = 1
    parts: list[Part] = field(default_factory=list)

    def add(self, child: Part) -> None:
        """Append a child and add its numbers."""
        self.parts.append(child)
        self.parameters += child.parameters
        self.bytes += child.bytes
        self.flops += child.flops
        self.exact &= child.exact

    def folded(self) -> Part:
        """Return the part with neighbours that differ in their names alone as one."""
        folded: list[Part] = []
        for _, same in itertools.groupby(self.parts, lambda part: replace(part, name="")):
            group = list(same)
            only = group[0].folded()
            if len(group) > 1 and only.name:
                name = f"{group[0].name} to {group[-1].name}"
                folded.append(replace(only, name=name, times=len(group)))
            else:
                folded += [part.folded() for part in group]
        return replace(self, parts=folded)

    def rows(self, before: str = "", branch: str = "") -> Iterator[tuple[str, ...]]:
        """Yield the cells of the part's row and of all rows below it."""
        name = f"{self.name}  " if self.name else ""
        times = f"{self.times} × " if self.times > 1 else ""
        yield (
            before + branch + name + times + self.title,
            self.shapes,
            f"{self.parameters:,}" if self.parameters else "",
            f"{self.flops:,} + ?" if not self.exact else f"{self.flops:,}" if self.flops else "",
            size(self.bytes) if self.bytes else "",
        )
        below = before + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
        for i, child in enumerate(self.parts):
            yield from child.rows(below, "└─ " if i == len(self.parts) - 1 else "├─ ")


@dataclass
class Description:
    """What `describe` returns: print it. `text(full=True)` lists equal layers one by one; `root` is
    the tree.

    parameters, bytes: numbers in the parameters, and bytes of parameters and buffers; shared ones
        count once.
    flops: of the forward pass, per position or of the measured call; see `describe`.
    """

    root: Part
    notes: list[str]
    unit: str

    def __post_init__(self) -> None:
        root = self.root
        self.parameters, self.bytes, self.flops = root.parameters, root.bytes, root.flops

    def text(self, full: bool = False) -> str:
        """Return the tree as a table."""
        root = self.root if full else self.root.folded()
        head = ("", "shapes", "parameters", self.unit, "bytes")
        lines = columns([head, *root.rows()], left=2)
        note = "a row with × stands for equal layers; its numbers are those of one"
        return "\n".join([*lines, "", *self.notes, *[note] * (root != self.root)])

    def __repr__(self) -> str:
        return self.text()


def describe(module: Module, *inputs: Any, context: int | None = None) -> Description:
    """Return the tree of a module, with shapes, parameters, bytes, shared weights, and the FLOPs of
    the forward pass (matrix products alone, see `minigrad.viz.flops`).

        print(describe(model))                              # FLOPs per position, by formula
        print(describe(model, Tensor([[1, 2, 3]])))   # FLOPs and shapes of this call, measured

    context: number of positions that attention reads; by default the model's `config.block_size`.
        Where neither is known, its products with keys and values are left out.
    """
    measured = measure(module, inputs) if inputs else None
    if context is None:
        context = getattr(getattr(module, "config", None), "block_size", None)
    root = _Builder(measured, context).part("", "", module)
    notes = list(_notes(module, root, measured, context))
    return Description(root, notes, "FLOPs" if measured else "FLOPs/token")


class _Builder:
    """Builds the tree, and remembers which tensors and modules it has seen."""

    def __init__(self, measured: Measured | None, context: int | None) -> None:
        self.measured, self.context = measured, context
        self.seen: dict[int, str] = {}  # id -> the name under which it came first

    def part(self, name: str, path: str, module: Module) -> Part:
        """Return the part of a module whose full name is `path`, with all below it."""
        prefix = f"{path}." if path else ""
        first = self.seen.setdefault(id(module), path)
        part = Part(name, _title(module))
        blocks = ((key, w) for key, w in vars(module).items() if isinstance(w, Blocks))
        tensors = module.named_parameters(recurse=False), module.named_buffers(recurse=False)
        held = itertools.chain(tensors[0], blocks, tensors[1])
        shapes = [self._tensor(part, prefix, key, tensor) for key, tensor in held]
        own = self._count(part, module, first == path)
        if self.measured and first == path and (shape := self.measured.shapes.get(id(module))):
            shapes.append(f"-> {shape}")
        for key, child in module.named_children():
            part.add(self.part(key, prefix + key, child))
        part.parts += own
        part.shapes = ", ".join(shapes)
        if first != path:  # its contents were listed there
            part.title, part.shapes, part.parts = f"= {first}, shared", "", []
        return part

    def _count(self, part: Part, module: Module, is_first: bool) -> list[Part]:
        """Set the part's FLOPs without its children; return rows for products that it names."""
        if self.measured is not None:
            part.flops = self.measured.flops.get(id(module), 0) if is_first else 0
            return []
        flops = own_flops(module, self.context)
        part.flops, part.exact = flops or 0, flops is not None
        named: list[tuple[str, int]] = getattr(module, "own_products", list)()
        return [Part("", f"({words})", flops=flops) for words, flops in named]

    def _tensor(self, part: Part, prefix: str, key: str, tensor: Tensor | Blocks) -> str:
        """Describe a tensor, and add its numbers and bytes if it was not seen before."""
        first = self.seen.setdefault(id(tensor), prefix + key)
        if isinstance(tensor, Blocks):
            kind, nbytes = f" ({tensor.kind}, frozen)", tensor.nbytes
        elif isinstance(tensor, Parameter):
            kind, nbytes = "" if tensor.requires_grad else " (frozen)", tensor.data.nbytes
        else:
            kind, nbytes = " (buffer)", tensor.data.nbytes
        if first != prefix + key:
            return f"{key} {shape_of(tensor)} (= {first}, shared){kind}"
        part.parameters += 0 if kind == " (buffer)" else math.prod(tensor.shape)
        part.bytes += nbytes
        return f"{key} {shape_of(tensor)}{kind}"


def _title(module: Module) -> str:
    """Return the class and as much of its arguments as fits."""
    kind, arguments = type(module).__name__, " ".join(module.extra_repr().split())
    width = _WIDEST - len(kind) - 2
    arguments = arguments if len(arguments) <= width else arguments[: width - 1] + "…"
    return f"{kind}({arguments})" if arguments else kind


def size(nbytes: int) -> str:
    """Format bytes: 512 B, 33.3 kB, 3.24 MB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if nbytes >= unit:
            return f"{nbytes / unit:.3g} {name}"
    return f"{nbytes} B"


def _notes(
    module: Module, root: Part, measured: Measured | None, context: int | None
) -> Iterator[str]:
    stored = {kind for *_, weight in blocks_of(module) for kind in weight.kind.split("+")}
    kinds = " and ".join(sorted(stored | {dtypes.name(p.dtype) for p in module.parameters()}))
    frozen = sum(int(p.data.size) for p in module.parameters() if not p.requires_grad)
    trained = f", {root.parameters - frozen:,} of them trained" if frozen else ""
    dtype = f" of {kinds}" if kinds else ""
    yield f"{root.parameters:,} parameters{trained}, {size(root.bytes)}{dtype}"
    where = "per token, forward" + ("" if context is None else f", at a context of {context}")
    where = "in this call" if measured else where
    yield f"{root.flops:,} FLOPs {where}: matrix products, 2 per multiply-add"
    attends = any(isinstance(m, MultiHeadAttention) for m in module.modules())
    if attends and not measured and context is None:
        yield "without attention's products with keys and values: give describe(..., context=)"
    if not root.exact:
        yield (
            "?: multiplies with a matrix of its own in an unknown way; "
            "describe(module, inputs) measures it"
        )
