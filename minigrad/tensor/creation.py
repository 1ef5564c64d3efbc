"""New tensors: of data, filled, counted, drawn at random."""

from __future__ import annotations

import functools
import inspect
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad import dtypes, ops
from minigrad.arguments import as_float, require
from minigrad.dtypes import Array, DType, as_dtype, cast, float32, float64, is_float, is_half
from minigrad.errors import DTypeError, GradientError, ShapeError
from minigrad.modes import MODE
from minigrad.ops.axis import flat
from minigrad.ops.composite import composite
from minigrad.ops.shape import Sizes
from minigrad.random import Generator, default_generator, draw, manual_seed
from minigrad.tensor.base import Self, TensorBase

SCALARS = frozenset({float, int, bool, type(None)})
Settings = dict[str, Any]  # of random.draw


def _options(
    *,
    dtype: Any = None,
    requires_grad: bool = False,
    device: Any = None,
    generator: Generator = default_generator,
) -> None:
    """The options that creations share, the last one if they draw."""


_OPTIONS = list(inspect.signature(_options).parameters.values())


def sizes_of(shape: tuple[Any, ...]) -> tuple[int, ...]:
    """zeros(2, 3), zeros((2, 3)) and zeros([2, 3]) are the same. Raises ShapeError for anything but
    sizes.
    """
    sizes = flat(shape)
    for n in sizes:
        if not isinstance(n, (int, np.integer)) or n < 0:
            problem = f"sizes must be integers >= 0, got {n!r} in {sizes}"
            raise ShapeError("shape", problem, got=sizes, wanted="sizes >= 0")
    return tuple(int(n) for n in sizes)


def creation(function: Callable[..., Any], draws: bool = False) -> Any:
    """A class method that makes a tensor of the array that `function` returns; if `draws`, of the
    random numbers that the op `random.draw` makes of the settings that it returns. An op, so that a
    recorded step draws new ones at each replay.

    It has more options: dtype (that of the array unless given), requires_grad, device, which can
    only be "cpu", and if it draws, generator.
    """
    inner, call = composite(function), function.__name__

    @functools.wraps(function)
    def made(
        cls: Any,
        *args: Any,
        dtype: Any = None,
        requires_grad: bool = False,
        device: Any = None,
        **options: Any,
    ) -> Any:
        dtypes.on_cpu(device, call)
        wanted = None if dtype is None else as_dtype(dtype, call)
        if draws:
            generator = options.pop("generator", None) or default_generator
            t = _drawn(cls, generator, inner(*args, **options), wanted)
        else:
            array = inner(*args, **options)
            default = float32 if array.dtype == float64 else array.dtype
            t = cls._wrap(cast(array, default if wanted is None else wanted))
        return t.requires_grad_() if requires_grad else t

    signature = inspect.signature(function)
    further = _OPTIONS if draws else _OPTIONS[:-1]
    made.__dict__["__signature__"] = signature.replace(
        parameters=[*signature.parameters.values(), *further], return_annotation="Any"
    )
    return classmethod(made)  # type: ignore[arg-type]


drawing = functools.partial(creation, draws=True)


def _drawn(cls: Any, generator: Generator, settings: Settings, dtype: DType | None) -> Any:
    """Random numbers, in this dtype unless it is None. Rounding to 16 bits stays below `high`."""
    if settings["how"] == "uniform":
        settings["dtype"] = float64 if dtype is not None and dtype == float64 else float32
    t = cls.__apply_primitive__(draw, (generator.state,), settings)
    if dtype is None or dtype == t.dtype:
        return t
    low, high = settings.get("low", 0.0), settings.get("high", 0.0)
    if settings["how"] == "uniform" and is_half(dtype) and high > low:
        below = max(low, high - abs(high) * (2.0**-10 if dtype == dtypes.float16 else 2.0**-7))
        stored = ops.cast(ops.cast(t, dtype=dtype), dtype=float32)
        t = ops.where(ops.less(stored, high), t, below)
    return ops.cast(t, dtype=dtype)


def _uniform(shape: tuple[Any, ...], low: float, high: float) -> Settings:
    return {"how": "uniform", "shape": sizes_of(shape), "low": low, "high": high}


def _normal(shape: tuple[Any, ...], mean: float, std: float) -> Settings:
    return {"how": "normal", "shape": sizes_of(shape), "mean": mean, "std": std}


def _fan_in(shape: tuple[Any, ...]) -> int:
    return math.prod(sizes_of(shape)[1:])


