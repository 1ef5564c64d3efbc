"""The compiled step. Brings the compiler along, so the Trainer imports it when it is asked for."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from minigrad.autograd import no_grad
from minigrad.compiler import NativeError, jit
from minigrad.compiler.native import find_compiler
from minigrad.dtypes import Array
from minigrad.optim import Optimizer
from minigrad.random import default_generator
from minigrad.tensor import Tensor
from minigrad.train.steps import Batch, EagerStep, Model, NotCompiled, shares


class CompiledStep(EagerStep):
    """Recorded by `minigrad.jit` and replayed as C: one program for the gradients of a batch, one
    for the update, one for the evaluation's loss.

    The first calls of a compiled step are eager, and equal to it only to rounding. A run that is
    resumed must not have them once more: so they are made in `prepare`, as a rehearsal that is
        undone, and every step that counts is a replay.
    strict=False: raises NotCompiled where `jit` would go on with numpy (`backend` is "numpy" then).
    Raises CaptureError if the model's loss cannot be recorded.
    """

    backend = "c"

    def __init__(self, model: Model, optimizer: Optimizer, clip_norm: float, strict: bool) -> None:
        try:
            note = f"by {find_compiler()}"
        except NativeError as error:
            if not strict:
                raise NotCompiled(str(error)) from None
            note = str(error)
        super().__init__(model, optimizer, clip_norm, note)
        self.strict, self._shapes = strict, set[Any]()
        self._call_part, self._call_update, self._call_loss = (
            jit(self._part),
            jit(optimizer.step),
            jit(model.loss),
        )

    def gradients(self, parts: list[Batch]) -> tuple[float, float]:
        """As eager's; a batch of a new shape is rehearsed first."""
        self.prepare(parts)
        return super().gradients(parts)

    def prepare(self, parts: list[Batch]) -> None:
        """Record and compile the step for the shapes of these parts, unless that is done."""
        shapes = tuple((x.shape, y.shape) for (x, y), _ in shares(parts))
        if shapes not in self._shapes:
            with self._watched():
                self._rehearse(parts)
            self._shapes.add(shapes)

    def _rehearse(self, parts: list[Batch]) -> None:
        drawn, before = default_generator.get_state(), list[tuple[Tensor, Tensor]]()
        try:
            # Two calls are recorded and compared; an update finds gradients that are there already
            # from its second call on, so that it takes three.
            for _ in range(3):
                super().gradients(parts)
                before = before or [(t, Tensor(t)) for t in self.optimizer.written()]
                self.update()
        finally:
            default_generator.set_state(drawn)
            with no_grad():
                for t, value in before:
                    t.assign(value)
            self.optimizer.zero_grad()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Turn a warning of `jit`, that it runs without C, into NotCompiled unless the caller
        insists on `jit`.
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        ours = [w for w in caught if str(w.message).startswith("minigrad.jit")]
        if ours and not self.strict:
            raise NotCompiled(
                str(ours[0].message).removeprefix("minigrad.jit: ").partition("; the step runs")[0]
            )
        for w in caught:
            if w not in ours or (
                w is ours[0] and self.backend == "c"
            ):  # one program after another would say the same
                warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
        # Written only then: a recorded step is recorded anew when an attribute of its object
        # changes
        if ours:
            self.backend = "numpy"

    def loss(self, x: Array, y: Array) -> Any:
        """Compiled for the shape of a training step's parts; a shorter last batch is not worth a
        program of its own.
        """
        if not any((x.shape, y.shape) in parts for parts in self._shapes):
            return self.model.loss(x, y)
        if ("loss", x.shape, y.shape) not in self._shapes:
            with self._watched():
                for _ in range(2):
                    self._call_loss(x, y)
            self._shapes.add(("loss", x.shape, y.shape))
        return self._call_loss(x, y)
