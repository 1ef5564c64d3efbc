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
from minigrad.autograd import is_grad_enabled, no_grad
from minigrad.dtypes import Array, DType, as_dtype, cast, is_float, name
from minigrad.errors import CacheError, DTypeError
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


def row_counts(lengths: Any, B: int, most: int) -> Array | None:
    """The lengths of B rows as an array; None unless they are B integers from 0 to `most`."""
    try:
        counts = np.asarray(lengths)
    except ValueError:  # lists of several lengths
        return None
    if counts.shape != (B,) or counts.dtype.kind not in "iu":
        return None
    return counts if 0 <= counts.min(initial=0) <= counts.max(initial=0) <= most else None


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
    begun: Array | None = None  # each row's length before the last append, where they may differ
    asked: tuple[Tensor, ...] = ()  # a leaf, once keys or values have asked for a gradient


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
            problem, hint = "fixed=True needs a capacity", "KVCache(1024, fixed=True)"
            raise CacheError("KVCache", problem, got=None, wanted="capacity", hint=hint)
        if self.dtype is not None and not is_float(self.dtype):
            raise DTypeError(
                "KVCache",
                f"dtype must be a float dtype, got {name(self.dtype)}",
                got=self.dtype,
                wanted="a float dtype",
                hint='KVCache(dtype="bfloat16")',
            )
        self._guards = 0  # blocks of all_or_none that may want to go back
        self.reset()

    def reset(self) -> None:
        """Forget everything: ready for another conversation, of any batch."""
        self._held = _Held()
        self._before: _Held | None = None  # what was held before the last append, with a window
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
        counts = None if lengths is None else self._checked_counts(lengths, B, T)
        keys, values, start = self._slots_for(k, v)
        length, rows, begun, stop = held.length + T, None, None, held.length + T
        if counts is not None or held.lengths is not None:
            begun = np.full(B, held.length) if held.lengths is None else held.lengths
            length, rows = _longest(begun + (T if counts is None else counts))
        for buffer, new in ((keys, k), (values, v)):
            entries = cast(new.data, buffer.dtype)
            if held.lengths is None:
                buffer[:, :, held.length - start : stop - start] = entries
            else:
                for b, n in enumerate(held.lengths):
                    buffer[b, :, n : n + T] = entries[b]
        asked = held.asked
        if not asked and is_grad_enabled() and (k.requires_grad or v.requires_grad):
            asked = (Tensor(0.0, requires_grad=True),)
        self._before = None if self.window is None else held
        self._held = _Held(keys, values, start, length, rows, begun, asked)
        self._shared = False
        first = start if self.window is None else max(start, held.length - self.window + 1)
        views = (Tensor._wrap(x[:, :, first - start : stop - start]) for x in (keys, values))
        keys_now, values_now = (without_gradient(x, (k, v, *asked)) for x in views)
        return keys_now, values_now

    def _slots_for(self, k: Tensor, v: Tensor) -> tuple[Array, Array, int]:
        """Buffers with slots for the new positions, and the position in slot 0: those there are, or
        new ones with what is still needed.
        """
        keys, values, start, length, *_ = self._held
        needed, allocated = length - start + k.shape[2], self.allocated
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
            buffer = np.zeros((*new.shape[:2], size, new.shape[3]), self.dtype or new.dtype)
            if old is not None:
                buffer[:, :, :kept] = old[:, :, length - kept - start : length - start]
            grown.append(buffer)
        return grown[0], grown[1], length - kept

    def _checked_counts(self, lengths: Any, B: int, T: int) -> Array:
        counts = row_counts(lengths, B, T)
        if counts is None:
            wanted = f"{B} integers from 0 to {T}"
            problem = f"lengths must be {wanted}, got {lengths!r}"
            raise CacheError("KVCache", problem, got=lengths, wanted=wanted)
        if self.window is not None:
            problem, hint = "rows of a window have one length", "a cache without window"
            raise CacheError("KVCache", problem, got=lengths, wanted=None, hint=hint)
        return counts

    def _check(self, k: Tensor, v: Tensor) -> None:
        """Raise CacheError unless k and v may be added."""
        pair = isinstance(k, Tensor) and isinstance(v, Tensor) and k.ndim == v.ndim == 4
        if not pair or k.shape[:3] != v.shape[:3]:
            got = [
                tuple(np.shape(x)) if isinstance(x, Tensor) else type(x).__name__ for x in (k, v)
            ]
            raise CacheError(
                "KVCache",
                f"keys {got[0]} and values {got[1]} do not fit together",
                got=got,
                wanted="Tensors (B, H, T, D), (B, H, T, E)",
                hint="Tensor(array) makes a tensor of an array",
            )
        for what, new, own in (("keys", k, self._held.keys), ("values", v, self._held.values)):
            if not is_float(new.dtype):
                wanted = "a float dtype"
                problem = f"{what} must have {wanted}, got {name(new.dtype)}"
                raise CacheError("KVCache", problem, got=new.dtype, wanted=wanted, hint="x.float()")
            if own is not None and (
                (*new.shape[:2], new.shape[3]) != (*own.shape[:2], own.shape[3])
                or (self.dtype is None and new.dtype != own.dtype)
            ):
                raise _foreign(what, new, own)
        needed = self.length + k.shape[2]
        needed = needed if self.window is None else min(needed, self.window)
        if self.capacity is not None and needed > self.capacity:
            raise CacheError(
                "KVCache",
                f"{needed} positions in a cache for {self.capacity}, of which "
                f"{min(self.length, needed)} are in use",
                got=needed,
                wanted=self.capacity,
                hint="truncate(n) or reset() makes room; KVCache(capacity) a larger one",
            )

    def hidden(self, T: int, window: int | None = None) -> Array | None:
        """Which positions each of the last T queries must not see, (B, 1, T, S) of bool; None where
        causality (and the window) says it all: query i of T sees position j <= S - T + i.
        """
        begun = self._held.begun
        if begun is None:
            return None
        places = begun[:, None] + np.arange(T)  # (B, T)
        keys = np.arange(int(begun.max(initial=0)) + T)
        hidden = keys > places[:, :, None]
        if window is not None:
            hidden |= keys <= (places - window)[:, :, None]
        return hidden[:, None]

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
            problem = f"to {length} of {now.tolist()} positions"
            raise CacheError("KVCache.truncate", problem, got=length, wanted=(0, held.length))
        most, hint = int(wanted.max(initial=0)), "a cache without window can go back anywhere"
        if self.window is not None and (wanted != most).any():
            problem = f"rows of a window have one length, got {length}"
            raise CacheError("KVCache.truncate", problem, got=length, wanted=most, hint=hint)
        if most == 0:
            self.reset()
        elif self.window is not None and held.start > max(0, most - self.window + 1):
            if self._before is None or self._before.length != most:
                problem = f"to {most}: the window has dropped what came before"
                raise CacheError("KVCache.truncate", problem, got=most, wanted=None, hint=hint)
            self.go_back((self._before, None))
        else:
            rows = wanted if wanted.ndim else held.lengths
            longest, rows = (most, None) if rows is None else _longest(np.minimum(rows, wanted))
            self._held = held._replace(length=longest, lengths=rows, begun=None)
            self._before = self._before if longest == held.length else None
            self._shared = self._shared or self._guards > 0

    def mark(self) -> tuple[_Held, _Held | None]:
        """This state, for `go_back`."""
        return self._held, self._before

    def go_back(self, mark: tuple[_Held, _Held | None]) -> None:
        """Forget what has been done since `mark()`: one append, or, within `all_or_none`, anything."""
        self._held, self._before = mark
        self._shared = self._held.keys is not None  # perhaps with a fork made since

    def reorder(self, rows: Sequence[int] | Array) -> None:
        """Let row b of the batch continue what was row rows[b], for beam search; the batch may
        change its size.
        """
        index, held = np.asarray(rows), self._held
        B = 0 if held.keys is None else held.keys.shape[0]
        integers = index.ndim == 1 and index.dtype.kind in "iu" and index.size > 0
        if held.keys is None or held.values is None or not integers or not _within(index, B):
            wanted = f"a list of row numbers from 0 to {B - 1}, after the first append"
            problem = f"rows {rows!r} of a batch of {B}, expected {wanted}"
            raise CacheError("KVCache.reorder", problem, got=rows, wanted=wanted)
        length, lengths = held.length, held.lengths
        if lengths is not None:
            length, lengths = _longest(lengths[index])
        keys, values = held.keys[index], held.values[index]
        self._held = held._replace(
            keys=keys, values=values, length=length, lengths=lengths, begun=None
        )
        self._before, self._shared = None, False

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


