"""minigrad: tensors with exact gradients on numpy, and the transformer built on them."""

import importlib as _importlib
import math as _math
from types import ModuleType as _ModuleType

import minigrad.start  # first: it handles Ctrl-C while the rest is imported
from minigrad import dtypes, func, functional, ops, random
from minigrad.autograd import grad
from minigrad.counterparts import missing as _missing
from minigrad.dtypes import bfloat16, float16, float32, float64, int32, int64
from minigrad.func import checkpoint
from minigrad.listeners import debug, profile
from minigrad.modes import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from minigrad.precision import (
    get_matmul_precision,
    set_float32_matmul_precision,
    set_matmul_precision,
)
from minigrad.primitive import primitive
from minigrad.random import Generator, manual_seed
from minigrad.tensor import Tensor, functions as _functions
from minigrad.tensor.functions import as_tensor, from_numpy, is_tensor, tensor

__version__ = "0.1.0"

_DTYPES = ("bool", "uint8", "int8", "int16", "half", "float", "double", "int", "long")
_CONSTANTS = {"pi": _math.pi, "e": _math.e, "inf": _math.inf, "nan": _math.nan, "newaxis": None}


def __getattr__(name: str) -> object:
    """Find a name when it is first asked for.

    Functions of tensors (`minigrad.exp`, `sum`, `max`) and dtypes named as builtins are (`bool`)
    are no attributes, so that `from minigrad import *` leaves the builtins alone. The compiler
    (`jit`) takes as long to import as everything else, the files (`load`, `save`) import OpenSSL;
    every other subpackage (`minigrad.nn`, `minigrad.optim`) is imported too when it is named.
    """
    if name in _DTYPES:
        return dtypes.as_dtype(name)
    if name in _CONSTANTS:
        return _CONSTANTS[name]
    if (found := _functions.function(name)) is not None:
        return found
    if name == "jit":
        from minigrad.compiler import jit

        return jit
    if name in ("load", "save"):
        from minigrad import files

        return getattr(files, name)
    if not name.startswith("_"):
        try:
            return _importlib.import_module(f"minigrad.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"minigrad.{name}":
                raise
    raise _missing("minigrad", name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_functions.names(), *_DTYPES, *_CONSTANTS})


# What `from minigrad import *` gives: what is imported above, and some of what is found when asked.
_PARTS = ("func", "functional", "nn", "ops", "optim", "random", "jit", "load", "save")
_MAKE = ("arange", "empty", "eye", "full", "linspace", "ones", "rand", "randint", "randn", "zeros")
_NAMES = [n for n, x in globals().copy().items() if n[0] != "_" and not isinstance(x, _ModuleType)]
__all__ = sorted([*_NAMES, *_PARTS, *_MAKE, "cat", "einsum", "stack", "where"])
