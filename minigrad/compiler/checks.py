"""Whether a program does what the recorded call did: states before and after, results and
gradients.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from minigrad.compiler.layout import address_of
from minigrad.compiler.record import Captured, Recording
from minigrad.dtypes import Array, cast, computing, is_half
from minigrad.errors import CaptureError

_NEAR, _NEAR_HALF = (
    1e-3,
    3e-2,
    # How far from eager counts as equal: a few units in the last place of 16-bit floats, and what
    # is no mistake in others
)
_BLOCK = 1 << 15


def snapshot(first: Recording) -> dict[int, Array]:
    """Copies of the states that the step changes, by address, as they are before the second call."""
    changed: dict[int, Array] = {}
    for call in first.calls:
        n = call.params.get("changes", 1) if call.op.kind == "effect" else 0
        operands = (
            call.operands[:n]
            if call.op.kind == "effect"
            else call.operands[-1:]
            if call.op.kind == "random"
            else ()
        )
        for x in operands:
            if x.index in first.leaves:
                array = first.leaves[x.index].array
                changed[address_of(array)] = array.copy()
    return changed


def difference(got: list[Array], wanted: list[Array]) -> str:
    """What is wrong with results and gradients, or nothing. Gradients are measured against the
    largest of all.
    """
    dtypes = [w.dtype for w in wanted]
    got, wanted = ([cast(a, computing(a.dtype)) for a in arrays] for arrays in (got, wanted))
    floats = [w for w in wanted if w.dtype.kind == "f" and w.size]
    scale = max(
        (float(np.max(np.abs(w), initial=0, where=np.isfinite(w))) for w in floats), default=0.0
    )
    for g, w, dtype in zip(got, wanted, dtypes, strict=True):
        near = _NEAR_HALF if is_half(dtype) else _NEAR
        if w.dtype.kind != "f":
            if not np.array_equal(g, w):
                return f"a result of shape {w.shape} and {w.dtype}"
        elif not np.allclose(g, w, rtol=near, atol=near * scale, equal_nan=True):
            with np.errstate(all="ignore"):
                return f"a result of shape {w.shape} by up to {np.max(np.abs(g - w)):.2g}"
    return ""


def moved_differently(got: Array, wanted: Array, before: Array, magnified: bool) -> str:
    """What is wrong with a state after the step, measured against the largest step of all its
    numbers.

    magnified: its steps are gradients divided by their size, as Adam's are, which makes rounding
        large where gradients vanish; a wrong gradient
    shows in the moments then.
    """
    near = _NEAR_HALF if is_half(got.dtype) else _NEAR
    got, wanted, before = (cast(a, computing(a.dtype)) for a in (got, wanted, before))
    if got.dtype.kind != "f":
        return (
            ""
            if np.array_equal(got, wanted)
            else f"a state of shape {wanted.shape} and {wanted.dtype}"
        )
    step = max(
        np.max(np.abs(w - b), initial=0, where=np.isfinite(w) & np.isfinite(b))
        for w, b in _blocks(wanted, before)
    )
    scale = max(np.max(np.abs(w), initial=0, where=np.isfinite(w)) for (w,) in _blocks(wanted))
    rtol, atol = (
        near if magnified or near == _NEAR_HALF else 1e-5,
        float((4 if magnified else near) * step + 1e-5 * scale),
    )
    same = all(
        np.allclose(g, w, rtol=rtol, atol=atol, equal_nan=True) for g, w in _blocks(got, wanted)
    )
    return "" if same else f"a state of shape {wanted.shape}"


def _blocks(*arrays: Array) -> Iterator[list[Array]]:
    """Arrays of one shape, a piece of each at a time that fits the cache: four times as fast as all
    of large ones.
    """
    flat = [a.reshape(-1) for a in arrays]
    for at in range(0, max(1, flat[0].size), _BLOCK):
        yield [a[at : at + _BLOCK] for a in flat]


def marks(first: Recording) -> dict[int, int]:
    """Check sums of what a recording met and had not made, by address: to see later what has been
    written past the ops.
    """
    return {address_of(leaf.array): _sum_of(leaf.array) for leaf in first.leaves.values()}


def _sum_of(a: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(a).reshape(-1).view(np.uint8).data)


def refuse_writes_past_the_ops(
    before: dict[int, int], captured: Captured, changed: set[int]
) -> None:
    """Raise CaptureError if a state has changed during the call that no op has written to."""
    if captured.shares:
        return  # an op may have written to it by way of another tensor
    for number, (array, tensor) in captured.states.items():
        mark = before.get(address_of(array))
        if number not in changed and mark is not None and mark != _sum_of(array):
            raise CaptureError(
                "jit",
                f"the step writes into {'a tensor' if tensor is not None else 'an array'} of shape "
                f"{array.shape} by way of "
                "numpy, which a replay would not do",
                got=array.shape,
                hint="t.assign(...) under no_grad(), or an optimizer, instead of t.data -= ...",
            )
