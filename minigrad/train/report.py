"""The facts of a training step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """The facts of a step. Losses are in nats per token; `val_loss` is None where there was no
    evaluation.
    """

    step: int
    steps: int
    loss: float
    grad_norm: float
    lr: float
    tokens_per_second: float
    seconds_left: float
    val_loss: float | None
