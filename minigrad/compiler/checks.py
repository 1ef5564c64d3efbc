"""Whether a program does what the recorded call did: states before and after, results and
gradients.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minigrad.compiler.layout import address_of
from minigrad.compiler.plan import Plan
from minigrad.compiler.program import roots
from minigrad.compiler.record import Part, Recording
from minigrad.compiler.replay import NumpyReplay
from minigrad.dtypes import Array, cast, computing, is_half
from minigrad.errors import CaptureError
from minigrad.ops.quantised import ALL
from minigrad.precision import get_matmul_precision
from minigrad.tensor import Tensor

Pair = tuple[Array, Array]  # of a replay, and of the eager call
# How far from eager counts as equal: a few units in the last place of 16-bit floats, and in others
# more than rounding and less than a mistake
_NEAR, _NEAR_HALF, _NEAR_STATE = 1e-3, 3e-2, 1e-5
_BLOCK = 1 << 15
# How often a replay by numpy is repeated with operands moved by a rounding, and how many times
# what that changes a compiled result may be away
_TRIALS, _NOISE = 4, 16


class Before:
    """A first recording, and what the arrays that it met hold before the second call, by address:
    checksums, and copies of those that the step changes, arguments among them. Of a cache of keys
    and values, which is large, the second recording copies the few positions that change.
    """

    def __init__(self, first: Recording, tensors: Sequence[Tensor]) -> None:
        self.first = first
        # By address: the second call numbers the same arrays, but need not meet the same objects
        arrays = {n: getattr(x.tensor, "data", x.array) for n, x in first.leaves.items()}
        written = (a for a in arrays.values() if not _read_only(a))
        self.checksums = {address_of(a): _checksum(a) for a in written}
        at = {number: tensors[i].data for i, number in enumerate(first.inputs)}
        root, changed = roots(first.lines, len(first.facts))
        writers = Counter(root[i] for line in first.lines for i in line.changes())
        self.states: dict[int, Part] = {}
        for number in changed & first.leaves.keys():
            array = {**arrays, **at}[number]
            if writers[number] > 1 or address_of(array) not in first.parts:
                self.states[address_of(array)] = ..., array.copy()

    def refuse_writes_past_the_ops(self, plan: Plan) -> None:
        """Raise CaptureError if a state has changed during the call that no op has written to."""
        held = {number for _, number in plan.twins}
        for number, array in plan.bound.items():
            checksum = self.checksums.get(address_of(array))
            # Where states share memory, an op may have written to it by way of another tensor
            known = plan.shares or number in plan.changed or checksum is None
            if known or checksum == _checksum(array):
                continue
            what = f"{'a tensor' if number in held else 'an array'} of shape {array.shape}"
            problem = f"the step writes into {what} by way of numpy, which a replay would not do"
            hint = "t.assign(...) under no_grad(), or an optimizer, instead of t.data -= ..."
            raise CaptureError("jit", problem, got=array.shape, hint=hint)


def _read_only(a: Any) -> bool:
    """True for a view of memory that nothing in Python can write to, such as a mapped file."""
    while isinstance(a, np.ndarray) and not a.flags.writeable:
        a = a.base
    return isinstance(a, memoryview) and a.readonly


def _checksum(a: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(a).reshape(-1).view(np.uint8).data)


def replay_difference(plan: Plan, before: Before, second: Recording) -> str:
    """What differs between a replay of the second call and that call; "" if they agree. Leaves the
    states as the call left them.
    """
    eager = [second.array(n) for n in (*plan.program.results, *plan.program.kept)]
    bound = {**plan.bound, **{n: second.given[at] for n, at in plan.inputs.items()}}
    bound.update((n, second.leaves[n].array) for n in plan.gradients)
    at = {i: address_of(bound[i]) for i in plan.changed}
    found = {i: before.states.get(x) or second.parts.get(x) for i, x in at.items()}
    old = {i: part for i, part in found.items() if part is not None}
    if len(old) < len(plan.changed):
        return ""  # there is no copy of the state before
    # Play the second call again from the states it found, and put its own states back
    states = {i: bound[i][key] for i, (key, _) in old.items()}
    after = {i: a.copy() for i, a in states.items()}
    try:
        for i, a in states.items():
            a[...] = old[i][1]
        got = plan.backend.run(bound)
        pairs = [*zip(got, eager, strict=True)]
        left = [(a, old[i][1], after[i]) for i, a in states.items()]
        wrong = [n for n, equal in enumerate(_compared(plan, pairs, left)) if not equal]
        pairs += [(a, wanted) for a, _, wanted in left]
        if wrong and plan.backend.kind == "c":
            wrong = _beyond_noise(plan, bound, old, pairs, wrong)
        for n in wrong:
            got_it, wanted = pairs[n]
            what = f"a {'result' if n < len(eager) else 'state'} of shape {wanted.shape}"
            return f"{what} by up to {_apart(got_it, wanted):.2g}"
        for i, (key, part) in old.items():
            bound[i][key] = part
            if key is not ... and _checksum(bound[i]) != before.checksums[at[i]]:
                return f"a state of shape {bound[i].shape}, where no op has written to it"
        return ""
    finally:
        for i, a in states.items():
            a[...] = after[i]


def _compared(
    plan: Plan, pairs: list[Pair], left: list[tuple[Array, Array, Array]]
) -> Iterator[bool]:
    """For each result and gradient, then for each state (as replayed, before, wanted), whether it
    is near enough.

    Results are measured against the largest of all, gradients likewise, a state against the largest
    step that one of its numbers makes. An optimizer that divides gradients by their size makes
    rounding large where gradients vanish; a wrong gradient shows in the moments then.
    """
    params = (line.params for line in plan.program.lines)
    rough = any(p.get("int8") and p.get("fine", ALL) < ALL for p in params)
    rounded = rough or get_matmul_precision() == "bfloat16"
    given, magnified = len(plan.program.results), plan.magnified()
    # A loss says nothing about the size of gradients
    for group in (pairs[:given], pairs[given:]):
        scale = max((_largest(w) for _, w in group), default=0.0)
        for got, wanted in group:
            near = _NEAR_HALF if rounded or is_half(wanted.dtype) else _NEAR
            yield _close(got, wanted, near, near * scale)
    for (got, before, wanted), i in zip(left, plan.changed, strict=True):
        near = _NEAR_HALF if rounded or is_half(wanted.dtype) else _NEAR
        # Weights are held to a millionth of the step, unless rounding decides where they go
        rtol = near if i in magnified or is_half(wanted.dtype) else _NEAR_STATE
        step = max(_apart(w, b) for w, b in _blocks(wanted, before))
        largest = max(_largest(w) for (w,) in _blocks(wanted))
        atol = (4 if i in magnified else near) * step + _NEAR_STATE * largest
        yield _close(got, wanted, rtol, atol)


def _close(got: Array, wanted: Array, rtol: float, atol: float) -> bool:
    if _wide(wanted).dtype.kind != "f":
        return np.array_equal(got, wanted)
    return all(
        np.allclose(g, w, rtol=rtol, atol=atol, equal_nan=True) for g, w in _blocks(got, wanted)
    )


def _wide(a: Array) -> Array:
    """The array in the dtype in which it is computed with: float32 for 16-bit floats."""
    return cast(a, computing(a.dtype))


def _largest(a: Array) -> float:
    """The largest finite number of floats; 0 for other dtypes."""
    a = _wide(a)
    if a.dtype.kind != "f":
        return 0.0
    return float(np.max(np.abs(a), initial=0, where=np.isfinite(a)))


def _apart(x: Array, y: Array) -> float:
    """The largest difference of two numbers that are both finite."""
    x, y = _wide(x), _wide(y)
    if x.dtype.kind != "f":
        return 0.0 if np.array_equal(x, y) else np.inf
    with np.errstate(all="ignore"):
        return float(np.max(np.abs(x - y), initial=0, where=np.isfinite(x) & np.isfinite(y)))


def _blocks(*arrays: Array) -> Iterator[list[Array]]:
    """Arrays of one shape, a piece of each at a time that fits the cache: four times as fast as all
    of large ones.
    """
    # 16-bit floats are compared in float32
    flat = [_wide(a).reshape(-1) for a in arrays]
    for at in range(0, max(1, flat[0].size), _BLOCK):
        yield [a[at : at + _BLOCK] for a in flat]


# --- numbers that are rounding


def _beyond_noise(
    plan: Plan, bound: dict[int, Array], old: dict[int, Part], pairs: list[Pair], wrong: list[int]
) -> list[int]:
    """Of the numbers that differ those that rounding does not explain.

    A sum that cancels, such as the gradient of a bias in front of a batch norm, is nothing but
    rounding: its size says nothing about what was added up. So the same program is replayed with
    operands that are moved by a rounding; what that changes is the noise of each result.
    """
    # The first trial is exact, and what the others differ from
    rng, noise = np.random.default_rng(0), dict.fromkeys(wrong, 0.0)
    base: list[Array] = []
    for _ in range(_TRIALS + 1):
        moved = {i: a.copy() if i in old else a for i, a in bound.items()}  # it writes to states
        for i, (key, before) in old.items():
            moved[i][key] = before
        moved = {i: _nudged(a, rng) if base else a for i, a in moved.items()}
        found = NumpyReplay(plan.program, plan.constants).run(moved)
        found += [moved[i][key] for i, (key, _) in old.items()]
        base = base or found
        for n in wrong:
            noise[n] = max(noise[n], _apart(found[n], base[n]))
    return [
        n for n in wrong if not _same_finite(*pairs[n]) or _apart(*pairs[n]) > _NOISE * noise[n]
    ]


def _nudged(a: Array, rng: np.random.Generator) -> Array:
    """Each number a unit in the last place larger or smaller; integers as they are."""
    if a.dtype.kind != "f":
        return a
    eps = float(np.finfo(a.dtype).eps)
    return (a * (1 + eps * rng.choice((-1.0, 1.0), a.shape))).astype(a.dtype)


def _same_finite(x: Array, y: Array) -> bool:
    """True if the same numbers are finite, and those that are not are equal."""
    x, y = _wide(x), _wide(y)
    return np.allclose(
        np.where(np.isfinite(x), 0, x), np.where(np.isfinite(y), 0, y), equal_nan=True
    )
