"""minigrad: tensors with exact gradients on numpy, and the transformer built on them."""

import importlib
import typing

import minigrad.start  # noqa: F401 (first, for it watches over the rest)
from minigrad import dtypes, func, functional, functions, nn, ops, optim, random
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
    from minigrad import testing as testing
    from minigrad.compiler import jit
    from minigrad.dtypes import bool_ as bool, int8 as int8, int16 as int16, uint8 as uint8  # noqa: F401
    from minigrad.files import load, save
    from minigrad.functions import (
        abs as abs,
        acos as acos,
        add as add,
        all as all,
        any as any,
        argmax as argmax,
        argmin as argmin,
        argsort as argsort,
        asin as asin,
        atan as atan,
        ceil as ceil,
        chunk as chunk,
        clamp as clamp,
        cos as cos,
        cosh as cosh,
        cummax as cummax,
        cumprod as cumprod,
        cumsum as cumsum,
        diagonal as diagonal,
        div as div,
        empty_like as empty_like,
        erf as erf,
        exp as exp,
        exp2 as exp2,
        expm1 as expm1,
        flatten as flatten,
        flip as flip,
        floor as floor,
        from_dlpack as from_dlpack,
        full_like as full_like,
        gather as gather,
        isfinite as isfinite,
        isinf as isinf,
        isnan as isnan,
        lerp as lerp,
        log as log,
        log1p as log1p,
        log2 as log2,
        log10 as log10,
        log_softmax as log_softmax,
        logaddexp as logaddexp,
        logical_and as logical_and,
        logical_not as logical_not,
        logical_or as logical_or,
        logsumexp as logsumexp,
        masked_select as masked_select,
        matmul as matmul,
        max as max,
        maximum as maximum,
        mean as mean,
        meshgrid as meshgrid,
        min as min,
        minimum as minimum,
        mul as mul,
        multinomial as multinomial,
        nonzero as nonzero,
        ones_like as ones_like,
        permute as permute,
        pow as pow,
        prod as prod,
        rand_like as rand_like,
        randn_like as randn_like,
        reciprocal as reciprocal,
        relu as relu,
        repeat_interleave as repeat_interleave,
        reshape as reshape,
        roll as roll,
        round as round,
        rsqrt as rsqrt,
        scatter as scatter,
        sigmoid as sigmoid,
        sign as sign,
        sin as sin,
        sinh as sinh,
        softmax as softmax,
        sort as sort,
        split as split,
        sqrt as sqrt,
        square as square,
        squeeze as squeeze,
        std as std,
        std_mean as std_mean,
        sub as sub,
        sum as sum,
        tan as tan,
        tanh as tanh,
        topk as topk,
        transpose as transpose,
        tril as tril,
        triu as triu,
        trunc as trunc,
        unsqueeze as unsqueeze,
        var as var,
        var_mean as var_mean,
        zeros_like as zeros_like,
    )

__version__ = "0.1.0"


def __getattr__(name: str) -> typing.Any:
    """What is imported, or told from builtins of its name, when it is asked for.

    The compiler (`jit`) takes as long to import as everything else, the files (`load`, `save`)
    import OpenSSL. Every other subpackage (`minigrad.models`, `minigrad.train`) is imported the
    first time it is named. Functions on tensors (`minigrad.exp`, `sum`, `max`) and `bool` come one
    by one, so that `from minigrad import *` leaves the builtins alone.
    """
    if name in functions.__all__:
        return getattr(functions, name)
    if name in ("bool", "int8", "int16", "uint8"):
        return dtypes.as_dtype(name)
    if name == "jit":
        from minigrad.compiler import jit

        return jit
    if name in ("load", "save"):
        from minigrad import files

        return getattr(files, name)
    if not name.startswith("_"):
        try:
            return importlib.import_module(f"minigrad.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"minigrad.{name}":
                raise
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
