"""The tape: what a forward pass records, one Node per op."""

from __future__ import annotations

import itertools
import os
import sys
import weakref
from collections.abc import Callable, Sequence
from types import CodeType, FrameType
from typing import Any, NamedTuple

from minigrad import errors
from minigrad.dtypes import Array
from minigrad.primitive import Primitive

_PACKAGE = os.path.dirname(__file__) + os.sep
next_number = itertools.count().__next__  # nodes are numbered in the order of their creation


class Where(NamedTuple):
    """A place in the user's code. The line is worked out only when it is asked for."""

    code: CodeType
    instruction: int

    def __str__(self) -> str:
        lines = (
            line for start, end, line in self.code.co_lines() if start <= self.instruction < end
        )
        return f"{self.code.co_filename}:{next(lines, None) or self.code.co_firstlineno}"


class _Inside(dict[str, bool]):
    """For each file name that a frame has had: whether it is one of the package's."""

    def __missing__(self, name: str) -> bool:
        self[name] = inside = name.startswith(_PACKAGE)
        return inside


_INSIDE = _Inside()


def user_frame(depth: int) -> FrameType:
    """The nearest caller outside the package, at least `depth` frames up."""
    frame = sys._getframe(depth)
    while _INSIDE[frame.f_code.co_filename] and frame.f_back is not None:
        frame = frame.f_back
    return frame


def user_line(depth: int = 2) -> Where:
    """The line of that caller."""
    frame = user_frame(depth + 1)
    return Where(frame.f_code, frame.f_lasti)


# A place in the graph: a node for its first output, (node, index) for another, the id of a leaf.
Slot = Any


def slot_of(x: Any) -> Slot:
    """The tensor's place in the graph."""
    node = x._node
    if not isinstance(node, Node):
        return id(x)
    return (node, x._index) if x._index else node


def maker_of(slot: Slot) -> Any:
    """The node whose output has this place; None for a leaf."""
    return slot if type(slot) is Node else slot[0] if type(slot) is tuple else None


class Shadow:
    """Stands in for a large operand whose values the rule does not read: its shape and dtype."""

    __slots__ = ("dtype", "grad_fn", "ndim", "requires_grad", "shape")
    SMALL = 1024  # elements; smaller operands are not worth replacing

    def __init__(self, tensor: Any) -> None:
        array = tensor.data
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim
        self.requires_grad = tensor._wants
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
    _hooks: (output, function) of each hook.   retaining: weak references to outputs with .grad.
    """

    __slots__ = (
        "_hooks",
        "_place",
        "freed_by",
        "masks",
        "number",
        "op",
        "operands",
        "outputs",
        "params",
        "retaining",
        "seen",
        "size",
        "slots",
    )

    def __init__(
        self, op: Primitive, operands: Sequence[Any], params: dict[str, Any], outputs: Sequence[Any]
    ) -> None:
        # The user's line is above the op and the door, so at least 4 frames up.
        frame = user_frame(4)
        self._place = frame.f_code, frame.f_lasti
        self.op, self.params, self.number = op, params, next_number()
        self.operands = operands = list(operands)
        slots: list[Slot | None] = [None] * len(operands)
        self.slots = slots
        self.seen: list[tuple[Any, list[Any], int]] = []
        saves = op.saves_operand
        if op.reads_other_operand:
            a, b = operands
            saves = getattr(b, "_wants", False), getattr(a, "_wants", False)
        last, finite = len(saves) - 1, True
        for i, x in enumerate(operands):
            node = getattr(x, "_node", x)  # x itself: a scalar
            if node is not x:
                if x._wants:
                    slots[i] = id(x) if node is None else (node, x._index) if x._index else node
                if saves[i if i < last else last]:
                    cell = x._version
                    self.seen.append((x, cell, cell[0]))
                elif node is not None and x.data.size > Shadow.SMALL:
                    operands[i] = Shadow(x)
            elif type(x) is float and x - x:  # infinite or NaN
                finite = False
        self.outputs: tuple[Array, ...] | None = None
        if op.keeps_output:
            self.outputs = tuple([y.data for y in outputs])
            self.seen += [(None, y._version, 0) for y in outputs]
        self.size, self.freed_by = len(outputs), -1
        masking = op.kind == "elementwise" and not op.zero_safe
        self.masks = masking and (bool(self.seen) or not finite)
        self._hooks: tuple[tuple[int, Callable[[Any], Any]], ...] = ()
        self.retaining: tuple[weakref.ref[Any], ...] = ()

    @property
    def where(self) -> Where:
        """The user's line that made the call."""
        return Where(*self._place)

    def __repr__(self) -> str:
        return f"<{self.op.name} at {self.where}>"

    def free(self, root: int) -> None:
        """Drop what the rule would have read. `root`: the number of the newest node of the walk."""
        self.operands, self.slots, self.outputs, self.seen, self.freed_by = [], [], None, [], root


