"""The base of Tensor: the slots, the facts of the array, and the way to wrap one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad import ops
from minigrad.dtypes import Array, DType, is_float
from minigrad.errors import DTypeError
from minigrad.ops.axis import one_axis

if TYPE_CHECKING:
    from typing_extensions import Self as Self
else:  # in typing from Python 3.11
    Self = Any

_new = object.__new__


class TensorBase:
    """The slots of a Tensor, and the facts of its array. The methods are in the classes that build
    on it.
    """

    __slots__ = (
        "__weakref__",
        "_hooks",
        "_index",
        "_is_view",
        "_node",
        "_version",
        "_wants",
        "data",
        "grad",
    )
    __hash__ = object.__hash__  # by identity, though == compares elements

    data: Array  # the numpy array; writing to it goes unnoticed by autograd, `assign` does not
    grad: Self | None
    requires_grad: bool
    # Its place on the tape: the node that made it (None for a leaf), and which output it is
    _node: Any
    _index: int
    _wants: bool  # requires_grad, without the property's cost
    # [how often its memory was changed in place, where last], shared by all views of that memory
    _version: list[Any]
    _is_view: bool  # set only on tensors that share another's memory
    _hooks: tuple[Any, ...]  # of a leaf, each with its output's number, which is 0

    @classmethod
    def _wrap(cls, array: Array) -> Self:
        """A tensor around an array that the library owns, without a copy."""
        t = _new(cls)
        t.data = array
        t.grad = t._node = None
        t._index, t._version, t._wants, t._hooks = 0, [0, None], False, ()
        return t

    def _take_place(self, other: TensorBase) -> Self:
        """Take the array of another tensor, and its place on the tape."""
        self.data, self._version = other.data, other._version
        self._node, self._index, self._wants = other._node, other._index, other._wants
        return self

    def _as_it_stands(self) -> Self:
        """A tensor in the same place on the tape, which stays there if this one is written into."""
        return self._wrap(self.data)._take_place(self)

    def _as_tensor(self, x: Any) -> Any:
        """x if it is a tensor, else a tensor of it, an array's memory shared."""
        return x if isinstance(x, TensorBase) else self._wrap(np.asarray(x))

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

    @property
    def T(self) -> Self:
        """The axes in reverse order: the transpose of a matrix."""
        return ops.permute(self, order=tuple(reversed(range(self.ndim))))

    @property
    def device(self) -> str:
        """Always "cpu"."""
        return "cpu"

    def dim(self) -> int:
        """The number of axes."""
        return self.data.ndim

    def size(self, dim: int | None = None) -> Any:
        """The sizes of the axes, or of one of them."""
        return self.shape if dim is None else self.shape[one_axis(dim, self.ndim, "size")]

    def numel(self) -> int:
        """The number of elements."""
        return self.data.size

    def is_floating_point(self) -> bool:
        """True for the dtypes that can have gradients."""
        return is_float(self.data.dtype)

    def __len__(self) -> int:
        if not self.data.ndim:
            problem, hint = "a tensor without axes has no length", "numel() counts elements"
            raise DTypeError("len", problem, got=(), hint=hint)
        return len(self.data)
