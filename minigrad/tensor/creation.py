"""New tensors: filled, counted, drawn at random."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad.dtypes import Array, as_dtype, cast, float32
from minigrad.random import Generator, default_generator
from minigrad.tensor.frame import Frame
from minigrad.tensor.movement import Sizes, flat

if TYPE_CHECKING:
    from typing_extensions import Self


class Creation(Frame):
    """Class methods; `dtype` is float32 unless told otherwise, `generator` the library's default one."""

    __slots__ = ()

    @classmethod
    def _made(cls, array: Array, dtype: Any, requires_grad: bool) -> Self:
        t = cls._wrap(cast(array, as_dtype(dtype)))
        t.requires_grad = requires_grad
        return t

    @classmethod
    def full(cls, shape: Sizes, value: float, dtype: Any = float32, requires_grad: bool = False) -> Self:
        """All elements `value`."""
        return cls._made(np.full(shape, value, np.float64 if isinstance(value, float) else None), dtype, requires_grad)

    @classmethod
    def zeros(cls, *shape: Sizes, dtype: Any = float32, requires_grad: bool = False) -> Self:
        """All elements 0."""
        return cls._made(np.zeros(flat(shape), float32), dtype, requires_grad)

    @classmethod
    def ones(cls, *shape: Sizes, dtype: Any = float32, requires_grad: bool = False) -> Self:
        """All elements 1."""
        return cls._made(np.ones(flat(shape), float32), dtype, requires_grad)

    @classmethod
    def eye(cls, n: int, m: int | None = None, dtype: Any = float32, requires_grad: bool = False) -> Self:
        """The n x m matrix (m = n if not given) with ones on its diagonal."""
        return cls._made(np.eye(n, m, dtype=float32), dtype, requires_grad)

    @classmethod
    def arange(cls, start: float, stop: float | None = None, step: float = 1, dtype: Any = None, requires_grad: bool = False) -> Self:
        """start, start + step, ... below stop; arange(n) is 0 .. n - 1. int64 if all are integers, else float32."""
        array = np.arange(start, step=step) if stop is None else np.arange(start, stop, step)
        return cls._made(array, dtype or (array.dtype if array.dtype.kind == "i" else float32), requires_grad)

    @classmethod
    def randn(cls, *shape: Sizes, dtype: Any = float32, requires_grad: bool = False, generator: Generator = default_generator) -> Self:
        """Normal numbers, mean 0, standard deviation 1."""
        return cls._made(generator.normal(flat(shape)), dtype, requires_grad)

    @classmethod
    def rand(cls, *shape: Sizes, dtype: Any = float32, requires_grad: bool = False, generator: Generator = default_generator) -> Self:
        """Uniform numbers in [0, 1)."""
        return cls._made(generator.uniform(flat(shape)), dtype, requires_grad)

    @classmethod
    def randint(
        cls, low: int, high: int, shape: tuple[int, ...] = (), dtype: Any = np.int64, generator: Generator = default_generator
    ) -> Self:
        """Integers low .. high - 1, uniform."""
        return cls._made(generator.integers(low, high, shape), dtype, False)
