"""The memory of attention: the keys and values of the positions that a layer has seen. One per
layer and conversation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from minigrad import ops
from minigrad.arguments import as_int
from minigrad.autograd import is_grad_enabled, no_grad
from minigrad.dtypes import Array, DType, as_dtype, cast, is_float, name
from minigrad.errors import CacheError, DTypeError
from minigrad.tensor import Tensor


def without_gradient(y: Tensor, sources: Iterable[Any]) -> Tensor:
    """Return y, computed with a cache from the sources, so that backward() through it raises
    CacheGradientError. Under no_grad(), or if no source requires a gradient, y itself.
    """
    if not is_grad_enabled():
        return y
    wanting = [x for x in sources if isinstance(x, Tensor) and x.requires_grad]
    return ops.through_cache(y, *wanting) if wanting else y


class CacheInfo(NamedTuple):
    """Positions held (by the longest row), positions there is room for in all (None: no bound),
    bytes allocated.
    """

    length: int
    capacity: int | None
    bytes: int


class _Overwritten(NamedTuple):
    """What an append to a ring, or a reorder, has put aside: the buffers, and the slot written over
    where they were written to in place.
    """

    serial: int  # of the change
    length: int
    keys: Array | None
    values: Array | None
    slot: tuple[Array, Array] | None


class KVCache:
    """Keys and values in two buffers (B, H, positions, D), which grow by doubling.

    capacity: how many positions it may hold at a time; None: any number.   fixed: allocate them all
        at the first append.
    window: keep the last `window` positions only, in a ring; `length` goes on counting.
    dtype: of the buffers, such as "bfloat16"; that of the first keys unless given.
    Batch, heads, width and dtype are those of the first `append`, until the cache is empty again.
    Rows may have different lengths, see `append`. Raises CacheError when it is full, for keys of
    another batch, model or dtype, and values that do not fit the keys; DTypeError for a non-float
    dtype; ConfigError for an invalid size. Nothing is recorded for backward: a backward pass
    through what `append` returns raises CacheGradientError.
    """

    _FIRST = 64  # positions allocated at first

    def __init__(
        self,
        capacity: int | None = None,
        *,
        fixed: bool = False,
        window: int | None = None,
        dtype: Any = None,
    ) -> None:
        capacity = None if capacity is None else as_int("KVCache", "capacity", capacity)
        window = None if window is None else as_int("KVCache", "window", window)
        if fixed and capacity is None:
            raise CacheError(
                "KVCache",
                "fixed=True needs a capacity",
                got=None,
                wanted="capacity",
                hint="KVCache(1024, fixed=True)",
            )
        self.capacity, self.fixed, self.window = capacity, fixed, window
        self.dtype: DType | None = None if dtype is None else as_dtype(dtype)
        if self.dtype is not None and not is_float(self.dtype):
            raise DTypeError(
                "KVCache",
                f"dtype={name(self.dtype)} would cut keys and values to integers",
                got=self.dtype,
                wanted="a float dtype",
                hint='KVCache(dtype="bfloat16")',
            )
        self._serial = self._guards = 0  # changes so far; blocks that may want to go back
        self.reset()

    def reset(self) -> None:
        """Empty: ready for another conversation, of any batch."""
        if self._guards:
            self._put_aside()
        else:
            self._overwritten: list[
                _Overwritten
                # By the last append to a ring; by all of them while somebody may want to go back
            ] = []
        self.length = 0
        self._lengths: Array | None = None  # of each row, where they differ
        self._starts: Array | None = (
            None  # each row's length before the last append, where they differ
        )
        self._keys: Array | None = None
        self._values: Array | None = None
        self._shared = False  # with a fork: copied before it is written to
        # A leaf that stands for the gradients that keys or values of earlier appends asked for.
        self._asked: tuple[Tensor, ...] = ()

    # --- adding

    def append(
        self,
        k: Tensor,
        v: Tensor,
        lengths: Sequence[int] | Array | None = None,
        *,
        in_order: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Add keys and values of T positions, (B, H, T, D); returns those of all positions, (B, H,
        S, D), to be read at once.

        lengths: how many of the T positions are real, per row; the rest is padding at the end, over
            which the next append writes. `hidden` tells
        which of the S positions a query must not see. From a ring come the last `window` positions
        and, for T > 1, those before them that its
        first query sees.   in_order=False: they may come in any order, which spares a ring a copy
            for T = 1.
        """
        keys, values = self._checked(k, v)
        if self.window is not None:
            if lengths is not None:
                raise CacheError(
                    "KVCache",
                    "rows of a ring have one length",
                    got=lengths,
                    wanted=None,
                    hint="a cache without window",
                )
            return self._append_to_ring(k, v, keys, values, in_order)
        B, _, T, _ = k.shape
        counts = None if lengths is None else self._checked_lengths(lengths, B, T)
        stop = self.length + T
        if keys is None or values is None or stop > keys.shape[2] or self._shared:
            keys, values = self._grow(k, v, stop)
        starts = self.lengths
        for buffer, new in ((keys, cast(k.data, keys.dtype)), (values, cast(v.data, values.dtype))):
            if self._lengths is None:
                buffer[:, :, self.length : stop] = new
            else:
                for b, start in enumerate(starts):
                    buffer[b, :, start : start + T] = new[b]
        self._starts = None
        if counts is None and self._lengths is None:
            self.length = stop
        else:
            self._starts = starts
            self._set_lengths(starts + (T if counts is None else counts))
        return self._out(keys[:, :, :stop], k), self._out(values[:, :, :stop], v)

    def _out(self, held: Array, new: Tensor) -> Tensor:
        """The array as a tensor that no backward pass gets through."""
        if new.requires_grad and is_grad_enabled() and not self._asked:
            self._asked = (Tensor(0.0, requires_grad=True),)
        return without_gradient(Tensor._wrap(held), (new, *self._asked))

    def _checked_lengths(self, lengths: Sequence[int] | Array, B: int, T: int) -> Array:
        try:
            counts = np.asarray(lengths)
        except ValueError:  # lists of several lengths
            counts = np.empty(0)
        if (
            counts.shape != (B,)
            or counts.dtype.kind not in "iu"
            or counts.min(initial=0) < 0
            or counts.max(initial=0) > T
        ):
            raise CacheError(
                "KVCache",
                f"lengths {lengths!r} for {B} rows of {T} positions",
                got=lengths,
                wanted=f"{B} integers from 0 to {T}",
            )
        return counts

    def _set_lengths(self, lengths: Array) -> None:
        self.length = int(lengths.max(initial=0))
        self._lengths = None if (lengths == self.length).all() else np.array(lengths)

    def _checked(self, k: Tensor, v: Tensor) -> tuple[Array | None, Array | None]:
        """The buffers, if k and v may be added to them."""
        if (
            not (isinstance(k, Tensor) and isinstance(v, Tensor))
            or k.ndim != 4
            or v.ndim != 4
            or k.shape[:3] != v.shape[:3]
        ):
            got = [
                tuple(np.shape(x)) if isinstance(x, Tensor) else type(x).__name__ for x in (k, v)
            ]
            raise CacheError(
                "KVCache",
                f"keys {got[0]} and values {got[1]} are no pair",
                got=got,
                wanted="Tensors (B, H, T, D), (B, H, T, E)",
                hint="Tensor(array) makes a tensor of an array",
            )
        for what, new, own in (("keys", k, self._keys), ("values", v, self._values)):
            if own is None:
                if not is_float(new.dtype):
                    raise CacheError(
                        "KVCache",
                        f"{what} of {name(new.dtype)}",
                        got=new.dtype,
                        wanted="a float dtype",
                        hint="x.float()",
                    )
            elif (
                new.shape[:2] != own.shape[:2]
                or new.shape[3] != own.shape[3]
                or (self.dtype is None and new.dtype != own.dtype)
            ):
                raise self._foreign(what, new, own)
        needed = self.length + k.shape[2]
        held = needed if self.window is None else min(needed, self.window)
        if self.capacity is not None and held > self.capacity:
            raise CacheError(
                "KVCache",
                f"{held} positions in a cache for {self.capacity}, of which "
                f"{min(self.length, held)} are in use",
                got=held,
                wanted=self.capacity,
                hint="truncate(n) or reset() makes room; KVCache(capacity) a larger one",
            )
        return self._keys, self._values

    def _grow(self, k: Tensor, v: Tensor, needed: int) -> tuple[Array, Array]:
        """Buffers of this cache's own, with room for `needed` positions and what was there before."""
        size = (
            self.allocated
            if needed <= self.allocated
            else max(needed, 2 * self.allocated, self._FIRST)
        )
        if self.capacity is not None:
            size = self.capacity if self.fixed else min(self.capacity, size)
        grown = []
        for old, new in ((self._keys, k), (self._values, v)):
            buffer = np.zeros((*new.shape[:2], size, new.shape[3]), self.dtype or new.dtype)
            if old is not None:
                buffer[:, :, : self.length] = old[:, :, : self.length]
            grown.append(buffer)
        self._keys, self._values = grown
        self._shared = False
        return grown[0], grown[1]

    def _append_to_ring(
        self, k: Tensor, v: Tensor, keys: Array | None, values: Array | None, in_order: bool
    ) -> tuple[Tensor, Tensor]:
        """Position t lies in slot t % window. One new position goes into its slot; several are laid
        out in order first.
        """
        assert self.window is not None
        T, W = k.shape[2], self.window
        k_new, v_new = (cast(x.data, self.dtype or x.dtype) for x in (k, v))
        slot, saved = self.length % W, None
        if keys is None or values is None:
            keys, values = (
                np.zeros((*x.shape[:2], W, x.shape[3]), x.dtype) for x in (k_new, v_new)
            )
        elif self._shared or T > 1:
            keys, values = keys.copy(), values.copy()
        else:
            saved = keys[:, :, slot].copy(), values[:, :, slot].copy()
        self._put_aside(saved)
        if T == 1:
            keys[:, :, slot], values[:, :, slot] = k_new[:, :, 0], v_new[:, :, 0]
            views = keys[:, :, : self.length + 1], values[:, :, : self.length + 1]
            if in_order and self.length >= W:
                views = tuple(
                    np.concatenate([x[:, :, slot + 1 :], x[:, :, : slot + 1]], 2) for x in views
                )  # type: ignore[assignment]
        else:
            held = np.arange(max(0, self.length - W + 1), self.length) % W
            views = (
                np.concatenate([keys[:, :, held], k_new], 2),
                np.concatenate([values[:, :, held], v_new], 2),
            )
            last = np.arange(max(0, T - W), T)
            keys[:, :, (self.length + last) % W] = k_new[:, :, last]
            values[:, :, (self.length + last) % W] = v_new[:, :, last]
        self._keys, self._values, self._shared, self.length = keys, values, False, self.length + T
        return self._out(views[0], k), self._out(views[1], v)

    def hidden(self, T: int, window: int | None = None) -> Array | None:
        """Which positions each of the last T queries must not see, (B, 1, T, S) of bool, where rows
        have different lengths; None where not.

        With rows of one length causality (and the window) says it all: query i of T sees position j
        <= S - T + i.
        """
        if self._starts is None:
            return None
        places = self._starts[:, None] + np.arange(T)  # (B, T)
        keys = np.arange(int(self._starts.max(initial=0)) + T)
        hidden = keys > places[:, :, None]
        if window is not None:
            hidden |= keys <= (places - window)[:, :, None]
        return hidden[:, None]

    # --- lengths

    @property
    def lengths(self) -> Array:
        """Positions held, per row."""
        if self._lengths is not None:
            return self._lengths.copy()
        return np.full(0 if self._keys is None else self._keys.shape[0], self.length)

    def positions(self, T: int) -> Array:
        """The places of the T positions that are appended next: (T,), or (B, T) where rows have
        different lengths.
        """
        return (
            self.length + np.arange(T)
            if self._lengths is None
            else self._lengths[:, None] + np.arange(T)
        )

    @property
    def allocated(self) -> int:
        """Positions that memory is allocated for."""
        return 0 if self._keys is None else self._keys.shape[2]

    def info(self) -> CacheInfo:
        """Length, capacity and bytes."""
        used = (
            0
            if self._keys is None or self._values is None
            else self._keys.nbytes + self._values.nbytes
        )
        return CacheInfo(self.length, self.capacity, used)

    # --- changing what is held

    def truncate(self, length: int | Sequence[int] | Array) -> None:
        """Forget all positions from `length` on, one number or one per row; an empty cache is as
        new, ready for any batch.

        A ring whose first position has been overwritten can only take back its last append, and all
        its rows at once.
        """
        wanted = np.asarray(length)
        held = self.lengths if wanted.ndim else np.asarray(self.length)
        if (
            wanted.dtype.kind not in "iu"
            or wanted.shape != held.shape
            or (wanted < 0).any()
            or (wanted > held).any()
        ):
            raise CacheError(
                "KVCache.truncate",
                f"to {length} of {held.tolist()} positions",
                got=length,
                wanted=(0, self.length),
            )
        if self.window is not None and wanted.ndim and len(set(wanted.tolist())) > 1:
            raise CacheError(
                "KVCache.truncate",
                "rows of a ring have one length",
                got=length,
                wanted="one number",
                hint="a cache without window",
            )
        most = int(wanted.max(initial=0))
        if most == 0:
            self.reset()
        elif self.window is not None:
            self._shorten_ring(most)
        else:
            self._starts = None
            lengths = wanted if wanted.ndim else self._lengths
            if lengths is None:
                self.length = most
            else:
                self._set_lengths(np.minimum(lengths, wanted))

    def _shorten_ring(self, length: int) -> None:
        assert self.window is not None
        last = self._overwritten[-1] if self._overwritten else None
        if length == self.length or self.length <= self.window:
            self.length = length  # Nothing has been overwritten yet.
        elif last is not None and last.length == length:
            self._put_back()
        else:
            raise CacheError(
                "KVCache.truncate",
                f"to {length}: the ring has overwritten what came before",
                got=length,
                wanted=last and last.length,
                hint="a cache without window can go back any number of positions",
            )

    def _put_aside(self, slot: tuple[Array, Array] | None = None) -> None:
        """Note what a change of a ring, which comes next, will overwrite."""
        if not self._guards:
            self._overwritten = []
        self._serial += 1
        self._overwritten.append(
            _Overwritten(self._serial, self.length, self._keys, self._values, slot)
        )

    def _put_back(self) -> None:
        """Undo the last change of a ring."""
        last = self._overwritten.pop()
        if last.slot is None:
            # The change made buffers of its own; those from before may belong to a fork as well.
            self._keys, self._values, self._shared = last.keys, last.values, last.keys is not None
        elif self._keys is not None and self._values is not None and self.window is not None:
            if self._shared:
                self._keys, self._values, self._shared = (
                    self._keys.copy(),
                    self._values.copy(),
                    False,
                )
            slot = last.length % self.window
            self._keys[:, :, slot], self._values[:, :, slot] = last.slot
        self.length = last.length

    def mark(self) -> dict[str, Any]:
        """This state, for `go_back`."""
        return dict(vars(self))

    def go_back(self, mark: dict[str, Any]) -> None:
        """Forget what has been appended since `mark()`: one append, or, within `all_or_none`, any
        number.
        """
        while self._overwritten and self._overwritten[-1].serial > mark["_serial"]:
            self._put_back()
        if self.window is None:
            self._keys, self._values = mark["_keys"], mark["_values"]
            self._shared = self._keys is not None  # perhaps with a fork made since
        self.length, self._lengths, self._starts = mark["length"], mark["_lengths"], mark["_starts"]
        self._asked = mark["_asked"]

    def reorder(self, rows: Sequence[int] | Array) -> None:
        """Let row b of the batch go on from what was row rows[b], for beam search; the batch may
        change its size.
        """
        index = np.asarray(rows)
        if (
            self._keys is None
            or self._values is None
            or index.ndim != 1
            or index.dtype.kind not in "iu"
        ):
            raise CacheError(
                "KVCache.reorder",
                f"rows {rows!r} of {'an empty' if self._keys is None else 'this'} cache",
                got=rows,
                wanted="a list of row numbers, after the first append",
            )
        B = self._keys.shape[0]
        if index.size == 0 or index.min() < 0 or index.max() >= B:
            raise CacheError(
                "KVCache.reorder",
                f"rows {index.tolist()} of a batch of {B}",
                got=rows,
                wanted=(0, B - 1),
            )
        if self.window is not None:
            self._put_aside()
            self._overwritten = self._overwritten if self._guards else []
        self._keys, self._values, self._shared, self._starts = (
            self._keys[index],
            self._values[index],
            False,
            None,
        )
        if self._lengths is not None:
            self._set_lengths(self._lengths[index])

    def fork(self) -> KVCache:
        """A second conversation with this one's past. Memory is shared until one of the two is
        added to.
        """
        other = KVCache.__new__(KVCache)
        vars(other).update(vars(self))
        self._shared = other._shared = self._keys is not None
        other._overwritten, other._guards = [], 0
        return other

    def _foreign(self, what: str, new: Tensor, own: Array) -> CacheError:
        def shown(shape: tuple[int, ...], dtype: DType) -> str:
            return f"batch {shape[0]}, {shape[1]} heads of {shape[3]}, {name(dtype)}"

        return CacheError(
            "KVCache",
            f"{what} of {shown(new.shape, new.dtype)} for a cache of {shown(own.shape, own.dtype)}",
            got=new.shape,
            wanted=own.shape,
            hint="one cache per layer and conversation; reset() makes it new",
        )

    def __len__(self) -> int:
        return self.length

    def __bool__(self) -> bool:
        return True  # an empty cache is a cache

    def __repr__(self) -> str:
        room = f"of {self.capacity} " if self.capacity is not None else ""
        return f"<KVCache: {self.length} {room}positions>"


class StaticCache:
    """Keys and values of one layer in buffers of a fixed size whose length is a tensor: a step
    recorded with it can be replayed at any length.

    shape: (B, H, capacity, D) of the buffers.   length: 0-d int64, how many positions come before
        those that are appended, shared by all layers;
    who makes a step gives it its value.   first: (B,) int64, how many positions at the start of
    each row are padding.
    It serves plain causal attention: no window, no ALiBi, no masks but the padding, rows of one
        length. Nothing is taped.
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
        """Take over the positions that another cache holds. Raises CacheError if they do not fit."""
        n, keys, values = cache.length, cache._keys, cache._values
        if (
            keys is None
            or values is None
            or cache.window is not None
            or cache._lengths is not None
            or n > self.capacity
        ):
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
    number of appends, reorders and forks inside.
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
