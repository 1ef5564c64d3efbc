"""Tensor's reductions: along `axis` (or `dim`), one axis, several or all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minigrad import ops
from minigrad.ops.reduce import Axis
from minigrad.tensor.frame import Frame
from minigrad.tensor.spelling import both_spellings

if TYPE_CHECKING:
    from typing_extensions import Self


class Reduction(Frame):
    """Many numbers in, fewer out."""

    __slots__ = ()

    @both_spellings
    def sum(self, axis: Axis = None, keepdim: bool = False) -> Self:
        """The sum along `axis`; 0 for an empty one."""
        return ops.sum(self, axis=axis, keepdim=keepdim)

    @both_spellings
    def mean(self, axis: Axis = None, keepdim: bool = False) -> Self:
        """The mean along `axis`."""
        result: Self = ops.mean(self, axis=axis, keepdim=keepdim)
        return result

    @both_spellings
    def var(self, axis: Axis = None, keepdim: bool = False, correction: float = 1) -> Self:
        """The variance along `axis`, divided by n - correction."""
        result: Self = ops.var(self, axis=axis, keepdim=keepdim, correction=correction)
        return result

    @both_spellings
    def std(self, axis: Axis = None, keepdim: bool = False, correction: float = 1) -> Self:
        """The standard deviation along `axis`: sqrt(var)."""
        return ops.sqrt(self.var(axis=axis, keepdim=keepdim, correction=correction))

    @both_spellings
    def max(self, axis: Axis = None, keepdim: bool = False) -> Self:
        """The largest along `axis`; ties share the gradient evenly. For the index, argmax."""
        return ops.max(self, axis=axis, keepdim=keepdim)

    @both_spellings
    def min(self, axis: Axis = None, keepdim: bool = False) -> Self:
        """The smallest along `axis`; ties share the gradient evenly. For the index, argmin."""
        return ops.min(self, axis=axis, keepdim=keepdim)

    @both_spellings
    def argmax(self, axis: int | None = None, keepdim: bool = False) -> Self:
        """The index of the first largest element along `axis`; of the flattened tensor for None."""
        return ops.argmax(self, axis=axis, keepdim=keepdim)

    @both_spellings
    def argmin(self, axis: int | None = None, keepdim: bool = False) -> Self:
        """The index of the first smallest element along `axis`; of the flattened tensor for None."""
        return ops.argmin(self, axis=axis, keepdim=keepdim)

    @both_spellings
    def any(self, axis: Axis = None, keepdim: bool = False) -> Self:
        """True where some element along `axis` is not zero."""
        return ops.any(self, axis=axis, keepdim=keepdim)

    @both_spellings
    def all(self, axis: Axis = None, keepdim: bool = False) -> Self:
        """True where no element along `axis` is zero."""
        return ops.all(self, axis=axis, keepdim=keepdim)

    @both_spellings
    def logsumexp(self, axis: Axis = None, keepdim: bool = False) -> Self:
        """log(sum(exp(x))) along `axis`, without overflow."""
        return ops.logsumexp(self, axis=axis, keepdim=keepdim)

    @both_spellings
    def softmax(self, axis: int = -1) -> Self:
        """exp(x) / sum(exp(x)) along `axis`; a row of -inf gives zeros."""
        return ops.softmax(self, axis=axis)

    @both_spellings
    def log_softmax(self, axis: int = -1) -> Self:
        """log(softmax(x)) along `axis`."""
        return ops.log_softmax(self, axis=axis)
