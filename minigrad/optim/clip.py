"""Clipping gradients by their common norm."""

from __future__ import annotations

import math
from collections.abc import Iterable

from minigrad import ops
from minigrad.autograd import no_grad
from minigrad.errors import ConfigError
from minigrad.tensor import Tensor


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, *, error_if_nonfinite: bool = False
) -> Tensor:
    """Scale the gradients of all parameters together, in place, so that their common 2-norm is at
    most `max_norm`.

    g <- g min(1, max_norm / (norm + 1e-6)),   norm = sqrt(sum of all g^2), summed in float64

    Returns the norm before clipping, a 0-d Tensor (0 if no parameter has a gradient). A norm that
    is not finite is passed on as PyTorch does, or raises NotFiniteError, with the gradients
    unchanged, if error_if_nonfinite. max_norm=inf clips nothing. Raises ConfigError unless max_norm
    > 0.
    """
    if math.isnan(max_norm) or max_norm <= 0:
        raise ConfigError(
            "clip_grad_norm_", f"max_norm={max_norm} is not positive", got=max_norm, wanted="> 0"
        )
    params = [parameters] if isinstance(parameters, Tensor) else parameters
    gradients = [p.grad for p in params if p.grad is not None]
    if not gradients:
        return Tensor(0.0)
    with no_grad():
        return ops.clip_grad_norm_(
            *gradients,
            changes=len(gradients),
            max_norm=float(max_norm),
            error_if_nonfinite=error_if_nonfinite,
        )
