"""Two habits, one meaning: `dim` is accepted for `axis`, `keepdims` for `keepdim`, and so on, in one place."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

R = TypeVar("R")

_SPELLINGS = {"dim": "axis", "dims": "axis", "keepdims": "keepdim"}


def both_spellings(function: Callable[..., R]) -> Callable[..., R]:
    """Let `function` be called with PyTorch's or numpy's names of arguments, whichever it uses itself."""

    @functools.wraps(function)
    def spelled(*args: Any, **kwargs: Any) -> R:
        for other in _SPELLINGS.keys() & kwargs.keys():
            kwargs[_SPELLINGS[other]] = kwargs.pop(other)
        return function(*args, **kwargs)

    return spelled
