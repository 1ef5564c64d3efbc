"""Tensor's reductions: along `axis` (or `dim`), one axis, several or all."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from minigrad import ops
from minigrad.ops.composite import composite
from minigrad.ops.reduce import Axis, one_axis
from minigrad.tensor.frame import Frame

if TYPE_CHECKING:
    from typing_extensions import Self

R = TypeVar("R")


def of_one_too(method: Callable[..., R]) -> Callable[..., R]:
    """Let a method that goes along an axis take a tensor without axes as a row of one, as PyTorch
    does.
    """

    @functools.wraps(method)
    def _as_row(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.ndim:
            return method(self, *args, **kwargs)
        result: Any = method(self.reshape(1), *args, **kwargs)
        return (
            tuple(y.reshape(()) for y in result)
            if isinstance(result, tuple)
            else result.reshape(())
        )

    return _as_row


class Reduction(Frame):
    """Many numbers in, fewer out."""

    __slots__ = ()

    @composite
    def sum(self, axis: Axis = None, keepdim: bool = False) -> Self:
        """The sum along `axis`; 0 for an empty one."""
        return ops.sum(self, axis=axis, keepdim=keepdim)

    @composite
    def mean(self, axis: Axis = None, keepdim: bool = False) -> Self:
        """The mean along `axis`."""
        result: Self = ops.mean(self, axis=axis, keepdim=keepdim)
        return result

    @composite
    def var(self, axis: Axis = None, correction: float = 1, keepdim: bool = False) -> Self:
        """The variance along `axis`, divided by n - correction."""
        result: Self = ops.var(self, axis=axis, correction=correction, keepdim=keepdim)
        return result

    @composite
    def std(self, axis: Axis = None, correction: float = 1, keepdim: bool = False) -> Self:
        """The standard deviation along `axis`: sqrt(var)."""
        result: Self = ops.std(self, axis=axis, correction=correction, keepdim=keepdim)
        return result

    @composite
    def var_mean(
        self, axis: Axis = None, correction: float = 1, keepdim: bool = False
    ) -> tuple[Self, Self]:
        """The variance and the mean along `axis`."""
        return ops.var_mean(self, axis=axis, correction=correction, keepdim=keepdim)

    @composite
    def std_mean(
        self, axis: Axis = None, correction: float = 1, keepdim: bool = False
    ) -> tuple[Self, Self]:
        """The standard deviation and the mean along `axis`."""
        return ops.std_mean(self, axis=axis, correction=correction, keepdim=keepdim)

    @composite
    def prod(self, axis: Axis = None, keepdim: bool = False) -> Self:
        """The product along `axis`; 1 for an empty one. Gradients are right with zeros in it, too."""
        return ops.prod(self, axis=axis, keepdim=keepdim)

    @composite
    def max(self, axis: Axis = None, keepdim: bool = False) -> Self:
        """The largest along `axis`; ties share the gradient evenly. For the index, argmax."""
        return ops.max(self, axis=axis, keepdim=keepdim)

    @composite
    def min(self, axis: Axis = None, keepdim: bool = False) -> Self:
        """The smallest along `axis`; ties share the gradient evenly. For the index, argmin."""
        return ops.min(self, axis=axis, keepdim=keepdim)

    @composite
    def max_with_index(self, axis: int, keepdim: bool = False) -> tuple[Self, Self]:
        """Return the largest along `axis` and the index of the first of them: PyTorch's max(dim)."""
        return self.max(axis, keepdim), self.argmax(axis, keepdim)

    @composite
    def min_with_index(self, axis: int, keepdim: bool = False) -> tuple[Self, Self]:
        """Return the smallest along `axis` and the index of the first of them: PyTorch's min(dim)."""
        return self.min(axis, keepdim), self.argmin(axis, keepdim)

    @composite
    def argmax(self, axis: int | None = None, keepdim: bool = False) -> Self:
        """The index of the first largest element along `axis`; of the flattened tensor for None."""
        return ops.argmax(self, axis=axis, keepdim=keepdim)

    @composite
    def argmin(self, axis: int | None = None, keepdim: bool = False) -> Self:
        """The index of the first smallest element along `axis`; of the flattened tensor for None."""
        return ops.argmin(self, axis=axis, keepdim=keepdim)

    @composite
    def any(self, axis: Axis = None, keepdim: bool = False) -> Self:
        """True where some element along `axis` is not zero."""
        return ops.any(self, axis=axis, keepdim=keepdim)

    @composite
    def all(self, axis: Axis = None, keepdim: bool = False) -> Self:
        """True where no element along `axis` is zero."""
        return ops.all(self, axis=axis, keepdim=keepdim)

    @composite
    def logsumexp(self, axis: Axis = None, keepdim: bool = False) -> Self:
        """log(sum(exp(x))) along `axis`, without overflow."""
        return ops.logsumexp(self, axis=axis, keepdim=keepdim)

    @of_one_too
    @composite
    def softmax(self, axis: int = -1) -> Self:
        """exp(x) / sum(exp(x)) along `axis`; a row of -inf gives zeros."""
        return ops.softmax(self, axis=axis)

    @of_one_too
    @composite
    def log_softmax(self, axis: int = -1) -> Self:
        """log(softmax(x)) along `axis`."""
        return ops.log_softmax(self, axis=axis)

    # --- running reductions and order

    @of_one_too
    @composite
    def cumsum(self, axis: int = 0) -> Self:
        """The sums of the first 1, 2, ... elements along `axis`."""
        return ops.cumsum(self, axis=one_axis(axis, self.ndim, "cumsum"))

    @of_one_too
    @composite
    def cumprod(self, axis: int = 0) -> Self:
        """The products of the first 1, 2, ... elements along `axis`."""
        return ops.cumprod(self, axis=one_axis(axis, self.ndim, "cumprod"))

    @of_one_too
    @composite
    def cummax(self, axis: int = 0) -> tuple[Self, Self]:
        """The largest of the first 1, 2, ... elements along `axis`, and where it stands (the last
        of equals, which gets the gradient).
        """
        return ops.cummax(self, axis=one_axis(axis, self.ndim, "cummax"))

    @of_one_too
    @composite
    def logcumsumexp(self, axis: int = 0) -> Self:
        """log of the sums of the first 1, 2, ... elements' exponentials along `axis`."""
        return ops.logcumsumexp(self, axis=one_axis(axis, self.ndim, "logcumsumexp"))

    @of_one_too
    @composite
    def sort(self, axis: int = -1, descending: bool = False) -> tuple[Self, Self]:
        """In order along `axis`, and the indices that the elements came from. Stable; a NaN counts
        as the largest.
        """
        return ops.sort(self, axis=one_axis(axis, self.ndim, "sort"), descending=descending)

    @of_one_too
    @composite
    def argsort(self, axis: int = -1, descending: bool = False) -> Self:
        """The indices that sort along `axis`."""
        return ops.argsort(self, axis=one_axis(axis, self.ndim, "argsort"), descending=descending)

    @of_one_too
    @composite
    def topk(self, k: int, axis: int = -1, largest: bool = True) -> tuple[Self, Self]:
        """The k largest (or smallest) along `axis`, in order, and their indices."""
        return ops.topk(self, k, axis=axis, largest=largest)
