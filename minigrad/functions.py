"""The functions that are called without a tensor in hand, `minigrad.zeros(2, 3)`, `minigrad.cat([a,
b])`, and those that are called on one, `minigrad.exp(x)`, which are Tensor's methods. `from
minigrad import *` brings the first alone, since some of the others are named as builtins are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from minigrad.errors import ShapeError
from minigrad.ops.composite import composite
from minigrad.tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")

arange, empty, eye, full, linspace, ones, zeros = (
    Tensor.arange,
    Tensor.empty,
    Tensor.eye,
    Tensor.full,
    Tensor.linspace,
    Tensor.ones,
    Tensor.zeros,
)
rand, randint, randn = Tensor.rand, Tensor.randint, Tensor.randn
from_dlpack = Tensor.from_dlpack


@composite
def cat(tensors: Iterable[Any], axis: int = 0) -> Tensor:
    """The tensors one after the other along `axis`; all other sizes must agree."""
    first, *others = _tensors(tensors, "cat")
    return first.cat(*others, axis=axis)


@composite
def stack(tensors: Iterable[Any], axis: int = 0) -> Tensor:
    """The tensors along a new axis `axis`; all shapes must agree."""
    first, *others = _tensors(tensors, "stack")
    return first.stack(*others, axis=axis)


def _tensors(tensors: Iterable[Any], call: str) -> list[Tensor]:
    found = [x if isinstance(x, Tensor) else Tensor(x) for x in tensors]
    if not found:
        raise ShapeError(call, "of no tensors", got=0, wanted="one or more")
    return found


def where(condition: Any, x: Any, y: Any) -> Tensor:
    """x where `condition`, of bools, is true, else y. A NaN in the branch not taken stays out; of gradients
    too, where it was made elementwise.
    """
    return (condition if isinstance(condition, Tensor) else Tensor(condition)).where(x, y)


def einsum(formula: str, *operands: Any) -> Tensor:
    """The sum of products over the letters that the result lacks: einsum("bij,bjk->bik", a, b) is a
    batched matrix product.
    """
    result: Tensor = Tensor.einsum(formula, *operands)
    return result


# --- methods as functions


def _function(method: Callable[Concatenate[Tensor, P], R]) -> Callable[Concatenate[Any, P], R]:
    """The method as a function of a tensor, an array, a list or a number. A number beside a tensor
    stays a number, so that it neither changes the dtype nor is rounded.
    """

    @functools.wraps(method)
    def _called(x: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if isinstance(x, (int, float, np.generic)) and not {Tensor, np.ndarray}.isdisjoint(
            map(type, args)
        ):
            others: Any = (Tensor(y) if isinstance(y, np.ndarray) else y for y in args)
            return method(x, *others, **kwargs)  # type: ignore[arg-type]
        return method(x if isinstance(x, Tensor) else Tensor(x), *args, **kwargs)

    return _called


zeros_like = _function(Tensor.zeros_like)
ones_like = _function(Tensor.ones_like)
full_like = _function(Tensor.full_like)
empty_like = _function(Tensor.empty_like)
rand_like = _function(Tensor.rand_like)
randn_like = _function(Tensor.randn_like)
tril = _function(Tensor.tril)
triu = _function(Tensor.triu)
meshgrid = _function(Tensor.meshgrid)
multinomial = _function(Tensor.multinomial)
maximum = _function(Tensor.maximum)
minimum = _function(Tensor.minimum)
exp = _function(Tensor.exp)
exp2 = _function(Tensor.exp2)
expm1 = _function(Tensor.expm1)
log = _function(Tensor.log)
log2 = _function(Tensor.log2)
log10 = _function(Tensor.log10)
log1p = _function(Tensor.log1p)
sqrt = _function(Tensor.sqrt)
rsqrt = _function(Tensor.rsqrt)
square = _function(Tensor.square)
reciprocal = _function(Tensor.reciprocal)
sin = _function(Tensor.sin)
cos = _function(Tensor.cos)
tan = _function(Tensor.tan)
asin = _function(Tensor.asin)
acos = _function(Tensor.acos)
atan = _function(Tensor.atan)
sinh = _function(Tensor.sinh)
cosh = _function(Tensor.cosh)
tanh = _function(Tensor.tanh)
erf = _function(Tensor.erf)
sigmoid = _function(Tensor.sigmoid)
relu = _function(Tensor.relu)
abs = _function(Tensor.abs)
sign = _function(Tensor.sign)
floor = _function(Tensor.floor)
ceil = _function(Tensor.ceil)
trunc = _function(Tensor.trunc)
round = _function(Tensor.round)
clamp = _function(Tensor.clamp)
isnan = _function(Tensor.isnan)
isinf = _function(Tensor.isinf)
isfinite = _function(Tensor.isfinite)
logical_and = _function(Tensor.logical_and)
logical_or = _function(Tensor.logical_or)
logical_not = _function(Tensor.logical_not)
logaddexp = _function(Tensor.logaddexp)
lerp = _function(Tensor.lerp)
sum = _function(Tensor.sum)
mean = _function(Tensor.mean)
max = _function(Tensor.max)
min = _function(Tensor.min)
prod = _function(Tensor.prod)
var = _function(Tensor.var)
std = _function(Tensor.std)
var_mean = _function(Tensor.var_mean)
std_mean = _function(Tensor.std_mean)
any = _function(Tensor.any)
all = _function(Tensor.all)
argmax = _function(Tensor.argmax)
argmin = _function(Tensor.argmin)
logsumexp = _function(Tensor.logsumexp)
softmax = _function(Tensor.softmax)
log_softmax = _function(Tensor.log_softmax)
cumsum = _function(Tensor.cumsum)
cumprod = _function(Tensor.cumprod)
cummax = _function(Tensor.cummax)
sort = _function(Tensor.sort)
argsort = _function(Tensor.argsort)
topk = _function(Tensor.topk)
gather = _function(Tensor.gather)
scatter = _function(Tensor.scatter)
masked_select = _function(Tensor.masked_select)
nonzero = _function(Tensor.nonzero)
matmul = _function(Tensor.matmul)
add = _function(Tensor.add)
sub = _function(Tensor.sub)
mul = _function(Tensor.mul)
div = _function(Tensor.div)
pow = _function(Tensor.pow)
reshape = _function(Tensor.reshape)
permute = _function(Tensor.permute)
transpose = _function(Tensor.transpose)
squeeze = _function(Tensor.squeeze)
unsqueeze = _function(Tensor.unsqueeze)
flatten = _function(Tensor.flatten)
flip = _function(Tensor.flip)
roll = _function(Tensor.roll)
split = _function(Tensor.split)
chunk = _function(Tensor.chunk)
diagonal = _function(Tensor.diagonal)
repeat_interleave = _function(Tensor.repeat_interleave)

__all__ = [
    "abs",
    "acos",
    "add",
    "all",
    "any",
    "arange",
    "argmax",
    "argmin",
    "argsort",
    "asin",
    "atan",
    "cat",
    "ceil",
    "chunk",
    "clamp",
    "cos",
    "cosh",
    "cummax",
    "cumprod",
    "cumsum",
    "diagonal",
    "div",
    "einsum",
    "empty",
    "empty_like",
    "erf",
    "exp",
    "exp2",
    "expm1",
    "eye",
    "flatten",
    "flip",
    "floor",
    "from_dlpack",
    "full",
    "full_like",
    "gather",
    "isfinite",
    "isinf",
    "isnan",
    "lerp",
    "linspace",
    "log",
    "log1p",
    "log2",
    "log10",
    "log_softmax",
    "logaddexp",
    "logical_and",
    "logical_not",
    "logical_or",
    "logsumexp",
    "masked_select",
    "matmul",
    "max",
    "maximum",
    "mean",
    "meshgrid",
    "min",
    "minimum",
    "mul",
    "multinomial",
    "nonzero",
    "ones",
    "ones_like",
    "permute",
    "pow",
    "prod",
    "rand",
    "rand_like",
    "randint",
    "randn",
    "randn_like",
    "reciprocal",
    "relu",
    "repeat_interleave",
    "reshape",
    "roll",
    "round",
    "rsqrt",
    "scatter",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "softmax",
    "sort",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "std_mean",
    "sub",
    "sum",
    "tan",
    "tanh",
    "topk",
    "transpose",
    "tril",
    "triu",
    "trunc",
    "unsqueeze",
    "var",
    "var_mean",
    "where",
    "zeros",
    "zeros_like",
]
