"""The compiled step. Imports the compiler, so the Trainer imports it only when it is needed."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from typing import Any

from minigrad.compiler import NativeError, Step, jit
from minigrad.compiler.native import find_compiler
from minigrad.dtypes import Array
from minigrad.optim import Optimizer
from minigrad.train.steps import Batch, EagerStep, Model, NotCompiled, weigh

_RECORDED = 4  # calls, at most, after which a step is replayed: two, and two with gradients present


class CompiledStep(EagerStep):
    """Recorded by `minigrad.jit` and replayed as C: one program for the gradients of a piece of a
    batch, which clips them where the piece is all there is to sum, else another one for that; one
    for the update, and one for the evaluation's loss.

    A recorded call of a compiled step is eager, and equal to a replay only to rounding. A run that
    is resumed, or that has another number of ranks, must not have other recorded calls: so recorded
    calls and audits are rehearsals, which are undone, and every step that counts is a replay.
    Rehearsals exchange nothing with other ranks.
    strict=False: raises NotCompiled where `jit` would go on with numpy (`backend` is "numpy" then).
    Raises CaptureError if the model's loss cannot be recorded.
    """

    backend = "c"

    def __init__(
        self, model: Model, optimizer: Optimizer, clip_norm: float, parts: int, strict: bool
    ) -> None:
        try:
            note = f"by {find_compiler()}"
        except NativeError as error:
            if not strict:
                raise NotCompiled(str(error)) from None
            note = str(error)
        super().__init__(model, optimizer, clip_norm, parts, note)
        self.strict, self._warned = strict, set[str]()
        self._shapes, self._rows = set[Any](), set[int]()
        self._call_piece = self._replayed(self._piece)
        self._call_clip = self._replayed(self._clip)
        self._call_update = self._replayed(optimizer.step)
        self._call_loss = self._replayed(model.loss)

    def _replayed(self, function: Any) -> Any:
        return functools.partial(self._replay, jit(function))

    def gradients(self, pieces: list[Batch]) -> tuple[float, float]:
        """As `EagerStep.gradients`; a batch of a new shape is rehearsed first."""
        self.prepare(pieces)
        return super().gradients(pieces)

    def prepare(self, pieces: list[Batch]) -> None:
        """Record and compile the step for the shapes of these pieces, unless it is compiled
        already: a part, clipping, and the update.
        """
        shapes = tuple((x.shape, y.shape) for x, y in pieces)
        if shapes not in self._shapes:
            with self.undone():
                weighed = weigh(self.model, pieces, self._dtype)
                self._run(weighed[: len(pieces) // self.parts], self.parts == 1)
                if self.parts > 1:
                    self._call_clip()
                with self.undone():  # what it writes to is known only where gradients are present
                    self.update()
            self._shapes.add(shapes)
            self._rows |= {n * len(x) for x, _ in pieces for n in (1, self.parts)}

    def loss(self, x: Array, y: Array) -> Any:
        """Compiled for the rows of a piece and of a batch of one piece per part; a shorter last
        batch is not worth a program of its own.
        """
        return self._call_loss(x, y) if len(x) in self._rows else super().loss(x, y)

    def _replay(self, step: Step[..., Any], *args: Any) -> Any:
        """Call a step, after rehearsals where the call would be recorded, or be an audit."""
        for _ in range(_RECORDED):
            if step.ready(*args):
                break
            with self._watched(step), self.undone():
                step(*args)
        return step(*args)

    @contextlib.contextmanager
    def _watched(self, step: Step[..., Any]) -> Iterator[None]:
        """Raise NotCompiled where the step falls back to numpy before training has begun, unless
        the caller insists on `jit`; else pass its warnings on, equal ones once.
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        if step.note and not self.strict and not self._shapes:
            raise NotCompiled(step.note)
        for w in caught:
            if str(w.message) not in self._warned:
                self._warned.add(str(w.message))
                warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
        if step.note:
            self.backend = "numpy"
