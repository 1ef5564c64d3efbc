"""Counting the work of a forward pass: matrix products, 2 FLOPs per multiply-add.

Everything else (norms, activations, softmax, sums) is a few percent and is left out, as usual.
Attention counts as if every position saw every other, as in Chowdhery et al. 2022 (PaLM),
arXiv:2204.02311, appendix B; a causal mask lets half of that be skipped.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from minigrad.modes import Relay, listening
from minigrad.nn import Embedding, Linear, Module, MultiHeadAttention
from minigrad.nn.module import at_rest
from minigrad.primitive import Primitive

# --- by formula, per position


def own_flops(module: Module, context: int | None) -> int | None:
    """Return the FLOPs per position of a module without its children; None if unknown.

    context: number of positions that attention reads; None leaves out its products with keys and
        values. A class that multiplies with more than its children's weights has a method
        `own_products()`, which returns pairs of a name and FLOPs per position.
    """
    if hasattr(module, "own_products"):
        return sum(flops for _, flops in module.own_products())
    if isinstance(module, Linear):
        return 2 * math.prod(module.weight.shape)
    if isinstance(module, MultiHeadAttention):
        seen = 0 if context is None else min(context, module.window or context)
        wide = module.n_head * module.head_dim
        return 2 * math.prod(module.in_proj_weight.shape) + 2 * 2 * seen * wide
    # A matrix of its own is multiplied with something; vectors are added, or scale.
    matrices = any(p.ndim > 1 for _, p in module.named_parameters(recurse=False))
    return None if matrices and not isinstance(module, Embedding) else 0


# --- by measuring a pass

Forward = Callable[..., Any]


@contextlib.contextmanager
def watching(
    modules: Iterable[Module], wrap: Callable[[Module, Forward], Forward]
) -> Iterator[None]:
    """Inside, a call of one of the modules calls `wrap(module, forward)`, where `forward` is the
    module's own.
    """
    watched = [module for module in modules if hasattr(module, "forward")]  # a ModuleList has none
    try:
        for module in watched:
            # An attribute of the object hides the method of its class until it is deleted.
            module.forward = wrap(module, module.forward)
        yield
    finally:
        for module in watched:
            vars(module).pop("forward", None)


class Measured(Relay):
    """Listens to a forward pass: FLOPs of each module without its children, and the shapes that it
    returned, both by id(module).
    """

    def __init__(self, model: Module) -> None:
        super().__init__()
        self.flops = Counter[int]()
        self.shapes: dict[int, str] = {}
        self._inside = [id(model)]

    def run(self, op: Primitive, arrays: Sequence[Any], params: dict[str, Any]) -> Any:
        """Run the op and count its products for the innermost module that is being called."""
        out = super().run(op, arrays, params)
        if op.kind == "contract":
            self.flops[self._inside[-1]] += _products(op, arrays, out)
        return out

    def wrap(self, module: Module, forward: Forward) -> Forward:
        """Return the module's forward, which notes that it runs and the shapes of its outputs."""

        def noted(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(id(module))
            try:
                out = forward(*args, **kwargs)
            finally:
                self._inside.pop()
            parts = out if isinstance(out, tuple | list) else (out,)
            shapes = [shape_of(part) for part in parts if hasattr(part, "shape")]
            self.shapes[id(module)] = ", ".join(shapes)
            return out

        return noted


def shape_of(array: Any) -> str:
    """Format the shape of an array or a tensor: 2×3, scalar."""
    return "×".join(map(str, array.shape)) or "scalar"


def _products(op: Primitive, arrays: Sequence[Any], out: Any) -> int:
    if op.name in ("matmul", "linear"):
        return 2 * np.size(out) * int(np.shape(arrays[0])[-1])
    if op.name == "attention":
        q, k, v = (np.shape(a) for a in arrays[:3])
        return 2 * int(np.prod(out[0].shape[:-1])) * k[-2] * (q[-1] + v[-1])
    return 0


def measure(model: Module, inputs: Sequence[Any]) -> Measured:
    """Return what `model(*inputs)` costs, without gradients and dropout."""
    measured = Measured(model)
    with at_rest(model), watching(model.modules(), measured.wrap), listening(measured):
        model(*inputs)
    return measured
