"""The tape, and the walk from outputs back to leaves.

Knows nodes and rules. Does not know Tensor's methods, nor any op by name but the few that the walk
itself needs (to undo broadcasting, to accumulate).
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from types import CodeType
from typing import Any, NamedTuple

import numpy as np

from minigrad import ops
from minigrad.dtypes import Array, cast, computing, float32, is_float, is_half, name
from minigrad.errors import (
    BackwardTwiceError,
    DTypeError,
    GradientError,
    GraphFreedError,
    NoGradientError,
    NoGradModeError,
    NotScalarError,
    ShapeError,
    StaleValueError,
    UnusedInputError,
)
from minigrad.modes import (
    ERROR_STATE,
    MODE as MODE,
    SILENT,
    GradMode as GradMode,
    Listener as Listener,
    Mode as Mode,
    Relay as Relay,
    enable_grad as enable_grad,
    is_grad_enabled as is_grad_enabled,
    listening as listening,
    no_grad as no_grad,
    set_grad_enabled as set_grad_enabled,
)
from minigrad.ops.elementwise import has_nan
from minigrad.primitive import Primitive

# --- nodes

_PACKAGE = os.path.dirname(__file__) + os.sep
next_number = itertools.count().__next__  # nodes are numbered in the order of their creation
_adding = threading.RLock()  # held while a cotangent is added to a leaf's .grad


def _forget_threads() -> None:
    """A forked child has none of the parent's threads, one of which may hold the lock."""
    global _adding
    _adding = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


class Where(NamedTuple):
    """A place in the user's code. The line is worked out only when it is asked for."""

    code: CodeType
    instruction: int

    def __str__(self) -> str:
        lines = (
            line for start, end, line in self.code.co_lines() if start <= self.instruction < end
        )
        return f"{self.code.co_filename}:{next(lines, None) or self.code.co_firstlineno}"


def user_line(depth: int = 2) -> Where:
    """The nearest caller outside the package, at least `depth` frames up."""
    frame = sys._getframe(depth)
    while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
        frame = frame.f_back
    return Where(frame.f_code, frame.f_lasti)


# A place in the graph: a node for its first output, (node, index) for another, the id of a leaf.
Slot = Any


def slot_of(x: Any) -> Slot:
    """The tensor's place in the graph."""
    node = x._node
    if not isinstance(node, Node):
        return id(x)
    return (node, x._index) if x._index else node


def _maker(slot: Slot) -> Any:
    """The node whose output has this place; None for a leaf."""
    return slot if type(slot) is Node else slot[0] if type(slot) is tuple else None


class Shadow:
    """Stands in for a large operand whose values the rule does not read: its shape and dtype."""

    __slots__ = ("dtype", "grad_fn", "ndim", "requires_grad", "shape")
    SMALL = 1024  # elements; smaller operands are not worth replacing

    def __init__(self, tensor: Any) -> None:
        self.shape, self.dtype = tensor.data.shape, tensor.data.dtype
        self.ndim, self.requires_grad = len(self.shape), tensor._wants
        self.grad_fn: Node | None = tensor.grad_fn


class Node:
    """One op on the tape. Points up to its operands, never down to its outputs.

    operands: Tensors, Shadows in place of large ones that the rule does not read, and scalars.
    slots: where each operand's cotangent goes; None for an operand that needs none.
    outputs: the arrays of the outputs, if the rule reads them.
    seen: (tensor, version cell, version) of each saved value, to notice later changes; None in
        place of an output's tensor.
    masks: the rule may make a NaN of a cotangent of 0, since it multiplies by values that it reads,
        or by a number that is not finite.
    """

    __slots__ = (
        "freed_by",
        "masks",
        "number",
        "op",
        "operands",
        "outputs",
        "params",
        "seen",
        "size",
        "slots",
        "where",
    )

    def __init__(
        self,
        op: Primitive,
        operands: Sequence[Any],
        params: dict[str, Any],
        outputs: Sequence[Any],
        depth: int = 4,
    ) -> None:
        self.op, self.params, self.number, self.where = op, params, next_number(), user_line(depth)
        self.operands = operands = list(operands)
        slots: list[Slot | None] = [None] * len(operands)
        self.slots = slots
        self.seen: list[tuple[Any, list[Any], int]] = []
        keeps = op.saves_operand
        if op.reads_other_operand:
            a, b = operands
            keeps = getattr(b, "_wants", False), getattr(a, "_wants", False)
        last, finite = len(keeps) - 1, True
        for i, x in enumerate(operands):
            if hasattr(x, "_node"):
                if x._wants:
                    node = x._node
                    slots[i] = id(x) if node is None else (node, x._index) if x._index else node
                if keeps[i if i < last else last]:
                    self.seen.append((x, x._version, x._version[0]))
                elif x._node is not None and x.data.size > Shadow.SMALL:
                    operands[i] = Shadow(x)
            elif type(x) is float and x - x:  # infinite or NaN
                finite = False
        self.outputs: tuple[Array, ...] | None = None
        if op.keeps_output:
            self.outputs = tuple(y.data for y in outputs)
            self.seen.extend((None, y._version, 0) for y in outputs)
        self.size = len(outputs)
        self.freed_by: int | None = None
        reads_values = bool(self.seen) or not finite
        self.masks = reads_values and op.kind == "elementwise" and not op.zero_safe

    def __repr__(self) -> str:
        return f"<{self.op.name} at {self.where}>"

    def free(self, walk: int) -> None:
        """Drop what the rule would have read; `walk` is the number of the root that this was done
        for.
        """
        self.operands, self.slots, self.outputs, self.seen, self.freed_by = [], [], None, [], walk


