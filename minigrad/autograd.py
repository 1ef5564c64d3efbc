"""The walk from outputs back to leaves.

Knows the tape and rules. Does not know Tensor's methods, nor any op by name but the few that the
walk itself needs (to undo broadcasting, to accumulate).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from minigrad import errors, ops
from minigrad.dtypes import Array, DType, cast, computing, float32, is_float, is_half
from minigrad.modes import ERROR_STATE, MODE, SILENT, GradMode, enable_grad, no_grad as no_grad
from minigrad.ops.elementwise import has_nan
from minigrad.primitive import Primitive, primitive
from minigrad.tape import Node, Slot, next_number, no_graph, nodes_above, paths, slot_of


def show(tensors: Iterable[Any]) -> None:
    """Run a view op on tensors if a listener is there, so that it meets the tensors themselves: to
    clear .grad, or to put another array into a tensor, takes no op.
    """
    if MODE.get().listener is not None:
        for x in tensors:
            ops.alias(x)


def clear_gradients(leaves: Iterable[Any], set_to_none: bool = True) -> None:
    """Forget the gradients of leaves; or, with set_to_none=False, write zeros over them."""
    leaves = list(leaves)
    show(leaves)
    for leaf in leaves:
        if set_to_none:
            leaf.grad = None
        elif leaf.grad is not None:
            if leaf.grad.requires_grad:  # part of a graph, by create_graph=True
                leaf.grad = leaf.grad.detach()
            leaf.grad.assign(0)


# --- the walk


class Walk:
    """One backward pass: it carries cotangents from the roots up to the leaves, or to the wanted
    slots, through nodes numbered `since` or later.

    It runs on arrays; on Tensors while a listener is there, and where gradients are enabled, which
    builds a graph of the gradient (`create_graph`).

    leaves: the leaves that the roots depend on, by slot.
    reached: the slots of the leaves, or the wanted ones, that the roots depend on.
    retaining: the tensors met on the way that keep their .grad.
    kept: the slots of nodes whose cotangent is asked for.   sums: slot -> cotangent so far.
    fresh: the slots whose cotangent is an array that nothing else holds.
    """

    def __init__(
        self,
        call: str,
        roots: Sequence[Any],
        gradients: Sequence[Any],
        wanted: set[Slot] | None,
        since: int = 0,
    ) -> None:
        starts = [starting_gradient(call, x, g) for x, g in zip(roots, gradients, strict=True)]
        self.roots, self.wrap = roots, roots[0]._wrap
        self.create_graph, self.listener = MODE.get()
        self.on_tensors = self.create_graph or self.listener is not None
        self.leaves: dict[Slot, Any] = {id(x): x for x in roots if x.is_leaf}
        self.retaining: list[Any] = []
        self.sums: dict[Slot, Any] = {}
        self.fresh: set[Slot] = set()
        self._taken: set[int] = set()  # on Tensors: the memory that a result may not share
        self.nodes = nodes_above(roots, since, self.leaves)
        self.paths: dict[Node, list[Slot | None]] | None = None
        self.reached, self.kept = set(self.leaves), set[Slot]()
        if wanted is not None:
            self.paths = paths(self.nodes, wanted)
            self.reached = wanted & {slot for slots in self.paths.values() for slot in slots}
            self.kept = {slot for slot in wanted if type(slot) is not int}
        for root, g in zip(roots, starts, strict=True):
            self.add(slot_of(root), g if self.on_tensors else g.data, fresh=False)

    def run(self, retain: bool) -> None:
        """Go through the nodes, newest first. What arrives is in `sums`."""
        root = self.nodes[0].number if self.nodes else 0
        listener, paths = self.listener, self.paths
        token = ERROR_STATE.set(SILENT)
        try:
            for node in self.nodes:
                if listener is not None:
                    listener.walking(node)
                gs = self.arrived(node)
                slots = node.slots if paths is None else paths.get(node)
                if gs and slots:
                    self.through(node, gs, slots)
                if not retain:
                    node.free(root)
        finally:
            ERROR_STATE.reset(token)
            if listener is not None:
                listener.walking(None)

    def arrived(self, node: Node) -> list[Any]:
        """The cotangents of the node's outputs, None for one that has none; [] if none has one."""
        g = self.sums.pop(node, None)
        if node.size == 1 and (g is None or not (self.kept or node._hooks or node.retaining)):
            return [] if g is None else [g]
        slots: list[Slot] = [node, *((node, i) for i in range(1, node.size))]
        gs = [g, *(self.sums.pop(slot, None) for slot in slots[1:])]
        if all(g is None for g in gs):
            return []
        for i, hook in node._hooks:
            if gs[i] is not None:
                gs[i] = self.hooked(slots[i], gs[i], hook)
        for ref in node.retaining:
            x = ref()
            if x is not None and x._node is node:
                self.retaining.append(x)
                self.kept.add(slot_of(x))
                self.reached.add(slot_of(x))
        if self.kept:
            self.sums.update((s, g) for s, g in zip(slots, gs, strict=True) if s in self.kept)
        return gs

    def hooked(self, slot: Slot, g: Any, hook: Callable[[Any], Any]) -> Any:
        """The cotangent after a hook, which may replace it."""
        t = g if self.on_tensors else self.wrap(g)
        self.fresh.discard(slot)  # the hook may keep it
        self._taken.add(_memory(t))
        return hook(t) if self.on_tensors else hook(t).data

    def through(self, node: Node, gs: list[Any], slots: Sequence[Slot | None]) -> None:
        """Apply the node's rule: its outputs' cotangents in, its operands' out."""
        op = node.op
        values: Sequence[Any] = node.operands
        if op.composed_form is not None and (self.create_graph or op.rule is None):
            answer = _through_composed(node, gs, slots)
        else:
            assert op.rule is not None, op
            if not self.on_tensors:
                values = [_computable(x) for x in values]
            params = node.params
            if op.wants_needs:
                params = {**params, "needs": [slot is not None for slot in slots]}
            g = gs[0] if op.outputs == 1 else gs
            answer = op.rule(g, self.outputs(node), *values, **params)
        if op.user_defined:
            _check_answer(node, answer)
        held = {*map(id, gs), *map(id, values)}
        for x, slot, g in zip(values, slots, answer, strict=False):
            if slot is not None and g is not None:
                if node.masks:
                    g = self.masked(g, gs)
                if type(g) is not np.ndarray or g.shape != x.shape or g.dtype is not x.dtype:
                    g = self.fit(op, g, x)
                fresh = id(g) not in held and not self.on_tensors and g.base is None
                self.add(slot, g, fresh)
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
        return ops.mask_cotangent(g, asked) if self.listener or has_nan(g.data) else g

    def outputs(self, node: Node) -> Any:
        """The node's output, or the tuple of them, as its rule reads it; None if it does not."""
        if node.outputs is None:
            return None
        ys = [self.wrap(y) if self.on_tensors else _computable(y) for y in node.outputs]
        for i, y in enumerate(ys if self.create_graph else ()):
            y._wants, y._node, y._index = True, node, i
        return ys[0] if node.op.outputs == 1 else tuple(ys)

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

    def result(self, slot: Slot, dtype: DType) -> Any:
        """The cotangent of a leaf or wanted slot, as a Tensor of this dtype that shares no memory
        with any other; None if none arrived.
        """
        g = self.sums.get(slot)
        if g is None:
            return None
        if self.on_tensors:
            if _memory(g) in self._taken or not g.data.flags.writeable:
                g = ops.copy(g)
            self._taken.add(_memory(g))
            return g if g.dtype == dtype else ops.cast(g, dtype=dtype)
        g = cast(np.asarray(g), dtype)
        return self.wrap(g if slot in self.fresh or is_half(dtype) else g.copy())

    def gradient(self, x: Any, zeros: bool) -> Any:
        """The gradient with respect to x, after the hooks of a leaf. Where none arrived: zeros if
        the roots depend on x, as they do through a mask, or if `zeros`; else None.
        """
        slot = slot_of(x)
        leaf = self.leaves.pop(slot, None)
        for _, hook in () if leaf is None else leaf._hooks:
            if slot in self.sums:
                self.sums[slot] = self.hooked(slot, self.sums[slot], hook)
        g = self.result(slot, x.dtype)
        if g is None and (zeros or slot in self.reached):
            with no_grad():
                g = ops.zeros_like(x)
        if self.create_graph and slot in self.reached:
            g, given = g._as_it_stands(), g
            g._node = Node(_gradient, [given, *self.roots], {}, (g,))
            g._index, g._wants = 0, True
        return g