def _like(name: str, what: str) -> Any:
    """The method that calls the creation `name` with this tensor's shape and dtype."""

    def like(self: Any, dtype: Any = None, **options: Any) -> Any:
        dtype = self.dtype if dtype is None else dtype
        return getattr(self, name)(self.shape, dtype=dtype, **options)

    like.__doc__ = f"Return {what} of this tensor's shape and (unless given) dtype."
    return composite(name=f"{name}_like")(like)


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
        device: Any = None,
    ) -> Self:
        """Return a tensor with all elements `value`: without a dtype float32 for a float, int64 for
        an integer, bool for a bool.
        """
        dtypes.on_cpu(device, "full")
        number: Any = value.item() if isinstance(value, (np.generic, TensorBase)) else value
        if not isinstance(number, (int, float)):
            problem = f"the value must be a number, got {value!r}"
            raise DTypeError("full", problem, got=value, wanted="a number")
        one = as_array(number, dtype)
        t: Any = cls._wrap(np.full(sizes_of((shape,)), one, one.dtype))
        return t.requires_grad_() if requires_grad else t

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
        require(step != 0, "arange", "step", step, "> 0, or < 0 to count down")
        return np.arange(start, step=step) if stop is None else np.arange(start, stop, step)

    @creation
    def linspace(start: float, stop: float, steps: int) -> Array:
        """Return `steps` numbers at equal distances from start to stop, both included."""
        return np.linspace(start, stop, steps)

    # --- drawn at random

    manual_seed = staticmethod(manual_seed)

    @drawing
    def randn(*shape: Sizes) -> Settings:
        """Return normal numbers of mean 0 and standard deviation 1."""
        return _normal(shape, 0.0, 1.0)

    @drawing
    def normal(*shape: Sizes, mean: float = 0.0, std: float = 1.0) -> Settings:
        """Return normal numbers of the given mean and standard deviation."""
        return _normal(shape, mean, as_float("normal", "std", std, 0))

    @drawing
    def uniform(*shape: Sizes, low: float = 0.0, high: float = 1.0) -> Settings:
        """Return uniform numbers in [low, high)."""
        require(low <= high, "uniform", "low", low, f"<= high = {high}")
        return _uniform(shape, low, high)

    @drawing
    def rand(*shape: Sizes) -> Settings:
        """Return uniform numbers in [0, 1)."""
        return _uniform(shape, 0.0, 1.0)

    @drawing
    def randint(
        *args: Any, low: int | None = None, high: int | None = None, size: Any = None
    ) -> Settings:
        """Return uniform integers low .. high - 1: randint(high, shape), randint(low, high, shape),
        or randint(*shape, low=0, high=10).
        """
        args = args if size is None else (*args, (size,) if isinstance(size, int) else tuple(size))
        if low is not None or high is not None:
            args = (low or 0, 10 if high is None else high, flat(args))
        *bounds, shape = args if args and isinstance(args[-1], (tuple, list)) else (*args, ())
        hint = "randint(low, high, shape)"
        require(len(bounds) in (1, 2), "randint", "bounds", tuple(bounds), "one or two", hint)
        low, high = (0, *bounds)[-2:]
        return {"how": "integers", "low": low, "high": high, "shape": sizes_of(tuple(shape))}

    @drawing
    def randperm(n: int) -> Settings:
        """Return the integers 0 .. n - 1 in random order."""
        return {"how": "permutation", "n": operator.index(n)}

    @drawing
    def scaled_uniform(*shape: Sizes) -> Settings:
        """Return uniform numbers in (-b, b) with b = 1 / sqrt(number of elements)."""
        bound = max(math.prod(sizes_of(shape)), 1) ** -0.5
        return _uniform(shape, -bound, bound)

    @drawing
    def glorot_uniform(*shape: Sizes) -> Settings:
        """Return uniform numbers in (-b, b) with b = sqrt(6 / (in + out)) for a weight
        (out, in, ...). From Glorot and Bengio 2010.
        """
        bound = math.sqrt(6 / (sizes_of(shape)[0] + _fan_in(shape)))
        return _uniform(shape, -bound, bound)

    @drawing
    def kaiming_uniform(*shape: Sizes, a: float = 0.01) -> Settings:
        """Return uniform numbers in (-b, b) with b = sqrt(6 / ((1 + a^2) in)) for a weight
        (out, in, ...). From He et al. 2015, arXiv:1502.01852.
        """
        bound = math.sqrt(6 / ((1 + a * a) * _fan_in(shape)))
        return _uniform(shape, -bound, bound)

    @drawing
    def kaiming_normal(*shape: Sizes, a: float = 0.01) -> Settings:
        """Return normal numbers with std = sqrt(2 / ((1 + a^2) in)) for a weight (out, in, ...).
        From He et al. 2015, arXiv:1502.01852.
        """
        return _normal(shape, 0.0, math.sqrt(2 / ((1 + a * a) * _fan_in(shape))))

    @composite
    def multinomial(
        self,
        num_samples: int = 1,
        replacement: bool = False,
        *,
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
    def bernoulli(self, p: Any = None, *, generator: Generator = default_generator) -> Self:
        """Return 1 with probability p, else 0, in this tensor's shape and dtype; p is a number or a
        tensor, unless given this tensor itself. No gradient flows.

        Raises ConfigError for a p outside 0 .. 1.
        """
        chance = self._as_tensor(self if p is None else p)
        known = cast(chance.data, dtypes.computing(chance.dtype))
        good = ((known >= 0) & (known <= 1)).all()
        require(good, "bernoulli", "p", chance, "probabilities, from 0 to 1")
        wide = float64 if float64 in (self.dtype, chance.dtype) else float32
        unit = self.rand(self.shape, dtype=wide, generator=generator)
        return ops.cast(ops.less(unit, chance), dtype=self.dtype)

    @composite
    def dropout(
        self, p: float = 0.5, training: bool = True, *, generator: Generator = default_generator
    ) -> Self:
        """Return x with each element 0 with probability p, else scaled by 1 / (1 - p); x itself
        outside training. From Srivastava et al. 2014.
        """
        require(0 <= p <= 1, "dropout", "p", p, "a probability, from 0 to 1")
        if not training or p == 0:
            return self
        outputs: Any = ops.dropout(self, generator.state, p=p)
        return outputs[0]

    # --- like another

    @composite
    def full_like(self, value: float, dtype: Any = None, **options: Any) -> Self:
        """Return a tensor of this one's shape and, unless given, dtype, filled with `value`."""
        return self.full(self.shape, value, dtype=self.dtype if dtype is None else dtype, **options)

    zeros_like, ones_like = _like("zeros", "zeros"), _like("ones", "ones")
    empty_like = _like("empty", "zeros, to be written before they are read,")
    rand_like = _like("rand", "uniform numbers in [0, 1)")
    randn_like = _like("randn", "normal numbers")


# --- what people pass for a tensor: numbers, nested lists, arrays of any library


def as_array(data: Any, dtype: Any) -> Array:
    """Return a new array of `data`. Python floats become float32, Python integers int64; arrays,
    numpy scalars and tensors, also inside lists, keep their dtype.

    Raises DTypeError for anything but numbers, for ragged lists, and for an integer beyond int64.
    """
    wanted = None if dtype is None else as_dtype(dtype, "Tensor")
    if isinstance(data, TensorBase):
        array, found = np.array(data.data), data.dtype
    elif isinstance(data, (np.ndarray, np.generic)):
        array, found = np.array(data), as_dtype(data.dtype, "Tensor")
    else:
        array, found = _from_lists(data, wanted)
    return cast(array, wanted or found)


def _from_lists(data: Any, wanted: DType | None) -> tuple[Array, DType]:
    """The array that numpy makes of nested lists, and the dtype that it should have."""
    python, typed = set[type](), set[DType]()
    try:
        array = np.array(_plain(data, python, typed))
    except GradientError:
        raise
    except (ValueError, TypeError, RuntimeError):  # ragged lists, a tensor on another device
        array = np.array(None)
    # numpy turns integers beyond int64 into uint64, floats or objects
    beyond = wanted is None and not typed and float not in python and array.dtype.kind in "uf"
    if array.dtype.kind not in "biuf" or (beyond and array.size):
        place, what = _odd_one(data, "input")
        problem = f"{place} is {what}" if what else "an integer that int64 does not hold"
        numbers = "numbers in lists of equal length, integers from -2**63 to 2**63 - 1"
        hint = "pad ragged lists; tokenizers make integers of text; uint64 goes up to 2**64 - 1"
        raise DTypeError("Tensor", problem, what or data, numbers, hint)
    floats = [as_dtype(d) for d in typed if is_float(d)]
    if floats:  # a Python number never changes the dtype
        return array, dtypes.promote(*floats)
    return array, float32 if float in python or not array.size else array.dtype


def _plain(data: Any, python: set[type], typed: set[DType]) -> Any:
    """Nested lists with arrays in place of tensors. The types of Python numbers are added to
    `python`, the dtypes of all others to `typed`.
    """
    if isinstance(data, (list, tuple)):
        kinds = set(map(type, data))
        if not kinds <= SCALARS:
            return [_plain(x, python, typed) for x in data]
        python |= kinds
    elif isinstance(data, TensorBase):
        if data.requires_grad and MODE.get().grad:
            problem = "a list of tensors that require gradients, which a copy would lose"
            hint = "minigrad.stack keeps them; t.detach() if none are wanted"
            raise GradientError("Tensor", problem, data.shape, hint=hint)
        typed.add(data.dtype)
        return np.asarray(data)
    elif hasattr(data, "__array__"):
        data = data if isinstance(data, np.generic) else np.asarray(data)
        typed.add(data.dtype)
    else:
        python.update(t for t in (float, int) if isinstance(data, t))
    return data


def _odd_one(data: Any, path: str) -> tuple[str, str]:
    """The first place in nested lists that is not a number or breaks the shape, and what it is."""
    if not isinstance(data, (list, tuple)):
        kind = getattr(getattr(data, "dtype", None), "kind", "-")
        good = isinstance(data, (int, float, TensorBase)) or kind in "biuf"
        return ("", "") if good else (path, f"{data!r}, not a number")
    sizes = [len(x) if isinstance(x, (list, tuple)) else np.shape(x) for x in data]
    for i, x in enumerate(data):
        place, what = _odd_one(x, f"{path}[{i}]")
        if not what and sizes[i] != sizes[0]:
            place, what = f"{path}[{i}]", f"of size {sizes[i]}, {path}[0] of {sizes[0]}: ragged"
        if what:
            return place, what
    return "", ""
