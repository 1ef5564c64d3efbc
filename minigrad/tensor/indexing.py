"""Indexing: t[...] and iteration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad import ops
from minigrad.errors import DTypeError
from minigrad.tensor.frame import Frame

if TYPE_CHECKING:
    from typing_extensions import Self


class Indexing(Frame):
    """Basic indexing makes views."""

    __slots__ = ()

    def __getitem__(self, index: Any) -> Self:
        """Integers, slices, None and Ellipsis, alone or in a tuple."""
        parts = index if isinstance(index, tuple) else (index,)
        for part in parts:
            if not (part is None or part is Ellipsis or (isinstance(part, (int, slice, np.integer)) and not isinstance(part, bool))):
                raise DTypeError("getitem", f"cannot index with {type(part).__name__}", got=type(part))
        return ops.getitem(self, index=parts)

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))