def _memory(x: Any) -> int:
    """What two tensors have in common that share memory."""
    return id(x.data if x.data.base is None else x.data.base)


def _computable(x: Any) -> Any:
    """An operand as its rule gets it on arrays: 16-bit floats as float32, Shadows and scalars as
    they are.
    """
    data = x if type(x) is np.ndarray else getattr(x, "data", x)
    if type(data) is np.ndarray and data.dtype is not float32 and is_half(data.dtype):
        return cast(data, float32)
    return data


def unbroadcast(g: Any, shape: tuple[int, ...], call: str) -> Any:
    """g summed over the axes along which an operand of `shape` was broadcast."""
    extra = g.ndim - len(shape)
    grown = [i for i, n in enumerate(shape) if n == 1 and g.shape[i + extra] != 1]
    if extra < 0 or any(n != g.shape[i + extra] for i, n in enumerate(shape) if n != 1):
        problem = f"the rule gave a cotangent of shape {g.shape} for an operand of shape {shape}"
        raise errors.ShapeError(f"{call}.vjp", problem, g.shape, shape, "it must broadcast to it")
    axis = (*range(extra), *(i + extra for i in grown))
    return ops.reshape(ops.sum(g, axis=axis), shape=shape) if axis else g


def _check_answer(node: Node, answer: Any) -> None:
    """Raise GradientError unless a user's rule gave one cotangent per operand."""
    wanted, given = len(node.operands), type(answer).__name__
    if isinstance(answer, (tuple, list)):
        if len(answer) == wanted:
            return
        given = f"{len(answer)} cotangents"
    problem = f"the rule of {node.op.name} gave {given} for {wanted} operands"
    hint = "a tuple of one cotangent per operand, None where there is none: return (g * y,)"
    call = f"{node.op.name}.vjp"
    raise errors.GradientError(call, problem, answer, wanted, hint, str(node.where))


