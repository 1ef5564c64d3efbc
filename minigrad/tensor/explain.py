"""What went wrong in an op, in the user's terms. Called on the failure path only: success pays
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.errors import DTypeError, IndexRangeError, MinigradError, ShapeError
from minigrad.primitive import Primitive


def explain(
    op: Primitive, arrays: Sequence[Any], params: dict[str, Any], error: Exception
) -> MinigradError:
    """The error to raise instead of numpy's: it names the op, the shapes that came, and what to do."""
    shapes = [np.shape(a) for a in arrays if a is not None]
    if isinstance(error, OverflowError):
        return DTypeError(
            op.name,
            f"{error}",
            got=shapes,
            wanted="a number that the tensor's dtype holds",
            hint="widen it first: .long(), .double()",
        )
    if any(a is None for a in arrays):
        return DTypeError(
            op.name, "cannot work on None", got=None, wanted="Tensor, array or number"
        )
    if op.kind == "elementwise" and isinstance(error, ValueError) and not _broadcast(shapes):
        return _no_broadcast(op.name, shapes)
    if op.name in ("matmul", "linear", "attention"):
        return _no_product(op.name, shapes)
    if op.name in ("reshape", "expand"):
        return _no_view(op.name, shapes[0], params["shape"])
    if op.name == "pow":
        return DTypeError("pow", f"{error}", got=shapes, wanted="floats", hint=".float() first")
    kinds: dict[type, type[MinigradError]] = {
        TypeError: DTypeError,
        AttributeError: DTypeError,
        IndexError: IndexRangeError,
    }
    kind = next((k for e, k in kinds.items() if isinstance(error, e)), ShapeError)
    dtypes = ", ".join(
        f"{a.dtype.name} {a.shape}" if isinstance(a, np.ndarray) else repr(a) for a in arrays
    )
    return kind(op.name, f"{error} (operands: {dtypes})", got=shapes)


def _broadcast(shapes: list[tuple[int, ...]]) -> bool:
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        return False
    return True


def _no_broadcast(call: str, shapes: list[tuple[int, ...]]) -> ShapeError:
    a, b = shapes[0], shapes[1]
    for other in shapes[1:]:
        try:
            np.broadcast_shapes(a, other)
        except ValueError:
            b = other
            break
    clashes = [
        f"axis {-i}: {a[-i]} against {b[-i]}"
        for i in range(1, min(len(a), len(b)) + 1)
        if a[-i] != b[-i] and 1 not in (a[-i], b[-i])
    ]
    return ShapeError(
        call,
        f"{a} and {b} do not broadcast.",
        got=(a, b),
        wanted="equal sizes, or 1",
        hint=";  ".join(clashes) + ".  Sizes must be equal, or one of them 1.",
    )


def _no_product(call: str, shapes: list[tuple[int, ...]]) -> ShapeError:
    a, b = shapes[0], shapes[1]
    if not a or not b:
        return ShapeError(
            call,
            f"{a} and {b}: a scalar has no rows or columns.",
            got=(a, b),
            hint="use * to scale",
        )
    inner = b[-2] if len(b) > 1 else b[0]
    if a[-1] != inner:
        hint = (
            f"The last axis of the first ({a[-1]}) must equal the second's next-to-last ({inner})."
        )
        if len(b) > 1 and b[-1] == a[-1]:
            hint += "  The second fits transposed: .transpose(-2, -1)."
        return ShapeError(
            call, f"{a} and {b} do not multiply.", got=(a, b), wanted=(*a[:-1], b[-1]), hint=hint
        )
    return ShapeError(
        call,
        f"the leading axes of {a} and {b} do not broadcast.",
        got=(a, b),
        hint="Sizes must be equal, or one of them 1.",
    )


def _no_view(call: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> ShapeError:
    count = int(np.prod(shape))
    if call == "expand":
        return ShapeError(
            call,
            f"{shape} does not expand to {wanted}",
            got=shape,
            wanted=wanted,
            hint="Sizes must be equal from the right, or 1 where they grow.",
        )
    return ShapeError(
        call,
        f"{shape} has {count} elements, which {wanted} does not hold",
        got=shape,
        wanted=wanted,
        hint="The product of the sizes must stay; one of them may be -1 and is then worked out.",
    )
