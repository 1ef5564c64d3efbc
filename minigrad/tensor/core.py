"""The Tensor: an array, its place on the tape, and the one door that every op goes through.

The door (`__apply_primitive__`) runs the forward on arrays, leaves a node if a gradient is wanted,
and calls the listener if there is one. The vocabulary is in the other files of this folder.
"""

from __future__ import annotations

import copy
import math
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad import autograd, dtypes, ops
from minigrad.counterparts import missing
from minigrad.dtypes import Array, DType, bool_, cast, computing, float32, is_float, is_half
from minigrad.errors import DTypeError, GradientError, MinigradError, ShapeError
from minigrad.heap import keep_freed_memory
from minigrad.modes import ERROR_STATE, MODE, SILENT, STRUCTURE, error_state
from minigrad.ops.composite import RAW, composite
from minigrad.primitive import Primitive
from minigrad.tape import UNDER_NO_GRAD, Node, NoNode, no_graph, user_frame, user_line
from minigrad.tensor.base import Self
from minigrad.tensor.creation import SCALARS, Creation, as_array
from minigrad.tensor.explain import explain, not_an_array
from minigrad.tensor.indexing import Indexing
from minigrad.tensor.interop import Interop
from minigrad.tensor.surface import Surface


def _of_item(function: Callable[..., Any]) -> Callable[..., Any]:
    """The method that applies a function of numbers to the one element."""
    return lambda self, *args: function(self.item(), *args)


