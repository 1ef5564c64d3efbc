"""Whether compiled products go through the BLAS that numpy has loaded, or are tiles in C."""

from __future__ import annotations

import os

from minigrad.compiler import native
from minigrad.errors import ConfigError
from minigrad.ops.parallel import Blas, find_blas


def chosen_blas() -> Blas | None:
    """The BLAS that compiled products go through; None where they are tiles in C.
    $MINIGRAD_PRODUCTS ("tiles", "blas") decides otherwise.

    Raises NativeError without a compiler, ConfigError for another word.
    """
    wanted = os.environ.get("MINIGRAD_PRODUCTS", "")
    if wanted not in ("", "tiles", "blas"):
        hint = 'expected "tiles" or "blas"; unset it for what is faster here'
        raise ConfigError("MINIGRAD_PRODUCTS", f"is {wanted!r}", got=wanted, hint=hint)
    tiles = native.has_tiles() if not wanted else wanted == "tiles"
    return None if tiles else find_blas()