class NoNode:
    """Stands in a Tensor's `_node` for a node that was not made: because of no_grad(), or because
    a user's op has no rule.
    """

    __slots__ = ("ruleless",)

    def __init__(self, ruleless: Primitive | None = None) -> None:
        self.ruleless = ruleless


UNDER_NO_GRAD = NoNode()


# --- the walk


def nodes_above(
    roots: Sequence[Any], since: int = 0, leaves: dict[Slot, Any] | None = None
) -> list[Node]:
    """All nodes numbered `since` or later that the roots depend on, newest first; the leaves above
    them are added to `leaves`. Raises for freed nodes and stale values.
    """
    found: set[Node] = set()
    stack = [x._node for x in roots if isinstance(x._node, Node) and x._node.number >= since]
    first = stack[0].number if stack else 0
    while stack:
        node = stack.pop()
        if node in found:
            continue
        found.add(node)
        if node.freed_by is not None:
            _refuse_freed(node, first)
        for x, cell, version in node.seen:
            # `t[i] = x` gives t other memory, with a version of its own, where gradients flow.
            if cell[0] != version or (x is not None and x._version is not cell):
                _refuse_stale(node, x, cell)
        for x, slot in zip(node.operands, node.slots, strict=True):
            if type(slot) is int:
                if leaves is not None:
                    leaves[slot] = x
            elif slot is not None:
                parent = slot if type(slot) is Node else slot[0]
                if parent.number >= since:
                    stack.append(parent)
    return sorted(found, key=lambda node: node.number, reverse=True)


def show(x: Any) -> None:
    """Run a view op on a tensor if a listener is there, so that it knows the tensor itself: clearing
    .grad, or putting another array into it, is no op.
    """
    if MODE.get().listener is not None:
        ops.alias(x)


def _leading_to(nodes: list[Node], wanted: set[Slot]) -> tuple[set[Node], set[Slot]]:
    """The nodes through which a gradient flows to a wanted slot, and the wanted slots that have
    such a node.
    """
    leading: set[Node] = set()
    reached: set[Slot] = set()
    for node in reversed(nodes):
        for slot in node.slots:
            if slot in wanted:
                reached.add(slot)
                leading.add(node)
            elif _maker(slot) in leading:
                leading.add(node)
    return leading, reached


