"""New tensors: filled, counted, drawn at random."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad import ops
from minigrad.dtypes import Array, as_dtype, cast, float32
from minigrad.errors import ConfigError
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
        t: Any = cls._wrap(cast(array, float32 if dtype is None else as_dtype(dtype)))
        return t.requires_grad_() if requires_grad else t

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
        cls, *args: Any, low: int | None = None, high: int | None = None, dtype: Any = np.int64, generator: Generator = default_generator
    ) -> Self:
        """Integers low .. high - 1, uniform: randint(high, shape), randint(low, high, shape), or randint(*shape, low=0, high=10)."""
        if low is not None or high is not None:
            return cls._made(generator.integers(low or 0, 10 if high is None else high, flat(args)), dtype, False)
        *bounds, shape = args if args and isinstance(args[-1], (tuple, list)) else (*args, ())
        if len(bounds) not in (1, 2):
            raise ConfigError("randint", f"{args}: which are the bounds?", got=args, hint="randint(low, high, shape)")
        low, high = (0, *bounds)[-2:]
        return cls._made(generator.integers(low, high, tuple(shape)), dtype, False)

    @classmethod
    def empty(cls, *shape: Sizes, dtype: Any = float32, requires_grad: bool = False) -> Self:
        """For elements that will be written before they are read; they are 0 here, so that nothing depends on chance."""
        return cls.zeros(*shape, dtype=dtype, requires_grad=requires_grad)

    @classmethod
    def linspace(cls, start: float, stop: float, steps: int, dtype: Any = float32, requires_grad: bool = False) -> Self:
        """`steps` numbers at equal distances from start to stop, both among them."""
        return cls._made(np.linspace(start, stop, steps), dtype, requires_grad)

    # --- drawn at random

    @classmethod
    def uniform(
        cls, *shape: Sizes, low: float = 0.0, high: float = 1.0, dtype: Any = float32, requires_grad: bool = False,
        generator: Generator = default_generator,
    ) -> Self:  # fmt: skip
        """Uniform numbers in [low, high)."""
        return cls._made(generator.uniform(flat(shape), low, high), dtype, requires_grad)

    @classmethod
    def normal(
        cls, *shape: Sizes, mean: float = 0.0, std: float = 1.0, dtype: Any = float32, requires_grad: bool = False,
        generator: Generator = default_generator,
    ) -> Self:  # fmt: skip
        """Normal numbers of the given mean and standard deviation."""
        return cls._made(generator.normal(flat(shape), mean, std), dtype, requires_grad)

    @classmethod
    def scaled_uniform(cls, *shape: Sizes, **options: Any) -> Self:
        """Uniform in (-b, b) with b = 1 / sqrt(number of elements)."""
        bound = math.prod(flat(shape)) ** -0.5
        return cls.uniform(*shape, low=-bound, high=bound, **options)

    @classmethod
    def glorot_uniform(cls, *shape: Sizes, **options: Any) -> Self:
        """Uniform in (-b, b) with b = sqrt(6 / (in + out)) for a weight (out, in, ...). From Glorot and Bengio 2010."""
        sizes = flat(shape)
        bound = math.sqrt(6 / (sizes[0] + math.prod(sizes[1:])))
        return cls.uniform(*shape, low=-bound, high=bound, **options)

    @classmethod
    def kaiming_uniform(cls, *shape: Sizes, a: float = 0.01, **options: Any) -> Self:
        """Uniform in (-b, b) with b = sqrt(6 / ((1 + a^2) in)) for a weight (out, in, ...). From He et al. 2015, arXiv:1502.01852."""
        bound = math.sqrt(6 / ((1 + a * a) * math.prod(flat(shape)[1:])))
        return cls.uniform(*shape, low=-bound, high=bound, **options)

    @classmethod
    def kaiming_normal(cls, *shape: Sizes, a: float = 0.01, **options: Any) -> Self:
        """Normal with std = sqrt(2 / ((1 + a^2) in)) for a weight (out, in, ...). From He et al. 2015, arXiv:1502.01852."""
        return cls.normal(*shape, std=math.sqrt(2 / ((1 + a * a) * math.prod(flat(shape)[1:]))), **options)

    def multinomial(self, num_samples: int = 1, replacement: bool = False, generator: Generator = default_generator) -> Self:
        """Indices drawn with probabilities in proportion to the weights: (K,) -> (num_samples,), (N, K) -> (N, num_samples), int64.

        Raises ConfigError for weights that are negative, not finite or all 0, and for more samples than there are to draw.
        """
        return ops.multinomial(self, generator.state, num_samples=num_samples, replacement=replacement)

    # --- like another

    def full_like(self, value: float, dtype: Any = None, requires_grad: bool = False) -> Self:
        """All elements `value`, of this tensor's shape and (unless told otherwise) dtype."""
        return self.full(self.shape, value, self.dtype if dtype is None else dtype, requires_grad)

    def zeros_like(self, dtype: Any = None, requires_grad: bool = False) -> Self:
        """Zeros of this tensor's shape and (unless told otherwise) dtype."""
        return self.full_like(0, dtype, requires_grad)

    def ones_like(self, dtype: Any = None, requires_grad: bool = False) -> Self:
        """Ones of this tensor's shape and (unless told otherwise) dtype."""
        return self.full_like(1, dtype, requires_grad)

    empty_like = zeros_like

    def rand_like(self, dtype: Any = None, requires_grad: bool = False, generator: Generator = default_generator) -> Self:
        """Uniform numbers in [0, 1), of this tensor's shape and (unless told otherwise) dtype."""
        return self.rand(self.shape, dtype=self.dtype if dtype is None else dtype, requires_grad=requires_grad, generator=generator)

    def randn_like(self, dtype: Any = None, requires_grad: bool = False, generator: Generator = default_generator) -> Self:
        """Normal numbers, of this tensor's shape and (unless told otherwise) dtype."""
        return self.randn(self.shape, dtype=self.dtype if dtype is None else dtype, requires_grad=requires_grad, generator=generator)

    def one_hot(self, num_classes: int = -1) -> Self:
        """1 at the place that each index names on a new last axis, else 0, int64. -1: one class more than the largest index."""
        if num_classes == -1:
            largest: Any = ops.max(self)
            num_classes = int(largest) + 1
        return ops.one_hot(self, num_classes=num_classes)
