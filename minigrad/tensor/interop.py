"""Tensors beside other libraries: numpy's functions called on them, and DLPack."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad import ops
from minigrad.dtypes import Array, as_dtype, is_float
from minigrad.errors import DTypeError, GradientError, MinigradError, ShapeError
from minigrad.tensor.frame import Frame

if TYPE_CHECKING:
    from typing_extensions import Self

_UFUNCS: dict[Any, Callable[..., Any]] = {
    np.add: ops.add,
    np.subtract: ops.sub,
    np.multiply: ops.mul,
    np.divide: ops.div,
    np.floor_divide: ops.floor_div,
    np.remainder: ops.mod,
    np.power: ops.pow,
    np.negative: ops.neg,
    np.absolute: ops.abs,
    np.fabs: ops.abs,
    np.sign: ops.sign,
    np.matmul: ops.matmul,
    np.maximum: ops.maximum,
    np.minimum: ops.minimum,
    np.logaddexp: ops.logaddexp,
    np.exp: ops.exp,
    np.exp2: ops.exp2,
    np.expm1: ops.expm1,
    np.log: ops.log,
    np.log2: ops.log2,
    np.log10: ops.log10,
    np.log1p: ops.log1p,
    np.sqrt: ops.sqrt,
    np.square: ops.square,
    np.reciprocal: ops.reciprocal,
    np.sin: ops.sin,
    np.cos: ops.cos,
    np.tan: ops.tan,
    np.arcsin: ops.asin,
    np.arccos: ops.acos,
    np.arctan: ops.atan,
    np.sinh: ops.sinh,
    np.cosh: ops.cosh,
    np.tanh: ops.tanh,
    np.floor: ops.floor,
    np.ceil: ops.ceil,
    np.trunc: ops.trunc,
    np.rint: ops.round,
    np.isnan: ops.isnan,
    np.isinf: ops.isinf,
    np.isfinite: ops.isfinite,
    np.equal: ops.equal,
    np.not_equal: ops.not_equal,
    np.less: ops.less,
    np.less_equal: ops.less_equal,
    np.greater: ops.greater,
    np.greater_equal: ops.greater_equal,
    np.logical_and: ops.logical_and,
    np.logical_or: ops.logical_or,
    np.logical_xor: ops.logical_xor,
    np.logical_not: ops.logical_not,
    np.bitwise_and: ops.bitwise_and,
    np.bitwise_or: ops.bitwise_or,
    np.bitwise_xor: ops.bitwise_xor,
    np.invert: ops.bitwise_not,
    np.left_shift: ops.left_shift,
    np.right_shift: ops.right_shift,
}


def _only(**others: Any) -> None:
    """Refuse numpy's options that tensors lack. The TypeError becomes an error with a hint."""
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise TypeError(f"no {' or '.join(given)}")


# numpy's name of an argument -> ours, where Tensor's methods do not take numpy's as well
_NAMES = {
    "keepdims": "keepdim",
    "ddof": "correction",
    "shift": "shifts",
    "k": "diagonal",
    "a_min": "min",
    "a_max": "max",
    "axis1": "dim1",
    "axis2": "dim2",
}
_IGNORED = {"kind", "stable", "subok"}  # every sort is the stable one, and a Tensor has no subclass


def _by_numpy_s_signature(function: Callable[..., Any], method: str) -> Callable[..., Any]:
    """Tensor's `method`, called with the argument names and defaults of numpy's `function`.

    An option that the method lacks must have numpy's default. `axis=None` means the flat array
    where the method has no such default of its own.
    """
    theirs = inspect.signature(function)

    def call(*args: Any, **kwargs: Any) -> Any:
        bound = theirs.bind(*args, **kwargs)
        bound.apply_defaults()
        (_, x), *given = bound.arguments.items()
        given += given.pop()[1].items() if given and given[-1][0] == "kwargs" else ()
        ours = inspect.signature(getattr(type(x), method)).parameters
        options: dict[str, Any] = {}
        for name, value in given:
            default = theirs.parameters[name].default if name in theirs.parameters else None
            target = _NAMES.get(name, name)
            if value is default and not (value is None or isinstance(value, (int, float))):
                continue  # numpy's mark for "not given"
            if target in ours:
                if value is not None or target == "axis":
                    options[target] = value
            elif value is not default and name not in _IGNORED:
                raise TypeError(f"no {name}")
        if options.get("axis", 0) is None and ours["axis"].default not in (None, inspect._empty):
            x, options["axis"] = x.reshape(-1), 0
        return getattr(x, method)(**options)

    return call


