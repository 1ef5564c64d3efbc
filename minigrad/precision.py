"""The precision of matrix products: whether their operands are rounded to bfloat16.

Products, those of attention among them, round float32 operands by `operand`; sums and results stay
float32, and so does everything else. Compiled steps do the same while operands are packed.
"""

from __future__ import annotations

from contextvars import ContextVar

import numpy as np

from minigrad.arguments import require
from minigrad.dtypes import Array, bfloat16, cast

# PyTorch's names for them; its "high" is a precision in between, for which there is no product
_SPELLINGS = {"highest": "float32", "medium": "bfloat16"}
_chosen = ["float32"]
PRECISION: ContextVar[str | None] = ContextVar("minigrad_matmul_precision", default=None)


def as_precision(call: str, name: str, value: str) -> str:
    """Return "float32" or "bfloat16". Raises ConfigError for another word."""
    found = _SPELLINGS.get(value, value) if isinstance(value, str) else value
    wanted = '"float32" ("highest") or "bfloat16" ("medium")'
    require(found in ("float32", "bfloat16"), call, name, value, wanted)
    return found


def set_matmul_precision(precision: str) -> None:
    """Round the operands of float32 matrix products to bfloat16, or do not (the default).

    precision: "float32" or "bfloat16"; PyTorch's "highest" and "medium" are these two.

    Holds for the process. Rounding is to nearest, ties to even, and numbers below 2^-126 become 0;
    sums are float32. It makes compiled steps faster on CPUs with AMX or AVX512-BF16, and eager
    code slower. Products of optimizers and with weights in blocks stay float32.
    Raises ConfigError for another word.
    """
    _chosen[0] = as_precision("set_matmul_precision", "precision", precision)


set_float32_matmul_precision = set_matmul_precision  # PyTorch's name


def get_matmul_precision() -> str:
    """Return "float32" or "bfloat16": what operands of products are rounded to here."""
    return PRECISION.get() or _chosen[0]


class matmul_precision:
    """Hold the precision in a `with` block, for this thread or task; None changes nothing."""

    def __init__(self, precision: str | None) -> None:
        self._precision = precision

    def __enter__(self) -> None:
        self._token = PRECISION.set(self._precision or PRECISION.get())

    def __exit__(self, *_: object) -> None:
        PRECISION.reset(self._token)


def operand(x: Array) -> Array:
    """Return x, rounded to bfloat16 if products are to be of rounded numbers and it is float32."""
    if (PRECISION.get() or _chosen[0]) == "float32" or x.dtype != np.float32:
        return x
    y = cast(cast(x, bfloat16), x.dtype)
    return np.where(np.abs(y) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), y), y)
