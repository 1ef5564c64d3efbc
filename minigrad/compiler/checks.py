"""Whether a program does what the recorded call did: states before and after, results and
gradients.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from minigrad.compiler.layout import address_of
from minigrad.compiler.plan import Plan
from minigrad.compiler.record import Recording, changed_leaves
from minigrad.compiler.replay import NumpyReplay
from minigrad.dtypes import Array, cast, computing, is_half
from minigrad.errors import CaptureError
from minigrad.tensor import Tensor

# How far from eager counts as equal: a few units in the last place of 16-bit floats, and in others
# more than rounding and less than a mistake
_NEAR, _NEAR_HALF = 1e-3, 3e-2
_BLOCK = 1 << 15
# How often a replay by numpy is repeated with operands moved by a rounding, and how many times
# what that changes a compiled result may be away
_TRIALS, _NOISE = 4, 16


def snapshot(first: Recording) -> dict[int, Array]:
    """Copies of the states that the step changes, by address, as they are before the second call."""
    arrays = [first.leaves[number].array for number in changed_leaves(first)]
    return {address_of(array): array.copy() for array in arrays}


def replay_difference(
    plan: Plan, tensors: Sequence[Tensor], before: dict[int, Array], eager: list[Array]
) -> str:
    """What differs between a replay of the recorded call and the call; nothing if they agree.

    Leaves the states as the call left them.   eager: the results and gradients of the call.
    """
    values = plan.program.values
    states = {i: plan.bound[i] for i in plan.changed if values[i].source == "state"}
    if any(address_of(a) not in before for a in states.values()) or len(states) < len(plan.changed):
        return ""  # there is no copy of the state before
    old = {i: before[address_of(a)] for i, a in states.items()}
    after = {i: a.copy() for i, a in states.items()}
    gradients = {i: plan.trace.leaves[i].array for i in plan.captured.gradients}
    magnified = plan.magnified()
    for i, a in states.items():
        a[...] = old[i]
    try:
        bound = {**plan.bound, **_inputs(plan, tensors), **gradients}
        got = plan.backend.run(bound)
        moved = {i: a.copy() for i, a in states.items()}
        wrong = {n: text for n, text in enumerate(_compared(got, eager)) if text}
        for i, a in moved.items():
            text = _moved_differently(a, after[i], old[i], i in magnified)
            if text:
                wrong[len(eager) + list(states).index(i)] = text
        if wrong and plan.backend.kind == "c":
            pairs = [*zip(got, eager, strict=True), *((moved[i], after[i]) for i in states)]
            wrong = _beyond_noise(plan, {**bound, **old}, list(states), pairs, wrong)
    finally:
        for i, a in states.items():
            a[...] = after[i]
    return next(iter(wrong.values()), "")


def _inputs(plan: Plan, tensors: Sequence[Tensor]) -> dict[int, Array]:
    return {number: tensors[at].data for number, at in plan.captured.inputs.items()}


def _compared(got: list[Array], wanted: list[Array]) -> Iterator[str]:
    """What is wrong with each result or gradient, or nothing. Gradients are measured against the
    largest of all.
    """
    dtypes = [w.dtype for w in wanted]
    got, wanted = ([cast(a, computing(a.dtype)) for a in arrays] for arrays in (got, wanted))
    scale = max((_largest(w) for w in wanted if w.dtype.kind == "f"), default=0.0)
    for g, w, dtype in zip(got, wanted, dtypes, strict=True):
        near = _NEAR_HALF if is_half(dtype) else _NEAR
        if w.dtype.kind != "f":
            same = np.array_equal(g, w)
            yield "" if same else f"a result of shape {w.shape} and {w.dtype}"
        elif np.allclose(g, w, rtol=near, atol=near * scale, equal_nan=True):
            yield ""
        else:
            with np.errstate(all="ignore"):
                yield f"a result of shape {w.shape} by up to {np.max(np.abs(g - w)):.2g}"


def _moved_differently(got: Array, wanted: Array, before: Array, magnified: bool) -> str:
    """What is wrong with a state after the step, measured against the largest step of all its
    numbers.

    magnified: its steps are gradients divided by their size, as Adam's are, which makes rounding
        large where gradients vanish; a wrong gradient shows in the moments then.
    """
    near = _NEAR_HALF if is_half(got.dtype) else _NEAR
    got, wanted, before = (cast(a, computing(a.dtype)) for a in (got, wanted, before))
    if got.dtype.kind != "f":
        same = np.array_equal(got, wanted)
        return "" if same else f"a state of shape {wanted.shape} and {wanted.dtype}"
    step = max(
        np.max(np.abs(w - b), initial=0, where=np.isfinite(w) & np.isfinite(b))
        for w, b in _blocks(wanted, before)
    )
    scale = max(_largest(w) for (w,) in _blocks(wanted))
    rtol = near if magnified or near == _NEAR_HALF else 1e-5
    atol = float((4 if magnified else near) * step + 1e-5 * scale)
    same = all(
        np.allclose(g, w, rtol=rtol, atol=atol, equal_nan=True) for g, w in _blocks(got, wanted)
    )
    return "" if same else f"a state of shape {wanted.shape}"


def _largest(a: Array) -> float:
    return float(np.max(np.abs(a), initial=0, where=np.isfinite(a)))


def _blocks(*arrays: Array) -> Iterator[list[Array]]:
    """Arrays of one shape, a piece of each at a time that fits the cache: four times as fast as all
    of large ones.
    """
    flat = [a.reshape(-1) for a in arrays]
    for at in range(0, max(1, flat[0].size), _BLOCK):
        yield [a[at : at + _BLOCK] for a in flat]


# --- numbers that are rounding


def _beyond_noise(
    plan: Plan,
    bound: dict[int, Array],
    states: list[int],
    pairs: list[tuple[Array, Array]],
    wrong: dict[int, str],
) -> dict[int, str]:
    """Of the numbers that differ those that rounding does not explain.

    A sum that cancels, such as the gradient of a bias in front of a batch norm, is rounding and
    nothing else: its size says nothing about what was added up. So the same program is replayed
    with operands that are moved by a rounding; what that changes is the noise of each result.
    """
    base, rng = None, np.random.default_rng(0)
    noise = [0.0] * len(pairs)
    for _ in range(_TRIALS + 1):
        moved = {i: a.copy() if base is None else _nudged(a, rng) for i, a in bound.items()}
        found = NumpyReplay(plan.program, plan.captured.constants).run(moved)
        found += [moved[i] for i in states]
        base = found if base is None else base
        for n in wrong:
            noise[n] = max(noise[n], _apart(found[n], base[n]))
    return {n: text for n, text in wrong.items() if not _apart(*pairs[n]) <= _NOISE * noise[n]}


def _nudged(a: Array, rng: np.random.Generator) -> Array:
    """A copy with each number a unit in the last place larger or smaller."""
    if a.dtype.kind != "f":
        return a.copy()
    eps = float(np.finfo(a.dtype).eps)
    return (a * (1 + eps * rng.choice((-1.0, 1.0), a.shape))).astype(a.dtype)


def _apart(x: Array, y: Array) -> float:
    x, y = (cast(a, computing(a.dtype)) for a in (x, y))
    if x.dtype.kind != "f":
        return 0.0 if np.array_equal(x, y) else np.inf
    with np.errstate(all="ignore"):
        both = np.isfinite(x) & np.isfinite(y)
        if not np.array_equal(np.where(both, 0, x), np.where(both, 0, y), equal_nan=True):
            return np.inf
        return float(np.max(np.abs(x - y), initial=0, where=both))


# --- writes that no op has made


def checksums(first: Recording) -> dict[int, int]:
    """Checksums of what a recording met and had not made, by address: to find out later what was
    written past the ops.
    """
    return {address_of(leaf.array): _sum_of(leaf.array) for leaf in first.leaves.values()}


def _sum_of(a: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(a).reshape(-1).view(np.uint8).data)


def refuse_writes_past_the_ops(before: dict[int, int], plan: Plan) -> None:
    """Raise CaptureError if a state has changed during the call that no op has written to."""
    if plan.captured.shares:
        return  # an op may have written to it by way of another tensor
    changed = set(plan.changed)
    for number, (array, tensor) in plan.captured.states.items():
        mark = before.get(address_of(array))
        if number not in changed and mark is not None and mark != _sum_of(array):
            raise CaptureError(
                "jit",
                f"the step writes into {'a tensor' if tensor is not None else 'an array'} of shape "
                f"{array.shape} by way of numpy, which a replay would not do",
                got=array.shape,
                hint="t.assign(...) under no_grad(), or an optimizer, instead of t.data -= ...",
            )
