"""The functions that are called without a tensor in hand: `minigrad.zeros(2, 3)`, `minigrad.cat([a, b])`. Tensor has the same as methods."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minigrad import ops
from minigrad.errors import ShapeError
from minigrad.tensor import Tensor
from minigrad.tensor.spelling import both_spellings

arange, empty, eye, full, linspace, ones, zeros = (
    Tensor.arange, Tensor.empty, Tensor.eye, Tensor.full, Tensor.linspace, Tensor.ones, Tensor.zeros)  # fmt: skip
rand, randint, randn = Tensor.rand, Tensor.randint, Tensor.randn


@both_spellings
def cat(tensors: Iterable[Any], axis: int = 0) -> Tensor:
    """The tensors one after the other along `axis`; all other sizes must agree."""
    first, *others = _tensors(tensors, "cat")
    return first.cat(*others, axis=axis)


@both_spellings
def stack(tensors: Iterable[Any], axis: int = 0) -> Tensor:
    """The tensors along a new axis `axis`; all shapes must agree."""
    first, *others = _tensors(tensors, "stack")
    return first.stack(*others, axis=axis)


def _tensors(tensors: Iterable[Any], call: str) -> list[Tensor]:
    found = [x if isinstance(x, Tensor) else Tensor(x) for x in tensors]
    if not found:
        raise ShapeError(call, "of no tensors", got=0, wanted="one or more")
    return found


def where(condition: Any, x: Any, y: Any) -> Tensor:
    """x where `condition` is true, else y. A NaN in the branch not taken stays out; of gradients too, where it was made elementwise."""
    return ops.where(condition if isinstance(condition, Tensor) else Tensor(condition), x, y)


def einsum(formula: str, *operands: Any) -> Tensor:
    """The sum of products over the letters that the result lacks: einsum("bij,bjk->bik", a, b) is a batched matrix product."""
    result: Tensor = Tensor.einsum(formula, *operands)
    return result
