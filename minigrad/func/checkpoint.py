"""Checkpointing: forget what a part of the model has computed, and compute it again in the backward
pass.

From Chen et al. 2016, arXiv:1604.06174. Memory falls by what is inside the part, time grows by its
forward pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from minigrad import ops
from minigrad.autograd import rerun
from minigrad.dtypes import Array, is_float
from minigrad.errors import DTypeError
from minigrad.modes import Params, Relay, Values, is_grad_enabled, listening, no_grad
from minigrad.primitive import Primitive
from minigrad.tape import Node, slot_of
from minigrad.tensor import Tensor

# By the id of a generator's state array: the state, and what it held first.
States = dict[int, tuple[Tensor, Tensor]]


def checkpoint(
    f: Callable[..., Any],
    *xs: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    **options: Any,
) -> Any:
    """f(*xs, **options), of which backward needs only the arguments: f is run again there, and
    draws the same random numbers from every `Generator`.

    f: gives a Tensor, or a tuple of them. Gradients reach xs and every tensor that f reads,
        parameters of layers among them.
    use_reentrant, preserve_rng_state: accepted as PyTorch has them; neither changes anything.
    What f does besides computing, such as moving running statistics, it does twice.
    """
    call = functools.partial(f, *xs, **options)
    if not is_grad_enabled():
        return call()
    heard = _Heard()
    with no_grad(), listening(heard):
        given = call()
        outputs = tuple(_own(y) for y in (given if isinstance(given, tuple) else (given,)))
    read = [*(x for x in xs if isinstance(x, Tensor)), *heard.read.values()]
    # A tensor that is given twice is one operand, whose cotangent is the sum for both.
    operands = list({slot_of(x): x for x in read}.values())
    if any(x.requires_grad for x in operands):
        _record(_recomputing(call, operands, heard.states), operands, outputs)
    return outputs if isinstance(given, tuple) else outputs[0]


def _record(op: Primitive, operands: list[Tensor], outputs: tuple[Tensor, ...]) -> None:
    """Leave a node on the tape."""
    node = Node(op, operands, {}, outputs)
    for i, y in enumerate(outputs):
        if is_float(y.dtype):
            y._node, y._index, y._wants = node, i, True


def _own(y: Any) -> Tensor:
    """A result as a tensor that nothing else holds."""
    if not isinstance(y, Tensor):
        problem = f"f must give a Tensor or a tuple of them, got {type(y).__name__}"
        raise DTypeError("checkpoint", problem, type(y))
    return ops.alias(y)


class _Heard(Relay):
    """What f reads from outside, and where the generators stood that it draws from.

    Under no_grad nothing that f makes requires a gradient: an operand that does comes from outside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.read: dict[int, Tensor] = {}
        self.states: States = {}

    def run(self, op: Primitive, arrays: Values, params: Params) -> Any:
        if op.kind == "random":
            self._note(arrays[-1])
        return super().run(op, arrays, params)

    def drawing(self, state: Array) -> None:
        self._note(state)
        super().drawing(state)

    def _note(self, state: Array) -> None:
        if id(state) not in self.states:
            t = Tensor._wrap(state)
            self.states[id(state)] = t, ops.copy(t)

    def done(self, op: Primitive, operands: Values, params: Params, outputs: Values) -> None:
        for x in operands:
            if isinstance(x, Tensor) and x.requires_grad:
                self.read.setdefault(id(x), x)
        super().done(op, operands, params, outputs)


def _recomputing(call: functools.partial[Any], operands: list[Tensor], states: States) -> Primitive:
    """The op whose rule makes the call again and goes back through it."""
    f = call.func

    def forward(*values: Any) -> Any:  # f may be a module, which has no name
        return f(*values)

    op = Primitive(forward, "contract", None, 2)  # of 2 outputs and more, a rule gets a sequence
    op.name = f"checkpoint({getattr(f, '__name__', type(f).__name__)})"
    op.user_defined = False

    def rule(gs: Sequence[Any], _y: Any, *_values: Any, needs: Sequence[bool]) -> list[Any]:
        wanted = [x for x, need in zip(operands, needs, strict=True) if need]
        with _restored(states):
            found = iter(rerun(call, wanted, gs))
        return [next(found) if need else None for need in needs]

    op.vjp(rule)
    op.saves_operand = (True,)  # f will read every operand again, so none may be changed meanwhile
    return op


@contextmanager
def _restored(states: States) -> Iterator[None]:
    """Inside, the generators draw what they drew the first time; afterwards they go on as before.
    By ops, so that a recorder sees it.
    """
    now = [(state, ops.copy(state)) for state, _ in states.values()]
    for state, then in states.values():
        ops.assign(state, then)
    try:
        yield
    finally:
        for state, before in now:
            ops.assign(state, before)
