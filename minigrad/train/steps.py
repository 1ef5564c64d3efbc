"""How one training step is made: eagerly, or with parameters in 16 bits; for the third way see
`compiled`.

All have the same three methods, which the Trainer calls: `gradients` of a batch, `update`, and
`loss` for evaluation. Between `gradients` and `update` only the generator has changed, so that the
Trainer can check the numbers and stop.

A batch comes in pieces. The gradients of the pieces of a part are accumulated one after the other;
those of the parts are added by `distributed.sum_gradients`, on as many ranks as there are.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from minigrad import distributed
from minigrad.arguments import require
from minigrad.autograd import no_grad
from minigrad.dtypes import Array
from minigrad.errors import ConfigError
from minigrad.ops.parallel import one_blas_thread
from minigrad.optim import MixedPrecision, Optimizer, clip_grad_norm_
from minigrad.optim.mixed import COUNTERS
from minigrad.random import default_generator
from minigrad.tensor import Tensor

Batch = tuple[Array, Array]
Piece = tuple[Array, Array, Array | None]  # x, y, share of the batch's targets


class Model(Protocol):
    """What the loop needs of a model; the two state_dict methods only for saving and loading."""

    training: bool

    def loss(self, x: Array, y: Array) -> Tensor: ...
    def parameters(self) -> Iterable[Tensor]: ...
    def state_dict(self) -> Mapping[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...
    def train(self, mode: bool = True) -> Any: ...


def evaluate(
    model: Model, batches: Iterable[Batch], loss: Callable[[Array, Array], Any] | None = None
) -> float:
    """Return the mean loss over the targets of all `batches`, without gradients and dropout.

    A target of -100 does not count, as in cross_entropy; a model whose loss is divided by something
    else has a method `count_targets`, as `train.Trainer` says. Each rank computes its share of the
    batches, so that all must call this.
    loss: a function of (x, y) to use in place of `model.loss`.
    Raises ConfigError if there is no target.
    """
    totals, count, ranks = list[float](), 0.0, distributed.size()
    with in_mode(model, training=False), no_grad():
        for n, (x, y) in enumerate(batches):
            targets = counted(model, y)
            mine = targets and n % ranks == distributed.rank()
            totals.append(float((loss or model.loss)(x, y)) * targets if mine else 0.0)
            count += targets
    if not count:
        problem, hint = "there are no targets in the batches", "give some text to evaluate on"
        raise ConfigError("evaluate", problem, got=0, wanted="at least one target", hint=hint)
    # A batch's loss comes from one rank and zeros from the others: the order of the sum below, and
    # so its bits, is that of a single rank.
    (losses,) = distributed.sum_arrays([np.array(totals)])
    return float(np.add.accumulate(losses)[-1]) / count


@contextlib.contextmanager
def in_mode(model: Model, training: bool) -> Iterator[None]:
    """Put the model into training mode, or evaluation mode, inside."""
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)


def counted(model: Model, y: Any) -> float:
    """Return what the mean loss of the targets y is divided by, as the model's `count_targets` says
    if it has one.
    """
    return float(getattr(model, "count_targets", count_targets)(y))


def count_targets(y: Any) -> int:
    """Return the number of targets that a mean loss averages over: of integers, those other than
    -100. Raises ConfigError for other negative ones: another ignore_index, or numbers.
    """
    y = np.asarray(y)
    kept = y[y != -100] if y.dtype.kind in "iu" else y
    least = int(kept.min(initial=0)) if kept is not y else 0
    wanted = "class numbers or -100, unless the model has a method count_targets(y)"
    require(least >= 0, "count_targets", "y", least, wanted)
    return int(kept.size)


def weigh(model: Model, pieces: list[Batch], dtype: Any) -> list[Piece | None]:
    """Return the pieces of a batch, each with its share of all targets, 0-d: the mean loss of the
    batch is the sum of share * (mean loss of the piece). None for a piece without targets; the
    share of a single piece is None.
    """
    if len(pieces) == 1:
        return [(*pieces[0], None)]
    counts = [counted(model, y) for _, y in pieces]
    # The loss decides what the mean over no target is
    counts = counts if any(counts) else [1.0] * len(pieces)
    # An array, since a number would be a constant of the compiled step.
    return [
        (x, y, np.array(n / sum(counts), dtype)) if n else None
        for (x, y), n in zip(pieces, counts, strict=True)
    ]


class NotCompiled(Exception):
    """Why a step is not compiled, in one line."""


class EagerStep:
    """Runs op by op. `backend` names what runs, `note` says why."""

    backend = "eager"

    def __init__(
        self, model: Model, optimizer: Optimizer, clip_norm: float, parts: int = 1, note: str = ""
    ) -> None:
        self.note, self.parts = note, parts
        self.model, self.optimizer, self.clip_norm = model, optimizer, clip_norm
        wide = any(p.dtype == np.float64 for p in model.parameters())
        self._dtype = np.float64 if wide else np.float32
        self._call_piece: Callable[..., tuple[Tensor, Tensor | None]] = self._piece
        self._call_clip: Callable[[], Tensor] = self._clip
        self._call_update: Callable[[], None] = optimizer.step

    def gradients(self, pieces: list[Batch]) -> tuple[float, float]:
        """Leave the clipped gradients of the mean loss over the targets of all `pieces` in `.grad`;
        return that loss and the norm of the gradients before clipping.
        """
        weighed, each = weigh(self.model, pieces, self._dtype), len(pieces) // self.parts
        if self.parts == 1:
            loss, norm = self._run(weighed, clip=True)
            return loss, float(norm)

        def part(i: int) -> float:
            return self._run(weighed[i * each : (i + 1) * each])[0]

        loss = distributed.sum_gradients(self.model, part, self.parts, self._owners())
        return loss, float(self._call_clip())

    def _run(self, pieces: list[Piece | None], clip: bool = False) -> tuple[float, Any]:
        """Leave the gradients of some pieces in `.grad`; return their part of the loss, and the
        norm if they are to be clipped.
        """
        total, norm, used = 0.0, None, [piece for piece in pieces if piece is not None]
        for n, piece in enumerate(used):
            last = n == len(used) - 1
            loss, norm = self._call_piece(*piece, n == 0, clip and last)
            total += float(loss)
        return total, norm

    def _piece(
        self, x: Array, y: Array, share: Array | None, first: bool, clip: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Add the gradients of a piece, times its share of targets, to `.grad`, and clip them."""
        if first:
            self._zero_grad()
        loss = self.model.loss(x, y)
        if share is not None:
            loss = loss * share
        self._backward(loss)
        return loss, self._clip() if clip else None

    def _owners(self) -> list[Tensor]:
        """The tensors in whose `.grad` a step leaves its gradients."""
        return list(self.model.parameters())

    def _zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def _backward(self, loss: Tensor) -> None:
        loss.backward()

    def _clip(self) -> Tensor:
        return clip_grad_norm_(self._owners(), self.clip_norm)

    def update(self) -> None:
        """Take the optimizer's step with the gradients that `gradients` has left."""
        with one_blas_thread(self.parts > 1):
            self._call_update()

    def loss(self, x: Array, y: Array) -> Any:
        """The loss of an evaluation's batch."""
        with one_blas_thread(self.parts > 1):
            return self.model.loss(x, y)

    def measured(self, pieces: list[Batch], seconds: float) -> float:
        """Return the median time of a step, repeated for about that many seconds, or for up to four
        times as many to make eight: three of the first eight that are compiled also run op by op,
        to be checked. Leaves no trace.
        """
        with self.undone():
            self.gradients(pieces)
            with self.undone():  # moments are known only where gradients are present
                self.update()
                marks, most = [time.perf_counter()], 4 * seconds
                while distributed.largest(len(marks) < 4 or marks[-1] - marks[0] < most):
                    self.gradients(pieces)
                    self.update()
                    marks.append(time.perf_counter())
                    most = seconds if len(marks) > 8 else 4 * seconds
                return float(np.median(np.diff(marks)))

    @contextlib.contextmanager
    def undone(self) -> Iterator[None]:
        """Put weights, moments, buffers, gradients and the generator back at the end."""
        drawn = default_generator.get_state()
        owners = [*self.model.parameters(), *self._owners()]
        gradients = [(p, p.grad) for p in owners]
        buffers: Iterable[Tensor] = getattr(self.model, "buffers", tuple)()
        grads = [g for _, g in gradients if g is not None]  # clipping changes them in place
        changed = {id(t): t for t in (*self.optimizer.written(), *buffers, *grads, *owners)}
        written = [(t, Tensor(t)) for t in changed.values()]
        try:
            yield
        finally:
            default_generator.set_state(drawn)
            with no_grad():
                for t, value in written:
                    t.assign(value)
            for p, g in gradients:
                p.grad = g