def _joined(op: str) -> Callable[..., Any]:
    def call(xs: Any, axis: int | None = 0, out: Any = None) -> Any:
        _only(out=out)
        first = next(x for x in xs if isinstance(x, Frame))
        tensors = [first._as_tensor(x) for x in xs]
        return getattr(type(first), op)(
            [t.reshape(-1) for t in tensors] if axis is None else tensors, dim=axis or 0
        )

    return call


def _transposed(x: Any, axes: Any = None) -> Any:
    return x.T if axes is None else x.permute(*axes)


def _dot(a: Any, b: Any, out: Any = None) -> Any:
    """numpy's: the last axis of a against the last but one of b, all others of a before all others
    of b.
    """
    _only(out=out)
    a, b = (b._as_tensor(a), b) if isinstance(b, Frame) else (a, a._as_tensor(b))
    if not a.ndim or not b.ndim:
        return a * b
    if b.ndim <= 2:
        return a @ b
    others = [i for i in range(b.ndim) if i != b.ndim - 2]
    columns = b.permute(b.ndim - 2, *others)
    return (a @ columns.reshape(b.shape[-2], -1)).reshape(*a.shape[:-1], *columns.shape[1:])


def _squeezed(x: Any, axis: Any = None) -> Any:
    for i in () if axis is None else axis if isinstance(axis, tuple) else (axis,):
        if x.size(i) != 1:
            raise ShapeError(
                "np.squeeze",
                f"axis {i} of {x.shape} has size {x.size(i)}, not 1",
                got=x.shape,
                hint="t.squeeze() leaves such axes",
            )
    return x.squeeze(axis)


def _flipped(m: Any, axis: Any = None) -> Any:
    return m.flip(*range(m.ndim)) if axis is None else m.flip(axis)


def _sorted(
    a: Any, axis: int | None = -1, kind: Any = None, order: Any = None, *, stable: Any = None
) -> Any:
    _only(order=order)
    return a.reshape(-1).sort(0)[0] if axis is None else a.sort(axis)[0]


def _swapped(a: Any, axis1: int, axis2: int) -> Any:
    return a.transpose(axis1, axis2)


def _where(condition: Any, x: Any, y: Any) -> Any:
    return ops.where(condition, x, y)


_SAME = """
    all any argmax argmin argsort cumprod cumsum diagonal max mean min prod reshape roll round std sum
    tril triu var
"""
# numpy's function -> the method that answers for it
_METHODS: dict[Any, str] = {
    **{getattr(np, name): name for name in _SAME.split()},
    np.amax: "max",
    np.amin: "min",
    np.expand_dims: "unsqueeze",
    np.clip: "clamp",
    np.broadcast_to: "expand",
}
_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    **{function: _by_numpy_s_signature(function, name) for function, name in _METHODS.items()},
    np.flip: _flipped,
    np.sort: _sorted,
    np.swapaxes: _swapped,
    np.einsum: ops.einsum,
    np.where: _where,
    np.dot: _dot,
    np.transpose: _transposed,
    np.squeeze: _squeezed,
    np.concatenate: _joined("cat"),
    np.stack: _joined("stack"),
}

# What only looks: the gradient of the answer is nobody's business.
_LOOKS = {
    np.shape,
    np.ndim,
    np.size,
    np.allclose,
    np.isclose,
    np.array_equal,
    np.array_equiv,
    np.array2string,
    np.array_repr,
    np.array_str,
    np.result_type,
    np.can_cast,
    np.shares_memory,
    np.may_share_memory,
    np.iscomplexobj,
    np.isrealobj,
}


