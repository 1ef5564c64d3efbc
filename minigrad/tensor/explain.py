"""What went wrong in an op, in the user's terms. Called on the failure path only: success pays
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from minigrad.errors import DTypeError, MinigradError, ShapeError, kind_of
from minigrad.ops.axis import axes
from minigrad.primitive import Primitive

Shape = tuple[int, ...]
_BROADCAST = "Sizes must be equal, or one of them 1."


def explain(
    op: Primitive, arrays: Sequence[Any], params: dict[str, Any], error: Exception
) -> MinigradError:
    """The error to raise instead of numpy's: it names the op, the shapes and what to do."""
    call, shapes = op.name, [np.shape(a) for a in arrays if a is not None]
    for a in arrays:
        if hasattr(a, "_node"):
            return not_an_array(call)
    if shapes and isinstance(error, TypeError | ValueError):
        try:
            axes(params.get("axis", params.get("order", ())), len(shapes[0]), call)
        except MinigradError as found:
            return found
    if isinstance(error, OverflowError):
        return DTypeError(call, f"{error}", got=shapes, hint="widen it first: .long(), .double()")
    if any(a is None for a in arrays):
        return DTypeError(call, "cannot work on None", wanted="Tensor, array or number")
    if op.kind == "elementwise" and isinstance(error, ValueError):
        clashing = [pair for pair in combinations(shapes, 2) if _clashes(*pair)]
        if clashing:
            return _no_broadcast(call, *clashing[0])
    if call in ("matmul", "linear", "attention"):
        return _no_product(call, *shapes[:2])
    if call in ("reshape", "expand"):
        return _no_view(call, shapes[0], params.get("shape", ()))
    if call == "pow":
        return DTypeError("pow", f"{error}", got=shapes, wanted="floats", hint=".float() first")
    given = (f"{a.dtype} {a.shape}" if isinstance(a, np.ndarray) else repr(a) for a in arrays)
    return kind_of(error, ShapeError)(call, f"{error} (operands: {', '.join(given)})", got=shapes)


def not_an_array(call: str) -> DTypeError:
    """The error for an operand whose `data` was made a tensor."""
    problem = "the data of an operand is a Tensor, not a numpy array"
    hint = (
        "t.assign(values) or t.copy_(values) changes the elements; t.data = values.data the array"
    )
    return DTypeError(call, problem, wanted="numpy array", hint=hint)


def _clashes(a: Shape, b: Shape) -> list[str]:
    """The axes in which two shapes do not broadcast."""
    return [
        f"axis {-i}: {a[-i]} against {b[-i]}"
        for i in range(1, min(len(a), len(b)) + 1)
        if a[-i] != b[-i] and 1 not in (a[-i], b[-i])
    ]


def _no_broadcast(call: str, a: Shape, b: Shape) -> ShapeError:
    hint = ";  ".join(_clashes(a, b)) + ".  " + _BROADCAST
    return ShapeError(call, f"{a} and {b} do not broadcast.", got=(a, b), hint=hint)


def _no_product(call: str, a: Shape, b: Shape) -> ShapeError:
    if not a or not b:
        problem, hint = f"{a} and {b}: a scalar has no rows or columns.", "use * to scale"
        return ShapeError(call, problem, got=(a, b), hint=hint)
    inner = b[-2] if len(b) > 1 else b[0]
    if a[-1] == inner:
        problem = f"the leading axes of {a} and {b} do not broadcast."
        return ShapeError(call, problem, got=(a, b), hint=_BROADCAST)
    hint = f"The last axis of the first ({a[-1]}) must equal the second's next-to-last ({inner})."
    if len(b) > 1 and b[-1] == a[-1]:
        hint += "  The second fits transposed: .transpose(-2, -1)."
    return ShapeError(call, f"{a} and {b} do not multiply.", got=(a, b), hint=hint)


def _no_view(call: str, shape: Shape, wanted: Shape) -> ShapeError:
    problem = f"{shape} does not expand to {wanted}"
    hint = "Sizes must be equal from the right, or 1 where they grow."
    if call == "reshape":
        problem = f"{shape} has {int(np.prod(shape))} elements, which {wanted} does not hold"
        hint = "The product of the sizes must stay; one of them may be -1 and is then worked out."
    return ShapeError(call, problem, got=shape, wanted=wanted, hint=hint)