class HookHandle:
    """One hook on a tensor."""

    def __init__(self, place: Any, entry: tuple[int, Callable[[Any], Any]]) -> None:
        self._place, self._entry = place, entry  # a leaf, or the node of a computed tensor
        self._set((*place._hooks, entry))

    def remove(self) -> None:
        """Take the hook away. To do so twice does nothing."""
        self._set(tuple(entry for entry in self._place._hooks if entry is not self._entry))

    def _set(self, hooks: Any) -> None:
        self._place._hooks = hooks
        if not isinstance(self._place, Node):
            STRUCTURE.changed(self._place, "the hooks", None, hooks)


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
        dtypes.on_cpu(device, "Tensor")
        self.data = as_array(data, dtype)
        self.grad = self._node = None
        self._index, self._version, self._wants, self._hooks = 0, [0, None], False, ()
        if requires_grad:
            self.requires_grad_()

    # --- the door

    @classmethod
    def __apply_primitive__(
        cls, op: Primitive, operands: Sequence[Any], params: dict[str, Any]
    ) -> Any:
        """Run the op on the operands' arrays, and return its outputs as Tensors on the tape."""
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
            elif type(x) in SCALARS or (op.kind == "random" and isinstance(x, np.ndarray)):
                arrays.append(x)  # an array: the generator's state, which the op advances
            else:
                operands = [_as_operand(x, op.name) for x in operands]
                return cls.__apply_primitive__(op, operands, params)
        mode, stored = MODE.get(), None
        grad, listener = mode.grad, mode.listener
        if not plain:
            arrays, stored = _harmonise(op, arrays)
        out = run_op(op, arrays, params, listener, plain)
        if type(out) is np.ndarray and stored is None and op.kind not in ("view", "effect"):
            outputs: tuple[Any, ...] = (_wrap(out),)
        else:
            outputs = _wrap_outputs(op, operands, params, out, stored)
        if wants_grad and (op.rule is not None or op.composed_form is not None):
            node: Any = Node(op, operands, params, outputs) if grad else UNDER_NO_GRAD
            for i, y in enumerate(outputs):
                if y.data.dtype is float32 or is_float(y.data.dtype):
                    y._node, y._index, y._wants = node, i, grad
        else:
            _hand_on(op, operands, outputs, wants_grad)
        if listener is not None:
            listener.done(op, operands, params, outputs)
        return outputs[0] if op.outputs == 1 else outputs

    if not TYPE_CHECKING:  # type checkers look at the names that there are

        def __getattr__(self, name):
            raise missing("Tensor", name)

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
            problem = f"requires_grad=True, but {dtypes.name(self.dtype)} cannot have a gradient"
            hint = "convert it first: .float()"
            raise DTypeError("requires_grad_", problem, self.dtype, float32, hint)
        if not requires_grad and isinstance(self._node, Node):
            problem = "only a leaf can stop requiring a gradient"
            raise GradientError("requires_grad_", problem, hint="use .detach()")
        self._wants = requires_grad
        if requires_grad and not isinstance(self._node, Node):
            self._node = None
        return self

    # --- gradients

    backward = autograd.backward

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

    def register_hook(self, hook: Callable[[Any], Any]) -> HookHandle:
        """Call `hook(g)` with the gradient with respect to this tensor when a backward pass has
        computed it; a tensor that it returns takes its place. `g` must not be changed in place.

        Returns a handle: `handle.remove()` takes the hook away. Hooks run in the order of their
        registration, in backward(), in grad() and, under create_graph, on tensors with a graph. In
        a jitted function the ops of a hook are part of the program; anything else that it does,
        such as print, happens in recorded calls alone. Raises NoGradientError for a tensor that
        requires no gradient.
        """
        if not self._wants:
            raise no_graph("register_hook", self)
        shape, dtype = self.shape, self.dtype

        def changed(g: Any) -> Any:
            new = hook(g if g.dtype == dtype else ops.cast(g, dtype=dtype))
            if new is None:
                return g
            if getattr(new, "shape", None) != shape or not hasattr(new, "_node"):
                problem = f"the hook must return None or a tensor of shape {shape}, got {new!r}"
                raise GradientError("register_hook", problem, new, shape)
            return new if new.dtype == g.dtype else ops.cast(new, dtype=g.dtype)

        return HookHandle(self if self.is_leaf else self._node, (self._index, changed))

    def retain_grad(self) -> None:
        """Let backward() add to the .grad of this computed tensor too, after its hooks; a leaf has
        it anyway. Raises NoGradientError for a tensor that requires no gradient, CaptureError in a
        jitted function: use minigrad.grad(loss, t) there.
        """
        if not self._wants:
            raise no_graph("retain_grad", self)
        if not self.is_leaf and not self.retains_grad:
            self._read("retain_grad()")
            self._node.retaining = (*self._node.retaining, weakref.ref(self))

    @property
    def retains_grad(self) -> bool:
        """True for a computed tensor after retain_grad()."""
        return not self.is_leaf and any(ref() is self for ref in self._node.retaining)

    # --- in and out

    def assign(self, value: Any) -> Self:
        """Write `value` (broadcast, cast) into this tensor's memory, and return it.

        Raises GradientError where autograd could not follow: on a tensor that requires a gradient,
        outside no_grad().
        """
        if self.requires_grad and MODE.get().grad:
            problem = "the tensor requires a gradient, which does not flow through an assignment"
            hint = "with minigrad.no_grad(): t.assign(...), or compute a new tensor"
            raise GradientError("assign", problem, hint=hint)
        ops.assign(self, value if isinstance(value, Tensor) else _wrap(as_array(value, None)))
        return self

    def numpy(self) -> Array:
        """The elements as a read-only numpy array: the same memory, not a copy; bfloat16 comes out
        as float32.
        """
        self._read("numpy()")
        view: Array = self._shown().view()
        view.flags.writeable = False
        return view

    def _shown(self) -> Array:
        """The elements in a dtype that numpy knows: bfloat16 as float32."""
        return cast(self.data, float32) if self.dtype.fields else self.data

    def item(self) -> float | int | bool:
        """The one element as a Python number. Raises ShapeError if there are several."""
        if self.data.size != 1:
            problem = f"a tensor of shape {self.shape} has {self.data.size} elements, not one"
            raise ShapeError("item", problem, self.shape)
        return self.numpy().item()

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        return self.numpy().tolist()

    __float__, __int__, __round__ = _of_item(float), _of_item(int), _of_item(round)
    __floor__, __ceil__ = _of_item(math.floor), _of_item(math.ceil)
    __trunc__ = _of_item(math.trunc)

    def __index__(self) -> int:
        return self.numpy().__index__()

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else repr(self)

    def __bool__(self) -> bool:
        self._read("bool()")
        if self.data.size != 1:
            problem = f"a tensor of shape {self.shape} is neither true nor false"
            raise ShapeError("bool", problem, self.shape, hint=".any() or .all()")
        return bool(self.data)

    def _read(self, how: str) -> None:
        """A place where a value leaves the tensors; a recorder may object."""
        listener = MODE.get().listener
        if listener is not None:
            listener.reading(self, how)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        if isinstance(self._node, Node):
            problem = "a computed tensor is part of a graph, which is not copied"
            raise GradientError("deepcopy", problem, hint="use .detach()")
        t = object.__new__(type(self))
        memo[id(self)] = t
        t.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return t

    def __getstate__(self) -> dict[str, Any]:
        return {"data": np.array(self.data), "requires_grad": self.requires_grad, "grad": self.grad}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.data, self._wants, self.grad = state["data"], state["requires_grad"], state["grad"]
        self._node, self._index, self._version, self._hooks = None, 0, [0, None], ()

    def __repr__(self) -> str:
        options: dict[str, Any] = {"separator": ", ", "threshold": 200, "edgeitems": 3}
        text = "Tensor(" + np.array2string(self._shown(), prefix="Tensor(", **options)
        if self.dtype not in (float32, bool_, np.int64):
            text += f", dtype={dtypes.name(self.dtype)}"
        if isinstance(self._node, Node):
            return text + f", grad_fn=<{self._node.op.name}>)"
        return text + (", requires_grad=True)" if self.requires_grad else ")")


