"""Functions of functions: derivatives without `.grad`, and checkpointing. All of them nest, to any
order.
"""

from minigrad.func.checkpoint import checkpoint
from minigrad.func.transforms import grad, hessian, hvp, jacobian, jacrev, jvp, value_and_grad, vjp

__all__ = [
    "checkpoint",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jacrev",
    "jvp",
    "value_and_grad",
    "vjp",
]
