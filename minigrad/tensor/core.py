"""The Tensor: an array, its place on the tape, and the one door that every op goes through.

The door (`__apply_primitive__`) runs the forward on arrays, leaves a node if a gradient is wanted,
and tells the listener if there is one. The methods that people call are in the files beside this
one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad import autograd, ops
from minigrad.autograd import MODE, UNDER_NO_GRAD, Node, NoNode, user_line
from minigrad.counterparts import TENSOR, missing
from minigrad.dtypes import (
    Array,
    DType,
    as_dtype,
    asked_of_to,
    bool_,
    cast,
    computing,
    float32,
    is_float,
    is_half,
    name,
    promote,
)
from minigrad.errors import DTypeError, GradientError, MinigradError, ShapeError
from minigrad.heap import keep_freed_memory
from minigrad.modes import ERROR_STATE, SILENT
from minigrad.ops.composite import composite
from minigrad.primitive import Primitive
from minigrad.tensor.creation import Creation
from minigrad.tensor.explain import explain
from minigrad.tensor.indexing import Indexing
from minigrad.tensor.interop import Interop
from minigrad.tensor.surface import Surface

if TYPE_CHECKING:
    from typing_extensions import Self

_SCALARS = frozenset({float, int, bool, type(None)})


class Tensor(Surface, Indexing, Creation, Interop):
    """An n-dimensional array with a gradient.

    Tensor(data, dtype=None, requires_grad=False): a copy of `data`, which may be a number, nested
    lists of them, an array or a tensor. Python floats become float32; arrays keep their dtype.

    data: the numpy array behind it.  grad: d loss / d this, after loss.backward().  requires_grad:
        whether that is wanted.
    """

    __slots__ = ()

    def __init__(
        self, data: Any, dtype: Any = None, requires_grad: bool = False, device: Any = None
    ) -> None:
        if device is not None:
            asked_of_to((device,), {}, "Tensor")
        self.data = as_array(data, dtype)
        self.grad = self._node = None
        self._index, self._version, self._wants = 0, [0, None], False
        if requires_grad:
            self.requires_grad_()

    # --- the door

    @classmethod
    def __apply_primitive__(
        cls, op: Primitive, operands: Sequence[Any], params: dict[str, Any]
    ) -> Any:
        arrays: list[Any] = []
        wants_grad, plain = False, True
        for x in operands:
            if isinstance(x, Tensor):
                a = x.data
                if x._wants:
                    wants_grad = True
                if a.dtype is not float32:
                    plain = False
                arrays.append(a)
            elif type(x) in _SCALARS:
                arrays.append(x)
            elif op.kind == "random" and isinstance(x, np.ndarray):
                arrays.append(x)  # the generator's state, which the op advances
            else:
                return cls.__apply_primitive__(
                    op, [as_operand(x, op.name) for x in operands], params
                )
        mode = MODE.get()
        dtype, token = None, None
        if not plain:
            arrays, dtype = _harmonise(op, arrays)
        try:
            if plain or any(isinstance(a, np.ndarray) and is_float(a.dtype) for a in arrays):
                token = ERROR_STATE.set(SILENT)
            out = (
                op.forward(*arrays, **params)
                if mode.listener is None
                else mode.listener.run(op, arrays, params)
            )
        except MinigradError:
            raise
        except (
            ValueError,
            TypeError,
            IndexError,
            AttributeError,
            OverflowError,
            ZeroDivisionError,
        ) as error:
            raise explain(op, arrays, params, error) from error
        finally:
            if token is not None:
                ERROR_STATE.reset(token)
        if type(out) is np.ndarray and dtype is None and op.kind not in ("view", "effect"):
            outputs: tuple[Any, ...] = (_wrap(out),)
        else:
            outputs = _wrap_outputs(op, operands, params, out, dtype)
        if wants_grad and (op.rule is not None or op.composed_form is not None):
            node: Any = Node(op, operands, params, outputs) if mode.grad else UNDER_NO_GRAD
            for i, y in enumerate(outputs):
                if y.data.dtype is float32 or is_float(y.data.dtype):
                    y._node, y._index, y._wants = node, i, mode.grad
        else:
            _hand_on(op, operands, outputs, wants_grad)
        if mode.listener is not None:
            mode.listener.done(op, operands, params, outputs)
        return outputs[0] if op.outputs == 1 else outputs

    if not TYPE_CHECKING:  # type checkers look at the names that there are

        def __getattr__(self, name):
            raise missing("'Tensor'", name, TENSOR.get(name, ""))

    # --- what it is

    @property
    def is_leaf(self) -> bool:
        """True for a tensor that no taped op has made: backward() stores gradients in leaves."""
        return not isinstance(self._node, Node)

    @property
    def grad_fn(self) -> Node | None:
        """The node of the tape that this tensor came from (`.op`, `.operands`, `.where`); None for
        a leaf.
        """
        return self._node if isinstance(self._node, Node) else None

    @property
    def requires_grad(self) -> bool:
        """Whether d loss / d this is wanted. To set it is to call requires_grad_()."""
        return self._wants

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        self.requires_grad_(wanted)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Ask for gradients with respect to this leaf. Raises DTypeError for integers and bools,
        GradientError for a computed tensor.
        """
        if requires_grad and not is_float(self.data.dtype):
            raise DTypeError(
                "requires_grad_",
                f"requires_grad=True, but a tensor of {name(self.dtype)} cannot have a gradient",
                got=self.dtype,
                wanted=float32,
                hint="convert it first: .float()",
            )
        if not requires_grad and isinstance(self._node, Node):
            raise GradientError(
                "requires_grad_", "only a leaf can stop requiring a gradient", hint="use .detach()"
            )
        self._wants = requires_grad
        if requires_grad and not isinstance(self._node, Node):
            self._node = None
        return self

    # --- gradients

    def backward(
        self, gradient: Any = None, retain_graph: bool = False, create_graph: bool = False
    ) -> None:
        """Add d self / d leaf to `.grad` of every leaf that self was computed from.

        gradient: the cotangent to start from, of self's shape; needed unless self has one element.
        retain_graph: keep what the pass needs, so that it can be done again.  create_graph: make
            the gradients differentiable.
        Raises NotScalarError, NoGradientError, NoGradModeError, BackwardTwiceError, GraphFreedError
        or StaleValueError.
        """
        autograd.backward(self, gradient, retain_graph=retain_graph, create_graph=create_graph)

    @composite
    def gradient(
        self, *targets: Self, gradient: Any = None, create_graph: bool = False
    ) -> tuple[Self, ...]:
        """d self / d target for each target, as a tuple; .grad is not touched. Zeros for a target
        that self does not depend on.
        """
        return autograd.grad(
            self, targets, gradient, create_graph=create_graph, materialize_grads=True
        )

    def detach(self) -> Self:
        """The same memory as a leaf without a gradient; a change in place is seen, and noticed, by
        both.
        """
        t = self._wrap(self.data)
        t._version, t._is_view = self._version, True
        return t

    # --- in and out

    def assign(self, value: Any) -> Self:
        """Write `value` (broadcast, cast) into this tensor's memory, and return it.

        Raises GradientError where autograd could not follow: on a tensor that requires a gradient,
        outside no_grad().
        """
        if self.requires_grad and MODE.get().grad:
            raise GradientError(
                "assign",
                "the tensor requires a gradient, which does not flow through a change in place",
                hint="with minigrad.no_grad(): t.assign(...), or compute a new tensor",
            )
        value = value if isinstance(value, Tensor) else type(self)._wrap(as_array(value, None))
        ops.assign(self, value)
        return self

    def numpy(self) -> Array:
        """The elements as a read-only numpy array: the same memory, not a copy; bfloat16 comes out
        as float32.
        """
        self._read("numpy()")
        view: Array = (
            cast(self.data, computing(self.dtype)).view() if self.dtype.fields else self.data.view()
        )
        view.flags.writeable = False
        return view

    def item(self) -> float | int | bool:
        """The one element as a Python number. Raises ShapeError if there are several."""
        if self.data.size != 1:
            raise ShapeError(
                "item",
                f"a tensor of shape {self.shape} has {self.data.size} elements, not one",
                got=self.shape,
            )
        return self.numpy().item()

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        return self.numpy().tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        return self.numpy().__index__()

    def __round__(self, ndigits: int | None = None) -> float:
        return round(self.item(), ndigits)

    def __floor__(self) -> int:
        return math.floor(self.item())

    def __ceil__(self) -> int:
        return math.ceil(self.item())

    def __trunc__(self) -> int:
        return math.trunc(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else repr(self)

    def __bool__(self) -> bool:
        self._read("bool()")
        if self.data.size != 1:
            raise ShapeError(
                "bool",
                f"a tensor of shape {self.shape} is neither true nor false",
                got=self.shape,
                hint=".any() or .all()",
            )
        return bool(self.data)

    def _read(self, how: str) -> None:
        """A place where a value leaves the tensors; a recorder may object."""
        listener = MODE.get().listener
        if listener is not None:
            objection = getattr(listener, "reading", None)
            if objection is not None:
                objection(self, how)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        if isinstance(self._node, Node):
            raise GradientError(
                "deepcopy",
                "a computed tensor is part of a graph, which is not copied",
                hint="use .detach()",
            )
        t = object.__new__(type(self))
        memo[id(self)] = t
        t.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return t

    def __getstate__(self) -> dict[str, Any]:
        return {"data": np.array(self.data), "requires_grad": self.requires_grad, "grad": self.grad}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.data, self._wants, self.grad = state["data"], state["requires_grad"], state["grad"]
        self._node, self._index, self._version = None, 0, [0, None]

    def __repr__(self) -> str:
        shown = self.data if not self.dtype.fields else cast(self.data, float32)
        text = "Tensor(" + np.array2string(
            shown, separator=", ", prefix="Tensor(", threshold=200, edgeitems=3
        )
        if self.dtype not in (float32, bool_, np.int64):
            text += f", dtype={name(self.dtype)}"
        if isinstance(self._node, Node):
            return text + f", grad_fn=<{self._node.op.name}>)"
        return text + (", requires_grad=True)" if self.requires_grad else ")")


def as_array(data: Any, dtype: Any) -> Array:
    """A new array of `data`. Python floats become float32, Python integers int64; arrays, numpy
    scalars and tensors, also inside lists, keep their dtype.

    Raises DTypeError for an integer that int64 does not hold.
    """
    wanted = None if dtype is None else as_dtype(dtype)
    if isinstance(data, Tensor):
        return cast(np.array(data.data), wanted or data.dtype)
    if isinstance(data, (np.ndarray, np.generic)):
        array = np.array(data)
    else:
        array = _from_lists(data)
        wanted = wanted or _dtype_of_lists(data, array)
    return cast(array.astype(as_dtype(array.dtype), copy=False), wanted or as_dtype(array.dtype))


def _dtype_of_lists(data: Any, array: Array) -> DType | None:
    """The dtype of nested lists that numpy read as `array`; None for that of the array."""
    python, typed = set[type](), set[DType]()
    _leaves(data, python, typed)
    floats = {d for d in typed if is_float(d)}
    if floats:  # a Python number never changes the dtype
        return promote(*floats)
    if float in python or not array.size:
        return float32
    if not typed and array.dtype.kind in "uf":  # what numpy makes of integers beyond int64
        raise _too_large(data)
    return None


def _too_large(data: Any) -> DTypeError:
    return DTypeError(
        "Tensor",
        "an integer that int64 does not hold",
        got=data,
        wanted="integers from -2**63 to 2**63 - 1",
        hint='dtype="uint64" holds up to 2**64 - 1; floats are rounded',
    )


def _leaves(data: Any, python: set[type], typed: set[DType]) -> None:
    """Add the types of Python numbers in nested lists to `python`, the dtypes of others to `typed`."""
    items = data if isinstance(data, (list, tuple)) else (data,)
    kinds = set(map(type, items))
    python |= kinds & _SCALARS
    if kinds <= _SCALARS:
        return
    for x in items:
        if isinstance(x, (list, tuple)):
            _leaves(x, python, typed)
        elif isinstance(x, Tensor):
            typed.add(x.dtype)
        elif hasattr(x, "__array__"):
            typed.add(np.asarray(x).dtype)
        elif type(x) not in _SCALARS:
            python.update(t for t in (float, int) if isinstance(x, t))


def _from_lists(data: Any) -> Array:
    if isinstance(data, (list, tuple)) and any(isinstance(x, (Tensor, list, tuple)) for x in data):
        data = _plain(data)
    try:
        array = np.array(data)
    except (
        ValueError,
        TypeError,
        RuntimeError,
    ):  # ragged lists; another library's tensor that has a gradient or another device
        array = np.array(None)
    if array.dtype.kind not in "biuf":
        place, what = _odd_one(data, "input")
        if not what or isinstance(data, int):
            raise _too_large(data)
        raise DTypeError(
            "Tensor",
            f"{place} is {what}",
            got=what,
            wanted="numbers in lists of equal length",
            hint="pad ragged lists to one length; turn text into integers with a tokenizer",
        )
    if array.size == 0 and not isinstance(data, np.ndarray):
        return array.astype(float32)
    return array


def _plain(data: Any) -> Any:
    if isinstance(data, Tensor):
        if data.requires_grad and MODE.get().grad:
            raise GradientError(
                "Tensor",
                "a list of tensors that require gradients, which a copy would lose",
                got=data.shape,
                hint="minigrad.stack keeps them; t.detach() if none are wanted",
            )
        return data.numpy()
    return [_plain(x) for x in data] if isinstance(data, (list, tuple)) else data


def _odd_one(data: Any, path: str) -> tuple[str, str]:
    """The first place in nested lists that is no number or breaks the shape, and what it is."""
    if not isinstance(data, (list, tuple)):
        return path, f"{data!r}, not a number"
    lengths = [np.shape(x) if not isinstance(x, (list, tuple)) else (len(x),) for x in data]
    for i, x in enumerate(data):
        if isinstance(x, (list, tuple)) or not isinstance(x, (int, float, np.generic, np.ndarray)):
            if lengths[i] != lengths[0]:
                return (
                    f"{path}[{i}]",
                    f"of length {lengths[i]} beside {lengths[0]}: ragged"
                    if lengths[i]
                    else f"{x!r}, not a number",
                )
            place, what = _odd_one(x, f"{path}[{i}]")
            if what:
                return place, what
        elif lengths[i] != lengths[0]:
            return f"{path}[{i}]", "a number beside lists: ragged"
    return path, ""


def as_operand(x: Any, call: str) -> Any:
    """An operand as the door takes it: numpy scalars become Python's, which never change a dtype;
    arrays become tensors.
    """
    if isinstance(x, Tensor) or type(x) in _SCALARS:
        return x
    if isinstance(x, (np.generic, int, float)):
        return (
            x.item() if isinstance(x, np.generic) else (int(x) if isinstance(x, int) else float(x))
        )
    if isinstance(x, (np.ndarray, list, tuple)):
        return _wrap(as_array(x, None))
    raise DTypeError(
        call, f"cannot work on {type(x).__name__}", got=type(x), wanted="Tensor, array or number"
    )


def _harmonise(op: Primitive, arrays: list[Any]) -> tuple[list[Any], DType | None]:
    """Operands in one dtype that can be computed in, by the op's `dtype`; and the 16-bit dtype that
    results are to be stored in, if any.
    """
    dtypes = [a.dtype for a in arrays if isinstance(a, np.ndarray)]
    halves = (
        op.kind not in ("view", "gather", "random", "effect")
        and any(map(is_half, dtypes))
        and op is not ops.cast
    )
    if op.dtype is None:
        if not halves:
            return arrays, None
        stored = promote(*(d for d in dtypes if is_float(d)))
        return [
            cast(a, computing(a.dtype)) if isinstance(a, np.ndarray) else a for a in arrays
        ], stored if is_half(stored) else None
    numbers = [d for d in dtypes if d != bool_]
    target = promote(*numbers) if numbers else bool_
    if not is_float(target) and (op.dtype == "float" or any(type(a) is float for a in arrays)):
        target = float32
    dtype = computing(target) if halves else target
    lone = is_float(target) and not numbers  # bools alone, and numbers that make floats of them
    if lone and op.dtype == "same":
        arrays = [float32.type(a) if type(a) is float else a for a in arrays]
        return arrays, None
    harmonised = [
        cast(a, dtype)
        if isinstance(a, np.ndarray) and a.dtype != dtype and (a.dtype != bool_ or lone)
        else a
        for a in arrays
    ]
    return harmonised, target if halves and is_half(target) else None


def _wrap_outputs(
    op: Primitive, operands: Sequence[Any], params: dict[str, Any], out: Any, dtype: DType | None
) -> tuple[Any, ...]:
    """The arrays that came out as Tensors. A view shares its operand's version; an effect raises
    the versions of what it changed.
    """
    outputs: list[Any] = []
    for array in (out,) if op.outputs == 1 else out:
        if array is None:
            outputs.append(None)
            continue
        if type(array) is not np.ndarray:
            array = np.asarray(array)
        if dtype is not None and array.dtype == float32:
            array = cast(array, dtype)
        outputs.append(_wrap(array))
    if op.kind == "view":
        for y in outputs:
            if _shares_memory(y.data, operands[0].data):
                y._version, y._is_view = operands[0]._version, True
    elif op.kind == "effect":
        where = user_line()
        for x in operands[: params.get("changes", 1)]:
            x._version[0] += 1
            x._version[1] = where
    return tuple(outputs)


def _hand_on(op: Primitive, operands: Sequence[Any], outputs: tuple[Any, ...], lost: bool) -> None:
    """No node was made: what is known of the reason goes on to the outputs, for the error of a
    backward pass that begins there.
    """
    mark = NoNode(op) if lost and op.user_defined and op.kind != "effect" else None
    for x in operands:
        if mark is None and type(getattr(x, "_node", None)) is NoNode:
            mark = x._node
    if mark is not None:
        for y in outputs:
            if y is not None:
                y._node = mark


def _shares_memory(a: Array, b: Array) -> bool:
    """Whether a view is one: numpy reshapes into new memory where it must."""
    return a.base is (b if b.base is None else b.base) or np.may_share_memory(a, b)


_wrap = Tensor._wrap
keep_freed_memory()
