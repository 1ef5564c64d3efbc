"""Clipping gradients, in place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minigrad.arguments import as_float, require
from minigrad.autograd import no_grad, show
from minigrad.optim import update
from minigrad.tensor import Tensor


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    *,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale the gradients of all parameters together, in place, so that their common 2-norm is at
    most `max_norm`.

    g <- g min(1, max_norm / (norm + 1e-6)),   norm = sqrt(sum of all g^2), summed in float64

    Returns the norm before clipping, a 0-d Tensor (0 if no parameter has a gradient). A norm that
    is not finite makes the gradients NaN or 0, as in PyTorch, or raises NotFiniteError, with the
    gradients unchanged, if error_if_nonfinite. max_norm=inf clips nothing. Raises ConfigError
    unless max_norm > 0, and for a norm_type other than 2.
    """
    max_norm = as_float("clip_grad_norm_", "max_norm", max_norm, 0, above=True)
    require(norm_type == 2, "clip_grad_norm_", "norm_type", norm_type, "2, the only one there is")
    gradients = _gradients(parameters)
    if not gradients:
        return Tensor(0.0)
    how: dict[str, Any] = {"max_norm": max_norm, "error_if_nonfinite": error_if_nonfinite}
    with no_grad():
        return update.clip_grad_norm_(*gradients, changes=len(gradients), **how)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limit every number of the gradients to -clip_value .. clip_value, in place. NaN stays NaN.
    Raises ConfigError unless clip_value >= 0.
    """
    clip_value = as_float("clip_grad_value_", "clip_value", clip_value, 0)
    gradients = _gradients(parameters)
    if gradients:
        with no_grad():
            update.clip_grad_value_(*gradients, changes=len(gradients), clip_value=clip_value)


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    params = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    show(p for p in params if p.grad is not None)
    return [g for p in params if (g := p.grad) is not None]
