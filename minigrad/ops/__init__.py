"""The ops, by name: `ops.tanh(x)` works on arrays and on Tensors. See docs/design.md for what an op
is.

An op is found by looking into the files that make ops; nothing else has to name it. Where each is
stands in __init__.pyi, for editors and type checkers.
"""

from types import ModuleType

from minigrad.ops import (
    attention,
    calculus,
    contract,
    elementwise,
    fused,
    index,
    loss,
    movement,
    philox,
    quantised,
    reduce,
    shape,
)
from minigrad.ops.more import along, convolve, einsum

_MODULES: tuple[ModuleType, ...] = (
    *(loss, shape),  # first: their cross_entropy, cat and pad give way to the ops of these names
    *(attention, calculus, contract, elementwise, fused, index, movement),
    *(philox, quantised, reduce, along, convolve, einsum),
)
for _module in _MODULES:
    for _name, _thing in vars(_module).items():
        if hasattr(_thing, "numpy") and _name == _thing.__name__:
            globals()[_name] = _thing
