"""KV caches: the keys and values of the positions that a layer has seen, one per layer and
conversation.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from minigrad import ops
from minigrad.arguments import as_int
from minigrad.dtypes import Array, as_dtype, cast, is_float, name
from minigrad.errors import CacheError, DTypeError, MinigradError
from minigrad.heap import clear_mapped, mapped_zeros
from minigrad.modes import is_grad_enabled, no_grad
from minigrad.tensor import Tensor

_FIRST = 64  # positions allocated at first


def without_gradient(y: Tensor, sources: Iterable[Any]) -> Tensor:
    """Return y, computed with a cache from the sources, so that backward() through it raises
    CacheGradientError. Under no_grad(), or if no source requires a gradient, y itself.
    """
    if not is_grad_enabled():
        return y
    wanting = [x for x in sources if isinstance(x, Tensor) and x.requires_grad]
    return ops.through_cache(y, *wanting) if wanting else y


def row_counts(lengths: Any, B: int, most: int, call: str, kind: type[MinigradError]) -> Array:
    """The lengths of B rows as an array. Raises an error of this kind unless they are B integers
    from 0 to `most`.
    """
    try:
        counts = np.asarray(lengths)
    except ValueError:  # lists of several lengths
        counts = np.array(None)
    good = counts.shape == (B,) and counts.dtype.kind in "iu"
    if not good or not 0 <= counts.min(initial=0) <= counts.max(initial=0) <= most:
        wanted = f"{B} integers from 0 to {most}"
        problem = f"lengths must be {wanted}, got {lengths!r}"
        raise kind(call, problem, got=lengths, wanted=wanted)
    return counts


class CacheInfo(NamedTuple):
    """Positions held (by the longest row), positions there is room for in all (None: no bound),
    bytes allocated.
    """

    length: int
    capacity: int | None
    bytes: int


class _Held(NamedTuple):
    """What a cache holds. It is replaced, not changed, and the positions that it holds are not
    written to again: an earlier one can be put back.
    """

    keys: Array | None = None  # (B, H, slots, D)
    values: Array | None = None
    start: int = 0  # the position in slot 0; above 0 once a window has dropped some
    length: int = 0  # of the longest row
    lengths: Array | None = None  # of each row, where they differ
    learned: bool = False  # whether keys or values have asked for a gradient

    def with_lengths(self, lengths: Array) -> _Held:
        """The same with rows of these lengths."""
        most = int(lengths.max(initial=0))
        return self._replace(length=most, lengths=None if (lengths == most).all() else lengths)


class KVCache:
    """Keys and values in two buffers (B, H, slots, D), which grow by doubling.

    capacity: how many positions it may hold at a time; None: any number.   fixed: allocate them all
        at the first append.
    window: keep the last `window` positions only, in memory for about twice as many; `length` goes
        on counting.   dtype: of the buffers, such as "bfloat16"; that of the first keys unless
        given.
    Batch, heads, width and dtype are those of the first `append`, until the cache is empty again.
    Rows may have different lengths, see `append`. Raises CacheError when it is full, for keys of
    another batch, model or dtype, and values that do not fit the keys; DTypeError for a non-float
    dtype; ConfigError for an invalid size. Nothing is recorded for backward: a backward pass
    through what `append` returns raises CacheGradientError.
    """

    def __init__(
        self,
        capacity: int | None = None,
        *,
        fixed: bool = False,
        window: int | None = None,
        dtype: Any = None,
    ) -> None:
        self.capacity = None if capacity is None else as_int("KVCache", "capacity", capacity)
        self.window = None if window is None else as_int("KVCache", "window", window)
        self.fixed, self.dtype = fixed, None if dtype is None else as_dtype(dtype)
        if fixed and capacity is None:
            hint = "KVCache(1024, fixed=True)"
            raise _error("fixed=True needs a capacity", None, "capacity", hint)
        if self.dtype is not None and not is_float(self.dtype):
            wanted, hint = "a float dtype", 'KVCache(dtype="bfloat16")'
            problem = f"dtype must be {wanted}, got {name(self.dtype)}"
            raise DTypeError("KVCache", problem, got=self.dtype, wanted=wanted, hint=hint)
        self._guards = 0  # blocks of all_or_none that may want to go back
        self.reset()

    def reset(self) -> None:
        """Forget everything: ready for another conversation, of any batch."""
        self._held = _Held()
        self._shared = False  # the buffers with a fork: copied before they are written to

    # --- adding

    def append(
        self, k: Tensor, v: Tensor, lengths: Sequence[int] | Array | None = None
    ) -> tuple[Tensor, Tensor]:
        """Add the keys and values of T positions, (B, H, T, D), and return those of all positions,
        (B, H, S, D), views to be read at once.

        lengths: how many of the T positions are real, per row. The rest is padding at the end, over
            which the next append writes; see `hidden`.
        With a window, only the `window` - 1 positions before the new ones are returned with them.
        """
        self._check(k, v)
        (B, _, T, _), held = k.shape, self._held
        counts = np.array(T)
        if lengths is not None:
            counts = row_counts(lengths, B, T, "KVCache", CacheError)
            if self.window is not None:
                hint = "a cache without window"
                raise _error("rows of a window have one length", lengths, None, hint)
        keys, values, start = self._slots_for(k, v)
        for buffer, new in ((keys, k), (values, v)):
            entries = cast(new.data, buffer.dtype)
            if held.lengths is None:
                buffer[:, :, held.length - start : held.length + T - start] = entries
            else:
                for b, n in enumerate(held.lengths):
                    buffer[b, :, n : n + T] = entries[b]
        learned = held.learned or (is_grad_enabled() and (k.requires_grad or v.requires_grad))
        now = _Held(keys, values, start, held.length + T, None, learned)
        if lengths is not None or held.lengths is not None:
            before = held.length if held.lengths is None else held.lengths
            now = now.with_lengths(before + counts)
        self._held, self._shared = now, False
        first = 0 if self.window is None else max(0, held.length - self.window + 1 - start)
        views = (Tensor._wrap(x[:, :, first : held.length + T - start]) for x in (keys, values))
        asked = Tensor(0.0, requires_grad=True) if learned else None
        keys_now, values_now = (without_gradient(x, (asked,)) for x in views)
        return keys_now, values_now

    def _slots_for(self, k: Tensor, v: Tensor) -> tuple[Array, Array, int]:
        """Buffers with slots for the new positions, and the position in slot 0: those there are, or
        new ones with what is still needed.
        """
        (keys, values, start, length, *_), allocated = self._held, self.allocated
        needed = length - start + k.shape[2]
        if keys is not None and values is not None and needed <= allocated and not self._shared:
            return keys, values, start
        if self.window is not None:
            kept = min(length - start, self.window - 1)
            size = kept + k.shape[2] + self.window
        else:
            kept = length
            size = allocated if needed <= allocated else max(needed, 2 * allocated, _FIRST)
            if self.capacity is not None:
                size = self.capacity if self.fixed else min(self.capacity, size)
        grown = []
        for old, new in ((keys, k), (values, v)):
            shape = (*new.shape[:2], size, new.shape[3])
            buffer = mapped_zeros(shape, self.dtype or new.dtype)
            if old is not None:
                buffer[:, :, :kept] = old[:, :, length - kept - start : length - start]
            grown.append(buffer)
        return grown[0], grown[1], length - kept

    def _check(self, k: Any, v: Any) -> None:
        """Raise CacheError unless k and v may be added."""
        pair = isinstance(k, Tensor) and isinstance(v, Tensor) and k.ndim == v.ndim == 4
        if not pair or k.shape[:3] != v.shape[:3]:
            got = [x.shape if isinstance(x, Tensor) else type(x).__name__ for x in (k, v)]
            wanted, hint = "Tensors (B, H, T, D), (B, H, T, E)", "Tensor(array) makes a tensor"
            problem = f"keys {got[0]} and values {got[1]} do not fit together"
            raise _error(problem, got, wanted, hint)
        for what, new, own in (("keys", k, self._held.keys), ("values", v, self._held.values)):
            if not is_float(new.dtype):
                problem = f"{what} must have a float dtype, got {name(new.dtype)}"
                raise _error(problem, new.dtype, "a float dtype", "x.float()")
            if own is not None and (
                (*new.shape[:2], new.shape[3]) != (*own.shape[:2], own.shape[3])
                or (self.dtype is None and new.dtype != own.dtype)
            ):
                problem = f"{what} of {_kind(new)} for a cache of {_kind(own)}"
                hint = "one cache per layer and conversation; reset() empties it"
                raise _error(problem, new.shape, own.shape, hint)
        needed = self.length + k.shape[2]
        needed = needed if self.window is None else min(needed, self.window)
        if self.capacity is not None and needed > self.capacity:
            used = min(self.length, needed)
            problem = f"{needed} positions in a cache for {self.capacity}, {used} of them in use"
            hint = "truncate(n) or reset() makes room; KVCache(capacity) a larger one"
            raise _error(problem, needed, self.capacity, hint)

    def hidden(self, T: int, window: int | None = None) -> Array | None:
        """Which positions the T that are appended next must not see, (B, 1, T, S) of bool; None
        where causality (and the window) says it all: query i of T sees position j <= S - T + i.
        """
        if self._held.lengths is None:
            return None
        places = self.positions(T)[:, None, :, None]  # (B, 1, T, 1)
        keys = np.arange(self.length + T)
        hidden: Array = keys > places
        return hidden if window is None else hidden | (keys <= places - window)

    # --- lengths

    @property
    def length(self) -> int:
        """Positions seen, by the longest row."""
        return self._held.length

    @property
    def lengths(self) -> Array:
        """Positions seen, per row."""
        if self._held.lengths is not None:
            return self._held.lengths.copy()
        return np.full(0 if self._held.keys is None else self._held.keys.shape[0], self.length)

    def positions(self, T: int) -> Array:
        """The places of the T positions that are appended next: (T,), or (B, T) where rows have
        different lengths.
        """
        rows = self._held.lengths
        return (self.length if rows is None else rows[:, None]) + np.arange(T)

    @property
    def allocated(self) -> int:
        """Positions that memory is allocated for."""
        return 0 if self._held.keys is None else self._held.keys.shape[2]

    def info(self) -> CacheInfo:
        """Length, capacity and bytes."""
        used = sum(x.nbytes for x in (self._held.keys, self._held.values) if x is not None)
        return CacheInfo(self.length, self.capacity, used)

    # --- changing what is held

    def truncate(self, length: int | Sequence[int] | Array) -> None:
        """Forget all positions from `length` on, one number or one per row; an empty cache is as
        new, ready for any batch.

        With a window, only as far back as it still holds what a query there sees: to before the
        last append in any case, and all rows at once.
        """
        wanted, held = np.asarray(length), self._held
        now = self.lengths if wanted.ndim else np.asarray(held.length)
        integers = wanted.dtype.kind in "iu" and wanted.shape == now.shape
        if not integers or (wanted < 0).any() or (wanted > now).any():
            problem = f"truncate to {length} of {now.tolist()} positions"
            raise _error(problem, length, (0, held.length))
        most = int(wanted.max(initial=0))
        if self.window is not None:
            hint = "a cache without window can go back anywhere"
            if (wanted != most).any():
                raise _error(f"rows of a window have one length, got {length}", length, most, hint)
            if most and held.start > max(0, most - self.window + 1):
                problem = f"truncate to {most}: the window has dropped what came before"
                raise _error(problem, most, None, hint)
        if most == 0:
            self.reset()
        else:
            self._held = held.with_lengths(np.minimum(self.lengths, wanted))
            self._shared = self._shared or self._guards > 0

    def mark(self) -> _Held:
        """This state, for `go_back`."""
        return self._held

    def go_back(self, mark: _Held) -> None:
        """Forget what was done since `mark()`: one append, or, within `all_or_none`, anything."""
        self._held = mark
        self._shared = mark.keys is not None  # perhaps with a fork made since

    def reorder(self, rows: Sequence[int] | Array) -> None:
        """Let row b of the batch continue what was row rows[b], for beam search; the batch may
        change its size.
        """
        index, held = np.asarray(rows), self._held
        B = 0 if held.keys is None else held.keys.shape[0]
        integers = index.ndim == 1 and index.dtype.kind in "iu" and index.size > 0
        inside = integers and 0 <= index.min() <= index.max() < B
        if held.keys is None or held.values is None or not inside:
            wanted = f"a list of row numbers from 0 to {B - 1}, after the first append"
            problem = f"reorder: rows {rows!r} of a batch of {B}, expected {wanted}"
            raise _error(problem, rows, wanted)
        held = held._replace(keys=held.keys[index], values=held.values[index])
        self._held, self._shared = held.with_lengths(self.lengths[index]), False

    def fork(self) -> KVCache:
        """Return a second conversation with the same past. Memory is shared until one of the two is
        added to.
        """
        self._shared = self._held.keys is not None
        other = copy.copy(self)
        other._guards = 0
        return other

    def __len__(self) -> int:
        return self.length

    def __bool__(self) -> bool:
        return True  # an empty cache is a cache

    def __repr__(self) -> str:
        room = f"of {self.capacity} " if self.capacity is not None else ""
        return f"<KVCache: {self.length} {room}positions>"


def _kind(x: Tensor | Array) -> str:
    """What the keys or values of one cache share."""
    B, H, _, D = x.shape
    return f"batch {B}, {H} heads of {D}, {name(x.dtype)}"


def _error(problem: str, got: Any, wanted: Any, hint: str = "") -> CacheError:
    return CacheError("KVCache", problem, got=got, wanted=wanted, hint=hint)


class StaticCache:
    """Keys and values of one layer in buffers of a fixed size whose length is a tensor: a step
    recorded with it can be replayed at any length.

    shape: (B, H, capacity, D) of the buffers.   length: 0-d int64, how many positions are held,
        shared by all layers; the caller sets it.   first: (B,) int64, how many positions at the
        start of each row are padding.
    It serves plain causal attention: no window, no ALiBi, no masks but the padding, rows of one
    length. Nothing is recorded for backward.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        length: Tensor,
        first: Tensor,
        dtype: Any = "float32",
    ) -> None:
        B, H, S, D = shape
        self.length, self.first, self.capacity = length, first, S
        self._places = Tensor._wrap(np.arange(S))
        # Keys are stored feature by feature: the scores of all positions are then a few long
        # sums side by side.
        self.keys = Tensor._wrap(mapped_zeros((B, H, D, S), as_dtype(dtype)).swapaxes(2, 3))
        self.values = Tensor._wrap(mapped_zeros(shape, as_dtype(dtype)))

    def take(self, cache: KVCache) -> None:
        """Take over the positions that another cache holds, which is empty afterwards. Raises
        CacheError if they do not fit.
        """
        keys, values, _, n, lengths, *_ = cache._held
        odd = cache.window is not None or lengths is not None or n > self.capacity
        if keys is None or values is None or odd:
            problem = f"it cannot hold what {cache!r} holds"
            hint = f"{self.capacity} positions at most"
            wanted = "rows of one length, not empty, without window"
            raise CacheError("StaticCache", problem, got=cache, wanted=wanted, hint=hint)
        for own, other in ((self.keys, keys), (self.values, values)):
            own.data[:, :, :n] = other[:, :, :n]
        cache.reset()

    def give(self, cache: KVCache, length: int) -> None:
        """Let another cache hold `length` positions, adding those that it lacks, and clear this
        one.
        """
        if cache.length < length:
            keys, values = (x.data[:, :, cache.length : length] for x in (self.keys, self.values))
            cache.append(Tensor._wrap(keys), Tensor._wrap(values))
        self.clear()

    def clear(self) -> None:
        """Set all keys and values to 0, which takes no memory."""
        for own in (self.keys, self.values):
            clear_mapped(own.data)

    def slots(self, T: int) -> Tensor:
        """The places of the T positions that are appended next, padding counted: (1, T)."""
        return (self.length + Tensor._wrap(np.arange(T))).unsqueeze(0)

    def positions(self, T: int) -> Tensor:
        """The places of the T positions that are appended next, padding not counted: (B, T)."""
        return ops.maximum(self.slots(T) - self.first[:, None], 0)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Append k and v, (B, Hkv, T, D), and return the attention of q, (B, H, T, D), to all
        positions held, (B, H, T, D).
        """
        (B, H, T, D), groups = q.shape, k.shape[1]
        with no_grad():
            ops.append_(self.keys, k, self.length)
            ops.append_(self.values, v, self.length)
            seen = self._places >= self.first.reshape(B, 1, 1, 1, 1)
            grouped = q.reshape(B, groups, H // groups, T, D)
            keys, values = self.keys.unsqueeze(2), self.values.unsqueeze(2)
            y, _ = ops.attention(grouped, keys, values, seen, None, self.length, scale=D**-0.5)
        return without_gradient(y.reshape(q.shape), (q, k, v))


@contextlib.contextmanager
def all_or_none(caches: Iterable[KVCache]) -> Iterator[None]:
    """If the block raises, every cache holds what it held before: no layer is ahead of another. Any
    number of changes inside.
    """
    guarded = list(caches)
    marks = [cache.mark() for cache in guarded]
    for cache in guarded:
        cache._guards += 1
    try:
        yield
    except BaseException:
        for cache, mark in zip(guarded, marks, strict=True):
            cache.go_back(mark)
        raise
    finally:
        for cache in guarded:
            cache._guards -= 1