class Walk:
    """One backward pass. On arrays if no one listens; on Tensors to build a graph of the gradient,
    or with a listener.
    """

    def __init__(self, wrap: Callable[[Array], Any], create_graph: bool) -> None:
        self.wrap, self.create_graph = wrap, create_graph
        self.recorded = MODE.get().listener is not None
        self.on_tensors = create_graph or self.recorded
        self.leaves: dict[Slot, Any] = {}  # the leaves that the roots depend on
        self.reached: set[Slot] = set()  # the wanted slots that the roots depend on
        self.sums: dict[Slot, Any] = {}  # slot -> cotangent so far
        self.fresh: set[Slot] = set()  # slots whose cotangent is an array that no one else holds
        self.taken: set[int] = set()  # on Tensors: the memory of results, which none may share

    def run(
        self,
        roots: Sequence[Any],
        cotangents: Sequence[Any],
        wanted: set[Slot] | None,
        retain: bool,
        since: int = 0,
    ) -> None:
        """Go from the roots up to the leaves, or to the wanted slots, through nodes numbered
        `since` or later. What arrives is in `sums`.
        """
        nodes = nodes_above(roots, since, self.leaves)
        leading: set[Node] = set()
        if wanted is not None:
            leading, self.reached = _leading_to(nodes, wanted)
        for root, g in zip(roots, cotangents, strict=True):
            slot = slot_of(root)
            if root._node is None:
                self.leaves[slot] = root
            self.add(slot, g if self.on_tensors else g.data, fresh=False)
        first = nodes[0].number if nodes else 0
        walking = getattr(MODE.get().listener, "walking", None)
        token = ERROR_STATE.set(SILENT)
        try:
            with GradMode(self.create_graph):
                for node in nodes:
                    if walking is not None:
                        walking(node)
                    if node.size == 1 and wanted is None:
                        g = self.sums.pop(node, None)
                        gs = [] if g is None else [g]
                    else:
                        gs = self.arrived(node, wanted)
                    if gs and wanted is None:
                        self.through(node, gs, node.slots)
                    elif gs and wanted is not None and node in leading:
                        asked = (
                            s if s in wanted or _maker(s) in leading else None for s in node.slots
                        )
                        self.through(node, gs, list(asked))
                    if not retain:
                        node.free(first)
        finally:
            ERROR_STATE.reset(token)
            if walking is not None:
                walking(None)

    def arrived(self, node: Node, wanted: set[Slot] | None) -> list[Any]:
        """The cotangents of the node's outputs, None for one that has none; [] if none has one."""
        slots = (node,) if node.size == 1 else (node, *((node, i) for i in range(1, node.size)))
        gs = [self.sums.get(s) if wanted and s in wanted else self.sums.pop(s, None) for s in slots]
        return gs if any(g is not None for g in gs) else []

    def through(self, node: Node, gs: list[Any], slots: Sequence[Slot | None]) -> None:
        """Apply the node's rule: its outputs' cotangents in, its operands' out."""
        op = node.op
        values: Sequence[Any] = ()
        if op.composed_form is not None and (self.create_graph or op.rule is None):
            answer = _through_composed(node, gs, slots, self.wrap, self.create_graph)
        else:
            assert op.rule is not None, op
            values = node.operands if self.on_tensors else [_computable(x) for x in node.operands]
            params = node.params
            if op.wants_needs:
                params = {**params, "needs": [slot is not None for slot in slots]}
            g = gs[0] if op.outputs == 1 else gs
            answer = op.rule(g, self.outputs(node), *values, **params)
        if op.user_defined and (
            type(answer) not in (tuple, list) or len(answer) != len(node.operands)
        ):
            _refuse_answer(node, answer)
        held = {id(a) for a in (*gs, *values)}
        for x, slot, g in zip(node.operands, slots, answer, strict=False):
            if slot is not None and g is not None:
                if node.masks:
                    g = self.masked(g, gs)
                if type(g) is not np.ndarray or g.shape != x.shape or g.dtype is not x.dtype:
                    g = self.fit(op, g, x)
                self.add(
                    slot, g, fresh=id(g) not in held and not self.on_tensors and g.base is None
                )
                held.add(id(g))

    def masked(self, g: Any, gs: Sequence[Any]) -> Any:
        """An operand's cotangent with 0 instead of NaN where the output's is 0: a cotangent of zero
        asks for nothing, though its product with an infinite derivative is NaN.
        """
        given = [h for h in gs if h is not None]
        asked = given[0] if len(given) == 1 else sum(ops.abs(h) for h in given)
        if not hasattr(g, "dtype") or g.shape != asked.shape or not is_float(g.dtype):
            return g
        if not self.on_tensors:
            return np.where((asked == 0) & np.isnan(g), 0, g) if has_nan(g) else g
        # A replay of what is recorded may meet a NaN that is not here.
        return ops.mask_cotangent(g, asked) if self.recorded or has_nan(g.data) else g

    def outputs(self, node: Node) -> Any:
        """The node's output, or the tuple of them, as its rule reads it; None if it does not."""
        if node.outputs is None:
            return None
        if not self.on_tensors:
            ys: tuple[Any, ...] = tuple([_computable(y) for y in node.outputs])
        else:
            ys = tuple([self.wrap(y) for y in node.outputs])
            for i, y in enumerate(ys if self.create_graph else ()):
                y._wants, y._node, y._index = True, node, i
        return ys[0] if node.op.outputs == 1 else ys

    def fit(self, op: Primitive, g: Any, x: Any) -> Any:
        """A cotangent in its operand's shape and (computing) dtype: broadcasting and promotion
        undone.
        """
        if not self.on_tensors and type(g) is not np.ndarray:
            g = np.asarray(g)
        if g.shape != x.shape:
            g = unbroadcast(g, x.shape, op.name)
        dtype = computing(x.dtype)
        return g if g.dtype == dtype else ops.cast(g, dtype=dtype)

    def add(self, slot: Slot, g: Any, fresh: bool) -> None:
        """Add one more cotangent. Two are added into a new array, further ones in place, if in the
        order of axes that a new one would have: sums over it round as they do on Tensors.
        """
        before = self.sums.get(slot)
        if before is None:
            self.sums[slot] = g
            if fresh:
                self.fresh.add(slot)
        elif (
            slot in self.fresh
            and before.ndim
            and (before.flags.c_contiguous or before.strides == g.strides)
        ):
            before += g
        else:
            self.sums[slot] = before + g
            if not self.on_tensors:
                self.fresh.add(slot)

    def result(self, x: Any) -> Any:
        """The cotangent of a leaf or wanted tensor, as a Tensor of its dtype that shares no memory
        with any other; None if none arrived.
        """
        slot = slot_of(x)
        g = self.sums.get(slot)
        if g is None:
            return None
        if self.on_tensors:
            memory = id(g.data if g.data.base is None else g.data.base)
            if memory in self.taken or not g.data.flags.writeable:
                g = ops.copy(g)
            self.taken.add(memory)
            return g if g.dtype == x.dtype else ops.cast(g, dtype=x.dtype)
        g = cast(np.asarray(g), x.dtype)
        return self.wrap(g if slot in self.fresh or g.dtype != computing(x.dtype) else g.copy())


