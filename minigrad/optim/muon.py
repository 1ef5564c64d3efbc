"""Muon."""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Any

from minigrad.arguments import as_int, one_of
from minigrad.dtypes import Array, cast
from minigrad.errors import ShapeError
from minigrad.ops import add, div, matmul, mul, sqrt, sum as total
from minigrad.ops.contract import swap_last
from minigrad.optim.optimizer import Flag, Fraction, Optimizer, Params, Rate, given
from minigrad.precision import matmul_precision
from minigrad.primitive import primitive

# Jordan's: steep at 0, so that small singular values grow fast; after five steps all those above
# 0.01 are between about 0.7 and 1.2.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ADJUSTED = ("original", "match_rms_adamw")
_swap: Any = swap_last


def newton_schulz(
    g: Any, steps: int = 5, coefficients: Any = _COEFFICIENTS, eps: float = 1e-7
) -> Any:
    """Return a matrix with the singular vectors of `g` and singular values near 1: an odd
    polynomial of fifth degree, applied `steps` times.

    x = g / (|g| + eps);   x <- a x + (b A + c A A) x   with A = x x^T
    a tall matrix is worked on as a wide one

    g: (..., M, N), array or Tensor.   |g|: the Frobenius norm, which no singular value exceeds.
    From Jordan et al. 2024, "Muon: an optimizer for hidden layers", after Bernstein and Newhouse
    2024, arXiv:2409.20325.
    """
    a, b, c = coefficients
    tall = g.shape[-2] > g.shape[-1]
    x = _swap(g) if tall else g
    x = div(x, add(sqrt(total(mul(x, x), axis=(-2, -1), keepdim=True)), eps))
    for _ in range(steps):
        gram = matmul(x, _swap(x))
        x = add(mul(x, a), matmul(add(mul(gram, b), mul(matmul(gram, gram), c)), x))
    return _swap(x) if tall else x


@primitive(kind="effect")
def muon_(
    step: Array,
    m: Array,
    *others: Array,
    changes: int,
    nesterov: bool,
    ns_steps: int,
    adjust_lr: str,
) -> Array:
    """One step of Muon: see `Muon`. Settings: [lr, momentum, weight_decay]."""
    n, start, matched = changes - 2, 0, adjust_lr == "match_rms_adamw"
    lr, momentum, decay = others[n].tolist()
    step += 1
    for p, g in zip(others[:n], others[n + 1 :], strict=True):
        M, N = p.shape
        mi, g = m[start : start + p.size].reshape(p.shape), cast(g, m.dtype)
        start += p.size
        mi *= momentum
        mi += g * (1 - momentum)
        with matmul_precision("float32"):
            u = newton_schulz(mi * momentum + g * (1 - momentum) if nesterov else mi, ns_steps)
        ratio = M / N if N else 1.0
        scale = 0.2 * math.sqrt(max(M, N)) if matched else math.sqrt(max(1.0, ratio))
        p[...] = cast(cast(p, m.dtype) * (1 - lr * decay) - u * (lr * scale), p.dtype)
    return step


class Muon(Optimizer):
    """Muon: momentum whose singular values are all made about 1, for the weight matrices of hidden
    layers.

    m <- momentum m + (1 - momentum) g
    u = newton_schulz(m), with nesterov of momentum m + (1 - momentum) g
    p <- p (1 - lr weight_decay) - lr scale u

    adjust_lr: "original", scale = sqrt(max(1, rows / columns)); or "match_rms_adamw", scale = 0.2
        sqrt(max(rows, columns)), with which AdamW's lr and weight_decay fit.
    ns_steps: iterations of `newton_schulz`.
    Raises ShapeError for a parameter that is not a matrix: embeddings, the head, norms and biases
    belong to AdamW in a second optimizer.
    From Jordan et al. 2024, "Muon: an optimizer for hidden layers"; match_rms_adamw from Liu et al.
    2025, arXiv:2502.16982; names and numbers are PyTorch's.
    """

    _settings = ("lr", "momentum", "weight_decay")
    _moments = ("momentum_buffer",)
    _op = muon_, ("nesterov", "ns_steps", "adjust_lr")

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-3,
        weight_decay: Rate = 0.1,
        momentum: Fraction = 0.95,
        nesterov: Flag = True,
        ns_steps: Annotated[int, as_int] = 5,
        adjust_lr: Annotated[str, partial(one_of, choices=_ADJUSTED)] = "original",
    ) -> None:
        super().__init__(params, **given(locals()))

    def _check_params(self, params: list[Any]) -> None:
        super()._check_params(params)
        for i, p in enumerate(params):
            if p.ndim != 2:
                problem = f"params[{i}] must be a matrix, got shape {p.shape}"
                hint = "give Muon the matrices of hidden layers, and the rest to AdamW"
                raise ShapeError("Muon", problem, p.shape, ("rows", "columns"), hint)
