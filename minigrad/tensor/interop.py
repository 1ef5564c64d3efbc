"""Tensors and other libraries: numpy's functions called on them, and DLPack."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad import ops
from minigrad.arguments import Names, one_of
from minigrad.dtypes import Array, as_dtype
from minigrad.errors import DTypeError, GradientError, MinigradError, ShapeError, kind_of
from minigrad.ops import composed, shape
from minigrad.tensor.base import Self, TensorBase

_NO_AXIS_OF_0D = (np.mean, np.var, np.std, np.flip, np.linalg.norm)  # numpy's others take 0 and -1
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
    default = names.defaults.get("axis")
    flattens = function is np.repeat or (default is not None and function is not np.diff)

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
        if flattens and (options.get("axis", 0) is None or not x.ndim):
            x, options["axis"] = ops.flatten(x), options.get("axis") or 0
        if function in _NO_AXIS_OF_0D and not x.ndim and options.get("axis") is not None:
            raise ShapeError(function.__name__, "an axis of a tensor without axes", got=())
        if names.rest in options:
            rest = options.pop(names.rest)
            return ours(x, *(rest if isinstance(rest, (tuple, list)) else (rest,)), **options)
        return ours(x, **options) if names.positional else ours(*x, **options)

    return call


def _concatenated(arrays: Any, axis: int | None = 0) -> Any:
    # One Tensor is the sequence of its rows.
    xs = [ops.flatten(x) for x in arrays] if axis is None else list(arrays)
    return shape.cat(xs, axis=axis or 0)


def _stacked(arrays: Any, axis: int = 0) -> Any:
    return ops.stack(list(arrays), axis=axis)


def _transposed(a: Any, axes: Any = None) -> Any:
    return ops.permute(a, order=tuple(reversed(range(a.ndim)) if axes is None else axes))


def _sorted(a: Any, axis: int | None = -1, kind: Any = None, *, stable: Any = None) -> Any:
    return ops.sort(*((ops.flatten(a), 0) if axis is None else (a, axis)))[0]


def _both_tensors(a: Any, b: Any) -> tuple[Any, Any]:
    return (b._as_tensor(a), b) if isinstance(b, TensorBase) else (a, a._as_tensor(b))


def _outer(a: Any, b: Any) -> Any:
    return composed.outer(*_both_tensors(a, b))


def _dot(a: Any, b: Any) -> Any:
    """numpy's: the last axis of a against the last but one of b, all others of a before all others
    of b.
    """
    a, b = _both_tensors(a, b)
    if not a.ndim or not b.ndim:
        return a * b
    return a @ b if b.ndim <= 2 else ops.tensordot(a, b, ([-1], [-2]))


def _reshaping(function: Any) -> Callable[..., Any]:
    # numpy says the shape, and refuses what cannot be.
    return lambda a, *args, **how: ops.reshape(a, shape=function(a.data, *args, **how).shape)


def _rolled(a: Any, shift: Any, axis: Any = None) -> Any:
    """numpy's: several shifts of one axis, or one of several axes, follow each other."""
    x = ops.flatten(a) if axis is None else a
    pairs = np.broadcast(shift, 0 if axis is None else axis)
    return ops.reshape(ops.roll(x, *zip(*pairs, strict=True)), shape=a.shape)


def _triangle(op: Any) -> Callable[..., Any]:
    def of_rows(m: Any, k: int = 0) -> Any:  # numpy makes a square of a vector
        return op(ops.expand(m, shape=m.shape * 2) if m.ndim == 1 else m, k)

    return of_rows


def _trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return ops.sum(ops.diagonal(a, offset, axis1, axis2), axis=-1)


def _einsum(*operands: Any, optimize: Any = False) -> Any:
    return ops.einsum(*operands)  # contracted from left to right, whatever `optimize` says


def _searchsorted(a: Any, v: Any, side: str = "left") -> Any:
    one_of("searchsorted", "side", side, ("left", "right"))
    return ops.searchsorted(*_both_tensors(a, v), right=side == "right")


# numpy's functions whose arguments are not those of one op
_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.concatenate: _concatenated,
    np.stack: _stacked,
    np.transpose: _transposed,
    np.sort: _sorted,
    np.squeeze: _reshaping(np.squeeze),
    np.where: ops.where,
    np.dot: _dot,
    np.einsum: _einsum,
    np.expand_dims: _reshaping(np.expand_dims),
    np.roll: _rolled,
    np.tril: _triangle(ops.tril),
    np.triu: _triangle(ops.triu),
    np.trace: _trace,
    np.outer: _outer,
    np.searchsorted: _searchsorted,
}
# All others say on their op what they answer for.
_UFUNCS: dict[Any, Callable[..., Any]] = {}
for _op in (*vars(composed).values(), *vars(shape).values(), *vars(ops).values()):
    for _function in getattr(_op, "numpy", ()) if callable(_op) else ():
        if isinstance(_function, np.ufunc):
            _UFUNCS[_function] = _op
        elif _function not in _FUNCTIONS:
            _FUNCTIONS[_function] = _adapted(_function, _op)