def _computable(x: Any) -> Any:
    """An operand as its rule gets it on arrays: 16-bit floats as float32, Shadows and scalars as
    they are.
    """
    data = x if type(x) is np.ndarray else x.data if hasattr(x, "data") else x
    if type(data) is np.ndarray and data.dtype is not float32 and is_half(data.dtype):
        return cast(data, float32)
    return data


def unbroadcast(g: Any, shape: tuple[int, ...], call: str) -> Any:
    """g summed over the axes along which an operand of `shape` was broadcast."""
    extra = g.ndim - len(shape)
    grown = [i for i, n in enumerate(shape) if n == 1 and g.shape[i + extra] != 1]
    if extra < 0 or any(n != g.shape[i + extra] for i, n in enumerate(shape) if n != 1):
        raise ShapeError(
            f"{call}.vjp",
            f"the rule gave a cotangent of shape {g.shape} for an operand of shape {shape}",
            got=g.shape,
            wanted=shape,
            hint="a cotangent has its operand's shape, up to broadcasting",
        )
    axis = (*range(extra), *(i + extra for i in grown))
    return ops.reshape(ops.sum(g, axis=axis), shape=shape) if axis else g


def _refuse_freed(node: Node, root: int) -> None:
    if node.freed_by == root:
        raise BackwardTwiceError(
            "backward",
            "a second time through the same graph, whose values the first has freed",
            where=str(node.where),
            hint="backward(retain_graph=True) the first time, or run the forward pass again",
        )
    raise GraphFreedError(
        "backward",
        f"through {node.op.name}, whose values another backward() has freed",
        where=str(node.where),
        hint="add the losses and call backward() once, or pass retain_graph=True to the first",
    )


def _refuse_stale(node: Node, x: Any, cell: list[Any]) -> None:
    line = cell[1] if x is None or x._version is cell else x.grad_fn.where
    raise StaleValueError(
        "backward",
        f"{node.op.name} needs a value that was changed in place at {line} after it was used",
        where=str(node.where),
        got=line,
        wanted=node.where,
        hint="change a copy, or change it after backward()",
    )


def _refuse_answer(node: Node, answer: Any) -> None:
    given = (
        f"{len(answer)} cotangents"
        if isinstance(answer, (tuple, list))
        else f"{type(answer).__name__}, not a tuple,"
    )
    raise GradientError(
        f"{node.op.name}.vjp",
        f"the rule of {node.op.name} gave {given} for {len(node.operands)} operands",
        where=str(node.where),
        got=answer,
        wanted=len(node.operands),
        hint="one cotangent per operand, None where there is none: return (g * y,)",
    )


