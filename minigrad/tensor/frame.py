"""What every tensor method may count on: the slots, the array's own facts, and the way to wrap an array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minigrad.dtypes import Array, DType
from minigrad.errors import ShapeError

if TYPE_CHECKING:
    from typing_extensions import Self

_new = object.__new__


class Frame:
    """The slots of a Tensor. The methods are in the classes that build on it; `Tensor` brings them together."""

    __slots__ = ("__weakref__", "_index", "_node", "_version", "data", "grad", "requires_grad")
    __hash__ = object.__hash__  # by identity, though == compares elements

    data: Array  # the numpy array; writing to it goes unnoticed by autograd, `assign` does not
    grad: Self | None
    requires_grad: bool
    _node: Any  # the Node that made it; None for a leaf
    _index: int  # which of the node's outputs it is
    _version: list[Any]  # [how often its memory was changed in place, where last], shared by all views of that memory

    @classmethod
    def _wrap(cls, array: Array) -> Self:
        """A tensor around an array that the library owns, without a copy."""
        t = _new(cls)
        t.data = array
        t.grad = t._node = None
        t._index, t._version, t.requires_grad = 0, [0, None], False
        return t

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes."""
        return self.data.shape

    @property
    def dtype(self) -> DType:
        """The numpy dtype of the elements; `minigrad.bfloat16` for bfloat16."""
        return self.data.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.data.ndim

    def numel(self) -> int:
        """The number of elements."""
        return self.data.size

    def __len__(self) -> int:
        if not self.data.ndim:
            raise ShapeError("len", "a tensor without axes has no length", got=(), hint="numel() counts elements")
        return len(self.data)
