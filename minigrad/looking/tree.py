"""A model as text: its modules as a tree, with shapes, parameters, FLOPs and bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from minigrad import dtypes
from minigrad.looking.flops import Measured, measure, own_flops
from minigrad.nn import Module, MultiHeadAttention
from minigrad.tensor import Tensor

_WIDEST = 44  # characters of a module's name and arguments


@dataclass
class Part:
    """A module in the tree. Numbers are those of itself and all below it; what is shared counts
    where it comes first.

    flops: per position, or of the measured call; exact is False where a part of it is not known.
        times: equal neighbours that it stands for.
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

    def likeness(self) -> tuple[Any, ...]:
        """Equal for two parts that look alike but for their names."""
        return (
            self.title,
            self.shapes,
            self.parameters,
            self.bytes,
            self.flops,
            self.exact,
            [(p.name, p.likeness()) for p in self.parts],
        )


@dataclass
class Description:
    """What `describe` gives: print it. `text(full=True)` writes out equal layers one by one. `root`
    is the tree.
    """

    root: Part
    notes: list[str]
    unit: str

    @property
    def parameters(self) -> int:
        """Numbers in the parameters, shared ones counted once."""
        return self.root.parameters

    @property
    def bytes(self) -> int:
        """Of parameters and buffers, shared ones counted once."""
        return self.root.bytes

    @property
    def flops(self) -> int:
        """Of the forward pass, per position or of the measured call; see `describe`."""
        return self.root.flops

    def text(self, full: bool = False) -> str:
        """The tree as a table."""
        root = self.root if full else _folded(self.root)
        rows = [("", "shapes", "parameters", self.unit, "bytes"), *_rows(root)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(w) if i < 2 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        folded = (
            ["a row with × stands for equal layers; its numbers are those of one"]
            if root != self.root
            else []
        )
        return "\n".join([*lines, "", *self.notes, *folded])

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()


def describe(module: Module, *inputs: Any, context: int | None = None) -> Description:
    """The tree of a module, with shapes, parameters, FLOPs of the forward pass, bytes, and marks
    where weights are shared.

        print(describe(model))                              # FLOPs per position, by formula:
        nothing is computed
        print(describe(model, Tensor([[1, 2, 3]])))         # FLOPs and shapes of this call,
        measured: any module

    FLOPs are those of the matrix products, see `minigrad.looking.flops`. context: how many
    positions attention looks at; the model's `config.block_size` unless given, and its products
    with keys and values are left out where neither is known.
    """
    heard = measure(module, inputs) if inputs else None
    if context is None:
        context = getattr(getattr(module, "config", None), "block_size", None)
    root = _Builder(heard, context).part("", "", module)
    unit = "FLOPs" if heard else "FLOPs/token"
    return Description(root, list(_notes(module, root, heard, context)), unit)


class _Builder:
    """Makes the tree, and remembers which tensors and modules it has seen."""

    def __init__(self, heard: Measured | None, context: int | None) -> None:
        self.heard, self.context = heard, context
        self.seen: dict[int, str] = {}  # id -> the name under which it came first

    def part(self, name: str, path: str, module: Module) -> Part:
        """The part of a module whose full name is `path`, with all below it."""
        first = self.seen.setdefault(id(module), path)
        part = Part(name, _titled(module))
        shapes = [
            self._parameter(part, path, key, p) for key, p in module.named_parameters(recurse=False)
        ]
        shapes += [
            self._buffer(part, path, key, b) for key, b in module.named_buffers(recurse=False)
        ]
        own: list[Part] = []
        if self.heard is None:
            flops = own_flops(module, self.context)
            part.flops, part.exact = flops or 0, flops is not None
            own = [
                Part("", f"({words})", flops=flops)
                for words, flops in getattr(module, "own_products", list)()
            ]
        elif first == path:
            part.flops = self.heard.flops.get(id(module), 0)
            shapes += (
                [f"-> {self.heard.shapes[id(module)]}"] if self.heard.shapes.get(id(module)) else []
            )
        for key, child in module.named_children():
            self._add(part, self.part(key, f"{path}.{key}" if path else key, child))
        part.parts += own
        part.shapes = ", ".join(shapes)
        if first != path:  # what is in it stands there already
            part.title, part.shapes, part.parts = f"= {first}, shared", "", []
        return part

    def _add(self, part: Part, child: Part) -> None:
        part.parts.append(child)
        part.parameters += child.parameters
        part.bytes += child.bytes
        part.flops += child.flops
        part.exact &= child.exact

    def _parameter(self, part: Part, path: str, key: str, parameter: Tensor) -> str:
        size, nbytes, words = self._tensor(path, key, parameter)
        part.parameters += size
        part.bytes += nbytes
        return words + ("" if parameter.requires_grad else " (frozen)")

    def _buffer(self, part: Part, path: str, key: str, buffer: Tensor) -> str:
        _, nbytes, words = self._tensor(path, key, buffer)
        part.bytes += nbytes
        return f"{words} (buffer)"

    def _tensor(self, path: str, key: str, tensor: Tensor) -> tuple[int, int, str]:
        """How many numbers and bytes a tensor adds to what was seen, and what to say of it."""
        name = f"{path}.{key}" if path else key
        first = self.seen.setdefault(id(tensor), name)
        words = f"{key} {'×'.join(map(str, tensor.shape)) or 'scalar'}"
        if first != name:
            return 0, 0, f"{words} (= {first}, shared)"
        return int(tensor.data.size), int(tensor.data.nbytes), words


def _titled(module: Module) -> str:
    """The class and, as far as there is room, its arguments."""
    kind, arguments = type(module).__name__, " ".join(module.extra_repr().split())
    room = _WIDEST - len(kind) - 2
    return kind + (
        f"({arguments if len(arguments) <= room else arguments[: room - 1] + '…'})"
        if arguments
        else ""
    )


def _folded(part: Part) -> Part:
    """The part with neighbours that look alike as one."""
    folded: list[Part] = []
    for group in (list(g) for _, g in itertools.groupby(part.parts, Part.likeness)):
        only = _folded(group[0])
        if len(group) > 1 and only.name:
            folded.append(
                replace(only, name=f"{group[0].name} to {group[-1].name}", times=len(group))
            )
        else:
            folded += [_folded(p) for p in group]
    return replace(part, parts=folded)


def _rows(
    part: Part, before: str = "", branch: str = ""
) -> Iterator[tuple[str, str, str, str, str]]:
    name = f"{part.name}  " if part.name else ""
    times = f"{part.times} × " if part.times > 1 else ""
    flops = f"{part.flops:,}" if part.exact else f"{part.flops:,} + ?"
    yield (
        before + branch + name + times + part.title,
        part.shapes,
        f"{part.parameters:,}" if part.parameters else "",
        flops if part.flops or not part.exact else "",
        size(part.bytes) if part.bytes else "",
    )
    further = before + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
    for i, child in enumerate(part.parts):
        yield from _rows(child, further, "└─ " if i == len(part.parts) - 1 else "├─ ")


def size(nbytes: int) -> str:
    """Bytes in words: 512 B, 33.3 kB, 3.24 MB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if nbytes >= unit:
            return f"{nbytes / unit:.3g} {name}"
    return f"{nbytes} B"


def _notes(
    module: Module, root: Part, heard: Measured | None, context: int | None
) -> Iterator[str]:
    kinds = sorted({dtypes.name(p.dtype) for p in module.parameters()})
    frozen = sum(int(p.data.size) for p in module.parameters() if not p.requires_grad)
    trained = f", {root.parameters - frozen:,} of them trained" if frozen else ""
    yield (
        f"{root.parameters:,} parameters{trained}, "
        f"{size(root.bytes)}{' of ' + ' and '.join(kinds) if kinds else ''}"
    )
    what = (
        "in this call"
        if heard
        else "per token, forward"
        if context is None
        else f"per token, forward, at a context of {context}"
    )
    yield f"{root.flops:,} FLOPs {what}: matrix products, 2 for each multiplication and addition"
    attends = any(isinstance(m, MultiHeadAttention) for m in module.modules())
    if attends and not heard and context is None:
        yield (
            "attention's products with keys and values are not in it: give describe(..., context=)"
        )
    if not root.exact:
        yield (
            "?: multiplies with a matrix of its own in a way that is not known; "
            "describe(module, "
            "inputs) measures it"
        )