def _through_composed(
    node: Node,
    gs: list[Any],
    slots: Sequence[Slot | None],
    wrap: Callable[[Array], Any],
    create_graph: bool,
) -> list[Any]:
    """The cotangents by the op's composed form, which is run again on aliases of the operands and
    differentiated.
    """
    assert node.op.composed_form is not None

    def alias(x: Any) -> Any:
        return ops.alias(x) if create_graph else wrap(x.data).requires_grad_()

    with enable_grad():
        aliases = [
            x if slot is None else alias(x) for x, slot in zip(node.operands, slots, strict=True)
        ]
        ys = node.op.composed_form(*aliases, **node.params)
        asked = [
            (y, g if hasattr(g, "_node") else wrap(np.asarray(g)))
            for y, g in zip(ys if isinstance(ys, tuple) else (ys,), gs, strict=False)
            if g is not None and y.requires_grad
        ]
        if not asked:
            return [None] * len(slots)
        needed = [a for a, slot in zip(aliases, slots, strict=True) if slot is not None]
        roots, starts = zip(*asked, strict=True)
        found = grad(roots, needed, starts, create_graph=create_graph, allow_unused=True)
    arrived = iter(found)
    answers = [None if slot is None else next(arrived) for slot in slots]
    if create_graph or MODE.get().listener is not None:
        return answers
    return [None if a is None else a.data for a in answers]


# --- the two doors


def backward(
    root: Any, gradient: Any = None, *, retain_graph: bool = False, create_graph: bool = False
) -> None:
    """Add d root / d leaf to the .grad of every leaf that `root` depends on. See Tensor.backward."""
    start = _starting_gradient("backward", root, gradient)
    walk = Walk(root._wrap, create_graph)
    walk.run([root], [start], None, retain_graph or create_graph)
    with GradMode(create_graph):
        for leaf in walk.leaves.values():
            g = walk.result(leaf)
            if g is None:
                g = ops.zeros_like(leaf)
            if create_graph:
                g = _function_of([root], g)
            with _adding:
                leaf.grad = g if leaf.grad is None else leaf.grad + g


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
    materialize_grads: bool = False,
) -> tuple[Any, ...]:
    """Return d outputs / d inputs, as a tuple with one tensor per input; .grad is not touched.

    outputs, inputs, grad_outputs: a tensor or a sequence of them. Outputs that are not scalars need
        grad_outputs, the v of v^T J.
    create_graph: the results can be differentiated again, as functions of all that the outputs
        depend on: where they are constant, as for relu, their derivative is zero.
    allow_unused: None for an input that no output depends on, instead of UnusedInputError;
        materialize_grads: zeros for it.
    Raises DTypeError for a value that is not a tensor, ShapeError for no outputs or no inputs.
    """
    roots, targets = _tensors("outputs", outputs), _tensors("inputs", inputs)
    given = list(grad_outputs) if isinstance(grad_outputs, (list, tuple)) else [grad_outputs]
    if len(given) == 1 and given[0] is None:
        given *= len(roots)
    if len(given) != len(roots):
        problem = f"{len(roots)} outputs but {len(given)} grad_outputs"
        raise ShapeError("grad", problem, got=len(given), wanted=len(roots))
    starts = [_starting_gradient("grad", root, g) for root, g in zip(roots, given, strict=True)]
    walk = Walk(roots[0]._wrap, create_graph)
    wanted = {slot_of(x) for x in targets}
    walk.run(roots, starts, wanted, create_graph if retain_graph is None else retain_graph)
    results = [walk.result(x) for x in targets]
    for i, (x, g) in enumerate(zip(targets, results, strict=True)):
        if g is None and (materialize_grads or slot_of(x) in walk.reached):
            with no_grad():
                g = results[i] = ops.zeros_like(x)
        if g is not None:
            if create_graph and slot_of(x) in walk.reached:
                results[i] = _function_of(roots, g)
        elif not allow_unused:
            raise UnusedInputError(
                "grad",
                f"no output depends on input {i} of shape {x.shape}",
                got=i,
                hint="allow_unused=True gives None for it, materialize_grads=True gives zeros",
            )
    return tuple(results)


