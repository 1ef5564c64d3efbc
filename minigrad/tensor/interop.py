"""Tensors beside other libraries: numpy's functions called on them, and DLPack."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad import ops
from minigrad.dtypes import Array, as_dtype, is_float
from minigrad.errors import DTypeError, GradientError, MinigradError, ShapeError
from minigrad.ops import composed, shape
from minigrad.spelling import Names
from minigrad.tensor.base import TensorBase

if TYPE_CHECKING:
    from typing_extensions import Self

_IGNORED = ("kind", "stable", "subok", "copy")  # every sort is stable; a Tensor has no subclass


def _adapted(function: Callable[..., Any], ours: Any) -> Callable[..., Any]:
    """The op `ours`, called with the argument names, order and defaults of numpy's `function`.

    An option that ours lacks must have numpy's default. `axis=None` means the flat array where ours
    has another default.
    """
    names = Names(ours)
    try:
        theirs = inspect.signature(function)
    except ValueError:  # older numpys give no signature for what is written in C (bincount)
        theirs = inspect.signature(ours)
    flattens = names.defaults.get("axis") is not None

    def target_of(name: str, place: int) -> str:
        known = names.spelled(name)
        if known or theirs.parameters[name].default is not inspect.Parameter.empty:
            return known
        return names.positional[place] if place < len(names.positional) else ""

    targets = {name: target_of(name, i) for i, name in enumerate(theirs.parameters)}

    def call(*args: Any, **kwargs: Any) -> Any:
        bound = theirs.bind(*args, **kwargs)
        bound.apply_defaults()
        (_, x), *given = bound.arguments.items()
        given += given.pop()[1].items() if given and given[-1][0] == "kwargs" else ()
        options: dict[str, Any] = {}
        for name, value in given:
            target = targets.get(name) or names.spelled(name)
            default = theirs.parameters[name].default if name in theirs.parameters else None
            if value is None and target != "axis":
                continue
            if target or name == "dtype":
                # numpy marks an option that is not given by an object of its own.
                if value is not default or isinstance(value, (int, float, type(None))):
                    options[target or name] = value
            elif value is not default and name not in _IGNORED:
                raise TypeError(f"no {name}")
        if flattens and options.get("axis", 0) is None:
            x, options["axis"] = ops.flatten(x), 0
        if names.rest in options:
            rest = options.pop(names.rest)
            return ours(x, *(rest if isinstance(rest, (tuple, list)) else (rest,)), **options)
        return ours(x, **options) if names.positional else ours(*x, **options)

    return call


def _only(**others: Any) -> None:
    """Refuse numpy's options that tensors lack. The TypeError becomes an error with a hint."""
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise TypeError(f"no {' or '.join(given)}")


def _concatenated(arrays: Any, axis: int | None = 0, out: Any = None) -> Any:
    _only(out=out)
    return shape.cat([ops.flatten(x) for x in arrays] if axis is None else arrays, axis=axis or 0)


def _stacked(arrays: Any, axis: int = 0, out: Any = None) -> Any:
    _only(out=out)
    return ops.stack(arrays, axis=axis)


def _transposed(a: Any, axes: Any = None) -> Any:
    return ops.permute(a, order=tuple(reversed(range(a.ndim)) if axes is None else axes))


def _sorted(
    a: Any, axis: int | None = -1, kind: Any = None, order: Any = None, *, stable: Any = None
) -> Any:
    _only(order=order)
    return ops.sort(ops.flatten(a) if axis is None else a, axis or 0 if axis is None else axis)[0]


def _where(condition: Any, x: Any, y: Any) -> Any:
    return ops.where(condition, x, y)


def _dot(a: Any, b: Any, out: Any = None) -> Any:
    """numpy's: the last axis of a against the last but one of b, all others of a before all others
    of b.
    """
    _only(out=out)
    a, b = (b._as_tensor(a), b) if isinstance(b, TensorBase) else (a, a._as_tensor(b))
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
    return ops.squeeze(x, axis)


# numpy's functions whose arguments are not those of one op
_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.concatenate: _concatenated,
    np.stack: _stacked,
    np.transpose: _transposed,
    np.sort: _sorted,
    np.squeeze: _squeezed,
    np.where: _where,
    np.dot: _dot,
    np.einsum: ops.einsum,
}
# All others say on their op what they answer for.
_UFUNCS: dict[Any, Callable[..., Any]] = {}
for _op in (*vars(composed).values(), *vars(shape).values(), *vars(ops).values()):
    for _function in getattr(_op, "numpy", ()) if callable(_op) else ():
        if isinstance(_function, np.ufunc):
            _UFUNCS[_function] = _op
        elif _function not in _FUNCTIONS:
            _FUNCTIONS[_function] = _adapted(_function, _op)

# Functions that only look at their arguments, so that no gradient is lost.
_LOOKS = {
    np.shape,
    np.ndim,
    np.size,
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


class Interop(TensorBase):
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
            and isinstance(targets[0], TensorBase)
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
        isinstance(x, TensorBase)
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
    if isinstance(x, TensorBase):
        found.append(x)
        return np.asarray(x)
    if isinstance(x, (list, tuple)):
        return type(x)(_as_arrays(y, found) for y in x)
    return x