class MixedStep(EagerStep):
    """With `MixedPrecision`: the model's parameters in 16 bits, the optimizer on float32 masters.
    Runs eagerly: there is no 16-bit C.

    A step whose scaled gradients overflow is repeated with half the scale, on the same batch and
    with the same dropout, so that no batch is lost.
    """

    def __init__(
        self, model: Model, optimizer: Optimizer, clip_norm: float, parts: int, dtype: str
    ) -> None:
        params = [p for group in optimizer.param_groups for p in group["params"]]
        self.mixed = MixedPrecision(params, optimizer.exchange, dtype)
        super().__init__(model, optimizer, clip_norm, parts, "there is no C for 16-bit parameters")
        self._call_update = self.mixed.update

    def gradients(self, pieces: list[Batch]) -> tuple[float, float]:
        """As `EagerStep.gradients`, in the masters' `.grad`."""
        drawn = default_generator.get_state()
        while True:
            loss, norm = super().gradients(pieces)
            if math.isfinite(norm) or not math.isfinite(loss) or not self.mixed.lower_scale():
                return loss, norm
            default_generator.set_state(drawn)

    def _owners(self) -> list[Tensor]:
        return self.mixed.masters

    def _zero_grad(self) -> None:
        self.mixed.zero_grad()

    def _backward(self, loss: Tensor) -> None:
        self.mixed.backward(loss)
        self.mixed.collect()

    @contextlib.contextmanager
    def undone(self) -> Iterator[None]:
        """As `EagerStep.undone`, and the scale."""
        before = {name: getattr(self.mixed, name) for name in COUNTERS}
        try:
            with super().undone():
                yield
        finally:
            vars(self.mixed).update(before)

    def state_dict(self) -> dict[str, Any]:
        """The masters and the scale; the optimizer's state is saved by the Trainer."""
        state = self.mixed.state_dict()
        del state["optimizer"]
        return {"mixed": state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load masters and scale."""
        self.mixed.load_state_dict({**state["mixed"], "optimizer": self.optimizer.state_dict()})