class Interop(Frame):
    """numpy's functions work on tensors: those that minigrad has give tensors and gradients, the
    others arrays, as long as no gradient is lost.
    """

    __slots__ = ()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        me: Any = self
        return np.array(me.numpy(), dtype, copy=copy)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        op = _UFUNCS.get(ufunc)
        if op is not None and method == "__call__" and not options:
            return op(*inputs)
        name = f"np.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}")
        targets = options.get("out", ())
        if (
            op is not None
            and method == "__call__"
            and len(options) == 1
            and len(targets) == 1
            and isinstance(targets[0], Frame)
        ):
            return _written(name, op(*inputs), targets[0])
        return _on_arrays(name, getattr(ufunc, method), inputs, options)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        name = f"np.{function.__name__}"
        ours = _FUNCTIONS.get(function)
        if ours is None or (function is np.where and len(args) != 3):
            return _on_arrays(name, function, args, kwargs, looks=function in _LOOKS)
        try:
            return ours(*args, **kwargs)
        except (TypeError, AttributeError) as error:
            if isinstance(error, MinigradError):
                raise
            raise DTypeError(
                name,
                f"with {', '.join(kwargs) or 'these arguments'} does not work on a Tensor "
                f"({error})",
                got=tuple(kwargs),
                hint="call it on t.detach().numpy(), or the method of Tensor of that name",
            ) from error

    # --- DLPack, the exchange of memory without a copy

    def __dlpack__(self, **options: Any) -> Any:
        if self.requires_grad:
            raise GradientError(
                "__dlpack__",
                "of a tensor that requires a gradient, which another library cannot see",
                hint="export t.detach()",
            )
        array = self._exportable()
        if min(array.strides, default=0) < 0:  # PyTorch ends the process over a negative stride
            if options.pop("copy", None) is False:
                raise BufferError(
                    "__dlpack__: a tensor that runs backwards in memory cannot be exported without "
                    "a copy"
                )
            array = np.ascontiguousarray(array)
        return array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[Any, int]:
        return self._exportable().__dlpack_device__()

    def _exportable(self) -> Array:
        if self.data.dtype.fields:
            raise DTypeError(
                "__dlpack__",
                "numpy cannot export bfloat16",
                got=self.dtype,
                hint="export t.float()",
            )
        return self.data

    @classmethod
    def from_dlpack(cls, source: Any) -> Self:
        """A tensor on the memory of another library's array (CPU), not a copy: each sees what the
        other writes.

        Raises DTypeError for what does not speak DLPack, or not on a CPU.
        """
        try:
            array = np.from_dlpack(source)
        except (AttributeError, BufferError, TypeError, RuntimeError) as error:
            raise DTypeError(
                "from_dlpack",
                f"{type(source).__name__}: {error}",
                got=type(source),
                wanted="an array on the CPU",
                hint="move it to the CPU, detach it, or go through numpy",
            ) from error
        as_dtype(array.dtype, "from_dlpack")
        return cls._wrap(array)


def _written(name: str, result: Any, target: Any) -> Any:
    """`target` with the result in it, as numpy's `out=` wants. Raises where shape, dtype or a
    gradient would be lost.
    """
    if result.shape != target.shape:
        raise ShapeError(
            name,
            f"out has shape {target.shape}, the result {result.shape}",
            got=target.shape,
            wanted=result.shape,
        )
    if is_float(result.dtype) and not is_float(target.dtype):
        raise DTypeError(
            name,
            f"out is {target.dtype}, the result {result.dtype}",
            got=target.dtype,
            wanted=result.dtype,
        )
    if result.requires_grad:
        raise GradientError(
            name,
            "out= would lose the gradient of the result",
            hint="leave out= away: the result is a tensor",
        )
    return target.assign(result)


def _on_arrays(
    name: str, function: Callable[..., Any], args: Any, kwargs: Any, looks: bool = False
) -> Any:
    """numpy's own function on the tensors' arrays. Raises GradientError where a gradient would be
    lost on the way.
    """
    found: list[Any] = []
    if any(
        isinstance(x, Frame)
        for x in (
            kwargs.get("out"),
            *(kwargs["out"] if isinstance(kwargs.get("out"), tuple) else ()),
        )
    ):
        raise DTypeError(
            name,
            "cannot write into a Tensor",
            got="out",
            hint="leave out= away, and t.assign(result) afterwards",
        )
    plain_args, plain_kwargs = (
        _as_arrays(args, found),
        {key: _as_arrays(value, found) for key, value in kwargs.items()},
    )
    if not looks and any(x.requires_grad for x in found):
        raise GradientError(
            name,
            "has no gradient in minigrad, and the tensor wants one",
            got=name,
            hint="a method of Tensor or an op of your own has one; t.detach() if none is needed",
        )
    return function(*plain_args, **plain_kwargs)


def _as_arrays(x: Any, found: list[Any]) -> Any:
    """x with arrays in place of tensors, also inside lists and tuples; the tensors are added to
    `found`.
    """
    if isinstance(x, Frame):
        found.append(x)
        return np.asarray(x)
    if isinstance(x, (list, tuple)):
        return type(x)(_as_arrays(y, found) for y in x)
    return x
