"""Mixed precision: parameters stored in 16 bits, arithmetic and updates in 32."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from minigrad import dtypes
from minigrad.arguments import require
from minigrad.autograd import clear_gradients, no_grad, show
from minigrad.errors import StateDictError
from minigrad.optim.clip import clip_grad_norm_
from minigrad.optim.optimizer import Optimizer
from minigrad.tensor import Tensor

COUNTERS = ("loss_scale", "good_steps", "skipped")  # what changes besides masters and moments


class MixedPrecision:
    """An optimizer around float32 master copies of parameters that are themselves turned into
    float16 or bfloat16.

        mixed = MixedPrecision(model.parameters(), lambda params: AdamW(params, lr=3e-4), "float16")
        mixed.zero_grad();  mixed.backward(loss);  mixed.step(max_norm=1.0)

    An update smaller than half a unit in a 16-bit weight's last place would be lost; the master
    keeps it. float16 gradients below 6e-8 are 0, so the loss is scaled up before backward and the
    gradients down after it; a step whose gradients overflow is skipped and halves the scale, and
    `growth_interval` good steps in a row double it.

    loss_scale: a fixed scale instead; by default 1 for bfloat16, which has float32's range.
    From Micikevicius et al. 2017, arXiv:1710.03740.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        make: Callable[[list[Tensor]], Optimizer],
        dtype: Any = "bfloat16",
        loss_scale: float | None = None,
        growth_interval: int = 2000,
    ) -> None:
        self.params, self.dtype = list(params), dtypes.as_dtype(dtype)
        good = dtypes.is_half(self.dtype)
        require(good, "MixedPrecision", "dtype", dtype, "float16 or bfloat16")
        good = loss_scale is None or 0 < loss_scale < math.inf
        require(good, "MixedPrecision", "loss_scale", loss_scale, "a finite number above 0")
        self.dynamic = loss_scale is None and self.dtype == dtypes.float16
        self.loss_scale = float(loss_scale or (65536 if self.dynamic else 1))
        self.growth_interval, self.good_steps, self.skipped = growth_interval, 0, 0
        self.masters = [
            Tensor(dtypes.cast(p.data, dtypes.float32), requires_grad=True) for p in self.params
        ]
        self.optimizer = make(self.masters)
        for p in self.params:
            p.data, p.grad = dtypes.cast(p.data, self.dtype), None
            p._version[0] += 1  # what was computed from the old values has no backward any more

    def zero_grad(self) -> None:
        """Forget all gradients."""
        clear_gradients((*self.params, *self.masters))

    def backward(self, loss: Tensor) -> None:
        """loss.backward(), of the scaled loss."""
        loss.backward(np.full(loss.shape, self.loss_scale, np.float32))

    def collect(self) -> None:
        """Add the parameters' gradients, without the loss scale, to those of the masters, and
        forget them.
        """
        for p, master in zip(self.params, self.masters, strict=True):
            if p.grad is not None:  # by ops, so that a step may be recorded
                show([master])
                g = p.grad.float() / self.loss_scale
                master.grad, p.grad = g if master.grad is None else master.grad + g, None

    def step(self, max_norm: float | None = None) -> bool:
        """Update the masters and round them into the parameters; max_norm clips first. False if a
        gradient was not finite: nothing has changed.
        """
        clear_gradients(self.masters)
        self.collect()
        norm = clip_grad_norm_(self.masters, math.inf if max_norm is None else max_norm)
        if not math.isfinite(float(norm)):
            self.lower_scale()
            return False
        self.update()
        return True

    def update(self) -> None:
        """Update the masters from their own gradients and round them into the parameters: `step`
        without collecting and clipping.
        """
        self.optimizer.step()
        self._round()
        self.good_steps += 1
        if self.dynamic and self.good_steps % self.growth_interval == 0:
            self.loss_scale *= 2

    def lower_scale(self) -> bool:
        """After gradients that are not finite: halve a dynamic scale. False if it is the lowest."""
        self.skipped, self.good_steps, before = self.skipped + 1, 0, self.loss_scale
        if self.dynamic:
            self.loss_scale = max(self.loss_scale / 2, 1.0)
        return self.loss_scale < before

    def _round(self) -> None:
        with no_grad():
            for p, master in zip(self.params, self.masters, strict=True):
                p.assign(master)

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on to the bit: masters, optimizer, scale."""
        return {
            "masters": [Tensor(m.data) for m in self.masters],
            "optimizer": self.optimizer.state_dict(),
            **{name: getattr(self, name) for name in COUNTERS},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave. Raises StateDictError, and changes nothing, if it does
        not fit.
        """
        names = {"masters", "optimizer", *COUNTERS}
        shapes = [m.shape for m in self.masters]
        given = [np.asarray(m) for m in state_dict.get("masters", ())]
        got = [m.shape for m in given]
        if not names <= set(state_dict) or got != shapes:
            raise StateDictError("MixedPrecision", "the state does not fit", got, shapes)
        self.optimizer.load_state_dict(state_dict["optimizer"])
        with no_grad():
            for master, values in zip(self.masters, given, strict=True):
                master.assign(values)
        self._round()
        vars(self).update({name: state_dict[name] for name in COUNTERS})

    def __repr__(self) -> str:
        kind, scale = dtypes.name(self.dtype), f"loss_scale={self.loss_scale:g}"
        return f"MixedPrecision({kind}, {scale}, {self.optimizer})"
