"""Weights that are not Parameters, in the place of a Linear's or an Embedding's: those that stay in
the blocks of their file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import numpy as np

from minigrad import ops
from minigrad.arguments import fits
from minigrad.dtypes import Array
from minigrad.nn.module import Module, Parameter
from minigrad.ops.quantised import ALL, dequantise, features
from minigrad.tensor import Tensor

FINE = ContextVar("minigrad_fine_rows", default=ALL)  # of products in int8


class QuantisedWeight:
    """A weight (out, in) in blocks of 4 to 8 bits per number, as in GGUF files.

    kind: the format, such as "q4_1", one of `minigrad.ops.quantised.FORMATS`.   shape: (out, in).
    blocks: (out, bytes per row) of uint8, often a view of a mapped file; nbytes: theirs.   int8:
        products round x to int8, see `ops.quantised_linear`; False at first.

    It is not a Parameter: it is not trained, and not part of a state_dict. Gradients flow through
    the product to x. Raises ConfigError for an unknown kind, ShapeError for blocks of another
    shape.
    """

    def __init__(self, kind: str, shape: Sequence[int], blocks: Array) -> None:
        self.kind, self.shape, self.blocks = kind, (int(shape[0]), int(shape[1])), blocks
        self.int8, self._tensor, self.nbytes = False, Tensor._wrap(blocks), blocks.nbytes
        found = len(blocks), features(blocks, kind)
        problem = f"blocks of {kind} hold {found}, expected {self.shape}"
        fits(found == self.shape, "QuantisedWeight", problem, found)

    def dequantise(self, rows: slice = slice(None)) -> Array:
        """Return the values of some rows, all unless given: (n, in) of float32."""
        return dequantise(self.blocks[rows], self.kind)

    def linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x @ weight.T + bias: (..., in) -> (..., out)."""
        how = {"kind": self.kind, "int8": self.int8, "fine": FINE.get()}
        return ops.quantised_linear(x, self._tensor, bias, **how)

    def rows(self, index: Tensor) -> Tensor:
        """The rows that `index` names: (...) of integers -> (..., in) of float32."""
        return ops.quantised_embedding(self._tensor, index, kind=self.kind)

    @property
    def parts(self) -> tuple[QuantisedWeight, ...]:
        """Itself, as the only part: see StackedWeight."""
        return (self,)

    def __repr__(self) -> str:
        return f"QuantisedWeight({self.kind!r}, {self.shape})"


class StackedWeight:
    """Weights one above the other, each in its own format: the rows of q, k and v of attention in
    files that store them apart. shape: (sum of out, in).   nbytes: of all blocks.
    """

    def __init__(self, parts: Sequence[QuantisedWeight]) -> None:
        self.parts = tuple(parts)
        self.kind = "+".join(dict.fromkeys(part.kind for part in parts))
        self.shape = (sum(part.shape[0] for part in parts), parts[0].shape[1])
        self.nbytes = sum(part.nbytes for part in parts)
        shapes = [part.shape for part in parts]
        alike = all(width == self.shape[1] for _, width in shapes)
        fits(alike, "StackedWeight", f"parts {shapes} have rows of several lengths", shapes)

    def dequantise(self) -> Array:
        """Return the values, float32."""
        return np.concatenate([part.dequantise() for part in self.parts])

    def linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x @ weight.T + bias: (..., in) -> (..., out)."""
        y: Tensor = ops.cat(*(part.linear(x) for part in self.parts), axis=-1)
        return y if bias is None else y + bias

    def __repr__(self) -> str:
        return f"StackedWeight({list(self.parts)})"


Blocks = QuantisedWeight | StackedWeight


def linear(x: Tensor, weight: Tensor | Blocks, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias, whatever the weight's storage."""
    return ops.linear(x, weight, bias) if isinstance(weight, Tensor) else weight.linear(x, bias)


def blocks_of(model: Module) -> Iterator[tuple[str, Module, str, Blocks]]:
    """Yield (full name, layer, name in the layer, weight) of every weight in blocks."""
    for prefix, module in model.named_modules():
        for name, weight in vars(module).items():
            if isinstance(weight, Blocks):
                yield f"{prefix}.{name}" if prefix else name, module, name, weight


def expand(model: Module) -> None:
    """Replace every weight in blocks by a frozen float32 Parameter of the same values."""
    for _, layer, name, weight in list(blocks_of(model)):
        setattr(layer, name, Parameter(weight.dequantise(), requires_grad=False))