def rerun(f: Callable[[], Any], wanted: Sequence[Any], gs: Sequence[Any]) -> list[Any]:
    """For a rule: run f, which gives one output or a tuple of them, and return the cotangents of
    the tensors `wanted` that it reads, None for one that it does not. `gs`: the cotangents of its
    outputs, None for one that has none. They and the answer are arrays, or all Tensors.

    The walk goes through what f has made alone: derivatives stop at the tensors that it was given,
    and do not run on from one of them to another that it was made of.
    """
    with enable_grad():
        since = next_number()
        ys = f()
    pairs = [
        (y, g if hasattr(g, "_node") else y._wrap(np.asarray(g)))
        for y, g in zip(ys if isinstance(ys, tuple) else (ys,), gs, strict=False)
        if g is not None and y.requires_grad
    ]
    if not pairs:
        return [None] * len(wanted)
    roots, starts = zip(*pairs, strict=True)
    walk = Walk("grad", roots, starts, {slot_of(x) for x in wanted}, since)
    walk.run(retain=True)
    answer = [walk.result(slot_of(x), x.dtype) for x in wanted]
    if any(hasattr(g, "_node") for g in gs):
        return answer
    return [None if a is None else a.data for a in answer]


def _through_composed(node: Node, gs: list[Any], slots: Sequence[Slot | None]) -> list[Any]:
    """The operands' cotangents by the op's composed form, which is run on aliases of them: an
    operand that is given twice is two.
    """
    form = node.op.composed_form
    assert form is not None
    with enable_grad():
        aliases = [
            x if slot is None else ops.alias(x)
            for x, slot in zip(node.operands, slots, strict=True)
        ]
    wanted = [x for x, slot in zip(aliases, slots, strict=True) if slot is not None]
    found = iter(rerun(lambda: form(*aliases, **node.params), wanted, gs))
    return [None if slot is None else next(found) for slot in slots]


