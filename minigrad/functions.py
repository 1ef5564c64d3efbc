"""The functions that are called without a tensor in hand: `minigrad.zeros(2, 3)`, `minigrad.cat([a, b])`. Tensor has the same as methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrad import ops
from minigrad.tensor import Tensor

arange, empty, eye, full, linspace, ones, zeros = (
    Tensor.arange, Tensor.empty, Tensor.eye, Tensor.full, Tensor.linspace, Tensor.ones, Tensor.zeros)  # fmt: skip
rand, randint, randn = Tensor.rand, Tensor.randint, Tensor.randn


def cat(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """The tensors one after the other along `dim`; all other sizes must agree."""
    return _first(tensors).cat(*tensors[1:], axis=dim)


def stack(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """The tensors along a new axis `dim`; all shapes must agree."""
    return _first(tensors).stack(*tensors[1:], axis=dim)


def _first(tensors: Sequence[Any]) -> Tensor:
    first = tensors[0] if len(tensors) else Tensor([])
    return first if isinstance(first, Tensor) else Tensor(first)


def where(condition: Any, x: Any, y: Any) -> Tensor:
    """x where `condition` is true, else y. A NaN in the branch not taken stays out; of gradients too, where it was made elementwise."""
    return ops.where(condition if isinstance(condition, Tensor) else Tensor(condition), x, y)


def einsum(formula: str, *operands: Any) -> Tensor:
    """The sum of products over the letters that the result lacks: einsum("bij,bjk->bik", a, b) is a batched matrix product."""
    result: Tensor = Tensor.einsum(formula, *operands)
    return result
