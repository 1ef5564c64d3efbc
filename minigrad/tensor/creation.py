"""New tensors: filled, counted, drawn at random."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad import ops
from minigrad.dtypes import Array, as_dtype, cast, float16, float32, float64, is_half
from minigrad.errors import ConfigError, DTypeError, ShapeError
from minigrad.ops.composite import composite
from minigrad.random import Generator, default_generator, draw, manual_seed
from minigrad.tensor.frame import Frame
from minigrad.tensor.movement import Sizes, flat

if TYPE_CHECKING:
    from typing_extensions import Self


def sizes_of(shape: tuple[Any, ...]) -> tuple[int, ...]:
    """zeros(2, 3), zeros((2, 3)) and zeros([2, 3]) are the same. Raises ShapeError for what is no
    size.
    """
    sizes = flat(shape)
    for n in sizes:
        if not isinstance(n, (int, np.integer)) or n < 0:
            raise ShapeError(
                "shape", f"the size {n!r} in {sizes}", got=sizes, wanted="integers >= 0"
            )
    return tuple(int(n) for n in sizes)


class Creation(Frame):
    """Class methods; `dtype` is float32 unless told otherwise, `generator` the library's default
    one.
    """

    __slots__ = ()

    @classmethod
    def _made(cls, array: Array, dtype: Any, requires_grad: bool) -> Self:
        t: Any = cls._wrap(cast(array, float32 if dtype is None else as_dtype(dtype)))
        return t.requires_grad_() if requires_grad else t

    @classmethod
    def _drawn(
        cls, generator: Generator, how: str, wanted: Any, requires_grad: bool, **settings: Any
    ) -> Self:
        """Random numbers, by an op: a recorded step draws new ones at each replay."""
        made: Any = cls
        t: Any = made.__apply_primitive__(draw, (generator.state,), {"how": how, **settings})
        wanted = float32 if wanted is None else as_dtype(wanted)
        t = t if t.dtype == wanted else ops.cast(t, dtype=wanted)
        return t.requires_grad_() if requires_grad else t

    @classmethod
    @composite
    def full(
        cls, shape: Sizes, value: float, dtype: Any = None, requires_grad: bool = False
    ) -> Self:
        """All elements `value`. Without a dtype float32 for a float, int64 for an integer, bool for
        a bool.
        """
        if not isinstance(value, (int, float, np.number, np.bool_)):
            raise DTypeError("full", f"the value {value!r}", got=value, wanted="a number")
        made: Any = cls
        one = made(value.item() if isinstance(value, np.generic) else value, dtype).data
        return cls._made(np.full(sizes_of((shape,)), one, one.dtype), one.dtype, requires_grad)

    @classmethod
    @composite
    def zeros(cls, *shape: Sizes, dtype: Any = float32, requires_grad: bool = False) -> Self:
        """All elements 0."""
        return cls._made(np.zeros(sizes_of(shape), float32), dtype, requires_grad)

    @classmethod
    @composite
    def ones(cls, *shape: Sizes, dtype: Any = float32, requires_grad: bool = False) -> Self:
        """All elements 1."""
        return cls._made(np.ones(sizes_of(shape), float32), dtype, requires_grad)

    @classmethod
    @composite
    def eye(
        cls, n: int, m: int | None = None, dtype: Any = float32, requires_grad: bool = False
    ) -> Self:
        """The n x m matrix (m = n if not given) with ones on its diagonal."""
        return cls._made(np.eye(n, m, dtype=float32), dtype, requires_grad)

    @classmethod
    @composite
    def arange(
        cls,
        start: float,
        stop: float | None = None,
        step: float = 1,
        dtype: Any = None,
        requires_grad: bool = False,
    ) -> Self:
        """start, start + step, ... below stop; arange(n) is 0 .. n - 1. int64 if all are integers,
        else float32.
        """
        if step == 0:
            raise ConfigError(
                "arange",
                "a step of 0 leads nowhere",
                got=step,
                wanted="step > 0, or < 0 to count down",
            )
        array = np.arange(start, step=step) if stop is None else np.arange(start, stop, step)
        return cls._made(
            array, dtype or (array.dtype if array.dtype.kind == "i" else float32), requires_grad
        )

    @classmethod
    @composite
    def randn(
        cls,
        *shape: Sizes,
        dtype: Any = float32,
        requires_grad: bool = False,
        generator: Generator = default_generator,
    ) -> Self:
        """Normal numbers, mean 0, standard deviation 1."""
        return cls._drawn(generator, "normal", dtype, requires_grad, shape=sizes_of(shape))

    @classmethod
    @composite
    def rand(
        cls,
        *shape: Sizes,
        dtype: Any = float32,
        requires_grad: bool = False,
        generator: Generator = default_generator,
    ) -> Self:
        """Uniform numbers in [0, 1)."""
        return cls.uniform(*shape, dtype=dtype, requires_grad=requires_grad, generator=generator)

    @classmethod
    @composite
    def randint(
        cls,
        *args: Any,
        low: int | None = None,
        high: int | None = None,
        size: Any = None,
        dtype: Any = np.int64,
        generator: Generator = default_generator,
    ) -> Self:
        """Integers low .. high - 1, uniform: randint(high, shape), randint(low, high, shape), or
        randint(*shape, low=0, high=10).
        """
        args = args if size is None else (*args, (size,) if isinstance(size, int) else tuple(size))
        if low is not None or high is not None:
            bounds: Any = (low or 0, 10 if high is None else high, *args)
            return cls.randint(*bounds[:2], sizes_of(args), dtype=dtype, generator=generator)
        *bounds, shape = args if args and isinstance(args[-1], (tuple, list)) else (*args, ())
        if len(bounds) not in (1, 2):
            raise ConfigError(
                "randint",
                f"{args}: which are the bounds?",
                got=args,
                hint="randint(low, high, shape)",
            )
        low, high = (0, *bounds)[-2:]
        sizes = sizes_of(tuple(shape))
        return cls._drawn(generator, "integers", dtype, False, low=low, high=high, shape=sizes)

    @classmethod
    @composite
    def empty(cls, *shape: Sizes, dtype: Any = float32, requires_grad: bool = False) -> Self:
        """For elements that will be written before they are read; they are 0 here, so that nothing
        depends on chance.
        """
        return cls.zeros(*shape, dtype=dtype, requires_grad=requires_grad)

    @classmethod
    @composite
    def linspace(
        cls,
        start: float,
        stop: float,
        steps: int,
        dtype: Any = float32,
        requires_grad: bool = False,
    ) -> Self:
        """`steps` numbers at equal distances from start to stop, both among them."""
        return cls._made(np.linspace(start, stop, steps), dtype, requires_grad)

    # --- drawn at random

    @staticmethod
    def manual_seed(seed: int) -> Generator:
        """Seed the library's default generator, as `minigrad.manual_seed` does."""
        return manual_seed(seed)

    @classmethod
    @composite
    def uniform(
        cls,
        *shape: Sizes,
        low: float = 0.0,
        high: float = 1.0,
        dtype: Any = float32,
        requires_grad: bool = False,
        generator: Generator = default_generator,
    ) -> Self:
        """Uniform numbers in [low, high)."""
        if not low <= high:
            raise ConfigError(
                "uniform", f"low={low} above high={high}", got=(low, high), wanted="low <= high"
            )
        wanted = float32 if dtype is None else as_dtype(dtype)
        drawn = float64 if wanted == float64 else float32
        settings: Any = {"shape": sizes_of(shape), "low": low, "high": high, "dtype": drawn}
        if not (is_half(wanted) and high > low):
            return cls._drawn(generator, "uniform", wanted, requires_grad, **settings)
        t: Any = cls._drawn(generator, "uniform", drawn, False, **settings)
        # Rounding must not reach `high`
        below = max(low, high - abs(high) * (2.0**-10 if wanted == float16 else 2.0**-7))
        stored = ops.cast(ops.cast(t, dtype=wanted), dtype=float32)
        t = ops.cast(ops.where(ops.less(stored, high), t, below), dtype=wanted)
        return t.requires_grad_() if requires_grad else t

    @classmethod
    @composite
    def normal(
        cls,
        *shape: Sizes,
        mean: float = 0.0,
        std: float = 1.0,
        dtype: Any = float32,
        requires_grad: bool = False,
        generator: Generator = default_generator,
    ) -> Self:
        """Normal numbers of the given mean and standard deviation."""
        if not std >= 0:
            raise ConfigError("normal", f"std={std}", got=std, wanted="std >= 0")
        settings: Any = {"shape": sizes_of(shape), "mean": mean, "std": std}
        return cls._drawn(generator, "normal", dtype, requires_grad, **settings)

    @classmethod
    @composite
    def scaled_uniform(cls, *shape: Sizes, **options: Any) -> Self:
        """Uniform in (-b, b) with b = 1 / sqrt(number of elements)."""
        bound = max(math.prod(sizes_of(shape)), 1) ** -0.5
        return cls.uniform(*shape, low=-bound, high=bound, **options)

    @classmethod
    @composite
    def glorot_uniform(cls, *shape: Sizes, **options: Any) -> Self:
        """Uniform in (-b, b) with b = sqrt(6 / (in + out)) for a weight (out, in, ...). From Glorot
        and Bengio 2010.
        """
        sizes = sizes_of(shape)
        bound = math.sqrt(6 / (sizes[0] + math.prod(sizes[1:])))
        return cls.uniform(*shape, low=-bound, high=bound, **options)

    @classmethod
    @composite
    def kaiming_uniform(cls, *shape: Sizes, a: float = 0.01, **options: Any) -> Self:
        """Uniform in (-b, b) with b = sqrt(6 / ((1 + a^2) in)) for a weight (out, in, ...). From He
        et al. 2015, arXiv:1502.01852.
        """
        bound = math.sqrt(6 / ((1 + a * a) * math.prod(sizes_of(shape)[1:])))
        return cls.uniform(*shape, low=-bound, high=bound, **options)

    @classmethod
    @composite
    def kaiming_normal(cls, *shape: Sizes, a: float = 0.01, **options: Any) -> Self:
        """Normal with std = sqrt(2 / ((1 + a^2) in)) for a weight (out, in, ...). From He et al.
        2015, arXiv:1502.01852.
        """
        return cls.normal(
            *shape, std=math.sqrt(2 / ((1 + a * a) * math.prod(sizes_of(shape)[1:]))), **options
        )

    @composite
    def multinomial(
        self,
        num_samples: int = 1,
        replacement: bool = False,
        generator: Generator = default_generator,
    ) -> Self:
        """Indices drawn with probabilities in proportion to the weights: (K,) -> (num_samples,),
        (N, K) -> (N, num_samples), int64.

        Raises ConfigError for weights that are negative, not finite or all 0, and for more samples
        than there are to draw.
        """
        return ops.multinomial(
            self, generator.state, num_samples=num_samples, replacement=replacement
        )

    # --- like another

    @composite
    def full_like(self, value: float, dtype: Any = None, requires_grad: bool = False) -> Self:
        """All elements `value`, of this tensor's shape and (unless told otherwise) dtype."""
        return self.full(self.shape, value, self.dtype if dtype is None else dtype, requires_grad)

    @composite
    def zeros_like(self, dtype: Any = None, requires_grad: bool = False) -> Self:
        """Zeros of this tensor's shape and (unless told otherwise) dtype."""
        return self.full_like(0, dtype, requires_grad)

    @composite
    def ones_like(self, dtype: Any = None, requires_grad: bool = False) -> Self:
        """Ones of this tensor's shape and (unless told otherwise) dtype."""
        return self.full_like(1, dtype, requires_grad)

    @composite
    def empty_like(self, dtype: Any = None, requires_grad: bool = False) -> Self:
        """Of this tensor's shape and (unless told otherwise) dtype, for elements that will be
        written before they are read; they are 0 here.
        """
        return self.full_like(0, dtype, requires_grad)

    @composite
    def rand_like(
        self,
        dtype: Any = None,
        requires_grad: bool = False,
        generator: Generator = default_generator,
    ) -> Self:
        """Uniform numbers in [0, 1), of this tensor's shape and (unless told otherwise) dtype."""
        return self.rand(
            self.shape,
            dtype=self.dtype if dtype is None else dtype,
            requires_grad=requires_grad,
            generator=generator,
        )

    @composite
    def randn_like(
        self,
        dtype: Any = None,
        requires_grad: bool = False,
        generator: Generator = default_generator,
    ) -> Self:
        """Normal numbers, of this tensor's shape and (unless told otherwise) dtype."""
        return self.randn(
            self.shape,
            dtype=self.dtype if dtype is None else dtype,
            requires_grad=requires_grad,
            generator=generator,
        )

    @composite
    def one_hot(self, num_classes: int = -1) -> Self:
        """1 at the place that each index names on a new last axis, else 0, int64. -1: one class
        more than the largest index.
        """
        if num_classes == -1:
            largest: Any = ops.max(self)
            num_classes = int(largest) + 1
        return ops.one_hot(self, num_classes=num_classes)