@primitive(kind="view")
def _gradient(g: Array, *_roots: Array) -> Array:
    """g, a gradient of the roots, as a function of all that they depend on. Where no op says how it
    depends on something (the gradient of relu does not change with x), the derivative is zero.
    """
    return g


@_gradient.vjp
def _(g: Any, _y: Any, _g: Any, *_roots: Any) -> tuple[Any, ...]:
    return g, *(None for _ in _roots)


# --- the two doors

_adding = threading.RLock()  # held while a gradient is added to .grad
if hasattr(os, "register_at_fork"):  # no child may find it held by a thread that it does not have
    os.register_at_fork(
        before=_adding.acquire, after_in_parent=_adding.release, after_in_child=_adding.release
    )


def backward(
    self: Any, gradient: Any = None, retain_graph: bool = False, create_graph: bool = False
) -> None:
    """Add d self / d leaf to `.grad` of every leaf that the tensor `self` was computed from.

    gradient: the cotangent to start from, of self's shape; needed unless self has one element.
    retain_graph: keep what the pass needs, so that it can be done again.  create_graph: make
        the gradients differentiable.
    Raises NotScalarError, NoGradientError, NoGradModeError, BackwardTwiceError, GraphFreedError
    or StaleValueError.
    """
    with GradMode(create_graph):
        walk = Walk("backward", [self], [gradient], None)
        walk.run(retain_graph or create_graph)
        for x in (*walk.leaves.values(), *walk.retaining):
            g = walk.gradient(x, zeros=True)
            with _adding:
                x.grad = g if x.grad is None else x.grad + g


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
        raise errors.ShapeError("grad", problem, len(given), len(roots))
    with GradMode(create_graph):
        walk = Walk("grad", roots, given, {slot_of(x) for x in targets})
        walk.run(create_graph if retain_graph is None else retain_graph)
        results = [walk.gradient(x, materialize_grads) for x in targets]
    for i, g in enumerate(results):
        if g is None and not allow_unused:
            problem = f"no output depends on input {i} of shape {targets[i].shape}"
            hint = "allow_unused=True gives None for it, materialize_grads=True gives zeros"
            raise errors.UnusedInputError("grad", problem, i, hint=hint)
    return tuple(results)


def _tensors(what: str, given: Any) -> list[Any]:
    """A tensor, or several, as a list."""
    found = [given] if hasattr(given, "_node") or not isinstance(given, Iterable) else list(given)
    hint = "minigrad.grad(loss, [w, b])"
    for x in found:
        if not hasattr(x, "_node"):
            problem = f"{what} must be tensors, got {type(x).__name__}"
            raise errors.DTypeError("grad", problem, type(x), hint=hint)
    if not found:
        problem = f"{what} are empty, expected at least one tensor"
        raise errors.ShapeError("grad", problem, 0, hint=hint)
    return found


def starting_gradient(call: str, root: Any, gradient: Any) -> Any:
    """The cotangent that a walk starts with: ones for a scalar, else the given one, checked."""
    if not root.requires_grad:
        raise no_graph(call, root)
    dtype = computing(root.dtype)
    if gradient is None:
        if root.data.size != 1:
            problem = f"a tensor of shape {root.shape} needs a gradient to start from"
            hint = "reduce it first, say .sum() or .mean(), or pass gradient="
            raise errors.NotScalarError(call, problem, root.shape, (), hint)
        return root._wrap(np.ones(root.shape, dtype))
    if not hasattr(gradient, "_node"):
        try:
            gradient = root._wrap(np.array(gradient, dtype))
        except (TypeError, ValueError) as error:
            problem = f"gradient must be made of numbers: {error}"
            raise errors.DTypeError(call, problem, gradient, root.shape) from None
    if gradient.shape != root.shape:
        problem = f"gradient has shape {gradient.shape}, the tensor {root.shape}"
        raise errors.ShapeError(call, problem, gradient.shape, root.shape)
    return gradient if gradient.dtype == dtype else ops.cast(gradient, dtype=dtype)
