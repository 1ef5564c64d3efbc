"""minigrad: tensors with exact gradients on numpy, and the transformer built on them."""

import typing

import minigrad.start  # noqa: F401 (first, for it watches over the rest)
from minigrad import func, functional, nn, ops, optim, random
from minigrad.autograd import enable_grad, grad, is_grad_enabled, no_grad, set_grad_enabled
from minigrad.dtypes import bfloat16, float16, float32, float64, int32, int64
from minigrad.func import checkpoint
from minigrad.functions import (
    arange,
    cat,
    einsum,
    empty,
    eye,
    full,
    linspace,
    ones,
    rand,
    randint,
    randn,
    stack,
    where,
    zeros,
)
from minigrad.listeners import debug, profile
from minigrad.primitive import primitive
from minigrad.random import Generator, manual_seed
from minigrad.tensor import Tensor

if typing.TYPE_CHECKING:
    from minigrad.compiler import jit
    from minigrad.files import load, save

__version__ = "0.1.0"


def __getattr__(name: str) -> typing.Any:
    """`jit`, `load` and `save`, imported when they are asked for: the compiler takes as long as all the rest, the files bring OpenSSL along."""
    if name == "jit":
        from minigrad.compiler import jit

        return jit
    if name in ("load", "save"):
        from minigrad import files

        return getattr(files, name)
    raise AttributeError(f"module 'minigrad' has no attribute {name!r}")


__all__ = [
    "Generator",
    "Tensor",
    "arange",
    "bfloat16",
    "cat",
    "checkpoint",
    "debug",
    "einsum",
    "empty",
    "enable_grad",
    "eye",
    "float16",
    "float32",
    "float64",
    "full",
    "func",
    "functional",
    "grad",
    "int32",
    "int64",
    "is_grad_enabled",
    "jit",
    "linspace",
    "load",
    "manual_seed",
    "nn",
    "no_grad",
    "ones",
    "ops",
    "optim",
    "primitive",
    "profile",
    "rand",
    "randint",
    "randn",
    "random",
    "save",
    "set_grad_enabled",
    "stack",
    "where",
    "zeros",
]