class Interop(TensorBase):
    """numpy's functions work on tensors: those that minigrad has give tensors and gradients, the
    others arrays, as long as no gradient is lost.
    """

    __slots__ = ()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        me: Any = self
        return np.array(me.numpy(), dtype, copy=copy)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        called = method == "__call__"
        name = f"np.{ufunc.__name__}" + ("" if called else f".{method}")
        op = _UFUNCS.get(ufunc) if called else None
        if op is not None and not options:
            return op(*inputs)
        target, *more = options.get("out") or (None,)
        if op is not None and len(options) == 1 and not more and isinstance(target, TensorBase):
            return _written(name, op(*inputs), target)
        return _on_arrays(name, getattr(ufunc, method), inputs, options)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        name = f"np.{function.__name__}"
        ours = _FUNCTIONS.get(function)
        if ours is None or (function is np.where and len(args) != 3):
            return _on_arrays(name, function, args, kwargs)
        try:
            return ours(*args, **kwargs)
        except MinigradError:
            raise
        except (TypeError, AttributeError, ValueError) as error:
            given = ", ".join(kwargs) or "these arguments"
            problem = f"with {given} does not work on a Tensor ({error})"
            hint = "call it on t.detach().numpy(), or the method of Tensor of that name"
            if "dtype" in kwargs:
                hint = "convert the result: .cast(dtype)"
            kind = kind_of(error, ShapeError)
            raise kind(name, problem, got=tuple(kwargs), hint=hint) from error

    # --- DLPack, the exchange of memory without a copy

    def __dlpack__(self, **options: Any) -> Any:
        if self.requires_grad:
            problem = "of a tensor that requires a gradient, which another library cannot see"
            raise GradientError("__dlpack__", problem, hint="export t.detach()")
        array = self._exportable()
        if min(array.strides, default=0) < 0:  # PyTorch ends the process over a negative stride
            if options.pop("copy", None) is False:
                raise BufferError("__dlpack__: a tensor that runs backwards in memory needs a copy")
            array = np.ascontiguousarray(array)
        return array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[Any, int]:
        return self._exportable().__dlpack_device__()

    def _exportable(self) -> Array:
        if self.data.dtype.fields:
            problem, hint = "numpy cannot export bfloat16", "export t.float()"
            raise DTypeError("__dlpack__", problem, got=self.dtype, hint=hint)
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
            problem = f"{type(source).__name__}: {error}"
            hint = "move it to the CPU, detach it, or go through numpy"
            raise DTypeError("from_dlpack", problem, got=type(source), hint=hint) from error
        as_dtype(array.dtype, "from_dlpack")
        return cls._wrap(array)


def _written(name: str, result: Any, target: Any) -> Any:
    """`target` with the result in it, as numpy's `out=` wants. Raises where shape, dtype or a
    gradient would be lost.
    """
    if result.requires_grad:
        problem = "out= would lose the gradient of the result"
        raise GradientError(name, problem, hint="leave out= away: the result is a tensor")
    return target.assign(target._like_self(name, result))


def _on_arrays(name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """numpy's own function on the tensors' arrays. Raises GradientError where it gives floats, or
    writes them, and a gradient would be lost on the way.
    """
    found: list[Any] = []
    out = kwargs.get("out")
    if any(isinstance(x, TensorBase) for x in (out if isinstance(out, tuple) else (out,))):
        hint = "leave out= away, and t.assign(result) afterwards"
        raise DTypeError(name, "cannot write into a Tensor", got="out", hint=hint)
    plain = _as_arrays(args, found), {k: _as_arrays(v, found) for k, v in kwargs.items()}
    wanted = any(x.requires_grad for x in found)
    result = None if wanted and out is not None else function(*plain[0], **plain[1])
    if wanted and (out is not None or _holds_floats(result)):
        problem = "has no gradient in minigrad, and the tensor wants one"
        hint = "a method of Tensor or an op of your own has one; t.detach() if none is needed"
        raise GradientError(name, problem, got=name, hint=hint)
    return result


def _holds_floats(x: Any) -> bool:
    if isinstance(x, (list, tuple)):
        return any(map(_holds_floats, x))
    return isinstance(x, float) or getattr(getattr(x, "dtype", None), "kind", "") in tuple("fc")


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