def partial(
    roots: Sequence[Any],
    inputs: Sequence[Any],
    starts: Sequence[Any],
    since: int,
    create_graph: bool,
) -> list[Any]:
    """The cotangents of the inputs (None for an unused one), through nodes numbered `since` or
    later alone.

    So derivatives stop at tensors that are older, and do not run on from one of the inputs to
    another that it was made of.
    """
    starts = [_starting_gradient("grad", root, g) for root, g in zip(roots, starts, strict=True)]
    walk = Walk(roots[0]._wrap, create_graph)
    walk.run(roots, starts, {slot_of(x) for x in inputs}, True, since)
    return [walk.result(x) for x in inputs]


def _gradient(g: Array, *_roots: Array) -> Array:
    return g


_GRADIENT = Primitive(_gradient, "view", None, 1)
_GRADIENT.name = "gradient"


@_GRADIENT.vjp
def _(g: Any, _y: Any, _g: Any, *_roots: Any) -> tuple[Any, ...]:
    return g, *(None for _ in _roots)


def _function_of(roots: Sequence[Any], g: Any) -> Any:
    """g, a gradient of the roots, as a function of all that they depend on. Where no op says how it
    depends on something (the gradient of relu does not change with x), the derivative is zero.
    """
    y = g._as_it_stands()
    y._node = Node(_GRADIENT, [g, *roots], {}, (y,), depth=3)
    y._index, y._wants = 0, True
    return y


def _tensors(what: str, given: Any) -> list[Any]:
    """A tensor, or several, as a list."""
    found = [given] if hasattr(given, "_node") or not isinstance(given, Iterable) else list(given)
    facts = {"wanted": "a tensor, or several", "hint": "minigrad.grad(loss, [w, b])"}
    for x in found:
        if not hasattr(x, "_node"):
            problem = f"{what} contain a {type(x).__name__}, which is not a tensor"
            raise DTypeError("grad", problem, got=type(x), **facts)
    if not found:
        raise ShapeError("grad", f"no {what}", got=0, **facts)
    return found


def _starting_gradient(call: str, root: Any, gradient: Any) -> Any:
    """The cotangent that a walk starts with: ones for a scalar, else what was given, checked."""
    if not root.requires_grad:
        _refuse_root(call, root)
    dtype = computing(root.dtype)
    if gradient is None:
        if root.data.size != 1:
            raise NotScalarError(
                call,
                f"of a tensor of shape {root.shape} needs a gradient to start from",
                got=root.shape,
                wanted=(),
                hint="reduce it first, say .sum() or .mean(), or pass gradient=",
            )
        return root._wrap(np.ones(root.shape, dtype))
    if not hasattr(gradient, "_node"):
        try:
            gradient = root._wrap(np.array(gradient, dtype))
        except (TypeError, ValueError) as error:
            problem = f"the gradient to start from is not made of numbers: {error}"
            wanted = f"a tensor of shape {root.shape}"
            raise DTypeError(call, problem, got=gradient, wanted=wanted) from None
    if gradient.shape != root.shape:
        problem = f"gradient has shape {gradient.shape}, the tensor {root.shape}"
        raise ShapeError(call, problem, got=gradient.shape, wanted=root.shape)
    if gradient.dtype.kind not in "fiub" and not is_half(gradient.dtype):
        problem = f"gradient has dtype {name(gradient.dtype)}"
        raise DTypeError(call, problem, got=gradient.dtype, wanted=dtype)
    return gradient if gradient.dtype == dtype else ops.cast(gradient, dtype=dtype)


def _refuse_root(call: str, root: Any) -> None:
    if root._node is UNDER_NO_GRAD:
        raise NoGradModeError(
            call,
            "the tensor was computed under no_grad()",
            hint="compute it outside no_grad(), or inside enable_grad()",
        )
    op = getattr(root._node, "ruleless", None)
    if op is not None:
        raise NoGradientError(
            call,
            f"the tensor was computed by {op.name}, which has no rule, so no gradient flows "
            "through it",
            got=op,
            hint=f"register one, (g, y, *operands) -> cotangents, with @{op.name}.vjp",
        )
    raise NoGradientError(
        call,
        "the tensor does not depend on anything that requires a gradient",
        got=root.shape,
        hint="Tensor(..., requires_grad=True) or x.requires_grad_() before the computation; "
        "the result of a jitted function has no graph: call backward() inside it",
    )