def _as_operand(x: Any, call: str) -> Any:
    """An operand as the door takes it: numpy scalars become Python's, which never change a dtype;
    arrays and lists become tensors.
    """
    if isinstance(x, Tensor) or type(x) in SCALARS:
        return x
    if isinstance(x, np.generic):
        return x.item()
    if isinstance(x, (np.ndarray, list, tuple)):
        return _wrap(as_array(x, None))
    if isinstance(x, (int, float)):  # of a subclass
        return int(x) if isinstance(x, int) else float(x)
    problem = f"cannot work on {type(x).__name__}"
    raise DTypeError(call, problem, got=type(x), wanted="Tensor, array or number")


def run_op(
    op: Primitive, arrays: Sequence[Any], params: Any, listener: Any = None, silent: bool = True
) -> Any:
    """The op's forward on arrays, without numpy's warnings about floats; numpy's errors in the
    user's terms.
    """
    token = None
    try:
        if op.kind != "view" and (silent or any(map(_has_floats, arrays))):
            token = ERROR_STATE.set(SILENT)
        elif op.warns and ERROR_STATE.get() is _USUAL:
            token = ERROR_STATE.set(_POINTING)
        if listener is None:
            return op.forward(*arrays, **params)
        return listener.run(op, arrays, params)
    except MinigradError:
        raise
    except RAW as error:
        raise explain(op, arrays, params, error) from error
    finally:
        if token is not None:
            ERROR_STATE.reset(token)


def _warn_of_division(what: str, _flag: int) -> None:
    """Give numpy's warning, about integers divided by zero, at the user's line."""
    frame = user_frame(2)
    place = (frame.f_code.co_filename, frame.f_lineno, frame.f_globals.get("__name__"))
    seen = frame.f_globals.setdefault("__warningregistry__", {})
    warnings.warn_explicit(f"{what} encountered", RuntimeWarning, *place, seen)


# numpy's error state as it is in a new process, and as the door has it then for integers
_USUAL = ERROR_STATE.get() if set(np.geterr().values()) <= {"warn", "ignore"} else None
_POINTING = error_state(divide="call", call=_warn_of_division)[1]


def _has_floats(a: Any) -> bool:
    return isinstance(a, np.ndarray) and is_float(a.dtype)


def _harmonise(op: Primitive, arrays: list[Any]) -> tuple[list[Any], DType | None]:
    """Operands in one dtype that can be computed in, by the op's `dtype`; and the 16-bit dtype that
    results are to be stored in, if any.
    """
    moves = op.kind in ("view", "gather", "random", "effect") or op is ops.cast
    if moves and op.dtype is None:
        return arrays, None
    found = [a.dtype for a in arrays if isinstance(a, np.ndarray)]
    halves = not moves and any(map(is_half, found))
    if op.dtype is None:
        if not halves:
            return arrays, None
        stored = dtypes.promote(*(d for d in found if is_float(d)))
        arrays = [cast(a, computing(a.dtype)) if isinstance(a, np.ndarray) else a for a in arrays]
        return arrays, stored if is_half(stored) else None
    numbers = [d for d in found if d != bool_]
    target = dtypes.promote(*numbers) if numbers else bool_
    if not is_float(target) and (op.dtype == "float" or float in map(type, arrays)):
        target = float32
    lone = is_float(target) and not numbers  # bools alone, and numbers that make floats of them
    if lone and op.dtype == "same":
        return [float32.type(a) if type(a) is float else a for a in arrays], None
    dtype = computing(target) if halves else target
    bools = lone or dtype == dtypes.bfloat16  # numpy makes the other dtypes of bools by itself
    arrays = [
        cast(a, dtype) if isinstance(a, np.ndarray) and (a.dtype != bool_ or bools) else a
        for a in arrays
    ]
    return arrays, target if halves and is_half(target) else None


def _wrap_outputs(
    op: Primitive, operands: Sequence[Any], params: dict[str, Any], out: Any, stored: DType | None
) -> tuple[Any, ...]:
    """The arrays that came out as Tensors. A view shares its operand's version; an effect raises
    the versions of what it changed.
    """
    outputs: list[Any] = []
    for array in (out,) if op.outputs == 1 else out:
        if array is not None:
            if type(array) is not np.ndarray:
                if isinstance(array, Tensor):
                    raise not_an_array(op.name)
                array = np.asarray(array)
            if stored is not None and array.dtype == float32:
                array = cast(array, stored)
            array = _wrap(array)
        outputs.append(array)
    if op.kind == "view":
        for y in outputs:
            if _shares_memory(y.data, operands[0].data):
                y._version, y._is_view = operands[0]._version, True
    elif op.kind == "effect":
        where = user_line()
        for x in operands[: params.get("changes", 1)]:
            version = x._version
            version[0], version[1] = version[0] + 1, where
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