class NoNode(NamedTuple):
    """Stands in a Tensor's `_node` for a node that was not made: because of no_grad(), or because
    a user's op has no rule.
    """

    ruleless: Primitive | None = None


UNDER_NO_GRAD = NoNode()


def nodes_above(
    roots: Sequence[Any], since: int = 0, leaves: dict[Slot, Any] | None = None
) -> list[Node]:
    """All nodes numbered `since` or later that the roots depend on, newest first; the leaves above
    them are added to `leaves`. Raises for freed nodes and stale values.
    """
    found: set[Node] = set()
    stack = [x._node for x in roots if isinstance(x._node, Node) and x._node.number >= since]
    root = stack[0].number if stack else 0
    while stack:
        node = stack.pop()
        if node in found:
            continue
        found.add(node)
        if node.freed_by >= 0:
            raise _freed(node, root)
        for x, cell, version in node.seen:
            # `t[i] = x` gives t other memory, with a version of its own, where gradients flow.
            if cell[0] != version or (x is not None and x._version is not cell):
                raise _stale(node, x, cell)
        for x, slot in zip(node.operands, node.slots, strict=True):
            if type(slot) is int:
                if leaves is not None:
                    leaves[slot] = x
            elif slot is not None:
                parent = slot if type(slot) is Node else slot[0]
                if parent.number >= since:
                    stack.append(parent)
    return sorted(found, key=lambda node: node.number, reverse=True)


def paths(nodes: list[Node], wanted: set[Slot]) -> dict[Node, list[Slot | None]]:
    """The nodes through which a gradient flows to a wanted slot, each with its slots that lead
    there, None for the others.
    """
    found: dict[Node, list[Slot | None]] = {}
    for node in reversed(nodes):
        slots = [s if s in wanted or maker_of(s) in found else None for s in node.slots]
        if any(slot is not None for slot in slots):
            found[node] = slots
    return found


def _freed(node: Node, root: int) -> errors.GradientError:
    where = str(node.where)
    if node.freed_by == root:
        problem = "a second time through the same graph, which the first has freed"
        hint = "pass retain_graph=True the first time, or run the forward pass again"
        return errors.BackwardTwiceError("backward", problem, hint=hint, where=where)
    problem = f"through {node.op.name}, which another backward() has freed"
    hint = "add the losses and call backward() once, or pass retain_graph=True to the first"
    return errors.GraphFreedError("backward", problem, hint=hint, where=where)


def _stale(node: Node, x: Any, cell: list[Any]) -> errors.StaleValueError:
    line = cell[1] if x is None or x._version is cell else x.grad_fn.where
    problem = f"{node.op.name} needs a value that was changed in place at {line} after it was used"
    hint = "change a copy, or change it after backward()"
    return errors.StaleValueError("backward", problem, line, node.where, hint, str(node.where))


def no_graph(call: str, root: Any) -> errors.GradientError:
    """The error for a tensor that no gradient flows through."""
    if root._node is UNDER_NO_GRAD:
        hint = "compute it outside no_grad(), or inside enable_grad()"
        return errors.NoGradModeError(call, "the tensor was computed under no_grad()", hint=hint)
    op = getattr(root._node, "ruleless", None)
    if op is not None:
        hint = f"register one, (g, y, *operands) -> cotangents, with @{op.name}.vjp"
        problem = f"the tensor was computed by {op.name}, which has no rule for gradients"
        return errors.NoGradientError(call, problem, op, hint=hint)
    problem = "the tensor does not depend on anything that requires a gradient"
    hint = (
        "Tensor(..., requires_grad=True) or x.requires_grad_() before the computation; "
        "the result of a jitted function has no graph: call backward() inside it"
    )
    return errors.NoGradientError(call, problem, root.shape, hint=hint)
