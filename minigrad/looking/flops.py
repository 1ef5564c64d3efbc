"""Counting the work of a forward pass: the matrix products, 2 FLOPs for each multiplication and
addition.

All else (norms, activations, softmax, sums) is left out, as is usual: it is a few percent.
Attention counts as if every position saw every other, as in Chowdhery et al. 2022 (PaLM),
arXiv:2204.02311, appendix B; a causal mask lets half of that be skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigrad.looking.watch import at_rest, watching
from minigrad.modes import Relay, listening
from minigrad.nn import Embedding, Linear, Module, MultiHeadAttention
from minigrad.primitive import Primitive

# --- by formula, per position


def own_flops(module: Module, context: int | None) -> int | None:
    """FLOPs per position of what a module computes itself, without its children; None if that is
    not known.

    context: the positions that attention looks at; None leaves out its products with keys and
        values. A class that multiplies with more than its
    children's weights says so in a method `own_products()`, a list of pairs of a name and FLOPs per
    position.
    """
    if hasattr(module, "own_products"):
        return sum(flops for _, flops in module.own_products())
    for kind, rule in _RULES.items():
        if isinstance(module, kind):
            return rule(module, context)
    # A matrix of its own is multiplied with something; vectors are added, or scale.
    return None if any(p.ndim > 1 for _, p in module.named_parameters(recurse=False)) else 0


def _attention(layer: Any, context: int | None) -> int:
    seen = 0 if context is None else min(context, layer.window or context)
    return 2 * int(layer.in_proj_weight.data.size) + 2 * 2 * seen * int(layer.n_embd)


_RULES: dict[type[Module], Callable[[Any, int | None], int]] = {
    Linear: lambda layer, _: 2 * int(layer.weight.data.size),
    Embedding: lambda layer, _: 0,
    MultiHeadAttention: _attention,
}


# --- by listening to a pass


class Measured(Relay):
    """Hears a forward pass: FLOPs of each module itself and the shapes that it returned, both by
    id(module).
    """

    def __init__(self, model: Module) -> None:
        super().__init__()
        self.flops: dict[int, int] = {}
        self.shapes: dict[int, str] = {}
        self._inside = [id(model)]

    def run(self, op: Primitive, arrays: Sequence[Any], params: dict[str, Any]) -> Any:
        """Run the op and count its products for the innermost module that is being called."""
        out = super().run(op, arrays, params)
        if op.kind == "contract":
            self.flops[self._inside[-1]] = self.flops.get(self._inside[-1], 0) + _products(
                op, arrays, out
            )
        return out

    def around(
        self,
        module: Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Call the module and note what it returns."""
        self._inside.append(id(module))
        try:
            out = forward(*args, **kwargs)
        finally:
            self._inside.pop()
        self.shapes[id(module)] = _shapes(out)
        return out


def _products(op: Primitive, arrays: Sequence[Any], out: Any) -> int:
    if op.name in ("matmul", "linear"):
        return 2 * np.size(out) * int(np.shape(arrays[0])[-1])
    if op.name == "attention":
        q, k, v = (np.shape(a) for a in arrays[:3])
        return 2 * int(np.prod(out[0].shape[:-1])) * k[-2] * (q[-1] + v[-1])
    return 0


def _shapes(out: Any) -> str:
    parts = out if isinstance(out, tuple | list) else (out,)
    return ", ".join(
        "×".join(map(str, part.shape)) or "scalar" for part in parts if hasattr(part, "shape")
    )


def measure(model: Module, inputs: Sequence[Any]) -> Measured:
    """What `model(*inputs)` costs, at rest: without gradients and dropout."""
    heard = Measured(model)
    with at_rest(model), watching(model.modules(), heard.around), listening(heard):
        model(*inputs)
    return heard
