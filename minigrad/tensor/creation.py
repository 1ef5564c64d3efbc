"""New tensors: filled, counted, drawn at random."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minigrad import ops
from minigrad.dtypes import Array, as_dtype, asked_of_to, cast, float16, float32, float64, is_half
from minigrad.errors import ConfigError, DTypeError, ShapeError
from minigrad.ops.composite import composite
from minigrad.ops.shape import Sizes, flat
from minigrad.random import Generator, default_generator, draw, manual_seed
from minigrad.tensor.base import TensorBase

if TYPE_CHECKING:
    from typing_extensions import Self


def sizes_of(shape: tuple[Any, ...]) -> tuple[int, ...]:
    """zeros(2, 3), zeros((2, 3)) and zeros([2, 3]) are the same. Raises ShapeError for anything but
    sizes.
    """
    sizes = flat(shape)
    for n in sizes:
        if not isinstance(n, (int, np.integer)) or n < 0:
            raise ShapeError("shape", f"the size {n!r} in {sizes}", got=sizes, wanted="sizes >= 0")
    return tuple(int(n) for n in sizes)


class Draw(NamedTuple):
    """Random numbers, which an op draws, so that a recorded step draws new ones at each replay."""

    generator: Generator
    settings: dict[str, Any]


def creation(function: Callable[..., Array | Draw]) -> Any:
    """A class method that makes a tensor of what `function` returns, with three options more: dtype
    (that of the array unless given), requires_grad, and device, which can only be "cpu".
    """

    inner = composite(function)

    @functools.wraps(function)
    def made(
        cls: Any,
        *args: Any,
        dtype: Any = None,
        requires_grad: bool = False,
        device: Any = None,
        **options: Any,
    ) -> Any:
        if device is not None:
            asked_of_to((device,), {}, function.__name__)
        found = inner(*args, **options)
        if isinstance(found, Draw):
            t = cls.__apply_primitive__(draw, (found.generator.state,), found.settings)
        else:
            t = cls._wrap(cast(found, float32 if found.dtype == float64 else found.dtype))
            t = (
                cls._wrap(cast(found, as_dtype(dtype, function.__name__)))
                if dtype is not None
                else t
            )
        wanted = t.dtype if dtype is None else as_dtype(dtype, function.__name__)
        t = t if t.dtype == wanted else ops.cast(t, dtype=wanted)
        return t.requires_grad_() if requires_grad else t

    made.__dict__["creates"] = True  # tools/make_docs.py adds the three options to the signature
    made_as: Any = classmethod(made)  # type: ignore[arg-type]
    return made_as


class Creation(TensorBase):
    """Class methods. `dtype` is float32 unless given, `generator` the library's default one."""

    __slots__ = ()

    @classmethod
    @composite
    def full(
        cls,
        shape: Sizes,
        value: float,
        dtype: Any = None,
        requires_grad: bool = False,
        device: Any = "cpu",
    ) -> Self:
        """Return a tensor with all elements `value`: without a dtype float32 for a float, int64 for
        an integer, bool for a bool.
        """
        if not isinstance(value, (int, float, np.number, np.bool_)):
            raise DTypeError("full", f"the value {value!r}", got=value, wanted="a number")
        made: Any = cls
        number = value.item() if isinstance(value, np.generic) else value
        one = made(number, dtype, device=device).data
        t = made._wrap(np.full(sizes_of((shape,)), one, one.dtype))
        result: Self = t.requires_grad_() if requires_grad else t
        return result

    @creation
    def zeros(*shape: Sizes) -> Array:
        """Return a tensor with all elements 0."""
        return np.zeros(sizes_of(shape), float32)

    @creation
    def ones(*shape: Sizes) -> Array:
        """Return a tensor with all elements 1."""
        return np.ones(sizes_of(shape), float32)

    @creation
    def empty(*shape: Sizes) -> Array:
        """Return a tensor for elements that will be written before they are read. They are 0 here,
        so that nothing depends on chance.
        """
        return np.zeros(sizes_of(shape), float32)

    @creation
    def eye(n: int, m: int | None = None) -> Array:
        """Return the n x m matrix (m = n if not given) with ones on its diagonal."""
        return np.eye(n, m, dtype=float32)

    @creation
    def arange(start: float, stop: float | None = None, step: float = 1) -> Array:
        """Return start, start + step, ... below stop; arange(n) is 0 .. n - 1. int64 if all are
        integers, else float32.
        """
        if step == 0:
            raise ConfigError(
                "arange", "a step of 0", got=step, wanted="step > 0, or < 0 to count down"
            )
        return np.arange(start, step=step) if stop is None else np.arange(start, stop, step)

    @creation
    def linspace(start: float, stop: float, steps: int) -> Array:
        """Return `steps` numbers at equal distances from start to stop, both included."""
        return np.linspace(start, stop, steps)

    # --- drawn at random

    @staticmethod
    def manual_seed(seed: int) -> Generator:
        """Seed the library's default generator, as `minigrad.manual_seed` does."""
        return manual_seed(seed)

    @creation
    def randn(*shape: Sizes, generator: Generator = default_generator) -> Draw:
        """Return normal numbers of mean 0 and standard deviation 1."""
        return Draw(generator, {"how": "normal", "shape": sizes_of(shape)})

    @creation
    def normal(
        *shape: Sizes,
        mean: float = 0.0,
        std: float = 1.0,
        generator: Generator = default_generator,
    ) -> Draw:
        """Return normal numbers of the given mean and standard deviation."""
        if not std >= 0:
            raise ConfigError("normal", f"std={std}", got=std, wanted="std >= 0")
        settings = {"how": "normal", "shape": sizes_of(shape), "mean": mean, "std": std}
        return Draw(generator, settings)

    @classmethod
    @composite
    def uniform(
        cls,
        *shape: Sizes,
        low: float = 0.0,
        high: float = 1.0,
        dtype: Any = float32,
        requires_grad: bool = False,
        device: Any = "cpu",
        generator: Generator = default_generator,
    ) -> Self:
        """Return uniform numbers in [low, high)."""
        if not low <= high:
            raise ConfigError(
                "uniform", f"low={low} above high={high}", got=(low, high), wanted="low <= high"
            )
        asked_of_to((device or "cpu",), {}, "uniform")
        wanted = float32 if dtype is None else as_dtype(dtype)
        made: Any = cls
        settings = {"shape": sizes_of(shape), "low": low, "high": high}
        settings |= {"how": "uniform", "dtype": float64 if wanted == float64 else float32}
        t: Any = made.__apply_primitive__(draw, (generator.state,), settings)
        if is_half(wanted) and high > low:  # rounding must not reach `high`
            below = max(low, high - abs(high) * (2.0**-10 if wanted == float16 else 2.0**-7))
            stored = ops.cast(ops.cast(t, dtype=wanted), dtype=float32)
            t = ops.where(ops.less(stored, high), t, below)
        t = t if t.dtype == wanted else ops.cast(t, dtype=wanted)
        result: Self = t.requires_grad_() if requires_grad else t
        return result

    @classmethod
    @composite
    def rand(cls, *shape: Sizes, **options: Any) -> Self:
        """Return uniform numbers in [0, 1)."""
        return cls.uniform(*shape, **options)

    @creation
    def randint(
        *args: Any,
        low: int | None = None,
        high: int | None = None,
        size: Any = None,
        generator: Generator = default_generator,
    ) -> Draw:
        """Return uniform integers low .. high - 1: randint(high, shape), randint(low, high, shape),
        or randint(*shape, low=0, high=10).
        """
        args = args if size is None else (*args, (size,) if isinstance(size, int) else tuple(size))
        if low is not None or high is not None:
            args = (low or 0, 10 if high is None else high, flat(args))
        *bounds, shape = args if args and isinstance(args[-1], (tuple, list)) else (*args, ())
        if len(bounds) not in (1, 2):
            raise ConfigError(
                "randint", f"{args} names no bounds", got=args, hint="randint(low, high, shape)"
            )
        low, high = (0, *bounds)[-2:]
        settings = {"how": "integers", "low": low, "high": high, "shape": sizes_of(tuple(shape))}
        return Draw(generator, settings)

    @creation
    def randperm(n: int, *, generator: Generator = default_generator) -> Array:
        """Return the integers 0 .. n - 1 in random order."""
        return np.asarray(generator.permutation(operator.index(n)))

    @classmethod
    @composite
    def scaled_uniform(cls, *shape: Sizes, **options: Any) -> Self:
        """Return uniform numbers in (-b, b) with b = 1 / sqrt(number of elements)."""
        bound = max(math.prod(sizes_of(shape)), 1) ** -0.5
        return cls.uniform(*shape, low=-bound, high=bound, **options)

    @classmethod
    @composite
    def glorot_uniform(cls, *shape: Sizes, **options: Any) -> Self:
        """Return uniform numbers in (-b, b) with b = sqrt(6 / (in + out)) for a weight
        (out, in, ...). From Glorot and Bengio 2010.
        """
        sizes = sizes_of(shape)
        bound = math.sqrt(6 / (sizes[0] + math.prod(sizes[1:])))
        return cls.uniform(*shape, low=-bound, high=bound, **options)

    @classmethod
    @composite
    def kaiming_uniform(cls, *shape: Sizes, a: float = 0.01, **options: Any) -> Self:
        """Return uniform numbers in (-b, b) with b = sqrt(6 / ((1 + a^2) in)) for a weight
        (out, in, ...). From He et al. 2015, arXiv:1502.01852.
        """
        bound = math.sqrt(6 / ((1 + a * a) * math.prod(sizes_of(shape)[1:])))
        return cls.uniform(*shape, low=-bound, high=bound, **options)

    @classmethod
    @composite
    def kaiming_normal(cls, *shape: Sizes, a: float = 0.01, **options: Any) -> Self:
        """Return normal numbers with std = sqrt(2 / ((1 + a^2) in)) for a weight (out, in, ...).
        From He et al. 2015, arXiv:1502.01852.
        """
        std = math.sqrt(2 / ((1 + a * a) * math.prod(sizes_of(shape)[1:])))
        made: Any = cls
        result: Self = made.normal(*shape, std=std, **options)
        return result

    @composite
    def multinomial(
        self,
        num_samples: int = 1,
        replacement: bool = False,
        generator: Generator = default_generator,
    ) -> Self:
        """Return indices drawn with probabilities in proportion to the weights: (K,) ->
        (num_samples,), (N, K) -> (N, num_samples), int64.

        Raises ConfigError for weights that are negative, not finite or all 0, and for more samples
        than can be drawn.
        """
        return ops.multinomial(
            self, generator.state, num_samples=num_samples, replacement=replacement
        )

    @composite
    def dropout(
        self, p: float = 0.5, training: bool = True, generator: Generator = default_generator
    ) -> Self:
        """Return x with each element 0 with probability p, else scaled by 1 / (1 - p); x itself
        outside training. From Srivastava et al. 2014.
        """
        if not 0 <= p <= 1:
            raise ConfigError("dropout", f"p={p} is not a probability", got=p, wanted=(0, 1))
        if not training or p == 0:
            return self
        outputs: Any = ops.dropout(self, generator.state, p=p)
        result: Self = outputs[0]
        return result

    # --- like another

    @composite
    def full_like(self, value: float, dtype: Any = None, requires_grad: bool = False) -> Self:
        """Return a tensor of this one's shape and (unless given) dtype with all elements `value`."""
        return self.full(self.shape, value, self.dtype if dtype is None else dtype, requires_grad)

    @composite
    def zeros_like(self, dtype: Any = None, requires_grad: bool = False) -> Self:
        """Return zeros of this tensor's shape and (unless given) dtype."""
        return self.full_like(0, dtype, requires_grad)

    @composite
    def ones_like(self, dtype: Any = None, requires_grad: bool = False) -> Self:
        """Return ones of this tensor's shape and (unless given) dtype."""
        return self.full_like(1, dtype, requires_grad)

    @composite
    def empty_like(self, dtype: Any = None, requires_grad: bool = False) -> Self:
        """Return a tensor of this one's shape and (unless given) dtype, for elements that will be
        written before they are read; they are 0 here.
        """
        return self.full_like(0, dtype, requires_grad)

    @composite
    def rand_like(self, dtype: Any = None, **options: Any) -> Self:
        """Return uniform numbers in [0, 1) of this tensor's shape and (unless given) dtype."""
        return self.rand(self.shape, dtype=self.dtype if dtype is None else dtype, **options)

    @composite
    def randn_like(self, dtype: Any = None, **options: Any) -> Self:
        """Return normal numbers of this tensor's shape and (unless given) dtype."""
        made: Any = self
        wanted = self.dtype if dtype is None else dtype
        result: Self = made.randn(self.shape, dtype=wanted, **options)
        return result