def _longest(lengths: Array) -> tuple[int, Array | None]:
    """The largest length, and the lengths unless all are equal."""
    most = int(lengths.max(initial=0))
    return most, None if (lengths == most).all() else np.array(lengths)


def _within(index: Array, B: int) -> bool:
    return bool(index.min() >= 0 and index.max() < B)


def _foreign(what: str, new: Tensor, own: Array) -> CacheError:
    def shown(shape: tuple[int, ...], dtype: DType) -> str:
        return f"batch {shape[0]}, {shape[1]} heads of {shape[3]}, {name(dtype)}"

    return CacheError(
        "KVCache",
        f"{what} of {shown(new.shape, new.dtype)} for a cache of {shown(own.shape, own.dtype)}",
        got=new.shape,
        wanted=own.shape,
        hint="one cache per layer and conversation; reset() empties it",
    )


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
        # Keys lie in memory feature by feature: the scores of all positions are then a few long
        # sums side by side.
        self.keys = Tensor._wrap(np.zeros((B, H, D, S), as_dtype(dtype)).swapaxes(2, 3))
        self.values = Tensor._wrap(np.zeros(shape, as_dtype(dtype)))

    def load(self, cache: KVCache) -> None:
        """Copy the positions that another cache holds. Raises CacheError if they do not fit."""
        keys, values, _, n, lengths, *_ = cache._held
        odd = cache.window is not None or lengths is not None or n > self.capacity
        if keys is None or values is None or odd:
            raise CacheError(
                "StaticCache",
                f"it cannot hold what {cache!r} holds",
                got=cache,
                wanted="rows of one length, not empty, without window",
                hint=f"{self.capacity} positions at most",
            )
        for own, other in ((self.keys, keys), (self.values, values)):
            own.data[:, :, :n] = other[:, :, :n]

    def positions(self, T: int) -> Tensor:
        """The places of the T positions that are appended next, padding not counted: (B, T)."""
        return ops.maximum(self.length + Tensor._wrap(np.arange(T)) - self.first[:, None], 0)

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
